//! Audit and roles: every route over memory, held against what it declares of the audit log and
//! against what `docs/operations.md` grants to each role.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::time::Duration;

use api::deliveries::{AttemptOutcome, State};
use api::jobs::JobKind;
use api::places::Presence;
use api::trust::{Mode, Policy};
use api::workflows::{Selector, Workflow};
use api::{Action, Actor, Client, Kind, Role};
use attestation::{Digest, Metadata, Predicate, compose};
use aws::event::{DeliveryEvent, GatewayEvent};
use bytes::Bytes;
use memory::Memory;
use pipeline::Platform;
use pipeline::config::check::{self, Previewed};
use pipeline::config::{self, attach, intakes, issuers, register, tokens, trust};
use pipeline::engine::accept::{self, Accepted};
use pipeline::engine::{deliveries, operations, pauses};
use pipeline::http::openapi::Operation;
use pipeline::http::{Audited, Request, Route};
use pipeline::records::audit_log::{Act, entries};
use pipeline::records::{attestations, jobs};
use pipeline::store::rows::{self, AuditEntry, Row};
use serde_json::{Value, json};

use crate::artifacts::attested;
use crate::asking::{answer_on, request, routes};
use crate::contract::root;
use crate::world::{ORGANIZATION, SBOM, act, inputs, scope, tests};

const ADDRESS: &str = "192.0.2.10";
const AGENT: &str = "canary-agent/1.0";
const SECRET: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";

fn memory() -> Memory {
    Memory::new(|_, _, event| {
        let answer = match serde_json::from_value(event).unwrap() {
            DeliveryEvent::Check(_) => json!(check::Verdict::Works {
                warnings: Vec::new(),
            }),
            DeliveryEvent::Preview(_) => json!(Previewed::Nothing("it was made to".into())),
            DeliveryEvent::Presence(_) => json!(Presence::THERE),
            DeliveryEvent::Records(_) => panic!("only a queue hands over records"),
        };
        Box::pin(ready(Ok(answer)))
    })
}

/// An attestation that says so of its workflow.
pub fn from(workflow: &Workflow, run: &str) -> attestation::Envelope {
    let predicate = Predicate {
        metadata: Metadata {
            name: workflow.name.clone(),
            workflow_name: workflow.name.clone(),
            project: workflow.project.clone(),
            workflow_id: workflow.id.clone(),
            workflow_run_id: run.into(),
            ..Metadata::default()
        },
        build_type: "chainloop.dev/workflowrun/v0.1".into(),
        ..Predicate::default()
    };
    compose::envelope(compose::statement(&predicate, &[]), "", |bytes| {
        bytes[..32].to_vec()
    })
}

fn workflow(id: &str, project: &str, name: &str) -> Workflow {
    Workflow {
        id: id.into(),
        project: project.into(),
        name: name.into(),
    }
}

async fn push(
    memory: &Memory,
    envelope: &attestation::Envelope,
) -> Result<Accepted, accept::Error> {
    let bytes = Bytes::from(envelope.compact());
    accept::pushed(scope(memory), bytes, None, tests()).await
}

async fn attach(memory: &Memory, registration: &str, selector: &str) -> rows::Attachment {
    let wanted = attach::NewAttachment {
        registration: registration.to_owned(),
        workflow: api::workflows::selector(selector, None).unwrap(),
        inputs: inputs(json!({ "filter": "annotation.canary-filter=1" })),
        wait_secs: None,
        id: None,
        allow_duplicate: true,
    };
    let attached = attach::attach(scope(memory), wanted, act()).await;
    attached.unwrap().0.row
}

/// Something for each route to be about.
struct Scene {
    memory: Memory,
    /// The values of the routes' parameters.
    path: BTreeMap<String, String>,
    attestation: Digest,
    /// Text of the token `canary-token`.
    token: String,
}

