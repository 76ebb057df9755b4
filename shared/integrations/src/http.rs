//! The one way out: every request to a third party goes through [`Http`], which decides where it may go,
//! how long it may take and how much of the answer is read.
//!
//! Addresses that an operator typed are a stranger's input. So every address that a name resolves to is
//! vetted, and the connection is made to those same addresses; redirects are answers, not instructions;
//! nothing from the environment (proxies, trust stores) takes part.
//!
//! A request that came back with any status is `Ok`: [`classify`] says what that status means, and an
//! integration refines it where its vendor deviates.
mod allowed;
mod classify;
mod client;
mod connector;
mod dial;
mod guard;
mod proxy;
pub(crate) mod tls;

pub use api::inputs::origin;
use attestation::{Digest, Hasher};
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Request};
use url::Url;

use crate::error::Error;
pub use crate::error::{ANSWER_BYTES, EXCERPT_BYTES};
use crate::redact::MASK;
use crate::{Content, Host, Preview};

pub use self::allowed::{Allowed, Malformed};
pub(crate) use self::classify::LONGEST_PAUSE;
pub use self::classify::{Response, retry_after};
pub use self::client::{Download, Http, USER_AGENT, Wire};
pub use self::guard::{Guard, is_local};
pub use self::proxy::{Malformed as MalformedProxy, Proxy};

/// Returns a request as it would be sent, with `target` in place of its URL and `…` for sensitive headers.
pub(crate) fn preview(request: &Request<Bytes>, target: String) -> Preview {
    let shown = |(name, value): (&HeaderName, &HeaderValue)| {
        let text = if value.is_sensitive() {
            MASK.into()
        } else {
            String::from_utf8_lossy(value.as_bytes())
        };
        (name.to_string(), text.into_owned())
    };
    let body = request.body();
    let text = String::from_utf8_lossy(&body[..body.len().min(ANSWER_BYTES)]).into_owned();
    Preview {
        method: request.method().to_string(),
        target,
        headers: request.headers().iter().map(shown).collect(),
        digest: Digest::of(body),
        size_bytes: body.len() as u64,
        body: text,
    }
}

/// As [`preview`], of a request for [`Http::stream`]: its body is read once, and never whole in memory.
pub(crate) async fn preview_of_content(
    host: &dyn Host,
    request: &Request<Content<'_>>,
    target: String,
) -> Result<Preview, Error> {
    let content = request.body();
    let mut hash = Hasher::default();
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
    Ok(Preview {
        digest: hash.finish(),
        size_bytes: content.size_bytes(),
        ..preview(&shown, target)
    })
}

/// As [`origin`], with the port where none is written and another than usual is meant.
pub(crate) fn place(url: &Url) -> String {
    match (url.scheme(), url.port()) {
        ("http", None) => format!("{}:80", origin(url)),
        _ => origin(url),
    }
}
