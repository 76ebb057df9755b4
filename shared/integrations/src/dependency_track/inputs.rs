//! Inputs for an operator to fill in, checked when they are read.

use std::str::FromStr;

use http::HeaderValue;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use crate::{Authorities, Filter, SecretText, Template};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// URL of Dependency-Track's API server; where it has a path, `/api` is asked for below that
    #[serde(rename = "instanceURI")]
    #[schemars(with = "String", url, example = "https://dtrack.example.org", extend("x-destination" = true))]
    pub instance_uri: Instance,
    /// API key of a team that may upload SBOMs (`BOM_UPLOAD`)
    #[serde(rename = "apiKey")]
    #[schemars(with = "SecretText")]
    pub api_key: ApiKey,
    /// Whether projects that are not there yet are created, for which the team needs `PROJECT_CREATION_UPLOAD` or a like permission
    #[serde(rename = "allowAutoCreate", default)]
    pub allow_auto_create: bool,
    #[serde(default)]
    pub ca_certificates: Option<Authorities>,
}

/// Inputs of an attachment, checked.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "Given")]
#[schemars(with = "Given")]
pub struct Attachment {
    pub project: Project,
    /// Of the project, with commas between them.
    pub tags: Option<Tags>,
    pub is_latest: bool,
    pub filter: Option<Filter>,
}

/// Project that the SBOMs are for.
#[derive(Debug, Clone)]
pub enum Project {
    Id(Uuid),
    Named(Box<Named>, Option<Parent>),
}

/// Below which project a new one is created.
#[derive(Debug, Clone)]
pub enum Parent {
    Id(Uuid),
    Named(Box<Named>),
}

/// Name and version of a project, filled in anew for each attestation.
#[derive(Debug, Clone)]
pub struct Named {
    pub name: Template,
    pub version: Option<Template>,
}

/// Inputs of an attachment, as entered.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{ "required": ["projectName"] }, { "required": ["projectID"] }],
    "not" = { "required": ["parentID", "parentName"] },
    "dependentRequired" = {
        "parentID": ["projectName"],
        "parentName": ["projectName"],
        "parentVersion": ["parentName"],
        "projectVersion": ["projectName"],
    },
))]
struct Given {
    /// UUID of an existing project; either this or `projectName` is needed
    #[serde(rename = "projectID", default)]
    #[schemars(with = "Option<String>", length(min = 1), example = EXAMPLE)]
    project_id: Option<ProjectId>,
    /// Name of the project, in which `{{ material.annotations.component }}` and other facts of the attestation can stand; either this or `projectID` is needed
    #[serde(rename = "projectName", default)]
    #[schemars(example = &"shop")]
    project_name: Option<Template>,
    /// Version of the project that `projectName` names, as in `{{ workflow.version }}`
    #[serde(rename = "projectVersion", default)]
    project_version: Option<Template>,
    /// UUID of the project below which a new one is created
    #[serde(rename = "parentID", default)]
    #[schemars(with = "Option<String>", length(min = 1), example = EXAMPLE)]
    parent_id: Option<ProjectId>,
    /// Name of the project below which a new one is created
    #[serde(rename = "parentName", default)]
    parent_name: Option<Template>,
    /// Version of the project that `parentName` names
    #[serde(rename = "parentVersion", default)]
    parent_version: Option<Template>,
    /// Tags of a project that is created, with commas between them; those of an existing project change only if the team has `PORTFOLIO_MANAGEMENT` or `PORTFOLIO_MANAGEMENT_UPDATE`
    #[serde(rename = "projectTags", default)]
    #[schemars(with = "Option<String>", length(min = 1, max = 1024))]
    project_tags: Option<Tags>,
    /// Whether a project that is created becomes the latest version of those with its name
    #[serde(rename = "isLatest", default)]
    is_latest: bool,
    /// Only attestations and materials that fit, as in `environment=prod, workflow.branch=release/*`
    #[serde(default)]
    filter: Option<Filter>,
}

