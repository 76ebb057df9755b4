//! Third parties to deliver to, on loopback: real servers where there are any that need no account, and doubles
//! written from the vendor's contract where there are none.
//!
//! Each module starts one third party and shows an integration at work with it; the whole system's tests start the
//! same ones. A server ends with the value that stands for it. One that does not come up fails the test.

#![allow(clippy::unwrap_used, reason = "all of this is for tests")]

pub mod aiosmtpd;
pub mod all;
pub mod authority;
pub mod aws;
pub mod azurite;
pub mod blob;
pub mod dependency_track;
#[cfg(test)]
mod deployed;
pub mod discord;
mod double;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod export;
mod folder;
pub mod gcs;
#[cfg(test)]
mod guide;
pub mod maildev;
#[cfg(test)]
mod memory;
mod operator;
#[cfg(test)]
mod parity;
mod process;
pub mod registry;
pub mod slack;
mod stage;
#[cfg(test)]
mod terminal;

pub use aiosmtpd::Aiosmtpd;
pub use double::{Double, Received};
pub use folder::Folder;
pub use maildev::Maildev;
pub use operator::{Operator, SBOM};
pub use process::{Process, free_port, tool};
pub use stage::{STATEMENT, Stage, http, trusting};
