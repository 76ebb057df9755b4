//! Tables on terminals of 80, 100 and 160 columns: whole words within the width, and short IDs that find what they show.

use serde_json::{Value, json};

use crate::api::{Api, Asked, on_terminal};

const ID: &str = "6f0c1f0e-0000-8000-8000-000000000001";
const OTHER: &str = "6f0c1f0e-0000-8000-8000-000000000002";
const LONE: &str = "0198c0de-0000-7000-8000-000000000003";
const DIGEST: &str = "sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0";
const TIME: &str = "2026-01-02T03:04:05.678Z";
const REASON: &str =
    "post to https://hooks.example.org: answered 503 Service Unavailable; it asks for patience";

fn delivery(id: &str, name: &str, state: &str) -> Value {
    json!({
        "id": id, "state": state, "attempt": 3, "reason": (state != "delivered").then_some(REASON),
        "integration": "dependency-track", "registration": LONE, "registration_name": name,
        "attachment": OTHER, "attestation": DIGEST, "generation": 1, "due_at": null, "progress": {},
        "workflow": { "project": "shop-backend", "name": "nightly-build" },
        "receipt": { "repository": "registry.example.org/acme/attestations", "digest": DIGEST },
        "created_at": TIME, "updated_at": TIME, "in_receipt": true,
        "attempts": [{
            "number": 3, "ending": "retryable", "started_at": TIME, "duration_ms": 1390, "status": 503,
            "detail": REASON, "answer": "Service Unavailable: come back later",
        }],
    })
}

fn registration(name: &str) -> Value {
    json!({
        "id": LONE, "name": name, "integration": "dependency-track", "version": "1.7",
        "description": "of the security team", "secrets": { "apiKey": "…" }, "created_at": TIME,
        "config": { "instanceURI": "https://dependency-track.security.example.org/tracker/v2" },
    })
}

fn attachment(id: &str) -> Value {
    json!({
        "id": id, "registration": registration("tracker"), "workflow": "shop-backend/nightly-build",
        "config": { "filter": "environment=production" }, "wait_secs": null, "created_at": TIME,
    })
}

fn attestation() -> Value {
    json!({
        "attestation": DIGEST, "received": DIGEST, "size_bytes": 43210, "run": "0198c0de-2222-7000",
        "workflow": { "project": "shop-backend", "name": "nightly-build" },
        "predicate_type": "chainloop.dev/attestation/v0.2", "created_at": TIME,
    })
}

fn job() -> Value {
    json!({
        "id": LONE, "kind": "redeliver", "registration_name": "tracker", "dry_run": false,
        "filter": { "registration": LONE, "state": "failed", "until": TIME },
        "per_second": 10, "state": "done", "seen": 40, "done": 12, "skipped": 2, "reason": null,
        "created_by": "somebody", "created_at": TIME, "updated_at": TIME,
    })
}

fn named(name: &str) -> Value {
    json!({
        "id": OTHER, "name": name, "role": "viewer", "created_by": "somebody", "created_at": TIME,
        "expires_at": null, "expired": false, "text": "cli_new",
    })
}

fn token() -> Value {
    let mut token = named("ci");
    token["id"] = LONE.into();
    token
}

