//! Delivers: claim, load, let the integration send, record, plan the next attempt, acknowledge.
//!
//! Records of a batch run side by side and separately: a panic, a poison message or a slow third party
//! costs only its own delivery. A message is given back to the queue for two reasons alone: the ledger
//! could not be reached, or no time was left to begin.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use attestation::{Digest, Material};
use bytes::Bytes;
use futures_util::future::{self, Either, FutureExt, LocalBoxFuture as LocalFuture};
use futures_util::lock::Mutex;
use futures_util::stream::{FuturesUnordered, StreamExt};
use integrations::{Error, Host, Http, Integration, Kind, Outcome};
use serde_json::{Map, Value};
use tracing::{error, info, warn};

use crate::clock::Timestamp;
use crate::ledger::{self, Message, Settled};
use crate::platform::{Expect, Platform, Unreachable, WriteError};
use crate::rows::{self, Attachment, Delivery, Parked, Registration, Stored};
use crate::schedule::{Deadlines, HEAVY_BYTES, PATIENCE};

/// A message as the queue hands it over.
#[derive(Debug, Clone)]
pub struct Record {
    pub id: String,
    pub body: String,
}

/// Why a record goes back to its queue.
#[derive(Debug, thiserror::Error)]
enum GiveBack {
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error("begin: no time is left in this invocation")]
    NoTime,
}

/// Delivers a batch; `until` is when this invocation ends. Answers with the ids of the records that the
/// queue must hand over again.
pub async fn batch<I: Integration>(
    platform: &impl Platform,
    http: &Http,
    records: Vec<Record>,
    until: Timestamp,
) -> Vec<String> {
    let heavy = &Mutex::new(());
    let mut running: FuturesUnordered<_> = records
        .into_iter()
        .map(|record| async move {
            let one = one::<I>(platform, http, heavy, &record, until);
            let outcome = AssertUnwindSafe(one).catch_unwind().await;
            match outcome {
                Ok(Ok(())) => None,
                Ok(Err(give_back)) => {
                    warn!(message.id = record.id, error = %give_back, "Gave a message back");
                    Some(record.id)
                }
                // The lease expires and the reconciler records the crash.
                Err(_panic) => {
                    error!(message.id = record.id, "Panicked outside of an attempt");
                    None
                }
            }
        })
        .collect();
    let mut back = Vec::new();
    while let Some(id) = running.next().await {
        back.extend(id);
    }
    back
}

async fn one<I: Integration>(
    platform: &impl Platform,
    http: &Http,
    heavy: &Mutex<()>,
    record: &Record,
    until: Timestamp,
) -> Result<(), GiveBack> {
    let message = match Message::parse(&record.body) {
        Ok(message) => message,
        Err(reason) => return Ok(park::<I>(platform, record, reason).await?),
    };
    let deadlines = Deadlines::of(!I::MATERIALS.is_empty());
    if until.since(platform.now()) < deadlines.attempt {
        return Err(GiveBack::NoTime);
    }
    let key = Delivery::at(&message.organization, &message.delivery);
    let Some(stored) = rows::load::<Delivery>(platform, &key).await? else {
        return Ok(park::<I>(platform, record, "no such delivery".into()).await?);
    };
    if stored.row.integration != I::ID {
        return Ok(park::<I>(platform, record, "it belongs to another integration".into()).await?);
    }
    let Some(claimed) = claim(platform, stored, message.attempt, deadlines.lease).await? else {
        return Ok(());
    };
    attempt::<I, _>(platform, http, heavy, claimed, deadlines.attempt).await?;
    Ok(())
}

/// Keeps a message that nobody could ever deliver, so that it can be looked at.
async fn park<I: Integration>(
    platform: &impl Platform,
    record: &Record,
    reason: String,
) -> Result<(), Unreachable> {
    error!(message.id = record.id, reason, "Parked a message");
    let parked = Parked {
        integration: I::ID.to_owned(),
        message: record.id.clone(),
        reason,
        body: record.body.chars().take(4096).collect(),
        created_at: platform.now(),
    };
    match platform
        .write(vec![rows::put(platform, &parked, Expect::Absent).0])
        .await
    {
        Ok(()) | Err(WriteError::Conflict) => Ok(()),
        Err(WriteError::Unreachable(unreachable)) => Err(unreachable),
    }
}

