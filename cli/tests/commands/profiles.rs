//! Several installations, and the official command beside this one.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::api::{Api, Ran, run_with};
use crate::tokens::{Home, mode};

/// An API that accepts this token alone.
fn api(token: &'static str) -> Api {
    Api::start(move |_, asked| {
        if asked.header("authorization") != Some(&format!("Bearer {token}")) {
            return (403, r#"{"message":"Forbidden"}"#.into());
        }
        let bearer = json!({
            "organization": "acme", "id": "1", "name": "ci", "role": "admin", "expires_at": null,
        });
        (200, bearer.to_string())
    })
}

/// Profiles `prod` and `test`, the first of which is the current one.
fn two(name: &str) -> (Api, Api, Home) {
    let (prod, test, home) = (api("cli_prod"), api("cli_test"), Home::new(name));
    let file = home.file().with_file_name("..");
    let file = file.parent().unwrap().parent().unwrap().join("token");
    std::fs::write(&file, "cli_prod\n").unwrap();
    let token = format!("@{}", file.display());
    let words = [
        "profile", "add", "prod", "--url", &prod.url, "--token", &token,
    ];
    let ran = home.run(&words, &[], "");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let words = ["profile", "add", "test", "--url", &test.url, "--token", "-"];
    let ran = home.run(&words, &[], "cli_test\n");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    (prod, test, home)
}

fn status(home: &Home, words: &[&str], variables: &[(&str, &str)]) -> Ran {
    let words = [&["auth", "status", "-o", "json"], words].concat();
    home.run(&words, variables, "")
}

fn is_from(ran: &Ran, api: &Api, from: &str) {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.json()["url"], api.url);
    assert_eq!(ran.json()["from"], from);
}

#[test]
fn profiles_are_stored_for_their_owner_alone_and_listed_without_tokens() {
    let (prod, test, home) = two("profiles-list");
    assert_eq!(mode(&home.file()), 0o600);
    let entries = std::fs::read_dir(home.file().parent().unwrap()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, [".profiles.lock", "profiles.json"]);
    let lock = home.file().with_file_name(".profiles.lock");
    assert_eq!(mode(&lock), 0o600, "whoever can open it can hold it");
    let ran = home.run(&["profile", "list", "-o", "json"], &[], "");
    let expected = json!([
        { "name": "prod", "url": prod.url, "hasToken": true, "current": true },
        { "name": "test", "url": test.url, "hasToken": true, "current": false },
    ]);
    assert_eq!(ran.json(), expected);
    let ran = home.run(&["profile", "list"], &[], "");
    let said = ran.stdout + &ran.stderr;
    assert!(said.contains("│ prod") && !said.contains("cli_"), "{said}");
}

#[test]
fn of_commands_at_once_none_undoes_what_another_stored() {
    let home = Home::new("profiles-at-once");
    let names: Vec<String> = (0..16)
        .map(|number| format!("profile-{number:02}"))
        .collect();
    std::thread::scope(|scope| {
        for name in &names {
            let words = ["profile", "add", name, "--url", "https://api.example.org"];
            let home = &home;
            scope.spawn(move || assert_eq!(home.run(&words, &[], "").code, 0));
        }
    });
    let stored = home.run(&["profile", "list", "-o", "json"], &[], "").json();
    let stored = stored.as_array().unwrap().iter();
    let stored: Vec<&str> = stored.map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(stored, names);
}

