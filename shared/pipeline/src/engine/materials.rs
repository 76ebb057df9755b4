//! Materials that an attestation promises: those that are missing, and those of them that a delivery waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::AttachmentId;
use api::trust::Verdict;
use attestation::Digest;
use futures_util::future::{try_join, try_join_all};
use integrations::Pushed;

use crate::ledger::schedule;
use crate::store::platform::{Platform, Scope, Unreachable};
use crate::store::rows::{self, Plan, Stored};

/// Digests of materials that an attestation names and does not bring along.
pub(crate) fn promised(parsed: &attestation::Attestation) -> BTreeSet<Digest> {
    let materials = parsed.materials().iter();
    materials
        .filter(|material| material.uploaded_to_cas && material.content.is_none())
        .filter_map(|material| material.digest)
        .collect()
}

/// Returns the digests that are not stored, and keeps the stored ones for a whole retention.
pub(crate) async fn missing(
    scope: Scope<'_, impl Platform>,
    promised: impl IntoIterator<Item = &Digest>,
) -> Result<Vec<Digest>, Unreachable> {
    let (platform, organization) = scope.parts();
    let sizes = try_join_all(promised.into_iter().map(|digest| async move {
        Ok((*digest, platform.keep_object(organization, digest).await?))
    }))
    .await?;
    Ok(sizes
        .into_iter()
        .filter(|(_, size)| size.is_none())
        .map(|(digest, _)| digest)
        .collect())
}

/// Returns the missing materials that a delivery of the plan waits for now: its attachment wants them, its wait has not
/// timed out, and it is not final.
pub(crate) async fn awaited(
    platform: &impl Platform,
    parsed: &attestation::Attestation,
    verdict: Option<&Verdict>,
    plan: &Plan,
    missing: &[Digest],
) -> Result<Vec<Digest>, Unreachable> {
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let organization = &plan.organization;
    let attachments: Vec<_> = plan
        .planned
        .iter()
        .map(|planned| rows::Attachment::at(organization, &planned.attachment))
        .collect();
    let deliveries: Vec<_> = plan
        .deliveries()
        .map(|(id, _)| rows::Delivery::at(organization, &id))
        .collect();
    let (attachments, deliveries) = try_join(
        rows::load_many::<rows::Attachment>(platform, &attachments),
        rows::load_many::<rows::Delivery>(platform, &deliveries),
    )
    .await?;
    let open: BTreeMap<&AttachmentId, &rows::Delivery> = deliveries
        .iter()
        .filter(|delivery| !delivery.row.state.is_final())
        .map(|delivery| (&delivery.row.attachment, &delivery.row))
        .collect();
    let now = platform.now();
    let mut awaited = BTreeSet::new();
    for Stored { row, .. } in &attachments {
        let patience = row
            .wait_secs
            .map_or(schedule::PATIENCE, Duration::from_secs);
        let Some(delivery) = open.get(&row.id) else {
            continue;
        };
        let is_waiting = row.deleted_at.is_none() && now < delivery.created_at.plus(patience);
        if is_waiting {
            let pushed = Pushed {
                attestation: parsed,
                workflow: &delivery.workflow,
                verdict,
                console: None,
            };
            awaited.extend(integrations::awaited(&row.integration, &row.config, pushed));
        }
    }
    let missing = missing.iter().filter(|digest| awaited.contains(*digest));
    Ok(missing.copied().collect())
}
