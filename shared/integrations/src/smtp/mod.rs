//! Mails a summary of each attestation, through a server of the organization's own.
//!
//! Recipients are told apart. Each domain's get a mail of their own, to which they are asked one by one, so that
//! a wrong address or a busy server keeps the mail from nobody else, and a repeat goes to those alone who do not
//! have it. The mail's `Message-ID` stays the same when it is repeated.
//!
//! # Receipt
//!
//! Of each recipient's domain the mail's `Message-ID`, and what the server said of each recipient, whose name is masked.
//!
//! # Limits
//!
//! The server's own SIZE, which is asked for before a mail is sent; 15 s for each domain.
//!
//! # Failures
//!
//! - 535: user and password are not right, or not any more. Mend it with `registered rotate`.
//! - 530: the server wants a login or encryption that this registration does not have.
//! - 550, 551, 553: it does not know or take a recipient; the others get the mail all the same.
//! - 552, 554: it refuses the mail for its size or content.
//! - 421, 450, 451, 452, 454: busy or greylisting; tried again, for those recipients alone.
//! - no STARTTLS offered, certificate not trusted: fails; choose another port or `tls`, or name the authority in
//!   `ExtraRoots`.

mod addresses;
mod connection;
mod message;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use attestation::{Digest, MaterialType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::summary::{Detail, Link, Summary};
use crate::{
    Delivery, Error, Filter, Host, Http, Integration, Kind, Outcome, Preview, SecretText, Template,
    Warnings, facts, http,
};
pub use addresses::{Address, Addresses, MailHost, Port};
use connection::{Connection, Fate, Server, Why};
use message::Letter;

#[derive(Debug)]
pub struct Smtp;

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
    /// Port of the mail server: 25, 465, 587 or 2525
    #[schemars(extend("x-destination" = true))]
    pub port: Port,
    /// How the connection is encrypted: from its beginning (`implicit`, the default for port 465), by a STARTTLS that the server must offer (`starttls`, the default for all others), or `none`
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
    /// Whether to send a mail when this is registered; without it the server is only logged in to
    #[serde(default)]
    pub send_test_message: bool,
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
    fn tls(&self) -> Tls {
        self.tls.unwrap_or(match self.port.0 {
            465 => Tls::Implicit,
            _ => Tls::Starttls,
        })
    }

    fn credentials(&self) -> Option<(&str, &str)> {
        let (user, password) = (self.user.as_ref()?, self.password.as_ref()?);
        Some((user, password.expose()))
    }

    /// Host and port, as they are shown.
    fn place(&self) -> String {
        format!("{}:{}", self.host, self.port.0)
    }
}

/// All that a check may take.
const CHECK: Duration = Duration::from_secs(15);
/// For one domain's mail, from the connection to the server's last word.
const DOMAIN: Duration = Duration::from_secs(15);
/// For all domains, so that what was done is written down before the attempt is over.
const ATTEMPT: Duration = Duration::from_secs(18);

impl Integration for Smtp {
    const ID: &'static str = "smtp";
    const VERSION: &'static str = "1.0";
    const DESCRIPTION: &'static str = "Send emails with information about a received attestation";
    const MATERIALS: &'static [MaterialType] = &[];

    type Registration = Registration;
    type Attachment = Attachment;

    fn filter(attachment: &Attachment) -> Option<&Filter> {
        attachment.filter.as_ref()
    }

    /// Logs in, and sends no mail unless it is asked to.
    async fn register(http: &Http, registration: &Registration) -> Result<Warnings, Error> {
        let until = Instant::now() + CHECK;
        let server = Server::of(registration);
        let mut connection = server.open(http, until).await?;
        connection.noop(until).await?;
        if registration.send_test_message {
            let message = test_message(registration, http.unix_secs())?;
            let envelope = Envelope::of(registration.to.as_slice());
            for (domain, recipients) in envelope.0 {
                let sent = connection.send(&registration.from, &recipients, &message, until);
                for (recipient, fate) in recipients.iter().zip(sent.await) {
                    if let Some(error) = error(&server, domain, recipient, &fate) {
                        return Err(error);
                    }
                }
            }
        }
        connection.quit().await;
        Ok(Warnings::new())
    }

