use api::trust::fault::*;
use api::trust::{Code, Identity, Mode, Outcome, Policy, Proof, Signer, TrustedRoot, Verdict};
use attestation::{Attestation, Envelope};
use base64_simd::STANDARD;
use jiff::Timestamp;
use rcgen::{
    ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PublicKeyData as _,
};
use serde_json::{Value, json};

use crate::forge::*;
use crate::key::PublicKey;
use crate::{Judge, MAX_TRIES};

const RSA_2048: &str = include_str!("../tests/files/rsa-2048.pub.pem");
const RSA_1024: &str = include_str!("../tests/files/rsa-1024.pub.pem");
const P384: &str = include_str!("../tests/files/p384.pub.pem");
const P521: &str = include_str!("../tests/files/p521.pub.pem");
const SECP256K1: &str = include_str!("../tests/files/secp256k1.pub.pem");

#[track_caller]
fn check(judge: &Judge, document: &[u8], at: Timestamp, code: Code) -> Verdict {
    let verdict = crate::forge::judge(judge, document, at).verdict().clone();
    assert_eq!(
        (verdict.reason.code, verdict.outcome),
        (code, code.outcome())
    );
    verdict
}

fn signed_by(keys: &[(&KeyPair, &str)]) -> Vec<u8> {
    let signatures = keys
        .iter()
        .map(|(key, keyid)| sign(key, keyid, PAYLOAD))
        .collect();
    envelope(PAYLOAD, signatures).compact()
}

fn key_id(key: &KeyPair) -> String {
    attestation::Digest::of(&key.subject_public_key_info()).to_string()
}

fn names(verdict: &Verdict) -> Vec<&str> {
    verdict
        .signers
        .iter()
        .map(|signer| signer.name.as_str())
        .collect()
}

// --- keys ---------------------------------------------------------------------------------------------

#[test]
fn every_kind_of_key_verifies_its_own_signature_and_no_other() {
    for algorithm in [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ED25519,
    ] {
        let (own, other) = (key_of(algorithm), key_of(algorithm));
        let judge = judge_of(1, vec![key_signer("own", own.public_key_pem())]);
        check(
            &judge,
            &signed_by(&[(&own, "")]),
            minute(0),
            Code::ThresholdReached,
        );
        check(
            &judge,
            &signed_by(&[(&other, "")]),
            minute(0),
            Code::NoConfiguredSigner,
        );
    }
    // By OpenSSL, with the hash and the paddings that ring cannot sign with.
    for (pem, sig) in [
        (RSA_2048, include_str!("../tests/files/rsa-2048.pkcs1.sig")),
        (RSA_2048, include_str!("../tests/files/rsa-2048.pss.sig")),
        (P384, include_str!("../tests/files/p384.sha256.sig")),
    ] {
        let sig = STANDARD.decode_to_vec(sig).unwrap();
        let signature = attestation::Signature {
            keyid: String::new(),
            sig,
        };
        let judge = judge_of(1, vec![key_signer("openssl", pem)]);
        let document = envelope(PAYLOAD, vec![signature.clone()]).compact();
        check(&judge, &document, minute(0), Code::ThresholdReached);
        let other = [PAYLOAD, b" "].concat();
        let document = envelope(&other, vec![signature]).compact();
        check(&judge, &document, minute(0), Code::NoConfiguredSigner);
    }
}

#[test]
fn a_keyid_is_a_hint_and_a_false_signature_in_a_known_name_is_invalid() {
    let (known, second, stranger) = (key(), key(), key());
    let judge = judge_of(
        1,
        vec![
            key_signer("known", known.public_key_pem()),
            key_signer("second", second.public_key_pem()),
        ],
    );
    let (known_id, stranger_id) = (key_id(&known), key_id(&stranger));
    let hex = known_id.trim_start_matches("sha256:").to_uppercase();
    for keyid in ["", "release key", &known_id, &hex, &stranger_id] {
        let verdict = check(
            &judge,
            &signed_by(&[(&known, keyid)]),
            minute(0),
            Code::ThresholdReached,
        );
        assert_eq!(names(&verdict), ["known"], "{keyid}");
        // The other known key is found although the name is the first one's.
        let verdict = check(
            &judge,
            &signed_by(&[(&second, keyid)]),
            minute(0),
            Code::ThresholdReached,
        );
        assert_eq!(names(&verdict), ["second"], "{keyid}");
    }
    for (keyid, code) in [
        ("", Code::NoConfiguredSigner),
        (&*stranger_id, Code::NoConfiguredSigner),
        (&*known_id, Code::SignatureMismatch),
        (&*hex, Code::SignatureMismatch),
    ] {
        let verdict = check(&judge, &signed_by(&[(&stranger, keyid)]), minute(0), code);
        assert!(verdict.signers.is_empty());
    }
    // What else is in the envelope takes nothing from a valid signature.
    check(
        &judge,
        &signed_by(&[(&stranger, &known_id), (&known, "")]),
        minute(0),
        Code::ThresholdReached,
    );
}

