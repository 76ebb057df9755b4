//! Fetches materials that an attestation names and a Chainloop control plane has, into the bucket, where the
//! deliveries that wait for them find them; and its bundle, where the verdict on its signatures lacks that.
//!
//! Nothing depends on it: a delivery waits for its materials as long as its attachment says, whoever brings them,
//! and goes without those that never came. So a fetch that fails is tried again for as long as somebody waits, and
//! then given up without a word but in the log.
//!
//! A message is one turn. It asks for one missing material after the other, in the order of their digests, for
//! [`TURN`]; then it sends itself again and says how far it came, so that slow stores keep nobody else waiting and
//! each material is asked for before the first one is asked for again.

use std::ops::Bound;
use std::time::Duration;

use api::materials::MATERIAL_MAX_BYTES;
use api::{IntakeId, OrganizationName, Timestamp};
use attestation::{Digest, Hasher};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{LocalBoxStream, StreamExt, TryStreamExt, try_unfold};
use integrations::{Error, Http, Kind, cas};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::config::intakes::{self, Source};
use crate::config::{keys, quotas};
use crate::engine::deliver::{GiveBack, Record, park};
use crate::engine::issuer_keys::{self, Documents};
use crate::engine::{materials, signatures};
use crate::ledger::message::{self, Unreadable};
use crate::ledger::schedule;
use crate::store::meter::Used;
use crate::store::platform::{self, Platform, Scope, Unreachable};
use crate::store::rows::{self, Attachment, Attestation, CONFLICTS, FetchTurn, Plan, Stored};

pub use crate::config::keys::QUEUE;

/// Bytes buffered before the upload of a part: the memory that a fetch needs.
const PART_BYTES: usize = 8 * 1024 * 1024;

/// Timeout for fetching one material.
pub const LONGEST: Duration = Duration::from_secs(100);

/// Time for which a turn starts further materials. With the longest fetch added, it fits into an invocation.
pub const TURN: Duration = Duration::from_secs(20);

/// With less time left than this, no material is begun, and the rest is for the next turn.
const LEAST: Duration = Duration::from_secs(20);

/// Store that materials are fetched from.
pub trait Store: Documents {
    /// Opens the material with this digest: all of it has to come within this time. What comes is for the caller
    /// to check.
    async fn open(
        &self,
        source: &Source,
        digest: &Digest,
        within: Duration,
    ) -> Result<Coming, Error>;
}

/// A material's bytes as they come.
pub type Coming = LocalBoxStream<'static, Result<Bytes, Error>>;

/// Chainloop's artifact store.
impl Store for Http {
    async fn open(
        &self,
        source: &Source,
        digest: &Digest,
        within: Duration,
    ) -> Result<Coming, Error> {
        let Source { url, token, .. } = source;
        let http = self.trusting(source.authorities().as_ref());
        let download = cas::open(&http, url, token, digest, MATERIAL_MAX_BYTES, within).await?;
        let coming = try_unfold(download, |mut download| async move {
            let next = download.next().await?;
            Ok(next.map(|bytes| (bytes, download)))
        });
        Ok(coming.boxed_local())
    }
}

/// Message in the queue: IDs, never a payload, never a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Version of this shape: [`Message::VERSION`].
    pub v: u32,
    pub organization: OrganizationName,
    /// The attestation's hash.
    pub attestation: Digest,
    /// The id of the intake that knows where its materials are.
    pub intake: IntakeId,
    /// ID of the fetch, which all of its messages have.
    pub fetch: String,
    /// Number of completed rounds; each asks for all missing materials.
    pub polls: u32,
    /// The material that was asked for last; those behind it are next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Digest>,
    /// One of those before it may still come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// Number of turns before this one.
    #[serde(default)]
    pub turns: u32,
}

