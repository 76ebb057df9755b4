//! Signs requests to AWS as the SDK does, and cheaper: the key of a day is derived once, and ring hashes.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
//!
//! Leaves streamed bodies and retries to the SDK, which corrects the time of a
//! retry: with a clock that is off by more than minutes, the first attempt of each call is refused.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use api::Timestamp;
use attestation::Digest;
use aws_credential_types::Credentials;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4Signer};
use aws_runtime::auth::{HttpSignatureType, PayloadSigningOverride, SigV4OperationSigningConfig};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::{
    AuthScheme, AuthSchemeEndpointConfig, AuthSchemeId, Sign,
};
use aws_smithy_runtime_api::client::identity::{Identity, SharedIdentityResolver};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use aws_smithy_runtime_api::client::runtime_components::{GetIdentityResolver, RuntimeComponents};
use aws_smithy_types::Document;
use aws_smithy_types::config_bag::ConfigBag;
use aws_types::SigningName;
use aws_types::region::SigningRegion;
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use ring::hmac::{self, HMAC_SHA256};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Stands for the digest of a body that is not signed: TLS protects it, or whoever puts it may put anything.
pub(crate) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// All but letters, digits and `-._~` (RFC 3986, 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Headers that proxies may change.
const UNSIGNED: [&str; 4] = [
    "authorization",
    "transfer-encoding",
    "user-agent",
    "x-amzn-trace-id",
];

/// Authentication scheme that signs with a kept key.
#[derive(Debug, Default)]
pub struct Signer {
    sdk: SigV4Signer,
    keys: Keys,
}

/// Key for the requests of a day, kept from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Keys(Mutex<Option<DayKey>>);

/// Key for the requests of a day, and what it was derived from.
#[derive(Debug)]
struct DayKey {
    access_key: String,
    scope: String,
    hmac: hmac::Key,
}

impl AuthScheme for Signer {
    fn scheme_id(&self) -> AuthSchemeId {
        SCHEME_ID
    }

    fn identity_resolver(
        &self,
        resolvers: &dyn GetIdentityResolver,
    ) -> Option<SharedIdentityResolver> {
        resolvers.identity_resolver(SCHEME_ID)
    }

    fn signer(&self) -> &dyn Sign {
        self
    }
}

impl Sign for Signer {
    fn sign_http_request(
        &self,
        request: &mut HttpRequest,
        identity: &Identity,
        endpoint: AuthSchemeEndpointConfig<'_>,
        components: &RuntimeComponents,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        let now = components.time_source().unwrap_or_default().now();
        let now = now.duration_since(UNIX_EPOCH)?.as_millis();
        let now = Timestamp::from_millis(now.try_into()?);
        match Signing::of(request, identity, &endpoint, config) {
            Some(signing) => {
                let signed = self.keys.headers(&Parts::of(request)?, &signing, now)?;
                for (name, value) in signed {
                    request.headers_mut().insert(name, value);
                }
                Ok(())
            }
            None => self
                .sdk
                .sign_http_request(request, identity, endpoint, components, config),
        }
    }
}

/// Parameters of a request that is signed here.
pub(crate) struct Signing<'a> {
    pub(crate) credentials: &'a Credentials,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    /// Digest of the body, in hexadecimal digits, or [`UNSIGNED_PAYLOAD`].
    pub(crate) payload: String,
    /// A header says so as well.
    pub(crate) tells_payload: bool,
}

/// Parts of a request that are signed.
pub(crate) struct Parts<'a> {
    pub(crate) method: &'a str,
    pub(crate) uri: Uri<'a>,
    /// The host's may be left out.
    pub(crate) headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Parts<'a> {
    fn of(request: &'a HttpRequest) -> Result<Self, BoxError> {
        Ok(Self {
            method: request.method(),
            uri: Uri::of(request.uri()).ok_or("a request without a host")?,
            headers: request.headers().iter().collect(),
        })
    }
}

