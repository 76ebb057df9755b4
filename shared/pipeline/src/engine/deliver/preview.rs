//! Shows what would be sent: the bytes that a delivery would send, by the code that would send them.

use std::collections::BTreeMap;

use api::AttachmentId;
use attestation::{Digest, Material};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture as LocalFuture;
use integrations::{Error, Host, Integration, Locked, Piece};
use serde_json::Value;

use super::load::{Sent, Subject, load};
use super::material::{self, content};
use crate::config::check::Previewed;
use crate::config::secrets::Secrets;
use crate::store::platform::{Platform, Scope, Unreachable};
use crate::store::rows::{self, Attachment, Attestation, Delivery};

/// Previews the delivery of an attestation to an attachment. Materials that have not arrived are left out.
pub async fn preview<I: Integration>(
    scope: Scope<'_, impl Platform>,
    secrets: &Secrets,
    attachment: &AttachmentId,
    hash: &Digest,
) -> Result<Previewed, Unreachable> {
    let (platform, organization) = scope.parts();
    let refused = |text: &str| Ok(Previewed::Refused(text.to_owned()));
    let key = Attestation::at(organization, hash);
    let Some(attestation) = rows::load::<Attestation>(platform, &key).await? else {
        return refused("there is no such attestation");
    };
    let key = Attachment::at(organization, attachment);
    let Some(row) = rows::load::<Attachment>(platform, &key).await? else {
        return refused("there is no such attachment");
    };
    let subject = Subject {
        organization,
        registration: &row.row.registration,
        attachment,
        workflow: &attestation.row.workflow,
        received: attestation.row.received,
        judged: attestation.row.verdict.is_some().then_some(*hash),
    };
    let prepared = match load::<I>(platform, secrets, false, subject, None).await {
        Ok(loaded) => loaded.prepared,
        Err(Sent::Gone(reason)) => return refused(reason),
        Err(Sent::Unreachable(unreachable)) => return Err(unreachable),
        Err(Sent::Answered(Err(error))) => return refused(&error.text),
        Err(_) => return refused("it cannot be delivered just now"),
    };
    if let Some(reason) = prepared.nothing() {
        return Ok(Previewed::Nothing(reason));
    }
    let id = Delivery::id(organization, hash, attachment, 0);
    let progress = BTreeMap::new();
    let row = &attestation.row;
    let delivery = prepared.delivery(&id, 1, &row.workflow, &progress, row.trace);
    let reader = Reader { scope };
    Ok(
        match prepared.registration.preview(&reader, &delivery).await {
            Ok(requests) if requests.is_empty() => Previewed::Nothing("nothing is sent".to_owned()),
            Ok(requests) => Previewed::Requests(requests),
            Err(error) => Previewed::Refused(format!("failed to {}", error.text)),
        },
    )
}

/// Reads, and keeps nothing.
struct Reader<'a, P> {
    scope: Scope<'a, P>,
}

impl<P: Platform> Host for Reader<'_, P> {
    fn content<'a>(&'a self, material: &'a Material) -> LocalFuture<'a, Result<Bytes, Error>> {
        Box::pin(content(self.scope, material))
    }

    fn size_bytes<'a>(&'a self, material: &'a Material) -> LocalFuture<'a, Result<u64, Error>> {
        Box::pin(material::size_bytes(self.scope, material))
    }

    fn read<'a>(
        &'a self,
        material: &'a Material,
        offset: u64,
        length: u64,
    ) -> LocalFuture<'a, Result<Piece, Error>> {
        Box::pin(material::read(self.scope, material, offset, length))
    }

    fn lock<'a>(&'a self, _: &'a str) -> LocalFuture<'a, Result<Locked, Error>> {
        Box::pin(std::future::ready(Ok(Locked::Ours(Value::Null))))
    }

    fn unlock<'a>(&'a self, _: &'a str, _: Value) -> LocalFuture<'a, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn record<'a>(&'a self, _: &'a str, _: Value) -> LocalFuture<'a, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn unix_secs(&self) -> u64 {
        self.scope.platform.now().secs()
    }
}