impl Scene {
    async fn new() -> Self {
        let memory = memory();
        let wanted = register::NewRegistration {
            integration: "webhook".into(),
            name: "canary-hook".into(),
            description: "canary-description".into(),
            inputs: inputs(json!({ "url": "https://canary-host.example.org/x", "secret": SECRET })),
            id: None,
        };
        let hook = register::register(scope(&memory), wanted, act()).await;
        let hook = hook.unwrap().0.row;
        let attachment = attach(&memory, "canary-hook", "shop/*").await;
        let envelope = from(&workflow("", "shop", "nightly"), "1");
        let pusher = Actor {
            client: Client::new("198.51.100.7", AGENT),
            ..Actor::named("canary-pusher")
        };
        let bytes = Bytes::from(envelope.compact());
        let accepted = accept::pushed(scope(&memory), bytes, None, &pusher).await;
        let accepted = accepted.unwrap();
        let (delivery, _) = accepted.plan.deliveries().next().unwrap();
        let sbom = Digest::of(SBOM);
        memory
            .put_object(&ORGANIZATION, &sbom, Bytes::from_static(SBOM))
            .await
            .unwrap();
        let wanted = intakes::NewIntake {
            name: "canary-intake".into(),
            ..intakes::NewIntake::default()
        };
        let intake = intakes::create(scope(&memory), wanted, act()).await;
        let wanted = tokens::NewToken {
            name: "canary-token".into(),
            role: Role::Producer,
            workflows: Vec::new(),
            valid_for: None,
        };
        let by = tokens::By {
            act: act(),
            role: Role::Admin,
        };
        let token = tokens::create(scope(&memory), wanted, by).await.unwrap();
        let wanted = json!({
            "name": "canary-issuer", "issuer": "https://ci.example.org", "audience": "https://api.example.org",
            "rules": [{ "claims": { "project": { "exact": "shop" } }, "role": "producer" }],
        });
        let wanted = serde_json::from_value(wanted).unwrap();
        let issuer = issuers::create(scope(&memory), wanted, None, act()).await;
        issuer.unwrap();
        let wanted = trust::NewTrustPolicy {
            name: "canary-policy".into(),
            workflow: api::workflows::selector("other/*", None).unwrap(),
            policy: Policy {
                mode: Mode::Off,
                threshold: 1,
                signers: Vec::new(),
            },
            id: None,
        };
        let policy = trust::create(scope(&memory), wanted, act()).await;
        policy.unwrap();
        let work = JobKind::Backfill {
            attachment: attachment.id.clone(),
            since: None,
            until: memory.now(),
        };
        let job = jobs::new(scope(&memory), work, 1, "canary-operator");
        let attempt = rows::Attempt {
            organization: ORGANIZATION.clone(),
            delivery: delivery.clone(),
            number: 1,
            report: rows::Report {
                ending: AttemptOutcome::Retryable,
                started_at: memory.now(),
                duration_ms: 5,
                status: Some(503),
                sent_bytes: Some(9),
                detail: Some("post: answered 503".into()),
                answer: Some("canary-answer".into()),
                owner: "function".into(),
            },
            created_at: memory.now(),
        };
        let writes = vec![put(&memory, &job), put(&memory, &attempt)];
        memory.write(writes).await.unwrap();
        let path = [
            ("registration", "canary-hook"),
            ("attachment", &attachment.id),
            ("delivery", &delivery),
            ("job", &job.id),
            ("intake", "canary-intake"),
            ("policy", "canary-policy"),
            ("issuer", "canary-issuer"),
            ("id", "webhook"),
        ];
        let path = path.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut path = BTreeMap::from(path);
        path.insert("token".into(), intake.unwrap().token);
        assert_eq!(hook.created_by, "tests");
        Self {
            memory,
            path,
            attestation: accepted.attestation.hash,
            token: token.text,
        }
    }

    fn request(&self, route: &Route<Memory, Operation>, role: Role) -> Request {
        let (attestation, sbom) = (self.attestation, Digest::of(SBOM));
        let another = from(&workflow("", "shop", "nightly"), "2");
        let body = match route.name().as_str() {
            "POST /v1/attestations" => serde_json::from_slice(&another.compact()).unwrap(),
            "POST /v1/intake/{token}" => attested(&another),
            "PUT /v1/materials/{digest}" => json!({ "size_bytes": SBOM.len() }),
            "POST /v1/registrations" => json!({
                "integration": "webhook", "name": "other",
                "inputs": { "url": "https://hooks.example.org/x" },
            }),
            "PATCH /v1/registrations/{registration}" => json!({ "description": "other" }),
            "POST /v1/registrations/{registration}/rotate" => {
                json!({ "inputs": { "url": "https://hooks.example.org/y", "secret": SECRET } })
            }
            "POST /v1/attachments" => {
                json!({ "registration": "canary-hook", "workflow": "shop/weekly" })
            }
            "PATCH /v1/attachments/{attachment}" => json!({ "wait_secs": 90 }),
            "POST /v1/attachments/{attachment}/preview" => json!({ "attestation": attestation }),
            "POST /v1/tokens" => json!({ "name": "other", "role": "viewer" }),
            "POST /v1/tokens/exchange" => json!({ "token": self.token }),
            "POST /v1/issuers" => json!({
                "name": "other", "issuer": "https://other.example.org", "audience": "https://api.example.org",
                "rules": [{ "claims": { "ref": { "glob": "refs/heads/*" } }, "role": "viewer" }],
            }),
            "POST /v1/intakes" => json!({ "name": "other" }),
            "POST /v1/trust-policies" => {
                json!({ "name": "other", "workflow": "shop/weekly", "mode": "off" })
            }
            "PUT /v1/trust-policies/{policy}" => json!({ "mode": "off", "threshold": 2 }),
            "POST /v1/attestations/judge" => json!({
                "workflow": "shop/*",
                "signers": [{
                    "kind": "keyless", "name": "ci", "issuer": "https://issuer.example.org",
                    "identity": { "exact": "dev@example.org" },
                }],
            }),
            _ => json!({}),
        };
        let mut path = self.path.clone();
        if route.path.contains("/tokens/{token}") {
            path.insert("token".into(), "canary-token".into());
        }
        let digest = match route.path.contains("/materials/") {
            true => sbom,
            false => attestation,
        };
        path.insert("digest".into(), digest.to_string());
        let path: Vec<(&str, &str)> = path
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        Request {
            client: Client::new(ADDRESS, AGENT),
            ..request(role, &route.name(), &path, &[], &body)
        }
    }

