//! `attached update`: changes an attachment's options and its wait for materials.

use anyhow::Context as _;
use api::attachments::{Attachment, ChangedAttachment};
use clap::{ArgGroup, Args};

use super::{ById, LONGEST_WAIT_SECS, available, show};
use crate::client::{Call, Client, json};
use crate::global::Global;
use crate::options;

pub(super) const HELP: &str = "\
Options that are not given stay unchanged. To change the workflow or the registration, detach and attach again. \
Pending deliveries use the updated attachment.

";

pub(super) const EXAMPLE: &str = "

Examples:
  chainloop integration attached update \\
    6f0c1f0e-0000-4000-8000-000000000001 --opt filter=environment=prod
  chainloop integration attached update \\
    6f0c1f0e-0000-4000-8000-000000000001 --unset filter --wait usual";

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct Update {
    #[command(flatten)]
    id: ById,
    /// Input, as listed by `integration available describe`; can be repeated
    #[arg(
        long = "opt",
        value_name = "KEY=VALUE",
        allow_hyphen_values = true,
        group = "change"
    )]
    options: Vec<String>,
    /// Input to remove or reset to its default; can be repeated
    #[arg(long, value_name = "KEY", group = "change")]
    unset: Vec<String>,
    /// Maximum wait of deliveries for missing materials, in seconds, or `usual`
    #[arg(long, value_name = "SECS", value_parser = wait, group = "change")]
    wait: Option<Wait>,
    /// Check the change without applying it
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy)]
struct Wait(Option<u64>);

fn wait(text: &str) -> Result<Wait, String> {
    match text.parse() {
        _ if text == "usual" => Ok(Wait(None)),
        Ok(secs @ 0..=LONGEST_WAIT_SECS) => Ok(Wait(Some(secs))),
        _ => Err(format!("must be 0 to {LONGEST_WAIT_SECS}, or usual")),
    }
}

impl Update {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let id = self.id.given(&client)?;
        let context = || format!("failed to update {id:?}");
        let inputs = if self.options.is_empty() && self.unset.is_empty() {
            None
        } else {
            let found: Attachment = client
                .call(&Call::get(&["attachments", &id]))
                .with_context(context)?;
            let integration = available::get(&client, &found.registration.integration)?;
            let fields = api::inputs::fields(&integration.attachment_schema);
            let there = [&found.config];
            let (given, unset) = (&self.options, &self.unset);
            Some(options::read_patch(global, fields, given, unset, &there)?)
        };
        let change = ChangedAttachment {
            inputs,
            wait_secs: self.wait.map(|Wait(secs)| secs),
            dry_run: self.dry_run,
        };
        let updated: Attachment = client
            .call(&Call::patch_once(&["attachments", &id], json(&change)?)?)
            .with_context(context)?;
        global.info(match self.dry_run {
            true => "dry run: the attachment can be updated; nothing was changed",
            false => "attachment updated",
        });
        show(global, &updated)
    }
}
