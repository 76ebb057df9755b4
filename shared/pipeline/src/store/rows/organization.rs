//! Organizations, their tokens and their intakes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use api::workflows::Selector;
use api::{Actor, Client, IntakeId, Kind, Network, OrganizationName, Role, Timestamp};
use serde::{Deserialize, Serialize};

use super::row::Row;
use crate::store::platform::Key;

// A row's own `expires_at` is the table's: when the row may be forgotten. A token's end is `valid_until`.

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Organization {
    pub organization: OrganizationName,
    pub created_at: Timestamp,
    /// What the organization's roles at AWS ask for before they are assumed; none before the first is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

impl Organization {
    pub fn at(organization: &OrganizationName) -> Key {
        Key::new(format!("org/{organization}"), "organization")
    }
}

impl Row for Organization {
    fn key(&self) -> Key {
        Self::at(&self.organization)
    }
}

/// Conditions that an intake sets on what is posted to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// Addresses that may post; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_from: Vec<Network>,
    /// Workflows whose attestations are accepted; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workflows: Vec<Selector>,
}

impl Conditions {
    /// Reports whether an address may post. An unknown one may not if the intake restricts addresses.
    pub fn allows(&self, address: &str) -> bool {
        let address: Option<IpAddr> = address.parse().ok();
        let is_in = |address| self.allow_from.iter().any(|one| one.contains(address));
        self.allow_from.is_empty() || address.is_some_and(is_in)
    }
}

/// The text that a token, or an intake's URL, had before its last rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    pub hash: String,
    /// End of the overlap.
    pub valid_until: Timestamp,
}

/// URL of an organization that a Chainloop control plane posts to; it contains a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Intake {
    pub organization: OrganizationName,
    /// Unique in the organization.
    pub name: String,
    pub id: IntakeId,
    /// Hash of its token: SHA-256 of the text, in hex.
    pub hash: String,
    /// URL from which Chainloop's artifacts are fetched, if they are; the token for it is a secret.
    #[serde(default)]
    pub cas_url: Option<String>,
    #[serde(flatten)]
    pub conditions: Conditions,
    /// Lifetime of each of its URLs; without an end when none.
    #[serde(default)]
    pub valid_for_secs: Option<u64>,
    /// End of its newest URL.
    #[serde(default)]
    pub valid_until: Option<Timestamp>,
    #[serde(default)]
    pub previous: Option<Previous>,
    #[serde(default)]
    pub rotated_at: Option<Timestamp>,
    /// The name of the token that asked for it.
    pub created_by: String,
    pub created_at: Timestamp,
}

impl Intake {
    pub fn partition(organization: &OrganizationName) -> String {
        format!("intakes/{organization}")
    }

    pub fn at(organization: &OrganizationName, name: &str) -> Key {
        Key::new(Self::partition(organization), name)
    }

    /// The platform puts what the stack owns before it.
    pub fn secret_name(organization: &OrganizationName, id: &IntakeId) -> String {
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
    pub organization: OrganizationName,
    pub name: String,
    pub id: IntakeId,
    /// Materials that are not here are fetched.
    pub fetches: bool,
    #[serde(flatten)]
    pub conditions: Conditions,
    /// From then on it opens nothing; none when it has no end.
    #[serde(default)]
    pub valid_until: Option<Timestamp>,
    pub created_at: Timestamp,
}

impl IntakeToken {
    pub fn at(hash: &str) -> Key {
        Key::new(format!("intake/{hash}"), "intake")
    }

    pub fn is_live(&self, now: Timestamp) -> bool {
        self.valid_until.is_none_or(|until| now < until)
    }

    /// The one who posts to it.
    pub fn actor(&self, client: &Client) -> Actor {
        Actor {
            kind: Kind::Intake,
            name: self.name.clone(),
            id: self.id.to_string(),
            client: client.clone(),
        }
    }
}

impl Row for IntakeToken {
    fn key(&self) -> Key {
        Self::at(&self.hash)
    }
}

/// Last use of an intake, and when its refusals were last told. A row of its own, because the function that accepts may
/// write no intake.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IntakeUse {
    pub organization: OrganizationName,
    /// The intake's id.
    pub intake: IntakeId,
    #[serde(default)]
    pub last_used: Option<LastUse>,
    /// When the audit log last had an entry of each kind.
    #[serde(default)]
    pub refused: BTreeMap<Refusal, Timestamp>,
}

/// A use of a token or an intake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastUse {
    pub at: Timestamp,
    /// Empty when it is not known.
    pub address: String,
}

