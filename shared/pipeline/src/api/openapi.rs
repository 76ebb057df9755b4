//! The API described for machines: an OpenAPI 3.1 document, from the routes and the types that they take and answer.
//!
//! Each module says beside its routes what they are, in its `operations`. No function makes the document: a test
//! writes it into `docs/openapi.json`, and that is what is served.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{Action, Page, Problem, Route, idempotency};
use crate::rows::Role;

/// What a route does, takes and answers.
pub struct Operation {
    pub route: &'static str,
    pub id: &'static str,
    summary: &'static str,
    description: &'static str,
    parameters: Vec<Value>,
    body: Option<Body>,
    answers: Vec<(u16, &'static str, Vec<Schematic>)>,
    codes: Vec<&'static str>,
    /// Its answers have an `ETag`.
    is_tagged: bool,
}

type Schematic = fn(&mut SchemaGenerator) -> Schema;

struct Body {
    schema: Schematic,
    required: bool,
}

pub fn operation(route: &'static str, id: &'static str, summary: &'static str) -> Operation {
    let mut codes = vec!["unreachable"];
    if route.contains('{') {
        codes.push("not-found");
    }
    let mut parameters = Vec::new();
    if idempotency::KEYED.contains(&route) {
        parameters.push(json!({ "$ref": "#/components/parameters/Idempotency-Key" }));
        codes.extend(["idempotency-key-reused", "in-progress", "malformed-header"]);
    }
    Operation {
        route,
        id,
        summary,
        description: "",
        parameters,
        body: None,
        answers: Vec::new(),
        codes,
        is_tagged: false,
    }
}

impl Operation {
    /// What there is to know besides, in whole sentences.
    #[must_use]
    pub fn about(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// A JSON body.
    #[must_use]
    pub fn takes<T: JsonSchema>(self) -> Self {
        self.body::<T>(true)
    }

    /// A JSON body that may be left out.
    #[must_use]
    pub fn may_take<T: JsonSchema>(self) -> Self {
        self.body::<T>(false)
    }

    fn body<T: JsonSchema>(mut self, required: bool) -> Self {
        let schema = |generator: &mut SchemaGenerator| generator.subschema_for::<T>();
        self.body = Some(Body { schema, required });
        self.refuses(&["malformed-body", "invalid-inputs", "too-large"])
    }

    #[must_use]
    pub fn answers<T: JsonSchema>(mut self, status: u16, description: &'static str) -> Self {
        let schema: Schematic = |generator| generator.subschema_for::<T>();
        match self.answers.iter_mut().find(|(own, ..)| *own == status) {
            Some((.., schemas)) => schemas.push(schema),
            None => self.answers.push((status, description, vec![schema])),
        }
        self
    }

    /// A list, a page at a time.
    #[must_use]
    pub fn pages<T: JsonSchema>(self) -> Self {
        self.query(
            "limit",
            "How many items the page has at most.",
            json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 50 }),
        )
        .query(
            "cursor",
            "The `next` of the page before; without it the list begins.",
            json!({ "type": "string" }),
        )
        .answers::<Page<T>>(200, "A page of the list")
        .refuses(&["bad-cursor"])
    }

    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "called with json!")]
    pub fn query(mut self, name: &str, description: &str, schema: Value) -> Self {
        self.parameters.push(json!({
            "name": name,
            "in": "query",
            "description": description,
            "schema": schema,
        }));
        self.refuses(&["invalid-inputs"])
    }

    /// Its good answers have an `ETag`.
    #[must_use]
    pub fn tagged(mut self) -> Self {
        self.is_tagged = true;
        self
    }

    /// Heeds `If-Match`.
    #[must_use]
    pub fn conditional(mut self) -> Self {
        self.parameters
            .push(json!({ "$ref": "#/components/parameters/If-Match" }));
        self.refuses(&["changed-meanwhile", "malformed-header"])
    }

    /// The problems that it can answer with, by their codes, besides those that follow from the rest.
    #[must_use]
    pub fn refuses(mut self, codes: &[&'static str]) -> Self {
        for code in codes {
            if !self.codes.contains(code) {
                self.codes.push(code);
            }
        }
        self
    }
}

impl Operation {
    /// Of the problems that follow from the rest, one that it never answers with.
    #[must_use]
    pub fn never_refuses(mut self, code: &str) -> Self {
        self.codes.retain(|own| *own != code);
        self
    }
}

