//! Completion, as shells ask for it.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::Api;
use crate::tokens::Home;

const ID: &str = "6f0c1f0e-0000-8000-8000-000000000001";
const DIGEST: &str = "sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0";

/// An API whose lists have one item each, and a workflow with a name that a shell would obey.
fn api() -> Api {
    Api::start(|_, asked| {
        let path = asked.line.trim_start_matches("GET /v1/");
        let items: Value = match path.split('?').next().unwrap() {
            "registrations" => json!([
                { "id": ID, "name": "prod-images", "integration": "webhook" },
                { "id": ID, "name": "test-images", "integration": "webhook" },
            ]),
            "integrations" => json!([{ "id": "guac" }, { "id": "webhook" }]),
            "attachments" => json!([{
                "id": ID, "registration": { "name": "prod-images" }, "workflow": "shop/nightly-build",
            }]),
            "workflows" => json!([
                { "project": "shop", "name": "nightly-build" },
                { "project": "shop", "name": "$(touch obeyed)" },
                { "project": "shop", "name": "two words" },
            ]),
            "attestations" => json!([{ "attestation": DIGEST, "workflow": { "name": "a" } }]),
            "deliveries" | "jobs" => json!([{ "id": ID, "state": "failed" }]),
            "intakes" | "tokens" | "trust-policies" | "issuers" => json!([{ "name": "the-one" }]),
            _ => return (404, "{}".into()),
        };
        (200, json!({ "items": items, "next": null }).to_string())
    })
}