    async fn entries(&self) -> Vec<AuditEntry> {
        let page = entries(scope(&self.memory), self.memory.now(), None, 1_000);
        page.await.unwrap().0
    }
}

fn put<R: Row>(memory: &Memory, row: &R) -> pipeline::store::platform::Write {
    rows::insert(memory, row).0
}

/// A scene in which the route has something to do.
async fn scene(route: &Route<Memory, Operation>) -> Scene {
    let scene = Scene::new().await;
    if route.path.ends_with("/resume") {
        let paused = pauses::pause(scope(&scene.memory), "canary-hook", "moves", None);
        paused.await.unwrap();
    }
    if route.path.ends_with("/check") {
        let delivery = scene.path["delivery"].as_str().into();
        let stored = operations::find(scope(&scene.memory), &delivery).await;
        let mut stored = stored.unwrap();
        (stored.row.state, stored.row.wake_at) = (State::Delivered, None);
        let written = scene.memory.write(vec![stored.update(&scene.memory).0]);
        written.await.unwrap();
    }
    if route.path.ends_with("/receipt") {
        let delivery = scene.path["delivery"].as_str().into();
        let cancelled = operations::cancel(scope(&scene.memory), &delivery, act());
        cancelled.await.unwrap();
    }
    scene
}

#[tokio::test]
async fn every_route_leaves_the_entry_that_it_declares_and_a_repeat_leaves_none() {
    let mut actions = BTreeSet::new();
    for route in routes() {
        let scene = scene(route).await;
        let before = scene.entries().await;
        let mut request = scene.request(route, Role::Admin);
        request
            .headers
            .insert("idempotency-key".into(), "key-1".into());
        let first = answer_on(&scene.memory, &request).await;
        let name = route.name();
        assert!(first.status < 300, "{name}: {}", first.body);
        let mut told = scene.entries().await;
        told.retain(|entry| !before.contains(entry));
        match route.audited {
            Audited::Not(why) => {
                assert!(why.len() > 20, "{name} says why");
                assert_eq!(told, [], "{name}");
            }
            Audited::As(action) => {
                assert!(actions.insert(action), "{action} is another route's");
                assert_eq!(told.len(), 1, "{name}: {told:?}");
                holds(&name, action, &told[0]);
            }
        }
        // Made again by its key, or known by what it says.
        if route.is_keyed || name.starts_with("PUT") || name.ends_with("/pause") {
            let many = scene.entries().await.len();
            answer_on(&scene.memory, &request).await;
            assert_eq!(scene.entries().await.len(), many, "{name}, again");
        }
        if name.starts_with("PATCH") {
            let many = scene.entries().await.len();
            request.headers.remove("idempotency-key");
            let again = answer_on(&scene.memory, &request).await;
            assert_eq!(again.status, 200, "{}", again.body);
            assert_eq!(scene.entries().await.len(), many, "{name}, unchanged");
        }
    }
    assert!(actions.len() > 20, "{actions:?}");
}

/// An entry says what it is about in words.
fn holds(route: &str, action: &str, entry: &AuditEntry) {
    assert_eq!(entry.action, action, "{route}");
    match action {
        // By whom it is exchanged for.
        "token.exchange" => assert_eq!(entry.by, "canary-token"),
        _ => assert_eq!(
            (entry.by.as_str(), entry.token.as_str()),
            ("tests", "token-1")
        ),
    }
    assert_eq!(
        (
            entry.client.address.as_str(),
            entry.client.user_agent.as_str()
        ),
        (ADDRESS, AGENT)
    );
    assert!(!entry.subject.is_empty(), "{route}");
    for text in [&entry.subject, &entry.detail] {
        let is_id = text
            .split([' ', ','])
            .any(|word| api::workflows::workflow_id(word).is_some());
        assert!(!is_id && !text.contains(['{', '"']), "{route}: {text}");
        assert!(!text.contains(SECRET), "{route}: {text}");
    }
}

/// Every row that is no entry, no counter, and neither a token's pace nor its use, as it is.
fn state(memory: &Memory) -> BTreeMap<String, Value> {
    let rows = memory.rows().into_iter();
    let beside = ["audit/", "usage/", "used/"];
    let is_beside =
        |of: &str| of.ends_with("/checks") || beside.iter().any(|prefix| of.starts_with(prefix));
    let rows = rows.filter(|key| !is_beside(&key.partition));
    rows.map(|key| {
        let etag = memory.look(&key, |item| item["etag"].clone());
        (
            format!("{} {}", key.partition, key.sort),
            etag.unwrap_or_default(),
        )
    })
    .collect()
}

