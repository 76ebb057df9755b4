//! Accepted attestations, with their plans, deliveries and attempts.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Not;
use std::time::Duration;

use api::deliveries::{AttemptOutcome, State};
use api::trust::Verdict;
use api::workflows::{Match, Selector, Workflow};
use api::{
    Actor, AttachmentId, DeliveryId, IntakeId, OrganizationName, RegistrationId, Timestamp, Trace,
};
use attestation::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::row::{Row, shard};
use crate::store::platform::{Index, Item, Key};

/// One attachment that an attestation is fanned out to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    pub attachment: AttachmentId,
    pub registration: RegistrationId,
    pub integration: String,
    /// By what of the plan's workflow the attachment's selector is for it; none when it was planned before that was
    /// kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<Match>,
}

/// An attestation: what was accepted. Whom it goes to is in its plans.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attestation {
    pub organization: OrganizationName,
    /// The envelope's hash: its identity.
    pub hash: Digest,
    /// Digest of the bytes received first; these are delivered.
    pub received: Digest,
    pub size_bytes: u64,
    /// Digests of other bytes that hold the same envelope and came later.
    #[serde(default)]
    pub also: BTreeSet<Digest>,
    /// The id of the intake that had its materials fetched last.
    #[serde(default)]
    pub fetched_by: Option<IntakeId>,
    pub workflow: Workflow,
    #[serde(default)]
    pub run: String,
    pub predicate_type: String,
    /// Number of its plans; the next one's generation.
    pub plans: u32,
    /// The one who sent it first; none when it came before that was kept.
    #[serde(default)]
    pub pushed_by: Option<Actor>,
    /// Parts of its workflow by which it may be delivered, if its sender was limited: the sender states the rest too, and
    /// nobody vouches for that. All when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permitted: Vec<Match>,
    /// On its signatures; none where no trust policy asked for one. A bundle that came later may have changed it, and nothing
    /// changes one that is `verified`.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// The bundle in the store of its control plane, which may have what the verdict lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Digest>,
    /// A trust policy requires it to be verified, and it is not: nothing of it is sent.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub is_unproven: bool,
    /// The sender's trace, if it named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// When its latest plan was made: it outlives all of them.
    pub planned_at: Timestamp,
    pub created_at: Timestamp,
}

/// Reports whether an attestation may be delivered by this part of its workflow, as its row permits it.
pub fn permits(permitted: &[Match], matched: Match) -> bool {
    permitted.is_empty() || permitted.contains(&matched)
}

impl Attestation {
    pub fn partition(organization: &OrganizationName, hash: &Digest) -> String {
        format!("org/{organization}/attestation/{}", hash.hex())
    }

    pub fn at(organization: &OrganizationName, hash: &Digest) -> Key {
        Key::new(Self::partition(organization, hash), "attestation")
    }

    /// Maximum number of further digests that it can be found by: a row has its limits, and whoever sends the same envelope
    /// in more forms than that still gets the same answer.
    const FORMS: usize = 100;

    /// Reports whether bytes with this digest are known to hold its envelope.
    pub fn has_form(&self, received: &Digest) -> bool {
        self.received == *received || self.also.contains(received)
    }

    /// Reports whether bytes with this digest would be one form more: it is not there, and there are not enough.
    pub fn takes_form(&self, received: &Digest) -> bool {
        !self.has_form(received) && self.also.len() < Self::FORMS
    }

    /// Adds bytes that hold its envelope, and says how they find it; none where they do already, or where there are enough.
    pub fn add_form(&mut self, received: Digest) -> Option<DigestAlias> {
        if !self.takes_form(&received) {
            return None;
        }
        self.also.insert(received);
        Some(DigestAlias {
            organization: self.organization.clone(),
            received,
            hash: self.hash,
            created_at: self.created_at,
        })
    }

    /// The hash key of the by-workflow index.
    pub fn workflow_hash(organization: &OrganizationName, workflow: &Workflow) -> String {
        format!(
            "{organization}/attestations/{}/{}",
            workflow.project, workflow.name
        )
    }
}

impl Row for Attestation {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.hash)
    }

    fn indexes(&self) -> Vec<(Index, String, Timestamp)> {
        let workflow = Self::workflow_hash(&self.organization, &self.workflow);
        vec![(Index::ByWorkflow, workflow, self.created_at)]
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.planned_at)
    }
}

/// Progress of a plan. None of its deliveries is sent before it is `Accepted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Its deliveries are being written.
    Accepting,
    /// Its deliveries are written, and whoever did so sends their messages.
    Accepted,
    /// Its deliveries were looked at, and those that nobody had claimed were sent again.
    Sent,
    /// Every one of its deliveries was found, and is final.
    Closed,
}

