//! Whose rows they are, and who may ask.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Row;
use crate::clock::Timestamp;
use crate::platform::Key;

// A row's own `expires_at` is the table's: when the row may be forgotten. A token's end is `valid_until`.

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Organization {
    pub organization: String,
    pub created_at: Timestamp,
}

impl Organization {
    pub fn at(organization: &str) -> Key {
        Key::new(format!("org/{organization}"), "organization")
    }
}

impl Row for Organization {
    fn key(&self) -> Key {
        Self::at(&self.organization)
    }
}

/// What the bearer of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Admin,
    Operator,
    Viewer,
    Producer,
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Producer => "producer",
        })
    }
}

/// An API token, known by the hash of its text alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the token's text, in hex.
    pub hash: String,
    pub id: String,
    pub organization: String,
    pub name: String,
    pub role: Role,
    /// The name of the token that made it.
    #[serde(default)]
    pub created_by: String,
    pub created_at: Timestamp,
    /// From then on it is nobody's; none when it has no end.
    #[serde(default)]
    pub valid_until: Option<Timestamp>,
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    pub fn at(hash: &str) -> Key {
        Key::new(format!("token/{hash}"), "token")
    }

    /// Whether its bearer may still ask for something.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.valid_until.is_none_or(|until| now < until)
    }
}

impl Row for Token {
    fn key(&self) -> Key {
        Self::at(&self.hash)
    }

    fn kept_since(&self) -> Option<Timestamp> {
        self.revoked_at.or(self.valid_until)
    }
}

/// The name of a token that was not revoked: makes it unique, so that the audit log says who it was, and lists the
/// organization's tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenName {
    pub organization: String,
    pub name: String,
    /// The token's id.
    pub token: String,
    pub hash: String,
    /// As the token's own.
    #[serde(default)]
    pub valid_until: Option<Timestamp>,
}

impl TokenName {
    pub fn partition(organization: &str) -> String {
        format!("org/{organization}/tokens")
    }

    pub fn at(organization: &str, name: &str) -> Key {
        Key::new(Self::partition(organization), name)
    }
}

impl Row for TokenName {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.name)
    }

    fn kept_since(&self) -> Option<Timestamp> {
        self.valid_until
    }
}
