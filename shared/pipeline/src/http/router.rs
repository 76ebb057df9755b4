//! The router: finds a request's route, checks what its caller may do, and calls the handler.

use api::{Action, Code, Problem, TRACEPARENT, Timestamp, Trace};
use tracing::{info, warn};

use super::idempotency::{self, Begun};
use super::request::{Answer, Call, Caller, ClaimIds, Parameters, Request, Response};
use super::route::{Audited, Route};
use crate::config::{admission, last_use};
use crate::store::platform::{Platform, Scope};
use crate::store::spans::{Kind, Span};

/// Answers a request by one of the routes. Logs the route and never the path: that may hold an intake's token.
pub async fn answer<P: Platform>(routes: &[Route<P>], platform: &P, request: &Request) -> Response {
    match Traced::begin(platform, request) {
        None => respond(routes, platform, request).await.1,
        Some(traced) => {
            let (name, answer) = respond(routes, platform, &traced.request).await;
            traced.end(platform, name, answer.status);
            answer
        }
    }
}

/// A request as a span of its sender's trace.
struct Traced {
    /// With this span in its header, so that deliveries of what it pushes are below it.
    request: Request,
    trace: Trace,
    parent: Trace,
    began_at: Timestamp,
}

impl Traced {
    fn begin(platform: &impl Platform, request: &Request) -> Option<Self> {
        let parent = request.trace();
        let parent = parent.filter(|trace| platform.meter().spans.wants(trace))?;
        let trace = parent.with_span(platform.random().to_be_bytes());
        let mut request = request.clone();
        request
            .headers
            .insert(TRACEPARENT.to_owned(), trace.to_string());
        let began_at = platform.now();
        Some(Self {
            request,
            trace,
            parent,
            began_at,
        })
    }

    /// <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>: what the sender did wrong is no failure here.
    fn end(self, platform: &impl Platform, name: String, status: u16) {
        platform.meter().spans.add(Span {
            trace: self.trace,
            parent: self.parent,
            kind: Kind::Server,
            began_at: self.began_at,
            ended_at: platform.now(),
            attributes: vec![
                ("http.request.method", self.request.method.into()),
                ("http.response.status_code", status.into()),
                ("chainloop.request", self.request.id.into()),
            ],
            failure: (status >= 500).then(String::new),
            name,
        });
    }
}

async fn respond<P: Platform>(
    routes: &[Route<P>],
    platform: &P,
    request: &Request,
) -> (String, Response) {
    let (name, answer) = match find(routes, request) {
        Ok((route, parameters)) => {
            let answer = Box::pin(handle(platform, request, route, &parameters)).await;
            (
                route.name(),
                answer.unwrap_or_else(|problem| refused(request, problem)),
            )
        }
        Err(answer) => (format!("{} (no route)", request.method), answer),
    };
    let (id, status) = (&request.id, answer.status);
    match answer.body["code"].as_str().filter(|_| status >= 400) {
        Some(code) => warn!(route = name, request_id = id, status, code, "Refused"),
        None => info!(route = name, request_id = id, status, "Answered"),
    }
    (name, answer)
}

fn find<'a, P>(
    routes: &'a [Route<P>],
    request: &Request,
) -> Result<(&'a Route<P>, Parameters), Response> {
    // A domain name's mapping may stand before it.
    let at = request.path.find("/v1/").unwrap_or(0);
    let path = &request.path[at..];
    let fitting = routes
        .iter()
        .filter_map(|route| Some((route, route.parameters(path)?)));
    let mut methods = Vec::new();
    for (route, parameters) in fitting {
        if route.method == request.method {
            return Ok((route, parameters));
        }
        methods.push(route.method);
    }
    if methods.is_empty() {
        let problem = Problem::new(Code::NotFound, "no route has this path");
        return Err(refused(request, problem));
    }
    let methods = methods.join(", ");
    let detail = format!("this path takes {methods}");
    let problem = Problem::new(Code::MethodNotAllowed, detail);
    Err(refused(request, problem).header("allow", methods))
}

