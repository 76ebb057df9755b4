//! `chainloop auth`: shows the current token, and stores one so that it need not be in the environment.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use anyhow::Context as _;
use api::organization::Bearer;
use api::workflows::Selector;
use api::{OrganizationName, Role, Timestamp};
use clap::Subcommand;
use serde::Serialize;

use crate::address::base;
use crate::client::{Call, Client};
use crate::failure::Failure;
use crate::global::Global;
use crate::installation::{Installation, warn_of_variables};
use crate::names::label;
use crate::oidc::{self, Oidc};
use crate::options;
use crate::output::{self, Format};
use crate::profiles::{self, Profile};
use crate::source::given;
use crate::table::{Table, cell};
use crate::time;
use crate::variables::URL;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the current token, with its role and expiry
    #[command(after_help = "Example:\n  chainloop auth status")]
    Status,
    /// Store the API URL and a token, after checking both
    #[command(after_help = "\
Prompts for the URL, unless --url or the profile gives it, and for the token, unless --token does, and does not echo it. \
Without a terminal, reads the token from standard input. Stores both in the profile of --profile or in the current one, \
or else in one called default: in the user's configuration directory, in a file that only its owner can read. \
CHAINLOOP_INTEGRATIONS_URL, CHAINLOOP_INTEGRATIONS_TOKEN, --url and --token come before the stored values.

Examples:
  chainloop auth login
  chainloop auth login --url https://api.example.org < token.txt
  chainloop auth login --profile test \\
    --url https://test.example.org < token.txt")]
    Login,
    /// Exchange the CI job's OIDC token for a token, and print that
    #[command(after_help = "\
Uses the OIDC token of GitHub Actions, or the one in CHAINLOOP_INTEGRATIONS_OIDC_TOKEN. The token lives an hour, with the role and \
the workflows of the issuer's rule. An OIDC token can be exchanged once.

Examples:
  chainloop auth exchange --organization acme
  export CHAINLOOP_INTEGRATIONS_TOKEN=$(chainloop auth exchange)")]
    Exchange(Oidc),
    /// Remove the profile's token
    #[command(after_help = "\
The token stays valid: `chainloop organization api-token revoke` revokes it. The profile keeps its URL; \
`chainloop profile delete` deletes both.

Example:
  chainloop auth logout")]
    Logout,
}

impl Command {
    pub(crate) fn run(&self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Status => status(global),
            Self::Login => login(global),
            Self::Exchange(oidc) => exchange(global, oidc),
            Self::Logout => logout(global),
        }
    }
}

/// Returns the bearer of the client's token.
pub(crate) fn bearer(client: &Client) -> anyhow::Result<Bearer> {
    client
        .call(&Call::get(&["organization"]))
        .context("failed to look up the token")
}

fn status(global: &Global) -> anyhow::Result<()> {
    let installation = Installation::of(global)?;
    let (url, url_from) = (installation.url.clone(), installation.url_from.clone());
    let token = installation.token()?;
    let client = Client::of(global, &url, token.text, &token.from)?;
    let bearer = bearer(&client)?;
    let mut from = match url_from == token.from {
        true => url_from.clone(),
        false => format!("URL: {url_from}, token: {}", token.from),
    };
    let chosen = profiles::load(global)?.name(global);
    let chosen = chosen.map(|name| format!("profile {name}"));
    if let Some(chosen) = chosen.filter(|chosen| ![&url_from, &token.from].contains(&chosen)) {
        let _ = write!(from, ", instead of {chosen}");
    }
    show(global, client.base(), &bearer, &from)
}

fn login(global: &Global) -> anyhow::Result<()> {
    let profiles = profiles::load(global)?;
    let name = profiles.name(global);
    let name = name.unwrap_or_else(|| "default".to_owned());
    label(&name).map_err(|fault| Failure::usage(format!("profile {name:?}: {fault}")))?;
    let before = profiles.profiles.get(&name).map(|before| &before.url);
    let url = match (&global.url, before) {
        (Some(url), _) => base(url)?,
        (None, Some(before)) => before.clone(),
        (None, None) => base(&ask_url()?)?,
    };
    if let Some(before) = before.filter(|before| **before != url) {
        return Err(Failure::usage(format!("the profile {name:?} is of {before}"))
            .advice(format!(
                "Name another one for {url} with --profile, or delete it with `chainloop profile delete {name}`."
            ))
            .into());
    }
    // A variable's token may be of another installation than the profile.
    let given = match &global.url {
        Some(_) => global.token.as_deref(),
        None => global.flags().1,
    };
    if given.is_some() && global.from.is_token_exposed {
        options::warn_exposed(global, "token");
    }
    let (token, from) = match given {
        Some(token) => (token.to_owned(), global.from.token),
        None => (ask_token()?, "the input"),
    };
    let client = Client::of(global, &url, token.clone(), from)?;
    let bearer = bearer(&client)?;
    let token = Some(token);
    let (_, path) = profiles::change(|profiles| {
        profiles.put(&name, Profile { url, token });
        Ok(())
    })?;
    warn_of_variables(global);
    global.info(&format!(
        "stored in profile {name:?}, in {}",
        path.display()
    ));
    show(global, client.base(), &bearer, &format!("profile {name}"))
}

