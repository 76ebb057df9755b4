//! What an operator does to deliveries: deliver again, cancel, try a registration out. And the record of it.

use attestation::{Digest, Metadata, Predicate, compose};
use bytes::Bytes;
use futures_util::future::ready;
use integrations::Workflow;
use serde_json::{Map, Value};

use crate::deliver::settle;
use crate::intake::{self, Accepted};
use crate::ledger;
use crate::platform::{Expect, Platform, Unreachable, WriteError};
use crate::register;
use crate::rows::{
    self, Attachment, Attestation, Delivery, Entry, Plan, Planned, Registration, Selector, State,
    Why,
};
use crate::{jobs, plans};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no delivery {0:?}")]
    NotFound(String),
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
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

const fn name(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Delivering => "being attempted",
        State::Delivered => "delivered",
        State::Skipped => "skipped",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}

/// As [`redeliver`], for a request that may come again: the same request is the same delivery.
pub(crate) async fn redeliver_once(
    platform: &impl Platform,
    delivery: &Delivery,
    request: &str,
) -> Result<String, Error> {
    let is_its_own = |plan: &Plan| plan.job.as_deref() == Some(request);
    if let Some(id) = again(platform, delivery, Some(request), is_its_own).await? {
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

/// Delivers again: what is final gets a delivery of its own in a further plan, what waits is due at once. Answers with
/// the id of the delivery that is under way then; none when a job finds that it was delivered again already.
pub async fn redeliver(
    platform: &impl Platform,
    delivery: &Delivery,
    job: Option<&str>,
) -> Result<Option<String>, Error> {
    let already = |plan: &Plan| job.is_some() && is_repeat(plan, delivery);
    again(platform, delivery, job, already).await
}

/// Whether a job would deliver this one again, which is final.
pub(crate) async fn would_redeliver(
    platform: &impl Platform,
    delivery: &Delivery,
) -> Result<bool, Unreachable> {
    let key = Attachment::at(&delivery.organization, &delivery.attachment);
    let attachment = rows::load::<Attachment>(platform, &key).await?;
    if attachment.is_none_or(|stored| stored.row.deleted_at.is_some()) {
        return Ok(false);
    }
    let key = Attestation::at(&delivery.organization, &delivery.attestation);
    let Some(stored) = rows::load::<Attestation>(platform, &key).await? else {
        return Ok(false);
    };
    let plans = plans::of(platform, &stored.row).await?;
    Ok(!plans.iter().any(|plan| is_repeat(&plan.row, delivery)))
}

/// Whether a plan delivers again what a delivery before it did. A job takes that as done, be it by itself in a page that
/// was cut off.
fn is_repeat(plan: &Plan, delivery: &Delivery) -> bool {
    let is_same = |planned: &Planned| planned.attachment == delivery.attachment;
    plan.generation > delivery.generation && plan.planned.iter().any(is_same)
}

async fn again(
    platform: &impl Platform,
    delivery: &Delivery,
    job: Option<&str>,
    already: impl Fn(&Plan) -> bool,
) -> Result<Option<String>, Error> {
    let organization = &delivery.organization;
    let attachment_at = Attachment::at(organization, &delivery.attachment);
    let attachment = rows::load::<Attachment>(platform, &attachment_at).await?;
    if attachment.is_none_or(|stored| stored.row.deleted_at.is_some()) {
        return Err(Error::Gone("attachment"));
    }
    match delivery.state {
        State::Delivering => return Err(Error::UnderWay),
        State::Pending => return hasten(platform, delivery).await.map(Some),
        _ => {}
    }
    let key = Attestation::at(organization, &delivery.attestation);
    let Some(stored) = rows::load::<Attestation>(platform, &key).await? else {
        return Err(Error::Gone("attestation"));
    };
    keep(platform, &stored.row).await?;
    let planned = Planned {
        attachment: delivery.attachment.clone(),
        registration: delivery.registration.clone(),
        integration: delivery.integration.clone(),
    };
    let (why, planned) = (Why::Redelivered, vec![planned]);
    let plan = plans::add(platform, stored, why, job, planned, already).await?;
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
        intake::missing(platform, organization, &intake::promised(&parsed)).await?;
    }
    Ok(())
}

async fn hasten(platform: &impl Platform, delivery: &Delivery) -> Result<String, Error> {
    let mut stored = find(platform, &delivery.organization, &delivery.id).await?;
    if stored.row.held_at.is_some() {
        return Err(Error::Held);
    }
    let settled = ledger::hasten(&mut stored.row, platform.now()).ok_or(Error::UnderWay)?;
    settle(platform, &stored, settled).await?;
    Ok(delivery.id.clone())
}

pub async fn find(
    platform: &impl Platform,
    organization: &str,
    id: &str,
) -> Result<rows::Stored<Delivery>, Error> {
    rows::load::<Delivery>(platform, &Delivery::at(organization, id))
        .await?
        .ok_or_else(|| Error::NotFound(id.to_owned()))
}

/// Cancels a delivery that waits. One that is being attempted cannot be called back.
pub async fn cancel(
    platform: &impl Platform,
    organization: &str,
    id: &str,
    by: &str,
) -> Result<Delivery, Error> {
    let mut stored = find(platform, organization, id).await?;
    match stored.row.state {
        State::Pending => {}
        State::Delivering => return Err(Error::UnderWay),
        over => return Err(Error::Over(name(over))),
    }
    let reason = format!("cancelled by {by}");
    ledger::cancel(&mut stored.row, &reason, platform.now());
    match platform.write(vec![stored.update(platform).0]).await {
        Ok(()) => Ok(stored.row),
        Err(WriteError::Conflict) => Err(Error::Conflict),
        Err(WriteError::Unreachable(unreachable)) => Err(unreachable.into()),
    }
}

/// The workflow that test attestations come from.
pub const TEST_PROJECT: &str = "chainloop-integrations";
pub const TEST_WORKFLOW: &str = "registration-test";

/// Sends a test attestation through a registration, by the way of every delivery: intake, ledger, queue, function.
pub async fn test(
    platform: &impl Platform,
    registration: &Registration,
    inputs: Map<String, Value>,
    id: Option<String>,
) -> Result<Accepted, register::Error> {
    let description = integrations::find(&registration.integration)
        .ok_or_else(|| register::Error::NoIntegration(registration.integration.clone()))?;
    let mut faults = (description.check_attachment)(&inputs);
    faults.extend(register::size_fault(&inputs));
    if !faults.is_empty() {
        return Err(register::Error::Faults(faults));
    }
    let organization = &registration.organization;
    let mut attachment = Attachment {
        id: id.unwrap_or_else(|| register::id(platform)),
        organization: organization.clone(),
        registration: registration.id.clone(),
        integration: registration.integration.clone(),
        workflow: Selector(format!("{TEST_PROJECT}/{TEST_WORKFLOW}")),
        config: inputs,
        // What it promises is there.
        wait_secs: Some(0),
        is_test: true,
        created_at: platform.now(),
        deleted_at: None,
    };
    let write = rows::put(platform, &attachment, Expect::Absent).0;
    match platform.write(vec![write]).await {
        Ok(()) => {}
        // A request that was cut off: it goes on with what it began.
        Err(WriteError::Conflict) => {
            let key = Attachment::at(organization, &attachment.id);
            let begun = rows::load::<Attachment>(platform, &key).await?;
            attachment = begun.ok_or(register::Error::Conflict)?.row;
        }
        Err(WriteError::Unreachable(unreachable)) => return Err(unreachable.into()),
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
    let planned = ready(Ok(vec![Planned {
        attachment: attachment.id.clone(),
        registration: attachment.registration.clone(),
        integration: attachment.integration.clone(),
    }]));
    intake::take(
        platform,
        organization,
        bytes,
        parsed,
        &workflow,
        planned,
        Why::Tested,
    )
    .await
    .map_err(|error| match error {
        intake::Error::Unreachable(unreachable) => unreachable.into(),
        other => register::Error::Unreachable(Unreachable {
            what: "test attestation",
            why: other.to_string(),
        }),
    })
}

/// An envelope that says of itself that it is a test; another `run` is another attestation.
fn test_attestation(run: &str, now: crate::Timestamp) -> Vec<u8> {
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

/// What an operator does, to be kept.
pub(crate) fn entry(
    platform: &impl Platform,
    organization: &str,
    by: &str,
    action: &str,
    subject: &str,
    detail: String,
) -> Entry {
    let now = platform.now();
    Entry {
        organization: organization.to_owned(),
        id: jobs::id(platform, now),
        action: action.to_owned(),
        subject: subject.to_owned(),
        detail,
        by: by.to_owned(),
        created_at: now,
    }
}

/// Keeps what an operator did.
pub async fn record(
    platform: &impl Platform,
    organization: &str,
    by: &str,
    action: &str,
    subject: &str,
    detail: String,
) -> Result<(), Unreachable> {
    let entry = entry(platform, organization, by, action, subject, detail);
    match platform
        .write(vec![rows::put(platform, &entry, Expect::Absent).0])
        .await
    {
        Ok(()) | Err(WriteError::Conflict) => Ok(()),
        Err(WriteError::Unreachable(unreachable)) => Err(unreachable),
    }
}

/// What operators did on a day, last first.
pub async fn entries(
    platform: &impl Platform,
    organization: &str,
    day: crate::Timestamp,
) -> Result<Vec<Entry>, Unreachable> {
    let entries =
        rows::load_all::<Entry>(platform, &Entry::partition(organization, day), "entry/").await?;
    Ok(entries.into_iter().rev().map(|stored| stored.row).collect())
}
