//! Registrations, attachments and trust policies that the files describe, or all faults in them, each with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use api::trust::{Policy, Signer};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::node::{self, Content, Node, Place};
use super::policy;
use super::secret::{Arn, Source};

/// Content of all files. What no file speaks of is none, and left as it is.
#[derive(Debug)]
pub(super) struct Wanted {
    pub registrations: Option<Vec<Registration>>,
    pub policies: Option<Vec<policy::Wanted>>,
}

/// Text and name of one file.
pub(super) struct Text {
    pub name: String,
    /// Directory that the paths in the file are relative to.
    pub directory: PathBuf,
    pub content: String,
}

#[derive(Debug, Clone)]
pub(super) struct Registration {
    pub name: String,
    pub integration: String,
    pub description: String,
    /// Inputs that are not secrets.
    pub inputs: Map<String, Value>,
    pub secrets: BTreeMap<String, Source>,
    pub attachments: Vec<Attachment>,
    pub places: Places,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attachment {
    /// An id, `project/name`, `project/*`, or `*`.
    pub workflow: String,
    pub inputs: Map<String, Value>,
    pub wait_secs: Option<u64>,
}

/// Positions of a registration's parts in its file.
#[derive(Debug, Clone)]
pub(super) struct Places {
    file: Rc<str>,
    /// `registrations[0]`.
    path: String,
    of: Rc<BTreeMap<String, Place>>,
}

impl Places {
    /// A fault of a part, as in `inputs.port`; of the nearest around it that is written.
    pub(super) fn fault(&self, part: &str, text: &str) -> String {
        let path = match part {
            "" => self.path.clone(),
            part => format!("{}.{part}", self.path),
        };
        let mut around = path.as_str();
        let place = loop {
            if let Some(place) = self.of.get(around) {
                break *place;
            }
            match around.rfind(['.', '[']) {
                Some(end) => around = &around[..end],
                None => break Place { line: 1, column: 1 },
            }
        };
        told(&self.file, place, &path, text)
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self {
            file: "test.yaml".into(),
            path: "registrations[0]".into(),
            of: Rc::default(),
        }
    }
}

fn told(file: &str, place: Place, path: &str, text: &str) -> String {
    let colon = if path.is_empty() { "" } else { ": " };
    format!(
        "{file}:{}:{}: {path}{colon}{text}",
        place.line, place.column
    )
}

/// Reads all files as one.
pub(super) fn read(texts: &[Text]) -> Result<Wanted, Vec<String>> {
    let mut faults = Vec::new();
    let mut registrations: Option<Vec<Registration>> = None;
    let mut policies: Option<Vec<policy::Wanted>> = None;
    for text in texts {
        match node::parse(&text.content) {
            Ok(node) => {
                let mut reading = Reading {
                    text,
                    faults: Vec::new(),
                    places: BTreeMap::new(),
                };
                let read = reading.file(node);
                let (file, of) = (Rc::from(text.name.as_str()), Rc::new(reading.places));
                reading.faults.sort_by_key(|(place, _)| *place);
                faults.extend(reading.faults.into_iter().map(|(_, text)| text));
                let places = |list: &str, index: usize| Places {
                    file: Rc::clone(&file),
                    path: format!("{list}[{index}]"),
                    of: Rc::clone(&of),
                };
                if let Some(read) = read.registrations {
                    let read = read.into_iter();
                    let read =
                        read.map(|(index, one)| one.standing(places("registrations", index)));
                    registrations.get_or_insert_default().extend(read);
                }
                if let Some(read) = read.policies {
                    let read = read.into_iter().map(|(index, one)| policy::Wanted {
                        name: one.name,
                        workflow: one.workflow,
                        policy: one.policy,
                        places: places("trust_policies", index),
                    });
                    policies.get_or_insert_default().extend(read);
                }
            }
            Err((place, why)) => {
                let place = place.unwrap_or(Place { line: 1, column: 1 });
                faults.push(told(&text.name, place, "", &why));
            }
        }
    }
    let of_registrations = registrations.iter().flatten();
    let of_registrations = of_registrations.map(|one| (one.name.as_str(), &one.places));
    faults.extend(twice("name", "registration", of_registrations));
    let of_policies = || policies.iter().flatten();
    let names = of_policies().map(|one| (one.name.as_str(), &one.places));
    faults.extend(twice("name", "trust policy", names));
    let workflows = of_policies().map(|one| (one.workflow.as_str(), &one.places));
    faults.extend(twice("workflow", "trust policy", workflows));
    match faults.is_empty() {
        true => Ok(Wanted {
            registrations,
            policies,
        }),
        false => Err(faults),
    }
}

/// Faults of those whose `part` another has too.
fn twice<'a>(
    part: &str,
    what: &str,
    all: impl Iterator<Item = (&'a str, &'a Places)>,
) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let again = all.filter(|(text, _)| !text.is_empty() && !seen.insert(*text));
    again
        .map(|(text, places)| {
            places.fault(part, &format!("{text:?} is already used by another {what}"))
        })
        .collect()
}

