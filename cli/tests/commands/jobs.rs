//! Jobs, and the log of what operators did.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Api, Asked};
use crate::deliveries::with;

/// A job that has just begun; of a redelivery or a backfill unless it says otherwise.
pub(crate) fn job(more: &Value) -> Value {
    let job = json!({
        "id": "j-1", "dry_run": false, "per_second": 10, "state": "running", "reason": null,
        "seen": 0, "done": 0, "skipped": 0, "created_by": "ci", "attachment": "a-1",
        "until": "2026-01-02T03:04:05.678Z", "registration": "r-1",
        "filter": { "state": "failed", "registration": "r-1", "until": "2026-01-02T03:04:05.678Z" },
        "created_at": "2026-01-02T03:04:05.678Z", "updated_at": "2026-01-02T03:04:05.678Z",
    });
    with(job, more)
}

fn api() -> Api {
    Api::start(|_, Asked { line, .. }| {
        let running = job(&json!({ "kind": "redeliver", "dry_run": true, "seen": 100, "done": 7 }));
        let done = job(&json!({ "kind": "audit", "id": "j-2", "state": "done" }));
        let answer = match line.as_str() {
            "GET /v1/jobs?limit=50" => json!({ "items": [running, done], "next": null }),
            "GET /v1/jobs/j-1" => running,
            "POST /v1/jobs/j-1/cancel" => with(running, &json!({ "state": "cancelled" })),
            "POST /v1/jobs/j-2/cancel" => done,
            "POST /v1/audits" => job(&json!({ "kind": "audit" })),
            line if line.starts_with("GET /v1/audit-log") => {
                let entry = json!({
                    "id": "e-1", "action": "registration.pause", "subject": "registry",
                    "subject_id": "r-1", "detail": "the registry moves", "by": "ci",
                    "token": "t-1", "address": "192.0.2.10", "user_agent": "curl/8\u{1b}[2J",
                    "created_at": "2026-01-31T03:04:05.678Z",
                });
                json!({ "items": [entry], "next": null })
            }
            _ => {
                return (
                    404,
                    r#"{"status":404,"code":"not-found","title":"No"}"#.into(),
                );
            }
        };
        (200, answer.to_string())
    })
}

#[test]
fn jobs_are_listed_with_how_far_they_are() {
    let ran = api().run(&["job", "list"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = ran.stdout.lines().map(words).collect();
    assert_eq!(
        lines[1],
        "│ ID │ KIND │ STATE │ TO │ DONE │ SKIPPED │ SEEN │ CREATED BY │ CREATED │"
    );
    assert!(
        lines[3].starts_with("│ j-1 │ redeliver (dry run) │ running │ │ 7 │ 0 │ 100 │ ci │ "),
        "{}",
        lines[3]
    );
    let ran = api().run(&["job", "ls", "-o", "json"]);
    assert_eq!(ran.json()[0]["created_by"], "ci");
    assert_eq!(ran.json()[1]["kind"], "audit");
}

#[test]
fn a_job_is_shown_with_what_it_is_of() {
    let ran = api().run(&["job", "describe", "j-1"]);
    assert!(ran.stdout.contains("registration: r-1"), "{}", ran.stdout);
    assert!(ran.stdout.contains("│ PER SECOND │ 10"), "{}", ran.stdout);
    let ran = api().run(&["job", "describe", "j-1", "-o", "json"]);
    assert_eq!(ran.json()["filter"]["state"], "failed");
    let ran = api().run(&["job", "describe", "j-3"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("failed to show the job \"j-3\""),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_job_is_cancelled_unless_it_is_over() {
    let ran = api().run(&["job", "cancel", "j-1", "-o", "json"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (0, "INF job j-1 cancelled\n")
    );
    assert_eq!(ran.json()["state"], "cancelled");
    let ran = api().run(&["job", "cancel", "j-2"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (0, "INF job j-2 was already done\n")
    );
}

#[test]
fn what_operators_did_is_listed_by_day() {
    let api = api();
    let ran = api.run(&["audit", "list", "--day", "2026-01-31"]);
    assert!(
        ran.stdout.contains("│ registration.pause │"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("2026-01-31 03:04:05 UTC"),
        "{}",
        ran.stdout
    );
    for text in [
        "│ registry ",
        "│ 192.0.2.10 ",
        "│ curl/8\u{fffd}[2J ",
        "the registry moves",
    ] {
        assert!(ran.stdout.contains(text), "{text}\n{}", ran.stdout);
    }
    assert_eq!(api.lines(), ["GET /v1/audit-log?day=2026-01-31&limit=100"]);
    let ran = api.run(&["audit", "list", "-o", "json"]);
    let entry = &ran.json()[0];
    assert_eq!(entry["createdAt"], "2026-01-31T03:04:05.678Z");
    assert_eq!(
        (&entry["subjectId"], &entry["userAgent"]),
        (&json!("r-1"), &json!("curl/8\u{1b}[2J"))
    );
    let ran = api.run(&["audit", "list", "--day", "today"]);
    assert_eq!(ran.code, 2);
}

#[test]
fn an_interrupt_says_that_the_job_goes_on() {
    let audit = || (200, job(&json!({ "kind": "audit" })).to_string());
    let api = Api::start(move |_, _| audit());
    let child = Command::new(env!("CARGO_BIN_EXE_chainloop"))
        .args(["delivery", "audit"])
        .env_clear()
        .env("CHAINLOOP_URL", &api.url)
        .env("CHAINLOOP_TOKEN", "cli_test")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // By then it listens: it has asked how far the job is.
    while api.lines().len() < 2 {
        sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{stderr}");
    assert!(
        stderr.ends_with(
            "ERR interrupted; job j-1 continues\n    `chainloop job describe j-1` shows its progress, `chainloop \
             job cancel j-1` cancels it.\n"
        ),
        "{stderr}"
    );
}
