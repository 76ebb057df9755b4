//! Projects that the SBOMs of a delivery go to, each named by an ID or by templates that are filled for its material.

use std::fmt;

use attestation::Material;
use serde_json::Value;
use uuid::Uuid;

use super::inputs::{Named, Parent, Project};
use crate::template::{Bound, Facts};
use crate::{Template, facts};

/// A project, with all gaps in its name filled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Id(Uuid),
    Named {
        name: String,
        version: Option<String>,
    },
}

/// As long as Dependency-Track's names and versions can be.
const NAME_BYTES: usize = 255;

/// A name or a version as Dependency-Track keeps it: it drops the spaces around, and refuses line ends. All other
/// letters stay, seen or not: without a joiner a Persian word is another.
fn key(text: &str) -> String {
    text.trim().replace(char::is_control, " ")
}

impl Place {
    /// Returns the place that all attestations share; `None` for a template with gaps.
    pub(super) fn literal(named: &Named) -> Option<Self> {
        let literal = |template: &Template| {
            let text = template.to_string();
            let has_gaps = ["{{", "{%", "{#"].iter().any(|tag| text.contains(tag));
            (!has_gaps).then(|| key(&text))
        };
        Some(Self::Named {
            name: literal(&named.name)?,
            version: match &named.version {
                Some(version) => Some(literal(version)?),
                None => None,
            },
        })
    }

    /// Returns the place that the receipt of an SBOM names.
    pub(super) fn of_receipt(sbom: &Value) -> Option<Self> {
        let text = |key: &str| sbom[key].as_str().map(str::to_owned);
        let id = text("project").and_then(|id| id.parse().ok());
        match (id, text("name")) {
            (Some(id), _) => Some(Self::Id(id)),
            (None, Some(name)) => Some(Self::Named {
                name,
                version: text("version"),
            }),
            (None, None) => None,
        }
    }

    /// Returns the fields of a form by which it is named, each under one of these keys.
    pub(super) fn fields(&self, keys: [&'static str; 3]) -> Vec<(&'static str, String)> {
        let [id_key, name_key, version_key] = keys;
        match self {
            Self::Id(id) => vec![(id_key, id.to_string())],
            Self::Named { name, version } => {
                let version = version.clone().map(|version| (version_key, version));
                let name = (name_key, name.clone());
                [name].into_iter().chain(version).collect()
            }
        }
    }
}

/// Tells any two apart, since it is also what a project is taken by.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "project {id}"),
            Self::Named {
                name,
                version: None,
            } => write!(f, "project {name:?}"),
            Self::Named {
                name,
                version: Some(version),
            } => write!(f, "project {name:?} {version:?}"),
        }
    }
}

/// Projects that the SBOMs of a delivery go to.
pub(super) struct Targets<'a> {
    project: Target<'a>,
    parent: Option<Target<'a>>,
}

enum Target<'a> {
    Id(Uuid),
    Named {
        name: Field<'a>,
        version: Option<Field<'a>>,
    },
}

/// Name of an input, and its template over the facts that all SBOMs of a delivery share.
type Field<'a> = (&'static str, Bound<'a>);

impl<'a> Targets<'a> {
    pub(super) fn new(project: &'a Project, facts: &Facts<'_>) -> Self {
        let named = |named: &'a Named, [name, version]: [&'static str; 2]| Target::Named {
            name: (name, named.name.bind(facts)),
            version: (named.version.as_ref()).map(|template| (version, template.bind(facts))),
        };
        let (project, parent) = match project {
            Project::Id(id) => (Target::Id(*id), None),
            Project::Named(project, parent) => (
                named(project, ["projectName", "projectVersion"]),
                parent.as_ref(),
            ),
        };
        let parent = parent.map(|parent| match parent {
            Parent::Id(id) => Target::Id(*id),
            Parent::Named(parent) => named(parent, ["parentName", "parentVersion"]),
        });
        Self { project, parent }
    }

    /// The material's project and its parent. The error is what an operator is told.
    pub(super) fn of(&self, material: &Material) -> Result<(Place, Option<Place>), String> {
        let facts = facts::exact_material(material);
        let project = self.project.fill(&facts)?;
        let parent = self.parent.as_ref().map(|parent| parent.fill(&facts));
        Ok((project, parent.transpose()?))
    }
}

impl Target<'_> {
    fn fill(&self, material: &Value) -> Result<Place, String> {
        let fill = |(field, template): &Field<'_>| {
            let text = template.exact(Some(material), NAME_BYTES);
            let text = key(&text.map_err(|reason| format!("{field}: {reason}"))?);
            match text.is_empty() {
                true => Err(format!("{field}: the text is empty")),
                false => Ok(text),
            }
        };
        Ok(match self {
            Self::Id(id) => Place::Id(*id),
            Self::Named { name, version } => Place::Named {
                name: fill(name)?,
                version: version.as_ref().map(fill).transpose()?,
            },
        })
    }
}
