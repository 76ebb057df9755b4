//! Makes an attestation in Chainloop's format, for whoever has a build but no Chainloop.
//!
//! The same input gives the same bytes: names, times and keys are the caller's.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::material::{INLINE, NAME, TYPE, UPLOADED};
use crate::{
    CHAINLOOP_PREDICATE_TYPE, Digest, Envelope, Material, MaterialType, PAYLOAD_TYPE, Predicate,
    Signature, Strategy, Subject, base64, bundle, pae,
};

/// The statement over a run, as JSON. Its first subject is the workflow; `subjects` follow.
pub fn statement(predicate: &Predicate, subjects: &[Subject]) -> Vec<u8> {
    let predicate = WirePredicate::from(predicate);
    // Chainloop takes the digest of the state that it made the attestation from; the predicate is ours.
    let state = Digest::of(&json(&predicate));
    let workflow = Descriptor {
        name: format!(
            "chainloop.workflow.{}",
            predicate
                .metadata
                .get("workflowName")
                .or(predicate.metadata.get("name"))
                .map_or("", String::as_str)
        ),
        digest: [("sha256", state.hex())].into(),
        ..Descriptor::default()
    };
    json(&WireStatement {
        statement_type: "https://in-toto.io/Statement/v1",
        subject: std::iter::once(workflow)
            .chain(subjects.iter().map(Descriptor::from))
            .collect(),
        predicate_type: CHAINLOOP_PREDICATE_TYPE,
        predicate,
    })
}

/// A statement with one signature, which `sign` makes over DSSE's encoding of it.
pub fn envelope(statement: Vec<u8>, keyid: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Envelope {
    let sig = sign(&pae(PAYLOAD_TYPE, &statement));
    Envelope {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: statement,
        signatures: vec![Signature {
            keyid: keyid.to_owned(),
            sig,
        }],
    }
}

/// The envelope in a Sigstore bundle, to be verified with a key that the verifier has.
pub fn bundle(envelope: &Envelope) -> Vec<u8> {
    let envelope = String::from_utf8(envelope.compact()).expect("compact JSON is text");
    let (media_type, _) = bundle::MEDIA_TYPES[0];
    format!(
        r#"{{"mediaType":"{media_type}","verificationMaterial":{{}},"dsseEnvelope":{envelope}}}"#
    )
    .into_bytes()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("text and numbers are always JSON")
}

#[derive(Serialize)]
struct WireStatement<'a> {
    #[serde(rename = "_type")]
    statement_type: &'a str,
    subject: Vec<Descriptor<'a>>,
    #[serde(rename = "predicateType")]
    predicate_type: &'a str,
    predicate: WirePredicate<'a>,
}

#[derive(Serialize, Default)]
struct Descriptor<'a> {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    digest: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, Annotation<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Annotation<'a> {
    Flag(bool),
    Text(&'a str),
}

fn texts(annotations: &BTreeMap<String, String>) -> BTreeMap<&str, Annotation<'_>> {
    let text = |(key, value)| (String::as_str(key), Annotation::Text(String::as_str(value)));
    annotations.iter().map(text).collect()
}

impl<'a> From<&'a Subject> for Descriptor<'a> {
    fn from(subject: &'a Subject) -> Descriptor<'a> {
        let digests = subject.digests.iter();
        Descriptor {
            name: subject.name.clone(),
            digest: digests
                .map(|(algorithm, hex)| (algorithm.as_str(), hex.clone()))
                .collect(),
            content: None,
            annotations: texts(&subject.annotations),
        }
    }
}

impl<'a> From<&'a Material> for Descriptor<'a> {
    fn from(material: &'a Material) -> Descriptor<'a> {
        let is_file = material.uploaded_to_cas || material.embedded_inline;
        let name = match &material.kind {
            kind if *kind == MaterialType::STRING => "",
            _ if is_file => &material.filename,
            _ => &material.value,
        };
        let mut annotations = texts(&material.annotations);
        annotations.insert(NAME, Annotation::Text(&material.name));
        annotations.insert(TYPE, Annotation::Text(material.kind.as_str()));
        for (key, set) in [
            (UPLOADED, material.uploaded_to_cas),
            (INLINE, material.embedded_inline),
        ] {
            annotations.remove(key);
            if set {
                annotations.insert(key, Annotation::Flag(true));
            }
        }
        Descriptor {
            name: name.to_owned(),
            digest: material
                .digest
                .iter()
                .map(|digest| ("sha256", digest.hex()))
                .collect(),
            content: material.content.as_deref().map(base64::encode),
            annotations,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the wire has them, one by one"
)]
struct WirePredicate<'a> {
    metadata: BTreeMap<&'static str, String>,
    builder: BTreeMap<&'static str, &'a str>,
    build_type: &'a str,
    runner_type: &'a str,
    #[serde(rename = "runnerURL", skip_serializing_if = "str::is_empty")]
    runner_url: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: &'a BTreeMap<String, String>,
    materials: Vec<Descriptor<'a>>,
    policy_evaluations_count: u64,
    policy_violations_count: u64,
    policy_skipped_count: u64,
    policy_passed_count: u64,
    policy_suppressed_count: u64,
    policy_has_violations: bool,
    policy_has_gated_violations: bool,
    policy_has_gates: bool,
    policy_check_blocking_strategy: &'a str,
    policy_block_bypass_enabled: bool,
    policy_att_blocked: bool,
}