#[tokio::test]
async fn a_change_and_its_entry_are_written_together() {
    for route in routes() {
        let Audited::As(action) = route.audited else {
            continue;
        };
        // Cut off at each of its writes, and then at none.
        for writes in 0.. {
            assert!(writes < 20, "{action}: does it end at all?");
            let scene = scene(route).await;
            let (rows, before) = (state(&scene.memory), scene.entries().await.len());
            let request = scene.request(route, Role::Admin);
            scene.memory.fail_writes_after.set(Some(writes));
            let cut_off = answer_on(&scene.memory, &request).await;
            let left = scene.memory.fail_writes_after.replace(None);
            let told = scene.entries().await.len() - before;
            let now = state(&scene.memory);
            let is_changed = match is_change(action) {
                true => now != rows,
                false => now
                    .keys()
                    .any(|key| !rows.contains_key(key) && is_made_by(action, key)),
            };
            let is_done = cut_off.status < 300;
            assert_eq!(
                told == 1,
                is_changed || is_done,
                "{action}, cut off after {writes} writes: {told} entries"
            );
            if left.is_some_and(|left| left > 0) {
                assert!(is_done, "{action}: {}", cut_off.body);
                break;
            }
        }
    }
}

/// Reports whether the action creates a row with this key.
fn is_made_by(action: &str, key: &str) -> bool {
    let sort = match action {
        "registration.create" => " registration",
        "attachment.create" | "registration.test" => " attachment",
        "attachment.backfill" | "delivery.redeliver-all" | "delivery.audit" => " job/",
        "token.create" | "token.exchange" => " token",
        "issuer.create" => "issuers/acme ",
        "intake.create" => " intake",
        "trust-policy.create" => "trust/acme ",
        other => panic!("{other} makes something: say here what"),
    };
    key.contains(sort)
}

/// Reports whether the action changes or removes existing rows.
fn is_change(action: &str) -> bool {
    let makes = [
        "create",
        "exchange",
        "test",
        "backfill",
        "redeliver-all",
        "audit",
    ];
    !makes.iter().any(|end| action.ends_with(end))
}

/// Grants of `docs/operations.md`, route by route.
fn is_granted(role: Role, route: &str) -> bool {
    let by_producers = [
        "GET /v1/organization",
        "GET /v1/integrations",
        "GET /v1/integrations/{id}",
        "POST /v1/attestations",
        "PUT /v1/materials/{digest}",
        "GET /v1/attestations/{digest}",
        "GET /v1/deliveries",
        "GET /v1/deliveries/{delivery}",
        "GET /v1/receipt-key",
    ];
    let by_anybody = [
        "GET /v1/openapi.json",
        "GET /v1/health",
        "POST /v1/intake/{token}",
        "POST /v1/tokens/exchange",
    ];
    let by_admins = [
        "POST /v1/tokens",
        "POST /v1/tokens/{token}/rotate",
        "DELETE /v1/tokens/{token}",
        "POST /v1/trust-policies",
        "PUT /v1/trust-policies/{policy}",
        "DELETE /v1/trust-policies/{policy}",
        "POST /v1/attestations/judge",
        "POST /v1/issuers",
        "DELETE /v1/issuers/{issuer}",
    ];
    let reads = route.starts_with("GET ") || route.ends_with("/preview");
    by_anybody.contains(&route)
        || match role {
            Role::Admin => true,
            Role::Operator => !by_admins.contains(&route),
            Role::Viewer => reads,
            Role::Producer => by_producers.contains(&route),
        }
}

#[tokio::test]
async fn every_role_may_what_the_operations_page_grants_and_nothing_else() {
    for route in routes() {
        for role in Role::ALL {
            let scene = scene(route).await;
            let mut request = scene.request(route, role);
            if route.name() == "GET /v1/deliveries" {
                let digest = scene.attestation.to_string();
                request.query.insert("attestation".into(), digest);
            }
            let many = scene.entries().await.len();
            let status = answer_on(&scene.memory, &request).await.status;
            let granted = is_granted(role, &route.name());
            assert_eq!(status < 300, granted, "{role} {}: {status}", route.name());
            if !granted {
                assert_eq!(status, 403, "{role} {}", route.name());
                assert_eq!(
                    scene.entries().await.len(),
                    many,
                    "a refusal leaves no entry"
                );
            }
        }
    }
}

/// The status and the code of an answer to a token that is restricted to workflows other than the scene's, where the page
/// grants its role the route; and the number of a list's items.
fn answer_of_others(route: &str) -> (u16, Option<&'static str>, Option<usize>) {
    match route {
        "GET /v1/organization"
        | "GET /v1/integrations"
        | "GET /v1/integrations/{id}"
        | "PUT /v1/materials/{digest}" => (200, None, None),
        "GET /v1/attestations" | "GET /v1/deliveries" | "GET /v1/workflows" => (200, None, Some(0)),
        "POST /v1/attestations" => (403, Some("workflow-not-allowed"), None),
        "GET /v1/attestations/{digest}"
        | "GET /v1/attestations/{digest}/content"
        | "GET /v1/deliveries/{delivery}"
        | "GET /v1/digests/{digest}/places" => (404, Some("not-found"), None),
        _ => (403, Some("token-restricted"), None),
    }
}

