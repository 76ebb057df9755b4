//! Waits for the deliveries of attestations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use api::attestations::Accepted;
use api::deliveries::Delivery;
use attestation::Digest;

use crate::client::Client;
use crate::delivery::wait::{is_settled, until_settled};
use crate::global::Global;

/// More than an attestation can have.
const MOST: usize = 10_000;

/// Returns the planned deliveries once they are final or held, or the timeout ends.
pub(crate) fn until_final(
    global: &Global,
    client: &Client,
    accepted: &[&Accepted],
    timeout: Duration,
) -> anyhow::Result<Vec<Delivery>> {
    let mut planned: BTreeMap<Digest, BTreeSet<&str>> = BTreeMap::new();
    for one in accepted {
        let ids = one.deliveries.iter().map(|planned| planned.id.as_str());
        planned.entry(one.attestation).or_default().extend(ids);
    }
    planned.retain(|_, ids| !ids.is_empty());
    let count = planned.values().map(BTreeSet::len).sum();
    let mut settled: BTreeMap<Digest, Vec<Delivery>> = BTreeMap::new();
    until_settled(global, count, timeout, || {
        let mut open = Vec::new();
        for (digest, ids) in &planned {
            if settled.contains_key(digest) {
                continue;
            }
            let digest_text = digest.to_string();
            let query = [("attestation", Some(digest_text.as_str()))];
            let (mut found, _): (Vec<Delivery>, _) = client
                .list(&["deliveries"], &query, MOST)
                .with_context(|| format!("failed to list the deliveries of {digest}"))?;
            found.retain(|delivery| ids.contains(delivery.id.as_str()));
            if found.len() == ids.len() && found.iter().all(is_settled) {
                settled.insert(*digest, found);
            } else {
                open.extend(found);
            }
        }
        Ok(settled.values().flatten().cloned().chain(open).collect())
    })
}