    async fn attach(_: &Http, _: &Registration, _: &Attachment) -> Result<Warnings, Error> {
        Ok(Warnings::new())
    }

    async fn deliver(
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Outcome, Error> {
        let until = Instant::now() + ATTEMPT;
        let registration = delivery.registration;
        let message = message(delivery, host.unix_secs())?;
        let server = Server::of(registration);
        let mut connection = None;
        let mut post = Post::new(&server, delivery.progress);
        for (domain, recipients) in Envelope::of_delivery(delivery).0 {
            let left = post.left(domain, &recipients);
            if left.is_empty() {
                continue;
            }
            let until = until.min(Instant::now() + DOMAIN);
            let mut open = match connection.take() {
                Some(open) => open,
                None => match server.open(http, until).await {
                    Ok(open) => open,
                    Err(error) => {
                        post.stop(error);
                        break;
                    }
                },
            };
            let fates = open.send(&registration.from, &left, &message, until).await;
            if post.settle(domain, &left, fates) {
                host.record(domain, post.receipt(domain)).await?;
            }
            connection = Some(open).filter(|open| !open.is_broken());
        }
        if let Some(connection) = connection {
            Connection::quit(connection).await;
        }
        post.outcome(&message::id(delivery.id, &registration.from))
    }

    async fn preview(
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Vec<Preview>, Error> {
        let message = message(delivery, host.unix_secs())?;
        let registration = delivery.registration;
        let scheme = match registration.tls() {
            Tls::Implicit => "smtps",
            Tls::Starttls | Tls::None => "smtp",
        };
        let text = String::from_utf8_lossy(&message[..message.len().min(http::ANSWER_BYTES)]);
        let previews = Envelope::of_delivery(delivery).0.into_values();
        let previews = previews.map(|recipients| {
            let recipients: Vec<_> = recipients.iter().map(|to| to.as_str()).collect();
            let headers = [
                ("MAIL FROM", registration.from.as_str().to_owned()),
                ("RCPT TO", recipients.join(", ")),
            ];
            Preview {
                method: "SMTP".to_owned(),
                target: format!("{scheme}://{}", registration.place()),
                headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
                digest: Digest::of(&message),
                size_bytes: message.len() as u64,
                body: text.clone().into_owned(),
            }
        });
        Ok(previews.collect())
    }
}

/// Recipients by domain, each once.
struct Envelope<'a>(BTreeMap<&'a str, Vec<&'a Address>>);

impl<'a> Envelope<'a> {
    fn of(addresses: impl IntoIterator<Item = &'a Address>) -> Self {
        let mut domains: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for address in addresses {
            let recipients = domains.entry(address.domain()).or_default();
            if !recipients.contains(&address) {
                recipients.push(address);
            }
        }
        Self(domains)
    }

    fn of_delivery(delivery: &Delivery<'a, Smtp>) -> Self {
        let to = delivery.registration.to.as_slice();
        Self::of(to.iter().chain(copies(delivery.attachment)))
    }
}

fn copies(attachment: &Attachment) -> &[Address] {
    attachment
        .cc
        .as_ref()
        .map(Addresses::as_slice)
        .unwrap_or_default()
}

/// How much of an answer a receipt keeps for each recipient: all receipts together have 8 KB.
const KEPT_BYTES: usize = 80;

/// What has become of each recipient, by this attempt and those before.
struct Post<'a> {
    server: &'a Server<'a>,
    /// Receipts of those for whom it is over, by domain.
    settled: BTreeMap<String, Vec<Value>>,
    accepted: usize,
    /// Why those who do not have it do not, the most telling last.
    refused: Option<Error>,
    deferred: Option<Error>,
    unanswered: Option<Error>,
    /// Why the rest was not tried.
    stopped: Option<Error>,
}

impl<'a> Post<'a> {
    fn new(server: &'a Server<'a>, progress: &BTreeMap<String, Value>) -> Self {
        let settled: BTreeMap<_, _> = progress
            .iter()
            .filter_map(|(domain, receipt)| {
                let recipients = receipt["recipients"].as_array()?;
                Some((domain.clone(), recipients.clone()))
            })
            .collect();
        let all = settled.values().flatten();
        Self {
            server,
            accepted: all.filter(|one| one["outcome"] == "accepted").count(),
            settled,
            refused: None,
            deferred: None,
            unanswered: None,
            stopped: None,
        }
    }

