//! Inputs for an operator to fill in, and the provider that each belongs to.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::azure::{self, Azure};
use super::gcs::{self, Gcs};
use super::s3::{Access, S3};
use crate::{Authorities, Filter, RoleArn, SecretText};

/// A bucket, and what it takes to write there.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Inputs")]
pub struct Registration {
    pub bucket: Bucket,
    pub(super) ca_certificates: Option<Authorities>,
    pub(super) place: Place,
}

impl JsonSchema for Registration {
    fn schema_name() -> Cow<'static, str> {
        "Registration".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Inputs::json_schema(generator)
    }
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    S3(S3),
    Gcs(Gcs),
    Azure(Azure),
}

/// A registration as it is filled in: flat, whatever the provider is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Inputs {
    /// Blob storage backend: Amazon S3 and what speaks its protocol, Google Cloud Storage, or Azure Blob Storage; without it, `gcs` when `credentials` are a JSON key, and `s3` otherwise
    #[schemars(extend("x-destination" = true))]
    provider: Option<Provider>,
    /// Name of the bucket (of the container, with `azure`), best one of its own: GUAC collects all that is in it
    #[schemars(with = "String", length(min = 3, max = 222))]
    bucket: Bucket,
    /// `s3`: region of the bucket, us-east-1 without it
    #[schemars(with = "Option<String>", length(min = 1, max = 32))]
    region: Option<Region>,
    /// URL of the service, when it is not the provider's own: with `s3` and `azure`, what is asked by paths (`<endpoint>/<bucket>/<key>`); with `gcs`, only one on this machine
    #[schemars(with = "Option<String>", url, extend("x-destination" = true))]
    endpoint: Option<Endpoint>,
    /// `s3`, required there without `role_arn`: id of an access key that may do `s3:PutObject` below the attachments' prefixes and below `chainloop/`
    #[schemars(with = "Option<String>", length(min = 1, max = 128))]
    access_key_id: Option<AccessKeyId>,
    /// `azure`, required there: name of the storage account
    #[schemars(
        with = "Option<String>",
        length(min = 3, max = 24),
        example = &"mystorage",
        extend("x-destination" = true)
    )]
    account: Option<Account>,
    /// With `s3`, the secret access key that belongs to `access_key_id`; with `gcs`, the JSON key of a service account that may create objects; with `azure`, an account key, or a SAS token that may create blobs in the container
    #[schemars(extend("x-required-unless" = "role_arn"))]
    credentials: Option<SecretText>,
    /// `s3`: role at AWS that is assumed instead of a stored key, and whose trust policy asks for the organization's external ID; for a bucket at Amazon S3
    role_arn: Option<RoleArn>,
    ca_certificates: Option<Authorities>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Beginning of each object's key
    #[serde(default)]
    #[schemars(with = "String", length(min = 1, max = 256))]
    pub prefix: Prefix,
    /// Which attestations' statements to export: those of a type that GUAC can read (`readable`), `none`, or `all`, on which GUAC's runs end with an error
    #[serde(default)]
    pub attestations: Attestations,
    /// Whether to derive SLSA provenance, which GUAC can read, from each of Chainloop's attestations; what is derived is signed by nobody
    #[serde(default)]
    pub provenance: bool,
    /// Only attestations and materials that fit, as in `environment=prod, workflow.branch=release/*`
    #[serde(default)]
    pub filter: Option<Filter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    S3,
    Gcs,
    Azure,
}

impl Provider {
    fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Attestations {
    All,
    #[default]
    Readable,
    None,
}

impl TryFrom<Inputs> for Registration {
    type Error = String;

