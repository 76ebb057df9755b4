//! A SLSA v1 provenance statement derived from a Chainloop attestation, so that GUAC, which has no parser for
//! the latter, learns which run made what from what.
//!
//! Nobody signs it, and it says so; it names the envelope that it was derived from, whose signature counts. The
//! same attestation makes the same bytes.

use std::collections::BTreeSet;

use attestation::{Attestation, CHAINLOOP_PREDICATE_TYPE, Digest, Predicate, Subject};
use serde::Serialize;
use serde_json::{Value, json};

/// <https://slsa.dev/spec/v1.0/provenance>
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: Vec<Resource<'a>>,
    predicate_type: &'static str,
    predicate: Provenance<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Provenance<'a> {
    build_definition: BuildDefinition<'a>,
    run_details: RunDetails<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition<'a> {
    build_type: String,
    external_parameters: Value,
    internal_parameters: Value,
    resolved_dependencies: Vec<Resource<'a>>,
}

#[derive(Serialize)]
struct RunDetails<'a> {
    builder: Builder,
    metadata: Run<'a>,
}

#[derive(Serialize)]
struct Builder {
    id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    invocation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_on: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_on: Option<String>,
}

/// Without a URI: GUAC would make a package of it, which a material need not be.
#[derive(Serialize)]
struct Resource<'a> {
    name: &'a str,
    digest: Value,
}

/// The statement, or why there is none.
pub(super) fn derive(attestation: &Attestation) -> Result<Vec<u8>, &'static str> {
    let Some(predicate) = attestation.predicate() else {
        return Err("provenance is derived from Chainloop's attestations alone");
    };
    let subjects: Vec<_> = attestation
        .statement
        .subjects
        .iter()
        .filter_map(|subject| Some((name(subject)?, sha256(subject)?)))
        .collect();
    if subjects.is_empty() {
        return Err("no subject of the attestation has a SHA-256 digest");
    }
    let statement = Statement {
        kind: "https://in-toto.io/Statement/v1",
        predicate_type: "https://slsa.dev/provenance/v1",
        predicate: Provenance {
            build_definition: BuildDefinition {
                build_type: uri(&predicate.build_type, "chainloop.dev/workflowrun/v0.1"),
                external_parameters: parameters(predicate),
                internal_parameters: json!({
                    "derivedFrom": {
                        "predicateType": CHAINLOOP_PREDICATE_TYPE,
                        "digest": { "sha256": attestation.hash.hex() },
                    },
                    "signed": false,
                }),
                resolved_dependencies: dependencies(predicate, &subjects),
            },
            run_details: RunDetails {
                builder: Builder {
                    id: uri(
                        &match predicate.runner_type.as_str() {
                            "" => String::new(),
                            runner => format!("chainloop.dev/runner/{runner}"),
                        },
                        "chainloop.dev/runner/RUNNER_TYPE_UNSPECIFIED",
                    ),
                },
                metadata: Run {
                    invocation_id: &predicate.metadata.workflow_run_id,
                    started_on: time(&predicate.metadata.initialized_at),
                    finished_on: time(&predicate.metadata.finished_at),
                },
            },
        },
        subject: subjects
            .iter()
            .map(|(name, digest)| resource(name, digest))
            .collect(),
    };
    Ok(serde_json::to_vec(&statement).expect("strings alone"))
}

/// GUAC makes a package of it, for which it needs one.
fn name(subject: &Subject) -> Option<&str> {
    Some(subject.name.as_str()).filter(|name| !name.is_empty())
}

fn sha256(subject: &Subject) -> Option<Digest> {
    subject.digests.get("sha256")?.parse().ok()
}

fn resource<'a>(name: &'a str, digest: &Digest) -> Resource<'a> {
    Resource {
        name,
        digest: json!({ "sha256": digest.hex() }),
    }
}

/// The materials by their digests, each once. What is a subject was put out by the run, and is not what went in.
fn dependencies<'a>(predicate: &'a Predicate, subjects: &[(&str, Digest)]) -> Vec<Resource<'a>> {
    let mut seen: BTreeSet<Digest> = subjects.iter().map(|(_, digest)| *digest).collect();
    let materials = predicate.materials.iter();
    materials
        .filter_map(|material| {
            let digest = material.digest.filter(|digest| seen.insert(*digest))?;
            Some(resource(&material.name, &digest))
        })
        .collect()
}

