//! Intakes, and what a Chainloop control plane posts to them.

use std::time::Duration;

use api::attestations::Accepted;
use api::intakes::{Intake, Kept, NewIntake, NewToken, Tried};
use api::tokens::Rotation;
use api::workflows::Workflow;
use api::{Action, Code, Page, Problem, Timestamp};
use attestation::{Digest, Forwarded, Origin, Unknown};
use bytes::Bytes;
use integrations::SecretText;
use serde_json::{Map, Value};

use super::attestations::{PUSHED, problem, view};
use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler};
use crate::config::intakes::{self, Cas, Created, Error};
use crate::config::quotas;
use crate::config::{Names, admission};
use crate::engine::{accept, fetch};
use crate::store::meter::Used;
use crate::store::platform::Platform;
use crate::store::rows::{self, Conditions, IntakeToken, LastUse, Refusal};

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::post("/v1/intakes", Action::Configure, handler!(create))
            .audited("intake.create")
            .operation(
                "createIntake",
                "Create an intake, to which a Chainloop control plane posts",
            )
            .takes::<NewIntake>()
            .answers::<NewToken>(201, "The intake and its token, which is shown once")
            .refuses(&[Code::QuotaExceeded, Code::NameTaken]),
        Route::get("/v1/intakes", Action::Read, handler!(list))
            .operation("listIntakes", "List intakes")
            .about("Sorted by name.")
            .pages::<Intake>(),
        Route::post(
            "/v1/intakes/{intake}/rotate",
            Action::Configure,
            handler!(rotate),
        )
        .audited("intake.rotate")
        .operation("rotateIntake", "Give an intake a new URL")
        .about("The old URL works until the overlap ends.")
        .may_take::<Rotation>()
        .answers::<NewToken>(201, "The intake and its new token, which is shown once")
        .refuses(&[Code::Conflict, Code::Overlapping]),
        Route::delete("/v1/intakes/{intake}", Action::Configure, handler!(delete))
            .audited("intake.delete")
            .operation("deleteIntake", "Delete an intake")
            .about("Refuses all further posts to it.")
            .answers::<Intake>(200, "The deleted intake")
            .refuses(&[Code::Conflict]),
    ]
}

/// The route that accepts what is posted to an intake.
pub fn accepting<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::post("/v1/intake/{token}", Action::Forward, handler!(accept))
            .unaudited(PUSHED)
            .operation("forward", "Accept what a Chainloop control plane posts")
            .about(
                "The intake's token in the path is the only credential. Chainloop posts the \
                 bodies of an attestation in any order, and repeats all when one of them \
                 fails.",
            )
            .takes::<Map<String, Value>>()
            .answers::<Kept>(200, "An SBOM was stored, or a test was answered")
            .answers::<Tried>(200, "")
            .answers::<Accepted>(202, "An attestation was accepted")
            .refuses(&[Code::Conflict, Code::WorkflowNotAllowed, Code::KindUnknown])
            .refuses_attestations()
            .never_refuses(Code::InvalidInputs),
    ]
}

async fn create<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let new: NewIntake = request.json_with_name()?;
    let cas = match (new.cas_url, new.cas_token.filter(|token| !token.is_empty())) {
        (None, None) if new.cas_ca_certificates.is_some() => {
            return Err(Problem::field(
                "cas_url",
                "is missing: `cas_ca_certificates` are for it",
            ));
        }
        (None, None) => None,
        (Some(url), Some(token)) => Some(Cas {
            url,
            token: SecretText::from(token),
            authorities: new.cas_ca_certificates,
        }),
        (Some(_), None) => {
            return Err(Problem::field(
                "cas_token",
                "is missing: `cas_url` needs it",
            ));
        }
        (None, Some(_)) => {
            return Err(Problem::field(
                "cas_url",
                "is missing: `cas_token` is for it",
            ));
        }
    };
    let wanted = intakes::NewIntake {
        name: new.name,
        cas,
        valid_for: new.expires_in_secs.map(Duration::from_secs),
        allow_from: new.allow_from,
        workflows: new.workflows,
    };
    let created = intakes::create(scope, wanted, call.act()).await?;
    Ok(shown_once(created, None, scope.platform.now()))
}

async fn list<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let (limit, after) = (request.limit()?, request.name_cursor()?);
    let (rows, next) = intakes::list(scope, after, limit).await?;
    let mut uses = admission::uses(scope.platform, &rows).await?;
    let items = rows.into_iter().map(|row| {
        let used = uses.remove(&row.id);
        shown(row, used, scope.platform.now())
    });
    let items = items.collect();
    Ok(Response::json(200, &Page { items, next }))
}

async fn rotate<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let Rotation { overlap_secs } = request.json_or_default()?;
    let name = call.parameter("intake");
    let rotated = intakes::rotate(scope, name, overlap_secs, call.act()).await?;
    let id = rotated.intake.id.clone();
    // Rotated it is already, and its token known to nobody but this answer.
    let uses = admission::uses(scope.platform, std::slice::from_ref(&rotated.intake)).await;
    let used = uses.unwrap_or_default().remove(&id);
    Ok(shown_once(rotated, used, scope.platform.now()))
}

