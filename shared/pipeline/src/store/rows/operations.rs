//! Jobs and audit entries of operators, and the state of destinations.

use std::collections::BTreeMap;
use std::time::Duration;

use api::jobs::{JobKind, JobStatus};
use api::workflows::Workflow;
use api::{Client, DeliveryId, JobId, OrganizationName, RegistrationId, Timestamp};
use attestation::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::row::{Row, shard};
use crate::store::platform::{Index, Key};

/// State of a destination, which all functions share. See [`destination`](crate::ledger::breaker).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    pub organization: OrganizationName,
    /// The registration's id.
    pub registration: RegistrationId,
    /// Failures in a row that say that it is down.
    pub failures: u32,
    #[serde(default)]
    pub open_until: Option<Timestamp>,
    /// Since when not one attempt was accepted.
    #[serde(default)]
    pub failing_since: Option<Timestamp>,
    /// Attempts that failed since then; no more are counted than it takes to pause a registration.
    #[serde(default)]
    pub failed_attempts: u32,
    /// Deliveries in a row that the destination, or what they hold, made fail.
    #[serde(default)]
    pub doubts: u32,
    /// Until when those stay out that were tried before.
    #[serde(default)]
    pub retries_until: Option<Timestamp>,
    /// When an attempt was accepted after others had failed.
    #[serde(default)]
    pub accepted_at: Option<Timestamp>,
    /// When the next send may begin, where it is paced.
    pub next_at: Timestamp,
    /// The last reservation.
    pub reserved_until: Timestamp,
}

impl Destination {
    pub fn new(organization: OrganizationName, registration: RegistrationId) -> Self {
        Self {
            organization,
            registration,
            failures: 0,
            open_until: None,
            failing_since: None,
            failed_attempts: 0,
            doubts: 0,
            retries_until: None,
            accepted_at: None,
            next_at: Timestamp::from_millis(0),
            reserved_until: Timestamp::from_millis(0),
        }
    }

    /// The same destination, of which nothing is known.
    pub(crate) fn blank(&self) -> Self {
        Self::new(self.organization.clone(), self.registration.clone())
    }

    pub fn at(organization: &OrganizationName, registration: &RegistrationId) -> Key {
        Key::new(format!("org/{organization}/gate/{registration}"), "gate")
    }

    /// The state of all registrations of an integration, where the third party limits all of us together. No
    /// organization is called so.
    pub fn of_all(integration: &str) -> Self {
        Self::new("*".into(), integration.into())
    }
}

impl Row for Destination {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.registration)
    }
}

/// A place at a third party where one delivery is at work at a time, and what the last one left there: a project
/// whose imports must be in order, an index that everybody writes whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub organization: OrganizationName,
    /// The registration's id.
    pub registration: RegistrationId,
    /// As the integration calls the place.
    pub name: String,
    /// The attempt that has it.
    #[serde(default)]
    pub owner: Option<String>,
    /// When it is free in any case: the end of that attempt's lease.
    pub until: Timestamp,
    #[serde(default)]
    pub note: Value,
    pub updated_at: Timestamp,
}

impl Lock {
    pub fn at(organization: &OrganizationName, registration: &RegistrationId, name: &str) -> Key {
        let digest = Digest::of(name.as_bytes()).hex();
        Key::new(
            format!("org/{organization}/gate/{registration}"),
            format!("lock/{}", &digest[..32]),
        )
    }
}

impl Row for Lock {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.registration, &self.name)
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.updated_at)
    }
}

/// Start of the next page: after this, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCursor {
    /// Index into the workflows that the job walks.
    #[serde(default)]
    pub workflow: usize,
    pub created_at: Timestamp,
    pub id: String,
}

/// Work that takes longer than a request, done by the reconciler in pages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub organization: OrganizationName,
    /// Later ones have later ids.
    pub id: JobId,
    #[serde(flatten)]
    pub work: JobKind,
    /// Counts, and does nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Deliveries in a second, at most.
    pub per_second: u32,
    pub stand: JobStatus,
    #[serde(default)]
    pub place: Option<JobCursor>,
    /// Number of items examined.
    pub seen: u64,
    /// Number of items that matched and were processed, or would have been.
    pub done: u64,
    /// Number of items that matched and needed nothing.
    pub skipped: u64,
    /// Violations that an audit found, the first hundred.
    #[serde(default)]
    pub violations: Vec<String>,
    /// Items that a trust policy refuses, and why: the first twenty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// Why it is over, or, of one that runs, why its last page is tried again.
    #[serde(default)]
    pub reason: Option<String>,
    /// Number of consecutive failures of a page.
    #[serde(default)]
    pub failures: u32,
    /// The name of the token that asked for it.
    pub created_by: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    #[serde(default)]
    pub wake_at: Option<Timestamp>,
}

