//! Intakes: URLs to which a Chainloop control plane posts.

use attestation::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::IntakeId;
use crate::timestamp::Timestamp;
use crate::{names, tokens};

/// Ranges of addresses, and workflows, that an intake names at most: they stand in its rows and in the audit log.
pub const CONDITIONS_MOST: usize = 16;

/// Body of `POST /v1/intakes`.
// Not printable: it may hold a secret.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewIntake {
    #[schemars(regex(pattern = names::LABEL))]
    pub name: String,
    /// URL of Chainloop's artifacts, as `https://<control plane>`, to fetch materials that it only names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cas_url: Option<String>,
    /// An API token of Chainloop's that may read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cas_token: Option<String>,
    /// Certificates in PEM of authorities that are trusted there beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cas_ca_certificates: Option<String>,
    /// Seconds of validity, from a minute to ten years; default: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *tokens::VALID_SECS.start(), max = *tokens::VALID_SECS.end()))]
    pub expires_in_secs: Option<u64>,
    /// Ranges of addresses that may post, as `192.0.2.0/24` or `2001:db8::/32`; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = CONDITIONS_MOST))]
    pub allow_from: Vec<String>,
    /// Workflows whose attestations are accepted: an id, `project/name`, `project/*`, or `*`; all of them when empty.
    /// An id is needed here for attachments to that id, whatever names come with it, and the other way round.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = CONDITIONS_MOST))]
    pub workflows: Vec<String>,
}

/// An intake; never its token.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Intake {
    pub id: IntakeId,
    pub name: String,
    pub cas_url: Option<String>,
    /// Ranges of addresses that may post; all of them when empty.
    #[serde(default)]
    pub allow_from: Vec<String>,
    /// Workflows whose attestations are accepted; all of them when empty.
    #[serde(default)]
    pub workflows: Vec<String>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub rotated_at: Option<Timestamp>,
    /// End of its newest URL.
    pub expires_at: Option<Timestamp>,
    #[serde(default)]
    pub expired: bool,
    /// Until when the URL before the newest one works too.
    pub overlap_until: Option<Timestamp>,
    /// When something was last posted to it, to within an hour.
    pub last_used_at: Option<Timestamp>,
    /// The address from which.
    pub last_used_from: Option<String>,
}

/// Response of `POST /v1/intakes`, and of a rotation: shows the token once.
// Not printable: it holds a secret.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "CreatedIntake")]
pub struct NewToken {
    #[serde(flatten)]
    pub intake: Intake,
    /// Chainloop posts to `/v1/intake/` followed by this.
    pub token: String,
}

/// Response of `POST /v1/intake/{token}` to an SBOM; the response to an attestation is an [`Accepted`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "KeptMaterial")]
pub struct Kept {
    pub material: Digest,
    pub size_bytes: u64,
}

/// Response of `POST /v1/intake/{token}` to a test.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TriedIntake")]
pub struct Tried {
    /// `TEST_WEBHOOK`.
    pub kind: String,
}
