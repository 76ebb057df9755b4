//! Requests as the gateway hands them over, and responses.

use std::collections::BTreeMap;
use std::fmt;

use api::inputs::Fault;
use api::workflows::{Selector, Workflow};
use api::{
    Actor, Client, Code, JobId, OrganizationName, Problem, Role, TRACEPARENT, Timestamp, Trace,
};
use attestation::Digest;
use bytes::Bytes;
use integrations::inputs;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::config::Precondition;
use crate::records::audit_log::Act;
use crate::store::platform::{Etag, Scope};
use crate::store::rows::IntakeToken;

/// A request as the gateway hands it over.
#[derive(Clone)]
pub struct Request {
    pub method: String,
    /// As the client wrote it, without the query. It may hold an intake's token.
    pub path: String,
    pub query: BTreeMap<String, String>,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
    /// As the authorizer found it; none when it did not say.
    pub caller: Option<Caller>,
    /// As the gateway saw it: headers may say anything of an address.
    pub client: Client,
    /// The gateway's ID of the request, for support.
    pub id: String,
}

/// A path may hold an intake's token, and a body secrets.
impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Request");
        let shown = shown.field("method", &self.method).field("id", &self.id);
        shown.finish_non_exhaustive()
    }
}

/// The largest body that is read as JSON: 256 KiB. Only documents, which come as they are, may have more.
pub const BODY_MAX_BYTES: usize = 256 * 1024;

/// Bearer of a token, or poster to an intake.
#[derive(Debug, Clone)]
pub struct Caller {
    pub organization: OrganizationName,
    pub role: Role,
    /// Workflows that the token is restricted to; not restricted when empty.
    pub workflows: Vec<Selector>,
    pub actor: Actor,
    /// The token's end; none when it has none.
    pub valid_until: Option<Timestamp>,
    /// The token's use is to be noted.
    pub is_use_due: bool,
    /// The intake that it came in by, if it did.
    pub intake: Option<IntakeToken>,
}

impl Caller {
    /// A caller without a token, of no organization.
    pub(super) fn nobody() -> Self {
        Self {
            organization: "".into(),
            role: Role::Viewer,
            workflows: Vec::new(),
            actor: Actor::default(),
            valid_until: None,
            is_use_due: false,
            intake: None,
        }
    }

    /// Reports whether the token is for a workflow: for every one, unless it is restricted.
    pub(super) fn is_for(&self, workflow: &Workflow) -> bool {
        self.workflows.is_empty() || self.workflows.iter().any(|one| one.is_for(workflow))
    }
}

/// Values of a path's parameters, by their names.
pub type Parameters = BTreeMap<&'static str, String>;

/// IDs that follow from the claim of an `Idempotency-Key`; none without a key.
#[derive(Debug, Clone, Default)]
pub struct ClaimIds(pub(super) Option<String>);

impl ClaimIds {
    /// ID of what the request creates.
    pub(super) fn id<Id: From<String>>(&self) -> Option<Id> {
        let claim = self.0.as_ref()?;
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Digest::of(claim.as_bytes()).bytes()[..16]);
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        Some(id.to_string().into())
    }

    /// `ETag` of a row that this claim changed: a repeat recognizes its own change by it.
    pub(super) fn mark(&self) -> Option<Etag> {
        let claim = self.0.as_ref()?;
        let digest = Digest::of(format!("{claim} changes").as_bytes()).hex();
        Some(Etag(digest[..16].to_owned()))
    }

    /// As [`id`](Self::id), of a job: those have the order of time.
    pub(super) fn job(&self) -> Option<JobId> {
        self.0.as_deref().map(JobId::from)
    }
}

/// A permitted request on its way to its route's handler.
pub struct Call<'a, P> {
    pub platform: &'a P,
    pub caller: &'a Caller,
    pub request: &'a Request,
    /// IDs of what it creates, if it is repeatable.
    pub ids: &'a ClaimIds,
    pub(super) parameters: &'a Parameters,
    /// The audit log's name for the route.
    pub(super) action: &'static str,
}

impl<P> Clone for Call<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Call<'_, P> {}

impl<'a, P> Call<'a, P> {
    pub(super) fn organization(self) -> &'a OrganizationName {
        &self.caller.organization
    }

    /// The caller's organization on the platform.
    pub(super) fn scope(self) -> Scope<'a, P> {
        Scope::new(self.platform, self.organization())
    }

    /// Scope and request: what most handlers begin with.
    pub(super) fn parts(self) -> (Scope<'a, P>, &'a Request) {
        (self.scope(), self.request)
    }

    /// Value of one of the path's parameters.
    pub(super) fn parameter(self, name: &str) -> &'a str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// ID that is one of the path's parameters.
    pub(super) fn id<Id: From<&'a str>>(self, name: &str) -> Id {
        self.parameter(name).into()
    }

    /// The caller and the action, for the audit log.
    pub(super) fn act(self) -> Act<'a> {
        Act {
            actor: &self.caller.actor,
            action: self.action,
        }
    }
}

