//! `integration registered`: instances of integrations in the organization.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use pipeline::Timestamp;
use pipeline::api::attachments::Attachment;
use pipeline::api::registrations::{Deleted, NewRegistration, Registration};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{EVERYTHING, available};
use crate::arguments::Global;
use crate::client::{Call, Client, json};
use crate::output::{self, Format};
use crate::table::{self, Table, cell};
use crate::{confirm, options, time};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Register an integration in your organization
    #[command(after_help = options::HELP.to_owned() + "\n\nExample:
  chainloop integration registered add webhook --name ci-events \\
    --opt repository=us-east1-docker.pkg.dev/my-project/attestations \\
    --opt username=_json_key --opt password=@service-account.json")]
    Add(Add),
    /// List what is registered in your organization
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  chainloop integration registered list"
    )]
    List,
    /// Delete a registration, with everything that is attached through it
    #[command(
        after_help = "Example:\n  chainloop integration registered delete --name prod-images"
    )]
    Delete {
        /// The registration's name or id
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The integration, as `integration available list` shows it
    integration: String,
    /// A name, not yet taken in your organization: small letters, digits and hyphens
    #[arg(long)]
    name: String,
    /// What it is for
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// An input, as `integration available describe` shows them; can be repeated
    #[arg(long = "opt", value_name = "KEY=VALUE", allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Add(add) => add.run(global),
            Self::List => list(global),
            Self::Delete { name } => delete(global, &name),
        }
    }
}

impl Add {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let integration = available::get(&client, &self.integration)?;
        let inputs = options::read(global, &integration.registration_schema, &self.options)?;
        let context = format!("failed to register {:?}", self.name);
        let new = NewRegistration {
            integration: integration.id,
            name: self.name,
            description: self.description,
            inputs,
        };
        let registration: Registration = client
            .call(&Call::post(&["registrations"], json(&new)?))
            .context(context)?;
        match global.output {
            Format::Json => output::json(&View::from(&registration))?,
            Format::Table => output::line(&rows(&[registration]).to_string())?,
        }
        Ok(())
    }
}

fn list(global: &Global) -> anyhow::Result<()> {
    let client = Client::new(global)?;
    let (registrations, _): (Vec<Registration>, _) = client
        .list(&["registrations"], &[], EVERYTHING)
        .context("failed to list the registered integrations")?;
    match (global.output, registrations.as_slice()) {
        (Format::Json, _) => {
            output::json(&registrations.iter().map(View::from).collect::<Vec<_>>())?;
        }
        (Format::Table, []) => {
            output::line(
                "there are no third party integrations configured in your organization yet",
            )?;
        }
        (Format::Table, [_]) => output::line(&rows(&registrations).to_string())?,
        (Format::Table, _) => {
            output::line("Integrations registered and configured in your organization:")?;
            output::line(&rows(&registrations).to_string())?;
        }
    }
    Ok(())
}

fn delete(global: &Global, name: &str) -> anyhow::Result<()> {
    let client = Client::new(global)?;
    let context = || format!("failed to delete the registration {name:?}");
    confirm::deletion(global, || {
        let found: Registration = client
            .call(&Call::get(&["registrations", name]))
            .with_context(context)?;
        let query = [("registration", Some(found.id.as_str()))];
        let (attachments, _): (Vec<Attachment>, _) = client
            .list(&["attachments"], &query, EVERYTHING)
            .with_context(context)?;
        Ok(format!(
            "Delete the registration {:?} of {}, with {}?",
            found.name,
            found.integration,
            counted(attachments.len())
        ))
    })?;
    let deleted: Deleted = client
        .call(&Call::delete(&["registrations", name]))
        .with_context(context)?;
    global.info("Integration deregistered!");
    if deleted.attachments > 0 {
        global.info(&format!("with {}", counted(deleted.attachments)));
    }
    if global.output == Format::Json {
        output::json(&deleted)?;
    }
    Ok(())
}

fn counted(attachments: usize) -> String {
    match attachments {
        0 => "no attachments".to_owned(),
        1 => "1 attachment".to_owned(),
        many => format!("{many} attachments"),
    }
}

fn rows(registrations: &[Registration]) -> Table {
    let mut table = Table::new(&["NAME", "DESCRIPTION", "KIND", "CONFIG", "CREATED AT"])
        .whole(0)
        .whole(2);
    for registration in registrations {
        table.row(vec![
            cell(&registration.name),
            cell(&registration.description),
            cell(&registration.integration),
            cell(table::config(&[
                &registration.secrets,
                &registration.config,
            ])),
            cell(time::local(registration.created_at)),
        ]);
    }
    table
}

/// With Chainloop's keys; `version` and `secrets` are ours.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View<'a> {
    id: &'a str,
    name: &'a str,
    kind: &'a str,
    description: &'a str,
    created_at: Timestamp,
    config: Option<&'a Map<String, Value>>,
    version: &'a str,
    /// Masked.
    secrets: &'a Map<String, Value>,
}

impl<'a> From<&'a Registration> for View<'a> {
    fn from(registration: &'a Registration) -> Self {
        Self {
            id: &registration.id,
            name: &registration.name,
            kind: &registration.integration,
            description: &registration.description,
            created_at: registration.created_at,
            config: Some(&registration.config).filter(|config| !config.is_empty()),
            version: &registration.version,
            secrets: &registration.secrets,
        }
    }
}
