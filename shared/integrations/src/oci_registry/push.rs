//! The steps of a push, each of which may be repeated: what is there, blobs, manifest, and the list of what refers to
//! an image.

use attestation::Digest;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, LINK};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use url::Url;

use super::manifest::{Artifact, Descriptor, INDEX, MANIFEST, is_listed, with_referrer};
use super::reference::Repository;
use super::session::{Session, code, location, request};
use crate::http::Response;
use crate::{About, Error, Kind};

/// All that an image can be; without these, a registry may answer with another form of it than was asked for.
const ANY_MANIFEST: HeaderValue = HeaderValue::from_static(
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json",
);

/// Registries take manifests up to here, and so may list that many referrers.
const MANIFEST_BYTES: usize = 4 * 1024 * 1024;

/// Why a step did not end well.
enum Stop {
    /// Something that was uploaded is not there: once more from the first blob.
    Restart(Error),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The parts of an upload that are pure, for a preview.
pub fn blob_request(upload: &Url, digest: Digest, bytes: Bytes) -> Result<Request<Bytes>, Error> {
    let mut upload = upload.clone();
    // What the registry put into its query stays as it is.
    upload
        .query_pairs_mut()
        .append_pair("digest", &digest.to_string());
    let mut request = request(Method::PUT, &upload)?;
    let kind = HeaderValue::from_static("application/octet-stream");
    request.headers_mut().insert(CONTENT_TYPE, kind);
    *request.body_mut() = bytes;
    Ok(request)
}

pub fn manifest_request(
    repository: &Repository,
    reference: &str,
    media_type: &'static str,
    manifest: Bytes,
) -> Result<Request<Bytes>, Error> {
    let mut request = request(
        Method::PUT,
        &repository.api(&format!("manifests/{reference}")),
    )?;
    let kind = HeaderValue::from_static(media_type);
    request.headers_mut().insert(CONTENT_TYPE, kind);
    *request.body_mut() = manifest;
    Ok(request)
}

/// Begins an upload, and says where it goes on.
pub async fn begin_upload(session: &mut Session<'_>, doing: &str) -> Result<Url, Error> {
    let mut request = request(Method::POST, &session.repository().api("blobs/uploads/"))?;
    let zero = HeaderValue::from_static("0");
    request.headers_mut().insert(CONTENT_LENGTH, zero);
    let uri = request.uri().clone();
    let response = session.send(request).await?;
    if response.status != StatusCode::ACCEPTED {
        return Err(session.refusal(doing, &response));
    }
    let nowhere = || Error::permanent(format!("{doing}: the answer does not say where to"));
    location(&uri, &response.headers).ok_or_else(nowhere)
}

/// Cancels an upload. Where the registry leads elsewhere for it, a push would go there, too, so that place has to
/// respond; and to be of the registry's making where it is the same host by another scheme or port.
pub async fn cancel_upload(
    session: &mut Session<'_>,
    doing: &str,
    upload: &Url,
) -> Result<(), Error> {
    let cancelled = match request(Method::DELETE, upload) {
        Ok(request) => session.send(request).await,
        Err(error) => Err(error),
    };
    let repository = session.repository();
    match cancelled {
        // What comes of it says nothing of whether a push would work, and an upload left alone expires.
        _ if repository.has_origin(upload) => Ok(()),
        Ok(response) if response.status.is_success() || !repository.has_host(upload) => Ok(()),
        Ok(response) => {
            let refusal = session.refusal(doing, &response);
            Err(session.elsewhere(doing, upload, refusal))
        }
        Err(error) => Err(session.elsewhere(doing, upload, error)),
    }
}

/// Pushes the artifact under its tag, unless it is there.
pub async fn push(session: &mut Session<'_>, artifact: &Artifact) -> Result<(), Error> {
    // The tag alone is asked for: where it has our digest, the manifest is there by its digest, too.
    if digest_of(session, &artifact.tag).await? == Some(artifact.descriptor.digest) {
        return Ok(());
    }
    match push_once(session, artifact, true).await {
        Err(Stop::Restart(_)) => {}
        Err(Stop::Failed(error)) => return Err(error),
        Ok(()) => return Ok(()),
    }
    // What the registry said was there is not: this time it is not asked.
    match push_once(session, artifact, false).await {
        Err(Stop::Restart(error)) => Err(Error {
            kind: Kind::Retryable { after: None },
            about: About::Delivery,
            ..error
        }),
        Err(Stop::Failed(error)) => Err(error),
        Ok(()) => Ok(()),
    }
}

async fn push_once(
    session: &mut Session<'_>,
    artifact: &Artifact,
    may_be_there: bool,
) -> Result<(), Stop> {
    for (digest, bytes) in &artifact.blobs {
        if !(may_be_there && has_blob(session, *digest).await?) {
            upload(session, *digest, bytes).await?;
        }
    }
    put_manifest(session, artifact).await
}

/// Reports whether a blob exists. Where the response says neither, the upload will say why, in words: HEAD has none.
async fn has_blob(session: &mut Session<'_>, digest: Digest) -> Result<bool, Error> {
    let url = session.repository().api(&format!("blobs/{digest}"));
    let request = request(Method::HEAD, &url)?;
    let response = session.send(request.clone()).await?;
    if is_trouble(response.status) {
        let doing = format!("ask {} for a blob", session.repository());
        return Err(session.refusal(&doing, &response));
    }
    // A failure at the place that keeps the blobs costs no more than an upload of what is there.
    let response = session.follow(request, response).await;
    Ok(response.is_ok_and(|response| response.status == StatusCode::OK))
}

/// Nothing that asking for something else would explain.
fn is_trouble(status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED
        || status == StatusCode::REQUEST_TIMEOUT
        || status == StatusCode::TOO_MANY_REQUESTS
        || status.is_server_error()
}

async fn upload(session: &mut Session<'_>, digest: Digest, bytes: &Bytes) -> Result<(), Stop> {
    let doing = format!("upload to {}", session.repository());
    let place = begin_upload(session, &doing).await?;
    let request = blob_request(&place, digest, bytes.clone())?;
    let response = match session.send(request).await {
        Ok(response) if response.status.is_success() => return Ok(()),
        Ok(response) => response,
        Err(error) => return Err(session.elsewhere(&doing, &place, error).into()),
    };
    let error = session.refusal(&doing, &response);
    let error = session.elsewhere(&doing, &place, error);
    let is_lost = matches!(
        response.status,
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::RANGE_NOT_SATISFIABLE
    ) || matches!(
        code(&response).as_deref(),
        Some("BLOB_UPLOAD_UNKNOWN" | "BLOB_UPLOAD_INVALID")
    );
    Err(match is_lost {
        true => Stop::Restart(error),
        false => Stop::Failed(error),
    })
}

async fn put_manifest(session: &mut Session<'_>, artifact: &Artifact) -> Result<(), Stop> {
    let repository = session.repository().clone();
    let (tag, digest) = (&artifact.tag, artifact.descriptor.digest);
    let response = session
        .send(manifest_request(
            &repository,
            tag,
            MANIFEST,
            artifact.manifest.clone(),
        )?)
        .await?;
    let doing = format!("push {tag} to {repository}");
    if response.status.is_success() {
        if let Some(other) = content_digest(&response.headers).filter(|other| *other != digest) {
            let text = format!("{doing}: the registry made {other} of {digest}");
            return Err(Error::permanent(text).into());
        }
        return Ok(());
    }
    let mut error = session.refusal(&doing, &response);
    let code = code(&response).unwrap_or_default();
    match (response.status.as_u16(), code.as_str()) {
        (400 | 404, "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN") | (416, _) => {
            return Err(Stop::Restart(error));
        }
        _ if is_immutable(&response, &code) => {
            if digest_of(session, tag).await? == Some(digest) {
                return Ok(());
            }
            error.kind = Kind::Permanent;
            error
                .text
                .push_str("; the tag cannot be changed, and is another manifest's");
        }
        (400, "MANIFEST_INVALID" | "UNSUPPORTED") | (405 | 415, _) => {
            error.text.push_str(hint(artifact));
        }
        _ => {}
    }
    Err(error.into())
}

/// Recognises a refusal to move a tag. Registries spell it in many ways, some in words alone.
fn is_immutable(response: &Response, code: &str) -> bool {
    let words = String::from_utf8_lossy(&response.body).to_lowercase();
    match response.status.as_u16() {
        409 | 412 => true,
        400 | 403 => {
            code == "TAG_INVALID"
                || ["immutable", "alreadyexists", "cannot be overwritten"]
                    .iter()
                    .any(|word| words.contains(word))
        }
        _ => false,
    }
}

/// Returns the option for the operator to try when a registry refuses the manifest.
fn hint(artifact: &Artifact) -> &'static str {
    match (artifact.is_compatible, &artifact.subject) {
        (false, _) => {
            "; the attachment's option compatibility=true makes a manifest for older registries"
        }
        (true, Some(_)) => {
            "; the attachment's option subject=false makes one for still older registries"
        }
        (true, None) => "",
    }
}

fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers
        .get("docker-content-digest")?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn manifest_read(
    repository: &Repository,
    method: Method,
    reference: &str,
) -> Result<Request<Bytes>, Error> {
    let mut request = request(method, &repository.api(&format!("manifests/{reference}")))?;
    request.headers_mut().insert(ACCEPT, ANY_MANIFEST);
    Ok(request)
}

/// The digest of the manifest that a tag names; nothing where there is no such tag, or we may not know.
async fn digest_of(session: &mut Session<'_>, tag: &str) -> Result<Option<Digest>, Error> {
    let repository = session.repository();
    let doing = format!("ask {repository} for {tag}");
    let response = session
        .send(manifest_read(repository, Method::HEAD, tag)?)
        .await?;
    if is_trouble(response.status) {
        return Err(session.refusal(&doing, &response));
    }
    if response.status != StatusCode::OK {
        return Ok(None);
    }
    let told = content_digest(&response.headers);
    if told.is_some() {
        return Ok(told);
    }
    // Not every registry tells; all of them have the bytes.
    let response = read_manifest(session, tag).await?;
    let is_whole = response.status == StatusCode::OK && !response.truncated;
    Ok(is_whole.then(|| Digest::of(&response.body)))
}

async fn read_manifest(session: &mut Session<'_>, reference: &str) -> Result<Response, Error> {
    let request = manifest_read(session.repository(), Method::GET, reference)?;
    session.fetch(request, MANIFEST_BYTES).await
}

