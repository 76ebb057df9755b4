//! Operator actions on deliveries: redeliver, cancel, test a registration.

use api::deliveries::State;
use api::workflows::{Match, Selector, Workflow};
use api::{AttachmentId, DeliveryId, JobId};
use attestation::{Digest, Metadata, Predicate, compose};
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::config::{self, pace};
use crate::engine::accept::{self, Accepted, Incoming};
use crate::engine::signatures::{self, Untrusted};
use crate::engine::{materials, plans, settle};
use crate::ledger::delivery;
use crate::records::audit_log::{Act, Subject};
use crate::store::ids;
use crate::store::platform::{Platform, Scope, UnlessConflict as _, Unreachable, Write};
use crate::store::rows::{
    self, Attachment, Attestation, Delivery, Plan, PlanReason, Planned, Registration, Stored,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no delivery {0:?}")]
    NotFound(DeliveryId),
    #[error("the delivery is being attempted just now; try again in a moment")]
    UnderWay,
    #[error("the delivery is {0} already")]
    Over(&'static str),
    #[error("its registration is paused: resume that")]
    Held,
    #[error("its {0} was deleted")]
    Gone(&'static str),
    #[error("somebody else changed it at the same time; try again")]
    Conflict,
    #[error("the attestation {0} may not be delivered again: {1}")]
    Untrusted(Digest, Box<Untrusted>),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

pub(crate) const fn name(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Delivering => "being attempted",
        State::Delivered => "delivered",
        State::Skipped => "skipped",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}

/// Delivers again for an operator: what is final gets a delivery of its own in a further plan, what waits is due at
/// once. Answers with the id of the delivery that is under way then. Where `request` says which request it is, the same
/// again is the same delivery.
pub async fn redeliver_for(
    platform: &impl Platform,
    delivery: &Delivery,
    request: Option<&str>,
    act: Act<'_>,
) -> Result<DeliveryId, Error> {
    let is_its_own = |plan: &Plan| request.is_some() && plan.job.as_deref() == request;
    let subject = Subject::delivery(platform, delivery).await?;
    let detail = format!("attestation {}", delivery.attestation);
    let entry = act.entry(
        Scope::new(platform, &delivery.organization),
        subject,
        detail,
    );
    if let Some(id) = again(platform, delivery, request, vec![entry], is_its_own).await? {
        return Ok(id);
    }
    let key = Attestation::at(&delivery.organization, &delivery.attestation);
    let stored = rows::load::<Attestation>(platform, &key).await?;
    let stored = stored.ok_or(Error::Gone("attestation"))?;
    let plans = plans::of(platform, &stored.row).await?;
    let plan = plans.iter().find(|plan| is_its_own(&plan.row));
    let id = plan.and_then(|plan| plan.row.deliveries().next().map(|(id, _)| id));
    id.ok_or(Error::Conflict)
}

/// Delivers again for a job, which takes what another one delivered again as done: none then.
pub(crate) async fn redeliver(
    platform: &impl Platform,
    delivery: &Delivery,
    job: &JobId,
) -> Result<Option<DeliveryId>, Error> {
    let already = |plan: &Plan| is_repeat(plan, delivery);
    again(platform, delivery, Some(job), Vec::new(), already).await
}

/// Reports whether a job would redeliver this final delivery.
pub(crate) async fn would_redeliver(
    platform: &impl Platform,
    delivery: &Delivery,
) -> Result<bool, Error> {
    let key = Attachment::at(&delivery.organization, &delivery.attachment);
    let attachment = rows::load::<Attachment>(platform, &key).await?;
    if attachment.is_none_or(|stored| stored.row.deleted_at.is_some()) {
        return Ok(false);
    }
    let key = Attestation::at(&delivery.organization, &delivery.attestation);
    let Some(mut stored) = rows::load::<Attestation>(platform, &key).await? else {
        return Ok(false);
    };
    let plans = plans::of(platform, &stored.row).await?;
    if plans.iter().any(|plan| is_repeat(&plan.row, delivery)) {
        return Ok(false);
    }
    check(platform, &mut stored, true).await?;
    Ok(true)
}

/// Judges an attestation before it is delivered again, and keeps what proves it, unless this is a dry run. Refuses what a
/// trust policy requires to be verified and is not.
pub(crate) async fn check(
    platform: &impl Platform,
    stored: &mut Stored<Attestation>,
    dry_run: bool,
) -> Result<(), Error> {
    let (organization, hash) = (stored.row.organization.clone(), stored.row.hash);
    let scope = Scope::new(platform, &organization);
    let judgement = signatures::judge_again(scope, &stored.row).await?;
    if let Some(untrusted) = judgement.refusal {
        return Err(Error::Untrusted(hash, untrusted));
    }
    if !dry_run {
        signatures::keep(platform, stored, judgement).await?;
    }
    Ok(())
}

/// Reports whether a later plan already repeats this delivery. A job counts that as done, even if the job itself added
/// the plan, in a page that was interrupted.
fn is_repeat(plan: &Plan, delivery: &Delivery) -> bool {
    let is_same = |planned: &Planned| planned.attachment == delivery.attachment;
    plan.generation > delivery.generation && plan.planned.iter().any(is_same)
}

async fn again(
    platform: &impl Platform,
    delivery: &Delivery,
    job: Option<&str>,
    beside: Vec<Write>,
    already: impl Fn(&Plan) -> bool,
) -> Result<Option<DeliveryId>, Error> {
    let organization = &delivery.organization;
    let attachment_at = Attachment::at(organization, &delivery.attachment);
    let attachment = rows::load::<Attachment>(platform, &attachment_at).await?;
    if attachment.is_none_or(|stored| stored.row.deleted_at.is_some()) {
        return Err(Error::Gone("attachment"));
    }
    match delivery.state {
        State::Delivering => return Err(Error::UnderWay),
        State::Pending => return expedite(platform, delivery, beside).await.map(Some),
        _ => {}
    }
    let key = Attestation::at(organization, &delivery.attestation);
    let Some(mut stored) = rows::load::<Attestation>(platform, &key).await? else {
        return Err(Error::Gone("attestation"));
    };
    check(platform, &mut stored, false).await?;
    keep(platform, &stored.row).await?;
    let selector = delivery.selector.as_ref();
    let planned = Planned {
        attachment: delivery.attachment.clone(),
        registration: delivery.registration.clone(),
        integration: delivery.integration.clone(),
        matched: selector.and_then(|selector| selector.matched(&delivery.workflow)),
    };
    let added = plans::Added {
        why: PlanReason::Redelivered,
        job,
        planned: vec![planned],
        beside,
    };
    let plan = plans::add(platform, stored, added, already).await?;
    Ok(plan.and_then(|plan| plan.deliveries().next().map(|(id, _)| id)))
}

/// Makes sure that an attestation's bytes outlive one more plan.
pub(crate) async fn keep(
    platform: &impl Platform,
    attestation: &Attestation,
) -> Result<(), Unreachable> {
    let Attestation {
        organization,
        received,
        ..
    } = attestation;
    platform.keep_object(organization, received).await?;
    let Some(bytes) = platform.get_object(organization, received).await? else {
        // The attempt finds it out and says so.
        return Ok(());
    };
    if let Ok(parsed) = attestation::Attestation::parse(&bytes) {
        materials::missing(
            Scope::new(platform, organization),
            &materials::promised(&parsed),
        )
        .await?;
    }
    Ok(())
}

async fn expedite(
    platform: &impl Platform,
    delivery: &Delivery,
    beside: Vec<Write>,
) -> Result<DeliveryId, Error> {
    let mut stored = find(Scope::new(platform, &delivery.organization), &delivery.id).await?;
    if stored.row.held_at.is_some() {
        return Err(Error::Held);
    }
    let settled = delivery::expedite(&mut stored.row, platform.now()).ok_or(Error::UnderWay)?;
    settle::settle_with(platform, &stored, settled, beside).await?;
    Ok(delivery.id.clone())
}

pub async fn find(
    scope: Scope<'_, impl Platform>,
    id: &DeliveryId,
) -> Result<Stored<Delivery>, Error> {
    let (platform, organization) = scope.parts();
    rows::load::<Delivery>(platform, &Delivery::at(organization, id))
        .await?
        .ok_or_else(|| Error::NotFound(id.to_owned()))
}

/// Cancels a delivery that waits. One that is being attempted cannot be called back.
pub async fn cancel(
    scope: Scope<'_, impl Platform>,
    id: &DeliveryId,
    act: Act<'_>,
) -> Result<Delivery, Error> {
    let platform = scope.platform;
    let mut stored = find(scope, id).await?;
    match stored.row.state {
        State::Pending => {}
        State::Delivering => return Err(Error::UnderWay),
        over => return Err(Error::Over(name(over))),
    }
    let reason = format!("cancelled by {}", act.actor.name);
    delivery::cancel(&mut stored.row, &reason, platform.now());
    let subject = Subject::delivery(platform, &stored.row).await?;
    let detail = format!("attestation {}", stored.row.attestation);
    let writes = vec![stored.update(platform).0, act.entry(scope, subject, detail)];
    if !platform.write(writes).await.unless_conflict()? {
        return Err(Error::Conflict);
    }
    Ok(stored.row)
}

/// The workflow that test attestations come from.
pub const TEST_PROJECT: &str = "chainloop-integrations";
pub const TEST_WORKFLOW: &str = "registration-test";

/// Sends a test attestation through a registration, by the way of every delivery: intake, ledger, queue, function.
pub async fn test(
    platform: &impl Platform,
    registration: &Registration,
    inputs: Map<String, Value>,
    id: Option<AttachmentId>,
    act: Act<'_>,
) -> Result<Accepted, config::Error> {
    let description = integrations::find(&registration.integration)
        .ok_or_else(|| config::Error::NoIntegration(registration.integration.clone()))?;
    let mut faults = (description.check_attachment)(&inputs);
    faults.extend(config::size_fault(&inputs));
    if !faults.is_empty() {
        return Err(config::Error::Faults(faults));
    }
    let organization = &registration.organization;
    let scope = Scope::new(platform, organization);
    let is_begun = match &id {
        Some(id) => {
            let key = Attachment::at(organization, id);
            rows::load::<Attachment>(platform, &key).await?.is_some()
        }
        None => false,
    };
    if !is_begun {
        pace::take(scope, act.actor).await?;
    }
    let mut attachment = Attachment {
        id: id.unwrap_or_else(|| ids::random(platform)),
        organization: organization.clone(),
        registration: registration.id.clone(),
        integration: registration.integration.clone(),
        workflow: Selector(format!("{TEST_PROJECT}/{TEST_WORKFLOW}")),
        config: inputs,
        // What it promises is there.
        wait_secs: Some(0),
        is_test: true,
        created_by: act.actor.name.clone(),
        created_at: platform.now(),
        deleted_at: None,
    };
    let subject = Subject::registration(registration);
    let writes = vec![
        rows::insert(platform, &attachment).0,
        act.entry(scope, subject, ""),
    ];
    if !platform.write(writes).await.unless_conflict()? {
        // A request that was cut off: it goes on with what it began.
        let key = Attachment::at(organization, &attachment.id);
        let begun = rows::load::<Attachment>(platform, &key).await?;
        attachment = begun.ok_or(config::Error::Conflict)?.row;
    }
    let bytes: Bytes = test_attestation(&attachment.id, attachment.created_at).into();
    let parsed = attestation::Attestation::parse(&bytes).map_err(|error| Unreachable {
        what: "test attestation",
        why: error.to_string(),
    })?;
    let workflow = Workflow {
        id: String::new(),
        project: TEST_PROJECT.to_owned(),
        name: TEST_WORKFLOW.to_owned(),
    };
    let planned = vec![Planned {
        attachment: attachment.id.clone(),
        registration: attachment.registration.clone(),
        integration: attachment.integration.clone(),
        matched: Some(Match::Name),
    }];
    let existing = accept::existing(scope, &parsed.hash, &workflow).await?;
    let incoming = Incoming {
        bytes,
        signatures: signatures::Admissible::unasked(parsed, platform.now()),
        workflow,
        permitted: Vec::new(),
        why: PlanReason::Tested,
        sender: act.actor.into(),
    };
    let taken = accept::accept(scope, incoming, planned, existing).await;
    taken.map_err(|error| match error {
        accept::Error::Unreachable(unreachable) => unreachable.into(),
        accept::Error::Exceeded(exceeded) => config::Error::Exceeded(exceeded),
        other => config::Error::Unreachable(Unreachable {
            what: "test attestation",
            why: other.to_string(),
        }),
    })
}

/// An envelope that says of itself that it is a test; another `run` is another attestation.
fn test_attestation(run: &str, now: api::Timestamp) -> Vec<u8> {
    let predicate = Predicate {
        metadata: Metadata {
            name: TEST_WORKFLOW.to_owned(),
            workflow_name: TEST_WORKFLOW.to_owned(),
            project: TEST_PROJECT.to_owned(),
            workflow_run_id: run.to_owned(),
            initialized_at: now.to_string(),
            finished_at: now.to_string(),
            ..Metadata::default()
        },
        ..Predicate::default()
    };
    let statement = compose::statement(&predicate, &[]);
    // Signed by nobody: the signature is a digest, which nobody can take for one.
    compose::envelope(statement, "", |bytes| Digest::of(bytes).bytes().to_vec()).compact()
}
