//! Deliveries: shown, delivered again, cancelled, followed, and audited.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::{Value, json};

use crate::api::{Api, Asked};
use crate::jobs::job;

const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

pub(crate) fn delivery(id: &str, state: &str) -> Value {
    json!({
        "id": id, "state": state, "attempt": 1, "reason": null, "integration": "webhook",
        "registration": "r-1", "attachment": "a-1", "attestation": DIGEST,
        "workflow": { "project": "shop", "name": "nightly" }, "due_at": null, "generation": 0,
        "receipt": null, "progress": {},
        "created_at": "2026-01-02T03:04:05.678Z", "updated_at": "2026-01-02T03:04:05.678Z",
    })
}

pub(crate) fn with(mut value: Value, more: &Value) -> Value {
    let all = value.as_object_mut().unwrap();
    all.extend(more.as_object().unwrap().clone());
    value
}

fn problem(status: u16, code: &str, detail: &str) -> (u16, String) {
    let problem = json!({
        "status": status, "code": code, "title": "No", "detail": detail, "request_id": "req-1",
    });
    (status, problem.to_string())
}

fn held() -> Value {
    with(
        delivery("d-1", "pending"),
        &json!({ "held_at": "2026-01-02T03:05:00.000Z", "generation": 2 }),
    )
}

/// Delivers `d-1` again as `d-2`, which ends so; `d-9` is delivered already.
fn api(state: &'static str) -> Api {
    Api::start(move |_, Asked { line, .. }| {
        let answer = match line.as_str() {
            "POST /v1/deliveries/d-1/redeliver" => json!({ "id": "d-2" }),
            "GET /v1/deliveries/d-1" => delivery("d-1", "pending"),
            "GET /v1/deliveries/d-2" => delivery("d-2", state),
            "POST /v1/deliveries/d-1/cancel" => delivery("d-1", "cancelled"),
            "POST /v1/deliveries/d-9/cancel" => {
                return problem(409, "over", "the delivery is delivered already");
            }
            "POST /v1/redeliveries" => job(&json!({ "kind": "redeliver" })),
            "GET /v1/jobs/j-1" => job(
                &json!({ "kind": "redeliver", "state": "done", "done": 12, "skipped": 2, "seen": 40 }),
            ),
            _ => return problem(404, "not-found", "there is no such thing"),
        };
        (200, answer.to_string())
    })
}

