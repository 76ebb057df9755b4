//! The command as it is run: what it asks the API, what it prints, and how it ends.

#![allow(clippy::unwrap_used, reason = "tests")]

mod api;
mod apply;
mod archive;
mod attached;
mod completion;
mod configuration;
mod deliveries;
mod intakes;
mod jobs;
mod lists;
mod memory;
mod oidc;
mod open;
mod places;
mod profiles;
mod push;
mod registered;
mod terminal;
mod tokens;
mod trust;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use api::{Api, run_with};

#[test]
fn a_missing_url_or_token_is_told_with_what_to_do() {
    let ran = run_with(&["integration", "available", "list"], &[], "");
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.starts_with("ERR no API URL configured\n"),
        "{}",
        ran.stderr
    );
    for way in [
        "CHAINLOOP_INTEGRATIONS_URL and CHAINLOOP_INTEGRATIONS_TOKEN",
        "chainloop profile add",
        ". .local/env",
    ] {
        assert!(ran.stderr.contains(way), "{}", ran.stderr);
    }
    let url = [
        ("CHAINLOOP_URL", "http://127.0.0.1:1"),
        ("CHAINLOOP_TOKEN", ""),
    ];
    let ran = run_with(&["integration", "available", "list"], &url, "");
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.starts_with("ERR no API token configured\n"),
        "{}",
        ran.stderr
    );
}

/// A variable is no argument: a bare command prints its help all the same, and usage lines name no option that nobody typed.
#[test]
fn variables_change_neither_help_nor_usage() {
    let variables = [
        ("CHAINLOOP_URL", "http://127.0.0.1:1"),
        ("CHAINLOOP_TOKEN", "x"),
    ];
    for words in [
        &[][..],
        &["delivery"],
        &["where"],
        &["trust", "policy", "add"],
        &["integration", "registered", "resume"],
        &["attestation", "push", "--nonsense"],
    ] {
        let with = run_with(words, &variables, "");
        let without = run_with(words, &[], "");
        assert_eq!((with.code, without.code), (2, 2), "{words:?}");
        let usage = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("Usage:"));
            line.map(str::to_owned)
        };
        assert!(usage(&with.stderr).is_some(), "{words:?}: {}", with.stderr);
        assert_eq!(usage(&with.stderr), usage(&without.stderr), "{words:?}");
        assert!(
            !usage(&with.stderr).unwrap().contains("<TOKEN>"),
            "{words:?}"
        );
    }
}

