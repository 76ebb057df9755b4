//! Attestations: accepted, listed and described.

use std::collections::BTreeMap;

use attestation::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::actor::Actor;
use crate::deliveries::Delivery;
use crate::ids::{AttachmentId, DeliveryId, RegistrationId};
use crate::timestamp::Timestamp;
use crate::trust::Verdict;
use crate::workflows::Workflow;

/// Response of `POST /v1/attestations`, whose body is the envelope or the bundle itself.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AcceptedAttestation")]
pub struct Accepted {
    /// The envelope's hash, by which the attestation is known.
    pub attestation: Digest,
    /// Digest of the bytes as sent.
    pub received: Digest,
    /// The attestation was accepted before; nothing is sent again.
    pub repeated: bool,
    pub workflow: Workflow,
    pub deliveries: Vec<Planned>,
    /// Missing materials that a delivery waits for.
    pub missing: Vec<Digest>,
    /// On its signatures; none where no trust policy asks for one.
    #[serde(default)]
    pub verdict: Option<Verdict>,
}

/// A delivery of an accepted attestation.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PlannedDelivery")]
pub struct Planned {
    pub id: DeliveryId,
    pub attachment: AttachmentId,
    /// The registration's id.
    pub registration: RegistrationId,
    /// The registration's name, where `names` asked for it; none when it is not for whoever asks.
    #[serde(default)]
    pub registration_name: Option<String>,
    pub integration: String,
}

/// An attestation as a list has it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Attestation {
    /// The envelope's hash, by which it is known.
    pub attestation: Digest,
    /// Digest of the bytes received first; these are delivered.
    pub received: Digest,
    pub size_bytes: u64,
    pub workflow: Workflow,
    pub run: String,
    pub predicate_type: String,
    /// The one who sent it first, and from where; none when that is not known, or not for whoever asks.
    #[serde(default)]
    pub pushed_by: Option<Actor>,
    /// On its signatures; none where no trust policy asked for one.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    pub created_at: Timestamp,
}

/// Response of `GET /v1/attestations/{digest}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DescribedAttestation")]
pub struct Described {
    #[serde(flatten)]
    pub attestation: Attestation,
    /// Digests of other bytes that hold the same envelope and came later.
    pub also: Vec<Digest>,
    /// State of the bytes.
    pub bytes: Bytes,
    /// Contents of the bytes; none if these are gone.
    pub contents: Option<Contents>,
    /// The newest hundred.
    pub deliveries: Vec<Delivery>,
    /// There are more.
    pub more_deliveries: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "AttestationBytes")]
pub enum Bytes {
    Kept,
    Gone,
    /// The bytes do not have their digest.
    Damaged,
}

/// Contents of an attestation.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AttestationContents")]
pub struct Contents {
    /// `envelope` or `bundle`.
    pub form: String,
    /// Ids of the keys that signed it, as it names them; the verdict says whether they did.
    pub key_ids: Vec<String>,
    /// The first hundred.
    pub subjects: Vec<Subject>,
    pub subjects_total: usize,
    /// A hundred of them, the first ones unless `materials_from` says otherwise.
    pub materials: Vec<Material>,
    #[serde(default)]
    pub materials_total: usize,
    /// Entries of its list that are no materials by Chainloop's rules.
    pub materials_dropped: usize,
    /// None where the predicate is not Chainloop's.
    pub policy: Option<Policy>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    pub name: String,
    /// Algorithm to digest.
    pub digests: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Material {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub filename: String,
    /// The beginning of it.
    pub value: String,
    pub digest: Option<Digest>,
    pub size_bytes: Option<u64>,
    pub place: Place,
}

/// Place of a material's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "MaterialPlace")]
pub enum Place {
    /// In the attestation itself.
    Inline,
    /// Uploaded and present.
    Uploaded,
    /// Promised and not uploaded.
    Missing,
    /// Not promised: an image in its registry, a file that was not uploaded.
    Elsewhere,
}

/// Results of the policies.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PolicyResult")]
pub struct Policy {
    /// `PASSED`, `WARNING`, `BLOCKED` …: Chainloop's own words.
    pub status: String,
    pub evaluations: u64,
    pub violations: u64,
    pub skipped: u64,
    pub passed: u64,
    pub suppressed: u64,
    /// The first fifty, where the attestation itself has them.
    pub found: Vec<Violation>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PolicyViolation")]
pub struct Violation {
    pub policy: String,
    /// The material's name; empty where the attestation itself was looked at.
    pub material: String,
    pub message: String,
}

impl From<&attestation::Policy> for Policy {
    fn from(policy: &attestation::Policy) -> Self {
        let found = policy.found.iter().map(|found| Violation {
            policy: found.policy.clone(),
            material: found.material.clone(),
            message: found.message.clone(),
        });
        Self {
            status: policy.status().to_string(),
            evaluations: policy.evaluations,
            violations: policy.violations,
            skipped: policy.skipped,
            passed: policy.passed,
            suppressed: policy.suppressed,
            found: found.collect(),
        }
    }
}
