//! `delivery redeliver`: one delivery again, or all that match.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use pipeline::Timestamp;
use pipeline::api::deliveries::Redelivered;
use pipeline::api::jobs::Redeliveries;
use pipeline::rows::{JobKind, State};

use super::{View, receipts, wait};
use crate::arguments::Global;
use crate::client::{Call, Client, json};
use crate::confirm::Deed;
use crate::failure::Failure;
use crate::job::{self, Pace, Plan};
use crate::output::{self, Format};
use crate::time;

pub(super) const HELP: &str = "\
One that is final gets a delivery of its own, whose id is printed. One that waits is due at once.
With --all, they are counted first, and you are asked; -y does it at once.

With --wait, exit codes are: 0 it is delivered, or rightly skipped · 3 it failed, was cancelled, or \
arrived in part · 4 after --timeout it is not final.

Examples:
  chainloop delivery redeliver 6f0c1f0e-0000-8000-8000-000000000001 --wait
  chainloop delivery redeliver --all --registration prod-images --since 2h";

#[derive(Debug, Args)]
pub(crate) struct Redeliver {
    /// The delivery's id
    #[arg(
        required_unless_present_any = ["by_id", "all"],
        conflicts_with_all = ["by_id", "all", "Filter", "Pace"]
    )]
    id: Option<String>,
    /// The delivery's id
    #[arg(
        long = "id",
        id = "by_id",
        value_name = "ID",
        conflicts_with_all = ["all", "Filter", "Pace"]
    )]
    by_id: Option<String>,
    /// Wait until the delivery is final, and show what became of it
    #[arg(long, conflicts_with = "all")]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "SECS", default_value = "900", requires = "wait")]
    timeout: u64,
    /// All deliveries that match
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    pace: Pace,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "With --all")]
struct Filter {
    /// Only those through a registration, by its name or id
    #[arg(long, visible_alias = "integration", value_name = "NAME_OR_ID")]
    registration: Option<String>,
    /// Only those of a workflow, as project/name
    #[arg(long)]
    workflow: Option<String>,
    /// The workflow's project, where the workflow is given by its name
    #[arg(long, requires = "workflow")]
    project: Option<String>,
    /// Only those in this state
    #[arg(long, default_value = "failed", value_parser = state())]
    state: State,
    /// Only those made since: a time, or how long ago, as 30m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    since: Option<Timestamp>,
    /// Only those made until then; now unless said
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    until: Option<Timestamp>,
}

/// The final states, named so that a shell can complete them.
fn state() -> impl TypedValueParser<Value = State> {
    PossibleValuesParser::new(["failed", "cancelled", "skipped", "delivered"])
        .try_map(|state| serde_json::from_value::<State>(state.into()))
}

const PLAN: Plan = Plan {
    deed: Deed {
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
    global.info(&format!("{} is under way", again.id));
    let delivery = wait::until_final(global, &client, &again.id, timeout)?;
    let deliveries = std::slice::from_ref(&delivery);
    match global.output {
        Format::Json => output::json(&View::from(&delivery))?,
        Format::Table => output::line(&receipts(deliveries).to_string())?,
    }
    Ok(wait::exit_code(global, deliveries))
}

fn all(global: &Global, filter: &Filter, pace: &Pace) -> anyhow::Result<()> {
    job::ordered(filter.since, filter.until)?;
    if let (Some(workflow), None) = (&filter.workflow, &filter.project)
        && !workflow.contains('/')
    {
        let failure = Failure::usage(format!("which project is the workflow {workflow:?} of?"));
        return Err(failure.advice("Give project/name, or --project.").into());
    }
    let client = Client::new(global)?;
    job::run(global, &client, pace, &PLAN, |dry_run, counted| {
        // Those that were counted, and none that came while somebody thought about it.
        let until = match counted.map(|job| &job.work) {
            Some(JobKind::Redeliver { filter }) => Some(filter.until),
            _ => filter.until,
        };
        let asked = Redeliveries {
            registration: filter.registration.clone(),
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
            .context("failed to begin the redelivery")
    })
}
