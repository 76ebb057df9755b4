//! Issuers: CI systems whose JWTs are exchanged for tokens, by the rules of the organization.

use api::IssuerId;
use api::inputs::Fault;
use api::issuers::{ISSUERS_MOST, NewIssuer, Rule};
use api::names::is_label;
use tracing::warn;

use crate::config::keys;
use crate::records::audit_log::{Act, Subject};
use crate::store::ids;
use crate::store::platform::{Platform, Scope, UnlessConflict as _, Unreachable};
use crate::store::rows::{self, Issuer, IssuerKeys, Stored};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("some inputs are not right")]
    Faults(Vec<Fault>),
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    #[error("the issuer {name:?} has this URL already: delete that first")]
    Exists { name: String },
    #[error("there is no issuer {0:?}")]
    NotFound(String),
    #[error("somebody else changed it at the same time; try again")]
    Conflict,
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

/// All issuers of an organization: they are few.
pub(crate) async fn all(
    scope: Scope<'_, impl Platform>,
) -> Result<Vec<Stored<Issuer>>, Unreachable> {
    let (platform, organization) = scope.parts();
    rows::load_all::<Issuer>(platform, &Issuer::partition(organization), "").await
}

/// Keeps an issuer, and has its keys fetched. `id` where it follows from the request.
pub async fn create(
    scope: Scope<'_, impl Platform>,
    wanted: NewIssuer,
    id: Option<IssuerId>,
    act: Act<'_>,
) -> Result<Issuer, Error> {
    let (platform, organization) = scope.parts();
    let faults = wanted.faults();
    if !faults.is_empty() {
        return Err(Error::Faults(faults));
    }
    let others = all(scope).await?;
    for Stored { row, .. } in &others {
        if id.as_ref() == Some(&row.id) {
            // The same request, again.
            return Ok(row.clone());
        }
        if row.name == wanted.name {
            return Err(Error::NameTaken(wanted.name));
        }
        if row.issuer == wanted.issuer {
            let name = row.name.clone();
            return Err(Error::Exists { name });
        }
    }
    if others.len() >= ISSUERS_MOST {
        return Err(Error::Faults(vec![Fault {
            field: "issuer".into(),
            detail: format!("is one too many: an organization has at most {ISSUERS_MOST}"),
        }]));
    }
    let restricted = |rule: Rule| {
        let workflows = api::tokens::workflows(&rule.workflows)?;
        Ok(Rule { workflows, ..rule })
    };
    let rules = wanted.rules.into_iter().map(restricted);
    let rules: Result<Vec<Rule>, String> = rules.collect();
    let rules = rules.map_err(|detail| {
        Error::Faults(vec![Fault {
            field: "rules".into(),
            detail,
        }])
    })?;
    let row = Issuer {
        organization: organization.to_owned(),
        name: wanted.name,
        id: id.unwrap_or_else(|| ids::random(platform)),
        issuer: wanted.issuer,
        audience: wanted.audience,
        jwks_url: wanted.jwks_url,
        rules,
        created_by: act.actor.name.clone(),
        created_at: platform.now(),
    };
    let keys = IssuerKeys {
        organization: organization.to_owned(),
        id: row.id.clone(),
        issuer: row.issuer.clone(),
        jwks_url: row.jwks_url.clone(),
        keys: Vec::new(),
        fetched_at: None,
        asked_at: platform.now(),
        tried_at: None,
        fault: None,
    };
    let subject = Subject::new(&row.name, row.id.as_str());
    let writes = vec![
        rows::insert(platform, &row).0,
        rows::insert(platform, &keys).0,
        act.entry(scope, subject, told(&row)),
    ];
    if !platform.write(writes).await.unless_conflict()? {
        return Err(Error::Conflict);
    }
    if let Err(unreachable) = keys::send(scope, &row.id).await {
        // The first exchange asks again.
        warn!(error = %unreachable, "The keys of a new issuer were not asked for");
    }
    Ok(row)
}

/// Describes an issuer for the audit log: all that it permits.
fn told(row: &Issuer) -> String {
    let rules = row.rules.iter().map(|rule| {
        let claims = rule.claims.iter();
        let claims: Vec<String> = claims.map(|(name, one)| format!("{name}={one}")).collect();
        let workflows: Vec<&str> = rule.workflows.iter().map(|one| one.0.as_str()).collect();
        let restriction = match workflows.is_empty() {
            true => String::new(),
            false => format!(" for workflows {}", workflows.join(", ")),
        };
        format!("{} as {}{restriction}", claims.join(" "), rule.role)
    });
    let rules: Vec<String> = rules.collect();
    let keys = row.jwks_url.as_deref().unwrap_or("its configuration");
    let (issuer, audience) = (&row.issuer, &row.audience);
    format!(
        "{issuer}, keys from {keys}, for {audience}: {}",
        rules.join("; ")
    )
}

/// A page of issuers in the order of their names, from behind `after`, and where the next one begins.
pub async fn list(
    scope: Scope<'_, impl Platform>,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Issuer>, Option<String>), Unreachable> {
    let (platform, organization) = scope.parts();
    rows::first_page(platform, &Issuer::partition(organization), after, limit).await
}

/// An issuer by its name or its id.
pub async fn find(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
) -> Result<Stored<Issuer>, Error> {
    let (platform, organization) = scope.parts();
    if is_label(name_or_id) {
        let at = Issuer::at(organization, name_or_id);
        if let Some(stored) = rows::load::<Issuer>(platform, &at).await? {
            return Ok(stored);
        }
    }
    let mut all = all(scope).await?.into_iter();
    let found = all.find(|stored| stored.row.id == *name_or_id);
    found.ok_or_else(|| Error::NotFound(name_or_id.to_owned()))
}

/// Deletes an issuer. Tokens that its JWTs were exchanged for work until they end.
pub async fn delete(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
    act: Act<'_>,
) -> Result<Issuer, Error> {
    let (platform, organization) = scope.parts();
    let stored = find(scope, name_or_id).await?;
    let at = IssuerKeys::at(organization, &stored.row.id);
    let keys = rows::load::<IssuerKeys>(platform, &at).await?;
    let subject = Subject::new(&stored.row.name, stored.row.id.as_str());
    let mut writes = vec![
        stored.delete(),
        act.entry(scope, subject, told(&stored.row)),
    ];
    writes.extend(keys.map(|keys| keys.delete()));
    match platform.write(writes).await.unless_conflict()? {
        true => Ok(stored.row),
        false => Err(Error::Conflict),
    }
}
