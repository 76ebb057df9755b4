//! `delivery audit`: checks that every delivery of every attestation is accounted for.

use anyhow::Context as _;
use api::jobs::Job;
use clap::Args;

use crate::client::{Call, Client};
use crate::global::Global;
use crate::job;

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Print the job's ID and exit
    #[arg(long)]
    no_wait: bool,
}

impl Audit {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let job: Job = client
            .call(&Call::post_once(&["audits"], Vec::new())?)
            .context("failed to start an audit")?;
        if self.no_wait {
            return job::leave(global, &job);
        }
        job::tell(global, &job::follow(global, &client, job, None)?)
    }
}
