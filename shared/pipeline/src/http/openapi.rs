//! The API described for machines: an OpenAPI 3.1 document, from the routes and the types that they take and answer.
//!
//! Each route's declaration describes it. No function makes the document: a test writes it into `docs/openapi.json`, and that is what is served.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use api::{Code, Problem, REFUSED, Role};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::functions;
use super::route::{Description, Route};
use crate::store::platform::Platform;

/// An operation of the document: what a route does, takes and answers.
#[derive(Default)]
pub struct Operation {
    pub id: &'static str,
    summary: &'static str,
    description: &'static str,
    parameters: Vec<Value>,
    body: Option<Body>,
    answers: Vec<(u16, &'static str, Vec<Schematic>)>,
    codes: Vec<&'static str>,
    never: Vec<&'static str>,
    is_tagged: bool,
}

type Schematic = fn(&mut SchemaGenerator) -> Schema;

struct Body {
    schema: Schematic,
    is_required: bool,
}

impl Description for Operation {
    fn operation(&mut self, id: &'static str, summary: &'static str) {
        (self.id, self.summary) = (id, summary);
    }

    fn about(&mut self, sentences: &'static str) {
        self.description = sentences;
    }

    fn keyed(&mut self) {
        self.parameters
            .push(json!({ "$ref": "#/components/parameters/Idempotency-Key" }));
        self.refuses(&[
            Code::IdempotencyKeyReused,
            Code::InProgress,
            Code::MalformedHeader,
        ]);
    }

    fn body<T: JsonSchema>(&mut self, is_required: bool) {
        let schema = |generator: &mut SchemaGenerator| generator.subschema_for::<T>();
        self.body = Some(Body {
            schema,
            is_required,
        });
        self.refuses(&[Code::MalformedBody, Code::InvalidInputs, Code::TooLarge]);
    }

    fn answers<T: JsonSchema>(&mut self, status: u16, description: &'static str) {
        let schema: Schematic = |generator| generator.subschema_for::<T>();
        match self.answers.iter_mut().find(|(own, ..)| *own == status) {
            Some((.., schemas)) => schemas.push(schema),
            None => self.answers.push((status, description, vec![schema])),
        }
    }

    fn query(&mut self, name: &'static str, description: &'static str, schema: fn() -> Value) {
        self.parameters.push(json!({
            "name": name,
            "in": "query",
            "description": description,
            "schema": schema(),
        }));
        self.refuses(&[Code::InvalidInputs]);
    }

    fn tagged(&mut self) {
        self.is_tagged = true;
    }

    fn conditional(&mut self) {
        self.parameters
            .push(json!({ "$ref": "#/components/parameters/If-Match" }));
        self.refuses(&[Code::ChangedMeanwhile, Code::MalformedHeader]);
    }

    fn refuses(&mut self, codes: &[Code]) {
        self.codes.extend(codes.iter().map(|code| code.as_str()));
    }

    fn refuses_attestations(&mut self) {
        self.codes.extend(REFUSED);
        self.refuses(&[
            Code::NameTooLong,
            Code::QuotaExceeded,
            Code::SignatureInvalid,
            Code::SignatureMissingMaterial,
            Code::SignerThreshold,
            Code::SignerUnknown,
            Code::TooLarge,
            Code::TooManyAttachments,
            Code::WorkflowMalformed,
            Code::WorkflowMissing,
            Code::WorkflowOther,
            Code::WorkflowTooLong,
        ]);
    }

