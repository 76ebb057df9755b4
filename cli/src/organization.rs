//! `chainloop organization`: manages API tokens, and shows the quotas.

use std::time::Duration;

use anyhow::Context as _;
use api::organization::Quotas;
use api::tokens::{Created, NewToken, Rotation, Token};
use api::workflows::Selector;
use api::{QuotaUse, Role, Timestamp};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::client::{Call, Client, json};
use crate::confirm::{self, Action};
use crate::failure::Failure;
use crate::global::Global;
use crate::ids;
use crate::names::label;
use crate::output::{self, Format};
use crate::table::{self, Color, Table, cell, last_use, paint, size};
use crate::{auth, time};

/// More than an organization has.
const MOST: usize = 100_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Manage API tokens
    #[command(subcommand, visible_alias = "token")]
    ApiToken(TokenCommand),
    /// Show the organization's quotas and their use
    #[command(after_help = "\
Attestations and bytes are counted per day, in UTC, with a short delay. The stack's parameter Quotas sets the \
quotas.

Example:
  chainloop organization quota")]
    Quota,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token and print it, only once
    #[command(after_help = "\
admin     everything, tokens included
operator  everything except tokens, trust policies and issuers
viewer    read-only
producer  pushes attestations and materials and reads their deliveries, for builds

A producer or a viewer can be restricted to workflows: it pushes attestations of these alone, reads these and their \
deliveries, and nothing else.

Examples:
  chainloop organization api-token create --name nightly-build \\
    --role producer --expires 90d
  chainloop organization api-token create --name shop \\
    --role producer --workflow 'shop/*'")]
    Create(Create),
    /// List tokens, except revoked ones
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  chainloop organization api-token list"
    )]
    List,
    /// Replace a token's text; the old one keeps working for a while
    #[command(
        after_help = "The new text is shown only once. Store it where the token is used before the overlap ends. If the \
                      token expires, its lifetime starts again.\n\nWhile the text before the last rotation still \
                      works, only --overlap 0s is accepted: it ends all older texts at once, for example after a \
                      leak.\n\nExample:\n  \
                      chainloop organization api-token rotate nightly-build --overlap 48h"
    )]
    Rotate(Rotate),
    /// Revoke a token; the API rejects it within a minute
    #[command(after_help = "Example:\n  chainloop organization api-token revoke nightly-build")]
    Revoke {
        /// Name or ID of the token
        // Not `token`: that is a flag which every command has.
        #[arg(value_name = "NAME_OR_ID")]
        named: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name, unique in your organization: lower-case letters, digits and hyphens
    #[arg(long, value_parser = label)]
    name: String,
    /// Role of the token
    #[arg(long, value_parser = role())]
    role: Role,
    /// Lifetime, such as 12h, 90d or 1y, or never
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = lifetime)]
    expires: Lifetime,
    /// Workflow that the token is restricted to: project/name, 'project/*', '*' or an ID; can be repeated
    #[arg(long = "workflow", value_name = "WORKFLOW")]
    workflows: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// Name or ID of the token
    #[arg(value_name = "NAME_OR_ID")]
    named: String,
    /// Time for which the old text keeps working, such as 0s, 12h or 7d; at most 30d
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = time::span)]
    overlap: Duration,
}

/// The roles, named so that a shell can complete them.
fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["admin", "operator", "viewer", "producer"])
        .map(|word| serde_json::from_value(word.into()).expect("the words are the roles'"))
}

/// Lifetime of a token, or of an intake's URL; none for one that does not expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime(pub(crate) Option<Duration>);

impl Lifetime {
    pub(crate) fn secs(self) -> Option<u64> {
        self.0.map(|lifetime| lifetime.as_secs())
    }
}

/// Parses a duration, in years too, or `never`.
pub(crate) fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime(None));
    }
    let days = |years: u64| Duration::from_secs(years.saturating_mul(365 * 86_400));
    let years = text.strip_suffix('y').map(str::parse);
    let lifetime = match years {
        Some(Ok(years)) => days(years),
        _ => time::span(text).map_err(|_| "must be a duration such as 12h, 90d or 1y, or never")?,
    };
    if api::tokens::VALID_SECS.contains(&lifetime.as_secs()) {
        return Ok(Lifetime(Some(lifetime)));
    }
    Err("must be between one minute and ten years".to_owned())
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::ApiToken(TokenCommand::Create(new)) => create(global, new),
            Self::ApiToken(TokenCommand::List) => list(global),
            Self::ApiToken(TokenCommand::Rotate(rotate)) => rotate.run(global),
            Self::ApiToken(TokenCommand::Revoke { named }) => revoke(global, &named),
            Self::Quota => quota(global),
        }
    }
}

