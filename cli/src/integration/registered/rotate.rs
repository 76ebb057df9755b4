//! `registered rotate`: replaces the secrets of a registration.

use anyhow::Context as _;
use api::inputs::Field;
use api::registrations::{NewSecrets, Registration};
use clap::Args;

use super::{Named, View, available, rows};
use crate::client::{Call, Client, json};
use crate::failure::Failure;
use crate::global::Global;
use crate::options;
use crate::output::{self, Format};

pub(super) const HELP: &str = "\
Replaces all secret inputs of the registration together, after the third party accepted the new ones.

";

pub(super) const EXAMPLE: &str = "

Example:
  chainloop integration registered rotate prod-images \\
    --opt password=@service-account.json";

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    #[command(flatten)]
    named: Named,
    /// Secret input, as listed by `integration available describe`; can be repeated
    #[arg(
        long = "opt",
        value_name = "KEY=VALUE",
        required = true,
        allow_hyphen_values = true
    )]
    options: Vec<String>,
}

impl Rotate {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let name = self.named.given(&client)?;
        let context = || format!("failed to rotate the secrets of {name:?}");
        let registration: Registration = client
            .call(&Call::get(&["registrations", &name]))
            .with_context(context)?;
        let integration = available::get(&client, &registration.integration)?;
        let schema = api::inputs::fields(&integration.registration_schema);
        let fields = secrets(schema, &registration, &self.options)?;
        let inputs = options::read_fields(global, &fields, &self.options)?;
        let path = ["registrations", &registration.id, "rotate"];
        let rotated: Registration = client
            .call(&Call::post(&path, json(&NewSecrets { inputs })?))
            .with_context(context)?;
        global.info(&format!("secrets of {name:?} replaced"));
        match global.output {
            Format::Json => output::json(&View::from(&rotated))?,
            Format::Table => output::line(&rows(&[rotated]).to_string())?,
        }
        Ok(())
    }
}

/// Returns the secret inputs; those that the registration has are required.
fn secrets(
    fields: Vec<Field>,
    registration: &Registration,
    given: &[String],
) -> Result<Vec<Field>, Failure> {
    let (mut secrets, plain): (Vec<Field>, Vec<Field>) =
        fields.into_iter().partition(|field| field.secret);
    let is_given = |field: &&Field| {
        given
            .iter()
            .any(|option| option.split('=').next() == Some(field.name.as_str()))
    };
    if let Some(field) = plain.iter().find(is_given) {
        let failure = Failure::usage(format!("{}: is not a secret input", field.name));
        let advice = "To change other inputs, use `registered update`.";
        return Err(failure.advice(advice));
    }
    for field in &mut secrets {
        field.required = registration.secrets.contains_key(&field.name);
    }
    Ok(secrets)
}
