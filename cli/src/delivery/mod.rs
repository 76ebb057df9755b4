//! `chainloop delivery`: inspects and controls deliveries.

mod audit;
mod card;
mod follow;
mod list;
mod receipt;
mod redeliver;
mod view;
pub(crate) mod wait;

use std::process::ExitCode;

use anyhow::Context as _;
use api::deliveries::Delivery;
use clap::{Args, Subcommand};

pub(crate) use self::card::{
    attempts, destination, is_partial, named as workflow, outcomes, painted, receipt, receipts,
    standing, to,
};
pub(crate) use self::view::View;
use crate::client::{Call, Client};
use crate::confirm::{self, Action};
use crate::global::Global;
use crate::ids;
use crate::output::{self, Format};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List deliveries, newest first
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  chainloop delivery list --integration prod-images --state failed"
    )]
    List(list::List),
    /// Show a delivery with its attempts and receipt
    #[command(after_help = "Example:\n  chainloop delivery describe \
                            6f0c1f0e-0000-8000-8000-000000000001")]
    Describe(Id),
    /// Print a line whenever a delivery changes
    #[command(after_help = follow::HELP)]
    Follow(follow::Follow),
    /// Redeliver one delivery, or all that match a filter
    #[command(after_help = redeliver::HELP)]
    Redeliver(redeliver::Redeliver),
    /// Cancel a pending delivery
    #[command(after_help = "Example:\n  chainloop delivery cancel \
                            6f0c1f0e-0000-8000-8000-000000000001")]
    Cancel(Id),
    /// Get a signed receipt of a delivery
    #[command(after_help = receipt::HELP)]
    Receipt(receipt::Receipt),
    /// Print the public key that receipts are verified with
    #[command(after_help = "Example:\n  chainloop delivery receipt-key receipt-key.pem")]
    ReceiptKey(receipt::Key),
    /// Check that every delivery of every attestation is accounted for
    #[command(after_help = "\
Exit codes: 0 all deliveries accounted for · 1 otherwise, with a line for each violation

Example:
  chainloop delivery audit")]
    Audit(audit::Audit),
}

#[derive(Debug, Args)]
pub(crate) struct Id {
    /// ID of the delivery
    #[arg(required_unless_present = "by_id", conflicts_with = "by_id")]
    id: Option<String>,
    /// ID of the delivery
    #[arg(long = "id", id = "by_id", value_name = "ID")]
    by_id: Option<String>,
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        let done = |()| ExitCode::SUCCESS;
        match self {
            Self::List(list) => list.run(global).map(done),
            Self::Describe(id) => describe(global, id).map(done),
            Self::Follow(follow) => follow.run(global),
            Self::Redeliver(redeliver) => redeliver.run(global),
            Self::Cancel(id) => cancel(global, id).map(done),
            Self::Receipt(receipt) => receipt.run(global).map(done),
            Self::ReceiptKey(key) => key.run(global).map(done),
            Self::Audit(audit) => audit.run(global).map(done),
        }
    }
}

impl Id {
    /// The whole ID.
    fn given(self, client: &Client) -> anyhow::Result<String> {
        let given = self.id.or(self.by_id).unwrap_or_default();
        ids::whole(client, "deliveries", &given)
    }
}

fn describe(global: &Global, id: Id) -> anyhow::Result<()> {
    let client = Client::new(global)?;
    let delivery = get(&client, &id.given(&client)?)?;
    show(global, &delivery)
}

/// Fetches a delivery with its attempts.
pub(crate) fn get(client: &Client, id: &str) -> anyhow::Result<Delivery> {
    client
        .call(&Call::get(&["deliveries", id]))
        .with_context(|| format!("failed to show the delivery {id:?}"))
}

fn show(global: &Global, delivery: &Delivery) -> anyhow::Result<()> {
    if global.output == Format::Json {
        output::json(&View::described(delivery))?;
        return Ok(());
    }
    output::line(&card::card(delivery).to_string())?;
    if !delivery.attempts.is_empty() {
        output::line(&attempts(&delivery.attempts).to_string())?;
    }
    Ok(())
}

const CANCEL: Action = Action {
    what: "cancel it",
    refused: "nothing was cancelled",
};

fn cancel(global: &Global, id: Id) -> anyhow::Result<()> {
    let client = Client::new(global)?;
    let id = &id.given(&client)?;
    confirm::action(global, &CANCEL, || {
        let found = get(&client, id)?;
        let (to, workflow) = (card::to(&found), card::workflow(&found));
        Ok(format!("Cancel the delivery {id} of {workflow} to {to}?"))
    })?;
    let cancelled: Delivery = client
        .call(&Call::post(&["deliveries", id, "cancel"], Vec::new()))
        .with_context(|| format!("failed to cancel the delivery {id:?}"))?;
    global.info(&format!("delivery {id} cancelled"));
    if global.output == Format::Json {
        output::json(&View::from(&cancelled))?;
    }
    Ok(())
}