#[test]
fn what_is_held_and_what_is_a_redelivery_is_told() {
    let api = Api::start(|_, Asked { line, .. }| {
        let answer = match line.as_str() {
            "GET /v1/deliveries/d-1" => held(),
            _ => json!({ "items": [held()], "next": null }),
        };
        (200, answer.to_string())
    });
    let ran = api.run(&["delivery", "list", "--registration", "one"]);
    assert!(ran.stdout.contains("│ pending (held) │"), "{}", ran.stdout);
    assert!(ran.stdout.contains("│ 1 (redelivery) │"), "{}", ran.stdout);
    assert_eq!(
        api.lines(),
        ["GET /v1/deliveries?registration=one&limit=50"]
    );
    let ran = api.run(&["delivery", "describe", "d-1"]);
    assert!(
        ran.stdout.contains("2: redelivery or backfill"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("ago): registration paused"),
        "{}",
        ran.stdout
    );
    let ran = api.run(&["delivery", "describe", "d-1", "-o", "json"]);
    let one = ran.json();
    assert_eq!(
        (&one["heldAt"], &one["generation"]),
        (&json!("2026-01-02T03:05:00.000Z"), &json!(2))
    );
}

#[test]
fn a_redelivery_prints_the_id_that_is_under_way() {
    let ran = api("delivered").run(&["delivery", "redeliver", "d-1"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "d-2\n"),
        "{}",
        ran.stderr
    );
    let ran = api("delivered").run(&["delivery", "redeliver", "d-1", "-o", "json"]);
    assert_eq!(ran.json(), json!({ "id": "d-2" }));
    let ran = api("delivered").run(&["delivery", "redeliver", "d-8"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .starts_with("ERR failed to redeliver \"d-8\": there is no such thing\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_redelivery_that_is_waited_for_ends_as_it_did() {
    for (state, timeout, code) in [
        ("delivered", "9", 0),
        ("failed", "9", 3),
        ("pending", "0", 4),
    ] {
        let line = [
            "delivery",
            "redeliver",
            "d-1",
            "--wait",
            "--timeout",
            timeout,
        ];
        let ran = api(state).run(&line);
        assert_eq!(ran.code, code, "{state}: {}", ran.stderr);
        assert!(ran.stdout.contains("│ d-2"), "{}", ran.stdout);
    }
}

#[test]
fn many_are_redelivered_by_a_job_that_is_followed() {
    let api = api("delivered");
    let ran = api.run(&[
        "delivery",
        "redeliver",
        "--all",
        "--registration",
        "one",
        "--workflow",
        "nightly",
        "--project",
        "shop",
        "--since",
        "2026-01-01T00:00:00Z",
        "--rate",
        "20",
        "-y",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stdout, "12 deliveries redelivered, 2 skipped\n");
    assert_eq!(
        ran.stderr,
        "INF job j-1 started; the reconciler picks it up within a minute\n"
    );
    assert_eq!(api.lines(), ["POST /v1/redeliveries", "GET /v1/jobs/j-1"]);
    assert_eq!(
        api.asked()[0].json(),
        json!({
            "registration": "one", "workflow": "nightly", "project": "shop", "state": "failed",
            "since": "2026-01-01T00:00:00.000Z", "per_second": 20, "dry_run": false,
        })
    );
}

#[test]
fn without_a_terminal_many_are_only_counted_or_surely_redelivered() {
    let api = api("delivered");
    let ran = api.run(&["delivery", "redeliver", "--all"]);
    assert_eq!(ran.code, 2);
    assert_eq!(
        ran.stderr,
        "ERR cannot ask whether to redeliver them: no terminal\n    Pass -y to skip the confirmation.\n"
    );
    assert!(api.lines().is_empty());
    let ran = api.run(&["delivery", "redeliver", "--all", "--dry-run", "--no-wait"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "j-1\n"));
    assert!(
        ran.stderr.contains("chainloop job describe j-1"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        api.asked()[0].json(),
        json!({ "state": "failed", "dry_run": true })
    );
}

#[test]
fn what_cannot_be_redelivered_is_refused_before_it_is_asked() {
    let api = api("delivered");
    for (line, text) in [
        (
            &["--all", "--state", "pending"][..],
            "possible values: failed, cancelled, skipped, delivered",
        ),
        (
            &["--all", "--since", "yesterday"],
            "or an age such as 30m, 2h or 7d",
        ),
        (
            &["--all", "--since", "1h", "--until", "2h"],
            "--since is later than --until",
        ),
        (&["--all", "--rate", "51"], "51 is not in 1..=50"),
        (
            &["--all", "--workflow", "nightly"],
            "Pass --workflow project/name, or --project.",
        ),
        (&["d-1", "--all"], "cannot be used with"),
        (&["d-1", "--since", "2h"], "cannot be used with"),
        (&["d-1", "--rate", "5"], "cannot be used with"),
        (&[], "required"),
    ] {
        let ran = api.run(&[&["delivery", "redeliver"], line].concat());
        assert_eq!(ran.code, 2, "{line:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(text), "{line:?}: {}", ran.stderr);
    }
    assert!(api.lines().is_empty());
}

#[test]
fn a_delivery_is_cancelled_when_that_is_sure() {
    let api = api("delivered");
    let ran = api.run(&["delivery", "cancel", "d-1"]);
    assert_eq!(ran.code, 2);
    assert!(api.lines().is_empty());
    let ran = api.run(&["delivery", "cancel", "d-1", "-y", "-o", "json"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (0, "INF delivery d-1 cancelled\n")
    );
    assert_eq!(ran.json()["state"], "cancelled");
    let ran = api.run(&["delivery", "cancel", "d-9", "-y"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "ERR failed to cancel the delivery \"d-9\": the delivery is delivered already\n    request ID: req-1\n"
    );
}

/// An audit that ends so.
fn audited(end: &'static Value) -> Api {
    Api::start(move |_, Asked { line, .. }| {
        let audit = job(&json!({ "kind": "audit" }));
        let answer = match line.as_str() {
            "POST /v1/audits" => audit,
            _ => with(audit, end),
        };
        (200, answer.to_string())
    })
}

#[test]
fn an_audit_says_that_all_is_accounted_for_or_what_is_not() {
    let fine = json!({ "state": "done", "seen": 40, "done": 40 });
    let ran = audited(Box::leak(Box::new(fine))).run(&["delivery", "audit"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "40 attestations, all deliveries accounted for\n")
    );
    let broken: &Value = Box::leak(Box::new(json!({
        "state": "done", "seen": 40, "done": 39, "skipped": 1,
        "violations": ["delivery d-1: planned and not there"],
    })));
    let ran = audited(broken).run(&["delivery", "audit"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (1, "delivery d-1: planned and not there\n")
    );
    assert!(
        ran.stderr
            .contains("ERR 1 of 40 attestations have deliveries that are not accounted for\n"),
        "{}",
        ran.stderr
    );
    let ran = audited(broken).run(&["delivery", "audit", "-o", "json"]);
    assert_eq!((ran.code, &ran.json()["skipped"]), (1, &json!(1)));
    let failed = json!({ "state": "failed", "seen": 3, "reason": "the table is not there" });
    let ran = audited(Box::leak(Box::new(failed))).run(&["delivery", "audit"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .contains("ERR job j-1 failed: the table is not there"),
        "{}",
        ran.stderr
    );
}

#[test]
fn following_prints_a_line_for_each_change_until_all_is_final() {
    let count = AtomicUsize::new(0);
    let api = Api::start(move |_, _| {
        let items = match count.fetch_add(1, Relaxed) {
            0 | 1 => json!([delivery("d-1", "pending"), delivery("old", "failed")]),
            2 => json!([delivery("d-2", "delivering"), delivery("d-1", "delivered")]),
            _ => json!([delivery("d-2", "delivered"), delivery("d-1", "delivered")]),
        };
        (200, json!({ "items": items, "next": null }).to_string())
    });
    let line = [
        "delivery",
        "follow",
        "--workflow",
        "shop/nightly",
        "--interval",
        "200ms",
    ];
    let ran = api.run(&[&line[..], &["--until-final", "-o", "json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let told: Vec<(String, String)> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|one| (one["id"].to_string(), one["state"].to_string()))
        .collect();
    let told: Vec<(&str, &str)> = told
        .iter()
        .map(|(id, state)| (id.trim_matches('"'), state.trim_matches('"')))
        .collect();
    assert_eq!(told[0], ("d-1", "pending"));
    assert!(told.contains(&("d-1", "delivered")), "{told:?}");
    assert_eq!(told.iter().filter(|(id, _)| *id == "old").count(), 0);
    assert!(api.lines()[0].contains("workflow=shop%2Fnightly"));
}

#[test]
fn all_deliveries_of_an_attestation_are_followed_and_their_end_is_the_commands() {
    let api = Api::start(|_, _| {
        let items = [with(
            delivery("d-1", "failed"),
            &json!({ "reason": "answered 404" }),
        )];
        (200, json!({ "items": items, "next": null }).to_string())
    });
    let ran = api.run(&[
        "delivery",
        "follow",
        "--attestation",
        DIGEST,
        "--until-final",
    ]);
    assert_eq!(ran.code, 3);
    assert_eq!(
        ran.stdout,
        "2026-01-02 03:04:05 UTC  d-1  failed      r-1 (webhook)  shop/nightly  attempt 1: answered 404\n"
    );
    assert_eq!(ran.stderr, "WRN 1 delivery failed\n");
}

#[test]
fn a_delivery_that_arrived_in_part_is_told_and_ends_with_3() {
    let api = Api::start(|_, _| {
        let note = json!({ "reason": "accepted for 1 of 2 recipients" });
        let items = [
            with(delivery("d-1", "delivered"), &note),
            delivery("d-2", "delivered"),
        ];
        (200, json!({ "items": items, "next": null }).to_string())
    });
    let follow = [
        "delivery",
        "follow",
        "--attestation",
        DIGEST,
        "--until-final",
    ];
    let ran = api.run(&follow);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let lines: Vec<_> = ran.stdout.lines().collect();
    let told = |id: &str| lines.iter().find(|line| line.contains(id)).unwrap();
    let note = "delivered (partial)  r-1 (webhook)  shop/nightly  attempt 1: accepted for 1 of 2 recipients";
    assert!(told("d-1").ends_with(note), "{}", ran.stdout);
    assert!(told("d-2").ends_with("attempt 1"), "{}", ran.stdout);
    assert_eq!(ran.stderr, "WRN 1 delivery partial\n");

    let ran = api.run(&["delivery", "list"]);
    assert!(ran.stdout.contains("(partial)"), "{}", ran.stdout);
    assert!(ran.stdout.contains("accepted for 1 of 2"), "{}", ran.stdout);
}
