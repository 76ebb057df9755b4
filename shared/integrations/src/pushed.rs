//! An attestation as it was pushed: what integrations, filters and templates look at.

use api::trust::{Outcome, Proof, Verdict, VerifiedSigner};
use attestation::Attestation;

use crate::Workflow;

/// An attestation, the workflow that it is of, and the verdict on its signatures.
#[derive(Debug, Clone, Copy)]
pub struct Pushed<'a> {
    pub attestation: &'a Attestation,
    pub workflow: &'a Workflow,
    /// None where no trust policy asked for one.
    pub verdict: Option<&'a Verdict>,
    /// Address of the stack's console, where it is known.
    pub console: Option<&'a str>,
}

impl<'a> Pushed<'a> {
    /// The verdict in one word; `off` where nothing was judged.
    pub fn outcome(&self) -> Outcome {
        self.verdict.map_or(Outcome::Off, |verdict| verdict.outcome)
    }

    /// The attestation's page in the console.
    pub fn page(&self) -> Option<String> {
        let console = self.console?;
        Some(format!(
            "{console}?attestation={}",
            self.attestation.received
        ))
    }

    /// The verdict, where something was judged.
    pub(crate) fn judged(&self) -> Option<&'a Verdict> {
        self.verdict
            .filter(|verdict| verdict.outcome != Outcome::Off)
    }

    /// Signers whose signature was verified, also where they were too few.
    pub(crate) fn signers(&self) -> &'a [VerifiedSigner] {
        self.verdict.map_or(&[], |verdict| &verdict.signers)
    }
}

/// The issuer of a signer's certificate; none for a key.
pub(crate) fn issuer(signer: &VerifiedSigner) -> Option<&str> {
    match &signer.proof {
        Proof::Keyless { issuer, .. } => Some(issuer),
        Proof::Chainloop { .. } | Proof::Key { .. } | Proof::Kms { .. } => None,
    }
}

/// The identity in a signer's certificate; none for a key.
pub(crate) fn identity(signer: &VerifiedSigner) -> Option<&str> {
    match &signer.proof {
        Proof::Keyless { identity, .. } => Some(identity),
        Proof::Chainloop { organization } => Some(organization),
        Proof::Key { .. } | Proof::Kms { .. } => None,
    }
}
