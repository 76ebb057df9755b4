//! Opens materials in a Chainloop control plane's artifact store, by their digest.
//!
//! The control plane answers with a redirect to the store itself, whose URL holds a token that is good for 30 s. So
//! this is the one place where a redirect is followed: once, to where the guard lets every request go, and without
//! our API token if that is another host.

use std::time::Duration;

use attestation::Digest;
use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderValue, Request, StatusCode};
use url::Url;

use crate::http::{self as client, origin};
use crate::inputs::web_url;
use crate::{Error, Http};

pub use crate::http::Download;

/// The URL of a control plane, or what would be right.
pub fn base(text: &str) -> Result<Url, &'static str> {
    let url = web_url(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment");
    }
    if !client::is_sendable(&url) {
        return Err("must be an https URL on port 443 or 8443");
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
            http.open(request(&next, token)?, most, within).await?
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

/// Where a control plane has a material. A path that its URL has stays in front.
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

/// Where a redirect goes to; none when the answer is not one.
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

/// Whether what is for the one may be told to the other.
fn is_same(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_an_https_url_and_nothing_more() {
        for text in [
            "https://chainloop.example.org",
            "https://chainloop.example.org:8443/api/",
            "http://localhost:8080",
            "http://127.0.0.1:8080",
        ] {
            assert!(base(text).is_ok(), "{text}");
        }
        for text in [
            "chainloop.example.org",
            "http://chainloop.example.org",
            "https://chainloop.example.org:22",
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
