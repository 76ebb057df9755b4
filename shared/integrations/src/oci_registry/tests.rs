//! Against a registry that answers what it is told to. `tests/peers` has the same with real ones.

use std::time::Duration;

use api::trust::Code;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{self, Lock, Peer, Received, Stage};
use crate::http::{Guard, origin};
use crate::{Kind, PresenceState, inputs};

const PASSWORD: &str = "canary-of-the-password";
const AGAIN: Kind = Kind::Retryable { after: None };

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

fn there() -> String {
    answer("200 OK", "", "")
}

fn absent() -> String {
    answer("404 Not Found", "", "")
}

fn begun(location: &str) -> String {
    answer("202 Accepted", &format!("location: {location}\r\n"), "")
}

fn created() -> String {
    answer("201 Created", "", "")
}

fn refused(status: &str, code: &str) -> String {
    let body = json!({ "errors": [{ "code": code, "message": "so it is", "detail": {} }] });
    answer(
        status,
        "content-type: application/json\r\n",
        &body.to_string(),
    )
}

/// To everything before the manifest, where the blobs are there already.
fn before_manifest() -> [String; 3] {
    [absent(), there(), there()]
}

/// To a whole push of which nothing is there.
fn whole_push() -> [String; 8] {
    [
        absent(),
        absent(),
        begun("/v2/acme/shop/blobs/uploads/1?state=a%2Fb"),
        created(),
        absent(),
        begun("/v2/acme/shop/blobs/uploads/2"),
        created(),
        created(),
    ]
}

fn party(answers: &[String]) -> Peer {
    Peer::start(&answers.iter().map(String::as_str).collect::<Vec<_>>())
}

fn registration(party: &Peer) -> Registration {
    registration_with(party, "robot", PASSWORD)
}

fn registration_with(party: &Peer, username: &str, password: &str) -> Registration {
    let host = party.origin.strip_prefix("http://").unwrap();
    serde_json::from_value(json!({
        "repository": format!("{host}/acme/shop"),
        "username": username,
        "password": password,
    }))
    .unwrap()
}

fn attachment(inputs: Value) -> Attachment {
    serde_json::from_value(inputs).unwrap()
}

async fn deliver_with(
    stage: &Stage,
    party: &Peer,
    attachment: &Attachment,
) -> Result<Outcome, Error> {
    let registration = registration(party);
    let delivery = stage.delivery::<OciRegistry>(&registration, attachment);
    OciRegistry::deliver(&fixture::http(), stage, &delivery).await
}

async fn deliver(stage: &Stage, party: &Peer) -> Result<Outcome, Error> {
    deliver_with(stage, party, &attachment(json!({}))).await
}

/// Returns the error of a delivery that gets these responses.
async fn failure(answers: &[String]) -> Error {
    let party = party(answers);
    let error = deliver(&Stage::new(), &party).await.unwrap_err();
    assert_eq!(party.received().len(), answers.len(), "{error}");
    error
}

fn receipt(outcome: Outcome) -> Map<String, Value> {
    match outcome {
        Outcome::Delivered(receipt) => receipt,
        other => panic!("{other:?}"),
    }
}

fn lines(party: &Peer) -> Vec<String> {
    let received = party.received().into_iter();
    received
        .map(|one| format!("{} {}", one.method, one.target))
        .collect()
}

/// The artifact that is pushed by default.
fn artifact(stage: &Stage, subject: Option<Descriptor>) -> Artifact {
    let registration: Registration = serde_json::from_value(
        json!({ "repository": "ghcr.io/acme/shop", "username": "u", "password": "p" }),
    )
    .unwrap();
    let attachment = attachment(json!({}));
    Artifact::of(&stage.delivery(&registration, &attachment), subject)
}

fn has_digest(digest: Digest) -> String {
    answer(
        "200 OK",
        &format!("docker-content-digest: {digest}\r\n"),
        "",
    )
}

// --- what is pushed -----------------------------------------------------------------------------------

#[tokio::test]
async fn blobs_come_before_the_manifest_which_has_the_tag() {
    let party = party(&whole_push());
    let stage = Stage::new();
    let receipt = receipt(deliver(&stage, &party).await.unwrap());
    let (layer, artifact) = (stage.attestation.received, artifact(&stage, None));
    let empty = Digest::of(b"{}");
    let encoded = |digest: Digest| digest.to_string().replace(':', "%3A");
    let tag = format!("chainloop-{}", layer.hex());
    assert_eq!(
        lines(&party),
        [
            format!("HEAD /v2/acme/shop/manifests/{tag}"),
            format!("HEAD /v2/acme/shop/blobs/{empty}"),
            "POST /v2/acme/shop/blobs/uploads/".to_owned(),
            format!(
                "PUT /v2/acme/shop/blobs/uploads/1?state=a%2Fb&digest={}",
                encoded(empty)
            ),
            format!("HEAD /v2/acme/shop/blobs/{layer}"),
            "POST /v2/acme/shop/blobs/uploads/".to_owned(),
            format!(
                "PUT /v2/acme/shop/blobs/uploads/2?digest={}",
                encoded(layer)
            ),
            format!("PUT /v2/acme/shop/manifests/{tag}"),
        ]
    );
    let received = party.received();
    assert_eq!(received[2].headers["content-length"], "0");
    assert_eq!(received[3].body, b"{}");
    assert_eq!(received[6].body, stage.received);
    assert_eq!(received[7].body, artifact.manifest);
    assert_eq!(received[7].headers["content-type"], manifest::MANIFEST);
    let host = party.origin.strip_prefix("http://").unwrap();
    let digest = artifact.descriptor.digest;
    assert_eq!(
        json!(receipt),
        json!({
            "reference": format!("{host}/acme/shop:{tag}@{digest}"),
            "digest": digest,
            "subject": null,
            "no_subject": "no image of this repository is attested",
            "referrers": null,
        })
    );
}

#[test]
fn the_manifest_is_these_bytes() {
    let registration: Registration = serde_json::from_value(
        json!({ "repository": "ghcr.io/acme/shop", "username": "u", "password": "p" }),
    )
    .unwrap();
    let image = Descriptor {
        media_type: manifest::MANIFEST.to_owned(),
        digest: Digest::of(b"image"),
        size: 5,
        artifact_type: None,
        annotations: std::collections::BTreeMap::new(),
    };
    for (name, stage, inputs, subject) in [
        ("envelope", Stage::new(), json!({}), None),
        (
            "bundle",
            Stage::new().bundled(),
            json!({ "prefix": "release" }),
            Some(image),
        ),
        (
            "compatible",
            Stage::new(),
            json!({ "compatibility": true }),
            None,
        ),
    ] {
        let attachment = attachment(inputs);
        let artifact = Artifact::of(&stage.delivery(&registration, &attachment), subject);
        assert!(artifact.tag.starts_with(attachment.prefix.as_str()));
        let text = std::str::from_utf8(&artifact.manifest).unwrap();
        fixture::compare(&format!("oci-registry-{name}.json"), text);
    }
}

