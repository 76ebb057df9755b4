//! Signatures judged on accepting, by trust policies: over memory, with keys that are made here.

use std::time::Duration;

use api::Role;
use api::deliveries::State;
use api::trust::{Code, Outcome};
use api::workflows::Workflow;
use attestation::{Digest, Envelope, PAYLOAD_TYPE, Signature, pae};
use base64_simd::STANDARD;
use memory::Memory;
use pipeline::Platform as _;
use pipeline::engine::accept::{self, Accepted};
use pipeline::engine::operations;
use pipeline::http::Response;
use pipeline::records::attestations;
use pipeline::store::meter::Quotas;
use pipeline::store::rows;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::artifacts::attested;
use crate::asking::{answer, ask, request};
use crate::world::{ORGANIZATION, WORKFLOW, World, act, attestation, kept, scope, tests};

/// A signer on P-256.
pub struct Key(EcdsaKeyPair);

impl Key {
    pub fn new() -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).unwrap())
    }

    pub fn pem(&self) -> String {
        // A `SubjectPublicKeyInfo` of P-256, as far as the point.
        let head = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
        let der = [&head[..], self.0.public_key().as_ref()].concat();
        let base64 = STANDARD.encode_to_string(der);
        let lines: Vec<&str> = [&base64[..64], &base64[64..]].into();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            lines.join("\n")
        )
    }

    fn id(&self) -> String {
        let pem = self.pem();
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        Digest::of(&STANDARD.decode_to_vec(base64).unwrap()).to_string()
    }

    fn sign(&self, payload: &[u8], keyid: &str) -> Signature {
        let signature = self
            .0
            .sign(&SystemRandom::new(), &pae(PAYLOAD_TYPE, payload));
        Signature {
            keyid: keyid.to_owned(),
            sig: signature.unwrap().as_ref().to_vec(),
        }
    }
}

/// The attestation of a run, signed by these keys.
fn signed(run: &str, keys: &[&Key]) -> Envelope {
    sign(attestation(run, vec![]), keys)
}

/// The envelope with the signatures of these keys, and no others.
pub fn sign(mut envelope: Envelope, keys: &[&Key]) -> Envelope {
    let payload = &envelope.payload;
    envelope.signatures = keys.iter().map(|key| key.sign(payload, "")).collect();
    envelope
}

fn signer(name: &str, key: &Key) -> Value {
    json!({ "kind": "key", "name": name, "pem": key.pem() })
}

pub fn policy(name: &str, workflow: &str, mode: &str, signers: &[Value]) -> Value {
    json!({ "name": name, "workflow": workflow, "mode": mode, "signers": signers })
}

async fn create(memory: &Memory, body: Value) -> Response {
    ask(memory, Role::Admin, "POST /v1/trust-policies", &[], body).await
}

pub async fn made(memory: &Memory, body: Value) {
    let response = create(memory, body).await;
    assert_eq!(response.status, 201, "{}", response.body);
}

async fn delete(memory: &Memory, name: &str) {
    let route = "DELETE /v1/trust-policies/{policy}";
    let response = ask(memory, Role::Admin, route, &[("policy", name)], json!(null)).await;
    assert_eq!(response.status, 200, "{}", response.body);
}

pub async fn replace(memory: &Memory, name: &str, etag: Option<&str>, body: Value) -> Response {
    let route = "PUT /v1/trust-policies/{policy}";
    let etag = etag.map(|etag| format!("\"{etag}\""));
    let headers: Vec<_> = etag
        .iter()
        .map(|etag| ("if-match", etag.as_str()))
        .collect();
    let request = request(Role::Admin, route, &[("policy", name)], &headers, &body);
    answer(memory, &request).await
}

async fn push(memory: &Memory, bytes: Vec<u8>) -> Response {
    let mut request = request(
        Role::Producer,
        "POST /v1/attestations",
        &[],
        &[],
        &json!({}),
    );
    request.body = bytes.into();
    answer(memory, &request).await
}

