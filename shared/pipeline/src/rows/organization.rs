//! Whose rows they are, and who may ask.

use serde::{Deserialize, Serialize};

use super::Row;
use crate::clock::Timestamp;
use crate::platform::Key;

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

/// An API token, known by the hash of its text alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the token's text, in hex.
    pub hash: String,
    pub id: String,
    pub organization: String,
    pub name: String,
    pub role: Role,
    pub created_at: Timestamp,
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    pub fn at(hash: &str) -> Key {
        Key::new(format!("token/{hash}"), "token")
    }
}

impl Row for Token {
    fn key(&self) -> Key {
        Self::at(&self.hash)
    }
}
