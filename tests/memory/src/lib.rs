//! A platform in memory, for tests: time stands still unless it is moved, and nothing is lost or late, but
//! for indexes when they are told to be.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod indexes;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{poll_fn, ready};
use std::task::Poll;
use std::time::Duration;

use api::materials::{Download, Upload};
use api::{OrganizationName, Timestamp};
use attestation::Digest;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::Value;

use self::indexes::Indexes;
use pipeline::engine::deliver::Record;
use pipeline::ledger::schedule::SHORT_WAIT;
use pipeline::store::meter::Meter;
use pipeline::store::platform::{
    Announcement, Expect, Index, Item, Key, Message, Piece, Platform, Range, SecretValue,
    Unreachable, Write, WriteError,
};

type Invoke = Box<
    dyn for<'a> Fn(&'a Memory, &'a str, Value) -> LocalBoxFuture<'a, Result<Value, Unreachable>>,
>;

/// A message in a queue.
#[derive(Debug, Clone)]
struct Queued {
    id: String,
    body: String,
    visible_at: Timestamp,
}

pub struct Memory {
    now: Cell<Timestamp>,
    random: Cell<u64>,
    table: RefCell<BTreeMap<Key, Item>>,
    indexes: RefCell<Indexes>,
    /// Time by which the indexes lag behind the table.
    pub lag: Cell<Duration>,
    objects: RefCell<BTreeMap<(OrganizationName, Digest), Bytes>>,
    uploads: RefCell<BTreeMap<String, BTreeMap<u32, Bytes>>>,
    queues: RefCell<BTreeMap<String, VecDeque<Queued>>>,
    /// Current and previous version of each secret.
    secrets: RefCell<BTreeMap<String, Vec<SecretValue>>>,
    invoke: Invoke,
    /// Time that reading stored bytes takes.
    pub reading_takes: Cell<Duration>,
    /// Time that telling operators takes.
    pub telling_takes: Cell<Duration>,
    /// What operators were told.
    pub announced: RefCell<Vec<Announcement>>,
    /// Writes that will be refused as unreachable, counted from now; none when `None`.
    pub fail_writes_after: Cell<Option<u32>>,
    /// Sends that will be refused.
    pub fail_sends: Cell<bool>,
    /// So many of the next sends will be refused.
    pub refuse_sends: Cell<u32>,
    /// Secrets are not shown, as Secrets Manager may do for a while after they were written.
    pub hides_secrets: Cell<bool>,
    /// Secrets Manager cannot be reached.
    pub fail_secrets: Cell<bool>,
    /// Writes whose answer arrives, counted from now; that of the next one is lost, once. None when all arrive.
    pub loses_answer_after: Cell<Option<u32>>,
    /// Additions that will be refused.
    pub fail_adds: Cell<bool>,
    /// Signatures that will be refused.
    pub fail_signing: Cell<bool>,
    /// Made when it is first asked for.
    signing_key: OnceCell<EcdsaKeyPair>,
    pub meter: Meter,
    pub writes: Cell<u32>,
    /// Whoever reads a row finds it as the release after this one writes it: with an attribute, and parts of attributes,
    /// that this one does not know. A write that loses one of them panics.
    pub is_newer: Cell<bool>,
}

/// A `SubjectPublicKeyInfo` of P-256, as far as the point.
const P256: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

/// An attribute that this release does not know.
const NEWER: &str = "of_the_next_release";

/// Attributes that never change once they are written, and have parts.
const CONSTANT: [&str; 2] = ["workflow", "planned"];

impl Default for Memory {
    fn default() -> Self {
        Self::new(|_, _, _| Box::pin(ready(Ok(serde_json::json!({ "works": {} })))))
    }
}

