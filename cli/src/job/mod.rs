//! `chainloop job`: lists, shows and cancels background jobs.

mod follow;
mod run;

use anyhow::Context as _;
use api::jobs::{Job, JobKind, JobStatus};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};

pub(crate) use self::follow::follow;
pub(crate) use self::run::{Pace, Plan, leave, ordered, run, tell, verdict};
use crate::client::{Call, Client};
use crate::global::Global;
use crate::ids;
use crate::output::{self, Format};
use crate::table::{self, Cell, Color, Table, cell, paint, word};
use crate::time;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List jobs, newest first
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  chainloop job list --limit 10"
    )]
    List {
        /// Maximum number of results
        #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Show a job and its progress
    #[command(
        after_help = "Example:\n  chainloop job describe 0198c0de-0000-7000-8000-000000000001"
    )]
    Describe(Id),
    /// Cancel a job; completed work stays
    #[command(after_help = "Example:\n  chainloop job cancel 0198c0de-0000-7000-8000-000000000001")]
    Cancel(Id),
}

#[derive(Debug, Args)]
pub(crate) struct Id {
    /// ID of the job
    id: String,
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        match self {
            Self::List { limit } => list(global, &client, limit),
            Self::Describe(Id { id }) => {
                show(global, &get(&client, &ids::whole(&client, "jobs", &id)?)?)
            }
            Self::Cancel(Id { id }) => cancel(global, &client, &ids::whole(&client, "jobs", &id)?),
        }
    }
}

/// Fetches a job with its progress.
pub(crate) fn get(client: &Client, id: &str) -> anyhow::Result<Job> {
    client
        .call(&Call::get(&["jobs", id]))
        .with_context(|| format!("failed to show the job {id:?}"))
}

fn list(global: &Global, client: &Client, limit: u32) -> anyhow::Result<()> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (jobs, more): (Vec<Job>, _) = client
        .list(&["jobs"], &[], limit)
        .context("failed to list the jobs")?;
    match global.output {
        Format::Json => output::json(&jobs)?,
        Format::Table if jobs.is_empty() => output::line("there are no jobs")?,
        Format::Table => output::line(&rows(&jobs).to_string())?,
    }
    if more {
        global.info("more jobs exist: raise --limit");
    }
    Ok(())
}

fn show(global: &Global, job: &Job) -> anyhow::Result<()> {
    match global.output {
        Format::Json => output::json(job)?,
        Format::Table => output::line(&card(job).to_string())?,
    }
    Ok(())
}

fn cancel(global: &Global, client: &Client, id: &str) -> anyhow::Result<()> {
    let job: Job = client
        .call(&Call::post(&["jobs", id, "cancel"], Vec::new()))
        .with_context(|| format!("failed to cancel the job {id:?}"))?;
    match job.state {
        JobStatus::Cancelled => global.info(&format!("job {id} cancelled")),
        over => global.info(&format!("job {id} was already {}", word(&over))),
    }
    if global.output == Format::Json {
        output::json(&job)?;
    }
    Ok(())
}

fn rows(jobs: &[Job]) -> Table {
    let headers = [
        "ID",
        "KIND",
        "STATE",
        "TO",
        "DONE",
        "SKIPPED",
        "SEEN",
        "CREATED BY",
        "CREATED",
    ];
    let mut table = Table::new(&headers);
    let now = time::now();
    for job in jobs {
        table.row(vec![
            table::id(&job.id),
            cell(kind(job)),
            state(job),
            cell(job.registration_name.as_deref().unwrap_or_default()),
            cell(job.done.to_string()),
            cell(job.skipped.to_string()),
            cell(job.seen.to_string()),
            cell(&job.created_by),
            cell(time::relative(job.created_at, now)),
        ]);
    }
    table
}

fn kind(job: &Job) -> String {
    let kind = match job.work {
        JobKind::Redeliver { .. } => "redeliver",
        JobKind::Backfill { .. } => "backfill",
        JobKind::Drain { .. } => "drain",
        JobKind::Audit => "audit",
    };
    let dry_run = if job.dry_run { " (dry run)" } else { "" };
    format!("{kind}{dry_run}")
}

fn state(job: &Job) -> Cell {
    let colour = match job.state {
        JobStatus::Done => Color::Green,
        JobStatus::Failed => Color::Red,
        JobStatus::Running => Color::Yellow,
        JobStatus::Cancelled => Color::Grey,
    };
    paint(cell(word(&job.state)), colour)
}

fn card(job: &Job) -> Table {
    let now = time::now();
    let moment = |moment| format!("{} ({})", time::exact(moment), time::relative(moment, now));
    let mut table = Table::titled("Job", &[]);
    let mut row = |name: &str, content: Cell| table.row(vec![cell(name), content]);
    row("ID", cell(&job.id));
    row("KIND", cell(kind(job)));
    row("STATE", state(job));
    if let Some(reason) = &job.reason {
        row("REASON", cell(reason));
    }
    if let Some(name) = &job.registration_name {
        row("TO", cell(name));
    }
    let asked = asked(&job.work);
    if !asked.is_empty() {
        row("PARAMETERS", cell(table::tree(&asked)));
    }
    if !matches!(job.work, JobKind::Audit) {
        row("PER SECOND", cell(job.per_second.to_string()));
    }
    row("DONE", cell(job.done.to_string()));
    row("SKIPPED", cell(job.skipped.to_string()));
    row("SEEN", cell(job.seen.to_string()));
    if !job.violations.is_empty() {
        row("VIOLATIONS", cell(job.violations.join("\n")));
    }
    if !job.refused.is_empty() {
        row("REFUSED", cell(job.refused.join("\n")));
    }
    row("CREATED BY", cell(&job.created_by));
    row("CREATED AT", cell(moment(job.created_at)));
    row("UPDATED AT", cell(moment(job.updated_at)));
    table
}

/// Returns the parameters of a job, as the API shows them.
fn asked(work: &JobKind) -> Map<String, Value> {
    let Ok(Value::Object(mut asked)) = serde_json::to_value(work) else {
        return Map::new();
    };
    asked.remove("kind");
    match asked.remove("filter") {
        Some(Value::Object(filter)) => filter,
        _ => asked,
    }
}
