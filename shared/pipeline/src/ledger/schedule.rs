//! The numbers of the delivery promise, each once. Documents and the template are held against them.

use std::time::Duration;

const SECOND: u64 = 1;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Minimum delays between a failed attempt and the next: 16 attempts in 7 days.
pub const RETRIES: [Duration; 15] = [
    secs(5 * SECOND),
    secs(30 * SECOND),
    secs(2 * MINUTE),
    secs(10 * MINUTE),
    secs(30 * MINUTE),
    secs(HOUR),
    secs(2 * HOUR),
    secs(4 * HOUR),
    secs(8 * HOUR),
    secs(12 * HOUR),
    secs(DAY),
    secs(DAY),
    secs(DAY),
    secs(DAY),
    secs(DAY),
];

/// Attempts in all, the first among them.
#[expect(clippy::cast_possible_truncation, reason = "fifteen retries")]
pub const ATTEMPTS: u32 = RETRIES.len() as u32 + 1;

/// No attempt begins later than this after the delivery was made; the time that it was held does not count.
pub const GIVE_UP: Duration = secs(7 * DAY);

/// Maximum time for which a delivery is held, by all pauses of its registration together; after that, it has failed.
pub const PAUSE_LONGEST: Duration = secs(30 * DAY);

/// When every attempt of a registration has failed for so long, and there were [`FAILING_ATTEMPTS`], it is paused.
pub const FAILING: Duration = secs(DAY);

/// Failed attempts that say that a registration has failed for [`FAILING`]: a document refused today and another tomorrow
/// say it of the documents.
pub const FAILING_ATTEMPTS: u32 = 5;

/// An attempt that has less time than this left before it sends comes again: cut off in the midst of its request, it
/// might be delivered twice.
pub const SENDING: Duration = secs(10 * SECOND);

/// Failures in a row after which a destination counts as down.
pub const DOWN_AFTER: u32 = 5;

/// Deliveries that fail in a row, by the destination or by what they hold, after which their retries go one by one.
pub const DOUBTS: u32 = 2;

/// Time for which a retry waits for the one before it, after [`DOUBTS`].
pub const DOUBT: Duration = secs(MINUTE);

/// Answers that may speak of the document after which they do, where others were accepted in between.
pub const REFUSALS: u32 = 5;

/// Time for which the breaker of a destination stays open, by how often that did not help; half-open then: one delivery
/// tries.
pub const HALF_OPEN_AFTER: [Duration; 5] = [
    secs(15 * SECOND),
    secs(30 * SECOND),
    secs(MINUTE),
    secs(2 * MINUTE),
    secs(5 * MINUTE),
];

/// Time that a delivery waits within an attempt for its reservation; a later one becomes its due time.
pub const SHORT_WAIT: Duration = secs(2);

/// Deliveries of a resumed registration that are sent in a second, unless the operator says otherwise.
pub const DRAIN_PER_SECOND: u32 = 10;

/// Time from a plan's first look to the next, should that find it open, and twice as long after each further one; at most a
/// day.
pub const CLOSE: Duration = secs(10 * MINUTE);

/// Time past `wake_at` after which a row that is not final breaks the promise.
pub const OVERDUE: Duration = secs(10 * MINUTE);

/// Time for which a delivery has been due when it is reported that no function has claimed it.
pub const UNCLAIMED: Duration = secs(10 * MINUTE);

/// Attachments that one attestation is fanned out to at most; a plan is one item of the table.
pub const PLAN_MOST: usize = 2_000;

/// A retry due within this time is a delayed message; a later one is sent by the reconciler.
pub const LONGEST_DELAY: Duration = secs(14 * MINUTE);

/// Time after which the reconciler looks at a plan for the first time, and mostly closes it.
pub const UNFINISHED: Duration = secs(60);

/// A message that the queue would not take is tried again this much later at most.
pub const UNSENT: Duration = secs(5 * MINUTE);

/// Crashes in the midst of an attempt, in a row, that the next attempt follows at once; then the schedule holds.
pub const CRASHES: u32 = 2;

/// After its due time, a delivery is looked for this much later.
pub const GRACE: Duration = secs(60);

/// After its lease, an attempt is looked for this much later. With the reconciler's minute, and the time that it
/// takes, the next attempt is under way within lease + 2 min.
pub const LEASE_GRACE: Duration = secs(15);

