//! API tokens.

use std::fmt;
use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names;
use crate::permission::Role;
use crate::timestamp::Timestamp;

/// The shortest and the longest time that a token with an end can be valid: a minute, ten years.
pub const VALID_SECS: RangeInclusive<u64> = 60..=10 * 366 * 24 * 60 * 60;

/// Body of `POST /v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    #[schemars(regex(pattern = names::LABEL))]
    pub name: String,
    pub role: Role,
    /// Seconds of validity, from a minute to ten years; default: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *VALID_SECS.start(), max = *VALID_SECS.end()))]
    pub expires_in_secs: Option<u64>,
}

/// A token; never its text.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    pub id: String,
    pub name: String,
    pub role: Role,
    /// The name of the token that made it.
    pub created_by: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// Its time is over.
    #[serde(default)]
    pub expired: bool,
}

/// Response of `POST /v1/tokens`: the token, and its text, which is shown once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "CreatedToken")]
pub struct Created {
    pub text: String,
    #[serde(flatten)]
    pub token: Token,
}

impl fmt::Debug for Created {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Created({:?})", self.token)
    }
}
