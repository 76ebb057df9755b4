//! `integration registered`: instances of integrations in the organization.

mod health;
mod pause;
mod rotate;
mod test;
mod update;

use std::process::ExitCode;

use anyhow::Context as _;
use api::Timestamp;
use api::attachments::Attachment;
use api::registrations::{Deleted, NewRegistration, Pause, Registration};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{EVERYTHING, available};
use crate::client::{Call, Client, json};
use crate::global::Global;
use crate::ids;
use crate::output::{self, Format};
use crate::sort::Sort;
use crate::table::{self, Color, Table, cell, paint};
use crate::{confirm, options, time};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Register an integration in your organization
    #[command(after_help = options::HELP.to_owned() + "\n\nExample:
  chainloop integration registered add oci-registry --name prod-images \\
    --opt repository=us-east1-docker.pkg.dev/my-project/attestations \\
    --opt username=_json_key --opt password=@service-account.json")]
    Add(Add),
    /// List registrations in your organization
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  chainloop integration registered list
  chainloop integration registered list --kind webhook --paused \\
    --sort created --reverse"
    )]
    List(List),
    /// Show a registration, and how its deliveries of the last 24 hours stand
    #[command(after_help = "Example:\n  chainloop integration registered describe prod-images")]
    Describe(Named),
    /// Change a registration's name, description or inputs
    #[command(after_help = update::HELP.to_owned() + options::HELP + update::EXAMPLE)]
    Update(update::Update),
    /// Pause a registration: hold its deliveries until it is resumed
    #[command(after_help = pause::PAUSE_HELP)]
    Pause(pause::Pause),
    /// Resume a registration, starting with its held deliveries
    #[command(after_help = pause::RESUME_HELP)]
    Resume(pause::Resume),
    /// Send a test attestation through a registration, as a regular delivery
    #[command(after_help = test::HELP.to_owned() + options::HELP + test::EXAMPLE)]
    Test(test::Test),
    /// Replace the secrets of a registration
    #[command(after_help = rotate::HELP.to_owned() + options::HELP + rotate::EXAMPLE)]
    Rotate(rotate::Rotate),
    /// Delete a registration and all its attachments
    #[command(
        after_help = "Example:\n  chainloop integration registered delete --name prod-images"
    )]
    Delete {
        /// Name or ID of the registration
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// ID of the integration, as listed by `integration available list`
    integration: String,
    /// Name, unique in your organization: lower-case letters, digits and hyphens
    #[arg(long)]
    name: String,
    /// Description
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Input, as listed by `integration available describe`; can be repeated
    #[arg(long = "opt", value_name = "KEY=VALUE", allow_hyphen_values = true)]
    options: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only registrations of this integration, as listed by `integration available list`
    #[arg(long, value_name = "INTEGRATION")]
    kind: Option<String>,
    /// Only paused registrations
    #[arg(long)]
    paused: bool,
    #[command(flatten)]
    sort: Sort<Column>,
}

#[derive(Debug, Clone, ValueEnum)]
enum Column {
    Name,
    Kind,
    Created,
}

/// Name of a registration, as an argument or a flag.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Name or ID of the registration
    #[arg(
        value_name = "NAME",
        required_unless_present = "by_name",
        conflicts_with = "by_name"
    )]
    name: Option<String>,
    /// Name or ID of the registration
    #[arg(long = "name", id = "by_name", value_name = "NAME")]
    by_name: Option<String>,
}

impl Named {
    /// The name, or the whole ID.
    fn given(self, client: &Client) -> anyhow::Result<String> {
        let given = self.name.or(self.by_name).unwrap_or_default();
        ids::whole(client, "registrations", &given)
    }
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        match self {
            Self::Add(add) => add.run(global)?,
            Self::List(list) => list.run(global)?,
            Self::Describe(named) => describe(global, named)?,
            Self::Update(update) => update.run(global)?,
            Self::Pause(pause) => pause.run(global)?,
            Self::Resume(resume) => resume.run(global)?,
            Self::Test(test) => return test.run(global),
            Self::Rotate(rotate) => rotate.run(global)?,
            Self::Delete { name } => delete(global, &name)?,
        }
        Ok(ExitCode::SUCCESS)
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
            .call(&Call::post_once(&["registrations"], json(&new)?)?)
            .context(context)?;
        match global.output {
            Format::Json => output::json(&View::from(&registration))?,
            Format::Table => {
                let registrations = [registration];
                output::line(&rows(&registrations).to_string())?;
                tell_external_id(&registrations)?;
            }
        }
        Ok(())
    }
}

