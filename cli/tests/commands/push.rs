//! Attestations: made, pushed with their materials, and waited for.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::api::{Api, Asked, Ran, run_with};

/// A folder with a material and an attestation over it.
struct Build {
    folder: PathBuf,
    attestation: String,
    sbom: String,
}

impl Build {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("chainloop-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = |file: &str| folder.join(file).to_str().unwrap().to_owned();
        let (attestation, sbom) = (path("attestation.json"), path("shop.cdx.json"));
        fs::write(&sbom, "{}").unwrap();
        let material = format!("sbom=SBOM_CYCLONEDX_JSON:{sbom}");
        let craft = [
            "attestation",
            "craft",
            &attestation,
            "--workflow",
            "nightly",
            "--project",
            "shop",
            "--material",
            &material,
            "--material",
            "note=STRING:hello",
        ];
        let ran = run_with(&craft, &[], "");
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        Self {
            folder,
            attestation,
            sbom,
        }
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const SBOM_DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// Wants the SBOM and ends its one delivery so.
fn api(state: &'static str) -> Api {
    Api::start(move |url, Asked { line, .. }| {
        let answer = match line.as_str() {
            line if line.starts_with("PUT /v1/materials/") => json!({
                "state": "needed",
                "upload": {
                    "method": "PUT", "url": format!("{url}/bucket/sbom"),
                    "headers": { "content-length": "2", "x-amz-checksum-sha256": "abc" },
                },
            }),
            "PUT /bucket/sbom" => return (412, String::new()),
            line if line.starts_with("POST /v1/attestations") => json!({
                "attestation": SBOM_DIGEST, "received": SBOM_DIGEST, "repeated": false,
                "workflow": { "project": "shop", "name": "nightly" },
                "deliveries": [
                    { "id": "d-1", "attachment": "a-1", "registration": "r-1", "integration": "webhook" },
                ],
                "missing": [SBOM_DIGEST],
            }),
            line if line.starts_with("GET /v1/deliveries?") => {
                json!({ "items": [delivery("d-1", state), delivery("other", "failed")], "next": null })
            }
            _ => return (404, "{}".into()),
        };
        (200, answer.to_string())
    })
}

fn delivery(id: &str, state: &str) -> Value {
    json!({
        "id": id, "state": state, "attempt": 1, "reason": null, "integration": "webhook",
        "registration": "r-1", "attachment": "a-1", "attestation": SBOM_DIGEST,
        "workflow": { "project": "shop", "name": "nightly" }, "due_at": null,
        "receipt": { "message": "m-1" }, "progress": {},
        "created_at": "2026-01-02T03:04:05.678Z", "updated_at": "2026-01-02T03:04:05.678Z",
    })
}

#[test]
fn a_material_goes_before_the_attestation_which_goes_as_it_is() {
    let build = Build::new("push");
    let api = api("delivered");
    let material = format!("sbom={}", build.sbom);
    let ran = api.run(&[
        "attestation",
        "push",
        &build.attestation,
        "--material",
        &material,
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let asked = api.asked();
    assert_eq!(
        api.lines(),
        [
            format!("PUT /v1/materials/{SBOM_DIGEST}").as_str(),
            "PUT /bucket/sbom",
            "POST /v1/attestations?names=true"
        ]
    );
    assert_eq!(asked[0].json(), json!({ "size_bytes": 2 }));
    assert_eq!(asked[1].body, b"{}");
    assert_eq!(asked[1].header("x-amz-checksum-sha256"), Some("abc"));
    assert_eq!(asked[1].header("content-length"), Some("2"));
    assert_eq!(asked[1].header("authorization"), None);
    assert_eq!(asked[2].body, fs::read(&build.attestation).unwrap());
    assert_eq!(asked[2].header("content-type"), Some("application/json"));
    assert!(
        ran.stderr.contains("accepted, with 1 delivery"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr
            .contains("WRN deliveries wait for the missing material \"sbom\""),
        "{}",
        ran.stderr
    );
    assert!(ran.stdout.contains("│ d-1"), "{}", ran.stdout);
}

#[test]
fn another_file_than_the_attested_is_not_sent() {
    let build = Build::new("other");
    fs::write(&build.sbom, "{ }").unwrap();
    let api = api("delivered");
    let material = format!("shop.cdx.json={}", build.sbom);
    let ran = api.run(&[
        "attestation",
        "push",
        &build.attestation,
        "--material",
        &material,
    ]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains(&format!("attested: {SBOM_DIGEST}")),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("file: sha256:"), "{}", ran.stderr);
    assert!(api.lines().is_empty());
}

#[test]
fn a_material_that_was_not_attested_is_refused_with_those_that_were() {
    let build = Build::new("unknown");
    let api = api("delivered");
    let material = format!("sarif={}", build.sbom);
    let ran = api.run(&[
        "attestation",
        "push",
        &build.attestation,
        "--material",
        &material,
    ]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("It has sbom, note."), "{}", ran.stderr);
    assert!(api.lines().is_empty());
}

#[test]
fn waiting_shows_the_receipts_and_ends_by_what_became_of_the_deliveries() {
    let build = Build::new("wait");
    for (state, timeout, code) in [
        ("delivered", "60", 0),
        ("skipped", "60", 0),
        ("failed", "60", 3),
        ("cancelled", "60", 3),
        ("pending", "0", 4),
    ] {
        let ran = api(state).run(&[
            "attestation",
            "push",
            &build.attestation,
            "--wait",
            "--timeout",
            timeout,
            "-o",
            "json",
        ]);
        assert_eq!(ran.code, code, "{state}: {}", ran.stderr);
        let deliveries = &ran.json()["deliveries"];
        assert_eq!(deliveries.as_array().unwrap().len(), 1, "{state}");
        assert_eq!(deliveries[0]["state"], state);
        assert_eq!(deliveries[0]["receipt"]["message"], "m-1");
    }
}

#[test]
fn what_is_no_attestation_is_not_sent() {
    let build = Build::new("none");
    let api = api("delivered");
    let ran = api.run(&["attestation", "push", &build.sbom]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("is not a valid attestation: "),
        "{}",
        ran.stderr
    );
    assert!(api.lines().is_empty());
}

#[test]
fn each_crafted_attestation_is_a_run_of_its_own() {
    let craft = [
        "attestation",
        "craft",
        "--workflow",
        "w",
        "--project",
        "p",
        "--form",
        "envelope",
    ];
    let (one, other) = (run_with(&craft, &[], ""), run_with(&craft, &[], ""));
    assert_eq!(
        (one.code, one.json()["payloadType"].as_str()),
        (0, Some("application/vnd.in-toto+json"))
    );
    assert_ne!(one.json()["payload"], other.json()["payload"]);
}

/// Answers each attestation by what it is: a bundle is accepted, a bare envelope refused.
fn several(status: u16) -> Api {
    Api::start(move |_, Asked { line, body, .. }| {
        if line.starts_with("GET /v1/deliveries?") {
            let page = json!({ "items": [delivery("d-1", "delivered")], "next": null });
            return (200, page.to_string());
        }
        let is_bundle = String::from_utf8_lossy(body).contains("dsseEnvelope");
        match (line.starts_with("POST /v1/attestations"), is_bundle) {
            (true, true) => (202, accepted().to_string()),
            (true, false) => {
                let problem = json!({
                    "status": status, "code": "workflow-missing", "title": "Which workflow is it from?",
                    "detail": "the attestation does not say which workflow it belongs to", "request_id": "r-1",
                });
                (status, problem.to_string())
            }
            _ => (404, "{}".into()),
        }
    })
}

fn accepted() -> Value {
    json!({
        "attestation": SBOM_DIGEST, "received": SBOM_DIGEST, "repeated": false,
        "workflow": { "project": "shop", "name": "nightly" },
        "deliveries": [
            { "id": "d-1", "attachment": "a-1", "registration": "r-1", "integration": "webhook" },
        ],
        "missing": [],
    })
}

/// A bundle and an envelope, on a line each.
fn crafted() -> (String, String) {
    let craft = |form: &str| {
        let words = [
            "attestation",
            "craft",
            "--workflow",
            "w",
            "--project",
            "p",
            "--form",
            form,
        ];
        run_with(&words, &[], "").stdout
    };
    (craft("bundle"), craft("envelope"))
}

fn posted(api: &Api) -> Vec<String> {
    let posts = api.asked().into_iter();
    posts
        .filter(|asked| asked.line.starts_with("POST"))
        .map(|asked| String::from_utf8(asked.body).unwrap())
        .collect()
}

fn push(api: &Api, file: &str, more: &[&str]) -> Ran {
    let words = [&["attestation", "push", "-"], more].concat();
    api.run_with(&words, file)
}

#[test]
fn each_line_of_a_file_is_pushed_as_it_stands_and_one_that_is_refused_stops_no_other() {
    let (bundle, envelope) = crafted();
    let file = format!("{bundle}\n{{broken\n{envelope}\r\n{bundle}\n");
    let api = several(422);
    let ran = push(&api, &file, &[]);
    assert_eq!(ran.code, 1);
    assert_eq!(posted(&api), [bundle.clone(), envelope, bundle]);
    assert!(
        ran.stderr
            .ends_with("ERR 2 of the 4 attestations in standard input were not accepted\n"),
        "{}",
        ran.stderr
    );
    for text in [
        "│ 1 ",
        "│ accepted",
        "│ refused",
        "it is not JSON",
        "does not say which workflow",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    let ran = push(&several(422), &file, &["-o", "json", "--wait"]);
    assert_eq!(ran.code, 1);
    let entries = ran.json();
    let states: Vec<_> = entries
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["state"])
        .collect();
    assert_eq!(states, ["accepted", "refused", "refused", "accepted"]);
    assert_eq!(entries[0]["entry"], 1);
    assert_eq!(entries[0]["attestation"], SBOM_DIGEST);
    assert_eq!(entries[0]["deliveries"][0]["state"], "delivered");
    assert!(entries[1]["reason"].as_str().unwrap().contains("not JSON"));
    assert_eq!(entries[1].get("attestation"), None);
}

#[test]
fn what_a_registry_answers_is_taken_apart() {
    let (bundle, _) = crafted();
    let file = format!(r#"{{"attestations":[{{"predicateType":"p","bundle": {bundle} }}]}}"#);
    let api = several(422);
    let ran = push(&api, &file, &["-o", "json", "--wait"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(posted(&api), [bundle]);
    assert_eq!(ran.json()[0]["state"], "accepted");
    let ran = push(&api, r#"{"attestations":[]}"#, &[]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .contains("standard input contains no attestation"),
        "{}",
        ran.stderr
    );
}

#[test]
fn where_the_token_is_not_accepted_the_others_are_not_sent() {
    let (bundle, envelope) = crafted();
    let api = several(403);
    let ran = push(
        &api,
        &format!("{bundle}\n{envelope}\n{bundle}"),
        &["-o", "json"],
    );
    assert_eq!(ran.code, 1);
    assert_eq!(posted(&api).len(), 2);
    let entries = ran.json();
    let states: Vec<_> = entries
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["state"])
        .collect();
    assert_eq!(states, ["accepted", "not sent", "not sent"]);
    assert!(
        ran.stderr.contains(
            "\"failed to push attestation 2 of standard input; later ones were not sent: "
        ),
        "{}",
        ran.stderr
    );
}

#[test]
fn what_is_above_a_limit_is_refused_with_advice_that_fits_it() {
    let api = several(422);
    let ran = push(&api, &" ".repeat(6 * 1024 * 1024 + 1), &[]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("it is larger than 6 MiB"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("by digest"), "{}", ran.stderr);
    assert!(api.lines().is_empty());
}

#[test]
fn a_long_wait_says_in_a_log_until_when_it_lasts_and_what_comes_next() {
    let build = Build::new("long");
    let push = [
        "attestation",
        "push",
        &build.attestation,
        "--wait",
        "--timeout",
        "7",
    ];
    let ran = api("pending").run(&push);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    let told: Vec<_> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("waiting until"))
        .collect();
    assert_eq!(told.len(), 1, "{}", ran.stderr);
    assert!(
        told[0].ends_with("; r-1 (webhook): attempt 1 due now"),
        "{}",
        told[0]
    );
}

#[test]
fn what_a_pause_holds_is_not_waited_for() {
    let (bundle, _) = crafted();
    let api = Api::start(|_, Asked { line, .. }| {
        if line.starts_with("POST") {
            return (202, accepted().to_string());
        }
        let mut held = delivery("d-1", "pending");
        held["held_at"] = json!("2026-01-02T03:04:05.678Z");
        (200, json!({ "items": [held], "next": null }).to_string())
    });
    let started = std::time::Instant::now();
    let ran = push(&api, &bundle, &["--wait"]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(started.elapsed().as_secs() < 60);
    assert!(ran.stdout.contains("pending (held)"), "{}", ran.stdout);
}
