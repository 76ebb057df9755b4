//! The client: how long a request may take, and how much of its response is read.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, StatusCode};
use http_body::{Frame, SizeHint};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::classify::{Response, explain};
use super::guard::{
    Guard, LAMBDA_PORT, Refused, Resolver, Way, is_local, literal, on_the_way, refuse,
};
use super::place;
use crate::error::{ANSWER_BYTES, Error, Kind};
use crate::redact::Redactor;
use crate::{Authorities, Content, Host};

/// Sent as `User-Agent`: some third parties (Discord) refuse requests without one.
pub const USER_AGENT: &str = concat!("chainloop-integrations/", env!("CARGO_PKG_VERSION"));

/// Time limits of a request.
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

/// The guarded client. Cloning it shares its connections.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
    tls: Arc<rustls::ClientConfig>,
    authorities: Authorities,
    guard: Guard,
    limits: Limits,
    redactor: Redactor,
}

impl Http {
    pub fn new(guard: Guard) -> Self {
        Self::build(guard, LIMITS, Authorities::default())
    }

    /// A client that trusts these authorities beside the public ones, and shares no connection with this one; this one
    /// when there are none.
    #[must_use]
    pub fn trusting(&self, authorities: Option<&Authorities>) -> Self {
        match authorities {
            Some(authorities) => Self {
                redactor: self.redactor.clone(),
                ..Self::build(self.guard.clone(), self.limits, authorities.clone())
            },
            None => self.clone(),
        }
    }

