//! Fetches the keys of issuers, whose JWTs are exchanged elsewhere.

use api::issuers::url_fault;
use bytes::Bytes;
use integrations::{Error, Http, document};
use serde::Deserialize;
use tracing::{info, warn};
use verify::{Jwk, MAX_KEY_SET_BYTES, key_set};

use crate::config::keys::Message;
use crate::store::platform::{Platform, Unreachable};
use crate::store::rows::{self, IssuerKeys};

/// The place that documents are fetched from.
pub trait Documents {
    /// Fetches a JSON document of at most so many bytes.
    async fn document(&self, url: &str, most: usize) -> Result<Bytes, Error>;
}

impl Documents for Http {
    async fn document(&self, url: &str, most: usize) -> Result<Bytes, Error> {
        document::get(self, url, most).await
    }
}

/// The part that is read of an issuer's description of itself.
#[derive(Deserialize)]
pub(super) struct Discovered {
    issuer: String,
    #[serde(default)]
    jwks_uri: String,
    #[serde(default)]
    pub(super) authorization_endpoint: String,
    #[serde(default)]
    pub(super) token_endpoint: String,
    /// Ways in which a client may prove who it is; that of HTTP where it does not say.
    #[serde(default)]
    pub(super) token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// Fetches an issuer's keys, and writes down how that went. Those that came before stay when it fails.
pub(super) async fn fetch(
    platform: &impl Platform,
    store: &impl Documents,
    message: &Message,
) -> Result<(), Unreachable> {
    let at = IssuerKeys::at(&message.organization, &message.issuer);
    let Some(mut stored) = rows::load::<IssuerKeys>(platform, &at).await? else {
        return Ok(());
    };
    let began = platform.now();
    let fetched = keys(store, &stored.row.issuer, stored.row.jwks_url.as_deref()).await;
    match &fetched {
        Ok(keys) => {
            info!(issuer.id = %message.issuer, keys = keys.len(), "Fetched an issuer's keys");
        }
        Err(error) => {
            warn!(issuer.id = %message.issuer, %error, "Failed to fetch an issuer's keys");
        }
    }
    let changed = rows::change(platform, &mut stored, |row| {
        row.tried_at = Some(began);
        match &fetched {
            Ok(keys) => {
                row.keys.clone_from(keys);
                row.fetched_at = Some(began);
                row.fault = None;
            }
            Err(error) => row.fault = Some(format!("failed to {}", error.text)),
        }
        Some(Vec::new())
    });
    changed.await?.is_written("an issuer's keys")?;
    Ok(())
}

async fn keys(
    store: &impl Documents,
    issuer: &str,
    jwks_url: Option<&str>,
) -> Result<Vec<Jwk>, Error> {
    let url = match jwks_url {
        Some(url) => url.to_owned(),
        None => discovered(store, issuer).await?,
    };
    let set = store.document(&url, MAX_KEY_SET_BYTES).await?;
    let keys = key_set(&set).filter(|keys| !keys.is_empty());
    keys.ok_or_else(|| {
        Error::permanent("read the key set: it has no key for RS256 or ES256, or is none at all")
    })
}

/// The URL of the key set, as the issuer gives it.
async fn discovered(store: &impl Documents, issuer: &str) -> Result<String, Error> {
    let Discovered { jwks_uri, .. } = discover(store, issuer).await?;
    match url_fault(&jwks_uri) {
        None => Ok(jwks_uri),
        Some(_) => Err(not_https("jwks_uri")),
    }
}

/// Fetches an issuer's description of itself.
pub(super) async fn discover(store: &impl Documents, issuer: &str) -> Result<Discovered, Error> {
    let base = issuer.trim_end_matches('/');
    let url = format!("{base}/.well-known/openid-configuration");
    let document = store.document(&url, MAX_KEY_SET_BYTES).await?;
    let discovered: Discovered = serde_json::from_slice(&document).map_err(|_| {
        Error::permanent("read the issuer's configuration: it is not that of an issuer")
    })?;
    if discovered.issuer != issuer {
        return Err(Error::permanent(
            "read the issuer's configuration: it is another issuer's",
        ));
    }
    Ok(discovered)
}

pub(super) fn not_https(field: &str) -> Error {
    Error::permanent(format!(
        "read the issuer's configuration: its `{field}` is no https URL"
    ))
}
