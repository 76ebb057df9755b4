//! Judges over arbitrary documents, and policies that anybody may write.

use std::sync::LazyLock;

use api::Timestamp;
use api::trust::{Outcome, Policy, Verdict};
use attestation::{Attestation, Envelope};
use verify::Judge;

pub const WORDS: &[&str] = &[
    "verificationMaterial",
    "certificate",
    "rawBytes",
    "x509CertificateChain",
    "certificates",
    "publicKey",
    "hint",
    "tlogEntries",
    "logIndex",
    "logId",
    "keyId",
    "kindVersion",
    "kind",
    "version",
    "integratedTime",
    "inclusionPromise",
    "signedEntryTimestamp",
    "inclusionProof",
    "rootHash",
    "treeSize",
    "hashes",
    "checkpoint",
    "envelope",
    "canonicalizedBody",
    "timestampVerificationData",
    "rfc3161Timestamps",
    "signedTimestamp",
    "dsseEnvelope",
    "payload",
    "payloadType",
    "signatures",
    "sig",
    "keyid",
    "mediaType",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
];

pub const POLICY_WORDS: &[&str] = &[
    "mode",
    "off",
    "warn",
    "require",
    "threshold",
    "signers",
    "kind",
    "key",
    "kms",
    "keyless",
    "chainloop",
    "name",
    "pem",
    "arn",
    "issuer",
    "identity",
    "exact",
    "prefix",
    "glob",
    "trusted_root",
    "public-good",
    "json",
    "ca_pem",
    "organization",
    "timestamp_pem",
    "-----BEGIN PUBLIC KEY-----\n",
    "-----BEGIN CERTIFICATE-----\n",
    "-----BEGIN PRIVATE KEY-----\n",
    "arn:aws:kms:eu-central-1:123456789012:key/a",
    "https://github.com/acme/**",
    "**",
    "*@example.com",
    "certificateAuthorities",
    "certChain",
    "certificates",
    "rawBytes",
    "tlogs",
    "ctlogs",
    "timestampAuthorities",
    "validFor",
];

macro_rules! signed {
    ($($name:literal),+) => {
        /// A document by a signer of each kind, and the policy that trusts them.
        const SIGNED: &[(&str, &str)] = &[$((
            include_str!(concat!("../../../shared/verify/tests/files/signed/", $name, ".json")),
            include_str!(concat!("../../../shared/verify/tests/files/signed/", $name, ".policy.json")),
        )),+];
    };
}

signed!("key", "chainloop", "keyless");

struct Case {
    judge: Judge,
    document: &'static [u8],
    envelope: Envelope,
}

static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let case = |&(document, policy): &(&'static str, &str)| {
        let policy = serde_json::from_str(policy).expect("a policy");
        let judge = Judge::new(&policy, "etag").expect("a policy in order");
        let document = document.as_bytes();
        let attestation = Attestation::parse(document).expect("an attestation");
        let case = Case {
            judge,
            document,
            envelope: attestation.envelope.clone(),
        };
        assert_eq!(
            outcome(&case.judge, attestation, document),
            Outcome::Verified
        );
        case
    };
    SIGNED.iter().map(case).collect()
});

fn outcome(judge: &Judge, attestation: Attestation, document: &[u8]) -> Outcome {
    verdict_of(judge, attestation, document).outcome
}

fn verdict_of(judge: &Judge, attestation: Attestation, document: &[u8]) -> Verdict {
    let at: Timestamp = "2026-06-01T01:00:00Z".parse().expect("static text");
    let judged = judge.judge(attestation, document, at);
    assert!(judged.verdict().is_of(judged.attestation()));
    judged.into_parts().1
}

/// Nothing but the signed payload is verified, whatever is around it.
pub fn verdict(input: &[u8]) {
    for case in CASES.iter() {
        if let Ok(attestation) = Attestation::parse(input) {
            let (kind, payload) = (
                attestation.envelope.payload_type.clone(),
                attestation.envelope.payload.clone(),
            );
            if outcome(&case.judge, attestation, input) == Outcome::Verified {
                assert_eq!(
                    (kind, payload),
                    (
                        case.envelope.payload_type.clone(),
                        case.envelope.payload.clone()
                    )
                );
            }
        }
        // As a bundle that was found later, for what a stranger signed, and for what a signer signed.
        let stranger =
            Attestation::parse(&crate::attestation::signed(case.envelope.payload.clone()));
        assert_ne!(
            outcome(&case.judge, stranger.expect("an attestation"), input),
            Outcome::Verified
        );
        let own = Attestation::parse(case.document).expect("an attestation");
        outcome(&case.judge, own, input);
    }
}

/// A policy is refused, or it judges: what it verifies, a signer of its own has signed.
pub fn policy(input: &[u8]) {
    let Ok(policy) = serde_json::from_slice::<Policy>(input) else {
        return;
    };
    let written = serde_json::to_vec(&policy).expect("a policy is JSON");
    assert_eq!(
        serde_json::from_slice::<Policy>(&written).expect("a policy is read"),
        policy
    );
    let judge = match Judge::new(&policy, "etag") {
        Ok(judge) => judge,
        Err(fault) => {
            assert!(fault.to_string().len() <= 2048);
            return;
        }
    };
    for case in CASES.iter() {
        let own = Attestation::parse(case.document).expect("an attestation");
        let verdict = verdict_of(&judge, own, case.document);
        let names: Vec<&str> = verdict
            .signers
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert!(
            names
                .iter()
                .all(|name| policy.signers.iter().any(|one| one.name() == *name))
        );
        if verdict.outcome == Outcome::Verified {
            assert!(!names.is_empty() && names.len() >= policy.threshold);
        }
        let stranger =
            Attestation::parse(&crate::attestation::signed(case.envelope.payload.clone()));
        let of_stranger = outcome(&judge, stranger.expect("an attestation"), case.document);
        assert_ne!(of_stranger, Outcome::Verified);
    }
}
