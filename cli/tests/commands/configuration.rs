//! Integrations: available, registered, attached.

use serde_json::{Value, json};

use crate::api::{Api, Asked};

fn integrations() -> Value {
    let integration = |id: &str| {
        json!({
            "id": id, "version": "1.0", "description": "Sends", "materials": ["SARIF"],
            "registration_schema": {
                "type": "object", "required": ["url"],
                "properties": {
                    "url": { "type": "string", "format": "uri", "writeOnly": true, "description": "Where" },
                    "tries": { "type": "integer", "default": 3, "description": "How often" },
                },
            },
            "attachment_schema": { "type": "object", "properties": {} },
        })
    };
    json!({ "items": [integration("webhook"), integration("guac")], "next": null })
}

fn registration() -> Value {
    json!({
        "id": "r-1", "name": "one", "integration": "webhook", "version": "1.0", "description": "",
        "config": { "tries": 3 }, "secrets": { "url": "https://example.org/… (fingerprint 1a2b3c4d)" },
        "created_at": "2026-01-02T03:04:05.678Z",
    })
}

fn attachment() -> Value {
    json!({
        "id": "6f0c1f0e-0000-4000-8000-000000000001", "workflow": "shop/nightly", "wait_secs": null,
        "config": { "tries": 5 }, "registration": registration(),
        "created_at": "2026-01-02T03:04:05.678Z",
    })
}

fn page(items: &[Value]) -> Value {
    json!({ "items": items, "next": null })
}

fn api() -> Api {
    Api::start(|_, Asked { line, .. }| {
        let (method, target) = line.split_once(' ').unwrap();
        let path = target.split('?').next().unwrap();
        let answer = match (method, path) {
            ("GET", "/v1/integrations") => integrations(),
            ("POST", "/v1/registrations") | ("GET", "/v1/registrations/one") => registration(),
            ("GET", "/v1/registrations") => page(&[registration()]),
            ("DELETE", "/v1/registrations/one") => {
                json!({ "id": "r-1", "name": "one", "attachments": 2 })
            }
            ("GET", "/v1/attachments") => page(&[attachment()]),
            ("POST", "/v1/attachments") | ("DELETE" | "PATCH", "/v1/attachments/a-1") => {
                attachment()
            }
            ("GET", "/v1/attachments/a-1") => {
                let mut filtered = attachment();
                filtered["config"]["filter"] = json!("environment=prod");
                filtered["wait_secs"] = json!(60);
                filtered
            }
            _ => {
                let problem = json!({
                    "status": 404, "code": "not-found", "title": "There is no such thing",
                    "detail": "there is no such thing", "request_id": "req-1",
                });
                return (404, problem.to_string());
            }
        };
        (200, answer.to_string())
    })
}