#[test]
fn nothing_listening_is_told_with_what_to_do() {
    let variables = [
        ("CHAINLOOP_URL", "http://127.0.0.1:1"),
        ("CHAINLOOP_TOKEN", "x"),
    ];
    let ran = run_with(&["delivery", "list"], &variables, "");
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.starts_with(
            "ERR failed to list the deliveries: failed to connect to http://127.0.0.1:1: connection refused\n"
        ),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_wrong_token_is_told_with_the_request_id() {
    let api = Api::start(|_, _| (403, r#"{"message":"Forbidden"}"#.into()));
    let ran = api.run(&["delivery", "list"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("the token was rejected"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.ends_with("request ID: req-9\n"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("cli_test"), "{}", ran.stderr);
}

#[test]
fn what_passes_is_tried_again() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let api =
        Api::start(
            move |_, _| match count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => (503, "{}".into()),
                // The gateway's own, of a function that was cut off.
                1 => (500, r#"{"message":"Internal Server Error"}"#.into()),
                _ => (200, r#"{"items":[],"next":null}"#.into()),
            },
        );
    let ran = api.run(&["delivery", "list"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "there are no deliveries\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(api.lines().len(), 3);
}

const REGISTER: [&str; 9] = [
    "integration",
    "registered",
    "add",
    "webhook",
    "--name",
    "one",
    "--opt",
    "tries=3",
    "-q",
];

/// Answers a registration as it is told for each time that it is asked for one.
fn registering(answers: &'static [(u16, &'static str)]) -> Api {
    let count = std::sync::atomic::AtomicUsize::new(0);
    Api::start(move |_, asked| {
        if asked.line.starts_with("GET") {
            return (200, registered::integrations().to_string());
        }
        let (status, body) = answers[count.fetch_add(1, std::sync::atomic::Ordering::Relaxed)];
        match status {
            201 => (201, registered::registration().to_string()),
            // Ends the connection without an answer.
            0 => panic!("the answer is lost"),
            _ => (status, body.to_owned()),
        }
    })
}

/// The keys of what was posted.
fn keys(api: &Api) -> Vec<String> {
    let posts = api.asked().into_iter();
    posts
        .filter(|asked| asked.line.starts_with("POST"))
        .map(|asked| asked.header("idempotency-key").unwrap().to_owned())
        .collect()
}

#[test]
fn what_makes_something_is_sent_again_by_the_same_key() {
    let in_progress = r#"{"status":409,"code":"in-progress","title":"Still worked on"}"#;
    let answers = vec![(0, ""), (409, in_progress), (503, "{}"), (201, "")];
    let api = registering(answers.leak());
    let ran = api.run(&REGISTER);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let first = keys(&api);
    assert_eq!(first.len(), 4, "{first:?}");
    assert!(first.iter().all(|key| *key == first[0]), "{first:?}");
    assert_eq!(first[0].len(), 36);
    // A second run means another one.
    let api = registering(&[(201, "")]);
    assert_eq!(api.run(&REGISTER).code, 0);
    assert_ne!(keys(&api), first[..1]);
}

#[test]
fn a_refusal_is_not_sent_again() {
    let taken = r#"{"status":409,"code":"name-taken","title":"Taken","detail":"it is taken"}"#;
    let api = registering(vec![(409, taken)].leak());
    let ran = api.run(&REGISTER);
    assert_eq!(ran.code, 1);
    assert_eq!(keys(&api).len(), 1);
}

#[test]
fn debug_shows_each_request_and_no_token() {
    let api = Api::start(|_, _| (200, r#"{"items":[],"next":null}"#.into()));
    let ran = api.run(&["delivery", "list", "--debug"]);
    assert!(
        ran.stderr.contains("DBG GET http://127.0.0.1"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("cli_test"), "{}", ran.stderr);
}

#[test]
fn bootstrap_without_credentials_says_where_they_come_from() {
    let ran = run_with(&["bootstrap", "--table", "t"], &[], "");
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("aws configure export-credentials"),
        "{}",
        ran.stderr
    );
}

#[test]
fn bootstrap_without_a_region_says_how_to_set_one() {
    let credentials = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let ran = run_with(&["bootstrap", "--table", "t"], &credentials, "");
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("Set AWS_REGION"), "{}", ran.stderr);
}

#[test]
fn output_that_cannot_be_written_is_told() {
    let api = Api::start(|_, _| (200, r#"{"items":[],"next":null}"#.into()));
    for arguments in [
        &["delivery", "list"][..],
        &["delivery", "list", "--help"],
        &["completion", "bash"],
    ] {
        let ended = Command::new(env!("CARGO_BIN_EXE_chainloop"))
            .args(arguments)
            .env_clear()
            .env("CHAINLOOP_URL", &api.url)
            .env("CHAINLOOP_TOKEN", "cli_test")
            .stdout(File::options().write(true).open("/dev/full").unwrap())
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}");
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(
            told.starts_with("ERR failed to write to standard output"),
            "{told}"
        );
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let folder = std::env::temp_dir().join(format!("chainloop-man-{}", std::process::id()));
    let words = ["man", folder.to_str().unwrap()];
    let ran = run_with(&words, &[("CHAINLOOP_TOKEN", "cli_canary")], "");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let page = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    assert!(page("chainloop.1").contains("chainloop\\-delivery(1)"));
    let list = page("chainloop-delivery-list.1");
    assert!(list.contains("List deliveries, newest first"), "{list}");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("canary"), "{text}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn an_address_that_does_not_speak_tls_is_told_with_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
    });
    let variables = [("CHAINLOOP_URL", url.as_str()), ("CHAINLOOP_TOKEN", "x")];
    let ran = run_with(&["delivery", "list"], &variables, "");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("does not speak TLS"), "{}", ran.stderr);
    assert!(ran.stderr.contains("http:// instead"), "{}", ran.stderr);
}

#[test]
fn what_is_not_there_is_told_with_where_to_look() {
    let problem = r#"{"status":404,"code":"not-found","title":"There is no such thing",
        "detail":"there is no registration \"a\"","request_id":"req-1"}"#;
    let api = Api::start(move |_, _| (404, problem.into()));
    let ran = api.run(&["integration", "registered", "describe", "a"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .contains("`chainloop integration registered list`"),
        "{}",
        ran.stderr
    );
}
