//! Intakes: URLs of an organization's own, each with a token in it, to which a Chainloop control plane posts what
//! it has accepted, because it can send no header.
//!
//! Who knows such a URL may push, and nothing else. Its token is shown once and kept as a hash. An intake that is
//! given the address of Chainloop's artifacts and a token for them also has materials [fetched](crate::engine::fetch).

use std::time::Duration;

use api::inputs::Fault;
use api::intakes::CONDITIONS_MOST;
use api::{IntakeId, Network, Timestamp};
use integrations::{Authorities, SecretText, cas};
use serde::{Deserialize, Serialize};

use crate::config::quotas::{self, Exceeded};
use crate::config::{rotation, tokens};
use crate::records::audit_log::{Act, Subject};
use crate::records::notices::{self, News};
use crate::store::ids;
use crate::store::meter::Quota;
use crate::store::platform::{
    Platform, Scope, SecretValue, UnlessConflict as _, Unreachable, Write, WriteError,
};
use crate::store::rows::{
    self, CONFLICTS, Conditions, Event, Intake, IntakeToken, IntakeUse, Previous, Stored,
};

/// Prefix of an intake token, so that scanners for leaked secrets find it and nobody takes it for an API token.
pub const PREFIX: &str = "clin_";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("some inputs are not right")]
    Faults(Vec<Fault>),
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    #[error("there is no intake {0:?}")]
    NotFound(String),
    #[error(
        "the URL before works until {0}: rotate after that, or with an overlap of 0, which ends all older URLs at once"
    )]
    Overlapping(Timestamp),
    #[error("somebody else changed it at the same time; try again")]
    Conflict,
    #[error(transparent)]
    Exceeded(Exceeded),
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

/// Intake that an operator requests.
#[derive(Debug, Default)]
pub struct NewIntake {
    pub name: String,
    pub cas: Option<Cas>,
    /// Lifetime of its URL; without an end when not given.
    pub valid_for: Option<Duration>,
    /// Ranges of addresses, as [`Network`] reads them.
    pub allow_from: Vec<String>,
    /// Workflows, as [`api::workflows::selector`] reads them.
    pub workflows: Vec<String>,
}

/// URL of Chainloop's artifacts, and an API token that may read them.
#[derive(Debug)]
pub struct Cas {
    pub url: String,
    pub token: SecretText,
    /// Certificates in PEM that are trusted beside those of the public authorities.
    pub authorities: Option<String>,
}

/// Secret of an intake: the URL that materials are fetched from, and a token for it.
#[derive(Serialize, Deserialize)]
pub struct Source {
    pub(crate) url: String,
    pub(crate) token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) authorities: Option<String>,
}

impl Source {
    /// Returns the authorities that it trusts besides the public ones. `create` validated them.
    pub(crate) fn authorities(&self) -> Option<Authorities> {
        let text = self.authorities.as_deref();
        text.and_then(|text| Authorities::try_from(text).ok())
    }
}

/// A new intake. Its token is shown once.
pub struct Created {
    pub intake: Intake,
    pub token: String,
}

/// The longest token of Chainloop's that is taken; they have some hundred letters.
const CAS_TOKEN_LONGEST: usize = 8 * 1024;

fn fault(field: &str, detail: impl Into<String>) -> Fault {
    Fault {
        field: field.into(),
        detail: detail.into(),
    }
}

/// Reads the conditions, and says what is wrong with them.
fn conditions(wanted: &NewIntake, faults: &mut Vec<Fault>) -> Conditions {
    let mut conditions = Conditions::default();
    for (field, given) in [
        ("allow_from", &wanted.allow_from),
        ("workflows", &wanted.workflows),
    ] {
        if given.len() > CONDITIONS_MOST {
            faults.push(fault(field, format!("must be at most {CONDITIONS_MOST}")));
            return conditions;
        }
    }
    for text in &wanted.allow_from {
        match text.parse::<Network>() {
            Ok(network) => conditions.allow_from.push(network),
            Err(wrong) => faults.push(fault("allow_from", wrong.to_string())),
        }
    }
    for text in &wanted.workflows {
        match api::workflows::selector(text, None) {
            Ok(selector) => conditions.workflows.push(selector),
            Err(wrong) => faults.push(fault("workflows", wrong.detail)),
        }
    }
    conditions
}

