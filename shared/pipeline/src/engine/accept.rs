//! Accepts an attestation: read, judged, kept by digest, planned, written down whole, and only then sent.
//!
//! The same attestation again, or a hundred times at once, gives the same ids and sends nothing again:
//! its identity is the envelope's hash, its deliveries' ids follow from it, and every row is written only
//! if it is not there. What a crash cuts off, the reconciler completes from the plan that was written.

use std::collections::{BTreeMap, BTreeSet};

use api::trust::{Outcome, Verdict};
use api::workflows::{Match, Selector, Workflow};
use api::{Actor, AttachmentId, Trace};
use attestation::Digest;
use bytes::Bytes;
use futures_util::future::{join as both, try_join, try_join_all, try_join3};
use tracing::warn;

use crate::config::quotas::{self, Exceeded};
use crate::engine::signatures::{self, Untrusted};
use crate::engine::{materials, plans};
use crate::ledger::schedule;
use crate::records::audit_log;
use crate::store::counts::{About, Metric};
use crate::store::meter::Used;
use crate::store::platform::{Platform, Scope, UnlessConflict as _, Unreachable};
use crate::store::rows::{
    self, AttachmentIndex, Attestation, DigestAlias, DigestIndex, Plan, PlanReason, Planned, Stage,
    Stored, TrustPolicyLink, Version, WorkflowLink, WorkflowRecord,
};

/// Maximum number of digests that it names by which an attestation can be found: each is a row of the transaction that
/// accepts it.
pub const DIGESTS: usize = 40;

/// Why an attestation was not accepted. Nothing of it is kept, except for [`Error::Unreachable`], after
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
        "the attestation names no workflow, and was accepted before as one of {0}: an envelope belongs to one workflow"
    )]
    WorkflowTaken(String),
    #[error(
        "the attestation's workflow has an id, a project or a name of more than {NAME_MAX_BYTES} bytes"
    )]
    WorkflowTooLong,
    #[error(
        "the {0} of the attestation's workflow has a control character, `*` or, in an id or a project, `/` in it"
    )]
    WorkflowMalformed(&'static str),
    #[error("this token or intake may not send attestations of the workflow {0}")]
    WorkflowNotAllowed(String),
    #[error("{0} of the attestation has more than {NAME_MAX_BYTES} bytes")]
    NameTooLong(&'static str),
    #[error(
        "the workflow has {0} attachments, and an attestation goes to at most {most}",
        most = schedule::PLAN_MOST
    )]
    TooManyAttachments(usize),
    #[error(transparent)]
    Untrusted(#[from] Box<Untrusted>),
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

impl From<signatures::Error> for Error {
    fn from(error: signatures::Error) -> Self {
        match error {
            signatures::Error::Untrusted(untrusted) => untrusted.into(),
            signatures::Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

/// The longest name that an attestation may have in it: it stands in keys and rows, which have limits.
pub const NAME_MAX_BYTES: usize = 512;

/// Attestation that was accepted, now or before.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub attestation: Attestation,
    /// Digest of the bytes that came now.
    pub received: Digest,
    /// As it was when the attestation was accepted first.
    pub plan: Plan,
    /// It was there already.
    pub repeated: bool,
    /// Digests of materials that were promised and are not there.
    pub missing: Vec<Digest>,
    /// Digests of the missing materials that a delivery waits for.
    pub awaited: Vec<Digest>,
}

impl Accepted {
    /// Reports whether something of it may be fetched: materials, or its bundle.
    pub fn lacks(&self) -> bool {
        !self.missing.is_empty() || signatures::awaited_bundle(&self.attestation).is_some()
    }
}

/// An attestation that was read and is to be accepted.
pub(crate) struct Incoming<'a> {
    pub(crate) bytes: Bytes,
    pub(crate) signatures: signatures::Admissible,
    /// As [`checked`] has it.
    pub(crate) workflow: Workflow,
    /// As the attestation's row has it.
    pub(crate) permitted: Vec<Match>,
    pub(crate) why: PlanReason,
    pub(crate) sender: Sender<'a>,
}

/// Sender of an attestation.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    pub actor: &'a Actor,
    /// Workflows that it may send; all, where there are none.
    pub workflows: &'a [Selector],
    /// Its trace, which deliveries go on with.
    pub trace: Option<Trace>,
}

impl<'a> From<&'a Actor> for Sender<'a> {
    fn from(actor: &'a Actor) -> Self {
        Self {
            actor,
            workflows: &[],
            trace: None,
        }
    }
}

