//! Trust policies.

use api::trust::{ListedTrustPolicy, NewTrustPolicy, Policy, TrustPolicy};
use api::{Action, Code, Page, Problem};
use serde_json::Value;

use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler};
use crate::config::trust::{self, Error};
use crate::store::platform::Platform;
use crate::store::rows::{self, Stored};

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::post(
            "/v1/trust-policies",
            Action::Administer,
            handler!(create),
        )
        .audited("trust-policy.create")
        .keyed()
        .operation("createTrustPolicy", "Create a trust policy for workflows")
        .about(
            "Attestations are judged by it when they are pushed, from now on. A selector has one \
             policy. An attestation is judged by the policy for its workflow's ID and by the most \
             specific one for its names: `project/name`, `project/*`, `*`.",
        )
        .takes::<NewTrustPolicy>()
        .answers::<TrustPolicy>(201, "The trust policy")
        .tagged()
        .refuses(&[
            Code::Conflict,
            Code::NameTaken,
            Code::QuotaExceeded,
            Code::TrustPolicyExists,
        ]),
        Route::get("/v1/trust-policies", Action::Read, handler!(list))
            .operation("listTrustPolicies", "List trust policies")
            .about("Sorted by name, without keys and certificates.")
            .pages::<ListedTrustPolicy>(),
        Route::get("/v1/trust-policies/{policy}", Action::Read, handler!(get))
            .operation("getTrustPolicy", "Get a trust policy")
            .about("By its name or ID.")
            .answers::<TrustPolicy>(200, "The trust policy")
            .tagged(),
        Route::put(
            "/v1/trust-policies/{policy}",
            Action::Administer,
            handler!(replace),
        )
        .audited("trust-policy.replace")
        .operation("replaceTrustPolicy", "Replace what a trust policy says")
        .about("By its name or ID. Its workflows stay, and so do verdicts that were given.")
        .conditional()
        .takes::<Policy>()
        .answers::<TrustPolicy>(200, "The trust policy")
        .tagged()
        .refuses(&[Code::Conflict]),
        Route::delete(
            "/v1/trust-policies/{policy}",
            Action::Administer,
            handler!(delete),
        )
        .audited("trust-policy.delete")
        .operation("deleteTrustPolicy", "Delete a trust policy")
        .about("By its name or ID. Verdicts that were given stay as they are.")
        .conditional()
        .answers::<TrustPolicy>(200, "The deleted trust policy")
        .refuses(&[Code::Conflict]),
    ]
}

async fn create<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let new: NewTrustPolicy = request.json_and(|body| {
        let text = |field: &str| body.get(field).and_then(Value::as_str);
        let selector = text("workflow").map(|name| api::workflows::selector(name, text("project")));
        let selector = selector.and_then(Result::err);
        let name = text("name").and_then(api::names::name_fault);
        name.into_iter().chain(selector).collect()
    })?;
    let workflow = api::workflows::selector(&new.workflow, new.project.as_deref())
        .map_err(|fault| Problem::faults(vec![fault]))?;
    let wanted = trust::NewTrustPolicy {
        name: new.name,
        workflow,
        policy: Policy {
            mode: new.mode,
            threshold: new.threshold,
            signers: new.signers,
        },
        id: call.ids.id(),
    };
    let stored = trust::create(scope, wanted, call.act()).await?;
    let policy = shown(stored);
    Ok(Response::json(201, &policy).tagged(&policy.etag))
}

async fn list<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let (limit, after) = (request.limit()?, request.name_cursor()?);
    let (rows, next) = trust::list(scope, after, limit).await?;
    let items = rows.into_iter().map(listed).collect();
    Ok(Response::json(200, &Page { items, next }))
}

async fn get<P: Platform>(call: Call<'_, P>) -> Answer {
    let policy = shown(trust::find(call.scope(), call.parameter("policy")).await?);
    Ok(Response::json(200, &policy).tagged(&policy.etag))
}

async fn replace<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let policy: Policy = request.json()?;
    let (named, only) = (call.parameter("policy"), request.precondition()?);
    let policy = shown(trust::replace(scope, named, policy, &only, call.act()).await?);
    Ok(Response::json(200, &policy).tagged(&policy.etag))
}

async fn delete<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let (named, only) = (call.parameter("policy"), request.precondition()?);
    let deleted = trust::delete(scope, named, &only, call.act()).await?;
    Ok(Response::json(200, &shown(deleted)))
}

fn shown(Stored { row, version }: Stored<rows::TrustPolicy>) -> TrustPolicy {
    let Policy {
        mode,
        threshold,
        signers,
    } = row.policy;
    TrustPolicy {
        id: row.id,
        name: row.name,
        workflow: row.workflow.0,
        mode,
        threshold,
        signers,
        created_by: row.created_by,
        created_at: row.created_at,
        etag: version.etag.0,
    }
}

fn listed(row: rows::TrustPolicy) -> ListedTrustPolicy {
    let signers = row.policy.signers.iter();
    ListedTrustPolicy {
        signers: signers.map(|signer| signer.name().to_owned()).collect(),
        id: row.id,
        name: row.name,
        workflow: row.workflow.0,
        mode: row.policy.mode,
        threshold: row.policy.threshold,
        created_by: row.created_by,
        created_at: row.created_at,
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Faults(faults) => Self::faults(faults),
            Error::NameTaken(_) => Self::new(Code::NameTaken, text),
            Error::Exists { .. } => Self::new(Code::TrustPolicyExists, text),
            Error::NotFound(_) => Self::new(Code::NotFound, text),
            Error::Exceeded(exceeded) => exceeded.into(),
            Error::Changed => Self::new(Code::ChangedMeanwhile, text),
            Error::Conflict => Self::new(Code::Conflict, text),
            Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}
