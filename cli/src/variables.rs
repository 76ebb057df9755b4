//! Names of the environment variables. The official `chainloop` command shares the prefix of the short names, so that each
//! has a long one, which comes first.

use std::ffi::OsStr;

use clap::Command;

pub(crate) const URL: &str = "CHAINLOOP_INTEGRATIONS_URL";
pub(crate) const TOKEN: &str = "CHAINLOOP_INTEGRATIONS_TOKEN";
pub(crate) const PROFILE: &str = "CHAINLOOP_INTEGRATIONS_PROFILE";
pub(crate) const OIDC_TOKEN: &str = "CHAINLOOP_INTEGRATIONS_OIDC_TOKEN";
pub(crate) const OIDC_AUDIENCE: &str = "CHAINLOOP_INTEGRATIONS_OIDC_AUDIENCE";
pub(crate) const ORGANIZATION: &str = "CHAINLOOP_INTEGRATIONS_ORGANIZATION";
pub(crate) const TABLE: &str = "CHAINLOOP_INTEGRATIONS_TABLE";

/// Each long name, with its short one.
const SHORT: [(&str, &str); 6] = [
    (URL, "CHAINLOOP_URL"),
    (TOKEN, "CHAINLOOP_TOKEN"),
    (OIDC_TOKEN, "CHAINLOOP_OIDC_TOKEN"),
    (OIDC_AUDIENCE, "CHAINLOOP_OIDC_AUDIENCE"),
    (ORGANIZATION, "CHAINLOOP_ORGANIZATION"),
    (TABLE, "CHAINLOOP_TABLE"),
];

/// Finds the variable that gives the value of this long name: its own or its short one's. Returns its name and value.
pub(crate) fn find(long: &'static str) -> Option<(&'static str, String)> {
    let short = SHORT.iter().find(|(name, _)| *name == long);
    [Some(long), short.map(|(_, short)| *short)]
        .into_iter()
        .flatten()
        .find_map(|name| {
            let value = std::env::var(name).ok()?;
            let value = value.trim();
            (!value.is_empty() && !is_official(name, value)).then(|| (name, value.to_owned()))
        })
}

/// Reports whether this is a token of the official command, which must not go to another API: a JWT, which has dots.
fn is_official(name: &str, value: &str) -> bool {
    name == "CHAINLOOP_TOKEN" && value.contains('.')
}

/// Has each argument with a variable read the one that [`find`] finds, and none where it finds none.
pub(crate) fn found(command: Command) -> Command {
    command
        .mut_args(|argument| {
            let long = argument.get_env().and_then(OsStr::to_str);
            let long = [URL, TOKEN, PROFILE, OIDC_AUDIENCE, ORGANIZATION, TABLE]
                .into_iter()
                .find(|name| Some(*name) == long);
            match long.and_then(find) {
                Some((name, _)) => argument.env(name),
                None => argument,
            }
        })
        .mut_subcommands(found)
}
