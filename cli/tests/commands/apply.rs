//! Configuration as code: planned, applied, pruned, exported.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::api::{Api, Asked, Ran, run_with};
use crate::memory;

const SECRET: &str = "https://hooks.example.org/canary";

/// A directory of its own that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("chainloop-apply-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(api: &Api, arguments: &[&str], stdin: &str) -> Ran {
    let ran = run_with(
        arguments,
        &[
            ("CHAINLOOP_URL", &api.url),
            ("CHAINLOOP_TOKEN", "cli_test"),
            ("HOOK_URL", SECRET),
        ],
        stdin,
    );
    assert!(!ran.stdout.contains("canary"), "{}", ran.stdout);
    assert!(!ran.stderr.contains("canary"), "{}", ran.stderr);
    ran
}

/// Applies what stands there, sure of it.
fn apply(api: &Api, text: &str, more: &[&str]) -> Ran {
    let arguments = ["apply", "-f", "-", "-y"];
    run(api, &[&arguments[..], more].concat(), text)
}

/// Returns the attachment to a workflow, as the API lists it.
fn attached(api: &Api, workflow: &str) -> Value {
    let mut attached = memory::list(api, "attached");
    attached.retain(|one| one["workflow"]["selector"] == workflow);
    attached.pop().unwrap()
}

/// The requests that change something.
fn changes(api: &Api) -> Vec<Asked> {
    let mut asked = api.asked();
    asked.retain(|asked| !asked.line.starts_with("GET "));
    asked
}

