//! Posts each attestation, and the SBOMs that came with it if asked, as JSON to any URL: for whatever an
//! organization runs itself.
//!
//! The bodies are those of Chainloop's own `webhook` integration, so that a receiver written for it needs no
//! change. A receiver that would rather have CloudEvents gets them in the structured JSON form.
//!
//! Each request carries `webhook-id`, which stays the same when the request is repeated, `webhook-timestamp` (seconds
//! since 1970) and `webhook-attempt` (1 for the first). With a signing secret it also carries the `webhook-signature`
//! of Standard Webhooks. A receiver that works for longer than the limit below answers first and works afterwards, or
//! remembers the IDs.
//!
//! # Receipt
//!
//! For each request the status that was answered and the digest of the body.
//!
//! # Limits
//!
//! None known of every receiver: `max_per_second` paces one that wants it, and each request has 10 s and a second
//! more for each MiB.
//!
//! # Failures
//!
//! - 401: the secret is read again once, in case it was rotated; a second 401 fails. Mend it with `registered rotate`.
//! - 410: the receiver says that it is gone: the registration is paused.
//! - any other 4xx, and any redirect: fails; what was answered is kept with the attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use attestation::{Attestation, Digest, Material, MaterialType};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    Authorities, Content, Delivery, Encoding, Error, Filter, Host, Http, Integration, Outcome,
    Preview, SecretText, SecretUrl, Warnings,
};

#[derive(Debug)]
pub struct Webhook;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// URL that each attestation is posted to, as JSON; any 2xx answer is success
    pub url: SecretUrl,
    /// What bodies look like: `chainloop`, as Chainloop's own webhook sends them, or `cloudevents`, CloudEvents 1.0 in structured JSON
    #[serde(default)]
    pub format: Format,
    /// More headers for each request, a line of `Name: value` each, as for a gateway's key
    #[serde(default)]
    #[schemars(
        with = "Option<SecretText>",
        length(min = 4, max = 8192),
        example = &"X-Api-Key: my-key"
    )]
    pub headers: Option<Headers>,
    /// Signing secret of Standard Webhooks, either `whsec_` and base64 or at least 24 characters; requests are signed when it is given, and twice with two of `whsec_` and a space between them, while one replaces the other
    #[serde(default)]
    #[schemars(with = "Option<SecretText>", length(min = 24))]
    pub secret: Option<SigningSecret>,
    /// Deliveries a second at most; as fast as they come when it is not given
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    pub max_per_second: Option<u32>,
    #[serde(default)]
    pub ca_certificates: Option<Authorities>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Chainloop,
    CloudEvents,
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Self::Chainloop => "application/json",
            Self::CloudEvents => "application/cloudevents+json; charset=utf-8",
        }
    }
}

/// Lines of `Name: value`, secret as a whole: which of them is a key, nobody says.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "SecretText")]
pub struct Headers(SecretText);

/// At most as many lines.
const HEADERS: usize = 32;

impl Headers {
    /// Each line as a header; none for a line that is not one.
    fn lines(&self) -> impl Iterator<Item = Option<(HeaderName, HeaderValue)>> {
        let lines = self.0.expose().lines().map(str::trim);
        lines.filter(|line| !line.is_empty()).map(|line| {
            let (name, value) = line.split_once(':')?;
            let name = HeaderName::try_from(name.trim_end()).ok()?;
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            (!value.is_empty()).then_some((name, value))
        })
    }

    fn all(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.lines().flatten()
    }
}

/// Reports whether the request itself sets this header, or the header belongs to the connection.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("webhook-")
        || name.starts_with("proxy-")
        || matches!(
            name,
            "connection"
                | "content-encoding"
                | "content-length"
                | "content-type"
                | "expect"
                | "host"
                | "keep-alive"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "user-agent"
        )
}

impl TryFrom<SecretText> for Headers {
    type Error = String;

