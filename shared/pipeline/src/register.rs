//! Registers an integration for an organization, lists what is registered, and lets it go again.
//!
//! The name is reserved before anything happens elsewhere: a taken name must not send a test message, and
//! a registration that a crash cut off must leave neither a name nor a secret behind. A reservation
//! expires; whoever takes the name then removes what the cut-off one may have stored.

use integrations::{Description, Fault, Warnings, inputs};
use serde_json::{Map, Value};

use crate::audit_log::{Act, Subject};
use crate::check::{self, Check, Verdict};
use crate::platform::{Etag, Expect, Platform, SecretValue, Unreachable, WriteError};
use crate::quotas::{self, Exceeded, Quota};
use crate::rows::{self, Attachment, Gone, Link, Name, Registration, Stored, Work};
use crate::{jobs, schedule};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no integration {0:?}")]
    NoIntegration(String),
    #[error("some inputs are not right")]
    Faults(Vec<Fault>),
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    #[error("{registration:?} is attached to {workflow} with the same options already, as {id}")]
    AttachmentExists {
        registration: String,
        workflow: String,
        id: String,
    },
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
    /// It is not what whoever wants to change it has seen.
    #[error("it was changed meanwhile: read it again, and change what it is now")]
    Changed,
    #[error(transparent)]
    Exceeded(Exceeded),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

impl From<quotas::Error> for Error {
    fn from(error: quotas::Error) -> Self {
        match error {
            quotas::Error::Exceeded(exceeded) => Self::Exceeded(exceeded),
            quotas::Error::Unreachable(unreachable) => Self::Unreachable(unreachable),
        }
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Conflict => Self::Conflict,
            WriteError::Unreachable(unreachable) => Self::Unreachable(unreachable),
        }
    }
}

/// The states of a row that somebody wants to change, where they say so: `If-Match`.
#[derive(Debug, Clone, Default)]
pub struct Precondition(pub Option<Vec<Etag>>);

impl Precondition {
    pub(crate) fn allow(&self, etag: &Etag) -> Result<(), Error> {
        match &self.0 {
            Some(etags) if !etags.contains(etag) => Err(Error::Changed),
            _ => Ok(()),
        }
    }

