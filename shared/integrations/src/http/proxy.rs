//! Egress proxy of the stack, which is asked by CONNECT (RFC 9110, section 9.3.6) for connections to others.

use std::net::SocketAddr;
use std::str::FromStr;

use base64_simd::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

use super::dial;

/// Most of a proxy's answer that is read.
const HEAD_BYTES: usize = 8 * 1024;

/// Proxy for every connection of a function.
#[derive(Debug, Clone)]
pub struct Proxy {
    host: Host<String>,
    port: u16,
    /// Value of `Proxy-Authorization`.
    authorization: Option<SecretString>,
    names: Vec<String>,
}

/// The text is no proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the URL of a proxy, as http://proxy.corp.example.org:3128, without a user, a password and a path"
)]
pub struct Malformed;

/// The proxy did not open a connection. Says nothing of the destination.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(
        "the proxy refused with status 407: set its credentials by the stack's parameter HttpsProxySecret"
    )]
    Unauthorized,
    #[error("the proxy refused with status {0}")]
    Refused(u16),
    #[error("the proxy's answer could not be understood")]
    Unread,
    #[error("the proxy could not be reached")]
    Unreachable(#[source] std::io::Error),
    #[error("the proxy did not answer in time")]
    Late,
}

impl FromStr for Proxy {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let url = Url::parse(text).map_err(|_| Malformed)?;
        let has_more = !url.username().is_empty()
            || url.password().is_some()
            || url.path() != "/"
            || url.query().is_some()
            || url.fragment().is_some();
        match (url.scheme(), url.host(), url.port_or_known_default()) {
            ("http", Some(host), Some(port)) if !has_more => Ok(Self {
                host: host.to_owned(),
                port,
                authorization: None,
                names: Vec::new(),
            }),
            _ => Err(Malformed),
        }
    }
}

impl Proxy {
    /// With credentials, `user:password` (RFC 7617).
    #[must_use]
    pub fn with_credentials(mut self, credentials: &str) -> Self {
        let value = format!("Basic {}", STANDARD.encode_to_string(credentials.trim()));
        self.authorization = Some(value.into());
        self
    }

    /// With names that the proxy alone can resolve, separated by commas: `dt.corp.example.org,*.lab.example.org`.
    #[must_use]
    pub fn with_names(mut self, names: &str) -> Self {
        let names = names.split(',').map(|name| name.trim().to_lowercase());
        self.names = names.filter(|name| !name.is_empty()).collect();
        self
    }

    /// Reports whether this name may be left to the proxy to resolve.
    pub(super) fn resolves(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_lowercase();
        self.names
            .iter()
            .any(|pattern| match pattern.strip_prefix('*') {
                // A dot in front, so that `*.example.org` is not `badexample.org`.
                Some(suffix) => {
                    suffix.starts_with('.') && name.len() > suffix.len() && name.ends_with(suffix)
                }
                None => name == *pattern,
            })
    }

