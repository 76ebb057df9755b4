//! A plan's way: written with all its deliveries, accepted, sent, and closed once every one of them is final.
//!
//! Whatever cuts it off, its row says how far it came and when to look at it, and [`go_on`] takes it from there.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use api::deliveries::State;
use api::{DeliveryId, Timestamp};
use futures_util::stream::{self, StreamExt as _};
use tracing::{error, warn};

use crate::engine::pauses;
use crate::ledger::message::Message;
use crate::ledger::{accounting, delivery, schedule};
use crate::store::platform::{Platform, UnlessConflict as _, Unreachable, Write};
use crate::store::rows::{
    self, Attestation, CONFLICTS, Delivery, Plan, PlanReason, Planned, Stage, Stored, reload,
};

/// Messages to a queue in one call.
const BATCH: usize = 10;
/// Such calls at a time: a plan may have two hundred.
const SENDING: usize = 8;

/// A plan as it begins.
pub fn new(
    attestation: &Attestation,
    generation: u32,
    why: PlanReason,
    job: Option<String>,
    planned: Vec<Planned>,
    now: Timestamp,
) -> Plan {
    Plan {
        organization: attestation.organization.clone(),
        attestation: attestation.hash,
        generation,
        why,
        job,
        received: attestation.received,
        size_bytes: attestation.size_bytes,
        workflow: attestation.workflow.clone(),
        is_judged: attestation.verdict.is_some(),
        trace: attestation.trace,
        stage: Stage::Accepting,
        planned,
        polls: 0,
        created_at: now,
        wake_at: Some(now.plus(schedule::UNFINISHED)),
        ids: OnceCell::new(),
    }
}

/// Writes a new plan in one transaction with what stands `beside` it, and with its deliveries where they fit in. None
/// after a conflict.
pub(crate) async fn write(
    platform: &impl Platform,
    mut plan: Plan,
    beside: Vec<Write>,
) -> Result<Option<Stored<Plan>>, Unreachable> {
    let fits = beside.len() + 1 + plan.planned.len() <= schedule::ROWS_PER_TRANSACTION;
    if plan.planned.is_empty() {
        plan.stage = Stage::Closed;
        plan.wake_at = None;
    } else if fits {
        plan.stage = Stage::Accepted;
    }
    let mut writes = beside;
    let (row, version) = rows::insert(platform, &plan);
    writes.push(row);
    if fits {
        let now = plan.created_at;
        writes.extend(deliveries(platform, plan.deliveries(), &plan, now));
    }
    let is_written = platform.write(writes).await.unless_conflict()?;
    Ok(is_written.then_some(Stored { row: plan, version }))
}

fn deliveries<'a>(
    platform: &impl Platform,
    wanted: impl Iterator<Item = (DeliveryId, &'a Planned)>,
    plan: &Plan,
    now: Timestamp,
) -> Vec<Write> {
    wanted
        .map(|(id, planned)| {
            let delivery = delivery::begin(plan, planned, id, now);
            rows::insert(platform, &delivery).0
        })
        .collect()
}

/// Makes sure that every delivery of the plan is written, from the plan and not from today's attachments, and
/// that the plan says so.
pub(crate) async fn written(
    platform: &impl Platform,
    mut stored: Stored<Plan>,
) -> Result<Stored<Plan>, Unreachable> {
    for _ in 0..CONFLICTS {
        if stored.row.stage != Stage::Accepting {
            return Ok(stored);
        }
        let now = platform.now();
        let planned: Vec<(DeliveryId, &Planned)> = stored.row.deliveries().collect();
        for chunk in planned.chunks(schedule::ROWS_PER_TRANSACTION) {
            let writes = deliveries(platform, chunk.iter().cloned(), &stored.row, now);
            if !platform.write(writes).await.unless_conflict()? {
                rest(platform, &stored.row, chunk, now).await?;
            }
        }
        stored.row.stage = Stage::Accepted;
        if stored.save_if_unchanged(platform).await? {
            return Ok(stored);
        }
        reload(platform, &mut stored).await?;
    }
    Err(Unreachable {
        what: "table",
        why: "too many write conflicts on the plan".into(),
    })
}

