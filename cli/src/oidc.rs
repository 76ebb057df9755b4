//! Tokens without static secrets: the JWT that a CI system gives to its job is exchanged for a token that lives an hour.

use anyhow::Context as _;
use api::tokens::{Created, Exchange};
use clap::Args;

use crate::client::{Call, Client, json};
use crate::failure::Failure;
use crate::global::Global;
use crate::source::given;
use crate::variables::{self, OIDC_AUDIENCE, OIDC_TOKEN, ORGANIZATION};

#[derive(Debug, Args)]
pub(crate) struct Oidc {
    /// Organization that trusts the job's issuer
    #[arg(long, env = ORGANIZATION, default_value = "default")]
    organization: String,
    /// Audience of the JWT that GitHub is asked for; the API URL by default
    #[arg(long, env = OIDC_AUDIENCE)]
    audience: Option<String>,
}

/// The job's JWT, or where GitHub's runner hands one out.
enum Source {
    Given(String),
    Runner { url: String, token: String },
}

fn source() -> anyhow::Result<Source> {
    let variable = |name: &str| given(std::env::var(name).ok().as_deref());
    if let Some((_, jwt)) = variables::find(OIDC_TOKEN) {
        return Ok(Source::Given(jwt));
    }
    let (url, token) = (
        variable("ACTIONS_ID_TOKEN_REQUEST_URL"),
        variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
    );
    match (url, token) {
        (Some(url), Some(token)) => Ok(Source::Runner { url, token }),
        _ => Err(Failure::usage("no OIDC token found in the environment")
            .advice(
                format!(
                "In GitHub Actions, give the job `permissions: id-token: write`. Elsewhere, set {OIDC_TOKEN}, in GitLab CI by \
                 `id_tokens`."
            )
            )
            .into()),
    }
}

/// Exchanges the job's JWT for a token.
pub(crate) fn exchange(global: &Global, oidc: &Oidc) -> anyhow::Result<Created> {
    let source = source()?;
    let client = Client::without_token(global)?;
    let jwt = match source {
        Source::Given(jwt) => jwt,
        Source::Runner { url, token } => {
            let audience = oidc.audience.as_deref().unwrap_or(client.base());
            client
                .id_token(&url, &token, audience)
                .context("failed to get an OIDC token from GitHub's runner")?
        }
    };
    let body = Exchange {
        jwt: Some(jwt),
        organization: Some(oidc.organization.as_str().into()),
        ..Exchange::default()
    };
    // Not repeatable: a JWT is exchanged once.
    client
        .call(&Call::post(&["tokens", "exchange"], json(&body)?))
        .context("failed to exchange the OIDC token")
}

/// A client with a token that the job's JWT was exchanged for.
pub(crate) fn client(global: &Global, oidc: &Oidc) -> anyhow::Result<Client> {
    let Created { text, token } = exchange(global, oidc)?;
    global.info(&format!(
        "OIDC token exchanged by issuer {:?}, for a token with role {}",
        token.name, token.role
    ));
    Ok(Client::without_token(global)?.with_token(text))
}
