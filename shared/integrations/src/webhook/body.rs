//! Bodies of requests: Chainloop's own object, and the same as a CloudEvent.

use api::trust::Outcome;
use attestation::{Attestation, Material, MaterialType};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::Webhook;
use crate::{Content, Delivery, Encoding, Error, Host, Pushed};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Chainloop,
    CloudEvents,
}

impl Format {
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Chainloop => "application/json",
            Self::CloudEvents => "application/cloudevents+json; charset=utf-8",
        }
    }
}

/// Returns the body of the attestation, or of one of its materials.
pub(super) async fn content<'a>(
    host: &dyn Host,
    delivery: &Delivery<'a, Webhook>,
    material: Option<&'a Material>,
    id: &str,
) -> Result<Content<'a>, Error> {
    let metadata = metadata(delivery);
    if delivery.registration.format == Format::CloudEvents {
        return event(host, delivery, material, &metadata, id).await;
    }
    let kind = material.map_or("ATTESTATION", |material| material.kind.as_str());
    let (begin, end) = around(&metadata, kind);
    let content = match material {
        None => {
            let data = base64_simd::STANDARD.encode_to_string(data(delivery.pushed.attestation)?);
            Content::from(begin + &data)
        }
        Some(material) => {
            let begin = Content::from(begin);
            begin.material(host, material, Encoding::Base64).await?
        }
    };
    Ok(content.bytes(end))
}

/// The same as a CloudEvent: an attestation as JSON in it, and an SBOM, which could be anything, in base64.
async fn event<'a>(
    host: &dyn Host,
    delivery: &Delivery<'_, Webhook>,
    material: Option<&'a Material>,
    metadata: &Metadata<'_>,
    id: &str,
) -> Result<Content<'a>, Error> {
    let pushed = delivery.pushed;
    let attestation = pushed.attestation;
    let verdict = pushed.judged().map(|verdict| verdict.outcome);
    let Some(material) = material else {
        let kind = "dev.chainloop.attestation.v1";
        let digest = attestation.received.to_string();
        let data = String::from_utf8(data(attestation)?)
            .map_err(|error| Error::permanent("write the event's data").source(error))?;
        let mut event = Event::new(id, kind, metadata, &digest, "application/json");
        event.registration = Some(delivery.registration_name);
        event.signatureverdict = verdict;
        return Ok(event.around("data", &data).into());
    };
    let kind = "dev.chainloop.material.v1";
    let media_type = if material.kind == MaterialType::SBOM_SPDX_JSON {
        "application/spdx+json"
    } else {
        "application/vnd.cyclonedx+json"
    };
    let mut event = Event::new(id, kind, metadata, &material.name, media_type);
    event.materialtype = Some(material.kind.as_str());
    event.registration = Some(delivery.registration_name);
    event.signatureverdict = verdict;
    let content = Content::from(event.before("data_base64") + "\"")
        .material(host, material, Encoding::Base64)
        .await?;
    Ok(content.bytes("\"}"))
}

