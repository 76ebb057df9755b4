//! Places that have evidence of a digest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::deliveries::Delivery;

/// A delivery of an attestation that has a digest, or names it as a subject's or a material's.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    #[serde(flatten)]
    pub delivery: Delivery,
    /// The third party's receipt names the digest: a material that was sent, or an image that the attestation is
    /// listed with. Otherwise it is the attestation that was delivered there.
    pub in_receipt: bool,
}

/// Response of `POST /v1/deliveries/{delivery}/check`: whether the third party still has what was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Presence {
    pub state: PresenceState,
    /// None where it is there.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PresenceState {
    There,
    /// The third party does not have it, where the registration leads today.
    Gone,
    /// The third party offers no way to ask, refuses, or was not reached.
    Unknown,
}

impl Presence {
    pub const THERE: Self = Self {
        state: PresenceState::There,
        reason: None,
    };

    /// Presence of `all` things, of which no more than the first `most` were looked for, and found.
    pub fn of_first(most: usize, all: usize, things: &str) -> Self {
        match all > most {
            false => Self::THERE,
            true => Self::unknown(format!(
                "the first {most} of {all} {things} are there; the others were not looked for"
            )),
        }
    }

    pub fn gone(reason: impl Into<String>) -> Self {
        Self {
            state: PresenceState::Gone,
            reason: Some(reason.into()),
        }
    }

    pub fn unknown(reason: impl Into<String>) -> Self {
        Self {
            state: PresenceState::Unknown,
            reason: Some(reason.into()),
        }
    }
}
