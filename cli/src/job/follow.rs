//! Follows a job to its end, by polling.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use api::jobs::{Job, JobKind, JobStatus};

use super::get;
use crate::client::Client;
use crate::failure::Failure;
use crate::global::Global;
use crate::interrupt::Listening;
use crate::progress;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// When the reconciler should have taken it up twice.
const LATE: Duration = Duration::from_secs(150);

/// Returns the job once it has ended. `of` is the amount of work, if known.
pub(crate) fn follow(
    global: &Global,
    client: &Client,
    mut job: Job,
    of: Option<u64>,
) -> anyhow::Result<Job> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    let listening = Listening::begin();
    let line = progress::line(global);
    if job.state == JobStatus::Running && line.is_hidden() {
        let id = &job.id;
        global.info(&format!(
            "job {id} started; the reconciler picks it up within a minute"
        ));
    }
    while job.state == JobStatus::Running {
        line.set_message(message(&job, of, started.elapsed()));
        if listening.sleep(pause) {
            line.finish_and_clear();
            let failure = Failure::interrupted(format!("interrupted; job {} continues", job.id));
            return Err(failure.advice(advice(&job)).into());
        }
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        job = get(client, &job.id)
            .with_context(|| format!("failed to follow job {}, which continues", job.id))?;
    }
    line.finish_and_clear();
    Ok(job)
}

/// Returns advice on a job that is still running.
pub(super) fn advice(job: &Job) -> String {
    let id = &job.id;
    format!(
        "`chainloop job describe {id}` shows its progress, `chainloop job cancel {id}` cancels it."
    )
}

fn message(job: &Job, of: Option<u64>, waited: Duration) -> String {
    let Job {
        done,
        skipped,
        seen,
        ..
    } = job;
    let is_new = *seen == 0 && job.updated_at == job.created_at;
    if is_new && waited > LATE {
        return "still waiting for the reconciler, which runs each minute: check that it does"
            .into();
    }
    if is_new {
        return "waiting for the reconciler, up to a minute".into();
    }
    if let Some(reason) = &job.reason {
        return format!("{reason}; retrying");
    }
    let of = of.map(|of| format!(" of {of}")).unwrap_or_default();
    match job.work {
        JobKind::Audit => format!("{seen} attestations checked"),
        JobKind::Redeliver { .. } if job.dry_run => {
            format!("{seen} deliveries checked, {done} match")
        }
        JobKind::Backfill { .. } if job.dry_run => {
            format!("{seen} attestations checked, {done} to deliver")
        }
        JobKind::Redeliver { .. } => format!("{done}{of} redelivered, {skipped} skipped"),
        JobKind::Backfill { .. } => format!("{done}{of} sent, {skipped} skipped"),
        JobKind::Drain { .. } => {
            format!("{done} sent; checking for late ones until three minutes after the last")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(job: serde_json::Value, of: Option<u64>, secs: u64) -> String {
        let mut whole = json!({
            "id": "j-1", "dry_run": false, "per_second": 10, "state": "running", "reason": null,
            "seen": 0, "done": 0, "skipped": 0, "created_by": "ci",
            "created_at": "2026-01-02T03:04:05.678Z", "updated_at": "2026-01-02T03:04:05.678Z",
        });
        let (all, more) = (whole.as_object_mut().unwrap(), job);
        all.extend(more.as_object().unwrap().clone());
        let job: Job = serde_json::from_value(whole).unwrap();
        message(&job, of, Duration::from_secs(secs))
    }

    #[test]
    fn until_the_reconciler_comes_that_is_what_is_waited_for() {
        let new = json!({ "kind": "audit" });
        assert_eq!(
            said(new.clone(), None, 59),
            "waiting for the reconciler, up to a minute"
        );
        assert!(said(new, None, 200).ends_with("check that it does"));
    }

    #[test]
    fn why_a_job_does_not_go_on_is_told() {
        let reason = "failed to reach the table: timed out";
        let job = json!({ "kind": "audit", "seen": 9, "reason": reason });
        assert_eq!(said(job, None, 70), format!("{reason}; retrying"));
    }

    #[test]
    fn what_is_done_is_told_of_what_there_is() {
        let filter = json!({ "state": "failed", "until": "2026-01-02T03:04:05.678Z" });
        let job =
            json!({ "kind": "redeliver", "filter": filter, "seen": 9, "done": 5, "skipped": 1 });
        assert_eq!(said(job, Some(12), 5), "5 of 12 redelivered, 1 skipped");
    }
}
