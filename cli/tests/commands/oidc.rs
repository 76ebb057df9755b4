//! Tokens for the OIDC tokens of CI jobs, and the issuers that are trusted for them.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::api::{Api, Asked, run_with};

fn issuer() -> Value {
    json!({
        "id": "id-of-github", "name": "github", "issuer": "https://token.actions.githubusercontent.com",
        "audience": "https://api.example.org", "jwks_url": null, "created_by": "admin",
        "created_at": "2026-01-02T03:04:05.678Z",
        "rules": [{
            "claims": { "repository_id": { "exact": "74" }, "ref": { "glob": "refs/tags/*" } },
            "role": "producer", "workflows": ["shop/*"],
        }],
        "keys": { "ids": ["a", "b"], "fetched_at": null, "fault": "failed to fetch: answered 404" },
    })
}

/// Hands out a JWT as GitHub's runner does, and exchanges one at the second try.
fn api() -> Api {
    let tries = AtomicUsize::new(0);
    Api::start(move |_, Asked { line, .. }| {
        let digest = format!("sha256:{}", "a".repeat(64));
        let answer = match line.split('?').next().unwrap() {
            "GET /runner" => json!({ "value": "jwt-of-the-runner" }),
            "POST /v1/tokens/exchange" if tries.fetch_add(1, Ordering::SeqCst) == 0 => {
                let problem = json!({
                    "status": 503, "code": "keys-pending", "title": "Keys not there yet",
                    "detail": "the issuer's keys are being fetched", "retry_after_secs": 0,
                });
                return (503, problem.to_string());
            }
            "POST /v1/tokens/exchange" => json!({
                "text": "clr_exchanged", "id": "t-1", "name": "github", "role": "producer",
                "workflows": ["shop/*"], "created_by": "github",
                "created_at": "2026-01-02T03:04:05.678Z", "expires_at": "2026-01-02T04:04:05.678Z",
            }),
            "POST /v1/attestations" => json!({
                "attestation": digest, "received": digest, "repeated": false,
                "workflow": { "project": "shop", "name": "nightly" }, "deliveries": [], "missing": [],
            }),
            "POST /v1/issuers" | "GET /v1/issuers/github" | "DELETE /v1/issuers/github" => issuer(),
            "GET /v1/issuers" => json!({ "items": [issuer()], "next": null }),
            _ => return (404, "{}".into()),
        };
        (200, answer.to_string())
    })
}

#[test]
fn a_jobs_token_is_exchanged_and_the_new_one_printed_alone() {
    let api = api();
    let runner = format!("{}/runner?x=1", api.url);
    let variables = [
        ("CHAINLOOP_URL", api.url.as_str()),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", runner.as_str()),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-runner"),
    ];
    let ran = run_with(
        &["auth", "exchange", "--organization", "acme"],
        &variables,
        "",
    );
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "clr_exchanged\n"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("not ready yet: retrying"),
        "{}",
        ran.stderr
    );
    let asked = api.asked();
    let audience = api.url.replace('/', "%2F");
    assert_eq!(
        asked[0].line,
        format!("GET /runner?x=1&audience={audience}")
    );
    assert_eq!(
        asked[0].header("authorization"),
        Some("Bearer of-the-runner")
    );
    let body = json!({ "jwt": "jwt-of-the-runner", "organization": "acme" });
    for exchange in &asked[1..] {
        assert_eq!(
            (exchange.json(), exchange.header("authorization")),
            (body.clone(), None)
        );
    }
    assert_eq!(asked.len(), 3);
    let variables = [
        ("CHAINLOOP_URL", api.url.as_str()),
        ("CHAINLOOP_OIDC_TOKEN", "jwt-of-gitlab"),
        ("CHAINLOOP_ORGANIZATION", "shop"),
    ];
    let ran = run_with(&["auth", "exchange", "-q"], &variables, "");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "clr_exchanged\n"),
        "{}",
        ran.stderr
    );
    let body = json!({ "jwt": "jwt-of-gitlab", "organization": "shop" });
    assert_eq!(api.asked()[3].json(), body);
    let ran = run_with(&["auth", "exchange"], &[("CHAINLOOP_URL", &api.url)], "");
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("id-token: write"), "{}", ran.stderr);
}

#[test]
fn a_push_exchanges_once_and_goes_on_with_the_new_token() {
    let api = api();
    let path = std::env::temp_dir().join(format!("chainloop-oidc-{}.json", std::process::id()));
    let file = path.to_str().unwrap();
    let craft = [
        "attestation",
        "craft",
        file,
        "--workflow",
        "nightly",
        "--project",
        "shop",
    ];
    let ran = run_with(&craft, &[], "");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let variables = [
        ("CHAINLOOP_URL", api.url.as_str()),
        ("CHAINLOOP_TOKEN", "cli_stored"),
        ("CHAINLOOP_OIDC_TOKEN", "jwt-of-gitlab"),
    ];
    let ran = run_with(&["attestation", "push", file, "--oidc"], &variables, "");
    let _ = fs::remove_file(&path);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let exchange = "POST /v1/tokens/exchange";
    assert_eq!(
        api.lines(),
        [exchange, exchange, "POST /v1/attestations?names=true"]
    );
    let push = &api.asked()[2];
    assert_eq!(push.header("authorization"), Some("Bearer clr_exchanged"));
    assert!(!ran.stderr.contains("clr_exchanged"), "{}", ran.stderr);
}

#[test]
fn an_issuer_is_added_by_flags_with_the_api_as_its_audience_and_shown_with_its_keys() {
    let api = api();
    let ran = api.run(&[
        "trust",
        "issuer",
        "add",
        "--name",
        "github",
        "--issuer",
        "https://token.actions.githubusercontent.com",
        "--claim",
        "repository_id=74",
        "--claim",
        "ref=refs/tags/*",
        "--role",
        "producer",
        "--workflow",
        "shop/*",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        api.asked()[0].json(),
        json!({
            "name": "github", "issuer": "https://token.actions.githubusercontent.com", "audience": api.url,
            "rules": [{
                "claims": { "repository_id": { "exact": "74" }, "ref": { "glob": "refs/tags/*" } },
                "role": "producer", "workflows": ["shop/*"],
            }],
        })
    );
    for text in [
        "repository_id=74",
        "failed to fetch: answered 404",
        "shop/*",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    let ran = api.run(&["trust", "issuer", "list"]);
    assert!(
        ran.stdout.contains("token.actions.githubusercontent.com"),
        "{}",
        ran.stdout
    );
    let ran = api.run(&["trust", "issuer", "delete", "github", "-y"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = api.run(&[
        "trust", "issuer", "add", "--name", "x", "--issuer", "y", "--claim", "z", "--role",
        "viewer",
    ]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("has no `=`"), "{}", ran.stderr);
}
