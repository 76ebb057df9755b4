//! `chainloop bootstrap`: creates the first organization and its token, without the API.

use api::OrganizationName;
use clap::Args;
use serde_json::json;

use crate::account::{self, FirstToken};
use crate::global::Global;
use crate::names::label;
use crate::output::{self, Format};

#[derive(Debug, Args)]
#[command(after_help = "\
Reads AWS credentials from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), and the
region as other AWS tools do: from AWS_REGION, AWS_DEFAULT_REGION or the profile.

Example:
  eval \"$(aws configure export-credentials --format env)\"
  eval \"$(chainloop bootstrap --table prod-Table-1A2B3C4D5E6F)\"")]
pub(crate) struct Bootstrap {
    /// Table of the deployment: the stack's output TableName
    #[arg(long, env = "CHAINLOOP_TABLE")]
    table: String,
    /// Name of the organization: lower-case letters, digits and hyphens
    #[arg(long, default_value = "default", value_parser = label)]
    organization: String,
    /// Name of the token; a number is appended if it is taken
    #[arg(long, default_value = "admin", value_parser = label)]
    token_name: String,
    /// Create a token even if the organization exists
    #[arg(long)]
    new_token: bool,
}

impl Bootstrap {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        let Self {
            table,
            organization,
            token_name,
            new_token,
        } = self;
        let organization = OrganizationName::from(organization);
        let first = FirstToken {
            organization: &organization,
            name: &token_name,
            even_if_there: new_token,
        };
        let token = account::create_first_token(&table, &first)?;
        if global.output == Format::Json {
            let (name, text) = token.unzip();
            output::json(&json!({ "organization": organization, "name": name, "token": text }))?;
            return Ok(());
        }
        let Some((name, text)) = token else {
            global.info(&format!(
                "organization {organization:?} already exists; --new-token creates another token"
            ));
            return Ok(());
        };
        global.info(&format!(
            "organization {organization:?} has a new admin token {name:?}, shown only once: keep it secret"
        ));
        output::line(&format!("export CHAINLOOP_TOKEN={text}"))?;
        Ok(())
    }
}
