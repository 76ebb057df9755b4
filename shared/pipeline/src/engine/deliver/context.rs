//! One attempt: what an integration needs is read and checked, and then it sends.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use api::Timestamp;
use api::workflows::Workflow;
use attestation::{Digest, Material};
use bytes::Bytes;
use futures_util::future::{self, LocalBoxFuture as LocalFuture};
use integrations::{Error, Host, Http, Integration, Kind, Locked, Outcome, Registered};
use serde_json::{Map, Value};

use super::room::Reserved;
use super::tools::Tools;
use crate::config::secrets::Secrets;
use crate::ledger::breaker::{self, Admission, Postponed};
use crate::ledger::schedule::{HEAVY_BYTES, PATIENCE};
use crate::store::platform::{
    Expect, Platform, Scope, SecretValue, UnlessConflict as _, Unreachable,
};
use crate::store::rows::{
    self, Attachment, CONFLICTS, Delivery, Destination, Draft, Lock, Registration, Row, Stored,
};

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

pub(super) async fn send<I: Integration, P: Platform>(
    context: &DeliveryContext<'_, P>,
    tools: &Tools,
) -> Sent {
    match try_send::<I, P>(context, tools).await {
        Ok(outcome) => Sent::Answered(Ok(outcome)),
        Err(sent) => sent,
    }
}

async fn try_send<I: Integration, P: Platform>(
    context: &DeliveryContext<'_, P>,
    tools: &Tools,
) -> Result<Outcome, Sent> {
    let prepared = prepare::<I, P>(context, &tools.secrets, false).await?;
    admit::<I, P>(context, &prepared).await?;
    let first = deliver::<I, P>(context, &tools.http, &prepared).await;
    if !matches!(&first, Err(error) if error.kind == Kind::Unauthorized) {
        return Ok(first?);
    }
    // The secret may have been rotated since it was read: once more, with what it is now. There is room for one.
    drop(prepared);
    let prepared = prepare::<I, P>(context, &tools.secrets, true).await?;
    Ok(deliver::<I, P>(context, &tools.http, &prepared).await?)
}

/// Waits for its turn at the destination, or says when to come again.
async fn admit<I: Integration, P: Platform>(
    context: &DeliveryContext<'_, P>,
    prepared: &Prepared<I>,
) -> Result<(), Sent> {
    if let Some(until) = context.shut_for_all::<I>().await? {
        return Err(Sent::Postponed(Postponed::Open(until)));
    }
    let interval = I::interval(&prepared.registration.inputs);
    let (is_retry, has_reservation) = {
        let row = &context.delivery.borrow().row;
        (row.is_retry(), row.has_reservation)
    };
    let platform = context.platform;
    let admission = context.change_destination(|row| {
        breaker::admit(row, interval, is_retry, has_reservation, platform.now())
    });
    match admission.await? {
        Some(Admission::Now) => Ok(()),
        Some(Admission::Wait(wait)) => {
            platform.sleep(wait).await;
            Ok(())
        }
        Some(Admission::Postponed(later)) => Err(Sent::Postponed(later)),
        // Many want to go through at once: later, each at another time.
        None => {
            let soon = Duration::from_millis(1_000 + platform.random() % 4_000);
            let until = platform.now().plus(soon);
            Err(Sent::Postponed(Postponed::Until(until)))
        }
    }
}

/// Data that an integration delivers, loaded and checked.
pub(super) struct Prepared<I: Integration> {
    pub(super) registration: Registered<I>,
    attachment: I::Attachment,
    attestation: attestation::Attestation,
    received: Bytes,
    materials: Vec<Material>,
    missing: Vec<Material>,
    /// Total size of the attestation and the available materials.
    size_bytes: u64,
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
    ) -> integrations::Delivery<'a, I> {
        integrations::Delivery {
            id,
            attempt,
            registration: &self.registration.inputs,
            attachment: &self.attachment,
            attestation: &self.attestation,
            received: &self.received,
            workflow,
            materials: &self.materials,
            missing: &self.missing,
            progress,
        }
    }
}

