//! Sends CycloneDX SBOMs to Dependency-Track, each to the project that the attachment names.
//!
//! A project of Dependency-Track (<https://dependencytrack.org>, 4.8 and later) shows the SBOM that was imported
//! last. So the SBOMs for one project and version go one after another, and one that is older than the last is left
//! out, as is one that is there already; once the project was deleted there, any is sent. Dependency-Track processes
//! an SBOM after it has accepted it; the delivery's receipt says how that ended.
//!
//! The API key's team needs the permission `BOM_UPLOAD`; with `allowAutoCreate` one of `PROJECT_CREATION_UPLOAD`,
//! `PORTFOLIO_MANAGEMENT_CREATE` and `PORTFOLIO_MANAGEMENT`; and `VIEW_PORTFOLIO` where the attachment names a project
//! or a parent that has to be there. Without `VIEW_PORTFOLIO` it stays unknown whether an accepted SBOM was imported,
//! and a project that was deleted is not noticed. Dependency-Track takes CycloneDX up to 1.6, and from its version 5 on
//! also 1.7.
//!
//! # Receipt
//!
//! Of each SBOM the token under which Dependency-Track imports it, the project with its version, the digest, and when
//! the project had imported one before (`imported_before`). Once it was followed up, `completion`: `processed` when the
//! project has imported one since, `failed` when it has not, or `unknown`; both with the reason in `completion_reason`.
//!
//! # Limits
//!
//! Dependency-Track has none of its own for uploads; a proxy in front of it may have (413).
//!
//! # Failures
//!
//! - `it is not JSON`, `it is not CycloneDX`: the material is not what its type says, and is not sent; 4.14 answers 500
//!   to it. The others go on.
//! - 400 `The uploaded BOM is invalid`: its own reasons follow. A CycloneDX version that the server does not know is
//!   among them: 4.x knows none beyond 1.6.
//! - 401 without a text: the API key is not right, or not any more. Mend it with `registered rotate`.
//! - 401 `The principal does not have permission to create project`: give the key's team one of the permissions above.
//! - 403: the team lacks `BOM_UPLOAD`, or portfolio access control keeps the project from it.
//! - 404: the project or its parent is not there; the text says which.
//! - 409: another upload made the same project at the same moment; tried again at once.
//! - 413: the server in front of Dependency-Track refuses the size.

mod api;
mod last;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use api::Sight;
use attestation::{Digest, Material, MaterialType};
use http::{HeaderValue, Request};
use last::{Notes, Verdict};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;
use uuid::Uuid;

use crate::template::{Bound, Facts};
use crate::{
    About, Authorities, Content, Delivery, Error, Filter, Followed, Host, Http, Integration, Kind,
    Locked, Outcome, Preview, SecretText, Template, Warnings, facts, inputs, shape,
};

