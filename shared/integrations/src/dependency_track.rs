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
mod completion;
mod inputs;
mod last;
mod project;
mod upload;

use std::collections::{BTreeMap, BTreeSet};

use api::Sight;
use attestation::MaterialType;
use completion::Completion;
pub use inputs::{ApiKey, Attachment, Instance, Named, Parent, Project, Registration, Tags};
use last::Notes;
use project::Place;
use serde_json::{Map, Value};
use upload::{Report, plan};

use crate::{
    Authorities, Delivery, Error, Filter, Followed, Host, Http, Integration, LOOKED_FOR, Locked,
    Outcome, Presence, Preview, Warnings,
};

#[derive(Debug)]
pub struct DependencyTrack;

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
        let sboms = sboms(receipt);
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

    /// Asks for the projects: what was imported into them since is not looked at.
    async fn look_for(
        http: &Http,
        registration: &Registration,
        receipt: &Map<String, Value>,
    ) -> Result<Presence, Error> {
        let places = sboms(receipt).iter().filter_map(Place::of_receipt);
        let places: BTreeSet<Place> = places.collect();
        if places.is_empty() {
            return Ok(Presence::unknown("the receipt names no project"));
        }
        for place in places.iter().take(LOOKED_FOR) {
            match api::look(http, registration, place).await? {
                Sight::There(_) => {}
                Sight::Absent => return Ok(Presence::gone(format!("the {place} is not there"))),
                Sight::Hidden => {
                    let reason = format!("the key may not look at the {place} (VIEW_PORTFOLIO)");
                    return Ok(Presence::unknown(reason));
                }
            }
        }
        Ok(Presence::of_first(LOOKED_FOR, places.len(), "projects"))
    }

    async fn preview(
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Vec<Preview>, Error> {
        let (uploads, _) = plan(host, delivery).await?;
        let mut previews = Vec::new();
        for upload in uploads {
            let request = upload.request(delivery, upload.sbom(host).await?)?;
            let target = request.uri().to_string();
            previews.push(crate::http::preview_of_content(host, &request, target).await?);
        }
        Ok(previews)
    }
}

/// Returns the entries of a receipt, one for each SBOM.
fn sboms(receipt: &Map<String, Value>) -> &[Value] {
    let sboms = receipt.get("sboms").and_then(Value::as_array);
    sboms.map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests;