impl Job {
    pub fn partition(organization: &OrganizationName) -> String {
        format!("org/{organization}/jobs")
    }

    pub fn at(organization: &OrganizationName, id: &JobId) -> Key {
        Key::new(Self::partition(organization), format!("job/{id}"))
    }
}

impl Row for Job {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.id)
    }

    fn indexes(&self) -> Vec<(Index, String, Timestamp)> {
        // The end of an id is random, its beginning a time.
        let spread: String = self.id.chars().rev().collect();
        let due = self
            .wake_at
            .map(|wake_at| (Index::Due, shard(&spread), wake_at));
        due.into_iter().collect()
    }

    fn kept_since(&self) -> Option<Timestamp> {
        (self.stand != JobStatus::Running).then_some(self.updated_at)
    }
}

/// Something that an operator did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub organization: OrganizationName,
    /// Later ones have later ids.
    pub id: String,
    /// `delivery.redeliver`, `registration.pause` …
    pub action: String,
    /// The name of what it was done to.
    pub subject: String,
    /// Its id or digest, by which it is looked up.
    #[serde(default)]
    pub subject_id: String,
    #[serde(default)]
    pub detail: String,
    /// The name of the token that did it.
    pub by: String,
    /// ID of that token.
    #[serde(default)]
    pub token: String,
    #[serde(flatten)]
    pub client: Client,
    pub created_at: Timestamp,
}

impl AuditEntry {
    /// One partition a day.
    pub fn partition(organization: &OrganizationName, day: Timestamp) -> String {
        format!("audit/{organization}/{}", &day.to_string()[..10])
    }
}

impl Row for AuditEntry {
    fn key(&self) -> Key {
        Key::new(
            Self::partition(&self.organization, self.created_at),
            format!("entry/{}", self.id),
        )
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.created_at)
    }
}

/// A request that is known by its `Idempotency-Key`. What it held is in no way kept here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claim {
    pub organization: OrganizationName,
    /// SHA-256 of the token's id and the key, in hex.
    pub key: String,
    /// SHA-256 of the key and all of the request, in hex.
    pub asked: String,
    /// From which the ids of what it makes follow: a UUID that begins with the time.
    pub made: String,
    /// Until then somebody is at work on it.
    pub claimed_until: Timestamp,
    #[serde(default)]
    pub answer: Option<Answer>,
    pub created_at: Timestamp,
}

/// Response to a request. Such responses hold no secrets.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    /// JSON.
    pub body: String,
}

impl Claim {
    /// Time for which an `Idempotency-Key` is remembered.
    const KEPT: Duration = Duration::from_hours(24);

    pub fn at(organization: &OrganizationName, key: &str) -> Key {
        Key::new(format!("org/{organization}/claim/{key}"), "claim")
    }
}

impl Row for Claim {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.key)
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.created_at)
    }

    fn kept_for(&self) -> Option<Duration> {
        Some(Self::KEPT)
    }
}

/// A workflow that an attestation came from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkflowRecord {
    pub organization: OrganizationName,
    pub workflow: Workflow,
    pub first_seen_at: Timestamp,
}

impl WorkflowRecord {
    pub const PREFIX: &str = "seen/";

    pub fn partition(organization: &OrganizationName) -> String {
        format!("org/{organization}/workflows")
    }

    pub fn at(organization: &OrganizationName, workflow: &Workflow) -> Key {
        let Workflow { id, project, name } = workflow;
        // Names come from outside, and may be long.
        let digest = Digest::of(format!("{project}\n{name}\n{id}").as_bytes());
        let sort = format!("{}{}", Self::PREFIX, digest.hex());
        Key::new(Self::partition(organization), sort)
    }
}

impl Row for WorkflowRecord {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.workflow)
    }
}

