//! Where attestations and their materials come in, and where they are looked at.

use attestation::{Digest, Forwarded, Origin, Unknown};
use bytes::Bytes;
use integrations::Workflow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::openapi::{self, Operation, PROJECT, operation, text};
use super::{
    Action, Audited, Caller, Problem, READS, Request, Response, Route, archive, intakes, route,
    too_large,
};
use crate::intake::{self, Error};
use crate::meter::Used;
use crate::platform::{Platform, Upload};
use crate::rows::{self, IntakeToken, Refusal, Selector};
use crate::{attach, configuration, fetch, operations, quotas};

/// Why what comes in leaves no entry.
const PUSHED: &str =
    "the attestation's row says who sent it, and that is one row of each attestation already";
const UPLOADED: &str =
    "bytes are known by their digest alone, and the attestation that names it says who sent that";

pub const ROUTES: &[Route] = &[
    route("POST /v1/attestations", Action::Push, Audited::Not(PUSHED)),
    route(
        "PUT /v1/materials/{digest}",
        Action::Push,
        Audited::Not(UPLOADED),
    ),
    route("GET /v1/attestations", Action::Read, READS),
    // A build may ask what became of what it pushed.
    route("GET /v1/attestations/{digest}", Action::Follow, READS),
    route(
        "GET /v1/attestations/{digest}/content",
        Action::Read,
        Audited::As("attestation.download"),
    ),
    route(
        "GET /v1/materials/{digest}",
        Action::Read,
        Audited::As("material.download"),
    ),
    route(
        "POST /v1/intake/{token}",
        Action::Forward,
        Audited::Not(PUSHED),
    ),
    // Here because it is an intake, of an attestation of our own.
    route(
        "POST /v1/registrations/{registration}/test",
        Action::Operate,
        Audited::As("registration.test"),
    ),
];

/// What `POST /v1/registrations/{registration}/test` takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTest {
    /// Of an attachment.
    #[serde(default)]
    pub inputs: Map<String, Value>,
}

/// What `POST /v1/registrations/{registration}/test` answers: the delivery to look at.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Tested {
    pub attestation: Digest,
    pub delivery: String,
}

/// What `POST /v1/attestations` answers. Its body is the envelope or the bundle itself.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AcceptedAttestation")]
pub struct Accepted {
    /// The envelope's hash, by which the attestation is known.
    pub attestation: Digest,
    /// Of the bytes as they were sent.
    pub received: Digest,
    /// It was accepted before; nothing is sent again.
    pub repeated: bool,
    pub workflow: Workflow,
    pub deliveries: Vec<Planned>,
    /// Materials that are not there and that a delivery waits for.
    pub missing: Vec<Digest>,
}

/// A delivery of an accepted attestation.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PlannedDelivery")]
pub struct Planned {
    pub id: String,
    pub attachment: String,
    /// The registration's id.
    pub registration: String,
    pub integration: String,
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

/// What `PUT /v1/materials/{digest}` takes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMaterial {
    #[schemars(range(max = crate::attestations::MATERIAL_MAX_BYTES))]
    pub size_bytes: u64,
}

/// What `PUT /v1/materials/{digest}` answers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "state")]
#[schemars(rename = "MaterialUpload")]
pub enum Material {
    /// Those bytes are here already.
    Present,
    /// Send the bytes so.
    Needed { upload: Upload },
}

/// What `POST /v1/intake/{token}` answers to an SBOM; to an attestation it answers with [`Accepted`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "KeptMaterial")]
pub struct Kept {
    pub material: Digest,
    pub size_bytes: u64,
}

