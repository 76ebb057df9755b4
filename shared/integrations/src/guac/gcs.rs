//! Google Cloud Storage, by its JSON API, with the JSON key of a service account.
//!
//! The key is a stranger's input that says where to ask for a token and where the storage is: what it says is
//! held against Google's own addresses, and those are the ones that are asked.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;

use super::inputs::Endpoint;
use super::{JSON, Object, during, explain, invalid};
use crate::http::Response;
use crate::{Content, Error, Host, Http, Kind, SecretText};

#[derive(Debug, Clone)]
pub(super) struct Gcs {
    pub(super) bucket: String,
    /// Address of a stand-in on this machine, which issues tokens, too.
    pub(super) endpoint: Option<Endpoint>,
    pub(super) account: ServiceAccount,
}

/// <https://developers.google.com/identity/protocols/oauth2/service-account>
#[derive(Debug, Clone)]
pub(super) struct ServiceAccount {
    email: String,
    key_id: String,
    /// PKCS #8, in PEM.
    private_key: SecretText,
}

const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
/// Token URL in older keys.
const OLD_TOKEN_URL: &str = "https://accounts.google.com/o/oauth2/token";
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
const PERMISSION: &str = "storage.objects.create";

impl TryFrom<SecretText> for ServiceAccount {
    type Error = String;

    fn try_from(secret: SecretText) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[expect(clippy::struct_field_names, reason = "Google's names")]
        struct Key {
            r#type: String,
            client_email: Option<String>,
            private_key: Option<String>,
            #[serde(default)]
            private_key_id: String,
            token_uri: Option<String>,
            universe_domain: Option<String>,
            gcs_base_url: Option<serde::de::IgnoredAny>,
            disable_oauth: Option<serde::de::IgnoredAny>,
        }
        let Ok(key) = serde_json::from_str::<Key>(secret.expose()) else {
            return Err("must be the JSON key of a service account, with the provider gcs".into());
        };
        if key.r#type != "service_account" {
            return Err(
                "must have the type service_account: other kinds of keys are not taken".into(),
            );
        }
        for (name, is_given) in [
            ("gcs_base_url", key.gcs_base_url.is_some()),
            ("disable_oauth", key.disable_oauth.is_some()),
        ] {
            if is_given {
                return Err(format!(
                    "must not have {name}: only Google's own storage is written to"
                ));
            }
        }
        if key
            .token_uri
            .is_some_and(|url| url != TOKEN_URL && url != OLD_TOKEN_URL)
        {
            return Err(format!("must have the token_uri {TOKEN_URL}, or none"));
        }
        if key
            .universe_domain
            .is_some_and(|domain| domain != "googleapis.com")
        {
            return Err("must have the universe_domain googleapis.com, or none".into());
        }
        let Some(email) = key.client_email.filter(|email| !email.is_empty()) else {
            return Err("must have a client_email".into());
        };
        let private_key = key.private_key.unwrap_or_default();
        if PrivatePkcs8KeyDer::from_pem_slice(private_key.as_bytes()).is_err() {
            return Err("must have a private_key in PEM, as Google hands it out".into());
        }
        Ok(Self {
            email,
            key_id: key.private_key_id,
            private_key: private_key.into(),
        })
    }
}

impl ServiceAccount {
    /// A signed claim to be this account, for which a token is given.
    fn assertion(&self, now: u64) -> Result<String, Error> {
        let unreadable = || Error::permanent("read the service account's private key");
        let der = PrivatePkcs8KeyDer::from_pem_slice(self.private_key.expose().as_bytes())
            .map_err(|_| unreadable())?;
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| unreadable())?;
        let encode = |value: serde_json::Value| {
            base64_simd::URL_SAFE_NO_PAD.encode_to_string(value.to_string())
        };
        let header = encode(json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id }));
        let claims = encode(json!({
            "iss": self.email,
            "scope": SCOPE,
            "aud": TOKEN_URL,
            "iat": now,
            "exp": now + 3600,
        }));
        let signed = format!("{header}.{claims}");
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        )
        .map_err(|_| Error::permanent("sign with the service account's private key"))?;
        let signature = base64_simd::URL_SAFE_NO_PAD.encode_to_string(signature);
        Ok(format!("{signed}.{signature}"))
    }
}

