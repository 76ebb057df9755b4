//! Looks at deliveries: those of an attestation, a registration, a workflow or all; and one with its attempts.

use std::collections::BTreeSet;

use attestation::Digest;
use futures_util::future::try_join_all;
use integrations::Workflow;

use crate::clock::Timestamp;
use crate::platform::{Index, Platform, Unreachable};
use crate::rows::{self, Attempt, Delivery, Newest, State};
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
/// The next page begins behind the last one, in the order of times and then of ids: a thousand deliveries of one
/// attestation have the same time.
pub async fn list(
    platform: &impl Platform,
    organization: &str,
    of: Of,
    state: Option<State>,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<(Vec<Delivery>, Option<Cursor>), Unreachable> {
    // Of the cursor's own moment some were on the page before.
    let is_behind = |delivery: &Delivery| {
        cursor.is_none_or(|cursor| {
            (delivery.created_at, delivery.id.as_str()) < (cursor.created_at, cursor.id.as_str())
        })
    };
    let newest = async |index, hash: String| {
        let until = cursor.map(|cursor| cursor.created_at);
        let created_at = |row: &Delivery| row.created_at;
        rows::newest(
            platform,
            (index, hash.as_str()),
            until,
            limit,
            created_at,
            is_behind,
        )
        .await
    };
    let found = match of {
        Of::Attestation(digest) => {
            let Some(attestation) = intake::find(platform, organization, &digest).await? else {
                return Ok((Vec::new(), None));
            };
            let plans = plans::of(platform, &attestation).await?;
            let ids = plans.iter().flat_map(|plan| plan.row.deliveries());
            let keys: Vec<_> = ids.map(|(id, _)| Delivery::at(organization, &id)).collect();
            let mut rows = rows::load_many::<Delivery>(platform, &keys).await?;
            rows.retain(|stored| is_behind(&stored.row));
            vec![Newest { rows, cut_at: None }]
        }
        Of::Registration(id) => {
            let hash = Delivery::registration_hash(organization, &id);
            vec![newest(Index::ByRegistration, hash).await?]
        }
        Of::Workflow(workflow) => {
            let hash = Delivery::workflow_hash(organization, &workflow);
            vec![newest(Index::ByWorkflow, hash).await?]
        }
        Of::Organization if state == Some(State::Failed) => {
            vec![newest(Index::Failed, organization.to_owned()).await?]
        }
        Of::Organization => {
            let registrations = registrations(platform, organization).await?;
            let hashes = registrations
                .iter()
                .map(|id| Delivery::registration_hash(organization, id));
            try_join_all(hashes.map(|hash| newest(Index::ByRegistration, hash))).await?
        }
    };
    // Where one ends, the others may have something older than what follows in it.
    let cut_at = found.iter().filter_map(|newest| newest.cut_at).max();
    let mut deliveries: Vec<Delivery> = found
        .into_iter()
        .flat_map(|newest| newest.rows)
        .map(|stored| stored.row)
        .filter(|delivery| cut_at.is_none_or(|cut_at| delivery.created_at > cut_at))
        .collect();
    deliveries.sort_by(|a, b| {
        b.created_at
            .cmp(&a.created_at)
            .then_with(|| b.id.cmp(&a.id))
    });
    let more = deliveries.len() > limit || cut_at.is_some();
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
