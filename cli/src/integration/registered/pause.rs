//! `registered pause` and `resume`: hold and release a registration's deliveries.

use anyhow::Context as _;
use api::registrations::{NewPause, Registration, Resumed};
use clap::Args;
use serde_json::json;

use super::{Named, View, why};
use crate::client::{self, Call, Client};
use crate::global::Global;
use crate::job;
use crate::output::{self, Format};

pub(super) const PAUSE_HELP: &str = "\
Deliveries of a paused registration are held, and their deadlines stand still.

Example:
  chainloop integration registered pause prod-images \\
    --reason 'the registry moves'";

pub(super) const RESUME_HELP: &str = "\
A job sends the held deliveries gradually: `chainloop job describe` shows its progress, and --wait waits for it.

Example:
  chainloop integration registered resume prod-images --rate 20";

#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    named: Named,
    /// Reason, shown with the registration
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    named: Named,
    /// Maximum number of held deliveries sent per second; 10 by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    rate: Option<u32>,
    /// Wait until all held deliveries are sent
    #[arg(long)]
    wait: bool,
    /// Takes what scripts say that were written when it waited by default
    #[arg(long, hide = true, conflicts_with = "wait")]
    no_wait: bool,
}

impl Pause {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let name = self.named.given(&client)?;
        let new = NewPause {
            reason: self.reason,
        };
        let registration: Registration = client
            .call(&Call::post(
                &["registrations", &name, "pause"],
                client::json(&new)?,
            ))
            .with_context(|| format!("failed to pause {name:?}"))?;
        if let Some(pause) = &registration.paused {
            global.info(&format!("{name:?} is paused {}", why(pause)));
        }
        if global.output == Format::Json {
            output::json(&View::from(&registration))?;
        }
        Ok(())
    }
}

impl Resume {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let name = self.named.given(&client)?;
        let wanted = api::registrations::Resume {
            per_second: self.rate,
        };
        let resumed: Resumed = client
            .call(&Call::post_once(
                &["registrations", &name, "resume"],
                client::json(&wanted)?,
            )?)
            .with_context(|| format!("failed to resume {name:?}"))?;
        let mut drain = match &resumed.job {
            Some(id) => Some(job::get(&client, id)?),
            None => None,
        };
        match &drain {
            Some(_) => global.info(&format!("{name:?} resumed")),
            None => global.info(&format!("{name:?} was not paused")),
        }
        if self.wait
            && let Some(begun) = drain
        {
            drain = Some(job::follow(global, &client, begun, None)?);
        }
        if global.output == Format::Json {
            let registration = View::from(&resumed.registration);
            output::json(&json!({ "registration": registration, "job": drain }))?;
            return drain.as_ref().map_or(Ok(()), job::verdict);
        }
        match drain {
            None => Ok(()),
            Some(drain) if self.wait => job::tell(global, &drain),
            Some(drain) => job::leave(global, &drain),
        }
    }
}
