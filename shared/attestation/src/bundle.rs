//! The Sigstore bundle: an envelope with what is needed to verify it.
//!
//! Only the envelope is read here; certificates and timestamps stay in the received bytes for a verifier.

use crate::json::Object;
use crate::{Error, envelope};

/// Both spellings of v0.3: Chainloop writes the first, the Sigstore clients the second.
pub(crate) const MEDIA_TYPES: [&str; 2] = [
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
];

/// Takes the envelope out of a bundle whose media type we know. Older bundles are refused: they are
/// verified by other rules, and a bundle that is read one way and verified another is no evidence.
pub(crate) fn open<'a>(
    media_type: &str,
    envelope: Option<Object<envelope::Wire<'a>>>,
) -> Result<envelope::Wire<'a>, Error> {
    if !MEDIA_TYPES.contains(&media_type) {
        return Err(Error::BundleTypeUnknown(crate::error::clip(media_type)));
    }
    match envelope {
        Some(Object(envelope)) => Ok(envelope),
        None => Err(Error::BundleWithoutEnvelope),
    }
}