#[derive(Debug)]
pub struct DependencyTrack;

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
    type Error = &'static str;

    fn try_from(given: Given) -> Result<Self, Self::Error> {
        let parent = match (given.parent_id, given.parent_name, given.parent_version) {
            (Some(_), Some(_), _) => return Err("parentID and parentName exclude each other"),
            (_, None, Some(_)) => {
                return Err(
                    "property 'parentName' is required, if 'parentVersion' property exists",
                );
            }
            (Some(ProjectId(id)), None, None) => Some(Parent::Id(id)),
            (None, Some(name), version) => Some(Parent::Named(Box::new(Named { name, version }))),
            (None, None, None) => None,
        };
        let project = match (given.project_id, given.project_name) {
            (Some(_), Some(_)) => {
                return Err("projectID and projectName exclude each other: give one of them");
            }
            (None, None) => {
                return Err("project id or name must be provided: projectID or projectName");
            }
            (None, Some(name)) => {
                let version = given.project_version;
                Project::Named(Box::new(Named { name, version }), parent)
            }
            (Some(ProjectId(id)), None) => match (parent, given.project_version) {
                (None, None) => Project::Id(id),
                (Some(Parent::Id(_)), _) => {
                    return Err(
                        "property 'projectName' is required, if 'parentID' property exists",
                    );
                }
                (Some(Parent::Named(_)), _) => {
                    return Err(
                        "property 'projectName' is required, if 'parentName' property exists",
                    );
                }
                (None, Some(_)) => {
                    return Err(
                        "property 'projectName' is required, if 'projectVersion' property exists",
                    );
                }
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
pub struct Instance(Url);

impl TryFrom<String> for Instance {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let url = inputs::web_url(&text)?;
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
    fn header(&self) -> HeaderValue {
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
pub struct Tags(String);

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

impl Integration for DependencyTrack {
    const ID: &'static str = "dependency-track";
    const VERSION: &'static str = "1.7";
    const DESCRIPTION: &'static str = "Send CycloneDX SBOMs to your Dependency-Track instance";
    const MATERIALS: &'static [MaterialType] = &[MaterialType::SBOM_CYCLONEDX_JSON];
    const MATERIALS_ONLY: bool = true;
    const FOLLOWS: bool = true;

    type Registration = Registration;
    type Attachment = Attachment;

    fn authorities(registration: &Registration) -> Option<&Authorities> {
        registration.ca_certificates.as_ref()
    }

    fn filter(attachment: &Attachment) -> Option<&Filter> {
        attachment.filter.as_ref()
    }

    async fn register(http: &Http, registration: &Registration) -> Result<Warnings, Error> {
        api::version(http, registration).await?;
        api::permissions(http, registration).await
    }

    async fn attach(
        http: &Http,
        registration: &Registration,
        attachment: &Attachment,
    ) -> Result<Warnings, Error> {
        let (named, parent) = match &attachment.project {
            Project::Id(id) => {
                api::must_exist(http, registration, "project", &Place::Id(*id)).await?;
                return Ok(Warnings::new());
            }
            Project::Named(named, parent) => (named, parent),
        };
        if !registration.allow_auto_create {
            let none = "auto creation of projects is not supported in this integration: \
                        it needs a registration with allowAutoCreate=true";
            let Some(place) = Place::literal(named) else {
                return Err(Error::permanent(format!(
                    "make sure that the project is there: its name follows from each attestation, and {none}"
                )));
            };
            if api::find(http, registration, "project", &place)
                .await?
                .is_none()
            {
                return Err(Error::permanent(format!(
                    "find the {place}: there is none, and {none}"
                )));
            }
        }
        let parent = match parent {
            Some(Parent::Id(id)) => Some(Place::Id(*id)),
            Some(Parent::Named(named)) => Place::literal(named),
            None => None,
        };
        if let Some(parent) = parent {
            api::must_exist(http, registration, "parent project", &parent).await?;
        }
        Ok(Warnings::new())
    }

    async fn deliver(
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Outcome, Error> {
        let (uploads, unplaced) = plan(host, delivery).await?;
        // Those of earlier attempts too: one that was cut off had no time to leave its note.
        let places: BTreeSet<&Place> = uploads.iter().map(|upload| &upload.place).collect();
        // All of them before anything is sent, and in one order, so that two deliveries never wait for each other.
        let mut notes = BTreeMap::new();
        for place in places {
            match host.lock(&place.to_string()).await? {
                Locked::Ours(note) => notes.insert(place, Notes::read(&note)),
                Locked::Theirs => return Ok(Outcome::busy(&format!("the {place}"))),
            };
        }
        let mut report = Report::of(unplaced);
        for (place, mut note) in notes {
            let uploads = uploads.iter().filter(|upload| upload.place == *place);
            for upload in uploads {
                upload
                    .settle(http, host, delivery, &mut note, &mut report)
                    .await?;
            }
            host.unlock(&place.to_string(), note.write()).await?;
            if report.is_unauthorized() {
                break;
            }
        }
        report.outcome(delivery)
    }

    /// Asks about each token, then about each project's last import. A token with nothing under way proves no success:
    /// an import that broke off and an unknown token get the same response.
    async fn follow(
        http: &Http,
        registration: &Registration,
        receipt: &Map<String, Value>,
    ) -> Result<Followed, Error> {
        let sboms = receipt.get("sboms").and_then(Value::as_array);
        let sboms = sboms.map(Vec::as_slice).unwrap_or_default();
        for sbom in sboms {
            let token = sbom["token"].as_str().and_then(|token| token.parse().ok());
            if let Some(token) = token
                && api::is_processing(http, registration, token).await?
            {
                return Ok(Followed::UnderWay);
            }
        }
        let mut worst = Completion::Processed;
        for sbom in sboms {
            worst = worst.max(Completion::of(http, registration, sbom).await?);
        }
        Ok(Followed::Over(worst.receipt()))
    }

    async fn preview(
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Vec<Preview>, Error> {
        let (uploads, _) = plan(host, delivery).await?;
        let mut previews = Vec::new();
        for upload in uploads {
            let request = upload.request(host, delivery).await?;
            let target = request.uri().to_string();
            previews.push(crate::http::preview_of_content(host, &request, target).await?);
        }
        Ok(previews)
    }
}

/// A project, with all gaps in its name filled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
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
    fn literal(named: &Named) -> Option<Self> {
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
}

/// Templates of a project's name and version, over the facts that all SBOMs of a delivery share.
struct Names<'a> {
    /// Beside each, the name of its input.
    name: (&'static str, Bound<'a>),
    version: Option<(&'static str, Bound<'a>)>,
}

impl<'a> Names<'a> {
    fn new(named: &'a Named, [name, version]: [&'static str; 2], facts: &Facts<'_>) -> Self {
        let of_version = named.version.as_ref();
        Self {
            name: (name, named.name.bind(facts)),
            version: of_version.map(|template| (version, template.bind(facts))),
        }
    }

    /// The place of one SBOM. The error is what an operator is told.
    fn fill(&self, material: &Value) -> Result<Place, String> {
        let fill = |(field, template): &(&str, Bound<'_>)| {
            let text = template.exact(Some(material), NAME_BYTES);
            let text = key(&text.map_err(|reason| format!("{field}: {reason}"))?);
            match text.is_empty() {
                true => Err(format!("{field}: the text is empty")),
                false => Ok(text),
            }
        };
        Ok(Place::Named {
            name: fill(&self.name)?,
            version: self.version.as_ref().map(fill).transpose()?,
        })
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

/// An SBOM on its way to a project.
#[derive(Debug)]
struct Upload<'a> {
    material: &'a Material,
    digest: Digest,
    place: Place,
    parent: Option<Place>,
    /// Stable over retries; names it in the delivery's progress.
    step: String,
}

/// Something that is not sent, and why.
#[derive(Debug)]
struct Skipped {
    name: String,
    reason: String,
}

/// Plans the uploads, in the order of the predicate, and lists the materials that are skipped.
async fn plan<'a>(
    host: &dyn Host,
    delivery: &Delivery<'a, DependencyTrack>,
) -> Result<(Vec<Upload<'a>>, Vec<Skipped>), Error> {
    let facts = facts::exact(delivery.attestation, delivery.workflow);
    let targets = Targets::new(&delivery.attachment.project, &Facts::new(&facts));
    let mut uploads: Vec<Upload> = Vec::new();
    let mut skipped = Vec::new();
    for material in delivery.materials {
        let name = material.name.clone();
        let (place, parent) = match targets.of(material) {
            Ok(target) => target,
            Err(reason) => {
                skipped.push(Skipped { name, reason });
                continue;
            }
        };
        let digest = match material.digest {
            Some(digest) => digest,
            None => Digest::of(&host.content(material).await?),
        };
        let project = Digest::of(place.to_string().as_bytes()).hex();
        let step = format!("{}@{}", digest.hex(), &project[..12]);
        match uploads.iter().find(|upload| upload.step == step) {
            Some(first) => skipped.push(Skipped {
                name,
                reason: format!("has the bytes of {:?}", first.material.name),
            }),
            None => uploads.push(Upload {
                material,
                digest,
                place,
                parent,
                step,
            }),
        }
    }
    Ok((uploads, skipped))
}

/// Projects that the SBOMs of a delivery go to.
struct Targets<'a> {
    project: Target<'a>,
    parent: Option<Target<'a>>,
}

enum Target<'a> {
    Id(Uuid),
    Named(Names<'a>),
}

impl<'a> Targets<'a> {
    fn new(project: &'a Project, facts: &Facts<'_>) -> Self {
        let (named, parent) = match project {
            Project::Id(id) => {
                return Self {
                    project: Target::Id(*id),
                    parent: None,
                };
            }
            Project::Named(named, parent) => (named, parent),
        };
        let names = |named, fields| Target::Named(Names::new(named, fields, facts));
        Self {
            project: names(named, ["projectName", "projectVersion"]),
            parent: parent.as_ref().map(|parent| match parent {
                Parent::Id(id) => Target::Id(*id),
                Parent::Named(named) => names(named, ["parentName", "parentVersion"]),
            }),
        }
    }

    /// The material's project and its parent. The error is what an operator is told.
    fn of(&self, material: &Material) -> Result<(Place, Option<Place>), String> {
        let facts = facts::exact_material(material);
        let place = |target: &Target<'_>| match target {
            Target::Id(id) => Ok(Place::Id(*id)),
            Target::Named(names) => names.fill(&facts),
        };
        let project = place(&self.project)?;
        let parent = self.parent.as_ref().map(place).transpose()?;
        Ok((project, parent))
    }
}

impl Upload<'_> {
    /// Sends it, unless what is known of the project says that there is no need, and keeps what came of it. Fails
    /// when that cannot be kept; what went wrong with the SBOM itself goes into the report.
    async fn settle(
        &self,
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, DependencyTrack>,
        notes: &mut Notes,
        report: &mut Report,
    ) -> Result<(), Error> {
        let made_at = last::made_at(delivery.attestation, host.unix_secs());
        let this = last::Sbom {
            material: &self.material.name,
            digest: &self.digest,
            attestation: &delivery.attestation.hash,
            made_at,
        };
        if let Some(receipt) = delivery.progress.get(&self.step) {
            if receipt.get("skipped").is_none() {
                notes.keep(&this);
            }
            report.take(self, receipt.clone());
            return Ok(());
        }
        if report.is_unauthorized() {
            return Ok(());
        }
        let sight = match api::look(http, delivery.registration, &self.place).await {
            Ok(sight) => sight,
            Err(error) => {
                report.failed(error);
                return Ok(());
            }
        };
        let verdict = match (&sight, notes.verdict(&this)) {
            // What it had is gone with it.
            (Sight::Absent, _) => {
                *notes = Notes::default();
                Verdict::Send
            }
            // Accepted, and never imported.
            (Sight::There(shown), Verdict::There(_)) if shown.last_import.is_null() => {
                Verdict::Send
            }
            (_, verdict) => verdict,
        };
        let receipt = match verdict {
            Verdict::Send => match self.send(http, host, delivery).await {
                Ok(accepted) => self.receipt(&accepted, sight),
                Err(error) => {
                    report.failed(error);
                    return Ok(());
                }
            },
            Verdict::Superseded(by) => {
                json!({ "skipped": format!("superseded in the {} by that of attestation {by}", self.place) })
            }
            Verdict::There(by) => {
                json!({ "skipped": format!("already there: the {} has it from attestation {by}", self.place) })
            }
        };
        host.record(&self.step, receipt.clone()).await?;
        notes.keep(&this);
        report.take(self, receipt);
        Ok(())
    }

    async fn send(
        &self,
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, DependencyTrack>,
    ) -> Result<api::Accepted, Error> {
        let doing = format!(
            "upload the SBOM {:?} to the {}",
            self.material.name, self.place
        );
        if let Some(fault) = shape::fault(host, self.material).await? {
            let error = Error::permanent(format!("{doing}: it is {fault}"));
            return Err(error.about(About::Delivery));
        }
        let mut response = self.post(http, host, delivery, &doing).await?;
        if api::was_overtaken(&response) {
            // Somebody else created the project at the same moment, so that now it is there.
            response = self.post(http, host, delivery, &doing).await?;
        }
        let registration = delivery.registration;
        let accepted = api::accepted(&response, &doing, host.unix_secs());
        let is_named = matches!(self.place, Place::Named { .. });
        accepted.map_err(
            |error| match error.answer.as_ref().map(|answer| answer.status) {
                Some(404) if is_named && !registration.allow_auto_create => api::hint(
                    error,
                    "the registration creates no projects: allowAutoCreate is false",
                ),
                _ => error,
            },
        )
    }

    async fn post(
        &self,
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, DependencyTrack>,
        doing: &str,
    ) -> Result<crate::http::Response, Error> {
        let request = self.request(host, delivery).await?;
        let sent = http.stream(host, request).await;
        sent.map_err(|error| api::within(doing, error))
    }

    async fn request<'b>(
        &'b self,
        host: &dyn Host,
        delivery: &Delivery<'_, DependencyTrack>,
    ) -> Result<Request<Content<'b>>, Error> {
        let (registration, attachment) = (delivery.registration, delivery.attachment);
        let mut fields = Vec::new();
        match &self.place {
            Place::Id(id) => fields.push(("project", id.to_string())),
            Place::Named { name, version } => {
                if registration.allow_auto_create {
                    fields.push(("autoCreate", "true".to_owned()));
                }
                fields.push(("projectName", name.clone()));
                fields.extend(version.clone().map(|version| ("projectVersion", version)));
            }
        }
        match &self.parent {
            Some(Place::Id(id)) => fields.push(("parentUUID", id.to_string())),
            Some(Place::Named { name, version }) => {
                fields.push(("parentName", name.clone()));
                fields.extend(version.clone().map(|version| ("parentVersion", version)));
            }
            None => {}
        }
        if let Some(Tags(tags)) = &attachment.tags {
            fields.push(("projectTags", tags.clone()));
        }
        if attachment.is_latest {
            fields.push(("isLatest", "true".to_owned()));
        }
        // The delivery's id follows from the attestation, and that from the SBOM: nobody can have put the boundary
        // into the SBOM. And it stays the same in a retry, so that the preview shows what is sent.
        let boundary = Digest::of(format!("{} {}", delivery.id, self.step).as_bytes()).hex();
        api::upload(host, registration, &boundary[..32], &fields, self.material).await
    }

    fn receipt(&self, accepted: &api::Accepted, sight: Sight) -> Value {
        let mut receipt = json!({
            "material": self.material.name,
            "digest": self.digest.to_string(),
            "token": accepted.token.to_string(),
        });
        let mut project = accepted.project;
        match &self.place {
            Place::Id(id) => project = Some(*id),
            Place::Named { name, version } => {
                receipt["name"] = name.as_str().into();
                if let Some(version) = version {
                    receipt["version"] = version.as_str().into();
                }
            }
        }
        if let Some(project) = project {
            receipt["project"] = project.to_string().into();
        }
        match sight {
            Sight::There(shown) => receipt[IMPORTED_BEFORE] = shown.last_import,
            Sight::Absent => receipt[IMPORTED_BEFORE] = Value::Null,
            Sight::Hidden => {}
        }
        receipt
    }
}

