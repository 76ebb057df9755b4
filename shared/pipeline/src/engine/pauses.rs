//! Pauses a registration and resumes it: nothing is sent through it meanwhile, nothing is lost, and the clock
//! of what it holds stands still.

use std::collections::BTreeMap;
use std::time::Duration;

use api::jobs::{JobKind, JobStatus};
use api::registrations::Pause;
use api::{JobId, RegistrationId};
use futures_util::stream::{self, StreamExt};
use tracing::{error, info};

use crate::config::{self, Error};
use crate::engine::settle::settle;
use crate::ledger::{delivery, schedule};
use crate::records::audit_log::{Act, Subject};
use crate::records::jobs;
use crate::records::notices::{self, News};
use crate::store::counts::{About, Metric};
use crate::store::platform::{Index, Platform, Range, Scope, Unreachable};
use crate::store::rows::{self, Changed, Delivery, Event, Job, Registration, Stored};

/// Held deliveries that are looked at in one go.
const PAGE: usize = 100;

/// Held deliveries that are let go side by side.
const AT_ONCE: usize = 16;

const HOUR: Duration = Duration::from_hours(1);

/// An index that lags shows for a moment what is gone.
const SOON: Duration = Duration::from_secs(30);

/// Pauses a registration, for somebody or by itself. One that is paused already stays as it is.
pub async fn pause(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
    reason: &str,
    act: Option<Act<'_>>,
) -> Result<Stored<Registration>, Error> {
    pause_if(scope, name_or_id, reason, act, |_| true).await
}

async fn pause_if(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
    reason: &str,
    act: Option<Act<'_>>,
    is_due: impl Fn(&Registration) -> bool,
) -> Result<Stored<Registration>, Error> {
    let platform = scope.platform;
    let mut stored = config::find(scope, name_or_id).await?;
    let changed = rows::change(platform, &mut stored, |row| {
        // What met this one may have deleted it: that must not be written over.
        if row.paused.is_some() || row.deleted_at.is_some() || !is_due(row) {
            return None;
        }
        let now = platform.now();
        row.paused = Some(Pause {
            since: now,
            reason: reason.to_owned(),
            by: act.map(|act| act.actor.name.clone()),
        });
        // A look says when the first of what it holds comes of age, also of what an earlier pause held.
        row.wake_at = Some(now.plus(SOON));
        let entry = act.map(|act| {
            let subject = Subject::registration(row);
            act.entry(scope, subject, reason)
        });
        Some(entry.into_iter().collect())
    });
    match changed.await? {
        _ if stored.row.deleted_at.is_some() => Err(Error::NotFound(stored.row.id.to_string())),
        Changed::Conflict => Err(Error::Conflict),
        Changed::Unchanged => Ok(stored),
        Changed::Written => {
            let by = act.map(|act| format!("by {}: ", act.actor.name));
            let news = News {
                subject: stored.row.id.to_string(),
                detail: format!("{}{reason}", by.unwrap_or_default()),
                ..News::default()
            };
            notices::note(scope, Event::RegistrationPaused, news).await;
            Ok(stored)
        }
    }
}

/// Pauses a registration because nothing gets through it as it was `tried`, and not if it was mended since then. The
/// operator is told by the log and its alarm.
pub(crate) async fn fail(
    scope: Scope<'_, impl Platform>,
    tried: &Registration,
    reason: String,
) -> Result<(), Unreachable> {
    let is_as_tried = |row: &Registration| {
        (&row.config, &row.secret_version) == (&tried.config, &tried.secret_version)
    };
    match pause_if(scope, &tried.id, &reason, None, is_as_tried).await {
        Ok(Stored { row, .. }) if row.paused.as_ref().is_some_and(|pause| pause.by.is_none()) => {
            error!(
                registration.id = %row.id,
                registration.name = row.name,
                reason,
                "Paused"
            );
            let about = About {
                integration: row.integration,
                registration: row.id.to_string(),
            };
            let counts = &scope.platform.meter().counts;
            counts.count(about, Metric::Paused, 1);
            Ok(())
        }
        // Somebody paused, changed or deleted it meanwhile.
        Ok(_) | Err(Error::NotFound(_) | Error::Conflict) => Ok(()),
        Err(Error::Unreachable(unreachable)) => Err(unreachable),
        Err(other) => Err(Unreachable {
            what: "table",
            why: other.to_string(),
        }),
    }
}