#[test]
fn a_key_of_kms_is_judged_as_a_key_and_named_by_its_arn() {
    let arn = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let (own, stranger) = (key(), key());
    let signer = Signer::Kms {
        name: "release".to_owned(),
        arn: arn.to_owned(),
        pem: own.public_key_pem(),
    };
    let judge = judge_of(1, vec![signer]);
    let verdict = check(
        &judge,
        &signed_by(&[(&own, arn)]),
        minute(0),
        Code::ThresholdReached,
    );
    let proof = Proof::Kms {
        key_id: key_id(&own).parse().unwrap(),
        arn: arn.to_owned(),
    };
    assert_eq!(verdict.signers[0].proof, proof);
    check(
        &judge,
        &signed_by(&[(&stranger, arn)]),
        minute(0),
        Code::SignatureMismatch,
    );
}

#[test]
fn a_threshold_counts_distinct_keys() {
    let (first, second, stranger) = (key(), key(), key());
    let judge = judge_of(
        2,
        vec![
            key_signer("first", first.public_key_pem()),
            key_signer("second", second.public_key_pem()),
        ],
    );
    let verdict = check(
        &judge,
        &signed_by(&[(&first, ""), (&second, "")]),
        minute(0),
        Code::ThresholdReached,
    );
    assert_eq!(names(&verdict), ["first", "second"]);
    for once in [
        vec![(&first, "")],
        vec![(&first, "a"), (&first, "b")],
        vec![(&first, ""), (&stranger, "")],
    ] {
        let verdict = check(
            &judge,
            &signed_by(&once),
            minute(0),
            Code::ThresholdNotReached,
        );
        assert_eq!(names(&verdict), ["first"]);
    }
}

#[test]
fn a_key_that_is_also_in_a_certificate_counts_once() {
    let world = World::new();
    let signers = vec![
        key_signer("key", world.key.public_key_pem()),
        key_signer("spare", key().public_key_pem()),
        world.chainloop(false),
    ];
    let document = world.bundle(&of_organization(&ORGANIZATION), &[]);
    let verdict = check(
        &judge_of(2, signers.clone()),
        &document,
        minute(1),
        Code::ThresholdNotReached,
    );
    assert_eq!(names(&verdict), ["chainloop", "key"]);
    check(
        &judge_of(1, signers),
        &document,
        minute(1),
        Code::ThresholdReached,
    );
}

#[test]
fn keys_are_tried_a_bounded_number_of_times_and_first_where_a_keyid_says() {
    let keys: Vec<_> = (0..MAX_SIGNERS).map(|_| key()).collect();
    let signers =
        |(index, key): (usize, &KeyPair)| key_signer(&format!("k{index}"), key.public_key_pem());
    let judge = |threshold| judge_of(threshold, keys.iter().enumerate().map(signers).collect());
    let (stranger, last) = (key(), keys.last().unwrap());
    let hints: Vec<_> = keys.iter().map(key_id).collect();
    let strangers = |count| vec![(&stranger, ""); count];

    // Each stranger's signature takes as many tries as there are keys.
    let most = MAX_TRIES / MAX_SIGNERS;
    check(
        &judge(1),
        &signed_by(&strangers(most)),
        minute(0),
        Code::NoConfiguredSigner,
    );
    check(
        &judge(1),
        &signed_by(&strangers(most + 1)),
        minute(0),
        Code::TooManySignatures,
    );
    let padded = [strangers(most), vec![(last, "")]].concat();
    check(
        &judge(1),
        &signed_by(&padded),
        minute(0),
        Code::TooManySignatures,
    );
    // What was found by then counts.
    let padded = [vec![(last, "")], strangers(most)].concat();
    check(
        &judge(1),
        &signed_by(&padded),
        minute(0),
        Code::ThresholdReached,
    );
    let all: Vec<_> = keys
        .iter()
        .zip(&hints)
        .map(|(key, hint)| (key, hint.as_str()))
        .collect();
    check(
        &judge(MAX_SIGNERS),
        &signed_by(&all),
        minute(0),
        Code::ThresholdReached,
    );
}

