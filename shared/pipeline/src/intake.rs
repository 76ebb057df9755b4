//! Takes an attestation in: read, kept by digest, planned, written down whole, and only then sent.
//!
//! The same attestation again, or a hundred times at once, gives the same ids and sends nothing again:
//! its identity is the envelope's hash, its deliveries' ids follow from it, and every row is written only
//! if it is not there. What a crash cuts off, the reconciler completes from the plan that was written.

use std::collections::{BTreeMap, BTreeSet};

use attestation::Digest;
use bytes::Bytes;
use futures_util::future::{try_join, try_join_all};
use integrations::Workflow;
use tracing::warn;

use crate::plans;
use crate::platform::{Etag, Expect, Platform, Unreachable, WriteError};
use crate::rows::{
    self, Attestation, Link, Plan, Planned, Received, Row, Seen, Selector, Stage, Stored, Why,
};
use crate::schedule;

/// By how many further digests an attestation can be found: a row has its limits, and whoever sends the same envelope
/// in more forms than that still gets the same answer.
const FORMS: usize = 100;

/// How often a write that met another is tried over.
pub(crate) const CONFLICTS: usize = 5;

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
    #[error(
        "the attestation's workflow has an id, a project or a name of more than {NAME_MAX_BYTES} bytes"
    )]
    WorkflowTooLong,
    #[error("{0} of the attestation has more than {NAME_MAX_BYTES} bytes")]
    NameTooLong(&'static str),
    #[error(
        "the workflow has {0} attachments, and an attestation goes to at most {most}",
        most = schedule::PLAN_MOST
    )]
    TooManyAttachments(usize),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

/// The longest name that an attestation may have in it: it stands in keys and rows, which have limits.
pub const NAME_MAX_BYTES: usize = 512;

/// What was taken in, now or before.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub attestation: Attestation,
    /// As it was when the attestation was accepted first.
    pub plan: Plan,
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
    accepted(platform, organization, bytes, parsed, &workflow).await
}

/// As [`intake`], of what a Chainloop control plane forwards: the statement says which workflow it is from, and
/// `origin` only where that does not. It is not asked to agree, since a workflow may have been renamed meanwhile,
/// and what stands beside the envelope is signed by nobody.
pub async fn forwarded(
    platform: &impl Platform,
    organization: &str,
    bytes: Bytes,
    origin: &Workflow,
) -> Result<Accepted, Error> {
    let parsed = attestation::Attestation::parse(&bytes)?;
    let said = (!origin.id.is_empty() || !origin.name.is_empty()).then(|| origin.clone());
    let workflow = says(&parsed).or(said).ok_or(Error::WorkflowMissing)?;
    accepted(platform, organization, bytes, parsed, &workflow).await
}

/// Takes in what was read already, for whatever is attached to its workflow now.
async fn accepted(
    platform: &impl Platform,
    organization: &str,
    bytes: Bytes,
    parsed: attestation::Attestation,
    workflow: &Workflow,
) -> Result<Accepted, Error> {
    let planned = planned(platform, organization, workflow);
    let why = Why::Accepted;
    take(
        platform,
        organization,
        bytes,
        parsed,
        workflow,
        planned,
        why,
    )
    .await
}

