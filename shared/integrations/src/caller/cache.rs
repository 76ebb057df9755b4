//! Credentials that AWS lent us for a while, kept in the function's environment until shortly before it ends.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::AccessKey;
use crate::inputs::SecretText;

/// What is lent is not used any more so long before its end: an attempt that begins with it has to end with it.
const MARGIN_SECS: u64 = 5 * 60;

/// As many are kept at most.
const MOST: usize = 1_000;

/// The key of what was lent: who asked, and for what. The external ID is the organization's: what was lent to one is nothing to another, which may
/// name the same role.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Purpose {
    pub(crate) external_id: String,
    pub(crate) role: String,
    /// All that a session may do: one for another bucket is another.
    pub(crate) policy: String,
}

#[derive(Debug, Clone)]
struct Lent<T> {
    value: T,
    expires_at: u64,
}

/// Loans by their keys.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) sessions: Kept<AccessKey>,
    /// Passwords of registries.
    pub(crate) tokens: Kept<SecretText>,
}

#[derive(Debug)]
pub(crate) struct Kept<T>(Mutex<HashMap<Purpose, Lent<T>>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Kept<T> {
    pub(crate) fn get(&self, purpose: &Purpose, now: u64) -> Option<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, lent| now + MARGIN_SECS < lent.expires_at);
        all.get(purpose).map(|lent| lent.value.clone())
    }

    pub(crate) fn put(&self, purpose: Purpose, value: T, expires_at: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(purpose, Lent { value, expires_at });
    }

    pub(crate) fn forget(&self, purpose: &Purpose) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(purpose);
    }
}