async fn prepare<I: Integration, P: Platform>(
    context: &DeliveryContext<'_, P>,
    secrets: &Secrets,
    fresh: bool,
) -> Result<Prepared<I>, Sent> {
    let delivery = context.delivery.borrow().row.clone();
    let loading = Box::pin(load::<I>(
        context.platform,
        secrets,
        fresh,
        Subject::of(&delivery),
    ));
    let (loaded, destination) = future::join(loading, context.read_destination()).await;
    let Loaded {
        registration,
        attachment,
        prepared,
    } = loaded.inspect_err(|_| context.ours.set(true))?;
    if registration.row.paused.is_some() {
        return Err(Sent::Held(Box::new(registration)));
    }
    destination?;
    let patience = attachment.wait_secs.map_or(PATIENCE, Duration::from_secs);
    if let Some(absent) = prepared.missing.first()
        && context.platform.now() < delivery.created_at.plus(patience)
        && let Some(digest) = absent.digest
    {
        return Err(Sent::Waits(format!("waiting for {digest}")));
    }
    Ok(prepared)
}

/// Attestation to send, and the attachment it goes to.
pub(super) struct Subject<'a> {
    pub(super) organization: &'a str,
    pub(super) registration: &'a str,
    pub(super) attachment: &'a str,
    pub(super) workflow: &'a Workflow,
    /// The digest of the bytes.
    pub(super) received: Digest,
}

impl<'a> Subject<'a> {
    fn of(delivery: &'a Delivery) -> Self {
        Self {
            organization: &delivery.organization,
            registration: &delivery.registration,
            attachment: &delivery.attachment,
            workflow: &delivery.workflow,
            received: delivery.received,
        }
    }
}

pub(super) struct Loaded<I: Integration> {
    registration: Stored<Registration>,
    attachment: Attachment,
    pub(super) prepared: Prepared<I>,
}

pub(super) async fn load<I: Integration>(
    platform: &impl Platform,
    secrets: &Secrets,
    fresh: bool,
    subject: Subject<'_>,
) -> Result<Loaded<I>, Sent> {
    let organization = subject.organization;
    let scope = Scope::new(platform, organization);
    let attachment_at = Attachment::at(organization, subject.attachment);
    let (registration, attachment, bytes) = future::join3(
        registration::<I>(scope, secrets, subject.registration, fresh),
        rows::load::<Attachment>(platform, &attachment_at),
        platform.get_object(organization, &subject.received),
    )
    .await;
    let (registration, registration_inputs) = registration?;
    let Some(attachment) = attachment?
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
    let (wanted, unwanted) = integrations::wanted::<I>(&attestation, subject.workflow, &attached);
    let (materials, missing, size_bytes) = available(scope, wanted).await?;
    let size_bytes = size_bytes + bytes.len() as u64;
    let prepared = Prepared {
        registration: registration_inputs,
        attachment: attached,
        attestation,
        received: bytes,
        materials,
        missing,
        size_bytes,
        unwanted,
    };
    Ok(Loaded {
        registration,
        attachment,
        prepared,
    })
}

