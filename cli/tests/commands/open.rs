//! `chainloop open`: the console, with a token of the browser's own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::api::{Api, Asked, run_with};

const ID: &str = "6f0c1f0e-0000-8000-8000-000000000001";
const HEX: &str = "1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0";

fn api() -> Api {
    Api::start(|_, Asked { line, .. }| {
        assert_eq!(line, "POST /v1/tokens/exchange");
        let answer = json!({
            "text": "cli_of the browser", "id": "t-1", "name": "ci", "role": "viewer", "created_by": "ci",
            "created_at": "2026-01-02T03:04:05.678Z", "expires_at": "2026-01-02T04:04:05.678Z",
        });
        (201, answer.to_string())
    })
}

#[test]
fn the_address_has_what_is_looked_at_and_a_token_with_the_role_viewer() {
    let api = api();
    let digest = format!("sha256:{HEX}");
    for (words, query) in [
        (&[][..], String::new()),
        (&["registrations"], "?registrations".to_owned()),
        (
            &["registrations", "prod-images"],
            "?registrations=prod-images".to_owned(),
        ),
        (&["delivery", ID], format!("?delivery={ID}")),
        (&["attestation", HEX], format!("?attestation={digest}")),
        (&["where", &digest], format!("?where={digest}")),
    ] {
        let ran = api.run(&[&["open", "--print"], words].concat());
        let expected = format!("{}/console{query}#token=cli_of%20the%20browser\n", api.url);
        assert_eq!((ran.code, ran.stdout), (0, expected), "{}", ran.stderr);
        assert_eq!(ran.stderr, "");
    }
    for asked in api.asked() {
        let body = json!({ "token": "cli_test", "role": "viewer" });
        assert_eq!(asked.json(), body);
    }
}

#[test]
fn who_wants_to_act_gets_an_operators_token() {
    let api = api();
    let ran = api.run(&["open", "--act", "-o", "json"]);
    assert_eq!(ran.json()["role"], "operator");
    assert_eq!(ran.json()["expiresAt"], "2026-01-02T04:04:05.678Z");
    assert_eq!(api.asked()[0].json()["role"], "operator");
}

#[test]
fn what_is_incomplete_is_told_before_a_token_is_made() {
    let api = api();
    for words in [&["delivery"][..], &["where", "shop"], &["elsewhere"]] {
        let ran = api.run(&[&["open"], words].concat());
        assert_eq!(ran.code, 2, "{words:?}: {}", ran.stderr);
    }
    assert_eq!(api.asked().len(), 0);
}

/// Runs it with a desktop whose opener does as it is told.
fn on_a_desktop(api: &Api, name: &str, opener: &str) -> (i32, String, String) {
    let folder = std::env::temp_dir().join(format!("chainloop-open-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let opened = folder.join("opened");
    let script = format!(
        "#!/bin/sh\n{opener}\necho \"$1\" > '{}'\n",
        opened.display()
    );
    for program in ["xdg-open", "open"] {
        fs::write(folder.join(program), &script).unwrap();
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.join(program), executable).unwrap();
    }
    let variables = [
        ("CHAINLOOP_URL", api.url.as_str()),
        ("CHAINLOOP_TOKEN", "cli_test"),
        ("PATH", folder.to_str().unwrap()),
        ("DISPLAY", ":0"),
    ];
    let ran = run_with(&["open"], &variables, "");
    assert!(!ran.stderr.contains("#token"), "{}", ran.stderr);
    let opened = fs::read_to_string(&opened).unwrap_or_default();
    fs::remove_dir_all(&folder).unwrap();
    (ran.code, ran.stdout, opened)
}

#[test]
fn a_browser_is_opened_and_the_token_printed_nowhere() {
    let api = api();
    let (code, stdout, opened) = on_a_desktop(&api, "works", "");
    let address = format!("{}/console#token=cli_of%20the%20browser\n", api.url);
    assert_eq!((code, stdout.as_str(), opened), (0, "", address));
}

#[test]
fn without_a_browser_the_address_is_printed() {
    let api = api();
    let address = format!("{}/console#token=cli_of%20the%20browser\n", api.url);
    let (code, stdout, _) = on_a_desktop(&api, "fails", "exit 3");
    assert_eq!((code, stdout), (0, address.clone()));
    let ran = api.run(&["open"]);
    assert_eq!((ran.code, ran.stdout), (0, address));
    assert!(ran.stderr.contains("no browser found"), "{}", ran.stderr);
}
