//! The accounting invariant ("conservation law") of one plan: every planned delivery is there, is in exactly one state,
//! and is looked at again unless it is final.

use std::collections::BTreeMap;

use api::deliveries::State;
use api::{DeliveryId, Timestamp};

use crate::ledger::schedule;
use crate::store::rows::{Delivery, Plan, Stage};

/// Returns the violations of a plan, row by row; empty when the invariant holds.
pub fn plan(plan: &Plan, deliveries: &[Delivery], now: Timestamp) -> Vec<String> {
    let by_id: BTreeMap<&DeliveryId, &Delivery> = deliveries
        .iter()
        .map(|delivery| (&delivery.id, delivery))
        .collect();
    let name = format!("plan {} of {}", plan.generation, plan.attestation);
    let mut violations = Vec::new();
    match (plan.stage, plan.wake_at) {
        (Stage::Closed, Some(_)) => violations.push(format!("{name}: closed and to be woken")),
        (Stage::Closed, None) => {}
        (_, None) => violations.push(format!("{name}: open and never woken")),
        (_, Some(at)) if at.plus(schedule::OVERDUE) < now => {
            violations.push(format!("{name}: overdue since {at}"));
        }
        (_, Some(_)) => {}
    }
    for (id, _) in plan.deliveries() {
        match by_id.get(&id) {
            Some(found) => violations.extend(delivery(found, plan.stage, now)),
            None if plan.stage == Stage::Accepting => {}
            None => violations.push(format!("delivery {id}: planned and not there")),
        }
    }
    violations
}

fn delivery(row: &Delivery, stage: Stage, now: Timestamp) -> Option<String> {
    let id = &row.id;
    match (row.state.is_final(), row.wake_at) {
        (true, Some(_)) => Some(format!("delivery {id}: final and to be woken")),
        (false, _) if stage == Stage::Closed => {
            Some(format!("delivery {id}: open in a closed plan"))
        }
        (false, None) => Some(format!("delivery {id}: open and never woken")),
        (false, Some(at)) if at.plus(schedule::OVERDUE) < now => {
            Some(format!("delivery {id}: overdue since {at}"))
        }
        (true, None) | (false, Some(_)) => None,
    }
}

/// Returns what has been due for [`schedule::UNCLAIMED`] and was claimed by no function, a line each. It breaks no law, since
/// the reconciler sends it again: the function may be switched off, or its queue long.
pub fn unclaimed(deliveries: &[Delivery], now: Timestamp) -> Vec<String> {
    let waiting = deliveries.iter().filter(|delivery| {
        delivery.state == State::Pending
            && delivery.held_at.is_none()
            && delivery.due_at.plus(schedule::UNCLAIMED) <= now
    });
    waiting
        .map(|delivery| {
            let (id, since, integration) = (&delivery.id, delivery.due_at, &delivery.integration);
            format!(
                "delivery {id}: due since {since}, and not claimed: deliver-{integration} is switched off, or its queue long"
            )
        })
        .collect()
}
