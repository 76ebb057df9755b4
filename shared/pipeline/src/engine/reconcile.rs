//! Sends what is due, finishes what was cut off, and recovers attempts whose function ended.
//!
//! Reads the due index, which may lag: every row is read again before anything is done, and written on
//! the condition that it has not changed. So it is safe to run twice at once.

use std::collections::HashSet;
use std::time::Duration;

use api::Timestamp;
use api::deliveries::State;
use futures_util::future::join_all;
use serde::Serialize;
use tracing::{info, warn};

use crate::config::{keys, register};
use crate::engine::deliver::{GiveBack, Record, completion_poll, park};
use crate::engine::settle::{resend, settle};
use crate::engine::{audit, fetch, job_runner, pauses, plans};
use crate::ledger::delivery::{self, Settled, Woken};
use crate::ledger::message::{Message, Unreadable};
use crate::ledger::schedule;
use crate::records::notices;
use crate::store::platform::{Index, Key, Platform, Range, Unreachable};
use crate::store::rows::{
    self, Delivery, Job, Notice, Plan, Registration, RegistrationName, SHARDS, Stage,
};

/// Rows of one shard in a page; a run takes page after page.
const PAGE: usize = 200;

/// Integration under which unreadable dead letters are quarantined: they do not name their own.
const UNREADABLE: &str = "dead-letters";

/// Prefix of a job's sort key.
const JOB: &str = "job/";

/// Time of a run in which notices are told: whoever takes them may hang, and deliveries must not wait for that.
const TELLING: Duration = Duration::from_secs(10);

/// A job's share of a run, at the least: so many are left to the next run that those which have theirs get on.
const LEAST: Duration = Duration::from_secs(2);

/// Results of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Deliveries whose message was sent.
    pub sent: usize,
    /// Attempts recorded as crashed.
    pub crashed: usize,
    /// Plans completed, looked at or closed.
    pub plans: usize,
    /// Other rows that something was done about: jobs, pauses, what was cut off.
    pub others: usize,
    /// Violations of the conservation law.
    pub violations: usize,
    /// Deliveries that are due and that no function has claimed, of the plans looked at.
    pub unclaimed: usize,
    /// Seconds by which the most overdue row is overdue after this run.
    pub overdue_secs: u64,
    /// Rows that were left for the next run because something could not be reached.
    pub left: usize,
}

/// One run over what is due; stops beginning new work at `until`.
pub async fn reconcile(platform: &impl Platform, until: Timestamp) -> Result<Report, Unreachable> {
    let begun = platform.now();
    // Whatever is due, a quarter of the time is for jobs.
    let rounds_until = begun.plus(until.since(begun) / 4 * 3);
    let mut report = Report::default();
    // Jobs last, with the time that is left: an hour of redelivery must not hold up what is due.
    let (mut jobs, mut notices) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    let is_all = loop {
        let (mut shards, is_all) = due(platform, &mut report).await;
        // An index lags behind its table, and what was left is for the next run.
        for keys in &mut shards {
            keys.retain(|key| seen.insert(key.clone()));
        }
        let is_anything_new = shards.iter().any(|keys| !keys.is_empty());
        let mut shards: Vec<_> = shards.into_iter().map(Vec::into_iter).collect();
        // One of each shard in turn, so that a long one does not starve the rest.
        loop {
            let mut keys: Vec<Key> = shards.iter_mut().filter_map(Iterator::next).collect();
            if keys.is_empty() {
                break;
            }
            jobs.extend(keys.extract_if(.., |key| key.sort.starts_with(JOB)));
            notices.extend(keys.extract_if(.., |key| Notice::is_at(key)));
            report.look(platform, &keys, until).await;
        }
        if is_all || !is_anything_new || platform.now() >= rounds_until {
            break is_all;
        }
    };
    let telling_until = platform.now().plus(TELLING).min(until);
    for keys in notices.chunks(16) {
        report.look(platform, keys, telling_until).await;
    }
    // Each has its share of what is left: an hour of backfill must not hold up somebody else's drain.
    let mut left = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
    for key in jobs {
        let now = platform.now();
        let share = now.plus((until.since(now) / left).max(LEAST)).min(until);
        report.look(platform, &[key], share).await;
        left -= 1;
    }
    if report.left > 0 || !is_all {
        report.overdue_secs = audit::oldest_overdue(platform).await?.as_secs();
    }
    info!(?report, "Reconciled");
    Ok(report)
}

