//! Waits for a delivery to be final, and ends as it did.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use pipeline::api::deliveries::Delivery;
use pipeline::rows::State;

use super::{card, get};
use crate::arguments::Global;
use crate::client::Client;
use crate::{progress, time};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The delivery once it is final, is held, or the time is over.
pub(crate) fn until_final(
    global: &Global,
    client: &Client,
    id: &str,
    timeout: Duration,
) -> anyhow::Result<Delivery> {
    let until = Instant::now() + timeout;
    let mut pause = FIRST_PAUSE;
    let spinner = progress::line(global);
    loop {
        let delivery = get(client, id)?;
        let left = until.saturating_duration_since(Instant::now());
        // What is held waits for somebody, not for its time.
        if delivery.state.is_final() || delivery.held_at.is_some() || left.is_zero() {
            spinner.finish_and_clear();
            return Ok(delivery);
        }
        spinner.set_message(message(&delivery));
        sleep(pause.min(left));
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

fn message(delivery: &Delivery) -> String {
    let now = time::now();
    let due_at = delivery.due_at.filter(|due_at| *due_at > now);
    let due = due_at.map(|due_at| format!(" {}", time::relative(due_at, now)));
    let reason = delivery.reason.as_ref().map(|reason| format!(": {reason}"));
    format!(
        "{}, attempt {}{}{}",
        card::standing(delivery),
        delivery.attempt,
        due.unwrap_or_default(),
        reason.unwrap_or_default()
    )
}

/// 0 when all went well, 3 when one did not or in part alone, 4 when that is not known yet.
pub(crate) fn exit_code(global: &Global, deliveries: &[Delivery]) -> ExitCode {
    let count = |is: fn(&Delivery) -> bool| deliveries.iter().filter(|one| is(one)).count();
    let lost = count(|one| matches!(one.state, State::Failed | State::Cancelled));
    let partial = count(card::is_partial);
    let open = count(|one| !one.state.is_final());
    if lost > 0 {
        global.warn(&format!("{lost} of {} deliveries failed", deliveries.len()));
    }
    if partial > 0 {
        global.warn(&format!(
            "{partial} of {} deliveries arrived in part",
            deliveries.len()
        ));
    }
    if lost + partial > 0 {
        return ExitCode::from(3);
    }
    if open > 0 {
        global.warn(&format!(
            "{open} of {} deliveries are not final yet",
            deliveries.len()
        ));
        return ExitCode::from(4);
    }
    ExitCode::SUCCESS
}
