//! Real TLS with the functions as they are shipped. They trust Amazon's roots, and for third parties the public ones, and
//! nothing else: in a copy of a function, one root of each is replaced by an authority that is made for the run.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use rustls::{RootCertStore, ServerConfig};

/// Certificates of the roots that functions trust for AWS.
const AMAZON: &[u8] = include_bytes!("../../../shared/aws/src/amazon-roots.pem");
/// Common names of the roots that are replaced: one with a key of RSA, as AWS's endpoints chain to, and a public one with a
/// key of P-256.
const REPLACED: [&str; 2] = ["Amazon Root CA 1", "Amazon Root CA 3"];

/// Bytes in a function, and what replaces them.
type Replacement = (Vec<u8>, Vec<u8>);

/// Authorities of a run, and servers that they vouch for.
pub struct Authorities {
    pub cloud: Arc<ServerConfig>,
    /// Certificate of the cloud's authority.
    pub cloud_pem: String,
    pub third_party: Arc<ServerConfig>,
    replacements: [Replacement; 2],
}

impl Authorities {
    pub fn new() -> Result<Self> {
        let mut amazon = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(AMAZON) {
            amazon.add(certificate?)?;
        }
        let [first, second] = REPLACED;
        // As AWS's endpoints have them: keys of RSA, and one authority between the root and the server.
        let (root, key) = in_place_of(&amazon.roots, first, rsa()?)?;
        let mut below = CertificateParams::default();
        below.distinguished_name.push(DnType::CommonName, "bench");
        let cloud = root.below(below, rsa()?)?;
        let p256 = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        let (public, public_key) = in_place_of(webpki_roots::TLS_SERVER_ROOTS, second, p256()?)?;
        Ok(Self {
            cloud: cloud.server(&rsa()?)?,
            cloud_pem: root.pem,
            third_party: public.server(&p256()?)?,
            replacements: [key, public_key],
        })
    }

    /// Has a function trust the authorities of the run. One that sends nothing to third parties has no public roots.
    pub fn replace_in(&self, binary: &mut [u8], sends: bool) -> Result<()> {
        let [amazon, public] = &self.replacements;
        replace(binary, &amazon.0, &amazon.1).context(REPLACED[0])?;
        if sends {
            replace(binary, &public.0, &public.1).context(REPLACED[1])?;
        }
        Ok(())
    }
}

/// Replaces bytes that must be there exactly once.
fn replace(binary: &mut [u8], old: &[u8], new: &[u8]) -> Result<()> {
    ensure!(old.len() == new.len(), "replaced bytes keep their length");
    let places = binary.windows(old.len()).enumerate();
    let places: Vec<usize> = places
        .filter(|(_, one)| *one == old)
        .map(|(at, _)| at)
        .collect();
    let [at] = places[..] else {
        bail!("it is in the function {} times, and not once", places.len());
    };
    binary[at..at + new.len()].copy_from_slice(new);
    Ok(())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: Vec<u8>,
    /// Certificates that servers send behind their own: this authority's, if it is no root.
    sent: Vec<CertificateDer<'static>>,
}

/// Makes an authority with the name of one of these roots and a key of the same kind; returns the root's key as well, with
/// what replaces it.
fn in_place_of(
    roots: &[TrustAnchor<'_>],
    name: &str,
    key: KeyPair,
) -> Result<(Authority, Replacement)> {
    let mut roots = roots.iter();
    let root = roots.find(|root| contains(&root.subject, name.as_bytes()));
    let root = root.with_context(|| format!("no root {name}"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in [
        (DnType::CountryName, "US"),
        (DnType::OrganizationName, "Amazon"),
        (DnType::CommonName, name),
    ] {
        let value = DnValue::PrintableString(value.try_into()?);
        params.distinguished_name.push(kind, value);
    }
    let authority = Authority::new(params, key)?;
    ensure!(
        contains(&authority.der, &root.subject),
        "{name} has another name"
    );
    // Without the outermost tag and length, as webpki has it.
    let own = authority.issuer.key().subject_public_key_info();
    let length = root.subject_public_key_info.len();
    let start = own
        .len()
        .checked_sub(length)
        .context("the key is shorter")?;
    let replaced = (root.subject_public_key_info.to_vec(), own[start..].to_vec());
    Ok((authority, replaced))
}

/// A key of RSA with 2,048 bits, which ring does not make.
fn rsa() -> Result<KeyPair> {
    let bits = ["-pkeyopt", "rsa_keygen_bits:2048"];
    let mut command = Command::new("openssl");
    command.args(["genpkey", "-algorithm", "RSA"]).args(bits);
    let made = command.output().context("openssl is not installed")?;
    ensure!(made.status.success(), "openssl made no key");
    Ok(KeyPair::from_pem(str::from_utf8(&made.stdout)?)?)
}

impl Authority {
    fn new(mut params: CertificateParams, key: KeyPair) -> Result<Self> {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
            issuer: Issuer::new(params, key),
            sent: Vec::new(),
        })
    }

    /// One that this one vouches for.
    fn below(&self, mut params: CertificateParams, key: KeyPair) -> Result<Self> {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Self {
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
            issuer: Issuer::new(params, key),
            sent: vec![certificate.der().clone()],
        })
    }

    fn server(&self, key: &KeyPair) -> Result<Arc<ServerConfig>> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        let loopback = std::net::Ipv4Addr::LOCALHOST.into();
        params.subject_alt_names.push(SanType::IpAddress(loopback));
        let own = params.signed_by(key, &self.issuer)?;
        let chain = [vec![own.der().clone()], self.sent.clone()].concat();
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Arc::new(server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_replaced_where_it_is_once_and_refused_otherwise() {
        let mut binary = b"before ROOT behind".to_vec();
        replace(&mut binary, b"ROOT", b"OURS").unwrap();
        assert_eq!(binary, b"before OURS behind");
        let error = replace(&mut binary, b"ROOT", b"OURS").unwrap_err();
        assert!(error.to_string().contains("0 times"), "{error}");
        let error = replace(&mut b"ROOT, ROOT".to_vec(), b"ROOT", b"OURS").unwrap_err();
        assert!(error.to_string().contains("2 times"), "{error}");
    }

    #[test]
    fn both_authorities_are_made_as_the_functions_have_their_roots() {
        let authorities = Authorities::new().unwrap();
        let [amazon, public] = &authorities.replacements;
        let mut binary = [&amazon.0[..], &public.0].concat();
        authorities.replace_in(&mut binary, true).unwrap();
        assert_eq!(binary, [&amazon.1[..], &public.1].concat());
    }
}
