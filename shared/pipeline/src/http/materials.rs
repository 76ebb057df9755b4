//! Materials: uploaded and downloaded by presigned requests.

use api::materials::{Content, NewMaterial, NewUpload};
use api::{Action, Code, Problem};
use attestation::Digest;

use super::request::{Answer, Call, Response};
use super::route::{Description, Route, handler};
use crate::config::quotas;
use crate::records::audit_log;
use crate::store::meter::Used;
use crate::store::platform::Platform;

/// Reason why uploads leave no audit entry.
const UPLOADED: &str =
    "bytes are known by their digest alone, and the attestation that names it says who sent that";

pub fn routes<P: Platform, D: Description>() -> Vec<Route<P, D>> {
    vec![
        Route::put("/v1/materials/{digest}", Action::Push, handler!(upload))
            .for_restricted()
            .unaudited(UPLOADED)
            .operation("uploadMaterial", "Get an upload for a material")
            .takes::<NewMaterial>()
            .answers::<NewUpload>(200, "A presigned upload, or that the bytes are present")
            .refuses(&[Code::QuotaExceeded, Code::InvalidInputs])
            .never_refuses(Code::NotFound),
        Route::get("/v1/materials/{digest}", Action::Read, handler!(download))
            .audited("material.download")
            .operation("downloadMaterial", "Get a download of a material")
            .answers::<Content>(200, "A presigned URL, valid for 15 minutes")
            .refuses(&[Code::InvalidInputs]),
    ]
}

async fn upload<P: Platform>(call: Call<'_, P>) -> Answer {
    let (scope, request) = call.parts();
    let digest = digest(call)?;
    let NewMaterial { size_bytes } = request.json()?;
    let material = match scope
        .platform
        .keep_object(scope.organization, &digest)
        .await?
    {
        Some(_) => NewUpload::Present,
        None => {
            let used = Used::material(size_bytes);
            quotas::daily(scope, used).await?;
            let upload = scope
                .platform
                .presign_put(scope.organization, &digest, size_bytes);
            let upload = upload.await?;
            // The bucket takes the bytes by itself, so what may be sent counts.
            quotas::count(scope, &digest, used).await;
            NewUpload::Needed { upload }
        }
    };
    Ok(Response::json(200, &material))
}

async fn download<P: Platform>(call: Call<'_, P>) -> Answer {
    let digest = digest(call)?;
    let what = "a material with this digest";
    let subject = audit_log::Subject::new(digest.to_string(), digest.to_string());
    content(call, digest, what, subject).await
}

/// The digest in the path.
pub(super) fn digest<P>(call: Call<'_, P>) -> Result<Digest, Problem> {
    let digest = call.parameter("digest").parse();
    digest.map_err(|_| Problem::field("digest", "must be sha256:<64 hexadecimal digits>"))
}

/// Answers where bytes can be downloaded.
pub(super) async fn content<P: Platform>(
    call: Call<'_, P>,
    digest: Digest,
    what: &str,
    subject: audit_log::Subject,
) -> Answer {
    let scope = call.scope();
    let (platform, organization) = scope.parts();
    let size = platform.object_size(organization, &digest).await?;
    let missing = || {
        Problem::new(
            Code::NotFound,
            format!("{what} is not kept here ({digest})"),
        )
    };
    let size_bytes = size.ok_or_else(missing)?;
    // Before the address is handed out: who has it has the bytes.
    audit_log::record(scope, call.act(), subject, "").await?;
    let download = platform.presign_get(organization, &digest).await?;
    let content = Content {
        digest,
        size_bytes,
        download,
    };
    Ok(Response::json(200, &content))
}
