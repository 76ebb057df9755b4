//! A dialogue with a mail server (RFC 5321, 3207, 4954): how it begins, and one mail of it.
//!
//! Written here rather than taken from lettre, whose connection gives a whole mail up at the first recipient that is
//! refused, keeps nothing of a reply to EHLO but a few names, and has no way on where a server refuses one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::reply::{CLOSING, Fate, LATE, NOT_ASCII, Reply, Step, Trouble, Why};
use super::server::{Server, Time};
use super::wire::{self, Lines, Unread, Wire};
use super::{Address, Tls};
use crate::{Error, Http};

/// Timeout of the last word, which nobody waits for.
const QUIT: Duration = Duration::from_secs(1);

/// Longest command line without its end (RFC 5321, 4.5.3.1.4).
const COMMAND_BYTES: usize = 510;

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

impl<'a> Connection<'a> {
    /// Connects, encrypts, logs in: all that can be done without a mail.
    pub(super) async fn open(
        server: &'a Server<'a>,
        http: &Http,
        time: Time,
    ) -> Result<Self, Error> {
        let tcp = server.connect(http, time).await?;
        let registration = server.registration;
        let tls = registration.tls();
        let wire = match tls {
            Tls::Implicit => server.encrypt(http, tcp, time).await?,
            Tls::Starttls | Tls::None => Wire::new(tcp),
        };
        let mut connection = Self {
            server,
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
        if let Some((user, password)) = registration.credentials() {
            connection.log_in(user, password, time).await?;
        }
        Ok(connection)
    }

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
