//! A world in memory with a receiver on loopback, and verbs that read as a story.

use std::sync::LazyLock;
use std::time::Duration;

use api::{Actor, OrganizationName, Timestamp};
use attestation::{Material, MaterialType, Metadata, Predicate, compose};
use bytes::Bytes;
use futures_util::FutureExt as _;
use integrations::http::Guard;
use integrations::webhook::Webhook;
use integrations::{Http, Integration};
use memory::Memory;
use pipeline::Platform;
use pipeline::config::check::{self, Check};
use pipeline::config::{self, attach, register};
use pipeline::engine::accept::{self, Accepted};
use pipeline::engine::deliver::{self, Tools};
use pipeline::engine::{audit, reconcile};
use pipeline::records::audit_log::Act;
use pipeline::store::platform::{Item, Scope};
use pipeline::store::rows::{self, Attempt, Delivery};
use serde_json::{Map, Value, json};

use crate::receiver::Receiver;
use crate::roles::As;

pub static ORGANIZATION: LazyLock<OrganizationName> = LazyLock::new(|| "acme".into());

/// The organization of the tests, on this platform.
pub fn scope<P>(platform: &P) -> Scope<'_, P> {
    Scope::new(platform, &ORGANIZATION)
}
pub const WORKFLOW: &str = "shop/nightly";

pub struct World {
    pub memory: Memory,
    pub tools: Tools,
    pub receiver: Receiver,
}

/// The one who operates and pushes in the tests.
pub fn tests() -> &'static Actor {
    static TESTS: LazyLock<Actor> = LazyLock::new(|| Actor {
        id: "token-1".into(),
        ..Actor::named("tests")
    });
    &TESTS
}

/// An act of theirs, where it does not matter what it is called.
pub fn act() -> Act<'static> {
    Act {
        actor: tests(),
        action: "test",
    }
}

pub fn http() -> Http {
    Http::new(Guard {
        allow_loopback: true,
        ..Guard::default()
    })
}

/// As the delivery functions answer: by the integration's own check.
fn memory() -> Memory {
    Memory::new(|memory, integration, event| {
        Box::pin(async move {
            assert_eq!(integration, Webhook::ID);
            let check: Check = serde_json::from_value(event["check"].clone()).unwrap();
            let asked =
                check::check::<Webhook>(&As::delivering::<Webhook>(memory), &http(), check).await?;
            Ok(serde_json::to_value(asked).unwrap())
        })
    })
}

impl World {
    pub fn new() -> Self {
        Self::with(Receiver::start())
    }

    pub fn with(receiver: Receiver) -> Self {
        Self::over(memory(), receiver)
    }

    pub fn over(mut memory: Memory, receiver: Receiver) -> Self {
        // Time stands still here, and many tests attach many times.
        memory.meter.quotas.checks = u64::from(u32::MAX);
        Self {
            memory,
            tools: Tools::new(http()),
            receiver,
        }
    }

    pub async fn register(&self, name: &str) -> Result<rows::Registration, config::Error> {
        self.register_at(name, &self.receiver.url()).await
    }

    pub async fn register_at(
        &self,
        name: &str,
        url: &str,
    ) -> Result<rows::Registration, config::Error> {
        let inputs =
            inputs(json!({ "url": url, "secret": "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0" }));
        let (integration, name) = (Webhook::ID.to_owned(), name.to_owned());
        let wanted = register::NewRegistration {
            integration,
            name,
            description: String::new(),
            inputs,
            id: None,
        };
        let role = As::function(&self.memory, "registrations");
        let registered = register::register(scope(&role), wanted, act()).await;
        registered.map(|(stored, _)| stored.row)
    }

    pub async fn attach(&self, registration: &str) -> rows::Attachment {
        self.attach_with(registration, json!({})).await
    }

    pub async fn attach_with(&self, registration: &str, options: Value) -> rows::Attachment {
        self.attach_to(WORKFLOW, registration, options).await
    }

