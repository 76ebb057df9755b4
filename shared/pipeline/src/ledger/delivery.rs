//! State transitions of a delivery: claimed, settled, given back, recovered.
//!
//! Pure: each function takes the current row and time, and changes the row. The caller writes the row on the condition
//! that no other writer changed it since.

use std::time::Duration;

use api::deliveries::{AttemptOutcome, State};
use api::{DeliveryId, Timestamp};
use integrations::http::Wire;
use integrations::{About, Error, Kind, Outcome};

use crate::ledger::bounds::{bounded, clipped};
use crate::ledger::breaker::Postponed;
use crate::ledger::schedule;
use crate::store::rows::{Attempt, Delivery, Lease, Plan, Planned, Report};

/// A delivery as it begins. Intake sends its message, and the first look at its plan once more if nobody has claimed it;
/// should that be lost too, `wake_at` finds it.
pub fn begin(plan: &Plan, planned: &Planned, id: DeliveryId, now: Timestamp) -> Delivery {
    Delivery {
        id,
        organization: plan.organization.clone(),
        attestation: plan.attestation,
        received: plan.received,
        size_bytes: plan.size_bytes,
        attachment: planned.attachment.clone(),
        registration: planned.registration.clone(),
        integration: planned.integration.clone(),
        selector: planned.matched.and_then(|by| by.selector(&plan.workflow)),
        workflow: plan.workflow.clone(),
        is_judged: plan.is_judged,
        trace: plan.trace,
        generation: plan.generation,
        state: State::Pending,
        attempt: 1,
        due_at: plan.created_at,
        give_up_at: plan.created_at.plus(schedule::GIVE_UP),
        held_at: None,
        has_reservation: false,
        put_off: 0,
        crashes: 0,
        refusals: 0,
        refused_at: None,
        wake_at: Some(now.plus(schedule::RESEND)),
        sends: 1,
        polls: 0,
        lease: None,
        progress: std::collections::BTreeMap::new(),
        has_steps: false,
        last_attempt: None,
        reason: None,
        receipt: None,
        created_at: plan.created_at,
        updated_at: now,
    }
}

/// Why a message does not lead to an attempt. All of these are acknowledged: the ledger owns what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotClaimed {
    /// It is final.
    Over,
    /// Somebody holds it.
    Held,
    /// The message is about another attempt than the next.
    Stale,
    /// Not yet due.
    Early,
}

/// Takes a delivery for one attempt.
pub fn claim(
    delivery: &mut Delivery,
    attempt: u32,
    owner: &str,
    now: Timestamp,
    lease: Duration,
) -> Result<(), NotClaimed> {
    match delivery.state {
        State::Pending if delivery.held_at.is_some() => return Err(NotClaimed::Early),
        State::Pending => {}
        State::Delivering => return Err(NotClaimed::Held),
        _ => return Err(NotClaimed::Over),
    }
    if delivery.attempt != attempt {
        return Err(NotClaimed::Stale);
    }
    // One that never waited is due at once, also to a clock that is behind the one that wrote it.
    if delivery.due_at > now && delivery.due_at > delivery.created_at {
        return Err(NotClaimed::Early);
    }
    let until = now.plus(lease);
    delivery.state = State::Delivering;
    delivery.lease = Some(Lease {
        owner: owner.to_owned(),
        started_at: now,
        until,
    });
    delivery.wake_at = Some(until.plus(schedule::LEASE_GRACE));
    delivery.updated_at = now;
    Ok(())
}

/// Result of settling a claim: an attempt, or a delivery that was put off at no cost.
#[derive(Debug, Clone)]
pub struct Settled {
    /// None when what happened costs no attempt.
    pub attempt: Option<Attempt>,
    /// Delay of the next message; none when no message is sent now.
    pub send_after: Option<Duration>,
}

