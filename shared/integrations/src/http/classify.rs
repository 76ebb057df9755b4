//! Responses, and the classification of their statuses.

use std::time::Duration;

use bytes::Bytes;
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use hyper_util::client::legacy;

use super::connector;
use crate::error::{About, Answer, Error, Kind};
use crate::redact::Redactor;

/// A third party that asks for a longer pause than this gets this one: no delivery lives longer.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_hours(7 * 24);

/// HTTP response, whatever its status.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// At most [`ANSWER_BYTES`](super::ANSWER_BYTES), or as much as [`Http::fetch`](super::Http::fetch) was asked for.
    pub body: Bytes,
    /// The answer was longer, or its end did not come in time.
    pub truncated: bool,
    pub(crate) redactor: Redactor,
}

impl Response {
    /// [`classify`], with what was being done in front and the excerpt beside it.
    ///
    /// `doing` completes "failed to …": `post to https://hooks.example.org`.
    pub fn check(&self, doing: &str, now_unix: u64) -> Result<(), Error> {
        classify(self.status, &self.headers, now_unix).map_err(|error| Error {
            text: format!("{doing}: {}", error.text),
            answer: Some(self.answer()),
            ..error
        })
    }

    /// Returns the part of the response that is kept with the attempt.
    pub fn answer(&self) -> Answer {
        Answer {
            status: self.status.as_u16(),
            excerpt: self.excerpt(&self.body),
        }
    }

    /// A part of it as it may be quoted. See [`Redactor::excerpt`].
    pub fn excerpt(&self, part: &[u8]) -> String {
        self.redactor.excerpt(part)
    }
}

pub(super) fn explain(place: &str, error: legacy::Error, handed_over: bool) -> Error {
    if error.is_connect() {
        return match connector::failure(&error) {
            Some(failure) => failure.error(place).source(error),
            None => Error::retryable(format!("reach {place}: the connection broke")).source(error),
        };
    }
    let error = match handed_over {
        false => Error::retryable(format!("reach {place}: the connection broke")).source(error),
        true => Error::new(
            Kind::Indeterminate,
            format!("hear from {place}: the connection broke before an answer came"),
        )
        .source(error),
    };
    // A document on which a server dies ends its connection as a server that goes down does.
    error.about(About::Either)
}

/// Classifies a status, for responses in which the third party says nothing else about it.
///
/// 2xx is success. 408, 425, 429 and 5xx are [`Kind::Retryable`], not before `Retry-After` (seconds or
/// a date; RFC 9110, section 10.2.3). 401 is [`Kind::Unauthorized`] and 410 is [`Kind::Gone`]. All others, including
/// redirects, are [`Kind::Permanent`]. A 5xx without `Retry-After` is about the destination or the document
/// ([`About::Either`]), except for a gateway's 502, 503 and 504.
fn classify(status: StatusCode, headers: &HeaderMap, now_unix: u64) -> Result<(), Error> {
    let kind = match status.as_u16() {
        200..=299 => return Ok(()),
        408 | 425 | 429 | 500..=599 => Kind::Retryable {
            after: retry_after(headers, now_unix),
        },
        401 => Kind::Unauthorized,
        410 => Kind::Gone,
        _ => Kind::Permanent,
    };
    let about = match (status.as_u16(), kind) {
        (502..=504, _) | (_, Kind::Retryable { after: Some(_) }) => About::Destination,
        (500..=599, _) => About::Either,
        _ => About::Destination,
    };
    Err(Error::new(kind, format!("answered {}", phrase(status))).about(about))
}

/// `404 Not Found`; of a status without a name, the number alone.
fn phrase(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// Returns the time that the third party asks us to wait. A date counts from the response's own `Date`, so that a
/// wrong clock on either side does no harm, or from `now_unix` where it has none.
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
        classify(status, &headers(pairs), 784_111_777)
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
        assert_eq!(kind(410, &[]), Some(Kind::Gone));
    }

    #[test]
    fn a_500_may_speak_of_the_document_and_a_gateways_answer_or_a_named_time_of_the_destination() {
        let about = |status, pairs: &[(&'static str, &'static str)]| {
            let status = StatusCode::from_u16(status).unwrap();
            classify(status, &headers(pairs), 0).unwrap_err().about
        };
        for status in [500, 501, 505, 507, 599] {
            assert_eq!(about(status, &[]), About::Either, "{status}");
        }
        assert_eq!(about(500, &[("retry-after", "1")]), About::Destination);
        for status in [400, 401, 404, 408, 413, 425, 429, 502, 503, 504] {
            assert_eq!(about(status, &[]), About::Destination, "{status}");
        }
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
}
