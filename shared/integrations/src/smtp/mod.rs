//! Mails a summary of each attestation, through a server of the organization's own.
//!
//! Recipients are told apart. Each domain's get a mail of their own, to which they are asked one by one, so that
//! a wrong address or a busy server keeps the mail from nobody else, and a repeat goes to those alone who do not
//! have it. The mail's `Message-ID` stays the same when it is repeated.
//!
//! # Receipt
//!
//! Of each recipient's domain the mail's `Message-ID`, and what the server said of each recipient, whose name is
//! masked.
//!
//! # Limits
//!
//! The server's own SIZE. 30 s for each reply, and 60 to 90 s for the one to a mail's content. Two connections at a
//! time for each registration. Addresses with letters beyond ASCII need a server that offers SMTPUTF8.
//!
//! # Failures
//!
//! - no reply to a mail's content: it may have arrived, and is sent once more and no third time.
//! - 535: user and password are not right, or not any more. Mend it with `registered rotate`.
//! - 530: the server wants a login or encryption that this registration does not have.
//! - 550, 551, 553: it does not know or take a recipient; the others get the mail all the same.
//! - 552, 554: it refuses the mail for its size or content.
//! - 421, 450, 451, 452, 454: busy or greylisting; tried again, for those recipients alone.
//! - no STARTTLS offered, certificate not trusted: fails; choose another port or `tls`, or name the authority in
//!   `ca_certificates`.

mod addresses;
mod connection;
mod message;
mod reply;
mod server;
mod wire;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use attestation::{Digest, MaterialType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::summary::{Detail, Link, Summary};
use crate::{
    Authorities, Delivery, Error, Filter, Host, Http, Integration, Kind, Locked, Outcome, Preview,
    SecretText, Template, Warnings, facts, http,
};
pub use addresses::{Address, Addresses, MailHost, Port};
use connection::Connection;
use message::Letter;
use reply::{Fate, Reply, SHOWN_BYTES, Why};
use server::{REPLY, Server, Time};

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
    fn tls(&self) -> Tls {
        self.tls.unwrap_or(match self.port.0 {
            465 | 2465 => Tls::Implicit,
            _ => Tls::Starttls,
        })
    }

    fn credentials(&self) -> Option<(&str, &str)> {
        let (user, password) = (self.user.as_ref()?, self.password.as_ref()?);
        Some((user, password.expose()))
    }

    /// Name of ours in a greeting. The address of a function says nothing to anybody.
    fn greeting_name(&self) -> String {
        match &self.ehlo_name {
            Some(name) => name.literal(),
            None => self.from.domain().to_owned(),
        }
    }

    /// Host and port, as they are shown.
    fn place(&self) -> String {
        format!("{}:{}", self.host, self.port.0)
    }
}

/// Time of a check: somebody waits for it.
const CHECK: Duration = Duration::from_secs(22);
/// Time of an attempt, less than its deadline, so that what was done is written down before.
const ATTEMPT: Duration = Duration::from_secs(116);
/// Time that is kept for the server's verdict on a mail; there is more where the dialogue before was short.
const VERDICT_LEAST: Duration = Duration::from_mins(1);
/// Connections to one server at a time, of one registration over all functions: many servers take no more from one
/// client.
const CONNECTIONS: u32 = 2;

impl Integration for Smtp {
    const ID: &'static str = "smtp";
    const VERSION: &'static str = "1.0";
    const DESCRIPTION: &'static str = "Send emails with information about a received attestation";
    const MATERIALS: &'static [MaterialType] = &[];
    const TAKES_LONG: bool = true;

    type Registration = Registration;
    type Attachment = Attachment;

    fn authorities(registration: &Registration) -> Option<&Authorities> {
        registration.0.ca_certificates.as_ref()
    }

    fn filter(attachment: &Attachment) -> Option<&Filter> {
        attachment.filter.as_ref()
    }

