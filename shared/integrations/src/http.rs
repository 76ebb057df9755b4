//! The one way out: every request to a third party goes through [`Http`], which decides where it may go,
//! how long it may take and how much of the answer is read.
//!
//! Addresses that an operator typed are a stranger's input. So every address that a name resolves to is
//! vetted, and the connection is made to those same addresses; redirects are answers, not instructions;
//! nothing from the environment (proxies, trust stores) takes part.
//!
//! A request that came back with any status is `Ok`: [`classify`] says what that status means, and an
//! integration refines it where its vendor deviates.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::Digest;
use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use http::header::{CONTENT_LENGTH, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body::{Frame, SizeHint};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use crate::error::{About, Answer, Error, Kind};
use crate::{Content, Host, Preview};

/// Sent as `User-Agent`: some third parties (Discord) refuse requests without one.
pub const USER_AGENT: &str = concat!("chainloop-integrations/", env!("CARGO_PKG_VERSION"));

/// More of an answer than this is not read.
pub const ANSWER_BYTES: usize = 64 * 1024;

/// More of an answer than this is not kept with the attempt.
pub const EXCERPT_BYTES: usize = 2 * 1024;

/// A third party that asks for a longer pause than this gets this one: no delivery lives longer.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_hours(7 * 24);

/// Where HTTPS is served to the public. Anything else is more often somebody's admin port.
const PORTS: [u16; 2] = [443, 8443];

/// Where the Lambda Runtime API and the extensions listen; refused on loopback, too.
const LAMBDA_PORT: u16 = 9001;

/// What is allowed beyond HTTPS to public addresses on ports 443 and 8443.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Guard {
    /// Local mode: HTTP and HTTPS to `localhost` and to loopback addresses, on any port.
    pub allow_loopback: bool,
}

impl Guard {
    /// Whether a request may go to this URL, as far as can be told before its name is resolved.
    fn admit(self, url: &Url) -> Result<(), Refused> {
        let host = url.host().ok_or(Refused("an address without a host"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused("a URL with credentials in it"));
        }
        if let Some(address) = literal(&host) {
            self.vet(true, address)?;
        }
        let port = url.port_or_known_default();
        let local = self.allow_loopback && is_local(&host);
        match url.scheme() {
            "http" if !local => Err(Refused("a URL that is not https")),
            "http" | "https" if local && port != Some(LAMBDA_PORT) => Ok(()),
            "https" if is_public_port(port) => Ok(()),
            "http" | "https" => Err(Refused("a port other than 443 and 8443")),
            _ => Err(Refused("a URL that is not https")),
        }
    }

    /// Whether a connection may be made to this address.
    /// `by_local_name`: the host was given as `localhost` or as the address itself. A public name that
    /// points to loopback is refused in local mode, too.
    fn vet(self, by_local_name: bool, address: IpAddr) -> Result<(), Refused> {
        match forbidden(address) {
            // Not so in the disguise of an IPv6 address, which is nobody's local mode.
            Some(_) if self.allow_loopback && by_local_name && address.is_loopback() => Ok(()),
            Some(class) => Err(Refused(class)),
            None => Ok(()),
        }
    }
}

fn is_public_port(port: Option<u16>) -> bool {
    port.is_some_and(|port| PORTS.contains(&port))
}

/// Whether requests to this URL may go out at all, in local mode or not, as far as its text says: an operator should
/// hear of it who types one.
pub(crate) fn is_sendable(url: &Url) -> bool {
    let local = url.host().is_some_and(|host| is_local(&host));
    local || url.scheme() == "https" && is_public_port(url.port_or_known_default())
}

/// Why a request may not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not allowed", self.0)
    }
}

impl StdError for Refused {}

fn literal(host: &url::Host<&str>) -> Option<IpAddr> {
    match host {
        url::Host::Ipv4(address) => Some((*address).into()),
        url::Host::Ipv6(address) => Some((*address).into()),
        url::Host::Domain(_) => None,
    }
}

/// Whether a host is on this machine, by what it is called.
pub fn is_local(host: &url::Host<&str>) -> bool {
    match host {
        url::Host::Domain(name) => is_local_name(name),
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
    }
}

fn is_local_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// The class of an address that is not for third parties; `None` for a public one.
///
/// By the IANA special-purpose address registries (RFC 6890 and its successors).
fn forbidden(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => forbidden_v4(address),
        IpAddr::V6(address) => forbidden_v6(address),
    }
}

fn forbidden_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [0, 0, 0, 0] => Some("an unspecified address"),
        [0, ..] => Some("an address of this network"),
        [127, ..] => Some("a loopback address"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("a private address"),
        [100, 64..=127, ..] => Some("a shared address"),
        [169, 254, ..] => Some("a link-local address"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some("a documentation address"),
        [192, 0, 0, _] => Some("a protocol address"),
        [192, 88, 99, _] => Some("a 6to4 relay address"),
        [198, 18..=19, ..] => Some("a benchmarking address"),
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("a reserved address"),
        _ => None,
    }
}

fn forbidden_v6(address: Ipv6Addr) -> Option<&'static str> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        // What matters in these two is the address inside. A network with DNS64 reaches every
        // IPv4-only third party through NAT64's well-known prefix.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            forbidden_v4(Ipv4Addr::new(a, b, c, d))
        }
        [0x64, 0xff9b, 1, ..] => Some("a local translation address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xfc00..=0xfdff, ..] => Some("a private address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        // Both tunnels are out of use, so what they carry is not looked at.
        [0x2001, 0, ..] => Some("a Teredo address"),
        [0x2002, ..] => Some("a 6to4 address"),
        [0x2001, 2, 0, ..] => Some("a benchmarking address"),
        [0x2001, 0..=0x1ff, ..] => Some("a protocol address"),
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Some("a documentation address"),
        [0x2000..=0x3fff, ..] => None,
        _ => Some("a reserved address"),
    }
}

/// Resolves by the system, and lets a name through only when all of its addresses may be connected to.
/// The connection is then made to exactly these: there is no second look-up to answer differently.
#[derive(Debug)]
struct Resolver(Guard);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let vetted = vet_all(guard, name.as_str(), found.collect())?;
            Ok(Box::new(vetted.into_iter()) as Addrs)
        })
    }
}