impl Message {
    pub const VERSION: u32 = 1;

    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        message::parse(text, Self::VERSION)
    }

    async fn send(&self, platform: &impl Platform, delay: Duration) -> Result<(), Unreachable> {
        let message = crate::store::platform::Message {
            body: serde_json::to_string(self).expect("ids and numbers are JSON"),
            group: self.organization.clone(),
            delay,
        };
        let answers = platform.send(QUEUE, &[message]).await?;
        let failed = answers.into_iter().find_map(Result::err);
        failed.map_or(Ok(()), |why| Err(Unreachable { what: "queue", why }))
    }

    /// Takes its turn, unless another message has. A queue may deliver a message twice, and each copy would send a
    /// next one of its own: of several messages of one turn, the first goes on, and the others end.
    async fn takes_turn(
        &self,
        platform: &impl Platform,
        record: &Record,
    ) -> Result<bool, Unreachable> {
        let turn = FetchTurn {
            organization: self.organization.clone(),
            attestation: self.attestation,
            fetch: self.fetch.clone(),
            turn: self.turns,
            message: record.id.clone(),
            taken_at: platform.now(),
        };
        let changed = rows::change_or_insert(platform, turn.clone(), CONFLICTS, |row| {
            // Handed over again, after a crash say, it goes on.
            let is_ours = row.turn == turn.turn && row.message == turn.message;
            (is_ours || row.turn < turn.turn).then(|| {
                *row = turn.clone();
                Vec::new()
            })
        });
        changed.await?.is_written("a fetch's turn")
    }

    /// Sends itself for its next round, if a delivery still waits then.
    async fn asks_again(
        mut self,
        platform: &impl Platform,
        waited_until: Timestamp,
    ) -> Result<(), Unreachable> {
        let last = schedule::FETCHES.len() - 1;
        let polls = usize::try_from(self.polls).unwrap_or(last);
        let delay = schedule::FETCHES[polls.min(last)];
        if platform.now().plus(delay) >= waited_until {
            self.gives_up();
            return Ok(());
        }
        self.polls += 1;
        (self.after, self.failed) = (None, false);
        self.goes_on(platform, delay).await
    }

    /// Sends itself for its next turn, if there is one left.
    async fn goes_on(
        mut self,
        platform: &impl Platform,
        delay: Duration,
    ) -> Result<(), Unreachable> {
        self.turns += 1;
        if self.turns >= schedule::FETCH_TURNS {
            self.gives_up();
            return Ok(());
        }
        self.send(platform, delay).await
    }

    fn gives_up(&self) {
        let attestation = &self.attestation;
        warn!(attestation = %attestation, "Gave up on materials that could not be fetched");
    }
}

/// Has the materials of an accepted attestation fetched that are not here; by each intake once, however often it
/// posts the attestation.
pub async fn ask(
    scope: Scope<'_, impl Platform>,
    attestation: &Digest,
    intake: &IntakeId,
) -> Result<(), Unreachable> {
    let (platform, organization) = scope.parts();
    let key = Attestation::at(organization, attestation);
    let Some(mut stored) = rows::load::<Attestation>(platform, &key).await? else {
        return Ok(());
    };
    if stored.row.fetched_by.as_ref() == Some(intake) {
        return Ok(());
    }
    let message = Message {
        v: Message::VERSION,
        organization: organization.to_owned(),
        attestation: *attestation,
        intake: intake.to_owned(),
        fetch: format!("{:016x}", platform.random()),
        polls: 0,
        after: None,
        failed: false,
        turns: 0,
    };
    message.send(platform, Duration::ZERO).await?;
    stored.row.fetched_by = Some(intake.to_owned());
    // When this is lost, it is fetched once more should it be posted again, which does no harm.
    if let Err(error) = platform.write(vec![stored.update(platform).0]).await {
        info!(%error, "That materials are fetched was not written down");
    }
    Ok(())
}

/// Fetches for a batch, one after the other; `until` is when this invocation ends. Answers with the ids of the
/// records that the queue must hand over again: the platform could not be reached, or another release wrote them.
pub async fn batch(
    platform: &impl Platform,
    store: &impl Store,
    records: Vec<Record>,
    until: Timestamp,
) -> Vec<String> {
    let mut back = Vec::new();
    for record in records {
        if let Err(give_back) = Box::pin(one(platform, store, &record, until)).await {
            warn!(message.id = record.id, error = %give_back, "Gave a message back");
            back.push(record.id);
        }
    }
    back
}

