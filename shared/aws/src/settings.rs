//! Settings of a function from its environment, and the SDK configuration built from them by hand.
//!
//! No `aws-config`: its provider chains for credentials and regions cost 2 ms of every cold start and 5 MB of every
//! binary, and Lambda sets all of it in the environment.

use std::sync::Arc;
use std::time::Duration;

use ::http::Uri;
use api::inputs::web_url;
use api::issuers::url_fault;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::config::{BehaviorVersion, IdentityCache, Region};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_types::SdkConfig;
use integrations::SecretText;
use integrations::http::{self, Guard, Proxy, is_local};
use integrations::iam::{AccessKey, Caller, host};
use pipeline::engine::sign_in::Provider;
use pipeline::store::meter::Quotas;
use tracing::warn;

use crate::connections::Connections;
use crate::objects::Objects;
use crate::patience;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the environment variable {0} is not set")]
    Missing(&'static str),
    #[error("failed to read the environment variable QUOTAS: {0}")]
    Quotas(#[from] pipeline::store::meter::Malformed),
    #[error("failed to read the environment variable ALLOWED_PRIVATE_CIDRS: {0}")]
    Allowed(#[from] http::Malformed),
    #[error("failed to read the environment variable EGRESS_PROXY: {0}")]
    Proxy(#[from] http::MalformedProxy),
    #[error("failed to read the credentials of the egress proxy: {0}")]
    ProxySecret(String),
    #[error("the parameter SignInIssuer {0}")]
    SignIn(&'static str),
    #[error("the function ended: {0}")]
    Lambda(String),
}

pub struct Settings {
    pub table: String,
    pub bucket: String,
    pub stack: String,
    /// Ending of the names of functions that are invoked: `:` and an alias, or nothing.
    pub(crate) qualifier: String,
    /// Event bus that operators are told by.
    pub event_bus: String,
    /// Subjects of metrics.
    pub metrics: Metrics,
    /// A queue's URL is this and its integration's id.
    pub queue_url_prefix: String,
    /// Time for which rows are kept; the bucket's own rule keeps bytes a week longer.
    pub retention: Duration,
    /// Quotas of each organization.
    pub quotas: Quotas,
    /// Networks and proxy of deliveries.
    guard: Guard,
    /// ARN of the secret that has the proxy's credentials.
    pub(crate) proxy_secret: Option<String>,
    /// Key that new secrets are encrypted with; none for that of AWS.
    pub(crate) secrets_key: Option<String>,
    /// ARN of the key that signs receipts.
    pub(crate) receipt_key: Option<String>,
    /// Address of the console.
    pub(crate) console: Option<String>,
    /// Address that spans are posted to, on this machine.
    pub(crate) collector: Option<Uri>,
    /// Names of the roles that a delivery may assume.
    assumable: String,
    /// Endpoint of an emulator; none on AWS.
    pub endpoint: Option<String>,
    region: String,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

/// Subjects of metrics. Each metric of each has its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metrics {
    None,
    /// Each integration's, and all of them together.
    Integration,
    /// Each registration's as well.
    Registration,
}

impl Settings {
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let required = |name: &'static str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .ok_or(Error::Missing(name))
        };
        Ok(Self {
            bucket: required("BUCKET")?,
            stack: required("STACK")?,
            queue_url_prefix: required("QUEUE_URL_PREFIX")?,
            ..Self::of_table(required("TABLE")?, &variable)?
        })
    }

    /// Enough to write rows, for whoever is not a function: no bucket, no queues, no secrets.
    pub fn of_table(
        table: String,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let required = |name: &'static str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .ok_or(Error::Missing(name))
        };
        let given = |name| variable(name).filter(|value| !value.is_empty());
        let endpoint = given("AWS_ENDPOINT_URL");
        Ok(Self {
            table,
            bucket: String::new(),
            stack: String::new(),
            qualifier: variable("QUALIFIER").unwrap_or_default(),
            queue_url_prefix: String::new(),
            event_bus: given("EVENT_BUS").unwrap_or_else(|| "default".to_owned()),
            metrics: match variable("METRICS").as_deref() {
                Some("none") => Metrics::None,
                Some("registration") => Metrics::Registration,
                _ => Metrics::Integration,
            },
            retention: variable("RETENTION_DAYS")
                .and_then(|days| days.parse().ok())
                .map_or(pipeline::ledger::schedule::RETENTION, |days: u64| {
                    Duration::from_secs(days * 86400)
                }),
            quotas: variable("QUOTAS").unwrap_or_default().parse()?,
            guard: guard(&variable, endpoint.as_deref())?,
            proxy_secret: given("EGRESS_PROXY_SECRET"),
            secrets_key: given("SECRETS_KEY"),
            receipt_key: given("RECEIPT_KEY"),
            console: given("CONSOLE_URL"),
            collector: given("OTEL_EXPORTER_OTLP_ENDPOINT").and_then(|url| collector(&url)),
            assumable: given("ASSUMABLE_ROLES").unwrap_or_default(),
            endpoint,
            region: required("AWS_REGION")?,
            access_key_id: required("AWS_ACCESS_KEY_ID")?,
            secret_access_key: required("AWS_SECRET_ACCESS_KEY")?,
            session_token: given("AWS_SESSION_TOKEN"),
        })
    }

    /// Returns the limits on where deliveries may go, and the proxy for them without its credentials.
    pub(crate) fn guard(&self) -> Guard {
        self.guard.clone()
    }

    /// The function as AWS knows it, for deliveries by a role of somebody else's.
    pub(crate) fn caller(&self) -> Caller {
        let key = AccessKey {
            id: self.access_key_id.clone(),
            secret: self.secret_access_key.clone().into(),
            token: self.session_token.clone().map(SecretText::from),
        };
        let mut caller = Caller::new(&*self.region, key);
        caller.session_name.clone_from(&self.stack);
        caller.assumable.clone_from(&self.assumable);
        caller.bucket.clone_from(&self.bucket);
        caller.endpoint = self.endpoint.as_deref().and_then(|url| web_url(url).ok());
        caller
    }

    fn credentials(&self) -> Credentials {
        Credentials::new(
            &self.access_key_id,
            &self.secret_access_key,
            self.session_token.clone(),
            None,
            "environment",
        )
    }

    /// The bucket's objects, over these connections. A bucket has a host of its own on AWS alone, and no certificate there
    /// where its name has a dot.
    pub(crate) fn objects(&self, connections: Connections) -> Objects {
        let (bucket, region) = (&self.bucket, &self.region);
        let host = host("s3", region);
        let base = match &self.endpoint {
            Some(endpoint) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
            None if bucket.contains('.') => format!("https://{host}/{bucket}"),
            None => format!("https://{bucket}.{host}"),
        };
        Objects::new(connections, base, region, self.credentials())
    }

    pub fn sdk_config(&self, connections: Connections) -> SdkConfig {
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.region.clone()))
            .credentials_provider(SharedCredentialsProvider::new(self.credentials()))
            .identity_cache(IdentityCache::no_cache())
            .http_client(connections)
            .sleep_impl(TokioSleep::new())
            .retry_config(patience::SHORT.retries())
            .timeout_config(patience::SHORT.timeouts());
        match &self.endpoint {
            Some(endpoint) => config.endpoint_url(endpoint).build(),
            None => config.build(),
        }
    }
}

