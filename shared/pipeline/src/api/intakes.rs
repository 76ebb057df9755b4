//! The URLs to which a Chainloop control plane posts.

use std::time::Duration;

use integrations::SecretText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::openapi::{Operation, operation};
use super::{Caller, Page, Problem, Request, Response};
use crate::clock::Timestamp;
use crate::intakes::{self, Cas, Created, Error, Wanted};
use crate::platform::Platform;
use crate::rows::{self, Conditions, LastUse};
use crate::{configuration, tokens};

/// What `POST /v1/intakes` takes.
// Not printable: it may hold a secret.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewIntake {
    #[schemars(regex(pattern = configuration::LABEL))]
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
    /// From a minute to ten years; without an end when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *tokens::VALID_SECS.start(), max = *tokens::VALID_SECS.end()))]
    pub expires_in_secs: Option<u64>,
    /// Ranges of addresses that may post, as `192.0.2.0/24` or `2001:db8::/32`; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = intakes::CONDITIONS_MOST))]
    pub allow_from: Vec<String>,
    /// Workflows whose attestations are accepted: an id, `project/name`, `project/*`, or `*`; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = intakes::CONDITIONS_MOST))]
    pub workflows: Vec<String>,
}

/// What `POST /v1/intakes/{intake}/rotate` takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// How long the old URL goes on working: a day when it is not given. With 0, all older URLs end at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = intakes::OVERLAP_MOST_SECS))]
    pub overlap_secs: Option<u64>,
}

/// An intake; never its token.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Intake {
    pub id: String,
    pub name: String,
    pub cas_url: Option<String>,
    /// Ranges of addresses that may post; all of them when empty.
    #[serde(default)]
    pub allow_from: Vec<String>,
    /// Workflows whose attestations are accepted; all of them when empty.
    #[serde(default)]
    pub workflows: Vec<String>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub rotated_at: Option<Timestamp>,
    /// End of its newest URL.
    pub expires_at: Option<Timestamp>,
    #[serde(default)]
    pub expired: bool,
    /// Until when the URL before the newest one works too.
    pub overlap_until: Option<Timestamp>,
    /// When something was last posted to it, to within an hour.
    pub last_used_at: Option<Timestamp>,
    /// The address from which.
    pub last_used_from: Option<String>,
}

impl Intake {
    fn new(row: rows::Intake, used: Option<LastUse>, now: Timestamp) -> Self {
        let Conditions {
            allow_from,
            workflows,
        } = row.conditions;
        let overlap_until = row.previous.map(|previous| previous.valid_until);
        Self {
            id: row.id,
            name: row.name,
            cas_url: row.cas_url,
            allow_from: allow_from.into_iter().map(String::from).collect(),
            workflows: workflows.into_iter().map(|one| one.0).collect(),
            created_by: row.created_by,
            created_at: row.created_at,
            rotated_at: row.rotated_at,
            expires_at: row.valid_until,
            expired: row.valid_until.is_some_and(|until| until <= now),
            overlap_until: overlap_until.filter(|until| now < *until),
            last_used_at: used.as_ref().map(|used| used.at),
            last_used_from: used
                .map(|used| used.address)
                .filter(|address| !address.is_empty()),
        }
    }
}

/// The answer to a post that no intake lets in, whatever the reason.
pub(super) fn unknown() -> Problem {
    Problem::not_found("there is no such intake")
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
            Error::Overlapping(_) => Self::new(409, "overlapping", "Rotated just before", text),
            Error::Conflict => Self::new(409, "conflict", "Changed at the same time", text),
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
            "POST /v1/intakes/{intake}/rotate",
            "rotateIntake",
            "Give an intake a new URL",
        )
        .about("The old URL goes on working until the overlap ends.")
        .may_take::<Rotation>()
        .answers::<NewToken>(201, "The intake, and this once its new token")
        .refuses(&["conflict", "overlapping"]),
        operation(
            "DELETE /v1/intakes/{intake}",
            "deleteIntake",
            "Delete an intake",
        )
        .about("What is posted to it is refused from now on.")
        .answers::<Intake>(200, "The intake that was deleted")
        .refuses(&["conflict"]),
    ]
}

fn shown_once(created: Created, used: Option<LastUse>, now: Timestamp) -> Response {
    let Created { intake, token } = created;
    let intake = Intake::new(intake, used, now);
    Response::json(201, &NewToken { intake, token })
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
                valid_for: new.expires_in_secs.map(Duration::from_secs),
                allow_from: new.allow_from,
                workflows: new.workflows,
            };
            let created = intakes::create(platform, organization, wanted, caller.act()).await?;
            Ok(shown_once(created, None, platform.now()))
        }
        "POST /v1/intakes/{intake}/rotate" => {
            let Rotation { overlap_secs } = request.json_or_default()?;
            let name = request.parameter("intake");
            let overlap = overlap_secs.map_or(intakes::OVERLAP, Duration::from_secs);
            let rotated =
                intakes::rotate(platform, organization, name, overlap, caller.act()).await?;
            let id = rotated.intake.id.clone();
            // Rotated it is already, and its token known to nobody but this answer.
            let uses = intakes::uses(platform, std::slice::from_ref(&rotated.intake)).await;
            let used = uses.unwrap_or_default().remove(&id);
            Ok(shown_once(rotated, used, platform.now()))
        }
        "GET /v1/intakes" => {
            let (limit, after) = (request.limit()?, request.name_cursor()?);
            let (rows, next) = intakes::list(platform, organization, after, limit).await?;
            let mut uses = intakes::uses(platform, &rows).await?;
            let items = rows.into_iter().map(|row| {
                let used = uses.remove(&row.id);
                Intake::new(row, used, platform.now())
            });
            let items = items.collect();
            Ok(Response::json(200, &Page { items, next }))
        }
        "DELETE /v1/intakes/{intake}" => {
            let name = request.parameter("intake");
            let row = intakes::delete(platform, organization, name, caller.act()).await?;
            let deleted = Intake::new(row, None, platform.now());
            Ok(Response::json(200, &deleted))
        }
        other => Err(Problem::not_found(format!("no route {other}"))),
    }
}
