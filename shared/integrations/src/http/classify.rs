//! What came back, and what it means.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

use super::ANSWER_BYTES;
use super::guard::{Refused, refuse};
use crate::error::{Answer, Error, Kind};

/// More of an answer than this is not kept with the attempt.
pub const EXCERPT_BYTES: usize = 2 * 1024;

/// A third party that asks for a longer pause than this gets this one: no delivery lives longer.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_hours(7 * 24);
/// What came back, whatever its status.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// At most [`ANSWER_BYTES`], or as much as [`Http::fetch`] was asked for.
    pub body: Bytes,
    /// The answer was longer, or its end did not come in time.
    pub truncated: bool,
}

impl Response {
    /// [`classify`], with what was being done in front and `secrets` cut out of the excerpt.
    ///
    /// `doing` completes "failed to …": `post to https://hooks.example.org`.
    pub fn check(&self, doing: &str, secrets: &[&str], now_unix: u64) -> Result<(), Error> {
        classify(self.status, &self.headers, &self.body, now_unix).map_err(|error| Error {
            text: format!("{doing}: {}", error.text),
            answer: Some(self.answer(secrets)),
            ..error
        })
    }

    /// What is kept of it with the attempt.
    pub fn answer(&self, secrets: &[&str]) -> Answer {
        Answer {
            status: self.status.as_u16(),
            excerpt: excerpt(&self.body, secrets),
        }
    }
}

pub(super) fn explain(place: &str, error: reqwest::Error, handed_over: bool) -> Error {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    let mut reset = None;
    while let Some(current) = cause {
        if let Some(refused) = current.downcast_ref::<Refused>() {
            return refuse(place, *refused);
        }
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            reset = Some(io.kind());
        }
        cause = current.source();
    }
    let error = error.without_url();
    let reason = match reset {
        _ if error.is_dns() => "its name could not be resolved",
        _ if error.is_timeout() => "no connection in time",
        Some(std::io::ErrorKind::ConnectionRefused) => "connection refused",
        Some(std::io::ErrorKind::InvalidData) => "the TLS handshake failed",
        _ => "the connection broke",
    };
    if error.is_builder() {
        Error::permanent(format!("send to {place}: not a valid request"))
    } else if error.is_connect() || !handed_over {
        Error::retryable(format!("reach {place}: {reason}"))
    } else {
        Error::new(
            Kind::Unanswered,
            format!("hear from {place}: {reason} before an answer came"),
        )
    }
    .source(error)
}

/// What a status means, where the third party says nothing else about it.
///
/// 2xx is success. 408, 425, 429 and 5xx are [`Kind::Retryable`], not before `Retry-After` (seconds or
/// a date; RFC 9110, section 10.2.3), 401 is [`Kind::Unauthorized`], 410 is [`Kind::Dead`], and all others,
/// redirects among them, are [`Kind::Permanent`]. The excerpt holds the body as it came: where the third
/// party could echo a secret, use [`Response::check`].
pub fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now_unix: u64,
) -> Result<(), Error> {
    let kind = match status.as_u16() {
        200..=299 => return Ok(()),
        408 | 425 | 429 | 500..=599 => Kind::Retryable {
            after: retry_after(headers, now_unix),
        },
        401 => Kind::Unauthorized,
        410 => Kind::Dead,
        _ => Kind::Permanent,
    };
    let answer = Answer {
        status: status.as_u16(),
        excerpt: excerpt(body, &[]),
    };
    Err(Error::new(kind, format!("answered {}", phrase(status))).answer(answer))
}

/// `404 Not Found`; of a status without a name, the number alone.
fn phrase(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// How long the third party asks us to wait. A date counts from the answer's own `Date`, so that a wrong
/// clock on either side does no harm, and from `now_unix` where it has none.
pub fn retry_after(headers: &HeaderMap, now_unix: u64) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let secs = if let Ok(secs) = value.parse::<u64>() {
        secs
    } else {
        let until = http_date(value)?;
        let from = headers
            .get(DATE)
            .and_then(|date| http_date(date.to_str().ok()?))
            .unwrap_or(now_unix);
        until.saturating_sub(from)
    };
    Some(Duration::from_secs(secs).min(LONGEST_PAUSE))
}

fn http_date(value: &str) -> Option<u64> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    u64::try_from(parser.parse_timestamp(value).ok()?.as_second()).ok()
}

