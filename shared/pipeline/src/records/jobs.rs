//! Work that takes longer than a request: redelivery of all that match, backfill, drains, the audit.
//!
//! A job is a row, worked off by the reconciler page by page. Whatever a page does can be done twice without harm,
//! so a page that was cut off is simply done again.

use api::jobs::{JobKind, JobStatus};
use api::{JobId, Timestamp};

use crate::records::audit_log::{Act, Subject};
use crate::store::ids;
use crate::store::platform::{Platform, Scope, Unreachable, Write, WriteError};
use crate::store::rows::{self, Job, Stored};

/// A job as it begins.
pub fn new(scope: Scope<'_, impl Platform>, work: JobKind, per_second: u32, by: &str) -> Job {
    let (platform, organization) = scope.parts();
    let now = platform.now();
    Job {
        organization: organization.to_owned(),
        id: ids::ordered(platform, now),
        work,
        dry_run: false,
        per_second: per_second.max(1),
        stand: JobStatus::Running,
        place: None,
        seen: 0,
        done: 0,
        skipped: 0,
        violations: Vec::new(),
        refused: Vec::new(),
        reason: None,
        failures: 0,
        created_by: by.to_owned(),
        created_at: now,
        updated_at: now,
        wake_at: Some(now),
    }
}

pub(crate) fn put(platform: &impl Platform, job: &Job) -> Write {
    rows::insert(platform, job).0
}

pub async fn find(
    scope: Scope<'_, impl Platform>,
    id: &JobId,
) -> Result<Option<Stored<Job>>, Unreachable> {
    let (platform, organization) = scope.parts();
    rows::load(platform, &Job::at(organization, id)).await
}

/// A page of the jobs that are remembered, newest first, and where the next one begins.
pub async fn list(
    scope: Scope<'_, impl Platform>,
    before: Option<&str>,
    limit: usize,
) -> Result<(Vec<Job>, Option<String>), Unreachable> {
    let (platform, organization) = scope.parts();
    let partition = Job::partition(organization);
    rows::last_page(platform, &partition, "job/", before, limit).await
}

/// Ends a job where it is; what it has done stays done. A drain goes on. None when there is no such job.
pub async fn cancel(
    scope: Scope<'_, impl Platform>,
    id: &JobId,
    act: Act<'_>,
) -> Result<Option<Job>, WriteError> {
    let platform = scope.platform;
    let Some(mut stored) = find(scope, id).await? else {
        return Ok(None);
    };
    // What a drain has not let go would be held for ever: whoever wants that pauses the registration.
    let is_drain = matches!(stored.row.work, JobKind::Drain { .. });
    if stored.row.stand == JobStatus::Running && !is_drain {
        end(&mut stored.row, JobStatus::Cancelled, platform.now());
        let Job {
            work,
            created_by,
            created_at,
            ..
        } = &stored.row;
        let subject = Subject::new(work.name(), id.as_str());
        let detail = format!("begun by {created_by} at {created_at}");
        let entry = act.entry(scope, subject, detail);
        let writes = vec![stored.update(platform).0, entry];
        platform.write(writes).await?;
    }
    Ok(Some(stored.row))
}

pub(crate) fn end(job: &mut Job, stand: JobStatus, now: Timestamp) {
    job.stand = stand;
    job.wake_at = None;
    job.updated_at = now;
}
