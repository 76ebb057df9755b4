//! A Chainloop control plane as a source, over memory: what it posts is taken in, and what it names is fetched.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use api::deliveries::State;
use api::{Client, Role};
use attestation::{Digest, Material, MaterialType, Metadata, Predicate, compose};
use bytes::Bytes;
use integrations::webhook::Webhook;
use integrations::{Error, Integration};
use memory::Memory;
use pipeline::Platform;
use pipeline::config::intakes::Source;
use pipeline::config::quotas;
use pipeline::engine::accept::Accepted;
use pipeline::engine::fetch::{self, Coming, Message, Store};
use pipeline::engine::issuer_keys::Documents;
use pipeline::http::{self, Request, Response, functions};
use pipeline::ledger::schedule;
use pipeline::store::platform::Key;
use serde_json::{Value, json};

use crate::artifacts::{Artifacts, TOKEN, attested, forwarded};
use crate::asking::{answer, ask, request};
use crate::canary::Log;
use crate::roles::As;
use crate::world::{ORGANIZATION, SBOM, WORKFLOW, World, attestation, promised_sbom, scope};

const AUTHORITY: &str = include_str!("../peers/tls/authority.pem");

/// Actions of the operator and of Chainloop.
impl World {
    async fn operator(&self, role: Role, route: &str, name: &str, body: Value) -> Response {
        let path = [("intake", name)];
        let memory = &self.memory;
        ask(memory, role, route, &path, body).await
    }

    /// Makes an intake, and gives its token.
    pub async fn open(&self, new: Value) -> String {
        let route = "POST /v1/intakes";
        let made = self.operator(Role::Operator, route, "", new).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.body["token"].as_str().unwrap().to_owned()
    }

    pub async fn fetching(&self, artifacts: &Artifacts) -> String {
        let new = json!({ "name": "production", "cas_url": artifacts.url(), "cas_token": TOKEN });
        self.open(new).await
    }

    pub async fn post(&self, token: &str, body: &Value) -> Response {
        self.post_from("", token, body).await
    }

    async fn post_from(&self, address: &str, token: &str, body: &Value) -> Response {
        let (route, path) = ("POST /v1/intake/{token}", [("token", token)]);
        // A header says what anybody writes there.
        let headers = [("x-forwarded-for", "192.0.2.1")];
        // The gateway asks no authorizer here; a caller that it found anyway must not count.
        let mut request = request(Role::Admin, route, &path, &headers, body);
        request.client = Client::new(address, "");
        answer(&self.memory, &request).await
    }

    async fn rotate(&self, name: &str, body: Value) -> Response {
        let route = "POST /v1/intakes/{intake}/rotate";
        self.operator(Role::Operator, route, name, body).await
    }

    async fn listed(&self) -> Value {
        let (role, list) = (Role::Viewer, "GET /v1/intakes");
        let mut page = self.operator(role, list, "", json!(null)).await.body;
        page["items"][0].take()
    }

    /// Today's entries of refused posts: who is told to have posted from where, and why it was refused.
    async fn refusals(&self) -> Vec<(String, String, String)> {
        let now = self.memory.now();
        let entries = pipeline::records::audit_log::entries(scope(&self.memory), now, None, 1_000);
        let refusals = entries.await.unwrap().0.into_iter();
        let refusals = refusals.filter(|entry| entry.action == "intake.refuse");
        refusals
            .map(|entry| (entry.by, entry.client.address, entry.detail))
            .collect()
    }

    /// Hands what is visible now to the function that fetches.
    pub async fn fetch(&self) -> usize {
        let records = self.memory.receive(fetch::QUEUE, 10);
        let count = records.len();
        let until = self.memory.now().plus(Duration::from_mins(2));
        let role = As::function(&self.memory, "fetch-materials");
        let back = fetch::batch(&role, &self.tools.http, records, until).await;
        assert!(back.is_empty(), "{back:?}");
        count
    }

    async fn size(&self, digest: &Digest) -> Option<u64> {
        let size = self.memory.object_size(&ORGANIZATION, digest).await;
        size.unwrap()
    }

    /// One attestation in two forms and its SBOM are counted, however often they came.
    async fn used_once(&self, pushed: &Accepted) {
        let used = quotas::used(scope(&self.memory)).await.unwrap();
        assert_ne!(pushed.received, pushed.attestation.received);
        let other_form = self.size(&pushed.received).await.unwrap();
        let bytes = pushed.attestation.size_bytes + other_form + SBOM.len() as u64;
        assert_eq!((used.attestations, used.bytes), (1, bytes));
    }

    fn keys(&self) -> BTreeSet<Key> {
        let audit = |key: &Key| key.partition.starts_with("audit/");
        let rows = self.memory.rows().into_iter();
        rows.filter(|key| !audit(key)).collect()
    }
}

/// A world where the webhook is sent SBOMs as well, and an intake named `production`.
async fn ready() -> (World, String) {
    let world = World::new();
    world.register("hook").await.unwrap();
    world
        .attach_with("hook", json!({ "send_sbom": true }))
        .await;
    let token = world.open(json!({ "name": "production" })).await;
    (world, token)
}

fn kinds(world: &World) -> Vec<Value> {
    let deliveries = world.receiver.deliveries().into_iter();
    deliveries
        .map(|request| request.json()["Kind"].clone())
        .collect()
}

