//! API tokens: opaque, shown once, kept as a hash, with a role.

use attestation::Digest;

use crate::platform::{Expect, Platform, Unreachable, WriteError};
use crate::rows::{self, Organization, Role, Token};

/// What a token's text begins with, so that scanners for leaked secrets find it.
pub const PREFIX: &str = "cli_";

/// A new token's text: 256 random bits. Shown once.
pub struct NewToken {
    pub text: String,
    pub id: String,
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

/// Makes a token.
pub async fn create(
    platform: &impl Platform,
    organization: &str,
    name: &str,
    role: Role,
) -> Result<NewToken, WriteError> {
    let text = text(platform, PREFIX);
    let token = Token {
        hash: hash(&text),
        id: crate::register::id(platform),
        organization: organization.to_owned(),
        name: name.to_owned(),
        role,
        created_at: platform.now(),
        revoked_at: None,
    };
    platform
        .write(vec![rows::put(platform, &token, Expect::Absent).0])
        .await?;
    Ok(NewToken { text, id: token.id })
}

/// Who a token's bearer is; none when it is unknown or revoked.
pub async fn find(platform: &impl Platform, text: &str) -> Result<Option<Token>, Unreachable> {
    if !text.starts_with(PREFIX) || text.len() > 256 {
        return Ok(None);
    }
    let stored = rows::load::<Token>(platform, &Token::at(&hash(text))).await?;
    Ok(stored
        .map(|stored| stored.row)
        .filter(|token| token.revoked_at.is_none()))
}

/// Makes sure that the organization exists. Whether it was made now.
pub async fn organization(platform: &impl Platform, name: &str) -> Result<bool, Unreachable> {
    let row = Organization {
        organization: name.to_owned(),
        created_at: platform.now(),
    };
    match platform
        .write(vec![rows::put(platform, &row, Expect::Absent).0])
        .await
    {
        Ok(()) => Ok(true),
        Err(WriteError::Conflict) => Ok(false),
        Err(WriteError::Unreachable(unreachable)) => Err(unreachable),
    }
}