fn vet_all(guard: Guard, name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
    for address in &found {
        guard.vet(is_local_name(name), address.ip())?;
    }
    Ok(found)
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Name, connection and TLS together.
    connect: Duration,
    /// From the beginning to the answer's headers, before what the size of the body adds.
    request: Duration,
    /// For the answer's body, once its headers are there.
    answer: Duration,
}

const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    request: Duration::from_secs(10),
    answer: Duration::from_secs(5),
};

impl Limits {
    /// A body gets one second more for each MiB, and no request more than 100 s: it has to end within
    /// the attempt that it belongs to.
    fn request(&self, size_bytes: u64) -> Duration {
        let upload = Duration::from_secs(size_bytes >> 20);
        (self.request + upload).min(Duration::from_secs(100))
    }
}

/// Why a bundle of certificates cannot be trusted in addition to the public ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRoots {
    #[error("it is not PEM text")]
    NotPem,
    #[error("it holds no certificate")]
    Empty,
    #[error("its certificate number {0} is not one that can be trusted")]
    Unusable(usize),
}

/// Certificates in PEM. Where a line cannot be broken, as on a command line, `\n` stands for the end of one.
fn read_roots(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadRoots> {
    let text = std::str::from_utf8(pem).map_err(|_| BadRoots::NotPem)?;
    let text = text.replace("\\n", "\n");
    let roots = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| BadRoots::NotPem)?;
    if roots.is_empty() {
        return Err(BadRoots::Empty);
    }
    for (number, root) in roots.iter().enumerate() {
        let mut store = rustls::RootCertStore::empty();
        store
            .add(root.clone())
            .map_err(|_| BadRoots::Unusable(number + 1))?;
    }
    Ok(roots)
}

/// What came back, whatever its status.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// At most [`ANSWER_BYTES`], or as much as [`Http::fetch`] was asked for.
    pub body: Bytes,
    /// The answer was longer, or its end did not come in time.
    pub truncated: bool,
}

impl Response {
    /// [`classify`], with what was being done in front and `secrets` cut out of the excerpt.
    ///
    /// `doing` completes "failed to …": `post to https://hooks.example.org`.
    pub fn check(&self, doing: &str, secrets: &[&str], now_unix: u64) -> Result<(), Error> {
        classify(self.status, &self.headers, &self.body, now_unix).map_err(|error| Error {
            text: format!("{doing}: {}", error.text),
            answer: Some(self.answer(secrets)),
            ..error
        })
    }

    /// What is kept of it with the attempt.
    pub fn answer(&self, secrets: &[&str]) -> Answer {
        Answer {
            status: self.status.as_u16(),
            excerpt: excerpt(&self.body, secrets),
        }
    }
}

/// The guarded client. Cloning it shares its connections.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
    tls: Arc<rustls::ClientConfig>,
    /// Trusted beside the public ones.
    roots: Arc<[CertificateDer<'static>]>,
    guard: Guard,
    limits: Limits,
}

impl Http {
    pub fn new(guard: Guard) -> Self {
        Self::build(guard, LIMITS, Vec::new())
    }

    /// Trusts the certificates of this PEM text, too: an organization's own authority.
    pub fn with_roots(guard: Guard, pem: &[u8]) -> Result<Self, BadRoots> {
        Ok(Self::build(guard, LIMITS, read_roots(pem)?))
    }

    fn build(guard: Guard, limits: Limits, extra: Vec<CertificateDer<'static>>) -> Self {
        let mut roots = rustls::RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        let (_, unusable) = roots.add_parsable_certificates(extra.iter().cloned());
        debug_assert_eq!(unusable, 0, "checked when they were read");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .dns_resolver(Resolver(guard))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .user_agent(USER_AGENT)
            .connect_timeout(limits.connect)
            // Long enough for the requests of one delivery. A connection that the other side closed
            // while we slept would make the next request's fate unknown.
            .pool_idle_timeout(Duration::from_secs(2))
            .build()
            .expect("static configuration");
        Self {
            client,
            tls: Arc::new(tls),
            roots: extra.into(),
            guard,
            limits,
        }
    }

    /// The addresses of a host that is not asked by HTTP, vetted: a connection is made to one of these and to no
    /// other. `ports` are those that may be reached; in local mode, any of this machine.
    pub(crate) async fn resolve(
        &self,
        host: &url::Host<String>,
        port: u16,
        ports: &[u16],
    ) -> Result<Vec<SocketAddr>, Error> {
        let place = format!("{host}:{port}");
        let borrowed = match host {
            url::Host::Domain(name) => url::Host::Domain(name.as_str()),
            url::Host::Ipv4(address) => url::Host::Ipv4(*address),
            url::Host::Ipv6(address) => url::Host::Ipv6(*address),
        };
        let local = self.guard.allow_loopback && is_local(&borrowed);
        if !(local && port != LAMBDA_PORT || ports.contains(&port)) {
            return Err(refuse(&place, Refused("this port")));
        }
        let found: Vec<SocketAddr> = match (literal(&borrowed), host) {
            (None, url::Host::Domain(name)) => {
                let looked_up = tokio::net::lookup_host((name.as_str(), port));
                match timeout(self.limits.connect, looked_up).await {
                    Ok(Ok(found)) => found.collect(),
                    Ok(Err(error)) => {
                        let text = format!("reach {place}: its name could not be resolved");
                        return Err(Error::retryable(text).source(error));
                    }
                    Err(_) => {
                        let text = format!("reach {place}: its name was not resolved in time");
                        return Err(Error::retryable(text));
                    }
                }
            }
            (address, _) => address
                .map(|address| SocketAddr::new(address, port))
                .into_iter()
                .collect(),
        };
        let by_local_name = is_local(&borrowed);
        for address in &found {
            if let Err(refused) = self.guard.vet(by_local_name, address.ip()) {
                return Err(refuse(&place, refused));
            }
        }
        Ok(found)
    }

