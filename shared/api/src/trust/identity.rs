//! Rules for the identity in a certificate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::{MAX_TEXT, MAX_WILDCARDS, Problem};

/// Rule on the subject alternative name of a certificate: a workflow's URL or an e-mail address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "SignerIdentity")]
pub enum Identity {
    /// This identity.
    Exact(String),
    /// Identities that begin so.
    Prefix(String),
    /// Identities that fit as a whole: `*` is any text without a `/`, `**` any text, and all else is itself.
    Glob(String),
}

impl Identity {
    /// Refuses rules that identities of strangers could fit.
    pub fn check(&self) -> Result<(), Problem> {
        let text = self.text();
        if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control) {
            return Err(Problem::IdentityText);
        }
        match self {
            Identity::Exact(_) => Ok(()),
            Identity::Prefix(prefix) if !prefix.ends_with(['/', '@', ':']) => {
                Err(Problem::PrefixOpen)
            }
            Identity::Prefix(prefix) => names_host(prefix).ok_or(Problem::IdentityOpen),
            Identity::Glob(glob) => {
                let runs = glob
                    .split(|letter| letter != '*')
                    .filter(|run| !run.is_empty());
                if glob.contains("***") || runs.count() > MAX_WILDCARDS {
                    return Err(Problem::GlobWildcards);
                }
                let (literal, _) = glob.split_once('*').unwrap_or((glob, ""));
                names_host(literal)
                    .or_else(|| names_domain(glob))
                    .ok_or(Problem::IdentityOpen)
            }
        }
    }

    pub fn fits(&self, identity: &str) -> bool {
        identity.len() <= MAX_TEXT
            && match self {
                Identity::Exact(exact) => exact == identity,
                Identity::Prefix(prefix) => identity.starts_with(prefix.as_str()),
                Identity::Glob(glob) => glob_fits(glob, identity),
            }
    }

    fn text(&self) -> &str {
        match self {
            Identity::Exact(text) | Identity::Prefix(text) | Identity::Glob(text) => text,
        }
    }
}

/// A URL as far as the `/` after its host.
fn names_host(literal: &str) -> Option<()> {
    let (scheme, rest) = literal.split_once("://")?;
    let (host, _) = rest.split_once('/')?;
    (!scheme.is_empty() && !host.is_empty()).then_some(())
}

/// `*@example.com`: an e-mail address of any name, at one domain.
fn names_domain(glob: &str) -> Option<()> {
    let domain = glob.strip_prefix("*@")?;
    (domain.contains('.') && !domain.contains(['*', '/', '@'])).then_some(())
}

/// Walks over the text once with every place in the glob that it may have reached, so no glob makes it slow.
pub(crate) fn glob_fits(glob: &str, text: &str) -> bool {
    let places = places(glob);
    let mut reached = vec![false; places.len() + 1];
    reached[0] = true;
    skip_wildcards(&places, &mut reached);
    for letter in text.chars() {
        let mut next = vec![false; places.len() + 1];
        for (index, place) in places
            .iter()
            .enumerate()
            .filter(|(index, _)| reached[*index])
        {
            match place {
                Place::Letter(expected) if *expected == letter => next[index + 1] = true,
                Place::Segment if letter != '/' => next[index] = true,
                Place::All => next[index] = true,
                Place::Letter(_) | Place::Segment => {}
            }
        }
        skip_wildcards(&places, &mut next);
        reached = next;
    }
    reached[places.len()]
}

enum Place {
    Letter(char),
    /// `*`
    Segment,
    /// `**`
    All,
}

fn places(glob: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for letter in glob.chars() {
        match (letter, places.last()) {
            ('*', Some(Place::Segment)) => *places.last_mut().expect("it has a last") = Place::All,
            ('*', _) => places.push(Place::Segment),
            (letter, _) => places.push(Place::Letter(letter)),
        }
    }
    places
}