/// Ends a claimed attempt by its result, and by what went over the wire meanwhile.
pub fn settle(
    delivery: &mut Delivery,
    result: Result<Outcome, Error>,
    wire: Wire,
    now: Timestamp,
    random: u64,
) -> Settled {
    delivery.crashes = 0;
    let status = result.is_ok().then_some(wire.status).flatten();
    let (ending, answer, detail, next) = match result {
        Ok(Outcome::ContinueAfter { delay, reason }) => {
            return Settled {
                attempt: None,
                send_after: put_off(delivery, delay, reason, now),
            };
        }
        Ok(Outcome::Delivered(receipt)) => {
            delivery.receipt = Some(bounded(receipt));
            (
                AttemptOutcome::Delivered,
                None,
                None,
                Next::Final(State::Delivered),
            )
        }
        Ok(Outcome::PartlyDelivered { receipt, note }) => {
            delivery.receipt = Some(bounded(receipt));
            let next = Next::Final(State::Delivered);
            (AttemptOutcome::Delivered, None, Some(note), next)
        }
        Ok(Outcome::Skipped(reason)) => (
            AttemptOutcome::Skipped,
            None,
            Some(reason),
            Next::Final(State::Skipped),
        ),
        Err(error) => {
            let (ending, next) = match error.kind {
                Kind::Retryable { after } => (AttemptOutcome::Retryable, Next::Retry(after)),
                Kind::Indeterminate => (AttemptOutcome::Unanswered, Next::Retry(None)),
                Kind::Unauthorized | Kind::Permanent | Kind::Gone => {
                    (AttemptOutcome::Permanent, Next::Final(State::Failed))
                }
            };
            (
                ending,
                error.answer,
                Some(format!("failed to {}", error.text)),
                next,
            )
        }
    };
    let mut attempt = attempt(delivery, ending, detail, now);
    attempt.report.status = status;
    attempt.report.sent_bytes = Some(wire.sent_bytes).filter(|sent| *sent > 0);
    if let Some(answer) = answer {
        attempt.report.status = Some(answer.status);
        attempt.report.answer = Some(answer.excerpt);
    }
    end(delivery, attempt, next, now, random)
}

/// Counts an answer that speaks of the destination or of the document. It is the document once there were
/// [`schedule::REFUSALS`], with others accepted between any two of them. `accepted_at` is when one last was.
pub fn doubt(
    delivery: &mut Delivery,
    error: &mut Error,
    accepted_at: Option<Timestamp>,
    now: Timestamp,
) {
    if error.about != About::Either || error.answer.is_none() {
        return;
    }
    if delivery
        .refused_at
        .is_some_and(|at| accepted_at <= Some(at))
    {
        return;
    }
    delivery.refusals += 1;
    delivery.refused_at = Some(now);
    if delivery.refusals >= schedule::REFUSALS {
        error.kind = Kind::Permanent;
        let times = delivery.refusals;
        error.text = format!("{}; {times} times, while others were accepted", error.text);
    }
}

/// Ends an attempt whose function ended in the midst of it, or whose message never led to a claim.
pub fn crash(delivery: &mut Delivery, now: Timestamp, random: u64) -> Settled {
    let detail = "the function ended before it could say how the attempt went".to_owned();
    let attempt = attempt(delivery, AttemptOutcome::Crashed, Some(detail), now);
    // A function that does not even start, or ends each time, must not use up in hours what is to last for a week.
    let next = match delivery.lease {
        Some(_) if delivery.crashes < schedule::CRASHES => Next::AtOnce,
        _ => Next::Retry(None),
    };
    delivery.crashes = delivery.crashes.saturating_add(1);
    end(delivery, attempt, next, now, random)
}

/// Ends a delivery without sending, because what it was for is gone.
pub fn cancel(delivery: &mut Delivery, reason: &str, now: Timestamp) -> Settled {
    let attempt = attempt(
        delivery,
        AttemptOutcome::Cancelled,
        Some(reason.to_owned()),
        now,
    );
    end(delivery, attempt, Next::Final(State::Cancelled), now, 0)
}