/// Takes in what was read already, for whom `planned` says.
pub(crate) async fn take(
    platform: &impl Platform,
    organization: &str,
    bytes: Bytes,
    parsed: attestation::Attestation,
    workflow: &Workflow,
    planned: impl Future<Output = Result<Vec<Planned>, Unreachable>>,
    why: Why,
) -> Result<Accepted, Error> {
    let parts = [&workflow.id, &workflow.project, &workflow.name];
    if parts.iter().any(|part| part.len() > NAME_MAX_BYTES) {
        return Err(Error::WorkflowTooLong);
    }
    let is_long = |text: &str| text.len() > NAME_MAX_BYTES;
    if parsed
        .materials()
        .iter()
        .any(|material| is_long(&material.name))
    {
        return Err(Error::NameTooLong("the name of a material"));
    }
    if is_long(&parsed.statement.predicate_type) {
        return Err(Error::NameTooLong("the predicate type"));
    }
    let run = parsed
        .predicate()
        .map(|predicate| &predicate.metadata.workflow_run_id);
    if run.is_some_and(|run| is_long(run)) {
        return Err(Error::NameTooLong("the id of the workflow run"));
    }
    let kept = platform.put_object(organization, &parsed.received, bytes.clone());
    let known = known(platform, organization, &parsed.hash);
    let seen = seen(platform, organization, workflow);
    let promised = promised(&parsed);
    let (planned, (((), ()), known), missing) = try_join3(
        planned,
        try_join(try_join(kept, seen), known),
        missing(platform, organization, &promised),
    )
    .await?;
    let received = parsed.received;
    let (mut attestation, plan, repeated) = match known {
        Some((attestation, plan)) => (attestation, plan, true),
        None => {
            if planned.len() > schedule::PLAN_MOST {
                return Err(Error::TooManyAttachments(planned.len()));
            }
            match accept(
                platform,
                organization,
                &bytes,
                &parsed,
                workflow,
                planned,
                why,
            )
            .await
            {
                Ok((attestation, plan)) => (attestation, plan, false),
                // A hundred at once: one wrote it, this one reads it.
                Err(WriteError::Conflict) => {
                    let known = self::known(platform, organization, &parsed.hash).await?;
                    let (attestation, plan) = known.ok_or_else(|| Unreachable {
                        what: "table",
                        why: "a row that exists could not be read".into(),
                    })?;
                    (attestation, plan, true)
                }
                Err(WriteError::Unreachable(unreachable)) => return Err(unreachable.into()),
            }
        }
    };
    if repeated {
        attestation = join(platform, attestation, &received).await?;
    }
    let plan = plans::written(platform, plan).await?;
    let accepted = Accepted {
        attestation: attestation.row,
        plan: plan.row.clone(),
        repeated,
        missing,
    };
    // Whoever wrote it first sends it; if that one was cut off, the reconciler does.
    if !repeated && let Err(unreachable) = plans::send(platform, plan, false).await {
        // Accepted all the same: the outbox mark stands.
        warn!(error = %unreachable, "Messages left to the reconciler");
    }
    Ok(accepted)
}

/// An attestation and the plan of its acceptance: both were written in one transaction.
async fn known(
    platform: &impl Platform,
    organization: &str,
    hash: &Digest,
) -> Result<Option<(Stored<Attestation>, Stored<Plan>)>, Unreachable> {
    let (attestation_at, plan_at) = (
        Attestation::at(organization, hash),
        Plan::at(organization, hash, 0),
    );
    let attestation = rows::load::<Attestation>(platform, &attestation_at);
    let plan = rows::load::<Plan>(platform, &plan_at);
    let (attestation, plan) = try_join(attestation, plan).await?;
    Ok(attestation.map(|attestation| {
        // A redelivery lets the attestation live longer than the plan of its acceptance.
        let plan = plan.unwrap_or_else(|| {
            let at = attestation.row.created_at;
            let mut row = plans::new(&attestation.row, 0, Why::Accepted, None, Vec::new(), at);
            (row.stage, row.wake_at) = (Stage::Closed, None);
            let etag = Etag(String::new());
            Stored { row, etag }
        });
        (attestation, plan)
    }))
}

/// Remembers that the workflow exists, before anything of it does: a backfill walks those that were seen.
async fn seen(
    platform: &impl Platform,
    organization: &str,
    workflow: &Workflow,
) -> Result<(), Unreachable> {
    let row = Seen {
        organization: organization.to_owned(),
        workflow: workflow.clone(),
        first_seen_at: platform.now(),
    };
    if platform.get(&row.key()).await?.is_some() {
        return Ok(());
    }
    match platform
        .write(vec![rows::put(platform, &row, Expect::Absent).0])
        .await
    {
        Ok(()) | Err(WriteError::Conflict) => Ok(()),
        Err(WriteError::Unreachable(unreachable)) => Err(unreachable),
    }
}

async fn try_join3<A, B, C>(
    a: impl Future<Output = Result<A, Unreachable>>,
    b: impl Future<Output = Result<B, Unreachable>>,
    c: impl Future<Output = Result<C, Unreachable>>,
) -> Result<(A, B, C), Unreachable> {
    let ((a, b), c) = try_join(try_join(a, b), c).await?;
    Ok((a, b, c))
}

