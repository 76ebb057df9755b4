//! Signatures by Sigstore: the certificate is of an authority of the trusted root, and the root's logs and timestamp
//! authorities say that it was used while it was valid.

use std::sync::{Arc, LazyLock};

use api::trust::Code;
use api::trust::fault::{MAX_ROOT_BYTES, Problem};
use attestation::{Attestation, Digest, Signature, Statement};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use sigstore_verify::bundle::Error as BundleError;
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{
    Artifact, ArtifactDigest, Bundle, DsseEnvelope, DsseSignature, HashAlgorithm, KeyId,
    PayloadBytes, Sha256Hash, Sha512Hash, SignatureBytes, SignatureContent,
};
use sigstore_verify::{Error, TimestampError, TransparencyLogError, VerificationPolicy, Verifier};

use crate::certificate::anchor;
use crate::material::Material;
use crate::provider;

/// `trusted_root.json` of Sigstore's public instance, as it was on [`PINNED_ON`].
const PINNED: &str = include_str!("public-good.json");
const PINNED_ON: &str = "2026-10-23T00:00:00Z";

static PUBLIC_GOOD: LazyLock<Arc<Root>> =
    LazyLock::new(|| Arc::new(Root::from_json(PINNED).expect("the pinned root is read by a test")));

/// Returns how old the pinned root of Sigstore's public instance is. Logs and authorities that Sigstore began to use
/// since are unknown to it.
pub fn pinned_root_age(at: Timestamp) -> SignedDuration {
    let pinned: Timestamp = PINNED_ON.parse().expect("static text");
    at.duration_since(pinned)
}

/// A trusted root, ready to verify.
pub(crate) struct Root {
    pub(crate) digest: Digest,
    anchors: Vec<TrustAnchor<'static>>,
    verifier: Verifier,
    policy: VerificationPolicy,
}

impl Root {
    pub(crate) fn public_good() -> Arc<Root> {
        Arc::clone(&PUBLIC_GOOD)
    }

    /// Reads a root. What it has is asked of each signature: an entry of its logs where it has logs, an SCT where it
    /// has logs of certificates. A root without logs has to have a timestamp authority.
    pub(crate) fn from_json(json: &str) -> Result<Root, Problem> {
        if json.len() > MAX_ROOT_BYTES {
            return Err(Problem::RootTooLarge);
        }
        provider::install();
        let root = TrustedRoot::from_json(json).map_err(|_| Problem::RootUnreadable)?;
        let verifier = Verifier::new(&root).map_err(|_| Problem::RootUnreadable)?;
        let is_timeless = root.tlogs.is_empty() && root.timestamp_authorities.is_empty();
        if root.certificate_authorities.is_empty() || is_timeless {
            return Err(Problem::RootIncomplete);
        }
        let authorities = root.certificate_authorities.iter();
        let certificates = authorities.flat_map(|authority| &authority.cert_chain.certificates);
        let anchors =
            certificates.map(|one| anchor(&CertificateDer::from(one.raw_bytes.as_bytes())));
        let mut policy = VerificationPolicy::any_identity();
        if root.tlogs.is_empty() {
            policy = policy.skip_tlog_unsafe();
        }
        if root.ctlogs.is_empty() {
            policy = policy.skip_sct();
        }
        Ok(Root {
            digest: Digest::of(json.as_bytes()),
            anchors: anchors.collect::<Result<_, _>>()?,
            verifier,
            policy,
        })
    }

    /// Judges the signature of a certificate whose identity fits. First the two steps that tell a stranger's from the
    /// identity's own: the rest reads the payload into memory several times its size.
    pub(crate) fn judge(
        &self,
        material: &Material,
        attestation: &Attestation,
        signature: &Signature,
        message: &[u8],
        at: Timestamp,
    ) -> Result<(), Code> {
        let leaf = &material.leaf;
        if !leaf.is_issued_by(&self.anchors, &material.intermediates, leaf.not_before) {
            return Err(Code::CertificateUntrusted);
        }
        if !leaf.key.signed(message, &signature.sig) {
            return Err(Code::SignatureMismatch);
        }
        let subject = subject(&attestation.statement).ok_or(Code::SubjectUnsupported)?;
        // Of the parsed envelope, not of the received text: what is verified is what is used.
        let envelope = DsseEnvelope::new(
            attestation.envelope.payload_type.as_str(),
            PayloadBytes::from_bytes(&attestation.envelope.payload),
            DsseSignature::new(SignatureBytes::from_bytes(&signature.sig), KeyId::default()),
        );
        let content = SignatureContent::DsseEnvelope(envelope);
        let bundle = Bundle::new(material.media_type, material.wire.clone(), content);
        let proved = self
            .verifier
            .verify(subject, &bundle, &self.policy)
            .map_err(|error| code(&error))?;
        let is_from_the_future = proved.verified_timestamps().iter().any(|time| *time > at);
        if is_from_the_future {
            Err(Code::EvidenceUntrusted)
        } else {
            Ok(())
        }
    }
}

/// A subject's own digest. Which file it is does not matter here, and the verifier wants one.
fn subject(statement: &Statement) -> Option<Artifact<'static>> {
    let digest = |algorithm: &'static str| {
        let subjects = statement.subjects.iter();
        subjects.filter_map(move |subject| subject.digests.get(algorithm))
    };
    let sha256 = digest("sha256").find_map(|hex| Sha256Hash::from_hex(hex).ok());
    if let Some(hash) = sha256 {
        return Some(hash.into());
    }
    let sha512 = digest("sha512").find_map(|hex| Sha512Hash::from_hex(hex).ok())?;
    let digest = ArtifactDigest::new(HashAlgorithm::Sha2512, sha512.as_bytes().to_vec()).ok()?;
    Some(digest.into())
}

fn code(error: &Error) -> Code {
    match error {
        Error::SignatureInvalid(_) => Code::SignatureMismatch,
        Error::TransparencyLog(
            TransparencyLogError::EntryMismatch(_) | TransparencyLogError::InclusionProof(_),
        ) => Code::EvidenceMismatch,
        Error::Bundle(
            BundleError::MissingInclusionPromise(_)
            | BundleError::MissingInclusionProof(_)
            | BundleError::MissingCheckpoint
            | BundleError::MissingSigningTimeEvidence
            | BundleError::MissingTimestamp,
        )
        | Error::Timestamp(TimestampError::NoVerifiedTimestamp(_)) => Code::EvidenceMissing,
        Error::Bundle(_)
        | Error::InvalidBundle(_)
        | Error::UnsupportedBundle(_)
        | Error::Types(_) => Code::MaterialUnreadable,
        // An unknown log and a forged entry look alike to a root that is older than the log.
        _ => Code::EvidenceUntrusted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_root_is_that_of_its_date() {
        let digest = "sha256:6494e21ea73fa7ee769f85f57d5a3e6a08725eae1e38c755fc3517c9e6bc0b66";
        assert_eq!(
            Root::public_good().digest.to_string(),
            digest,
            "set PINNED_ON to the date of the new root"
        );
        let later: Timestamp = "2026-10-24T01:00:00Z".parse().unwrap();
        assert_eq!(pinned_root_age(later), SignedDuration::from_hours(25));
        assert!(Root::public_good().policy.verifies_tlog());
    }
}
