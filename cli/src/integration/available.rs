//! `integration available`: the catalogue.

use anyhow::Context as _;
use api::integrations::Integration;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::EVERYTHING;
use crate::client::Client;
use crate::failure::Failure;
use crate::global::Global;
use crate::output::{self, Format};
use crate::table;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the integrations that can be registered
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  chainloop integration available list"
    )]
    List,
    /// Show the registration and attachment inputs of an integration
    #[command(after_help = "Example:\n  chainloop integration available describe --name guac")]
    Describe(Describe),
}

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// ID of the integration
    #[arg(long, visible_alias = "id", value_name = "NAME")]
    name: String,
    /// Also show the JSON schemas
    #[arg(long)]
    full: bool,
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        match self {
            Self::List => list(global, &all(&client)?),
            Self::Describe(describe) => {
                show(global, &find(all(&client)?, &describe.name)?, describe.full)
            }
        }
    }
}

/// All integrations, sorted by id.
pub(crate) fn all(client: &Client) -> anyhow::Result<Vec<Integration>> {
    let (mut integrations, _): (Vec<Integration>, _) = client
        .list(&["integrations"], &[], EVERYTHING)
        .context("failed to list the available integrations")?;
    integrations.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(integrations)
}

fn find(integrations: Vec<Integration>, name: &str) -> anyhow::Result<Integration> {
    let known: Vec<String> = integrations.iter().map(|one| one.id.clone()).collect();
    integrations
        .into_iter()
        .find(|one| one.id == name)
        .ok_or_else(|| {
            let failure = Failure::new(format!("integration {name:?} not found"));
            failure
                .advice(format!("Available: {}.", known.join(", ")))
                .into()
        })
}

/// The integration with this id.
pub(crate) fn get(client: &Client, name: &str) -> anyhow::Result<Integration> {
    find(all(client)?, name)
}

fn list(global: &Global, integrations: &[Integration]) -> anyhow::Result<()> {
    match global.output {
        Format::Json => output::json(&integrations.iter().map(View::from).collect::<Vec<_>>())?,
        Format::Table if integrations.is_empty() => {
            output::line("there are no integrations available")?;
        }
        Format::Table => output::line(&table::available(integrations).to_string())?,
    }
    Ok(())
}

fn show(global: &Global, integration: &Integration, full: bool) -> anyhow::Result<()> {
    if global.output == Format::Json {
        output::json(&[View::from(integration)])?;
        return Ok(());
    }
    output::line(&table::available(std::slice::from_ref(integration)).to_string())?;
    for (title, schema_title, schema) in [
        (
            "Registration inputs",
            "Registration JSON schema",
            &integration.registration_schema,
        ),
        (
            "Attachment inputs",
            "Attachment JSON schema",
            &integration.attachment_schema,
        ),
    ] {
        let inputs = table::inputs(title, &api::inputs::fields(schema));
        if !inputs.is_empty() {
            output::line(&inputs.to_string())?;
        }
        if full {
            output::line(&table::schema(schema_title, schema).to_string())?;
        }
    }
    Ok(())
}

/// With Chainloop's keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    registration: Phase,
    attachment: Phase,
    subscribed_inputs: &'a [String],
}

#[derive(Debug, Serialize)]
struct Phase {
    /// JSON, as a text.
    schema: String,
}

impl From<&Value> for Phase {
    fn from(schema: &Value) -> Self {
        Self {
            schema: schema.to_string(),
        }
    }
}

impl<'a> From<&'a Integration> for View<'a> {
    fn from(integration: &'a Integration) -> Self {
        Self {
            name: &integration.id,
            version: &integration.version,
            description: &integration.description,
            registration: (&integration.registration_schema).into(),
            attachment: (&integration.attachment_schema).into(),
            subscribed_inputs: &integration.materials,
        }
    }
}
