//! API tokens.

use std::time::Duration;

use api::tokens::{Created, NewToken, Token};
use api::{Action, Code, Page, Timestamp};

use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler};
use crate::config::tokens::{self, By};
use crate::store::platform::Platform;
use crate::store::rows;

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::get("/v1/tokens", Action::Read, handler!(list))
            .operation("listTokens", "List API tokens")
            .about("Sorted by name, without revoked tokens.")
            .pages::<Token>(),
        Route::post("/v1/tokens", Action::Administer, handler!(create))
            .audited("token.create")
            .operation("createToken", "Create an API token")
            .takes::<NewToken>()
            .answers::<Created>(201, "The token and its text, which is shown once")
            .refuses(&[Code::QuotaExceeded, Code::RoleAbove, Code::TokenNameTaken]),
        Route::delete("/v1/tokens/{token}", Action::Administer, handler!(revoke))
            .audited("token.revoke")
            .operation("revokeToken", "Revoke an API token")
            .about("Stops working within a minute.")
            .answers::<Token>(200, "The revoked token")
            .refuses(&[Code::Conflict, Code::RoleAbove]),
    ]
}

/// The caller, as the rules for tokens see it.
fn by<P>(call: Call<'_, P>) -> By<'_> {
    By {
        act: call.act(),
        role: call.caller.role,
    }
}

async fn list<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let now = scope.platform.now();
    let (limit, after) = (request.limit()?, request.name_cursor()?);
    let (rows, next) = tokens::list(scope, after, limit).await?;
    let items = rows.into_iter().map(|row| shown(row, now)).collect();
    Ok(Response::json(200, &Page { items, next }))
}

async fn create<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let now = scope.platform.now();
    let NewToken {
        name,
        role,
        expires_in_secs,
    } = request.json_with_name()?;
    let wanted = tokens::NewToken {
        name,
        role,
        valid_for: expires_in_secs.map(Duration::from_secs),
    };
    let tokens::CreatedToken { text, token } = tokens::create(scope, wanted, by(call)).await?;
    let token = shown(token, now);
    Ok(Response::json(201, &Created { text, token }))
}

async fn revoke<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let now = scope.platform.now();
    let named = call.parameter("token");
    let row = tokens::revoke(scope, named, by(call)).await?;
    Ok(Response::json(200, &shown(row, now)))
}

fn shown(row: rows::Token, now: Timestamp) -> Token {
    Token {
        expired: !row.is_live(now),
        id: row.id,
        name: row.name,
        role: row.role,
        created_by: row.created_by,
        created_at: row.created_at,
        expires_at: row.valid_until,
    }
}