/// Returns the parameters of the run, without empty ones.
fn parameters(predicate: &Predicate) -> Value {
    let metadata = &predicate.metadata;
    [
        ("organization", metadata.organization.as_str()),
        ("project", &metadata.project),
        ("projectVersion", &metadata.project_version),
        ("workflow", metadata.workflow()),
        ("contract", &metadata.contract_name),
        ("contractVersion", &metadata.contract_version),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| (name.to_owned(), Value::from(value)))
    .collect::<serde_json::Map<_, _>>()
    .into()
}

/// Chainloop writes its types without a scheme, which SLSA wants.
fn uri(text: &str, otherwise: &str) -> String {
    let text = if text.is_empty() { otherwise } else { text };
    match text.contains("://") {
        true => text.to_owned(),
        false => format!("https://{text}"),
    }
}

/// RFC 3339, or none: GUAC fails on anything else.
fn time(text: &str) -> Option<String> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, Stage};

    fn derived(stage: &Stage) -> Value {
        serde_json::from_slice(&derive(&stage.attestation).unwrap()).unwrap()
    }

    #[test]
    fn the_statement_is_the_one_written_down_and_the_same_each_time() {
        let stage = Stage::new();
        let bytes = derive(&stage.attestation).unwrap();
        assert_eq!(bytes, derive(&Stage::new().attestation).unwrap());
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        fixture::compare("guac-provenance.json", &pretty);
    }

    // What GUAC's parser reads, and what it fails without.
    #[test]
    fn guac_finds_what_it_reads() {
        let stage = Stage::new();
        let statement = derived(&stage);
        let kind = statement["_type"].as_str().unwrap();
        assert!(kind.starts_with("https://in-toto.io/Statement"));
        let predicate_type = statement["predicateType"].as_str().unwrap();
        assert!(super::super::is_readable(predicate_type));
        for subject in statement["subject"].as_array().unwrap() {
            assert!(!subject["name"].as_str().unwrap().is_empty());
            assert_eq!(subject["digest"]["sha256"].as_str().unwrap().len(), 64);
        }
        let run = &statement["predicate"]["runDetails"];
        assert!(run["builder"]["id"].is_string() && run["metadata"].is_object());
        for time in ["startedOn", "finishedOn"] {
            let time = run["metadata"][time].as_str().unwrap();
            assert!(time.parse::<jiff::Timestamp>().is_ok());
        }
        let derived_from =
            &statement["predicate"]["buildDefinition"]["internalParameters"]["derivedFrom"];
        assert_eq!(
            derived_from["digest"]["sha256"],
            stage.attestation.hash.hex()
        );
    }

    fn of(subjects: &str, predicate: &str) -> Stage {
        Stage::of(&format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":{subjects},
                "predicateType":"chainloop.dev/attestation/v0.2","predicate":{predicate}}}"#
        ))
    }

    #[test]
    fn what_a_run_puts_out_is_not_what_it_was_made_from() {
        let digest = "a".repeat(64);
        let subjects = format!(r#"[{{"name":"image","digest":{{"sha256":"{digest}"}}}}]"#);
        let stage = of(&subjects, r#"{"metadata":{}}"#);
        let image = attestation::Material::image("image", "r", digest.parse().unwrap());
        let mut predicate = stage.attestation.predicate().unwrap().clone();
        predicate.materials = vec![image.clone(), image];
        assert!(dependencies(&predicate, &[("image", digest.parse().unwrap())]).is_empty());
        assert_eq!(dependencies(&predicate, &[]).len(), 1);
    }

    #[test]
    fn times_that_are_none_are_left_out_and_metadata_stays() {
        let subjects = format!(
            r#"[{{"name":"a","digest":{{"sha256":"{}"}}}}]"#,
            "b".repeat(64)
        );
        let stage = of(&subjects, r#"{"metadata":{"initializedAt":"yesterday"}}"#);
        let run = &derived(&stage)["predicate"]["runDetails"];
        assert_eq!(run["metadata"], json!({}));
        assert_eq!(
            run["builder"]["id"],
            "https://chainloop.dev/runner/RUNNER_TYPE_UNSPECIFIED"
        );
    }

    #[test]
    fn without_a_subject_that_has_a_digest_there_is_none() {
        let stage = of(
            r#"[{"name":"git.head","digest":{"sha1":"2222222222222222222222222222222222222222"}},
                {"name":"odd","digest":{"sha256":"short"}}]"#,
            r#"{"metadata":{}}"#,
        );
        assert_eq!(
            derive(&stage.attestation),
            Err("no subject of the attestation has a SHA-256 digest")
        );
        let stage = Stage::of(
            r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"00"}}],"predicateType":"x","predicate":{}}"#,
        );
        assert_eq!(
            derive(&stage.attestation),
            Err("provenance is derived from Chainloop's attestations alone")
        );
    }
}
