//! `registered update`: changes a registration, and keeps its ID, attachments and pending deliveries.

use anyhow::Context as _;
use api::registrations::{ChangedRegistration, Registration};
use clap::{ArgGroup, Args};

use super::{available, show};
use crate::client::{Call, Client, json};
use crate::global::Global;
use crate::ids;
use crate::options;

pub(super) const HELP: &str = "\
Inputs that are not given stay unchanged. The third party checks the change first, as it does a new registration; \
if it refuses, nothing changes. Pending deliveries use the updated registration. Secret inputs are replaced all \
together, and must be given if the change sends them to another destination.

";

pub(super) const EXAMPLE: &str = "

Examples:
  chainloop integration registered update prod-images --dry-run \\
    --opt repository=registry.example.org/attestations \\
    --opt password=@service-account.json
  chainloop integration registered update prod-images \\
    --description 'images of production'";

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct Update {
    /// Name or ID of the registration
    #[arg(value_name = "NAME_OR_ID")]
    registration: String,
    /// New name, unique in your organization: lower-case letters, digits and hyphens
    #[arg(long, group = "change")]
    name: Option<String>,
    /// New description
    #[arg(long, group = "change")]
    description: Option<String>,
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
    /// Check the change without applying it
    #[arg(long)]
    dry_run: bool,
}

impl Update {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let name = &ids::whole(&client, "registrations", &self.registration)?;
        let context = || format!("failed to update {name:?}");
        let found: Registration = client
            .call(&Call::get(&["registrations", name]))
            .with_context(context)?;
        let inputs = if self.options.is_empty() && self.unset.is_empty() {
            None
        } else {
            let integration = available::get(&client, &found.integration)?;
            let fields = api::inputs::fields(&integration.registration_schema);
            let there = [&found.config, &found.secrets];
            let (given, unset) = (&self.options, &self.unset);
            Some(options::read_patch(global, fields, given, unset, &there)?)
        };
        let change = ChangedRegistration {
            name: self.name,
            description: self.description,
            inputs,
            dry_run: self.dry_run,
        };
        // By its id: should it be repeated, the name may be another already.
        let updated: Registration = client
            .call(&Call::patch_once(
                &["registrations", &found.id],
                json(&change)?,
            )?)
            .with_context(context)?;
        global.info(&match self.dry_run {
            true => format!("dry run: {name:?} can be updated; nothing was changed"),
            false => format!("{name:?} updated"),
        });
        show(global, &updated)
    }
}
