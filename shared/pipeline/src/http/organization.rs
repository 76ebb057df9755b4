//! The organization, its quotas, this API's description, and its health.

use api::organization::{Bearer, Health, Quotas};
use api::{Action, Problem, QuotaUse};
use serde_json::{Map, Value};

use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler};
use crate::config::quotas;
use crate::store::meter::{self, Quota};
use crate::store::platform::{Key, Platform, Scope};

/// The API's description, as `tests/src/openapi.rs` writes it.
const DOCUMENT: &str = include_str!("../../../../docs/openapi.json");

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::get("/v1/openapi.json", Action::Open, handler!(description))
            .operation("getDescription", "Get this document")
            .answers::<Map<String, Value>>(200, "An OpenAPI 3.1 document"),
        Route::get("/v1/health", Action::Open, handler!(health))
            .operation("getHealth", "Get whether the API works")
            .about("For probes. Reads from the table; 503 where that fails.")
            .answers::<Health>(200, "It works"),
        Route::get("/v1/organization", Action::Follow, handler!(get))
            .for_restricted()
            .operation(
                "getOrganization",
                "Get the token that asks, and its organization",
            )
            .answers::<Bearer>(200, "The organization and the token"),
        Route::get("/v1/quotas", Action::Read, handler!(quotas))
            .operation("getQuotas", "Get the organization's quotas and their use")
            .about("The stack's parameter `Quotas` sets them.")
            .answers::<Quotas>(200, "The quotas"),
    ]
}

async fn description<P: Platform>(_: Call<'_, P>) -> Answer {
    let document: Value =
        serde_json::from_str(DOCUMENT).expect("a test compares it with the routes");
    Ok(Response::json(200, &document))
}

async fn health<P: Platform>(call: Call<'_, P>) -> Answer {
    // There is no such row: what counts is that the table answers.
    call.platform.get(&Key::new("health", "health")).await?;
    Ok(Response::json(
        200,
        &Health {
            status: "ok".to_owned(),
        },
    ))
}

async fn get<P: Platform>(call: Call<'_, P>) -> Answer {
    let (caller, organization) = (call.caller, call.organization());
    let bearer = Bearer {
        organization: organization.to_owned(),
        id: caller.actor.id.clone(),
        name: caller.actor.name.clone(),
        role: caller.role,
        workflows: caller.workflows.clone(),
        expires_at: caller.valid_until,
        release: Some(env!("CARGO_PKG_VERSION").to_owned()),
    };
    Ok(Response::json(200, &bearer))
}

async fn quotas<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let answer = Box::pin(used(scope)).await?;
    Ok(Response::json(200, &answer))
}

async fn used(scope: Scope<'_, impl Platform>) -> Result<Quotas, Problem> {
    let platform = scope.platform;
    let limits = platform.meter().quotas;
    let today = quotas::used(scope).await?;
    let resets_at = Some(meter::resets_at(platform.now()));
    let standing = |quota| quotas::standing(scope, quota);
    let of = |quota: Quota, used, resets_at| QuotaUse {
        name: quota.name().into(),
        limit: limits.of(quota),
        used,
        resets_at,
    };
    let mut all = vec![
        of(Quota::Attestations, today.attestations, resets_at),
        of(Quota::Bytes, today.bytes, resets_at),
    ];
    for quota in [Quota::Registrations, Quota::Intakes, Quota::Tokens] {
        all.push(of(quota, standing(quota).await?, None));
    }
    all.push(of(Quota::Exchanges, today.exchanges, resets_at));
    Ok(Quotas {
        quotas: all,
        checks_per_minute: limits.of(Quota::Checks),
    })
}
