//! What is available, what is registered, and what a Chainloop control plane may post to.

use integrations::{Description, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::openapi::{Operation, operation};
use super::{Action, Audited, Caller, Page, Problem, READS, Request, Response, Route, route};
use crate::clock::Timestamp;
use crate::platform::Platform;
use crate::rows::{self, Pause, Stored};
use crate::{configuration, pauses, register, update};

pub const ROUTES: &[Route] = &[
    route("GET /v1/integrations", Action::Follow, READS),
    route("GET /v1/integrations/{id}", Action::Follow, READS),
    route(
        "POST /v1/registrations",
        Action::Configure,
        Audited::As("registration.create"),
    ),
    route("GET /v1/registrations", Action::Read, READS),
    route("GET /v1/registrations/{registration}", Action::Read, READS),
    route(
        "PATCH /v1/registrations/{registration}",
        Action::Configure,
        Audited::As("registration.update"),
    ),
    route(
        "DELETE /v1/registrations/{registration}",
        Action::Configure,
        Audited::As("registration.delete"),
    ),
    route(
        "POST /v1/registrations/{registration}/pause",
        Action::Operate,
        Audited::As("registration.pause"),
    ),
    route(
        "POST /v1/registrations/{registration}/resume",
        Action::Operate,
        Audited::As("registration.resume"),
    ),
    route(
        "POST /v1/registrations/{registration}/rotate",
        Action::Configure,
        Audited::As("registration.rotate"),
    ),
    // Here because making one keeps a secret.
    route(
        "POST /v1/intakes",
        Action::Configure,
        Audited::As("intake.create"),
    ),
    route("GET /v1/intakes", Action::Read, READS),
    route(
        "POST /v1/intakes/{intake}/rotate",
        Action::Configure,
        Audited::As("intake.rotate"),
    ),
    route(
        "DELETE /v1/intakes/{intake}",
        Action::Configure,
        Audited::As("intake.delete"),
    ),
];

/// An integration that can be registered.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Integration {
    pub id: String,
    pub version: String,
    pub description: String,
    /// Material types that it is sent.
    pub materials: Vec<String>,
    pub registration_schema: Value,
    pub attachment_schema: Value,
}

impl From<&Description> for Integration {
    fn from(description: &Description) -> Self {
        Self {
            id: description.id.into(),
            version: description.version.into(),
            description: description.description.into(),
            materials: description
                .materials
                .iter()
                .map(ToString::to_string)
                .collect(),
            registration_schema: (description.registration_schema)(),
            attachment_schema: (description.attachment_schema)(),
        }
    }
}

/// What `POST /v1/registrations` takes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRegistration {
    pub integration: String,
    #[schemars(regex(pattern = configuration::LABEL))]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub description: String,
    /// As the integration's `registration_schema` says.
    #[serde(default)]
    pub inputs: Map<String, Value>,
}

/// A registered integration; never its secrets.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Registration {
    pub id: String,
    pub name: String,
    pub integration: String,
    pub version: String,
    pub description: String,
    pub config: Map<String, Value>,
    /// Masked labels of the secret inputs.
    pub secrets: Map<String, Value>,
    /// Nothing is sent through it while it is paused; what comes is held.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// The name of the token that registered it; empty when it was before that was kept.
    #[serde(default)]
    pub created_by: String,
    pub created_at: Timestamp,
    /// What `If-Match` takes, there in quotes: another with every write, also when it is paused.
    #[serde(default)]
    pub etag: String,
    /// Doubts about what passed its check; in the answers to creating and changing it alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What `PATCH /v1/registrations/{registration}` takes: what is to be another, and nothing else.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangedRegistration {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = configuration::LABEL))]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// A JSON merge patch (RFC 7396): a value replaces, null takes away, and what is not named stays. Secret inputs
    /// are replaced all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Map<String, Value>>,
    /// Only checks.
    #[serde(default)]
    pub dry_run: bool,
}

/// What `POST …/pause` takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPause {
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub reason: String,
}

/// What `POST …/resume` takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// How many of the held deliveries are sent in a second, 1 to 50; 10 when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = super::jobs::FASTEST))]
    pub per_second: Option<u32>,
}

/// What `POST …/resume` answers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ResumedRegistration")]
pub struct Resumed {
    pub registration: Registration,
    /// What drains it; none when it was not paused.
    pub job: Option<String>,
}

/// What `POST …/rotate` takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSecrets {
    /// All secret inputs that the registration has.
    #[serde(default)]
    pub inputs: Map<String, Value>,
}