/// Gives a claimed delivery back until a material comes.
pub fn wait(delivery: &mut Delivery, reason: String, now: Timestamp) -> Settled {
    let delay = schedule::poll_after(delivery.polls);
    delivery.polls += 1;
    Settled {
        attempt: None,
        send_after: put_off(delivery, delay, reason, now),
    }
}

/// Gives a claimed delivery back because its destination is down or paced.
pub fn later(delivery: &mut Delivery, later: Postponed, now: Timestamp, random: u64) -> Settled {
    let (delay, reason) = match later {
        // All that wait for it must not come back in the same moment.
        Postponed::Open(until) => {
            let usual = schedule::put_off(delivery.put_off, random);
            let closed = until.since(now) + Duration::from_millis(random % 5_000);
            let delay = in_time(delivery, usual.max(closed), now);
            (delay, "its destination is down".to_owned())
        }
        Postponed::Reserved(turn) => {
            delivery.has_reservation = true;
            (turn.since(now), "waiting for its turn".to_owned())
        }
        Postponed::Until(at) => (at.since(now), "waiting for its turn".to_owned()),
    };
    delivery.put_off += 1;
    Settled {
        attempt: None,
        send_after: put_off(delivery, delay, reason, now),
    }
}

/// Holds a claimed delivery: its registration is paused, and its clock stands still.
pub fn hold(delivery: &mut Delivery, reason: String, now: Timestamp) -> Settled {
    delivery.lease = None;
    delivery.updated_at = now;
    delivery.reason = Some(reason);
    delivery.state = State::Pending;
    delivery.held_at = Some(now);
    delivery.has_reservation = false;
    delivery.wake_at = Some(held_until(delivery, now));
    delivery.sends = 0;
    Settled {
        attempt: None,
        send_after: None,
    }
}

/// Time until which a delivery is held that was held at `held_at`. All of its pauses count, so that it outlives neither its
/// attestation nor itself.
fn held_until(delivery: &Delivery, held_at: Timestamp) -> Timestamp {
    let before = delivery
        .give_up_at
        .since(delivery.created_at.plus(schedule::GIVE_UP));
    held_at.plus(schedule::PAUSE_LONGEST.saturating_sub(before))
}

/// Lets a held delivery go on where it stood, in `delay`. None when it is not held.
pub fn release(delivery: &mut Delivery, delay: Duration, now: Timestamp) -> Option<Settled> {
    if delivery.state != State::Pending {
        return None;
    }
    let held_at = delivery.held_at.take()?;
    delivery.give_up_at = delivery.give_up_at.plus(now.since(held_at));
    let delay = in_time(delivery, delay, now);
    Some(Settled {
        attempt: None,
        send_after: put_off(delivery, delay, "its registration was resumed".into(), now),
    })
}

/// Gives up on a delivery that was held for too long. None when it is not.
pub fn held_too_long(delivery: &mut Delivery, now: Timestamp) -> Option<Settled> {
    let held_at = delivery
        .held_at
        .filter(|_| delivery.state == State::Pending)?;
    if now < held_until(delivery, held_at) {
        return None;
    }
    delivery.held_at = None;
    delivery.updated_at = now;
    let days = schedule::PAUSE_LONGEST.as_secs() / 86_400;
    fail(
        delivery,
        format!("paused too long: its registration was paused for {days} days"),
    );
    Some(Settled {
        attempt: None,
        send_after: None,
    })
}

/// Makes a pending delivery due now. Whether it was pending.
pub fn expedite(delivery: &mut Delivery, now: Timestamp) -> Option<Settled> {
    if delivery.state != State::Pending || delivery.held_at.is_some() {
        return None;
    }
    let reason = delivery.reason.clone();
    delivery.has_reservation = false;
    Some(Settled {
        attempt: None,
        send_after: put_off(delivery, Duration::ZERO, reason.unwrap_or_default(), now),
    })
}

#[derive(Clone, Copy)]
enum Next {
    Final(State),
    Retry(Option<Duration>),
    AtOnce,
}