fn api() -> Api {
    let list = |items: &[Value]| json!({ "items": items, "next": null });
    Api::start(move |_, Asked { line, .. }| {
        let (method, path) = line.split_once(" /v1/").unwrap();
        let path = path.split('?').next().unwrap();
        let both = [
            delivery(ID, "tracker", "failed"),
            delivery(OTHER, "tracker-of-staging", "delivered"),
            delivery(LONE, "tracker", "pending"),
        ];
        let answer = match (method, path) {
            ("GET", "deliveries") => list(&both),
            ("GET", "attachments") => list(&[attachment(ID), attachment(OTHER)]),
            ("GET", "registrations") => list(&[registration("tracker")]),
            ("GET", "attestations") => list(&[attestation()]),
            ("GET", "jobs") => list(&[job()]),
            ("GET", "tokens") => list(&[token(), named("deadbee")]),
            ("POST", path) if path == format!("tokens/{LONE}/rotate") => named("cafecafe"),
            ("POST", "tokens/beefbeef/rotate") => named("beefbeef"),
            ("GET", path) if path == format!("digests/{DIGEST}/places") => list(&both),
            ("GET", path) if path == format!("deliveries/{LONE}") => both[2].clone(),
            ("GET", path) if path == format!("deliveries/{ID}") => both[0].clone(),
            ("GET", path) if path == format!("attachments/{ID}") => attachment(ID),
            ("GET", path) if path == format!("jobs/{LONE}") => job(),
            ("POST", path) if path == format!("deliveries/{LONE}/cancel") => both[2].clone(),
            _ => {
                let problem = json!({
                    "status": 404, "code": "not-found", "title": "Not found", "detail": "nothing there",
                });
                return (404, problem.to_string());
            }
        };
        (200, answer.to_string())
    })
}

/// The words of a text, without what draws the table.
fn words(text: &str) -> Vec<&str> {
    let parts =
        text.split(|letter: char| letter.is_whitespace() || "│┌┬┐├┼┤└┴┘─·".contains(letter));
    parts.filter(|part| !part.is_empty()).collect()
}

#[test]
fn every_table_fits_and_breaks_no_word() {
    let api = api();
    for line in [
        &["delivery", "list"][..],
        &["delivery", "describe", ID],
        &["attestation", "list"],
        &["integration", "attached", "list"],
        &["integration", "registered", "list"],
        &["where", DIGEST],
        &["job", "list"],
        &["job", "describe", LONE],
    ] {
        // What is not on a terminal is whole.
        let whole = api.run(line).stdout;
        for columns in [80, 100, 160] {
            let shown = on_terminal(&api.url, line, columns);
            let widest = shown.lines().map(|line| line.chars().count()).max();
            assert!(widest.unwrap() <= columns, "{columns}: {line:?}\n{shown}");
            let there = words(&shown);
            for word in words(&whole) {
                let is_long = word == "-" || word.len() >= 36 || word.contains("://");
                assert!(
                    is_long || there.contains(&word),
                    "{columns}: {line:?}: {word}\n{shown}"
                );
            }
        }
    }
}

#[test]
fn a_terminal_has_short_ids_and_pipes_and_json_have_whole_ones() {
    let api = api();
    let list = ["delivery", "list"];
    let shown = on_terminal(&api.url, &list, 160);
    assert!(
        shown.contains("│ 6f0c1f0e │") && !shown.contains(ID),
        "{shown}"
    );
    let piped = api.run(&list).stdout;
    assert!(piped.contains(ID), "{piped}");
    let json = api.run(&["delivery", "list", "-o", "json"]).json();
    assert_eq!(json[0]["id"], ID);
    assert_eq!(json[0]["registrationName"], "tracker");
    let shown = on_terminal(&api.url, &["attestation", "list"], 80);
    assert!(shown.contains("│ 1fe71587d8d9 │"), "{shown}");
}

