//! Envelopes, bundles and statements, and the bodies in which a Chainloop control plane forwards them.

use std::collections::BTreeMap;

use api::workflows::Workflow;
use attestation::{
    Attestation, CHAINLOOP_PREDICATE_TYPE, Digest, Envelope, Form, Forwarded, MAX_ENTRIES,
    MAX_MATERIALS, MAX_SIGNATURES, MAX_SUBJECTS, Material, PAYLOAD_TYPE, Predicate, Signature,
    Statement, compose, text,
};
use base64_simd::STANDARD;
use integrations::Pushed;
use serde_json::{Value, json};

pub const WORDS: &[&str] = &[
    "payloadType",
    "payload_type",
    "payload",
    "Payload",
    "signatures",
    "keyid",
    "sig",
    "mediaType",
    "media_type",
    "dsseEnvelope",
    "dsse_envelope",
    "messageSignature",
    "verificationMaterial",
    "application/vnd.in-toto+json",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "_type",
    "type",
    "subject",
    "name",
    "digest",
    "annotations",
    "predicateType",
    "predicate_type",
    "predicate",
    "https://in-toto.io/Statement/v1",
    "https://in-toto.io/Statement/v0.1",
    CHAINLOOP_PREDICATE_TYPE,
    "metadata",
    "builder",
    "buildType",
    "env",
    "materials",
    "content",
    "sha256",
    "sha512",
    "sha1",
    "policyEvaluations",
    "policy_evaluations",
    "violations",
    "message",
    "policyHasViolations",
    "policyCheckBlockingStrategy",
    "ENFORCED",
    "chainloop.material.name",
    "chainloop.material.type",
    "chainloop.material.cas",
    "chainloop.material.cas.inline",
    "STRING",
    "SBOM_CYCLONEDX_JSON",
    "CONTAINER_IMAGE",
    "workflowName",
    "projectVersion",
    "bomFormat",
    "spdxVersion",
    "CycloneDX",
];

pub const FORWARDED_WORDS: &[&str] = &[
    "Metadata",
    "Workflow",
    "WorkflowRun",
    "ID",
    "Name",
    "Project",
    "Data",
    "Kind",
    "ATTESTATION",
    "SBOM_CYCLONEDX_JSON",
    "SBOM_SPDX_JSON",
    "TEST_WEBHOOK",
    "Envelope",
    "Hash",
    "Statement",
    "Predicate",
    "payload",
    "payloadType",
    "signatures",
    "sig",
];

/// Longest text of an error: none quotes the sender's megabytes.
const ERROR_BYTES: usize = 2048;

/// An envelope or a bundle has one identity, however it is spelled.
pub fn envelope(input: &[u8]) {
    let read = match Attestation::parse(input) {
        Ok(read) => read,
        Err(error) => {
            assert!(error.to_string().len() <= ERROR_BYTES);
            return;
        }
    };
    assert_eq!(read.received, Digest::of(input));
    assert_eq!(read.hash, read.envelope.hash());
    assert!((1..=MAX_SIGNATURES).contains(&read.envelope.signatures.len()));
    let compact = read.envelope.compact();
    let again = Attestation::parse(&compact).expect("a canonical envelope is read");
    assert_eq!((again.form, again.received), (Form::Envelope, read.hash));
    assert_eq!((&again.envelope, again.hash), (&read.envelope, read.hash));
    assert_eq!(again.statement, read.statement);
    let bundled =
        Attestation::parse(&compose::bundle(&read.envelope)).expect("a bundle of it is read");
    assert_eq!(bundled.hash, read.hash);
    of_statement(&read);
}