/// What operators are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A delivery was refused for good.
    DeliveryFailed,
    /// A delivery failed after its last attempt, or its time was over.
    RetriesExhausted,
    RegistrationPaused,
    RegistrationResumed,
    /// A destination is down, and answers again.
    CircuitOpen,
    CircuitClosed,
    TokenExpiring,
    IntakeExpiring,
    /// A certificate of an authority that somebody trusts ends.
    CertificateExpiring,
    QuotaNear,
}

impl Event {
    pub const ALL: [Self; 10] = [
        Self::DeliveryFailed,
        Self::RetriesExhausted,
        Self::RegistrationPaused,
        Self::RegistrationResumed,
        Self::CircuitOpen,
        Self::CircuitClosed,
        Self::TokenExpiring,
        Self::IntakeExpiring,
        Self::CertificateExpiring,
        Self::QuotaNear,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::DeliveryFailed => "delivery-failed",
            Self::RetriesExhausted => "retries-exhausted",
            Self::RegistrationPaused => "registration-paused",
            Self::RegistrationResumed => "registration-resumed",
            Self::CircuitOpen => "circuit-open",
            Self::CircuitClosed => "circuit-closed",
            Self::TokenExpiring => "token-expiring",
            Self::IntakeExpiring => "intake-expiring",
            Self::CertificateExpiring => "certificate-expiring",
            Self::QuotaNear => "quota-near",
        }
    }

    /// The name by which rules of EventBridge find it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::DeliveryFailed => "Delivery Failed",
            Self::RetriesExhausted => "Retries Exhausted",
            Self::RegistrationPaused => "Registration Paused",
            Self::RegistrationResumed => "Registration Resumed",
            Self::CircuitOpen => "Circuit Open",
            Self::CircuitClosed => "Circuit Closed",
            Self::TokenExpiring => "Token Expiring",
            Self::IntakeExpiring => "Intake Expiring",
            Self::CertificateExpiring => "Certificate Expiring",
            Self::QuotaNear => "Quota Near",
        }
    }

    pub(crate) const fn is_of_registration(self) -> bool {
        !matches!(
            self,
            Self::TokenExpiring | Self::IntakeExpiring | Self::QuotaNear
        )
    }
}

/// How often something happened that operators are told of, since they were told last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Notice {
    pub organization: OrganizationName,
    pub event: Event,
    /// ID of a registration, a token, an intake or a trust policy; the name of a quota and its day.
    pub subject: String,
    #[serde(default)]
    pub name: String,
    /// Of the last time, as are `until` and `delivery`.
    #[serde(default)]
    pub detail: String,
    #[serde(default)]
    pub delivery: Option<DeliveryId>,
    pub count: u64,
    pub since: Timestamp,
    /// When it happened last; when it ends, of what is about to.
    pub until: Timestamp,
    #[serde(default)]
    pub sent_at: Option<Timestamp>,
    #[serde(default)]
    pub wake_at: Option<Timestamp>,
}

impl Notice {
    const KIND: &str = "notice";
    const OF_CERTIFICATE: &str = "certificate";

    /// Time for which a notice that was told is remembered.
    const KEPT: Duration = Duration::from_hours(2 * 24);

    pub fn partition(organization: &OrganizationName) -> String {
        format!("org/{organization}/notices")
    }

    pub fn at(organization: &OrganizationName, event: Event, subject: &str) -> Key {
        // Release 0.2.0 reads every `notice`, and does not know this event. What else is due it leaves alone.
        let kind = match event {
            Event::CertificateExpiring => Self::OF_CERTIFICATE,
            _ => Self::KIND,
        };
        let sort = format!("{kind}/{}/{subject}", event.name());
        Key::new(Self::partition(organization), sort)
    }

    /// Reports whether a row with this key is a notice.
    pub fn is_at(key: &Key) -> bool {
        let kind = key.sort.split('/').next().unwrap_or_default();
        [Self::KIND, Self::OF_CERTIFICATE].contains(&kind)
    }
}

impl Row for Notice {
    fn key(&self) -> Key {
        Self::at(&self.organization, self.event, &self.subject)
    }

    fn indexes(&self) -> Vec<(Index, String, Timestamp)> {
        let due = self
            .wake_at
            .map(|wake_at| (Index::Due, shard(&self.subject), wake_at));
        due.into_iter().collect()
    }

    fn kept_since(&self) -> Option<Timestamp> {
        self.sent_at.filter(|_| self.wake_at.is_none())
    }

    fn kept_for(&self) -> Option<Duration> {
        Some(Self::KEPT)
    }
}
