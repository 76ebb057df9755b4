//! The newest rows of a sparse index, in whole moments.

use api::Timestamp;

use super::row::{Row, Stored, load_many};
use crate::store::platform::{Index, Platform, Range, Unreachable};

/// Behind every moment that there is.
pub const LAST: &str = "9999-12-31T23:59:59.999Z";

/// Rows in no order, of no moment only a part.
pub struct Newest<R> {
    pub rows: Vec<Stored<R>>,
    /// All that are newer than this are there; none when all are.
    pub cut_at: Option<Timestamp>,
}

/// The newest rows of `hash` that are not later than `until`: at least `least` that are wanted, or all.
///
/// Entries of one moment have no order in the index. So of the oldest moment that was read there may be more, and it
/// is left to the next page; a moment that is larger than a page is read whole.
pub async fn newest<R: Row>(
    platform: &impl Platform,
    (index, hash): (Index, &str),
    until: Option<Timestamp>,
    least: usize,
    created_at: fn(&R) -> Timestamp,
    is_wanted: impl Fn(&R) -> bool,
) -> Result<Newest<R>, Unreachable> {
    let until = until.map_or_else(|| LAST.to_owned(), |until| until.to_string());
    // One for the oldest moment, and one that was the last of the page before.
    let mut limit = least + 2;
    loop {
        let range = Range {
            index,
            hash,
            until: &until,
            newest_first: true,
            limit,
        };
        let keys = platform.range(range).await?;
        let mut rows = load_many::<R>(platform, &keys).await?;
        // Rows that were forgotten meanwhile are not there: it is the keys that say whether there are more.
        let cut_at = (keys.len() == limit)
            .then(|| rows.iter().map(|stored| created_at(&stored.row)).min())
            .flatten();
        rows.retain(|stored| {
            cut_at.is_none_or(|cut_at| created_at(&stored.row) > cut_at) && is_wanted(&stored.row)
        });
        if rows.len() >= least || keys.len() < limit {
            return Ok(Newest { rows, cut_at });
        }
        limit *= 2;
    }
}