#[test]
fn a_second_spelling_of_a_key_is_refused() {
    let uncompressed = key().subject_public_key_info();
    assert!(PublicKey::from_spki(&uncompressed).is_ok());
    let point = &uncompressed[uncompressed.len() - 65..];
    let (algorithm, x) = (&uncompressed[2..23], &point[1..33]);
    let compressed = tlv(0x30, &[algorithm, &tlv(3, &[&[0, 2 + (point[64] & 1)], x])]);
    let unused_bit = tlv(0x30, &[algorithm, &tlv(3, &[&[1], point])]);
    let long_form = [&[0x30, 0x81, uncompressed[1]], &uncompressed[2..]].concat();
    let trailing = [uncompressed.as_slice(), &[0]].concat();
    for der in [compressed, unused_bit, long_form, trailing, vec![]] {
        assert_eq!(
            PublicKey::from_spki(&der).unwrap_err(),
            Problem::KeyUnreadable,
            "{der:02x?}"
        );
    }

    let rsa = |parameters: &[u8], modulus: &[u8], exponent: &[u8]| {
        let oid = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
        let key = tlv(0x30, &[&tlv(2, &[modulus]), &tlv(2, &[exponent])]);
        let spki = tlv(
            0x30,
            &[&tlv(0x30, &[&oid, parameters]), &tlv(3, &[&[0], &key])],
        );
        PublicKey::from_spki(&spki).map(|_| ())
    };
    let modulus = [&[0][..], &[0xff; 256]].concat();
    let (null, modulus) = (&[5, 0][..], &modulus[..]);
    assert_eq!(rsa(null, modulus, &[1, 0, 1]), Ok(()));
    let even = [&modulus[..256], &[0xfe]].concat();
    for (parameters, modulus, exponent) in [
        (&[][..], modulus, &[1, 0, 1][..]),
        (null, &even, &[1, 0, 1]),
        (null, modulus, &[1]),
        (null, modulus, &[2]),
        (null, modulus, &[1, 0, 0, 0, 1]),
    ] {
        assert_eq!(
            rsa(parameters, modulus, exponent),
            Err(Problem::KeyUnreadable),
            "{exponent:?}"
        );
    }
    assert_eq!(rsa(null, &[0x7f; 256], &[3]), Err(Problem::RsaBits(2047)));
    assert_eq!(rsa(null, &[0x7f; 1026], &[3]), Err(Problem::RsaBits(8207)));
}

// --- certificates -------------------------------------------------------------------------------------

#[test]
fn a_certificate_of_chainloop_is_judged_when_it_is_received_or_by_a_trusted_timestamp() {
    let world = World::new();
    let (without, with) = (
        judge_of(1, vec![world.chainloop(false)]),
        judge_of(1, vec![world.chainloop(true)]),
    );
    let document = |minutes: &[i64]| world.bundle(&of_organization(&ORGANIZATION), minutes);

    let verdict = check(&without, &document(&[]), minute(10), Code::ThresholdReached);
    assert_eq!(
        verdict.signers[0].proof,
        Proof::Chainloop {
            organization: ORGANIZATION.to_owned()
        }
    );
    assert_eq!(
        verdict.root,
        Some(attestation::Digest::of(world.authority.pem.as_bytes()))
    );
    check(
        &without,
        &document(&[]),
        minute(11),
        Code::CertificateExpired,
    );
    check(
        &without,
        &document(&[]),
        minute(-1),
        Code::CertificateExpired,
    );

    let year = 365 * 24 * 60;
    check(&with, &document(&[5]), minute(year), Code::ThresholdReached);
    // Later timestamps do not undo the first.
    check(
        &with,
        &document(&[20, 5]),
        minute(year),
        Code::ThresholdReached,
    );
    // A timestamp counts by a trusted authority, from while the certificate was valid, and not from the future.
    check(
        &without,
        &document(&[5]),
        minute(year),
        Code::CertificateExpired,
    );
    check(
        &with,
        &document(&[20]),
        minute(year),
        Code::CertificateExpired,
    );
    check(&with, &document(&[5]), minute(-1), Code::CertificateExpired);
    let (fresh, stranger) = (document(&[]), Clock::new("clock"));
    let signature = Attestation::parse(&fresh)
        .unwrap()
        .envelope
        .signatures
        .remove(0);
    for token in [
        stranger.stamp(&signature.sig, minute(5)),
        world.clock.stamp(b"another signature", minute(5)),
        b"no token".to_vec(),
    ] {
        let mut document: Value = serde_json::from_slice(&fresh).unwrap();
        let token = json!({ "signedTimestamp": STANDARD.encode_to_string(token) });
        document["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"] =
            json!([token]);
        check(
            &with,
            document.to_string().as_bytes(),
            minute(year),
            Code::CertificateExpired,
        );
        check(
            &with,
            document.to_string().as_bytes(),
            minute(5),
            Code::ThresholdReached,
        );
    }
}

#[test]
fn a_certificate_of_another_organization_authority_or_use_is_a_strangers() {
    let world = World::new();
    let judge = judge_of(1, vec![world.chainloop(false)]);
    let other = "00000000-4936-4630-ab8d-20b511366699";
    let document = world.bundle(&of_organization(&other), &[]);
    check(&judge, &document, minute(1), Code::IdentityMismatch);
    let document = world.bundle(&of_organization(&"acme"), &[]);
    check(&judge, &document, minute(1), Code::IdentityMismatch);
    let organizations = &[ORGANIZATION, other];
    let subject = Subject {
        organizations,
        ..Subject::default()
    };
    check(
        &judge,
        &world.bundle(&subject, &[]),
        minute(1),
        Code::IdentityMismatch,
    );
    let document = world.bundle(&Subject::default(), &[]);
    check(&judge, &document, minute(1), Code::IdentityMismatch);

    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let document = world.bundle(
        &Subject {
            usage,
            ..of_organization(&ORGANIZATION)
        },
        &[],
    );
    check(&judge, &document, minute(1), Code::CertificateUntrusted);
    // Same name, another key.
    let document = World::new().bundle(&of_organization(&ORGANIZATION), &[]);
    check(&judge, &document, minute(1), Code::CertificateUntrusted);
}

