//! Signed receipts of deliveries, over memory. The signatures are verified by ring, and by the trust policies of this system.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use api::Role;
use attestation::{Attestation, Digest, Envelope, PAYLOAD_TYPE, pae};
use base64_simd::STANDARD;
use pipeline::Platform as _;
use pipeline::engine::accept::Accepted;
use pipeline::engine::operations;
use pipeline::engine::receipts::PREDICATE_TYPE;
use pipeline::http::Response;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde_json::{Value, json};

use crate::asking::{answer, ask, request};
use crate::receiver::{Answer, Receiver};
use crate::world::{ORGANIZATION, SBOM, World, act, attestation, kept, promised_sbom, scope};

pub fn id(accepted: &Accepted) -> String {
    accepted.plan.deliveries().next().unwrap().0.to_string()
}

async fn ask_for(world: &World, role: Role, id: &str) -> Response {
    let route = "GET /v1/deliveries/{delivery}/receipt";
    ask(&world.memory, role, route, &[("delivery", id)], json!(null)).await
}

async fn key(world: &World, role: Role) -> Value {
    let response = ask(&world.memory, role, "GET /v1/receipt-key", &[], json!(null));
    let response = response.await;
    assert_eq!(response.status, 200, "{}", response.body);
    response.body
}

/// The public key of P-256 in a PEM: the end of what it holds.
fn point(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode_to_vec(base64).unwrap();
    der[der.len() - 65..].to_vec()
}

fn is_signed(envelope: &Envelope, pem: &str) -> bool {
    let [signature] = &envelope.signatures[..] else {
        panic!("one signature")
    };
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point(pem));
    let message = pae(&envelope.payload_type, &envelope.payload);
    key.verify(&message, &signature.sig).is_ok()
}

pub fn statement(envelope: &Envelope) -> Value {
    serde_json::from_slice(&envelope.payload).unwrap()
}

/// A receipt whose signature holds.
pub async fn receipt(world: &World, id: &str) -> Envelope {
    let response = ask_for(world, Role::Viewer, id).await;
    assert_eq!(response.status, 200, "{}", response.body);
    let bytes = response.body.to_string().into_bytes();
    let envelope = Attestation::parse(&bytes).unwrap().envelope;
    let key = key(world, Role::Viewer).await;
    assert!(is_signed(&envelope, key["pem"].as_str().unwrap()));
    assert_eq!(envelope.signatures[0].keyid, key["id"]);
    envelope
}

/// A world in which an attestation with its SBOM was delivered.
async fn delivered(options: Value) -> (World, Accepted) {
    let world = World::new();
    world.register("hook").await.unwrap();
    world.attach_with("hook", options).await;
    let digest = Digest::of(SBOM);
    let put = world.memory.put_object(&ORGANIZATION, &digest, SBOM.into());
    put.await.unwrap();
    let envelope = attestation("1", vec![promised_sbom()]);
    let accepted = world.push(envelope.compact()).await.unwrap();
    world.memory.advance(Duration::from_secs(2));
    world.deliver().await;
    (world, accepted)
}

