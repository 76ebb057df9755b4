//! Integrations that attestations go to: their trait, the list of all of them, and one module per third party.
//!
//! Constants and two input types describe a third party. Five functions speak to it (`register`, `attach`, `deliver`,
//! `follow`, `look_for`), and `preview` shows what `deliver` would send. Only a delivery function runs those. Everything else
//! (catalogue, CLI, documents, validation) walks [`ALL`], which holds descriptions and no behaviour,
//! so that no function carries another integration's code.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod authorities;
mod caller;
pub mod cas;
mod content;
pub mod dependency_track;
pub mod discord_webhook;
pub mod document;
pub mod edge;
mod error;
pub mod facts;
pub mod filter;
#[cfg(test)]
mod fixture;
pub mod guac;
pub mod http;
pub mod iam;
pub mod inputs;
pub mod oci_registry;
mod pushed;
pub mod redact;
mod repeat;
mod shape;
pub mod slack_webhook;
pub mod smtp;
pub mod summary;
pub mod template;
mod text;
pub mod webhook;

use std::collections::BTreeMap;
use std::time::Duration;

use attestation::{Digest, Material, MaterialType};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use serde_json::{Map, Value};

use api::Trace;
pub use api::attachments::Preview;
pub use api::inputs::{Fault, Field};
pub use api::places::{Presence, PresenceState};
pub use api::workflows::Workflow;
pub use authorities::{Authorities, INPUT as AUTHORITIES, NotAuthorities};
pub use content::{CHUNK_BYTES, Content, Encoding};
pub use edge::Registered;
pub use error::{About, Answer, Error, Kind};
pub use facts::facts;
pub use filter::Filter;
pub use http::Http;
pub use iam::{INPUT as ROLE_ARN, RoleArn};
pub use inputs::{Inputs, SecretText, SecretUrl};
pub use pushed::Pushed;
pub use redact::Redactor;
pub use summary::{Detail, Summary};
pub use template::Template;

/// A kind of third party that attestations can be delivered to.
///
/// All that the rest of the system knows of a third party is here; its id occurs nowhere else.
#[expect(
    async_fn_in_trait,
    reason = "always reached by type, on one thread; nothing needs Send"
)]
pub trait Integration: Sized + 'static {
    /// Kebab case; queue, function, secret and page names derive from it.
    const ID: &'static str;
    const VERSION: &'static str;
    /// One sentence for the catalogue.
    const DESCRIPTION: &'static str;
    /// Material types that are sent along; a delivery waits for these.
    const MATERIALS: &'static [MaterialType];
    /// Without any material there is nothing to deliver.
    const MATERIALS_ONLY: bool = false;
    /// True if an attempt may take two minutes, not 20 s: where materials are sent, and where a third party keeps its
    /// clients waiting.
    const TAKES_LONG: bool = !Self::MATERIALS.is_empty();
    /// The third party works on after it has accepted, and [`follow`](Self::follow) asks how that went.
    const FOLLOWS: bool = false;
    /// The third party limits all of our organizations together, as it does who shares an address:
    /// [`About::Everyone`] holds them all back.
    const SHARES_LIMITS: bool = false;

    /// Inputs that an operator fills in once per organization.
    type Registration: Inputs;
    /// Inputs that an operator fills in per workflow.
    type Attachment: Inputs;

    /// Returns the [`MATERIALS`](Self::MATERIALS) that this attachment sends: a delivery waits for no others.
    fn materials(_attachment: &Self::Attachment) -> &'static [MaterialType] {
        Self::MATERIALS
    }

    /// Returns the filter for the attestations and materials that this attachment wants. All others are left out before
    /// anything is sent or waited for. A delivery with nothing left is skipped, with the reason.
    fn filter(_attachment: &Self::Attachment) -> Option<&Filter> {
        None
    }

    /// The shortest time between two deliveries through a registration, over all functions; none when the third
    /// party takes them as fast as they come.
    fn interval(_registration: &Self::Registration) -> Option<Duration> {
        None
    }

    /// Returns the authorities that a registration trusts in addition to the public ones.
    fn authorities(_registration: &Self::Registration) -> Option<&Authorities> {
        None
    }

    /// Asks the third party whether deliveries could work, leaving no trace there where it offers a way.
    async fn register(http: &Http, registration: &Self::Registration) -> Result<Warnings, Error>;

    /// As [`register`](Self::register), for what the attachment adds.
    async fn attach(
        http: &Http,
        registration: &Self::Registration,
        attachment: &Self::Attachment,
    ) -> Result<Warnings, Error>;

    /// Sends. What [`Delivery::progress`] says was done already is not repeated.
    async fn deliver(
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Outcome, Error>;

    /// Asks what became of something that the third party accepted, by the receipt of its delivery.
    ///
    /// Only where [`FOLLOWS`](Self::FOLLOWS). The delivery stays delivered, whatever the answer is.
    async fn follow(
        _http: &Http,
        _registration: &Self::Registration,
        _receipt: &Map<String, Value>,
    ) -> Result<Followed, Error> {
        Ok(Followed::Over(Map::new()))
    }

    /// Asks whether the third party still has what was delivered, by the receipt of its delivery. Changes nothing there.
    async fn look_for(
        _http: &Http,
        _registration: &Self::Registration,
        _receipt: &Map<String, Value>,
    ) -> Result<Presence, Error> {
        Ok(Presence::unknown(
            "the third party offers no way to ask for it",
        ))
    }

    /// Returns the requests that [`deliver`](Self::deliver) would send, secrets masked. Sends nothing.
    async fn preview(host: &dyn Host, delivery: &Delivery<'_, Self>)
    -> Result<Vec<Preview>, Error>;
}

/// One attestation on its way to one attachment.
#[derive(Debug)]
pub struct Delivery<'a, I: Integration> {
    /// Stable over retries and redrives: the key by which a third party can recognise a repeat.
    pub id: &'a str,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The registration's name today.
    pub registration_name: &'a str,
    pub registration: &'a I::Registration,
    pub attachment: &'a I::Attachment,
    pub pushed: Pushed<'a>,
    /// The bytes that the attestation was read from: its bundle, where it came in one.
    pub received: &'a Bytes,
    /// Subscribed materials that can be sent, in the order of the predicate.
    pub materials: &'a [Material],
    /// Subscribed materials that never came; named in the receipt.
    pub missing: &'a [Material],
    /// Step → receipt of what earlier attempts finished.
    pub progress: &'a BTreeMap<String, Value>,
    /// The trace of whoever pushed the attestation, and this attempt's span in it.
    pub trace: Option<Trace>,
}

