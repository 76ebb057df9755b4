//! The sample events in `events/`: each is read as its function reads it, run over memory, and has to come to
//! what the table says.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::future::ready;
use std::time::Duration;

use api::Timestamp;
use api::places::Presence;
use api::trust::{Mode, Policy, Signer};
use api::workflows::Workflow;
use attestation::Digest;
use aws::event::{
    AuthorizerEvent, DeliveryEvent, FetchEvent, GatewayEvent, ReconcilerEvent, SqsRecord,
    authorize, console_answer, partial_batch,
};
use bytes::Bytes;
use integrations::Integration;
use integrations::webhook::Webhook;
use memory::Memory;
use pipeline::Platform;
use pipeline::config::check::{self, Previewed};
use pipeline::config::secrets::Secrets;
use pipeline::engine::deliver::presence::presence;
use pipeline::engine::deliver::preview::preview;
use pipeline::engine::deliver::{self, Record, Tools};
use pipeline::engine::{accept, fetch, plans, reconcile};
use pipeline::http::{Response, Route};
use pipeline::ledger::delivery;
use pipeline::store::platform::{Scope, SecretValue};
use pipeline::store::rows::{self, Row};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::artifacts::{self, Artifacts};
use crate::asking::{FUNCTIONS, answer, route_of};
use crate::contract::{files, functions, root};
use crate::receiver::Receiver;
use crate::roles::As;
use crate::sign_in;
use crate::template::{CONSOLE, SIGN_IN, gateway, taken, template, words};
use crate::world::{ORGANIZATION, SBOM, attestation, http, promised_sbom, scope, tests};

