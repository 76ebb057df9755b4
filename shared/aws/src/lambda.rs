//! The functions' entry points: each turns Lambda's event into the pipeline's terms and the answer back.

use std::collections::BTreeMap;

use api::workflows::Selector;
use api::{Actor, Client, Kind, OrganizationName, Role, Timestamp};
use integrations::Integration;
use lambda_runtime::{LambdaEvent, service_fn};
use pipeline::config::check::{self, Check, Preview};
use pipeline::config::tokens;
use pipeline::engine::deliver::preview::preview;
use pipeline::engine::deliver::{self, Record, Tools};
use pipeline::engine::{fetch, reconcile};
use pipeline::http::{self, Caller, Request, Response, Route};
use pipeline::store::platform::{Platform, Scope, Unreachable};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Aws, Error, metrics};

/// The events as the functions read them and the answers as they give them: for the tests over `events/`.
pub mod event {
    pub use super::{
        AuthorizerEvent, DeliveryEvent, FetchEvent, GatewayEvent, ReconcilerEvent, SqsRecord,
        authorize, partial_batch,
    };
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs one function until Lambda ends it.
macro_rules! run {
    ($function:expr) => {
        lambda_runtime::run(service_fn($function))
            .await
            .map_err(|error| Error::Lambda(error.to_string()))
    };
}

/// Logs are JSON, one object a line, without colours; the runtime adds the time.
fn log() {
    let level = std::env::var("RUST_LOG")
        .ok()
        .and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false)
        .with_max_level(level.unwrap_or(tracing::Level::INFO))
        .init();
}

/// Answers an API function's routes.
pub async fn api(routes: Vec<Route<Aws>>) -> Result<(), Error> {
    log();
    let aws = Aws::from_env()?;
    run!(async |event: LambdaEvent<GatewayEvent>| {
        let request = event.payload.request();
        let response = Box::pin(http::answer(&routes, &aws, &request)).await;
        metrics::tell(&aws);
        Ok::<_, Failure>(gateway_answer(&response, &request.id))
    })
}

/// Delivers one integration's messages, and answers what it is asked directly.
pub async fn deliver<I: Integration>() -> Result<(), Error> {
    log();
    let aws = Aws::from_env()?;
    let tools = Tools::new(aws.http().await?);
    run!(async |event: LambdaEvent<DeliveryEvent>| {
        let until = Timestamp::from_millis(event.context.deadline);
        match event.payload {
            DeliveryEvent::Records(records) => {
                let records = records.into_iter().map(SqsRecord::record).collect();
                let back = Box::pin(deliver::batch::<I>(&aws, &tools, records, until)).await;
                metrics::tell(&aws);
                Ok::<_, Failure>(partial_batch(back))
            }
            DeliveryEvent::Check(check) => {
                let verdict = Box::pin(check::check::<I>(&aws, &tools.http, check)).await?;
                Ok(serde_json::to_value(verdict)?)
            }
            DeliveryEvent::Preview(asked) => {
                let Preview {
                    organization,
                    attachment,
                    attestation,
                } = &asked;
                let secrets = &tools.secrets;
                let previewed = Box::pin(preview::<I>(
                    Scope::new(&aws, organization),
                    secrets,
                    attachment,
                    attestation,
                ))
                .await?;
                Ok(serde_json::to_value(previewed)?)
            }
        }
    })
}

/// Tells the gateway who a token's bearer is.
pub async fn authorizer() -> Result<(), Error> {
    log();
    let aws = Aws::from_env()?;
    run!(async |event: LambdaEvent<AuthorizerEvent>| {
        Ok::<_, Failure>(authorize(&aws, &event.payload).await?)
    })
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
    let token = tokens::find(platform, text).await?;
    Ok(match token {
        Some(token) => json!({
            "isAuthorized": true,
            "context": {
                "organization": token.organization,
                "role": token.role,
                "name": token.name,
                "token": token.id,
                // Texts only: the gateway hands nothing else on as it is.
                "workflows": match token.workflows.is_empty() {
                    true => String::new(),
                    false => json!(token.workflows).to_string(),
                },
                "valid_until": token.valid_until.map(|until| until.to_string()).unwrap_or_default(),
            },
        }),
        None => json!({ "isAuthorized": false }),
    })
}

/// Every minute, and on dead letters.
pub async fn reconciler() -> Result<(), Error> {
    log();
    let aws = Aws::from_env()?;
    run!(async |event: LambdaEvent<ReconcilerEvent>| {
        if let Some(records) = event.payload.records {
            let records = records.into_iter().map(SqsRecord::record).collect();
            let back = Box::pin(reconcile::dead_letters(&aws, records)).await;
            metrics::tell(&aws);
            return Ok::<_, Failure>(partial_batch(back));
        }
        // What is begun must end before this invocation does.
        let until = event.context.deadline.saturating_sub(10_000);
        let report = Box::pin(reconcile::reconcile(&aws, Timestamp::from_millis(until))).await?;
        metrics::tell_of_promise(&aws, &report);
        metrics::tell(&aws);
        Ok(serde_json::to_value(report)?)
    })
}

/// Fetches what a Chainloop control plane has and the bucket has not.
pub async fn fetch_materials() -> Result<(), Error> {
    log();
    let aws = Aws::from_env()?;
    let http = aws.http().await?;
    run!(async |event: LambdaEvent<FetchEvent>| {
        let until = Timestamp::from_millis(event.context.deadline);
        let records = event.payload.records.into_iter().map(SqsRecord::record);
        let back = Box::pin(fetch::batch(&aws, &http, records.collect(), until)).await;
        Ok::<_, Failure>(partial_batch(back))
    })
}

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
    role: Role,
    #[serde(default)]
    name: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    valid_until: String,
    /// A JSON array; empty of a token that is not restricted.
    #[serde(default)]
    workflows: String,
}

impl AuthorizerContext {
    /// The caller; nobody where the token's restrictions cannot be read.
    fn caller(self, client: &Client) -> Option<Caller> {
        let workflows = match self.workflows.as_str() {
            "" => Vec::new(),
            text => serde_json::from_str(text)
                .ok()
                .filter(|workflows: &Vec<Selector>| !workflows.is_empty())?,
        };
        Some(Caller {
            organization: self.organization,
            role: self.role,
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

fn gateway_answer(response: &Response, request_id: &str) -> Value {
    let kind = if response.status < 400 {
        "application/json"
    } else {
        "application/problem+json"
    };
    let mut headers = response.headers.clone();
    headers.insert("content-type".into(), kind.into());
    headers.insert("x-request-id".into(), request_id.into());
    json!({
        "statusCode": response.status,
        "headers": headers,
        "body": response.body.to_string(),
        "isBase64Encoded": false,
    })
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
