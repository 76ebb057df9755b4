//! Registrations: paused, resumed, tested, and given other secrets.

use serde_json::{Value, json};

use crate::api::{Api, Asked, run_with};
use crate::deliveries::{delivery, with};
use crate::jobs::job;

pub(crate) fn registration() -> Value {
    json!({
        "id": "r-1", "name": "one", "integration": "webhook", "version": "1.0", "description": "",
        "config": { "tries": 3 }, "secrets": { "key": "… (fingerprint 1a2b3c4d)" },
        "created_at": "2026-01-02T03:04:05.678Z",
    })
}

fn paused() -> Value {
    let pause = json!({
        "since": "2026-01-02T03:04:05.678Z", "reason": "the registry moves", "by": "ci",
    });
    with(registration(), &json!({ "paused": pause }))
}

pub(crate) fn integrations() -> Value {
    let webhook = json!({
        "id": "webhook", "version": "1.0", "description": "Sends", "materials": [],
        "registration_schema": {
            "type": "object", "required": ["tries"],
            "properties": {
                "key": { "type": "string", "format": "password", "writeOnly": true },
                "other": { "type": "string", "format": "password", "writeOnly": true },
                "tries": { "type": "integer" },
            },
        },
        "attachment_schema": {
            "type": "object", "properties": { "prefix": { "type": "string" } },
        },
    });
    json!({ "items": [webhook], "next": null })
}

/// Its test ends so.
fn api(end: &'static str) -> Api {
    Api::start(move |_, Asked { line, .. }| {
        let attempts = json!([{
            "number": 1, "ending": "permanent", "started_at": "2026-01-02T03:04:05.678Z",
            "duration_ms": 12, "status": 404, "detail": "answered 404 Not Found", "answer": "no",
        }]);
        let answer = match line.as_str() {
            "GET /v1/integrations?limit=100" => integrations(),
            "GET /v1/registrations/one" | "POST /v1/registrations/one/pause" => paused(),
            "GET /v1/registrations?limit=100" => {
                json!({ "items": [paused(), registration()], "next": null })
            }
            "POST /v1/registrations/one/resume" => {
                json!({ "registration": registration(), "job": "j-1" })
            }
            "POST /v1/registrations/other/resume" => {
                json!({ "registration": registration(), "job": null })
            }
            "PATCH /v1/registrations/r-1" => with(
                registration(),
                &json!({ "name": "two", "config": { "tries": 5 }, "warnings": ["imports take a while"] }),
            ),
            "GET /v1/jobs/j-1" => job(&json!({ "kind": "drain", "state": "done", "done": 1 })),
            "POST /v1/registrations/r-1/rotate" => registration(),
            "POST /v1/registrations/r-1/test" => {
                json!({ "attestation": format!("sha256:{:064}", 0), "delivery": "d-1" })
            }
            "GET /v1/deliveries/d-1" => match end {
                "failed" => with(
                    delivery("d-1", end),
                    &json!({ "reason": "answered 404 Not Found", "attempts": attempts }),
                ),
                "held" => with(
                    delivery("d-1", "pending"),
                    &json!({ "held_at": "2026-01-02T03:04:05.678Z" }),
                ),
                _ => with(
                    delivery("d-1", end),
                    &json!({ "receipt": { "message": "m-1" } }),
                ),
            },
            _ => return unknown(),
        };
        (200, answer.to_string())
    })
}

fn unknown() -> (u16, String) {
    let problem = r#"{"status":404,"code":"not-found","title":"No"}"#;
    (404, problem.into())
}

fn registered<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["integration", "registered"], arguments].concat()
}

