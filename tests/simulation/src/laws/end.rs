//! Laws about the end of a run.

use api::deliveries::State;
use api::{OrganizationName, Timestamp};
use integrations::Integration;
use pipeline::engine::audit;
use pipeline::store::platform::Scope;

use super::Laws;
use crate::HOUR;
use crate::peer::Boms;
use crate::world::{World, ready};

/// The last attempt may begin just before they are over, crash, and be found by its lease.
const SLACK: u64 = 2 * HOUR;

/// A pause of 30 days.
const PAUSED: u64 = 30 * 24 * HOUR;

impl Laws {
    /// Nothing happens any more.
    pub fn all_is_done(&mut self, world: &World) {
        let mut broken = Vec::new();
        for (name, taken) in self.taken() {
            if !taken.is_accepted || taken.wake_at.is_some() {
                broken.push(("every plan is closed", name.clone()));
            }
        }
        for (id, tracked) in &self.deliveries {
            let row = &tracked.row;
            let Some(final_at) = tracked.final_at else {
                broken.push(("every delivery ends", id.to_string()));
                continue;
            };
            let disturbed = world.faults.over_at.saturating_sub(row.created_at.millis());
            let reason = row.reason.as_deref().unwrap_or_default();
            let paused = if reason.starts_with("paused too long") {
                PAUSED
            } else {
                0
            };
            // What it was held for does not count.
            let latest = row.give_up_at.millis() + SLACK + disturbed + paused;
            if final_at > latest {
                let at = Timestamp::from_millis(final_at);
                let detail = format!("{id} at {at}, accepted {}", row.created_at);
                broken.push(("every delivery ends within 7 days", detail));
            }
            let receipt = row.receipt.as_ref();
            let is_complete = receipt.is_some_and(|receipt| receipt.contains_key("completion"));
            let followed = row.integration == Boms::ID && row.state == State::Delivered;
            if is_complete != followed {
                broken.push(("what was accepted is followed to its end", id.to_string()));
            }
            if row.state == State::Delivered && tracked.sends.is_empty() {
                broken.push(("what is delivered was received", id.to_string()));
            }
        }
        let planned: usize = self.taken().map(|(_, taken)| taken.plan.len()).sum();
        if planned != self.deliveries.len() {
            let there = self.deliveries.len();
            broken.push((
                "as many deliveries as planned",
                format!("{planned} planned, {there} there"),
            ));
        }
        for (name, taken) in self.taken() {
            if taken.ids.is_none() && !name.contains('.') {
                broken.push(("every client gets its 202", name.clone()));
            }
        }
        self.fetches_are_done(world);
        for (law, detail) in broken {
            self.breaks(law, detail);
        }
    }
}

/// The pipeline's own audit agrees.
pub fn audit(world: &World, organization: &OrganizationName, hash: &attestation::Digest) {
    let audit = ready(audit::attestation(
        Scope::new(&world.memory, organization),
        hash,
    ));
    match audit {
        Ok(found) if found.is_empty() => {}
        Ok(found) => world
            .laws
            .borrow_mut()
            .breaks("the audit finds nothing", found.join("; ")),
        Err(unreachable) => world
            .laws
            .borrow_mut()
            .breaks("the audit finds nothing", unreachable.to_string()),
    }
}
