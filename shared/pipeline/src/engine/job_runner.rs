//! Works on jobs, page by page.

use std::time::Duration;

use api::jobs::{Filter, JobKind, JobStatus};
use api::workflows::{Match, Workflow};
use api::{AttachmentId, RegistrationId, Timestamp};
use attestation::Digest;
use tracing::{info, warn};

use crate::engine::deliveries::{self, Cursor};
use crate::engine::{audit, operations, pauses, plans};
use crate::ledger::schedule;
use crate::records::jobs::end;
use crate::records::workflows;
use crate::store::platform::{Index, Platform, Scope, Unreachable};
use crate::store::rows::{
    self, Attachment, Attestation, Delivery, Job, JobCursor, Plan, PlanReason, Planned, Stored,
};

/// Attestations or deliveries that one page looks at.
const PAGE: usize = 100;

/// Pages in one run of the reconciler.
const PAGES: usize = 20;

/// Maximum number of refusals that a job lists.
const REFUSED: usize = 20;

/// Maximum number of violations that an audit lists.
const VIOLATIONS: usize = 100;

/// Time for which a drain keeps looking for deliveries that a lagging index does not show yet.
const LAG: Duration = Duration::from_mins(3);

/// Works on a job until `until` or until its rate says that it is enough for now.
pub(crate) async fn work(
    platform: &impl Platform,
    mut stored: Stored<Job>,
    until: Timestamp,
) -> Result<(), Unreachable> {
    // Sending so many in a second, a run has done enough for the minute until the next one.
    let most = u64::from(stored.row.per_second) * 60;
    let mut sent = 0;
    for _ in 0..PAGES {
        if stored.row.stand != JobStatus::Running || platform.now() >= until {
            return Ok(());
        }
        let mut job = stored.row.clone();
        (job.reason, job.failures) = (None, 0);
        let before = job.done;
        let more = match page(platform, &mut job, most.saturating_sub(sent), until).await {
            Ok(more) => more,
            Err(unreachable) => {
                stored.row = put_off(&stored.row, job, &unreachable, platform.now());
                stored.save_if_unchanged(platform).await?;
                return Err(unreachable);
            }
        };
        let now = platform.now();
        sent += job.done - before;
        job.updated_at = now;
        let is_enough = !matches!(job.work, JobKind::Audit) && !job.dry_run && sent >= most;
        if job.stand == JobStatus::Running && !more {
            end(&mut job, JobStatus::Done, now);
            info!(job.id = %job.id, job.done, job.skipped, "A job is done");
        } else if let JobKind::Drain { .. } = job.work {
            job.wake_at = job.wake_at.map(|_| now.plus(Duration::from_mins(1)));
        } else {
            job.wake_at = job.wake_at.map(|_| now);
        }
        stored.row = job;
        // In a conflict somebody else works on it, or cancelled it.
        let is_ours = stored.save_if_unchanged(platform).await?;
        if !is_ours || is_enough || matches!(stored.row.work, JobKind::Drain { .. }) {
            return Ok(());
        }
    }
    Ok(())
}

/// Has a job go on later from where its page failed, and in the end no more. Whoever looks at the job sees why.
fn put_off(before: &Job, mut job: Job, why: &Unreachable, now: Timestamp) -> Job {
    // One that gets on has met something that passes.
    let gets_on = job.place != before.place || job.done != before.done;
    job.failures = if gets_on {
        1
    } else {
        before.failures.saturating_add(1)
    };
    job.reason = Some(format!("failed to {why}"));
    job.updated_at = now;
    // What a drain has not let go would be held for ever.
    let is_drain = matches!(job.work, JobKind::Drain { .. });
    if job.failures >= schedule::JOB_TRIES && !is_drain {
        warn!(job.id = %job.id, error = %why, "A job has failed");
        end(&mut job, JobStatus::Failed, now);
    } else {
        job.wake_at = Some(now.plus(schedule::job_after(job.failures)));
    }
    job
}

/// One page. Whether there is more to do.
async fn page(
    platform: &impl Platform,
    job: &mut Job,
    most: u64,
    until: Timestamp,
) -> Result<bool, Unreachable> {
    match job.work.clone() {
        JobKind::Redeliver { filter } => redeliver(platform, job, &filter, most, until).await,
        JobKind::Backfill {
            attachment,
            since,
            until: newest,
        } => {
            let range = (since, newest);
            backfill(platform, job, &attachment, range, most, until).await
        }
        JobKind::Drain { registration } => drain(platform, job, &registration, until).await,
        JobKind::Audit => law(platform, job, until).await,
    }
}