const TWO: &str = "\
registrations:
  - name: hook
    integration: webhook
    description: For the dashboard
    inputs: { max_per_second: 5 }
    secrets: { url: { env: HOOK_URL } }
    attachments:
      - workflow: shop/release
        inputs: { send_sbom: true }
        wait_secs: 60
      - workflow: shop/*
  - name: other
    integration: webhook
    secrets: { url: { env: HOOK_URL } }
";

#[test]
fn a_file_becomes_what_is_there_and_a_second_time_nothing_is_done() {
    let api = memory::start();
    let ran = apply(&api, TWO, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        ran.stdout,
        "\
+ registration \"hook\" (webhook)
    description: \"For the dashboard\"
    inputs.max_per_second: 5
    secrets.url: (secret, set from env HOOK_URL)
+ attachment of \"hook\" to shop/release
    inputs.send_sbom: true
    wait_secs: 60
+ attachment of \"hook\" to shop/*
+ registration \"other\" (webhook)
    secrets.url: (secret, set from env HOOK_URL)

4 to create, 0 to update, 0 to delete; unchanged: 0 registrations, 0 attachments.
"
    );
    assert_eq!(
        ran.stderr,
        "\
INF done: + registration \"hook\" (webhook)
WRN no attestation of shop/release has been accepted yet
INF done: + attachment of \"hook\" to shop/release
WRN no attestation of shop/* has been accepted yet
INF done: + attachment of \"hook\" to shop/*
INF done: + registration \"other\" (webhook)
"
    );
    let first = &changes(&api)[0];
    assert_eq!(
        first.json()["inputs"],
        json!({ "max_per_second": 5, "url": SECRET })
    );
    let keys: std::collections::BTreeSet<String> = changes(&api)
        .iter()
        .map(|asked| asked.header("idempotency-key").unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 4);
    // Without -y: there is nothing to ask about.
    let ran = run(&api, &["apply", "-f", "-"], TWO);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        ran.stdout,
        "No changes: 2 registrations, 2 attachments up to date.\nExisting secrets are not compared: --rotate NAME \
         resends those of a registration.\n"
    );
    assert_eq!(changes(&api).len(), 4);
}

#[test]
fn what_changed_in_the_file_is_changed_and_nothing_else() {
    let api = memory::start();
    apply(&api, TWO, &[]);
    let before = attached(&api, "shop/release");
    let file = TWO
        .replace("description: For the dashboard", "description: For all")
        .replace("max_per_second: 5", "format: cloudevents")
        .replace("wait_secs: 60", "wait_secs: 90");
    let ran = apply(&api, &file, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let id = before["id"].as_str().unwrap();
    assert_eq!(
        ran.stdout,
        format!(
            "\
~ registration \"hook\" (webhook)
    description: \"For the dashboard\" → \"For all\"
    inputs.format: (none) → \"cloudevents\"
    inputs.max_per_second: 5 → (none)
~ attachment of \"hook\" to shop/release ({id})
    wait_secs: 60 → 90

0 to create, 2 to update, 0 to delete; unchanged: 1 registration, 1 attachment.
Existing secrets are not compared: --rotate NAME resends those of a registration.
"
        )
    );
    let sent = changes(&api)[4..].to_vec();
    let bodies: Vec<Value> = sent.iter().map(Asked::json).collect();
    assert_eq!(
        bodies,
        [
            json!({ "description": "For all", "inputs": { "format": "cloudevents", "max_per_second": null } }),
            json!({ "wait_secs": 90 })
        ]
    );
    assert!(sent.iter().all(|asked| asked.header("if-match").is_some()));
    let after = attached(&api, "shop/release");
    assert_eq!(
        (&after["id"], &after["waitSecs"]),
        (&before["id"], &json!(90))
    );
    assert!(apply(&api, &file, &[]).stdout.starts_with("No changes"));
}

#[test]
fn secrets_are_sent_again_when_that_is_asked_for() {
    let api = memory::start();
    apply(&api, TWO, &[]);
    let ran = apply(&api, TWO, &["--rotate", "hook"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.starts_with(
            "~ registration \"hook\" (webhook)\n    secrets.url: (secret, set from env HOOK_URL)\n"
        ),
        "{}",
        ran.stdout
    );
    let last = changes(&api).pop().unwrap();
    assert_eq!(last.json(), json!({ "inputs": { "url": SECRET } }));
    let ran = apply(&api, TWO, &["--rotate", "hok"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("--rotate hok: no file has"),
        "{}",
        ran.stderr
    );
}

#[test]
fn what_is_in_no_file_stays_unless_it_is_pruned() {
    let api = memory::start();
    apply(&api, TWO, &[]);
    let file = "\
registrations:
  - name: hook
    integration: webhook
    description: For the dashboard
    inputs: { max_per_second: 5 }
    secrets: { url: { env: HOOK_URL } }
    attachments: [{ workflow: shop/* }]
";
    let ran = apply(&api, file, &[]);
    assert!(
        ran.stdout.ends_with(
            "In no file, left unchanged: 1 registration, 1 attachment; --prune deletes them.\n"
        ),
        "{}",
        ran.stdout
    );
    assert_eq!(changes(&api).len(), 4);
    let detached = attached(&api, "shop/release");
    let ran = apply(&api, file, &["--prune"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        ran.stdout,
        format!(
            "\
- attachment of \"hook\" to shop/release ({})
- registration \"other\" (webhook)

0 to create, 0 to update, 2 to delete; unchanged: 1 registration, 1 attachment.
Existing secrets are not compared: --rotate NAME resends those of a registration.
",
            detached["id"].as_str().unwrap()
        )
    );
    assert_eq!(memory::list(&api, "registered").len(), 1);
    assert_eq!(memory::list(&api, "attached").len(), 1);
}

#[test]
fn what_was_attached_after_the_plan_is_not_deleted_unseen() {
    let api = memory::start_with(|asked| {
        // While the plan is made, when the lists have been read.
        let is_late = asked.line.starts_with("GET /v1/deliveries?");
        let body = json!({ "registration": "other", "workflow": "shop/late" });
        let late = Asked::new("POST /v1/attachments", body.to_string().into_bytes());
        is_late.then_some(late)
    });
    apply(&api, TWO, &[]);
    let one = TWO.split("  - name: other").next().unwrap();
    let ran = apply(&api, one, &["--prune"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(
        ran.stderr.ends_with(
            "ERR failed to delete the registration \"other\": it has new attachments\n    \
             Run the command again to see the attachments that would be deleted with it.\n"
        ),
        "{}",
        ran.stderr
    );
    assert_eq!(memory::list(&api, "registered").len(), 2);
    attached(&api, "shop/late");
}

#[test]
fn what_somebody_else_attached_meanwhile_is_done() {
    let api = memory::start_with(|asked| {
        let is_attaching = asked.line.starts_with("POST /v1/attachments");
        is_attaching.then(|| Asked {
            headers: Vec::new(),
            ..asked.clone()
        })
    });
    let ran = apply(&api, TWO, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(memory::list(&api, "attached").len(), 2);
    let again = apply(&api, TWO, &["--dry-run", "--exit-code"]);
    assert_eq!(again.code, 0, "{}", again.stdout);
}

#[test]
fn a_dry_run_does_nothing_and_reads_no_secret() {
    let api = memory::start();
    let file = TWO.replace("HOOK_URL", "NOT_THERE");
    let ran = run(&api, &["apply", "-f", "-", "--dry-run"], &file);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("(secret, set from env NOT_THERE)"),
        "{}",
        ran.stdout
    );
    let ran = run(
        &api,
        &["apply", "-f", "-", "--dry-run", "--exit-code"],
        &file,
    );
    assert_eq!(ran.code, 5);
    assert!(changes(&api).is_empty());
    apply(&api, TWO, &[]);
    let ran = run(&api, &["apply", "-f", "-", "--dry-run", "--exit-code"], TWO);
    assert_eq!(ran.code, 0);
}

#[test]
fn without_somebody_to_ask_it_wants_to_be_sure() {
    let api = memory::start();
    let ran = run(&api, &["apply", "-f", "-"], TWO);
    assert_eq!(ran.code, 2);
    assert!(ran.stdout.starts_with("+ registration"), "{}", ran.stdout);
    assert_eq!(
        ran.stderr,
        "ERR cannot ask whether to apply the plan: no terminal\n    Pass -y to skip the confirmation.\n"
    );
    assert!(changes(&api).is_empty());
}

#[test]
fn a_secret_that_is_not_there_is_told_before_anything_is_done() {
    let api = memory::start();
    let file = TWO.replacen("HOOK_URL", "NOT_THERE", 1).replacen(
        "{ env: HOOK_URL }",
        "{ file: not-there }",
        1,
    );
    let ran = apply(&api, &file, &[]);
    assert_eq!(ran.code, 1);
    for text in [
        "ERR invalid secrets; nothing was changed\n",
        "    standard input:6:16: registrations[0].secrets.url: the environment variable NOT_THERE is not set\n",
        "    standard input:14:16: registrations[1].secrets.url: failed to read the file not-there",
    ] {
        assert!(ran.stderr.contains(text), "{}", ran.stderr);
    }
    assert!(changes(&api).is_empty());
}

#[test]
fn a_secret_that_does_not_fit_is_told_without_what_it_is() {
    let api = memory::start();
    let directory = Directory::new("unfit");
    directory.write("url", "canary\n");
    let file = TWO.replace("{ env: HOOK_URL }", "{ file: url }");
    let path = directory.write("a.yaml", &file);
    let ran = run(&api, &["apply", "-f", &path, "-y"], "");
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .contains("registrations[0].secrets.url: must be an absolute http or https URL"),
        "{}",
        ran.stderr
    );
    assert!(changes(&api).is_empty());
}

#[test]
fn a_step_that_fails_leaves_what_was_done_and_the_next_time_goes_on() {
    let api = memory::start();
    let directory = Directory::new("fails");
    // The third party refuses the second one alone.
    directory.write("url", "https://refused.example.org/");
    let (first, last) = TWO.split_at(TWO.find("  - name: other").unwrap());
    let last = last.replace("{ env: HOOK_URL }", "{ file: url }");
    let third =
        "  - name: third\n    integration: webhook\n    secrets: { url: { env: HOOK_URL } }\n";
    let path = directory.write("a.yaml", &format!("{first}{last}{third}"));
    let ran = run(&api, &["apply", "-f", &path, "-y"], "");
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains(
            "WRN 2 steps left; run the command again to continue:\n    + registration \"other\" (webhook)\n    + \
             registration \
             \"third\" (webhook)\nERR failed to register \"other\": failed to reach it; it answered 403\n"
        ),
        "{}",
        ran.stderr
    );
    assert_eq!(memory::list(&api, "registered").len(), 1);
    directory.write("url", "https://fine.example.org/");
    let ran = run(&api, &["apply", "-f", &path, "-y"], "");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains(
            "2 to create, 0 to update, 0 to delete; unchanged: 1 registration, 2 attachments."
        ),
        "{}",
        ran.stdout
    );
    assert_eq!(memory::list(&api, "registered").len(), 3);
}

#[test]
fn what_changed_since_the_plan_is_left_as_it_is() {
    let registration = json!({
        "id": "r-1", "name": "hook", "integration": "webhook", "version": "1.0", "description": "", "config": {},
        "secrets": { "url": "…" }, "etag": "e-1", "created_at": "2026-01-02T03:04:05.678Z",
    });
    let api = Api::start(move |_, Asked { line, .. }| {
        let schema = json!({ "type": "object", "properties": { "url": { "type": "string", "writeOnly": true } } });
        let integration = json!({
            "id": "webhook", "version": "1.0", "description": "", "materials": [],
            "registration_schema": schema, "attachment_schema": { "type": "object", "properties": {} },
        });
        let items = match line.split(['?', ' ']).nth(1).unwrap() {
            "/v1/integrations" => json!([integration]),
            "/v1/registrations" => json!([registration]),
            "/v1/attachments" => json!([]),
            _ => {
                let problem = json!({
                    "status": 412, "code": "changed-meanwhile", "title": "Changed meanwhile",
                    "detail": "it was changed meanwhile", "request_id": "req-1",
                });
                return (412, problem.to_string());
            }
        };
        (200, json!({ "items": items, "next": null }).to_string())
    });
    let file = "\
registrations:
  - { name: hook, integration: webhook, description: new, secrets: { url: { env: HOOK_URL } } }
";
    let ran = apply(&api, file, &[]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "WRN 1 step left; run the command again to continue:\n    ~ registration \"hook\" (webhook)\nERR failed \
         to update \
         \"hook\": it was changed meanwhile\n    It changed in the meantime: run the command again.\n    request ID: req-1\n"
    );
    let last = changes(&api).pop().unwrap();
    assert_eq!(last.line, "PATCH /v1/registrations/r-1");
    assert_eq!(last.header("if-match"), Some("\"e-1\""));
}

#[test]
fn a_wrong_file_is_told_with_all_that_is_wrong_and_asks_nothing() {
    let api = memory::start();
    let directory = Directory::new("wrong");
    let one = directory.write("one.yaml", "registrations:\n  - nam: a\n");
    let two = directory.write("two.yaml", "registrations: [\n");
    let ran = run(&api, &["apply", "-f", &one, "-f", &two], "");
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(
        ran.stderr
            .starts_with("ERR invalid configuration; nothing was changed\n"),
        "{}",
        ran.stderr
    );
    for text in [
        "one.yaml:2:5: registrations[0].nam: is not known",
        "two.yaml:",
    ] {
        assert!(ran.stderr.contains(text), "{}", ran.stderr);
    }
    assert!(api.lines().is_empty());
    let plain = "registrations: [{ name: a, integration: webhook, inputs: { url: https://x.example/canary } }]";
    let ran = apply(&api, plain, &[]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("such as url: { env: NAME }"),
        "{}",
        ran.stderr
    );
}

#[test]
fn of_very_many_faults_the_first_are_told() {
    let file = "registrations:\n".to_owned() + &"  - 7\n".repeat(150);
    let ran = apply(&memory::start(), &file, &[]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.ends_with("… and 50 more\n"), "{}", ran.stderr);
}

#[test]
fn another_integration_under_the_same_name_is_refused() {
    let api = memory::start();
    apply(&api, TWO, &[]);
    let file = "registrations: [{ name: hook, integration: slack-webhook, secrets: { webhook: { env: HOOK_URL } } }]";
    let ran = apply(&api, file, &["--prune"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains(
            "registrations[0].integration: is \"webhook\" in the existing registration, which cannot be changed"
        ),
        "{}",
        ran.stderr
    );
    assert_eq!(changes(&api).len(), 4);
}

#[test]
fn machines_get_the_plan_and_what_became_of_each_step() {
    let api = memory::start();
    let ran = run(&api, &["apply", "-f", "-", "--dry-run", "-o", "json"], TWO);
    let planned = ran.json();
    assert_eq!(
        planned["steps"][0],
        json!({
            "action": "create", "kind": "registration", "name": "hook", "integration": "webhook",
            "description": "For the dashboard", "inputs": { "max_per_second": 5 },
            "secrets": { "url": { "env": "HOOK_URL" } },
        })
    );
    let ran = apply(&api, TWO, &["-o", "json"]);
    let steps = ran.json()["steps"].clone();
    let outcomes: Vec<&Value> = steps
        .as_array()
        .unwrap()
        .iter()
        .map(|step| &step["outcome"])
        .collect();
    assert_eq!(outcomes, ["done"; 4]);
    let other = TWO.replace("wait_secs: 60", "wait_secs: 61");
    let ran = run(&api, &["apply", "-f", "-", "-o", "json"], &other);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr
            .contains("cannot ask for confirmation with -o json"),
        "{}",
        ran.stderr
    );
    let ran = run(&api, &["apply", "-f", "-", "-o", "json"], TWO);
    assert_eq!(
        ran.json()["unchanged"],
        json!({ "registrations": 2, "attachments": 2, "trustPolicies": 0 })
    );
    let ran = run(
        &api,
        &["apply", "-f", "-", "--dry-run", "--prune", "-o", "json"],
        "registrations: []",
    );
    assert_eq!(ran.json()["steps"][0]["action"], "delete");
    assert_eq!(ran.json()["steps"][0]["openDeliveries"], 0);
}

#[test]
fn what_is_exported_and_applied_changes_nothing() {
    let api = memory::start();
    apply(&api, TWO, &[]);
    for format in ["table", "json"] {
        let exported = run(&api, &["export", "-o", format], "").stdout;
        assert!(exported.contains("HOOK_URL"), "{exported}");
        let arguments = ["apply", "-f", "-", "--dry-run", "--exit-code", "--prune"];
        let ran = run(&api, &arguments, &exported);
        assert_eq!(ran.code, 0, "{exported}\n{}{}", ran.stdout, ran.stderr);
        assert!(
            ran.stdout
                .starts_with("No changes: 2 registrations, 2 attachments"),
            "{}",
            ran.stdout
        );
    }
}

#[test]
fn a_secret_is_read_from_secrets_manager_in_the_region_of_its_arn() {
    let aws = Api::start(|_, asked| {
        assert_eq!(
            asked.header("x-amz-target"),
            Some("secretsmanager.GetSecretValue")
        );
        let arn = asked.json()["SecretId"].as_str().unwrap().to_owned();
        match arn.ends_with("there-a1b2c3") {
            true => (
                200,
                json!({ "ARN": arn, "SecretString": json!({ "url": SECRET }).to_string() })
                    .to_string(),
            ),
            false => (
                400,
                json!({ "__type": "ResourceNotFoundException", "message": "no" }).to_string(),
            ),
        }
    });
    let api = memory::start();
    let variables = [
        ("CHAINLOOP_URL", api.url.as_str()),
        ("CHAINLOOP_TOKEN", "cli_test"),
        ("AWS_ENDPOINT_URL", &aws.url),
        ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "canary"),
    ];
    let file = |name: &str| {
        let arn = format!("arn:aws:secretsmanager:eu-central-1:123456789012:secret:{name}#url");
        TWO.replace("{ env: HOOK_URL }", &format!("{{ secret: '{arn}' }}"))
    };
    let arguments = ["apply", "-f", "-", "-y"];
    let ran = run_with(&arguments, &variables, &file("gone-a1b2c3"));
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .contains("it does not exist, or contains no text"),
        "{}",
        ran.stderr
    );
    let ran = run_with(&arguments, &variables[..3], &file("there-a1b2c3"));
    assert!(
        ran.stderr.contains("no AWS credentials found"),
        "{}",
        ran.stderr
    );
    assert!(changes(&api).is_empty());
    let ran = run_with(&arguments, &variables, &file("there-a1b2c3"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!(ran.stdout + &ran.stderr).contains("canary"));
    assert_eq!(changes(&api)[0].json()["inputs"]["url"], SECRET);
    let signed = aws.asked().pop().unwrap();
    let signature = signed.header("authorization").unwrap();
    assert!(
        signature.contains("/eu-central-1/secretsmanager/"),
        "{signature}"
    );
}

#[test]
fn a_deletion_says_which_deliveries_go_with_it() {
    let registration = json!({
        "id": "r-1", "name": "hook", "integration": "webhook", "description": "", "config": {}, "secrets": {},
        "etag": "e-1",
    });
    let attachment = |id: &str| {
        json!({
            "id": id, "workflow": "shop/a", "config": { "send_sbom": id == "a-1" }, "wait_secs": null, "etag": "e-2",
            "registration": registration,
        })
    };
    let attachments = json!([attachment("a-1"), attachment("a-2")]);
    let registrations = json!([registration]);
    let api = Api::start(move |_, Asked { line, .. }| {
        let delivery = |state: &str, id: &str| json!({ "state": state, "attachment": id });
        let deliveries = [
            delivery("pending", "a-1"),
            delivery("delivering", "a-2"),
            delivery("pending", "a-2"),
            delivery("delivered", "a-2"),
        ];
        let items = match line.split(['?', ' ']).nth(1).unwrap() {
            "/v1/integrations" => {
                let integrations = integrations::ALL.iter();
                integrations
                    .map(|one| json!(api::integrations::Integration::from(one)))
                    .collect()
            }
            "/v1/registrations" => registrations.clone(),
            "/v1/attachments" => attachments.clone(),
            "/v1/deliveries" => json!(deliveries),
            _ => Value::Null,
        };
        let next = line.contains("/deliveries").then_some("more");
        (200, json!({ "items": items, "next": next }).to_string())
    });
    let ran = run(
        &api,
        &["apply", "-f", "-", "--dry-run", "--prune"],
        "registrations: []",
    );
    assert_eq!(
        ran.stdout,
        "\
- registration \"hook\" (webhook)
    with its attachment to shop/a (a-1)
    with its attachment to shop/a (a-2)
    cancels 3 open deliveries of the newest 100 of the registration

0 to create, 0 to update, 1 to delete; unchanged: 0 registrations, 0 attachments.
"
    );
}

/// The fenced blocks of the guide that begin with this word.
fn blocks(word: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/as-code.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let fenced = guide.split("```").skip(1).step_by(2);
    fenced
        .filter_map(|block| block.strip_prefix(&format!("{word}\n")))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_guides_example_does_what_the_guide_says() {
    let (files, plans) = (blocks("yaml"), blocks("text"));
    let directory = Directory::new("guide");
    directory.write("registry-password", "canary-password\n");
    let api = memory::start();
    let variables = [
        ("CHAINLOOP_URL", api.url.as_str()),
        ("CHAINLOOP_TOKEN", "cli_test"),
        ("DASHBOARD_URL", SECRET),
    ];
    let path = directory.write("integrations.yaml", &files[0]);
    let ran = run_with(&["apply", "-f", &path, "-y"], &variables, "");
    assert_eq!((ran.code, &ran.stdout), (0, &plans[0]), "{}", ran.stderr);
    let path = directory.write("integrations.yaml", &files[1]);
    let ran = run_with(&["apply", "-f", &path, "--prune", "-y"], &variables, "");
    let mut plan = ran.stdout.clone();
    for (number, workflow) in ["shop/release", "shop/*"].iter().enumerate() {
        let (_, rest) = ran.stdout.split_once(&format!("{workflow} (")).unwrap();
        let (id, _) = rest.split_once(')').unwrap();
        let shown = format!("6f0c1f0e-0000-4000-8000-00000000000{}", number + 1);
        plan = plan.replace(id, &shown);
    }
    assert_eq!((ran.code, &plan), (0, &plans[1]), "{}", ran.stderr);
    let ran = run_with(&["apply", "-f", &path, "--prune", "-y"], &variables, "");
    assert_eq!((ran.code, &ran.stdout), (0, &plans[2]));
}