impl Memory {
    /// `invoke` stands for the delivery functions, which have the same platform.
    pub fn new(
        invoke: impl for<'a> Fn(
            &'a Self,
            &'a str,
            Value,
        ) -> LocalBoxFuture<'a, Result<Value, Unreachable>>
        + 'static,
    ) -> Self {
        Self {
            now: Cell::new(Timestamp::from_millis(1_767_322_445_000)),
            random: Cell::new(0x9e37_79b9_7f4a_7c15),
            table: RefCell::default(),
            indexes: RefCell::default(),
            lag: Cell::default(),
            objects: RefCell::default(),
            uploads: RefCell::default(),
            queues: RefCell::default(),
            secrets: RefCell::default(),
            invoke: Box::new(invoke),
            reading_takes: Cell::default(),
            telling_takes: Cell::default(),
            announced: RefCell::default(),
            fail_writes_after: Cell::new(None),
            fail_sends: Cell::new(false),
            refuse_sends: Cell::new(0),
            hides_secrets: Cell::new(false),
            fail_secrets: Cell::new(false),
            loses_answer_after: Cell::new(None),
            fail_adds: Cell::new(false),
            fail_signing: Cell::new(false),
            signing_key: OnceCell::new(),
            meter: Meter::default(),
            writes: Cell::new(0),
            is_newer: Cell::new(true),
        }
    }

    pub fn advance(&self, duration: Duration) {
        self.now.set(self.now.get().plus(duration));
    }

    /// Takes the messages of a queue that are visible now; they are gone from it.
    pub fn receive(&self, integration: &str, most: usize) -> Vec<Record> {
        let now = self.now.get();
        let mut queues = self.queues.borrow_mut();
        let Some(queue) = queues.get_mut(integration) else {
            return Vec::new();
        };
        let mut records = Vec::new();
        let mut rest = VecDeque::new();
        while let Some(message) = queue.pop_front() {
            if message.visible_at <= now && records.len() < most {
                records.push(Record {
                    id: message.id,
                    body: message.body,
                });
            } else {
                rest.push_back(message);
            }
        }
        *queue = rest;
        records
    }

    /// Puts other bytes where some were, or none: a bucket that lost or damaged them.
    pub fn spoil(&self, organization: &OrganizationName, digest: &Digest, bytes: Option<Bytes>) {
        let key = (organization.to_owned(), *digest);
        let mut objects = self.objects.borrow_mut();
        match bytes {
            Some(bytes) => objects.insert(key, bytes),
            None => objects.remove(&key),
        };
    }

    /// Returns the number of messages in a queue, visible or not.
    pub fn queued(&self, integration: &str) -> usize {
        self.queues
            .borrow()
            .get(integration)
            .map_or(0, VecDeque::len)
    }

    /// Every row, as text: what a search for a leaked secret looks through.
    pub fn dump(&self) -> String {
        let table = self.table.borrow();
        let queues = self.queues.borrow();
        format!("{table:?}\n{queues:?}")
    }

    /// Returns the number of multipart uploads that were begun and neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.uploads.borrow().len()
    }

    pub fn secret_names(&self) -> Vec<String> {
        self.secrets.borrow().keys().cloned().collect()
    }

    pub fn rows(&self) -> Vec<Key> {
        self.table.borrow().keys().cloned().collect()
    }

    /// Looks at a row without taking a copy of it.
    pub fn look<T>(&self, key: &Key, at: impl FnOnce(&Item) -> T) -> Option<T> {
        self.table.borrow().get(key).map(at)
    }

    fn key(&self) -> &EcdsaKeyPair {
        self.signing_key.get_or_init(|| {
            let (kind, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("there is randomness");
            EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).expect("it was just made")
        })
    }

    fn read(&self, item: &mut Item) -> Item {
        // Counters have no etag: they are added to, and never put.
        if self.is_newer.get() && item.contains_key("etag") {
            add_newer(item);
        }
        item.clone()
    }

    fn object(&self, organization: &OrganizationName, digest: &Digest) -> Option<Bytes> {
        let objects = self.objects.borrow();
        objects.get(&(organization.to_owned(), *digest)).cloned()
    }

    fn holds(&self, table: &BTreeMap<Key, Item>, write: &Write) -> bool {
        let over = |item: &Item| {
            item.get("expires_at")
                .and_then(Value::as_u64)
                .is_some_and(|at| at < self.now().secs())
        };
        let etag = table
            .get(write.key())
            .map(|item| item["etag"].as_str().unwrap_or_default());
        match write {
            Write::Put {
                expect: Expect::Absent,
                key,
                ..
            } => etag.is_none() || table.get(key).is_some_and(over),
            Write::Put {
                expect: Expect::Unchanged(expected),
                ..
            }
            | Write::Delete { etag: expected, .. }
            | Write::Check { etag: expected, .. } => etag == Some(expected.0.as_str()),
        }
    }
}