/// Takes the delivery for one attempt, or says that there is nothing to do.
async fn claim(
    platform: &impl Platform,
    mut stored: Stored<Delivery>,
    attempt: u32,
    lease: Duration,
) -> Result<Option<Stored<Delivery>>, Unreachable> {
    let owner = format!("{:016x}", platform.random());
    if let Err(reason) = ledger::claim(&mut stored.row, attempt, &owner, platform.now(), lease) {
        info!(
            delivery.id = stored.row.id,
            attempt,
            ?reason,
            "Nothing to claim"
        );
        return Ok(None);
    }
    let (write, etag) = stored.update(platform);
    match platform.write(vec![write]).await {
        Ok(()) => Ok(Some(Stored {
            row: stored.row,
            etag,
        })),
        // Somebody else was first: the ledger and the reconciler own what follows.
        Err(WriteError::Conflict) => Ok(None),
        Err(WriteError::Unreachable(unreachable)) => Err(unreachable),
    }
}

async fn attempt<I: Integration, P: Platform>(
    platform: &P,
    http: &Http,
    heavy: &Mutex<()>,
    claimed: Stored<Delivery>,
    deadline: Duration,
) -> Result<(), Unreachable> {
    let desk = Desk {
        platform,
        heavy,
        delivery: RefCell::new(claimed),
    };
    let sending = AssertUnwindSafe(send::<I, P>(&desk, http)).catch_unwind();
    let result = match future::select(Box::pin(sending), Box::pin(platform.sleep(deadline))).await {
        Either::Left((Ok(result), _)) => result,
        Either::Left((Err(_panic), _)) => {
            error!("An integration panicked");
            Sent::Answered(Err(Error::retryable("finish: the integration panicked")))
        }
        Either::Right(((), _)) => Sent::Answered(Err(Error::new(
            Kind::Unanswered,
            format!("finish within {} s", deadline.as_secs()),
        ))),
    };
    let mut stored = desk.delivery.into_inner();
    let now = platform.now();
    let settled = match result {
        Sent::Answered(result) => {
            if let Err(error) = &result {
                let source = error.source.as_ref().map(|source| chain(source.as_ref()));
                warn!(delivery.id = stored.row.id, integration = I::ID, %error, source, "Not delivered");
            }
            ledger::settle(&mut stored.row, result, now, platform.random())
        }
        Sent::Gone(reason) => ledger::cancel(&mut stored.row, reason, now),
        Sent::Waits(reason) => ledger::wait(&mut stored.row, reason, now),
        // The claim stands; should this go on, its lease expires and the attempt counts as crashed.
        Sent::Unreachable(unreachable) => {
            let why = Error::retryable(unreachable.to_string());
            ledger::settle(&mut stored.row, Err(why), now, platform.random())
        }
    };
    settle(platform, &stored, settled).await
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// Writes what an attempt led to in one transaction, and then sends the next one's message.
pub(crate) async fn settle(
    platform: &impl Platform,
    stored: &Stored<Delivery>,
    settled: Settled,
) -> Result<(), Unreachable> {
    let delivery = &stored.row;
    let (write, _) = stored.update(platform);
    let mut writes = vec![write];
    if let Some(attempt) = &settled.attempt {
        writes.push(rows::put(platform, attempt, Expect::Absent).0);
    }
    match platform.write(writes).await {
        Ok(()) => {}
        Err(WriteError::Conflict) => {
            // The lease expired, and the reconciler took the delivery over.
            warn!(
                delivery.id = delivery.id,
                "An attempt ended too late to be recorded"
            );
            return Ok(());
        }
        Err(WriteError::Unreachable(unreachable)) => return Err(unreachable),
    }
    info!(
        delivery.id = delivery.id,
        integration = delivery.integration,
        attempt = settled.attempt.as_ref().map(|attempt| attempt.number),
        state = ?delivery.state,
        reason = delivery.reason,
        "Recorded"
    );
    if let Some(delay) = settled.send_after {
        resend(platform, delivery, delay).await;
    }
    Ok(())
}

/// Sends the message for a delivery's next attempt. Whether it was sent: if not, its `wake_at` finds it.
pub(crate) async fn resend(platform: &impl Platform, delivery: &Delivery, delay: Duration) -> bool {
    let message = Message::of(delivery).send_after(delay);
    let why = match platform.send(&delivery.integration, &[message]).await {
        Ok(answers) => answers.into_iter().find_map(Result::err),
        Err(unreachable) => Some(unreachable.to_string()),
    };
    if let Some(why) = &why {
        warn!(
            delivery.id = delivery.id,
            why, "A message is left to the reconciler"
        );
    }
    why.is_none()
}

/// What came of letting the integration send.
enum Sent {
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

async fn send<I: Integration, P: Platform>(desk: &Desk<'_, P>, http: &Http) -> Sent {
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
struct Desk<'a, P> {
    platform: &'a P,
    heavy: &'a Mutex<()>,
    delivery: RefCell<Stored<Delivery>>,
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