/// Accepts the bytes of an envelope or a bundle. `said` is what the sender says of the workflow.
pub async fn pushed<'a>(
    scope: Scope<'_, impl Platform>,
    bytes: Bytes,
    said: Option<&Workflow>,
    sender: impl Into<Sender<'a>>,
) -> Result<Accepted, Error> {
    let parsed = attestation::Attestation::parse(&bytes)?;
    let workflow = workflow(&parsed, said)?;
    for_attached(scope, bytes, parsed, workflow, None, sender.into()).await
}

/// As [`pushed`], of what a Chainloop control plane forwards: the statement says which workflow it is from, and
/// `origin` only where that does not. It is not asked to agree, since a workflow may have been renamed meanwhile,
/// and what stands beside the envelope is signed by nobody. Only the workflows that the intake allows are accepted.
/// `bundle` is the digest of the bundle that can be fetched, if any: what it may prove is accepted and waits for it.
pub async fn forwarded<'a>(
    scope: Scope<'_, impl Platform>,
    bytes: Bytes,
    origin: &Workflow,
    bundle: Option<Digest>,
    sender: impl Into<Sender<'a>>,
) -> Result<Accepted, Error> {
    let parsed = attestation::Attestation::parse(&bytes)?;
    let workflow = match says(&parsed)? {
        Some(says) => says,
        None => checked(origin)?.ok_or(Error::WorkflowMissing)?,
    };
    for_attached(scope, bytes, parsed, workflow, bundle, sender.into()).await
}

/// Accepts what was read already, for whatever is attached to its workflow now.
async fn for_attached(
    scope: Scope<'_, impl Platform>,
    bytes: Bytes,
    parsed: attestation::Attestation,
    workflow: Workflow,
    bundle: Option<Digest>,
    sender: Sender<'_>,
) -> Result<Accepted, Error> {
    let allowed = sender.workflows;
    check_allowed(&workflow, allowed)?;
    let existing = existing(scope, &parsed.hash, &workflow);
    let (existing, (planned, policies)) = try_join(existing, linked(scope, &workflow)).await?;
    let row = existing.known.as_ref();
    let row = row.map(|(attestation, _)| &attestation.row);
    if let Some(row) = row {
        // Bytes that name no workflow may be another's already, and the answer tells where that one's go.
        check_allowed(&row.workflow, allowed)?;
        check_free(row, &workflow, &parsed)?;
    }
    let of_planned = planned.iter().filter_map(|one| one.matched);
    let reached = of_planned.chain(policies.iter().map(|(matched, _)| *matched));
    let permitted = permitted(&workflow, allowed);
    check_reached(&workflow, &permitted, reached)?;
    // What was accepted of another workflow was judged by others' policies.
    let own = row.filter(|row| row.workflow == workflow);
    let judging = signatures::judge(scope.platform, parsed, &bytes, policies, bundle, own);
    let signatures = judging.await?;
    let incoming = Incoming {
        bytes,
        signatures,
        workflow,
        permitted,
        why: PlanReason::Accepted,
        sender,
    };
    accept(scope, incoming, planned, existing).await
}

/// Refuses an envelope that names no workflow where it is another's already: it would not be delivered as this one's, and
/// nobody would know.
fn check_free(
    row: &Attestation,
    workflow: &Workflow,
    parsed: &attestation::Attestation,
) -> Result<(), Error> {
    if may_be_one(&row.workflow, workflow) || says(parsed)?.is_some() {
        return Ok(());
    }
    Err(Error::WorkflowTaken(audit_log::workflow(&row.workflow)))
}

