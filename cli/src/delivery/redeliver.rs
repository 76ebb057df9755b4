//! `delivery redeliver`: redelivers one delivery, or all that match a filter.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use api::Timestamp;
use api::deliveries::{Redelivered, State};
use api::jobs::{JobKind, Redeliveries};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::{View, receipts, wait};
use crate::client::{Call, Client, json};
use crate::confirm::Action;
use crate::failure::Failure;
use crate::global::Global;
use crate::ids;
use crate::job::{self, Pace, Plan};
use crate::output::{self, Format};
use crate::time;

pub(super) const HELP: &str = "\
Redelivering a final delivery creates a new one, and prints its ID. A pending delivery becomes due at once.
With --all, the command counts the deliveries first and asks for confirmation; -y skips both.

Exit codes with --wait: 0 delivered or skipped · 3 failed, cancelled or partial · 4 not final after --timeout

Examples:
  chainloop delivery redeliver 6f0c1f0e-0000-8000-8000-000000000001 --wait
  chainloop delivery redeliver --all --registration prod-images --since 2h";

#[derive(Debug, Args)]
pub(crate) struct Redeliver {
    /// ID of the delivery
    #[arg(
        required_unless_present_any = ["by_id", "all"],
        conflicts_with_all = ["by_id", "all", "Filter", "Pace"]
    )]
    id: Option<String>,
    /// ID of the delivery
    #[arg(
        long = "id",
        id = "by_id",
        value_name = "ID",
        conflicts_with_all = ["all", "Filter", "Pace"]
    )]
    by_id: Option<String>,
    /// Wait until the delivery is final, and show it
    #[arg(long, conflicts_with = "all")]
    wait: bool,
    /// Maximum wait, in seconds
    #[arg(long, value_name = "SECS", default_value = "900", requires = "wait")]
    timeout: u64,
    /// Redeliver all deliveries that match the filter
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    pace: Pace,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options with --all")]
struct Filter {
    /// Only deliveries through this registration, by name or ID
    #[arg(long, visible_alias = "integration", value_name = "NAME_OR_ID")]
    registration: Option<String>,
    /// Only deliveries of this workflow, as project/name
    #[arg(long)]
    workflow: Option<String>,
    /// Project of the workflow, if --workflow is only its name
    #[arg(long, requires = "workflow")]
    project: Option<String>,
    /// Only deliveries in this state
    #[arg(long, default_value = "failed", value_parser = state())]
    state: State,
    /// Only deliveries created since then: a time, or an age such as 30m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    since: Option<Timestamp>,
    /// Only deliveries created until then; now by default
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    until: Option<Timestamp>,
}

/// The final states, named so that a shell can complete them.
fn state() -> impl TypedValueParser<Value = State> {
    PossibleValuesParser::new(["failed", "cancelled", "skipped", "delivered"])
        .try_map(|state| serde_json::from_value::<State>(state.into()))
}

const PLAN: Plan = Plan {
    deed: Action {
        what: "redeliver them",
        refused: "nothing was redelivered",
    },
    question: "Redeliver them?",
};

impl Redeliver {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        match self.id.or(self.by_id) {
            Some(id) => {
                let timeout = self.wait.then(|| Duration::from_secs(self.timeout));
                one(global, &id, timeout)
            }
            None => all(global, &self.filter, &self.pace).map(|()| ExitCode::SUCCESS),
        }
    }
}

fn one(global: &Global, id: &str, timeout: Option<Duration>) -> anyhow::Result<ExitCode> {
    let client = Client::new(global)?;
    let id = &ids::whole(&client, "deliveries", id)?;
    let again: Redelivered = client
        .call(&Call::post_once(
            &["deliveries", id, "redeliver"],
            Vec::new(),
        )?)
        .with_context(|| format!("failed to redeliver {id:?}"))?;
    let Some(timeout) = timeout else {
        match global.output {
            Format::Json => output::json(&again)?,
            Format::Table => output::line(&again.id)?,
        }
        return Ok(ExitCode::SUCCESS);
    };
    global.info(&format!("waiting for delivery {}", again.id));
    let delivery = wait::until_final(global, &client, &again.id, timeout)?;
    let deliveries = std::slice::from_ref(&delivery);
    match global.output {
        Format::Json => output::json(&View::described(&delivery))?,
        Format::Table => output::line(&receipts(deliveries).to_string())?,
    }
    Ok(wait::exit_code(global, deliveries))
}

fn all(global: &Global, filter: &Filter, pace: &Pace) -> anyhow::Result<()> {
    job::ordered(filter.since, filter.until)?;
    if let (Some(workflow), None) = (&filter.workflow, &filter.project)
        && !workflow.contains('/')
    {
        let failure = Failure::usage(format!("the workflow {workflow:?} has no project"));
        return Err(failure
            .advice("Pass --workflow project/name, or --project.")
            .into());
    }
    let client = Client::new(global)?;
    let registration = filter.registration.as_ref();
    let registration = registration.map(|given| ids::whole(&client, "registrations", given));
    let registration = registration.transpose()?;
    job::run(global, &client, pace, &PLAN, |dry_run, counted| {
        // Those that were counted, and none that came during the confirmation.
        let until = match counted.map(|job| &job.work) {
            Some(JobKind::Redeliver { filter }) => Some(filter.until),
            _ => filter.until,
        };
        let asked = Redeliveries {
            registration: registration.clone(),
            workflow: filter.workflow.clone(),
            project: filter.project.clone(),
            state: Some(filter.state),
            since: filter.since,
            until,
            per_second: pace.rate,
            dry_run,
        };
        client
            .call(&Call::post_once(&["redeliveries"], json(&asked)?)?)
            .context("failed to start the redelivery")
    })
}
