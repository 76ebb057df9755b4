//! Puts each attestation into an OCI registry, where images are, under a tag of its own.
//!
//! An attestation becomes an artifact in the registered repository itself, under the tag
//! `<prefix>-<digits of the attestation's digest>`. Its one layer is the attestation as it was received, byte for
//! byte: the DSSE envelope, or the Sigstore bundle that it came in. So every registry can take it, also those in which
//! a repository has to be created first or may not have another below it; whoever knows an attestation's digest
//! finds it; and a repeat finds it there.
//!
//! Where an attested image is in that same repository, the artifact names it as its subject, so that
//! `cosign`, `oras discover` and the like find the attestation from the image. Registries that do not keep that list
//! by themselves have it at the tag `sha256-<digits of the image's digest>`, as the distribution specification asks.
//! Several registrations of one repository would not see each other there: register a repository once.
//!
//! Examples of repositories: `ghcr.io/acme/attestations` (a token that may write packages as the password),
//! `us-east1-docker.pkg.dev/my-project/my-repository/attestations` (username `_json_key`, and the whole key file of a
//! service account as the password), `docker.io/acme/attestations` (an access token). A registry has to be reachable
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
//! - 404 NAME_UNKNOWN, NAME_INVALID: the repository is not there, or cannot be called so. Some registries want it created
//!   first.
//! - MANIFEST_INVALID, UNSUPPORTED: an old registry; attach with `--opt compatibility=true`.
//! - 409 or 412 on a tag: another artifact has the tag, which the registry does not let go of.
//! - 413: the registry refuses the size.
//! - 429 TOOMANYREQUESTS: tried again when the registry says.

mod manifest;
mod push;
mod reference;
mod session;
#[cfg(test)]
mod tests;

use attestation::{Digest, MaterialType};
use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use self::manifest::{Artifact, Descriptor, MANIFEST};
use self::push::Pushed;
pub use self::reference::{Prefix, Repository, Username};
use self::session::Session;
use crate::{
    Authorities, Delivery, Error, Filter, Host, Http, Integration, Locked, Outcome, Preview,
    SecretText, Warnings,
};

#[derive(Debug)]
pub struct OciRegistry;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// OCI repository uri and path
    #[schemars(
        with = "String",
        length(min = 3, max = 255),
        example = "ghcr.io/acme/attestations",
        extend("x-destination" = true)
    )]
    pub repository: Repository,
    /// OCI repository username
    #[schemars(with = "String", length(min = 1))]
    pub username: Username,
    /// OCI repository password
    pub password: SecretText,
    #[serde(default)]
    pub ca_certificates: Option<Authorities>,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Only attestations that fit, as in `environment=prod, workflow.branch=release/*`
    #[serde(default)]
    pub filter: Option<Filter>,
    /// OCI images name prefix (default chainloop)
    #[serde(default)]
    #[schemars(with = "String", length(min = 1, max = 63))]
    pub prefix: Prefix,
    /// Whether to name the attested image as the artifact's subject, where it is in the same repository
    #[serde(default = "yes")]
    pub subject: bool,
    /// Whether to write manifests as registries want them that do not know artifact types
    #[serde(default)]
    pub compatibility: bool,
}

fn yes() -> bool {
    true
}

impl Integration for OciRegistry {
    const ID: &'static str = "oci-registry";
    const VERSION: &'static str = "1.1";
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
        let mut session = Session::new(http, registration, http.unix_secs());
        let doing = format!("begin an upload to {}", registration.repository);
        let upload = push::begin_upload(&mut session, &doing).await?;
        // Whatever comes of this says nothing of whether a push would work, and an upload left alone expires.
        if let Ok(request) = session::request(Method::DELETE, &upload) {
            let _ = session.send(request).await;
        }
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
        let pushed = match done(delivery, digest) {
            Some(pushed) => pushed,
            None => {
                let pushed = push::push(&mut session, &artifact).await?;
                let lists_referrers = pushed
                    == Pushed::Now {
                        lists_referrers: true,
                    };
                let receipt = json!({ "digest": digest, "lists_referrers": lists_referrers });
                host.record(MANIFEST_STEP, receipt).await?;
                pushed
            }
        };
        let referrers = match &artifact.subject {
            None => None,
            Some(image) => {
                let Some(referrers) = list(
                    &mut session,
                    host,
                    pushed,
                    image.digest,
                    &artifact.descriptor,
                )
                .await?
                else {
                    return Ok(Outcome::busy(&format!(
                        "the list of what refers to {}",
                        image.digest
                    )));
                };
                Some(referrers)
            }
        };
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
        Ok(Outcome::Delivered(receipt))
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
            previews.push(Preview::of(&request, target, &[]));
        }
        let request =
            push::manifest_request(repository, &artifact.tag, MANIFEST, artifact.manifest)?;
        previews.push(Preview::of(&request, request.uri().to_string(), &[]));
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

/// What an earlier attempt knows of the manifest.
fn done(delivery: &Delivery<'_, OciRegistry>, digest: Digest) -> Option<Pushed> {
    let receipt = delivery.progress.get(MANIFEST_STEP)?;
    if receipt["digest"] != json!(digest) {
        return None;
    }
    match receipt["lists_referrers"] == true {
        true => Some(Pushed::Now {
            lists_referrers: true,
        }),
        false => Some(Pushed::Already),
    }
}

/// Who keeps the list of what refers to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Referrers {
    /// The registry.
    Native,
    /// Its clients, at a tag.
    Tag,
}

/// Sees to it that the artifact is listed under its subject; nothing when another delivery is at that list.
async fn list(
    session: &mut Session<'_>,
    host: &dyn Host,
    pushed: Pushed,
    subject: Digest,
    artifact: &Descriptor,
) -> Result<Option<Referrers>, Error> {
    let is_native = match pushed {
        Pushed::Now { lists_referrers } => lists_referrers,
        Pushed::Already => push::lists_referrers(session, subject).await?,
    };
    if is_native {
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