#[test]
fn a_bundle_is_called_by_the_version_that_it_has() {
    for version in ["0.1", "0.2", "0.3"] {
        let stage = Stage::new().bundled_as(version);
        let artifact = artifact(&stage, None);
        let manifest: Value = serde_json::from_slice(&artifact.manifest).unwrap();
        let expected = format!("application/vnd.dev.sigstore.bundle.v{version}+json");
        assert_eq!(manifest["artifactType"], expected);
        assert_eq!(manifest["layers"][0]["mediaType"], expected);
        let layer = Digest::of(&stage.received).to_string();
        assert_eq!(manifest["layers"][0]["digest"], layer);
    }
}

#[test]
fn an_annotation_is_one_line_and_a_time_that_is_none_is_left_out() {
    let statement = include_str!("../../tests/files/statement.json")
        .replace("2026-01-02T03:09:30Z", "yesterday");
    let mut stage = Stage::of(&statement);
    stage.workflow.name = "nightly\u{1b}[31m\nbuild".to_owned();
    let annotations = artifact(&stage, None).descriptor.annotations;
    assert_eq!(
        annotations["dev.chainloop.workflow.name"],
        "nightly [31m build"
    );
    assert!(!annotations.contains_key("org.opencontainers.image.created"));
    assert!(!annotations.contains_key("dev.chainloop.signature.verdict"));
    let judged = stage.judged(Code::NoConfiguredSigner);
    let annotations = artifact(&judged, None).descriptor.annotations;
    assert_eq!(
        annotations["dev.chainloop.signature.verdict"],
        "unknown-signer"
    );
    let shown = format!("{annotations:?}");
    assert!(!shown.contains('@'), "no address of a person: {shown}");
}

#[tokio::test]
async fn what_is_there_is_not_pushed_again() {
    let stage = Stage::new();
    let digest = artifact(&stage, None).descriptor.digest;
    let party = party(&[has_digest(digest)]);
    let receipt = receipt(deliver(&stage, &party).await.unwrap());
    assert_eq!(receipt["digest"], json!(digest));
    assert_eq!(party.received().len(), 1);
}

#[tokio::test]
async fn where_the_digest_is_not_told_the_manifest_is_read() {
    let stage = Stage::new();
    let manifest = artifact(&stage, None).manifest;
    let there = [
        there(),
        answer("200 OK", "", std::str::from_utf8(&manifest).unwrap()),
    ];
    let party = party(&there);
    receipt(deliver(&stage, &party).await.unwrap());
    assert_eq!(party.received()[1].method, "GET");
}

#[tokio::test]
async fn blobs_that_are_there_are_not_uploaded_and_a_tag_on_something_else_is_moved() {
    let party = party(&[
        has_digest(Digest::of(b"other")),
        there(),
        there(),
        created(),
    ]);
    receipt(deliver(&Stage::new(), &party).await.unwrap());
    assert_eq!(party.received()[3].method, "PUT");
}

#[tokio::test]
async fn a_blob_is_found_where_the_registry_keeps_it_and_that_place_learns_nothing() {
    let storage = party(&[there()]);
    let moved = answer(
        "307 Temporary Redirect",
        &format!("location: {}/bucket/x?signature=y\r\n", storage.origin),
        "",
    );
    let registry = party(&[basic(), absent(), moved, there(), created()]);
    receipt(deliver(&Stage::new(), &registry).await.unwrap());
    let asked = storage.received();
    assert_eq!(asked[0].target, "/bucket/x?signature=y");
    assert!(!asked[0].headers.contains_key("authorization"));
    assert!(registry.received()[2].headers.contains_key("authorization"));
}

#[tokio::test]
async fn an_upload_that_goes_on_elsewhere_learns_nothing_of_who_we_are() {
    let storage = party(&[created()]);
    let place = begun(&format!("{}/upload?x=1", storage.origin));
    let registry = party(&[basic(), absent(), absent(), place, there(), created()]);
    receipt(deliver(&Stage::new(), &registry).await.unwrap());
    let sent = storage.received();
    assert!(sent[0].target.starts_with("/upload?x=1&digest=sha256"));
    assert!(!sent[0].headers.contains_key("authorization"));
    let received = registry.received();
    assert!(received[3].headers.contains_key("authorization"));
}

#[tokio::test]
async fn an_upload_does_not_go_on_over_plain_http_or_to_a_private_address() {
    for place in [
        "http://storage.example.org/x",
        "https://10.0.0.1/x",
        "https://u:p@example.org/x",
    ] {
        let answers = [absent(), absent(), begun(place)];
        let error = failure(&answers).await;
        assert_eq!(error.kind, Kind::Permanent, "{error}");
        assert!(error.text.contains("is not allowed"), "{error}");
        let start = "upload to 127.0.0.1:";
        assert!(error.text.starts_with(start), "{error}");
    }
    let answers = [absent(), absent(), answer("202 Accepted", "", "")];
    let error = failure(&answers).await;
    assert!(error.text.ends_with("does not say where to"), "{error}");
}

#[tokio::test]
async fn the_preview_is_what_is_sent() {
    let party = party(&whole_push());
    let stage = Stage::new();
    let (registration, attachment) = (registration(&party), attachment(json!({})));
    let delivery = stage.delivery::<OciRegistry>(&registration, &attachment);
    let previews = OciRegistry::preview(&stage, &delivery).await.unwrap();
    receipt(deliver(&stage, &party).await.unwrap());
    let sent: Vec<Received> = party.received();
    let sent: Vec<_> = sent.iter().filter(|one| one.method == "PUT").collect();
    assert_eq!(previews.len(), 3);
    for (preview, sent) in previews.iter().zip(&sent) {
        assert_eq!(preview.body.as_bytes(), sent.body);
        assert_eq!(preview.digest, Digest::of(&sent.body));
        assert_eq!(
            preview.headers["content-type"],
            sent.headers["content-type"]
        );
        assert!(!format!("{preview:?}").contains("canary"));
    }
    let upload = &previews[0].target;
    assert!(
        upload.contains("/v2/acme/shop/blobs/uploads/…?digest=sha256"),
        "{upload}"
    );
    assert_eq!(
        previews[2].target,
        format!("{}{}", party.origin, sent[2].target)
    );
}

// --- who we are ---------------------------------------------------------------------------------------

fn unauthorized(challenges: &[&str]) -> String {
    let headers = challenges.iter().fold(String::new(), |headers, challenge| {
        headers + &format!("www-authenticate: {challenge}\r\n")
    });
    let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
    answer("401 Unauthorized", &headers, body)
}

