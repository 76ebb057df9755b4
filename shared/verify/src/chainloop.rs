//! Signatures with the certificates that a Chainloop control plane issues to an organization.
//!
//! Such a certificate lives ten minutes and is in no log. It is judged at the time of a trusted timestamp over the
//! signature, or else at the time of receipt.

use api::trust::Code;
use api::trust::fault::Problem;
use attestation::{Digest, Signature};
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use sigstore_verify::tsa::verify_timestamp_for_authority;
use sigstore_verify::types::{DerCertificate, SignatureBytes, TsaAuthority};
use uuid::Uuid;

use crate::certificate::{anchor, certificates};
use crate::material::Material;
use crate::provider;

/// Maximum number of certificates in one PEM: an authority's old and new ones, or a timestamp authority's chain.
const MAX_CERTIFICATES: usize = 4;

pub(crate) struct Organization {
    pub(crate) id: Uuid,
    /// Digest of the authority's PEM.
    pub(crate) root: Digest,
    anchors: Vec<TrustAnchor<'static>>,
    timestamps: Option<TsaAuthority>,
}

impl Organization {
    pub(crate) fn new(
        ca_pem: &str,
        organization: &str,
        timestamp_pem: Option<&str>,
    ) -> Result<Self, Problem> {
        let authorities = certificates(ca_pem, MAX_CERTIFICATES)?;
        Ok(Organization {
            id: Uuid::try_parse(organization).map_err(|_| Problem::NotUuid)?,
            root: Digest::of(ca_pem.as_bytes()),
            anchors: authorities.iter().map(anchor).collect::<Result<_, _>>()?,
            timestamps: timestamp_pem.map(timestamp_authority).transpose()?,
        })
    }

    pub(crate) fn judge(
        &self,
        material: &Material,
        signature: &Signature,
        message: &[u8],
        at: Timestamp,
    ) -> Result<(), Code> {
        let leaf = &material.leaf;
        if leaf.organization != Some(self.id) {
            return Err(Code::IdentityMismatch);
        }
        let time = self.timestamp(material, signature, at).unwrap_or(at);
        if !leaf.is_valid_at(time) {
            return Err(Code::CertificateExpired);
        }
        if !leaf.is_issued_by(&self.anchors, &material.intermediates, time) {
            return Err(Code::CertificateUntrusted);
        }
        if !leaf.key.signed(message, &signature.sig) {
            return Err(Code::SignatureMismatch);
        }
        Ok(())
    }

    /// The earliest time at which the authority saw the signature.
    fn timestamp(
        &self,
        material: &Material,
        signature: &Signature,
        at: Timestamp,
    ) -> Option<Timestamp> {
        let authority = self.timestamps.as_ref()?;
        let signature = SignatureBytes::from_bytes(&signature.sig);
        let tokens = material
            .wire
            .timestamp_verification_data
            .rfc3161_timestamps
            .iter();
        tokens
            .filter_map(|token| {
                verify_timestamp_for_authority(&token.signed_timestamp, &signature, authority).ok()
            })
            .filter(|time| *time <= at)
            .min()
    }
}

fn timestamp_authority(pem: &str) -> Result<TsaAuthority, Problem> {
    provider::install();
    let chain = certificates(pem, MAX_CERTIFICATES)?;
    let root = chain.last().expect("it has at least one");
    anchor(root)?;
    let chain: Vec<DerCertificate> = chain
        .iter()
        .map(|one: &CertificateDer<'_>| DerCertificate::from_bytes(one))
        .collect();
    match chain.as_slice() {
        [own, between @ .., root] => Ok(TsaAuthority::new(
            own.clone(),
            between.to_vec(),
            root.clone(),
            None,
        )),
        // A root alone signs no timestamps.
        _ => Err(Problem::Certificates(MAX_CERTIFICATES)),
    }
}
