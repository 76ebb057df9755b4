//! Reading and writing of rows, whichever they are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::store::platform::{Etag, Expect, Index, Item, Key, Platform, Unreachable, Write};

/// Something with a place in the table.
pub trait Row: Serialize + DeserializeOwned {
    fn key(&self) -> Key;

    /// The sparse indexes that the row stands in just now, each with its hash and range key.
    fn indexes(&self) -> Vec<(Index, String, Timestamp)> {
        Vec::new()
    }

    /// Attributes that are left out of an item where they have these values: the usual ones, and what its keys say.
    fn implied(_item: &Item) -> Item {
        Item::new()
    }

    /// Since when the time runs after which the row may be forgotten; none while it must be kept.
    fn kept_since(&self) -> Option<Timestamp> {
        None
    }

    /// Returns the length of that time; the platform's retention when none.
    fn kept_for(&self) -> Option<Duration> {
        None
    }
}

/// A row as read, with what a write of it is conditional on.
#[derive(Debug, Clone)]
pub struct Stored<R> {
    pub row: R,
    pub version: Version,
}

/// State of a row that a write replaces.
#[derive(Debug, Clone, Default)]
pub struct Version {
    pub etag: Etag,
    /// The attributes as they were read: the write keeps those that it does not change, known or not. None where the
    /// row was not read but written.
    read: Option<Arc<Item>>,
}

impl Version {
    /// The version of a row whose place something else takes: a write over it keeps nothing.
    pub(crate) fn replaced(self) -> Self {
        Self { read: None, ..self }
    }
}

/// Reports whether a row has expired: the table removes expired rows at any later time, so the clock decides.
fn is_over(item: &Item, now: Timestamp) -> bool {
    item.get("expires_at")
        .and_then(Value::as_u64)
        .is_some_and(|at| at < now.secs())
}

/// Reads a row that was written by a version that this one does not know as an error.
pub fn parse<R: Row>(mut item: Item) -> Result<Stored<R>, Unreachable> {
    for (name, value) in R::implied(&item) {
        item.entry(name).or_insert(value);
    }
    let etag = Etag(
        item.get("etag")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
    );
    let row = typed(&item)?;
    let read = Some(Arc::new(item));
    let version = Version { etag, read };
    Ok(Stored { row, version })
}

fn typed<R: Row>(item: &Item) -> Result<R, Unreachable> {
    R::deserialize(item).map_err(|error| Unreachable {
        what: "table",
        why: format!("unreadable row: {error}"),
    })
}

/// The attributes of a row's own; absent ones, not null ones: sparse indexes hold what has the attribute.
fn attributes<R: Row>(row: &R) -> Item {
    let mut item = match serde_json::to_value(row) {
        Ok(Value::Object(item)) => item,
        other => unreachable!("a row is an object with text keys: {other:?}"),
    };
    item.retain(|_, value| !value.is_null());
    item
}

/// Keeps what the release after this one wrote: a row that both of them write has attributes that this one does not
/// know, and known ones with parts that it does not know. Whatever this write does not change goes back as it was read.
fn keep_unknown<R: Row>(item: &mut Item, read: &Item) {
    let known = typed::<R>(read).map(|row| attributes(&row));
    let known = known.expect("a row that was read once can be read again");
    for (name, value) in read {
        if !is_own(name) && known.get(name) == item.get(name) {
            item.insert(name.clone(), value.clone());
        }
    }
}

/// Reports whether each write sets an attribute, or leaves it out: where the row stands, and how long it is kept.
fn is_own(name: &str) -> bool {
    let indexes = Index::ALL.map(Index::attributes);
    let is_of_index = indexes
        .iter()
        .any(|(hash, range)| name == *hash || name == *range);
    is_of_index || ["pk", "sk", "etag", "expires_at"].contains(&name)
}

