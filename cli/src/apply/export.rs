//! `chainloop export`: prints the current state as a file that `chainloop apply` finds no changes in.

use std::collections::BTreeMap;

use api::trust::{Mode, Signer};
use serde::Serialize;
use serde_json::{Map, Value};

use super::secret::Source;
use super::state::{self, Attached, Registered};
use super::{file, policy};
use crate::client::Client;
use crate::global::Global;
use crate::output::{self, Format};

pub(crate) const HELP: &str = "\
The file contains no secrets: it names an environment variable for each, which `chainloop apply` would read.

Example:
  chainloop export > integrations.yaml
  chainloop apply -f integrations.yaml --dry-run";

#[derive(Serialize)]
struct File {
    registrations: Vec<Registration>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trust_policies: Vec<TrustPolicy>,
}

#[derive(Serialize)]
struct TrustPolicy {
    name: String,
    workflow: String,
    mode: Mode,
    threshold: usize,
    signers: Vec<Signer>,
}

#[derive(Serialize)]
struct Registration {
    name: String,
    integration: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    inputs: Map<String, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<String, Source>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<Attachment>,
}

#[derive(PartialEq, Serialize)]
struct Attachment {
    workflow: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    inputs: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_secs: Option<u64>,
}

pub(crate) fn export(global: &Global) -> anyhow::Result<()> {
    let client = Client::new(global)?;
    let registrations = state::read(&client)?.into_iter().map(Registration::from);
    let policies = state::policies(&client)?.into_iter().map(TrustPolicy::from);
    let file = File {
        registrations: registrations.collect(),
        trust_policies: policies.collect(),
    };
    match global.output {
        Format::Json => output::json(&file)?,
        Format::Table => output::bytes(yaml(&file)?.as_bytes())?,
    }
    Ok(())
}

fn yaml(file: &File) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(file)?)
}

/// Returns the content of a file as this command writes it.
pub(super) fn written(wanted: file::Wanted) -> String {
    let registrations = wanted.registrations.into_iter().flatten();
    let policies = wanted.policies.into_iter().flatten();
    let file = File {
        registrations: registrations.map(Registration::from).collect(),
        trust_policies: policies.map(TrustPolicy::from).collect(),
    };
    yaml(&file).expect("texts and numbers are YAML")
}

impl From<policy::Wanted> for TrustPolicy {
    fn from(read: policy::Wanted) -> Self {
        Self {
            name: read.name,
            workflow: read.workflow,
            mode: read.policy.mode,
            threshold: read.policy.threshold,
            signers: read.policy.signers,
        }
    }
}

impl From<file::Registration> for Registration {
    fn from(read: file::Registration) -> Self {
        Self {
            name: read.name,
            integration: read.integration,
            description: read.description,
            inputs: read.inputs,
            secrets: read.secrets,
            attachments: read.attachments.into_iter().map(Attachment::from).collect(),
        }
    }
}

impl From<file::Attachment> for Attachment {
    fn from(read: file::Attachment) -> Self {
        Self {
            workflow: read.workflow,
            inputs: read.inputs,
            wait_secs: read.wait_secs,
        }
    }
}

impl From<Registered> for Registration {
    fn from(there: Registered) -> Self {
        let secrets = there.secrets.keys();
        let secrets =
            secrets.map(|secret| (secret.clone(), Source::Env(variable(&there.name, secret))));
        let mut attachments: Vec<Attachment> = Vec::new();
        for attachment in there.attachments.into_iter().map(Attachment::from) {
            // A file has each once.
            if !attachments.contains(&attachment) {
                attachments.push(attachment);
            }
        }
        Self {
            secrets: secrets.collect(),
            name: there.name,
            integration: there.integration,
            description: there.description,
            inputs: there.config,
            attachments,
        }
    }
}

impl From<api::trust::TrustPolicy> for TrustPolicy {
    fn from(there: api::trust::TrustPolicy) -> Self {
        Self {
            name: there.name,
            workflow: there.workflow,
            mode: there.mode,
            threshold: there.threshold,
            signers: there.signers,
        }
    }
}

impl From<Attached> for Attachment {
    fn from(there: Attached) -> Self {
        Self {
            workflow: there.workflow,
            inputs: there.config,
            wait_secs: there.wait_secs,
        }
    }
}

/// `PROD_IMAGES_PASSWORD`: what a shell takes.
fn variable(registration: &str, secret: &str) -> String {
    let name = format!("{registration}_{secret}").to_ascii_uppercase();
    let name: String = name
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '_'
            }
        })
        .collect();
    match name.starts_with(|letter: char| letter.is_ascii_digit()) {
        true => format!("_{name}"),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::file::{Text, read};
    use super::super::plan::tests::there;
    use super::super::plan::{Wishes, plan};
    use super::super::state::tests::attached;
    use super::*;

    fn file(there: &[Registered]) -> File {
        let registrations = there.iter().cloned().map(Registration::from).collect();
        File {
            registrations,
            trust_policies: Vec::new(),
        }
    }

    fn read_again(text: String) -> Vec<super::super::file::Registration> {
        let (name, directory) = ("export".to_owned(), PathBuf::new());
        read(&[Text {
            name,
            directory,
            content: text,
        }])
        .unwrap()
        .registrations
        .unwrap()
    }

    proptest! {
        #[test]
        fn what_is_exported_and_applied_changes_nothing(there in there()) {
            let file = file(&there);
            for text in [yaml(&file).unwrap(), serde_json::to_string(&file).unwrap()] {
                let plan = plan(&read_again(text), &there, &[], &Wishes { prune: true, ..Wishes::default() }).unwrap();
                prop_assert!(plan.steps.is_empty(), "{:?}", plan.steps);
            }
        }

        #[test]
        fn any_text_survives(text in "\\PC{0,40}|[ \\n\\t:#'\"&*!|>%@`~-]{0,8}|[0-9_.eExXo+-]{1,6}|true|no|null|\\.inf") {
            let input = Map::from_iter([("text".to_owned(), json!(text))]);
            let file = File { registrations: vec![Registration {
                name: "a".into(), integration: "b".into(), description: text.clone(), inputs: input.clone(),
                secrets: BTreeMap::new(), attachments: Vec::new(),
            }], trust_policies: Vec::new() };
            let read = read_again(yaml(&file).unwrap());
            prop_assert_eq!(&read[0].inputs, &input);
            prop_assert_eq!(&read[0].description, &text);
        }
    }

    #[test]
    fn what_is_attached_twice_is_exported_once_and_can_be_applied() {
        let there = ["a-1", "a-2"].map(|id| attached(id, "shop/a", Map::new(), None));
        let hook = json!({ "id": "r-1", "name": "hook", "integration": "webhook", "etag": "e" });
        let there = [Registered {
            attachments: there.to_vec(),
            ..serde_json::from_value(hook).unwrap()
        }];
        let read = read_again(yaml(&file(&there)).unwrap());
        assert_eq!(read[0].attachments.len(), 1);
        let plan = plan(&read, &there, &[], &Wishes::default()).unwrap();
        assert!(plan.steps.is_empty(), "{:?}", plan.steps);
    }

    #[test]
    fn a_secret_is_a_variable_that_a_shell_takes() {
        assert_eq!(variable("prod-images", "password"), "PROD_IMAGES_PASSWORD");
        assert_eq!(variable("2nd", "url"), "_2ND_URL");
    }
}
