//! Registrations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::jobs;
use crate::clock::Timestamp;
use crate::configuration;
use crate::rows::Pause;
use attestation::Digest;

/// What `POST /v1/registrations` takes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRegistration {
    pub integration: String,
    #[schemars(regex(pattern = configuration::LABEL))]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub description: String,
    /// As the integration's `registration_schema` says.
    #[serde(default)]
    pub inputs: Map<String, Value>,
}

/// A registered integration; never its secrets.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Registration {
    pub id: String,
    pub name: String,
    pub integration: String,
    pub version: String,
    pub description: String,
    pub config: Map<String, Value>,
    /// Masked labels of the secret inputs.
    pub secrets: Map<String, Value>,
    /// Nothing is sent through it while it is paused; what comes is held.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// The name of the token that registered it; empty when it was before that was kept.
    #[serde(default)]
    pub created_by: String,
    pub created_at: Timestamp,
    /// What `If-Match` takes, there in quotes: another with every write, also when it is paused.
    #[serde(default)]
    pub etag: String,
    /// Doubts about what passed its check; in the answers to creating and changing it alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What `PATCH /v1/registrations/{registration}` takes: what is to be another, and nothing else.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangedRegistration {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = configuration::LABEL))]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// A JSON merge patch (RFC 7396): a value replaces, null takes away, and what is not named stays. Secret inputs
    /// are replaced all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Map<String, Value>>,
    /// Only checks.
    #[serde(default)]
    pub dry_run: bool,
}

/// What `POST …/pause` takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPause {
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub reason: String,
}

/// What `POST …/resume` takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// How many of the held deliveries are sent in a second, 1 to 50; 10 when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = jobs::FASTEST))]
    pub per_second: Option<u32>,
}

/// What `POST …/resume` answers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ResumedRegistration")]
pub struct Resumed {
    pub registration: Registration,
    /// What drains it; none when it was not paused.
    pub job: Option<String>,
}

/// What `POST …/rotate` takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSecrets {
    /// All secret inputs that the registration has.
    #[serde(default)]
    pub inputs: Map<String, Value>,
}

/// What `DELETE /v1/registrations/{registration}` answers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DeletedRegistration")]
pub struct Deleted {
    pub id: String,
    pub name: String,
    /// How many attachments went with it.
    pub attachments: usize,
}

/// What `POST /v1/registrations/{registration}/test` takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTest {
    /// Of an attachment.
    #[serde(default)]
    pub inputs: Map<String, Value>,
}

/// What `POST /v1/registrations/{registration}/test` answers: the delivery to look at.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Tested {
    pub attestation: Digest,
    pub delivery: String,
}
