//! Reads what a Chainloop control plane forwards when it is told to post its attestations to a URL: one body
//! for the attestation, one for each SBOM that it was asked to send along, and one that asks whether anybody is
//! there.
//!
//! Chainloop signs none of these bodies. Of an attestation's body only the envelope counts, since that alone is
//! signed: `Hash`, `Statement` and `Predicate` stand beside it for convenience, and whoever believed them could
//! be told one thing while the signature covers another. So they are not read.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::clip_at;
use crate::json::{Bytes, Object, Text, owned};
use crate::scan::{self, Unfit};
use crate::{Digest, MAX_DEPTH, MaterialType, base64};

/// Forwarded body, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// Asks whether anybody is there.
    Test,
    Attestation {
        /// The JSON of the DSSE envelope, as it was written. Not read yet.
        envelope: Vec<u8>,
        origin: Origin,
        /// Digest of the bundle in the control plane's store, as Chainloop says beside what is signed. Older runs have that of
        /// an envelope.
        bundle: Option<Digest>,
    },
    /// An SBOM's bytes. Nothing says to which attestation they belong but their digest.
    Material {
        kind: MaterialType,
        content: Vec<u8>,
    },
}

/// The workflow that it comes from, as Chainloop says beside what is signed. What is not said is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub id: String,
    pub name: String,
    pub project: String,
}

/// Why a body is none of these. Each text completes "failed to …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    #[error("read what was forwarded: {0}")]
    Malformed(&'static str),
    #[error(
        "read what was forwarded: its Kind {0:?} is none of ATTESTATION, SBOM_CYCLONEDX_JSON, SBOM_SPDX_JSON \
         and TEST_WEBHOOK"
    )]
    Kind(String),
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, rename = "Metadata")]
    metadata: Option<Object<Metadata<'a>>>,
    #[serde(borrow, rename = "Data")]
    data: Option<Bytes<'a>>,
    #[serde(borrow, rename = "Kind")]
    kind: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, rename = "Workflow")]
    workflow: Option<Object<Workflow<'a>>>,
    #[serde(borrow, rename = "WorkflowRun")]
    run: Option<Object<Run<'a>>>,
}

#[derive(Deserialize)]
struct Run<'a> {
    #[serde(borrow, rename = "AttestationDigest")]
    bundle: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Workflow<'a> {
    #[serde(borrow, rename = "ID")]
    id: Option<Text<'a>>,
    #[serde(borrow, rename = "Name")]
    name: Option<Text<'a>>,
    #[serde(borrow, rename = "Project")]
    project: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, rename = "Envelope")]
    envelope: Option<&'a RawValue>,
}

impl Forwarded {
    /// Reads a body. The envelope inside is taken as it stands.
    pub fn parse(body: &[u8]) -> Result<Self, Unknown> {
        let wire: Wire<'_> = read(body, "the body is not the JSON object that Chainloop sends")?;
        let kind = wire
            .kind
            .as_deref()
            .ok_or(Unknown::Malformed("it has no Kind"))?;
        let (origin, bundle) = wire
            .metadata
            .map(|Object(metadata)| beside(metadata))
            .unwrap_or_default();
        match kind {
            "TEST_WEBHOOK" => Ok(Self::Test),
            "ATTESTATION" => {
                let data = data(wire.data)?;
                let inner: Data<'_> = read(&data, "its Data is not a JSON object")?;
                let envelope = inner
                    .envelope
                    .ok_or(Unknown::Malformed("its Data has no Envelope"))?;
                Ok(Self::Attestation {
                    envelope: envelope.get().as_bytes().to_vec(),
                    origin,
                    bundle,
                })
            }
            "SBOM_CYCLONEDX_JSON" | "SBOM_SPDX_JSON" => Ok(Self::Material {
                kind: MaterialType::from(kind),
                content: data(wire.data)?,
            }),
            other => Err(Unknown::Kind(clip_at(other, 64))),
        }
    }
}

/// An object of a bounded depth.
fn read<'a, T: Deserialize<'a>>(json: &'a [u8], otherwise: &'static str) -> Result<T, Unknown> {
    scan::check(json, MAX_DEPTH).map_err(|unfit| {
        Unknown::Malformed(match unfit {
            Unfit::TooDeep => "its JSON nests too deep",
            Unfit::NotUtf8 => otherwise,
        })
    })?;
    let Object(read) = serde_json::from_slice(json).map_err(|_| Unknown::Malformed(otherwise))?;
    Ok(read)
}

