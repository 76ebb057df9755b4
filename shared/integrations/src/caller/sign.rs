//! Host and signature of a request to AWS.

use attestation::Digest;
use http::{HeaderValue, Request};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;

use super::AccessKey;
use crate::error::Error;

/// Domains of AWS's partitions, by what their regions begin with; the others' is `amazonaws.com`.
const DOMAINS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
];

/// `sts.eu-central-1.amazonaws.com`.
pub fn host(service: &str, region: &str) -> String {
    let found = DOMAINS.iter().find(|(begin, _)| region.starts_with(begin));
    let domain = found.map_or("amazonaws.com", |(_, domain)| *domain);
    format!("{service}.{region}.{domain}")
}

/// Signs the request together with the digest of its body.
pub(crate) fn sign<T>(
    request: Request<T>,
    digest: &Digest,
    key: &AccessKey,
    service: &str,
    region: &str,
) -> Result<Request<T>, Error> {
    let credential = AwsCredential {
        key_id: key.id.clone(),
        secret_key: key.secret.expose().to_owned(),
        token: key.token.as_ref().map(|token| token.expose().to_owned()),
    };
    let (parts, body) = request.into_parts();
    let mut request = Request::from_parts(parts, HttpRequestBody::empty());
    AwsAuthorizer::new(&credential, service, region)
        .try_authorize(&mut request, Some(digest.bytes().as_slice()))
        .map_err(|error| Error::permanent(format!("sign a request to {service}")).source(error))?;
    if let Some(token) = request.headers_mut().get_mut("x-amz-security-token") {
        HeaderValue::set_sensitive(token, true);
    }
    Ok(request.map(|_| body))
}
