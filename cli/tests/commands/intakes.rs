//! URLs for a Chainloop control plane.

use serde_json::{Value, json};

use crate::api::{Api, Asked, run_with};

fn intake(name: &str, cas_url: Option<&str>) -> Value {
    json!({
        "id": "i-1", "name": name, "cas_url": cas_url, "created_by": "ci",
        "created_at": "2026-01-02T03:04:05.678Z",
    })
}

fn api() -> Api {
    Api::start(|_, asked| {
        let answer = match asked.line.as_str() {
            "POST /v1/intakes" => {
                let new = asked.json();
                let mut made = intake(new["name"].as_str().unwrap(), new["cas_url"].as_str());
                made["token"] = "clin_0123".into();
                made
            }
            "GET /v1/intakes?limit=100" => {
                let fetching = intake("staging", Some("https://cp.example.org"));
                json!({ "items": [intake("production", None), fetching], "next": null })
            }
            "POST /v1/intakes/production/rotate" => {
                let mut rotated = intake("production", None);
                rotated["token"] = "clin_4567".into();
                rotated["overlap_until"] = "2026-01-03T03:04:05.678Z".into();
                rotated
            }
            "DELETE /v1/intakes/production" => intake("production", None),
            _ => {
                let problem = r#"{"status":404,"code":"not-found","title":"No"}"#;
                return (404, problem.into());
            }
        };
        (200, answer.to_string())
    })
}

#[test]
fn create_prints_the_url_once_and_what_to_type_in_chainloop() {
    let api = api();
    let ran = api.run(&["intake", "create", "--name", "production"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let url = format!("{}/v1/intake/clin_0123", api.url);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], url);
    let register = format!(
        "  chainloop integration registered add webhook --name production --opt 'url={url}'"
    );
    assert!(lines[2].contains("official chainloop"), "{}", lines[2]);
    assert_eq!(lines[4], register);
    assert!(lines[5].ends_with("--opt send_sbom=true"), "{}", lines[5]);
    assert!(lines[7].contains("chainloop-integrations"), "{}", lines[7]);
    assert_eq!(lines[9], "  chainloop attestation list");
    assert!(!ran.stderr.contains("clin_"), "{}", ran.stderr);
}

#[test]
fn create_takes_a_token_from_a_file_and_has_no_sboms_posted() {
    let path = std::env::temp_dir().join(format!("chainloop-cas-{}", std::process::id()));
    std::fs::write(&path, "cas-secret\n").unwrap();
    let api = api();
    let file = format!("@{}", path.display());
    let authority = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/peers/tls/authority.pem"
    );
    let words = [
        "intake",
        "create",
        "--name",
        "production",
        "--cas-url",
        "https://cp.example.org",
        "--cas-token",
        &file,
        "--cas-ca-certificates",
        authority,
        "-o",
        "json",
    ];
    let ran = api.run(&words);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let Asked { body, .. } = &api.asked()[0];
    let asked: Value = serde_json::from_slice(body).unwrap();
    let expected = json!({
        "name": "production", "cas_url": "https://cp.example.org", "cas_token": "cas-secret",
        "cas_ca_certificates": std::fs::read_to_string(authority).unwrap(),
    });
    assert_eq!(asked, expected);
    let printed: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(printed["url"], format!("{}/v1/intake/clin_0123", api.url));
    let attach = printed["commands"][1].as_str().unwrap();
    assert!(attach.ends_with("--opt send_sbom=false"), "{attach}");
    let said = ran.stdout + &ran.stderr;
    assert!(!said.contains("cas-secret"), "{said}");
}

#[test]
fn a_token_in_the_open_is_noticed_and_one_without_a_url_is_refused() {
    let url = "https://cp.example.org";
    let words = ["intake", "create", "--name", "p", "--cas-url", url];
    let api = api();
    let ran = api.run(&[&words[..], &["--cas-token", "open"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("WRN --cas-token"), "{}", ran.stderr);
    let ran = api.run(&words);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    let ran = run_with(
        &["intake", "create", "--name", "p", "--cas-token", "x"],
        &[],
        "",
    );
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

#[test]
fn intakes_are_listed_without_tokens() {
    let ran = api().run(&["intake", "list"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = ran.stdout.lines().map(words).collect();
    assert_eq!(
        lines[1],
        "│ NAME │ FETCHES FROM │ RESTRICTED TO │ CREATED BY │ CREATED │ EXPIRES │ LAST USED │"
    );
    assert!(
        lines[3].starts_with("│ production │ - │ - │ ci │"),
        "{}",
        lines[3]
    );
    let fetching = "│ staging │ https://cp.example.org │ - │ ci │";
    assert!(lines[5].starts_with(fetching), "{}", lines[5]);
}

#[test]
fn delete_asks_first() {
    let api = api();
    let ran = api.run(&["intake", "delete", "--name", "production"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(api.lines().is_empty());
    let ran = api.run(&["intake", "delete", "--name", "production", "-y"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(api.lines(), ["DELETE /v1/intakes/production"]);
}

#[test]
fn create_sends_the_conditions_and_refuses_what_is_no_network() {
    let api = api();
    let words = [
        "intake",
        "create",
        "--name",
        "shop",
        "--expires",
        "90d",
        "--allow-from",
        "192.0.2.77/24",
        "--allow-from",
        "2001:db8::/32",
        "--workflow",
        "shop/*",
    ];
    let ran = api.run(&words);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let expected = json!({
        "name": "shop", "expires_in_secs": 90 * 86_400, "allow_from": ["192.0.2.0/24", "2001:db8::/32"],
        "workflows": ["shop/*"],
    });
    assert_eq!(api.asked()[0].json(), expected);
    for wrong in [["--allow-from", "192.0.2.0/33"], ["--expires", "5s"]] {
        let ran = api.run(&[&words[..4], &wrong].concat());
        assert_eq!(ran.code, 2, "{}", ran.stderr);
    }
    assert_eq!(api.asked().len(), 1);
}

#[test]
fn rotate_prints_the_new_url_and_until_when_the_old_one_works() {
    let api = api();
    for (words, secs) in [
        (&["production"][..], 86_400),
        (&["--name", "production", "--overlap", "0s"], 0),
    ] {
        let ran = api.run(&[&["intake", "rotate"], words].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let url = format!("{}/v1/intake/clin_4567", api.url);
        assert_eq!(ran.stdout.lines().next(), Some(url.as_str()));
        assert!(
            ran.stderr.contains("works until 2026-01-03"),
            "{}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("clin_"), "{}", ran.stderr);
        let asked = api.asked();
        assert_eq!(
            asked.last().unwrap().json(),
            json!({ "overlap_secs": secs })
        );
    }
}

#[test]
fn the_list_says_what_expired_who_may_post_and_when_somebody_did() {
    let api = Api::start(|_, _| {
        let mut expired = intake("old", None);
        for (name, value) in [
            ("expires_at", json!("2026-01-04T03:04:05.678Z")),
            ("expired", json!(true)),
            ("allow_from", json!(["192.0.2.0/24"])),
            ("last_used_at", json!("2026-01-03T03:04:05.678Z")),
            ("last_used_from", json!("192.0.2.7")),
        ] {
            expired[name] = value;
        }
        (200, json!({ "items": [expired], "next": null }).to_string())
    });
    let ran = api.run(&["intake", "list"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for part in ["expired", "192.0.2.0/24", "192.0.2.7"] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
}
