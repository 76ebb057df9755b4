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
//! Where a trust policy judged the attestation's signatures, `webhook-signature-verdict` says how: `verified`,
//! `unknown-signer`, `unverifiable` or `invalid`. In a CloudEvent, which a signing secret signs as a whole, the attribute
//! `signatureverdict` says the same, and `registration` is the name of the registration. Chainloop's body has no place for
//! that.
//!
//! `link` leads to the attestation's page in the console, where people see what became of it.
//!
//! Where whoever pushed the attestation named a trace, `traceparent` goes on with it: the trace's ID, and the attempt's span.
//!
//! # Receipt
//!
//! For each request the status that was answered, and the digest of the attestation's body or of the SBOM.
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

mod body;
mod headers;
mod signing;

use std::collections::BTreeMap;
use std::time::Duration;

use api::TRACEPARENT;
use attestation::{Digest, Material, MaterialType};
pub use body::Format;
pub use headers::Headers;
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderName, HeaderValue, Method, Request};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use signing::Signature;
pub use signing::SigningSecret;

use crate::{
    Authorities, Content, Delivery, Error, Filter, Host, Http, Integration, Outcome, Preview,
    SecretText, SecretUrl, Warnings,
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
        let body = body::test(registration.format, &id);
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
        let mut steps = steps.into_iter().peekable();
        while let Some(step) = steps.next() {
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

            let mut receipt = json!({ "status": response.status.as_u16() });
            if let Some(digest) = digest {
                receipt["digest"] = digest.to_string().into();
            }
            if let Some(material) = step.material.and_then(|material| material.digest) {
                receipt["material"] = material.to_string().into();
            }
            // The outcome records the last one.
            if steps.peek().is_some() {
                host.record(&step.key, receipt.clone()).await?;
            }
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
    /// The request as it goes out, with its body's digest if it carries the attestation. An SBOM is read here for a
    /// signature alone, which stands in front of the body; and otherwise once, while it is sent.
    async fn request(
        &self,
        host: &dyn Host,
        delivery: &Delivery<'a, Webhook>,
        unix_secs: u64,
    ) -> Result<(Request<Content<'a>>, Option<Digest>), Error> {
        let id = message_id(delivery.id, &self.key);
        let content = body::content(host, delivery, self.material, &id).await?;
        let secret = delivery.registration.secret.as_ref();
        let mut signature = secret.map(|secret| secret.sign(&id, unix_secs));
        if let Some(signature) = &mut signature {
            content.each(host, |bytes| signature.update(bytes)).await?;
        }
        let digest = match self.material {
            Some(_) => None,
            None => Some(content.digest(host).await?),
        };
        let mut request = request(
            delivery.registration,
            &id,
            unix_secs,
            delivery.attempt,
            signature,
            content,
        )?;
        if let Some(verdict) = delivery.pushed.judged() {
            let outcome = HeaderValue::from_static(verdict.outcome.as_str());
            request.headers_mut().insert(VERDICT, outcome);
        }
        if let Some(page) = delivery.pushed.page() {
            // <https://www.rfc-editor.org/rfc/rfc8288>
            let link = format!("<{page}>; rel=\"alternate\"; type=\"text/html\"");
            // An address that no header can have is the stack's own mistake, and no reason to keep the attestation.
            if let Ok(link) = HeaderValue::try_from(link) {
                // An operator's own comes first.
                request.headers_mut().entry(LINK).or_insert(link);
            }
        }
        if let Some(trace) = delivery.trace {
            let value = HeaderValue::try_from(trace.to_string());
            let value = value.expect("digits and hyphens can be in a header");
            request.headers_mut().insert(TRACEPARENT, value);
        }
        Ok((request, digest))
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
const VERDICT: HeaderName = HeaderName::from_static("webhook-signature-verdict");
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

#[cfg(test)]
mod tests {
    use api::trust::Code;

    use super::*;
    use crate::fixture::{self, Peer, Stage};
    use crate::{Kind, inputs};

    const NEVER: &str = "0001-01-01T00:00:00Z";
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn registration(party: &Peer) -> Registration {
        let url = format!(
            "{}/hooks/canary-in-the-path?token=canary-in-the-query",
            party.origin
        );
        serde_json::from_value(json!({ "url": url, "secret": SECRET })).unwrap()
    }

    const fn sending(attestation: bool, sbom: bool) -> Attachment {
        Attachment {
            send_attestation: attestation,
            send_sbom: sbom,
            filter: None,
        }
    }

    static BOTH: Attachment = sending(true, true);
    static ATTESTATION: Attachment = sending(true, false);
    static SBOMS: Attachment = sending(false, true);
    static NOTHING: Attachment = sending(false, false);

    async fn deliver(
        stage: &Stage,
        registration: &Registration,
        attachment: &Attachment,
    ) -> Result<Outcome, Error> {
        let delivery = stage.delivery(registration, attachment);
        Webhook::deliver(&fixture::http(), stage, &delivery).await
    }

    #[tokio::test]
    async fn an_sbom_is_read_once_and_a_second_time_for_a_signature_alone() {
        for (signed, reads) in [(false, 2), (true, 4)] {
            let party = Peer::start(&[fixture::OK, fixture::OK]);
            let mut registration = registration(&party);
            if !signed {
                registration.secret = None;
            }
            let stage = Stage::new();
            deliver(&stage, &registration, &SBOMS).await.unwrap();
            assert_eq!(party.received().len(), 2);
            assert_eq!(stage.reads.get(), reads, "{signed}");
        }
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

        let digest = Digest::of(&received[0].body).to_string();
        let material = |content: &str| Digest::of(content.as_bytes()).to_string();
        let expected = json!({ "steps": {
            "attestation": { "status": 200, "digest": digest },
            "sbom:sbom": { "status": 202, "material": material(fixture::CDX) },
            "sbom:packages": { "status": 200, "material": material(fixture::SPDX) },
        }});
        assert_eq!(
            outcome,
            Outcome::Delivered(expected.as_object().unwrap().clone())
        );
        let recorded = stage.recorded();
        let steps: Vec<_> = recorded.iter().map(|(step, _)| step.as_str()).collect();
        // The outcome records the last one.
        assert_eq!(steps, ["attestation", "sbom:sbom"]);
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
        deliver(&stage, &registration(&party), &ATTESTATION)
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
        deliver(&stage, &registration(&party), &ATTESTATION)
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
        let outcome = deliver(&stage, &registration(&party), &NOTHING)
            .await
            .unwrap();
        let reason = "the attachment sends neither attestations nor SBOMs";
        assert_eq!(outcome, Outcome::Skipped(reason.to_owned()));

        stage.missing = std::mem::take(&mut stage.materials);
        let outcome = deliver(&stage, &registration(&party), &SBOMS)
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
    async fn a_trace_goes_on_in_each_request() {
        let party = Peer::start(&[fixture::OK; 3]);
        let mut stage = Stage::new();
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        stage.trace = Some(given.parse().unwrap());
        deliver(&stage, &registration(&party), &BOTH).await.unwrap();
        let received = party.received();
        assert_eq!(received.len(), 3);
        for sent in received {
            assert_eq!(sent.headers["traceparent"], given);
        }
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
        let registration = registration(&party);
        deliver(&stage, &registration, &SBOMS).await.unwrap();
        let sent = &party.received()[0];
        let secret = registration.secret.unwrap();
        let mut signature = secret.sign(&sent.headers["webhook-id"], 1_767_323_400);
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
    async fn the_verdict_on_signatures_is_in_a_header_and_in_the_event() {
        let party = Peer::start(&[]);
        let mut registration = registration(&party);
        let sent = async |stage: &Stage, registration: &Registration| {
            let delivery = stage.delivery(registration, &BOTH);
            Webhook::preview(stage, &delivery).await.unwrap()
        };
        let judged = Stage::new().judged(Code::CertificateMissing);
        for request in sent(&judged, &registration).await {
            assert_eq!(request.headers["webhook-signature-verdict"], "unverifiable");
        }
        registration.format = Format::CloudEvents;
        for request in sent(&judged, &registration).await {
            let event: Value = serde_json::from_str(&request.body).unwrap();
            assert_eq!(event["signatureverdict"], "unverifiable");
        }
        for request in sent(&Stage::new(), &registration).await {
            let event: Value = serde_json::from_str(&request.body).unwrap();
            assert!(event.get("signatureverdict").is_none());
            assert!(!request.headers.contains_key("webhook-signature-verdict"));
        }
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
}
