//! The audit log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::actor::Client;
use crate::timestamp::Timestamp;

/// Something that an operator did.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AuditLogEntry")]
pub struct Entry {
    pub id: String,
    /// `registration.create` …
    pub action: String,
    /// The name of what it was done to.
    pub subject: String,
    /// Its id or digest; empty where the name is enough.
    #[serde(default)]
    pub subject_id: String,
    pub detail: String,
    /// The name of the token that did it.
    pub by: String,
    /// The ID of that token.
    #[serde(default)]
    pub token: String,
    #[serde(flatten)]
    pub client: Client,
    pub created_at: Timestamp,
}
