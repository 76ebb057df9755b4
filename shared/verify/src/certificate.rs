//! Certificates: what one says, and whether an authority issued it.

use api::trust::Code;
use api::trust::fault::Problem;
use jiff::Timestamp;
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sigstore_verify::crypto::parse_certificate_info;
use sigstore_verify::types::DerCertificate;
use uuid::Uuid;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::ext::pkix::BasicConstraints;

use crate::key::{PublicKey, sections};

/// Content octets of id-kp-codeSigning, 1.3.6.1.5.5.7.3.3.
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// A signer's certificate. What it says is not believed before [`Leaf::is_issued_by`].
pub(crate) struct Leaf {
    der: CertificateDer<'static>,
    pub(crate) key: PublicKey,
    pub(crate) not_before: Timestamp,
    not_after: Timestamp,
    /// The subject's only `O`, where that is a UUID.
    pub(crate) organization: Option<Uuid>,
    /// Issuer and subject of the OpenID Connect token, which Fulcio put in.
    pub(crate) issuer: Option<String>,
    pub(crate) identity: Option<String>,
}

impl Leaf {
    pub(crate) fn read(der: &DerCertificate) -> Result<Leaf, Code> {
        let parsed = Certificate::from_der(der.as_bytes()).map_err(|_| Code::MaterialUnreadable)?;
        let info = parse_certificate_info(der).map_err(|_| Code::MaterialUnreadable)?;
        let key =
            PublicKey::from_spki(info.public_key.as_bytes()).map_err(|_| Code::KeyUnsupported)?;
        Ok(Leaf {
            der: der.as_bytes().to_vec().into(),
            key,
            not_before: info.not_before,
            not_after: info.not_after,
            organization: organization(&parsed),
            issuer: info.issuer,
            identity: info.identity.map(|name| name.as_str().to_owned()),
        })
    }

    pub(crate) fn is_valid_at(&self, time: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&time)
    }

    /// Tells whether a chain leads to one of the anchors, each link valid at that time and fit to sign code.
    pub(crate) fn is_issued_by(
        &self,
        anchors: &[TrustAnchor<'_>],
        intermediates: &[CertificateDer<'_>],
        time: Timestamp,
    ) -> bool {
        let seconds = u64::try_from(time.as_second()).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let usage = KeyUsage::required(CODE_SIGNING);
        EndEntityCert::try_from(&self.der).is_ok_and(|leaf| {
            leaf.verify_for_usage(
                ALL_VERIFICATION_ALGS,
                anchors,
                intermediates,
                time,
                usage,
                None,
                None,
            )
            .is_ok()
        })
    }
}

fn organization(certificate: &Certificate) -> Option<Uuid> {
    let names = certificate.tbs_certificate.subject.0.iter();
    let mut organizations = names
        .flat_map(|name| name.0.iter())
        .filter(|part| part.oid == ORGANIZATION);
    let (only, None) = (organizations.next()?, organizations.next()) else {
        return None;
    };
    match only.value.tag() {
        Tag::Utf8String | Tag::PrintableString => Uuid::try_parse_ascii(only.value.value()).ok(),
        _ => None,
    }
}

/// The 1 to `most` certificates of a PEM text.
pub(crate) fn certificates(
    pem: &str,
    most: usize,
) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let sections = sections(pem, Problem::Certificates(most))?;
    if sections.is_empty() || sections.len() > most {
        return Err(Problem::Certificates(most));
    }
    let certificates = sections.into_iter().map(|(kind, der)| match kind {
        SectionKind::Certificate => Ok(CertificateDer::from(der)),
        _ => Err(Problem::Certificates(most)),
    });
    certificates.collect()
}

/// The end of validity of the certificate in a PEM text that ends first; none where nothing in it is a certificate.
pub fn certificates_end(pem: &str) -> Option<api::Timestamp> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten();
    let parsed = certificates.filter_map(|der| Certificate::from_der(&der).ok());
    let ends = parsed.map(|parsed| parsed.tbs_certificate.validity.not_after.to_unix_duration());
    let ends = ends.min()?;
    Some(api::Timestamp::from_millis(
        u64::try_from(ends.as_millis()).ok()?,
    ))
}

/// The anchor that an authority's certificate makes.
pub(crate) fn anchor(der: &CertificateDer<'_>) -> Result<TrustAnchor<'static>, Problem> {
    let parsed = Certificate::from_der(der).map_err(|_| Problem::CertificateUnreadable)?;
    match parsed.tbs_certificate.get::<BasicConstraints>() {
        Ok(Some((_, constraints))) if constraints.ca => {}
        _ => return Err(Problem::NotAuthority),
    }
    webpki::anchor_from_trusted_cert(der)
        .map(|anchor| anchor.to_owned())
        .map_err(|_| Problem::CertificateUnreadable)
}
