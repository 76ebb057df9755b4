//! Server of a registration: how it is reached and encrypted, and how long a dialogue with it may take.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::reply::{LATE, Reply, SHOWN_BYTES, Step, Trouble};
use super::wire::{Stream, Wire};
use super::{Registration, Tls};
use crate::http::is_local;
use crate::{Error, Http, Kind, Redactor, text};

/// Ports of mail servers. Anything else is more often somebody's other service.
const PORTS: [u16; 6] = [25, 465, 587, 2465, 2525, 2587];

/// Time for the name and all of its addresses.
const CONNECT: Duration = Duration::from_secs(30);

/// Timeout of each reply but the last.
pub(super) const REPLY: Duration = Duration::from_secs(30);

/// Timeout of the reply to a mail's content: a server may scan the mail before it takes it.
const VERDICT: Duration = Duration::from_secs(90);

/// Time that a dialogue has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    /// A mail's content is not sent later than this.
    pub(super) content: Instant,
    pub(super) end: Instant,
}

impl Time {
    /// Returns the time of a dialogue without a mail.
    pub(super) fn until(end: Instant) -> Self {
        Self { content: end, end }
    }

    pub(super) fn reply(self) -> Instant {
        self.content.min(Instant::now() + REPLY)
    }

    pub(super) fn verdict(self) -> Instant {
        self.end.min(Instant::now() + VERDICT)
    }
}

/// The server of a registration.
#[derive(Debug)]
pub(super) struct Server<'a> {
    pub(super) registration: &'a Registration,
    /// `smtp.example.org:587`
    pub(super) place: String,
    redactor: Redactor,
}

impl<'a> Server<'a> {
    pub(super) fn of(registration: &'a Registration, http: &Http) -> Self {
        Self {
            registration,
            place: registration.place(),
            redactor: http.redactor().clone(),
        }
    }

    pub(super) fn reply(&self, code: u16, text: &str) -> Reply {
        let excerpt = self.redactor.excerpt(text.as_bytes());
        Reply {
            code,
            text: text::without_addresses(&excerpt).into_owned(),
        }
    }

    pub(super) fn error(&self, step: Step, trouble: Trouble) -> Error {
        let (doing, place) = (step.doing(), &self.place);
        match trouble {
            Trouble::Said(reply) => {
                let text = format!("{doing} {place}: answered {}", reply.shown(SHOWN_BYTES));
                Error::new(reply.kind(step), text).answer(reply.answer())
            }
            Trouble::Broken {
                reason,
                is_permanent,
                source,
            } => {
                let kind = match is_permanent {
                    true => Kind::Permanent,
                    false => Kind::Retryable { after: None },
                };
                let mut error = Error::new(kind, format!("{doing} {place}: {reason}"));
                error.source = source;
                error
            }
        }
    }

    pub(super) async fn connect(&self, http: &Http, time: Time) -> Result<TcpStream, Error> {
        let (host, port) = (&self.registration.host, self.registration.port);
        if self.registration.tls() == Tls::None
            && self.registration.credentials().is_some()
            && !is_local(host.host())
        {
            // Loopback is let through in local mode alone.
            let text = format!(
                "log in at {}: a password is not sent without TLS; choose `starttls` or `implicit`",
                self.place
            );
            return Err(Error::permanent(text));
        }
        let until = time.content.min(Instant::now() + CONNECT);
        let dialed = http.dial(host.host(), port.0, &PORTS, until).await;
        dialed.map_err(|failure| failure.error(&self.place).source(failure))
    }

    pub(super) async fn encrypt(
        &self,
        http: &Http,
        stream: impl Stream + 'static,
        time: Time,
    ) -> Result<Wire, Error> {
        let name = ServerName::try_from(self.registration.host.name())
            .map_err(|_| Error::permanent(format!("speak TLS with {}: its name", self.place)))?;
        let connector = TlsConnector::from(http.tls());
        match timeout_at(time.reply(), connector.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(Wire::new(stream)),
            Ok(Err(error)) => Err(self.error(Step::Encrypt, error.into())),
            Err(_) => Err(self.error(Step::Encrypt, LATE)),
        }
    }
}
