//! Registrations' credentials, kept for a short while in a function's memory.
//!
//! Whoever is told 401 asks for the credentials as they are now: so a rotation is survived, and a delivery
//! costs no call to the secret store.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use api::Timestamp;
use futures_util::lock::Mutex;

use crate::store::platform::{Platform, SecretValue, Unreachable};
use crate::store::rows::Registration;

/// Minimum time for which credentials are cached; the maximum is a quarter longer, so that not all functions read them
/// again at the same moment.
pub const KEPT: Duration = Duration::from_mins(4);

type Found = Result<Option<SecretValue>, Unreachable>;

#[derive(Debug, Default)]
pub struct Secrets {
    kept: RefCell<HashMap<String, (SecretValue, Timestamp)>>,
    /// Reads under way. The first caller holds the lock; the others get its result, also where it failed.
    reading: RefCell<HashMap<String, Rc<Mutex<Option<Found>>>>>,
}

impl Secrets {
    /// Credentials as they were a short while ago, or as they are now when `fresh`.
    pub async fn get(
        &self,
        platform: &impl Platform,
        name: &str,
        fresh: bool,
    ) -> Result<Option<SecretValue>, Unreachable> {
        if fresh {
            return self.read(platform, name, None).await;
        }
        if let Some(known) = self.known(platform, name) {
            return Ok(Some(known));
        }
        let reading = Rc::clone(
            self.reading
                .borrow_mut()
                .entry(name.to_owned())
                .or_default(),
        );
        let mut found = reading.lock().await;
        if let Some(found) = found.clone() {
            return found;
        }
        let read = self.read(platform, name, None).await;
        *found = Some(read.clone());
        self.reading.borrow_mut().remove(name);
        read
    }

    fn known(&self, platform: &impl Platform, name: &str) -> Option<SecretValue> {
        let kept = self.kept.borrow();
        let (value, until) = kept.get(name)?;
        (platform.now() < *until).then(|| value.clone())
    }

    /// The credentials that belong to a registration's row: `found`, unless that is another version. None where a row
    /// without a version has none.
    pub(crate) async fn of(
        &self,
        platform: &impl Platform,
        row: &Registration,
        found: Option<SecretValue>,
    ) -> Result<Option<SecretValue>, Unreachable> {
        let version = row.secret_version.as_deref();
        let is_its_own = |found: &SecretValue| version.is_none() || found.version() == version;
        if let Some(found) = found.filter(is_its_own) {
            return Ok(Some(found));
        }
        let name = Registration::secret_name(&row.organization, &row.integration, &row.id);
        let read = self.read(platform, &name, version).await?;
        match version {
            // The table shows at once what is written, and Secrets Manager after a while.
            Some(_) if read.is_none() => Err(Unreachable {
                what: "secrets manager",
                why: "it does not show this version of the credentials".to_owned(),
            }),
            _ => Ok(read),
        }
    }

    async fn read(
        &self,
        platform: &impl Platform,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<SecretValue>, Unreachable> {
        let now = platform.now();
        let value = platform.get_secret(name, version).await?;
        let quarter = u64::try_from(KEPT.as_millis() / 4).unwrap_or(u64::MAX);
        let until = now.plus(KEPT + Duration::from_millis(platform.random() % quarter));
        let mut kept = self.kept.borrow_mut();
        match &value {
            Some(value) => {
                kept.retain(|_, (_, until)| *until > now);
                kept.insert(name.to_owned(), (value.clone(), until));
            }
            None => {
                kept.remove(name);
            }
        }
        Ok(value)
    }
}
