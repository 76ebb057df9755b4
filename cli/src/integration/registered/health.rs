//! Health of a registration: its circuit and its deliveries of the last 24 hours, for `integration registered describe`.

use api::registrations::{Circuit, CircuitState, Health, Hour};
use api::{Code, RegistrationId, Timestamp};
use serde::Serialize;

use crate::client::{Call, Client};
use crate::failure::Failure;
use crate::table::{Color, Table, cell, paint, word};
use crate::time;

/// Returns the health; none of an API before 0.3.0.
pub(super) fn get(client: &Client, id: &RegistrationId) -> anyhow::Result<Option<Health>> {
    let found: anyhow::Result<Health> = client.call(&Call::get(&["registrations", id, "health"]));
    match found {
        Ok(health) => Ok(Some(health)),
        Err(error) => match error.downcast_ref::<Failure>() {
            Some(failure) if failure.has_code(Code::NotFound) => Ok(None),
            _ => Err(error),
        },
    }
}

/// The health as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View<'a> {
    circuit: CircuitState,
    open_until: Option<Timestamp>,
    failing_since: Option<Timestamp>,
    delivered_at: Option<Timestamp>,
    failed_at: Option<Timestamp>,
    hours: &'a [Hour],
    has_more: bool,
}

impl<'a> From<&'a Health> for View<'a> {
    fn from(health: &'a Health) -> Self {
        Self {
            circuit: health.circuit.state,
            open_until: health.circuit.open_until,
            failing_since: health.failing_since,
            delivered_at: health.delivered_at,
            failed_at: health.failed_at,
            hours: &health.hours,
            has_more: health.has_more,
        }
    }
}

/// Adds it to the card of a registration.
pub(super) fn add(card: &mut Table, health: &Health) {
    let mut row = |name: &str, content| card.row(vec![cell(name), content]);
    let now = time::now();
    let Circuit { state, open_until } = &health.circuit;
    let circuit = match open_until {
        Some(until) => format!("{}: tried {}", word(state), time::relative(*until, now)),
        None => word(state),
    };
    let colour = match state {
        CircuitState::Closed => Color::Green,
        CircuitState::Open | CircuitState::HalfOpen => Color::Yellow,
    };
    row("CIRCUIT", paint(cell(circuit), colour));
    for (name, at) in [
        ("FAILING SINCE", health.failing_since),
        ("LAST DELIVERED", health.delivered_at),
        ("LAST FAILED", health.failed_at),
    ] {
        if let Some(at) = at {
            let text = format!("{} ({})", time::exact(at), time::relative(at, now));
            row(name, cell(text));
        }
    }
    row("LAST 24 HOURS", cell(counts(health)));
}

/// `12 delivered, 1 failed`.
fn counts(health: &Health) -> String {
    let sum = |of: fn(&Hour) -> u64| health.hours.iter().map(of).sum::<u64>();
    let all = [
        (sum(|hour| hour.delivered), "delivered"),
        (sum(|hour| hour.failed), "failed"),
        (sum(|hour| hour.open), "open"),
        (sum(|hour| hour.other), "skipped or cancelled"),
    ];
    let told = all.iter().filter(|(count, _)| *count > 0);
    let told: Vec<String> = told
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    match (told.is_empty(), health.has_more) {
        (true, _) => "no deliveries".to_owned(),
        (false, false) => told.join(", "),
        (false, true) => format!(
            "{}, and more: the newest 1,000 are counted",
            told.join(", ")
        ),
    }
}
