//! Makes keys, authorities, timestamps and bundles for tests.

use std::time::Duration;

use api::trust::{Identity, Mode, Policy, Signer, TrustedRoot};
use attestation::{Attestation, Envelope, PAYLOAD_TYPE, Signature, pae};
use base64_simd::STANDARD;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
    SignatureAlgorithm, SigningKey as _, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

use crate::{Judge, Judged};

pub const ORGANIZATION: &str = "18c3f782-4936-4630-ab8d-20b511366699";
pub const ISSUER: &str = "https://token.actions.githubusercontent.com";
pub const WORKFLOW: &str =
    "https://github.com/acme/shop/.github/workflows/release.yml@refs/heads/main";
/// A statement over a subject with a SHA-256.
pub const PAYLOAD: &[u8] = include_bytes!("../tests/files/payload.json");

/// Minutes after the time at which every leaf begins to be valid. They live for ten.
pub fn minute(minutes: i64) -> Timestamp {
    let start: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
    start + jiff::SignedDuration::from_mins(minutes)
}

pub fn key() -> KeyPair {
    key_of(&PKCS_ECDSA_P256_SHA256)
}

pub fn key_of(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

/// A signature over the payload, by a key and with a `keyid`.
pub fn sign(key: &KeyPair, keyid: &str, payload: &[u8]) -> Signature {
    let sig = key.sign(&pae(PAYLOAD_TYPE, payload)).unwrap();
    Signature {
        keyid: keyid.to_owned(),
        sig,
    }
}

pub fn envelope(payload: &[u8], signatures: Vec<Signature>) -> Envelope {
    Envelope {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: payload.to_vec(),
        signatures,
    }
}

/// A bundle of v0.3 around an envelope.
pub fn bundle(envelope: &Envelope, material: &Value) -> Vec<u8> {
    let envelope: Value = serde_json::from_slice(&envelope.compact()).unwrap();
    let document = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": material,
        "dsseEnvelope": envelope,
    });
    document.to_string().into_bytes()
}

/// Material with a certificate and timestamps.
pub fn material(leaf: &[u8], timestamps: &[Vec<u8>]) -> Value {
    let timestamps: Vec<_> = timestamps
        .iter()
        .map(|token| json!({ "signedTimestamp": STANDARD.encode_to_string(token) }))
        .collect();
    json!({
        "certificate": { "rawBytes": STANDARD.encode_to_string(leaf) },
        "timestampVerificationData": { "rfc3161Timestamps": timestamps },
    })
}

/// Judges a document as it is received.
pub fn judge(judge: &Judge, document: &[u8], at: Timestamp) -> Judged {
    judge.judge(Attestation::parse(document).unwrap(), document, at.into())
}

pub fn policy(threshold: usize, signers: Vec<Signer>) -> Policy {
    Policy {
        mode: Mode::Require,
        threshold,
        signers,
    }
}

pub fn judge_of(threshold: usize, signers: Vec<Signer>) -> Judge {
    Judge::new(&policy(threshold, signers), "etag").unwrap()
}

pub fn key_signer(name: &str, pem: impl Into<String>) -> Signer {
    Signer::Key {
        name: name.to_owned(),
        pem: pem.into(),
    }
}

/// A certificate authority of a test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pub pem: String,
}

/// Contents of a leaf certificate.
pub struct Subject<'a> {
    /// No more than two.
    pub organizations: &'a [&'a str],
    pub identity: Option<(&'a str, &'a str)>,
    pub usage: ExtendedKeyUsagePurpose,
}

impl Default for Subject<'_> {
    fn default() -> Self {
        Subject {
            organizations: &[],
            identity: None,
            usage: ExtendedKeyUsagePurpose::CodeSigning,
        }
    }
}

pub fn of_organization<'a>(id: &'a &'a str) -> Subject<'a> {
    Subject {
        organizations: std::slice::from_ref(id),
        ..Subject::default()
    }
}

