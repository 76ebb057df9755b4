//! Work that takes longer than a request, and the record of what operators did.

use std::time::Duration;

use integrations::Workflow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::warn;

use super::openapi::{Operation, operation};
use super::{Caller, Page, Problem, Request, Response};
use crate::audit_log::{self, Subject};
use crate::clock::Timestamp;
use crate::platform::{Platform, WriteError};
use crate::rows::{self, Client, Filter, JobKind, JobStatus, State};
use crate::{attach, configuration, job_runner, jobs, operations, schedule};

/// Deliveries a second of a job, at most.
pub const FASTEST: u32 = 50;

/// What `POST /v1/redeliveries` takes: which deliveries are delivered again.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redeliveries {
    /// A registration's name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,
    /// A name with `project`, or `project/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// A final state; `failed` when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Made at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Made at this time or earlier; now when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// 1 to 50; 10 when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = FASTEST))]
    pub per_second: Option<u32>,
    /// Only counts.
    #[serde(default)]
    pub dry_run: bool,
}

/// A job and how far it is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    pub id: String,
    #[serde(flatten)]
    pub work: JobKind,
    pub dry_run: bool,
    pub per_second: u32,
    pub state: JobStatus,
    /// How many were looked at.
    pub seen: u64,
    /// How many matched and were worked on; of an audit, how many attestations are as they should be.
    pub done: u64,
    /// How many matched and needed nothing; of an audit, how many attestations are not as they should be.
    pub skipped: u64,
    /// What an audit found, the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<String>,
    /// Why it is over, or, of one that runs, why its last page is tried again.
    pub reason: Option<String>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl From<rows::Job> for Job {
    fn from(row: rows::Job) -> Self {
        Self {
            id: row.id,
            work: row.work,
            dry_run: row.dry_run,
            per_second: row.per_second,
            state: row.stand,
            seen: row.seen,
            done: row.done,
            skipped: row.skipped,
            violations: row.violations,
            reason: row.reason,
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Something that an operator did.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AuditLogEntry")]
pub struct Entry {
    pub id: String,
    /// `registration.create` …
    pub action: String,
    /// The name of what it was done to.
    pub subject: String,
    /// Its id or digest; empty where the name is enough.
    #[serde(default)]
    pub subject_id: String,
    pub detail: String,
    /// The name of the token that did it.
    pub by: String,
    /// That token's id.
    #[serde(default)]
    pub token: String,
    #[serde(flatten)]
    pub client: Client,
    pub created_at: Timestamp,
}

impl From<rows::AuditEntry> for Entry {
    fn from(row: rows::AuditEntry) -> Self {
        Self {
            id: row.id,
            action: row.action,
            subject: row.subject,
            subject_id: row.subject_id,
            detail: row.detail,
            by: row.by,
            token: row.token,
            client: row.client,
            created_at: row.created_at,
        }
    }
}

/// A rate as it was asked for.
pub(super) fn per_second(asked: Option<u32>) -> u32 {
    asked.unwrap_or(schedule::DRAIN_PER_SECOND)
}

/// How long the request itself works on a new job: small ones are done with their first answer.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Keeps a new job, and what it is for in the audit log; what is not done at once the reconciler takes up within
/// a minute.
pub(super) async fn begin(
    platform: &impl Platform,
    caller: &Caller,
    job: rows::Job,
    (subject, detail): (Subject, String),
    at_once: Option<Duration>,
) -> Result<Response, Problem> {
    let organization = &caller.organization;
    let mut writes = vec![jobs::put(platform, &job)];
    if !job.dry_run {
        let act = caller.act();
        writes.push(act.entry(platform, organization, subject, detail));
    }
    match platform.write(writes).await {
        Ok(()) => {}
        // A request that was cut off after it had begun the job.
        Err(WriteError::Conflict)
            if jobs::find(platform, organization, &job.id).await?.is_some() => {}
        Err(error) => return Err(error.into()),
    }
    let mut job = job;
    if let (Some(most), Some(stored)) =
        (at_once, jobs::find(platform, organization, &job.id).await?)
    {
        let until = platform.now().plus(most);
        if let Err(unreachable) = Box::pin(job_runner::work(platform, stored, until)).await {
            warn!(job.id = job.id, error = %unreachable, "A job is left to the reconciler");
        }
        if let Some(stored) = jobs::find(platform, organization, &job.id).await? {
            job = stored.row;
        }
    }
    Ok(Response::json(202, &Job::from(job)))
}

/// What the routes take and answer, for the API's description.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        operation(
            "POST /v1/redeliveries",
            "redeliverAll",
            "Deliver all again that match",
        )
        .about("Small jobs are done with the answer; others are worked on from minute to minute.")
        .takes::<Redeliveries>()
        .answers::<Job>(202, "The job that does it")
        .refuses(&["conflict", "not-found"]),
        operation(
            "POST /v1/audits",
            "audit",
            "Look whether every delivery is accounted for",
        )
        .answers::<Job>(202, "The job that does it")
        .refuses(&["conflict"]),
        operation("GET /v1/jobs", "listJobs", "List jobs")
            .about("Newest first.")
            .pages::<Job>(),
        operation(
            "GET /v1/jobs/{job}",
            "getJob",
            "Get a job and how far it is",
        )
        .answers::<Job>(200, "The job"),
        operation(
            "POST /v1/jobs/{job}/cancel",
            "cancelJob",
            "End a job where it is",
        )
        .about("What it has done stays done. A job that has ended stays as it is.")
        .answers::<Job>(200, "The job")
        .refuses(&["conflict", "drain"]),
        operation(
            "GET /v1/audit-log",
            "listAuditLog",
            "List what was done on a day",
        )
        .about("Newest first.")
        .query(
            "day",
            "A day of UTC, as 2026-01-31; today unless given.",
            json!({ "type": "string", "format": "date" }),
        )
        .pages::<Entry>(),
    ]
}