fn refusal(response: &Response) -> (u16, &str) {
    (response.status, response.body["code"].as_str().unwrap())
}

fn outcome(accepted: Result<Accepted, accept::Error>) -> Option<Outcome> {
    let verdict = accepted.unwrap().attestation.verdict;
    verdict.map(|verdict| verdict.outcome)
}

/// An envelope in a bundle: other bytes, the same attestation.
fn bundle(envelope: &Envelope, hint: &str) -> Vec<u8> {
    let envelope: Value = serde_json::from_slice(&envelope.compact()).unwrap();
    let bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "publicKey": { "hint": hint } },
        "dsseEnvelope": envelope,
    });
    bundle.to_string().into_bytes()
}

#[tokio::test]
async fn without_a_policy_nothing_is_judged() {
    let world = World::new();
    assert_eq!(
        outcome(world.push(signed("1", &[&Key::new()]).compact()).await),
        None
    );
    made(&world.memory, policy("release", WORKFLOW, "off", &[])).await;
    assert_eq!(
        outcome(world.push(signed("2", &[&Key::new()]).compact()).await),
        None
    );
}

#[tokio::test]
async fn what_a_signer_signed_is_accepted_with_the_verdict_and_shown_with_it() {
    let world = World::new();
    world.ready().await;
    let key = Key::new();
    made(
        &world.memory,
        policy("release", WORKFLOW, "require", &[signer("builder", &key)]),
    )
    .await;
    let pushed = push(&world.memory, signed("1", &[&key]).compact()).await;
    assert_eq!(pushed.status, 202, "{}", pushed.body);
    assert_eq!(pushed.body["deliveries"].as_array().unwrap().len(), 1);
    let digest = pushed.body["attestation"].as_str().unwrap().to_owned();
    let route = "GET /v1/attestations/{digest}";
    let parameters = [("digest", digest.as_str())];
    let described = ask(&world.memory, Role::Viewer, route, &parameters, json!(null)).await;
    let listed = ask(
        &world.memory,
        Role::Viewer,
        "GET /v1/attestations",
        &[],
        json!(null),
    )
    .await;
    for verdict in [
        &pushed.body["verdict"],
        &described.body["verdict"],
        &listed.body["items"][0]["verdict"],
    ] {
        assert_eq!(verdict["outcome"], "verified");
        assert_eq!(verdict["signers"][0]["name"], "builder");
        assert_eq!(verdict["signers"][0]["key_id"], key.id());
        let policy = verdict["policy"].as_str().unwrap();
        assert!(policy.starts_with("release@"), "{policy}");
    }
}

#[tokio::test]
async fn each_refusal_has_its_code_and_says_what_to_do_and_nothing_is_kept() {
    let world = World::new();
    world.ready().await;
    let (one, two, stranger) = (Key::new(), Key::new(), Key::new());
    let both = [signer("one", &one), signer("two", &two)];
    let certificate = json!({
        "kind": "keyless", "name": "ci", "issuer": "https://issuer.example.org",
        "identity": { "exact": "https://example.org/release" },
    });
    let mut several = policy("several", WORKFLOW, "require", &both);
    several["threshold"] = json!(2);
    let mut forged = signed("1", &[&stranger]);
    forged.signatures[0].keyid = one.id();
    for (body, envelope, code, says) in [
        (
            policy("keys", WORKFLOW, "require", &both),
            signed("1", &[&stranger]),
            "signer-unknown",
            "have one of them sign it",
        ),
        (
            policy("keys", WORKFLOW, "require", &both),
            forged,
            "signature-invalid",
            "sign it again",
        ),
        (
            several,
            signed("1", &[&one, &stranger]),
            "signer-threshold",
            "have more of them sign it",
        ),
        (
            policy("certificates", WORKFLOW, "require", &[certificate]),
            signed("1", &[&stranger]),
            "signature-missing-material",
            "push the Sigstore bundle",
        ),
    ] {
        let name = body["name"].as_str().unwrap().to_owned();
        made(&world.memory, body).await;
        let refused = push(&world.memory, envelope.compact()).await;
        assert_eq!(refusal(&refused), (422, code));
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains(says) && detail.contains(&name), "{detail}");
        let kept = attestations::find(scope(&world.memory), &envelope.hash()).await;
        assert!(kept.unwrap().is_none(), "{code}");
        let received = Digest::of(&envelope.compact());
        let bytes = world.memory.object_size(&ORGANIZATION, &received).await;
        assert_eq!(bytes.unwrap(), None, "{code}");
        delete(&world.memory, &name).await;
    }
}