    /// An error shows names alone.
    fn try_from(secret: SecretText) -> Result<Self, String> {
        let headers = Self(secret);
        let mut seen = BTreeSet::new();
        for (number, header) in (1..).zip(headers.lines()) {
            let Some((name, _)) = header else {
                return Err(format!(
                    "must be lines of `Name: value`, which number {number} is not"
                ));
            };
            if is_ours(&name) {
                return Err(format!(
                    "must not have {name}, which is not for the operator to say"
                ));
            }
            if !seen.insert(name.to_string()) {
                return Err(format!("must have {name} once"));
            }
        }
        match seen.len() {
            0 => Err("must have at least one line of `Name: value`".to_owned()),
            count if count > HEADERS => Err(format!("must have at most {HEADERS} lines")),
            _ => Ok(headers),
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Whether to send the attestation
    #[serde(default = "yes")]
    pub send_attestation: bool,
    /// Whether to send the SBOMs that came with the attestation, each in a request of its own
    #[serde(default)]
    pub send_sbom: bool,
    /// Only attestations and materials that fit, as in `environment=prod, workflow.branch=release/*`
    #[serde(default)]
    pub filter: Option<Filter>,
}

fn yes() -> bool {
    true
}

/// The key of <https://www.standardwebhooks.com>: what follows `whsec_` is base64 of 24 to 64 bytes, and text
/// without that prefix is the key itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "SecretText")]
pub struct SigningSecret(SecretText);

impl SigningSecret {
    /// The secrets in it: one, or two behind `whsec_` each. Spaces and commas in any other text are its own.
    fn each(&self) -> Vec<&str> {
        let text = self.0.expose();
        let parts: Vec<_> = text
            .split([' ', ',', '\n'])
            .filter(|part| !part.is_empty())
            .collect();
        match parts.iter().all(|part| part.starts_with(PREFIX)) {
            true => parts,
            false => vec![text],
        }
    }

    fn key(text: &str) -> Option<Vec<u8>> {
        match text.strip_prefix(PREFIX) {
            Some(encoded) => base64_simd::STANDARD.decode_to_vec(encoded).ok(),
            None => Some(text.as_bytes().to_vec()),
        }
    }

    /// A signature that waits for the body's bytes.
    fn sign(&self, id: &str, unix_secs: u64) -> Signature {
        let begin = |secret: &str| {
            let key = Self::key(secret).expect("checked when it was made");
            let mut mac =
                Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
            mac.update(format!("{id}.{unix_secs}.").as_bytes());
            mac
        };
        Signature(self.each().into_iter().map(begin).collect())
    }
}

const PREFIX: &str = "whsec_";

/// One for each secret: while one replaces the other, a receiver finds its own among them.
struct Signature(Vec<Hmac<Sha256>>);

impl Signature {
    fn update(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|mac| mac.update(bytes));
    }

    fn value(self) -> String {
        let signatures = self.0.into_iter().map(|mac| {
            let signature = mac.finalize().into_bytes();
            format!("v1,{}", base64_simd::STANDARD.encode_to_string(signature))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

impl TryFrom<SecretText> for SigningSecret {
    type Error = &'static str;

    fn try_from(secret: SecretText) -> Result<Self, Self::Error> {
        let secret = Self(secret);
        let all = secret.each();
        if all.len() > 2 {
            return Err("must be one secret, or two while one replaces the other");
        }
        for text in all {
            match Self::key(text) {
                Some(key) if key.len() >= 24 => {}
                Some(_) => {
                    return Err("must have at least 24 characters, or 24 bytes behind whsec_");
                }
                None => return Err("must have base64 behind whsec_"),
            }
        }
        Ok(secret)
    }
}

impl Integration for Webhook {
    const ID: &'static str = "webhook";
    const VERSION: &'static str = "1.4";
    const DESCRIPTION: &'static str = "Send Attestation and SBOMs to a generic POST webhook URL";
    const MATERIALS: &'static [MaterialType] = &[
        MaterialType::SBOM_CYCLONEDX_JSON,
        MaterialType::SBOM_SPDX_JSON,
    ];

    type Registration = Registration;
    type Attachment = Attachment;

    fn authorities(registration: &Registration) -> Option<&Authorities> {
        registration.ca_certificates.as_ref()
    }

    fn filter(attachment: &Attachment) -> Option<&Filter> {
        attachment.filter.as_ref()
    }

    fn materials(attachment: &Attachment) -> &'static [MaterialType] {
        if attachment.send_sbom {
            Self::MATERIALS
        } else {
            &[]
        }
    }

    fn interval(registration: &Registration) -> Option<Duration> {
        let per_second = registration.max_per_second?;
        Some(Duration::from_secs(1) / per_second.clamp(1, 100))
    }

    /// Posts Chainloop's `TEST_WEBHOOK`, which receivers know to ignore: a webhook cannot be asked otherwise.
    async fn register(http: &Http, registration: &Registration) -> Result<Warnings, Error> {
        let now = http.unix_secs();
        let id = format!("test_{now}");
        let body = test_body(registration.format, &id);
        let mut signature = (registration.secret.as_ref()).map(|secret| secret.sign(&id, now));
        if let Some(signature) = &mut signature {
            signature.update(&body);
        }
        let request = request(registration, &id, now, 1, signature, body)?;
        let response = http.send(request).await?;
        let doing = format!("post a test to {}", registration.url.origin());
        response.check(&doing, now)?;
        Ok(Warnings::new())
    }

    async fn attach(_: &Http, _: &Registration, _: &Attachment) -> Result<Warnings, Error> {
        Ok(Warnings::new())
    }

    async fn deliver(
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Outcome, Error> {
        let steps = steps(delivery);
        if steps.is_empty() {
            return Ok(Outcome::Skipped(nothing_to_send(delivery)));
        }
        let mut receipts = Map::new();
        for step in steps {
            if let Some(receipt) = delivery.progress.get(&step.key) {
                receipts.insert(step.key, receipt.clone());
                continue;
            }
            let now = host.unix_secs();
            let (request, digest) = step.request(host, delivery, now).await?;
            let response = http.stream(host, request).await?;
            let doing = format!(
                "post {} to {}",
                step.name,
                delivery.registration.url.origin()
            );
            response.check(&doing, now)?;

            let receipt =
                json!({ "status": response.status.as_u16(), "digest": digest.to_string() });
            host.record(&step.key, receipt.clone()).await?;
            receipts.insert(step.key, receipt);
        }
        let mut receipt = Map::from_iter([("steps".to_owned(), Value::Object(receipts))]);
        if !delivery.missing.is_empty() {
            let names = delivery
                .missing
                .iter()
                .map(|material| material.name.as_str());
            receipt.insert("missing".to_owned(), names.collect());
        }
        Ok(Outcome::Delivered(receipt))
    }

    async fn preview(
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Vec<Preview>, Error> {
        let mut previews = Vec::new();
        for step in steps(delivery) {
            let (request, _) = step.request(host, delivery, host.unix_secs()).await?;
            let label = delivery.registration.url.label();
            previews.push(crate::http::preview_of_content(host, &request, label).await?);
        }
        Ok(previews)
    }
}

/// One request: the attestation, or one of its SBOMs.
struct Step<'a> {
    /// Stable over retries; names the step in the delivery's progress.
    key: String,
    /// As it completes "failed to post …".
    name: String,
    material: Option<&'a Material>,
}

impl<'a> Step<'a> {
    /// The request as it goes out, with its body's digest. An SBOM is read here once, for the signature, which
    /// stands in front of the body; and once more while it is sent.
    async fn request(
        &self,
        host: &dyn Host,
        delivery: &Delivery<'a, Webhook>,
        unix_secs: u64,
    ) -> Result<(Request<Content<'a>>, Digest), Error> {
        let id = message_id(delivery.id, &self.key);
        let content = match delivery.registration.format {
            Format::Chainloop => self.content(host, delivery).await?,
            Format::CloudEvents => self.event(host, delivery, &id).await?,
        };
        let secret = delivery.registration.secret.as_ref();
        let mut signature = secret.map(|secret| secret.sign(&id, unix_secs));
        let mut hash = Sha256::new();
        let take = |bytes: &Bytes| {
            hash.update(bytes);
            if let Some(signature) = &mut signature {
                signature.update(bytes);
            }
        };
        content.each(host, take).await?;
        let digest = Digest::from(<[u8; 32]>::from(hash.finalize()));
        let request = request(
            delivery.registration,
            &id,
            unix_secs,
            delivery.attempt,
            signature,
            content,
        )?;
        Ok((request, digest))
    }

    async fn content(
        &self,
        host: &dyn Host,
        delivery: &Delivery<'a, Webhook>,
    ) -> Result<Content<'a>, Error> {
        let metadata = metadata(delivery);
        let Some(material) = self.material else {
            let data = base64_simd::STANDARD.encode_to_string(data(delivery.attestation)?);
            let (begin, end) = around(&metadata, "ATTESTATION");
            return Ok(Content::from(begin + &data + &end));
        };
        let (begin, end) = around(&metadata, material.kind.as_str());
        let content = Content::from(begin)
            .material(host, material, Encoding::Base64)
            .await?;
        Ok(content.bytes(end))
    }

    /// The same as a CloudEvent: an attestation as JSON in it, and an SBOM, which could be anything, in base64.
    async fn event(
        &self,
        host: &dyn Host,
        delivery: &Delivery<'a, Webhook>,
        id: &str,
    ) -> Result<Content<'a>, Error> {
        let metadata = metadata(delivery);
        let Some(material) = self.material else {
            let kind = "dev.chainloop.attestation.v1";
            let digest = delivery.attestation.received.to_string();
            let data = String::from_utf8(data(delivery.attestation)?)
                .map_err(|error| Error::permanent("write the event's data").source(error))?;
            let event = Event::new(id, kind, &metadata, &digest, "application/json");
            return Ok(event.around("data", &data).into());
        };
        let kind = "dev.chainloop.material.v1";
        let media_type = if material.kind == MaterialType::SBOM_SPDX_JSON {
            "application/spdx+json"
        } else {
            "application/vnd.cyclonedx+json"
        };
        let mut event = Event::new(id, kind, &metadata, &material.name, media_type);
        event.materialtype = Some(material.kind.as_str());
        let content = Content::from(event.before("data_base64") + "\"")
            .material(host, material, Encoding::Base64)
            .await?;
        Ok(content.bytes("\"}"))
    }
}

/// Encodes all but unreserved characters (RFC 3986, section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The attributes of a CloudEvent, those of our own at the end. None depends on when it is sent.
///
/// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>
#[derive(Serialize)]
struct Event<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    r#type: &'static str,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'a str>,
    datacontenttype: &'static str,
    project: &'a str,
    workflow: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    materialtype: Option<&'a str>,
    attestationdigest: &'a str,
}

impl<'a> Event<'a> {
    fn new(
        id: &'a str,
        kind: &'static str,
        metadata: &'a Metadata,
        subject: &'a str,
        media_type: &'static str,
    ) -> Self {
        let (workflow, run) = (&metadata.workflow, &metadata.workflow_run);
        let segment = |text| utf8_percent_encode(text, SEGMENT);
        let (project, name) = (segment(&workflow.project), segment(&workflow.name));
        Self {
            specversion: "1.0",
            id,
            source: format!("chainloop/{project}/{name}"),
            r#type: kind,
            subject,
            time: Some(run.finished_at.as_str()).filter(|time| *time != NEVER),
            datacontenttype: media_type,
            project: &workflow.project,
            workflow: &workflow.name,
            materialtype: None,
            attestationdigest: &run.attestation_digest,
        }
    }