    /// Connects through the proxy to the first of these addresses for which it does.
    pub(super) async fn tunnel_to_any(
        &self,
        addresses: &[SocketAddr],
        until: Instant,
    ) -> Result<TcpStream, Failure> {
        let mut failure = Failure::Late;
        for (index, address) in addresses.iter().enumerate() {
            let until = dial::share(until, addresses.len() - index);
            let host = match address {
                SocketAddr::V4(address) => Host::Ipv4(*address.ip()),
                SocketAddr::V6(address) => Host::Ipv6(*address.ip()),
            };
            match self.tunnel(&host, address.port(), until).await {
                Ok(stream) => return Ok(stream),
                // To the proxy all addresses are alike then.
                Err(error @ (Failure::Unauthorized | Failure::Unreachable(_))) => {
                    return Err(error);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Connects through the proxy to what it understands by this host.
    pub(super) async fn tunnel(
        &self,
        host: &Host<&str>,
        port: u16,
        until: Instant,
    ) -> Result<TcpStream, Failure> {
        let tunnel = self.try_tunnel(host, port);
        timeout_at(until, tunnel).await.map_err(|_| Failure::Late)?
    }

    async fn try_tunnel(&self, host: &Host<&str>, port: u16) -> Result<TcpStream, Failure> {
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str("Proxy-Authorization: ");
            request.push_str(authorization.expose_secret());
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        let connected = match &self.host {
            Host::Domain(name) => TcpStream::connect((name.as_str(), self.port)).await,
            Host::Ipv4(address) => TcpStream::connect((*address, self.port)).await,
            Host::Ipv6(address) => TcpStream::connect((*address, self.port)).await,
        };
        let mut stream = connected.map_err(Failure::Unreachable)?;
        stream.set_nodelay(true).map_err(Failure::Unreachable)?;
        let written = stream.write_all(request.as_bytes()).await;
        written.map_err(Failure::Unreachable)?;
        match status(&mut stream).await? {
            200..=299 => Ok(stream),
            407 => Err(Failure::Unauthorized),
            status => Err(Failure::Refused(status)),
        }
    }
}

/// Reads the head of the answer, byte by byte: what follows it is the destination's, as a mail server's greeting.
async fn status(stream: &mut TcpStream) -> Result<u16, Failure> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES {
            return Err(Failure::Unread);
        }
        let byte = stream.read_u8().await;
        head.push(byte.map_err(|_| Failure::Unread)?);
    }
    // HTTP/1.1 200 Connection established
    let mut words = head.split(|&byte| byte == b' ' || byte == b'\r');
    let is_http = words
        .next()
        .is_some_and(|version| version.starts_with(b"HTTP/1."));
    let status = words.next().and_then(|word| str::from_utf8(word).ok());
    match status.and_then(|status| status.parse().ok()) {
        Some(status @ 100..=599) if is_http => Ok(status),
        _ => Err(Failure::Unread),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use bytes::Bytes;
    use http::Request;
    use tokio::io::copy_bidirectional;
    use tokio::net::TcpListener;

    use super::*;
    use crate::error::{About, Kind};
    use crate::fixture::Peer;
    use crate::http::Guard;
    use crate::{Error, Http};

    const OPEN: &str = "HTTP/1.1 200 Connection established\r\nvia: 1.1 corp\r\n\r\n";

    /// A proxy that gives each CONNECT this answer, leads to `peer` after a good one, and keeps what it was asked.
    async fn serve(answer: &'static str, peer: SocketAddr) -> (Proxy, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                seen.lock().unwrap().push(String::from_utf8(head).unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
                if answer.starts_with("HTTP/1.1 2") {
                    let mut peer = TcpStream::connect(peer).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut peer).await;
                }
            }
        });
        (format!("http://{at}").parse().unwrap(), asked)
    }

    fn through(proxy: Proxy) -> Http {
        Http::new(Guard {
            proxy: Some(Arc::new(proxy)),
            ..Guard::local()
        })
    }

    async fn get(http: &Http, url: &str) -> Result<u16, Error> {
        let request = Request::get(url).body(Bytes::new()).unwrap();
        Ok(http.send(request).await?.status.as_u16())
    }

    fn peer(peer: &Peer) -> SocketAddr {
        peer.origin.trim_start_matches("http://").parse().unwrap()
    }

    #[tokio::test]
    async fn what_resolves_here_is_asked_for_by_its_address() {
        let party = Peer::start(&[crate::fixture::OK, crate::fixture::OK]);
        let at = peer(&party);
        let (proxy, asked) = serve(OPEN, at).await;
        let http = through(proxy.with_credentials("user:pass\n"));
        assert_eq!(get(&http, &party.origin).await.unwrap(), 200);
        let named = format!("http://localhost:{}/", at.port());
        assert_eq!(get(&http, &named).await.unwrap(), 200);
        let asked = asked.lock().unwrap();
        let connect = |to: &str| {
            format!(
                "CONNECT {to}:{port} HTTP/1.1\r\nHost: {to}:{port}\r\n\
                 Proxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n",
                port = at.port()
            )
        };
        assert_eq!(asked[0], connect("127.0.0.1"));
        // Which of the two localhost is, the machine says.
        let names = [connect("127.0.0.1"), connect("[::1]")];
        assert!(names.contains(&asked[1]), "{}", asked[1]);
        let received = party.received();
        assert!(!received[0].headers.contains_key("proxy-authorization"));
        assert_eq!(
            received[1].headers["host"],
            format!("localhost:{}", at.port())
        );
    }

    #[tokio::test]
    async fn a_name_that_the_proxy_alone_can_resolve_is_sent_if_it_is_listed() {
        let party = Peer::start(&[]);
        let (proxy, asked) = serve(OPEN, peer(&party)).await;
        let http = through(proxy.with_names("dt.corp.invalid, *.Lab.invalid"));
        for url in [
            "https://dt.corp.invalid/x",
            "https://a.b.lab.invalid:8443/x",
        ] {
            // The third party speaks no TLS: it is reached, which is what matters here.
            let error = get(&http, url).await.unwrap_err();
            assert!(!error.text.contains("proxy"), "{error}");
        }
        for url in [
            "https://other.corp.invalid",
            "https://lab.invalid",
            "https://evil-lab.invalid",
            "https://dt.corp.invalid.invalid",
        ] {
            let error = get(&http, url).await.unwrap_err();
            assert_eq!(
                error.text,
                format!(
                    "reach {url}: its name could not be resolved; the stack's parameter ProxyNames could leave it to \
                     the proxy"
                )
            );
        }
        // Not by another port than those for the public either.
        let error = get(&http, "https://dt.corp.invalid:9443")
            .await
            .unwrap_err();
        assert!(error.text.contains("this port is not allowed"), "{error}");
        let asked = asked.lock().unwrap();
        let targets: Vec<_> = asked
            .iter()
            .map(|head| head.split(' ').nth(1).unwrap())
            .collect();
        assert_eq!(targets, ["dt.corp.invalid:443", "a.b.lab.invalid:8443"]);
    }

    #[tokio::test]
    async fn what_is_not_allowed_does_not_reach_the_proxy() {
        let party = Peer::start(&[]);
        let (proxy, asked) = serve(OPEN, peer(&party)).await;
        let http = Http::new(Guard {
            proxy: Some(Arc::new(proxy.with_names("*"))),
            ..Guard::default()
        });
        for url in [
            "https://127.0.0.1",
            "https://localhost",
            "https://10.0.0.1",
            "https://169.254.169.254",
            "https://[fd00:ec2::254]",
            "http://8.8.8.8",
            "https://8.8.8.8:9001",
        ] {
            let error = get(&http, url).await.unwrap_err();
            assert_eq!(error.kind, Kind::Permanent, "{url}: {error}");
        }
        assert_eq!(asked.lock().unwrap().len(), 0);
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_says_nothing_of_the_destination() {
        let nowhere = "127.0.0.1:9".parse().unwrap();
        for (answer, reason) in [
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\n\r\n",
                "the proxy refused with status 407: set its credentials by the stack's parameter HttpsProxySecret",
            ),
            (
                "HTTP/1.0 403 Forbidden\r\n\r\n",
                "the proxy refused with status 403",
            ),
            ("HTTP/1.1 503\r\n\r\n", "the proxy refused with status 503"),
            (
                "HTTP/1.1 2000 OK\r\n\r\n",
                "the proxy's answer could not be understood",
            ),
            (
                "SSH-2.0-OpenSSH_9.2\r\n\r\n",
                "the proxy's answer could not be understood",
            ),
            ("\r\n\r\n", "the proxy's answer could not be understood"),
            (
                concat!(
                    "HTTP/1.1 200 OK\r\nx: ",
                    include_str!("../smtp/connection.rs")
                ),
                "the proxy's answer could not be understood",
            ),
        ] {
            let (proxy, _) = serve(answer, nowhere).await;
            let error = get(&through(proxy), "https://127.0.0.1:8443")
                .await
                .unwrap_err();
            assert_eq!(
                error.text,
                format!("reach https://127.0.0.1:8443: {reason}")
            );
            assert_eq!(
                (error.kind, error.about),
                (Kind::Retryable { after: None }, About::Delivery)
            );
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        drop(listener);
        let gone = through(format!("http://{at}").parse().unwrap());
        let error = get(&gone, "https://127.0.0.1:8443").await.unwrap_err();
        assert_eq!(
            error.text,
            "reach https://127.0.0.1:8443: the proxy could not be reached"
        );
    }

    #[tokio::test]
    async fn what_comes_with_the_proxys_answer_is_the_destinations() {
        const GREETED: &str = "HTTP/1.1 200 OK\r\n\r\n220 mail.example.org\r\n";
        let party = Peer::start(&[]);
        let (proxy, _) = serve(GREETED, peer(&party)).await;
        let until = Instant::now() + Duration::from_secs(5);
        let host = Host::Domain("mail.example.org");
        let mut stream = proxy.tunnel(&host, 587, until).await.unwrap();
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 ");
    }

    #[tokio::test]
    async fn a_proxy_that_hangs_ends_with_the_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy: Proxy = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let until = Instant::now() + Duration::from_millis(50);
        let error = proxy.tunnel(&Host::Domain("example.org"), 443, until).await;
        assert!(matches!(error, Err(Failure::Late)), "{error:?}");
    }

    #[test]
    fn a_proxy_is_a_plain_url_and_shows_no_credentials() {
        for text in [
            "proxy:3128",
            "https://proxy:3128",
            "http://user:pass@proxy:3128",
            "http://proxy:3128/path",
            "http://proxy:3128?x",
            "socks5://proxy",
            "",
        ] {
            assert_eq!(text.parse::<Proxy>().err(), Some(Malformed), "{text}");
        }
        let proxy: Proxy = "http://proxy.corp.example.org:3128".parse().unwrap();
        let shown = format!("{:?}", proxy.with_credentials("user:pass"));
        assert!(
            !shown.contains("dXNlcjpwYXNz") && !shown.contains("pass"),
            "{shown}"
        );
    }
}
