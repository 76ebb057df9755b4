//! What is attached to which workflow.

use std::collections::{BTreeMap, BTreeSet};

use attestation::Digest;
use futures_util::future::try_join_all;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::openapi::{Operation, operation, text};
use super::registrations::Registration;
use super::{Action, Audited, Caller, Page, Problem, READS, Request, Response, Route, route};
use crate::audit_log::{self, Subject};
use crate::clock::Timestamp;
use crate::platform::Platform;
use crate::rows::{self, JobKind, Selector, Stored};
use crate::{attach, attestations, check, configuration, jobs, update};

pub const ROUTES: &[Route] = &[
    route(
        "POST /v1/attachments",
        Action::Configure,
        Audited::As("attachment.create"),
    ),
    route("GET /v1/attachments", Action::Read, READS),
    route("GET /v1/attachments/{attachment}", Action::Read, READS),
    route(
        "PATCH /v1/attachments/{attachment}",
        Action::Configure,
        Audited::As("attachment.update"),
    ),
    route(
        "DELETE /v1/attachments/{attachment}",
        Action::Configure,
        Audited::As("attachment.delete"),
    ),
    route(
        "POST /v1/attachments/{attachment}/preview",
        Action::Read,
        Audited::As("attachment.preview"),
    ),
    route(
        "POST /v1/attachments/{attachment}/backfill",
        Action::Operate,
        Audited::As("attachment.backfill"),
    ),
];

/// What `POST …/preview` takes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPreview {
    /// By either of its digests.
    pub attestation: Digest,
}

/// What `POST …/preview` answers: what a delivery of the attestation would send.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Previewed {
    pub requests: Vec<integrations::Preview>,
    /// Why nothing would be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing: Option<String>,
}

/// What `POST …/backfill` takes: which past attestations are delivered to the attachment.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
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
    #[schemars(range(min = 1, max = super::jobs::FASTEST))]
    pub per_second: Option<u32>,
    /// Only counts.
    #[serde(default)]
    pub dry_run: bool,
}

/// What `POST /v1/attachments` takes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAttachment {
    /// A registration's name or id.
    pub registration: String,
    /// An id, a name, `project/name`, `project/*`, or `*`.
    #[schemars(length(min = 1, max = 512))]
    pub workflow: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub project: Option<String>,
    /// As the integration's `attachment_schema` says.
    #[serde(default)]
    pub inputs: Map<String, Value>,
    /// How long deliveries wait for a material that is not there yet, 0 to 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = attach::LONGEST_WAIT_SECS))]
    pub wait_secs: Option<u64>,
    /// Attach although the registration is attached to the workflow with the same `inputs` and `wait_secs` already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_duplicate: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Attachment {
    pub id: String,
    /// An id, `project/name`, `project/*`, or `*`.
    pub workflow: String,
    pub config: Map<String, Value>,
    pub wait_secs: Option<u64>,
    pub registration: Registration,
    /// The name of the token that attached it; empty when it was before that was kept.
    #[serde(default)]
    pub created_by: String,
    pub created_at: Timestamp,
    /// What `If-Match` takes, there in quotes. That of its registration is another.
    #[serde(default)]
    pub etag: String,
    /// Doubts about what passed its check; in the answers to creating and changing it alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What `PATCH /v1/attachments/{attachment}` takes: what is to be another, and nothing else.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
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
    #[schemars(with = "Option<u64>")]
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
            created_by: row.created_by,
            created_at: row.created_at,
            warnings: Vec::new(),
        }
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
        ..Attachment::of(stored, registration)
    };
    Response::json(status, &attachment).tagged(&attachment.etag)
}

