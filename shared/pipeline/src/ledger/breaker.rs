//! State of a destination, the same for all functions: a circuit breaker (open while it is down, half-open for one
//! delivery that tries it), a rate limiter with reservations, and since when it has failed. One row per registration,
//! read with each attempt and written when something about it changes.
//!
//! Pure, as the ledger is. A lost race is no harm: whoever was first said the same.

use std::time::Duration;

use api::Timestamp;
use integrations::{About, Error, Kind, Outcome};

use crate::ledger::schedule;
use crate::store::rows::Destination;

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
            About::Everyone => Self::DownForAll(after.unwrap_or(schedule::HALF_OPEN_AFTER[0])),
        }
    }
}

/// Decision on whether a delivery may proceed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Now,
    /// Its reservation is so soon that it waits for it.
    Wait(Duration),
    /// It goes back, which costs no attempt.
    Postponed(Postponed),
}

/// Reason for which a delivery goes back, and when it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Postponed {
    /// The breaker is open until then; another delivery tries the destination first.
    Open(Timestamp),
    /// It has a reservation.
    Reserved(Timestamp),
    /// It has none, and asks again then.
    Until(Timestamp),
}

/// Lets a delivery through, or says when. `is_retry` is whether it has been tried before, `has_reservation` whether it
/// has one already; `interval` is the pace. The row has changed when `Destination` differs afterwards.
pub fn admit(
    destination: &mut Destination,
    interval: Option<Duration>,
    is_retry: bool,
    has_reservation: bool,
    now: Timestamp,
) -> Admission {
    // In doubt, those alone stay out that were tried before: a document that never failed finds out what is wrong,
    // and is held back by no other's failure.
    let retries_until = destination.retries_until.filter(|_| is_retry);
    let until = destination.open_until.max(retries_until);
    if let Some(until) = until.filter(|until| *until > now) {
        return Admission::Postponed(Postponed::Open(until));
    }
    let admission = interval.map_or(Admission::Now, |interval| {
        paced(destination, interval, has_reservation, now)
    });
    if matches!(admission, Admission::Postponed(_)) {
        return admission;
    }
    // This one tries; until it has an answer the others stay out.
    if destination.open_until.is_some() {
        destination.open_until = Some(now.plus(schedule::half_open_after(destination.failures)));
    }
    if retries_until.is_some() {
        destination.retries_until = Some(now.plus(schedule::DOUBT));
    }
    admission
}

/// Lets a delivery through at the destination's pace, or says when.
fn paced(
    destination: &mut Destination,
    interval: Duration,
    has_reservation: bool,
    now: Timestamp,
) -> Admission {
    let next = destination.next_at.max(now);
    // A delivery without a reservation goes behind those that have one.
    let queued = !has_reservation && destination.reserved_until > now.plus(schedule::SHORT_WAIT);
    if !queued && next.since(now) <= schedule::SHORT_WAIT {
        destination.next_at = next.plus(interval);
        destination.reserved_until = destination.reserved_until.max(destination.next_at);
        let wait = next.since(now);
        return if wait.is_zero() {
            Admission::Now
        } else {
            Admission::Wait(wait)
        };
    }
    // Also for one that came late and met others: to the end of the queue, or all of those would meet again.
    destination.reserved_until = destination.reserved_until.max(next).plus(interval);
    Admission::Postponed(Postponed::Reserved(destination.reserved_until))
}

/// A destination is left alone no longer than this, whatever it asks for.
pub(crate) const LONGEST: Duration = Duration::from_hours(1);

/// Reports whether a destination counts as down.
pub fn is_down(destination: &Destination) -> bool {
    destination.failures >= schedule::DOWN_AFTER
}

