//! Health of a registration: how its deliveries of the last day stand, and whether its circuit is open.

use std::time::Duration;

use api::deliveries::State;
use api::registrations::{Circuit, CircuitState, Health, Hour};
use api::{RegistrationId, Timestamp};
use futures_util::future::try_join3;

use crate::engine::deliveries::{self, Filter, Wanted};
use crate::store::platform::{Platform, Scope, Unreachable};
use crate::store::rows::{self, Delivery, Destination};

/// Hours that are counted.
const HOURS: usize = 24;
const HOUR: Duration = Duration::from_hours(1);
/// Maximum number of deliveries that are read.
pub const MOST: usize = 1_000;
const PAGE: usize = 250;

/// Reads the deliveries of the last day, the newest thousand at most, and the state of the destination.
pub async fn health(
    scope: Scope<'_, impl Platform>,
    registration: &RegistrationId,
    integration: &str,
) -> Result<Health, Unreachable> {
    let (platform, organization) = scope.parts();
    let now = platform.now();
    let since = now.minus(HOUR * 24);
    let own = Destination::at(organization, registration);
    let all = Destination::at(&"*".into(), &integration.into());
    let (own, all, (read, has_more)) = try_join3(
        rows::load::<Destination>(platform, &own),
        rows::load::<Destination>(platform, &all),
        newest(scope, registration, since),
    )
    .await?;
    let own = own.map(|stored| stored.row);
    let open_until = [own.clone(), all.map(|stored| stored.row)];
    let open_until = open_until
        .into_iter()
        .flatten()
        .filter_map(|row| row.open_until);
    let mut health = Health {
        circuit: circuit(open_until.max(), now),
        failing_since: own.and_then(|row| row.failing_since),
        delivered_at: ended(&read, State::Delivered),
        failed_at: ended(&read, State::Failed),
        hours: vec![Hour::default(); HOURS],
        has_more,
    };
    for delivery in &read {
        let ago = now.since(delivery.created_at).as_secs() / HOUR.as_secs();
        let at = HOURS - 1 - usize::try_from(ago).unwrap_or(HOURS).min(HOURS - 1);
        let hour = &mut health.hours[at];
        *match delivery.state {
            State::Delivered => &mut hour.delivered,
            State::Failed => &mut hour.failed,
            State::Pending | State::Delivering => &mut hour.open,
            State::Skipped | State::Cancelled => &mut hour.other,
        } += 1;
    }
    Ok(health)
}

/// The newest deliveries that were created since then, and whether there are more of them.
async fn newest(
    scope: Scope<'_, impl Platform>,
    registration: &RegistrationId,
    since: Timestamp,
) -> Result<(Vec<Delivery>, bool), Unreachable> {
    let wanted = Wanted {
        since: Some(since),
        ..Wanted::default()
    };
    let (mut read, mut cursor) = (Vec::new(), None);
    loop {
        let of = Filter::Registration(registration.clone());
        let (page, next) = deliveries::list(scope, of, &wanted, cursor.as_ref(), PAGE).await?;
        read.extend(page);
        match next {
            Some(next) if read.len() < MOST => cursor = Some(next),
            next => return Ok((read, next.is_some())),
        }
    }
}

/// When the last of the deliveries ended so.
fn ended(read: &[Delivery], state: State) -> Option<Timestamp> {
    let own = read.iter().filter(|delivery| delivery.state == state);
    own.map(|delivery| delivery.updated_at).max()
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
