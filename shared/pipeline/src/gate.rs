//! What holds across all functions for a destination: that it is down, that it is paced, that it has failed
//! for a day. One row per registration, read with each attempt and written when something about it changes.
//!
//! Pure, as the ledger is. A lost race is no harm: whoever was first said the same.

use std::time::Duration;

use integrations::{About, Error, Kind, Outcome};

use crate::clock::Timestamp;
use crate::rows::Gate;
use crate::schedule;

/// Evidence that an attempt gives of its destination: the one place where a result is read for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// None: nothing was sent, or the trouble is the delivery's own.
    Nothing,
    Accepted,
    /// It answers, only not as we would like.
    Refused,
    /// The document or the destination. The same document again adds nothing to it.
    Doubtful,
    /// It could not take anything just now, and may have said for how long.
    Down(Option<Duration>),
    /// It takes nothing from any of us for so long.
    DownForAll(Duration),
    /// It is gone for good.
    Gone,
}

impl Evidence {
    pub fn of(result: &Result<Outcome, Error>) -> Self {
        let error = match result {
            Ok(Outcome::Delivered(_) | Outcome::PartlyDelivered { .. }) => return Self::Accepted,
            Ok(Outcome::Skipped(_) | Outcome::ContinueAfter { .. }) => return Self::Nothing,
            Err(error) => error,
        };
        let after = match error.kind {
            Kind::Gone => return Self::Gone,
            _ if error.about == About::Delivery => return Self::Nothing,
            Kind::Unauthorized | Kind::Permanent => return Self::Refused,
            Kind::Indeterminate => None,
            Kind::Retryable { after } => after,
        };
        match error.about {
            About::Delivery => Self::Nothing,
            About::Either => Self::Doubtful,
            About::Destination => Self::Down(after),
            About::Everyone => Self::DownForAll(after.unwrap_or(schedule::PROBES[0])),
        }
    }
}

/// Whether a delivery may go through now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    Now,
    /// Its turn comes so soon that it waits for it.
    Wait(Duration),
    /// It goes back, which costs no attempt.
    Later(Later),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Later {
    /// The destination is down until then; somebody else tries it first.
    Down(Timestamp),
    /// It has a place in the queue.
    Turn(Timestamp),
    /// It has none, and asks again then.
    Again(Timestamp),
}

/// Lets a delivery through, or says when. `is_retry` is whether it has been tried before, `booked` whether it has a
/// place in the queue already; `interval` is the pace. The row has changed when `Gate` differs afterwards.
pub fn enter(
    gate: &mut Gate,
    interval: Option<Duration>,
    is_retry: bool,
    booked: bool,
    now: Timestamp,
) -> Pass {
    // In doubt, those alone stay out that were tried before: a document that never failed finds out what is wrong,
    // and is held back by no other's failure.
    let retries_until = gate.retries_until.filter(|_| is_retry);
    let until = gate.closed_until.max(retries_until);
    if let Some(until) = until.filter(|until| *until > now) {
        return Pass::Later(Later::Down(until));
    }
    // This one tries; until it has an answer the others stay out.
    if gate.closed_until.is_some() {
        gate.closed_until = Some(now.plus(schedule::probe_after(gate.failures)));
    }
    if retries_until.is_some() {
        gate.retries_until = Some(now.plus(schedule::DOUBT));
    }
    let Some(interval) = interval else {
        return Pass::Now;
    };
    let next = gate.next_at.max(now);
    // Whoever comes without a place goes behind those that have one.
    let queued = !booked && gate.booked_until > now.plus(schedule::TURN);
    if !queued && next.since(now) <= schedule::TURN {
        gate.next_at = next.plus(interval);
        gate.booked_until = gate.booked_until.max(gate.next_at);
        let wait = next.since(now);
        return if wait.is_zero() {
            Pass::Now
        } else {
            Pass::Wait(wait)
        };
    }
    // Also for one that came late and met others: to the end of the queue, or all of those would meet again.
    gate.booked_until = gate.booked_until.max(next).plus(interval);
    Pass::Later(Later::Turn(gate.booked_until))
}

/// A destination is left alone no longer than this, whatever it asks for.
pub(crate) const LONGEST: Duration = Duration::from_hours(1);

