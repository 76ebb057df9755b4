//! Laws about rows, held against each as it is written.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

use api::deliveries::{AttemptOutcome, State};
use api::{AttachmentId, DeliveryId, Timestamp};
use pipeline::ledger::schedule;
use pipeline::store::platform::{Item, Key};
use pipeline::store::rows::{self, Attachment, Delivery, Plan, Registration, Stage, Step};
use serde::Deserialize;

use super::{Laws, SKEW, Taken, Tracked};
use crate::coverage::Reached;
use crate::executor::Task;
use crate::fault::Fault;
use crate::world::World;

/// The delivery or plan that a key belongs to. The plan of the acceptance is named by the attestation's hash.
pub fn name_of(key: &Key) -> Option<String> {
    if key.sort == "delivery" {
        let (_, name) = key.partition.rsplit_once("/delivery/")?;
        return Some(name.to_owned());
    }
    let generation = key.sort.strip_prefix(Plan::PREFIX)?.parse().ok()?;
    let (_, hash) = key.partition.rsplit_once("/attestation/")?;
    Some(plan_name(hash, generation))
}

/// Returns the name of a plan in the laws.
pub fn plan_name(hash: &str, generation: u32) -> String {
    match generation {
        0 => hash.to_owned(),
        _ => format!("{hash}.{generation}"),
    }
}

impl Laws {
    /// A row was written, or is gone.
    pub fn observe(&mut self, world: &World, task: Task, key: &Key) {
        let memory = &world.memory;
        match key.sort.as_str() {
            "delivery" => {
                let row = memory
                    .look(key, |item| rows::parse::<Delivery>(item.clone()).ok())
                    .flatten();
                match row {
                    Some(stored) => self.delivery(world, task, &stored.row),
                    None => self.breaks("deliveries are there and readable", &*key.partition),
                }
            }
            sort if sort.starts_with(Plan::PREFIX) => {
                let row = memory
                    .look(key, |item| Plan::deserialize(item).ok())
                    .flatten();
                match row {
                    Some(row) => self.plan(world, task, &row),
                    None => self.breaks("plans are there and readable", &*key.partition),
                }
            }
            sort if sort.starts_with(Step::PREFIX) => {
                let step = memory.look(key, |item| rows::parse::<Step>(item.clone()).ok());
                match step.flatten() {
                    Some(stored) => self.step(world, task, stored.row),
                    None => self.breaks("steps are there and readable", &*key.partition),
                }
            }
            _ if key.partition.contains("/workflow/") => self.link(world, key),
            _ => self.other(world, key),
        }
    }

    /// A job, a reservation, or a registration.
    fn other(&mut self, world: &World, key: &Key) {
        let text = |item: &Item, name: &str| item.get(name)?.as_str()?.parse().ok();
        let wake_at = world.memory.look(key, |item| text(item, "wake_at"));
        let wake_at = wake_at.flatten().map(Timestamp::millis);
        let old = match wake_at {
            Some(at) => self.others.insert(key.clone(), at),
            None => self.others.remove(key),
        };
        self.wakes(&format!("{}/{}", key.partition, key.sort), old, wake_at);
        if key.sort == "registration" {
            let is_paused = world.memory.look(key, |item| item.contains_key("paused"));
            let id = key.partition.rsplit('/').next().unwrap_or_default();
            if is_paused == Some(true) {
                self.paused.entry(id.into()).or_insert(world.now());
            } else {
                self.paused.remove(id);
            }
        }
    }

    fn link(&mut self, world: &World, key: &Key) {
        let mut parts = key.partition.split('/');
        let organization = parts.nth(1).unwrap_or_default().into();
        let attachment = key.sort.rsplit('/').next().unwrap_or_default().into();
        let is_there = world.memory.look(key, |_| ()).is_some();
        let link = self.links.entry((organization, attachment));
        let link = link.or_insert((world.now(), None));
        if !is_there {
            link.1 = Some(world.now());
        }
    }