impl Gcs {
    fn base(&self) -> &str {
        self.endpoint
            .as_ref()
            .map_or("https://storage.googleapis.com", Endpoint::base)
    }

    /// For an hour; a delivery asks for one of its own, so that none outlives the registration that it belongs to.
    pub(super) async fn token(&self, http: &Http) -> Result<SecretText, Error> {
        #[derive(Deserialize)]
        struct Token {
            access_token: SecretText,
        }
        let now = http.unix_secs();
        let doing = format!("get a token for {}", self.account.email);
        let assertion = self.account.assertion(now)?;
        http.redactor().learn(&assertion);
        let url = match &self.endpoint {
            Some(endpoint) => format!("{}/token", endpoint.base()),
            None => TOKEN_URL.to_owned(),
        };
        let form = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
        );
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(form))
            .map_err(invalid)?;
        let response = http.send(request).await.map_err(during(&doing))?;
        if let Err(mut error) = response.check(&doing, now) {
            let reason = reason(&response);
            explain(&mut error, reason.as_deref());
            // The account, or its key, may have been replaced since the secret was read.
            if reason.is_some_and(|reason| reason == "invalid_grant" || reason == "invalid_client")
            {
                error.kind = Kind::Unauthorized;
            }
            return Err(error);
        }
        serde_json::from_slice::<Token>(&response.body)
            .map(|token| token.access_token)
            // Not the source, which could quote it.
            .map_err(|_| Error::retryable(format!("{doing}: answered without one")))
    }

    /// The upload as it goes out, but for the token: what the object is, and then its bytes.
    pub(super) fn request<'a>(&self, object: &Object<'a>) -> Result<Request<Content<'a>>, Error> {
        let about = json!({
            "name": object.key,
            "contentType": JSON,
            "metadata": object.metadata.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        });
        // No bytes contain their own digest, so no object contains this.
        let boundary = object.digest.hex();
        let mut content = Content::from(format!(
            "--{boundary}\r\ncontent-type: {JSON}; charset=UTF-8\r\n\r\n{about}\r\n\
             --{boundary}\r\ncontent-type: {JSON}\r\n\r\n"
        ));
        content = content.followed_by(object.content.clone());
        content = content.bytes(format!("\r\n--{boundary}--\r\n"));
        let url = format!(
            "{}/upload/storage/v1/b/{}/o?uploadType=multipart&ifGenerationMatch=0",
            self.base(),
            self.bucket
        );
        Request::post(url)
            .header(
                CONTENT_TYPE,
                format!("multipart/related; boundary={boundary}"),
            )
            .body(content)
            .map_err(invalid)
    }

    /// Asks whether the account may create objects, which creates none.
    pub(super) async fn try_to_write(&self, http: &Http) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Granted {
            #[serde(default)]
            permissions: Vec<String>,
        }
        let token = self.token(http).await?;
        let doing = format!("ask for {PERMISSION} on the bucket {}", self.bucket);
        let url = format!(
            "{}/storage/v1/b/{}/iam/testPermissions?permissions={PERMISSION}",
            self.base(),
            self.bucket
        );
        let request = Request::get(url)
            .header(AUTHORIZATION, bearer(&token)?)
            .body(Bytes::new())
            .map_err(invalid)?;
        let response = http.send(request).await.map_err(during(&doing))?;
        judge(&response, &doing, http.unix_secs())?;
        let granted: Granted = serde_json::from_slice(&response.body).map_err(|error| {
            Error::permanent(format!("{doing}: answered nonsense")).source(error)
        })?;
        if granted
            .permissions
            .iter()
            .any(|granted| granted == PERMISSION)
        {
            return Ok(());
        }
        let email = &self.account.email;
        Err(Error::permanent(format!(
            "{doing}: {email} does not have it"
        )))
    }

    /// <https://cloud.google.com/storage/docs/json_api/v1/objects/get>
    pub(super) async fn size_bytes(
        &self,
        http: &Http,
        token: &SecretText,
        key: &str,
    ) -> Result<Option<u64>, Error> {
        #[derive(Deserialize)]
        struct Shown {
            /// Numbers of 64 bits are texts there.
            size: String,
        }
        let doing = format!("look for {key}");
        let key = key.replace('/', "%2F");
        let url = format!("{}/storage/v1/b/{}/o/{key}", self.base(), self.bucket);
        let request = Request::get(format!("{url}?fields=size"))
            .header(AUTHORIZATION, bearer(token)?)
            .body(Bytes::new())
            .map_err(invalid)?;
        let response = http.send(request).await.map_err(during(&doing))?;
        if response.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        judge(&response, &doing, http.unix_secs())?;
        let shown = serde_json::from_slice::<Shown>(&response.body).ok();
        let size = shown.and_then(|shown| shown.size.parse().ok());
        let untold = || Error::permanent(format!("{doing}: the response has no size"));
        Ok(Some(size.ok_or_else(untold)?))
    }

    pub(super) async fn put(
        &self,
        http: &Http,
        host: &dyn Host,
        token: &SecretText,
        object: &Object<'_>,
    ) -> Result<bool, Error> {
        let doing = format!("put {}", object.key);
        let mut request = self.request(object)?;
        request.headers_mut().insert(AUTHORIZATION, bearer(token)?);
        let response = http.stream(host, request).await.map_err(during(&doing))?;
        if response.status == StatusCode::PRECONDITION_FAILED || is_there(&response) {
            return Ok(false);
        }
        judge(&response, &doing, host.unix_secs())?;
        Ok(true)
    }
}

