//! Options that all commands have.

use clap::{Args, ValueHint};

use crate::output::{self, Format};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Output format: table or json
    #[arg(
        short,
        long,
        global = true,
        default_value = "table",
        value_name = "FORMAT",
        value_hint = ValueHint::Other
    )]
    pub output: Format,
    /// API token
    #[arg(
        short,
        long,
        global = true,
        env = "CHAINLOOP_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// API URL
    #[arg(
        long,
        global = true,
        env = "CHAINLOOP_URL",
        visible_alias = "control-plane"
    )]
    pub url: Option<String>,
    /// Skip confirmation before applying, deleting, revoking, cancelling or redelivering
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// Print each request
    #[arg(long, global = true)]
    pub debug: bool,
    /// Print only results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

impl Global {
    pub(crate) fn info(&self, text: &str) {
        if !self.quiet {
            output::say("INF", "32", text);
        }
    }

    pub(crate) fn warn(&self, text: &str) {
        if !self.quiet {
            output::say("WRN", "33", text);
        }
    }
}
