//! `chainloop audit`: what operators did.

use anyhow::Context as _;
use clap::Subcommand;
use jiff::civil::Date;
use pipeline::api::jobs::Entry;

use crate::arguments::Global;
use crate::client::Client;
use crate::output::{self, Format};
use crate::table::{Table, cell};
use crate::time;

/// More than a day has.
const MOST: usize = 100_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List what operators did on a day, the last first
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  chainloop audit list --day 2026-01-31"
    )]
    List {
        /// A day of UTC, as 2026-01-31; today unless said
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
    let (entries, _): (Vec<Entry>, _) = Client::new(global)?
        .list(&["audit-log"], &[("day", day.as_deref())], MOST)
        .context("failed to list what operators did")?;
    match global.output {
        Format::Json => output::json(&entries)?,
        Format::Table if entries.is_empty() => output::line("nothing was done on that day")?,
        Format::Table => output::line(&rows(&entries).to_string())?,
    }
    Ok(())
}

fn rows(entries: &[Entry]) -> Table {
    let mut table = Table::new(&["AT", "BY", "ACTION", "SUBJECT", "DETAIL"]).whole(2);
    for entry in entries {
        table.row(vec![
            cell(time::exact(entry.created_at)),
            cell(&entry.by),
            cell(&entry.action),
            cell(&entry.subject),
            cell(&entry.detail),
        ]);
    }
    table
}
