//! Azure Blob Storage, with an account's key or with a shared access signature.
//!
//! `object_store` signs; requests are ours, as with S3.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_NONE_MATCH};
use http::{Request, StatusCode};
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential, split_sas};
use object_store::client::HttpRequestBody;

use super::inputs::{Account, Endpoint, Prefix};
use super::{JSON, Object, check_key, code, during, explain, invalid, size_of};
use crate::http::Response;
use crate::{Content, Error, Host, Http, Kind, SecretText};

#[derive(Debug, Clone)]
pub(super) struct Azure {
    pub(super) container: String,
    pub(super) account: Account,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) credential: Credential,
}

/// An account's key, or a SAS token: a query with a signature in it.
#[derive(Debug, Clone)]
pub(super) struct Credential(SecretText);

impl Credential {
    fn read(text: &str) -> Option<AzureCredential> {
        let query = text.trim();
        let query = query.strip_prefix('?').unwrap_or(query);
        // Base64 has no `&`, and a SAS token has several parts.
        if !query.contains('&') {
            return AzureAccessKey::try_new(query)
                .ok()
                .map(AzureCredential::AccessKey);
        }
        let pairs = split_sas(query).ok()?;
        let has = |name| {
            pairs
                .iter()
                .any(|(own, value)| own == name && !value.is_empty())
        };
        (has("sig") && has("sv")).then_some(AzureCredential::SASToken(pairs))
    }
}

impl TryFrom<SecretText> for Credential {
    type Error = &'static str;

    fn try_from(secret: SecretText) -> Result<Self, Self::Error> {
        match Self::read(secret.expose()) {
            Some(_) => Ok(Self(secret)),
            None => Err(
                "must be an account key in base64, or a SAS token with sv and sig in it, \
                 with the provider azure",
            ),
        }
    }
}

impl Azure {
    fn url(&self) -> String {
        let container = &self.container;
        match &self.endpoint {
            Some(endpoint) => format!("{}/{container}", endpoint.base()),
            None => format!(
                "https://{}.blob.core.windows.net/{container}",
                self.account.as_str()
            ),
        }
    }

