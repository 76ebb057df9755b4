//! Workflows that attestations came from.

use integrations::Workflow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A workflow that an attestation came from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Workflow")]
pub struct ListedWorkflow {
    pub workflow: Workflow,
    pub first_seen_at: Timestamp,
    /// When its newest attestation was accepted; none when nothing of it is kept any more.
    pub attested_at: Option<Timestamp>,
    /// Number of attachments that match it.
    pub attachments: usize,
}
