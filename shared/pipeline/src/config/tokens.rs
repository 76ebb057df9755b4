//! API tokens: opaque, shown once, kept as a hash, with a role and, if wanted, an end.

use std::fmt;
use std::time::Duration;

use api::inputs::Fault;
use api::names::{is_label, name_fault};
use api::tokens::VALID_SECS;
use api::workflows::Selector;
use api::{OrganizationName, Role, Timestamp};
use attestation::Digest;

use crate::config::quotas::{self, Exceeded};
use crate::config::rotation;
use crate::records::audit_log::{Act, Subject};
use crate::records::notices::{self, News};
use crate::store::meter::Quota;
use crate::store::platform::{Platform, Scope, UnlessConflict as _, Unreachable, WriteError};
use crate::store::rows::{self, Event, Organization, Previous, Stored, Token, TokenName};

/// Prefix of a token's text, by which scanners find leaked secrets.
pub const PREFIX: &str = "cli_";

/// Prefix of a restricted token's text. Another one, so that a release that knows no restrictions, before an upgrade's
/// end or after a rollback, finds nobody whose token it is, and not one without restrictions.
pub const RESTRICTED_PREFIX: &str = "clr_";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("some inputs are not right")]
    Faults(Vec<Fault>),
    #[error("there is a token {0:?} already")]
    NameTaken(String),
    #[error("a token with the role {own} may not make, rotate or revoke one with the role {other}")]
    Above { own: Role, other: Role },
    #[error("there is no token {0:?}")]
    NotFound(String),
    #[error(
        "the text before works until {0}: rotate after that, or with an overlap of 0, which ends all older texts at once"
    )]
    Overlapping(Timestamp),
    #[error("somebody else changed it at the same time; try again")]
    Conflict,
    #[error(transparent)]
    Exceeded(Exceeded),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Conflict => Self::Conflict,
            WriteError::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

impl From<quotas::Error> for Error {
    fn from(error: quotas::Error) -> Self {
        match error {
            quotas::Error::Exceeded(exceeded) => Self::Exceeded(exceeded),
            quotas::Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

/// Request for a token.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// A DNS-1123 label that no other live token of the organization has.
    pub name: String,
    pub role: Role,
    /// Workflows that it is restricted to; not restricted when empty.
    pub workflows: Vec<Selector>,
    /// Validity period; none for a token that does not expire.
    pub valid_for: Option<Duration>,
}

/// Somebody who makes, rotates or revokes a token, and the role of theirs.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    pub act: Act<'a>,
    pub role: Role,
}

/// A new token with its text: 256 random bits, shown once.
pub struct CreatedToken {
    pub text: String,
    pub token: Token,
}

impl fmt::Debug for CreatedToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CreatedToken({:?})", self.token.name)
    }
}

pub(crate) fn hash(text: &str) -> String {
    Digest::of(text.as_bytes()).hex()
}

/// 256 random bits behind a prefix. The platform's randomness must be the operating system's.
pub(crate) fn text(platform: &impl Platform, prefix: &str) -> String {
    std::iter::once(prefix.to_owned())
        .chain((0..4).map(|_| format!("{:016x}", platform.random())))
        .collect()
}

/// Reads the workflows that a token with this role is to be restricted to.
pub(crate) fn workflows(named: &[Selector], role: Role) -> Result<Vec<Selector>, Fault> {
    let read = match named.is_empty() || role.can_be_restricted() {
        true => api::tokens::workflows(named),
        false => Err(format!(
            "can restrict producers and viewers, and not the role {role}"
        )),
    };
    read.map_err(|detail| Fault {
        field: "workflows".into(),
        detail,
    })
}

pub(crate) fn prefix(workflows: &[Selector]) -> &'static str {
    match workflows.is_empty() {
        true => PREFIX,
        false => RESTRICTED_PREFIX,
    }
}

