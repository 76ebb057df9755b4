//! Registrations: created, changed, paused, tested and deleted.

use api::inputs::Fault;
use api::registrations::{
    ChangedRegistration, Deleted, Health, NewPause, NewRegistration, NewSecrets, NewTest,
    Registration, Resume, Resumed, Tested,
};
use api::{Action, Code, Page};
use serde_json::{Map, Value, json};

use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler};
use crate::config::{self, register, update};
use crate::engine::{health, operations, pauses};
use crate::store::platform::Platform;
use crate::store::rows::{self, Stored};

/// Routes that create, read, change and delete.
pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::post("/v1/registrations", Action::Configure, handler!(create))
            .audited("registration.create")
            .keyed()
            .operation("createRegistration", "Register an integration")
            .about(
                "Checks the inputs with the third party first. Secret inputs are stored \
                 apart and never shown.",
            )
            .takes::<NewRegistration>()
            .answers::<Registration>(201, "The registration")
            .tagged()
            .refuses(&[
                Code::QuotaExceeded,
                Code::TooManyChecks,
                Code::CheckFailed,
                Code::Conflict,
                Code::IntegrationUnknown,
                Code::NameTaken,
            ]),
        Route::get("/v1/registrations", Action::Read, handler!(list))
            .operation("listRegistrations", "List registrations")
            .about("Sorted by name.")
            .query(
                "circuits",
                "`true`: with the circuits of what they deliver to.",
                || json!({ "type": "string", "enum": ["true"] }),
            )
            .pages::<Registration>(),
        Route::get(
            "/v1/registrations/{registration}",
            Action::Read,
            handler!(get),
        )
        .operation("getRegistration", "Get a registration")
        .answers::<Registration>(200, "The registration")
        .tagged(),
        Route::get(
            "/v1/registrations/{registration}/health",
            Action::Read,
            handler!(health),
        )
        .operation(
            "getRegistrationHealth",
            "Get how a registration's deliveries of the last day stand",
        )
        .about("Reads its newest 1,000 deliveries at most.")
        .answers::<Health>(200, "Its circuit, and its deliveries by the hour"),
        Route::patch(
            "/v1/registrations/{registration}",
            Action::Configure,
            handler!(update),
        )
        .audited("registration.update")
        .keyed()
        .operation("updateRegistration", "Update a registration")
        .about(
            "Checks the inputs with the third party before anything is stored. Waiting \
                 deliveries use the new inputs.",
        )
        .conditional()
        .takes::<ChangedRegistration>()
        .answers::<Registration>(200, "The updated registration")
        .tagged()
        .refuses(&[
            Code::TooManyChecks,
            Code::CheckFailed,
            Code::Conflict,
            Code::IntegrationUnknown,
            Code::NameTaken,
        ]),
        Route::delete(
            "/v1/registrations/{registration}",
            Action::Configure,
            handler!(delete),
        )
        .audited("registration.delete")
        .operation(
            "deleteRegistration",
            "Delete a registration and its attachments",
        )
        .about("Cancels waiting deliveries when they come due.")
        .conditional()
        .answers::<Deleted>(200, "The deleted registration")
        .refuses(&[Code::Conflict]),
    ]
}

/// Routes that pause, resume and rotate.
pub fn steering<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::post(
            "/v1/registrations/{registration}/pause",
            Action::Operate,
            handler!(pause),
        )
        .audited("registration.pause")
        .operation(
            "pauseRegistration",
            "Pause a registration: hold its deliveries",
        )
        .about("Changes nothing if the registration is paused.")
        .may_take::<NewPause>()
        .answers::<Registration>(200, "The registration")
        .tagged()
        .refuses(&[Code::Conflict]),
        Route::post(
            "/v1/registrations/{registration}/resume",
            Action::Operate,
            handler!(resume),
        )
        .audited("registration.resume")
        .keyed()
        .operation(
            "resumeRegistration",
            "Resume a registration: release its held deliveries",
        )
        .may_take::<Resume>()
        .answers::<Resumed>(202, "The registration, and the job that drains it")
        .refuses(&[Code::Conflict]),
        Route::post(
            "/v1/registrations/{registration}/rotate",
            Action::Configure,
            handler!(rotate),
        )
        .audited("registration.rotate")
        .operation(
            "rotateRegistration",
            "Replace a registration's secret inputs",
        )
        .about("Checks the new inputs with the third party first.")
        .takes::<NewSecrets>()
        .answers::<Registration>(200, "The registration")
        .tagged()
        .refuses(&[
            Code::TooManyChecks,
            Code::CheckFailed,
            Code::Conflict,
            Code::IntegrationUnknown,
        ]),
    ]
}

/// The route that accepts a test attestation, and so belongs to the function that accepts.
pub fn tests<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::post(
            "/v1/registrations/{registration}/test",
            Action::Operate,
            handler!(test),
        )
        .audited("registration.test")
        .keyed()
        .operation(
            "testRegistration",
            "Send a test attestation through a registration",
        )
        .may_take::<NewTest>()
        .answers::<Tested>(202, "The delivery of the test")
        .refuses(&[
            Code::QuotaExceeded,
            Code::TooManyChecks,
            Code::Conflict,
            Code::IntegrationUnknown,
        ]),
    ]
}

