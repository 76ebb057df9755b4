//! `chainloop auth`: shows the current token, and stores one so that it need not be in the environment.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use anyhow::Context as _;
use api::organization::Bearer;
use api::workflows::Selector;
use api::{OrganizationName, Role, Timestamp};
use clap::Subcommand;
use serde::Serialize;

use crate::client::{Call, Client, given};
use crate::credentials::{self, Credentials};
use crate::failure::Failure;
use crate::global::Global;
use crate::oidc::{self, Oidc};
use crate::output::{self, Format};
use crate::table::{Table, cell};
use crate::time;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the current token, with its role and expiry
    #[command(after_help = "Example:\n  chainloop auth status")]
    Status,
    /// Store the API URL and a token, after checking both
    #[command(after_help = "\
Prompts for the URL and the token unless --url and --token give them, and does not echo the token. Without \
a terminal, reads the token from standard input. Stores both in the user's configuration directory, in a file \
that only its owner can read. CHAINLOOP_URL, CHAINLOOP_TOKEN, --url and --token override the stored values.

Examples:
  chainloop auth login
  chainloop auth login --url https://api.example.org < token.txt")]
    Login,
    /// Exchange the CI job's OIDC token for a token, and print that
    #[command(after_help = "\
Uses the OIDC token of GitHub Actions, or the one in CHAINLOOP_OIDC_TOKEN. The token lives an hour, with the role and \
the workflows of the issuer's rule. An OIDC token can be exchanged once.

Examples:
  chainloop auth exchange --organization acme
  export CHAINLOOP_TOKEN=$(chainloop auth exchange)")]
    Exchange(Oidc),
    /// Remove the URL and token that `auth login` stored
    #[command(after_help = "\
The token stays valid: `chainloop organization api-token revoke` revokes it.

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
    let client = Client::new(global)?;
    let bearer = bearer(&client)?;
    let from = match (given(global.token.as_deref()), credentials::path()) {
        (None, Some(path)) => path.display().to_string(),
        _ => "--token or CHAINLOOP_TOKEN".to_owned(),
    };
    show(global, client.base(), &bearer, &from)
}

fn login(global: &Global) -> anyhow::Result<()> {
    let url = match given(global.url.as_deref()) {
        Some(url) => url,
        None => ask_url(global)?,
    };
    let token = match given(global.token.as_deref()) {
        Some(token) => token,
        None => ask_token()?,
    };
    let client = Client::of(global, &url, token.clone())?;
    let bearer = bearer(&client)?;
    let url = client.base().to_owned();
    let path = credentials::save(&Credentials { url, token })?;
    for name in ["CHAINLOOP_URL", "CHAINLOOP_TOKEN"] {
        if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
            global.warn(&format!("{name} is set, and overrides the stored value"));
        }
    }
    global.info(&format!("stored in {}", path.display()));
    show(global, client.base(), &bearer, &path.display().to_string())
}

fn exchange(global: &Global, oidc: &Oidc) -> anyhow::Result<()> {
    let exchanged = oidc::exchange(global, oidc)?;
    match global.output {
        Format::Json => output::json(&exchanged),
        // Alone, so that it can be caught by a script.
        Format::Table => output::line(&exchanged.text),
    }
}

fn ask_url(global: &Global) -> anyhow::Result<String> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage("no API URL configured")
            .advice("Pass --url, or set CHAINLOOP_URL.")
            .into());
    }
    let before = credentials::load(global).ok().flatten();
    let before = before.map(|before| before.url);
    match &before {
        Some(before) => eprint!("API URL [{}]: ", output::plain(before)),
        None => eprint!("API URL (such as https://api.example.org): "),
    }
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    given(Some(&answer))
        .or(before)
        .ok_or_else(|| Failure::usage("no API URL given").into())
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
    if credentials::remove()? {
        global.info("removed; the token stays valid until it is revoked");
    } else {
        global.info("nothing was stored");
    }
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
        })?;
        return Ok(());
    }
    let mut table = Table::titled("Token", &[]);
    let mut row = |name: &str, text: &str| table.row(vec![cell(name), cell(text)]);
    row("API", url);
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
