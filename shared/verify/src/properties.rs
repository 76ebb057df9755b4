//! Properties over arbitrary and mutated input: nothing panics, and nothing that was touched is verified.

use std::sync::LazyLock;

use api::trust::{Identity, Outcome, Policy};
use attestation::Attestation;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;

use crate::Judge;
use crate::forge::*;

struct Case {
    judge: Judge,
    policy: Policy,
    document: Vec<u8>,
}

/// A document of each kind that is verified, with its judge.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let world = World::new();
    let own = key();
    let signed = envelope(PAYLOAD, vec![sign(&own, "", PAYLOAD)]).compact();
    let exact = Identity::Exact(WORKFLOW.to_owned());
    let cases = [
        (key_signer("own", own.public_key_pem()), signed),
        (
            world.chainloop(true),
            world.bundle(&of_organization(&ORGANIZATION), &[5]),
        ),
        (
            world.keyless("sigstore", exact),
            world.bundle(&of_workflow(ISSUER, WORKFLOW), &[5]),
        ),
    ];
    let case = |(signer, document)| {
        let policy = policy(1, vec![signer]);
        Case {
            judge: Judge::new(&policy, "etag").unwrap(),
            policy,
            document,
        }
    };
    cases.into_iter().map(case).collect()
});

/// The policy of all these signers, as text.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let world = World::new();
    let exact = Identity::Exact(WORKFLOW.to_owned());
    let signers = vec![
        key_signer("own", key().public_key_pem()),
        world.chainloop(true),
        world.keyless("sigstore", exact),
    ];
    serde_json::to_string(&policy(2, signers)).unwrap()
});

/// Judges what can be parsed, at a time at which all three are verified.
fn outcome(case: &Case, document: &[u8]) -> Option<(Outcome, Attestation)> {
    let attestation = Attestation::parse(document).ok()?;
    let (attestation, verdict) = case
        .judge
        .judge(attestation, document, minute(60).into())
        .into_parts();
    assert!(verdict.is_of(&attestation));
    Some((verdict.outcome, attestation))
}

fn flip(bytes: &mut [u8], index: prop::sample::Index, bit: u8) {
    let place = index.index(bytes.len());
    bytes[place] ^= 1 << bit;
}

#[test]
fn the_documents_that_are_mutated_are_verified() {
    for case in CASES.iter() {
        assert_eq!(outcome(case, &case.document).unwrap().0, Outcome::Verified);
    }
}

