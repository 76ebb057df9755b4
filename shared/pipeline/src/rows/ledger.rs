//! What was accepted, and what became of it.

use std::collections::{BTreeMap, BTreeSet};

use attestation::Digest;
use integrations::Workflow;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Row, shard};
use crate::clock::Timestamp;
use crate::platform::{Index, Key};

/// One attachment that an attestation was fanned out to when it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    pub attachment: String,
    pub registration: String,
    pub integration: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceptance {
    /// Its deliveries are being written; nothing has been sent.
    Accepting,
    Accepted,
}

/// An attestation, with the plan of whom it goes to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attestation {
    pub organization: String,
    /// The envelope's hash: its identity.
    pub hash: Digest,
    /// Of the bytes that were received first, which are what is delivered.
    pub received: Digest,
    pub size_bytes: u64,
    /// Digests of other bytes that hold the same envelope and came later.
    #[serde(default)]
    pub also: BTreeSet<Digest>,
    pub workflow: Workflow,
    #[serde(default)]
    pub run: String,
    pub predicate_type: String,
    pub acceptance: Acceptance,
    /// The outbox mark: not all messages are known to be sent.
    pub unsent: bool,
    pub plan: Vec<Planned>,
    pub created_at: Timestamp,
    #[serde(default)]
    pub wake_at: Option<Timestamp>,
}

impl Attestation {
    pub fn at(organization: &str, hash: &Digest) -> Key {
        Key::new(
            format!("org/{organization}/attestation/{}", hash.hex()),
            "attestation",
        )
    }

    /// The ids of the deliveries of its plan, in the plan's order.
    pub fn deliveries(&self) -> impl Iterator<Item = (String, &Planned)> {
        self.plan.iter().map(|planned| {
            (
                Delivery::id(&self.organization, &self.hash, &planned.attachment, 0),
                planned,
            )
        })
    }
}

impl Row for Attestation {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.hash)
    }

    fn indexes(&self) -> Vec<(Index, String, Timestamp)> {
        let workflow = Delivery::workflow_hash(&self.organization, &self.workflow, "attestations");
        let mut indexes = vec![(Index::ByWorkflow, workflow, self.created_at)];
        if let Some(wake_at) = self.wake_at {
            indexes.push((Index::Due, shard(&self.hash.hex()), wake_at));
        }
        indexes
    }

    fn kept_since(&self) -> Option<Timestamp> {
        self.wake_at.is_none().then_some(self.created_at)
    }
}

/// Finds an attestation by the digest of bytes that were received.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Received {
    pub organization: String,
    pub received: Digest,
    pub hash: Digest,
    pub created_at: Timestamp,
}

impl Received {
    pub fn at(organization: &str, received: &Digest) -> Key {
        Key::new(
            format!("org/{organization}/received/{}", received.hex()),
            "attestation",
        )
    }
}

impl Row for Received {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.received)
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.created_at)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Pending,
    Delivering,
    Delivered,
    Skipped,
    Failed,
    Cancelled,
}

impl State {
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Delivering)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub owner: String,
    pub started_at: Timestamp,
    pub until: Timestamp,
}

