//! Attaches a registration to workflows, lists attachments, and detaches.

use api::AttachmentId;
use api::attachments::LONGEST_WAIT_SECS;
use api::inputs::Fault;
use api::workflows::Selector;
use integrations::{Description, Warnings};
use serde_json::{Map, Value};

use crate::config::check::{self, Check};
use crate::config::{self, Error, Precondition};
use crate::ledger::schedule;
use crate::records::audit_log::{Act, Subject};
use crate::records::workflows;
use crate::store::ids;
use crate::store::platform::{Platform, Scope, Unreachable, Write, WriteError};
use crate::store::rows::{self, Attachment, AttachmentIndex, Registration, Stored};

/// Attachments that one workflow, or one `project/*` or `*`, can have: half of what a plan holds.
pub const MOST: usize = schedule::PLAN_MOST / 2;

/// Attachment that an operator requests.
#[derive(Debug)]
pub struct NewAttachment {
    /// Name or id.
    pub registration: String,
    pub workflow: Selector,
    pub inputs: Map<String, Value>,
    pub wait_secs: Option<u64>,
    /// Attach although the same registration is attached so already.
    pub allow_duplicate: bool,
    /// Its id, where that follows from the request: the same again is the same attachment. A new one when none.
    pub id: Option<AttachmentId>,
}

/// Returns a fault when `wait_secs` is too long.
pub(crate) fn wrong_wait(wait_secs: Option<u64>) -> Option<Fault> {
    let is_long = wait_secs.is_some_and(|secs| secs > LONGEST_WAIT_SECS);
    is_long.then(|| Fault {
        field: "wait_secs".into(),
        detail: "must be at most 86400".into(),
    })
}

/// All that is wrong with an attachment's inputs.
pub async fn faults(
    scope: Scope<'_, impl Platform>,
    registration: &str,
    inputs: &Map<String, Value>,
) -> Result<Vec<Fault>, Error> {
    let registration = config::find(scope, registration).await?;
    let (_, faults) = check_inputs(&registration.row, inputs)?;
    Ok(faults)
}

fn check_inputs(
    registration: &Registration,
    inputs: &Map<String, Value>,
) -> Result<(&'static Description, Vec<Fault>), Error> {
    let integration = &registration.integration;
    let description =
        integrations::find(integration).ok_or_else(|| Error::NoIntegration(integration.clone()))?;
    let mut faults = (description.check_attachment)(inputs);
    faults.extend(config::size_fault(inputs));
    Ok((description, faults))
}

/// Attaches: validates, asks the third party, and keeps it where intake finds it.
pub async fn attach(
    scope: Scope<'_, impl Platform>,
    wanted: NewAttachment,
    act: Act<'_>,
) -> Result<(Stored<Attachment>, Stored<Registration>, Warnings), Error> {
    let (platform, organization) = scope.parts();
    if let Some(id) = &wanted.id {
        let key = Attachment::at(organization, id);
        if rows::load::<Attachment>(platform, &key).await?.is_some() {
            let (attachment, registration) = find(scope, id).await?;
            return Ok((attachment, registration, Warnings::new()));
        }
    }
    let registration = config::find(scope, &wanted.registration).await?;
    let (description, mut faults) = check_inputs(&registration.row, &wanted.inputs)?;
    faults.extend(wrong_wait(wanted.wait_secs));
    let partition = AttachmentIndex::of_workflow(organization, &wanted.workflow);
    let there =
        rows::load_all::<AttachmentIndex>(platform, &partition, AttachmentIndex::PREFIX).await?;
    if there.len() >= MOST {
        faults.push(Fault {
            field: "workflow".into(),
            detail: format!("has {MOST} attachments, which is as many as it can have"),
        });
    }
    if !faults.is_empty() {
        return Err(Error::Faults(faults));
    }
    if !wanted.allow_duplicate {
        let own = there
            .iter()
            .filter(|link| link.row.registration == registration.row.id);
        let own = config::indexed(platform, own).await?;
        let same = own
            .into_iter()
            .find(|one| one.row.config == wanted.inputs && one.row.wait_secs == wanted.wait_secs);
        if let Some(same) = same {
            return Err(Error::AttachmentExists {
                registration: registration.row.name,
                workflow: wanted.workflow.0,
                id: same.row.id,
            });
        }
    }
    let check = Check::Attachment {
        organization: organization.to_owned(),
        registration: registration.row.id.clone(),
        inputs: wanted.inputs.clone(),
    };
    let verdict = check::ask(scope, act.actor, description.id, &check).await?;
    let mut warnings = verdict.accepted()?;
    warnings.extend(workflows::doubt(scope, &wanted.workflow).await?);
    let attachment = Attachment {
        id: wanted.id.unwrap_or_else(|| ids::random(platform)),
        organization: organization.to_owned(),
        registration: registration.row.id.clone(),
        integration: description.id.to_owned(),
        workflow: wanted.workflow,
        config: wanted.inputs,
        wait_secs: wanted.wait_secs,
        is_test: false,
        created_by: act.actor.name.clone(),
        created_at: platform.now(),
        deleted_at: None,
    };
    let (of_workflow, of_registration) = links(&attachment);
    let (write, version) = rows::insert(platform, &attachment);
    let subject = Subject::attachment(&attachment, &registration.row);
    let writes = vec![
        registration.check(),
        write,
        act.entry(scope, subject, ""),
        rows::insert(platform, &of_workflow).0,
        rows::insert(platform, &of_registration).0,
    ];
    platform.write(writes).await?;
    let row = attachment;
    Ok((Stored { row, version }, registration, warnings))
}

