//! Pipeline that accepts, fans out, delivers and reconciles attestations.
//!
//! Everything here runs on a [`Platform`], the world as the pipeline sees it, and knows neither AWS nor any integration
//! by name. So the same code runs on Lambda, in tests and in simulation.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![expect(
    async_fn_in_trait,
    reason = "always static dispatch on one thread; nothing needs Send"
)]

pub mod accounting;
pub mod attach;
pub mod attestations;
pub mod audit;
pub mod audit_log;
pub mod check;
pub mod configuration;
pub mod deliver;
pub mod deliveries;
pub mod destination;
pub mod fetch;
pub mod http;
pub(crate) mod ids;
pub mod intake;
pub mod intakes;
pub(crate) mod job_runner;
pub mod jobs;
pub mod ledger;
pub mod meter;
pub mod operations;
pub mod pace;
pub mod pauses;
pub mod plans;
pub mod platform;
pub mod quotas;
pub mod reconcile;
pub mod register;
pub mod rows;
pub mod schedule;
pub mod secrets;
pub(crate) mod settle;
pub mod tokens;
pub mod update;
pub mod workflows;

pub use platform::Platform;

// The platform of the tests is a crate of its own, which the unit tests here cannot use: it is built on another build of
// this crate than theirs. So they compile its source, in which this crate is `pipeline`.
#[cfg(test)]
extern crate self as pipeline;
#[cfg(test)]
#[expect(dead_code, reason = "most of it is for other crates' tests")]
#[path = "../../../tests/memory/src/lib.rs"]
mod memory;
