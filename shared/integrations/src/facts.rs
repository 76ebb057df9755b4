//! Facts about an attestation, for templates. [Filters](crate::filter) read the same attestation by keys of their own.
//!
//! An operator's template can read these facts and nothing else, and its text goes to third parties. So environment
//! variables and contents of materials are not facts. Facts for people contain no mail addresses either.

use std::collections::BTreeMap;

use api::trust::VerifiedSigner;
use attestation::{Attestation, Material, MaterialType, Predicate};
use serde_json::{Map, Value, json};

use crate::{Pushed, pushed, text};

/// Each fact's name, by the group that it stands in. `annotations` are whatever their author named them.
pub(crate) const NAMES: &[(&str, &[&str])] = &[
    (
        "workflow",
        &["id", "name", "project", "team", "version", "branch"],
    ),
    (
        "run",
        &["id", "url", "runner", "state", "started_at", "finished_at"],
    ),
    (
        "attestation",
        &["digest", "hash", "page", "predicate_type", "annotations"],
    ),
    (
        "material",
        &["name", "type", "filename", "value", "digest", "annotations"],
    ),
    ("materials", &[]),
    (
        "policy",
        &[
            "status",
            "evaluations",
            "violations",
            "passed",
            "skipped",
            "suppressed",
            "blocked",
            "bypassed",
        ],
    ),
    (
        "signature",
        &["outcome", "reason", "signer", "issuer", "identity"],
    ),
];

/// The facts about an attestation and, where one is looked at by itself, a material of it, as people are shown them.
pub fn facts(pushed: Pushed<'_>, material: Option<&Material>) -> Value {
    written(pushed, material, shown)
}

/// The same facts to the letter, for what is a key at the third party: one letter less is another's name.
pub(crate) fn exact(pushed: Pushed<'_>) -> Value {
    written(pushed, None, str::to_owned)
}

/// The facts about a material to the letter: `material` of [`exact`].
pub(crate) fn exact_material(material: &Material) -> Value {
    of_material(material, str::to_owned)
}

type Write = fn(&str) -> String;

fn written(pushed: Pushed<'_>, material: Option<&Material>, write: Write) -> Value {
    let Pushed {
        attestation,
        workflow,
        ..
    } = pushed;
    let signed = |of: fn(&VerifiedSigner) -> Option<&str>| {
        let all = pushed.signers().iter().filter_map(of);
        write(&all.collect::<Vec<_>>().join(", "))
    };
    let none = Predicate::default();
    let predicate = attestation.predicate().unwrap_or(&none);
    let (run, policy) = (&predicate.metadata, &predicate.policy);
    json!({
        "workflow": {
            "id": write(&workflow.id),
            "name": write(&workflow.name),
            "project": write(&workflow.project),
            "team": write(&run.team),
            "version": write(&run.project_version),
            "branch": write(branch(attestation)),
        },
        "run": {
            "id": write(&run.workflow_run_id),
            "url": write(&link(predicate)),
            "runner": write(&predicate.runner_type),
            "state": STATE,
            "started_at": write(&run.initialized_at),
            "finished_at": write(&run.finished_at),
        },
        "attestation": {
            "digest": attestation.received.to_string(),
            "hash": attestation.hash.to_string(),
            "page": pushed.page().unwrap_or_default(),
            "predicate_type": write(&attestation.statement.predicate_type),
            "annotations": annotations(&predicate.annotations, write),
        },
        "material": material.map(|material| of_material(material, write)),
        "materials": predicate.materials.iter().map(|material| of_material(material, write)).collect::<Vec<_>>(),
        "policy": {
            "status": policy.status().as_str(),
            "evaluations": policy.evaluations,
            "violations": policy.violations,
            "passed": policy.passed,
            "skipped": policy.skipped,
            "suppressed": policy.suppressed,
            "blocked": policy.blocked,
            "bypassed": policy.bypassed,
        },
        "signature": {
            "outcome": pushed.outcome(),
            "reason": pushed.verdict.map_or("", |verdict| &verdict.reason.sentence),
            "signer": signed(|signer| Some(&signer.name)),
            "issuer": signed(pushed::issuer),
            "identity": signed(pushed::identity),
        },
    })
}

/// Only runs that succeeded have an attestation.
pub(crate) const STATE: &str = "success";

