//! The world as the pipeline sees it: a table, a bucket, queues, secrets, functions, and time.
//!
//! Three implement it: `Aws`, [`Memory`](crate::memory::Memory) for tests, and the simulation's `Function`, which puts
//! faults between the pipeline and a `Memory`. The table is asked for little, so that they stay small: rows by
//! key, ranges of an index, and transactions whose conditions are "not there yet" and "unchanged since I read it".
//! All rules about states live above, in plain Rust.

use std::fmt;
use std::time::Duration;

use api::materials::{Download, Upload};
use api::{OrganizationName, Timestamp};
use attestation::Digest;
use bytes::Bytes;
use futures_util::future::{self, Either};
pub use integrations::Piece;
use serde_json::{Map, Value};

use crate::store::meter::Meter;

/// A row as it is stored: its fields, its key (`pk`, `sk`), its `etag`, and the keys of sparse indexes.
pub type Item = Map<String, Value>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub partition: String,
    pub sort: String,
}

impl Key {
    pub fn new(partition: impl Into<String>, sort: impl Into<String>) -> Self {
        Self {
            partition: partition.into(),
            sort: sort.into(),
        }
    }
}

impl Key {
    /// Reports whether a row can have this key. The table rejects lookups of any other, such as a name of more than a
    /// kilobyte from a path.
    pub fn can_be(&self) -> bool {
        (1..=2048).contains(&self.partition.len()) && (1..=1024).contains(&self.sort.len())
    }
}

/// Changes with every write of a row. Random rather than counted, so that a writer whose answer was lost
/// recognises its own write when it is told that the condition failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Etag(pub String);

/// Condition of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Not there, or there past its time (`expires_at`).
    Absent,
    Unchanged(Etag),
}

/// One write of a transaction.
#[derive(Debug, Clone)]
pub enum Write {
    Put {
        key: Key,
        item: Item,
        etag: Etag,
        expect: Expect,
    },
    Delete {
        key: Key,
        etag: Etag,
    },
    /// Writes nothing, and lets the others happen only while the row is unchanged.
    Check {
        key: Key,
        etag: Etag,
    },
}

impl Write {
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } | Self::Check { key, .. } => key,
        }
    }
}

/// The platform could not be reached, or would not serve us just now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("reach the {what}: {why}")]
pub struct Unreachable {
    pub what: &'static str,
    pub why: String,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// A condition did not hold; nothing was written.
    #[error("write rows: someone else was first")]
    Conflict,
    /// Unknown result: the rows may or may not have been written.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

/// Adaptor for writes whose conflict is a result rather than a failure.
pub(crate) trait UnlessConflict {
    /// Reports whether the rows were written: `false` after a conflict.
    fn unless_conflict(self) -> Result<bool, Unreachable>;
}

impl UnlessConflict for Result<(), WriteError> {
    fn unless_conflict(self) -> Result<bool, Unreachable> {
        match self {
            Ok(()) => Ok(true),
            Err(WriteError::Conflict) => Ok(false),
            Err(WriteError::Unreachable(unreachable)) => Err(unreachable),
        }
    }
}

/// The table's sparse indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Index {
    /// Rows to be woken, by shard and `wake_at`.
    Due,
    ByRegistration,
    ByWorkflow,
    Failed,
}

impl Index {
    pub const ALL: [Self; 4] = [
        Self::Due,
        Self::ByRegistration,
        Self::ByWorkflow,
        Self::Failed,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::ByRegistration => "by-registration",
            Self::ByWorkflow => "by-workflow",
            Self::Failed => "failed",
        }
    }

    /// The attributes that are its hash and its range key.
    pub const fn attributes(self) -> (&'static str, &'static str) {
        match self {
            Self::Due => ("due_shard", "wake_at"),
            Self::ByRegistration => ("by_registration", "created_at"),
            Self::ByWorkflow => ("by_workflow", "created_at"),
            Self::Failed => ("failed", "created_at"),
        }
    }
}

/// A range of an index, whose entries are keys. Readers tolerate that it lags.
#[derive(Debug, Clone)]
pub struct Range<'a> {
    pub index: Index,
    pub hash: &'a str,
    /// Up to and including this range key.
    pub until: &'a str,
    pub newest_first: bool,
    pub limit: usize,
}

/// A message: ids only, never a payload, never a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub body: String,
    /// The organization, so that a noisy one does not hold up the others.
    pub group: OrganizationName,
    /// At most 15 minutes.
    pub delay: Duration,
}

/// What operators are told. Holds no secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Announcement {
    /// Its kind.
    pub title: &'static str,
    /// An object.
    pub detail: Value,
}

/// A registration's secret fields, as JSON text. Not printable.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue {
    text: String,
    /// None of one that is not kept yet.
    version: Option<String>,
}

impl SecretValue {
    pub fn new(text: String) -> Self {
        Self {
            text,
            version: None,
        }
    }

    #[must_use]
    pub fn of_version(self, version: String) -> Self {
        Self {
            version: Some(version),
            ..self
        }
    }

    pub fn expose(&self) -> &str {
        &self.text
    }

    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretValue(…)")
    }
}

/// An organization on its platform: where nearly everything happens.
#[derive(Debug)]
pub struct Scope<'a, P> {
    pub platform: &'a P,
    pub organization: &'a OrganizationName,
}

