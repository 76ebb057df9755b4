//! Pipeline that accepts, fans out, delivers and reconciles attestations.
//!
//! Everything here runs on a [`Platform`], the world as the pipeline sees it, and knows neither AWS nor any integration
//! by name. So the same code runs on Lambda, in tests and in simulation.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![expect(
    async_fn_in_trait,
    reason = "always static dispatch on one thread; nothing needs Send"
)]

pub mod config;
pub mod engine;
pub mod http;
pub mod ledger;
pub mod records;
pub mod store;

pub use store::platform::Platform;

// The platform of the tests is a crate of its own, which the unit tests here cannot use: it is built on another build of
// this crate than theirs. So they compile its source, in which this crate is `pipeline`.
#[cfg(test)]
extern crate self as pipeline;
#[cfg(test)]
#[expect(dead_code, reason = "most of it is for other crates' tests")]
#[path = "../../../tests/memory/src/lib.rs"]
mod memory;
