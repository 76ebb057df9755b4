//! Issuers of JWTs, and the rules for them.

use api::issuers::{Issuer, Keys, NewIssuer};
use api::{Action, Code, Page, Problem};

use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler};
use crate::config::issuers::{self, Error};
use crate::config::keys;
use crate::store::platform::Platform;
use crate::store::rows;

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::post("/v1/issuers", Action::Administer, handler!(create))
            .audited("issuer.create")
            .keyed()
            .operation("createIssuer", "Create an issuer with rules")
            .about(
                "JWTs of this OpenID Connect issuer whose claims fit a rule are exchanged for \
                 tokens. Its keys are fetched at once, and again when a JWT names an unknown one.",
            )
            .takes::<NewIssuer>()
            .answers::<Issuer>(201, "The issuer")
            .refuses(&[Code::Conflict, Code::IssuerExists, Code::NameTaken]),
        Route::get("/v1/issuers", Action::Read, handler!(list))
            .operation("listIssuers", "List issuers")
            .about("Sorted by name, without keys.")
            .pages::<Issuer>(),
        Route::get("/v1/issuers/{issuer}", Action::Read, handler!(get))
            .operation("getIssuer", "Get an issuer and the state of its keys")
            .about("By its name or ID.")
            .answers::<Issuer>(200, "The issuer"),
        Route::delete("/v1/issuers/{issuer}", Action::Administer, handler!(delete))
            .audited("issuer.delete")
            .operation("deleteIssuer", "Delete an issuer")
            .about(
                "By its name or ID. Tokens that its JWTs were exchanged for end by themselves, \
                 after an hour at most.",
            )
            .answers::<Issuer>(200, "The deleted issuer")
            .refuses(&[Code::Conflict]),
    ]
}

async fn create<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let wanted: NewIssuer = request.json_with_name()?;
    let row = issuers::create(scope, wanted, call.ids.id(), call.act()).await?;
    Ok(Response::json(201, &shown(row, None)))
}

async fn list<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let (limit, after) = (request.limit()?, request.name_cursor()?);
    let (rows, next) = issuers::list(scope, after, limit).await?;
    let items = rows.into_iter().map(|row| shown(row, None)).collect();
    Ok(Response::json(200, &Page { items, next }))
}

async fn get<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let row = issuers::find(scope, call.parameter("issuer")).await?.row;
    let keys = keys::shown(scope, &row.id).await?;
    Ok(Response::json(200, &shown(row, keys)))
}

async fn delete<P: Platform>(call: Call<'_, P>) -> Answer {
    let named = call.parameter("issuer");
    let row = issuers::delete(call.scope(), named, call.act()).await?;
    Ok(Response::json(200, &shown(row, None)))
}

fn shown(row: rows::Issuer, keys: Option<Keys>) -> Issuer {
    Issuer {
        id: row.id,
        name: row.name,
        issuer: row.issuer,
        audience: row.audience,
        jwks_url: row.jwks_url,
        rules: row.rules,
        created_by: row.created_by,
        created_at: row.created_at,
        keys,
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Faults(faults) => Self::faults(faults),
            Error::NameTaken(_) => Self::new(Code::NameTaken, text),
            Error::Exists { .. } => Self::new(Code::IssuerExists, text),
            Error::NotFound(_) => Self::new(Code::NotFound, text),
            Error::Conflict => Self::new(Code::Conflict, text),
            Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}
