//! `chainloop bootstrap`: creates the first organization and its token, without the API.

use anyhow::Context as _;
use clap::Args;
use pipeline::audit_log::Act;
use pipeline::rows::{Actor, Role};
use pipeline::tokens;
use serde_json::json;

use crate::arguments::Global;
use crate::aws_environment;
use crate::output::{self, Format};

#[derive(Debug, Args)]
#[command(after_help = "\
Reads AWS_REGION and AWS credentials from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
AWS_SESSION_TOKEN.

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

/// A DNS-1123 label.
pub(crate) fn label(text: &str) -> Result<String, String> {
    match pipeline::configuration::name_fault(text) {
        None => Ok(text.to_owned()),
        Some(fault) => Err(fault.detail),
    }
}

impl Bootstrap {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        let platform = aws::Aws::new(aws_environment::settings(&self.table, None)?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let token = runtime.block_on(self.make(&platform))?;
        let organization = &self.organization;
        if global.output == Format::Json {
            let (name, token) = token.map(|made| (made.token.name, made.text)).unzip();
            output::json(&json!({ "organization": organization, "name": name, "token": token }))?;
            return Ok(());
        }
        let Some(tokens::NewToken { text, token }) = token else {
            global.info(&format!(
                "organization {organization:?} already exists; --new-token creates another token"
            ));
            return Ok(());
        };
        global.info(&format!(
            "organization {organization:?} has a new admin token {:?}, shown only once: keep it secret",
            token.name
        ));
        output::line(&format!("export CHAINLOOP_TOKEN={text}"))?;
        Ok(())
    }

    /// The new token, if one was made.
    async fn make(
        &self,
        platform: &impl pipeline::Platform,
    ) -> anyhow::Result<Option<tokens::NewToken>> {
        let organization = &self.organization;
        let is_new = tokens::organization(platform, organization)
            .await
            .with_context(|| format!("failed to create the organization {organization:?}"))?;
        if !is_new && !self.new_token {
            return Ok(None);
        }
        let actor = Actor::named("bootstrap");
        let by = tokens::By {
            act: Act {
                actor: &actor,
                action: "token.create",
            },
            role: Role::Admin,
        };
        let context = "failed to create the token; run the command again with --new-token";
        // The name may be taken by one that is lost, which is what the next is made for.
        for number in 1..=MOST {
            let name = match number {
                1 => self.token_name.clone(),
                _ => format!("{}-{number}", self.token_name),
            };
            let wanted = tokens::Wanted {
                name,
                role: Role::Admin,
                valid_for: None,
            };
            match tokens::create(platform, organization, wanted, by).await {
                Ok(made) => return Ok(Some(made)),
                Err(tokens::Error::NameTaken(_)) if number < MOST => {}
                Err(error) => return Err(error).context(context),
            }
        }
        unreachable!("the last round returns")
    }
}

/// Tokens of one name, with numbers behind it.
const MOST: usize = 100;

#[cfg(test)]
mod tests {
    use pipeline::memory::Memory;

    use super::*;

    fn made(platform: &Memory, new_token: bool) -> Option<tokens::NewToken> {
        let bootstrap = Bootstrap {
            table: "table".into(),
            organization: "default".into(),
            token_name: "admin".into(),
            new_token,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(bootstrap.make(platform)).unwrap()
    }

    #[test]
    fn a_second_time_makes_a_token_only_when_asked_for() {
        let platform = Memory::default();
        let first = made(&platform, false).unwrap();
        assert!(first.text.starts_with(tokens::PREFIX));
        assert!(made(&platform, false).is_none());
        let second = made(&platform, true).unwrap();
        assert_ne!(second.text, first.text);
        assert_eq!(
            (first.token.name, second.token.name),
            ("admin".into(), "admin-2".into())
        );
    }

    #[test]
    fn names_are_dns_labels() {
        for name in ["default", "a", "a-1", &"x".repeat(63)] {
            assert!(label(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"x".repeat(64)] {
            assert!(label(name).is_err(), "{name}");
        }
    }
}
