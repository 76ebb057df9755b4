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
mod inputs;
mod message;
mod outcomes;
mod reply;
mod server;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

pub use addresses::{Address, Addresses, MailHost, Port};
use attestation::{Digest, MaterialType};
use connection::Connection;
pub use inputs::{Attachment, Filled, Registration, Tls};
use outcomes::Outcomes;
use reply::{Reply, SHOWN_BYTES};
use server::{REPLY, Server, Time};
use tokio::time::Instant;

use crate::{
    Authorities, Delivery, Error, Filter, Host, Http, Integration, Locked, Outcome, Preview,
    Warnings, http,
};

#[derive(Debug)]
pub struct Smtp;

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
        registration.ca_certificates.as_ref()
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
            let message = message::test(registration, http.unix_secs())?;
            for (domain, recipients) in by_domain(registration.to.as_slice()) {
                let sent = connection.send(&registration.from, &recipients, &message, time);
                for (recipient, fate) in recipients.iter().zip(sent.await) {
                    if let Some(error) = outcomes::error(&server, domain, recipient, &fate) {
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
        if attachment.copies().iter().any(Address::needs_utf8) {
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
        let message = message::of(delivery, host.unix_secs())?;
        let server = Server::of(registration, http);
        let mut outcomes = Outcomes::new(&server, delivery.progress);
        let mut envelope = recipients(delivery);
        envelope.retain(|domain, recipients| {
            outcomes.keep_open(domain, recipients);
            !recipients.is_empty()
        });
        if !envelope.is_empty() && !has_place(host, &server).await? {
            return Ok(Outcome::busy(&server.place));
        }
        let mut connection = None;
        for (domain, recipients) in envelope {
            if Instant::now() + REPLY > time.content {
                outcomes.is_cut = true;
                break;
            }
            let mut open = match connection.take() {
                Some(open) => open,
                None => match Connection::open(&server, http, time).await {
                    Ok(open) => open,
                    Err(error) => {
                        outcomes.stopped = Some(error);
                        break;
                    }
                },
            };
            let sent = open.send(&registration.from, &recipients, &message, time);
            for step in outcomes.settle(domain, &recipients, sent.await) {
                host.record(&step.0, step.1).await?;
            }
            connection = Some(open).filter(|open| !open.is_broken());
        }
        if let Some(connection) = connection {
            connection.quit().await;
        }
        outcomes.outcome(&message::id(delivery.id, &registration.from))
    }

    async fn preview(
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Vec<Preview>, Error> {
        let message = message::of(delivery, host.unix_secs())?;
        let registration = delivery.registration;
        let scheme = match registration.tls() {
            Tls::Implicit => "smtps",
            Tls::Starttls | Tls::None => "smtp",
        };
        let text = String::from_utf8_lossy(&message[..message.len().min(http::ANSWER_BYTES)]);
        let previews = recipients(delivery).into_values().map(|recipients| {
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

/// Returns the recipients by domain, each once.
fn by_domain<'a>(
    addresses: impl IntoIterator<Item = &'a Address>,
) -> BTreeMap<&'a str, Vec<&'a Address>> {
    let mut domains: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for address in addresses {
        let recipients = domains.entry(address.domain()).or_default();
        if !recipients.contains(&address) {
            recipients.push(address);
        }
    }
    domains
}

fn recipients<'a>(delivery: &Delivery<'a, Smtp>) -> BTreeMap<&'a str, Vec<&'a Address>> {
    let to = delivery.registration.to.as_slice();
    by_domain(to.iter().chain(delivery.attachment.copies()))
}

#[cfg(test)]
mod tests;