/// Expected outcome of each event.
const OUTCOMES: &[(&str, &str)] = &[
    ("attachments/add.json", "201 shop/weekly"),
    (
        "attachments/add-to-unknown-registration.json",
        "404 not-found",
    ),
    (
        "attachments/add-without-project.json",
        "422 invalid-inputs: workflow",
    ),
    ("attachments/delete.json", "200 shop/nightly"),
    ("attachments/backfill.json", "202 backfill running"),
    ("attachments/check-pending-delivery.json", "409 conflict"),
    ("attachments/describe.json", "200 shop/nightly"),
    ("attachments/update.json", "200 shop/nightly"),
    (
        "attachments/update-of-workflow.json",
        "422 invalid-inputs: workflow",
    ),
    ("attachments/list.json", "200 with 1"),
    ("attachments/list-of-workflow.json", "200 with 1"),
    (
        "attachments/preview.json",
        "200 nothing: it was made to answer so",
    ),
    (
        "attachments/preview-of-unknown-attestation.json",
        "404 not-found",
    ),
    ("attestations/describe.json", "200 envelope, kept"),
    ("attestations/describe-unknown.json", "404 not-found"),
    ("attestations/download.json", "200 a download"),
    (
        "attestations/download-material-unknown.json",
        "404 not-found",
    ),
    ("attestations/judge.json", "200 with 1"),
    ("attestations/list.json", "200 with 1"),
    ("attestations/list-as-producer.json", "403 forbidden"),
    ("attestations/list-of-workflow.json", "200 with 1"),
    (
        "attestations/forward-attestation.json",
        "202, 1 delivery, 1 message",
    ),
    ("attestations/forward-sbom.json", "200 kept"),
    ("attestations/forward-test.json", "200 TEST_WEBHOOK"),
    (
        "attestations/forward-to-unknown-intake.json",
        "404 not-found",
    ),
    ("attestations/forward-unknown-kind.json", "400 kind-unknown"),
    (
        "attestations/forward-without-envelope.json",
        "400 malformed-body",
    ),
    ("attestations/push.json", "202, 1 delivery, 1 message"),
    (
        "attestations/push-base64.json",
        "202, 1 delivery, 1 message",
    ),
    ("attestations/push-unsigned.json", "422 bare-statement"),
    ("attestations/upload-material.json", "200 needed"),
    ("authorizer/bearer-token.json", "admin of acme"),
    ("authorizer/expired-token.json", "refused"),
    ("authorizer/no-token.json", "refused"),
    ("authorizer/other-scheme.json", "refused"),
    ("authorizer/unknown-token.json", "refused"),
    ("console/page.json", "200 text/html; charset=utf-8"),
    (
        "console/page-of-another-release.json",
        "200 text/html; charset=utf-8",
    ),
    (
        "console/file-of-another-release.json",
        "404 text/plain; charset=utf-8",
    ),
    (
        "deliver/batch-with-one-bad.json",
        "delivered 1, delivered 1; 1 parked",
    ),
    ("deliver/check-attachment.json", "works"),
    ("deliver/check-registration.json", "works"),
    (
        "deliver/presence.json",
        "Unknown: the third party offers no way to ask for it",
    ),
    (
        "deliver/message-of-another-release.json",
        "pending 1, pending 1; 1 given back",
    ),
    ("deliver/one-message.json", "delivered 1, pending 1"),
    ("deliver/preview.json", "1 requests"),
    ("deliver/stale-message.json", "pending 1, pending 1"),
    ("deliveries/audit.json", "202 audit done"),
    ("deliveries/audit-log.json", "200 with 0"),
    ("deliveries/cancel.json", "200 cancelled"),
    ("deliveries/cancel-unknown-job.json", "404 not-found"),
    ("deliveries/describe.json", "200 pending"),
    ("deliveries/describe-unknown-job.json", "404 not-found"),
    ("deliveries/describe-unknown.json", "404 not-found"),
    ("deliveries/list.json", "200 with 2"),
    ("deliveries/list-jobs.json", "200 with 0"),
    ("deliveries/list-pending-of-workflow.json", "200 with 2"),
    (
        "deliveries/list-with-unknown-state.json",
        "422 invalid-inputs: state",
    ),
    ("deliveries/list-places.json", "200 with 0"),
    ("deliveries/list-places-of-unknown.json", "404 not-found"),
    ("deliveries/receipt-key.json", "200 a key"),
    ("deliveries/receipt-of-pending.json", "409 not-final"),
    ("deliveries/redeliver.json", "202 1 message"),
    ("deliveries/redeliver-all.json", "202 redeliver done"),
    (
        "deliveries/redeliver-all-pending.json",
        "422 invalid-inputs: state",
    ),
    ("deliveries/test-registration.json", "202 1 message"),
    ("organization/create-token.json", "201 nightly-build"),
    (
        "organization/create-token-as-operator.json",
        "403 forbidden",
    ),
    (
        "organization/create-token-again.json",
        "409 token-name-taken",
    ),
    ("organization/create-token-of-expired.json", "201 old"),
    (
        "organization/create-token-with-faults.json",
        "422 invalid-inputs: expires_in_secs, name",
    ),
    ("organization/create-trust-policy.json", "201 nightly"),
    (
        "organization/create-trust-policy-as-operator.json",
        "403 forbidden",
    ),
    (
        "organization/create-trust-policy-again.json",
        "409 trust-policy-exists",
    ),
    (
        "organization/create-trust-policy-with-faults.json",
        "422 invalid-inputs: mode, name",
    ),
    (
        "organization/create-trust-policy-without-signers.json",
        "422 invalid-inputs: threshold",
    ),
    ("organization/delete-trust-policy.json", "200 release"),
    ("organization/replace-trust-policy.json", "200 release"),
    ("organization/describe-trust-policy.json", "200 release"),
    (
        "organization/describe-unknown-trust-policy.json",
        "404 not-found",
    ),
    ("organization/describe.json", "200 example-admin"),
    ("organization/describe-api.json", "200 OpenAPI 3.1.0"),
    ("organization/describe-expired.json", "401 expired"),
    ("organization/get-quotas.json", "200 1 tokens"),
    ("organization/health.json", "200 ok"),
    ("organization/create-issuer.json", "201 github"),
    (
        "organization/create-issuer-of-everybody.json",
        "422 invalid-inputs: rules",
    ),
    ("organization/delete-unknown-issuer.json", "404 not-found"),
    ("organization/describe-unknown-issuer.json", "404 not-found"),
    ("organization/exchange-token.json", "201 admin"),
    (
        "organization/exchange-malformed-jwt.json",
        "401 jwt-malformed",
    ),
    ("organization/list-issuers.json", "200 with 0"),
    ("organization/list-tokens.json", "200 with 2"),
    ("organization/list-trust-policies.json", "200 with 1"),
    ("organization/list-workflows.json", "200 with 1"),
    ("organization/revoke-token.json", "200 ci"),
    ("organization/rotate-token.json", "201 ci"),
    ("organization/rotate-unknown-token.json", "404 not-found"),
    ("organization/revoke-unknown-token.json", "404 not-found"),
    ("fetch-materials/one-message.json", "1 fetched"),
    ("fetch-materials/unreadable-message.json", "1 parked"),
    (
        "reconciler/dead-letter-of-a-fetch.json",
        "pending 1, pending 1",
    ),
    (
        "reconciler/dead-letter.json",
        "pending 2, pending 1; 1 queued",
    ),
    (
        "reconciler/dead-letter-of-another-release.json",
        "pending 1, pending 1; 1 given back",
    ),
    ("reconciler/dead-letter-stale.json", "pending 1, pending 1"),
    (
        "reconciler/dead-letter-unreadable.json",
        "pending 1, pending 1; 1 parked",
    ),
    (
        "reconciler/every-minute.json",
        "pending 1, pending 1; 2 queued",
    ),
    ("registrations/add.json", "201 nightly-hook"),
    ("registrations/add-as-viewer.json", "403 forbidden"),
    ("registrations/add-taken-name.json", "409 name-taken"),
    (
        "registrations/add-with-faults.json",
        "422 invalid-inputs: ulr, url, name",
    ),
    (
        "registrations/add-with-malformed-key.json",
        "400 malformed-header",
    ),
    ("registrations/create-intake.json", "201 staging"),
    (
        "registrations/create-intake-without-token.json",
        "422 invalid-inputs: cas_token",
    ),
    ("registrations/delete.json", "200 hook"),
    (
        "registrations/delete-changed-meanwhile.json",
        "412 changed-meanwhile",
    ),
    ("registrations/delete-intake.json", "200 production"),
    ("registrations/describe.json", "200 hook"),
    ("registrations/describe-integration.json", "200 webhook"),
    (
        "registrations/describe-integration-unknown.json",
        "404 integration-unknown",
    ),
    ("registrations/health.json", "200 closed"),
    ("registrations/list.json", "200 with 1"),
    ("registrations/list-intakes.json", "200 with 1"),
    (
        "registrations/list-integrations.json",
        "200 with every integration",
    ),
    ("registrations/pause.json", "200 hook"),
    ("registrations/resume.json", "202 hook"),
    ("registrations/rotate.json", "200 hook"),
    (
        "registrations/rotate-with-nothing.json",
        "422 invalid-inputs: url",
    ),
    ("registrations/rotate-intake.json", "201 production"),
    ("registrations/update.json", "200 events"),
    (
        "registrations/update-changed-meanwhile.json",
        "412 changed-meanwhile",
    ),
    ("sign-in/code.json", "200 jwt"),
    ("sign-in/code-that-was-used.json", "400 sign-in-refused"),
    (
        "sign-in/code-with-state-of-another-tab.json",
        "400 sign-in-refused",
    ),
    ("sign-in/provider.json", "200 client_id"),
];

