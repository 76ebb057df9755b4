//! Verdicts on an attestation's signatures.

use std::fmt;

use attestation::{Attestation, Digest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// Result of judging one attestation by one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "SignatureVerdict")]
pub struct Verdict {
    pub outcome: Outcome,
    pub reason: Reason,
    /// Signers whose signature was verified, also where they are fewer than the policy asks for.
    pub signers: Vec<VerifiedSigner>,
    /// The policy, as the caller names it: an etag or a digest.
    pub policy: String,
    /// Digest of the trusted root, or of the authority's PEM, that a verified certificate was held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Digest>,
    /// Hash of the envelope whose payload and signatures were judged.
    pub envelope: Digest,
    /// Time of receipt that it was judged at.
    pub at: Timestamp,
}

impl Verdict {
    /// Tells whether this very payload, with these signatures, was judged.
    pub fn is_of(&self, attestation: &Attestation) -> bool {
        self.envelope == attestation.envelope.hash()
    }
}

/// In one line: `verified: release`.
impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome;
        if outcome != Outcome::Verified {
            return write!(formatter, "{outcome}: {}", self.reason.sentence);
        }
        let signers = self.signers.iter().map(|one| one.name.as_str());
        let signers: Vec<_> = signers.collect();
        write!(formatter, "{outcome}: {}", signers.join(", "))
    }
}

/// The answer in one word. The documentation of `verify` says when each applies.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "VerdictOutcome")]
pub enum Outcome {
    Off,
    Verified,
    UnknownSigner,
    Unverifiable,
    Invalid,
}

impl Outcome {
    /// From the best to the worst.
    pub const ALL: [Outcome; 5] = [
        Outcome::Off,
        Outcome::Verified,
        Outcome::UnknownSigner,
        Outcome::Unverifiable,
        Outcome::Invalid,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Off => "off",
            Outcome::Verified => "verified",
            Outcome::UnknownSigner => "unknown-signer",
            Outcome::Unverifiable => "unverifiable",
            Outcome::Invalid => "invalid",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Why the outcome is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "VerdictReason")]
pub struct Reason {
    pub code: Code,
    pub sentence: String,
}

impl From<Code> for Reason {
    fn from(code: Code) -> Reason {
        Reason {
            code,
            sentence: code.sentence().to_owned(),
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident: $outcome:ident, $sentence:literal;)*) => {
        /// Stable name of a reason. Where several apply, the last of this list is given.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case")]
        #[schemars(rename = "VerdictCode")]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            pub const ALL: &[Code] = &[$(Code::$name),*];

            pub fn outcome(self) -> Outcome {
                match self { $(Code::$name => Outcome::$outcome,)* }
            }

            pub fn sentence(self) -> &'static str {
                match self { $(Code::$name => $sentence,)* }
            }
        }
    };
}

codes! {
    PolicyOff: Off, "The policy is off.";
    ThresholdReached: Verified, "As many configured signers signed it as the policy asks for.";
    NoConfiguredSigner: UnknownSigner, "No configured signer signed it.";
    IdentityMismatch: UnknownSigner, "The certificate is for another identity than those configured.";
    CertificateUntrusted: UnknownSigner, "The certificate is not of a configured authority.";
    ThresholdNotReached: UnknownSigner, "Fewer configured signers signed it than the policy asks for.";
    CertificateMissing: Unverifiable, "It came without the certificate that its signature needs.";
    MaterialUnreadable: Unverifiable, "The bundle's verification material cannot be read, or is too large.";
    SeveralSignatures: Unverifiable, "It has several signatures, and the bundle's certificate is for one.";
    KeyUnsupported: Unverifiable, "The certificate's key is of a kind that is not verified.";
    SubjectUnsupported: Unverifiable, "No subject has the SHA-256 or SHA-512 digest that a keyless signature needs.";
    EvidenceMissing: Unverifiable, "The bundle has no transparency log entry or timestamp that the trusted root asks for.";
    EvidenceUntrusted: Unverifiable, "A log entry, a log's promise or a timestamp cannot be verified by the trusted root.";
    CertificateExpired: Unverifiable, "The certificate was not valid when it was received, and no trusted timestamp is from when it was.";
    BundleMismatch: Unverifiable, "What the control plane's store has as its bundle is none, or that of another envelope.";
    TooManySignatures: Unverifiable, "It has more signatures than the policy's keys are tried on.";
    EvidenceMismatch: Invalid, "The log entry is about something else than this envelope.";
    SignatureMismatch: Invalid, "A signature in the name of a configured signer does not fit the payload.";
}

/// A configured signer whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifiedSigner {
    /// Name in the policy.
    pub name: String,
    #[serde(flatten)]
    pub proof: Proof,
}

/// Key or certificate that a signer is known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[schemars(rename = "SignerProof")]
pub enum Proof {
    Key { key_id: Digest },
    Kms { key_id: Digest, arn: String },
    Keyless { issuer: String, identity: String },
    Chainloop { organization: String },
}

impl fmt::Display for Proof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proof::Key { key_id } => write!(formatter, "key {key_id}"),
            Proof::Kms { arn, .. } => formatter.write_str(arn),
            Proof::Keyless { issuer, identity } => write!(formatter, "{identity}, by {issuer}"),
            Proof::Chainloop { organization } => write!(formatter, "organization {organization}"),
        }
    }
}
