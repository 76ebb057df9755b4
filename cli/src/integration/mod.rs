//! `chainloop integration`: available integrations, registrations and attachments.

mod attached;
pub(crate) mod available;
mod registered;

use std::process::ExitCode;

use clap::Subcommand;

use crate::global::Global;

/// No list of configuration is longer than this; only deliveries and attestations are.
pub(crate) const EVERYTHING: usize = 100_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List and describe available integrations
    #[command(subcommand)]
    Available(available::Command),
    /// Manage registrations: integrations registered in your organization
    #[command(subcommand)]
    Registered(registered::Command),
    /// Manage attachments: registrations attached to workflows
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
