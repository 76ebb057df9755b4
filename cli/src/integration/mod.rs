//! `chainloop integration`: what is available, what is registered, what is attached.

mod attached;
pub(crate) mod available;
mod registered;

use std::process::ExitCode;

use clap::Subcommand;

use crate::arguments::Global;

/// No list of configuration is longer than this; only deliveries and attestations are.
pub(crate) const EVERYTHING: usize = 100_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What can be registered
    #[command(subcommand)]
    Available(available::Command),
    /// What is registered in your organization
    #[command(subcommand)]
    Registered(registered::Command),
    /// What is attached to which workflow
    #[command(subcommand)]
    Attached(attached::Command),
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        match self {
            Self::Available(command) => command.run(global).map(|()| ExitCode::SUCCESS),
            Self::Registered(command) => command.run(global),
            Self::Attached(command) => command.run(global).map(|()| ExitCode::SUCCESS),
        }
    }
}
