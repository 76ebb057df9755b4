//! Signs requests to AWS as the SDK does, and cheaper: the key of a day is derived once, and ring hashes.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
//!
//! Leaves presigned URLs, streamed bodies and retries to the SDK, which corrects the time of a
//! retry: with a clock that is off by more than minutes, the first attempt of each call is refused.

use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

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
use ring::hmac::{self, HMAC_SHA256};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
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
    key: Mutex<Option<DayKey>>,
}

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
                let signed = self.sign(request, &signing, now)?;
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
struct Signing<'a> {
    credentials: &'a Credentials,
    region: &'a str,
    service: &'a str,
    /// Digest of the body, in hexadecimal digits, or that it has none.
    payload: String,
    tells_payload: bool,
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
        let is_double = !matches!(
            endpoint.get("disableDoubleEncoding"),
            Some(Document::Bool(true))
        ) && options.double_uri_encode;
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
            && (!is_double || Uri::of(request)?.path == "/");
        if !is_usual {
            return None;
        }
        let payload = match config.load::<PayloadSigningOverride>() {
            Some(PayloadSigningOverride::UnsignedPayload) => "UNSIGNED-PAYLOAD".to_owned(),
            Some(_) => return None,
            None => Digest::of(request.body().bytes()?).hex(),
        };
        Some(Self {
            credentials: identity.data()?,
            region,
            service,
            payload,
            tells_payload: options.content_sha256_header,
        })
    }
}

