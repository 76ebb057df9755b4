//! The components for CI systems in `infra/ci`: their files, and their script as a runner runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use attestation::Digest;
use serde::Deserialize as _;
use serde_json::Value;

use crate::contract::root;

const GITHUB: &str = "infra/ci/github/action.yml";
const GITLAB: &str = "infra/ci/gitlab/templates/push.yml";

/// A component: its inputs, where its script finds them, and the script.
struct Component {
    inputs: BTreeSet<String>,
    environment: BTreeMap<String, String>,
    script: String,
}

fn documents(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    let read = documents.map(|document| Value::deserialize(document).unwrap());
    read.collect()
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().unwrap().iter()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn github() -> Component {
    let [action] = &documents(GITHUB)[..] else {
        panic!("{GITHUB} is one document")
    };
    let [step] = &action["runs"]["steps"].as_array().unwrap()[..] else {
        panic!("{GITHUB} has one step")
    };
    assert_eq!(action["runs"]["using"], "composite");
    assert_eq!(step["shell"], "sh");
    let environment = object(&step["env"]).map(|(name, value)| (name.clone(), text(value)));
    Component {
        inputs: object(&action["inputs"])
            .map(|(name, _)| name.clone())
            .collect(),
        environment: environment.collect(),
        script: text(&step["run"]),
    }
}

fn gitlab() -> Component {
    let [header, jobs] = &documents(GITLAB)[..] else {
        panic!("{GITLAB} is a header and its jobs")
    };
    let [(_, job)] = &object(jobs).collect::<Vec<_>>()[..] else {
        panic!("{GITLAB} has one job")
    };
    let [exports, script] = &job["script"].as_array().unwrap()[..] else {
        panic!("{GITLAB} has its exports, and one script")
    };
    let environment = object(&job["variables"]).map(|(name, variable)| {
        assert_eq!(
            variable["expand"], false,
            "{name}: a dollar sign in it is one"
        );
        (name.clone(), text(&variable["value"]))
    });
    let inputs = &header["spec"]["inputs"];
    let exports = text(exports);
    let exported = exports.lines().map(|line| {
        let line = line.strip_prefix("export ").unwrap();
        let (name, value) = line.split_once('=').unwrap();
        let value = value.strip_prefix('\'').unwrap().strip_suffix('\'');
        (name.to_owned(), value.unwrap().to_owned())
    });
    Component {
        environment: environment.chain(exported).collect(),
        inputs: object(inputs).map(|(name, _)| name.clone()).collect(),
        script: text(script),
    }
}

/// A variable of the project, the pipeline or an earlier job would replace a job's own, and say who gets the token.
#[test]
fn what_decides_who_gets_the_token_is_no_variable_and_no_code() {
    let [header, jobs] = &documents(GITLAB)[..] else {
        panic!("{GITLAB} is a header and its jobs")
    };
    let (_, job) = object(jobs).next().unwrap();
    for (variable, input, letters) in [
        (
            "CHAINLOOP_INTEGRATIONS_URL",
            "url",
            "^https?://[A-Za-z0-9.:/_-]+$",
        ),
        (
            "CHAINLOOP_INTEGRATIONS_ORGANIZATION",
            "organization",
            "^[a-z0-9-]+$",
        ),
        ("PUSH_SHA256", "sha256", "^[0-9a-f]{64}$"),
    ] {
        assert!(job["variables"].get(variable).is_none(), "{variable}");
        let line = format!("export {variable}='$[[ inputs.{input} ]]'\n");
        assert!(job["script"][0].as_str().unwrap().contains(&line), "{line}");
        assert_eq!(header["spec"]["inputs"][input]["regex"], letters);
    }
    assert_eq!(job["script"][0].as_str().unwrap().lines().count(), 3);
}

/// The script of both components.
pub fn script() -> String {
    let script = github().script;
    assert_eq!(
        script,
        gitlab().script,
        "{GITHUB} and {GITLAB} have one script"
    );
    script
}

#[test]
fn no_input_is_written_into_the_script() {
    for (component, [begins, ends], more) in [
        (github(), ["${{ inputs.", " }}"], &[][..]),
        (gitlab(), ["$[[ inputs.", " ]]"], &["job", "stage"]),
    ] {
        let script = component.script;
        assert!(
            !script.contains("${{") && !script.contains("$[["),
            "{script}"
        );
        let variables = component.environment.iter();
        let named = variables.map(|(variable, value)| {
            let input = value
                .strip_prefix(begins)
                .and_then(|rest| rest.strip_suffix(ends));
            assert!(script.contains(&format!("${{{variable}:-")), "{variable}");
            input.unwrap().to_owned()
        });
        let more = more.iter().map(|one| (*one).to_owned());
        assert_eq!(named.chain(more).collect::<BTreeSet<_>>(), component.inputs);
    }
    assert_eq!(github().environment.len(), gitlab().environment.len());
}

/// A runner's machine: a folder with a command line that says what it was called with, and a `curl` that fetches it.
struct Runner(PathBuf);

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const CHAINLOOP: &str = r#"#!/bin/sh
printf '%s\0' "$CHAINLOOP_INTEGRATIONS_URL" "$CHAINLOOP_INTEGRATIONS_ORGANIZATION" "$@" >called
"#;

const CURL: &str = r#"#!/bin/sh
printf '%s\0' "$@" >fetched
while [ "$1" != --output ]; do shift; done
cp chainloop "$2"
"#;

impl Runner {
    fn new(name: &str) -> Self {
        let folder = format!("chainloop-ci-{name}-{}", std::process::id());
        let runner = Self(std::env::temp_dir().join(folder));
        fs::create_dir_all(runner.0.join("bin")).unwrap();
        fs::create_dir_all(runner.0.join("tmp")).unwrap();
        fs::write(runner.0.join("chainloop"), CHAINLOOP).unwrap();
        runner.program("bin/curl", CURL);
        runner
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs the script. Returns its code and what it said.
    fn run(&self, variables: &[(&str, &str)]) -> (i32, String) {
        let path = format!("{}:/usr/bin:/bin", self.0.join("bin").display());
        let output = Command::new("sh")
            .args(["-e", "-c", &script()])
            .current_dir(&self.0)
            .env_clear()
            .env("PATH", path)
            .env("TMPDIR", self.0.join("tmp"))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let left = fs::read_dir(self.0.join("tmp")).unwrap().count();
        assert_eq!(left, 0, "the copy is removed");
        (output.status.code().unwrap(), said)
    }

    /// The words that a program was called with, if it was.
    fn words(&self, name: &str) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.0.join(name)).ok()?;
        let words = text.strip_suffix('\0').unwrap().split('\0');
        Some(words.map(str::to_owned).collect())
    }
}