#[test]
fn an_intermediate_authority_may_come_along() {
    let world = World::new();
    let judge = judge_of(1, vec![world.chainloop(false)]);
    let between = world
        .authority
        .intermediate("between", &[ExtendedKeyUsagePurpose::CodeSigning]);
    let leaf = between.issue(&world.key, &of_organization(&ORGANIZATION));
    let envelope = envelope(PAYLOAD, vec![sign(&world.key, "", PAYLOAD)]);
    let certificate = |der: &[u8]| json!({ "rawBytes": STANDARD.encode_to_string(der) });
    let chain = |certificates: &[&[u8]]| {
        let certificates: Vec<_> = certificates.iter().map(|der| certificate(der)).collect();
        bundle(
            &envelope,
            &json!({ "x509CertificateChain": { "certificates": certificates } }),
        )
    };
    check(
        &judge,
        &chain(&[&leaf, between.der()]),
        minute(1),
        Code::ThresholdReached,
    );
    check(
        &judge,
        &chain(&[&leaf]),
        minute(1),
        Code::CertificateUntrusted,
    );
    check(&judge, &chain(&[]), minute(1), Code::CertificateMissing);
    let long = vec![leaf.as_slice(); crate::MAX_MATERIAL_ITEMS + 1];
    check(&judge, &chain(&long), minute(1), Code::MaterialUnreadable);
    let unfit = world.authority.intermediate("unfit", &[]);
    let below = unfit.issue(&world.key, &of_organization(&ORGANIZATION));
    let document = chain(&[&below, unfit.der()]);
    check(&judge, &document, minute(1), Code::CertificateUntrusted);
    // An authority that a leaf made for itself.
    let below = Authority::new("between");
    let forged = below.issue(&world.key, &of_organization(&ORGANIZATION));
    check(
        &judge,
        &chain(&[&forged, below.der()]),
        minute(1),
        Code::CertificateUntrusted,
    );
}

#[test]
fn a_certificate_vouches_for_the_one_envelope_that_its_key_signed() {
    let world = World::new();
    let stranger = key();
    for (subject, signer) in [
        (of_organization(&ORGANIZATION), world.chainloop(true)),
        (
            of_workflow(ISSUER, WORKFLOW),
            world.keyless("sigstore", Identity::Exact(WORKFLOW.to_owned())),
        ),
    ] {
        let judge = judge_of(1, vec![signer]);
        let document = world.bundle(&subject, &[5]);
        check(&judge, &document, minute(6), Code::ThresholdReached);
        let swap = |envelope: &Envelope| {
            let mut swapped: Value = serde_json::from_slice(&document).unwrap();
            swapped["dsseEnvelope"] = serde_json::from_slice(&envelope.compact()).unwrap();
            swapped.to_string().into_bytes()
        };
        let signature = sign(&world.key, "", PAYLOAD);
        let other_payload = [PAYLOAD, b" "].concat();
        for envelope in [
            envelope(PAYLOAD, vec![sign(&stranger, "", PAYLOAD)]),
            envelope(&other_payload, vec![signature.clone()]),
        ] {
            check(&judge, &swap(&envelope), minute(6), Code::SignatureMismatch);
        }
        let twice = envelope(PAYLOAD, vec![signature.clone(), signature]);
        check(&judge, &swap(&twice), minute(6), Code::SeveralSignatures);
    }
}

#[test]
fn an_envelope_that_came_alone_is_verified_by_the_bundle_that_is_found_later() {
    let world = World::new();
    let document = world.bundle(&of_organization(&ORGANIZATION), &[]);
    let attestation = Attestation::parse(&document).unwrap();
    let bare = attestation.envelope.compact();
    let judge = judge_of(1, vec![world.chainloop(false)]);
    let first = check(&judge, &bare, minute(1), Code::CertificateMissing);
    let bare = Attestation::parse(&bare).unwrap();
    let later = judge.judge(bare.clone(), &document, minute(1).into());
    assert_eq!(later.verdict().outcome, Outcome::Verified);
    assert!(first.is_of(&bare) && later.verdict().is_of(&bare));
    // Where no certificate could help, none is missing.
    let keys = judge_of(1, vec![key_signer("own", key().public_key_pem())]);
    check(
        &keys,
        &bare.envelope.compact(),
        minute(1),
        Code::NoConfiguredSigner,
    );
}