#[tokio::test]
async fn what_chainloop_posts_is_delivered_and_the_whole_sequence_again_changes_nothing() {
    let (world, token) = ready().await;
    let before = world.keys();
    let test = world.post(&token, &forwarded("TEST_WEBHOOK", b"{}")).await;
    assert_eq!(test.status, 200, "{}", test.body);
    let left: Vec<Key> = world.keys().difference(&before).cloned().collect();
    let use_of = |key: &Key| key.partition == "org/acme/intakes" && key.sort.starts_with("use/");
    assert!(
        left.len() == 1 && use_of(&left[0]),
        "a test leaves its time: {left:?}"
    );

    let envelope = attestation("1", vec![promised_sbom()]);
    let sequence = [attested(&envelope), forwarded("SBOM_CYCLONEDX_JSON", SBOM)];
    let accepted = world.post(&token, &sequence[0]).await;
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    assert_eq!(accepted.body["attestation"], json!(envelope.hash()));
    assert_eq!(accepted.body["missing"], json!([Digest::of(SBOM)]));
    world.deliver().await;
    assert!(kinds(&world).is_empty(), "it waits for the SBOM");
    let kept = world.post(&token, &sequence[1]).await;
    assert_eq!(kept.status, 200, "{}", kept.body);
    assert_eq!(kept.body["material"], json!(Digest::of(SBOM)));
    world.pass(Duration::from_mins(2)).await;
    assert_eq!(kinds(&world), ["ATTESTATION", "SBOM_CYCLONEDX_JSON"]);

    let (after, writes) = (world.keys(), world.memory.writes.get());
    for body in &sequence {
        let again = world.post(&token, body).await;
        assert!(again.status < 300, "{}", again.body);
    }
    assert_eq!(world.keys(), after);
    assert_eq!(world.memory.writes.get(), writes, "not a row is written");
    world.pass(Duration::from_hours(1)).await;
    assert_eq!(kinds(&world).len(), 2);
    let pushed = world.push(envelope.compact()).await.unwrap();
    world.audit(&pushed).await;
    world.used_once(&pushed).await;
}

#[tokio::test]
async fn an_sbom_that_comes_before_its_attestation_is_simply_there() {
    let (world, token) = ready().await;
    world
        .post(&token, &forwarded("SBOM_CYCLONEDX_JSON", SBOM))
        .await;
    let envelope = attestation("1", vec![promised_sbom()]);
    let accepted = world.post(&token, &attested(&envelope)).await;
    assert_eq!(accepted.body["missing"], json!([]));
    world.deliver().await;
    assert_eq!(kinds(&world), ["ATTESTATION", "SBOM_CYCLONEDX_JSON"]);
}

#[tokio::test]
async fn what_the_command_line_pushed_as_a_bundle_is_the_same_attestation() {
    let (world, token) = ready().await;
    let envelope = attestation("1", vec![]);
    let pushed = world.push(compose::bundle(&envelope)).await.unwrap();
    let posted = world.post(&token, &attested(&envelope)).await;
    assert_eq!(posted.body["repeated"], true);
    let id = pushed.plan.deliveries().next().unwrap().0;
    assert_eq!(posted.body["deliveries"][0]["id"], id.as_str());
    world.deliver().await;
    assert_eq!(kinds(&world).len(), 1);
}

#[tokio::test]
async fn the_workflow_is_the_statements_else_the_one_that_stands_beside_it() {
    let (world, token) = ready().await;
    let mut renamed = attested(&attestation("1", vec![]));
    renamed["Metadata"]["Workflow"]["Name"] = "renamed-since".into();
    let accepted = world.post(&token, &renamed).await;
    assert_eq!(accepted.body["workflow"]["name"], "nightly");

    let predicate = Predicate {
        metadata: Metadata {
            workflow_run_id: "2".into(),
            ..Metadata::default()
        },
        ..Predicate::default()
    };
    let statement = compose::statement(&predicate, &[]);
    let silent = compose::envelope(statement, "", |bytes| bytes[..32].to_vec());
    let accepted = world.post(&token, &attested(&silent)).await;
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    assert_eq!(accepted.body["workflow"]["project"], "shop");
    assert_eq!(accepted.body["deliveries"].as_array().unwrap().len(), 1);

    let mut nobody = attested(&silent);
    nobody["Metadata"] = json!({});
    // Known already, by its envelope.
    assert_eq!(world.post(&token, &nobody).await.status, 422);
}

#[tokio::test]
async fn an_intake_that_never_was_and_one_that_is_gone_are_answered_alike() {
    let (world, token) = ready().await;
    let (other, body) = (
        format!("clin_{}", "0".repeat(64)),
        attested(&attestation("1", vec![])),
    );
    let gone = world
        .operator(
            Role::Admin,
            "DELETE /v1/intakes/{intake}",
            "production",
            json!(null),
        )
        .await;
    assert_eq!(gone.status, 200, "{}", gone.body);
    let before = world.keys();
    let answers = [
        world.post(&token, &body).await,
        world.post(&other, &body).await,
        world.post("cli_an-api-token", &body).await,
        world.post(&token, &forwarded("TEST_WEBHOOK", b"{}")).await,
        world.post(&other, &json!("not even that")).await,
    ];
    for answer in &answers {
        assert_eq!(answer.status, 404);
        assert_eq!(answer, &answers[0]);
        assert!(!answer.body.to_string().contains(&token));
    }
    assert_eq!(world.keys(), before);
}

#[tokio::test]
async fn what_is_not_taken_is_named_and_leaves_nothing() {
    let (world, token) = ready().await;
    let before = world.keys();
    let mut unsigned = attested(&attestation("1", vec![]));
    unsigned["Data"] = forwarded(
        "",
        br#"{"Envelope":{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[]}}"#,
    )["Data"]
        .clone();
    let large = "A".repeat(attestation::MAX_BYTES);
    for (body, status, code, says) in [
        (json!("x"), 400, "malformed-body", "not the JSON object"),
        (
            forwarded("ATTESTATION", b"x"),
            400,
            "malformed-body",
            "Data",
        ),
        (forwarded("ATTESTATION", b""), 400, "malformed-body", "Data"),
        (forwarded("SARIF", b"{}"), 400, "kind-unknown", "\"SARIF\""),
        (unsigned, 422, "unsigned", "no signature"),
        (
            json!({ "Kind": "SBOM_SPDX_JSON", "Data": large }),
            413,
            "too-large",
            "send_sbom=false",
        ),
    ] {
        let answer = world.post(&token, &body).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (status, &json!(code))
        );
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{detail}");
    }
    assert_eq!(world.keys(), before);
    assert_eq!(world.memory.queued(Webhook::ID), 0);
}

