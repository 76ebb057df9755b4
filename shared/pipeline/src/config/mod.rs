//! Configuration by operators: registrations, attachments, tokens, intakes, trust policies and issuers, with their quotas. This file loads
//! registrations and attachments, and has the errors of changing them.

pub mod admission;
pub mod attach;
pub mod check;
pub mod exchange;
pub(crate) mod external_id;
pub mod intakes;
pub mod issuers;
pub mod keys;
pub mod last_use;
pub mod pace;
pub mod quotas;
pub mod register;
pub(crate) mod rotation;
pub mod secrets;
pub mod tokens;
pub mod trust;
pub mod update;

use std::collections::BTreeMap;

use api::inputs::Fault;
use api::{AttachmentId, RegistrationId};
use serde_json::{Map, Value};
use tracing::warn;

use self::quotas::Exceeded;
use crate::store::platform::{Etag, Platform, Scope, Unreachable, WriteError};
use crate::store::rows::{
    self, Attachment, AttachmentIndex, Registration, RegistrationName, Stored,
};

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
        id: AttachmentId,
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
    NotAttached(AttachmentId),
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

    /// Maps a write conflict to [`Error::Changed`] if the client set a precondition.
    pub(crate) fn conflict(&self, error: WriteError) -> Error {
        match error {
            WriteError::Conflict if self.0.is_some() => Error::Changed,
            other => other.into(),
        }
    }
}

/// The most that inputs may have in all, as JSON: a row has room for 400 KB, a secret for 64 KiB.
const INPUTS_MAX_BYTES: usize = 48 * 1024;

/// Returns a fault when the inputs are too large.
pub(crate) fn size_fault(inputs: &Map<String, Value>) -> Option<Fault> {
    let size = serde_json::to_string(inputs).map_or(usize::MAX, |text| text.len());
    (size > INPUTS_MAX_BYTES).then(|| Fault {
        field: "inputs".into(),
        detail: "must have at most 48 KiB in all".into(),
    })
}

/// A live registration by its name or its id.
pub async fn find(
    scope: Scope<'_, impl Platform>,
    name_or_id: &str,
) -> Result<Stored<Registration>, Error> {
    let (platform, organization) = scope.parts();
    let missing = || Error::NotFound(name_or_id.to_owned());
    let name =
        rows::load::<RegistrationName>(platform, &RegistrationName::at(organization, name_or_id))
            .await?;
    let id = match name {
        Some(name) if name.row.reserved_until.is_none() => name.row.registration,
        Some(_) => return Err(missing()),
        None => name_or_id.into(),
    };
    live(scope, &id).await?.ok_or_else(missing)
}

/// A live registration by its id.
pub(crate) async fn live(
    scope: Scope<'_, impl Platform>,
    id: &RegistrationId,
) -> Result<Option<Stored<Registration>>, Unreachable> {
    let (platform, organization) = scope.parts();
    let key = Registration::at(organization, id);
    let stored = rows::load::<Registration>(platform, &key).await?;
    Ok(stored.filter(|stored| stored.row.deleted_at.is_none()))
}

/// Names of registrations today, those that were deleted among them.
pub type Names = BTreeMap<RegistrationId, String>;

/// Loads the names of these registrations. Nothing else keeps them, since a name may change. Names that cannot be read are
/// left out: what they stand beside has been done, or is told by its ID.
pub async fn names(
    scope: Scope<'_, impl Platform>,
    ids: impl IntoIterator<Item = &RegistrationId>,
) -> Names {
    let (platform, organization) = scope.parts();
    let ids = ids.into_iter();
    let keys: Vec<_> = ids.map(|id| Registration::at(organization, id)).collect();
    let rows = rows::load_many::<Registration>(platform, &keys).await;
    let rows = rows.unwrap_or_else(|unreachable| {
        warn!(error = %unreachable, "Names of registrations are not shown");
        Vec::new()
    });
    let named = rows.into_iter().map(|stored| stored.row);
    named.map(|row| (row.id, row.name)).collect()
}

/// A page of registrations in the order of their names, from behind `after`, and where the next one begins.
pub async fn list(
    scope: Scope<'_, impl Platform>,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Stored<Registration>>, Option<String>), Unreachable> {
    let (platform, organization) = scope.parts();
    let names = platform
        .list(&RegistrationName::partition(organization), "", after, limit)
        .await?;
    let next = (names.len() == limit)
        .then(|| names.last()?.get("sk")?.as_str().map(str::to_owned))
        .flatten();
    let keys: Vec<_> = names
        .iter()
        .filter(|name| !name.contains_key("reserved_until"))
        .filter_map(|name| name.get("registration")?.as_str())
        .map(|id| Registration::at(organization, &id.into()))
        .collect();
    let mut registrations: Vec<Stored<Registration>> = rows::load_many(platform, &keys).await?;
    registrations.retain(|stored| stored.row.deleted_at.is_none());
    registrations.sort_by(|a, b| a.row.name.cmp(&b.row.name));
    Ok((registrations, next))
}

/// The IDs of a registration's attachments, in their order, from behind `after`; at most `limit`.
pub(crate) async fn attachment_ids(
    scope: Scope<'_, impl Platform>,
    registration: &RegistrationId,
    after: Option<&AttachmentId>,
    limit: usize,
) -> Result<Vec<AttachmentId>, Unreachable> {
    let (platform, organization) = scope.parts();
    let partition = Registration::partition(organization, registration);
    let after = after.map(|id| format!("{}{id}", AttachmentIndex::PREFIX));
    let links = platform
        .list(&partition, AttachmentIndex::PREFIX, after.as_deref(), limit)
        .await?;
    let links: Result<Vec<Stored<AttachmentIndex>>, Unreachable> =
        links.into_iter().map(rows::parse).collect();
    Ok(links?.into_iter().map(|link| link.row.attachment).collect())
}

/// The attachments of a registration, all of them.
pub async fn attachments(
    scope: Scope<'_, impl Platform>,
    registration: &RegistrationId,
) -> Result<Vec<Stored<Attachment>>, Unreachable> {
    let (platform, organization) = scope.parts();
    let partition = Registration::partition(organization, registration);
    let links =
        rows::load_all::<AttachmentIndex>(platform, &partition, AttachmentIndex::PREFIX).await?;
    let mut attachments = indexed(platform, &links).await?;
    attachments.sort_by(|a, b| {
        a.row
            .created_at
            .cmp(&b.row.created_at)
            .then(a.row.id.cmp(&b.row.id))
    });
    Ok(attachments)
}

/// The attachments of these index rows, but those deleted meanwhile.
pub async fn indexed(
    platform: &impl Platform,
    links: impl IntoIterator<Item = &Stored<AttachmentIndex>>,
) -> Result<Vec<Stored<Attachment>>, Unreachable> {
    let links = links.into_iter().map(|link| &link.row);
    let keys: Vec<_> = links
        .map(|link| Attachment::at(&link.organization, &link.attachment))
        .collect();
    let mut attachments = rows::load_many::<Attachment>(platform, &keys).await?;
    attachments.retain(|attachment| attachment.row.deleted_at.is_none());
    Ok(attachments)
}