async fn one(
    platform: &impl Platform,
    store: &impl Store,
    record: &Record,
    until: Timestamp,
) -> Result<(), GiveBack> {
    let mut message = match Message::parse(&record.body) {
        Ok(message) => message,
        Err(Unreadable::Version(keys::Message::VERSION)) => {
            return match keys::Message::parse(&record.body) {
                Ok(message) => Ok(issuer_keys::fetch(platform, store, &message).await?),
                Err(why) => Ok(park(platform, QUEUE, record, why.to_string()).await?),
            };
        }
        Err(Unreadable::Malformed(why)) => return Ok(park(platform, QUEUE, record, why).await?),
        Err(newer) => return Err(newer.into()),
    };
    let turn_ends = platform.now().plus(TURN);
    let organization = message.organization.clone();
    let scope = Scope::new(platform, &organization);
    let source = intakes::source(scope, &message.intake).await?;
    let key = Attestation::at(&organization, &message.attestation);
    let Some(attestation) = rows::load::<Attestation>(platform, &key).await? else {
        return Ok(());
    };
    if !message.takes_turn(platform, record).await? {
        info!(attestation = %message.attestation, "Dropped a repeated message of a fetch");
        return Ok(());
    }
    let waited_until = waited_until(platform, &attestation.row).await?;
    let Some(source) = source else {
        // Secrets Manager shows after a while what was written; a deleted intake has none.
        info!(intake.id = %message.intake, "An intake's secret is not there: gone, or not there yet");
        return Ok(message.asks_again(platform, waited_until).await?);
    };
    let ends = waited_until.min(until);
    // First of a round: deliveries wait for it before they wait for materials.
    if message.after.is_none() {
        message.failed |= judge_bundle(scope, store, &source, &attestation, ends).await?;
    }
    if is_unproven(scope, &attestation.row).await? {
        // Whoever has the intake's URL could have anything fetched that the store has.
        return Ok(message.asks_again(platform, waited_until).await?);
    }
    let wanted = wanted(platform, &attestation.row, message.after).await?;
    for (asked, digest) in wanted.into_iter().enumerate() {
        let now = platform.now();
        if now >= waited_until {
            message.gives_up();
            return Ok(());
        }
        let left = until.since(now);
        if left < LEAST || asked > 0 && now >= turn_ends {
            return Ok(message.goes_on(platform, Duration::ZERO).await?);
        }
        let most = left.saturating_sub(LEAST / 2);
        let within = LONGEST.min(most).min(waited_until.since(now));
        message.after = Some(digest);
        match fetch(scope, store, &source, &digest, within).await {
            Ok(size_bytes) => {
                let used = Used::material(size_bytes);
                quotas::count(scope, &digest, used).await;
                info!(material = %digest, size_bytes, "Fetched a material");
            }
            Err(Failure::Unreachable(unreachable)) => return Err(unreachable.into()),
            Err(Failure::Fetch(error)) => {
                let kind = error.kind;
                warn!(material = %digest, error = %error, "Failed to fetch a material");
                message.failed |= kind != Kind::Permanent;
            }
        }
    }
    if !message.failed {
        return Ok(());
    }
    Ok(message.asks_again(platform, waited_until).await?)
}

