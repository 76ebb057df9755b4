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
    assert_eq!(lines[4], register);
    assert!(lines[5].ends_with("--opt send_sbom=true"), "{}", lines[5]);
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
    assert_eq!(lines[1], "│ NAME │ FETCHES FROM │ BY │ CREATED │");
    assert!(
        lines[3].starts_with("│ production │ - │ ci │"),
        "{}",
        lines[3]
    );
    let fetching = "│ staging │ https://cp.example.org │ ci │";
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