fn add_newer(item: &mut Item) {
    for name in CONSTANT {
        match item.get_mut(name) {
            Some(Value::Object(part)) => drop(part.insert(NEWER.into(), true.into())),
            Some(Value::Array(parts)) => {
                for part in parts.iter_mut().filter_map(Value::as_object_mut) {
                    part.insert(NEWER.into(), true.into());
                }
            }
            _ => {}
        }
    }
    item.insert(NEWER.into(), true.into());
}

fn keeps_newer(old: &Item, new: &Item) {
    // The name of a token that has ended is another token's now.
    if old.get("token") != new.get("token") {
        assert_eq!(new.get(NEWER), None, "a successor inherits nothing");
        return;
    }
    for name in CONSTANT.iter().chain([&NEWER]) {
        let is_of_newer = old.get(NEWER).is_some();
        assert!(
            !is_of_newer || old.get(*name) == new.get(*name),
            "a write lost what a newer release wrote: {name} of {}",
            old["sk"]
        );
    }
}

/// Refuses what DynamoDB refuses, and what is written with it: rows above 400 KB, by its rules of what counts, and rows in
/// which the attribute of an index is no text.
fn refuse_impossible(writes: &[Write]) -> Result<(), Unreachable> {
    const MOST: usize = 400 * 1024;
    let refused = |why: String| Unreachable {
        what: "table",
        why: format!("ValidationException: {why}"),
    };
    for write in writes {
        let Write::Put { key, item, .. } = write else {
            continue;
        };
        let size = size_bytes(item);
        if size > MOST {
            return Err(refused(format!("a row of {size} bytes, {key:?}")));
        }
        for index in Index::ALL {
            let (hash, sort) = index.attributes();
            let has_other = |name| item.get(name).is_some_and(|value| !value.is_string());
            if let Some(name) = [hash, sort].into_iter().find(|name| has_other(*name)) {
                return Err(refused(format!("{name} is no text, {key:?}")));
            }
        }
    }
    Ok(())
}

fn size_bytes(item: &Item) -> usize {
    let sizes = item
        .iter()
        .map(|(name, value)| name.len() + value_bytes(value));
    sizes.sum()
}

/// Size of a value, by the developer guide of DynamoDB, "Item sizes and formats".
fn value_bytes(value: &Value) -> usize {
    const CONTAINER: usize = 3;
    const ENTRY: usize = 1;
    match value {
        Value::Null | Value::Bool(_) => 1,
        Value::Number(number) => number.to_string().len().div_ceil(2) + 1,
        Value::String(text) => text.len(),
        Value::Array(values) => {
            let sizes = values.iter().map(|value| ENTRY + value_bytes(value));
            CONTAINER + sizes.sum::<usize>()
        }
        Value::Object(item) => CONTAINER + ENTRY * item.len() + size_bytes(item),
    }
}

fn down(what: &'static str) -> Unreachable {
    Unreachable {
        what,
        why: "it was made to fail".into(),
    }
}

