//! `delivery follow`: polls, and prints a line for each new or changed delivery.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use api::DeliveryId;
use api::deliveries::Delivery;
use clap::Args;

use super::list::{Asked, Which};
use super::{View, card, get, wait};
use crate::client::Client;
use crate::global::Global;
use crate::output::{self, Format};
use crate::table;
use crate::time;

pub(super) const HELP: &str = "\
Starts with the deliveries in progress, or with --attestation, with all of its deliveries. Ctrl-C ends it. With \
-o json, each line is a delivery. A producer's token needs --attestation.

Exit codes with --until-final: 0 all deliveries delivered or skipped · 3 a delivery failed, was cancelled or was \
partial

Examples:
  chainloop delivery follow --registration prod-images
  chainloop delivery follow --until-final \\
    --attestation \\
    sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0";

/// Newest deliveries fetched in each poll.
const NEWEST: usize = 100;
/// Deliveries fetched if more than that came since the last poll.
const BURST: usize = 1_000;
const SHORTEST: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Follow {
    #[command(flatten)]
    which: Which,
    /// Polling interval
    #[arg(long, default_value = "2s", value_parser = time::span)]
    interval: Duration,
    /// Exit once all shown deliveries are final
    #[arg(long)]
    until_final: bool,
}

/// Deliveries as they were seen last.
#[derive(Default)]
struct Seen {
    deliveries: BTreeMap<DeliveryId, Delivery>,
    /// Final before the command started; not printed.
    old: BTreeSet<DeliveryId>,
}

impl Seen {
    /// Records a delivery, and reports whether it is new or changed.
    fn is_news(&mut self, delivery: &Delivery) -> bool {
        let what = |delivery: &Delivery| (delivery.state, delivery.attempt, delivery.held_at);
        let before = self
            .deliveries
            .insert(delivery.id.clone(), delivery.clone());
        before.is_none_or(|before| what(&before) != what(delivery))
    }

    fn knows(&self, id: &DeliveryId) -> bool {
        self.old.contains(id) || self.deliveries.contains_key(id)
    }

    fn open(&self) -> impl Iterator<Item = &Delivery> {
        self.deliveries
            .values()
            .filter(|delivery| !delivery.state.is_final())
    }
}

impl Follow {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        let client = Client::new(global)?;
        let mut asked = self.which.asked(&client)?;
        let interval = self.interval.max(SHORTEST);
        let mut seen = Seen::default();
        let mut is_first = true;
        loop {
            for delivery in look(global, &client, &mut asked, &mut seen, is_first)? {
                if seen.is_news(&delivery) {
                    tell(global, &delivery)?;
                }
            }
            if self.until_final && seen.open().next().is_none() {
                if seen.deliveries.is_empty() {
                    global.info("no deliveries in progress");
                }
                let followed: Vec<Delivery> = seen.deliveries.into_values().collect();
                return Ok(wait::exit_code(global, &followed));
            }
            is_first = false;
            sleep(interval);
        }
    }
}

/// Fetches the newest deliveries and those still open, oldest first.
fn look(
    global: &Global,
    client: &Client,
    asked: &mut Asked,
    seen: &mut Seen,
    is_first: bool,
) -> anyhow::Result<Vec<Delivery>> {
    let (mut found, more) = asked.list(global, client, &[], NEWEST)?;
    if is_first && asked.attestation.is_none() {
        let (open, over): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|one| !one.state.is_final());
        seen.old.extend(over.into_iter().map(|one| one.id));
        found = open;
    } else if !is_first && more && !found.iter().any(|one| seen.knows(&one.id)) {
        found = asked.list(global, client, &[], BURST)?.0;
    }
    found.retain(|one| !seen.old.contains(&one.id));
    let listed: BTreeSet<&DeliveryId> = found.iter().map(|one| &one.id).collect();
    let hidden: Vec<DeliveryId> = seen
        .open()
        .filter(|open| !listed.contains(&open.id))
        .map(|open| open.id.clone())
        .collect();
    for id in hidden {
        found.push(get(client, &id)?);
    }
    found.sort_by_key(|one| one.created_at);
    Ok(found)
}

fn tell(global: &Global, delivery: &Delivery) -> anyhow::Result<()> {
    if global.output == Format::Json {
        return output::json_line(&View::from(delivery));
    }
    output::line(&output::plain(&line(delivery)))?;
    Ok(())
}

fn line(delivery: &Delivery) -> String {
    let (id, to) = (table::short(&delivery.id), card::to(delivery));
    let (at, state, workflow) = (
        time::exact(delivery.updated_at),
        card::standing(delivery),
        card::workflow(delivery),
    );
    let reason = delivery.reason.as_ref().map(|reason| format!(": {reason}"));
    let reason = reason.unwrap_or_default();
    let attempt = card::attempt(delivery);
    format!("{at}  {id}  {state:<10}  {to}  {workflow}  attempt {attempt}{reason}")
}