/// A registration that is live, and its inputs, whole again.
pub(super) async fn registration<I: Integration>(
    scope: Scope<'_, impl Platform>,
    secrets: &Secrets,
    id: &str,
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
    let Some(registration) = registration?.filter(|stored| stored.row.deleted_at.is_none()) else {
        return Err(Sent::Gone("its registration was deleted"));
    };
    let credentials = match &registration.row.secret {
        None => None,
        Some(_) => {
            let mut found = secret?;
            let version = registration.row.secret_version.as_deref();
            let is_other = |found: &SecretValue| found.version() != version;
            if version.is_some() && found.as_ref().is_none_or(is_other) {
                found = secrets.read(platform, &secret_name, version).await?;
            }
            Some(found.ok_or_else(|| match version {
                // The table shows at once what is written, and Secrets Manager after a while.
                Some(_) => Sent::Unreachable(Unreachable {
                    what: "secrets manager",
                    why: "it does not show this version of the credentials".to_owned(),
                }),
                None => damaged("find the registration's credentials"),
            })?)
        }
    };
    let inputs = inputs(registration.row.config.clone(), credentials.as_ref())?;
    let inputs = Registered::read(inputs).ok_or_else(|| unreadable("registration"))?;
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

fn unreadable(whose: &str) -> Sent {
    damaged(&format!(
        "read the {whose}'s inputs: they do not fit this version"
    ))
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

async fn deliver<I: Integration, P: Platform>(
    context: &DeliveryContext<'_, P>,
    http: &Http,
    prepared: &Prepared<I>,
) -> Result<Outcome, Error> {
    if let Some(reason) = prepared.nothing() {
        return Ok(Outcome::Skipped(reason));
    }
    let row = context.delivery.borrow().row.clone();
    let delivery = prepared.delivery(&row.id, row.attempt, &row.workflow, &row.progress);
    // Ten large ones side by side would not fit into the function's memory. Waiting here would eat up the
    // attempt's time.
    if prepared.size_bytes > HEAVY_BYTES && !context.reserved.is_enough_for_much() {
        let delay = Duration::from_millis(5_000 + context.platform.random() % 10_000);
        let reason = "another large delivery was under way".to_owned();
        return Ok(Outcome::ContinueAfter { delay, reason });
    }
    prepared
        .registration
        .deliver(http, context, &delivery)
        .await
}

/// A material's bytes, inline or stored, checked against its digest.
pub(super) async fn content(
    scope: Scope<'_, impl Platform>,
    material: &Material,
) -> Result<Bytes, Error> {
    let (platform, organization) = scope.parts();
    if let Some(content) = &material.content {
        return Ok(Bytes::from(content.clone()));
    }
    let digest = digest(material)?;
    let bytes = platform
        .get_object(organization, &digest)
        .await
        .map_err(|unreachable| Error::retryable(unreachable.to_string()))?
        .ok_or_else(|| gone(&digest))?;
    if Digest::of(&bytes) != digest {
        return Err(Error::permanent(format!(
            "read {digest}: the stored bytes are others"
        )));
    }
    Ok(bytes)
}

/// Returns the size of a material, inline or stored.
pub(super) async fn size_bytes(
    scope: Scope<'_, impl Platform>,
    material: &Material,
) -> Result<u64, Error> {
    let (platform, organization) = scope.parts();
    if let Some(content) = &material.content {
        return Ok(content.len() as u64);
    }
    let digest = digest(material)?;
    platform
        .object_size(organization, &digest)
        .await
        .map_err(|unreachable| Error::retryable(unreachable.to_string()))?
        .ok_or_else(|| gone(&digest))
}

/// A part of a material's bytes, inline or stored, as they are.
pub(super) async fn read(
    scope: Scope<'_, impl Platform>,
    material: &Material,
    offset: u64,
    length: u64,
) -> Result<Bytes, Error> {
    let (platform, organization) = scope.parts();
    if let Some(content) = &material.content {
        let place = |at: u64| usize::try_from(at).map_or(content.len(), |at| at.min(content.len()));
        let part = &content[place(offset)..place(offset.saturating_add(length))];
        return Ok(Bytes::copy_from_slice(part));
    }
    let digest = digest(material)?;
    platform
        .read_object(organization, &digest, offset, length)
        .await
        .map_err(|unreachable| Error::retryable(unreachable.to_string()))?
        .ok_or_else(|| gone(&digest))
}

fn digest(material: &Material) -> Result<Digest, Error> {
    let no_digest = || Error::permanent(format!("read {}: it has no digest", material.name));
    material.digest.ok_or_else(no_digest)
}

fn gone(digest: &Digest) -> Error {
    Error::retryable(format!("read {digest}: it is gone"))
}

/// Context of one attempt: the materials, and the record of finished steps.
pub(super) struct DeliveryContext<'a, P> {
    pub(super) platform: &'a P,
    /// The memory that this attempt may take.
    reserved: Reserved<'a>,
    pub(super) delivery: RefCell<Stored<Delivery>>,
    /// Not in the table while nothing was ever wrong with the destination.
    pub(super) destination: RefCell<Draft<Destination>>,
    /// Places that this attempt has taken and not let go of.
    locks: RefCell<Vec<Stored<Lock>>>,
    /// Something of ours failed, which says nothing of the destination.
    pub(super) ours: Cell<bool>,
}

impl<'a, P: Platform> DeliveryContext<'a, P> {
    pub(super) fn new(platform: &'a P, reserved: Reserved<'a>, claimed: Stored<Delivery>) -> Self {
        let Delivery {
            organization,
            registration,
            ..
        } = &claimed.row;
        let destination = Destination::new(organization, registration);
        Self {
            platform,
            reserved,
            destination: RefCell::new(Draft::new(destination)),
            delivery: RefCell::new(claimed),
            locks: RefCell::default(),
            ours: Cell::new(false),
        }
    }

    /// Until when the third party takes nothing from any of us, where it limits us together.
    async fn shut_for_all<I: Integration>(&self) -> Result<Option<Timestamp>, Unreachable> {
        if !I::SHARES_LIMITS {
            return Ok(None);
        }
        let key = Destination::of_all(I::ID).key();
        let destination = rows::load::<Destination>(self.platform, &key).await?;
        let until = destination.and_then(|stored| stored.row.open_until);
        Ok(until.filter(|until| *until > self.platform.now()))
    }

    /// Keeps everybody away for so long.
    pub(super) async fn close_for_all(&self, after: Duration) -> Result<(), Unreachable> {
        let destination = Destination::of_all(&self.delivery.borrow().row.integration);
        rows::change_or_insert(self.platform, destination, CONFLICTS, |row| {
            let until = self.platform.now().plus(after.min(breaker::LONGEST));
            if row.open_until >= Some(until) {
                return None;
            }
            row.open_until = Some(until);
            Some(Vec::new())
        })
        .await?;
        Ok(())
    }

    async fn read_destination(&self) -> Result<(), Unreachable> {
        let new = {
            let row = &self.destination.borrow().row;
            Destination::new(&row.organization, &row.registration)
        };
        let destination = Draft::load(self.platform, new).await?;
        *self.destination.borrow_mut() = destination;
        Ok(())
    }

    /// Applies `change` to the destination and writes it if it differs, as [`rows::change`] does. Returns the result of
    /// `change`; none when another writer was first, at every try.
    pub(super) async fn change_destination<T>(
        &self,
        mut change: impl FnMut(&mut Destination) -> T,
    ) -> Result<Option<T>, Unreachable> {
        for _ in 0..CONFLICTS {
            let mut destination = self.destination.borrow().clone();
            let before = destination.row.clone();
            let result = change(&mut destination.row);
            if destination.row == before {
                return Ok(Some(result));
            }
            if destination.save_with(self.platform, Vec::new()).await? {
                *self.destination.borrow_mut() = destination;
                return Ok(Some(result));
            }
            self.read_destination().await?;
        }
        Ok(None)
    }

    fn organization(&self) -> String {
        self.delivery.borrow().row.organization.clone()
    }

    /// Runs `future` and marks its failure as ours, not the destination's.
    async fn own<T>(&self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        future.await.inspect_err(|_| self.ours.set(true))
    }

    async fn take(&self, name: &str) -> Result<Locked, Error> {
        let (organization, registration, owner, until) = {
            let Delivery {
                organization,
                registration,
                lease,
                ..
            } = &self.delivery.borrow().row;
            let lease = lease.as_ref().expect("an attempt has a lease");
            let owner = lease.owner.clone();
            (
                organization.clone(),
                registration.clone(),
                owner,
                lease.until,
            )
        };
        let unreachable = |unreachable: Unreachable| Error::retryable(unreachable.to_string());
        let key = Lock::at(&organization, &registration, name);
        let stored = rows::load::<Lock>(self.platform, &key)
            .await
            .map_err(unreachable)?;
        let now = self.platform.now();
        let (note, expect) = match stored {
            Some(Stored { row, .. }) if row.owner.is_some() && row.until > now => {
                return Ok(Locked::Theirs);
            }
            Some(Stored { row, etag }) => (row.note, Expect::Unchanged(etag)),
            None => (Value::Null, Expect::Absent),
        };
        let row = Lock {
            organization,
            registration,
            name: name.to_owned(),
            owner: Some(owner),
            until,
            note: note.clone(),
            updated_at: now,
        };
        let (write, etag) = rows::put(self.platform, &row, expect);
        let written = self.platform.write(vec![write]).await.unless_conflict();
        if !written.map_err(unreachable)? {
            return Ok(Locked::Theirs);
        }
        self.locks.borrow_mut().push(Stored { row, etag });
        Ok(Locked::Ours(note))
    }

    async fn release(&self, mut lock: Stored<Lock>) -> Result<(), Error> {
        lock.row.owner = None;
        lock.row.updated_at = self.platform.now();
        match lock.save_if_unchanged(self.platform).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::retryable(
                "let go of a place: somebody else took it meanwhile",
            )),
            Err(unreachable) => Err(Error::retryable(unreachable.to_string())),
        }
    }

    /// Releases all locks that the attempt still holds; any that fail to release expire with the lease.
    pub(super) async fn release_all(&self) {
        let locks = std::mem::take(&mut *self.locks.borrow_mut());
        for lock in locks {
            if let Err(error) = self.release(lock).await {
                tracing::warn!(%error, "A place stays taken until the lease ends");
            }
        }
    }

    async fn record_step(&self, step: &str, receipt: Value) -> Result<(), Error> {
        let mut stored = self.delivery.borrow().clone();
        stored.row.progress.insert(step.to_owned(), receipt);
        match stored.save_if_unchanged(self.platform).await {
            Ok(true) => {
                *self.delivery.borrow_mut() = stored;
                Ok(())
            }
            Ok(false) => Err(self.failed("keep a finished step: the lease is somebody else's")),
            Err(unreachable) => Err(self.failed(unreachable.to_string())),
        }
    }

    fn failed(&self, text: impl Into<String>) -> Error {
        self.ours.set(true);
        Error::retryable(text)
    }
}

