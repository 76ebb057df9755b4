//! Attestations: accepted, listed, described, and handed out as they were received.

use api::attestations::{
    Accepted, Attestation, Bytes, Contents, Described, Material, Place, Planned, Policy, Subject,
};
use api::materials::Content;
use api::trust::{Mode, Outcome, TrialPolicy, TriedAttestation};
use api::workflows::{Selector, Workflow};
use api::{Action, Code, Page, Problem, trust};
use attestation::{Digest, Form};
use futures_util::future::try_join_all;
use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::request::{Answer, Call, Request, Response};
use super::route::{Description, PROJECT, Route, handler, text, time};
use super::{jobs, materials};
use crate::config::{self, Names, trust as policies};
use crate::engine::accept::{self, Error, Sender};
use crate::engine::deliveries::{self, Wanted};
use crate::engine::{signatures, trial};
use crate::records::{attestations, audit_log};
use crate::store::platform::{Platform, Scope, Unreachable};
use crate::store::rows;

/// Maximum number of subjects in a description.
const SUBJECTS: usize = 100;
/// Maximum number of materials in a description: the bucket is asked for each.
const MATERIALS: usize = 100;
/// The largest `materials_from`: more materials than an attestation has.
const MATERIALS_FROM_MOST: usize = 1_000_000;
/// Maximum number of deliveries in a description: the newest.
const DELIVERIES: usize = 100;
/// Characters of a material's value in a description: it may be a text of megabytes.
const VALUE_CHARS: usize = 300;

/// Reason why accepting leaves no audit entry.
pub(super) const PUSHED: &str =
    "the attestation's row says who sent it, and that is one row of each attestation already";

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::post("/v1/attestations", Action::Push, handler!(accept))
            .for_restricted()
            .unaudited(PUSHED)
            .operation("pushAttestation", "Push an attestation")
            .about(
                "The body is the signed DSSE envelope or Sigstore bundle, byte by byte. \
                 Pushing it again changes nothing.",
            )
            .query(
                "workflow",
                "The attestation's workflow, if the attestation does not name it: an ID, \
                 `project/name`, or a name with `project`.",
                text,
            )
            .query("project", PROJECT, text)
            .query(
                "names",
                "`true`: with the names of the registrations, of which each costs a read. Not for a producer.",
                || json!({ "type": "string", "enum": ["true"] }),
            )
            .takes::<Signed>()
            .answers::<Accepted>(202, "The attestation is stored; its deliveries begin")
            .refuses_attestations()
            .refuses(&[Code::WorkflowNotAllowed])
            .never_refuses(Code::MalformedBody),
        Route::get("/v1/attestations", Action::Read, handler!(list))
            .for_restricted()
            .operation("listAttestations", "List attestations")
            .about(
                "Newest first. A page ends between two times of acceptance, and so may have \
                 a few items more than its limit.",
            )
            .of_workflow()
            .query(
                "since",
                "Attestations accepted at this time or later.",
                time,
            )
            .query(
                "verdict",
                "Attestations with this verdict on their signatures; `off`: not judged.",
                || json!({ "$ref": "#/components/schemas/VerdictOutcome" }),
            )
            .pages::<Attestation>(),
        Route::post(
            "/v1/attestations/judge",
            Action::Administer,
            handler!(judge),
        )
        .unaudited("it keeps nothing, and shows what its role may see")
        .operation("judgeAttestations", "Try a trust policy on attestations")
        .about(
            "Newest first, each with the verdict that the policy would have given it when it was accepted. Nothing is \
             kept.",
        )
        .takes::<TrialPolicy>()
        .pages::<TriedAttestation>()
        .refuses(&[Code::InvalidInputs]),
        Route::get("/v1/attestations/{digest}", Action::Follow, handler!(get))
            .for_restricted()
            .operation(
                "getAttestation",
                "Get an attestation, its contents and its deliveries",
            )
            .about("By the digest of its envelope, or of the bytes as received.")
            .query(
                "materials_from",
                "Number of materials to skip; the next hundred are listed.",
                || {
                    json!({
                        "type": "integer",
                        "minimum": 0,
                        "maximum": MATERIALS_FROM_MOST,
                        "default": 0,
                    })
                },
            )
            .answers::<Described>(200, "The attestation")
            .refuses(&[Code::InvalidInputs]),
        Route::get(
            "/v1/attestations/{digest}/content",
            Action::Read,
            handler!(download),
        )
        .for_restricted()
        .audited("attestation.download")
        .operation("downloadAttestation", "Get a download of an attestation")
        .answers::<Content>(200, "A presigned URL, valid for 15 minutes")
        .refuses(&[Code::InvalidInputs]),
    ]
}

