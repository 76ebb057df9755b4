//! Requests of ours, checked against the vendors' own OpenAPI documents by a server made from them: `make test-peers`.
//!
//! The documents are among the samples, and the server takes half a minute to read one; so `make test` has neither.

#![allow(clippy::unwrap_used, reason = "for tests")]

use std::process::Command;

use attestation::MaterialType;
use bytes::Bytes;
use http::Request;
use integrations::dependency_track::DependencyTrack;
use integrations::discord_webhook::DiscordWebhook;
use integrations::http::Response;
use integrations::{Integration, Outcome};
use peers::{Process, SBOM, STATEMENT, Stage, free_port, http, tool};
use serde_json::{Value, json};

const PROJECT: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";

/// A server that answers as the document says, and refuses what does not fit it.
struct Prism {
    origin: String,
    _process: Process,
}

impl Prism {
    /// `name`: the document's, among the samples. `change`: what is done to its text before it is served.
    fn of(name: &str, change: impl Fn(&str) -> String) -> Self {
        let samples = std::env::var("SAMPLES_DIR").expect("SAMPLES_DIR has the documents");
        let document = std::fs::read_to_string(format!("{samples}/specs/{name}")).unwrap();
        let file = std::env::temp_dir().join(format!("{}-{name}", std::process::id()));
        std::fs::write(&file, change(&document)).unwrap();
        let port = free_port();
        let mut command = Command::new(tool("prism/node_modules/.bin/prism"));
        command
            .args(["mock", "--host", "127.0.0.1", "--port", &port.to_string()])
            .arg(&file);
        let process = Process::start(&mut command, &[port]);
        std::fs::remove_file(file).unwrap();
        Self {
            origin: format!("http://127.0.0.1:{port}"),
            _process: process,
        }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
        let mut request = Request::post(format!("{}{path}", self.origin))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Bytes::from(body.to_string())).unwrap();
        http().send(request).await.unwrap()
    }
}

/// Under the path that Dependency-Track serves it at, which the server does not take from `servers`.
fn with_base(document: &str) -> String {
    document.replace("\n  /v1/", "\n  /api/v1/")
}

#[tokio::test]
async fn dependency_tracks_document_knows_what_we_ask() {
    let prism = Prism::of("dependency-track-v5-openapi-v1.yaml", with_base);
    let registration = serde_json::from_value(json!({
        "instanceURI": prism.origin, "apiKey": "odt_key-for-tests", "allowAutoCreate": true,
    }))
    .unwrap();
    for inputs in [
        json!({ "projectID": PROJECT }),
        json!({
            "projectName": "shop", "projectVersion": "2.4.0", "projectTags": "backend,prod", "isLatest": true,
            "parentName": "all", "parentVersion": "1",
        }),
    ] {
        let attachment = serde_json::from_value(inputs).unwrap();
        let mut stage = Stage::of_statement(STATEMENT);
        stage.materials.clear();
        let stage = stage.with("sbom", MaterialType::SBOM_CYCLONEDX_JSON, SBOM);
        let delivery = stage.delivery(&registration, &attachment);
        let outcome = DependencyTrack::deliver(&http(), &stage, &delivery).await;
        assert!(
            matches!(outcome, Ok(Outcome::Delivered(_))),
            "{attachment:?}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn discords_document_knows_what_we_send() {
    let prism = Prism::of("discord-openapi.json", |document| {
        // Only what is under test, since it takes long to read all of it.
        let mut document: Value = serde_json::from_str(document).unwrap();
        let paths = document["paths"].as_object_mut().unwrap();
        let webhooks = std::mem::take(paths).into_iter();
        *paths = webhooks
            .filter(|(path, _)| path.starts_with("/webhooks/{webhook_id}/{webhook_token}"))
            .map(|(path, item)| (format!("/api/v10{path}"), item))
            .collect();
        assert!(!paths.is_empty(), "the document has no webhooks");
        document.to_string()
    });
    let path = "/api/v10/webhooks/1234567890/token-for-tests";
    let registration = serde_json::from_value(json!({
        "webhook": format!("{}{path}", prism.origin), "username": "Builds",
    }))
    .unwrap();
    let attachment = serde_json::from_value(json!({ "thread_id": "77" })).unwrap();
    let stage = Stage::of_statement(STATEMENT);
    let delivery = stage.delivery(&registration, &attachment);
    let outcome = DiscordWebhook::deliver(&http(), &stage, &delivery).await;
    let Ok(Outcome::Delivered(receipt)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(receipt["status"], 200);

    // Nothing is looked at within a form, so the message is sent by itself, too; and one that is too long.
    let preview = DiscordWebhook::preview(&stage, &delivery).await.unwrap();
    let message = preview[0].body.split("\r\n\r\n").nth(1).unwrap();
    let mut message: Value = serde_json::from_str(message.split("\r\n--").next().unwrap()).unwrap();
    let answer = prism.post(path, &[], &message).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    message["embeds"][0]["description"] = "x".repeat(4097).into();
    let answer = prism.post(path, &[], &message).await;
    assert_eq!(answer.status, 422, "{answer:?}");

    // A limit as the document has it is heeded.
    let limited = prism
        .post(path, &[("prefer", "code=429")], &json!({ "content": "x" }))
        .await;
    assert_eq!(limited.status, 429);
    let answer: Value = serde_json::from_slice(&limited.body).unwrap();
    assert!(answer["retry_after"].is_number(), "{answer}");
}