const REGISTRATION: &str = "6f0c1f0e-0000-4000-8000-0000000000a1";
const ATTACHMENT: &str = "6f0c1f0e-0000-4000-8000-0000000000b1";
const DELIVERIES: [&str; 2] = [
    "6f0c1f0e-0000-4000-8000-0000000000c1",
    "6f0c1f0e-0000-4000-8000-0000000000c2",
];
const TOKEN: &str = "cli_example-token-of-an-admin";
const INTAKE: &str = "6f0c1f0e-0000-4000-8000-0000000000e1";
const INTAKE_TOKEN: &str = "clin_example-token-of-an-intake";
/// Origin that the events' registration posts to; the receiver stands in for it.
const HOST: &str = "https://hooks.example.org";

/// The world that the events are about.
struct Stage {
    memory: Memory,
    receiver: Receiver,
}

impl Stage {
    async fn new() -> Self {
        let memory = Memory::new(|_, _, event| {
            // What the API functions ask is what the delivery functions read.
            let event = serde_json::from_value(event).unwrap();
            let answer = match event {
                DeliveryEvent::Check(_) => json!(check::Verdict::Works {
                    warnings: Vec::new()
                }),
                DeliveryEvent::Preview(_) => {
                    json!(Previewed::Nothing("it was made to answer so".into()))
                }
                DeliveryEvent::Presence(_) => json!(Presence::THERE),
                DeliveryEvent::Records(_) => panic!("only a queue hands over records"),
            };
            Box::pin(ready(Ok(answer)))
        });
        let stage = Self {
            memory,
            receiver: Receiver::start(),
        };
        stage.fill().await;
        stage
    }

