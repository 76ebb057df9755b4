//! Opens materials in a Chainloop control plane's artifact store, by their digest.
//!
//! The control plane answers with a redirect to the store itself, whose URL holds a token that is good for 30 s. So
//! this is the one place where a redirect is followed: once, to where the guard lets every request go, and without
//! our API token if that is another host.

use std::time::Duration;

use api::inputs::web_url;
use attestation::Digest;
use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderValue, Request, StatusCode};
use url::Url;

use crate::http::origin;
use crate::{Error, Http, Redactor};

pub use crate::http::Download;

/// The URL of a control plane, or what would be right.
pub fn base(text: &str) -> Result<Url, &'static str> {
    let url = web_url(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment");
    }
    Ok(url)
}

/// Opens the material with this digest: at most `most` bytes of it, all of which have to come within this time.
/// What comes is for the caller to check.
pub async fn open(
    http: &Http,
    url: &str,
    token: &str,
    digest: &Digest,
    most: u64,
    within: Duration,
) -> Result<Download, Error> {
    let redactor = Redactor::default();
    redactor.learn(token);
    let http = &http.masking(&redactor);
    let opened = try_open(http, url, token, digest, most, within).await;
    opened.map_err(|error| redactor.error(error))
}

async fn try_open(
    http: &Http,
    url: &str,
    token: &str,
    digest: &Digest,
    most: u64,
    within: Duration,
) -> Result<Download, Error> {
    let base = base(url)
        .map_err(|detail| Error::permanent(format!("fetch {digest}: the URL {detail}")))?;
    let place = download_url(&base, digest);
    let first = http
        .open(request(&place, Some(token))?, most, within)
        .await?;
    let download = match target(&place, &first)? {
        None => first,
        Some(next) => {
            let token = is_same(&place, &next).then_some(token);
            let opened = http.open(request(&next, token)?, most, within).await;
            opened.map_err(|error| error.sent_by(&origin(&place)))?
        }
    };
    match download.status() {
        StatusCode::OK => Ok(download),
        status => {
            // What it says is not kept: it may repeat the token.
            let status = status.as_u16();
            Err(Error::retryable(format!(
                "fetch {digest}: answered {status}"
            )))
        }
    }
}

/// Returns the URL of a material at a control plane. A path in `base` stays in front.
fn download_url(base: &Url, digest: &Digest) -> Url {
    let mut url = base.clone();
    let path = url.path().trim_end_matches('/');
    url.set_path(&format!("{path}/download/{digest}"));
    url
}