/// A handler's result.
pub type Answer = Result<Response, Problem>;

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
    pub(super) fn json(status: u16, body: &impl Serialize) -> Self {
        let body = serde_json::to_value(body).expect("answers have text keys");
        Self {
            status,
            headers: BTreeMap::new(),
            body,
        }
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.insert(name.to_owned(), value.into());
        self
    }

    /// With the `ETag` of the row that it shows.
    pub(super) fn tagged(self, etag: &str) -> Self {
        self.header("etag", format!("\"{etag}\""))
    }
}

impl Request {
    /// The trace that it is part of, if it says so.
    pub(super) fn trace(&self) -> Option<Trace> {
        self.headers.get(TRACEPARENT)?.parse().ok()
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A workflow and its project, as a query names them. A project alone says something to few.
    pub(super) fn workflow(&self) -> Result<Option<(&str, Option<&str>)>, Problem> {
        let project = self.project()?;
        match (self.query("workflow"), project) {
            (Some(workflow), project) => Ok(Some((workflow, project))),
            (None, Some(_)) => Err(Problem::field("project", "goes with `workflow`")),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn project(&self) -> Result<Option<&str>, Problem> {
        self.text("project")
    }

    /// A text of the query, as the API's description has those.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.query(name) {
            Some(text) if !(1..=512).contains(&text.chars().count()) => {
                Err(Problem::field(name, "must be 1 to 512 characters long"))
            }
            text => Ok(text),
        }
    }

    pub(super) fn json<T: DeserializeOwned + JsonSchema>(&self) -> Result<T, Problem> {
        self.json_and(|_| Vec::new())
    }

    /// As [`json`](Self::json); what is wrong with it besides its form is asked for when its form is wrong, so that
    /// all of it is said at once.
    pub(super) fn json_and<T: DeserializeOwned + JsonSchema>(
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

    pub(super) fn object(&self) -> Result<Map<String, Value>, Problem> {
        // Before it becomes values, which take many times the memory.
        if self.body.len() > BODY_MAX_BYTES {
            return Err(Problem::new(
                Code::TooLarge,
                "the body of this request has at most 256 KiB",
            ));
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
    pub(super) fn json_with_name<T: DeserializeOwned + JsonSchema>(&self) -> Result<T, Problem> {
        self.json_and(|body| {
            let name = body.get("name").and_then(Value::as_str);
            name.and_then(api::names::name_fault).into_iter().collect()
        })
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Parses `If-Match`: `*`, one tag or a list. A weak tag matches nothing, as in RFC 9110.
    pub(super) fn precondition(&self) -> Result<Precondition, Problem> {
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
    pub(super) fn refuse_fixed(&self, fixed: &[&str], detail: &str) -> Result<(), Problem> {
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
    pub(super) fn json_or_default<T: DeserializeOwned + Default + JsonSchema>(
        &self,
    ) -> Result<T, Problem> {
        if self.body.is_empty() {
            return Ok(T::default());
        }
        self.json()
    }

    /// The time that the query gives as `name`, if any.
    /// Reports whether this parameter is `true`; it may be missing, and nothing else.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.query(name) {
            None => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::field(name, "must be true, or not be there")),
        }
    }

    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let time = self.query(name).map(str::parse).transpose();
        time.map_err(|_| Problem::field(name, "must be a time, as 2026-01-31T12:00:00Z"))
    }

    /// Behind what the page begins, as `read` knows it; none when the list begins.
    pub(super) fn cursor<'a, T>(
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
            ..Problem::new(Code::BadCursor, "see the faults")
        };
        read(cursor).map(Some).ok_or_else(problem)
    }

    /// The name behind which the page begins, in a list by names.
    pub(super) fn name_cursor(&self) -> Result<Option<&str>, Problem> {
        self.cursor(|name| api::names::is_label(name).then_some(name))
    }

    /// Maximum number of items of a page: 1 to 100; default: 50.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        match self.query("limit").map(str::parse) {
            None => Ok(50),
            Some(Ok(limit @ 1..=100)) => Ok(limit),
            Some(_) => Err(Problem::field("limit", "must be a number from 1 to 100")),
        }
    }
}

const IF_MATCH: &str = "If-Match must be *, or entity tags in quotes, as ETag gives them";

fn malformed_body(detail: &str) -> Problem {
    Problem::new(Code::MalformedBody, detail)
}

pub(super) fn malformed_header(detail: &str) -> Problem {
    Problem::new(Code::MalformedHeader, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let pairs = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Request {
            method: "POST".into(),
            path: "/v1/intake/canary-path".into(),
            query: BTreeMap::from([("q".into(), "canary-query".into())]),
            headers: pairs.collect(),
            body: Bytes::from_static(b"canary-body"),
            caller: None,
            client: Client::default(),
            id: "request-1".into(),
        }
    }

    #[test]
    fn a_request_and_an_answer_show_nothing_that_may_be_secret() {
        let request = request(&[("authorization", "canary-header")]);
        let shown = format!("{request:?} {request:#?}");
        assert!(shown.contains("POST") && shown.contains("request-1"));
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
}
