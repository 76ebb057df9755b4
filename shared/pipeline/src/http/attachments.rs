//! Attachments.

use api::attachments::{
    Attachment, Backfill, ChangedAttachment, NewAttachment, NewPreview, Previewed,
};
use api::jobs::{Job, JobKind};
use api::workflows::Selector;
use api::{Action, Code, Page, Problem};
use serde_json::Value;

use super::attachment_pages::{self, After};
use super::request::{Answer, Call, Request, Response};
use super::route::{Description, Route, handler, text};
use crate::config::{self, attach, check, update};
use crate::records::audit_log::{self, Subject};
use crate::records::{attestations, jobs};
use crate::store::platform::{Platform, Scope};
use crate::store::rows::{self, Stored};

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::post("/v1/attachments", Action::Configure, handler!(create))
            .audited("attachment.create")
            .keyed()
            .operation("createAttachment", "Attach a registration to workflows")
            .about(
                "Checks the attachment with the third party first. The integration's \
                 `attachment_schema` describes `inputs`.",
            )
            .takes::<NewAttachment>()
            .answers::<Attachment>(201, "The attachment")
            .tagged()
            .refuses(&[
                Code::TooManyChecks,
                Code::AttachmentExists,
                Code::CheckFailed,
                Code::Conflict,
                Code::IntegrationUnknown,
                Code::NotFound,
            ]),
        Route::get("/v1/attachments", Action::Read, handler!(list))
            .operation("listAttachments", "List attachments")
            .about(
                "Sorted by registration name, then by ID. A page may be empty and have a \
                 `next`.",
            )
            .query(
                "registration",
                "Attachments of this registration, by name or ID.",
                text,
            )
            .query(
                "workflow",
                "Attachments with exactly this selector: an ID, `project/name`, \
                 `project/*`, `*`, or a name with `project`.",
                text,
            )
            .query(
                "project",
                "The workflow's project; without `workflow`, attachments with a selector in \
                 it.",
                text,
            )
            .pages::<Attachment>()
            .refuses(&[Code::NotFound]),
        Route::get("/v1/attachments/{attachment}", Action::Read, handler!(get))
            .operation("getAttachment", "Get an attachment")
            .answers::<Attachment>(200, "The attachment")
            .tagged(),
        Route::patch(
            "/v1/attachments/{attachment}",
            Action::Configure,
            handler!(update),
        )
        .audited("attachment.update")
        .keyed()
        .operation("updateAttachment", "Update an attachment")
        .about(
            "Checks the attachment with the third party first. Waiting deliveries use \
                 the new inputs.",
        )
        .conditional()
        .takes::<ChangedAttachment>()
        .answers::<Attachment>(200, "The updated attachment")
        .tagged()
        .refuses(&[
            Code::TooManyChecks,
            Code::CheckFailed,
            Code::Conflict,
            Code::IntegrationUnknown,
        ]),
        Route::delete(
            "/v1/attachments/{attachment}",
            Action::Configure,
            handler!(delete),
        )
        .audited("attachment.delete")
        .operation("deleteAttachment", "Delete an attachment")
        .about("Cancels waiting deliveries when they come due.")
        .conditional()
        .answers::<Attachment>(200, "The deleted attachment")
        .refuses(&[Code::Conflict]),
        Route::post(
            "/v1/attachments/{attachment}/preview",
            Action::Read,
            handler!(preview),
        )
        .audited("attachment.preview")
        .operation("previewDelivery", "Preview a delivery of an attestation")
        .about("Sends nothing.")
        .takes::<NewPreview>()
        .answers::<Previewed>(200, "The requests, with their secrets masked")
        .refuses(&[Code::TooManyChecks, Code::NotDeliverable]),
        Route::post(
            "/v1/attachments/{attachment}/backfill",
            Action::Operate,
            handler!(backfill),
        )
        .audited("attachment.backfill")
        .keyed()
        .operation(
            "backfillAttachment",
            "Deliver past attestations to an attachment",
        )
        .may_take::<Backfill>()
        .answers::<Job>(202, "The job")
        .refuses(&[Code::Conflict, Code::TooManyChecks]),
    ]
}

async fn create<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let (new, workflow) = match asked(request) {
        Ok(asked) => asked,
        Err(problem) => {
            return Err(with_inputs(scope, request, problem).await);
        }
    };
    let wanted = attach::NewAttachment {
        registration: new.registration,
        workflow,
        inputs: new.inputs,
        wait_secs: new.wait_secs,
        allow_duplicate: new.allow_duplicate,
        id: call.ids.id(),
    };
    let act = call.act();
    let attached = attach::attach(scope, wanted, act).await?;
    let (stored, registration, warnings) = attached;
    Ok(shown(201, stored, registration, warnings))
}

async fn get<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let id = call.id("attachment");
    let (stored, registration) = attach::find(scope, &id).await?;
    Ok(shown(200, stored, registration, Vec::new()))
}

async fn update<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let id = call.id("attachment");
    let detail = "cannot be changed: detach, and attach anew";
    request.refuse_fixed(&["workflow", "project", "registration"], detail)?;
    let ChangedAttachment {
        inputs,
        wait_secs,
        dry_run,
    } = request.json()?;
    let change = update::AttachmentChange {
        inputs,
        wait_secs,
        dry_run,
        mark: call.ids.mark(),
    };
    let (only, act) = (request.precondition()?, call.act());
    let updated = update::attachment(scope, &id, &change, &only, act);
    let (stored, registration, warnings) = updated.await?;
    Ok(shown(200, stored, registration, warnings))
}

