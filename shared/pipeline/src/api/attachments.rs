//! What is attached to which workflow.

use std::collections::BTreeSet;

use attestation::Digest;
use futures_util::future::try_join_all;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::registrations::Registration;
use super::{Action, Caller, Page, Problem, Request, Response, Route, route};
use crate::clock::Timestamp;
use crate::platform::Platform;
use crate::rows::{Stored, Work};
use crate::{attach, check, deliver, intake, jobs, register, rows, update};

pub const ROUTES: &[Route] = &[
    route("POST /v1/attachments", Action::Configure),
    route("GET /v1/attachments", Action::Read),
    route("GET /v1/attachments/{attachment}", Action::Read),
    route("PATCH /v1/attachments/{attachment}", Action::Configure),
    route("DELETE /v1/attachments/{attachment}", Action::Configure),
    route("POST /v1/attachments/{attachment}/preview", Action::Read),
    route(
        "POST /v1/attachments/{attachment}/backfill",
        Action::Operate,
    ),
];

/// What `POST …/preview` takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPreview {
    /// By either of its digests.
    pub attestation: Digest,
}

/// What `POST …/preview` answers: what a delivery of the attestation would send.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Previewed {
    pub requests: Vec<integrations::Preview>,
    /// Why nothing would be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing: Option<String>,
}

/// What `POST …/backfill` takes: which past attestations are delivered to the attachment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backfill {
    /// Accepted at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Accepted at this time or earlier; now when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// 1 to 50; 10 when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
    /// Only counts.
    #[serde(default)]
    pub dry_run: bool,
}

/// What `POST /v1/attachments` takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAttachment {
    /// A registration's name or id.
    pub registration: String,
    /// An id, a name, `project/name`, `project/*`, or `*`.
    pub workflow: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(default)]
    pub inputs: Map<String, Value>,
    /// How long deliveries wait for a material that is not there yet, 0 to 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_secs: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attachment {
    pub id: String,
    /// An id, `project/name`, `project/*`, or `*`.
    pub workflow: String,
    pub config: Map<String, Value>,
    pub wait_secs: Option<u64>,
    pub registration: Registration,
    pub created_at: Timestamp,
    /// What `If-Match` takes, there in quotes. That of its registration is another.
    #[serde(default)]
    pub etag: String,
}

/// What `PATCH /v1/attachments/{attachment}` takes: what is to be another, and nothing else.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangedAttachment {
    /// A JSON merge patch (RFC 7396): a value replaces, null takes away, and what is not named stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Map<String, Value>>,
    /// How long deliveries wait for a material that is not there yet, 0 to 86400; null is the usual time.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub wait_secs: Option<Option<u64>>,
    /// Only checks.
    #[serde(default)]
    pub dry_run: bool,
}

/// Tells null from nothing.
#[expect(clippy::option_option, reason = "null and nothing are two")]
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Attachment {
    fn of(
        Stored { row, etag }: Stored<rows::Attachment>,
        registration: Stored<rows::Registration>,
    ) -> Self {
        Self {
            etag: etag.0,
            id: row.id,
            workflow: row.workflow.0,
            config: row.config,
            wait_secs: row.wait_secs,
            registration: registration.into(),
            created_at: row.created_at,
        }
    }
}

/// An attachment, with its tag.
fn shown(
    status: u16,
    stored: Stored<rows::Attachment>,
    registration: Stored<rows::Registration>,
) -> Response {
    let attachment = Attachment::of(stored, registration);
    Response::json(status, &attachment).tagged(&attachment.etag)
}