#[test]
fn the_beginning_of_an_id_or_a_digest_is_enough() {
    let api = api();
    for line in [
        &["delivery", "describe", "0198c0de"][..],
        &["delivery", "cancel", "0198c0de-0000", "-y"],
        &["job", "describe", "0198C0DE"],
        &["organization", "api-token", "rotate", "0198c0de"],
        // A name that looks like the beginning of an ID.
        &["organization", "api-token", "rotate", "beefbeef"],
        &["where", "1fe71587d8d9"],
        &["where", "sha256:1fe71587"],
    ] {
        let ran = api.run(line);
        assert_eq!(ran.code, 0, "{line:?}: {}", ran.stderr);
    }
    let ran = api.run(&[
        "delivery",
        "list",
        "--integration",
        "0198c0de",
        "--attestation",
        "1fe71587",
    ]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    api.run(&["delivery", "list", "--integration", "0198c0de"]);
    let last = api.lines().pop().unwrap();
    assert_eq!(
        last,
        format!("GET /v1/deliveries?registration={LONE}&limit=50")
    );
}

#[test]
fn an_ambiguous_beginning_exits_2_with_the_candidates() {
    let api = api();
    for line in [
        &["delivery", "describe", "6f0c1f0e"][..],
        &["integration", "attached", "describe", "6f0c1f0e"],
    ] {
        let ran = api.run(line);
        assert_eq!(ran.code, 2, "{line:?}: {}", ran.stderr);
        assert!(
            ran.stderr.contains(ID) && ran.stderr.contains(OTHER),
            "{}",
            ran.stderr
        );
    }
    let ran = api.run(&["delivery", "describe", "deadbeef"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("nothing begins with \"deadbeef\""),
        "{}",
        ran.stderr
    );
}

#[test]
fn deleting_takes_whole_ids() {
    let api = api();
    for line in [
        &["organization", "api-token", "revoke", "0198c0de", "-y"][..],
        &[
            "integration",
            "registered",
            "delete",
            "--name",
            "0198c0de",
            "-y",
        ],
        &[
            "integration",
            "attached",
            "delete",
            "--id",
            "6f0c1f0e-0000-8000-8000-00000000000",
            "-y",
        ],
    ] {
        let ran = api.run(line);
        assert_eq!(ran.code, 2, "{line:?}: {}", ran.stderr);
    }
    assert!(!api.lines().iter().any(|line| line.starts_with("DELETE")));
}

#[test]
fn an_integration_in_place_of_a_registration_is_understood_and_said() {
    let api = Api::start(|_, Asked { line, .. }| {
        let answer = match line.as_str() {
            "GET /v1/deliveries?integration=webhook&limit=50" => {
                json!({ "items": [], "next": null })
            }
            line if line.starts_with("GET /v1/integrations") => json!({ "items": [{
                "id": "webhook", "version": "1", "description": "", "materials": [],
                "registration_schema": {}, "attachment_schema": {},
            }], "next": null }),
            _ => {
                let problem = json!({
                    "status": 404, "code": "not-found", "title": "Not found", "detail": "no registration",
                });
                return (404, problem.to_string());
            }
        };
        (200, answer.to_string())
    });
    let ran = api.run(&["delivery", "list", "--integration", "webhook"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "there are no deliveries\n")
    );
    assert_eq!(
        ran.stderr,
        "WRN no registration has the name \"webhook\": showing all of the integration, as --kind does\n"
    );
    let ran = api.run(&["delivery", "list", "--integration", "webhooks"]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
}

#[test]
fn with_json_errors_are_json_with_code_and_faults() {
    let api = api();
    let error = |line: &[&str]| -> (i32, Value) {
        let ran = api.run(line);
        (
            ran.code,
            serde_json::from_str(&ran.stderr).unwrap_or_else(|_| panic!("{}", ran.stderr)),
        )
    };
    let (code, told) = error(&["job", "describe", "j-9", "-o", "json"]);
    assert_eq!((code, &told["code"]), (1, &json!("not-found")));
    assert_eq!(
        told["error"],
        "failed to show the job \"j-9\": nothing there"
    );
    assert_eq!(told["faults"], json!([]));
    let (code, told) = error(&["delivery", "describe", "6f0c1f0e", "--output=json"]);
    assert_eq!((code, &told["code"]), (2, &json!("usage")));
    assert_eq!(told["faults"], json!([ID, OTHER]));
    let (code, told) = error(&["delivery", "list", "--nonsense", "-o", "json"]);
    assert_eq!((code, &told["code"]), (2, &json!("usage")));
    assert!(
        told["error"].as_str().unwrap().contains("--nonsense"),
        "{told}"
    );
}
