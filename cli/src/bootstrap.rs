//! `chainloop bootstrap`: the first organization and its token, written past the API.
//!
//! The only command that speaks to AWS, and the only module that knows how.

use anyhow::Context as _;
use clap::Args;
use pipeline::rows::Role;
use pipeline::tokens;
use serde_json::json;

use crate::arguments::Global;
use crate::failure::Failure;
use crate::output::{self, Format};

#[derive(Debug, Args)]
#[command(after_help = "\
AWS_REGION and AWS credentials come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
AWS_SESSION_TOKEN.

Example:
  eval \"$(aws configure export-credentials --format env)\"
  eval \"$(chainloop bootstrap)\"")]
pub(crate) struct Bootstrap {
    /// The deployment's table: the stack's output TableName
    #[arg(long, env = "CHAINLOOP_TABLE")]
    table: String,
    /// The organization: small letters, digits and hyphens
    #[arg(long, default_value = "default", value_parser = label)]
    organization: String,
    /// The token's name
    #[arg(long, default_value = "admin", value_parser = label)]
    token_name: String,
    /// Make a token also when the organization is there already
    #[arg(long)]
    new_token: bool,
}

/// A DNS-1123 label.
fn label(text: &str) -> Result<String, String> {
    let is_inner = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let bytes = text.as_bytes();
    let fits = (1..=63).contains(&bytes.len())
        && bytes
            .iter()
            .all(|&letter| is_inner(letter) || letter == b'-')
        && is_inner(bytes[0])
        && is_inner(bytes[bytes.len() - 1]);
    if fits {
        return Ok(text.to_owned());
    }
    Err("must be 1 to 63 small letters, digits and hyphens, with no hyphen at an end".to_owned())
}

impl Bootstrap {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        let platform = platform(&self.table)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let token = runtime.block_on(self.make(&platform))?;
        let organization = &self.organization;
        if global.output == Format::Json {
            output::json(&json!({ "organization": organization, "token": token }))?;
            return Ok(());
        }
        let Some(token) = token else {
            global.info(&format!(
                "the organization {organization:?} is there already; --new-token makes another token"
            ));
            return Ok(());
        };
        global.info(&format!(
            "the organization {organization:?} has a new admin token, shown this once: keep it as a secret"
        ));
        output::line(&format!("export CHAINLOOP_TOKEN={token}"))?;
        Ok(())
    }

    /// The new token's text, if one was made.
    async fn make(&self, platform: &impl pipeline::Platform) -> anyhow::Result<Option<String>> {
        let organization = &self.organization;
        let is_new = tokens::organization(platform, organization)
            .await
            .with_context(|| format!("failed to make the organization {organization:?}"))?;
        if !is_new && !self.new_token {
            return Ok(None);
        }
        let token = tokens::create(platform, organization, &self.token_name, Role::Admin)
            .await
            .context("failed to make the token; run it again with --new-token")?;
        Ok(Some(token.text))
    }
}

fn platform(table: &str) -> anyhow::Result<aws::Aws> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !is_set("AWS_ACCESS_KEY_ID") || !is_set("AWS_SECRET_ACCESS_KEY") {
        return Err(Failure::usage("there are no AWS credentials")
            .advice("Run `eval \"$(aws configure export-credentials --format env)\"`.")
            .into());
    }
    let variable = |name: &str| std::env::var(name).ok();
    let settings = aws::Settings::of_table(table.to_owned(), variable).map_err(|error| {
        Failure::usage(error.to_string())
            .advice("`make local` and `make deploy` set what is needed, and end with this command.")
    })?;
    Ok(aws::Aws::new(settings))
}

#[cfg(test)]
mod tests {
    use pipeline::memory::Memory;

    use super::*;

    fn made(platform: &Memory, new_token: bool) -> Option<String> {
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
        assert!(first.starts_with(tokens::PREFIX));
        assert_eq!(made(&platform, false), None);
        assert_ne!(made(&platform, true).unwrap(), first);
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