    fn never_refuses(&mut self, code: Code) {
        self.never.push(code.as_str());
    }
}

/// A code's status and meaning.
fn code(code: &str) -> (u16, &'static str) {
    match Code::of(code) {
        Some(known) => (known.status(), known.meaning()),
        None => (422, "the attestation cannot be accepted"),
    }
}

/// The document, which says nothing of the platform.
pub fn document<P: Platform>() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut requests = settings.clone().for_deserialize().into_generator();
    let mut answers = settings.for_serialize().into_generator();
    answers.subschema_for::<Problem>();
    let (mut paths, mut tags, mut shared) = (Map::new(), BTreeSet::new(), Map::new());
    let routes = functions::all::<P, Operation>();
    for route in routes.iter().flat_map(|(_, routes)| routes) {
        let (method, path) = (route.method, route.path);
        let mut written = written(route, &mut requests, &mut answers);
        problems(route, &mut written["responses"], &mut shared);
        tags.insert(tag(path).to_owned());
        paths
            .entry(path)
            .or_insert_with(|| json!({}))
            .as_object_mut()
            .expect("made above")
            .insert(method.to_lowercase(), written);
    }
    let mut schemas = requests.take_definitions(true);
    for (name, schema) in answers.take_definitions(true) {
        let other = schemas.insert(name.clone(), schema.clone());
        assert!(
            other.is_none_or(|other| other == schema),
            "{name} is not the same where it is taken and where it is answered: rename one"
        );
    }
    schemas.insert(
        "GatewayMessage".into(),
        json!({
            "type": "object",
            "description": "A response of the gateway itself.",
            "properties": { "message": { "type": "string" } },
            "required": ["message"],
        }),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Chainloop Integrations",
            "version": "1",
            "summary": "Accepts attestations and delivers each to the third parties registered for its workflow.",
            "description": about(),
            "license": { "name": "Apache 2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "The stack's address: its output `ApiUrl`" }],
        "tags": tags.into_iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token of an organization: `chainloop organization api-token create`.",
                },
            },
            "responses": shared,
            "parameters": {
                "Idempotency-Key": {
                    "name": "Idempotency-Key",
                    "in": "header",
                    "description": "Makes a request repeatable: the same key with the same request within a day gets \
                                    the first response, and creates nothing twice.",
                    "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$" },
                },
                "If-Match": {
                    "name": "If-Match",
                    "in": "header",
                    "description": "Applies the request only to the version that was read: one or more `ETag`s, or `*`.",
                    "schema": { "type": "string" },
                },
            },
            "headers": {
                "ETag": {
                    "description": "Version, for `If-Match`; changes with every write.",
                    "schema": { "type": "string" },
                },
                "Retry-After": {
                    "description": "Seconds to wait before the next try; absent where something has to be deleted first.",
                    "schema": { "type": "integer", "minimum": 0 },
                },
                "X-Request-Id": {
                    "description": "ID of the request, for support and in logs.",
                    "schema": { "type": "string" },
                },
            },
        },
    })
}

/// Describes what all routes have in common.
fn about() -> String {
    let mut text = format!(
        "Responses are JSON. Errors are problems (RFC 9457) with a stable `code` of the list below; a body's faults are \
         listed together, each with its field.\n\n\
         Lists come in pages: `limit` is the maximum number of items of a page, and `next` the `cursor` of the page \
         after it; the last page has none. A page may be empty and have a `next`.\n\n\
         Limits: a body has at most 256 KiB; an attestation {}; a material, which is uploaded to a presigned URL, \
         100 MiB; a page 100 items. The gateway accepts 200 requests a second of each group of routes, in bursts of \
         500, and fewer of tests, previews, descriptions of attestations, downloads and new tokens; it answers 429 to \
         more.\n\n\
         The gateway's own responses (no token, an unknown token, too many requests, an unknown path) are \
         `{{\"message\": …}}`.\n\n\
         | code | status | meaning |\n|---|---|---|\n",
        attestation::limits()
    );
    let codes = Code::ALL.iter().map(|code| code.as_str());
    for code in codes.chain(REFUSED.iter().copied()) {
        let (status, meaning) = self::code(code);
        let _ = writeln!(text, "| `{code}` | {status} | {meaning} |");
    }
    text
}

/// `tokens` of `/v1/tokens/{token}`.
fn tag(path: &str) -> &str {
    path.split('/').nth(2).unwrap_or_default()
}

fn written<P>(
    route: &Route<P, Operation>,
    requests: &mut SchemaGenerator,
    answers: &mut SchemaGenerator,
) -> Value {
    let (operation, path) = (&route.description, route.path);
    let mut parameters: Vec<Value> = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| parameter(name, path))
        .collect();
    parameters.extend(operation.parameters.iter().cloned());
    let mut responses = Map::new();
    for (status, description, schemas) in &operation.answers {
        let mut schemas: Vec<Value> = schemas
            .iter()
            .map(|schema| schema(answers).to_value())
            .collect();
        let schema = match schemas.len() {
            1 => schemas.remove(0),
            _ => json!({ "anyOf": schemas }),
        };
        let mut response = response(
            description,
            &json!({ "application/json": { "schema": schema } }),
        );
        if operation.is_tagged {
            response["headers"]["ETag"] = json!({ "$ref": "#/components/headers/ETag" });
        }
        responses.insert(status.to_string(), response);
    }
    let mut written = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [tag(path)],
        "responses": responses,
        "security": if route.action.is_open() { json!([]) } else { json!([{ "token": [] }]) },
    });
    let roles = Role::ALL.iter().filter(|role| role.may(route.action));
    let roles: Vec<String> = roles.map(ToString::to_string).collect();
    let mut about = operation.description.to_owned();
    if !route.action.is_open() {
        if !about.is_empty() {
            about.push_str("\n\n");
        }
        let _ = write!(about, "For tokens with the role {}.", roles.join(", "));
        written["x-roles"] = roles.into();
        written["x-restricted"] = route.is_for_restricted.into();
        if can_be_restricted(route) {
            about.push_str(match route.is_for_restricted {
                true => " A token that is restricted to workflows may use it for those.",
                false => " No token that is restricted to workflows may use it.",
            });
        }
    }
    if !about.is_empty() {
        written["description"] = about.into();
    }
    if !parameters.is_empty() {
        written["parameters"] = parameters.into();
    }
    if let Some(Body {
        schema,
        is_required,
    }) = &operation.body
    {
        written["requestBody"] = json!({
            "required": is_required,
            "content": { "application/json": { "schema": schema(requests).to_value() } },
        });
    }
    written
}