async fn delete<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let name = call.parameter("intake");
    let row = intakes::delete(scope, name, call.act()).await?;
    let deleted = shown(row, None, scope.platform.now());
    Ok(Response::json(200, &deleted))
}

async fn accept<P: Platform>(call: Call<'_, P>) -> Answer {
    let intake = call.caller.intake.as_ref().ok_or_else(unknown)?;
    let answer = posted(call, intake).await?;
    admission::used(call.platform, intake, &call.request.client).await;
    Ok(answer)
}

fn shown(row: rows::Intake, used: Option<LastUse>, now: Timestamp) -> Intake {
    let Conditions {
        allow_from,
        workflows,
    } = row.conditions;
    let overlap_until = row.previous.map(|previous| previous.valid_until);
    let (last_used_at, last_used_from) = LastUse::parts(used);
    Intake {
        id: row.id,
        name: row.name,
        cas_url: row.cas_url,
        allow_from: allow_from.into_iter().map(String::from).collect(),
        workflows: workflows.into_iter().map(|one| one.0).collect(),
        created_by: row.created_by,
        created_at: row.created_at,
        rotated_at: row.rotated_at,
        expires_at: row.valid_until,
        expired: row.valid_until.is_some_and(|until| until <= now),
        overlap_until: overlap_until.filter(|until| now < *until),
        last_used_at,
        last_used_from,
    }
}

/// The answer to a post that no intake lets in, whatever the reason.
pub fn unknown() -> Problem {
    Problem::new(Code::NotFound, "there is no such intake")
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Faults(faults) => Self::faults(faults),
            Error::NameTaken(_) => Self::new(Code::NameTaken, text),
            Error::NotFound(_) => Self::new(Code::NotFound, text),
            Error::Exceeded(exceeded) => exceeded.into(),
            Error::Overlapping(_) => Self::new(Code::Overlapping, text),
            Error::Conflict => Self::new(Code::Conflict, text),
            Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

fn shown_once(created: Created, used: Option<LastUse>, now: Timestamp) -> Response {
    let Created { intake, token } = created;
    let intake = shown(intake, used, now);
    Response::json(201, &NewToken { intake, token })
}

/// Takes in one body. Chainloop sends all of an attestation's bodies again when one of them fails, so each may come any
/// number of times and in any order.
async fn posted<P: Platform>(call: Call<'_, P>, intake: &IntakeToken) -> Answer {
    let (scope, request) = call.parts();
    let caller = call.caller;
    if request.body.len() > attestation::MAX_BYTES {
        let detail = "a body has at most 6 MiB: attach with send_sbom=false in Chainloop, and make an intake with \
                      --cas-url and --cas-token here, so that materials are fetched";
        return Err(Problem::new(Code::TooLarge, detail));
    }
    match Forwarded::parse(&request.body).map_err(|unknown| not_forwarded(&unknown))? {
        Forwarded::Test => {
            let kind = "TEST_WEBHOOK".into();
            Ok(Response::json(200, &Tried { kind }))
        }
        Forwarded::Attestation {
            envelope,
            origin,
            bundle,
        } => {
            let Origin { id, name, project } = origin;
            let origin = Workflow { id, project, name };
            let bytes = Bytes::from(envelope);
            let bundle = bundle.filter(|_| intake.fetches);
            let sender = accept::Sender {
                actor: &caller.actor,
                workflows: &intake.conditions.workflows,
                trace: request.trace(),
            };
            let taken = accept::forwarded(scope, bytes, &origin, bundle, sender).await;
            if let Err(accept::Error::WorkflowNotAllowed(workflow)) = &taken {
                let (client, refusal) = (&request.client, Refusal::Workflow);
                admission::refused(scope.platform, intake, client, refusal, workflow).await;
            }
            let accepted = taken.map_err(problem)?;
            if intake.fetches && accepted.lacks() {
                // When this fails the answer is 503, and Chainloop posts it again.
                let hash = &accepted.attestation.hash;
                fetch::ask(scope, hash, &intake.id).await?;
            }
            Ok(Response::json(202, &view(accepted, &Names::new())))
        }
        Forwarded::Material { content, .. } => {
            let (material, size_bytes) = (Digest::of(&content), content.len() as u64);
            // Chainloop posts it again when something else of the attestation failed.
            if scope
                .platform
                .keep_object(scope.organization, &material)
                .await?
                .is_none()
            {
                let used = Used::material(size_bytes);
                quotas::daily(scope, used).await?;
                let content = Bytes::from(content);
                let kept = scope
                    .platform
                    .put_object(scope.organization, &material, content);
                kept.await?;
                quotas::count(scope, &material, used).await;
            }
            Ok(Response::json(
                200,
                &Kept {
                    material,
                    size_bytes,
                },
            ))
        }
    }
}

fn not_forwarded(unknown: &Unknown) -> Problem {
    let text = unknown.to_string();
    match unknown {
        Unknown::Malformed(_) => Problem::new(Code::MalformedBody, text),
        Unknown::Kind(_) => Problem::new(Code::KindUnknown, text),
    }
}
