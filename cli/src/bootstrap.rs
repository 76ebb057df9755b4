//! `chainloop bootstrap`: creates the first organization and its token, without the API.

use api::OrganizationName;
use clap::Args;
use serde_json::json;

use crate::account::{self, FirstToken, NewToken};
use crate::global::Global;
use crate::names::label;
use crate::organization::{Lifetime, lifetime, until};
use crate::output::{self, Format};
use crate::variables::{TABLE, TOKEN};

#[derive(Debug, Args)]
#[command(after_help = "\
Reads AWS credentials from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), and the
region as other AWS tools do: from AWS_REGION, AWS_DEFAULT_REGION or the profile.

Example:
  eval \"$(aws configure export-credentials --format env)\"
  eval \"$(chainloop bootstrap --table prod-Table-1A2B3C4D5E6F)\"")]
pub(crate) struct Bootstrap {
    /// Table of the deployment: the stack's output TableName
    #[arg(long, env = TABLE)]
    table: String,
    /// Name of the organization: lower-case letters, digits and hyphens
    #[arg(long, default_value = "default", value_parser = label)]
    organization: String,
    /// Name of the token; a number is appended if it is taken
    #[arg(long, default_value = "admin", value_parser = label)]
    token_name: String,
    /// Lifetime of the token, such as 12h, 90d or 1y, or never
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = lifetime)]
    expires: Lifetime,
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
            expires,
            new_token,
        } = self;
        let organization = OrganizationName::from(organization);
        let first = FirstToken {
            organization: &organization,
            name: &token_name,
            valid_for: expires.0,
            even_if_there: new_token,
        };
        let token = account::create_first_token(&table, &first)?;
        if global.output == Format::Json {
            let (name, token, expires_at) = match token {
                Some(NewToken {
                    name,
                    text,
                    expires_at,
                }) => (Some(name), Some(text), expires_at),
                None => (None, None, None),
            };
            return output::json(&json!({
                "organization": organization, "name": name, "token": token, "expiresAt": expires_at,
            }));
        }
        let Some(NewToken {
            name,
            text,
            expires_at,
        }) = token
        else {
            global.info(&format!(
                "organization {organization:?} already exists; --new-token creates another token"
            ));
            return Ok(());
        };
        global.info(&format!(
            "organization {organization:?} has a new admin token {name:?}, {}, shown only once: keep it secret",
            until(expires_at)
        ));
        output::line(&format!("export {TOKEN}={text}"))?;
        Ok(())
    }
}