/// Why there is a further plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanReason {
    Accepted,
    Redelivered,
    Backfilled,
    Tested,
}

/// Fan-out of an attestation: one plan at acceptance, and one for each redelivery or backfill.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub organization: OrganizationName,
    /// The attestation's hash.
    pub attestation: Digest,
    /// 0 for the plan of the acceptance.
    pub generation: u32,
    pub why: PlanReason,
    /// The job that made it, or the claim of the request that did.
    #[serde(default)]
    pub job: Option<String>,
    /// The digest of the bytes to deliver.
    pub received: Digest,
    /// Number of those bytes; 0 in a row written before they were counted.
    #[serde(default)]
    pub size_bytes: u64,
    pub workflow: Workflow,
    /// The attestation's row has a verdict on its signatures.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub is_judged: bool,
    /// The trace of whoever sent the attestation, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    pub stage: Stage,
    pub planned: Vec<Planned>,
    /// Number of times that the reconciler looked at it without sending or closing it.
    pub polls: u32,
    pub created_at: Timestamp,
    #[serde(default)]
    pub wake_at: Option<Timestamp>,
    /// Its deliveries' ids, once they were asked for.
    #[serde(skip)]
    pub ids: OnceCell<Vec<DeliveryId>>,
}

impl Plan {
    pub const PREFIX: &str = "plan/";

    pub fn at(organization: &OrganizationName, attestation: &Digest, generation: u32) -> Key {
        let partition = Attestation::partition(organization, attestation);
        Key::new(partition, format!("{}{generation:06}", Self::PREFIX))
    }

    /// The ids of its deliveries, in the plan's order.
    pub fn deliveries(&self) -> impl Iterator<Item = (DeliveryId, &Planned)> {
        let id = |planned: &Planned| {
            let (organization, attachment) = (&self.organization, &planned.attachment);
            Delivery::id(organization, &self.attestation, attachment, self.generation)
        };
        let ids = self
            .ids
            .get_or_init(|| self.planned.iter().map(id).collect());
        ids.iter().cloned().zip(&self.planned)
    }
}

impl Row for Plan {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.attestation, self.generation)
    }

    fn indexes(&self) -> Vec<(Index, String, Timestamp)> {
        let due = self
            .wake_at
            .map(|wake_at| (Index::Due, shard(&self.attestation.hex()), wake_at));
        due.into_iter().collect()
    }

    fn kept_since(&self) -> Option<Timestamp> {
        (self.stage == Stage::Closed).then_some(self.created_at)
    }
}

/// Finds an attestation by the digest of bytes that were received.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DigestAlias {
    pub organization: OrganizationName,
    pub received: Digest,
    pub hash: Digest,
    pub created_at: Timestamp,
}

impl DigestAlias {
    pub fn at(organization: &OrganizationName, received: &Digest) -> Key {
        Key::new(
            format!("org/{organization}/received/{}", received.hex()),
            "attestation",
        )
    }
}

impl Row for DigestAlias {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.received)
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.created_at)
    }
}

/// Finds the attestations that name a digest, as a subject's or a material's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DigestIndex {
    pub organization: OrganizationName,
    pub digest: Digest,
    /// The attestation's hash.
    pub attestation: Digest,
    /// Creation time of the attestation.
    pub created_at: Timestamp,
}

impl DigestIndex {
    pub const PREFIX: &str = "attestation/";

    pub fn partition(organization: &OrganizationName, digest: &Digest) -> String {
        format!("org/{organization}/digest/{}", digest.hex())
    }
}

impl Row for DigestIndex {
    fn key(&self) -> Key {
        Key::new(
            Self::partition(&self.organization, &self.digest),
            // In the order of their times.
            format!(
                "{}{}/{}",
                Self::PREFIX,
                self.created_at,
                self.attestation.hex()
            ),
        )
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.created_at)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub owner: String,
    pub started_at: Timestamp,
    pub until: Timestamp,
}

