//! Where attestations and their materials come in, and where they are looked at.

use attestation::Digest;
use integrations::Workflow;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Action, Caller, Problem, Request, Response, Route, archive, route};
use crate::intake::{self, Error};
use crate::platform::{Platform, Upload};
use crate::rows::Selector;
use crate::{attach, operations, register, rows};

pub const ROUTES: &[Route] = &[
    route("POST /v1/attestations", Action::Push),
    route("PUT /v1/materials/{digest}", Action::Push),
    route("GET /v1/attestations", Action::Read),
    // A build may ask what became of what it pushed.
    route("GET /v1/attestations/{digest}", Action::Follow),
    route("GET /v1/attestations/{digest}/content", Action::Read),
    route("GET /v1/materials/{digest}", Action::Read),
    // Here because it is an intake, of an attestation of our own.
    route(
        "POST /v1/registrations/{registration}/test",
        Action::Operate,
    ),
];

/// What `POST /v1/registrations/{registration}/test` takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTest {
    /// Of an attachment.
    #[serde(default)]
    pub inputs: Map<String, Value>,
}

/// What it answers: the delivery to look at.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tested {
    pub attestation: Digest,
    pub delivery: String,
}

/// The largest material that can be uploaded: 100 MiB, as in Chainloop's own store. A delivery holds it in memory.
pub const MATERIAL_MAX_BYTES: u64 = 100 * 1024 * 1024;

/// What `POST /v1/attestations` answers. Its body is the envelope or the bundle itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accepted {
    /// The envelope's hash, by which the attestation is known.
    pub attestation: Digest,
    /// Of the bytes as they were sent.
    pub received: Digest,
    /// It was accepted before; nothing is sent again.
    pub repeated: bool,
    pub workflow: Workflow,
    pub deliveries: Vec<Planned>,
    /// Materials that deliveries wait for until they are uploaded.
    pub missing: Vec<Digest>,
}

/// A delivery of an accepted attestation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Planned {
    pub id: String,
    pub attachment: String,
    /// The registration's id.
    pub registration: String,
    pub integration: String,
}

/// What `PUT /v1/materials/{digest}` takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMaterial {
    pub size_bytes: u64,
}

/// What `PUT /v1/materials/{digest}` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Material {
    /// Those bytes are here already.
    Present,
    /// Send the bytes so.
    Needed { upload: Upload },
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
                let detail = "a body has at most 6 MiB: upload materials by themselves, with \
                              PUT /v1/materials/{digest}";
                return Err(Problem::new(
                    413,
                    "too-large",
                    "Larger than can be taken",
                    detail,
                ));
            }
            let said = said(request)?;
            let received = Digest::of(&request.body);
            let accepted =
                intake::intake(platform, organization, request.body.clone(), said.as_ref())
                    .await
                    .map_err(problem)?;
            Ok(Response::json(202, &view(accepted, received)))
        }
        "PUT /v1/materials/{digest}" => {
            let digest = archive::digest(request)?;
            let NewMaterial { size_bytes } = request.json()?;
            if size_bytes > MATERIAL_MAX_BYTES {
                return Err(Problem::field(
                    "size_bytes",
                    "must be at most 104857600 (100 MiB)",
                ));
            }
            let material = match platform.keep_object(organization, &digest).await? {
                Some(_) => Material::Present,
                None => Material::Needed {
                    upload: platform
                        .presign_put(organization, &digest, size_bytes)
                        .await?,
                },
            };
            Ok(Response::json(200, &material))
        }
        "POST /v1/registrations/{registration}/test" => {
            let NewTest { inputs } = request.json_or_default()?;
            let named = request.parameter("registration");
            let stored = register::find(platform, organization, named).await?;
            let accepted = operations::test(platform, &stored.row, inputs).await?;
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

/// What the sender says of the workflow.
fn said(request: &Request) -> Result<Option<Workflow>, Problem> {
    let Some(workflow) = request.query("workflow") else {
        return Ok(None);
    };
    let Selector(selector) = attach::selector(workflow, request.query("project"))
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
        missing: accepted.missing,
    }
}

fn problem(error: Error) -> Problem {
    let text = error.to_string();
    match error {
        Error::Refused(refused) => {
            Problem::new(422, refused.code(), "Not an attestation to accept", text)
        }
        Error::WorkflowMissing => {
            Problem::new(422, "workflow-missing", "Which workflow is it from?", text)
        }
        Error::WorkflowOther { .. } => {
            Problem::new(422, "workflow-other", "It is from another workflow", text)
        }
        Error::TooManyAttachments(_) => {
            Problem::new(422, "too-many-attachments", "It would go to too many", text)
        }
        Error::Unreachable(unreachable) => unreachable.into(),
    }
}