/// One attestation to one attachment in one plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    pub id: String,
    pub organization: String,
    /// The attestation's hash.
    pub attestation: Digest,
    /// The digest of the bytes to deliver.
    pub received: Digest,
    pub attachment: String,
    pub registration: String,
    pub integration: String,
    pub workflow: Workflow,
    /// 0 for the plan of the acceptance.
    pub generation: u32,
    pub state: State,
    /// The attempt that is next, or running; the last one when final.
    pub attempt: u32,
    pub due_at: Timestamp,
    /// When the reconciler must look at it, if nothing else has happened. None when final.
    #[serde(default)]
    pub wake_at: Option<Timestamp>,
    /// How often the next attempt's message was sent.
    pub sends: u32,
    /// How often a missing material was looked for.
    pub looks: u32,
    #[serde(default)]
    pub lease: Option<Lease>,
    /// Step → receipt of what is finished, kept over attempts.
    #[serde(default)]
    pub progress: BTreeMap<String, Value>,
    /// Why it is in this state.
    #[serde(default)]
    pub reason: Option<String>,
    /// What the third party called what it got.
    #[serde(default)]
    pub receipt: Option<Map<String, Value>>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Delivery {
    /// A delivery's id follows from what it is, so that no repeat can make a second one.
    pub fn id(organization: &str, hash: &Digest, attachment: &str, generation: u32) -> String {
        let digest =
            Digest::of(format!("{organization}\n{hash}\n{attachment}\n{generation}").as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.bytes()[..16]);
        uuid::Builder::from_custom_bytes(bytes)
            .into_uuid()
            .to_string()
    }

    pub fn partition(organization: &str, id: &str) -> String {
        format!("org/{organization}/delivery/{id}")
    }

    pub fn at(organization: &str, id: &str) -> Key {
        Key::new(Self::partition(organization, id), "delivery")
    }

    /// The hash key of the by-workflow index, for deliveries or for attestations.
    pub fn workflow_hash(organization: &str, workflow: &Workflow, what: &str) -> String {
        format!(
            "{organization}/{what}/{}/{}",
            workflow.project, workflow.name
        )
    }

    pub fn registration_hash(organization: &str, registration: &str) -> String {
        format!("{organization}/{registration}")
    }
}

impl Row for Delivery {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.id)
    }

    fn indexes(&self) -> Vec<(Index, String, Timestamp)> {
        let registration = Self::registration_hash(&self.organization, &self.registration);
        let workflow = Self::workflow_hash(&self.organization, &self.workflow, "deliveries");
        let mut indexes = vec![
            (Index::ByRegistration, registration, self.created_at),
            (Index::ByWorkflow, workflow, self.created_at),
        ];
        if self.state == State::Failed {
            indexes.push((Index::Failed, self.organization.clone(), self.created_at));
        }
        if let Some(wake_at) = self.wake_at {
            indexes.push((Index::Due, shard(&self.id), wake_at));
        }
        indexes
    }

    fn kept_since(&self) -> Option<Timestamp> {
        self.state.is_final().then_some(self.created_at)
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    Delivered,
    Skipped,
    /// Refused for now, or never reached.
    Retryable,
    /// Sent, and no answer came.
    Unanswered,
    Permanent,
    /// The function ended in the midst of it.
    Crashed,
    /// Nothing was sent because the attachment or the registration is gone.
    Cancelled,
}

/// One try at a delivery.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    pub organization: String,
    pub delivery: String,
    pub number: u32,
    pub ending: Ending,
    pub started_at: Timestamp,
    pub duration_ms: u64,
    /// HTTP status, or the protocol's own.
    #[serde(default)]
    pub status: Option<u16>,
    /// What went wrong, for the operator.
    #[serde(default)]
    pub detail: Option<String>,
    /// At most 2 KiB of the third party's answer, secrets removed.
    #[serde(default)]
    pub answer: Option<String>,
    /// Who made it: the function's invocation.
    pub owner: String,
    /// Of its delivery: both are forgotten together.
    pub created_at: Timestamp,
}

impl Attempt {
    pub const PREFIX: &str = "attempt/";
}

impl Row for Attempt {
    fn key(&self) -> Key {
        let partition = Delivery::partition(&self.organization, &self.delivery);
        Key::new(partition, format!("{}{:04}", Self::PREFIX, self.number))
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.created_at)
    }
}

/// A message that could not be read, kept with its reason.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Parked {
    pub integration: String,
    pub message: String,
    pub reason: String,
    /// At most 4 KiB of it.
    pub body: String,
    pub created_at: Timestamp,
}

impl Row for Parked {
    fn key(&self) -> Key {
        Key::new(format!("parked/{}", self.integration), &self.message)
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.created_at)
    }
}
