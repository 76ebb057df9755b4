//! Trust policies: as files describe them, and the steps from those that exist.

use std::path::Path;

use api::trust::{Policy, Signer, TrustPolicy};
use serde_json::Value;

use super::file::Places;
use super::plan::{Change, Plan, Step};
use crate::trust::{Rule, pem_digest};

#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub name: String,
    /// An id, `project/name`, `project/*`, or `*`.
    pub workflow: String,
    pub policy: Policy,
    pub places: Places,
}

/// A step of a plan.
#[derive(Debug, Clone)]
pub(super) enum PolicyStep {
    Create(Wanted),
    Replace {
        there: TrustPolicy,
        wanted: Wanted,
        changes: Vec<Change>,
    },
    Delete(TrustPolicy),
}

/// Names of the members of a signer that hold PEM or JSON, which may stand in a file of their own.
const TEXTS: [&str; 4] = ["pem", "ca_pem", "timestamp_pem", "json"];

/// Puts the content of files in place of `{ file: PATH }`.
pub(super) fn with_files(value: &mut Value, directory: &Path) -> Result<(), String> {
    let members = match value {
        Value::Object(members) => members,
        Value::Array(items) => {
            return items
                .iter_mut()
                .try_for_each(|item| with_files(item, directory));
        }
        _ => return Ok(()),
    };
    for (name, value) in members {
        match value.get("file").and_then(Value::as_str) {
            Some(path) if TEXTS.contains(&name.as_str()) => {
                let path = directory.join(path);
                let file = std::fs::File::open(&path);
                let text = file
                    .and_then(super::text)
                    .map_err(|error| format!("failed to read {}: {error}", path.display()))?;
                *value = text.into();
            }
            _ => with_files(value, directory)?,
        }
    }
    Ok(())
}

impl Plan {
    /// Adds the steps to these policies: whose signatures count is settled before anything else, and what nobody wants any
    /// more goes last, except where its workflow is to have another.
    pub(super) fn trust(
        &mut self,
        wanted: &[Wanted],
        there: &[TrustPolicy],
        prune: bool,
    ) -> Result<(), Vec<String>> {
        let (mut first, mut last, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for policy in there {
            if wanted.iter().any(|one| one.name == policy.name) {
                continue;
            }
            let is_in_the_way = wanted.iter().any(|one| one.workflow == policy.workflow);
            let step = PolicyStep::Delete(policy.clone());
            match (prune, is_in_the_way) {
                (true, true) => first.push(step),
                (true, false) => last.push(step),
                (false, _) => self.others.trust_policies += 1,
            }
        }
        for wanted in wanted {
            match there.iter().find(|one| one.name == wanted.name) {
                None => first.push(PolicyStep::Create(wanted.clone())),
                Some(there) if there.workflow != wanted.workflow => {
                    let text = format!(
                        "is {:?} in the existing trust policy, which cannot be changed: choose another name",
                        there.workflow
                    );
                    faults.push(wanted.places.fault("workflow", &text));
                }
                Some(there) => {
                    let changes = changes(there, &wanted.policy);
                    if changes.is_empty() {
                        self.unchanged.trust_policies += 1;
                        continue;
                    }
                    first.push(PolicyStep::Replace {
                        there: there.clone(),
                        wanted: wanted.clone(),
                        changes,
                    });
                }
            }
        }
        self.steps.splice(..0, first.into_iter().map(Step::Trust));
        self.steps.extend(last.into_iter().map(Step::Trust));
        match faults.is_empty() {
            true => Ok(()),
            false => Err(faults),
        }
    }
}

/// Differences between a policy and what is wanted; the order of its signers is none.
fn changes(there: &TrustPolicy, wanted: &Policy) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut change = |field: &str, from: Option<Value>, to: Option<Value>| {
        changes.push(Change {
            field: field.to_owned(),
            from,
            to,
        });
    };
    let word = |mode| serde_json::to_value(mode).ok();
    if there.mode != wanted.mode {
        change("mode", word(there.mode), word(wanted.mode));
    }
    if there.threshold != wanted.threshold {
        let (from, to) = (there.threshold.into(), wanted.threshold.into());
        change("threshold", Some(from), Some(to));
    }
    let find = |signers: &[Signer], name: &str| -> Option<Signer> {
        signers.iter().find(|one| one.name() == name).cloned()
    };
    let told = |signer: Option<Signer>| signer.map(|signer| told(&signer).into());
    let mut names: Vec<&str> = there.signers.iter().map(Signer::name).collect();
    names.extend(wanted.signers.iter().map(Signer::name));
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (from, to) = (find(&there.signers, name), find(&wanted.signers, name));
        if from != to {
            change(&format!("signers.{name}"), told(from), told(to));
        }
    }
    changes
}