impl<P: Platform> Host for DeliveryContext<'_, P> {
    fn content<'a>(&'a self, material: &'a Material) -> LocalFuture<'a, Result<Bytes, Error>> {
        Box::pin(self.own(async move {
            content(Scope::new(self.platform, &self.organization()), material).await
        }))
    }

    fn size_bytes<'a>(&'a self, material: &'a Material) -> LocalFuture<'a, Result<u64, Error>> {
        Box::pin(self.own(async move {
            size_bytes(Scope::new(self.platform, &self.organization()), material).await
        }))
    }

    fn read<'a>(
        &'a self,
        material: &'a Material,
        offset: u64,
        length: u64,
    ) -> LocalFuture<'a, Result<Bytes, Error>> {
        Box::pin(self.own(async move {
            read(
                Scope::new(self.platform, &self.organization()),
                material,
                offset,
                length,
            )
            .await
        }))
    }

    fn lock<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<Locked, Error>> {
        Box::pin(self.own(self.take(name)))
    }

    fn unlock<'a>(&'a self, name: &'a str, note: Value) -> LocalFuture<'a, Result<(), Error>> {
        let mut locks = self.locks.borrow_mut();
        let Some(index) = locks.iter().position(|lock| lock.row.name == name) else {
            return Box::pin(std::future::ready(Ok(())));
        };
        let mut lock = locks.swap_remove(index);
        lock.row.note = note;
        Box::pin(self.own(self.release(lock)))
    }

    fn record<'a>(&'a self, step: &'a str, receipt: Value) -> LocalFuture<'a, Result<(), Error>> {
        Box::pin(self.record_step(step, receipt))
    }

    fn unix_secs(&self) -> u64 {
        self.platform.now().secs()
    }
}