pub async fn load<R: Row>(
    platform: &impl Platform,
    key: &Key,
) -> Result<Option<Stored<R>>, Unreachable> {
    if !key.can_be() {
        return Ok(None);
    }
    let item = platform
        .get(key)
        .await?
        .filter(|item| !is_over(item, platform.now()));
    item.map(parse).transpose()
}

/// As [`find_many`], of rows of one kind.
pub async fn load_many<R: Row>(
    platform: &impl Platform,
    keys: &[Key],
) -> Result<Vec<Stored<R>>, Unreachable> {
    let found = find_many(platform, keys.iter().cloned()).await?;
    let items = found.items.into_iter();
    items
        .filter(|item| !is_over(item, found.now))
        .map(parse)
        .collect()
}

/// Reports whether a row that was read has this key.
pub fn is_at(item: &Item, key: &Key) -> bool {
    item["pk"] == key.partition && item["sk"] == key.sort
}

/// Rows of several kinds that were read in one call.
pub struct Found {
    items: Vec<Item>,
    now: Timestamp,
}

/// Reads these rows, or those of them that there are. Each is read once, however often its key is given.
pub async fn find_many(
    platform: &impl Platform,
    keys: impl IntoIterator<Item = Key>,
) -> Result<Found, Unreachable> {
    let keys: BTreeSet<Key> = keys.into_iter().filter(Key::can_be).collect();
    let keys: Vec<Key> = keys.into_iter().collect();
    let items = match keys.is_empty() {
        true => Vec::new(),
        false => platform.get_many(&keys).await?,
    };
    let now = platform.now();
    Ok(Found { items, now })
}

impl Found {
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    pub fn get<R: Row>(&self, key: &Key) -> Result<Option<Stored<R>>, Unreachable> {
        let item = self.items.iter().find(|item| is_at(item, key));
        let item = item.filter(|item| !is_over(item, self.now));
        item.cloned().map(parse).transpose()
    }
}

/// All rows of a partition whose sort key begins so, however many there are.
pub async fn load_all<R: Row>(
    platform: &impl Platform,
    partition: &str,
    prefix: &str,
) -> Result<Vec<Stored<R>>, Unreachable> {
    load_after(platform, partition, prefix, None).await
}

/// As [`load_all`], of those behind the sort key `after`.
pub async fn load_after<R: Row>(
    platform: &impl Platform,
    partition: &str,
    prefix: &str,
    after: Option<String>,
) -> Result<Vec<Stored<R>>, Unreachable> {
    let mut rows = Vec::new();
    each(platform, partition, prefix, after, |row| rows.push(row)).await?;
    Ok(rows)
}

/// Calls `visit` with each row of a partition whose sort key begins so and is behind `after`. A page of them is in memory at
/// a time.
pub async fn each<R: Row>(
    platform: &impl Platform,
    partition: &str,
    prefix: &str,
    mut after: Option<String>,
    mut visit: impl FnMut(Stored<R>),
) -> Result<(), Unreachable> {
    const PAGE: usize = 500;
    if !Key::new(partition, "-").can_be() {
        return Ok(());
    }
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
            visit(parse(item)?);
        }
        match last {
            Some(last) => after = Some(last),
            None => return Ok(()),
        }
    }
}

/// A page of a partition's rows, first first, from behind the sort key `after`; and the sort key behind which the next page
/// begins.
pub async fn first_page<R: Row>(
    platform: &impl Platform,
    partition: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<R>, Option<String>), Unreachable> {
    let items = platform.list(partition, "", after, limit).await?;
    let next = (items.len() == limit)
        .then(|| items.last()?.get("sk")?.as_str().map(str::to_owned))
        .flatten();
    let rows: Result<Vec<Stored<R>>, Unreachable> = items.into_iter().map(parse).collect();
    Ok((rows?.into_iter().map(|stored| stored.row).collect(), next))
}