#[tokio::test]
async fn intakes_are_made_listed_and_deleted_by_operators_who_are_recorded() {
    let world = World::new();
    let new = || json!({ "name": "production" });
    for role in [Role::Viewer, Role::Producer] {
        let refused = world.operator(role, "POST /v1/intakes", "", new()).await;
        assert_eq!(refused.status, 403);
    }
    let token = world.open(new()).await;
    let taken = world
        .operator(Role::Admin, "POST /v1/intakes", "", new())
        .await;
    assert_eq!(
        (taken.status, &taken.body["code"]),
        (409, &json!("name-taken"))
    );
    for (wrong, field) in [
        (json!({ "name": "No Label" }), "name"),
        (
            json!({ "name": "a", "cas_url": "https://cp.example.org" }),
            "cas_token",
        ),
        (json!({ "name": "a", "cas_token": "x" }), "cas_url"),
        (
            json!({ "name": "a", "cas_url": "ftp://cp.example.org", "cas_token": "x" }),
            "cas_url",
        ),
        (
            json!({ "name": "a", "cas_url": "https://cp.example.org", "cas_token": "x\ny" }),
            "cas_token",
        ),
        (
            json!({
                "name": "a", "cas_url": "https://cp.example.org", "cas_token": "x",
                "cas_ca_certificates": "canary",
            }),
            "cas_ca_certificates",
        ),
        (
            json!({ "name": "a", "cas_ca_certificates": AUTHORITY }),
            "cas_url",
        ),
    ] {
        let refused = world
            .operator(Role::Admin, "POST /v1/intakes", "", wrong)
            .await;
        assert_eq!(refused.status, 422);
        assert_eq!(refused.body["faults"][0]["field"], field);
    }
    let list = async || {
        world
            .operator(Role::Viewer, "GET /v1/intakes", "", json!(null))
            .await
    };
    let listed = list().await.body;
    assert_eq!(listed["items"][0]["name"], "production");
    assert_eq!(listed["items"][0]["created_by"], "tests");
    assert!(!listed.to_string().contains("clin_"), "{listed}");
    assert!(
        !world.memory.dump().contains(&token),
        "its hash alone is kept"
    );
    let delete = "DELETE /v1/intakes/{intake}";
    let gone = world
        .operator(Role::Admin, delete, "production", json!(null))
        .await;
    assert_eq!(gone.status, 200);
    let again = world
        .operator(Role::Admin, delete, "production", json!(null))
        .await;
    assert_eq!(again.status, 404);
    assert_eq!(list().await.body["items"], json!([]));
    let memory = &world.memory;
    let entries = pipeline::records::audit_log::entries(scope(memory), memory.now(), None, 1_000);
    let actions: Vec<String> = entries
        .await
        .unwrap()
        .0
        .into_iter()
        .map(|entry| entry.action)
        .collect();
    assert_eq!(actions.len(), 2);
    assert!(actions.contains(&"intake.create".into()) && actions.contains(&"intake.delete".into()));
}

#[tokio::test]
async fn a_material_that_chainloop_has_is_fetched_once_and_delivered() {
    let (world, artifacts) = (World::new(), Artifacts::start());
    world.register("hook").await.unwrap();
    world
        .attach_with("hook", json!({ "send_sbom": true }))
        .await;
    let token = world.fetching(&artifacts).await;
    let digest = artifacts.put(SBOM);
    let envelope = attestation("1", vec![promised_sbom()]);
    world.post(&token, &attested(&envelope)).await;
    assert_eq!(world.fetch().await, 1);
    assert_eq!(world.size(&digest).await, Some(SBOM.len() as u64));
    world.pass(Duration::from_mins(2)).await;
    assert_eq!(kinds(&world), ["ATTESTATION", "SBOM_CYCLONEDX_JSON"]);

    let asked = artifacts.asked();
    let path = format!("/download/{digest}");
    let bearer = Some(format!("Bearer {TOKEN}"));
    assert_eq!(asked[0], (path.clone(), bearer));
    // The store is another host: it gets what the redirect says, and not our token.
    assert_eq!(asked[1], (format!("{path}?t=good-for-30-s"), None));

    // Again: it is here, and nobody is asked.
    world.post(&token, &attested(&envelope)).await;
    assert_eq!(world.fetch().await, 0);
    assert_eq!(artifacts.asked().len(), 2);
    let dump = world.memory.dump();
    assert!(
        !dump.contains(TOKEN) && !dump.contains(&token),
        "no secret in rows or messages"
    );
    let pushed = world.push(envelope.compact()).await.unwrap();
    world.audit(&pushed).await;
    world.used_once(&pushed).await;
}

#[tokio::test]
async fn a_large_material_comes_in_parts() {
    let (world, artifacts) = (World::new(), Artifacts::start());
    let token = world.fetching(&artifacts).await;
    let large: Vec<u8> = (0..20_000_000_u32)
        .map(|at| at.to_le_bytes()[at as usize % 3])
        .collect();
    let digest = artifacts.put(&large);
    let material = Material::uploaded("sbom", MaterialType::SBOM_SPDX_JSON, "s.json", digest);
    world
        .post(&token, &attested(&attestation("1", vec![material])))
        .await;
    artifacts.break_off(1);
    world.fetch().await;
    assert_eq!(
        (world.size(&digest).await, world.memory.open_uploads()),
        (None, 0)
    );
    world.memory.advance(schedule::FETCHES[0]);
    world.fetch().await;
    assert_eq!(world.memory.open_uploads(), 0);
    let kept = world
        .memory
        .get_object(&ORGANIZATION, &digest)
        .await
        .unwrap();
    assert!(kept.is_some_and(|kept| kept == large), "byte for byte");
}

