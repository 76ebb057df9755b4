//! What the table holds: every row, its key, and the sparse indexes that it stands in.
//!
//! Organization is part of every key; tokens by hash and the due index are the two exceptions.
//! A delivery has a partition of its own, with its attempts: its id follows from the attestation's plan, so
//! an attestation finds its deliveries without an index, a message needs no more than the id, and a
//! thousand deliveries of one attestation do not meet in one partition.

use std::collections::{BTreeMap, BTreeSet};

use attestation::Digest;
use integrations::Workflow;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::platform::{Etag, Expect, Index, Item, Key, Platform, Unreachable, Write};

/// Something with a place in the table.
pub trait Row: Serialize + DeserializeOwned {
    fn key(&self) -> Key;

    /// The sparse indexes that the row stands in just now, each with its hash and range key.
    fn indexes(&self) -> Vec<(Index, String, Timestamp)> {
        Vec::new()
    }

    /// Since when the time runs after which the row may be forgotten; none while it must be kept.
    fn kept_since(&self) -> Option<Timestamp> {
        None
    }
}

/// A row as read, with what a write of it is conditional on.
#[derive(Debug, Clone)]
pub struct Stored<R> {
    pub row: R,
    pub etag: Etag,
}

/// Whether a row's time is over: the table removes such rows when it likes, so the clock judges.
fn is_over(item: &Item, now: Timestamp) -> bool {
    item.get("expires_at")
        .and_then(Value::as_u64)
        .is_some_and(|at| at < now.secs())
}

/// Reads a row that was written by a version that this one does not know as an error.
fn parse<R: Row>(item: Item) -> Result<Stored<R>, Unreachable> {
    let etag = Etag(
        item.get("etag")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
    );
    let row = serde_json::from_value(Value::Object(item)).map_err(|error| Unreachable {
        what: "table",
        why: format!("unreadable row: {error}"),
    })?;
    Ok(Stored { row, etag })
}

pub async fn load<R: Row>(
    platform: &impl Platform,
    key: &Key,
) -> Result<Option<Stored<R>>, Unreachable> {
    let item = platform
        .get(key)
        .await?
        .filter(|item| !is_over(item, platform.now()));
    item.map(parse).transpose()
}

pub async fn load_many<R: Row>(
    platform: &impl Platform,
    keys: &[Key],
) -> Result<Vec<Stored<R>>, Unreachable> {
    let now = platform.now();
    let items = platform.get_many(keys).await?.into_iter();
    items
        .filter(|item| !is_over(item, now))
        .map(parse)
        .collect()
}

/// All rows of a partition whose sort key begins so, however many there are.
pub async fn load_all<R: Row>(
    platform: &impl Platform,
    partition: &str,
    prefix: &str,
) -> Result<Vec<Stored<R>>, Unreachable> {
    const PAGE: usize = 500;
    let mut rows = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = platform
            .list(partition, prefix, after.as_deref(), PAGE)
            .await?;
        let last = (page.len() == PAGE)
            .then(|| {
                page.last()
                    .and_then(|item| item["sk"].as_str().map(str::to_owned))
            })
            .flatten();
        for item in page
            .into_iter()
            .filter(|item| !is_over(item, platform.now()))
        {
            rows.push(parse(item)?);
        }
        match last {
            Some(last) => after = Some(last),
            None => return Ok(rows),
        }
    }
}

/// A write of this row, and the etag that it will have then.
pub fn put<R: Row>(platform: &impl Platform, row: &R, expect: Expect) -> (Write, Etag) {
    let key = row.key();
    let etag = Etag(format!("{:016x}", platform.random()));
    let mut item = match serde_json::to_value(row) {
        Ok(Value::Object(item)) => item,
        other => unreachable!("a row is an object with text keys: {other:?}"),
    };
    // Absent attributes, not null ones: sparse indexes hold what has the attribute.
    item.retain(|_, value| !value.is_null());
    for (index, hash, range) in row.indexes() {
        let (hash_name, range_name) = index.attributes();
        item.insert(hash_name.into(), hash.into());
        item.insert(range_name.into(), range.to_string().into());
    }
    if let Some(since) = row.kept_since() {
        item.insert(
            "expires_at".into(),
            since.plus(platform.retention()).secs().into(),
        );
    }
    item.insert("pk".into(), key.partition.clone().into());
    item.insert("sk".into(), key.sort.clone().into());
    item.insert("etag".into(), etag.0.clone().into());
    (
        Write::Put {
            key,
            item,
            etag: etag.clone(),
            expect,
        },
        etag,
    )
}

impl<R: Row> Stored<R> {
    /// A write of the row as it now is, conditional on nobody having written it since.
    pub fn update(&self, platform: &impl Platform) -> (Write, Etag) {
        put(platform, &self.row, Expect::Unchanged(self.etag.clone()))
    }

    pub fn delete(&self) -> Write {
        Write::Delete {
            key: self.row.key(),
            etag: self.etag.clone(),
        }
    }

    pub fn check(&self) -> Write {
        Write::Check {
            key: self.row.key(),
            etag: self.etag.clone(),
        }
    }
}

/// How many shards the due index has.
pub const SHARDS: u64 = 16;