/// Files that the fuzz targets begin with, and that stay as they are: with `FORGE=1` others are made.
#[test]
fn the_documents_of_the_fuzz_targets_are_verified() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files/signed");
    for (name, case) in ["key", "chainloop", "keyless"].iter().zip(CASES.iter()) {
        let files = [".json", ".policy.json"].map(|end| format!("{folder}/{name}{end}"));
        if std::env::var_os("FORGE").is_some() {
            std::fs::write(&files[0], &case.document).unwrap();
            std::fs::write(&files[1], serde_json::to_vec_pretty(&case.policy).unwrap()).unwrap();
        }
        let [document, policy] = files.map(|file| std::fs::read(file).unwrap());
        let judge = Judge::new(&serde_json::from_slice(&policy).unwrap(), "etag").unwrap();
        let case = Case {
            judge,
            document,
            policy: case.policy.clone(),
        };
        assert_eq!(outcome(&case, &case.document).unwrap().0, Outcome::Verified);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// By a signer with a certificate it is known to be false; a key alone cannot say whose it was.
    #[test]
    fn a_flipped_bit_of_the_payload_is_never_verified(index: prop::sample::Index, bit in 0_u8..8, which in 0_usize..3) {
        let case = &CASES[which];
        let mut attestation = Attestation::parse(&case.document).unwrap();
        flip(&mut attestation.envelope.payload, index, bit);
        let judged = case.judge.judge(attestation, &case.document, minute(60).into());
        let expected = if which == 0 { Outcome::UnknownSigner } else { Outcome::Invalid };
        prop_assert_eq!(judged.verdict().outcome, expected);
    }

    #[test]
    fn a_flipped_bit_of_the_signature_is_never_verified(index: prop::sample::Index, bit in 0_u8..8, which in 0_usize..3) {
        let case = &CASES[which];
        let mut attestation = Attestation::parse(&case.document).unwrap();
        flip(&mut attestation.envelope.signatures[0].sig, index, bit);
        let judged = case.judge.judge(attestation, &case.document, minute(6).into());
        let expected = if which == 0 { Outcome::UnknownSigner } else { Outcome::Invalid };
        prop_assert_eq!(judged.verdict().outcome, expected);
    }

    #[test]
    fn a_flipped_bit_of_the_certificate_is_never_verified(index: prop::sample::Index, bit in 0_u8..8, which in 1_usize..3) {
        let case = &CASES[which];
        let mut document: Value = serde_json::from_slice(&case.document).unwrap();
        let text = document["verificationMaterial"]["certificate"]["rawBytes"].take();
        let mut der = base64_simd::STANDARD.decode_to_vec(text.as_str().unwrap()).unwrap();
        flip(&mut der, index, bit);
        document["verificationMaterial"]["certificate"]["rawBytes"] = base64_simd::STANDARD.encode_to_string(der).into();
        let (outcome, _) = outcome(case, document.to_string().as_bytes()).unwrap();
        prop_assert!(matches!(outcome, Outcome::UnknownSigner | Outcome::Unverifiable), "{outcome:?}");
    }

    /// Whatever is cut, put in or changed: what is verified is the signed payload under the signature.
    #[test]
    fn a_mutated_document_is_verified_for_the_signed_payload_alone(
        which in 0_usize..3,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 1..4),
    ) {
        let case = &CASES[which];
        let mut document = case.document.clone();
        for (index, byte, edit) in edits {
            let place = index.index(document.len());
            match edit {
                0 => document[place] = byte,
                1 => document.insert(place, byte),
                _ => document.truncate(place.max(1)),
            }
        }
        if let Some((Outcome::Verified, attestation)) = outcome(case, &document) {
            prop_assert_eq!(attestation.envelope.payload, PAYLOAD);
        }
    }

    #[test]
    fn no_material_makes_it_panic_or_a_strangers_envelope_verified(material: Vec<u8>, json in "[\\[\\]{}\",:a-zA-Z0-9]{0,64}") {
        let stranger = envelope(PAYLOAD, vec![sign(&key(), "", PAYLOAD)]).compact();
        let attestation = Attestation::parse(&stranger).unwrap();
        let wrapped = format!(r#"{{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{json}}}"#);
        for case in CASES.iter() {
            for document in [&material, wrapped.as_bytes(), &case.document] {
                let judged = case.judge.judge(attestation.clone(), document, minute(60).into());
                prop_assert_ne!(judged.verdict().outcome, Outcome::Verified);
            }
        }
    }

    #[test]
    fn no_certificate_makes_it_panic(der: Vec<u8>, token: Vec<u8>) {
        let case = &CASES[1];
        let attestation = Attestation::parse(&case.document).unwrap();
        let document = bundle(&attestation.envelope, &material(&der, &[token]));
        prop_assert_eq!(outcome(case, &document).unwrap().0, Outcome::Unverifiable);
    }

    /// A key counts always, a timestamp once its time has come, and Chainloop's certificate from its first minute.
    #[test]
    fn the_time_of_receipt_is_never_too_late_and_may_be_too_early(
        second in prop_oneof![-377_705_023_201_i64..=253_402_207_200, 1_780_271_000_i64..1_780_273_000],
    ) {
        let at = Timestamp::from_second(second).unwrap();
        let from = [Timestamp::MIN, minute(0), minute(5)];
        for (case, from) in CASES.iter().zip(from) {
            let attestation = Attestation::parse(&case.document).unwrap();
            let judged = case.judge.judge(attestation, &case.document, at.into());
            prop_assert_eq!(judged.verdict().outcome == Outcome::Verified, at >= from);
        }
    }

    #[test]
    fn no_policy_makes_it_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..4),
        arbitrary in ".{0,256}",
    ) {
        let mut letters: Vec<char> = POLICY.chars().collect();
        for (index, letter) in edits {
            let place = index.index(letters.len());
            letters[place] = letter;
        }
        for text in [letters.into_iter().collect(), arbitrary] {
            if let Ok(policy) = serde_json::from_str::<Policy>(&text) {
                let _ = Judge::new(&policy, "etag");
            }
        }
    }
}
