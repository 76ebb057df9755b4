//! Puts SBOMs, and the attestations that GUAC can read, into a bucket from which GUAC collects them.
//!
//! GUAC (<https://github.com/guacsec/guac>) reads a whole bucket and fails on any object that it has no
//! parser for, Chainloop's own attestations among them; so these stay out unless asked for. Keys are made of
//! the bytes' digest: a repeat finds its object already there. Each object is one single PUT under a key
//! without a letter that would need escaping, since GUAC listens for `ObjectCreated:Put` alone and takes keys
//! as they are written in the event.
//!
//! # Receipt
//!
//! The bucket, and of each object its key, digest and size, and whether it was created or there already; what was
//! left out, with the reason.
//!
//! # Limits
//!
//! An object is one single PUT, of at most 5 GiB; GUAC itself takes 100 MiB unless told otherwise.
//!
//! # Failures
//!
//! - AccessDenied, SignatureDoesNotMatch, InvalidAccessKeyId: the key may not write there, or is not the right one.
//!   Mend it with `registered rotate`.
//! - NoSuchBucket: the bucket is not there, or its name is wrong.
//! - another region: the bucket lies elsewhere, and the answer says where; register it with that `region`.
//! - SlowDown, InternalError, ConditionalRequestConflict: tried again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use attestation::{Digest, Material, MaterialType};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, IF_NONE_MATCH};
use http::{Method, Request, StatusCode};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential, Checksum};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpService,
};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig, UpdateVersion,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::http::Response;
use crate::{Delivery, Error, Host, Http, Integration, Kind, Outcome, Preview, SecretText, inputs};

#[derive(Debug)]
pub struct Guac;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Blob storage backend; `s3` is Amazon S3 and what speaks its protocol
    #[serde(default)]
    pub provider: Provider,
    /// Name of the bucket, best one of its own: GUAC collects all that is in it
    #[schemars(with = "String", length(min = 3, max = 63))]
    pub bucket: Bucket,
    /// Region of the bucket
    #[serde(default)]
    #[schemars(with = "String", length(min = 1, max = 32))]
    pub region: Region,
    /// URL of an S3-compatible service, which is asked by paths (`<endpoint>/<bucket>/<key>`); without it, Amazon S3
    #[serde(default)]
    #[schemars(with = "Option<String>", url)]
    pub endpoint: Option<Endpoint>,
    /// Id of an access key that may do `s3:PutObject` below the attachments' prefixes and below `chainloop/`
    #[schemars(with = "String", length(min = 1, max = 128))]
    pub access_key_id: AccessKeyId,
    /// Secret access key that belongs to `access_key_id`
    pub credentials: SecretText,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Beginning of each object's key
    #[serde(default)]
    #[schemars(with = "String", length(min = 1, max = 256))]
    pub prefix: Prefix,
    /// Which attestations to export: `all`, those of a type that GUAC can read (`readable`), or `none`
    #[serde(default)]
    pub attestations: Attestations,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    #[default]
    S3,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Attestations {
    All,
    #[default]
    Readable,
    None,
}

/// Declares an input that is a string with a rule.
macro_rules! rule {
    ($(#[$doc:meta])* $name:ident, $fits:expr, $detail:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let fits: fn(&str) -> bool = $fits;
                if fits(&text) { Ok(Self(text)) } else { Err($detail) }
            }
        }
    };
}

rule!(
    /// By Amazon's naming rules for general purpose buckets, without those that only keep names tidy.
    Bucket,
    |text| {
        (3..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
            && text.split('.').all(|part| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-'))
    },
    "must be 3 to 63 lower-case letters, digits, hyphens and dots, as in my-bucket"
);

rule!(
    /// Becomes part of a host name.
    Region,
    |text| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    },
    "must be lower-case letters, digits and hyphens, as in eu-central-1"
);

impl Default for Region {
    fn default() -> Self {
        Self("us-east-1".to_owned())
    }
}

rule!(
    /// A URL that object paths are appended to.
    Endpoint,
    |text| inputs::web_url(text).is_ok_and(|url| url.query().is_none() && url.fragment().is_none()),
    "must be a URL without a query and a fragment, as in https://s3.example.org"
);

rule!(
    /// Becomes part of a header.
    AccessKeyId,
    |text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"/,=".contains(&b)),
    "must be the id of an access key, without spaces"
);

rule!(
    /// Becomes the beginning of keys: of letters that no service and no event escapes.
    Prefix,
    |text| {
        text.len() <= 256
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b))
            && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
    },
    "must be letters, digits, dots, hyphens, underscores and single slashes between them, as in team/app"
);

impl Default for Prefix {
    fn default() -> Self {
        Self("chainloop".to_owned())
    }
}

