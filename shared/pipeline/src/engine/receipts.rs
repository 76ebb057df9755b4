//! Signed receipts: statements in a DSSE envelope about how a delivery ended, for whoever has to show it to others.
//!
//! A receipt is made when it is asked for and kept nowhere, so deliveries pay nothing for it. It says what the ledger says
//! at that time: a third party that worked on afterwards may have completed its own receipt in between, and a
//! registration has the name and the destination of today.

use std::collections::BTreeSet;

use api::deliveries::{AttemptOutcome, State};
use api::{AttachmentId, DeliveryId, OrganizationName, RegistrationId, Timestamp};
use attestation::{Digest, Envelope, Material, PAYLOAD_TYPE, Signature, pae};
use futures_util::future::try_join4;
use serde::Serialize;
use serde_json::{Map, Value};

use super::deliveries;
use crate::store::platform::{Platform, Scope, Unreachable};
use crate::store::rows::{self, Attempt, Delivery, Registration};

/// Type of the predicate, with its version. A version may gain fields; the meaning of a field stays.
pub const PREDICATE_TYPE: &str = "https://chainloop.dev/integrations/delivery-receipt/v1";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no delivery {0:?}")]
    NotFound(DeliveryId),
    #[error("the delivery has not ended: a receipt is about one that has")]
    NotFinal,
    #[error("the bytes of the attestation are not kept here ({0})")]
    BytesGone(Digest),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

/// Public half of the key that signs receipts.
#[derive(Debug)]
pub struct PublicKey {
    /// A `SubjectPublicKeyInfo`.
    pub der: Vec<u8>,
}

impl PublicKey {
    pub async fn load(platform: &impl Platform) -> Result<Self, Unreachable> {
        let der = platform.signing_key().await?;
        Ok(Self { der })
    }

    /// Returns the ID by which trust policies know the key, too.
    pub fn id(&self) -> Digest {
        Digest::of(&self.der)
    }
}

/// Signs a receipt of a delivery that has ended.
pub async fn sign(scope: Scope<'_, impl Platform>, id: &DeliveryId) -> Result<Envelope, Error> {
    let (platform, organization) = scope.parts();
    let described = deliveries::describe(scope, id).await?;
    let (delivery, attempts) = described.ok_or_else(|| Error::NotFound(id.clone()))?;
    if !delivery.state.is_final() {
        return Err(Error::NotFinal);
    }
    let (attestation, registration, bytes, key) = try_join4(
        rows::load::<rows::Attestation>(
            platform,
            &rows::Attestation::at(organization, &delivery.attestation),
        ),
        rows::load::<Registration>(
            platform,
            &Registration::at(organization, &delivery.registration),
        ),
        platform.get_object(organization, &delivery.received),
        PublicKey::load(platform),
    )
    .await?;
    let gone = || Error::BytesGone(delivery.received);
    let attestation = attestation.ok_or_else(gone)?.row;
    let bytes = bytes.filter(|bytes| Digest::of(bytes) == delivery.received);
    let parsed = attestation::Attestation::parse(&bytes.ok_or_else(gone)?).map_err(|_| gone())?;
    let sent = sent(&delivery, parsed.materials());
    let statement = Statement {
        kind: "https://in-toto.io/Statement/v1",
        subject: subjects(&delivery, &sent),
        predicate_type: PREDICATE_TYPE,
        predicate: Predicate {
            stack: platform.stack(),
            organization,
            attestation: Attested::of(&attestation),
            registration: Registered::of(&delivery, registration.as_ref().map(|one| &one.row)),
            delivery: Ending::of(&delivery, &attempts),
            signed_at: platform.now(),
        },
    };
    let payload = serde_json::to_vec(&statement).expect("text and numbers are always JSON");
    let sig = platform.sign(&pae(PAYLOAD_TYPE, &payload)).await?;
    Ok(Envelope {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload,
        signatures: vec![Signature {
            keyid: key.id().to_string(),
            sig,
        }],
    })
}

/// Reports whether the third party's receipt names this digest.
pub(crate) fn names(delivery: &Delivery, digest: &Digest) -> bool {
    let mut named = BTreeSet::new();
    let receipts = delivery.receipt.iter().flat_map(Map::values);
    receipts.for_each(|receipt| digests(receipt, &mut named));
    named.contains(digest)
}

/// Returns the materials that the third party has, as far as its receipts say: those that they name by their digest.
fn sent<'a>(delivery: &Delivery, materials: &'a [Material]) -> Vec<&'a Material> {
    let mut named = BTreeSet::new();
    let receipts = delivery.receipt.iter().flat_map(Map::values);
    for receipt in receipts.chain(delivery.progress.values()) {
        digests(receipt, &mut named);
    }
    // An image has a digest and no bytes to send.
    let has_bytes = |one: &&Material| one.uploaded_to_cas || one.content.is_some();
    let is_named = |one: &&Material| one.digest.is_some_and(|digest| named.contains(&digest));
    let materials = materials.iter();
    materials.filter(has_bytes).filter(is_named).collect()
}