    /// The event up to the value of this last member.
    fn before(&self, member: &str) -> String {
        let mut text = serde_json::to_string(self).expect("strings alone");
        text.pop();
        text + ",\"" + member + "\":"
    }

    fn around(&self, member: &str, value: &str) -> String {
        self.before(member) + value + "}"
    }
}

fn steps<'a>(delivery: &Delivery<'a, Webhook>) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    if delivery.attachment.send_attestation {
        let (key, name) = ("attestation".to_owned(), "the attestation".to_owned());
        steps.push(Step {
            key,
            name,
            material: None,
        });
    }
    if delivery.attachment.send_sbom {
        let mut seen = BTreeMap::new();
        for material in delivery.materials {
            // Names are unique in what Chainloop makes, and nowhere else.
            let count = seen
                .entry(&material.name)
                .and_modify(|count| *count += 1)
                .or_insert(1);
            let key = match count {
                1 => format!("sbom:{}", material.name),
                count => format!("sbom:{}#{count}", material.name),
            };
            let name = format!("the SBOM {:?}", material.name);
            steps.push(Step {
                key,
                name,
                material: Some(material),
            });
        }
    }
    steps
}

fn nothing_to_send(delivery: &Delivery<'_, Webhook>) -> String {
    if !delivery.attachment.send_sbom {
        return "the attachment sends neither attestations nor SBOMs".to_owned();
    }
    match delivery.missing.len() {
        0 => "the attestation came without an SBOM".to_owned(),
        1 => "the attestation's SBOM never came".to_owned(),
        count => format!("none of the attestation's {count} SBOMs ever came"),
    }
}

/// Stable over retries, and without the full stop that separates it from the rest of what is signed.
fn message_id(delivery: &str, step: &str) -> String {
    let delivery = delivery.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    format!("{delivery}_{}", &Digest::of(step.as_bytes()).hex()[..12])
}

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const ATTEMPT: HeaderName = HeaderName::from_static("webhook-attempt");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

