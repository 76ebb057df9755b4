//! Tries a trust policy on attestations that were accepted, to see what it would have said of them.

use api::Timestamp;
use api::trust::Verdict;
use verify::Judge;

use crate::engine::signatures;
use crate::records::attestations::{self, Filter};
use crate::store::platform::{Platform, Scope};
use crate::store::rows::Attestation;

/// Attestations of a page at most: each has megabytes to read and to judge, and the gateway waits half a minute.
const MOST: usize = 20;

/// Maximum number of bytes of a page's attestations, for the same reason. A single one may have more, and so may those of one
/// moment.
const MOST_BYTES: u64 = 24 * 1024 * 1024;

/// A page of attestations, newest first, each with the verdict as of the time when it was accepted, and until when those of
/// the next page were accepted. Nothing is kept. A verdict is none where the bytes are not there any more.
pub async fn page(
    scope: Scope<'_, impl Platform>,
    judge: &Judge,
    of: &Filter,
    limit: usize,
) -> Result<(Vec<(Attestation, Option<Verdict>)>, Option<Timestamp>), attestations::Error> {
    let (rows, mut next) = attestations::list(scope, of, limit.min(MOST)).await?;
    let mut tried: Vec<(Attestation, Option<Verdict>)> = Vec::new();
    let mut size_bytes = 0;
    // One at a time: each may have megabytes.
    for row in rows {
        size_bytes += row.size_bytes;
        let before = tried.last().map(|(row, _)| row.created_at);
        if size_bytes > MOST_BYTES && before.is_some_and(|before| row.created_at < before) {
            next = Some(row.created_at);
            break;
        }
        let verdict = signatures::best(scope, judge, &row).await?;
        tried.push((row, verdict));
    }
    Ok((tried, next))
}