fn digests(value: &Value, found: &mut BTreeSet<Digest>) {
    match value {
        Value::String(text) => found.extend(text.parse::<Digest>()),
        Value::Array(values) => values.iter().for_each(|value| digests(value, found)),
        Value::Object(values) => values.values().for_each(|value| digests(value, found)),
        _ => {}
    }
}

fn subjects(delivery: &Delivery, sent: &[&Material]) -> Vec<Subject> {
    let subject = |name, digest: &Digest| Subject {
        name,
        digest: Sha256 {
            sha256: digest.hex(),
        },
    };
    let materials = sent.iter().filter_map(|material| {
        let name = format!("material/{}", material.name);
        Some(subject(name, material.digest.as_ref()?))
    });
    std::iter::once(subject("attestation".to_owned(), &delivery.received))
        .chain(materials)
        .collect()
}

#[derive(Serialize)]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: &'static str,
    predicate: Predicate<'a>,
}

#[derive(Serialize)]
struct Subject {
    name: String,
    digest: Sha256,
}

#[derive(Serialize)]
struct Sha256 {
    sha256: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate<'a> {
    stack: &'a str,
    organization: &'a OrganizationName,
    attestation: Attested<'a>,
    registration: Registered<'a>,
    delivery: Ending<'a>,
    signed_at: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attested<'a> {
    /// Its ID.
    hash: Digest,
    workflow: Workflow<'a>,
    run: &'a str,
    predicate_type: &'a str,
    accepted_at: Timestamp,
}

#[derive(Serialize)]
struct Workflow<'a> {
    id: &'a str,
    project: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Registered<'a> {
    id: &'a RegistrationId,
    integration: &'a str,
    /// Name when the receipt is signed: a registration can be changed.
    name_when_signed: Option<&'a str>,
    destination_when_signed: Map<String, Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ending<'a> {
    id: &'a DeliveryId,
    attachment: &'a AttachmentId,
    generation: u32,
    state: State,
    reason: Option<&'a str>,
    planned_at: Timestamp,
    ended_at: Timestamp,
    attempts: Vec<Tried>,
    receipt: Option<&'a Map<String, Value>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tried {
    number: u32,
    ending: AttemptOutcome,
    started_at: Timestamp,
    duration_ms: u64,
    status: Option<u16>,
}

impl<'a> Attested<'a> {
    fn of(row: &'a rows::Attestation) -> Self {
        let api::workflows::Workflow {
            id, project, name, ..
        } = &row.workflow;
        Self {
            hash: row.hash,
            workflow: Workflow { id, project, name },
            run: &row.run,
            predicate_type: &row.predicate_type,
            accepted_at: row.created_at,
        }
    }
}

impl<'a> Registered<'a> {
    fn of(delivery: &'a Delivery, row: Option<&'a Registration>) -> Self {
        Self {
            id: &delivery.registration,
            integration: &delivery.integration,
            name_when_signed: row.map(|row| row.name.as_str()),
            destination_when_signed: row.map(destination).unwrap_or_default(),
        }
    }
}

/// Returns the inputs that say where a registration leads: secret URLs by their labels, and no other secrets.
fn destination(row: &Registration) -> Map<String, Value> {
    let description = integrations::find(&row.integration);
    let schema = description.map_or(Value::Null, |one| (one.registration_schema)());
    let urls = row.label.iter();
    let urls = urls.filter(|(name, _)| schema["properties"][name.as_str()]["format"] == "uri");
    let plain =
        api::inputs::destinations(&schema).filter_map(|name| row.config.get_key_value(name));
    // Whom it trusts is no place.
    let plain = plain.filter(|(name, _)| *name != integrations::AUTHORITIES);
    let all = urls.chain(plain);
    all.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

impl<'a> Ending<'a> {
    fn of(delivery: &'a Delivery, attempts: &[Attempt]) -> Self {
        // A completion poll writes the row of a delivery that ended before.
        let last = attempts
            .last()
            .filter(|_| delivery.state == State::Delivered);
        let ended_at = last.map_or(delivery.updated_at, |last| {
            let millis = std::time::Duration::from_millis(last.report.duration_ms);
            last.report.started_at.plus(millis)
        });
        let tried = |attempt: &Attempt| Tried {
            number: attempt.number,
            ending: attempt.report.ending,
            started_at: attempt.report.started_at,
            duration_ms: attempt.report.duration_ms,
            status: attempt.report.status,
        };
        Self {
            id: &delivery.id,
            attachment: &delivery.attachment,
            generation: delivery.generation,
            state: delivery.state,
            reason: delivery.reason.as_deref(),
            planned_at: delivery.created_at,
            ended_at,
            attempts: attempts.iter().map(tried).collect(),
            receipt: delivery.receipt.as_ref(),
        }
    }
}