#[tokio::test]
async fn what_cannot_be_fetched_is_tried_until_nobody_waits_and_then_left() {
    let (world, artifacts) = (World::new(), Artifacts::start());
    world.register("hook").await.unwrap();
    world
        .attach_with("hook", json!({ "send_sbom": true }))
        .await;
    let token = world.fetching(&artifacts).await;
    let envelope = attestation("1", vec![promised_sbom()]);
    world.post(&token, &attested(&envelope)).await;
    let mut tries = 0;
    for _ in 0..40 {
        tries += world.fetch().await;
        world.pass(Duration::from_mins(1)).await;
    }
    assert!(
        (5..=10).contains(&tries),
        "{tries} tries in a quarter of an hour"
    );
    assert_eq!(world.memory.queued(fetch::QUEUE), 0);
    // The delivery went without it, as it does when nobody uploads.
    let accepted = world.push(envelope.compact()).await.unwrap();
    let (delivery, _) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Delivered);
    world.audit(&accepted).await;
}

#[tokio::test]
async fn other_bytes_than_were_asked_for_are_not_kept() {
    for size in [1_000, 12_000_000] {
        let (world, artifacts) = (World::new(), Artifacts::start());
        let token = world.fetching(&artifacts).await;
        artifacts.put_as(Digest::of(SBOM), &vec![b'x'; size]);
        let envelope = attestation("1", vec![promised_sbom()]);
        world.post(&token, &attested(&envelope)).await;
        world.fetch().await;
        assert_eq!(world.size(&Digest::of(SBOM)).await, None);
        assert_eq!(world.memory.open_uploads(), 0);
        assert_eq!(world.memory.queued(fetch::QUEUE), 1, "it is tried again");
    }
}

#[tokio::test]
async fn what_is_larger_than_a_material_may_be_is_left_at_once() {
    let (world, artifacts) = (World::new(), Artifacts::start());
    let token = world.fetching(&artifacts).await;
    let most = usize::try_from(api::materials::MATERIAL_MAX_BYTES).unwrap();
    artifacts.put_as(Digest::of(SBOM), &vec![b'x'; most + 1]);
    let envelope = attestation("1", vec![promised_sbom()]);
    world.post(&token, &attested(&envelope)).await;
    world.fetch().await;
    assert_eq!(world.memory.queued(fetch::QUEUE), 0);
}

#[tokio::test]
async fn nothing_is_fetched_for_an_intake_that_was_deleted() {
    let (world, artifacts) = (World::new(), Artifacts::start());
    let token = world.fetching(&artifacts).await;
    artifacts.put(SBOM);
    world
        .post(&token, &attested(&attestation("1", vec![promised_sbom()])))
        .await;
    let route = "DELETE /v1/intakes/{intake}";
    world
        .operator(Role::Admin, route, "production", json!(null))
        .await;
    assert!(world.memory.secret_names().is_empty());
    assert_eq!(world.fetch().await, 1);
    // For all that the fetch knows, its secret may still come.
    for _ in 0..16 {
        world.memory.advance(Duration::from_mins(1));
        world.fetch().await;
    }
    assert!(artifacts.asked().is_empty());
    assert_eq!(world.memory.queued(fetch::QUEUE), 0);
}

#[tokio::test]
async fn a_fetch_waits_for_a_secret_that_is_not_shown_yet() {
    let (world, artifacts) = (World::new(), Artifacts::start());
    world.register("hook").await.unwrap();
    world
        .attach_with("hook", json!({ "send_sbom": true }))
        .await;
    let token = world.fetching(&artifacts).await;
    let digest = artifacts.put(SBOM);
    let body = attested(&attestation("1", vec![promised_sbom()]));
    world.post(&token, &body).await;
    world.memory.hides_secrets.set(true);
    assert_eq!(world.fetch().await, 1);
    assert!(artifacts.asked().is_empty());
    world.memory.hides_secrets.set(false);
    world.memory.advance(schedule::FETCHES[0]);
    assert_eq!(world.fetch().await, 1);
    assert_eq!(world.size(&digest).await, Some(SBOM.len() as u64));
}

#[tokio::test]
async fn a_queue_that_is_down_makes_chainloop_post_it_again() {
    let (world, artifacts) = (World::new(), Artifacts::start());
    let token = world.fetching(&artifacts).await;
    artifacts.put(SBOM);
    let body = attested(&attestation("1", vec![promised_sbom()]));
    world.memory.fail_sends.set(true);
    let refused = world.post(&token, &body).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    world.memory.fail_sends.set(false);
    let accepted = world.post(&token, &body).await;
    assert_eq!(
        (accepted.status, &accepted.body["repeated"]),
        (202, &json!(true))
    );
    world.fetch().await;
    assert!(world.size(&Digest::of(SBOM)).await.is_some());
}

#[tokio::test]
async fn a_dead_letter_of_a_fetch_is_dropped_and_an_unreadable_message_parked() {
    let world = World::new();
    let message = Message {
        v: Message::VERSION,
        organization: ORGANIZATION.clone(),
        attestation: Digest::of(b"1"),
        intake: "i-1".into(),
        fetch: "f-1".into(),
        polls: 0,
        after: None,
        failed: false,
        turns: 0,
    };
    let record = |body: String| pipeline::engine::deliver::Record {
        id: "m-1".into(),
        body,
    };
    let dead = vec![record(serde_json::to_string(&message).unwrap())];
    let back = pipeline::engine::reconcile::dead_letters(&world.memory, dead).await;
    assert!(back.is_empty() && world.memory.rows().is_empty());
    let until = world.memory.now().plus(Duration::from_mins(2));
    let bad = vec![record("{}".into())];
    let back = fetch::batch(&world.memory, &world.tools.http, bad, until).await;
    assert!(back.is_empty());
    assert!(world.memory.dump().contains("parked/fetch-materials"));
}