    /// Logs in and names the sender, and sends no mail unless it is asked to.
    async fn register(http: &Http, registration: &Registration) -> Result<Warnings, Error> {
        let time = Time::until(Instant::now() + CHECK);
        let server = Server::of(registration, http);
        let mut connection = Connection::open(&server, http, time).await?;
        let addresses = registration.to.as_slice().iter();
        if addresses
            .chain([&registration.from])
            .any(Address::needs_utf8)
        {
            connection.check_utf8()?;
        }
        let refused = connection.try_sender(&registration.from, time).await?;
        let warnings = refused.map(|reply| doubt(registration, &reply));
        if registration.send_test_message {
            let message = test_message(registration, http.unix_secs())?;
            let envelope = Envelope::of(registration.to.as_slice());
            for (domain, recipients) in envelope.0 {
                let sent = connection.send(&registration.from, &recipients, &message, time);
                for (recipient, fate) in recipients.iter().zip(sent.await) {
                    if let Some(error) = error(&server, domain, recipient, &fate) {
                        return Err(error);
                    }
                }
            }
        }
        connection.quit().await;
        Ok(warnings.into_iter().collect())
    }

    /// Asks nothing, unless a copy goes to an address that not every server takes.
    async fn attach(
        http: &Http,
        registration: &Registration,
        attachment: &Attachment,
    ) -> Result<Warnings, Error> {
        if copies(attachment).iter().any(Address::needs_utf8) {
            let time = Time::until(Instant::now() + CHECK);
            let server = Server::of(registration, http);
            let connection = Connection::open(&server, http, time).await?;
            connection.check_utf8()?;
            connection.quit().await;
        }
        Ok(Warnings::new())
    }

