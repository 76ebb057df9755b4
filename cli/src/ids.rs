//! IDs and digests as they are typed: whole, or their beginnings.

use std::collections::BTreeSet;
use std::str::FromStr;

use anyhow::Context as _;
use api::attestations::Attestation;
use attestation::Digest;
use serde::Deserialize;

use crate::client::Client;
use crate::failure::Failure;

/// Characters of an ID that a terminal shows, and the fewest by which one is found.
pub(crate) const SHORT_ID: usize = 8;
/// Characters of a digest that a terminal shows.
pub(crate) const SHORT_DIGEST: usize = 12;
/// Newest of a list among which beginnings are looked for.
const NEWEST: usize = 1_000;

/// Something in a list.
#[derive(Deserialize)]
struct Item {
    id: String,
    #[serde(default)]
    name: String,
}

/// Returns the whole ID of something in the list at `path`. A name stays as it is, and so does what may be one.
pub(crate) fn whole(client: &Client, path: &str, text: &str) -> anyhow::Result<String> {
    if !is_beginning(text, 36) {
        return Ok(text.to_owned());
    }
    let (items, more) = client
        .list::<Item>(&[path], &[], NEWEST)
        .with_context(|| format!("failed to find what {text:?} begins"))?;
    let have_names = items.iter().any(|item| !item.name.is_empty());
    let is_name = items.iter().any(|item| item.name == text);
    let ids = items.into_iter().map(|item| item.id);
    let found: BTreeSet<_> = ids.filter(|id| begins(id, text)).collect();
    match is_name || have_names && found.is_empty() {
        true => Ok(text.to_owned()),
        false => one(text, found, more),
    }
}

/// Refuses the beginning of an ID, for what cannot be undone.
pub(crate) fn only_whole(client: &Client, path: &str, text: &str) -> anyhow::Result<()> {
    match whole(client, path, text)? {
        id if id == text => Ok(()),
        id => Err(Failure::usage(format!("{text:?} is not a whole ID"))
            .faults(vec![id])
            .advice("Deleting takes whole IDs.")
            .into()),
    }
}

/// Says that the ID of an integration was given in place of a registration.
pub(crate) fn instead(kind: &str) -> String {
    format!("no registration has the name {kind:?}: showing all of the integration, as --kind does")
}

/// Reports whether this is the ID of an integration.
pub(crate) fn is_integration(client: &Client, id: &str) -> anyhow::Result<bool> {
    let (all, _) = client.list::<Item>(&["integrations"], &[], NEWEST)?;
    Ok(all.iter().any(|one| one.id == id))
}

/// A digest as it is typed.
#[derive(Debug, Clone)]
pub(crate) enum Given {
    Whole(Digest),
    /// Hexadecimal digits.
    Beginning(String),
}

impl FromStr for Given {
    type Err = <Digest as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        match is_beginning(hex, 64) && !hex.contains('-') {
            true => Ok(Self::Beginning(hex.to_lowercase())),
            false => text.parse().map(Self::Whole),
        }
    }
}

impl Given {
    /// Returns the whole digest, of the attestation that has one that begins so.
    pub(crate) fn whole(&self, client: &Client) -> anyhow::Result<Digest> {
        let beginning = match self {
            Self::Whole(digest) => return Ok(*digest),
            Self::Beginning(beginning) => beginning,
        };
        let (found, more) = client
            .list::<Attestation>(&["attestations"], &[], NEWEST)
            .with_context(|| format!("failed to find what {beginning:?} begins"))?;
        let of = found.iter().filter_map(|one| {
            let own = [one.attestation, one.received];
            own.into_iter().find(|one| begins(&one.hex(), beginning))
        });
        let digests = of.map(|digest| digest.to_string()).collect();
        let digest = sure(beginning, digests, more)?;
        digest.parse().context("invalid response")
    }
}

fn is_beginning(text: &str, whole: usize) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    (SHORT_ID..whole).contains(&text.len()) && text.bytes().all(is_digit)
}

fn begins(id: &str, text: &str) -> bool {
    id.get(..text.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(text))
}

/// As [`one`], of digests. Whoever pushes can find bytes whose digest begins like that of another attestation, which may be
/// older than those that were looked at.
fn sure(text: &str, found: BTreeSet<String>, more: bool) -> anyhow::Result<String> {
    let digest = one(text, found, more)?;
    match more {
        false => Ok(digest),
        true => Err(
            Failure::usage(format!("{text:?} may begin an older digest too"))
                .faults(vec![digest])
                .advice(format!(
                    "Only the newest {NEWEST} are looked through: pass the whole of it."
                ))
                .into(),
        ),
    }
}

fn one(text: &str, mut found: BTreeSet<String>, more: bool) -> anyhow::Result<String> {
    match (found.pop_first(), found.is_empty()) {
        (Some(found), true) => Ok(found),
        (Some(first), false) => {
            let candidates = [first].into_iter().chain(found).collect();
            Err(Failure::usage(format!("{text:?} is ambiguous"))
                .faults(candidates)
                .advice("Pass more of it.")
                .into())
        }
        (None, _) => {
            let failure = Failure::new(format!("nothing begins with {text:?}"));
            Err(match more {
                true => failure.advice(format!(
                    "Only the newest {NEWEST} are looked through: pass the whole of it."
                )),
                false => failure,
            }
            .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_hexadecimal_digits_and_more_are_a_beginning() {
        let id = "6f0c1f0e-0000-8000-8000-000000000001";
        assert!(is_beginning("6f0c1f0e", 36) && is_beginning(&id[..35], 36));
        for other in [id, "6f0c1f0", "prod-images", "d-1", ""] {
            assert!(!is_beginning(other, 36), "{other}");
        }
    }

    #[test]
    fn a_digest_is_whole_or_a_beginning_with_or_without_its_algorithm() {
        for text in ["1fe71587", "sha256:1FE71587"] {
            let given: Given = text.parse().unwrap();
            assert!(matches!(given, Given::Beginning(hex) if hex == "1fe71587"));
        }
        let whole = Digest::of(b"");
        for text in [whole.to_string(), whole.hex()] {
            assert!(matches!(text.parse().unwrap(), Given::Whole(digest) if digest == whole));
        }
        for text in ["", "sha256:1fe7158", "1fe7-1587", "shop"] {
            assert!(text.parse::<Given>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_ambiguous_beginning_names_its_candidates() {
        let both = ["ab1", "ab2"].map(str::to_owned).into();
        let error = one("ab", both, false).unwrap_err();
        assert_eq!(
            crate::failure::text(&error),
            "\"ab\" is ambiguous\n    ab1\n    ab2\n    Pass more of it."
        );
        let none = one("ab", BTreeSet::new(), true).unwrap_err();
        assert!(crate::failure::text(&none).contains("newest 1000"));
    }

    #[test]
    fn a_digest_is_found_by_its_beginning_only_where_all_were_looked_at() {
        let found = || BTreeSet::from(["sha256:1fe7".to_owned()]);
        assert_eq!(sure("1fe7", found(), false).unwrap(), "sha256:1fe7");
        let error = sure("1fe7", found(), true).unwrap_err();
        let told = crate::failure::text(&error);
        assert!(
            told.contains("older") && told.contains("sha256:1fe7"),
            "{told}"
        );
    }
}