/// What the routes take and answer, for the API's description.
pub fn operations() -> Vec<Operation> {
    vec![
        operation(
            "POST /v1/attachments",
            "createAttachment",
            "Attach a registration to workflows",
        )
        .about(
            "The third party is asked whether it would work. `inputs` are those of \
                 the integration's `attachment_schema`.",
        )
        .takes::<NewAttachment>()
        .answers::<Attachment>(201, "The attachment")
        .tagged()
        .refuses(&["too-many-checks", 
            "attachment-exists",
            "check-failed",
            "conflict",
            "integration-unknown",
            "not-found",
        ]),
        operation("GET /v1/attachments", "listAttachments", "List attachments")
            .about("In the order of their registrations' names, and of their own ids. A page may be empty and have a `next`.")
            .query(
                "registration",
                "Those of this registration, by its name or id.",
                text(),
            )
            .query(
                "workflow",
                "Those with exactly this selector: an id, `project/name`, `project/*`, \
                 `*`, or a name with `project`.",
                text(),
            )
            .query(
                "project",
                "The workflow's project; alone, those with a selector in it.",
                text(),
            )
            .pages::<Attachment>()
            .refuses(&["not-found"]),
        operation(
            "GET /v1/attachments/{attachment}",
            "getAttachment",
            "Get an attachment",
        )
        .answers::<Attachment>(200, "The attachment")
        .tagged(),
        operation(
            "PATCH /v1/attachments/{attachment}",
            "updateAttachment",
            "Change an attachment",
        )
        .about("Checked as when it was attached. Deliveries that wait are sent as it is then.")
        .conditional()
        .takes::<ChangedAttachment>()
        .answers::<Attachment>(200, "The attachment as it is now")
        .tagged()
        .refuses(&["too-many-checks", "check-failed", "conflict", "integration-unknown"]),
        operation(
            "DELETE /v1/attachments/{attachment}",
            "deleteAttachment",
            "Detach",
        )
        .about("Deliveries that wait are cancelled when their time comes.")
        .conditional()
        .answers::<Attachment>(200, "The attachment that was deleted")
        .refuses(&["conflict"]),
        operation(
            "POST /v1/attachments/{attachment}/preview",
            "previewDelivery",
            "See what a delivery of an attestation would send",
        )
        .about("Nothing is sent.")
        .takes::<NewPreview>()
        .answers::<Previewed>(200, "The requests, without what is secret in them")
        .refuses(&["too-many-checks", "not-deliverable"]),
        operation(
            "POST /v1/attachments/{attachment}/backfill",
            "backfillAttachment",
            "Deliver past attestations to an attachment",
        )
        .may_take::<Backfill>()
        .answers::<super::jobs::Job>(202, "The job that does it")
        .refuses(&["conflict"]),
    ]
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
            let (new, workflow) = match asked(request) {
                Ok(asked) => asked,
                Err(problem) => {
                    return Err(with_inputs(platform, organization, request, problem).await);
                }
            };
            let wanted = attach::Wanted {
                registration: new.registration,
                workflow,
                inputs: new.inputs,
                wait_secs: new.wait_secs,
                allow_duplicate: new.allow_duplicate,
                id: request.made.id(),
            };
            let act = caller.act();
            let attached = attach::attach(platform, organization, wanted, act).await?;
            let (stored, registration, warnings) = attached;
            Ok(shown(201, stored, registration, warnings))
        }
        "GET /v1/attachments" => list(platform, organization, request).await,
        "GET /v1/attachments/{attachment}" => {
            let (stored, registration) = attach::find(platform, organization, id).await?;
            Ok(shown(200, stored, registration, Vec::new()))
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
                mark: request.made.mark(),
            };
            let (only, act) = (request.precondition()?, caller.act());
            let updated = update::attachment(platform, organization, id, &change, &only, act);
            let (stored, registration, warnings) = updated.await?;
            Ok(shown(200, stored, registration, warnings))
        }
        "DELETE /v1/attachments/{attachment}" => {
            let only = request.precondition()?;
            let (stored, registration) =
                attach::detach(platform, organization, id, &only, caller.act()).await?;
            let detached = Attachment::of(stored, registration);
            Ok(Response::json(200, &detached))
        }
        "POST /v1/attachments/{attachment}/preview" => {
            let NewPreview { attestation } = request.json()?;
            preview(platform, caller, id, &attestation).await
        }
        "POST /v1/attachments/{attachment}/backfill" => {
            let asked: Backfill = request.json_or_default()?;
            let (stored, registration) = attach::find(platform, organization, id).await?;
            let subject = Subject::attachment(&stored.row, &registration.row);
            let work = JobKind::Backfill {
                attachment: stored.row.id,
                since: asked.since,
                until: asked.until.unwrap_or_else(|| platform.now()),
            };
            let rate = super::jobs::per_second(asked.per_second);
            let mut job = jobs::new(platform, organization, work, rate, &caller.actor.name);
            job.dry_run = asked.dry_run;
            job.id = request.made.job().unwrap_or(job.id);
            let detail = super::jobs::period(asked.since, asked.until);
            super::jobs::begin(platform, caller, job, (subject, detail), None).await
        }
        other => Err(Problem::not_found(format!("no route {other}"))),
    }
}

fn asked(request: &Request) -> Result<(NewAttachment, Selector), Problem> {
    let new: NewAttachment = request.json_and(|body| {
        let text = |field: &str| body.get(field).and_then(Value::as_str);
        let selector = text("workflow").map(|name| attach::selector(name, text("project")));
        selector.and_then(Result::err).into_iter().collect()
    })?;
    let workflow = attach::selector(&new.workflow, new.project.as_deref())
        .map_err(|fault| Problem::faults(vec![fault]))?;
    Ok((new, workflow))
}

