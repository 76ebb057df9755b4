//! Waits for deliveries to be final, and returns the exit code.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use api::Timestamp;
use api::deliveries::{Delivery, State};

use super::{card, get};
use crate::client::Client;
use crate::global::Global;
use crate::progress::Waiting;
use crate::{table, time};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Returns the delivery once it is final, held, or the timeout ends.
pub(crate) fn until_final(
    global: &Global,
    client: &Client,
    id: &str,
    timeout: Duration,
) -> anyhow::Result<Delivery> {
    let mut found = until_settled(global, 1, timeout, || Ok(vec![get(client, id)?]))?;
    Ok(found.remove(0))
}

/// Calls `look` until `count` deliveries are settled or the timeout ends, and returns its last result. Meanwhile,
/// shows the next expected step and the end of the wait.
pub(crate) fn until_settled(
    global: &Global,
    count: usize,
    timeout: Duration,
    mut look: impl FnMut() -> anyhow::Result<Vec<Delivery>>,
) -> anyhow::Result<Vec<Delivery>> {
    let until = Instant::now() + timeout;
    let ends_at = time::now().plus(timeout);
    let mut pause = FIRST_PAUSE;
    let mut waiting = Waiting::begin(global);
    loop {
        let found = look()?;
        let settled = found.iter().filter(|one| is_settled(one)).count();
        let left = until.saturating_duration_since(Instant::now());
        if settled >= count || left.is_zero() {
            return Ok(found);
        }
        waiting.tell(&message(&found, settled, count, ends_at));
        sleep(pause.min(left));
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// Reports whether waiting longer changes nothing: a held delivery waits for an operator, not for its due time.
pub(crate) fn is_settled(delivery: &Delivery) -> bool {
    delivery.state.is_final() || delivery.held_at.is_some()
}

/// Formats the end of the wait and the next expected step.
fn message(found: &[Delivery], settled: usize, count: usize, ends_at: Timestamp) -> String {
    let until = time::clock(ends_at);
    let mut text = match count {
        1 => format!("waiting until {until}"),
        _ => format!("waiting until {until}, {settled} of {count} final"),
    };
    let open = found.iter().filter(|one| !is_settled(one));
    if let Some(next) = open.min_by_key(|one| one.due_at) {
        text.push_str("; ");
        text.push_str(&expected(next, ends_at));
    }
    text
}

/// Tells the next step of a delivery, and why it has not been taken yet.
fn expected(delivery: &Delivery, ends_at: Timestamp) -> String {
    let (to, attempt) = (card::to(delivery), delivery.attempt);
    let mut text = match (delivery.state, delivery.due_at) {
        (State::Delivering, _) => format!("{to}: attempt {attempt} in progress"),
        (_, Some(due_at)) if due_at > ends_at => {
            let due = time::clock(due_at);
            format!("{to}: attempt {attempt} at {due}, after this command ends")
        }
        (_, Some(due_at)) if due_at > time::now() => {
            format!("{to}: attempt {attempt} at {}", time::clock(due_at))
        }
        _ => format!("{to}: attempt {attempt} due now"),
    };
    if let Some(reason) = &delivery.reason {
        text.push_str(", ");
        text.push_str(reason);
    }
    text
}

/// Returns 0 if all were delivered or skipped, 3 if one failed, was cancelled or was partial, 4 if one is not final; and
/// warns of them.
pub(crate) fn exit_code(global: &Global, deliveries: &[Delivery]) -> ExitCode {
    if let Some(shortfall) = shortfall(deliveries) {
        global.warn(&shortfall);
    }
    let is_lost = |one: &Delivery| matches!(one.state, State::Failed | State::Cancelled);
    if deliveries
        .iter()
        .any(|one| is_lost(one) || card::is_partial(one))
    {
        ExitCode::from(3)
    } else if deliveries.iter().any(|one| !one.state.is_final()) {
        ExitCode::from(4)
    } else {
        ExitCode::SUCCESS
    }
}

/// Counts the deliveries that did not arrive whole: `1 delivery failed, 2 pending`.
fn shortfall(deliveries: &[Delivery]) -> Option<String> {
    let words = [
        "failed",
        "cancelled",
        "partial",
        "held",
        "pending",
        "delivering",
    ];
    let is = |word: &str, one: &Delivery| match word {
        "partial" => card::is_partial(one),
        "held" => one.held_at.is_some(),
        word => one.held_at.is_none() && table::word(&one.state) == word,
    };
    let counts = words.map(|word| (deliveries.iter().filter(|one| is(word, one)).count(), word));
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let told = counts
        .enumerate()
        .map(|(index, (count, word))| match (index, count) {
            (0, 1) => format!("1 delivery {word}"),
            (0, _) => format!("{count} deliveries {word}"),
            _ => format!("{count} {word}"),
        });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| told.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn delivery(state: &str, more: &serde_json::Value) -> Delivery {
        let mut delivery = json!({
            "id": "d-1", "state": state, "attempt": 2, "reason": null, "integration": "webhook",
            "registration": "r-1", "registration_name": "hook", "attachment": "a-1",
            "attestation": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "workflow": { "project": "shop", "name": "nightly" }, "due_at": null, "receipt": null, "progress": {},
            "created_at": "2026-01-02T03:04:05.678Z", "updated_at": "2026-01-02T03:04:05.678Z",
        });
        let more = more.as_object().unwrap().clone();
        delivery.as_object_mut().unwrap().extend(more);
        serde_json::from_value(delivery).unwrap()
    }

    fn said(found: &[Delivery], timeout: Duration) -> String {
        let settled = found.iter().filter(|one| is_settled(one)).count();
        let ends_at = time::now().plus(timeout);
        let text = message(found, settled, found.len(), ends_at);
        text.replace(&time::clock(ends_at), "END")
    }

    #[test]
    fn a_wait_says_until_when_it_lasts_and_what_comes_next_and_why_it_has_not_come() {
        let soon = time::now().plus(Duration::from_secs(40));
        let later = time::now().plus(Duration::from_secs(80));
        let due = |at: Timestamp| json!({ "due_at": at, "reason": "it answered 503" });
        let open = [
            delivery("pending", &due(later)),
            delivery("delivered", &json!({})),
            delivery("pending", &due(soon)),
        ];
        let at = time::clock(soon);
        assert_eq!(
            said(&open, Duration::from_mins(15)),
            format!(
                "waiting until END, 1 of 3 final; hook (webhook): attempt 2 at {at}, it answered 503"
            )
        );
        assert_eq!(
            said(&open[2..], Duration::from_secs(30)),
            format!(
                "waiting until END; hook (webhook): attempt 2 at {at}, after this command ends, it answered 503"
            )
        );
    }

    #[test]
    fn an_attempt_that_is_due_or_under_way_is_said_to_be() {
        let due =
            json!({ "due_at": "2026-01-02T03:04:05.678Z", "reason": "waiting for sha256:00" });
        assert_eq!(
            said(&[delivery("pending", &due)], Duration::from_secs(9)),
            "waiting until END; hook (webhook): attempt 2 due now, waiting for sha256:00"
        );
        assert_eq!(
            said(
                &[delivery("delivering", &json!({}))],
                Duration::from_secs(9)
            ),
            "waiting until END; hook (webhook): attempt 2 in progress"
        );
    }

    #[test]
    fn what_is_held_is_not_waited_for() {
        let held = json!({ "held_at": "2026-01-02T03:04:05.678Z" });
        assert!(is_settled(&delivery("pending", &held)));
        assert!(is_settled(&delivery("failed", &json!({}))));
        assert!(!is_settled(&delivery("pending", &json!({}))));
    }

    #[test]
    fn what_did_not_arrive_is_counted_by_state() {
        let of = |states: &[&str]| {
            let found = states.iter().map(|state| delivery(state, &json!({})));
            shortfall(&found.collect::<Vec<_>>())
        };
        assert_eq!(of(&["delivered", "skipped"]), None);
        assert_eq!(
            of(&["pending", "failed", "delivered", "pending"]).unwrap(),
            "1 delivery failed, 2 pending"
        );
        assert_eq!(of(&["pending", "pending"]).unwrap(), "2 deliveries pending");
    }
}
