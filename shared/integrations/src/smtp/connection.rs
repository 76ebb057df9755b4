//! A dialogue with a mail server: how it begins, what one mail of it is, and what each answer means.
//!
//! lettre has the words; when they are said, how long each may take, and what follows from an answer is decided
//! here. Its own way to send gives a whole mail up at the first recipient that is refused, and its time limit
//! ends with the connection's making.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lettre::transport::smtp::Error as Fault;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters,
};
use lettre::transport::smtp::commands::{Data, Ehlo, Mail, Noop, Quit, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, MailParameter};
use lettre::transport::smtp::response::Response;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::wire::Wire;
use super::{Address, Registration, Tls};
use crate::{About, Answer, Error, Http, Kind, http, text};

/// Where mail is submitted. Anything else is more often somebody's other service.
const PORTS: [u16; 4] = [25, 465, 587, 2525];

/// One address of several that does not answer must not use up the time of the others.
const CONNECT: Duration = Duration::from_secs(5);

/// For the last word, which nobody waits for.
const QUIT: Duration = Duration::from_secs(1);

/// How much of an answer stands in an error's text; more of it is kept with the attempt.
const SHOWN_BYTES: usize = 256;

/// The server closes the connection, whatever it was asked.
const CLOSING: u16 = 421;

/// What a server said, fit to be shown: without secrets, control characters and addresses of people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) text: String,
}

impl Reply {
    /// `550 5.1.1 no such user`, in at most so many bytes.
    pub(super) fn shown(&self, most: usize) -> String {
        let mut shown = format!("{} {}", self.code, self.text);
        shown.truncate(shown.floor_char_boundary(most));
        shown.trim_end().to_owned()
    }

    /// By the first digit, as RFC 5321 (4.2.1) has it, and the codes that it gives a meaning of their own.
    fn is_transient(&self) -> bool {
        self.code < 500
    }

    /// What it means where it concerns the whole of a delivery.
    fn kind(&self, step: Step) -> Kind {
        match self.code {
            _ if self.is_transient() => Kind::Retryable { after: None },
            // The password may have been changed since we read it.
            535 if step == Step::Authenticate => Kind::Unauthorized,
            _ => Kind::Permanent,
        }
    }

    pub(super) fn answer(&self) -> Answer {
        Answer {
            status: self.code,
            excerpt: self.text.clone(),
        }
    }
}

/// What became of one recipient's mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted(Reply),
    /// For good.
    Refused(Why),
    /// Just now; it is tried again later.
    Deferred(Why),
    /// The mail went out, and no answer came.
    Unanswered(&'static str),
}

/// Why a recipient does not have the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    Said(Reply),
    /// What the server said of itself before any of them was named.
    TooLarge {
        size_bytes: usize,
        limit: usize,
    },
    Broken(&'static str),
}

impl Why {
    pub(super) fn answer(&self) -> Option<Answer> {
        match self {
            Self::Said(reply) => Some(reply.answer()),
            Self::TooLarge { .. } | Self::Broken(_) => None,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(reply) => write!(f, "answered {}", reply.shown(SHOWN_BYTES)),
            Self::TooLarge { size_bytes, limit } => write!(
                f,
                "the mail has {size_bytes} bytes, and the server takes {limit} at most"
            ),
            Self::Broken(reason) => f.write_str(reason),
        }
    }
}

impl Fate {
    fn of(trouble: &Trouble) -> Self {
        match trouble {
            Trouble::Said(reply) if reply.is_transient() => {
                Self::Deferred(Why::Said(reply.clone()))
            }
            Trouble::Said(reply) => Self::Refused(Why::Said(reply.clone())),
            Trouble::Broken { reason, .. } => Self::Deferred(Why::Broken(reason)),
        }
    }

    /// A server that asks for another try of one mail, as greylisting does, takes others meanwhile. In trouble
    /// itself it says 421.
    pub(super) fn about(&self) -> About {
        match self {
            Self::Deferred(Why::Said(reply)) if reply.code != CLOSING => About::Delivery,
            _ => About::Destination,
        }
    }
}

