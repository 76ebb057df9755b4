//! What an operator configures: which signers count, how many of them have to sign, and what follows if they did not.

use serde::{Deserialize, Serialize};

use crate::identity::Identity;

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