/// Reports whether a role that can be restricted to workflows may use the route.
fn can_be_restricted<P>(route: &Route<P, Operation>) -> bool {
    let mut roles = Role::ALL.into_iter();
    !route.action.is_open() && roles.any(|role| role.can_be_restricted() && role.may(route.action))
}

/// Describes a parameter of a path.
fn parameter(name: &str, path: &str) -> Value {
    let digest = json!({ "type": "string", "pattern": "^(sha256:)?[0-9A-Fa-f]{64}$" });
    let (description, schema) = match name {
        "digest" => ("`sha256:` and 64 hexadecimal digits", digest),
        "registration" | "token" if !path.contains("/intake/") => {
            ("Name or ID", json!({ "type": "string" }))
        }
        "token" => (
            "The intake's token, a secret",
            json!({ "type": "string", "format": "password" }),
        ),
        "intake" => ("Name", json!({ "type": "string" })),
        "issuer" => ("Name or ID", json!({ "type": "string" })),
        _ => ("ID", json!({ "type": "string" })),
    };
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
}

fn response(description: &str, content: &Value) -> Value {
    json!({
        "description": description,
        "headers": { "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } },
        "content": content,
    })
}

/// The problems by status, each with its codes. The gateway has its own words for some.
fn problems<P>(
    route: &Route<P, Operation>,
    responses: &mut Value,
    shared: &mut Map<String, Value>,
) {
    let mut codes = vec![Code::Unreachable.as_str()];
    if route.path.contains('{') {
        codes.push(Code::NotFound.as_str());
    }
    codes.extend(&route.description.codes);
    codes.retain(|code| !route.description.never.contains(code));
    if !route.action.is_open() {
        codes.extend([Code::Unauthorized, Code::Expired].map(Code::as_str));
        if Role::ALL.iter().any(|role| !role.may(route.action)) {
            codes.push(Code::Forbidden.as_str());
        }
        if can_be_restricted(route) && !route.is_for_restricted {
            codes.push(Code::TokenRestricted.as_str());
        }
    }
    codes.sort_unstable();
    codes.dedup();
    let message = json!({ "schema": { "$ref": "#/components/schemas/GatewayMessage" } });
    let mut statuses: BTreeSet<u16> = codes.iter().map(|one| code(one).0).collect();
    if !route.action.is_open() {
        statuses.extend([401, 403]);
    }
    statuses.insert(429);
    for status in statuses {
        let own: Vec<&str> = codes
            .iter()
            .copied()
            .filter(|one| code(one).0 == status)
            .collect();
        let described: Vec<String> = own
            .iter()
            .map(|one| format!("`{one}`: {}", code(one).1))
            .collect();
        let mut content = Map::new();
        if !own.is_empty() {
            let schema = json!({
                "allOf": [{ "$ref": "#/components/schemas/Problem" }],
                "properties": { "code": { "enum": own }, "status": { "const": status } },
            });
            content.insert(
                "application/problem+json".into(),
                json!({ "schema": schema }),
            );
        }
        let mut description = described.join("; ");
        // Of these the gateway says some by itself, before a function is asked.
        let gateway = match status {
            401 if !route.action.is_open() => "no token",
            403 if !route.action.is_open() => "a token that nobody has",
            429 => "too many requests; try again",
            503 => "a function that did not answer in time",
            _ => "",
        };
        if !gateway.is_empty() {
            if !description.is_empty() {
                description.push_str("; ");
            }
            let _ = write!(description, "from the gateway: {gateway}");
            content.insert("application/json".into(), message.clone());
        }
        let mut response = response(&description, &content.into());
        if status == 429 && !own.is_empty() {
            response["headers"]["Retry-After"] =
                json!({ "$ref": "#/components/headers/Retry-After" });
        }
        // The same for many routes, so said once: `not-found`, `expired.unauthorized`.
        let name = match own.as_slice() {
            [] => format!("gateway.{status}"),
            few @ ([_] | [_, _] | [_, _, _]) => few.join("."),
            _ => {
                responses[status.to_string()] = response;
                continue;
            }
        };
        responses[status.to_string()] = reference(&name);
        shared.insert(name, response);
    }
}

fn reference(response: &str) -> Value {
    json!({ "$ref": format!("#/components/responses/{response}") })
}
