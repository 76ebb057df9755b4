//! Health of a registration: how its deliveries of the last day stand, and whether its circuit is open.

use std::time::Duration;

use api::deliveries::State;
use api::registrations::{Circuit, CircuitState, Health, Hour};
use api::{RegistrationId, Timestamp};

use crate::engine::deliveries::{self, Filter, Wanted};
use crate::store::platform::{Platform, Scope, Unreachable};
use crate::store::rows::{self, Delivery, Destination};

/// Hours that are counted: a day.
const HOURS: usize = 24;
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// Maximum number of deliveries that are read.
pub const MOST: usize = 1_000;
/// Deliveries that are held at a time: the receipt of each may have 128 KiB.
const PAGE: usize = 50;

/// Reads the deliveries of the last day, the newest thousand at most, and the state of the destination.
pub async fn health(
    scope: Scope<'_, impl Platform>,
    registration: &RegistrationId,
    integration: &str,
) -> Result<Health, Unreachable> {
    let now = scope.platform.now();
    let found = standings(scope, &[(registration, integration)]).await?;
    let [(circuit, failing_since)] = found.try_into().expect("one each");
    let mut health = Health {
        circuit,
        failing_since,
        delivered_at: None,
        failed_at: None,
        hours: vec![Hour::default(); HOURS],
        has_more: false,
    };
    let wanted = Wanted {
        since: Some(now.minus(DAY)),
        ..Wanted::default()
    };
    let (mut read, mut cursor) = (0, None);
    loop {
        let of = Filter::Registration(registration.clone());
        let (page, next) = deliveries::list(scope, of, &wanted, cursor.as_ref(), PAGE).await?;
        read += page.len();
        for delivery in &page {
            count(&mut health, delivery, now);
        }
        match next {
            Some(next) if read < MOST => cursor = Some(next),
            next => {
                health.has_more = next.is_some();
                return Ok(health);
            }
        }
    }
}

/// Reads the circuits of these registrations, each with its integration, in their order; and since when what they deliver
/// to fails.
pub async fn standings(
    scope: Scope<'_, impl Platform>,
    of: &[(&RegistrationId, &str)],
) -> Result<Vec<(Circuit, Option<Timestamp>)>, Unreachable> {
    let (platform, organization) = scope.parts();
    let now = platform.now();
    let keys = of.iter().map(|(registration, integration)| {
        let own = Destination::at(organization, registration);
        (own, Destination::at(&"*".into(), &(*integration).into()))
    });
    let keys: Vec<_> = keys.collect();
    let all = keys.iter().flat_map(|(own, all)| [own, all]);
    let found = rows::find_many(platform, all.cloned()).await?;
    let standings = keys.iter().map(|(own, all)| {
        let own = found.get::<Destination>(own)?.map(|stored| stored.row);
        let all = found.get::<Destination>(all)?.map(|stored| stored.row);
        let failing_since = own.as_ref().and_then(|row| row.failing_since);
        // Nothing closes the one for all: it is over when its time is.
        let all = all.filter(|row| row.open_until.is_some_and(|until| until > now));
        let open_until = [own, all].into_iter().flatten();
        let open_until = open_until.filter_map(|row| row.open_until).max();
        Ok((circuit(open_until, now), failing_since))
    });
    standings.collect()
}

fn count(health: &mut Health, delivery: &Delivery, now: Timestamp) {
    let ago = now.since(delivery.created_at).as_secs() / HOUR.as_secs();
    let at = HOURS - 1 - usize::try_from(ago).unwrap_or(HOURS).min(HOURS - 1);
    let hour = &mut health.hours[at];
    *match delivery.state {
        State::Delivered => &mut hour.delivered,
        State::Failed => &mut hour.failed,
        State::Pending | State::Delivering => &mut hour.open,
        State::Skipped | State::Cancelled => &mut hour.other,
    } += 1;
    let last = match delivery.state {
        State::Delivered => &mut health.delivered_at,
        State::Failed => &mut health.failed_at,
        _ => return,
    };
    *last = (*last).max(Some(delivery.updated_at));
}

fn circuit(open_until: Option<Timestamp>, now: Timestamp) -> Circuit {
    let state = match open_until {
        None => CircuitState::Closed,
        Some(until) if until > now => CircuitState::Open,
        Some(_) => CircuitState::HalfOpen,
    };
    Circuit {
        state,
        open_until: open_until.filter(|until| *until > now),
    }
}