impl Platform for Memory {
    async fn get(&self, key: &Key) -> Result<Option<Item>, Unreachable> {
        assert!(key.can_be(), "the table refuses this key: {key:?}");
        Ok(self
            .table
            .borrow_mut()
            .get_mut(key)
            .map(|item| self.read(item)))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, Unreachable> {
        let mut table = self.table.borrow_mut();
        let keys: std::collections::BTreeSet<&Key> = keys.iter().collect();
        Ok(keys
            .into_iter()
            .filter_map(|key| table.get_mut(key).map(|item| self.read(item)))
            .collect())
    }

    async fn list(
        &self,
        partition: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Item>, Unreachable> {
        let first = Key::new(partition, after.unwrap_or("-"));
        assert!(first.can_be(), "the table refuses this key: {first:?}");
        let mut table = self.table.borrow_mut();
        Ok(table
            .range_mut(Key::new(partition, prefix)..)
            .take_while(|(key, _)| key.partition == partition && key.sort.starts_with(prefix))
            .filter(|(key, _)| after.is_none_or(|after| key.sort.as_str() > after))
            .take(limit)
            .map(|(_, item)| self.read(item))
            .collect())
    }

    async fn list_last(
        &self,
        partition: &str,
        prefix: &str,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Item>, Unreachable> {
        let mut items = self.list(partition, prefix, None, usize::MAX).await?;
        items.retain(|item| before.is_none_or(|before| item["sk"].as_str() < Some(before)));
        items.reverse();
        items.truncate(limit);
        Ok(items)
    }

    async fn range(&self, range: Range<'_>) -> Result<Vec<Key>, Unreachable> {
        Ok(self.indexes.borrow_mut().range(self.now.get(), &range))
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        assert!(writes.len() <= 100, "a transaction has at most 100 writes");
        if let Some(left) = self.fail_writes_after.get() {
            if left == 0 {
                return Err(down("table").into());
            }
            self.fail_writes_after.set(Some(left - 1));
        }
        let mut table = self.table.borrow_mut();
        if !writes.iter().all(|write| self.holds(&table, write)) {
            return Err(WriteError::Conflict);
        }
        refuse_impossible(&writes)?;
        let mut indexes = self.indexes.borrow_mut();
        let visible_at = self.now.get().plus(self.lag.get());
        for write in writes {
            self.writes.set(self.writes.get() + 1);
            match write {
                Write::Put {
                    key, item, expect, ..
                } => {
                    if let (Expect::Unchanged(_), Some(old)) = (expect, table.get(&key)) {
                        keeps_newer(old, &item);
                    }
                    indexes.write(visible_at, &key, table.get(&key), Some(&item));
                    table.insert(key, item);
                }
                Write::Delete { key, .. } => {
                    indexes.write(visible_at, &key, table.get(&key), None);
                    table.remove(&key);
                }
                Write::Check { .. } => {}
            }
        }
        match self.loses_answer_after.get() {
            Some(0) => {
                self.loses_answer_after.set(None);
                Err(down("table").into())
            }
            left => {
                self.loses_answer_after.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }

    async fn add(
        &self,
        key: &Key,
        amounts: &[(&'static str, u64)],
        expires_at: Timestamp,
    ) -> Result<(), Unreachable> {
        if self.fail_adds.get() {
            return Err(down("table"));
        }
        let mut table = self.table.borrow_mut();
        let item = table.entry(key.clone()).or_default();
        item.insert("pk".into(), key.partition.clone().into());
        item.insert("sk".into(), key.sort.clone().into());
        for (name, amount) in amounts {
            let before = item.get(*name).and_then(Value::as_u64).unwrap_or_default();
            item.insert((*name).into(), (before + amount).into());
        }
        item.insert("expires_at".into(), expires_at.secs().into());
        Ok(())
    }

    async fn put_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<(), Unreachable> {
        self.objects
            .borrow_mut()
            .entry((organization.to_owned(), *digest))
            .or_insert(bytes);
        Ok(())
    }

    async fn get_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<Bytes>, Unreachable> {
        self.advance(self.reading_takes.get());
        // A copy, as from a bucket: what each reader has counts.
        let bytes = self.object(organization, digest);
        Ok(bytes.map(|bytes| Bytes::copy_from_slice(&bytes)))
    }

    async fn read_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<Option<Piece>, Unreachable> {
        let bytes = self.object(organization, digest);
        let place = |at: u64, all: usize| usize::try_from(at).map_or(all, |at| at.min(all));
        Ok(bytes.map(|bytes| {
            let (start, end) = (offset, offset.saturating_add(length));
            Piece {
                bytes: bytes.slice(place(start, bytes.len())..place(end, bytes.len())),
                etag: Some(Digest::of(&bytes).hex()),
            }
        }))
    }

    /// Bytes are kept for ever here.
    async fn keep_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        self.object_size(organization, digest).await
    }

    async fn object_size(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        let bytes = self.object(organization, digest);
        Ok(bytes.map(|bytes| bytes.len() as u64))
    }

    async fn begin_upload(
        &self,
        _organization: &OrganizationName,
        _digest: &Digest,
    ) -> Result<String, Unreachable> {
        let id = format!("{:016x}", self.random());
        let mut uploads = self.uploads.borrow_mut();
        uploads.insert(id.clone(), BTreeMap::new());
        Ok(id)
    }

    async fn upload_part(
        &self,
        _organization: &OrganizationName,
        _digest: &Digest,
        upload: &str,
        number: u32,
        bytes: Bytes,
    ) -> Result<String, Unreachable> {
        let mut uploads = self.uploads.borrow_mut();
        let parts = uploads.get_mut(upload).ok_or_else(|| down("bucket"))?;
        parts.insert(number, bytes);
        Ok(format!("part-{number}"))
    }

    async fn complete_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
        parts: Vec<String>,
    ) -> Result<(), Unreachable> {
        let there = self.uploads.borrow_mut().remove(upload);
        let there = there.ok_or_else(|| down("bucket"))?;
        assert!(
            there
                .keys()
                .map(|number| format!("part-{number}"))
                .eq(parts),
            "an upload is completed with all of its parts, in order"
        );
        let small = there
            .values()
            .rev()
            .skip(1)
            .any(|part| part.len() < 5 << 20);
        assert!(!small, "all parts but the last have at least 5 MiB");
        let bytes: Vec<u8> = there.into_values().flatten().collect();
        self.put_object(organization, digest, bytes.into()).await
    }

    async fn abandon_upload(
        &self,
        _organization: &OrganizationName,
        _digest: &Digest,
        upload: &str,
    ) -> Result<(), Unreachable> {
        self.uploads.borrow_mut().remove(upload);
        Ok(())
    }

    async fn presign_put(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        size_bytes: u64,
    ) -> Result<Upload, Unreachable> {
        Ok(Upload {
            method: "PUT".into(),
            url: format!("memory:{organization}/{}", digest.hex()),
            headers: BTreeMap::from([("content-length".into(), size_bytes.to_string())]),
        })
    }

    async fn presign_get(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Download, Unreachable> {
        Ok(Download {
            url: format!("memory:{organization}/{}", digest.hex()),
        })
    }

    async fn send(
        &self,
        integration: &str,
        messages: &[Message],
    ) -> Result<Vec<Result<(), String>>, Unreachable> {
        assert!(messages.len() <= 10, "a batch has at most ten messages");
        let refused = self.refuse_sends.get();
        if self.fail_sends.get() || refused > 0 {
            self.refuse_sends.set(refused.saturating_sub(1));
            return Err(down("queue"));
        }
        let mut queues = self.queues.borrow_mut();
        let queue = queues.entry(integration.to_owned()).or_default();
        for message in messages {
            let id = format!("{:016x}", self.random());
            let visible_at = self.now.get().plus(message.delay);
            queue.push_back(Queued {
                id,
                body: message.body.clone(),
                visible_at,
            });
        }
        Ok(messages.iter().map(|_| Ok(())).collect())
    }

    async fn put_secret(&self, name: &str, value: &SecretValue) -> Result<String, Unreachable> {
        let mut secrets = self.secrets.borrow_mut();
        let versions = secrets.entry(name.to_owned()).or_default();
        let last = versions.last().and_then(SecretValue::version);
        let last: u64 = last.and_then(|last| last.parse().ok()).unwrap_or_default();
        let version = (last + 1).to_string();
        versions.push(value.clone().of_version(version.clone()));
        if versions.len() > 2 {
            versions.remove(0);
        }
        Ok(version)
    }

    async fn get_secret(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<SecretValue>, Unreachable> {
        if self.fail_secrets.get() {
            return Err(down("secrets manager"));
        }
        if self.hides_secrets.get() {
            return Ok(None);
        }
        let secrets = self.secrets.borrow();
        let mut versions = secrets.get(name).into_iter().flatten();
        let wanted = |value: &&SecretValue| version.is_none() || value.version() == version;
        Ok(versions.rfind(wanted).cloned())
    }

    async fn delete_secret(&self, name: &str) -> Result<(), Unreachable> {
        self.secrets.borrow_mut().remove(name);
        Ok(())
    }

    async fn announce(&self, announcement: Announcement) -> Result<(), Unreachable> {
        if self.fail_sends.get() {
            return Err(down("event bus"));
        }
        self.advance(self.telling_takes.get());
        self.announced.borrow_mut().push(announcement);
        Ok(())
    }

    async fn invoke(&self, integration: &str, event: Value) -> Result<Value, Unreachable> {
        (self.invoke)(self, integration, event).await
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unreachable> {
        if self.fail_signing.get() {
            return Err(down("receipt key"));
        }
        let signature = self.key().sign(&SystemRandom::new(), message);
        Ok(signature.expect("there is randomness").as_ref().to_vec())
    }

    async fn signing_key(&self) -> Result<Vec<u8>, Unreachable> {
        Ok([P256, self.key().public_key().as_ref()].concat())
    }

    fn stack(&self) -> &'static str {
        "memory"
    }

    fn retention(&self) -> Duration {
        pipeline::ledger::schedule::RETENTION
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn now(&self) -> Timestamp {
        self.now.get()
    }

    /// A short wait moves the clock. A long one is a time limit, which nothing here reaches.
    async fn sleep(&self, duration: Duration) {
        if duration > SHORT_WAIT {
            std::future::pending::<()>().await;
        }
        self.advance(duration);
        let mut has_waited = false;
        poll_fn(|context| {
            if std::mem::replace(&mut has_waited, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// xorshift64*: a seed's run repeats itself.
    fn random(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_whose_condition_does_not_hold_changes_nothing() {
        let memory = Memory::default();
        let key = Key::new("a", "b");
        let put = |etag: &str, expect| {
            let mut item = Item::new();
            item.insert("etag".into(), etag.into());
            let etag = pipeline::store::platform::Etag(etag.into());
            vec![Write::Put {
                key: key.clone(),
                item,
                etag,
                expect,
            }]
        };
        let run = |writes| futures_util::FutureExt::now_or_never(memory.write(writes)).unwrap();
        assert!(run(put("1", Expect::Absent)).is_ok());
        assert!(matches!(
            run(put("2", Expect::Absent)),
            Err(WriteError::Conflict)
        ));
        let stale = pipeline::store::platform::Etag("0".into());
        assert!(matches!(
            run(put("2", Expect::Unchanged(stale))),
            Err(WriteError::Conflict)
        ));
        let current = pipeline::store::platform::Etag("1".into());
        assert!(run(put("2", Expect::Unchanged(current))).is_ok());
    }
}