/// The beginning of an answer as text that is safe to keep and to show: at most [`EXCERPT_BYTES`], one
/// line, nothing that moves a cursor or turns the writing direction, and `…` for each of the secrets.
pub fn excerpt(body: &[u8], secrets: &[&str]) -> String {
    let body = &body[..body.len().min(ANSWER_BYTES)];
    let mut text: String = String::from_utf8_lossy(body)
        .chars()
        .filter_map(|letter| match letter {
            letter if crate::text::is_invisible(letter) => None,
            letter if letter.is_control() => Some(' '),
            letter => Some(letter),
        })
        .collect();
    let mut secrets: Vec<&str> = secrets
        .iter()
        .copied()
        .filter(|secret| !secret.is_empty())
        .collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    for secret in &secrets {
        text = text.replace(secret, "…");
    }
    // An answer that was cut may end in half a secret.
    for secret in &secrets {
        let half = secret
            .char_indices()
            .map(|(end, _)| &secret[..end])
            .rfind(|half| half.len() >= 4 && text.ends_with(half));
        if let Some(half) = half {
            text.truncate(text.len() - half.len());
        }
    }
    let mut text = text.trim().to_owned();
    text.truncate(text.floor_char_boundary(EXCERPT_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const AGAIN: Kind = Kind::Retryable { after: None };

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn kind(status: u16, pairs: &[(&'static str, &'static str)]) -> Option<Kind> {
        let status = StatusCode::from_u16(status).unwrap();
        classify(status, &headers(pairs), b"", 784_111_777)
            .err()
            .map(|error| error.kind)
    }

    #[test]
    fn each_status_has_its_class() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(kind(status, &[]), None);
        }
        for status in [408, 425, 429, 500, 501, 502, 503, 504, 599] {
            assert_eq!(kind(status, &[]), Some(AGAIN), "{status}");
        }
        for status in [
            300, 301, 302, 303, 304, 307, 308, 400, 402, 403, 404, 405, 409, 413, 422, 499,
        ] {
            assert_eq!(kind(status, &[]), Some(Kind::Permanent), "{status}");
        }
        assert_eq!(kind(401, &[]), Some(Kind::Unauthorized));
        assert_eq!(kind(410, &[]), Some(Kind::Dead));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |secs| {
            Some(Kind::Retryable {
                after: Some(Duration::from_secs(secs)),
            })
        };
        assert_eq!(kind(429, &[("retry-after", "120")]), after(120));
        assert_eq!(kind(503, &[("retry-after", " 0 ")]), after(0));
        // Sun, 06 Nov 1994 08:49:37 GMT is `now`.
        assert_eq!(
            kind(503, &[("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")]),
            after(60)
        );
        assert_eq!(
            kind(503, &[("retry-after", "Sun, 06 Nov 1994 08:40:37 GMT")]),
            after(0)
        );
        let server = ("date", "Sun, 06 Nov 1994 10:00:00 GMT");
        assert_eq!(
            kind(
                503,
                &[("retry-after", "Sun, 06 Nov 1994 10:00:09 GMT"), server]
            ),
            after(9)
        );
        assert_eq!(
            kind(429, &[("retry-after", "99999999999")]),
            after(7 * 24 * 3600)
        );
        for nonsense in ["soon", "-5", "", "99999999999999999999999"] {
            assert_eq!(
                kind(429, &[("retry-after", nonsense)]),
                Some(AGAIN),
                "{nonsense}"
            );
        }
        assert_eq!(kind(404, &[("retry-after", "120")]), Some(Kind::Permanent));
    }

    #[test]
    fn an_excerpt_is_one_printable_line_without_secrets() {
        assert_eq!(
            excerpt(b" a\r\n\x1b[31mb\xff\xe2\x80\xaec ", &[]),
            "a   [31mb\u{fffd}c"
        );
        assert_eq!(
            excerpt(b"key=s3cret-s3cret&x", &["s3cret", "s3cret-s3cret"]),
            "key=…&x"
        );
        assert_eq!(
            excerpt("né".repeat(2000).as_bytes(), &[]).len(),
            EXCERPT_BYTES - 1
        );
        assert_eq!(
            excerpt(b"ends in s3cr", &["s3cret"]),
            "ends in",
            "half a secret is one, too"
        );
        let zero_width = "s3\u{200b}cret";
        assert_eq!(excerpt(zero_width.as_bytes(), &["s3cret"]), "…");
        let long = "0123456789".repeat(10);
        let repeated = long.repeat(700);
        assert!(!excerpt(repeated.as_bytes(), &[&long]).contains("0123"));
    }
}