/// Returns a page of what is due of each shard, and whether that is all.
async fn due(platform: &impl Platform, report: &mut Report) -> (Vec<Vec<Key>>, bool) {
    let now = platform.now().to_string();
    let pages = join_all((0..SHARDS).map(|shard| {
        let now = &now;
        async move {
            let range = Range {
                index: Index::Due,
                hash: &shard.to_string(),
                until: now,
                newest_first: false,
                limit: PAGE,
            };
            platform.range(range).await
        }
    }));
    let mut is_all = true;
    let mut shards = Vec::new();
    for keys in pages.await {
        match keys {
            Ok(keys) => {
                is_all &= keys.len() < PAGE;
                shards.push(keys);
            }
            // One shard that does not answer must not keep the others waiting.
            Err(unreachable) => {
                warn!(error = %unreachable, "Left a shard for the next run");
                report.left += 1;
            }
        }
    }
    (shards, is_all)
}

impl Report {
    /// Looks at rows side by side.
    async fn look(&mut self, platform: &impl Platform, keys: &[Key], until: Timestamp) {
        if platform.now() >= until {
            self.left += keys.len();
            return;
        }
        let done = join_all(keys.iter().map(|key| Box::pin(look(platform, key, until)))).await;
        for (key, done) in keys.iter().zip(done) {
            match done {
                Ok(done) => self.add(done),
                Err(unreachable) => {
                    warn!(row = key.partition, error = %unreachable, "Left for the next run");
                    self.left += 1;
                }
            }
        }
    }

    fn add(&mut self, done: Done) {
        match done {
            Done::Nothing => {}
            Done::Sent => self.sent += 1,
            Done::Crashed => self.crashed += 1,
            Done::Plan(findings) => {
                self.plans += 1;
                self.violations += findings.violations;
                self.unclaimed += findings.unclaimed;
            }
            Done::Other => self.others += 1,
            Done::Left => self.left += 1,
        }
    }
}

/// Result of processing one row.
#[derive(Clone, Copy)]
enum Done {
    Nothing,
    Sent,
    Crashed,
    Plan(plans::Findings),
    Other,
    Left,
}

/// A row by what its key says it is.
async fn look(platform: &impl Platform, key: &Key, until: Timestamp) -> Result<Done, Unreachable> {
    let now = platform.now();
    // First of all, since a name may be any of the words below.
    if RegistrationName::is_at(key) {
        return match rows::load::<RegistrationName>(platform, key).await? {
            Some(stored) => register::abandon(platform, stored)
                .await
                .map(|()| Done::Other),
            None => Ok(Done::Nothing),
        };
    }
    let kind = key.sort.split('/').next().unwrap_or_default();
    match kind {
        "delivery" => wake(platform, key).await,
        "followup" => match completion_poll::wake(platform, key).await? {
            true => Ok(Done::Other),
            false => Ok(Done::Nothing),
        },
        "plan" => {
            let stored = rows::load::<Plan>(platform, key).await?;
            match stored.filter(|stored| stored.row.wake_at.is_some_and(|at| at <= now)) {
                Some(stored) => Ok(Done::Plan(plans::go_on(platform, stored).await?)),
                None => Ok(Done::Nothing),
            }
        }
        "job" => {
            let stored = rows::load::<Job>(platform, key).await?;
            match stored.filter(|stored| stored.row.wake_at.is_some_and(|at| at <= now)) {
                Some(stored) => job_runner::work(platform, stored, until)
                    .await
                    .map(|()| Done::Other),
                None => Ok(Done::Nothing),
            }
        }
        "registration" => {
            let stored = rows::load::<Registration>(platform, key).await?;
            match stored.filter(|stored| stored.row.wake_at.is_some_and(|at| at <= now)) {
                Some(stored) if stored.row.deleted_at.is_some() => {
                    register::finish(platform, stored)
                        .await
                        .map(|()| Done::Other)
                }
                Some(stored) => pauses::look(platform, stored).await.map(|()| Done::Other),
                None => Ok(Done::Nothing),
            }
        }
        _ if Notice::is_at(key) => {
            let stored = rows::load::<Notice>(platform, key).await?;
            match stored.filter(|stored| stored.row.wake_at.is_some_and(|at| at <= now)) {
                Some(stored) => notices::tell(platform, stored).await.map(|()| Done::Other),
                None => Ok(Done::Nothing),
            }
        }
        // Nothing else is ever due.
        _ => Ok(Done::Nothing),
    }
}