#[tokio::test]
async fn a_warning_accepts_with_the_verdict() {
    let world = World::new();
    world.ready().await;
    made(
        &world.memory,
        policy("all", "*", "warn", &[signer("one", &Key::new())]),
    )
    .await;
    let accepted = world
        .push(signed("1", &[&Key::new()]).compact())
        .await
        .unwrap();
    assert_eq!(accepted.plan.planned.len(), 1);
    let verdict = accepted.attestation.verdict.unwrap();
    assert_eq!(verdict.outcome, Outcome::UnknownSigner);
    assert_eq!(verdict.reason.code, Code::NoConfiguredSigner);
}

#[tokio::test]
async fn the_most_specific_policy_is_the_workflows_and_no_other_is_asked() {
    let world = World::new();
    let (all, project, own) = (Key::new(), Key::new(), Key::new());
    let run = |run: &str| signed(run, &[&own]).compact();
    made(
        &world.memory,
        policy("all", "*", "require", &[signer("all", &all)]),
    )
    .await;
    assert!(world.push(run("1")).await.is_err());
    made(
        &world.memory,
        policy("shop", "shop/*", "warn", &[signer("shop", &project)]),
    )
    .await;
    assert_eq!(
        outcome(world.push(run("2")).await),
        Some(Outcome::UnknownSigner)
    );
    made(
        &world.memory,
        policy("own", WORKFLOW, "require", &[signer("own", &own)]),
    )
    .await;
    assert_eq!(outcome(world.push(run("3")).await), Some(Outcome::Verified));
    delete(&world.memory, "own").await;
    assert_eq!(
        outcome(world.push(run("4")).await),
        Some(Outcome::UnknownSigner)
    );
    delete(&world.memory, "shop").await;
    assert!(world.push(run("5")).await.is_err());
    delete(&world.memory, "all").await;
    assert_eq!(outcome(world.push(run("6")).await), None);
}

/// An attestation states its workflow's ID and its name itself, and goes to what is attached to either.
#[tokio::test]
async fn neither_an_id_nor_a_name_gets_round_the_policy_for_the_other() {
    const ID: &str = "6f0c1f0e-0000-4000-8000-000000000001";
    let (own, stranger) = (Key::new(), Key::new());
    let said = |run: &str, by: &[&Key]| {
        let mut envelope = attestation(run, vec![]);
        let mut statement: Value = serde_json::from_slice(&envelope.payload).unwrap();
        statement["predicate"]["metadata"]["workflowID"] = ID.into();
        envelope.payload = statement.to_string().into_bytes();
        sign(envelope, by).compact()
    };
    for (of_id, of_name) in [("off", "require"), ("require", "off"), ("warn", "require")] {
        let world = World::new();
        let signers = [signer("own", &own)];
        made(&world.memory, policy("id", ID, of_id, &signers)).await;
        made(&world.memory, policy("name", WORKFLOW, of_name, &signers)).await;
        let refused = world.push(said("1", &[&stranger])).await;
        assert!(
            matches!(refused, Err(accept::Error::Untrusted(_))),
            "{of_id} {of_name}"
        );
        let accepted = world.push(said("2", &[&own])).await;
        assert_eq!(outcome(accepted), Some(Outcome::Verified));
    }
    // Of two verdicts the worse is kept.
    let world = World::new();
    let others = [signer("other", &stranger)];
    made(&world.memory, policy("id", ID, "warn", &others)).await;
    let require = policy("name", WORKFLOW, "require", &[signer("own", &own)]);
    made(&world.memory, require).await;
    let accepted = world.push(said("3", &[&own])).await;
    assert_eq!(outcome(accepted), Some(Outcome::UnknownSigner));
}

