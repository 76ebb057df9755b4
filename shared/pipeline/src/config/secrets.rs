//! Registrations' credentials, kept for a short while in a function's memory.
//!
//! Whoever is told 401 asks for the credentials as they are now: so a rotation is survived, and a delivery
//! costs no call to the secret store.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use api::Timestamp;

use crate::store::platform::{Platform, SecretValue, Unreachable};

/// Minimum time for which credentials are cached; the maximum is a quarter longer, so that not all functions read them
/// again at the same moment.
pub const KEPT: Duration = Duration::from_mins(4);

#[derive(Debug, Default)]
pub struct Secrets(RefCell<HashMap<String, (SecretValue, Timestamp)>>);

impl Secrets {
    /// Credentials as they were a short while ago, or as they are now when `fresh`.
    pub async fn get(
        &self,
        platform: &impl Platform,
        name: &str,
        fresh: bool,
    ) -> Result<Option<SecretValue>, Unreachable> {
        let now = platform.now();
        let known = self.0.borrow().get(name).cloned();
        if let Some((value, until)) = known
            && !fresh
            && now < until
        {
            return Ok(Some(value));
        }
        self.read(platform, name, None).await
    }

    /// Credentials in one version, where what [`get`](Self::get) found is another.
    pub async fn read(
        &self,
        platform: &impl Platform,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<SecretValue>, Unreachable> {
        let now = platform.now();
        let value = platform.get_secret(name, version).await?;
        let quarter = u64::try_from(KEPT.as_millis() / 4).unwrap_or(u64::MAX);
        let until = now.plus(KEPT + Duration::from_millis(platform.random() % quarter));
        let mut kept = self.0.borrow_mut();
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