#[test]
fn the_external_id_of_a_role_is_shown_wherever_its_registration_is() {
    let id = "7d6e0b87-8a79-4779-90d8-d6e5a10dd485";
    let api = Api::start(move |_, Asked { line, .. }| {
        let one = with(registration(), &json!({ "external_id": id }));
        let answer = match line.as_str() {
            "GET /v1/integrations?limit=100" => integrations(),
            "GET /v1/registrations?limit=100" => {
                json!({ "items": [registration(), one], "next": null })
            }
            line if line.ends_with("/health") => return unknown(),
            _ => one,
        };
        (200, answer.to_string())
    });
    let below = format!("external ID for roles at AWS: {id}");
    for arguments in [
        &["list"][..],
        &["add", "webhook", "--name", "one", "--opt", "tries=3"],
    ] {
        let ran = api.run(&registered(arguments));
        assert!(ran.stdout.trim_end().ends_with(&below), "{}", ran.stdout);
    }
    let ran = api.run(&registered(&["describe", "one"]));
    assert!(
        ran.stdout.contains(&format!("│ EXTERNAL ID │ {id}")),
        "{}",
        ran.stdout
    );
    let ran = api.run(&registered(&["describe", "one", "-o", "json"]));
    assert_eq!(ran.json()["externalId"], id);
}

#[test]
fn what_is_paused_is_told_below_the_list_and_in_the_description() {
    let ran = api("").run(&registered(&["list"]));
    let (table, note) = ran.stdout.trim_end().rsplit_once('\n').unwrap();
    assert!(!table.contains("paused"), "{table}");
    assert!(note.starts_with("\"one\" is paused for "), "{note}");
    assert!(note.ends_with(": the registry moves (by ci)"), "{note}");
    let ran = api("").run(&registered(&["describe", "one"]));
    assert!(ran.stdout.contains("│ PAUSED      │ for"), "{}", ran.stdout);
    let ran = api("").run(&registered(&["describe", "--name", "one", "-o", "json"]));
    assert_eq!(ran.json()["paused"]["by"], "ci");
    let ran = api("").run(&registered(&["list", "-o", "json"]));
    assert_eq!(ran.json()[1].get("paused"), None);
}

#[test]
fn its_health_is_told_with_a_registration() {
    let hour = |delivered, failed| json!({ "delivered": delivered, "failed": failed, "open": 0, "other": 0 });
    let mut hours = vec![hour(0, 0); 24];
    (hours[3], hours[20]) = (hour(10, 0), hour(2, 1));
    let health = json!({
        "circuit": { "state": "half-open", "open_until": null }, "failing_since": "2026-01-02T03:04:05.678Z",
        "delivered_at": "2026-01-02T02:00:00.000Z", "failed_at": null, "hours": hours, "has_more": true,
    });
    let api = Api::start(move |_, Asked { line, .. }| {
        let answer = match line.as_str() {
            "GET /v1/registrations/r-1/health" => &health,
            _ => &registration(),
        };
        (200, answer.to_string())
    });
    let ran = api.run(&registered(&["describe", "one"]));
    for text in [
        "half-open",
        "│ FAILING SINCE  │ 2026-01-02 03:04:05 UTC",
        "│ LAST DELIVERED │ 2026-01-02 02:00:00 UTC",
        "│ LAST 24 HOURS  │ 12 delivered, 1 failed, and more: the newest 1,000 are counted",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("LAST FAILED"), "{}", ran.stdout);
    let ran = api.run(&registered(&["describe", "one", "-o", "json"]));
    let told = &ran.json()["health"];
    assert_eq!(
        (&told["circuit"], &told["hasMore"]),
        (&json!("half-open"), &json!(true))
    );
    assert_eq!(told["hours"][3]["delivered"], 10);
}