async fn handle<P: Platform>(
    platform: &P,
    request: &Request,
    route: &Route<P>,
    parameters: &Parameters,
) -> Answer {
    let caller = permit(platform, route, parameters, request).await?;
    let caller = &caller;
    let call = async |ids: &ClaimIds| {
        let call = Call {
            platform,
            caller,
            request,
            ids,
            parameters,
            action: match route.audited {
                Audited::As(action) => action,
                Audited::Not(_) => "",
            },
        };
        (route.handler)(call).await
    };
    if !route.is_keyed {
        return call(&ClaimIds::default()).await;
    }
    match Box::pin(idempotency::begin(platform, caller, request)).await? {
        Begun::Unkeyed => call(&ClaimIds::default()).await,
        Begun::First(claim) => {
            let answer = call(&ClaimIds(Some(claim.row.made.clone()))).await;
            let response = answer.unwrap_or_else(|problem| refused(request, problem));
            idempotency::end(platform, *claim, &response).await;
            Ok(response)
        }
        Begun::Again(response) => Ok(response),
    }
}

/// The answer instead of one that is larger than a function may give.
pub fn too_large(request: &Request) -> Response {
    let detail = "the answer would be larger than the 6 MB that a function may give: ask for less with `limit`, or \
                  download the attestation";
    refused(request, Problem::new(Code::AnswerTooLarge, detail))
}

pub(super) fn refused(request: &Request, mut problem: Problem) -> Response {
    problem.request_id.clone_from(&request.id);
    let response = Response::json(problem.status, &problem);
    match problem.retry_after_secs {
        Some(secs) => response.header("retry-after", secs.to_string()),
        None => response,
    }
}

async fn permit<P: Platform>(
    platform: &P,
    route: &Route<P>,
    parameters: &Parameters,
    request: &Request,
) -> Result<Caller, Problem> {
    if route.action == Action::Forward {
        return by_intake(platform, parameters, request).await;
    }
    if matches!(route.action, Action::Open | Action::Exchange) {
        return Ok(Caller::nobody());
    }
    let Some(caller) = &request.caller else {
        return Err(Problem::new(Code::Unauthorized, "send a token"));
    };
    // The gateway caches the authorizer's result for a while.
    let now: Timestamp = platform.now();
    if caller.valid_until.is_some_and(|until| until <= now) {
        return Err(Problem::new(Code::Expired, "the token has expired"));
    }
    // A request that is refused below shows as well that somebody has the token.
    if caller.is_use_due {
        let scope = Scope::new(platform, &caller.organization);
        last_use::note_token(scope, &caller.actor, &request.client).await;
    }
    if !caller.role.may(route.action) {
        let detail = format!("a token with the role {} may not do this", caller.role);
        return Err(Problem::new(Code::Forbidden, detail));
    }
    if !caller.workflows.is_empty() && !route.is_for_restricted {
        let detail = "the token is restricted to workflows: it pushes their attestations and materials, and reads \
                      what became of them";
        return Err(Problem::new(Code::TokenRestricted, detail));
    }
    let mut caller = caller.clone();
    caller.actor.client = request.client.clone();
    Ok(caller)
}

/// Finds the caller by the intake's token in the path. An intake that never was, one that was deleted or has expired,
/// and one that does not allow the address are answered alike.
async fn by_intake(
    platform: &impl Platform,
    parameters: &Parameters,
    request: &Request,
) -> Result<Caller, Problem> {
    let token = parameters.get("token").map_or("", String::as_str);
    let found = admission::admit(platform, token, &request.client).await?;
    let intake = found.ok_or_else(super::intakes::unknown)?;
    Ok(Caller {
        organization: intake.organization.clone(),
        role: api::Role::Producer,
        workflows: Vec::new(),
        actor: intake.actor(&request.client),
        valid_until: None,
        is_use_due: false,
        intake: Some(intake),
    })
}