    fn delivering(&self) -> As<'_> {
        As::delivering::<Webhook>(&self.memory)
    }

    async fn put<R: Row>(&self, row: &R) {
        self.memory
            .write(vec![rows::insert(&self.memory, row).0])
            .await
            .unwrap();
    }

    async fn fill(&self) {
        let (organization, created_at) = (ORGANIZATION.clone(), self.memory.now());
        let integration = Webhook::ID.to_owned();
        self.fill_tokens(created_at).await;
        self.fill_intakes(created_at).await;
        self.put(&rows::WorkflowRecord {
            organization: organization.clone(),
            workflow: Workflow {
                id: String::new(),
                project: "shop".into(),
                name: "nightly".into(),
            },
            first_seen_at: created_at,
        })
        .await;
        self.put(&rows::RegistrationName {
            organization: organization.clone(),
            name: "hook".into(),
            registration: REGISTRATION.into(),
            integration: integration.clone(),
            reserved_until: None,
            abandoned: false,
        })
        .await;
        let secret =
            rows::Registration::secret_name(&ORGANIZATION, Webhook::ID, &REGISTRATION.into());
        let value = json!({ "url": self.receiver.url() }).to_string();
        self.memory
            .put_secret(&secret, &SecretValue::new(value))
            .await
            .unwrap();
        self.put(&rows::Registration {
            id: REGISTRATION.into(),
            organization: organization.clone(),
            name: "hook".into(),
            integration: integration.clone(),
            version: Webhook::VERSION.into(),
            description: String::new(),
            config: Map::new(),
            label: Map::new(),
            secret: Some(secret),
            secret_version: None,
            external_id: None,
            created_by: "admin".into(),
            created_at,
            deleted_at: None,
            drain: None,
            paused: None,
            wake_at: None,
        })
        .await;
        let selector = api::workflows::Selector("shop/nightly".into());
        self.put(&rows::Attachment {
            id: ATTACHMENT.into(),
            organization: organization.clone(),
            registration: REGISTRATION.into(),
            integration: integration.clone(),
            workflow: selector.clone(),
            config: Map::new(),
            wait_secs: None,
            is_test: false,
            created_by: "admin".into(),
            created_at,
            deleted_at: None,
        })
        .await;
        for workflow in [None, Some(selector)] {
            self.put(&rows::AttachmentIndex {
                organization: organization.clone(),
                attachment: ATTACHMENT.into(),
                registration: REGISTRATION.into(),
                integration: integration.clone(),
                workflow,
            })
            .await;
        }
        let policy = rows::TrustPolicy {
            organization: organization.clone(),
            name: "release".into(),
            id: "6f0c1f0e-0000-4000-8000-0000000000f1".into(),
            workflow: api::workflows::Selector("shop/weekly".into()),
            policy: Policy {
                mode: Mode::Require,
                threshold: 1,
                signers: vec![Signer::Key {
                    name: "release".into(),
                    pem: include_str!("../../shared/verify/tests/files/p384.pub.pem").into(),
                }],
            },
            created_by: "admin".into(),
            created_at,
        };
        self.put(&policy).await;
        self.put(&policy.link()).await;
        self.fill_ledger(created_at).await;
    }

    async fn fill_tokens(&self, created_at: Timestamp) {
        let organization = ORGANIZATION.clone();
        self.put(&rows::Token {
            hash: Digest::of(TOKEN.as_bytes()).hex(),
            id: "token-1".into(),
            organization: organization.clone(),
            name: "admin".into(),
            role: api::Role::Admin,
            workflows: Vec::new(),
            created_by: "bootstrap".into(),
            created_at,
            valid_until: None,
            revoked_at: None,
            rotated_at: None,
            previous: None,
            exchange: None,
        })
        .await;
        for (name, role) in [("old", api::Role::Producer), ("ci", api::Role::Producer)] {
            // That of a build, and one whose time is over.
            let valid_until = (name == "old").then_some(created_at);
            let text = format!("cli_example-token-of-{name}");
            let token = rows::Token {
                hash: Digest::of(text.as_bytes()).hex(),
                id: format!(
                    "6f0c1f0e-0000-4000-8000-0000000000{}",
                    if name == "ci" { "e1" } else { "e2" }
                ),
                organization: organization.clone(),
                name: name.into(),
                role,
                workflows: Vec::new(),
                created_by: "admin".into(),
                created_at,
                valid_until,
                revoked_at: None,
                rotated_at: None,
                previous: None,
                exchange: None,
            };
            self.put(&rows::TokenName {
                organization: organization.clone(),
                name: name.into(),
                token: token.id.clone(),
                hash: token.hash.clone(),
                valid_until,
            })
            .await;
            self.put(&token).await;
        }
    }

    async fn fill_intakes(&self, created_at: Timestamp) {
        let organization = ORGANIZATION.clone();
        let hash = Digest::of(INTAKE_TOKEN.as_bytes()).hex();
        self.put(&rows::Intake {
            organization: organization.clone(),
            name: "production".into(),
            id: INTAKE.into(),
            hash: hash.clone(),
            cas_url: None,
            conditions: rows::Conditions::default(),
            valid_for_secs: None,
            valid_until: None,
            previous: None,
            rotated_at: None,
            created_by: "admin".into(),
            created_at,
        })
        .await;
        self.put(&rows::IntakeToken {
            hash,
            organization: organization.clone(),
            name: "production".into(),
            id: INTAKE.into(),
            fetches: false,
            conditions: rows::Conditions::default(),
            valid_until: None,
            created_at,
        })
        .await;
    }

    async fn fill_ledger(&self, created_at: Timestamp) {
        let envelope = attestation("1", vec![]);
        let bytes = Bytes::from(envelope.compact());
        let received = Digest::of(&bytes);
        self.memory
            .put_object(&ORGANIZATION, &received, bytes.clone())
            .await
            .unwrap();
        let planned = rows::Planned {
            attachment: ATTACHMENT.into(),
            registration: REGISTRATION.into(),
            integration: Webhook::ID.into(),
            matched: Some(api::workflows::Match::Name),
        };
        let attestation = rows::Attestation {
            organization: ORGANIZATION.clone(),
            hash: envelope.hash(),
            received,
            size_bytes: bytes.len() as u64,
            also: std::collections::BTreeSet::new(),
            fetched_by: None,
            workflow: Workflow {
                id: String::new(),
                project: "shop".into(),
                name: "nightly".into(),
            },
            run: "1".into(),
            predicate_type: "chainloop.dev/attestation/v0.2".into(),
            plans: 1,
            pushed_by: Some(tests().clone()),
            permitted: Vec::new(),
            bundle: None,
            is_unproven: false,
            trace: None,
            verdict: None,
            planned_at: created_at,
            created_at,
        };
        let why = rows::PlanReason::Accepted;
        let mut plan = plans::new(
            &attestation,
            0,
            why,
            None,
            vec![planned.clone()],
            created_at,
        );
        (plan.stage, plan.wake_at) = (rows::Stage::Closed, None);
        self.put(&attestation).await;
        self.put(&plan).await;
        for id in DELIVERIES {
            self.put(&delivery::begin(&plan, &planned, id.into(), created_at))
                .await;
        }
    }

    /// An attestation that came in by the intake, and an SBOM of it that a control plane has.
    async fn fill_forwarded(&self) -> Digest {
        let artifacts = Artifacts::start();
        artifacts.put(SBOM);
        let secret = rows::Intake::secret_name(&ORGANIZATION, &INTAKE.into());
        let source = json!({ "url": artifacts.url(), "token": artifacts::TOKEN }).to_string();
        self.memory
            .put_secret(&secret, &SecretValue::new(source))
            .await
            .unwrap();
        let bytes = attestation("2", vec![promised_sbom()]).compact();
        let accepted = accept::pushed(scope(&self.memory), bytes.into(), None, tests()).await;
        accepted.unwrap().attestation.hash
    }

    /// An event's text, with the receiver in place of its host.
    fn read<T: DeserializeOwned>(&self, file: &str) -> T {
        let text = fs::read_to_string(root().join("events").join(file)).unwrap();
        let url = self.receiver.url();
        let origin = url.strip_suffix("/hook/s3cret-path").unwrap();
        serde_json::from_str(&text.replace(HOST, origin))
            .unwrap_or_else(|error| panic!("events/{file}: its function cannot read it: {error}"))
    }

    /// Runs an event, and returns its outcome in one line.
    async fn run(&self, file: &str) -> String {
        let (folder, _) = file.split_once('/').unwrap();
        match folder {
            "authorizer" => {
                let event: AuthorizerEvent = self.read(file);
                let answer = authorize(&As::function(&self.memory, "authorizer"), &event)
                    .await
                    .unwrap();
                match answer["isAuthorized"].as_bool() {
                    Some(true) => {
                        let text =
                            |name: &str| answer["context"][name].as_str().unwrap().to_owned();
                        format!("{} of {}", text("role"), text("organization"))
                    }
                    Some(false) => "refused".to_owned(),
                    None => panic!("{answer}"),
                }
            }
            "console" => {
                let answer = console_answer(&self.read::<GatewayEvent>(file).request());
                let kind = answer["headers"]["content-type"].as_str().unwrap();
                format!("{} {kind}", answer["statusCode"])
            }
            "deliver" => match self.read(file) {
                DeliveryEvent::Check(check) => {
                    let verdict = check::check::<Webhook>(&self.delivering(), &http(), check)
                        .await
                        .unwrap();
                    match verdict {
                        check::Verdict::Works { .. } => "works".to_owned(),
                        _ => "refused".to_owned(),
                    }
                }
                DeliveryEvent::Presence(check) => {
                    let tools = Tools::new(http());
                    let asked = presence::<Webhook>(&self.delivering(), &tools, check).await;
                    let Presence { state, reason } = asked.unwrap();
                    format!("{state:?}: {}", reason.unwrap_or_default())
                }
                DeliveryEvent::Preview(asked) => {
                    let check::Preview {
                        organization,
                        attachment,
                        attestation,
                    } = &asked;
                    let secrets = Secrets::default();
                    let role = self.delivering();
                    let previewed = preview::<Webhook>(
                        Scope::new(&role, organization),
                        &secrets,
                        attachment,
                        attestation,
                    );
                    match previewed.await.unwrap() {
                        Previewed::Requests(requests) => format!("{} requests", requests.len()),
                        other => format!("{other:?}"),
                    }
                }
                DeliveryEvent::Records(records) => {
                    let back = self.deliver(records, Duration::from_mins(15)).await;
                    self.ledger(&back).await
                }
            },
            "reconciler" => {
                let event: ReconcilerEvent = self.read(file);
                if let Some(records) = event.records {
                    let records = records.into_iter().map(SqsRecord::record).collect();
                    let back =
                        reconcile::dead_letters(&As::function(&self.memory, "reconciler"), records)
                            .await;
                    return self.ledger(&back).await;
                }
                // Nobody took their messages.
                self.memory.advance(pipeline::ledger::schedule::RESEND);
                let until = self.memory.now().plus(Duration::from_secs(50));
                let role = As::function(&self.memory, "reconciler");
                reconcile::reconcile(&role, until).await.unwrap();
                self.ledger(&[]).await
            }
            "fetch-materials" => {
                let hash = self.fill_forwarded().await;
                let event: FetchEvent = self.read(file);
                let records = event.records.into_iter().map(SqsRecord::record).collect();
                let until = self.memory.now().plus(Duration::from_mins(2));
                let role = As::function(&self.memory, "fetch-materials");
                let back = fetch::batch(&role, &http(), records, until).await;
                assert!(back.is_empty(), "{back:?}");
                let sbom = Digest::of(SBOM);
                match self.memory.object_size(&ORGANIZATION, &sbom).await.unwrap() {
                    Some(_) => "1 fetched".to_owned(),
                    None if self.memory.dump().contains("parked/fetch-materials") => {
                        "1 parked".to_owned()
                    }
                    None => format!("nothing of {hash}"),
                }
            }
            "sign-in" => self.sign_in(file).await,
            _ => self.answer(file).await,
        }
    }

    async fn deliver(&self, records: Vec<SqsRecord>, left: Duration) -> Vec<String> {
        let records: Vec<Record> = records.into_iter().map(SqsRecord::record).collect();
        let until = self.memory.now().plus(left);
        deliver::batch::<Webhook>(&self.delivering(), &Tools::new(http()), records, until).await
    }

    /// The deliveries' states and attempts, and what else there is to see.
    async fn ledger(&self, back: &[String]) -> String {
        let mut states = Vec::new();
        for id in DELIVERIES {
            let found = pipeline::engine::deliveries::describe(scope(&self.memory), &id.into())
                .await
                .unwrap();
            let (delivery, _) = found.unwrap();
            states.push(format!(
                "{} {}",
                json!(delivery.state).as_str().unwrap(),
                delivery.attempt
            ));
        }
        let mut text = states.join(", ");
        let mut parked = Vec::new();
        for place in [Webhook::ID, "dead-letters"] {
            let partition = format!("parked/{place}");
            let found = self.memory.list(&partition, "", None, 10).await;
            parked.extend(found.unwrap());
        }
        for (count, what) in [
            (parked.len(), "parked"),
            (self.memory.queued(Webhook::ID), "queued"),
            (back.len(), "given back"),
        ] {
            if count > 0 {
                write!(text, "; {count} {what}").unwrap();
            }
        }
        text
    }

    async fn sign_in(&self, file: &str) -> String {
        let request = self.read::<GatewayEvent>(file).request();
        let provider = sign_in::Provider::of_events();
        let Response { status, body, .. } = provider.answer(&request).await;
        let names = ["client_id", "jwt"].into_iter();
        let told = names.rev().find(|name| body[*name].is_string());
        let told = body["code"].as_str().or(told);
        format!("{status} {}", told.unwrap_or_default())
    }

    async fn answer(&self, file: &str) -> String {
        let request = self.read::<GatewayEvent>(file).request();
        let response = answer(&self.memory, &request).await;
        let Response { status, body, .. } = response;
        let named = ["name", "workflow", "state", "id"]
            .iter()
            .find_map(|name| body[name].as_str());
        let faults: Vec<&str> = body["faults"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|fault| fault["field"].as_str())
            .collect();
        let deliveries = body["deliveries"].as_array().map(Vec::len);
        match (body["code"].as_str(), body["items"].as_array(), deliveries) {
            (Some(code), ..) if faults.is_empty() => format!("{status} {code}"),
            (Some(code), ..) => format!("{status} {code}: {}", faults.join(", ")),
            (None, Some(items), _) => {
                let ids: Vec<&str> = items
                    .iter()
                    .filter_map(|item| item["id"].as_str())
                    .collect();
                if ids.iter().eq(integrations::ALL.iter().map(|one| &one.id)) {
                    format!("{status} with every integration")
                } else {
                    format!("{status} with {}", items.len())
                }
            }
            _ if body["contents"].is_object() => {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                let (form, bytes) = (text(&body["contents"]["form"]), text(&body["bytes"]));
                format!("{status} {form}, {bytes}")
            }
            (None, None, None) if body["download"].is_object() => format!("{status} a download"),
            (None, None, Some(deliveries)) => {
                let messages = self.memory.queued(Webhook::ID);
                format!("{status}, {deliveries} delivery, {messages} message")
            }
            (None, None, None) => {
                let what = match (
                    &body["kind"],
                    &body["nothing"],
                    &body["registration"]["name"],
                ) {
                    (Value::String(kind), ..) => format!("{kind} {}", named.unwrap_or_default()),
                    (_, Value::String(reason), _) => format!("nothing: {reason}"),
                    (.., Value::String(name)) if named.is_none() => name.clone(),
                    _ if body["circuit"].is_object() => {
                        body["circuit"]["state"].as_str().unwrap().to_owned()
                    }
                    _ if body["material"].is_string() => "kept".to_owned(),
                    _ if body["quotas"].is_array() => body["quotas"][4]["name"]
                        .as_str()
                        .map(|name| format!("{} {name}", body["quotas"][4]["used"]))
                        .unwrap_or_default(),
                    _ if body["openapi"].is_string() => {
                        format!("OpenAPI {}", body["openapi"].as_str().unwrap())
                    }
                    _ if body["pem"].is_string() => "a key".to_owned(),
                    _ if body["status"] == "ok" => "ok".to_owned(),
                    _ if file.contains("test-registration") || file.contains("redeliver.") => {
                        format!("{} message", self.memory.queued(Webhook::ID))
                    }
                    _ => named.unwrap_or_default().to_owned(),
                };
                format!("{status} {}", what.trim_end())
            }
        }
    }
}

