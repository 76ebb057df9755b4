//! Delivers: claim, load, let the integration send, record, plan the next attempt, acknowledge.
//!
//! Records of a batch run side by side and separately: a panic, a poison message or a slow third party
//! costs only its own delivery. A message is given back to the queue for three reasons alone: the ledger could not be
//! reached, no time was left to begin, or another release wrote it.

pub(crate) mod completion_poll;
mod context;
mod load;
mod material;
pub mod presence;
pub mod preview;
mod room;
mod send;
mod tools;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::future::{self, Either, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use integrations::{About, Error, Integration, Kind};
use tracing::{error, info, warn};

use self::context::DeliveryContext;
use self::load::Sent;
use self::room::Room;
use self::send::send;
pub use self::tools::Tools;
use crate::engine::pauses;
use crate::engine::settle::{End, settle, settle_and_poll};
use crate::ledger::breaker::{self, Evidence, Postponed};
use crate::ledger::delivery;
use crate::ledger::message::{Message, Unreadable};
use crate::ledger::schedule::{self, Deadlines};
use crate::records::notices::{self, News};
use crate::store::counts::{About as Counted, Metric};
use crate::store::platform::{Key, Platform, Scope, UnlessConflict as _, Unreachable, WriteError};
use crate::store::rows::{
    self, Changed, Delivery, Event, Found, QuarantinedMessage, Registration, Stored,
};
use api::Timestamp;
use api::deliveries::State;

/// A message as the queue hands it over.
#[derive(Debug, Clone)]
pub struct Record {
    pub id: String,
    pub body: String,
}

/// Why a record goes back to its queue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GiveBack {
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("begin: no time is left in this invocation")]
    NoTime,
}

/// Delivers a batch; `until` is when this invocation ends. Answers with the ids of the records that the
/// queue must hand over again.
pub async fn batch<I: Integration>(
    platform: &impl Platform,
    tools: &Tools,
    records: Vec<Record>,
    until: Timestamp,
) -> Vec<String> {
    let room = &Room::default();
    let parsed: Vec<_> = records
        .iter()
        .map(|record| Message::parse(&record.body))
        .collect();
    let keys = parsed.iter().flatten().filter(|message| !message.follow);
    let found = &rows::find_many(platform, keys.map(delivery_at)).await;
    let mut running: FuturesUnordered<_> = records
        .into_iter()
        .zip(parsed)
        .map(|(record, message)| async move {
            let one = one::<I>(platform, tools, room, (&record, message), found, until);
            let outcome = AssertUnwindSafe(one).catch_unwind().await;
            match outcome {
                Ok(Ok(())) => None,
                Ok(Err(give_back)) => {
                    warn!(message.id = record.id, error = %give_back, "Gave a message back");
                    Some(record.id)
                }
                // The lease expires and the reconciler records the crash.
                Err(_panic) => {
                    error!(message.id = record.id, "Panicked outside of an attempt");
                    None
                }
            }
        })
        .collect();
    let mut back = Vec::new();
    while let Some(id) = running.next().await {
        back.extend(id);
    }
    back
}

fn delivery_at(message: &Message) -> Key {
    Delivery::at(&message.organization, &message.delivery)
}

async fn one<I: Integration>(
    platform: &impl Platform,
    tools: &Tools,
    room: &Room,
    (record, message): (&Record, Result<Message, Unreadable>),
    found: &Result<Found, Unreachable>,
    until: Timestamp,
) -> Result<(), GiveBack> {
    let message = match message {
        Ok(message) => message,
        Err(Unreadable::Malformed(why)) => return Ok(park(platform, I::ID, record, why).await?),
        Err(newer) => return Err(newer.into()),
    };
    let deadlines = Deadlines::of(I::TAKES_LONG);
    let began_at = platform.now();
    if until.since(began_at) < deadlines.attempt {
        return Err(GiveBack::NoTime);
    }
    if message.follow {
        return Ok(Box::pin(completion_poll::ask::<I>(platform, tools, &message)).await?);
    }
    let found = found.as_ref().map_err(Unreachable::clone)?;
    let Some(stored) = found.get::<Delivery>(&delivery_at(&message))? else {
        return Ok(park(platform, I::ID, record, "no such delivery".into()).await?);
    };
    if stored.row.integration != I::ID {
        return Ok(park(
            platform,
            I::ID,
            record,
            "it belongs to another integration".into(),
        )
        .await?);
    }
    let Some(mut claimed) = claim(platform, stored, message.attempt, deadlines.lease).await? else {
        return Ok(());
    };
    if platform.now() > claimed.row.give_up_at {
        let late = Postponed::Until(platform.now());
        let settled = delivery::later(&mut claimed.row, late, platform.now(), platform.random());
        return Ok(settle(platform, &claimed, settled).await?);
    }
    Ok(Box::pin(attempt::<I, _>(
        platform,
        tools,
        room,
        claimed,
        // What the table takes for the claim is no further time: the function ends when it ends.
        began_at.plus(deadlines.attempt),
    ))
    .await?)
}

