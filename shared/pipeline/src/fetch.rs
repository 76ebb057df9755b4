//! Fetches materials that an attestation names and a Chainloop control plane has, into the bucket, where the
//! deliveries that wait for them find them.
//!
//! Nothing depends on it: a delivery waits for its materials as long as its attachment says, whoever brings them,
//! and goes without those that never came. So a fetch that fails is tried again for as long as somebody may wait,
//! and then given up without a word but in the log.

use std::time::Duration;

use attestation::Digest;
use bytes::BytesMut;
use integrations::{Error, Http, Kind, cas};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use crate::api::attestations::MATERIAL_MAX_BYTES;
use crate::clock::Timestamp;
use crate::deliver::{Record, park};
use crate::intakes::{self, Source};
use crate::platform::{Platform, Unreachable};
use crate::rows::{self, Attachment, Attestation, Plan};
use crate::{intake, schedule};

/// Its queue, and its function.
pub const QUEUE: &str = "fetch-materials";

/// How much is held before it is put down as a part: the memory that a fetch needs.
const PART_BYTES: usize = 8 * 1024 * 1024;

/// How long one material may take.
const LONGEST: Duration = Duration::from_secs(100);

/// With less time left than this, no material is begun, and the rest is for the next invocation.
const LEAST: Duration = Duration::from_secs(20);

/// What the queue carries: ids, never a payload, never a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Version of this shape: [`Message::VERSION`].
    pub v: u32,
    pub organization: String,
    /// The attestation's hash.
    pub attestation: Digest,
    /// The id of the intake that knows where its materials are.
    pub intake: String,
    /// How often something could not be fetched.
    pub looks: u32,
}

impl Message {
    pub const VERSION: u32 = 1;

    /// Reads a message's text, or says why it cannot be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let message: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if message.v != Self::VERSION {
            return Err(format!("version {} is not known here", message.v));
        }
        Ok(message)
    }

    async fn send(&self, platform: &impl Platform, delay: Duration) -> Result<(), Unreachable> {
        let message = crate::platform::Message {
            body: serde_json::to_string(self).expect("ids and numbers are JSON"),
            group: self.organization.clone(),
            delay,
        };
        let answers = platform.send(QUEUE, &[message]).await?;
        let failed = answers.into_iter().find_map(Result::err);
        failed.map_or(Ok(()), |why| Err(Unreachable { what: "queue", why }))
    }
}

/// Has the materials of an attestation fetched that are not here.
pub async fn ask(
    platform: &impl Platform,
    organization: &str,
    attestation: &Digest,
    intake: &str,
) -> Result<(), Unreachable> {
    let message = Message {
        v: Message::VERSION,
        organization: organization.to_owned(),
        attestation: *attestation,
        intake: intake.to_owned(),
        looks: 0,
    };
    message.send(platform, Duration::ZERO).await
}

/// Fetches for a batch, one after the other; `until` is when this invocation ends. Answers with the ids of the
/// records that the queue must hand over again, because the platform could not be reached.
pub async fn batch(
    platform: &impl Platform,
    http: &Http,
    records: Vec<Record>,
    until: Timestamp,
) -> Vec<String> {
    let mut back = Vec::new();
    for record in records {
        if let Err(unreachable) = Box::pin(one(platform, http, &record, until)).await {
            warn!(message.id = record.id, error = %unreachable, "Gave a message back");
            back.push(record.id);
        }
    }
    back
}

async fn one(
    platform: &impl Platform,
    http: &Http,
    record: &Record,
    until: Timestamp,
) -> Result<(), Unreachable> {
    let message = match Message::parse(&record.body) {
        Ok(message) => message,
        Err(reason) => return park(platform, QUEUE, record, reason).await,
    };
    let organization = &message.organization;
    let Some(source) = intakes::source(platform, organization, &message.intake).await? else {
        info!(
            intake.id = message.intake,
            "Nothing is fetched for an intake that is gone"
        );
        return Ok(());
    };
    let key = Attestation::at(organization, &message.attestation);
    let Some(attestation) = rows::load::<Attestation>(platform, &key).await? else {
        return Ok(());
    };
    let bytes = platform
        .get_object(organization, &attestation.row.received)
        .await?;
    let Some(Ok(parsed)) = bytes.map(|bytes| attestation::Attestation::parse(&bytes)) else {
        return Ok(());
    };
    let http = &http.trusting(source.authorities().as_ref());
    let mut failed = false;
    for digest in intake::missing(platform, organization, &parsed).await? {
        let left = until.since(platform.now());
        if left < LEAST {
            return message.send(platform, Duration::ZERO).await;
        }
        let within = LONGEST.min(left.saturating_sub(LEAST / 2));
        match fetch(platform, http, organization, &source, &digest, within).await {
            Ok(size_bytes) => {
                info!(material = %digest, size_bytes, "Fetched a material");
            }
            Err(Failure::Unreachable(unreachable)) => return Err(unreachable),
            Err(Failure::Fetch(error)) => {
                let kind = error.kind;
                warn!(material = %digest, error = %error, "Failed to fetch a material");
                failed |= kind != Kind::Permanent;
            }
        }
    }
    if failed {
        again(platform, message, &attestation.row).await?;
    }
    Ok(())
}