fn exchange(global: &Global, oidc: &Oidc) -> anyhow::Result<()> {
    let exchanged = oidc::exchange(global, oidc)?;
    match global.output {
        Format::Json => output::json(&exchanged),
        // Alone, so that it can be caught by a script.
        Format::Table => output::line(&exchanged.text),
    }
}

fn ask_url() -> anyhow::Result<String> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage("no API URL configured")
            .advice(format!("Pass --url, or set {URL}."))
            .into());
    }
    eprint!("API URL (such as https://api.example.org): ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    given(Some(&answer)).ok_or_else(|| Failure::usage("no API URL given").into())
}

fn ask_token() -> anyhow::Result<String> {
    /// Longer than a token is.
    const MOST: u64 = 4096;
    let answer = if io::stdin().is_terminal() {
        let terminal = console::Term::stderr();
        terminal.write_str("API token (not echoed): ")?;
        terminal.read_secure_line()?
    } else {
        let mut line = String::new();
        io::BufReader::new(io::stdin().lock().take(MOST)).read_line(&mut line)?;
        line
    };
    given(Some(&answer)).ok_or_else(|| {
        Failure::usage("no API token given")
            .advice("`chainloop organization api-token create` creates one.")
            .into()
    })
}

fn logout(global: &Global) -> anyhow::Result<()> {
    let profiles = profiles::load(global)?;
    let Some(name) = profiles.name(global) else {
        global.info("no profile is the current one: nothing was removed");
        return Ok(());
    };
    if profiles.get(&name)?.token.is_none() {
        global.info(&format!("the profile {name:?} has no token"));
        return Ok(());
    }
    profiles::change(|profiles| {
        let mut profile = profiles.get(&name)?.clone();
        profile.token = None;
        profiles.put(&name, profile);
        Ok(())
    })?;
    global.info(&format!(
        "removed from profile {name:?}; the token stays valid until it is revoked"
    ));
    Ok(())
}

/// The bearer as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    url: &'a str,
    organization: &'a OrganizationName,
    id: &'a str,
    name: &'a str,
    role: Role,
    /// Those that it is restricted to.
    workflows: &'a [Selector],
    expires_at: Option<Timestamp>,
    from: &'a str,
    release: Option<&'a str>,
}

fn show(global: &Global, url: &str, bearer: &Bearer, from: &str) -> anyhow::Result<()> {
    if global.output == Format::Json {
        output::json(&View {
            url,
            organization: &bearer.organization,
            id: &bearer.id,
            name: &bearer.name,
            role: bearer.role,
            workflows: &bearer.workflows,
            expires_at: bearer.expires_at,
            from,
            release: bearer.release.as_deref(),
        })?;
        return Ok(());
    }
    let mut table = Table::titled("Token", &[]);
    let mut row = |name: &str, text: &str| table.row(vec![cell(name), cell(text)]);
    row("API", url);
    if let Some(release) = &bearer.release {
        row("RELEASE", release);
    }
    row("ORGANIZATION", &bearer.organization);
    row("NAME", &bearer.name);
    row("ROLE", &bearer.role.to_string());
    row("WORKFLOWS", &restriction(&bearer.workflows));
    row("ID", &bearer.id);
    row("EXPIRES AT", &expiry(bearer.expires_at));
    row("SOURCE", from);
    output::line(&table.to_string())?;
    Ok(())
}

/// Formats the workflows that a token is restricted to for a person.
pub(crate) fn restriction(workflows: &[Selector]) -> String {
    let names: Vec<&str> = workflows.iter().map(|one| one.0.as_str()).collect();
    match names.is_empty() {
        true => "all".to_owned(),
        false => names.join("\n"),
    }
}

/// Formats a token's expiry for a person.
pub(crate) fn expiry(at: Option<Timestamp>) -> String {
    at.map_or_else(
        || "never".to_owned(),
        |at| format!("{} ({})", time::exact(at), time::relative(at, time::now())),
    )
}
