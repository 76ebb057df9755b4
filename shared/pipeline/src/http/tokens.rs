//! API tokens.

use std::time::Duration;

use api::tokens::{Created, DEFAULT_SECS, Exchange, NewToken, Rotation, Token};
use api::{Action, Code, Page, Problem, Timestamp};
use verify::JwtFault;

use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler};
use crate::config::tokens::{self, By, CreatedToken};
use crate::config::{exchange, last_use};
use crate::store::platform::Platform;
use crate::store::rows::{self, LastUse};

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
        Route::post("/v1/tokens/exchange", Action::Exchange, handler!(exchange))
            .audited("token.exchange")
            .operation(
                "exchangeToken",
                "Exchange a JWT or a token for a token that lives an hour",
            )
            .about(
                "The JWT of an issuer of the organization is exchanged once, by the first of its \
                 rules that fits; a token as often as wanted. What comes from an exchange is not \
                 exchanged again.",
            )
            .takes::<Exchange>()
            .answers::<Created>(201, "The token and its text, which is shown once")
            .refuses(&[
                Code::AlreadyExchanged,
                Code::IssuerUnknown,
                Code::JwtAlgorithm,
                Code::JwtAudience,
                Code::JwtExpired,
                Code::JwtKeyUnknown,
                Code::JwtMalformed,
                Code::JwtNotYetValid,
                Code::JwtSignature,
                Code::JwtTooOld,
                Code::KeysPending,
                Code::NoRuleMatches,
                Code::NotNarrower,
                Code::QuotaExceeded,
                Code::TooManyChecks,
                Code::Unauthorized,
            ]),
        Route::post(
            "/v1/tokens/{token}/rotate",
            Action::Administer,
            handler!(rotate),
        )
        .audited("token.rotate")
        .operation("rotateToken", "Give an API token a new text")
        .about("The old text works until the overlap ends. The lifetime starts again.")
        .may_take::<Rotation>()
        .answers::<Created>(201, "The token and its new text, which is shown once")
        .refuses(&[
            Code::Conflict,
            Code::Overlapping,
            Code::QuotaExceeded,
            Code::RoleAbove,
        ]),
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
    let mut uses = last_use::of_tokens(scope.platform, &rows).await?;
    let items = rows.into_iter().map(|row| {
        let used = uses.remove(&row.id);
        shown(row, used, now)
    });
    let items = items.collect();
    Ok(Response::json(200, &Page { items, next }))
}

async fn create<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let now = scope.platform.now();
    let NewToken {
        name,
        role,
        workflows,
        expires_in_secs,
    } = request.json_with_name()?;
    let wanted = tokens::NewToken {
        name,
        role,
        workflows,
        valid_for: expires_in_secs
            .unwrap_or(Some(DEFAULT_SECS))
            .map(Duration::from_secs),
    };
    let CreatedToken { text, token } = tokens::create(scope, wanted, by(call)).await?;
    let token = shown(token, None, now);
    Ok(Response::json(201, &Created { text, token }))
}

async fn exchange<P: Platform>(call: Call<'_, P>) -> Answer {
    let (platform, request) = (call.platform, call.request);
    let wanted: Exchange = request.json()?;
    let exchanged = exchange::exchange(platform, wanted, &request.client, call.action).await?;
    let CreatedToken { text, token } = exchanged;
    let token = shown(token, None, platform.now());
    Ok(Response::json(201, &Created { text, token }))
}

async fn rotate<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let Rotation { overlap_secs } = request.json_or_default()?;
    let named = call.parameter("token");
    let rotated = tokens::rotate(scope, named, overlap_secs, by(call)).await?;
    let CreatedToken { text, token } = rotated;
    let token = shown(token, None, scope.platform.now());
    Ok(Response::json(201, &Created { text, token }))
}

async fn revoke<P: Platform>(call: Call<'_, P>) -> Answer {
    let scope = call.scope();
    let now = scope.platform.now();
    let named = call.parameter("token");
    let row = tokens::revoke(scope, named, by(call)).await?;
    Ok(Response::json(200, &shown(row, None, now)))
}

fn shown(row: rows::Token, used: Option<LastUse>, now: Timestamp) -> Token {
    let (last_used_at, last_used_from) = LastUse::parts(used);
    let overlap_until = row.previous.as_ref().map(|previous| previous.valid_until);
    Token {
        expired: !row.is_live(now),
        id: row.id,
        name: row.name,
        role: row.role,
        workflows: row.workflows,
        created_by: row.created_by,
        created_at: row.created_at,
        rotated_at: row.rotated_at,
        expires_at: row.valid_until,
        overlap_until: overlap_until.filter(|until| now < *until),
        last_used_at,
        last_used_from,
    }
}

impl From<exchange::Error> for Problem {
    fn from(error: exchange::Error) -> Self {
        /// By then the keys have come, as a rule.
        const KEYS_AFTER_SECS: u64 = 5;
        use exchange::Error;
        let text = error.to_string();
        match error {
            Error::Faults(faults) => Self::faults(faults),
            Error::TokenUnknown => Self::new(Code::Unauthorized, text),
            Error::IssuerUnknown(_) => Self::new(Code::IssuerUnknown, text),
            Error::Jwt(fault) => Self::new(code(&fault), text),
            Error::KeysPending => Self {
                retry_after_secs: Some(KEYS_AFTER_SECS),
                ..Self::new(Code::KeysPending, text)
            },
            Error::NoRule => Self::new(Code::NoRuleMatches, text),
            Error::NotNarrower(_) => Self::new(Code::NotNarrower, text),
            Error::AlreadyExchanged => Self::new(Code::AlreadyExchanged, text),
            Error::Exceeded(exceeded) => exceeded.into(),
            Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

fn code(fault: &JwtFault) -> Code {
    match fault {
        JwtFault::Malformed(_) => Code::JwtMalformed,
        JwtFault::Algorithm => Code::JwtAlgorithm,
        JwtFault::Audience => Code::JwtAudience,
        JwtFault::Expired => Code::JwtExpired,
        JwtFault::TooOld => Code::JwtTooOld,
        JwtFault::NotYetValid => Code::JwtNotYetValid,
        JwtFault::KeyUnknown => Code::JwtKeyUnknown,
        JwtFault::Signature => Code::JwtSignature,
    }
}
