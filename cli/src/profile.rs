//! `chainloop profile`: keeps several installations apart, each with its URL and its token.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::address;
use crate::client::Client;
use crate::confirm;
use crate::failure::Failure;
use crate::global::Global;
use crate::installation::warn_of_variables;
use crate::names::label;
use crate::output::{self, Format};
use crate::profiles::{self, Profile, Profiles};
use crate::table::{Table, cell};
use crate::{auth, options};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a profile: the URL of an installation, with --url, and a token for it
    #[command(after_help = "\
Pass the token as @FILE, - (standard input) or env:NAME to keep it out of the shell's history. It is checked before it is \
stored, and goes to this URL alone. The first profile is the current one.

Examples:
  chainloop profile add prod --url https://api.example.org \\
    --token @token.txt
  chainloop profile add builds --url https://test.example.org")]
    Add(Name),
    /// List profiles, without their tokens
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  chainloop profile list"
    )]
    List,
    /// Make a profile the current one
    #[command(after_help = "\
For one command, pass --profile NAME instead; for one shell, set CHAINLOOP_INTEGRATIONS_PROFILE.

Example:
  chainloop profile use prod")]
    Use(Name),
    /// Delete a profile
    #[command(after_help = "\
Its token stays valid: `chainloop organization api-token revoke` revokes it.

Example:
  chainloop profile delete test -y")]
    Delete(Name),
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Name of the profile: lower-case letters, digits and hyphens
    #[arg(value_parser = label)]
    name: String,
}

/// A profile as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    name: &'a str,
    url: &'a str,
    has_token: bool,
    current: bool,
}

impl Command {
    pub(crate) fn run(&self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Add(Name { name }) => add(global, name),
            Self::List => list(global),
            Self::Use(Name { name }) => choose(global, name),
            Self::Delete(Name { name }) => delete(global, name),
        }
    }
}

/// Stores what the flags say: a variable may be of another installation.
fn add(global: &Global, name: &str) -> anyhow::Result<()> {
    free(&profiles::load(global)?, name)?;
    let (url, token) = global.flags();
    let Some(url) = url else {
        return Err(Failure::usage("no URL given")
            .advice("Pass --url, such as --url https://api.example.org.")
            .into());
    };
    if let Some(token) = token {
        if global.from.is_token_exposed {
            options::warn_exposed(global, "token");
        }
        auth::bearer(&Client::of(global, url, token.to_owned(), "--token")?)?;
    }
    let url = address::base(url)?;
    let token = token.map(str::to_owned);
    let (profiles, path) = profiles::change(|profiles| {
        free(profiles, name)?;
        profiles.put(name, Profile { url, token });
        Ok(())
    })?;
    global.info(&format!("profile {name:?} added to {}", path.display()));
    tell_current(global, &profiles);
    show(global, name, &profiles)
}

fn free(profiles: &Profiles, name: &str) -> Result<(), Failure> {
    match profiles.profiles.contains_key(name) {
        false => Ok(()),
        true => Err(Failure::usage(format!("the profile {name:?} already exists")).advice(format!(
            "`chainloop auth login --profile {name}` replaces its token, `chainloop profile delete {name}` deletes it."
        ))),
    }
}

fn list(global: &Global) -> anyhow::Result<()> {
    let profiles = profiles::load(global)?;
    let current = profiles.name(global);
    let views: Vec<View<'_>> = profiles
        .profiles
        .iter()
        .map(|(name, profile)| View {
            name,
            url: &profile.url,
            has_token: profile.token.is_some(),
            current: current.as_ref() == Some(name),
        })
        .collect();
    match global.output {
        Format::Json => output::json(&views)?,
        Format::Table if views.is_empty() => output::line("there are no profiles")?,
        Format::Table => {
            let mut table = Table::new(&["NAME", "URL", "TOKEN", "CURRENT"]);
            let told = |is: bool| cell(if is { "yes" } else { "no" });
            for view in views {
                let View { name, url, .. } = view;
                table.row(vec![
                    cell(name),
                    cell(url),
                    told(view.has_token),
                    told(view.current),
                ]);
            }
            output::line(&table.to_string())?;
        }
    }
    warn_of_variables(global);
    Ok(())
}

fn choose(global: &Global, name: &str) -> anyhow::Result<()> {
    let (profiles, _) = profiles::change(|profiles| {
        profiles.get(name)?;
        profiles.current = Some(name.to_owned());
        Ok(())
    })?;
    tell_current(global, &profiles);
    warn_of_variables(global);
    show(global, name, &profiles)
}

fn delete(global: &Global, name: &str) -> anyhow::Result<()> {
    let profiles = profiles::load(global)?;
    let url = &profiles.get(name)?.url;
    confirm::deletion(global, || {
        Ok(format!("Delete the profile {name:?}, of {url}?"))
    })?;
    let (profiles, _) = profiles::change(|profiles| profiles.remove(name).map(|_| ()))?;
    global.info(&format!(
        "profile {name:?} deleted; its token stays valid until it is revoked"
    ));
    tell_current(global, &profiles);
    Ok(())
}

/// Says which profile is used from now on.
fn tell_current(global: &Global, profiles: &Profiles) {
    match &profiles.current {
        Some(current) => global.info(&format!("the current profile is {current:?}")),
        None => global.info("no profile is the current one"),
    }
}

fn show(global: &Global, name: &str, profiles: &Profiles) -> anyhow::Result<()> {
    let Profile { url, token } = profiles.get(name)?;
    match global.output {
        Format::Table => Ok(()),
        Format::Json => output::json(&View {
            name,
            url,
            has_token: token.is_some(),
            current: profiles.current.as_deref() == Some(name),
        }),
    }
}