/// A statement is the same after it was written again, and what is kept and shown of it is bounded.
pub fn statement(input: &[u8]) {
    let read = match Attestation::parse(&signed(input.to_vec())) {
        Ok(read) => read,
        Err(error) => {
            assert!(error.to_string().len() <= ERROR_BYTES);
            return;
        }
    };
    assert_eq!(read.envelope.payload, input);
    of_statement(&read);
    let Some(predicate) = read.predicate() else {
        return;
    };
    let [_, subjects @ ..] = &read.statement.subjects[..] else {
        panic!("a statement has a subject")
    };
    let written = compose::statement(predicate, subjects);
    let again = Attestation::parse(&signed(written)).expect("what is written is read");
    assert_eq!(&again.statement.subjects[1..], subjects);
    let again = again.predicate().expect("it was written");
    assert_eq!(written_of(again), written_of(predicate));
}

fn of_statement(read: &Attestation) {
    let Statement {
        subjects,
        predicate_type,
        predicate,
    } = &read.statement;
    assert!((1..=MAX_SUBJECTS).contains(&subjects.len()));
    assert_eq!(
        predicate.is_some(),
        predicate_type == CHAINLOOP_PREDICATE_TYPE
    );
    assert!(read.materials().len() <= MAX_MATERIALS);
    let entries: usize = subjects
        .iter()
        .map(|one| 1 + one.digests.len() + one.annotations.len())
        .sum();
    let of_predicate = predicate
        .as_ref()
        .map_or(0, |one| one.annotations.len() + one.env.len());
    assert!(entries + of_predicate <= MAX_ENTRIES);
    let material = read.materials().first();
    let pushed = Pushed {
        attestation: read,
        workflow: &Workflow::default(),
        verdict: None,
        console: None,
    };
    shown_alone(&integrations::facts(pushed, material));
}

/// Facts for people have no letters that cannot be seen. Names of annotations stay, which are keys.
fn shown_alone(facts: &Value) {
    match facts {
        Value::String(fact) => assert_eq!(text::visible(fact), *fact),
        Value::Array(facts) => facts.iter().for_each(shown_alone),
        Value::Object(facts) => facts.values().for_each(shown_alone),
        _ => {}
    }
}

/// The parts of a predicate that are written: not the violations that were found, and flags of materials as flags alone.
fn written_of(predicate: &Predicate) -> Predicate {
    let mut predicate = predicate.clone();
    predicate.policy.found.clear();
    predicate.materials_dropped = 0;
    for Material { annotations, .. } in &mut predicate.materials {
        annotations.retain(|key, _| !key.starts_with("chainloop.material.cas"));
    }
    predicate
}

/// An envelope around this payload, whose signature nobody made.
pub fn signed(payload: Vec<u8>) -> Vec<u8> {
    let signature = Signature {
        keyid: String::new(),
        sig: vec![1; 64],
    };
    Envelope {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload,
        signatures: vec![signature],
    }
    .compact()
}

/// A forwarded body gives what stands in it, and the same when it is forwarded again.
pub fn forwarded(input: &[u8]) {
    let read = match Forwarded::parse(input) {
        Ok(read) => read,
        Err(error) => {
            assert!(error.to_string().len() <= ERROR_BYTES);
            return;
        }
    };
    let (mut workflow, mut run) = (BTreeMap::new(), BTreeMap::new());
    let (kind, data) = match &read {
        Forwarded::Test => ("TEST_WEBHOOK", Vec::new()),
        Forwarded::Material { kind, content } => (kind.as_str(), content.clone()),
        Forwarded::Attestation {
            envelope,
            origin,
            bundle,
        } => {
            self::envelope(envelope);
            run.extend(bundle.map(|digest| ("AttestationDigest", digest)));
            workflow.extend([
                ("ID", &origin.id),
                ("Name", &origin.name),
                ("Project", &origin.project),
            ]);
            (
                "ATTESTATION",
                [b"{\"Envelope\":", &envelope[..], b"}"].concat(),
            )
        }
    };
    let body = json!({
        "Metadata": { "Workflow": workflow, "WorkflowRun": run },
        "Kind": kind,
        "Data": STANDARD.encode_to_string(data),
    });
    assert_eq!(Forwarded::parse(body.to_string().as_bytes()), Ok(read));
}
