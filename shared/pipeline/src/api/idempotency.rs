//! Requests that may be sent again: whoever had no answer sends the same `Idempotency-Key` and gets the first one.
//!
//! A key is claimed by a row before anything is done, and the row is completed with the answer. What is made gets
//! its id from the claim. So whoever repeats a request that was cut off finds what was made, and nothing is made
//! twice. After the header of
//! <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>.

use std::time::Duration;

use attestation::Digest;
use serde_json::{Value, json};
use tracing::warn;

use super::{Caller, Problem, Request, Response, malformed_header};
use crate::ids;
use crate::platform::{Etag, Expect, Platform, WriteError};
use crate::rows::{self, Answer, Claim, Stored};

/// What may be sent again by a key: what makes something that has no name of its own, begins a job, or changes what
/// may only be changed as it was seen. Not what answers with a token, which must not be kept.
pub const KEYED: &[&str] = &[
    "POST /v1/registrations",
    "PATCH /v1/registrations/{registration}",
    "POST /v1/registrations/{registration}/resume",
    "POST /v1/registrations/{registration}/test",
    "POST /v1/attachments",
    "PATCH /v1/attachments/{attachment}",
    "POST /v1/attachments/{attachment}/backfill",
    "POST /v1/deliveries/{delivery}/redeliver",
    "POST /v1/redeliveries",
    "POST /v1/audits",
];

/// How long whoever has claimed a key may be at work: longer than a function of the API may run.
const AT_WORK: Duration = Duration::from_secs(35);

const KEY: &str = "Idempotency-Key must be 1 to 255 printable ASCII characters";

/// Ids of what a request makes.
#[derive(Debug, Clone, Default)]
pub struct Made(Option<String>);

impl Made {
    /// Whatever is made by this claim is named after it, and by no other.
    pub(super) fn id(&self) -> Option<String> {
        let claim = self.0.as_ref()?;
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Digest::of(claim.as_bytes()).bytes()[..16]);
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        Some(id.to_string())
    }

    /// What a row is marked with that is changed by this claim, and by no other: whoever comes again knows the change.
    pub(super) fn mark(&self) -> Option<Etag> {
        let claim = self.0.as_ref()?;
        let digest = Digest::of(format!("{claim} changes").as_bytes()).hex();
        Some(Etag(digest[..16].to_owned()))
    }

    /// As [`id`](Self::id), of a job: those have the order of time.
    pub(super) fn job(&self) -> Option<String> {
        self.0.clone()
    }
}

/// What is to be done about a request.
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
    let key = match request.header("idempotency-key") {
        Some(key) if KEYED.contains(&request.route.as_str()) => key,
        _ => return Ok(Begun::Unkeyed),
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
    let (claim, expect) = match rows::load::<Claim>(platform, &at).await? {
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
            (claim, Expect::Absent)
        }
        Some(Stored { row, .. }) if row.asked != asked => {
            let detail = "the Idempotency-Key was used for another request: take a new one";
            let title = "The key is another request's";
            return Err(Problem::new(422, "idempotency-key-reused", title, detail));
        }
        Some(Stored { row, .. }) if row.answer.is_some() => {
            return Ok(Begun::Again(again(row.answer)?));
        }
        Some(Stored { row, .. }) if row.claimed_until > now => return Err(in_progress()),
        // The first one was cut off.
        Some(Stored { mut row, etag }) => {
            row.claimed_until = now.plus(AT_WORK);
            (row, Expect::Unchanged(etag))
        }
    };
    let (write, etag) = rows::put(platform, &claim, expect);
    match platform.write(vec![write]).await {
        Ok(()) => Ok(Begun::First(Box::new(Stored { row: claim, etag }))),
        Err(WriteError::Conflict) => Err(in_progress()),
        Err(error) => Err(error.into()),
    }
}

/// What makes a request the same. The key is part of it, so that nobody who reads the table can try out what the
/// body's secrets are.
fn asked(key: &str, request: &Request) -> String {
    let Request {
        route, path, query, ..
    } = request;
    let body = Digest::of(&request.body).hex();
    let only = request.header("if-match");
    let whole = json!([key, route, path, query, only, body]).to_string();
    Digest::of(whole.as_bytes()).hex()
}

fn in_progress() -> Problem {
    let detail =
        "the first request with this Idempotency-Key is still worked on: send it again in a while";
    Problem::new(409, "in-progress", "Still worked on", detail)
}

fn again(answer: Option<Answer>) -> Result<Response, Problem> {
    let Answer {
        status,
        headers,
        body,
    } = answer.unwrap_or_default();
    let body = serde_json::from_str::<Value>(&body).map_err(|error| {
        let why = error.to_string();
        Problem::from(crate::platform::Unreachable { what: "table", why })
    })?;
    Ok(Response {
        status,
        headers,
        body,
    })
}

impl Claim {
    pub(super) fn ids(&self) -> Made {
        Made(Some(self.made.clone()))
    }
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