/// Returns the body of a test, which receivers know to ignore.
pub(super) fn test(format: Format, id: &str) -> Bytes {
    let metadata = Metadata {
        workflow: WorkflowMetadata {
            name: "test-webhook-workflow",
            ..WorkflowMetadata::default()
        },
        workflow_run: RunMetadata {
            id: "test-webhook-run",
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

/// Encodes all but unreserved characters (RFC 3986, section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The attributes of a CloudEvent, those of our own at the end. Of these, the registration's name alone can
/// change between two attempts.
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
    time: Option<String>,
    datacontenttype: &'static str,
    project: &'a str,
    workflow: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    registration: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    materialtype: Option<&'a str>,
    attestationdigest: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    signatureverdict: Option<Outcome>,
}

impl<'a> Event<'a> {
    fn new(
        id: &'a str,
        kind: &'static str,
        metadata: &'a Metadata<'_>,
        subject: &'a str,
        media_type: &'static str,
    ) -> Self {
        let (workflow, run) = (&metadata.workflow, &metadata.workflow_run);
        let segment = |text| utf8_percent_encode(text, SEGMENT);
        let (project, name) = (segment(workflow.project), segment(workflow.name));
        Self {
            specversion: "1.0",
            id,
            source: format!("chainloop/{project}/{name}"),
            r#type: kind,
            subject,
            time: time(run.finished_at),
            datacontenttype: media_type,
            project: workflow.project,
            workflow: workflow.name,
            registration: None,
            materialtype: None,
            attestationdigest: &run.attestation_digest,
            signatureverdict: None,
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

/// Returns the text before and after the data's base64 in a body of Chainloop's webhook: three keys in this order.
fn around(metadata: &Metadata<'_>, kind: &str) -> (String, String) {
    let metadata = serde_json::to_string(metadata).expect("strings alone");
    (
        format!(r#"{{"Metadata":{metadata},"Data":""#),
        format!(r#"","Kind":"{kind}"}}"#),
    )
}

/// Chainloop's metadata, with its keys and in its order. What an attestation does not say is empty.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata<'a> {
    workflow: WorkflowMetadata<'a>,
    workflow_run: RunMetadata<'a>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct WorkflowMetadata<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    team: &'a str,
    project: &'a str,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RunMetadata<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    state: &'a str,
    #[serde(serialize_with = "go_time")]
    started_at: &'a str,
    #[serde(serialize_with = "go_time")]
    finished_at: &'a str,
    runner_type: &'a str,
    #[serde(rename = "RunURL")]
    run_url: &'a str,
    attestation_digest: String,
}

fn metadata<'a>(delivery: &Delivery<'a, Webhook>) -> Metadata<'a> {
    let Pushed {
        attestation,
        workflow,
        ..
    } = delivery.pushed;
    let mut metadata = Metadata {
        workflow: WorkflowMetadata {
            id: &workflow.id,
            name: &workflow.name,
            team: "",
            project: &workflow.project,
        },
        workflow_run: RunMetadata {
            // Only runs that succeeded have an attestation.
            state: "success",
            attestation_digest: attestation.received.to_string(),
            ..RunMetadata::default()
        },
    };
    if let Some(predicate) = attestation.predicate() {
        let (about, run) = (&predicate.metadata, &mut metadata.workflow_run);
        metadata.workflow = WorkflowMetadata {
            id: &about.workflow_id,
            name: about.workflow(),
            team: &about.team,
            project: &about.project,
        };
        run.id = &about.workflow_run_id;
        run.started_at = &about.initialized_at;
        run.finished_at = &about.finished_at;
        run.runner_type = &predicate.runner_type;
        run.run_url = &predicate.runner_url;
    }
    metadata
}

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Writes RFC 3339 as Go reads it: a receiver's `time.Time` fails on anything else, on an empty text too.
fn go_time<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(time(text).as_deref().unwrap_or(NEVER))
}

fn time(text: &str) -> Option<String> {
    let time = text.parse::<jiff::Timestamp>().ok()?.to_string();
    Some(time).filter(|time| time != NEVER)
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
    #[serde(borrow, alias = "_type", skip_serializing_if = "Option::is_none")]
    r#type: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    subject: Option<Vec<Descriptor<'a>>>,
    #[serde(
        borrow,
        alias = "predicateType",
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
        alias = "downloadLocation",
        skip_serializing_if = "Option::is_none"
    )]
    download_location: Option<&'a RawValue>,
    #[serde(borrow, alias = "mediaType", skip_serializing_if = "Option::is_none")]
    media_type: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_source_is_a_path_that_is_encoded_as_one() {
        for (project, name, source) in [
            ("my shop", "a/b", "chainloop/my%20shop/a%2Fb"),
            ("shop+1", "é?#%", "chainloop/shop%2B1/%C3%A9%3F%23%25"),
            ("a-b._~", "x:y", "chainloop/a-b._~/x%3Ay"),
        ] {
            let mut metadata = Metadata::default();
            metadata.workflow.project = project;
            metadata.workflow.name = name;
            let event = Event::new("id", "kind", &metadata, "subject", "application/json");
            assert_eq!(event.source, source);
            let url = url::Url::parse("https://example.org/").unwrap();
            assert_eq!(url.join(source).unwrap().path(), format!("/{source}"));
        }
    }
}
