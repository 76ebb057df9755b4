//! Deliveries.

use api::deliveries::{
    Attempt, Delivery, Receipt, ReceiptKey, Redelivered, Signature, State, StatusFilter,
};
use api::places::Presence;
use api::{Action, Code, Page, Problem, Role};
use attestation::Envelope;
use base64_simd::STANDARD;
use serde_json::json;

use super::jobs;
use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler, text, time};
use crate::config::check::{self, PresenceCheck};
use crate::config::{self, Names};
use crate::engine::deliveries::{self, Cursor, Filter, Wanted};
use crate::engine::operations;
use crate::engine::receipts::{self, PublicKey};
use crate::records::audit_log::{self, Subject};
use crate::store::platform::Platform;
use crate::store::rows;

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::get("/v1/deliveries", Action::Follow, handler!(list))
            .for_restricted()
            .operation("listDeliveries", "List deliveries")
            .about(
                "Newest first. Give at most one of `attestation`, `registration` and \
                 `workflow`. A producer gives `attestation`.",
            )
            .query(
                "attestation",
                "Deliveries of this attestation, by digest.",
                || json!({ "type": "string", "pattern": "^(sha256:)?[0-9A-Fa-f]{64}$" }),
            )
            .query(
                "registration",
                "Deliveries through this registration, by name or ID.",
                text,
            )
            .of_workflow()
            .query(
                "state",
                "Deliveries in this state.",
                || json!({ "$ref": "#/components/schemas/DeliveryState" }),
            )
            .query(
                "integration",
                "Deliveries to registrations of this integration, by its ID.",
                text,
            )
            .query(
                "status",
                "Deliveries whose last attempt got this answer: a status, a class as `5xx`, or `none` where none came.",
                || json!({ "type": "string", "pattern": StatusFilter::PATTERN }),
            )
            .query("since", "Created at this time or later.", time)
            .query("until", "Created at this time or earlier.", time)
            .pages::<Delivery>()
            .refuses(&[Code::Forbidden, Code::NotFound, Code::TokenRestricted]),
        Route::get("/v1/deliveries/{delivery}", Action::Follow, handler!(get))
            .for_restricted()
            .operation("getDelivery", "Get a delivery and its attempts")
            .answers::<Delivery>(200, "The delivery"),
        Route::get(
            "/v1/deliveries/{delivery}/receipt",
            Action::Read,
            handler!(receipt),
        )
        .operation("getDeliveryReceipt", "Get a signed receipt of a delivery")
        .about(
            "An in-toto statement about a final delivery, signed now by the stack's key: it says \
             what the ledger says at this time.",
        )
        .answers::<Receipt>(200, "A DSSE envelope")
        .refuses(&[Code::NotFinal]),
        Route::get("/v1/receipt-key", Action::Follow, handler!(receipt_key))
            .operation(
                "getReceiptKey",
                "Get the key that receipts are verified with",
            )
            .answers::<ReceiptKey>(200, "The public key"),
        Route::post(
            "/v1/deliveries/{delivery}/redeliver",
            Action::Operate,
            handler!(redeliver),
        )
        .audited("delivery.redeliver")
        .keyed()
        .operation("redeliver", "Redeliver")
        .about("A waiting delivery becomes due at once; a final one gets a new delivery.")
        .answers::<Redelivered>(202, "The new or waiting delivery")
        .refuses(&[
            Code::Conflict,
            Code::Gone,
            Code::Paused,
            Code::SignatureInvalid,
            Code::SignatureMissingMaterial,
            Code::SignerThreshold,
            Code::SignerUnknown,
            Code::UnderWay,
        ]),
        Route::post(
            "/v1/deliveries/{delivery}/cancel",
            Action::Operate,
            handler!(cancel),
        )
        .audited("delivery.cancel")
        .operation("cancelDelivery", "Cancel a waiting delivery")
        .answers::<Delivery>(200, "The delivery")
        .refuses(&[Code::Conflict, Code::Over, Code::UnderWay]),
    ]
}