/// Every event, as it stands in the table.
fn all() -> Vec<String> {
    let folder = root().join("events");
    let paths = files(&folder, &["json"]);
    paths
        .iter()
        .map(|path| {
            path.strip_prefix(&folder)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn every_event_comes_to_what_the_table_says() {
    let mut wrong = String::new();
    for (file, expected) in OUTCOMES {
        assert!(
            root().join("events").join(file).is_file(),
            "add events/{file}, or delete its row"
        );
        let outcome = Stage::new().await.run(file).await;
        if outcome != *expected {
            writeln!(wrong, "events/{file}: {outcome}, not {expected}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "these came to something else:\n{wrong}");
}

#[test]
fn every_event_has_a_row_in_the_table() {
    for file in all() {
        assert!(
            OUTCOMES.iter().any(|(own, _)| *own == file),
            "events/{file} is used by nobody: add a row to OUTCOMES in tests/src/events.rs"
        );
    }
}

#[test]
fn every_folder_of_events_is_a_functions_and_every_function_has_one() {
    let function = |name: String| {
        if name.starts_with("deliver-") {
            "deliver".to_owned()
        } else {
            name
        }
    };
    let functions: BTreeSet<String> = functions().into_iter().map(function).collect();
    let folders = all().into_iter().map(|file| {
        file.split_once('/')
            .map_or(file.clone(), |(folder, _)| folder.to_owned())
    });
    let folders: BTreeSet<String> = folders.collect();
    assert_eq!(
        folders, functions,
        "name each folder of events/ after its function"
    );
}

#[test]
fn the_events_of_the_api_are_those_that_the_gateway_hands_to_their_functions() {
    let template = template();
    let gateway = gateway(&template);
    for (folder, routes) in FUNCTIONS.iter() {
        let mut left: BTreeSet<String> = routes.iter().map(Route::name).collect();
        let files = all().into_iter();
        for file in files.filter(|file| file.starts_with(&format!("{folder}/"))) {
            let text = fs::read_to_string(root().join("events").join(&file)).unwrap();
            let event: Value = serde_json::from_str(&text).unwrap();
            let request = serde_json::from_str::<GatewayEvent>(&text)
                .unwrap()
                .request();
            let (function, route) = route_of(&request);
            assert_eq!(function, *folder, "events/{file} is another function's");
            left.remove(&route.name());
            let key = &taken(&gateway, &request.method, &request.path)["RouteKey"];
            assert_eq!(&event["routeKey"], key, "events/{file}");
            assert_eq!(&event["requestContext"]["routeKey"], key, "events/{file}");
        }
        assert!(left.is_empty(), "add to events/{folder} events of {left:?}");
    }
    let mut left = BTreeSet::from(CONSOLE);
    for file in all()
        .into_iter()
        .filter(|file| file.starts_with("console/"))
    {
        let text = fs::read_to_string(root().join("events").join(&file)).unwrap();
        let event: Value = serde_json::from_str(&text).unwrap();
        let path = event["rawPath"].as_str().unwrap();
        let route = taken(&gateway, "GET", path);
        assert_eq!(
            words(&route["Target"]),
            "integrations/${ConsoleIntegration}"
        );
        let key = words(&route["RouteKey"]);
        assert_eq!(event["routeKey"], key, "events/{file}");
        left.remove(key);
    }
    assert!(left.is_empty(), "add to events/console events of {left:?}");
    for file in all().iter().filter(|file| file.starts_with("sign-in/")) {
        let text = fs::read_to_string(root().join("events").join(file)).unwrap();
        let event: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["routeKey"], SIGN_IN, "events/{file}");
        assert_eq!(event["rawPath"], "/console/sign-in", "events/{file}");
    }
}

#[test]
fn events_name_nobody_that_exists() {
    for file in all() {
        let text = fs::read_to_string(root().join("events").join(&file)).unwrap();
        for rest in text.split("://").skip(1) {
            let host = rest.split(['/', '"', '\\', ':']).next().unwrap();
            // in-toto's types are written as URLs; nobody goes there, nor to an issuer that is refused.
            let invented = host.ends_with("example.org")
                || rest.starts_with("in-toto.io/Statement/")
                || api::issuers::is_shared(&format!("https://{host}"));
            assert!(
                invented,
                "events/{file}: use a host of example.org, not {host}"
            );
        }
        for (at, _) in text.match_indices("arn:aws:") {
            let account = text[at..].split(':').nth(4).unwrap();
            assert_eq!(
                account, "123456789012",
                "events/{file}: use the account of AWS's documents"
            );
        }
    }
}

#[tokio::test]
async fn a_partial_batch_answer_has_exactly_the_ids_that_came() {
    let stage = Stage::new().await;
    let file = "deliver/batch-with-one-bad.json";
    let DeliveryEvent::Records(records) = stage.read(file) else {
        panic!("{file} is a batch")
    };
    // Too late to begin: the two that can be read come back, the bad one is parked.
    let mut back = stage.deliver(records, Duration::from_secs(5)).await;
    back.sort();
    let id = |number: u32| format!("6f0c1f0e-0000-4000-8000-0000000000d{number}");
    let expected =
        json!({ "batchItemFailures": [{ "itemIdentifier": id(1) }, { "itemIdentifier": id(3) }] });
    assert_eq!(partial_batch(back), expected);
}

#[tokio::test]
async fn a_partial_batch_answer_is_an_empty_list_when_all_is_done() {
    let stage = Stage::new().await;
    let DeliveryEvent::Records(records) = stage.read("deliver/one-message.json") else {
        panic!("it is a batch")
    };
    let back = stage.deliver(records, Duration::from_mins(15)).await;
    assert_eq!(partial_batch(back), json!({ "batchItemFailures": [] }));
    assert_eq!(stage.receiver.deliveries().len(), 1);
}