async fn delete<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let id = call.id("attachment");
    let only = request.precondition()?;
    let (stored, registration) = attach::detach(scope, &id, &only, call.act()).await?;
    let detached = attachment(stored, registration);
    Ok(Response::json(200, &detached))
}

async fn backfill<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let caller = call.caller;
    let id = call.id("attachment");
    let asked: Backfill = request.json_or_default()?;
    let (stored, registration) = attach::find(scope, &id).await?;
    let subject = Subject::attachment(&stored.row, &registration.row);
    let work = JobKind::Backfill {
        attachment: stored.row.id,
        since: asked.since,
        until: asked.until.unwrap_or_else(|| scope.platform.now()),
    };
    let rate = super::jobs::per_second(asked.per_second);
    let mut job = jobs::new(scope, work, rate, &caller.actor.name);
    job.dry_run = asked.dry_run;
    job.id = call.ids.job().unwrap_or(job.id);
    let detail = super::jobs::period(asked.since, asked.until);
    super::jobs::begin(call, job, (subject, detail), None).await
}

fn attachment(
    Stored { row, version }: Stored<rows::Attachment>,
    registration: Stored<rows::Registration>,
) -> Attachment {
    Attachment {
        etag: version.etag.0,
        id: row.id,
        workflow: row.workflow.0,
        config: row.config,
        wait_secs: row.wait_secs,
        registration: registration.into(),
        created_by: row.created_by,
        created_at: row.created_at,
        warnings: Vec::new(),
    }
}

/// An attachment, with its tag.
fn shown(
    status: u16,
    stored: Stored<rows::Attachment>,
    registration: Stored<rows::Registration>,
    warnings: Vec<String>,
) -> Response {
    let attachment = Attachment {
        warnings,
        ..attachment(stored, registration)
    };
    Response::json(status, &attachment).tagged(&attachment.etag)
}

fn asked(request: &Request) -> Result<(NewAttachment, Selector), Problem> {
    let new: NewAttachment = request.json_and(|body| {
        let text = |field: &str| body.get(field).and_then(Value::as_str);
        let selector = text("workflow").map(|name| api::workflows::selector(name, text("project")));
        selector.and_then(Result::err).into_iter().collect()
    })?;
    let workflow = api::workflows::selector(&new.workflow, new.project.as_deref())
        .map_err(|fault| Problem::faults(vec![fault]))?;
    Ok((new, workflow))
}

/// A problem with what is wrong with the inputs added to it, as far as that can be told.
async fn with_inputs(
    scope: Scope<'_, impl Platform>,
    request: &Request,
    mut problem: Problem,
) -> Problem {
    if problem.faults.is_empty() {
        return problem;
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    if let (Some(registration), Some(inputs)) =
        (body["registration"].as_str(), body["inputs"].as_object())
        && let Ok(faults) = attach::faults(scope, registration, inputs).await
    {
        problem.faults.extend(faults);
    }
    problem
}

async fn preview<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let caller = call.caller;
    let id = call.id("attachment");
    let NewPreview { attestation } = request.json()?;
    let (stored, registration) = attach::find(scope, &id).await?;
    let subject = Subject::attachment(&stored.row, &registration.row);
    let found = attestations::find(scope, &attestation).await?;
    let attestation = found
        .ok_or_else(|| {
            Problem::new(
                Code::NotFound,
                format!("there is no attestation {attestation}"),
            )
        })?
        .hash;
    let asked = check::Preview {
        organization: scope.organization.to_owned(),
        attachment: stored.row.id,
        attestation,
    };
    let previewed = match check::ask_preview(
        scope.platform,
        &caller.actor,
        &stored.row.integration,
        &asked,
    )
    .await?
    {
        check::Previewed::Requests(requests) => Previewed {
            requests,
            nothing: None,
        },
        check::Previewed::Nothing(reason) => Previewed {
            requests: Vec::new(),
            nothing: Some(reason),
        },
        check::Previewed::Refused(reason) => {
            return Err(Problem::new(Code::NotDeliverable, reason));
        }
    };
    // It shows what the attestation says and how the attachment is configured.
    let detail = format!("attestation {attestation}");
    audit_log::record(scope, call.act(), subject, detail).await?;
    Ok(Response::json(200, &previewed))
}

async fn list<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let project = request.project()?;
    let selector = match request.query("workflow") {
        None => None,
        Some(workflow) => Some(
            api::workflows::selector(workflow, project)
                .map_err(|fault| Problem::faults(vec![fault]))?,
        ),
    };
    let (limit, after) = (request.limit()?, request.cursor(After::parse)?);
    let only = match request.query("registration") {
        None => None,
        Some(named) => Some(config::find(scope, named).await?),
    };
    let (mut pairs, next) = match &selector {
        Some(selector) => {
            let of = (selector, only);
            Box::pin(attachment_pages::of_workflow(scope, of, after, limit)).await?
        }
        None => Box::pin(attachment_pages::walk(scope, only, after, limit)).await?,
    };
    if let (None, Some(project)) = (&selector, project) {
        pairs.retain(|(_, attachment)| {
            let own = attachment.row.workflow.0.split_once('/');
            own.is_some_and(|(own, _)| own == project)
        });
    }
    let items = pairs
        .into_iter()
        .map(|(registration, stored)| attachment(stored, registration));
    let items = items.collect();
    Ok(Response::json(200, &Page::<Attachment> { items, next }))
}
