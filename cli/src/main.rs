//! The `chainloop` command: registers integrations, attaches them to workflows, pushes attestations,
//! shows what became of each delivery, and does something about it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod apply;
mod arguments;
mod attestation;
mod audit_log;
mod auth;
mod aws_environment;
mod bootstrap;
mod client;
mod confirm;
mod credentials;
mod delivery;
mod failure;
mod intake;
mod integration;
mod interrupt;
mod job;
mod options;
mod organization;
mod output;
mod progress;
mod table;
mod time;
mod workflow;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    arguments
        .run()
        .unwrap_or_else(|error| failure::report(&error))
}
