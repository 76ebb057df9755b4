//! Direct requests to a delivery function: checks of registrations and attachments, previews of deliveries, and checks of the
//! presence of what was delivered.
//!
//! Only that function may reach its third party, so a check runs in the same network, with the same role and
//! through the same guards as the delivery will.

use std::time::Duration;

use api::inputs::Fault;
use api::{Actor, AttachmentId, DeliveryId, OrganizationName, RegistrationId};
use attestation::Digest;
use integrations::{Answer, Error, Http, Integration, Presence, Registered, Warnings, inputs};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::secrets::Secrets;
use crate::config::{self, pace, quotas};
use crate::store::platform::{Platform, Scope, Unreachable, within};
use crate::store::rows::{self, Registration};

/// Asks a delivery function to check inputs at its third party. Holds secrets: never logged.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Check {
    /// A registration that is not kept yet, with its secret inputs.
    Registration {
        inputs: Map<String, Value>,
        /// The organization's, where the inputs name a role.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external_id: Option<String>,
    },
    /// A registration that is kept, with other inputs beside the secret ones that it has: only here they can be
    /// read, and so only here the whole can be validated.
    Update {
        organization: OrganizationName,
        registration: RegistrationId,
        inputs: Map<String, Value>,
        /// The organization's, where the inputs name a role.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external_id: Option<String>,
        /// Validation without a request to the third party.
        only_validate: bool,
    },
    /// An attachment that is not kept yet, of a registration that is.
    Attachment {
        organization: OrganizationName,
        registration: RegistrationId,
        inputs: Map<String, Value>,
    },
}

/// Asks a delivery function what it would send.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preview {
    pub organization: OrganizationName,
    pub attachment: AttachmentId,
    /// The envelope's hash.
    pub attestation: Digest,
}

/// Asks a delivery function whether its third party still has what was delivered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresenceCheck {
    pub organization: OrganizationName,
    pub delivery: DeliveryId,
}

/// Response of the delivery function to a [`Check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Works {
        #[serde(default)]
        warnings: Warnings,
    },
    /// It would not work; the text completes "failed to …".
    Refused {
        text: String,
        status: Option<u16>,
        answer: Option<String>,
    },
    /// The inputs are not right, and nobody was asked.
    Faults(Vec<Fault>),
}

impl Verdict {
    /// Returns the warnings, or the error for the operator who registers or attaches.
    pub fn accepted(self) -> Result<Warnings, config::Error> {
        match self {
            Self::Works { warnings } => Ok(warnings),
            Self::Refused {
                text,
                status,
                answer,
            } => Err(config::Error::Refused {
                text,
                status,
                answer,
            }),
            Self::Faults(faults) => Err(config::Error::Faults(faults)),
        }
    }
}

impl From<Error> for Verdict {
    fn from(error: Error) -> Self {
        let (status, answer) = match error.answer {
            Some(Answer { status, excerpt }) => (Some(status), Some(excerpt)),
            None => (None, None),
        };
        Self::Refused {
            text: error.text,
            status,
            answer,
        }
    }
}

fn refused(text: &str) -> Verdict {
    Verdict::Refused {
        text: text.to_owned(),
        status: None,
        answer: None,
    }
}

/// Timeout for the third party's response: the operator waits behind a gateway whose timeout is 30 s.
pub const PATIENCE: Duration = Duration::from_secs(24);

/// Answers a [`Check`] for one integration.
pub async fn check<I: Integration>(
    platform: &impl Platform,
    http: &Http,
    check: Check,
) -> Result<Verdict, Unreachable> {
    let asking = question::<I>(platform, http, check);
    within(platform, PATIENCE, asking).await.unwrap_or_else(|| {
        let secs = PATIENCE.as_secs();
        let text = format!("get an answer of the third party within {secs} s");
        Ok(refused(&text))
    })
}

