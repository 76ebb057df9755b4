//! `attached backfill`: delivers past attestations to a newer attachment.

use anyhow::Context as _;
use api::jobs::JobKind;
use api::{Timestamp, attachments};
use clap::Args;

use crate::client::{Call, Client, json};
use crate::confirm::Action;
use crate::global::Global;
use crate::ids;
use crate::job::{self, Pace, Plan};
use crate::time;

pub(super) const HELP: &str = "\
Attestations that the attachment already got are not delivered again. The command counts the attestations first \
and asks for confirmation; -y skips both.

Example:
  chainloop integration attached backfill --since 7d \\
    --id 6f0c1f0e-0000-4000-8000-000000000001";

const PLAN: Plan = Plan {
    deed: Action {
        what: "deliver them",
        refused: "nothing was delivered",
    },
    question: "Deliver them?",
};

#[derive(Debug, Args)]
pub(crate) struct Backfill {
    /// ID of the attachment
    #[arg(long)]
    id: String,
    /// Only attestations accepted since then: a time, or an age such as 30m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    since: Option<Timestamp>,
    /// Only attestations accepted until then; now by default
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    until: Option<Timestamp>,
    #[command(flatten)]
    pace: Pace,
}

impl Backfill {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        job::ordered(self.since, self.until)?;
        let client = Client::new(global)?;
        let id = ids::whole(&client, "attachments", &self.id)?;
        job::run(global, &client, &self.pace, &PLAN, |dry_run, counted| {
            // Those that were counted, and none that came during the confirmation.
            let until = match counted.map(|job| &job.work) {
                Some(JobKind::Backfill { until, .. }) => Some(*until),
                _ => self.until,
            };
            let asked = attachments::Backfill {
                since: self.since,
                until,
                per_second: self.pace.rate,
                dry_run,
            };
            let path = ["attachments", &id, "backfill"];
            client
                .call(&Call::post_once(&path, json(&asked)?)?)
                .with_context(|| format!("failed to start the backfill of {id:?}"))
        })
    }
}