fn create(global: &Global, new: Create) -> anyhow::Result<()> {
    let client = Client::new(global)?;
    let context = format!("failed to create the token {:?}", new.name);
    let new = NewToken {
        name: new.name,
        role: new.role,
        workflows: new.workflows.into_iter().map(Selector).collect(),
        expires_in_secs: Some(new.expires.secs()),
    };
    let created: Created = client
        .call(&Call::post(&["tokens"], json(&new)?))
        .context(context)?;
    let Token { name, role, .. } = &created.token;
    let until = until(created.token.expires_at);
    show_once(
        global,
        &created,
        &format!("token {name:?} with role {role}, {until},"),
    )
}

impl Rotate {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        let Self { named, overlap } = self;
        let overlap_secs = Some(overlap.as_secs());
        let client = Client::new(global)?;
        let named = ids::whole(&client, "tokens", &named)?;
        let path = ["tokens", &named, "rotate"];
        let rotated: Created = client
            .call(&Call::post(&path, json(&Rotation { overlap_secs })?))
            .with_context(|| format!("failed to rotate the token {named:?}"))?;
        let old = match rotated.token.overlap_until {
            Some(until) => format!("the old text works until {}", time::exact(until)),
            None => "the old text has ended".to_owned(),
        };
        let (name, until) = (&rotated.token.name, until(rotated.token.expires_at));
        let what = format!("token {name:?} rotated; {old}; the new text, {until}, is");
        show_once(global, &rotated, &what)
    }
}

/// Prints a new token's text.
fn show_once(global: &Global, created: &Created, what: &str) -> anyhow::Result<()> {
    global.info(&format!("{what} shown only once: keep it secret"));
    match global.output {
        Format::Json => output::json(&View {
            token: Some(&created.text),
            ..View::from(&created.token)
        })?,
        // Alone, so that it can be caught by a script.
        Format::Table => output::line(&created.text)?,
    }
    Ok(())
}

/// Says until when a token is valid.
pub(crate) fn until(expires_at: Option<Timestamp>) -> String {
    match expires_at {
        Some(at) => format!("valid until {}", time::exact(at)),
        None => "which does not expire".to_owned(),
    }
}

fn all(client: &Client) -> anyhow::Result<Vec<Token>> {
    let (tokens, _) = client
        .list(&["tokens"], &[], MOST)
        .context("failed to list the tokens")?;
    Ok(tokens)
}

fn list(global: &Global) -> anyhow::Result<()> {
    let tokens = all(&Client::new(global)?)?;
    match global.output {
        Format::Json => output::json(&tokens.iter().map(View::from).collect::<Vec<_>>())?,
        Format::Table if tokens.is_empty() => output::line("there are no tokens")?,
        Format::Table => output::line(&rows(&tokens).to_string())?,
    }
    Ok(())
}

fn rows(tokens: &[Token]) -> Table {
    let headers = [
        "NAME",
        "ROLE",
        "WORKFLOWS",
        "ID",
        "CREATED BY",
        "CREATED AT",
        "EXPIRES AT",
        "LAST USED",
    ];
    let mut table = Table::new(&headers);
    for token in tokens {
        let old = token.overlap_until;
        let old = old.map(|until| format!("\nold text {}", time::exact(until)));
        let expiry = cell(auth::expiry(token.expires_at) + &old.unwrap_or_default());
        table.row(vec![
            cell(&token.name),
            cell(token.role.to_string()),
            cell(auth::restriction(&token.workflows)),
            table::id(&token.id),
            cell(&token.created_by),
            cell(time::exact(token.created_at)),
            match token.expired {
                true => paint(expiry, Color::Red),
                false => expiry,
            },
            last_use(token.last_used_at, token.last_used_from.as_deref()),
        ]);
    }
    table
}

const REVOKE: Action = Action {
    what: "revoke it",
    refused: "nothing was revoked",
};