fn check_allowed(workflow: &Workflow, allowed: &[Selector]) -> Result<(), Error> {
    if allowed.is_empty() || allowed.iter().any(|one| one.is_for(workflow)) {
        return Ok(());
    }
    Err(Error::WorkflowNotAllowed(audit_log::workflow(workflow)))
}

/// Returns the parts of a workflow by which a sender's attestation may be delivered: its ID, or its names, or all when empty.
/// The sender states both, so one vouches for nothing about the other.
fn permitted(workflow: &Workflow, allowed: &[Selector]) -> Vec<Match> {
    let may: Vec<Match> = allowed
        .iter()
        .filter_map(|one| one.matched(workflow))
        .collect();
    if allowed.is_empty() || may.contains(&Match::All) {
        return Vec::new();
    }
    let is_by_id = |matched: &Match| *matched == Match::Id;
    let (id, names) = (may.iter().any(is_by_id), !may.iter().all(is_by_id));
    let all = Match::ALL.into_iter();
    all.filter(|matched| match matched {
        Match::Id => id,
        Match::Name | Match::Project => names,
        Match::All => true,
    })
    .collect()
}

/// Refuses an attestation that would reach something by what it is not permitted for.
fn check_reached(
    workflow: &Workflow,
    permitted: &[Match],
    mut reached: impl Iterator<Item = Match>,
) -> Result<(), Error> {
    let foreign = reached.find(|one| !rows::permits(permitted, *one));
    match foreign.and_then(|matched| matched.selector(workflow)) {
        None => Ok(()),
        Some(selector) => Err(Error::WorkflowNotAllowed(selector.0)),
    }
}

/// Rows of an attestation that was accepted before.
type Known = (Stored<Attestation>, Stored<Plan>);

/// State before an attestation came.
pub(crate) struct Existing {
    known: Option<Known>,
    /// Its workflow is remembered.
    is_seen: bool,
}

/// Accepts what was judged already, for those who are `planned`.
pub(crate) async fn accept(
    scope: Scope<'_, impl Platform>,
    incoming: Incoming<'_>,
    planned: Vec<Planned>,
    existing: Existing,
) -> Result<Accepted, Error> {
    let (platform, organization) = scope.parts();
    let Incoming {
        signatures,
        workflow,
        ..
    } = &incoming;
    let parsed = signatures.judged.attestation();
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
    let received = parsed.received;
    let size_bytes = incoming.bytes.len() as u64;
    let known = existing.known.as_ref();
    let known = known.map(|(attestation, _)| &attestation.row);
    // What is kept already costs nothing; the same envelope in other bytes costs those. Nothing of what is refused is kept.
    let used = match known {
        None => Used::attestation(size_bytes),
        Some(row) if row.takes_form(&received) => Used::material(size_bytes),
        Some(_) => Used::default(),
    };
    quotas::daily(scope, used).await?;
    let is_to_keep = known.is_none_or(|row| row.has_form(&received) || row.takes_form(&received));
    let kept = async {
        if !is_to_keep {
            return Ok(());
        }
        let bytes = incoming.bytes.clone();
        platform.put_object(organization, &received, bytes).await
    };
    let seen = see(scope, workflow, existing.is_seen || known.is_some());
    let promised = materials::promised(parsed);
    let missing = materials::missing(scope, &promised);
    let ((), (), missing) = try_join3(kept, seen, missing).await?;
    let (mut attestation, plan, repeated) = match existing.known {
        Some((attestation, plan)) => (attestation, plan, true),
        None => {
            if planned.len() > schedule::PLAN_MOST {
                return Err(Error::TooManyAttachments(planned.len()));
            }
            match write(scope, &incoming, planned).await? {
                Some((attestation, plan)) => (attestation, plan, false),
                // A hundred at once: one wrote it, this one reads it.
                None => {
                    let existing = self::existing(scope, &parsed.hash, workflow).await?;
                    let (attestation, plan) = existing.known.ok_or_else(|| Unreachable {
                        what: "table",
                        why: "a row that exists could not be read".into(),
                    })?;
                    check_free(&attestation.row, workflow, parsed)?;
                    (attestation, plan, true)
                }
            }
        }
    };
    if repeated {
        let was_kept = attestation.row.has_form(&received);
        attestation = join(platform, attestation, &incoming, &received).await?;
        if !was_kept && attestation.row.has_form(&received) {
            quotas::count(scope, &received, Used::material(size_bytes)).await;
        }
    }
    let plan = plans::written(platform, plan).await?;
    let verdict = attestation.row.verdict.as_ref();
    // Accepted it is already, so what cannot be found out counts as waited for.
    let awaited = materials::awaited(platform, parsed, verdict, &plan.row, &missing).await;
    let awaited = awaited.unwrap_or_else(|_| missing.clone());
    let accepted = Accepted {
        attestation: attestation.row,
        received,
        plan: plan.row.clone(),
        repeated,
        missing,
        awaited,
    };
    // Whoever wrote it first sends it; if that one was cut off, the reconciler does.
    if !repeated {
        let counts = &platform.meter().counts;
        counts.count(About::default(), Metric::Accepted, 1);
        let planned = accepted.plan.planned.len() as u64;
        counts.count(About::default(), Metric::Planned, planned);
        let counted = quotas::count(scope, &parsed.hash, used);
        let (sent, ()) = both(plans::send(platform, &plan.row), counted).await;
        if let Err(unreachable) = sent {
            // Accepted all the same, and looked at in a minute.
            warn!(error = %unreachable, "Messages left to the reconciler");
        }
    }
    Ok(accepted)
}