/// Parts of a request's URI, as its text has them.
struct Uri<'a> {
    host: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Uri<'a> {
    fn of(request: &'a HttpRequest) -> Option<Self> {
        let (scheme, rest) = request.uri().split_once("://")?;
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

impl Signer {
    /// Returns the headers to add.
    fn sign(
        &self,
        request: &HttpRequest,
        signing: &Signing<'_>,
        now: Timestamp,
    ) -> Result<Vec<(&'static str, HeaderValue)>, BoxError> {
        let uri = Uri::of(request).ok_or("a request without a host")?;
        // 2026-11-30T12:00:00.000Z
        let mut time = now.to_string().replace(['-', ':'], "");
        time.truncate("20261130T120000".len());
        time.push('Z');
        let date = &time[.."20261130".len()];
        let scope = format!("{date}/{}/{}/aws4_request", signing.region, signing.service);
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
        let mut headers: Vec<(&str, &str)> = request
            .headers()
            .iter()
            .filter(|(name, _)| is_signed(name))
            .collect();
        for (name, value) in &added {
            headers.push((name, value.to_str()?));
        }
        if request.headers().get("host").is_none() {
            headers.push(("host", uri.host));
        }
        headers.sort_unstable();

        let mut canonical = String::with_capacity(2048);
        for part in [request.method(), uri.path, &uri.parameters()] {
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
        canonical.push_str(&signing.payload);

        let digest = Digest::of(canonical.as_bytes()).hex();
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{digest}");
        let signature = self.tag(credentials, date, signing, &scope, text.as_bytes());
        let id = credentials.access_key_id();
        let authorization = format!(
            "{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
        );
        let mut authorization = HeaderValue::try_from(authorization)?;
        authorization.set_sensitive(true);
        added.push(("authorization", authorization));
        Ok(added)
    }

    /// Signs a text with the key of its scope, which is derived where it is not the last one's.
    fn tag(
        &self,
        credentials: &Credentials,
        date: &str,
        signing: &Signing<'_>,
        scope: &str,
        text: &[u8],
    ) -> String {
        let mut kept = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let access_key = credentials.access_key_id();
        let is_same = |one: &&mut DayKey| one.scope == scope && one.access_key == access_key;
        let key = match kept.as_mut().filter(is_same) {
            Some(known) => &known.hmac,
            None => {
                let secret = format!("AWS4{}", credentials.secret_access_key());
                let parts = [date, signing.region, signing.service, "aws4_request"];
                let first = hmac::Key::new(HMAC_SHA256, secret.as_bytes());
                let hmac = parts.iter().fold(first, |key, part| {
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
    use aws_sdk_s3::config::RequestChecksumCalculation;
    use aws_sdk_s3::primitives::ByteStream;
    use aws_sigv4::http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    };
    use aws_sigv4::sign::v4;
    use aws_smithy_runtime_api::client::http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use aws_smithy_types::body::SdkBody;
    use aws_types::SdkConfig;

    use super::*;

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

    const REGION: &str = "eu-central-1";
    const ADDED: [&str; 4] = [
        "authorization",
        "x-amz-date",
        "x-amz-security-token",
        "x-amz-content-sha256",
    ];

    fn keys() -> [Credentials; 2] {
        let token = "a+session/token==".to_owned();
        [
            Credentials::new("AKIDONE", "a secret", Some(token), None, "test"),
            Credentials::new("AKIDTWO", "another", None, None, "test"),
        ]
    }

    fn config(recorder: &Recorder) -> aws_types::sdk_config::Builder {
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .http_client(recorder.clone())
    }

    /// Signs a recorded request by the SDK's own code, as its headers say when.
    fn by_the_sdk(request: &HttpRequest, service: &str) -> String {
        let header = |name: &str| request.headers().get(name);
        let mut settings = SigningSettings::default();
        if service == "s3" {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        let time = header("x-amz-date").unwrap();
        let (date, clock) = time.trim_end_matches('Z').split_once('T').unwrap();
        let [date, clock] = [(date, "-", 4), (clock, ":", 2)].map(|(text, mark, at)| {
            [&text[..at], mark, &text[at..at + 2], mark, &text[at + 2..]].concat()
        });
        let time: Timestamp = format!("{date}T{clock}.000Z").parse().unwrap();
        let [first, second] = keys();
        let is_first = header("authorization").unwrap().contains("AKIDONE");
        let identity = if is_first { first } else { second }.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name(service)
            .time(SystemTime::UNIX_EPOCH + Duration::from_millis(time.millis()))
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let body = match header("x-amz-content-sha256") {
            Some("UNSIGNED-PAYLOAD") => SignableBody::UnsignedPayload,
            _ => SignableBody::Bytes(request.body().bytes().unwrap()),
        };
        let headers = request.headers().iter();
        // These are added after signing.
        let is_later = |name: &str| ADDED.contains(&name) || name.starts_with("amz-sdk-");
        let headers = headers.filter(|(name, _)| !is_later(name));
        let signable =
            SignableRequest::new(request.method(), request.uri(), headers, body).unwrap();
        let (instructions, _) = sign(signable, &params).unwrap().into_parts();
        let (headers, _) = instructions.into_parts();
        let find = |name: &str| headers.iter().find(|header| header.name() == name);
        for name in &ADDED[1..] {
            let own = find(name).map(|header| header.value().to_owned());
            assert_eq!(
                header(name).map(str::to_owned),
                own,
                "{name} of {}",
                request.uri()
            );
        }
        find("authorization").unwrap().value().to_owned()
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
            let bucket = aws_sdk_s3::config::Builder::from(&config)
                .force_path_style(index % 2 == 1)
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .push_auth_scheme(signer());
            let bucket = aws_sdk_s3::Client::from_conf(bucket.build());
            for key in ["acme/sha256/00ff", "a key/with (signs) & ümläuts+=", "~._-"] {
                let body = ByteStream::from_static(b"some bytes");
                let put = bucket.put_object().bucket("bucket").key(key).body(body);
                let _ = put.if_none_match("*").send().await;
                let body = ByteStream::from_static(b"some bytes");
                let put = bucket.put_object().bucket("bucket").key(key).body(body);
                let put = put.checksum_sha256("c2hhMjU2").customize();
                let _ = put.disable_payload_signing().send().await;
                let get = bucket.get_object().bucket("bucket").key(key);
                let _ = get.range("bytes=0-9").send().await;
                let begin = bucket.create_multipart_upload().bucket("bucket").key(key);
                let _ = begin.send().await;
                let part = bucket.upload_part().bucket("bucket").key(key);
                let part = part.upload_id("an/id+with=signs ~").part_number(7);
                let _ = part.body(ByteStream::from_static(b"part")).send().await;
                let list = bucket.list_objects_v2().bucket("bucket").prefix(key);
                let _ = list.delimiter("/").max_keys(3).send().await;
            }
        }
        let is_used = |signer: &Shared| signer.0.key.lock().unwrap().is_some();
        assert!(signers.iter().all(is_used), "and not the SDK's");
        let requests = recorder.0.lock().unwrap();
        assert_eq!(requests.len(), 4 * (3 + 1 + 3 * 6));
        for request in requests.iter() {
            let own = request.headers().get("authorization").unwrap();
            let service = own.split('/').nth(3).unwrap();
            assert_eq!(
                own,
                by_the_sdk(request, service),
                "{} {}",
                request.method(),
                request.uri()
            );
        }
    }

    #[tokio::test]
    async fn the_key_is_that_of_whoever_asks_and_of_the_day() {
        let signer = Signer::default();
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
            signer.tag(credentials, date, &signing(credentials), &scope, b"text")
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