/// A signer in one line; a key by the beginning of its PEM's digest.
pub(super) fn told(signer: &Signer) -> String {
    match signer {
        Signer::Key { pem, .. } => format!("key, {}", pem_digest(pem)),
        Signer::Kms { arn, pem, .. } => format!("kms {arn}, {}", pem_digest(pem)),
        Signer::Keyless {
            issuer, identity, ..
        } => format!("keyless {issuer} {}", Rule(identity)),
        Signer::Chainloop {
            organization,
            ca_pem,
            ..
        } => format!("chainloop {organization}, {}", pem_digest(ca_pem)),
    }
}

#[cfg(test)]
mod tests {
    use api::trust::Mode;
    use serde_json::json;

    use super::*;

    fn key(name: &str, pem: &str) -> Signer {
        Signer::Key {
            name: name.into(),
            pem: pem.into(),
        }
    }

    fn wanted(name: &str, workflow: &str, signers: &[Signer]) -> Wanted {
        Wanted {
            name: name.into(),
            workflow: workflow.into(),
            policy: Policy {
                mode: Mode::Require,
                threshold: 1,
                signers: signers.to_vec(),
            },
            places: Places::none(),
        }
    }

    fn there(wanted: &Wanted) -> TrustPolicy {
        let Policy {
            mode,
            threshold,
            signers,
        } = wanted.policy.clone();
        TrustPolicy {
            id: "1".into(),
            name: wanted.name.clone(),
            workflow: wanted.workflow.clone(),
            mode,
            threshold,
            signers,
            created_by: "tests".into(),
            created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            etag: "e".into(),
        }
    }

    fn titles(wanted: &[Wanted], there: &[TrustPolicy], prune: bool) -> Vec<String> {
        let mut plan = Plan::default();
        plan.trust(wanted, there, prune).unwrap();
        plan.steps.iter().map(super::super::show::title).collect()
    }

    #[test]
    fn a_policy_is_created_replaced_left_or_deleted() {
        let (a, b) = (key("a", "A"), key("b", "B"));
        let old = wanted("release", "shop/*", &[a.clone(), b.clone()]);
        let exists = [there(&old)];
        // In another order they are the same.
        let same = wanted("release", "shop/*", &[b.clone(), a.clone()]);
        assert_eq!(titles(&[same], &exists, true), [""; 0]);
        let other = wanted("release", "shop/*", &[a.clone(), key("b", "C")]);
        assert_eq!(
            titles(&[other], &exists, true),
            [r#"~ trust policy "release" for shop/*"#]
        );
        let new = wanted("all", "*", std::slice::from_ref(&a));
        let created = r#"+ trust policy "all" for *"#;
        assert_eq!(
            titles(std::slice::from_ref(&new), &exists, false),
            [created]
        );
        assert_eq!(
            titles(&[new], &exists, true),
            [created, r#"- trust policy "release" for shop/*"#]
        );
        // Its workflow can have one alone.
        let renamed = wanted("next", "shop/*", &[a]);
        assert_eq!(
            titles(&[renamed], &exists, true),
            [
                r#"- trust policy "release" for shop/*"#,
                r#"+ trust policy "next" for shop/*"#
            ]
        );
    }

    #[test]
    fn a_policy_keeps_its_workflow() {
        let exists = there(&wanted("release", "shop/*", &[]));
        let mut plan = Plan::default();
        let faults = plan.trust(&[wanted("release", "*", &[])], &[exists], false);
        assert!(faults.unwrap_err()[0].contains(r#"is "shop/*" in the existing"#));
    }

    #[test]
    fn a_text_that_stands_in_a_file_is_read_from_there_and_nothing_else_is() {
        let directory = std::env::temp_dir();
        let name = format!("chainloop-policy-{}.pub", std::process::id());
        let path = directory.join(&name);
        std::fs::write(&path, "PEM").unwrap();
        let mut value = json!([{ "pem": { "file": name }, "name": { "file": name } }]);
        let read = with_files(&mut value, &directory);
        std::fs::remove_file(&path).unwrap();
        read.unwrap();
        assert_eq!(value, json!([{ "pem": "PEM", "name": { "file": name } }]));
        let mut absent = json!({ "ca_pem": { "file": name } });
        let fault = with_files(&mut absent, &directory).unwrap_err();
        assert!(fault.starts_with("failed to read "), "{fault}");
    }
}