/// Writes what is missing of a chunk, of which some is there: it was cut off, or somebody else is at it too.
async fn rest(
    platform: &impl Platform,
    plan: &Plan,
    chunk: &[(DeliveryId, &Planned)],
    now: Timestamp,
) -> Result<(), Unreachable> {
    let keys: Vec<_> = chunk
        .iter()
        .map(|(id, _)| Delivery::at(&plan.organization, id))
        .collect();
    for _ in 0..CONFLICTS {
        let there: HashSet<DeliveryId> = rows::load_many::<Delivery>(platform, &keys)
            .await?
            .into_iter()
            .map(|stored| stored.row.id)
            .collect();
        let missing = chunk.iter().filter(|(id, _)| !there.contains(id)).cloned();
        let writes = deliveries(platform, missing, plan, now);
        if writes.is_empty() || platform.write(writes).await.unless_conflict()? {
            return Ok(());
        }
    }
    Err(Unreachable {
        what: "table",
        why: "too many write conflicts on the deliveries".into(),
    })
}

/// Sends a message for every delivery of a plan that was accepted. That they were sent is written nowhere: the first
/// [`look`] finds them claimed.
pub(crate) async fn send(platform: &impl Platform, plan: &Plan) -> Result<(), Unreachable> {
    match plan.stage {
        Stage::Accepted => send_those(platform, plan, |_| true).await,
        _ => Ok(()),
    }
}

async fn send_those(
    platform: &impl Platform,
    plan: &Plan,
    is_wanted: impl Fn(&DeliveryId) -> bool,
) -> Result<(), Unreachable> {
    let mut queues: BTreeMap<&str, Vec<crate::store::platform::Message>> = BTreeMap::new();
    for (id, planned) in plan.deliveries().filter(|(id, _)| is_wanted(id)) {
        let message = Message {
            v: Message::VERSION,
            organization: plan.organization.clone(),
            delivery: id,
            attempt: 1,
            follow: false,
        };
        let queue = queues.entry(&planned.integration).or_default();
        queue.push(message.send_after(Duration::ZERO));
    }
    let batches = queues
        .iter()
        .flat_map(|(queue, messages)| messages.chunks(BATCH).map(move |batch| (*queue, batch)));
    let sending = batches.map(|(queue, batch)| platform.send(queue, batch));
    let mut answers = stream::iter(sending).buffer_unordered(SENDING);
    // All of them, whatever one answers: a queue that refuses holds back no other.
    let mut failed = None;
    while let Some(answer) = answers.next().await {
        let refused = |why| Unreachable { what: "queue", why };
        let all =
            answer.and_then(|entries| entries.into_iter().try_for_each(|one| one.map_err(refused)));
        failed = failed.or(all.err());
    }
    failed.map_or(Ok(()), Err)
}

/// Rows of a plan that are read at a time. A receipt of 128 KiB takes about two MB, as it is read.
const AT_ONCE: usize = 16;

/// The deliveries of a plan that are there, without their receipts: a thousand of those would not fit.
pub(crate) async fn load(
    platform: &impl Platform,
    plan: &Plan,
) -> Result<Vec<Delivery>, Unreachable> {
    let keys: Vec<_> = plan
        .deliveries()
        .map(|(id, _)| Delivery::at(&plan.organization, &id))
        .collect();
    let mut deliveries = Vec::new();
    for keys in keys.chunks(AT_ONCE) {
        let found = rows::load_many::<Delivery>(platform, keys).await?;
        deliveries.extend(found.into_iter().map(|Stored { row, .. }| Delivery {
            receipt: None,
            ..row
        }));
    }
    Ok(deliveries)
}

/// All plans of an attestation, first to last.
pub async fn of(
    platform: &impl Platform,
    attestation: &Attestation,
) -> Result<Vec<Stored<Plan>>, Unreachable> {
    let partition = Attestation::partition(&attestation.organization, &attestation.hash);
    rows::load_all(platform, &partition, Plan::PREFIX).await
}

/// A further plan that is asked for.
pub(crate) struct Added<'a> {
    pub(crate) why: PlanReason,
    /// The job that makes it, or the claim of the request that does.
    pub(crate) job: Option<&'a str>,
    pub(crate) planned: Vec<Planned>,
    /// Writes that go into the same transaction.
    pub(crate) beside: Vec<Write>,
}

/// Adds a plan to an attestation that was accepted before, unless `already` says of its plans that there is
/// one for this. The attestation's row is what two of these at once meet at.
pub(crate) async fn add(
    platform: &impl Platform,
    mut stored: Stored<Attestation>,
    added: Added<'_>,
    already: impl Fn(&Plan) -> bool,
) -> Result<Option<Plan>, Unreachable> {
    for _ in 0..CONFLICTS {
        let plans = of(platform, &stored.row).await?;
        if plans.iter().any(|plan| already(&plan.row)) {
            return Ok(None);
        }
        let (generation, now) = (stored.row.plans, platform.now());
        stored.row.plans += 1;
        stored.row.planned_at = now;
        let job = added.job.map(str::to_owned);
        let plan = new(
            &stored.row,
            generation,
            added.why.clone(),
            job,
            added.planned.clone(),
            now,
        );
        let mut beside = added.beside.clone();
        beside.push(stored.update(platform).0);
        let Some(plan) = write(platform, plan, beside).await? else {
            reload(platform, &mut stored).await?;
            continue;
        };
        let plan = written(platform, plan).await?;
        let row = plan.row.clone();
        if let Err(unreachable) = send(platform, &row).await {
            warn!(error = %unreachable, "Messages left to the reconciler");
        }
        return Ok(Some(row));
    }
    Err(Unreachable {
        what: "table",
        why: "too many write conflicts on the attestation".into(),
    })
}

