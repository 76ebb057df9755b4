//! Rotations of tokens and of intakes' URLs: the new text comes at once, and the old one works until an overlap ends.

use std::time::Duration;

use api::Timestamp;
use api::inputs::Fault;
use api::tokens::OVERLAP_MOST_SECS;

use crate::store::rows::Previous;

/// Default time for which the old text keeps working.
const OVERLAP: Duration = Duration::from_hours(24);

/// Reads how long the old text is to work.
pub(crate) fn overlap(secs: Option<u64>) -> Result<Duration, Fault> {
    match secs.map_or(OVERLAP, Duration::from_secs) {
        overlap if overlap.as_secs() > OVERLAP_MOST_SECS => Err(Fault {
            field: "overlap_secs".into(),
            detail: format!("must be at most {OVERLAP_MOST_SECS}"),
        }),
        overlap => Ok(overlap),
    }
}

/// Returns when the old text ends: with the overlap, or when its own time does. While an older one still works, only a
/// rotation without overlap is taken: it says that all of them are to end, so none ends that somebody did not mean. The
/// error is when that older one ends.
pub(crate) fn ends(
    previous: Option<&Previous>,
    valid_until: Option<Timestamp>,
    overlap: Duration,
    now: Timestamp,
) -> Result<Timestamp, Timestamp> {
    match previous {
        Some(Previous { valid_until, .. }) if now < *valid_until && !overlap.is_zero() => {
            Err(*valid_until)
        }
        _ => {
            let ends = now.plus(overlap);
            Ok(valid_until.map_or(ends, |until| until.min(ends)))
        }
    }
}