    fn build(guard: Guard, limits: Limits, authorities: Authorities) -> Self {
        let mut roots = rustls::RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        let extra = authorities.certificates().iter().cloned();
        let (_, unusable) = roots.add_parsable_certificates(extra);
        debug_assert_eq!(unusable, 0, "checked when they were read");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .dns_resolver(Resolver(guard.clone()))
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
            authorities,
            guard,
            limits,
            redactor: Redactor::default(),
        }
    }

    /// The same client, which masks what this redactor knows, and lets it know what requests carry.
    #[must_use]
    pub fn masking(&self, redactor: &Redactor) -> Self {
        Self {
            redactor: redactor.clone(),
            ..self.clone()
        }
    }

    /// Certificates trusted beside the public authorities.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        self.authorities.certificates()
    }

    /// Masks the credentials of whatever is being worked on.
    pub(crate) fn redactor(&self) -> &Redactor {
        &self.redactor
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
        let way = Way {
            port,
            is_plain: false,
            is_public: ports.contains(&port),
        };
        let local = self.guard.allow_loopback && is_local(&borrowed) && port != LAMBDA_PORT;
        if !(local || way.is_public || self.guard.allowed.has_way(way)) {
            let mut error = refuse(&place, Refused::unlisted("this port"));
            let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
            error.text = format!("{}; use {}", error.text, ports.join(" or "));
            return Err(error);
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
            if let Err(refused) = self.guard.vet(by_local_name, address.ip(), way) {
                return Err(refuse(&place, refused));
            }
        }
        Ok(found)
    }

    /// Returns the TLS configuration, for protocols other than HTTP.
    pub(crate) fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.tls)
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
    /// request cannot have arrived as a whole, and [`Kind::Indeterminate`] when it may have. Its text names
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
        let place = Url::parse(&parts.uri.to_string())
            .map_or_else(|_| String::new(), |url| self.place(&url));
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

    /// All of a URL that is said of it. A third party may have named it, with a credential of ours in the host.
    fn place(&self, url: &Url) -> String {
        self.redactor.text(&place(url)).into_owned()
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
        let place = self.place(&url);
        if let Err(refused) = self.guard.admit(&url) {
            return Err(refuse(&place, refused));
        }

        self.redactor.learn_request(&url, &parts.headers);
        let mut outgoing = reqwest::Request::new(parts.method, url.clone());
        *outgoing.headers_mut() = parts.headers;
        *outgoing.body_mut() = Some(body);

        match timeout(within, on_the_way(&url, self.client.execute(outgoing))).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(explain(&place, error, handed_over.load(Ordering::Relaxed))),
            Err(_) => {
                let secs = within.as_secs();
                Err(if handed_over.load(Ordering::Relaxed) {
                    Error::new(
                        Kind::Indeterminate,
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
            redactor: self.redactor.clone(),
        }
    }
}

/// An answer whose body is read in pieces. See [`Http::open`].
#[derive(Debug)]
pub struct Download {
    response: reqwest::Response,
    /// All that is said of where it comes from.
    place: String,
    /// Bytes that may still come.
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

    /// Returns the length of the body that the response declares.
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

#[cfg(test)]
mod tests {
    use std::future::Future;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::fixture::{self, Peer};

    use crate::http::EXCERPT_BYTES;
    const LOCAL: Guard = Guard {
        allow_loopback: true,
    };
    const PUBLIC: Guard = Guard {
        allow_loopback: false,
    };
    const AUTHORITY: &str = include_str!("../../../../tests/peers/tls/authority.pem");

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
            let mut text = format!("reach {to}:{port}: {reason} is not allowed");
            if port != 25 {
                text.push_str("; use 25");
            }
            assert_eq!(error.text, text);
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

    /// A third party whose certificate is one of the test authority's.
    async fn serve_tls(at: &str) -> SocketAddr {
        serve_tls_with(
            at,
            include_bytes!("../../../../tests/peers/tls/localhost.pem"),
        )
        .await
    }

    async fn serve_tls_with(at: &str, pem: &[u8]) -> SocketAddr {
        let key = include_bytes!("../../../../tests/peers/tls/localhost.test.key");
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
        serve_at(at, move |stream| {
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

    fn trusting() -> Http {
        let authorities = Authorities::try_from(AUTHORITY).unwrap();
        Http::new(LOCAL).trusting(Some(&authorities))
    }

    #[tokio::test]
    async fn an_authority_of_ones_own_is_trusted_where_it_is_named_and_nowhere_else() {
        let address = serve_tls("127.0.0.1").await;
        let get = || Request::get(format!("https://{address}/")).body(Bytes::new());
        let trusting = trusting();
        assert_eq!(trusting.send(get().unwrap()).await.unwrap().status, 200);
        let error = Http::new(LOCAL).send(get().unwrap()).await.unwrap_err();
        assert_eq!(error.kind, AGAIN);
        let shown = format!("{:?}", error.source);
        assert!(shown.contains("UnknownIssuer"), "{shown}");
    }

    #[tokio::test]
    async fn an_untrusted_certificate_another_name_and_no_tls_are_told_apart() {
        let trusting = trusting();
        let speaks_plainly = serve(async |mut stream| {
            let _ = stream.write_all(fixture::OK.as_bytes()).await;
            let _ = stream.read(&mut [0; 64]).await;
        })
        .await;
        let hangs_up = serve(async |stream| drop(stream)).await;
        for (http, address, reason) in [
            (
                Http::new(LOCAL),
                serve_tls("127.0.0.1").await,
                "its certificate is of an authority that is not trusted; name an authority of your own in the \
                 input ca_certificates",
            ),
            (
                trusting.clone(),
                serve_tls("127.0.0.2").await,
                "its certificate is for another name",
            ),
            (trusting.clone(), speaks_plainly, "no TLS is spoken there"),
            (
                trusting,
                hangs_up,
                "the connection ended in the TLS handshake",
            ),
        ] {
            let request = Request::get(format!("https://{address}/")).body(Bytes::new());
            let error = http.send(request.unwrap()).await.unwrap_err();
            assert_eq!(error.text, format!("reach https://{address}: {reason}"));
        }
    }

    #[tokio::test]
    async fn a_certificate_that_is_an_authoritys_own_is_told_apart_trusted_or_not() {
        let pem = include_bytes!("../../../../tests/peers/tls/self-signed.pem");
        let address = serve_tls_with("127.0.0.1", pem).await;
        let text = String::from_utf8(pem.to_vec()).unwrap();
        let itself = Authorities::try_from(text).unwrap();
        let local = Http::new(LOCAL);
        for http in [local.trusting(Some(&itself)), local, trusting()] {
            let request = Request::get(format!("https://{address}/")).body(Bytes::new());
            let error = http.send(request.unwrap()).await.unwrap_err();
            assert!(error.text.contains("CA:FALSE"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_address_that_is_not_allowed_is_logged_without_what_sent_us_there() {
        let redactor = Redactor::default();
        redactor.learn("s3cret-host-name");
        let http = Http::new(PUBLIC).masking(&redactor);
        let request = Request::get("http://s3cret-host-name.example.org/").body(Bytes::new());
        let error = http.send(request.unwrap()).await.unwrap_err();
        assert!(
            error.text.starts_with("reach http://….example.org:80: "),
            "{error}"
        );
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
        serve_at("127.0.0.1", respond).await
    }

    async fn serve_at<F: Future<Output = ()> + Send + 'static>(
        at: &str,
        respond: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> SocketAddr {
        let listener = TcpListener::bind((at, 0)).await.unwrap();
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
        timeout(
            limit,
            Http::build(LOCAL, SHORT, Authorities::default()).send(request),
        )
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
        assert_eq!(error.kind, Kind::Indeterminate);
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
        assert_eq!(error.kind, Kind::Indeterminate, "{error:?}");
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
        assert_eq!(error.kind, Kind::Indeterminate);
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
        let error = response.check("post", 0).unwrap_err();
        assert_eq!(error.answer.unwrap().excerpt.len(), EXCERPT_BYTES);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_an_answer() {
        let party = Peer::start(&["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"]);
        let response = post(&party.origin, "x").await.unwrap();
        assert_eq!(
            (&response.body[..], response.truncated),
            (&b"abc"[..], true)
        );
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_not_followed() {
        let party = Peer::start(&[
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n",
        ]);
        let response = post(&party.origin, "x").await.unwrap();
        let error = response.check("post to it", 0).unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert_eq!(error.text, "post to it: answered 307 Temporary Redirect");
        assert_eq!(party.received().len(), 1);
    }

    #[tokio::test]
    async fn a_compressed_answer_stays_as_it_is() {
        let party = Peer::start(&[
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
                "reach http://example.org:80: a URL that is not https is not allowed",
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
        let http = Http::build(LOCAL, SHORT, Authorities::default());
        for n in ["0", "1"] {
            let request = Request::get(format!("http://{address}/"))
                .body(Bytes::new())
                .unwrap();
            assert_eq!(&http.send(request).await.unwrap().body[..], n.as_bytes());
        }
    }
}
