//! `chainloop audit`: shows the audit log.

use anyhow::Context as _;
use api::audit_log::Entry;
use api::{Client, Timestamp};
use clap::Subcommand;
use jiff::civil::Date;
use serde::Serialize;

use crate::client;
use crate::global::Global;
use crate::output::{self, Format};
use crate::table::{Table, cell};
use crate::time;

/// More than a day has.
const MOST: usize = 100_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the audit entries of a day, newest first
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  chainloop audit list --day 2026-01-31"
    )]
    List {
        /// Day in UTC, such as 2026-01-31; today by default
        #[arg(long)]
        day: Option<Date>,
    },
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        let Self::List { day } = self;
        list(global, day)
    }
}

fn list(global: &Global, day: Option<Date>) -> anyhow::Result<()> {
    let day = day.map(|day| day.to_string());
    let (entries, _): (Vec<Entry>, _) = client::Client::new(global)?
        .list(&["audit-log"], &[("day", day.as_deref())], MOST)
        .context("failed to list the audit entries")?;
    match global.output {
        Format::Json => output::json(&entries.iter().map(View::from).collect::<Vec<_>>())?,
        Format::Table if entries.is_empty() => output::line("no audit entries on that day")?,
        Format::Table => output::line(&rows(&entries).to_string())?,
    }
    Ok(())
}

fn rows(entries: &[Entry]) -> Table {
    let headers = ["TIME", "ACTOR", "CLIENT", "ACTION", "SUBJECT", "DETAIL"];
    let mut table = Table::new(&headers);
    for entry in entries {
        table.row(vec![
            cell(time::exact(entry.created_at)),
            cell(&entry.by),
            cell(from(&entry.client)),
            cell(&entry.action),
            cell(&entry.subject),
            cell(&entry.detail),
        ]);
    }
    table
}

fn lines(texts: &[impl AsRef<str>]) -> String {
    let texts = texts.iter().map(AsRef::as_ref);
    let texts: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
    texts.join("\n")
}

/// Formats the address and the user agent of a client.
pub(crate) fn from(client: &Client) -> String {
    lines(&[&client.address, &client.user_agent])
}

/// As the API tells it, with keys spelled as the other commands spell theirs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    id: &'a str,
    action: &'a str,
    subject: &'a str,
    subject_id: &'a str,
    detail: &'a str,
    by: &'a str,
    token: &'a str,
    address: &'a str,
    user_agent: &'a str,
    created_at: Timestamp,
}

impl<'a> From<&'a Entry> for View<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            id: &entry.id,
            action: &entry.action,
            subject: &entry.subject,
            subject_id: &entry.subject_id,
            detail: &entry.detail,
            by: &entry.by,
            token: &entry.token,
            address: &entry.client.address,
            user_agent: &entry.client.user_agent,
            created_at: entry.created_at,
        }
    }
}