/// Reads what there is of an attestation, of its workflow, and of the organization's quotas: a call for all. An
/// attestation and the plan of its acceptance were written in one transaction.
pub(crate) async fn existing(
    scope: Scope<'_, impl Platform>,
    hash: &Digest,
    workflow: &Workflow,
) -> Result<Existing, Unreachable> {
    let (platform, organization) = scope.parts();
    let (attestation, plan, seen) = (
        Attestation::at(organization, hash),
        Plan::at(organization, hash, 0),
        WorkflowRecord::at(organization, workflow),
    );
    let use_keys = quotas::unread(scope);
    let keys = [&attestation, &plan, &seen].into_iter().chain(&use_keys);
    let found = rows::find_many(platform, keys.cloned()).await?;
    quotas::learn(scope, &use_keys, found.items());
    let attestation = found.get::<Attestation>(&attestation)?;
    let plan = found.get::<Plan>(&plan)?;
    let is_seen = found.get::<WorkflowRecord>(&seen)?.is_some();
    let known = attestation.map(|attestation| {
        // A redelivery lets the attestation live longer than the plan of its acceptance.
        let plan = plan.unwrap_or_else(|| {
            let at = attestation.row.created_at;
            let mut row = plans::new(
                &attestation.row,
                0,
                PlanReason::Accepted,
                None,
                Vec::new(),
                at,
            );
            (row.stage, row.wake_at) = (Stage::Closed, None);
            let version = Version::default();
            Stored { row, version }
        });
        (attestation, plan)
    });
    Ok(Existing { known, is_seen })
}

/// Remembers that the workflow exists, before anything of it does: a backfill walks those that were seen.
async fn see(
    scope: Scope<'_, impl Platform>,
    workflow: &Workflow,
    is_seen: bool,
) -> Result<(), Unreachable> {
    if is_seen {
        return Ok(());
    }
    let (platform, organization) = scope.parts();
    let row = WorkflowRecord {
        organization: organization.to_owned(),
        workflow: workflow.clone(),
        first_seen_at: platform.now(),
    };
    let (write, _) = rows::insert(platform, &row);
    platform.write(vec![write]).await.unless_conflict()?;
    Ok(())
}

