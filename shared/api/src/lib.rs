//! Types that the API's server and clients exchange.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod actor;
pub mod attachments;
pub mod attestations;
pub mod audit_log;
pub mod deliveries;
mod ids;
pub mod inputs;
pub mod intakes;
pub mod integrations;
pub mod issuers;
pub mod jobs;
pub mod materials;
pub mod names;
mod network;
pub mod organization;
mod permission;
pub mod places;
mod problem;
pub mod registrations;
mod timestamp;
pub mod tokens;
mod trace;
pub mod trust;
pub mod workflows;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use actor::{Actor, Client, Kind};
pub use ids::{
    AttachmentId, DeliveryId, IntakeId, IssuerId, JobId, OrganizationName, RegistrationId,
    TrustPolicyId,
};
pub use network::{Network, NotANetwork};
pub use permission::{Action, Role};
pub use problem::{Code, Problem, QuotaUse, REFUSED};
pub use timestamp::Timestamp;
pub use trace::{NotATrace, TRACEPARENT, Trace};

/// One page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give it back as `cursor` for the next page; none on the last.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Returns the first page of what is left of a list that is all at hand; `next` is the cursor of its last item.
    pub fn first(mut items: Vec<T>, limit: usize, cursor: impl FnOnce(&T) -> String) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }
}
