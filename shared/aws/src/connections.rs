//! Connections to AWS: HTTP/1.1 over TLS, a few for each service, kept open between invocations.
//!
//! A handshake costs as much CPU as fifteen calls. The SDK's own client begins one for each call that finds no connection
//! idle, and brings HTTP/2, which nothing here speaks. So a call waits for one of the few.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::ErrorKind;
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{HOST, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{CipherSuite, ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::roots::ROOTS;

/// User agent of each request, by which AWS's own logs name us.
const OURSELVES: &str = concat!("chainloop-integrations/", env!("CARGO_PKG_VERSION"));

/// Time after which an idle connection is not used again: S3 closes it after 20 s, and AWS's SDKs for other languages after
/// 60 s. A function that is frozen meanwhile does not hear of it.
const IDLE_AT_BUCKET: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(50);

/// Time after which another address of a host is tried.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// TLS of all connections: roots, and the keys of earlier sessions.
fn tls(roots: RootCertStore) -> Arc<ClientConfig> {
    let mut provider = rustls::crypto::ring::default_provider();
    // AES-128 is strong enough here, and its keys take SHA-256 instead of SHA-384.
    let first = CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != first);
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// The connections to one service. A clone has the same ones.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    tls: TlsConnector,
    idle_for: Duration,
    /// One for each connection that is in use.
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    origin: Origin,
    sender: SendRequest<SdkBody>,
    since: Instant,
    /// Set by the SDK after a response that tells of a broken server: the connection is not used again.
    is_poisoned: Arc<AtomicBool>,
}

impl Idle {
    fn is_usable(&self, idle_for: Duration) -> bool {
        self.since.elapsed() < idle_for
            && !self.sender.is_closed()
            && !self.is_poisoned.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: Scheme,
    authority: Authority,
}

impl Connections {
    /// Connections to the bucket, at most so many at a time. Each answer is read whole before another call is made: one that
    /// was left unread would keep its connection, and whoever waits for it.
    pub fn new(most: usize) -> Self {
        let roots = ROOTS.to_vec();
        Self::with(tls(RootCertStore { roots }).into(), most, IDLE_AT_BUCKET)
    }

    /// The same for another service, with the same roots and sessions.
    pub(crate) fn to_another(&self, most: usize) -> Self {
        Self::with(self.0.tls.clone(), most, IDLE)
    }

    fn with(tls: TlsConnector, most: usize, idle_for: Duration) -> Self {
        Self(Arc::new(Inner {
            tls,
            idle_for,
            permits: Arc::new(Semaphore::new(most)),
            idle: Mutex::default(),
        }))
    }

    /// Opens a connection to where this URI leads, for the first call. That it cannot be opened is for that call to find out.
    pub(crate) async fn prepare(&self, uri: &str) {
        let Ok(origin) = uri.parse::<Uri>().map_err(drop).and_then(|uri| {
            let parts = uri.into_parts();
            let both = parts.scheme.zip(parts.authority);
            let (scheme, authority) = both.ok_or(())?;
            Ok(Origin { scheme, authority })
        }) else {
            return;
        };
        self.prepare_to(origin).await;
    }

    /// Opens so many more connections to where an idle one leads. Each takes a ticket of its session, as far as the service gave
    /// enough of them, and then verifies no certificate.
    pub(crate) async fn prepare_more(&self, more: usize) {
        let origin = self.idle().last().map(|one| one.origin.clone());
        if let Some(origin) = origin {
            join_all((0..more).map(|_| self.prepare_to(origin.clone()))).await;
        }
    }

    async fn prepare_to(&self, origin: Origin) {
        if let Ok(sender) = self.open(&origin).await {
            let since = Instant::now();
            self.idle().push(Idle {
                origin,
                sender,
                since,
                is_poisoned: Arc::default(),
            });
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the connection that was used last and is still open.
    async fn reuse(&self, origin: &Origin) -> Option<SendRequest<SdkBody>> {
        loop {
            let mut sender = {
                let mut idle = self.idle();
                idle.retain(|one| one.is_usable(self.0.idle_for));
                let last = idle.iter().rposition(|one| one.origin == *origin)?;
                idle.remove(last).sender
            };
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    async fn open(&self, origin: &Origin) -> Result<SendRequest<SdkBody>, ConnectorError> {
        let is_tls = origin.scheme == Scheme::HTTPS;
        let port = origin.authority.port_u16();
        let port = port.unwrap_or(if is_tls { 443 } else { 80 });
        let host = origin.authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = dial(bare, port).await.map_err(broken)?;
        stream.set_nodelay(true).map_err(broken)?;
        if !is_tls {
            return shake(stream).await;
        }
        let name = ServerName::try_from(bare.to_owned());
        let name = name.map_err(|error| ConnectorError::user(error.into()))?;
        let stream = self.0.tls.connect(name, stream).await;
        shake(stream.map_err(broken)?).await
    }

    /// Posts to somebody else than a service of AWS, and returns the status of the answer.
    pub(crate) async fn post(
        self,
        request: Request<SdkBody>,
    ) -> Result<StatusCode, ConnectorError> {
        let request = HttpRequest::try_from(request);
        let request = request.map_err(|error| ConnectorError::user(error.into()))?;
        let response = self.send(request, None).await?;
        let status = StatusCode::from_u16(response.status().as_u16());
        status.map_err(|error| ConnectorError::user(error.into()))
    }

    pub(crate) async fn send(
        self,
        request: HttpRequest,
        connect: Option<Duration>,
    ) -> Result<HttpResponse, ConnectorError> {
        let mut request = request
            .try_into_http1x()
            .map_err(|error| ConnectorError::user(error.into()))?;
        let origin = take_origin(&mut request)?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(OURSELVES));
        let is_poisoned = capture(&request);
        let permits = Arc::clone(&self.0.permits);
        let permit = permits.acquire_owned().await.expect("nobody closes it");
        let (response, sender) = loop {
            let reused = self.reuse(&origin).await;
            let is_reused = reused.is_some();
            let mut sender = match (reused, connect) {
                (Some(sender), _) => sender,
                (None, None) => self.open(&origin).await?,
                (None, Some(most)) => match timeout(most, self.open(&origin)).await {
                    Ok(opened) => opened?,
                    Err(elapsed) => return Err(ConnectorError::timeout(elapsed.into())),
                },
            };
            match sender.try_send_request(request).await {
                Ok(response) => break (response, sender),
                Err(mut failed) => match failed.take_message() {
                    // Closed before anything of it was sent.
                    Some(unsent) if is_reused => request = unsent,
                    _ => return Err(lost(failed.into_error())),
                },
            }
        };
        let idle = Idle {
            origin,
            sender,
            since: Instant::now(),
            is_poisoned,
        };
        let response = response.map(|body| {
            let mut body = ResponseBody {
                body,
                back: Some((idle, self, permit)),
            };
            body.give_back_at_end();
            SdkBody::from_body_1_x(body)
        });
        HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
    }
}

/// Connects to one of the host's addresses. One that does not answer must not use up the time for the others.
async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut addresses: Vec<_> = lookup_host((host, port)).await?.collect();
    let last = addresses.pop().ok_or(io::ErrorKind::NotFound)?;
    for address in addresses {
        if let Ok(Ok(stream)) = timeout(NEXT_ADDRESS, TcpStream::connect(address)).await {
            return Ok(stream);
        }
    }
    TcpStream::connect(last).await
}

/// Lets the SDK mark the connection that answers this request, whichever it is.
fn capture(request: &Request<SdkBody>) -> Arc<AtomicBool> {
    let is_poisoned = Arc::<AtomicBool>::default();
    if let Some(captured) = request.extensions().get::<CaptureSmithyConnection>() {
        let mark = Arc::clone(&is_poisoned);
        captured.set_connection_retriever(move || {
            let mark = Arc::clone(&mark);
            let connection = ConnectionMetadata::builder().proxied(false);
            let poison = move || mark.store(true, Ordering::Relaxed);
            Some(connection.poison_fn(poison).build())
        });
    }
    is_poisoned
}

async fn shake(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<SdkBody>, ConnectorError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    tokio::spawn(async move {
        // Whoever waits for an answer hears of its end.
        let _ = connection.await;
    });
    Ok(sender)
}

/// Where a request goes. It is left in the form that HTTP/1.1 has for a server.
fn take_origin(request: &mut Request<SdkBody>) -> Result<Origin, ConnectorError> {
    let parts = std::mem::take(request.uri_mut()).into_parts();
    let (Some(scheme), Some(authority), Some(path)) =
        (parts.scheme, parts.authority, parts.path_and_query)
    else {
        return Err(ConnectorError::user("a request without a host".into()));
    };
    *request.uri_mut() = Uri::from(path);
    if !request.headers().contains_key(HOST) {
        let host = HeaderValue::from_str(authority.as_str());
        let host = host.map_err(|error| ConnectorError::user(error.into()))?;
        request.headers_mut().insert(HOST, host);
    }
    Ok(Origin { scheme, authority })
}

fn broken(error: io::Error) -> ConnectorError {
    ConnectorError::io(error.into())
}

/// As the SDK's own client classifies hyper's errors, for what is retried.
fn lost(error: hyper::Error) -> ConnectorError {
    let is_io = error
        .source()
        .is_some_and(|source| source.downcast_ref::<io::Error>().is_some());
    if error.is_user() {
        ConnectorError::user(error.into())
    } else if error.is_closed() || error.is_canceled() || is_io {
        ConnectorError::io(error.into())
    } else if error.is_incomplete_message() {
        ConnectorError::other(error.into(), Some(ErrorKind::TransientError))
    } else {
        ConnectorError::other(error.into(), None)
    }
}

/// Body of a response. Returns its connection once it is read to the end, and closes it otherwise.
struct ResponseBody {
    body: Incoming,
    back: Option<(Idle, Connections, OwnedSemaphorePermit)>,
}

impl ResponseBody {
    fn give_back(&mut self) {
        if let Some((mut idle, connections, _permit)) = self.back.take() {
            idle.since = Instant::now();
            connections.idle().push(idle);
        }
    }

    fn give_back_at_end(&mut self) {
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.give_back(),
            Poll::Ready(Some(Ok(_))) => self.give_back_at_end(),
            Poll::Ready(Some(Err(_))) => self.back = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connections")
    }
}

/// With one client's time for connecting.
#[derive(Debug)]
struct Connector(Connections, Option<Duration>);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.0.clone().send(request, self.1))
    }
}

impl HttpClient for Connections {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector(self.clone(), settings.connect_timeout()))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use futures_util::future::join_all;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{HandshakeKind, ServerConfig};
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::sleep;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const BODY: &str = "a body";

    /// A service on this machine.
    struct Service {
        port: u16,
        connections: Rc<Cell<usize>>,
    }

    async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, requests: usize) {
        for _ in 0..requests {
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => read.push(byte),
                    Err(_) => return,
                }
            }
            sleep(Duration::from_millis(5)).await;
            let length = BODY.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{BODY}");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    impl Service {
        /// Answers so many requests on each connection, and then closes it.
        async fn start(requests: usize) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let connections = Rc::new(Cell::new(0));
            let count = Rc::clone(&connections);
            spawn_local(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    count.set(count.get() + 1);
                    spawn_local(serve(stream, requests));
                }
            });
            Self { port, connections }
        }

        fn request(&self) -> HttpRequest {
            let mut request = HttpRequest::new(SdkBody::empty());
            let uri = format!("http://127.0.0.1:{}/path", self.port);
            request.set_uri(uri).unwrap();
            request
        }

        async fn ask(&self, by: &Connections) -> Result<HttpResponse, ConnectorError> {
            let connect = Some(Duration::from_secs(5));
            by.clone().send(self.request(), connect).await
        }

        async fn read(&self, by: &Connections) -> Vec<u8> {
            let answer = self.ask(by).await.unwrap().into_body();
            let answer = aws_smithy_types::byte_stream::ByteStream::new(answer);
            answer.collect().await.unwrap().to_vec()
        }
    }

    async fn locally(test: impl Future<Output = ()>) {
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn calls_wait_for_one_of_a_few_connections() {
        locally(async {
            let service = Service::start(100).await;
            let connections = Connections::new(3);
            let calls = join_all((0..12).map(|_| service.read(&connections))).await;
            assert!(calls.iter().all(|body| body == BODY.as_bytes()));
            assert_eq!(service.connections.get(), 3);
            let other = connections.to_another(1);
            service.read(&other).await;
            assert_eq!(service.connections.get(), 4, "it shares none");
        })
        .await;
    }

    #[tokio::test]
    async fn a_connection_that_the_service_closed_is_replaced() {
        locally(async {
            let service = Service::start(1).await;
            let connections = Connections::new(1);
            for number in 1..=5 {
                assert_eq!(service.read(&connections).await, BODY.as_bytes());
                sleep(Duration::from_millis(20)).await;
                assert_eq!(service.connections.get(), number);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_costs_its_connection_and_holds_up_nobody() {
        locally(async {
            let service = Service::start(100).await;
            let connections = Connections::new(1);
            drop(service.ask(&connections).await.unwrap());
            assert_eq!(service.read(&connections).await, BODY.as_bytes());
            assert_eq!(service.connections.get(), 2);
        })
        .await;
    }

    #[tokio::test]
    async fn more_connections_are_opened_to_where_one_leads() {
        locally(async {
            let service = Service::start(100).await;
            let connections = Connections::new(4);
            connections.prepare_more(3).await;
            assert_eq!(service.connections.get(), 0, "nobody knows where");
            service.read(&connections).await;
            connections.prepare_more(3).await;
            sleep(Duration::from_millis(20)).await;
            assert_eq!(service.connections.get(), 4);
            join_all((0..4).map(|_| service.read(&connections))).await;
            assert_eq!(service.connections.get(), 4, "they are used");
        })
        .await;
    }

    #[tokio::test]
    async fn more_connections_resume_the_first_ones_session() {
        locally(async {
            let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            let provider = rustls::crypto::ring::default_provider().into();
            let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![own.cert.der().clone()], key)
                .unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let kinds = Rc::new(RefCell::new(Vec::new()));
            let seen = Rc::clone(&kinds);
            spawn_local(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let stream = acceptor.accept(stream).await.unwrap();
                    seen.borrow_mut().push(stream.get_ref().1.handshake_kind());
                    spawn_local(serve(stream, 1));
                }
            });
            let mut roots = RootCertStore::empty();
            roots.add(own.cert.der().clone()).unwrap();
            let connections = Connections::with(tls(roots).into(), 3, IDLE);
            connections
                .prepare(&format!("https://127.0.0.1:{port}"))
                .await;
            sleep(Duration::from_millis(50)).await;
            connections.prepare_more(2).await;
            sleep(Duration::from_millis(50)).await;
            let [full, resumed] = [HandshakeKind::Full, HandshakeKind::Resumed].map(Some);
            assert_eq!(*kinds.borrow(), [full, resumed, resumed]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_connection_that_the_sdk_marks_is_not_used_again() {
        locally(async {
            let service = Service::start(100).await;
            let connections = Connections::new(1);
            let captured = CaptureSmithyConnection::new();
            let mut request = service.request();
            request.add_extension(captured.clone());
            let answer = connections.clone().send(request, None).await.unwrap();
            let body = aws_smithy_types::byte_stream::ByteStream::new(answer.into_body());
            body.collect().await.unwrap();
            captured.get().unwrap().poison();
            service.read(&connections).await;
            assert_eq!(service.connections.get(), 2);
            service.read(&connections).await;
            assert_eq!(service.connections.get(), 2, "the other one is well");
        })
        .await;
    }

    #[tokio::test]
    async fn nobody_there_is_told_as_what_may_be_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut request = HttpRequest::new(SdkBody::empty());
        request
            .set_uri(format!("http://127.0.0.1:{port}/"))
            .unwrap();
        let asked = Connections::new(1).send(request, None).await;
        assert!(asked.unwrap_err().is_io());
    }
}
