//! Takes an attestation in: read, kept by digest, planned, written down whole, and only then sent.
//!
//! The same attestation again, or a hundred times at once, gives the same ids and sends nothing again:
//! its identity is the envelope's hash, its deliveries' ids follow from it, and every row is written only
//! if it is not there. What a crash cuts off, [`finish`] completes from what was written.

use std::collections::BTreeMap;
use std::time::Duration;

use attestation::Digest;
use bytes::Bytes;
use futures_util::future::{join_all, try_join, try_join_all};
use integrations::Workflow;
use tracing::warn;

use crate::clock::Timestamp;
use crate::ledger::{self, Message};
use crate::platform::{Expect, Platform, Unreachable, Write, WriteError};
use crate::rows::{
    self, Acceptance, Attestation, Delivery, Link, Planned, Received, Selector, State, Stored,
};
use crate::schedule;

/// Messages to a queue in one call.
const BATCH: usize = 10;

/// How often a write that met another is tried over.
const CONFLICTS: usize = 5;

/// Why an attestation was not taken in. Nothing of it is kept, except for [`Error::Unreachable`], after
/// which the sender does not know and posts again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] attestation::Error),
    #[error(
        "the attestation does not say which workflow it belongs to: name it with `workflow` \
         (an id, or project/name)"
    )]
    WorkflowMissing,
    #[error("the attestation says it belongs to {says}, not to {said}")]
    WorkflowOther { says: String, said: String },
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

/// What was taken in, now or before.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub attestation: Attestation,
    /// It was there already.
    pub repeated: bool,
    /// Digests of materials that its deliveries will wait for.
    pub missing: Vec<Digest>,
}

/// Takes in the bytes of an envelope or a bundle. `said` is what the sender says of the workflow.
pub async fn intake(
    platform: &impl Platform,
    organization: &str,
    bytes: Bytes,
    said: Option<&Workflow>,
) -> Result<Accepted, Error> {
    let parsed = attestation::Attestation::parse(&bytes)?;
    let workflow = workflow(&parsed, said)?;
    let key = Attestation::at(organization, &parsed.hash);

    let kept = platform.put_object(organization, &parsed.received, bytes.clone());
    let known = rows::load::<Attestation>(platform, &key);
    let (plan, ((), known), missing) = try_join3(
        plan(platform, organization, &workflow),
        try_join(kept, known),
        missing(platform, organization, &parsed),
    )
    .await?;

    let (stored, repeated) = match known {
        Some(stored) => (stored, true),
        None => {
            let now = platform.now();
            let attestation = Attestation {
                organization: organization.to_owned(),
                hash: parsed.hash,
                received: parsed.received,
                size_bytes: bytes.len() as u64,
                also: std::collections::BTreeSet::new(),
                run: parsed
                    .predicate()
                    .map(|predicate| predicate.metadata.workflow_run_id.clone())
                    .unwrap_or_default(),
                workflow,
                predicate_type: parsed.statement.predicate_type.clone(),
                acceptance: Acceptance::Accepting,
                unsent: true,
                plan,
                created_at: now,
                wake_at: Some(now.plus(schedule::UNFINISHED)),
            };
            match accept(platform, attestation).await {
                Ok(stored) => (stored, false),
                // A hundred at once: one wrote it, this one reads it.
                Err(WriteError::Conflict) => {
                    let stored = rows::load(platform, &key)
                        .await?
                        .ok_or_else(|| Unreachable {
                            what: "table",
                            why: "a row that exists could not be read".into(),
                        })?;
                    (stored, true)
                }
                Err(WriteError::Unreachable(unreachable)) => return Err(unreachable.into()),
            }
        }
    };
    let stored = if repeated {
        join(platform, stored, &parsed.received).await?
    } else {
        stored
    };
    let stored = written(platform, stored).await?;
    let attestation = stored.row.clone();
    // Whoever wrote it first sends it; if that one was cut off, the reconciler does.
    if !repeated && let Err(unreachable) = send(platform, stored, false).await {
        // Accepted all the same: the outbox mark stands.
        warn!(error = %unreachable, "Messages left to the reconciler");
    }
    Ok(Accepted {
        attestation,
        repeated,
        missing,
    })
}