    pub async fn attach_to(
        &self,
        workflow: &str,
        registration: &str,
        options: Value,
    ) -> rows::Attachment {
        let wanted = attach::NewAttachment {
            registration: registration.to_owned(),
            workflow: api::workflows::selector(workflow, None).unwrap(),
            inputs: inputs(options),
            wait_secs: None,
            // Many tests want many attachments, and care for nothing else of them.
            allow_duplicate: true,
            id: None,
        };
        let role = As::function(&self.memory, "attachments");
        attach::attach(scope(&role), wanted, act())
            .await
            .unwrap()
            .0
            .row
    }

    /// A registration with one attachment.
    pub async fn ready(&self) -> rows::Attachment {
        self.register("hook").await.unwrap();
        self.attach("hook").await
    }

    pub async fn push(&self, bytes: Vec<u8>) -> Result<Accepted, accept::Error> {
        let role = As::function(&self.memory, "attestations");
        accept::pushed(scope(&role), Bytes::from(bytes), None, tests()).await
    }

    /// Hands everything that is visible now to the delivery function.
    pub async fn deliver(&self) {
        loop {
            let records = self.memory.receive(Webhook::ID, 10);
            if records.is_empty() {
                return;
            }
            let until = self.memory.now().plus(Duration::from_mins(15));
            let role = As::delivering::<Webhook>(&self.memory);
            let back = deliver::batch::<Webhook>(&role, &self.tools, records, until).await;
            assert!(back.is_empty(), "{back:?}");
        }
    }

    pub async fn reconcile(&self) -> reconcile::Report {
        let until = self.memory.now().plus(Duration::from_mins(1));
        let role = As::function(&self.memory, "reconciler");
        reconcile::reconcile(&role, until).await.unwrap()
    }

    /// Minute by minute, as the schedule does, until everything is final or so much time has passed.
    pub async fn pass(&self, duration: Duration) {
        let end: Timestamp = self.memory.now().plus(duration);
        while self.memory.now() < end {
            self.memory.advance(Duration::from_mins(1));
            self.reconcile().await;
            self.deliver().await;
        }
    }

    pub async fn delivery(&self, accepted: &Accepted) -> (Delivery, Vec<Attempt>) {
        let (id, _) = accepted.plan.deliveries().next().unwrap();
        pipeline::engine::deliveries::describe(scope(&self.memory), &id)
            .await
            .unwrap()
            .unwrap()
    }

    /// The conservation law holds.
    pub async fn audit(&self, accepted: &Accepted) {
        let hash = accepted.attestation.hash;
        let violations = audit::attestation(scope(&self.memory), &hash)
            .await
            .unwrap();
        assert_eq!(violations, Vec::<String>::new());
    }
}

/// Every row, but for how far tokens are with their checks.
pub fn kept(memory: &Memory) -> Vec<Item> {
    let rows = memory.rows().into_iter();
    let rows = rows.filter(|key| !key.partition.ends_with("/checks"));
    let found = rows.filter_map(|key| memory.get(&key).now_or_never()?.unwrap());
    found.collect()
}

pub fn inputs(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(inputs) => inputs,
        other => panic!("inputs are an object: {other}"),
    }
}

/// An attestation of [`WORKFLOW`]; another `run` is another attestation.
pub fn attestation(run: &str, materials: Vec<Material>) -> attestation::Envelope {
    let predicate = Predicate {
        metadata: Metadata {
            name: "nightly".into(),
            workflow_name: "nightly".into(),
            project: "shop".into(),
            workflow_run_id: run.into(),
            initialized_at: "2026-01-02T03:05:00Z".into(),
            finished_at: "2026-01-02T03:09:30Z".into(),
            ..Metadata::default()
        },
        build_type: "chainloop.dev/workflowrun/v0.1".into(),
        materials,
        ..Predicate::default()
    };
    compose::envelope(compose::statement(&predicate, &[]), "", |bytes| {
        bytes[..32].to_vec()
    })
}

pub const SBOM: &[u8] =
    br#"{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"components":[]}"#;

/// An SBOM that is promised, and has to be uploaded.
pub fn promised_sbom() -> Material {
    let digest = attestation::Digest::of(SBOM);
    Material::uploaded(
        "sbom",
        MaterialType::SBOM_CYCLONEDX_JSON,
        "sbom.cdx.json",
        digest,
    )
}
