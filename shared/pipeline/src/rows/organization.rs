//! Whose rows they are, and who may ask.

use std::fmt;

use schemars::JsonSchema;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// What a Chainloop control plane posts to: a URL of the organization's own, which holds a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Intake {
    pub organization: String,
    /// Unique in the organization.
    pub name: String,
    pub id: String,
    /// Of its token: SHA-256 of the text, in hex.
    pub hash: String,
    /// Where Chainloop's artifacts are fetched, if they are; the token for that is a secret.
    #[serde(default)]
    pub cas_url: Option<String>,
    /// The name of the token that asked for it.
    pub created_by: String,
    pub created_at: Timestamp,
}

impl Intake {
    pub fn partition(organization: &str) -> String {
        format!("intakes/{organization}")
    }

    pub fn at(organization: &str, name: &str) -> Key {
        Key::new(Self::partition(organization), name)
    }

    /// The platform puts what the stack owns before it.
    pub fn secret_name(organization: &str, id: &str) -> String {
        format!("intake/{organization}/{id}")
    }
}

impl Row for Intake {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.name)
    }
}

/// Finds an intake by the hash of its token. Without this row nobody comes in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IntakeToken {
    pub hash: String,
    pub organization: String,
    pub name: String,
    pub id: String,
    /// Materials that are not here are fetched.
    pub fetches: bool,
    pub created_at: Timestamp,
}

impl IntakeToken {
    pub fn at(hash: &str) -> Key {
        Key::new(format!("intake/{hash}"), "intake")
    }
}

impl Row for IntakeToken {
    fn key(&self) -> Key {
        Self::at(&self.hash)
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
        format!("tokens/{organization}")
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
