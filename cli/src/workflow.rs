//! `chainloop workflow`: lists the workflows of accepted attestations, which can be attached to.

use anyhow::Context as _;
use api::Timestamp;
use api::workflows::ListedWorkflow;
use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use crate::client::Client;
use crate::global::Global;
use crate::output::{self, Format};
use crate::sort::Sort;
use crate::table::{Table, cell};
use crate::time;

/// More than an organization has.
const MOST: usize = 100_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the workflows of accepted attestations
    #[command(
        visible_alias = "ls",
        after_help = "\
Workflows need not be created: each appears with its first accepted attestation.

Example:
  chainloop workflow list --project shop --sort attested --reverse"
    )]
    List {
        /// Only workflows of this project
        #[arg(long)]
        project: Option<String>,
        #[command(flatten)]
        sort: Sort<Column>,
    },
}

#[derive(Debug, Clone, ValueEnum)]
pub(crate) enum Column {
    Name,
    Attachments,
    Attested,
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        let Self::List { project, sort } = self;
        list(global, project.as_deref(), &sort)
    }
}

fn list(global: &Global, project: Option<&str>, sort: &Sort<Column>) -> anyhow::Result<()> {
    let (mut known, _): (Vec<ListedWorkflow>, _) = Client::new(global)?
        .list(&["workflows"], &[], MOST)
        .context("failed to list the workflows")?;
    known.retain(|one| project.is_none_or(|project| one.workflow.project == project));
    known.sort_by(|a, b| {
        let key = |one: &ListedWorkflow| {
            let workflow = &one.workflow;
            (
                workflow.project.clone(),
                workflow.name.clone(),
                workflow.id.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    sort.sort(&mut known, |column, a, b| match column {
        Column::Name => a.workflow.name.cmp(&b.workflow.name),
        Column::Attachments => a.attachments.cmp(&b.attachments),
        Column::Attested => a.attested_at.cmp(&b.attested_at),
    });
    match global.output {
        Format::Json => output::json(&known.iter().map(View::from).collect::<Vec<_>>())?,
        Format::Table if known.is_empty() => {
            output::line("no workflows yet: none has an accepted attestation")?;
        }
        Format::Table => output::line(&rows(&known).to_string())?,
    }
    Ok(())
}

fn rows(known: &[ListedWorkflow]) -> Table {
    let headers = ["PROJECT", "NAME", "ID", "ATTACHMENTS", "LAST ATTESTATION"];
    let mut table = Table::new(&headers);
    let now = time::now();
    for one in known {
        let last = one.attested_at.map(|at| time::relative(at, now));
        table.row(vec![
            cell(&one.workflow.project),
            cell(&one.workflow.name),
            cell(&one.workflow.id),
            cell(one.attachments.to_string()),
            cell(last.unwrap_or_default()),
        ]);
    }
    table
}

/// A workflow as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    project: &'a str,
    name: &'a str,
    id: &'a str,
    attachments: usize,
    first_seen_at: Timestamp,
    attested_at: Option<Timestamp>,
}

impl<'a> From<&'a ListedWorkflow> for View<'a> {
    fn from(known: &'a ListedWorkflow) -> Self {
        Self {
            project: &known.workflow.project,
            name: &known.workflow.name,
            id: &known.workflow.id,
            attachments: known.attachments,
            first_seen_at: known.first_seen_at,
            attested_at: known.attested_at,
        }
    }
}