#[tokio::test]
async fn a_restricted_token_may_what_concerns_its_workflows_and_nothing_else() {
    for route in routes().filter(|route| !route.action.is_open()) {
        let name = route.name();
        for (role, workflow) in [Role::Producer, Role::Viewer]
            .into_iter()
            .flat_map(|role| ["shop/*", "other/*"].map(|workflow| (role, workflow)))
        {
            let scene = scene(route).await;
            let mut request = scene.request(route, role);
            request.caller.as_mut().unwrap().workflows = vec![Selector(workflow.into())];
            if name == "GET /v1/deliveries" {
                let digest = scene.attestation.to_string();
                request.query.insert("attestation".into(), digest);
            }
            let before = (state(&scene.memory), scene.entries().await.len());
            let answer = answer_on(&scene.memory, &request).await;
            let code = answer.body["code"].as_str();
            let of_others = answer_of_others(&name);
            let told = format!("{role} of {workflow}, {name}: {}", answer.body);
            if !is_granted(role, &name) {
                assert_eq!((answer.status, code), (403, Some("forbidden")), "{told}");
            } else if workflow == "other/*" || of_others.1 == Some("token-restricted") {
                assert_eq!((answer.status, code), (of_others.0, of_others.1), "{told}");
                if let Some(items) = of_others.2 {
                    assert_eq!(answer.body["items"].as_array().map(Vec::len), Some(items));
                }
            } else {
                assert!(answer.status < 300, "{told}");
                if of_others.2.is_some() {
                    assert_eq!(answer.body["items"].as_array().map(Vec::len), Some(1));
                }
            }
            if answer.status >= 400 {
                let after = (state(&scene.memory), scene.entries().await.len());
                assert!(before == after, "a refusal changes nothing: {told}");
            }
        }
    }
}

#[tokio::test]
async fn a_restricted_token_reaches_by_id_and_by_names_what_it_is_restricted_to() {
    let scene = Scene::new().await;
    let push = async |restricted: &str, envelope: &attestation::Envelope, said: Option<&str>| {
        let route = routes().find(|route| route.name() == "POST /v1/attestations");
        let mut request = scene.request(route.unwrap(), Role::Producer);
        request.caller.as_mut().unwrap().workflows = vec![Selector(restricted.into())];
        request.body = envelope.compact().into();
        let said = said.map(|said| ("workflow".to_owned(), said.to_owned()));
        request.query.extend(said);
        let answer = answer_on(&scene.memory, &request).await;
        let code = answer.body["code"].as_str().map(str::to_owned);
        (answer.status, code)
    };
    let refused = (403, Some("workflow-not-allowed".to_owned()));
    attach(&scene.memory, "canary-hook", ID).await;
    let both = from(&workflow(ID, "shop", "nightly"), "3");
    assert_eq!(push(&ID.to_lowercase(), &both, None).await, refused);
    assert_eq!(push("shop/*", &both, None).await, refused);
    assert_eq!(push("*", &both, None).await, (202, None));
    // Bytes that name no workflow are of the first that somebody names.
    let bare = from(&Workflow::default(), "4");
    let first = push("shop/*", &bare, Some("shop/nightly")).await;
    assert_eq!(first, (202, None));
    let other = push("other/*", &bare, Some("other/nightly")).await;
    assert_eq!(other, refused, "it is told nothing of where they go");
    // Whoever may know is told, and nobody's evidence goes elsewhere in silence.
    let before = state(&scene.memory);
    let other = push("*", &bare, Some("other/nightly")).await;
    assert_eq!(other, (422, Some("workflow-other".to_owned())));
    assert!(before == state(&scene.memory), "a refusal changes nothing");
    let again = push("*", &bare, Some("shop/nightly")).await;
    assert_eq!(again, (202, None));
}

/// All that a role can be told, by every route and with every filter of the lists.
async fn told(scene: &Scene, role: Role) -> String {
    let mut told = String::new();
    let digest = scene.attestation.to_string();
    for route in routes().filter(|route| route.action != Action::Open) {
        if route.method != "GET" {
            continue;
        }
        for (name, value) in [
            ("", ""),
            ("attestation", digest.as_str()),
            ("registration", "canary-hook"),
            ("workflow", "shop/nightly"),
            ("state", "pending"),
        ] {
            let mut request = scene.request(route, role);
            if !name.is_empty() {
                request.query.insert(name.into(), value.into());
            }
            let response = answer_on(&scene.memory, &request).await;
            told.push_str(&response.body.to_string());
        }
    }
    told
}

const CANARIES: [&str; 11] = [
    "canary-hook",
    "canary-description",
    "canary-filter",
    "canary-intake",
    "canary-token",
    "canary-operator",
    "canary-pusher",
    AGENT,
    "198.51.100.7",
    "canary-answer",
    "shop/*",
];