fn faults(wanted: &NewIntake) -> Vec<Fault> {
    let mut faults = Vec::new();
    faults.extend(api::names::name_fault(&wanted.name));
    let secs = wanted.valid_for.map(|valid_for| valid_for.as_secs());
    if secs.is_some_and(|secs| !api::tokens::VALID_SECS.contains(&secs)) {
        faults.push(fault(
            "expires_in_secs",
            "must be from a minute to ten years",
        ));
    }
    if let Some(Cas {
        url,
        token,
        authorities,
    }) = &wanted.cas
    {
        if let Some(Err(wrong)) = authorities.as_deref().map(Authorities::try_from) {
            faults.push(fault("cas_ca_certificates", wrong.to_string()));
        }
        if let Err(detail) = cas::base(url) {
            faults.push(fault("cas_url", detail));
        }
        let token = token.expose();
        if token.len() > CAS_TOKEN_LONGEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            faults.push(fault(
                "cas_token",
                "must be visible ASCII letters, without spaces",
            ));
        }
    }
    faults
}

/// Makes an intake. The platform's randomness must be the operating system's.
pub async fn create(
    scope: Scope<'_, impl Platform>,
    wanted: NewIntake,
    act: Act<'_>,
) -> Result<Created, Error> {
    let (platform, organization) = scope.parts();
    let mut faults = faults(&wanted);
    let conditions = conditions(&wanted, &mut faults);
    if !faults.is_empty() {
        return Err(Error::Faults(faults));
    }
    quotas::room(scope, Quota::Intakes).await?;
    let token = tokens::text(platform, PREFIX);
    let now = platform.now();
    let intake = Intake {
        organization: organization.to_owned(),
        name: wanted.name,
        id: ids::random(platform),
        hash: tokens::hash(&token),
        cas_url: wanted.cas.as_ref().map(|cas| cas.url.clone()),
        conditions,
        valid_for_secs: wanted.valid_for.map(|valid_for| valid_for.as_secs()),
        valid_until: wanted.valid_for.map(|valid_for| now.plus(valid_for)),
        previous: None,
        rotated_at: None,
        created_by: act.actor.name.clone(),
        created_at: now,
    };
    // The rows before the secret: cut off here, there is an intake whose token nobody knows, which the list shows
    // and `delete` removes, and no secret that nobody finds.
    let subject = Subject::new(&intake.name, intake.id.as_str());
    let mut writes = vec![
        rows::insert(platform, &intake).0,
        rows::insert(platform, &by_hash(&intake, now)).0,
        act.entry(scope, subject, told(&intake)),
    ];
    writes.extend(expiry(scope, &intake));
    let pem = wanted
        .cas
        .as_ref()
        .and_then(|cas| cas.authorities.as_deref());
    let trusting = (intake.id.as_str(), intake.name.as_str());
    writes.extend(notices::certificates_end(scope, trusting, pem).await?);
    if !platform.write(writes).await.unless_conflict()? {
        return Err(Error::NameTaken(intake.name));
    }
    if let Some(cas) = wanted.cas {
        let source = Source {
            url: cas.url,
            token: cas.token.expose().to_owned(),
            authorities: cas.authorities,
        };
        let text = serde_json::to_string(&source).expect("texts are JSON");
        let secret = Intake::secret_name(organization, &intake.id);
        let kept = platform.put_secret(&secret, &SecretValue::new(text)).await;
        if let Err(unreachable) = kept {
            let undo = Act {
                action: "intake.delete",
                ..act
            };
            let detail = "its secret could not be kept";
            let _ = remove(scope, &intake.name, undo, detail).await;
            return Err(unreachable.into());
        }
    }
    Ok(Created { intake, token })
}

/// The notice that an intake's URL ends.
fn expiry(scope: Scope<'_, impl Platform>, intake: &Intake) -> Option<Write> {
    let news = News {
        subject: expiring(intake),
        name: intake.name.clone(),
        ..News::default()
    };
    notices::ends(scope, Event::IntakeExpiring, &news, intake.valid_until)
}

/// Subject of that notice: each URL of an intake has an end of its own.
fn expiring(intake: &Intake) -> String {
    format!("{}-{}", intake.id, &intake.hash[..8])
}

/// The row that finds an intake by the token that it has now.
fn by_hash(intake: &Intake, now: Timestamp) -> IntakeToken {
    IntakeToken {
        hash: intake.hash.clone(),
        organization: intake.organization.clone(),
        name: intake.name.clone(),
        id: intake.id.clone(),
        fetches: intake.cas_url.is_some(),
        conditions: intake.conditions.clone(),
        valid_until: intake.valid_until,
        created_at: now,
    }
}

