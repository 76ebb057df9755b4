//! The Sigstore bundle: an envelope with what is needed to verify it.
//!
//! Only the envelope is read here; certificates and timestamps stay in the received bytes for a verifier. The versions
//! differ in those alone, so a bundle of each is read.

use crate::json::Object;
use crate::{Error, envelope};

const V0_1: &str = "application/vnd.dev.sigstore.bundle.v0.1+json";
const V0_2: &str = "application/vnd.dev.sigstore.bundle.v0.2+json";
const V0_3: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Media types as bundles spell them, and without a parameter. Of the two spellings of v0.3 Chainloop writes the first
/// and the Sigstore clients the second; npm's registry keeps bundles of v0.1 and v0.2.
pub(crate) const MEDIA_TYPES: [(&str, &str); 4] = [
    ("application/vnd.dev.sigstore.bundle+json;version=0.3", V0_3),
    (V0_3, V0_3),
    ("application/vnd.dev.sigstore.bundle+json;version=0.2", V0_2),
    ("application/vnd.dev.sigstore.bundle+json;version=0.1", V0_1),
];

/// Takes the envelope out of a bundle whose media type is known, with that media type without a parameter. A later
/// version may put something else into the same fields, so its bundles are refused.
pub(crate) fn open<'a>(
    media_type: &str,
    envelope: Option<Object<envelope::Wire<'a>>>,
) -> Result<(&'static str, envelope::Wire<'a>), Error> {
    let mut known = MEDIA_TYPES.iter();
    let Some((_, plain)) = known.find(|(spelled, _)| *spelled == media_type) else {
        return Err(Error::BundleTypeUnknown(crate::error::clip(media_type)));
    };
    match envelope {
        Some(Object(envelope)) => Ok((plain, envelope)),
        None => Err(Error::BundleWithoutEnvelope),
    }
}