async fn try_join3<A, B, C>(
    a: impl Future<Output = Result<A, Unreachable>>,
    b: impl Future<Output = Result<B, Unreachable>>,
    c: impl Future<Output = Result<C, Unreachable>>,
) -> Result<(A, B, C), Unreachable> {
    let ((a, b), c) = try_join(try_join(a, b), c).await?;
    Ok((a, b, c))
}

/// Which workflow an attestation belongs to: what it says itself, else what its sender says.
fn workflow(parsed: &attestation::Attestation, said: Option<&Workflow>) -> Result<Workflow, Error> {
    let says = parsed.predicate().map(|predicate| Workflow {
        id: predicate.metadata.workflow_id.clone(),
        project: predicate.metadata.project.clone(),
        name: predicate.metadata.workflow().to_owned(),
    });
    let says = says.filter(|says| !says.name.is_empty() || !says.id.is_empty());
    match (says, said) {
        (None, None) => Err(Error::WorkflowMissing),
        (None, Some(said)) => Ok(said.clone()),
        (Some(says), None) => Ok(says),
        (Some(says), Some(said)) => {
            let same = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
            if same(&says.id, &said.id)
                && same(&says.project, &said.project)
                && same(&says.name, &said.name)
            {
                Ok(says)
            } else {
                let name = |workflow: &Workflow| {
                    if workflow.name.is_empty() {
                        workflow.id.clone()
                    } else {
                        format!("{}/{}", workflow.project, workflow.name)
                    }
                };
                Err(Error::WorkflowOther {
                    says: name(&says),
                    said: name(said),
                })
            }
        }
    }
}

/// The attachments that a workflow has now, each once, in the order of their ids.
async fn plan(
    platform: &impl Platform,
    organization: &str,
    workflow: &Workflow,
) -> Result<Vec<Planned>, Unreachable> {
    let selectors = Selector::of(workflow);
    let partitions: Vec<String> = selectors
        .iter()
        .map(|selector| Link::of_workflow(organization, selector))
        .collect();
    let found = try_join_all(
        partitions
            .iter()
            .map(|partition| rows::load_all::<Link>(platform, partition, Link::PREFIX)),
    )
    .await?;
    let plan: BTreeMap<String, Planned> = found
        .into_iter()
        .flatten()
        .map(|Stored { row, .. }| {
            let planned = Planned {
                attachment: row.attachment.clone(),
                registration: row.registration,
                integration: row.integration,
            };
            (row.attachment, planned)
        })
        .collect();
    Ok(plan.into_values().collect())
}

/// Digests of materials that were promised and are not there.
async fn missing(
    platform: &impl Platform,
    organization: &str,
    parsed: &attestation::Attestation,
) -> Result<Vec<Digest>, Unreachable> {
    let promised: std::collections::BTreeSet<Digest> = parsed
        .materials()
        .iter()
        .filter(|material| material.uploaded_to_cas && material.content.is_none())
        .filter_map(|material| material.digest)
        .collect();
    let sizes = try_join_all(promised.iter().map(|digest| async move {
        Ok((*digest, platform.keep_object(organization, digest).await?))
    }))
    .await?;
    Ok(sizes
        .into_iter()
        .filter(|(_, size)| size.is_none())
        .map(|(digest, _)| digest)
        .collect())
}

/// Writes the attestation's rows: everything in one transaction where that fits.
async fn accept(
    platform: &impl Platform,
    mut attestation: Attestation,
) -> Result<Stored<Attestation>, WriteError> {
    let now = attestation.created_at;
    let fits = attestation.plan.len() <= schedule::DELIVERIES_PER_TRANSACTION;
    if fits {
        attestation.acceptance = Acceptance::Accepted;
        if attestation.plan.is_empty() {
            attestation.unsent = false;
            attestation.wake_at = None;
        }
    }
    let (row, etag) = rows::put(platform, &attestation, Expect::Absent);
    let received = Received {
        organization: attestation.organization.clone(),
        received: attestation.received,
        hash: attestation.hash,
        created_at: now,
    };
    let mut writes = vec![row, rows::put(platform, &received, Expect::Absent).0];
    if fits {
        writes.extend(deliveries(platform, &attestation, now, |_| true));
    }
    platform.write(writes).await?;
    Ok(Stored {
        row: attestation,
        etag,
    })
}

