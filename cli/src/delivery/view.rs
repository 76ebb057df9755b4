//! Deliveries as JSON.

use std::collections::BTreeMap;

use api::deliveries::{Attempt, AttemptOutcome, Delivery, State};
use api::{AttachmentId, DeliveryId, RegistrationId, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};

/// As the API tells it, with keys spelled as the other commands spell theirs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View<'a> {
    id: &'a DeliveryId,
    state: State,
    attempt: u32,
    reason: Option<&'a str>,
    integration: &'a str,
    registration: &'a RegistrationId,
    registration_name: Option<&'a str>,
    attachment: &'a AttachmentId,
    attestation: String,
    received: Option<String>,
    size_bytes: Option<u64>,
    workflow: &'a api::workflows::Workflow,
    selector: Option<&'a str>,
    generation: u32,
    held_at: Option<Timestamp>,
    due_at: Option<Timestamp>,
    receipt: Option<&'a Map<String, Value>>,
    progress: &'a BTreeMap<String, Value>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// None in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<AttemptView<'a>>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AttemptView<'a> {
    number: u32,
    ending: AttemptOutcome,
    started_at: Timestamp,
    duration_ms: u64,
    status: Option<u16>,
    sent_bytes: Option<u64>,
    detail: Option<&'a str>,
    answer: Option<&'a str>,
}

impl<'a> From<&'a Delivery> for View<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        Self {
            id: &delivery.id,
            state: delivery.state,
            attempt: delivery.attempt,
            reason: delivery.reason.as_deref(),
            integration: &delivery.integration,
            registration: &delivery.registration,
            registration_name: delivery.registration_name.as_deref(),
            attachment: &delivery.attachment,
            attestation: delivery.attestation.to_string(),
            received: delivery.received.map(|digest| digest.to_string()),
            size_bytes: delivery.size_bytes,
            workflow: &delivery.workflow,
            selector: delivery
                .selector
                .as_ref()
                .map(|selector| selector.0.as_str()),
            generation: delivery.generation,
            held_at: delivery.held_at,
            due_at: delivery.due_at,
            receipt: delivery.receipt.as_ref(),
            progress: &delivery.progress,
            created_at: delivery.created_at,
            updated_at: delivery.updated_at,
            attempts: None,
        }
    }
}

impl<'a> View<'a> {
    /// With its attempts.
    pub(crate) fn described(delivery: &'a Delivery) -> Self {
        let attempts = delivery.attempts.iter().map(AttemptView::from);
        Self {
            attempts: Some(attempts.collect()),
            ..Self::from(delivery)
        }
    }
}

impl<'a> From<&'a Attempt> for AttemptView<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        Self {
            number: attempt.number,
            ending: attempt.ending,
            started_at: attempt.started_at,
            duration_ms: attempt.duration_ms,
            status: attempt.status,
            sent_bytes: attempt.sent_bytes,
            detail: attempt.detail.as_deref(),
            answer: attempt.answer.as_deref(),
        }
    }
}