/// Services that an integration may ask of the program that runs it.
pub trait Host {
    /// A material's bytes, inline or stored, checked against its digest. Large ones are sent by [`Content`].
    fn content<'a>(&'a self, material: &'a Material) -> LocalBoxFuture<'a, Result<Bytes, Error>>;

    /// Returns the size of a material in bytes.
    fn size_bytes<'a>(&'a self, material: &'a Material) -> LocalBoxFuture<'a, Result<u64, Error>>;

    /// `length` of a material's bytes from `offset` on, fewer at its end. Not checked: see [`Content`].
    fn read<'a>(
        &'a self,
        material: &'a Material,
        offset: u64,
        length: u64,
    ) -> LocalBoxFuture<'a, Result<Piece, Error>>;

    /// Takes what is called `name` at this registration for this attempt alone, over all functions, with the note
    /// that the last one left there (null when nobody did). It is let go of at the attempt's end at the latest.
    fn lock<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<Locked, Error>>;

    /// Lets go of what was taken, and leaves a note of at most 1 KB for the next.
    fn unlock<'a>(&'a self, name: &'a str, note: Value) -> LocalBoxFuture<'a, Result<(), Error>>;

    /// Keeps a finished step, under the lease, before the next one begins.
    fn record<'a>(&'a self, step: &'a str, receipt: Value)
    -> LocalBoxFuture<'a, Result<(), Error>>;

    /// Seconds since 1970, for signatures that carry a time.
    fn unix_secs(&self) -> u64;
}

/// Consecutive bytes of a material, from [`Host::read`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub bytes: Bytes,
    /// The stored object's entity tag: pieces with the same one are of the same bytes. None where nothing says so.
    pub etag: Option<String>,
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, etag: None }
    }
}

/// Result of [`Host::lock`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locked {
    /// With the note that the last one left.
    Ours(Value),
    /// Another delivery has it: [`Outcome::busy`].
    Theirs,
}

/// Result of a completion poll, after a delivery was accepted.
#[derive(Debug, Clone, PartialEq)]
pub enum Followed {
    /// Still under way; it is asked again.
    UnderWay,
    /// Over, with what is to be added to the receipt.
    Over(Map<String, Value>),
}

/// Maximum number of things that [`Integration::look_for`] asks a third party for: an operator waits.
const LOOKED_FOR: usize = 50;

/// Doubts about something that passed its check: deliveries could work, and may not do what was meant. Each is a
/// sentence fragment, in lower case and without a full stop. Operators see them in the answer.
pub type Warnings = Vec<String>;

/// Result of a delivery, when nothing is wrong. Everything else is an [`Error`] with a [`Kind`].
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The third party has it; the receipt says what it called it.
    Delivered(Map<String, Value>),
    /// As [`Delivered`](Self::Delivered), except for what the note says: a recipient that was refused, a list that
    /// could not be written. Not tried again; a sentence fragment without a full stop.
    PartlyDelivered {
        receipt: Map<String, Value>,
        note: String,
    },
    /// Rightly not sent.
    Skipped(String),
    /// Not yet, for a reason that costs no attempt.
    ContinueAfter { delay: Duration, reason: String },
}

impl Outcome {
    /// Another delivery is at the same place just now.
    pub fn busy(place: &str) -> Self {
        Self::ContinueAfter {
            delay: Duration::from_secs(3),
            reason: format!("another delivery is under way to {place}"),
        }
    }
}

