//! Quotas of each organization: attestations and bytes a day, and how many registrations, intakes and tokens it has.
//!
//! Daily use is counted after the fact, in [`SHARDS`] rows, by additions that never conflict. Each environment adds the
//! rows up every [`READ_EVERY`] and counts its own pushes meanwhile. So N environments exceed a quota by at most the
//! pushes that the others accept in that time: 5 % where a whole quota takes longer than 200 s to use up. A count that
//! cannot be read or written refuses nobody.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use attestation::Digest;
use tracing::warn;

use crate::clock::Timestamp;
use crate::platform::{Key, Platform, Unreachable};
use crate::rows::{Intake, Name, SHARDS, TokenName, shard};

/// Time for which an environment believes what it has read of the others' use.
pub const READ_EVERY: Duration = Duration::from_secs(10);

/// Rows of a day are of no use after it. Longer, so that whoever looks into a complaint finds them.
const KEPT: Duration = Duration::from_hours(3 * 24);

const DAY: Duration = Duration::from_hours(24);

/// The most of a kind that an organization may have: they are counted row by row.
const STANDING_MOST: u64 = 10_000;

/// A hundred a second: moments are told apart by milliseconds.
const CHECKS_MOST: u64 = 6_000;

/// Rows that are read at a time, and at most, to count those of a kind.
const PAGE: usize = 500;
const ROWS_MOST: usize = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// A day.
    Attestations,
    /// A day, of attestations and materials.
    Bytes,
    Registrations,
    Intakes,
    Tokens,
    /// A minute, of each token: see [`pace`](crate::pace).
    Checks,
}

impl Quota {
    pub const ALL: [Self; 6] = [
        Self::Attestations,
        Self::Bytes,
        Self::Registrations,
        Self::Intakes,
        Self::Tokens,
        Self::Checks,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Attestations => "attestations",
            Self::Bytes => "bytes",
            Self::Registrations => "registrations",
            Self::Intakes => "intakes",
            Self::Tokens => "tokens",
            Self::Checks => "checks",
        }
    }

    /// The rows that are counted, where there is one for each.
    fn partition(self, organization: &str) -> Option<String> {
        match self {
            Self::Registrations => Some(Name::partition(organization)),
            Self::Intakes => Some(Intake::partition(organization)),
            Self::Tokens => Some(TokenName::partition(organization)),
            Self::Attestations | Self::Bytes | Self::Checks => None,
        }
    }
}

/// Limits of one organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    pub attestations: u64,
    pub bytes: u64,
    pub registrations: u64,
    pub intakes: u64,
    pub tokens: u64,
    pub checks: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            attestations: 100_000,
            bytes: 100 << 30,
            registrations: 1_000,
            intakes: 100,
            tokens: 1_000,
            checks: 30,
        }
    }
}

impl Quotas {
    pub const fn of(&self, quota: Quota) -> u64 {
        match quota {
            Quota::Attestations => self.attestations,
            Quota::Bytes => self.bytes,
            Quota::Registrations => self.registrations,
            Quota::Intakes => self.intakes,
            Quota::Tokens => self.tokens,
            Quota::Checks => self.checks,
        }
    }

    fn set(&mut self, quota: Quota, limit: u64) {
        let field = match quota {
            Quota::Attestations => &mut self.attestations,
            Quota::Bytes => &mut self.bytes,
            Quota::Registrations => &mut self.registrations,
            Quota::Intakes => &mut self.intakes,
            Quota::Tokens => &mut self.tokens,
            Quota::Checks => &mut self.checks,
        };
        *field = limit;
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a quota as in attestations=100000,bytes=100GiB,registrations=1000,intakes=100,tokens=1000,checks=30"
)]
pub struct Malformed(String);

/// `attestations=5000,bytes=10GiB`; those that are not named are the usual ones.
impl FromStr for Quotas {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut quotas = Self::default();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let wrong = || Malformed(part.to_owned());
            let (name, limit) = part.split_once('=').ok_or_else(wrong)?;
            let quota = Quota::ALL.into_iter().find(|quota| quota.name() == name);
            let quota = quota.ok_or_else(wrong)?;
            let limit = number(limit).ok_or_else(wrong)?;
            let most = match quota {
                Quota::Attestations | Quota::Bytes => u64::MAX,
                Quota::Registrations | Quota::Intakes | Quota::Tokens => STANDING_MOST,
                Quota::Checks => CHECKS_MOST,
            };
            if limit == 0 || limit > most {
                return Err(wrong());
            }
            quotas.set(quota, limit);
        }
        Ok(quotas)
    }
}

fn number(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let unit = units
        .into_iter()
        .find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, bits)));
    let (digits, bits) = unit.unwrap_or((text, 0));
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_plain)?;
    number.checked_mul(1 << bits)
}

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
                "the token has asked third parties more than {limit} times a minute"
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

/// The use of one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub attestations: u64,
    pub bytes: u64,
}

impl Used {
    pub const fn attestation(bytes: u64) -> Self {
        Self {
            attestations: 1,
            bytes,
        }
    }

