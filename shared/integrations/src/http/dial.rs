//! Connections: to vetted addresses alone, directly or through the stack's proxy.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use url::Host;

use super::guard::{Guard, Refused, Way, is_local, refuse};
use super::proxy;
use crate::error::{About, Error};

/// One address of several that does not answer must not use up the time of the others.
const EACH: Duration = Duration::from_secs(5);

/// Reason why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Refused(#[from] Refused),
    #[error("its name could not be resolved")]
    Unresolved(#[source] io::Error),
    #[error(
        "its name could not be resolved; the stack's parameter ProxyNames could leave it to the proxy"
    )]
    Unlisted(#[source] io::Error),
    #[error("no connection in time")]
    Late,
    #[error("{}", explain_io(.0))]
    Broken(#[source] io::Error),
    #[error("{0}")]
    Proxy(#[from] proxy::Failure),
}

impl Failure {
    /// As a delivery's error: `failed to reach https://example.org: …`.
    pub(crate) fn error(&self, place: &str) -> Error {
        let error = Error::retryable(format!("reach {place}: {self}"));
        match self {
            Self::Refused(refused) => refuse(place, *refused),
            // Says nothing of the destination.
            Self::Proxy(_) => error.about(About::Delivery),
            Self::Unresolved(_) | Self::Unlisted(_) | Self::Late | Self::Broken(_) => error,
        }
    }
}

fn explain_io(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        _ => "the connection broke",
    }
}

/// Connects to one of the host's addresses, all of which the guard has vetted: there is no second look-up to answer
/// differently.
pub(super) async fn dial<N: AsRef<str>>(
    guard: &Guard,
    host: &Host<N>,
    way: Way,
    until: Instant,
) -> Result<TcpStream, Failure> {
    guard.admit(host, way)?;
    let addresses = match host {
        Host::Ipv4(address) => vec![SocketAddr::new((*address).into(), way.port)],
        Host::Ipv6(address) => vec![SocketAddr::new((*address).into(), way.port)],
        Host::Domain(name) => {
            let name = name.as_ref();
            let proxy = guard.proxy_for(name);
            // A network without a way out may not answer for names of others at all.
            let patience = if proxy.is_some() {
                share(until, 2)
            } else {
                until
            };
            match (look_up(name, way.port, patience).await, proxy) {
                (Err(Failure::Unresolved(_) | Failure::Late), Some(proxy)) => {
                    let named = Host::Domain(name);
                    return Ok(proxy.tunnel(&named, way.port, until).await?);
                }
                (Err(Failure::Unresolved(error)), None) if guard.proxy.is_some() => {
                    return Err(Failure::Unlisted(error));
                }
                (found, _) => found?,
            }
        }
    };
    for address in &addresses {
        guard.vet(is_local(host), address.ip(), way)?;
    }
    match &guard.proxy {
        Some(proxy) => Ok(proxy.tunnel_to_any(&addresses, until).await?),
        None => connect_to_any(&addresses, until).await,
    }
}

async fn look_up(name: &str, port: u16, until: Instant) -> Result<Vec<SocketAddr>, Failure> {
    let found = timeout_at(until, tokio::net::lookup_host((name, port))).await;
    match found.map_err(|_| Failure::Late)? {
        Ok(found) => {
            let found: Vec<_> = found.collect();
            match found.is_empty() {
                true => Err(Failure::Unresolved(io::ErrorKind::NotFound.into())),
                false => Ok(found),
            }
        }
        Err(error) => Err(Failure::Unresolved(error)),
    }
}

/// Connects to the first that accepts; each gets its share of the time.
async fn connect_to_any(addresses: &[SocketAddr], until: Instant) -> Result<TcpStream, Failure> {
    let mut failure = Failure::Unresolved(io::ErrorKind::NotFound.into());
    for (index, &address) in addresses.iter().enumerate() {
        let until = share(until, addresses.len() - index);
        match timeout_at(until, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(Failure::Broken)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failure = Failure::Broken(error),
            Err(_) => failure = Failure::Late,
        }
    }
    Err(failure)
}

/// The end of what the first of so many may take.
pub(super) fn share(until: Instant, count: usize) -> Instant {
    let now = Instant::now();
    let left = until.saturating_duration_since(now);
    now + EACH.min(left / u32::try_from(count.max(1)).unwrap_or(u32::MAX))
}