/// Makes a token.
pub async fn create(
    scope: Scope<'_, impl Platform>,
    wanted: NewToken,
    by: By<'_>,
) -> Result<CreatedToken, Error> {
    let (platform, organization) = scope.parts();
    let NewToken {
        name,
        role,
        workflows: named,
        valid_for,
    } = wanted;
    let mut faults = Vec::new();
    let mut fault = |field: &str, detail: &str| {
        faults.push(Fault {
            field: field.into(),
            detail: detail.into(),
        });
    };
    if valid_for.is_some_and(|valid_for| !VALID_SECS.contains(&valid_for.as_secs())) {
        fault("expires_in_secs", "must be from a minute to ten years");
    }
    let workflows = workflows(&named, role).unwrap_or_else(|wrong| {
        faults.push(wrong);
        Vec::new()
    });
    faults.extend(name_fault(&name));
    if !faults.is_empty() {
        return Err(Error::Faults(faults));
    }
    if !by.role.covers(role) {
        return Err(Error::Above {
            own: by.role,
            other: role,
        });
    }
    let over = match rows::load::<TokenName>(platform, &TokenName::at(organization, &name)).await? {
        None => None,
        Some(held) => {
            let token = rows::load::<Token>(platform, &Token::at(&held.row.hash)).await?;
            if token.is_some_and(|token| token.row.is_live(platform.now())) {
                return Err(Error::NameTaken(name));
            }
            // Whose time is over gives its name to its successor.
            Some(held.version.replaced())
        }
    };
    quotas::room(scope, Quota::Tokens).await?;
    let text = text(platform, prefix(&workflows));
    let now = platform.now();
    let token = Token {
        hash: hash(&text),
        id: crate::store::ids::random(platform),
        organization: organization.to_owned(),
        name,
        role,
        workflows,
        created_by: by.act.actor.name.clone(),
        created_at: now,
        valid_until: valid_for.map(|valid_for| now.plus(valid_for)),
        revoked_at: None,
        rotated_at: None,
        previous: None,
        exchange: None,
    };
    let named = TokenName {
        organization: organization.to_owned(),
        name: token.name.clone(),
        token: token.id.clone(),
        hash: token.hash.clone(),
        valid_until: token.valid_until,
    };
    let detail = told(&token);
    let subject = Subject::new(&token.name, &token.id);
    let news = expiring(&token);
    let mut writes = vec![
        rows::insert(platform, &token).0,
        rows::put(platform, &named, over.as_ref()).0,
        by.act.entry(scope, subject, detail),
    ];
    writes.extend(notices::ends(
        scope,
        Event::TokenExpiring,
        &news,
        token.valid_until,
    ));
    if !platform.write(writes).await.unless_conflict()? {
        return Err(Error::NameTaken(token.name));
    }
    Ok(CreatedToken { text, token })
}

/// The notice that a token ends.
fn expiring(token: &Token) -> News {
    News {
        subject: token.id.clone(),
        name: token.name.clone(),
        ..News::default()
    }
}