#[tokio::test]
async fn a_producer_is_told_nothing_of_others_or_of_the_configuration_or_of_third_parties() {
    let scene = Scene::new().await;
    let producer = told(&scene, Role::Producer).await;
    let viewer = told(&scene, Role::Viewer).await;
    assert!(producer.contains("post: answered 503"), "{producer}");
    for canary in CANARIES {
        assert!(viewer.contains(canary), "{canary} is nowhere to be seen");
        assert!(!producer.contains(canary), "{canary}: {producer}");
    }
    for secret in [SECRET, "canary-host.example.org/x", "cli_", "clin_"] {
        assert!(!viewer.contains(secret), "{secret}");
    }
}

/// Asks as an admin of another organization, with the names, IDs and digests of this one.
#[tokio::test]
async fn no_route_shows_or_changes_anything_of_another_organization() {
    // The list of integrations is everybody's, and bytes that are not there are to be uploaded.
    let of_all = ["GET /v1/integrations/{id}", "PUT /v1/materials/{digest}"];
    for route in routes().filter(|route| !route.action.is_open()) {
        let scene = scene(route).await;
        let (name, before) = (route.name(), state(&scene.memory));
        let mut request = scene.request(route, Role::Admin);
        request.client = Client::default();
        request.caller.as_mut().unwrap().organization = "stranger".into();
        let answer = answer_on(&scene.memory, &request).await;
        let told = answer.body.to_string();
        if name.contains('{') && !of_all.contains(&name.as_str()) {
            assert_eq!(answer.status, 404, "{name}: {told}");
        }
        // A refusal repeats the name that was asked for.
        if answer.status < 300 {
            assert!(!told.contains("canary"), "{name}: {told}");
        }
        let now = state(&scene.memory);
        for (key, etag) in &before {
            assert_eq!(now.get(key), Some(etag), "{name}: {key}");
        }
        for key in now.keys().filter(|key| !before.contains_key(*key)) {
            assert!(!key.contains("acme"), "{name}: {key}");
        }
    }
}

#[tokio::test]
async fn a_producer_lists_the_deliveries_of_an_attestation_that_it_names_and_no_others() {
    let scene = Scene::new().await;
    let ask = async |role: Role, query: &[(&str, &str)]| {
        let route = routes().find(|route| route.name() == "GET /v1/deliveries");
        let mut request = scene.request(route.unwrap(), role);
        let query = query.iter();
        request.query = query
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let answer = answer_on(&scene.memory, &request).await;
        (answer.status, answer.body["items"].as_array().map(Vec::len))
    };
    let digest = scene.attestation.to_string();
    for query in [
        &[][..],
        &[("state", "pending")],
        &[("registration", "canary-hook")],
        &[("registration", "no-such")],
        &[("workflow", "shop/nightly")],
        &[
            ("attestation", digest.as_str()),
            ("workflow", "shop/nightly"),
        ],
    ] {
        let (status, items) = ask(Role::Producer, query).await;
        assert!(matches!(status, 403 | 422) && items.is_none(), "{query:?}");
    }
    let own = [("attestation", digest.as_str())];
    assert_eq!(ask(Role::Producer, &own).await, (200, Some(1)));
    assert_eq!(ask(Role::Viewer, &[]).await, (200, Some(1)));
}

#[tokio::test]
async fn an_attestation_says_who_sent_it_first_and_from_where() {
    let scene = Scene::new().await;
    let asked = async |route: &str| {
        let route = routes().find(|one| one.name() == route).unwrap();
        let answer = answer_on(&scene.memory, &scene.request(route, Role::Admin)).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        let digest: Digest = serde_json::from_value(answer.body["attestation"].clone()).unwrap();
        let found = attestations::find(scope(&scene.memory), &digest).await;
        found.unwrap().unwrap().pushed_by.unwrap()
    };
    let by_intake = asked("POST /v1/intake/{token}").await;
    let (kind, name) = (by_intake.kind, by_intake.name.as_str());
    assert_eq!((kind, name), (Kind::Intake, "canary-intake"));
    assert_eq!(by_intake.client, Client::new(ADDRESS, AGENT));
    // The same by another: it is known already.
    assert_eq!(asked("POST /v1/attestations").await, by_intake);
    let scene = Scene::new().await;
    let route = routes().find(|one| one.name() == "POST /v1/attestations");
    let request = scene.request(route.unwrap(), Role::Producer);
    let answer = answer_on(&scene.memory, &request).await;
    let digest = answer.body["attestation"].as_str().unwrap().to_owned();
    let key = rows::Attestation::at(&ORGANIZATION, &digest.parse().unwrap());
    let stored = rows::load::<rows::Attestation>(&scene.memory, &key).await;
    let wanted = Actor {
        client: Client::new(ADDRESS, AGENT),
        ..tests().clone()
    };
    assert_eq!(stored.unwrap().unwrap().row.pushed_by, Some(wanted));
}

