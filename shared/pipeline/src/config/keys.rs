//! Keys of issuers: asked for where a JWT is exchanged, and fetched by the function that may speak to third parties.
//!
//! A row has both: who verifies reads the keys from it and writes down that it asked; who fetches writes the keys, or why
//! there are none. An unknown key is asked for at most once in [`ASK_EVERY`], whoever sends how many JWTs.

use std::time::Duration;

use api::issuers::Keys;
use api::{IssuerId, OrganizationName};
use serde::{Deserialize, Serialize};
use tracing::warn;
use verify::Jwk;

use crate::ledger::message::{self, Unreadable};
use crate::store::platform::{self, Platform, Scope, Unreachable};
use crate::store::rows::{self, Changed, IssuerKeys, Stored};

/// The queue of whoever fetches.
pub const QUEUE: &str = "fetch-materials";

/// Minimum interval between two requests for an issuer's keys.
pub const ASK_EVERY: Duration = Duration::from_mins(1);

/// Age from which keys are fetched anew when they are used.
const FRESH: Duration = Duration::from_hours(24);

/// Age from which keys are used no more: an issuer that cannot be asked may have withdrawn one.
const USABLE: Duration = Duration::from_hours(3 * 24);

/// Message in the queue, beside those of materials, which are another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Version of this shape: [`Message::VERSION`].
    pub v: u32,
    pub organization: OrganizationName,
    pub issuer: IssuerId,
}

impl Message {
    pub const VERSION: u32 = 2;

    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        message::parse(text, Self::VERSION)
    }
}

/// Has the keys fetched.
pub(crate) async fn send(
    scope: Scope<'_, impl Platform>,
    issuer: &IssuerId,
) -> Result<(), Unreachable> {
    let (platform, organization) = scope.parts();
    let message = Message {
        v: Message::VERSION,
        organization: organization.to_owned(),
        issuer: issuer.to_owned(),
    };
    let message = platform::Message {
        body: serde_json::to_string(&message).expect("ids and numbers are JSON"),
        group: organization.to_owned(),
        delay: Duration::ZERO,
    };
    let answers = platform.send(QUEUE, &[message]).await?;
    let failed = answers.into_iter().find_map(Result::err);
    failed.map_or(Ok(()), |why| Err(Unreachable { what: "queue", why }))
}

/// Writes down that the keys are asked for, and has them fetched, unless somebody asked just now.
async fn ask(
    scope: Scope<'_, impl Platform>,
    mut stored: Stored<IssuerKeys>,
) -> Result<(), Unreachable> {
    let now = scope.platform.now();
    let changed = rows::change(scope.platform, &mut stored, |row| {
        (now.since(row.asked_at) >= ASK_EVERY).then(|| {
            row.asked_at = now;
            Vec::new()
        })
    });
    match changed.await? {
        Changed::Written => send(scope, &stored.row.id).await,
        Changed::Unchanged | Changed::Conflict => Ok(()),
    }
}

/// The keys of an issuer among which one with this ID is to be looked for; none while they are being fetched.
pub(crate) async fn find(
    scope: Scope<'_, impl Platform>,
    issuer: &IssuerId,
    kid: &str,
) -> Result<Option<Vec<Jwk>>, Unreachable> {
    let (platform, organization) = scope.parts();
    let at = IssuerKeys::at(organization, issuer);
    let Some(stored) = rows::load::<IssuerKeys>(platform, &at).await? else {
        return Ok(None);
    };
    let now = platform.now();
    let row = &stored.row;
    let Some(fetched_at) = row.fetched_at.filter(|at| now.since(*at) < USABLE) else {
        ask(scope, stored).await?;
        return Ok(None);
    };
    let keys = row.keys.clone();
    if keys.iter().any(|key| key.kid == kid) {
        if now.since(fetched_at) >= FRESH
            && let Err(unreachable) = ask(scope, stored).await
        {
            warn!(error = %unreachable, "The keys of an issuer were not asked for");
        }
        return Ok(Some(keys));
    }
    // It is not there, and would be by now.
    if fetched_at >= row.asked_at && now.since(row.asked_at) < ASK_EVERY {
        return Ok(Some(keys));
    }
    ask(scope, stored).await?;
    Ok(None)
}

/// The keys of an issuer as they are shown.
pub async fn shown(
    scope: Scope<'_, impl Platform>,
    issuer: &IssuerId,
) -> Result<Option<Keys>, Unreachable> {
    let at = IssuerKeys::at(scope.organization, issuer);
    let stored = rows::load::<IssuerKeys>(scope.platform, &at).await?;
    Ok(stored.map(|stored| Keys {
        ids: stored.row.keys.into_iter().map(|key| key.kid).collect(),
        fetched_at: stored.row.fetched_at,
        fault: stored.row.fault,
    }))
}