/// Why a step was not taken.
#[derive(Debug)]
enum Trouble {
    Said(Reply),
    /// No answer that could be understood.
    Broken {
        reason: &'static str,
        is_permanent: bool,
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

const LATE: Trouble = Trouble::Broken {
    reason: "no answer in time",
    is_permanent: false,
    source: None,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    Encrypt,
    Authenticate,
    Greet,
}

impl Step {
    /// Completes "failed to …", in front of the server's name.
    fn doing(self) -> &'static str {
        match self {
            Self::Connect => "reach",
            Self::Encrypt => "speak TLS with",
            Self::Authenticate => "log in at",
            Self::Greet => "speak with",
        }
    }
}

/// The server of a registration, and what must not be shown of its answers.
#[derive(Debug)]
pub(super) struct Server<'a> {
    registration: &'a Registration,
    /// `smtp.example.org:587`
    pub(super) place: String,
    secrets: Secrets,
}

/// The password in each form that it travels in.
struct Secrets(Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Secrets {
    fn of(registration: &Registration) -> Self {
        let Some((user, password)) = registration.credentials() else {
            return Self(Vec::new());
        };
        let base64 = |text: &str| base64_simd::STANDARD.encode_to_string(text);
        Self(vec![
            password.to_owned(),
            base64(password),
            base64(&format!("\0{user}\0{password}")),
        ])
    }
}

impl<'a> Server<'a> {
    pub(super) fn of(registration: &'a Registration) -> Self {
        Self {
            registration,
            place: registration.place(),
            secrets: Secrets::of(registration),
        }
    }

    fn reply(&self, code: u16, text: &str) -> Reply {
        let secrets: Vec<&str> = self.secrets.0.iter().map(String::as_str).collect();
        let excerpt = http::excerpt(text.as_bytes(), &secrets);
        Reply {
            code,
            text: text::without_addresses(&excerpt).into_owned(),
        }
    }

    fn trouble(&self, fault: Fault) -> Trouble {
        if let Some(code) = fault.status() {
            let text = fault.source().map(ToString::to_string);
            return Trouble::Said(self.reply(code.into(), &text.unwrap_or_default()));
        }
        let (reason, is_permanent) = if fault.is_response() {
            // Also what lettre says when the connection was closed.
            ("the connection ended without a proper answer", false)
        } else {
            reason(&fault)
        };
        Trouble::Broken {
            reason,
            is_permanent,
            source: Some(fault.into()),
        }
    }

    fn error(&self, step: Step, trouble: Trouble) -> Error {
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

    fn broken(&self, step: Step, error: io::Error) -> Error {
        let (reason, is_permanent) = reason(&error);
        let source: Option<Box<dyn StdError + Send + Sync>> = Some(error.into());
        let trouble = Trouble::Broken {
            reason,
            is_permanent,
            source,
        };
        self.error(step, trouble)
    }

    /// Connects, encrypts, logs in: all that can be done without a mail.
    pub(super) async fn open(&self, http: &Http, until: Instant) -> Result<Connection<'_>, Error> {
        let tcp = self.connect(http, until).await?;
        let hello = match tcp.local_addr().map(|address| address.ip()) {
            Ok(IpAddr::V4(address)) => ClientId::Ipv4(address),
            Ok(IpAddr::V6(address)) => ClientId::Ipv6(address),
            Err(_) => ClientId::default(),
        };
        let wire = match self.registration.tls() {
            Tls::Implicit => self.encrypt(http, tcp, until).await?,
            Tls::Starttls | Tls::None => Wire::plain(tcp),
        };
        let greeted = AsyncSmtpConnection::connect_with_transport(Box::new(wire), &hello);
        let mut smtp = self.within(until, Step::Greet, greeted).await?;
        if self.registration.tls() == Tls::Starttls {
            if !smtp.can_starttls() {
                let text = format!("speak TLS with {}: it does not offer STARTTLS", self.place);
                return Err(Error::permanent(text));
            }
            let tls = self.tls_parameters(http)?;
            let encrypted = smtp.starttls(tls, &hello);
            self.within(until, Step::Encrypt, encrypted).await?;
        }
        if let Some((user, password)) = self.registration.credentials() {
            const KNOWN: &[Mechanism] = &[Mechanism::Plain, Mechanism::Login];
            if smtp.server_info().get_auth_mechanism(KNOWN).is_none() {
                let text = format!(
                    "log in at {}: it does not offer AUTH by PLAIN or LOGIN, but the registration has a password",
                    self.place
                );
                return Err(Error::permanent(text));
            }
            let credentials = Credentials::new(user.to_owned(), password.to_owned());
            let authenticated = smtp.auth(KNOWN, &credentials);
            self.within(until, Step::Authenticate, authenticated)
                .await?;
        }
        // Asked once more because lettre does not keep the SIZE, and because a server may allow more to those
        // whom it knows.
        let asked = smtp.command(Ehlo::new(hello));
        let said = self.within(until, Step::Greet, asked).await?;
        Ok(Connection {
            server: self,
            size: size(&said),
            smtp,
            is_broken: false,
        })
    }

    async fn within<T>(
        &self,
        until: Instant,
        step: Step,
        future: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Error> {
        match timeout_at(until, future).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(fault)) => Err(self.error(step, self.trouble(fault))),
            Err(_) => Err(self.error(step, LATE)),
        }
    }

    /// To the first of the host's addresses that takes it.
    async fn connect(&self, http: &Http, until: Instant) -> Result<TcpStream, Error> {
        let (host, port) = (&self.registration.host, self.registration.port);
        let addresses = http.resolve(host.host(), port.0, &PORTS).await?;
        let is_private = || addresses.iter().all(|address| address.ip().is_loopback());
        if self.registration.tls() == Tls::None
            && self.registration.credentials().is_some()
            && !is_private()
        {
            // Loopback is let through in local mode alone.
            let text = format!(
                "log in at {}: a password is not sent without TLS; choose `starttls` or `implicit`",
                self.place
            );
            return Err(Error::permanent(text));
        }
        let mut failed = None;
        for address in addresses {
            match try_address(address, until).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(error),
            }
        }
        let none = || io::Error::from(io::ErrorKind::NotFound);
        Err(self.broken(Step::Connect, failed.unwrap_or_else(none)))
    }

    async fn encrypt(&self, http: &Http, tcp: TcpStream, until: Instant) -> Result<Wire, Error> {
        let name = ServerName::try_from(self.registration.host.name())
            .map_err(|_| Error::permanent(format!("speak TLS with {}: its name", self.place)))?;
        let connector = TlsConnector::from(http.tls());
        match timeout_at(until, connector.connect(name, tcp)).await {
            Ok(Ok(stream)) => Ok(Wire::encrypted(stream)),
            Ok(Err(error)) => Err(self.broken(Step::Encrypt, error)),
            Err(_) => Err(self.error(Step::Encrypt, LATE)),
        }
    }

    fn tls_parameters(&self, http: &Http) -> Result<TlsParameters, Error> {
        let unusable = |fault: Fault| self.error(Step::Encrypt, self.trouble(fault));
        let mut parameters = TlsParameters::builder(self.registration.host.name())
            .certificate_store(CertificateStore::WebpkiRoots);
        for root in http.roots() {
            let root = Certificate::from_der(root.to_vec()).map_err(unusable)?;
            parameters = parameters.add_root_certificate(root);
        }
        parameters.build_rustls().map_err(unusable)
    }
}