/// The subscribed materials that the attachment's filter admits, and why nothing at all is wanted, if so: neither
/// the attestation fits the filter nor any material of it.
pub fn wanted<'a, I: Integration>(
    pushed: Pushed<'a>,
    attachment: &I::Attachment,
) -> (Vec<&'a Material>, Option<String>) {
    let types = I::materials(attachment);
    let materials = pushed.attestation.materials().iter();
    let subscribed = materials.filter(|material| types.contains(&material.kind));
    let Some(filter) = I::filter(attachment) else {
        return (subscribed.collect(), None);
    };
    let mut wanted = Vec::new();
    let mut why = None;
    for material in subscribed {
        match filter.admits(pushed, Some(material)) {
            Ok(()) => wanted.push(material),
            Err(reason) => why = why.or(Some(format!("{}: {reason}", material.name))),
        }
    }
    if !wanted.is_empty() {
        return (wanted, None);
    }
    match filter.admits(pushed, None) {
        Err(reason) => (wanted, Some(reason)),
        // Of what sends materials alone, the attestation by itself is nothing to send.
        Ok(()) => (wanted, why.filter(|_| I::MATERIALS_ONLY)),
    }
}

fn awaited_by<I: Integration>(inputs: &Map<String, Value>, pushed: Pushed<'_>) -> Vec<Digest> {
    // Inputs that an older version admitted fail the delivery, which then waits for nothing.
    let Ok(attachment) = serde_json::from_value(Value::Object(inputs.clone())) else {
        return Vec::new();
    };
    let (wanted, _) = wanted::<I>(pushed, &attachment);
    let uploaded = wanted
        .into_iter()
        .filter(|material| material.uploaded_to_cas && material.content.is_none());
    uploaded.filter_map(|material| material.digest).collect()
}

/// Description of an integration, without the code that speaks to its third party.
#[derive(Debug)]
pub struct Description {
    pub id: &'static str,
    pub version: &'static str,
    pub description: &'static str,
    pub materials: &'static [MaterialType],
    pub materials_only: bool,
    pub takes_long: bool,
    /// JSON Schema (draft 2020-12) of the registration's inputs; flat.
    pub registration_schema: fn() -> Value,
    /// JSON Schema of the attachment's inputs; flat.
    pub attachment_schema: fn() -> Value,
    /// All that is wrong with a registration's inputs, secrets among them.
    pub check_registration: fn(&Map<String, Value>) -> Vec<Fault>,
    /// All that is wrong with an attachment's inputs.
    pub check_attachment: fn(&Map<String, Value>) -> Vec<Fault>,
}

impl Description {
    /// Reports whether a registration may name a role to assume instead of keys.
    pub fn assumes_roles(&self) -> bool {
        !(self.registration_schema)()["properties"][ROLE_ARN].is_null()
    }

    const fn of<I: Integration>() -> Self {
        Self {
            id: I::ID,
            version: I::VERSION,
            description: I::DESCRIPTION,
            materials: I::MATERIALS,
            materials_only: I::MATERIALS_ONLY,
            takes_long: I::TAKES_LONG,
            registration_schema: inputs::schema::<I::Registration>,
            attachment_schema: inputs::schema::<I::Attachment>,
            check_registration: inputs::check::<I::Registration>,
            check_attachment: inputs::check::<I::Attachment>,
        }
    }
}

impl From<&Description> for api::integrations::Integration {
    fn from(description: &Description) -> Self {
        Self {
            id: description.id.into(),
            version: description.version.into(),
            description: description.description.into(),
            materials: description
                .materials
                .iter()
                .map(ToString::to_string)
                .collect(),
            registration_schema: (description.registration_schema)(),
            attachment_schema: (description.attachment_schema)(),
        }
    }
}

/// Calls `$with!(Type, Type, …)` with every integration, sorted by id: the one list.
#[macro_export]
macro_rules! for_all_integrations {
    ($with:ident) => {
        $with! {
            $crate::dependency_track::DependencyTrack,
            $crate::discord_webhook::DiscordWebhook,
            $crate::guac::Guac,
            $crate::oci_registry::OciRegistry,
            $crate::slack_webhook::SlackWebhook,
            $crate::smtp::Smtp,
            $crate::webhook::Webhook
        }
    };
}

macro_rules! describe {
    ($($integration:ty),+) => { &[$(Description::of::<$integration>()),+] };
}

/// Every integration there is, sorted by id.
pub static ALL: &[Description] = for_all_integrations!(describe);

/// The description of the integration with this id.
pub fn find(id: &str) -> Option<&'static Description> {
    ALL.iter().find(|description| description.id == id)
}

/// The digests of the materials that deliveries through an attachment of these inputs wait for, where they are not
/// there yet. Not a field of [`Description`], so that accepting links no schemas and no checks.
pub fn awaited(id: &str, inputs: &Map<String, Value>, pushed: Pushed<'_>) -> Vec<Digest> {
    macro_rules! by_id {
        ($($integration:ty),+) => {
            match id {
                $(<$integration as Integration>::ID => awaited_by::<$integration>(inputs, pushed),)+
                _ => Vec::new(),
            }
        };
    }
    for_all_integrations!(by_id)
}
