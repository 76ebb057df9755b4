//! Lists that are filtered and sorted by the command line.

use serde_json::{Value, json};

use crate::api::{Api, Asked};

const PAUSED: &str = r#"{ "reason": "gone", "since": "2026-01-02T03:04:05Z", "by": null }"#;

fn registration(name: &str, integration: &str, day: u32, is_paused: bool) -> Value {
    let paused: Value = serde_json::from_str(PAUSED).unwrap();
    json!({
        "id": format!("id-{name}"), "name": name, "integration": integration, "version": "1.0", "description": "",
        "config": {}, "secrets": {}, "created_at": format!("2026-01-{day:02}T00:00:00Z"),
        "paused": if is_paused { paused } else { Value::Null },
    })
}

fn api() -> Api {
    Api::start(|_, Asked { line, .. }| {
        let registrations = [
            registration("ants", "webhook", 3, true),
            registration("bees", "guac", 1, false),
            registration("cats", "webhook", 2, false),
        ];
        let attached = |id: &str, workflow: &str, to: usize| {
            json!({
                "id": id, "workflow": workflow, "wait_secs": null, "config": {},
                "registration": registrations[to], "created_at": "2026-01-02T03:04:05Z",
            })
        };
        let workflow = |name: &str, attachments: usize, attested: Option<&str>| {
            json!({
                "workflow": { "id": "", "project": "shop", "name": name }, "attachments": attachments,
                "first_seen_at": "2026-01-01T00:00:00Z", "attested_at": attested,
            })
        };
        let items = if line.contains("registrations") {
            registrations.to_vec()
        } else if line.contains("workflows") {
            vec![
                workflow("b", 1, Some("2026-01-02T00:00:00Z")),
                workflow("a", 3, None),
                workflow("c", 2, Some("2026-01-05T00:00:00Z")),
            ]
        } else {
            vec![
                attached("1", "shop/z", 0),
                attached("2", "shop/a", 2),
                attached("3", "shop/m", 0),
            ]
        };
        (200, json!({ "items": items, "next": null }).to_string())
    })
}

/// The values of `key`, in the order of the list.
fn listed(words: &str, key: &str) -> Vec<String> {
    let words: Vec<&str> = words.split(' ').chain(["-o", "json"]).collect();
    let ran = api().run(&words);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let list = ran.json();
    let value = |one: &Value| one[key].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(value).collect()
}

#[test]
fn registrations_are_filtered_and_sorted() {
    for (words, expected) in [
        ("", &["ants", "bees", "cats"][..]),
        (" --kind webhook", &["ants", "cats"]),
        (" --paused", &["ants"]),
        (" --kind guac --paused", &[]),
        (" --sort created", &["bees", "cats", "ants"]),
        (" --sort kind", &["bees", "ants", "cats"]),
        (" --sort name --reverse", &["cats", "bees", "ants"]),
        (" --reverse", &["cats", "bees", "ants"]),
    ] {
        let found = listed(&format!("integration registered list{words}"), "name");
        assert_eq!(found, expected, "{words}");
    }
    let ran = api().run(&["integration", "registered", "ls", "--kind", "smtp"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "no matching registrations\n")
    );
}

#[test]
fn attachments_are_filtered_by_their_registration_and_sorted() {
    for (words, expected) in [
        ("", &["1", "2", "3"][..]),
        (" --integration ants", &["1", "3"]),
        (" --registration id-cats", &["2"]),
        (" --sort workflow", &["2", "3", "1"]),
    ] {
        let found = listed(&format!("integration attached list{words}"), "id");
        assert_eq!(found, expected, "{words}");
    }
    let ran = api().run(&["integration", "attached", "ls", "--integration", "dogs"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "no matching attachments\n")
    );
}

#[test]
fn workflows_are_sorted() {
    for (words, expected) in [
        ("", ["a", "b", "c"]),
        (" --sort attachments", ["b", "c", "a"]),
        (" --sort attested --reverse", ["c", "b", "a"]),
    ] {
        assert_eq!(
            listed(&format!("workflow list{words}"), "name"),
            expected,
            "{words}"
        );
    }
}

#[test]
fn what_cannot_be_sorted_by_is_refused_with_what_can() {
    let ran = api().run(&["workflow", "list", "--sort", "size"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("name, attachments, attested"),
        "{}",
        ran.stderr
    );
}
