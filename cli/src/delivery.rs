//! `chainloop delivery`: what became of each attestation at each attachment.

use std::collections::BTreeMap;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use comfy_table::{Cell, Color};
use pipeline::Timestamp;
use pipeline::api::deliveries::{Attempt, Delivery};
use pipeline::rows::{Ending, State};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::arguments::Global;
use crate::client::{Call, Client};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::table::{self, Table, cell, paint};
use crate::time;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List deliveries, the newest first
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  chainloop delivery list --integration prod-images --state failed"
    )]
    List(List),
    /// Show a delivery with its attempts and its receipt
    #[command(after_help = "Example:\n  chainloop delivery describe \
                            6f0c1f0e-0000-8000-8000-000000000001")]
    Describe {
        /// The delivery's id
        #[arg(required_unless_present = "by_id", conflicts_with = "by_id")]
        id: Option<String>,
        /// The delivery's id
        #[arg(long = "id", id = "by_id", value_name = "ID")]
        by_id: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those of an attestation, by its digest
    #[arg(long, value_name = "DIGEST")]
    attestation: Option<String>,
    /// Only those through a registration, by its name or id
    #[arg(long, value_name = "NAME_OR_ID")]
    integration: Option<String>,
    /// Only those of a workflow, as project/name
    #[arg(long)]
    workflow: Option<String>,
    /// The workflow's project, where the workflow is given by its name
    #[arg(long, requires = "workflow")]
    project: Option<String>,
    /// Only those in this state
    #[arg(
        long,
        value_parser = ["pending", "delivering", "delivered", "skipped", "failed", "cancelled"]
    )]
    state: Option<String>,
    /// How many at most
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::List(list) => list.run(global),
            Self::Describe { id, by_id } => describe(global, &id.or(by_id).unwrap_or_default()),
        }
    }
}

impl List {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        let given = [&self.attestation, &self.integration, &self.workflow];
        if given.iter().filter(|one| one.is_some()).count() > 1 {
            let failure = Failure::usage("these cannot be combined");
            let advice = "Give one of --attestation, --integration and --workflow.";
            return Err(failure.advice(advice).into());
        }
        let query = [
            ("attestation", self.attestation.as_deref()),
            ("registration", self.integration.as_deref()),
            ("workflow", self.workflow.as_deref()),
            ("project", self.project.as_deref()),
            ("state", self.state.as_deref()),
        ];
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let (deliveries, more): (Vec<Delivery>, _) = Client::new(global)?
            .list(&["deliveries"], &query, limit)
            .context("failed to list the deliveries")?;
        match global.output {
            Format::Json => {
                output::json(&deliveries.iter().map(View::from).collect::<Vec<_>>())?;
            }
            Format::Table if deliveries.is_empty() => output::line("there are no deliveries")?,
            Format::Table => output::line(&rows(&deliveries).to_string())?,
        }
        if more {
            global.info("there are more: raise --limit, or ask for less");
        }
        Ok(())
    }
}

fn describe(global: &Global, id: &str) -> anyhow::Result<()> {
    let delivery: Delivery = Client::new(global)?
        .call(&Call::get(&["deliveries", id]))
        .with_context(|| format!("failed to show the delivery {id:?}"))?;
    if global.output == Format::Json {
        output::json(&View::from(&delivery))?;
        return Ok(());
    }
    output::line(&card(&delivery).to_string())?;
    if !delivery.attempts.is_empty() {
        output::line(&attempts(&delivery.attempts).to_string())?;
    }
    Ok(())
}

/// Narrower than this, an id beside six other columns leaves none of them room.
const WIDE: u16 = 140;