#[test]
fn a_registration_is_shown_though_its_health_is_not() {
    let api = Api::start(|_, Asked { line, .. }| match line.as_str() {
        "GET /v1/registrations/r-1/health" => (403, json!({ "code": "forbidden" }).to_string()),
        _ => (200, registration().to_string()),
    });
    let ran = api.run(&registered(&["describe", "one"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("│ NAME"), "{}", ran.stdout);
    assert!(
        ran.stderr.starts_with("WRN its health is not shown: "),
        "{}",
        ran.stderr
    );
}

#[test]
fn pausing_sends_the_reason() {
    let api = api("");
    let ran = api.run(&registered(&[
        "pause",
        "one",
        "--reason",
        "the registry moves",
    ]));
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.stderr);
    assert!(
        ran.stderr.starts_with("INF \"one\" is paused for "),
        "{}",
        ran.stderr
    );
    assert_eq!(
        api.asked()[0].json(),
        json!({ "reason": "the registry moves" })
    );
    let ran = api.run(&registered(&["pause", "two"]));
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.starts_with("ERR failed to pause \"two\": no\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn resuming_returns_at_once_or_follows_what_was_held() {
    let api = api("");
    let ran = api.run(&registered(&["resume", "one", "--rate", "20", "--wait"]));
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (0, "1 held delivery queued\n", "INF \"one\" resumed\n")
    );
    assert_eq!(api.asked()[0].json(), json!({ "per_second": 20 }));
    for words in [
        &["resume", "one", "-q"][..],
        &["resume", "one", "-q", "--no-wait"],
    ] {
        let ran = api.run(&registered(words));
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "j-1\n"));
    }
    let ran = api.run(&registered(&["resume", "one", "--wait", "-o", "json"]));
    assert_eq!(ran.json()["registration"]["name"], "one");
    assert_eq!(ran.json()["job"]["done"], 1);
    let ran = api.run(&registered(&["resume", "other"]));
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (0, "INF \"other\" was not paused\n")
    );
}

#[test]
fn an_update_sends_what_changes_and_shows_what_it_is_then() {
    let api = api("");
    let variables = [
        ("CHAINLOOP_URL", api.url.as_str()),
        ("CHAINLOOP_TOKEN", "cli_test"),
        ("KEY", "hunter2"),
    ];
    let options = [
        "update",
        "one",
        "--name",
        "two",
        "--description",
        "",
        "--opt",
        "tries=5",
        "--opt",
        "key=env:KEY",
        "--unset",
        "other",
    ];
    let ran = run_with(&registered(&options), &variables, "");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        ran.stderr,
        "WRN imports take a while\nINF \"one\" updated\n"
    );
    for text in ["│ Registration", "│ two", "tries: 5"] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    let sent = api.asked().pop().unwrap();
    assert_eq!(sent.line, "PATCH /v1/registrations/r-1");
    assert_eq!(
        sent.json(),
        json!({
            "name": "two", "description": "", "dry_run": false,
            "inputs": { "tries": 5, "key": "hunter2", "other": null },
        })
    );
    let ran = api.run(&registered(&[
        "update",
        "one",
        "--name",
        "two",
        "--dry-run",
        "-o",
        "json",
    ]));
    assert_eq!(ran.json()["name"], "two");
    assert_eq!(
        ran.stderr,
        "WRN imports take a while\nINF dry run: \"one\" can be updated; nothing was changed\n"
    );
    // Without inputs the integration's are not asked for.
    assert_eq!(
        api.asked().pop().unwrap().json(),
        json!({ "name": "two", "dry_run": true })
    );
    assert_eq!(
        api.lines()[api.lines().len() - 2],
        "GET /v1/registrations/one"
    );
}