/// Asking third parties: by the function that may invoke delivery functions.
pub fn checks<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::post(
            "/v1/deliveries/{delivery}/check",
            Action::Operate,
            handler!(check),
        )
        .audited("delivery.check")
        .operation("checkDelivery", "Ask whether what was delivered is still there")
        .about(
            "Asks the third party by the receipt of a delivery that arrived, with the registration's credentials of \
             today. Changes nothing there.",
        )
        .answers::<Presence>(200, "What the third party says")
        .refuses(&[Code::Conflict, Code::TooManyChecks]),
    ]
}

async fn check<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let id = call.id("delivery");
    let row = operations::find(scope, &id).await?.row;
    if row.state != State::Delivered {
        let detail = "it did not arrive, so there is nothing to look for";
        return Err(Problem::new(Code::Conflict, detail));
    }
    let subject = Subject::delivery(scope.platform, &row).await?;
    let asked = PresenceCheck {
        organization: scope.organization.to_owned(),
        delivery: id,
    };
    let (actor, integration) = (&call.caller.actor, &row.integration);
    let found = check::ask_presence(scope.platform, actor, integration, &asked).await?;
    audit_log::record(scope, call.act(), subject, "").await?;
    Ok(Response::json(200, &found))
}

async fn get<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let caller = call.caller;
    let id = call.id("delivery");
    let (row, attempts) = deliveries::describe(scope, &id)
        .await?
        .filter(|(row, _)| caller.is_for(&row.workflow))
        .ok_or_else(|| Problem::new(Code::NotFound, format!("there is no delivery {id:?}")))?;
    let mut delivery = one(call, row).await;
    delivery.attempts = attempts
        .into_iter()
        .map(|attempt| attempted(caller.role, attempt))
        .collect();
    Ok(Response::json(200, &delivery))
}

async fn receipt<P: Platform>(call: Call<'_, P>) -> Answer {
    let envelope = receipts::sign(call.scope(), &call.id("delivery")).await;
    Ok(Response::json(200, &written(envelope?)))
}