pub fn sha256(file: &Path) -> String {
    Digest::of(&fs::read(file).unwrap()).hex()
}

/// Variables that the script needs, with these replaced.
fn variables<'a>(sum: &'a str, other: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let usual = [
        (
            "CHAINLOOP_INTEGRATIONS_URL",
            "https://attestations.example.org",
        ),
        ("CHAINLOOP_INTEGRATIONS_ORGANIZATION", "default"),
        ("PUSH_FILE", "attestation.json"),
        ("PUSH_BINARY", "chainloop"),
        ("PUSH_SHA256", sum),
    ];
    let all: BTreeMap<&str, &str> = usual.into_iter().chain(other.iter().copied()).collect();
    all.into_iter().collect()
}

#[test]
fn it_pushes_the_file_by_the_binary_that_was_named() {
    let runner = Runner::new("push");
    let sum = sha256(&runner.0.join("chainloop"));
    let (code, said) = runner.run(&variables(&sum, &[]));
    assert_eq!(code, 0, "{said}");
    let begin = [
        "https://attestations.example.org",
        "default",
        "attestation",
        "push",
        "--oidc",
    ];
    let file = ["--", "attestation.json"];
    assert_eq!(
        runner.words("called").unwrap(),
        [&begin[..], &file].concat()
    );
    let more = [
        ("PUSH_WORKFLOW", "nightly"),
        ("PUSH_PROJECT", "shop"),
        ("PUSH_WAIT", "true"),
        ("PUSH_BINARY", "https://downloads.example.org/chainloop"),
    ];
    let (code, said) = runner.run(&variables(&sum, &more));
    assert_eq!(code, 0, "{said}");
    let options = ["--workflow=nightly", "--project=shop", "--wait"];
    assert_eq!(
        runner.words("called").unwrap(),
        [&begin[..], &options, &file].concat()
    );
    let fetched = runner.words("fetched").unwrap();
    assert_eq!(
        fetched.last().unwrap(),
        "https://downloads.example.org/chainloop"
    );
    let https_alone = ["--proto", "=https"];
    assert!(
        fetched.windows(2).any(|two| two == https_alone),
        "{fetched:?}"
    );
}

