//! `registered test`: sends a test attestation through a registration, as a regular delivery.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use api::deliveries::{Delivery, State};
use api::registrations::{NewTest, Registration, Tested};
use clap::Args;

use super::{Named, available};
use crate::client::{Call, Client, json};
use crate::delivery::{self, wait};
use crate::global::Global;
use crate::options;
use crate::output::{self, Format};

pub(super) const HELP: &str = "\
The third party gets an attestation that is marked as a test.

Exit codes: 0 delivered or skipped · 1 failed or partial · 4 not final after --timeout

";

pub(super) const EXAMPLE: &str = "

Example:
  chainloop integration registered test prod-images --opt prefix=custom-prefix";

#[derive(Debug, Args)]
pub(crate) struct Test {
    #[command(flatten)]
    named: Named,
    /// Attachment input, as listed by `integration available describe`; can be repeated
    #[arg(long = "opt", value_name = "KEY=VALUE", allow_hyphen_values = true)]
    options: Vec<String>,
    /// Maximum wait, in seconds
    #[arg(long, value_name = "SECS", default_value = "120")]
    timeout: u64,
}

impl Test {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        let client = Client::new(global)?;
        let name = self.named.given(&client)?;
        let context = || format!("failed to test {name:?}");
        let registration: Registration = client
            .call(&Call::get(&["registrations", &name]))
            .with_context(context)?;
        let integration = available::get(&client, &registration.integration)?;
        let inputs = options::read(global, &integration.attachment_schema, &self.options)?;
        let path = ["registrations", &registration.id, "test"];
        let tested: Tested = client
            .call(&Call::post_once(&path, json(&NewTest { inputs })?)?)
            .with_context(context)?;
        let id = &tested.delivery;
        global.info(&format!("test delivery {id}"));
        let timeout = Duration::from_secs(self.timeout);
        let delivery = wait::until_final(global, &client, id, timeout)?;
        show(global, &delivery)?;
        Ok(end(global, &name, &delivery))
    }
}

fn show(global: &Global, delivery: &Delivery) -> anyhow::Result<()> {
    if global.output == Format::Json {
        output::json(&delivery::View::described(delivery))?;
        return Ok(());
    }
    output::line(&delivery::receipts(std::slice::from_ref(delivery)).to_string())?;
    // The receipt suffices for a delivered one.
    if delivery.state != State::Delivered && !delivery.attempts.is_empty() {
        output::line(&delivery::attempts(&delivery.attempts).to_string())?;
    }
    Ok(())
}

fn end(global: &Global, name: &str, delivery: &Delivery) -> ExitCode {
    let id = &delivery.id;
    match delivery.state {
        State::Delivered if delivery::is_partial(delivery) => {
            global.warn(&format!("the test delivery of {name:?} was partial"));
            ExitCode::FAILURE
        }
        State::Delivered | State::Skipped => ExitCode::SUCCESS,
        State::Failed | State::Cancelled => {
            global.warn(&format!("the test delivery of {name:?} failed"));
            ExitCode::FAILURE
        }
        State::Pending | State::Delivering => {
            let why = match delivery.held_at {
                Some(_) => format!("is held, because {name:?} is paused: resume it first"),
                None => format!("is not final yet: `chainloop delivery describe {id}` shows it"),
            };
            global.warn(&format!("the test delivery {why}"));
            ExitCode::from(4)
        }
    }
}