    fn plan(&mut self, world: &World, task: Task, row: &Plan) {
        let name = plan_name(&row.attestation.hex(), row.generation);
        let now = world.now();
        // A write that comes late was planned by an invocation that is gone.
        let begun_at = self.tasks.get(&task).map(|notes| notes.begun_at);
        let taken = self.attestations.entry(name.clone()).or_default();
        taken.faults |= world.faults.lasting(now);
        let is_new = !taken.is_written;
        let was_accepted = taken.is_accepted;
        let changed = taken.plan != row.planned;
        if is_new {
            taken.plan.clone_from(&row.planned);
        }
        taken.is_written = true;
        let old_stage = taken.stage.replace(row.stage);
        taken.is_accepted = row.stage != Stage::Accepting;
        if is_new && row.generation > 0 {
            self.coverage.happened(Fault::PlannedAgain);
            taken.faults |= Fault::PlannedAgain.bit();
        }
        let reached = match taken.is_accepted {
            true => Reached::Accepted,
            false => Reached::Accepting,
        };
        let faults = taken.faults;
        let old_wake = std::mem::replace(&mut taken.wake_at, row.wake_at.map(Timestamp::millis));
        let is_accepted = taken.is_accepted;
        self.coverage.reached(faults, reached);
        self.wakes(&name, old_wake, row.wake_at.map(Timestamp::millis));
        world.log(|| {
            let stage = row.stage;
            format!("function {task} writes plan {name} {stage:?}")
        });
        if is_new {
            if let Some(begun_at) = begun_at.filter(|_| row.generation == 0) {
                self.snapshot(row, begun_at);
            }
            return;
        }
        if changed {
            self.breaks("the plan is the snapshot of the first acceptance", &*name);
        }
        if was_accepted && !is_accepted || old_stage.is_some_and(|old| row.stage < old) {
            self.breaks("what is accepted stays accepted", &*name);
        }
        if row.wake_at.is_none() != (row.stage == Stage::Closed) {
            self.breaks("a plan is looked at again until it is closed", &*name);
        }
        if row.stage == Stage::Closed && old_stage != Some(Stage::Closed) {
            let is_open = |id: &DeliveryId| {
                let tracked = self.deliveries.get(id);
                tracked.is_none_or(|tracked| !tracked.row.state.is_final())
            };
            if let Some((id, _)) = row.deliveries().find(|(id, _)| is_open(id)) {
                self.breaks(
                    "a closed plan has no open delivery",
                    format!("{name}: {id}"),
                );
            }
        }
    }

    /// The plan holds what was attached while it was made.
    fn snapshot(&mut self, row: &Plan, begun_at: u64) {
        let of = |attachment: &AttachmentId| (row.organization.clone(), attachment.clone());
        let planned =
            |attachment: &AttachmentId| row.planned.iter().any(|one| one.attachment == *attachment);
        let missing = self
            .links
            .iter()
            .find(|((organization, id), (since, until))| {
                *organization == row.organization
                    && *since < begun_at
                    && until.is_none()
                    && !planned(id)
            });
        let wrong = row.planned.iter().find(|one| {
            let link = self.links.get(&of(&one.attachment));
            link.is_none_or(|(_, until)| until.is_some_and(|until| until < begun_at))
        });
        let detail = match (missing, wrong) {
            (Some(((_, id), _)), _) => format!("attestation {}: {id} is missing", row.attestation),
            (None, Some(one)) => format!(
                "attestation {}: {} was gone",
                row.attestation, one.attachment
            ),
            (None, None) => return,
        };
        self.breaks("the plan holds what is attached", detail);
    }