/// Number of a plan's deliveries that are not as they should be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Findings {
    /// They break the conservation law.
    pub(crate) violations: usize,
    /// They are due, and no function has claimed them.
    pub(crate) unclaimed: usize,
}

/// Takes a plan whose time has come one step on.
pub(crate) async fn go_on(
    platform: &impl Platform,
    stored: Stored<Plan>,
) -> Result<Findings, Unreachable> {
    match stored.row.stage {
        Stage::Accepting | Stage::Accepted => {
            let stored = written(platform, stored).await?;
            look(platform, stored).await
        }
        Stage::Sent => {
            let deliveries = load(platform, &stored.row).await?;
            close(platform, stored, &deliveries).await
        }
        Stage::Closed => Ok(Findings::default()),
    }
}

/// Looks at a plan for the first time since it was accepted. What nobody has claimed is sent again, and once: whoever
/// accepted it may have been cut off, or the queue is long.
async fn look(platform: &impl Platform, mut stored: Stored<Plan>) -> Result<Findings, Unreachable> {
    let deliveries = load(platform, &stored.row).await?;
    let is_unclaimed = |delivery: &&Delivery| {
        let is_new = delivery.state == State::Pending && delivery.attempt == 1;
        is_new && delivery.put_off == 0 && delivery.held_at.is_none()
    };
    let unclaimed = deliveries.iter().filter(is_unclaimed);
    let unclaimed: HashSet<&DeliveryId> = unclaimed.map(|delivery| &delivery.id).collect();
    if !unclaimed.is_empty() {
        // Looked at again later and later: one queue that cannot be reached must not fill the others.
        match put_off(platform, stored).await? {
            Some(ours) => stored = ours,
            None => return Ok(Findings::default()),
        }
        send_those(platform, &stored.row, |id| unclaimed.contains(id)).await?;
    }
    close(platform, stored, &deliveries).await
}

/// Says when a plan is looked at again, should its messages not be sent now. None when somebody else is at it.
async fn put_off(
    platform: &impl Platform,
    mut stored: Stored<Plan>,
) -> Result<Option<Stored<Plan>>, Unreachable> {
    stored.row.polls += 1;
    let wait = schedule::UNFINISHED.saturating_mul(1 << stored.row.polls.min(6));
    stored.row.wake_at = Some(platform.now().plus(wait.min(schedule::UNSENT)));
    let is_ours = stored.save_if_unchanged(platform).await?;
    Ok(is_ours.then_some(stored))
}

/// Closes a plan whose deliveries are all there and final; otherwise it is looked at again later.
async fn close(
    platform: &impl Platform,
    mut stored: Stored<Plan>,
    deliveries: &[Delivery],
) -> Result<Findings, Unreachable> {
    let now = platform.now();
    let violations = accounting::plan(&stored.row, deliveries, now);
    for violation in &violations {
        error!(
            attestation.hash = %stored.row.attestation,
            violation,
            "The conservation law is broken"
        );
    }
    let unclaimed = accounting::unclaimed(deliveries, now);
    for delivery in &unclaimed {
        warn!(attestation.hash = %stored.row.attestation, delivery, "Nobody claims a delivery");
    }
    let held = deliveries
        .iter()
        .filter(|delivery| delivery.held_at.is_some());
    pauses::find_again(platform, &held.collect::<Vec<_>>()).await?;
    let is_over = deliveries.iter().all(|delivery| delivery.state.is_final());
    if is_over && violations.is_empty() {
        stored.row.stage = Stage::Closed;
        stored.row.wake_at = None;
    } else {
        stored.row.polls = match stored.row.stage {
            Stage::Sent => stored.row.polls + 1,
            _ => 0,
        };
        stored.row.stage = Stage::Sent;
        stored.row.wake_at = Some(now.plus(schedule::close_after(stored.row.polls)));
    }
    // In a conflict somebody else looked at it too.
    stored.save_if_unchanged(platform).await?;
    Ok(Findings {
        violations: violations.len(),
        unclaimed: unclaimed.len(),
    })
}
