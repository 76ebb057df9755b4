//! Finds where evidence of a digest went: the deliveries of each attestation that has the digest or names it.

use std::collections::{BTreeMap, BTreeSet};

use api::Timestamp;
use api::workflows::Workflow;
use attestation::Digest;

use super::deliveries::{self, Filter, Wanted};
use super::receipts;
use crate::records::attestations;
use crate::store::platform::{Platform, Scope, Unreachable};
use crate::store::rows::{self, Attestation, Delivery, DigestIndex};

/// Attestations looked at for one page.
const LOOKED_AT: usize = 100;

/// A delivery of an attestation that has a digest or names it.
#[derive(Debug)]
pub struct Place {
    pub delivery: Delivery,
    pub is_in_receipt: bool,
}

/// A page of places; none when no attestation has the digest or names it.
#[derive(Debug)]
pub struct Places {
    pub places: Vec<Place>,
    pub next: Option<Cursor>,
}

/// Position of an attestation, newest first.
type Position = (Timestamp, Digest);

/// Start of a page: behind this attestation, or in it behind a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    attestation: Position,
    delivery: Option<deliveries::Cursor>,
}

impl Cursor {
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '_');
        let attestation = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let delivery = match parts.next() {
            None => None,
            Some(delivery) => Some(deliveries::Cursor::parse(delivery)?),
        };
        Some(Self {
            attestation,
            delivery,
        })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (at, hash) = &self.attestation;
        write!(formatter, "{at}_{}", hash.hex())?;
        match &self.delivery {
            None => Ok(()),
            Some(delivery) => write!(formatter, "_{delivery}"),
        }
    }
}

/// Finds the places of a digest: newest attestation first, then newest delivery first. Attestations of other workflows
/// than `may_see` admits are left out after a page was read, as in other lists: a page may be empty, and have a next.
pub async fn find(
    scope: Scope<'_, impl Platform>,
    digest: &Digest,
    may_see: impl Fn(&Workflow) -> bool,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Option<Places>, Unreachable> {
    let (attestations, mut next) = attestations(scope, digest, cursor).await?;
    let mut is_known = cursor.is_some() || next.is_some();
    let mut found = Vec::new();
    for (attestation, behind) in attestations {
        let at = (attestation.created_at, attestation.hash);
        if !may_see(&attestation.workflow) {
            continue;
        }
        is_known = true;
        let (of, any) = (Filter::Attestation(attestation.hash), Wanted::default());
        let left = limit - found.len();
        let (deliveries, more) = deliveries::list(scope, of, &any, behind.as_ref(), left).await?;
        found.extend(deliveries);
        let is_full = found.len() == limit;
        if more.is_some() || is_full {
            next = Some(Cursor {
                attestation: at,
                delivery: more,
            });
            break;
        }
    }
    if !is_known {
        return Ok(None);
    }
    let place = |delivery: Delivery| Place {
        is_in_receipt: receipts::names(&delivery, digest),
        delivery,
    };
    let places = found.into_iter().map(place).collect();
    Ok(Some(Places { places, next }))
}

/// An attestation, and the delivery of it behind which the page begins.
type Begun = (Attestation, Option<deliveries::Cursor>);

/// Loads the attestations of a page, newest first, and where the next begins when they are as many as are looked at.
async fn attestations(
    scope: Scope<'_, impl Platform>,
    digest: &Digest,
    cursor: Option<&Cursor>,
) -> Result<(Vec<Begun>, Option<Cursor>), Unreachable> {
    let (platform, organization) = scope.parts();
    let partition = DigestIndex::partition(organization, digest);
    let before = cursor.map(|cursor| {
        let (at, hash) = &cursor.attestation;
        format!("{at}/{}", hash.hex())
    });
    let prefix = DigestIndex::PREFIX;
    let (index, more) =
        rows::last_page::<DigestIndex>(platform, &partition, prefix, before.as_deref(), LOOKED_AT)
            .await?;
    let mut named: BTreeSet<Digest> = index.iter().map(|row| row.attestation).collect();
    named.extend(cursor.map(|cursor| cursor.attestation.1));
    let keys: Vec<_> = named
        .iter()
        .map(|hash| Attestation::at(organization, hash))
        .collect();
    let rows = rows::load_many::<Attestation>(platform, &keys).await?;
    let rows = rows.into_iter().map(|stored| stored.row);
    let own = attestations::find(scope, digest).await?;
    let by_position: BTreeMap<Position, Attestation> = rows
        .chain(own)
        .map(|row| ((row.created_at, row.hash), row))
        .collect();
    let last = index
        .last()
        .filter(|_| more.is_some())
        .map(|row| (row.created_at, row.attestation));
    let is_on_page = |position: &Position| match cursor {
        None => true,
        Some(cursor) if cursor.delivery.is_some() => *position <= cursor.attestation,
        Some(cursor) => *position < cursor.attestation,
    };
    let begun = by_position
        .into_iter()
        .rev()
        .filter(|(position, _)| is_on_page(position))
        .filter(|(position, _)| last.is_none_or(|last| *position >= last))
        .map(|(position, row)| {
            let cursor = cursor.filter(|cursor| cursor.attestation == position);
            (row, cursor.and_then(|cursor| cursor.delivery.clone()))
        });
    let next = last.map(|attestation| Cursor {
        attestation,
        delivery: None,
    });
    Ok((begun.collect(), next))
}
