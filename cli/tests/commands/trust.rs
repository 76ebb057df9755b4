//! Trust policies: made, changed, tried on attestations that were accepted, and as code.

use attestation::{Envelope, PAYLOAD_TYPE, Signature};
use serde_json::{Value, json};

use crate::api::{Api, Ran};
use crate::memory;

const PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEasqxmki2V3Hcv8Ndmg6ajiunutVw
jJwFGkj7FOgx83JNN1HqgDT7szHULdS++ObENJicipbK8chyyzHd7WMAIA==
-----END PUBLIC KEY-----
";

/// A file of its own that goes with the test.
struct Pem(String);

impl Pem {
    fn new(name: &str) -> Self {
        let name = format!("chainloop-trust-{name}-{}.pub", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, PEM).unwrap();
        Self(path.display().to_string())
    }
}

impl Drop for Pem {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn done(ran: Ran) -> Ran {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran
}

fn policy(api: &Api, name: &str) -> Value {
    done(api.run(&["trust", "policy", "describe", name, "-o", "json"])).json()
}

fn push(api: &Api, workflow: &str) {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "a", "digest": { "sha256": "a".repeat(64) } }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": { "of": workflow },
    });
    let signature = Signature {
        keyid: String::new(),
        sig: b"sig".to_vec(),
    };
    let envelope = Envelope {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: statement.to_string().into_bytes(),
        signatures: vec![signature],
    };
    let push = ["attestation", "push", "-", "--workflow", workflow];
    done(api.run_with(&push, str::from_utf8(&envelope.compact()).unwrap()));
}

#[test]
fn a_policy_is_updated_and_keeps_what_is_not_given() {
    let (api, pem) = (memory::start(), Pem::new("update"));
    let key = |name: &str| format!("{name}=@{}", pem.0);
    let (release, next) = (key("release"), key("next"));
    let add = ["trust", "policy", "add", "--name", "release"];
    let add = [&add[..], &["--workflow", "shop/*", "--mode", "warn"]].concat();
    done(api.run(&[&add[..], &["--key", &release]].concat()));
    let update = ["trust", "policy", "update", "release"];
    let ran = done(api.run(&[&update[..], &["--mode", "require"]].concat()));
    assert_eq!(ran.stderr, "INF trust policy \"release\" updated\n");
    let there = policy(&api, "release");
    assert_eq!(there["mode"], "require");
    assert_eq!(there["signers"][0]["name"], "release");
    let two = ["--threshold", "2", "--key", &release, "--key", &next];
    // One key under two names is one.
    let ran = api.run(&[&update[..], &two].concat());
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("has the same key"), "{}", ran.stderr);
    done(api.run(&[&update[..], &["--key", &next]].concat()));
    let there = policy(&api, "release");
    let signers = there["signers"].as_array().unwrap();
    assert_eq!((signers.len(), &signers[0]["name"]), (1, &json!("next")));
    assert_eq!(there["mode"], "require");
    let ran = api.run(&update);
    assert_eq!(ran.code, 2);
}

#[test]
fn a_preview_says_what_require_would_have_refused() {
    let (api, pem) = (memory::start(), Pem::new("preview"));
    push(&api, "shop/nightly");
    push(&api, "mill/nightly");
    let key = format!("release=@{}", pem.0);
    let preview = [
        "trust",
        "policy",
        "preview",
        "--workflow",
        "shop/*",
        "--key",
    ];
    let ran = done(api.run(&[&preview[..], &[key.as_str()]].concat()));
    assert!(ran.stdout.contains("shop/nightly"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("mill/nightly"), "{}", ran.stdout);
    let sum = "INF 1 unknown-signer; require would have refused 1\n";
    assert_eq!(ran.stderr, sum);

    let add = ["trust", "policy", "add", "--name", "all", "--workflow", "*"];
    done(api.run(&[&add[..], &["--mode", "off", "--key", &key]].concat()));
    let preview = ["trust", "policy", "preview", "all", "-o", "json"];
    let tried = done(api.run(&preview)).json();
    assert_eq!(tried.as_array().unwrap().len(), 2);
    assert_eq!(tried[0]["verdict"]["outcome"], "unknown-signer");
    let listed = ["attestation", "list", "--verdict", "off", "-o", "json"];
    assert_eq!(done(api.run(&listed)).json().as_array().unwrap().len(), 2);
    assert_eq!(api.run(&["trust", "policy", "preview"]).code, 2);
}

#[test]
fn policies_are_code_beside_registrations_or_alone() {
    let (api, pem) = (memory::start(), Pem::new("apply"));
    let text = |mode: &str| {
        format!(
            "trust_policies:\n  - name: release\n    workflow: shop/*\n    mode: {mode}\n    signers:\n      - {{ kind: key, \
             name: release, pem: {{ file: {} }} }}\n",
            pem.0
        )
    };
    let apply = |text: &str, more: &[&str]| {
        let arguments = ["apply", "-f", "-", "-y"];
        done(api.run_with(&[&arguments[..], more].concat(), text)).stdout
    };
    let hook = "registrations:\n  - name: mail\n    integration: webhook\n    secrets: { url: { file: /dev/null } }\n";
    // Nothing but the plan: a registration that no list speaks of stays, even with --prune.
    let dry = apply(&format!("{hook}{}", text("warn")), &["--dry-run"]);
    assert!(dry.contains("2 to create"), "{dry}");
    let created = apply(&text("warn"), &["--prune"]);
    assert!(
        created.starts_with("+ trust policy \"release\" for shop/*\n    mode: warn\n    threshold: 1\n    signers.release: key, PEM "),
        "{created}"
    );
    let changed = apply(&text("require"), &[]);
    assert!(
        changed.contains("    mode: \"warn\" → \"require\"\n"),
        "{changed}"
    );
    let same = apply(&text("require"), &[]);
    assert!(
        same.contains("No changes: 0 registrations, 0 attachments, 1 trust policy up to date."),
        "{same}"
    );

    let exported = done(api.run(&["export"])).stdout;
    let again = apply(&exported, &["--prune"]);
    assert!(again.contains("1 trust policy up to date"), "{again}");
    // A file without the list leaves policies alone.
    let left = apply("registrations: []\n", &["--prune"]);
    assert!(left.starts_with("No changes"), "{left}");
    let deleted = apply("trust_policies: []\n", &["--prune"]);
    assert!(
        deleted.starts_with("- trust policy \"release\" for shop/*\n"),
        "{deleted}"
    );
}

/// A private key is given by mistake where a file or a policy should stand.
#[test]
fn no_fault_quotes_what_may_be_a_key() {
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n";
    let (api, file) = (memory::start(), Pem::new("private"));
    for text in [KEY, "name: [canary\n", "- canary\n"] {
        std::fs::write(&file.0, text).unwrap();
        for what in ["policy", "issuer"] {
            let ran = api.run(&["trust", what, "add", "-f", &file.0]);
            assert_eq!(ran.code, 2, "{}", ran.stderr);
            assert!(!ran.stderr.contains("canary"), "{}", ran.stderr);
        }
    }
    for key in [KEY.to_owned(), format!("release={KEY}")] {
        let add = ["trust", "policy", "add", "--name", "a", "--workflow", "*"];
        let ran = api.run(&[&add[..], &["--mode", "warn", "--key", &key]].concat());
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(!ran.stderr.contains("canary"), "{}", ran.stderr);
    }
}
