//! The operator's API: REST and JSON under `/v1`, whose answers are the structs below.
//!
//! An API function is a list of [`Route`]s and one function that answers them; the gateway has matched the
//! route, the authorizer has found the caller. What is wrong is said as RFC 9457 problems with stable codes.

pub mod archive;
pub mod attachments;
pub mod attestations;
pub mod deliveries;
pub mod idempotency;
pub mod intakes;
pub mod jobs;
pub mod openapi;
pub mod organization;
pub mod registrations;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use integrations::{Fault, inputs};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::{error, warn};

use self::idempotency::{Begun, Made};
use crate::audit_log::Act;
use crate::clock::Timestamp;
use crate::configuration::{self, Precondition};
use crate::meter::Quota;
use crate::platform::{Etag, Platform, Unreachable, WriteError};
use crate::quotas::{self, Exceeded};
use crate::rows::{Actor, Client, IntakeToken, Role};
use crate::{operations, tokens};

/// A request as the gateway hands it over.
#[derive(Clone)]
pub struct Request {
    /// As in the route table: `GET /v1/deliveries/{delivery}`.
    pub route: String,
    /// The values of the route's parameters.
    pub path: BTreeMap<String, String>,
    pub query: BTreeMap<String, String>,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
    /// As the authorizer found it; none when it did not say.
    pub caller: Option<Caller>,
    /// As the gateway saw it: what a header says of an address is anybody's to write.
    pub client: Client,
    /// The gateway's id of the request, for support.
    pub id: String,
    /// How what it makes is called.
    pub made: Made,
}

/// A path may hold an intake's token, and a body secrets.
impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Request");
        let shown = shown.field("route", &self.route).field("id", &self.id);
        shown.finish_non_exhaustive()
    }
}

/// The largest body that is read as JSON: 256 KiB. Only documents, which come as they are, may have more.
pub const BODY_MAX_BYTES: usize = 256 * 1024;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    pub organization: String,
    pub role: Role,
    pub actor: Actor,
    /// The token's end; none when it has none.
    pub valid_until: Option<Timestamp>,
    /// The intake that it came in by, if it did.
    pub intake: Option<IntakeToken>,
    /// The audit log's name for what is asked for: [`answer`] takes that from the route.
    pub action: &'static str,
}

impl Caller {
    /// Who asks without saying who: of no organization.
    fn nobody() -> Self {
        Self {
            organization: String::new(),
            role: Role::Viewer,
            actor: Actor::default(),
            valid_until: None,
            intake: None,
            action: "",
        }
    }

    fn act(&self) -> Act<'_> {
        Act {
            actor: &self.actor,
            action: self.action,
        }
    }
}

#[derive(Clone, PartialEq)]
pub struct Response {
    pub status: u16,
    /// Names in lower case; beside those that every answer has.
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

/// A body may hold a new token.
impl fmt::Debug for Response {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Response");
        shown.field("status", &self.status).finish_non_exhaustive()
    }
}

impl Response {
    fn json(status: u16, body: &impl Serialize) -> Self {
        let body = serde_json::to_value(body).expect("answers have text keys");
        Self {
            status,
            headers: BTreeMap::new(),
            body,
        }
    }

    fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.insert(name.to_owned(), value.into());
        self
    }

    /// With the `ETag` of the row that it shows.
    fn tagged(self, etag: &str) -> Self {
        self.header("etag", format!("\"{etag}\""))
    }
}

/// What a route does, as roles know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Reads whose token it is, what can be registered, and what became of an attestation: for whoever has a token. The
    /// answer depends on whether the role may also [`Read`](Self::Read).
    Follow,
    /// All else that there is to see.
    Read,
    /// Registrations, attachments.
    Configure,
    /// Deliveries and jobs: again, cancelled, paused, resumed.
    Operate,
    /// Attestations and materials.
    Push,
    /// As [`Push`](Self::Push), by whoever knows the intake token in the path: the gateway asks no authorizer.
    Forward,
    /// Reads what the API is: everybody, without a token.
    Open,
    /// Tokens.
    Administer,
}

