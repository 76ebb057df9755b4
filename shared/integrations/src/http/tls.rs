//! Reasons why TLS does not come about.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;

/// With the remedy, which is the operator's.
const UNTRUSTED: &str = "its certificate is of an authority that is not trusted; name an authority of your own in the \
                         input ca_certificates";

/// As `openssl req -x509` makes one, unless it is told otherwise.
const AUTHORITYS_OWN: &str = "its certificate is an authority's own (CA:TRUE), which is none for a server; give the \
                              server one with CA:FALSE, and name its authority in the input ca_certificates";

/// The server speaks something else.
pub(crate) const NO_TLS: &str = "no TLS is spoken there";

/// Reads from an error why TLS failed, as a reason for its text, and whether the certificate is to blame; none where
/// something else failed.
pub(crate) fn failure(error: &(dyn StdError + 'static)) -> Option<(&'static str, bool)> {
    match causes(error).find_map(|cause| cause.downcast_ref())? {
        rustls::Error::InvalidCertificate(why) => Some((certificate(why), true)),
        rustls::Error::InvalidMessage(_) => Some((NO_TLS, false)),
        _ => Some(("the TLS handshake failed", false)),
    }
}

/// The error and what it came from. What an `io::Error` was made of is not its source, and clients wrap one in another.
pub(crate) fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&cause| {
        let inner = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => cause.source(),
        }
    })
}

fn certificate(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::UnknownIssuer => UNTRUSTED,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet"
        }
        // The verifier's own error, which has no other name here.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            AUTHORITYS_OWN
        }
        _ => "its certificate cannot be used for a server",
    }
}