    /// How TLS is spoken by whoever does not speak HTTP.
    pub(crate) fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.tls)
    }

    /// What is trusted beside the public authorities.
    pub(crate) fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Seconds since 1970 by the system's clock, for checks, which have no [`Host`](crate::Host).
    pub fn unix_secs(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs())
    }

    /// Sends one request, once. Any status is `Ok`.
    ///
    /// An error is [`Kind::Permanent`] when the address is not allowed, [`Kind::Retryable`] when the
    /// request cannot have arrived as a whole, and [`Kind::Unanswered`] when it may have. Its text names
    /// scheme and host of the URL and nothing else of it.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response, Error> {
        self.fetch(request, ANSWER_BYTES).await
    }

    /// As [`send`](Self::send), for an answer of which more has to be read: `most` bytes.
    pub async fn fetch(&self, request: Request<Bytes>, most: usize) -> Result<Response, Error> {
        let (parts, body) = request.into_parts();
        let size_bytes = body.len() as u64;
        let handed_over = Arc::new(AtomicBool::new(body.is_empty()));
        let body = reqwest::Body::wrap(Tracked {
            rest: body,
            handed_over: Arc::clone(&handed_over),
        });
        self.execute(parts, body, size_bytes, &handed_over, most)
            .await
    }

    /// As [`send`](Self::send), with a body that is read while it is sent and never whole in memory.
    pub async fn stream(
        &self,
        host: &dyn Host,
        request: Request<Content<'_>>,
    ) -> Result<Response, Error> {
        let (parts, content) = request.into_parts();
        let size_bytes = content.size_bytes();
        let handed_over = Arc::new(AtomicBool::new(size_bytes == 0));
        let (sender, chunks) = mpsc::channel(1);
        let body = reqwest::Body::wrap(Streamed {
            chunks,
            rest: size_bytes,
            handed_over: Arc::clone(&handed_over),
        });
        let reading = pin!(async {
            let mut reader = content.read(host);
            while let Some(chunk) = reader.next().await? {
                if sender.send(chunk).await.is_err() {
                    // An answer came before the end, or the connection broke: the request knows.
                    break;
                }
            }
            Ok::<_, Error>(())
        });
        let executing = pin!(self.execute(parts, body, size_bytes, &handed_over, ANSWER_BYTES));
        match select(executing, reading).await {
            Either::Left((result, _)) => result,
            Either::Right((Ok(()), executing)) => executing.await,
            // Given up before its end, so that it cannot have arrived as a whole.
            Either::Right((Err(error), _)) => Err(error),
        }
    }

    /// As [`send`](Self::send), for an answer that is too large to be held: it is read in pieces, at most `most`
    /// bytes of it, and all of that has to come within this time.
    pub async fn open(
        &self,
        request: Request<Bytes>,
        most: u64,
        within: Duration,
    ) -> Result<Download, Error> {
        let deadline = Instant::now() + within;
        let (parts, body) = request.into_parts();
        let place =
            Url::parse(&parts.uri.to_string()).map_or_else(|_| String::new(), |url| origin(&url));
        let handed_over = AtomicBool::new(true);
        let response = self
            .respond(parts, body.into(), within, &handed_over)
            .await?;
        let download = Download {
            response,
            place,
            left: most,
            deadline,
        };
        match download.size_bytes() {
            // Of a refusal nothing is read.
            Some(size_bytes) if download.status().is_success() && size_bytes > most => {
                Err(download.too_large())
            }
            _ => Ok(download),
        }
    }

    async fn execute(
        &self,
        parts: http::request::Parts,
        body: reqwest::Body,
        size_bytes: u64,
        handed_over: &AtomicBool,
        most: usize,
    ) -> Result<Response, Error> {
        let within = self.limits.request(size_bytes);
        let response = self.respond(parts, body, within, handed_over).await?;
        Ok(self.read(response, most).await)
    }

    /// The answer's status and headers.
    async fn respond(
        &self,
        parts: http::request::Parts,
        body: reqwest::Body,
        within: Duration,
        handed_over: &AtomicBool,
    ) -> Result<reqwest::Response, Error> {
        let url = Url::parse(&parts.uri.to_string())
            .map_err(|_| Error::permanent("send a request: its URL is not absolute"))?;
        let place = origin(&url);
        if let Err(refused) = self.guard.admit(&url) {
            return Err(refuse(&place, refused));
        }

        let mut outgoing = reqwest::Request::new(parts.method, url);
        *outgoing.headers_mut() = parts.headers;
        *outgoing.body_mut() = Some(body);

        match timeout(within, self.client.execute(outgoing)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(explain(&place, error, handed_over.load(Ordering::Relaxed))),
            Err(_) => {
                let secs = within.as_secs();
                Err(if handed_over.load(Ordering::Relaxed) {
                    Error::new(
                        Kind::Unanswered,
                        format!("hear from {place}: no answer within {secs} s"),
                    )
                } else {
                    Error::retryable(format!("send to {place}: not finished within {secs} s"))
                })
            }
        }
    }

    /// The status has come, so an answer that drips, breaks off or does not end is still an answer.
    async fn read(&self, mut response: reqwest::Response, most: usize) -> Response {
        let deadline = Instant::now() + self.limits.answer;
        let mut body = BytesMut::new();
        let mut truncated = false;
        loop {
            match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(None)) => break,
                Ok(Ok(Some(chunk))) => {
                    let room = most - body.len();
                    body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                    if chunk.len() <= room {
                        continue;
                    }
                }
                Ok(Err(_)) | Err(_) => {}
            }
            truncated = true;
            break;
        }
        Response {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body: body.freeze(),
            truncated,
        }
    }
}

/// An answer whose body is read in pieces. See [`Http::open`].
#[derive(Debug)]
pub struct Download {
    response: reqwest::Response,
    /// All that is said of where it comes from.
    place: String,
    /// How much may still come.
    left: u64,
    deadline: Instant,
}

impl Download {
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// How long the body is, as the other side says.
    pub fn size_bytes(&self) -> Option<u64> {
        let length = self.headers().get(CONTENT_LENGTH)?;
        length.to_str().ok()?.parse().ok()
    }

