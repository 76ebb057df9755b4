//! Records what an attempt led to, and sends the messages that follow from it.

use std::time::Duration;

use api::deliveries::{AttemptOutcome, State};
use api::{Timestamp, Trace};
use serde_json::json;
use tracing::{info, warn};

use crate::ledger::delivery::Settled;
use crate::ledger::message::Message;
use crate::ledger::schedule;
use crate::records::notices::{self, News};
use crate::store::counts::{About, Counts, Metric};
use crate::store::platform::{Platform, Scope, UnlessConflict as _, Unreachable, Write};
use crate::store::rows::{self, Attempt, CompletionPoll, Delivery, Event, Stored, Version};
use crate::store::spans::{Kind, Span, Spans};

/// Writes what an attempt led to in one transaction, and then sends the next one's message.
pub(crate) async fn settle(
    platform: &impl Platform,
    stored: &Stored<Delivery>,
    settled: Settled,
) -> Result<(), Unreachable> {
    settle_with(platform, stored, settled, Vec::new()).await
}

/// As [`settle`], with what is written in the same transaction.
pub(crate) async fn settle_with(
    platform: &impl Platform,
    stored: &Stored<Delivery>,
    settled: Settled,
    beside: Vec<Write>,
) -> Result<(), Unreachable> {
    // Boxed, as all that stands deep below a request: the compiler lays out no deeper.
    let end = End {
        settled,
        poll: None,
        until: platform.now(),
    };
    Box::pin(settle_and_poll(platform, stored, end, beside)).await
}

/// End of an attempt.
pub(crate) struct End {
    pub(crate) settled: Settled,
    pub(crate) poll: Option<CompletionPoll>,
    /// Time until which a record that the table did not take is written again.
    pub(crate) until: Timestamp,
}

/// Writes in one transaction, and again while there is time: what was sent would be sent twice if the ledger did not know.
/// Returns `false` when another writer was first.
async fn record(
    platform: &impl Platform,
    (delivery, version): (&Delivery, &Version),
    writes: Vec<Write>,
    until: Timestamp,
) -> Result<bool, Unreachable> {
    let mut before = None;
    loop {
        let again_at = platform.now().plus(schedule::RECORD_AGAIN);
        match (
            platform.write(writes.clone()).await.unless_conflict(),
            before,
        ) {
            (Ok(false), Some(unreachable)) => {
                // An answer may have been lost, and nothing else.
                let at = Delivery::at(&delivery.organization, &delivery.id);
                return match rows::load::<Delivery>(platform, &at).await? {
                    Some(now) if now.version.etag == version.etag => Ok(true),
                    // Of a step: the attempt is still under way, as far as the ledger knows.
                    Some(now) if now.row.state == State::Delivering => Err(unreachable),
                    _ => Ok(false),
                };
            }
            (Err(unreachable), _) if again_at.plus(schedule::RECORDING) < until => {
                warn!(delivery.id = %delivery.id, error = %unreachable, "Records an attempt again");
                before = Some(unreachable);
                platform.sleep(schedule::RECORD_AGAIN).await;
            }
            (written, _) => return written,
        }
    }
}

pub(crate) async fn settle_and_poll(
    platform: &impl Platform,
    stored: &Stored<Delivery>,
    end: End,
    beside: Vec<Write>,
) -> Result<(), Unreachable> {
    let End {
        settled,
        poll,
        until,
    } = end;
    let delivery = &stored.row;
    let (write, version) = stored.update(platform);
    let mut writes = beside;
    writes.push(write);
    // The last one is in the delivery's row.
    if let Some(attempt) = &settled.attempt
        && !delivery.state.is_final()
    {
        writes.push(rows::insert(platform, attempt).0);
    }
    if let Some(poll) = &poll {
        writes.push(rows::insert(platform, poll).0);
    }
    if !record(platform, (delivery, &version), writes, until).await? {
        // The lease expired, and the reconciler took the delivery over.
        warn!(
            delivery.id = %delivery.id,
            "An attempt ended too late to be recorded"
        );
        return Ok(());
    }
    info!(
        delivery.id = %delivery.id,
        integration = delivery.integration,
        attempt = settled.attempt.as_ref().map(|attempt| attempt.number),
        state = ?delivery.state,
        reason = delivery.reason,
        trace.id = delivery.trace.as_ref().map(Trace::id),
        "Recorded"
    );
    count(&platform.meter().counts, delivery, settled.attempt.as_ref());
    if let Some(attempt) = &settled.attempt {
        trace(&platform.meter().spans, delivery, attempt);
    }
    if delivery.state == State::Failed {
        tell_of_failure(platform, delivery, settled.attempt.as_ref()).await;
    }
    if let Some(delay) = settled.send_after {
        resend(platform, delivery, delay).await;
    }
    if let Some(poll) = &poll {
        send_poll(platform, poll).await;
    }
    Ok(())
}

