//! Registrations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{DeliveryId, JobId, RegistrationId};
use crate::jobs;
use crate::names;
use crate::timestamp::Timestamp;
use attestation::Digest;

/// Body of `POST /v1/registrations`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRegistration {
    pub integration: String,
    #[schemars(regex(pattern = names::LABEL))]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub description: String,
    /// Inputs by the integration's `registration_schema`.
    #[serde(default)]
    pub inputs: Map<String, Value>,
}

/// A registered integration; never its secrets.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Registration {
    pub id: RegistrationId,
    pub name: String,
    pub integration: String,
    pub version: String,
    pub description: String,
    pub config: Map<String, Value>,
    /// Masked labels of the secret inputs.
    pub secrets: Map<String, Value>,
    /// The organization's external ID, where the registration names a role at AWS: the role's trust policy has to ask
    /// for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Nothing is sent through it while it is paused; what comes is held.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// In a list that is asked for circuits only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<Circuit>,
    /// The name of the token that registered it; empty when it was before that was kept.
    #[serde(default)]
    pub created_by: String,
    pub created_at: Timestamp,
    /// Version for `If-Match`, there in quotes; changes with every write, pauses included.
    #[serde(default)]
    pub etag: String,
    /// Doubts about what passed its check; in the answers to creating and changing it alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Body of `PATCH /v1/registrations/{registration}`: the changes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangedRegistration {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::LABEL))]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// A JSON merge patch (RFC 7396): a value replaces, null takes away, and what is not named stays. Secret inputs
    /// are replaced all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Map<String, Value>>,
    /// Check only.
    #[serde(default)]
    pub dry_run: bool,
}

/// Body of `POST …/pause`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPause {
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub reason: String,
}

/// Body of `POST …/resume`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// Held deliveries to send a second, 1 to 50; default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = jobs::FASTEST))]
    pub per_second: Option<u32>,
}

/// Response of `POST …/resume`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ResumedRegistration")]
pub struct Resumed {
    pub registration: Registration,
    /// The job that drains it; none if it was not paused.
    pub job: Option<JobId>,
}

/// Body of `POST …/rotate`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSecrets {
    /// All secret inputs that the registration has.
    #[serde(default)]
    pub inputs: Map<String, Value>,
}

/// Response of `DELETE /v1/registrations/{registration}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DeletedRegistration")]
pub struct Deleted {
    pub id: RegistrationId,
    pub name: String,
    /// Number of attachments deleted with it.
    pub attachments: usize,
}

/// Body of `POST /v1/registrations/{registration}/test`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTest {
    /// Inputs of an attachment.
    #[serde(default)]
    pub inputs: Map<String, Value>,
}

/// Response of `POST /v1/registrations/{registration}/test`: the delivery to follow.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Tested {
    pub attestation: Digest,
    pub delivery: DeliveryId,
}

/// Nothing is sent through a registration while it is paused; what comes is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pause {
    pub since: Timestamp,
    pub reason: String,
    /// The name of the token that asked for it; none when it was paused because it failed.
    #[serde(default)]
    pub by: Option<String>,
}

/// Response of `GET /v1/registrations/{registration}/health`: how its deliveries of the last 24 hours stand.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RegistrationHealth")]
pub struct Health {
    pub circuit: Circuit,
    /// Time since which no attempt was accepted; none when the last one was.
    pub failing_since: Option<Timestamp>,
    /// When the last delivery arrived, of those that were read.
    pub delivered_at: Option<Timestamp>,
    /// When the last delivery failed, of those that were read.
    pub failed_at: Option<Timestamp>,
    /// Deliveries by the hour in which they were created, oldest first: 24 hours.
    pub hours: Vec<Hour>,
    /// There are more: the newest 1,000 are read.
    pub has_more: bool,
}

/// Number of deliveries that were created in an hour, by how they stand now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RegistrationHour")]
pub struct Hour {
    pub delivered: u64,
    pub failed: u64,
    /// Not final.
    pub open: u64,
    /// Skipped or cancelled.
    pub other: u64,
}

/// Circuit breaker of a registration's destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Circuit {
    pub state: CircuitState,
    /// End of the time for which nothing is sent, while it is open.
    pub open_until: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CircuitState {
    Closed,
    /// Nothing is sent.
    Open,
    /// The next delivery tries whether it is up again.
    HalfOpen,
}