/// Resumes a registration and drains what it held, so many in a second. None when it was not paused. A job's id may
/// follow from the request: then the same again finds the same job.
pub async fn resume(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
    per_second: u32,
    act: Act<'_>,
    id: Option<JobId>,
) -> Result<(Stored<Registration>, Option<Job>), Error> {
    let (platform, organization) = scope.parts();
    let mut stored = config::find(scope, name_or_id).await?;
    if let Some(id) = &id
        && let Some(begun) = jobs::find(scope, id).await?
    {
        return Ok((stored, Some(begun.row)));
    }
    if stored.row.paused.is_none() {
        let ever = platform.now().plus(schedule::PAUSE_LONGEST * 2);
        let id = stored.row.id.clone();
        if held(scope, &id, ever, 1).await?.is_empty() {
            return Ok((stored, None));
        }
    }
    stored.row.paused = None;
    stored.row.wake_at = None;
    let work = JobKind::Drain {
        registration: stored.row.id.clone(),
    };
    let mut job = jobs::new(scope, work, per_second, &act.actor.name);
    job.id = id.unwrap_or(job.id);
    stored.row.drain = Some(job.id.clone());
    let (write, version) = stored.update(platform);
    let subject = Subject::registration(&stored.row);
    let detail = format!("{per_second} a second");
    let entry = act.entry(scope, subject, detail);
    let mut writes = vec![write, jobs::put(platform, &job), entry];
    // A new beginning: it must not be paused again for what was before.
    let destination = rows::Destination::at(organization, &stored.row.id);
    if let Some(destination) = rows::load::<rows::Destination>(platform, &destination).await? {
        writes.push(destination.delete());
    }
    platform.write(writes).await?;
    let row = stored.row;
    let news = News {
        subject: row.id.to_string(),
        detail: act.actor.name.clone(),
        ..News::default()
    };
    notices::note(scope, Event::RegistrationResumed, news).await;
    Ok((Stored { row, version }, Some(job)))
}

/// The deliveries that a registration holds, those first that were held first; `until` is when they would be given
/// up on.
async fn held(
    scope: Scope<'_, impl Platform>,
    registration: &RegistrationId,
    until: api::Timestamp,
    limit: usize,
) -> Result<Vec<Stored<Delivery>>, Unreachable> {
    let (platform, organization) = scope.parts();
    let hash = Delivery::held_hash(organization, registration);
    let keys = platform
        .range(Range {
            index: Index::Due,
            hash: &hash,
            until: &until.to_string(),
            newest_first: false,
            limit,
        })
        .await?;
    let mut held = rows::load_many::<Delivery>(platform, &keys).await?;
    held.sort_by_key(|stored| stored.row.held_at);
    Ok(held)
}

