//! Integrations, and the schemas of their inputs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An integration that can be registered.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Integration {
    pub id: String,
    pub version: String,
    pub description: String,
    /// Material types that it is sent.
    pub materials: Vec<String>,
    pub registration_schema: Value,
    pub attachment_schema: Value,
}
