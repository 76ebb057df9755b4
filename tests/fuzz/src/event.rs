//! Events that functions are woken by: messages of queues, and requests to the API.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use api::Timestamp;
use futures_util::FutureExt as _;
use integrations::http::Guard;
use integrations::webhook::Webhook;
use integrations::{Http, Integration};
use memory::Memory;
use pipeline::Platform as _;
use pipeline::engine::deliver::{self, Record, Tools};
use pipeline::engine::{fetch, reconcile};
use pipeline::http::{self, Route, functions};
use pipeline::ledger::message::{Message, Unreadable};
use serde_json::{Value, json};

use self::aws::{
    AuthorizerEvent, DeliveryEvent, FetchEvent, GatewayEvent, ReconcilerEvent, SqsRecord,
    authorize, console_answer, partial_batch,
};

// By itself: with the rest of that crate come the SDKs, which take longer to compile than all else.
#[path = "../../../shared/aws/src/event.rs"]
mod aws;

pub const MESSAGE_WORDS: &[&str] = &[
    "Records",
    "messageId",
    "body",
    "check",
    "preview",
    "v",
    "organization",
    "delivery",
    "attempt",
    "follow",
    "attestation",
    "intake",
    "acme",
    "registration",
    "attachment",
    "inputs",
    "{\"v\":1,\"organization\":\"acme\",\"delivery\":\"a\",\"attempt\":1}",
];

pub const WORDS: &[&str] = &[
    "rawPath",
    "queryStringParameters",
    "headers",
    "body",
    "isBase64Encoded",
    "requestContext",
    "authorizer",
    "lambda",
    "organization",
    "role",
    "admin",
    "operator",
    "producer",
    "viewer",
    "name",
    "token",
    "valid_until",
    "http",
    "method",
    "sourceIp",
    "GET",
    "POST",
    "PATCH",
    "DELETE",
    "PUT",
    "cursor",
    "limit",
    "state",
    "workflow",
    "project",
    "attestation",
    "registration",
    "digest",
    "if-match",
    "idempotency-key",
    "authorization",
    "Bearer cli_",
    "/console",
    "if-none-match",
    "/v1/registrations",
    "/v1/registrations/hook",
    "/v1/attachments",
    "/v1/attestations",
    "/v1/deliveries",
    "/v1/jobs",
    "/v1/tokens",
    "/v1/intakes",
    "/v1/intake/clin_",
    "/v1/trust-policies",
    "/v1/workflows",
    "/v1/audit-log",
    "/v1/integrations",
    "/v1/materials/",
    "/v1/organization",
    "%2F",
    "%00",
    "%zz",
    "..",
    "shop/nightly",
    "2026-01-02T03:04:05.678Z",
    "2026-01-02T03:04:05.678Z_a",
    "W/\"a\"",
    "\"a\"",
    "*",
    "9999-12-31T23:59:59.999Z",
    "+009999-12-31T23:59:59Z",
];

/// The largest answer that a function may give is 6 MB, to a request that is much larger than these.
const ANSWER_BYTES: usize = 1024 * 1024;

fn guard() -> Guard {
    Guard {
        allow_loopback: true,
        ..Guard::default()
    }
}

fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory keeps nobody waiting")
}

/// A message is taken or given back, and whoever is given back was handed over.
pub fn message(input: &[u8]) {
    if let Ok(text) = str::from_utf8(input) {
        match Message::parse(text) {
            Ok(message) => assert_eq!(Message::parse(&message.text()), Ok(message)),
            Err(Unreadable::Version(version)) => assert_ne!(version, Message::VERSION),
            Err(Unreadable::Malformed(_)) => {}
        }
        let body = Record {
            id: "only".to_owned(),
            body: text.to_owned(),
        };
        taken(&[body]);
    }
    match serde_json::from_slice(input) {
        Ok(DeliveryEvent::Records(records)) => {
            taken(&told(records));
        }
        Ok(DeliveryEvent::Check(asked)) => drop(asked),
        Ok(DeliveryEvent::Presence(asked)) => drop(asked),
        Ok(DeliveryEvent::Preview(asked)) => drop(asked),
        Err(_) => {}
    }
    if let Ok(FetchEvent { records }) = serde_json::from_slice(input) {
        taken(&told(records));
    }
    if let Ok(ReconcilerEvent {
        records: Some(records),
    }) = serde_json::from_slice(input)
    {
        taken(&told(records));
    }
}

