//! Jobs: work that takes longer than a request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::rows::{JobKind, JobStatus, State};

/// Deliveries a second of a job, at most.
pub const FASTEST: u32 = 50;

/// Body of `POST /v1/redeliveries`: selects the deliveries to repeat.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redeliveries {
    /// A registration's name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,
    /// A name with `project`, or `project/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// A final state; default: `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Created at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Created at this time or earlier; default: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Deliveries a second, 1 to 50; default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = FASTEST))]
    pub per_second: Option<u32>,
    /// Count only.
    #[serde(default)]
    pub dry_run: bool,
}

/// A job and how far it is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    pub id: String,
    #[serde(flatten)]
    pub work: JobKind,
    pub dry_run: bool,
    pub per_second: u32,
    pub state: JobStatus,
    /// Number of items examined.
    pub seen: u64,
    /// Number of matching items processed; of an audit, the attestations that are accounted for.
    pub done: u64,
    /// Number of matching items that needed nothing; of an audit, the attestations that are not accounted for.
    pub skipped: u64,
    /// Violations that an audit found, the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<String>,
    /// Why it is over, or, of one that runs, why its last page is tried again.
    pub reason: Option<String>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
