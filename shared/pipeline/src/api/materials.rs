//! Materials: uploads and downloads.

use attestation::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::platform::{Download, Upload};

/// What `PUT /v1/materials/{digest}` takes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMaterial {
    #[schemars(range(max = crate::attestations::MATERIAL_MAX_BYTES))]
    pub size_bytes: u64,
}

/// What `PUT /v1/materials/{digest}` answers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "state")]
#[schemars(rename = "MaterialUpload")]
pub enum NewUpload {
    /// Those bytes are here already.
    Present,
    /// Send the bytes so.
    Needed { upload: Upload },
}

/// What `GET /v1/attestations/{digest}/content` and `GET /v1/materials/{digest}` answer: where the bytes are to be
/// had, for a quarter of an hour.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Content {
    /// What the bytes must have.
    pub digest: Digest,
    pub size_bytes: u64,
    pub download: Download,
}