/// An integration learns the verdict as it is when it sends: by a filter, and in what it sends.
#[tokio::test]
async fn the_verdict_reaches_who_it_is_delivered_to_and_decides_by_a_filter() {
    let world = World::new();
    let (own, stranger) = (Key::new(), Key::new());
    world.register("hook").await.unwrap();
    let filter = json!({ "filter": "signature.outcome=verified, signature.signer=own" });
    world.attach_with("hook", filter).await;
    let warn = policy("own", WORKFLOW, "warn", &[signer("own", &own)]);
    made(&world.memory, warn).await;

    let first = world.push(signed("1", &[&own]).compact()).await.unwrap();
    let envelope = signed("2", &[&stranger]);
    let second = world.push(envelope.compact()).await.unwrap();
    world.deliver().await;
    let sent = world.receiver.deliveries();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        sent[0].header("webhook-signature-verdict"),
        Some("verified")
    );
    assert_eq!(world.delivery(&first).await.0.state, State::Delivered);
    let (skipped, _) = world.delivery(&second).await;
    assert_eq!(skipped.state, State::Skipped);
    assert_eq!(
        skipped.reason.as_deref(),
        Some(r#"the filter wants signature.outcome=verified, and it is "unknown-signer""#)
    );

    // Raised since: a redelivery is sent what is known now.
    delete(&world.memory, "own").await;
    let warn = policy("own", WORKFLOW, "warn", &[signer("own", &stranger)]);
    made(&world.memory, warn).await;
    world.push(bundle(&envelope, "a")).await.unwrap();
    operations::redeliver_for(&world.memory, &skipped, None, act())
        .await
        .unwrap();
    world.deliver().await;
    assert_eq!(world.receiver.deliveries().len(), 2);
}

#[tokio::test]
async fn a_verdict_that_is_gone_or_about_another_envelope_sends_nothing() {
    fn another(row: &mut rows::Attestation) {
        row.verdict.as_mut().unwrap().envelope = Digest::of(b"another");
    }
    fn gone(row: &mut rows::Attestation) {
        row.verdict = None;
    }
    type Damage = fn(&mut rows::Attestation);
    let damages: [(Damage, &str); 2] = [
        (another, "it is about another envelope"),
        (gone, "find the attestation's verdict"),
    ];
    for (damage, why) in damages {
        let world = World::new();
        world.ready().await;
        let own = Key::new();
        let warn = policy("own", WORKFLOW, "warn", &[signer("own", &own)]);
        made(&world.memory, warn).await;
        let accepted = world.push(signed("1", &[&own]).compact()).await.unwrap();
        let at = rows::Attestation::at(&ORGANIZATION, &accepted.attestation.hash);
        let stored = rows::load::<rows::Attestation>(&world.memory, &at).await;
        let mut stored = stored.unwrap().unwrap();
        damage(&mut stored.row);
        let (write, _) = rows::put(&world.memory, &stored.row, Some(&stored.version));
        world.memory.write(vec![write]).await.unwrap();
        world.deliver().await;
        assert_eq!(world.receiver.deliveries().len(), 0);
        let (failed, _) = world.delivery(&accepted).await;
        let reason = failed.reason.unwrap();
        assert!(reason.contains(why), "{reason}");
    }
}

