//! Attachments: previewed, and given past attestations.

use serde_json::{Value, json};

use crate::api::{Api, Asked};
use crate::jobs::job;

const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn api(previewed: &Value) -> Api {
    let previewed = previewed.clone();
    Api::start(move |_, Asked { line, .. }| {
        let answer = match line.as_str() {
            "POST /v1/attachments/a-1/preview" => previewed.clone(),
            "POST /v1/attachments/a-2/preview" => {
                let problem = json!({
                    "status": 422, "code": "not-deliverable", "title": "It could not be delivered",
                    "detail": "the SBOM is larger than 50 MiB",
                });
                return (422, problem.to_string());
            }
            "POST /v1/attachments/a-1/backfill" => job(&json!({ "kind": "backfill" })),
            "GET /v1/jobs/j-1" => job(&json!({
                "kind": "backfill", "state": "done", "dry_run": true, "done": 5, "skipped": 1,
            })),
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

fn request(body: &str, size_bytes: usize) -> Value {
    let request = json!({
        "method": "POST", "target": "https://example.org/…",
        "headers": { "content-type": "application/json" }, "digest": DIGEST,
        "size_bytes": size_bytes, "body": body,
    });
    json!({ "requests": [request] })
}

fn preview<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let line = [
        "integration",
        "attached",
        "preview",
        "--id",
        "a-1",
        "--attestation",
        DIGEST,
    ];
    [&line[..], more].concat()
}

#[test]
fn a_preview_shows_the_request_and_its_body_as_it_is_read() {
    let body = json!({ "list": (0..60).collect::<Vec<u8>>() }).to_string();
    let api = api(&request(&body, body.len()));
    let ran = api.run(&preview(&[]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for text in [
        "│ METHOD",
        "│ https://example.org/…",
        "│ content-type: application/json",
        DIGEST,
        "\n{\n  \"list\": [\n    0,\n",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    assert!(
        ran.stdout.ends_with("\n… 24 more lines: pass --full\n"),
        "{}",
        ran.stdout
    );
    assert_eq!(api.asked()[0].json(), json!({ "attestation": DIGEST }));
    let ran = api.run(&preview(&["--full"]));
    assert!(ran.stdout.ends_with("    59\n  ]\n}\n"), "{}", ran.stdout);
    let ran = api.run(&preview(&["-o", "json"]));
    assert_eq!(ran.json(), request(&body, body.len()));
}

#[test]
fn a_body_that_is_not_whole_or_not_json_is_shown_as_it_is() {
    let ran = api(&request("{\"cut\": ", 9_000)).run(&preview(&[]));
    assert!(
        ran.stdout
            .ends_with("{\"cut\": \n… only the beginning of the body is available\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn where_nothing_would_be_sent_it_is_said_why() {
    let nothing = json!({ "requests": [], "nothing": "there is no SBOM" });
    let ran = api(&nothing).run(&preview(&[]));
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "nothing would be sent: there is no SBOM\n")
    );
    let line = [
        "integration",
        "attached",
        "preview",
        "--id",
        "a-2",
        "--attestation",
        DIGEST,
    ];
    let ran = api(&nothing).run(&line);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .contains("\"a-2\": the SBOM is larger than 50 MiB\n"),
        "{}",
        ran.stderr
    );
    let line = [
        "integration",
        "attached",
        "preview",
        "--id",
        "a-1",
        "--attestation",
        "x",
    ];
    let ran = api(&nothing).run(&line);
    assert_eq!(ran.code, 2);
}

#[test]
fn a_backfill_is_counted_or_surely_done() {
    let api = api(&json!({}));
    let backfill = ["integration", "attached", "backfill", "--id", "a-1"];
    let ran = api.run(&backfill);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("cannot ask whether to deliver them"),
        "{}",
        ran.stderr
    );
    assert!(api.lines().is_empty());
    let ran = api.run(
        &[
            &backfill[..],
            &["--dry-run", "--until", "2026-01-02T00:00:00Z"],
        ]
        .concat(),
    );
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "5 attestations would be delivered, 1 would be skipped\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        api.asked()[0].json(),
        json!({ "until": "2026-01-02T00:00:00.000Z", "dry_run": true })
    );
    let ran = api.run(&[&backfill[..], &["-y", "--no-wait", "-o", "json"]].concat());
    assert_eq!((ran.code, &ran.json()["kind"]), (0, &json!("backfill")));
    assert_eq!(
        api.asked().last().unwrap().json(),
        json!({ "dry_run": false })
    );
}
