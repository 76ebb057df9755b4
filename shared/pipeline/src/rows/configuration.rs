//! Registrations, and their attachments to workflows.

use std::time::Duration;

use integrations::Workflow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::row::{Row, shard};
use crate::clock::Timestamp;
use crate::platform::{Index, Key};

/// A name of the organization's registrations: makes it unique, and lists them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegistrationName {
    pub organization: String,
    pub name: String,
    /// The registration's id.
    pub registration: String,
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
    pub fn partition(organization: &str) -> String {
        format!("org/{organization}/registrations")
    }

    pub fn at(organization: &str, name: &str) -> Key {
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

/// Nothing is sent through a registration while it is paused; what comes is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pause {
    pub since: Timestamp,
    pub reason: String,
    /// The name of the token that asked for it; none when it was paused because it failed.
    #[serde(default)]
    pub by: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registration {
    pub id: String,
    pub organization: String,
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
    /// The name of the token that registered it; empty when it was before that was kept.
    #[serde(default)]
    pub created_by: String,
    pub created_at: Timestamp,
    /// Since then it is going away, and nothing is delivered through it.
    #[serde(default)]
    pub deleted_at: Option<Timestamp>,
    #[serde(default)]
    pub paused: Option<Pause>,
    /// When the reconciler must look at it: to end a deletion that was cut off, or because what it holds has
    /// been held for too long.
    #[serde(default)]
    pub wake_at: Option<Timestamp>,
}

impl Registration {
    pub fn partition(organization: &str, id: &str) -> String {
        format!("org/{organization}/registration/{id}")
    }

    pub fn at(organization: &str, id: &str) -> Key {
        Key::new(Self::partition(organization, id), "registration")
    }

    /// `<stack>/` is put before it by the platform.
    pub fn secret_name(organization: &str, integration: &str, id: &str) -> String {
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
    pub organization: String,
    pub registration: String,
    pub deleted_at: Timestamp,
}

impl RegistrationTombstone {
    pub fn partition(organization: &str) -> String {
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
    pub id: String,
    pub organization: String,
    /// The registration's id.
    pub registration: String,
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
    pub fn at(organization: &str, id: &str) -> Key {
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

/// Workflows of an attachment: an ID, `project/name`, `project/*`, or `*`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Selector(pub String);

/// By what of a workflow a selector is for it. A plan keeps this instead of each selector: those of one workflow
/// follow from it, and a plan is one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Match {
    /// Its id, which is a UUID: nothing else is one, so that no id is another's name.
    Id,
    /// Its project and its name.
    Name,
    /// Its project.
    Project,
    /// It is a workflow.
    All,
}

impl Match {
    /// Most particular first.
    pub const ALL: [Self; 4] = [Self::Id, Self::Name, Self::Project, Self::All];

    /// The selector that is for the workflow by this; none where the workflow has no such thing.
    pub fn selector(self, workflow: &Workflow) -> Option<Selector> {
        let Workflow { id, project, name } = workflow;
        let text = match self {
            Self::Id => workflow_id(id)?,
            Self::Name if !name.is_empty() => format!("{project}/{name}"),
            Self::Project if !project.is_empty() => format!("{project}/*"),
            Self::All => "*".to_owned(),
            Self::Name | Self::Project => return None,
        };
        Some(Selector(text))
    }
}

/// A workflow's id as it is compared: a UUID in its usual form. None when the text is not one.
pub fn workflow_id(text: &str) -> Option<String> {
    let id = uuid::Uuid::try_parse(text).ok()?;
    Some(id.to_string())
}

impl Selector {
    /// Reports whether this selector matches a workflow.
    pub fn is_for(&self, workflow: &Workflow) -> bool {
        self.matched(workflow).is_some()
    }

    /// By what it is for that workflow.
    pub fn matched(&self, workflow: &Workflow) -> Option<Match> {
        let of = |matched: &Match| matched.selector(workflow).as_ref() == Some(self);
        Match::ALL.into_iter().find(of)
    }

    /// Returns the selectors that match a workflow, most specific first.
    pub fn of(workflow: &Workflow) -> Vec<Self> {
        let all = Match::ALL.into_iter();
        all.filter_map(|matched| matched.selector(workflow))
            .collect()
    }
}

/// An attachment as found from its workflow (for intake) or from its registration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachmentIndex {
    pub organization: String,
    /// The attachment's id.
    pub attachment: String,
    pub registration: String,
    pub integration: String,
    /// Set in the workflow's partition, not in the registration's.
    #[serde(default)]
    pub workflow: Option<Selector>,
}

impl AttachmentIndex {
    pub const PREFIX: &str = "attachment/";

    pub fn of_workflow(organization: &str, selector: &Selector) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow(id: &str, project: &str, name: &str) -> Workflow {
        Workflow {
            id: id.into(),
            project: project.into(),
            name: name.into(),
        }
    }

    #[test]
    fn a_workflows_selectors_are_its_uuid_its_name_its_project_and_all() {
        let of = |workflow| {
            let selectors = Selector::of(&workflow).into_iter();
            selectors.map(|selector| selector.0).collect::<Vec<_>>()
        };
        let id = "6F0C1F0E-0000-4000-8000-000000000001";
        assert_eq!(
            of(workflow(id, "shop", "nightly")),
            [&id.to_lowercase(), "shop/nightly", "shop/*", "*"]
        );
        assert_eq!(
            of(workflow("6F0C1F0E000040008000000000000001", "", "")),
            [&id.to_lowercase(), "*"]
        );
    }

    #[test]
    fn an_id_that_is_no_uuid_is_no_selector() {
        for id in ["shop/nightly", "shop/*", "*", "nightly", "", "6f0c1f0e"] {
            let evil = workflow(id, "evil", "x");
            for selector in ["shop/nightly", "shop/*", "nightly", "6f0c1f0e", id] {
                let is_for = Selector(selector.into()).is_for(&evil);
                assert_eq!(is_for, selector == "*", "{id:?} {selector:?}");
            }
            assert_eq!(Selector("*".into()).matched(&evil), Some(Match::All));
            assert_eq!(Selector("evil/x".into()).matched(&evil), Some(Match::Name));
            assert_eq!(
                Selector("evil/*".into()).matched(&evil),
                Some(Match::Project)
            );
        }
    }
}