    /// Each error has the name of its input in front.
    fn try_from(inputs: Inputs) -> Result<Self, String> {
        if inputs.role_arn.is_some() {
            return inputs.with_role();
        }
        // What is missing the schema tells.
        let credentials = inputs.credentials.ok_or("there are no credentials")?;
        // Chainloop knows `gcs` alone, and has nobody name it; no key of S3 begins like this.
        let is_json = credentials.expose().trim_start().starts_with('{');
        let provider = match inputs.provider {
            Some(provider) => provider,
            None if is_json => Provider::Gcs,
            None => Provider::S3,
        };
        for (name, is_given, owner) in [
            (
                "access_key_id",
                inputs.access_key_id.is_some(),
                Provider::S3,
            ),
            ("account", inputs.account.is_some(), Provider::Azure),
            ("region", inputs.region.is_some(), Provider::S3),
        ] {
            let (is, owner_is) = (provider.as_str(), owner.as_str());
            if is_given && provider != owner {
                return Err(format!(
                    "{name}: belongs to {owner_is}, and the provider is {is}"
                ));
            }
            let is_needed = name != "region" && provider == owner;
            if is_needed && !is_given {
                return Err(format!("{name}: is required with the provider {is}"));
            }
        }
        if let Err(detail) = inputs.bucket.check(provider) {
            return Err(format!("bucket: {detail}"));
        }
        let bucket = inputs.bucket.0.clone();
        let place = match (provider, inputs.access_key_id, inputs.account) {
            (Provider::Azure, _, Some(account)) => {
                let credential = azure::Credential::try_from(credentials)
                    .map_err(|detail| format!("credentials: {detail}"))?;
                Place::Azure(Azure {
                    container: bucket,
                    account,
                    endpoint: inputs.endpoint,
                    credential,
                })
            }
            (Provider::S3, Some(id), _) => Place::S3(S3 {
                bucket,
                region: inputs.region.unwrap_or_default(),
                access: Access::Key {
                    endpoint: inputs.endpoint,
                    id,
                    secret: credentials,
                },
            }),
            _ => {
                if inputs
                    .endpoint
                    .as_ref()
                    .is_some_and(|url| !url.is_loopback())
                {
                    return Err("endpoint: must be on this machine with the provider gcs, \
                                which is Google's own otherwise"
                        .to_owned());
                }
                let account = gcs::ServiceAccount::try_from(credentials)
                    .map_err(|detail| format!("credentials: {detail}"))?;
                Place::Gcs(Gcs {
                    bucket,
                    endpoint: inputs.endpoint,
                    account,
                })
            }
        };
        Ok(Self {
            bucket: inputs.bucket,
            ca_certificates: inputs.ca_certificates,
            place,
        })
    }
}

impl Inputs {
    /// A bucket that a role writes to: at Amazon, with what Amazon's certificates are signed by, and with no key.
    fn with_role(self) -> Result<Registration, String> {
        let role = self.role_arn.ok_or("there is no role")?;
        if self.credentials.is_some() || self.access_key_id.is_some() {
            return Err("role_arn: belongs to registrations without a key of their own".to_owned());
        }
        for (name, is_given) in [
            ("account", self.account.is_some()),
            ("ca_certificates", self.ca_certificates.is_some()),
            ("endpoint", self.endpoint.is_some()),
        ] {
            if is_given {
                return Err(format!(
                    "{name}: cannot be with role_arn, which Amazon S3 alone takes"
                ));
            }
        }
        if self
            .provider
            .is_some_and(|provider| provider != Provider::S3)
        {
            return Err("provider: must be s3 with role_arn".to_owned());
        }
        if let Err(detail) = self.bucket.check(Provider::S3) {
            return Err(format!("bucket: {detail}"));
        }
        Ok(Registration {
            ca_certificates: None,
            place: Place::S3(S3 {
                bucket: self.bucket.0.clone(),
                region: self.region.unwrap_or_default(),
                access: Access::Role(role),
            }),
            bucket: self.bucket,
        })
    }
}

/// Declares an input that is a string with a rule.
macro_rules! rule {
    ($(#[$doc:meta])* $name:ident, $fits:expr, $detail:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let fits: fn(&str) -> bool = $fits;
                if fits(&text) { Ok(Self(text)) } else { Err($detail) }
            }
        }
    };
}

rule!(
    /// Name that meets the rules common to all providers. See [`Bucket::check`].
    Bucket,
    |text| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b))
    },
    "must be lower-case letters, digits, hyphens, underscores and dots, as in my-bucket"
);

impl Bucket {
    /// By the provider's naming rules, without those that only keep names tidy.
    fn check(&self, provider: Provider) -> Result<(), &'static str> {
        let text = self.as_str();
        let has_tidy_parts = |separators: &[char]| {
            text.split(separators)
                .all(|part| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-'))
        };
        let (fits, detail) = match provider {
            Provider::S3 => (
                text.len() <= 63 && !text.contains('_') && has_tidy_parts(&['.']),
                "must be 3 to 63 lower-case letters, digits, hyphens and dots, as in my-bucket",
            ),
            Provider::Gcs => (
                has_tidy_parts(&['.']) && text.split('.').all(|part| part.len() <= 63),
                "must be 3 to 63 lower-case letters, digits, hyphens, underscores and dots, \
                 as in my-bucket",
            ),
            Provider::Azure => (
                text.len() <= 63 && !text.contains(['_', '.']) && has_tidy_parts(&['-']),
                "must be 3 to 63 lower-case letters, digits and single hyphens, as in my-container",
            ),
        };
        if fits { Ok(()) } else { Err(detail) }
    }
}

rule!(
    /// Becomes part of a host name.
    Region,
    |text| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    },
    "must be lower-case letters, digits and hyphens, as in eu-central-1"
);

impl Default for Region {
    fn default() -> Self {
        Self("us-east-1".to_owned())
    }
}

rule!(
    /// Becomes part of a host name.
    Account,
    |text| {
        (3..=24).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    },
    "must be 3 to 24 lower-case letters and digits"
);

