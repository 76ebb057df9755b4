//! Waits for the deliveries of an attestation.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget};
use pipeline::api::attestations::Accepted;
use pipeline::api::deliveries::Delivery;
use pipeline::rows::State;

use crate::arguments::Global;
use crate::client::Client;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// More than an attestation can have.
const MOST: usize = 10_000;

/// The deliveries that were planned, once they are final or the time is over.
pub(crate) fn until_final(
    global: &Global,
    client: &Client,
    accepted: &Accepted,
    timeout: Duration,
) -> anyhow::Result<Vec<Delivery>> {
    let planned: BTreeSet<&str> = accepted
        .deliveries
        .iter()
        .map(|planned| planned.id.as_str())
        .collect();
    if planned.is_empty() {
        return Ok(Vec::new());
    }
    let digest = accepted.attestation.to_string();
    let until = Instant::now() + timeout;
    let mut pause = FIRST_PAUSE;
    let spinner = if global.quiet {
        ProgressBar::hidden()
    } else {
        ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
    };
    spinner.enable_steady_tick(Duration::from_millis(100));
    loop {
        let query = [("attestation", Some(digest.as_str()))];
        let (mut deliveries, _): (Vec<Delivery>, _) = client
            .list(&["deliveries"], &query, MOST)
            .with_context(|| format!("failed to ask for the deliveries of {digest}"))?;
        deliveries.retain(|delivery| planned.contains(delivery.id.as_str()));
        let finished = deliveries
            .iter()
            .filter(|delivery| delivery.state.is_final())
            .count();
        spinner.set_message(format!(
            "{finished} of {} deliveries are final",
            planned.len()
        ));
        let left = until.saturating_duration_since(Instant::now());
        if finished == planned.len() || left.is_zero() {
            spinner.finish_and_clear();
            return Ok(deliveries);
        }
        sleep(pause.min(left));
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// 0 when all went well, 3 when one did not, 4 when that is not known yet.
pub(crate) fn exit_code(global: &Global, deliveries: &[Delivery]) -> ExitCode {
    let count = |is: fn(State) -> bool| {
        deliveries
            .iter()
            .filter(|delivery| is(delivery.state))
            .count()
    };
    let lost = count(|state| matches!(state, State::Failed | State::Cancelled));
    let open = count(|state| !state.is_final());
    if lost > 0 {
        global.warn(&format!("{lost} of {} deliveries failed", deliveries.len()));
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