impl List {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let (mut registrations, _): (Vec<Registration>, _) = client
            .list(&["registrations"], &[], EVERYTHING)
            .context("failed to list the registered integrations")?;
        let is_none_at_all = registrations.is_empty();
        registrations.retain(|one| {
            let kind = self.kind.as_ref();
            kind.is_none_or(|kind| one.integration == *kind)
                && (!self.paused || one.paused.is_some())
        });
        self.sort
            .sort(&mut registrations, |column, a, b| match column {
                Column::Name => a.name.cmp(&b.name),
                Column::Kind => a.integration.cmp(&b.integration),
                Column::Created => a.created_at.cmp(&b.created_at),
            });
        match (global.output, registrations.as_slice()) {
            (Format::Json, _) => {
                output::json(&registrations.iter().map(View::from).collect::<Vec<_>>())?;
            }
            (Format::Table, []) if is_none_at_all => {
                output::line(
                    "there are no third party integrations configured in your organization yet",
                )?;
            }
            (Format::Table, []) => output::line("no matching registrations")?,
            (Format::Table, [_]) => output::line(&rows(&registrations).to_string())?,
            (Format::Table, _) => {
                output::line("Integrations registered and configured in your organization:")?;
                output::line(&rows(&registrations).to_string())?;
            }
        }
        if global.output == Format::Table {
            // Below the table, whose columns are the documentation's.
            for note in registrations.iter().filter_map(paused) {
                output::line(&output::plain(&note))?;
            }
            tell_external_id(&registrations)?;
        }
        Ok(())
    }
}

fn describe(global: &Global, named: Named) -> anyhow::Result<()> {
    let client = Client::new(global)?;
    let name = named.given(&client)?;
    let registration: Registration = client
        .call(&Call::get(&["registrations", &name]))
        .with_context(|| format!("failed to show the registration {name:?}"))?;
    // Beside the matter: whatever its route answers, the registration is shown.
    let health = health::get(&client, &registration.id).unwrap_or_else(|error| {
        global.warn(&format!("its health is not shown: {error:#}"));
        None
    });
    match global.output {
        Format::Json => output::json(&Described {
            registration: View::from(&registration),
            health: health.as_ref().map(health::View::from),
        }),
        Format::Table => {
            let mut card = card(&registration);
            if let Some(health) = &health {
                health::add(&mut card, health);
            }
            output::line(&card.to_string())
        }
    }
}

/// A registration as JSON, with its health.
#[derive(Serialize)]
struct Described<'a> {
    #[serde(flatten)]
    registration: View<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<health::View<'a>>,
}

fn show(global: &Global, registration: &Registration) -> anyhow::Result<()> {
    match global.output {
        Format::Json => output::json(&View::from(registration))?,
        Format::Table => output::line(&card(registration).to_string())?,
    }
    Ok(())
}

/// Says below a table what the trust policies of roles ask for, which is the same for all.
fn tell_external_id(registrations: &[Registration]) -> anyhow::Result<()> {
    let external_id = registrations
        .iter()
        .find_map(|one| one.external_id.as_ref());
    if let Some(external_id) = external_id {
        output::line(&format!("external ID for roles at AWS: {external_id}"))?;
    }
    Ok(())
}

/// Describes the pause of a registration, if it is paused.
fn paused(registration: &Registration) -> Option<String> {
    let name = &registration.name;
    let pause = registration.paused.as_ref()?;
    Some(format!("{name:?} is paused {}", why(pause)))
}

/// Formats the duration, reason and actor of a pause.
fn why(pause: &Pause) -> String {
    let by = match &pause.by {
        Some(by) => format!(" (by {by})"),
        None => " (automatically, after failures)".to_owned(),
    };
    let since = time::relative(pause.since, time::now());
    let since = match since.strip_suffix(" ago") {
        Some(long) => format!("for {long}"),
        None => since,
    };
    format!("{since}: {}{by}", pause.reason)
}

fn card(registration: &Registration) -> Table {
    let mut table = Table::titled("Registration", &[]);
    let mut row = |name: &str, content| table.row(vec![cell(name), content]);
    row("ID", cell(&registration.id));
    row("NAME", cell(&registration.name));
    row("DESCRIPTION", cell(&registration.description));
    let (kind, version) = (&registration.integration, &registration.version);
    row("KIND", cell(format!("{kind} {version}")));
    let config = table::config(&[&registration.secrets, &registration.config]);
    row("CONFIG", cell(config));
    if let Some(external_id) = &registration.external_id {
        row("EXTERNAL ID", cell(external_id));
    }
    if let Some(pause) = &registration.paused {
        row("PAUSED", paint(cell(why(pause)), Color::Yellow));
    }
    if !registration.created_by.is_empty() {
        row("CREATED BY", cell(&registration.created_by));
    }
    row("CREATED AT", cell(time::exact(registration.created_at)));
    table
}

fn delete(global: &Global, name: &str) -> anyhow::Result<()> {
    let client = Client::new(global)?;
    let context = || format!("failed to delete the registration {name:?}");
    ids::only_whole(&client, "registrations", name)?;
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
    let mut table = Table::new(&["NAME", "DESCRIPTION", "KIND", "CONFIG", "CREATED AT"]);
    for registration in registrations {
        table.row(vec![
            cell(&registration.name),
            cell(&registration.description),
            cell(&registration.integration),
            cell(table::config(&[
                &registration.secrets,
                &registration.config,
            ])),
            cell(time::exact(registration.created_at)),
        ]);
    }
    table
}

/// With Chainloop's keys; `version`, `secrets`, `externalId`, `paused` and `createdBy` are ours.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<&'a Pause>,
    created_by: &'a str,
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
            external_id: registration.external_id.as_deref(),
            paused: registration.paused.as_ref(),
            created_by: &registration.created_by,
        }
    }
}
