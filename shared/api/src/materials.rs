//! Materials: uploads and downloads.

use std::collections::BTreeMap;
use std::fmt;

use attestation::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The largest material that can be uploaded or fetched: 100 MiB, as in Chainloop's own store. Deliveries read it
/// piece by piece, so memory would allow more; no larger one has been tried.
pub const MATERIAL_MAX_BYTES: u64 = 100 * 1024 * 1024;

/// Body of `PUT /v1/materials/{digest}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMaterial {
    #[schemars(range(max = MATERIAL_MAX_BYTES))]
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

/// A presigned upload: exactly these headers, exactly these bytes, once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Upload {
    pub method: String,
    pub url: String,
    pub headers: BTreeMap<String, String>,
}

/// A presigned download: whoever has the address has the bytes, for 15 minutes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Download {
    pub url: String,
}

impl fmt::Debug for Upload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Upload(…)")
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Download(…)")
    }
}