fn data(text: Option<Bytes<'_>>) -> Result<Vec<u8>, Unknown> {
    let text = text.ok_or(Unknown::Malformed("it has no Data"))?;
    let bytes = base64::decode(&text).ok_or(Unknown::Malformed("its Data is not base64"))?;
    if bytes.is_empty() {
        return Err(Unknown::Malformed("its Data is empty"));
    }
    Ok(bytes)
}

fn beside(metadata: Metadata<'_>) -> (Origin, Option<Digest>) {
    let run = metadata.run.and_then(|Object(run)| run.bundle);
    let bundle = run.and_then(|digest| digest.parse().ok());
    let Some(Object(workflow)) = metadata.workflow else {
        return (Origin::default(), bundle);
    };
    let origin = Origin {
        id: owned(workflow.id),
        name: owned(workflow.name),
        project: owned(workflow.project),
    };
    (origin, bundle)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{Attestation, Envelope, Metadata, Predicate, compose};

    fn envelope() -> Envelope {
        let predicate = Predicate {
            metadata: Metadata {
                name: "nightly".into(),
                workflow_name: "nightly".into(),
                project: "shop".into(),
                ..Metadata::default()
            },
            ..Predicate::default()
        };
        compose::envelope(compose::statement(&predicate, &[]), "", |bytes| {
            bytes[..32].to_vec()
        })
    }

    /// As Chainloop writes it, apart from what it does not read.
    fn body(kind: &str, data: &[u8]) -> Value {
        json!({
            "Metadata": {
                "Workflow": { "ID": "wf-1", "Name": "nightly", "Team": "", "Project": "shop" },
                "WorkflowRun": {
                    "ID": "run-1", "State": "success", "StartedAt": "2026-01-02T03:05:00Z",
                    "FinishedAt": "0001-01-01T00:00:00Z", "RunnerType": "GITHUB_ACTION", "RunURL": "",
                    "AttestationDigest": Digest::of(b"bundle"),
                },
            },
            "Data": base64::encode(data),
            "Kind": kind,
        })
    }

    fn attestation() -> Value {
        let compact = String::from_utf8(envelope().compact()).unwrap();
        let data = format!(
            r#"{{"Envelope":{compact},"Hash":"sha256:00","Statement":{{"predicate_type":"x"}},"Predicate":{{}}}}"#
        );
        body("ATTESTATION", data.as_bytes())
    }

    fn parse(body: &Value) -> Result<Forwarded, Unknown> {
        Forwarded::parse(body.to_string().as_bytes())
    }

    #[test]
    fn the_envelope_comes_out_as_it_was_written_and_is_the_same_attestation() {
        let Forwarded::Attestation {
            envelope: bytes,
            origin,
            bundle,
        } = parse(&attestation()).unwrap()
        else {
            panic!("it is an attestation")
        };
        assert_eq!(bytes, envelope().compact());
        let parsed = Attestation::parse(&bytes).unwrap();
        assert_eq!(parsed.hash, envelope().hash());
        assert_eq!(parsed.received, Digest::of(&envelope().compact()));
        let expected = ("wf-1", "nightly", "shop");
        let origin = (&*origin.id, &*origin.name, &*origin.project);
        assert_eq!(origin, expected);
        assert_eq!(bundle, Some(Digest::of(b"bundle")));
    }

    #[test]
    fn a_bundle_whose_digest_is_none_is_not_named() {
        for digest in [json!("sha256:00"), json!(""), json!(null)] {
            let mut body = attestation();
            body["Metadata"]["WorkflowRun"]["AttestationDigest"] = digest;
            let Ok(Forwarded::Attestation { bundle, origin, .. }) = parse(&body) else {
                panic!("{body}")
            };
            assert_eq!((bundle, &*origin.name), (None, "nightly"));
        }
    }

    #[test]
    fn an_sbom_is_its_bytes() {
        for kind in ["SBOM_CYCLONEDX_JSON", "SBOM_SPDX_JSON"] {
            let forwarded = parse(&body(kind, b"{ \"a\": 1 }\n")).unwrap();
            let expected = Forwarded::Material {
                kind: MaterialType::from(kind),
                content: b"{ \"a\": 1 }\n".to_vec(),
            };
            assert_eq!(forwarded, expected);
        }
    }

    #[test]
    fn a_test_needs_no_data() {
        assert_eq!(parse(&body("TEST_WEBHOOK", b"{}")), Ok(Forwarded::Test));
        let bare = json!({ "Kind": "TEST_WEBHOOK" });
        assert_eq!(parse(&bare), Ok(Forwarded::Test));
    }

    #[test]
    fn another_kind_is_named_and_cut() {
        let error = parse(&body("SARIF", b"{}")).unwrap_err();
        assert!(error.to_string().contains("its Kind \"SARIF\""), "{error}");
        let error = parse(&body(&"x".repeat(10_000), b"{}")).unwrap_err();
        assert!(error.to_string().len() < 400, "{error}");
    }

    #[test]
    fn where_the_workflow_is_not_said_it_is_empty() {
        for metadata in [json!(null), json!({}), json!({ "Workflow": null })] {
            let mut body = attestation();
            body["Metadata"] = metadata;
            let Ok(Forwarded::Attestation { origin, .. }) = parse(&body) else {
                panic!("{body}")
            };
            assert_eq!(origin, Origin::default());
        }
    }

    #[test]
    fn what_is_not_such_a_body_is_malformed() {
        let with = |key: &str, value: Value| {
            let mut body = attestation();
            body[key] = value;
            body.to_string()
        };
        let encoded = |data: &str| with("Data", base64::encode(data.as_bytes()).into());
        let deep = "[".repeat(100) + &"]".repeat(100);
        for (body, why) in [
            (String::new(), "the body is not"),
            ("[]".into(), "the body is not"),
            (r#"["x","e30=","ATTESTATION"]"#.into(), "the body is not"),
            (r#"{"Kind":"TEST_WEBHOOK""#.into(), "the body is not"),
            (
                r#"{"Kind":"TEST_WEBHOOK","Kind":"ATTESTATION"}"#.into(),
                "the body is not",
            ),
            ("{}".into(), "it has no Kind"),
            (with("Kind", json!(1)), "the body is not"),
            (with("Data", json!(null)), "it has no Data"),
            (with("Data", json!("*")), "its Data is not base64"),
            (with("Data", json!("")), "its Data is empty"),
            (encoded("x"), "its Data is not a JSON object"),
            (encoded("[1]"), "its Data is not a JSON object"),
            (encoded("{}"), "its Data has no Envelope"),
            (encoded(r#"{"Envelope":null}"#), "its Data has no Envelope"),
            (
                encoded(r#"{"Envelope":{},"Envelope":{}}"#),
                "its Data is not a JSON object",
            ),
            (encoded(&deep), "its JSON nests too deep"),
            (format!(r#"{{"x":{deep}}}"#), "its JSON nests too deep"),
        ] {
            let error = Forwarded::parse(body.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(why), "{body}: {error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Forwarded::parse(&bytes);
        }

        /// Whatever one byte becomes: it is refused, or the envelope that comes out is read on its own merits.
        #[test]
        fn a_changed_body_is_refused_or_read(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = attestation().to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(Forwarded::Attestation { envelope, .. }) = Forwarded::parse(&bytes) {
                let _ = Attestation::parse(&envelope);
            }
        }

        #[test]
        fn data_comes_out_as_it_was(content in proptest::collection::vec(any::<u8>(), 1..512)) {
            let Ok(Forwarded::Material { content: read, .. }) = parse(&body("SBOM_SPDX_JSON", &content)) else {
                panic!("it is an SBOM")
            };
            prop_assert_eq!(read, content);
        }

        /// The envelope's own spelling does not matter: spaces and other keys are left as they are.
        #[test]
        fn any_object_comes_out_byte_for_byte(key in "[a-z]{1,8}", value in any::<i32>(), space in " {0,3}") {
            let envelope = format!("{{{space}\"{key}\":{space}{value}}}");
            let data = format!(r#"{{"Hash":"x","Envelope":{envelope}}}"#);
            let Ok(Forwarded::Attestation { envelope: read, .. }) = parse(&body("ATTESTATION", data.as_bytes()))
            else {
                panic!("{data}")
            };
            prop_assert_eq!(read, envelope.into_bytes());
        }
    }
}
