//! Makes one attempt: loads, asks the destination's breaker, and lets the integration send.

use std::time::Duration;

use futures_util::future;
use integrations::{Error, Http, Integration, Kind, Outcome};

use super::context::DeliveryContext;
use super::load::{Loaded, Prepared, Sent, Subject, load};
use crate::config::secrets::Secrets;
use crate::engine::signatures::{self, Proof};
use crate::ledger::breaker::{self, Admission, Postponed};
use crate::ledger::schedule::{HEAVY_BYTES, PATIENCE, SENDING};
use crate::store::platform::Platform;
use crate::store::rows::{self, Delivery, Registration};

pub(super) async fn send<I: Integration, P: Platform>(
    context: &DeliveryContext<'_, P>,
    http: &Http,
    secrets: &Secrets,
) -> Sent {
    match try_send::<I, P>(context, http, secrets).await {
        Ok(outcome) => Sent::Answered(Ok(outcome)),
        Err(sent) => sent,
    }
}

async fn try_send<I: Integration, P: Platform>(
    context: &DeliveryContext<'_, P>,
    http: &Http,
    secrets: &Secrets,
) -> Result<Outcome, Sent> {
    let prepared = prepare::<I, P>(context, secrets, false).await?;
    admit::<I, P>(context, &prepared).await?;
    let first = deliver::<I, P>(context, http, &prepared).await;
    if !matches!(&first, Err(error) if error.kind == Kind::Unauthorized) {
        return Ok(first?);
    }
    // The secret may have been rotated since it was read: once more, with what it is now. There is room for one.
    drop(prepared);
    let prepared = prepare::<I, P>(context, secrets, true).await?;
    Ok(deliver::<I, P>(context, http, &prepared).await?)
}

/// Waits for its turn at the destination, or says when to come again.
async fn admit<I: Integration, P: Platform>(
    context: &DeliveryContext<'_, P>,
    prepared: &Prepared<I>,
) -> Result<(), Sent> {
    if let Some(until) = context.shut_for_all::<I>().await? {
        return Err(Sent::Postponed(Postponed::Open(until)));
    }
    let interval = I::interval(&prepared.registration.inputs);
    let (is_retry, has_reservation) = {
        let row = &context.delivery.borrow().row;
        (row.is_retry(), row.has_reservation)
    };
    let platform = context.platform;
    let admission = context.change_destination(|row| {
        breaker::admit(row, interval, is_retry, has_reservation, platform.now())
    });
    match admission.await? {
        Some(Admission::Now) => Ok(()),
        Some(Admission::Wait(wait)) => {
            platform.sleep(wait).await;
            Ok(())
        }
        Some(Admission::Postponed(later)) => Err(Sent::Postponed(later)),
        // Many want to go through at once: later, each at another time.
        None => {
            let soon = Duration::from_millis(1_000 + platform.random() % 4_000);
            let until = platform.now().plus(soon);
            Err(Sent::Postponed(Postponed::Until(until)))
        }
    }
}

async fn prepare<I: Integration, P: Platform>(
    context: &DeliveryContext<'_, P>,
    secrets: &Secrets,
    fresh: bool,
) -> Result<Prepared<I>, Sent> {
    // Until all is there, whatever takes long or fails is ours.
    context.ours.set(true);
    let delivery = context.delivery.borrow().row.clone();
    let loading = Box::pin(load::<I>(
        context.platform,
        secrets,
        fresh,
        Subject::of(&delivery),
        Some(context.destination_key()),
    ));
    let (loaded, read) = future::join(loading, context.read_steps()).await;
    let Loaded {
        registration,
        attachment,
        judged,
        prepared,
        found,
    } = match loaded {
        Ok(loaded) => loaded,
        Err(gone @ Sent::Gone(_)) => return Err(gone),
        Err(error) => return Err(held(context, &delivery).await.unwrap_or(error)),
    };
    context.take_destination(&found)?;
    if registration.row.paused.is_some() {
        return Err(Sent::Held(Box::new(registration)));
    }
    context.registration.replace(Some(registration.row));
    read?;
    let patience = attachment.wait_secs.map_or(PATIENCE, Duration::from_secs);
    if let Some(row) = &judged {
        let began = (delivery.created_at, patience);
        match signatures::proof(row, began, context.platform.now()) {
            Proof::Given => {}
            Proof::Awaited => return Err(Sent::Waits("waiting for its signature".to_owned())),
            Proof::Lacking => return Err(Error::permanent(signatures::lacking(row)).into()),
        }
    }
    if let Some(absent) = prepared.missing.first()
        && context.platform.now() < delivery.created_at.plus(patience)
        && let Some(digest) = absent.digest
    {
        let reason = format!("waiting for {digest}, which is not uploaded yet");
        return Err(Sent::Waits(reason));
    }
    context.ours.set(false);
    Ok(prepared)
}

/// A delivery is held where its registration is paused, also where it cannot be loaded: whoever paused it, perhaps for
/// this very reason, stopped its clock.
async fn held(context: &DeliveryContext<'_, impl Platform>, delivery: &Delivery) -> Option<Sent> {
    let at = Registration::at(&delivery.organization, &delivery.registration);
    let found = rows::load::<Registration>(context.platform, &at).await;
    let registration = found.ok().flatten()?;
    registration
        .row
        .paused
        .is_some()
        .then(|| Sent::Held(Box::new(registration)))
}

async fn deliver<I: Integration, P: Platform>(
    context: &DeliveryContext<'_, P>,
    http: &Http,
    prepared: &Prepared<I>,
) -> Result<Outcome, Error> {
    if let Some(reason) = prepared.nothing() {
        return Ok(Outcome::Skipped(reason));
    }
    if context.until.since(context.platform.now()) < SENDING {
        let delay = Duration::from_millis(5_000 + context.platform.random() % 10_000);
        let reason = "no time was left to send it".to_owned();
        return Ok(Outcome::ContinueAfter { delay, reason });
    }
    let row = context.delivery.borrow().row.clone();
    let progress = context.progress();
    let trace = row.trace_of(row.attempt);
    let delivery = prepared.delivery(&row.id, row.attempt, &row.workflow, &progress, trace);
    // Ten large ones side by side would not fit into the function's memory. Waiting here would eat up the
    // attempt's time.
    if prepared.size_bytes > HEAVY_BYTES && !context.reserved.is_enough_for_much() {
        let delay = Duration::from_millis(5_000 + context.platform.random() % 10_000);
        let reason = "another large delivery was under way".to_owned();
        return Ok(Outcome::ContinueAfter { delay, reason });
    }
    prepared
        .registration
        .deliver(http, context, &delivery)
        .await
}
