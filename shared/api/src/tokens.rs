//! API tokens.

use std::fmt;
use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attachments::given;
use crate::ids::OrganizationName;
use crate::names;
use crate::permission::Role;
use crate::timestamp::Timestamp;
use crate::workflows::{self, Selector};

/// The shortest and the longest time that a token with an end can be valid: a minute, ten years.
pub const VALID_SECS: RangeInclusive<u64> = 60..=10 * 366 * 24 * 60 * 60;

/// Validity of a token that was made without saying how long: 90 days.
pub const DEFAULT_SECS: u64 = 90 * 24 * 60 * 60;

/// Workflows that a token names at most, and bytes that they have together: the gateway hands them to every function.
pub const WORKFLOWS_MOST: usize = 16;
pub const WORKFLOWS_MAX_BYTES: usize = 2048;

/// The longest time that a token from an exchange is valid: an hour.
pub const EXCHANGED_MOST_SECS: u64 = 60 * 60;

/// Reads the workflows that a token is to be restricted to, or says what is wrong with them.
pub fn workflows(named: &[Selector]) -> Result<Vec<Selector>, String> {
    if named.len() > WORKFLOWS_MOST {
        return Err(format!("must be at most {WORKFLOWS_MOST}"));
    }
    let read = |one: &Selector| workflows::selector(&one.0, None);
    let read: Result<Vec<_>, _> = named.iter().map(read).collect();
    let mut read = read.map_err(|wrong| wrong.detail)?;
    read.sort();
    read.dedup();
    if read.iter().map(|one| one.0.len()).sum::<usize>() > WORKFLOWS_MAX_BYTES {
        return Err(format!(
            "must have at most {WORKFLOWS_MAX_BYTES} bytes together"
        ));
    }
    Ok(read)
}

/// Body of `POST /v1/tokens/exchange`: what is exchanged, and the token that is wanted for it.
// Not printable: it holds a secret.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// A JWT of one of the organization's issuers. Either this or `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<String>,
    /// The organization, with `jwt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<OrganizationName>,
    /// A token of this API, that does not come from an exchange itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// No more than the rule's or the token's own, which is the default. Not admin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Workflows within those that the rule or the token is restricted to, which are the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = WORKFLOWS_MOST))]
    pub workflows: Vec<Selector>,
    /// Seconds of validity, from a minute to an hour, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *VALID_SECS.start(), max = EXCHANGED_MOST_SECS))]
    pub expires_in_secs: Option<u64>,
}

/// Body of `POST /v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    #[schemars(regex(pattern = names::LABEL))]
    pub name: String,
    pub role: Role,
    /// Seconds of validity, from a minute to ten years; default: 90 days; null for a token that does not expire.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<u64>", range(min = *VALID_SECS.start(), max = *VALID_SECS.end()))]
    pub expires_in_secs: Option<Option<u64>>,
    /// Workflows that the token is restricted to: an id, `project/name`, `project/*`, or `*`; not restricted when empty.
    /// An id is needed here for attachments to that id, whatever names come with it, and the other way round. For the
    /// roles producer and viewer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = WORKFLOWS_MOST))]
    pub workflows: Vec<Selector>,
}

/// The longest overlap of a rotation: 30 days.
pub const OVERLAP_MOST_SECS: u64 = 30 * 24 * 60 * 60;

/// Body of a rotation, of a token or an intake.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Seconds for which what was used before still works; default: a day. With 0, all that is older ends at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = OVERLAP_MOST_SECS))]
    pub overlap_secs: Option<u64>,
}

/// A token; never its text.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    pub id: String,
    pub name: String,
    pub role: Role,
    /// Workflows that it is restricted to; not restricted when empty.
    #[serde(default)]
    pub workflows: Vec<Selector>,
    /// The name of the token that made it.
    pub created_by: String,
    pub created_at: Timestamp,
    #[serde(default)]
    pub rotated_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    /// End of the overlap, while the text before the newest one still works.
    #[serde(default)]
    pub overlap_until: Option<Timestamp>,
    /// Its time is over.
    #[serde(default)]
    pub expired: bool,
    /// Time of the last use, to within an hour; none when that is longer ago than the retention.
    #[serde(default)]
    pub last_used_at: Option<Timestamp>,
    /// Address of the last use.
    #[serde(default)]
    pub last_used_from: Option<String>,
}

/// Response of `POST /v1/tokens`, and of a rotation: the token, and its text, which is shown once.
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
