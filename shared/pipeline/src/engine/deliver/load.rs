//! Loads what an attempt needs: registration, attachment, secret, bytes, and which materials are there.

use std::collections::BTreeMap;

use api::trust::Verdict;
use api::workflows::Workflow;
use api::{AttachmentId, OrganizationName, RegistrationId, Trace};
use attestation::{Digest, Material};
use bytes::Bytes;
use futures_util::future;
use integrations::{Error, Integration, Outcome, Pushed, Registered};
use serde_json::{Map, Value};

use crate::config::secrets::Secrets;
use crate::ledger::breaker::Postponed;
use crate::store::platform::{Key, Platform, Scope, SecretValue, Unreachable};
use crate::store::rows::{self, Attachment, Delivery, Found, Registration, Stored};

/// Result of letting the integration send.
pub(super) enum Sent {
    Answered(Result<Outcome, Error>),
    /// There is nothing left to deliver through.
    Gone(&'static str),
    /// A material is not there yet.
    Waits(String),
    /// Its registration is paused; it is held as long as that row stays so.
    Held(Box<Stored<Registration>>),
    /// The destination is down or paced.
    Postponed(Postponed),
    Unreachable(Unreachable),
}

impl From<Unreachable> for Sent {
    fn from(unreachable: Unreachable) -> Self {
        Self::Unreachable(unreachable)
    }
}

impl From<Error> for Sent {
    fn from(error: Error) -> Self {
        Self::Answered(Err(error))
    }
}

/// Data that an integration delivers, loaded and checked.
pub(super) struct Prepared<I: Integration> {
    registration_name: String,
    pub(super) registration: Registered<I>,
    attachment: I::Attachment,
    attestation: attestation::Attestation,
    verdict: Option<Verdict>,
    /// Address of the stack's console.
    console: Option<String>,
    received: Bytes,
    materials: Vec<Material>,
    pub(super) missing: Vec<Material>,
    /// Total size of the attestation and the available materials.
    pub(super) size_bytes: u64,
    /// Why the attachment's filter leaves nothing to send.
    unwanted: Option<String>,
}

impl<I: Integration> Prepared<I> {
    /// Why there is nothing to send, if so.
    pub(super) fn nothing(&self) -> Option<String> {
        if self.unwanted.is_some() {
            return self.unwanted.clone();
        }
        if !I::MATERIALS_ONLY || !self.materials.is_empty() {
            return None;
        }
        let absent = self.missing.first().and_then(|material| material.digest);
        Some(match absent {
            Some(digest) => format!("{digest} never came, and nothing else is sent"),
            None => "the attestation has no material of a type that is sent".to_owned(),
        })
    }

    pub(super) fn delivery<'a>(
        &'a self,
        id: &'a str,
        attempt: u32,
        workflow: &'a Workflow,
        progress: &'a BTreeMap<String, Value>,
        trace: Option<Trace>,
    ) -> integrations::Delivery<'a, I> {
        integrations::Delivery {
            id,
            attempt,
            registration_name: &self.registration_name,
            registration: &self.registration.inputs,
            attachment: &self.attachment,
            pushed: Pushed {
                attestation: &self.attestation,
                workflow,
                verdict: self.verdict.as_ref(),
                console: self.console.as_deref(),
            },
            received: &self.received,
            materials: &self.materials,
            missing: &self.missing,
            progress,
            trace,
        }
    }
}

/// Attestation to send, and the attachment it goes to.
pub(super) struct Subject<'a> {
    pub(super) organization: &'a OrganizationName,
    pub(super) registration: &'a RegistrationId,
    pub(super) attachment: &'a AttachmentId,
    pub(super) workflow: &'a Workflow,
    /// The digest of the bytes.
    pub(super) received: Digest,
    /// The attestation's hash, where its row has a verdict.
    pub(super) judged: Option<Digest>,
}