fn bearer(token: &SecretText) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
        .map_err(|_| Error::permanent("use the token, which is no header's text"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// An account that may create objects and not delete them is asked for the second right before the condition
/// is looked at, and only where there is an object already.
fn is_there(response: &Response) -> bool {
    response.status == StatusCode::FORBIDDEN
        && std::str::from_utf8(&response.body)
            .is_ok_and(|body| body.contains("storage.objects.delete"))
}

/// <https://cloud.google.com/storage/docs/json_api/v1/status-codes>
fn judge(response: &Response, doing: &str, now: u64) -> Result<(), Error> {
    let Err(mut error) = response.check(doing, now) else {
        return Ok(());
    };
    let reason = reason(response);
    let again = explain(&mut error, reason.as_deref());
    if matches!(
        reason.as_deref(),
        Some("rateLimitExceeded" | "userRateLimitExceeded")
    ) {
        error.kind = again;
    }
    Err(error)
}

/// Google's own word for what is wrong: of the storage in a list of errors, of the token's giver alone.
fn reason(response: &Response) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(&response.body).ok()?;
    let word = body["error"]["errors"][0]["reason"]
        .as_str()
        .or_else(|| body["error"].as_str())?;
    let is_word = word.len() <= 64 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_word.then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use attestation::Digest;
    use serde_json::Value;

    use super::super::fixture::{self as guac, answered, attachment, receipt, service_account};
    use super::super::{Guac, Registration};
    use super::*;
    use crate::fixture::{self, CDX, Peer, Stage};
    use crate::{Integration, Outcome, PresenceState};

    fn registration(party: &Peer) -> Registration {
        serde_json::from_value(json!({
            "bucket": "sboms", "endpoint": party.origin, "credentials": service_account(json!({})),
        }))
        .unwrap()
    }

    fn answer(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\nretry-after: 7\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn token() -> String {
        answer(
            "200 OK",
            r#"{"access_token":"canary-token","expires_in":3599,"token_type":"Bearer"}"#,
        )
    }

    fn refusal(status: &str, reason: &str) -> String {
        let code = &status[..3];
        let body = format!(
            r#"{{"error":{{"code":{code},"message":"m canary-token","errors":[{{"domain":"global","reason":"{reason}"}}]}}}}"#
        );
        answer(status, &body)
    }

    #[tokio::test]
    async fn an_object_is_uploaded_with_what_it_is_in_front() {
        let (outcome, received) =
            answered(registration, &[&token(), &answer("200 OK", "{}")]).await;
        assert_eq!(receipt(outcome.unwrap())["objects"][0]["created"], true);
        let [token, upload] = &received[..] else {
            panic!("{received:?}")
        };
        assert_eq!(
            (token.method.as_str(), token.target.as_str()),
            ("POST", "/token")
        );
        assert_eq!(
            upload.target,
            "/upload/storage/v1/b/sboms/o?uploadType=multipart&ifGenerationMatch=0"
        );
        assert_eq!(upload.headers["authorization"], "Bearer canary-token");
        let hex = Digest::of(CDX.as_bytes()).hex();
        assert_eq!(
            upload.headers["content-type"],
            format!("multipart/related; boundary={hex}")
        );
        let text = std::str::from_utf8(&upload.body).unwrap();
        let boundary = format!("--{hex}");
        let mut parts = text.split(&boundary);
        assert_eq!(parts.next(), Some(""));
        let (head, about) = parts.next().unwrap().split_once("\r\n\r\n").unwrap();
        assert_eq!(head, "\r\ncontent-type: application/json; charset=UTF-8");
        let about: Value = serde_json::from_str(about).unwrap();
        assert_eq!(about["name"], format!("chainloop/sboms/{hex}.cdx.json"));
        assert_eq!(about["contentType"], "application/json");
        assert_eq!(about["metadata"]["digest"], format!("sha256:{hex}"));
        let media = format!("\r\ncontent-type: application/json\r\n\r\n{CDX}\r\n");
        assert_eq!(parts.next(), Some(media.as_str()));
        assert_eq!((parts.next(), parts.next()), (Some("--\r\n"), None));
    }

    #[tokio::test]
    async fn the_preview_is_what_is_sent_but_for_the_token() {
        let party = Peer::start(&[&token(), &answer("200 OK", "{}"), &answer("200 OK", "{}")]);
        let (stage, registration) = (Stage::new(), registration(&party));
        let attachment = attachment(json!({}));
        let delivery = stage.delivery::<Guac>(&registration, &attachment);
        let previews = Guac::preview(&stage, &delivery).await.unwrap();
        assert!(party.received().is_empty());
        guac::deliver(&stage, &registration, &attachment)
            .await
            .unwrap();
        let received = party.received();
        assert_eq!(
            (previews.len(), received.len()),
            (2, 3),
            "one token for both"
        );
        for (preview, sent) in previews.iter().zip(&received[1..]) {
            assert_eq!(preview.target, format!("{}{}", party.origin, sent.target));
            assert_eq!(preview.body.as_bytes(), sent.body);
            assert_eq!(preview.digest, Digest::of(&sent.body));
            assert_eq!(
                preview.headers["content-type"],
                sent.headers["content-type"]
            );
            assert!(!preview.headers.contains_key("authorization"));
        }
    }

    #[tokio::test]
    async fn each_answer_of_gcs_has_its_class() {
        let again = Kind::Retryable {
            after: Some(Duration::from_secs(7)),
        };
        let soon = Kind::Retryable { after: None };
        for (status, reason, kind) in [
            ("400 Bad Request", "invalid", Kind::Permanent),
            ("401 Unauthorized", "authError", Kind::Unauthorized),
            ("403 Forbidden", "forbidden", Kind::Permanent),
            ("403 Forbidden", "rateLimitExceeded", soon),
            ("404 Not Found", "notFound", Kind::Permanent),
            ("408 Request Timeout", "timeout", again),
            ("429 Too Many Requests", "rateLimitExceeded", again),
            ("500 Internal Server Error", "backendError", again),
            ("503 Service Unavailable", "backendError", again),
        ] {
            let (outcome, _) = answered(registration, &[&token(), &refusal(status, reason)]).await;
            let error = outcome.unwrap_err();
            assert_eq!(error.kind, kind, "{status} {reason}: {error:?}");
            assert!(error.text.starts_with("put chainloop/sboms/"), "{error}");
            assert!(error.text.ends_with(&format!("({reason})")), "{error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn an_object_that_is_there_already_is_delivered() {
        let may_not_delete = r#"{"error":{"code":403,"message":"sboms@shop does not have storage.objects.delete access to the Google Cloud Storage object."}}"#;
        for answer in [
            refusal("412 Precondition Failed", "conditionNotMet"),
            answer("403 Forbidden", may_not_delete),
        ] {
            let (outcome, _) = answered(registration, &[&token(), &answer]).await;
            let receipt = receipt(outcome.unwrap());
            assert_eq!(receipt["objects"][0]["created"], false);
        }
    }

    #[tokio::test]
    async fn an_account_that_gets_no_token_is_told_why() {
        let invalid = r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#;
        for (answer, kind, end) in [
            (
                answer("400 Bad Request", invalid),
                Kind::Unauthorized,
                "answered 400 Bad Request (invalid_grant)",
            ),
            (
                answer("401 Unauthorized", r#"{"error":"invalid_client"}"#),
                Kind::Unauthorized,
                "answered 401 Unauthorized (invalid_client)",
            ),
            (
                answer("400 Bad Request", r#"{"error":"invalid_scope"}"#),
                Kind::Permanent,
                "answered 400 Bad Request (invalid_scope)",
            ),
            (
                answer("200 OK", "{}"),
                Kind::Retryable { after: None },
                "answered without one",
            ),
        ] {
            let party = Peer::start(&[&answer]);
            let error = Guac::register(&fixture::http(), &registration(&party))
                .await
                .unwrap_err();
            assert_eq!(error.kind, kind, "{error:?}");
            let text = format!("get a token for sboms@shop.iam.gserviceaccount.com: {end}");
            assert_eq!(error.text, text);
        }
    }

    #[tokio::test]
    async fn a_check_asks_for_the_permission_and_writes_nothing() {
        let granted = r#"{"kind":"storage#testIamPermissionsResponse","permissions":["storage.objects.create"]}"#;
        let party = Peer::start(&[&token(), &answer("200 OK", granted)]);
        Guac::register(&fixture::http(), &registration(&party))
            .await
            .unwrap();
        let received = party.received();
        assert_eq!(
            (received[1].method.as_str(), received[1].target.as_str()),
            (
                "GET",
                "/storage/v1/b/sboms/iam/testPermissions?permissions=storage.objects.create"
            )
        );
        for (answer, end) in [
            (
                answer("200 OK", r#"{"kind":"storage#testIamPermissionsResponse"}"#),
                "sboms@shop.iam.gserviceaccount.com does not have it",
            ),
            (
                refusal("404 Not Found", "notFound"),
                "answered 404 Not Found (notFound)",
            ),
        ] {
            let party = Peer::start(&[&token(), &answer]);
            let error = Guac::register(&fixture::http(), &registration(&party))
                .await
                .unwrap_err();
            assert_eq!(error.kind, Kind::Permanent);
            let text = format!("ask for storage.objects.create on the bucket sboms: {end}");
            assert_eq!(error.text, text);
        }
    }

    #[tokio::test]
    async fn in_earnest_nothing_on_this_machine_is_asked() {
        let party = Peer::start(&[&token()]);
        let http = Http::new(crate::http::Guard::default());
        let error = Guac::register(&http, &registration(&party))
            .await
            .unwrap_err();
        assert!(
            error.text.ends_with("a loopback address is not allowed")
                || error
                    .text
                    .ends_with("a URL that is not https is not allowed"),
            "{error}"
        );
        assert!(party.received().is_empty());
    }

    #[tokio::test]
    async fn with_nothing_to_put_no_token_is_asked_for() {
        let party = Peer::start(&[]);
        let mut stage = Stage::new();
        stage.materials.clear();
        let outcome = guac::deliver(&stage, &registration(&party), &attachment(json!({}))).await;
        assert!(matches!(outcome, Ok(Outcome::Skipped(_))), "{outcome:?}");
        assert!(party.received().is_empty());
    }

    #[tokio::test]
    async fn an_object_is_looked_for_by_its_name_and_size() {
        let token = answer("200 OK", r#"{"access_token":"canary-token"}"#);
        for (told, state) in [
            (
                answer("200 OK", r#"{"size":"5"}"#),
                Some(PresenceState::There),
            ),
            (
                answer("200 OK", r#"{"size":"6"}"#),
                Some(PresenceState::Gone),
            ),
            (answer("404 Not Found", "{}"), Some(PresenceState::Gone)),
            // Who may create objects may often not read them.
            (answer("403 Forbidden", "{}"), None),
        ] {
            let party = Peer::start(&[&token, &told]);
            let receipt =
                json!({ "bucket": "sboms", "objects": [{ "key": "a/b.json", "size_bytes": 5 }] });
            let receipt = receipt.as_object().unwrap();
            let found = Guac::look_for(&fixture::http(), &registration(&party), receipt).await;
            assert_eq!(found.ok().map(|found| found.state), state, "{told}");
            let received = &party.received()[1];
            assert_eq!(received.method, "GET");
            assert_eq!(
                received.target,
                "/storage/v1/b/sboms/o/a%2Fb.json?fields=size"
            );
        }
    }
}
