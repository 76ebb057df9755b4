//! Small texts that are names, numbers, times and lists, and the masking of what third parties answer.

use api::workflows::{Selector, selector, workflow_id};
use api::{Network, Timestamp, names};
use attestation::Digest;
use integrations::Redactor;
use integrations::http::{Allowed, Proxy};

pub const WORDS: &[&str] = &[
    "shop/nightly",
    "shop/*",
    "*",
    "/",
    "6F0C1F0E-0000-4000-8000-000000000001",
    "urn:uuid:",
    "{",
    "}",
    "sha256:",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "2026-01-02T03:04:05.678Z",
    "+00:00",
    "-23:59",
    "9999-12-31T23:59:59.999999999Z",
    "-009999-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "10.0.0.0/8",
    "::ffff:10.0.0.0/104",
    "fd00::/8",
    ":443",
    "http://proxy:3128",
    "fe80::1%1",
    "T24:00",
    "W53-7",
];

pub const ANSWER_WORDS: &[&str] = &[
    "secret-canary-1234567890",
    "%73",
    "%2573",
    "\\u0073",
    "&#115;",
    "&#x73;",
    "c2VjcmV0LWNhbmFyeS0xMjM0NTY3ODkw",
    "7365637265742d",
    "Bearer ",
    "\\",
    "\\\\",
    "%",
    "&",
    ";",
    "\n",
    "\u{200b}",
    "\"",
];

/// A value that was read and is written again is read as the same.
pub fn text(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        let written = time.to_string();
        assert_eq!(written.len(), "2026-01-02T03:04:05.678Z".len(), "{written}");
        assert_eq!(written.parse().ok(), Some(time), "{written}");
    }
    if let Ok(network) = text.parse::<Network>() {
        assert_eq!(network.to_string().parse(), Ok(network));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.hex().parse(), Ok(digest));
    }
    let (workflow, project) = match text.split_once('\n') {
        Some((workflow, project)) => (workflow, Some(project)),
        None => (text, None),
    };
    if let Ok(Selector(written)) = selector(workflow, project) {
        assert_eq!(selector(&written, None), Ok(Selector(written.clone())));
        assert!(!written.chars().any(char::is_control), "{written:?}");
    }
    if let Some(id) = workflow_id(text) {
        assert_eq!((id.len(), workflow_id(&id)), (36, Some(id.clone())));
    }
    if names::name_fault(text).is_none() {
        assert!(names::is_label(text) && workflow_id(text).is_none_or(|_| text.len() != 36));
    }
    let _ = text.parse::<Allowed>();
    let _ = text.parse::<Proxy>();
}

/// A line with a secret, and an answer: the secret is not in what is kept of it.
pub fn answer(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (secret, answer) = input.split_at(end);
    let Ok(secret) = str::from_utf8(secret) else {
        return;
    };
    let redactor = Redactor::default();
    redactor.learn(secret);
    let shown = [redactor.excerpt(answer), redactor.beginning(answer)];
    let is_word = secret.len() >= 8 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
    for text in shown {
        assert!(!is_word || !text.contains(secret), "{secret}: {text}");
    }
}
