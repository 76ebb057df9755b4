//! The pace at which a token may have third parties asked: registering, attaching, changing, testing and previewing
//! each invoke a delivery function that speaks to somebody else's server.
//!
//! A token bucket as one moment: each check moves it on by its share of a minute, and it may be ahead of the clock by a
//! whole burst (the generic cell rate algorithm). Refusals write nothing.

use std::time::Duration;

use api::Actor;

use crate::config::quotas::{Error, Exceeded};
use crate::store::meter::Quota;
use crate::store::platform::{Platform, Scope};
use crate::store::rows::{self, Changed, Paced};

/// The share of a minute's checks that may come at once.
const BURST: u64 = 3;

/// Takes one check of the token's.
pub async fn take(scope: Scope<'_, impl Platform>, actor: &Actor) -> Result<(), Error> {
    let (platform, organization) = scope.parts();
    let limit = platform.meter().quotas.of(Quota::Checks);
    let interval = Duration::from_mins(1) / u32::try_from(limit).unwrap_or(u32::MAX);
    let burst = u32::try_from((limit / BURST).max(1)).unwrap_or(u32::MAX);
    let exceeded = |after: Duration| {
        Error::Exceeded(Exceeded {
            quota: Quota::Checks,
            limit,
            used: limit,
            resets_at: None,
            retry_after: Some(after),
        })
    };
    let new = Paced {
        organization: organization.to_owned(),
        token: actor.id.clone(),
        taken_until: platform.now(),
    };
    // Only a check that was taken changes the row: who lost so many races has seen a whole burst taken by others.
    let tries = burst as usize + 1;
    let mut wait = Duration::ZERO;
    let changed = rows::change_or_insert(platform, new, tries, |row| {
        let now = platform.now();
        row.taken_until = row.taken_until.max(now).plus(interval);
        let ahead = row.taken_until.since(now);
        wait = ahead.saturating_sub(interval * burst);
        wait.is_zero().then(Vec::new)
    });
    match changed.await? {
        Changed::Written => Ok(()),
        Changed::Unchanged => Err(exceeded(wait)),
        Changed::Conflict => Err(exceeded(interval)),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::memory::Memory;

    fn taken(memory: &Memory, token: &str) -> Result<(), Duration> {
        let actor = Actor {
            id: token.into(),
            ..Actor::named("ci")
        };
        match take(Scope::new(memory, &"acme".into()), &actor)
            .now_or_never()
            .unwrap()
        {
            Ok(()) => Ok(()),
            Err(Error::Exceeded(exceeded)) => Err(exceeded.retry_after.unwrap()),
            Err(Error::Unreachable(unreachable)) => panic!("{unreachable}"),
        }
    }

    #[test]
    fn ten_checks_come_at_once_and_then_one_every_two_seconds() {
        let memory = Memory::default();
        for _ in 0..10 {
            assert_eq!(taken(&memory, "a"), Ok(()));
        }
        assert_eq!(taken(&memory, "a"), Err(Duration::from_secs(2)));
        assert_eq!(taken(&memory, "b"), Ok(()), "each token has its own");
        memory.advance(Duration::from_millis(1_500));
        assert_eq!(taken(&memory, "a"), Err(Duration::from_millis(500)));
        memory.advance(Duration::from_millis(500));
        assert_eq!(taken(&memory, "a"), Ok(()));
        assert_eq!(taken(&memory, "a"), Err(Duration::from_secs(2)));
        // However long nobody asks, no more than a burst is saved up.
        memory.advance(Duration::from_hours(1));
        assert_eq!((0..20).filter(|_| taken(&memory, "a").is_ok()).count(), 10);
    }

    #[test]
    fn a_refusal_writes_nothing() {
        let memory = Memory::default();
        while taken(&memory, "a").is_ok() {}
        let before = memory.writes.get();
        assert!(taken(&memory, "a").is_err());
        assert_eq!(memory.writes.get(), before);
    }
}