async fn try_address(address: SocketAddr, until: Instant) -> io::Result<TcpStream> {
    let until = until.min(Instant::now() + CONNECT);
    match timeout_at(until, TcpStream::connect(address)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// What broke, and whether it will break again.
fn reason(error: &(dyn StdError + 'static)) -> (&'static str, bool) {
    let mut cause = Some(error);
    let mut reason = ("the connection broke", false);
    while let Some(current) = cause {
        let mut inner = current.downcast_ref::<rustls::Error>();
        if let Some(error) = current.downcast_ref::<io::Error>() {
            // What an `io::Error` was made of is not its source.
            inner = inner.or_else(|| error.get_ref()?.downcast_ref());
            reason = match error.kind() {
                io::ErrorKind::ConnectionRefused => ("connection refused", false),
                io::ErrorKind::TimedOut => ("no connection in time", false),
                io::ErrorKind::NotFound => ("it has no address", false),
                io::ErrorKind::InvalidData => ("the TLS handshake failed", false),
                _ => reason,
            };
        }
        match inner {
            Some(rustls::Error::InvalidCertificate(_)) => {
                return ("its certificate is not valid for it", true);
            }
            Some(_) => reason = ("the TLS handshake failed", false),
            None => {}
        }
        cause = current.source();
    }
    reason
}

/// The size of a mail that the server takes at most, if it knows of sizes (RFC 1870).
fn size(said: &Response) -> Option<usize> {
    said.message().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_size = words.next()?.eq_ignore_ascii_case("SIZE");
        let limit = words.next().and_then(|limit| limit.parse().ok());
        // Zero, or none at all: it knows no limit.
        let limit = limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        is_size.then_some(limit)
    })
}

/// A server that has let us in.
pub(super) struct Connection<'a> {
    server: &'a Server<'a>,
    smtp: AsyncSmtpConnection,
    /// Of a mail at most, if it knows SIZE.
    size: Option<usize>,
    is_broken: bool,
}

