//! Sign-in at the console, beside the API: `GET` says where the identity provider asks people who they are, `POST`
//! exchanges what the console brings back from there for an ID token, which the console exchanges for a token.

use std::pin::pin;

use api::{Code, Problem, Timestamp};
use futures_util::future::{Either, select};
use integrations::{Error, Http, SecretText};
use serde_json::json;
use tracing::{info, warn};

use super::request::{Answer, Request, Response};
use super::router::refused;
use crate::engine::sign_in::{self, CachedEndpoints, Callback, Provider, Refused};
use crate::store::platform::Unreachable;

/// Answers a request of the console, before `late` ends. `secret` reads the client's secret, where the provider has given
/// one. Logs no word of what is posted.
pub async fn answer(
    provider: &Provider,
    known: &CachedEndpoints,
    http: &Http,
    request: &Request,
    now: Timestamp,
    secret: impl AsyncFnOnce() -> Result<Option<SecretText>, Unreachable>,
    late: impl Future<Output = ()>,
) -> Response {
    let answering = async {
        match request.method.as_str() {
            "GET" => describe(provider, known, http, now).await,
            "POST" => exchange(provider, known, http, request, now, secret).await,
            _ => Err(Problem::new(
                Code::MethodNotAllowed,
                "this path takes GET, POST",
            )),
        }
    };
    let answer = match select(pin!(answering), pin!(late)).await {
        Either::Left((answer, _)) => answer,
        Either::Right(_) => {
            let slow = Error::retryable("get an answer of the identity provider in time");
            Err(Refused::from(slow).into())
        }
    };
    let (id, method) = (&request.id, &request.method);
    let response = match answer {
        Ok(response) => {
            info!(method, request_id = id, "Answered a sign-in");
            response
        }
        Err(problem) => {
            let (status, code, detail) = (problem.status, &problem.code, &problem.detail);
            warn!(
                method,
                request_id = id,
                status,
                code,
                detail,
                "Refused a sign-in"
            );
            refused(request, problem)
        }
    };
    response.header("cache-control", "no-store")
}

async fn describe(
    provider: &Provider,
    known: &CachedEndpoints,
    http: &Http,
    now: Timestamp,
) -> Answer {
    let endpoints = sign_in::endpoints(provider, known, http, now).await;
    let endpoints = endpoints.map_err(Refused::from)?;
    let body = json!({
        "issuer": provider.issuer,
        "authorization_endpoint": endpoints.authorization,
        "client_id": provider.client_id,
        "scope": provider.scopes,
    });
    Ok(Response::json(200, &body))
}

async fn exchange(
    provider: &Provider,
    known: &CachedEndpoints,
    http: &Http,
    request: &Request,
    now: Timestamp,
    secret: impl AsyncFnOnce() -> Result<Option<SecretText>, Unreachable>,
) -> Answer {
    let callback = serde_json::from_value::<Callback>(request.object()?.into());
    // No word of serde's, which quotes.
    let callback = callback
        .map_err(|_| Problem::new(Code::MalformedBody, "the body is not that of a sign-in"))?;
    callback.check()?;
    let endpoints = sign_in::endpoints(provider, known, http, now).await;
    let endpoints = endpoints.map_err(Refused::from)?;
    let secret = secret().await.map_err(Refused::from)?;
    let jwt = sign_in::exchange(provider, &endpoints, http, &callback, secret.as_ref()).await?;
    Ok(Response::json(200, &json!({ "jwt": jwt })))
}

/// Codes that the console alone meets, and the API's description does not have.
impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let problem = |status: u16, code: &str, title: &str, detail: String| Self {
            status,
            code: code.into(),
            title: title.into(),
            ..Self::new(Code::MalformedBody, detail)
        };
        let text = refused.to_string();
        match refused {
            Refused::Malformed(_) | Refused::State | Refused::Nonce | Refused::Code => {
                problem(400, "sign-in-refused", "Sign-in refused", text)
            }
            Refused::Client(_) | Refused::Provider(_) => {
                problem(502, "provider-failed", "Identity provider failed", text)
            }
            Refused::Unreachable(unreachable) => unreachable.into(),
        }
    }
}
