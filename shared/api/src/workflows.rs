//! Workflows: how they are named, selected and listed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inputs::Fault;
use crate::timestamp::Timestamp;

/// Workflow whose run made the attestation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "WorkflowName")]
pub struct Workflow {
    /// Chainloop's workflow id; empty when the attestation carries none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    pub project: String,
    pub name: String,
}

/// A workflow that an attestation came from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Workflow")]
pub struct ListedWorkflow {
    pub workflow: Workflow,
    pub first_seen_at: Timestamp,
    /// When its newest attestation was accepted; none when nothing of it is kept any more.
    pub attested_at: Option<Timestamp>,
    /// Number of attachments that match it.
    pub attachments: usize,
}

/// Workflows of an attachment: an ID, `project/name`, `project/*`, or `*`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Selector(pub String);

/// By what of a workflow a selector is for it, most particular first. A plan keeps this instead of each selector: those of
/// one workflow follow from it, and a plan is one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

/// Reports whether a workflow's name or project can be `text`: neither has a `*`, which selectors use, or a control
/// character. A name may have slashes, since the project ends at the first one.
pub fn is_plain(text: &str) -> bool {
    !text
        .chars()
        .any(|letter| letter == '*' || letter.is_control())
}

/// As [`is_plain`], of a project or an id.
pub fn is_plain_part(text: &str) -> bool {
    is_plain(text) && !text.contains('/')
}

/// Reads how a workflow is named: an id, a name with its project, `project/name`, `project/*`, or `*`.
pub fn selector(workflow: &str, project: Option<&str>) -> Result<Selector, Fault> {
    let fault = |detail: &str| Fault {
        field: "workflow".into(),
        detail: detail.into(),
    };
    let project = project.filter(|project| !project.is_empty());
    if workflow.is_empty() || workflow.len() > 512 {
        return Err(fault("must be 1 to 512 characters long"));
    }
    let project_fault = |detail: &str| Fault {
        field: "project".into(),
        detail: detail.into(),
    };
    if project.is_some_and(|project| project.len() > 512) {
        return Err(project_fault("must be at most 512 characters long"));
    }
    if project.is_some_and(|project| !is_plain_part(project)) {
        return Err(project_fault(
            "must have no `/`, no `*` and no control characters",
        ));
    }
    if workflow == "*" && project.is_none() {
        return Ok(Selector("*".into()));
    }
    if let Some(id) = workflow_id(workflow) {
        return Ok(Selector(id));
    }
    // `project/*`, or `*` with a project.
    let names = workflow.strip_suffix("/*").unwrap_or(workflow);
    if !is_plain(names) && workflow != "*" {
        return Err(fault(
            "must have no control characters, and `*` only in place of a whole name: project/*, or *",
        ));
    }
    let selector = match (workflow.split_once('/'), project) {
        (Some((own, name)), Some(project)) if own == project && !name.is_empty() => {
            workflow.to_owned()
        }
        (Some((own, name)), None) if !own.is_empty() && !name.is_empty() => workflow.to_owned(),
        (Some(_), Some(_)) => return Err(fault("names another project than `project` does")),
        (Some(_), None) => {
            return Err(fault("must have both a project and a name: project/name"));
        }
        (None, Some(project)) => format!("{project}/{workflow}"),
        (None, None) => {
            return Err(fault(
                "is a name without its project: give `project` too, or project/name",
            ));
        }
    };
    // Shown as one text, it is read again.
    match selector.len() {
        ..=512 => Ok(Selector(selector)),
        _ => Err(fault(
            "must be at most 512 characters long, with its project",
        )),
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
    fn a_selector_that_is_made_of_two_texts_is_read_as_one() {
        let name = "a".repeat(500);
        let made = selector(&name, Some("shop")).unwrap();
        assert_eq!(selector(&made.0, None), Ok(made));
        let fault = selector(&name, Some(&name)).unwrap_err();
        assert_eq!(fault.field, "workflow");
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