impl Connection<'_> {
    /// Nothing more can be sent through it.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken || self.smtp.has_broken()
    }

    /// Asks for nothing, to see that the server listens to those who have logged in.
    pub(super) async fn noop(&mut self, until: Instant) -> Result<(), Error> {
        let asked = self.smtp.command(Noop);
        self.server.within(until, Step::Greet, asked).await?;
        Ok(())
    }

    pub(super) async fn quit(mut self) {
        let until = Instant::now() + QUIT;
        // Whatever it says, we are done.
        let _ = timeout_at(until, self.smtp.command(Quit)).await;
    }

    /// One mail to some of its recipients: what became of each, in their order.
    pub(super) async fn send(
        &mut self,
        from: &Address,
        recipients: &[&Address],
        message: &[u8],
        until: Instant,
    ) -> Vec<Fate> {
        let size_bytes = message.len();
        let mut parameters = Vec::new();
        if let Some(limit) = self.size {
            parameters.push(MailParameter::Size(size_bytes));
            if limit < size_bytes {
                let refused = Fate::Refused(Why::TooLarge { size_bytes, limit });
                return vec![refused; recipients.len()];
            }
        }
        let mail = Mail::new(Some(from.envelope().clone()), parameters);
        if let Err(trouble) = self.command(mail, until).await {
            return vec![Fate::of(&trouble); recipients.len()];
        }
        let mut fates: Vec<Option<Fate>> = Vec::new();
        for recipient in recipients {
            let rcpt = Rcpt::new(recipient.envelope().clone(), Vec::new());
            let fate = match self.command(rcpt, until).await {
                Ok(_) => None,
                Err(trouble) => Some(Fate::of(&trouble)),
            };
            fates.push(fate);
            if self.is_broken() {
                break;
            }
        }
        let gone = || Fate::Deferred(Why::Broken("the connection broke"));
        let rest = match fates.contains(&None) {
            _ if self.is_broken() => fates.last().cloned().flatten().unwrap_or_else(gone),
            true => self.content(message, until).await,
            false => gone(),
        };
        if !matches!(rest, Fate::Accepted(_)) && !self.is_broken() {
            // The server may be waiting for this mail to go on.
            let _ = self.command(Rset, until).await;
        }
        fates.resize(recipients.len(), None);
        fates
            .into_iter()
            .map(|fate| fate.unwrap_or_else(|| rest.clone()))
            .collect()
    }

    /// The mail itself, for those recipients that were taken.
    async fn content(&mut self, message: &[u8], until: Instant) -> Fate {
        if let Err(trouble) = self.command(Data, until).await {
            return Fate::of(&trouble);
        }
        // lettre ends the last line once more.
        let message = message.strip_suffix(b"\r\n").unwrap_or(message);
        let said = timeout_at(until, self.smtp.message(message)).await;
        match self.settle(said) {
            Ok(reply) => Fate::Accepted(reply),
            Err(Trouble::Broken { reason, .. }) => Fate::Unanswered(reason),
            Err(trouble) => Fate::of(&trouble),
        }
    }

    async fn command(
        &mut self,
        command: impl fmt::Display,
        until: Instant,
    ) -> Result<Reply, Trouble> {
        let said = timeout_at(until, self.smtp.command(command)).await;
        self.settle(said)
    }

    fn settle(
        &mut self,
        said: Result<Result<Response, Fault>, tokio::time::error::Elapsed>,
    ) -> Result<Reply, Trouble> {
        let trouble = match said {
            Ok(Ok(response)) => {
                let text: Vec<&str> = response.message().collect();
                let reply = self.server.reply(response.code().into(), &text.join(" "));
                return Ok(reply);
            }
            Ok(Err(fault)) => self.server.trouble(fault),
            Err(_) => LATE,
        };
        self.is_broken |= match &trouble {
            Trouble::Said(reply) => reply.code == CLOSING,
            Trouble::Broken { .. } => true,
        };
        Err(trouble)
    }
}
