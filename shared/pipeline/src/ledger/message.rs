//! Messages in the queues of integrations: which delivery is to be attempted, or asked about.

use std::time::Duration;

use api::{DeliveryId, OrganizationName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::platform;
use crate::store::rows::Delivery;

/// Why a message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is another release's, whose functions take it during an upgrade: it goes back to its queue.
    #[error("read a message of version {0}, which this release does not know")]
    Version(u32),
    /// No release could read it.
    #[error("{0}")]
    Malformed(String),
}

/// Reads a message of this version. Fields that this release does not know are left out: what must not be left out is a
/// new version.
pub fn parse<M: DeserializeOwned>(text: &str, version: u32) -> Result<M, Unreadable> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let malformed = |error: serde_json::Error| Unreadable::Malformed(error.to_string());
    let Versioned { v } = serde_json::from_str(text).map_err(malformed)?;
    if v != version {
        return Err(Unreadable::Version(v));
    }
    serde_json::from_str(text).map_err(malformed)
}

/// Body of a queue message: IDs, never a payload, never a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Version of this shape: [`Message::VERSION`].
    pub v: u32,
    pub organization: OrganizationName,
    pub delivery: DeliveryId,
    pub attempt: u32,
    /// Not to deliver, but to ask what became of what was delivered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
}

impl Message {
    pub const VERSION: u32 = 1;

    pub fn of(delivery: &Delivery) -> Self {
        Self {
            v: Self::VERSION,
            organization: delivery.organization.clone(),
            delivery: delivery.id.clone(),
            attempt: delivery.attempt,
            follow: false,
        }
    }

    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        parse(text, Self::VERSION)
    }

    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("ids and numbers are JSON")
    }

    pub fn send_after(&self, delay: Duration) -> platform::Message {
        platform::Message {
            body: self.text(),
            group: self.organization.clone(),
            delay,
        }
    }
}