pub async fn function<P: Platform>(
    platform: &P,
    caller: &Caller,
    request: &Request,
) -> Result<Response, Problem> {
    let organization = &caller.organization;
    let id = request.parameter("job");
    let missing = || Problem::not_found(format!("there is no job {id:?}"));
    match request.route.as_str() {
        "POST /v1/redeliveries" => redeliver(platform, caller, request).await,
        "POST /v1/audits" => {
            let by = &caller.actor.name;
            let mut job = jobs::new(platform, organization, JobKind::Audit, 1, by);
            job.id = request.made.job().unwrap_or(job.id);
            let subject = Subject::new("all deliveries", &job.id);
            let told = (subject, String::new());
            begin(platform, caller, job, told, Some(AT_ONCE)).await
        }
        "GET /v1/jobs" => {
            let limit = request.limit()?;
            let before = request.cursor(id_of_time)?;
            let (rows, next) = jobs::list(platform, organization, before, limit).await?;
            let items = rows.into_iter().map(Job::from).collect();
            Ok(Response::json(200, &Page::<Job> { items, next }))
        }
        "GET /v1/jobs/{job}" => {
            let stored = jobs::find(platform, organization, id).await?;
            let stored = stored.ok_or_else(missing)?;
            Ok(Response::json(200, &Job::from(stored.row)))
        }
        "POST /v1/jobs/{job}/cancel" => {
            let job = jobs::cancel(platform, organization, id, caller.act()).await?;
            let job = job.ok_or_else(missing)?;
            if job.stand == JobStatus::Running {
                let detail = "a drain cannot be cancelled: pause its registration instead";
                return Err(Problem::new(409, "drain", "It has to go on", detail));
            }
            Ok(Response::json(200, &Job::from(job)))
        }
        "GET /v1/audit-log" => {
            let day = match request.query("day") {
                None => platform.now(),
                Some(day) => format!("{day}T00:00:00Z")
                    .parse()
                    .map_err(|_| Problem::field("day", "must be a day of UTC, as 2026-01-31"))?,
            };
            let (limit, before) = (request.limit()?, request.cursor(id_of_time)?);
            let entries = audit_log::entries(platform, organization, day, before, limit);
            let (rows, next) = entries.await?;
            let items = rows.into_iter().map(Entry::from).collect();
            Ok(Response::json(200, &Page::<Entry> { items, next }))
        }
        other => Err(Problem::not_found(format!("no route {other}"))),
    }
}

/// The id of a job or of an entry, as a cursor.
fn id_of_time(cursor: &str) -> Option<&str> {
    uuid::Uuid::parse_str(cursor).is_ok().then_some(cursor)
}

async fn redeliver(
    platform: &impl Platform,
    caller: &Caller,
    request: &Request,
) -> Result<Response, Problem> {
    let organization = &caller.organization;
    let asked: Redeliveries = request.json()?;
    let state = asked.state.unwrap_or(State::Failed);
    if !state.is_final() {
        let detail = "must be failed, cancelled, skipped or delivered: others are under way";
        return Err(Problem::field("state", detail));
    }
    let registration = match &asked.registration {
        Some(named) => Some(
            configuration::find(platform, organization, named)
                .await?
                .row,
        ),
        None => None,
    };
    let workflow = match &asked.workflow {
        Some(workflow) => Some(named(workflow, asked.project.as_deref())?),
        None => None,
    };
    let until = asked.until.unwrap_or_else(|| platform.now());
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
    let mut job = jobs::new(platform, organization, work, rate, &caller.actor.name);
    job.dry_run = asked.dry_run;
    job.id = request.made.job().unwrap_or(job.id);
    let subject = Subject::new(
        format!("{} deliveries{of}", operations::name(state)),
        &job.id,
    );
    let told = (subject, period(asked.since, asked.until));
    begin(platform, caller, job, told, Some(AT_ONCE)).await
}

/// From when to when, as far as it was said.
pub(super) fn period(since: Option<Timestamp>, until: Option<Timestamp>) -> String {
    let since = since.map(|since| format!("since {since}"));
    let until = until.map(|until| format!("until {until}"));
    let both: Vec<String> = since.into_iter().chain(until).collect();
    both.join(", ")
}

/// One workflow by its name.
pub(super) fn named(workflow: &str, project: Option<&str>) -> Result<Workflow, Problem> {
    let selector =
        attach::selector(workflow, project).map_err(|fault| Problem::faults(vec![fault]))?;
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
