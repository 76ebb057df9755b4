//! `delivery list`: lists the newest deliveries, all or filtered.

use anyhow::Context as _;
use api::deliveries::Delivery;
use clap::Args;

use super::View;
use super::card::{attempt, state, workflow};
use crate::client::Client;
use crate::failure::Failure;
use crate::global::Global;
use crate::output::{self, Format};
use crate::table::{self, Table, cell};
use crate::time;

/// Filter by attestation, registration or workflow.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only deliveries of this attestation, by digest
    #[arg(long, value_name = "DIGEST")]
    pub attestation: Option<String>,
    /// Only deliveries through this registration, by name or ID
    #[arg(long, visible_alias = "registration", value_name = "NAME_OR_ID")]
    pub integration: Option<String>,
    /// Only deliveries of this workflow, as project/name
    #[arg(long)]
    pub workflow: Option<String>,
    /// Project of the workflow, if --workflow is only its name
    #[arg(long, requires = "workflow")]
    pub project: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    /// Only deliveries in this state
    #[arg(
        long,
        value_parser = ["pending", "delivering", "delivered", "skipped", "failed", "cancelled"]
    )]
    state: Option<String>,
    /// Maximum number of results
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Which {
    /// Returns the newest of them, and true if more exist.
    pub(super) fn list(
        &self,
        client: &Client,
        state: Option<&str>,
        limit: usize,
    ) -> anyhow::Result<(Vec<Delivery>, bool)> {
        let given = [&self.attestation, &self.integration, &self.workflow];
        if given.iter().filter(|one| one.is_some()).count() > 1 {
            let failure = Failure::usage("more than one filter given");
            let advice = "Pass one of --attestation, --integration and --workflow.";
            return Err(failure.advice(advice).into());
        }
        let query = [
            ("attestation", self.attestation.as_deref()),
            ("registration", self.integration.as_deref()),
            ("workflow", self.workflow.as_deref()),
            ("project", self.project.as_deref()),
            ("state", state),
        ];
        client
            .list(&["deliveries"], &query, limit)
            .context("failed to list the deliveries")
    }
}

impl List {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let client = Client::new(global)?;
        let (deliveries, more) = self.which.list(&client, self.state.as_deref(), limit)?;
        match global.output {
            Format::Json => {
                output::json(&deliveries.iter().map(View::from).collect::<Vec<_>>())?;
            }
            Format::Table if deliveries.is_empty() => output::line("there are no deliveries")?,
            Format::Table => output::line(&rows(&deliveries).to_string())?,
        }
        if more {
            global.info("more deliveries exist: raise --limit, or add a filter");
        }
        Ok(())
    }
}

/// Narrower than this, an id beside six other columns leaves none of them room.
const WIDE: u16 = 140;

fn rows(deliveries: &[Delivery]) -> Table {
    if table::terminal_width().is_some_and(|width| width < WIDE) {
        return narrow_rows(deliveries);
    }
    let headers = [
        "ID",
        "STATE",
        "INTEGRATION",
        "WORKFLOW",
        "ATTEMPT",
        "CREATED AT",
        "REASON",
    ];
    let mut table = Table::new(&headers).whole(0).whole(1);
    let now = time::now();
    for delivery in deliveries {
        table.row(vec![
            cell(&delivery.id),
            state(delivery),
            cell(&delivery.integration),
            cell(workflow(delivery)),
            cell(attempt(delivery)),
            cell(time::relative(delivery.created_at, now)),
            cell(delivery.reason.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

fn narrow_rows(deliveries: &[Delivery]) -> Table {
    let mut table = Table::new(&["ID", "STATE", "INTEGRATION, WORKFLOW, REASON"]);
    let now = time::now();
    for delivery in deliveries {
        let created = time::relative(delivery.created_at, now);
        let what = format!(
            "{} · {} · {created}{}",
            delivery.integration,
            workflow(delivery),
            if delivery.generation > 0 {
                " · redelivery"
            } else {
                ""
            }
        );
        let reason = delivery.reason.as_ref().map(|reason| format!("\n{reason}"));
        table.row(vec![
            cell(&delivery.id),
            state(delivery),
            cell(what + &reason.unwrap_or_default()),
        ]);
    }
    table.whole(0).whole(1)
}
