//! Real documents from public projects, which lie outside this repository: see `SAMPLES_DIR`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use crate::{Attestation, Digest, Error, Form, MaterialType, compose};

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

/// Each JSON file of a folder of samples, by name.
fn files(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let Some(samples) = samples() else {
        return BTreeMap::new();
    };
    let entries = std::fs::read_dir(samples.join(folder)).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

/// Compares what `read` says of each file with its row; neither may be without the other.
#[track_caller]
fn check(folder: &str, read: fn(Result<Attestation, Error>) -> String, rows: &[(&str, &str)]) {
    let files = files(folder);
    if files.is_empty() {
        return;
    }
    let found: BTreeMap<&str, String> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), read(Attestation::parse(bytes))))
        .collect();
    let expected = rows.iter().map(|&(name, row)| (name, row.to_owned()));
    assert_eq!(found, expected.collect());
}

fn hash_and_shape(parsed: Result<Attestation, Error>) -> String {
    let attestation = parsed.unwrap();
    let subjects = attestation.statement.subjects.len();
    let materials = attestation.materials().len();
    format!("{} {subjects}+{materials}", attestation.hash.hex())
}

fn code_or_type(parsed: Result<Attestation, Error>) -> String {
    match parsed {
        Ok(attestation) => attestation.statement.predicate_type,
        Err(error) => error.code().to_owned(),
    }
}

/// The hash, recomputed by Chainloop's formula in Python, then subjects + materials.
#[test]
fn every_attestation_is_read_and_hashed_as_chainloop_does() {
    check(
        "attestations",
        hash_and_shape,
        &[
            (
                "chainloop-dsse-dispatcher.json",
                "33683275ee73f7f019d57b7522dfdfa1eb737b6a7c61e9c4dc2a03a48ef6e1ef 1+3",
            ),
            (
                "chainloop-dsse-full.json",
                "1a077137aef7ca208b80c339769d0d7eecacc2850368e56e834cda1750ce413a 1+3",
            ),
            (
                "chainloop-dsse-with-git-subject.json",
                "de36d470d792499b1489fc0e6623300fc8822b8f0d2981bb5ec563f8dde723c7 3+5",
            ),
            (
                "chainloop-summary-full.json",
                "1a077137aef7ca208b80c339769d0d7eecacc2850368e56e834cda1750ce413a 1+3",
            ),
            (
                "guac-oci-dsse-att.json",
                "4f21f18fc681a9ca0baf58d608cbed2707e35b952a338d227a828e9a8e8a14c6 1+0",
            ),
        ],
    );
}

#[test]
fn every_bundle_is_read_and_its_envelope_hashed() {
    check(
        "bundles",
        hash_and_shape,
        &[
            (
                "chainloop-attestation-bundle.json",
                "87fa06101d017b38d5e8ddd59ef734b4c14741204baedf9cc8c4fa93eaf9bc4d 2+1",
            ),
            // Its signature is base64 twice over; the hash is that of the envelope with it decoded.
            (
                "chainloop-verifier-valid.json",
                "e22ac538ed2ece6c947e70d53144e3ecaee39d7c7da312f365d0edaf321c49a6 2+0",
            ),
            (
                "conformance-happy-v0.3-intoto-dsse.json",
                "04e102b01b60b22095433140de122f04f24f1ac0a26ef864288e50602465a0a5 1+0",
            ),
        ],
    );
}

#[test]
fn what_is_malformed_is_refused_by_name_or_accepted_for_a_reason() {
    check(
        "malformed",
        code_or_type,
        &[
            ("cdx-1.6-invalid-bomformat.json", "not-an-envelope"),
            ("chainloop-attestation-empty-obj.json", "not-an-envelope"),
            // What is wrong is a certificate chain where v0.3 has one certificate: for whoever verifies.
            (
                "chainloop-bundle-wrongversion.json",
                "chainloop.dev/attestation/v0.2",
            ),
            (
                "chainloop-dsse-invalid-payloadtype.json",
                "payload-type-unknown",
            ),
            ("chainloop-invalid-payload.json", "payload-not-base64"),
            // Only Chainloop wants its own predicate; we carry any.
            (
                "chainloop-unknown-envelope.json",
                "unknown.company/attestation/v0.1",
            ),
            // The signature is wrong but there: for whoever verifies.
            (
                "conformance-dsse-invalid-sig.json",
                "https://slsa.dev/provenance/v1",
            ),
            ("local-control-chars-name-cdx.json", "looks-like-sbom"),
            ("local-deep-nesting.json", "too-deep"),
            ("local-dsse-no-signatures.json", "unsigned"),
            // Its base64 is fine; `{"x":…}` is no statement.
            ("local-dsse-urlsafe-b64.json", "statement-invalid"),
            ("local-empty.json", "empty"),
            ("local-truncated-cdx.json", "not-json"),
            ("local-utf8bom-cdx.json", "byte-order-mark"),
            ("spdx-guac-invalid.json", "not-an-envelope"),
        ],
    );
}

#[test]
fn an_sbom_by_itself_is_told_where_to_go() {
    for (name, bytes) in files("sboms") {
        let error = Attestation::parse(&bytes).unwrap_err();
        assert_eq!(error.code(), "looks-like-sbom", "{name}");
    }
}

#[test]
fn an_envelope_in_a_bundle_is_the_same_attestation() {
    for (name, bytes) in files("attestations").into_iter().chain(files("bundles")) {
        let received = Attestation::parse(&bytes).unwrap();
        let bare = Attestation::parse(&received.envelope.compact()).unwrap();
        let bundled = Attestation::parse(&compose::bundle(&received.envelope)).unwrap();
        assert_eq!(
            (bare.form, bundled.form),
            (
                Form::Envelope,
                Form::Bundle("application/vnd.dev.sigstore.bundle.v0.3+json")
            )
        );
        for other in [&bare, &bundled] {
            assert_eq!(other.hash, received.hash, "{name}");
            assert_eq!(other.envelope, received.envelope, "{name}");
            assert_eq!(other.statement, received.statement, "{name}");
        }
        assert_eq!(bare.received, bare.hash, "{name}");
        assert_eq!(received.received, Digest::of(&bytes), "{name}");
        assert_eq!(received.hash, received.envelope.hash(), "{name}");
    }
}

#[test]
fn a_document_says_the_same_to_us_as_to_chainloop() {
    let Some(bytes) = files("attestations").remove("chainloop-dsse-full.json") else {
        return;
    };
    let attestation = Attestation::parse(&bytes).unwrap();
    let predicate = attestation.predicate().unwrap();
    assert_eq!(predicate.metadata.workflow(), "only-sbom");
    assert_eq!(predicate.metadata.project, "foo");
    assert_eq!(
        predicate.metadata.workflow_run_id,
        "a17ca216-29b6-4107-b3fc-9256f7af2fe6"
    );
    assert_eq!(predicate.runner_type, "RUNNER_TYPE_UNSPECIFIED");
    assert_eq!(predicate.annotations["branch"], "stable");
    assert_eq!(predicate.env["project"], "chatgpt");
    let image = &predicate.materials[0];
    assert_eq!(image.kind, MaterialType::CONTAINER_IMAGE);
    assert_eq!(
        (&*image.name, &*image.value),
        ("image", "index.docker.io/bitnami/nginx")
    );
    let sbom = &predicate.materials[1];
    assert_eq!(
        (&*sbom.name, &*sbom.filename),
        ("skynet-sbom", "sbom.cyclonedx.json")
    );
    assert!(sbom.uploaded_to_cas && sbom.value.is_empty() && sbom.content.is_none());
    assert_eq!(sbom.annotations["component"], "nginx");
}
