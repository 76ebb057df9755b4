//! Trust policies: whose signatures attestations of a workflow have to have. They are judged by `verify`, on accepting.

use api::TrustPolicyId;
use api::inputs::Fault;
use api::names::is_label;
use api::trust::{Mode, Policy, Signer};
use api::workflows::{Match, Selector, Workflow};
use attestation::Digest;
use verify::Judge;

use crate::config::quotas::{self, Exceeded};
use crate::config::{self, Precondition};
use crate::records::audit_log::{Act, Subject};
use crate::records::notices;
use crate::store::ids;
use crate::store::meter::Quota;
use crate::store::platform::{Platform, Scope, UnlessConflict as _, Unreachable, Write};
use crate::store::rows::{self, Event, Row as _, Stored, TrustPolicy, TrustPolicyLink};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("some inputs are not right")]
    Faults(Vec<Fault>),
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    #[error("{workflow} has a trust policy already, {name:?}: delete that first")]
    Exists { workflow: String, name: String },
    #[error("there is no trust policy {0:?}")]
    NotFound(String),
    #[error(transparent)]
    Exceeded(Exceeded),
    /// It is not what whoever wants to change it has seen.
    #[error("it was changed meanwhile: read it again")]
    Changed,
    #[error("somebody else changed it at the same time; try again")]
    Conflict,
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

