//! Context of one attempt: the services that an integration may ask for, and the state of its destination.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use api::{OrganizationName, Timestamp};
use attestation::Material;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture as LocalFuture;
use integrations::{Error, Host, Integration, Locked, Piece};
use serde_json::Value;

use super::material::{content, read, size_bytes};
use super::room::Reserved;
use crate::engine::progress::Steps;
use crate::ledger::breaker;
use crate::store::platform::{Key, Platform, Scope, UnlessConflict as _, Unreachable};
use crate::store::rows::{
    self, CONFLICTS, Delivery, Destination, Draft, Found, Lock, Registration, Row as _, Stored,
};

/// Context of one attempt: the materials, and the record of finished steps.
pub(super) struct DeliveryContext<'a, P> {
    pub(super) platform: &'a P,
    /// The memory that this attempt may take.
    pub(super) reserved: Reserved<'a>,
    pub(super) delivery: RefCell<Stored<Delivery>>,
    /// When the attempt ends.
    pub(super) until: Timestamp,
    /// The registration that it sends through, once it is loaded.
    pub(super) registration: RefCell<Option<Registration>>,
    steps: RefCell<Steps>,
    /// Not in the table while nothing was ever wrong with the destination.
    pub(super) destination: RefCell<Draft<Destination>>,
    /// Places that this attempt has taken and not let go of.
    locks: RefCell<Vec<Stored<Lock>>>,
    /// Something of ours failed, which says nothing of the destination.
    pub(super) ours: Cell<bool>,
}

impl<'a, P: Platform> DeliveryContext<'a, P> {
    pub(super) fn new(
        platform: &'a P,
        reserved: Reserved<'a>,
        claimed: Stored<Delivery>,
        until: Timestamp,
    ) -> Self {
        let Delivery {
            organization,
            registration,
            ..
        } = &claimed.row;
        let destination = Destination::new(organization.clone(), registration.clone());
        Self {
            platform,
            reserved,
            destination: RefCell::new(Draft::new(destination)),
            delivery: RefCell::new(claimed),
            until,
            registration: RefCell::default(),
            steps: RefCell::default(),
            locks: RefCell::default(),
            ours: Cell::new(false),
        }
    }

    /// Until when the third party takes nothing from any of us, where it limits us together.
    pub(super) async fn shut_for_all<I: Integration>(
        &self,
    ) -> Result<Option<Timestamp>, Unreachable> {
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

    pub(super) fn destination_key(&self) -> Key {
        self.destination.borrow().row.key()
    }

    /// Keeps the destination that was found, or a blank one.
    pub(super) fn take_destination(&self, found: &Found) -> Result<(), Unreachable> {
        let stored = found.get::<Destination>(&self.destination_key())?;
        let blank = self.destination.borrow().row.blank();
        self.destination.replace(Draft::of(stored, blank));
        Ok(())
    }

    pub(super) async fn read_destination(&self) -> Result<(), Unreachable> {
        let new = self.destination.borrow().row.blank();
        let destination = Draft::load(self.platform, new).await?;
        *self.destination.borrow_mut() = destination;
        Ok(())
    }

    /// Reads the steps that are rows of their own.
    pub(super) async fn read_steps(&self) -> Result<(), Unreachable> {
        let delivery = self.delivery.borrow().row.clone();
        let steps = Steps::load(self.platform, &delivery).await?;
        *self.steps.borrow_mut() = steps;
        Ok(())
    }

    /// All finished steps, once they were read.
    pub(super) fn progress(&self) -> BTreeMap<String, Value> {
        let delivery = self.delivery.borrow();
        self.steps.borrow().with_those_of(&delivery.row)
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

    fn organization(&self) -> OrganizationName {
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
        let (note, over) = match stored {
            Some(Stored { row, .. }) if row.owner.is_some() && row.until > now => {
                return Ok(Locked::Theirs);
            }
            Some(Stored { row, version }) => (row.note, Some(version)),
            None => (Value::Null, None),
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
        let (write, version) = rows::put(self.platform, &row, over.as_ref());
        let written = self.platform.write(vec![write]).await.unless_conflict();
        if !written.map_err(unreachable)? {
            return Ok(Locked::Theirs);
        }
        self.locks.borrow_mut().push(Stored { row, version });
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
        let recorded = self
            .steps
            .borrow()
            .record(self.platform, &mut stored, step, receipt);
        let (writes, step) = recorded;
        match self.platform.write(writes).await.unless_conflict() {
            Ok(true) => {
                *self.delivery.borrow_mut() = stored;
                if let Some(step) = step {
                    self.steps.borrow_mut().keep(step);
                }
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
    ) -> LocalFuture<'a, Result<Piece, Error>> {
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
