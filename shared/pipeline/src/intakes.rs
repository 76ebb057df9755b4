//! Intakes: URLs of an organization's own, each with a token in it, to which a Chainloop control plane posts what
//! it has accepted, because it can send no header.
//!
//! Who knows such a URL may push, and nothing else. Its token is shown once and kept as a hash. An intake that is
//! given the address of Chainloop's artifacts and a token for them also has materials [fetched](crate::fetch).

use integrations::{Authorities, Fault, SecretText, cas};
use serde::{Deserialize, Serialize};

use crate::audit_log::{Act, Subject};
use crate::platform::{Expect, Platform, SecretValue, Unreachable, WriteError};
use crate::quotas::{self, Exceeded, Quota};
use crate::rows::{self, Intake, IntakeToken, Stored};
use crate::{register, tokens};

/// What an intake token's text begins with, so that scanners for leaked secrets find it, and nobody takes it for
/// an API token.
pub const PREFIX: &str = "clin_";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("some inputs are not right")]
    Faults(Vec<Fault>),
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    #[error("there is no intake {0:?}")]
    NotFound(String),
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

/// What an operator asks for.
#[derive(Debug)]
pub struct Wanted {
    pub name: String,
    pub cas: Option<Cas>,
}

/// Where Chainloop's artifacts are, and an API token that may read them.
#[derive(Debug)]
pub struct Cas {
    pub url: String,
    pub token: SecretText,
    /// Certificates in PEM that are trusted beside those of the public authorities.
    pub authorities: Option<String>,
}

/// What is kept as an intake's secret: where materials are fetched, and a token for that.
#[derive(Serialize, Deserialize)]
pub struct Source {
    pub(crate) url: String,
    pub(crate) token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) authorities: Option<String>,
}

