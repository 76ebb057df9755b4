//! The client: how long a request may take, and how much of its response is read.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fmt, io};

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use http::header::{ACCEPT, CONTENT_LENGTH, USER_AGENT as AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use url::{Host as UrlHost, Url};

use super::classify::{Response, explain};
use super::connector::{Connector, destination};
use super::dial;
use super::guard::{Guard, Refused, Way, refuse};
use super::place;
use crate::caller::Caller;
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
#[derive(Clone)]
pub struct Http {
    client: legacy::Client<Connector, Body>,
    tls: Arc<rustls::ClientConfig>,
    authorities: Authorities,
    guard: Guard,
    limits: Limits,
    redactor: Redactor,
    pub(crate) caller: Option<Arc<Caller>>,
    /// Of the organization that it is used for.
    pub(crate) external_id: Option<Arc<str>>,
    traffic: Arc<Traffic>,
}

/// Numbers of what went over the wire through one client.
#[derive(Debug, Default)]
struct Traffic {
    /// Status of the last response; 0 before the first.
    status: AtomicU16,
    sent_bytes: AtomicU64,
}

/// Traffic of an attempt: the bytes it sent, and how it was answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wire {
    /// HTTP status of the last response.
    pub status: Option<u16>,
    /// Bytes of bodies that a connection took, whether or not they arrived.
    pub sent_bytes: u64,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
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
                caller: self.caller.clone(),
                external_id: self.external_id.clone(),
                traffic: Arc::clone(&self.traffic),
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
        let tls = Arc::new(tls);
        let connector = Connector::new(guard.clone(), Arc::clone(&tls), limits.connect);
        let client = legacy::Client::builder(TokioExecutor::new())
            // Long enough for the requests of one delivery. A connection that the other side closed
            // while we slept would make the next request's fate unknown.
            .pool_idle_timeout(Duration::from_secs(2))
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self {
            client,
            tls,
            authorities,
            guard,
            limits,
            redactor: Redactor::default(),
            caller: None,
            external_id: None,
            traffic: Arc::default(),
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

    /// Connects to a host that is not asked by HTTP, as to one that is. `ports` are those that are open to the public.
    pub(crate) async fn dial(
        &self,
        host: &UrlHost<String>,
        port: u16,
        ports: &'static [u16],
        until: Instant,
    ) -> Result<TcpStream, dial::Failure> {
        let way = Way {
            port,
            is_plain: false,
            public_ports: ports,
        };
        dial::dial(&self.guard, host, way, until).await
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
        let body = Body {
            source: Source::Whole(body),
            rest: size_bytes,
            handed_over: Arc::clone(&handed_over),
            traffic: Arc::clone(&self.traffic),
        };
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
        let body = Body {
            source: Source::Pieces(chunks),
            rest: size_bytes,
            handed_over: Arc::clone(&handed_over),
            traffic: Arc::clone(&self.traffic),
        };
        let mut reader = content.read(host);
        let reading = Box::pin(async {
            while let Some(chunk) = reader.next().await? {
                if sender.send(chunk).await.is_err() {
                    // An answer came before the end, or the connection broke: the request knows.
                    break;
                }
            }
            Ok::<_, Error>(())
        });
        let executing = pin!(self.execute(parts, body, size_bytes, &handed_over, ANSWER_BYTES));
        let response = match select(executing, reading).await {
            Either::Left((result, _)) => result?,
            Either::Right((Ok(()), executing)) => executing.await?,
            // Given up before its end, so that it cannot have arrived as a whole.
            Either::Right((Err(error), _)) => return Err(error),
        };
        // A third party may say yes before it has read all. What it was to be sent has to be right nevertheless.
        if response.status.is_success() {
            while reader.next().await?.is_some() {}
        }
        Ok(response)
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
        let handed_over = Arc::new(AtomicBool::new(true));
        let body = Body {
            rest: body.len() as u64,
            source: Source::Whole(body),
            handed_over: Arc::clone(&handed_over),
            traffic: Arc::clone(&self.traffic),
        };
        let place = Url::parse(&parts.uri.to_string())
            .map_or_else(|_| String::new(), |url| self.place(&url));
        let response = self.respond(parts, body, within, &handed_over).await?;
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
        body: Body,
        size_bytes: u64,
        handed_over: &AtomicBool,
        most: usize,
    ) -> Result<Response, Error> {
        let within = self.limits.request(size_bytes);
        let response = self.respond(parts, body, within, handed_over).await?;
        Ok(self.read(response, most).await)
    }

    /// The same client, whose [`wire`](Self::wire) begins at nothing.
    #[must_use]
    pub fn counting_anew(&self) -> Self {
        Self {
            traffic: Arc::default(),
            ..self.clone()
        }
    }

    /// Returns what went over the wire through this client and its clones.
    pub fn wire(&self) -> Wire {
        let status = self.traffic.status.load(Ordering::Relaxed);
        Wire {
            status: (status > 0).then_some(status),
            sent_bytes: self.traffic.sent_bytes.load(Ordering::Relaxed),
        }
    }

    /// Returns where a request to this URL would be sent: to an address, or to a name whose addresses are vetted when
    /// it is resolved. Sends nothing.
    pub fn destination(&self, uri: &Uri) -> Result<UrlHost<String>, Error> {
        let (_, place, uri) = self.understood(uri)?;
        let (host, way) = destination(&uri).map_err(|refused| refuse(&place, refused))?;
        let admitted = self.guard.admit(&host, way);
        admitted.map_err(|refused| refuse(&place, refused))?;
        Ok(host)
    }

    /// A URL, all of it that is said, and the URL as it was understood rather than as it was written.
    fn understood(&self, uri: &Uri) -> Result<(Url, String, Uri), Error> {
        let url = Url::parse(&uri.to_string())
            .map_err(|_| Error::permanent("send a request: its URL is not absolute"))?;
        let place = self.place(&url);
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse(&place, Refused::Never("a URL that is not https")));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse(
                &place,
                Refused::Never("a URL with credentials in it"),
            ));
        }
        let uri = Uri::try_from(url.as_str())
            .map_err(|_| Error::permanent(format!("send to {place}: not a valid request")))?;
        Ok((url, place, uri))
    }

    /// The answer's status and headers.
    async fn respond(
        &self,
        parts: http::request::Parts,
        body: Body,
        within: Duration,
        handed_over: &AtomicBool,
    ) -> Result<http::Response<Incoming>, Error> {
        let (url, place, uri) = self.understood(&parts.uri)?;
        self.redactor.learn_request(&url, &parts.headers);
        let mut outgoing = Request::new(body);
        *outgoing.method_mut() = parts.method;
        *outgoing.uri_mut() = uri;
        *outgoing.headers_mut() = parts.headers;
        let headers = outgoing.headers_mut();
        headers
            .entry(AGENT)
            .or_insert(HeaderValue::from_static(USER_AGENT));
        headers
            .entry(ACCEPT)
            .or_insert(HeaderValue::from_static("*/*"));

        match timeout(within, self.client.request(outgoing)).await {
            Ok(Ok(response)) => {
                let status = response.status().as_u16();
                self.traffic.status.store(status, Ordering::Relaxed);
                Ok(response)
            }
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
    async fn read(&self, response: http::Response<Incoming>, most: usize) -> Response {
        let deadline = Instant::now() + self.limits.answer;
        let (parts, mut incoming) = response.into_parts();
        let mut body = BytesMut::new();
        let mut truncated = false;
        loop {
            match timeout_at(deadline, chunk(&mut incoming)).await {
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
            status: parts.status,
            headers: parts.headers,
            body: body.freeze(),
            truncated,
            redactor: self.redactor.clone(),
        }
    }
}

/// An answer whose body is read in pieces. See [`Http::open`].
#[derive(Debug)]
pub struct Download {
    response: http::Response<Incoming>,
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
        let chunk = match timeout_at(self.deadline, chunk(self.response.body_mut())).await {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(error)) => {
                let text = format!("read from {place}: the connection broke");
                return Err(Error::retryable(text).source(error));
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

/// The next piece of a body; nothing at its end.
async fn chunk(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    while let Some(frame) = body.frame().await {
        // Trailers say nothing to us.
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// A body that knows when its last byte was handed to the connection: before that, the third party
/// cannot have the request.
struct Body {
    source: Source,
    /// Bytes that are still to come.
    rest: u64,
    handed_over: Arc<AtomicBool>,
    traffic: Arc<Traffic>,
}

enum Source {
    Whole(Bytes),
    /// From whoever reads it meanwhile.
    Pieces(mpsc::Receiver<Bytes>),
}

/// As much as is handed over at once.
const FRAME_BYTES: usize = 64 * 1024;

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest == 0 {
            return Poll::Ready(None);
        }
        let piece = match &mut self.source {
            Source::Whole(bytes) => Some(bytes.split_to(bytes.len().min(FRAME_BYTES))),
            Source::Pieces(pieces) => match pieces.poll_recv(context) {
                Poll::Ready(piece) => piece,
                Poll::Pending => return Poll::Pending,
            },
        };
        let Some(piece) = piece else {
            // Whoever reads gave up. An end here would look like a whole body to a careless server.
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        };
        self.rest = self.rest.saturating_sub(piece.len() as u64);
        let sent = &self.traffic.sent_bytes;
        sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        if self.rest == 0 {
            self.handed_over.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
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
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::fixture::{self, Peer};

    use crate::http::EXCERPT_BYTES;
    const AUTHORITY: &str = include_str!("../../../../tests/peers/tls/authority.pem");

    #[tokio::test]
    async fn what_is_not_http_goes_to_vetted_addresses_and_given_ports_alone() {
        async fn dial(guard: Guard, to: &str, port: u16) -> Error {
            let host = UrlHost::parse(to).unwrap();
            let until = Instant::now() + Duration::from_secs(1);
            let http = Http::new(guard);
            let failure = http.dial(&host, port, &[587], until).await.unwrap_err();
            failure.error(&format!("{to}:{port}"))
        }
        const COULD: &str = "the stack's parameter AllowedPrivateCidrs could allow it";
        for (to, port, reason) in [
            ("8.8.8.8", 26, format!("this port is not allowed; use 587, or {COULD}")),
            ("127.0.0.1", 587, "a loopback address is not allowed".to_owned()),
            ("localhost", 587, "a loopback address is not allowed".to_owned()),
            ("[::1]", 587, "a loopback address is not allowed".to_owned()),
            ("10.1.2.3", 587, format!("a private address is not allowed; {COULD}")),
            ("[::ffff:a01:203]", 587, "a private address is not allowed".to_owned()),
            ("169.254.169.254", 587, "a link-local address is not allowed".to_owned()),
            (
                "8.8.8.8",
                25,
                "AWS blocks port 25 for functions outside a VPC; use 587 or 465, or set the stack's parameter SubnetIds"
                    .to_owned(),
            ),
        ] {
            let error = dial(Guard::default(), to, port).await;
            assert_eq!(error.kind, Kind::Permanent, "{to}");
            assert_eq!(error.text, format!("reach {to}:{port}: {reason}"));
        }
        for (to, port) in [("127.0.0.1", 9001), ("10.1.2.3", 587), ("8.8.8.8", 26)] {
            let error = dial(Guard::local(), to, port).await;
            assert_eq!(error.kind, Kind::Permanent, "{to}:{port}");
        }
        assert_eq!(
            dial(Guard::local(), "canary.invalid", 587).await.kind,
            AGAIN
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = UrlHost::parse("localhost").unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        let dialed = Http::new(Guard::local())
            .dial(&host, port, &[587], until)
            .await;
        assert_eq!(dialed.unwrap().peer_addr().unwrap().port(), port);
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
        Http::new(Guard::local()).trusting(Some(&authorities))
    }

    #[tokio::test]
    async fn an_authority_of_ones_own_is_trusted_where_it_is_named_and_nowhere_else() {
        let address = serve_tls("127.0.0.1").await;
        let get = || Request::get(format!("https://{address}/")).body(Bytes::new());
        let trusting = trusting();
        assert_eq!(trusting.send(get().unwrap()).await.unwrap().status, 200);
        let error = Http::new(Guard::local())
            .send(get().unwrap())
            .await
            .unwrap_err();
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
                Http::new(Guard::local()),
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
        let local = Http::new(Guard::local());
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
        let http = Http::new(Guard::default()).masking(&redactor);
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
            Http::build(Guard::local(), SHORT, Authorities::default()).send(request),
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
        let http = Http::new(Guard::default());
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
                "reach https://10.1.2.3: a private address is not allowed; the stack's parameter AllowedPrivateCidrs \
                 could allow it",
            ),
            (
                "http://example.org/canary",
                "reach http://example.org:80: a URL that is not https is not allowed; the stack's parameter \
                 AllowedPrivateCidrs could allow it",
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
        let http = Http::build(Guard::local(), SHORT, Authorities::default());
        for n in ["0", "1"] {
            let request = Request::get(format!("http://{address}/"))
                .body(Bytes::new())
                .unwrap();
            assert_eq!(&http.send(request).await.unwrap().body[..], n.as_bytes());
        }
    }
}