/// A message that was sent and never claimed is sent again after this, doubled each time.
pub const RESEND: Duration = secs(HOUR);

/// When a missing material is looked for, counted from the first look; then every minute.
pub const MATERIAL_POLLS: [Duration; 4] = [secs(5), secs(15), secs(30), secs(60)];

/// Time for which a delivery waits for a material, from acceptance, unless its attachment says otherwise.
pub const PATIENCE: Duration = secs(15 * MINUTE);

/// Turns that an attestation's fetch has at most. Each asks for one material at least, so that the first round of
/// them asks for all.
#[expect(clippy::cast_possible_truncation, reason = "a thousand")]
pub const FETCH_TURNS: u32 = attestation::MAX_MATERIALS as u32;

/// Delays between requests for materials that could not be fetched, by the number of requests so far. The last delay
/// repeats until no delivery waits for them any more.
pub const FETCHES: [Duration; 6] = [
    secs(5),
    secs(15),
    secs(30),
    secs(MINUTE),
    secs(2 * MINUTE),
    secs(4 * MINUTE),
];

/// Tries of one page of a job, after which the job has failed. What lets go held deliveries is tried for ever.
pub const JOB_TRIES: u32 = 24;

/// Time for which rows are kept, unless the deployment says otherwise; bytes stay a week longer.
pub const RETENTION: Duration = secs(180 * DAY);

/// Time by which bytes outlive rows: bytes younger than this outlive a row that is written now.
pub const BYTES_LONGER: Duration = secs(7 * DAY);

/// Time for which an interrupted registration keeps its name reserved.
pub const RESERVATION: Duration = secs(5 * MINUTE);

/// Time after which the record of an attempt that the table did not take is written again, while the attempt has time.
pub const RECORD_AGAIN: Duration = secs(SECOND);

/// The longest that such a write takes.
pub const RECORDING: Duration = secs(8 * SECOND);

/// Deliveries with more material than this are made one at a time in a function: 8 MB.
pub const HEAVY_BYTES: u64 = 8_000_000;

/// Memory that the deliveries of a batch have together for what they read: of 256 MB, what a function has besides
/// what it takes by itself, a part of which is spare.
pub const ROOM_BYTES: u64 = 120_000_000;

/// Returns the maximum share of [`ROOM_BYTES`] that a delivery takes for an attestation of `size_bytes`. The largest
/// part is for small entries, whose number is limited.
pub fn room_of(size_bytes: u64) -> u64 {
    const ENTRIES: u64 = attestation::MAX_ENTRIES as u64;
    // What was not counted is as large as it may be.
    let size = match size_bytes {
        0 => attestation::MAX_BYTES as u64,
        _ => size_bytes,
    };
    6 * size + (20 * size).min(200 * ENTRIES)
}

/// Rows written in one transaction at most: the table takes no more.
pub const ROWS_PER_TRANSACTION: usize = 100;

/// Delays between completion polls, by the number of polls so far; then every half minute.
pub const FOLLOWS: [Duration; 5] = [secs(1), secs(2), secs(4), secs(8), secs(16)];

/// Maximum duration of completion polls; after that, the completion stays unknown.
pub const FOLLOW_LONGEST: Duration = secs(10 * MINUTE);

/// Numbers that must hold together between code and template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Longest attempt.
    pub attempt: Duration,
    /// The function's timeout.
    pub function: Duration,
    /// Time for which a claim holds.
    pub lease: Duration,
    /// The queue's visibility timeout.
    pub visibility: Duration,
}

impl Deadlines {
    pub const fn of(takes_long: bool) -> Self {
        let attempt = if takes_long { 120 } else { 20 };
        let function = attempt + 10;
        Self {
            attempt: secs(attempt),
            function: secs(function),
            lease: secs(function + 30),
            visibility: secs(6 * function),
        }
    }
}

/// When attempt `number` (the second is 2) is due, counted from the failure before it: never earlier than
/// the schedule or the third party's own `floor`, later by at most a tenth. `None` when the budget is spent.
pub fn retry_after(number: u32, floor: Option<Duration>, random: u64) -> Option<Duration> {
    let index = usize::try_from(number).ok()?.checked_sub(2)?;
    let base = (*RETRIES.get(index)?).max(floor.unwrap_or_default());
    let tenth = u64::try_from(base.as_millis() / 10)
        .unwrap_or(u64::MAX)
        .max(1);
    Some(base + Duration::from_millis(random % tenth))
}