#[tokio::test]
async fn without_time_a_fetch_is_sent_anew_and_without_a_queue_given_back() {
    let (world, artifacts) = (World::new(), Artifacts::start());
    let token = world.fetching(&artifacts).await;
    let envelope = attestation("1", vec![promised_sbom()]);
    world.post(&token, &attested(&envelope)).await;
    let records = world.memory.receive(fetch::QUEUE, 10);
    let http = &world.tools.http;
    // No time for a material.
    let soon = world.memory.now().plus(Duration::from_secs(10));
    let back = fetch::batch(&world.memory, http, records, soon).await;
    assert!(back.is_empty() && artifacts.asked().is_empty());
    assert_eq!(world.memory.queued(fetch::QUEUE), 1);
    let records = world.memory.receive(fetch::QUEUE, 10);
    world.memory.fail_sends.set(true);
    let later = world.memory.now().plus(Duration::from_mins(2));
    let back = fetch::batch(&world.memory, http, records, later).await;
    assert_eq!(back.len(), 1, "the queue hands it over again");
}

/// A store that takes as long for each material as it is told, by the clock of the world, and answers 503.
struct Slow<'a> {
    memory: &'a Memory,
    takes: Duration,
    asked: RefCell<Vec<Digest>>,
}

impl Documents for Slow<'_> {
    async fn document(&self, _: &str, _: usize) -> Result<Bytes, Error> {
        unreachable!("it has materials alone")
    }
}

impl Store for Slow<'_> {
    async fn open(&self, _: &Source, digest: &Digest, within: Duration) -> Result<Coming, Error> {
        self.memory.advance(self.takes.min(within));
        self.asked.borrow_mut().push(*digest);
        Err(Error::retryable("fetch: answered 503"))
    }
}

impl<'a> Slow<'a> {
    fn new(memory: &'a Memory, takes: Duration) -> Self {
        let asked = RefCell::default();
        Self {
            memory,
            takes,
            asked,
        }
    }

    /// One invocation, as the function is handed its messages: one at a time. Whether there was one.
    async fn invoke(&self) -> bool {
        let records = self.memory.receive(fetch::QUEUE, 1);
        let is_any = !records.is_empty();
        let until = self.memory.now().plus(Duration::from_secs(130));
        let back = fetch::batch(self.memory, self, records, until).await;
        assert!(back.is_empty(), "{back:?}");
        is_any
    }
}

fn promised(number: u8) -> Material {
    let digest = Digest::of(&[number]);
    Material::uploaded("sbom", MaterialType::SBOM_SPDX_JSON, "s.json", digest)
}

#[tokio::test]
async fn the_log_has_routes_and_never_an_intakes_token() {
    let (world, token) = ready().await;
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let body = forwarded("TEST_WEBHOOK", b"{}");
    assert_eq!(world.post(&token, &body).await.status, 200);
    let routes = functions::attestations::<Memory, ()>();
    let route = "POST /v1/intake/{token}";
    let posted = request(Role::Admin, route, &[("token", &token)], &[], &body);
    for (method, path, status) in [
        ("GET", posted.path.clone(), 405),
        ("POST", format!("{}/more", posted.path), 404),
        ("POST", format!("/base{}/", posted.path), 404),
    ] {
        let request = Request {
            method: method.into(),
            path,
            ..posted.clone()
        };
        let answer = http::answer(&routes, &world.memory, &request).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(!answer.body.to_string().contains(&token));
    }
    let log = log.text();
    assert!(log.contains(route) && log.contains("(no route)"), "{log}");
    assert!(!log.contains(&token), "{log}");
}

#[tokio::test]
async fn however_often_a_queue_repeats_a_fetchs_messages_one_goes_on() {
    let (world, artifacts) = (World::new(), Artifacts::start());
    let token = world.fetching(&artifacts).await;
    world
        .post(&token, &attested(&attestation("1", vec![promised(1)])))
        .await;
    let store = Slow::new(&world.memory, Duration::from_secs(1));
    let run = async |id: String, body: &str| {
        let body = body.to_owned();
        let record = pipeline::engine::deliver::Record { id, body };
        let until = world.memory.now().plus(Duration::from_secs(130));
        let back = fetch::batch(&world.memory, &store, vec![record], until).await;
        assert!(back.is_empty(), "{back:?}");
        (
            store.asked.borrow().len(),
            world.memory.queued(fetch::QUEUE),
        )
    };
    // Seconds after which the next message is there.
    for (turn, delay) in [(0, 5), (1, 15)] {
        let first = world.memory.receive(fetch::QUEUE, 1).remove(0);
        assert_eq!(run(first.id.clone(), &first.body).await, (turn + 1, 1));
        // Another copy of it, which has an ID of its own.
        let other = format!("{}-again", first.id);
        assert_eq!(run(other, &first.body).await, (turn + 1, 1));
        world.memory.advance(Duration::from_secs(delay));
    }
    // After a crash the same message comes again, and asks again: nobody knows what it had done. Of the two that it
    // has sent, one goes on.
    let crashed = world.memory.receive(fetch::QUEUE, 1).remove(0);
    assert_eq!(run(crashed.id.clone(), &crashed.body).await, (3, 1));
    assert_eq!(run(crashed.id, &crashed.body).await, (4, 2));
    world.memory.advance(Duration::from_secs(30));
    for left in [2, 1] {
        let next = world.memory.receive(fetch::QUEUE, 1).remove(0);
        assert_eq!(run(next.id, &next.body).await, (5, left));
    }
    world.memory.advance(Duration::from_mins(1));
    // A late copy of an earlier turn ends as well.
    let next = world.memory.receive(fetch::QUEUE, 1).remove(0);
    let message = Message {
        turns: 0,
        ..Message::parse(&next.body).unwrap()
    };
    let late = serde_json::to_string(&message).unwrap();
    assert_eq!(run("late".into(), &late).await, (5, 0));
}