#[tokio::test]
async fn a_receipt_says_what_became_of_a_delivery() {
    let (world, accepted) = delivered(json!({ "send_sbom": true })).await;
    let id = id(&accepted);
    world.memory.advance(Duration::from_mins(5));
    let said = statement(&receipt(&world, &id).await);
    assert_eq!(said["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(
        said["predicateType"],
        "https://chainloop.dev/integrations/delivery-receipt/v1"
    );
    let subject =
        |name: &str, digest: &Digest| json!({ "name": name, "digest": { "sha256": digest.hex() } });
    let row = &accepted.attestation;
    let subjects = [
        subject("attestation", &row.received),
        subject("material/sbom", &Digest::of(SBOM)),
    ];
    assert_eq!(said["subject"], json!(subjects));
    let predicate = &said["predicate"];
    assert_eq!(predicate["stack"], "memory");
    assert_eq!(predicate["organization"], "acme");
    assert_eq!(predicate["signedAt"], json!(world.memory.now()));
    assert_eq!(
        predicate["attestation"],
        json!({
            "hash": row.hash,
            "workflow": { "id": "", "project": "shop", "name": "nightly" },
            "run": "1",
            "predicateType": "chainloop.dev/attestation/v0.2",
            "acceptedAt": row.created_at,
        })
    );
    let registration = &predicate["registration"];
    assert_eq!(registration["nameWhenSigned"], "hook");
    assert_eq!(registration["integration"], "webhook");
    assert_eq!(
        registration["id"],
        json!(accepted.plan.planned[0].registration)
    );
    let url = world.receiver.url();
    let origin = url.strip_suffix("/hook/s3cret-path").unwrap();
    let shown = registration["destinationWhenSigned"]["url"]
        .as_str()
        .unwrap();
    assert!(
        shown.starts_with(&format!("{origin}/… (fingerprint ")),
        "{shown}"
    );
    let delivery = &predicate["delivery"];
    assert_eq!(delivery["id"], id);
    assert_eq!(delivery["state"], "delivered");
    assert_eq!(delivery["plannedAt"], json!(row.created_at));
    let (stored, attempts) = world.delivery(&accepted).await;
    assert_eq!(delivery["receipt"], json!(stored.receipt));
    let [attempt] = &attempts[..] else {
        panic!("one attempt")
    };
    assert_eq!(
        delivery["attempts"],
        json!([{
            "number": 1,
            "ending": "delivered",
            "startedAt": attempt.report.started_at,
            "durationMs": attempt.report.duration_ms,
            "status": 200,
        }])
    );
    assert_eq!(delivery["endedAt"], json!(stored.updated_at));
    // The secrets of the registration, and the path of its URL.
    let text = said.to_string();
    for secret in [url.as_str(), "whsec", "c2VjcmV0"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn a_change_of_payload_signature_or_key_is_refused() {
    let (world, accepted) = delivered(json!({})).await;
    let envelope = receipt(&world, &id(&accepted)).await;
    let pem = key(&world, Role::Viewer).await["pem"].clone();
    let pem = pem.as_str().unwrap();
    for at in 0..envelope.payload.len() {
        let mut changed = envelope.clone();
        changed.payload[at] ^= 1;
        assert!(!is_signed(&changed, pem), "byte {at} of the payload");
    }
    for at in 0..envelope.signatures[0].sig.len() {
        let mut changed = envelope.clone();
        changed.signatures[0].sig[at] ^= 1;
        assert!(!is_signed(&changed, pem), "byte {at} of the signature");
    }
    let mut changed = envelope.clone();
    changed.payload_type.push('x');
    assert!(!is_signed(&changed, pem));
    let (other, _) = delivered(json!({})).await;
    let pem = key(&other, Role::Viewer).await["pem"].clone();
    assert!(!is_signed(&envelope, pem.as_str().unwrap()));
}

#[tokio::test]
async fn the_subjects_are_the_bytes_that_were_sent() {
    let (world, accepted) = delivered(json!({})).await;
    let said = statement(&receipt(&world, &id(&accepted)).await);
    let [subject] = &said["subject"].as_array().unwrap()[..] else {
        panic!("the SBOM was not sent: {said}");
    };
    let received = accepted.attestation.received;
    let kept = world.memory.get_object(&ORGANIZATION, &received).await;
    let bytes = kept.unwrap().unwrap();
    assert_eq!(subject["digest"]["sha256"], Digest::of(&bytes).hex());
}

#[tokio::test]
async fn each_way_to_end_has_a_receipt_and_what_has_not_ended_has_none() {
    // The first is the test at registration.
    let world = World::with(Receiver::scripted(|before, _| {
        Answer::status(match before {
            0 => 200,
            1 | 2 => 503,
            _ => 404,
        })
    }));
    world.ready().await;
    let push = async |run: &str| {
        let accepted = world.push(attestation(run, vec![]).compact()).await;
        id(&accepted.unwrap())
    };
    let refused = async |id: &str| {
        let response = ask_for(&world, Role::Viewer, id).await;
        (response.status, response.body["code"].clone())
    };
    let id = push("1").await;
    assert_eq!(refused(&id).await, (409, json!("not-final")));
    world.deliver().await;
    assert_eq!(
        refused(&id).await,
        (409, json!("not-final")),
        "it is retried"
    );
    world.pass(Duration::from_mins(10)).await;
    let said = statement(&receipt(&world, &id).await);
    let delivery = &said["predicate"]["delivery"];
    assert_eq!(delivery["state"], "failed");
    let reason = delivery["reason"].as_str().unwrap();
    assert!(reason.contains("404"), "{reason}");
    let attempts = delivery["attempts"].as_array().unwrap().iter();
    let attempts: Vec<_> = attempts
        .map(|one| (&one["ending"], &one["status"]))
        .collect();
    let retryable = json!("retryable");
    assert_eq!(
        attempts,
        [
            (&retryable, &json!(503)),
            (&retryable, &json!(503)),
            (&json!("permanent"), &json!(404)),
        ]
    );

    let id = push("2").await;
    operations::cancel(scope(&world.memory), &id.as_str().into(), act())
        .await
        .unwrap();
    let said = statement(&receipt(&world, &id).await);
    let delivery = &said["predicate"]["delivery"];
    assert_eq!(delivery["state"], "cancelled");
    assert_eq!(delivery["endedAt"], json!(world.memory.now()));

    let nothing = json!({ "send_attestation": false });
    world.attach_to("shop/other", "hook", nothing).await;
    let mut request = request(
        Role::Producer,
        "POST /v1/attestations",
        &[],
        &[],
        &json!({}),
    );
    request.body = dsse(b"{\"_type\":\"https://in-toto.io/Statement/v1\",\"subject\":[{\"name\":\"a\",\"digest\":{\"sha256\":\"00\"}}],\"predicateType\":\"https://example.org/x\",\"predicate\":{}}").into();
    request.query = [("workflow".to_owned(), "shop/other".to_owned())].into();
    let pushed = answer(&world.memory, &request).await;
    assert_eq!(pushed.status, 202, "{}", pushed.body);
    world.deliver().await;
    let id = pushed.body["deliveries"][0]["id"].as_str().unwrap();
    let said = statement(&receipt(&world, id).await);
    assert_eq!(said["predicate"]["delivery"]["state"], "skipped");

    assert_eq!(refused("none").await, (404, json!("not-found")));
}

/// An envelope that says that it is signed.
fn dsse(payload: &[u8]) -> Vec<u8> {
    let envelope = Envelope {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: payload.to_vec(),
        signatures: vec![attestation::Signature {
            keyid: String::new(),
            sig: vec![7; 70],
        }],
    };
    envelope.compact()
}

#[tokio::test]
async fn whoever_may_read_deliveries_gets_receipts_and_every_token_the_key() {
    let (world, accepted) = delivered(json!({})).await;
    let id = id(&accepted);
    for role in Role::ALL {
        key(&world, role).await;
        let response = ask_for(&world, role, &id).await;
        let expected = if role == Role::Producer { 403 } else { 200 };
        assert_eq!(response.status, expected, "{role}");
    }
}

#[tokio::test]
async fn a_receipt_leaves_nothing_behind() {
    let (world, accepted) = delivered(json!({})).await;
    let before = (kept(&world.memory), world.memory.writes.get());
    let first = receipt(&world, &id(&accepted)).await;
    let second = receipt(&world, &id(&accepted)).await;
    assert_eq!(first.payload, second.payload);
    let after = (kept(&world.memory), world.memory.writes.get());
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_key_that_cannot_be_reached_is_a_503() {
    let (world, accepted) = delivered(json!({})).await;
    world.memory.fail_signing.set(true);
    let response = ask_for(&world, Role::Viewer, &id(&accepted)).await;
    assert_eq!(response.status, 503);
    assert_eq!(response.body["code"], "unreachable");
    let detail = "the receipt key could not be reached; try again";
    assert_eq!(response.body["detail"], detail);
}

#[tokio::test]
async fn without_the_bytes_nothing_is_signed() {
    let (world, accepted) = delivered(json!({})).await;
    let received = accepted.attestation.received;
    for other in [Some("others".into()), None] {
        world.memory.spoil(&ORGANIZATION, &received, other);
        let response = ask_for(&world, Role::Viewer, &id(&accepted)).await;
        assert_eq!(response.status, 404);
        let detail = response.body["detail"].as_str().unwrap();
        assert!(detail.contains(&received.to_string()), "{detail}");
    }
}

#[tokio::test]
async fn a_receipt_is_pushed_judged_and_delivered_like_any_attestation() {
    let (world, accepted) = delivered(json!({})).await;
    let envelope = receipt(&world, &id(&accepted)).await;
    let pem = key(&world, Role::Viewer).await["pem"].clone();
    let policy = json!({
        "name": "receipts", "workflow": "audit/receipts", "mode": "require",
        "signers": [{ "kind": "key", "name": "stack", "pem": pem }],
    });
    let route = "POST /v1/trust-policies";
    let made = ask(&world.memory, Role::Admin, route, &[], policy).await;
    assert_eq!(made.status, 201, "{}", made.body);
    world.attach_to("audit/receipts", "hook", json!({})).await;

    let push = async |envelope: &Envelope, workflow: Option<&str>| {
        let route = "POST /v1/attestations";
        let mut request = request(Role::Producer, route, &[], &[], &json!({}));
        request.body = envelope.compact().into();
        let workflow = workflow.map(|name| ("workflow".to_owned(), name.to_owned()));
        request.query = workflow.into_iter().collect();
        let response = answer(&world.memory, &request).await;
        (response.status, response.body)
    };
    let named = Some("audit/receipts");
    let (status, body) = push(&envelope, None).await;
    assert_eq!((status, &body["code"]), (422, &json!("workflow-missing")));
    let mut changed = envelope.clone();
    let state = String::from_utf8(changed.payload).unwrap();
    changed.payload = state.replace("\"delivered\"", "\"cancelled\"").into_bytes();
    let (status, body) = push(&changed, named).await;
    assert_eq!((status, &body["code"]), (422, &json!("signature-invalid")));

    let (status, body) = push(&envelope, named).await;
    assert_eq!(status, 202, "{body}");
    assert_eq!(body["verdict"]["outcome"], "verified");
    assert_eq!(body["verdict"]["signers"][0]["name"], "stack");
    // The envelope is in the one form whose bytes have its digest.
    assert_eq!(body["attestation"], body["received"]);
    world.deliver().await;
    let id = body["deliveries"][0]["id"].as_str().unwrap();
    let again = statement(&receipt(&world, id).await);
    let predicate = &again["predicate"];
    assert_eq!(predicate["delivery"]["state"], "delivered");
    assert_eq!(predicate["attestation"]["workflow"]["project"], "audit");
    assert_eq!(
        predicate["attestation"]["predicateType"],
        statement(&envelope)["predicateType"]
    );
    assert_eq!(world.receiver.deliveries().len(), 2);
}

#[tokio::test]
async fn a_registration_that_is_gone_is_named_all_the_same() {
    let (world, accepted) = delivered(json!({})).await;
    let route = "DELETE /v1/registrations/{registration}";
    let parameters = [("registration", "hook")];
    let response = ask(&world.memory, Role::Admin, route, &parameters, json!(null)).await;
    assert!(response.status < 300, "{}", response.body);
    let said = statement(&receipt(&world, &id(&accepted)).await);
    assert_eq!(said["predicate"]["registration"]["nameWhenSigned"], "hook");
}

/// With the program that `COSIGN` names; 2.4.1 was tried.
#[tokio::test]
async fn cosign_accepts_a_receipt_for_what_was_delivered_and_for_nothing_else() {
    let Some(cosign) = std::env::var_os("COSIGN") else {
        let line = b"did not run: cosign and a receipt (COSIGN is not set)\n";
        std::io::stderr().write_all(line).unwrap();
        return;
    };
    let (world, accepted) = delivered(json!({ "send_sbom": true })).await;
    let envelope = receipt(&world, &id(&accepted)).await;
    let pem = key(&world, Role::Viewer).await["pem"].clone();
    let received = accepted.attestation.received;
    let kept = world.memory.get_object(&ORGANIZATION, &received).await;
    let mut changed = envelope.clone();
    changed.payload[10] ^= 1;
    let directory = std::env::temp_dir().join(format!("receipts-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let key = file("key.pem", pem.as_str().unwrap().as_bytes());
    let attestation = file("attestation.json", &kept.unwrap().unwrap());
    let (sbom, other) = (file("sbom.json", SBOM), file("other.json", b"{}"));
    let good = file("receipt.json", &envelope.compact());
    let bad = file("changed.json", &changed.compact());
    let accepts = |receipt: &Path, blob: &Path| {
        let mut command = Command::new(&cosign);
        command.args([
            "verify-blob-attestation",
            "--insecure-ignore-tlog",
            "--type",
        ]);
        command.arg(PREDICATE_TYPE).arg("--key").arg(&key);
        command.arg("--signature").arg(receipt).arg(blob);
        command.output().unwrap().status.success()
    };
    assert!(accepts(&good, &attestation));
    assert!(accepts(&good, &sbom));
    assert!(!accepts(&good, &other));
    assert!(!accepts(&bad, &attestation));
    for run in 2..=20 {
        let bytes = crate::world::attestation(&run.to_string(), vec![]).compact();
        let accepted = world.push(bytes.clone()).await.unwrap();
        world.deliver().await;
        let envelope = receipt(&world, &id(&accepted)).await;
        let receipt = file("receipt.json", &envelope.compact());
        assert!(accepts(&receipt, &file("attestation.json", &bytes)));
        assert!(!accepts(&receipt, &other));
    }
    fs::remove_dir_all(&directory).unwrap();
}