/// Keeps a message that nobody could ever deliver, so that it can be looked at.
pub(crate) async fn park(
    platform: &impl Platform,
    integration: &str,
    record: &Record,
    reason: String,
) -> Result<(), Unreachable> {
    error!(message.id = record.id, reason, "Quarantined a message");
    let quarantined = QuarantinedMessage {
        integration: integration.to_owned(),
        message: record.id.clone(),
        reason,
        body: record.body.chars().take(4096).collect(),
        created_at: platform.now(),
    };
    let (write, _) = rows::insert(platform, &quarantined);
    platform.write(vec![write]).await.unless_conflict()?;
    Ok(())
}

/// Takes the delivery for one attempt, or says that there is nothing to do. In a conflict it is asked again: a
/// reconciler that has just sent this very message writes the row, too.
async fn claim(
    platform: &impl Platform,
    mut stored: Stored<Delivery>,
    attempt: u32,
    lease: Duration,
) -> Result<Option<Stored<Delivery>>, Unreachable> {
    let owner = format!("{:016x}", platform.random());
    let changed = rows::change(platform, &mut stored, |row| {
        if let Err(reason) = delivery::claim(row, attempt, &owner, platform.now(), lease) {
            info!(delivery.id = %row.id, attempt, ?reason, "Nothing to claim");
            return None;
        }
        Some(Vec::new())
    });
    let is_claimed = changed.await? == Changed::Written;
    Ok(is_claimed.then_some(stored))
}

async fn attempt<I: Integration, P: Platform>(
    platform: &P,
    tools: &Tools,
    room: &Room,
    mut claimed: Stored<Delivery>,
    until: Timestamp,
) -> Result<(), Unreachable> {
    let Some(reserved) = room.reserve(&claimed.row) else {
        // Waiting here would eat up the attempt's time.
        let (now, random) = (platform.now(), platform.random());
        let again = Postponed::Until(now.plus(Duration::from_millis(5_000 + random % 10_000)));
        let settled = delivery::later(&mut claimed.row, again, now, random);
        return settle(platform, &claimed, settled).await;
    };
    let deadline = until.since(platform.now());
    let context = DeliveryContext::new(platform, reserved, claimed, until);
    let http = tools.http.counting_anew();
    let sending = send::<I, P>(&context, &http, &tools.secrets);
    let sending = AssertUnwindSafe(sending).catch_unwind();
    let sending = future::select(Box::pin(sending), Box::pin(platform.sleep(deadline)));
    let sent = match sending.await {
        Either::Left((Ok(sent), _)) => sent,
        Either::Left((Err(_panic), _)) => {
            error!("An integration panicked");
            context.ours.set(true);
            Sent::Answered(Err(Error::retryable("finish: the integration panicked")))
        }
        Either::Right(((), _)) => Sent::Answered(Err(Error::new(
            Kind::Indeterminate,
            format!(
                "finish within {} s",
                Deadlines::of(I::TAKES_LONG).attempt.as_secs()
            ),
        )
        .about(About::Either))),
    };
    context.release_all().await;
    let mut stored = context.delivery.borrow().clone();
    let (now, random) = (platform.now(), platform.random());
    let row = &mut stored.row;
    let settled = match sent {
        Sent::Answered(mut result) => {
            let evidence = Evidence::of(&result);
            let is_retry = row.is_retry();
            if let Err(error) = &mut result {
                let accepted_at = context.destination.borrow().row.accepted_at;
                delivery::doubt(row, error, accepted_at, now);
                let source = error.source.as_ref().map(|source| chain(source.as_ref()));
                warn!(delivery.id = %row.id, integration = I::ID, %error, source, "Not delivered");
            }
            let settled = delivery::settle(row, result, http.wire(), now, random);
            let poll = (I::FOLLOWS && row.state == State::Delivered)
                .then(|| completion_poll::begin(row, now));
            let end = End {
                settled,
                poll,
                until,
            };
            settle_and_poll(platform, &stored, end, Vec::new()).await?;
            // The ledger first: should this be lost, the next attempt sees it too.
            if !context.ours.get() {
                let reason = stored.row.reason.unwrap_or_default();
                remember(&context, evidence, is_retry, reason).await?;
            }
            return Ok(());
        }
        Sent::Held(registration) => return hold(platform, stored, *registration).await,
        Sent::Gone(reason) => delivery::cancel(row, reason, now),
        Sent::Waits(reason) => delivery::wait(row, reason, now),
        Sent::Postponed(later) => delivery::later(row, later, now, random),
        // The claim stands; should this go on, its lease expires and the attempt counts as crashed.
        Sent::Unreachable(unreachable) => {
            let why = Error::retryable(unreachable.to_string());
            delivery::settle(row, Err(why), http.wire(), now, random)
        }
    };
    settle(platform, &stored, settled).await
}

