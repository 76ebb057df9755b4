//! Laws that must hold after every write, every send and every acknowledgement, and at the end.
//!
//! The laws observe the world from outside: rows as they are written, messages as they are sent, and what
//! third parties count. They never ask the pipeline what it thinks.

mod end;
mod fetches;
mod rows;
mod sends;

use std::collections::{BTreeMap, BTreeSet};

use api::{AttachmentId, DeliveryId, OrganizationName, RegistrationId};
use attestation::Digest;
use pipeline::engine::accept::Accepted;
use pipeline::ledger::message::Message;
use pipeline::store::platform::Key;
use pipeline::store::rows::{Delivery, Planned, Stage, Step};

use crate::coverage::Coverage;
use crate::executor::Task;
use crate::fault::Fault;

pub use end::audit;
pub use rows::{name_of, plan_name};

#[derive(Debug, Clone)]
pub struct Violation {
    pub law: &'static str,
    pub detail: String,
}

/// Result of a task's last read or write of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    Done,
    Conflict,
    Failed,
}

#[derive(Default)]
pub struct Laws {
    deliveries: BTreeMap<DeliveryId, Tracked>,
    attestations: BTreeMap<String, Taken>,
    fetches: BTreeMap<Digest, fetches::Fetch>,
    /// Attachments by organization and id: since and until when intake may find them.
    links: BTreeMap<(OrganizationName, AttachmentId), (u64, Option<u64>)>,
    tasks: BTreeMap<Task, Notes>,
    /// Open rows by when they must be looked at.
    due: BTreeSet<(u64, String)>,
    /// When rows of other kinds must be looked at.
    others: BTreeMap<Key, u64>,
    /// Since when registrations are paused.
    paused: BTreeMap<RegistrationId, u64>,
    /// Number of requests that each attachment makes.
    pub steps: BTreeMap<AttachmentId, u32>,
    /// Organizations with a trust policy that requires signatures.
    pub guarded: BTreeSet<OrganizationName>,
    /// Digests of the bundles that prove their attestations, by those.
    pub proofs: BTreeMap<Digest, Digest>,
    /// Until when each registration's third party is down.
    pub down_until: BTreeMap<RegistrationId, u64>,
    /// Deliveries that their third party always answers 500.
    pub poisoned: BTreeSet<DeliveryId>,
    /// Registrations whose third party could be taken for one that is down.
    seemed_down: BTreeSet<RegistrationId>,
    /// When a run of the reconciler last met a fault.
    faulted_at: u64,
    pub coverage: Coverage,
    pub broken: Option<Violation>,
}

/// Observed state of a delivery.
struct Tracked {
    row: Delivery,
    /// Names of the steps that are rows of their own.
    steps: BTreeSet<String>,
    written_at: u64,
    faults: u64,
    /// Messages sent shortly after another with nothing in between, and how many may be.
    extra: u32,
    excuses: u32,
    sent_at: Option<u64>,
    in_flight: bool,
    sends: Vec<Send>,
    final_at: Option<u64>,
}

impl Tracked {
    fn has_step(&self, step: &str) -> bool {
        self.row.progress.contains_key(step) || self.steps.contains(step)
    }
}

/// A request that the third party accepted.
struct Send {
    step: u32,
    task: Task,
    excused: bool,
    recorded: bool,
}

/// Observed state of a plan.
#[derive(Default)]
struct Taken {
    plan: Vec<Planned>,
    is_written: bool,
    stage: Option<Stage>,
    is_accepted: bool,
    faults: u64,
    excuses: u32,
    wake_at: Option<u64>,
    ids: Option<Vec<DeliveryId>>,
}

/// Observed state of a running invocation.
struct Notes {
    name: &'static str,
    begun_at: u64,
    /// The deliveries and attempts that its messages were about; of questions to a third party, the delivery and 0.
    records: Vec<(DeliveryId, u32)>,
    /// Deliveries that it claimed, and as whom.
    claims: Vec<(DeliveryId, String)>,
    last: Vec<(String, Last)>,
    met_fault: bool,
    /// Rows that were due when it began.
    due: Vec<(u64, String)>,
}

/// Clocks differ from the real time by at most so much.
const SKEW: u64 = 5_000;

pub const RECONCILER: &str = "reconciler";