impl<'a> From<&'a Predicate> for WirePredicate<'a> {
    fn from(predicate: &'a Predicate) -> WirePredicate<'a> {
        let policy = &predicate.policy;
        let mut metadata = predicate.metadata.clone();
        let fields = metadata
            .fields()
            .map(|(key, field)| (key, std::mem::take(field)));
        WirePredicate {
            metadata: fields
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .collect(),
            builder: [("id", predicate.builder_id.as_str())].into(),
            build_type: &predicate.build_type,
            runner_type: &predicate.runner_type,
            runner_url: &predicate.runner_url,
            annotations: &predicate.annotations,
            env: &predicate.env,
            materials: predicate.materials.iter().map(Descriptor::from).collect(),
            policy_evaluations_count: policy.evaluations,
            policy_violations_count: policy.violations,
            policy_skipped_count: policy.skipped,
            policy_passed_count: policy.passed,
            policy_suppressed_count: policy.suppressed,
            policy_has_violations: policy.has_violations,
            policy_has_gated_violations: policy.has_gated_violations,
            policy_has_gates: policy.has_gates,
            policy_check_blocking_strategy: match policy.strategy {
                Strategy::Advisory => "ADVISORY",
                Strategy::Enforced => "ENFORCED",
            },
            policy_block_bypass_enabled: policy.bypassed,
            policy_att_blocked: policy.blocked,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};
    use proptest::strategy::Strategy as Generator;

    use super::*;
    use crate::{Attestation, Metadata, Policy};

    fn texts() -> impl Generator<Value = BTreeMap<String, String>> {
        prop::collection::btree_map("[a-z]{1,9}", any::<String>(), 0..4)
    }

    fn material() -> impl Generator<Value = Material> {
        let kind = prop::sample::select(&MaterialType::KNOWN[1..]);
        let parts = (".{1,9}", ".{1,9}", kind, any::<Vec<u8>>(), texts(), 0..4_u8);
        parts.prop_map(|(name, filename, kind, content, annotations, form)| {
            let mut material = match form {
                0 => Material::string(&name, &filename),
                1 => Material::image(&name, &filename, Digest::of(&content)),
                2 => Material::uploaded(&name, kind, &filename, Digest::of(&content)),
                _ => Material::inline(&name, kind, &filename, content),
            };
            material.annotations.extend(annotations);
            material
        })
    }

    fn predicate() -> impl Generator<Value = Predicate> {
        let lists = (texts(), texts(), prop::collection::vec(material(), 0..4));
        let policy = (0..9_u64, 0..9_u64, any::<[bool; 6]>());
        (prop::collection::vec(any::<String>(), 16), lists, policy).prop_map(
            |(mut words, (annotations, env, materials), (count, other, flags))| {
                let mut word = || words.pop().expect("one for each field");
                let mut metadata = Metadata::default();
                for (_, field) in metadata.fields() {
                    *field = word();
                }
                Predicate {
                    metadata,
                    builder_id: word(),
                    build_type: word(),
                    runner_type: word(),
                    runner_url: word(),
                    annotations,
                    env,
                    materials,
                    materials_dropped: 0,
                    policy: Policy {
                        evaluations: count,
                        violations: other,
                        skipped: other,
                        passed: count,
                        suppressed: other,
                        has_violations: flags[0],
                        has_gated_violations: flags[1],
                        has_gates: flags[2],
                        strategy: if flags[3] {
                            Strategy::Enforced
                        } else {
                            Strategy::Advisory
                        },
                        bypassed: flags[4],
                        blocked: flags[5],
                        found: Vec::new(),
                    },
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_composed_is_what_is_parsed(
            predicate in predicate(),
            name in any::<String>(),
            keyid in any::<String>(),
            sig in prop::collection::vec(any::<u8>(), 1..80),
        ) {
            let subject = Subject {
                name,
                digests: [("sha1".to_owned(), "00".to_owned())].into(),
                annotations: predicate.env.clone(),
            };
            let made = envelope(statement(&predicate, std::slice::from_ref(&subject)), &keyid, |_| sig);
            for bytes in [made.compact(), bundle(&made)] {
                let parsed = Attestation::parse(&bytes).unwrap();
                prop_assert_eq!(parsed.predicate(), Some(&predicate));
                prop_assert_eq!(&parsed.statement.subjects[1], &subject);
                prop_assert_eq!(&parsed.envelope, &made);
                prop_assert_eq!(parsed.hash, made.hash());
            }
        }
    }

    #[test]
    fn what_is_signed_is_the_encoding_of_the_standard() {
        let made = envelope(b"{}".to_vec(), "", <[u8]>::to_vec);
        assert_eq!(made.signatures[0].sig, pae(PAYLOAD_TYPE, b"{}"));
    }

    #[test]
    fn the_first_subject_is_the_workflow() {
        let predicate = Predicate {
            metadata: Metadata {
                name: "nightly".to_owned(),
                ..Metadata::default()
            },
            ..Predicate::default()
        };
        let made = envelope(statement(&predicate, &[]), "", |_| vec![1]);
        let parsed = Attestation::parse(&made.compact()).unwrap();
        assert_eq!(
            parsed.statement.subjects[0].name,
            "chainloop.workflow.nightly"
        );
        assert_eq!(parsed.statement.subjects[0].digests["sha256"].len(), 64);
    }
}
