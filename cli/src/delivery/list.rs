//! `delivery list`: lists the newest deliveries, all or filtered.

use anyhow::Context as _;
use api::deliveries::{Delivery, StatusFilter};
use api::{Code, Timestamp};
use clap::Args;

use super::View;
use super::card::{attempt, state, to, workflow};
use crate::client::Client;
use crate::failure::Failure;
use crate::global::Global;
use crate::ids::{self, Given};
use crate::job;
use crate::output::{self, Format};
use crate::table::{self, Table, cell};
use crate::time;

/// Filter by attestation, registration or workflow.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only deliveries of this attestation, by digest
    #[arg(long, value_name = "DIGEST")]
    pub attestation: Option<Given>,
    /// Only deliveries through this registration, by name or ID
    #[arg(long, visible_alias = "registration", value_name = "NAME_OR_ID")]
    pub integration: Option<String>,
    /// Only deliveries to registrations of this integration, as listed by `integration available list`
    #[arg(long, value_name = "INTEGRATION")]
    pub kind: Option<String>,
    /// Only deliveries of this workflow, as project/name
    #[arg(long)]
    pub workflow: Option<String>,
    /// Project of the workflow, if --workflow is only its name
    #[arg(long, requires = "workflow")]
    pub project: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    /// Only deliveries in this state
    #[arg(
        long,
        value_parser = ["pending", "delivering", "delivered", "skipped", "failed", "cancelled"]
    )]
    state: Option<String>,
    /// Only deliveries whose last attempt got this answer: a status, a class such as 5xx, or none where none came
    #[arg(long)]
    status: Option<StatusFilter>,
    /// Only deliveries created since then: a time, or an age such as 30m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    since: Option<Timestamp>,
    /// Only deliveries created until then
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    until: Option<Timestamp>,
    /// Maximum number of results
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Which {
    /// Checks the filter, and finds what its beginnings of IDs and digests begin.
    pub(super) fn asked(self, client: &Client) -> anyhow::Result<Asked> {
        let given = [
            self.attestation.is_some(),
            self.integration.is_some(),
            self.workflow.is_some(),
        ];
        if given.into_iter().filter(|given| *given).count() > 1 {
            let failure = Failure::usage("more than one filter given");
            let advice = "Pass one of --attestation, --integration and --workflow.";
            return Err(failure.advice(advice).into());
        }
        let attestation = self.attestation.map(|given| given.whole(client));
        let registration = self.integration;
        let registration = registration.map(|given| ids::whole(client, "registrations", &given));
        Ok(Asked {
            attestation: attestation.transpose()?.map(|digest| digest.to_string()),
            registration: registration.transpose()?,
            kind: self.kind,
            workflow: self.workflow,
            project: self.project,
        })
    }
}

/// A filter as the API takes it.
pub(super) struct Asked {
    pub attestation: Option<String>,
    registration: Option<String>,
    kind: Option<String>,
    workflow: Option<String>,
    project: Option<String>,
}

impl Asked {
    /// Returns the newest of them, and true if more exist. An integration in place of a registration is understood.
    pub(super) fn list(
        &mut self,
        global: &Global,
        client: &Client,
        more: &[(&str, Option<&str>)],
        limit: usize,
    ) -> anyhow::Result<(Vec<Delivery>, bool)> {
        let found = self.newest(client, more, limit);
        let is_missing = |error: &anyhow::Error| {
            let failure = error.downcast_ref::<Failure>();
            failure.is_some_and(|failure| failure.has_code(Code::NotFound))
        };
        let Err(error) = found else { return found };
        let kind = match &self.registration {
            Some(kind) if is_missing(&error) && ids::is_integration(client, kind)? => kind.clone(),
            _ => return Err(error),
        };
        if self.kind.is_some() {
            return Err(error);
        }
        global.warn(&ids::instead(&kind));
        (self.registration, self.kind) = (None, Some(kind));
        self.newest(client, more, limit)
    }

    fn newest(
        &self,
        client: &Client,
        more: &[(&str, Option<&str>)],
        limit: usize,
    ) -> anyhow::Result<(Vec<Delivery>, bool)> {
        let mut query = vec![
            ("attestation", self.attestation.as_deref()),
            ("registration", self.registration.as_deref()),
            ("integration", self.kind.as_deref()),
            ("workflow", self.workflow.as_deref()),
            ("project", self.project.as_deref()),
        ];
        query.extend(more);
        client
            .list(&["deliveries"], &query, limit)
            .context("failed to list the deliveries")
    }
}

impl List {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        job::ordered(self.since, self.until)?;
        let client = Client::new(global)?;
        let [since, until] = [self.since, self.until].map(|time| time.map(|time| time.to_string()));
        let status = self.status.map(|status| status.to_string());
        let query = [
            ("state", self.state.as_deref()),
            ("status", status.as_deref()),
            ("since", since.as_deref()),
            ("until", until.as_deref()),
        ];
        let mut asked = self.which.asked(&client)?;
        let (deliveries, more) = asked.list(global, &client, &query, limit)?;
        match global.output {
            Format::Json => {
                output::json(&deliveries.iter().map(View::from).collect::<Vec<_>>())?;
            }
            Format::Table if deliveries.is_empty() => output::line("there are no deliveries")?,
            Format::Table => output::line(&rows(&deliveries).to_string())?,
        }
        if more {
            global.info("more deliveries exist: raise --limit, or add a filter");
        }
        Ok(())
    }
}

fn rows(deliveries: &[Delivery]) -> Table {
    let headers = [
        "ID", "STATE", "TO", "WORKFLOW", "ATTEMPT", "NEXT", "WHEN", "REASON",
    ];
    let mut table = Table::new(&headers);
    let now = time::now();
    for delivery in deliveries {
        let next = delivery.due_at.map(|due_at| time::relative(due_at, now));
        table.row(vec![
            table::id(&delivery.id),
            state(delivery),
            cell(to(delivery)),
            cell(workflow(delivery)),
            cell(attempt(delivery)),
            cell(next.unwrap_or_default()),
            cell(time::relative(delivery.created_at, now)),
            cell(delivery.reason.as_deref().unwrap_or_default()),
        ]);
    }
    table
}