#[test]
fn an_address_is_what_the_gateway_saw_and_not_what_a_header_says() {
    let text = std::fs::read_to_string(root().join("events/attestations/push.json")).unwrap();
    let mut event: Value = serde_json::from_str(&text).unwrap();
    for name in ["x-forwarded-for", "x-real-ip", "forwarded", "user-agent"] {
        event["headers"][name] = json!("203.0.113.66, 192.0.2.1");
    }
    event["requestContext"]["http"]["sourceIp"] = json!("198.51.100.7");
    event["requestContext"]["http"]["userAgent"] = json!("curl/8\u{1b}[2J\n");
    let request = serde_json::from_value::<GatewayEvent>(event.clone()).unwrap();
    assert_eq!(
        request.request().client,
        Client::new("198.51.100.7", "curl/8?[2J?")
    );
    // A gateway that says nothing of it.
    event["requestContext"]
        .as_object_mut()
        .unwrap()
        .remove("http");
    let request = serde_json::from_value::<GatewayEvent>(event).unwrap();
    assert_eq!(request.request().client, Client::default());
}

#[tokio::test]
async fn an_entry_is_told_by_the_api_with_its_subject_and_from_where() {
    let scene = Scene::new().await;
    let by = Actor {
        client: Client::new(ADDRESS, AGENT),
        ..tests().clone()
    };
    let act = Act {
        actor: &by,
        action: "registration.delete",
    };
    scene.memory.advance(Duration::from_millis(1));
    let any = config::Precondition::default();
    register::delete(scope(&scene.memory), "canary-hook", &any, act)
        .await
        .unwrap();
    let route = routes().find(|one| one.name() == "GET /v1/audit-log");
    let answer = answer_on(&scene.memory, &scene.request(route.unwrap(), Role::Viewer)).await;
    let newest = &answer.body["items"][0];
    assert_eq!(newest["action"], "registration.delete");
    assert_eq!(newest["subject"], "canary-hook");
    assert_eq!(newest["detail"], "webhook, with its attachments");
    assert!(api::workflows::workflow_id(newest["subject_id"].as_str().unwrap()).is_some());
    assert_eq!(
        (&newest["by"], &newest["token"]),
        (&json!("tests"), &json!("token-1"))
    );
    assert_eq!(newest["address"], ADDRESS);
    assert_eq!(newest["user_agent"], AGENT);
}

const ID: &str = "6F0C1F0E-0000-4000-8000-000000000001";

#[tokio::test]
async fn an_id_or_a_project_that_could_be_a_selector_is_refused() {
    let memory = memory();
    register_hook(&memory).await;
    for selector in ["shop/nightly", "shop/*"] {
        attach(&memory, "hook", selector).await;
    }
    for (id, project, name) in [
        ("shop/nightly", "evil", "x"),
        ("shop/*", "evil", "x"),
        ("*", "evil", "x"),
        ("a\u{0}b", "evil", "x"),
        ("", "shop/nightly", "x"),
        ("", "*", "x"),
        ("", "shop\n", "x"),
        ("", "shop", "*"),
        ("", "shop", "night\u{1b}ly"),
    ] {
        let stated = workflow(id, project, name);
        let refused = push(&memory, &from(&stated, "1")).await;
        let is_malformed = matches!(refused, Err(accept::Error::WorkflowMalformed(_)));
        assert!(is_malformed, "{stated:?}: {refused:?}");
        // Beside an envelope that says nothing of it, too.
        let bare = from(&Workflow::default(), "1").compact();
        let refused =
            accept::forwarded(scope(&memory), bare.clone().into(), &stated, None, tests()).await;
        let is_malformed = matches!(refused, Err(accept::Error::WorkflowMalformed(_)));
        assert!(is_malformed, "{stated:?}: {refused:?}");
        let refused = accept::pushed(scope(&memory), bare.into(), Some(&stated), tests()).await;
        assert!(refused.is_err(), "{stated:?}");
    }
    let body = from(&workflow("shop/nightly", "evil", "x"), "1").compact();
    let body = serde_json::from_slice(&body).unwrap();
    let asked = request(Role::Producer, "POST /v1/attestations", &[], &[], &body);
    let refused = answer_on(&memory, &asked).await;
    let told = (refused.status, refused.body["code"].as_str());
    assert_eq!(told, (422, Some("workflow-malformed")));
    let rows = memory.rows();
    assert!(!rows.iter().any(|key| key.sort == "delivery"));
}

#[tokio::test]
async fn a_sender_names_no_workflow_but_the_statements() {
    let memory = memory();
    let says = async |said: Workflow| {
        let bytes = from(&workflow(ID, "shop", "nightly"), "1").compact();
        accept::pushed(scope(&memory), bytes.into(), Some(&said), tests()).await
    };
    for (id, project, name) in [
        ("", "shop", "weekly"),
        ("", "mill", "nightly"),
        ("6f0c1f0e-0000-4000-8000-000000000002", "shop", "nightly"),
    ] {
        let refused = says(workflow(id, project, name)).await;
        let is_another = matches!(refused, Err(accept::Error::WorkflowOther { .. }));
        assert!(is_another, "{id} {project}/{name}: {refused:?}");
    }
    let accepted = says(workflow("", "shop", "nightly")).await.unwrap();
    assert_eq!(accepted.attestation.workflow.id, ID.to_lowercase());
}

