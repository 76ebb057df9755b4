//! The operator's API: REST and JSON under `/v1`, whose answers are the structs below.
//!
//! An API function is a list of [`Route`]s and one function that answers them; the gateway has matched the
//! route, the authorizer has found the caller. What is wrong is said as RFC 9457 problems with stable codes.

pub mod archive;
pub mod attachments;
pub mod attestations;
pub mod deliveries;
pub mod intakes;
pub mod jobs;
pub mod organization;
pub mod registrations;

use std::collections::BTreeMap;

use bytes::Bytes;
use integrations::Fault;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::{error, warn};

use crate::clock::Timestamp;
use crate::platform::{Platform, Unreachable, WriteError};
use crate::rows::Role;
use crate::{operations, register, tokens};

/// A request as the gateway hands it over.
#[derive(Debug, Clone)]
pub struct Request {
    /// As in the route table: `GET /v1/deliveries/{delivery}`.
    pub route: String,
    /// The values of the route's parameters.
    pub path: BTreeMap<String, String>,
    pub query: BTreeMap<String, String>,
    pub body: Bytes,
    /// As the authorizer found it; none when it did not say.
    pub caller: Option<Caller>,
    /// The gateway's id of the request, for support.
    pub id: String,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    pub organization: String,
    pub role: Role,
    /// The name of the token, or of the intake.
    pub name: String,
    /// The token's id.
    pub token: String,
    /// The token's end; none when it has none.
    pub valid_until: Option<Timestamp>,
    /// The id of the intake that fetches what is missing, where it came in by one.
    pub fetches: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub status: u16,
    pub body: Value,
}

impl Response {
    fn json(status: u16, body: &impl Serialize) -> Self {
        let body = serde_json::to_value(body).expect("answers have text keys");
        Self { status, body }
    }
}

/// What a route does, as roles know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Whose token it is, what can be registered, and what became of an attestation: for whoever has a token.
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

#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub route: &'static str,
    pub action: Action,
}

const fn route(route: &'static str, action: Action) -> Route {
    Route { route, action }
}

/// Something wrong, as RFC 9457 says it, with a stable code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

impl Problem {
    pub fn new(status: u16, code: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            title: title.into(),
            detail: detail.into(),
            faults: Vec::new(),
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
            Error::Faults(faults) => Self::faults(faults),
            Error::NameTaken(_) => Self::new(409, "token-name-taken", "The name is taken", text),
            Error::Above { .. } => Self::new(403, "role-above", "Not with this token", text),
            Error::NotFound(_) => Self::not_found(text),
            Error::Conflict => Self::new(409, "conflict", "Changed at the same time", text),
            Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

impl From<register::Error> for Problem {
    fn from(error: register::Error) -> Self {
        use register::Error;
        let text = error.to_string();
        match error {
            Error::NoIntegration(_) => Self::new(
                404,
                "integration-unknown",
                "There is no such integration",
                text,
            ),
            Error::Faults(faults) => Self::faults(faults),
            Error::NameTaken(_) => Self::new(409, "name-taken", "The name is taken", text),
            Error::Refused { status, answer, .. } => {
                let status = status.map(|status| format!("; it answered {status}"));
                let answer = answer.filter(|answer| !answer.is_empty());
                let answer = answer.map(|answer| format!(": {answer}"));
                let detail = format!(
                    "{text}{}{}",
                    status.unwrap_or_default(),
                    answer.unwrap_or_default()
                );
                Self::new(
                    422,
                    "check-failed",
                    "The third party would not have it",
                    detail,
                )
            }
            Error::NotFound(_) | Error::NotAttached(_) => Self::not_found(text),
            Error::Conflict => Self::new(409, "conflict", "Changed at the same time", text),
            Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give it back as `cursor` for the next page; none on the last.
    pub next: Option<String>,
}

/// Answers a request by its function, after looking at what its caller may do.
pub async fn answer<P: Platform>(
    routes: &[Route],
    function: impl AsyncFn(&P, &Caller, &Request) -> Result<Response, Problem>,
    platform: &P,
    request: &Request,
) -> Response {
    let now = platform.now();
    let result = match permit(platform, routes, request, now).await {
        // Boxed, as the platform's own futures are: one inside the other they are too deep for the compiler.
        Ok(caller) => Box::pin(function(platform, &caller, request)).await,
        Err(problem) => Err(problem),
    };
    result.unwrap_or_else(|mut problem| {
        problem.request_id.clone_from(&request.id);
        warn!(
            route = request.route,
            status = problem.status,
            code = problem.code,
            "Refused"
        );
        Response::json(problem.status, &problem)
    })
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
        return Box::pin(by_intake(platform, request.parameter("token"))).await;
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
        return Err(Problem::new(
            403,
            "forbidden",
            "Not with this token",
            detail,
        ));
    }
    Ok(caller.clone())
}

/// Who comes in by an intake. One that never was and one that is gone are answered alike.
async fn by_intake(platform: &impl Platform, token: &str) -> Result<Caller, Problem> {
    let Some(intake) = crate::intakes::find(platform, token).await? else {
        return Err(Problem::not_found("there is no such intake"));
    };
    Ok(Caller {
        organization: intake.organization,
        role: Role::Producer,
        name: intake.name,
        token: intake.id.clone(),
        valid_until: None,
        fetches: intake.fetches.then_some(intake.id),
    })
}

impl Request {
    fn parameter(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // Its position, not its text: that may quote a secret.
            let (line, column) = (error.line(), error.column());
            let what = if error.is_data() {
                "does not have the fields that it should"
            } else {
                "is not JSON"
            };
            let detail = format!("the body {what} (line {line}, column {column})");
            Problem::new(400, "malformed-body", "The body could not be read", detail)
        })
    }

    /// The body, or what stands for it when there is none.
    fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.body.is_empty() {
            return Ok(T::default());
        }
        self.json()
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

#[cfg(test)]
mod tests {
    use super::*;

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
