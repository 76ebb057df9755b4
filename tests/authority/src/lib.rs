//! An organization of a Chainloop control plane that signs: its authority, its envelopes, and their bundles. The same each
//! time, so that a simulation can be played again.

#![allow(clippy::unwrap_used, reason = "for tests alone")]

use attestation::{Envelope, PAYLOAD_TYPE, Signature, pae};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, PKCS_ED25519, date_time_ymd,
};
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};

/// UUID of the organization.
pub const ORGANIZATION: &str = "18c3f782-4936-4630-ab8d-20b511366699";

/// Year, month and day.
pub type Date = (i32, u8, u8);

/// First and last day of a certificate that is valid whenever a test runs, and of one that has expired.
pub const VALID: (Date, Date) = ((2020, 1, 1), (2040, 1, 1));
pub const EXPIRED: (Date, Date) = ((2020, 1, 1), (2021, 1, 1));

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    key: Key,
}

/// An Ed25519 key pair: its signatures are the same each time.
struct Key {
    pair: Ed25519KeyPair,
    pkcs8: Vec<u8>,
}

impl Key {
    fn of(seed: u8) -> Self {
        // Version 1 of PKCS #8, as far as the seed.
        let head = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        let pkcs8 = [&head[..], &[seed; 32]].concat();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).unwrap();
        Self { pair, pkcs8 }
    }

    fn of_certificates(&self) -> KeyPair {
        let der = self.pkcs8.as_slice().into();
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).unwrap()
    }
}

impl Authority {
    /// Another seed is another authority.
    pub fn new(seed: u8) -> Self {
        Self::with_key(seed, seed ^ 0xff)
    }

    /// The authority of that seed, whose organization signs with another key.
    pub fn with_key(seed: u8, own: u8) -> Self {
        let mut params = params("authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        valid(&mut params, VALID);
        let key = Key::of(seed).of_certificates();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
            key: Key::of(own),
        }
    }

    /// The envelope with a signature by the organization's key, and no other.
    pub fn sign(&self, mut envelope: Envelope) -> Envelope {
        let signature = self.key.pair.sign(&pae(PAYLOAD_TYPE, &envelope.payload));
        envelope.signatures = vec![Signature {
            keyid: String::new(),
            sig: signature.as_ref().to_vec(),
        }];
        envelope
    }

    /// The bundle of an envelope, with a certificate for that key, valid on these days.
    pub fn bundle(&self, envelope: &Envelope, days: (Date, Date)) -> Vec<u8> {
        let mut params = params("");
        params.distinguished_name = DistinguishedName::new();
        let name = (DnType::OrganizationName, ORGANIZATION);
        params.distinguished_name.push(name.0, name.1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        valid(&mut params, days);
        let key = self.key.of_certificates();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let raw = base64_simd::STANDARD.encode_to_string(leaf.der());
        let envelope: Value = serde_json::from_slice(&envelope.compact()).unwrap();
        let bundle = json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": { "certificate": { "rawBytes": raw } },
            "dsseEnvelope": envelope,
        });
        bundle.to_string().into_bytes()
    }

    /// The organization as a policy's signer.
    pub fn signer(&self) -> Value {
        json!({
            "kind": "chainloop", "name": "acme", "ca_pem": self.pem, "organization": ORGANIZATION,
        })
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn valid(params: &mut CertificateParams, (first, last): (Date, Date)) {
    params.not_before = date_time_ymd(first.0, first.1, first.2);
    params.not_after = date_time_ymd(last.0, last.1, last.2);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_the_same_each_time() {
        let bundle = || {
            let authority = Authority::new(7);
            let envelope = authority.sign(Envelope {
                payload_type: PAYLOAD_TYPE.to_owned(),
                payload: b"{}".to_vec(),
                signatures: Vec::new(),
            });
            (authority.pem.clone(), authority.bundle(&envelope, VALID))
        };
        assert_eq!(bundle(), bundle());
    }
}
