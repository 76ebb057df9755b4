//! Numbers of what happened in one invocation, which become metrics.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// A counted event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Attestations that were accepted, and deliveries that were planned for them.
    Accepted,
    Planned,
    /// Outcomes of judging attestations' signatures, those that were refused among them.
    SignatureVerified,
    SignatureUnknown,
    SignatureUnverifiable,
    SignatureInvalid,
    /// Ends of deliveries.
    Delivered,
    Skipped,
    Failed,
    /// Attempts that another follows.
    Retried,
    /// Deliveries that wait for their paused registration.
    Held,
    /// Attempts answered 401 or 403, and 429.
    Unauthorized,
    RateLimited,
    /// Registrations that were paused because they failed.
    Paused,
}

impl Metric {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Planned => "Planned",
            Self::SignatureVerified => "SignatureVerified",
            Self::SignatureUnknown => "SignatureUnknown",
            Self::SignatureUnverifiable => "SignatureUnverifiable",
            Self::SignatureInvalid => "SignatureInvalid",
            Self::Delivered => "Delivered",
            Self::Skipped => "Skipped",
            Self::Failed => "Failed",
            Self::Retried => "Retried",
            Self::Held => "Held",
            Self::Unauthorized => "Unauthorized",
            Self::RateLimited => "RateLimited",
            Self::Paused => "Paused",
        }
    }
}

/// Subject of numbers: a registration of an integration; of the stack as a whole, where both are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    pub integration: String,
    /// Its ID.
    pub registration: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    pub counts: BTreeMap<Metric, u64>,
    /// Durations of attempts in milliseconds.
    pub durations_ms: Vec<u64>,
}

impl Numbers {
    pub fn merge(&mut self, other: Self) {
        for (metric, count) in other.counts {
            *self.counts.entry(metric).or_default() += count;
        }
        self.durations_ms.extend(other.durations_ms);
    }
}

/// Numbers of the invocation that is under way.
#[derive(Debug, Default)]
pub struct Counts(RefCell<BTreeMap<About, Numbers>>);

impl Counts {
    pub(crate) fn count(&self, about: About, metric: Metric, number: u64) {
        let mut all = self.0.borrow_mut();
        *all.entry(about)
            .or_default()
            .counts
            .entry(metric)
            .or_default() += number;
    }

    pub(crate) fn took(&self, about: About, millis: u64) {
        let mut all = self.0.borrow_mut();
        all.entry(about).or_default().durations_ms.push(millis);
    }

    /// Hands over the numbers, and begins anew.
    pub fn take(&self) -> BTreeMap<About, Numbers> {
        self.0.take()
    }
}