/// When the project had imported an SBOM last before this one was uploaded; missing where the key may not look.
const IMPORTED_BEFORE: &str = "imported_before";

/// Outcomes of an accepted SBOM, the worst last.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Completion {
    Processed,
    Unknown(String),
    Failed(String),
}

impl Completion {
    /// Returns the outcome of an SBOM that is no longer under way, by its receipt.
    async fn of(http: &Http, registration: &Registration, sbom: &Value) -> Result<Self, Error> {
        let material = sbom["material"].as_str().unwrap_or("sbom");
        let unknown = |why: &str| Ok(Self::Unknown(format!("{material}: {why}")));
        let hidden = "whether it was imported shows in the project, which the key may not look at \
                      (VIEW_PORTFOLIO)";
        let text = |key: &str| sbom[key].as_str().map(str::to_owned);
        let id = text("project").and_then(|id| id.parse().ok());
        let place = match (id, text("name")) {
            (Some(id), _) => Place::Id(id),
            (None, Some(name)) => Place::Named {
                name,
                version: text("version"),
            },
            (None, None) => return unknown("its receipt names no project"),
        };
        let Some(before) = sbom.get(IMPORTED_BEFORE) else {
            return unknown(hidden);
        };
        match api::look(http, registration, &place).await? {
            Sight::There(shown) if shown.last_import != *before => Ok(Self::Processed),
            Sight::There(_) => Ok(Self::Failed(format!(
                "{material}: the {place} has imported nothing since: Dependency-Track's log says why"
            ))),
            Sight::Absent => unknown("its project is not there any more"),
            Sight::Hidden => unknown(hidden),
        }
    }