async fn accept<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let caller = call.caller;
    if request.body.len() > attestation::MAX_BYTES {
        let detail = "an attestation has at most 6 MiB, and what is signed cannot be cut: let it name SBOMs \
                      and reports as materials, which are uploaded with PUT /v1/materials/{digest}, and not \
                      contain them";
        return Err(Problem::new(Code::TooLarge, detail));
    }
    let said = said(request)?;
    let is_with_names = request.flag("names")?;
    let sender = Sender {
        actor: &caller.actor,
        workflows: &caller.workflows,
        trace: request.trace(),
    };
    let accepted = accept::pushed(scope, request.body.clone(), said.as_ref(), sender)
        .await
        .map_err(problem)?;
    let planned = accepted.plan.planned.iter().map(|one| &one.registration);
    let names = match is_with_names && caller.role.may(Action::Read) {
        true => config::names(scope, planned).await,
        false => Names::new(),
    };
    Ok(Response::json(202, &view(accepted, &names)))
}

async fn get<P: Platform>(call: Call<'_, P>) -> Answer {
    let request = call.request;
    let row = find(call).await?;
    let from = materials_from(request)?;
    let described = describe(call, row, from).await?;
    Ok(Response::json(200, &described))
}

async fn download<P: Platform>(call: Call<'_, P>) -> Answer {
    let row = find(call).await?;
    let what = "the bytes of the attestation";
    let name = audit_log::workflow(&row.workflow);
    let subject = audit_log::Subject::new(name, row.hash.to_string());
    materials::content(call, row.received, what, subject).await
}

/// A signed attestation as it stands in the body of `POST /v1/attestations`.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(
    dead_code,
    reason = "for the API's description; the bytes are read by `attestation`"
)]
enum Signed {
    /// A DSSE envelope.
    Envelope {
        #[schemars(rename = "payloadType")]
        payload_type: String,
        /// The in-toto statement, in base64.
        payload: String,
        signatures: Vec<Map<String, Value>>,
    },
    /// A Sigstore bundle that holds one.
    Bundle {
        #[schemars(rename = "mediaType")]
        media_type: String,
        #[schemars(rename = "dsseEnvelope")]
        envelope: Map<String, Value>,
    },
}

/// Reads the workflow that the sender names.
fn said(request: &Request) -> Result<Option<Workflow>, Problem> {
    let Some((workflow, project)) = request.workflow()? else {
        return Ok(None);
    };
    let Selector(selector) = api::workflows::selector(workflow, project)
        .map_err(|fault| Problem::faults(vec![fault]))?;
    match selector.split_once('/') {
        Some((_, "*")) => {}
        None if selector == "*" => {}
        Some((project, name)) => {
            let (project, name) = (project.to_owned(), name.to_owned());
            return Ok(Some(Workflow {
                project,
                name,
                ..Workflow::default()
            }));
        }
        None => {
            return Ok(Some(Workflow {
                id: selector,
                ..Workflow::default()
            }));
        }
    }
    Err(Problem::field("workflow", "must be one workflow, not many"))
}

pub(super) fn view(accepted: accept::Accepted, names: &Names) -> Accepted {
    let rows::Attestation { hash, workflow, .. } = &accepted.attestation;
    Accepted {
        attestation: *hash,
        received: accepted.received,
        repeated: accepted.repeated,
        workflow: workflow.clone(),
        deliveries: accepted
            .plan
            .deliveries()
            .map(|(id, planned)| Planned {
                id,
                attachment: planned.attachment.clone(),
                registration_name: names.get(&planned.registration).cloned(),
                registration: planned.registration.clone(),
                integration: planned.integration.clone(),
            })
            .collect(),
        missing: accepted.awaited,
        verdict: accepted.attestation.verdict.clone(),
    }
}

pub(super) fn problem(error: Error) -> Problem {
    let text = error.to_string();
    match error {
        Error::Untrusted(untrusted) => Problem::new(signatures::code(&untrusted.verdict), text),
        Error::Exceeded(exceeded) => exceeded.into(),
        Error::Refused(refused) => Problem::refused(refused.code(), text),
        Error::WorkflowMissing => Problem::new(Code::WorkflowMissing, text),
        Error::WorkflowOther { .. } | Error::WorkflowTaken(_) => {
            Problem::new(Code::WorkflowOther, text)
        }
        Error::WorkflowNotAllowed(_) => Problem::new(Code::WorkflowNotAllowed, text),
        Error::NameTooLong(_) => Problem::new(Code::NameTooLong, text),
        Error::WorkflowTooLong => Problem::new(Code::WorkflowTooLong, text),
        Error::WorkflowMalformed(_) => Problem::new(Code::WorkflowMalformed, text),
        Error::TooManyAttachments(_) => Problem::new(Code::TooManyAttachments, text),
        Error::Unreachable(unreachable) => unreachable.into(),
    }
}

