//! Requests to the API's functions, each answered with its function's role.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use api::{Client, Role};
use memory::Memory;
use pipeline::Platform;
use pipeline::http::openapi::Operation;
use pipeline::http::{self, Caller, Request, Response, Route, functions};
use serde_json::Value;

use crate::openapi::is_described;
use crate::roles::As;
use crate::world::{ORGANIZATION, tests};

/// Each function's folder, with its routes.
pub static FUNCTIONS: LazyLock<[(&str, functions::Routes<Memory, Operation>); 5]> =
    LazyLock::new(functions::all);

pub fn routes() -> impl Iterator<Item = &'static Route<Memory, Operation>> {
    FUNCTIONS.iter().flat_map(|(_, routes)| routes)
}

/// The function that has a request's route, and the route.
pub fn route_of(request: &Request) -> (&'static str, &'static Route<Memory, Operation>) {
    let all = FUNCTIONS.iter();
    let mut all = all.flat_map(|(function, routes)| routes.iter().map(move |one| (*function, one)));
    let found = all.find(|(_, route)| {
        route.method == request.method && route.parameters(&request.path).is_some()
    });
    found.unwrap_or_else(|| panic!("no route {} {}", request.method, request.path))
}

/// A request by one of the routes, as `GET /v1/deliveries/{delivery}`, with the values of its parameters.
pub fn request(
    role: Role,
    route: &str,
    parameters: &[(&str, &str)],
    headers: &[(&str, &str)],
    body: &Value,
) -> Request {
    let (method, template) = route.split_once(' ').unwrap();
    let mut path = template.to_owned();
    for (name, value) in parameters {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Request {
        method: method.into(),
        path,
        query: BTreeMap::new(),
        headers: headers.collect(),
        body: body.to_string().into(),
        caller: Some(Caller {
            organization: ORGANIZATION.clone(),
            role,
            workflows: Vec::new(),
            actor: tests().clone(),
            valid_until: None,
            is_use_due: false,
            intake: None,
        }),
        client: Client::default(),
        id: "request-1".into(),
    }
}

/// A request's function as a new environment, with that function's role.
pub fn function<'m>(memory: &'m Memory, request: &Request) -> As<'m> {
    As::function(memory, route_of(request).0)
}

/// Answers a request on a platform of its own.
pub async fn answer_on<P: Platform>(platform: &P, request: &Request) -> Response {
    let (function, route) = route_of(request);
    let mut all = functions::all::<P, ()>().into_iter();
    let (_, routes) = all.find(|(name, _)| *name == function).unwrap();
    let response = http::answer(&routes, platform, request).await;
    is_described(&route.name(), &response);
    response
}

/// Answers a request by its function.
pub async fn answer(memory: &Memory, request: &Request) -> Response {
    answer_on(&function(memory, request), request).await
}

/// Asks as a role.
pub async fn ask(
    memory: &Memory,
    role: Role,
    route: &str,
    parameters: &[(&str, &str)],
    body: Value,
) -> Response {
    answer(memory, &request(role, route, parameters, &[], &body)).await
}