/// The shard of the due index in which something with this id stands.
pub fn shard(id: &str) -> String {
    // The first hexadecimal digit of an id that is a digest or random: evenly spread.
    let digit = id
        .chars()
        .find_map(|letter| letter.to_digit(16))
        .unwrap_or_default();
    (u64::from(digit) % SHARDS).to_string()
}

// --- organization -------------------------------------------------------------------------------------

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Organization {
    pub organization: String,
    pub created_at: Timestamp,
}

impl Organization {
    pub fn at(organization: &str) -> Key {
        Key::new(format!("org/{organization}"), "organization")
    }
}

impl Row for Organization {
    fn key(&self) -> Key {
        Self::at(&self.organization)
    }
}

/// What the bearer of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Admin,
    Operator,
    Viewer,
    Producer,
}

/// An API token, known by the hash of its text alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the token's text, in hex.
    pub hash: String,
    pub id: String,
    pub organization: String,
    pub name: String,
    pub role: Role,
    pub created_at: Timestamp,
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    pub fn at(hash: &str) -> Key {
        Key::new(format!("token/{hash}"), "token")
    }
}

impl Row for Token {
    fn key(&self) -> Key {
        Self::at(&self.hash)
    }
}

// --- configuration ------------------------------------------------------------------------------------

/// A name of the organization's registrations: makes it unique, and lists them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Name {
    pub organization: String,
    pub name: String,
    /// The registration's id.
    pub registration: String,
    pub integration: String,
    /// Until then the name is reserved by a registration that is being made; then it is free again.
    #[serde(default)]
    pub reserved_until: Option<Timestamp>,
}

impl Name {
    pub fn partition(organization: &str) -> String {
        format!("org/{organization}/registrations")
    }

    pub fn at(organization: &str, name: &str) -> Key {
        Key::new(Self::partition(organization), name)
    }
}

impl Row for Name {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.name)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registration {
    pub id: String,
    pub organization: String,
    pub name: String,
    pub integration: String,
    /// Of the integration, when it was registered.
    pub version: String,
    #[serde(default)]
    pub description: String,
    /// The inputs without the secret ones.
    pub config: Map<String, Value>,
    /// What may be shown of the secret ones.
    pub label: Map<String, Value>,
    /// Where the secret ones are; none when there are none.
    #[serde(default)]
    pub secret: Option<String>,
    pub created_at: Timestamp,
    /// Since then it is going away, and nothing is delivered through it.
    #[serde(default)]
    pub deleted_at: Option<Timestamp>,
}

impl Registration {
    pub fn partition(organization: &str, id: &str) -> String {
        format!("org/{organization}/registration/{id}")
    }

    pub fn at(organization: &str, id: &str) -> Key {
        Key::new(Self::partition(organization, id), "registration")
    }

    /// `<stack>/` is put before it by the platform.
    pub fn secret_name(organization: &str, integration: &str, id: &str) -> String {
        format!("{integration}/{organization}/{id}")
    }
}

impl Row for Registration {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.id)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attachment {
    pub id: String,
    pub organization: String,
    /// The registration's id.
    pub registration: String,
    pub integration: String,
    pub workflow: Selector,
    pub config: Map<String, Value>,
    /// How long its deliveries wait for a missing material; the usual time when none.
    #[serde(default)]
    pub wait_secs: Option<u64>,
    pub created_at: Timestamp,
    #[serde(default)]
    pub deleted_at: Option<Timestamp>,
}

impl Attachment {
    pub fn at(organization: &str, id: &str) -> Key {
        Key::new(format!("org/{organization}/attachment/{id}"), "attachment")
    }
}

impl Row for Attachment {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.id)
    }
}

/// Which workflows an attachment is for: an id, `project/name`, `project/*`, or `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector(pub String);

impl Selector {
    /// Those that fit a workflow, most particular first.
    pub fn of(workflow: &Workflow) -> Vec<Self> {
        let mut selectors = Vec::new();
        if !workflow.id.is_empty() {
            // As operators write them: ids are compared in lower case.
            selectors.push(Self(workflow.id.to_ascii_lowercase()));
        }
        if !workflow.name.is_empty() {
            selectors.push(Self(format!("{}/{}", workflow.project, workflow.name)));
        }
        if !workflow.project.is_empty() {
            selectors.push(Self(format!("{}/*", workflow.project)));
        }
        selectors.push(Self("*".into()));
        selectors
    }
}

/// An attachment as found from its workflow (for intake) or from its registration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Link {
    pub organization: String,
    /// The attachment's id.
    pub attachment: String,
    pub registration: String,
    pub integration: String,
    /// Set in the workflow's partition, not in the registration's.
    #[serde(default)]
    pub workflow: Option<Selector>,
}

impl Link {
    pub const PREFIX: &str = "attachment/";

    pub fn of_workflow(organization: &str, selector: &Selector) -> String {
        format!("org/{organization}/workflow/{}", selector.0)
    }
}

impl Row for Link {
    fn key(&self) -> Key {
        let partition = match &self.workflow {
            Some(selector) => Self::of_workflow(&self.organization, selector),
            None => Registration::partition(&self.organization, &self.registration),
        };
        Key::new(partition, format!("{}{}", Self::PREFIX, self.attachment))
    }
}

// --- the ledger ---------------------------------------------------------------------------------------

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