/// Each problem's code, its status, and what it means.
pub const CODES: &[(&str, u16, &str)] = &[
    (
        "bad-cursor",
        400,
        "`cursor` is not the `next` of a page of this list",
    ),
    (
        "kind-unknown",
        400,
        "a control plane posted a kind that is not taken",
    ),
    ("malformed-body", 400, "the body is not a JSON object"),
    (
        "malformed-header",
        400,
        "a header could not be read; `detail` says which and what it must be",
    ),
    ("expired", 401, "the token's time is over"),
    ("unauthorized", 401, "there is no token"),
    ("forbidden", 403, "the token's role may not do this"),
    (
        "role-above",
        403,
        "the token may not make or revoke one with that role",
    ),
    ("integration-unknown", 404, "there is no such integration"),
    ("not-found", 404, "there is no such thing"),
    (
        "attachment-exists",
        409,
        "the registration is attached to the workflow with the same options: `allow_duplicate` attaches it again",
    ),
    (
        "conflict",
        409,
        "somebody else changed it at the same time: try again",
    ),
    (
        "drain",
        409,
        "a drain cannot be cancelled: pause its registration",
    ),
    ("gone", 409, "its attachment or attestation was deleted"),
    (
        "in-progress",
        409,
        "the first request with this `Idempotency-Key` is still worked on: send it again in a while",
    ),
    ("name-taken", 409, "the name is taken"),
    ("over", 409, "the delivery is final"),
    ("paused", 409, "its registration is paused: resume that"),
    ("token-name-taken", 409, "a token has the name"),
    (
        "overlapping",
        409,
        "the intake's URL before its last rotation still works",
    ),
    (
        "under-way",
        409,
        "the delivery is being attempted: try again in a moment",
    ),
    (
        "changed-meanwhile",
        412,
        "it is not what `If-Match` says: read it again",
    ),
    (
        "too-large",
        413,
        "the body has more than 256 KiB, or, of an attestation or of what a control plane posts, more than 6 MiB",
    ),
    (
        "check-failed",
        422,
        "the third party would not have it; `detail` says why",
    ),
    (
        "idempotency-key-reused",
        422,
        "the `Idempotency-Key` was used for another request",
    ),
    (
        "invalid-inputs",
        422,
        "`faults` names all inputs that are not right",
    ),
    (
        "name-too-long",
        422,
        "the name of a material, the predicate type or the run's id has more than 512 bytes",
    ),
    (
        "not-deliverable",
        422,
        "the attestation could not be delivered; `detail` says why",
    ),
    (
        "too-many-attachments",
        422,
        "the attestation would go to too many attachments",
    ),
    (
        "workflow-not-allowed",
        403,
        "the intake does not accept attestations of the workflow",
    ),
    (
        "workflow-missing",
        422,
        "nothing says which workflow the attestation is from",
    ),
    (
        "workflow-other",
        422,
        "the attestation says another workflow than the query",
    ),
    (
        "workflow-malformed",
        422,
        "the id, the project or the name of the attestation's workflow has a letter in it that selectors are made of, \
         or that nobody can type",
    ),
    (
        "workflow-too-long",
        422,
        "a part of the name of the attestation's workflow has more than 512 bytes",
    ),
    (
        "quota-exceeded",
        429,
        "the organization has used up a quota: `quota` says which, and `Retry-After` when it begins anew",
    ),
    (
        "too-many-checks",
        429,
        "the token has had third parties asked too often: `Retry-After` says when it may again",
    ),
    (
        "unreachable",
        503,
        "something that is needed cannot be reached: try again",
    ),
];

/// Why an attestation is refused: the codes of `attestation::Error`, with status 422.
pub const REFUSED: &[&str] = &[
    "bare-statement",
    "bundle-type-unknown",
    "bundle-without-envelope",
    "byte-order-mark",
    "duplicate-key",
    "empty",
    "looks-like-sbom",
    "not-an-envelope",
    "not-json",
    "payload-not-base64",
    "payload-type-unknown",
    "predicate-invalid",
    "signature-not-base64",
    "statement-invalid",
    "statement-type-unknown",
    "too-deep",
    "too-many-entries",
    "too-many-materials",
    "too-many-signatures",
    "too-many-subjects",
    "unsigned",
];

/// A code's status and what it means.
fn code(code: &str) -> (u16, &'static str) {
    let known = CODES.iter().find(|(own, ..)| *own == code);
    let refused = REFUSED
        .contains(&code)
        .then_some((422, "the attestation is not one to accept"));
    known
        .map(|(_, status, meaning)| (*status, *meaning))
        .or(refused)
        .unwrap_or_else(|| panic!("add {code} to CODES in openapi.rs"))
}

/// All operations, in the order of their paths.
pub fn operations() -> Vec<Operation> {
    let mut all = super::registrations::operations();
    all.extend(super::attachments::operations());
    all.extend(super::attestations::operations());
    all.extend(super::deliveries::operations());
    all.extend(super::organization::operations());
    all
}