fn request<T>(
    registration: &Registration,
    id: &str,
    unix_secs: u64,
    attempt: u32,
    signature: Option<Signature>,
    body: T,
) -> Result<Request<T>, Error> {
    let invalid =
        |error: http::Error| Error::permanent("build the webhook's request").source(error);
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(registration.url.expose())
        .header(CONTENT_TYPE, registration.format.media_type())
        .header(ID, id)
        .header(TIMESTAMP, unix_secs)
        .header(ATTEMPT, attempt);
    for (name, value) in registration.headers.iter().flat_map(Headers::all) {
        request = request.header(name, value);
    }
    if let Some(signature) = signature {
        let mut value =
            HeaderValue::try_from(signature.value()).expect("base64 can be in a header");
        value.set_sensitive(true);
        request = request.header(SIGNATURE, value);
    }
    request.body(body).map_err(invalid)
}

fn test_body(format: Format, id: &str) -> Bytes {
    let metadata = Metadata {
        workflow: WorkflowMetadata {
            name: "test-webhook-workflow".to_owned(),
            ..WorkflowMetadata::default()
        },
        workflow_run: RunMetadata {
            id: "test-webhook-run".to_owned(),
            ..RunMetadata::default()
        },
    };
    if format == Format::CloudEvents {
        let kind = "dev.chainloop.test.v1";
        let event = Event::new(id, kind, &metadata, "test", "application/json");
        return event.around("data", "{}").into();
    }
    let (begin, end) = around(&metadata, "TEST_WEBHOOK");
    // `{}`
    (begin + "e30=" + &end).into()
}

/// Returns the text before and after the data's base64 in a body of Chainloop's webhook: three keys in this order.
fn around(metadata: &Metadata, kind: &str) -> (String, String) {
    let metadata = serde_json::to_string(metadata).expect("strings alone");
    (
        format!(r#"{{"Metadata":{metadata},"Data":""#),
        format!(r#"","Kind":"{kind}"}}"#),
    )
}

/// Chainloop's metadata, with its keys and in its order. What an attestation does not say is empty.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    workflow: WorkflowMetadata,
    workflow_run: RunMetadata,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct WorkflowMetadata {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    team: String,
    project: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RunMetadata {
    #[serde(rename = "ID")]
    id: String,
    state: String,
    started_at: String,
    finished_at: String,
    runner_type: String,
    #[serde(rename = "RunURL")]
    run_url: String,
    attestation_digest: String,
}

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Default for RunMetadata {
    fn default() -> Self {
        Self {
            id: String::new(),
            state: String::new(),
            started_at: NEVER.to_owned(),
            finished_at: NEVER.to_owned(),
            runner_type: String::new(),
            run_url: String::new(),
            attestation_digest: String::new(),
        }
    }
}

fn metadata(delivery: &Delivery<'_, Webhook>) -> Metadata {
    let workflow = delivery.workflow;
    let mut metadata = Metadata {
        workflow: WorkflowMetadata {
            id: workflow.id.clone(),
            name: workflow.name.clone(),
            team: String::new(),
            project: workflow.project.clone(),
        },
        workflow_run: RunMetadata {
            // Only runs that succeeded have an attestation.
            state: "success".to_owned(),
            attestation_digest: delivery.attestation.received.to_string(),
            ..RunMetadata::default()
        },
    };
    if let Some(predicate) = delivery.attestation.predicate() {
        let (about, run) = (&predicate.metadata, &mut metadata.workflow_run);
        metadata.workflow.id.clone_from(&about.workflow_id);
        about.workflow().clone_into(&mut metadata.workflow.name);
        metadata.workflow.team.clone_from(&about.team);
        metadata.workflow.project.clone_from(&about.project);
        run.id.clone_from(&about.workflow_run_id);
        run.started_at = go_time(&about.initialized_at);
        run.finished_at = go_time(&about.finished_at);
        run.runner_type.clone_from(&predicate.runner_type);
        run.run_url.clone_from(&predicate.runner_url);
    }
    metadata
}

/// RFC 3339 as Go reads it: a receiver's `time.Time` fails on anything else, on an empty text too.
fn go_time(text: &str) -> String {
    text.parse::<jiff::Timestamp>()
        .map_or_else(|_| NEVER.to_owned(), |time| time.to_string())
}

/// Returns the `Data` of an attestation: Chainloop's object with Go's field names.
fn data(attestation: &Attestation) -> Result<Vec<u8>, Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Data<'a> {
        envelope: &'a RawValue,
        hash: String,
        statement: &'a Statement<'a>,
        predicate: Option<&'a RawValue>,
    }
    let unreadable = |error: serde_json::Error| {
        Error::permanent("read the attestation's statement").source(error)
    };
    let envelope = attestation.envelope.compact();
    let statement: Statement<'_> =
        serde_json::from_slice(&attestation.envelope.payload).map_err(unreadable)?;
    let data = Data {
        envelope: serde_json::from_slice(&envelope).map_err(unreadable)?,
        hash: attestation.hash.to_string(),
        predicate: statement.predicate,
        statement: &statement,
    };
    serde_json::to_vec(&data).map_err(unreadable)
}

/// An in-toto statement: read in either spelling of its keys, written as Go's encoder writes the generated
/// struct, in its order and without what is absent. Values go through as they came.
#[derive(Deserialize, Serialize)]
struct Statement<'a> {
    #[serde(
        borrow,
        rename(deserialize = "_type"),
        alias = "type",
        skip_serializing_if = "Option::is_none"
    )]
    r#type: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    subject: Option<Vec<Descriptor<'a>>>,
    #[serde(
        borrow,
        rename(deserialize = "predicateType"),
        alias = "predicate_type",
        skip_serializing_if = "Option::is_none"
    )]
    predicate_type: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    predicate: Option<&'a RawValue>,
}