fn deliveries(
    platform: &impl Platform,
    attestation: &Attestation,
    now: Timestamp,
    wanted: impl Fn(&str) -> bool,
) -> Vec<Write> {
    attestation
        .deliveries()
        .filter(|(id, _)| wanted(id))
        .map(|(id, planned)| {
            let delivery = ledger::begin(attestation, planned, id, now);
            rows::put(platform, &delivery, Expect::Absent).0
        })
        .collect()
}

/// Adds other bytes with the same envelope to what is known of an attestation.
async fn join(
    platform: &impl Platform,
    mut stored: Stored<Attestation>,
    received: &Digest,
) -> Result<Stored<Attestation>, Unreachable> {
    for _ in 0..CONFLICTS {
        if stored.row.received == *received || stored.row.also.contains(received) {
            return Ok(stored);
        }
        stored.row.also.insert(*received);
        let pointer = Received {
            organization: stored.row.organization.clone(),
            received: *received,
            hash: stored.row.hash,
            created_at: stored.row.created_at,
        };
        let (row, etag) = stored.update(platform);
        let (pointer, _) = rows::put(platform, &pointer, Expect::Absent);
        match platform.write(vec![row, pointer]).await {
            Ok(()) => {
                return Ok(Stored {
                    row: stored.row,
                    etag,
                });
            }
            Err(WriteError::Conflict) => stored = reload(platform, &stored.row).await?,
            Err(WriteError::Unreachable(unreachable)) => return Err(unreachable),
        }
    }
    Ok(stored)
}

async fn reload(
    platform: &impl Platform,
    attestation: &Attestation,
) -> Result<Stored<Attestation>, Unreachable> {
    let key = Attestation::at(&attestation.organization, &attestation.hash);
    rows::load(platform, &key)
        .await?
        .ok_or_else(|| Unreachable {
            what: "table",
            why: "the attestation's row is gone".into(),
        })
}

/// Makes sure that every delivery of the plan is written, from the snapshot and not from today's
/// attachments, and that the attestation says so.
async fn written(
    platform: &impl Platform,
    mut stored: Stored<Attestation>,
) -> Result<Stored<Attestation>, Unreachable> {
    for _ in 0..CONFLICTS {
        if stored.row.acceptance == Acceptance::Accepted {
            return Ok(stored);
        }
        let now = platform.now();
        let ids: Vec<String> = stored.row.deliveries().map(|(id, _)| id).collect();
        for chunk in ids.chunks(schedule::DELIVERIES_PER_TRANSACTION) {
            let writes = deliveries(platform, &stored.row, now, |id| {
                chunk.iter().any(|one| one == id)
            });
            match platform.write(writes).await {
                Ok(()) => {}
                Err(WriteError::Conflict) => rest(platform, &stored.row, chunk, now).await?,
                Err(WriteError::Unreachable(unreachable)) => return Err(unreachable),
            }
        }
        stored.row.acceptance = Acceptance::Accepted;
        let (write, etag) = stored.update(platform);
        match platform.write(vec![write]).await {
            Ok(()) => {
                return Ok(Stored {
                    row: stored.row,
                    etag,
                });
            }
            Err(WriteError::Conflict) => stored = reload(platform, &stored.row).await?,
            Err(WriteError::Unreachable(unreachable)) => return Err(unreachable),
        }
    }
    Err(Unreachable {
        what: "table",
        why: "the attestation's row would not hold still".into(),
    })
}

