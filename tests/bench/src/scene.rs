//! The cloud as it is when a measurement begins: a token, registrations, attachments, made by the pipeline's own code over
//! the stub; and the events of the functions.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api::{Actor, Client, Role};
use attestation::{Digest, Material, MaterialType, Metadata, Predicate, compose};
use aws::{Aws, Settings};
use bench::Cloud;
use pipeline::http::{self, Caller, Request, functions};
use serde_json::{Value, json};

pub const ORGANIZATION: &str = "acme";
const TABLE: &str = "bench";
const BUCKET: &str = "bench-bucket";
pub const STACK: &str = "bench";

/// Size of an ordinary push.
const ORDINARY_BYTES: usize = 4_500;

const PUSH: &str = include_str!("../../../events/attestations/push.json");
const LIST: &str = include_str!("../../../events/registrations/list.json");
const DELIVERIES: &str = include_str!("../../../events/deliveries/list.json");
const DESCRIBE: &str = include_str!("../../../events/deliveries/describe.json");
const AUTHORIZE: &str = include_str!("../../../events/authorizer/bearer-token.json");
const MESSAGE: &str = include_str!("../../../events/deliver/one-message.json");
const MINUTE: &str = include_str!("../../../events/reconciler/every-minute.json");
const FETCH: &str = include_str!("../../../events/fetch-materials/one-message.json");

pub struct Scene {
    cloud: Arc<Cloud>,
    aws: Aws,
    runtime: tokio::runtime::Runtime,
    runs: Cell<u32>,
}