fn of_material(material: &Material, write: Write) -> Value {
    // The value of a `STRING` is its content.
    let value = match material.kind == MaterialType::STRING {
        true => "",
        false => &material.value,
    };
    json!({
        "name": write(&material.name),
        "type": write(material.kind.as_str()),
        "filename": write(&material.filename),
        "value": write(value),
        "digest": material.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        "annotations": annotations(&material.annotations, write),
    })
}

fn annotations(annotations: &BTreeMap<String, String>, write: Write) -> Map<String, Value> {
    let written = |(key, value): (&String, &String)| (write(key), write(value).into());
    annotations.iter().map(written).collect()
}

fn shown(text: &str) -> String {
    text::without_addresses(&text::visible(text)).into_owned()
}

/// Returns the URL of the run if it is a web page, else an empty text.
pub(crate) fn link(predicate: &Predicate) -> String {
    /// Longer ones are refused by those whom notifications go to.
    const MAX_BYTES: usize = 2_000;
    api::inputs::web_url(&predicate.runner_url)
        .map(String::from)
        .ok()
        .filter(|url| url.len() <= MAX_BYTES)
        .unwrap_or_default()
}

/// Environment variables in which CI systems name what they build, the more exact first.
const BRANCHES: &[&str] = &[
    "GITHUB_HEAD_REF",
    "GITHUB_REF_NAME",
    "GITHUB_REF",
    "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME",
    "CI_COMMIT_BRANCH",
    "CI_COMMIT_REF_NAME",
    "SYSTEM_PULLREQUEST_SOURCEBRANCH",
    "BUILD_SOURCEBRANCH",
    "BUILD_SOURCEBRANCHNAME",
    "CHANGE_BRANCH",
    "BRANCH_NAME",
    "GIT_BRANCH",
    "CIRCLE_BRANCH",
    "BITBUCKET_BRANCH",
    "BUILDKITE_BRANCH",
    "DRONE_BRANCH",
    "TRAVIS_BRANCH",
];