    /// The next piece; nothing at the end. A body that breaks off before the length that was said is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let place = &self.place;
        let chunk = match timeout_at(self.deadline, self.response.chunk()).await {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(error)) => {
                let text = format!("read from {place}: the connection broke");
                return Err(Error::retryable(text).source(error.without_url()));
            }
            Err(_) => {
                let text = format!("read from {place}: the end did not come in time");
                return Err(Error::retryable(text));
            }
        };
        let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        match self.left.checked_sub(length) {
            Some(left) => self.left = left,
            None => return Err(self.too_large()),
        }
        Ok(chunk)
    }

    fn too_large(&self) -> Error {
        Error::permanent(format!("read from {}: it is too large", self.place))
    }
}

/// A body that knows when its last byte was handed to the connection: before that, the third party
/// cannot have the request.
struct Tracked {
    rest: Bytes,
    handed_over: Arc<AtomicBool>,
}

/// As much as is handed over at once.
const FRAME_BYTES: usize = 64 * 1024;

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let next = self.rest.len().min(FRAME_BYTES);
        let frame = self.rest.split_to(next);
        if self.rest.is_empty() {
            self.handed_over.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// A body that comes through a channel, and knows as [`Tracked`] does when its last byte was handed over.
struct Streamed {
    chunks: mpsc::Receiver<Bytes>,
    rest: u64,
    handed_over: Arc<AtomicBool>,
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest == 0 {
            return Poll::Ready(None);
        }
        let Poll::Ready(chunk) = self.chunks.poll_recv(context) else {
            return Poll::Pending;
        };
        let Some(chunk) = chunk else {
            // Whoever reads gave up. An end here would look like a whole body to a careless server.
            return Poll::Ready(Some(Err(std::io::ErrorKind::UnexpectedEof.into())));
        };
        self.rest = self.rest.saturating_sub(chunk.len() as u64);
        if self.rest == 0 {
            self.handed_over.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest)
    }
}

impl Preview {
    /// `request` as it would be sent, with `target` in place of its URL and `…` for the headers that are
    /// not to be shown.
    pub(crate) fn of(request: &Request<Bytes>, target: String, masked: &[HeaderName]) -> Self {
        let shown = |(name, value): (&HeaderName, &HeaderValue)| {
            let text = if masked.contains(name) {
                "…".into()
            } else {
                String::from_utf8_lossy(value.as_bytes())
            };
            (name.to_string(), text.into_owned())
        };
        let body = request.body();
        let text = String::from_utf8_lossy(&body[..body.len().min(ANSWER_BYTES)]).into_owned();
        Self {
            method: request.method().to_string(),
            target,
            headers: request.headers().iter().map(shown).collect(),
            digest: Digest::of(body),
            size_bytes: body.len() as u64,
            body: text,
        }
    }

    /// As [`of`](Self::of), of a request for [`Http::stream`]: its body is read once, and never whole in memory.
    pub(crate) async fn of_content(
        host: &dyn Host,
        request: &Request<Content<'_>>,
        target: String,
        masked: &[HeaderName],
    ) -> Result<Self, Error> {
        let content = request.body();
        let mut hash = Sha256::new();
        let mut beginning = BytesMut::new();
        let take = |bytes: &Bytes| {
            hash.update(bytes);
            let room = ANSWER_BYTES - beginning.len();
            beginning.extend_from_slice(&bytes[..bytes.len().min(room)]);
        };
        content.each(host, take).await?;
        let mut shown = Request::new(beginning.freeze());
        *shown.method_mut() = request.method().clone();
        *shown.headers_mut() = request.headers().clone();
        Ok(Self {
            digest: Digest::from(<[u8; 32]>::from(hash.finalize())),
            size_bytes: content.size_bytes(),
            ..Self::of(&shown, target, masked)
        })
    }
}

/// Scheme, host and port: all of a URL that may be shown.
pub fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

fn refuse(place: &str, refused: Refused) -> Error {
    // An alarm counts these.
    tracing::warn!(
        destination = place,
        reason = refused.0,
        "Refused to connect to {place}"
    );
    Error::permanent(format!("reach {place}: {refused}"))
}

fn explain(place: &str, error: reqwest::Error, handed_over: bool) -> Error {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    let mut reset = None;
    while let Some(current) = cause {
        if let Some(refused) = current.downcast_ref::<Refused>() {
            return refuse(place, *refused);
        }
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            reset = Some(io.kind());
        }
        cause = current.source();
    }
    let error = error.without_url();
    let reason = match reset {
        _ if error.is_dns() => "its name could not be resolved",
        _ if error.is_timeout() => "no connection in time",
        Some(std::io::ErrorKind::ConnectionRefused) => "connection refused",
        Some(std::io::ErrorKind::InvalidData) => "the TLS handshake failed",
        _ => "the connection broke",
    };
    if error.is_builder() {
        Error::permanent(format!("send to {place}: not a valid request"))
    } else if error.is_connect() {
        Error::retryable(format!("reach {place}: {reason}"))
    } else {
        let error = match handed_over {
            false => Error::retryable(format!("reach {place}: {reason}")),
            true => Error::new(
                Kind::Unanswered,
                format!("hear from {place}: {reason} before an answer came"),
            ),
        };
        // A document on which a server dies ends its connection as a server that goes down does.
        error.about(About::Either)
    }
    .source(error)
}

/// What a status means, where the third party says nothing else about it.
///
/// 2xx is success. 408, 425, 429 and 5xx are [`Kind::Retryable`], not before `Retry-After` (seconds or
/// a date; RFC 9110, section 10.2.3), 401 is [`Kind::Unauthorized`], 410 is [`Kind::Dead`], and all others,
/// redirects among them, are [`Kind::Permanent`]. A 5xx without `Retry-After` speaks of the destination or of the
/// document ([`About::Either`]), but for those that a gateway gives: 502, 503 and 504. The excerpt holds the body as
/// it came: where the third party could echo a secret, use [`Response::check`].
pub fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now_unix: u64,
) -> Result<(), Error> {
    let kind = match status.as_u16() {
        200..=299 => return Ok(()),
        408 | 425 | 429 | 500..=599 => Kind::Retryable {
            after: retry_after(headers, now_unix),
        },
        401 => Kind::Unauthorized,
        410 => Kind::Dead,
        _ => Kind::Permanent,
    };
    let answer = Answer {
        status: status.as_u16(),
        excerpt: excerpt(body, &[]),
    };
    let about = match (status.as_u16(), kind) {
        (502..=504, _) | (_, Kind::Retryable { after: Some(_) }) => About::Destination,
        (500..=599, _) => About::Either,
        _ => About::Destination,
    };
    let text = format!("answered {}", phrase(status));
    Err(Error::new(kind, text).answer(answer).about(about))
}

