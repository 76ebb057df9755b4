//! Looks at deliveries: those of an attestation, a registration, a workflow or all; and one with its attempts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::deliveries::{State, StatusFilter};
use api::workflows::Workflow;
use api::{DeliveryId, RegistrationId, Timestamp};
use attestation::Digest;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::config;
use crate::engine::plans;
use crate::engine::progress::Steps;
use crate::records::attestations;
use crate::store::platform::{Index, Platform, Scope, Unreachable};
use crate::store::rows::{self, Attempt, Delivery, Newest, RegistrationTombstone, Report, Stored};

/// Registrations whose deliveries are looked for side by side.
const AT_ONCE: usize = 32;

/// Maximum clock skew between two functions.
const SKEW: Duration = Duration::from_mins(1);

/// Scope of a list of deliveries.
#[derive(Debug, Clone)]
pub enum Filter {
    /// By either of its digests.
    Attestation(Digest),
    /// The registration's id.
    Registration(RegistrationId),
    Workflow(Workflow),
    Organization,
}

/// Deliveries of a scope that a list shows; all by default.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub state: Option<State>,
    /// To registrations of this integration.
    pub integration: Option<String>,
    /// Answer of the third party to the last attempt that has ended.
    pub status: Option<StatusFilter>,
    /// Created at this time or later.
    pub since: Option<Timestamp>,
    /// Created at this time or earlier.
    pub until: Option<Timestamp>,
}

impl Wanted {
    fn is(&self, delivery: &Delivery) -> bool {
        let integration = self.integration.as_ref();
        self.state.is_none_or(|state| delivery.state == state)
            && integration.is_none_or(|integration| delivery.integration == *integration)
            && self.since.is_none_or(|since| delivery.created_at >= since)
    }
}