/// Returns where spans go. That is no further than this machine: whatever sends them on is an extension of the function, and
/// not its way out. A function without spans does its work, and so does one whose endpoint is none.
fn collector(endpoint: &str) -> Option<Uri> {
    let url = web_url(endpoint).ok();
    let here =
        url.filter(|url| url.scheme() == "http" && url.host().is_some_and(|host| is_local(&host)));
    let traces = here.and_then(|url| {
        let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
        url.join(&path).ok()?.as_str().parse().ok()
    });
    if traces.is_none() {
        warn!(
            "OTEL_EXPORTER_OTLP_ENDPOINT is no http URL of this machine, such as http://localhost:4318: no spans"
        );
    }
    traces
}

/// Settings of the function that signs people in.
#[derive(Debug)]
pub struct SignIn {
    pub provider: Provider,
    /// ARN of the secret that the provider has given the console, if it has.
    pub secret: Option<String>,
}

impl SignIn {
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let given = |name| variable(name).filter(|value| !value.is_empty());
        let required = |name: &'static str| given(name).ok_or(Error::Missing(name));
        let issuer = required("SIGN_IN_ISSUER")?;
        if let Some(fault) = url_fault(&issuer) {
            return Err(Error::SignIn(fault));
        }
        Ok(Self {
            provider: Provider {
                issuer,
                client_id: required("SIGN_IN_CLIENT_ID")?,
                scopes: required("SIGN_IN_SCOPES")?,
            },
            secret: given("SIGN_IN_CLIENT_SECRET"),
        })
    }
}