    /// Those for whom it is not over.
    fn left<'b>(&self, domain: &str, recipients: &[&'b Address]) -> Vec<&'b Address> {
        let settled = self.settled.get(domain);
        let is_over = |recipient: &Address| {
            let fingerprint = recipient.fingerprint();
            settled
                .into_iter()
                .flatten()
                .any(|one| one["fingerprint"] == fingerprint.as_str())
        };
        recipients
            .iter()
            .copied()
            .filter(|recipient| !is_over(recipient))
            .collect()
    }

    /// Whether it is over for any of them, which is to be kept then.
    fn settle(&mut self, domain: &str, recipients: &[&Address], fates: Vec<Fate>) -> bool {
        let mut is_over = false;
        for (recipient, fate) in recipients.iter().zip(fates) {
            let settled = match &fate {
                Fate::Accepted(reply) => Some(("accepted", reply.shown(KEPT_BYTES))),
                Fate::Refused(Why::Said(reply)) => Some(("refused", reply.shown(KEPT_BYTES))),
                Fate::Refused(why) => Some(("refused", why.to_string())),
                Fate::Deferred(_) | Fate::Unanswered(_) => None,
            };
            if let Some((outcome, reply)) = settled {
                is_over = true;
                self.accepted += usize::from(outcome == "accepted");
                let receipt = json!({
                    "recipient": recipient.mask(),
                    "fingerprint": recipient.fingerprint(),
                    "outcome": outcome,
                    "reply": reply,
                });
                let receipts = self.settled.entry(domain.to_owned()).or_default();
                receipts.push(receipt);
            }
            let error = error(self.server, domain, recipient, &fate);
            let place = match fate {
                Fate::Accepted(_) => continue,
                Fate::Refused(_) => &mut self.refused,
                Fate::Deferred(_) => &mut self.deferred,
                Fate::Unanswered(_) => &mut self.unanswered,
            };
            *place = place.take().or(error);
        }
        is_over
    }

    fn receipt(&self, domain: &str) -> Value {
        json!({ "recipients": self.settled.get(domain) })
    }

    fn stop(&mut self, error: Error) {
        self.stopped = Some(error);
    }

    fn outcome(self, message_id: &str) -> Result<Outcome, Error> {
        let (stopped, for_good) = match self.stopped {
            Some(error) if !matches!(error.kind, Kind::Retryable { .. }) => (None, Some(error)),
            stopped => (stopped, None),
        };
        // First what another attempt does not change, then what somebody may have twice.
        let again = for_good.or(self.unanswered).or(stopped).or(self.deferred);
        if let Some(error) = again {
            return Err(error);
        }
        if self.accepted == 0 {
            let again = || Error::permanent(format!("mail by {}: refused", self.server.place));
            return Err(self.refused.unwrap_or_else(again));
        }
        let domains = self
            .settled
            .into_iter()
            .map(|(domain, recipients)| (domain, json!({ "recipients": recipients })))
            .collect::<Map<_, _>>();
        Ok(Outcome::Delivered(Map::from_iter([
            ("message_id".to_owned(), json!(message_id)),
            ("domains".to_owned(), Value::Object(domains)),
        ])))
    }
}

