//! Messages in the queues of integrations: which delivery is to be attempted, or asked about.

use std::time::Duration;

use api::{DeliveryId, OrganizationName};
use serde::{Deserialize, Serialize};

use crate::store::platform;
use crate::store::rows::Delivery;

/// Body of a queue message: IDs, never a payload, never a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

    /// Reads a message's text, or says why it cannot be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let message: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if message.v != Self::VERSION {
            return Err(format!("version {} is not known here", message.v));
        }
        Ok(message)
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
