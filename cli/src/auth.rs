//! `chainloop auth`: whose token is used, and keeping one so that it need not be in the environment.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use anyhow::Context as _;
use clap::Subcommand;
use pipeline::Timestamp;
use pipeline::api::organization::Bearer;
use pipeline::rows::Role;
use serde::Serialize;

use crate::arguments::Global;
use crate::client::{Call, Client, given};
use crate::credentials::{self, Credentials};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::table::{Table, cell};
use crate::time;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show whose token is used, what it may do, and until when
    #[command(after_help = "Example:\n  chainloop auth status")]
    Status,
    /// Keep where the API is and a token, after trying both
    #[command(after_help = "\
Asks for what --url and --token do not say; the token is not shown as it is typed. Without a terminal it is read \
from standard input. Both are kept in the user's configuration directory, in a file that only its owner can read. \
CHAINLOOP_URL, CHAINLOOP_TOKEN, --url and --token win over what is kept.

Examples:
  chainloop auth login
  chainloop auth login --url https://api.example.org < token.txt")]
    Login,
    /// Forget what `auth login` kept
    #[command(after_help = "\
The token itself stays valid: `chainloop organization api-token revoke` ends it.

Example:
  chainloop auth logout")]
    Logout,
}

impl Command {
    pub(crate) fn run(&self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Status => status(global),
            Self::Login => login(global),
            Self::Logout => logout(global),
        }
    }
}

/// Returns the bearer of the client's token.
pub(crate) fn bearer(client: &Client) -> anyhow::Result<Bearer> {
    client
        .call(&Call::get(&["organization"]))
        .context("failed to find out whose token it is")
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
            global.warn(&format!("{name} is set, and wins over what is kept"));
        }
    }
    global.info(&format!("kept in {}", path.display()));
    show(global, client.base(), &bearer, &path.display().to_string())
}

fn ask_url(global: &Global) -> anyhow::Result<String> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage("nobody can be asked where the API is")
            .advice("Give --url, or set CHAINLOOP_URL.")
            .into());
    }
    let before = credentials::load(global).ok().flatten();
    let before = before.map(|before| before.url);
    match &before {
        Some(before) => eprint!("Where is the API? [{}] ", output::plain(before)),
        None => eprint!("Where is the API? (as in https://api.example.org) "),
    }
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    given(Some(&answer))
        .or(before)
        .ok_or_else(|| Failure::usage("where the API is has not been said").into())
}

fn ask_token() -> anyhow::Result<String> {
    /// Longer than a token is.
    const MOST: u64 = 4096;
    let answer = if io::stdin().is_terminal() {
        let terminal = console::Term::stderr();
        terminal.write_str("The API token (it is not shown): ")?;
        terminal.read_secure_line()?
    } else {
        let mut line = String::new();
        io::BufReader::new(io::stdin().lock().take(MOST)).read_line(&mut line)?;
        line
    };
    given(Some(&answer)).ok_or_else(|| {
        Failure::usage("there is no API token")
            .advice("`chainloop organization api-token create` makes one.")
            .into()
    })
}

fn logout(global: &Global) -> anyhow::Result<()> {
    if credentials::remove()? {
        global.info("forgotten; the token itself stays valid until it is revoked");
    } else {
        global.info("nothing was kept");
    }
    Ok(())
}

/// The bearer as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    url: &'a str,
    organization: &'a str,
    id: &'a str,
    name: &'a str,
    role: Role,
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
    row("ID", &bearer.id);
    row("EXPIRES AT", &expiry(bearer.expires_at));
    row("FROM", from);
    output::line(&table.to_string())?;
    Ok(())
}

/// When a token's time is over, for a person.
pub(crate) fn expiry(at: Option<Timestamp>) -> String {
    at.map_or_else(
        || "never".to_owned(),
        |at| format!("{} ({})", time::exact(at), time::relative(at, time::now())),
    )
}