/// A problem with what is wrong with the inputs added to it, as far as that can be told.
async fn with_inputs(
    platform: &impl Platform,
    organization: &str,
    request: &Request,
    mut problem: Problem,
) -> Problem {
    if problem.faults.is_empty() {
        return problem;
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    if let (Some(registration), Some(inputs)) =
        (body["registration"].as_str(), body["inputs"].as_object())
        && let Ok(faults) = attach::faults(platform, organization, registration, inputs).await
    {
        problem.faults.extend(faults);
    }
    problem
}

async fn preview(
    platform: &impl Platform,
    caller: &Caller,
    id: &str,
    digest: &Digest,
) -> Result<Response, Problem> {
    let organization = &caller.organization;
    let (stored, registration) = attach::find(platform, organization, id).await?;
    let subject = Subject::attachment(&stored.row, &registration.row);
    let found = attestations::find(platform, organization, digest).await?;
    let attestation = found
        .ok_or_else(|| Problem::not_found(format!("there is no attestation {digest}")))?
        .hash;
    let asked = check::Preview {
        organization: organization.to_owned(),
        attachment: stored.row.id,
        attestation,
    };
    let previewed =
        match check::ask_preview(platform, &caller.actor, &stored.row.integration, &asked).await? {
            check::Previewed::Requests(requests) => Previewed {
                requests,
                nothing: None,
            },
            check::Previewed::Nothing(reason) => Previewed {
                requests: Vec::new(),
                nothing: Some(reason),
            },
            check::Previewed::Refused(reason) => {
                let title = "It could not be delivered";
                return Err(Problem::new(422, "not-deliverable", title, reason));
            }
        };
    // It shows what the attestation says and how the attachment is configured.
    let detail = format!("attestation {attestation}");
    audit_log::record(platform, organization, caller.act(), subject, detail).await?;
    Ok(Response::json(200, &previewed))
}

/// The place where a page begins: behind a registration, by its name, and where not all of its attachments were on the
/// page before, behind one of them.
struct After<'a> {
    registration: &'a str,
    attachment: Option<&'a str>,
}

impl<'a> After<'a> {
    fn parse(cursor: &'a str) -> Option<Self> {
        let (registration, attachment) = match cursor.split_once('_') {
            None => (cursor, None),
            Some((registration, id)) => {
                uuid::Uuid::parse_str(id).ok()?;
                (registration, Some(id))
            }
        };
        configuration::is_label(registration).then_some(Self {
            registration,
            attachment,
        })
    }

    fn comes_before(&self, registration: &str, attachment: &str) -> bool {
        match self.attachment {
            Some(own) => (self.registration, own) < (registration, attachment),
            None => self.registration < registration,
        }
    }
}

/// An attachment with its registration.
type Pair = (Stored<rows::Registration>, Stored<rows::Attachment>);

fn cursor((registration, attachment): &Pair) -> String {
    format!("{}_{}", registration.row.name, attachment.row.id)
}

/// Registrations whose attachments are asked for at once.
const AT_ONCE: usize = 10;

async fn list(
    platform: &impl Platform,
    organization: &str,
    request: &Request,
) -> Result<Response, Problem> {
    let project = request.project()?;
    let selector = match request.query("workflow") {
        None => None,
        Some(workflow) => Some(
            attach::selector(workflow, project).map_err(|fault| Problem::faults(vec![fault]))?,
        ),
    };
    let (limit, after) = (request.limit()?, request.cursor(After::parse)?);
    let only = match request.query("registration") {
        None => None,
        Some(named) => Some(configuration::find(platform, organization, named).await?),
    };
    let (mut pairs, next) = match &selector {
        Some(selector) => {
            let of = (selector, only);
            Box::pin(of_workflow(platform, organization, of, after, limit)).await?
        }
        None => Box::pin(walk(platform, organization, only, after, limit)).await?,
    };
    if let (None, Some(project)) = (&selector, project) {
        pairs.retain(|(_, attachment)| {
            let own = attachment.row.workflow.0.split_once('/');
            own.is_some_and(|(own, _)| own == project)
        });
    }
    let items = pairs
        .into_iter()
        .map(|(registration, attachment)| Attachment::of(attachment, registration));
    let items = items.collect();
    Ok(Response::json(200, &Page::<Attachment> { items, next }))
}

