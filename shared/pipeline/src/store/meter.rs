//! Quotas as they are set, and what one environment remembers of their use.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use api::{OrganizationName, Timestamp};

use crate::store::counts::Counts;
use crate::store::spans::Spans;

/// Time for which an environment believes what it has read of the others' use.
pub const READ_EVERY: Duration = Duration::from_secs(10);

pub(crate) const DAY: Duration = Duration::from_hours(24);

/// The most of a kind that an organization may have: they are counted row by row.
const STANDING_MOST: u64 = 10_000;

/// A hundred a second: moments are told apart by milliseconds.
const CHECKS_MOST: u64 = 6_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// A day.
    Attestations,
    /// A day, of attestations and materials.
    Bytes,
    Registrations,
    Intakes,
    Tokens,
    /// A day, of JWTs and tokens for tokens.
    Exchanges,
    Policies,
    /// A minute, of each token: see [`pace`](crate::config::pace).
    Checks,
}

impl Quota {
    pub const ALL: [Self; 8] = [
        Self::Attestations,
        Self::Bytes,
        Self::Registrations,
        Self::Intakes,
        Self::Tokens,
        Self::Exchanges,
        Self::Policies,
        Self::Checks,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Attestations => "attestations",
            Self::Bytes => "bytes",
            Self::Registrations => "registrations",
            Self::Intakes => "intakes",
            Self::Tokens => "tokens",
            Self::Exchanges => "exchanges",
            Self::Policies => "policies",
            Self::Checks => "checks",
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
    pub exchanges: u64,
    pub policies: u64,
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
            exchanges: 10_000,
            policies: 100,
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
            Quota::Exchanges => self.exchanges,
            Quota::Policies => self.policies,
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
            Quota::Exchanges => &mut self.exchanges,
            Quota::Policies => &mut self.policies,
            Quota::Checks => &mut self.checks,
        };
        *field = limit;
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a quota as in attestations=100000,bytes=100GiB,registrations=1000,intakes=100,tokens=1000,exchanges=10000,policies=100,checks=30"
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
                Quota::Attestations | Quota::Bytes | Quota::Exchanges => u64::MAX,
                Quota::Registrations | Quota::Intakes | Quota::Tokens | Quota::Policies => {
                    STANDING_MOST
                }
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

/// The use of one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub attestations: u64,
    pub bytes: u64,
    pub exchanges: u64,
}

impl Used {
    pub const EXCHANGE: Self = Self {
        attestations: 0,
        bytes: 0,
        exchanges: 1,
    };

    pub const fn attestation(bytes: u64) -> Self {
        Self {
            attestations: 1,
            bytes,
            exchanges: 0,
        }
    }

    pub const fn material(bytes: u64) -> Self {
        Self {
            attestations: 0,
            bytes,
            exchanges: 0,
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            attestations: self.attestations.saturating_add(other.attestations),
            bytes: self.bytes.saturating_add(other.bytes),
            exchanges: self.exchanges.saturating_add(other.exchanges),
        }
    }
}

/// The quotas, and what one environment remembers of their use.
#[derive(Debug, Default)]
pub struct Meter {
    pub quotas: Quotas,
    pub counts: Counts,
    pub spans: Spans,
    told: RefCell<BTreeSet<String>>,
    readings: RefCell<BTreeMap<OrganizationName, Reading>>,
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
            counts: Counts::default(),
            spans: Spans::default(),
            told: RefCell::default(),
            readings: RefCell::default(),
        }
    }

    pub(crate) fn remembered(
        &self,
        organization: &OrganizationName,
        now: Timestamp,
    ) -> Option<Used> {
        let readings = self.readings.borrow();
        let reading = readings.get(organization)?;
        reading.is_fresh(now).then_some(reading.used)
    }

    pub(crate) fn remember(&self, organization: &OrganizationName, now: Timestamp, used: Used) {
        let mut readings = self.readings.borrow_mut();
        readings.retain(|_, reading| reading.is_fresh(now));
        let reading = Reading { read_at: now, used };
        readings.insert(organization.to_owned(), reading);
    }

    /// Reports whether this is the first time that it is asked about this.
    pub(crate) fn is_news(&self, what: &str) -> bool {
        self.told.borrow_mut().insert(what.to_owned())
    }

    pub(crate) fn raise(&self, organization: &OrganizationName, by: Used) {
        if let Some(reading) = self.readings.borrow_mut().get_mut(organization) {
            reading.used = reading.used.plus(by);
        }
    }
}

pub(crate) fn day(now: Timestamp) -> u64 {
    now.secs() / DAY.as_secs()
}

/// Returns when the next day begins, in UTC.
pub fn resets_at(now: Timestamp) -> Timestamp {
    Timestamp::from_millis((day(now) + 1) * DAY.as_secs() * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