pub async fn function<P: Platform>(
    platform: &P,
    caller: &Caller,
    request: &Request,
) -> Result<Response, Problem> {
    let organization = &caller.organization;
    let id = request.parameter("attachment");
    match request.route.as_str() {
        "POST /v1/attachments" => {
            let new: NewAttachment = request.json()?;
            let workflow = attach::selector(&new.workflow, new.project.as_deref())
                .map_err(|fault| Problem::faults(vec![fault]))?;
            let wanted = attach::Wanted {
                registration: new.registration,
                workflow,
                inputs: new.inputs,
                wait_secs: new.wait_secs,
                id: request.made.id(),
            };
            let (stored, registration) = attach::attach(platform, organization, wanted).await?;
            Ok(shown(201, stored, registration))
        }
        "GET /v1/attachments" => list(platform, organization, request).await,
        "GET /v1/attachments/{attachment}" => {
            let (stored, registration) = attach::find(platform, organization, id).await?;
            Ok(shown(200, stored, registration))
        }
        "PATCH /v1/attachments/{attachment}" => {
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
            };
            let (only, by) = (request.precondition()?, &caller.name);
            let updated = update::attachment(platform, organization, id, &change, &only, by);
            let (stored, registration) = updated.await?;
            Ok(shown(200, stored, registration))
        }
        "DELETE /v1/attachments/{attachment}" => {
            let only = request.precondition()?;
            let (stored, registration) = attach::detach(platform, organization, id, &only).await?;
            let detached = Attachment::of(stored, registration);
            Ok(Response::json(200, &detached))
        }
        "POST /v1/attachments/{attachment}/preview" => {
            let NewPreview { attestation } = request.json()?;
            preview(platform, organization, id, &attestation).await
        }
        "POST /v1/attachments/{attachment}/backfill" => {
            let asked: Backfill = request.json_or_default()?;
            let (stored, _) = attach::find(platform, organization, id).await?;
            let work = Work::Backfill {
                attachment: stored.row.id,
                since: asked.since,
                until: asked.until.unwrap_or_else(|| platform.now()),
            };
            let rate = super::jobs::per_second(asked.per_second)?;
            let mut job = jobs::new(platform, organization, work, rate, &caller.name);
            job.dry_run = asked.dry_run;
            job.id = request.made.job().unwrap_or(job.id);
            super::jobs::begin(platform, caller, job, "attachment.backfill", id, None).await
        }
        other => Err(Problem::not_found(format!("no route {other}"))),
    }
}

async fn preview(
    platform: &impl Platform,
    organization: &str,
    id: &str,
    digest: &Digest,
) -> Result<Response, Problem> {
    let (stored, _) = attach::find(platform, organization, id).await?;
    let found = intake::find(platform, organization, digest).await?;
    let attestation = found
        .ok_or_else(|| Problem::not_found(format!("there is no attestation {digest}")))?
        .hash;
    let asked = check::Preview {
        organization: organization.to_owned(),
        attachment: stored.row.id,
        attestation,
    };
    let previewed = match check::ask_preview(platform, &stored.row.integration, &asked).await? {
        deliver::preview::Previewed::Requests(requests) => Previewed {
            requests,
            nothing: None,
        },
        deliver::preview::Previewed::Nothing(reason) => Previewed {
            requests: Vec::new(),
            nothing: Some(reason),
        },
        deliver::preview::Previewed::Refused(reason) => {
            let title = "It could not be delivered";
            return Err(Problem::new(422, "not-deliverable", title, reason));
        }
    };
    Ok(Response::json(200, &previewed))
}

/// Pages run over registrations, in the order of their names: a page holds all attachments of some.
async fn list(
    platform: &impl Platform,
    organization: &str,
    request: &Request,
) -> Result<Response, Problem> {
    let selector = match request.query("workflow") {
        None => None,
        Some(workflow) => Some(
            attach::selector(workflow, request.query("project"))
                .map_err(|fault| Problem::faults(vec![fault]))?,
        ),
    };
    let (registrations, next) = match (request.query("registration"), &selector) {
        (Some(named), _) => {
            let stored = register::find(platform, organization, named).await?;
            (vec![stored], None)
        }
        (None, Some(selector)) => {
            let attached = attach::of_workflow(platform, organization, selector).await?;
            let registrations: BTreeSet<&str> = attached
                .iter()
                .map(|row| row.registration.as_str())
                .collect();
            let keys: Vec<_> = registrations
                .into_iter()
                .map(|id| rows::Registration::at(organization, id))
                .collect();
            let mut found: Vec<Stored<rows::Registration>> =
                rows::load_many(platform, &keys).await?;
            // One that is being deleted has no attachments any more.
            found.retain(|registration| registration.row.deleted_at.is_none());
            (found, None)
        }
        (None, None) => {
            let (limit, after) = (request.limit()?, request.query("cursor"));
            register::list(platform, organization, after, limit).await?
        }
    };
    let attachments =
        try_join_all(registrations.iter().map(|registration| {
            register::attachments(platform, organization, &registration.row.id)
        }))
        .await?;
    let items = registrations
        .iter()
        .zip(attachments)
        .flat_map(|(registration, attachments)| {
            attachments
                .into_iter()
                .map(|stored| Attachment::of(stored, registration.clone()))
        })
        .filter(|attachment| {
            selector
                .as_ref()
                .is_none_or(|selector| selector.0 == attachment.workflow)
        })
        .filter(|attachment| match request.query("project") {
            Some(project) if selector.is_none() => attachment
                .workflow
                .split_once('/')
                .is_some_and(|(own, _)| own == project),
            _ => true,
        })
        .collect();
    Ok(Response::json(200, &Page::<Attachment> { items, next }))
}