/// A page of the attachments with exactly this selector, of which there are not too many to be read all.
async fn of_workflow(
    platform: &impl Platform,
    organization: &str,
    (selector, only): (&Selector, Option<Stored<rows::Registration>>),
    after: Option<After<'_>>,
    limit: usize,
) -> Result<(Vec<Pair>, Option<String>), Problem> {
    let attached = attach::of_workflow(platform, organization, selector).await?;
    let ids: BTreeSet<&str> = attached
        .iter()
        .map(|stored| stored.row.registration.as_str())
        .filter(|id| only.as_ref().is_none_or(|only| only.row.id == *id))
        .collect();
    let keys: Vec<_> = ids
        .into_iter()
        .map(|id| rows::Registration::at(organization, id))
        .collect();
    let registrations = rows::load_many::<rows::Registration>(platform, &keys).await?;
    let by_id: BTreeMap<&str, &Stored<rows::Registration>> = registrations
        .iter()
        // One that is being deleted has no attachments any more.
        .filter(|registration| registration.row.deleted_at.is_none())
        .map(|registration| (registration.row.id.as_str(), registration))
        .collect();
    let mut pairs: Vec<Pair> = attached
        .iter()
        .filter_map(|attachment| {
            let registration = by_id.get(attachment.row.registration.as_str())?;
            let is_behind = after
                .as_ref()
                .is_none_or(|after| after.comes_before(&registration.row.name, &attachment.row.id));
            is_behind.then(|| ((*registration).clone(), attachment.clone()))
        })
        .collect();
    pairs.sort_by(|a, b| (&a.0.row.name, &a.1.row.id).cmp(&(&b.0.row.name, &b.1.row.id)));
    let is_more = pairs.len() > limit;
    pairs.truncate(limit);
    let next = pairs.last().filter(|_| is_more).map(cursor);
    Ok((pairs, next))
}

/// A page of the attachments of one registration or of all, in the order of the registrations' names.
async fn walk(
    platform: &impl Platform,
    organization: &str,
    only: Option<Stored<rows::Registration>>,
    after: Option<After<'_>>,
    limit: usize,
) -> Result<(Vec<Pair>, Option<String>), Problem> {
    let within = after
        .as_ref()
        .filter(|after| after.attachment.is_some())
        .map(|after| after.registration);
    let (registrations, mut next) = match only {
        Some(only) => {
            let behind = after.as_ref().map(|after| after.registration);
            let is_left = behind.is_none_or(|behind| {
                behind < only.row.name.as_str() || within == Some(only.row.name.as_str())
            });
            (is_left.then_some(only).into_iter().collect(), None)
        }
        None => {
            let behind = after.as_ref().map(|after| after.registration);
            let (mut found, next) =
                configuration::list(platform, organization, behind, limit).await?;
            if let Some(name) = within {
                match configuration::find(platform, organization, name).await {
                    Ok(stored) => found.insert(0, stored),
                    Err(configuration::Error::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            (found, next)
        }
    };
    let mut chosen: Vec<(&Stored<rows::Registration>, String)> = Vec::new();
    let mut is_more = false;
    for some in registrations.chunks(AT_ONCE) {
        let left = limit - chosen.len() + 1;
        let ids = try_join_all(some.iter().map(|registration| {
            let rows::Registration { id, name, .. } = &registration.row;
            let behind = after.as_ref().filter(|after| after.registration == name);
            let behind = behind.and_then(|after| after.attachment);
            configuration::attachment_ids(platform, organization, id, behind, left)
        }))
        .await?;
        let ids = some.iter().zip(ids);
        chosen.extend(ids.flat_map(|(one, ids)| ids.into_iter().map(move |id| (one, id))));
        if chosen.len() > limit {
            is_more = true;
            break;
        }
    }
    chosen.truncate(limit);
    if is_more && let Some((registration, id)) = chosen.last() {
        next = Some(format!("{}_{id}", registration.row.name));
    }
    let keys: Vec<_> = chosen
        .iter()
        .map(|(_, id)| rows::Attachment::at(organization, id))
        .collect();
    let attachments = rows::load_many::<rows::Attachment>(platform, &keys).await?;
    let mut by_id: BTreeMap<String, Stored<rows::Attachment>> = attachments
        .into_iter()
        .filter(|attachment| attachment.row.deleted_at.is_none())
        .map(|attachment| (attachment.row.id.clone(), attachment))
        .collect();
    let pairs = chosen
        .into_iter()
        .filter_map(|(registration, id)| Some((registration.clone(), by_id.remove(&id)?)));
    Ok((pairs.collect(), next))
}
