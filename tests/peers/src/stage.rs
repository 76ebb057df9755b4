//! A delivery's surroundings: an attestation, its materials, and the host that has their bytes.

use std::cell::RefCell;
use std::collections::BTreeMap;

use api::workflows::Workflow;
use attestation::{Attestation, Material, MaterialType};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use integrations::http::Guard;
use integrations::{Authorities, Delivery, Error, Host, Http, Integration, Locked, Piece};
use serde_json::Value;

/// A statement of Chainloop's, with materials of several kinds and a policy that found something.
pub const STATEMENT: &str = include_str!("../../../shared/integrations/tests/files/statement.json");
use crate::authority;

/// The client as it is in local mode.
pub fn http() -> Http {
    Http::new(Guard {
        allow_loopback: true,
        ..Guard::default()
    })
}

/// The same, where the tests' own [authority](crate::authority) is trusted, too.
pub fn trusting() -> Http {
    let authorities = Authorities::try_from(authority::CERTIFICATE).unwrap();
    http().trusting(Some(&authorities))
}

/// One attestation that is to be delivered, with what was kept of it so far.
pub struct Stage {
    pub attestation: Attestation,
    pub received: Bytes,
    pub workflow: Workflow,
    pub materials: Vec<Material>,
    pub missing: Vec<Material>,
    pub progress: BTreeMap<String, Value>,
    pub recorded: RefCell<Vec<(String, Value)>>,
    /// Notes by the name of their place; a place that is taken has none.
    pub notes: RefCell<BTreeMap<String, Option<Value>>>,
}

impl Stage {
    /// With the materials that stand in the attestation, inline.
    pub fn of(envelope: &[u8]) -> Self {
        let attestation = Attestation::parse(envelope).unwrap();
        let materials = attestation.materials().iter();
        Self {
            materials: materials
                .filter(|material| material.content.is_some())
                .cloned()
                .collect(),
            workflow: Workflow {
                id: "6f0c1f0e-0000-4000-8000-000000000001".to_owned(),
                project: "shop".to_owned(),
                name: "nightly-build".to_owned(),
            },
            missing: Vec::new(),
            progress: BTreeMap::new(),
            recorded: RefCell::default(),
            notes: RefCell::default(),
            received: Bytes::copy_from_slice(envelope),
            attestation,
        }
    }

    /// Over a statement, signed by nobody.
    pub fn of_statement(statement: &str) -> Self {
        let payload = base64_simd::STANDARD.encode_to_string(statement);
        Self::of(
            format!(
                r#"{{"payloadType":"application/vnd.in-toto+json","payload":"{payload}","signatures":[{{"keyid":"","sig":"c2ln"}}]}}"#
            )
            .as_bytes(),
        )
    }

    #[must_use]
    pub fn with(mut self, name: &str, kind: MaterialType, bytes: &[u8]) -> Self {
        let material = Material::inline(name, kind, "file.json", bytes.to_vec());
        self.materials.push(material);
        self
    }

    pub fn delivery<'a, I: Integration>(
        &'a self,
        registration: &'a I::Registration,
        attachment: &'a I::Attachment,
    ) -> Delivery<'a, I> {
        Delivery {
            id: "sha256:5d1e",
            attempt: 1,
            registration_name: "prod",
            registration,
            attachment,
            pushed: integrations::Pushed {
                attestation: &self.attestation,
                workflow: &self.workflow,
                verdict: None,
                console: Some("https://integrations.example.org/console"),
            },
            received: &self.received,
            materials: &self.materials,
            missing: &self.missing,
            progress: &self.progress,
            trace: None,
        }
    }
}

impl Host for Stage {
    fn content<'a>(&'a self, material: &'a Material) -> LocalBoxFuture<'a, Result<Bytes, Error>> {
        let content = material.content.clone().unwrap();
        std::future::ready(Ok(content.into())).boxed_local()
    }

    fn size_bytes<'a>(&'a self, material: &'a Material) -> LocalBoxFuture<'a, Result<u64, Error>> {
        let size_bytes = material.content.as_ref().unwrap().len() as u64;
        std::future::ready(Ok(size_bytes)).boxed_local()
    }

    fn read<'a>(
        &'a self,
        material: &'a Material,
        offset: u64,
        length: u64,
    ) -> LocalBoxFuture<'a, Result<Piece, Error>> {
        let content = material.content.as_ref().unwrap();
        let place = |at: u64| usize::try_from(at).unwrap().min(content.len());
        let part = content[place(offset)..place(offset + length)].to_vec();
        std::future::ready(Ok(Bytes::from(part).into())).boxed_local()
    }

    fn lock<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<Locked, Error>> {
        let mut notes = self.notes.borrow_mut();
        let note = notes.entry(name.to_owned()).or_insert(Some(Value::Null));
        let locked = note.take().map_or(Locked::Theirs, Locked::Ours);
        std::future::ready(Ok(locked)).boxed_local()
    }

    fn unlock<'a>(&'a self, name: &'a str, note: Value) -> LocalBoxFuture<'a, Result<(), Error>> {
        self.notes.borrow_mut().insert(name.to_owned(), Some(note));
        std::future::ready(Ok(())).boxed_local()
    }

    fn record<'a>(
        &'a self,
        step: &'a str,
        receipt: Value,
    ) -> LocalBoxFuture<'a, Result<(), Error>> {
        self.recorded.borrow_mut().push((step.to_owned(), receipt));
        std::future::ready(Ok(())).boxed_local()
    }

    fn unix_secs(&self) -> u64 {
        1_767_323_400
    }
}