// As serde asks.
#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One attestation to one attachment in one plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    pub id: DeliveryId,
    pub organization: OrganizationName,
    /// The attestation's hash.
    pub attestation: Digest,
    /// The digest of the bytes to deliver.
    pub received: Digest,
    /// Number of those bytes; 0 in a row written before they were counted.
    #[serde(default)]
    pub size_bytes: u64,
    pub attachment: AttachmentId,
    pub registration: RegistrationId,
    pub integration: String,
    pub workflow: Workflow,
    /// The attestation's row has a verdict on its signatures.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub is_judged: bool,
    /// The trace of whoever sent the attestation, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// The attachment's, which is for that workflow; none when it was planned before that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// 0 for the plan of the acceptance.
    pub generation: u32,
    pub state: State,
    /// The attempt that is next, or running; the last one when final.
    pub attempt: u32,
    pub due_at: Timestamp,
    /// No attempt begins later: the clock of the 7 days. It stands still while the delivery is held.
    pub give_up_at: Timestamp,
    /// Since when it is held because its registration is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_at: Option<Timestamp>,
    /// It has a reservation at a paced destination.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub has_reservation: bool,
    /// Number of postponements since the last attempt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub put_off: u32,
    /// Number of consecutive crashed attempts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub crashes: u32,
    /// Number of refusals that may be the destination's fault, with others accepted in between.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refusals: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_at: Option<Timestamp>,
    /// When the reconciler must look at it, if nothing else has happened. None when final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<Timestamp>,
    /// Number of times that the next attempt's message was sent.
    pub sends: u32,
    /// Number of polls for a missing material.
    pub polls: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Step → receipt of what is finished, kept over attempts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub progress: BTreeMap<String, Value>,
    /// Further steps are rows of their own: [`Step`].
    #[serde(default, skip_serializing_if = "Not::not")]
    pub has_steps: bool,
    /// The attempt that made it final; none when that has a row of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<Report>,
    /// Why it is in this state; once delivered, what did not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Names that the third party gave to what it received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Map<String, Value>>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Delivery {
    /// Time from `created_at` to `give_up_at` where a row does not say it: part of how rows are stored, whatever the schedule is.
    const GIVE_UP: Duration = Duration::from_hours(7 * 24);

    /// The attempt that made it final, if it stands in this row.
    pub fn last_attempt(&self) -> Option<Attempt> {
        self.last_attempt.clone().map(|report| Attempt {
            organization: self.organization.clone(),
            delivery: self.id.clone(),
            number: self.attempt,
            report,
            created_at: self.created_at,
        })
    }

    /// Reports whether it has been attempted before.
    pub fn is_retry(&self) -> bool {
        self.attempt > 1
    }

    /// The sender's trace with the span of an attempt, which is the same whenever it is asked for.
    pub fn trace_of(&self, attempt: u32) -> Option<Trace> {
        let digest = Digest::of(format!("{} {attempt}", self.id).as_bytes());
        let span = digest.bytes().first_chunk();
        let span = span.expect("32 bytes are more than 8");
        self.trace.map(|trace| trace.with_span(*span))
    }

    /// A delivery's id follows from what it is, so that no repeat can make a second one.
    pub fn id(
        organization: &OrganizationName,
        hash: &Digest,
        attachment: &AttachmentId,
        generation: u32,
    ) -> DeliveryId {
        let digest =
            Digest::of(format!("{organization}\n{hash}\n{attachment}\n{generation}").as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.bytes()[..16]);
        uuid::Builder::from_custom_bytes(bytes)
            .into_uuid()
            .to_string()
            .into()
    }

    pub fn partition(organization: &OrganizationName, id: &DeliveryId) -> String {
        format!("org/{organization}/delivery/{id}")
    }

    pub fn at(organization: &OrganizationName, id: &DeliveryId) -> Key {
        Key::new(Self::partition(organization, id), "delivery")
    }

    /// The hash key of the by-workflow index.
    pub fn workflow_hash(organization: &OrganizationName, workflow: &Workflow) -> String {
        format!(
            "{organization}/deliveries/{}/{}",
            workflow.project, workflow.name
        )
    }

    /// The hash key of the due index for what a paused registration holds: out of the shards that are walked
    /// every minute, and together, so that a drain finds all of it.
    pub fn held_hash(organization: &OrganizationName, registration: &RegistrationId) -> String {
        format!("held/{organization}/{registration}")
    }

    pub fn registration_hash(
        organization: &OrganizationName,
        registration: &RegistrationId,
    ) -> String {
        format!("{organization}/{registration}")
    }
}

