//! The workflows that attestations came from: nobody creates them, so this is where their names and ids are found.

use std::collections::{BTreeMap, BTreeSet};

use api::Timestamp;
use api::workflows::{Selector, Workflow};
use futures_util::future::{try_join, try_join_all};

use crate::store::platform::{Index, Platform, Range, Scope, Unreachable};
use crate::store::rows::{self, AttachmentIndex, Attestation, Stored, WorkflowRecord};

/// A workflow, and how it stands.
#[derive(Debug, Clone)]
pub struct WorkflowActivity {
    pub seen: WorkflowRecord,
    /// When its newest attestation was accepted; none when that was longer ago than anything is kept.
    pub attested_at: Option<Timestamp>,
    /// Number of attachments that an attestation of the workflow goes to now.
    pub attachments: usize,
}

/// A page of workflows, in no order that means something, from behind `after`; and where the next one begins.
pub async fn list(
    scope: Scope<'_, impl Platform>,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<WorkflowActivity>, Option<String>), Unreachable> {
    let (platform, organization) = scope.parts();
    let partition = WorkflowRecord::partition(organization);
    let after = after.map(|after| format!("{}{after}", WorkflowRecord::PREFIX));
    let page = platform
        .list(&partition, WorkflowRecord::PREFIX, after.as_deref(), limit)
        .await?;
    let next = (page.len() == limit)
        .then(|| {
            page.last()?
                .get("sk")?
                .as_str()?
                .strip_prefix(WorkflowRecord::PREFIX)
                .map(str::to_owned)
        })
        .flatten();
    let seen = page.into_iter().map(rows::parse::<WorkflowRecord>);
    let seen: Vec<WorkflowRecord> = seen
        .map(|stored| stored.map(|Stored { row, .. }| row))
        .collect::<Result<_, _>>()?;
    let attested = try_join_all(seen.iter().map(|seen| attested_at(platform, seen)));
    let attached = attached(scope, &seen);
    let (attested, attached) = try_join(attested, attached).await?;
    let known = seen.into_iter().zip(attested).map(|(seen, attested_at)| {
        let selectors = Selector::of(&seen.workflow).into_iter();
        // Through `*` and by its own name it may be the same registration, but it is another attachment.
        let attachments = selectors
            .filter_map(|selector| attached.get(&selector.0))
            .sum();
        WorkflowActivity {
            seen,
            attested_at,
            attachments,
        }
    });
    Ok((known.collect(), next))
}

/// The names of the workflows that are wanted: the index by workflow knows names, and several IDs may have one. An
/// organization may have more workflows than there is memory for their rows.
pub(crate) async fn names(
    scope: Scope<'_, impl Platform>,
    is_wanted: impl Fn(&Workflow) -> bool,
) -> Result<BTreeSet<(String, String)>, Unreachable> {
    let (platform, organization) = scope.parts();
    let partition = WorkflowRecord::partition(organization);
    let mut names = BTreeSet::new();
    let visit = |seen: Stored<WorkflowRecord>| {
        let workflow = seen.row.workflow;
        if is_wanted(&workflow) {
            names.insert((workflow.project, workflow.name));
        }
    };
    rows::each(platform, &partition, WorkflowRecord::PREFIX, None, visit).await?;
    Ok(names)
}

/// Counts the attachments of each selector that fits one of these workflows. `*` and `project/*` fit many of them, and
/// are counted once.
async fn attached(
    scope: Scope<'_, impl Platform>,
    seen: &[WorkflowRecord],
) -> Result<BTreeMap<String, usize>, Unreachable> {
    let (platform, organization) = scope.parts();
    let selectors: BTreeSet<String> = seen
        .iter()
        .flat_map(|seen| Selector::of(&seen.workflow))
        .map(|selector| selector.0)
        .collect();
    let counts = try_join_all(selectors.into_iter().map(|selector| async move {
        let partition = AttachmentIndex::of_workflow(organization, &Selector(selector.clone()));
        let links =
            rows::load_all::<AttachmentIndex>(platform, &partition, AttachmentIndex::PREFIX)
                .await?;
        Ok::<_, Unreachable>((selector, links.len()))
    }));
    Ok(counts.await?.into_iter().collect())
}

/// Maximum number of workflows to search for one. With that many, [`doubt`] reports none as missing.
const LOOKED_THROUGH: usize = 5_000;

/// Minimum similarity of two names, on a scale to 1, for suggesting one for the other.
const ALIKE: f64 = 0.8;

/// The doubt about an attachment to a workflow that no attestation came from yet, with the nearest that there is: a
/// name that was mistyped is right in every other respect, and nothing would ever be delivered.
pub async fn doubt(
    scope: Scope<'_, impl Platform>,
    selector: &Selector,
) -> Result<Option<String>, Unreachable> {
    let (platform, organization) = scope.parts();
    if selector.0 == "*" {
        return Ok(None);
    }
    let partition = WorkflowRecord::partition(organization);
    let found = platform
        .list(&partition, WorkflowRecord::PREFIX, None, LOOKED_THROUGH)
        .await?;
    if found.len() >= LOOKED_THROUGH {
        return Ok(None);
    }
    let mut known = BTreeSet::new();
    for item in found {
        let Stored { row, .. } = rows::parse::<WorkflowRecord>(item)?;
        known.extend(Selector::of(&row.workflow).into_iter().map(|one| one.0));
    }
    if known.contains(&selector.0) {
        return Ok(None);
    }
    let nearest = nearest(&selector.0, &known);
    let nearest =
        nearest.map(|name| format!("; did you mean {}?", attestation::text::visible(name)));
    Ok(Some(format!(
        "no attestation of {} has been accepted yet{}",
        selector.0,
        nearest.unwrap_or_default()
    )))
}

/// The most similar of those that name as much: a project, or a workflow.
fn nearest<'a>(wanted: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let is_project = |name: &str| name.ends_with("/*");
    // Names from outside may be long, and comparing takes the product of their lengths.
    let letters = |name: &str| name.to_lowercase().chars().take(128).collect::<String>();
    let alike = |name: &str| strsim::jaro_winkler(&letters(wanted), &letters(name));
    let known = known
        .iter()
        .map(String::as_str)
        .filter(|name| *name != "*" && is_project(name) == is_project(wanted));
    known
        .map(|name| (alike(name), name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// Number of newest attestations to look at under a workflow's name: workflows with other IDs may have the same name.
const NEWEST: usize = 10;

async fn attested_at(
    platform: &impl Platform,
    seen: &WorkflowRecord,
) -> Result<Option<Timestamp>, Unreachable> {
    let hash = Attestation::workflow_hash(&seen.organization, &seen.workflow);
    let range = |limit| Range {
        index: Index::ByWorkflow,
        hash: &hash,
        until: rows::LAST,
        newest_first: true,
        limit,
    };
    for limit in [1, NEWEST] {
        let keys = platform.range(range(limit)).await?;
        let found = rows::load_many::<Attestation>(platform, &keys).await?;
        let own = found
            .into_iter()
            .filter(|stored| stored.row.workflow.id == seen.workflow.id);
        let newest = own.map(|stored| stored.row.created_at).max();
        if newest.is_some() || keys.len() < limit {
            return Ok(newest);
        }
    }
    Ok(None)
}
