//! A function's platform that counts what AWS would bill for, by AWS's rules for rounding.

use std::cell::{Cell, RefCell};
use std::ops::{AddAssign, Sub};
use std::time::Duration;

use api::materials::{Download, Upload};
use api::{OrganizationName, Timestamp};
use attestation::Digest;
use bytes::Bytes;
use memory::Memory;
use pipeline::Platform;
use pipeline::store::meter::Meter;
use pipeline::store::platform::{
    Announcement, Index, Item, Key, Message, Piece, Range, SecretValue, Unreachable, Write,
    WriteError,
};
use serde_json::Value;

use crate::roles::As;

/// Billed units.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Units {
    /// Write request units of rows, with the second unit that a transaction costs.
    pub writes: f64,
    /// Of these, the second ones.
    pub doubled: f64,
    /// Write request units of index entries.
    pub index_writes: f64,
    /// Of these, those of the index of what is due.
    pub due_writes: f64,
    /// Read request units.
    pub reads: f64,
    pub s3_puts: f64,
    /// GET and HEAD.
    pub s3_gets: f64,
    pub sqs: f64,
    pub secrets: f64,
}

impl Units {
    fn each(&mut self) -> [&mut f64; 9] {
        [
            &mut self.writes,
            &mut self.doubled,
            &mut self.index_writes,
            &mut self.due_writes,
            &mut self.reads,
            &mut self.s3_puts,
            &mut self.s3_gets,
            &mut self.sqs,
            &mut self.secrets,
        ]
    }

    pub fn times(mut self, factor: f64) -> Self {
        for unit in self.each() {
            *unit *= factor;
        }
        self
    }
}

impl AddAssign for Units {
    fn add_assign(&mut self, mut other: Self) {
        for (unit, other) in self.each().into_iter().zip(other.each()) {
            *unit += *other;
        }
    }
}

impl Sub for Units {
    type Output = Self;

    fn sub(mut self, other: Self) -> Self {
        self += other.times(-1.0);
        self
    }
}

/// Bytes of a row, as DynamoDB counts them.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>
pub fn size(item: &Item) -> usize {
    item.iter()
        .map(|(name, value)| name.len() + size_of(value))
        .sum()
}

fn size_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 1,
        // A byte for each two digits, and one more.
        Value::Number(number) => number.to_string().len().div_ceil(2) + 1,
        Value::String(text) => text.len(),
        Value::Array(all) => 3 + all.iter().map(|one| 1 + size_of(one)).sum::<usize>(),
        Value::Object(all) => {
            let pairs = all.iter().map(|(name, one)| 1 + name.len() + size_of(one));
            3 + pairs.sum::<usize>()
        }
    }
}

/// Bytes of a row's entry in an index of keys, if it is there.
pub fn entry(index: Index, item: &Item) -> Option<usize> {
    let (hash, range) = index.attributes();
    let mut names = vec![hash, range, "pk", "sk"];
    names.dedup();
    let sizes = names
        .iter()
        .map(|name| Some(name.len() + item.get(*name)?.as_str()?.len()));
    sizes.sum()
}

fn place(index: Index, item: &Item) -> Option<(&str, &str)> {
    let (hash, range) = index.attributes();
    Some((item.get(hash)?.as_str()?, item.get(range)?.as_str()?))
}

fn units(bytes: usize, of: usize) -> f64 {
    number(bytes.div_ceil(of).max(1))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a test")]
pub fn number(count: usize) -> f64 {
    count as f64
}

pub const WRITE_BYTES: usize = 1_024;
const READ_BYTES: usize = 4 * 1_024;
const MESSAGE_BYTES: usize = 64 * 1_024;

/// One environment of a function.
pub struct Metered<'a> {
    role: As<'a>,
    memory: &'a Memory,
    units: RefCell<Units>,
    /// Bytes of the largest delivery that was written.
    largest_delivery: Cell<usize>,
    shows_depth: bool,
    calls: Cell<usize>,
    /// Calls of the longest chain so far, of which each began after the one before it had ended.
    depth: Cell<usize>,
}