/// The branch that was built: as the CI system says, else as an annotation `branch` does, else empty.
pub(crate) fn branch(attestation: &Attestation) -> &str {
    let Some(predicate) = attestation.predicate() else {
        return "";
    };
    let env = |name: &str| predicate.env.get(name).map_or("", |value| value.trim());
    // Where a tag was built, the variables that name "the ref" name the tag.
    let tagged = |name: &str| match name {
        "GITHUB_REF_NAME" => {
            env("GITHUB_REF_TYPE") == "tag" || env("GITHUB_REF").starts_with("refs/tags/")
        }
        "CI_COMMIT_REF_NAME" => !env("CI_COMMIT_TAG").is_empty(),
        "BUILD_SOURCEBRANCHNAME" => env("BUILD_SOURCEBRANCH").starts_with("refs/tags/"),
        _ => false,
    };
    let plain = |name: &str| {
        let value = env(name);
        let value = value.strip_prefix("refs/heads/").unwrap_or(value);
        match name {
            "GIT_BRANCH" => value.strip_prefix("origin/").unwrap_or(value),
            _ => value,
        }
    };
    BRANCHES
        .iter()
        .filter(|name| !tagged(name))
        .map(|name| plain(name))
        .find(|value| !value.is_empty() && !value.starts_with("refs/"))
        .or_else(|| predicate.annotations.get("branch").map(String::as_str))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use api::trust::Code;

    use super::*;
    use crate::fixture::{Stage, compare};

    const STATEMENT: &str = include_str!("../tests/files/statement.json");

    #[test]
    fn the_facts_are_these() {
        let stage = Stage::new();
        let sbom = &stage.attestation.materials()[2];
        let facts = facts(stage.pushed(), Some(sbom));
        compare(
            "facts.json",
            &(serde_json::to_string_pretty(&facts).unwrap() + "\n"),
        );
    }

    #[test]
    fn the_verdict_on_signatures_is_a_fact_and_people_are_told_no_address_of_a_signer() {
        let stage = Stage::new().judged(Code::ThresholdReached);
        let signature = |identity: &str| {
            json!({
                "outcome": "verified",
                "reason": "As many configured signers signed it as the policy asks for.",
                "signer": "release, ci",
                "issuer": "https://issuer.example.org",
                "identity": identity,
            })
        };
        let shown = facts(stage.pushed(), None);
        assert_eq!(shown["signature"], signature("…@example.org"));
        let exact = exact(stage.pushed());
        assert_eq!(exact["signature"], signature("dev@example.org"));
        let none = facts(Stage::new().pushed(), None);
        let nothing =
            json!({ "outcome": "off", "reason": "", "signer": "", "issuer": "", "identity": "" });
        assert_eq!(none["signature"], nothing);
    }

    #[test]
    fn every_fact_has_a_name_and_every_name_a_fact() {
        let stage = Stage::new();
        let sbom = stage.attestation.materials().last();
        let facts = facts(stage.pushed(), sbom);
        let sorted = |names: Vec<&str>| {
            let mut names: Vec<_> = names.into_iter().map(str::to_owned).collect();
            names.sort();
            names
        };
        let keys = |value: &Value| match value.as_object() {
            Some(object) => sorted(object.keys().map(String::as_str).collect()),
            None => Vec::new(),
        };
        let groups = NAMES.iter().map(|(group, _)| *group).collect();
        assert_eq!(keys(&facts), sorted(groups));
        for (group, names) in NAMES {
            assert_eq!(keys(&facts[group]), sorted(names.to_vec()), "{group}");
        }
    }

    #[test]
    fn without_a_predicate_of_chainloops_the_facts_are_empty() {
        let stage = Stage::of(&STATEMENT.replace("chainloop.dev/attestation", "example.org/p"));
        let facts = facts(stage.pushed(), None);
        assert_eq!(facts["workflow"]["name"], "nightly-build");
        assert_eq!(facts["attestation"]["predicate_type"], "example.org/p/v0.2");
        assert_eq!(facts["policy"]["status"], "NOT_APPLICABLE");
        assert_eq!(facts["material"], Value::Null);
        assert_eq!(facts["materials"], json!([]));
        assert_eq!(facts["workflow"]["branch"], "");
    }

    #[test]
    fn no_variable_no_content_and_no_address_is_a_fact() {
        let statement = STATEMENT
            .replace("\"Linux\"", "\"canary\"")
            .replace("aGVsbG8=", "Y2FuYXJ5")
            .replace("\"prod\"", "\"dev\u{200b}canary@example.org\"")
            .replace("\"component\"", "\"canary@example.org\"")
            .replace("https://ci.example.org", "javascript:canary");
        let stage = Stage::of(&statement);
        for material in stage.attestation.materials() {
            let facts = facts(stage.pushed(), Some(material)).to_string();
            assert!(!facts.contains("canary"), "{facts}");
            assert!(facts.contains("\"…@example.org\""), "{facts}");
        }
    }

    #[test]
    fn the_branch_is_what_the_ci_system_says() {
        for (env, branch) in [
            (r#""GITHUB_REF":"refs/heads/feature/a""#, "feature/a"),
            (r#""GITHUB_HEAD_REF":"b","GITHUB_REF_NAME":"5/merge""#, "b"),
            (r#""GITHUB_HEAD_REF":"","GITHUB_REF_NAME":"main""#, "main"),
            (
                r#""GITHUB_REF":"refs/tags/v1","GITHUB_REF_NAME":"v1""#,
                "noted",
            ),
            (r#""GITHUB_REF_TYPE":"tag","GITHUB_REF_NAME":"v1""#, "noted"),
            (r#""GITHUB_REF":"refs/pull/5/merge""#, "noted"),
            (r#""CI_COMMIT_REF_NAME":"main""#, "main"),
            (r#""CI_COMMIT_REF_NAME":"v1","CI_COMMIT_TAG":"v1""#, "noted"),
            (r#""CI_COMMIT_BRANCH":"main""#, "main"),
            (r#""BUILD_SOURCEBRANCHNAME":"main""#, "main"),
            (
                r#""BUILD_SOURCEBRANCH":"refs/heads/a/b","BUILD_SOURCEBRANCHNAME":"b""#,
                "a/b",
            ),
            (r#""BRANCH_NAME":"PR-5","CHANGE_BRANCH":"a""#, "a"),
            (r#""GIT_BRANCH":"origin/main""#, "main"),
            (r#""CIRCLE_BRANCH":"main""#, "main"),
            (r#""OTHER":"main""#, "noted"),
        ] {
            let statement = STATEMENT
                .replace(r#""GITHUB_REF":"refs/heads/main""#, env)
                .replace("\"environment\"", "\"branch\":\"noted\",\"environment\"");
            assert_eq!(
                super::branch(&Stage::of(&statement).attestation),
                branch,
                "{env}"
            );
        }
    }
}
