//! The `chainloop` command: registers integrations, attaches them to workflows, pushes attestations,
//! and shows what became of each delivery.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arguments;
mod attestation;
mod bootstrap;
mod client;
mod confirm;
mod delivery;
mod failure;
mod integration;
mod options;
mod output;
mod table;
mod time;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    arguments
        .run()
        .unwrap_or_else(|error| failure::report(&error))
}