impl From<Stored<rows::Registration>> for Registration {
    fn from(Stored { row, etag }: Stored<rows::Registration>) -> Self {
        Self {
            etag: etag.0,
            id: row.id,
            name: row.name,
            integration: row.integration,
            version: row.version,
            description: row.description,
            config: row.config,
            secrets: row.label,
            paused: row.paused,
            created_by: row.created_by,
            created_at: row.created_at,
            warnings: Vec::new(),
        }
    }
}

/// What `DELETE /v1/registrations/{registration}` answers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DeletedRegistration")]
pub struct Deleted {
    pub id: String,
    pub name: String,
    /// How many attachments went with it.
    pub attachments: usize,
}

/// A registration, with its tag.
fn shown(status: u16, stored: Stored<rows::Registration>) -> Response {
    checked(status, (stored, Vec::new()))
}

/// A registration after its check, with its tag.
fn checked(status: u16, (stored, warnings): (Stored<rows::Registration>, Vec<String>)) -> Response {
    let registration = Registration {
        warnings,
        ..stored.into()
    };
    Response::json(status, &registration).tagged(&registration.etag)
}

/// What the routes take and answer, for the API's description.
pub fn operations() -> Vec<Operation> {
    let mut all = vec![
        operation(
            "GET /v1/integrations",
            "listIntegrations",
            "List what can be registered",
        )
        .about("In the order of their ids.")
        .pages::<Integration>(),
        operation(
            "GET /v1/integrations/{id}",
            "getIntegration",
            "Get an integration and the schemas of its inputs",
        )
        .answers::<Integration>(200, "The integration")
        .refuses(&["integration-unknown"]),
        operation(
            "POST /v1/registrations",
            "createRegistration",
            "Register an integration",
        )
        .about(
            "The third party is asked whether it would work. Secret inputs are kept \
                 apart and never shown.",
        )
        .takes::<NewRegistration>()
        .answers::<Registration>(201, "The registration")
        .tagged()
        .refuses(&["quota-exceeded", "too-many-checks", 
            "check-failed",
            "conflict",
            "integration-unknown",
            "name-taken",
        ]),
        operation(
            "GET /v1/registrations",
            "listRegistrations",
            "List registrations",
        )
        .about("In the order of their names.")
        .pages::<Registration>(),
        operation(
            "GET /v1/registrations/{registration}",
            "getRegistration",
            "Get a registration",
        )
        .answers::<Registration>(200, "The registration")
        .tagged(),
        operation(
            "PATCH /v1/registrations/{registration}",
            "updateRegistration",
            "Change a registration",
        )
        .about(
            "Checked as at registration, with the third party too, before anything is kept. Deliveries that wait are \
             sent as it is then.",
        )
        .conditional()
        .takes::<ChangedRegistration>()
        .answers::<Registration>(200, "The registration as it is now")
        .tagged()
        .refuses(&["too-many-checks", "check-failed", "conflict", "integration-unknown", "name-taken"]),
        operation(
            "DELETE /v1/registrations/{registration}",
            "deleteRegistration",
            "Delete a registration and its attachments",
        )
        .about("Deliveries that wait are cancelled when their time comes.")
        .conditional()
        .answers::<Deleted>(200, "What went")
        .refuses(&["conflict"]),
    ];
    all.extend(steering());
    all.extend(super::intakes::operations());
    all
}

/// Those of a registration as it works.
fn steering() -> Vec<Operation> {
    vec![
        operation(
            "POST /v1/registrations/{registration}/pause",
            "pauseRegistration",
            "Hold what would be sent through a registration",
        )
        .about("One that is paused stays as it is.")
        .may_take::<NewPause>()
        .answers::<Registration>(200, "The registration")
        .tagged()
        .refuses(&["conflict"]),
        operation(
            "POST /v1/registrations/{registration}/resume",
            "resumeRegistration",
            "Let go what a registration holds",
        )
        .may_take::<Resume>()
        .answers::<Resumed>(202, "The registration, and the job that drains it")
        .refuses(&["conflict"]),
        operation(
            "POST /v1/registrations/{registration}/rotate",
            "rotateRegistration",
            "Replace a registration's secret inputs",
        )
        .about("The third party is asked whether it would work.")
        .takes::<NewSecrets>()
        .answers::<Registration>(200, "The registration")
        .tagged()
        .refuses(&[
            "too-many-checks",
            "check-failed",
            "conflict",
            "integration-unknown",
        ]),
    ]
}

