//! Signatures as AWS's own code makes them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use api::Timestamp;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation,
    SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;

use crate::signer::UNSIGNED_PAYLOAD;

pub(crate) const REGION: &str = "eu-central-1";
const ADDED: [&str; 4] = [
    "authorization",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

/// With a session and without one.
pub(crate) fn keys() -> [Credentials; 2] {
    let token = "a+session/token==".to_owned();
    [
        Credentials::new("AKIDONE", "a secret", Some(token), None, "test"),
        Credentials::new("AKIDTWO", "another", None, None, "test"),
    ]
}

fn time_of(text: &str) -> SystemTime {
    let (date, clock) = text.trim_end_matches('Z').split_once('T').unwrap();
    let [date, clock] = [(date, "-", 4), (clock, ":", 2)].map(|(text, mark, at)| {
        [&text[..at], mark, &text[at..at + 2], mark, &text[at + 2..]].concat()
    });
    let time: Timestamp = format!("{date}T{clock}.000Z").parse().unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_millis(time.millis())
}

/// Signs by the SDK's own code: returns the headers and the parameters that it adds.
pub(crate) fn by_the_sdk(
    [method, uri]: [&str; 2],
    headers: &[(&str, &str)],
    body: SignableBody<'_>,
    [time, id, service]: [&str; 3],
    lifetime: Option<Duration>,
) -> BTreeMap<String, String> {
    let mut settings = SigningSettings::default();
    if service == "s3" {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    }
    if lifetime.is_some() {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = lifetime;
    }
    let mut keys = keys().into_iter();
    let identity = keys.find(|key| key.access_key_id() == id).unwrap().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(REGION)
        .name(service)
        .time(time_of(time))
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let headers = headers.iter().copied();
    let signable = SignableRequest::new(method, uri, headers, body).unwrap();
    let (instructions, _) = sign(signable, &params).unwrap().into_parts();
    let (headers, parameters) = instructions.into_parts();
    let headers = headers.iter();
    let headers = headers.map(|one| (one.name().to_owned(), one.value().to_owned()));
    let parameters = parameters.into_iter();
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.into_owned()));
    headers.chain(parameters).collect()
}

/// Checks that a request has the signature that the SDK would make at the time which it says.
pub(crate) fn is_as_by_the_sdk(request: &HttpRequest) {
    let header = |name: &str| request.headers().get(name);
    let own = header("authorization").unwrap();
    let mut scope = own.split(['=', '/']).skip(1);
    let (id, service) = (scope.next().unwrap(), scope.nth(2).unwrap());
    let body = match header("x-amz-content-sha256") {
        Some(UNSIGNED_PAYLOAD) => SignableBody::UnsignedPayload,
        _ => SignableBody::Bytes(request.body().bytes().unwrap()),
    };
    // These are added after signing.
    let is_later = |name: &str| ADDED.contains(&name) || name.starts_with("amz-sdk-");
    let headers = request.headers().iter();
    let headers: Vec<_> = headers.filter(|(name, _)| !is_later(name)).collect();
    let (time, line) = (
        header("x-amz-date").unwrap(),
        [request.method(), request.uri()],
    );
    let added = by_the_sdk(line, &headers, body, [time, id, service], None);
    for name in ADDED {
        assert_eq!(
            header(name),
            added.get(name).map(String::as_str),
            "{name} of {line:?}"
        );
    }
}
