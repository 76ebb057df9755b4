//! The organization, its quotas, and the token that asks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::QuotaUse;
use crate::ids::OrganizationName;
use crate::permission::Role;
use crate::timestamp::Timestamp;
use crate::workflows::Selector;

/// Response of `GET /v1/organization`: the token that asked.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Bearer {
    pub organization: OrganizationName,
    /// The token's id.
    pub id: String,
    pub name: String,
    pub role: Role,
    /// Workflows that it is restricted to; not restricted when empty.
    #[serde(default)]
    pub workflows: Vec<Selector>,
    pub expires_at: Option<Timestamp>,
    /// Release of the API; none before 0.3.0.
    #[serde(default)]
    pub release: Option<String>,
}

/// Response of `GET /v1/health`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// The quotas of the organization, and how much of each is used.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Quotas {
    pub quotas: Vec<QuotaUse>,
    /// Requests a minute for which a token may have third parties asked; a third of them at once.
    pub checks_per_minute: u64,
}