fn attempt(
    delivery: &Delivery,
    ending: AttemptOutcome,
    detail: Option<String>,
    now: Timestamp,
) -> Attempt {
    let (owner, started_at) = match &delivery.lease {
        Some(lease) => (lease.owner.clone(), lease.started_at),
        None => (String::new(), now),
    };
    let detail = detail.map(clipped);
    Attempt {
        organization: delivery.organization.clone(),
        delivery: delivery.id.clone(),
        number: delivery.attempt,
        report: Report {
            ending,
            started_at,
            duration_ms: u64::try_from(now.since(started_at).as_millis()).unwrap_or(u64::MAX),
            status: None,
            sent_bytes: None,
            detail,
            answer: None,
            owner,
        },
        created_at: delivery.created_at,
    }
}

/// Ends an attempt. The delivery's row keeps the last one itself: most have no other.
fn end(
    delivery: &mut Delivery,
    attempt: Attempt,
    next: Next,
    now: Timestamp,
    random: u64,
) -> Settled {
    let send_after = follow(delivery, next, attempt.report.detail.clone(), now, random);
    if delivery.state.is_final() {
        delivery.last_attempt = Some(attempt.report.clone());
    }
    if delivery.state == State::Delivered {
        // The receipt says it.
        delivery.progress.clear();
        delivery.has_steps = false;
    }
    Settled {
        attempt: Some(attempt),
        send_after,
    }
}

fn follow(
    delivery: &mut Delivery,
    next: Next,
    reason: Option<String>,
    now: Timestamp,
    random: u64,
) -> Option<Duration> {
    delivery.lease = None;
    delivery.held_at = None;
    delivery.updated_at = now;
    delivery.reason = reason.map(clipped);
    let retry = match next {
        Next::Final(state) => {
            delivery.state = state;
            delivery.wake_at = None;
            return None;
        }
        Next::Retry(floor) => {
            let number = delivery.attempt + 1;
            let usual = schedule::retry_after(number, None, random);
            let is_in_time = usual.is_some_and(|usual| now.plus(usual) <= delivery.give_up_at);
            let asked = schedule::retry_after(number, floor, random);
            // Whoever asks for more time than there is gets what there is.
            asked.map(|asked| {
                if is_in_time {
                    in_time(delivery, asked, now)
                } else {
                    asked
                }
            })
        }
        Next::AtOnce => (delivery.attempt < schedule::ATTEMPTS).then_some(Duration::ZERO),
    };
    delivery.put_off = 0;
    delivery.has_reservation = false;
    let Some(delay) = retry.filter(|delay| now.plus(*delay) <= delivery.give_up_at) else {
        let reason = delivery.reason.take().unwrap_or_default();
        let attempts = delivery.attempt;
        fail(
            delivery,
            format!("gave up after {attempts} attempts: {reason}"),
        );
        return None;
    };
    delivery.attempt += 1;
    pend(delivery, delay, now)
}

fn fail(delivery: &mut Delivery, reason: String) {
    delivery.reason = Some(reason);
    delivery.state = State::Failed;
    delivery.wake_at = None;
}

/// As much of a delay as there is time for, so that what is left is spent on one more try. A message may come a second or
/// two late. All of it where so little is left.
fn in_time(delivery: &Delivery, delay: Duration, now: Timestamp) -> Duration {
    const LATE: Duration = Duration::from_secs(10);
    match delivery.give_up_at.since(now).checked_sub(LATE) {
        Some(left) if !left.is_zero() => delay.min(left),
        _ => delay,
    }
}

/// Back to pending without costing an attempt, as long as there is time for one.
fn put_off(
    delivery: &mut Delivery,
    delay: Duration,
    reason: String,
    now: Timestamp,
) -> Option<Duration> {
    delivery.lease = None;
    delivery.updated_at = now;
    if now.plus(delay) > delivery.give_up_at {
        let days = schedule::GIVE_UP.as_secs() / 86_400;
        fail(delivery, format!("gave up after {days} days: {reason}"));
        return None;
    }
    delivery.reason = Some(clipped(reason)).filter(|reason| !reason.is_empty());
    pend(delivery, delay, now)
}

