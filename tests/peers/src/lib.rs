//! Third parties to deliver to, on loopback: real servers where there are any that need no account, and doubles
//! written from the vendor's contract where there are none.
//!
//! Each module starts one third party and shows an integration at work with it; the whole system's tests start the
//! same ones. A server ends with the value that stands for it. One that does not come up fails the test.

#![allow(clippy::unwrap_used, reason = "all of this is for tests")]

pub mod azurite;
pub mod blob;
mod double;
#[cfg(test)]
mod export;
pub mod gcs;
mod process;
mod stage;

pub use double::{Double, Received};
pub use process::{Process, free_port, tool};
pub use stage::{Stage, http};