    pub const fn material(bytes: u64) -> Self {
        Self {
            attestations: 0,
            bytes,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            attestations: self.attestations.saturating_add(other.attestations),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// The quotas, and what one environment remembers of their use.
#[derive(Debug, Default)]
pub struct Meter {
    pub quotas: Quotas,
    readings: RefCell<BTreeMap<String, Reading>>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    read_at: Timestamp,
    used: Used,
}

impl Reading {
    fn is_fresh(&self, now: Timestamp) -> bool {
        now.since(self.read_at) < READ_EVERY && day(now) == day(self.read_at)
    }
}

impl Meter {
    pub fn new(quotas: Quotas) -> Self {
        Self {
            quotas,
            readings: RefCell::default(),
        }
    }

    fn remembered(&self, organization: &str, now: Timestamp) -> Option<Used> {
        let readings = self.readings.borrow();
        let reading = readings.get(organization)?;
        reading.is_fresh(now).then_some(reading.used)
    }

    fn remember(&self, organization: &str, now: Timestamp, used: Used) {
        let mut readings = self.readings.borrow_mut();
        readings.retain(|_, reading| reading.is_fresh(now));
        let reading = Reading { read_at: now, used };
        readings.insert(organization.to_owned(), reading);
    }

    fn raise(&self, organization: &str, by: Used) {
        if let Some(reading) = self.readings.borrow_mut().get_mut(organization) {
            reading.used = reading.used.plus(by);
        }
    }
}

fn day(now: Timestamp) -> u64 {
    now.secs() / DAY.as_secs()
}

/// Returns when the next day begins, in UTC.
pub fn resets_at(now: Timestamp) -> Timestamp {
    Timestamp::from_millis((day(now) + 1) * DAY.as_secs() * 1000)
}

fn at(organization: &str, shard: &str, now: Timestamp) -> Key {
    let date = &now.to_string()[..10];
    Key::new(format!("usage/{organization}/{shard}"), date)
}

/// Reads today's use from the table.
pub async fn used(platform: &impl Platform, organization: &str) -> Result<Used, Unreachable> {
    let now = platform.now();
    let keys: Vec<Key> = (0..SHARDS)
        .map(|shard| at(organization, &shard.to_string(), now))
        .collect();
    let rows = platform.get_many(&keys).await?;
    Ok(rows.iter().fold(Used::default(), |sum, row| {
        let number = |quota: Quota| {
            let number = row.get(quota.name());
            number
                .and_then(serde_json::Value::as_u64)
                .unwrap_or_default()
        };
        sum.plus(Used {
            attestations: number(Quota::Attestations),
            bytes: number(Quota::Bytes),
        })
    }))
}

/// Checks that there is room for something today.
pub async fn daily(
    platform: &impl Platform,
    organization: &str,
    wanted: Used,
) -> Result<(), Exceeded> {
    let (now, meter) = (platform.now(), platform.meter());
    let used = match meter.remembered(organization, now) {
        Some(used) => used,
        None => match used(platform, organization).await {
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
    ] {
        let limit = meter.quotas.of(quota);
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

/// Counts what was accepted. A count that fails is lost: what was accepted stays so.
pub async fn count(platform: &impl Platform, organization: &str, of: &Digest, used: Used) {
    let now = platform.now();
    platform.meter().raise(organization, used);
    let key = at(organization, &shard(&of.hex()), now);
    let amounts = [
        (Quota::Attestations.name(), used.attestations),
        (Quota::Bytes.name(), used.bytes),
    ];
    if let Err(unreachable) = platform.add(&key, &amounts, now.plus(KEPT)).await {
        warn!(error = %unreachable, "The use of quotas was not counted");
    }
}

/// Counts the rows of a kind that has one for each, up to the quota. Tokens whose time is over do not count.
pub async fn standing(
    platform: &impl Platform,
    organization: &str,
    quota: Quota,
) -> Result<u64, Unreachable> {
    let limit = platform.meter().quotas.of(quota);
    let Some(partition) = quota.partition(organization) else {
        return Ok(0);
    };
    let now = platform.now().to_string();
    let is_live = |item: &&crate::platform::Item| {
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
pub async fn room(platform: &impl Platform, organization: &str, quota: Quota) -> Result<(), Error> {
    let limit = platform.meter().quotas.of(quota);
    let used = standing(platform, organization, quota).await?;
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

    #[test]
    fn quotas_are_read_as_they_are_set_and_the_others_stay_as_usual() {
        let quotas: Quotas = "attestations=5, bytes=2GiB,checks=600".parse().unwrap();
        assert_eq!(
            quotas,
            Quotas {
                attestations: 5,
                bytes: 2 << 30,
                checks: 600,
                ..Quotas::default()
            }
        );
        assert_eq!("".parse(), Ok(Quotas::default()));
        for wrong in [
            "attestations",
            "attestations=",
            "attestations=many",
            "attestations=-1",
            "attestations=+1",
            "attestations=0",
            "bytes=1.5GiB",
            "bytes=99999999999TiB",
            "tokens=10001",
            "checks=6001",
            "pushes=1",
            "attestations=1;bytes=1",
        ] {
            assert!(wrong.parse::<Quotas>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_day_ends_at_midnight_in_utc() {
        let now: Timestamp = "2026-02-28T23:59:59.999Z".parse().unwrap();
        let next = resets_at(now);
        assert_eq!(next.to_string(), "2026-03-01T00:00:00.000Z");
        assert_eq!(resets_at(next).to_string(), "2026-03-02T00:00:00.000Z");
    }

    #[test]
    fn a_new_day_begins_with_nothing_used() {
        let memory = Memory::default();
        let run = |used| daily(&memory, "acme", used).now_or_never().unwrap();
        let all = Quotas::default().attestations;
        let used = Used {
            attestations: all,
            bytes: 0,
        };
        let digest = Digest::of(b"a");
        count(&memory, "acme", &digest, used)
            .now_or_never()
            .unwrap();
        let exceeded = run(Used::attestation(1)).unwrap_err();
        assert_eq!((exceeded.quota, exceeded.used), (Quota::Attestations, all));
        assert_eq!(run(Used::material(1)), Ok(()), "bytes are another quota");
        memory.advance(exceeded.retry_after.unwrap());
        assert_eq!(run(Used::attestation(1)), Ok(()));
    }
}
