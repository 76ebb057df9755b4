//! What holds across all functions for a destination: that it is down, that it is paced, that it has failed
//! for a day. One row per registration, read with each attempt and written when something about it changes.
//!
//! Pure, as the ledger is. A lost race is no harm: whoever was first said the same.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::rows::Gate;
use crate::schedule;

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

/// Lets a delivery through, or says when. `booked` is whether it has a place in the queue already; `interval`
/// is the pace. The row has changed when `Gate` differs afterwards.
pub fn enter(gate: &mut Gate, interval: Option<Duration>, booked: bool, now: Timestamp) -> Pass {
    if let Some(until) = gate.closed_until {
        if until > now {
            return Pass::Later(Later::Down(until));
        }
        // This one tries; until it has an answer the others stay out.
        gate.closed_until = Some(now.plus(schedule::probe_after(gate.failures)));
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

/// An attempt was accepted: whatever was wrong is over.
pub fn succeeded(gate: &mut Gate) {
    gate.failures = 0;
    gate.closed_until = None;
    gate.failing_since = None;
}

/// An attempt failed. `down` is whether the destination could not take anything just now, and `after` how long
/// it asked to be left alone. Whether it has failed for so long that its registration is to be paused.
pub fn failed(gate: &mut Gate, down: bool, after: Option<Duration>, now: Timestamp) -> bool {
    let since = *gate.failing_since.get_or_insert(now);
    if down {
        gate.failures = gate.failures.saturating_add(1);
        let probe =
            (gate.failures >= schedule::DOWN_AFTER).then(|| schedule::probe_after(gate.failures));
        // Whoever was answered so waits as long as it was told; the others try within the hour.
        if let Some(closed) = probe.max(after.map(|after| after.min(LONGEST))) {
            gate.closed_until = gate.closed_until.max(Some(now.plus(closed)));
        }
    } else {
        // It answers, only not as we would like.
        gate.failures = 0;
        gate.closed_until = None;
    }
    now.since(since) >= schedule::FAILING
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_767_322_445_000);

    fn gate() -> Gate {
        Gate::new("acme", "registration-1")
    }

    #[test]
    fn a_destination_is_down_after_five_failures_in_a_row_and_one_delivery_tries_it_each_time() {
        let mut gate = gate();
        for _ in 0..4 {
            failed(&mut gate, true, None, START);
            assert_eq!(enter(&mut gate, None, false, START), Pass::Now);
        }
        failed(&mut gate, true, None, START);
        let until = START.plus(schedule::PROBES[0]);
        assert_eq!(
            enter(&mut gate, None, false, START),
            Pass::Later(Later::Down(until))
        );
        assert_eq!(enter(&mut gate, None, false, until), Pass::Now, "the probe");
        assert!(matches!(
            enter(&mut gate, None, false, until),
            Pass::Later(Later::Down(_))
        ));
        succeeded(&mut gate);
        assert_eq!(enter(&mut gate, None, false, until), Pass::Now);
    }

    #[test]
    fn a_third_partys_own_delay_closes_the_gate_at_once_and_never_opens_it_sooner() {
        let mut gate = gate();
        let (minute, second) = (Duration::from_mins(1), Duration::from_secs(1));
        failed(&mut gate, true, Some(minute), START);
        failed(&mut gate, true, Some(second), START);
        let until = START.plus(minute);
        assert_eq!(
            enter(&mut gate, None, false, START),
            Pass::Later(Later::Down(until))
        );
    }

    #[test]
    fn a_refusal_for_good_does_not_count_as_down_and_does_count_as_failing() {
        let mut gate = gate();
        for _ in 0..10 {
            assert!(!failed(&mut gate, false, None, START));
        }
        assert_eq!(enter(&mut gate, None, false, START), Pass::Now);
        assert!(failed(
            &mut gate,
            false,
            None,
            START.plus(schedule::FAILING)
        ));
        succeeded(&mut gate);
        assert!(!failed(
            &mut gate,
            false,
            None,
            START.plus(schedule::FAILING)
        ));
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
            match enter(&mut gate, Some(interval), booked, now) {
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