/// The descriptor of an image in this repository; nothing where it is not there.
pub async fn image(session: &mut Session<'_>, digest: Digest) -> Result<Option<Descriptor>, Error> {
    let response = read_manifest(session, &digest.to_string()).await?;
    if is_trouble(response.status) {
        let doing = format!("ask {} for {digest}", session.repository());
        return Err(session.refusal(&doing, &response));
    }
    if response.status != StatusCode::OK
        || response.truncated
        || Digest::of(&response.body) != digest
    {
        return Ok(None);
    }
    let media_type = response
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let media_type = media_type
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default()
        .trim();
    let is_one = ANY_MANIFEST
        .to_str()
        .is_ok_and(|all| all.split(", ").any(|one| one == media_type));
    Ok(is_one.then(|| Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: response.body.len() as u64,
        artifact_type: None,
        annotations: std::collections::BTreeMap::new(),
    }))
}

/// Asks whether the registry has a manifest.
pub async fn has_manifest(session: &mut Session<'_>, digest: Digest) -> Result<bool, Error> {
    let repository = session.repository();
    let request = manifest_read(repository, Method::HEAD, &digest.to_string())?;
    let response = session.send(request).await?;
    match response.status {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => {
            let doing = format!("ask {} for {digest}", session.repository());
            Err(session.refusal(&doing, &response))
        }
    }
}

/// Asks whether the registry by itself lists a manifest among those that refer to an image.
pub async fn lists_referrer(
    session: &mut Session<'_>,
    subject: Digest,
    referrer: Digest,
) -> Result<bool, Error> {
    let url = session.repository().api(&format!("referrers/{subject}"));
    let mut request = request(Method::GET, &url)?;
    request
        .headers_mut()
        .insert(ACCEPT, HeaderValue::from_static(INDEX));
    let response = session.fetch(request, MANIFEST_BYTES).await?;
    // Without such a list, a registry answers the path in one way or another.
    let knows_no_list = matches!(
        response.status,
        StatusCode::UNAUTHORIZED | StatusCode::NOT_IMPLEMENTED
    );
    if is_trouble(response.status) && !knows_no_list {
        let doing = format!("ask {} for what refers to {subject}", session.repository());
        return Err(session.refusal(&doing, &response));
    }
    // Of a list that goes on elsewhere, the rest is taken on trust.
    let goes_on = response.truncated || response.headers.contains_key(LINK);
    Ok(response.status == StatusCode::OK
        && is_index(&response.headers)
        && (goes_on || is_listed(&response.body, referrer)))
}

fn is_index(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(INDEX.as_bytes()))
}

/// Puts the artifact into the list of what refers to its subject, which is kept at a tag where the registry keeps none.
/// Two at a time would lose one of theirs: no registry heeds a condition here.
pub async fn list_at_tag(
    session: &mut Session<'_>,
    subject: Digest,
    new: &Descriptor,
) -> Result<(), Error> {
    let repository = session.repository().clone();
    let tag = format!("sha256-{}", subject.hex());
    let doing = format!("list the attestation at {repository}:{tag}");
    let response = read_manifest(session, &tag).await?;
    let listed = match response.status {
        StatusCode::OK if response.truncated => {
            return Err(Error::permanent(format!(
                "{doing}: the list has more than 4 MiB"
            )));
        }
        StatusCode::OK if !is_index(&response.headers) => {
            return Err(Error::permanent(format!(
                "{doing}: what is there is not an image index; subject=false leaves it alone"
            )));
        }
        StatusCode::OK => with_referrer(Some(&response.body), new),
        StatusCode::NOT_FOUND => with_referrer(None, new),
        _ => return Err(session.refusal(&doing, &response)),
    };
    let listed = listed.map_err(|error| Error {
        text: format!("{doing}: {}", error.text),
        ..error
    })?;
    let Some(index) = listed else {
        return Ok(());
    };
    let response = session
        .send(manifest_request(&repository, &tag, INDEX, index)?)
        .await?;
    match response.status.is_success() {
        true => Ok(()),
        false => Err(session.refusal(&doing, &response)),
    }
}
