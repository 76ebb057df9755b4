//! Certificates of authorities that an operator trusts for one registration, beside the public ones: those of a third
//! party inside the organization.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use api::inputs::DESTINATION;

/// The input of a registration that holds them. Whoever tells an operator that a certificate is not trusted names it.
pub const INPUT: &str = "ca_certificates";

/// As much text is read at most; an authority and what is below it take some 2 KB each.
const LONGEST_BYTES: usize = 16 * 1024;

/// As many certificates at most.
const MOST: usize = 8;

/// PEM text, looked at: each certificate in it can be trusted. Cloning it copies nothing.
#[derive(Clone, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Authorities(Arc<[CertificateDer<'static>]>);

/// Why a text is none. Says what would be right, and nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAuthorities {
    #[error("must have at most {LONGEST_BYTES} bytes")]
    TooLong,
    #[error(
        "must be certificates in PEM, each from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"
    )]
    NotPem,
    #[error("must hold certificates and nothing else: keys do not belong here")]
    Other,
    #[error("must hold at most {MOST} certificates")]
    TooMany,
    #[error("certificate number {0} cannot be read")]
    Unreadable(usize),
}

impl Authorities {
    pub(crate) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

impl TryFrom<&str> for Authorities {
    type Error = NotAuthorities;

    /// Parses PEM text. `\n` stands for a line end, for places without line breaks such as a command line.
    fn try_from(text: &str) -> Result<Self, NotAuthorities> {
        if text.len() > LONGEST_BYTES {
            return Err(NotAuthorities::TooLong);
        }
        let text = text.replace("\\n", "\n");
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| NotAuthorities::NotPem)?;
        // This text is no secret to the system, so it must not hold one.
        if text.matches("-----BEGIN ").count() > certificates.len() {
            return Err(NotAuthorities::Other);
        }
        match certificates.len() {
            0 => return Err(NotAuthorities::NotPem),
            1..=MOST => {}
            _ => return Err(NotAuthorities::TooMany),
        }
        for (index, certificate) in certificates.iter().enumerate() {
            let mut store = rustls::RootCertStore::empty();
            store
                .add(certificate.clone())
                .map_err(|_| NotAuthorities::Unreadable(index + 1))?;
        }
        Ok(Self(certificates.into()))
    }
}

impl TryFrom<String> for Authorities {
    type Error = NotAuthorities;

    fn try_from(text: String) -> Result<Self, NotAuthorities> {
        text.as_str().try_into()
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates", self.0.len())
    }
}

impl JsonSchema for Authorities {
    fn schema_name() -> Cow<'static, str> {
        "Authorities".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// With its description, so that no registration has to repeat it. Who is trusted decides who may be sent the
    /// secrets, as a host does.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": LONGEST_BYTES,
            "description": "Certificates in PEM of authorities that are trusted beside the public ones, where the \
                            server's certificate is of an authority of your own; 8 at most",
            DESTINATION: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: &str = include_str!("../../../tests/peers/tls/authority.pem");

    #[test]
    fn authorities_are_certificates_in_pem_and_nothing_else() {
        let count = |text: &str| Authorities::try_from(text).map(|all| all.certificates().len());
        assert_eq!(count(AUTHORITY), Ok(1));
        assert_eq!(
            count(&format!("of our own:\n{AUTHORITY}{AUTHORITY}")),
            Ok(2)
        );
        let one_line = AUTHORITY.replace('\n', "\\n");
        assert_eq!(count(&one_line), Ok(1), "as on a command line");
        assert_eq!(count(&AUTHORITY.repeat(MOST)), Ok(MOST));
        assert_eq!(count("canary"), Err(NotAuthorities::NotPem));
        let nonsense = |text: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        assert_eq!(count(&nonsense("!")), Err(NotAuthorities::NotPem));
        assert_eq!(
            count(&format!("{AUTHORITY}{}", nonsense("bm8="))),
            Err(NotAuthorities::Unreadable(2))
        );
        let key = "-----BEGIN PRIVATE KEY-----\nbm8=\n-----END PRIVATE KEY-----\n";
        for with_key in [key.to_owned(), format!("{AUTHORITY}{key}")] {
            assert_eq!(count(&with_key), Err(NotAuthorities::Other));
        }
        assert_eq!(
            count(&AUTHORITY.repeat(MOST + 1)),
            Err(NotAuthorities::TooMany)
        );
        assert_eq!(
            count(&" ".repeat(LONGEST_BYTES + 1)),
            Err(NotAuthorities::TooLong)
        );
    }
}
