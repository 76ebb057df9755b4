//! The conservation law, by reading and without counters: every planned delivery is there, is in exactly one
//! state, and is looked at again unless it is final.

use api::Timestamp;
use attestation::Digest;

use crate::engine::plans;
use crate::ledger::accounting;
use crate::store::platform::{Index, Platform, Range, Scope, Unreachable};
use crate::store::rows::{self, Attestation, SHARDS};

/// Returns the violations in all plans of an attestation, and what is due in them and not claimed.
pub async fn attestation(
    scope: Scope<'_, impl Platform>,
    hash: &Digest,
) -> Result<Vec<String>, Unreachable> {
    let (platform, organization) = scope.parts();
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
        let now = platform.now();
        violations.extend(accounting::plan(&plan.row, &deliveries, now));
        violations.extend(accounting::unclaimed(&deliveries, now));
    }
    Ok(violations)
}

/// Returns how long the oldest due row is overdue; zero when none is late. Reads at most one row per shard.
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
