//! Materials: uploads and downloads.

use attestation::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::platform::{Download, Upload};

/// Body of `PUT /v1/materials/{digest}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMaterial {
    #[schemars(range(max = crate::attestations::MATERIAL_MAX_BYTES))]
    pub size_bytes: u64,
}

/// Response of `PUT /v1/materials/{digest}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "state")]
#[schemars(rename = "MaterialUpload")]
pub enum NewUpload {
    /// The bytes are present.
    Present,
    /// Send the bytes with this request.
    Needed { upload: Upload },
}

/// Response of `GET /v1/attestations/{digest}/content` and `GET /v1/materials/{digest}`: a download, valid for 15
/// minutes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Content {
    /// Digest that the bytes must have.
    pub digest: Digest,
    pub size_bytes: u64,
    pub download: Download,
}