/// Local mode is not a setting, which could leak to AWS: it applies only if this function's AWS endpoint is on the same
/// machine, and a function on AWS has no such endpoint.
fn guard(
    variable: impl Fn(&str) -> Option<String>,
    endpoint: Option<&str>,
) -> Result<Guard, Error> {
    let given = |name| variable(name).unwrap_or_default();
    let endpoint = endpoint.map(web_url);
    let proxy: Option<Proxy> = match given("EGRESS_PROXY").as_str() {
        "" => None,
        url => Some(url.parse()?),
    };
    Ok(Guard {
        allow_loopback: matches!(endpoint, Some(Ok(url)) if url.host().is_some_and(|host| is_local(&host))),
        allowed: given("ALLOWED_PRIVATE_CIDRS").parse()?,
        is_in_vpc: given("IN_VPC") == "true",
        proxy: proxy.map(|proxy| Arc::new(proxy.with_names(&given("EGRESS_PROXY_NAMES")))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Variables that no function can do without.
    fn required(name: &str) -> Option<String> {
        let required = ["AWS_ACCESS_KEY_ID", "AWS_REGION", "AWS_SECRET_ACCESS_KEY"];
        let ours = ["BUCKET", "QUEUE_URL_PREFIX", "STACK", "TABLE"];
        let is_required = required.contains(&name) || ours.contains(&name);
        is_required.then(|| name.to_lowercase())
    }

    #[test]
    fn a_way_out_that_is_none_is_named() {
        let guard = |name: &str, text: &str| {
            let settings = Settings::from_env(|asked| match asked == name {
                true => Some(text.to_owned()),
                false => required(asked),
            });
            settings.map(|settings| settings.guard())
        };
        assert!(
            guard("EGRESS_PROXY", "http://proxy:3128")
                .unwrap()
                .proxy
                .is_some()
        );
        // The environment's own are not heeded.
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"] {
            assert!(
                guard(name, "http://proxy:3128").unwrap().proxy.is_none(),
                "{name}"
            );
        }
        for (name, text) in [
            ("EGRESS_PROXY", "https://proxy:3128"),
            ("ALLOWED_PRIVATE_CIDRS", "10.0.0.0/8"),
        ] {
            let error = guard(name, text).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn an_identity_provider_is_asked_over_tls_or_on_this_machine() {
        let issuer = |text: &str| {
            let settings = SignIn::from_env(|name| match name {
                "SIGN_IN_ISSUER" => Some(text.to_owned()),
                "SIGN_IN_CLIENT_SECRET" => Some(String::new()),
                other => Some(other.to_lowercase()),
            });
            let settings = settings.map_err(|error| error.to_string())?;
            assert_eq!(settings.secret, None);
            Ok::<_, String>(settings.provider.issuer)
        };
        for text in [
            "https://id.example.org/realms/a/",
            "http://127.0.0.1:5556/dex",
        ] {
            assert_eq!(issuer(text), Ok(text.to_owned()));
        }
        for text in [
            "http://id.example.org",
            "id.example.org",
            "https://id.example.org?x",
            "",
        ] {
            let error = issuer(text).unwrap_err();
            assert!(
                error.contains("SignInIssuer") || error.contains("SIGN_IN_ISSUER"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_missing_variable_is_named() {
        let error =
            Settings::from_env(|name| ["TABLE", "STACK"].contains(&name).then(|| "t".into()))
                .err()
                .unwrap();
        assert_eq!(
            error.to_string(),
            "the environment variable BUCKET is not set"
        );
    }

    #[test]
    fn a_function_with_quotas_that_are_none_does_not_start() {
        let quotas = |text: &str| {
            Settings::from_env(|name| match name {
                "QUOTAS" => Some(text.to_owned()),
                other => required(other),
            })
        };
        assert_eq!(quotas("tokens=7").unwrap().quotas.tokens, 7);
        assert_eq!(quotas("").unwrap().quotas, Quotas::default());
        let error = quotas("tokens=many").err().unwrap().to_string();
        assert!(
            error.contains("QUOTAS") && error.contains("tokens=many"),
            "{error}"
        );
    }

    #[test]
    fn spans_go_to_this_machine_and_nowhere_else() {
        let collector = |url: &str| {
            let settings = Settings::from_env(|name| match name {
                "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(url.to_owned()),
                other => required(other),
            });
            settings.unwrap().collector.map(|uri| uri.to_string())
        };
        for (url, expected) in [
            ("", None),
            (
                "http://localhost:4318",
                Some("http://localhost:4318/v1/traces"),
            ),
            (
                "http://127.0.0.1:4318/",
                Some("http://127.0.0.1:4318/v1/traces"),
            ),
            (
                "http://[::1]:4318/otlp/",
                Some("http://[::1]:4318/otlp/v1/traces"),
            ),
        ] {
            assert_eq!(collector(url).as_deref(), expected, "{url}");
        }
        for url in [
            "https://localhost:4318",
            "http://collector.example.org:4318",
            "http://169.254.169.254",
            "http://10.0.0.1:4318",
            "localhost:4318",
            "http://localhost:99999",
        ] {
            assert_eq!(collector(url), None, "{url}");
        }
    }

    #[test]
    fn local_mode_is_where_aws_is_this_machine_and_nowhere_else() {
        let guard = |endpoint: Option<&str>| {
            let settings = Settings::from_env(|name| match name {
                "AWS_ENDPOINT_URL" => endpoint.map(str::to_owned),
                // Left over from a stack that had such settings.
                "ALLOW_LOOPBACK" | "LOCAL_MODE" => Some("true".to_owned()),
                other => required(other),
            });
            settings.unwrap().guard().allow_loopback
        };
        for local in [
            "http://127.0.0.1:4566",
            "http://localhost:4566/",
            "https://[::1]:4566",
        ] {
            assert!(guard(Some(local)), "{local}");
        }
        for other in [
            None,
            Some(""),
            Some("4566"),
            Some("https://sqs.eu-central-1.amazonaws.com"),
            Some("https://localhost.example.org"),
            Some("https://user@127.0.0.1"),
            Some("http://10.0.0.1:4566"),
            Some("https://example.org/127.0.0.1"),
        ] {
            assert!(!guard(other), "{other:?}");
        }
    }

    #[tokio::test]
    async fn a_service_has_the_host_that_the_sdk_knows() {
        use aws_sdk_dynamodb::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
        for region in [
            "eu-central-1",
            "us-gov-west-1",
            "cn-north-1",
            "eusc-de-east-1",
            "eu-isoe-west-1",
            "us-iso-east-1",
            "us-isob-east-1",
            "us-isof-south-1",
        ] {
            let params = Params::builder().region(region).build().unwrap();
            let resolver = DefaultResolver::new();
            let known = resolver.resolve_endpoint(&params);
            let own = format!("https://{}", host("dynamodb", region));
            assert_eq!(known.await.unwrap().url(), own);
        }
    }
}
