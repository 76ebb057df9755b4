//! Connections of the HTTP client: dialed, and with TLS around them where the URL says so.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;
use url::Host;

use super::dial::{self, dial};
use super::guard::{Guard, Refused, Way};
use super::tls;
use crate::Error;

/// Ports that serve HTTPS to the public. Any other is more often an admin port.
const PORTS: [u16; 2] = [443, 8443];

/// Reason why there is no connection to speak HTTP on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Dial(#[from] dial::Failure),
    #[error("{}", explain_tls(.0))]
    Tls(#[source] io::Error),
}

impl Failure {
    /// As a delivery's error: `failed to reach https://example.org: …`.
    pub(super) fn error(&self, place: &str) -> Error {
        match self {
            Self::Dial(failure) => failure.error(place),
            Self::Tls(_) => Error::retryable(format!("reach {place}: {self}")),
        }
    }
}

/// Finds the reason among the causes of an error.
pub(super) fn failure<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Failure> {
    tls::causes(error).find_map(|cause| cause.downcast_ref())
}

fn explain_tls(error: &io::Error) -> &'static str {
    match (tls::failure(error), error.kind()) {
        (Some((reason, _)), _) => reason,
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            "the connection ended in the TLS handshake"
        }
        _ => "the connection broke",
    }
}

#[derive(Clone)]
pub(super) struct Connector {
    guard: Guard,
    tls: TlsConnector,
    /// For name, connection and TLS together.
    within: Duration,
}

impl Connector {
    pub(super) fn new(guard: Guard, tls: Arc<rustls::ClientConfig>, within: Duration) -> Self {
        let tls = TlsConnector::from(tls);
        Self { guard, tls, within }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, Failure> {
        let until = Instant::now() + self.within;
        let (host, way) = destination(&uri).map_err(dial::Failure::from)?;
        let tcp = dial(&self.guard, &host, way, until).await?;
        if way.is_plain {
            return Ok(TokioIo::new(Stream::Plain(tcp)));
        }
        let name = match host {
            Host::Domain(name) => ServerName::try_from(name)
                .map_err(|_| dial::Failure::from(Refused::Never("this name")))?,
            Host::Ipv4(address) => ServerName::from(std::net::IpAddr::from(address)),
            Host::Ipv6(address) => ServerName::from(std::net::IpAddr::from(address)),
        };
        match timeout_at(until, self.tls.connect(name, tcp)).await {
            Ok(Ok(stream)) => Ok(TokioIo::new(Stream::Tls(Box::new(stream)))),
            Ok(Err(error)) => Err(Failure::Tls(error)),
            Err(_) => Err(dial::Failure::Late.into()),
        }
    }
}

/// Returns host and way of a URL.
pub(super) fn destination(uri: &Uri) -> Result<(Host<String>, Way), Refused> {
    let is_plain = uri.scheme_str() == Some("http");
    let way = Way {
        port: uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 }),
        is_plain,
        public_ports: &PORTS,
    };
    let host = Host::parse(uri.host().unwrap_or_default());
    let host = host.map_err(|_| Refused::Never("an address without a host"))?;
    Ok((host, way))
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