#[tokio::test]
async fn a_policy_is_replaced_in_one_write_if_it_is_the_one_that_was_seen() {
    let world = World::new();
    let (own, next) = (Key::new(), Key::new());
    let created = create(
        &world.memory,
        policy("own", WORKFLOW, "warn", &[signer("own", &own)]),
    )
    .await;
    let first = created.body["etag"].as_str().unwrap().to_owned();
    let require = |key: &Key| json!({ "mode": "require", "signers": [signer("next", key)] });
    let response = replace(&world.memory, "own", Some(&first), require(&next)).await;
    assert_eq!(response.status, 200, "{}", response.body);
    for kept in ["id", "name", "workflow", "created_at", "created_by"] {
        assert_eq!(response.body[kept], created.body[kept], "{kept}");
    }
    assert_eq!(response.body["mode"], "require");
    assert!(world.push(signed("1", &[&own]).compact()).await.is_err());
    let accepted = world.push(signed("2", &[&next]).compact()).await;
    assert_eq!(outcome(accepted), Some(Outcome::Verified));

    // Again the same, as after a response that got lost; and what was seen before.
    let again = replace(&world.memory, "own", Some(&first), require(&next)).await;
    assert_eq!((again.status, &again.body), (200, &response.body));
    let stale = replace(&world.memory, "own", Some(&first), require(&own)).await;
    assert_eq!(refusal(&stale), (412, "changed-meanwhile"));
    let out_of_reach = json!({ "mode": "require", "threshold": 2, "signers": [signer("a", &own)] });
    let refused = replace(&world.memory, "own", None, out_of_reach).await;
    assert_eq!(refused.body["faults"][0]["field"], "threshold");
    let nobody = replace(&world.memory, "other", None, require(&own)).await;
    assert_eq!(refusal(&nobody), (404, "not-found"));
}

#[tokio::test]
async fn a_policy_is_tried_on_what_was_accepted_and_changes_nothing() {
    let world = World::new();
    let (own, stranger) = (Key::new(), Key::new());
    let mut pushed = Vec::new();
    for (run, key) in [("1", &own), ("2", &stranger)] {
        let accepted = world.push(signed(run, &[key]).compact()).await.unwrap();
        pushed.push(accepted.attestation.hash);
        world.memory.advance(Duration::from_secs(1));
    }
    // Its bundle came later, and proves it.
    let envelope = signed("3", &[&own]);
    world.push(envelope.compact()).await.unwrap();
    world.push(bundle(&envelope, "a")).await.unwrap();
    let before = kept(&world.memory);
    let judge = async |workflow: &str, limit: &str| {
        let body = json!({ "workflow": workflow, "signers": [signer("own", &own)] });
        let route = "POST /v1/attestations/judge";
        let mut request = request(Role::Admin, route, &[], &[], &body);
        request.query.insert("limit".into(), limit.into());
        let page = answer(&world.memory, &request).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let items = page.body["items"].as_array().unwrap().iter();
        let found = items.map(|one| {
            let hash: Digest = serde_json::from_value(one["attestation"].clone()).unwrap();
            (hash, one["verdict"]["outcome"].as_str().unwrap().to_owned())
        });
        (found.collect::<Vec<_>>(), !page.body["next"].is_null())
    };
    let expected = vec![
        (envelope.hash(), "verified".to_owned()),
        (pushed[1], "unknown-signer".to_owned()),
        (pushed[0], "verified".to_owned()),
    ];
    assert_eq!(judge("*", "20").await, (expected.clone(), false));
    assert_eq!(judge(WORKFLOW, "20").await, (expected.clone(), false));
    assert_eq!(judge("*", "1").await, (expected[..1].to_vec(), true));
    assert_eq!(judge("other/*", "20").await, (vec![], false));
    assert_eq!(kept(&world.memory), before);
}