fn rows(deliveries: &[Delivery]) -> Table {
    if table::terminal_width().is_some_and(|width| width < WIDE) {
        return narrow_rows(deliveries);
    }
    let headers = [
        "ID",
        "STATE",
        "INTEGRATION",
        "WORKFLOW",
        "ATTEMPT",
        "CREATED AT",
        "REASON",
    ];
    let mut table = Table::new(&headers).whole(0).whole(1);
    let now = time::now();
    for delivery in deliveries {
        table.row(vec![
            cell(&delivery.id),
            state(delivery.state),
            cell(&delivery.integration),
            cell(workflow(delivery)),
            cell(delivery.attempt.to_string()),
            cell(time::relative(delivery.created_at, now)),
            cell(delivery.reason.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

fn narrow_rows(deliveries: &[Delivery]) -> Table {
    let mut table = Table::new(&["ID", "STATE", "INTEGRATION, WORKFLOW, REASON"]);
    let now = time::now();
    for delivery in deliveries {
        let created = time::relative(delivery.created_at, now);
        let what = format!(
            "{} · {} · {created}",
            delivery.integration,
            workflow(delivery)
        );
        let reason = delivery.reason.as_ref().map(|reason| format!("\n{reason}"));
        table.row(vec![
            cell(&delivery.id),
            state(delivery.state),
            cell(what + &reason.unwrap_or_default()),
        ]);
    }
    table.whole(0).whole(1)
}

/// Deliveries with what the third party called what it got.
pub(crate) fn receipts(deliveries: &[Delivery]) -> Table {
    let headers = ["ID", "STATE", "INTEGRATION", "RECEIPT", "REASON"];
    // All went well: nothing to give a reason for.
    let reasons = deliveries.iter().any(|delivery| delivery.reason.is_some());
    let headers = if reasons { &headers[..] } else { &headers[..4] };
    let mut table = Table::new(headers).whole(0).whole(1).at_least(3, 20);
    if reasons {
        table = table.at_least(4, 16);
    }
    for delivery in deliveries {
        let mut cells = vec![
            cell(&delivery.id),
            state(delivery.state),
            cell(&delivery.integration),
            cell(receipt(delivery)),
        ];
        if reasons {
            cells.push(cell(delivery.reason.as_deref().unwrap_or_default()));
        }
        table.row(cells);
    }
    table
}

fn receipt(delivery: &Delivery) -> String {
    delivery
        .receipt
        .as_ref()
        .map(table::tree)
        .unwrap_or_default()
}

fn workflow(delivery: &Delivery) -> String {
    let workflow = &delivery.workflow;
    match (workflow.project.as_str(), workflow.name.as_str()) {
        (_, "") => workflow.id.clone(),
        ("", name) => name.to_owned(),
        (project, name) => format!("{project}/{name}"),
    }
}

fn state(state: State) -> Cell {
    let colour = match state {
        State::Delivered => Color::Green,
        State::Failed => Color::Red,
        State::Pending | State::Delivering => Color::Yellow,
        State::Skipped | State::Cancelled => Color::Grey,
    };
    paint(cell(word(&state)), colour)
}

/// A state or an ending as the API spells it.
fn word(state: &impl Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

fn card(delivery: &Delivery) -> Table {
    let now = time::now();
    let moment = |moment| format!("{} ({})", time::exact(moment), time::relative(moment, now));
    let mut table = Table::titled("Delivery", &[]);
    let mut row = |name: &str, content: Cell| table.row(vec![cell(name), content]);
    row("ID", cell(&delivery.id));
    row("STATE", state(delivery.state));
    if let Some(reason) = &delivery.reason {
        row("REASON", cell(reason));
    }
    row("INTEGRATION", cell(&delivery.integration));
    row("WORKFLOW", cell(workflow(delivery)));
    row("ATTESTATION", cell(delivery.attestation.to_string()));
    row("REGISTRATION", cell(&delivery.registration));
    row("ATTACHMENT", cell(&delivery.attachment));
    row("ATTEMPT", cell(delivery.attempt.to_string()));
    if let Some(due_at) = delivery.due_at {
        row("DUE AT", cell(moment(due_at)));
    }
    row("CREATED AT", cell(moment(delivery.created_at)));
    row("UPDATED AT", cell(moment(delivery.updated_at)));
    let receipt = receipt(delivery);
    if !receipt.is_empty() {
        row("RECEIPT", cell(receipt));
    }
    // Once it is delivered, its receipt says the same.
    if delivery.state != State::Delivered && !delivery.progress.is_empty() {
        let progress: Map<String, Value> = delivery.progress.clone().into_iter().collect();
        row("PROGRESS", cell(table::tree(&progress)));
    }
    table
}

fn attempts(attempts: &[Attempt]) -> Table {
    let headers = [
        "NUMBER",
        "ENDING",
        "STARTED AT",
        "DURATION",
        "STATUS",
        "DETAIL",
        "ANSWER",
    ];
    let mut table = Table::titled("Attempts", &headers)
        .at_least(5, 16)
        .at_least(6, 16);
    for attempt in attempts {
        table.row(vec![
            cell(attempt.number.to_string()),
            cell(word(&attempt.ending)),
            cell(time::exact(attempt.started_at)),
            cell(time::duration(attempt.duration_ms)),
            cell(
                attempt
                    .status
                    .map(|status| status.to_string())
                    .unwrap_or_default(),
            ),
            cell(attempt.detail.as_deref().unwrap_or_default()),
            cell(attempt.answer.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

/// As the API tells it, with keys spelled as the other commands spell theirs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View<'a> {
    id: &'a str,
    state: State,
    attempt: u32,
    reason: Option<&'a str>,
    integration: &'a str,
    registration: &'a str,
    attachment: &'a str,
    attestation: String,
    workflow: &'a integrations::Workflow,
    due_at: Option<Timestamp>,
    receipt: Option<&'a Map<String, Value>>,
    progress: &'a BTreeMap<String, Value>,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptView<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AttemptView<'a> {
    number: u32,
    ending: Ending,
    started_at: Timestamp,
    duration_ms: u64,
    status: Option<u16>,
    detail: Option<&'a str>,
    answer: Option<&'a str>,
}

impl<'a> From<&'a Delivery> for View<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        Self {
            id: &delivery.id,
            state: delivery.state,
            attempt: delivery.attempt,
            reason: delivery.reason.as_deref(),
            integration: &delivery.integration,
            registration: &delivery.registration,
            attachment: &delivery.attachment,
            attestation: delivery.attestation.to_string(),
            workflow: &delivery.workflow,
            due_at: delivery.due_at,
            receipt: delivery.receipt.as_ref(),
            progress: &delivery.progress,
            created_at: delivery.created_at,
            updated_at: delivery.updated_at,
            attempts: delivery.attempts.iter().map(AttemptView::from).collect(),
        }
    }
}

impl<'a> From<&'a Attempt> for AttemptView<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        Self {
            number: attempt.number,
            ending: attempt.ending,
            started_at: attempt.started_at,
            duration_ms: attempt.duration_ms,
            status: attempt.status,
            detail: attempt.detail.as_deref(),
            answer: attempt.answer.as_deref(),
        }
    }
}