impl Action {
    const ALL: [Self; 6] = [
        Self::Follow,
        Self::Read,
        Self::Configure,
        Self::Operate,
        Self::Push,
        Self::Administer,
    ];
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Viewer, Self::Producer];

    pub const fn may(self, action: Action) -> bool {
        match self {
            Self::Admin => true,
            Self::Operator => !matches!(action, Action::Administer),
            Self::Viewer => matches!(action, Action::Follow | Action::Read),
            // A build's token: it gets into many hands, and needs no more.
            Self::Producer => matches!(action, Action::Follow | Action::Push),
        }
    }

    /// Whether it may do all that the other may.
    pub fn covers(self, other: Self) -> bool {
        Action::ALL
            .iter()
            .all(|action| self.may(*action) || !other.may(*action))
    }
}

/// Whether the audit log has what a route does. A request that is refused, or that repeats another, leaves no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audited {
    /// One entry with this action, unless the request is found to change nothing.
    As(&'static str),
    /// No entry, for this reason.
    Not(&'static str),
}

/// Why most routes leave no entry.
const READS: Audited = Audited::Not("it changes nothing, and shows what its role may see");

#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub route: &'static str,
    pub action: Action,
    pub audited: Audited,
}

const fn route(route: &'static str, action: Action, audited: Audited) -> Route {
    Route {
        route,
        action,
        audited,
    }
}

/// Something wrong, as RFC 9457 says it, with a stable code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    pub status: u16,
    /// Stable: `name-taken`, `not-found` …
    pub code: String,
    pub title: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Faults of single inputs, all at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// The quota that is used up, where that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaUse>,
    /// As the header `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_secs: Option<u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// A quota, and how much of it is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Quota")]
pub struct QuotaUse {
    /// `attestations` and `bytes` a day; `registrations`, `intakes`, `tokens` that there are; `checks` by a token a
    /// minute.
    pub name: String,
    pub limit: u64,
    pub used: u64,
    /// When it begins anew; none where something has to be deleted first.
    pub resets_at: Option<Timestamp>,
}

impl Problem {
    pub fn new(status: u16, code: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            title: title.into(),
            detail: detail.into(),
            faults: Vec::new(),
            quota: None,
            retry_after_secs: None,
            request_id: String::new(),
        }
    }

    fn faults(faults: Vec<Fault>) -> Self {
        let problem = Self::new(
            422,
            "invalid-inputs",
            "Some inputs are not right",
            "see the faults",
        );
        Self { faults, ..problem }
    }

    fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, "not-found", "There is no such thing", detail)
    }

    fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(403, "forbidden", "Not with this token", detail)
    }

    fn field(name: &str, detail: impl Into<String>) -> Self {
        Self::faults(vec![Fault {
            field: name.into(),
            detail: detail.into(),
        }])
    }
}

