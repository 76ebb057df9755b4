//! Attestations and workflows to look at.

use attestation::{Digest, Material, MaterialType, Metadata, Predicate, compose};
use serde_json::{Value, json};

use crate::api::{Api, Asked};
use crate::deliveries::delivery;

const SBOM: &[u8] = br#"{"bomFormat":"CycloneDX"}"#;

fn envelope() -> attestation::Envelope {
    let sbom = Digest::of(SBOM);
    let predicate = Predicate {
        metadata: Metadata {
            name: "nightly".into(),
            project: "shop".into(),
            ..Metadata::default()
        },
        materials: vec![
            Material::uploaded("sbom", MaterialType::SBOM_CYCLONEDX_JSON, "s.json", sbom),
            Material::string("note", "hello"),
        ],
        ..Predicate::default()
    };
    compose::envelope(compose::statement(&predicate, &[]), "", |bytes| {
        bytes[..32].to_vec()
    })
}

fn listed() -> Value {
    json!({
        "attestation": envelope().hash(), "received": Digest::of(&envelope().compact()),
        "size_bytes": 2048, "workflow": { "project": "shop", "name": "nightly" }, "run": "run-1",
        "predicate_type": "chainloop.dev/attestation/v0.2", "created_at": "2026-01-02T03:04:05.678Z",
    })
}

fn described() -> Value {
    let mut value = listed();
    let more = json!({
        "pushed_by": {
            "kind": "intake", "name": "production", "id": "i-1", "address": "192.0.2.10",
            "user_agent": "Go-http-client/2.0",
        },
        "also": [], "bytes": "kept", "deliveries": [delivery("d-1", "delivered")],
        "more_deliveries": false,
        "contents": {
            "form": "bundle", "key_ids": [""], "subjects_total": 102, "materials_dropped": 0,
            "materials_total": 250,
            "subjects": [{ "name": "git.head", "digests": { "sha1": "0a1b" } }],
            "materials": [
                { "name": "sbom", "type": "SBOM_CYCLONEDX_JSON", "filename": "s.json", "value": "",
                  "digest": Digest::of(SBOM), "size_bytes": null, "place": "missing" },
                { "name": "note", "type": "STRING", "filename": "", "value": "hel\u{1b}lo",
                  "digest": null, "size_bytes": 5, "place": "inline" },
            ],
            "policy": {
                "status": "BLOCKED", "evaluations": 3, "violations": 1, "skipped": 0, "passed": 2,
                "suppressed": 0, "found": [
                    { "policy": "licences", "material": "sbom", "message": "AGPL-3.0" },
                ],
            },
        },
    });
    value
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    value
}

/// Has the attestation and its SBOM, unless these are other bytes.
fn api(stored: &'static [u8]) -> Api {
    Api::start(move |url, Asked { line, .. }| {
        let path = line.split(' ').nth(1).unwrap().split('?').next().unwrap();
        let (hash, bytes) = (envelope().hash().to_string(), envelope().compact());
        let content = |digest: Digest, size: usize, name: &str| {
            json!({
                "digest": digest, "size_bytes": size,
                "download": { "url": format!("{url}/bucket/{name}?signature=s3cret") },
            })
        };
        let sbom = Digest::of(SBOM);
        let answer = match path.trim_start_matches("/v1/") {
            "attestations" if line.contains("cursor") => {
                json!({ "items": [listed()], "next": null })
            }
            "attestations" => json!({ "items": [listed()], "next": "2026-01-02T03:04:05.677Z" }),
            "workflows" => json!({ "items": [
                { "workflow": { "id": "", "project": "shop", "name": "weekly" }, "attachments": 0,
                  "first_seen_at": "2026-01-02T03:04:05.678Z", "attested_at": null },
                { "workflow": { "id": "w-1", "project": "shop", "name": "nightly" },
                  "attachments": 2, "first_seen_at": "2026-01-02T03:04:05.678Z",
                  "attested_at": "2026-01-02T03:04:05.678Z" },
                { "workflow": { "id": "", "project": "other", "name": "nightly" },
                  "attachments": 1, "first_seen_at": "2026-01-02T03:04:05.678Z",
                  "attested_at": "2026-01-02T03:04:05.678Z" },
            ], "next": null }),
            "/bucket/attestation" => return (200, String::from_utf8(bytes).unwrap()),
            "/bucket/sbom" => return (200, String::from_utf8(stored.to_vec()).unwrap()),
            path if path == format!("attestations/{hash}") => described(),
            path if path == format!("attestations/{hash}/content") => {
                content(Digest::of(&bytes), bytes.len(), "attestation")
            }
            path if path == format!("materials/{sbom}") => content(sbom, SBOM.len(), "sbom"),
            _ => {
                let problem = json!({
                    "status": 404, "code": "not-found", "title": "There is no such thing",
                    "detail": "there is no such attestation", "request_id": "req-1",
                });
                return (404, problem.to_string());
            }
        };
        (200, answer.to_string())
    })
}

