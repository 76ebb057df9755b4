//! What became of each delivery.

use std::collections::BTreeMap;

use attestation::Digest;
use integrations::Workflow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::openapi::{self, Operation, operation};
use super::{Action, Audited, Caller, Page, Problem, READS, Request, Response, Route, route};
use crate::clock::Timestamp;
use crate::deliveries::{self, Cursor, Of};
use crate::platform::Platform;
use crate::rows::{self, AttemptOutcome, Role, Selector, State};
use crate::{configuration, operations};

pub const ROUTES: &[Route] = &[
    route("GET /v1/deliveries", Action::Follow, READS),
    route("GET /v1/deliveries/{delivery}", Action::Follow, READS),
    route(
        "POST /v1/deliveries/{delivery}/redeliver",
        Action::Operate,
        Audited::As("delivery.redeliver"),
    ),
    route(
        "POST /v1/deliveries/{delivery}/cancel",
        Action::Operate,
        Audited::As("delivery.cancel"),
    ),
    route(
        "POST /v1/redeliveries",
        Action::Operate,
        Audited::As("delivery.redeliver-all"),
    ),
    route(
        "POST /v1/audits",
        Action::Operate,
        Audited::As("delivery.audit"),
    ),
    route("GET /v1/jobs", Action::Read, READS),
    route("GET /v1/jobs/{job}", Action::Read, READS),
    route(
        "POST /v1/jobs/{job}/cancel",
        Action::Operate,
        Audited::As("job.cancel"),
    ),
    route("GET /v1/audit-log", Action::Read, READS),
];

/// What `POST /v1/deliveries/{delivery}/redeliver` answers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Redelivered {
    /// The delivery that is under way: a new one, or the same when it was still waiting.
    pub id: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Delivery {
    pub id: String,
    pub state: State,
    /// The attempt that is next, or running; the last one when it is final.
    pub attempt: u32,
    pub reason: Option<String>,
    pub integration: String,
    /// The registration's id.
    pub registration: String,
    pub attachment: String,
    pub attestation: Digest,
    pub workflow: Workflow,
    /// The attachment's, which was for that workflow when the delivery was planned: an id, `project/name`, `project/*`,
    /// or `*`. None when that is not known, or not for whoever asks.
    #[serde(default)]
    pub selector: Option<Selector>,
    /// 0 for the delivery that the acceptance planned; later ones are redeliveries and backfills.
    #[serde(default)]
    pub generation: u32,
    /// Since when it is held because its registration is paused.
    #[serde(default)]
    pub held_at: Option<Timestamp>,
    /// When the next attempt is due; none when there is none.
    pub due_at: Option<Timestamp>,
    /// What the third party called what it got.
    pub receipt: Option<Map<String, Value>>,
    /// Steps that are finished, while it is under way.
    pub progress: BTreeMap<String, Value>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// In `GET /v1/deliveries/{delivery}` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    pub number: u32,
    pub ending: AttemptOutcome,
    pub started_at: Timestamp,
    pub duration_ms: u64,
    pub status: Option<u16>,
    pub detail: Option<String>,
    /// The beginning of the third party's answer, secrets removed; none when it is not for whoever asks.
    pub answer: Option<String>,
}

impl Delivery {
    /// As a role may see it. Who follows an attestation learns what became of it, and nothing of how the organization
    /// is configured or of what third parties say.
    pub(super) fn shown_to(role: Role, row: rows::Delivery, attempts: Vec<rows::Attempt>) -> Self {
        let may_read = role.may(Action::Read);
        let answer = |attempt: rows::Attempt| Attempt {
            answer: attempt.answer.clone().filter(|_| may_read),
            ..Attempt::from(attempt)
        };
        Self {
            due_at: (row.state == State::Pending && row.held_at.is_none()).then_some(row.due_at),
            generation: row.generation,
            held_at: row.held_at,
            id: row.id,
            state: row.state,
            attempt: row.attempt,
            reason: row.reason,
            integration: row.integration,
            registration: row.registration,
            attachment: row.attachment,
            attestation: row.attestation,
            workflow: row.workflow,
            selector: row.selector.filter(|_| may_read),
            receipt: row.receipt,
            progress: row.progress,
            created_at: row.created_at,
            updated_at: row.updated_at,
            attempts: attempts.into_iter().map(answer).collect(),
        }
    }
}

impl From<rows::Attempt> for Attempt {
    fn from(row: rows::Attempt) -> Self {
        Self {
            number: row.number,
            ending: row.ending,
            started_at: row.started_at,
            duration_ms: row.duration_ms,
            status: row.status,
            detail: row.detail,
            answer: row.answer,
        }
    }
}

