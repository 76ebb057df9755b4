//! The URLs to which a Chainloop control plane posts.

use integrations::SecretText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::openapi::{Operation, operation};
use super::{Caller, Page, Problem, Request, Response};
use crate::clock::Timestamp;
use crate::intakes::{self, Cas, Created, Error, Wanted};
use crate::platform::Platform;
use crate::{register, rows};

/// What `POST /v1/intakes` takes.
// Not printable: it may hold a secret.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewIntake {
    #[schemars(regex(pattern = register::LABEL))]
    pub name: String,
    /// Where Chainloop's artifacts can be had, as `https://<control plane>`, to fetch materials that it only names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cas_url: Option<String>,
    /// An API token of Chainloop's that may read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cas_token: Option<String>,
    /// Certificates in PEM of authorities that are trusted there beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cas_ca_certificates: Option<String>,
}

/// An intake; never its token.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Intake {
    pub id: String,
    pub name: String,
    pub cas_url: Option<String>,
    pub created_by: String,
    pub created_at: Timestamp,
}

impl From<rows::Intake> for Intake {
    fn from(row: rows::Intake) -> Self {
        Self {
            id: row.id,
            name: row.name,
            cas_url: row.cas_url,
            created_by: row.created_by,
            created_at: row.created_at,
        }
    }
}

/// What `POST /v1/intakes` answers, this once.
// Not printable: it holds a secret.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "CreatedIntake")]
pub struct NewToken {
    #[serde(flatten)]
    pub intake: Intake,
    /// What is posted to is `/v1/intake/` and this.
    pub token: String,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Faults(faults) => Self::faults(faults),
            Error::NameTaken(_) => Self::new(409, "name-taken", "The name is taken", text),
            Error::NotFound(_) => Self::not_found(text),
            Error::Exceeded(exceeded) => exceeded.into(),
            Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

/// What the routes take and answer, for the API's description.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        operation(
            "POST /v1/intakes",
            "createIntake",
            "Make an address that a Chainloop control plane posts to",
        )
        .takes::<NewIntake>()
        .answers::<NewToken>(201, "The intake, and this once its token")
        .refuses(&["quota-exceeded", "name-taken"]),
        operation("GET /v1/intakes", "listIntakes", "List intakes")
            .about("In the order of their names.")
            .pages::<Intake>(),
        operation(
            "DELETE /v1/intakes/{intake}",
            "deleteIntake",
            "Delete an intake",
        )
        .about("What is posted to it is refused from now on.")
        .answers::<Intake>(200, "The intake that was deleted"),
    ]
}

pub(super) async fn function<P: Platform>(
    platform: &P,
    caller: &Caller,
    request: &Request,
) -> Result<Response, Problem> {
    let organization = &caller.organization;
    match request.route.as_str() {
        "POST /v1/intakes" => {
            let new: NewIntake = request.json_with_name()?;
            let cas = match (new.cas_url, new.cas_token.filter(|token| !token.is_empty())) {
                (None, None) if new.cas_ca_certificates.is_some() => {
                    return Err(Problem::field(
                        "cas_url",
                        "is missing: `cas_ca_certificates` are for it",
                    ));
                }
                (None, None) => None,
                (Some(url), Some(token)) => Some(Cas {
                    url,
                    token: SecretText::from(token),
                    authorities: new.cas_ca_certificates,
                }),
                (Some(_), None) => {
                    return Err(Problem::field(
                        "cas_token",
                        "is missing: `cas_url` needs it",
                    ));
                }
                (None, Some(_)) => {
                    return Err(Problem::field(
                        "cas_url",
                        "is missing: `cas_token` is for it",
                    ));
                }
            };
            let wanted = Wanted {
                name: new.name,
                cas,
            };
            let Created { intake, token } =
                intakes::create(platform, organization, wanted, caller.act()).await?;
            let intake = intake.into();
            Ok(Response::json(201, &NewToken { intake, token }))
        }
        "GET /v1/intakes" => {
            let (limit, after) = (request.limit()?, request.name_cursor()?);
            let (rows, next) = intakes::list(platform, organization, after, limit).await?;
            let items = rows.into_iter().map(Intake::from).collect();
            Ok(Response::json(200, &Page { items, next }))
        }
        "DELETE /v1/intakes/{intake}" => {
            let name = request.parameter("intake");
            let row = intakes::delete(platform, organization, name, caller.act()).await?;
            Ok(Response::json(200, &Intake::from(row)))
        }
        other => Err(Problem::not_found(format!("no route {other}"))),
    }
}
