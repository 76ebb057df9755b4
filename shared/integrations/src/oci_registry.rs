//! Puts each attestation into an OCI registry, where images are, under a tag of its own.
//!
//! An attestation becomes an artifact in the registered repository itself, under the tag
//! `<prefix>-<digits of the attestation's digest>`. Its one layer is the attestation as it was received, byte for
//! byte: the DSSE envelope, or the Sigstore bundle that it came in. So every registry can take it, also those in which
//! a repository has to be created first or may not have another below it; whoever knows an attestation's digest
//! finds it; and a repeat finds it there.
//!
//! Where an attested image is in that same repository, the artifact names it as its subject, and is listed among the
//! image's referrers. Registries that do not keep that list by themselves have it at the tag
//! `sha256-<digits of the image's digest>`, as the distribution specification asks. Several registrations of one
//! repository would not see each other there: register a repository once.
//!
//! `cosign tree`, `oras discover` and `regctl artifact tree` find each attestation from the image.
//! `cosign verify-attestation` and `cosign download attestation` read Sigstore bundles among the referrers, and so
//! find an attestation that came in a bundle. They do not find a bare DSSE envelope: for one they read the tag
//! `sha256-<digits of the image's digest>.att`, which is not written. Get an envelope with `oras pull`, and
//! verify it with a tool for DSSE.
//!
//! Examples of repositories: `ghcr.io/acme/attestations` (a token that may write packages as the password),
//! `us-east1-docker.pkg.dev/my-project/my-repository/attestations` (username `_json_key`, and the whole key file of a
//! service account as the password), `docker.io/acme/attestations` (an access token),
//! `111122223333.dkr.ecr.eu-central-1.amazonaws.com/attestations` (a `role_arn`, and no password). A registry has to be reachable
//! by HTTPS on port 443 or 8443. Registering begins an upload and cancels it; some registries show an empty
//! repository after that.
//!
//! A preview does not ask the registry, so it shows the manifest without a subject.
//!
//! # Receipt
//!
//! The reference with its digest, the subject if there is one, and how it is listed there: by the registry or by a tag.
//!
//! # Limits
//!
//! A manifest and two blobs for each attestation; registries count pushes and answer 429.
//!
//! # Failures
//!
//! - 401 UNAUTHORIZED, 403 DENIED: the credentials are not right or may not push. Mend it with `registered rotate`.
//! - assume arn:…: the role may not be assumed. The reason has the external ID that its trust policy has to ask for, and
//!   what refused: the role's trust policy, or the stack's parameter `AssumableRoles`.
//! - 404 NAME_UNKNOWN, NAME_INVALID: the repository is not there, or cannot be called so. Some registries want it
//!   created first.
//! - MANIFEST_INVALID, UNSUPPORTED: an old registry; attach with `--opt compatibility=true`.
//! - 409 or 412 on a tag: another artifact has the tag, which the registry does not let go of.
//! - the list at the tag `sha256-…` cannot be written, as where tags are immutable: delivered, and the delivery's
//!   reason says why its image does not lead to it. Attached with `--opt subject=false`, it is not tried.
//! - the registry leads to another address than it was asked at: behind a proxy it has to be told its own by the
//!   headers `Host`, `X-Forwarded-Host` and `X-Forwarded-Proto`.
//! - 413: the registry refuses the size.
//! - 429 TOOMANYREQUESTS: tried again when the registry says.

mod ecr;
mod inputs;
mod manifest;
mod push;
mod reference;
mod session;
#[cfg(test)]
mod tests;

use attestation::{Digest, MaterialType};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use self::inputs::{Attachment, Registration};
use self::manifest::{Artifact, Descriptor, MANIFEST};
pub use self::reference::{Prefix, Repository, Username};
use self::session::Session;
use crate::{
    Authorities, Delivery, Error, Filter, Host, Http, Integration, Kind, Locked, Outcome, Presence,
    Preview, Warnings,
};

#[derive(Debug)]
pub struct OciRegistry;

impl Integration for OciRegistry {
    const ID: &'static str = "oci-registry";
    const VERSION: &'static str = "1.3";
    const DESCRIPTION: &'static str = "Send attestations to a compatible OCI registry";
    const MATERIALS: &'static [MaterialType] = &[];

    type Registration = Registration;
    type Attachment = Attachment;

    fn authorities(registration: &Registration) -> Option<&Authorities> {
        registration.ca_certificates.as_ref()
    }

    fn filter(attachment: &Attachment) -> Option<&Filter> {
        attachment.filter.as_ref()
    }

    /// Begins an upload, which only those may who may push, and cancels it.
    async fn register(http: &Http, registration: &Registration) -> Result<Warnings, Error> {
        registration.check_role(http).await?;
        let mut session = Session::new(http, registration, http.unix_secs());
        let doing = format!("begin an upload to {}", registration.repository);
        let upload = push::begin_upload(&mut session, &doing).await?;
        push::cancel_upload(&mut session, &doing, &upload).await?;
        Ok(Warnings::new())
    }

    async fn attach(_: &Http, _: &Registration, _: &Attachment) -> Result<Warnings, Error> {
        Ok(Warnings::new())
    }

