//! Deliveries in tables, and the card of a single one.

use api::RegistrationId;
use api::deliveries::{Attempt, Delivery, State};
use api::workflows::Workflow;
use serde_json::{Map, Value};

use crate::table::{self, Cell, Color, Table, cell, paint, size, word};
use crate::time;

/// Renders deliveries with the third parties' receipts.
pub(crate) fn receipts(deliveries: &[Delivery]) -> Table {
    // No column for reasons if none has one.
    let reasons = deliveries.iter().any(|delivery| delivery.reason.is_some());
    let headers = ["ID", "STATE", "TO", "RECEIPT", "REASON"];
    let mut table = Table::new(&headers[..headers.len() - usize::from(!reasons)]);
    for delivery in deliveries {
        let mut cells = vec![
            table::id(&delivery.id),
            state(delivery),
            cell(to(delivery)),
            cell(receipt(delivery)),
        ];
        if reasons {
            cells.push(cell(delivery.reason.as_deref().unwrap_or_default()));
        }
        table.row(cells);
    }
    table
}

/// Deliveries of one attestation: how each stands.
pub(crate) fn outcomes(deliveries: &[Delivery]) -> Table {
    let headers = ["ID", "STATE", "TO", "ATTEMPT", "REASON"];
    let mut table = Table::titled("Deliveries", &headers);
    for delivery in deliveries {
        table.row(vec![
            table::id(&delivery.id),
            state(delivery),
            cell(to(delivery)),
            cell(attempt(delivery)),
            cell(delivery.reason.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

/// The destination of a delivery: its registration, by name and integration.
pub(crate) fn to(delivery: &Delivery) -> String {
    let Delivery {
        registration,
        registration_name,
        integration,
        ..
    } = delivery;
    destination(registration_name.as_deref(), registration, integration)
}

/// A registration by its name, or by its ID where its row is gone, and its integration.
pub(crate) fn destination(name: Option<&str>, id: &RegistrationId, integration: &str) -> String {
    format!("{} ({integration})", name.unwrap_or(id))
}

pub(crate) fn receipt(delivery: &Delivery) -> String {
    delivery
        .receipt
        .as_ref()
        .map(table::tree)
        .unwrap_or_default()
}

pub(super) fn workflow(delivery: &Delivery) -> String {
    named(&delivery.workflow)
}

/// A workflow as people call it.
pub(crate) fn named(workflow: &Workflow) -> String {
    match (workflow.project.as_str(), workflow.name.as_str()) {
        (_, "") => workflow.id.clone(),
        ("", name) => name.to_owned(),
        (project, name) => format!("{project}/{name}"),
    }
}

/// Renders a delivery's state; tells deliveries held by a paused registration from those waiting for their due time.
pub(super) fn state(delivery: &Delivery) -> Cell {
    painted(cell(standing(delivery)), delivery)
}

/// Paints a cell in the colour of a delivery's state.
pub(crate) fn painted(cell: Cell, delivery: &Delivery) -> Cell {
    paint(cell, colour(delivery))
}

fn colour(delivery: &Delivery) -> Color {
    match delivery.state {
        State::Delivered if is_partial(delivery) => Color::Yellow,
        State::Delivered => Color::Green,
        State::Failed => Color::Red,
        State::Pending | State::Delivering => Color::Yellow,
        State::Skipped | State::Cancelled => Color::Grey,
    }
}

pub(crate) fn standing(delivery: &Delivery) -> String {
    let suffix = match delivery.held_at {
        Some(_) => " (held)",
        None if is_partial(delivery) => " (partial)",
        None => "",
    };
    word(&delivery.state) + suffix
}

/// Returns whether a delivery arrived in part; its reason names the rest.
pub(crate) fn is_partial(delivery: &Delivery) -> bool {
    delivery.state == State::Delivered && delivery.reason.is_some()
}

/// The attempt, and whether the delivery is the first of its attestation to its attachment.
pub(super) fn attempt(delivery: &Delivery) -> String {
    let again = match delivery.generation {
        0 => "",
        _ => " (redelivery)",
    };
    format!("{}{again}", delivery.attempt)
}

pub(super) fn card(delivery: &Delivery) -> Table {
    let now = time::now();
    let moment = |moment| format!("{} ({})", time::exact(moment), time::relative(moment, now));
    let mut table = Table::titled("Delivery", &[]);
    let mut row = |name: &str, content: Cell| table.row(vec![cell(name), content]);
    row("ID", cell(&delivery.id));
    row("STATE", state(delivery));
    if let Some(reason) = &delivery.reason {
        row("REASON", cell(reason));
    }
    row("TO", cell(to(delivery)));
    row("WORKFLOW", cell(workflow(delivery)));
    if let Some(selector) = &delivery.selector {
        row("ATTACHED TO", cell(&selector.0));
    }
    row("ATTESTATION", cell(delivery.attestation.to_string()));
    if let Some(received) = &delivery.received {
        let size = delivery
            .size_bytes
            .map(|bytes| format!(" ({})", size(bytes)));
        row(
            "RECEIVED",
            cell(format!("{received}{}", size.unwrap_or_default())),
        );
    }
    row("REGISTRATION", cell(&delivery.registration));
    row("ATTACHMENT", cell(&delivery.attachment));
    row("ATTEMPT", cell(delivery.attempt.to_string()));
    if delivery.generation > 0 {
        let generation = delivery.generation;
        row(
            "GENERATION",
            cell(format!("{generation}: redelivery or backfill")),
        );
    }
    if let Some(held_at) = delivery.held_at {
        let held = format!("{}: registration paused", moment(held_at));
        row("HELD SINCE", cell(held));
    }
    if let Some(due_at) = delivery.due_at {
        row("DUE AT", cell(moment(due_at)));
    }
    row("CREATED AT", cell(moment(delivery.created_at)));
    row("UPDATED AT", cell(moment(delivery.updated_at)));
    let receipt = receipt(delivery);
    if !receipt.is_empty() {
        row("RECEIPT", cell(receipt));
    }
    // The receipt of a delivered one has the same content.
    if delivery.state != State::Delivered && !delivery.progress.is_empty() {
        let progress: Map<String, Value> = delivery.progress.clone().into_iter().collect();
        row("PROGRESS", cell(table::tree(&progress)));
    }
    table
}

pub(crate) fn attempts(attempts: &[Attempt]) -> Table {
    let headers = [
        "NUMBER",
        "ENDING",
        "STARTED AT",
        "DURATION",
        "STATUS",
        "DETAIL",
        "RESPONSE",
    ];
    let mut table = Table::titled("Attempts", &headers);
    for attempt in attempts {
        let sent = attempt
            .sent_bytes
            .map(|sent| format!("{} sent", size(sent)));
        table.row(vec![
            cell(attempt.number.to_string()),
            cell(word(&attempt.ending)),
            cell(time::exact(attempt.started_at)),
            cell(time::duration(attempt.duration_ms)),
            cell(
                attempt
                    .status
                    .map(|status| status.to_string())
                    .unwrap_or_default(),
            ),
            cell(attempt.detail.clone().or(sent).unwrap_or_default()),
            cell(attempt.answer.as_deref().unwrap_or_default()),
        ]);
    }
    table
}