impl<'a> Signing<'a> {
    fn of(
        request: &HttpRequest,
        identity: &'a Identity,
        endpoint: &AuthSchemeEndpointConfig<'_>,
        config: &'a ConfigBag,
    ) -> Option<Self> {
        let options = &config
            .load::<SigV4OperationSigningConfig>()?
            .signing_options;
        let attempts = config
            .load::<RequestAttempts>()
            .map_or(0, RequestAttempts::attempts);
        let region = config.load::<SigningRegion>()?.as_ref();
        let service = config.load::<SigningName>()?.as_ref();
        let is_own = |name: &str, own: &str| match endpoint.get(name) {
            Some(Document::String(other)) => other == own,
            other => other.is_none(),
        };
        let is_usual = options.signature_type == HttpSignatureType::HttpRequestHeaders
            && options.payload_override.is_none()
            && !options.omit_session_token
            && attempts <= 1
            && is_own("signingRegion", region)
            && is_own("signingName", service)
            && !options.content_sha256_header
            // Other paths are encoded twice.
            && Uri::of(request.uri())?.path == "/"
            && config.load::<PayloadSigningOverride>().is_none();
        if !is_usual {
            return None;
        }
        Some(Self {
            credentials: identity.data()?,
            region,
            service,
            payload: Digest::of(request.body().bytes()?).hex(),
            tells_payload: false,
        })
    }
}

/// Parts of a request's URI, as its text has them.
pub(crate) struct Uri<'a> {
    host: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Uri<'a> {
    pub(crate) fn of(uri: &'a str) -> Option<Self> {
        let (scheme, rest) = uri.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let end = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let port = if scheme == "https" { ":443" } else { ":80" };
        Some(Self {
            host: host.strip_suffix(port).unwrap_or(host),
            path: if path.is_empty() { "/" } else { path },
            query,
        })
    }

    /// The parameters in the order of their names, each with a value.
    fn parameters(&self) -> String {
        let parameters = self.query.split('&').filter(|one| !one.is_empty());
        let mut pairs: Vec<_> = parameters
            .map(|one| one.split_once('=').unwrap_or((one, "")))
            .collect();
        pairs.sort_unstable();
        let pairs = pairs.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("&")
    }
}

/// The scope of a day's key: day, region, service.
fn scope(signing: &Signing<'_>, time: &str) -> String {
    let day = &time[.."20261130".len()];
    format!("{day}/{}/{}/aws4_request", signing.region, signing.service)
}

/// A text as a part of a query, where only unreserved letters stand for themselves.
pub(crate) fn encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, ESCAPED)
}

/// Time of a signature, as `20261130T120000Z`.
fn moment(now: Timestamp) -> String {
    // 2026-11-30T12:00:00.000Z
    let mut time = now.to_string().replace(['-', ':'], "");
    time.truncate("20261130T120000".len());
    time.push('Z');
    time
}

/// The text of a request that is hashed, and the names of its headers.
fn canonical<'a>(
    parts: &Parts<'a>,
    query: &str,
    mut headers: Vec<(&'a str, &'a str)>,
    payload: &str,
) -> (String, String) {
    if headers.iter().all(|(name, _)| *name != "host") {
        headers.push(("host", parts.uri.host));
    }
    headers.sort_unstable();
    let mut canonical = String::with_capacity(2048);
    for part in [parts.method, parts.uri.path, query] {
        canonical.push_str(part);
        canonical.push('\n');
    }
    for (name, value) in &headers {
        canonical.push_str(name);
        canonical.push(':');
        for (index, word) in value.split_ascii_whitespace().enumerate() {
            if index > 0 {
                canonical.push(' ');
            }
            canonical.push_str(word);
        }
        canonical.push('\n');
    }
    let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    canonical.push('\n');
    canonical.push_str(&names);
    canonical.push('\n');
    canonical.push_str(payload);
    (canonical, names)
}

