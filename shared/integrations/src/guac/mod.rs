//! Puts SBOMs, and the attestations that GUAC can read, into a bucket from which GUAC collects them.
//!
//! GUAC (<https://github.com/guacsec/guac>) reads a whole bucket and fails on any object that it has no
//! parser for, Chainloop's own attestations among them; so these stay out unless asked for. Of an attestation the
//! statement is exported, without its envelope: GUAC has no key to verify one with, and fails on it. The object's
//! metadata names the envelope by its digest (`source`). Keys are made of
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
//! - AccessDenied, SignatureDoesNotMatch, InvalidAccessKeyId, AuthenticationFailed, 401, 403: the key may not write
//!   there, or is not the right one. Mend it with `registered rotate`.
//! - NoSuchBucket, ContainerNotFound, 404: the bucket is not there, or its name is wrong.
//! - assume arn:…: the role may not be assumed. The reason has the external ID that its trust policy has to ask for, and
//!   what refused: the role's trust policy, the role's own permissions, or the stack's parameter `AssumableRoles`.
//! - another region: the bucket lies elsewhere, and the answer says where; register it with that `region`.
//! - SlowDown, ServerBusy, InternalError, ConditionalRequestConflict: tried again.

mod azure;
#[cfg(test)]
mod fixture;
mod gcs;
mod inputs;
mod provenance;
mod s3;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use attestation::{Digest, Material, MaterialType};
use http::Request;
use http::header::CONTENT_LENGTH;
use serde_json::{Map, Value, json};

use crate::http::Response;
use crate::{
    Authorities, Content, Delivery, Encoding, Error, Filter, Host, Http, Integration, Kind,
    LOOKED_FOR, Outcome, Presence, Preview, SecretText, Warnings, shape,
};

pub use inputs::{Attachment, Attestations, Bucket, Prefix, Provider, Registration};

use inputs::Place;

#[derive(Debug)]
pub struct Guac;

impl Integration for Guac {
    const ID: &'static str = "guac";
    const VERSION: &'static str = "1.2";
    const DESCRIPTION: &'static str = "Export Attestation and SBOMs metadata to a blob storage backend so guacsec/guac can consume it";
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

    async fn register(http: &Http, registration: &Registration) -> Result<Warnings, Error> {
        registration.place.check(http).await?;
        Ok(Warnings::new())
    }

    async fn attach(
        http: &Http,
        registration: &Registration,
        attachment: &Attachment,
    ) -> Result<Warnings, Error> {
        let place = &registration.place;
        place.try_to_write(http, &attachment.prefix).await?;
        Ok(Warnings::new())
    }

    async fn deliver(
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Outcome, Error> {
        let mut export = Export::default();
        let mut client = Client::new(http, &delivery.registration.place);
        let mut objects = Vec::new();
        let mut sources = export.sources(delivery).into_iter().peekable();
        while let Some(source) = sources.next() {
            let object = match export.take(host, delivery, source).await? {
                Taken::Object(object) => object,
                Taken::Done(receipt) => {
                    objects.push(receipt.clone());
                    continue;
                }
                Taken::Skipped => continue,
            };
            let created = client.put(host, &object).await?;
            let receipt = json!({
                "key": object.key,
                "digest": object.digest.to_string(),
                "size_bytes": object.content.size_bytes(),
                "created": created,
            });
            // The outcome records the last one.
            if sources.peek().is_some() {
                host.record(&object.key, receipt.clone()).await?;
            }
            objects.push(receipt);
        }
        Ok(export.outcome(delivery, objects))
    }

    async fn look_for(
        http: &Http,
        registration: &Registration,
        receipt: &Map<String, Value>,
    ) -> Result<Presence, Error> {
        let bucket = registration.bucket.as_str();
        let objects = receipt.get("objects").and_then(Value::as_array);
        let objects = objects.map(Vec::as_slice).unwrap_or_default();
        if objects.is_empty() {
            return Ok(Presence::unknown("the receipt names no object"));
        }
        if receipt.get("bucket").and_then(Value::as_str) != Some(bucket) {
            let reason = format!("the registration leads to the bucket {bucket} now");
            return Ok(Presence::unknown(reason));
        }
        let mut client = Client::new(http, &registration.place);
        for object in objects.iter().take(LOOKED_FOR) {
            let (key, wanted) = (object["key"].as_str(), object["size_bytes"].as_u64());
            let (Some(key), Some(wanted)) = (key, wanted) else {
                return Ok(Presence::unknown("the receipt names no object"));
            };
            match client.size_bytes(key).await? {
                Some(size_bytes) if size_bytes == wanted => {}
                Some(size_bytes) => {
                    let reason = format!("{key} has {size_bytes} bytes instead of {wanted}");
                    return Ok(Presence::gone(reason));
                }
                None => return Ok(Presence::gone(format!("{key} is not there"))),
            }
        }
        Ok(Presence::of_first(LOOKED_FOR, objects.len(), "objects"))
    }

    async fn preview(
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Vec<Preview>, Error> {
        let mut export = Export::default();
        let mut previews = Vec::new();
        for source in export.sources(delivery) {
            if let Taken::Object(object) = export.take(host, delivery, source).await? {
                let request = delivery.registration.place.request(&object)?;
                let target = request.uri().to_string();
                previews.push(crate::http::preview_of_content(host, &request, target).await?);
            }
        }
        Ok(previews)
    }
}

impl Place {
    /// Checks that the bucket exists and can be written to. No object stays behind.
    async fn check(&self, http: &Http) -> Result<(), Error> {
        match self {
            Self::S3(s3) => {
                s3.check_role(http).await?;
                s3.find(http).await?;
            }
            // Asking for the permission finds the bucket, too.
            Self::Gcs(_) => {}
            Self::Azure(azure) => azure.find(http).await?,
        }
        self.try_to_write(http, &Prefix::default()).await
    }

    async fn try_to_write(&self, http: &Http, prefix: &Prefix) -> Result<(), Error> {
        match self {
            Self::S3(s3) => s3.try_to_write(http, prefix).await,
            Self::Gcs(gcs) => gcs.try_to_write(http).await,
            Self::Azure(azure) => azure.try_to_write(http, prefix).await,
        }
    }

    /// The request as it goes out, but for what proves who we are.
    fn request<'a>(&self, object: &Object<'a>) -> Result<Request<Content<'a>>, Error> {
        match self {
            Self::S3(s3) => s3.request(None, object),
            Self::Gcs(gcs) => gcs.request(object),
            Self::Azure(azure) => azure.request(object),
        }
    }
}