/// When to look again for a missing material, given how often we looked.
pub fn poll_after(polls: u32) -> Duration {
    let index = usize::try_from(polls).unwrap_or(usize::MAX);
    let before = index
        .checked_sub(1)
        .and_then(|before| MATERIAL_POLLS.get(before))
        .copied()
        .unwrap_or_default();
    MATERIAL_POLLS
        .get(index)
        .map_or(secs(MINUTE), |at| at.saturating_sub(before))
}

/// When something that was accepted, and asked for so often, is asked for again.
pub fn poll_completion_after(polls: u32) -> Duration {
    let index = usize::try_from(polls).unwrap_or(usize::MAX);
    FOLLOWS.get(index).copied().unwrap_or(secs(30))
}

/// When a plan that was looked at `polls` times and is still open is looked at again.
pub fn close_after(polls: u32) -> Duration {
    CLOSE
        .saturating_mul(2u32.saturating_pow(polls.min(10)))
        .min(secs(DAY))
}

/// Returns the delay for a delivery that was put off `times` times without an attempt: the same as after a failed
/// attempt, but at most five minutes and a little, since its destination may be back at any time.
pub fn put_off(times: u32, random: u64) -> Duration {
    let usual = retry_after(times.saturating_add(2).min(ATTEMPTS), None, random);
    let longest =
        HALF_OPEN_AFTER[HALF_OPEN_AFTER.len() - 1] + Duration::from_millis(random % 30_000);
    usual.unwrap_or(longest).min(longest)
}

/// When a page of a job that failed `failures` times in a row is tried again: after a minute, then twice as long
/// each time, at most an hour.
pub fn job_after(failures: u32) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1).min(6));
    secs(MINUTE).saturating_mul(doubled).min(secs(HOUR))
}

/// Returns the time for which a destination's breaker stays open after `failures` failures in a row.
pub fn half_open_after(failures: u32) -> Duration {
    let index = usize::try_from(failures.saturating_sub(DOWN_AFTER)).unwrap_or(usize::MAX);
    HALF_OPEN_AFTER[index.min(HALF_OPEN_AFTER.len() - 1)]
}

/// When a message that was sent `sends` times and never claimed is sent again.
pub fn resend_after(sends: u32) -> Duration {
    RESEND.saturating_mul(2u32.saturating_pow(sends.saturating_sub(1).min(7)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_attempts_fit_into_seven_days() {
        let total: Duration = RETRIES.iter().sum();
        assert_eq!(ATTEMPTS, 16);
        assert!(total + total / 10 < GIVE_UP, "{total:?} and its jitter");
        assert_eq!(retry_after(ATTEMPTS + 1, None, 0), None);
    }

    #[test]
    fn jitter_makes_an_attempt_later_and_never_earlier() {
        for number in 2..=ATTEMPTS {
            for random in [0, 1, 499, u64::MAX] {
                let base = RETRIES[usize::try_from(number).unwrap() - 2];
                let due = retry_after(number, None, random).unwrap();
                assert!(
                    due >= base && due <= base + base / 10,
                    "{number} {random} {due:?}"
                );
            }
        }
    }

    #[test]
    fn a_third_partys_floor_is_kept() {
        assert!(retry_after(2, Some(secs(77)), 12345).unwrap() >= secs(77));
        assert!(retry_after(2, Some(secs(1)), 0).unwrap() >= secs(5));
    }

    #[test]
    fn deadlines_nest() {
        for takes_long in [false, true] {
            let numbers = Deadlines::of(takes_long);
            assert!(numbers.attempt + secs(10) <= numbers.function);
            assert!(numbers.function + secs(30) <= numbers.lease);
            assert!(numbers.lease < numbers.visibility);
        }
    }

    #[test]
    fn a_material_is_looked_for_at_5_15_30_60_seconds_and_then_each_minute() {
        let mut at = Duration::ZERO;
        let looked: Vec<u64> = (0..6)
            .map(|polls| {
                at += poll_after(polls);
                at.as_secs()
            })
            .collect();
        assert_eq!(looked, [5, 15, 30, 60, 120, 180]);
    }
}