/// Returns the workflow that an attestation states, if any.
fn says(parsed: &attestation::Attestation) -> Result<Option<Workflow>, Error> {
    let Some(predicate) = parsed.predicate() else {
        return Ok(None);
    };
    checked(&Workflow {
        id: predicate.metadata.workflow_id.clone(),
        project: predicate.metadata.project.clone(),
        name: predicate.metadata.workflow().to_owned(),
    })
}

/// A workflow as a stranger names it, when it can be one: no part of it may be taken for a selector, since attachments
/// are found by those. An id is a UUID; one that is not, and is harmless, is as none. None when nothing is left.
fn checked(stated: &Workflow) -> Result<Option<Workflow>, Error> {
    let Workflow { id, project, name } = stated;
    for (what, is_plain) in [
        ("id", api::workflows::is_plain_part(id)),
        ("project", api::workflows::is_plain_part(project)),
        ("name", api::workflows::is_plain(name)),
    ] {
        if !is_plain {
            return Err(Error::WorkflowMalformed(what));
        }
    }
    if [id, project, name]
        .iter()
        .any(|part| part.len() > NAME_MAX_BYTES)
    {
        return Err(Error::WorkflowTooLong);
    }
    let id = api::workflows::workflow_id(id).unwrap_or_default();
    let is_named = !name.is_empty() || !id.is_empty();
    Ok(is_named.then(|| Workflow {
        id,
        project: project.clone(),
        name: name.clone(),
    }))
}

/// Reports whether both may name the same workflow: what both have is the same.
fn may_be_one(one: &Workflow, other: &Workflow) -> bool {
    let same = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
    same(&one.id, &other.id) && same(&one.project, &other.project) && same(&one.name, &other.name)
}