    /// What a conflict means to them.
    pub(crate) fn conflict(&self, error: WriteError) -> Error {
        match error {
            WriteError::Conflict if self.0.is_some() => Error::Changed,
            other => other.into(),
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
    /// Its id, where that follows from the request: the same again is the same registration. A new one when none.
    pub id: Option<String>,
}

/// [`is_label`], for descriptions.
pub const LABEL: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

/// A DNS-1123 label: what a name may be.
pub fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// What is wrong with a name.
pub fn name_fault(name: &str) -> Option<Fault> {
    // A name or an id is asked for in one place, and nobody may be called as another one is known.
    let is_id = name.len() == 36 && uuid::Uuid::try_parse(name).is_ok();
    let detail = match (is_label(name), is_id) {
        (true, false) => return None,
        (true, true) => "must not be a UUID, which ids are",
        (false, _) => {
            "must be 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end"
        }
    };
    Some(Fault {
        field: "name".into(),
        detail: detail.into(),
    })
}

/// The most that inputs may have in all, as JSON: a row has room for 400 KB, a secret for 64 KiB.
const INPUTS_MAX_BYTES: usize = 48 * 1024;

/// What is wrong with the size of inputs.
pub(crate) fn size_fault(inputs: &Map<String, Value>) -> Option<Fault> {
    let size = serde_json::to_string(inputs).map_or(usize::MAX, |text| text.len());
    (size > INPUTS_MAX_BYTES).then(|| Fault {
        field: "inputs".into(),
        detail: "must have at most 48 KiB in all".into(),
    })
}

/// All that is wrong with a registration's name and inputs.
pub fn faults(description: &Description, name: &str, inputs: &Map<String, Value>) -> Vec<Fault> {
    let mut faults = (description.check_registration)(inputs);
    faults.extend(size_fault(inputs));
    faults.extend(name_fault(name));
    faults
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
    act: Act<'_>,
) -> Result<(Stored<Registration>, Warnings), Error> {
    let description = integrations::find(&wanted.integration)
        .ok_or_else(|| Error::NoIntegration(wanted.integration.clone()))?;
    let faults = faults(description, &wanted.name, &wanted.inputs);
    if !faults.is_empty() {
        return Err(Error::Faults(faults));
    }
    if let Some(id) = &wanted.id {
        let key = Registration::at(organization, id);
        match rows::load::<Registration>(platform, &key).await? {
            None => {}
            Some(made) if made.row.deleted_at.is_none() => return Ok((made, Warnings::new())),
            Some(_) => return Err(Error::NotFound(wanted.name)),
        }
    }
    let id = wanted.id.clone().unwrap_or_else(|| id(platform));
    let reserved = reserve(platform, organization, description, &wanted.name, id).await?;
    let check = Check::Registration {
        inputs: wanted.inputs.clone(),
    };
    let verdict = check::ask(platform, (organization, act.actor), description.id, &check).await;
    let warnings = match verdict.map_err(Error::from).and_then(Verdict::accepted) {
        Ok(warnings) => warnings,
        Err(error) => {
            // The reservation would expire by itself; the operator who tries again should not wait for that.
            let secret = Registration::secret_name(
                organization,
                &reserved.row.integration,
                &reserved.row.registration,
            );
            let _ = platform.delete_secret(&secret).await;
            let _ = platform.write(vec![reserved.delete()]).await;
            return Err(error);
        }
    };
    // What fails from here on may have been done all the same, so nothing is taken back: the same request again goes
    // on with it, and otherwise the reservation expires.
    let registration = complete(platform, description, &reserved, wanted, act).await?;
    Ok((registration, warnings))
}

async fn reserve(
    platform: &impl Platform,
    organization: &str,
    description: &Description,
    name: &str,
    id: String,
) -> Result<Stored<Name>, Error> {
    let now = platform.now();
    let row = Name {
        organization: organization.to_owned(),
        name: name.to_owned(),
        registration: id,
        integration: description.id.to_owned(),
        reserved_until: Some(now.plus(schedule::RESERVATION)),
        abandoned: false,
    };
    let expect = free(platform, organization, name, Some(&row.registration)).await?;
    // A reservation that goes on is counted already.
    if expect == Expect::Absent {
        quotas::room(platform, organization, Quota::Registrations).await?;
    }
    let (write, etag) = rows::put(platform, &row, expect);
    match platform.write(vec![write]).await {
        Ok(()) => Ok(Stored { row, etag }),
        Err(WriteError::Conflict) => Err(Error::NameTaken(name.to_owned())),
        Err(WriteError::Unreachable(unreachable)) => Err(unreachable.into()),
    }
}

/// What a name's row must be for somebody to take it, if it is free or reserved for that registration. Removes what
/// another one that was cut off left behind.
pub(crate) async fn free(
    platform: &impl Platform,
    organization: &str,
    name: &str,
    registration: Option<&String>,
) -> Result<Expect, Error> {
    let now = platform.now();
    match rows::load::<Name>(platform, &Name::at(organization, name)).await? {
        None => Ok(Expect::Absent),
        Some(Stored { row, etag })
            if row.reserved_until.is_some()
                && !row.abandoned
                && registration == Some(&row.registration) =>
        {
            Ok(Expect::Unchanged(etag))
        }
        Some(old) if old.row.reserved_until.is_some_and(|until| until < now) => {
            abandon(platform, old).await?;
            Ok(Expect::Absent)
        }
        Some(_) => Err(Error::NameTaken(name.to_owned())),
    }
}

async fn complete(
    platform: &impl Platform,
    description: &Description,
    reserved: &Stored<Name>,
    wanted: Wanted,
    act: Act<'_>,
) -> Result<Stored<Registration>, Error> {
    let schema = (description.registration_schema)();
    let (config, secrets) = inputs::split(&schema, wanted.inputs);
    let name = &reserved.row;
    let secret = Registration::secret_name(&name.organization, description.id, &name.registration);
    let mut registration = Registration {
        id: name.registration.clone(),
        organization: name.organization.clone(),
        name: name.name.clone(),
        integration: description.id.to_owned(),
        version: description.version.to_owned(),
        description: wanted.description,
        config,
        label: inputs::label(&schema, &secrets),
        secret: None,
        secret_version: None,
        created_by: act.actor.name.clone(),
        created_at: platform.now(),
        deleted_at: None,
        paused: None,
        wake_at: None,
    };
    if !secrets.is_empty() {
        let text = serde_json::to_string(&secrets).expect("text keys and JSON values are JSON");
        let version = platform
            .put_secret(&secret, &SecretValue::new(text))
            .await?;
        registration.secret = Some(secret);
        registration.secret_version = Some(version);
    }
    let mut live = reserved.clone();
    live.row.reserved_until = None;
    let (write, etag) = rows::put(platform, &registration, Expect::Absent);
    let subject = Subject::registration(&registration);
    let writes = vec![
        write,
        live.update(platform).0,
        act.entry(platform, &name.organization, subject, description.id),
    ];
    platform.write(writes).await?;
    Ok(Stored {
        row: registration,
        etag,
    })
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
    live(platform, organization, &id).await?.ok_or_else(missing)
}

/// A live registration by its id.
pub(crate) async fn live(
    platform: &impl Platform,
    organization: &str,
    id: &str,
) -> Result<Option<Stored<Registration>>, Unreachable> {
    let key = Registration::at(organization, id);
    let stored = rows::load::<Registration>(platform, &key).await?;
    Ok(stored.filter(|stored| stored.row.deleted_at.is_none()))
}

/// A page of registrations in the order of their names, from behind `after`, and where the next one begins.
pub async fn list(
    platform: &impl Platform,
    organization: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Stored<Registration>>, Option<String>), Unreachable> {
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
    let mut registrations: Vec<Stored<Registration>> = rows::load_many(platform, &keys).await?;
    registrations.retain(|stored| stored.row.deleted_at.is_none());
    registrations.sort_by(|a, b| a.row.name.cmp(&b.row.name));
    Ok((registrations, next))
}

/// The IDs of a registration's attachments, in their order, from behind `after`; at most `limit`.
pub(crate) async fn attachment_ids(
    platform: &impl Platform,
    organization: &str,
    registration: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, Unreachable> {
    let partition = Registration::partition(organization, registration);
    let after = after.map(|id| format!("{}{id}", Link::PREFIX));
    let links = platform
        .list(&partition, Link::PREFIX, after.as_deref(), limit)
        .await?;
    let links: Result<Vec<Stored<Link>>, Unreachable> =
        links.into_iter().map(rows::parse).collect();
    Ok(links?.into_iter().map(|link| link.row.attachment).collect())
}

/// The attachments of a registration, all of them.
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
    only: &Precondition,
    act: Act<'_>,
) -> Result<(Registration, usize), Error> {
    let name = rows::load::<Name>(platform, &Name::at(organization, name_or_id)).await?;
    let id = name.map_or_else(|| name_or_id.to_owned(), |name| name.row.registration);
    let stored = rows::load::<Registration>(platform, &Registration::at(organization, &id))
        .await?
        .ok_or_else(|| Error::NotFound(name_or_id.to_owned()))?;
    let name = name_of(platform, &stored.row).await?;
    let name = name.ok_or_else(|| Error::NotFound(name_or_id.to_owned()))?;
    // First of all nothing new goes through it.
    let mut gone = stored;
    if gone.row.deleted_at.is_none() {
        only.allow(&gone.etag)?;
        let now = platform.now();
        gone.row.deleted_at = Some(now);
        // Should this be cut off, the reconciler ends it.
        gone.row.wake_at = Some(now.plus(schedule::UNFINISHED));
        let (write, etag) = gone.update(platform);
        let subject = Subject::registration(&gone.row);
        let detail = format!("{}, with its attachments", gone.row.integration);
        let entry = act.entry(platform, organization, subject, detail);
        let written = platform.write(vec![write, entry]).await;
        written.map_err(|error| only.conflict(error))?;
        gone.etag = etag;
    }
    complete_deletion(platform, gone, &name).await
}

/// The name of a registration; none when its deletion was completed.
async fn name_of(
    platform: &impl Platform,
    registration: &Registration,
) -> Result<Option<Stored<Name>>, Unreachable> {
    let key = Name::at(&registration.organization, &registration.name);
    let name = rows::load::<Name>(platform, &key).await?;
    Ok(name.filter(|name| name.row.registration == registration.id))
}

/// Removes all that a registration has that is deleted.
async fn complete_deletion(
    platform: &impl Platform,
    mut gone: Stored<Registration>,
    name: &Stored<Name>,
) -> Result<(Registration, usize), Error> {
    let (organization, id) = (gone.row.organization.clone(), gone.row.id.clone());
    let organization = organization.as_str();
    let attachments = attachments(platform, organization, &id).await?;
    let count = attachments.len();
    for attachment in attachments {
        crate::attach::remove(platform, attachment, Vec::new()).await?;
    }
    // Also where the row has none: the update that was to add one may have been cut off.
    let secret = Registration::secret_name(organization, &gone.row.integration, &id);
    platform.delete_secret(&secret).await?;
    // Once more when no update can be under way any more that has seen it and now keeps a secret for it.
    gone.row.wake_at = Some(platform.now().plus(schedule::UNFINISHED));
    // The name last: as long as it is there, asking again finds what is left to do.
    let was_paused = gone.row.paused.take().is_some();
    let now = platform.now();
    let listed = Gone {
        organization: organization.to_owned(),
        registration: id.clone(),
        deleted_at: now,
    };
    let mut writes = vec![
        name.delete(),
        gone.update(platform).0,
        rows::put(platform, &listed, Expect::Absent).0,
    ];
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

/// Ends a deletion that was cut off, or looks once more after one that was not.
pub(crate) async fn finish(
    platform: &impl Platform,
    mut stored: Stored<Registration>,
) -> Result<(), Unreachable> {
    if let Some(name) = name_of(platform, &stored.row).await? {
        return match complete_deletion(platform, stored, &name).await {
            Ok(_) | Err(Error::Conflict) => Ok(()),
            Err(Error::Unreachable(unreachable)) => Err(unreachable),
            Err(other) => Err(Unreachable {
                what: "table",
                why: other.to_string(),
            }),
        };
    }
    let Registration {
        organization,
        integration,
        id,
        ..
    } = &stored.row;
    let secret = Registration::secret_name(organization, integration, id);
    platform.delete_secret(&secret).await?;
    stored.row.wake_at = None;
    match platform.write(vec![stored.update(platform).0]).await {
        Ok(()) | Err(WriteError::Conflict) => Ok(()),
        Err(WriteError::Unreachable(unreachable)) => Err(unreachable),
    }
}

/// Removes what a registration that was cut off left behind: its reservation, and its secret.
pub(crate) async fn abandon(
    platform: &impl Platform,
    mut stored: Stored<Name>,
) -> Result<(), Unreachable> {
    let reserved_until = stored.row.reserved_until;
    if reserved_until.is_none_or(|until| until >= platform.now()) {
        return Ok(());
    }
    // First of all, so that the same request, should it come again just now, completes nothing that loses its secret.
    if !stored.row.abandoned {
        stored.row.abandoned = true;
        let (write, etag) = stored.update(platform);
        match platform.write(vec![write]).await {
            Ok(()) => stored.etag = etag,
            Err(WriteError::Conflict) => return Ok(()),
            Err(WriteError::Unreachable(unreachable)) => return Err(unreachable),
        }
    }
    let Name {
        organization,
        integration,
        registration,
        ..
    } = &stored.row;
    let secret = Registration::secret_name(organization, integration, registration);
    platform.delete_secret(&secret).await?;
    match platform.write(vec![stored.delete()]).await {
        Ok(()) | Err(WriteError::Conflict) => Ok(()),
        Err(WriteError::Unreachable(unreachable)) => Err(unreachable),
    }
}
