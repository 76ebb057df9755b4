//! Google Cloud Storage, written from the contract of its JSON API and of Google's tokens: it gives a token only
//! for a claim that is signed, addressed and dated as Google asks, and takes an object only with a token, with the
//! right, and by a condition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use url::Url;

use crate::{Double, Received};

const PRIVATE_KEY: &str =
    include_str!("../../../shared/integrations/tests/files/service-account-of-tests.pem");
const KEY_ID: &str = "0123456789abcdef";
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";

/// One bucket, [`BUCKET`](Self::BUCKET), and one service account that may create objects in it.
pub struct Gcs {
    double: Double,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Public key of the service account; `None` once the key is deleted.
    public_key: Option<Vec<u8>>,
    permissions: BTreeSet<&'static str>,
    tokens: BTreeSet<String>,
    objects: BTreeMap<String, Object>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    pub bytes: Bytes,
    pub content_type: String,
    pub metadata: Value,
}

impl Gcs {
    pub const BUCKET: &str = "sboms";
    pub const EMAIL: &str = "sboms@shop.iam.gserviceaccount.com";

    pub fn start() -> Self {
        let der = PrivatePkcs8KeyDer::from_pem_slice(PRIVATE_KEY.as_bytes()).unwrap();
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
        let state = Arc::new(Mutex::new(State {
            public_key: Some(key.public().as_ref().to_vec()),
            permissions: BTreeSet::from(["storage.objects.create"]),
            tokens: BTreeSet::new(),
            objects: BTreeMap::new(),
        }));
        let shared = Arc::clone(&state);
        let double = Double::start(move |request| shared.lock().unwrap().answer(request));
        Self { double, state }
    }

    pub fn origin(&self) -> &str {
        &self.double.origin
    }

    pub fn received(&self) -> Vec<Received> {
        self.double.received()
    }

    /// The service account's JSON key.
    pub fn credentials() -> String {
        json!({
            "type": "service_account",
            "project_id": "shop",
            "private_key_id": KEY_ID,
            "private_key": PRIVATE_KEY,
            "client_email": Self::EMAIL,
            "token_uri": TOKEN_URL,
        })
        .to_string()
    }

    pub fn objects(&self) -> BTreeMap<String, Object> {
        self.state.lock().unwrap().objects.clone()
    }

    /// The account's key is deleted, and its tokens with it.
    pub fn delete_key(&self) {
        let mut state = self.state.lock().unwrap();
        state.public_key = None;
        state.tokens.clear();
    }

    pub fn take_permissions(&self) {
        self.state.lock().unwrap().permissions.clear();
    }
}

type Answer = Response<Bytes>;

fn answer(status: StatusCode, body: &Value) -> Answer {
    Response::builder()
        .status(status)
        .header("content-type", "application/json; charset=UTF-8")
        .body(body.to_string().into())
        .unwrap()
}

fn refuse(status: StatusCode, reason: &str, message: &str) -> Answer {
    let errors = json!([{ "domain": "global", "reason": reason, "message": message }]);
    let error = json!({ "code": status.as_u16(), "message": message, "errors": errors });
    answer(status, &json!({ "error": error }))
}

fn invalid_grant(description: &str) -> Answer {
    let body = json!({ "error": "invalid_grant", "error_description": description });
    answer(StatusCode::BAD_REQUEST, &body)
}