impl Keys {
    /// Returns the headers to add to a request.
    pub(crate) fn headers(
        &self,
        parts: &Parts<'_>,
        signing: &Signing<'_>,
        now: Timestamp,
    ) -> Result<Vec<(&'static str, HeaderValue)>, BoxError> {
        let time = moment(now);
        let credentials = signing.credentials;
        let mut added = vec![("x-amz-date", HeaderValue::try_from(&time)?)];
        if let Some(token) = credentials.session_token() {
            let mut token = HeaderValue::try_from(token)?;
            token.set_sensitive(true);
            added.push(("x-amz-security-token", token));
        }
        if signing.tells_payload {
            let payload = HeaderValue::try_from(&signing.payload)?;
            added.push(("x-amz-content-sha256", payload));
        }
        // A header that was added before, by an earlier attempt, is replaced.
        let is_signed =
            |name: &str| !UNSIGNED.contains(&name) && added.iter().all(|(own, _)| *own != name);
        let headers = parts.headers.iter().copied();
        let mut headers: Vec<_> = headers.filter(|(name, _)| is_signed(name)).collect();
        for (name, value) in &added {
            headers.push((name, value.to_str()?));
        }
        let query = parts.uri.parameters();
        let (canonical, names) = canonical(parts, &query, headers, &signing.payload);
        let (scope, signature) = self.sign(&canonical, signing, &time);
        let id = credentials.access_key_id();
        let authorization = format!(
            "{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
        );
        let mut authorization = HeaderValue::try_from(authorization)?;
        authorization.set_sensitive(true);
        added.push(("authorization", authorization));
        Ok(added)
    }

