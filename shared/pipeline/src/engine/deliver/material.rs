//! Reads materials, inline or stored.

use attestation::{Digest, Material};
use bytes::Bytes;
use integrations::{Error, Piece};

use crate::store::platform::{Platform, Scope};

/// A material's bytes, inline or stored, checked against its digest.
pub(super) async fn content(
    scope: Scope<'_, impl Platform>,
    material: &Material,
) -> Result<Bytes, Error> {
    let (platform, organization) = scope.parts();
    if let Some(content) = &material.content {
        return Ok(Bytes::from(content.clone()));
    }
    let digest = digest(material)?;
    let bytes = platform
        .get_object(organization, &digest)
        .await
        .map_err(|unreachable| Error::retryable(unreachable.to_string()))?
        .ok_or_else(|| gone(&digest))?;
    if Digest::of(&bytes) != digest {
        return Err(Error::permanent(format!(
            "read {digest}: the stored bytes are others"
        )));
    }
    Ok(bytes)
}

/// Returns the size of a material, inline or stored.
pub(super) async fn size_bytes(
    scope: Scope<'_, impl Platform>,
    material: &Material,
) -> Result<u64, Error> {
    let (platform, organization) = scope.parts();
    if let Some(content) = &material.content {
        return Ok(content.len() as u64);
    }
    let digest = digest(material)?;
    platform
        .object_size(organization, &digest)
        .await
        .map_err(|unreachable| Error::retryable(unreachable.to_string()))?
        .ok_or_else(|| gone(&digest))
}

/// A part of a material's bytes, inline or stored, as they are.
pub(super) async fn read(
    scope: Scope<'_, impl Platform>,
    material: &Material,
    offset: u64,
    length: u64,
) -> Result<Piece, Error> {
    let (platform, organization) = scope.parts();
    if let Some(content) = &material.content {
        let place = |at: u64| usize::try_from(at).map_or(content.len(), |at| at.min(content.len()));
        let part = &content[place(offset)..place(offset.saturating_add(length))];
        return Ok(Bytes::copy_from_slice(part).into());
    }
    let digest = digest(material)?;
    platform
        .read_object(organization, &digest, offset, length)
        .await
        .map_err(|unreachable| Error::retryable(unreachable.to_string()))?
        .ok_or_else(|| gone(&digest))
}

fn digest(material: &Material) -> Result<Digest, Error> {
    let no_digest = || Error::permanent(format!("read {}: it has no digest", material.name));
    material.digest.ok_or_else(no_digest)
}

fn gone(digest: &Digest) -> Error {
    Error::retryable(format!("read {digest}: it is gone"))
}
