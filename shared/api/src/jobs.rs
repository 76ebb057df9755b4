//! Jobs: work that takes longer than a request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::deliveries::State;
use crate::ids::{AttachmentId, JobId, RegistrationId};
use crate::timestamp::Timestamp;
use crate::workflows::Workflow;

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
    pub id: JobId,
    #[serde(flatten)]
    pub work: JobKind,
    /// Name today of the registration that it is about; none where it is about all, or its row is gone.
    #[serde(default)]
    pub registration_name: Option<String>,
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
    #[serde(default)]
    pub violations: Vec<String>,
    /// Why trust policies refuse what was skipped, the first twenty.
    #[serde(default)]
    pub refused: Vec<String>,
    /// Why it is over, or, of one that runs, why its last page is tried again.
    pub reason: Option<String>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Work of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "kind")]
#[schemars(rename = "Work")]
pub enum JobKind {
    /// Delivers again all that match.
    Redeliver { filter: Filter },
    /// Delivers past attestations to an attachment that was made later.
    Backfill {
        attachment: AttachmentId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
        until: Timestamp,
    },
    /// Lets go what a registration held while it was paused.
    Drain { registration: RegistrationId },
    /// Looks for what breaks the conservation law.
    Audit,
}

impl JobKind {
    /// The kind of work, as the API calls it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Redeliver { .. } => "redeliver",
            Self::Backfill { .. } => "backfill",
            Self::Drain { .. } => "drain",
            Self::Audit => "audit",
        }
    }
}

/// State of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "JobState")]
pub enum JobStatus {
    Running,
    Done,
    Cancelled,
    Failed,
}

/// Deliveries that an operator selects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DeliveryFilter")]
pub struct Filter {
    /// A registration's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<RegistrationId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Workflow>,
    pub state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// End of the period in which they were created.
    pub until: Timestamp,
}
