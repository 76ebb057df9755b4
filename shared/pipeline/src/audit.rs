//! The conservation law, by reading and without counters: every planned delivery is there, is in exactly one
//! state, and is looked at again unless it is final.

use std::collections::BTreeMap;

use attestation::Digest;

use crate::clock::Timestamp;
use crate::platform::{Index, Platform, Range, Unreachable};
use crate::rows::{self, Attestation, Delivery, Plan, SHARDS, Stage};
use crate::{plans, schedule};

/// What is wrong with a plan, row by row; empty when the law holds.
pub fn plan(plan: &Plan, deliveries: &[Delivery], now: Timestamp) -> Vec<String> {
    let by_id: BTreeMap<&str, &Delivery> = deliveries
        .iter()
        .map(|delivery| (delivery.id.as_str(), delivery))
        .collect();
    let name = format!("plan {} of {}", plan.generation, plan.attestation);
    let mut violations = Vec::new();
    match (plan.stage, plan.wake_at) {
        (Stage::Closed, Some(_)) => violations.push(format!("{name}: closed and to be woken")),
        (Stage::Closed, None) => {}
        (_, None) => violations.push(format!("{name}: open and never woken")),
        (_, Some(at)) if at.plus(schedule::OVERDUE) < now => {
            violations.push(format!("{name}: overdue since {at}"));
        }
        (_, Some(_)) => {}
    }
    for (id, _) in plan.deliveries() {
        match by_id.get(id.as_str()) {
            Some(found) => violations.extend(delivery(found, plan.stage, now)),
            None if plan.stage == Stage::Accepting => {}
            None => violations.push(format!("delivery {id}: planned and not there")),
        }
    }
    violations
}

fn delivery(row: &Delivery, stage: Stage, now: Timestamp) -> Option<String> {
    let id = &row.id;
    match (row.state.is_final(), row.wake_at) {
        (true, Some(_)) => Some(format!("delivery {id}: final and to be woken")),
        (false, _) if stage == Stage::Closed => {
            Some(format!("delivery {id}: open in a closed plan"))
        }
        (false, None) => Some(format!("delivery {id}: open and never woken")),
        (false, Some(at)) if at.plus(schedule::OVERDUE) < now => {
            Some(format!("delivery {id}: overdue since {at}"))
        }
        (true, None) | (false, Some(_)) => None,
    }
}

/// What is wrong with all plans of an attestation.
pub async fn attestation(
    platform: &impl Platform,
    organization: &str,
    hash: &Digest,
) -> Result<Vec<String>, Unreachable> {
    let key = Attestation::at(organization, hash);
    let Some(stored) = rows::load::<Attestation>(platform, &key).await? else {
        return Ok(vec![format!("{hash}: no such attestation")]);
    };
    let mut violations = Vec::new();
    let plans = plans::of(platform, &stored.row).await?;
    if plans.is_empty() {
        violations.push(format!("{hash}: accepted without a plan"));
    }
    for plan in plans {
        let deliveries = plans::load(platform, &plan.row).await?;
        violations.extend(self::plan(&plan.row, &deliveries, platform.now()));
    }
    Ok(violations)
}

/// How long ago the oldest of what is due was to be looked at: zero when nothing is late. One small read a shard.
pub async fn oldest_overdue(platform: &impl Platform) -> Result<std::time::Duration, Unreachable> {
    let now = platform.now();
    let until = now.to_string();
    let shards: Vec<String> = (0..SHARDS).map(|shard| shard.to_string()).collect();
    let first = futures_util::future::try_join_all(shards.iter().map(|shard| {
        platform.range(Range {
            index: Index::Due,
            hash: shard,
            until: &until,
            newest_first: false,
            limit: 1,
        })
    }))
    .await?;
    let mut oldest = std::time::Duration::ZERO;
    for key in first.into_iter().flatten() {
        // The index may lag: what the row itself says counts.
        let row = platform.get(&key).await?;
        let wake_at = row
            .as_ref()
            .and_then(|row| row.get("wake_at")?.as_str()?.parse().ok());
        oldest = oldest.max(wake_at.map_or(oldest, |at: Timestamp| now.since(at)));
    }
    Ok(oldest)
}
