//! Patterns to search for: a secret, the secrets in it, and each of them in every encoding that is not undone.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;
use url::Url;

use super::view::View;
use super::{LAYERS, SHORT};

/// A longer secret is searched for in pieces of this length, so that a part of it is found, too.
const PIECE: usize = 32;

/// Returns what to search for: the secret, the secrets in it, and each of them encoded.
pub(super) fn of(secret: &str) -> BTreeSet<Vec<u8>> {
    let mut patterns = BTreeSet::new();
    learn(&mut patterns, secret, 2);
    patterns
}

fn learn(patterns: &mut BTreeSet<Vec<u8>>, secret: &str, depth: usize) {
    let secret = secret.trim();
    match Url::parse(secret) {
        Ok(url) if url.has_host() => learn_url(patterns, secret, &url),
        _ => {
            add(patterns, secret);
            if depth > 0 {
                for part in parts(secret) {
                    learn(patterns, &part, depth - 1);
                }
            }
        }
    }
}

/// Adds the part behind a URL's host, and each part of that which is no common word. The host itself is shown.
fn learn_url(patterns: &mut BTreeSet<Vec<u8>>, typed: &str, url: &Url) {
    let rest = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let typed = typed
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('/'));
    let typed = typed.map_or("", |(_, path)| path);
    for rest in [rest, typed] {
        let parts = rest
            .split(['/', '?', '&', '=', '#', ';'])
            .filter(|part| part.len() >= 8);
        for part in parts
            .chain([rest])
            .filter(|part| part.len() >= SHORT && !is_common(part))
        {
            add(patterns, part);
        }
    }
}

/// The secrets in a secret: in a JSON document, a connection string, lines of headers, a user with a password.
fn parts(secret: &str) -> Vec<String> {
    if let Ok(document @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(secret) {
        let mut leaves = Vec::new();
        collect(&document, &mut leaves);
        return leaves;
    }
    let mut parts = Vec::new();
    let mut is_named = false;
    for word in secret.split(|letter: char| letter.is_whitespace() || ",;&?\"'".contains(letter)) {
        // Equals signs at the end are base64's.
        let (name, value) = match word.split_once([':', '=']) {
            Some((_, value)) if value.is_empty() == word.ends_with(':') && value != "=" => {
                word.split_at(word.len() - value.len())
            }
            _ => ("", word),
        };
        let least = if is_named || !name.is_empty() {
            SHORT
        } else {
            16
        };
        // A header's name, or its authentication scheme: the secret follows.
        is_named = value.is_empty() && !name.is_empty()
            || SCHEMES
                .iter()
                .any(|scheme| scheme.eq_ignore_ascii_case(value));
        if value.len() < least || is_common(value) {
            continue;
        }
        parts.push(value.to_owned());
        if let Some((_, rest)) = value.split_once('_').filter(|(_, rest)| rest.len() >= 16) {
            parts.push(rest.to_owned());
        }
        parts.extend(decoded_base64(value));
    }
    parts.retain(|part| part != secret && View::of(part.as_bytes()).folded().bytes.len() >= SHORT);
    parts
}

/// Texts long enough to be keys. Addresses of mail and of the web are not, and explain an error.
fn collect(document: &Value, leaves: &mut Vec<String>) {
    match document {
        Value::String(text)
            if text.len() >= 20 && !text.contains('@') && !text.starts_with("https://") =>
        {
            leaves.push(text.clone());
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, leaves)),
        Value::Object(map) => map.values().for_each(|value| collect(value, leaves)),
        _ => {}
    }
}

/// As the password in `Basic dXNlcjpwYXNzd29yZA==`.
fn decoded_base64(text: &str) -> Option<String> {
    let text = text
        .trim_end_matches('=')
        .replace('-', "+")
        .replace('_', "/");
    let decoded = base64_simd::STANDARD_NO_PAD.decode_to_vec(text).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let is_text = decoded.len() >= SHORT
        && decoded
            .chars()
            .all(|letter| !letter.is_control() || letter.is_whitespace());
    is_text.then_some(decoded)
}

/// In front of a credential in a header.
const SCHEMES: [&str; 4] = ["basic", "bearer", "digest", "token"];

/// Words that stand beside secrets and in honest messages.
fn is_common(word: &str) -> bool {
    const COMMON: [&str; 21] = [
        "application",
        "attestation",
        "attestations",
        "authorization",
        "basic",
        "bearer",
        "certificate",
        "chainloop",
        "digest",
        "incoming",
        "integrations",
        "messages",
        "notifications",
        "password",
        "private",
        "services",
        "token",
        "triggers",
        "webhooks",
        "workflow",
        "workflows",
    ];
    COMMON
        .iter()
        .any(|common| word.eq_ignore_ascii_case(common))
}

/// Adds one secret in all of its encodings.
fn add(patterns: &mut BTreeSet<Vec<u8>>, secret: &str) {
    let mut spellings = BTreeSet::new();
    let mut view = View::of(secret.as_bytes());
    for _ in 0..=LAYERS {
        spellings.insert(view.bytes.clone());
        match view.decoded() {
            Some(next) => view = next,
            None => break,
        }
    }
    // As a document in Latin-1 has it.
    let letters = secret.chars();
    let latin: Option<Vec<u8>> = letters
        .map(|letter| u8::try_from(u32::from(letter)).ok())
        .collect();
    spellings.extend(latin);
    for plain in spellings {
        let folded = View::of(&plain).folded().bytes;
        if folded.is_empty() {
            continue;
        }
        add_pieces(patterns, &folded);
        if folded.len() < SHORT {
            continue;
        }
        let encodings = (0..3).map(|offset| base64_inside(&plain, offset));
        for encoded in encodings.chain([hexadecimal(&plain)]) {
            let folded = View::of(encoded.as_bytes()).folded().bytes;
            if folded.len() >= SHORT {
                add_pieces(patterns, &folded);
            }
        }
    }
}

fn add_pieces(patterns: &mut BTreeSet<Vec<u8>>, mut folded: &[u8]) {
    while folded.len() >= 2 * PIECE {
        let (piece, rest) = folded.split_at(PIECE);
        patterns.insert(piece.to_vec());
        folded = rest;
    }
    patterns.insert(folded.to_vec());
}

/// The letters that are the same whatever stands around the secret, when `offset` bytes stand in front of it.
fn base64_inside(secret: &[u8], offset: usize) -> String {
    let mut bytes = vec![0; offset];
    bytes.extend_from_slice(secret);
    let encoded = base64_simd::STANDARD_NO_PAD.encode_to_string(&bytes);
    let first = (offset * 8).div_ceil(6);
    let end = bytes.len() * 8 / 6;
    encoded[first..end].to_owned()
}

fn hexadecimal(secret: &[u8]) -> String {
    secret.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