/// Keeps what an attempt says of its destination, and pauses a registration that is gone or has failed for a day.
async fn remember<P: Platform>(
    context: &DeliveryContext<'_, P>,
    evidence: Evidence,
    is_retry: bool,
    reason: String,
) -> Result<(), Unreachable> {
    let now = context.platform.now();
    if let Evidence::DownForAll(after) = evidence {
        return context.close_for_all(after).await;
    }
    let mut has_failed_too_long = false;
    let (mut was_down, mut is_down) = (false, false);
    // In a conflict it is read again: what somebody else saw since then counts as well.
    let learned = context.change_destination(|row| {
        was_down = breaker::is_down(row);
        has_failed_too_long = breaker::learn(row, evidence, is_retry, now);
        is_down = breaker::is_down(row);
    });
    learned.await?;
    if was_down != is_down {
        tell_of_circuit(context, is_down, reason).await;
    }
    if has_failed_too_long {
        let reason = match evidence {
            Evidence::Gone => "the third party says that it is gone".to_owned(),
            _ => {
                let hours = schedule::FAILING.as_secs() / 3_600;
                format!("every attempt failed for {hours} hours")
            }
        };
        let tried = context.registration.borrow().clone();
        let Some(tried) = tried else { return Ok(()) };
        let scope = Scope::new(context.platform, &tried.organization);
        pauses::fail(scope, &tried, reason).await?;
    }
    Ok(())
}

async fn tell_of_circuit<P: Platform>(
    context: &DeliveryContext<'_, P>,
    is_down: bool,
    reason: String,
) {
    let delivery = context.delivery.borrow().row.clone();
    let event = match is_down {
        true => Event::CircuitOpen,
        false => Event::CircuitClosed,
    };
    let news = News {
        subject: delivery.registration.to_string(),
        detail: reason,
        delivery: Some(delivery.id),
        ..News::default()
    };
    let scope = Scope::new(context.platform, &delivery.organization);
    notices::note(scope, event, news).await;
}

/// Holds a delivery while its registration is paused, and not if that has just been resumed: whoever drains
/// it would not find this one.
async fn hold(
    platform: &impl Platform,
    claimed: Stored<Delivery>,
    registration: Stored<Registration>,
) -> Result<(), Unreachable> {
    let now = platform.now();
    let why = registration
        .row
        .paused
        .as_ref()
        .map(|pause| pause.reason.as_str());
    let mut held = claimed.clone();
    let reason = format!("its registration is paused: {}", why.unwrap_or_default());
    delivery::hold(&mut held.row, reason, now);
    match platform
        .write(vec![held.update(platform).0, registration.check()])
        .await
    {
        Ok(()) => {
            info!(delivery.id = %held.row.id, "Held");
            let about = Counted {
                integration: held.row.integration,
                registration: held.row.registration.to_string(),
            };
            platform.meter().counts.count(about, Metric::Held, 1);
            Ok(())
        }
        // Many that are held in one moment meet at the registration's row, and some do not come through. Should it have
        // been written all the same, this is not.
        Err(WriteError::Conflict | WriteError::Unreachable(_)) => {
            let mut again = claimed;
            let random = platform.random();
            let pause = Duration::from_millis(5_000 + random % 5_000);
            let settled = delivery::later(
                &mut again.row,
                Postponed::Until(now.plus(pause)),
                now,
                random,
            );
            settle(platform, &again, settled).await
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