fn told(records: Vec<SqsRecord>) -> Vec<Record> {
    records.into_iter().map(SqsRecord::record).collect()
}

fn taken(records: &[Record]) {
    static HTTP: LazyLock<Http> = LazyLock::new(|| Http::new(guard()));
    let ids: BTreeSet<String> = records.iter().map(|record| record.id.clone()).collect();
    let memory = Memory::default();
    let until = memory.now().plus(Duration::from_mins(10));
    let again = || {
        records
            .iter()
            .map(|one| Record {
                id: one.id.clone(),
                body: one.body.clone(),
            })
            .collect()
    };
    let tools = Tools::new(HTTP.clone());
    for back in [
        done(deliver::batch::<Webhook>(&memory, &tools, again(), until)),
        done(fetch::batch(&memory, &*HTTP, again(), until)),
        done(reconcile::dead_letters(&memory, again())),
    ] {
        assert!(back.iter().all(|id| ids.contains(id)), "{back:?}");
        let told = partial_batch(back.clone());
        assert_eq!(
            told["batchItemFailures"].as_array().map(Vec::len),
            Some(back.len())
        );
    }
}

static ROUTES: LazyLock<Vec<Route<Memory>>> = LazyLock::new(|| {
    let all = functions::all::<Memory, ()>().into_iter();
    all.flat_map(|(_, routes)| routes).collect()
});

/// An organization with something of each kind, by the API alone.
fn organization() -> Memory {
    let memory = Memory::default();
    let statement = include_bytes!("../../../shared/integrations/tests/files/statement.json");
    let attestation: Value =
        serde_json::from_slice(&crate::attestation::signed(statement.to_vec())).expect("JSON");
    let policy: Value = serde_json::from_str(include_str!(
        "../../../shared/verify/tests/files/signed/key.policy.json"
    ))
    .expect("JSON");
    for (path, body, status) in [
        (
            "/v1/registrations",
            json!({ "integration": Webhook::ID, "name": "hook", "inputs": { "url": "https://hooks.example.org/a" } }),
            201,
        ),
        (
            "/v1/attachments",
            json!({ "registration": "hook", "workflow": "*", "inputs": {} }),
            201,
        ),
        (
            "/v1/trust-policies",
            json!({ "name": "all", "workflow": "*", "mode": "warn", "threshold": 1, "signers": policy["signers"] }),
            201,
        ),
        ("/v1/attestations", attestation, 202),
    ] {
        let event = json!({
            "rawPath": path,
            "body": body.to_string(),
            "requestContext": {
                "authorizer": { "lambda": { "organization": "acme", "role": "admin", "name": "a" } },
                "http": { "method": "POST" },
            },
        });
        let event: GatewayEvent = serde_json::from_value(event).expect("an event");
        let answer = done(http::answer(&ROUTES, &memory, &event.request()));
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    memory
}

/// Each request has an answer: never one that says that we failed.
pub fn request(input: &[u8]) {
    if let Ok(event) = serde_json::from_slice::<AuthorizerEvent>(input) {
        let answer = done(authorize(&Memory::default(), &event)).expect("memory is reached");
        assert_eq!(answer["isAuthorized"], false);
    }
    let Ok(event) = serde_json::from_slice::<GatewayEvent>(input) else {
        return;
    };
    let request = event.request();
    let page = console_answer(&request);
    assert!([200, 304, 404].contains(&page["statusCode"].as_u64().unwrap_or_default()));
    assert!(page["headers"]["content-security-policy"].is_string());
    let memory = organization();
    let answer = done(http::answer(&ROUTES, &memory, &request));
    assert!((200..500).contains(&answer.status), "{}", answer.body);
    assert!(answer.body.to_string().len() <= ANSWER_BYTES);
    if answer.status >= 400 {
        assert!(
            answer.body["code"].is_string() && answer.body["detail"].is_string(),
            "{}",
            answer.body
        );
    }
    // Once more: what is there is read, and what was asked twice has an answer as well.
    let again = done(http::answer(&ROUTES, &memory, &request));
    assert!((200..500).contains(&again.status), "{}", again.body);
    let report = done(reconcile::reconcile(
        &memory,
        memory.now().plus(Duration::from_mins(1)),
    ));
    report.expect("memory is reached");
    assert!(memory.now() >= Timestamp::from_millis(0));
}