/// A page ends where its bytes are enough for the time that the gateway waits.
#[tokio::test]
async fn large_attestations_are_tried_a_few_at_a_time_and_all_of_them_in_the_end() {
    let world = World::new();
    let own = Key::new();
    let pad = "x".repeat(4_000_000);
    for run in 0..6 {
        let mut envelope = attestation(&run.to_string(), vec![]);
        let mut statement: Value = serde_json::from_slice(&envelope.payload).unwrap();
        statement["predicate"]["pad"] = pad.clone().into();
        envelope.payload = statement.to_string().into_bytes();
        world.push(sign(envelope, &[&own]).compact()).await.unwrap();
        world.memory.advance(Duration::from_secs(1));
    }
    let body = json!({ "workflow": "*", "signers": [signer("own", &own)] });
    let mut asked = request(Role::Admin, "POST /v1/attestations/judge", &[], &[], &body);
    let mut sizes = Vec::new();
    loop {
        let page = answer(&world.memory, &asked).await;
        let items = page.body["items"].as_array().unwrap();
        assert!(
            items
                .iter()
                .all(|one| one["verdict"]["outcome"] == "verified")
        );
        sizes.push(items.len());
        let Some(next) = page.body["next"].as_str() else {
            break;
        };
        asked.query.insert("cursor".into(), next.into());
    }
    assert_eq!(sizes, [4, 2]);
}

#[tokio::test]
async fn a_key_that_is_exchanged_under_its_name_shows_in_the_audit_log() {
    let world = World::new();
    let (own, next) = (Key::new(), Key::new());
    made(
        &world.memory,
        policy("own", WORKFLOW, "require", &[signer("a", &own)]),
    )
    .await;
    let swapped = json!({ "mode": "require", "signers": [signer("a", &next)] });
    replace(&world.memory, "own", None, swapped).await;
    let now = world.memory.now();
    let entries = pipeline::records::audit_log::entries(scope(&world.memory), now, None, 10);
    let told = entries
        .await
        .unwrap()
        .0
        .into_iter()
        .map(|entry| entry.detail);
    let told: Vec<String> = told
        .filter(|detail| detail.contains("1 of a, sha256:"))
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_ne!(told[0], told[1]);
}

#[tokio::test]
async fn attestations_are_listed_by_their_verdict() {
    let world = World::new();
    let own = Key::new();
    let unjudged = world.push(signed("1", &[&own]).compact()).await.unwrap();
    let warn = policy("own", WORKFLOW, "warn", &[signer("own", &own)]);
    made(&world.memory, warn).await;
    world.memory.advance(Duration::from_secs(1));
    let verified = world.push(signed("2", &[&own]).compact()).await.unwrap();
    world.memory.advance(Duration::from_secs(1));
    let unknown = world
        .push(signed("3", &[&Key::new()]).compact())
        .await
        .unwrap();
    let listed = async |verdict: &str| {
        let mut request = request(Role::Viewer, "GET /v1/attestations", &[], &[], &json!({}));
        request.query.insert("verdict".into(), verdict.into());
        let page = answer(&world.memory, &request).await;
        let items = page.body["items"].as_array().cloned().unwrap_or_default();
        let hashes = items.iter().map(|one| one["attestation"].clone());
        (page.status, hashes.collect::<Vec<_>>())
    };
    for (verdict, of) in [
        ("off", Some(&unjudged)),
        ("verified", Some(&verified)),
        ("unknown-signer", Some(&unknown)),
        ("invalid", None),
    ] {
        let hashes = of.map(|one| json!(one.attestation.hash));
        assert_eq!(listed(verdict).await, (200, hashes.into_iter().collect()));
    }
    assert_eq!(listed("good").await.0, 422);
}

