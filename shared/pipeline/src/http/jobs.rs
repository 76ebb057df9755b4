//! Jobs: work that takes longer than a request.

use std::time::Duration;

use api::deliveries::State;
use api::jobs::{Filter, Job, JobKind, JobStatus, Redeliveries};
use api::workflows::Workflow;
use api::{Action, Code, JobId, Page, Problem, Timestamp};
use tracing::warn;

use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler};
use crate::config::{self, pace};
use crate::engine::{job_runner, operations};
use crate::ledger::schedule;
use crate::records::audit_log::{self, Subject};
use crate::records::jobs;
use crate::store::platform::{Platform, Scope, WriteError};
use crate::store::rows;

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::post("/v1/redeliveries", Action::Operate, handler!(redeliver))
            .audited("delivery.redeliver-all")
            .keyed()
            .operation("redeliverAll", "Redeliver all matching deliveries")
            .about("Small jobs end with the response; others continue every minute.")
            .takes::<Redeliveries>()
            .answers::<Job>(202, "The job")
            .refuses(&[Code::Conflict, Code::NotFound, Code::TooManyChecks]),
        Route::post("/v1/audits", Action::Operate, handler!(audit))
            .audited("delivery.audit")
            .keyed()
            .operation("audit", "Check that every delivery is accounted for")
            .answers::<Job>(202, "The job")
            .refuses(&[Code::Conflict, Code::TooManyChecks]),
        Route::get("/v1/jobs", Action::Read, handler!(list))
            .operation("listJobs", "List jobs")
            .about("Newest first.")
            .pages::<Job>(),
        Route::get("/v1/jobs/{job}", Action::Read, handler!(get))
            .operation("getJob", "Get a job and its progress")
            .answers::<Job>(200, "The job"),
        Route::post("/v1/jobs/{job}/cancel", Action::Operate, handler!(cancel))
            .audited("job.cancel")
            .operation("cancelJob", "Cancel a job")
            .about("Undoes nothing. A job that has ended stays as it is.")
            .answers::<Job>(200, "The job")
            .refuses(&[Code::Conflict, Code::Drain]),
    ]
}

async fn audit<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let caller = call.caller;
    let by = &caller.actor.name;
    let mut job = jobs::new(scope, JobKind::Audit, 1, by);
    job.id = call.ids.job().unwrap_or(job.id);
    let subject = Subject::new("all deliveries", job.id.as_str());
    let told = (subject, String::new());
    begin(call, job, told, Some(AT_ONCE)).await
}

async fn list<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let limit = request.limit()?;
    let before = request.cursor(id_of_time)?;
    let (rows, next) = jobs::list(scope, before, limit).await?;
    let items = shown(scope, rows).await;
    Ok(Response::json(200, &Page::<Job> { items, next }))
}

async fn get<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let id = call.id("job");
    let stored = jobs::find(scope, &id).await?;
    let stored = stored.ok_or_else(|| missing(&id))?;
    Ok(Response::json(200, &one(scope, stored.row).await))
}

async fn cancel<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let id = call.id("job");
    let job = jobs::cancel(scope, &id, call.act()).await?;
    let job = job.ok_or_else(|| missing(&id))?;
    if job.stand == JobStatus::Running {
        let detail = "a drain cannot be cancelled: pause its registration instead";
        return Err(Problem::new(Code::Drain, detail));
    }
    Ok(Response::json(200, &one(scope, job).await))
}

/// Shows jobs with the names of the registrations that they are about.
async fn shown(scope: Scope<'_, impl Platform>, rows: Vec<rows::Job>) -> Vec<Job> {
    let attachments = rows.iter().filter_map(|row| match &row.work {
        JobKind::Backfill { attachment, .. } => Some(attachment),
        _ => None,
    });
    let keys = attachments.map(|id| rows::Attachment::at(scope.organization, id));
    let keys: Vec<_> = keys.collect();
    let attachments = rows::load_many::<rows::Attachment>(scope.platform, &keys).await;
    let attachments = attachments.unwrap_or_else(|unreachable| {
        warn!(error = %unreachable, "Names of registrations are not shown");
        Vec::new()
    });
    let about = |row: &rows::Job| match &row.work {
        JobKind::Redeliver { filter } => filter.registration.clone(),
        JobKind::Drain { registration } => Some(registration.clone()),
        JobKind::Backfill { attachment, .. } => {
            let mut found = attachments.iter().map(|stored| &stored.row);
            found
                .find(|row| row.id == *attachment)
                .map(|row| row.registration.clone())
        }
        JobKind::Audit => None,
    };
    let about: Vec<_> = rows.iter().map(about).collect();
    let names = config::names(scope, about.iter().flatten()).await;
    let shown = rows.into_iter().zip(about).map(|(row, about)| Job {
        registration_name: about.and_then(|id| names.get(&id).cloned()),
        ..Job::from(row)
    });
    shown.collect()
}