#[test]
fn what_a_shell_would_run_is_text() {
    let runner = Runner::new("text");
    let sum = sha256(&runner.0.join("chainloop"));
    for hostile in [
        "$(touch pwned)",
        "`touch pwned`",
        "; touch pwned #",
        "\"; touch pwned; \"",
        "'; touch pwned; '",
        "a\ntouch pwned",
        "${IFS}touch${IFS}pwned",
        "--url=https://evil.example.org",
        "* ? [a]",
    ] {
        let texts = [
            "CHAINLOOP_INTEGRATIONS_URL",
            "CHAINLOOP_INTEGRATIONS_ORGANIZATION",
            "PUSH_FILE",
            "PUSH_WORKFLOW",
            "PUSH_PROJECT",
        ];
        let (code, said) = runner.run(&variables(&sum, &texts.map(|name| (name, hostile))));
        assert_eq!(code, 0, "{hostile}: {said}");
        let [workflow, project] = ["workflow", "project"].map(|name| format!("--{name}={hostile}"));
        let words = [
            hostile,
            hostile,
            "attestation",
            "push",
            "--oidc",
            &workflow,
            &project,
            "--",
            hostile,
        ];
        assert_eq!(runner.words("called").unwrap(), words);
        for name in ["PUSH_BINARY", "PUSH_SHA256", "PUSH_WAIT"] {
            let (code, _) = runner.run(&variables(&sum, &[(name, hostile)]));
            assert_ne!(code, 0, "{name}: {hostile}");
        }
        assert!(!runner.0.join("pwned").exists(), "{hostile}");
    }
}

#[test]
fn what_is_missing_or_another_binary_runs_nothing() {
    let runner = Runner::new("refused");
    let sum = sha256(&runner.0.join("chainloop"));
    let other = Digest::of(b"another").hex();
    let upper = sum.to_uppercase();
    for (variable, value, says) in [
        ("CHAINLOOP_INTEGRATIONS_URL", "", "the input url is missing"),
        (
            "CHAINLOOP_INTEGRATIONS_ORGANIZATION",
            "",
            "the input organization is missing",
        ),
        ("PUSH_FILE", "", "the input file is missing"),
        ("PUSH_BINARY", "", "the input binary is missing"),
        ("PUSH_SHA256", "", "the input sha256 is missing"),
        ("PUSH_SHA256", &other, "and not that of the input sha256"),
        ("PUSH_SHA256", &upper, "and not that of the input sha256"),
        (
            "PUSH_BINARY",
            "bin/curl",
            "and not that of the input sha256",
        ),
        (
            "PUSH_BINARY",
            "http://downloads.example.org/x",
            "a path or an https URL",
        ),
        ("PUSH_BINARY", "file:///bin/sh", "a path or an https URL"),
        ("PUSH_WAIT", "yes", "must be true or false"),
    ] {
        let mut all = variables(&sum, &[(variable, value)]);
        let (code, said) = runner.run(&all);
        assert!(code == 2 && said.contains(says), "{variable} {code} {said}");
        if value.is_empty() {
            all.retain(|(name, _)| *name != variable);
            let (code, said) = runner.run(&all);
            assert!(code == 2 && said.contains(says), "{variable} {code} {said}");
        }
    }
    let absent = [("PUSH_BINARY", "absent")];
    assert_ne!(runner.run(&variables(&sum, &absent)).0, 0);
    assert_eq!(runner.words("called"), None);
    assert_eq!(runner.words("fetched"), None);
}

#[test]
fn it_ends_as_the_command_line_ends() {
    let runner = Runner::new("ends");
    let failing = "#!/bin/sh\nexit 7\n";
    fs::write(runner.0.join("chainloop"), failing).unwrap();
    let sum = sha256(&runner.0.join("chainloop"));
    assert_eq!(runner.run(&variables(&sum, &[])).0, 7);
}
