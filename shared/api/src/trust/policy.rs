//! Trust policies as operators write them: signers, a threshold, and a mode for what does not reach it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::identity::Identity;

/// Requirements on the signatures of an attestation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SignerPolicy")]
pub struct Policy {
    pub mode: Mode,
    /// Number of distinct keys that have to sign.
    #[serde(default = "one")]
    pub threshold: usize,
    #[serde(default)]
    pub signers: Vec<Signer>,
}

pub(crate) fn one() -> usize {
    1
}

/// Treatment of an attestation that is not `verified`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "TrustMode")]
pub enum Mode {
    /// Nothing is judged.
    Off,
    /// The attestation is accepted, with its verdict.
    Warn,
    /// The attestation is refused.
    Require,
}

/// A signer whose signature counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
        #[serde(default, skip_serializing_if = "TrustedRoot::is_default")]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrustedRoot {
    /// The public instance of Sigstore, as of the date that `verify` pins.
    #[default]
    PublicGood,
    /// Another instance: the text of its `trusted_root.json`.
    Json(String),
}

impl TrustedRoot {
    fn is_default(&self) -> bool {
        *self == Self::PublicGood
    }
}

#[cfg(test)]
mod tests {
    use schemars::generate::SchemaSettings;

    use super::*;

    /// One description in the API's document is for both.
    #[test]
    fn a_signer_is_described_alike_where_it_is_taken_and_where_it_is_shown() {
        let settings = SchemaSettings::draft2020_12();
        let taken = settings.clone().for_deserialize().into_generator();
        let shown = settings.for_serialize().into_generator();
        assert_eq!(
            taken.into_root_schema_for::<Signer>(),
            shown.into_root_schema_for::<Signer>()
        );
    }
}
