//! Registers an integration for an organization, lists what is registered, and lets it go again.
//!
//! The name is reserved before anything happens elsewhere: a taken name must not send a test message, and
//! a registration that a crash cut off must leave neither a name nor a secret behind. A reservation
//! expires; whoever takes the name then removes what the cut-off one may have stored.

use integrations::{Description, Fault, inputs};
use serde_json::{Map, Value};

use crate::check::{self, Check, Verdict};
use crate::platform::{Expect, Platform, SecretValue, Unreachable, WriteError};
use crate::rows::{self, Attachment, Link, Name, Registration, Stored, Work};
use crate::{jobs, schedule};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no integration {0:?}")]
    NoIntegration(String),
    #[error("some inputs are not right")]
    Faults(Vec<Fault>),
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    #[error("failed to {text}")]
    Refused {
        text: String,
        status: Option<u16>,
        answer: Option<String>,
    },
    #[error("there is no registration {0:?}")]
    NotFound(String),
    #[error("there is no attachment {0:?}")]
    NotAttached(String),
    #[error("somebody else changed it at the same time; try again")]
    Conflict,
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Conflict => Self::Conflict,
            WriteError::Unreachable(unreachable) => Self::Unreachable(unreachable),
        }
    }
}

/// What an operator asks for.
#[derive(Debug)]
pub struct Wanted {
    pub integration: String,
    pub name: String,
    pub description: String,
    /// Secret ones among them.
    pub inputs: Map<String, Value>,
}

/// A DNS-1123 label: what a name may be.
pub fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

pub(crate) fn id(platform: &impl Platform) -> String {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&platform.random().to_be_bytes());
    bytes[8..].copy_from_slice(&platform.random().to_be_bytes());
    uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string()
}

/// Registers: validates, reserves the name, asks the third party, keeps the secret, then the rest.
pub async fn register(
    platform: &impl Platform,
    organization: &str,
    wanted: Wanted,
) -> Result<Registration, Error> {
    let description = integrations::find(&wanted.integration)
        .ok_or_else(|| Error::NoIntegration(wanted.integration.clone()))?;
    let mut faults = (description.check_registration)(&wanted.inputs);
    if !is_label(&wanted.name) {
        faults.push(Fault {
            field: "name".into(),
            detail: "must be 1 to 63 lower-case letters, digits and hyphens, with no hyphen at \
                     either end"
                .into(),
        });
    }
    if !faults.is_empty() {
        return Err(Error::Faults(faults));
    }
    let reserved = reserve(platform, organization, description, &wanted.name).await?;
    let result = complete(platform, description, &reserved, wanted).await;
    if result.is_err() {
        // The reservation would expire by itself; the operator who tries again should not wait for that.
        let secret = Registration::secret_name(
            organization,
            &reserved.row.integration,
            &reserved.row.registration,
        );
        let _ = platform.delete_secret(&secret).await;
        let _ = platform.write(vec![reserved.delete()]).await;
    }
    result
}

async fn reserve(
    platform: &impl Platform,
    organization: &str,
    description: &Description,
    name: &str,
) -> Result<Stored<Name>, Error> {
    let now = platform.now();
    let row = Name {
        organization: organization.to_owned(),
        name: name.to_owned(),
        registration: id(platform),
        integration: description.id.to_owned(),
        reserved_until: Some(now.plus(schedule::RESERVATION)),
    };
    let expect = match rows::load::<Name>(platform, &Name::at(organization, name)).await? {
        None => Expect::Absent,
        Some(old) if old.row.reserved_until.is_some_and(|until| until < now) => {
            let secret = Registration::secret_name(
                organization,
                &old.row.integration,
                &old.row.registration,
            );
            platform.delete_secret(&secret).await?;
            Expect::Unchanged(old.etag)
        }
        Some(_) => return Err(Error::NameTaken(name.to_owned())),
    };
    let (write, etag) = rows::put(platform, &row, expect);
    match platform.write(vec![write]).await {
        Ok(()) => Ok(Stored { row, etag }),
        Err(WriteError::Conflict) => Err(Error::NameTaken(name.to_owned())),
        Err(WriteError::Unreachable(unreachable)) => Err(unreachable.into()),
    }
}

