//! Whose token it is, the organization's tokens, and the workflows that attestations came from.

use std::fmt;
use std::time::Duration;

use attestation::Digest;
use integrations::Workflow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::openapi::{Operation, operation};
use super::{
    Action, Audited, Caller, Page, Problem, QuotaUse, READS, Request, Response, Route, route,
};
use crate::clock::Timestamp;
use crate::meter::{self, Quota};
use crate::platform::Platform;
use crate::rows::{self, Role};
use crate::tokens::{self, By};
use crate::{configuration, quotas, workflows};

pub const ROUTES: &[Route] = &[
    route("GET /v1/openapi.json", Action::Open, READS),
    route("GET /v1/organization", Action::Follow, READS),
    route("GET /v1/quotas", Action::Read, READS),
    route("GET /v1/tokens", Action::Read, READS),
    route(
        "POST /v1/tokens",
        Action::Administer,
        Audited::As("token.create"),
    ),
    route(
        "DELETE /v1/tokens/{token}",
        Action::Administer,
        Audited::As("token.revoke"),
    ),
    route("GET /v1/workflows", Action::Read, READS),
];

/// The API's description, as `tests/src/openapi.rs` writes it.
const DOCUMENT: &str = include_str!("../../../../docs/openapi.json");

/// What `GET /v1/organization` answers: whose token asked.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Bearer {
    pub organization: String,
    /// The token's id.
    pub id: String,
    pub name: String,
    pub role: Role,
    pub expires_at: Option<Timestamp>,
}

/// The quotas of the organization, and how much of each is used.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Quotas {
    pub quotas: Vec<QuotaUse>,
    /// Requests a minute for which a token may have third parties asked; a third of them at once.
    pub checks_per_minute: u64,
}

/// What `POST /v1/tokens` takes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    #[schemars(regex(pattern = configuration::LABEL))]
    pub name: String,
    pub role: Role,
    /// From a minute to ten years; without an end when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *tokens::VALID_SECS.start(), max = *tokens::VALID_SECS.end()))]
    pub expires_in_secs: Option<u64>,
}

/// A token; never its text.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    pub id: String,
    pub name: String,
    pub role: Role,
    /// The name of the token that made it.
    pub created_by: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// Its time is over.
    #[serde(default)]
    pub expired: bool,
}

/// What `POST /v1/tokens` answers: the token, and this once its text.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "CreatedToken")]
pub struct Created {
    pub text: String,
    #[serde(flatten)]
    pub token: Token,
}

impl fmt::Debug for Created {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Created({:?})", self.token)
    }
}

/// A workflow that an attestation came from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Workflow")]
pub struct Known {
    pub workflow: Workflow,
    pub first_seen_at: Timestamp,
    /// When its newest attestation was accepted; none when nothing of it is kept any more.
    pub attested_at: Option<Timestamp>,
    /// How many attachments an attestation of it goes to.
    pub attachments: usize,
}

impl Token {
    fn new(row: rows::Token, now: Timestamp) -> Self {
        Self {
            expired: !row.is_live(now),
            id: row.id,
            name: row.name,
            role: row.role,
            created_by: row.created_by,
            created_at: row.created_at,
            expires_at: row.valid_until,
        }
    }
}

impl From<workflows::Known> for Known {
    fn from(known: workflows::Known) -> Self {
        Self {
            workflow: known.seen.workflow,
            first_seen_at: known.seen.first_seen_at,
            attested_at: known.attested_at,
            attachments: known.attachments,
        }
    }
}