/// A call that is under way.
struct Call<'a> {
    depth: &'a Cell<usize>,
    /// Its place in the longest chain that it ends.
    place: usize,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.depth.set(self.depth.get().max(self.place));
    }
}

impl<'a> Metered<'a> {
    pub fn new(memory: &'a Memory, function: &str) -> Self {
        Self {
            role: As::function(memory, function),
            memory,
            units: RefCell::default(),
            largest_delivery: Cell::default(),
            shows_depth: false,
            calls: Cell::default(),
            depth: Cell::default(),
        }
    }

    /// Number of calls, and of those of the longest chain.
    pub fn calls(&self) -> (usize, usize) {
        (self.calls.get(), self.depth.get())
    }

    /// A call begins. What is called at the same time begins before it ends.
    async fn call(&self) -> Call<'_> {
        self.calls.set(self.calls.get() + 1);
        let call = Call {
            depth: &self.depth,
            place: self.depth.get() + 1,
        };
        if self.shows_depth {
            tokio::task::yield_now().await;
        }
        call
    }

    /// The same, whose calls take a while: those that are made at the same time overlap.
    pub fn with_depth(memory: &'a Memory, function: &str) -> Self {
        Self {
            shows_depth: true,
            ..Self::new(memory, function)
        }
    }

    pub fn largest_delivery(&self) -> usize {
        self.largest_delivery.get()
    }

    pub fn units(&self) -> Units {
        *self.units.borrow()
    }

    /// Polling, which Lambda does for the function.
    pub fn sqs(&self, requests: f64) {
        self.units.borrow_mut().sqs += requests;
    }

    fn reads(&self, bytes: usize) {
        self.units.borrow_mut().reads += units(bytes, READ_BYTES);
    }

    fn writes(&self, write: &Write, is_transaction: bool) {
        let old = self.memory.look(write.key(), Clone::clone);
        let new = match write {
            Write::Put { item, .. } => Some(item),
            Write::Delete { .. } => None,
            Write::Check { .. } => old.as_ref(),
        };
        if let Some(new) = new.filter(|_| write.key().sort == "delivery") {
            let largest = self.largest_delivery.get().max(size(new));
            self.largest_delivery.set(largest);
        }
        let bytes = [old.as_ref(), new].into_iter().flatten().map(size).max();
        let plain = units(bytes.unwrap_or_default(), WRITE_BYTES);
        let mut billed = self.units.borrow_mut();
        billed.writes += plain;
        if is_transaction {
            billed.writes += plain;
            billed.doubled += plain;
        }
        for index in Index::ALL {
            let at = |item: Option<&Item>| {
                let (hash, range) = place(index, item?)?;
                Some((hash.to_owned(), range.to_owned()))
            };
            let (old, new) = (at(old.as_ref()), at(new));
            // An entry whose key changes is deleted and put.
            if old != new {
                let entries = number([old, new].into_iter().flatten().count());
                billed.index_writes += entries;
                if index == Index::Due {
                    billed.due_writes += entries;
                }
            }
        }
    }
}

