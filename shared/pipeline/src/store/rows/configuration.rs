//! Registrations, and their attachments to workflows.

use std::time::Duration;

use api::registrations::Pause;
use api::workflows::Selector;
use api::{AttachmentId, JobId, OrganizationName, RegistrationId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::row::{Row, shard};
use crate::store::platform::{Index, Key};

/// A name of the organization's registrations: makes it unique, and lists them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegistrationName {
    pub organization: OrganizationName,
    pub name: String,
    /// The registration's id.
    pub registration: RegistrationId,
    pub integration: String,
    /// Until then the name is reserved by a registration that is being made; then it is free again.
    #[serde(default)]
    pub reserved_until: Option<Timestamp>,
    /// The reservation was for nothing, and what it left behind is being removed.
    #[serde(default)]
    pub abandoned: bool,
}

/// Grace period after a reservation ends, so that the request that made it can complete it.
const ABANDONED: Duration = Duration::from_mins(1);

impl RegistrationName {
    pub fn partition(organization: &OrganizationName) -> String {
        format!("org/{organization}/registrations")
    }

    pub fn at(organization: &OrganizationName, name: &str) -> Key {
        Key::new(Self::partition(organization), name)
    }

    /// Reports whether a row with this key is a registration name.
    pub fn is_at(key: &Key) -> bool {
        key.partition.ends_with("/registrations")
    }
}

impl Row for RegistrationName {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.name)
    }

    fn indexes(&self) -> Vec<(Index, String, Timestamp)> {
        // What a cut-off registration leaves behind is removed.
        let due = self
            .reserved_until
            .map(|until| (Index::Due, shard(&self.registration), until.plus(ABANDONED)));
        due.into_iter().collect()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registration {
    pub id: RegistrationId,
    pub organization: OrganizationName,
    pub name: String,
    pub integration: String,
    /// Version of the integration when the inputs were last checked.
    pub version: String,
    #[serde(default)]
    pub description: String,
    /// The inputs without the secret ones.
    pub config: Map<String, Value>,
    /// Labels of the secret inputs, which may be shown.
    pub label: Map<String, Value>,
    /// Name of the secret that holds the secret inputs; none without any.
    #[serde(default)]
    pub secret: Option<String>,
    /// Version of that secret that goes with `config`, so that both change in one write; the current version when none.
    #[serde(default)]
    pub secret_version: Option<String>,
    /// The organization's, where it names a role at AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The name of the token that registered it; empty when it was before that was kept.
    #[serde(default)]
    pub created_by: String,
    pub created_at: Timestamp,
    /// Since then it is going away, and nothing is delivered through it.
    #[serde(default)]
    pub deleted_at: Option<Timestamp>,
    #[serde(default)]
    pub paused: Option<Pause>,
    /// The job that lets go what it held, at its own rate; it may be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<JobId>,
    /// When the reconciler must look at it: to end a deletion that was cut off, or because what it holds has
    /// been held for too long.
    #[serde(default)]
    pub wake_at: Option<Timestamp>,
}

impl Registration {
    pub fn partition(organization: &OrganizationName, id: &RegistrationId) -> String {
        format!("org/{organization}/registration/{id}")
    }

    pub fn at(organization: &OrganizationName, id: &RegistrationId) -> Key {
        Key::new(Self::partition(organization, id), "registration")
    }

    /// `<stack>/` is put before it by the platform.
    pub fn secret_name(
        organization: &OrganizationName,
        integration: &str,
        id: &RegistrationId,
    ) -> String {
        format!("{integration}/{organization}/{id}")
    }
}

impl Row for Registration {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.id)
    }

    fn indexes(&self) -> Vec<(Index, String, Timestamp)> {
        let due = self
            .wake_at
            .map(|wake_at| (Index::Due, shard(&self.id), wake_at));
        due.into_iter().collect()
    }
}

/// A registration that was deleted, for as long as its deliveries are there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegistrationTombstone {
    pub organization: OrganizationName,
    pub registration: RegistrationId,
    pub deleted_at: Timestamp,
}

impl RegistrationTombstone {
    pub fn partition(organization: &OrganizationName) -> String {
        format!("org/{organization}/gone")
    }
}

impl Row for RegistrationTombstone {
    fn key(&self) -> Key {
        let Self {
            organization,
            registration,
            deleted_at,
        } = self;
        Key::new(
            Self::partition(organization),
            // In the order of time.
            format!("{deleted_at}/{registration}"),
        )
    }

    fn kept_since(&self) -> Option<Timestamp> {
        Some(self.deleted_at)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attachment {
    pub id: AttachmentId,
    pub organization: OrganizationName,
    /// The registration's id.
    pub registration: RegistrationId,
    pub integration: String,
    pub workflow: Selector,
    pub config: Map<String, Value>,
    /// Time that its deliveries wait for a missing material; the default when none.
    #[serde(default)]
    pub wait_secs: Option<u64>,
    /// Made for one test delivery: attached to no workflow, and forgotten with it.
    #[serde(default)]
    pub is_test: bool,
    /// The name of the token that attached it; empty when it was before that was kept.
    #[serde(default)]
    pub created_by: String,
    pub created_at: Timestamp,
    #[serde(default)]
    pub deleted_at: Option<Timestamp>,
}

impl Attachment {
    pub fn at(organization: &OrganizationName, id: &AttachmentId) -> Key {
        Key::new(format!("org/{organization}/attachment/{id}"), "attachment")
    }
}

impl Row for Attachment {
    fn key(&self) -> Key {
        Self::at(&self.organization, &self.id)
    }

    fn kept_since(&self) -> Option<Timestamp> {
        self.is_test.then_some(self.created_at)
    }
}

/// An attachment as found from its workflow (for intake) or from its registration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachmentIndex {
    pub organization: OrganizationName,
    /// The attachment's id.
    pub attachment: AttachmentId,
    pub registration: RegistrationId,
    pub integration: String,
    /// Set in the workflow's partition, not in the registration's.
    #[serde(default)]
    pub workflow: Option<Selector>,
}

impl AttachmentIndex {
    pub const PREFIX: &str = "attachment/";

    pub fn of_workflow(organization: &OrganizationName, selector: &Selector) -> String {
        format!("org/{organization}/workflow/{}", selector.0)
    }
}

impl Row for AttachmentIndex {
    fn key(&self) -> Key {
        let partition = match &self.workflow {
            Some(selector) => Self::of_workflow(&self.organization, selector),
            None => Registration::partition(&self.organization, &self.registration),
        };
        Key::new(partition, format!("{}{}", Self::PREFIX, self.attachment))
    }
}