/// Deliveries newest first, at most `limit`, not later than `until`; and where the next page begins.
///
/// The next page begins behind the last one, in the order of times and then of ids: a thousand deliveries of one
/// attestation have the same time.
pub async fn list(
    scope: Scope<'_, impl Platform>,
    of: Filter,
    wanted: &Wanted,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<(Vec<Delivery>, Option<Cursor>), Unreachable> {
    let (platform, organization) = scope.parts();
    // Of the cursor's own moment some were on the page before.
    let is_behind = |delivery: &Delivery| {
        let is_early = wanted
            .until
            .is_none_or(|until| delivery.created_at <= until);
        is_early
            && cursor.is_none_or(|cursor| {
                (delivery.created_at, &delivery.id) < (cursor.created_at, &cursor.id)
            })
    };
    let newest = async |index, hash: String| {
        let until = cursor.map(|cursor| cursor.created_at);
        let until = until.into_iter().chain(wanted.until).min();
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
        Filter::Attestation(digest) => {
            let Some(attestation) = attestations::find(scope, &digest).await? else {
                return Ok((Vec::new(), None));
            };
            let plans = plans::of(platform, &attestation).await?;
            let ids = plans.iter().flat_map(|plan| plan.row.deliveries());
            let keys: Vec<_> = ids.map(|(id, _)| Delivery::at(organization, &id)).collect();
            let mut rows = rows::load_many::<Delivery>(platform, &keys).await?;
            rows.retain(|stored| is_behind(&stored.row));
            vec![Newest { rows, cut_at: None }]
        }
        Filter::Registration(id) => {
            let hash = Delivery::registration_hash(organization, &id);
            vec![newest(Index::ByRegistration, hash).await?]
        }
        Filter::Workflow(workflow) => {
            let hash = Delivery::workflow_hash(organization, &workflow);
            vec![newest(Index::ByWorkflow, hash).await?]
        }
        Filter::Organization if wanted.state == Some(State::Failed) => {
            vec![newest(Index::Failed, organization.to_string()).await?]
        }
        Filter::Organization => {
            let all = async |ids: BTreeSet<RegistrationId>| {
                let hashes = ids
                    .iter()
                    .map(|id| Delivery::registration_hash(organization, id));
                stream::iter(hashes.map(|hash| newest(Index::ByRegistration, hash)))
                    .buffer_unordered(AT_ONCE)
                    .try_collect::<Vec<_>>()
                    .await
            };
            let mut found = all(registrations(scope, wanted.integration.as_deref()).await?).await?;
            let since = oldest(&found, limit);
            found.extend(all(gone(scope, since).await?).await?);
            found
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
    let is_over = |last: &&Delivery| wanted.since.is_some_and(|since| last.created_at < since);
    let last = deliveries.last().filter(|last| more && !is_over(last));
    let next = last.map(|last| Cursor {
        created_at: last.created_at,
        id: last.id.clone(),
    });
    // After the page is cut: a page may be short, but none is left out.
    deliveries.retain(|delivery| wanted.is(delivery));
    if let Some(status) = wanted.status {
        let last = last_attempts(platform, &deliveries).await?;
        deliveries.retain(|delivery| {
            let attempt = last.get(&delivery.id);
            attempt.is_some_and(|attempt| status.is(attempt.status))
        });
    }
    Ok((deliveries, next))
}

/// Of each of these deliveries the last attempt that has ended, where there is one.
async fn last_attempts(
    platform: &impl Platform,
    deliveries: &[Delivery],
) -> Result<BTreeMap<DeliveryId, Report>, Unreachable> {
    let mut last = BTreeMap::new();
    let mut keys = Vec::new();
    for delivery in deliveries {
        if let Some(report) = &delivery.last_attempt {
            last.insert(delivery.id.clone(), report.clone());
            continue;
        }
        // The number is that of the next one, until one made it final.
        let numbers = delivery.attempt.saturating_sub(1).max(1)..=delivery.attempt;
        keys.extend(
            numbers.map(|number| Attempt::at(&delivery.organization, &delivery.id, number)),
        );
    }
    let mut found = rows::load_many::<Attempt>(platform, &keys).await?;
    found.sort_by_key(|stored| stored.row.number);
    let found = found.into_iter().map(|stored| stored.row);
    last.extend(found.map(|attempt| (attempt.delivery, attempt.report)));
    Ok(last)
}

/// Start of a page: after this delivery, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub created_at: Timestamp,
    pub id: DeliveryId,
}

impl Cursor {
    pub fn parse(text: &str) -> Option<Self> {
        let (created_at, id) = text.split_once('_')?;
        Some(Self {
            created_at: created_at.parse().ok()?,
            id: id.into(),
        })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}_{}", self.created_at, self.id)
    }
}

/// The time of the last delivery of a page of these; none when the page is not full, so that older ones belong to it.
fn oldest(found: &[Newest<Delivery>], limit: usize) -> Option<Timestamp> {
    let cut_at = found.iter().filter_map(|newest| newest.cut_at).max();
    let rows = found.iter().flat_map(|newest| &newest.rows);
    let mut times: Vec<Timestamp> = rows
        .map(|stored| stored.row.created_at)
        .filter(|at| cut_at.is_none_or(|cut_at| *at > cut_at))
        .collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    times.get(limit.saturating_sub(1)).copied().or(cut_at)
}

/// Registrations that were deleted, of which there can be deliveries since then: for one that is gone none is made.
async fn gone(
    scope: Scope<'_, impl Platform>,
    since: Option<Timestamp>,
) -> Result<BTreeSet<RegistrationId>, Unreachable> {
    let (platform, organization) = scope.parts();
    let since = since.map(|since| since.minus(SKEW).to_string());
    let partition = RegistrationTombstone::partition(organization);
    let gone = rows::load_after::<RegistrationTombstone>(platform, &partition, "", since).await?;
    Ok(gone
        .into_iter()
        .map(|stored| stored.row.registration)
        .collect())
}

/// Registrations that exist: of this integration, or all.
async fn registrations(
    scope: Scope<'_, impl Platform>,
    integration: Option<&str>,
) -> Result<BTreeSet<RegistrationId>, Unreachable> {
    const PAGE: usize = 500;
    let mut ids = BTreeSet::new();
    let mut after: Option<String> = None;
    loop {
        let (page, next) = config::list(scope, after.as_deref(), PAGE).await?;
        let rows = page.into_iter().map(|stored| stored.row);
        let of = rows.filter(|row| integration.is_none_or(|wanted| row.integration == wanted));
        ids.extend(of.map(|row| row.id));
        match next {
            Some(next) => after = Some(next),
            None => return Ok(ids),
        }
    }
}

/// A delivery with all of its finished steps, and its attempts, first to last.
pub async fn describe(
    scope: Scope<'_, impl Platform>,
    id: &DeliveryId,
) -> Result<Option<(Delivery, Vec<Attempt>)>, Unreachable> {
    let (platform, organization) = scope.parts();
    let partition = Delivery::partition(organization, id);
    let key = Delivery::at(organization, id);
    let delivery = rows::load::<Delivery>(platform, &key);
    let attempts = rows::load_all::<Attempt>(platform, &partition, Attempt::PREFIX);
    let (delivery, attempts) = futures_util::future::try_join(delivery, attempts).await?;
    let Some(Stored {
        row: mut delivery, ..
    }) = delivery
    else {
        return Ok(None);
    };
    let steps = Steps::load(platform, &delivery).await?;
    delivery.progress = steps.with_those_of(&delivery);
    let attempts = attempts.into_iter().map(|attempt| attempt.row);
    let attempts = attempts.chain(delivery.last_attempt()).collect();
    Ok(Some((delivery, attempts)))
}