impl Integration for Guac {
    const ID: &'static str = "guac";
    const VERSION: &'static str = "1.0";
    const DESCRIPTION: &'static str = "Export Attestation and SBOMs metadata to a blob storage backend so guacsec/guac can consume it";
    const MATERIALS: &'static [MaterialType] = &[
        MaterialType::SBOM_CYCLONEDX_JSON,
        MaterialType::SBOM_SPDX_JSON,
    ];

    type Registration = Registration;
    type Attachment = Attachment;

    async fn register(http: &Http, registration: &Registration) -> Result<(), Error> {
        head_bucket(http, registration).await?;
        Bucketful::open(http, registration)?
            .try_to_write(&Prefix::default(), http.unix_secs())
            .await
    }

    async fn attach(
        http: &Http,
        registration: &Registration,
        attachment: &Attachment,
    ) -> Result<(), Error> {
        let bucket = Bucketful::open(http, registration)?;
        bucket
            .try_to_write(&attachment.prefix, http.unix_secs())
            .await
    }

    async fn deliver(
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Outcome, Error> {
        let mut export = Export::default();
        let bucket = Bucketful::open(http, delivery.registration)?;
        let mut objects = Vec::new();
        for source in export.sources(delivery) {
            // One at a time: an SBOM can have a hundred megabytes.
            let object = match export.take(host, delivery, source).await? {
                Taken::Object(object) => object,
                Taken::Done(receipt) => {
                    objects.push(receipt.clone());
                    continue;
                }
                Taken::Skipped => continue,
            };
            let created = bucket.put(&object, host.unix_secs()).await?;
            let receipt = json!({
                "key": object.key,
                "digest": object.digest.to_string(),
                "size_bytes": object.bytes.len(),
                "created": created,
            });
            host.record(&object.key, receipt.clone()).await?;
            objects.push(receipt);
        }
        Ok(export.outcome(delivery, objects))
    }

    async fn preview(
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Vec<Preview>, Error> {
        let mut export = Export::default();
        let mut previews = Vec::new();
        for source in export.sources(delivery) {
            if let Taken::Object(object) = export.take(host, delivery, source).await? {
                let request = object.request(delivery.registration)?;
                previews.push(Preview::of(&request, request.uri().to_string(), &[]));
            }
        }
        Ok(previews)
    }
}

/// What one delivery has put into the bucket so far, and what it left out.
#[derive(Debug, Default)]
struct Export {
    keys: BTreeSet<String>,
    /// (what, why)
    skipped: Vec<(String, String)>,
}

/// What becomes an object.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    Envelope,
    Sbom(&'a Material),
}

/// What became of it.
#[derive(Debug)]
enum Taken<'a> {
    Object(Object),
    /// By an earlier attempt, which has this receipt.
    Done(&'a Value),
    Skipped,
}

#[derive(Debug)]
struct Object {
    key: String,
    digest: Digest,
    bytes: Bytes,
    /// Names and values of user metadata, without `x-amz-meta-`.
    metadata: Vec<(&'static str, String)>,
}

impl Source<'_> {
    fn key(self, prefix: &Prefix, digest: &Digest) -> String {
        let (prefix, hex) = (prefix.as_str(), digest.hex());
        match self {
            Source::Envelope => format!("{prefix}/attestations/{hex}.intoto.json"),
            Source::Sbom(material) if material.kind == MaterialType::SBOM_SPDX_JSON => {
                format!("{prefix}/sboms/{hex}.spdx.json")
            }
            Source::Sbom(_) => format!("{prefix}/sboms/{hex}.cdx.json"),
        }
    }

    fn name(&self) -> &str {
        match self {
            Source::Envelope => "attestation",
            Source::Sbom(material) => &material.name,
        }
    }
}

impl Export {
    fn sources<'a>(&mut self, delivery: &Delivery<'a, Guac>) -> Vec<Source<'a>> {
        let mut sources = Vec::new();
        match unwanted(delivery) {
            Some(reason) => self.skip(Source::Envelope, reason),
            None => sources.push(Source::Envelope),
        }
        sources.extend(delivery.materials.iter().map(Source::Sbom));
        sources
    }

    async fn take<'a>(
        &mut self,
        host: &dyn Host,
        delivery: &Delivery<'a, Guac>,
        source: Source<'_>,
    ) -> Result<Taken<'a>, Error> {
        let prefix = &delivery.attachment.prefix;
        // Where the digest is known, what is done already need not be fetched.
        if let Source::Sbom(Material {
            digest: Some(digest),
            ..
        }) = source
        {
            let key = source.key(prefix, digest);
            if let Some(receipt) = delivery.progress.get(&key) {
                return Ok(self.once(source, key, Taken::Done(receipt)));
            }
        }
        let bytes = match source {
            Source::Envelope => delivery.attestation.envelope.compact().into(),
            Source::Sbom(material) => host.content(material).await?,
        };
        if bytes.is_empty() {
            self.skip(source, "is empty, which GUAC fails on".to_owned());
            return Ok(Taken::Skipped);
        }
        let digest = Digest::of(&bytes);
        let key = source.key(prefix, &digest);
        if let Some(receipt) = delivery.progress.get(&key) {
            return Ok(self.once(source, key, Taken::Done(receipt)));
        }
        let metadata = metadata(delivery, &digest, source);
        let object = Object {
            key: key.clone(),
            digest,
            bytes,
            metadata,
        };
        Ok(self.once(source, key, Taken::Object(object)))
    }

    /// The second material with the same bytes has nothing to add.
    fn once<'a>(&mut self, source: Source<'_>, key: String, taken: Taken<'a>) -> Taken<'a> {
        if self.keys.contains(&key) {
            self.skip(source, format!("has the bytes of {key}"));
            return Taken::Skipped;
        }
        self.keys.insert(key);
        taken
    }

    fn skip(&mut self, source: Source<'_>, reason: String) {
        self.skipped.push((source.name().to_owned(), reason));
    }
}

