//! One attempt: what an integration needs is read and checked, and then it sends.

use std::cell::RefCell;
use std::time::Duration;

use attestation::{Digest, Material};
use bytes::Bytes;
use futures_util::future::{self, LocalBoxFuture as LocalFuture};
use futures_util::lock::Mutex;
use integrations::{Error, Host, Http, Integration, Kind, Outcome};
use serde_json::{Map, Value};

use crate::platform::{Platform, Unreachable, WriteError};
use crate::rows::{self, Attachment, Delivery, Registration, Stored};
use crate::schedule::{HEAVY_BYTES, PATIENCE};

/// What came of letting the integration send.
pub(super) enum Sent {
    Answered(Result<Outcome, Error>),
    /// There is nothing left to deliver through.
    Gone(&'static str),
    /// A material is not there yet.
    Waits(String),
    Unreachable(Unreachable),
}

impl From<Unreachable> for Sent {
    fn from(unreachable: Unreachable) -> Self {
        Self::Unreachable(unreachable)
    }
}

pub(super) async fn send<I: Integration, P: Platform>(desk: &Desk<'_, P>, http: &Http) -> Sent {
    match prepare::<I, P>(desk).await {
        Ok(prepared) => {
            let first = deliver::<I, P>(desk, http, &prepared).await;
            if !matches!(&first, Err(error) if error.kind == Kind::Unauthorized) {
                return Sent::Answered(first);
            }
            // The secret may have been rotated since it was read: once more, with what it is now.
            match prepare::<I, P>(desk).await {
                Ok(prepared) => Sent::Answered(deliver::<I, P>(desk, http, &prepared).await),
                Err(sent) => sent,
            }
        }
        Err(sent) => sent,
    }
}

/// What an integration is given, read and checked.
struct Prepared<I: Integration> {
    registration: I::Registration,
    attachment: I::Attachment,
    attestation: attestation::Attestation,
    materials: Vec<Material>,
    missing: Vec<Material>,
    /// Of all materials.
    size_bytes: u64,
}

async fn prepare<I: Integration, P: Platform>(desk: &Desk<'_, P>) -> Result<Prepared<I>, Sent> {
    let delivery = desk.delivery.borrow().row.clone();
    let platform = desk.platform;
    let organization = delivery.organization.as_str();
    let registration_at = Registration::at(organization, &delivery.registration);
    let attachment_at = Attachment::at(organization, &delivery.attachment);
    let secret = Registration::secret_name(organization, I::ID, &delivery.registration);
    let (registration, attachment, secret, bytes) = future::join4(
        rows::load::<Registration>(platform, &registration_at),
        rows::load::<Attachment>(platform, &attachment_at),
        platform.get_secret(&secret),
        platform.get_object(organization, &delivery.received),
    )
    .await;
    let Some(registration) = registration?
        .map(|stored| stored.row)
        .filter(|row| row.deleted_at.is_none())
    else {
        return Err(Sent::Gone("its registration was deleted"));
    };
    let Some(attachment) = attachment?
        .map(|stored| stored.row)
        .filter(|row| row.deleted_at.is_none())
    else {
        return Err(Sent::Gone("its attachment was deleted"));
    };
    let bytes = bytes?
        .filter(|bytes| Digest::of(bytes) == delivery.received)
        .ok_or_else(|| damaged("read the attestation's bytes: they are not what was stored"))?;
    let attestation = attestation::Attestation::parse(&bytes)
        .map_err(|error| damaged(&format!("read the attestation again: {error}")))?;
    let secret = match &registration.secret {
        None => None,
        Some(_) => Some(secret?.ok_or_else(|| damaged("find the registration's credentials"))?),
    };
    let registration_inputs = inputs(registration.config.clone(), secret.as_ref())?;
    let attached = typed::<I::Attachment>(attachment.config, "attachment")?;
    let wanted = I::materials(&attached);
    let (materials, missing, size_bytes) =
        available(platform, organization, &attestation, wanted).await?;
    let patience = attachment.wait_secs.map_or(PATIENCE, Duration::from_secs);
    if let Some(absent) = missing.first()
        && platform.now() < delivery.created_at.plus(patience)
        && let Some(digest) = absent.digest
    {
        return Err(Sent::Waits(format!("waiting for {digest}")));
    }
    Ok(Prepared {
        registration: typed::<I::Registration>(registration_inputs, "registration")?,
        attachment: attached,
        attestation,
        materials,
        missing,
        size_bytes,
    })
}

fn damaged(text: &str) -> Sent {
    Sent::Answered(Err(Error::permanent(text)))
}

/// A registration's inputs, whole again.
fn inputs(
    mut config: Map<String, Value>,
    secret: Option<&crate::platform::SecretValue>,
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
    serde_json::from_value(Value::Object(inputs)).map_err(|_| {
        damaged(&format!(
            "read the {whose}'s inputs: they do not fit this version"
        ))
    })
}

/// The subscribed materials, those that can be sent apart from those that were promised and are not there.
async fn available(
    platform: &impl Platform,
    organization: &str,
    attestation: &attestation::Attestation,
    subscribed: &[attestation::MaterialType],
) -> Result<(Vec<Material>, Vec<Material>, u64), Unreachable> {
    let wanted: Vec<&Material> = attestation
        .materials()
        .iter()
        .filter(|material| subscribed.contains(&material.kind))
        .collect();
    let there = future::try_join_all(wanted.iter().map(|material| async {
        match &material.digest {
            _ if material.content.is_some() => Ok(Some(0)),
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

async fn deliver<I: Integration, P: Platform>(
    desk: &Desk<'_, P>,
    http: &Http,
    prepared: &Prepared<I>,
) -> Result<Outcome, Error> {
    if I::MATERIALS_ONLY && prepared.materials.is_empty() {
        let reason = match prepared
            .missing
            .first()
            .and_then(|material| material.digest)
        {
            Some(digest) => format!("{digest} never came, and nothing else is sent"),
            None => "the attestation has no material of a type that is sent".to_owned(),
        };
        return Ok(Outcome::Skipped(reason));
    }
    let row = desk.delivery.borrow().row.clone();
    let delivery = integrations::Delivery::<I> {
        id: &row.id,
        registration: &prepared.registration,
        attachment: &prepared.attachment,
        attestation: &prepared.attestation,
        workflow: &row.workflow,
        materials: &prepared.materials,
        missing: &prepared.missing,
        progress: &row.progress,
    };
    // Ten large ones side by side would not fit into the function's memory.
    let _alone = match prepared.size_bytes > HEAVY_BYTES {
        true => Some(desk.heavy.lock().await),
        false => None,
    };
    I::deliver(http, desk, &delivery).await
}

/// What an integration works at: the materials, and the record of what is done.
pub(super) struct Desk<'a, P> {
    pub(super) platform: &'a P,
    /// Held by whoever has much to send.
    pub(super) heavy: &'a Mutex<()>,
    pub(super) delivery: RefCell<Stored<Delivery>>,
}

impl<P: Platform> Desk<'_, P> {
    async fn read(&self, material: &Material) -> Result<Bytes, Error> {
        if let Some(content) = &material.content {
            return Ok(Bytes::from(content.clone()));
        }
        let digest = material
            .digest
            .ok_or_else(|| Error::permanent(format!("read {}: it has no digest", material.name)))?;
        let organization = self.delivery.borrow().row.organization.clone();
        let bytes = self
            .platform
            .get_object(&organization, &digest)
            .await
            .map_err(|unreachable| Error::retryable(unreachable.to_string()))?
            .ok_or_else(|| Error::retryable(format!("read {digest}: it is gone")))?;
        if Digest::of(&bytes) != digest {
            return Err(Error::permanent(format!(
                "read {digest}: the stored bytes are others"
            )));
        }
        Ok(bytes)
    }

    async fn keep(&self, step: &str, receipt: Value) -> Result<(), Error> {
        let mut stored = self.delivery.borrow().clone();
        stored.row.progress.insert(step.to_owned(), receipt);
        let (write, etag) = stored.update(self.platform);
        match self.platform.write(vec![write]).await {
            Ok(()) => {
                stored.etag = etag;
                *self.delivery.borrow_mut() = stored;
                Ok(())
            }
            Err(WriteError::Conflict) => Err(Error::retryable(
                "keep a finished step: the lease is somebody else's",
            )),
            Err(WriteError::Unreachable(unreachable)) => {
                Err(Error::retryable(unreachable.to_string()))
            }
        }
    }
}

impl<P: Platform> Host for Desk<'_, P> {
    fn content<'a>(&'a self, material: &'a Material) -> LocalFuture<'a, Result<Bytes, Error>> {
        Box::pin(self.read(material))
    }

    fn record<'a>(&'a self, step: &'a str, receipt: Value) -> LocalFuture<'a, Result<(), Error>> {
        Box::pin(self.keep(step, receipt))
    }

    fn unix_secs(&self) -> u64 {
        self.platform.now().secs()
    }
}