/// What the routes take and answer, for the API's description.
pub fn operations() -> Vec<Operation> {
    let mut all = vec![
        operation(
            "POST /v1/attestations",
            "pushAttestation",
            "Push an attestation",
        )
        .about(
            "The body is the signed DSSE envelope or the Sigstore bundle itself, \
                 byte by byte. The same again makes nothing new.",
        )
        .query(
            "workflow",
            "The workflow that it is from, where it does not say so itself: an id, \
                 `project/name`, or a name with `project`.",
            text(),
        )
        .query("project", PROJECT, text())
        .takes::<Signed>()
        .answers::<Accepted>(202, "It is written down, and is delivered from now on")
        .refuses(&[
            "quota-exceeded",
            "too-large",
            "too-many-attachments",
            "workflow-missing",
            "workflow-other",
            "name-too-long",
            "workflow-malformed",
            "workflow-too-long",
        ])
        .refuses(openapi::REFUSED)
        .never_refuses("malformed-body"),
        operation(
            "PUT /v1/materials/{digest}",
            "uploadMaterial",
            "Ask where a material's bytes are to be sent",
        )
        .takes::<NewMaterial>()
        .answers::<Material>(200, "That they are here already, or the request to send")
        .refuses(&["quota-exceeded", "invalid-inputs"])
        .never_refuses("not-found"),
        operation(
            "POST /v1/intake/{token}",
            "forward",
            "Take in what a Chainloop control plane posts",
        )
        .about(
            "The token in the path is the intake's; there is no other. Chainloop \
                 posts an attestation's bodies in any order, and again when one of them \
                 fails.",
        )
        .takes::<Map<String, Value>>()
        .answers::<Kept>(200, "An SBOM was kept, or a test was answered")
        .answers::<Tried>(200, "")
        .answers::<Accepted>(202, "An attestation was accepted")
        .refuses(&[
            "quota-exceeded",
            "conflict",
            "workflow-not-allowed",
            "kind-unknown",
            "too-large",
            "too-many-attachments",
            "workflow-missing",
            "workflow-other",
            "name-too-long",
            "workflow-malformed",
            "workflow-too-long",
        ])
        .refuses(openapi::REFUSED)
        .never_refuses("invalid-inputs"),
        operation(
            "POST /v1/registrations/{registration}/test",
            "testRegistration",
            "Send a test attestation through a registration",
        )
        .may_take::<NewTest>()
        .answers::<Tested>(202, "The delivery to look at")
        .refuses(&[
            "quota-exceeded",
            "too-many-checks",
            "conflict",
            "integration-unknown",
        ]),
    ];
    all.extend(archive::operations());
    all
}

/// What `POST /v1/intake/{token}` answers to a test.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TriedIntake")]
pub struct Tried {
    /// `TEST_WEBHOOK`.
    pub kind: String,
}

pub async fn function<P: Platform>(
    platform: &P,
    caller: &Caller,
    request: &Request,
) -> Result<Response, Problem> {
    let organization = &caller.organization;
    match request.route.as_str() {
        "POST /v1/attestations" => {
            if request.body.len() > attestation::MAX_BYTES {
                let detail = "an attestation has at most 6 MiB, and what is signed cannot be cut: let it name SBOMs \
                              and reports as materials, which are uploaded with PUT /v1/materials/{digest}, and not \
                              contain them";
                return Err(too_large(detail));
            }
            let said = said(request)?;
            let received = Digest::of(&request.body);
            let accepted = intake::intake(
                platform,
                organization,
                request.body.clone(),
                said.as_ref(),
                &caller.actor,
            )
            .await
            .map_err(problem)?;
            Ok(Response::json(202, &view(accepted, received)))
        }
        "POST /v1/intake/{token}" => forwarded(platform, caller, request).await,
        "PUT /v1/materials/{digest}" => {
            let digest = archive::digest(request)?;
            let NewMaterial { size_bytes } = request.json()?;
            let material = match platform.keep_object(organization, &digest).await? {
                Some(_) => Material::Present,
                None => {
                    let used = Used::material(size_bytes);
                    quotas::daily(platform, organization, used).await?;
                    let upload = platform.presign_put(organization, &digest, size_bytes);
                    let upload = upload.await?;
                    // The bucket takes the bytes by itself, so what may be sent counts.
                    quotas::count(platform, organization, &digest, used).await;
                    Material::Needed { upload }
                }
            };
            Ok(Response::json(200, &material))
        }
        "POST /v1/registrations/{registration}/test" => {
            let NewTest { inputs } = request.json_or_default()?;
            let named = request.parameter("registration");
            let stored = configuration::find(platform, organization, named).await?;
            let (id, act) = (request.made.id(), caller.act());
            let accepted = operations::test(platform, &stored.row, inputs, id, act).await?;
            let delivery = accepted.plan.deliveries().next().map(|(id, _)| id);
            let tested = Tested {
                attestation: accepted.attestation.hash,
                delivery: delivery.unwrap_or_default(),
            };
            Ok(Response::json(202, &tested))
        }
        _ => archive::function(platform, caller, request).await,
    }
}

/// Takes in what a Chainloop control plane posts. It sends all of an attestation's bodies again when one of them
/// fails, so each of them may come any number of times and in any order.
async fn forwarded<P: Platform>(
    platform: &P,
    caller: &Caller,
    request: &Request,
) -> Result<Response, Problem> {
    let intake = caller.intake.as_ref().ok_or_else(intakes::unknown)?;
    let answer = posted(platform, caller, intake, request).await?;
    crate::intakes::used(platform, intake, &request.client).await;
    Ok(answer)
}

