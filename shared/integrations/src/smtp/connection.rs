//! A dialogue with a mail server (RFC 5321, 3207, 4954): how it begins, one mail of it, and the meaning of each reply.
//!
//! Written here rather than taken from lettre, whose connection gives a whole mail up at the first recipient that is
//! refused, keeps nothing of a reply to EHLO but a few names, and has no way on where a server refuses one.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::wire::{self, Lines, Stream, Unread, Wire};
use super::{Address, Registration, Tls};
use crate::http::{is_local, tls};
use crate::{About, Answer, Error, Http, Kind, Redactor, text};

/// Ports of mail servers. Anything else is more often somebody's other service.
const PORTS: [u16; 6] = [25, 465, 587, 2465, 2525, 2587];

/// Time for the name and all of its addresses.
const CONNECT: Duration = Duration::from_secs(30);

/// Timeout of each reply but the last.
pub(super) const REPLY: Duration = Duration::from_secs(30);

/// Timeout of the reply to a mail's content: a server may scan the mail before it takes it.
const VERDICT: Duration = Duration::from_secs(90);

/// Timeout of the last word, which nobody waits for.
const QUIT: Duration = Duration::from_secs(1);

/// Longest reply in an error's text; the attempt keeps more of it.
pub(super) const SHOWN_BYTES: usize = 256;

/// Longest command line without its end (RFC 5321, 4.5.3.1.4).
const COMMAND_BYTES: usize = 510;

/// The server closes the connection, whatever it was asked.
const CLOSING: u16 = 421;

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

    fn reply(self) -> Instant {
        self.content.min(Instant::now() + REPLY)
    }

    fn verdict(self) -> Instant {
        self.end.min(Instant::now() + VERDICT)
    }
}

/// Reply fit to be shown: without secrets, control characters and addresses of people.
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

    /// Returns whether the same may be accepted later (RFC 5321, 4.2.1).
    fn is_transient(&self) -> bool {
        self.code < 500
    }

    /// Returns the kind of a failure that concerns the whole delivery.
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