impl From<receipts::Error> for Problem {
    fn from(error: receipts::Error) -> Self {
        let text = error.to_string();
        match error {
            receipts::Error::NotFound(_) | receipts::Error::BytesGone(_) => {
                Self::new(Code::NotFound, text)
            }
            receipts::Error::NotFinal => Self::new(Code::NotFinal, text),
            receipts::Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

fn written(envelope: Envelope) -> Receipt {
    let signatures = envelope.signatures.into_iter();
    Receipt {
        payload_type: envelope.payload_type,
        payload: STANDARD.encode_to_string(envelope.payload),
        signatures: signatures
            .map(|signature| Signature {
                keyid: signature.keyid,
                sig: STANDARD.encode_to_string(signature.sig),
            })
            .collect(),
    }
}

async fn receipt_key<P: Platform>(call: Call<'_, P>) -> Answer {
    let key = PublicKey::load(call.platform).await?;
    let key = ReceiptKey {
        id: key.id(),
        pem: pem(&key.der),
    };
    Ok(Response::json(200, &key))
}

fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode_to_string(der);
    let mut text = "-----BEGIN PUBLIC KEY-----\n".to_owned();
    for line in base64.as_bytes().chunks(64) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text + "-----END PUBLIC KEY-----\n"
}

/// Maximum number of bytes of a receipt in a list.
const LISTED_BYTES: usize = 16 * 1024;

async fn redeliver<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let id = call.id("delivery");
    let stored = operations::find(scope, &id).await?;
    let (key, act) = (call.ids.job(), call.act());
    let again = operations::redeliver_for(scope.platform, &stored.row, key.as_deref(), act).await?;
    Ok(Response::json(202, &Redelivered { id: again }))
}

async fn cancel<P: Platform>(call: Call<'_, P>) -> Answer {
    let id = call.id("delivery");
    let row = operations::cancel(call.scope(), &id, call.act()).await?;
    Ok(Response::json(200, &one(call, row).await))
}

/// Shows deliveries as the caller may see them, with the names of their registrations. Whoever follows an attestation
/// learns what became of it, and nothing of how the organization is configured or of what third parties say.
async fn shown<P: Platform>(call: Call<'_, P>, rows: Vec<rows::Delivery>) -> Vec<Delivery> {
    let may_read = call.caller.role.may(Action::Read);
    let of = rows.iter().filter(|_| may_read);
    let names = config::names(call.scope(), of.map(|row| &row.registration)).await;
    let shown = rows.into_iter().map(|row| view(row, &names, may_read));
    shown.collect()
}

/// As [`shown`], for a list: of receipts, which may have 128 KiB each, those alone that a page has room for.
pub(super) async fn listed<P: Platform>(
    call: Call<'_, P>,
    rows: Vec<rows::Delivery>,
) -> Vec<Delivery> {
    let mut listed = shown(call, rows).await;
    for delivery in &mut listed {
        let size_bytes = |receipt: &_| serde_json::to_vec(receipt).map_or(0, |json| json.len());
        delivery
            .receipt
            .take_if(|receipt| size_bytes(receipt) > LISTED_BYTES);
    }
    listed
}

async fn one<P: Platform>(call: Call<'_, P>, row: rows::Delivery) -> Delivery {
    shown(call, vec![row]).await.remove(0)
}

fn view(row: rows::Delivery, names: &Names, may_read: bool) -> Delivery {
    Delivery {
        due_at: (row.state == State::Pending && row.held_at.is_none()).then_some(row.due_at),
        generation: row.generation,
        held_at: row.held_at,
        id: row.id,
        state: row.state,
        attempt: row.attempt,
        reason: row.reason,
        integration: row.integration,
        registration_name: names.get(&row.registration).cloned(),
        registration: row.registration,
        attachment: row.attachment,
        attestation: row.attestation,
        received: Some(row.received),
        size_bytes: Some(row.size_bytes).filter(|size| *size > 0),
        workflow: row.workflow,
        selector: row.selector.filter(|_| may_read),
        receipt: row.receipt,
        progress: row.progress,
        created_at: row.created_at,
        updated_at: row.updated_at,
        attempts: Vec::new(),
    }
}

fn attempted(role: Role, attempt: rows::Attempt) -> Attempt {
    let mut attempt = Attempt::from(attempt);
    attempt.answer = attempt.answer.filter(|_| role.may(Action::Read));
    attempt
}

impl From<rows::Attempt> for Attempt {
    fn from(row: rows::Attempt) -> Self {
        let report = row.report;
        Self {
            number: row.number,
            ending: report.ending,
            started_at: report.started_at,
            duration_ms: report.duration_ms,
            status: report.status,
            sent_bytes: report.sent_bytes,
            detail: report.detail,
            answer: report.answer,
        }
    }
}

async fn list<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let caller = call.caller;
    if !caller.role.may(Action::Read) && request.query("attestation").is_none() {
        let role = caller.role;
        let detail = format!(
            "a token with the role {role} lists those of an attestation: give `attestation`"
        );
        return Err(Problem::new(Code::Forbidden, detail));
    }
    if !caller.workflows.is_empty() && request.query("registration").is_some() {
        let detail =
            "a token that is restricted to workflows lists no deliveries of a registration";
        return Err(Problem::new(Code::TokenRestricted, detail));
    }
    let of = match (
        request.query("attestation"),
        request.query("registration"),
        request.workflow()?,
    ) {
        (None, None, None) => Filter::Organization,
        (Some(digest), None, None) => Filter::Attestation(digest.parse().map_err(|_| {
            Problem::field("attestation", "must be sha256:<64 hexadecimal digits>")
        })?),
        (None, Some(named), None) => Filter::Registration(config::find(scope, named).await?.row.id),
        (None, None, Some((workflow, project))) => {
            Filter::Workflow(jobs::named(workflow, project)?)
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
    let wanted = Wanted {
        state,
        integration: request.text("integration")?.map(str::to_owned),
        status: match request.query("status").map(str::parse::<StatusFilter>) {
            None => None,
            Some(status) => {
                Some(status.map_err(|fault| Problem::field("status", fault.to_string()))?)
            }
        },
        since: request.time("since")?,
        until: request.time("until")?,
    };
    let cursor = request.cursor(Cursor::parse)?;
    let limit = request.limit()?;
    let (mut rows, next) = deliveries::list(scope, of, &wanted, cursor.as_ref(), limit).await?;
    rows.retain(|row| caller.is_for(&row.workflow));
    let items = listed(call, rows).await;
    let next = next.map(|cursor| cursor.to_string());
    Ok(Response::json(200, &Page::<Delivery> { items, next }))
}
