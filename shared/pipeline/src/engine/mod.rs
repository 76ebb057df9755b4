//! An attestation's way, from being accepted to its deliveries being over, and what looks after it.

pub mod accept;
pub mod audit;
pub mod deliver;
pub mod deliveries;
pub mod fetch;
pub mod health;
pub mod issuer_keys;
pub(crate) mod job_runner;
pub(crate) mod materials;
pub mod operations;
pub mod pauses;
pub mod places;
pub mod plans;
pub(crate) mod progress;
pub mod receipts;
pub mod reconcile;
pub(crate) mod settle;
pub mod sign_in;
pub(crate) mod signatures;
pub mod trial;