pub fn of_workflow<'a>(issuer: &'a str, identity: &'a str) -> Subject<'a> {
    Subject {
        identity: Some((issuer, identity)),
        ..Subject::default()
    }
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = params(name);
        (params.not_before, params.not_after) =
            (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = key();
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Authority {
            issuer: Issuer::new(params, key),
            der,
            pem,
        }
    }

    /// An authority below this one, which has to be sent along or configured.
    pub fn intermediate(&self, name: &str, usages: &[ExtendedKeyUsagePurpose]) -> Authority {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.extended_key_usages = usages.to_vec();
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Authority {
            issuer: Issuer::new(params, key),
            der,
            pem,
        }
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Issues a certificate that is valid from minute 0 to minute 10.
    pub fn issue(&self, key: &KeyPair, subject: &Subject<'_>) -> Vec<u8> {
        let mut params = params("");
        params.distinguished_name = DistinguishedName::new();
        let organizations = [
            DnType::OrganizationName,
            DnType::CustomDnType(vec![2, 5, 4, 10]),
        ];
        for (kind, organization) in organizations.into_iter().zip(subject.organizations) {
            params.distinguished_name.push(kind, *organization);
        }
        if let Some((issuer, identity)) = subject.identity {
            params
                .subject_alt_names
                .push(SanType::URI(identity.try_into().unwrap()));
            let value = tlv(0x0c, &[issuer.as_bytes()]);
            let extension =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, 8], value);
            params.custom_extensions.push(extension);
        }
        params.not_before = date_time_ymd(2026, 6, 1);
        params.not_after = date_time_ymd(2026, 6, 1) + Duration::from_mins(10);
        params.extended_key_usages = vec![subject.usage.clone()];
        params.signed_by(key, &self.issuer).unwrap().der().to_vec()
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A timestamp authority: its key, its certificate and its root.
pub struct Clock {
    key: KeyPair,
    leaf: Vec<u8>,
    root: Authority,
    pub pem: String,
}

impl Clock {
    pub fn new(name: &str) -> Clock {
        let (root, key) = (Authority::new(name), key());
        let mut params = params("timestamps");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::TimeStamping];
        let leaf = params.signed_by(&key, &root.issuer).unwrap();
        let pem = leaf.pem() + &root.pem;
        Clock {
            key,
            leaf: leaf.der().to_vec(),
            root,
            pem,
        }
    }

    /// An RFC 3161 token: that this signature was seen at that time.
    pub fn stamp(&self, signature: &[u8], time: Timestamp) -> Vec<u8> {
        const TST_INFO: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 0x10, 1, 4];
        let oid = |body: &[u8]| tlv(6, &[body]);
        let number = |value: u8| tlv(2, &[&[value]]);
        let sha256 = tlv(0x30, &[&oid(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1])]);
        let hash = |bytes: &[u8]| tlv(4, &[digest(&SHA256, bytes).as_ref()]);
        let time = time.strftime("%Y%m%d%H%M%SZ").to_string();
        let imprint = tlv(0x30, &[&sha256, &hash(signature)]);
        let info = tlv(
            0x30,
            &[
                &number(1),
                &oid(&[0x2a, 3, 4]),
                &imprint,
                &number(1),
                &tlv(0x18, &[time.as_bytes()]),
            ],
        );

        let attribute = |last: u8, value: &[u8]| {
            tlv(
                0x30,
                &[
                    &oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, last]),
                    &tlv(0x31, &[value]),
                ],
            )
        };
        let attributes = [attribute(3, &oid(TST_INFO)), attribute(4, &hash(&info))].concat();
        let signature = self.key.sign(&tlv(0x31, &[&attributes])).unwrap();
        let certificate = Certificate::from_der(&self.leaf).unwrap().tbs_certificate;
        let (issuer, serial) = (
            certificate.issuer.to_der().unwrap(),
            certificate.serial_number.to_der().unwrap(),
        );
        let ecdsa = tlv(0x30, &[&oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2])]);
        let signer = tlv(
            0x30,
            &[
                &number(1),
                &tlv(0x30, &[&issuer, &serial]),
                &sha256,
                &tlv(0xa0, &[&attributes]),
                &ecdsa,
                &tlv(4, &[&signature]),
            ],
        );
        let content = tlv(0x30, &[&oid(TST_INFO), &tlv(0xa0, &[&tlv(4, &[&info])])]);
        let signed = tlv(
            0x30,
            &[
                &number(3),
                &tlv(0x31, &[&sha256]),
                &content,
                &tlv(0x31, &[&signer]),
            ],
        );
        tlv(
            0x30,
            &[
                &oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2]),
                &tlv(0xa0, &[&signed]),
            ],
        )
    }
}

/// DER: a tag, the length of the parts, and the parts.
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let head = match body.len() {
        0..0x80 => vec![tag, length[1]],
        0x80..0x100 => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [head, body].concat()
}

/// A Sigstore instance without logs.
pub fn root(authority: &Authority, clock: &Clock) -> String {
    let certificate = |der: &[u8]| json!({ "rawBytes": STANDARD.encode_to_string(der) });
    let root = json!({
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "certificateAuthorities": [{
            "uri": "https://fulcio.example.com",
            "certChain": { "certificates": [certificate(authority.der())] },
        }],
        "timestampAuthorities": [{
            "certChain": { "certificates": [certificate(&clock.leaf), certificate(clock.root.der())] },
        }],
    });
    root.to_string()
}

/// An authority, a clock and a key with a certificate, which can sign in the manner of Chainloop and of Sigstore.
pub struct World {
    pub authority: Authority,
    pub clock: Clock,
    pub key: KeyPair,
}

impl World {
    pub fn new() -> World {
        World {
            authority: Authority::new("authority"),
            clock: Clock::new("clock"),
            key: key(),
        }
    }

    pub fn chainloop(&self, timestamps: bool) -> Signer {
        Signer::Chainloop {
            name: "chainloop".to_owned(),
            ca_pem: self.authority.pem.clone(),
            organization: ORGANIZATION.to_owned(),
            timestamp_pem: timestamps.then(|| self.clock.pem.clone()),
        }
    }

    pub fn keyless(&self, name: &str, identity: Identity) -> Signer {
        Signer::Keyless {
            name: name.to_owned(),
            issuer: ISSUER.to_owned(),
            identity,
            trusted_root: TrustedRoot::Json(root(&self.authority, &self.clock)),
        }
    }

    /// A bundle over [`PAYLOAD`], with timestamps of these minutes.
    pub fn bundle(&self, subject: &Subject<'_>, minutes: &[i64]) -> Vec<u8> {
        let signature = sign(&self.key, "", PAYLOAD);
        let tokens: Vec<_> = minutes
            .iter()
            .map(|minutes| self.clock.stamp(&signature.sig, minute(*minutes)))
            .collect();
        let leaf = self.authority.issue(&self.key, subject);
        bundle(
            &envelope(PAYLOAD, vec![signature]),
            &material(&leaf, &tokens),
        )
    }
}