async fn complete(
    platform: &impl Platform,
    description: &Description,
    reserved: &Stored<Name>,
    wanted: Wanted,
) -> Result<Registration, Error> {
    let check = Check::Registration {
        inputs: wanted.inputs,
    };
    let verdict = check::ask(platform, description.id, &check).await?;
    if let Verdict::Refused {
        text,
        status,
        answer,
    } = verdict
    {
        return Err(Error::Refused {
            text,
            status,
            answer,
        });
    }
    let Check::Registration { inputs } = check else {
        unreachable!("made above")
    };
    let schema = (description.registration_schema)();
    let (config, secrets) = inputs::split(&schema, inputs);
    let name = &reserved.row;
    let secret = Registration::secret_name(&name.organization, description.id, &name.registration);
    let registration = Registration {
        id: name.registration.clone(),
        organization: name.organization.clone(),
        name: name.name.clone(),
        integration: description.id.to_owned(),
        version: description.version.to_owned(),
        description: wanted.description,
        config,
        label: inputs::label(&schema, &secrets),
        secret: (!secrets.is_empty()).then(|| secret.clone()),
        created_at: platform.now(),
        deleted_at: None,
        paused: None,
        wake_at: None,
    };
    if !secrets.is_empty() {
        let text = serde_json::to_string(&secrets).expect("text keys and JSON values are JSON");
        platform
            .put_secret(&secret, &SecretValue::new(text))
            .await?;
    }
    let mut live = reserved.clone();
    live.row.reserved_until = None;
    let writes = vec![
        rows::put(platform, &registration, Expect::Absent).0,
        live.update(platform).0,
    ];
    platform.write(writes).await?;
    Ok(registration)
}

/// A live registration by its name or its id.
pub async fn find(
    platform: &impl Platform,
    organization: &str,
    name_or_id: &str,
) -> Result<Stored<Registration>, Error> {
    let missing = || Error::NotFound(name_or_id.to_owned());
    let name = rows::load::<Name>(platform, &Name::at(organization, name_or_id)).await?;
    let id = match name {
        Some(name) if name.row.reserved_until.is_none() => name.row.registration,
        Some(_) => return Err(missing()),
        None => name_or_id.to_owned(),
    };
    rows::load::<Registration>(platform, &Registration::at(organization, &id))
        .await?
        .filter(|stored| stored.row.deleted_at.is_none())
        .ok_or_else(missing)
}

/// A page of registrations in the order of their names, from behind `after`, and where the next one begins.
pub async fn list(
    platform: &impl Platform,
    organization: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Registration>, Option<String>), Unreachable> {
    let names = platform
        .list(&Name::partition(organization), "", after, limit)
        .await?;
    let next = (names.len() == limit)
        .then(|| names.last()?.get("sk")?.as_str().map(str::to_owned))
        .flatten();
    let keys: Vec<_> = names
        .iter()
        .filter(|name| !name.contains_key("reserved_until"))
        .filter_map(|name| name.get("registration")?.as_str())
        .map(|id| Registration::at(organization, id))
        .collect();
    let mut registrations: Vec<Registration> = rows::load_many(platform, &keys)
        .await?
        .into_iter()
        .map(|stored| stored.row)
        .collect();
    registrations.retain(|registration| registration.deleted_at.is_none());
    registrations.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((registrations, next))
}

/// The attachments of a registration.
pub async fn attachments(
    platform: &impl Platform,
    organization: &str,
    registration: &str,
) -> Result<Vec<Stored<Attachment>>, Unreachable> {
    let partition = Registration::partition(organization, registration);
    let links = rows::load_all::<Link>(platform, &partition, Link::PREFIX).await?;
    let keys: Vec<_> = links
        .iter()
        .map(|link| Attachment::at(organization, &link.row.attachment))
        .collect();
    let mut attachments = rows::load_many::<Attachment>(platform, &keys).await?;
    attachments.retain(|attachment| attachment.row.deleted_at.is_none());
    attachments.sort_by(|a, b| {
        a.row
            .created_at
            .cmp(&b.row.created_at)
            .then(a.row.id.cmp(&b.row.id))
    });
    Ok(attachments)
}

/// Deletes a registration and its attachments; pending deliveries are cancelled when their time comes.
/// Answers with how many attachments went. A deletion that was cut off is completed by asking again.
pub async fn delete(
    platform: &impl Platform,
    organization: &str,
    name_or_id: &str,
) -> Result<(Registration, usize), Error> {
    let name = rows::load::<Name>(platform, &Name::at(organization, name_or_id)).await?;
    let id = name.map_or_else(|| name_or_id.to_owned(), |name| name.row.registration);
    let stored = rows::load::<Registration>(platform, &Registration::at(organization, &id))
        .await?
        .ok_or_else(|| Error::NotFound(name_or_id.to_owned()))?;
    let name_at = Name::at(organization, &stored.row.name);
    let name = rows::load::<Name>(platform, &name_at)
        .await?
        .filter(|name| name.row.registration == stored.row.id)
        .ok_or_else(|| Error::NotFound(name_or_id.to_owned()))?;
    // First of all nothing new goes through it.
    let mut gone = stored;
    if gone.row.deleted_at.is_none() {
        let now = platform.now();
        gone.row.deleted_at = Some(now);
        // Should this be cut off, the reconciler ends it.
        gone.row.wake_at = Some(now.plus(schedule::UNFINISHED));
        let (write, etag) = gone.update(platform);
        platform.write(vec![write]).await?;
        gone.etag = etag;
    }
    let attachments = attachments(platform, organization, &id).await?;
    let count = attachments.len();
    for attachment in attachments {
        crate::attach::remove(platform, attachment).await?;
    }
    if let Some(secret) = &gone.row.secret {
        platform.delete_secret(secret).await?;
    }
    // The name last: as long as it is there, asking again finds what is left to do.
    gone.row.wake_at = None;
    let was_paused = gone.row.paused.take().is_some();
    let mut writes = vec![name.delete(), gone.update(platform).0];
    if was_paused {
        // What it held is let go, to be cancelled.
        let work = Work::Drain {
            registration: id.clone(),
        };
        let rate = schedule::DRAIN_PER_SECOND;
        let job = jobs::new(platform, organization, work, rate, "deletion");
        writes.push(jobs::put(platform, &job));
    }
    platform.write(writes).await?;
    Ok((gone.row, count))
}

