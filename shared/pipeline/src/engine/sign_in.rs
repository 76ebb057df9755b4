//! Signs people in at an identity provider: authorization code with PKCE (RFC 6749, RFC 7636, OpenID Connect Core).
//!
//! The console makes verifier, nonce and state, and keeps the first two in its tab. What comes back with the code is
//! exchanged here, for an ID token. Nothing is kept between the two but the provider's endpoints.

use std::cell::RefCell;
use std::time::Duration;

use api::Timestamp;
use api::issuers::endpoint_fault;
use attestation::Digest;
use integrations::{Error, Http, SecretText, document};
use serde::Deserialize;
use verify::{Jwt, MAX_KEY_SET_BYTES};

use super::issuer_keys::{discover, not_https};
use crate::store::platform::Unreachable;

/// Time for which the provider's endpoints are believed.
const KEPT: Duration = Duration::from_mins(5);

/// The longest code that is passed on: some have more than 1,000 bytes.
const CODE_MAX_BYTES: usize = 8 * 1024;

/// The identity provider, and how it knows the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// As in its configuration and its ID tokens, letter by letter.
    pub issuer: String,
    pub client_id: String,
    pub scopes: String,
}

/// Endpoints of the provider, as its configuration has them.
#[derive(Debug, Clone)]
pub struct Endpoints {
    pub authorization: String,
    token: String,
    /// The client's secret goes into the form, and not into the header.
    is_secret_posted: bool,
}

/// The provider's endpoints, for as long as they are believed.
#[derive(Default)]
pub struct CachedEndpoints(RefCell<Option<(Timestamp, Endpoints)>>);

/// Parameters that the console brings back from the provider, with those that it kept in its tab.
// Not printable: it holds secrets.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Callback {
    code: String,
    state: String,
    verifier: String,
    nonce: String,
    redirect_uri: String,
}

/// Reason why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the {0} is missing or malformed")]
    Malformed(&'static str),
    #[error("the state is not that of the sign-in which this tab began")]
    State,
    #[error("the ID token is of another sign-in: its nonce is not that of this one")]
    Nonce,
    #[error(
        "the identity provider does not take the code: it was used, has expired, or is of another sign-in"
    )]
    Code,
    #[error(
        "the identity provider answered `{0}`: check client ID, secret and redirect address there and here"
    )]
    Client(&'static str),
    #[error("failed to {}", .0.text)]
    Provider(#[from] Error),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

/// Errors of a token endpoint (RFC 6749, 5.2). Any other word may hold anything, and is not repeated.
const ERRORS: [&str; 5] = [
    "invalid_client",
    "invalid_request",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
];

/// The parts of a token endpoint's answer that are read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenResponse {
    id_token: String,
    error: String,
}

impl Callback {
    /// Checks all that can be checked without the provider.
    ///
    /// The state that a browser brings back is a digest of what only the tab has that began: an address with a code and a
    /// state of somebody else fits no tab. The console refuses such a one by itself, and this does not rely on it.
    pub fn check(&self) -> Result<(), Refused> {
        let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let is_code = (1..=CODE_MAX_BYTES).contains(&self.code.len()) && is_visible(&self.code);
        // The provider compares it with that of the request which the code is for, and knows which may be ours.
        let is_ours =
            endpoint_fault(&self.redirect_uri).is_none() && self.redirect_uri.ends_with("/console");
        for (is_right, name) in [
            (is_code, "code"),
            (is_random(&self.verifier), "verifier"),
            (is_random(&self.nonce), "nonce"),
            (is_ours, "redirect address"),
        ] {
            if !is_right {
                return Err(Refused::Malformed(name));
            }
        }
        match self.state == state(&self.verifier, &self.nonce) {
            true => Ok(()),
            false => Err(Refused::State),
        }
    }
}

/// 32 bytes in base64url.
fn is_random(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.len() == 43 && text.bytes().all(is_letter)
}

/// The state of a sign-in: nobody makes it without its verifier, which only its tab has.
fn state(verifier: &str, nonce: &str) -> String {
    let digest = Digest::of(format!("{verifier}.{nonce}").as_bytes());
    base64_simd::URL_SAFE_NO_PAD.encode_to_string(digest.bytes())
}

/// Returns the provider's endpoints, from its configuration.
pub async fn endpoints(
    provider: &Provider,
    known: &CachedEndpoints,
    http: &Http,
    now: Timestamp,
) -> Result<Endpoints, Error> {
    if let Some((at, endpoints)) = &*known.0.borrow()
        && now.since(*at) < KEPT
    {
        return Ok(endpoints.clone());
    }
    let discovered = discover(http, &provider.issuer).await?;
    let of_http = "client_secret_basic";
    let methods = discovered.token_endpoint_auth_methods_supported;
    let endpoints = Endpoints {
        authorization: discovered.authorization_endpoint,
        token: discovered.token_endpoint,
        is_secret_posted: methods.is_some_and(|all| all.iter().all(|one| one != of_http)),
    };
    for (name, url) in [
        ("authorization_endpoint", &endpoints.authorization),
        ("token_endpoint", &endpoints.token),
    ] {
        if endpoint_fault(url).is_some() {
            return Err(not_https(name));
        }
    }
    *known.0.borrow_mut() = Some((now, endpoints.clone()));
    Ok(endpoints)
}

/// Exchanges a code, of a callback that was checked, for an ID token. Its signature is for whom it is given to next; its
/// nonce binds it to the tab that began.
pub async fn exchange(
    provider: &Provider,
    endpoints: &Endpoints,
    http: &Http,
    callback: &Callback,
    secret: Option<&SecretText>,
) -> Result<String, Refused> {
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("code", callback.code.as_str()),
        ("redirect_uri", &callback.redirect_uri),
        ("code_verifier", &callback.verifier),
    ];
    let in_header = secret.filter(|_| !endpoints.is_secret_posted);
    if in_header.is_none() {
        fields.push(("client_id", &provider.client_id));
        fields.extend(secret.map(|secret| ("client_secret", secret.expose())));
    }
    let credentials = in_header.map(|secret| (provider.client_id.as_str(), secret));
    let posted = document::post(
        http,
        &endpoints.token,
        &fields,
        credentials,
        MAX_KEY_SET_BYTES,
    );
    let (status, document) = posted.await?;
    let answer: TokenResponse = serde_json::from_slice(&document).unwrap_or_default();
    if status != 200 {
        return Err(match ERRORS.into_iter().find(|one| *one == answer.error) {
            Some(error) => Refused::Client(error),
            None if answer.error == "invalid_grant" => Refused::Code,
            None => Error::retryable(format!(
                "exchange the code at the provider: answered {status}"
            ))
            .into(),
        });
    }
    let jwt = Jwt::parse(&answer.id_token).map_err(|_| {
        Error::permanent("read the provider's answer: it has no ID token signed by RS256 or ES256")
    })?;
    match jwt.nonce() == Some(&callback.nonce) {
        true => Ok(answer.id_token),
        false => Err(Refused::Nonce),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `sha256(verifier.nonce)` in base64url, of what a browser made.
    #[test]
    fn a_state_is_the_digest_of_verifier_and_nonce() {
        let (verifier, nonce) = ("v".repeat(43), "n".repeat(43));
        assert_eq!(
            state(&verifier, &nonce),
            "Z9uVtzagcoF0GsCLlfVNx4yN9NSyd7KXO6mfQozgfM0"
        );
        assert_ne!(state(&verifier, &nonce), state(&nonce, &verifier));
    }
}