    /// The PUT as it goes out, but for the signature.
    pub(super) fn request<'a>(&self, object: &Object<'a>) -> Result<Request<Content<'a>>, Error> {
        let mut request = Request::put(format!("{}/{}", self.url(), object.key))
            .header(CONTENT_TYPE, JSON)
            .header(IF_NONE_MATCH, "*")
            .header("x-ms-blob-type", "BlockBlob");
        for (name, value) in &object.metadata {
            request = request.header(format!("x-ms-meta-{name}"), value);
        }
        request.body(object.content.clone()).map_err(invalid)
    }

    /// Is there such a container? Whether it may be read is another matter, as with S3.
    pub(super) async fn find(&self, http: &Http) -> Result<(), Error> {
        let doing = format!("find the container {}", self.container);
        let request = Request::head(format!("{}?restype=container", self.url()));
        let request = request.body(Bytes::new()).map_err(invalid)?;
        let response = self.send(http, &doing, request).await?;
        if response.status == StatusCode::FORBIDDEN {
            return Ok(());
        }
        Self::judge(&response, &doing, http.unix_secs())
    }

    /// Puts a block of a blob that is never made of it: nobody sees it, and Azure drops it after a week.
    pub(super) async fn try_to_write(&self, http: &Http, prefix: &Prefix) -> Result<(), Error> {
        let now = http.unix_secs();
        let doing = format!("try to write below {}/", prefix.as_str());
        let key = check_key(prefix, now);
        let url = format!("{}/{key}?comp=block&blockid=Y2hlY2tz", self.url());
        let body = Bytes::from_static(b"{}");
        let request = Request::put(url).body(body).map_err(invalid)?;
        let response = self.send(http, &doing, request).await?;
        Self::judge(&response, &doing, now)
    }

    pub(super) async fn put(
        &self,
        http: &Http,
        host: &dyn Host,
        object: &Object<'_>,
    ) -> Result<bool, Error> {
        let doing = format!("put {}", object.key);
        let request = self.request(object)?;
        let request = self.sign(request, object.content.size_bytes())?;
        let response = http.stream(host, request).await.map_err(during(&doing))?;
        let is_there = match response.status {
            StatusCode::PRECONDITION_FAILED => true,
            StatusCode::CONFLICT => matches!(
                code_of(&response),
                Some("BlobAlreadyExists" | "BlobImmutableDueToPolicy")
            ),
            _ => false,
        };
        if is_there {
            return Ok(false);
        }
        Self::judge(&response, &doing, host.unix_secs())?;
        Ok(true)
    }

    pub(super) async fn size_bytes(&self, http: &Http, key: &str) -> Result<Option<u64>, Error> {
        let doing = format!("look for {key}");
        let request = Request::head(format!("{}/{key}", self.url())).body(Bytes::new());
        let response = self.send(http, &doing, request.map_err(invalid)?).await?;
        if response.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Self::judge(&response, &doing, http.unix_secs())?;
        size_of(&response, &doing).map(Some)
    }

    async fn send(
        &self,
        http: &Http,
        doing: &str,
        request: Request<Bytes>,
    ) -> Result<Response, Error> {
        let size_bytes = request.body().len() as u64;
        let request = self.sign(request, size_bytes)?;
        http.send(request).await.map_err(during(doing))
    }

    fn sign<T>(&self, request: Request<T>, size_bytes: u64) -> Result<Request<T>, Error> {
        let unsigned = || Error::permanent("sign a request to the container");
        let credential = Credential::read(self.credential.0.expose()).ok_or_else(unsigned)?;
        let (parts, body) = request.into_parts();
        let mut request = Request::from_parts(parts, HttpRequestBody::empty());
        // The length of nothing is signed as nothing.
        if size_bytes > 0 {
            request
                .headers_mut()
                .insert(CONTENT_LENGTH, size_bytes.into());
        }
        AzureAuthorizer::new(&credential, self.account.as_str())
            .try_authorize(&mut request)
            .map_err(|error| unsigned().source(error))?;
        Ok(request.map(|_| body))
    }

    /// <https://learn.microsoft.com/en-us/rest/api/storageservices/blob-service-error-codes>
    fn judge(response: &Response, doing: &str, now: u64) -> Result<(), Error> {
        let Err(mut error) = response.check(doing, now) else {
            return Ok(());
        };
        let code = code_of(response);
        let again = explain(&mut error, code);
        error.kind = match (response.status.as_u16(), code) {
            // The container is on its way out or the blob is being written: neither lasts.
            (409, _) | (_, Some("InternalError" | "OperationTimedOut" | "ServerBusy")) => again,
            // The secret may have been rotated since it was read.
            (_, Some("AuthenticationFailed" | "InvalidAuthenticationInfo")) => Kind::Unauthorized,
            _ => error.kind,
        };
        Err(error)
    }
}