#[test]
fn material_that_is_none_leaves_keys_as_they_are() {
    let (world, own) = (World::new(), key());
    let (certificates, both) = (
        judge_of(1, vec![world.chainloop(false)]),
        judge_of(
            1,
            vec![
                world.chainloop(false),
                key_signer("own", own.public_key_pem()),
            ],
        ),
    );
    let envelope = envelope(PAYLOAD, vec![sign(&own, "", PAYLOAD)]);
    let large = "a".repeat(crate::MAX_MATERIAL_BYTES);
    for (material, code) in [
        (Value::Null, Code::CertificateMissing),
        (
            json!({ "publicKey": { "hint": "own" } }),
            Code::NoConfiguredSigner,
        ),
        (json!({}), Code::MaterialUnreadable),
        (json!([]), Code::MaterialUnreadable),
        (
            json!({ "certificate": { "rawBytes": "AAAA" } }),
            Code::MaterialUnreadable,
        ),
        (
            json!({ "publicKey": { "hint": large } }),
            Code::MaterialUnreadable,
        ),
    ] {
        let document = bundle(&envelope, &material);
        check(&certificates, &document, minute(1), code);
        check(&both, &document, minute(1), Code::ThresholdReached);
    }
}

#[test]
fn a_lying_keyid_makes_no_signature_false_that_the_certificates_key_made() {
    let (world, known) = (World::new(), key());
    let signers = vec![
        world.chainloop(false),
        key_signer("known", known.public_key_pem()),
        key_signer("spare", key().public_key_pem()),
    ];
    let leaf = world
        .authority
        .issue(&world.key, &of_organization(&ORGANIZATION));
    let envelope = envelope(PAYLOAD, vec![sign(&world.key, &key_id(&known), PAYLOAD)]);
    let document = bundle(&envelope, &material(&leaf, &[]));
    let (one, two) = (judge_of(1, signers.clone()), judge_of(2, signers));
    check(&one, &document, minute(1), Code::ThresholdReached);
    check(&two, &document, minute(1), Code::ThresholdNotReached);
}

// --- keyless ------------------------------------------------------------------------------------------

#[test]
fn a_keyless_signer_is_one_issuer_one_rule_and_one_root() {
    let world = World::new();
    let judge = judge_of(
        1,
        vec![world.keyless("exact", Identity::Exact(WORKFLOW.to_owned()))],
    );
    let document = world.bundle(&of_workflow(ISSUER, WORKFLOW), &[5]);
    let verdict = check(&judge, &document, minute(60), Code::ThresholdReached);
    let proof = Proof::Keyless {
        issuer: ISSUER.to_owned(),
        identity: WORKFLOW.to_owned(),
    };
    assert_eq!(verdict.signers[0].proof, proof);
    assert!(verdict.root.is_some());

    let other = WORKFLOW.replace("release", "test");
    for (issuer, identity) in [
        (ISSUER, other.as_str()),
        ("https://gitlab.com", WORKFLOW),
        (ISSUER, ""),
    ] {
        let document = world.bundle(&of_workflow(issuer, identity), &[5]);
        check(&judge, &document, minute(60), Code::IdentityMismatch);
    }
    check(
        &judge,
        &world.bundle(&Subject::default(), &[5]),
        minute(60),
        Code::IdentityMismatch,
    );
    let document = World::new().bundle(&of_workflow(ISSUER, WORKFLOW), &[5]);
    check(&judge, &document, minute(60), Code::CertificateUntrusted);
}

#[test]
fn all_rules_that_fit_are_named_and_count_as_one_key() {
    let world = World::new();
    let signers = vec![
        world.keyless(
            "glob",
            Identity::Glob("https://github.com/acme/**@refs/heads/main".to_owned()),
        ),
        world.keyless(
            "prefix",
            Identity::Prefix("https://github.com/acme/".to_owned()),
        ),
        world.keyless(
            "other",
            Identity::Prefix("https://github.com/other/".to_owned()),
        ),
        key_signer("key", key().public_key_pem()),
        key_signer("spare", key().public_key_pem()),
    ];
    let document = world.bundle(&of_workflow(ISSUER, WORKFLOW), &[5]);
    let verdict = check(
        &judge_of(2, signers.clone()),
        &document,
        minute(60),
        Code::ThresholdNotReached,
    );
    assert_eq!(names(&verdict), ["glob", "prefix"]);
    check(
        &judge_of(1, signers),
        &document,
        minute(60),
        Code::ThresholdReached,
    );
}

#[test]
fn a_keyless_signature_needs_proof_of_its_time() {
    let world = World::new();
    let judge = judge_of(
        1,
        vec![world.keyless("sigstore", Identity::Exact(WORKFLOW.to_owned()))],
    );
    let subject = of_workflow(ISSUER, WORKFLOW);
    for (minutes, at, code) in [
        // The time of receipt is no proof.
        (&[][..], 5, Code::EvidenceMissing),
        (&[20], 60, Code::EvidenceUntrusted),
        (&[-5], 60, Code::EvidenceUntrusted),
        // Each has to be true, not any.
        (&[5, 20], 60, Code::EvidenceUntrusted),
        (&[9], 8, Code::EvidenceUntrusted),
        (&[9], 9, Code::ThresholdReached),
    ] {
        check(&judge, &world.bundle(&subject, minutes), minute(at), code);
    }
    let bundle = World {
        clock: Clock::new("clock"),
        ..world
    }
    .bundle(&subject, &[5]);
    check(&judge, &bundle, minute(60), Code::EvidenceUntrusted);
}