async fn posted<P: Platform>(
    platform: &P,
    caller: &Caller,
    intake: &IntakeToken,
    request: &Request,
) -> Result<Response, Problem> {
    if request.body.len() > attestation::MAX_BYTES {
        let detail = "a body has at most 6 MiB: attach with send_sbom=false in Chainloop, and make an intake with \
                      --cas-url and --cas-token here, so that materials are fetched";
        return Err(too_large(detail));
    }
    let organization = &caller.organization;
    match Forwarded::parse(&request.body)? {
        Forwarded::Test => {
            let kind = "TEST_WEBHOOK".into();
            Ok(Response::json(200, &Tried { kind }))
        }
        Forwarded::Attestation { envelope, origin } => {
            let Origin { id, name, project } = origin;
            let origin = Workflow { id, project, name };
            let received = Digest::of(&envelope);
            let bytes = Bytes::from(envelope);
            let allowed = &intake.conditions.workflows;
            let taken = intake::forwarded(
                platform,
                organization,
                bytes,
                &origin,
                allowed,
                &caller.actor,
            )
            .await;
            if let Err(Error::WorkflowNotAllowed(workflow)) = &taken {
                let (client, refusal) = (&request.client, Refusal::Workflow);
                crate::intakes::refused(platform, intake, client, refusal, workflow).await;
            }
            let accepted = taken.map_err(problem)?;
            if intake.fetches && !accepted.missing.is_empty() {
                // When this fails the answer is 503, and Chainloop posts it again.
                let hash = &accepted.attestation.hash;
                fetch::ask(platform, organization, hash, &intake.id).await?;
            }
            Ok(Response::json(202, &view(accepted, received)))
        }
        Forwarded::Material { content, .. } => {
            let (material, size_bytes) = (Digest::of(&content), content.len() as u64);
            // Chainloop posts it again when something else of the attestation failed.
            if platform
                .keep_object(organization, &material)
                .await?
                .is_none()
            {
                let used = Used::material(size_bytes);
                quotas::daily(platform, organization, used).await?;
                let content = Bytes::from(content);
                let kept = platform.put_object(organization, &material, content);
                kept.await?;
                quotas::count(platform, organization, &material, used).await;
            }
            Ok(Response::json(
                200,
                &Kept {
                    material,
                    size_bytes,
                },
            ))
        }
    }
}

impl From<Unknown> for Problem {
    fn from(unknown: Unknown) -> Self {
        let text = unknown.to_string();
        match unknown {
            Unknown::Malformed(_) => {
                Self::new(400, "malformed-body", "The body could not be read", text)
            }
            Unknown::Kind(_) => {
                let title = "That kind is not taken";
                Self::new(400, "kind-unknown", title, text)
            }
        }
    }
}

/// What the sender says of the workflow.
fn said(request: &Request) -> Result<Option<Workflow>, Problem> {
    let Some((workflow, project)) = request.workflow()? else {
        return Ok(None);
    };
    let Selector(selector) =
        attach::selector(workflow, project).map_err(|fault| Problem::faults(vec![fault]))?;
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

fn view(accepted: intake::Accepted, received: Digest) -> Accepted {
    let rows::Attestation { hash, workflow, .. } = &accepted.attestation;
    Accepted {
        attestation: *hash,
        received,
        repeated: accepted.repeated,
        workflow: workflow.clone(),
        deliveries: accepted
            .plan
            .deliveries()
            .map(|(id, planned)| Planned {
                id,
                attachment: planned.attachment.clone(),
                registration: planned.registration.clone(),
                integration: planned.integration.clone(),
            })
            .collect(),
        missing: accepted.awaited,
    }
}

fn problem(error: Error) -> Problem {
    let text = error.to_string();
    match error {
        Error::Exceeded(exceeded) => exceeded.into(),
        Error::Refused(refused) => {
            Problem::new(422, refused.code(), "Not an attestation to accept", text)
        }
        Error::WorkflowMissing => {
            Problem::new(422, "workflow-missing", "Which workflow is it from?", text)
        }
        Error::WorkflowOther { .. } => {
            Problem::new(422, "workflow-other", "It is from another workflow", text)
        }
        Error::WorkflowNotAllowed(_) => {
            Problem::new(403, "workflow-not-allowed", "Workflow not allowed", text)
        }
        Error::NameTooLong(_) => {
            Problem::new(422, "name-too-long", "A name in it is too long", text)
        }
        Error::WorkflowTooLong => {
            Problem::new(422, "workflow-too-long", "Its name is too long", text)
        }
        Error::WorkflowMalformed(_) => Problem::new(
            422,
            "workflow-malformed",
            "It cannot be a workflow's name",
            text,
        ),
        Error::TooManyAttachments(_) => {
            Problem::new(422, "too-many-attachments", "It would go to too many", text)
        }
        Error::Unreachable(unreachable) => unreachable.into(),
    }
}