#[test]
fn attestations_are_listed_by_pages_and_filters_are_passed_on() {
    let api = api(SBOM);
    let ran = api.run(&[
        "attestation",
        "list",
        "--workflow",
        "nightly",
        "--project",
        "shop",
        "--since",
        "2026-01-01T00:00:00Z",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let hash = envelope().hash().to_string();
    assert_eq!(ran.stdout.matches(&hash).count(), 2, "{}", ran.stdout);
    assert!(ran.stdout.contains("│ 2.00 KiB"), "{}", ran.stdout);
    let query = "workflow=nightly&project=shop&since=2026-01-01T00:00:00.000Z&limit=50";
    assert_eq!(
        api.lines(),
        [
            format!("GET /v1/attestations?{query}"),
            format!("GET /v1/attestations?{query}&cursor=2026-01-02T03:04:05.677Z"),
        ]
    );
    let ran = api.run(&["attestation", "list", "--limit", "1", "-o", "json"]);
    assert!(ran.stderr.contains("raise --limit"), "{}", ran.stderr);
    assert_eq!(ran.json()[0]["sizeBytes"], 2048);
}

#[test]
fn a_description_shows_materials_policies_and_deliveries() {
    let hash = envelope().hash().to_string();
    let ran = api(SBOM).run(&["attestation", "describe", &hash]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for text in [
        "│ FORM           │ bundle",
        "│ PUSHED BY      │ intake production",
        "│ 192.0.2.10 ",
        "│ Go-http-client/2.0 ",
        "BLOCKED (3 evaluations, 1 violations)",
        "sha1:0a1b",
        "│ missing",
        "│ hel\u{fffd}lo",
        "AGPL-3.0",
        "│ d-1 │ delivered",
    ] {
        assert!(ran.stdout.contains(text), "{text}\n{}", ran.stdout);
    }
    assert!(ran.stderr.contains("101 more subjects"), "{}", ran.stderr);
    let further = "248 more materials: pass --materials-from 2";
    assert!(ran.stderr.contains(further), "{}", ran.stderr);
    let api = api(SBOM);
    let ran = api.run(&["attestation", "describe", &hash, "--materials-from", "200"]);
    let further = "48 more materials: pass --materials-from 202";
    assert!(ran.stderr.contains(further), "{}", ran.stderr);
    assert!(api.lines()[0].ends_with("?materials_from=200"));
    let ran = api.run(&["attestation", "describe", "--digest", &hash, "-o", "json"]);
    let one = ran.json();
    assert_eq!(one["contents"]["materials"][1]["sizeBytes"], 5);
    assert_eq!(one["contents"]["policy"]["status"], "BLOCKED");
    assert_eq!(one["deliveries"][0]["state"], "delivered");
    assert_eq!(one["pushedBy"]["userAgent"], "Go-http-client/2.0");
    let ran = api.run(&["attestation", "describe", "sha256:00"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

#[test]
fn an_attestation_and_its_materials_come_as_they_were_sent() {
    let (api, hash) = (api(SBOM), envelope().hash().to_string());
    let ran = api.run(&["attestation", "download", &hash, "--debug"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stdout.as_bytes(), envelope().compact());
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    // The token is for the API alone.
    let fetched = api.asked().into_iter().next_back().unwrap();
    assert!(fetched.line.starts_with("GET /bucket/attestation"));
    assert_eq!(fetched.header("authorization"), None);

    let directory = std::env::temp_dir().join(format!("chainloop-download-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("s.json");
    let path = file.to_str().unwrap();
    let line = ["attestation", "download", &hash, path, "--material", "sbom"];
    let ran = api.run(&line);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(std::fs::read(&file).unwrap(), SBOM);
    let ran = api.run(&line);
    assert_eq!(ran.code, 2, "it is not replaced unasked: {}", ran.stderr);
    let ran = api.run(&[&line[..], &["-y"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    std::fs::remove_dir_all(&directory).unwrap();

    let ran = api.run(&["attestation", "download", &hash, "--material", "note"]);
    assert_eq!(ran.stdout, "hello");
    let ran = api.run(&["attestation", "download", &hash, "--material", "other"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("It has: sbom, note."), "{}", ran.stderr);
}

#[test]
fn bytes_with_another_digest_are_not_handed_out() {
    let (api, hash) = (api(br#"{"bomFormat":"CycloneDY"}"#), envelope().hash());
    let hash = hash.to_string();
    let ran = api.run(&["attestation", "download", &hash, "--material", "sbom"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("digest mismatch"), "{}", ran.stderr);
}

#[test]
fn workflows_are_listed_in_the_order_of_their_names() {
    let ran = api(SBOM).run(&["workflow", "list", "-o", "json"]);
    let told = ran.json();
    let name = |one: &Value| format!("{}/{}", one["project"], one["name"]).replace('"', "");
    let names: Vec<String> = told.as_array().unwrap().iter().map(name).collect();
    assert_eq!(names, ["other/nightly", "shop/nightly", "shop/weekly"]);
    assert_eq!(
        (&told[1]["id"], &told[1]["attachments"]),
        (&json!("w-1"), &json!(2))
    );
    let ran = api(SBOM).run(&["workflow", "list", "--project", "shop"]);
    assert!(!ran.stdout.contains("other"), "{}", ran.stdout);
    assert!(ran.stdout.contains("│ w-1 │"), "{}", ran.stdout);
}