#[tokio::test]
async fn a_slow_store_is_asked_for_every_material_and_given_up_when_nobody_waits() {
    let (world, artifacts) = (World::new(), Artifacts::start());
    let token = world.fetching(&artifacts).await;
    let materials: Vec<Material> = (0..3).map(promised).collect();
    let began = world.memory.now();
    world
        .post(&token, &attested(&attestation("1", materials.clone())))
        .await;
    let store = Slow::new(&world.memory, Duration::from_secs(100));
    let mut invocations = 0;
    let mut last = began;
    for _ in 0..400 {
        while store.invoke().await {
            invocations += 1;
            last = world.memory.now();
        }
        world.memory.advance(Duration::from_secs(5));
    }
    assert_eq!(world.memory.queued(fetch::QUEUE), 0);
    assert!(last <= began.plus(schedule::PATIENCE + Duration::from_secs(1)));
    assert!(invocations <= 12, "{invocations} invocations");
    let asked: BTreeSet<Digest> = store.asked.borrow().iter().copied().collect();
    let wanted = materials.iter().filter_map(|material| material.digest);
    assert_eq!(asked, wanted.collect(), "each was asked for");
}

#[tokio::test]
async fn a_fetch_lets_others_come_between_after_its_turn() {
    let (world, artifacts) = (World::new(), Artifacts::start());
    let token = world.fetching(&artifacts).await;
    for (run, materials) in [("1", 0..4), ("2", 4..5)] {
        let materials = materials.map(promised).collect();
        let envelope = attestation(run, materials);
        world.post(&token, &attested(&envelope)).await;
    }
    let store = Slow::new(&world.memory, Duration::from_secs(15));
    store.invoke().await;
    assert_eq!(store.asked.borrow().len(), 2, "a turn is 20 s");
    store.invoke().await;
    assert_eq!(store.asked.borrow()[2], Digest::of(&[4]), "the other one's");
    store.invoke().await;
    let asked: BTreeSet<Digest> = store.asked.borrow().iter().copied().collect();
    assert_eq!(asked.len(), 5, "it went on where it was");
}

#[tokio::test]
async fn an_attestation_that_is_posted_again_is_fetched_by_each_intake_once() {
    let (world, artifacts) = (World::new(), Artifacts::start());
    let token = world.fetching(&artifacts).await;
    let body = attested(&attestation("1", vec![promised_sbom()]));
    for _ in 0..3 {
        assert_eq!(world.post(&token, &body).await.status, 202);
    }
    assert_eq!(world.memory.queued(fetch::QUEUE), 1);
    let new = json!({ "name": "other", "cas_url": artifacts.url(), "cas_token": TOKEN });
    let other = world.open(new).await;
    world.post(&other, &body).await;
    assert_eq!(world.memory.queued(fetch::QUEUE), 2);
}

#[tokio::test]
async fn a_body_that_is_read_as_json_has_at_most_256_kib() {
    let world = World::new();
    let before = world.keys();
    let large = "x".repeat(256 * 1024);
    let body = json!({ "name": large, "inputs": {} });
    for (role, route) in [
        (Role::Operator, "POST /v1/intakes"),
        (Role::Operator, "POST /v1/registrations"),
    ] {
        let answer = world.operator(role, route, "", body.clone()).await;
        assert_eq!(answer.status, 413, "{route}: {}", answer.body);
        assert_eq!(answer.body["code"], "too-large");
        assert!(answer.body["detail"].as_str().unwrap().contains("256 KiB"));
    }
    assert_eq!(world.keys(), before);
}

/// The status of a post of a new attestation, from this address.
async fn status(world: &World, address: &str, token: &str, run: &str) -> u16 {
    let body = attested(&attestation(run, vec![]));
    world.post_from(address, token, &body).await.status
}

#[tokio::test]
async fn an_expired_intake_is_answered_as_an_unknown_one_and_a_rotation_renews_it() {
    let world = World::new();
    let new = json!({ "name": "production", "expires_in_secs": 7_200 });
    let token = world.open(new).await;
    assert_eq!(status(&world, "", &token, "1").await, 202);
    assert_eq!(world.listed().await["expired"], false);
    world.memory.advance(Duration::from_hours(2));
    let body = attested(&attestation("2", vec![]));
    let unknown = format!("clin_{}", "0".repeat(64));
    let expired = world.post(&token, &body).await;
    assert_eq!(expired.status, 404);
    assert_eq!(expired, world.post(&unknown, &body).await);
    assert_eq!(world.listed().await["expired"], true);
    assert_eq!(world.refusals().await[0].2, "the URL has expired");
    let rotated = world.rotate("production", json!({})).await;
    assert_eq!(rotated.body["expired"], false);
    let renewed = rotated.body["token"].as_str().unwrap();
    assert_eq!(status(&world, "", renewed, "2").await, 202);
    assert_eq!(status(&world, "", &token, "3").await, 404);
    for secs in [0, 59, 400 * 366 * 86_400_u64] {
        let new = json!({ "name": "other", "expires_in_secs": secs });
        let refused = world
            .operator(Role::Admin, "POST /v1/intakes", "", new)
            .await;
        assert_eq!(refused.body["faults"][0]["field"], "expires_in_secs");
    }
}