fn links(attachment: &Attachment) -> (AttachmentIndex, AttachmentIndex) {
    let of_registration = AttachmentIndex {
        organization: attachment.organization.clone(),
        attachment: attachment.id.clone(),
        registration: attachment.registration.clone(),
        integration: attachment.integration.clone(),
        workflow: None,
    };
    let of_workflow = AttachmentIndex {
        workflow: Some(attachment.workflow.clone()),
        ..of_registration.clone()
    };
    (of_workflow, of_registration)
}

/// A live attachment and its registration.
pub async fn find(
    scope: Scope<'_, impl Platform>,
    id: &AttachmentId,
) -> Result<(Stored<Attachment>, Stored<Registration>), Error> {
    let (platform, organization) = scope.parts();
    let missing = || Error::NotAttached(id.to_owned());
    let attachment = rows::load::<Attachment>(platform, &Attachment::at(organization, id))
        .await?
        .filter(|stored| stored.row.deleted_at.is_none())
        .ok_or_else(missing)?;
    let key = Registration::at(organization, &attachment.row.registration);
    let registration = rows::load::<Registration>(platform, &key)
        .await?
        .ok_or_else(missing)?;
    Ok((attachment, registration))
}

/// The attachments that a workflow selector names.
pub async fn of_workflow(
    scope: Scope<'_, impl Platform>,
    selector: &Selector,
) -> Result<Vec<Stored<Attachment>>, Unreachable> {
    let (platform, organization) = scope.parts();
    let partition = AttachmentIndex::of_workflow(organization, selector);
    let links =
        rows::load_all::<AttachmentIndex>(platform, &partition, AttachmentIndex::PREFIX).await?;
    let keys: Vec<_> = links
        .iter()
        .map(|link| Attachment::at(organization, &link.row.attachment))
        .collect();
    let mut attachments = rows::load_many::<Attachment>(platform, &keys).await?;
    attachments.retain(|stored| stored.row.deleted_at.is_none());
    Ok(attachments)
}

/// Detaches; pending deliveries are cancelled when their time comes.
pub async fn detach(
    scope: Scope<'_, impl Platform>,
    id: &AttachmentId,
    only: &Precondition,
    act: Act<'_>,
) -> Result<(Stored<Attachment>, Stored<Registration>), Error> {
    let platform = scope.platform;
    let (attachment, registration) = find(scope, id).await?;
    only.allow(&attachment.version.etag)?;
    let subject = Subject::attachment(&attachment.row, &registration.row);
    let entry = act.entry(scope, subject, "");
    let removed = remove(platform, attachment, vec![entry]).await;
    let removed = removed.map_err(|error| only.conflict(error))?;
    Ok((removed, registration))
}

/// Removes an attachment, with what is written in the same transaction.
pub(crate) async fn remove(
    platform: &impl Platform,
    mut attachment: Stored<Attachment>,
    beside: Vec<Write>,
) -> Result<Stored<Attachment>, WriteError> {
    attachment.row.deleted_at = Some(platform.now());
    let (write, version) = attachment.update(platform);
    let mut writes = beside;
    writes.push(write);
    let (of_workflow, of_registration) = links(&attachment.row);
    for link in [of_workflow, of_registration] {
        use crate::store::rows::Row;
        if let Some(stored) = rows::load::<AttachmentIndex>(platform, &link.key()).await? {
            writes.push(stored.delete());
        }
    }
    platform.write(writes).await?;
    let row = attachment.row;
    Ok(Stored { row, version })
}