    async fn deliver(
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Outcome, Error> {
        let end = Instant::now() + ATTEMPT;
        let time = Time {
            content: end - VERDICT_LEAST,
            end,
        };
        let registration = delivery.registration;
        let message = message(delivery, host.unix_secs())?;
        let server = Server::of(registration, http);
        let mut post = Post::new(&server, delivery.progress);
        let mut envelope = Envelope::of_delivery(delivery).0;
        envelope.retain(|domain, recipients| {
            post.keep_open(domain, recipients);
            !recipients.is_empty()
        });
        if !envelope.is_empty() && !has_place(host, &server).await? {
            return Ok(Outcome::busy(&server.place));
        }
        let mut connection = None;
        for (domain, recipients) in envelope {
            if Instant::now() + REPLY > time.content {
                post.is_cut = true;
                break;
            }
            let mut open = match connection.take() {
                Some(open) => open,
                None => match Connection::open(&server, http, time).await {
                    Ok(open) => open,
                    Err(error) => {
                        post.stopped = Some(error);
                        break;
                    }
                },
            };
            let sent = open.send(&registration.from, &recipients, &message, time);
            for step in post.settle(domain, &recipients, sent.await) {
                host.record(&step.0, step.1).await?;
            }
            connection = Some(open).filter(|open| !open.is_broken());
        }
        if let Some(connection) = connection {
            connection.quit().await;
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

/// Doubt about a registration whose server refuses the sender.
fn doubt(registration: &Registration, reply: &Reply) -> String {
    let wants_tls = reply.text.to_ascii_uppercase().contains("TLS");
    let advice = match &registration.user {
        _ if wants_tls && registration.tls() == Tls::None => {
            "; it wants encryption: choose tls=starttls"
        }
        None => "; it may want a login: add user and password",
        Some(_) => "",
    };
    format!(
        "{} refuses mail from {}: answered {}{advice}",
        registration.place(),
        registration.from.mask(),
        reply.shown(SHOWN_BYTES)
    )
}

/// Takes one of the server's places, which is let go of at the attempt's end.
async fn has_place(host: &dyn Host, server: &Server<'_>) -> Result<bool, Error> {
    for number in 1..=CONNECTIONS {
        let name = format!("{} {number}", server.place);
        if matches!(host.lock(&name).await?, Locked::Ours(_)) {
            return Ok(true);
        }
    }
    Ok(false)
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

/// Outcomes of a recipient in a receipt.
const ACCEPTED: &str = "accepted";
const REFUSED: &str = "refused";
/// Nobody knows whether the mail arrived.
const UNKNOWN: &str = "unknown";

/// Bytes of a reply that a receipt keeps for each recipient: all receipts together have 8 KB.
const KEPT_BYTES: usize = 80;

/// Most recipients without the mail that a note names.
const NAMED: usize = 4;

/// Begin of the step that is kept when no reply came to a domain's mail; no domain has a space.
const UNANSWERED: &str = "unanswered ";

/// Outcome for each recipient, by this attempt and those before.
struct Post<'a> {
    server: &'a Server<'a>,
    progress: &'a BTreeMap<String, Value>,
    /// Receipts of those for whom it is over, by domain.
    settled: BTreeMap<String, Vec<Value>>,
    /// First error of each kind, the most telling last.
    refused: Option<Error>,
    deferred: Option<Error>,
    unanswered: Option<Error>,
    /// Error that ended the attempt early.
    stopped: Option<Error>,
    /// The rest is for another attempt, for want of time.
    is_cut: bool,
}

impl<'a> Post<'a> {
    fn new(server: &'a Server<'a>, progress: &'a BTreeMap<String, Value>) -> Self {
        let settled = progress.iter().filter_map(|(domain, receipt)| {
            let recipients = receipt["recipients"].as_array()?;
            Some((domain.clone(), recipients.clone()))
        });
        Self {
            server,
            progress,
            settled: settled.collect(),
            refused: None,
            deferred: None,
            unanswered: None,
            stopped: None,
            is_cut: false,
        }
    }

    /// Keeps those for whom it is not over.
    fn keep_open(&self, domain: &str, recipients: &mut Vec<&Address>) {
        let settled = self.settled.get(domain).map(Vec::as_slice);
        recipients.retain(|recipient| {
            let fingerprint = recipient.fingerprint();
            let mut settled = settled.unwrap_or_default().iter();
            !settled.any(|one| one["fingerprint"] == fingerprint.as_str())
        });
    }

    /// Returns the steps that are to be kept: for whom it is over, and that nobody knows whether a mail arrived.
    fn settle(
        &mut self,
        domain: &str,
        recipients: &[&Address],
        fates: Vec<Fate>,
    ) -> Vec<(String, Value)> {
        let unanswered = format!("{UNANSWERED}{domain}");
        let is_repeat = self.progress.contains_key(&unanswered);
        let mut steps = BTreeMap::new();
        for (recipient, fate) in recipients.iter().zip(fates) {
            let fate = match fate {
                Fate::Indeterminate(reason) if is_repeat => Fate::Lost(reason),
                fate => fate,
            };
            let settled = match &fate {
                Fate::Accepted(reply) => Some((ACCEPTED, reply.shown(KEPT_BYTES))),
                Fate::Refused(Why::Said(reply)) => Some((REFUSED, reply.shown(KEPT_BYTES))),
                Fate::Refused(why) => Some((REFUSED, why.to_string())),
                Fate::Lost(reason) => Some((UNKNOWN, (*reason).to_owned())),
                Fate::Indeterminate(_) => {
                    steps.insert(unanswered.clone(), json!(true));
                    None
                }
                Fate::Deferred(_) => None,
            };
            if let Some((outcome, reply)) = settled {
                let receipts = self.settled.entry(domain.to_owned()).or_default();
                receipts.push(json!({
                    "recipient": recipient.mask(),
                    "fingerprint": recipient.fingerprint(),
                    "outcome": outcome,
                    "reply": reply,
                }));
                steps.insert(domain.to_owned(), json!({ "recipients": receipts }));
            }
            let error = error(self.server, domain, recipient, &fate);
            let place = match fate {
                Fate::Accepted(_) => continue,
                Fate::Refused(_) | Fate::Lost(_) => &mut self.refused,
                Fate::Deferred(_) => &mut self.deferred,
                Fate::Indeterminate(_) => &mut self.unanswered,
            };
            *place = place.take().or(error);
        }
        steps.into_iter().collect()
    }

    fn count(&self, outcome: &str) -> usize {
        let all = self.settled.values().flatten();
        all.filter(|one| one["outcome"] == outcome).count()
    }

    fn outcome(self, message_id: &str) -> Result<Outcome, Error> {
        let (accepted, note) = (self.count(ACCEPTED), self.note());
        let (stopped, for_good) = match self.stopped {
            Some(error) if !matches!(error.kind, Kind::Retryable { .. }) => (None, Some(error)),
            stopped => (stopped, None),
        };
        // First what another attempt does not change, then what somebody may have twice.
        let again = for_good.or(self.unanswered).or(stopped).or(self.deferred);
        if let Some(error) = again {
            return Err(error);
        }
        if self.is_cut {
            return Ok(Outcome::ContinueAfter {
                delay: Duration::from_secs(1),
                reason: format!("{} is slow; the other domains follow", self.server.place),
            });
        }
        if accepted == 0 {
            let again = || Error::permanent(format!("mail by {}: refused", self.server.place));
            return Err(self.refused.unwrap_or_else(again));
        }
        let is_repeat = self
            .progress
            .keys()
            .any(|step| step.starts_with(UNANSWERED));
        let domains = self
            .settled
            .into_iter()
            .map(|(domain, recipients)| (domain, json!({ "recipients": recipients })))
            .collect::<Map<_, _>>();
        let mut receipt = Map::from_iter([
            ("message_id".to_owned(), json!(message_id)),
            ("domains".to_owned(), Value::Object(domains)),
        ]);
        if is_repeat {
            receipt.insert("possibly_duplicated".to_owned(), json!(true));
        }
        Ok(match note {
            Some(note) => Outcome::PartlyDelivered { receipt, note },
            None => Outcome::Delivered(receipt),
        })
    }

    /// `accepted for 1 of 2 recipients; a…@example.org refused: 550 5.1.1 unknown`
    fn note(&self) -> Option<String> {
        let all = self.settled.values().flatten();
        let without: Vec<_> = all.filter(|one| one["outcome"] != ACCEPTED).collect();
        if without.is_empty() {
            return None;
        }
        let (accepted, count) = (
            self.count(ACCEPTED),
            self.settled.values().flatten().count(),
        );
        let mut note = format!("accepted for {accepted} of {count} recipients");
        for one in without.iter().take(NAMED) {
            let text = |field: &str| one[field].as_str().unwrap_or_default();
            let [recipient, outcome, reply] = ["recipient", "outcome", "reply"].map(text);
            write!(note, "; {recipient} {outcome}: {reply}").expect("a string takes all");
        }
        if without.len() > NAMED {
            let more = without.len() - NAMED;
            write!(note, "; and {more} more").expect("a string takes all");
        }
        Some(note)
    }
}

/// Returns the reason why one recipient does not have the mail.
fn error(server: &Server<'_>, domain: &str, recipient: &Address, fate: &Fate) -> Option<Error> {
    let doing = format!("mail {} by {}", recipient.mask(), server.place);
    let (kind, reason, answer) = match fate {
        Fate::Accepted(_) => return None,
        Fate::Refused(why) => (Kind::Permanent, why.to_string(), why.answer()),
        Fate::Deferred(why) => {
            let kind = Kind::Retryable { after: None };
            (kind, why.to_string(), why.answer())
        }
        Fate::Indeterminate(reason) => {
            let reason = format!("the mail for {domain} was sent, but {reason}");
            (Kind::Indeterminate, reason, None)
        }
        Fate::Lost(reason) => {
            let reason = format!(
                "the mail for {domain} was sent, but {reason}, for the second time: it may have arrived twice, once or not at all"
            );
            (Kind::Permanent, reason, None)
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
