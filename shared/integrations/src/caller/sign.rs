//! Host and signature of a request to AWS.

use attestation::Digest;
use http::{HeaderValue, Request};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;

use super::AccessKey;
use crate::error::Error;

/// `sts.eu-central-1.amazonaws.com`.
pub fn host(service: &str, region: &str) -> String {
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("{service}.{region}.amazonaws.com{china}")
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