impl From<quotas::Error> for Error {
    fn from(error: quotas::Error) -> Self {
        match error {
            quotas::Error::Exceeded(exceeded) => Self::Exceeded(exceeded),
            quotas::Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

/// Trust policy that an operator requests.
#[derive(Debug)]
pub struct NewTrustPolicy {
    pub name: String,
    pub workflow: Selector,
    pub policy: Policy,
    /// Its id, where that follows from the request. A new one when none.
    pub id: Option<TrustPolicyId>,
}

/// A policy's judge, or the first fault of the policy, which names its signer.
pub fn judge(policy: &Policy) -> Result<Judge, Fault> {
    Judge::new(policy, "").map_err(|wrong| {
        let field = match wrong {
            api::trust::Fault::ThresholdZero | api::trust::Fault::ThresholdOutOfReach { .. } => {
                "threshold"
            }
            _ => "signers",
        };
        Fault {
            field: field.into(),
            detail: wrong.to_string(),
        }
    })
}

/// Keeps a policy where accepting finds it.
pub async fn create(
    scope: Scope<'_, impl Platform>,
    wanted: NewTrustPolicy,
    act: Act<'_>,
) -> Result<Stored<TrustPolicy>, Error> {
    let (platform, organization) = scope.parts();
    let mut faults: Vec<Fault> = api::names::name_fault(&wanted.name).into_iter().collect();
    faults.extend(judge(&wanted.policy).err());
    if !faults.is_empty() {
        return Err(Error::Faults(faults));
    }
    let at = TrustPolicy::at(organization, &wanted.name);
    match rows::load::<TrustPolicy>(platform, &at).await? {
        // The same request, again.
        Some(stored) if wanted.id.as_ref() == Some(&stored.row.id) => return Ok(stored),
        Some(_) => return Err(Error::NameTaken(wanted.name)),
        None => {}
    }
    quotas::room(scope, Quota::Policies).await?;
    let row = TrustPolicy {
        organization: organization.to_owned(),
        name: wanted.name,
        id: wanted.id.unwrap_or_else(|| ids::random(platform)),
        workflow: wanted.workflow,
        policy: wanted.policy,
        created_by: act.actor.name.clone(),
        created_at: platform.now(),
    };
    let link = row.link();
    if let Some(other) = rows::load::<TrustPolicyLink>(platform, &link.key()).await? {
        return Err(Error::Exists {
            workflow: row.workflow.0,
            name: other.row.policy,
        });
    }
    let (write, version) = rows::insert(platform, &row);
    let subject = Subject::new(&row.name, row.id.as_str());
    let mut writes = vec![
        write,
        rows::insert(platform, &link).0,
        act.entry(scope, subject, told(&row)),
    ];
    writes.extend(certificates_end(scope, &row).await?);
    match platform.write(writes).await.unless_conflict()? {
        true => Ok(Stored { row, version }),
        false => Err(Error::Conflict),
    }
}

/// Replaces what a policy says: from now on attestations are judged so. Its name and its workflows stay.
pub async fn replace(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
    policy: Policy,
    only: &Precondition,
    act: Act<'_>,
) -> Result<Stored<TrustPolicy>, Error> {
    let platform = scope.platform;
    judge(&policy).map_err(|fault| Error::Faults(vec![fault]))?;
    let mut stored = find(scope, name_or_id).await?;
    // The same request, again.
    if stored.row.policy == policy {
        return Ok(stored);
    }
    only.allow(&stored.version.etag)
        .map_err(|_: config::Error| Error::Changed)?;
    stored.row.policy = policy;
    let subject = Subject::new(&stored.row.name, stored.row.id.as_str());
    let (write, version) = rows::put(platform, &stored.row, Some(&stored.version));
    let entry = act.entry(scope, subject, told(&stored.row));
    let mut writes = vec![write, entry];
    writes.extend(certificates_end(scope, &stored.row).await?);
    match platform.write(writes).await.unless_conflict()? {
        true => Ok(Stored { version, ..stored }),
        false => Err(Error::Conflict),
    }
}

/// The notice that a certificate of an authority which a policy trusts ends. Those of a trusted root have dates of
/// their own: older signatures are held against them for ever.
async fn certificates_end(
    scope: Scope<'_, impl Platform>,
    row: &TrustPolicy,
) -> Result<Option<Write>, Unreachable> {
    let pems = row.policy.signers.iter().flat_map(|signer| match signer {
        Signer::Chainloop {
            ca_pem,
            timestamp_pem,
            ..
        } => [Some(ca_pem.as_str()), timestamp_pem.as_deref()],
        Signer::Key { .. } | Signer::Kms { .. } | Signer::Keyless { .. } => [None, None],
    });
    notices::certificates_end(scope, (row.id.as_str(), &row.name), pems.flatten()).await
}

/// Describes a policy for the audit log.
fn told(row: &TrustPolicy) -> String {
    let Policy {
        mode,
        threshold,
        signers,
    } = &row.policy;
    let mode = match mode {
        Mode::Off => "off",
        Mode::Warn => "warn",
        Mode::Require => "require",
    };
    let names: Vec<&str> = signers.iter().map(Signer::name).collect();
    let names = names.join(", ");
    // A name says nothing of its key.
    let text = serde_json::to_vec(signers).expect("texts are JSON");
    let digest = Digest::of(&text);
    format!(
        "{mode} for {}: {threshold} of {names}, {digest}",
        row.workflow.0
    )
}

/// A page of policies in the order of their names, from behind `after`, and where the next one begins.
pub async fn list(
    scope: Scope<'_, impl Platform>,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<TrustPolicy>, Option<String>), Unreachable> {
    let (platform, organization) = scope.parts();
    let partition = TrustPolicy::partition(organization);
    rows::first_page(platform, &partition, after, limit).await
}

/// A policy by its name or its id.
pub async fn find(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
) -> Result<Stored<TrustPolicy>, Error> {
    let (platform, organization) = scope.parts();
    if is_label(name_or_id) {
        let at = TrustPolicy::at(organization, name_or_id);
        if let Some(stored) = rows::load::<TrustPolicy>(platform, &at).await? {
            return Ok(stored);
        }
    }
    let not_found = || Error::NotFound(name_or_id.to_owned());
    if uuid::Uuid::try_parse(name_or_id).is_err() {
        return Err(not_found());
    }
    // Ids are looked for seldom, and policies are few.
    let partition = TrustPolicy::partition(organization);
    let all = rows::load_all::<TrustPolicy>(platform, &partition, "").await?;
    let found = all.into_iter().find(|stored| stored.row.id == *name_or_id);
    found.ok_or_else(not_found)
}

/// Deletes a policy. What it refused stays refused, and verdicts stay as they are.
pub async fn delete(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
    only: &Precondition,
    act: Act<'_>,
) -> Result<Stored<TrustPolicy>, Error> {
    let platform = scope.platform;
    let stored = find(scope, name_or_id).await?;
    only.allow(&stored.version.etag)
        .map_err(|_: config::Error| Error::Changed)?;
    let link = rows::load::<TrustPolicyLink>(platform, &stored.row.link().key()).await?;
    let subject = Subject::new(&stored.row.name, stored.row.id.as_str());
    let mut writes = vec![
        stored.delete(),
        act.entry(scope, subject, told(&stored.row)),
    ];
    let own = link.filter(|link| link.row.id == stored.row.id);
    writes.extend(own.map(|link| link.delete()));
    let id = stored.row.id.as_str();
    writes.extend(notices::forget(scope, Event::CertificateExpiring, id).await?);
    match platform.write(writes).await.unless_conflict()? {
        true => Ok(stored),
        false => Err(Error::Conflict),
    }
}

/// The links of a workflow's policies, most specific first, with by what of the workflow each is for it.
pub(crate) async fn links(
    scope: Scope<'_, impl Platform>,
    workflow: &Workflow,
) -> Result<Vec<(Match, TrustPolicyLink)>, Unreachable> {
    let (platform, organization) = scope.parts();
    let selectors = Selector::of(workflow);
    let keys: Vec<_> = selectors
        .iter()
        .map(|selector| TrustPolicyLink::at(organization, selector))
        .collect();
    let links = rows::load_many::<TrustPolicyLink>(platform, &keys).await?;
    let matched = links.into_iter().map(|stored| stored.row);
    let matched = matched.filter_map(|link| Some((link.workflow.matched(workflow)?, link)));
    let mut links: Vec<_> = matched.collect();
    links.sort_by_key(|(matched, _)| *matched);
    Ok(links)
}

/// The policy of the first of these links that has one. A policy that was deleted since its link was read is none.
pub(crate) async fn of_links(
    platform: &impl Platform,
    links: impl IntoIterator<Item = TrustPolicyLink>,
) -> Result<Option<Stored<TrustPolicy>>, Unreachable> {
    for link in links {
        let at = TrustPolicy::at(&link.organization, &link.policy);
        let stored = rows::load::<TrustPolicy>(platform, &at).await?;
        if let Some(stored) = stored.filter(|stored| stored.row.id == link.id) {
            return Ok(Some(stored));
        }
    }
    Ok(None)
}