impl<'a> Subject<'a> {
    pub(super) fn of(delivery: &'a Delivery) -> Self {
        Self {
            organization: &delivery.organization,
            registration: &delivery.registration,
            attachment: &delivery.attachment,
            workflow: &delivery.workflow,
            received: delivery.received,
            judged: delivery.is_judged.then_some(delivery.attestation),
        }
    }
}

/// Data of one attempt.
pub(super) struct Loaded<I: Integration> {
    pub(super) registration: Stored<Registration>,
    pub(super) attachment: Attachment,
    /// The attestation's row, where it has a verdict.
    pub(super) judged: Option<rows::Attestation>,
    pub(super) prepared: Prepared<I>,
    /// Rows that were found, that with the key `beside` among them.
    pub(super) found: Found,
}

/// Loads the data of an attempt, all rows in one call, and the one with the key `beside` with them.
pub(super) async fn load<I: Integration>(
    platform: &impl Platform,
    secrets: &Secrets,
    fresh: bool,
    subject: Subject<'_>,
    beside: Option<Key>,
) -> Result<Loaded<I>, Sent> {
    let organization = subject.organization;
    let scope = Scope::new(platform, organization);
    let registration_at = Registration::at(organization, subject.registration);
    let attachment_at = Attachment::at(organization, subject.attachment);
    let judged_at = subject
        .judged
        .map(|hash| rows::Attestation::at(organization, &hash));
    let mut keys = vec![registration_at.clone(), attachment_at.clone()];
    keys.extend(judged_at.clone());
    keys.extend(beside);
    let secret_name = Registration::secret_name(organization, I::ID, subject.registration);
    let (found, secret, bytes) = future::join3(
        rows::find_many(platform, keys),
        secrets.get(platform, &secret_name, fresh),
        platform.get_object(organization, &subject.received),
    )
    .await;
    let found = found?;
    let registration = found.get::<Registration>(&registration_at)?;
    let (registration, registration_inputs) =
        readable::<I>(scope, secrets, registration, secret).await?;
    let Some(attachment) = found
        .get::<Attachment>(&attachment_at)?
        .map(|stored| stored.row)
        .filter(|row| row.deleted_at.is_none())
    else {
        return Err(Sent::Gone("its attachment was deleted"));
    };
    let bytes = bytes?
        .filter(|bytes| Digest::of(bytes) == subject.received)
        .ok_or_else(|| damaged("read the attestation's bytes: they are not what was stored"))?;
    let attestation = attestation::Attestation::parse(&bytes)
        .map_err(|error| damaged(&format!("read the attestation again: {error}")))?;
    let attached = typed::<I::Attachment>(attachment.config.clone(), "attachment")?;
    let judged = match judged_at {
        // As it is now, since other bytes may have raised its verdict.
        Some(at) => found.get::<rows::Attestation>(&at)?,
        None => None,
    };
    let judged = judged.map(|stored| stored.row);
    let verdict = judged.as_ref().and_then(|row| row.verdict.clone());
    if subject.judged.is_some() && verdict.is_none() {
        return Err(damaged("find the attestation's verdict"));
    }
    if verdict
        .as_ref()
        .is_some_and(|verdict| !verdict.is_of(&attestation))
    {
        return Err(damaged(
            "read the attestation's verdict: it is about another envelope",
        ));
    }
    let pushed = Pushed {
        attestation: &attestation,
        workflow: subject.workflow,
        verdict: verdict.as_ref(),
        console: platform.console(),
    };
    let (wanted, unwanted) = integrations::wanted::<I>(pushed, &attached);
    let (materials, missing, size_bytes) = available(scope, wanted).await?;
    let size_bytes = size_bytes + bytes.len() as u64;
    let prepared = Prepared {
        registration_name: registration.row.name.clone(),
        registration: registration_inputs,
        attachment: attached,
        attestation,
        verdict,
        console: platform.console().map(str::to_owned),
        received: bytes,
        materials,
        missing,
        size_bytes,
        unwanted,
    };
    Ok(Loaded {
        registration,
        attachment,
        judged,
        prepared,
        found,
    })
}