/// Writes one delivery's objects, or looks for them.
struct Client<'a> {
    http: &'a Http,
    place: &'a Place,
    /// Token, where one is needed: fetched for the first object, kept for all.
    token: Option<SecretText>,
}

impl<'a> Client<'a> {
    fn new(http: &'a Http, place: &'a Place) -> Self {
        Self {
            http,
            place,
            token: None,
        }
    }

    /// Creates the object; `false` when it was there already, which by its key it was with the same bytes.
    ///
    /// A service may say so before a large object is sent, and end the connection, whereby its answer is lost: a
    /// repeat would always fare so. Where no answer came, the object is looked for.
    async fn put(&mut self, host: &dyn Host, object: &Object<'_>) -> Result<bool, Error> {
        match self.try_to_put(host, object).await {
            Err(Error {
                answer: None,
                kind: Kind::Retryable { .. } | Kind::Indeterminate,
                ..
            }) if self.has(object).await => Ok(false),
            result => result,
        }
    }

    /// Reports whether the object is known to exist. A key that may write but not read learns nothing.
    async fn has(&mut self, object: &Object<'_>) -> bool {
        match self.place {
            // Who may create objects there may often not read them.
            Place::Gcs(_) => false,
            Place::S3(_) | Place::Azure(_) => {
                matches!(self.size_bytes(&object.key).await, Ok(Some(_)))
            }
        }
    }

    /// Returns the size of an object; none when it is not there.
    async fn size_bytes(&mut self, key: &str) -> Result<Option<u64>, Error> {
        let http = self.http;
        match self.place {
            Place::S3(s3) => s3.size_bytes(http, key).await,
            Place::Gcs(gcs) => gcs.size_bytes(http, self.token(gcs).await?, key).await,
            Place::Azure(azure) => azure.size_bytes(http, key).await,
        }
    }

    async fn token(&mut self, gcs: &gcs::Gcs) -> Result<&SecretText, Error> {
        let token = match self.token.take() {
            Some(token) => token,
            None => gcs.token(self.http).await?,
        };
        Ok(self.token.insert(token))
    }

    async fn try_to_put(&mut self, host: &dyn Host, object: &Object<'_>) -> Result<bool, Error> {
        match self.place {
            Place::S3(s3) => s3.put(self.http, host, object).await,
            Place::Gcs(gcs) => {
                let http = self.http;
                gcs.put(http, host, self.token(gcs).await?, object).await
            }
            Place::Azure(azure) => azure.put(self.http, host, object).await,
        }
    }
}

/// Objects that one delivery has exported so far, and those that it left out.
#[derive(Debug, Default)]
struct Export {
    keys: BTreeSet<String>,
    /// (what, why)
    skipped: Vec<(String, String)>,
}

/// Source of an object.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    Statement,
    Provenance,
    Sbom(&'a Material),
}

