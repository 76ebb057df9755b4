//! Laws about what is fetched: it ends, it costs little, and everything is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::OrganizationName;
use attestation::Digest;
use pipeline::Platform;
use pipeline::engine::fetch::{LONGEST, Message, TURN};
use pipeline::ledger::schedule;
use pipeline::store::rows::{self, Attachment, Attestation, Plan};

use super::{Laws, SKEW};
use crate::MINUTE;
use crate::fault::Fault;
use crate::store::{Artifact, Habit};
use crate::world::{World, ready};

/// Observed state of an attestation's fetch.
#[derive(Default)]
pub(super) struct Fetch {
    /// Number of times that an intake began it.
    begun: u64,
    /// Number of times that a message came twice, or that its function was cut off, by fetch and turn.
    disturbed: BTreeMap<(String, u32), u64>,
    /// Number of messages sent, by fetch and turn.
    sent: BTreeMap<(String, u32), u64>,
    turns: u64,
    asked: BTreeSet<Digest>,
}

/// Between a look at the clock and what follows, the platform may be slow.
const SLACK: u64 = MINUTE + SKEW;

/// Until when somebody waits for an attestation's materials, and for how long from its acceptance.
fn waited_until(
    world: &World,
    organization: &OrganizationName,
    hash: &Digest,
) -> Option<(u64, Duration)> {
    let memory = &world.memory;
    let key = Attestation::at(organization, hash);
    let attestation = ready(rows::load::<Attestation>(memory, &key)).ok()??;
    let plan = ready(rows::load::<Plan>(memory, &Plan::at(organization, hash, 0))).ok()??;
    let mut longest = schedule::PATIENCE;
    for planned in &plan.row.planned {
        let key = Attachment::at(organization, &planned.attachment);
        let attachment = ready(rows::load::<Attachment>(memory, &key)).ok()?;
        let wait = attachment.and_then(|attachment| attachment.row.wait_secs);
        longest = longest.max(Duration::from_secs(wait.unwrap_or_default()));
    }
    let until = attestation.row.created_at.plus(longest).millis();
    Some((until, longest))
}

/// Returns the maximum number of turns of a fetch. Each turn ends a round or lasts [`TURN`], and the gaps between
/// rounds grow to the last of `FETCHES`.
fn most_turns(patience: Duration) -> u64 {
    let last = schedule::FETCHES[schedule::FETCHES.len() - 1];
    let rounds = schedule::FETCHES.len() as u64 + patience.as_secs() / last.as_secs();
    rounds + patience.as_secs() / TURN.as_secs() + 2
}

/// Turns that one disturbance may add: the copy, or the same message again and one more of its next.
const REPEATED: u64 = 3;

impl Laws {
    /// A fetch's message is sent.
    pub fn fetch_sent(&mut self, world: &World, message: &Message, delay: Duration) {
        if message.turns == 0 {
            self.fetches.entry(message.attestation).or_default().begun += 1;
            return;
        }
        let fetch = self.fetches.entry(message.attestation).or_default();
        let before = (message.fetch.clone(), message.turns - 1);
        let most = 1 + fetch.disturbed.get(&before).copied().unwrap_or_default();
        let sent = fetch.sent.entry((message.fetch.clone(), message.turns));
        let sent = sent.and_modify(|sent| *sent += 1).or_insert(1);
        if *sent > most {
            let (hash, turn) = (message.attestation.hex(), message.turns);
            let detail = format!("{hash}: {sent} messages of turn {turn}, and not {most}");
            return self.breaks("of the messages of one turn one goes on", detail);
        }
        let until = waited_until(world, &message.organization, &message.attestation);
        let at = world.now() + u64::try_from(delay.as_millis()).expect("minutes");
        if until.is_none_or(|(until, _)| at > until + SLACK) {
            let hash = message.attestation.hex();
            self.breaks("a fetch ends when nobody waits any more", hash);
        }
    }