impl Platform for Metered<'_> {
    async fn get(&self, key: &Key) -> Result<Option<Item>, Unreachable> {
        let _call = self.call().await;
        let item = self.role.get(key).await?;
        self.reads(item.as_ref().map_or(0, size));
        Ok(item)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, Unreachable> {
        let _call = self.call().await;
        for key in keys {
            self.reads(self.memory.look(key, size).unwrap_or_default());
        }
        self.role.get_many(keys).await
    }

    async fn list(
        &self,
        partition: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Item>, Unreachable> {
        let _call = self.call().await;
        let items = self.role.list(partition, prefix, after, limit).await?;
        self.reads(items.iter().map(size).sum());
        Ok(items)
    }

    async fn list_last(
        &self,
        partition: &str,
        prefix: &str,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Item>, Unreachable> {
        let _call = self.call().await;
        let items = self
            .role
            .list_last(partition, prefix, before, limit)
            .await?;
        self.reads(items.iter().map(size).sum());
        Ok(items)
    }

    /// Eventually consistent, at half the price.
    async fn range(&self, range: Range<'_>) -> Result<Vec<Key>, Unreachable> {
        let _call = self.call().await;
        let index = range.index;
        let keys = self.role.range(range).await?;
        let sizes = keys
            .iter()
            .filter_map(|key| self.memory.look(key, |item| entry(index, item))?);
        self.units.borrow_mut().reads += units(sizes.sum(), READ_BYTES) / 2.0;
        Ok(keys)
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        let _call = self.call().await;
        // As `aws::table` writes them.
        let is_transaction = !matches!(&writes[..], [Write::Put { .. } | Write::Delete { .. }]);
        for write in &writes {
            self.writes(write, is_transaction);
        }
        self.role.write(writes).await
    }

    async fn add(
        &self,
        key: &Key,
        amounts: &[(&'static str, u64)],
        expires_at: Timestamp,
    ) -> Result<(), Unreachable> {
        let _call = self.call().await;
        self.role.add(key, amounts, expires_at).await?;
        let bytes = self.memory.look(key, size).unwrap_or_default();
        self.units.borrow_mut().writes += units(bytes, WRITE_BYTES);
        Ok(())
    }

    async fn put_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<(), Unreachable> {
        let _call = self.call().await;
        self.units.borrow_mut().s3_puts += 1.0;
        self.role.put_object(organization, digest, bytes).await
    }

    async fn get_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<Bytes>, Unreachable> {
        let _call = self.call().await;
        self.units.borrow_mut().s3_gets += 1.0;
        self.role.get_object(organization, digest).await
    }

    async fn read_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<Option<Piece>, Unreachable> {
        let _call = self.call().await;
        self.units.borrow_mut().s3_gets += 1.0;
        self.role
            .read_object(organization, digest, offset, length)
            .await
    }

    async fn keep_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        let _call = self.call().await;
        self.units.borrow_mut().s3_gets += 1.0;
        self.role.keep_object(organization, digest).await
    }

    async fn object_size(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        let _call = self.call().await;
        self.units.borrow_mut().s3_gets += 1.0;
        self.role.object_size(organization, digest).await
    }

    async fn begin_upload(&self, _: &OrganizationName, _: &Digest) -> Result<String, Unreachable> {
        panic!("{UNCOUNTED}")
    }

    async fn upload_part(
        &self,
        _: &OrganizationName,
        _: &Digest,
        _: &str,
        _: u32,
        _: Bytes,
    ) -> Result<String, Unreachable> {
        panic!("{UNCOUNTED}")
    }

    async fn complete_upload(
        &self,
        _: &OrganizationName,
        _: &Digest,
        _: &str,
        _: Vec<String>,
    ) -> Result<(), Unreachable> {
        panic!("{UNCOUNTED}")
    }

    async fn abandon_upload(
        &self,
        _: &OrganizationName,
        _: &Digest,
        _: &str,
    ) -> Result<(), Unreachable> {
        panic!("{UNCOUNTED}")
    }

    async fn presign_put(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        size_bytes: u64,
    ) -> Result<Upload, Unreachable> {
        self.role
            .presign_put(organization, digest, size_bytes)
            .await
    }

    async fn presign_get(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Download, Unreachable> {
        self.role.presign_get(organization, digest).await
    }

    async fn send(
        &self,
        queue: &str,
        messages: &[Message],
    ) -> Result<Vec<Result<(), String>>, Unreachable> {
        let _call = self.call().await;
        let bytes = messages.iter().map(|message| message.body.len()).sum();
        self.sqs(units(bytes, MESSAGE_BYTES));
        self.role.send(queue, messages).await
    }

    async fn put_secret(&self, _: &str, _: &SecretValue) -> Result<String, Unreachable> {
        panic!("{UNCOUNTED}")
    }

    async fn get_secret(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<SecretValue>, Unreachable> {
        let _call = self.call().await;
        self.units.borrow_mut().secrets += 1.0;
        self.role.get_secret(name, version).await
    }

    async fn delete_secret(&self, _: &str) -> Result<(), Unreachable> {
        panic!("{UNCOUNTED}")
    }

    /// Nothing that the model walks through is told.
    async fn announce(&self, announcement: Announcement) -> Result<(), Unreachable> {
        unreachable!("the model has no price for {announcement:?}")
    }

    async fn invoke(&self, _: &str, _: Value) -> Result<Value, Unreachable> {
        panic!("{UNCOUNTED}")
    }

    async fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Unreachable> {
        panic!("{UNCOUNTED}")
    }

    async fn signing_key(&self) -> Result<Vec<u8>, Unreachable> {
        panic!("{UNCOUNTED}")
    }

    fn stack(&self) -> &str {
        self.memory.stack()
    }

    fn retention(&self) -> Duration {
        self.role.retention()
    }

    fn meter(&self) -> &Meter {
        self.role.meter()
    }

    fn now(&self) -> Timestamp {
        self.role.now()
    }

    async fn sleep(&self, duration: Duration) {
        self.role.sleep(duration).await;
    }

    fn random(&self) -> u64 {
        self.role.random()
    }
}

const UNCOUNTED: &str = "an attestation on its way does this now: count it";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(value: &Value) -> Item {
        value.as_object().unwrap().clone().into_iter().collect()
    }

    /// By the examples of AWS's own page.
    #[test]
    fn a_row_is_as_large_as_dynamodb_says() {
        assert_eq!(size(&item(&json!({ "pk": "abc" }))), 5);
        assert_eq!(size(&item(&json!({ "n": 1234 }))), 1 + 3);
        assert_eq!(size(&item(&json!({ "b": true, "z": null }))), 4);
        assert_eq!(
            size(&item(&json!({ "l": ["ab", "c"] }))),
            1 + 3 + (1 + 2) + (1 + 1)
        );
        assert_eq!(
            size(&item(&json!({ "m": { "k": "v" } }))),
            1 + 3 + (1 + 1 + 1)
        );
        assert_eq!(units(0, READ_BYTES).to_string(), "1");
        assert_eq!(units(READ_BYTES, READ_BYTES).to_string(), "1");
        assert_eq!(units(READ_BYTES + 1, READ_BYTES).to_string(), "2");
    }

    #[tokio::test]
    async fn a_transaction_costs_twice_and_an_entry_that_moves_two_writes() {
        let memory = Memory::default();
        let row = |etag: &str, wake_at: Option<&str>| {
            let mut row = json!({ "pk": "org/a", "sk": "x", "etag": etag });
            if let Some(at) = wake_at {
                row["due_shard"] = json!("1");
                row["wake_at"] = json!(at);
            }
            Write::Put {
                key: Key::new("org/a", "x"),
                item: item(&row),
                etag: pipeline::store::platform::Etag(etag.into()),
                expect: pipeline::store::platform::Expect::Absent,
            }
        };
        let counted = async |writes: Vec<Write>| {
            let platform = Metered::new(&memory, "reconciler");
            let _ = platform.write(writes).await;
            let units = platform.units();
            (units.writes, units.index_writes)
        };
        assert_eq!(counted(vec![row("1", Some("a"))]).await, (1.0, 1.0));
        assert_eq!(counted(vec![row("2", Some("a"))]).await, (1.0, 0.0));
        assert_eq!(counted(vec![row("2", Some("b"))]).await, (1.0, 2.0));
        assert_eq!(counted(vec![row("2", None)]).await, (1.0, 1.0));
        let key = Key::new("org/a", "y");
        let etag = pipeline::store::platform::Etag("1".into());
        let check = Write::Check { key, etag };
        assert_eq!(counted(vec![row("2", Some("a")), check]).await, (4.0, 0.0));
    }
}