fn pend(delivery: &mut Delivery, delay: Duration, now: Timestamp) -> Option<Duration> {
    delivery.state = State::Pending;
    delivery.due_at = now.plus(delay);
    if delay > schedule::LONGEST_DELAY {
        // Sent by the reconciler shortly before it is due: nothing stays in flight for hours.
        delivery.wake_at = Some(now.plus(delay.saturating_sub(schedule::GRACE)));
        delivery.sends = 0;
        return None;
    }
    delivery.wake_at = Some(delivery.due_at.plus(schedule::GRACE));
    delivery.sends = 1;
    Some(message_delay(delay))
}

/// Queues count whole seconds, and clocks differ: a message that comes early would be in vain.
fn message_delay(delay: Duration) -> Duration {
    if delay.is_zero() {
        return Duration::ZERO;
    }
    Duration::from_secs(delay.as_secs() + u64::from(delay.subsec_nanos() > 0) + 1)
}

/// Action of the reconciler on a delivery that is due.
#[derive(Debug, Clone)]
pub enum Woken {
    /// Nothing: it is final, or its time has not come.
    Asleep,
    /// Its message is sent (again), with this delay.
    Send(Duration),
    /// Its time is over, and nobody ever came for it.
    Over,
    /// Its attempt crashed.
    Crashed(Box<Attempt>, Option<Duration>),
}

pub fn wake(delivery: &mut Delivery, now: Timestamp, random: u64) -> Woken {
    if delivery.held_at.is_some() {
        // Whatever was held belongs to its pause.
        return Woken::Asleep;
    }
    if delivery.wake_at.is_none_or(|wake_at| wake_at > now) {
        return Woken::Asleep;
    }
    if delivery.state == State::Delivering {
        let settled = crash(delivery, now, random);
        return match settled.attempt {
            Some(attempt) => Woken::Crashed(Box::new(attempt), settled.send_after),
            None => Woken::Asleep,
        };
    }
    if now > delivery.give_up_at {
        let reason = delivery
            .reason
            .take()
            .unwrap_or_else(|| "nobody came for it".into());
        put_off(delivery, Duration::ZERO, reason, now);
        return Woken::Over;
    }
    let delay = delivery.due_at.since(now);
    delivery.sends += 1;
    let again = schedule::resend_after(delivery.sends);
    // Its time must not pass unseen.
    let over = delivery.give_up_at.plus(schedule::GRACE);
    delivery.wake_at = Some(now.plus(delay + again).min(over));
    delivery.updated_at = now;
    Woken::Send(message_delay(delay))
}

#[cfg(test)]
mod tests {
    use integrations::Answer;

    use super::*;
    use crate::store::rows::PlanReason;

    fn delivery(now: Timestamp) -> Delivery {
        let digest = attestation::Digest::of(b"a");
        let plan = Plan {
            organization: "acme".into(),
            attestation: digest,
            generation: 0,
            why: PlanReason::Accepted,
            job: None,
            received: digest,
            workflow: api::workflows::Workflow::default(),
            is_judged: false,
            trace: None,
            stage: crate::store::rows::Stage::Sent,
            planned: Vec::new(),
            size_bytes: 0,
            polls: 0,
            created_at: now,
            wake_at: None,
            ids: std::cell::OnceCell::new(),
        };
        let planned = Planned {
            attachment: "attachment-1".into(),
            registration: "registration-1".into(),
            integration: "webhook".to_owned(),
            matched: None,
        };
        begin(&plan, &planned, "delivery-1".into(), now)
    }

