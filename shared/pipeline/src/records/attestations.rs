//! Looks at attestations that were accepted: those of a workflow or of all, newest first.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use api::Timestamp;
use api::trust::Outcome;
use api::workflows::{Selector, Workflow};
use attestation::Digest;
use futures_util::future::{try_join, try_join_all};

use crate::records::workflows;
use crate::store::platform::{Index, Platform, Scope, Unreachable};
use crate::store::rows::{self, Attestation, DigestAlias};

/// Filter for attestations.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// All when none.
    pub workflow: Option<Workflow>,
    /// Of workflows that this matches.
    pub selector: Option<Selector>,
    /// Accepted at this time or later.
    pub since: Option<Timestamp>,
    /// Accepted at this time or earlier.
    pub until: Option<Timestamp>,
    /// With this verdict on their signatures; [`Outcome::Off`] means that they were not judged.
    pub verdict: Option<Outcome>,
}

/// Maximum number of workflows that a list is merged from: each is asked for its newest, all at once.
pub const WORKFLOWS: usize = 5_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a list is merged from at most {WORKFLOWS} workflows, and these are more: name one")]
    TooManyWorkflows,
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

/// Attestations newest first, about `limit` of them, and until when those of the next page were accepted.
///
/// Entries of one moment have no order in the index, so no page ends inside a moment: it has some more instead.
/// There is an index of each workflow's attestations and none of all, which would be one place that everybody
/// writes to. So the newest of each workflow is asked for, and only as many workflows are read on as can have
/// something on this page.
pub async fn list(
    scope: Scope<'_, impl Platform>,
    of: &Filter,
    limit: usize,
) -> Result<(Vec<Attestation>, Option<Timestamp>), Error> {
    let (platform, organization) = scope.parts();
    let limit = limit.max(1);
    let hashes = match &of.workflow {
        Some(workflow) => BTreeSet::from([Attestation::workflow_hash(organization, workflow)]),
        None => hashes(scope, of.selector.as_ref()).await?,
    };
    if hashes.len() > WORKFLOWS {
        return Err(Error::TooManyWorkflows);
    }
    let peeks = hashes
        .into_iter()
        .map(|hash| run(platform, hash, of.until, 1));
    let mut runs: Vec<Run> = try_join_all(peeks).await?;
    runs.retain(|run| !run.found.is_empty());
    runs.sort_by_key(|run| Reverse(run.newest()));
    // Each of the first has something newer than all that the others have; so many fill the page.
    let last = runs.get(limit - 1).map(Run::newest);
    let others = runs.partition_point(|run| last.is_none_or(|last| run.newest() >= last));
    let others = runs.split_off(others);
    let read_on = runs.into_iter().map(async |peek| match peek.whole_from {
        Some(_) => run(platform, peek.hash, of.until, limit).await,
        None => Ok(peek),
    });
    let runs = try_join_all(read_on).await?;
    let floors = runs.iter().filter_map(|run| run.whole_from);
    let floor = floors
        .chain(others.first().map(|run| after(run.newest())))
        .max();
    let mut found: Vec<Attestation> = runs.into_iter().flat_map(|run| run.found).collect();
    found.retain(|one| floor.is_none_or(|floor| one.created_at >= floor));
    found.sort_by_key(|one| Reverse((one.created_at, one.hash)));
    let mut next = floor.map(before);
    if let Some(last) = found.get(limit - 1).map(|one| one.created_at) {
        let whole = found.len();
        found.retain(|one| one.created_at >= last);
        if found.len() < whole {
            next = Some(before(last));
        }
    }
    let since = of.since.unwrap_or(Timestamp::from_millis(0));
    found.retain(|one| one.created_at >= since);
    let is_for = |one: &Attestation| {
        of.selector
            .as_ref()
            .is_none_or(|all| all.is_for(&one.workflow))
    };
    found.retain(is_for);
    let outcome = |one: &Attestation| one.verdict.as_ref().map_or(Outcome::Off, |v| v.outcome);
    found.retain(|one| of.verdict.is_none_or(|wanted| outcome(one) == wanted));
    Ok((found, next.filter(|next| *next >= since)))
}

/// The newest attestations of a workflow.
struct Run {
    hash: String,
    found: Vec<Attestation>,
    /// All that were accepted at this time or later are there; none when all are.
    whole_from: Option<Timestamp>,
}

impl Run {
    fn newest(&self) -> Timestamp {
        let moments = self.found.iter().map(|one| one.created_at);
        moments.max().unwrap_or(Timestamp::from_millis(0))
    }
}

/// At least `least` attestations of a workflow, or all.
async fn run(
    platform: &impl Platform,
    hash: String,
    until: Option<Timestamp>,
    least: usize,
) -> Result<Run, Unreachable> {
    let of = (Index::ByWorkflow, hash.as_str());
    let created_at = |row: &Attestation| row.created_at;
    let newest = rows::newest(platform, of, until, least, created_at, |_| true).await?;
    let found = newest.rows.into_iter().map(|stored| stored.row).collect();
    Ok(Run {
        found,
        whole_from: newest.cut_at.map(after),
        hash,
    })
}

/// Loads the hash keys of these workflows' attestations in the index: several workflow IDs may share one name.
async fn hashes(
    scope: Scope<'_, impl Platform>,
    of: Option<&Selector>,
) -> Result<BTreeSet<String>, Unreachable> {
    let organization = scope.organization;
    let is_wanted = |workflow: &Workflow| of.is_none_or(|selector| selector.is_for(workflow));
    let names = workflows::names(scope, is_wanted).await?;
    let hash = |(project, name): (String, String)| {
        let workflow = Workflow {
            project,
            name,
            ..Workflow::default()
        };
        Attestation::workflow_hash(organization, &workflow)
    };
    Ok(names.into_iter().map(hash).collect())
}

fn after(moment: Timestamp) -> Timestamp {
    Timestamp::from_millis(moment.millis() + 1)
}

fn before(moment: Timestamp) -> Timestamp {
    Timestamp::from_millis(moment.millis().saturating_sub(1))
}

/// The attestation with this digest, of its envelope or of bytes as received.
pub async fn find(
    scope: Scope<'_, impl Platform>,
    digest: &Digest,
) -> Result<Option<Attestation>, Unreachable> {
    let (platform, organization) = scope.parts();
    let (hash, received) = (
        Attestation::at(organization, digest),
        DigestAlias::at(organization, digest),
    );
    let by_hash = rows::load::<Attestation>(platform, &hash);
    let by_bytes = rows::load::<DigestAlias>(platform, &received);
    match try_join(by_hash, by_bytes).await? {
        (Some(stored), _) => Ok(Some(stored.row)),
        (None, Some(pointer)) => {
            let key = Attestation::at(organization, &pointer.row.hash);
            Ok(rows::load(platform, &key).await?.map(|stored| stored.row))
        }
        (None, None) => Ok(None),
    }
}
