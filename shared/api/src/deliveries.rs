//! Deliveries and their attempts.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use attestation::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{AttachmentId, DeliveryId, RegistrationId};
use crate::timestamp::Timestamp;
use crate::workflows::{Selector, Workflow};

/// Response of `POST /v1/deliveries/{delivery}/redeliver`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Redelivered {
    /// The delivery that is under way: a new one, or the same when it was still waiting.
    pub id: DeliveryId,
}

/// Response of `GET /v1/deliveries/{delivery}/receipt`: a DSSE envelope.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DeliveryReceipt")]
pub struct Receipt {
    pub payload_type: String,
    /// An in-toto statement about the delivery, in base64.
    pub payload: String,
    pub signatures: Vec<Signature>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ReceiptSignature")]
pub struct Signature {
    /// ID of the key.
    pub keyid: String,
    /// ECDSA over the SHA-256 of DSSE's encoding of the payload, in DER, in base64.
    pub sig: String,
}

/// Response of `GET /v1/receipt-key`: the public key that receipts are verified with.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptKey {
    /// Digest of the key in DER.
    pub id: Digest,
    pub pem: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Delivery {
    pub id: DeliveryId,
    pub state: State,
    /// The attempt that is next, or running; the last one when it is final.
    pub attempt: u32,
    pub reason: Option<String>,
    pub integration: String,
    /// The registration's id.
    pub registration: RegistrationId,
    /// The registration's name today; none when its row is gone, or not for whoever asks.
    #[serde(default)]
    pub registration_name: Option<String>,
    pub attachment: AttachmentId,
    pub attestation: Digest,
    /// Digest of the attestation's bytes that are delivered.
    #[serde(default)]
    pub received: Option<Digest>,
    /// Number of those bytes; none when it was planned before they were counted.
    #[serde(default)]
    pub size_bytes: Option<u64>,
    pub workflow: Workflow,
    /// The attachment's, which was for that workflow when the delivery was planned: an id, `project/name`, `project/*`,
    /// or `*`. None when that is not known, or not for whoever asks.
    #[serde(default)]
    pub selector: Option<Selector>,
    /// 0 for the delivery that the acceptance planned; later ones are redeliveries and backfills.
    #[serde(default)]
    pub generation: u32,
    /// Since when it is held because its registration is paused.
    #[serde(default)]
    pub held_at: Option<Timestamp>,
    /// When the next attempt is due; none when there is none.
    pub due_at: Option<Timestamp>,
    /// The third party's names for what it received. In a list, none of more than 16 KiB.
    pub receipt: Option<Map<String, Value>>,
    /// Steps that are finished, until it is delivered; in a list, the first of them alone.
    pub progress: BTreeMap<String, Value>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// In `GET /v1/deliveries/{delivery}` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    pub number: u32,
    pub ending: AttemptOutcome,
    pub started_at: Timestamp,
    pub duration_ms: u64,
    /// HTTP status of the last response, or what the protocol has in its place.
    pub status: Option<u16>,
    /// Bytes of the bodies that were sent; none where nothing was, or nothing counts them.
    pub sent_bytes: Option<u64>,
    pub detail: Option<String>,
    /// The beginning of the third party's answer, secrets removed; none when it is not for whoever asks.
    pub answer: Option<String>,
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "DeliveryState")]
pub enum State {
    Pending,
    Delivering,
    Delivered,
    Skipped,
    Failed,
    Cancelled,
}

impl State {
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Delivering)
    }
}

/// Outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "AttemptEnding")]
pub enum AttemptOutcome {
    Delivered,
    Skipped,
    /// Refused for now, or never reached.
    Retryable,
    /// Sent, and no answer came.
    Unanswered,
    Permanent,
    /// The function ended in the midst of it.
    Crashed,
    /// Nothing was sent because the attachment or the registration is gone.
    Cancelled,
}

/// Answers of third parties that deliveries are looked for by: `503`, `5xx`, or `none` where there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusFilter {
    Exact(u16),
    /// By its first digit.
    Class(u16),
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a status such as 503, a class such as 5xx, or none")]
pub struct NotAStatus;

impl StatusFilter {
    /// A regular expression of its texts.
    pub const PATTERN: &str = "^([1-5]([0-9]{2}|xx)|none)$";

    /// Reports whether an attempt with this status is meant.
    pub fn is(self, status: Option<u16>) -> bool {
        match self {
            Self::Exact(wanted) => status == Some(wanted),
            Self::Class(class) => status.is_some_and(|status| status / 100 == class),
            Self::None => status.is_none(),
        }
    }
}

impl FromStr for StatusFilter {
    type Err = NotAStatus;

    fn from_str(text: &str) -> Result<Self, NotAStatus> {
        match text.as_bytes() {
            b"none" => Ok(Self::None),
            [class @ b'1'..=b'5', b'x', b'x'] => Ok(Self::Class(u16::from(class - b'0'))),
            [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] => {
                text.parse().map(Self::Exact).map_err(|_| NotAStatus)
            }
            _ => Err(NotAStatus),
        }
    }
}

impl fmt::Display for StatusFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(status) => write!(formatter, "{status}"),
            Self::Class(class) => write!(formatter, "{class}xx"),
            Self::None => formatter.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_looked_for_by_itself_its_class_or_its_absence() {
        for (text, yes, no) in [
            ("503", &[Some(503)][..], &[Some(500), Some(5), None][..]),
            (
                "5xx",
                &[Some(500), Some(599)],
                &[Some(499), Some(600), None],
            ),
            ("none", &[None], &[Some(200)]),
        ] {
            let filter: StatusFilter = text.parse().unwrap();
            assert_eq!(filter.to_string(), text);
            assert!(yes.iter().all(|status| filter.is(*status)), "{text}");
            assert!(!no.iter().any(|status| filter.is(*status)), "{text}");
        }
        for text in [
            "", "5", "xx", "5x", "0xx", "6xx", "5XX", "55xx", "5xxx", "099", "600", "+50", "5.0",
            "None", "５xx",
        ] {
            assert_eq!(text.parse::<StatusFilter>(), Err(NotAStatus), "{text}");
        }
    }
}