/// The environment that the template gives each function, with this endpoint for AWS.
pub fn environment(endpoint: &str) -> Vec<(String, String)> {
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        own("AWS_ENDPOINT_URL", endpoint),
        own("AWS_REGION", "eu-central-1"),
        own("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        own("AWS_SECRET_ACCESS_KEY", "example-secret-access-key"),
        own("AWS_SESSION_TOKEN", &"example-session-token".repeat(30)),
        own("AWS_LAMBDA_FUNCTION_NAME", "bench"),
        own("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        own("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        own("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/bench"),
        own("AWS_LAMBDA_LOG_STREAM_NAME", "bench"),
        own("RUST_LOG", "info"),
        own("STACK", STACK),
        own("TABLE", TABLE),
        own("BUCKET", BUCKET),
        own(
            "QUEUE_URL_PREFIX",
            &format!("{endpoint}/123456789012/bench-"),
        ),
        own("EVENT_BUS", "default"),
        own("METRICS", "integration"),
    ]
}

fn event(text: &str) -> Value {
    serde_json::from_str(text).expect("sample events are JSON")
}

impl Scene {
    /// `endpoint` is the cloud's without TLS: the scene is set by a client that trusts no authority of the run.
    pub fn new(cloud: Arc<Cloud>, endpoint: &str) -> Result<Self> {
        let mut environment: BTreeMap<_, _> = environment(endpoint).into_iter().collect();
        environment.insert("QUOTAS".into(), "checks=6000".into());
        let settings = Settings::from_env(|name| environment.get(name).cloned())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            cloud,
            aws: Aws::new(settings),
            runtime,
            runs: Cell::new(0),
        })
    }

    /// Asks the API, as an administrator, and returns the answer's body.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Value> {
        let actor = Actor {
            id: "bench".into(),
            ..Actor::named("bench")
        };
        let request = Request {
            method: method.into(),
            path: path.into(),
            query: query
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            headers: BTreeMap::new(),
            body: body.to_vec().into(),
            caller: Some(Caller {
                organization: ORGANIZATION.into(),
                role: Role::Admin,
                workflows: Vec::new(),
                actor,
                valid_until: None,
                is_use_due: false,
                intake: None,
            }),
            client: Client::default(),
            id: "request".into(),
        };
        let routes = functions::all::<Aws, ()>()
            .into_iter()
            .flat_map(|(_, routes)| routes);
        let routes: Vec<_> = routes.collect();
        let response = self
            .runtime
            .block_on(http::answer(&routes, &self.aws, &request));
        let is_good = response.status < 300;
        ensure!(
            is_good,
            "{method} {path}: {} {}",
            response.status,
            response.body
        );
        Ok(response.body)
    }

    /// Registers an integration, and attaches it to a workflow of the project `bench`.
    pub fn attach(
        &self,
        workflow: &str,
        [integration, name]: [&str; 2],
        registration: &Value,
        attachment: &Value,
    ) -> Result<()> {
        let body = json!({ "integration": integration, "name": name, "inputs": registration });
        self.ask(
            "POST",
            "/v1/registrations",
            &[],
            body.to_string().as_bytes(),
        )?;
        self.attach_again(workflow, name, attachment)
    }

    /// Attaches a registration, also where it is attached already.
    pub fn attach_again(
        &self,
        workflow: &str,
        registration: &str,
        attachment: &Value,
    ) -> Result<()> {
        let body = json!({
            "registration": registration, "workflow": format!("bench/{workflow}"),
            "inputs": attachment, "allow_duplicate": true,
        });
        self.ask("POST", "/v1/attachments", &[], body.to_string().as_bytes())?;
        Ok(())
    }

    /// Attaches three integrations to the workflow `nightly`. They are not asked whether they work.
    pub fn attach_three(&self) -> Result<()> {
        let secret = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";
        for (integration, registration) in [
            (
                "webhook",
                json!({ "url": "https://hooks.example.org/nightly", "secret": secret }),
            ),
            (
                "slack-webhook",
                json!({ "webhook": "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXX" }),
            ),
            (
                "discord-webhook",
                json!({ "webhook": "https://discord.com/api/webhooks/100000000000000000/XXXXXXXXXXXX" }),
            ),
        ] {
            let name = format!("nightly-{integration}");
            self.attach("nightly", [integration, &name], &registration, &json!({}))?;
        }
        Ok(())
    }

    /// A text that no other call has returned.
    pub fn run(&self) -> String {
        self.runs.set(self.runs.get() + 1);
        format!("{:0>8}", self.runs.get())
    }

    /// An attestation that nobody has pushed yet, of such a workflow, of about so many bytes.
    pub fn attestation(
        &self,
        workflow: &str,
        bytes: usize,
        mut materials: Vec<Material>,
    ) -> Vec<u8> {
        let run = self.run();
        let compose = |padding: usize, materials: Vec<Material>| {
            let predicate = Predicate {
                metadata: Metadata {
                    name: workflow.into(),
                    workflow_name: workflow.into(),
                    project: "bench".into(),
                    workflow_run_id: run.clone(),
                    initialized_at: "2026-01-02T03:05:00Z".into(),
                    finished_at: "2026-01-02T03:09:30Z".into(),
                    ..Metadata::default()
                },
                build_type: "chainloop.dev/workflowrun/v0.1".into(),
                annotations: [("padding".to_owned(), "p".repeat(padding))].into(),
                materials,
                ..Predicate::default()
            };
            let statement = compose::statement(&predicate, &[]);
            compose::envelope(statement, "", |bytes| bytes[..32].to_vec()).compact()
        };
        let missing = bytes.saturating_sub(compose(0, materials.clone()).len()) * 3 / 4;
        if missing < 8_192 {
            return compose(missing, materials);
        }
        // What is large is a document, in base64 once more.
        let content = run.bytes().cycle().take(missing * 3 / 4).collect();
        materials.push(Material::inline(
            "large",
            MaterialType::ARTIFACT,
            "large.bin",
            content,
        ));
        compose(0, materials)
    }

    pub fn ordinary(&self, workflow: &str) -> Vec<u8> {
        self.attestation(workflow, ORDINARY_BYTES, Vec::new())
    }

    /// Event of a push.
    pub fn push(attestation: &[u8]) -> Vec<u8> {
        let mut event = event(PUSH);
        event["headers"]["content-length"] = attestation.len().to_string().into();
        event["body"] = String::from_utf8_lossy(attestation).into();
        event.to_string().into_bytes()
    }

    pub fn list_registrations() -> Vec<u8> {
        LIST.as_bytes().to_vec()
    }

    /// Event of `GET /v1/deliveries` with these parameters.
    pub fn list_deliveries(query: &[(&str, &str)]) -> Vec<u8> {
        let mut event = event(DELIVERIES);
        let query = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)));
        event["queryStringParameters"] = query.collect();
        event.to_string().into_bytes()
    }

    /// Event of `GET /v1/deliveries/{delivery}`.
    pub fn describe(delivery: &str) -> Vec<u8> {
        let event = event(DESCRIBE);
        let path = event["rawPath"].as_str().unwrap_or_default();
        let (_, sample) = path.rsplit_once('/').unwrap_or_default();
        DESCRIBE.replace(sample, delivery).into_bytes()
    }

    pub fn every_minute() -> Vec<u8> {
        MINUTE.as_bytes().to_vec()
    }

    pub fn fetch() -> Vec<u8> {
        FETCH.as_bytes().to_vec()
    }

    /// Event of a request with a token that is made for it.
    pub fn authorize(&self) -> Result<Vec<u8>> {
        let body = json!({ "name": format!("token-{}", self.run()), "role": "producer" });
        let made = self.ask("POST", "/v1/tokens", &[], body.to_string().as_bytes())?;
        let token = made["text"].as_str().context("no token")?;
        let sample = event(AUTHORIZE)["identitySource"][0].clone();
        let sample = sample.as_str().and_then(|one| one.strip_prefix("Bearer "));
        Ok(AUTHORIZE
            .replace(sample.context("no sample")?, token)
            .into_bytes())
    }

    /// Accepts attestations, and returns the event of the messages to one integration, in one batch, with the ID of the
    /// first delivery.
    pub fn messages(
        &self,
        integration: &str,
        attestations: &[Vec<u8>],
    ) -> Result<(Vec<u8>, String)> {
        let queue = format!("{STACK}-{integration}");
        self.cloud.messages(&queue);
        for attestation in attestations {
            self.ask("POST", "/v1/attestations", &[], attestation)?;
        }
        let messages = self.cloud.messages(&queue);
        let first: Value = serde_json::from_str(messages.first().context("no message")?)?;
        let delivery = first["delivery"]
            .as_str()
            .context("no delivery")?
            .to_owned();
        let mut event = event(MESSAGE);
        let record = event["Records"][0].clone();
        let records = messages.into_iter().enumerate().map(|(number, body)| {
            let mut record = record.clone();
            record["messageId"] = format!("message-{number}").into();
            record["body"] = body.into();
            record
        });
        event["Records"] = records.collect();
        Ok((event.to_string().into_bytes(), delivery))
    }

    pub fn is_delivered(&self, delivery: &str) -> Result<()> {
        let found = self.ask("GET", &format!("/v1/deliveries/{delivery}"), &[], b"")?;
        ensure!(found["state"] == "delivered", "{found}");
        Ok(())
    }

    /// Puts a material's bytes where an upload puts them.
    pub fn put(&self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        let path = format!("/{BUCKET}/{ORGANIZATION}/sha256/{}", digest.hex());
        self.cloud.put(&path, bytes);
        digest
    }
}