impl Laws {
    pub fn is_notable(key: &Key) -> bool {
        name_of(key).is_some()
            || key.partition.contains("/workflow/") && key.sort != "trust-policy"
            || key.partition.ends_with("/jobs")
            || key.partition.ends_with("/registrations")
            || key.sort == "registration"
            || key.sort == "followup"
            || key.sort.starts_with(Step::PREFIX)
    }

    pub fn breaks(&mut self, law: &'static str, detail: impl Into<String>) {
        if self.broken.is_none() {
            let detail = detail.into();
            self.broken = Some(Violation { law, detail });
        }
    }

    pub fn begin(
        &mut self,
        task: Task,
        name: &'static str,
        now: u64,
        records: Vec<(DeliveryId, u32)>,
    ) {
        let notes = Notes {
            name,
            begun_at: now,
            records,
            claims: Vec::new(),
            last: Vec::new(),
            met_fault: false,
            due: Vec::new(),
        };
        self.tasks.insert(task, notes);
    }

    pub fn end(&mut self, task: Task) {
        self.tasks.remove(&task);
    }

    /// An operation of a task failed.
    pub fn met(&mut self, task: Task) {
        if let Some(notes) = self.tasks.get_mut(&task) {
            notes.met_fault = true;
        }
    }

    pub fn touch(&mut self, fault: Fault, about: &[&str]) {
        self.coverage.happened(fault);
        for name in about {
            if let Some(tracked) = self.deliveries.get_mut(*name) {
                tracked.faults |= fault.bit();
                tracked.excuses += 1;
                // An attestation of which one message was not sent has all of them sent again.
                let attestation = tracked.row.attestation.hex();
                if let Some(taken) = self.attestations.get_mut(&attestation) {
                    taken.excuses += 1;
                }
            } else if let Some(taken) = self.attestations.get_mut(*name) {
                taken.faults |= fault.bit();
                taken.excuses += 1;
            } else {
                let taken = Taken {
                    faults: fault.bit(),
                    ..Taken::default()
                };
                self.attestations.insert((*name).to_owned(), taken);
            }
        }
    }

    /// A task ends before its end: whatever it was at may go on in another.
    pub fn killed(&mut self, fault: Fault, task: Task) {
        self.met(task);
        let Some(notes) = self.tasks.get(&task) else {
            return self.touch(fault, &[]);
        };
        let mut names: Vec<String> = notes.last.iter().map(|(name, _)| name.clone()).collect();
        let attempts = notes.records.iter().filter(|(_, attempt)| *attempt > 0);
        names.extend(attempts.map(|(name, _)| name.to_string()));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.touch(fault, &names);
    }