#[test]
fn an_update_that_is_none_or_not_right_is_told_and_not_sent() {
    let api = api("");
    for (options, text) in [
        (&["one"][..], "required arguments were not provided"),
        (&["--name", "two"], "<NAME_OR_ID>"),
        (
            &["one", "--unset", "trise"],
            "trise: is not known; did you mean \"tries\"?",
        ),
        (
            &["one", "--opt", "tries=1", "--unset", "tries"],
            "tries: is both set and unset",
        ),
        (
            &["one", "--opt", "tries=x"],
            "tries: invalid option \"x\", the expected format is \"integer\"",
        ),
    ] {
        let ran = api.run(&registered(&[&["update"], options].concat()));
        assert_eq!(ran.code, 2, "{options:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(text), "{options:?}: {}", ran.stderr);
    }
    assert!(!api.lines().iter().any(|line| line.starts_with("PATCH")));
    let ran = api.run(&registered(&["update", "three", "--name", "two"]));
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .starts_with("ERR failed to update \"three\": no\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_test_shows_the_receipt_or_why_it_failed() {
    let api_of = api("delivered");
    let ran = api_of.run(&registered(&["test", "one", "--opt", "prefix=p"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("message: m-1"), "{}", ran.stdout);
    let sent = api_of.asked();
    let sent = sent.iter().find(|asked| asked.line.ends_with("/test"));
    assert_eq!(sent.unwrap().json(), json!({ "inputs": { "prefix": "p" } }));
    let ran = api("failed").run(&registered(&["test", "one"]));
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("│ permanent │"), "{}", ran.stdout);
    assert!(
        ran.stderr
            .ends_with("WRN the test delivery of \"one\" failed\n"),
        "{}",
        ran.stderr
    );
    let ran = api("failed").run(&registered(&["test", "one", "-o", "json"]));
    assert_eq!(
        (ran.code, &ran.json()["attempts"][0]["status"]),
        (1, &json!(404))
    );
}

#[test]
fn a_test_that_does_not_end_is_left() {
    let ran = api("pending").run(&registered(&["test", "one", "--timeout", "0"]));
    assert_eq!(ran.code, 4);
    assert!(
        ran.stderr.contains("chainloop delivery describe d-1"),
        "{}",
        ran.stderr
    );
    let ran = api("held").run(&registered(&["test", "one"]));
    assert_eq!(ran.code, 4);
    assert!(
        ran.stderr.contains("is held, because \"one\" is paused"),
        "{}",
        ran.stderr
    );
}

#[test]
fn secrets_are_replaced_and_never_shown() {
    let api = api("");
    let variables = [
        ("CHAINLOOP_URL", api.url.as_str()),
        ("CHAINLOOP_TOKEN", "cli_test"),
        ("OTHER", "hunter3"),
    ];
    let options = [
        "rotate",
        "one",
        "--opt",
        "key=-",
        "--opt",
        "other=env:OTHER",
    ];
    let ran = run_with(&registered(&options), &variables, "hunter2\n");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stderr, "INF secrets of \"one\" replaced\n");
    assert!(!ran.stdout.contains("hunter"), "{}", ran.stdout);
    assert_eq!(
        api.asked().last().unwrap().json(),
        json!({ "inputs": { "key": "hunter2", "other": "hunter3" } })
    );
    let ran = api.run(&registered(&[
        "rotate",
        "one",
        "--opt",
        "key=hunter2",
        "--debug",
    ]));
    assert_eq!(ran.code, 0);
    assert!(
        ran.stderr.contains("WRN \"key\" is a secret"),
        "{}",
        ran.stderr
    );
    assert!(!(ran.stderr + &ran.stdout).contains("hunter2"));
}

#[test]
fn a_rotation_takes_all_secret_inputs_and_no_others() {
    let api = api("");
    for (option, text) in [
        ("other=env:PATH", "key: is required"),
        ("tries=4", "tries: is not a secret input"),
        ("kee=-", "kee: is not known; did you mean \"key\"?"),
    ] {
        let ran = api.run(&registered(&["rotate", "one", "--opt", option]));
        assert_eq!(ran.code, 2, "{option}: {}", ran.stderr);
        assert!(ran.stderr.contains(text), "{option}: {}", ran.stderr);
    }
    let ran = api.run(&registered(&["rotate", "one"]));
    assert_eq!(ran.code, 2);
    assert!(!api.lines().iter().any(|line| line.starts_with("POST")));
}