impl LastUse {
    /// Returns its time and its address, as far as they are known.
    pub fn parts(used: Option<Self>) -> (Option<Timestamp>, Option<String>) {
        let at = used.as_ref().map(|used| used.at);
        let from = used.map(|used| used.address);
        (at, from.filter(|address| !address.is_empty()))
    }
}

/// Reason why an intake refused what was posted to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refusal {
    Expired,
    Address,
    Workflow,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Expired => "the URL has expired",
            Self::Address => "the address is not allowed",
            Self::Workflow => "the workflow is not allowed",
        })
    }
}

impl IntakeUse {
    pub fn at(organization: &OrganizationName, intake: &IntakeId) -> Key {
        // Not below `intake`, where only the owner of intakes may write.
        Key::new(
            format!("org/{organization}/intakes"),
            format!("use/{intake}"),
        )
    }

    /// An intake that nobody has used.
    pub fn none(organization: &OrganizationName, intake: &IntakeId) -> Self {
        Self {
            organization: organization.to_owned(),
            intake: intake.to_owned(),
            last_used: None,
            refused: BTreeMap::new(),
        }
    }
}

impl Row for IntakeUse {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.intake)
    }
}

/// An API token, known by the hash of its text alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the token's text, in hex.
    pub hash: String,
    pub id: String,
    pub organization: OrganizationName,
    pub name: String,
    pub role: Role,
    /// Workflows that it is restricted to; not restricted when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workflows: Vec<Selector>,
    /// The name of the token that made it.
    #[serde(default)]
    pub created_by: String,
    pub created_at: Timestamp,
    /// From then on it is nobody's; none when it has no end.
    #[serde(default)]
    pub valid_until: Option<Timestamp>,
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Timestamp>,
    /// The row of that text is another one with the same id, which no name leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// Of a token that comes from an exchange. It has no [`TokenName`]: its name is that of what was exchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Exchange>,
}

/// The thing that a token was exchanged for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exchange {
    /// Hash of a token; none of a JWT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl Token {
    pub fn at(hash: &str) -> Key {
        Key::new(format!("token/{hash}"), "token")
    }

    /// Reports whether the token is neither revoked nor expired.
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

    fn kept_for(&self) -> Option<Duration> {
        // There are many of them, and the audit log says what each was.
        let day = Duration::from_hours(24);
        self.exchange.as_ref().map(|_| day)
    }
}

/// A JWT that was exchanged: none is twice, whichever organizations trust its issuer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExchangedJwt {
    /// SHA-256 of its issuer and of what makes it one, in hex.
    pub hash: String,
    pub at: Timestamp,
}

impl ExchangedJwt {
    pub fn at(hash: &str) -> Key {
        // Where no other function may write.
        Key::new(format!("token/{hash}"), "jwt")
    }
}

impl Row for ExchangedJwt {
    fn key(&self) -> Key {
        Self::at(&self.hash)
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.at)
    }

    fn kept_for(&self) -> Option<Duration> {
        // Longer than it can be exchanged.
        Some(Duration::from_hours(1))
    }
}

/// The name of a token that was not revoked: makes it unique, so that the audit log says who it was, and lists the
/// organization's tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenName {
    pub organization: OrganizationName,
    pub name: String,
    /// The token's id.
    pub token: String,
    pub hash: String,
    /// As the token's own.
    #[serde(default)]
    pub valid_until: Option<Timestamp>,
}

impl TokenName {
    pub fn partition(organization: &OrganizationName) -> String {
        format!("tokens/{organization}")
    }

    pub fn at(organization: &OrganizationName, name: &str) -> Key {
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

/// Last use of a token. A row of its own, and not where tokens are, because each function of the API writes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenUse {
    pub organization: OrganizationName,
    /// The token's id.
    pub token: String,
    #[serde(default)]
    pub last_used: Option<LastUse>,
}

impl TokenUse {
    pub fn at(organization: &OrganizationName, token: &str) -> Key {
        Key::new(format!("used/{organization}"), token)
    }
}

impl Row for TokenUse {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.token)
    }

    fn kept_since(&self) -> Option<Timestamp> {
        self.last_used.as_ref().map(|last| last.at)
    }
}

/// The checks that a token has taken: requests for which a third party is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Paced {
    pub organization: OrganizationName,
    /// The token's id.
    pub token: String,
    /// Behind the clock where nothing is taken ahead of time.
    pub taken_until: Timestamp,
}

impl Paced {
    pub fn at(organization: &OrganizationName, token: &str) -> Key {
        Key::new(
            format!("org/{organization}/checks"),
            format!("token/{token}"),
        )
    }
}

impl Row for Paced {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.token)
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.taken_until)
    }

    fn kept_for(&self) -> Option<Duration> {
        Some(Duration::from_hours(1))
    }
}