    /// Returns the query of an address that can be used for so long with these headers alone.
    pub(crate) fn query(
        &self,
        parts: &Parts<'_>,
        signing: &Signing<'_>,
        lifetime: Duration,
        now: Timestamp,
    ) -> String {
        let time = moment(now);
        let credentials = signing.credentials;
        let scope = scope(signing, &time);
        let mut names: Vec<_> = parts.headers.iter().map(|(name, _)| *name).collect();
        names.push("host");
        names.sort_unstable();
        let seconds = lifetime.as_secs().to_string();
        let credential = format!("{}/{scope}", credentials.access_key_id());
        let names = names.join(";");
        let mut parameters = vec![
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &time),
            ("X-Amz-Expires", &seconds),
        ];
        if let Some(token) = credentials.session_token() {
            parameters.push(("X-Amz-Security-Token", token));
        }
        parameters.push(("X-Amz-SignedHeaders", &names));
        let parameters = parameters.into_iter();
        let parameters = parameters.map(|(name, value)| format!("{name}={}", encoded(value)));
        let query = parameters.collect::<Vec<_>>().join("&");
        let headers = parts.headers.clone();
        let (canonical, _) = canonical(parts, &query, headers, &signing.payload);
        let (_, signature) = self.sign(&canonical, signing, &time);
        format!("{query}&X-Amz-Signature={signature}")
    }

    /// Signs a canonical request; returns the scope of its key too.
    fn sign(&self, canonical: &str, signing: &Signing<'_>, time: &str) -> (String, String) {
        let scope = scope(signing, time);
        let digest = Digest::of(canonical.as_bytes()).hex();
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{digest}");
        let signature = self.tag(signing, &scope, text.as_bytes());
        (scope, signature)
    }

    /// Signs a text with the key of its scope, which is derived where it is not the last one's.
    fn tag(&self, signing: &Signing<'_>, scope: &str, text: &[u8]) -> String {
        let credentials = signing.credentials;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let access_key = credentials.access_key_id();
        let is_same = |one: &&mut DayKey| one.scope == scope && one.access_key == access_key;
        let key = match kept.as_mut().filter(is_same) {
            Some(known) => &known.hmac,
            None => {
                let secret = format!("AWS4{}", credentials.secret_access_key());
                let first = hmac::Key::new(HMAC_SHA256, secret.as_bytes());
                let hmac = scope.split('/').fold(first, |key, part| {
                    let tag = hmac::sign(&key, part.as_bytes());
                    hmac::Key::new(HMAC_SHA256, tag.as_ref())
                });
                let (access_key, scope) = (access_key.to_owned(), scope.to_owned());
                &kept
                    .insert(DayKey {
                        access_key,
                        scope,
                        hmac,
                    })
                    .hmac
            }
        };
        let tag = <[u8; 32]>::try_from(hmac::sign(key, text).as_ref());
        Digest::from(tag.expect("a tag has the length of its hash")).hex()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use aws_sdk_dynamodb::config::{BehaviorVersion, Region};
    use aws_sdk_dynamodb::types::AttributeValue;
    use aws_sigv4::sign::v4;
    use aws_smithy_runtime_api::client::http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use aws_smithy_types::body::SdkBody;
    use aws_types::SdkConfig;

    use super::*;
    use crate::fixture::{REGION, is_as_by_the_sdk, keys};

    /// Answers each request with nothing, and keeps it.
    #[derive(Debug, Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<HttpRequest>>>);

    impl HttpConnector for Recorder {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            self.0.lock().unwrap().push(request);
            let ok = 200.try_into().unwrap();
            HttpConnectorFuture::ready(Ok(HttpResponse::new(ok, SdkBody::from("{}"))))
        }
    }

    impl HttpClient for Recorder {
        fn http_connector(
            &self,
            _: &HttpConnectorSettings,
            _: &RuntimeComponents,
        ) -> SharedHttpConnector {
            SharedHttpConnector::new(self.clone())
        }
    }

    /// A signer that the test still has.
    #[derive(Debug, Clone, Default)]
    struct Shared(Arc<Signer>);

    impl AuthScheme for Shared {
        fn scheme_id(&self) -> AuthSchemeId {
            self.0.scheme_id()
        }

        fn identity_resolver(
            &self,
            resolvers: &dyn GetIdentityResolver,
        ) -> Option<SharedIdentityResolver> {
            self.0.identity_resolver(resolvers)
        }

        fn signer(&self) -> &dyn Sign {
            self.0.signer()
        }
    }

    fn config(recorder: &Recorder) -> aws_types::sdk_config::Builder {
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .http_client(recorder.clone())
    }

    #[tokio::test]
    async fn a_signature_is_the_one_that_the_sdk_would_make() {
        let recorder = Recorder::default();
        let mut signers = Vec::new();
        let mut signer = || {
            signers.push(Shared::default());
            signers[signers.len() - 1].clone()
        };
        for (index, credentials) in keys().into_iter().chain(keys()).enumerate() {
            let provider = aws_sdk_dynamodb::config::SharedCredentialsProvider::new(credentials);
            let config = config(&recorder).credentials_provider(provider);
            let config = match index % 2 {
                0 => config.build(),
                _ => config.endpoint_url("http://127.0.0.1:4566").build(),
            };
            let table = aws_sdk_dynamodb::config::Builder::from(&config);
            let table = table.push_auth_scheme(signer()).build();
            let table = aws_sdk_dynamodb::Client::from_conf(table);
            for text in ["a value", "another", ""] {
                let value = AttributeValue::S(text.repeat(1000));
                let put = table.put_item().table_name("table").item("field", value);
                let _ = put.send().await;
            }
            let queues = aws_sdk_sqs::config::Builder::from(&config);
            let queues = queues.push_auth_scheme(signer()).build();
            let queues = aws_sdk_sqs::Client::from_conf(queues);
            let message = queues.send_message().message_body("{}");
            let message = message.queue_url("https://sqs.eu-central-1.amazonaws.com/1/queue");
            let _ = message.send().await;
        }
        let is_used = |signer: &Shared| signer.0.keys.0.lock().unwrap().is_some();
        assert!(signers.iter().all(is_used), "and not the SDK's");
        let requests = recorder.0.lock().unwrap();
        assert_eq!(requests.len(), 4 * (3 + 1));
        requests.iter().for_each(is_as_by_the_sdk);
    }

    #[tokio::test]
    async fn the_key_is_that_of_whoever_asks_and_of_the_day() {
        let kept_keys = Keys::default();
        let [first, second] = keys();
        let signing = |credentials| Signing {
            credentials,
            region: REGION,
            service: "sqs",
            payload: String::new(),
            tells_payload: false,
        };
        let tag = |credentials, date: &str| {
            let scope = format!("{date}/{REGION}/sqs/aws4_request");
            kept_keys.tag(&signing(credentials), &scope, b"text")
        };
        let kept = tag(&first, "20261130");
        assert_eq!(tag(&first, "20261130"), kept);
        for (credentials, date) in [(&second, "20261130"), (&first, "20261201")] {
            let other = tag(credentials, date);
            assert_ne!(other, kept);
            let time = format!("{}-{}-{}T00:00:00Z", &date[..4], &date[4..6], &date[6..]);
            let time: Timestamp = time.parse().unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(time.millis());
            let secret = credentials.secret_access_key();
            let key = v4::generate_signing_key(secret, time, REGION, "sqs");
            assert_eq!(other, v4::calculate_signature(key, b"text"));
        }
        assert_eq!(tag(&first, "20261130"), kept);
    }
}