impl From<Unreachable> for Problem {
    fn from(unreachable: Unreachable) -> Self {
        error!(error = %unreachable, "The platform could not be reached");
        let detail = format!("the {} could not be reached; try again", unreachable.what);
        Self::new(503, "unreachable", "Not possible just now", detail)
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let text = error.to_string();
        match error {
            WriteError::Conflict => Self::new(409, "conflict", "Changed at the same time", text),
            WriteError::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

impl From<Exceeded> for Problem {
    fn from(exceeded: Exceeded) -> Self {
        let detail = exceeded.to_string();
        let problem = match exceeded.quota {
            Quota::Checks => Self::new(429, "too-many-checks", "Too many checks", detail),
            _ => Self::new(429, "quota-exceeded", "Quota exceeded", detail),
        };
        // Rounded up: whoever comes at that time is not refused again.
        let after = exceeded.retry_after.map(|after| after.as_millis());
        let after = after.map(|millis| u64::try_from(millis.div_ceil(1000)).unwrap_or(u64::MAX));
        Self {
            retry_after_secs: after,
            quota: Some(QuotaUse {
                name: exceeded.quota.name().into(),
                limit: exceeded.limit,
                used: exceeded.used,
                resets_at: exceeded.resets_at,
            }),
            ..problem
        }
    }
}

impl From<quotas::Error> for Problem {
    fn from(error: quotas::Error) -> Self {
        match error {
            quotas::Error::Exceeded(exceeded) => exceeded.into(),
            quotas::Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

impl From<operations::Error> for Problem {
    fn from(error: operations::Error) -> Self {
        use operations::Error;
        let text = error.to_string();
        match error {
            Error::NotFound(_) => Self::not_found(text),
            Error::UnderWay => Self::new(409, "under-way", "It is under way", text),
            Error::Over(_) => Self::new(409, "over", "It is over", text),
            Error::Held => Self::new(409, "paused", "It is held", text),
            Error::Gone(_) => Self::new(409, "gone", "There is nothing to deliver through", text),
            Error::Conflict => Self::new(409, "conflict", "Changed at the same time", text),
            Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

impl From<tokens::Error> for Problem {
    fn from(error: tokens::Error) -> Self {
        use tokens::Error;
        let text = error.to_string();
        match error {
            Error::Exceeded(exceeded) => exceeded.into(),
            Error::Faults(faults) => Self::faults(faults),
            Error::NameTaken(_) => Self::new(409, "token-name-taken", "The name is taken", text),
            Error::Above { .. } => Self::new(403, "role-above", "Not with this token", text),
            Error::NotFound(_) => Self::not_found(text),
            Error::Conflict => Self::new(409, "conflict", "Changed at the same time", text),
            Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

impl From<configuration::Error> for Problem {
    fn from(error: configuration::Error) -> Self {
        use configuration::Error;
        let text = error.to_string();
        match error {
            Error::Exceeded(exceeded) => exceeded.into(),
            Error::NoIntegration(_) => Self::new(
                404,
                "integration-unknown",
                "There is no such integration",
                text,
            ),
            Error::Faults(faults) => Self::faults(faults),
            Error::NameTaken(_) => Self::new(409, "name-taken", "The name is taken", text),
            Error::AttachmentExists { .. } => {
                Self::new(409, "attachment-exists", "It is attached already", text)
            }
            Error::Refused { status, answer, .. } => Self::new(
                422,
                "check-failed",
                "The third party would not have it",
                told_once(text, status, answer),
            ),
            Error::NotFound(_) | Error::NotAttached(_) => Self::not_found(text),
            Error::Conflict => Self::new(409, "conflict", "Changed at the same time", text),
            Error::Changed => Self::new(412, "changed-meanwhile", "Changed meanwhile", text),
            Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

/// With the response's status and body, where the text does not say them already.
fn told_once(text: String, status: Option<u16>, answer: Option<String>) -> String {
    let status = status
        .filter(|status| !text.contains(&format!("answered {status}")))
        .map(|status| format!("; it answered {status}"));
    let answer = answer
        .filter(|answer| !answer.is_empty() && !text.contains(answer.as_str()))
        // An integration quotes the message of a document that it knows.
        .filter(|answer| !serde_json::from_str(answer).is_ok_and(|answer| quotes(&text, &answer)))
        .map(|answer| format!(": {answer}"));
    text + &status.unwrap_or_default() + &answer.unwrap_or_default()
}

fn quotes(text: &str, answer: &Value) -> bool {
    match answer {
        Value::String(word) => word.len() >= 12 && text.contains(word.trim_end_matches('.')),
        Value::Array(values) => values.iter().any(|value| quotes(text, value)),
        Value::Object(map) => map.values().any(|value| quotes(text, value)),
        _ => false,
    }
}

/// One page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give it back as `cursor` for the next page; none on the last.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The first of those that are left, of a list that is all at hand; `next` is the cursor of its last one.
    fn first(mut items: Vec<T>, limit: usize, cursor: impl FnOnce(&T) -> String) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }
}

/// Answers a request by its function, after looking at what its caller may do.
pub async fn answer<P: Platform>(
    routes: &[Route],
    function: impl AsyncFn(&P, &Caller, &Request) -> Result<Response, Problem>,
    platform: &P,
    request: &Request,
) -> Response {
    let now = platform.now();
    let caller = match permit(platform, routes, request, now).await {
        Ok(caller) => caller,
        Err(problem) => return refused(request, problem),
    };
    let refused = |problem| refused(request, problem);
    // Boxed, as the platform's own futures are: one inside the other they are too deep for the compiler.
    match Box::pin(idempotency::begin(platform, &caller, request)).await {
        Ok(Begun::Unkeyed) => {
            let result = Box::pin(function(platform, &caller, request)).await;
            result.unwrap_or_else(refused)
        }
        Ok(Begun::First(claim)) => {
            let made = claim.row.ids();
            let request = Request {
                made,
                ..request.clone()
            };
            let result = Box::pin(function(platform, &caller, &request)).await;
            let response = result.unwrap_or_else(refused);
            idempotency::end(platform, *claim, &response).await;
            response
        }
        Ok(Begun::Again(response)) => response,
        Err(problem) => refused(problem),
    }
}

fn refused(request: &Request, mut problem: Problem) -> Response {
    problem.request_id.clone_from(&request.id);
    warn!(
        route = request.route,
        status = problem.status,
        code = problem.code,
        "Refused"
    );
    let response = Response::json(problem.status, &problem);
    match problem.retry_after_secs {
        Some(secs) => response.header("retry-after", secs.to_string()),
        None => response,
    }
}

async fn permit(
    platform: &impl Platform,
    routes: &[Route],
    request: &Request,
    now: Timestamp,
) -> Result<Caller, Problem> {
    let Some(route) = routes.iter().find(|route| route.route == request.route) else {
        return Err(Problem::not_found(format!("no route {}", request.route)));
    };
    if route.action == Action::Forward {
        return Box::pin(by_intake(platform, request)).await;
    }
    if route.action == Action::Open {
        return Ok(Caller::nobody());
    }
    let Some(caller) = &request.caller else {
        return Err(Problem::new(
            401,
            "unauthorized",
            "Who is asking?",
            "send a token",
        ));
    };
    // The gateway remembers for a while whose a token is.
    if caller.valid_until.is_some_and(|until| until <= now) {
        let detail = "the token has expired";
        return Err(Problem::new(401, "expired", "Who is asking?", detail));
    }
    if !caller.role.may(route.action) {
        let detail = format!("a token with the role {} may not do this", caller.role);
        return Err(Problem::forbidden(detail));
    }
    let mut caller = caller.clone();
    caller.actor.client = request.client.clone();
    if let Audited::As(action) = route.audited {
        caller.action = action;
    }
    Ok(caller)
}

fn too_large(detail: &str) -> Problem {
    Problem::new(413, "too-large", "Larger than can be taken", detail)
}

/// Who comes in by an intake. One that never was, one that is gone or has expired, and one that does not allow the
/// address are answered alike.
async fn by_intake(platform: &impl Platform, request: &Request) -> Result<Caller, Problem> {
    let found =
        crate::intakes::admit(platform, request.parameter("token"), &request.client).await?;
    let Some(intake) = found else {
        return Err(intakes::unknown());
    };
    Ok(Caller {
        organization: intake.organization.clone(),
        role: Role::Producer,
        actor: intake.actor(&request.client),
        valid_until: None,
        intake: Some(intake),
        action: "",
    })
}

impl Request {
    fn parameter(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A workflow and its project, as a query names them. A project alone says something to few.
    fn workflow(&self) -> Result<Option<(&str, Option<&str>)>, Problem> {
        let project = self.project()?;
        match (self.query("workflow"), project) {
            (Some(workflow), project) => Ok(Some((workflow, project))),
            (None, Some(_)) => Err(Problem::field("project", "goes with `workflow`")),
            (None, None) => Ok(None),
        }
    }

    fn project(&self) -> Result<Option<&str>, Problem> {
        match self.query("project") {
            Some(project) if project.is_empty() || project.len() > 512 => Err(Problem::field(
                "project",
                "must be 1 to 512 characters long",
            )),
            project => Ok(project),
        }
    }

    fn json<T: DeserializeOwned + JsonSchema>(&self) -> Result<T, Problem> {
        self.json_and(|_| Vec::new())
    }

    /// As [`json`](Self::json); what is wrong with it besides its form is asked for when its form is wrong, so that
    /// all of it is said at once.
    fn json_and<T: DeserializeOwned + JsonSchema>(
        &self,
        besides: impl FnOnce(&Map<String, Value>) -> Vec<Fault>,
    ) -> Result<T, Problem> {
        let body = self.object()?;
        let mut faults = inputs::check_body::<T>(&body);
        if !faults.is_empty() {
            for fault in besides(&body) {
                if faults.iter().all(|own| own.field != fault.field) {
                    faults.push(fault);
                }
            }
            faults.sort_by(|a, b| a.field.cmp(&b.field));
            return Err(Problem::faults(faults));
        }
        serde_json::from_value(Value::Object(body))
            .map_err(|_| malformed_body("the body does not have the fields that it should"))
    }

    fn object(&self) -> Result<Map<String, Value>, Problem> {
        // Before it becomes values, which take many times the memory.
        if self.body.len() > BODY_MAX_BYTES {
            return Err(too_large("the body of this request has at most 256 KiB"));
        }
        let body = serde_json::from_slice(&self.body).map_err(|error| {
            // Its position, not its text: that may quote a secret.
            let (line, column) = (error.line(), error.column());
            malformed_body(&format!(
                "the body is not JSON (line {line}, column {column})"
            ))
        })?;
        match body {
            Value::Object(body) => Ok(body),
            _ => Err(malformed_body("the body is JSON and not a JSON object")),
        }
    }

    /// As [`json`](Self::json), with the rule for names.
    fn json_with_name<T: DeserializeOwned + JsonSchema>(&self) -> Result<T, Problem> {
        self.json_and(|body| {
            let name = body.get("name").and_then(Value::as_str);
            name.and_then(configuration::name_fault)
                .into_iter()
                .collect()
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// What `If-Match` says: `*`, one tag or a list. A weak tag matches nothing, as RFC 9110 has it.
    fn precondition(&self) -> Result<Precondition, Problem> {
        let Some(text) = self.header("if-match").map(str::trim) else {
            return Ok(Precondition(None));
        };
        if text == "*" {
            return Ok(Precondition(None));
        }
        if text.is_empty() {
            return Err(malformed_header(IF_MATCH));
        }
        let mut etags = Vec::new();
        for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            let (is_weak, tag) = match tag.strip_prefix("W/") {
                Some(tag) => (true, tag),
                None => (false, tag),
            };
            let inner = tag
                .strip_prefix('"')
                .and_then(|tag| tag.strip_suffix('"'))
                .filter(|inner| !inner.contains('"'));
            match inner {
                Some(_) if is_weak => {}
                Some(inner) => etags.push(Etag(inner.to_owned())),
                None => return Err(malformed_header(IF_MATCH)),
            }
        }
        Ok(Precondition(Some(etags)))
    }

    /// Refuses a body with fields of what cannot be changed, with what to do instead.
    fn refuse_fixed(&self, fixed: &[&str], detail: &str) -> Result<(), Problem> {
        let body = self.object()?;
        let given = fixed.iter().filter(|name| body.contains_key(**name));
        let faults: Vec<Fault> = given
            .map(|name| Fault {
                field: (*name).into(),
                detail: detail.into(),
            })
            .collect();
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Problem::faults(faults)),
        }
    }

    /// The body, or what stands for it when there is none.
    fn json_or_default<T: DeserializeOwned + Default + JsonSchema>(&self) -> Result<T, Problem> {
        if self.body.is_empty() {
            return Ok(T::default());
        }
        self.json()
    }

    /// Behind what the page begins, as `read` knows it; none when the list begins.
    fn cursor<'a, T>(
        &'a self,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        // An empty one is a client's that asks for the first page as for any other.
        let Some(cursor) = self.query("cursor").filter(|cursor| !cursor.is_empty()) else {
            return Ok(None);
        };
        let fault = Fault {
            field: "cursor".into(),
            detail: "must be the `next` of the page before".into(),
        };
        let problem = || Problem {
            faults: vec![fault],
            ..Problem::new(400, "bad-cursor", "There is no such page", "see the faults")
        };
        read(cursor).map(Some).ok_or_else(problem)
    }

    /// The name behind which the page begins, in a list by names.
    fn name_cursor(&self) -> Result<Option<&str>, Problem> {
        self.cursor(|name| configuration::is_label(name).then_some(name))
    }

    /// How many items a page may have: 1 to 100, 50 unless told.
    fn limit(&self) -> Result<usize, Problem> {
        match self.query("limit").map(str::parse) {
            None => Ok(50),
            Some(Ok(limit @ 1..=100)) => Ok(limit),
            Some(_) => Err(Problem::field("limit", "must be a number from 1 to 100")),
        }
    }
}

const IF_MATCH: &str = "If-Match must be *, or entity tags in quotes, as ETag gives them";

fn malformed_body(detail: &str) -> Problem {
    Problem::new(400, "malformed-body", "The body could not be read", detail)
}

fn malformed_header(detail: &str) -> Problem {
    Problem::new(
        400,
        "malformed-header",
        "A header could not be read",
        detail,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let pairs = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Request {
            route: "POST /v1/intake/{token}".into(),
            path: BTreeMap::from([("token".into(), "canary-path".into())]),
            query: BTreeMap::from([("q".into(), "canary-query".into())]),
            headers: pairs.collect(),
            body: Bytes::from_static(b"canary-body"),
            caller: None,
            client: Client::default(),
            id: "request-1".into(),
            made: Made::default(),
        }
    }

    #[test]
    fn a_refusal_says_each_thing_once() {
        let detail = |text: &str, answer: &str| {
            told_once(text.to_owned(), Some(401), Some(answer.to_owned()))
        };
        let refused = "failed to log in: answered 401 Unauthorized";
        assert_eq!(detail(refused, ""), refused);
        assert_eq!(
            detail(refused, "no such key"),
            format!("{refused}: no such key")
        );
        let quoted = format!("{refused}: DENIED: access is denied");
        for answer in [
            "access is denied",
            r#"{"errors":[{"code":"DENIED","message":"access is denied."}]}"#,
        ] {
            assert_eq!(detail(&quoted, answer), quoted);
        }
        assert_eq!(
            detail("failed to find a team", r#"{"title":"Unauthorized"}"#),
            r#"failed to find a team; it answered 401: {"title":"Unauthorized"}"#
        );
    }

    #[test]
    fn a_request_and_an_answer_show_nothing_that_may_be_secret() {
        let request = request(&[("authorization", "canary-header")]);
        let shown = format!("{request:?} {request:#?}");
        assert!(shown.contains("POST /v1/intake/{token}") && shown.contains("request-1"));
        assert!(!shown.contains("canary"), "{shown}");
        let answer = Response::json(201, &"canary-body").header("x", "canary-header");
        let shown = format!("{answer:?} {answer:#?}");
        assert!(
            shown.contains("201") && !shown.contains("canary"),
            "{shown}"
        );
    }

    #[test]
    fn if_match_is_a_star_or_tags_in_quotes_and_a_weak_one_matches_nothing() {
        let read = |text| request(&[("if-match", text)]).precondition();
        let tags = |tags: &[&str]| Some(tags.iter().map(|tag| Etag((*tag).into())).collect());
        assert_eq!(request(&[]).precondition().unwrap().0, None);
        assert_eq!(read(" * ").unwrap().0, None);
        assert_eq!(read("\"a\"").unwrap().0, tags(&["a"]));
        assert_eq!(read("\"a\" , \"b\"").unwrap().0, tags(&["a", "b"]));
        assert_eq!(read("W/\"a\"").unwrap().0, tags(&[]));
        for text in ["", "a", "\"a", "\"a\"b\"", "W/a", "*, a"] {
            let problem = read(text).unwrap_err();
            assert_eq!(
                (problem.status, problem.code.as_str()),
                (400, "malformed-header")
            );
            assert!(problem.detail.starts_with("If-Match "), "{text}");
        }
    }

    #[test]
    fn each_role_may_what_it_is_for() {
        for (action, who) in [
            (Action::Follow, &Role::ALL[..]),
            (Action::Read, &[Role::Admin, Role::Operator, Role::Viewer]),
            (Action::Configure, &[Role::Admin, Role::Operator]),
            (Action::Operate, &[Role::Admin, Role::Operator]),
            (Action::Push, &[Role::Admin, Role::Operator, Role::Producer]),
            (Action::Administer, &[Role::Admin]),
        ] {
            let may = Role::ALL.into_iter().filter(|role| role.may(action));
            assert_eq!(may.collect::<Vec<_>>(), who, "{action:?}");
        }
    }

    #[test]
    fn a_role_covers_those_that_may_no_more() {
        let below = |role: Role| {
            let all = Role::ALL.into_iter();
            all.filter(|other| role.covers(*other)).collect::<Vec<_>>()
        };
        assert_eq!(below(Role::Admin), Role::ALL);
        assert_eq!(below(Role::Operator), Role::ALL[1..]);
        assert_eq!(below(Role::Viewer), [Role::Viewer]);
        assert_eq!(below(Role::Producer), [Role::Producer]);
    }
}