/// Outcome of the mail for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted(Reply),
    /// Refused for good.
    Refused(Why),
    /// Refused for now; a later attempt tries again.
    Deferred(Why),
    /// The mail went out, and no reply came.
    Indeterminate(&'static str),
    /// [`Indeterminate`](Self::Indeterminate) for the second time: nobody tries again.
    Lost(&'static str),
}

const NOT_ASCII: &str =
    "an address has letters beyond ASCII, for which the server does not offer SMTPUTF8";

/// Reason why a recipient does not have the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    Said(Reply),
    /// The mail exceeds the size that the server offers.
    TooLarge {
        size_bytes: usize,
        limit: usize,
    },
    /// An address has letters beyond ASCII, and the server does not offer SMTPUTF8.
    NotAscii,
    Broken(&'static str),
}

impl Why {
    pub(super) fn answer(&self) -> Option<Answer> {
        match self {
            Self::Said(reply) => Some(reply.answer()),
            Self::TooLarge { .. } | Self::NotAscii | Self::Broken(_) => None,
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
            Self::NotAscii => f.write_str(NOT_ASCII),
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

/// Failure of a step.
#[derive(Debug)]
enum Trouble {
    Said(Reply),
    /// No reply, or none that could be understood.
    Broken {
        reason: &'static str,
        is_permanent: bool,
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

impl Trouble {
    const fn broken(reason: &'static str) -> Self {
        Self::Broken {
            reason,
            is_permanent: false,
            source: None,
        }
    }
}

const LATE: Trouble = Trouble::broken("no reply in time");

impl From<Unread> for Trouble {
    fn from(unread: Unread) -> Self {
        let (reason, is_permanent) = match &unread {
            Unread::Ended => ("the connection ended without a reply", false),
            Unread::Endless => ("the reply does not end", false),
            Unread::Malformed => ("the reply is not one of a mail server", false),
            Unread::Broken(error) => reason(error),
        };
        Self::Broken {
            reason,
            is_permanent,
            source: Some(unread.into()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Encrypt,
    Authenticate,
    Greet,
}

impl Step {
    /// Completes "failed to …", in front of the server's name.
    fn doing(self) -> &'static str {
        match self {
            Self::Encrypt => "speak TLS with",
            Self::Authenticate => "log in at",
            Self::Greet => "speak with",
        }
    }
}

/// The server of a registration.
#[derive(Debug)]
pub(super) struct Server<'a> {
    registration: &'a Registration,
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

    fn reply(&self, code: u16, text: &str) -> Reply {
        let excerpt = self.redactor.excerpt(text.as_bytes());
        Reply {
            code,
            text: text::without_addresses(&excerpt).into_owned(),
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
    pub(super) async fn open(&self, http: &Http, time: Time) -> Result<Connection<'_>, Error> {
        let tcp = self.connect(http, time).await?;
        let tls = self.registration.tls();
        let wire = match tls {
            Tls::Implicit => self.encrypt(http, tcp, time).await?,
            Tls::Starttls | Tls::None => Wire::new(tcp),
        };
        let mut connection = Connection {
            server: self,
            wire,
            offers: Offers::default(),
            is_broken: false,
        };
        connection.greeted(time).await?;
        connection.greet(time).await?;
        if tls == Tls::Starttls {
            connection = connection.starttls(http, time).await?;
            // What was offered before is void (RFC 3207, 4.2).
            connection.greet(time).await?;
        }
        if let Some((user, password)) = self.registration.credentials() {
            connection.log_in(user, password, time).await?;
        }
        Ok(connection)
    }

    async fn connect(&self, http: &Http, time: Time) -> Result<TcpStream, Error> {
        let (host, port) = (&self.registration.host, self.registration.port);
        let until = time.content.min(Instant::now() + CONNECT);
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
        let dialed = http.dial(host.host(), port.0, &PORTS, until).await;
        dialed.map_err(|failure| failure.error(&self.place).source(failure))
    }

    async fn encrypt(
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
            Ok(Err(error)) => Err(self.broken(Step::Encrypt, error)),
            Err(_) => Err(self.error(Step::Encrypt, LATE)),
        }
    }
}

const NOT_TLS: &str =
    "it does not answer in TLS; if its port is one for STARTTLS, choose tls=starttls";

/// Names the cause, and tells whether it is permanent.
fn reason(error: &(dyn StdError + 'static)) -> (&'static str, bool) {
    match tls::failure(error) {
        Some((tls::NO_TLS, is_permanent)) => return (NOT_TLS, is_permanent),
        Some(reason) => return reason,
        None => {}
    }
    let mut reason = "the connection broke";
    for cause in tls::causes(error) {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            reason = match error.kind() {
                io::ErrorKind::InvalidData => "the TLS handshake failed",
                _ => reason,
            };
        }
    }
    (reason, false)
}

/// Extensions that a server offers in its reply to EHLO: words by keyword, in capital letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Offers(BTreeMap<String, Vec<String>>);

impl Offers {
    fn of(lines: &[String]) -> Self {
        let mut offers: BTreeMap<_, Vec<_>> = BTreeMap::new();
        // The first line names the server.
        for line in lines.iter().skip(1) {
            let line = line.to_ascii_uppercase();
            // `AUTH=PLAIN LOGIN` is how servers wrote it before there was a standard.
            let mut words = line
                .split(|letter: char| letter.is_ascii_whitespace() || letter == '=')
                .map(str::to_owned);
            let keyword = words.next().unwrap_or_default();
            offers.entry(keyword).or_default().extend(words);
        }
        Self(offers)
    }

    fn has(&self, keyword: &str) -> bool {
        self.0.contains_key(keyword)
    }

    /// Returns whether users can log in by a mechanism.
    fn has_login(&self, mechanism: &str) -> bool {
        let mechanisms = self.0.get("AUTH").map(Vec::as_slice);
        let mut mechanisms = mechanisms.unwrap_or_default().iter();
        mechanisms.any(|offered| offered == mechanism)
    }

    /// Returns the largest mail in bytes, where the server knows of sizes (RFC 1870).
    fn size(&self) -> Option<usize> {
        let limit: Option<usize> = self.0.get("SIZE")?.first()?.parse().ok();
        limit.filter(|limit| *limit > 0)
    }
}

/// A server that has let us in.
pub(super) struct Connection<'a> {
    server: &'a Server<'a>,
    wire: Wire,
    offers: Offers,
    is_broken: bool,
}

impl Connection<'_> {
    /// Nothing more can be sent through it.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Fails where the server takes no addresses with letters beyond ASCII.
    pub(super) fn check_utf8(&self) -> Result<(), Error> {
        match self.offers.has("SMTPUTF8") {
            true => Ok(()),
            false => Err(Error::permanent(format!(
                "mail by {}: {NOT_ASCII}",
                self.server.place
            ))),
        }
    }

    /// Reads the server's greeting.
    async fn greeted(&mut self, time: Time) -> Result<(), Error> {
        let trouble = match timeout_at(time.reply(), self.wire.read()).await {
            Ok(Ok(lines)) => match self.expect(&lines, 2) {
                Ok(_) => return Ok(()),
                Err(trouble) => trouble,
            },
            Ok(Err(unread)) => unread.into(),
            Err(_) => Trouble::broken(
                "no greeting in time; if its port is one for implicit TLS, choose tls=implicit",
            ),
        };
        Err(self.server.error(Step::Greet, trouble))
    }

    /// Greets the server, and keeps what it offers. One that does not know EHLO is greeted as of old, and offers
    /// nothing (RFC 5321, 3.2).
    async fn greet(&mut self, time: Time) -> Result<(), Error> {
        let name = self.server.registration.greeting_name();
        let greeted = match self.lines(&format!("EHLO {name}"), 2, time).await {
            Ok(lines) => {
                self.offers = Offers::of(&lines.texts);
                return Ok(());
            }
            Err(Trouble::Said(reply)) if matches!(reply.code, 500..=504) => {
                self.offers = Offers::default();
                self.lines(&format!("HELO {name}"), 2, time).await
            }
            Err(trouble) => Err(trouble),
        };
        match greeted {
            Ok(_) => Ok(()),
            Err(trouble) => Err(self.server.error(Step::Greet, trouble)),
        }
    }

    async fn starttls(mut self, http: &Http, time: Time) -> Result<Self, Error> {
        let server = self.server;
        if !self.offers.has("STARTTLS") {
            let text = format!(
                "speak TLS with {}: it does not offer STARTTLS",
                server.place
            );
            return Err(Error::permanent(text));
        }
        if let Err(trouble) = self.command("STARTTLS", time).await {
            return Err(server.error(Step::Encrypt, trouble));
        }
        let (stream, has_more) = self.wire.into_stream();
        if has_more {
            // Whoever put it there wants it taken for something that came encrypted (CVE-2011-0411).
            let trouble = Trouble::broken("something came behind its reply to STARTTLS");
            return Err(server.error(Step::Encrypt, trouble));
        }
        self.wire = server.encrypt(http, stream, time).await?;
        Ok(self)
    }

    /// Logs in by PLAIN, and where that is refused for another reason than the password, by LOGIN. CRAM-MD5 is left
    /// out: it spares the password nothing that TLS does not, and few servers offer it alone.
    async fn log_in(&mut self, user: &str, password: &str, time: Time) -> Result<(), Error> {
        let base64 = |text: &str| base64_simd::STANDARD.encode_to_string(text);
        let mut refused = None;
        if self.offers.has_login("PLAIN") {
            let response = base64(&format!("\0{user}\0{password}"));
            let at_once = format!("AUTH PLAIN {response}");
            let command = match at_once.len() {
                ..=COMMAND_BYTES => &at_once,
                _ => "AUTH PLAIN",
            };
            // Some ask for the response although they were given it.
            match self.authenticate(command, &[&response], time).await {
                Ok(()) => return Ok(()),
                Err(trouble) => refused = Some(trouble),
            }
        }
        let may_go_on = match &refused {
            None => true,
            Some(Trouble::Said(reply)) => !reply.is_transient() && reply.code != 535,
            Some(Trouble::Broken { .. }) => false,
        };
        if self.offers.has_login("LOGIN") && may_go_on {
            let responses = [base64(user), base64(password)];
            let responses = [responses[0].as_str(), responses[1].as_str()];
            match self.authenticate("AUTH LOGIN", &responses, time).await {
                Ok(()) => return Ok(()),
                // That it hung up at the second try says less than its reply to the first.
                Err(Trouble::Broken { .. }) if refused.is_some() => {}
                Err(trouble) => refused = Some(trouble),
            }
        }
        match refused {
            Some(trouble) => Err(self.server.error(Step::Authenticate, trouble)),
            None => Err(Error::permanent(format!(
                "log in at {}: it does not offer AUTH by PLAIN or LOGIN, but the registration has a password",
                self.server.place
            ))),
        }
    }

    /// Sends a command, and a response to each 334. The words of a 334 are for people, and servers differ in them.
    async fn authenticate(
        &mut self,
        command: &str,
        responses: &[&str],
        time: Time,
    ) -> Result<(), Trouble> {
        let mut responses = responses.iter();
        let mut reply = self.any(command, time).await?;
        while reply.code == 334 {
            let Some(response) = responses.next() else {
                // Gives the login up (RFC 4954, 4).
                reply = self.any("*", time).await?;
                break;
            };
            reply = self.any(response, time).await?;
        }
        self.expect(&reply, 2).map(|_| ())
    }

    /// Begins a mail and takes it back, to hear whether the sender may send. Returns the refusal.
    pub(super) async fn try_sender(
        &mut self,
        from: &Address,
        time: Time,
    ) -> Result<Option<Reply>, Error> {
        let parameters = match from.needs_utf8() {
            true => " SMTPUTF8",
            false => "",
        };
        let refused = match self.command(&mail(from, parameters), time).await {
            Ok(_) => None,
            // What is refused just now, by greylisting say, says nothing of later.
            Err(Trouble::Said(reply)) if !self.is_broken => {
                Some(reply).filter(|reply| !reply.is_transient())
            }
            Err(trouble) => return Err(self.server.error(Step::Greet, trouble)),
        };
        match self.command("RSET", time).await {
            Ok(_) | Err(Trouble::Said(_)) => Ok(refused),
            Err(trouble) => Err(self.server.error(Step::Greet, trouble)),
        }
    }

    pub(super) async fn quit(mut self) {
        let until = Instant::now() + QUIT;
        let last = async {
            self.wire.write(b"QUIT\r\n").await?;
            self.wire.read().await
        };
        // Whatever it says, we are done.
        let _ = timeout_at(until, last).await;
    }

    /// Sends one mail to some of its recipients, and returns what became of each, in their order.
    pub(super) async fn send(
        &mut self,
        from: &Address,
        recipients: &[&Address],
        message: &[u8],
        time: Time,
    ) -> Vec<Fate> {
        let refused = |why| vec![Fate::Refused(why); recipients.len()];
        let size_bytes = message.len();
        let mut parameters = String::new();
        if let Some(limit) = self.offers.size().filter(|limit| *limit < size_bytes) {
            return refused(Why::TooLarge { size_bytes, limit });
        }
        if self.offers.has("SIZE") {
            write!(parameters, " SIZE={size_bytes}").expect("a string takes all");
        }
        // Its header has the addresses of all recipients.
        if !message.is_ascii() || recipients.iter().any(|to| to.needs_utf8()) {
            if !self.offers.has("SMTPUTF8") {
                return refused(Why::NotAscii);
            }
            if self.offers.has("8BITMIME") {
                parameters.push_str(" BODY=8BITMIME");
            }
            parameters.push_str(" SMTPUTF8");
        }
        if let Err(trouble) = self.command(&mail(from, &parameters), time).await {
            return vec![Fate::of(&trouble); recipients.len()];
        }
        let mut fates: Vec<Option<Fate>> = Vec::new();
        for recipient in recipients {
            let rcpt = format!("RCPT TO:<{}>", recipient.as_str());
            let fate = match self.command(&rcpt, time).await {
                Ok(_) => None,
                Err(trouble) => Some(Fate::of(&trouble)),
            };
            fates.push(fate);
            if self.is_broken {
                break;
            }
        }
        let gone = || Fate::Deferred(Why::Broken("the connection broke"));
        let rest = match fates.contains(&None) {
            _ if self.is_broken => fates.last().cloned().flatten().unwrap_or_else(gone),
            true => self.content(message, time).await,
            false => gone(),
        };
        if !matches!(rest, Fate::Accepted(_)) && !self.is_broken {
            // The server may be waiting for this mail to go on.
            let _ = self.command("RSET", time).await;
        }
        fates.resize(recipients.len(), None);
        fates
            .into_iter()
            .map(|fate| fate.unwrap_or_else(|| rest.clone()))
            .collect()
    }

    /// Sends the mail itself, for those recipients that were taken.
    async fn content(&mut self, message: &[u8], time: Time) -> Fate {
        if let Err(trouble) = self.lines("DATA", 3, time).await {
            return Fate::of(&trouble);
        }
        let content = wire::stuffed(message);
        let written = match timeout_at(time.reply(), self.wire.write(&content)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Trouble::from(Unread::from(error))),
            Err(_) => Err(LATE),
        };
        if let Err(trouble) = written {
            // Without its end, a server must not take it.
            self.is_broken = true;
            return Fate::of(&trouble);
        }
        match self.read(time.verdict()).await {
            Ok(lines) => match self.expect(&lines, 2) {
                Ok(reply) => Fate::Accepted(reply),
                Err(trouble) => Fate::of(&trouble),
            },
            Err(Trouble::Broken { reason, .. }) => Fate::Indeterminate(reason),
            Err(trouble) => Fate::of(&trouble),
        }
    }

    async fn command(&mut self, line: &str, time: Time) -> Result<Reply, Trouble> {
        let lines = self.any(line, time).await?;
        self.expect(&lines, 2)
    }

    /// Sends a command, and returns the lines of a reply of this class (its first digit).
    async fn lines(&mut self, line: &str, class: u16, time: Time) -> Result<Lines, Trouble> {
        let lines = self.any(line, time).await?;
        self.expect(&lines, class)?;
        Ok(lines)
    }

    /// Sends a line, and returns whatever the server replies.
    async fn any(&mut self, line: &str, time: Time) -> Result<Lines, Trouble> {
        debug_assert!(!line.contains(['\r', '\n']), "checked when it was read");
        let until = time.reply();
        let line = format!("{line}\r\n");
        match timeout_at(until, self.wire.write(line.as_bytes())).await {
            // A server that closes the connection has often said why before.
            Ok(_) => self.read(until).await,
            Err(_) => {
                self.is_broken = true;
                Err(LATE)
            }
        }
    }

    async fn read(&mut self, until: Instant) -> Result<Lines, Trouble> {
        let trouble = match timeout_at(until, self.wire.read()).await {
            Ok(Ok(lines)) => return Ok(lines),
            Ok(Err(unread)) => unread.into(),
            Err(_) => LATE,
        };
        self.is_broken = true;
        Err(trouble)
    }

    /// Takes a reply whose code begins with this digit.
    fn expect(&mut self, lines: &Lines, class: u16) -> Result<Reply, Trouble> {
        let reply = self.server.reply(lines.code, &lines.texts.join(" "));
        if lines.code / 100 == class {
            return Ok(reply);
        }
        // Neither success nor failure: nobody knows what it waits for.
        self.is_broken |= lines.code == CLOSING || lines.code < 400;
        Err(Trouble::Said(reply))
    }
}

fn mail(from: &Address, parameters: &str) -> String {
    format!("MAIL FROM:<{}>{parameters}", from.as_str())
}
