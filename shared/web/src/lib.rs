//! The console: a page for browsers that shows deliveries, and is a client of the API as the command line is.
//!
//! It is files alone, which stand in `files/` as browsers get them: nothing builds them. The page is `/console`; what it
//! is made of is below `/console/<version>`, where the version is a digest of all of it, so that browsers keep it for as
//! long as they like. Every view is one page load of `/console`, whose query says what is looked at.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::borrow::Cow;
use std::sync::LazyLock;

use attestation::Digest;

const PAGE: &str = include_str!("../files/index.html");

/// A file of the page, with its media type.
struct File {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($name:literal: $kind:expr;)*) => {
        &[$(File { name: $name, kind: $kind, text: include_str!(concat!("../files/", $name)) }),*]
    };
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: &[File] = files! {
    "api.js": SCRIPT;
    "app.js": SCRIPT;
    "attestation.js": SCRIPT;
    "console.css": "text/css; charset=utf-8";
    "deliveries.js": SCRIPT;
    "delivery.js": SCRIPT;
    "health.js": SCRIPT;
    "icon.svg": "image/svg+xml";
    "page.js": SCRIPT;
    "registrations.js": SCRIPT;
    "sign-in.js": SCRIPT;
    "where.js": SCRIPT;
};

/// Digits of the digest of all files.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let texts = FILES.iter().map(|file| file.text).chain([PAGE]);
    let parts: Vec<&[u8]> = texts.map(str::as_bytes).collect();
    Digest::of_parts(&parts).hex()[..16].to_owned()
});

/// The page, with the version in the addresses of its files.
static PAGE_OF_VERSION: LazyLock<String> = LazyLock::new(|| PAGE.replace("VERSION", &VERSION));

/// Headers of every response. Nothing comes from elsewhere, goes elsewhere, or is inside of another page; no text becomes
/// markup, which browsers with Trusted Types refuse as well.
const HEADERS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
];

/// Response to a browser.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    pub body: &'static str,
}

impl Response {
    fn new(status: u16, kind: &'static str, cache: &'static str, body: &'static str) -> Self {
        let more = [("cache-control", cache), ("content-type", kind)];
        let headers = HEADERS.into_iter().chain(more);
        Self {
            status,
            headers: headers.map(|(name, value)| (name, value.into())).collect(),
            body,
        }
    }
}

/// Answers a request by its path, before which a domain name's mapping may stand, and its header `If-None-Match`.
pub fn answer(path: &str, known: Option<&str>) -> Response {
    let mut parts = path.rsplit('/');
    match [parts.next(), parts.next(), parts.next()].map(Option::unwrap_or_default) {
        ["console", ..] => page(known),
        [name, version, "console"] if version == *VERSION => file(name),
        _ => not_found(),
    }
}

/// Browsers ask each time whether it is still the same: with the next release, it names other files.
fn page(known: Option<&str>) -> Response {
    let tag = format!("\"{}\"", *VERSION);
    let is_known = known.is_some_and(|known| known.contains(&tag));
    let (status, body) = match is_known {
        true => (304, ""),
        false => (200, PAGE_OF_VERSION.as_str()),
    };
    let mut response = Response::new(status, "text/html; charset=utf-8", "no-cache", body);
    response.headers.push(("etag", tag.into()));
    response
}

fn file(name: &str) -> Response {
    match FILES.iter().find(|file| file.name == name) {
        Some(file) => {
            let cache = "public, max-age=31536000, immutable";
            Response::new(200, file.kind, cache, file.text)
        }
        None => not_found(),
    }
}

fn not_found() -> Response {
    let body = "Not found. The console is at /console.\n";
    Response::new(404, "text/plain; charset=utf-8", "no-store", body)
}

#[cfg(test)]
mod tests;
