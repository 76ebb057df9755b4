//! The edge of an integration: everything that it says of a third party leaves here, and here credentials are masked.
//!
//! Integrations quote what they are told without a thought. A third party repeats credentials in more ways than the
//! author of an integration thinks of, so that no integration masks anything by itself: [`Http`] masks what it cuts,
//! and this masks what goes to rows, logs and the API. Only these functions call an integration's own.

use attestation::Material;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use serde_json::{Map, Value};

use crate::{
    Delivery, Error, Followed, Host, Http, Integration, Locked, Outcome, Piece, Presence, Preview,
    Redactor, Warnings, inputs,
};

/// A registration that can be worked with: its inputs, secret ones among them.
#[derive(Debug)]
pub struct Registered<I: Integration> {
    pub inputs: I::Registration,
    redactor: Redactor,
    external_id: Option<String>,
}

impl<I: Integration> Registered<I> {
    /// Reads a registration's inputs; none when they do not fit. No reason is given, as it could quote a secret.
    pub fn read(inputs: Map<String, Value>) -> Option<Self> {
        let redactor = Redactor::of(&inputs::schema::<I::Registration>(), &inputs);
        let inputs = serde_json::from_value(Value::Object(inputs)).ok()?;
        Some(Self {
            inputs,
            redactor,
            external_id: None,
        })
    }

    /// With the external ID of its organization, by which a role is assumed.
    #[must_use]
    pub fn on_behalf_of(self, external_id: Option<String>) -> Self {
        Self {
            external_id,
            ..self
        }
    }

    /// The client for this registration alone: it trusts what that one trusts, and masks its credentials.
    fn client(&self, http: &Http) -> Http {
        http.trusting(I::authorities(&self.inputs))
            .masking(&self.redactor)
            .on_behalf_of(self.external_id.as_deref())
    }

    /// [`Integration::register`].
    pub async fn register(&self, http: &Http) -> Result<Warnings, Error> {
        let result = I::register(&self.client(http), &self.inputs).await;
        self.checked(result)
    }

    /// [`Integration::attach`].
    pub async fn attach(&self, http: &Http, attachment: &I::Attachment) -> Result<Warnings, Error> {
        let result = I::attach(&self.client(http), &self.inputs, attachment).await;
        self.checked(result)
    }

    fn checked(&self, result: Result<Warnings, Error>) -> Result<Warnings, Error> {
        match result {
            Ok(warnings) => Ok(warnings
                .into_iter()
                .map(|text| self.redactor.owned(text))
                .collect()),
            Err(error) => Err(self.redactor.error(error)),
        }
    }

    /// [`Integration::deliver`].
    pub async fn deliver(
        &self,
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, I>,
    ) -> Result<Outcome, Error> {
        let redactor = &self.redactor;
        let host = Masking { host, redactor };
        match I::deliver(&self.client(http), &host, delivery).await {
            Ok(Outcome::Delivered(receipt)) => Ok(Outcome::Delivered(redactor.map(receipt))),
            Ok(Outcome::PartlyDelivered { receipt, note }) => Ok(Outcome::PartlyDelivered {
                receipt: redactor.map(receipt),
                note: redactor.owned(note),
            }),
            Ok(Outcome::Skipped(reason)) => Ok(Outcome::Skipped(redactor.owned(reason))),
            Ok(Outcome::ContinueAfter { delay, reason }) => Ok(Outcome::ContinueAfter {
                delay,
                reason: redactor.owned(reason),
            }),
            Err(error) => Err(redactor.error(error)),
        }
    }

    /// [`Integration::follow`].
    pub async fn follow(
        &self,
        http: &Http,
        receipt: &Map<String, Value>,
    ) -> Result<Followed, Error> {
        match I::follow(&self.client(http), &self.inputs, receipt).await {
            Ok(Followed::Over(receipt)) => Ok(Followed::Over(self.redactor.map(receipt))),
            Ok(Followed::UnderWay) => Ok(Followed::UnderWay),
            Err(error) => Err(self.redactor.error(error)),
        }
    }

    /// [`Integration::look_for`].
    pub async fn look_for(
        &self,
        http: &Http,
        receipt: &Map<String, Value>,
    ) -> Result<Presence, Error> {
        match I::look_for(&self.client(http), &self.inputs, receipt).await {
            Ok(presence) => Ok(Presence {
                reason: presence.reason.map(|reason| self.redactor.owned(reason)),
                ..presence
            }),
            Err(error) => Err(self.redactor.error(error)),
        }
    }

    /// [`Integration::preview`].
    pub async fn preview(
        &self,
        host: &dyn Host,
        delivery: &Delivery<'_, I>,
    ) -> Result<Vec<Preview>, Error> {
        let redactor = &self.redactor;
        let host = Masking { host, redactor };
        let previews = match I::preview(&host, delivery).await {
            Ok(previews) => previews,
            Err(error) => return Err(redactor.error(error)),
        };
        let previews = previews.into_iter().map(|preview| Preview {
            target: redactor.owned(preview.target),
            headers: (preview.headers.into_iter())
                .map(|(name, value)| (name, redactor.owned(value)))
                .collect(),
            body: redactor.beginning(preview.body.as_bytes()),
            ..preview
        });
        Ok(previews.collect())
    }
}

/// A host that is told no credentials.
struct Masking<'a> {
    host: &'a dyn Host,
    redactor: &'a Redactor,
}

impl Host for Masking<'_> {
    fn content<'a>(&'a self, material: &'a Material) -> LocalBoxFuture<'a, Result<Bytes, Error>> {
        self.host.content(material)
    }

    fn size_bytes<'a>(&'a self, material: &'a Material) -> LocalBoxFuture<'a, Result<u64, Error>> {
        self.host.size_bytes(material)
    }

    fn read<'a>(
        &'a self,
        material: &'a Material,
        offset: u64,
        length: u64,
    ) -> LocalBoxFuture<'a, Result<Piece, Error>> {
        self.host.read(material, offset, length)
    }

    fn lock<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<Locked, Error>> {
        self.host.lock(name)
    }

    fn unlock<'a>(&'a self, name: &'a str, note: Value) -> LocalBoxFuture<'a, Result<(), Error>> {
        self.host.unlock(name, self.redactor.value(note))
    }

    fn record<'a>(
        &'a self,
        step: &'a str,
        receipt: Value,
    ) -> LocalBoxFuture<'a, Result<(), Error>> {
        self.host.record(step, self.redactor.value(receipt))
    }

    fn unix_secs(&self) -> u64 {
        self.host.unix_secs()
    }
}