/// Counts what became of an attempt, or of a delivery whose time was over without one.
fn count(counts: &Counts, delivery: &Delivery, attempt: Option<&Attempt>) {
    let end = match (delivery.state, attempt.map(|attempt| attempt.report.ending)) {
        (State::Failed, _) => Some(Metric::Failed),
        (State::Delivered, Some(_)) => Some(Metric::Delivered),
        (State::Skipped, Some(_)) => Some(Metric::Skipped),
        (_, None | Some(AttemptOutcome::Cancelled)) => None,
        _ => Some(Metric::Retried),
    };
    let status = match attempt.and_then(|attempt| attempt.report.status) {
        Some(401 | 403) => Some(Metric::Unauthorized),
        Some(429) => Some(Metric::RateLimited),
        _ => None,
    };
    let about = || About {
        integration: delivery.integration.clone(),
        registration: delivery.registration.to_string(),
    };
    for metric in end.into_iter().chain(status) {
        counts.count(about(), metric, 1);
    }
    if let Some(attempt) = attempt {
        counts.took(about(), attempt.report.duration_ms);
    }
}

/// Keeps the attempt as a span of the sender's trace. Names are those of OpenTelemetry's semantic conventions, where it
/// has some: <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>.
fn trace(spans: &Spans, delivery: &Delivery, attempt: &Attempt) {
    let report = &attempt.report;
    let (Some(parent), Some(trace)) = (delivery.trace, delivery.trace_of(attempt.number)) else {
        return;
    };
    if !spans.wants(&parent) {
        return;
    }
    let failure = match report.ending {
        AttemptOutcome::Delivered | AttemptOutcome::Skipped | AttemptOutcome::Cancelled => None,
        _ => Some(report.detail.clone().unwrap_or_default()),
    };
    let mut attributes = vec![
        ("messaging.system", "aws_sqs".into()),
        ("messaging.operation.type", "process".into()),
        (
            "chainloop.organization",
            delivery.organization.as_str().into(),
        ),
        ("chainloop.delivery", delivery.id.as_str().into()),
        (
            "chainloop.registration",
            delivery.registration.as_str().into(),
        ),
        ("chainloop.attempt", attempt.number.into()),
        ("chainloop.ending", json!(report.ending)),
    ];
    if let Some(status) = report.status {
        attributes.push(("chainloop.status", status.into()));
    }
    let took = Duration::from_millis(report.duration_ms);
    spans.add(Span {
        trace,
        parent,
        name: format!("deliver {}", delivery.integration),
        kind: Kind::Consumer,
        began_at: report.started_at,
        ended_at: report.started_at.plus(took),
        attributes,
        failure,
    });
}

async fn tell_of_failure(platform: &impl Platform, delivery: &Delivery, attempt: Option<&Attempt>) {
    let is_refused =
        attempt.is_some_and(|attempt| attempt.report.ending == AttemptOutcome::Permanent);
    let event = match is_refused {
        true => Event::DeliveryFailed,
        false => Event::RetriesExhausted,
    };
    let news = News {
        subject: delivery.registration.to_string(),
        detail: delivery.reason.clone().unwrap_or_default(),
        delivery: Some(delivery.id.clone()),
        ..News::default()
    };
    let scope = Scope::new(platform, &delivery.organization);
    notices::note(scope, event, news).await;
}

/// Sends the message for a delivery's next attempt. Whether it was sent: if not, its `wake_at` finds it.
pub(crate) async fn resend(platform: &impl Platform, delivery: &Delivery, delay: Duration) -> bool {
    let message = Message::of(delivery);
    Box::pin(resend_message(
        platform,
        &delivery.integration,
        &message,
        delay,
    ))
    .await
}

pub(crate) async fn resend_message(
    platform: &impl Platform,
    integration: &str,
    message: &Message,
    delay: Duration,
) -> bool {
    let why = match platform
        .send(integration, &[message.send_after(delay)])
        .await
    {
        Ok(answers) => answers.into_iter().find_map(Result::err),
        Err(unreachable) => Some(unreachable.to_string()),
    };
    if let Some(why) = &why {
        warn!(
            delivery.id = %message.delivery,
            why, "A message is left to the reconciler"
        );
    }
    why.is_none()
}

/// Sends the message by which a delivery function asks.
pub(crate) async fn send_poll(platform: &impl Platform, poll: &CompletionPoll) {
    let message = Message {
        v: Message::VERSION,
        organization: poll.organization.clone(),
        delivery: poll.delivery.clone(),
        attempt: 0,
        follow: true,
    };
    let delay = schedule::poll_completion_after(poll.polls);
    resend_message(platform, &poll.integration, &message, delay).await;
}