async fn one(scope: Scope<'_, impl Platform>, row: rows::Job) -> Job {
    shown(scope, vec![row]).await.remove(0)
}

impl From<rows::Job> for Job {
    fn from(row: rows::Job) -> Self {
        Self {
            id: row.id,
            work: row.work,
            registration_name: None,
            dry_run: row.dry_run,
            per_second: row.per_second,
            state: row.stand,
            seen: row.seen,
            done: row.done,
            skipped: row.skipped,
            violations: row.violations,
            refused: row.refused,
            reason: row.reason,
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A rate as it was asked for.
pub fn per_second(asked: Option<u32>) -> u32 {
    asked.unwrap_or(schedule::DRAIN_PER_SECOND)
}

/// Time for which the request itself works on a new job: small ones end with their first response.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Keeps a new job, and what it is for in the audit log, at the token's pace; what is not done at once the reconciler takes
/// up within a minute.
pub(super) async fn begin<P: Platform>(
    call: Call<'_, P>,
    job: rows::Job,
    (subject, detail): (Subject, String),
    at_once: Option<Duration>,
) -> Answer {
    let scope = call.scope();
    let platform = scope.platform;
    pace::take(scope, &call.caller.actor).await?;
    let mut writes = vec![jobs::put(platform, &job)];
    if !job.dry_run {
        writes.push(call.act().entry(scope, subject, detail));
    }
    match platform.write(writes).await {
        Ok(()) => {}
        // A request that was cut off after it had begun the job.
        Err(WriteError::Conflict) if jobs::find(scope, &job.id).await?.is_some() => {}
        Err(error) => return Err(error.into()),
    }
    let mut job = job;
    if let (Some(most), Some(stored)) = (at_once, jobs::find(scope, &job.id).await?) {
        let until = platform.now().plus(most);
        if let Err(unreachable) = Box::pin(job_runner::work(platform, stored, until)).await {
            warn!(job.id = %job.id, error = %unreachable, "A job is left to the reconciler");
        }
        if let Some(stored) = jobs::find(scope, &job.id).await? {
            job = stored.row;
        }
    }
    Ok(Response::json(202, &one(scope, job).await))
}

fn missing(id: &JobId) -> Problem {
    Problem::new(Code::NotFound, format!("there is no job {id:?}"))
}

/// The id of a job or of an entry, as a cursor.
pub(super) fn id_of_time(cursor: &str) -> Option<&str> {
    uuid::Uuid::parse_str(cursor).is_ok().then_some(cursor)
}

async fn redeliver<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let caller = call.caller;
    let asked: Redeliveries = request.json()?;
    let state = asked.state.unwrap_or(State::Failed);
    if !state.is_final() {
        let detail = "must be failed, cancelled, skipped or delivered: others are under way";
        return Err(Problem::field("state", detail));
    }
    let registration = match &asked.registration {
        Some(named) => Some(config::find(scope, named).await?.row),
        None => None,
    };
    let workflow = match &asked.workflow {
        Some(workflow) => Some(named(workflow, asked.project.as_deref())?),
        None => None,
    };
    let until = asked.until.unwrap_or_else(|| scope.platform.now());
    let of = [
        registration.as_ref().map(|row| format!(" of {}", row.name)),
        workflow
            .as_ref()
            .map(|of| format!(" from {}", audit_log::workflow(of))),
    ];
    let of: String = of.into_iter().flatten().collect();
    let filter = Filter {
        registration: registration.map(|row| row.id),
        workflow,
        state,
        since: asked.since,
        until,
    };
    let rate = per_second(asked.per_second);
    let work = JobKind::Redeliver { filter };
    let mut job = jobs::new(scope, work, rate, &caller.actor.name);
    job.dry_run = asked.dry_run;
    job.id = call.ids.job().unwrap_or(job.id);
    let subject = Subject::new(
        format!("{} deliveries{of}", operations::name(state)),
        job.id.as_str(),
    );
    let told = (subject, period(asked.since, asked.until));
    begin(call, job, told, Some(AT_ONCE)).await
}

/// From when to when, as far as it was said.
pub fn period(since: Option<Timestamp>, until: Option<Timestamp>) -> String {
    let since = since.map(|since| format!("since {since}"));
    let until = until.map(|until| format!("until {until}"));
    let both: Vec<String> = since.into_iter().chain(until).collect();
    both.join(", ")
}

/// One workflow by its name.
pub fn named(workflow: &str, project: Option<&str>) -> Result<Workflow, Problem> {
    let selector = api::workflows::selector(workflow, project)
        .map_err(|fault| Problem::faults(vec![fault]))?;
    let detail = "must be project/name here, or a name with `project`";
    let (project, name) = selector
        .0
        .split_once('/')
        .filter(|(_, name)| *name != "*")
        .ok_or_else(|| Problem::field("workflow", detail))?;
    Ok(Workflow {
        id: String::new(),
        project: project.to_owned(),
        name: name.to_owned(),
    })
}
