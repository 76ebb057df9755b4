//! Public keys, and whether one made a signature.

use api::trust::fault::{MAX_PEM_BYTES, Problem};
use attestation::Digest;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoRef;

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// A public key of a kind that is verified.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    /// SHA-256 of the key's `SubjectPublicKeyInfo`.
    pub(crate) id: Digest,
    bytes: Vec<u8>,
    /// Algorithms that its holders may have signed with. Tools disagree on the hash of P-384 and on the padding of RSA.
    algorithms: Vec<&'static dyn VerificationAlgorithm>,
}

impl PublicKey {
    pub(crate) fn from_pem(pem: &str) -> Result<PublicKey, Problem> {
        let mut sections = sections(pem, Problem::NotOnePublicKey)?;
        match (sections.pop(), sections.is_empty()) {
            (Some((SectionKind::PublicKey, der)), true) => PublicKey::from_spki(&der),
            _ => Err(Problem::NotOnePublicKey),
        }
    }

    /// Reads a key that is spelled in the one way that DER and the key's kind allow: a second spelling would give one
    /// key two IDs, and let it count twice.
    pub(crate) fn from_spki(der: &[u8]) -> Result<PublicKey, Problem> {
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| Problem::KeyUnreadable)?;
        let bytes = spki
            .subject_public_key
            .as_bytes()
            .ok_or(Problem::KeyUnreadable)?;
        let algorithms = algorithms(&spki, bytes)?;
        Ok(PublicKey {
            id: Digest::of(der),
            bytes: bytes.to_vec(),
            algorithms,
        })
    }

    /// Number of ways in which [`PublicKey::signed`] may have to look.
    pub(crate) fn tries(&self) -> usize {
        self.algorithms.len()
    }

    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.algorithms.iter().any(|algorithm| {
            UnparsedPublicKey::new(*algorithm, &self.bytes)
                .verify(message, signature)
                .is_ok()
        })
    }
}

fn algorithms(
    spki: &SubjectPublicKeyInfoRef<'_>,
    bytes: &[u8],
) -> Result<Vec<&'static dyn VerificationAlgorithm>, Problem> {
    let parameters = spki.algorithm.parameters;
    if spki.algorithm.oid == EC {
        let curve = parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        return match (curve, bytes) {
            (Some(P256), [4, point @ ..]) if point.len() == 64 => {
                Ok(vec![&signature::ECDSA_P256_SHA256_ASN1])
            }
            (Some(P384), [4, point @ ..]) if point.len() == 96 => Ok(vec![
                &signature::ECDSA_P384_SHA384_ASN1,
                &signature::ECDSA_P384_SHA256_ASN1,
            ]),
            (Some(P256 | P384), _) => Err(Problem::KeyUnreadable),
            _ => Err(Problem::KeyUnsupported),
        };
    }
    match (spki.algorithm.oid, parameters) {
        (ED25519, None) if bytes.len() == 32 => Ok(vec![&signature::ED25519]),
        (RSA, Some(AnyRef::NULL)) => match rsa_bits(bytes).ok_or(Problem::KeyUnreadable)? {
            2048..=8192 => Ok(vec![
                &signature::RSA_PKCS1_2048_8192_SHA256,
                &signature::RSA_PSS_2048_8192_SHA256,
            ]),
            bits => Err(Problem::RsaBits(bits)),
        },
        (ED25519 | RSA, _) => Err(Problem::KeyUnreadable),
        _ => Err(Problem::KeyUnsupported),
    }
}

/// Size of the modulus of an `RSAPublicKey` that can be used at all: modulus and exponent are odd, and the exponent
/// is one that ring takes.
fn rsa_bits(der: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(der).ok()?;
    let (modulus, exponent) = reader
        .sequence(|inner| Ok((UintRef::decode(inner)?, UintRef::decode(inner)?)))
        .ok()?;
    let (modulus, exponent) = (modulus.as_bytes(), exponent.as_bytes());
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    let is_usable = exponent.len() <= 4 && exponent != [1] && is_odd(modulus) && is_odd(exponent);
    let leading = modulus.first()?.leading_zeros() as usize;
    (reader.is_finished() && is_usable).then(|| modulus.len() * 8 - leading)
}

/// The sections of a PEM text, none of which may be a private key.
pub(crate) fn sections(
    pem: &str,
    otherwise: Problem,
) -> Result<Vec<(SectionKind, Vec<u8>)>, Problem> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(Problem::PemTooLarge);
    }
    if pem.contains("PRIVATE KEY-----") {
        return Err(Problem::PrivateKey);
    }
    <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| otherwise)
}
