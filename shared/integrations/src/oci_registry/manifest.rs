//! Artifact of an attestation in a registry: the same bytes each time, so that a repeat is known by its digest.

use std::collections::BTreeMap;

use attestation::{Digest, Form, MaterialType};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::OciRegistry;
use crate::http::EXCERPT_BYTES;
use crate::text::excerpt;
use crate::{Delivery, Error};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Configuration that a manifest names when it has none.
pub const EMPTY_CONFIG: Bytes = Bytes::from_static(b"{}");

/// Points at bytes in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// All that is pushed for one attestation.
#[derive(Debug)]
pub struct Artifact {
    pub tag: String,
    pub manifest: Bytes,
    /// Descriptor of the manifest, with the fields that a list of referrers repeats.
    pub descriptor: Descriptor,
    /// Configuration and layer.
    pub blobs: [(Digest, Bytes); 2],
    pub subject: Option<Descriptor>,
    pub is_compatible: bool,
}

impl Artifact {
    pub fn of(delivery: &Delivery<'_, OciRegistry>, subject: Option<Descriptor>) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Manifest<'a> {
            schema_version: u8,
            media_type: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            artifact_type: Option<&'a str>,
            config: Descriptor,
            layers: [Descriptor; 1],
            #[serde(skip_serializing_if = "Option::is_none")]
            subject: Option<&'a Descriptor>,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            annotations: &'a BTreeMap<String, String>,
        }

        let received = delivery.received;
        let (artifact_type, layer_type) = types(delivery.pushed.attestation.form);
        let is_compatible = delivery.attachment.compatibility;
        let annotations = annotations(delivery);
        // `oras pull` leaves out what has no file name.
        let title = (
            "org.opencontainers.image.title".to_owned(),
            "attestation.json".to_owned(),
        );
        let layer = Descriptor {
            annotations: BTreeMap::from([title]),
            ..Descriptor::of(layer_type, received)
        };
        let config_type = if is_compatible { artifact_type } else { EMPTY };
        let config = Descriptor::of(config_type, &EMPTY_CONFIG);
        let blobs = [
            (config.digest, EMPTY_CONFIG),
            (layer.digest, received.clone()),
        ];
        let tag = format!(
            "{}-{}",
            delivery.attachment.prefix.as_str(),
            layer.digest.hex()
        );
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST,
            artifact_type: (!is_compatible).then_some(artifact_type),
            config,
            layers: [layer],
            subject: subject.as_ref(),
            annotations: &annotations,
        };
        let manifest = serde_json::to_vec(&manifest).expect("strings and numbers alone");
        let descriptor = Descriptor {
            artifact_type: Some(artifact_type.to_owned()),
            annotations,
            ..Descriptor::of(MANIFEST, &manifest)
        };
        Self {
            tag,
            manifest: manifest.into(),
            descriptor,
            blobs,
            subject,
            is_compatible,
        }
    }
}

/// Artifact type and the layer's media type. A bundle is pushed under its name without a parameter, as the rules for
/// media types want it, whichever spelling stands in it.
fn types(form: Form) -> (&'static str, &'static str) {
    match form {
        Form::Bundle(media_type) => (media_type, media_type),
        Form::Envelope => (
            "application/vnd.in-toto+json",
            "application/vnd.dsse.envelope.v1+json",
        ),
    }
}

/// Everybody who may read the repository reads these: which run it was, and nothing of who made it.
fn annotations(delivery: &Delivery<'_, OciRegistry>) -> BTreeMap<String, String> {
    let attestation = delivery.pushed.attestation;
    let mut annotations = vec![
        (
            "dev.chainloop.workflow.name",
            delivery.pushed.workflow.name.clone(),
        ),
        (
            "dev.chainloop.workflow.project",
            delivery.pushed.workflow.project.clone(),
        ),
    ];
    if let Some(predicate) = attestation.predicate() {
        let about = &predicate.metadata;
        annotations.push(("dev.chainloop.workflow.run", about.workflow_run_id.clone()));
        // When the run ended rather than now: a retry makes the same bytes.
        if let Ok(finished) = about.finished_at.parse::<jiff::Timestamp>() {
            annotations.push(("org.opencontainers.image.created", finished.to_string()));
        }
    }
    if let Some(verdict) = delivery.pushed.judged() {
        annotations.push((
            "dev.chainloop.signature.verdict",
            verdict.outcome.to_string(),
        ));
    }
    if matches!(attestation.form, Form::Bundle(_)) {
        let predicate_type = attestation.statement.predicate_type.clone();
        annotations.push(("dev.sigstore.bundle.content", "dsse-envelope".to_owned()));
        annotations.push(("dev.sigstore.bundle.predicateType", predicate_type));
    }
    annotations
        .into_iter()
        .map(|(key, value)| (key.to_owned(), excerpt(&value, EXCERPT_BYTES)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// The images of this repository that are attested, each once.
pub fn images(delivery: &Delivery<'_, OciRegistry>) -> Vec<Digest> {
    let repository = &delivery.registration.repository;
    let materials = delivery.pushed.attestation.materials().iter();
    let materials = materials
        .filter(|material| material.kind == MaterialType::CONTAINER_IMAGE)
        .filter(|material| repository.is_named(&material.value))
        .filter_map(|material| material.digest);
    let subjects = delivery.pushed.attestation.statement.subjects.iter();
    let subjects = subjects
        .filter(|subject| repository.is_named(&subject.name))
        .filter_map(|subject| subject.digests.get("sha256")?.parse().ok());
    let mut images: Vec<Digest> = Vec::new();
    for image in materials.chain(subjects) {
        if !images.contains(&image) {
            images.push(image);
        }
        if images.len() == MAX_IMAGES {
            break;
        }
    }
    images
}

/// More images than these are not asked for: one can be the subject.
const MAX_IMAGES: usize = 4;

fn has(manifests: &[Value], digest: Digest) -> bool {
    let digest = digest.to_string();
    manifests.iter().any(|one| one["digest"] == *digest)
}

/// Looks a manifest up in a list of referrers.
pub fn is_listed(index: &[u8], digest: Digest) -> bool {
    let index: Value = serde_json::from_slice(index).unwrap_or_default();
    index["manifests"]
        .as_array()
        .is_some_and(|manifests| has(manifests, digest))
}

/// The list of what refers to an image, with one more in it; nothing when it is there already.
pub fn with_referrer(index: Option<&[u8]>, new: &Descriptor) -> Result<Option<Bytes>, Error> {
    let not_one = || Error::permanent("it is not an image index");
    let mut index: Map<String, Value> = match index {
        None => Map::from_iter([
            ("schemaVersion".to_owned(), json!(2)),
            ("mediaType".to_owned(), json!(INDEX)),
        ]),
        Some(bytes) => serde_json::from_slice(bytes).map_err(|_| not_one())?,
    };
    if index.get("mediaType").is_some_and(|kind| kind != INDEX) {
        return Err(not_one());
    }
    let Value::Array(manifests) = index.entry("manifests").or_insert_with(|| json!([])) else {
        return Err(not_one());
    };
    if has(manifests, new.digest) {
        return Ok(None);
    }
    manifests.push(json!(new));
    Ok(Some(Value::Object(index).to_string().into()))
}