async fn question<I: Integration>(
    platform: &impl Platform,
    http: &Http,
    check: Check,
) -> Result<Verdict, Unreachable> {
    let result = match check {
        Check::Registration {
            inputs,
            external_id,
        } => {
            let Some(registration) = Registered::<I>::read(inputs) else {
                return Ok(refused("read the registration's inputs"));
            };
            registration.on_behalf_of(external_id).register(http).await
        }
        Check::Update {
            organization,
            registration,
            inputs,
            external_id,
            only_validate,
        } => {
            let Some(row) = find(Scope::new(platform, &organization), &registration).await? else {
                return Ok(refused("find the registration"));
            };
            // Another update may have moved it, with new secrets, since the inputs were compared with it.
            let schema = inputs::schema::<I::Registration>();
            if !only_validate && !api::inputs::moved(&schema, &row.config, &inputs).is_empty() {
                return Ok(refused(
                    "use the credentials: the registration was changed meanwhile, so try again",
                ));
            }
            let Some(secrets) = secrets(platform, &row).await? else {
                return Ok(refused("find the registration's credentials"));
            };
            let mut whole = inputs;
            whole.extend(secrets);
            let faults = inputs::check::<I::Registration>(&whole);
            if !faults.is_empty() {
                return Ok(Verdict::Faults(faults));
            }
            let Some(registration) = Registered::<I>::read(whole) else {
                return Ok(refused("read the registration's inputs"));
            };
            match only_validate {
                true => Ok(Warnings::new()),
                false => registration.on_behalf_of(external_id).register(http).await,
            }
        }
        Check::Attachment {
            organization,
            registration,
            inputs,
        } => {
            let Some(row) = find(Scope::new(platform, &organization), &registration).await? else {
                return Ok(refused("find the registration"));
            };
            let Some(secrets) = secrets(platform, &row).await? else {
                return Ok(refused("find the registration's credentials"));
            };
            let mut config = row.config;
            config.extend(secrets);
            let registration = Registered::<I>::read(config);
            let attachment = serde_json::from_value(Value::Object(inputs));
            let (Some(registration), Ok(attachment)) = (registration, attachment) else {
                return Ok(refused("read the inputs"));
            };
            registration
                .on_behalf_of(row.external_id)
                .attach(http, &attachment)
                .await
        }
    };
    Ok(result.map_or_else(Verdict::from, |warnings| Verdict::Works { warnings }))
}

async fn find(
    scope: Scope<'_, impl Platform>,
    id: &RegistrationId,
) -> Result<Option<Registration>, Unreachable> {
    let (platform, organization) = scope.parts();
    let key = Registration::at(organization, id);
    let stored = rows::load::<Registration>(platform, &key).await?;
    Ok(stored.map(|stored| stored.row))
}

/// Loads the secret inputs of a registration; none when they are missing or unreadable.
async fn secrets(
    platform: &impl Platform,
    row: &Registration,
) -> Result<Option<Map<String, Value>>, Unreachable> {
    if row.secret.is_none() {
        return Ok(Some(Map::new()));
    }
    let secret = Secrets::default().of(platform, row, None).await?;
    Ok(secret.and_then(|secret| serde_json::from_str(secret.expose()).ok()))
}

/// Has an integration's delivery function answer a [`Check`], at the pace of whoever asks.
pub async fn ask(
    scope: Scope<'_, impl Platform>,
    actor: &Actor,
    integration: &str,
    check: &Check,
) -> Result<Verdict, quotas::Error> {
    pace::take(scope, actor).await?;
    let event = serde_json::json!({ "check": check });
    Ok(invoke(scope.platform, integration, event).await?)
}

/// Has an integration's delivery function answer a [`Preview`], at the pace of whoever asks.
pub async fn ask_preview(
    platform: &impl Platform,
    actor: &Actor,
    integration: &str,
    preview: &Preview,
) -> Result<Previewed, quotas::Error> {
    pace::take(Scope::new(platform, &preview.organization), actor).await?;
    let event = serde_json::json!({ "preview": preview });
    Ok(invoke(platform, integration, event).await?)
}

/// Has an integration's delivery function answer a [`PresenceCheck`], at the pace of whoever asks.
pub async fn ask_presence(
    platform: &impl Platform,
    actor: &Actor,
    integration: &str,
    check: &PresenceCheck,
) -> Result<Presence, quotas::Error> {
    pace::take(Scope::new(platform, &check.organization), actor).await?;
    let event = serde_json::json!({ "presence": check });
    Ok(invoke(platform, integration, event).await?)
}

async fn invoke<T: serde::de::DeserializeOwned>(
    platform: &impl Platform,
    integration: &str,
    event: Value,
) -> Result<T, Unreachable> {
    let answer = platform.invoke(integration, event).await?;
    serde_json::from_value(answer).map_err(|error| Unreachable {
        what: "delivery function",
        why: error.to_string(),
    })
}

/// Response of the delivery function to a [`Preview`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Previewed {
    /// The requests, in their order.
    Requests(Vec<api::attachments::Preview>),
    /// It would be skipped.
    Nothing(String),
    /// It could not be delivered; the text says why.
    Refused(String),
}
