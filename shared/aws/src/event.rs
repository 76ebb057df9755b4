//! The events as the functions read them, and the answers as they give them, without what hands them over: tests read
//! sample events with this, and the fuzz targets, which are built without the SDKs, compile it by themselves.

use std::collections::BTreeMap;

use api::workflows::Selector;
use api::{Actor, Client, Kind, OrganizationName, Timestamp};
use pipeline::config::check::{Check, PresenceCheck, Preview};
use pipeline::config::{last_use, tokens};
use pipeline::engine::deliver::Record;
use pipeline::http::{Caller, Request};
use pipeline::store::platform::{Platform, Unreachable};
use pipeline::store::rows::Token;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// API Gateway's event for HTTP APIs, payload format 2.0: the parts that we read. Not to be printed: it holds tokens.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayEvent {
    raw_path: String,
    #[serde(default)]
    query_string_parameters: Option<BTreeMap<String, String>>,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
    request_context: RequestContext,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext {
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    authorizer: Option<Authorizer>,
    #[serde(default)]
    http: RequestLine,
}

/// The request as the gateway itself saw it. Not `X-Forwarded-For`, which begins with what the sender wrote into it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestLine {
    #[serde(default)]
    method: String,
    #[serde(default)]
    source_ip: String,
    #[serde(default)]
    user_agent: String,
}

#[derive(Debug, Deserialize)]
struct Authorizer {
    #[serde(default)]
    lambda: Option<AuthorizerContext>,
}

#[derive(Debug, Deserialize)]
struct AuthorizerContext {
    organization: OrganizationName,
    role: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    valid_until: String,
    /// A JSON array; empty of a token that is not restricted.
    #[serde(default)]
    workflows: String,
    /// Empty where the token's use is not to be noted.
    #[serde(default)]
    use_due: String,
}

impl AuthorizerContext {
    /// The caller; nobody where the token's restrictions cannot be read.
    fn caller(self, client: &Client) -> Option<Caller> {
        let (role, workflows) = match self.role.strip_prefix(RESTRICTED) {
            Some(role) => (role, serde_json::from_str(&self.workflows).ok()?),
            None => (self.role.as_str(), Vec::<Selector>::new()),
        };
        if workflows.is_empty() != self.workflows.is_empty() {
            return None;
        }
        Some(Caller {
            organization: self.organization,
            role: serde_json::from_value(role.into()).ok()?,
            workflows,
            actor: Actor {
                kind: Kind::Token,
                name: self.name,
                id: self.token,
                client: client.clone(),
            },
            // What cannot be read is over.
            valid_until: (!self.valid_until.is_empty()).then(|| {
                let until = self.valid_until.parse();
                until.unwrap_or(Timestamp::from_millis(0))
            }),
            is_use_due: !self.use_due.is_empty(),
            intake: None,
        })
    }
}

impl GatewayEvent {
    /// The request that it carries. A body that is not the base64 it is said to be becomes an empty one,
    /// which every route refuses.
    pub fn request(self) -> Request {
        let body = match self.body {
            Some(body) if self.is_base64_encoded => base64_simd::STANDARD
                .decode_to_vec(body)
                .unwrap_or_default(),
            Some(body) => body.into_bytes(),
            None => Vec::new(),
        };
        let caller = self
            .request_context
            .authorizer
            .and_then(|authorizer| authorizer.lambda);
        let RequestLine {
            method,
            source_ip,
            user_agent,
        } = self.request_context.http;
        let client = Client::new(&source_ip, &user_agent);
        Request {
            method,
            path: self.raw_path,
            query: self.query_string_parameters.unwrap_or_default(),
            // In this format their names are in lower case.
            headers: self.headers.unwrap_or_default(),
            body: body.into(),
            caller: caller.and_then(|context| context.caller(&client)),
            client,
            id: self.request_context.request_id,
        }
    }
}

/// Beginning of the role of a restricted token. A function of a release before, which knows no restrictions, knows no
/// such role either, and fails.
const RESTRICTED: &str = "restricted-";

fn role(token: &Token) -> String {
    let role = token.role;
    match token.workflows.is_empty() {
        true => role.to_string(),
        false => format!("{RESTRICTED}{role}"),
    }
}

/// Returns the authorizer's response to the gateway, with the token's bearer as its context.
pub async fn authorize(
    platform: &impl Platform,
    event: &AuthorizerEvent,
) -> Result<Value, Unreachable> {
    let header = event
        .headers
        .get("authorization")
        .map_or("", String::as_str);
    let scheme = header
        .get(..7)
        .filter(|scheme| scheme.eq_ignore_ascii_case("bearer "));
    let text = if scheme.is_some() {
        header[7..].trim()
    } else {
        ""
    };
    let Some(token) = tokens::find(platform, text).await? else {
        return Ok(json!({ "isAuthorized": false }));
    };
    // It notes nothing itself: functions do, and read nothing for it.
    let is_use_due = last_use::is_token_due(platform, &token).await;
    Ok(json!({
        "isAuthorized": true,
        "context": {
            "organization": token.organization,
            "role": role(&token),
            "name": token.name,
            "token": token.id,
            // Texts only: the gateway hands nothing else on as it is.
            "workflows": match token.workflows.is_empty() {
                true => String::new(),
                false => json!(token.workflows).to_string(),
            },
            "valid_until": token.valid_until.map(|until| until.to_string()).unwrap_or_default(),
            "use_due": if is_use_due { "true" } else { "" },
        },
    }))
}

/// Event that invokes a delivery function.
#[derive(Deserialize)]
pub enum DeliveryEvent {
    #[serde(rename = "Records")]
    Records(Vec<SqsRecord>),
    #[serde(rename = "check")]
    Check(Check),
    #[serde(rename = "preview")]
    Preview(Preview),
    #[serde(rename = "presence")]
    Presence(PresenceCheck),
}

/// Event that invokes the reconciler: the schedule's, which has no records, or dead letters.
#[derive(Debug, Deserialize)]
pub struct ReconcilerEvent {
    #[serde(rename = "Records", default)]
    pub records: Option<Vec<SqsRecord>>,
}

/// Event that invokes the function that fetches materials.
#[derive(Debug, Deserialize)]
pub struct FetchEvent {
    #[serde(rename = "Records")]
    pub records: Vec<SqsRecord>,
}

/// A REQUEST authorizer's event, payload format 2.0. Not to be printed: it holds a token.
#[derive(Deserialize)]
pub struct AuthorizerEvent {
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SqsRecord {
    message_id: String,
    body: String,
}

impl SqsRecord {
    pub fn record(self) -> Record {
        Record {
            id: self.message_id,
            body: self.body,
        }
    }
}

/// Returns the console's response to the gateway.
pub fn console_answer(request: &Request) -> Value {
    let known = request.headers.get("if-none-match").map(String::as_str);
    let web::Response {
        status,
        headers,
        body,
    } = web::answer(&request.path, known);
    json!({
        "statusCode": status,
        "headers": headers.into_iter().collect::<BTreeMap<_, _>>(),
        "body": body,
        "isBase64Encoded": false,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchItemFailure {
    item_identifier: String,
}

/// The ids that the queue hands over again. AWS takes an empty list as "all done", and an unknown or empty id
/// as "all failed": so exactly the ids that came.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>
pub fn partial_batch(back: Vec<String>) -> Value {
    let failures: Vec<BatchItemFailure> = back
        .into_iter()
        .map(|item_identifier| BatchItemFailure { item_identifier })
        .collect();
    json!({ "batchItemFailures": failures })
}
