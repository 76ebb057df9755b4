//! Options that all commands have.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueHint};

use crate::output::{self, Format};
use crate::source::{self, given};
use crate::variables::{self, PROFILE, TOKEN, URL};

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
    /// API token, or where it is: @FILE, - (standard input) or env:NAME
    #[arg(
        short,
        long,
        global = true,
        env = TOKEN,
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// API URL
    #[arg(
        long,
        global = true,
        env = URL,
        visible_alias = "control-plane"
    )]
    pub url: Option<String>,
    /// Profile to use, instead of variables for URL and token
    #[arg(long, global = true, env = PROFILE, value_name = "NAME")]
    pub profile: Option<String>,
    /// Skip confirmation before applying, deleting, revoking, cancelling or redelivering
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// Print each request
    #[arg(long, global = true)]
    pub debug: bool,
    /// Print only results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    #[arg(skip)]
    pub from: Origins,
}

/// Flags or variables that give URL and token; empty without one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    pub url: &'static str,
    pub token: &'static str,
    /// The token's text was an argument, which others can see.
    pub is_token_exposed: bool,
}

impl Global {
    /// Takes values that are empty for none, and notes where URL and token come from. A profile that a flag names sets
    /// variables aside.
    pub(crate) fn settle(&mut self, matches: &ArgMatches) {
        let is_flag = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        self.profile = given(self.profile.as_deref());
        let with_variables = self.profile.is_none() || !is_flag("profile");
        let settle = |value: &mut Option<String>, id, flag, variable| {
            let from = match (is_flag(id), variables::find(variable)) {
                (true, _) => flag,
                (false, Some((name, _))) if with_variables => name,
                _ => "",
            };
            *value = given(value.as_deref()).filter(|_| !from.is_empty());
            if value.is_some() { from } else { "" }
        };
        self.from.url = settle(&mut self.url, "url", "--url", URL);
        self.from.token = settle(&mut self.token, "token", "--token", TOKEN);
    }

    /// Reads the token of a flag from its source.
    pub(crate) fn read_token(&mut self) -> anyhow::Result<()> {
        let (Some(token), "--token") = (&self.token, self.from.token) else {
            return Ok(());
        };
        self.from.is_token_exposed = source::is_text(token);
        self.token = given(Some(&source::text("token", token)?));
        Ok(())
    }

    /// Returns URL and token of flags alone.
    pub(crate) fn flags(&self) -> (Option<&str>, Option<&str>) {
        let url = self.url.as_deref().filter(|_| self.from.url == "--url");
        let token = self.token.as_deref();
        (url, token.filter(|_| self.from.token == "--token"))
    }

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