/// What the routes take and answer, for the API's description.
pub fn operations() -> Vec<Operation> {
    let mut all = vec![
        operation("GET /v1/deliveries", "listDeliveries", "List deliveries")
            .about(
                "Newest first. At most one of `attestation`, `registration` and \
                 `workflow` is given. A producer gives `attestation`.",
            )
            .query(
                "attestation",
                "Those of this attestation, by its digest.",
                json!({ "type": "string", "pattern": "^(sha256:)?[0-9A-Fa-f]{64}$" }),
            )
            .query(
                "registration",
                "Those through this registration, by its name or id.",
                openapi::text(),
            )
            .query("workflow", openapi::WORKFLOW, openapi::text())
            .query("project", openapi::PROJECT, openapi::text())
            .query(
                "state",
                "Those in this state.",
                json!({ "$ref": "#/components/schemas/DeliveryState" }),
            )
            .pages::<Delivery>()
            .refuses(&["forbidden", "not-found"]),
        operation(
            "GET /v1/deliveries/{delivery}",
            "getDelivery",
            "Get a delivery and its attempts",
        )
        .answers::<Delivery>(200, "The delivery"),
        operation(
            "POST /v1/deliveries/{delivery}/redeliver",
            "redeliver",
            "Deliver once more",
        )
        .about("One that waits is due at once; one that is final gets a delivery of its own.")
        .answers::<Redelivered>(202, "The delivery that is under way")
        .refuses(&["conflict", "gone", "paused", "under-way"]),
        operation(
            "POST /v1/deliveries/{delivery}/cancel",
            "cancelDelivery",
            "Cancel a delivery that waits",
        )
        .answers::<Delivery>(200, "The delivery")
        .refuses(&["conflict", "over", "under-way"]),
    ];
    all.extend(super::jobs::operations());
    all
}

pub async fn function<P: Platform>(
    platform: &P,
    caller: &Caller,
    request: &Request,
) -> Result<Response, Problem> {
    let organization = &caller.organization;
    match request.route.as_str() {
        "GET /v1/deliveries" => list(platform, caller, request).await,
        "GET /v1/deliveries/{delivery}" => {
            let id = request.parameter("delivery");
            let (row, attempts) = deliveries::describe(platform, organization, id)
                .await?
                .ok_or_else(|| Problem::not_found(format!("there is no delivery {id:?}")))?;
            let delivery = Delivery::shown_to(caller.role, row, attempts);
            Ok(Response::json(200, &delivery))
        }
        "POST /v1/deliveries/{delivery}/redeliver" => {
            let id = request.parameter("delivery");
            let stored = operations::find(platform, organization, id).await?;
            let (key, act) = (request.made.job(), caller.act());
            let again =
                operations::redeliver_for(platform, &stored.row, key.as_deref(), act).await?;
            Ok(Response::json(202, &Redelivered { id: again }))
        }
        "POST /v1/deliveries/{delivery}/cancel" => {
            let id = request.parameter("delivery");
            let row = operations::cancel(platform, organization, id, caller.act()).await?;
            let delivery = Delivery::shown_to(caller.role, row, Vec::new());
            Ok(Response::json(200, &delivery))
        }
        _ => super::jobs::function(platform, caller, request).await,
    }
}

async fn list(
    platform: &impl Platform,
    caller: &Caller,
    request: &Request,
) -> Result<Response, Problem> {
    let organization = &caller.organization;
    if !caller.role.may(Action::Read) && request.query("attestation").is_none() {
        let role = caller.role;
        let detail = format!(
            "a token with the role {role} lists those of an attestation: give `attestation`"
        );
        return Err(Problem::forbidden(detail));
    }
    let of = match (
        request.query("attestation"),
        request.query("registration"),
        request.workflow()?,
    ) {
        (None, None, None) => Of::Organization,
        (Some(digest), None, None) => Of::Attestation(digest.parse().map_err(|_| {
            Problem::field("attestation", "must be sha256:<64 hexadecimal digits>")
        })?),
        (None, Some(named), None) => Of::Registration(
            configuration::find(platform, organization, named)
                .await?
                .row
                .id,
        ),
        (None, None, Some((workflow, project))) => {
            Of::Workflow(super::jobs::named(workflow, project)?)
        }
        _ => {
            let detail = "give one of attestation, registration and workflow";
            return Err(Problem::field("attestation", detail));
        }
    };
    let state = match request.query("state") {
        None => None,
        Some(state) => Some(serde_json::from_value(state.into()).map_err(|_| {
            let states = "pending, delivering, delivered, skipped, failed or cancelled";
            Problem::field("state", format!("must be {states}"))
        })?),
    };
    let cursor = request.cursor(parse)?;
    let limit = request.limit()?;
    let (rows, next) =
        deliveries::list(platform, organization, of, state, cursor.as_ref(), limit).await?;
    let items = rows
        .into_iter()
        .map(|row| Delivery::shown_to(caller.role, row, Vec::new()))
        .collect();
    let next = next.map(|cursor| format!("{}_{}", cursor.created_at, cursor.id));
    Ok(Response::json(200, &Page::<Delivery> { items, next }))
}

fn parse(cursor: &str) -> Option<Cursor> {
    let (created_at, id) = cursor.split_once('_')?;
    Some(Cursor {
        created_at: created_at.parse().ok()?,
        id: id.to_owned(),
    })
}