fn basic() -> String {
    unauthorized(&[r#"Basic realm="registry""#])
}

fn bearer(service: &Peer) -> String {
    let challenge = format!(
        r#"Bearer realm="{}/token?x=1",service="registry.example",scope="repository:acme/shop:pull""#,
        service.origin
    );
    unauthorized(&[r#"Basic realm="registry", Negotiate"#, &challenge])
}

fn token(name: &str, token: &str) -> String {
    answer(
        "200 OK",
        "",
        &json!({ name: token, "expires_in": 60 }).to_string(),
    )
}

#[tokio::test]
async fn name_and_password_are_given_when_the_registry_asks() {
    let party = party(&[basic(), absent(), there(), there(), created()]);
    receipt(deliver(&Stage::new(), &party).await.unwrap());
    let received = party.received();
    assert!(!received[0].headers.contains_key("authorization"));
    let encoded = base64_simd::STANDARD.encode_to_string(format!("robot:{PASSWORD}"));
    for one in &received[1..] {
        assert_eq!(one.headers["authorization"], format!("Basic {encoded}"));
    }
}

#[tokio::test]
async fn a_token_is_asked_for_where_the_registry_says_and_then_used() {
    for name in ["token", "access_token"] {
        let service = party(&[token(name, "t0ken")]);
        let registry = party(&[bearer(&service), absent(), there(), there(), created()]);
        receipt(deliver(&Stage::new(), &registry).await.unwrap());
        let asked = service.received();
        assert_eq!(
            asked[0].target,
            "/token?x=1&service=registry.example&scope=repository%3Aacme%2Fshop%3Apull%2Cpush"
        );
        assert!(asked[0].headers["authorization"].starts_with("Basic "));
        for one in &registry.received()[1..] {
            assert_eq!(one.headers["authorization"], "Bearer t0ken");
        }
    }
}

#[tokio::test]
async fn a_token_that_has_run_out_is_replaced_once() {
    let service = party(&[token("token", "first"), token("token", "second")]);
    let registry = party(&[
        bearer(&service),
        absent(),
        there(),
        bearer(&service),
        there(),
        created(),
    ]);
    receipt(deliver(&Stage::new(), &registry).await.unwrap());
    let received = registry.received();
    assert_eq!(received[3].headers["authorization"], "Bearer first");
    assert_eq!(received[4].target, received[3].target);
    assert_eq!(received[5].headers["authorization"], "Bearer second");
}

#[tokio::test]
async fn a_token_to_cancel_an_upload_is_one_to_delete_where_the_registry_says_so() {
    for (scope, expected) in [
        ("acme/shop:delete", "acme%2Fshop%3Apull%2Cpush%2Cdelete"),
        ("acme/shop:*", "acme%2Fshop%3Apull%2Cpush"),
        ("other:delete", "acme%2Fshop%3Apull%2Cpush"),
    ] {
        let service = party(&[token("token", "first"), token("token", "second")]);
        let asks = |scope: &str| {
            unauthorized(&[&format!(
                r#"Bearer realm="{}/token",scope="repository:{scope}",error="insufficient_scope""#,
                service.origin
            )])
        };
        let place = begun("/v2/acme/shop/blobs/uploads/1");
        let gone = answer("204 No Content", "", "");
        let registry = party(&[asks("acme/shop:pull,push"), place, asks(scope), gone]);
        let registration = registration(&registry);
        OciRegistry::register(&fixture::http(), &registration)
            .await
            .unwrap();
        let asked = service.received();
        let push = "/token?scope=repository%3Aacme%2Fshop%3Apull%2Cpush";
        assert_eq!(asked[0].target, push);
        assert_eq!(
            asked[1].target,
            format!("/token?scope=repository%3A{expected}")
        );
        assert_eq!(
            registry.received()[3].headers["authorization"],
            "Bearer second"
        );
    }
}

#[tokio::test]
async fn a_401_after_that_is_unauthorized() {
    let service = party(&[token("token", "first")]);
    let error = failure(&[bearer(&service), bearer(&service)]).await;
    assert_eq!(error.kind, Kind::Unauthorized);
    assert!(
        error.text.contains("the provided credentials are invalid"),
        "{error}"
    );
    assert_eq!(service.received().len(), 1);
    let error = failure(&[basic(), basic()]).await;
    assert_eq!(error.kind, Kind::Unauthorized);
    let error = failure(&[unauthorized(&["Negotiate"])]).await;
    assert_eq!(error.kind, Kind::Unauthorized);
    let error = failure(&[unauthorized(&[])]).await;
    assert_eq!(error.kind, Kind::Unauthorized);
}

#[tokio::test]
async fn what_the_token_service_answers_has_its_class() {
    for (said, kind, text) in [
        (
            refused("401 Unauthorized", "UNAUTHORIZED"),
            Kind::Unauthorized,
            "credentials are invalid: UNAUTHORIZED: so it is",
        ),
        (
            refused("403 Forbidden", "DENIED"),
            Kind::Permanent,
            "DENIED: so it is",
        ),
        (
            refused("429 Too Many Requests", "TOOMANYREQUESTS"),
            AGAIN,
            "TOOMANYREQUESTS",
        ),
        (
            answer("503 Service Unavailable", "retry-after: 7\r\n", ""),
            Kind::Retryable {
                after: Some(Duration::from_secs(7)),
            },
            "503",
        ),
        (
            answer("404 Not Found", "", "<html>"),
            Kind::Permanent,
            "answered 404 Not Found",
        ),
        (
            answer("204 No Content", "", ""),
            Kind::Permanent,
            "answered 204",
        ),
        (
            answer("200 OK", "", "<html>"),
            Kind::Permanent,
            "the answer has none",
        ),
        (
            answer("200 OK", "", "{}"),
            Kind::Permanent,
            "the answer has none",
        ),
        (
            token("token", "two\nlines"),
            Kind::Permanent,
            "the answer has none",
        ),
    ] {
        let service = party(&[said]);
        let error = failure(&[bearer(&service)]).await;
        assert_eq!(error.kind, kind, "{error}");
        assert!(
            error.text.starts_with("get a token for 127.0.0.1"),
            "{error}"
        );
        assert!(error.text.contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_token_service_has_to_be_a_safe_place() {
    for (realm, reason) in [
        (
            "http://auth.example.org/token",
            "a URL that is not https is not allowed",
        ),
        ("https://10.1.2.3/token", "a private address is not allowed"),
        (
            "https://auth.example.org:22/token",
            "this port is not allowed; use 443 or 8443",
        ),
        (
            "https://u:p@auth.example.org/",
            "a URL with credentials in it is not allowed",
        ),
        (
            "file:///etc/passwd",
            "it names a token service that is not a URL",
        ),
        ("token", "it names a token service that is not a URL"),
    ] {
        let error = failure(&[unauthorized(&[&format!("Bearer realm=\"{realm}\"")])]).await;
        assert_eq!(error.kind, Kind::Permanent, "{error}");
        assert!(error.text.contains(reason), "{realm}: {error}");
        // The registry may have been told nothing of the proxy in front of it.
        let is_url = realm.contains('.');
        assert_eq!(error.text.contains("and leads to http"), is_url, "{error}");
        assert_eq!(error.text.ends_with("X-Forwarded-Proto"), is_url, "{error}");
    }
}

#[tokio::test]
async fn a_redirected_token_request_leaves_the_password_behind() {
    let elsewhere = party(&[token("token", "t0ken")]);
    let moved = answer(
        "302 Found",
        &format!("location: {}/t\r\n", elsewhere.origin),
        "",
    );
    let service = party(&[moved]);
    let registry = party(&[bearer(&service), absent(), there(), there(), created()]);
    receipt(deliver(&Stage::new(), &registry).await.unwrap());
    assert!(service.received()[0].headers.contains_key("authorization"));
    assert!(
        !elsewhere.received()[0]
            .headers
            .contains_key("authorization")
    );
    // And not without end.
    let same = answer("302 Found", "location: /t\r\n", "");
    let service = party(&[same.clone(), same.clone(), same.clone(), same]);
    let error = failure(&[bearer(&service)]).await;
    assert_eq!(error.kind, Kind::Permanent);
    assert_eq!(service.received().len(), 4);
}

const KEY_FILE: &str = r#"{
  "type": "service_account",
  "project_id": "my-project",
  "private_key_id": "0123456789abcdef0123456789abcdef01234567",
  "private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nQmFzZTY0T2ZBS2V5VGhhdElzTm9uZQ==\n-----END PRIVATE KEY-----\n",
  "client_email": "robot@my-project.iam.gserviceaccount.example"
}
"#;

#[tokio::test]
async fn a_key_file_is_a_password_like_any_other_and_no_part_of_it_is_shown() {
    for username in ["_json_key", "_json_key_base64", "oauth2accesstoken"] {
        let service = party(&[answer("401 Unauthorized", "", "")]);
        let registry = party(&[bearer(&service)]);
        let registration = registration_with(&registry, username, KEY_FILE);
        let error = OciRegistry::register(&fixture::http(), &registration)
            .await
            .unwrap_err();
        let encoded = base64_simd::STANDARD.encode_to_string(format!("{username}:{KEY_FILE}"));
        assert_eq!(
            service.received()[0].headers["authorization"],
            format!("Basic {encoded}")
        );
        let shown = format!("{error} {error:?} {registration:?}");
        for part in ["0123456789abcdef", "MIIEvQ", "QmFzZTY0", "gserviceaccount"] {
            assert!(!shown.contains(part), "{part}: {shown}");
        }
    }
}

#[tokio::test]
async fn neither_password_nor_token_is_in_an_error() {
    let encoded = base64_simd::STANDARD.encode_to_string(format!("robot:{PASSWORD}"));
    let echo = format!("no {PASSWORD} {encoded} canary-of-a-token robot");
    let service = party(&[token("token", "canary-of-a-token")]);
    let error = failure(&[
        bearer(&service),
        answer("400 Bad Request", "", ""),
        there(),
        there(),
        answer("400 Bad Request", "", &echo),
    ])
    .await;
    let shown = format!("{error} {error:?}");
    assert!(
        !shown.contains("canary") && !shown.contains(&encoded),
        "{shown}"
    );
    assert!(error.text.ends_with(": no …"), "{error}");
}

#[tokio::test]
async fn what_was_refused_is_not_shown_again() {
    let error = failure(&[basic(), absent(), basic()]).await;
    assert_eq!(error.kind, Kind::Unauthorized);
}

// --- what answers mean --------------------------------------------------------------------------------

/// Asserts that this response to the manifest, to an upload, and to the start of one is a failure of this kind.
async fn check(said: &str, kind: Kind, text: &str) {
    let manifest = [before_manifest().as_slice(), &[said.to_owned()]].concat();
    let upload = [absent(), absent(), begun("/u"), said.to_owned()];
    let begin = [absent(), absent(), said.to_owned()];
    for answers in [&manifest[..], &upload, &begin] {
        let error = failure(answers).await;
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.text.contains(text), "{error}");
        assert!(!error.text.contains('<'), "{error}");
    }
}

#[tokio::test]
async fn a_403_is_permanent_and_gives_the_registrys_reason() {
    let text = "the provided credentials don't have write permissions: DENIED: so it is";
    check(&refused("403 Forbidden", "DENIED"), Kind::Permanent, text).await;
}

#[tokio::test]
async fn a_repository_that_is_not_there_has_to_be_created() {
    let text = "NAME_UNKNOWN: so it is; create the repository first";
    let said = refused("404 Not Found", "NAME_UNKNOWN");
    let manifest = [before_manifest().as_slice(), std::slice::from_ref(&said)].concat();
    for answers in [&manifest[..], &[absent(), absent(), said]] {
        let error = failure(answers).await;
        assert_eq!(error.kind, Kind::Permanent);
        assert!(error.text.ends_with(text), "{error}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_names_and_digests_stays_wrong() {
    for code in ["NAME_INVALID", "DIGEST_INVALID", "SIZE_INVALID"] {
        check(&refused("400 Bad Request", code), Kind::Permanent, code).await;
    }
    let name = [
        before_manifest().as_slice(),
        &[refused("404 Not Found", "NAME_INVALID")],
    ]
    .concat();
    assert_eq!(failure(&name).await.kind, Kind::Permanent);
}

#[tokio::test]
async fn a_manifest_that_is_not_taken_names_the_option_that_may_help() {
    for said in [
        refused("400 Bad Request", "MANIFEST_INVALID"),
        refused("415 Unsupported Media Type", "UNSUPPORTED"),
        refused("405 Method Not Allowed", "UNSUPPORTED"),
        refused("400 Bad Request", "UNSUPPORTED"),
        answer("415 Unsupported Media Type", "", "<html>no</html>"),
    ] {
        let answers = [before_manifest().as_slice(), &[said]].concat();
        let error = failure(&answers).await;
        assert_eq!(error.kind, Kind::Permanent);
        assert!(error.text.contains("option compatibility=true"), "{error}");
        let party = party(&answers);
        let attachment = attachment(json!({ "compatibility": true }));
        let error = deliver_with(&Stage::new(), &party, &attachment)
            .await
            .unwrap_err();
        assert!(!error.text.contains("compatibility"), "{error}");
    }
}

#[tokio::test]
async fn what_was_lost_on_the_way_is_uploaded_again_without_asking() {
    for said in [
        refused("400 Bad Request", "MANIFEST_BLOB_UNKNOWN"),
        refused("404 Not Found", "MANIFEST_BLOB_UNKNOWN"),
    ] {
        let again = [begun("/1"), created(), begun("/2"), created()];
        let first = [
            before_manifest().as_slice(),
            std::slice::from_ref(&said),
            &again,
        ]
        .concat();
        let party = party(&[first.as_slice(), &[created()]].concat());
        receipt(deliver(&Stage::new(), &party).await.unwrap());
        assert_eq!(party.received().len(), 9);
        let error = failure(&[first.as_slice(), &[said]].concat()).await;
        assert_eq!(error.kind, AGAIN);
    }
}

#[tokio::test]
async fn an_upload_that_the_registry_forgot_is_begun_anew() {
    for said in [
        refused("404 Not Found", "BLOB_UPLOAD_UNKNOWN"),
        refused("400 Bad Request", "BLOB_UPLOAD_UNKNOWN"),
        refused("400 Bad Request", "BLOB_UPLOAD_INVALID"),
        refused("404 Not Found", "BLOB_UPLOAD_INVALID"),
        answer("416 Range Not Satisfiable", "", ""),
        answer("404 Not Found", "", "404 page not found"),
        answer("410 Gone", "", ""),
    ] {
        let first = [absent(), absent(), begun("/0"), said.clone()];
        let again = [begun("/1"), created(), begun("/2"), created(), created()];
        let party = party(&[first.as_slice(), &again].concat());
        receipt(deliver(&Stage::new(), &party).await.unwrap());
        let error = failure(&[first.as_slice(), &[begun("/1"), said]].concat()).await;
        assert_eq!(error.kind, AGAIN, "{error}");
    }
}

#[tokio::test]
async fn a_tag_that_cannot_be_changed_is_ours_or_is_not() {
    for said in [
        answer("412 Precondition Failed", "", ""),
        refused("409 Conflict", "DENIED"),
        refused("400 Bad Request", "TAG_INVALID"),
        refused("400 Bad Request", "ImageTagAlreadyExistsException"),
        answer("403 Forbidden", "", "tags here are immutable"),
    ] {
        let stage = Stage::new();
        let ours = artifact(&stage, None).descriptor.digest;
        let first = [before_manifest().as_slice(), &[said]].concat();
        let party = party(&[first.as_slice(), &[has_digest(ours)]].concat());
        receipt(deliver(&stage, &party).await.unwrap());
        let other = has_digest(Digest::of(b"other"));
        let error = failure(&[first.as_slice(), &[other]].concat()).await;
        assert_eq!(error.kind, Kind::Permanent);
        assert!(error.text.ends_with("is another manifest's"), "{error}");
    }
}

#[tokio::test]
async fn too_large_is_permanent() {
    let said = answer("413 Content Too Large", "", "<html>nginx</html>");
    check(&said, Kind::Permanent, "answered 413 Payload Too Large").await;
}

#[tokio::test]
async fn too_many_requests_wait_as_long_as_they_are_told() {
    let hub =
        "retry-after: 30\r\nratelimit-limit: 100;w=21600\r\nratelimit-remaining: 0;w=21600\r\n";
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
    let kind = Kind::Retryable {
        after: Some(Duration::from_secs(30)),
    };
    let text =
        "TOOMANYREQUESTS: slow down: ratelimit-limit 100;w=21600, ratelimit-remaining 0;w=21600";
    check(&answer("429 Too Many Requests", hub, body), kind, text).await;
    // Some say it by the code alone.
    check(
        &refused("403 Forbidden", "TOOMANYREQUESTS"),
        AGAIN,
        "TOOMANYREQUESTS",
    )
    .await;
    // And already to the first question, which has no body.
    let error = failure(&[answer("429 Too Many Requests", hub, "")]).await;
    assert_eq!(error.kind, kind);
    let error = failure(&[absent(), answer("429 Too Many Requests", hub, "")]).await;
    assert_eq!(error.kind, kind);
}

#[tokio::test]
async fn a_5xx_is_retried() {
    for status in [
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
    ] {
        check(
            &answer(status, "", "<html>x</html>"),
            AGAIN,
            &format!("answered {status}"),
        )
        .await;
        assert_eq!(failure(&[answer(status, "", "")]).await.kind, AGAIN);
        assert_eq!(
            failure(&[absent(), answer(status, "", "")]).await.kind,
            AGAIN
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_not_json_is_an_answer() {
    check(
        &answer("400 Bad Request", "", "plain words\r\n"),
        Kind::Permanent,
        "answered 400 Bad Request: plain words",
    )
    .await;
    let page = answer("400 Bad Request", "", "\n<!doctype html><title>x</title>");
    check(&page, Kind::Permanent, "answered 400 Bad Request").await;
    let odd = answer("400 Bad Request", "", r#"{"errors":null}"#);
    check(&odd, Kind::Permanent, "answered 400 Bad Request").await;
    let long = json!({ "errors": [{ "code": "X", "message": "é".repeat(5000) }] }).to_string();
    let error = failure(&[absent(), absent(), answer("400 Bad Request", "", &long)]).await;
    assert!(error.text.len() < 500, "{error}");
}

#[tokio::test]
async fn what_is_gone_does_not_make_the_registration_dead() {
    let error = failure(&[absent(), absent(), answer("410 Gone", "", "")]).await;
    assert_eq!(error.kind, Kind::Permanent);
}

#[tokio::test]
async fn a_redirected_push_is_not_followed() {
    let moved = answer("307 Temporary Redirect", "location: /elsewhere\r\n", "");
    check(&moved, Kind::Permanent, "answered 307 Temporary Redirect").await;
}

#[tokio::test]
async fn a_registry_that_changes_the_manifest_is_told_of() {
    let other = Digest::of(b"other");
    let changed = answer(
        "201 Created",
        &format!("docker-content-digest: {other}\r\n"),
        "",
    );
    let error = failure(&[before_manifest().as_slice(), &[changed]].concat()).await;
    assert_eq!(error.kind, Kind::Permanent);
    assert!(
        error
            .text
            .contains(&format!("the registry made {other} of")),
        "{error}"
    );
}

// --- what it is about ---------------------------------------------------------------------------------

const IMAGE: &str = r#"{"schemaVersion":2}"#;

/// An attestation of an image in the registry's repository.
fn about_image(party: &Peer) -> Stage {
    let host = party.origin.strip_prefix("http://").unwrap();
    let statement = include_str!("../../tests/files/statement.json")
        .replace(
            "registry.example.org/acme/shop",
            &format!("{host}/acme/shop"),
        )
        .replace(&"3".repeat(64), &Digest::of(IMAGE.as_bytes()).hex());
    Stage::of(&statement)
}

fn image() -> String {
    let kind = format!("content-type: {}; charset=utf-8\r\n", manifest::MANIFEST);
    answer("200 OK", &kind, IMAGE)
}

fn subject_of(received: &Received) -> Value {
    let manifest: Value = serde_json::from_slice(&received.body).unwrap();
    manifest["subject"].clone()
}

/// To the manifest, from a registry that says that it will list it.
fn claimed() -> String {
    let subject = Digest::of(IMAGE.as_bytes());
    answer("201 Created", &format!("oci-subject: {subject}\r\n"), "")
}

/// The manifest of an attestation of the image.
fn ours(stage: &Stage) -> Digest {
    let subject = Descriptor {
        media_type: manifest::MANIFEST.to_owned(),
        digest: Digest::of(IMAGE.as_bytes()),
        size: IMAGE.len() as u64,
        artifact_type: None,
        annotations: std::collections::BTreeMap::new(),
    };
    artifact(stage, Some(subject)).descriptor.digest
}

/// To a push of an attestation of the image, up to the manifest.
fn pushed() -> Vec<String> {
    [[image()].as_slice(), &before_manifest(), &[created()]].concat()
}

/// Returns the receipt of a delivery that gets these responses, and the third party.
async fn delivered(answers: &[String]) -> (Map<String, Value>, Peer) {
    let party = party(answers);
    let stage = about_image(&party);
    let receipt = receipt(deliver(&stage, &party).await.unwrap());
    assert_eq!(party.received().len(), answers.len());
    (receipt, party)
}

/// Returns the receipt and the note of a delivery whose artifact could not be listed.
async fn delivered_in_part(answers: &[String]) -> (Map<String, Value>, String) {
    let party = party(answers);
    let outcome = deliver(&about_image(&party), &party).await.unwrap();
    assert_eq!(party.received().len(), answers.len());
    match outcome {
        Outcome::PartlyDelivered { receipt, note } => (receipt, note),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_attested_image_of_the_same_repository_is_the_subject() {
    let party = party(&[]);
    let stage = about_image(&party);
    let native = index(&json!([{ "digest": ours(&stage) }]));
    let answers = [
        [image()].as_slice(),
        &before_manifest(),
        &[claimed(), native],
    ]
    .concat();
    let answers: Vec<_> = answers.iter().map(String::as_str).collect();
    let party = Peer::again(&party, &answers).await;
    let receipt = receipt(deliver(&stage, &party).await.unwrap());
    let digest = Digest::of(IMAGE.as_bytes());
    let received = party.received();
    assert_eq!(received.len(), 6, "the registry lists it by itself");
    assert_eq!(
        received[0].target,
        format!("/v2/acme/shop/manifests/{digest}")
    );
    assert!(received[0].headers["accept"].contains("image.index.v1+json"));
    let subject = json!({ "mediaType": manifest::MANIFEST, "digest": digest, "size": IMAGE.len() });
    assert_eq!(subject_of(&received[4]), subject);
    assert_eq!(
        (&receipt["subject"], &receipt["referrers"]),
        (&json!(digest), &json!("native"))
    );
    assert!(!receipt.contains_key("no_subject"));
    let steps: Vec<_> = stage.recorded().into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, [SUBJECT_STEP, MANIFEST_STEP]);
}

#[tokio::test]
async fn an_image_that_is_not_there_or_not_wanted_is_no_subject() {
    for (said, attachment, reason) in [
        (Some(absent()), json!({}), "is not in this repository"),
        (
            Some(answer("200 OK", "content-type: text/html\r\n", IMAGE)),
            json!({}),
            "is not in this repository",
        ),
        (
            Some(answer(
                "200 OK",
                &format!("content-type: {}\r\n", manifest::MANIFEST),
                "{}",
            )),
            json!({}),
            "is not in this repository",
        ),
        (
            None,
            json!({ "subject": false }),
            "the attachment asks for none",
        ),
    ] {
        let said: Vec<String> = said.into_iter().collect();
        let answers = [said.as_slice(), &before_manifest(), &[created()]].concat();
        let party = party(&answers);
        let stage = about_image(&party);
        let outcome = deliver_with(&stage, &party, &self::attachment(attachment)).await;
        let receipt = receipt(outcome.unwrap());
        assert_eq!(subject_of(party.received().last().unwrap()), Value::Null);
        assert!(receipt["no_subject"].as_str().unwrap().ends_with(reason));
        assert_eq!(receipt["referrers"], Value::Null);
    }
}

#[tokio::test]
async fn a_subject_that_cannot_be_asked_for_is_asked_for_later() {
    let party = party(&[answer("503 Service Unavailable", "", "")]);
    let error = deliver(&about_image(&party), &party).await.unwrap_err();
    assert_eq!(error.kind, AGAIN);
}

/// The list at the tag, as it was put.
fn put_list(party: &Peer) -> Value {
    let received = party.received();
    let last = received.last().unwrap();
    let tag = format!("sha256-{}", Digest::of(IMAGE.as_bytes()).hex());
    assert_eq!(last.method, "PUT");
    assert_eq!(last.target, format!("/v2/acme/shop/manifests/{tag}"));
    assert_eq!(last.headers["content-type"], manifest::INDEX);
    serde_json::from_slice(&last.body).unwrap()
}

fn index(manifests: &Value) -> String {
    let index =
        json!({ "schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": manifests, "x": 1 });
    let kind = format!("content-type: {}\r\n", manifest::INDEX);
    answer("200 OK", &kind, &index.to_string())
}

#[tokio::test]
async fn where_the_registry_keeps_no_list_it_is_kept_at_a_tag() {
    let others =
        json!([{ "mediaType": "m", "digest": Digest::of(b"other"), "size": 1, "data": "eA==" }]);
    for (there, before) in [(absent(), json!([])), (index(&others), others)] {
        let answers = [pushed().as_slice(), &[absent(), there, created()]].concat();
        let party = party(&answers);
        let stage = about_image(&party);
        let receipt = receipt(deliver(&stage, &party).await.unwrap());
        assert_eq!(receipt["referrers"], "tag");
        let list = put_list(&party);
        let manifests = list["manifests"].as_array().unwrap();
        let (ours, kept) = manifests.split_last().unwrap();
        assert_eq!(json!(kept), before);
        assert_eq!(ours["digest"], receipt["digest"]);
        assert_eq!(ours["artifactType"], "application/vnd.in-toto+json");
        assert_eq!(
            ours["annotations"]["dev.chainloop.workflow.name"],
            "nightly-build"
        );
        let locks = stage.locks.borrow();
        let (name, lock) = locks.iter().next().unwrap();
        assert!(name.starts_with("referrers 127.0.0.1") && name.contains("/acme/shop@sha256:"));
        assert_eq!(*lock, Lock::default());
    }
}

#[tokio::test]
async fn while_another_delivery_is_at_the_list_this_one_waits() {
    let party = party(&[pushed().as_slice(), &[absent()]].concat());
    let mut stage = about_image(&party);
    let host = party.origin.strip_prefix("http://").unwrap();
    let place = format!(
        "referrers {host}/acme/shop@{}",
        Digest::of(IMAGE.as_bytes())
    );
    let taken = Lock {
        is_taken: true,
        note: Value::Null,
    };
    stage.locks.borrow_mut().insert(place.clone(), taken);
    let outcome = deliver(&stage, &party).await.unwrap();
    assert!(
        matches!(outcome, Outcome::ContinueAfter { .. }),
        "{outcome:?}"
    );

    // The next one begins with what this one did, and with whether the registry has a list after all.
    stage.progress.extend(stage.recorded());
    stage.locks.borrow_mut().remove(&place);
    let party = Peer::again(&party, &[&absent(), &absent(), &created()]).await;
    let receipt = receipt(deliver(&stage, &party).await.unwrap());
    assert_eq!(receipt["referrers"], "tag");
    let subject = Digest::of(IMAGE.as_bytes());
    assert_eq!(
        lines(&party)[0],
        format!("GET /v2/acme/shop/referrers/{subject}")
    );
    assert_eq!(put_list(&party)["manifests"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_repeat_finds_itself_in_the_list_and_leaves_it() {
    let party = party(&[]);
    let stage = about_image(&party);
    let ours = ours(&stage);
    let list = index(&json!([{ "digest": ours }]));
    let party = Peer::again(&party, &[&image(), &has_digest(ours), &absent(), &list]).await;
    let receipt = receipt(deliver(&stage, &party).await.unwrap());
    assert_eq!(receipt["referrers"], "tag");
    assert!(
        party
            .received()
            .iter()
            .all(|one| matches!(one.method.as_str(), "GET" | "HEAD"))
    );

    let native = index(&json!([{ "digest": ours }]));
    let party = Peer::again(&party, &[&image(), &has_digest(ours), &native]).await;
    assert_eq!(
        self::receipt(deliver(&stage, &party).await.unwrap())["referrers"],
        "native"
    );
}

#[tokio::test]
async fn a_registry_that_claims_a_list_and_keeps_none_has_it_at_a_tag() {
    for said in [
        absent(),
        answer("400 Bad Request", "", ""),
        answer("401 Unauthorized", "", ""),
        answer("403 Forbidden", "", ""),
        answer("405 Method Not Allowed", "", ""),
        answer("501 Not Implemented", "", ""),
        answer("200 OK", "", ""),
        answer("200 OK", "content-type: text/html\r\n", "<html>"),
        answer(
            "200 OK",
            &format!("content-type: {}\r\n", manifest::INDEX),
            "no JSON",
        ),
        index(&json!([])),
        index(&json!([{ "digest": Digest::of(b"other") }])),
    ] {
        let answers = [
            [image()].as_slice(),
            &before_manifest(),
            &[claimed(), said, absent(), created()],
        ]
        .concat();
        let (receipt, party) = delivered(&answers).await;
        assert_eq!(receipt["referrers"], "tag");
        let list = put_list(&party);
        assert_eq!(list["manifests"][0]["digest"], receipt["digest"]);
        let asked = lines(&party);
        let asked = asked.iter().filter(|line| line.contains("/referrers/"));
        assert_eq!(asked.count(), 1);
    }
}

#[tokio::test]
async fn of_a_registrys_list_in_pages_the_first_is_enough() {
    let kind = format!("content-type: {}\r\n", manifest::INDEX);
    let next = format!("{kind}link: </v2/acme/shop/referrers/x?last=y>; rel=\"next\"\r\n");
    let first = answer("200 OK", &next, r#"{"schemaVersion":2,"manifests":[]}"#);
    let (receipt, _) = delivered(&[pushed().as_slice(), &[first]].concat()).await;
    assert_eq!(receipt["referrers"], "native");
}

#[tokio::test]
async fn an_attestation_that_cannot_be_listed_is_delivered_and_says_so() {
    for said in [
        refused("400 Bad Request", "TAG_INVALID"),
        refused("400 Bad Request", "ImageTagAlreadyExistsException"),
        refused("403 Forbidden", "DENIED"),
        refused("405 Method Not Allowed", "UNSUPPORTED"),
        refused("409 Conflict", "TAG_IMMUTABLE"),
        refused("412 Precondition Failed", "PRECONDITION"),
        answer("413 Content Too Large", "", "<html>"),
        answer("422 Unprocessable Content", "", ""),
    ] {
        let others = index(&json!([{ "digest": Digest::of(b"other") }]));
        let answers = [pushed().as_slice(), &[absent(), others, said]].concat();
        let (receipt, note) = delivered_in_part(&answers).await;
        let tag = format!("sha256-{}", Digest::of(IMAGE.as_bytes()).hex());
        assert!(
            note.starts_with("its image does not lead to it: failed to list the attestation at "),
            "{note}"
        );
        let refusal = format!("/acme/shop:{tag}: answered 4");
        assert!(note.contains(&refusal), "{note}");
        assert_eq!(receipt["referrers"], Value::Null);
        let image = Digest::of(IMAGE.as_bytes());
        assert_eq!(receipt["subject"], json!(image));
        let digest = receipt["digest"].as_str().unwrap();
        let reference = receipt["reference"].as_str().unwrap();
        assert!(reference.contains("/acme/shop:chainloop-"), "{reference}");
        assert!(reference.ends_with(digest), "{reference}");
    }
}

#[tokio::test]
async fn a_list_that_is_none_is_left_alone() {
    let kind = |kind: &str| format!("content-type: {kind}\r\n");
    let manifest = kind(manifest::MANIFEST);
    let index = kind(manifest::INDEX);
    for said in [
        answer("200 OK", &manifest, IMAGE),
        answer("200 OK", "", "{}"),
        answer("200 OK", &index, "no JSON"),
        answer("200 OK", &index, r#"{"manifests":{}}"#),
        answer(
            "200 OK",
            &index,
            &json!({ "mediaType": manifest::MANIFEST }).to_string(),
        ),
        refused("403 Forbidden", "DENIED"),
    ] {
        let answers = [pushed().as_slice(), &[absent(), said]].concat();
        let (_, note) = delivered_in_part(&answers).await;
        let start = "its image does not lead to it: failed to list the attestation at 127.0.0.1";
        assert!(note.starts_with(start), "{note}");
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_read_or_written_now_is_tried_again() {
    for said in [
        vec![answer("500 Oops", "", "")],
        vec![absent(), answer("500 Oops", "", "")],
        vec![absent(), absent(), answer("500 Oops", "", "")],
        vec![
            absent(),
            absent(),
            refused("403 Forbidden", "TOOMANYREQUESTS"),
        ],
    ] {
        let party = party(&[pushed().as_slice(), &said].concat());
        let error = deliver(&about_image(&party), &party).await.unwrap_err();
        assert_eq!(error.kind, AGAIN, "{error}");
    }
}

#[tokio::test]
async fn a_list_longer_than_an_answer_is_read_whole() {
    let many: Vec<Value> = (0..500_u32)
        .map(|n| json!({ "mediaType": "m", "digest": Digest::of(&n.to_be_bytes()), "size": 1, "annotations": { "a": "b".repeat(100) } }))
        .collect();
    let list = index(&json!(many));
    assert!(list.len() > crate::http::ANSWER_BYTES);
    let (_, party) = delivered(&[pushed().as_slice(), &[absent(), list, created()]].concat()).await;
    assert_eq!(put_list(&party)["manifests"].as_array().unwrap().len(), 501);
}

// --- registering --------------------------------------------------------------------------------------

#[tokio::test]
async fn registering_begins_an_upload_and_leaves_nothing() {
    for gone in ["204 No Content", "202 Accepted", "404 Not Found"] {
        let party = party(&[
            basic(),
            begun("/v2/acme/shop/blobs/uploads/1?a=b"),
            answer(gone, "", ""),
        ]);
        OciRegistry::register(&fixture::http(), &registration(&party))
            .await
            .unwrap();
        assert_eq!(
            lines(&party),
            [
                "POST /v2/acme/shop/blobs/uploads/",
                "POST /v2/acme/shop/blobs/uploads/",
                "DELETE /v2/acme/shop/blobs/uploads/1?a=b",
            ]
        );
    }
}

const HINT: &str = "; a registry behind a proxy knows its own address by the headers Host, X-Forwarded-Host and X-Forwarded-Proto";

#[tokio::test]
async fn a_registry_that_sends_uploads_where_it_is_not_is_told_of_when_it_is_registered() {
    let nobody = party(&[]).origin.clone();
    let other = party(&[absent()]);
    for (place, kind, reason) in [
        (
            "http://registry.example.org/x",
            Kind::Permanent,
            "a URL that is not https is not allowed; the stack's parameter AllowedPrivateCidrs could allow it",
        ),
        (
            "https://10.0.0.1/x",
            Kind::Permanent,
            "a private address is not allowed; the stack's parameter AllowedPrivateCidrs could allow it",
        ),
        (&*format!("{nobody}/x"), AGAIN, "connection refused"),
        // Something is there, which knows nothing of the upload.
        (
            &*format!("{}/x", other.origin),
            Kind::Permanent,
            "answered 404 Not Found",
        ),
    ] {
        let party = party(&[begun(place)]);
        let error = OciRegistry::register(&fixture::http(), &registration(&party))
            .await
            .unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        let named = origin(&url::Url::parse(place).unwrap());
        let asked = party.origin.strip_prefix("http://").unwrap();
        let start = format!(
            "begin an upload to {asked}/acme/shop: the registry was asked at {} and leads to {named}: ",
            party.origin
        );
        assert!(error.text.starts_with(&start), "{error}");
        assert!(error.text.ends_with(&format!("{reason}{HINT}")), "{error}");
    }
}

#[tokio::test]
async fn a_registry_that_keeps_uploads_elsewhere_is_registered() {
    let storage = party(&[answer("204 No Content", "", "")]);
    let registry = party(&[basic(), begun(&format!("{}/upload", storage.origin))]);
    OciRegistry::register(&fixture::http(), &registration(&registry))
        .await
        .unwrap();
    let sent = storage.received();
    assert_eq!(sent[0].method, "DELETE");
    assert!(!sent[0].headers.contains_key("authorization"));
    // At another host, a place need not know how to cancel.
    let storage = party(&[answer("403 Forbidden", "", "")]);
    let other = storage.origin.replace("127.0.0.1", "localhost");
    let registry = party(&[begun(&format!("{other}/upload"))]);
    OciRegistry::register(&fixture::http(), &registration(&registry))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_upload_that_fails_elsewhere_says_that_the_registry_led_there() {
    let nobody = party(&[]).origin.clone();
    let error = failure(&[absent(), absent(), begun(&format!("{nobody}/x"))]).await;
    assert_eq!(error.kind, AGAIN);
    let end = format!(" and leads to {nobody}: reach {nobody}: connection refused{HINT}");
    assert!(error.text.ends_with(&end), "{error}");

    let storage = party(&[answer("503 Service Unavailable", "", "")]);
    let other = storage.origin.replace("127.0.0.1", "storage.localhost");
    let error = failure(&[absent(), absent(), begun(&format!("{other}/x"))]).await;
    assert_eq!(error.kind, AGAIN);
    assert!(
        error.text.contains(&format!(" and leads to {other}: ")),
        "{error}"
    );
}

#[tokio::test]
async fn a_location_is_read_from_where_it_was_answered() {
    let from: http::Uri = "https://registry.example.org/v2/acme/shop/blobs/uploads/"
        .parse()
        .unwrap();
    for (said, place) in [
        (
            "/v2/x?a=b%2Fc&d",
            "https://registry.example.org/v2/x?a=b%2Fc&d",
        ),
        (
            "1?a=b",
            "https://registry.example.org/v2/acme/shop/blobs/uploads/1?a=b",
        ),
        ("//other.example.org/x", "https://other.example.org/x"),
        (
            "http://registry.example.org:5000/x",
            "http://registry.example.org:5000/x",
        ),
    ] {
        let headers = http::HeaderMap::from_iter([(http::header::LOCATION, said.parse().unwrap())]);
        assert_eq!(session::location(&from, &headers).unwrap().as_str(), place);
    }
}

#[tokio::test]
async fn registering_says_what_is_wrong() {
    let lacking = unauthorized(&[r#"Basic realm="r", error="insufficient_scope""#]);
    for (answers, kind, text) in [
        (
            vec![basic(), basic()],
            Kind::Unauthorized,
            "answered 401 Unauthorized: the provided credentials are invalid: UNAUTHORIZED: authentication required",
        ),
        (
            vec![basic(), lacking],
            Kind::Unauthorized,
            "the provided credentials don't have write permissions: UNAUTHORIZED: authentication required",
        ),
        (
            vec![basic(), refused("403 Forbidden", "DENIED")],
            Kind::Permanent,
            "the provided credentials don't have write permissions: DENIED: so it is",
        ),
        (
            vec![answer("404 Not Found", "", "404 page not found")],
            Kind::Permanent,
            "answered 404 Not Found: 404 page not found",
        ),
        (
            vec![answer("200 OK", "", "welcome")],
            Kind::Permanent,
            "answered 200: welcome",
        ),
        (
            vec![answer("503 Service Unavailable", "", "")],
            AGAIN,
            "503",
        ),
    ] {
        let party = party(&answers);
        let error = OciRegistry::register(&fixture::http(), &registration(&party))
            .await
            .unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.text.contains(text), "{error}");
        assert!(
            error.text.starts_with("begin an upload to 127.0.0.1"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn this_machine_is_no_registry_outside_local_mode() {
    let party = party(&[]);
    let http = Http::new(Guard::default());
    let error = OciRegistry::register(&http, &registration(&party))
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Permanent);
    assert!(
        error.text.ends_with("a loopback address is not allowed"),
        "{error}"
    );
    assert!(party.received().is_empty());
}

#[test]
fn inputs_that_could_not_work_are_refused() {
    let faults = |more: Value| {
        let mut all =
            json!({ "repository": "ghcr.io/acme/shop", "username": "u", "password": "p" });
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let faults = inputs::check::<Registration>(all.as_object().unwrap()).into_iter();
        faults.map(|fault| fault.field).collect::<Vec<_>>()
    };
    assert!(faults(json!({})).is_empty());
    assert_eq!(
        faults(json!({ "repository": "https://ghcr.io/acme" })),
        ["repository"]
    );
    assert_eq!(faults(json!({ "username": "a:b" })), ["username"]);
    assert_eq!(faults(json!({ "password": "" })), ["password"]);
    let attached = |inputs: Value| inputs::check::<Attachment>(inputs.as_object().unwrap()).len();
    assert_eq!(
        attached(json!({ "prefix": "custom-prefix", "subject": false, "compatibility": true })),
        0
    );
    assert_eq!(attached(json!({ "prefix": "sha256" })), 1);
}

#[tokio::test]
async fn a_manifest_is_there_or_gone_as_the_registry_says_by_its_digest() {
    const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    for (answer, state) in [
        (there(), Some(PresenceState::There)),
        (absent(), Some(PresenceState::Gone)),
        (refused("403 Forbidden", "DENIED"), None),
    ] {
        let party = party(&[answer]);
        let registration = registration(&party);
        let reference = format!("{}:att@{DIGEST}", registration.repository);
        let receipt = json!({ "reference": reference, "digest": DIGEST });
        let receipt = receipt.as_object().unwrap();
        let found = OciRegistry::look_for(&fixture::http(), &registration, receipt).await;
        assert_eq!(found.ok().map(|found| found.state), state);
        let received = &party.received()[0];
        let target = format!("/v2/acme/shop/manifests/{DIGEST}");
        assert_eq!((&*received.method, &received.target), ("HEAD", &target));
    }
}

#[tokio::test]
async fn a_registry_is_not_asked_for_what_went_to_another_repository() {
    let party = party(&[]);
    let registration = registration(&party);
    for receipt in [
        json!({}),
        json!({
            "reference": "registry.example.org/acme/shop:att@sha256:00",
            "digest": Digest::of(b"manifest"),
        }),
    ] {
        let receipt = receipt.as_object().unwrap();
        let found = OciRegistry::look_for(&fixture::http(), &registration, receipt).await;
        assert_eq!(found.unwrap().state, PresenceState::Unknown);
    }
    assert!(party.received().is_empty());
}
