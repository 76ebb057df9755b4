//! Asks what became of something after a third party accepted it: some import what they got when they have
//! time. The delivery is delivered and stays so; what is found out completes its receipt.
//!
//! A row says that somebody has to ask, and when at the latest; messages make it sooner. A lost message costs a
//! minute, and after ten of them nobody asks any more.

use std::time::Duration;

use api::{DeliveryId, Timestamp};
use integrations::{Error, Followed, Http, Integration, Kind, Registered};
use serde_json::{Map, Value, json};
use tracing::{info, warn};

use super::load::{self, Sent};
use super::tools::Tools;
use crate::engine::settle::send_poll;
use crate::ledger::message::Message;
use crate::ledger::schedule;
use crate::store::platform::{Key, Platform, Scope, UnlessConflict as _, Unreachable, within};
use crate::store::rows::{self, CompletionPoll, Delivery, Stored};

/// Receipt field for the result of the completion poll.
const COMPLETION: &str = "completion";
const REASON: &str = "completion_reason";

/// Timeout of one completion poll.
const PATIENCE: Duration = Duration::from_secs(15);

/// The row for a delivery that was just accepted, whose first message is sent in this moment.
pub(super) fn begin(delivery: &Delivery, now: Timestamp) -> CompletionPoll {
    CompletionPoll {
        organization: delivery.organization.clone(),
        delivery: delivery.id.clone(),
        integration: delivery.integration.clone(),
        polls: 0,
        started_at: now,
        wake_at: now.plus(schedule::poll_completion_after(0) + schedule::GRACE),
    }
}

/// Asks once, in a delivery function.
pub(super) async fn ask<I: Integration>(
    platform: &impl Platform,
    tools: &Tools,
    message: &Message,
) -> Result<(), Unreachable> {
    let (organization, id) = (&message.organization, &message.delivery);
    let Some(poll) = load(Scope::new(platform, organization), id).await? else {
        return Ok(());
    };
    let Some(delivery) = rows::load::<Delivery>(platform, &Delivery::at(organization, id)).await?
    else {
        return forget(platform, &poll).await;
    };
    let registration = &delivery.row.registration;
    let registration = match load::registration::<I>(
        Scope::new(platform, organization),
        &tools.secrets,
        registration,
        false,
    )
    .await
    {
        Ok((_, registration)) => registration,
        Err(Sent::Unreachable(unreachable)) => return Err(unreachable),
        Err(_) => {
            let receipt = unknown("its registration is gone");
            return end(platform, poll, delivery, receipt).await;
        }
    };
    let empty = Map::new();
    let receipt = delivery.row.receipt.as_ref().unwrap_or(&empty);
    match followed::<I>(platform, &tools.http, &registration, receipt).await {
        Ok(Followed::Over(receipt)) => end(platform, poll, delivery, receipt).await,
        Ok(Followed::UnderWay) => again(platform, poll, delivery, None).await,
        Err(error) => {
            warn!(delivery.id = %id, integration = I::ID, %error, "Could not follow up");
            match error.kind {
                Kind::Retryable { .. } | Kind::Indeterminate | Kind::Unauthorized => {
                    again(platform, poll, delivery, Some(error.text)).await
                }
                Kind::Permanent | Kind::Gone => {
                    end(platform, poll, delivery, unknown(&error.text)).await
                }
            }
        }
    }
}

async fn followed<I: Integration>(
    platform: &impl Platform,
    http: &Http,
    registration: &Registered<I>,
    receipt: &Map<String, Value>,
) -> Result<Followed, Error> {
    let asking = registration.follow(http, receipt);
    within(platform, PATIENCE, asking).await.unwrap_or_else(|| {
        let secs = PATIENCE.as_secs();
        let text = format!("get an answer within {secs} s");
        Err(Error::retryable(text))
    })
}

/// Resumes a completion poll that the reconciler finds due: its message was lost, or completion takes long.
pub(crate) async fn wake(platform: &impl Platform, key: &Key) -> Result<bool, Unreachable> {
    let Some(poll) = rows::load::<CompletionPoll>(platform, key).await? else {
        return Ok(false);
    };
    if poll.row.wake_at > platform.now() {
        return Ok(false);
    }
    let key = Delivery::at(&poll.row.organization, &poll.row.delivery);
    match rows::load::<Delivery>(platform, &key).await? {
        Some(delivery) => again(platform, poll, delivery, None).await?,
        None => forget(platform, &poll).await?,
    }
    Ok(true)
}

/// Asks later, unless it has taken too long already.
async fn again(
    platform: &impl Platform,
    mut poll: Stored<CompletionPoll>,
    delivery: Stored<Delivery>,
    why: Option<String>,
) -> Result<(), Unreachable> {
    let now = platform.now();
    if now.since(poll.row.started_at) >= schedule::FOLLOW_LONGEST {
        let minutes = schedule::FOLLOW_LONGEST.as_secs() / 60;
        let why = why.unwrap_or_else(|| format!("still under way after {minutes} minutes"));
        return end(platform, poll, delivery, unknown(&why)).await;
    }
    poll.row.polls += 1;
    let delay = schedule::poll_completion_after(poll.row.polls);
    poll.row.wake_at = now.plus(delay + schedule::GRACE);
    if poll.save_if_unchanged(platform).await? {
        send_poll(platform, &poll.row).await;
    }
    Ok(())
}

fn unknown(why: &str) -> Map<String, Value> {
    Map::from_iter([
        (COMPLETION.to_owned(), json!("unknown")),
        (REASON.to_owned(), json!(why)),
    ])
}

/// Completes the receipt, and asks no more.
async fn end(
    platform: &impl Platform,
    poll: Stored<CompletionPoll>,
    mut delivery: Stored<Delivery>,
    receipt: Map<String, Value>,
) -> Result<(), Unreachable> {
    let row = &mut delivery.row;
    row.receipt.get_or_insert_default().extend(receipt);
    row.updated_at = platform.now();
    let writes = vec![delivery.update(platform).0, poll.delete()];
    // In a conflict somebody else asked as well, and the row that is still there says who goes on.
    if platform.write(writes).await.unless_conflict()? {
        info!(delivery.id = %delivery.row.id, "Followed up");
    }
    Ok(())
}

async fn forget(
    platform: &impl Platform,
    poll: &Stored<CompletionPoll>,
) -> Result<(), Unreachable> {
    let deletion = vec![poll.delete()];
    platform.write(deletion).await.unless_conflict()?;
    Ok(())
}

async fn load(
    scope: Scope<'_, impl Platform>,
    delivery: &DeliveryId,
) -> Result<Option<Stored<CompletionPoll>>, Unreachable> {
    let (platform, organization) = scope.parts();
    rows::load::<CompletionPoll>(platform, &CompletionPoll::at(organization, delivery)).await
}