    /// A task read or wrote a row, or could not.
    pub fn heard(&mut self, task: Task, name: &str, last: Last) {
        let Some(notes) = self.tasks.get_mut(&task) else {
            return;
        };
        match notes.last.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = last,
            None => notes.last.push((name.to_owned(), last)),
        }
    }

    /// A message is taken from its queue for good.
    pub fn acknowledged(&mut self, task: Task, message: &Message) {
        let law = "a message is acknowledged only when the ledger has what follows";
        let Some((notes, tracked)) = self
            .tasks
            .get(&task)
            .zip(self.deliveries.get(&message.delivery))
        else {
            return;
        };
        let id = &message.delivery;
        if notes
            .records
            .iter()
            .filter(|(known, _)| known == id)
            .count()
            > 1
        {
            return;
        }
        let last = notes.last.iter().find(|(name, _)| name == id);
        let last = last.map(|(_, last)| *last);
        let row = &tracked.row;
        let lease = row.lease.as_ref().map(|lease| &lease.owner);
        let is_own = notes
            .claims
            .iter()
            .any(|(name, owner)| name == id && Some(owner) == lease);
        let due = row.due_at.millis() + 2 * SKEW < notes.begun_at || row.due_at == row.created_at;
        let broken = match last {
            None => Some("and its row was not looked at"),
            Some(Last::Failed) => Some("though the ledger could not be reached"),
            Some(Last::Done) if is_own => Some("and its attempt was not recorded"),
            Some(Last::Done)
                if row.state == api::deliveries::State::Pending
                    && row.held_at.is_none()
                    && row.attempt == message.attempt
                    && due
                    && tracked.written_at < notes.begun_at =>
            {
                Some("and its delivery still waits for it")
            }
            Some(_) => None,
        };
        if let Some(broken) = broken {
            let attempt = message.attempt;
            self.breaks(law, format!("delivery {id}, attempt {attempt}: {broken}"));
        }
    }

    /// A client was answered 202.
    pub fn accepted(&mut self, accepted: &Accepted) {
        let attestation = &accepted.attestation;
        let hash = attestation.hash.hex();
        let plan = &accepted.plan;
        let ids: Vec<DeliveryId> = plan.deliveries().map(|(id, _)| id).collect();
        let Some(taken) = self
            .attestations
            .get_mut(&hash)
            .filter(|taken| taken.is_accepted)
        else {
            return self.breaks("a 202 follows the acceptance", hash);
        };
        let same = taken.ids.get_or_insert_with(|| ids.clone()) == &ids;
        let planned = taken.plan == plan.planned;
        if !same {
            self.breaks("every 202 names the same deliveries", hash);
        } else if !planned {
            self.breaks("the plan is the snapshot of the first acceptance", hash);
        } else if let Some(id) = ids.iter().find(|id| !self.deliveries.contains_key(*id)) {
            let detail = format!("attestation {hash}: delivery {id}");
            self.breaks(
                "every planned delivery exists when the 202 is given",
                detail,
            );
        }
    }

    /// When the earliest open row must be looked at.
    pub fn earliest(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A run of the reconciler begins: what is due and shows in the index must be gone when it ends.
    pub fn reconciler_begins(&mut self, now: u64, task: Task, lag: u64) {
        let due = self.due.iter().take_while(|(at, _)| at + SKEW < now);
        let shows = |name: &str| {
            let tracked = self.deliveries.get(name);
            tracked.is_some_and(|tracked| tracked.written_at + lag < now)
        };
        let due = due.filter(|(_, name)| shows(name)).cloned().collect();
        if let Some(notes) = self.tasks.get_mut(&task) {
            notes.due = due;
        }
    }

    pub fn reconciler_ends(&mut self, now: u64, task: Task, is_complete: bool) {
        let Some(notes) = self.tasks.get(&task) else {
            return;
        };
        if notes.met_fault || !is_complete {
            self.faulted_at = now;
            return;
        }
        let left = notes.due.iter().find(|entry| self.due.contains(*entry));
        if let Some((_, name)) = left {
            let detail = format!("{name} is still due");
            self.breaks(
                "a run of the reconciler that meets no fault leaves nothing due",
                detail,
            );
        }
    }

    /// Nothing open is forgotten.
    pub fn not_overdue(&mut self, now: u64, since_fault: u64) {
        const OVERDUE: u64 = 10 * crate::MINUTE;
        let calm_since = self.faulted_at.max(since_fault);
        if let Some((at, name)) = self.due.first()
            && *at + OVERDUE < now
            && calm_since + OVERDUE < now
        {
            let detail = format!("{name} since {at}");
            self.breaks("no open row is overdue by more than 10 min", detail);
        }
    }

    /// Open deliveries that go through something.
    pub fn open_through(&self, through: impl Fn(&Delivery) -> bool) -> Vec<DeliveryId> {
        let open = self
            .deliveries
            .iter()
            .filter(|(_, tracked)| !tracked.row.state.is_final() && through(&tracked.row));
        open.map(|(id, _)| id.clone()).collect()
    }

    /// Deliveries as they are now.
    pub fn rows(&self, wanted: impl Fn(&Delivery) -> bool) -> Vec<&Delivery> {
        let rows = self.deliveries.values().map(|tracked| &tracked.row);
        rows.filter(|row| wanted(row)).collect()
    }

    /// A delivery met what its third party may be blamed for.
    pub fn seems_down(&mut self, delivery: &str) {
        if let Some(tracked) = self.deliveries.get(delivery) {
            self.seemed_down.insert(tracked.row.registration.clone());
        }
    }

    /// Reports whether a delivery's third party is down.
    pub fn is_down(&self, now: u64, delivery: &str) -> bool {
        let tracked = self.deliveries.get(delivery);
        let until = tracked.and_then(|tracked| self.down_until.get(&tracked.row.registration));
        until.is_some_and(|until| now < *until)
    }
}