/// Fetches the bundle that an attestation was forwarded without, where its verdict lacks it, and judges by that. Reports
/// whether it may still come.
async fn judge_bundle(
    scope: Scope<'_, impl Platform>,
    store: &impl Store,
    source: &Source,
    attestation: &Stored<Attestation>,
    ends: Timestamp,
) -> Result<bool, Unreachable> {
    let Some(bundle) = signatures::awaited_bundle(&attestation.row) else {
        return Ok(false);
    };
    let (platform, organization) = scope.parts();
    if platform.keep_object(organization, &bundle).await?.is_none() {
        // The rest is for a material.
        let within = LONGEST.min(ends.since(platform.now()).saturating_sub(LEAST));
        if within.is_zero() {
            return Ok(true);
        }
        match fetch(scope, store, source, &bundle, within).await {
            Ok(size_bytes) => quotas::count(scope, &bundle, Used::material(size_bytes)).await,
            Err(Failure::Unreachable(unreachable)) => return Err(unreachable),
            Err(Failure::Fetch(error)) => {
                warn!(%bundle, %error, "Failed to fetch a bundle");
                return Ok(error.kind != Kind::Permanent);
            }
        }
    }
    signatures::bundle_came(scope, attestation.clone(), &bundle).await?;
    info!(attestation = %attestation.row.hash, %bundle, "Judged an attestation by its bundle");
    Ok(false)
}

/// Reports whether an attestation lacks a proof that is required, as its row is now.
async fn is_unproven(
    scope: Scope<'_, impl Platform>,
    row: &Attestation,
) -> Result<bool, Unreachable> {
    if !row.is_unproven {
        return Ok(false);
    }
    let key = Attestation::at(scope.organization, &row.hash);
    let stored = rows::load::<Attestation>(scope.platform, &key).await?;
    Ok(stored.is_none_or(|stored| stored.row.is_unproven))
}

/// The materials behind `after` that the attestation names and that are not here.
async fn wanted(
    platform: &impl Platform,
    attestation: &Attestation,
    after: Option<Digest>,
) -> Result<Vec<Digest>, Unreachable> {
    let organization = &attestation.organization;
    let bytes = platform
        .get_object(organization, &attestation.received)
        .await?;
    let Some(Ok(parsed)) = bytes.map(|bytes| attestation::Attestation::parse(&bytes)) else {
        return Ok(Vec::new());
    };
    let first = after.map_or(Bound::Unbounded, Bound::Excluded);
    let promised = materials::promised(&parsed);
    materials::missing(
        Scope::new(platform, organization),
        promised.range((first, Bound::Unbounded)),
    )
    .await
}

/// Until when the most patient delivery of an attestation waits for a material.
async fn waited_until(
    platform: &impl Platform,
    attestation: &Attestation,
) -> Result<Timestamp, Unreachable> {
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
    let longest = waits.fold(schedule::PATIENCE, Duration::max);
    Ok(attestation.created_at.plus(longest))
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
    scope: Scope<'_, impl Platform>,
    store: &impl Store,
    source: &Source,
    digest: &Digest,
    within: Duration,
) -> Result<u64, Failure> {
    let mut upload = None;
    let kept = {
        let keeping = async {
            let coming = store.open(source, digest, within).await?;
            keep(scope, digest, coming, &mut upload).await
        };
        let kept = platform::within(scope.platform, within, keeping).await;
        kept.unwrap_or_else(|| {
            let secs = within.as_secs();
            let text = format!("fetch {digest}: not all of it came within {secs} s");
            Err(Error::new(Kind::Indeterminate, text).into())
        })
    };
    if let (Err(_), Some(upload)) = (&kept, &upload) {
        // The bucket forgets it by itself after a day.
        let (platform, organization) = scope.parts();
        let _ = platform.abandon_upload(organization, digest, upload).await;
    }
    kept
}

/// Puts down what comes, a part at a time, and makes an object of it only when it is what was asked for.
async fn keep(
    scope: Scope<'_, impl Platform>,
    digest: &Digest,
    mut coming: Coming,
    upload: &mut Option<String>,
) -> Result<u64, Failure> {
    let (platform, organization) = scope.parts();
    let mut hash = Hasher::default();
    let mut size_bytes = 0;
    let mut parts = Vec::new();
    let mut held = BytesMut::new();
    loop {
        let next = coming.try_next().await?;
        if let Some(bytes) = &next {
            hash.update(bytes);
            size_bytes += bytes.len() as u64;
            held.extend_from_slice(bytes);
        }
        let is_last = next.is_none();
        if is_last && hash.clone().finish() != *digest {
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
