//! Inputs for an operator to fill in, and the defaults that follow from one another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::addresses::{Address, Addresses, MailHost, Port};
use crate::{Authorities, Filter, SecretText, Template};

// What an operator fills in, once it has been seen that the fields fit each other.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "Filled")]
#[schemars(with = "Filled")]
pub struct Registration(Filled);

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filled {
    /// Addresses that mails are sent to, with commas between them
    pub to: Addresses,
    /// Address that mails come from
    pub from: Address,
    /// Host of the mail server
    #[schemars(extend("x-destination" = true))]
    pub host: MailHost,
    /// Port of the mail server: 25, 465, 587, 2465, 2525 or 2587
    #[schemars(extend("x-destination" = true))]
    pub port: Port,
    /// How the connection is encrypted: from its beginning (`implicit`, the default for ports 465 and 2465), by a STARTTLS that the server must offer (`starttls`, the default for all others), or `none`
    #[serde(default)]
    #[schemars(extend("x-destination" = true))]
    pub tls: Option<Tls>,
    /// User to log in as; only together with `password`
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub user: Option<String>,
    /// Password to log in with; never sent over a connection that is not encrypted
    #[serde(default)]
    pub password: Option<SecretText>,
    /// Name to greet the mail server with; without it, the domain of `from`
    #[serde(default)]
    pub ehlo_name: Option<MailHost>,
    /// Whether to send a mail when this is registered; without it the server is only logged in to
    #[serde(default)]
    pub send_test_message: bool,
    #[serde(default)]
    pub ca_certificates: Option<Authorities>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Addresses that get a copy of each mail, with commas between them
    #[serde(default)]
    pub cc: Option<Addresses>,
    /// Template of the mail's subject, as in `{{ workflow.name }}: {{ policy.status }}`; without it, a subject that says how the policies went
    #[serde(default)]
    pub subject: Option<Template>,
    /// Template of the mail's text; without it, a summary of the attestation
    #[serde(default)]
    pub template: Option<Template>,
    /// Whether the summary shows what small materials hold
    #[serde(default)]
    pub inline_content: bool,
    /// Whether the summary shows mail addresses of people
    #[serde(default)]
    pub emails: bool,
    /// Only attestations and materials that fit, as in environment=prod,material.type=SBOM_CYCLONEDX_JSON
    #[serde(default)]
    pub filter: Option<Filter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    Implicit,
    Starttls,
    None,
}

impl TryFrom<Filled> for Registration {
    type Error = &'static str;

    fn try_from(filled: Filled) -> Result<Self, Self::Error> {
        match (&filled.user, &filled.password) {
            (Some(user), Some(_)) if user.chars().any(char::is_control) => {
                Err("user must not have control characters")
            }
            (Some(_), Some(_)) | (None, None) => Ok(Self(filled)),
            (Some(_), None) => Err("user needs a password"),
            (None, Some(_)) => Err("password needs a user"),
        }
    }
}

impl std::ops::Deref for Registration {
    type Target = Filled;

    fn deref(&self) -> &Filled {
        &self.0
    }
}

impl Registration {
    pub(super) fn tls(&self) -> Tls {
        self.tls.unwrap_or(match self.port.0 {
            465 | 2465 => Tls::Implicit,
            _ => Tls::Starttls,
        })
    }

    pub(super) fn credentials(&self) -> Option<(&str, &str)> {
        let (user, password) = (self.user.as_ref()?, self.password.as_ref()?);
        Some((user, password.expose()))
    }

    /// Name of ours in a greeting. The address of a function says nothing to anybody.
    pub(super) fn greeting_name(&self) -> String {
        match &self.ehlo_name {
            Some(name) => name.literal(),
            None => self.from.domain().to_owned(),
        }
    }

    /// Host and port, as they are shown.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.host, self.port.0)
    }
}

impl Attachment {
    pub(super) fn copies(&self) -> &[Address] {
        self.cc
            .as_ref()
            .map(Addresses::as_slice)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::inputs;

    #[test]
    fn inputs_that_could_not_work_are_refused() {
        let base = json!({
            "to": "a@example.org", "from": "b@example.org", "host": "smtp.example.org", "port": "587",
        });
        let faults = |more: Value| {
            let mut all = base.as_object().unwrap().clone();
            all.extend(more.as_object().unwrap().clone());
            let faults = inputs::check::<Registration>(&all);
            assert!(!format!("{faults:?}").contains("canary"));
            let fields = faults.into_iter().map(|fault| fault.field);
            fields.collect::<Vec<_>>()
        };
        assert!(faults(json!({})).is_empty());
        assert!(faults(json!({ "port": 465, "tls": "implicit" })).is_empty());
        assert!(faults(json!({ "user": "u", "password": "canary" })).is_empty());
        assert_eq!(faults(json!({ "password": "canary" })), [""]);
        assert_eq!(faults(json!({ "user": "u" })), [""]);
        assert_eq!(faults(json!({ "user": "u\0", "password": "canary" })), [""]);
        for (field, value) in [
            ("to", json!("a@example.org;b@example.org")),
            ("to", json!("A <a@example.org>")),
            ("from", json!("a@example.org, b@example.org")),
            ("host", json!("smtp.example.org:587")),
            ("port", json!("smtp")),
            ("port", json!(70000)),
            ("port", json!(true)),
            ("tls", json!("opportunistic")),
            ("ehlo_name", json!("a b")),
            ("ehlo_name", json!("a\r\nMAIL FROM:<b>")),
            ("send_test_message", json!("yes")),
        ] {
            assert_eq!(faults(json!({ field: value })), [field], "{value}");
        }
        let cc = |text: &str| {
            let inputs = json!({ "cc": text });
            inputs::check::<Attachment>(inputs.as_object().unwrap()).len()
        };
        assert_eq!((cc("a@example.org, b@example.com"), cc("nobody")), (0, 1));
    }

    #[test]
    fn a_port_on_the_command_line_is_what_chainloop_takes() {
        let schema = inputs::schema::<Registration>();
        let fields = api::inputs::fields(&schema);
        let port = fields.iter().find(|field| field.name == "port").unwrap();
        assert_eq!(api::inputs::cast(port, "587").unwrap(), json!("587"));
    }
}