/// Result of taking a source.
#[derive(Debug)]
enum Taken<'a> {
    Object(Object<'a>),
    /// By an earlier attempt, which has this receipt.
    Done(&'a Value),
    Skipped,
}

#[derive(Debug)]
struct Object<'a> {
    key: String,
    digest: Digest,
    content: Content<'a>,
    /// Names and values of user metadata, without `x-amz-meta-`.
    metadata: Vec<(&'static str, String)>,
}

impl Source<'_> {
    fn key(self, prefix: &Prefix, digest: &Digest) -> String {
        let (prefix, hex) = (prefix.as_str(), digest.hex());
        match self {
            Source::Statement => format!("{prefix}/attestations/{hex}.intoto.json"),
            Source::Provenance => format!("{prefix}/provenance/{hex}.slsa.json"),
            Source::Sbom(material) if material.kind == MaterialType::SBOM_SPDX_JSON => {
                format!("{prefix}/sboms/{hex}.spdx.json")
            }
            Source::Sbom(_) => format!("{prefix}/sboms/{hex}.cdx.json"),
        }
    }

    fn name(&self) -> &str {
        match self {
            Source::Statement => "attestation",
            Source::Provenance => "provenance",
            Source::Sbom(material) => &material.name,
        }
    }
}

impl Export {
    fn sources<'a>(&mut self, delivery: &Delivery<'a, Guac>) -> Vec<Source<'a>> {
        let mut sources = Vec::new();
        match unwanted(delivery) {
            Some(reason) => self.skip(Source::Statement, reason),
            None => sources.push(Source::Statement),
        }
        if delivery.attachment.provenance {
            sources.push(Source::Provenance);
        }
        sources.extend(delivery.materials.iter().map(Source::Sbom));
        sources
    }

    async fn take<'a>(
        &mut self,
        host: &dyn Host,
        delivery: &Delivery<'a, Guac>,
        source: Source<'a>,
    ) -> Result<Taken<'a>, Error> {
        let prefix = &delivery.attachment.prefix;
        // Where the digest is known, what is done already need not be looked for.
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
        let content = match source {
            Source::Statement => delivery.pushed.attestation.envelope.payload.clone().into(),
            Source::Provenance => match provenance::derive(delivery.pushed.attestation) {
                Ok(statement) => statement.into(),
                Err(reason) => {
                    self.skip(source, reason.to_owned());
                    return Ok(Taken::Skipped);
                }
            },
            Source::Sbom(material) => {
                let content = Content::default();
                let content = content.material(host, material, Encoding::Plain).await?;
                if let Some(fault) = shape::fault(host, &material.kind, &content).await? {
                    self.skip(source, format!("is {fault}, which GUAC fails on"));
                    return Ok(Taken::Skipped);
                }
                content
            }
        };
        let digest = match source {
            Source::Sbom(Material {
                digest: Some(digest),
                ..
            }) => *digest,
            _ => content.digest(host).await?,
        };
        let key = source.key(prefix, &digest);
        if let Some(receipt) = delivery.progress.get(&key) {
            return Ok(self.once(source, key, Taken::Done(receipt)));
        }
        let metadata = metadata(delivery, &digest, source);
        let object = Object {
            key: key.clone(),
            digest,
            content,
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
    let predicate_type = &delivery.pushed.attestation.statement.predicate_type;
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
        Source::Statement | Source::Provenance => "",
        Source::Sbom(material) => &material.name,
    };
    let source = match source {
        Source::Statement | Source::Provenance => delivery.pushed.attestation.hash.to_string(),
        Source::Sbom(_) => String::new(),
    };
    let run = delivery
        .pushed
        .attestation
        .predicate()
        .map(|predicate| &predicate.metadata.workflow_run_id);
    let judged = delivery.pushed.judged();
    let signatures = judged
        .map(|verdict| verdict.outcome.to_string())
        .unwrap_or_default();
    [
        ("digest", digest.to_string().as_str()),
        ("material", material),
        ("project", &delivery.pushed.workflow.project),
        ("run", run.map_or("", String::as_str)),
        ("signature-verdict", signatures.as_str()),
        ("source", &source),
        ("workflow", &delivery.pushed.workflow.name),
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

/// The key of a check's object, which is not there and does not come into being.
fn check_key(prefix: &Prefix, now: u64) -> String {
    format!("{}/sboms/check-{now}.json", prefix.as_str())
}

/// Reads the size that a response to HEAD tells.
fn size_of(response: &Response, doing: &str) -> Result<u64, Error> {
    let size = response.headers.get(CONTENT_LENGTH);
    let size = size.and_then(|size| size.to_str().ok()?.parse().ok());
    let untold = || Error::permanent(format!("{doing}: the response has no size"));
    size.ok_or_else(untold)
}

/// Says what was being done when no answer came.
fn during(doing: &str) -> impl FnOnce(Error) -> Error {
    move |error| Error {
        text: format!("{doing}: {}", error.text),
        ..error
    }
}

fn invalid(error: http::Error) -> Error {
    Error::permanent("build the bucket's request").source(error)
}

/// Adds the service's own code to the text, and returns the kind by which it would be tried again.
fn explain(error: &mut Error, code: Option<&str>) -> Kind {
    if let Some(code) = code {
        let _ = write!(error.text, " ({code})");
    }
    match error.kind {
        Kind::Retryable { after } => Kind::Retryable { after },
        _ => Kind::Retryable { after: None },
    }
}

/// `<Code>` of an error document of S3 or Azure.
fn code(response: &Response) -> Option<&str> {
    let body = std::str::from_utf8(&response.body).ok()?;
    let (_, rest) = body.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    (code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(code)
}

#[cfg(test)]
mod tests {
    use api::trust::Code;

    use super::fixture::{S3, answered, attachment, deliver, receipt, registration};
    use super::*;
    use crate::fixture::{self, Peer, Stage};

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
        // The outcome records the last one.
        assert_eq!(stage.recorded().len(), 1);
    }

    #[tokio::test]
    async fn an_object_is_looked_for_where_no_answer_came() {
        let found = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let gone = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let s3 = |party: &Peer| registration(&party.origin);
        let azure = |party: &Peer| {
            serde_json::from_value(json!({
                "provider": "azure", "account": "shop", "bucket": "sboms",
                "endpoint": party.origin, "credentials": "a2V5LW9mLWFuLWFjY291bnQ=",
            }))
            .unwrap()
        };
        for registration in [&s3 as &dyn Fn(&Peer) -> Registration, &azure] {
            let (outcome, received) = answered(registration, &["", found]).await;
            let objects = &receipt(outcome.unwrap())["objects"];
            assert_eq!(objects[0]["created"], false);
            let methods: Vec<_> = received.iter().map(|one| one.method.as_str()).collect();
            assert_eq!(methods, ["PUT", "HEAD"]);
            assert_eq!(received[0].target, received[1].target);
            // It may have arrived, and nobody says whether.
            for answers in [&["", gone][..], &["", ""], &[""]] {
                let (outcome, _) = answered(registration, answers).await;
                assert_eq!(outcome.unwrap_err().kind, Kind::Indeterminate);
            }
        }
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
    async fn all_exports_the_statement_byte_for_byte_and_names_its_envelope() {
        let s3 = S3::start("statement").await;
        let stage = Stage::new();
        let attachment = attachment(json!({ "attestations": "all" }));
        deliver(&stage, &s3.registration(), &attachment)
            .await
            .unwrap();
        let statement = &stage.attestation.envelope.payload;
        let digest = Digest::of(statement);
        let key = format!("chainloop/attestations/{}.intoto.json", digest.hex());
        let objects = s3.objects();
        let (_, bytes) = objects.iter().find(|(found, _)| *found == key).unwrap();
        assert_eq!(bytes, statement);
        let registration = s3.registration();
        let delivery = stage.delivery::<Guac>(&registration, &attachment);
        let metadata = metadata(&delivery, &digest, Source::Statement);
        let envelope = ("source", stage.attestation.hash.to_string());
        assert!(metadata.contains(&envelope), "{metadata:?}");
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
        assert_eq!(s3.objects().len(), 1);
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
    async fn an_sbom_that_is_not_json_is_left_out_and_a_missing_one_is_named() {
        let s3 = S3::start("empty").await;
        let mut stage = Stage::new();
        stage.missing = vec![stage.materials.remove(1)];
        let kind = MaterialType::SBOM_CYCLONEDX_JSON;
        stage.materials = vec![Material::inline("sbom", kind, "s", b"<bom/>".to_vec())];
        let outcome = deliver(&stage, &s3.registration(), &attachment(json!({})))
            .await
            .unwrap();
        let Outcome::Skipped(reason) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(
            reason,
            "attestation: GUAC cannot read attestations of type chainloop.dev/attestation/v0.2; \
             sbom: is not JSON, at line 1, column 1, which GUAC fails on; packages: never came"
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

    #[test]
    fn the_verdict_on_signatures_is_metadata_where_there_is_one() {
        let (registration, attachment) =
            (registration("http://127.0.0.1:1"), attachment(json!({})));
        let of = |stage: &Stage| {
            let delivery = stage.delivery::<Guac>(&registration, &attachment);
            let all = metadata(&delivery, &stage.attestation.hash, Source::Statement);
            all.into_iter()
                .find(|(name, _)| *name == "signature-verdict")
        };
        let verified = of(&Stage::new().judged(Code::ThresholdReached));
        assert_eq!(verified.unwrap().1, "verified");
        assert_eq!(of(&Stage::new()), None);
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
}