/// Takes down what an attempt says of its destination. Whether it has failed for so long that its registration is to
/// be paused.
pub fn learn(
    destination: &mut Destination,
    evidence: Evidence,
    is_retry: bool,
    now: Timestamp,
) -> bool {
    match evidence {
        // What holds for everyone stands in another row.
        Evidence::Nothing | Evidence::DownForAll(_) => return false,
        Evidence::Gone => return true,
        Evidence::Accepted => {
            // Whatever was wrong is over. Written down only if something was.
            if destination.failing_since.is_some() {
                destination.accepted_at = Some(now);
            }
            forgive(destination);
            return false;
        }
        Evidence::Refused => {
            destination.failures = 0;
            destination.open_until = None;
        }
        Evidence::Doubtful => {
            // One that was down answers again, and nobody waits any longer for a probe that a bad document used up.
            if destination.failures >= schedule::DOWN_AFTER {
                destination.open_until = None;
            }
            destination.doubts = destination.doubts.saturating_add(u32::from(!is_retry));
            if destination.doubts >= schedule::DOUBTS && destination.retries_until.is_none() {
                destination.retries_until = Some(now.plus(schedule::DOUBT));
            }
        }
        Evidence::Down(after) => {
            destination.failures = destination.failures.saturating_add(1);
            let probe = (destination.failures >= schedule::DOWN_AFTER)
                .then(|| schedule::half_open_after(destination.failures));
            // Whoever was answered so waits as long as it was told; the others try within the hour.
            if let Some(open) = probe.max(after.map(|after| after.min(LONGEST))) {
                destination.open_until = destination.open_until.max(Some(now.plus(open)));
            }
        }
    }
    destination.failed_attempts = schedule::FAILING_ATTEMPTS.min(destination.failed_attempts + 1);
    let since = *destination.failing_since.get_or_insert(now);
    now.since(since) >= schedule::FAILING
        && destination.failed_attempts == schedule::FAILING_ATTEMPTS
}

