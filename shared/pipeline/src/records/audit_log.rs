//! The audit log: who did what, to what, and from where. An entry is written in the same transaction as the change that
//! it tells of; what changes nothing and is told all the same, as a download, is told before it is answered.

use api::{Actor, Timestamp};

use crate::store::ids;
use crate::store::platform::{Platform, Scope, UnlessConflict as _, Unreachable, Write};
use crate::store::rows::{self, Attachment, AuditEntry, Delivery, Registration};

/// Somebody who does something, and what the audit log calls it: the route says that.
#[derive(Debug, Clone, Copy)]
pub struct Act<'a> {
    pub actor: &'a Actor,
    /// `registration.create` …
    pub action: &'a str,
}

/// To what something is done: by its name, which people know, and by what it is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub name: String,
    /// An id or a digest; empty where the name is enough.
    pub id: String,
}

impl Subject {
    pub fn new(name: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            id: id.into(),
        }
    }

    pub fn registration(registration: &Registration) -> Self {
        Self::new(&registration.name, registration.id.as_str())
    }

    /// An attachment has no name: it is known by what it ties together.
    pub fn attachment(attachment: &Attachment, registration: &Registration) -> Self {
        Self::new(
            tie(&registration.name, &attachment.workflow.0),
            attachment.id.as_str(),
        )
    }

    /// A delivery, by where it goes and from which workflow it comes.
    pub async fn delivery(
        platform: &impl Platform,
        delivery: &Delivery,
    ) -> Result<Self, Unreachable> {
        let key = Registration::at(&delivery.organization, &delivery.registration);
        let registration = rows::load::<Registration>(platform, &key).await?;
        let name =
            registration.map_or_else(|| delivery.integration.clone(), |stored| stored.row.name);
        Ok(Self::new(
            tie(&name, &workflow(&delivery.workflow)),
            delivery.id.as_str(),
        ))
    }
}

fn tie(registration: &str, workflow: &str) -> String {
    format!("{registration} for {workflow}")
}

/// A workflow as people call it.
pub(crate) fn workflow(workflow: &api::workflows::Workflow) -> String {
    match workflow.name.as_str() {
        "" => workflow.id.clone(),
        name => format!("{}/{name}", workflow.project),
    }
}

impl Act<'_> {
    /// An entry to be written together with the change.
    pub(crate) fn entry(
        &self,
        scope: Scope<'_, impl Platform>,
        subject: Subject,
        detail: impl Into<String>,
    ) -> Write {
        let (platform, organization) = scope.parts();
        let now = platform.now();
        let Actor {
            name, id, client, ..
        } = self.actor;
        let entry = AuditEntry {
            organization: organization.to_owned(),
            id: ids::ordered(platform, now),
            action: self.action.to_owned(),
            subject: subject.name,
            subject_id: subject.id,
            detail: detail.into(),
            by: name.clone(),
            token: id.clone(),
            client: client.clone(),
            created_at: now,
        };
        rows::insert(platform, &entry).0
    }
}

/// Tells of what changes nothing.
pub async fn record(
    scope: Scope<'_, impl Platform>,
    act: Act<'_>,
    subject: Subject,
    detail: impl Into<String>,
) -> Result<(), Unreachable> {
    let platform = scope.platform;
    let entry = act.entry(scope, subject, detail);
    platform.write(vec![entry]).await.unless_conflict()?;
    Ok(())
}

/// A page of the entries of a day, last first, and where the next one begins.
pub async fn entries(
    scope: Scope<'_, impl Platform>,
    day: Timestamp,
    before: Option<&str>,
    limit: usize,
) -> Result<(Vec<AuditEntry>, Option<String>), Unreachable> {
    let (platform, organization) = scope.parts();
    let partition = AuditEntry::partition(organization, day);
    rows::last_page(platform, &partition, "entry/", before, limit).await
}