/// Why this delivery's attestation stays out of the bucket.
fn unwanted(delivery: &Delivery<'_, Guac>) -> Option<String> {
    let predicate_type = &delivery.attestation.statement.predicate_type;
    match delivery.attachment.attestations {
        Attestations::None => Some("the attachment exports no attestations".to_owned()),
        Attestations::Readable if !is_readable(predicate_type) => Some(format!(
            "GUAC cannot read attestations of type {predicate_type}"
        )),
        Attestations::Readable | Attestations::All => None,
    }
}

/// The predicate types that GUAC 1.1 has a parser for; of any other it makes an error of the whole run.
fn is_readable(predicate_type: &str) -> bool {
    predicate_type.starts_with("https://slsa.dev/provenance")
        || matches!(
            predicate_type,
            "https://in-toto.io/attestation/vulns/v0.1"
                | "https://in-toto.io/attestation/vulns/v0.2"
        )
}

/// ASCII, and with all names and values below the 2 KB that S3 allows.
fn metadata(
    delivery: &Delivery<'_, Guac>,
    digest: &Digest,
    source: Source<'_>,
) -> Vec<(&'static str, String)> {
    let material = match source {
        Source::Envelope => "",
        Source::Sbom(material) => &material.name,
    };
    let run = delivery
        .attestation
        .predicate()
        .map(|predicate| &predicate.metadata.workflow_run_id);
    [
        ("digest", digest.to_string().as_str()),
        ("material", material),
        ("project", &delivery.workflow.project),
        ("run", run.map_or("", String::as_str)),
        ("workflow", &delivery.workflow.name),
    ]
    .into_iter()
    .map(|(name, value)| (name, header_text(value)))
    .filter(|(_, value)| !value.is_empty())
    .collect()
}

/// At most 256 printable ASCII letters, words one space apart: what a signature's canonical form keeps.
fn header_text(text: &str) -> String {
    let mut ascii = String::new();
    for word in text.split_whitespace() {
        let space = if ascii.is_empty() { "" } else { " " };
        let word = word.replace(|letter: char| !letter.is_ascii_graphic(), "?");
        write!(ascii, "{space}{word}").expect("a String takes all that is written");
    }
    ascii.truncate(256);
    ascii.truncate(ascii.trim_end().len());
    ascii
}

impl Export {
    fn outcome(self, delivery: &Delivery<'_, Guac>, objects: Vec<Value>) -> Outcome {
        let missing: Vec<_> = delivery
            .missing
            .iter()
            .map(|material| material.name.clone())
            .collect();
        if objects.is_empty() {
            let skipped = self
                .skipped
                .iter()
                .map(|(name, why)| format!("{name}: {why}"));
            let missing = missing.iter().map(|name| format!("{name}: never came"));
            let mut reasons: Vec<_> = skipped.chain(missing).collect();
            if delivery.materials.is_empty() && delivery.missing.is_empty() {
                reasons.push("there was no SBOM".to_owned());
            }
            return Outcome::Skipped(reasons.join("; "));
        }
        let skipped = self
            .skipped
            .iter()
            .map(|(name, why)| json!({ "name": name, "reason": why }));
        let mut receipt = Map::new();
        receipt.insert(
            "bucket".to_owned(),
            delivery.registration.bucket.as_str().into(),
        );
        receipt.insert("objects".to_owned(), objects.into());
        receipt.insert("skipped".to_owned(), skipped.collect());
        receipt.insert("missing".to_owned(), missing.into());
        Outcome::Delivered(receipt)
    }
}

const JSON: &str = "application/json";

impl Object {
    /// The PUT as it goes out, but for the signature.
    fn request(&self, registration: &Registration) -> Result<Request<Bytes>, Error> {
        let checksum = base64_simd::STANDARD.encode_to_string(self.digest.bytes());
        let mut request = Request::builder()
            .method(Method::PUT)
            .uri(format!("{}/{}", bucket_url(registration), self.key))
            .header(CONTENT_TYPE, JSON)
            .header(IF_NONE_MATCH, "*")
            .header("x-amz-checksum-sha256", checksum);
        for (name, value) in &self.metadata {
            request = request.header(format!("x-amz-meta-{name}"), value);
        }
        request
            .body(self.bytes.clone())
            .map_err(|error| Error::permanent("build the bucket's request").source(error))
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::from_iter([(Attribute::ContentType, JSON)]);
        for (name, value) in &self.metadata {
            attributes.insert(Attribute::Metadata((*name).into()), value.clone().into());
        }
        attributes
    }
}

/// Always by path: a bucket's name with dots in it has no certificate as a host.
fn bucket_url(registration: &Registration) -> String {
    let Provider::S3 = registration.provider;
    let bucket = registration.bucket.as_str();
    match &registration.endpoint {
        Some(endpoint) => format!("{}/{bucket}", endpoint.as_str().trim_end_matches('/')),
        None => format!(
            "https://s3.{}.amazonaws.com/{bucket}",
            registration.region.as_str()
        ),
    }
}