const EXAMPLE: &str = "c1b5c0a2-9c37-4d0e-8f0f-4d3f5a7e2b19";

impl TryFrom<Given> for Attachment {
    type Error = String;

    fn try_from(given: Given) -> Result<Self, Self::Error> {
        let refused = |text: &str| Err(text.to_owned());
        let needs = |needed: &str, given: &str| {
            refused(&format!(
                "property '{needed}' is required, if '{given}' property exists"
            ))
        };
        let parent = match (given.parent_id, given.parent_name, given.parent_version) {
            (Some(_), Some(_), _) => return refused("parentID and parentName exclude each other"),
            (_, None, Some(_)) => return needs("parentName", "parentVersion"),
            (Some(ProjectId(id)), None, None) => Some(Parent::Id(id)),
            (None, Some(name), version) => Some(Parent::Named(Box::new(Named { name, version }))),
            (None, None, None) => None,
        };
        let project = match (given.project_id, given.project_name) {
            (Some(_), Some(_)) => {
                return refused("projectID and projectName exclude each other: give one of them");
            }
            (None, None) => {
                return refused("project id or name must be provided: projectID or projectName");
            }
            (None, Some(name)) => {
                let version = given.project_version;
                Project::Named(Box::new(Named { name, version }), parent)
            }
            (Some(ProjectId(id)), None) => match (parent, given.project_version) {
                (None, None) => Project::Id(id),
                (Some(Parent::Id(_)), _) => return needs("projectName", "parentID"),
                (Some(Parent::Named(_)), _) => return needs("projectName", "parentName"),
                (None, Some(_)) => return needs("projectName", "projectVersion"),
            },
        };
        Ok(Self {
            project,
            tags: given.project_tags,
            is_latest: given.is_latest,
            filter: given.filter,
        })
    }
}

/// Address of Dependency-Track: a URL that paths are appended to.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Instance(pub(super) Url);

impl TryFrom<String> for Instance {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let url = api::inputs::web_url(&text)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(
                "must be a URL without a query and a fragment, as in https://api.example.org",
            );
        }
        Ok(Self(url))
    }
}

/// Becomes a header.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "SecretText")]
pub struct ApiKey(SecretText);

impl ApiKey {
    pub(super) fn header(&self) -> HeaderValue {
        let mut header = HeaderValue::from_str(self.0.expose()).expect("checked when it was made");
        header.set_sensitive(true);
        header
    }
}

impl TryFrom<SecretText> for ApiKey {
    type Error = &'static str;

    fn try_from(key: SecretText) -> Result<Self, Self::Error> {
        match key.expose().bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(Self(key)),
            false => {
                Err("must be an API key: letters, digits and signs, without spaces and line ends")
            }
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct ProjectId(Uuid);

impl TryFrom<String> for ProjectId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Uuid::from_str(&text)
            .map(Self)
            .map_err(|_| "must be a project's UUID, as in c1b5c0a2-9c37-4d0e-8f0f-4d3f5a7e2b19")
    }
}

/// Tags as Dependency-Track takes them, with commas between them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Tags(pub(super) String);

