//! The threat model: each test that `docs/threat-model.md` names exists in the file to which its link leads.

use std::fs;

use crate::contract::root;

const PAGE: &str = "docs/threat-model.md";

/// Test names are sentences, and so longer than the names of inputs and roles.
fn is_test_name(code: &str) -> bool {
    let is_name =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    code.chars().all(is_name) && code.matches('_').count() >= 3
}

/// The path behind a link's text, without the `../` that leads out of `docs`.
fn target(after: &str) -> Option<&str> {
    let (path, _) = after.strip_prefix("](../")?.split_once(')')?;
    Some(path)
}

#[test]
fn each_test_that_the_threat_model_names_exists() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    // Every second part stands between backquotes.
    let parts: Vec<&str> = page.split('`').collect();
    let mut named = 0;
    for pair in parts[1..].chunks(2) {
        let [code, after] = pair else {
            panic!("{PAGE}: a backquote has no other");
        };
        let Some(path) = target(after) else {
            assert!(!is_test_name(code), "{PAGE}: link {code} to its file");
            continue;
        };
        let text = fs::read_to_string(root().join(path));
        let text = text.unwrap_or_else(|error| panic!("{PAGE}: {path}: {error}"));
        if *code == path {
            continue;
        }
        // What is there is in Python.
        let keyword = match path.starts_with("infra/") {
            true => "def",
            false => "fn",
        };
        assert!(
            text.contains(&format!("{keyword} {code}(")),
            "{PAGE}: {path} has no {code}"
        );
        named += 1;
    }
    assert!(named > 100, "{PAGE} names {named} tests");
}
