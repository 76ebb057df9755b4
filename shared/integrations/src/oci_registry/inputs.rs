//! Inputs for an operator to fill in, and how one logs in with them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::ecr::Registry;
use super::reference::{Prefix, Repository, Username};
use crate::{Authorities, Error, Filter, Http, RoleArn, SecretText};

/// A repository, and what it takes to push there.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Inputs")]
pub struct Registration {
    pub repository: Repository,
    pub(super) login: Login,
    pub(super) ca_certificates: Option<Authorities>,
}

#[derive(Debug, Clone)]
pub(super) enum Login {
    Password {
        username: Username,
        password: SecretText,
    },
    Role {
        role: RoleArn,
        registry: Registry,
    },
}

impl JsonSchema for Registration {
    fn schema_name() -> Cow<'static, str> {
        "Registration".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Inputs::json_schema(generator)
    }
}

/// A registration as it is filled in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Inputs {
    /// OCI repository uri and path
    #[schemars(
        with = "String",
        length(min = 3, max = 255),
        example = "ghcr.io/acme/attestations",
        extend("x-destination" = true)
    )]
    repository: Repository,
    /// OCI repository username
    #[schemars(with = "Option<String>", length(min = 1), extend("x-required-unless" = "role_arn"))]
    username: Option<Username>,
    /// OCI repository password
    #[schemars(extend("x-required-unless" = "role_arn"))]
    password: Option<SecretText>,
    /// Amazon ECR: role at AWS that is assumed instead of a username and a password, and whose trust policy asks for the organization's external ID
    role_arn: Option<RoleArn>,
    ca_certificates: Option<Authorities>,
}

impl TryFrom<Inputs> for Registration {
    type Error = &'static str;

    /// Each error has the name of its input in front.
    fn try_from(inputs: Inputs) -> Result<Self, &'static str> {
        let login = match (inputs.role_arn, inputs.username, inputs.password) {
            (None, Some(username), Some(password)) => Login::Password { username, password },
            // What is missing the schema tells.
            (None, ..) => return Err("there is no login"),
            (Some(role), None, None) => {
                if inputs.ca_certificates.is_some() {
                    return Err(
                        "ca_certificates: cannot be with role_arn, which Amazon ECR alone takes",
                    );
                }
                let registry = Registry::of(inputs.repository.registry()).ok_or(
                    "repository: must be at Amazon ECR with role_arn, as in \
                     111122223333.dkr.ecr.eu-central-1.amazonaws.com/attestations",
                )?;
                Login::Role { role, registry }
            }
            (Some(_), ..) => {
                return Err("role_arn: belongs to registrations without a username and a password");
            }
        };
        Ok(Self {
            repository: inputs.repository,
            login,
            ca_certificates: inputs.ca_certificates,
        })
    }
}

impl Registration {
    /// Checks that a role can be assumed, and by this organization alone.
    pub(super) async fn check_role(&self, http: &Http) -> Result<(), Error> {
        match &self.login {
            Login::Password { .. } => Ok(()),
            Login::Role { role, registry } => {
                let purpose = registry.purpose(http, role, &self.repository)?;
                http.check_role(&purpose).await
            }
        }
    }

    pub(super) fn has_role(&self) -> bool {
        matches!(self.login, Login::Role { .. })
    }

    /// The repository as it is asked: where AWS is on this machine, so is what a role pushes to.
    pub(super) fn repository(&self, http: &Http) -> Repository {
        let endpoint = http
            .caller
            .as_ref()
            .and_then(|caller| caller.endpoint.clone());
        match endpoint.filter(|_| self.has_role()) {
            Some(endpoint) => self.repository.clone().asked_at(endpoint),
            None => self.repository.clone(),
        }
    }

    /// Returns `user:password`; another one than before where that was refused and there is another.
    pub(super) async fn password(
        &self,
        http: &Http,
        is_refused: bool,
    ) -> Result<SecretText, Error> {
        match &self.login {
            Login::Password { username, password } => {
                let (username, password) = (username.as_str(), password.expose());
                Ok(format!("{username}:{password}").into())
            }
            Login::Role { role, registry } => {
                let purpose = registry.purpose(http, role, &self.repository)?;
                if is_refused {
                    http.tokens()?.forget(&purpose);
                }
                let password = registry.password(http, &purpose).await?;
                // Who repeats it to us must not have it shown.
                http.redactor().learn(password.expose());
                Ok(password)
            }
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Only attestations that fit, as in `environment=prod, workflow.branch=release/*`
    #[serde(default)]
    pub filter: Option<Filter>,
    /// OCI images name prefix (default chainloop)
    #[serde(default)]
    #[schemars(with = "String", length(min = 1, max = 63))]
    pub prefix: Prefix,
    /// Whether to name the attested image as the artifact's subject, where it is in the same repository
    #[serde(default = "yes")]
    pub subject: bool,
    /// Whether to write manifests as registries want them that do not know artifact types
    #[serde(default)]
    pub compatibility: bool,
}

fn yes() -> bool {
    true
}
