//! Trust: which signers an organization trusts, per workflow, and what was found out about an attestation's signatures.
//!
//! The types only; `verify` judges.

pub mod fault;
mod identity;
mod policy;
mod verdict;

use attestation::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::TrustPolicyId;
use crate::names;
use crate::timestamp::Timestamp;
use crate::workflows::Workflow;

pub use fault::{Fault, Problem};
pub use identity::Identity;
pub(crate) use identity::glob_fits;
pub use policy::{Mode, Policy, Signer, TrustedRoot};
pub use verdict::{Code, Outcome, Proof, Reason, Verdict, VerifiedSigner};

/// Body of `POST /v1/trust-policies`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTrustPolicy {
    #[schemars(regex(pattern = names::LABEL))]
    pub name: String,
    /// An id, a name, `project/name`, `project/*`, or `*`.
    #[schemars(length(min = 1, max = 512))]
    pub workflow: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub project: Option<String>,
    pub mode: Mode,
    /// Number of distinct keys that have to sign.
    #[serde(default = "policy::one")]
    #[schemars(range(min = 1))]
    pub threshold: usize,
    #[serde(default)]
    #[schemars(length(max = fault::MAX_SIGNERS))]
    pub signers: Vec<Signer>,
}

/// Body of `POST /v1/attestations/judge`: a policy to try on attestations that were accepted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrialPolicy {
    /// An id, a name, `project/name`, `project/*`, or `*`.
    #[schemars(length(min = 1, max = 512))]
    pub workflow: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub project: Option<String>,
    /// Number of distinct keys that have to sign.
    #[serde(default = "policy::one")]
    #[schemars(range(min = 1))]
    pub threshold: usize,
    #[schemars(length(max = fault::MAX_SIGNERS))]
    pub signers: Vec<Signer>,
    /// Attestations accepted at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// An attestation and the verdict that a policy would have given it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TriedAttestation {
    /// Hash of the envelope.
    pub attestation: Digest,
    pub workflow: Workflow,
    /// None where its bytes are not kept any more.
    pub verdict: Option<Verdict>,
    pub created_at: Timestamp,
}

/// A trust policy.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TrustPolicy {
    pub id: TrustPolicyId,
    pub name: String,
    /// An id, `project/name`, `project/*`, or `*`.
    pub workflow: String,
    pub mode: Mode,
    pub threshold: usize,
    pub signers: Vec<Signer>,
    /// The name of the token that made it.
    pub created_by: String,
    pub created_at: Timestamp,
    /// Version for `If-Match`, there in quotes.
    pub etag: String,
}

/// A trust policy as a list has it: without keys and certificates.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ListedTrustPolicy {
    pub id: TrustPolicyId,
    pub name: String,
    /// An id, `project/name`, `project/*`, or `*`.
    pub workflow: String,
    pub mode: Mode,
    pub threshold: usize,
    /// Names of the signers.
    pub signers: Vec<String>,
    pub created_by: String,
    pub created_at: Timestamp,
}