/// A wildcard may stand for nothing.
fn skip_wildcards(places: &[Place], reached: &mut [bool]) {
    for (index, place) in places.iter().enumerate() {
        if reached[index] && !matches!(place, Place::Letter(_)) {
            reached[index + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORKFLOW: &str =
        "https://github.com/acme/shop/.github/workflows/release.yml@refs/tags/v1";

    #[test]
    fn a_glob_fits_the_whole_text_or_not_at_all() {
        for (glob, fitting) in [
            (WORKFLOW, true),
            (
                "https://github.com/acme/*/.github/workflows/release.yml@refs/tags/*",
                true,
            ),
            ("https://github.com/acme/**", true),
            ("https://github.com/acme/*", false),
            ("https://github.com/acme/**@refs/tags/v1", true),
            ("https://github.com/acme/**@refs/tags/", false),
            ("https://github.com/acme/**@refs/heads/*", false),
            (
                "https://github.com/acme/shop/.github/workflows/*.yml@refs/*/v1",
                true,
            ),
            (
                "https://github.com/acme/shop/.github/workflows/release.yml@refs/tags/v1*",
                true,
            ),
            ("https://github.com/other/**", false),
            // No letter but `*` means anything but itself.
            (
                "https://github.com/acme/shop/?github/workflows/release.yml@refs/tags/v1",
                false,
            ),
            (
                "https://github.com/acme/shop/.github/workflows/release.yml@refs/tags/v[1]",
                false,
            ),
        ] {
            assert_eq!(glob_fits(glob, WORKFLOW), fitting, "{glob}");
        }
    }

    #[test]
    fn what_follows_a_prefix_is_free_and_what_precedes_it_is_not() {
        let prefix = Identity::Prefix("https://github.com/acme/".to_owned());
        assert!(prefix.fits(WORKFLOW));
        for stranger in [
            "https://github.com/acme-evil/shop",
            " https://github.com/acme/",
            "https://github.com/Acme/",
        ] {
            assert!(!prefix.fits(stranger), "{stranger}");
        }
        let exact = Identity::Exact(WORKFLOW.to_owned());
        assert!(exact.fits(WORKFLOW));
        assert!(!exact.fits(&WORKFLOW[1..]));
        assert!(!prefix.fits(&format!("https://github.com/acme/{}", "a".repeat(MAX_TEXT))));
    }

    #[test]
    fn a_rule_that_strangers_could_fit_is_refused() {
        let glob = |text: &str| Identity::Glob(text.to_owned()).check();
        let prefix = |text: &str| Identity::Prefix(text.to_owned()).check();
        for open in [
            "*",
            "**",
            "https://*/acme/**",
            "https://github.com*/acme",
            "*@*.com",
            "**@example.com",
            "a*",
        ] {
            assert_eq!(glob(open), Err(Problem::IdentityOpen), "{open}");
        }
        for open in ["https://", "https:///", "a@"] {
            assert_eq!(prefix(open), Err(Problem::IdentityOpen), "{open}");
        }
        for open in ["https://github.com", "https://github.com/acme"] {
            assert_eq!(prefix(open), Err(Problem::PrefixOpen), "{open}");
        }
        assert_eq!(glob("https://github.com/***"), Err(Problem::GlobWildcards));
        let many = format!("https://github.com/{}", "*a".repeat(MAX_WILDCARDS + 1));
        assert_eq!(glob(&many), Err(Problem::GlobWildcards));
        for text in ["", "a\nb", &"a".repeat(MAX_TEXT + 1)] {
            let exact = Identity::Exact(text.to_owned());
            assert_eq!(exact.check(), Err(Problem::IdentityText), "{text}");
        }
        for closed in ["*@example.com", "https://github.com/acme/**", WORKFLOW] {
            assert_eq!(glob(closed), Ok(()), "{closed}");
        }
    }

    /// The definition, in as many steps as it takes.
    fn fits_by_definition(glob: &str, text: &str) -> bool {
        let splits = || text.char_indices().map(|(end, _)| end).chain([text.len()]);
        if let Some(rest) = glob.strip_prefix("**") {
            return splits().any(|end| fits_by_definition(rest, &text[end..]));
        }
        if let Some(rest) = glob.strip_prefix('*') {
            let ends = splits().filter(|end| !text[..*end].contains('/'));
            return ends
                .into_iter()
                .any(|end| fits_by_definition(rest, &text[end..]));
        }
        let mut letters = glob.chars();
        match letters.next() {
            None => text.is_empty(),
            Some(letter) => {
                let rest = text.strip_prefix(letter);
                rest.is_some_and(|rest| fits_by_definition(letters.as_str(), rest))
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_glob_fits_what_it_fits_by_definition(glob in "[ab/*]{0,6}", text in "[ab/]{0,6}") {
            prop_assume!(!glob.contains("***"));
            prop_assert_eq!(glob_fits(&glob, &text), fits_by_definition(&glob, &text));
        }
    }
}
