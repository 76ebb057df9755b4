//! `chainloop trust issuer`: manages issuers, CI systems whose JWTs are exchanged for tokens.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use api::Role;
use api::issuers::{Condition, Issuer, NewIssuer, Rule};
use api::workflows::Selector;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::client::{Call, Client, json};
use crate::failure::Failure;
use crate::global::Global;
use crate::names::label;
use crate::output::{self, Format};
use crate::table::{Table, cell};
use crate::{auth, confirm, document, time};

/// More than an organization has.
const MOST: usize = 1_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create an issuer with a rule; its JWTs are exchanged for tokens from now on
    #[command(
        visible_alias = "create",
        after_help = "\
A JWT is exchanged for a token with the rule's role if it has all of the claims. In a claim's value, * stands for any \
text without a /, and ** for any text; without either it is compared exactly. Name repositories by their IDs: names can \
be taken by others. A file has the fields of the API's NewIssuer, as YAML or JSON, and may have several rules.

Examples:
  chainloop trust issuer add --name github \\
    --issuer https://token.actions.githubusercontent.com \\
    --claim repository_id=74 --claim ref=refs/heads/main \\
    --role producer --workflow 'shop/*'
  chainloop trust issuer add -f issuer.yaml"
    )]
    Add(Box<Add>),
    /// List issuers
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  chainloop trust issuer list"
    )]
    List,
    /// Show an issuer, its rules and the state of its keys
    #[command(after_help = "Example:\n  chainloop trust issuer describe github")]
    Describe {
        /// Name or ID of the issuer
        #[arg(value_name = "NAME_OR_ID")]
        named: String,
    },
    /// Delete an issuer; tokens that its JWTs were exchanged for end after an hour at most
    #[command(after_help = "Example:\n  chainloop trust issuer delete github -y")]
    Delete {
        /// Name or ID of the issuer
        #[arg(value_name = "NAME_OR_ID")]
        named: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Name, unique in your organization: lower-case letters, digits and hyphens
    #[arg(long, value_parser = label, required_unless_present = "file")]
    name: Option<String>,
    /// URL of the issuer, exactly as in the `iss` of its JWTs
    #[arg(long, value_name = "URL", required_unless_present = "file")]
    issuer: Option<String>,
    /// `aud` of its JWTs; the API URL by default
    #[arg(long)]
    audience: Option<String>,
    /// URL of its key set, if it does not publish an OpenID configuration
    #[arg(long, value_name = "URL")]
    jwks_url: Option<String>,
    /// Claim that a JWT has to have; can be repeated
    #[arg(
        long = "claim",
        value_name = "NAME=VALUE",
        required_unless_present = "file"
    )]
    claims: Vec<String>,
    /// Role of the tokens
    #[arg(long, value_parser = role(), required_unless_present = "file")]
    role: Option<Role>,
    /// Workflow that the tokens are restricted to: project/name, 'project/*', '*' or an ID; can be repeated
    #[arg(long = "workflow", value_name = "WORKFLOW")]
    workflows: Vec<String>,
    /// File with the whole issuer, as YAML or JSON
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["name", "issuer", "audience", "jwks_url", "claims", "role", "workflows"])]
    file: Option<PathBuf>,
}

/// The roles that a rule can give, named so that a shell can complete them.
fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["producer", "viewer", "operator"])
        .map(|word| serde_json::from_value(word.into()).expect("the words are the roles'"))
}

fn claims(given: &[String]) -> anyhow::Result<BTreeMap<String, Condition>> {
    let read = |text: &String| -> anyhow::Result<_> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--claim {text}: has no `=` behind the name")))?;
        let condition = match value.contains('*') {
            true => Condition::Glob(value.to_owned()),
            false => Condition::Exact(value.to_owned()),
        };
        Ok((name.to_owned(), condition))
    };
    given.iter().map(read).collect()
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Add(add) => add.run(global),
            Self::List => list(global),
            Self::Describe { named } => describe(global, &named),
            Self::Delete { named } => delete(global, &named),
        }
    }
}