/// Ends a deletion that was cut off.
pub(crate) async fn finish(
    platform: &impl Platform,
    registration: &Registration,
) -> Result<(), Unreachable> {
    match delete(platform, &registration.organization, &registration.id).await {
        Ok(_) | Err(Error::NotFound(_) | Error::Conflict) => Ok(()),
        Err(Error::Unreachable(unreachable)) => Err(unreachable),
        Err(other) => Err(Unreachable {
            what: "table",
            why: other.to_string(),
        }),
    }
}

/// Removes what a registration that was cut off left behind: its reservation, and its secret.
pub(crate) async fn abandon(
    platform: &impl Platform,
    stored: Stored<Name>,
) -> Result<(), Unreachable> {
    let Name {
        organization,
        integration,
        registration,
        reserved_until,
        ..
    } = &stored.row;
    if reserved_until.is_none_or(|until| until >= platform.now()) {
        return Ok(());
    }
    let secret = Registration::secret_name(organization, integration, registration);
    platform.delete_secret(&secret).await?;
    match platform.write(vec![stored.delete()]).await {
        Ok(()) | Err(WriteError::Conflict) => Ok(()),
        Err(WriteError::Unreachable(unreachable)) => Err(unreachable),
    }
}

/// Replaces the secret inputs, all of them, after the third party has accepted the new ones. In-flight deliveries
/// go on: one that is answered 401 reads the secret again. The old ones are not read here: nothing but a delivery
/// function may.
pub async fn rotate(
    platform: &impl Platform,
    organization: &str,
    name_or_id: &str,
    secrets: Map<String, Value>,
) -> Result<Registration, Error> {
    let mut stored = find(platform, organization, name_or_id).await?;
    let row = &stored.row;
    let description = integrations::find(&row.integration)
        .ok_or_else(|| Error::NoIntegration(row.integration.clone()))?;
    let schema = (description.registration_schema)();
    let (plain, secrets) = inputs::split(&schema, secrets);
    let fault = |field: &String, detail: &str| Fault {
        field: field.clone(),
        detail: detail.into(),
    };
    let not_secret = plain
        .keys()
        .map(|field| fault(field, "is not a secret input"));
    let left_out = row
        .label
        .keys()
        .filter(|field| !secrets.contains_key(*field))
        .map(|field| {
            fault(
                field,
                "is missing: a rotation replaces all secret inputs together",
            )
        });
    let mut faults: Vec<Fault> = not_secret.chain(left_out).collect();
    let mut whole = row.config.clone();
    whole.extend(secrets.clone());
    if faults.is_empty() {
        faults.extend((description.check_registration)(&whole));
    }
    if faults.is_empty() && secrets.is_empty() {
        faults.push(fault(
            &"inputs".to_owned(),
            "must have the registration's secret inputs",
        ));
    }
    if !faults.is_empty() {
        return Err(Error::Faults(faults));
    }
    let check = Check::Registration { inputs: whole };
    if let Verdict::Refused {
        text,
        status,
        answer,
    } = check::ask(platform, description.id, &check).await?
    {
        return Err(Error::Refused {
            text,
            status,
            answer,
        });
    }
    let name = Registration::secret_name(organization, &row.integration, &row.id);
    let text = serde_json::to_string(&secrets).expect("text keys and JSON values are JSON");
    stored.row.label = inputs::label(&schema, &secrets);
    stored.row.secret = Some(name.clone());
    // The row first: it fails when somebody else changes it, and a label alone does no harm.
    platform.write(vec![stored.update(platform).0]).await?;
    platform.put_secret(&name, &SecretValue::new(text)).await?;
    Ok(stored.row)
}
