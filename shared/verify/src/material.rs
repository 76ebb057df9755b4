//! Verification material of a bundle: the signer's certificate, log entries and timestamps.
//!
//! Nothing here is trusted for where it stands. It proves something about an envelope or it does not, so it may as well
//! come from another document than the envelope.

use std::borrow::Cow;

use api::trust::Code;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::value::RawValue;
use sigstore_verify::types::{MediaType, VerificationMaterial, VerificationMaterialContent};

use crate::certificate::Leaf;

/// Maximum size of the material's JSON. The largest seen have 10 KB.
pub const MAX_MATERIAL_BYTES: usize = 256 * 1024;

/// Maximum number of certificates, of log entries and of timestamps. Most bundles have one of each.
pub const MAX_MATERIAL_ITEMS: usize = 8;

/// The material of a signature with a certificate.
pub(crate) struct Material {
    pub(crate) leaf: Leaf,
    pub(crate) intermediates: Vec<CertificateDer<'static>>,
    pub(crate) media_type: MediaType,
    pub(crate) wire: VerificationMaterial,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow, rename = "mediaType", alias = "media_type")]
    media_type: Option<Cow<'a, str>>,
    #[serde(
        borrow,
        rename = "verificationMaterial",
        alias = "verification_material"
    )]
    material: Option<&'a RawValue>,
}

impl Material {
    /// Reads it from a bundle; a bare envelope has none.
    pub(crate) fn read(document: &[u8]) -> Result<Material, Code> {
        let document: Document<'_> =
            serde_json::from_slice(document).map_err(|_| Code::MaterialUnreadable)?;
        let json = document.material.ok_or(Code::CertificateMissing)?.get();
        if json.len() > MAX_MATERIAL_BYTES {
            return Err(Code::MaterialUnreadable);
        }
        let media_type = document.media_type.as_deref().unwrap_or_default();
        let media_type = media_type.parse().map_err(|_| Code::MaterialUnreadable)?;
        let wire: VerificationMaterial =
            serde_json::from_str(json).map_err(|_| Code::MaterialUnreadable)?;
        let (leaf, issuers) = match &wire.content {
            VerificationMaterialContent::Certificate(certificate) => {
                (&certificate.raw_bytes, &[][..])
            }
            VerificationMaterialContent::X509CertificateChain { certificates } => {
                let (leaf, issuers) = certificates.split_first().ok_or(Code::CertificateMissing)?;
                (&leaf.raw_bytes, issuers)
            }
            // Its signature is by a key, and configured keys are tried in any case.
            _ => return Err(Code::NoConfiguredSigner),
        };
        let timestamps = wire.timestamp_verification_data.rfc3161_timestamps.len();
        let most = (issuers.len() + 1)
            .max(wire.tlog_entries.len())
            .max(timestamps);
        if most > MAX_MATERIAL_ITEMS {
            return Err(Code::MaterialUnreadable);
        }
        Ok(Material {
            leaf: Leaf::read(leaf)?,
            intermediates: issuers
                .iter()
                .map(|issuer| issuer.raw_bytes.as_bytes().to_vec().into())
                .collect(),
            media_type,
            wire,
        })
    }
}