async fn create<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let NewRegistration {
        integration,
        name,
        description,
        inputs,
    } = request.json_and(besides)?;
    let wanted = register::NewRegistration {
        integration,
        name,
        description,
        inputs,
        id: call.ids.id(),
    };
    let act = call.act();
    let registration = register::register(scope, wanted, act).await?;
    Ok(checked(201, registration))
}

async fn list<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let (limit, after) = (request.limit()?, request.name_cursor()?);
    let is_with_circuits = request.flag("circuits")?;
    let (rows, next) = config::list(scope, after, limit).await?;
    let mut items: Vec<_> = rows.into_iter().map(Registration::from).collect();
    if is_with_circuits {
        let of = items
            .iter()
            .map(|item| (&item.id, item.integration.as_str()));
        let standings = health::standings(scope, &of.collect::<Vec<_>>()).await?;
        for (item, (circuit, _)) in items.iter_mut().zip(standings) {
            item.circuit = Some(circuit);
        }
    }
    Ok(Response::json(200, &Page { items, next }))
}

async fn get<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let named = call.parameter("registration");
    let stored = config::find(scope, named).await?;
    Ok(shown(200, stored))
}

async fn health<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let named = call.parameter("registration");
    let row = config::find(scope, named).await?.row;
    let health = health::health(scope, &row.id, &row.integration).await?;
    Ok(Response::json(200, &health))
}

async fn delete<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let named = call.parameter("registration");
    let only = request.precondition()?;
    let (row, attachments) = register::delete(scope, named, &only, call.act()).await?;
    Ok(Response::json(
        200,
        &Deleted {
            id: row.id,
            name: row.name,
            attachments,
        },
    ))
}

async fn pause<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let named = call.parameter("registration");
    let NewPause { reason } = request.json_or_default()?;
    let reason = match reason.trim() {
        "" => "by an operator",
        reason => reason,
    };
    let act = Some(call.act());
    let stored = pauses::pause(scope, named, reason, act).await?;
    Ok(shown(200, stored))
}

async fn resume<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let named = call.parameter("registration");
    let Resume { per_second } = request.json_or_default()?;
    let rate = super::jobs::per_second(per_second);
    let (act, id) = (call.act(), call.ids.job());
    let (stored, job) = pauses::resume(scope, named, rate, act, id).await?;
    let resumed = Resumed {
        registration: stored.into(),
        job: job.map(|job| job.id),
    };
    Ok(Response::json(202, &resumed))
}

async fn rotate<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let named = call.parameter("registration");
    let NewSecrets { inputs } = request.json()?;
    let act = call.act();
    let rotated = update::rotate(scope, named, inputs, act).await?;
    Ok(checked(200, rotated))
}

async fn test<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let NewTest { inputs } = request.json_or_default()?;
    let named = call.parameter("registration");
    let stored = config::find(scope, named).await?;
    let (id, act) = (call.ids.id(), call.act());
    let accepted = operations::test(scope.platform, &stored.row, inputs, id, act).await?;
    let delivery = accepted.plan.deliveries().next().map(|(id, _)| id);
    let tested = Tested {
        attestation: accepted.attestation.hash,
        delivery: delivery.unwrap_or_else(|| "".into()),
    };
    Ok(Response::json(202, &tested))
}

impl From<Stored<rows::Registration>> for Registration {
    fn from(Stored { row, version }: Stored<rows::Registration>) -> Self {
        Self {
            etag: version.etag.0,
            id: row.id,
            name: row.name,
            integration: row.integration,
            version: row.version,
            description: row.description,
            config: row.config,
            secrets: row.label,
            external_id: row.external_id,
            circuit: None,
            paused: row.paused,
            created_by: row.created_by,
            created_at: row.created_at,
            warnings: Vec::new(),
        }
    }
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

/// Finds faults of a new registration besides its form, as far as possible.
fn besides(body: &Map<String, Value>) -> Vec<Fault> {
    let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
    let none = Map::new();
    let inputs = body.get("inputs").map_or(Some(&none), Value::as_object);
    match (integrations::find(text("integration")), inputs) {
        (Some(description), Some(inputs)) => register::faults(description, text("name"), inputs),
        _ => api::names::name_fault(text("name")).into_iter().collect(),
    }
}

async fn update<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let named = call.parameter("registration");
    let detail = "cannot be changed: register anew";
    request.refuse_fixed(&["integration"], detail)?;
    let ChangedRegistration {
        name,
        description,
        inputs,
        dry_run,
    } = request.json()?;
    let change = update::RegistrationPatch {
        name,
        description,
        inputs,
        dry_run,
        mark: call.ids.mark(),
    };
    let (only, act) = (request.precondition()?, call.act());
    let updated = update::registration(scope, named, &change, &only, act);
    Ok(checked(200, updated.await?))
}
