//! The functions' entry points: each turns Lambda's event into the pipeline's terms and the answer back.

use std::time::Duration;

use api::Timestamp;
use integrations::Integration;
use lambda_runtime::{LambdaEvent, service_fn};
use pipeline::Platform as _;
use pipeline::config::check::{self, Preview};
use pipeline::engine::deliver::presence::presence;
use pipeline::engine::deliver::preview::preview;
use pipeline::engine::deliver::{self, Tools};
use pipeline::engine::sign_in::CachedEndpoints;
use pipeline::engine::{fetch, reconcile};
use pipeline::http::{self, Request, Response, Route};
use pipeline::store::platform::Scope;
use serde_json::{Value, json};

use crate::event::{
    AuthorizerEvent, DeliveryEvent, FetchEvent, GatewayEvent, ReconcilerEvent, SqsRecord,
    authorize, console_answer, partial_batch,
};
use crate::settings::SignIn;
use crate::{Aws, Error, LOOKING, metrics, spans};

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

/// Tells what happened in an invocation.
async fn tell(aws: &Aws) {
    metrics::tell(aws);
    spans::tell(aws).await;
}

/// Answers an API function's routes.
pub async fn api(routes: Vec<Route<Aws>>) -> Result<(), Error> {
    answer(routes, Aws::prepare).await
}

/// As [`api`], of the function that accepts attestations: somebody's pipeline waits for its answer.
pub async fn accept(routes: Vec<Route<Aws>>) -> Result<(), Error> {
    answer(routes, Aws::prepare_to_accept).await
}

async fn answer(routes: Vec<Route<Aws>>, prepare: impl AsyncFnOnce(&Aws)) -> Result<(), Error> {
    log();
    let aws = Aws::from_env()?;
    prepare(&aws).await;
    run!(async |event: LambdaEvent<GatewayEvent>| {
        let request = event.payload.request();
        let response = Box::pin(http::answer(&routes, &aws, &request)).await;
        tell(&aws).await;
        Ok::<_, Failure>(gateway_answer(&request, &response))
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
                tell(&aws).await;
                Ok::<_, Failure>(partial_batch(back))
            }
            DeliveryEvent::Check(check) => {
                let verdict = Box::pin(check::check::<I>(&aws, &tools.http, check)).await?;
                Ok(serde_json::to_value(verdict)?)
            }
            DeliveryEvent::Presence(check) => {
                let presence = Box::pin(presence::<I>(&aws, &tools, check)).await?;
                Ok(serde_json::to_value(presence)?)
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
    aws.prepare().await;
    run!(async |event: LambdaEvent<AuthorizerEvent>| {
        Ok::<_, Failure>(authorize(&aws, &event.payload).await?)
    })
}

/// Hands the console to browsers, without a client of AWS.
pub async fn console() -> Result<(), Error> {
    log();
    run!(async |event: LambdaEvent<GatewayEvent>| {
        Ok::<_, Failure>(console_answer(&event.payload.request()))
    })
}

/// Signs people in at the console, by the identity provider of the environment.
pub async fn sign_in() -> Result<(), Error> {
    log();
    let aws = Aws::from_env()?;
    let SignIn { provider, secret } = SignIn::from_env(|name| std::env::var(name).ok())?;
    let (known, http) = (CachedEndpoints::default(), aws.http().await?);
    // Each time: a secret that was rotated counts at once.
    let read = async || match &secret {
        Some(arn) => aws.client_secret(arn).await.map(Some),
        None => Ok(None),
    };
    run!(async |event: LambdaEvent<GatewayEvent>| {
        let request = event.payload.request();
        let now = aws.now();
        // The gateway waits for 29 s: a provider may be slow in each of its answers.
        let late = tokio::time::sleep(Duration::from_secs(25));
        let answer = http::sign_in::answer(&provider, &known, &http, &request, now, read, late);
        let response = Box::pin(answer).await;
        Ok::<_, Failure>(gateway_answer(&request, &response))
    })
}

/// Every minute, and on dead letters.
pub async fn reconciler() -> Result<(), Error> {
    log();
    let aws = Aws::from_env()?.with_rows(LOOKING);
    run!(async |event: LambdaEvent<ReconcilerEvent>| {
        if let Some(records) = event.payload.records {
            let records = records.into_iter().map(SqsRecord::record).collect();
            let back = Box::pin(reconcile::dead_letters(&aws, records)).await;
            tell(&aws).await;
            return Ok::<_, Failure>(partial_batch(back));
        }
        // What is begun must end before this invocation does.
        let until = event.context.deadline.saturating_sub(10_000);
        let report = Box::pin(reconcile::reconcile(&aws, Timestamp::from_millis(until))).await?;
        metrics::tell_of_promise(&aws, &report);
        tell(&aws).await;
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

/// Maximum number of bytes of an answer's body, as text within JSON. Lambda takes 6 MB for the whole:
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const ANSWER_BYTES: usize = 5_900_000;

fn gateway_answer(request: &Request, response: &Response) -> Value {
    let body = response.body.to_string();
    let escaped = body.bytes().filter(|byte| matches!(byte, b'"' | b'\\'));
    if body.len() + escaped.count() > ANSWER_BYTES {
        return gateway_answer(request, &http::too_large(request));
    }
    let kind = if response.status < 400 {
        "application/json"
    } else {
        "application/problem+json"
    };
    let mut headers = response.headers.clone();
    headers.insert("content-type".into(), kind.into());
    headers.insert("x-request-id".into(), request.id.clone());
    json!({
        "statusCode": response.status,
        "headers": headers,
        "body": body,
        "isBase64Encoded": false,
    })
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};

    use super::*;

    #[test]
    fn an_answer_that_is_too_large_for_lambda_is_told_instead() {
        let event = include_str!("../../../events/deliveries/list.json");
        let event: GatewayEvent = serde_json::from_str(event).unwrap();
        let request = event.request();
        let answer = |text: String| {
            let response = Response {
                status: 200,
                headers: std::collections::BTreeMap::default(),
                body: json!({ "text": text }),
            };
            let answer = gateway_answer(&request, &response);
            assert!(answer.to_string().len() < 6_000_000);
            answer["statusCode"].clone()
        };
        assert_eq!(answer("a".repeat(5_000_000)), 200);
        assert_eq!(answer("\"".repeat(1_400_000)), 200);
        assert_eq!(answer("a".repeat(6_000_000)), 422);
        assert_eq!(answer("\"".repeat(3_000_000)), 422);
    }

    #[test]
    fn no_variable_makes_the_sdks_log_what_is_in_their_requests() {
        assert_eq!(STATIC_MAX_LEVEL, LevelFilter::INFO);
    }
}