    async fn deliver(
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Outcome, Error> {
        let mut session = Session::new(http, delivery.registration, host.unix_secs());
        let subject = subject(&mut session, host, delivery).await?;
        let artifact = Artifact::of(delivery, subject.image.clone());
        let digest = artifact.descriptor.digest;
        if !is_pushed(delivery, digest) {
            push::push(&mut session, &artifact).await?;
            let receipt = json!({ "digest": digest });
            host.record(MANIFEST_STEP, receipt).await?;
        }
        let (mut referrers, mut note) = (None, None);
        if let Some(image) = &artifact.subject {
            match list(&mut session, host, image.digest, &artifact.descriptor).await {
                Ok(Some(place)) => referrers = Some(place),
                Ok(None) => {
                    let place = format!("the list of what refers to {}", image.digest);
                    return Ok(Outcome::busy(&place));
                }
                // As by a tag that cannot be changed. The attestation has its own tag all the same.
                Err(error) if error.kind == Kind::Permanent => {
                    let why = error.text;
                    note = Some(format!("its image does not lead to it: failed to {why}"));
                }
                Err(error) => return Err(error),
            }
        }
        let mut receipt = Map::new();
        let reference = format!(
            "{}:{}@{digest}",
            delivery.registration.repository, artifact.tag
        );
        receipt.insert("reference".to_owned(), json!(reference));
        receipt.insert("digest".to_owned(), json!(digest));
        receipt.insert(
            "subject".to_owned(),
            json!(subject.image.map(|image| image.digest)),
        );
        if let Some(reason) = subject.reason {
            receipt.insert("no_subject".to_owned(), json!(reason));
        }
        receipt.insert("referrers".to_owned(), json!(referrers));
        Ok(match note {
            None => Outcome::Delivered(receipt),
            Some(note) => Outcome::PartlyDelivered { receipt, note },
        })
    }

    async fn look_for(
        http: &Http,
        registration: &Registration,
        receipt: &Map<String, Value>,
    ) -> Result<Presence, Error> {
        let text = |name: &str| receipt.get(name).and_then(Value::as_str);
        let (Some(reference), Some(Ok(digest))) =
            (text("reference"), text("digest").map(str::parse))
        else {
            return Ok(Presence::unknown("the receipt names no manifest"));
        };
        let repository = &registration.repository;
        if !reference.starts_with(&format!("{repository}:")) {
            let reason = format!("the registration leads to {repository} now");
            return Ok(Presence::unknown(reason));
        }
        let mut session = Session::new(http, registration, http.unix_secs());
        Ok(match push::has_manifest(&mut session, digest).await? {
            true => Presence::THERE,
            false => Presence::gone(format!("{repository} has no manifest {digest}")),
        })
    }

    async fn preview(_: &dyn Host, delivery: &Delivery<'_, Self>) -> Result<Vec<Preview>, Error> {
        let repository = &delivery.registration.repository;
        let artifact = Artifact::of(delivery, None);
        let mut previews = Vec::new();
        for (digest, bytes) in artifact.blobs {
            // Where to is the registry's to say.
            let request = push::blob_request(&repository.api("blobs/uploads/-"), digest, bytes)?;
            let target = request
                .uri()
                .to_string()
                .replacen("/uploads/-?", "/uploads/…?", 1);
            previews.push(crate::http::preview(&request, target));
        }
        let request =
            push::manifest_request(repository, &artifact.tag, MANIFEST, artifact.manifest)?;
        previews.push(crate::http::preview(&request, request.uri().to_string()));
        Ok(previews)
    }
}

const SUBJECT_STEP: &str = "subject";
const MANIFEST_STEP: &str = "manifest";

/// The image that an artifact is about, or why it names none.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Subject {
    image: Option<Descriptor>,
    reason: Option<String>,
}

impl Subject {
    fn none(reason: impl Into<String>) -> Self {
        Self {
            image: None,
            reason: Some(reason.into()),
        }
    }
}

/// Asked once in a delivery: what a retry sends must not depend on an image that came in between.
async fn subject(
    session: &mut Session<'_>,
    host: &dyn Host,
    delivery: &Delivery<'_, OciRegistry>,
) -> Result<Subject, Error> {
    if !delivery.attachment.subject {
        return Ok(Subject::none("the attachment asks for none"));
    }
    let images = manifest::images(delivery);
    let Some(first) = images.first() else {
        return Ok(Subject::none("no image of this repository is attested"));
    };
    let known = delivery.progress.get(SUBJECT_STEP).cloned();
    if let Some(known) = known.and_then(|known| serde_json::from_value(known).ok()) {
        return Ok(known);
    }
    let mut subject = Subject::none(format!("{first} is not in this repository"));
    for digest in images {
        if let Some(image) = push::image(session, digest).await? {
            subject = Subject {
                image: Some(image),
                reason: None,
            };
            break;
        }
    }
    host.record(SUBJECT_STEP, json!(subject)).await?;
    Ok(subject)
}

/// Reports whether an earlier attempt pushed the manifest.
fn is_pushed(delivery: &Delivery<'_, OciRegistry>, digest: Digest) -> bool {
    let receipt = delivery.progress.get(MANIFEST_STEP);
    receipt.is_some_and(|receipt| receipt["digest"] == json!(digest))
}

/// Keeper of the list of artifacts that refer to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Referrers {
    /// The registry.
    Native,
    /// Its clients, at a tag.
    Tag,
}

/// Sees to it that the artifact is listed under its subject; nothing when another delivery is at that list.
///
/// The registry's `OCI-Subject` header does not decide who lists it: some send it and list nothing.
async fn list(
    session: &mut Session<'_>,
    host: &dyn Host,
    subject: Digest,
    artifact: &Descriptor,
) -> Result<Option<Referrers>, Error> {
    if push::lists_referrer(session, subject, artifact.digest).await? {
        return Ok(Some(Referrers::Native));
    }
    let place = format!("referrers {}@{subject}", session.repository());
    if host.lock(&place).await? == Locked::Theirs {
        return Ok(None);
    }
    push::list_at_tag(session, subject, artifact).await?;
    host.unlock(&place, Value::Null).await?;
    Ok(Some(Referrers::Tag))
}