impl Row for Delivery {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.id)
    }

    fn indexes(&self) -> Vec<(Index, String, Timestamp)> {
        let registration = Self::registration_hash(&self.organization, &self.registration);
        let workflow = Self::workflow_hash(&self.organization, &self.workflow);
        let mut indexes = vec![
            (Index::ByRegistration, registration, self.created_at),
            (Index::ByWorkflow, workflow, self.created_at),
        ];
        if self.state == State::Failed {
            indexes.push((
                Index::Failed,
                self.organization.to_string(),
                self.created_at,
            ));
        }
        if let Some(wake_at) = self.wake_at {
            let hash = match self.held_at {
                Some(_) => Self::held_hash(&self.organization, &self.registration),
                None => shard(&self.id),
            };
            indexes.push((Index::Due, hash, wake_at));
        }
        indexes
    }

    /// Nearly all of a delivery that was never retried.
    fn implied(item: &Item) -> Item {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
        let mut implied = Item::from_iter([
            ("generation".into(), 0.into()),
            ("attempt".into(), 1.into()),
            ("has_reservation".into(), false.into()),
            ("put_off".into(), 0.into()),
            ("crashes".into(), 0.into()),
            ("refusals".into(), 0.into()),
            ("sends".into(), 1.into()),
            ("polls".into(), 0.into()),
            ("progress".into(), Map::new().into()),
        ]);
        let place = text("pk").strip_prefix("org/");
        if let Some((organization, id)) = place.and_then(|at| at.split_once("/delivery/")) {
            implied.insert("organization".into(), organization.into());
            implied.insert("id".into(), id.into());
        }
        if let Some((_, registration)) = text("by_registration").split_once('/') {
            implied.insert("registration".into(), registration.into());
        }
        if let Ok(created_at) = text("created_at").parse::<Timestamp>() {
            let give_up_at = created_at.plus(Self::GIVE_UP);
            implied.insert("due_at".into(), created_at.to_string().into());
            implied.insert("give_up_at".into(), give_up_at.to_string().into());
        }
        implied
    }

    fn kept_since(&self) -> Option<Timestamp> {
        self.state.is_final().then_some(self.created_at)
    }
}

/// Something that a third party accepted and works on: its delivery is delivered, and its receipt is to be
/// completed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompletionPoll {
    pub organization: OrganizationName,
    pub delivery: DeliveryId,
    pub integration: String,
    /// Number of polls so far.
    pub polls: u32,
    /// Since when.
    pub started_at: Timestamp,
    /// When the reconciler asks, if nothing else has happened.
    pub wake_at: Timestamp,
}

impl CompletionPoll {
    pub fn at(organization: &OrganizationName, delivery: &DeliveryId) -> Key {
        Key::new(Delivery::partition(organization, delivery), "followup")
    }
}

impl Row for CompletionPoll {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.delivery)
    }

    fn indexes(&self) -> Vec<(Index, String, Timestamp)> {
        vec![(Index::Due, shard(&self.delivery), self.wake_at)]
    }
}

/// The newest turn of a fetch of an attestation's missing materials.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FetchTurn {
    pub organization: OrganizationName,
    /// The attestation's hash.
    pub attestation: Digest,
    pub fetch: String,
    pub turn: u32,
    /// The queue's ID of the message that has the turn.
    pub message: String,
    pub taken_at: Timestamp,
}

impl Row for FetchTurn {
    fn key(&self) -> Key {
        let partition = Attestation::partition(&self.organization, &self.attestation);
        Key::new(partition, format!("fetch/{}", self.fetch))
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.taken_at)
    }
}

/// A finished step of a delivery whose row has no room for its receipt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    pub organization: OrganizationName,
    pub delivery: DeliveryId,
    /// As the integration calls the step.
    pub name: String,
    #[serde(default)]
    pub receipt: Value,
    /// Creation time of its delivery, so that both expire together.
    pub created_at: Timestamp,
}

impl Step {
    pub const PREFIX: &str = "step/";
}

impl Row for Step {
    fn key(&self) -> Key {
        let partition = Delivery::partition(&self.organization, &self.delivery);
        // Names are as long as an integration wants.
        let digest = Digest::of(self.name.as_bytes()).hex();
        Key::new(partition, format!("{}{}", Self::PREFIX, &digest[..32]))
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.created_at)
    }
}

/// One try at a delivery.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    pub organization: OrganizationName,
    pub delivery: DeliveryId,
    pub number: u32,
    #[serde(flatten)]
    pub report: Report,
    /// Creation time of its delivery, so that both expire together.
    pub created_at: Timestamp,
}

/// How an attempt went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub ending: AttemptOutcome,
    pub started_at: Timestamp,
    pub duration_ms: u64,
    /// HTTP status, or the protocol's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes of the bodies that were sent; none where nothing was, and nothing counts those of mails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// Failure, described for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// At most 2 KiB of the third party's answer, secrets removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Lease owner that made it: a random ID per claim; empty without a lease.
    pub owner: String,
}

impl Attempt {
    pub const PREFIX: &str = "attempt/";

    pub fn at(organization: &OrganizationName, delivery: &DeliveryId, number: u32) -> Key {
        let partition = Delivery::partition(organization, delivery);
        Key::new(partition, format!("{}{number:04}", Self::PREFIX))
    }
}

impl Row for Attempt {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.delivery, self.number)
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.created_at)
    }
}

/// A message that could not be read, kept with its reason.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QuarantinedMessage {
    pub integration: String,
    pub message: String,
    pub reason: String,
    /// At most 4 KiB of it.
    pub body: String,
    pub created_at: Timestamp,
}

impl Row for QuarantinedMessage {
    fn key(&self) -> Key {
        Key::new(format!("parked/{}", self.integration), &self.message)
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.created_at)
    }
}