/// A registration that is live, and its inputs, whole again.
pub(super) async fn registration<I: Integration>(
    scope: Scope<'_, impl Platform>,
    secrets: &Secrets,
    id: &RegistrationId,
    fresh: bool,
) -> Result<(Stored<Registration>, Registered<I>), Sent> {
    let (platform, organization) = scope.parts();
    let key = Registration::at(organization, id);
    let secret_name = Registration::secret_name(organization, I::ID, id);
    let (registration, secret) = future::join(
        rows::load::<Registration>(platform, &key),
        secrets.get(platform, &secret_name, fresh),
    )
    .await;
    readable(scope, secrets, registration?, secret).await
}

/// A registration that is live, and its inputs with its credentials among them.
async fn readable<I: Integration>(
    scope: Scope<'_, impl Platform>,
    secrets: &Secrets,
    registration: Option<Stored<Registration>>,
    secret: Result<Option<SecretValue>, Unreachable>,
) -> Result<(Stored<Registration>, Registered<I>), Sent> {
    let platform = scope.platform;
    let Some(registration) = registration.filter(|stored| stored.row.deleted_at.is_none()) else {
        return Err(Sent::Gone("its registration was deleted"));
    };
    let credentials = match &registration.row.secret {
        None => None,
        Some(_) => {
            let own = secrets.of(platform, &registration.row, secret?).await?;
            Some(own.ok_or_else(|| damaged("find the registration's credentials"))?)
        }
    };
    let inputs = inputs(registration.row.config.clone(), credentials.as_ref())?;
    let inputs = Registered::read(inputs).ok_or_else(|| unreadable("registration"))?;
    let inputs = inputs.on_behalf_of(registration.row.external_id.clone());
    Ok((registration, inputs))
}

fn damaged(text: &str) -> Sent {
    Error::permanent(text).into()
}

/// A registration's inputs, whole again.
fn inputs(
    mut config: Map<String, Value>,
    secret: Option<&SecretValue>,
) -> Result<Map<String, Value>, Sent> {
    if let Some(secret) = secret {
        let secrets: Map<String, Value> = serde_json::from_str(secret.expose())
            .map_err(|_| damaged("read the registration's credentials: they are not JSON"))?;
        config.extend(secrets);
    }
    Ok(config)
}

fn typed<T: serde::de::DeserializeOwned>(
    inputs: Map<String, Value>,
    whose: &str,
) -> Result<T, Sent> {
    // The text of serde's error may quote a value, which may be secret: it goes nowhere.
    serde_json::from_value(Value::Object(inputs)).map_err(|_| unreadable(whose))
}

/// Inputs of another release, during an upgrade say, or after it was rolled back: a later attempt may be its function's.
fn unreadable(whose: &str) -> Sent {
    let text = format!("read the {whose}'s inputs: they do not fit this release");
    Error::retryable(text).into()
}

/// Returns the available materials, the promised ones that are missing, and the total size of the available ones.
async fn available(
    scope: Scope<'_, impl Platform>,
    wanted: Vec<&Material>,
) -> Result<(Vec<Material>, Vec<Material>, u64), Unreachable> {
    let (platform, organization) = scope.parts();
    let there = future::try_join_all(wanted.iter().map(|material| async {
        match &material.digest {
            _ if material.content.is_some() => {
                Ok(material.content.as_ref().map(|inline| inline.len() as u64))
            }
            Some(digest) => platform.object_size(organization, digest).await,
            None => Ok(None),
        }
    }))
    .await?;
    let (mut materials, mut missing, mut size_bytes) = (Vec::new(), Vec::new(), 0);
    for (material, there) in wanted.into_iter().zip(there) {
        if let Some(size) = there {
            size_bytes += size;
            materials.push(material.clone());
        } else if material.uploaded_to_cas {
            missing.push(material.clone());
        }
    }
    Ok((materials, missing, size_bytes))
}