#[tokio::test]
async fn another_workflows_policy_raises_no_verdict() {
    let world = World::new();
    let (own, other) = (Key::new(), Key::new());
    let warn = |name: &str, workflow: &str, key: &Key| {
        policy(name, workflow, "warn", &[signer("signer", key)])
    };
    made(&world.memory, warn("own", WORKFLOW, &own)).await;
    made(&world.memory, warn("sandbox", "sandbox/x", &other)).await;
    // Of no workflow of its own, so that whoever sends it says one.
    let mut envelope = attestation("1", vec![]);
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "a", "digest": { "sha256": "a".repeat(64) } }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {},
    });
    envelope.payload = statement.to_string().into_bytes();
    let envelope = sign(envelope, &[&other]);
    let push = async |bytes: Vec<u8>, project: &str, name: &str| {
        let said = Workflow {
            id: String::new(),
            project: project.into(),
            name: name.into(),
        };
        accept::pushed(scope(&world.memory), bytes.into(), Some(&said), tests()).await
    };
    let first = push(envelope.compact(), "shop", "nightly").await;
    assert_eq!(outcome(first), Some(Outcome::UnknownSigner));
    let taken = push(bundle(&envelope, "a"), "sandbox", "x").await;
    assert!(matches!(taken, Err(accept::Error::WorkflowTaken(_))));
    let raised = push(bundle(&envelope, "b"), "shop", "nightly").await;
    assert_eq!(outcome(raised), Some(Outcome::UnknownSigner));
}

#[tokio::test]
async fn the_same_envelope_again_raises_its_verdict_and_never_lowers_it() {
    let world = World::new();
    let (key, other) = (Key::new(), Key::new());
    let envelope = signed("1", &[&key]);
    let by = |key: &Key| policy("one", WORKFLOW, "warn", &[signer("signer", key)]);
    let now = async || {
        let found = attestations::find(scope(&world.memory), &envelope.hash()).await;
        found.unwrap().unwrap().verdict.unwrap().outcome
    };
    made(&world.memory, by(&other)).await;
    world.push(envelope.compact()).await.unwrap();
    assert_eq!(now().await, Outcome::UnknownSigner);
    let unknown = world.push(bundle(&envelope, "a")).await.unwrap();
    assert!(unknown.repeated);
    assert_eq!(now().await, Outcome::UnknownSigner);
    delete(&world.memory, "one").await;
    made(&world.memory, by(&key)).await;
    // The same bytes too: whoever sends them again has them judged again.
    let raised = world.push(envelope.compact()).await.unwrap();
    assert!(raised.repeated);
    assert_eq!(now().await, Outcome::Verified);
    delete(&world.memory, "one").await;
    made(&world.memory, by(&other)).await;
    let form = world.push(bundle(&envelope, "b")).await;
    assert_eq!(outcome(form), Some(Outcome::Verified));
    assert_eq!(now().await, Outcome::Verified);
}

/// A certificate expires within minutes, and a sender that had no answer sends again for longer.
#[tokio::test]
async fn what_was_verified_once_is_accepted_again_although_it_would_be_refused_now() {
    let world = World::new();
    let (key, other) = (Key::new(), Key::new());
    let envelope = signed("1", &[&key]).compact();
    let by = |key: &Key| policy("one", WORKFLOW, "require", &[signer("signer", key)]);
    made(&world.memory, by(&key)).await;
    world.push(envelope.clone()).await.unwrap();
    delete(&world.memory, "one").await;
    made(&world.memory, by(&other)).await;
    let again = world.push(envelope).await.unwrap();
    assert!(again.repeated);
    assert_eq!(
        again.attestation.verdict.unwrap().outcome,
        Outcome::Verified
    );
    assert!(world.push(signed("2", &[&key]).compact()).await.is_err());
}

#[tokio::test]
async fn what_an_intake_forwards_is_judged_alike() {
    let world = World::new();
    let key = Key::new();
    made(
        &world.memory,
        policy("own", WORKFLOW, "require", &[signer("own", &key)]),
    )
    .await;
    let intake = ask(
        &world.memory,
        Role::Admin,
        "POST /v1/intakes",
        &[],
        json!({ "name": "in" }),
    );
    let token = intake.await.body["token"].as_str().unwrap().to_owned();
    let post = async |envelope: &Envelope| {
        let route = "POST /v1/intake/{token}";
        ask(
            &world.memory,
            Role::Producer,
            route,
            &[("token", &token)],
            attested(envelope),
        )
        .await
    };
    let refused = post(&signed("1", &[&Key::new()])).await;
    assert_eq!(refusal(&refused), (422, "signer-unknown"));
    let accepted = post(&signed("1", &[&key])).await;
    assert_eq!(accepted.body["verdict"]["outcome"], "verified");
}

