//! Calls to AWS, with the credentials of the environment.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use api::{Actor, Role};
use pipeline::Platform;
use pipeline::config::tokens;
use pipeline::records::audit_log::Act;
use pipeline::store::platform::Scope;
use tokio::runtime::{Builder, Runtime};

use super::{FirstToken, NewToken, region};
use crate::failure::Failure;

fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Returns the settings, in the given region or else in the configured one.
fn settings(table: &str, region: Option<&str>) -> anyhow::Result<aws::Settings> {
    let environment = |name: &str| std::env::var(name).ok();
    let is_set = |name| environment(name).is_some_and(|value| !value.is_empty());
    if !is_set("AWS_ACCESS_KEY_ID") || !is_set("AWS_SECRET_ACCESS_KEY") {
        return Err(Failure::usage("no AWS credentials found")
            .advice("Run `eval \"$(aws configure export-credentials --format env)\"`.")
            .into());
    }
    let region = region.map(str::to_owned);
    let read = |path: &Path| fs::read_to_string(path).ok();
    let Some(region) = region.or_else(|| region::configured(environment, read)) else {
        return Err(Failure::usage("no AWS region found")
            .advice("Set AWS_REGION, or the region of the profile: `aws configure set region …`.")
            .into());
    };
    let variable = |name: &str| match name {
        "AWS_REGION" => Some(region.clone()),
        _ => environment(name),
    };
    aws::Settings::of_table(table.to_owned(), variable).map_err(|error| {
        Failure::usage(error.to_string())
            .advice("`make local` and `make deploy` set the variables, and run this command.")
            .into()
    })
}

/// Returns the text of a secret of Secrets Manager; the errors hold nothing of it.
pub(crate) fn read_secret(region: &str, secret: &str) -> anyhow::Result<String> {
    let aws = aws::Aws::new(settings("", Some(region))?);
    let read = runtime()?.block_on(aws.read_secret(secret))?;
    let value = read.ok_or_else(|| Failure::new("it does not exist, or contains no text"))?;
    Ok(value.expose().to_owned())
}

/// Returns the new token, if one was made.
pub(crate) fn create_first_token(
    table: &str,
    token: &FirstToken<'_>,
) -> anyhow::Result<Option<NewToken>> {
    let platform = aws::Aws::new(settings(table, None)?);
    runtime()?.block_on(create(&platform, token))
}

/// Tokens of one name, with numbers behind it.
const MOST: usize = 100;

async fn create(
    platform: &impl Platform,
    token: &FirstToken<'_>,
) -> anyhow::Result<Option<NewToken>> {
    let organization = token.organization;
    let is_new = tokens::organization(platform, organization)
        .await
        .with_context(|| format!("failed to create the organization {organization:?}"))?;
    if !is_new && !token.even_if_there {
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
            1 => token.name.to_owned(),
            _ => format!("{}-{number}", token.name),
        };
        let wanted = tokens::NewToken {
            name,
            role: Role::Admin,
            workflows: Vec::new(),
            valid_for: token.valid_for,
        };
        match tokens::create(Scope::new(platform, organization), wanted, by).await {
            Ok(made) => {
                return Ok(Some(NewToken {
                    name: made.token.name,
                    text: made.text,
                    expires_at: made.token.valid_until,
                }));
            }
            Err(tokens::Error::NameTaken(_)) if number < MOST => {}
            Err(error) => return Err(error).context(context),
        }
    }
    unreachable!("the last round returns")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use memory::Memory;

    use super::*;

    fn created(platform: &Memory, even_if_there: bool) -> Option<NewToken> {
        let token = FirstToken {
            organization: &"default".into(),
            name: "admin",
            valid_for: Some(Duration::from_hours(24)),
            even_if_there,
        };
        runtime()
            .unwrap()
            .block_on(create(platform, &token))
            .unwrap()
    }

    #[test]
    fn a_second_time_makes_a_token_only_when_asked_for() {
        let platform = Memory::default();
        let first = created(&platform, false).unwrap();
        assert_eq!(first.name, "admin");
        assert!(first.text.starts_with(tokens::PREFIX));
        let day = platform.now().plus(Duration::from_hours(24));
        assert_eq!(first.expires_at, Some(day));
        assert!(created(&platform, false).is_none());
        let second = created(&platform, true).unwrap();
        assert_eq!(second.name, "admin-2");
        assert_ne!(second.text, first.text);
    }
}
