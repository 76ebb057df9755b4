//! The pipeline's platform on AWS, and the Lambda functions' entry points.
//!
//! Only this crate names an AWS service's SDK or a Lambda type.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bucket;
mod connections;
pub mod event;
#[cfg(test)]
mod fixture;
mod lambda;
mod metrics;
mod objects;
pub mod patience;
mod platform;
mod receipts;
mod roots;
mod secret;
mod settings;
mod signer;
mod spans;
mod table;

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use aws_runtime::user_agent::UserAgentInterceptor;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeSerializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, disable_interceptor};
use aws_smithy_types::config_bag::ConfigBag;
use futures_util::future::{join, join3};
use integrations::Http;
use integrations::http::Proxy;
use pipeline::Platform as _;
use pipeline::store::meter::Meter;
use pipeline::store::platform::Key;
use pipeline::store::spans::Spans;
use tokio::time::timeout;

use self::objects::Objects;
use self::signer::Signer;
pub use connections::Connections;
pub use lambda::{accept, api, authorizer, console, deliver, fetch_materials, reconciler, sign_in};
pub use settings::{Error, Settings, SignIn};

/// Maximum number of connections to the bucket.
const OBJECTS: usize = 8;
/// The same to DynamoDB, which everything asks.
const ROWS: usize = 4;
/// The same of the reconciler, which looks at hundreds of plans in a second.
const LOOKING: usize = 8;
/// The same to SQS: an attestation's messages go to several queues at a time.
const QUEUES: usize = 3;
/// The same to what is asked seldom.
const FEW: usize = 2;

/// Memory in MB from which a function has as much of a processor when it works as when it starts.
const WHOLE_MB: u32 = 1024;
/// Maximum time for connecting before the first invocation.
const PREPARING: Duration = Duration::from_secs(1);

/// DynamoDB, S3, SQS, Secrets Manager, KMS and Lambda, with clients made when they are first used.
pub struct Aws {
    settings: Settings,
    meter: Meter,
    /// To the bucket.
    connections: Connections,
    objects: Objects,
    table: Connections,
    queues: Connections,
    config: aws_types::SdkConfig,
    dynamodb: OnceCell<aws_sdk_dynamodb::Client>,
    sqs: OnceCell<aws_sdk_sqs::Client>,
    secrets: OnceCell<aws_sdk_secretsmanager::Client>,
    lambda: OnceCell<aws_sdk_lambda::Client>,
    events: OnceCell<aws_sdk_eventbridge::Client>,
    kms: OnceCell<aws_sdk_kms::Client>,
    /// Public half of the key for receipts, once it was asked for: a key never gets another.
    receipt_key: OnceCell<Vec<u8>>,
}

/// Leaves out what the SDK says of itself in each request, in two headers that it composes anew each time. The connections
/// say who asks.
#[derive(Debug)]
struct Terse;

impl Intercept for Terse {
    fn name(&self) -> &'static str {
        "Terse"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let disabled = disable_interceptor::<UserAgentInterceptor>("connections say it");
        config.interceptor_state().store_put(disabled);
        Ok(())
    }
}

/// The builder of an SDK's configuration, with our signer.
macro_rules! builder {
    ($sdk:ident, $config:expr) => {
        $sdk::config::Builder::from(&$config)
            .push_auth_scheme(Signer::default())
            .interceptor(Terse)
    };
}

/// A service's client, with our signer.
macro_rules! client {
    ($sdk:ident, $config:expr) => {
        $sdk::Client::from_conf(builder!($sdk, $config).build())
    };
}

/// Waits for what is done while the function starts: it has a whole processor then, and below [`WHOLE_MB`] a part of one
/// afterwards.
async fn while_starting(prepared: impl Future) {
    let memory = std::env::var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE");
    let memory = memory.ok().and_then(|memory| memory.parse::<u32>().ok());
    if memory.is_some_and(|memory| memory < WHOLE_MB) {
        let _ = timeout(PREPARING, prepared).await;
    }
}

impl Aws {
    /// From the environment alone: a function has everything there, and looking elsewhere costs start-up time.
    pub fn from_env() -> Result<Self, Error> {
        Ok(Self::new(Settings::from_env(|name| {
            std::env::var(name).ok()
        })?))
    }