/// Does the bucket exist, in this region? Whether it may be read is another matter: a key that may only
/// write is the better one.
async fn head_bucket(http: &Http, registration: &Registration) -> Result<(), Error> {
    let credential = AwsCredential {
        key_id: registration.access_key_id.as_str().to_owned(),
        secret_key: registration.credentials.expose().to_owned(),
        token: None,
    };
    let invalid = |error: http::Error| Error::permanent("build the bucket's request").source(error);
    let request = Request::builder()
        .method(Method::HEAD)
        .uri(bucket_url(registration));
    let mut request: HttpRequest = request.body(HttpRequestBody::empty()).map_err(invalid)?;
    AwsAuthorizer::new(&credential, "s3", registration.region.as_str())
        .try_authorize(&mut request, None)
        .map_err(|error| Error::permanent("sign a request to the bucket").source(error))?;

    let response = http.send(request.map(|_| Bytes::new())).await?;
    if response.status == StatusCode::FORBIDDEN {
        return Ok(());
    }
    let doing = format!("find the bucket {}", registration.bucket.as_str());
    judge(&response, &doing, registration, http.unix_secs())
}

/// An open bucket, with the answer to the last request that was made to it.
///
/// `object_store` has errors of its own, which lose the vendor's code, its headers and the difference
/// between "there already" and "being written now"; so answers are read here, as they came.
struct Bucketful<'a> {
    store: AmazonS3,
    registration: &'a Registration,
    last: Last,
}

type Last = Arc<Mutex<Option<Result<Response, Error>>>>;

impl<'a> Bucketful<'a> {
    fn open(http: &Http, registration: &'a Registration) -> Result<Self, Error> {
        let last = Last::default();
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(registration.bucket.as_str())
            .with_region(registration.region.as_str())
            .with_access_key_id(registration.access_key_id.as_str())
            .with_secret_access_key(registration.credentials.expose())
            .with_checksum_algorithm(Checksum::SHA256)
            // One key is deleted by its own request, and not by a list in a POST.
            .with_disable_bulk_delete(true)
            // The delivery engine is the one that tries again.
            .with_retry(RetryConfig {
                max_retries: 0,
                ..RetryConfig::default()
            })
            .with_http_connector(Connector {
                http: http.clone(),
                last: Arc::clone(&last),
            });
        if let Some(endpoint) = &registration.endpoint {
            builder = builder.with_endpoint(endpoint.as_str());
        }
        let store = builder
            .build()
            .map_err(|error| Error::permanent("open the bucket").source(error))?;
        Ok(Self {
            store,
            registration,
            last,
        })
    }

    /// Creates the object; `false` when it was there already, which by its key it was with the same bytes.
    async fn put(&self, object: &Object, now: u64) -> Result<bool, Error> {
        let doing = format!("put {}", object.key);
        let path = Path::from(object.key.as_str());
        let put = async |mode| {
            let options = PutOptions {
                mode,
                attributes: object.attributes(),
                ..PutOptions::default()
            };
            let payload = PutPayload::from(object.bytes.clone());
            self.answer(&doing, self.store.put_opts(&path, payload, options).await)
        };
        let mut response = put(PutMode::Create).await?;
        if response.status == StatusCode::NOT_IMPLEMENTED {
            // A service without conditional writes: look first, and overwrite the bytes with themselves.
            let found = self.answer(&doing, self.store.head(&path).await)?;
            if found.status.is_success() {
                return Ok(false);
            }
            response = put(PutMode::Overwrite).await?;
        }
        if response.status == StatusCode::PRECONDITION_FAILED {
            return Ok(false);
        }
        judge(&response, &doing, self.registration, now)?;
        Ok(true)
    }

    /// Whether objects can be written below this prefix, without writing one: a new key is asked to replace
    /// an object with an impossible `ETag`. Who may write is told that it is not there, who may not is refused.
    async fn try_to_write(&self, prefix: &Prefix, now: u64) -> Result<(), Error> {
        let doing = format!("try to write below {}/", prefix.as_str());
        let path = Path::from(format!("{}/sboms/check-{now}.json", prefix.as_str()));
        let impossible = UpdateVersion {
            e_tag: Some("\"00000000000000000000000000000000\"".to_owned()),
            version: None,
        };
        let options = PutOptions {
            mode: PutMode::Update(impossible),
            ..PutOptions::default()
        };
        let result = self
            .store
            .put_opts(&path, PutPayload::from_static(b"{}"), options)
            .await;
        let response = self.answer(&doing, result)?;
        let code = code(&response);
        match response.status {
            StatusCode::PRECONDITION_FAILED => Ok(()),
            StatusCode::NOT_FOUND if code != Some("NoSuchBucket") => Ok(()),
            status if status.is_success() => {
                // A service that ignores conditions has written it after all. Not being able to delete
                // is no reason against writing.
                let _ = self.store.delete(&path).await;
                Ok(())
            }
            // The service has no such conditions: the first delivery will tell.
            StatusCode::NOT_IMPLEMENTED => Ok(()),
            _ => judge(&response, &doing, self.registration, now),
        }
    }

    /// The answer that came during a call to the store.
    fn answer<T>(&self, doing: &str, result: object_store::Result<T>) -> Result<Response, Error> {
        let last = self
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (last, result) {
            (Some(answered), _) => answered.map_err(|error| Error {
                text: format!("{doing}: {}", error.text),
                ..error
            }),
            (None, Err(error)) => Err(Error::permanent(doing).source(error)),
            (None, Ok(_)) => Err(Error::retryable(format!("{doing}: nothing was sent"))),
        }
    }
}