fn request(url: &Url, token: Option<&str>) -> Result<Request<Bytes>, Error> {
    let mut request = Request::get(url.as_str());
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Error::permanent("fetch a material: the token is no header value"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request
        .body(Bytes::new())
        .map_err(|_| Error::permanent(format!("fetch from {}: not a valid URL", origin(url))))
}

/// Returns the target of a redirect; `None` for any other response.
fn target(place: &Url, answer: &Download) -> Result<Option<Url>, Error> {
    let status = answer.status();
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = answer.headers().get(LOCATION);
    let location = location.and_then(|location| location.to_str().ok());
    let next = location.and_then(|location| place.join(location).ok());
    let Some(next) = next else {
        let status = status.as_u16();
        let text = format!("fetch from {}: answered {status} to nowhere", origin(place));
        return Err(Error::retryable(text));
    };
    // The guard would let http go to loopback in local mode, also when a stranger asks for it.
    if place.scheme() == "https" && next.scheme() != "https" {
        let text = format!(
            "fetch from {}: it leads to a URL that is not https",
            origin(place)
        );
        return Err(Error::permanent(text));
    }
    Ok(Some(next))
}

/// Reports whether the two URLs share an origin, so that either may get the other's token.
fn is_same(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::Kind;
    use crate::fixture::{Peer, http};

    const TOKEN: &str = "a-token-of-chainloop";
    const SOON: Duration = Duration::from_secs(10);

    /// Downloads at most ten bytes.
    async fn fetch(origin: &str, within: Duration) -> Result<Vec<u8>, Error> {
        let digest = Digest::of(b"x");
        let mut download = open(&http(), origin, TOKEN, &digest, 10, within).await?;
        let mut all = Vec::new();
        while let Some(bytes) = download.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    fn ok(body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
    }

    fn redirect(to: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
    }

    #[tokio::test]
    async fn what_is_there_comes_by_its_digest_and_with_the_token() {
        let party = Peer::start(&[&ok("0123456789")]);
        assert_eq!(fetch(&party.origin, SOON).await.unwrap(), b"0123456789");
        let received = &party.received()[0];
        assert_eq!(received.target, format!("/download/{}", Digest::of(b"x")));
        assert_eq!(received.headers["authorization"], format!("Bearer {TOKEN}"));
    }

    #[tokio::test]
    async fn another_host_is_followed_to_without_the_token() {
        let store = Peer::start(&[&ok("x")]);
        let plane = Peer::start(&[&redirect(&format!("{}/d?t=jwt", store.origin))]);
        assert_eq!(fetch(&plane.origin, SOON).await.unwrap(), b"x");
        let received = &store.received()[0];
        assert_eq!(received.target, "/d?t=jwt");
        assert!(!received.headers.contains_key("authorization"));
    }

    #[tokio::test]
    async fn the_same_host_is_followed_to_with_the_token() {
        let party = Peer::start(&[&redirect("/elsewhere"), &ok("x")]);
        assert_eq!(fetch(&party.origin, SOON).await.unwrap(), b"x");
        let received = &party.received()[1];
        assert_eq!(received.target, "/elsewhere");
        assert_eq!(received.headers["authorization"], format!("Bearer {TOKEN}"));
    }

    #[tokio::test]
    async fn one_redirect_is_followed_and_no_second_one() {
        let party = Peer::start(&[&redirect("/one"), &redirect("/two"), &ok("x")]);
        let error = fetch(&party.origin, SOON).await.unwrap_err();
        assert!(error.text.ends_with("answered 302"), "{error}");
        assert_eq!(party.received().len(), 2);
    }

    #[tokio::test]
    async fn a_redirect_goes_where_the_guard_lets_it_and_nowhere_else() {
        for (to, says) in [
            ("http://10.0.0.1/", "a private address is not allowed"),
            (
                "https://169.254.169.254/",
                "a link-local address is not allowed",
            ),
            ("http://example.org/", "is not allowed"),
            ("ftp://example.org/", "is not allowed"),
        ] {
            let party = Peer::start(&[&redirect(to)]);
            let error = fetch(&party.origin, SOON).await.unwrap_err();
            assert_eq!(error.kind, Kind::Permanent, "{to}: {error}");
            assert!(error.text.contains(says), "{to}: {error}");
        }
        let party = Peer::start(&["HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n"]);
        let error = fetch(&party.origin, SOON).await.unwrap_err();
        assert!(error.text.ends_with("answered 302 to nowhere"), "{error}");
    }

    #[tokio::test]
    async fn any_other_status_is_tried_again_and_what_it_says_is_not_kept() {
        for status in [400, 401, 403, 404, 429, 500, 503] {
            let says = format!("HTTP/1.1 {status} x\r\ncontent-length: 20\r\n\r\n{TOKEN}");
            let party = Peer::start(&[&says]);
            let error = fetch(&party.origin, SOON).await.unwrap_err();
            assert_eq!(error.kind, Kind::Retryable { after: None }, "{error}");
            assert!(
                error.text.ends_with(&format!("answered {status}")),
                "{error}"
            );
            assert!(error.answer.is_none() && !format!("{error:?}").contains(TOKEN));
        }
    }

    #[tokio::test]
    async fn what_is_too_large_is_left_whether_it_says_so_or_not() {
        let chunked =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\n0123456789x\r\n0\r\n\r\n";
        for answer in [&ok("0123456789x"), chunked] {
            let party = Peer::start(&[answer]);
            let error = fetch(&party.origin, SOON).await.unwrap_err();
            assert_eq!(error.kind, Kind::Permanent, "{error}");
            assert!(error.text.ends_with("it is too large"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_end() {
        let party = Peer::start(&["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234"]);
        let error = fetch(&party.origin, SOON).await.unwrap_err();
        assert!(error.text.ends_with("the connection broke"), "{error}");
    }

    #[tokio::test]
    async fn all_of_it_has_to_come_in_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // An answer that comes before its request would be a fault of its own.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234");
            let _ = stream.read(&mut [0; 1]);
        });
        let error = fetch(&origin, Duration::from_secs(3)).await.unwrap_err();
        assert!(
            error.text.ends_with("the end did not come in time"),
            "{error}"
        );
    }

    #[test]
    fn a_base_is_a_web_url_and_nothing_more() {
        for text in [
            "https://chainloop.example.org",
            "https://chainloop.example.org:8443/api/",
            "http://localhost:8080",
            "http://127.0.0.1:8080",
            // Where a list of networks allows it.
            "http://chainloop.corp.example.org:8080",
        ] {
            assert!(base(text).is_ok(), "{text}");
        }
        for text in [
            "chainloop.example.org",
            "https://user:pass@chainloop.example.org",
            "https://chainloop.example.org?a=b",
            "https://chainloop.example.org#a",
            "ftp://chainloop.example.org",
        ] {
            assert!(base(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_stays_in_front() {
        let digest = Digest::of(b"x");
        for (text, expected) in [
            ("https://a.example.org", "https://a.example.org/download/"),
            ("https://a.example.org/", "https://a.example.org/download/"),
            (
                "https://a.example.org/b/",
                "https://a.example.org/b/download/",
            ),
        ] {
            let url = download_url(&base(text).unwrap(), &digest);
            assert_eq!(url.as_str(), format!("{expected}{digest}"));
        }
    }

    #[test]
    fn another_port_or_scheme_is_another_host() {
        let url = |text: &str| Url::parse(text).unwrap();
        let one = url("https://a.example.org/download");
        assert!(is_same(&one, &url("https://a.example.org:443/x")));
        for other in [
            "https://b.example.org/",
            "https://a.example.org:8443/",
            "http://a.example.org/",
        ] {
            assert!(!is_same(&one, &url(other)), "{other}");
        }
    }
}