/// Forgets what went wrong, and keeps the pace.
pub fn forgive(destination: &mut Destination) {
    destination.failures = 0;
    destination.open_until = None;
    destination.failing_since = None;
    destination.failed_attempts = 0;
    destination.doubts = 0;
    destination.retries_until = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_767_322_445_000);

    const DOWN: Evidence = Evidence::Down(None);

    fn destination() -> Destination {
        Destination::new("acme".into(), "registration-1".into())
    }

    #[test]
    fn a_destination_is_down_after_five_failures_in_a_row_and_one_delivery_tries_it_each_time() {
        let mut destination = destination();
        for _ in 0..4 {
            learn(&mut destination, DOWN, false, START);
            assert_eq!(
                admit(&mut destination, None, false, false, START),
                Admission::Now
            );
        }
        learn(&mut destination, DOWN, false, START);
        let until = START.plus(schedule::HALF_OPEN_AFTER[0]);
        assert_eq!(
            admit(&mut destination, None, false, false, START),
            Admission::Postponed(Postponed::Open(until))
        );
        assert_eq!(
            admit(&mut destination, None, false, false, until),
            Admission::Now,
            "the probe"
        );
        assert!(matches!(
            admit(&mut destination, None, false, false, until),
            Admission::Postponed(Postponed::Open(_))
        ));
        learn(&mut destination, Evidence::Accepted, false, START);
        assert_eq!(
            admit(&mut destination, None, false, false, until),
            Admission::Now
        );
    }

    #[test]
    fn a_third_partys_own_delay_closes_the_gate_at_once_and_never_opens_it_sooner() {
        let mut destination = destination();
        let (minute, second) = (Duration::from_mins(1), Duration::from_secs(1));
        learn(&mut destination, Evidence::Down(Some(minute)), false, START);
        learn(&mut destination, Evidence::Down(Some(second)), false, START);
        let until = START.plus(minute);
        assert_eq!(
            admit(&mut destination, None, false, false, START),
            Admission::Postponed(Postponed::Open(until))
        );
    }

    #[test]
    fn a_refusal_for_good_does_not_count_as_down_and_does_count_as_failing() {
        let mut destination = destination();
        for _ in 0..10 {
            assert!(!learn(&mut destination, Evidence::Refused, false, START));
        }
        assert_eq!(
            admit(&mut destination, None, false, false, START),
            Admission::Now
        );
        assert!(learn(
            &mut destination,
            Evidence::Refused,
            false,
            START.plus(schedule::FAILING)
        ));
        learn(&mut destination, Evidence::Accepted, false, START);
        assert!(!learn(
            &mut destination,
            Evidence::Refused,
            false,
            START.plus(schedule::FAILING)
        ));
    }

    #[test]
    fn two_failures_a_day_apart_are_no_day_of_failures() {
        let mut destination = destination();
        let tomorrow = START.plus(schedule::FAILING);
        assert!(!learn(&mut destination, Evidence::Refused, false, START));
        for attempt in 2..=schedule::FAILING_ATTEMPTS {
            let fails = learn(&mut destination, Evidence::Refused, false, tomorrow);
            assert_eq!(fails, attempt == schedule::FAILING_ATTEMPTS, "{attempt}");
        }
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
        let mut destination = destination();
        for _ in 0..100 {
            assert_eq!(
                admit(&mut destination, None, false, false, START),
                Admission::Now
            );
            learn(&mut destination, Evidence::Doubtful, false, START);
        }
        let until = START.plus(schedule::DOUBT);
        let down = Admission::Postponed(Postponed::Open(until));
        assert_eq!(admit(&mut destination, None, true, false, START), down);
        assert_eq!(
            admit(&mut destination, None, false, false, START),
            Admission::Now
        );
        // One retry at a time.
        assert_eq!(
            admit(&mut destination, None, true, false, until),
            Admission::Now
        );
        learn(&mut destination, Evidence::Doubtful, true, until);
        assert_ne!(
            admit(&mut destination, None, true, false, until),
            Admission::Now
        );
        // What passes ends the doubt for all.
        learn(&mut destination, Evidence::Accepted, false, until);
        assert_eq!(
            admit(&mut destination, None, true, false, until),
            Admission::Now
        );
        assert_eq!(destination.accepted_at, Some(until));
    }

    #[test]
    fn a_probe_that_a_bad_document_used_up_keeps_no_other_waiting() {
        let mut destination = destination();
        for _ in 0..5 {
            learn(&mut destination, DOWN, false, START);
        }
        let until = START.plus(schedule::HALF_OPEN_AFTER[0]);
        assert_eq!(
            admit(&mut destination, None, true, false, until),
            Admission::Now
        );
        learn(&mut destination, Evidence::Doubtful, true, until);
        assert_eq!(
            admit(&mut destination, None, false, false, until),
            Admission::Now
        );
        // Down after all, it is left alone at once.
        learn(&mut destination, DOWN, false, until);
        assert_ne!(
            admit(&mut destination, None, false, false, until),
            Admission::Now
        );
    }

    #[test]
    fn one_document_that_fails_however_often_holds_nothing_back() {
        let mut destination = destination();
        learn(&mut destination, Evidence::Doubtful, false, START);
        for _ in 0..100 {
            assert_eq!(
                admit(&mut destination, None, true, false, START),
                Admission::Now
            );
            learn(&mut destination, Evidence::Doubtful, true, START);
        }
        assert_eq!(
            admit(&mut destination, None, false, false, START),
            Admission::Now
        );
    }

    #[test]
    fn what_an_attempt_says_of_its_own_delivery_changes_nothing() {
        let mut destination = destination();
        learn(&mut destination, Evidence::Doubtful, false, START);
        learn(&mut destination, DOWN, false, START);
        let before = destination.clone();
        assert!(!learn(
            &mut destination,
            Evidence::Nothing,
            false,
            START.plus(schedule::FAILING)
        ));
        assert_eq!(destination, before);
    }

    /// It would keep the others out, and try nothing.
    #[test]
    fn a_delivery_that_is_only_queued_is_no_probe() {
        let mut destination = destination();
        for _ in 0..schedule::DOWN_AFTER {
            learn(&mut destination, DOWN, false, START);
        }
        let open = destination.open_until.unwrap();
        destination.reserved_until = open.plus(Duration::from_mins(5));
        let interval = Some(Duration::from_secs(1));
        let queued = admit(&mut destination, interval, false, false, open);
        assert!(matches!(
            queued,
            Admission::Postponed(Postponed::Reserved(_))
        ));
        assert_eq!(destination.open_until, Some(open));
        let probe = admit(&mut destination, interval, true, true, open);
        assert_eq!(probe, Admission::Now);
        assert!(destination.open_until > Some(open));
    }

    #[test]
    fn a_paced_destination_has_one_send_an_interval_however_many_come_at_once() {
        let mut destination = destination();
        let interval = Duration::from_secs(1);
        let mut sends = Vec::new();
        let mut waiting: Vec<(Timestamp, bool)> = vec![(START, false); 40];
        let mut polls = 0;
        while let Some(index) = (0..waiting.len()).min_by_key(|index| waiting[*index].0) {
            let (now, has_reservation) = waiting.remove(index);
            polls += 1;
            match admit(
                &mut destination,
                Some(interval),
                false,
                has_reservation,
                now,
            ) {
                Admission::Now => sends.push(now),
                Admission::Wait(wait) => sends.push(now.plus(wait)),
                Admission::Postponed(Postponed::Reserved(at)) => waiting.push((at, true)),
                Admission::Postponed(_) => unreachable!("nothing failed"),
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
        assert!(polls <= 160, "{polls} polls for 40 deliveries");
    }
}