impl Add {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let new = match self.file {
            Some(path) => document::read(&path)?,
            None => NewIssuer {
                name: self.name.unwrap_or_default(),
                issuer: self.issuer.unwrap_or_default(),
                audience: self.audience.unwrap_or_else(|| client.base().to_owned()),
                jwks_url: self.jwks_url,
                rules: vec![Rule {
                    claims: claims(&self.claims)?,
                    role: self.role.unwrap_or(Role::Producer),
                    workflows: self.workflows.into_iter().map(Selector).collect(),
                }],
            },
        };
        let issuer: Issuer = client
            .call(&Call::post_once(&["issuers"], json(&new)?)?)
            .with_context(|| format!("failed to create the issuer {:?}", new.name))?;
        global.info(&format!(
            "issuer {:?} created; its JWTs need the audience {}",
            issuer.name, issuer.audience
        ));
        show(global, &issuer)
    }
}

fn list(global: &Global) -> anyhow::Result<()> {
    let (issuers, _): (Vec<Issuer>, _) = Client::new(global)?
        .list(&["issuers"], &[], MOST)
        .context("failed to list the issuers")?;
    match global.output {
        Format::Json => output::json(&issuers)?,
        Format::Table if issuers.is_empty() => output::line("there are no issuers")?,
        Format::Table => {
            let headers = ["NAME", "ISSUER", "RULES", "CREATED BY", "CREATED"];
            let mut table = Table::new(&headers);
            for issuer in &issuers {
                table.row(vec![
                    cell(&issuer.name),
                    cell(&issuer.issuer),
                    cell(issuer.rules.len().to_string()),
                    cell(&issuer.created_by),
                    cell(time::exact(issuer.created_at)),
                ]);
            }
            output::line(&table.to_string())?;
        }
    }
    Ok(())
}

fn get(client: &Client, named: &str) -> anyhow::Result<Issuer> {
    client
        .call(&Call::get(&["issuers", named]))
        .with_context(|| format!("failed to get the issuer {named:?}"))
}

fn describe(global: &Global, named: &str) -> anyhow::Result<()> {
    let issuer = get(&Client::new(global)?, named)?;
    show(global, &issuer)
}

fn delete(global: &Global, named: &str) -> anyhow::Result<()> {
    let client = Client::new(global)?;
    confirm::deletion(global, || {
        let issuer = get(&client, named)?;
        let (name, url) = (&issuer.name, &issuer.issuer);
        Ok(format!("Delete the issuer {name:?}, {url}?"))
    })?;
    let deleted: Issuer = client
        .call(&Call::delete(&["issuers", named]))
        .with_context(|| format!("failed to delete the issuer {named:?}"))?;
    global.info(&format!("issuer {:?} deleted", deleted.name));
    match global.output {
        Format::Json => output::json(&deleted),
        Format::Table => Ok(()),
    }
}

fn show(global: &Global, issuer: &Issuer) -> anyhow::Result<()> {
    if global.output == Format::Json {
        return output::json(issuer);
    }
    let mut table = Table::titled("Issuer", &[]);
    let mut row = |name: &str, text: &str| table.row(vec![cell(name), cell(text)]);
    row("NAME", &issuer.name);
    row("ID", &issuer.id);
    row("ISSUER", &issuer.issuer);
    row("AUDIENCE", &issuer.audience);
    if let Some(url) = &issuer.jwks_url {
        row("KEY SET", url);
    }
    if let Some(keys) = &issuer.keys {
        let state = match (&keys.fault, keys.fetched_at) {
            (Some(fault), _) => fault.clone(),
            (None, Some(at)) => format!("{}, fetched {}", keys.ids.len(), time::exact(at)),
            (None, None) => "being fetched".to_owned(),
        };
        row("KEYS", &state);
    }
    row("CREATED BY", &issuer.created_by);
    row("CREATED", &time::exact(issuer.created_at));
    output::line(&table.to_string())?;
    let mut table = Table::titled("Rules", &["CLAIMS", "ROLE", "WORKFLOWS"]);
    for rule in &issuer.rules {
        let claims = rule.claims.iter();
        let claims: Vec<String> = claims.map(|(name, one)| format!("{name}={one}")).collect();
        table.row(vec![
            cell(claims.join("\n")),
            cell(rule.role.to_string()),
            cell(auth::restriction(&rule.workflows)),
        ]);
    }
    output::line(&table.to_string())
}