/// What the routes take and answer, for the API's description.
pub fn operations() -> Vec<Operation> {
    vec![
        operation(
            "GET /v1/openapi.json",
            "getDescription",
            "Get this document",
        )
        .answers::<Map<String, Value>>(200, "An OpenAPI 3.1 document"),
        operation(
            "GET /v1/organization",
            "getOrganization",
            "Get whose token asks",
        )
        .answers::<Bearer>(200, "The organization and the token"),
        operation(
            "GET /v1/quotas",
            "getQuotas",
            "Get the organization's quotas and their use",
        )
        .about("Whoever deploys the stack sets them.")
        .answers::<Quotas>(200, "The quotas"),
        operation("GET /v1/tokens", "listTokens", "List API tokens")
            .about("In the order of their names, without those that were revoked.")
            .pages::<Token>(),
        operation("POST /v1/tokens", "createToken", "Make an API token")
            .takes::<NewToken>()
            .answers::<Created>(201, "The token, and this once its text")
            .refuses(&["quota-exceeded", "role-above", "token-name-taken"]),
        operation(
            "DELETE /v1/tokens/{token}",
            "revokeToken",
            "Revoke an API token",
        )
        .about("Nobody gets in with it any more within a minute.")
        .answers::<Token>(200, "The token that was revoked")
        .refuses(&["conflict", "role-above"]),
        operation(
            "GET /v1/workflows",
            "listWorkflows",
            "List workflows that attestations came from",
        )
        .about("In no order that means something.")
        .pages::<Known>(),
    ]
}

pub async fn function<P: Platform>(
    platform: &P,
    caller: &Caller,
    request: &Request,
) -> Result<Response, Problem> {
    let (organization, now) = (&caller.organization, platform.now());
    let by = By {
        act: caller.act(),
        role: caller.role,
    };
    match request.route.as_str() {
        "GET /v1/openapi.json" => {
            let document: Value =
                serde_json::from_str(DOCUMENT).expect("a test compares it with the routes");
            Ok(Response::json(200, &document))
        }
        "GET /v1/organization" => {
            let bearer = Bearer {
                organization: organization.clone(),
                id: caller.actor.id.clone(),
                name: caller.actor.name.clone(),
                role: caller.role,
                expires_at: caller.valid_until,
            };
            Ok(Response::json(200, &bearer))
        }
        "GET /v1/quotas" => {
            let answer = Box::pin(used(platform, organization)).await?;
            Ok(Response::json(200, &answer))
        }
        "GET /v1/tokens" => {
            let (limit, after) = (request.limit()?, request.name_cursor()?);
            let (rows, next) = tokens::list(platform, organization, after, limit).await?;
            let items = rows.into_iter().map(|row| Token::new(row, now)).collect();
            Ok(Response::json(200, &Page { items, next }))
        }
        "POST /v1/tokens" => {
            let NewToken {
                name,
                role,
                expires_in_secs,
            } = request.json_with_name()?;
            let wanted = tokens::Wanted {
                name,
                role,
                valid_for: expires_in_secs.map(Duration::from_secs),
            };
            let tokens::NewToken { text, token } =
                tokens::create(platform, organization, wanted, by).await?;
            let token = Token::new(token, now);
            Ok(Response::json(201, &Created { text, token }))
        }
        "DELETE /v1/tokens/{token}" => {
            let named = request.parameter("token");
            let row = tokens::revoke(platform, organization, named, by).await?;
            Ok(Response::json(200, &Token::new(row, now)))
        }
        "GET /v1/workflows" => {
            let is_one = |cursor: &str| cursor.parse::<Digest>().is_ok();
            let after = request.cursor(|cursor| is_one(cursor).then_some(cursor))?;
            let limit = request.limit()?;
            let (known, next) = workflows::list(platform, organization, after, limit).await?;
            let items = known.into_iter().map(Known::from).collect();
            Ok(Response::json(200, &Page { items, next }))
        }
        other => Err(Problem::not_found(format!("no route {other}"))),
    }
}

async fn used(platform: &impl Platform, organization: &str) -> Result<Quotas, Problem> {
    let limits = platform.meter().quotas;
    let today = quotas::used(platform, organization).await?;
    let resets_at = Some(meter::resets_at(platform.now()));
    let standing = |quota| quotas::standing(platform, organization, quota);
    let of = |quota: Quota, used, resets_at| QuotaUse {
        name: quota.name().into(),
        limit: limits.of(quota),
        used,
        resets_at,
    };
    let mut all = vec![
        of(Quota::Attestations, today.attestations, resets_at),
        of(Quota::Bytes, today.bytes, resets_at),
    ];
    for quota in [Quota::Registrations, Quota::Intakes, Quota::Tokens] {
        all.push(of(quota, standing(quota).await?, None));
    }
    Ok(Quotas {
        quotas: all,
        checks_per_minute: limits.of(Quota::Checks),
    })
}
