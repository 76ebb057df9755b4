//! What an operator configures: which signers count, how many of them have to sign, and what follows if they did not.

use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// Maximum number of signers in a policy.
pub const MAX_SIGNERS: usize = 16;

/// Maximum size of a PEM text, of a key or of certificates.
pub const MAX_PEM_BYTES: usize = 16 * 1024;

/// Maximum size of a trusted root.
pub const MAX_ROOT_BYTES: usize = 64 * 1024;

/// Maximum length of a signer's name, in characters.
pub const MAX_NAME: usize = 64;

/// Maximum length of an issuer, an identity and an ARN, in bytes.
pub const MAX_TEXT: usize = 512;

/// Requirements on the signatures of an attestation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub mode: Mode,
    /// Number of distinct keys that have to sign.
    #[serde(default = "one")]
    pub threshold: usize,
    #[serde(default)]
    pub signers: Vec<Signer>,
}

fn one() -> usize {
    1
}

/// What follows from a verdict other than `verified`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing is judged.
    Off,
    /// The attestation is accepted, with its verdict.
    Warn,
    /// The attestation is refused.
    Require,
}

/// A signer whose signature counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Signer {
    /// The holder of a private key.
    Key {
        name: String,
        /// Public key: ECDSA on P-256 or P-384, Ed25519, or RSA of at least 2048 bits.
        pem: String,
    },
    /// A key in AWS KMS. Its public key is pinned here, so nothing asks KMS.
    Kms {
        name: String,
        arn: String,
        pem: String,
    },
    /// An identity that a Sigstore certificate authority has checked.
    Keyless {
        name: String,
        /// OpenID Connect issuer, compared exactly.
        issuer: String,
        identity: Identity,
        #[serde(default)]
        trusted_root: TrustedRoot,
    },
    /// An organization of a Chainloop control plane, which issues it certificates that live ten minutes.
    Chainloop {
        name: String,
        /// Certificates of the control plane's authority.
        ca_pem: String,
        /// UUID of the organization, which is the certificates' subject.
        organization: String,
        /// Certificates of the timestamp authority, from its own to its root. Without them only the time of receipt
        /// says when a certificate was used.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timestamp_pem: Option<String>,
    },
}

impl Signer {
    pub fn name(&self) -> &str {
        match self {
            Signer::Key { name, .. }
            | Signer::Kms { name, .. }
            | Signer::Keyless { name, .. }
            | Signer::Chainloop { name, .. } => name,
        }
    }
}

/// The authorities and logs that a keyless signature is held against.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrustedRoot {
    /// Those of Sigstore's public instance, as of the date that [`crate::pinned_root_age`] counts from.
    #[default]
    PublicGood,
    /// Those of another instance: the text of its `trusted_root.json`.
    Json(String),
}

/// Why a policy cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{0} signers: the limit is {MAX_SIGNERS}")]
    TooManySigners(usize),
    #[error("threshold: it is at least 1")]
    ThresholdZero,
    /// All signers with certificates count as one key, since a bundle has one certificate.
    #[error(
        "threshold {threshold}: these signers can have no more than {reachable} keys in one attestation"
    )]
    ThresholdOutOfReach { threshold: usize, reachable: usize },
    #[error("signer {0:?}: a name has 1 to {MAX_NAME} letters, digits, `-`, `_` and `.`")]
    Name(String),
    #[error("signer {0:?}: another signer has this name")]
    NameTaken(String),
    #[error("signer {name:?}: signer {other:?} has the same key")]
    KeyTaken { name: String, other: String },
    #[error("signer {name:?}: {problem}")]
    Signer { name: String, problem: Problem },
}

/// Fault in one signer. No text repeats what was given: it may be a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the PEM is larger than {MAX_PEM_BYTES} bytes")]
    PemTooLarge,
    #[error("the PEM is a private key; give the public key, and replace this pair")]
    PrivateKey,
    #[error("the PEM has to hold one `PUBLIC KEY` and nothing else")]
    NotOnePublicKey,
    #[error("the public key cannot be read, or is not spelled as DER asks")]
    KeyUnreadable,
    #[error("the public key is neither ECDSA on P-256 or P-384, nor Ed25519, nor RSA")]
    KeyUnsupported,
    #[error("the RSA key has {0} bits: 2048 to 8192 are allowed")]
    RsaBits(usize),
    #[error("the ARN is not that of a KMS key: arn:aws:kms:<region>:<account>:key/<id>")]
    NotKmsArn,
    #[error("the issuer has to be an https:// URL of at most {MAX_TEXT} bytes")]
    Issuer,
    #[error("the identity has to have 1 to {MAX_TEXT} bytes, without control characters")]
    IdentityText,
    #[error(
        "the glob has at most {} runs of `*` and no run of three",
        crate::identity::MAX_WILDCARDS
    )]
    GlobWildcards,
    #[error(
        "the identity has to name a host, or an e-mail's domain, before or after what varies: others could have one that fits"
    )]
    IdentityOpen,
    #[error("the prefix has to end in `/`, `@` or `:`, or a longer name would fit as well")]
    PrefixOpen,
    #[error("the PEM has to hold 1 to {0} certificates and nothing else")]
    Certificates(usize),
    #[error("a certificate cannot be read")]
    CertificateUnreadable,
    #[error("a certificate is not that of an authority")]
    NotAuthority,
    #[error("the organization is not a UUID")]
    NotUuid,
    #[error("the trusted root is larger than {MAX_ROOT_BYTES} bytes")]
    RootTooLarge,
    #[error("the trusted root cannot be read")]
    RootUnreadable,
    #[error(
        "the trusted root has no certificate authority, or neither a log nor a timestamp authority"
    )]
    RootIncomplete,
}