#[test]
fn a_root_asks_for_what_it_has() {
    // The public instance has logs, so timestamps alone do not do.
    let world = World::new();
    let root: Value = serde_json::from_str(&root(&world.authority, &world.clock)).unwrap();
    let pinned: Value = serde_json::from_str(include_str!("public-good.json")).unwrap();
    let judge = |root: &Value| {
        let mut signer = world.keyless("sigstore", Identity::Exact(WORKFLOW.to_owned()));
        if let Signer::Keyless { trusted_root, .. } = &mut signer {
            *trusted_root = TrustedRoot::Json(root.to_string());
        }
        judge_of(1, vec![signer])
    };
    let document = world.bundle(&of_workflow(ISSUER, WORKFLOW), &[5]);
    check(&judge(&root), &document, minute(60), Code::ThresholdReached);
    for (logs, code) in [
        ("ctlogs", Code::EvidenceUntrusted),
        ("tlogs", Code::EvidenceMissing),
    ] {
        let mut root = root.clone();
        root[logs] = pinned[logs].clone();
        check(&judge(&root), &document, minute(60), code);
    }
}

#[test]
fn a_keyless_statement_needs_a_subject_with_a_sha2() {
    let world = World::new();
    let judge = judge_of(
        1,
        vec![world.keyless("sigstore", Identity::Exact(WORKFLOW.to_owned()))],
    );
    for (algorithm, digits, code) in [
        ("sha1", 40, Code::SubjectUnsupported),
        ("sha256", 40, Code::SubjectUnsupported),
        ("sha512", 128, Code::ThresholdReached),
    ] {
        let payload = String::from_utf8(PAYLOAD.to_vec()).unwrap();
        let payload = payload
            .replace("sha256", algorithm)
            .replace(&"a".repeat(64), &"a".repeat(digits));
        let signature = sign(&world.key, "", payload.as_bytes());
        let token = world.clock.stamp(&signature.sig, minute(5));
        let leaf = world
            .authority
            .issue(&world.key, &of_workflow(ISSUER, WORKFLOW));
        let document = bundle(
            &envelope(payload.as_bytes(), vec![signature]),
            &material(&leaf, &[token]),
        );
        check(&judge, &document, minute(60), code);
    }
}

// --- policies -----------------------------------------------------------------------------------------

#[test]
fn a_policy_is_read_with_its_defaults_and_refuses_unknown_fields() {
    let policy: Policy = serde_json::from_value(json!({ "mode": "off" })).unwrap();
    assert_eq!(
        policy,
        Policy {
            mode: Mode::Off,
            threshold: 1,
            signers: vec![]
        }
    );
    let own = key();
    let judge = Judge::new(&policy, "etag").unwrap();
    check(
        &judge,
        &signed_by(&[(&own, "")]),
        minute(0),
        Code::PolicyOff,
    );

    let text = json!({
        "mode": "warn",
        "threshold": 2,
        "signers": [
            { "kind": "key", "name": "a", "pem": "…" },
            { "kind": "kms", "name": "b", "arn": "…", "pem": "…" },
            { "kind": "keyless", "name": "c", "issuer": "…", "identity": { "prefix": "…" } },
            { "kind": "keyless", "name": "d", "issuer": "…", "identity": { "glob": "…" }, "trusted_root": { "json": "…" } },
            { "kind": "chainloop", "name": "e", "ca_pem": "…", "organization": "…" },
        ],
    });
    let policy: Policy = serde_json::from_value(text.clone()).unwrap();
    assert_eq!(serde_json::to_value(&policy).unwrap(), text);
    for unknown in [
        json!({ "mode": "warn", "treshold": 2 }),
        json!({ "mode": "block" }),
        json!({ "mode": "warn", "signers": [{ "kind": "key", "name": "a", "pem": "", "arn": "" }] }),
        json!({ "mode": "warn", "signers": [{ "kind": "pgp", "name": "a", "pem": "" }] }),
    ] {
        assert!(
            serde_json::from_value::<Policy>(unknown.clone()).is_err(),
            "{unknown}"
        );
    }
}

