//! Trust policies, and how an attestation's workflow finds its own; issuers of JWTs, and their keys.

use api::issuers::Rule;
use api::trust::Policy;
use api::workflows::Selector;
use api::{IssuerId, OrganizationName, Timestamp, TrustPolicyId};
use serde::{Deserialize, Serialize};
use verify::Jwk;

use super::configuration::AttachmentIndex;
use super::row::Row;
use crate::store::platform::Key;

/// Requirements on the signatures of the attestations of some workflows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrustPolicy {
    pub organization: OrganizationName,
    /// Unique in the organization.
    pub name: String,
    pub id: TrustPolicyId,
    pub workflow: Selector,
    pub policy: Policy,
    /// The name of the token that made it.
    pub created_by: String,
    pub created_at: Timestamp,
}

impl TrustPolicy {
    pub fn partition(organization: &OrganizationName) -> String {
        format!("trust/{organization}")
    }

    pub fn at(organization: &OrganizationName, name: &str) -> Key {
        Key::new(Self::partition(organization), name)
    }

    pub fn link(&self) -> TrustPolicyLink {
        TrustPolicyLink {
            organization: self.organization.clone(),
            workflow: self.workflow.clone(),
            policy: self.name.clone(),
            id: self.id.clone(),
        }
    }
}

impl Row for TrustPolicy {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.name)
    }
}

/// A policy as found from its workflow, beside the attachments: a selector has one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrustPolicyLink {
    pub organization: OrganizationName,
    pub workflow: Selector,
    /// The policy's name.
    pub policy: String,
    pub id: TrustPolicyId,
}

impl TrustPolicyLink {
    pub fn at(organization: &OrganizationName, workflow: &Selector) -> Key {
        let partition = AttachmentIndex::of_workflow(organization, workflow);
        Key::new(partition, "trust-policy")
    }
}

impl Row for TrustPolicyLink {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.workflow)
    }
}

/// Link at a selector: accepting reads all of a selector's at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WorkflowLink {
    Attachment(AttachmentIndex),
    TrustPolicy(TrustPolicyLink),
}

impl Row for WorkflowLink {
    fn key(&self) -> Key {
        match self {
            Self::Attachment(link) => link.key(),
            Self::TrustPolicy(link) => link.key(),
        }
    }
}

/// Issuer whose JWTs are exchanged for tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Issuer {
    pub organization: OrganizationName,
    /// Unique in the organization.
    pub name: String,
    pub id: IssuerId,
    /// The `iss` of its JWTs.
    pub issuer: String,
    pub audience: String,
    /// URL of its key set; found by its own description when none.
    #[serde(default)]
    pub jwks_url: Option<String>,
    pub rules: Vec<Rule>,
    /// The name of the token that made it.
    pub created_by: String,
    pub created_at: Timestamp,
}

impl Issuer {
    pub fn partition(organization: &OrganizationName) -> String {
        format!("issuers/{organization}")
    }

    pub fn at(organization: &OrganizationName, name: &str) -> Key {
        Key::new(Self::partition(organization), name)
    }
}

impl Row for Issuer {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.name)
    }
}

/// Keys of an issuer: asked for by the function that verifies, fetched by another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IssuerKeys {
    pub organization: OrganizationName,
    /// The issuer's id.
    pub id: IssuerId,
    pub issuer: String,
    /// URL of the key set; found by the issuer's own description when none.
    #[serde(default)]
    pub jwks_url: Option<String>,
    #[serde(default)]
    pub keys: Vec<Jwk>,
    /// When the keys came.
    #[serde(default)]
    pub fetched_at: Option<Timestamp>,
    /// When they were last asked for.
    pub asked_at: Timestamp,
    /// When that was tried last, with success or without.
    #[serde(default)]
    pub tried_at: Option<Timestamp>,
    /// Reason why it failed then.
    #[serde(default)]
    pub fault: Option<String>,
}

impl IssuerKeys {
    pub fn at(organization: &OrganizationName, id: &IssuerId) -> Key {
        Key::new(format!("keys/{organization}"), id.as_str())
    }
}

impl Row for IssuerKeys {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.id)
    }
}