async fn redeliver(
    platform: &impl Platform,
    job: &mut Job,
    filter: &Filter,
    most: u64,
    until: Timestamp,
) -> Result<bool, Unreachable> {
    let of = match (&filter.registration, &filter.workflow) {
        (Some(id), _) => deliveries::Filter::Registration(id.clone()),
        (None, Some(workflow)) => deliveries::Filter::Workflow(workflow.clone()),
        (None, None) => deliveries::Filter::Organization,
    };
    let cursor = match &job.place {
        Some(place) => Cursor {
            created_at: place.created_at,
            id: place.id.as_str().into(),
        },
        // Behind everything of that moment.
        None => Cursor {
            created_at: filter.until.plus(Duration::from_millis(1)),
            id: "".into(),
        },
    };
    let organization = job.organization.clone();
    let wanted = deliveries::Wanted {
        state: Some(filter.state),
        ..deliveries::Wanted::default()
    };
    let (page, next) = deliveries::list(
        Scope::new(platform, &organization),
        of,
        &wanted,
        Some(&cursor),
        PAGE,
    )
    .await?;
    let mut left = if job.dry_run { u64::MAX } else { most };
    for delivery in page {
        if filter
            .since
            .is_some_and(|since| delivery.created_at < since)
        {
            return Ok(false);
        }
        let is_meant = filter.workflow.as_ref().is_none_or(|workflow| {
            workflow.project == delivery.workflow.project && workflow.name == delivery.workflow.name
        });
        let place = JobCursor {
            workflow: 0,
            created_at: delivery.created_at,
            id: delivery.id.to_string(),
        };
        if is_meant {
            if left == 0 || platform.now() >= until {
                return Ok(true);
            }
            let made = again(platform, job, &delivery).await?;
            if made {
                job.done += 1;
                left -= 1;
            } else {
                job.skipped += 1;
            }
        }
        job.seen += 1;
        job.place = Some(place);
    }
    if let Some(next) = &next {
        job.place = Some(JobCursor {
            workflow: 0,
            created_at: next.created_at,
            id: next.id.to_string(),
        });
    }
    Ok(next.is_some())
}

/// Delivers one again for a job, unless that job has done so, or says whether it would.
async fn again(
    platform: &impl Platform,
    job: &mut Job,
    delivery: &Delivery,
) -> Result<bool, Unreachable> {
    let made = match job.dry_run {
        true => operations::would_redeliver(platform, delivery).await,
        false => operations::redeliver(platform, delivery, &job.id)
            .await
            .map(|made| made.is_some()),
    };
    made.or_else(|error| refused(job, delivery.id.as_str(), error))
}

/// Keeps why a job skips something.
fn refused(job: &mut Job, what: &str, error: operations::Error) -> Result<bool, Unreachable> {
    match error {
        operations::Error::Unreachable(unreachable) => return Err(unreachable),
        operations::Error::Untrusted(..) if job.refused.len() < REFUSED => {
            job.refused.push(format!("{what}: {error}"));
        }
        _ => {}
    }
    warn!(what, %error, "Not delivered again");
    Ok(false)
}

/// A page of an organization's attestations, those of one workflow after those of another, newest first; none
/// when there are no more. And the job's place behind them.
async fn attestations(
    platform: &impl Platform,
    job: &Job,
    wanted: impl Fn(&Workflow) -> bool,
    until: Timestamp,
) -> Result<Option<(Vec<Stored<Attestation>>, JobCursor)>, Unreachable> {
    let names = workflows::names(Scope::new(platform, &job.organization), wanted).await?;
    let place = job.place.clone().unwrap_or(JobCursor {
        workflow: 0,
        created_at: until,
        id: String::new(),
    });
    let Some((project, name)) = names.into_iter().nth(place.workflow) else {
        return Ok(None);
    };
    let workflow = Workflow {
        id: String::new(),
        project,
        name,
    };
    let hash = Attestation::workflow_hash(&job.organization, &workflow);
    let of = (Index::ByWorkflow, hash.as_str());
    let created_at = |row: &Attestation| row.created_at;
    let newest = rows::newest(
        platform,
        of,
        Some(place.created_at),
        PAGE,
        created_at,
        |_| true,
    )
    .await?;
    let mut found = newest.rows;
    found.sort_by_key(|stored| std::cmp::Reverse(order(&stored.row)));
    let next = match newest.cut_at {
        Some(oldest) => JobCursor {
            workflow: place.workflow,
            created_at: oldest,
            id: String::new(),
        },
        None => JobCursor {
            workflow: place.workflow + 1,
            created_at: until,
            id: String::new(),
        },
    };
    if !place.id.is_empty() {
        // Of the moment that the page before was cut off in.
        found.retain(|stored| order(&stored.row) < (place.created_at, place.id.clone()));
    }
    Ok(Some((found, next)))
}

fn order(attestation: &Attestation) -> (Timestamp, String) {
    (attestation.created_at, attestation.hash.hex())
}