impl Source {
    /// Those that it trusts beside the public ones. They were looked at when they were given.
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

fn faults(wanted: &Wanted) -> Vec<Fault> {
    let fault = |field: &str, detail: &str| Fault {
        field: field.into(),
        detail: detail.into(),
    };
    let mut faults = Vec::new();
    faults.extend(register::name_fault(&wanted.name));
    if let Some(Cas {
        url,
        token,
        authorities,
    }) = &wanted.cas
    {
        if let Some(Err(wrong)) = authorities.as_deref().map(Authorities::try_from) {
            faults.push(fault("cas_ca_certificates", &wrong.to_string()));
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
    platform: &impl Platform,
    organization: &str,
    wanted: Wanted,
    act: Act<'_>,
) -> Result<Created, Error> {
    let faults = faults(&wanted);
    if !faults.is_empty() {
        return Err(Error::Faults(faults));
    }
    quotas::room(platform, organization, Quota::Intakes).await?;
    let token = tokens::text(platform, PREFIX);
    let intake = Intake {
        organization: organization.to_owned(),
        name: wanted.name,
        id: register::id(platform),
        hash: tokens::hash(&token),
        cas_url: wanted.cas.as_ref().map(|cas| cas.url.clone()),
        created_by: act.actor.name.clone(),
        created_at: platform.now(),
    };
    let by_hash = IntakeToken {
        hash: intake.hash.clone(),
        organization: intake.organization.clone(),
        name: intake.name.clone(),
        id: intake.id.clone(),
        fetches: wanted.cas.is_some(),
        created_at: intake.created_at,
    };
    // The rows before the secret: cut off here, there is an intake whose token nobody knows, which the list shows
    // and `delete` removes, and no secret that nobody finds.
    let fetches = intake
        .cas_url
        .as_ref()
        .map(|url| format!("fetches from {url}"));
    let subject = Subject::new(&intake.name, &intake.id);
    let detail = fetches.unwrap_or_default();
    let writes = vec![
        rows::put(platform, &intake, Expect::Absent).0,
        rows::put(platform, &by_hash, Expect::Absent).0,
        act.entry(platform, organization, subject, detail),
    ];
    match platform.write(writes).await {
        Ok(()) => {}
        Err(WriteError::Conflict) => return Err(Error::NameTaken(intake.name)),
        Err(WriteError::Unreachable(unreachable)) => return Err(unreachable.into()),
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
            let _ = remove(platform, organization, &intake.name, undo, detail).await;
            return Err(unreachable.into());
        }
    }
    Ok(Created { intake, token })
}

/// The intake that a token opens; none when it is unknown or was deleted.
pub async fn find(
    platform: &impl Platform,
    token: &str,
) -> Result<Option<IntakeToken>, Unreachable> {
    if !token.starts_with(PREFIX) || token.len() > 256 {
        return Ok(None);
    }
    let key = IntakeToken::at(&tokens::hash(token));
    let stored = rows::load::<IntakeToken>(platform, &key).await?;
    Ok(stored.map(|stored| stored.row))
}

/// A page of intakes in the order of their names, from behind `after`, and where the next one begins.
pub async fn list(
    platform: &impl Platform,
    organization: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Intake>, Option<String>), Unreachable> {
    let partition = Intake::partition(organization);
    let items = platform.list(&partition, "", after, limit).await?;
    let next = (items.len() == limit)
        .then(|| items.last()?.get("sk")?.as_str().map(str::to_owned))
        .flatten();
    let intakes = items.into_iter().map(rows::parse::<Intake>);
    let intakes: Result<Vec<Stored<Intake>>, Unreachable> = intakes.collect();
    Ok((
        intakes?.into_iter().map(|stored| stored.row).collect(),
        next,
    ))
}

/// Deletes an intake by its name. What came in by it stays. A deletion that was cut off is completed by asking again.
pub async fn delete(
    platform: &impl Platform,
    organization: &str,
    name: &str,
    act: Act<'_>,
) -> Result<Intake, Error> {
    remove(platform, organization, name, act, "").await
}

async fn remove(
    platform: &impl Platform,
    organization: &str,
    name: &str,
    act: Act<'_>,
    detail: &str,
) -> Result<Intake, Error> {
    let missing = || Error::NotFound(name.to_owned());
    let stored = rows::load::<Intake>(platform, &Intake::at(organization, name)).await?;
    let stored = stored.ok_or_else(missing)?;
    let gone = |result| match result {
        // Somebody else was deleting it as well.
        Ok(()) | Err(WriteError::Conflict) => Ok(()),
        Err(WriteError::Unreachable(unreachable)) => Err(unreachable),
    };
    // First of all nobody comes in by it; and the row that lists it last, so that asking again finds what is left.
    let by_hash = IntakeToken::at(&stored.row.hash);
    if let Some(token) = rows::load::<IntakeToken>(platform, &by_hash).await? {
        let subject = Subject::new(&stored.row.name, &stored.row.id);
        let entry = act.entry(platform, organization, subject, detail);
        gone(platform.write(vec![token.delete(), entry]).await)?;
    }
    if stored.row.cas_url.is_some() {
        let secret = Intake::secret_name(organization, &stored.row.id);
        platform.delete_secret(&secret).await?;
    }
    gone(platform.write(vec![stored.delete()]).await)?;
    Ok(stored.row)
}

/// Where an intake's materials are fetched; none when it was deleted.
pub(crate) async fn source(
    platform: &impl Platform,
    organization: &str,
    id: &str,
) -> Result<Option<Source>, Unreachable> {
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
        let memory = Memory::default();
        let authority = include_str!("../../../tests/peers/tls/authority.pem");
        let http = Http::new(Guard::default());
        let trusted = |name: &str, authorities: Option<&str>| {
            let wanted = Wanted {
                name: name.into(),
                cas: Some(Cas {
                    url: "https://cp.example.org".into(),
                    token: SecretText::from("token".to_owned()),
                    authorities: authorities.map(str::to_owned),
                }),
            };
            let actor = crate::rows::Actor::named("tests");
            let act = Act {
                actor: &actor,
                action: "intake.create",
            };
            let created = create(&memory, "acme", wanted, act);
            let created = created.now_or_never().unwrap();
            let id = created.unwrap().intake.id;
            let source = source(&memory, "acme", &id).now_or_never().unwrap();
            let authorities = source.unwrap().unwrap().authorities();
            http.trusting(authorities.as_ref()).roots().len()
        };
        assert_eq!(trusted("inside", Some(authority)), 1);
        assert_eq!(trusted("outside", None), 0);
    }
}