/// What is wrong with a new registration besides its form, as far as that can be told.
fn besides(body: &Map<String, Value>) -> Vec<Fault> {
    let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
    let none = Map::new();
    let inputs = body.get("inputs").map_or(Some(&none), Value::as_object);
    match (integrations::find(text("integration")), inputs) {
        (Some(description), Some(inputs)) => register::faults(description, text("name"), inputs),
        _ => configuration::name_fault(text("name"))
            .into_iter()
            .collect(),
    }
}

pub async fn function<P: Platform>(
    platform: &P,
    caller: &Caller,
    request: &Request,
) -> Result<Response, Problem> {
    let organization = &caller.organization;
    let named = request.parameter("registration");
    match request.route.as_str() {
        "GET /v1/integrations" => {
            let (limit, after) = (request.limit()?, request.name_cursor()?);
            let all = integrations::ALL.iter();
            let left = all.filter(|one| after.is_none_or(|after| after < one.id));
            let items = left.map(Integration::from).collect();
            let page = Page::first(items, limit, |last: &Integration| last.id.clone());
            Ok(Response::json(200, &page))
        }
        "GET /v1/integrations/{id}" => {
            let id = request.parameter("id");
            let description = integrations::find(id)
                .ok_or_else(|| Problem::from(configuration::Error::NoIntegration(id.to_owned())))?;
            Ok(Response::json(200, &Integration::from(description)))
        }
        "POST /v1/registrations" => {
            let NewRegistration {
                integration,
                name,
                description,
                inputs,
            } = request.json_and(besides)?;
            let wanted = register::Wanted {
                integration,
                name,
                description,
                inputs,
                id: request.made.id(),
            };
            let act = caller.act();
            let registration = register::register(platform, organization, wanted, act).await?;
            Ok(checked(201, registration))
        }
        "GET /v1/registrations" => {
            let (limit, after) = (request.limit()?, request.name_cursor()?);
            let (rows, next) = configuration::list(platform, organization, after, limit).await?;
            let items = rows.into_iter().map(Registration::from).collect();
            Ok(Response::json(200, &Page { items, next }))
        }
        "GET /v1/registrations/{registration}" => {
            let stored = configuration::find(platform, organization, named).await?;
            Ok(shown(200, stored))
        }
        "PATCH /v1/registrations/{registration}" => update(platform, caller, request).await,
        "DELETE /v1/registrations/{registration}" => {
            let only = request.precondition()?;
            let (row, attachments) =
                register::delete(platform, organization, named, &only, caller.act()).await?;
            Ok(Response::json(
                200,
                &Deleted {
                    id: row.id,
                    name: row.name,
                    attachments,
                },
            ))
        }
        "POST /v1/registrations/{registration}/pause" => {
            let NewPause { reason } = request.json_or_default()?;
            let reason = match reason.trim() {
                "" => "by an operator",
                reason => reason,
            };
            let act = Some(caller.act());
            let stored = pauses::pause(platform, organization, named, reason, act).await?;
            Ok(shown(200, stored))
        }
        "POST /v1/registrations/{registration}/resume" => {
            let Resume { per_second } = request.json_or_default()?;
            let rate = super::jobs::per_second(per_second);
            let (act, id) = (caller.act(), request.made.job());
            let (stored, job) =
                pauses::resume(platform, organization, named, rate, act, id).await?;
            let resumed = Resumed {
                registration: stored.into(),
                job: job.map(|job| job.id),
            };
            Ok(Response::json(202, &resumed))
        }
        "POST /v1/registrations/{registration}/rotate" => {
            let NewSecrets { inputs } = request.json()?;
            let act = caller.act();
            let rotated = update::rotate(platform, organization, named, inputs, act).await?;
            Ok(checked(200, rotated))
        }
        _ => super::intakes::function(platform, caller, request).await,
    }
}

async fn update(
    platform: &impl Platform,
    caller: &Caller,
    request: &Request,
) -> Result<Response, Problem> {
    let organization = &caller.organization;
    let named = request.parameter("registration");
    let detail = "cannot be changed: register anew";
    request.refuse_fixed(&["integration"], detail)?;
    let ChangedRegistration {
        name,
        description,
        inputs,
        dry_run,
    } = request.json()?;
    let change = update::Change {
        name,
        description,
        inputs,
        dry_run,
        mark: request.made.mark(),
    };
    let (only, act) = (request.precondition()?, caller.act());
    let updated = update::registration(platform, organization, named, &change, &only, act);
    Ok(checked(200, updated.await?))
}