/// Writes what is missing of a chunk, of which some is there: it was cut off, or somebody else is at it too.
async fn rest(
    platform: &impl Platform,
    attestation: &Attestation,
    chunk: &[String],
    now: Timestamp,
) -> Result<(), Unreachable> {
    let keys: Vec<_> = chunk
        .iter()
        .map(|id| Delivery::at(&attestation.organization, id))
        .collect();
    for _ in 0..CONFLICTS {
        let there: std::collections::HashSet<String> = rows::load_many::<Delivery>(platform, &keys)
            .await?
            .into_iter()
            .map(|stored| stored.row.id)
            .collect();
        let missing = |id: &str| chunk.iter().any(|one| one == id) && !there.contains(id);
        let writes = deliveries(platform, attestation, now, missing);
        if writes.is_empty() {
            return Ok(());
        }
        match platform.write(writes).await {
            Ok(()) => return Ok(()),
            Err(WriteError::Conflict) => {}
            Err(WriteError::Unreachable(unreachable)) => return Err(unreachable),
        }
    }
    Err(Unreachable {
        what: "table",
        why: "the deliveries' rows would not hold still".into(),
    })
}

/// Sends a message for every delivery and then takes the outbox mark away. With `look`, only for those
/// that nobody has claimed yet.
async fn send(
    platform: &impl Platform,
    mut stored: Stored<Attestation>,
    look: bool,
) -> Result<(), Unreachable> {
    if !stored.row.unsent {
        return Ok(());
    }
    let attestation = &stored.row;
    let unclaimed: Option<std::collections::HashSet<String>> = if look {
        let keys: Vec<_> = attestation
            .deliveries()
            .map(|(id, _)| Delivery::at(&attestation.organization, &id))
            .collect();
        let deliveries = rows::load_many::<Delivery>(platform, &keys).await?;
        Some(
            deliveries
                .into_iter()
                .map(|stored| stored.row)
                .filter(|delivery| delivery.state == State::Pending && delivery.attempt == 1)
                .map(|delivery| delivery.id)
                .collect(),
        )
    } else {
        None
    };
    let mut queues: BTreeMap<&str, Vec<crate::platform::Message>> = BTreeMap::new();
    for (id, planned) in attestation.deliveries() {
        if unclaimed
            .as_ref()
            .is_some_and(|unclaimed| !unclaimed.contains(&id))
        {
            continue;
        }
        let message = Message {
            v: Message::VERSION,
            organization: attestation.organization.clone(),
            delivery: id,
            attempt: 1,
        };
        queues
            .entry(&planned.integration)
            .or_default()
            .push(message.send_after(Duration::ZERO));
    }
    let batches = queues
        .iter()
        .flat_map(|(queue, messages)| messages.chunks(BATCH).map(move |batch| (*queue, batch)));
    let answers = join_all(batches.map(|(queue, batch)| platform.send(queue, batch))).await;
    for answer in answers {
        for entry in answer? {
            entry.map_err(|why| Unreachable { what: "queue", why })?;
        }
    }
    for _ in 0..CONFLICTS {
        stored.row.unsent = false;
        stored.row.wake_at = None;
        let (write, _) = stored.update(platform);
        match platform.write(vec![write]).await {
            Ok(()) => return Ok(()),
            Err(WriteError::Conflict) => stored = reload(platform, &stored.row).await?,
            Err(WriteError::Unreachable(unreachable)) => return Err(unreachable),
        }
    }
    Ok(())
}

/// Completes an attestation that was cut off: what is not written is written, what may not be sent is sent.
pub async fn finish(
    platform: &impl Platform,
    stored: Stored<Attestation>,
) -> Result<(), Unreachable> {
    let stored = written(platform, stored).await?;
    send(platform, stored, true).await
}

/// The attestation with this digest, of its envelope or of bytes as received.
pub async fn find(
    platform: &impl Platform,
    organization: &str,
    digest: &Digest,
) -> Result<Option<Attestation>, Unreachable> {
    let (hash, received) = (
        Attestation::at(organization, digest),
        Received::at(organization, digest),
    );
    let by_hash = rows::load::<Attestation>(platform, &hash);
    let by_bytes = rows::load::<Received>(platform, &received);
    match try_join(by_hash, by_bytes).await? {
        (Some(stored), _) => Ok(Some(stored.row)),
        (None, Some(pointer)) => {
            let key = Attestation::at(organization, &pointer.row.hash);
            Ok(rows::load(platform, &key).await?.map(|stored| stored.row))
        }
        (None, None) => Ok(None),
    }
}