#[tokio::test]
async fn a_policy_is_one_of_its_name_and_of_its_workflows_and_is_found_by_name_and_id() {
    let memory = Memory::default();
    let key = signer("one", &Key::new());
    let body = policy("release", "shop/*", "warn", std::slice::from_ref(&key));
    let post = |key: &'static str, body: &Value| {
        let headers = [("idempotency-key", key)];
        request(Role::Admin, "POST /v1/trust-policies", &[], &headers, body)
    };
    let first = answer(&memory, &post("a", &body)).await;
    assert_eq!(first.status, 201);
    assert_eq!(answer(&memory, &post("a", &body)).await, first);
    assert_eq!(refusal(&create(&memory, body).await), (409, "name-taken"));
    let other = policy("other", "shop/*", "warn", std::slice::from_ref(&key));
    assert_eq!(
        refusal(&create(&memory, other).await),
        (409, "trust-policy-exists")
    );
    let id = first.body["id"].as_str().unwrap();
    let route = "GET /v1/trust-policies/{policy}";
    for named in ["release", id] {
        let found = ask(
            &memory,
            Role::Viewer,
            route,
            &[("policy", named)],
            json!(null),
        )
        .await;
        assert_eq!(found.body, first.body);
    }
    let listed = ask(
        &memory,
        Role::Viewer,
        "GET /v1/trust-policies",
        &[],
        json!(null),
    )
    .await;
    assert_eq!(listed.body["items"][0]["signers"], json!(["one"]));
    let route = "DELETE /v1/trust-policies/{policy}";
    let stale = request(
        Role::Admin,
        route,
        &[("policy", id)],
        &[("if-match", "\"0\"")],
        &json!({}),
    );
    assert_eq!(
        refusal(&answer(&memory, &stale).await),
        (412, "changed-meanwhile")
    );
    delete(&memory, id).await;
    made(&memory, policy("release", "shop/*", "off", &[])).await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_used_is_refused_with_its_signer_and_repeats_no_key() {
    let memory = Memory::default();
    let key = signer("one", &Key::new());
    let private = "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n";
    let private = json!({ "kind": "key", "name": "one", "pem": private });
    for (signers, threshold, field) in [
        (vec![private], 1, "signers"),
        (vec![key.clone(), key.clone()], 1, "signers"),
        (vec![key.clone()], 2, "threshold"),
        (vec![], 1, "threshold"),
        (vec![json!({ "kind": "pgp", "name": "one" })], 1, "signers"),
    ] {
        let mut body = policy("release", "*", "require", &signers);
        body["threshold"] = json!(threshold);
        let refused = create(&memory, body).await;
        assert_eq!(refusal(&refused), (422, "invalid-inputs"));
        assert_eq!(
            refused.body["faults"][0]["field"], field,
            "{}",
            refused.body
        );
        assert!(!refused.body.to_string().contains("canary"));
    }
    let large = json!({ "kind": "key", "name": "one", "pem": "x".repeat(256 * 1024) });
    let refused = create(&memory, policy("release", "*", "require", &[large])).await;
    assert_eq!(refusal(&refused), (413, "too-large"));
}

#[tokio::test]
async fn an_organization_has_as_many_policies_as_its_quota_says() {
    let mut memory = Memory::default();
    memory.meter.quotas = Quotas {
        policies: 1,
        ..Quotas::default()
    };
    made(&memory, policy("a", "*", "off", &[])).await;
    let refused = create(&memory, policy("b", "shop/*", "off", &[])).await;
    assert_eq!(refusal(&refused), (429, "quota-exceeded"));
    assert_eq!(refused.body["quota"]["name"], "policies");
}