impl State {
    fn answer(&mut self, request: &Received) -> Answer {
        let url = Url::parse(&format!("http://localhost{}", request.uri())).unwrap();
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        if (request.method(), url.path()) == (&Method::POST, "/token") {
            return self.token(request);
        }
        let authorization = request.headers().get("authorization");
        let token = authorization
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .unwrap_or_default();
        if !self.tokens.contains(token) {
            return refuse(StatusCode::UNAUTHORIZED, "authError", "Invalid Credentials");
        }
        let (path, upload) = match url.path().strip_prefix("/upload") {
            Some(path) => (path, true),
            None => (url.path(), false),
        };
        let Some((bucket, rest)) = path
            .strip_prefix("/storage/v1/b/")
            .and_then(|rest| rest.split_once('/'))
        else {
            return refuse(StatusCode::NOT_FOUND, "notFound", "Not Found");
        };
        if bucket != Gcs::BUCKET {
            let message = "The specified bucket does not exist.";
            return refuse(StatusCode::NOT_FOUND, "notFound", message);
        }
        match (request.method(), rest, upload) {
            (&Method::GET, "iam/testPermissions", false) => self.test_permissions(&url),
            (&Method::POST, "o", true) => self.upload(request, &query),
            _ => refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                "methodNotAllowed",
                "Method Not Allowed",
            ),
        }
    }

    /// <https://developers.google.com/identity/protocols/oauth2/service-account#authorizingrequests>
    fn token(&mut self, request: &Received) -> Answer {
        let form: BTreeMap<_, _> = url::form_urlencoded::parse(request.body())
            .into_owned()
            .collect();
        if request.headers()["content-type"] != "application/x-www-form-urlencoded"
            || form.get("grant_type").map(String::as_str)
                != Some("urn:ietf:params:oauth:grant-type:jwt-bearer")
        {
            return answer(
                StatusCode::BAD_REQUEST,
                &json!({ "error": "unsupported_grant_type" }),
            );
        }
        let assertion = form
            .get("assertion")
            .map(String::as_str)
            .unwrap_or_default();
        let Some((signed, signature)) = assertion.rsplit_once('.') else {
            return invalid_grant("Bad Request");
        };
        let decode = |text: &str| {
            base64_simd::URL_SAFE_NO_PAD
                .decode_to_vec(text)
                .unwrap_or_default()
        };
        let read = |part: Option<&str>| -> Value {
            serde_json::from_slice(&decode(part.unwrap_or_default())).unwrap_or_default()
        };
        let mut parts = signed.split('.');
        let (header, claims) = (read(parts.next()), read(parts.next()));
        if header != json!({ "alg": "RS256", "typ": "JWT", "kid": KEY_ID })
            || parts.next().is_some()
        {
            return invalid_grant("Invalid JWT: bad header");
        }
        let Some(key) = &self.public_key else {
            return invalid_grant("Invalid JWT Signature.");
        };
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key);
        if key.verify(signed.as_bytes(), &decode(signature)).is_err() {
            return invalid_grant("Invalid JWT Signature.");
        }
        if claims["iss"] != Gcs::EMAIL || claims["aud"] != TOKEN_URL {
            return invalid_grant("Invalid JWT: wrong issuer or audience");
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let (issued, expires) = (claims["iat"].as_u64(), claims["exp"].as_u64());
        let is_dated = issued.zip(expires).is_some_and(|(issued, expires)| {
            issued <= now + 60 && expires > now && expires - issued <= 3600
        });
        if !is_dated {
            return invalid_grant("Invalid JWT: Token must be a short-lived token (60 minutes)");
        }
        if claims["scope"] != "https://www.googleapis.com/auth/devstorage.read_write" {
            return answer(
                StatusCode::BAD_REQUEST,
                &json!({ "error": "invalid_scope" }),
            );
        }
        let token = format!("ya29.token-of-the-double-{}", self.tokens.len());
        self.tokens.insert(token.clone());
        let body = json!({ "access_token": token, "expires_in": 3599, "token_type": "Bearer" });
        answer(StatusCode::OK, &body)
    }

    fn test_permissions(&self, url: &Url) -> Answer {
        let granted: Vec<_> = url
            .query_pairs()
            .filter(|(name, value)| name == "permissions" && self.permissions.contains(&**value))
            .map(|(_, value)| value.into_owned())
            .collect();
        let mut body = json!({ "kind": "storage#testIamPermissionsResponse" });
        // As Google does it: no list rather than an empty one.
        if !granted.is_empty() {
            body["permissions"] = granted.into();
        }
        answer(StatusCode::OK, &body)
    }

    /// <https://cloud.google.com/storage/docs/uploading-objects#uploading-an-object>
    fn upload(&mut self, request: &Received, query: &BTreeMap<String, String>) -> Answer {
        if query.get("uploadType").map(String::as_str) != Some("multipart") {
            return refuse(StatusCode::BAD_REQUEST, "invalid", "Unknown upload type");
        }
        if !self.permissions.contains("storage.objects.create") {
            let message = format!("{} does not have storage.objects.create access", Gcs::EMAIL);
            return refuse(StatusCode::FORBIDDEN, "forbidden", &message);
        }
        let Some((name, object)) = read_related(request) else {
            return refuse(
                StatusCode::BAD_REQUEST,
                "badRequest",
                "Malformed multipart body.",
            );
        };
        let exists = self.objects.contains_key(&name);
        match query.get("ifGenerationMatch").map(String::as_str) {
            Some("0") if exists => {
                let message = "At least one of the pre-conditions you specified did not hold.";
                return refuse(StatusCode::PRECONDITION_FAILED, "conditionNotMet", message);
            }
            Some("0") => {}
            Some(_) => return refuse(StatusCode::BAD_REQUEST, "invalid", "No such generation"),
            None if exists => {
                let message = format!("{} does not have storage.objects.delete access", Gcs::EMAIL);
                return refuse(StatusCode::FORBIDDEN, "forbidden", &message);
            }
            None => {}
        }
        let body = json!({ "kind": "storage#object", "name": name, "generation": "1" });
        self.objects.insert(name, object);
        answer(StatusCode::OK, &body)
    }
}