/// Describes a new intake for the audit log: all that it permits.
fn told(intake: &Intake) -> String {
    let Conditions {
        allow_from,
        workflows,
    } = &intake.conditions;
    let networks: Vec<String> = allow_from.iter().map(Network::to_string).collect();
    let workflows: Vec<&str> = workflows.iter().map(|one| one.0.as_str()).collect();
    let parts = [
        intake
            .cas_url
            .as_ref()
            .map(|url| format!("fetches from {url}")),
        intake.valid_until.map(|until| format!("until {until}")),
        (!networks.is_empty()).then(|| format!("for addresses {}", networks.join(", "))),
        (!workflows.is_empty()).then(|| format!("for workflows {}", workflows.join(", "))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(", ")
}

/// Gives an intake a new URL with the same conditions and, where it has one, the same lifetime from now on. The old URL
/// works [for a while](rotation).
pub async fn rotate(
    scope: Scope<'_, impl Platform>,
    name: &str,
    overlap_secs: Option<u64>,
    act: Act<'_>,
) -> Result<Created, Error> {
    let (platform, organization) = scope.parts();
    let overlap = rotation::overlap(overlap_secs).map_err(|fault| Error::Faults(vec![fault]))?;
    let missing = || Error::NotFound(name.to_owned());
    let stored = rows::load::<Intake>(platform, &Intake::at(organization, name)).await?;
    let mut stored = stored.ok_or_else(missing)?;
    // Without it, the intake is being deleted.
    let old = rows::load::<IntakeToken>(platform, &IntakeToken::at(&stored.row.hash)).await?;
    let mut old = old.ok_or_else(missing)?;
    let now = platform.now();
    let previous = stored.row.previous.as_ref();
    let ends = rotation::ends(previous, old.row.valid_until, overlap, now);
    let ends = ends.map_err(Error::Overlapping)?;
    let mut writes = Vec::new();
    if let Some(Previous { hash, .. }) = previous {
        let oldest = rows::load::<IntakeToken>(platform, &IntakeToken::at(hash)).await?;
        writes.extend(oldest.map(|oldest| oldest.delete()));
    }
    stored.row.previous = if now < ends {
        old.row.valid_until = Some(ends);
        writes.push(old.update(platform).0);
        Some(Previous {
            hash: old.row.hash,
            valid_until: ends,
        })
    } else {
        writes.push(old.delete());
        None
    };
    writes.extend(notices::forget(scope, Event::IntakeExpiring, &expiring(&stored.row)).await?);
    let token = tokens::text(platform, PREFIX);
    let valid_for = stored.row.valid_for_secs.map(Duration::from_secs);
    stored.row.hash = tokens::hash(&token);
    stored.row.valid_until = valid_for.map(|valid_for| now.plus(valid_for));
    stored.row.rotated_at = Some(now);
    let detail = match &stored.row.previous {
        Some(previous) => format!("the URL before works until {}", previous.valid_until),
        None => "the URL before has ended".to_owned(),
    };
    let subject = Subject::new(&stored.row.name, stored.row.id.as_str());
    writes.extend([
        rows::insert(platform, &by_hash(&stored.row, now)).0,
        stored.update(platform).0,
        act.entry(scope, subject, detail),
    ]);
    writes.extend(expiry(scope, &stored.row));
    if !platform.write(writes).await.unless_conflict()? {
        return Err(Error::Conflict);
    }
    Ok(Created {
        intake: stored.row,
        token,
    })
}

/// A page of intakes in the order of their names, from behind `after`, and where the next one begins.
pub async fn list(
    scope: Scope<'_, impl Platform>,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Intake>, Option<String>), Unreachable> {
    let (platform, organization) = scope.parts();
    rows::first_page(platform, &Intake::partition(organization), after, limit).await
}

/// Deletes an intake by its name. What came in by it stays. A deletion that was cut off is completed by asking again.
pub async fn delete(
    scope: Scope<'_, impl Platform>,
    name: &str,
    act: Act<'_>,
) -> Result<Intake, Error> {
    remove(scope, name, act, "").await
}

async fn remove(
    scope: Scope<'_, impl Platform>,
    name: &str,
    act: Act<'_>,
    detail: &str,
) -> Result<Intake, Error> {
    let (platform, organization) = scope.parts();
    let at = Intake::at(organization, name);
    let mut deleted = None;
    for _ in 0..CONFLICTS {
        let Some(stored) = rows::load::<Intake>(platform, &at).await? else {
            // Somebody else was deleting it too, or nobody had it.
            return deleted.ok_or_else(|| Error::NotFound(name.to_owned()));
        };
        let removed = remove_once(platform, &stored, act, detail).await;
        if removed.unless_conflict()? {
            return Ok(stored.row);
        }
        // It was rotated meanwhile, or is being deleted.
        deleted = Some(stored.row);
    }
    Err(Error::Conflict)
}

async fn remove_once(
    platform: &impl Platform,
    stored: &Stored<Intake>,
    act: Act<'_>,
    detail: &str,
) -> Result<(), WriteError> {
    let Intake {
        organization,
        id,
        hash,
        previous,
        ..
    } = &stored.row;
    // First of all nobody comes in by it; and the row that lists it last, so that asking again finds what is left.
    let hashes = [Some(hash), previous.as_ref().map(|previous| &previous.hash)];
    let mut writes = Vec::new();
    for hash in hashes.into_iter().flatten() {
        let token = rows::load::<IntakeToken>(platform, &IntakeToken::at(hash)).await?;
        writes.extend(token.map(|token| token.delete()));
    }
    if !writes.is_empty() {
        let subject = Subject::new(&stored.row.name, id.as_str());
        writes.push(stored.check());
        writes.push(act.entry(Scope::new(platform, organization), subject, detail));
        platform.write(writes).await?;
    }
    if stored.row.cas_url.is_some() {
        let secret = Intake::secret_name(organization, id);
        platform.delete_secret(&secret).await?;
    }
    let used = rows::load::<IntakeUse>(platform, &IntakeUse::at(organization, id)).await?;
    let used = used.map(|used| used.delete());
    let scope = Scope::new(platform, organization);
    let ends = notices::forget(scope, Event::IntakeExpiring, &expiring(&stored.row)).await?;
    let certificate = notices::forget(scope, Event::CertificateExpiring, id.as_str()).await?;
    let ends = ends.into_iter().chain(certificate);
    let writes = used.into_iter().chain(ends).chain([stored.delete()]);
    platform.write(writes.collect()).await
}

/// Loads the source of an intake's materials; none when the intake was deleted.
pub(crate) async fn source(
    scope: Scope<'_, impl Platform>,
    id: &IntakeId,
) -> Result<Option<Source>, Unreachable> {
    let (platform, organization) = scope.parts();
    let secret = Intake::secret_name(organization, id);
    let Some(value) = platform.get_secret(&secret, None).await? else {
        return Ok(None);
    };
    serde_json::from_str(value.expose())
        .map(Some)
        .map_err(|_| Unreachable {
            what: "secrets manager",
            // Not serde's text, which may quote it.
            why: "an intake's secret is not what was kept".into(),
        })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use integrations::Http;
    use integrations::http::Guard;

    use super::*;
    use crate::memory::Memory;

    #[test]
    fn what_an_intake_trusts_is_trusted_where_it_fetches_and_nowhere_else() {
        let (memory, organization) = (Memory::default(), "acme".into());
        let scope = Scope::new(&memory, &organization);
        let authority = include_str!("../../../../tests/peers/tls/authority.pem");
        let http = Http::new(Guard::default());
        let trusted = |name: &str, authorities: Option<&str>| {
            let wanted = NewIntake {
                name: name.into(),
                cas: Some(Cas {
                    url: "https://cp.example.org".into(),
                    token: SecretText::from("token".to_owned()),
                    authorities: authorities.map(str::to_owned),
                }),
                ..NewIntake::default()
            };
            let actor = api::Actor::named("tests");
            let act = Act {
                actor: &actor,
                action: "intake.create",
            };
            let created = create(scope, wanted, act);
            let created = created.now_or_never().unwrap();
            let id = created.unwrap().intake.id;
            let source = source(scope, &id).now_or_never().unwrap();
            let authorities = source.unwrap().unwrap().authorities();
            http.trusting(authorities.as_ref()).roots().len()
        };
        assert_eq!(trusted("inside", Some(authority)), 1);
        assert_eq!(trusted("outside", None), 0);
    }
}
