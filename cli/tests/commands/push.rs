//! Attestations: made, pushed with their materials, and waited for.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::api::{Api, Asked, run_with};

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
            "POST /v1/attestations"
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
        ran.stderr.contains("is accepted, with 1 delivery"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr
            .contains("WRN deliveries wait for the material \"sbom\""),
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
    assert!(ran.stderr.contains("the file: sha256:"), "{}", ran.stderr);
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
        ran.stderr.contains("is not an attestation to push: "),
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