/// What S3's answers mean, by the code in the body first and by the status otherwise.
///
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
fn judge(
    response: &Response,
    doing: &str,
    registration: &Registration,
    now: u64,
) -> Result<(), Error> {
    let secrets = [registration.credentials.expose()];
    let Err(mut error) = response.check(doing, &secrets, now) else {
        return Ok(());
    };
    let code = code(response);
    if let Some(code) = code {
        let _ = write!(error.text, " ({code})");
    }
    let again = match error.kind {
        Kind::Retryable { after } => Kind::Retryable { after },
        _ => Kind::Retryable { after: None },
    };
    error.kind = match (response.status.as_u16(), code) {
        // Somebody writes the same key now.
        (409, _) => again,
        (_, Some("RequestTimeout" | "RequestTimeTooSkewed" | "SlowDown" | "InternalError")) => {
            again
        }
        // The secret may have been rotated since it was read.
        (
            _,
            Some("ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId" | "SignatureDoesNotMatch"),
        ) => Kind::Unauthorized,
        _ => error.kind,
    };
    let region = response
        .headers
        .get("x-amz-bucket-region")
        .and_then(|region| region.to_str().ok());
    if let Some(region) = region.filter(|region| *region != registration.region.as_str()) {
        let _ = write!(
            error.text,
            "; the bucket is in the region {}",
            crate::http::excerpt(region.as_bytes(), &[])
        );
    }
    Err(error)
}

/// `<Code>` of an S3 error document.
fn code(response: &Response) -> Option<&str> {
    let body = std::str::from_utf8(&response.body).ok()?;
    let (_, rest) = body.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    (code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(code)
}

/// Gives `object_store` the guarded client, and keeps what was answered.
#[derive(Debug, Clone)]
struct Connector {
    http: Http,
    last: Last,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, whole(body).await?);
        let answered = self.http.send(request).await;
        let outcome = match &answered {
            Ok(response) => {
                let mut outgoing = HttpResponse::new(response.body.clone().into());
                *outgoing.status_mut() = response.status;
                *outgoing.headers_mut() = response.headers.clone();
                Ok(outgoing)
            }
            Err(error) => Err(HttpError::new(
                HttpErrorKind::Unknown,
                std::io::Error::other(error.text.clone()),
            )),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(answered);
        outcome
    }
}