/// The document for these routes. Each must have its operation.
pub fn document<'a>(routes: impl Iterator<Item = &'a Route>) -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut requests = settings.clone().for_deserialize().into_generator();
    let mut answers = settings.for_serialize().into_generator();
    answers.subschema_for::<Problem>();
    let operations = operations();
    let (mut paths, mut tags, mut shared) = (Map::new(), BTreeSet::new(), Map::new());
    for route in routes {
        let operation = operations.iter().find(|one| one.route == route.route);
        let operation =
            operation.unwrap_or_else(|| panic!("describe {} beside its route", route.route));
        let (method, path) = route.route.split_once(' ').expect("a method and a path");
        let mut written = written(operation, route, &mut requests, &mut answers);
        problems(operation, route, &mut written["responses"], &mut shared);
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
            "description": "What the gateway says where it answers by itself.",
            "properties": { "message": { "type": "string" } },
            "required": ["message"],
        }),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Chainloop Integrations",
            "version": "1",
            "summary": "Accepts attestations and delivers each one to the third parties that are registered for its workflow.",
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
                    "description": "For a request that may be sent again: the same key with the same request within a \
                                    day gets the first answer, and makes nothing twice.",
                    "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$" },
                },
                "If-Match": {
                    "name": "If-Match",
                    "in": "header",
                    "description": "Only if it still is what was read: an `ETag`, several with commas between them, or `*`.",
                    "schema": { "type": "string" },
                },
            },
            "headers": {
                "ETag": {
                    "description": "For `If-Match`: another with every change.",
                    "schema": { "type": "string" },
                },
                "Retry-After": {
                    "description": "Seconds until it is worth asking again; not where something has to be deleted first.",
                    "schema": { "type": "integer", "minimum": 0 },
                },
                "X-Request-Id": {
                    "description": "The request's id, for whoever looks into the logs.",
                    "schema": { "type": "string" },
                },
            },
        },
    })
}

/// What holds for all of it.
fn about() -> String {
    let mut text = format!(
        "Answers are JSON. What is wrong is said as a problem (RFC 9457) with a stable `code`: see the list below. A \
         body's faults are named all at once, each with its field.\n\n\
         Lists come by pages: `limit` says how many items a page has at most, and `next` is the `cursor` of the page \
         that follows; the last page has none. A page may be empty and have a `next`.\n\n\
         Limits: a body has at most 256 KiB; an attestation {}; a material, which is uploaded by a presigned address, \
         100 MiB; a page has at most 100 items; the gateway takes 200 requests a second from all callers, 500 at once, \
         and answers 429 to more.\n\n\
         Where the gateway itself answers (no token, a token that nobody has, too many requests, a path that is none), \
         the answer is `{{\"message\": …}}`.\n\n\
         | code | status | meaning |\n|---|---|---|\n",
        attestation::limits()
    );
    for (code, status, meaning) in CODES {
        let _ = writeln!(text, "| `{code}` | {status} | {meaning} |");
    }
    for code in REFUSED {
        let (status, meaning) = self::code(code);
        let _ = writeln!(text, "| `{code}` | {status} | {meaning} |");
    }
    text
}

/// `tokens` of `/v1/tokens/{token}`.
fn tag(path: &str) -> &str {
    path.split('/').nth(2).unwrap_or_default()
}

fn written(
    operation: &Operation,
    route: &Route,
    requests: &mut SchemaGenerator,
    answers: &mut SchemaGenerator,
) -> Value {
    let (_, path) = route.route.split_once(' ').expect("a method and a path");
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
    }
    if !about.is_empty() {
        written["description"] = about.into();
    }
    if !parameters.is_empty() {
        written["parameters"] = parameters.into();
    }
    if let Some(Body { schema, required }) = &operation.body {
        written["requestBody"] = json!({
            "required": required,
            "content": { "application/json": { "schema": schema(requests).to_value() } },
        });
    }
    written
}

/// What stands in a path.
fn parameter(name: &str, path: &str) -> Value {
    let digest = json!({ "type": "string", "pattern": "^(sha256:)?[0-9A-Fa-f]{64}$" });
    let (description, schema) = match name {
        "digest" => ("`sha256:` and 64 hexadecimal digits", digest),
        "registration" | "token" if !path.contains("/intake/") => {
            ("Its name or its id", json!({ "type": "string" }))
        }
        "token" => (
            "The intake's token, which is a secret",
            json!({ "type": "string", "format": "password" }),
        ),
        "intake" => ("Its name", json!({ "type": "string" })),
        _ => ("Its id", json!({ "type": "string" })),
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
fn problems(
    operation: &Operation,
    route: &Route,
    responses: &mut Value,
    shared: &mut Map<String, Value>,
) {
    let mut codes = operation.codes.clone();
    if !route.action.is_open() {
        codes.extend(["unauthorized", "expired"]);
        if Role::ALL.iter().any(|role| !role.may(route.action)) {
            codes.push("forbidden");
        }
    }
    codes.sort_unstable();
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
            401 => "no token",
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

/// One workflow, in a query.
pub(super) const WORKFLOW: &str = "A workflow: `project/name`, or its name alone with `project`.";
pub(super) const PROJECT: &str = "The workflow's project.";

/// A text that is not empty, as a query has it.
pub(super) fn text() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": 512 })
}

impl Action {
    /// Whether the gateway lets everybody through.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Forward | Self::Open)
    }
}