/// A header, since an answer to HEAD has no body.
fn code_of(response: &Response) -> Option<&str> {
    let header = response.headers.get("x-ms-error-code");
    header
        .and_then(|code| code.to_str().ok())
        .filter(|code| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric()))
        .or_else(|| code(response))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use attestation::Digest;
    use serde_json::json;

    use super::super::fixture::{answered, attachment, deliver, receipt};
    use super::super::{Guac, Registration};
    use super::*;
    use crate::fixture::{self, CDX, Peer, Stage};
    use crate::{Integration, PresenceState};

    const KEY: &str = "Y2FuYXJ5LW9mLWFuLWFjY291bnQ=";
    const SAS: &str = "?sv=2026-02-06&sr=c&sp=cw&sig=Y2FuYXJ5%2Bb2Y%3D";

    fn registration_with(party: &Peer, credentials: &str) -> Registration {
        serde_json::from_value(json!({
            "provider": "azure", "account": "shop", "bucket": "sboms",
            "endpoint": party.origin, "credentials": credentials,
        }))
        .unwrap()
    }

    fn registration(party: &Peer) -> Registration {
        registration_with(party, KEY)
    }

    const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n";

    fn refusal(status: &str, code: &str) -> String {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
        format!(
            "HTTP/1.1 {status}\r\nx-ms-error-code: {code}\r\nretry-after: 7\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn a_blob_is_created_whole() {
        let (outcome, received) = answered(registration, &[CREATED]).await;
        assert_eq!(receipt(outcome.unwrap())["objects"][0]["created"], true);
        let sent = &received[0];
        let hex = Digest::of(CDX.as_bytes()).hex();
        assert_eq!(
            sent.target,
            format!("/sboms/chainloop/sboms/{hex}.cdx.json")
        );
        assert_eq!(sent.headers["x-ms-blob-type"], "BlockBlob");
        assert_eq!(sent.headers["if-none-match"], "*");
        assert_eq!(sent.headers["content-length"], CDX.len().to_string());
        assert_eq!(sent.headers["x-ms-meta-digest"], format!("sha256:{hex}"));
        assert!(sent.headers["authorization"].starts_with("SharedKey shop:"));
        assert!(sent.headers.contains_key("x-ms-version"));
        assert_eq!(sent.body, CDX.as_bytes());
    }

    #[tokio::test]
    async fn a_sas_token_stands_in_the_query_and_nowhere_else() {
        let party = Peer::start(&[&refusal("403 Forbidden", "AuthenticationFailed")]);
        let mut stage = Stage::new();
        stage.materials.truncate(1);
        let registration = registration_with(&party, SAS);
        let attachment = attachment(json!({}));
        let delivery = stage.delivery::<Guac>(&registration, &attachment);
        let previews = Guac::preview(&stage, &delivery).await.unwrap();
        let error = deliver(&stage, &registration, &attachment)
            .await
            .unwrap_err();
        let sent = &party.received()[0];
        let (path, query) = sent.target.split_once('?').unwrap();
        assert_eq!(previews[0].target, format!("{}{path}", party.origin));
        assert!(query.contains("sig=Y2FuYXJ5%2Bb2Y%3D"), "{query}");
        assert!(!sent.headers.contains_key("authorization"));
        let shown = format!("{error} {error:?} {registration:?} {previews:?}");
        assert!(!shown.contains("Y2FuYXJ5"), "{shown}");
    }

    #[tokio::test]
    async fn the_preview_is_what_is_sent_but_for_the_signature() {
        let party = Peer::start(&[CREATED]);
        let mut stage = Stage::new();
        stage.materials.truncate(1);
        let (registration, attachment) = (registration(&party), attachment(json!({})));
        let delivery = stage.delivery::<Guac>(&registration, &attachment);
        let previews = Guac::preview(&stage, &delivery).await.unwrap();
        deliver(&stage, &registration, &attachment).await.unwrap();
        let (preview, sent) = (&previews[0], &party.received()[0]);
        assert_eq!(preview.target, format!("{}{}", party.origin, sent.target));
        assert_eq!(preview.digest, Digest::of(&sent.body));
        for (name, value) in &preview.headers {
            assert_eq!(sent.headers[name], *value, "{name}");
        }
    }

    #[tokio::test]
    async fn each_answer_of_azure_has_its_class() {
        let soon = Kind::Retryable { after: None };
        let again = Kind::Retryable {
            after: Some(Duration::from_secs(7)),
        };
        for (status, code, kind) in [
            ("400 Bad Request", "InvalidHeaderValue", Kind::Permanent),
            (
                "401 Unauthorized",
                "NoAuthenticationInformation",
                Kind::Unauthorized,
            ),
            ("403 Forbidden", "AuthenticationFailed", Kind::Unauthorized),
            (
                "403 Forbidden",
                "AuthorizationPermissionMismatch",
                Kind::Permanent,
            ),
            ("403 Forbidden", "AuthorizationFailure", Kind::Permanent),
            ("404 Not Found", "ContainerNotFound", Kind::Permanent),
            ("409 Conflict", "ContainerBeingDeleted", soon),
            ("500 Internal Server Error", "InternalError", again),
            ("500 Internal Server Error", "OperationTimedOut", again),
            ("503 Server Busy", "ServerBusy", again),
        ] {
            let (outcome, _) = answered(registration, &[&refusal(status, code)]).await;
            let error = outcome.unwrap_err();
            assert_eq!(error.kind, kind, "{status} {code}: {error:?}");
            assert!(error.text.ends_with(&format!("({code})")), "{error}");
        }
    }

    #[tokio::test]
    async fn a_blob_that_is_there_already_is_delivered() {
        for (status, code) in [
            ("409 Conflict", "BlobAlreadyExists"),
            ("409 Conflict", "BlobImmutableDueToPolicy"),
            ("412 Precondition Failed", "ConditionNotMet"),
        ] {
            let (outcome, _) = answered(registration, &[&refusal(status, code)]).await;
            let receipt = receipt(outcome.unwrap());
            assert_eq!(receipt["objects"][0]["created"], false, "{code}");
        }
    }

    #[tokio::test]
    async fn a_check_looks_for_the_container_and_puts_a_block_that_no_blob_has() {
        let found = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        // Who may write need not be allowed to look.
        for first in [
            found,
            &refusal("403 Forbidden", "AuthorizationPermissionMismatch"),
        ] {
            // An answer to HEAD has no body.
            let first = first.split("\r\n\r\n").next().unwrap().to_owned() + "\r\n\r\n";
            let party = Peer::start(&[&first, CREATED]);
            Guac::register(&fixture::http(), &registration(&party))
                .await
                .unwrap();
            let received = party.received();
            assert_eq!(
                (received[0].method.as_str(), received[0].target.as_str()),
                ("HEAD", "/sboms?restype=container")
            );
            assert_eq!(received[1].method, "PUT");
            assert!(received[1].target.ends_with("?comp=block&blockid=Y2hlY2tz"));
        }
    }

    #[tokio::test]
    async fn a_missing_container_is_refused() {
        let gone = "HTTP/1.1 404 Not Found\r\nx-ms-error-code: ContainerNotFound\r\ncontent-length: 0\r\n\r\n";
        let party = Peer::start(&[gone]);
        let error = Guac::register(&fixture::http(), &registration(&party))
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert_eq!(
            error.text,
            "find the container sboms: answered 404 Not Found (ContainerNotFound)"
        );
    }

    #[tokio::test]
    async fn a_blob_is_looked_for_by_its_name_and_size() {
        let told = |status: &str, size: usize| {
            format!("HTTP/1.1 {status}\r\ncontent-length: {size}\r\n\r\n")
        };
        for (answer, state) in [
            (told("200 OK", 5), Some(PresenceState::There)),
            (told("200 OK", 6), Some(PresenceState::Gone)),
            (told("404 Not Found", 0), Some(PresenceState::Gone)),
            (told("403 Forbidden", 0), None),
        ] {
            let party = Peer::start(&[&answer]);
            let receipt =
                json!({ "bucket": "sboms", "objects": [{ "key": "a/b.json", "size_bytes": 5 }] });
            let receipt = receipt.as_object().unwrap();
            let found = Guac::look_for(&fixture::http(), &registration(&party), receipt).await;
            assert_eq!(found.ok().map(|found| found.state), state, "{answer}");
            let received = &party.received()[0];
            let asked = (received.method.as_str(), received.target.as_str());
            assert_eq!(asked, ("HEAD", "/sboms/a/b.json"));
        }
    }
}
