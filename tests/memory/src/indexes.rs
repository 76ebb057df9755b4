//! The table's sparse indexes, which show a write a while after it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use api::Timestamp;
use serde_json::Value;

use pipeline::store::platform::{Index, Item, Key, Range};

#[derive(Default)]
pub(super) struct Indexes {
    entries: BTreeMap<Index, BTreeMap<String, BTreeSet<Entry>>>,
    /// Changes written but not visible yet, in the order of the writes.
    arriving: VecDeque<(Timestamp, Change)>,
}

/// Range key and key; between them what orders those of one moment, as on AWS by nothing that anybody may count on.
type Entry = (String, u64, Key);

struct Change {
    index: Index,
    hash: String,
    entry: Entry,
    is_there: bool,
}

impl Indexes {
    /// A row became another, or came, or went.
    pub(super) fn write(
        &mut self,
        visible_at: Timestamp,
        key: &Key,
        old: Option<&Item>,
        new: Option<&Item>,
    ) {
        for index in Index::ALL {
            let old = old.and_then(|item| place(index, item));
            let new = new.and_then(|item| place(index, item));
            if old == new {
                continue;
            }
            for (place, is_there) in [(old, false), (new, true)] {
                let Some((hash, sort)) = place else { continue };
                let change = Change {
                    index,
                    hash: hash.to_owned(),
                    entry: (sort.to_owned(), scramble(key), key.clone()),
                    is_there,
                };
                self.arriving.push_back((visible_at, change));
            }
        }
    }

    pub(super) fn range(&mut self, now: Timestamp, range: &Range<'_>) -> Vec<Key> {
        while let Some((_, change)) = self.arriving.pop_front_if(|(at, _)| *at <= now) {
            self.apply(change);
        }
        let hashes = self.entries.get(&range.index);
        let Some(entries) = hashes.and_then(|hashes| hashes.get(range.hash)) else {
            return Vec::new();
        };
        let until = entries
            .iter()
            .take_while(|(sort, ..)| sort.as_str() <= range.until);
        match range.newest_first {
            false => until
                .take(range.limit)
                .map(|(.., key)| key.clone())
                .collect(),
            true => {
                let mut keys: Vec<Key> = until.map(|(.., key)| key.clone()).collect();
                keys.reverse();
                keys.truncate(range.limit);
                keys
            }
        }
    }

    fn apply(&mut self, change: Change) {
        let hashes = self.entries.entry(change.index).or_default();
        let entries = hashes.entry(change.hash).or_default();
        match change.is_there {
            true => entries.insert(change.entry),
            false => entries.remove(&change.entry),
        };
    }
}

/// The same for the same key, and in no order.
fn scramble(key: &Key) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key)
}

/// Returns a row's hash and range key in an index.
fn place(index: Index, item: &Item) -> Option<(&str, &str)> {
    let (hash, sort) = index.attributes();
    let text = |name: &str| item.get(name).and_then(Value::as_str);
    Some((text(hash)?, text(sort)?))
}