    #[test]
    fn pauses_are_bounded_in_sum() {
        let start = Timestamp::from_millis(1_767_322_445_000);
        let day = |days: u64| start.plus(Duration::from_hours(24 * days));
        let mut delivery = delivery(start);
        hold(&mut delivery, String::new(), day(1));
        assert_eq!(delivery.wake_at, Some(day(31)));
        release(&mut delivery, Duration::ZERO, day(21)).unwrap();
        hold(&mut delivery, String::new(), day(22));
        assert_eq!(
            delivery.wake_at,
            Some(day(32)),
            "ten of thirty days are left"
        );
        assert!(held_too_long(&mut delivery.clone(), day(31)).is_none());
        held_too_long(&mut delivery, day(32)).unwrap();
        assert_eq!(delivery.state, State::Failed);
    }

    #[test]
    fn what_is_left_of_the_time_is_spent_on_one_more_try() {
        let start = Timestamp::from_millis(1_767_322_445_000);
        let end = delivery(start).give_up_at;
        let before = |secs: u64| Timestamp::from_millis(end.millis() - secs * 1_000);

        let mut asked_for_a_week = delivery(start);
        let week = Some(Duration::from_hours(7 * 24));
        follow(&mut asked_for_a_week, Next::Retry(week), None, start, 99);
        assert_eq!(asked_for_a_week.state, State::Pending);
        assert_eq!(asked_for_a_week.due_at, before(10));
        // Its own turn is not in time: there is none.
        follow(&mut asked_for_a_week, Next::Retry(None), None, before(5), 0);
        assert_eq!(asked_for_a_week.state, State::Failed);

        let mut down = delivery(start);
        let open = Postponed::Open(end.plus(schedule::UNSENT));
        later(&mut down, open, before(60), 0);
        assert_eq!((down.state, down.due_at), (State::Pending, before(10)));
        later(&mut down, open, before(8), 0);
        assert_eq!(down.state, State::Failed);
        assert!(down.reason.unwrap().ends_with("its destination is down"));

        let mut held = delivery(start);
        hold(&mut held, String::new(), before(30));
        release(&mut held, Duration::from_mins(1), before(30)).unwrap();
        assert_eq!((held.state, held.due_at), (State::Pending, before(10)));
    }

    /// The kinds of a 500 each minute, after attempts that others had accepted at these minutes.
    fn kinds(accepted: &[Option<u64>]) -> Vec<Kind> {
        let start = Timestamp::from_millis(1_767_322_445_000);
        let at = |secs| start.plus(Duration::from_secs(secs));
        let mut delivery = delivery(start);
        let mut kinds = Vec::new();
        for (minute, accepted) in (0..).zip(accepted) {
            let answer = Answer {
                status: 500,
                excerpt: String::new(),
            };
            let mut error = Error::retryable("post: answered 500")
                .about(About::Either)
                .answer(answer);
            doubt(&mut delivery, &mut error, accepted.map(at), at(60 * minute));
            kinds.push(error.kind);
        }
        kinds
    }

    #[test]
    fn a_document_that_gets_500_five_times_while_others_are_accepted_has_failed() {
        let again = Kind::Retryable { after: None };
        let others = [Some(0), Some(30), Some(90), Some(150), Some(210)];
        assert_eq!(
            kinds(&others),
            [again, again, again, again, Kind::Permanent]
        );
        assert_eq!(kinds(&[None; 15]), [again; 15], "nothing was accepted");
        let before = [Some(0); 15];
        assert_eq!(kinds(&before), [again; 15], "nothing since the first");
        let seldom = [Some(0), Some(0), Some(90), Some(90), Some(210), Some(270)];
        assert_eq!(kinds(&seldom), [again; 6], "four with one between");
    }

    #[test]
    fn what_speaks_of_the_destination_is_never_held_against_the_document() {
        let start = Timestamp::from_millis(1_767_322_445_000);
        let mut delivery = delivery(start);
        for minute in 0..15 {
            let now = start.plus(Duration::from_secs(60 * minute));
            let mut error = Error::retryable("post: answered 503");
            doubt(&mut delivery, &mut error, Some(now), now);
            assert_eq!(error.kind, Kind::Retryable { after: None });
        }
        assert_eq!(delivery.refusals, 0);
    }
}