/// Takes down what an attempt says of its destination. Whether it has failed for so long that its registration is to
/// be paused.
pub fn learn(gate: &mut Gate, evidence: Evidence, is_retry: bool, now: Timestamp) -> bool {
    match evidence {
        // What holds for everyone stands in another row.
        Evidence::Nothing | Evidence::DownForAll(_) => return false,
        Evidence::Gone => return true,
        Evidence::Accepted => {
            // Whatever was wrong is over. Written down only if something was.
            if gate.failing_since.take().is_some() {
                gate.accepted_at = Some(now);
            }
            gate.failures = 0;
            gate.closed_until = None;
            gate.doubts = 0;
            gate.retries_until = None;
            return false;
        }
        Evidence::Refused => {
            gate.failures = 0;
            gate.closed_until = None;
        }
        Evidence::Doubtful => {
            // One that was down answers again, and nobody waits any longer for a probe that a bad document used up.
            if gate.failures >= schedule::DOWN_AFTER {
                gate.closed_until = None;
            }
            gate.doubts = gate.doubts.saturating_add(u32::from(!is_retry));
            if gate.doubts >= schedule::DOUBTS && gate.retries_until.is_none() {
                gate.retries_until = Some(now.plus(schedule::DOUBT));
            }
        }
        Evidence::Down(after) => {
            gate.failures = gate.failures.saturating_add(1);
            let probe = (gate.failures >= schedule::DOWN_AFTER)
                .then(|| schedule::probe_after(gate.failures));
            // Whoever was answered so waits as long as it was told; the others try within the hour.
            if let Some(closed) = probe.max(after.map(|after| after.min(LONGEST))) {
                gate.closed_until = gate.closed_until.max(Some(now.plus(closed)));
            }
        }
    }
    now.since(*gate.failing_since.get_or_insert(now)) >= schedule::FAILING
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_767_322_445_000);

    const DOWN: Evidence = Evidence::Down(None);

    fn gate() -> Gate {
        Gate::new("acme", "registration-1")
    }

    #[test]
    fn a_destination_is_down_after_five_failures_in_a_row_and_one_delivery_tries_it_each_time() {
        let mut gate = gate();
        for _ in 0..4 {
            learn(&mut gate, DOWN, false, START);
            assert_eq!(enter(&mut gate, None, false, false, START), Pass::Now);
        }
        learn(&mut gate, DOWN, false, START);
        let until = START.plus(schedule::PROBES[0]);
        assert_eq!(
            enter(&mut gate, None, false, false, START),
            Pass::Later(Later::Down(until))
        );
        assert_eq!(
            enter(&mut gate, None, false, false, until),
            Pass::Now,
            "the probe"
        );
        assert!(matches!(
            enter(&mut gate, None, false, false, until),
            Pass::Later(Later::Down(_))
        ));
        learn(&mut gate, Evidence::Accepted, false, START);
        assert_eq!(enter(&mut gate, None, false, false, until), Pass::Now);
    }

    #[test]
    fn a_third_partys_own_delay_closes_the_gate_at_once_and_never_opens_it_sooner() {
        let mut gate = gate();
        let (minute, second) = (Duration::from_mins(1), Duration::from_secs(1));
        learn(&mut gate, Evidence::Down(Some(minute)), false, START);
        learn(&mut gate, Evidence::Down(Some(second)), false, START);
        let until = START.plus(minute);
        assert_eq!(
            enter(&mut gate, None, false, false, START),
            Pass::Later(Later::Down(until))
        );
    }

    #[test]
    fn a_refusal_for_good_does_not_count_as_down_and_does_count_as_failing() {
        let mut gate = gate();
        for _ in 0..10 {
            assert!(!learn(&mut gate, Evidence::Refused, false, START));
        }
        assert_eq!(enter(&mut gate, None, false, false, START), Pass::Now);
        assert!(learn(
            &mut gate,
            Evidence::Refused,
            false,
            START.plus(schedule::FAILING)
        ));
        learn(&mut gate, Evidence::Accepted, false, START);
        assert!(!learn(
            &mut gate,
            Evidence::Refused,
            false,
            START.plus(schedule::FAILING)
        ));
    }

    #[test]
    fn a_result_says_whom_it_speaks_of() {
        let again = Kind::Retryable { after: None };
        let minute = Some(Duration::from_mins(1));
        let asked = Kind::Retryable { after: minute };
        for (kind, about, evidence) in [
            (again, About::Destination, DOWN),
            (asked, About::Destination, Evidence::Down(minute)),
            (Kind::Indeterminate, About::Destination, DOWN),
            (again, About::Either, Evidence::Doubtful),
            (Kind::Indeterminate, About::Either, Evidence::Doubtful),
            (again, About::Delivery, Evidence::Nothing),
            (Kind::Permanent, About::Delivery, Evidence::Nothing),
            (Kind::Permanent, About::Destination, Evidence::Refused),
            (Kind::Permanent, About::Either, Evidence::Refused),
            (Kind::Unauthorized, About::Destination, Evidence::Refused),
            (
                asked,
                About::Everyone,
                Evidence::DownForAll(Duration::from_mins(1)),
            ),
            (Kind::Gone, About::Destination, Evidence::Gone),
        ] {
            let error = Error::new(kind, "post").about(about);
            assert_eq!(Evidence::of(&Err(error)), evidence, "{kind:?} {about:?}");
        }
        let skipped = Outcome::Skipped("nothing to send".to_owned());
        assert_eq!(Evidence::of(&Ok(skipped)), Evidence::Nothing);
        let delivered = Outcome::Delivered(serde_json::Map::new());
        assert_eq!(Evidence::of(&Ok(delivered)), Evidence::Accepted);
    }

    #[test]
    fn documents_that_fail_hold_back_retries_and_no_document_that_never_failed() {
        let mut gate = gate();
        for _ in 0..100 {
            assert_eq!(enter(&mut gate, None, false, false, START), Pass::Now);
            learn(&mut gate, Evidence::Doubtful, false, START);
        }
        let until = START.plus(schedule::DOUBT);
        let down = Pass::Later(Later::Down(until));
        assert_eq!(enter(&mut gate, None, true, false, START), down);
        assert_eq!(enter(&mut gate, None, false, false, START), Pass::Now);
        // One retry at a time.
        assert_eq!(enter(&mut gate, None, true, false, until), Pass::Now);
        learn(&mut gate, Evidence::Doubtful, true, until);
        assert_ne!(enter(&mut gate, None, true, false, until), Pass::Now);
        // What passes ends the doubt for all.
        learn(&mut gate, Evidence::Accepted, false, until);
        assert_eq!(enter(&mut gate, None, true, false, until), Pass::Now);
        assert_eq!(gate.accepted_at, Some(until));
    }

    #[test]
    fn a_probe_that_a_bad_document_used_up_keeps_no_other_waiting() {
        let mut gate = gate();
        for _ in 0..5 {
            learn(&mut gate, DOWN, false, START);
        }
        let until = START.plus(schedule::PROBES[0]);
        assert_eq!(enter(&mut gate, None, true, false, until), Pass::Now);
        learn(&mut gate, Evidence::Doubtful, true, until);
        assert_eq!(enter(&mut gate, None, false, false, until), Pass::Now);
        // Down after all, it is left alone at once.
        learn(&mut gate, DOWN, false, until);
        assert_ne!(enter(&mut gate, None, false, false, until), Pass::Now);
    }

    #[test]
    fn one_document_that_fails_however_often_holds_nothing_back() {
        let mut gate = gate();
        learn(&mut gate, Evidence::Doubtful, false, START);
        for _ in 0..100 {
            assert_eq!(enter(&mut gate, None, true, false, START), Pass::Now);
            learn(&mut gate, Evidence::Doubtful, true, START);
        }
        assert_eq!(enter(&mut gate, None, false, false, START), Pass::Now);
    }

    #[test]
    fn what_an_attempt_says_of_its_own_delivery_changes_nothing() {
        let mut gate = gate();
        learn(&mut gate, Evidence::Doubtful, false, START);
        learn(&mut gate, DOWN, false, START);
        let before = gate.clone();
        assert!(!learn(
            &mut gate,
            Evidence::Nothing,
            false,
            START.plus(schedule::FAILING)
        ));
        assert_eq!(gate, before);
    }

    #[test]
    fn a_paced_destination_has_one_send_an_interval_however_many_come_at_once() {
        let mut gate = gate();
        let interval = Duration::from_secs(1);
        let mut sends = Vec::new();
        let mut waiting: Vec<(Timestamp, bool)> = vec![(START, false); 40];
        let mut looks = 0;
        while let Some(index) = (0..waiting.len()).min_by_key(|index| waiting[*index].0) {
            let (now, booked) = waiting.remove(index);
            looks += 1;
            match enter(&mut gate, Some(interval), false, booked, now) {
                Pass::Now => sends.push(now),
                Pass::Wait(wait) => sends.push(now.plus(wait)),
                Pass::Later(Later::Turn(at)) => waiting.push((at, true)),
                Pass::Later(_) => unreachable!("nothing failed"),
            }
        }
        sends.sort_unstable();
        assert_eq!(sends.len(), 40);
        for pair in sends.windows(2) {
            assert!(pair[1].since(pair[0]) >= interval, "{pair:?}");
        }
        let last = sends[39].since(START);
        assert!(
            last <= Duration::from_secs(45),
            "{last:?}: no turn is left unused for long"
        );
        assert!(looks <= 160, "{looks} looks for 40 deliveries");
    }
}