rule!(
    /// A URL that object paths are appended to.
    Endpoint,
    |text| api::inputs::web_url(text).is_ok_and(|url| url.query().is_none() && url.fragment().is_none()),
    "must be a URL without a query and a fragment, as in https://s3.example.org"
);

impl Endpoint {
    /// Without the slash at its end.
    pub(super) fn base(&self) -> &str {
        self.as_str().trim_end_matches('/')
    }

    /// Reports whether the URL is `localhost` or a loopback address. [`Http`](crate::Http) decides whether that is
    /// allowed.
    fn is_loopback(&self) -> bool {
        api::inputs::web_url(&self.0).is_ok_and(|url| match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        })
    }
}

rule!(
    /// Becomes part of a header.
    AccessKeyId,
    |text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"/,=".contains(&b)),
    "must be the id of an access key, without spaces"
);

rule!(
    /// Becomes the beginning of keys: of letters that no service and no event escapes.
    Prefix,
    |text| {
        text.len() <= 256
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b))
            && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
    },
    "must be letters, digits, dots, hyphens, underscores and single slashes between them, as in team/app"
);

impl Default for Prefix {
    fn default() -> Self {
        Self("chainloop".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixture::{KEY, SECRET, service_account};
    use super::*;
    use crate::inputs;

    #[test]
    fn inputs_that_could_not_work_are_refused() {
        let base = json!({ "bucket": "sboms", "access_key_id": KEY, "credentials": SECRET });
        let faults = |more: Value| {
            let mut all = base.as_object().unwrap().clone();
            all.extend(more.as_object().unwrap().clone());
            inputs::check::<Registration>(&all)
                .into_iter()
                .map(|fault| fault.field)
                .collect::<Vec<_>>()
        };
        assert!(faults(json!({})).is_empty());
        assert!(
            faults(json!({ "provider": "s3", "endpoint": "https://s3.example.org/v1" })).is_empty()
        );
        assert_eq!(faults(json!({ "provider": "file" })), ["provider"]);
        for bucket in [
            "Sboms",
            "a/b",
            "..",
            "a..b",
            "-ab",
            "ab?x",
            "arn:aws:s3:::b",
        ] {
            assert_eq!(faults(json!({ "bucket": bucket })), ["bucket"], "{bucket}");
        }
        for region in ["evil.example.org/", "us east", "a@b"] {
            assert_eq!(faults(json!({ "region": region })), ["region"], "{region}");
        }
        for endpoint in [
            "s3.example.org",
            "https://u:p@s3.example.org",
            "https://s3.example.org?x=1",
        ] {
            assert_eq!(
                faults(json!({ "endpoint": endpoint })),
                ["endpoint"],
                "{endpoint}"
            );
        }
        assert_eq!(
            faults(json!({ "bucket": "A", "region": "x y", "endpoint": "https://a.example/?q" })),
            ["bucket"],
            "what the schema can tell comes first"
        );
        assert_eq!(
            faults(json!({ "bucket": "A_B", "region": "x y", "endpoint": "https://a.example/?q" })),
            ["bucket", "endpoint", "region"]
        );
        for prefix in ["/a", "a/", "a//b", "a/../b", "a b", "a:b", "ä"] {
            let inputs = json!({ "prefix": prefix });
            let faults = inputs::check::<Attachment>(inputs.as_object().unwrap());
            assert_eq!(faults.len(), 1, "{prefix}");
        }
    }

    fn details(inputs: &Value) -> Vec<String> {
        inputs::check::<Registration>(inputs.as_object().unwrap())
            .into_iter()
            .map(|fault| format!("{}: {}", fault.field, fault.detail))
            .collect()
    }

    fn read(inputs: Value) -> Place {
        serde_json::from_value::<Registration>(inputs)
            .unwrap()
            .place
    }

    #[test]
    fn a_json_key_means_gcs_and_any_other_text_s3() {
        let gcs = read(json!({ "bucket": "my_sboms", "credentials": service_account(json!({})) }));
        assert!(matches!(gcs, Place::Gcs(_)));
        let s3 = json!({ "bucket": "sboms", "access_key_id": KEY, "credentials": SECRET });
        assert!(matches!(read(s3), Place::S3(_)));
        let broken = details(&json!({ "bucket": "sboms", "credentials": " {\"canary\"" }));
        let expected =
            "credentials: must be the JSON key of a service account, with the provider gcs";
        assert_eq!(broken, [expected]);
    }

    #[test]
    fn inputs_of_another_provider_are_all_told_at_once() {
        let inputs = json!({
            "provider": "gcs", "bucket": "A", "region": "eu-west-1", "account": "shop",
            "access_key_id": KEY, "credentials": "canary", "endpoint": "https://s3.example.org",
        });
        let mut inputs = inputs;
        assert_eq!(details(&inputs).len(), 1, "the schema first");
        inputs["bucket"] = json!("a..b");
        assert_eq!(
            details(&inputs),
            [
                "access_key_id: belongs to s3, and the provider is gcs",
                "account: belongs to azure, and the provider is gcs",
                "bucket: must be 3 to 63 lower-case letters, digits, hyphens, underscores and dots, as in my-bucket",
                "region: belongs to s3, and the provider is gcs",
            ]
        );
        inputs["bucket"] = json!("sboms");
        inputs["credentials"] = json!(service_account(json!({})));
        let found = details(&inputs);
        assert!(
            found[2].starts_with("endpoint: must be on this machine"),
            "{found:?}"
        );
        let local = json!({
            "bucket": "sboms", "credentials": service_account(json!({})),
            "endpoint": "http://127.0.0.1:4443",
        });
        assert!(details(&local).is_empty());
    }

    #[test]
    fn what_a_provider_needs_is_told() {
        for (provider, expected) in [
            ("s3", "access_key_id: is required with the provider s3"),
            ("azure", "account: is required with the provider azure"),
        ] {
            let inputs = json!({ "provider": provider, "bucket": "sboms", "credentials": "YQ==" });
            assert_eq!(details(&inputs), [expected]);
        }
    }

    #[test]
    fn a_service_accounts_key_may_lead_to_google_alone() {
        for (more, expected) in [
            (
                json!({ "type": "authorized_user" }),
                "must have the type service_account",
            ),
            (
                json!({ "token_uri": "https://canary.example.org/token" }),
                "must have the token_uri",
            ),
            (
                json!({ "gcs_base_url": "https://canary.example.org" }),
                "must not have gcs_base_url",
            ),
            (
                json!({ "disable_oauth": true }),
                "must not have disable_oauth",
            ),
            (
                json!({ "universe_domain": "canary.example.org" }),
                "must have the universe_domain",
            ),
            (json!({ "client_email": null }), "must have a client_email"),
            (
                json!({ "private_key": "canary" }),
                "must have a private_key in PEM",
            ),
            (
                json!({ "type": 7 }),
                "must be the JSON key of a service account",
            ),
        ] {
            let found =
                details(&json!({ "bucket": "sboms", "credentials": service_account(more) }));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(
                found[0].starts_with(&format!("credentials: {expected}")),
                "{found:?}"
            );
            assert!(!found[0].contains("canary"), "{found:?}");
        }
        for url in [
            "https://oauth2.googleapis.com/token",
            "https://accounts.google.com/o/oauth2/token",
        ] {
            let key = service_account(json!({ "token_uri": url }));
            assert!(details(&json!({ "bucket": "sboms", "credentials": key })).is_empty());
        }
    }

    #[test]
    fn azure_takes_an_accounts_key_or_a_sas_token() {
        let faults = |more: Value| {
            let mut inputs = json!({
                "provider": "azure", "account": "shop", "bucket": "sboms", "credentials": "Y2FuYXJ5",
            });
            let all = inputs.as_object_mut().unwrap();
            all.extend(more.as_object().unwrap().clone());
            details(&inputs)
        };
        assert!(faults(json!({})).is_empty());
        let sas = "?sv=2026-02-06&sr=c&sp=cw&sig=Y2FuYXJ5%3D";
        assert!(faults(json!({ "credentials": sas })).is_empty());
        for credentials in ["no base64, canary", "sv=canary&sr=c", "sv=&sig=canary"] {
            let found = faults(json!({ "credentials": credentials }));
            assert!(
                found[0].starts_with("credentials: must be an account key"),
                "{found:?}"
            );
            assert!(!found[0].contains("canary"), "{found:?}");
        }
        for bucket in ["my_sboms", "my.sboms", "my--sboms", "-sboms"] {
            let found = faults(json!({ "bucket": bucket }));
            assert!(
                found[0].starts_with("bucket: must be 3 to 63"),
                "{bucket}: {found:?}"
            );
        }
        for account in ["Shop", "a-b", "evil.example.org/"] {
            assert!(
                faults(json!({ "account": account }))[0].starts_with("account: "),
                "{account}"
            );
        }
    }

    #[test]
    fn what_is_secret_is_not_shown() {
        let key = service_account(json!({ "private_key_id": "0123" }));
        let gcs = json!({ "bucket": "sboms", "credentials": key });
        let azure = json!({
            "provider": "azure", "account": "shop", "bucket": "sboms", "credentials": "Y2FuYXJ5",
        });
        let s3 = json!({ "bucket": "sboms", "access_key_id": KEY, "credentials": SECRET });
        for inputs in [gcs, azure, s3] {
            let shown = format!(
                "{:?}",
                serde_json::from_value::<Registration>(inputs).unwrap()
            );
            for secret in ["PRIVATE KEY", "Y2FuYXJ5", SECRET] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
    }
}
