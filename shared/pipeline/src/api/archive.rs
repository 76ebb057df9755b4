//! Attestations that were accepted: listed, described with all that is known of them, and handed out again as they
//! were received.

use std::collections::BTreeMap;

use attestation::{Digest, Form};
use futures_util::future::try_join_all;
use integrations::Workflow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::deliveries::Delivery;
use super::openapi::{self, Operation, operation};
use super::{Action, Caller, Page, Problem, Request, Response};
use crate::clock::Timestamp;
use crate::platform::{Download, Platform, Unreachable};
use crate::rows::{self, Actor};
use crate::{attestations, audit_log, deliveries};

/// Subjects that are told of one attestation, at most.
const SUBJECTS: usize = 100;
/// Materials that are told of one attestation in one answer: the bucket is asked for each.
const MATERIALS: usize = 100;
/// The largest `materials_from`: more materials than an attestation has.
const MATERIALS_FROM_MOST: usize = 1_000_000;
/// Deliveries that are told of one attestation, at most: the newest.
const DELIVERIES: usize = 100;
/// Characters of a material's value that are told: it may be a text of megabytes.
const VALUE_CHARS: usize = 300;

/// An attestation as a list has it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Attestation {
    /// The envelope's hash, by which it is known.
    pub attestation: Digest,
    /// Of the bytes that were received first, which are what is delivered.
    pub received: Digest,
    pub size_bytes: u64,
    pub workflow: Workflow,
    pub run: String,
    pub predicate_type: String,
    /// The one who sent it first, and from where; none when that is not known, or not for whoever asks.
    #[serde(default)]
    pub pushed_by: Option<Actor>,
    pub created_at: Timestamp,
}

/// What `GET /v1/attestations/{digest}` answers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DescribedAttestation")]
pub struct Described {
    #[serde(flatten)]
    pub attestation: Attestation,
    /// Digests of other bytes that hold the same envelope and came later.
    pub also: Vec<Digest>,
    /// Whether the bytes are there, and are those that were received.
    pub bytes: Bytes,
    /// What the bytes say; none when they are not there.
    pub contents: Option<Contents>,
    /// The newest hundred.
    pub deliveries: Vec<Delivery>,
    /// There are more.
    pub more_deliveries: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "AttestationBytes")]
pub enum Bytes {
    Kept,
    Gone,
    /// They do not have their digest.
    Damaged,
}

/// What an attestation says.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AttestationContents")]
pub struct Contents {
    /// `envelope` or `bundle`.
    pub form: String,
    /// Ids of the keys that signed it, as it names them; nobody has checked them.
    pub key_ids: Vec<String>,
    /// The first hundred.
    pub subjects: Vec<Subject>,
    pub subjects_total: usize,
    /// A hundred of them, the first ones unless `materials_from` says otherwise.
    pub materials: Vec<Material>,
    #[serde(default)]
    pub materials_total: usize,
    /// Entries of its list that are no materials by Chainloop's rules.
    pub materials_dropped: usize,
    /// None where the predicate is not Chainloop's.
    pub policy: Option<Policy>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    pub name: String,
    /// Algorithm to digest.
    pub digests: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Material {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub filename: String,
    /// The beginning of it.
    pub value: String,
    pub digest: Option<Digest>,
    pub size_bytes: Option<u64>,
    pub place: Place,
}

/// Where a material's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "MaterialPlace")]
pub enum Place {
    /// In the attestation itself.
    Inline,
    /// They were uploaded, and are there.
    Uploaded,
    /// They were promised, and are not there.
    Missing,
    /// Nobody promised them: an image in its registry, a file that was not uploaded.
    Elsewhere,
}

/// What the policies found.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PolicyResult")]
pub struct Policy {
    /// `PASSED`, `WARNING`, `BLOCKED` …: Chainloop's own words.
    pub status: String,
    pub evaluations: u64,
    pub violations: u64,
    pub skipped: u64,
    pub passed: u64,
    pub suppressed: u64,
    /// The first fifty, where the attestation itself has them.
    pub found: Vec<Violation>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PolicyViolation")]
pub struct Violation {
    pub policy: String,
    /// The material's name; empty where the attestation itself was looked at.
    pub material: String,
    pub message: String,
}

/// What `GET /v1/attestations/{digest}/content` and `GET /v1/materials/{digest}` answer: where the bytes are to be
/// had, for a quarter of an hour.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Content {
    /// What the bytes must have.
    pub digest: Digest,
    pub size_bytes: u64,
    pub download: Download,
}

impl From<rows::Attestation> for Attestation {
    fn from(row: rows::Attestation) -> Self {
        Self {
            attestation: row.hash,
            received: row.received,
            size_bytes: row.size_bytes,
            workflow: row.workflow,
            run: row.run,
            predicate_type: row.predicate_type,
            pushed_by: row.pushed_by,
            created_at: row.created_at,
        }
    }
}

impl From<&attestation::Policy> for Policy {
    fn from(policy: &attestation::Policy) -> Self {
        let found = policy.found.iter().map(|found| Violation {
            policy: found.policy.clone(),
            material: found.material.clone(),
            message: found.message.clone(),
        });
        Self {
            status: policy.status().to_string(),
            evaluations: policy.evaluations,
            violations: policy.violations,
            skipped: policy.skipped,
            passed: policy.passed,
            suppressed: policy.suppressed,
            found: found.collect(),
        }
    }
}

/// What the routes take and answer, for the API's description.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        operation(
            "GET /v1/attestations",
            "listAttestations",
            "List attestations that were accepted",
        )
        .about(
            "Newest first. A page holds all of a moment, and so may have some more \
                 items than its limit.",
        )
        .query("workflow", openapi::WORKFLOW, openapi::text())
        .query("project", openapi::PROJECT, openapi::text())
        .query(
            "since",
            "Accepted at this time or later.",
            json!({ "type": "string", "format": "date-time" }),
        )
        .pages::<Attestation>(),
        operation(
            "GET /v1/attestations/{digest}",
            "getAttestation",
            "Get an attestation, what it says and what became of it",
        )
        .about("By the envelope's digest, or by that of the bytes as they were received.")
        .query(
            "materials_from",
            "How many materials are left out before the hundred that are told.",
            json!({ "type": "integer", "minimum": 0, "maximum": MATERIALS_FROM_MOST, "default": 0 }),
        )
        .answers::<Described>(200, "The attestation")
        .refuses(&["invalid-inputs"]),
        operation(
            "GET /v1/attestations/{digest}/content",
            "downloadAttestation",
            "Get where an attestation's bytes are to be had",
        )
        .answers::<Content>(200, "A presigned address, for a quarter of an hour")
        .refuses(&["invalid-inputs"]),
        operation(
            "GET /v1/materials/{digest}",
            "downloadMaterial",
            "Get where a material's bytes are to be had",
        )
        .answers::<Content>(200, "A presigned address, for a quarter of an hour")
        .refuses(&["invalid-inputs"]),
    ]
}