/// Why one recipient does not have the mail.
fn error(server: &Server<'_>, domain: &str, recipient: &Address, fate: &Fate) -> Option<Error> {
    let doing = format!("mail {} by {}", recipient.mask(), server.place);
    let (kind, reason, answer) = match fate {
        Fate::Accepted(_) => return None,
        Fate::Refused(why) => (Kind::Permanent, why.to_string(), why.answer()),
        Fate::Deferred(why) => {
            let kind = Kind::Retryable { after: None };
            (kind, why.to_string(), why.answer())
        }
        Fate::Unanswered(reason) => {
            let reason = format!("the mail for {domain} was sent, but {reason}");
            (Kind::Unanswered, reason, None)
        }
    };
    let mut error = Error::new(kind, format!("{doing}: {reason}")).about(fate.about());
    error.answer = answer;
    Some(error)
}

/// More of a text than this nobody reads in a mail.
const TEXT_BYTES: usize = 64 * 1024;
const SUBJECT_BYTES: usize = 1024;

fn message(delivery: &Delivery<'_, Smtp>, unix_secs: u64) -> Result<Vec<u8>, Error> {
    let (registration, attachment) = (delivery.registration, delivery.attachment);
    let facts = facts(delivery.attestation, delivery.workflow, None);
    let render = |template: &Template, what: &str, most: usize| {
        template
            .render(&facts, most)
            .map_err(|reason| Error::permanent(format!("write the mail's {what}: {reason}")))
    };
    let detail = Detail {
        inline_content: attachment.inline_content,
        emails: attachment.emails,
    };
    let summary = Summary::of(delivery.attestation, delivery.workflow, &detail);
    let subject = match &attachment.subject {
        Some(template) => render(template, "subject", SUBJECT_BYTES)?,
        None => subject(&summary),
    };
    let (text, links) = match &attachment.template {
        Some(template) => (render(template, "text", TEXT_BYTES)?, String::new()),
        None => (summary.text(TEXT_BYTES), links(&summary)),
    };
    let list = message::list(delivery.workflow);
    let letter = Letter {
        id: &message::id(delivery.id, &registration.from),
        unix_secs,
        from: &registration.from,
        to: registration.to.as_slice(),
        cc: copies(attachment),
        subject: &subject,
        html: &format!("{links}<pre>{}</pre>", message::escape(&text)),
        text: &text,
        list: list.as_deref(),
    };
    letter.bytes()
}

/// `[chainloop] New attestation of shop/nightly-build (Blocked: 1 violation in 2 policy evaluations)`
fn subject(summary: &Summary) -> String {
    format!("[chainloop] {} ({})", summary.title, summary.verdict)
}

fn links(summary: &Summary) -> String {
    let link = |link: &Link| {
        let (url, label) = (message::escape(&link.url), message::escape(link.label));
        format!("<p><a href=\"{url}\">{label}</a></p>\n")
    };
    summary.links.iter().map(link).collect()
}

/// As Chainloop sends one for each registration.
fn test_message(registration: &Registration, unix_secs: u64) -> Result<Vec<u8>, Error> {
    let text = format!(
        "This address has been registered to be mailed a summary of attestations.\n\n\
         Integration: {} {}\nServer: {}\nFrom: {}\n",
        Smtp::ID,
        Smtp::VERSION,
        registration.place(),
        registration.from.as_str(),
    );
    let letter = Letter {
        id: &format!("<test-{unix_secs}@{}>", registration.from.domain()),
        unix_secs,
        from: &registration.from,
        to: registration.to.as_slice(),
        cc: &[],
        subject: "[chainloop] New SMTP integration added!",
        html: &format!("<pre>{}</pre>", message::escape(&text)),
        text: &text,
        list: None,
    };
    letter.bytes()
}

#[cfg(test)]
mod tests;
