//! Attachments.

use std::collections::BTreeMap;

use attestation::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::ids::AttachmentId;
use crate::jobs;
use crate::registrations::Registration;
use crate::timestamp::Timestamp;

/// The longest that a delivery may wait for a material: 24 hours.
pub const LONGEST_WAIT_SECS: u64 = 24 * 60 * 60;

/// Body of `POST …/preview`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPreview {
    /// By either of its digests.
    pub attestation: Digest,
}

/// Response of `POST …/preview`: what a delivery of the attestation would send.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Previewed {
    pub requests: Vec<Preview>,
    /// Why nothing would be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing: Option<String>,
}

/// Body of `POST …/backfill`: selects the past attestations to deliver.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backfill {
    /// Accepted at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Accepted at this time or earlier; default: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Deliveries a second, 1 to 50; default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = jobs::FASTEST))]
    pub per_second: Option<u32>,
    /// Count only.
    #[serde(default)]
    pub dry_run: bool,
}

/// Body of `POST /v1/attachments`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAttachment {
    /// A registration's name or id.
    pub registration: String,
    /// An id, a name, `project/name`, `project/*`, or `*`.
    #[schemars(length(min = 1, max = 512))]
    pub workflow: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub project: Option<String>,
    /// Inputs by the integration's `attachment_schema`.
    #[serde(default)]
    pub inputs: Map<String, Value>,
    /// Seconds that deliveries wait for a missing material, 0 to 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = LONGEST_WAIT_SECS))]
    pub wait_secs: Option<u64>,
    /// Attach although the registration is attached to the workflow with the same `inputs` and `wait_secs` already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_duplicate: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Attachment {
    pub id: AttachmentId,
    /// An id, `project/name`, `project/*`, or `*`.
    pub workflow: String,
    pub config: Map<String, Value>,
    pub wait_secs: Option<u64>,
    pub registration: Registration,
    /// The name of the token that attached it; empty when it was before that was kept.
    #[serde(default)]
    pub created_by: String,
    pub created_at: Timestamp,
    /// Version for `If-Match`, there in quotes; its registration has a version of its own.
    #[serde(default)]
    pub etag: String,
    /// Doubts about what passed its check; in the answers to creating and changing it alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Body of `PATCH /v1/attachments/{attachment}`: the changes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangedAttachment {
    /// A JSON merge patch (RFC 7396): a value replaces, null takes away, and what is not named stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Map<String, Value>>,
    /// Seconds that deliveries wait for a missing material, 0 to 86400; null for the default.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<u64>")]
    pub wait_secs: Option<Option<u64>>,
    /// Check only.
    #[serde(default)]
    pub dry_run: bool,
}

/// Tells null from nothing.
#[expect(clippy::option_option, reason = "null and nothing are two")]
pub(crate) fn given<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A request as it would be sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Preview {
    pub method: String,
    /// Without what is secret in it.
    pub target: String,
    pub headers: BTreeMap<String, String>,
    /// Digest of the body as it would be sent.
    pub digest: Digest,
    pub size_bytes: u64,
    /// The body as text, cut at 64 KiB.
    pub body: String,
}