/// Which workflow an attestation says that it belongs to.
fn says(parsed: &attestation::Attestation) -> Option<Workflow> {
    let says = parsed.predicate().map(|predicate| Workflow {
        id: predicate.metadata.workflow_id.clone(),
        project: predicate.metadata.project.clone(),
        name: predicate.metadata.workflow().to_owned(),
    });
    says.filter(|says| !says.name.is_empty() || !says.id.is_empty())
}

/// Which workflow an attestation belongs to: what it says itself, else what its sender says.
fn workflow(parsed: &attestation::Attestation, said: Option<&Workflow>) -> Result<Workflow, Error> {
    match (says(parsed), said) {
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
async fn planned(
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
    let planned: BTreeMap<String, Planned> = found
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
    Ok(planned.into_values().collect())
}

/// Digests of materials that an attestation names and does not bring along.
pub(crate) fn promised(parsed: &attestation::Attestation) -> BTreeSet<Digest> {
    let materials = parsed.materials().iter();
    materials
        .filter(|material| material.uploaded_to_cas && material.content.is_none())
        .filter_map(|material| material.digest)
        .collect()
}

/// Those of these digests that are not there; those that are stay for a whole retention.
pub(crate) async fn missing(
    platform: &impl Platform,
    organization: &str,
    promised: impl IntoIterator<Item = &Digest>,
) -> Result<Vec<Digest>, Unreachable> {
    let sizes = try_join_all(promised.into_iter().map(|digest| async move {
        Ok((*digest, platform.keep_object(organization, digest).await?))
    }))
    .await?;
    Ok(sizes
        .into_iter()
        .filter(|(_, size)| size.is_none())
        .map(|(digest, _)| digest)
        .collect())
}

/// Writes the attestation and its plan, and the deliveries too where they fit into the same transaction.
async fn accept(
    platform: &impl Platform,
    organization: &str,
    bytes: &Bytes,
    parsed: &attestation::Attestation,
    workflow: &Workflow,
    planned: Vec<Planned>,
    why: Why,
) -> Result<(Stored<Attestation>, Stored<Plan>), WriteError> {
    let now = platform.now();
    let run = parsed
        .predicate()
        .map(|predicate| predicate.metadata.workflow_run_id.clone());
    let attestation = Attestation {
        organization: organization.to_owned(),
        hash: parsed.hash,
        received: parsed.received,
        size_bytes: bytes.len() as u64,
        also: BTreeSet::new(),
        fetched_by: None,
        run: run.unwrap_or_default(),
        workflow: workflow.clone(),
        predicate_type: parsed.statement.predicate_type.clone(),
        plans: 1,
        planned_at: now,
        created_at: now,
    };
    let received = Received {
        organization: attestation.organization.clone(),
        received: attestation.received,
        hash: attestation.hash,
        created_at: now,
    };
    let plan = plans::new(&attestation, 0, why, None, planned, now);
    let (row, etag) = rows::put(platform, &attestation, Expect::Absent);
    let beside = vec![row, rows::put(platform, &received, Expect::Absent).0];
    let plan = plans::write(platform, plan, beside).await?;
    Ok((
        Stored {
            row: attestation,
            etag,
        },
        plan,
    ))
}

/// Adds other bytes with the same envelope to what is known of an attestation.
async fn join(
    platform: &impl Platform,
    mut stored: Stored<Attestation>,
    received: &Digest,
) -> Result<Stored<Attestation>, Unreachable> {
    for _ in 0..CONFLICTS {
        let is_known = stored.row.received == *received || stored.row.also.contains(received);
        if is_known || stored.row.also.len() >= FORMS {
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
            Err(WriteError::Conflict) => stored = reload(platform, stored).await?,
            Err(WriteError::Unreachable(unreachable)) => return Err(unreachable),
        }
    }
    Ok(stored)
}

/// The row as it is now, to try over what met another write.
pub(crate) async fn reload<R: rows::Row>(
    platform: &impl Platform,
    stale: Stored<R>,
) -> Result<Stored<R>, Unreachable> {
    let row = rows::load(platform, &stale.row.key()).await?;
    row.ok_or_else(|| Unreachable {
        what: "table",
        why: "a row is gone that was there".into(),
    })
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
