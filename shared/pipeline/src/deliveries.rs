//! Looks at deliveries: those of an attestation, a registration, a workflow or all; and one with its attempts.

use std::collections::BTreeSet;

use attestation::Digest;
use futures_util::future::try_join_all;
use integrations::Workflow;

use crate::clock::Timestamp;
use crate::platform::{Index, Key, Platform, Range, Unreachable};
use crate::rows::{self, Attempt, Delivery, State};
use crate::{intake, plans, register};

/// Which deliveries.
#[derive(Debug, Clone)]
pub enum Of {
    /// By either of its digests.
    Attestation(Digest),
    /// The registration's id.
    Registration(String),
    Workflow(Workflow),
    Organization,
}

/// Deliveries newest first, at most `limit`, not later than `until`; and where the next page begins.
///
/// The next page begins at the last one's own time, and `seen` are the ids that this page ended with at
/// that time: a thousand deliveries of one attestation have the same time.
pub async fn list(
    platform: &impl Platform,
    organization: &str,
    of: Of,
    state: Option<State>,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<(Vec<Delivery>, Option<Cursor>), Unreachable> {
    let keys = match of {
        Of::Attestation(digest) => {
            let Some(attestation) = intake::find(platform, organization, &digest).await? else {
                return Ok((Vec::new(), None));
            };
            let plans = plans::of(platform, &attestation).await?;
            let ids = plans.iter().flat_map(|plan| plan.row.deliveries());
            ids.map(|(id, _)| Delivery::at(organization, &id)).collect()
        }
        Of::Registration(id) => {
            let hash = Delivery::registration_hash(organization, &id);
            range(platform, Index::ByRegistration, &hash, cursor, limit).await?
        }
        Of::Workflow(workflow) => {
            let hash = Delivery::workflow_hash(organization, &workflow);
            range(platform, Index::ByWorkflow, &hash, cursor, limit).await?
        }
        Of::Organization if state == Some(State::Failed) => {
            range(platform, Index::Failed, organization, cursor, limit).await?
        }
        Of::Organization => {
            let registrations = registrations(platform, organization).await?;
            let pages = try_join_all(registrations.iter().map(|id| async move {
                let hash = Delivery::registration_hash(organization, id);
                range(platform, Index::ByRegistration, &hash, cursor, limit).await
            }))
            .await?;
            pages.into_iter().flatten().collect()
        }
    };
    let mut deliveries: Vec<Delivery> = rows::load_many(platform, &keys)
        .await?
        .into_iter()
        .map(|stored| stored.row)
        .collect();
    deliveries.sort_by(|a, b| {
        b.created_at
            .cmp(&a.created_at)
            .then_with(|| b.id.cmp(&a.id))
    });
    if let Some(cursor) = cursor {
        deliveries.retain(|delivery| {
            (delivery.created_at, delivery.id.as_str()) < (cursor.created_at, cursor.id.as_str())
        });
    }
    let more = deliveries.len() > limit;
    deliveries.truncate(limit);
    let next = deliveries.last().filter(|_| more).map(|last| Cursor {
        created_at: last.created_at,
        id: last.id.clone(),
    });
    // After the page is cut: a page may be short, but none is left out.
    deliveries.retain(|delivery| state.is_none_or(|state| delivery.state == state));
    Ok((deliveries, next))
}

/// Where a page begins: behind this delivery, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub created_at: Timestamp,
    pub id: String,
}

/// Every entry at the cursor's own moment and at least one page beyond it: entries of one moment have no
/// order in the index.
async fn range(
    platform: &impl Platform,
    index: Index,
    hash: &str,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Vec<Key>, Unreachable> {
    const MOMENT: usize = 4_000;
    let until = cursor.map_or_else(
        || Timestamp::from_millis(u64::MAX >> 20).to_string(),
        |cursor| cursor.created_at.to_string(),
    );
    let limit = if cursor.is_some() {
        limit + MOMENT
    } else {
        limit + 1
    };
    platform
        .range(Range {
            index,
            hash,
            until: &until,
            newest_first: true,
            limit,
        })
        .await
}

async fn registrations(
    platform: &impl Platform,
    organization: &str,
) -> Result<BTreeSet<String>, Unreachable> {
    const PAGE: usize = 500;
    let mut ids = BTreeSet::new();
    let mut after: Option<String> = None;
    loop {
        let (page, next) = register::list(platform, organization, after.as_deref(), PAGE).await?;
        ids.extend(page.into_iter().map(|stored| stored.row.id));
        match next {
            Some(next) => after = Some(next),
            None => return Ok(ids),
        }
    }
}

/// A delivery and its attempts, first to last.
pub async fn describe(
    platform: &impl Platform,
    organization: &str,
    id: &str,
) -> Result<Option<(Delivery, Vec<Attempt>)>, Unreachable> {
    let partition = Delivery::partition(organization, id);
    let key = Delivery::at(organization, id);
    let delivery = rows::load::<Delivery>(platform, &key);
    let attempts = rows::load_all::<Attempt>(platform, &partition, Attempt::PREFIX);
    let (delivery, attempts) = futures_util::future::try_join(delivery, attempts).await?;
    Ok(delivery.map(|stored| {
        (
            stored.row,
            attempts.into_iter().map(|attempt| attempt.row).collect(),
        )
    }))
}