/// Tries again later, as long as somebody may wait.
async fn again(
    platform: &impl Platform,
    mut message: Message,
    attestation: &Attestation,
) -> Result<(), Unreachable> {
    let last = schedule::FETCHES.len() - 1;
    let looks = usize::try_from(message.looks).unwrap_or(last);
    let delay = schedule::FETCHES[looks.min(last)];
    let patience = patience(platform, attestation).await?;
    if platform.now().plus(delay) > attestation.created_at.plus(patience) {
        let attestation = &message.attestation;
        warn!(attestation = %attestation, "Gave up on materials that could not be fetched");
        return Ok(());
    }
    message.looks += 1;
    message.send(platform, delay).await
}

/// How long the most patient delivery of an attestation waits for a material.
async fn patience(
    platform: &impl Platform,
    attestation: &Attestation,
) -> Result<Duration, Unreachable> {
    let Attestation {
        organization, hash, ..
    } = attestation;
    let plan = rows::load::<Plan>(platform, &Plan::at(organization, hash, 0)).await?;
    let planned = plan.map(|plan| plan.row.planned).unwrap_or_default();
    let keys: Vec<_> = planned
        .iter()
        .map(|planned| Attachment::at(organization, &planned.attachment))
        .collect();
    let attachments = rows::load_many::<Attachment>(platform, &keys).await?;
    let waits = attachments
        .iter()
        .filter_map(|attachment| attachment.row.wait_secs.map(Duration::from_secs));
    Ok(waits.fold(schedule::PATIENCE, Duration::max))
}

enum Failure {
    Fetch(Error),
    Unreachable(Unreachable),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Fetch(error)
    }
}

impl From<Unreachable> for Failure {
    fn from(unreachable: Unreachable) -> Self {
        Self::Unreachable(unreachable)
    }
}

/// Fetches one material into the bucket. Answers with its size.
async fn fetch(
    platform: &impl Platform,
    http: &Http,
    organization: &str,
    source: &Source,
    digest: &Digest,
    within: Duration,
) -> Result<u64, Failure> {
    let Source { url, token, .. } = source;
    let mut download = cas::open(http, url, token, digest, MATERIAL_MAX_BYTES, within).await?;
    let mut upload = None;
    let kept = keep(platform, organization, digest, &mut download, &mut upload).await;
    if let (Err(_), Some(upload)) = (&kept, &upload) {
        // The bucket forgets it by itself after a day.
        let _ = platform.abandon_upload(organization, digest, upload).await;
    }
    kept
}

/// Puts down what comes, a part at a time, and makes an object of it only when it is what was asked for.
async fn keep(
    platform: &impl Platform,
    organization: &str,
    digest: &Digest,
    download: &mut cas::Download,
    upload: &mut Option<String>,
) -> Result<u64, Failure> {
    let mut hash = Sha256::new();
    let mut size_bytes = 0;
    let mut parts = Vec::new();
    let mut held = BytesMut::new();
    loop {
        let next = download.next().await?;
        if let Some(bytes) = &next {
            hash.update(bytes);
            size_bytes += bytes.len() as u64;
            held.extend_from_slice(bytes);
        }
        let is_last = next.is_none();
        if is_last && Digest::from(<[u8; 32]>::from(hash.clone().finalize())) != *digest {
            return Err(Error::retryable(format!("fetch {digest}: other bytes came")).into());
        }
        if is_last && upload.is_none() {
            // All of it is here.
            platform
                .put_object(organization, digest, held.freeze())
                .await?;
            return Ok(size_bytes);
        }
        if held.len() >= PART_BYTES || is_last && !held.is_empty() {
            if upload.is_none() {
                *upload = Some(platform.begin_upload(organization, digest).await?);
            }
            let id = upload.as_deref().unwrap_or_default();
            let number = u32::try_from(parts.len()).unwrap_or(u32::MAX) + 1;
            let bytes = held.split().freeze();
            parts.push(
                platform
                    .upload_part(organization, digest, id, number, bytes)
                    .await?,
            );
        }
        if is_last {
            let id = upload.as_deref().unwrap_or_default();
            platform
                .complete_upload(organization, digest, id, parts)
                .await?;
            return Ok(size_bytes);
        }
    }
}