impl From<attestations::Error> for Problem {
    fn from(error: attestations::Error) -> Self {
        match error {
            attestations::Error::TooManyWorkflows => Self::field("workflow", error.to_string()),
            attestations::Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
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
            verdict: row.verdict,
            created_at: row.created_at,
        }
    }
}

fn materials_from(request: &Request) -> Result<usize, Problem> {
    let from = request.query("materials_from").unwrap_or("0").parse();
    let from = from.ok().filter(|from| *from <= MATERIALS_FROM_MOST);
    from.ok_or_else(|| Problem::field("materials_from", "must be a number from 0 to 1000000"))
}

async fn find<P: Platform>(call: Call<'_, P>) -> Result<rows::Attestation, Problem> {
    let digest = materials::digest(call)?;
    let found = attestations::find(call.scope(), &digest).await?;
    let found = found.filter(|row| call.caller.is_for(&row.workflow));
    found.ok_or_else(|| Problem::new(Code::NotFound, format!("there is no attestation {digest}")))
}

/// A verdict's outcome as a query names it.
fn outcome(text: &str) -> Result<Outcome, Problem> {
    let outcome = Outcome::ALL.into_iter().find(|one| one.as_str() == text);
    outcome.ok_or_else(|| {
        let all = Outcome::ALL.map(Outcome::as_str).join(", ");
        Problem::field("verdict", format!("must be one of {all}"))
    })
}

async fn list<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let workflow = match request.workflow()? {
        Some((workflow, project)) => Some(jobs::named(workflow, project)?),
        None => None,
    };
    let of = attestations::Filter {
        workflow,
        since: request.time("since")?,
        until: request.cursor(|cursor| cursor.parse().ok())?,
        verdict: request.query("verdict").map(outcome).transpose()?,
        selector: None,
    };
    let limit = request.limit()?;
    let (rows, next) = attestations::list(scope, &of, limit).await?;
    let own = |row: &rows::Attestation| call.caller.is_for(&row.workflow);
    let items = rows.into_iter().filter(own);
    let items = items.map(Attestation::from).collect();
    let next = next.map(|next| next.to_string());
    Ok(Response::json(200, &Page::<Attestation> { items, next }))
}

async fn judge<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let trial: TrialPolicy = request.json()?;
    let selector = api::workflows::selector(&trial.workflow, trial.project.as_deref())
        .map_err(|fault| Problem::faults(vec![fault]))?;
    let of = attestations::Filter {
        selector: Some(selector),
        since: trial.since,
        until: request.cursor(|cursor| cursor.parse().ok())?,
        ..attestations::Filter::default()
    };
    let policy = trust::Policy {
        mode: Mode::Warn,
        threshold: trial.threshold,
        signers: trial.signers,
    };
    let judge = policies::judge(&policy).map_err(|fault| Problem::faults(vec![fault]))?;
    let (tried, next) = trial::page(scope, &judge, &of, request.limit()?).await?;
    let items = tried.into_iter().map(|(row, verdict)| TriedAttestation {
        attestation: row.hash,
        workflow: row.workflow,
        verdict,
        created_at: row.created_at,
    });
    let (items, next) = (items.collect(), next.map(|next| next.to_string()));
    Ok(Response::json(
        200,
        &Page::<TriedAttestation> { items, next },
    ))
}

async fn describe<P: Platform>(
    call: Call<'_, P>,
    mut row: rows::Attestation,
    materials_from: usize,
) -> Result<Described, Problem> {
    let scope = call.scope();
    let caller = call.caller;
    if !caller.role.may(Action::Read) {
        // It may be another build's.
        row.pushed_by = None;
    }
    let of = deliveries::Filter::Attestation(row.hash);
    let (found, next) = deliveries::list(scope, of, &Wanted::default(), None, DELIVERIES).await?;
    let bytes = scope
        .platform
        .get_object(scope.organization, &row.received)
        .await?;
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
            let contents = contents(scope, &parsed, materials_from).await?;
            (Bytes::Kept, Some(contents))
        }
    };
    Ok(Described {
        also: row.also.iter().copied().collect(),
        attestation: row.into(),
        bytes,
        contents,
        deliveries: super::deliveries::listed(call, found).await,
        more_deliveries: next.is_some(),
    })
}

async fn contents(
    scope: Scope<'_, impl Platform>,
    parsed: &attestation::Attestation,
    materials_from: usize,
) -> Result<Contents, Unreachable> {
    let subjects = parsed.statement.subjects.iter().take(SUBJECTS);
    let materials = parsed.materials().iter();
    let materials = materials.skip(materials_from).take(MATERIALS);
    let materials = materials.map(|material| self::material(scope, material));
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
    scope: Scope<'_, impl Platform>,
    material: &attestation::Material,
) -> Result<Material, Unreachable> {
    let (platform, organization) = scope.parts();
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