#[test]
fn a_fault_of_a_policy_says_where_it_is() {
    let fault = |threshold, signers| {
        Judge::new(&policy(threshold, signers), "etag")
            .err()
            .unwrap()
    };
    let keys = |count| {
        (0..count)
            .map(|index| key_signer(&format!("k{index}"), key().public_key_pem()))
            .collect()
    };
    let world = World::new();
    assert_eq!(fault(0, keys(1)), Fault::ThresholdZero);
    assert_eq!(
        fault(1, vec![]),
        Fault::ThresholdOutOfReach {
            threshold: 1,
            reachable: 0
        }
    );
    assert_eq!(
        fault(3, keys(2)),
        Fault::ThresholdOutOfReach {
            threshold: 3,
            reachable: 2
        }
    );
    assert_eq!(
        fault(1, keys(MAX_SIGNERS + 1)),
        Fault::TooManySigners(MAX_SIGNERS + 1)
    );
    // A bundle has one certificate, and that is for one signature: a key beside it would need another.
    let certificates = vec![
        world.chainloop(false),
        world.keyless("s", Identity::Exact(WORKFLOW.to_owned())),
    ];
    for signers in [certificates.clone(), [keys(1), certificates].concat()] {
        assert_eq!(
            fault(2, signers),
            Fault::ThresholdOutOfReach {
                threshold: 2,
                reachable: 1
            }
        );
    }

    let pem = key().public_key_pem();
    for name in ["", "a b", "é", &"a".repeat(MAX_NAME + 1)] {
        assert!(
            matches!(fault(1, vec![key_signer(name, &*pem)]), Fault::Name(_)),
            "{name}"
        );
    }
    let twice = vec![
        key_signer("a", &*pem),
        key_signer("a", key().public_key_pem()),
    ];
    assert_eq!(fault(1, twice), Fault::NameTaken("a".to_owned()));
    // Spelled otherwise, but the same key.
    let respelled = format!("a comment\n{}\n", pem.replace('\n', "\r\n"));
    let twice = vec![key_signer("a", &*pem), key_signer("b", respelled)];
    assert_eq!(
        fault(1, twice),
        Fault::KeyTaken {
            name: "b".to_owned(),
            other: "a".to_owned()
        }
    );
}

fn problem(signer: Signer) -> Problem {
    let fault = Judge::new(&policy(1, vec![signer]), "etag").err();
    let Some(Fault::Signer { name, problem }) = fault else {
        panic!("{fault:?}")
    };
    assert_eq!(name, "s");
    problem
}

const GARBAGE: &str = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";

#[test]
fn a_key_that_is_weak_or_none_is_refused() {
    let (own, pem) = (key(), key().public_key_pem());
    for (pem, expected) in [
        (String::new(), Problem::NotOnePublicKey),
        (
            pem.clone() + &own.public_key_pem(),
            Problem::NotOnePublicKey,
        ),
        (Authority::new("a").pem, Problem::NotOnePublicKey),
        (own.serialize_pem(), Problem::PrivateKey),
        (GARBAGE.to_owned(), Problem::KeyUnreadable),
        (P521.to_owned(), Problem::KeyUnsupported),
        (SECP256K1.to_owned(), Problem::KeyUnsupported),
        (RSA_1024.to_owned(), Problem::RsaBits(1024)),
        (
            pem.clone() + &" ".repeat(MAX_PEM_BYTES),
            Problem::PemTooLarge,
        ),
    ] {
        assert_eq!(problem(key_signer("s", pem)), expected);
    }
    for arn in [
        "",
        "alias/release",
        "arn:aws:s3:eu-central-1:123456789012:key/a",
        "arn:aws:kms:eu-central-1:12:key/a",
        "arn:aws:kms:eu-central-1:123456789012:alias/a",
    ] {
        let (name, arn) = ("s".to_owned(), arn.to_owned());
        let signer = Signer::Kms {
            name,
            arn,
            pem: pem.clone(),
        };
        assert_eq!(problem(signer), Problem::NotKmsArn);
    }
}

#[test]
fn a_keyless_signer_that_is_open_or_has_no_root_is_refused() {
    let world = World::new();
    let good = root(&world.authority, &world.clock);
    let keyless = |issuer: &str, identity: &Identity, root: &str| {
        problem(Signer::Keyless {
            name: "s".to_owned(),
            issuer: issuer.to_owned(),
            identity: identity.clone(),
            trusted_root: TrustedRoot::Json(root.to_owned()),
        })
    };
    let (exact, open) = (
        Identity::Exact(WORKFLOW.to_owned()),
        Identity::Glob("**".to_owned()),
    );
    assert_eq!(
        keyless("http://example.com", &exact, &good),
        Problem::Issuer
    );
    assert_eq!(keyless(ISSUER, &open, &good), Problem::IdentityOpen);
    for field in ["certificateAuthorities", "timestampAuthorities"] {
        let mut root: Value = serde_json::from_str(&good).unwrap();
        root[field] = json!([]);
        assert_eq!(
            keyless(ISSUER, &exact, &root.to_string()),
            Problem::RootIncomplete
        );
    }
    assert_eq!(keyless(ISSUER, &exact, "{}"), Problem::RootUnreadable);
    let large = " ".repeat(MAX_ROOT_BYTES + 1);
    assert_eq!(keyless(ISSUER, &exact, &large), Problem::RootTooLarge);
}