fn revoke(global: &Global, named: &str) -> anyhow::Result<()> {
    let client = Client::new(global)?;
    ids::only_whole(&client, "tokens", named)?;
    confirm::action(global, &REVOKE, || {
        let tokens = all(&client)?;
        let found = tokens.iter().find(|token| token.name == named);
        let found = found.or_else(|| tokens.iter().find(|token| token.id == named));
        let Some(found) = found else {
            let advice = "`chainloop organization api-token list` shows the existing ones.";
            return Err(Failure::new(format!("token {named:?} not found"))
                .advice(advice)
                .into());
        };
        let own = match auth::bearer(&client)?.id == found.id {
            true => ", which this command uses",
            false => "",
        };
        let (name, role) = (&found.name, found.role);
        Ok(format!("Revoke the token {name:?} with role {role}{own}?"))
    })?;
    let revoked: Token = client
        .call(&Call::delete(&["tokens", named]))
        .with_context(|| format!("failed to revoke the token {named:?}"))?;
    let name = &revoked.name;
    global.info(&format!(
        "token {name:?} revoked; the API rejects it within a minute"
    ));
    if global.output == Format::Json {
        output::json(&View::from(&revoked))?;
    }
    Ok(())
}

fn quota(global: &Global) -> anyhow::Result<()> {
    let quotas: Quotas = Client::new(global)?
        .call(&Call::get(&["quotas"]))
        .context("failed to get the quotas")?;
    if global.output == Format::Json {
        let view = QuotasView {
            quotas: quotas.quotas.iter().map(QuotaView::from).collect(),
            checks_per_minute: quotas.checks_per_minute,
        };
        return output::json(&view);
    }
    let mut table = Table::new(&["QUOTA", "USED", "LIMIT", "RESETS AT"]);
    for quota in &quotas.quotas {
        let shown = |number: u64| match quota.name.as_str() {
            "bytes" => size(number),
            _ => number.to_string(),
        };
        let used = cell(shown(quota.used));
        let resets_at = quota.resets_at.map(time::exact);
        table.row(vec![
            cell(&quota.name),
            match quota.used >= quota.limit {
                true => paint(used, Color::Red),
                false => used,
            },
            cell(shown(quota.limit)),
            cell(resets_at.unwrap_or_default()),
        ]);
    }
    output::line(&table.to_string())?;
    let checks = quotas.checks_per_minute;
    global.info(&format!(
        "each token may cause {checks} checks with third parties per minute: to register, attach, change, test \
         and preview"
    ));
    Ok(())
}

/// The quotas as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct QuotasView<'a> {
    quotas: Vec<QuotaView<'a>>,
    checks_per_minute: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct QuotaView<'a> {
    name: &'a str,
    used: u64,
    limit: u64,
    resets_at: Option<Timestamp>,
}

impl<'a> From<&'a QuotaUse> for QuotaView<'a> {
    fn from(quota: &'a QuotaUse) -> Self {
        Self {
            name: &quota.name,
            used: quota.used,
            limit: quota.limit,
            resets_at: quota.resets_at,
        }
    }
}

/// A token as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    id: &'a str,
    name: &'a str,
    role: Role,
    /// Those that it is restricted to.
    workflows: &'a [Selector],
    created_by: &'a str,
    created_at: Timestamp,
    rotated_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    overlap_until: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    last_used_from: Option<&'a str>,
    /// Its text, if it was just created.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

impl<'a> From<&'a Token> for View<'a> {
    fn from(token: &'a Token) -> Self {
        Self {
            id: &token.id,
            name: &token.name,
            role: token.role,
            workflows: &token.workflows,
            created_by: &token.created_by,
            created_at: token.created_at,
            rotated_at: token.rotated_at,
            expires_at: token.expires_at,
            overlap_until: token.overlap_until,
            last_used_at: token.last_used_at,
            last_used_from: token.last_used_from.as_deref(),
            token: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_a_duration_or_years() {
        for (text, days) in [("90d", 90), ("1y", 365), ("24h", 1), ("10y", 3_650)] {
            assert_eq!(
                lifetime(text).map(|lifetime| lifetime.secs().unwrap() / 86_400),
                Ok(days)
            );
        }
        assert_eq!(lifetime("never"), Ok(Lifetime(None)));
        for text in ["", "y", "forever", "5s", "11y", "-1d", "999999999999999y"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
