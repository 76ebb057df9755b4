//! Trust policies, and how an attestation's workflow finds its own.

use api::trust::Policy;
use api::workflows::Selector;
use api::{OrganizationName, Timestamp, TrustPolicyId};
use serde::{Deserialize, Serialize};

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

impl Row for TrustPolicyLink {
    fn key(&self) -> Key {
        let partition = AttachmentIndex::of_workflow(&self.organization, &self.workflow);
        Key::new(partition, "trust-policy")
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
