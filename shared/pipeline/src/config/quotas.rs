//! Quotas of each organization: attestations, bytes and exchanges a day, and how many registrations, intakes, tokens and trust policies it has.
//!
//! Daily use is counted after the fact, in [`SHARDS`] rows, by additions that never conflict. Each environment adds the
//! rows up every [`READ_EVERY`] and counts its own pushes meanwhile. So N environments exceed a quota by at most the
//! pushes that the others accept in that time: 5 % where a whole quota takes longer than 200 s to use up. A count that
//! cannot be read or written refuses nobody.

use std::fmt;
use std::time::Duration;

use api::{OrganizationName, Timestamp};
use attestation::Digest;
use tracing::warn;

use crate::records::notices::{self, News};
use crate::store::meter::{Quota, Used, resets_at};
use crate::store::platform::{Item, Key, Platform, Scope, Unreachable};
use crate::store::rows::{
    self, Event, Intake, Notice, RegistrationName, SHARDS, TokenName, TrustPolicy, shard,
};

/// Rows of a day are of no use after it. Longer, so that whoever looks into a complaint finds them.
const KEPT: Duration = Duration::from_hours(3 * 24);

/// Rows that are read at a time, and at most, to count those of a kind.
const PAGE: usize = 500;
const ROWS_MOST: usize = 20_000;

/// A quota that is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    pub quota: Quota,
    pub limit: u64,
    pub used: u64,
    /// The time from which there is room again; none where something has to be deleted first.
    pub resets_at: Option<Timestamp>,
    /// Time until it is worth trying again.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            quota, limit, used, ..
        } = self;
        match (quota, self.resets_at) {
            (Quota::Checks, _) => write!(
                formatter,
                "the token has asked for more than {limit} checks, exchanges and jobs a minute"
            ),
            (_, Some(resets_at)) => write!(
                formatter,
                "the organization has used {used} of {limit} {} today: there is room again at {resets_at}",
                quota.name()
            ),
            (_, None) => write!(
                formatter,
                "the organization has {used} of {limit} {}: delete those that nobody needs",
                quota.name()
            ),
        }
    }
}

impl std::error::Error for Exceeded {}

fn at(organization: &OrganizationName, shard: &str, now: Timestamp) -> Key {
    let date = &now.to_string()[..10];
    Key::new(format!("usage/{organization}/{shard}"), date)
}

/// The rows of today's use.
fn keys(scope: Scope<'_, impl Platform>) -> Vec<Key> {
    let (platform, organization) = scope.parts();
    let now = platform.now();
    (0..SHARDS)
        .map(|shard| at(organization, &shard.to_string(), now))
        .collect()
}

/// Reads today's use from the table.
pub async fn used(scope: Scope<'_, impl Platform>) -> Result<Used, Unreachable> {
    let rows = scope.platform.get_many(&keys(scope)).await?;
    Ok(sum(&rows))
}

/// The keys of today's use where it is not remembered, for a call that reads other rows as well.
pub(crate) fn unread(scope: Scope<'_, impl Platform>) -> Vec<Key> {
    let (platform, organization) = scope.parts();
    let remembered = platform.meter().remembered(organization, platform.now());
    remembered.map_or_else(|| keys(scope), |_| Vec::new())
}

/// Remembers today's use from what was found under those keys. Other rows have no part in it.
pub(crate) fn learn(scope: Scope<'_, impl Platform>, keys: &[Key], found: &[Item]) {
    if keys.is_empty() {
        return;
    }
    let (platform, organization) = scope.parts();
    let is_one = |item: &&Item| keys.iter().any(|key| rows::is_at(item, key));
    let used = sum(found.iter().filter(is_one));
    platform
        .meter()
        .remember(organization, platform.now(), used);
}

fn sum<'a>(rows: impl IntoIterator<Item = &'a Item>) -> Used {
    rows.into_iter().fold(Used::default(), |sum, row| {
        let number = |quota: Quota| {
            let number = row.get(quota.name());
            number
                .and_then(serde_json::Value::as_u64)
                .unwrap_or_default()
        };
        sum.plus(Used {
            attestations: number(Quota::Attestations),
            bytes: number(Quota::Bytes),
            exchanges: number(Quota::Exchanges),
        })
    })
}

/// Checks that there is room for something today.
pub async fn daily(scope: Scope<'_, impl Platform>, wanted: Used) -> Result<(), Exceeded> {
    let (platform, organization) = scope.parts();
    let (now, meter) = (platform.now(), platform.meter());
    let used = match meter.remembered(organization, now) {
        Some(used) => used,
        None => match used(scope).await {
            Ok(used) => {
                meter.remember(organization, now, used);
                used
            }
            Err(unreachable) => {
                warn!(error = %unreachable, "The use of quotas is not known: nobody is refused");
                return Ok(());
            }
        },
    };
    for (quota, used, wanted) in [
        (Quota::Attestations, used.attestations, wanted.attestations),
        (Quota::Bytes, used.bytes, wanted.bytes),
        (Quota::Exchanges, used.exchanges, wanted.exchanges),
    ] {
        let limit = meter.quotas.of(quota);
        if wanted > 0 && used.saturating_add(wanted) > limit - limit / 5 {
            tell_that_near(scope, quota, used, limit).await;
        }
        if wanted > 0 && used.saturating_add(wanted) > limit {
            let resets_at = resets_at(now);
            return Err(Exceeded {
                quota,
                limit,
                used,
                resets_at: Some(resets_at),
                retry_after: Some(resets_at.since(now)),
            });
        }
    }
    Ok(())
}