/// Describes a new token for the audit log: all that it permits.
pub(crate) fn told(token: &Token) -> String {
    let workflows: Vec<&str> = token.workflows.iter().map(|one| one.0.as_str()).collect();
    let parts = [
        Some(token.role.to_string()),
        (!workflows.is_empty()).then(|| format!("for workflows {}", workflows.join(", "))),
        token.valid_until.map(|until| format!("until {until}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(", ")
}

/// Returns the token with this text; none when it is unknown, revoked or expired.
pub async fn find(platform: &impl Platform, text: &str) -> Result<Option<Token>, Unreachable> {
    let is_one = text.starts_with(PREFIX) || text.starts_with(RESTRICTED_PREFIX);
    if !is_one || text.len() > 256 {
        return Ok(None);
    }
    let live = async |hash: &str| -> Result<Option<Token>, Unreachable> {
        let stored = rows::load::<Token>(platform, &Token::at(hash)).await?;
        let token = stored.map(|stored| stored.row);
        Ok(token.filter(|token| token.is_live(platform.now())))
    };
    let Some(token) = live(&hash(text)).await? else {
        return Ok(None);
    };
    // What was exchanged for a token ends with it.
    match token.exchange.as_ref().and_then(|one| one.token.as_ref()) {
        Some(exchanged) if live(exchanged).await?.is_none() => Ok(None),
        _ => Ok(Some(token)),
    }
}

/// A page of the tokens that were not revoked, in the order of their names, from behind `after`, and where the next
/// one begins.
pub async fn list(
    scope: Scope<'_, impl Platform>,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Token>, Option<String>), Unreachable> {
    let (platform, organization) = scope.parts();
    let names = platform
        .list(&TokenName::partition(organization), "", after, limit)
        .await?;
    let next = (names.len() == limit)
        .then(|| names.last()?.get("sk")?.as_str().map(str::to_owned))
        .flatten();
    let hashes = names.iter().filter_map(|name| name.get("hash")?.as_str());
    let keys: Vec<_> = hashes.map(Token::at).collect();
    let tokens = rows::load_many::<Token>(platform, &keys).await?;
    let mut tokens: Vec<Token> = tokens.into_iter().map(|stored| stored.row).collect();
    tokens.retain(|token| token.revoked_at.is_none());
    tokens.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((tokens, next))
}

/// Gives a token, by its name or its id, a new text with the same rights and, where it has one, the same lifetime from now
/// on. The old text works [for a while](rotation).
pub async fn rotate(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
    overlap_secs: Option<u64>,
    by: By<'_>,
) -> Result<CreatedToken, Error> {
    let platform = scope.platform;
    let overlap = rotation::overlap(overlap_secs).map_err(|fault| Error::Faults(vec![fault]))?;
    let (mut named, mut old) = live_or_expired(scope, name_or_id, by).await?;
    let now = platform.now();
    let previous = old.row.previous.take();
    let ends = rotation::ends(previous.as_ref(), old.row.valid_until, overlap, now);
    let ends = ends.map_err(Error::Overlapping)?;
    if !old.row.is_live(now) {
        quotas::room(scope, Quota::Tokens).await?;
    }
    let lifetime = old.row.valid_until.map(|until| {
        let since = old.row.rotated_at.unwrap_or(old.row.created_at);
        until.since(since)
    });
    let text = text(platform, prefix(&old.row.workflows));
    let token = Token {
        hash: hash(&text),
        valid_until: lifetime.map(|lifetime| now.plus(lifetime)),
        rotated_at: Some(now),
        previous: (now < ends).then(|| Previous {
            hash: old.row.hash.clone(),
            valid_until: ends,
        }),
        ..old.row.clone()
    };
    old.row.valid_until = Some(ends);
    named.row.hash.clone_from(&token.hash);
    named.row.valid_until = token.valid_until;
    let until = match token.previous {
        Some(_) => format!("the text before works until {ends}"),
        None => "the text before has ended".to_owned(),
    };
    let detail = format!("{}; {until}", told(&token));
    let subject = Subject::new(&token.name, &token.id);
    let mut writes = vec![
        rows::insert(platform, &token).0,
        named.update(platform).0,
        old.update(platform).0,
        by.act.entry(scope, subject, detail),
    ];
    if let Some(mut oldest) = still_live(platform, previous.as_ref()).await? {
        oldest.row.valid_until = Some(now);
        writes.push(oldest.update(platform).0);
    }
    let (event, news) = (Event::TokenExpiring, expiring(&token));
    writes.extend(notices::ends_instead(scope, event, &news, token.valid_until).await?);
    platform.write(writes).await?;
    Ok(CreatedToken { text, token })
}

/// The token of a text from before a rotation, while it works.
async fn still_live(
    platform: &impl Platform,
    previous: Option<&Previous>,
) -> Result<Option<Stored<Token>>, Unreachable> {
    let Some(Previous { hash, .. }) = previous else {
        return Ok(None);
    };
    let stored = rows::load::<Token>(platform, &Token::at(hash)).await?;
    Ok(stored.filter(|stored| stored.row.is_live(platform.now())))
}

/// Revokes a token by its name or its id: whoever asks who its bearer is, is told nobody from now on.
pub async fn revoke(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
    by: By<'_>,
) -> Result<Token, Error> {
    let platform = scope.platform;
    let (named, mut token) = live_or_expired(scope, name_or_id, by).await?;
    token.row.revoked_at = Some(platform.now());
    let subject = Subject::new(&token.row.name, &token.row.id);
    let detail = token.row.role.to_string();
    let mut writes = vec![
        token.update(platform).0,
        named.delete(),
        by.act.entry(scope, subject, detail),
    ];
    if let Some(mut old) = still_live(platform, token.row.previous.as_ref()).await? {
        old.row.revoked_at = token.row.revoked_at;
        writes.push(old.update(platform).0);
    }
    writes.extend(notices::forget(scope, Event::TokenExpiring, &token.row.id).await?);
    platform.write(writes).await?;
    Ok(token.row)
}

/// Loads a token that was not revoked, which the caller's role has to cover.
async fn live_or_expired(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
    by: By<'_>,
) -> Result<(Stored<TokenName>, Stored<Token>), Error> {
    let missing = || Error::NotFound(name_or_id.to_owned());
    let named = named(scope, name_or_id).await?.ok_or_else(missing)?;
    let token = rows::load::<Token>(scope.platform, &Token::at(&named.row.hash)).await?;
    let token = token.ok_or_else(missing)?;
    if !by.role.covers(token.row.role) {
        return Err(Error::Above {
            own: by.role,
            other: token.row.role,
        });
    }
    Ok((named, token))
}

async fn named(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
) -> Result<Option<Stored<TokenName>>, Unreachable> {
    let (platform, organization) = scope.parts();
    if is_label(name_or_id) {
        let at = TokenName::at(organization, name_or_id);
        if let Some(named) = rows::load::<TokenName>(platform, &at).await? {
            return Ok(Some(named));
        }
    }
    // Ids are looked for seldom, and tokens are few.
    let all =
        rows::load_all::<TokenName>(platform, &TokenName::partition(organization), "").await?;
    Ok(all.into_iter().find(|named| named.row.token == name_or_id))
}

/// Makes sure that the organization exists. Whether it was made now.
pub async fn organization(
    platform: &impl Platform,
    name: &OrganizationName,
) -> Result<bool, Unreachable> {
    let row = Organization {
        organization: name.clone(),
        created_at: platform.now(),
        external_id: None,
    };
    let (write, _) = rows::insert(platform, &row);
    platform.write(vec![write]).await.unless_conflict()
}