impl<'a, P> Scope<'a, P> {
    pub const fn new(platform: &'a P, organization: &'a OrganizationName) -> Self {
        Self {
            platform,
            organization,
        }
    }

    pub const fn parts(self) -> (&'a P, &'a OrganizationName) {
        (self.platform, self.organization)
    }
}

impl<P> Clone for Scope<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Scope<'_, P> {}

pub trait Platform {
    /// Reads a row as it is now (never stale).
    async fn get(&self, key: &Key) -> Result<Option<Item>, Unreachable>;
    /// Reads rows as they are now; those that are not there are left out. Order is not kept.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, Unreachable>;
    /// All rows of a partition whose sort key begins so, in order, from behind `after`; at most `limit`.
    async fn list(
        &self,
        partition: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Item>, Unreachable>;
    /// As [`list`](Self::list), last first, from before the sort key `before`.
    async fn list_last(
        &self,
        partition: &str,
        prefix: &str,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Item>, Unreachable>;
    /// Keys in an index, which may lag.
    async fn range(&self, range: Range<'_>) -> Result<Vec<Key>, Unreachable>;
    /// All of these or none; at most 100.
    async fn write(&self, writes: Vec<Write>) -> Result<(), WriteError>;
    /// Adds to numbers of a row, which begins with zeros and may be forgotten from `expires_at` on. It has no
    /// condition, so it never meets another write; a call that failed may have added all the same.
    async fn add(
        &self,
        key: &Key,
        amounts: &[(&'static str, u64)],
        expires_at: Timestamp,
    ) -> Result<(), Unreachable>;

    /// Puts bytes down under their digest, unless they are there; kept as by [`keep_object`](Self::keep_object).
    async fn put_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<(), Unreachable>;
    /// Bytes by digest. Not checked here; whoever uses them checks.
    async fn get_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<Bytes>, Unreachable>;
    /// `length` bytes from `offset` on, fewer at the end. What is checked is for whoever uses them.
    async fn read_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<Option<Piece>, Unreachable>;
    /// Size in bytes, if it is there; and then it stays for a whole retention from now on, since the bucket
    /// forgets bytes by when they were put down, and somebody builds on them again.
    async fn keep_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable>;
    /// Size in bytes, if it is there.
    async fn object_size(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable>;
    /// Begins to put down bytes that come in parts. Nothing is there before all of them are.
    async fn begin_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<String, Unreachable>;
    /// Puts down part `number`, counted from 1; all but the last have at least 5 MiB. Answers with what
    /// [`complete_upload`](Self::complete_upload) knows it by.
    async fn upload_part(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
        number: u32,
        bytes: Bytes,
    ) -> Result<String, Unreachable>;
    /// Makes one object of the parts. Whether they are the bytes of that digest is for the caller to have checked.
    async fn complete_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
        parts: Vec<String>,
    ) -> Result<(), Unreachable>;
    /// Forgets the parts.
    async fn abandon_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
    ) -> Result<(), Unreachable>;
    /// Lets someone upload these bytes and no others, once, for 15 minutes.
    async fn presign_put(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        size_bytes: u64,
    ) -> Result<Upload, Unreachable>;
    /// Lets someone download these bytes, for 15 minutes. Whether they are there is not looked at.
    async fn presign_get(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Download, Unreachable>;

    /// Sends at most ten messages to a queue, an integration's or another; one answer for each, in order.
    async fn send(
        &self,
        integration: &str,
        messages: &[Message],
    ) -> Result<Vec<Result<(), String>>, Unreachable>;

    /// Keeps what a secret is from now on, and answers with its version. The version before it can still be read. One
    /// that was deleted is there again.
    async fn put_secret(&self, name: &str, value: &SecretValue) -> Result<String, Unreachable>;
    /// A secret as it is now, or as it was in a version.
    async fn get_secret(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<SecretValue>, Unreachable>;
    async fn delete_secret(&self, name: &str) -> Result<(), Unreachable>;

    /// Calls an integration's delivery function and waits for its answer.
    async fn invoke(&self, integration: &str, event: Value) -> Result<Value, Unreachable>;

    /// Tells operators of something.
    async fn announce(&self, announcement: Announcement) -> Result<(), Unreachable>;

    /// Signs the SHA-256 of a message with the stack's own key: ECDSA on P-256, in DER.
    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unreachable>;
    /// Returns the public half of that key: a `SubjectPublicKeyInfo`, in DER.
    async fn signing_key(&self) -> Result<Vec<u8>, Unreachable>;

    /// Returns the name of the stack.
    fn stack(&self) -> &str;
    /// Returns the address of the stack's console, where messages lead to; none where a platform has none.
    fn console(&self) -> Option<&str> {
        None
    }
    /// Returns the time for which the rows of attestations, deliveries and attempts are kept; bytes stay a week longer.
    fn retention(&self) -> Duration;
    /// The quotas of each organization, and what this environment remembers of their use.
    fn meter(&self) -> &Meter;
    fn now(&self) -> Timestamp;
    async fn sleep(&self, duration: Duration);
    fn random(&self) -> u64;
}

/// Returns the output of a future; none if it takes longer than this.
pub(crate) async fn within<T>(
    platform: &impl Platform,
    time: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    match future::select(Box::pin(future), Box::pin(platform.sleep(time))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), _)) => None,
    }
}
