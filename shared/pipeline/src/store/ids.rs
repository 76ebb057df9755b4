//! New IDs.

use api::Timestamp;

use crate::store::platform::Platform;

/// A random ID: UUID version 4.
pub(crate) fn random<Id: From<String>>(platform: &impl Platform) -> Id {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&platform.random().to_be_bytes());
    bytes[8..].copy_from_slice(&platform.random().to_be_bytes());
    uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string()
        .into()
}

/// An id whose order is that of time: UUID version 7.
pub(crate) fn ordered<Id: From<String>>(platform: &impl Platform, now: Timestamp) -> Id {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&platform.random().to_be_bytes());
    random[8..].copy_from_slice(&platform.random().to_be_bytes()[..2]);
    uuid::Builder::from_unix_timestamp_millis(now.millis(), &random)
        .into_uuid()
        .to_string()
        .into()
}
