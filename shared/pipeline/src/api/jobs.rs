//! Jobs: work that takes longer than a request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::rows::{JobKind, JobStatus, State};

/// Deliveries a second of a job, at most.
pub const FASTEST: u32 = 50;

/// What `POST /v1/redeliveries` takes: which deliveries are delivered again.
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
    /// A final state; `failed` when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Made at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Made at this time or earlier; now when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// 1 to 50; 10 when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = FASTEST))]
    pub per_second: Option<u32>,
    /// Only counts.
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
    /// How many were looked at.
    pub seen: u64,
    /// How many matched and were worked on; of an audit, how many attestations are as they should be.
    pub done: u64,
    /// How many matched and needed nothing; of an audit, how many attestations are not as they should be.
    pub skipped: u64,
    /// What an audit found, the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<String>,
    /// Why it is over, or, of one that runs, why its last page is tried again.
    pub reason: Option<String>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
