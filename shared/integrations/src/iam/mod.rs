//! Roles at AWS that an organization lends us, assumed for an hour instead of keys that would have to be kept.
//!
//! Three parties decide: the stack, by names of roles that its functions may assume; whoever has the role, by a trust
//! policy that asks for an external ID; and we, since the external ID is the organization's own, which nobody fills in.
//! So a role that one organization may use is refused to all others, although the same function asks for both.

mod sts;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use url::Url;

use crate::caller::Kept;
use crate::{Error, Http, SecretText};

pub use crate::caller::{AccessKey, Caller, host};

/// The input of a registration that names a role.
pub const INPUT: &str = "role_arn";

/// Name of a role: `arn:aws:iam::111122223333:role/chainloop-sboms`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct RoleArn(String);

impl RoleArn {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `aws`, or that of China or of a government.
    pub(crate) fn partition(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }
}

impl fmt::Display for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RoleArn {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_account = |text: &str| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
        let is_partition = |text: &str| {
            text.starts_with("aws") && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        };
        let is_path = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@/-".contains(&b))
                && text.split('/').all(|part| !part.is_empty())
        };
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let fits = match parts[..] {
            ["arn", partition, "iam", "", account, role] => {
                is_partition(partition)
                    && is_account(account)
                    && role.strip_prefix("role/").is_some_and(is_path)
            }
            _ => false,
        };
        match fits && text.len() <= 600 {
            true => Ok(Self(text)),
            false => Err(
                "must be the ARN of a role, as in arn:aws:iam::111122223333:role/chainloop-sboms",
            ),
        }
    }
}

impl JsonSchema for RoleArn {
    fn schema_name() -> Cow<'static, str> {
        "RoleArn".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 600,
            "examples": ["arn:aws:iam::111122223333:role/chainloop-sboms"],
        })
    }
}

impl Http {
    /// The same client, which can assume roles.
    #[must_use]
    pub fn calling_as(mut self, caller: Caller) -> Self {
        self.caller = Some(Arc::new(caller));
        self
    }

    /// The same client, on behalf of the organization that has this external ID.
    #[must_use]
    pub(crate) fn on_behalf_of(&self, external_id: Option<&str>) -> Self {
        let mut other = self.clone();
        other.external_id = external_id.map(Arc::from);
        other
    }

    /// The function as AWS knows it.
    pub(crate) fn caller(&self) -> Result<&Caller, Error> {
        let caller = self.caller.as_deref();
        caller.ok_or_else(|| Error::permanent("ask AWS: this function has no role of its own"))
    }

    /// Passwords of registries, which roles got.
    pub(crate) fn tokens(&self) -> Result<&Kept<SecretText>, Error> {
        Ok(&self.caller()?.cache.tokens)
    }

    /// Refuses the stack's own bucket, under each name by which a request could reach it.
    pub(crate) fn refuse_own_bucket(&self, url: &str, bucket: &str) -> Result<(), Error> {
        let own = self.caller.as_deref().map(|caller| caller.bucket.as_str());
        let Some(own) = own.filter(|own| !own.is_empty()) else {
            return Ok(());
        };
        let is_reached = Url::parse(url).is_ok_and(|url| {
            let path = percent_encoding::percent_decode_str(url.path()).decode_utf8_lossy();
            let host = url.host_str().unwrap_or_default();
            path.split('/').any(|part| part == own)
                || host
                    .strip_prefix(own)
                    .is_some_and(|rest| rest.starts_with('.'))
        });
        match is_reached || bucket == own {
            true => Err(Error::permanent(format!(
                "write to {own}: it is the stack's own bucket, which no delivery may go to"
            ))),
            false => Ok(()),
        }
    }
}

/// As IAM compares: `*` is anything, slashes too, and `?` one letter.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let (mut at, mut asked) = (0, 0);
    // Where the last star stands, and how far its text went.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(asked) {
            Some(b'*') => {
                star = Some((asked, at));
                asked += 1;
            }
            Some(letter) if *letter == b'?' || *letter == text[at] => {
                at += 1;
                asked += 1;
            }
            _ => match star {
                Some((place, taken)) => {
                    star = Some((place, taken + 1));
                    asked = place + 1;
                    at = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[asked..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
pub(crate) mod tests;
