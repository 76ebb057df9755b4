//! `attestation list`: lists the newest accepted attestations, of all workflows or one.

use anyhow::Context as _;
use api::attestations::Attestation;
use api::trust::{Outcome, Verdict};
use api::{Actor, Kind, Timestamp};
use clap::Args;
use serde::Serialize;

use crate::client::Client;
use crate::delivery::workflow;
use crate::global::Global;
use crate::output::{self, Format};
use crate::table::{self, Table, cell, size};
use crate::{time, trust};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only attestations of this workflow, as project/name
    #[arg(long)]
    workflow: Option<String>,
    /// Project of the workflow, if --workflow is only its name
    #[arg(long, requires = "workflow")]
    project: Option<String>,
    /// Only attestations accepted since then: a time, or an age such as 30m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    since: Option<Timestamp>,
    /// Only attestations with this verdict on their signatures; off: those that were not judged
    #[arg(
        long,
        value_name = "VERDICT",
        value_parser = clap::builder::PossibleValuesParser::new(Outcome::ALL.map(Outcome::as_str))
    )]
    verdict: Option<String>,
    /// Maximum number of results
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl List {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let since = self.since.map(|since| since.to_string());
        let query = [
            ("workflow", self.workflow.as_deref()),
            ("project", self.project.as_deref()),
            ("since", since.as_deref()),
            ("verdict", self.verdict.as_deref()),
        ];
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let (found, more): (Vec<Attestation>, _) = Client::new(global)?
            .list(&["attestations"], &query, limit)
            .context("failed to list the attestations")?;
        match global.output {
            Format::Json => output::json(&found.iter().map(View::from).collect::<Vec<_>>())?,
            Format::Table if found.is_empty() => output::line("there are no attestations")?,
            Format::Table => output::line(&rows(&found).to_string())?,
        }
        if more {
            global.info("more attestations exist: raise --limit, or add a filter");
        }
        Ok(())
    }
}

fn rows(found: &[Attestation]) -> Table {
    let now = time::now();
    let headers = [
        "DIGEST",
        "WORKFLOW",
        "RUN",
        "SIZE",
        "SIGNATURES",
        "ACCEPTED AT",
    ];
    let mut table = Table::new(&headers);
    for one in found {
        table.row(vec![
            table::digest(&one.attestation),
            cell(workflow(&one.workflow)),
            cell(&one.run),
            cell(size(one.size_bytes)),
            trust::outcome(one.verdict.as_ref()),
            cell(time::relative(one.created_at, now)),
        ]);
    }
    table
}

/// An attestation as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View<'a> {
    attestation: String,
    received: String,
    size_bytes: u64,
    workflow: &'a api::workflows::Workflow,
    run: &'a str,
    predicate_type: &'a str,
    pushed_by: Option<Pusher<'a>>,
    verdict: Option<&'a Verdict>,
    created_at: Timestamp,
}

/// Actor that sent it first, with its client, as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pusher<'a> {
    kind: Kind,
    name: &'a str,
    id: &'a str,
    address: &'a str,
    user_agent: &'a str,
}

impl<'a> From<&'a Actor> for Pusher<'a> {
    fn from(actor: &'a Actor) -> Self {
        Self {
            kind: actor.kind,
            name: &actor.name,
            id: &actor.id,
            address: &actor.client.address,
            user_agent: &actor.client.user_agent,
        }
    }
}

impl<'a> From<&'a Attestation> for View<'a> {
    fn from(one: &'a Attestation) -> Self {
        Self {
            attestation: one.attestation.to_string(),
            received: one.received.to_string(),
            size_bytes: one.size_bytes,
            workflow: &one.workflow,
            run: &one.run,
            predicate_type: &one.predicate_type,
            pushed_by: one.pushed_by.as_ref().map(Pusher::from),
            verdict: one.verdict.as_ref(),
            created_at: one.created_at,
        }
    }
}
