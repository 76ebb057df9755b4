//! Asks a third party whether it still has what was delivered.

use integrations::{Integration, Presence};

use super::load::{Sent, registration};
use super::tools::Tools;
use crate::config::check::{PATIENCE, PresenceCheck};
use crate::store::platform::{Platform, Scope, Unreachable, within};
use crate::store::rows::{self, Delivery};

/// Answers a [`PresenceCheck`] for one integration. The presence is unknown if the third party could not be asked.
pub async fn presence<I: Integration>(
    platform: &impl Platform,
    tools: &Tools,
    check: PresenceCheck,
) -> Result<Presence, Unreachable> {
    let asking = asked::<I>(platform, tools, check);
    within(platform, PATIENCE, asking).await.unwrap_or_else(|| {
        let secs = PATIENCE.as_secs();
        let text = format!("the third party did not answer within {secs} s");
        Ok(Presence::unknown(text))
    })
}

async fn asked<I: Integration>(
    platform: &impl Platform,
    tools: &Tools,
    check: PresenceCheck,
) -> Result<Presence, Unreachable> {
    let scope = Scope::new(platform, &check.organization);
    let key = Delivery::at(&check.organization, &check.delivery);
    let Some(delivery) = rows::load::<Delivery>(platform, &key).await? else {
        return Ok(Presence::unknown("there is no such delivery"));
    };
    let delivery = delivery.row;
    let loaded = registration::<I>(scope, &tools.secrets, &delivery.registration, false).await;
    let failed = |text: String| Ok(Presence::unknown(format!("failed to {text}")));
    let registration = match loaded {
        Ok((_, registration)) => registration,
        Err(Sent::Unreachable(unreachable)) => return Err(unreachable),
        Err(Sent::Gone(reason)) => return Ok(Presence::unknown(reason)),
        Err(Sent::Answered(Err(error))) => return failed(error.text),
        Err(_) => return failed("load its registration".to_owned()),
    };
    let receipt = delivery.receipt.unwrap_or_default();
    let found = registration.look_for(&tools.http, &receipt).await;
    found.or_else(|error| failed(error.text))
}
