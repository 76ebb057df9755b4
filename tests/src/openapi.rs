//! The API's description, `docs/openapi.json`: written from the routes and their types, held against both and
//! against what the sources say.

use std::collections::BTreeSet;
use std::fs;
use std::sync::LazyLock;

use api::{Code, REFUSED};
use memory::Memory;
use pipeline::http::Response;
use pipeline::http::openapi::document;
use serde_json::Value;

use crate::asking::routes;
use crate::contract::root;

/// The document as it follows from the code.
fn written() -> Value {
    document::<Memory>()
}

/// Fails where an answer is not described as one of its route's: its status, or what it holds.
pub fn is_described(route: &str, response: &Response) {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(written);
    let (method, path) = route.split_once(' ').unwrap();
    let mut described =
        &DOCUMENT["paths"][path][method.to_lowercase()]["responses"][response.status.to_string()];
    if let Some(shared) = described["$ref"].as_str() {
        described = DOCUMENT.pointer(&shared[1..]).unwrap();
    }
    let kind = if response.status < 400 {
        "application/json"
    } else {
        "application/problem+json"
    };
    let schema = &described["content"][kind]["schema"];
    assert!(
        schema.is_object(),
        "{route} is not described as answering {}: {}",
        response.status,
        response.body
    );
    let mut wrong = Vec::new();
    hold(&DOCUMENT, schema, &response.body, "", &mut wrong);
    assert!(
        wrong.is_empty(),
        "{route} answered {} otherwise than described: {wrong:?}\n{}",
        response.status,
        response.body
    );
}

/// Holds a value against a schema, as far as the description's own schemas go: a whole validator would have the SDKs
/// built anew with its features, and schemathesis brings one.
fn hold(document: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let list = |key: &str| schema[key].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(reference) = schema["$ref"].as_str() {
        let shared = document.pointer(&reference[1..]).unwrap();
        hold(document, shared, value, at, wrong);
    }
    for all in list("allOf") {
        hold(document, all, value, at, wrong);
    }
    for alternatives in [list("anyOf"), list("oneOf")] {
        let fits = |one: &Value| {
            let mut wrong = Vec::new();
            hold(document, one, value, at, &mut wrong);
            wrong.is_empty()
        };
        if !alternatives.is_empty() && !alternatives.iter().any(fits) {
            wrong.push(format!("{at}: {value} is none of the alternatives"));
        }
    }
    let is = |kind: &Value| match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other}"),
    };
    let fits = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(is),
        kind => is(kind),
    };
    let is_among = schema["enum"].is_null() || list("enum").contains(value);
    let is_that = schema["const"].is_null() || schema["const"] == *value;
    if !fits || !is_among || !is_that {
        wrong.push(format!("{at}: {value} is not as it should be"));
    }
    for name in list("required").iter().filter_map(Value::as_str) {
        if value.is_object() && value.get(name).is_none() {
            wrong.push(format!("{at}/{name}: is not there"));
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        match &schema["properties"][name] {
            // Only what says of itself that it knows all of its fields must.
            Value::Null if schema["additionalProperties"].is_object() => hold(
                document,
                &schema["additionalProperties"],
                value,
                &format!("{at}/{name}"),
                wrong,
            ),
            Value::Null => {}
            property => hold(document, property, value, &format!("{at}/{name}"), wrong),
        }
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        hold(
            document,
            &schema["items"],
            value,
            &format!("{at}/{index}"),
            wrong,
        );
    }
}

#[test]
fn the_description_is_that_of_the_routes_and_their_types() {
    let path = root().join("docs/openapi.json");
    let text = serde_json::to_string_pretty(&written()).unwrap() + "\n";
    if std::env::var_os("REFRESH").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == text,
        "docs/openapi.json is not what the routes and their types say; REFRESH=1 cargo test -p tests openapi writes \
         it anew (look at the difference before committing it)"
    );
}

#[test]
fn every_route_is_described_and_has_an_id_of_its_own() {
    let (all, ids): (Vec<String>, BTreeSet<&str>) = routes()
        .map(|route| (route.name(), route.description.id))
        .unzip();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    assert_eq!(ids.len(), all.len(), "an operation's id stands twice");
    assert!(!ids.contains(""), "call `operation` on each route");
}

#[test]
fn no_type_is_called_as_another_is() {
    let document = written();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let numbered: Vec<&String> = schemas
        .keys()
        .filter(|name| name.ends_with(|last: char| last.is_ascii_digit()))
        .collect();
    assert!(
        numbered.is_empty(),
        "{numbered:?}: two types have one name, give one of them another: #[schemars(rename = …)]"
    );
}

#[test]
fn the_codes_of_refused_attestations_are_those_of_their_errors() {
    let text = fs::read_to_string(root().join("shared/attestation/src/error.rs")).unwrap();
    let refused: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("Error::")?
                .split_once("=> \"")?
                .1
                .strip_suffix("\",")
        })
        .collect();
    assert_eq!(
        refused,
        REFUSED.iter().copied().collect(),
        "REFUSED in problem.rs has each of them"
    );
}

#[test]
fn every_code_is_some_routes() {
    let document = written();
    let text = format!(
        "{}{}",
        document["paths"], document["components"]["responses"]
    );
    let codes = Code::ALL.iter().map(|code| code.as_str());
    // The router answers one for paths that have routes, and the other instead of any answer.
    let others = [Code::MethodNotAllowed, Code::AnswerTooLarge].map(Code::as_str);
    let codes = codes.filter(|code| !others.contains(code));
    for code in codes.chain(REFUSED.iter().copied()) {
        assert!(
            text.contains(&format!("\"{code}\"")),
            "no route answers {code}: add it to its route's `refuses`, or delete it"
        );
    }
}

#[test]
fn every_list_has_a_limit_and_a_cursor() {
    let document = written();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let answer = &methods["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        let Some(name) = answer["$ref"]
            .as_str()
            .filter(|name| name.ends_with("Page"))
        else {
            continue;
        };
        let parameters = methods["get"]["parameters"].as_array().unwrap();
        for wanted in ["limit", "cursor"] {
            assert!(
                parameters.iter().any(|one| one["name"] == wanted),
                "{path}, which answers {name}, has no {wanted}"
            );
        }
    }
}
