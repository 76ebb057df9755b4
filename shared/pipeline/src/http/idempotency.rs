//! Requests that may be sent again: whoever had no answer sends the same `Idempotency-Key` and gets the first one.
//!
//! A key is claimed by a row before anything is done, and the row is completed with the answer. What is made gets
//! its id from the claim. So whoever repeats a request that was cut off finds what was made, and nothing is made
//! twice. After the header of
//! <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>.

use std::time::Duration;

use api::{Code, Problem};
use attestation::Digest;
use serde_json::{Value, json};
use tracing::warn;

use super::request::{Caller, Request, Response, malformed_header};
use crate::store::ids;
use crate::store::platform::{Platform, UnlessConflict as _};
use crate::store::rows::{self, Answer, Claim, Stored};

/// Time after which a claimed key is free again: longer than a function of the API may run.
const AT_WORK: Duration = Duration::from_secs(35);

const KEY: &str = "Idempotency-Key must be 1 to 255 printable ASCII characters";

/// Decision about a request.
pub(super) enum Begun {
    /// It has no key.
    Unkeyed,
    /// It is the first, or goes on where the first was cut off.
    First(Box<Stored<Claim>>),
    /// It was answered so.
    Again(Response),
}

/// Claims the key of a request, if it has one.
pub(super) async fn begin(
    platform: &impl Platform,
    caller: &Caller,
    request: &Request,
) -> Result<Begun, Problem> {
    let Some(key) = request.header("idempotency-key") else {
        return Ok(Begun::Unkeyed);
    };
    let is_printable = key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !(1..=255).contains(&key.len()) || !is_printable {
        return Err(malformed_header(KEY));
    }
    let now = platform.now();
    let organization = &caller.organization;
    let hash = Digest::of(json!([caller.actor.id, key]).to_string().as_bytes()).hex();
    let asked = asked(key, request);
    let at = Claim::at(organization, &hash);
    let (claim, over) = match rows::load::<Claim>(platform, &at).await? {
        None => {
            let claim = Claim {
                organization: organization.clone(),
                key: hash,
                asked,
                made: ids::ordered(platform, now),
                claimed_until: now.plus(AT_WORK),
                answer: None,
                created_at: now,
            };
            (claim, None)
        }
        Some(Stored { row, .. }) if row.asked != asked => {
            let detail = "the Idempotency-Key was used for another request: take a new one";
            return Err(Problem::new(Code::IdempotencyKeyReused, detail));
        }
        Some(Stored { row, .. }) if row.answer.is_some() => {
            return Ok(Begun::Again(again(row.answer)?));
        }
        Some(Stored { row, .. }) if row.claimed_until > now => return Err(in_progress()),
        // The first one was cut off.
        Some(Stored { mut row, version }) => {
            row.claimed_until = now.plus(AT_WORK);
            (row, Some(version))
        }
    };
    let (write, version) = rows::put(platform, &claim, over.as_ref());
    if !platform.write(vec![write]).await.unless_conflict()? {
        return Err(in_progress());
    }
    Ok(Begun::First(Box::new(Stored {
        row: claim,
        version,
    })))
}

/// Hash of all that makes a request the same. The key is part of it, so that no reader of the table can guess what the
/// body's secrets are.
fn asked(key: &str, request: &Request) -> String {
    let Request {
        method,
        path,
        query,
        ..
    } = request;
    let body = Digest::of(&request.body).hex();
    let only = request.header("if-match");
    let whole = json!([key, method, path, query, only, body]).to_string();
    Digest::of(whole.as_bytes()).hex()
}

fn in_progress() -> Problem {
    let detail =
        "the first request with this Idempotency-Key is still worked on: send it again in a while";
    Problem::new(Code::InProgress, detail)
}

fn again(answer: Option<Answer>) -> Result<Response, Problem> {
    let Answer {
        status,
        headers,
        body,
    } = answer.unwrap_or_default();
    let body = serde_json::from_str::<Value>(&body).map_err(|error| {
        let why = error.to_string();
        Problem::from(crate::store::platform::Unreachable { what: "table", why })
    })?;
    Ok(Response {
        status,
        headers,
        body,
    })
}

/// Keeps the answer; or, where another try may be answered otherwise, lets the key go for that.
pub(super) async fn end(platform: &impl Platform, mut claim: Stored<Claim>, response: &Response) {
    let row = &mut claim.row;
    if may_be_other(response) {
        row.claimed_until = platform.now();
    } else {
        row.answer = Some(Answer {
            status: response.status,
            headers: response.headers.clone(),
            body: response.body.to_string(),
        });
    }
    // Lost, a repeat finds what was made as after a crash.
    if let Err(error) = platform.write(vec![claim.update(platform).0]).await {
        warn!(%error, "An answer was not kept");
    }
}

fn may_be_other(response: &Response) -> bool {
    let is_conflict = response.status == 409 && response.body["code"] == "conflict";
    response.status >= 500 || response.status == 429 || is_conflict
}