    pub fn new(settings: Settings) -> Self {
        let connections = Connections::new(OBJECTS);
        let config = settings.sdk_config(connections.clone());
        let mut meter = Meter::new(settings.quotas);
        if settings.collector.is_some() {
            meter.spans = Spans::exported();
        }
        Self {
            table: connections.to_another(ROWS),
            queues: connections.to_another(QUEUES),
            meter,
            objects: settings.objects(connections.clone()),
            settings,
            connections,
            config,
            dynamodb: OnceCell::new(),
            sqs: OnceCell::new(),
            secrets: OnceCell::new(),
            lambda: OnceCell::new(),
            events: OnceCell::new(),
            kms: OnceCell::new(),
            receipt_key: OnceCell::new(),
        }
    }

    /// With so many connections to the table at most.
    fn with_rows(self, rows: usize) -> Self {
        let table = self.connections.to_another(rows);
        Self { table, ..self }
    }

    /// Calls the table while the function starts.
    async fn prepare(&self) {
        while_starting(self.ask()).await;
    }

    /// As [`Self::prepare`], and connects to the bucket and the queues. A function of its own, so that other binaries do not
    /// contain their clients. One connection to each service comes first: the others can resume its session.
    async fn prepare_to_accept(&self) {
        let preparing = async {
            let prefix = &self.settings.queue_url_prefix;
            let (objects, queues) = (
                self.connections.prepare(self.objects.base()),
                self.queues.prepare(prefix),
            );
            join3(self.ask(), objects, queues).await;
            let rows = self.table.prepare_more(ROWS - 1);
            join(rows, self.queues.prepare_more(QUEUES - 1)).await
        };
        while_starting(preparing).await;
    }

    /// Asks the table for a row that nobody has. The first real call finds out whether the table can be reached.
    async fn ask(&self) {
        let _ = self.get(&Key::new("-", "-")).await;
    }

    /// The way out to third parties. Reads the proxy's credentials, where it has some.
    async fn http(&self) -> Result<Http, Error> {
        let mut guard = self.settings.guard();
        if let (Some(proxy), Some(arn)) = (&guard.proxy, &self.settings.proxy_secret) {
            let secret = self.read_secret(arn).await;
            let secret = secret.map_err(|error| Error::ProxySecret(error.to_string()))?;
            let secret = secret.ok_or_else(|| Error::ProxySecret(format!("{arn} is not there")))?;
            let proxy = Proxy::clone(proxy).with_credentials(secret.expose());
            guard.proxy = Some(Arc::new(proxy));
        }
        Ok(Http::new(guard).calling_as(self.settings.caller()))
    }

    /// The configuration of a service that has these connections, and not those to the bucket.
    fn config_over(&self, connections: Connections) -> aws_types::SdkConfig {
        self.config.to_builder().http_client(connections).build()
    }

    /// The same over connections to what is asked seldom.
    fn config_over_few(&self) -> aws_types::SdkConfig {
        self.config_over(self.connections.to_another(FEW))
    }

    fn dynamodb(&self) -> &aws_sdk_dynamodb::Client {
        self.dynamodb
            .get_or_init(|| client!(aws_sdk_dynamodb, self.config_over(self.table.clone())))
    }

    fn sqs(&self) -> &aws_sdk_sqs::Client {
        self.sqs
            .get_or_init(|| client!(aws_sdk_sqs, self.config_over(self.queues.clone())))
    }

    fn secrets(&self) -> &aws_sdk_secretsmanager::Client {
        self.secrets
            .get_or_init(|| client!(aws_sdk_secretsmanager, self.config_over_few()))
    }

    fn events(&self) -> &aws_sdk_eventbridge::Client {
        self.events
            .get_or_init(|| client!(aws_sdk_eventbridge, self.config_over_few()))
    }

    fn kms(&self) -> &aws_sdk_kms::Client {
        self.kms
            .get_or_init(|| client!(aws_sdk_kms, self.config_over_few()))
    }

    fn lambda(&self) -> &aws_sdk_lambda::Client {
        self.lambda.get_or_init(|| {
            let config = builder!(aws_sdk_lambda, self.config_over_few())
                .retry_config(patience::INVOKE.retries())
                .timeout_config(patience::INVOKE.timeouts());
            aws_sdk_lambda::Client::from_conf(config.build())
        })
    }
}