/// Lets a page of held deliveries go, spread over a minute. Answers with how many were there.
pub(crate) async fn drain(
    scope: Scope<'_, impl Platform>,
    registration: &RegistrationId,
    per_second: u32,
    until: api::Timestamp,
) -> Result<usize, Unreachable> {
    let platform = scope.platform;
    let ever = platform.now().plus(schedule::PAUSE_LONGEST * 2);
    let limit = usize::try_from(per_second.max(1))
        .unwrap_or(1)
        .saturating_mul(60)
        .min(3_000);
    let held = held(scope, registration, ever, limit).await?;
    let all = held.len();
    let releases = held
        .into_iter()
        .enumerate()
        .map(|(index, mut stored)| async move {
            let now = platform.now();
            if now >= until {
                return Ok(());
            }
            let index = u64::try_from(index).unwrap_or_default();
            let delay = Duration::from_millis(index * 1_000 / u64::from(per_second.max(1)));
            match delivery::release(&mut stored.row, delay, now) {
                Some(settled) => settle(platform, &stored, settled).await,
                None => Ok(()),
            }
        });
    // Side by side: a minute is short for three thousand.
    let mut running = stream::iter(releases).buffer_unordered(AT_ONCE);
    let (mut count, mut failed) = (0, None);
    while let Some(released) = running.next().await {
        match released {
            Ok(()) => count += 1,
            Err(unreachable) => failed = Some(unreachable),
        }
    }
    // As long as some get out, the others come next.
    if let Some(unreachable) = failed
        && count == 0
    {
        return Err(unreachable);
    }
    info!(
        registration.id = %registration,
        count, "Let go what was held"
    );
    Ok(all)
}

/// Lets go what is held though nothing holds it: an index that lagged for longer than a drain looks has hidden it from
/// the drain.
pub(crate) async fn find_again(
    platform: &impl Platform,
    held: &[&Delivery],
) -> Result<(), Unreachable> {
    let mut forgotten = BTreeMap::new();
    for delivery in held {
        let registration = &delivery.registration;
        if !forgotten.contains_key(registration) {
            let is_kept =
                is_kept(Scope::new(platform, &delivery.organization), registration).await?;
            forgotten.insert(registration.clone(), !is_kept);
        }
        if !forgotten[registration] {
            continue;
        }
        let key = Delivery::at(&delivery.organization, &delivery.id);
        let Some(mut stored) = rows::load::<Delivery>(platform, &key).await? else {
            continue;
        };
        if let Some(settled) = delivery::release(&mut stored.row, Duration::ZERO, platform.now()) {
            settle(platform, &stored, settled).await?;
        }
    }
    Ok(())
}

/// Reports whether a registration's held deliveries stay held for now: it is paused, or a drain releases them at its
/// own rate.
async fn is_kept(
    scope: Scope<'_, impl Platform>,
    registration: &RegistrationId,
) -> Result<bool, Unreachable> {
    let (platform, organization) = scope.parts();
    let key = Registration::at(organization, registration);
    let Some(Stored { row, .. }) = rows::load::<Registration>(platform, &key).await? else {
        return Ok(false);
    };
    if row.paused.is_some() {
        return Ok(true);
    }
    let Some(drain) = row.drain else {
        return Ok(false);
    };
    let job = jobs::find(scope, &drain).await?;
    Ok(job.is_some_and(|job| job.row.stand == JobStatus::Running))
}

/// Gives up on what a paused registration has held for too long, and says when to look again.
pub(crate) async fn look(
    platform: &impl Platform,
    mut stored: Stored<Registration>,
) -> Result<(), Unreachable> {
    let Registration {
        organization, id, ..
    } = stored.row.clone();
    let now = platform.now();
    let due = held(Scope::new(platform, &organization), &id, now, PAGE).await?;
    let is_full = due.len() == PAGE;
    for mut stored in due {
        if let Some(settled) = delivery::held_too_long(&mut stored.row, now) {
            settle(platform, &stored, settled).await?;
        }
    }
    // What is held from now on may come of age sooner, by what it was held before: a look each hour finds it.
    let ever = now.plus(schedule::PAUSE_LONGEST * 2);
    let first = held(Scope::new(platform, &organization), &id, ever, 1).await?;
    let next = match first.first().map(|stored| &stored.row) {
        Some(row) if row.held_at.is_some() && !is_full => row.wake_at.unwrap_or(now),
        // More is due, or the index shows what is gone.
        Some(_) => now,
        None => now.plus(HOUR),
    };
    let next = next.min(now.plus(HOUR)).max(now.plus(SOON));
    stored.row.wake_at = stored.row.paused.as_ref().map(|_| next);
    stored.save_if_unchanged(platform).await?;
    Ok(())
}