/// `404 Not Found`; of a status without a name, the number alone.
fn phrase(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// How long the third party asks us to wait. A date counts from the answer's own `Date`, so that a wrong
/// clock on either side does no harm, and from `now_unix` where it has none.
pub fn retry_after(headers: &HeaderMap, now_unix: u64) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let secs = if let Ok(secs) = value.parse::<u64>() {
        secs
    } else {
        let until = http_date(value)?;
        let from = headers
            .get(DATE)
            .and_then(|date| http_date(date.to_str().ok()?))
            .unwrap_or(now_unix);
        until.saturating_sub(from)
    };
    Some(Duration::from_secs(secs).min(LONGEST_PAUSE))
}

fn http_date(value: &str) -> Option<u64> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    u64::try_from(parser.parse_timestamp(value).ok()?.as_second()).ok()
}

/// The beginning of an answer as text that is safe to keep and to show: at most [`EXCERPT_BYTES`], one
/// line, nothing that moves a cursor or turns the writing direction, and `…` for each of the secrets.
pub fn excerpt(body: &[u8], secrets: &[&str]) -> String {
    let body = &body[..body.len().min(ANSWER_BYTES)];
    let mut text: String = String::from_utf8_lossy(body)
        .chars()
        .filter_map(|letter| match letter {
            letter if crate::text::is_invisible(letter) => None,
            letter if letter.is_control() => Some(' '),
            letter => Some(letter),
        })
        .collect();
    let mut secrets: Vec<&str> = secrets
        .iter()
        .copied()
        .filter(|secret| !secret.is_empty())
        .collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    for secret in &secrets {
        text = text.replace(secret, "…");
    }
    // An answer that was cut may end in half a secret.
    for secret in &secrets {
        let half = secret
            .char_indices()
            .map(|(end, _)| &secret[..end])
            .rfind(|half| half.len() >= 4 && text.ends_with(half));
        if let Some(half) = half {
            text.truncate(text.len() - half.len());
        }
    }
    let mut text = text.trim().to_owned();
    text.truncate(text.floor_char_boundary(EXCERPT_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::fixture::{self, Party};

    const LOCAL: Guard = Guard {
        allow_loopback: true,
    };
    const PUBLIC: Guard = Guard {
        allow_loopback: false,
    };

    fn class(address: &str) -> Option<&'static str> {
        forbidden(address.parse().unwrap())
    }

    #[test]
    fn every_class_of_address_that_is_not_public_is_refused() {
        for (name, addresses) in [
            ("loopback", "127.0.0.1 127.255.255.255 ::1"),
            (
                "private",
                "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 fc00::1 fd00:ec2::254",
            ),
            (
                "link-local",
                "169.254.169.254 169.254.100.1 fe80::1 febf::1",
            ),
            ("shared", "100.64.0.1 100.127.255.255"),
            ("multicast", "224.0.0.1 239.255.255.255 ff02::1"),
            (
                "documentation",
                "192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1 3fff:fff::1",
            ),
            ("benchmarking", "198.18.0.1 198.19.255.255 2001:2::1"),
            (
                "reserved",
                "240.0.0.1 255.255.255.255 ::7f00:1 ::a00:1 100::1 4000::1 fec0::1 5f00::1",
            ),
            ("unspecified", "0.0.0.0 ::"),
            ("this network", "0.1.2.3"),
            (
                "protocol",
                "192.0.0.1 192.0.0.170 2001:1::1 2001:10::1 2001:20::1 2001:1ff::1",
            ),
            ("6to4", "192.88.99.1 2002:7f00:1::1 2002:0808:0808::1"),
            ("Teredo", "2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2"),
            ("local translation", "64:ff9b:1::1 64:ff9b:1:7f00:1::"),
            // IPv4 inside IPv6: mapped, and NAT64's well-known prefix.
            ("loopback", "::ffff:127.0.0.1 64:ff9b::127.0.0.1"),
            (
                "private",
                "::ffff:10.0.0.1 ::ffff:192.168.0.1 64:ff9b::10.0.0.1 64:ff9b::172.16.0.1",
            ),
            (
                "link-local",
                "::ffff:169.254.169.254 64:ff9b::169.254.169.254",
            ),
            ("shared", "::ffff:100.64.0.1 64:ff9b::100.64.0.1"),
            ("multicast", "::ffff:224.0.0.1 64:ff9b::224.0.0.1"),
            ("benchmarking", "::ffff:198.18.0.1 64:ff9b::198.18.0.1"),
            ("documentation", "::ffff:192.0.2.1 64:ff9b::203.0.113.1"),
            ("reserved", "::ffff:240.0.0.1 64:ff9b::255.255.255.255"),
            ("unspecified", "::ffff:0.0.0.0 64:ff9b::"),
        ] {
            for address in addresses.split(' ') {
                let class = class(address).unwrap_or("allowed");
                assert!(class.contains(name), "{address} is {class}, not {name}");
            }
        }
    }

    #[test]
    fn public_addresses_are_allowed() {
        for address in "8.8.8.8 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 198.17.0.1 198.20.0.1 \
                        223.255.255.255 192.0.1.1 2606:4700::1 2001:200::1 2a00:1450::1 3fff:1000::1 \
                        ::ffff:8.8.8.8 64:ff9b::8.8.8.8"
            .split_whitespace()
        {
            assert_eq!(class(address), None, "{address}");
        }
    }

    fn admit(guard: Guard, url: &str) -> Result<(), Refused> {
        guard.admit(&Url::parse(url).unwrap())
    }

    #[test]
    fn only_https_on_two_ports_goes_out() {
        for url in [
            "https://example.org",
            "https://example.org:8443/x",
            "https://8.8.8.8/",
        ] {
            assert_eq!(admit(PUBLIC, url), Ok(()), "{url}");
            assert_eq!(admit(LOCAL, url), Ok(()), "{url}");
        }
        for url in [
            "http://example.org",
            "http://example.org:443",
            "https://example.org:80",
            "https://example.org:9001",
            "https://example.org:22",
            "ftp://example.org",
            "https://user@example.org",
            "https://user:password@example.org",
            "https://10.0.0.1",
            "https://[fd00:ec2::254]",
            "http://169.254.169.254/latest",
        ] {
            assert!(admit(PUBLIC, url).is_err(), "{url}");
            assert!(admit(LOCAL, url).is_err(), "{url}");
        }
    }

    #[test]
    fn loopback_is_for_local_mode_however_it_is_spelled() {
        for url in [
            "http://127.0.0.1:1234",
            "https://127.0.0.1",
            "http://127.1",
            "http://2130706433",
            "http://0x7f.0.0.1",
            "http://017700000001",
            "http://[::1]:8080",
            "http://localhost:4566",
            "http://localhost.:4566",
            "http://s3.localhost",
        ] {
            assert!(
                admit(PUBLIC, url).is_err() || url.starts_with("https"),
                "{url}"
            );
            assert_eq!(admit(LOCAL, url), Ok(()), "{url}");
        }
        assert!(admit(PUBLIC, "https://127.0.0.1").is_err());
        for url in [
            "http://[::ffff:127.0.0.1]",
            "http://127.0.0.1:9001",
            "http://0.0.0.0",
            "http://0",
        ] {
            assert!(admit(LOCAL, url).is_err(), "{url}");
        }
    }

    #[test]
    fn one_bad_address_refuses_the_name() {
        let all = |guard, name, addresses: &[&str]| {
            let found = addresses
                .iter()
                .map(|a| SocketAddr::new(a.parse().unwrap(), 0))
                .collect();
            vet_all(guard, name, found).is_ok()
        };
        assert!(all(PUBLIC, "example.org", &["8.8.8.8", "2606:4700::1"]));
        assert!(!all(PUBLIC, "example.org", &["8.8.8.8", "10.0.0.1"]));
        assert!(!all(PUBLIC, "example.org", &["64:ff9b::10.0.0.1"]));
        assert!(!all(PUBLIC, "localhost", &["127.0.0.1"]));
        assert!(all(LOCAL, "localhost", &["127.0.0.1", "::1"]));
        assert!(!all(LOCAL, "localhost", &["127.0.0.1", "10.0.0.1"]));
        assert!(
            !all(LOCAL, "rebind.example.org", &["127.0.0.1"]),
            "a public name with a local address"
        );
    }

    const AUTHORITY: &str = include_str!("../../../tests/peers/tls/authority.pem");

    fn host(text: &str) -> url::Host<String> {
        url::Host::parse(text).unwrap()
    }

    #[tokio::test]
    async fn what_is_not_http_goes_to_vetted_addresses_and_given_ports_alone() {
        let (public, local) = (Http::new(PUBLIC), Http::new(LOCAL));
        let found = public.resolve(&host("8.8.8.8"), 25, &[25]).await.unwrap();
        assert_eq!(found, ["8.8.8.8:25".parse().unwrap()]);
        for (to, port, reason) in [
            ("8.8.8.8", 26, "this port"),
            ("127.0.0.1", 25, "a loopback address"),
            ("localhost", 25, "a loopback address"),
            ("[::1]", 25, "a loopback address"),
            ("10.1.2.3", 25, "a private address"),
            ("[::ffff:a01:203]", 25, "a private address"),
            ("169.254.169.254", 25, "a link-local address"),
        ] {
            let error = public.resolve(&host(to), port, &[25]).await.unwrap_err();
            assert_eq!(error.kind, Kind::Permanent, "{to}");
            assert_eq!(
                error.text,
                format!("reach {to}:{port}: {reason} is not allowed")
            );
        }
        let found = local.resolve(&host("localhost"), 2525, &[25]).await;
        assert!(found.unwrap().iter().all(|found| found.ip().is_loopback()));
        for (to, port) in [
            ("127.0.0.1", LAMBDA_PORT),
            ("10.1.2.3", 25),
            ("8.8.8.8", 26),
        ] {
            let error = local.resolve(&host(to), port, &[25]).await.unwrap_err();
            assert_eq!(error.kind, Kind::Permanent, "{to}:{port}");
        }
        let error = local.resolve(&host("canary.invalid"), 25, &[25]).await;
        assert_eq!(error.unwrap_err().kind, AGAIN);
    }

    #[test]
    fn roots_are_certificates_in_pem() {
        let roots = |pem: &[u8]| Http::with_roots(PUBLIC, pem).map(|http| http.roots().len());
        assert_eq!(roots(AUTHORITY.as_bytes()), Ok(1));
        assert_eq!(roots(format!("{AUTHORITY}{AUTHORITY}").as_bytes()), Ok(2));
        let one_line = AUTHORITY.replace('\n', "\\n");
        assert_eq!(roots(one_line.as_bytes()), Ok(1), "as on a command line");
        assert_eq!(roots(b"canary"), Err(BadRoots::Empty));
        assert_eq!(roots(b"\xff"), Err(BadRoots::NotPem));
        assert_eq!(
            roots(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
            Err(BadRoots::NotPem)
        );
        let nonsense = "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n";
        assert_eq!(
            roots(format!("{AUTHORITY}{nonsense}").as_bytes()),
            Err(BadRoots::Unusable(2))
        );
    }

    /// A third party whose certificate is one of the test authority's.
    async fn serve_tls() -> SocketAddr {
        let pem = include_bytes!("../../../tests/peers/tls/localhost.pem");
        let key = include_bytes!("../../../tests/peers/tls/localhost.test.key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(pem).unwrap()],
                rustls::pki_types::PrivateKeyDer::from_pem_slice(key).unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        serve(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(fixture::OK.as_bytes()).await;
            }
        })
        .await
    }

    #[tokio::test]
    async fn an_authority_of_ones_own_is_trusted_where_it_is_named_and_nowhere_else() {
        let address = serve_tls().await;
        let get = || Request::get(format!("https://{address}/")).body(Bytes::new());
        let trusting = Http::with_roots(LOCAL, AUTHORITY.as_bytes()).unwrap();
        assert_eq!(trusting.send(get().unwrap()).await.unwrap().status, 200);
        let error = Http::new(LOCAL).send(get().unwrap()).await.unwrap_err();
        assert_eq!(error.kind, AGAIN);
        let shown = format!("{:?}", error.source);
        assert!(shown.contains("UnknownIssuer"), "{shown}");
    }

    const SHORT: Limits = Limits {
        connect: Duration::from_secs(1),
        request: Duration::from_secs(2),
        answer: Duration::from_secs(1),
    };

    /// Serves each connection with `respond`, and says where.
    async fn serve<F: Future<Output = ()> + Send + 'static>(
        respond: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(respond(stream));
            }
        });
        address
    }

    async fn post(url: &str, body: impl Into<Bytes>) -> Result<Response, Error> {
        let request = Request::post(url).body(body.into()).unwrap();
        let limit = Duration::from_secs(20);
        timeout(limit, Http::build(LOCAL, SHORT, Vec::new()).send(request))
            .await
            .expect("nothing holds us")
    }

    const AGAIN: Kind = Kind::Retryable { after: None };

    #[tokio::test]
    async fn a_silent_third_party_is_unanswered() {
        let address = serve(async |mut stream| {
            fixture::read(&mut stream).await.unwrap();
            std::future::pending::<()>().await;
        })
        .await;
        let error = post(&format!("http://{address}/canary?canary"), "x")
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Unanswered);
        assert!(
            error
                .text
                .starts_with(&format!("hear from http://{address}: no answer within")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_body_that_was_not_taken_was_not_sent() {
        let address = serve(async |stream| {
            tokio::time::sleep(Duration::from_millis(200)).await;
            stream.set_zero_linger().unwrap();
        })
        .await;
        let error = post(&format!("http://{address}/"), vec![b'x'; 64 << 20])
            .await
            .unwrap_err();
        assert_eq!(error.kind, AGAIN, "{error:?}");
    }

    #[tokio::test]
    async fn a_reset_before_the_answer_is_unanswered() {
        let address = serve(async |mut stream| {
            fixture::read(&mut stream).await.unwrap();
            stream.set_zero_linger().unwrap();
        })
        .await;
        let error = post(&format!("http://{address}/canary?canary"), "x")
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Unanswered, "{error:?}");
        assert!(
            !format!("{error} {error:?}").contains("canary"),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_closed_port_is_retryable() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = post(&format!("http://{address}/canary?canary"), "x")
            .await
            .unwrap_err();
        assert_eq!(error.kind, AGAIN);
        assert_eq!(
            error.text,
            format!("reach http://{address}: connection refused")
        );
        assert!(
            !format!("{error} {error:?}").contains("canary"),
            "{error:?}"
        );
        assert!(error.source.is_some());
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_retryable() {
        let error = post("https://canary.invalid/", "x").await.unwrap_err();
        assert_eq!(error.kind, AGAIN, "{error:?}");
    }

    #[tokio::test]
    async fn a_tls_handshake_that_hangs_or_breaks_is_retryable() {
        let hangs = serve(async |stream| {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        let error = post(&format!("https://{hangs}/"), "x").await.unwrap_err();
        assert_eq!(error.kind, AGAIN);
        assert_eq!(
            error.text,
            format!("reach https://{hangs}: no connection in time")
        );
        let speaks_plainly = serve(async |mut stream| {
            let _ = stream.write_all(fixture::OK.as_bytes()).await;
        })
        .await;
        let error = post(&format!("https://{speaks_plainly}/"), "x")
            .await
            .unwrap_err();
        assert_eq!(error.kind, AGAIN, "{error:?}");
    }

    #[tokio::test]
    async fn a_dripping_answer_is_cut_and_counts() {
        let address = serve(async |mut stream| {
            fixture::read(&mut stream).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
                .await
                .unwrap();
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let response = post(&format!("http://{address}/"), "x").await.unwrap();
        assert_eq!(response.status, StatusCode::OK);
        assert!(response.truncated && response.body.len() < 1_000);
    }

    #[tokio::test]
    async fn dripping_headers_do_not_hold_us() {
        let address = serve(async |mut stream| {
            fixture::read(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
            while stream.write_all(b"x: y\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let error = post(&format!("http://{address}/"), "x").await.unwrap_err();
        assert_eq!(error.kind, Kind::Unanswered);
    }

    #[tokio::test]
    async fn of_a_huge_answer_64_kib_are_read() {
        let address = serve(async |mut stream| {
            fixture::read(&mut stream).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 500 Oops\r\ncontent-length: 1000000000\r\n\r\n")
                .await
                .unwrap();
            while stream.write_all(&[b'y'; 8192]).await.is_ok() {}
        })
        .await;
        let response = post(&format!("http://{address}/"), "x").await.unwrap();
        assert_eq!(response.body.len(), ANSWER_BYTES);
        assert!(response.truncated);
        let error = response.check("post", &[], 0).unwrap_err();
        assert_eq!(error.answer.unwrap().excerpt.len(), EXCERPT_BYTES);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_an_answer() {
        let party = Party::start(&["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"]);
        let response = post(&party.origin, "x").await.unwrap();
        assert_eq!(
            (&response.body[..], response.truncated),
            (&b"abc"[..], true)
        );
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_not_followed() {
        let party = Party::start(&[
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n",
        ]);
        let response = post(&party.origin, "x").await.unwrap();
        let error = response.check("post to it", &[], 0).unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert_eq!(error.text, "post to it: answered 307 Temporary Redirect");
        assert_eq!(party.received().len(), 1);
    }

    #[tokio::test]
    async fn a_compressed_answer_stays_as_it_is() {
        let party = Party::start(&[
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        ]);
        let response = post(&party.origin, "x").await.unwrap();
        assert_eq!(&response.body[..], b"abc");
        let received = party.received();
        assert!(!received[0].headers.contains_key("accept-encoding"));
        assert_eq!(received[0].headers["user-agent"], USER_AGENT);
        assert_eq!(received[0].headers["content-length"], "1");
    }

    #[tokio::test]
    async fn a_refused_address_is_permanent_and_says_why() {
        let http = Http::new(PUBLIC);
        for (url, text) in [
            (
                "https://127.0.0.1/canary",
                "reach https://127.0.0.1: a loopback address is not allowed",
            ),
            (
                "https://localhost/canary",
                "reach https://localhost: a loopback address is not allowed",
            ),
            (
                "https://10.1.2.3/canary",
                "reach https://10.1.2.3: a private address is not allowed",
            ),
            (
                "http://example.org/canary",
                "reach http://example.org: a URL that is not https is not allowed",
            ),
        ] {
            let error = http
                .send(Request::get(url).body(Bytes::new()).unwrap())
                .await
                .unwrap_err();
            assert_eq!(error.kind, Kind::Permanent, "{error:?}");
            assert_eq!(error.text, text);
        }
    }

    #[test]
    fn time_grows_with_the_body_and_ends() {
        assert_eq!(LIMITS.request(10), Duration::from_secs(10));
        assert_eq!(LIMITS.request(20 << 20), Duration::from_secs(30));
        assert_eq!(LIMITS.request(1 << 30), Duration::from_secs(100));
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn kind(status: u16, pairs: &[(&'static str, &'static str)]) -> Option<Kind> {
        let status = StatusCode::from_u16(status).unwrap();
        classify(status, &headers(pairs), b"", 784_111_777)
            .err()
            .map(|error| error.kind)
    }

    #[test]
    fn each_status_has_its_class() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(kind(status, &[]), None);
        }
        for status in [408, 425, 429, 500, 501, 502, 503, 504, 599] {
            assert_eq!(kind(status, &[]), Some(AGAIN), "{status}");
        }
        for status in [
            300, 301, 302, 303, 304, 307, 308, 400, 402, 403, 404, 405, 409, 413, 422, 499,
        ] {
            assert_eq!(kind(status, &[]), Some(Kind::Permanent), "{status}");
        }
        assert_eq!(kind(401, &[]), Some(Kind::Unauthorized));
        assert_eq!(kind(410, &[]), Some(Kind::Dead));
    }

    #[test]
    fn a_500_may_speak_of_the_document_and_a_gateways_answer_or_a_named_time_of_the_destination() {
        let about = |status, pairs: &[(&'static str, &'static str)]| {
            let status = StatusCode::from_u16(status).unwrap();
            classify(status, &headers(pairs), b"", 0).unwrap_err().about
        };
        for status in [500, 501, 505, 507, 599] {
            assert_eq!(about(status, &[]), About::Either, "{status}");
        }
        assert_eq!(about(500, &[("retry-after", "1")]), About::Destination);
        for status in [400, 401, 404, 408, 413, 425, 429, 502, 503, 504] {
            assert_eq!(about(status, &[]), About::Destination, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |secs| {
            Some(Kind::Retryable {
                after: Some(Duration::from_secs(secs)),
            })
        };
        assert_eq!(kind(429, &[("retry-after", "120")]), after(120));
        assert_eq!(kind(503, &[("retry-after", " 0 ")]), after(0));
        // Sun, 06 Nov 1994 08:49:37 GMT is `now`.
        assert_eq!(
            kind(503, &[("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")]),
            after(60)
        );
        assert_eq!(
            kind(503, &[("retry-after", "Sun, 06 Nov 1994 08:40:37 GMT")]),
            after(0)
        );
        let server = ("date", "Sun, 06 Nov 1994 10:00:00 GMT");
        assert_eq!(
            kind(
                503,
                &[("retry-after", "Sun, 06 Nov 1994 10:00:09 GMT"), server]
            ),
            after(9)
        );
        assert_eq!(
            kind(429, &[("retry-after", "99999999999")]),
            after(7 * 24 * 3600)
        );
        for nonsense in ["soon", "-5", "", "99999999999999999999999"] {
            assert_eq!(
                kind(429, &[("retry-after", nonsense)]),
                Some(AGAIN),
                "{nonsense}"
            );
        }
        assert_eq!(kind(404, &[("retry-after", "120")]), Some(Kind::Permanent));
    }

    #[test]
    fn an_excerpt_is_one_printable_line_without_secrets() {
        assert_eq!(
            excerpt(b" a\r\n\x1b[31mb\xff\xe2\x80\xaec ", &[]),
            "a   [31mb\u{fffd}c"
        );
        assert_eq!(
            excerpt(b"key=s3cret-s3cret&x", &["s3cret", "s3cret-s3cret"]),
            "key=…&x"
        );
        assert_eq!(
            excerpt("né".repeat(2000).as_bytes(), &[]).len(),
            EXCERPT_BYTES - 1
        );
        assert_eq!(
            excerpt(b"ends in s3cr", &["s3cret"]),
            "ends in",
            "half a secret is one, too"
        );
        let zero_width = "s3\u{200b}cret";
        assert_eq!(excerpt(zero_width.as_bytes(), &["s3cret"]), "…");
        let long = "0123456789".repeat(10);
        let repeated = long.repeat(700);
        assert!(!excerpt(repeated.as_bytes(), &[&long]).contains("0123"));
    }

    #[tokio::test]
    async fn a_connection_is_used_for_the_requests_of_one_delivery() {
        let address = serve(async |mut stream| {
            let mut buffer = [0; 4096];
            for n in 0.. {
                if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                    return;
                }
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{n}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        let http = Http::build(LOCAL, SHORT, Vec::new());
        for n in ["0", "1"] {
            let request = Request::get(format!("http://{address}/"))
                .body(Bytes::new())
                .unwrap();
            assert_eq!(&http.send(request).await.unwrap().body[..], n.as_bytes());
        }
    }
}