async fn wake(platform: &impl Platform, key: &Key) -> Result<Done, Unreachable> {
    let Some(mut stored) = rows::load::<Delivery>(platform, key).await? else {
        return Ok(Done::Nothing);
    };
    match delivery::wake(&mut stored.row, platform.now(), platform.random()) {
        Woken::Asleep => Ok(Done::Nothing),
        Woken::Send(_) if !is_accepted(platform, &stored.row).await? => Ok(Done::Left),
        Woken::Send(delay) => {
            // Sent first: a crash before the row is written sends twice, the other way round not at all.
            if !resend(platform, &stored.row, delay).await {
                // Later and later: a queue that is gone must not fill the pages of all others.
                let wait = schedule::UNFINISHED.saturating_mul(1 << stored.row.sends.min(6));
                stored.row.wake_at = Some(platform.now().plus(wait.min(schedule::UNSENT)));
                stored.save_if_unchanged(platform).await?;
                return Ok(Done::Left);
            }
            // In a conflict somebody claimed it meanwhile, which is what was wanted.
            stored.save_if_unchanged(platform).await?;
            Ok(Done::Sent)
        }
        Woken::Over => {
            let settled = Settled {
                attempt: None,
                send_after: None,
            };
            settle(platform, &stored, settled).await?;
            Ok(Done::Other)
        }
        Woken::Crashed(attempt, send_after) => {
            settle(
                platform,
                &stored,
                Settled {
                    attempt: Some(*attempt),
                    send_after,
                },
            )
            .await?;
            Ok(Done::Crashed)
        }
    }
}

/// Reports whether the plan of a delivery that was never attempted is fully written. A plan still being written after
/// an hour is due as well, and its own row gets it finished and sent.
async fn is_accepted(platform: &impl Platform, delivery: &Delivery) -> Result<bool, Unreachable> {
    if delivery.attempt > 1 {
        return Ok(true);
    }
    let key = Plan::at(
        &delivery.organization,
        &delivery.attestation,
        delivery.generation,
    );
    let plan = rows::load::<Plan>(platform, &key).await?;
    Ok(plan.is_none_or(|stored| stored.row.stage != Stage::Accepting))
}

/// Takes dead letters: a message that was received too often without an end. If its delivery still waits for
/// that very attempt, the attempt crashed and the ledger's budget decides; otherwise the letter is stale.
/// Answers with the ids of those to be handed over again.
pub async fn dead_letters(platform: &impl Platform, records: Vec<Record>) -> Vec<String> {
    let mut back = Vec::new();
    for record in records {
        if let Err(give_back) = Box::pin(dead_letter(platform, &record)).await {
            warn!(message.id = record.id, error = %give_back, "Gave a dead letter back");
            back.push(record.id);
        }
    }
    back
}

async fn dead_letter(platform: &impl Platform, record: &Record) -> Result<(), GiveBack> {
    if let Ok(message) = fetch::Message::parse(&record.body) {
        // Deliveries go without what never came, and say so.
        let attestation = &message.attestation;
        warn!(attestation = %attestation, "Gave up on materials whose fetching did not end");
        return Ok(());
    }
    if let Ok(message) = keys::Message::parse(&record.body) {
        // The next exchange asks again.
        warn!(issuer.id = %message.issuer, "Gave up on keys whose fetching did not end");
        return Ok(());
    }
    let message = match Message::parse(&record.body) {
        Ok(message) => message,
        Err(Unreadable::Malformed(why)) => {
            return Ok(park(platform, UNREADABLE, record, why).await?);
        }
        Err(newer) => return Err(newer.into()),
    };
    let key = Delivery::at(&message.organization, &message.delivery);
    let Some(mut stored) = rows::load::<Delivery>(platform, &key).await? else {
        return Ok(());
    };
    let now = platform.now();
    if stored.row.attempt != message.attempt {
        return Ok(());
    }
    // What is held belongs to its pause.
    if stored.row.held_at.is_some() {
        return Ok(());
    }
    let waits = match stored.row.state {
        State::Pending => stored.row.due_at <= now,
        State::Delivering => stored
            .row
            .lease
            .as_ref()
            .is_none_or(|lease| lease.until <= now),
        _ => false,
    };
    if !waits {
        return Ok(());
    }
    let settled = delivery::crash(&mut stored.row, now, platform.random());
    Ok(settle(platform, &stored, settled).await?)
}