async fn backfill(
    platform: &impl Platform,
    job: &mut Job,
    attachment: &AttachmentId,
    (since, newest): (Option<Timestamp>, Timestamp),
    most: u64,
    until: Timestamp,
) -> Result<bool, Unreachable> {
    let organization = job.organization.clone();
    let key = Attachment::at(&organization, attachment);
    let stored = rows::load::<Attachment>(platform, &key).await?;
    let Some(attachment) = stored
        .map(|stored| stored.row)
        .filter(|attachment| attachment.deleted_at.is_none())
    else {
        job.reason = Some("its attachment was deleted".to_owned());
        end(job, JobStatus::Failed, platform.now());
        return Ok(false);
    };
    let workflow = job.place.as_ref().map_or(0, |place| place.workflow);
    let selector = attachment.workflow.clone();
    let wanted = |workflow: &Workflow| {
        selector.is_for(workflow) && workflow.project != operations::TEST_PROJECT
    };
    let Some((page, next)) = attestations(platform, job, wanted, newest).await? else {
        return Ok(false);
    };
    let planned = Planned {
        attachment: attachment.id.clone(),
        registration: attachment.registration.clone(),
        integration: attachment.integration.clone(),
        matched: None,
    };
    let mut left = if job.dry_run { u64::MAX } else { most };
    for mut stored in page {
        let row = &stored.row;
        if since.is_some_and(|since| row.created_at < since) {
            // Those that follow in this workflow are older still.
            job.place = Some(JobCursor {
                workflow: workflow + 1,
                created_at: newest,
                id: String::new(),
            });
            return Ok(true);
        }
        if left == 0 || platform.now() >= until {
            return Ok(true);
        }
        let place = JobCursor {
            workflow,
            created_at: row.created_at,
            id: row.hash.hex(),
        };
        let is_permitted = |matched: &Match| rows::permits(&row.permitted, *matched);
        let matched = selector.matched(&row.workflow).filter(is_permitted);
        if matched.is_none() {
            job.seen += 1;
            job.place = Some(place);
            continue;
        }
        let has = |plan: &Plan| {
            plan.planned
                .iter()
                .any(|one| one.attachment == planned.attachment)
        };
        let plans = plans::of(platform, row).await?;
        let is_planned = plans.iter().any(|plan| has(&plan.row));
        let made = !is_planned
            && match operations::check(platform, &mut stored, job.dry_run).await {
                Err(error) => refused(job, &stored.row.hash.to_string(), error)?,
                Ok(()) if job.dry_run => true,
                Ok(()) => {
                    operations::keep(platform, &stored.row).await?;
                    let planned = Planned {
                        matched,
                        ..planned.clone()
                    };
                    let added = plans::Added {
                        why: PlanReason::Backfilled,
                        job: Some(&job.id),
                        planned: vec![planned],
                        beside: Vec::new(),
                    };
                    plans::add(platform, stored, added, has).await?.is_some()
                }
            };
        if made {
            job.done += 1;
            left -= 1;
        } else {
            job.skipped += 1;
        }
        job.seen += 1;
        job.place = Some(place);
    }
    job.place = Some(next);
    Ok(true)
}

async fn drain(
    platform: &impl Platform,
    job: &mut Job,
    registration: &RegistrationId,
    until: Timestamp,
) -> Result<bool, Unreachable> {
    let key = rows::Registration::at(&job.organization, registration);
    let row = rows::load::<rows::Registration>(platform, &key).await?;
    if row.is_some_and(|stored| stored.row.paused.is_some()) {
        job.reason = Some("its registration was paused again".to_owned());
        end(job, JobStatus::Cancelled, platform.now());
        return Ok(false);
    }
    let count = pauses::drain(
        Scope::new(platform, &job.organization),
        registration,
        job.per_second,
        until,
    )
    .await?;
    let now = platform.now();
    let count = u64::try_from(count).unwrap_or_default();
    job.seen += count;
    job.done += count;
    if count > 0 {
        job.place = Some(JobCursor {
            workflow: 0,
            created_at: now,
            id: String::new(),
        });
    }
    // Nothing was there for a while: nothing will come any more.
    let last = job
        .place
        .as_ref()
        .map_or(job.created_at, |place| place.created_at);
    Ok(count > 0 || now.since(last) < LAG)
}

async fn law(
    platform: &impl Platform,
    job: &mut Job,
    until: Timestamp,
) -> Result<bool, Unreachable> {
    let newest = job.created_at;
    let workflow = job.place.as_ref().map_or(0, |place| place.workflow);
    let Some((page, next)) = attestations(platform, job, |_| true, newest).await? else {
        return Ok(false);
    };
    for Stored { row, .. } in page {
        if platform.now() >= until {
            return Ok(true);
        }
        let hash: &Digest = &row.hash;
        let found = audit::attestation(Scope::new(platform, &row.organization), hash).await?;
        job.place = Some(JobCursor {
            workflow,
            created_at: row.created_at,
            id: row.hash.hex(),
        });
        job.seen += 1;
        job.done += u64::from(found.is_empty());
        let room = VIOLATIONS.saturating_sub(job.violations.len());
        job.skipped += u64::from(!found.is_empty());
        job.violations.extend(found.into_iter().take(room));
    }
    job.place = Some(next);
    Ok(true)
}