/// Content of one file, each with its index, before their places are known.
struct Said {
    registrations: Option<Vec<(usize, Draft)>>,
    policies: Option<Vec<(usize, PolicyDraft)>>,
}

/// A trust policy before its places are known.
struct PolicyDraft {
    name: String,
    workflow: String,
    policy: Policy,
}

/// A registration before its places are known.
struct Draft {
    name: String,
    integration: String,
    description: String,
    inputs: Map<String, Value>,
    secrets: BTreeMap<String, Source>,
    attachments: Vec<Attachment>,
}

impl Draft {
    fn standing(self, places: Places) -> Registration {
        Registration {
            name: self.name,
            integration: self.integration,
            description: self.description,
            inputs: self.inputs,
            secrets: self.secrets,
            attachments: self.attachments,
            places,
        }
    }
}

struct Reading<'a> {
    text: &'a Text,
    faults: Vec<(Place, String)>,
    places: BTreeMap<String, Place>,
}

impl Reading<'_> {
    fn fault(&mut self, place: Place, path: &str, text: &str) {
        let text = told(&self.text.name, place, path, text);
        self.faults.push((place, text));
    }

    fn file(&mut self, node: Node) -> Said {
        let mut fields = self.fields(node, "", &["registrations", "trust_policies"]);
        let policies = fields.of.remove("trust_policies");
        let registrations = match policies {
            None => self.required(&mut fields, "", "registrations"),
            Some(_) => fields.of.remove("registrations"),
        };
        let registrations = registrations.map(|node| {
            let nodes = self.list(node, "registrations").into_iter().enumerate();
            nodes
                .map(|(index, node)| (index, self.registration(node, index)))
                .collect()
        });
        let policies = policies.map(|node| {
            let nodes = self.list(node, "trust_policies").into_iter().enumerate();
            let drafts = nodes.filter_map(|(index, node)| Some((index, self.policy(node, index)?)));
            drafts.collect()
        });
        Said {
            registrations,
            policies,
        }
    }

    /// A name, checked.
    fn name(&mut self, fields: &mut Fields, path: &str) -> String {
        let name = self.required(fields, path, "name");
        let of_name = format!("{path}.name");
        let name = self.text(name, &of_name);
        let fault = api::names::name_fault(&name).filter(|_| !name.is_empty());
        if let Some(fault) = fault {
            self.fault(self.places[&of_name], &of_name, &fault.detail);
        }
        name
    }

    /// A selector, in its usual form; none where it is missing or wrong, and that is told.
    fn workflow(&mut self, fields: &mut Fields, path: &str) -> Option<String> {
        let workflow = self.required(fields, path, "workflow");
        let of_workflow = format!("{path}.workflow");
        let workflow = self.text(workflow, &of_workflow);
        if workflow.is_empty() {
            return None;
        }
        let selector = api::workflows::selector(&workflow, None);
        if selector.is_err() {
            let text = "must be an ID, project/name, project/* or *";
            self.fault(self.places[&of_workflow], &of_workflow, text);
        }
        selector.ok().map(|selector| selector.0)
    }

    fn policy(&mut self, node: Node, index: usize) -> Option<PolicyDraft> {
        let path = format!("trust_policies[{index}]");
        let known = ["name", "workflow", "mode", "threshold", "signers"];
        let mut fields = self.fields(node, &path, &known);
        let name = self.name(&mut fields, &path);
        let workflow = self.workflow(&mut fields, &path);
        let mode = self.required(&mut fields, &path, "mode");
        let mode = self.value(mode, &format!("{path}.mode"));
        let threshold = match fields.of.remove("threshold") {
            None => Some(1),
            node => self.value(node, &format!("{path}.threshold")),
        };
        let signers = match fields.of.remove("signers") {
            None => Vec::new(),
            Some(node) => self.list(node, &format!("{path}.signers")),
        };
        let signers: Vec<Option<Signer>> = signers
            .into_iter()
            .enumerate()
            .map(|(index, node)| self.signer(node, &format!("{path}.signers[{index}]")))
            .collect();
        Some(PolicyDraft {
            name,
            workflow: workflow?,
            policy: Policy {
                mode: mode?,
                threshold: threshold?,
                signers: signers.into_iter().collect::<Option<_>>()?,
            },
        })
    }

    /// Reads a signer. What stands in its place is not quoted: it may be a key.
    fn signer(&mut self, node: Node, path: &str) -> Option<Signer> {
        if matches!(node.content, Content::Map(_)) {
            return self.value(Some(node), path);
        }
        let text = format!("must be a mapping, but is {}", node.kind());
        self.fault(node.place, path, &text);
        None
    }

    /// Reads a part of a trust policy, in which there are no secrets. None where it is missing or wrong.
    fn value<T: DeserializeOwned>(&mut self, node: Option<Node>, path: &str) -> Option<T> {
        let node = node?;
        let place = node.place;
        let mut value = node.json();
        let read = policy::with_files(&mut value, &self.text.directory)
            .and_then(|()| serde_json::from_value(value).map_err(|error| error.to_string()));
        read.map_err(|text| self.fault(place, path, &text)).ok()
    }

    fn registration(&mut self, node: Node, index: usize) -> Draft {
        let path = format!("registrations[{index}]");
        let known = [
            "name",
            "integration",
            "description",
            "inputs",
            "secrets",
            "attachments",
        ];
        let mut fields = self.fields(node, &path, &known);
        let name = self.name(&mut fields, &path);
        let integration = self.required(&mut fields, &path, "integration");
        let integration = self.text(integration, &format!("{path}.integration"));
        let description = fields.of.remove("description");
        let description = self.text(description, &format!("{path}.description"));
        let inputs = fields.of.remove("inputs");
        let inputs = self.inputs(inputs, &format!("{path}.inputs"));
        let secrets = fields.of.remove("secrets");
        let secrets = self.secrets(secrets, &format!("{path}.secrets"));
        let attachments = match fields.of.remove("attachments") {
            Some(node) => self.list(node, &format!("{path}.attachments")),
            None => Vec::new(),
        };
        let mut different = Vec::new();
        let mut seen = BTreeSet::new();
        for (index, node) in attachments.into_iter().enumerate() {
            let (place, path) = (node.place, format!("{path}.attachments[{index}]"));
            let Some(attachment) = self.attachment(node, &path) else {
                continue;
            };
            if seen.insert(format!("{attachment:?}")) {
                different.push(attachment);
            } else {
                let text = "is a duplicate, with the same workflow and the same inputs";
                self.fault(place, &path, text);
            }
        }
        Draft {
            name,
            integration,
            description,
            inputs,
            secrets,
            attachments: different,
        }
    }

    fn attachment(&mut self, node: Node, path: &str) -> Option<Attachment> {
        let mut fields = self.fields(node, path, &["workflow", "inputs", "wait_secs"]);
        let workflow = self.workflow(&mut fields, path);
        let inputs = fields.of.remove("inputs");
        let inputs = self.inputs(inputs, &format!("{path}.inputs"));
        let wait_secs = fields.of.remove("wait_secs").and_then(|node| {
            let secs = match &node.content {
                Content::Number(number) => number.as_u64(),
                _ => None,
            };
            let secs = secs.filter(|secs| *secs <= api::attachments::LONGEST_WAIT_SECS);
            if secs.is_none() {
                let text = "must be a number of seconds, 0 to 86400";
                self.fault(node.place, &format!("{path}.wait_secs"), text);
            }
            secs
        });
        Some(Attachment {
            workflow: workflow?,
            inputs,
            wait_secs,
        })
    }

    fn inputs(&mut self, node: Option<Node>, path: &str) -> Map<String, Value> {
        let Some(node) = node else { return Map::new() };
        let fields = self.mapping(node, path);
        let mut inputs = Map::new();
        for (name, node) in fields {
            if matches!(node.content, Content::Null) {
                let text = "has no value: leave it out, or write \"\"";
                self.fault(node.place, &format!("{path}.{name}"), text);
            }
            inputs.insert(name, node.json());
        }
        inputs
    }

    fn secrets(&mut self, node: Option<Node>, path: &str) -> BTreeMap<String, Source> {
        let Some(node) = node else {
            return BTreeMap::new();
        };
        let mut secrets = BTreeMap::new();
        for (name, node) in self.mapping(node, path) {
            let (place, path) = (node.place, format!("{path}.{name}"));
            match source(node, &self.text.directory) {
                Ok(source) => {
                    secrets.insert(name, source);
                }
                Err(text) => self.fault(place, &path, &text),
            }
        }
        secrets
    }

    fn text(&mut self, node: Option<Node>, path: &str) -> String {
        match node {
            None => String::new(),
            Some(Node {
                content: Content::Text(text),
                ..
            }) => text,
            Some(node) => {
                let text = format!("must be a string, but is {}", node.kind());
                self.fault(node.place, path, &text);
                String::new()
            }
        }
    }

    fn list(&mut self, node: Node, path: &str) -> Vec<Node> {
        match node.content {
            Content::List(nodes) => nodes,
            _ => {
                let text = format!("must be a list, but is {}", node.kind());
                self.fault(node.place, path, &text);
                Vec::new()
            }
        }
    }

    /// A mapping's entries, each name once, and where they stand.
    fn mapping(&mut self, node: Node, path: &str) -> BTreeMap<String, Node> {
        // A name's own place is there already.
        let place = self.places.entry(path.to_owned());
        place.or_insert(node.place);
        let Content::Map(entries) = node.content else {
            let text = format!("must be a mapping, but is {}", node.kind());
            self.fault(node.place, path, &text);
            return BTreeMap::new();
        };
        let mut fields = BTreeMap::new();
        for (name, node) in entries {
            let path = within(path, &name.text);
            if fields.contains_key(&name.text) {
                self.fault(name.place, &path, "appears twice");
                continue;
            }
            self.places.insert(path, name.place);
            fields.insert(name.text, node);
        }
        fields
    }

    fn fields(&mut self, node: Node, path: &str, known: &[&str]) -> Fields {
        let place = node.place;
        let is_map = matches!(node.content, Content::Map(_));
        let mut of = self.mapping(node, path);
        of.retain(|name, _| {
            let is_known = known.contains(&name.as_str());
            if !is_known {
                let path = within(path, name);
                let text = format!("is not known; expected {}", known.join(", "));
                self.fault(self.places[&path], &path, &text);
            }
            is_known
        });
        Fields { place, is_map, of }
    }

    fn required(&mut self, fields: &mut Fields, path: &str, name: &str) -> Option<Node> {
        let node = fields.of.remove(name);
        let is_empty = node
            .as_ref()
            .is_some_and(|node| matches!(&node.content, Content::Text(text) if text.is_empty()));
        if (node.is_none() || is_empty) && fields.is_map {
            self.fault(fields.place, &within(path, name), "is required");
        }
        node
    }
}

