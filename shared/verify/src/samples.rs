//! Real documents from public projects, which lie outside this repository: see `SAMPLES_DIR`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use api::trust::{Code, Identity, Signer, TrustedRoot};
use attestation::{Attestation, pae};
use serde_json::{Value, json};

use crate::forge::{ISSUER, ORGANIZATION, World, judge_of, minute};
use crate::material::Material;
use crate::{Judge, MAX_MATERIAL_ITEMS};

const BEACON: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";

/// The folder of samples, or none, having said so.
fn samples() -> Option<PathBuf> {
    let folder = std::env::var_os("SAMPLES_DIR").map(PathBuf::from);
    if folder.is_none() {
        // Not `println!`, whose text is shown of failed tests only.
        let test = std::thread::current();
        let test = test.name().unwrap_or_default();
        let line = format!("did not run: {test} (SAMPLES_DIR is not set)\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    folder
}

fn beacon(identity: Identity) -> Signer {
    let (name, issuer) = ("beacon".to_owned(), ISSUER.to_owned());
    Signer::Keyless {
        name,
        issuer,
        identity,
        trusted_root: TrustedRoot::PublicGood,
    }
}

fn read(name: &str) -> Option<Vec<u8>> {
    samples().map(|samples| std::fs::read(samples.join(name)).unwrap())
}

fn code(judge: &Judge, document: &[u8]) -> Code {
    let judged = judge.judge(
        Attestation::parse(document).unwrap(),
        document,
        minute(0).into(),
    );
    judged.verdict().reason.code
}

/// Every sample that is an attestation, by a policy that trusts Sigstore's conformance workflow and the organization
/// of Chainloop's own bundles, whose authority's certificate is not among the samples.
#[test]
fn each_sample_is_judged_as_its_name_says() {
    let Some(samples) = samples() else { return };
    let world = World::new();
    let judge = judge_of(
        1,
        vec![
            beacon(Identity::Exact(BEACON.to_owned())),
            world.chainloop(false),
        ],
    );
    let mut found = BTreeMap::new();
    for folder in ["attestations", "bundles", "malformed"] {
        for entry in std::fs::read_dir(samples.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let document = std::fs::read(entry.path()).unwrap();
            let Ok(attestation) = Attestation::parse(&document) else {
                continue;
            };
            let judged = judge.judge(attestation, &document, minute(0).into());
            let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            found.insert(name, judged.verdict().reason.code);
        }
    }
    let expected = [
        // Bare envelopes.
        (
            "attestations/chainloop-dsse-dispatcher.json",
            Code::CertificateMissing,
        ),
        (
            "attestations/chainloop-dsse-full.json",
            Code::CertificateMissing,
        ),
        (
            "attestations/chainloop-dsse-with-git-subject.json",
            Code::CertificateMissing,
        ),
        (
            "attestations/chainloop-summary-full.json",
            Code::CertificateMissing,
        ),
        (
            "attestations/guac-oci-dsse-att.json",
            Code::CertificateMissing,
        ),
        // Chainloop's, of 2025 and without timestamps. The last is malformed to Chainloop alone, which once refused
        // chains of certificates.
        (
            "bundles/chainloop-attestation-bundle.json",
            Code::CertificateExpired,
        ),
        (
            "bundles/chainloop-verifier-valid.json",
            Code::CertificateExpired,
        ),
        (
            "malformed/chainloop-bundle-wrongversion.json",
            Code::CertificateExpired,
        ),
        // Malformed for one receiver alone, for its predicate.
        (
            "malformed/chainloop-unknown-envelope.json",
            Code::CertificateMissing,
        ),
        (
            "bundles/conformance-happy-v0.3-intoto-dsse.json",
            Code::ThresholdReached,
        ),
        (
            "malformed/conformance-dsse-invalid-sig.json",
            Code::SignatureMismatch,
        ),
    ];
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(name, code)| (name.to_owned(), code))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_real_keyless_signature_counts_for_its_own_workflow_alone() {
    let Some(document) = read("bundles/conformance-happy-v0.3-intoto-dsse.json") else {
        return;
    };
    let judge = |identity| judge_of(1, vec![beacon(identity)]);
    let verdict = |identity| code(&judge(identity), &document);
    assert_eq!(
        verdict(Identity::Exact(BEACON.to_owned())),
        Code::ThresholdReached
    );
    let glob = "https://github.com/sigstore-conformance/*/.github/workflows/*.yml@refs/heads/main";
    assert_eq!(
        verdict(Identity::Glob(glob.to_owned())),
        Code::ThresholdReached
    );
    let tags = glob.replace("heads/main", "tags/*");
    assert_eq!(verdict(Identity::Glob(tags)), Code::IdentityMismatch);
    let other = "https://github.com/sigstore/".to_owned();
    assert_eq!(verdict(Identity::Prefix(other)), Code::IdentityMismatch);
}

/// The signature of one of Chainloop's bundles is base64 of base64. It is verified as the parser decodes it, which takes
/// the certificate's key alone: its authority is not among the samples.
#[test]
fn signatures_of_chainloop_fit_the_keys_of_their_certificates() {
    for name in [
        "bundles/chainloop-attestation-bundle.json",
        "bundles/chainloop-verifier-valid.json",
    ] {
        let Some(document) = read(name) else { return };
        let envelope = Attestation::parse(&document).unwrap().envelope;
        let material = Material::read(&document).unwrap();
        let message = pae(&envelope.payload_type, &envelope.payload);
        assert!(
            material
                .leaf
                .key
                .signed(&message, &envelope.signatures[0].sig),
            "{name}"
        );
        assert_eq!(
            material.leaf.organization.unwrap().to_string(),
            ORGANIZATION
        );
    }
}

/// Each part of the evidence counts: what is changed is not verified, and none of it panics.
#[test]
fn no_part_of_real_evidence_can_be_changed_or_left_out() {
    let Some(document) = read("bundles/conformance-happy-v0.3-intoto-dsse.json") else {
        return;
    };
    let judge = judge_of(1, vec![beacon(Identity::Exact(BEACON.to_owned()))]);
    let changed = |change: fn(&mut Value)| {
        let mut document: Value = serde_json::from_slice(&document).unwrap();
        change(&mut document["verificationMaterial"]["tlogEntries"]);
        code(&judge, document.to_string().as_bytes())
    };
    assert_eq!(changed(|_| {}), Code::ThresholdReached);
    assert_eq!(
        changed(|entries| *entries = json!([])),
        Code::EvidenceMissing
    );
    assert_eq!(
        changed(|entries| entries[0]["inclusionProof"] = Value::Null),
        Code::EvidenceMissing
    );
    assert_eq!(
        changed(|entries| entries[0]["inclusionPromise"] = Value::Null),
        Code::EvidenceMissing
    );
    assert_eq!(
        changed(|entries| entries[0]["integratedTime"] = json!("1734374577")),
        Code::EvidenceUntrusted
    );
    assert_eq!(
        changed(|entries| entries[0]["logIndex"] = json!("1")),
        Code::EvidenceUntrusted
    );
    assert_eq!(
        changed(|entries| entries[0]["canonicalizedBody"] = json!("e30=")),
        Code::EvidenceUntrusted
    );
    assert_eq!(
        changed(|entries| entries[0]["inclusionProof"]["hashes"] = json!([])),
        Code::EvidenceMismatch
    );
    let many =
        |entries: &mut Value| *entries = json!(vec![entries[0].clone(); MAX_MATERIAL_ITEMS + 1]);
    assert_eq!(changed(many), Code::MaterialUnreadable);
    let judged = judge.judge(
        Attestation::parse(&document).unwrap(),
        &document,
        "2024-12-16T18:42:55Z".parse().unwrap(),
    );
    assert_eq!(judged.verdict().reason.code, Code::EvidenceUntrusted);
}
