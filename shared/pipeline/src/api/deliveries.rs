//! What became of each delivery.

use std::collections::BTreeMap;

use attestation::Digest;
use integrations::Workflow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::openapi::{self, Operation, operation};
use super::{Action, Caller, Page, Problem, Request, Response, Route, route};
use crate::clock::Timestamp;
use crate::deliveries::{self, Cursor, Of};
use crate::platform::Platform;
use crate::rows::{self, Ending, State};
use crate::{operations, register};

pub const ROUTES: &[Route] = &[
    route("GET /v1/deliveries", Action::Follow),
    route("GET /v1/deliveries/{delivery}", Action::Follow),
    route("POST /v1/deliveries/{delivery}/redeliver", Action::Operate),
    route("POST /v1/deliveries/{delivery}/cancel", Action::Operate),
    route("POST /v1/redeliveries", Action::Operate),
    route("POST /v1/audits", Action::Operate),
    route("GET /v1/jobs", Action::Read),
    route("GET /v1/jobs/{job}", Action::Read),
    route("POST /v1/jobs/{job}/cancel", Action::Operate),
    route("GET /v1/audit-log", Action::Read),
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
    pub ending: Ending,
    pub started_at: Timestamp,
    pub duration_ms: u64,
    pub status: Option<u16>,
    pub detail: Option<String>,
    /// The beginning of the third party's answer, secrets removed.
    pub answer: Option<String>,
}

impl From<rows::Delivery> for Delivery {
    fn from(row: rows::Delivery) -> Self {
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
            receipt: row.receipt,
            progress: row.progress,
            created_at: row.created_at,
            updated_at: row.updated_at,
            attempts: Vec::new(),
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
                 `workflow` is given.",
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
            .refuses(&["not-found"]),
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
        "GET /v1/deliveries" => list(platform, organization, request).await,
        "GET /v1/deliveries/{delivery}" => {
            let id = request.parameter("delivery");
            let (row, attempts) = deliveries::describe(platform, organization, id)
                .await?
                .ok_or_else(|| Problem::not_found(format!("there is no delivery {id:?}")))?;
            let mut delivery = Delivery::from(row);
            delivery.attempts = attempts.into_iter().map(Attempt::from).collect();
            Ok(Response::json(200, &delivery))
        }
        "POST /v1/deliveries/{delivery}/redeliver" => {
            let id = request.parameter("delivery");
            let stored = operations::find(platform, organization, id).await?;
            let again = match request.made.job() {
                Some(key) => operations::redeliver_once(platform, &stored.row, &key).await?,
                None => operations::redeliver(platform, &stored.row, None)
                    .await?
                    .unwrap_or_else(|| id.to_owned()),
            };
            let (by, detail) = (&caller.name, format!("as {again}"));
            let action = "delivery.redeliver";
            operations::record(platform, organization, by, action, id, detail).await?;
            Ok(Response::json(202, &Redelivered { id: again }))
        }
        "POST /v1/deliveries/{delivery}/cancel" => {
            let id = request.parameter("delivery");
            let row = operations::cancel(platform, organization, id, &caller.name).await?;
            let (by, action) = (&caller.name, "delivery.cancel");
            operations::record(platform, organization, by, action, id, String::new()).await?;
            Ok(Response::json(200, &Delivery::from(row)))
        }
        _ => super::jobs::function(platform, caller, request).await,
    }
}

async fn list(
    platform: &impl Platform,
    organization: &str,
    request: &Request,
) -> Result<Response, Problem> {
    let of = match (
        request.query("attestation"),
        request.query("registration"),
        request.workflow()?,
    ) {
        (None, None, None) => Of::Organization,
        (Some(digest), None, None) => Of::Attestation(digest.parse().map_err(|_| {
            Problem::field("attestation", "must be sha256:<64 hexadecimal digits>")
        })?),
        (None, Some(named), None) => {
            Of::Registration(register::find(platform, organization, named).await?.row.id)
        }
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
    let items = rows.into_iter().map(Delivery::from).collect();
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