#[tokio::test]
async fn both_urls_work_until_the_overlap_ends_and_then_the_new_one_alone() {
    let world = World::new();
    let old = world.open(json!({ "name": "production" })).await;
    let rotated = world
        .rotate("production", json!({ "overlap_secs": 3_600 }))
        .await;
    assert_eq!(rotated.status, 201, "{}", rotated.body);
    let new = rotated.body["token"].as_str().unwrap();
    assert_eq!(
        rotated.body["overlap_until"],
        world.listed().await["overlap_until"]
    );
    assert!(!world.memory.dump().contains(new), "its hash alone is kept");
    assert_eq!(status(&world, "", &old, "1").await, 202);
    assert_eq!(status(&world, "", new, "1").await, 202);
    world.memory.advance(Duration::from_hours(1));
    assert_eq!(status(&world, "", &old, "1").await, 404);
    assert_eq!(status(&world, "", new, "1").await, 202);
    assert_eq!(world.listed().await["overlap_until"], json!(null));
    let refused = world
        .rotate("production", json!({ "overlap_secs": 2_592_001 }))
        .await;
    assert_eq!(refused.body["faults"][0]["field"], "overlap_secs");
    assert_eq!(world.rotate("nobody", json!({})).await.status, 404);
}

#[tokio::test]
async fn a_second_rotation_during_an_overlap_is_refused_unless_it_ends_every_older_url() {
    let world = World::new();
    let first = world.open(json!({ "name": "production" })).await;
    let second = world.rotate("production", json!({})).await.body["token"].clone();
    let second = second.as_str().unwrap();
    let refused = world.rotate("production", json!({})).await;
    assert_eq!(
        (refused.status, &refused.body["code"]),
        (409, &json!("overlapping"))
    );
    for token in [&first, second] {
        assert_eq!(status(&world, "", token, "1").await, 202);
    }
    let third = world
        .rotate("production", json!({ "overlap_secs": 0 }))
        .await
        .body["token"]
        .clone();
    for (token, expected) in [
        (first.as_str(), 404),
        (second, 404),
        (third.as_str().unwrap(), 202),
    ] {
        assert_eq!(status(&world, "", token, "1").await, expected);
    }
}

#[tokio::test]
async fn a_deleted_intake_leaves_no_url_of_its_rotation_and_no_use() {
    let world = World::new();
    let old = world.open(json!({ "name": "production" })).await;
    let new = world.rotate("production", json!({})).await.body["token"].clone();
    assert_eq!(status(&world, "", &old, "1").await, 202);
    let delete = "DELETE /v1/intakes/{intake}";
    let gone = world
        .operator(Role::Admin, delete, "production", json!(null))
        .await;
    assert_eq!(gone.status, 200, "{}", gone.body);
    for token in [&old, new.as_str().unwrap()] {
        assert_eq!(status(&world, "", token, "1").await, 404);
    }
    let is_left =
        |key: &Key| key.partition.starts_with("intake") || key.partition.ends_with("/intakes");
    assert!(!world.keys().iter().any(is_left), "{:?}", world.keys());
}

#[tokio::test]
async fn only_allowed_addresses_may_post_whatever_a_header_says() {
    let world = World::new();
    let new = json!({ "name": "production", "allow_from": ["192.0.2.0/24", "2001:db8::/32"] });
    let token = world.open(new).await;
    for address in ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1"] {
        assert_eq!(status(&world, address, &token, "1").await, 202, "{address}");
    }
    let body = attested(&attestation("2", vec![]));
    let unknown = world.post_from("198.51.100.7", "clin_unknown", &body).await;
    let before = world.keys();
    for address in ["198.51.100.7", "::ffff:198.51.100.7", "2001:db9::1", ""] {
        let refused = world.post_from(address, &token, &body).await;
        assert_eq!(refused, unknown, "{address:?}");
    }
    assert_eq!(world.keys(), before, "nothing is accepted");
    let refusal = |address: &str| {
        let detail = "the address is not allowed".to_owned();
        ("production".to_owned(), address.to_owned(), detail)
    };
    assert_eq!(
        world.refusals().await,
        [refusal("198.51.100.7")],
        "once an hour"
    );
    world.memory.advance(Duration::from_hours(1));
    world.post_from("203.0.113.9", &token, &body).await;
    let again = [refusal("203.0.113.9"), refusal("198.51.100.7")];
    assert_eq!(world.refusals().await, again);
    for (wrong, field) in [
        (
            json!({ "name": "a", "allow_from": ["192.0.2.0/33"] }),
            "allow_from",
        ),
        (
            json!({ "name": "a", "allow_from": vec!["192.0.2.1"; 17] }),
            "allow_from",
        ),
        (
            json!({ "name": "a", "workflows": ["nightly"] }),
            "workflows",
        ),
        (
            json!({ "name": "a", "workflows": vec!["*"; 17] }),
            "workflows",
        ),
    ] {
        let refused = world
            .operator(Role::Admin, "POST /v1/intakes", "", wrong)
            .await;
        assert_eq!(
            refused.body["faults"][0]["field"], field,
            "{}",
            refused.body
        );
    }
}

#[tokio::test]
async fn attestations_of_other_workflows_are_refused_with_403_and_told_once_an_hour() {
    let world = World::new();
    let token = world
        .open(json!({ "name": "other", "workflows": ["mill/*"] }))
        .await;
    let shop = world
        .open(json!({ "name": "shop", "workflows": ["mill/*", "shop/*"] }))
        .await;
    let body = attested(&attestation("1", vec![]));
    let before = world.keys();
    for _ in 0..2 {
        let refused = world.post(&token, &body).await;
        let told = (refused.status, &refused.body["code"]);
        assert_eq!(
            told,
            (403, &json!("workflow-not-allowed")),
            "{}",
            refused.body
        );
    }
    let left: Vec<Key> = world.keys().difference(&before).cloned().collect();
    assert!(
        left.len() == 1 && left[0].sort.starts_with("use/"),
        "{left:?}"
    );
    let refusals = world.refusals().await;
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!(refusals[0].2, "the workflow is not allowed: shop/nightly");
    assert_eq!(world.post(&shop, &body).await.status, 202);
}