struct Fields {
    place: Place,
    /// True if the node is a mapping.
    is_map: bool,
    of: BTreeMap<String, Node>,
}

fn within(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

/// Parses the source of a secret; the error contains none of the node's text.
fn source(node: Node, directory: &Path) -> Result<Source, String> {
    let wrong =
        || Err("must be one of { env: NAME }, { file: PATH } and { secret: ARN }".to_owned());
    let Content::Map(mut entries) = node.content else {
        return wrong();
    };
    let (Some((name, node)), true) = (entries.pop(), entries.is_empty()) else {
        return wrong();
    };
    let Content::Text(text) = node.content else {
        return wrong();
    };
    match name.text.as_str() {
        _ if text.is_empty() => wrong(),
        "env" => Ok(Source::Env(text)),
        "file" => Ok(Source::File {
            path: directory.join(&text),
            written: text,
        }),
        "secret" => text.parse::<Arn>().map(Source::Secret).map_err(|()| {
            "must be the ARN of a secret in Secrets Manager, such as \
             arn:aws:secretsmanager:eu-central-1:123456789012:secret:name-a1b2c3, with #key after it for one \
             value of a JSON object"
                .to_owned()
        }),
        _ => wrong(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(texts: &[&str]) -> Vec<Text> {
        let names = ["a.yaml", "b.yaml"];
        let texts = names.iter().zip(texts);
        texts
            .map(|(name, text)| Text {
                name: (*name).to_owned(),
                directory: "there".into(),
                content: (*text).to_owned(),
            })
            .collect()
    }

    fn faults(files: &[&str]) -> Vec<String> {
        read(&texts(files)).unwrap_err()
    }

    const GOOD: &str = "\
registrations:
  - name: images
    integration: oci-registry
    description: Where images are
    inputs: { repository: registry.example.org/sboms, username: ci }
    secrets:
      password: { env: REGISTRY_PASSWORD }
      key: { file: key.pem }
      other: { secret: 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:x-a1b2c3#k' }
    attachments:
      - workflow: shop/release
        inputs: { prefix: custom }
        wait_secs: 60
      - workflow: '*'
  - name: hook
    integration: webhook
";

    #[test]
    fn a_file_is_read_with_all_that_it_says() {
        let read = read(&texts(&[GOOD])).unwrap();
        let [images, hook] = &read.registrations.unwrap()[..] else {
            panic!("two")
        };
        assert_eq!(images.description, "Where images are");
        assert_eq!(images.inputs["username"], "ci");
        let sources: Vec<String> = images.secrets.values().map(ToString::to_string).collect();
        assert_eq!(
            sources,
            [
                "file key.pem",
                "secret arn:aws:secretsmanager:eu-central-1:123456789012:secret:x-a1b2c3#k",
                "env REGISTRY_PASSWORD"
            ]
        );
        assert_eq!(images.attachments[0].inputs["prefix"], json!("custom"));
        assert_eq!(images.attachments[0].wait_secs, Some(60));
        assert_eq!(images.attachments[1].workflow, "*");
        assert!(hook.inputs.is_empty() && hook.attachments.is_empty());
        let fault = images.places.fault("inputs.username", "is wrong");
        assert_eq!(
            fault,
            "a.yaml:5:55: registrations[0].inputs.username: is wrong"
        );
        let fault = hook.places.fault("inputs.url", "is required");
        assert_eq!(
            fault,
            "a.yaml:15:5: registrations[1].inputs.url: is required"
        );
    }

    #[test]
    fn json_is_read_as_well() {
        let text = r#"{"registrations": [{"name": "a", "integration": "webhook"}]}"#;
        assert_eq!(
            read(&texts(&[text])).unwrap().registrations.unwrap()[0].name,
            "a"
        );
    }

    #[test]
    fn all_faults_are_told_at_once_with_their_places() {
        let text = "\
registrations:
  - nam: images
    name: Images
    integration: 5
    description: [x]
    inputs: { a: ~, b: 1, b: 2 }
    secrets: { password: canary, key: { env: A, file: canary }, url: { value: canary }, c: { secret: canary } }
    attachments:
      - workflow: release
        wait_secs: 86401
      - workflow: shop/a
        wait_secs: soon
      - {}
      - workflow: shop/b
      - workflow: shop/b
  - 7
other: 1
";
        let told = faults(&[text, "registrations: {}"]);
        let wanted = [
            "a.yaml:2:5: registrations[0].nam: is not known; expected name, integration, description, inputs, \
             secrets, attachments",
            "a.yaml:3:5: registrations[0].name: must be 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end",
            "a.yaml:4:18: registrations[0].integration: must be a string, but is a number",
            "a.yaml:5:18: registrations[0].description: must be a string, but is a list",
            "a.yaml:6:18: registrations[0].inputs.a: has no value: leave it out, or write \"\"",
            "a.yaml:6:27: registrations[0].inputs.b: appears twice",
            "a.yaml:7:26: registrations[0].secrets.password: must be one of { env: NAME }, { file: PATH } and { \
             secret: ARN }",
            "a.yaml:7:39: registrations[0].secrets.key: must be one of { env: NAME }, { file: PATH } and { \
             secret: ARN }",
            "a.yaml:7:70: registrations[0].secrets.url: must be one of { env: NAME }, { file: PATH } and { \
             secret: ARN }",
            "a.yaml:7:92: registrations[0].secrets.c: must be the ARN of a secret in Secrets Manager, such as \
             arn:aws:secretsmanager:eu-central-1:123456789012:secret:name-a1b2c3, with #key after it for one \
             value of a JSON object",
            "a.yaml:9:9: registrations[0].attachments[0].workflow: must be an ID, project/name, project/* or *",
            "a.yaml:10:20: registrations[0].attachments[0].wait_secs: must be a number of seconds, 0 to 86400",
            "a.yaml:12:20: registrations[0].attachments[1].wait_secs: must be a number of seconds, 0 to 86400",
            "a.yaml:13:9: registrations[0].attachments[2].workflow: is required",
            "a.yaml:15:9: registrations[0].attachments[4]: is a duplicate, with the same workflow and the same \
             inputs",
            "a.yaml:16:5: registrations[1]: must be a mapping, but is a number",
            "a.yaml:17:1: other: is not known; expected registrations, trust_policies",
            "b.yaml:1:16: registrations: must be a list, but is a mapping",
        ];
        assert_eq!(told, wanted);
        assert!(!told.concat().contains("canary"), "{told:?}");
    }

    #[test]
    fn a_name_is_given_once_in_all_files() {
        let told = faults(&[GOOD, "registrations: [{ name: hook, integration: smtp }]"]);
        assert_eq!(
            told,
            [
                "b.yaml:1:19: registrations[0].name: \"hook\" is already used by another registration"
            ]
        );
    }

    #[test]
    fn a_file_without_registrations_is_no_empty_one() {
        for text in ["", "# nothing\n", "{}", "[]", "text"] {
            assert_eq!(faults(&[text]).len(), 1, "{text}");
        }
        let none = read(&texts(&["registrations: []"])).unwrap();
        assert!(none.registrations.unwrap().is_empty() && none.policies.is_none());
    }

    #[test]
    fn trust_policies_are_read_with_or_without_registrations() {
        let text = "\
trust_policies:
  - name: release
    workflow: shop/*
    mode: require
    signers:
      - { kind: key, name: release, pem: PEM }
      - kind: keyless
        name: ci
        issuer: https://issuer.example.org
        identity: { exact: dev@example.org }
";
        let read = read(&texts(&[text])).unwrap();
        assert!(read.registrations.is_none());
        let [release] = &read.policies.unwrap()[..] else {
            panic!("one")
        };
        assert_eq!(release.workflow, "shop/*");
        assert_eq!(release.policy.threshold, 1);
        let names: Vec<_> = release.policy.signers.iter().map(Signer::name).collect();
        assert_eq!(names, ["release", "ci"]);
    }

    #[test]
    fn faults_of_trust_policies_are_told_with_their_places() {
        let text = "\
trust_policies:
  - name: a
    workflow: shop
    mode: strict
    threshold: -1
    signers: [{ kind: key, name: x, pem: { file: absent.pub } }, { kind: word }, canary]
  - { name: b, workflow: '*', mode: off }
  - { name: b, workflow: '*', mode: off }
  - { name: c }
";
        let told = faults(&[text]);
        let begin = [
            "a.yaml:3:5: trust_policies[0].workflow: must be an ID, project/name, project/* or *",
            "a.yaml:4:11: trust_policies[0].mode: unknown variant `strict`",
            "a.yaml:5:16: trust_policies[0].threshold: ",
            "a.yaml:6:15: trust_policies[0].signers[0]: failed to read there/absent.pub: ",
            "a.yaml:6:66: trust_policies[0].signers[1]: unknown variant `word`",
            "a.yaml:6:82: trust_policies[0].signers[2]: must be a mapping, but is a string",
            "a.yaml:9:5: trust_policies[3].workflow: is required",
            "a.yaml:9:5: trust_policies[3].mode: is required",
            "a.yaml:8:7: trust_policies[2].name: \"b\" is already used by another trust policy",
            "a.yaml:8:16: trust_policies[2].workflow: \"*\" is already used by another trust policy",
        ];
        assert_eq!(told.len(), begin.len(), "{told:#?}");
        for text in begin {
            assert!(
                told.iter().any(|fault| fault.starts_with(text)),
                "{text}: {told:#?}"
            );
        }
    }
}