#[derive(Deserialize, Serialize)]
struct Descriptor<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    name: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    uri: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    digest: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    content: Option<&'a RawValue>,
    #[serde(
        borrow,
        rename(deserialize = "downloadLocation"),
        alias = "download_location",
        skip_serializing_if = "Option::is_none"
    )]
    download_location: Option<&'a RawValue>,
    #[serde(
        borrow,
        rename(deserialize = "mediaType"),
        alias = "media_type",
        skip_serializing_if = "Option::is_none"
    )]
    media_type: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, Peer, Stage};
    use crate::{Kind, inputs};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn registration(party: &Peer) -> Registration {
        let url = format!(
            "{}/hooks/canary-in-the-path?token=canary-in-the-query",
            party.origin
        );
        serde_json::from_value(json!({ "url": url, "secret": SECRET })).unwrap()
    }

    const BOTH: Attachment = Attachment {
        send_attestation: true,
        send_sbom: true,
        filter: None,
    };

    async fn deliver(
        stage: &Stage,
        registration: &Registration,
        attachment: &Attachment,
    ) -> Result<Outcome, Error> {
        let delivery = stage.delivery(registration, attachment);
        Webhook::deliver(&fixture::http(), stage, &delivery).await
    }

    #[tokio::test]
    async fn the_attestation_goes_first_and_then_each_sbom() {
        let party = Peer::start(&[fixture::OK, fixture::ACCEPTED, fixture::OK]);
        let stage = Stage::new();
        let outcome = deliver(&stage, &registration(&party), &BOTH).await.unwrap();

        let received = party.received();
        let bodies: Vec<Value> = received
            .iter()
            .map(|request| serde_json::from_slice(&request.body).unwrap())
            .collect();
        let kinds: Vec<_> = bodies
            .iter()
            .map(|body| body["Kind"].as_str().unwrap())
            .collect();
        assert_eq!(
            kinds,
            ["ATTESTATION", "SBOM_CYCLONEDX_JSON", "SBOM_SPDX_JSON"]
        );
        assert_eq!(decoded(&bodies[1]), fixture::CDX.as_bytes());
        assert_eq!(decoded(&bodies[2]), fixture::SPDX.as_bytes());
        assert_eq!(received[0].headers["content-type"], "application/json");
        fixture::compare(
            "webhook-attestation.json",
            std::str::from_utf8(&received[0].body).unwrap(),
        );

        let digest = |n: usize| Digest::of(&received[n].body).to_string();
        let expected = json!({ "steps": {
            "attestation": { "status": 200, "digest": digest(0) },
            "sbom:sbom": { "status": 202, "digest": digest(1) },
            "sbom:packages": { "status": 200, "digest": digest(2) },
        }});
        assert_eq!(
            outcome,
            Outcome::Delivered(expected.as_object().unwrap().clone())
        );
        let recorded = stage.recorded();
        let steps: Vec<_> = recorded.iter().map(|(step, _)| step.as_str()).collect();
        assert_eq!(steps, ["attestation", "sbom:sbom", "sbom:packages"]);
    }

    fn decoded(body: &Value) -> Vec<u8> {
        base64_simd::STANDARD
            .decode_to_vec(body["Data"].as_str().unwrap())
            .unwrap()
    }

    #[tokio::test]
    async fn the_data_decodes_to_the_envelope() {
        let party = Peer::start(&[fixture::OK]);
        let stage = Stage::new();
        let attachment = Attachment {
            send_attestation: true,
            send_sbom: false,
            filter: None,
        };
        deliver(&stage, &registration(&party), &attachment)
            .await
            .unwrap();

        let body: Value = serde_json::from_slice(&party.received()[0].body).unwrap();
        let data = decoded(&body);
        fixture::compare("webhook-data.json", std::str::from_utf8(&data).unwrap());
        let data: Value = serde_json::from_slice(&data).unwrap();
        let envelope: Value =
            serde_json::from_slice(&stage.attestation.envelope.compact()).unwrap();
        assert_eq!(data["Envelope"], envelope);
        assert_eq!(data["Hash"], stage.attestation.hash.to_string());
        let payload: Value = serde_json::from_slice(&stage.attestation.envelope.payload).unwrap();
        assert_eq!(data["Predicate"], payload["predicate"]);
        assert_eq!(
            data["Statement"]["predicate_type"],
            payload["predicateType"]
        );
        assert_eq!(data["Statement"]["type"], payload["_type"]);
        assert_eq!(data["Statement"]["subject"], payload["subject"]);
        let run = &body["Metadata"]["WorkflowRun"];
        assert_eq!(
            run["AttestationDigest"],
            stage.attestation.received.to_string()
        );
    }

    #[tokio::test]
    async fn an_attestation_of_another_kind_has_the_workflow_it_was_posted_for() {
        let party = Peer::start(&[fixture::OK]);
        let statement = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"00"},"uri":null}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{"x":1}}"#;
        let mut stage = Stage::of(statement);
        stage.workflow.id.clear();
        stage.workflow.name = "release".to_owned();
        let attachment = Attachment {
            send_attestation: true,
            send_sbom: false,
            filter: None,
        };
        deliver(&stage, &registration(&party), &attachment)
            .await
            .unwrap();

        let body: Value = serde_json::from_slice(&party.received()[0].body).unwrap();
        assert_eq!(
            body["Metadata"],
            json!({
                "Workflow": { "ID": "", "Name": "release", "Team": "", "Project": "shop" },
                "WorkflowRun": {
                    "ID": "", "State": "success", "StartedAt": NEVER, "FinishedAt": NEVER,
                    "RunnerType": "", "RunURL": "",
                    "AttestationDigest": stage.attestation.received.to_string(),
                },
            })
        );
        let data = String::from_utf8(decoded(&body)).unwrap();
        assert!(
            data.ends_with(
                r#""Statement":{"type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"00"}}],"predicate_type":"https://slsa.dev/provenance/v1","predicate":{"x":1}},"Predicate":{"x":1}}"#
            ),
            "{data}"
        );
    }

    #[tokio::test]
    async fn a_step_that_is_done_is_not_repeated() {
        let party = Peer::start(&[
            fixture::OK,
            "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
        ]);
        let mut stage = Stage::new();
        let registration = registration(&party);
        let error = deliver(&stage, &registration, &BOTH).await.unwrap_err();
        assert_eq!(error.kind, Kind::Retryable { after: None });
        assert_eq!(
            error.text,
            format!(
                "post the SBOM \"sbom\" to {}: answered 503 Service Unavailable",
                party.origin
            )
        );
        assert_eq!(stage.recorded().len(), 1);

        let failed = party.received()[1].clone();
        let party = Peer::again(&party, &[fixture::OK, fixture::OK]).await;
        stage.progress.extend(stage.recorded());
        deliver(&stage, &registration, &BOTH).await.unwrap();
        let repeated = party.received();
        assert_eq!(repeated.len(), 2);
        assert_eq!(repeated[0].body, failed.body);
        assert_eq!(
            repeated[0].headers["webhook-id"],
            failed.headers["webhook-id"]
        );
        assert_ne!(
            repeated[0].headers["webhook-id"],
            repeated[1].headers["webhook-id"]
        );
    }

    #[tokio::test]
    async fn materials_of_one_name_are_steps_of_their_own() {
        let mut stage = Stage::new();
        for material in &mut stage.materials {
            material.name = "sbom".to_owned();
        }
        let party = Peer::start(&[]);
        let registration = registration(&party);
        let delivery = stage.delivery(&registration, &BOTH);
        let keys: Vec<_> = steps(&delivery).into_iter().map(|step| step.key).collect();
        assert_eq!(keys, ["attestation", "sbom:sbom", "sbom:sbom#2"]);
    }

    #[tokio::test]
    async fn with_nothing_to_send_the_delivery_is_skipped() {
        let party = Peer::start(&[]);
        let mut stage = Stage::new();
        let off = Attachment {
            send_attestation: false,
            send_sbom: false,
            filter: None,
        };
        let outcome = deliver(&stage, &registration(&party), &off).await.unwrap();
        let reason = "the attachment sends neither attestations nor SBOMs";
        assert_eq!(outcome, Outcome::Skipped(reason.to_owned()));

        stage.missing = std::mem::take(&mut stage.materials);
        let sboms = Attachment {
            send_attestation: false,
            send_sbom: true,
            filter: None,
        };
        let outcome = deliver(&stage, &registration(&party), &sboms)
            .await
            .unwrap();
        let reason = "none of the attestation's 2 SBOMs ever came";
        assert_eq!(outcome, Outcome::Skipped(reason.to_owned()));
        assert!(party.received().is_empty());
    }

    #[tokio::test]
    async fn a_missing_sbom_is_named_in_the_receipt() {
        let party = Peer::start(&[fixture::OK]);
        let mut stage = Stage::new();
        stage.missing = std::mem::take(&mut stage.materials);
        let outcome = deliver(&stage, &registration(&party), &BOTH).await.unwrap();
        let Outcome::Delivered(receipt) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(receipt["missing"], json!(["sbom", "packages"]));
    }

    #[tokio::test]
    async fn a_check_posts_the_test_that_chainloop_posts() {
        let party = Peer::start(&[fixture::ACCEPTED]);
        Webhook::register(&fixture::http(), &registration(&party))
            .await
            .unwrap();
        let received = party.received();
        assert_eq!(
            received[0].target,
            "/hooks/canary-in-the-path?token=canary-in-the-query"
        );
        assert_eq!(
            std::str::from_utf8(&received[0].body).unwrap(),
            r#"{"Metadata":{"Workflow":{"ID":"","Name":"test-webhook-workflow","Team":"","Project":""},"WorkflowRun":{"ID":"test-webhook-run","State":"","StartedAt":"0001-01-01T00:00:00Z","FinishedAt":"0001-01-01T00:00:00Z","RunnerType":"","RunURL":"","AttestationDigest":""}},"Data":"e30=","Kind":"TEST_WEBHOOK"}"#
        );
    }

    #[tokio::test]
    async fn no_part_of_a_secret_is_in_an_error() {
        let said = "no such hook";
        for status in ["404 Not Found", "410 Gone", "401 Unauthorized"] {
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{said}",
                said.len()
            );
            let party = Peer::start(&[&answer]);
            let registration = registration(&party);
            let error = Webhook::register(&fixture::http(), &registration)
                .await
                .unwrap_err();
            let shown = format!("{error} {error:?} {registration:?}");
            assert!(
                !shown.contains("canary") && !shown.contains("whsec"),
                "{shown}"
            );
            assert_eq!(error.answer.unwrap().excerpt, said);
        }
        let closed = Peer::start(&[]);
        let error = Webhook::register(&fixture::http(), &registration(&closed))
            .await
            .unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("canary"),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn the_preview_is_what_is_sent() {
        let party = Peer::start(&[fixture::OK, fixture::OK, fixture::OK]);
        let stage = Stage::new();
        let registration = registration(&party);
        let previews = Webhook::preview(&stage, &stage.delivery(&registration, &BOTH))
            .await
            .unwrap();
        deliver(&stage, &registration, &BOTH).await.unwrap();
        assert_eq!(previews.len(), 3);
        for (preview, sent) in previews.iter().zip(party.received()) {
            assert_eq!(preview.body.as_bytes(), sent.body);
            assert_eq!(preview.digest, Digest::of(&sent.body));
            assert_eq!(preview.headers["webhook-id"], sent.headers["webhook-id"]);
            assert_eq!(preview.headers["webhook-signature"], "…");
            assert!(preview.target.starts_with(&party.origin));
            assert!(!format!("{preview:?}").contains("canary"));
        }
    }

    // The example of the specification's own libraries.
    #[test]
    fn requests_are_signed_as_standard_webhooks_asks() {
        let secret = SigningSecret(SECRET.to_owned().into());
        let mut signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330);
        signature.update(br#"{"test": "#);
        signature.update(b"2432232314}");
        assert_eq!(
            signature.value(),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[tokio::test]
    async fn a_large_sbom_is_signed_as_a_whole() {
        let party = Peer::start(&[fixture::OK]);
        let mut stage = Stage::new();
        let sbom = vec![b'x'; 2_000_001];
        stage.materials = vec![Material::inline(
            "large",
            MaterialType::SBOM_SPDX_JSON,
            "l.json",
            sbom.clone(),
        )];
        let attachment = Attachment {
            send_attestation: false,
            send_sbom: true,
            filter: None,
        };
        deliver(&stage, &registration(&party), &attachment)
            .await
            .unwrap();
        let sent = &party.received()[0];
        let mut signature = SigningSecret(SECRET.to_owned().into())
            .sign(&sent.headers["webhook-id"], 1_767_323_400);
        signature.update(&sent.body);
        assert_eq!(sent.headers["webhook-signature"], signature.value());
        let body: Value = serde_json::from_slice(&sent.body).unwrap();
        assert!(decoded(&body) == sbom);
    }

    #[tokio::test]
    async fn a_receiver_without_a_secret_knows_a_repeat_by_its_id_and_its_attempt() {
        let party = Peer::start(&[
            "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
            fixture::OK,
            fixture::OK,
            fixture::OK,
        ]);
        let registration: Registration =
            serde_json::from_value(json!({ "url": format!("{}/hook", party.origin) })).unwrap();
        let stage = Stage::new();
        let mut delivery = stage.delivery(&registration, &BOTH);
        let previews = Webhook::preview(&stage, &delivery).await.unwrap();
        let http = fixture::http();
        Webhook::deliver(&http, &stage, &delivery)
            .await
            .unwrap_err();
        delivery.attempt = 2;
        Webhook::deliver(&http, &stage, &delivery).await.unwrap();
        let received = party.received();
        let header = |at: usize, name: &str| received[at].headers[name].clone();
        assert_eq!(header(0, "webhook-id"), header(1, "webhook-id"));
        assert_ne!(header(1, "webhook-id"), header(2, "webhook-id"));
        let attempts: Vec<_> = (0..4).map(|at| header(at, "webhook-attempt")).collect();
        assert_eq!(attempts, ["1", "2", "2", "2"]);
        for sent in &received {
            assert_eq!(sent.headers["webhook-timestamp"], "1767323400");
            assert!(!sent.headers.contains_key("webhook-signature"));
        }
        for name in ["webhook-id", "webhook-timestamp", "webhook-attempt"] {
            assert_eq!(previews[0].headers[name], header(0, name), "{name}");
        }
        assert!(!previews[0].headers.contains_key("webhook-signature"));
    }

    #[tokio::test]
    async fn a_check_without_a_secret_has_an_id_as_well() {
        let party = Peer::start(&[fixture::OK]);
        let registration: Registration =
            serde_json::from_value(json!({ "url": format!("{}/hook", party.origin) })).unwrap();
        Webhook::register(&fixture::http(), &registration)
            .await
            .unwrap();
        let headers = &party.received()[0].headers;
        assert_eq!(headers["webhook-attempt"], "1");
        let time = &headers["webhook-timestamp"];
        assert_eq!(headers["webhook-id"], format!("test_{time}"));
    }

    #[test]
    fn an_events_source_is_a_path_that_is_encoded_as_one() {
        for (project, name, source) in [
            ("my shop", "a/b", "chainloop/my%20shop/a%2Fb"),
            ("shop+1", "é?#%", "chainloop/shop%2B1/%C3%A9%3F%23%25"),
            ("a-b._~", "x:y", "chainloop/a-b._~/x%3Ay"),
        ] {
            let mut metadata = Metadata::default();
            metadata.workflow.project = project.to_owned();
            metadata.workflow.name = name.to_owned();
            let event = Event::new("id", "kind", &metadata, "subject", "application/json");
            assert_eq!(event.source, source);
            let url = url::Url::parse("https://example.org/").unwrap();
            assert_eq!(url.join(source).unwrap().path(), format!("/{source}"));
        }
    }

    #[test]
    fn a_message_id_has_no_full_stop() {
        let id = message_id("sha256:00.11", "sbom:a.b");
        assert!(id.starts_with("sha256-00-11_") && !id.contains('.'), "{id}");
    }

    #[test]
    fn inputs_that_could_not_work_are_refused() {
        let check = |inputs: Value| inputs::check::<Registration>(inputs.as_object().unwrap());
        assert!(check(json!({ "url": "https://example.org/x" })).is_empty());
        assert!(check(json!({ "url": "https://example.org/x", "secret": SECRET })).is_empty());
        let faults = check(json!({ "url": "ftp://canary", "secret": "canary" }));
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["secret", "url"]);
        let faults =
            check(json!({ "url": "https://example.org", "secret": "whsec_canary-canary-canary" }));
        assert_eq!(faults[0].field, "secret");
        assert_eq!(faults[0].detail, "must have base64 behind whsec_");
        assert!(!format!("{faults:?}").contains("canary"));
    }

    #[expect(clippy::needless_pass_by_value, reason = "called with json!")]
    fn extended(party: &Peer, more: Value) -> Registration {
        let mut inputs = json!({ "url": format!("{}/hook", party.origin), "secret": SECRET });
        let all = inputs.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        serde_json::from_value(inputs).unwrap()
    }

    #[tokio::test]
    async fn a_cloud_event_has_what_the_specification_asks_for() {
        let party = Peer::start(&[fixture::OK, fixture::OK, fixture::OK, fixture::OK]);
        let stage = Stage::new();
        let registration = extended(&party, json!({ "format": "cloudevents" }));
        let previews = Webhook::preview(&stage, &stage.delivery(&registration, &BOTH))
            .await
            .unwrap();
        deliver(&stage, &registration, &BOTH).await.unwrap();
        Webhook::register(&fixture::http(), &registration)
            .await
            .unwrap();
        let received = party.received();
        for (preview, sent) in previews.iter().zip(&received) {
            assert_eq!(preview.body.as_bytes(), sent.body);
            assert_eq!(preview.digest, Digest::of(&sent.body));
        }
        let events: Vec<Value> = received
            .iter()
            .map(|sent| serde_json::from_slice(&sent.body).unwrap())
            .collect();
        for (event, sent) in events.iter().zip(&received) {
            assert_eq!(
                sent.headers["content-type"],
                "application/cloudevents+json; charset=utf-8"
            );
            assert_eq!(event["specversion"], "1.0");
            assert_eq!(event["id"], sent.headers["webhook-id"].as_str());
            assert!(!event["source"].as_str().unwrap().is_empty());
            let names = event.as_object().unwrap().keys();
            let is_plain = |name: &String| name.bytes().all(|b| b.is_ascii_lowercase());
            assert!(
                names.filter(|name| *name != "data_base64").all(is_plain),
                "{event}"
            );
        }
        let kinds: Vec<_> = events
            .iter()
            .map(|event| event["type"].as_str().unwrap())
            .collect();
        let (attestation, material) = ("dev.chainloop.attestation.v1", "dev.chainloop.material.v1");
        assert_eq!(
            kinds,
            [attestation, material, material, "dev.chainloop.test.v1"]
        );
        assert_eq!(events[0]["source"], "chainloop/shop/nightly-build");
        assert_eq!(events[0]["time"], "2026-01-02T03:09:30Z");
        assert_eq!(events[0]["subject"], stage.attestation.received.to_string());
        assert_eq!(
            events[0]["data"]["Hash"],
            stage.attestation.hash.to_string()
        );
        assert_eq!(events[1]["subject"], "sbom");
        assert_eq!(
            events[1]["datacontenttype"],
            "application/vnd.cyclonedx+json"
        );
        let data = events[1]["data_base64"].as_str().unwrap();
        let data = base64_simd::STANDARD.decode_to_vec(data).unwrap();
        assert_eq!(data, fixture::CDX.as_bytes());
        assert_eq!(events[2]["datacontenttype"], "application/spdx+json");
        assert!(events[3].get("time").is_none());
        fixture::compare(
            "webhook-cloudevent.json",
            std::str::from_utf8(&received[1].body).unwrap(),
        );
    }

    #[tokio::test]
    async fn given_headers_are_sent_and_never_shown() {
        let echo = "HTTP/1.1 403 Forbidden\r\ncontent-length: 22\r\n\r\nno Bearer canary-token";
        let party = Peer::start(&[echo]);
        let stage = Stage::new();
        let headers = "Authorization: Bearer canary-token\n\nX-Tenant : shop\r\n";
        let registration = extended(&party, json!({ "headers": headers }));
        let previews = Webhook::preview(&stage, &stage.delivery(&registration, &BOTH))
            .await
            .unwrap();
        let error = deliver(&stage, &registration, &BOTH).await.unwrap_err();
        let sent = &party.received()[0].headers;
        assert_eq!(sent["authorization"], "Bearer canary-token");
        assert_eq!(sent["x-tenant"], "shop");
        assert_eq!(previews[0].headers["authorization"], "…");
        assert_eq!(previews[0].headers["x-tenant"], "…");
        let shown = format!("{error} {error:?} {registration:?} {previews:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn headers_that_are_not_the_operators_are_refused() {
        let check = |headers: &str| {
            let inputs = json!({ "url": "https://example.org/x", "headers": headers });
            inputs::check::<Registration>(inputs.as_object().unwrap())
        };
        assert!(check("X-Key: canary").is_empty());
        for name in [
            "Host",
            "Content-Length",
            "content-type",
            "Connection",
            "Transfer-Encoding",
            "Webhook-Id",
            "webhook-signature",
            "Proxy-Authorization",
            "TE",
            "Upgrade",
        ] {
            let faults = check(&format!("X-Key: 1234\n{name}: canary"));
            let detail = format!("must not have {}, which", name.to_lowercase());
            assert!(faults[0].detail.starts_with(&detail), "{faults:?}");
        }
        for headers in [
            "canary",
            "X-Key:",
            "X Key: canary",
            ": canary",
            "X-Key: can\u{1}ary",
        ] {
            let faults = check(headers);
            assert_eq!(faults.len(), 1, "{headers:?}");
            assert!(!faults[0].detail.contains("canary"), "{faults:?}");
        }
        let faults = check("X-Key: 1234\nx-key: canary");
        assert_eq!(faults[0].detail, "must have x-key once");
        let many: Vec<_> = (0..33).map(|n| format!("X-{n}: 1")).collect();
        assert_eq!(
            check(&many.join("\n"))[0].detail,
            "must have at most 32 lines"
        );
    }

    #[test]
    fn while_one_secret_replaces_the_other_both_sign() {
        let other = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let alone = |text: &str| {
            let secret = SigningSecret::try_from(SecretText::from(text.to_owned())).unwrap();
            let mut signature = secret.sign("id", 1);
            signature.update(b"{}");
            signature.value()
        };
        let both = format!("{} {}", alone(SECRET), alone(other));
        assert_eq!(alone(&format!("{SECRET} {other}")), both);
        assert_eq!(alone(&format!("{SECRET},{other}")), both);
        assert!(!alone("one secret of many words, and no more").contains(' '));
        let three = SecretText::from(format!("{SECRET} {other} {SECRET}"));
        assert_eq!(
            SigningSecret::try_from(three).unwrap_err(),
            "must be one secret, or two while one replaces the other"
        );
    }
}