/// Tells operators once a day that little is left of a quota.
async fn tell_that_near(scope: Scope<'_, impl Platform>, quota: Quota, used: u64, limit: u64) {
    let (platform, organization) = scope.parts();
    let name = quota.name();
    let subject = format!("{name}-{}", &platform.now().to_string()[..10]);
    if !platform
        .meter()
        .is_news(&format!("{organization}/{subject}"))
    {
        return;
    }
    // Another environment has told of it, perhaps.
    let at = Notice::at(organization, Event::QuotaNear, &subject);
    if !matches!(rows::load::<Notice>(platform, &at).await, Ok(None)) {
        return;
    }
    let news = News {
        subject,
        name: name.to_owned(),
        detail: format!("{used} of {limit} {name} are used today"),
        delivery: None,
    };
    notices::note(scope, Event::QuotaNear, news).await;
}

/// Counts what was accepted. A count that fails is lost: what was accepted stays so.
pub async fn count(scope: Scope<'_, impl Platform>, of: &Digest, used: Used) {
    let (platform, organization) = scope.parts();
    let now = platform.now();
    platform.meter().raise(organization, used);
    let key = at(organization, &shard(&of.hex()), now);
    let amounts = [
        (Quota::Attestations.name(), used.attestations),
        (Quota::Bytes.name(), used.bytes),
        (Quota::Exchanges.name(), used.exchanges),
    ];
    if let Err(unreachable) = platform.add(&key, &amounts, now.plus(KEPT)).await {
        warn!(error = %unreachable, "The use of quotas was not counted");
    }
}

/// The rows that are counted, where there is one for each.
fn partition(quota: Quota, organization: &OrganizationName) -> Option<String> {
    match quota {
        Quota::Registrations => Some(RegistrationName::partition(organization)),
        Quota::Intakes => Some(Intake::partition(organization)),
        Quota::Tokens => Some(TokenName::partition(organization)),
        Quota::Policies => Some(TrustPolicy::partition(organization)),
        Quota::Attestations | Quota::Bytes | Quota::Exchanges | Quota::Checks => None,
    }
}

/// Counts the rows of a kind that has one for each, up to the quota. Tokens whose time is over do not count.
pub async fn standing(scope: Scope<'_, impl Platform>, quota: Quota) -> Result<u64, Unreachable> {
    let (platform, organization) = scope.parts();
    let limit = platform.meter().quotas.of(quota);
    let Some(partition) = partition(quota, organization) else {
        return Ok(0);
    };
    let now = platform.now().to_string();
    let is_live = |item: &&Item| {
        let end = item.get("valid_until").and_then(|until| until.as_str());
        end.is_none_or(|until| until > now.as_str())
    };
    let (mut found, mut read, mut after) = (0, 0, None::<String>);
    loop {
        let page = platform
            .list(&partition, "", after.as_deref(), PAGE)
            .await?;
        found += page.iter().filter(is_live).count() as u64;
        read += page.len();
        if found >= limit || page.len() < PAGE {
            return Ok(found.min(limit));
        }
        if read >= ROWS_MOST {
            // So many that are over and not yet forgotten are no use that anybody has for tokens.
            return Ok(limit);
        }
        after = page
            .last()
            .and_then(|item| item["sk"].as_str().map(str::to_owned));
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

/// Checks that there is room for one more of a kind that has a row for each. Two at once may both find the last place.
pub async fn room(scope: Scope<'_, impl Platform>, quota: Quota) -> Result<(), Error> {
    let platform = scope.platform;
    let limit = platform.meter().quotas.of(quota);
    let used = standing(scope, quota).await?;
    if used < limit {
        return Ok(());
    }
    Err(Error::Exceeded(Exceeded {
        quota,
        limit,
        used,
        resets_at: None,
        retry_after: None,
    }))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::memory::Memory;
    use crate::store::meter::Quotas;

    #[test]
    fn a_new_day_begins_with_nothing_used() {
        let memory = Memory::default();
        let run = |used| {
            daily(Scope::new(&memory, &"acme".into()), used)
                .now_or_never()
                .unwrap()
        };
        let all = Quotas::default().attestations;
        let used = Used {
            attestations: all,
            ..Used::default()
        };
        let digest = Digest::of(b"a");
        count(Scope::new(&memory, &"acme".into()), &digest, used)
            .now_or_never()
            .unwrap();
        let exceeded = run(Used::attestation(1)).unwrap_err();
        assert_eq!((exceeded.quota, exceeded.used), (Quota::Attestations, all));
        assert_eq!(run(Used::material(1)), Ok(()), "bytes are another quota");
        memory.advance(exceeded.retry_after.unwrap());
        assert_eq!(run(Used::attestation(1)), Ok(()));
    }
}
