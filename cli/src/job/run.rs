//! Starts a job: counts first, asks for confirmation, and follows it to its end.

use api::Timestamp;
use api::jobs::{Job, JobKind, JobStatus};
use clap::Args;

use super::follow::{advice, follow};
use crate::client::Client;
use crate::confirm::{self, Action};
use crate::failure::Failure;
use crate::global::Global;
use crate::output::{self, Format};

#[derive(Debug, Args)]
#[command(next_help_heading = "Job options")]
pub(crate) struct Pace {
    /// Maximum rate per second; 10 by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub rate: Option<u32>,
    /// Count the matches and exit
    #[arg(long)]
    pub dry_run: bool,
    /// Print the job's ID and exit
    #[arg(long)]
    pub no_wait: bool,
}

/// Confirmation required before a job begins.
pub(crate) struct Plan {
    pub deed: Action,
    pub question: &'static str,
}

/// Returns a usage error if `since` is later than `until`.
pub(crate) fn ordered(since: Option<Timestamp>, until: Option<Timestamp>) -> anyhow::Result<()> {
    match (since, until) {
        (Some(since), Some(until)) if since > until => {
            Err(Failure::usage("--since is later than --until").into())
        }
        _ => Ok(()),
    }
}

/// Runs a job. `begin` gets true for a dry run, and the count before it otherwise.
pub(crate) fn run(
    global: &Global,
    client: &Client,
    pace: &Pace,
    plan: &Plan,
    begin: impl Fn(bool, Option<&Job>) -> anyhow::Result<Job>,
) -> anyhow::Result<()> {
    if pace.dry_run || global.yes {
        let job = begin(pace.dry_run, None)?;
        return end(global, client, pace, job, None);
    }
    // Before it is counted for nothing.
    confirm::somebody(&plan.deed)?;
    let counted = follow(global, client, begin(true, None)?, None)?;
    if counted.state != JobStatus::Done || counted.done == 0 {
        return tell(global, &counted);
    }
    confirm::action(global, &plan.deed, || {
        Ok(format!("{}. {}", outcome(&counted), plan.question))
    })?;
    let job = begin(false, Some(&counted))?;
    end(global, client, pace, job, Some(counted.done))
}

fn end(
    global: &Global,
    client: &Client,
    pace: &Pace,
    job: Job,
    of: Option<u64>,
) -> anyhow::Result<()> {
    match pace.no_wait {
        true => leave(global, &job),
        false => tell(global, &follow(global, client, job, of)?),
    }
}

/// Prints a job's ID, and how to follow it.
pub(crate) fn leave(global: &Global, job: &Job) -> anyhow::Result<()> {
    match global.output {
        Format::Json => output::json(job)?,
        Format::Table => output::line(&job.id)?,
    }
    global.info(&advice(job));
    Ok(())
}

/// Prints a job's outcome.
pub(crate) fn tell(global: &Global, job: &Job) -> anyhow::Result<()> {
    if global.output == Format::Json {
        output::json(job)?;
    } else {
        for line in job.violations.iter().chain(&job.refused) {
            output::line(&output::plain(line))?;
        }
        if job.state == JobStatus::Done && job.violations.is_empty() {
            output::line(&outcome(job))?;
        }
    }
    verdict(job)
}

/// Returns an error if a job failed, was cancelled, or is an audit that found deliveries not accounted for.
pub(crate) fn verdict(job: &Job) -> anyhow::Result<()> {
    let reason = job.reason.as_deref().map(|reason| format!(": {reason}"));
    let reason = reason.unwrap_or_default();
    let (id, so_far) = (&job.id, outcome(job));
    match job.state {
        JobStatus::Failed => {
            let failure = Failure::new(format!("job {id} failed{reason}"));
            Err(failure.advice(format!("Progress: {so_far}.")).into())
        }
        JobStatus::Cancelled => {
            let failure = Failure::new(format!("job {id} was cancelled{reason}"));
            Err(failure.advice(format!("Progress: {so_far}.")).into())
        }
        JobStatus::Running | JobStatus::Done
            if matches!(job.work, JobKind::Audit) && job.skipped > 0 =>
        {
            let Job { skipped, seen, .. } = job;
            let failure = Failure::new(format!(
                "{skipped} of {seen} attestations have deliveries that are not accounted for"
            ));
            let advice = match job.violations.len() {
                shown @ 100.. => format!("Only the first {shown} findings are listed."),
                _ => "`chainloop delivery describe ID` shows a delivery.".into(),
            };
            Err(failure.advice(advice).into())
        }
        JobStatus::Running | JobStatus::Done => Ok(()),
    }
}

/// Describes the work that a job did, or would do.
fn outcome(job: &Job) -> String {
    let Job { done, skipped, .. } = job;
    let counted = |count: u64, noun: &str| match (count, noun) {
        (1, noun) => format!("1 {noun}"),
        (_, "delivery") => format!("{count} deliveries"),
        (_, "held delivery") => format!("{count} held deliveries"),
        _ => format!("{count} {noun}s"),
    };
    let needed = match (*skipped, job.dry_run) {
        (0, _) => String::new(),
        (skipped, true) => format!(", {skipped} would be skipped"),
        (skipped, false) => format!(", {skipped} skipped"),
    };
    match (&job.work, job.dry_run) {
        (JobKind::Redeliver { .. }, true) => {
            format!(
                "{} would be redelivered{needed}",
                counted(*done, "delivery")
            )
        }
        (JobKind::Redeliver { .. }, false) => {
            format!("{} redelivered{needed}", counted(*done, "delivery"))
        }
        (JobKind::Backfill { .. }, true) => {
            format!(
                "{} would be delivered{needed}",
                counted(*done, "attestation")
            )
        }
        (JobKind::Backfill { .. }, false) => {
            format!("{} queued{needed}", counted(*done, "attestation"))
        }
        (JobKind::Drain { .. }, _) => {
            format!("{} queued", counted(*done, "held delivery"))
        }
        (JobKind::Audit, _) => {
            let attestations = counted(job.seen, "attestation");
            format!("{attestations}, all deliveries accounted for")
        }
    }
}