#[test]
fn an_organization_without_an_authority_is_refused() {
    let world = World::new();
    let chainloop = |ca: &str, organization: &str, clock: Option<&str>| {
        problem(Signer::Chainloop {
            name: "s".to_owned(),
            ca_pem: ca.to_owned(),
            organization: organization.to_owned(),
            timestamp_pem: clock.map(str::to_owned),
        })
    };
    let ca = world.authority.pem.as_str();
    assert_eq!(chainloop(ca, "acme", None), Problem::NotUuid);
    for pem in ["", &ca.repeat(5), &key().public_key_pem()] {
        assert_eq!(chainloop(pem, ORGANIZATION, None), Problem::Certificates(4));
    }
    let garbage = GARBAGE.replace("PUBLIC KEY", "CERTIFICATE");
    assert_eq!(
        chainloop(&garbage, ORGANIZATION, None),
        Problem::CertificateUnreadable
    );
    let end = "-----END CERTIFICATE-----\n";
    let leaf = world.clock.pem.split_inclusive(end).next().unwrap();
    assert_eq!(chainloop(leaf, ORGANIZATION, None), Problem::NotAuthority);
    assert_eq!(
        chainloop(ca, ORGANIZATION, Some(leaf)),
        Problem::NotAuthority
    );
    assert_eq!(
        chainloop(ca, ORGANIZATION, Some(ca)),
        Problem::Certificates(4)
    );
}

#[test]
fn no_fault_repeats_what_may_be_a_secret() {
    let private = key().serialize_pem();
    let Some(fault) = Judge::new(&policy(1, vec![key_signer("s", &*private)]), "etag").err() else {
        panic!("a private key was taken for a public one");
    };
    let line = private.lines().nth(1).unwrap();
    assert!(!format!("{fault} {fault:?}").contains(line));
}

// --- verdicts -----------------------------------------------------------------------------------------

#[test]
fn a_verdict_is_written_with_stable_names() {
    let (own, world) = (key(), World::new());
    let judge = judge_of(
        1,
        vec![
            key_signer("own", own.public_key_pem()),
            world.chainloop(false),
        ],
    );
    let document = signed_by(&[(&own, "")]);
    let verdict = check(&judge, &document, minute(0), Code::ThresholdReached);
    let expected = json!({
        "outcome": "verified",
        "reason": {
            "code": "threshold-reached",
            "sentence": "As many configured signers signed it as the policy asks for.",
        },
        "signers": [{ "name": "own", "kind": "key", "key_id": key_id(&own) }],
        "policy": "etag",
        "envelope": Attestation::parse(&document).unwrap().hash,
        "at": "2026-06-01T00:00:00.000Z",
    });
    assert_eq!(serde_json::to_value(&verdict).unwrap(), expected);
    assert_eq!(
        serde_json::from_value::<Verdict>(expected).unwrap(),
        verdict
    );

    let names: Vec<_> = Code::ALL
        .iter()
        .map(|code| serde_json::to_string(code).unwrap())
        .collect();
    assert_eq!(
        names.join(" ").replace('"', ""),
        "policy-off threshold-reached no-configured-signer identity-mismatch certificate-untrusted threshold-not-reached certificate-missing material-unreadable several-signatures key-unsupported subject-unsupported evidence-missing evidence-untrusted certificate-expired bundle-mismatch too-many-signatures evidence-mismatch signature-mismatch"
    );
    // The worst of several is the last.
    assert!(Code::ALL.is_sorted() && Code::ALL.is_sorted_by_key(|code| code.outcome()));
}

#[test]
fn a_verdict_belongs_to_its_payload_and_signatures() {
    let own = key();
    let judge = judge_of(1, vec![key_signer("own", own.public_key_pem())]);
    let (judged, verdict) =
        crate::forge::judge(&judge, &signed_by(&[(&own, "")]), minute(0)).into_parts();
    assert!(verdict.is_of(&judged));
    let mut payload = judged.clone();
    payload.envelope.payload.push(b' ');
    let mut signature = judged.clone();
    signature.envelope.signatures[0].sig[9] ^= 1;
    // What was written beside the envelope does not make it another's.
    let mut hash = judged;
    hash.hash = attestation::Digest::of(b"");
    assert!(!verdict.is_of(&payload) && !verdict.is_of(&signature) && verdict.is_of(&hash));
}

#[test]
fn the_largest_verdict_is_small() {
    let name = |index: usize| format!("{index:0>MAX_NAME$}");
    let arn = format!(
        "arn:aws:kms:eu-central-1:123456789012:key/{}",
        "a".repeat(MAX_TEXT - 42)
    );
    let keys: Vec<_> = (0..MAX_SIGNERS).map(|_| key()).collect();
    let signers = keys.iter().enumerate().map(|(index, key)| Signer::Kms {
        name: name(index),
        arn: arn.clone(),
        pem: key.public_key_pem(),
    });
    let judge = judge_of(MAX_SIGNERS, signers.collect());
    let hints: Vec<_> = keys.iter().map(key_id).collect();
    let keys: Vec<_> = keys
        .iter()
        .zip(&hints)
        .map(|(key, hint)| (key, hint.as_str()))
        .collect();
    let verdict = check(&judge, &signed_by(&keys), minute(0), Code::ThresholdReached);
    assert_eq!(verdict.signers.len(), MAX_SIGNERS);
    assert!(serde_json::to_string(&verdict).unwrap().len() < 16 * 1024);
}
