//! Uploads of a delivery: what is planned, what is sent, and the receipt and errors that come of it.

use attestation::{Digest, Material};
use http::Request;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::DependencyTrack;
use super::api::{self, Sight};
use super::completion::IMPORTED_BEFORE;
use super::inputs::Tags;
use super::last::{self, Notes, Verdict};
use super::project::{Place, Targets};
use crate::template::Facts;
use crate::{About, Content, Delivery, Encoding, Error, Host, Http, Kind, Outcome, facts, shape};

/// An SBOM on its way to a project.
#[derive(Debug)]
pub(super) struct Upload<'a> {
    material: &'a Material,
    digest: Digest,
    pub(super) place: Place,
    parent: Option<Place>,
    /// Stable over retries; names it in the delivery's progress.
    pub(super) step: String,
}

/// Something that is not sent, and why.
#[derive(Debug, Serialize)]
pub(super) struct Skipped {
    name: String,
    reason: String,
}

/// Plans the uploads, in the order of the predicate, and lists the materials that are skipped.
pub(super) async fn plan<'a>(
    host: &dyn Host,
    delivery: &Delivery<'a, DependencyTrack>,
) -> Result<(Vec<Upload<'a>>, Vec<Skipped>), Error> {
    let facts = facts::exact(delivery.pushed);
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

impl Upload<'_> {
    /// Sends it, unless what is known of the project says that there is no need, and keeps what came of it. Fails
    /// when that cannot be kept; what went wrong with the SBOM itself goes into the report.
    pub(super) async fn settle(
        &self,
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, DependencyTrack>,
        notes: &mut Notes,
        report: &mut Report,
    ) -> Result<(), Error> {
        let made_at = last::made_at(delivery.pushed.attestation, host.unix_secs());
        let this = last::Sbom {
            material: &self.material.name,
            digest: &self.digest,
            attestation: &delivery.pushed.attestation.hash,
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
                report.errors.push(error);
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
                    report.errors.push(error);
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
        let sbom = self.sbom(host).await?;
        if let Some(fault) = shape::fault(host, &self.material.kind, &sbom).await? {
            let error = Error::permanent(format!("{doing}: it is {fault}"));
            return Err(error.about(About::Delivery));
        }
        let post = async || {
            let request = self.request(delivery, sbom.clone())?;
            let sent = http.stream(host, request).await;
            sent.map_err(|error| api::within(&doing, error))
        };
        let mut response = post().await?;
        if api::was_overtaken(&response) {
            // Somebody else created the project at the same moment, so that now it is there.
            response = post().await?;
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

    /// The SBOM as it is sent.
    pub(super) async fn sbom(&self, host: &dyn Host) -> Result<Content<'_>, Error> {
        let content = Content::default();
        content.material(host, self.material, Encoding::Plain).await
    }

    pub(super) fn request<'b>(
        &self,
        delivery: &Delivery<'_, DependencyTrack>,
        sbom: Content<'b>,
    ) -> Result<Request<Content<'b>>, Error> {
        let (registration, attachment) = (delivery.registration, delivery.attachment);
        let mut fields = Vec::new();
        if registration.allow_auto_create && matches!(self.place, Place::Named { .. }) {
            fields.push(("autoCreate", "true".to_owned()));
        }
        fields.extend(
            self.place
                .fields(["project", "projectName", "projectVersion"]),
        );
        if let Some(parent) = &self.parent {
            fields.extend(parent.fields(["parentUUID", "parentName", "parentVersion"]));
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
        api::upload(registration, &boundary[..32], &fields, sbom)
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

/// Results of a delivery's SBOMs.
#[derive(Debug, Default)]
pub(super) struct Report {
    sboms: Vec<Value>,
    skipped: Vec<Skipped>,
    errors: Vec<Error>,
}

impl Report {
    pub(super) fn of(skipped: Vec<Skipped>) -> Self {
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

    /// All others would be answered alike.
    pub(super) fn is_unauthorized(&self) -> bool {
        self.errors
            .iter()
            .any(|error| error.kind == Kind::Unauthorized)
    }

    /// One that another try may mend comes first: as long as there is one, the delivery is not over.
    pub(super) fn outcome(
        mut self,
        delivery: &Delivery<'_, DependencyTrack>,
    ) -> Result<Outcome, Error> {
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
            receipt.insert("skipped".to_owned(), json!(self.skipped));
        }
        if !delivery.missing.is_empty() {
            receipt.insert("missing".to_owned(), missing.cloned().collect());
        }
        Ok(Outcome::Delivered(receipt))
    }
}
