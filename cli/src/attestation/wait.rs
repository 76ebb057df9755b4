//! Waits for the deliveries of an attestation.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pipeline::api::attestations::Accepted;
use pipeline::api::deliveries::Delivery;

use crate::arguments::Global;
use crate::client::Client;
use crate::progress;

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
    let spinner = progress::line(global);
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
