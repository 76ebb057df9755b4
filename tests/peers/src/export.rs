//! The same export to every kind of bucket.

use attestation::{Digest, MaterialType};
use integrations::guac::{Attachment, Guac, Registration};
use integrations::{Error, Integration, Outcome};
use serde_json::{Value, json};

use crate::{Stage, http};

const CDX: &[u8] = br#"{"bomFormat":"CycloneDX","specVersion":"1.6"}"#;
const STATEMENT: &str = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"shop","digest":{"sha256":"1111111111111111111111111111111111111111111111111111111111111111"}}],"predicateType":"chainloop.dev/attestation/v0.2","predicate":{"metadata":{"name":"nightly-build","project":"shop"}}}"#;

/// Longer than what is read at once, so that it is sent in several parts.
fn spdx() -> Vec<u8> {
    let filler = "x".repeat(2_000_000);
    format!(
        r#"{{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","documentNamespace":"https://example.org/s","comment":"{filler}"}}"#
    )
    .into_bytes()
}

pub(crate) struct Export {
    registration: Registration,
    attachment: Attachment,
    stage: Stage,
}

impl Export {
    pub(crate) fn new(registration: Value) -> Self {
        let attachment = json!({ "prefix": "team/app", "provenance": true });
        Self {
            registration: serde_json::from_value(registration).unwrap(),
            attachment: serde_json::from_value(attachment).unwrap(),
            stage: Stage::of_statement(STATEMENT)
                .with("sbom", MaterialType::SBOM_CYCLONEDX_JSON, CDX)
                .with("packages", MaterialType::SBOM_SPDX_JSON, &spdx()),
        }
    }

    /// At registration and at attachment.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        Guac::register(&http(), &self.registration).await?;
        Guac::attach(&http(), &self.registration, &self.attachment).await?;
        Ok(())
    }

    /// Delivers, and returns for each object whether it was created.
    pub(crate) async fn deliver(&self) -> Result<Vec<bool>, Error> {
        let delivery = self.stage.delivery(&self.registration, &self.attachment);
        let outcome = Guac::deliver(&http(), &self.stage, &delivery).await?;
        let Outcome::Delivered(receipt) = outcome else {
            panic!("{outcome:?}")
        };
        let objects = receipt["objects"].as_array().unwrap().iter();
        Ok(objects
            .map(|object| object["created"].as_bool().unwrap())
            .collect())
    }
}

/// Keys and bytes of what is exported, sorted.
pub(crate) fn expected() -> Vec<(String, Vec<u8>)> {
    let stage = Stage::of_statement(STATEMENT);
    let provenance = provenance(&stage.attestation.hash.hex());
    let mut expected = vec![
        (
            format!("team/app/sboms/{}.cdx.json", Digest::of(CDX).hex()),
            CDX.to_vec(),
        ),
        (
            format!("team/app/sboms/{}.spdx.json", Digest::of(&spdx()).hex()),
            spdx(),
        ),
        (
            format!(
                "team/app/provenance/{}.slsa.json",
                Digest::of(&provenance).hex()
            ),
            provenance,
        ),
    ];
    expected.sort();
    expected
}

/// Written down here once more, by hand.
fn provenance(envelope: &str) -> Vec<u8> {
    let subject = "1".repeat(64);
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"shop","digest":{{"sha256":"{subject}"}}}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{{"buildDefinition":{{"buildType":"https://chainloop.dev/workflowrun/v0.1","externalParameters":{{"project":"shop","workflow":"nightly-build"}},"internalParameters":{{"derivedFrom":{{"digest":{{"sha256":"{envelope}"}},"predicateType":"chainloop.dev/attestation/v0.2"}},"signed":false}},"resolvedDependencies":[]}},"runDetails":{{"builder":{{"id":"https://chainloop.dev/runner/RUNNER_TYPE_UNSPECIFIED"}},"metadata":{{}}}}}}}}"#
    )
    .into_bytes()
}