#[test]
fn flags_come_before_variables_and_these_before_the_profile() {
    let (prod, test, home) = two("profiles-order");
    is_from(&status(&home, &[], &[]), &prod, "profile prod");
    let named = [("CHAINLOOP_INTEGRATIONS_PROFILE", "test")];
    is_from(&status(&home, &[], &named), &test, "profile test");
    is_from(
        &status(&home, &["--profile", "prod"], &named),
        &prod,
        "profile prod",
    );

    let short = [
        ("CHAINLOOP_URL", &*test.url),
        ("CHAINLOOP_TOKEN", "cli_test"),
    ];
    let from = "URL: CHAINLOOP_URL, token: CHAINLOOP_TOKEN, instead of profile prod";
    is_from(&status(&home, &[], &short), &test, from);
    let ran = home.run(&["profile", "list"], &short, "");
    let told = "used instead of the profile's: CHAINLOOP_URL, CHAINLOOP_TOKEN";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
    // The long names come first.
    let long = [
        ("CHAINLOOP_INTEGRATIONS_URL", &*prod.url),
        ("CHAINLOOP_INTEGRATIONS_TOKEN", "cli_prod"),
    ];
    let from = "URL: CHAINLOOP_INTEGRATIONS_URL, token: CHAINLOOP_INTEGRATIONS_TOKEN, instead of profile prod";
    is_from(
        &status(&home, &[], &[&short[..], &long].concat()),
        &prod,
        from,
    );
    // A profile that a flag names sets variables aside.
    is_from(
        &status(&home, &["--profile", "prod"], &short),
        &prod,
        "profile prod",
    );
    let words = ["--url", &*test.url, "--token", "cli_test"];
    let from = "URL: --url, token: --token, instead of profile prod";
    is_from(&status(&home, &words, &long), &test, from);

    let ran = home.run(&["profile", "use", "test"], &[], "");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    is_from(&status(&home, &[], &[]), &test, "profile test");
    let ran = status(&home, &["--profile", "other"], &[]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("chainloop profile list"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_profiles_token_goes_to_no_url_of_a_flag_or_a_variable() {
    let (_prod, test, home) = two("profiles-apart");
    let before = test.lines().len();
    for (words, variables, from) in [
        (&["--url", &*test.url][..], &[][..], "given by --url"),
        (
            &[],
            &[("CHAINLOOP_INTEGRATIONS_URL", &*test.url)],
            "given by CHAINLOOP_INTEGRATIONS_URL",
        ),
        (
            &["--profile", "prod", "--url", &*test.url],
            &[],
            "given by --url",
        ),
    ] {
        let ran = status(&home, words, variables);
        assert_eq!(ran.code, 2, "{}", ran.stdout);
        assert!(ran.stderr.contains(from), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("goes to http://127.0.0.1"),
            "{}",
            ran.stderr
        );
    }
    assert_eq!(test.lines().len(), before);
}

#[test]
fn a_variables_token_goes_to_no_profile_that_has_its_own() {
    let (prod, _test, home) = two("profiles-variable");
    let before = prod.lines().len();
    for variable in ["CHAINLOOP_INTEGRATIONS_TOKEN", "CHAINLOOP_TOKEN"] {
        let ran = status(&home, &[], &[(variable, "cli_of_another")]);
        assert_eq!(ran.code, 2, "{}", ran.stdout);
        let told = format!("{variable} is set without CHAINLOOP_INTEGRATIONS_URL");
        assert!(ran.stderr.contains(&told), "{}", ran.stderr);
        assert!(!ran.stderr.contains("cli_of_another"), "{}", ran.stderr);
        // Without a terminal the token is read from standard input.
        let ran = home.run(&["auth", "login"], &[(variable, "cli_of_another")], "");
        assert_ne!(ran.code, 0, "{}", ran.stdout);
    }
    assert_eq!(prod.lines().len(), before);
    // A flag is meant.
    let named = [("CHAINLOOP_TOKEN", "cli_of_another")];
    let ran = status(&home, &["--profile", "prod"], &named);
    is_from(&ran, &prod, "profile prod");
}

#[test]
fn a_profile_is_checked_before_it_is_stored_and_replaces_none() {
    let (prod, test, home) = two("profiles-checked");
    let url = prod.url.as_str();
    // What variables say may be of another installation.
    let variables = [("CHAINLOOP_URL", url), ("CHAINLOOP_TOKEN", "cli_prod")];
    for (words, code, told) in [
        (
            &["other", "--url", url, "--token", "cli_no"][..],
            1,
            "the token of --token",
        ),
        (&["other"], 2, "Pass --url"),
        (&["other", "--url", "prod"], 2, "is not a URL"),
        (&["prod", "--url", url], 2, "already exists"),
    ] {
        let ran = home.run(&[&["profile", "add"], words].concat(), &variables, "");
        assert_eq!(ran.code, code, "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(told), "{words:?}: {}", ran.stderr);
    }
    // A login does not give a profile another URL.
    let words = ["auth", "login", "--url", &test.url];
    let ran = home.run(&words, &[], "cli_test\n");
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    let ran = home.run(&["profile", "list", "-o", "json"], &[], "");
    assert_eq!(ran.json().as_array().unwrap().len(), 2);
}

#[test]
fn a_profile_without_a_token_gets_one_by_a_login_and_is_deleted_when_that_is_sure() {
    let (_, test, home) = two("profiles-login");
    let ran = home.run(&["profile", "add", "bare", "--url", &test.url], &[], "");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(status(&home, &["--profile", "bare"], &[]).code, 2);
    let ran = home.run(&["auth", "login", "--profile", "bare"], &[], "cli_test\n");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    is_from(
        &status(&home, &["--profile", "bare"], &[]),
        &test,
        "profile bare",
    );
    assert_eq!(home.run(&["profile", "delete", "prod"], &[], "").code, 2);
    let ran = home.run(&["profile", "delete", "prod", "-y"], &[], "");
    assert!(
        ran.stderr.contains("no profile is the current one"),
        "{}",
        ran.stderr
    );
    assert_eq!(status(&home, &[], &[]).code, 2);
}

#[test]
fn a_file_that_is_no_profiles_is_not_quoted() {
    let home = Home::new("profiles-broken");
    std::fs::create_dir_all(home.file().parent().unwrap()).unwrap();
    std::fs::write(home.file(), "{\"token\": \"cli_secret\"").unwrap();
    let ran = status(&home, &[], &[]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("invalid content in line 1"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("cli_secret"), "{}", ran.stderr);
}

#[test]
fn the_official_commands_token_and_directory_are_left_alone() {
    let (prod, _, home) = two("profiles-official");
    let root = home.file().parent().unwrap().parent().unwrap().to_owned();
    assert!(!root.join("chainloop").exists());
    // A JWT, as the official command has it in the same variable.
    let theirs = [("CHAINLOOP_TOKEN", "eyJhbGciOiJIUzI1NiJ9.e30.c2ln")];
    is_from(&status(&home, &[], &theirs), &prod, "profile prod");
    let sent = prod.asked();
    let sent = sent
        .iter()
        .filter_map(|asked| asked.header("authorization"));
    assert!(sent.into_iter().all(|token| !token.contains("eyJ")));
}

/// A symbolic link to the command, by its second name.
struct Second(PathBuf);

impl Second {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("chainloop-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let link = folder.join("chainloop-integrations");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_chainloop"), &link).unwrap();
        Self(link)
    }

    fn run(&self, words: &[&str]) -> (String, String) {
        let ran = Command::new(&self.0)
            .args(words)
            .env_clear()
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(ran.stdout), text(ran.stderr))
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap_or(Path::new("/nowhere")));
    }
}

#[test]
fn help_usage_and_errors_show_the_name_that_the_command_was_called_by() {
    let second = Second::new("second");
    let (help, _) = second.run(&["profile", "add", "--help"]);
    for told in [
        "Usage: chainloop-integrations profile add",
        "\n  chainloop-integrations profile add prod",
    ] {
        assert!(help.contains(told), "{help}");
    }
    assert!(!help.contains("chainloop profile"), "{help}");
    let (_, told) = second.run(&["profile", "add"]);
    assert!(
        told.contains("Usage: chainloop-integrations profile add"),
        "{told}"
    );
    for words in [
        &["delivery", "list"][..],
        &["delivery", "list", "-o", "json"],
    ] {
        let (_, told) = second.run(words);
        assert!(
            told.contains("`chainloop-integrations auth login`"),
            "{told}"
        );
        assert!(!told.contains("chainloop auth"), "{told}");
    }
    for words in ["version", "--version"] {
        let (version, _) = second.run(&[words]);
        assert!(
            version.starts_with("chainloop-integrations 0."),
            "{version}"
        );
    }
    // By its own name nothing differs.
    let ran = run_with(&["profile", "add", "--help"], &[], "");
    assert!(
        ran.stdout.contains("\n  chainloop profile add prod"),
        "{}",
        ran.stdout
    );
}
