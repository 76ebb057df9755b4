//! Compare-and-swap of one row: load it, change it, write it unless another writer was first, and then start over.

use std::iter;

use super::row::{CONFLICTS, Row, Stored, Version, load, put, reload};
use crate::store::platform::{Platform, UnlessConflict as _, Unreachable, Write};

/// Result of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    Written,
    /// Nothing had to be written.
    Unchanged,
    /// Another writer was first, at every try.
    Conflict,
}

impl Changed {
    /// Returns whether the row was written; an error when others were first at every try.
    pub(crate) fn is_written(self, what: &str) -> Result<bool, Unreachable> {
        match self {
            Self::Written => Ok(true),
            Self::Unchanged => Ok(false),
            Self::Conflict => Err(Unreachable {
                what: "table",
                why: format!("too many write conflicts on {what}"),
            }),
        }
    }
}

/// Applies `change` to a row and writes it together with the writes that `change` returns; `None` leaves the row as it
/// is. After a conflict, reloads the row and applies `change` again, and `stored` is what was read last. After an error it is
/// not to be used: whether the write arrived is not known.
///
/// `change` only computes: where other rows have to be read or written first, the caller has a loop of its own.
pub(crate) async fn change<R: Row>(
    platform: &impl Platform,
    stored: &mut Stored<R>,
    mut change: impl FnMut(&mut R) -> Option<Vec<Write>>,
) -> Result<Changed, Unreachable> {
    for _ in 0..CONFLICTS {
        let Some(beside) = change(&mut stored.row) else {
            return Ok(Changed::Unchanged);
        };
        if stored.save_with(platform, beside).await? {
            return Ok(Changed::Written);
        }
        reload(platform, stored).await?;
    }
    Ok(Changed::Conflict)
}

/// As [`change`], of the row with the key of `new`: loads it before each try, and inserts it where there is none.
pub(crate) async fn change_or_insert<R: Row + Clone>(
    platform: &impl Platform,
    new: R,
    tries: usize,
    mut change: impl FnMut(&mut R) -> Option<Vec<Write>>,
) -> Result<Changed, Unreachable> {
    for _ in 0..tries {
        let mut draft = Draft::load(platform, new.clone()).await?;
        let Some(beside) = change(&mut draft.row) else {
            return Ok(Changed::Unchanged);
        };
        if draft.save_with(platform, beside).await? {
            return Ok(Changed::Written);
        }
    }
    Ok(Changed::Conflict)
}

impl<R: Row> Stored<R> {
    /// Writes the row as it now is. Returns `false`, with nothing written, when another writer was first.
    pub(crate) async fn save_if_unchanged(
        &mut self,
        platform: &impl Platform,
    ) -> Result<bool, Unreachable> {
        self.save_with(platform, Vec::new()).await
    }

    async fn save_with(
        &mut self,
        platform: &impl Platform,
        beside: Vec<Write>,
    ) -> Result<bool, Unreachable> {
        let (write, version) = self.update(platform);
        let writes = iter::once(write).chain(beside).collect();
        let is_written = platform.write(writes).await.unless_conflict()?;
        if is_written {
            self.version = version;
        }
        Ok(is_written)
    }
}

/// A row that may not be in the table yet.
#[derive(Debug, Clone)]
pub(crate) struct Draft<R> {
    pub(crate) row: R,
    over: Option<Version>,
}

impl<R: Row> Draft<R> {
    pub(crate) fn new(row: R) -> Self {
        Self { row, over: None }
    }

    /// Loads the row with the key of `new`; `new` itself where there is none.
    pub(crate) async fn load(platform: &impl Platform, new: R) -> Result<Self, Unreachable> {
        let found = load(platform, &new.key()).await?;
        Ok(Self::of(found, new))
    }

    /// Begins with the row that was found, or with `new`.
    pub(crate) fn of(found: Option<Stored<R>>, new: R) -> Self {
        match found {
            Some(Stored { row, version }) => Self {
                row,
                over: Some(version),
            },
            None => Self::new(new),
        }
    }

    /// As [`Stored::save_if_unchanged`], with the writes that stand `beside` it.
    pub(crate) async fn save_with(
        &mut self,
        platform: &impl Platform,
        beside: Vec<Write>,
    ) -> Result<bool, Unreachable> {
        let (write, version) = put(platform, &self.row, self.over.as_ref());
        let writes = iter::once(write).chain(beside).collect();
        let is_written = platform.write(writes).await.unless_conflict()?;
        if is_written {
            self.over = Some(version);
        }
        Ok(is_written)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::memory::Memory;
    use crate::store::rows::Paced;

    /// Adds a second to a row while another writer adds a minute during each of the first `races` tries. Returns the
    /// result, the number of tries and the seconds that were added.
    fn raced(races: usize) -> (Changed, usize, u64) {
        let memory = Memory::default();
        let row = Paced {
            organization: "acme".into(),
            token: "a".into(),
            taken_until: memory.now(),
        };
        let add = |secs, row: &mut Paced| {
            row.taken_until = row.taken_until.plus(Duration::from_secs(secs));
            Some(Vec::new())
        };
        let other = |secs| {
            let other = change_or_insert(&memory, row.clone(), 1, |row| add(secs, row));
            assert_eq!(other.now_or_never().unwrap().unwrap(), Changed::Written);
        };
        let read = || load::<Paced>(&memory, &row.key()).now_or_never().unwrap();
        other(0);
        let mut stored = read().unwrap().unwrap();
        let mut tries = 0;
        let changed = change(&memory, &mut stored, |row| {
            tries += 1;
            if tries <= races {
                other(60);
            }
            add(1, row)
        });
        let changed = changed.now_or_never().unwrap().unwrap();
        let table = read().unwrap().unwrap();
        assert_eq!(stored.version.etag, table.version.etag);
        let added = table.row.taken_until.since(row.taken_until);
        (changed, tries, added.as_secs())
    }

    #[test]
    fn a_change_that_loses_a_race_is_applied_to_what_the_other_wrote() {
        assert_eq!(raced(0), (Changed::Written, 1, 1));
        assert_eq!(raced(2), (Changed::Written, 3, 121));
        assert_eq!(raced(CONFLICTS), (Changed::Conflict, CONFLICTS, 300));
    }
}
