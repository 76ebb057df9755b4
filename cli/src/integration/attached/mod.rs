//! `integration attached`: registrations tied to workflows.

mod backfill;
mod preview;
mod update;

use anyhow::Context as _;
use api::Timestamp;
use api::attachments::{Attachment, LONGEST_WAIT_SECS, NewAttachment};
use api::registrations::Registration;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{EVERYTHING, available, registered};
use crate::client::{Call, Client, json};
use crate::global::Global;
use crate::ids;
use crate::output::{self, Format};
use crate::sort::Sort;
use crate::table::{self, Table, cell};
use crate::{confirm, options, time};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Attach a registered integration to a workflow
    #[command(visible_alias = "attach", after_help = options::HELP.to_owned() + "\n\nExample:
  chainloop integration attached add --workflow nightly-build --project shop \\
    --integration prod-images --opt prefix=custom-prefix")]
    Add(Add),
    /// List attachments
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  chainloop integration attached list --project shop
  chainloop integration attached list --integration prod-images --sort workflow"
    )]
    List(List),
    /// Show an attachment
    #[command(after_help = "Example:\n  chainloop integration attached describe \
                      6f0c1f0e-0000-4000-8000-000000000001")]
    Describe(ById),
    /// Change the options of an attachment, or its wait for materials
    #[command(after_help = update::HELP.to_owned() + options::HELP + update::EXAMPLE)]
    Update(update::Update),
    /// Show the requests that an attestation would cause, without sending them
    #[command(after_help = preview::HELP)]
    Preview(preview::Preview),
    /// Deliver past attestations of the workflow to an attachment
    #[command(after_help = backfill::HELP)]
    Backfill(backfill::Backfill),
    /// Detach a registered integration from a workflow
    #[command(
        visible_alias = "detach",
        after_help = "Example:\n  chainloop integration attached delete \\\n    --id 6f0c1f0e-0000-4000-8000-000000000001"
    )]
    Delete {
        /// ID of the attachment
        #[arg(long)]
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Workflow: its ID, its name, project/name, project/* or *
    #[arg(long)]
    workflow: String,
    /// Project of the workflow, if --workflow is only its name
    #[arg(long)]
    project: Option<String>,
    /// Name or ID of the registration
    #[arg(long, value_name = "NAME_OR_ID")]
    integration: String,
    /// Input, as listed by `integration available describe`; can be repeated
    #[arg(long = "opt", value_name = "KEY=VALUE", allow_hyphen_values = true)]
    options: Vec<String>,
    /// Maximum wait of deliveries for missing materials, in seconds
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(0..=LONGEST_WAIT_SECS))]
    wait: Option<u64>,
    /// Attach even if the registration is already attached to the workflow with the same options
    #[arg(long)]
    allow_duplicate: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only attachments to this workflow
    #[arg(long)]
    workflow: Option<String>,
    /// Only attachments to workflows of this project
    #[arg(long)]
    project: Option<String>,
    /// Only attachments of this registration, by name or ID
    #[arg(long, value_name = "NAME_OR_ID", visible_alias = "registration")]
    integration: Option<String>,
    /// Only attachments of registrations of this integration, as listed by `integration available list`
    #[arg(long, value_name = "INTEGRATION")]
    kind: Option<String>,
    #[command(flatten)]
    sort: Sort<Column>,
}

#[derive(Debug, Clone, ValueEnum)]
enum Column {
    Workflow,
    Kind,
    Attached,
}

/// ID of an attachment, as an argument or a flag.
#[derive(Debug, Args)]
pub(crate) struct ById {
    /// ID of the attachment
    #[arg(
        value_name = "ID",
        required_unless_present = "by_id",
        conflicts_with = "by_id"
    )]
    attachment: Option<String>,
    /// ID of the attachment
    #[arg(long = "id", id = "by_id", value_name = "ID")]
    by_id: Option<String>,
}

impl ById {
    /// The whole ID.
    fn given(&self, client: &Client) -> anyhow::Result<String> {
        let given = self.attachment.as_ref().or(self.by_id.as_ref());
        ids::whole(client, "attachments", given.map_or("", String::as_str))
    }
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Add(add) => add.run(global),
            Self::List(list) => list.run(global),
            Self::Describe(id) => describe(global, &id),
            Self::Update(update) => update.run(global),
            Self::Preview(preview) => preview.run(global),
            Self::Backfill(backfill) => backfill.run(global),
            Self::Delete { id } => delete(global, &id),
        }
    }
}

impl Add {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let context = || {
            format!(
                "failed to attach {:?} to {:?}",
                self.integration, self.workflow
            )
        };
        let named = ids::whole(&client, "registrations", &self.integration)?;
        let registration: Registration = client
            .call(&Call::get(&["registrations", &named]))
            .with_context(context)?;
        let integration = available::get(&client, &registration.integration)?;
        let inputs = options::read(global, &integration.attachment_schema, &self.options)?;
        let new = NewAttachment {
            registration: registration.id.to_string(),
            workflow: self.workflow.clone(),
            project: self.project,
            inputs,
            wait_secs: self.wait,
            allow_duplicate: self.allow_duplicate,
        };
        let attachment: Attachment = client
            .call(&Call::post_once(&["attachments"], json(&new)?)?)
            .with_context(context)?;
        match global.output {
            Format::Json => output::json(&[View::from(&attachment)])?,
            Format::Table => output::line(&rows(&[attachment]).to_string())?,
        }
        Ok(())
    }
}

impl List {
    /// The registration and the integration of the wanted attachments, where these are given. One in place of the other
    /// is understood.
    fn asked(
        &self,
        global: &Global,
        client: &Client,
        attachments: &[Attachment],
    ) -> anyhow::Result<(Option<String>, Option<String>)> {
        let Some(given) = &self.integration else {
            return Ok((None, self.kind.clone()));
        };
        let named = ids::whole(client, "registrations", given)?;
        let registrations = || attachments.iter().map(|one| &one.registration);
        let is_named = |one: &Registration| one.name == named || one.id.as_str() == named;
        let is_kind = |one: &Registration| one.integration == *given;
        if self.kind.is_none() && !registrations().any(is_named) && registrations().any(is_kind) {
            global.warn(&ids::instead(given));
            return Ok((None, Some(given.clone())));
        }
        Ok((Some(named), self.kind.clone()))
    }

    fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let query = [
            ("workflow", self.workflow.as_deref()),
            ("project", self.project.as_deref()),
        ];
        let (mut attachments, _): (Vec<Attachment>, _) = client
            .list(&["attachments"], &query, EVERYTHING)
            .context("failed to list the attached integrations")?;
        let is_none_at_all = attachments.is_empty();
        let (registration, kind) = self.asked(global, &client, &attachments)?;
        attachments.retain(|one| {
            let of = &one.registration;
            let mut named = registration.iter();
            named.all(|named| *named == of.name || *named == of.id.as_str())
                && kind.iter().all(|kind| *kind == of.integration)
        });
        self.sort
            .sort(&mut attachments, |column, a, b| match column {
                Column::Workflow => a.workflow.cmp(&b.workflow),
                Column::Kind => a.registration.integration.cmp(&b.registration.integration),
                Column::Attached => a.created_at.cmp(&b.created_at),
            });
        match global.output {
            Format::Json => {
                output::json(&attachments.iter().map(View::from).collect::<Vec<_>>())?;
            }
            Format::Table if is_none_at_all => {
                output::line("there are no integrations attached")?;
            }
            Format::Table if attachments.is_empty() => output::line("no matching attachments")?,
            Format::Table => output::line(&rows(&attachments).to_string())?,
        }
        Ok(())
    }
}

fn describe(global: &Global, id: &ById) -> anyhow::Result<()> {
    let client = Client::new(global)?;
    let id = &id.given(&client)?;
    let attachment: Attachment = client
        .call(&Call::get(&["attachments", id]))
        .with_context(|| format!("failed to show the attachment {id:?}"))?;
    show(global, &attachment)
}

fn show(global: &Global, attachment: &Attachment) -> anyhow::Result<()> {
    match global.output {
        Format::Json => output::json(&View::from(attachment))?,
        Format::Table => output::line(&card(attachment).to_string())?,
    }
    Ok(())
}

fn card(attachment: &Attachment) -> Table {
    let mut table = Table::titled("Attachment", &[]);
    let mut row = |name: &str, content: &str| table.row(vec![cell(name), cell(content)]);
    let Registration {
        name,
        integration,
        version,
        ..
    } = &attachment.registration;
    row("ID", &attachment.id);
    row("REGISTRATION", name);
    row("KIND", &format!("{integration} {version}"));
    row("WORKFLOW", &attachment.workflow);
    // A line of its own: whether anything comes at all is what it decides.
    let mut options = attachment.config.clone();
    let filter = options.remove("filter");
    row("OPTIONS", &table::config(&[&options]));
    let filter = filter.as_ref().and_then(Value::as_str).unwrap_or_default();
    row("FILTER", filter);
    let wait = attachment.wait_secs.map(|secs| format!("{secs} s"));
    row("WAIT", wait.as_deref().unwrap_or("usual"));
    if !attachment.created_by.is_empty() {
        row("ATTACHED BY", &attachment.created_by);
    }
    row("ATTACHED AT", &time::exact(attachment.created_at));
    table
}

fn delete(global: &Global, id: &str) -> anyhow::Result<()> {
    let client = Client::new(global)?;
    let context = || format!("failed to detach {id:?}");
    ids::only_whole(&client, "attachments", id)?;
    confirm::deletion(global, || {
        let found: Attachment = client
            .call(&Call::get(&["attachments", id]))
            .with_context(context)?;
        let Registration {
            name, integration, ..
        } = found.registration;
        Ok(format!(
            "Detach {name:?} ({integration}) from the workflow {:?}?",
            found.workflow
        ))
    })?;
    let detached: Attachment = client
        .call(&Call::delete(&["attachments", id]))
        .with_context(context)?;
    global.info("integration detached!");
    if global.output == Format::Json {
        output::json(&View::from(&detached))?;
    }
    Ok(())
}

fn rows(attachments: &[Attachment]) -> Table {
    let headers = ["ID", "KIND", "CONFIG", "WORKFLOW", "ATTACHED AT"];
    let mut table = Table::new(&headers);
    for attachment in attachments {
        let registration = &attachment.registration;
        let config = [
            &registration.secrets,
            &registration.config,
            &attachment.config,
        ];
        table.row(vec![
            table::id(&attachment.id),
            cell(&registration.integration),
            cell(table::config(&config)),
            cell(&attachment.workflow),
            cell(time::exact(attachment.created_at)),
        ]);
    }
    table
}

/// With Chainloop's keys; `waitSecs`, `createdBy` and the workflow's `selector` are ours.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    id: &'a str,
    created_at: Timestamp,
    config: Option<&'a Map<String, Value>>,
    integration: registered::View<'a>,
    workflow: Workflow<'a>,
    wait_secs: Option<u64>,
    created_by: &'a str,
}

/// Workflow by its ID or by its name, as it was attached.
#[derive(Debug, Serialize)]
struct Workflow<'a> {
    name: &'a str,
    id: &'a str,
    project: &'a str,
    selector: &'a str,
}

impl<'a> From<&'a Attachment> for View<'a> {
    fn from(attachment: &'a Attachment) -> Self {
        let selector = attachment.workflow.as_str();
        let (id, project, name) = match selector.split_once('/') {
            Some((project, name)) => ("", project, name),
            None if selector == "*" => ("", "", selector),
            None => (selector, "", ""),
        };
        Self {
            id: &attachment.id,
            created_at: attachment.created_at,
            config: Some(&attachment.config).filter(|config| !config.is_empty()),
            integration: (&attachment.registration).into(),
            workflow: Workflow {
                name,
                id,
                project,
                selector,
            },
            wait_secs: attachment.wait_secs,
            created_by: &attachment.created_by,
        }
    }
}
