//! The installation that a command talks to: its URL and the token for it, of flags, variables or a profile.

use crate::address::base;
use crate::failure::Failure;
use crate::global::Global;
use crate::profiles::{self, Profile};
use crate::variables::{self, PROFILE, TOKEN, URL};

pub(crate) struct Installation {
    pub url: String,
    /// Flag, variable or profile that gives the URL.
    pub url_from: String,
    /// Of a flag or a variable.
    token: Option<Token>,
    /// Not loaded where it gives nothing.
    profile: Option<(String, Profile)>,
}

pub(crate) struct Token {
    pub text: String,
    /// Flag, variable or profile that gives it.
    pub from: String,
}

impl Installation {
    /// Flags come before variables, and these before the profile.
    pub(crate) fn of(global: &Global) -> anyhow::Result<Self> {
        let token = global.token.clone().map(|text| Token {
            text,
            from: global.from.token.to_owned(),
        });
        let profile = match (&global.url, &token) {
            (Some(_), Some(_)) => None,
            _ => profiles::load(global)?.chosen(global)?,
        };
        let (url, url_from) = match (&global.url, &profile) {
            (Some(url), _) => (url.clone(), global.from.url.to_owned()),
            (None, Some((name, profile))) => (profile.url.clone(), format!("profile {name}")),
            (None, None) => return Err(no_url().into()),
        };
        Ok(Self {
            url,
            url_from,
            token,
            profile,
        })
    }

    /// Returns the token. That of a profile goes to the profile's own URL alone, and that of a variable not to a profile
    /// which has its own: the variable may be of another installation.
    pub(crate) fn token(self) -> anyhow::Result<Token> {
        let has_own = |(_, profile): &(String, Profile)| profile.token.is_some();
        let is_of_profile = self.url_from.starts_with("profile ");
        if let Some(token) = self.token {
            if is_of_profile && !token.from.starts_with("--") && self.profile.iter().any(has_own) {
                let Self { url_from, .. } = self;
                return Err(Failure::usage(format!(
                    "{} is set without {URL}, and {url_from} has a token of its own",
                    token.from
                ))
                .advice(format!(
                    "Unset it, or set {URL} as well; --profile {} sets variables aside.",
                    url_from.trim_start_matches("profile ")
                ))
                .into());
            }
            return Ok(token);
        }
        let Some((name, profile)) = self.profile else {
            return Err(no_token().into());
        };
        let text = profile.token.ok_or_else(no_token)?;
        if base(&self.url)? != profile.url {
            let Self { url, url_from, .. } = self;
            return Err(Failure::usage(format!(
                "no API token configured for {url}, given by {url_from}"
            ))
            .advice(format!(
                "The token of profile {name:?} goes to {} alone. Set {TOKEN} or pass --token for the other URL, or pass \
                 --profile {name} to use the profile's.",
                profile.url
            ))
            .into());
        }
        Ok(Token {
            text,
            from: format!("profile {name}"),
        })
    }
}

fn no_url() -> Failure {
    Failure::usage("no API URL configured").advice(format!(
        "Set {URL} and {TOKEN}, or store a profile with `chainloop profile add` or `chainloop auth login`; after `make local`, \
         run `. .local/env`."
    ))
}

fn no_token() -> Failure {
    Failure::usage("no API token configured").advice(format!(
        "Set {TOKEN}, pass --token, or store one in a profile with `chainloop auth login`; after `make local`, run \
         `. .local/env`."
    ))
}

/// Warns of variables that come before the profile.
pub(crate) fn warn_of_variables(global: &Global) {
    let names: Vec<&str> = [global.from.url, global.from.token]
        .into_iter()
        .filter(|from| !from.starts_with("--") && !from.is_empty())
        .collect();
    if !names.is_empty() {
        global.warn(&format!(
            "set in the environment, and used instead of the profile's: {}",
            names.join(", ")
        ));
    }
    if let Some((name, profile)) = variables::find(PROFILE) {
        global.warn(&format!(
            "{name} is set: it chooses the profile {profile:?}"
        ));
    }
}