async fn register_hook(memory: &Memory) {
    let wanted = register::NewRegistration {
        integration: "webhook".into(),
        name: "hook".into(),
        description: String::new(),
        inputs: inputs(json!({ "url": "https://hooks.example.org/x" })),
        id: None,
    };
    register::register(scope(memory), wanted, act())
        .await
        .unwrap();
}

#[tokio::test]
async fn an_id_that_is_no_uuid_is_as_none() {
    let memory = memory();
    let accepted = push(&memory, &from(&workflow("build-7", "shop", "nightly"), "1")).await;
    let accepted = accepted.unwrap();
    assert_eq!(
        accepted.attestation.workflow,
        workflow("", "shop", "nightly")
    );
    let nameless = push(&memory, &from(&workflow("build-7", "shop", ""), "1")).await;
    let is_missing = matches!(nameless, Err(accept::Error::WorkflowMissing));
    assert!(is_missing, "{nameless:?}");
    let accepted = push(&memory, &from(&workflow(ID, "", ""), "1"))
        .await
        .unwrap();
    assert_eq!(accepted.attestation.workflow.id, ID.to_lowercase());
}

#[tokio::test]
async fn a_delivery_says_by_which_selector_it_was_planned_and_so_do_its_repeats() {
    let memory = memory();
    register_hook(&memory).await;
    let selectors = [ID, "shop/nightly", "shop/*", "*"];
    let mut attached = BTreeMap::new();
    for selector in selectors {
        let row = attach(&memory, "hook", selector).await;
        attached.insert(row.id, row.workflow);
    }
    let envelope = from(&workflow(ID, "shop", "nightly"), "1");
    let accepted = push(&memory, &envelope).await.unwrap();
    let hash = accepted.attestation.hash;
    let selected = async || {
        let of = deliveries::Filter::Attestation(hash);
        let listed = deliveries::list(
            scope(&memory),
            of,
            &deliveries::Wanted::default(),
            None,
            100,
        )
        .await;
        let listed = listed.unwrap().0.into_iter();
        listed
            .map(|row| (row.attachment, row.selector))
            .collect::<Vec<_>>()
    };
    let found = selected().await;
    assert_eq!(found.len(), 4);
    for (attachment, selector) in found {
        assert_eq!(selector.as_ref(), Some(&attached[&attachment]));
    }
    // An attachment that is made later, and is backfilled; and what is delivered again.
    let late = attach(&memory, "hook", "shop/*").await;
    let work = JobKind::Backfill {
        attachment: late.id.clone(),
        since: None,
        until: memory.now(),
    };
    let job = jobs::new(scope(&memory), work, 50, "tests");
    memory.write(vec![put(&memory, &job)]).await.unwrap();
    let until = memory.now().plus(Duration::from_mins(1));
    pipeline::engine::reconcile::reconcile(&memory, until)
        .await
        .unwrap();
    let (id, _) = accepted.plan.deliveries().next().unwrap();
    pipeline::engine::operations::cancel(scope(&memory), &id, act())
        .await
        .unwrap();
    let cancelled = pipeline::engine::operations::find(scope(&memory), &id).await;
    let cancelled = cancelled.unwrap().row;
    pipeline::engine::operations::redeliver_for(&memory, &cancelled, None, act())
        .await
        .unwrap();
    let mut found = selected().await;
    assert_eq!(found.len(), 6);
    let backfilled = (late.id, Some(Selector("shop/*".into())));
    assert!(found.contains(&backfilled), "{found:?}");
    found.retain(|(attachment, _)| *attachment == cancelled.attachment);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], found[1]);
}

#[test]
fn a_selector_that_could_never_fit_is_refused_and_named() {
    for (workflow, project, field) in [
        ("*/nightly", None, "workflow"),
        ("shop/ni*", None, "workflow"),
        ("ni*", Some("shop"), "workflow"),
        ("*/*", None, "workflow"),
        ("nightly", Some("shop/x"), "project"),
        ("nightly", Some("*"), "project"),
        ("night\u{1b}ly", Some("shop"), "workflow"),
        ("nightly", Some("sh\u{0}op"), "project"),
    ] {
        let fault = api::workflows::selector(workflow, project).unwrap_err();
        assert_eq!(fault.field, field, "{workflow:?} {project:?}");
    }
    let simple = ID.replace('-', "");
    for (workflow, project, wanted) in [
        ("*", None, "*"),
        ("shop/*", None, "shop/*"),
        ("*", Some("shop"), "shop/*"),
        ("shop/a/b", None, "shop/a/b"),
        (
            simple.as_str(),
            None,
            "6f0c1f0e-0000-4000-8000-000000000001",
        ),
    ] {
        let selector = api::workflows::selector(workflow, project).unwrap();
        assert_eq!(selector.0, wanted);
    }
}
