//! An operator at the `chainloop` command, in front of the stack that is deployed on the local cloud.
//!
//! `make test` starts that cloud, and names it in `CHAINLOOP_INTEGRATIONS_URL`. Without it they fail: what is
//! not tried is not shown.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// An SBOM that every third party that looks at one accepts.
pub const SBOM: &[u8] = br#"{"bomFormat":"CycloneDX","specVersion":"1.5","version":1,"metadata":{"component":{"type":"application","name":"shop","version":"2.4.0"}},"components":[]}"#;

/// One walk: a registration, an attachment and attestations, under names of its own.
pub struct Operator {
    /// Name of the registration and of the workflow.
    pub name: String,
    directory: PathBuf,
}

impl Operator {
    pub fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("peers-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self {
            name: name.to_owned(),
            directory,
        }
    }

    pub fn workflow(&self) -> String {
        format!("peers/{}", self.name)
    }

    /// Registers the integration under this walk's name.
    pub fn register(&self, integration: &str, options: &[&str]) -> Value {
        ask(&self.registering(integration, options))
    }

    /// Returns the output of the command, which must refuse to register.
    pub fn register_in_vain(&self, integration: &str, options: &[&str]) -> String {
        fail(&self.registering(integration, options))
    }

    fn registering(&self, integration: &str, options: &[&str]) -> Vec<String> {
        let mut words = words("integration registered add");
        words.push(integration.to_owned());
        words.extend(["--name".to_owned(), self.name.clone()]);
        words.extend(opts(options));
        words
    }

    /// Attaches it to this walk's workflow.
    pub fn attach(&self, options: &[&str]) -> Value {
        ask(&self.attaching(options))
    }

    /// Returns the output of the command, which must refuse to attach.
    pub fn attach_in_vain(&self, options: &[&str]) -> String {
        fail(&self.attaching(options))
    }

    fn attaching(&self, options: &[&str]) -> Vec<String> {
        let mut words = words("integration attached add --workflow");
        words.extend([self.workflow(), "--integration".to_owned()]);
        words.push(self.name.clone());
        words.extend(opts(options));
        words
    }

    /// An attestation over [`SBOM`], in a file. `options` go to `attestation craft`.
    pub fn craft(&self, options: &[&str]) -> PathBuf {
        let sbom = self.directory.join("sbom.cdx.json");
        std::fs::write(&sbom, SBOM).unwrap();
        let file = self.directory.join(format!("{}.json", unique()));
        let mut words = words("attestation craft --project peers --workflow");
        words.push(self.name.clone());
        let material = format!("sbom=SBOM_CYCLONEDX_JSON:{}", sbom.display());
        words.extend(["--material".to_owned(), material]);
        words.extend(options.iter().map(|&option| option.to_owned()));
        words.push(file.display().to_string());
        let output = chainloop(&words);
        assert!(output.status.success(), "{}", said(&output));
        file
    }

    /// Pushes it with its SBOM, waits for what becomes of it, and gives its one delivery, whole.
    pub fn push(&self, attestation: &Path) -> Value {
        let sbom = self.directory.join("sbom.cdx.json");
        let mut words = words("attestation push --wait --timeout 120");
        words.push(attestation.display().to_string());
        words.extend(["--material".to_owned(), format!("sbom={}", sbom.display())]);
        words.extend(["-o".to_owned(), "json".to_owned()]);
        let output = chainloop(&words);
        let pushed: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("chainloop {}: {}", words.join(" "), said(&output)));
        let id = pushed["deliveries"][0]["id"].as_str().unwrap().to_owned();
        self.delivery(&id)
    }

    /// A delivery and its attempts, as they are now.
    pub fn delivery(&self, id: &str) -> Value {
        let mut words = words("delivery describe");
        words.push(id.to_owned());
        let described = ask(&words);
        match described {
            Value::Array(mut list) => list.remove(0),
            one => one,
        }
    }

    /// Crafts, pushes, and expects it to be delivered; gives the receipt.
    pub fn deliver(&self, options: &[&str]) -> Value {
        let delivery = self.push(&self.craft(options));
        assert_eq!(delivery["state"], "delivered", "{delivery:#}");
        delivery["receipt"].clone()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn unique() -> usize {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn opts(options: &[&str]) -> impl Iterator<Item = String> {
    options
        .iter()
        .flat_map(|option| ["--opt".to_owned(), (*option).to_owned()])
}

/// A variable that `make test` sets.
fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test`"))
}

fn chainloop(words: &[String]) -> Output {
    given("CHAINLOOP_INTEGRATIONS_URL");
    Command::new(given("CHAINLOOP"))
        .args(words)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs `chainloop`, which must succeed, and reads what it says as JSON.
fn ask(words: &[String]) -> Value {
    let json = ["-o", "json", "-y"].map(str::to_owned);
    let output = chainloop(&[words, &json].concat());
    assert!(
        output.status.success(),
        "chainloop {}: {}",
        words.join(" "),
        said(&output)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs `chainloop`, which must fail, and gives what it says.
fn fail(words: &[String]) -> String {
    let output = chainloop(words);
    assert!(
        !output.status.success(),
        "chainloop {} did not fail",
        words.join(" ")
    );
    said(&output)
}