#[test]
fn what_is_available_is_sorted_and_has_chainloops_keys() {
    let api = api();
    let ran = api.run(&["integration", "available", "list"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let guac = ran.stdout.find("│ guac").unwrap();
    assert!(
        guac < ran.stdout.find("│ webhook").unwrap(),
        "{}",
        ran.stdout
    );
    assert_eq!(
        api.asked()[0].header("authorization"),
        Some("Bearer cli_test")
    );
    let ran = api.run(&["integration", "available", "ls", "-o", "json"]);
    assert!(
        ran.stdout
            .starts_with("[\n   {\n      \"name\": \"guac\",\n"),
        "{}",
        ran.stdout
    );
    let first = &ran.json()[0];
    assert_eq!(first["subscribedInputs"], json!(["SARIF"]));
    let schema: Value =
        serde_json::from_str(first["registration"]["schema"].as_str().unwrap()).unwrap();
    assert_eq!(schema["required"], json!(["url"]));
}

#[test]
fn a_description_leaves_out_what_has_no_inputs() {
    let ran = api().run(&["integration", "available", "describe", "--id", "webhook"]);
    assert!(
        ran.stdout.contains("│ Registration inputs"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("no (default: 3)"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("│ string (uri) │ yes"),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("Attachment inputs"), "{}", ran.stdout);
    let ran = api().run(&[
        "integration",
        "available",
        "describe",
        "--name",
        "webhook",
        "--full",
    ]);
    assert!(
        ran.stdout.contains("│ Attachment JSON schema"),
        "{}",
        ran.stdout
    );
    let ran = api().run(&["integration", "available", "describe", "--name", "web"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "ERR integration \"web\" not found\n    Available: guac, webhook.\n"
    );
}

#[test]
fn registering_sends_options_with_their_types_and_warns_of_a_secret_that_shows() {
    let api = api();
    let ran = api.run(&[
        "integration",
        "registered",
        "add",
        "webhook",
        "--name",
        "one",
        "--opt",
        "url=https://example.org/hook",
        "--opt",
        "tries=3",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        api.asked().last().unwrap().json(),
        json!({
            "integration": "webhook", "name": "one",
            "inputs": { "tries": 3, "url": "https://example.org/hook" },
        })
    );
    assert!(
        ran.stderr.starts_with("WRN \"url\" is a secret"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stdout.contains("2026-01-02 03:04:05 UTC"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("fingerprint 1a2b3c4d"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_wrong_option_shows_what_there_is_and_sends_nothing() {
    let api = api();
    let ran = api.run(&[
        "integration",
        "registered",
        "add",
        "webhook",
        "--name",
        "one",
        "--opt",
        "uri=x",
    ]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(ran.stderr.contains("│ Available options"), "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("uri: is not known; did you mean \"url\"?"),
        "{}",
        ran.stderr
    );
    assert!(!api.lines().iter().any(|line| line.starts_with("POST")));
}

#[test]
fn registrations_have_chainloops_keys() {
    let ran = api().run(&["integration", "registered", "list", "-o", "json"]);
    let one = &ran.json()[0];
    for (key, value) in [
        ("id", json!("r-1")),
        ("name", json!("one")),
        ("kind", json!("webhook")),
        ("createdAt", json!("2026-01-02T03:04:05.678Z")),
        ("config", json!({ "tries": 3 })),
    ] {
        assert_eq!(one[key], value, "{key}");
    }
}

#[test]
fn attaching_asks_by_name_and_sends_the_id() {
    let api = api();
    let ran = api.run(&[
        "integration",
        "attached",
        "add",
        "--workflow",
        "nightly",
        "--project",
        "shop",
        "--integration",
        "one",
        "--wait",
        "60",
        "-o",
        "json",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        api.asked().last().unwrap().json(),
        json!({
            "registration": "r-1", "workflow": "nightly", "project": "shop", "inputs": {}, "wait_secs": 60,
        })
    );
    let one = &ran.json()[0];
    assert_eq!(one["workflow"]["name"], "nightly");
    assert_eq!(one["integration"]["kind"], "webhook");
}

#[test]
fn what_is_attached_shows_the_attachments_configuration_over_the_registrations() {
    let api = api();
    let ran = api.run(&["integration", "attached", "list", "--project", "shop"]);
    assert!(ran.stdout.contains("tries: 5"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("tries: 3"), "{}", ran.stdout);
    assert_eq!(api.lines(), ["GET /v1/attachments?project=shop&limit=100"]);
}

#[test]
fn an_attachment_is_shown_with_its_options_its_filter_and_its_wait() {
    let api = api();
    for by in [&["a-1"][..], &["--id", "a-1"]] {
        let ran = api.run(&[&["integration", "attached", "describe"], by].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        for row in [
            "│ ID           │ 6f0c1f0e-0000-4000-8000-000000000001",
            "│ REGISTRATION │ one",
            "│ KIND         │ webhook 1.0",
            "│ WORKFLOW     │ shop/nightly",
            "│ OPTIONS      │ tries: 5",
            "│ FILTER       │ environment=prod",
            "│ WAIT         │ 60 s",
            "│ ATTACHED AT  │ 2026-01-02",
        ] {
            assert!(ran.stdout.contains(row), "{row}: {}", ran.stdout);
        }
    }
    let ran = api.run(&["integration", "attached", "describe", "a-1", "-o", "json"]);
    assert_eq!(ran.json()["waitSecs"], 60);
    assert_eq!(ran.json()["integration"]["name"], "one");
    let ran = api.run(&["integration", "attached", "describe", "b"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .starts_with("ERR failed to show the attachment \"b\": there is no such thing\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_attachment_is_updated_by_what_is_given() {
    let api = api();
    let ran = api.run(&[
        "integration",
        "attached",
        "update",
        "a-1",
        "--unset",
        "filter",
        "--wait",
        "usual",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stderr, "INF attachment updated\n");
    assert!(
        ran.stdout.contains("│ WAIT         │ usual"),
        "{}",
        ran.stdout
    );
    let sent = api.asked().pop().unwrap();
    assert_eq!(sent.line, "PATCH /v1/attachments/a-1");
    assert_eq!(
        sent.json(),
        json!({ "inputs": { "filter": null }, "wait_secs": null, "dry_run": false })
    );
    let ran = api.run(&[
        "integration",
        "attached",
        "update",
        "--id",
        "a-1",
        "--wait",
        "90",
        "--dry-run",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        api.asked().pop().unwrap().json(),
        json!({ "wait_secs": 90, "dry_run": true })
    );
    for wrong in [
        &["update", "a-1"][..],
        &["update", "a-1", "--wait", "86401"],
    ] {
        let ran = api.run(&[&["integration", "attached"], wrong].concat());
        assert_eq!(ran.code, 2, "{}", ran.stderr);
    }
}

#[test]
fn deleting_asks_first_and_without_a_terminal_wants_to_be_sure() {
    let api = api();
    let ran = api.run(&["integration", "registered", "delete", "--name", "one"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("Pass -y to skip the confirmation."),
        "{}",
        ran.stderr
    );
    assert!(api.lines().is_empty());
    let ran = api.run(&["integration", "registered", "delete", "--name", "one", "-y"]);
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.stderr,
        "INF Integration deregistered!\nINF with 2 attachments\n"
    );
    let ran = api.run(&["integration", "attached", "detach", "--id", "a-1", "-y"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (0, "INF integration detached!\n")
    );
}

#[test]
fn what_is_not_there_is_told_as_the_api_tells_it() {
    let ran = api().run(&["integration", "attached", "delete", "--id", "b", "-y"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "ERR failed to detach \"b\": there is no such thing\n    request ID: req-1\n"
    );
}

#[test]
fn a_long_list_is_read_to_its_end() {
    let api = Api::start(|_, Asked { line, .. }| {
        let next = if line.contains("cursor") {
            Value::Null
        } else {
            json!("n=1")
        };
        (
            200,
            json!({ "items": [registration()], "next": next }).to_string(),
        )
    });
    let ran = api.run(&["integration", "registered", "list"]);
    assert!(
        ran.stdout
            .starts_with("Integrations registered and configured in your organization:\n┌"),
        "{}",
        ran.stdout
    );
    assert_eq!(
        api.lines(),
        [
            "GET /v1/registrations?limit=100",
            "GET /v1/registrations?limit=100&cursor=n%3D1"
        ]
    );
}
