//! Laws about messages, and about what third parties receive.

use api::DeliveryId;
use api::deliveries::State;
use pipeline::Platform;
use pipeline::store::rows::Delivery;

use super::{Laws, Send};
use crate::MINUTE;
use crate::executor::Task;
use crate::world::{World, ready};

/// An attempt that was under way when its registration was paused goes on; so do its clock and its latencies.
const ATTEMPT: u64 = 4 * MINUTE;

/// A message that follows another sooner than this is one too many: the ledger waits an hour.
const SOON: u64 = 55 * MINUTE;

/// So many messages too many are nobody's fault: a reconciler meets an intake that is slow, and a message
/// comes early to a clock that is behind.
const EXTRA: u32 = 2;

impl Laws {
    /// A message is put into its queue.
    pub fn sent(&mut self, task: Task, now: u64, delivery: &str, attempt: u32) {
        let Some(tracked) = self.deliveries.get_mut(delivery) else {
            return self.breaks("nothing is sent before its row is there", delivery);
        };
        let again = tracked
            .sent_at
            .replace(now)
            .is_some_and(|at| at + SOON > now);
        if again {
            tracked.extra += 1;
        }
        let (extra, row) = (tracked.extra, &tracked.row);
        let is_ahead = row.attempt < attempt;
        let plan = super::plan_name(&row.attestation.hex(), row.generation);
        let taken = self.attestations.get(&plan);
        let is_accepted = taken.is_some_and(|taken| taken.is_accepted);
        let excuses = tracked.excuses + taken.map_or(0, |taken| taken.excuses);
        let running = self
            .tasks
            .values()
            .filter(|notes| notes.name == super::RECONCILER);
        if !is_accepted {
            self.breaks("nothing is sent before it is accepted", delivery);
        } else if is_ahead {
            self.breaks("nothing is sent before it is written", delivery);
        } else if extra > EXTRA + excuses && running.count() < 2 {
            let detail = format!("delivery {delivery}, attempt {attempt}, by function {task}");
            self.breaks("a message is not repeated without need", detail);
        }
    }

    /// A request leaves for the third party.
    pub fn request_begins(&mut self, now: u64, task: Task, delivery: &str, step: u32) {
        let claims = self.tasks.get(&task).map(|notes| &notes.claims);
        let Some(tracked) = self.deliveries.get_mut(delivery) else {
            return self.breaks("only what is there is delivered", delivery);
        };
        let is_second = std::mem::replace(&mut tracked.in_flight, true);
        let owner = tracked.row.lease.as_ref().map(|lease| &lease.owner);
        let is_own = claims.is_some_and(|claims| {
            let own = |(name, own): &(DeliveryId, String)| name == delivery && Some(own) == owner;
            tracked.row.state == State::Delivering && claims.iter().any(own)
        });
        let is_repeated = tracked.has_step(&step.to_string());
        let until = tracked.row.lease.as_ref().map(|lease| lease.until.millis());
        let is_over = until.is_some_and(|until| until + super::SKEW < now);
        let paused = self.paused.get(&tracked.row.registration);
        let is_paused = paused.is_some_and(|since| since + ATTEMPT < now);
        let detail = format!("delivery {delivery}, step {step}, by function {task}");
        if is_second {
            self.breaks("a delivery is not sent twice at the same time", detail);
        } else if !is_own || is_over {
            self.breaks("whoever sends holds the lease", detail);
        } else if is_paused {
            self.breaks("nothing is sent through what is paused", detail);
        } else if is_repeated {
            self.breaks("a finished step is not repeated", detail);
        }
    }

    /// A request leaves: of what a trust policy requires to be proven, the proof is there.
    pub fn proven(&mut self, world: &World, delivery: &str) {
        let Some(tracked) = self.deliveries.get(delivery) else {
            return;
        };
        let Delivery {
            organization,
            attestation,
            ..
        } = &tracked.row;
        let Some(proof) = self.proofs.get(attestation) else {
            return;
        };
        let there = ready(world.memory.object_size(organization, proof));
        if !there.is_ok_and(|there| there.is_some()) {
            self.breaks("nothing is sent before its signature is proven", delivery);
        }
    }

    pub fn request_ends(&mut self, delivery: &str) {
        if let Some(tracked) = self.deliveries.get_mut(delivery) {
            tracked.in_flight = false;
        }
    }

    /// The third party accepts a request. `excused` when its sender will never know. Answers with its number.
    pub fn accepts(&mut self, task: Task, delivery: &str, step: u32, excused: bool) -> usize {
        let Some(tracked) = self.deliveries.get_mut(delivery) else {
            return 0;
        };
        tracked.sends.push(Send {
            step,
            task,
            excused,
            recorded: false,
        });
        let number = tracked.sends.len() - 1;
        let of_step = tracked.sends.iter().filter(|send| send.step == step);
        if of_step.filter(|send| !send.excused).count() > 1 {
            let detail = format!("delivery {delivery}, step {step}");
            self.breaks(
                "a third party receives twice only what the ledger could not know of",
                detail,
            );
        }
        number
    }

    /// The answer to a request was not heard.
    pub fn excuse_one(&mut self, delivery: &str, number: usize) {
        if let Some(tracked) = self.deliveries.get_mut(delivery) {
            tracked.sends[number].excused = true;
        }
    }

    /// Excuses a task's requests that, as far as it knows, could not be recorded.
    pub fn excuse(&mut self, task: Task, delivery: &str) {
        let Some(tracked) = self.deliveries.get_mut(delivery) else {
            return;
        };
        for send in &mut tracked.sends {
            send.excused |= send.task == task && !send.recorded;
        }
    }
}
