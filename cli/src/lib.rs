//! The `chainloop` command: registers integrations, attaches them to workflows, pushes attestations, and inspects and
//! controls deliveries.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account;
mod address;
mod apply;
mod arguments;
mod attestation;
mod audit_log;
mod auth;
mod bootstrap;
mod called;
mod client;
mod completion;
mod confirm;
mod delivery;
mod destination;
mod document;
mod failure;
mod global;
mod ids;
mod installation;
mod intake;
mod integration;
mod interrupt;
mod issuer;
mod job;
mod layout;
#[cfg(test)]
mod mentions;
mod names;
mod oidc;
mod open;
mod options;
mod organization;
mod output;
#[cfg(test)]
mod pages;
mod places;
mod profile;
mod profiles;
mod progress;
mod sort;
mod source;
mod table;
mod time;
mod trust;
mod variables;
mod workflow;

use std::process::ExitCode;

use clap::CommandFactory as _;

pub use apply::formatted;

/// Runs the command that this process was started with.
pub fn run() -> ExitCode {
    completion::answer(arguments::Arguments::command);
    let words: Vec<_> = std::env::args_os().collect();
    match arguments::Arguments::given(&words) {
        Ok(arguments) => {
            let output = arguments.output();
            arguments
                .run()
                .unwrap_or_else(|error| failure::report(&error, output))
        }
        Err(told) => failure::parsed(&told, output::Format::asked(&words)),
    }
}