    fn receipt(self) -> Map<String, Value> {
        let (completion, reason) = match self {
            Self::Processed => ("processed", None),
            Self::Unknown(reason) => ("unknown", Some(reason)),
            Self::Failed(reason) => ("failed", Some(reason)),
        };
        let reason = reason.map(|reason| ("completion_reason".to_owned(), reason.into()));
        let completion = ("completion".to_owned(), completion.into());
        [completion].into_iter().chain(reason).collect()
    }
}

/// Results of a delivery's SBOMs.
#[derive(Debug, Default)]
struct Report {
    sboms: Vec<Value>,
    skipped: Vec<Skipped>,
    errors: Vec<Error>,
}

impl Report {
    fn of(skipped: Vec<Skipped>) -> Self {
        Self {
            skipped,
            ..Self::default()
        }
    }

    fn take(&mut self, upload: &Upload<'_>, receipt: Value) {
        match receipt["skipped"].as_str() {
            None => self.sboms.push(receipt),
            Some(reason) => self.skipped.push(Skipped {
                name: upload.material.name.clone(),
                reason: reason.to_owned(),
            }),
        }
    }

    fn failed(&mut self, error: Error) {
        self.errors.push(error);
    }

    /// All others would be answered alike.
    fn is_unauthorized(&self) -> bool {
        self.errors
            .iter()
            .any(|error| error.kind == Kind::Unauthorized)
    }