impl TryFrom<String> for Tags {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let tags: Vec<&str> = text.split(',').map(str::trim).collect();
        let fits = |tag: &&str| (1..=255).contains(&tag.len()) && !tag.contains(char::is_control);
        match tags.iter().all(fits) {
            true => Ok(Self(tags.join(","))),
            false => Err("must be tags with commas between them, as in backend,team-a"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::inputs;

    const KEY: &str = "odt_canary-in-the-key";
    const PARENT: &str = "7d0a3c5e-52a4-4b8f-9a6e-0b1c2d3e4f50";

    #[test]
    fn exactly_one_of_id_and_name_is_given_and_the_rest_goes_with_the_name() {
        let fault = |inputs: Value| {
            let mut faults = inputs::check::<Attachment>(inputs.as_object().unwrap());
            let fault = faults.pop().map(|fault| (fault.field, fault.detail));
            assert!(faults.is_empty(), "{faults:?}");
            fault
        };
        for fits in [
            json!({ "projectID": EXAMPLE }),
            json!({ "projectID": EXAMPLE, "projectTags": "a, b", "isLatest": true }),
            json!({ "projectName": "shop" }),
            json!({ "projectName": "shop", "projectVersion": "{{ workflow.version }}" }),
            json!({ "projectName": "{{ .Material.Annotations.component }}", "parentID": PARENT }),
            json!({ "projectName": "shop", "parentName": "all" }),
            json!({ "projectName": "shop", "parentName": "all", "parentVersion": "1" }),
            json!({ "projectName": "shop", "filter": "environment=prod" }),
        ] {
            assert_eq!(fault(fits.clone()), None, "{fits}");
        }
        let between = |detail: &str| Some((String::new(), detail.to_owned()));
        let needs_name = |field: &str| {
            between(&format!(
                "property 'projectName' is required, if '{field}' property exists"
            ))
        };
        for (inputs, expected) in [
            (
                json!({}),
                between("project id or name must be provided: projectID or projectName"),
            ),
            (
                json!({ "projectID": EXAMPLE, "projectName": "shop" }),
                between("projectID and projectName exclude each other: give one of them"),
            ),
            (
                json!({ "projectID": EXAMPLE, "parentID": PARENT }),
                needs_name("parentID"),
            ),
            (
                json!({ "projectID": EXAMPLE, "parentName": "all" }),
                needs_name("parentName"),
            ),
            (
                json!({ "projectID": EXAMPLE, "projectVersion": "1" }),
                needs_name("projectVersion"),
            ),
            (
                json!({ "projectName": "shop", "parentVersion": "1" }),
                between("property 'parentName' is required, if 'parentVersion' property exists"),
            ),
            (
                json!({ "projectName": "shop", "parentID": PARENT, "parentName": "all" }),
                between("parentID and parentName exclude each other"),
            ),
        ] {
            assert_eq!(fault(inputs.clone()), expected, "{inputs}");
        }
        for (field, value) in [
            ("projectID", json!("..")),
            ("parentID", json!("shop")),
            ("projectName", json!("{{ .Material.Name }}")),
            ("projectName", json!("{{")),
            ("projectTags", json!("a,,b")),
            ("projectTags", json!("a\nb")),
            ("filter", json!("environment")),
            ("isLatest", json!("yes")),
            ("projectVersion", json!("")),
        ] {
            let mut inputs = json!({ "projectName": "shop" });
            inputs[field] = value;
            assert_eq!(fault(inputs.clone()).unwrap().0, field, "{inputs}");
        }
    }

    #[test]
    fn a_registration_that_could_not_work_is_refused() {
        let faults = |more: Value| {
            let mut inputs = json!({ "instanceURI": "https://dt.example.org/x", "apiKey": KEY });
            inputs
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            inputs::check::<Registration>(inputs.as_object().unwrap())
                .into_iter()
                .map(|fault| fault.field)
                .collect::<Vec<_>>()
        };
        assert!(faults(json!({ "allowAutoCreate": true })).is_empty());
        for url in [
            "dt.example.org",
            "ftp://dt.example.org",
            "https://dt.example.org?x",
            "https://u:p@x.example",
        ] {
            assert_eq!(
                faults(json!({ "instanceURI": url })),
                ["instanceURI"],
                "{url}"
            );
        }
        for key in ["", "a key", "key\n", "kéy"] {
            assert_eq!(faults(json!({ "apiKey": key })), ["apiKey"], "{key:?}");
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        let inputs = json!({ "instanceURI": "https://dt.example.org", "apiKey": KEY });
        let registration: Registration = serde_json::from_value(inputs).unwrap();
        let shown = format!("{registration:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}
