//! Last uses of tokens and intakes: when and from where, noted at most once an hour each. A note that cannot be written
//! is lost, since nothing that somebody asked for may fail for it.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Actor, Client, Timestamp};
use tracing::info;

use crate::store::platform::{Key, Platform, Scope, Unreachable};
use crate::store::rows::{self, CONFLICTS, LastUse, Row, Token, TokenUse};

/// Minimum interval between notes of the same kind.
const NOTED_EVERY: Duration = Duration::from_hours(1);

/// Reports whether something last noted then is to be noted again.
pub(crate) fn is_due(last: Option<Timestamp>, now: Timestamp) -> bool {
    last.is_none_or(|last| now.since(last) >= NOTED_EVERY)
}

/// Notes a use where one is due. Reports whether it did.
pub(crate) fn note(last: &mut Option<LastUse>, client: &Client, now: Timestamp) -> bool {
    let due = is_due(last.as_ref().map(|last| last.at), now);
    if due {
        *last = Some(LastUse {
            at: now,
            address: client.address.clone(),
        });
    }
    due
}

/// Reports whether a token's use is to be noted. A token from an exchange is listed nowhere, so nobody asks for its
/// uses.
pub async fn is_token_due(platform: &impl Platform, token: &Token) -> bool {
    if token.exchange.is_some() {
        return false;
    }
    let at = TokenUse::at(&token.organization, &token.id);
    match rows::load::<TokenUse>(platform, &at).await {
        Ok(stored) => {
            let last = stored.and_then(|stored| stored.row.last_used);
            is_due(last.map(|last| last.at), platform.now())
        }
        Err(error) => {
            info!(token.id = token.id, %error, "Failed to read the last use of a token");
            false
        }
    }
}

/// Writes down that a token was used.
pub(crate) async fn note_token(scope: Scope<'_, impl Platform>, actor: &Actor, client: &Client) {
    let (platform, organization) = scope.parts();
    let new = TokenUse {
        organization: organization.to_owned(),
        token: actor.id.clone(),
        last_used: None,
    };
    let change = |row: &mut TokenUse| {
        let noted = note(&mut row.last_used, client, platform.now());
        noted.then(Vec::new)
    };
    if let Err(error) = rows::change_or_insert(platform, new, CONFLICTS, change).await {
        info!(token.id = actor.id, %error, "Failed to note the use of a token");
    }
}

/// The last uses of these tokens, by their ids.
pub async fn of_tokens(
    platform: &impl Platform,
    tokens: &[Token],
) -> Result<BTreeMap<String, LastUse>, Unreachable> {
    let at = |token: &Token| TokenUse::at(&token.organization, &token.id);
    all(
        platform,
        tokens.iter().map(at).collect(),
        |row: TokenUse| Some((row.token, row.last_used?)),
    )
    .await
}

/// Loads the last uses that are in the rows with these keys.
pub(crate) async fn all<R: Row, Id: Ord>(
    platform: &impl Platform,
    keys: Vec<Key>,
    used: impl Fn(R) -> Option<(Id, LastUse)>,
) -> Result<BTreeMap<Id, LastUse>, Unreachable> {
    let stored = rows::load_many::<R>(platform, &keys).await?;
    let rows = stored.into_iter().map(|stored| stored.row);
    Ok(rows.filter_map(used).collect())
}