/// A `multipart/related` body of two parts: what the object is, and its bytes.
fn read_related(request: &Received) -> Option<(String, Object)> {
    let content_type = request.headers().get("content-type")?.to_str().ok()?;
    let boundary = content_type.strip_prefix("multipart/related; boundary=")?;
    let length: usize = request
        .headers()
        .get("content-length")?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    let body = request.body();
    let begin = format!("--{boundary}\r\n");
    let between = format!("\r\n--{boundary}\r\n");
    let end = format!("\r\n--{boundary}--\r\n");
    let rest = body
        .strip_prefix(begin.as_bytes())?
        .strip_suffix(end.as_bytes())?;
    let place = find(rest, between.as_bytes())?;
    let (about, media) = (part(&rest[..place])?, part(&rest[place + between.len()..])?);
    let is_json = about.0.starts_with("content-type: application/json");
    let about: Value = serde_json::from_slice(about.1).ok()?;
    let kind = media.0.strip_prefix("content-type: ")?;
    if length != body.len() || !is_json || about["contentType"] != kind {
        return None;
    }
    let object = Object {
        bytes: Bytes::copy_from_slice(media.1),
        content_type: kind.to_owned(),
        metadata: about["metadata"].clone(),
    };
    Some((about["name"].as_str()?.to_owned(), object))
}

fn part(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = find(bytes, b"\r\n\r\n")?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 4..]))
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use attestation::Digest;
    use integrations::Kind;

    use super::*;
    use crate::export::{self, Export};

    fn export(gcs: &Gcs) -> Export {
        // No provider is named: by the credentials.
        Export::new(json!({
            "bucket": Gcs::BUCKET, "endpoint": gcs.origin(), "credentials": Gcs::credentials(),
        }))
    }

    #[tokio::test]
    async fn sboms_arrive_byte_for_byte_and_once() {
        let gcs = Gcs::start();
        let export = export(&gcs);
        export.check().await.unwrap();
        assert!(gcs.objects().is_empty(), "a check writes nothing");
        assert_eq!(export.deliver().await.unwrap(), [true, true, true]);
        let objects = gcs.objects();
        let found: Vec<_> = objects
            .iter()
            .map(|(name, object)| (name.clone(), object.bytes.to_vec()))
            .collect();
        assert!(found == export::expected());
        for object in objects.values() {
            assert_eq!(object.content_type, "application/json");
            assert_eq!(
                object.metadata["digest"],
                Digest::of(&object.bytes).to_string()
            );
        }
        assert_eq!(export.deliver().await.unwrap(), [false, false, false]);
        assert_eq!(gcs.objects(), objects);
    }

    #[tokio::test]
    async fn a_deleted_key_is_refused_with_the_reason() {
        let gcs = Gcs::start();
        gcs.delete_key();
        for error in [
            export(&gcs).check().await.unwrap_err(),
            export(&gcs).deliver().await.unwrap_err(),
        ] {
            assert_eq!(error.kind, Kind::Unauthorized);
            assert!(
                error.text.ends_with("400 Bad Request (invalid_grant)"),
                "{error}"
            );
            let answer = error.answer.unwrap();
            assert!(
                answer.excerpt.contains("Invalid JWT Signature."),
                "{answer:?}"
            );
        }
    }

    #[tokio::test]
    async fn an_account_without_the_right_is_told_at_registration() {
        let gcs = Gcs::start();
        gcs.take_permissions();
        let error = export(&gcs).check().await.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert!(error.text.ends_with("does not have it"), "{error}");
        let error = export(&gcs).deliver().await.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert!(error.text.ends_with("403 Forbidden (forbidden)"), "{error}");
    }
}