    /// A message of a fetch comes twice, or a function that fetches was cut off.
    pub fn fetch_disturbed(&mut self, message: &Message) {
        let fetch = self.fetches.entry(message.attestation).or_default();
        let turn = (message.fetch.clone(), message.turns);
        *fetch.disturbed.entry(turn).or_default() += 1;
    }

    /// A function is handed a fetch's message.
    pub fn fetch_begins(&mut self, world: &World, message: &Message) {
        let hash = message.attestation.hex();
        let Some((_, patience)) = waited_until(world, &message.organization, &message.attestation)
        else {
            return self.breaks("only what was accepted is fetched", hash);
        };
        let fetch = self.fetches.entry(message.attestation).or_default();
        fetch.turns += 1;
        let disturbed: u64 = fetch.disturbed.values().sum();
        // A disturbed turn may come again and send its next message again: copies end there.
        let most = fetch.begun * most_turns(patience) + disturbed * REPEATED;
        if fetch.turns > most {
            let Fetch { turns, begun, .. } = fetch;
            let detail = format!(
                "{hash}: {turns} turns, begun {begun} times and disturbed {disturbed} times"
            );
            self.breaks("a fetch has few turns", detail);
        }
    }

    /// The store is asked for a material.
    pub fn asks(&mut self, world: &World, artifact: &Artifact, digest: &Digest) {
        let Artifact {
            organization, of, ..
        } = artifact;
        self.fetches.entry(*of).or_default().asked.insert(*digest);
        let until = waited_until(world, organization, of);
        if until.is_none_or(|(until, _)| world.now() > until + SLACK) {
            self.breaks("no store is asked when nobody waits any more", of.hex());
        }
    }

    /// Nothing happens any more.
    pub(super) fn fetches_are_done(&mut self, world: &World) {
        /// Faults that take time or messages from a fetch, and say nothing of it.
        const DISTURBS: [Fault; 15] = [
            Fault::ReadFails,
            Fault::WriteRefused,
            Fault::WriteAmbiguous,
            Fault::WriteLate,
            Fault::SendFails,
            Fault::SendPartly,
            Fault::SendAmbiguous,
            Fault::SendDelayed,
            Fault::TableDown,
            Fault::QueueDown,
            Fault::BucketDown,
            Fault::SecretsDown,
            Fault::QueueStopped,
            Fault::Slow,
            Fault::Crash,
        ];
        if DISTURBS.iter().any(|fault| world.faults.is_on(*fault)) {
            return;
        }
        let artifacts = world.artifacts.borrow();
        for (digest, artifact) in artifacts.iter() {
            let Artifact {
                organization, of, ..
            } = artifact;
            // Nothing else is asked for before the attestation is proven.
            let proof = self.proofs.get(of).map(|proof| artifacts.get(proof));
            let is_proven =
                proof.is_none_or(|bundle| bundle.is_some_and(|bundle| bundle.habit == Habit::Good));
            if !is_proven && !artifact.is_bundle {
                continue;
            }
            let many = artifacts.values().filter(|other| other.of == *of).count();
            let round = (LONGEST + TURN) * u32::try_from(many).expect("few");
            let has_time = |(_, patience)| patience > round + Duration::from_millis(SLACK);
            if !waited_until(world, organization, of).is_some_and(has_time) {
                continue;
            }
            let asked = self.fetches.get(of).map(|fetch| &fetch.asked);
            let is_asked = asked.is_some_and(|asked| asked.contains(digest));
            let there = ready(world.memory.object_size(organization, digest));
            let is_there = there.is_ok_and(|there| there.is_some());
            let detail = || format!("{digest} of {}", of.hex());
            if !is_asked {
                return self.breaks("each missing material is asked for", detail());
            }
            if artifact.habit == Habit::Good && !is_there {
                return self.breaks("what a store has is fetched", detail());
            }
        }
    }
}