pub(super) async fn function<P: Platform>(
    platform: &P,
    caller: &Caller,
    request: &Request,
) -> Result<Response, Problem> {
    let organization = &caller.organization;
    match request.route.as_str() {
        "GET /v1/attestations" => list(platform, organization, request).await,
        "GET /v1/attestations/{digest}" => {
            let row = find(platform, organization, request).await?;
            let from = materials_from(request)?;
            let described = describe(platform, caller, row, from).await?;
            Ok(Response::json(200, &described))
        }
        "GET /v1/attestations/{digest}/content" => {
            let row = find(platform, organization, request).await?;
            let what = "the bytes of the attestation";
            let name = audit_log::workflow(&row.workflow);
            let subject = audit_log::Subject::new(name, row.hash.to_string());
            content(platform, caller, row.received, what, subject).await
        }
        "GET /v1/materials/{digest}" => {
            let digest = digest(request)?;
            let what = "a material with this digest";
            let subject = audit_log::Subject::new(digest.to_string(), digest.to_string());
            content(platform, caller, digest, what, subject).await
        }
        other => Err(Problem::not_found(format!("no route {other}"))),
    }
}

pub(super) fn digest(request: &Request) -> Result<Digest, Problem> {
    let digest = request.parameter("digest").parse();
    digest.map_err(|_| Problem::field("digest", "must be sha256:<64 hexadecimal digits>"))
}

fn materials_from(request: &Request) -> Result<usize, Problem> {
    let from = request.query("materials_from").unwrap_or("0").parse();
    let from = from.ok().filter(|from| *from <= MATERIALS_FROM_MOST);
    from.ok_or_else(|| Problem::field("materials_from", "must be a number from 0 to 1000000"))
}

async fn find(
    platform: &impl Platform,
    organization: &str,
    request: &Request,
) -> Result<rows::Attestation, Problem> {
    let digest = digest(request)?;
    let found = attestations::find(platform, organization, &digest).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no attestation {digest}")))
}

async fn list(
    platform: &impl Platform,
    organization: &str,
    request: &Request,
) -> Result<Response, Problem> {
    let workflow = match request.workflow()? {
        Some((workflow, project)) => Some(super::jobs::named(workflow, project)?),
        None => None,
    };
    let of = attestations::Of {
        workflow,
        since: match request.query("since").map(str::parse) {
            None => None,
            Some(Ok(since)) => Some(since),
            Some(Err(_)) => {
                let detail = "must be a time, as 2026-01-31T12:00:00Z";
                return Err(Problem::field("since", detail));
            }
        },
        until: request.cursor(|cursor| cursor.parse().ok())?,
    };
    let limit = request.limit()?;
    let (rows, next) = attestations::list(platform, organization, &of, limit).await?;
    let items = rows.into_iter().map(Attestation::from).collect();
    let next = next.map(|next| next.to_string());
    Ok(Response::json(200, &Page::<Attestation> { items, next }))
}