/// Returns an attestation's workflow: the one that it states itself, else the one that its sender states.
fn workflow(parsed: &attestation::Attestation, said: Option<&Workflow>) -> Result<Workflow, Error> {
    match (says(parsed)?, said) {
        (None, None) => Err(Error::WorkflowMissing),
        (None, Some(said)) => checked(said)?.ok_or(Error::WorkflowMissing),
        (Some(says), None) => Ok(says),
        (Some(says), Some(said)) => {
            if may_be_one(&says, said) {
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

/// The attachments that a workflow has now, each once, in the order of their ids; and its trust policies, most specific
/// first, with by what of the workflow they are for it.
async fn linked(
    scope: Scope<'_, impl Platform>,
    workflow: &Workflow,
) -> Result<(Vec<Planned>, Vec<(Match, TrustPolicyLink)>), Unreachable> {
    let (platform, organization) = scope.parts();
    let selectors = Match::ALL.into_iter().filter_map(|matched| {
        let selector = matched.selector(workflow)?;
        Some((
            matched,
            AttachmentIndex::of_workflow(organization, &selector),
        ))
    });
    let found = try_join_all(selectors.map(|(matched, partition)| async move {
        let links = rows::load_all::<WorkflowLink>(platform, &partition, "").await?;
        Ok::<_, Unreachable>(links.into_iter().map(move |link| (matched, link.row)))
    }))
    .await?;
    let mut planned = BTreeMap::<AttachmentId, Planned>::new();
    let mut policies = Vec::new();
    for (matched, link) in found.into_iter().flatten() {
        match link {
            WorkflowLink::Attachment(row) => {
                let one = Planned {
                    attachment: row.attachment.clone(),
                    registration: row.registration,
                    integration: row.integration,
                    matched: Some(matched),
                };
                planned.insert(row.attachment, one);
            }
            WorkflowLink::TrustPolicy(row) => policies.push((matched, row)),
        }
    }
    Ok((planned.into_values().collect(), policies))
}

/// Returns the digests by which an attestation is found besides its own: the first [`DIGESTS`] that it names, of its
/// subjects and then of its materials.
fn named(parsed: &attestation::Attestation) -> BTreeSet<Digest> {
    let subjects = parsed.statement.subjects.iter();
    let subjects = subjects.filter_map(|subject| subject.digests.get("sha256")?.parse().ok());
    let materials = parsed.materials().iter();
    let mut named = BTreeSet::new();
    for digest in subjects.chain(materials.filter_map(|material| material.digest)) {
        if named.len() == DIGESTS {
            break;
        }
        named.insert(digest);
    }
    named
}

/// Writes the attestation and its plan, and the deliveries too where they fit into the same transaction. None after a
/// conflict.
async fn write(
    scope: Scope<'_, impl Platform>,
    incoming: &Incoming<'_>,
    planned: Vec<Planned>,
) -> Result<Option<Known>, Unreachable> {
    let (platform, organization) = scope.parts();
    let now = platform.now();
    let Incoming {
        bytes,
        signatures,
        workflow,
        permitted,
        why,
        sender,
    } = incoming;
    let parsed = signatures.judged.attestation();
    let verdict = signatures.judged.verdict();
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
        pushed_by: Some(sender.actor.clone()),
        permitted: permitted.clone(),
        verdict: (verdict.outcome != Outcome::Off).then(|| verdict.clone()),
        bundle: signatures.bundle,
        is_unproven: signatures.is_unproven,
        trace: sender.trace,
        planned_at: now,
        created_at: now,
    };
    let received = DigestAlias {
        organization: attestation.organization.clone(),
        received: attestation.received,
        hash: attestation.hash,
        created_at: now,
    };
    let plan = plans::new(&attestation, 0, why.clone(), None, planned, now);
    let (row, version) = rows::insert(platform, &attestation);
    let mut beside = vec![row, rows::insert(platform, &received).0];
    beside.extend(named(parsed).into_iter().map(|digest| {
        let index = DigestIndex {
            organization: organization.to_owned(),
            digest,
            attestation: attestation.hash,
            created_at: now,
        };
        rows::insert(platform, &index).0
    }));
    let plan = plans::write(platform, plan, beside).await?;
    let row = attestation;
    Ok(plan.map(|plan| (Stored { row, version }, plan)))
}

/// Adds other bytes with the same envelope to what is known of an attestation. They may prove what the first did not,
/// where they are said to be of its workflow: another's policy trusts others. What was proven once stays so. A sender without
/// limits vouches for all that one with limits stated.
async fn join(
    platform: &impl Platform,
    mut stored: Stored<Attestation>,
    incoming: &Incoming<'_>,
    received: &Digest,
) -> Result<Stored<Attestation>, Unreachable> {
    let signatures::Admissible {
        judged,
        bundle,
        is_unproven,
    } = &incoming.signatures;
    let verdict = judged.verdict();
    let unproven = [Outcome::Unverifiable, Outcome::UnknownSigner];
    let was_unproven = |before: &Verdict| unproven.contains(&before.outcome);
    let changed = rows::change(platform, &mut stored, |row| {
        let is_its_own = row.workflow == incoming.workflow;
        let is_vouched = is_its_own && incoming.permitted.is_empty() && !row.permitted.is_empty();
        if is_vouched {
            row.permitted.clear();
        }
        let is_released = is_its_own && row.is_unproven && !is_unproven;
        let is_raised = is_its_own
            && verdict.outcome == Outcome::Verified
            && (is_released || row.verdict.as_ref().is_none_or(was_unproven));
        if is_raised {
            row.verdict = Some(verdict.clone());
        }
        let names_bundle = is_its_own
            && bundle.is_some_and(|bundle| row.bundle != Some(bundle) && !row.has_form(&bundle))
            && row.verdict.as_ref().is_none_or(signatures::lacks_bundle);
        if names_bundle {
            // Whoever sent it before named none, or another.
            (row.bundle, row.fetched_by) = (*bundle, None);
            row.verdict = Some(verdict.clone());
        }
        row.is_unproven &= !is_released;
        let form = row.add_form(*received);
        let is_changed = form.is_some() || is_vouched || is_raised || is_released || names_bundle;
        let alias = form.map(|alias| rows::insert(platform, &alias).0);
        is_changed.then(|| alias.into_iter().collect())
    });
    changed.await?.is_written("an attestation")?;
    Ok(stored)
}