/// An attestation states its workflow's ID and its names. One that the intake allows reaches nothing by the other.
#[tokio::test]
async fn an_allowed_name_reaches_nothing_by_a_foreign_id_nor_the_other_way_round() {
    const ID: &str = "6f0c1f0e-0000-4000-8000-000000000001";
    let mut envelope = attestation("1", vec![]);
    let mut statement: Value = serde_json::from_slice(&envelope.payload).unwrap();
    statement["predicate"]["metadata"]["workflowID"] = ID.into();
    envelope.payload = statement.to_string().into_bytes();
    let body = attested(&envelope);
    for (attached, allowed, status) in [
        (ID, json!(["shop/*"]), 403),
        (ID, json!(["shop/*", ID]), 202),
        (ID, json!(["*"]), 202),
        (ID, json!([]), 202),
        (WORKFLOW, json!([ID]), 403),
        ("shop/*", json!([ID]), 403),
        (WORKFLOW, json!([ID, "shop/*"]), 202),
        (WORKFLOW, json!(["shop/*"]), 202),
        ("*", json!([ID]), 202),
        ("*", json!(["shop/*"]), 202),
    ] {
        let world = World::new();
        let intake = json!({ "name": "a", "workflows": allowed });
        let token = world.open(intake).await;
        world.register("hook").await.unwrap();
        world.attach_to(attached, "hook", json!({})).await;
        let answer = world.post(&token, &body).await;
        assert_eq!(
            answer.status, status,
            "{attached} {allowed}: {}",
            answer.body
        );
        if status == 403 {
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(
                detail.ends_with(&format!("the workflow {attached}")),
                "{detail}"
            );
        }
    }
}

/// Nothing was attached when it came; an operator attaches and backfills later.
#[tokio::test]
async fn a_backfill_goes_by_what_its_sender_was_allowed_until_another_vouches_for_it() {
    const ID: &str = "6f0c1f0e-0000-4000-8000-000000000001";
    let world = World::new();
    let token = world.open(json!({ "name": "a", "workflows": [ID] })).await;
    let mut envelope = attestation("1", vec![]);
    let mut statement: Value = serde_json::from_slice(&envelope.payload).unwrap();
    statement["predicate"]["metadata"]["workflowID"] = ID.into();
    envelope.payload = statement.to_string().into_bytes();
    assert_eq!(world.post(&token, &attested(&envelope)).await.status, 202);
    world.register("hook").await.unwrap();
    let by_name = world.attach_to(WORKFLOW, "hook", json!({})).await;
    let by_id = world.attach_to(ID, "hook", json!({})).await;
    let backfilled = async |attachment: &str| {
        let route = "POST /v1/attachments/{attachment}/backfill";
        let path = [("attachment", attachment)];
        let begun = ask(&world.memory, Role::Operator, route, &path, json!({})).await;
        assert_eq!(begun.status, 202, "{}", begun.body);
        world.reconcile().await;
        world.deliver().await;
        world.receiver.deliveries().len()
    };
    assert_eq!(backfilled(&by_name.id).await, 0);
    assert_eq!(backfilled(&by_id.id).await, 1);
    world.push(envelope.compact()).await.unwrap();
    assert_eq!(backfilled(&by_name.id).await, 2);
}

#[tokio::test]
async fn the_last_use_is_written_once_an_hour_and_never_fails_a_post() {
    let world = World::new();
    let token = world.open(json!({ "name": "production" })).await;
    assert_eq!(world.listed().await["last_used_at"], json!(null));
    assert_eq!(status(&world, "192.0.2.7", &token, "1").await, 202);
    let first = world.listed().await;
    assert_eq!(first["last_used_at"], json!(world.memory.now()));
    assert_eq!(first["last_used_from"], "192.0.2.7");
    world.memory.advance(Duration::from_mins(59));
    assert_eq!(status(&world, "192.0.2.8", &token, "1").await, 202);
    assert_eq!(world.listed().await, first);
    world.memory.advance(Duration::from_mins(1));
    // The attestation is known, so the write that fails is that of the use.
    world.memory.fail_writes_after.set(Some(0));
    assert_eq!(status(&world, "192.0.2.8", &token, "1").await, 202);
    world.memory.fail_writes_after.set(None);
    assert_eq!(world.listed().await, first);
    assert_eq!(status(&world, "192.0.2.8", &token, "1").await, 202);
    assert_eq!(world.listed().await["last_used_from"], "192.0.2.8");
}

#[tokio::test]
async fn what_is_fetched_is_what_an_accepted_attestation_names_and_nothing_else() {
    let (world, artifacts) = (World::new(), Artifacts::start());
    let token = world.fetching(&artifacts).await;
    let digest = artifacts.put(b"something else that the store has");
    let sbom = format!(r#"{{"bomFormat":"CycloneDX","serialNumber":"{digest}"}}"#);
    let mut unsigned = attested(&attestation("1", vec![promised_sbom()]));
    unsigned["Data"] = forwarded("", br#"{"Envelope":{}}"#)["Data"].clone();
    for (body, status) in [
        (forwarded("SBOM_CYCLONEDX_JSON", sbom.as_bytes()), 200),
        (forwarded("TEST_WEBHOOK", sbom.as_bytes()), 200),
        (forwarded("SARIF", sbom.as_bytes()), 400),
        (unsigned, 422),
    ] {
        assert_eq!(world.post(&token, &body).await.status, status, "{body}");
        assert_eq!(world.memory.queued(fetch::QUEUE), 0);
    }
    let named = artifacts.put(SBOM);
    let envelope = attestation("1", vec![promised_sbom()]);
    let mut body = attested(&envelope);
    body["Metadata"]["Materials"] = json!([{ "Digest": digest }]);
    world.post(&token, &body).await;
    assert_eq!(world.fetch().await, 1);
    let paths: BTreeSet<String> = artifacts
        .asked()
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    let expected = [
        format!("/download/{named}"),
        format!("/download/{named}?t=good-for-30-s"),
    ];
    assert_eq!(paths, BTreeSet::from(expected));
}