    fn wakes(&mut self, name: &str, old: Option<u64>, new: Option<u64>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.due.remove(&(old, name.to_owned()));
        }
        if let Some(new) = new {
            self.due.insert((new, name.to_owned()));
        }
    }

    fn delivery(&mut self, world: &World, task: Task, row: &Delivery) {
        let (now, id) = (world.now(), row.id.clone());
        let lasting = world.faults.lasting(now);
        world.log(|| {
            let (state, attempt) = (row.state, row.attempt);
            let (wake, due) = (row.wake_at, row.due_at);
            let reason = row.reason.as_deref().unwrap_or_default();
            format!(
                "function {task} writes {id} {state:?} {attempt} due {due} wake {wake:?} {reason}"
            )
        });
        let plan = plan_name(&row.attestation.hex(), row.generation);
        let taken = self.attestations.get(&plan);
        let inherited = taken.map_or(0, |taken| taken.faults);
        let (old, tracked) = match self.deliveries.entry(id.clone()) {
            Entry::Vacant(entry) => {
                let tracked = Tracked {
                    row: row.clone(),
                    steps: BTreeSet::new(),
                    written_at: now,
                    faults: inherited,
                    extra: 0,
                    excuses: 0,
                    sent_at: None,
                    in_flight: false,
                    sends: Vec::new(),
                    final_at: None,
                };
                (None, entry.insert(tracked))
            }
            Entry::Occupied(entry) => {
                let tracked = entry.into_mut();
                let old = std::mem::replace(&mut tracked.row, row.clone());
                (Some(old), tracked)
            }
        };
        tracked.written_at = now;
        tracked.faults |= lasting;
        for send in &mut tracked.sends {
            let step = send.step.to_string();
            let is_recorded = row.progress.contains_key(&step) || tracked.steps.contains(&step);
            send.recorded |= is_recorded || row.state == State::Delivered;
        }
        let moved = old.as_ref().is_none_or(|old| {
            (old.state, old.attempt, old.due_at) != (row.state, row.attempt, row.due_at)
        });
        if moved {
            tracked.extra = 0;
            tracked.sent_at = None;
        }
        if row.state.is_final() {
            tracked.final_at.get_or_insert(now);
        }
        let faults = tracked.faults;
        self.coverage.reached(faults, Reached::of(row.state));
        // What is held belongs to its pause.
        let millis = |delivery: &Delivery| {
            let wake_at = delivery.wake_at.filter(|_| delivery.held_at.is_none());
            wake_at.map(Timestamp::millis)
        };
        self.wakes(&id, old.as_ref().and_then(millis), millis(row));
        if row.held_at.is_some() {
            world.log(|| format!("    ! {}", Fault::Held.name()));
            self.coverage.happened(Fault::Held);
        }
        if row.state.is_final() == row.wake_at.is_some() {
            self.breaks(
                "open rows are looked at again, and final ones are not",
                &*id,
            );
        }
        if let Some(old) = &old {
            self.follows(world, task, old, row);
        }
        if row.state.is_final() && old.is_none_or(|old| !old.state.is_final()) {
            self.ends(world, row);
        }
    }

    /// A finished step became a row.
    fn step(&mut self, world: &World, task: Task, step: Step) {
        let (id, name) = (&step.delivery, step.name);
        world.log(|| format!("function {task} writes step {name} of {id}"));
        let claims = self.tasks.get(&task).map(|notes| &notes.claims);
        let Some(tracked) = self.deliveries.get_mut(id) else {
            return self.breaks("only what is there has steps", &**id);
        };
        let owner = tracked.row.lease.as_ref().map(|lease| &lease.owner);
        // Of a write that came late only the state is known.
        let is_own = claims.is_none_or(|claims| {
            let own = |(name, own): &(DeliveryId, String)| name == id && Some(own) == owner;
            claims.iter().any(own)
        });
        let is_held = tracked.row.state == State::Delivering && is_own;
        for send in tracked
            .sends
            .iter_mut()
            .filter(|send| send.step.to_string() == name)
        {
            send.recorded = true;
        }
        tracked.steps.insert(name);
        if !is_held {
            self.breaks("whoever records a step holds the lease", &**id);
        }
    }

    /// One row follows another.
    fn follows(&mut self, world: &World, task: Task, old: &Delivery, row: &Delivery) {
        let id = &row.id;
        if old.state.is_final() && (old.state, old.attempt) != (row.state, row.attempt) {
            self.breaks("a final state never changes", &**id);
        }
        if row.attempt < old.attempt || row.attempt > old.attempt + 1 {
            self.breaks("attempts are counted one by one", &**id);
        }
        if row.attempt > schedule::ATTEMPTS {
            self.breaks("there are 16 attempts at most", &**id);
        }
        let is_put_off = old.state == State::Delivering
            && row.state == State::Pending
            && row.reason.as_deref() == Some("its destination is down");
        if is_put_off && row.attempt == 1 && !self.seemed_down.contains(&row.registration) {
            self.breaks(
                "another document that fails holds back none that never failed",
                &**id,
            );
        }
        let tracked = &self.deliveries[id];
        let is_forgotten = |step: &String| !tracked.has_step(step);
        let has_forgotten =
            old.progress.keys().any(is_forgotten) || row.has_steps == tracked.steps.is_empty();
        if row.state != State::Delivered && has_forgotten {
            self.breaks("a finished step is never forgotten", &**id);
        }
        if old.state != State::Pending || row.state != State::Delivering {
            return;
        }
        let Some(notes) = self.tasks.get_mut(&task) else {
            return; // A write that came late, whose function is gone.
        };
        if let Some(lease) = &row.lease {
            notes.claims.push((id.clone(), lease.owner.clone()));
        }
        let is_called = notes.records.contains(&(id.clone(), row.attempt));
        let is_early = world.now() + 2 * SKEW < row.due_at.millis();
        if !is_called {
            let detail = format!("delivery {id}, attempt {}", row.attempt);
            self.breaks("an attempt is begun by its own message", detail);
        }
        if is_early {
            self.breaks("no attempt begins before it is due", &**id);
        }
    }

    /// A delivery became final.
    fn ends(&mut self, world: &World, row: &Delivery) {
        let id = &*row.id;
        let is_gone = |key: Key| {
            let gone = |item: &Item| item.contains_key("deleted_at");
            world.memory.look(&key, gone).is_none_or(|gone| gone)
        };
        match row.state {
            State::Cancelled => {
                let attachment = is_gone(Attachment::at(&row.organization, &row.attachment));
                let registration = is_gone(Registration::at(&row.organization, &row.registration));
                let by_hand = row.reason.as_deref() == Some("cancelled by operator");
                if !attachment && !registration && !by_hand {
                    self.breaks("only what is gone is cancelled", id);
                }
            }
            State::Delivered => {
                let steps = self.steps.get(&row.attachment).copied().unwrap_or_default();
                let sends = &self.deliveries[id].sends;
                let missing = (0..steps).find(|step| sends.iter().all(|send| send.step != *step));
                if let Some(step) = missing {
                    let detail = format!("delivery {id}, step {step}");
                    self.breaks("what is delivered was received", detail);
                }
            }
            State::Failed => {
                let ending = row.last_attempt.as_ref().map(|report| report.ending);
                let permanent = ending == Some(AttemptOutcome::Permanent);
                // The next attempt would come too late.
                let reason = row.reason.as_deref().unwrap_or_default();
                let is_over =
                    reason.starts_with("gave up after ") || reason.starts_with("paused too long");
                if !permanent && !is_over && row.attempt < schedule::ATTEMPTS {
                    self.breaks("only a permanent answer or a spent budget fails", id);
                }
            }
            State::Skipped | State::Pending | State::Delivering => {}
        }
    }

    pub(super) fn taken(&self) -> impl Iterator<Item = (&String, &Taken)> {
        self.attestations
            .iter()
            .filter(|(_, taken)| taken.is_written)
    }
}