    /// One that another try may mend comes first: as long as there is one, the delivery is not over.
    fn outcome(mut self, delivery: &Delivery<'_, DependencyTrack>) -> Result<Outcome, Error> {
        let may_pass = |error: &Error| !matches!(error.kind, Kind::Permanent | Kind::Gone);
        let first = self.errors.iter().position(may_pass).unwrap_or(0);
        if first < self.errors.len() {
            return Err(self.errors.swap_remove(first));
        }
        let missing = delivery.missing.iter().map(|material| &material.name);
        if self.sboms.is_empty() {
            let skipped = self.skipped.iter();
            let mut reasons: Vec<String> = skipped
                .map(|Skipped { name, reason }| format!("{name}: {reason}"))
                .collect();
            reasons.extend(missing.map(|name| format!("{name}: never came")));
            if reasons.is_empty() {
                reasons.push("the attestation came without a CycloneDX SBOM".to_owned());
            }
            return Ok(Outcome::Skipped(reasons.join("; ")));
        }
        let mut receipt = Map::from_iter([("sboms".to_owned(), self.sboms.into())]);
        if !self.skipped.is_empty() {
            let skipped = self.skipped.into_iter();
            let skipped = skipped
                .map(|Skipped { name, reason }| json!({ "name": name, "reason": reason }))
                .collect();
            receipt.insert("skipped".to_owned(), skipped);
        }
        if !delivery.missing.is_empty() {
            receipt.insert("missing".to_owned(), missing.cloned().collect());
        }
        Ok(Outcome::Delivered(receipt))
    }
}

#[cfg(test)]
mod tests;