async fn describe(
    platform: &impl Platform,
    caller: &Caller,
    mut row: rows::Attestation,
    materials_from: usize,
) -> Result<Described, Problem> {
    let organization = &caller.organization;
    if !caller.role.may(Action::Read) {
        // It may be another build's.
        row.pushed_by = None;
    }
    let of = deliveries::Of::Attestation(row.hash);
    let (found, next) =
        deliveries::list(platform, organization, of, None, None, DELIVERIES).await?;
    let bytes = platform.get_object(organization, &row.received).await?;
    let parsed = bytes.as_ref().map(|bytes| {
        let is_whole = Digest::of(bytes) == row.received;
        // What was accepted can be read.
        is_whole
            .then(|| attestation::Attestation::parse(bytes).ok())
            .flatten()
    });
    let (bytes, contents) = match parsed {
        None => (Bytes::Gone, None),
        Some(None) => (Bytes::Damaged, None),
        Some(Some(parsed)) => {
            let contents = contents(platform, organization, &parsed, materials_from).await?;
            (Bytes::Kept, Some(contents))
        }
    };
    Ok(Described {
        also: row.also.iter().copied().collect(),
        attestation: row.into(),
        bytes,
        contents,
        deliveries: found
            .into_iter()
            .map(|row| Delivery::shown_to(caller.role, row, Vec::new()))
            .collect(),
        more_deliveries: next.is_some(),
    })
}

async fn contents(
    platform: &impl Platform,
    organization: &str,
    parsed: &attestation::Attestation,
    materials_from: usize,
) -> Result<Contents, Unreachable> {
    let subjects = parsed.statement.subjects.iter().take(SUBJECTS);
    let materials = parsed.materials().iter();
    let materials = materials.skip(materials_from).take(MATERIALS);
    let materials = materials.map(|material| self::material(platform, organization, material));
    let predicate = parsed.predicate();
    let form = match parsed.form {
        Form::Envelope => "envelope",
        Form::Bundle(_) => "bundle",
    };
    Ok(Contents {
        form: form.into(),
        key_ids: parsed
            .envelope
            .signatures
            .iter()
            .map(|signature| signature.keyid.clone())
            .collect(),
        subjects: subjects
            .map(|subject| Subject {
                name: subject.name.clone(),
                digests: subject.digests.clone(),
            })
            .collect(),
        subjects_total: parsed.statement.subjects.len(),
        materials: try_join_all(materials).await?,
        materials_total: parsed.materials().len(),
        materials_dropped: predicate.map_or(0, |predicate| predicate.materials_dropped),
        policy: predicate.map(|predicate| Policy::from(&predicate.policy)),
    })
}

async fn material(
    platform: &impl Platform,
    organization: &str,
    material: &attestation::Material,
) -> Result<Material, Unreachable> {
    let inline = material.content.as_ref();
    let kept = match (&material.digest, inline) {
        (Some(digest), None) => platform.object_size(organization, digest).await?,
        _ => None,
    };
    let place = match (inline, kept) {
        (Some(_), _) => Place::Inline,
        (None, Some(_)) => Place::Uploaded,
        (None, None) if material.uploaded_to_cas => Place::Missing,
        (None, None) => Place::Elsewhere,
    };
    Ok(Material {
        name: material.name.clone(),
        kind: material.kind.as_str().to_owned(),
        filename: material.filename.clone(),
        // What is inline is told by its file's name; its bytes are in the attestation.
        value: match place {
            Place::Inline if !material.filename.is_empty() => String::new(),
            _ => material.value.chars().take(VALUE_CHARS).collect(),
        },
        digest: material.digest,
        size_bytes: inline.map(|content| content.len() as u64).or(kept),
        place,
    })
}

async fn content(
    platform: &impl Platform,
    caller: &Caller,
    digest: Digest,
    what: &str,
    subject: audit_log::Subject,
) -> Result<Response, Problem> {
    let organization = &caller.organization;
    let size = platform.object_size(organization, &digest).await?;
    let missing = || Problem::not_found(format!("{what} is not kept here ({digest})"));
    let size_bytes = size.ok_or_else(missing)?;
    // Before the address is handed out: who has it has the bytes.
    audit_log::record(platform, organization, caller.act(), subject, "").await?;
    let download = platform.presign_get(organization, &digest).await?;
    let content = Content {
        digest,
        size_bytes,
        download,
    };
    Ok(Response::json(200, &content))
}