/// Completes the last word as bash asks for it. Nothing may be said besides the candidates.
fn complete(words: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let ran = Command::new(env!("CARGO_BIN_EXE_chainloop"))
        .args(["--", "chainloop"])
        .args(words)
        .env_clear()
        .env("CHAINLOOP_INTEGRATIONS_COMPLETE", "bash")
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(ran.stderr).unwrap(), "", "{words:?}");
    assert!(ran.status.success(), "{words:?}");
    let text = String::from_utf8(ran.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The candidates that are neither flags nor commands.
fn names(words: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let all = complete(words, variables).into_iter();
    all.filter(|one| !one.starts_with('-') && one != "help")
        .collect()
}

fn variables(api: &Api) -> [(&str, &str); 2] {
    [("CHAINLOOP_URL", &api.url), ("CHAINLOOP_TOKEN", "cli_test")]
}

#[test]
fn names_come_from_the_api_by_one_request() {
    for (typed, path, expected) in [
        (
            "integration registered describe ",
            "registrations",
            &["prod-images", "test-images"][..],
        ),
        (
            "integration registered delete --name p",
            "registrations",
            &["prod-images"],
        ),
        (
            "integration registered update t",
            "registrations",
            &["test-images"],
        ),
        (
            "integration attached add --integration p",
            "registrations",
            &["prod-images"],
        ),
        (
            "delivery list --registration p",
            "registrations",
            &["prod-images"],
        ),
        ("apply --rotate p", "registrations", &["prod-images"]),
        ("integration attached describe ", "attachments", &[ID]),
        ("integration attached backfill --id ", "attachments", &[ID]),
        (
            "integration attached add --workflow ",
            "workflows",
            &["shop/nightly-build"],
        ),
        (
            "attestation list --workflow shop",
            "workflows",
            &["shop/nightly-build"],
        ),
        ("attestation describe ", "attestations", &["1fe71587d8d9"]),
        ("where 1f", "attestations", &["1fe71587d8d9"]),
        (
            "delivery list --attestation ",
            "attestations",
            &["1fe71587d8d9"],
        ),
        ("delivery describe 6f", "deliveries", &[ID]),
        ("delivery redeliver --id ", "deliveries", &[ID]),
        ("job cancel ", "jobs", &[ID]),
        ("intake rotate ", "intakes", &["the-one"]),
        ("organization api-token revoke ", "tokens", &["the-one"]),
        ("trust policy describe ", "trust-policies", &["the-one"]),
        ("trust issuer delete ", "issuers", &["the-one"]),
        (
            "integration registered add web",
            "integrations",
            &["webhook"],
        ),
        (
            "integration available describe --name web",
            "integrations",
            &["webhook"],
        ),
        ("delivery list --kind web", "integrations", &["webhook"]),
    ] {
        let api = api();
        let words: Vec<&str> = typed.split(' ').collect();
        assert_eq!(names(&words, &variables(&api)), expected, "{typed}");
        assert_eq!(
            api.lines(),
            [format!("GET /v1/{path}?limit=100")],
            "{typed}"
        );
        assert_eq!(
            api.asked()[0].header("authorization"),
            Some("Bearer cli_test")
        );
    }
}

#[test]
fn what_is_known_here_needs_no_request() {
    let api = api();
    for (typed, expected) in [
        ("delivery list --state fa", "failed"),
        ("delivery list --output j", "json"),
        ("integration regi", "registered"),
        ("delivery list --sta", "--state"),
    ] {
        let words: Vec<&str> = typed.split(' ').collect();
        let all = complete(&words, &variables(&api));
        assert!(all.iter().any(|one| one == expected), "{typed}: {all:?}");
    }
    // A new name is nobody's.
    for typed in [
        "integration registered add webhook --name ",
        "organization api-token create --name ",
        "profile add ",
    ] {
        let words: Vec<&str> = typed.split(' ').collect();
        assert_eq!(names(&words, &variables(&api)), [""; 0], "{typed}");
    }
    assert_eq!(api.lines(), [""; 0]);
}

#[test]
fn nothing_is_offered_nor_said_where_names_cannot_be_read() {
    let words = ["integration", "registered", "describe", ""];
    assert_eq!(names(&words, &[]), [""; 0], "no destination");
    let refuses = Api::start(|_, _| (403, r#"{"status":403,"code":"role","title":"No"}"#.into()));
    let wrong = Api::start(|_, _| (200, "<html>".into()));
    let busy = Api::start(|_, _| (503, "{}".into()));
    for api in [&refuses, &wrong, &busy] {
        assert_eq!(names(&words, &variables(api)), [""; 0]);
        assert_eq!(api.lines().len(), 1);
    }
    let nobody = [
        ("CHAINLOOP_URL", "http://127.0.0.1:1"),
        ("CHAINLOOP_TOKEN", "cli_test"),
    ];
    assert_eq!(names(&words, &nobody), [""; 0]);
    // Standard input is where the person types.
    let api = api();
    let typed = [&["--token", "-"][..], &words].concat();
    assert_eq!(names(&typed, &variables(&api)), [""; 0]);
    assert_eq!(api.lines(), [""; 0]);
}

#[test]
fn a_slow_api_is_waited_for_a_second_at_most() {
    let slow = Api::start(|_, _| {
        std::thread::sleep(Duration::from_secs(4));
        (200, r#"{"items":[],"next":null}"#.into())
    });
    let begun = Instant::now();
    let words = ["integration", "registered", "describe", ""];
    assert_eq!(names(&words, &variables(&slow)), [""; 0]);
    let waited = begun.elapsed();
    assert!(
        waited > Duration::from_millis(900),
        "{waited:?}: it was not asked"
    );
    assert!(waited < Duration::from_secs(3), "{waited:?}");
}

#[test]
fn profiles_are_completed_and_the_one_that_was_typed_is_asked() {
    let (prod, test, home) = (api(), api(), Home::new("completion"));
    for (name, api) in [("prod", &prod), ("test", &test)] {
        let words = ["profile", "add", name, "--url", &api.url];
        assert_eq!(home.run(&words, &[], "").code, 0);
    }
    let text = std::fs::read_to_string(home.file()).unwrap();
    let mut stored: Value = serde_json::from_str(&text).unwrap();
    stored["profiles"]["test"]["token"] = "cli_stored".into();
    std::fs::write(home.file(), stored.to_string()).unwrap();
    let root = home.file().parent().unwrap().parent().unwrap().to_owned();
    let own = [("XDG_CONFIG_HOME", root.to_str().unwrap())];
    assert_eq!(names(&["--profile", ""], &own), ["prod", "test"]);
    assert_eq!(names(&["profile", "use", "t"], &own), ["test"]);
    let words = [
        "integration",
        "registered",
        "describe",
        "--profile",
        "test",
        "p",
    ];
    assert_eq!(names(&words, &own), ["prod-images"]);
    let sent = test.asked();
    assert_eq!(sent[0].header("authorization"), Some("Bearer cli_stored"));
    // The current one has no token.
    assert_eq!(names(&["job", "cancel", ""], &own), [""; 0]);
    assert_eq!(prod.lines(), [""; 0]);
}

#[test]
fn bash_completes_both_names_of_the_command() {
    let api = api();
    let folder = std::env::temp_dir().join(format!("chainloop-bash-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["chainloop", "chainloop-integrations"] {
        symlink(env!("CARGO_BIN_EXE_chainloop"), folder.join(name)).unwrap();
        let function = format!("_clap_complete_{}", name.replace('-', "_"));
        let script = format!(
            "source <({name} completion bash); complete -p {name}\n\
             COMP_WORDS=({name} integration registered describe p) COMP_CWORD=4 COMP_TYPE=9\n\
             {function} {name} p describe; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let path = format!("{}:/usr/bin:/bin", folder.display());
        let ran = Command::new("bash")
            .args(["--norc", "-c", &script])
            .env_clear()
            .env("PATH", path)
            .envs(variables(&api))
            .output()
            .unwrap();
        let said = String::from_utf8(ran.stdout).unwrap();
        let errors = String::from_utf8(ran.stderr).unwrap();
        assert!(
            said.contains(&format!("-F {function} {name}\n")),
            "{said}{errors}"
        );
        assert!(said.ends_with("\nprod-images\n"), "{said}{errors}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn no_path_that_bash_would_obey_gets_into_its_script() {
    let folder = format!("chainloop-$(touch obeyed)-{}", std::process::id());
    for folder in [folder.as_str(), "chainloop with a space"] {
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let link = folder.join("chainloop");
        symlink(env!("CARGO_BIN_EXE_chainloop"), &link).unwrap();
        let mut command = Command::new(&link);
        let ran = command.args(["completion", "bash"]).env_clear().output();
        std::fs::remove_dir_all(&folder).unwrap();
        let ran = ran.unwrap();
        assert_eq!((ran.status.code(), ran.stdout.len()), (Some(2), 0));
        let told = String::from_utf8(ran.stderr).unwrap();
        assert!(told.contains("bash cannot complete"), "{told}");
    }
}