/// The bytes of a body that is in memory already; those of one piece are not copied.
async fn whole(mut body: HttpRequestBody) -> Result<Bytes, HttpError> {
    let mut pieces = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| {
        http_body::Body::poll_frame(std::pin::Pin::new(&mut body), context)
    })
    .await
    {
        pieces.extend(frame?.into_data());
    }
    Ok(match <[Bytes; 1]>::try_from(pieces) {
        Ok([one]) => one,
        Err(pieces) => pieces
            .iter()
            .flatten()
            .copied()
            .collect::<BytesMut>()
            .freeze(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto;
    use s3s::auth::SimpleAuth;
    use s3s::service::S3ServiceBuilder;
    use tokio::net::TcpListener;

    use super::*;
    use crate::fixture::{self, Party, Stage};

    const KEY: &str = "AKIAEXAMPLE";
    const SECRET: &str = "canary-secret-access-key";

    /// A real S3 server with one bucket, `sboms`, that checks signatures.
    struct S3 {
        root: PathBuf,
        endpoint: String,
    }

    impl S3 {
        async fn start(test: &str) -> Self {
            let name = format!("integrations-guac-{}-{test}", std::process::id());
            let root = std::env::temp_dir().join(name);
            std::fs::create_dir_all(root.join("sboms")).unwrap();
            let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&root).unwrap());
            service.set_auth(SimpleAuth::from_single(KEY, SECRET));
            let service = service.build();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move {
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    let service = service.clone();
                    tokio::spawn(async move {
                        let server = auto::Builder::new(TokioExecutor::new());
                        let _ = server.serve_connection(TokioIo::new(socket), service).await;
                    });
                }
            });
            Self { root, endpoint }
        }

        fn registration(&self) -> Registration {
            registration(&self.endpoint)
        }

        /// Keys and bytes in the bucket, sorted.
        fn objects(&self) -> Vec<(String, Vec<u8>)> {
            let mut found = Vec::new();
            let mut folders = vec![self.root.join("sboms")];
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        folders.push(path);
                    } else {
                        let key = path.strip_prefix(self.root.join("sboms")).unwrap();
                        found.push((key.display().to_string(), std::fs::read(&path).unwrap()));
                    }
                }
            }
            found.sort();
            found
        }
    }

    impl Drop for S3 {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }

    fn registration(endpoint: &str) -> Registration {
        registration_of(json!({ "endpoint": endpoint }))
    }

    #[expect(clippy::needless_pass_by_value, reason = "called with json!")]
    fn registration_of(more: Value) -> Registration {
        let mut all = json!({ "bucket": "sboms", "access_key_id": KEY, "credentials": SECRET });
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn attachment(inputs: Value) -> Attachment {
        serde_json::from_value(inputs).unwrap()
    }

    async fn deliver(
        stage: &Stage,
        registration: &Registration,
        attachment: &Attachment,
    ) -> Result<Outcome, Error> {
        let delivery = stage.delivery(registration, attachment);
        Guac::deliver(&fixture::http(), stage, &delivery).await
    }

    fn receipt(outcome: Outcome) -> Map<String, Value> {
        match outcome {
            Outcome::Delivered(receipt) => receipt,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn sboms_are_put_under_their_digest_and_the_attestation_stays_out() {
        let s3 = S3::start("sboms").await;
        let stage = Stage::new();
        let outcome = deliver(&stage, &s3.registration(), &attachment(json!({})))
            .await
            .unwrap();
        let receipt = receipt(outcome);

        let [cdx, spdx] =
            [fixture::CDX, fixture::SPDX].map(|sbom| Digest::of(sbom.as_bytes()).hex());
        let mut expected = vec![
            (
                format!("chainloop/sboms/{cdx}.cdx.json"),
                fixture::CDX.as_bytes().to_vec(),
            ),
            (
                format!("chainloop/sboms/{spdx}.spdx.json"),
                fixture::SPDX.as_bytes().to_vec(),
            ),
        ];
        expected.sort();
        let objects: Vec<_> = s3
            .objects()
            .into_iter()
            .filter(|(key, _)| key.starts_with("chainloop/"))
            .collect();
        assert_eq!(objects, expected);
        assert_eq!(receipt["bucket"], "sboms");
        assert_eq!(
            receipt["objects"][0],
            json!({
                "key": format!("chainloop/sboms/{cdx}.cdx.json"),
                "digest": format!("sha256:{cdx}"),
                "size_bytes": fixture::CDX.len(),
                "created": true,
            })
        );
        assert_eq!(
            receipt["skipped"],
            json!([{
                "name": "attestation",
                "reason": "GUAC cannot read attestations of type chainloop.dev/attestation/v0.2",
            }])
        );
        assert_eq!(receipt["missing"], json!([]));
        assert_eq!(stage.recorded().len(), 2);
    }

    #[tokio::test]
    async fn a_second_delivery_finds_its_objects_already_there() {
        let s3 = S3::start("twice").await;
        let attachment = attachment(json!({ "attestations": "all", "prefix": "team/app" }));
        let first = deliver(&Stage::new(), &s3.registration(), &attachment)
            .await
            .unwrap();
        let before = s3.objects();
        let second = deliver(&Stage::new(), &s3.registration(), &attachment)
            .await
            .unwrap();
        assert_eq!(s3.objects(), before);
        let created = |receipt: Map<String, Value>| {
            let objects = receipt["objects"].as_array().unwrap().clone();
            objects
                .iter()
                .map(|object| object["created"].as_bool().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(created(receipt(first)), [true, true, true]);
        assert_eq!(created(receipt(second)), [false, false, false]);
    }

    #[tokio::test]
    async fn all_exports_the_envelope_under_its_hash() {
        let s3 = S3::start("envelope").await;
        let stage = Stage::new();
        let attachment = attachment(json!({ "attestations": "all" }));
        deliver(&stage, &s3.registration(), &attachment)
            .await
            .unwrap();
        let key = format!(
            "chainloop/attestations/{}.intoto.json",
            stage.attestation.hash.hex()
        );
        let objects = s3.objects();
        let (_, bytes) = objects.iter().find(|(found, _)| *found == key).unwrap();
        assert_eq!(*bytes, stage.attestation.envelope.compact());
    }

    #[tokio::test]
    async fn what_an_earlier_attempt_put_is_not_put_again() {
        let s3 = S3::start("progress").await;
        let mut stage = Stage::new();
        let done = format!(
            "chainloop/sboms/{}.cdx.json",
            Digest::of(fixture::CDX.as_bytes()).hex()
        );
        stage
            .progress
            .insert(done.clone(), json!({ "key": done, "created": true }));
        let outcome = deliver(&stage, &s3.registration(), &attachment(json!({})))
            .await
            .unwrap();
        assert_eq!(
            receipt(outcome)["objects"][0],
            json!({ "key": done, "created": true })
        );
        assert!(s3.objects().iter().all(|(key, _)| *key != done));
        assert_eq!(stage.recorded().len(), 1);
    }

    #[tokio::test]
    async fn the_same_bytes_twice_are_one_object() {
        let s3 = S3::start("same").await;
        let mut stage = Stage::new();
        let mut copy = stage.materials[0].clone();
        copy.name = "copy".to_owned();
        stage.materials = vec![stage.materials[0].clone(), copy];
        let receipt = receipt(
            deliver(&stage, &s3.registration(), &attachment(json!({})))
                .await
                .unwrap(),
        );
        assert_eq!(receipt["objects"].as_array().unwrap().len(), 1);
        assert_eq!(receipt["skipped"][1]["name"], "copy");
    }

    #[tokio::test]
    async fn an_empty_sbom_is_left_out_and_a_missing_one_is_named() {
        let s3 = S3::start("empty").await;
        let mut stage = Stage::new();
        stage.missing = vec![stage.materials.remove(1)];
        stage.materials[0].content = Some(Vec::new());
        let outcome = deliver(&stage, &s3.registration(), &attachment(json!({})))
            .await
            .unwrap();
        let Outcome::Skipped(reason) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(
            reason,
            "attestation: GUAC cannot read attestations of type chainloop.dev/attestation/v0.2; \
             sbom: is empty, which GUAC fails on; packages: never came"
        );
    }

    #[tokio::test]
    async fn without_an_sbom_a_chainloop_attestation_is_skipped() {
        let mut stage = Stage::new();
        stage.materials.clear();
        let registration = registration("http://127.0.0.1:1");
        let outcome = deliver(&stage, &registration, &attachment(json!({})))
            .await
            .unwrap();
        let Outcome::Skipped(reason) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(reason.ends_with("; there was no SBOM"), "{reason}");
    }

    #[test]
    fn guac_reads_provenance_and_vulnerabilities() {
        assert!(is_readable("https://slsa.dev/provenance/v1"));
        assert!(is_readable("https://in-toto.io/attestation/vulns/v0.2"));
        assert!(!is_readable("https://in-toto.io/attestation/vulns/v9"));
        assert!(!is_readable("chainloop.dev/attestation/v0.2"));
    }

    #[tokio::test]
    async fn a_good_registration_passes_and_leaves_nothing_behind() {
        let s3 = S3::start("register").await;
        let before = s3.objects();
        Guac::register(&fixture::http(), &s3.registration())
            .await
            .unwrap();
        let attachment = attachment(json!({ "prefix": "team" }));
        Guac::attach(&fixture::http(), &s3.registration(), &attachment)
            .await
            .unwrap();
        assert_eq!(s3.objects(), before);
    }

    #[tokio::test]
    async fn a_wrong_secret_is_refused() {
        let s3 = S3::start("wrong").await;
        let registration = registration_of(
            json!({ "endpoint": s3.endpoint, "credentials": "canary-of-another-key" }),
        );
        let error = Guac::register(&fixture::http(), &registration)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Unauthorized, "{error:?}");
        assert_eq!(
            error.text,
            "try to write below chainloop/: answered 403 Forbidden (SignatureDoesNotMatch)"
        );
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }

    #[tokio::test]
    async fn a_missing_bucket_is_refused() {
        let s3 = S3::start("missing").await;
        let registration = registration_of(json!({ "endpoint": s3.endpoint, "bucket": "other" }));
        let error = Guac::register(&fixture::http(), &registration)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert_eq!(error.text, "find the bucket other: answered 404 Not Found");
    }

    /// Delivers one SBOM to a server that gives these answers.
    async fn answered(answers: &[&str]) -> (Result<Outcome, Error>, Vec<fixture::Received>) {
        let party = Party::start(answers);
        let mut stage = Stage::new();
        stage.materials.truncate(1);
        let outcome = deliver(&stage, &registration(&party.origin), &attachment(json!({}))).await;
        (outcome, party.received())
    }

    fn s3_error(status: &str, code: &str) -> String {
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>"
        );
        format!(
            "HTTP/1.1 {status}\r\nretry-after: 7\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn each_answer_of_s3_has_its_class() {
        use std::time::Duration;
        let again = Kind::Retryable { after: None };
        let after = Kind::Retryable {
            after: Some(Duration::from_secs(7)),
        };
        for (status, code, kind) in [
            ("400 Bad Request", "InvalidRequest", Kind::Permanent),
            (
                "400 Bad Request",
                "AuthorizationHeaderMalformed",
                Kind::Permanent,
            ),
            ("400 Bad Request", "ExpiredToken", Kind::Unauthorized),
            ("400 Bad Request", "RequestTimeout", again),
            ("403 Forbidden", "AccessDenied", Kind::Permanent),
            ("403 Forbidden", "InvalidAccessKeyId", Kind::Unauthorized),
            ("403 Forbidden", "SignatureDoesNotMatch", Kind::Unauthorized),
            ("403 Forbidden", "RequestTimeTooSkewed", again),
            ("404 Not Found", "NoSuchBucket", Kind::Permanent),
            ("409 Conflict", "ConditionalRequestConflict", again),
            (
                "301 Moved Permanently",
                "PermanentRedirect",
                Kind::Permanent,
            ),
            ("500 Internal Server Error", "InternalError", after),
            ("503 Slow Down", "SlowDown", after),
        ] {
            let (outcome, _) = answered(&[&s3_error(status, code)]).await;
            let error = outcome.unwrap_err();
            assert_eq!(error.kind, kind, "{status} {code}: {error:?}");
            assert!(error.text.ends_with(&format!("({code})")), "{error}");
            assert!(error.answer.unwrap().excerpt.contains(code));
        }
    }

    #[tokio::test]
    async fn an_object_that_is_there_already_is_delivered() {
        let (outcome, _) =
            answered(&[&s3_error("412 Precondition Failed", "PreconditionFailed")]).await;
        assert_eq!(receipt(outcome.unwrap())["objects"][0]["created"], false);
    }

    #[tokio::test]
    async fn a_wrong_region_is_named() {
        let answer = "HTTP/1.1 301 Moved Permanently\r\nx-amz-bucket-region: eu-west-3\r\ncontent-length: 0\r\n\r\n";
        let (outcome, _) = answered(&[answer]).await;
        let text = outcome.unwrap_err().text;
        assert!(
            text.ends_with("answered 301 Moved Permanently; the bucket is in the region eu-west-3"),
            "{text}"
        );
    }

    const OK: &str = "HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test]
    async fn without_conditional_writes_the_object_is_looked_for_first() {
        let no = s3_error("501 Not Implemented", "NotImplemented");
        let gone = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let (outcome, received) = answered(&[&no, gone, OK]).await;
        assert_eq!(receipt(outcome.unwrap())["objects"][0]["created"], true);
        let methods: Vec<_> = received
            .iter()
            .map(|request| request.method.as_str())
            .collect();
        assert_eq!(methods, ["PUT", "HEAD", "PUT"]);
        assert_eq!(received[0].headers["if-none-match"], "*");
        assert!(!received[2].headers.contains_key("if-none-match"));

        let there = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        let (outcome, received) = answered(&[&no, there]).await;
        assert_eq!(receipt(outcome.unwrap())["objects"][0]["created"], false);
        assert_eq!(received.len(), 2);
    }

    #[tokio::test]
    async fn a_service_that_ignores_conditions_is_cleaned_up_after_the_check() {
        let gone = "HTTP/1.1 204 No Content\r\n\r\n";
        let party = Party::start(&[OK, OK, gone]);
        Guac::register(&fixture::http(), &registration(&party.origin))
            .await
            .unwrap();
        let received = party.received();
        let methods: Vec<_> = received
            .iter()
            .map(|request| request.method.as_str())
            .collect();
        assert_eq!(methods, ["HEAD", "PUT", "DELETE"]);
        assert_eq!(received[1].target, received[2].target);
        assert_eq!(
            received[1].headers["if-match"],
            "\"00000000000000000000000000000000\""
        );
    }

    #[tokio::test]
    async fn the_preview_is_what_is_sent() {
        let party = Party::start(&[OK]);
        let mut stage = Stage::new();
        stage.materials.truncate(1);
        let (registration, attachment) = (registration(&party.origin), attachment(json!({})));
        let previews = Guac::preview(&stage, &stage.delivery(&registration, &attachment))
            .await
            .unwrap();
        deliver(&stage, &registration, &attachment).await.unwrap();

        let [preview] = &previews[..] else {
            panic!("{previews:?}")
        };
        let [sent] = &party.received()[..] else {
            panic!()
        };
        assert_eq!(preview.method, sent.method);
        assert_eq!(preview.target, format!("{}{}", party.origin, sent.target));
        assert_eq!(preview.body.as_bytes(), sent.body);
        assert_eq!(preview.digest, Digest::of(&sent.body));
        for (name, value) in &preview.headers {
            assert_eq!(sent.headers[name], *value, "{name}");
        }
        let mut more: Vec<_> = sent
            .headers
            .keys()
            .filter(|name| !preview.headers.contains_key(*name))
            .collect();
        more.sort();
        let signing = [
            "accept",
            "authorization",
            "content-length",
            "host",
            "user-agent",
            "x-amz-content-sha256",
            "x-amz-date",
        ];
        assert_eq!(more, signing);
        fixture::compare(
            "guac-preview.json",
            &serde_json::to_string_pretty(&json!({
                "target": sent.target, "headers": preview.headers, "size_bytes": preview.size_bytes,
            }))
            .unwrap(),
        );
    }

    #[test]
    fn metadata_fits_into_two_kilobytes_of_ascii() {
        let mut stage = Stage::new();
        stage.workflow.name = "naïve\r\nbuild  \u{202e}x".to_owned();
        stage.workflow.project = "p".repeat(4000);
        let (registration, attachment) =
            (registration("http://127.0.0.1:1"), attachment(json!({})));
        let delivery = stage.delivery::<Guac>(&registration, &attachment);
        let mut material = stage.materials[0].clone();
        material.name = "é ".repeat(2000);
        let metadata = metadata(&delivery, &stage.attestation.hash, Source::Sbom(&material));
        assert!(
            metadata
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>()
                < 2048
        );
        assert!(
            metadata
                .iter()
                .all(|(_, value)| value.bytes().all(|b| (b' '..=b'~').contains(&b)))
        );
        assert!(
            metadata.contains(&("workflow", "na?ve build ?x".to_owned())),
            "{metadata:?}"
        );
    }

    #[test]
    fn inputs_that_could_not_work_are_refused() {
        let base = json!({ "bucket": "sboms", "access_key_id": KEY, "credentials": SECRET });
        let faults = |more: Value| {
            let mut all = base.as_object().unwrap().clone();
            all.extend(more.as_object().unwrap().clone());
            inputs::check::<Registration>(&all)
                .into_iter()
                .map(|fault| fault.field)
                .collect::<Vec<_>>()
        };
        assert!(faults(json!({})).is_empty());
        assert!(
            faults(json!({ "provider": "s3", "endpoint": "https://s3.example.org/v1" })).is_empty()
        );
        assert_eq!(faults(json!({ "provider": "gcs" })), ["provider"]);
        for bucket in [
            "Sboms",
            "a/b",
            "..",
            "a..b",
            "-ab",
            "ab?x",
            "arn:aws:s3:::b",
        ] {
            assert_eq!(faults(json!({ "bucket": bucket })), ["bucket"], "{bucket}");
        }
        for region in ["evil.example.org/", "us east", "a@b"] {
            assert_eq!(faults(json!({ "region": region })), ["region"], "{region}");
        }
        for endpoint in [
            "s3.example.org",
            "https://u:p@s3.example.org",
            "https://s3.example.org?x=1",
        ] {
            assert_eq!(
                faults(json!({ "endpoint": endpoint })),
                ["endpoint"],
                "{endpoint}"
            );
        }
        assert_eq!(
            faults(json!({ "bucket": "A", "region": "x y", "endpoint": "https://a.example/?q" })),
            ["bucket"],
            "what the schema can tell comes first"
        );
        assert_eq!(
            faults(json!({ "bucket": "A_B", "region": "x y", "endpoint": "https://a.example/?q" })),
            ["bucket", "endpoint", "region"]
        );
        for prefix in ["/a", "a/", "a//b", "a/../b", "a b", "a:b", "ä"] {
            let inputs = json!({ "prefix": prefix });
            let faults = inputs::check::<Attachment>(inputs.as_object().unwrap());
            assert_eq!(faults.len(), 1, "{prefix}");
        }
    }
}