/// A page of a partition's rows whose sort key is `prefix` and an id, last first, from before the id `before`; and the
/// id before which the next page begins.
pub async fn last_page<R: Row>(
    platform: &impl Platform,
    partition: &str,
    prefix: &str,
    before: Option<&str>,
    limit: usize,
) -> Result<(Vec<R>, Option<String>), Unreachable> {
    let before = before.map(|id| format!("{prefix}{id}"));
    let mut items = platform
        .list_last(partition, prefix, before.as_deref(), limit + 1)
        .await?;
    let is_more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().and_then(|item| item["sk"].as_str());
    let next = last
        .filter(|_| is_more)
        .map(|sort| sort[prefix.len()..].to_owned());
    let now = platform.now();
    let items = items.into_iter().filter(|item| !is_over(item, now));
    let rows: Result<Vec<Stored<R>>, Unreachable> = items.map(parse).collect();
    Ok((rows?.into_iter().map(|stored| stored.row).collect(), next))
}

/// A write of a row that is not there yet, and the version that it will have then.
pub fn insert<R: Row>(platform: &impl Platform, row: &R) -> (Write, Version) {
    put(platform, row, None)
}

/// A write of a row over this version of it, or where there is none, and the version that it will have then.
pub fn put<R: Row>(platform: &impl Platform, row: &R, over: Option<&Version>) -> (Write, Version) {
    let etag = Etag(format!("{:016x}", platform.random()));
    put_as(platform, row, over, etag)
}

/// As [`put`], of a row that gets this etag.
pub fn put_as<R: Row>(
    platform: &impl Platform,
    row: &R,
    over: Option<&Version>,
    etag: Etag,
) -> (Write, Version) {
    let key = row.key();
    let mut item = attributes(row);
    let read = over.and_then(|version| version.read.clone());
    if let Some(read) = &read {
        keep_unknown::<R>(&mut item, read);
    }
    for (index, hash, range) in row.indexes() {
        let (hash_name, range_name) = index.attributes();
        item.insert(hash_name.into(), hash.into());
        item.insert(range_name.into(), range.to_string().into());
    }
    if let Some(since) = row.kept_since() {
        item.insert(
            "expires_at".into(),
            since
                .plus(row.kept_for().unwrap_or_else(|| platform.retention()))
                .secs()
                .into(),
        );
    }
    item.insert("pk".into(), key.partition.clone().into());
    item.insert("sk".into(), key.sort.clone().into());
    item.insert("etag".into(), etag.0.clone().into());
    for (name, value) in R::implied(&item) {
        if item.get(&name) == Some(&value) {
            item.remove(&name);
        }
    }
    let expect = over.map_or(Expect::Absent, |version| {
        Expect::Unchanged(version.etag.clone())
    });
    let write = Write::Put {
        key,
        item,
        etag: etag.clone(),
        expect,
    };
    (write, Version { etag, read })
}

impl<R: Row> Stored<R> {
    /// A write of the row as it now is, conditional on nobody having written it since.
    pub fn update(&self, platform: &impl Platform) -> (Write, Version) {
        put(platform, &self.row, Some(&self.version))
    }

    pub fn delete(&self) -> Write {
        Write::Delete {
            key: self.row.key(),
            etag: self.version.etag.clone(),
        }
    }

    pub fn check(&self) -> Write {
        Write::Check {
            key: self.row.key(),
            etag: self.version.etag.clone(),
        }
    }
}

/// Number of shards of the due index.
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

/// Maximum number of tries of a write that conflicts with another.
pub(crate) const CONFLICTS: usize = 5;

/// Loads a row again, to retry a write that met another.
pub(crate) async fn reload<R: Row>(
    platform: &impl Platform,
    stored: &mut Stored<R>,
) -> Result<(), Unreachable> {
    let row = load(platform, &stored.row.key()).await?;
    *stored = row.ok_or_else(|| Unreachable {
        what: "table",
        why: "a row is gone that was there".into(),
    })?;
    Ok(())
}
