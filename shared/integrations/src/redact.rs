//! Masks credentials in everything that comes back from a third party, in any encoding that it may repeat them in.
//!
//! Searching for every encoding of a secret would miss every second one: an echo escapes one letter and leaves the
//! next. So the text is decoded instead, up to three times over (percent signs, backslashes and entities at once),
//! and compared without case, white space and the letters in which encodings differ. Encodings that cannot be undone
//! without knowing where they begin, base64 and hexadecimal, are searched for.

mod patterns;
mod view;

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use url::Url;
use view::View;

use crate::error::{ANSWER_BYTES, Answer, EXCERPT_BYTES, Error};
use crate::{inputs, text};

/// Stands for a credential.
pub const MASK: &str = "…";

/// A shorter secret is masked where it is a word by itself, and in no other encoding: anybody could guess it, and
/// masking it inside of words would spell it out.
const SHORT: usize = 6;

/// A cut may leave fewer letters of a secret than this.
const REMAINDER: usize = 4;

/// Credentials of requests that are remembered. Each request to a bucket has a signature of its own, and a delivery of
/// a thousand SBOMs would search for all of them after each step.
const RECENT: usize = 16;

/// Encodings that may lie over one another, at most.
const LAYERS: usize = 3;

/// Masks what it has learned. Clones share what they know.
#[derive(Clone, Default)]
pub struct Redactor(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// Folded; see [`View::folded`].
    patterns: BTreeSet<Vec<u8>>,
    /// The same of credentials that requests carried, the latest last; at most [`RECENT`].
    recent: VecDeque<BTreeSet<Vec<u8>>>,
    /// Built when it is needed and dropped when something is learned.
    search: Option<Arc<Search>>,
}

struct Search {
    patterns: Vec<Vec<u8>>,
    automaton: AhoCorasick,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// Knows the secret ones among a registration's inputs.
    pub fn of(schema: &Value, inputs: &Map<String, Value>) -> Self {
        let redactor = Self::default();
        let (_, secrets) = inputs::split(schema, inputs.clone());
        for secret in secrets.values().filter_map(Value::as_str) {
            redactor.learn(secret);
        }
        redactor
    }

    /// Masks this secret, and the parts of it that are secrets by themselves, from now on.
    pub fn learn(&self, secret: &str) {
        let mut patterns = patterns::of(secret);
        let mut known = self.known();
        let before = known.patterns.len();
        known.patterns.append(&mut patterns);
        if known.patterns.len() != before {
            known.search = None;
        }
    }

    /// Masks the credentials of a request: what its headers carry, and the signatures in its URL.
    pub(crate) fn learn_request(&self, url: &Url, headers: &HeaderMap) {
        const NAMES: [&str; 5] = ["sig", "signature", "token", "state", "secret"];
        for (_, value) in headers
            .iter()
            .filter(|(name, value)| is_secret(name, value))
        {
            let value = String::from_utf8_lossy(value.as_bytes());
            // Of an AWS signature the rest is names, as in "please use AWS4-HMAC-SHA256".
            match value.split_once("Signature=") {
                Some((_, signature)) => self.learn_long(signature),
                None => self.learn_long(value.split_once(' ').map_or(&*value, |(_, rest)| rest)),
            }
        }
        for (name, value) in url.query_pairs() {
            let name = name.to_ascii_lowercase();
            if NAMES.iter().any(|secret| name.ends_with(secret)) {
                self.learn_long(&value);
            }
        }
    }

    fn learn_long(&self, secret: &str) {
        if secret.len() < SHORT {
            return;
        }
        let mut patterns = patterns::of(secret);
        let mut known = self.known();
        patterns.retain(|pattern| !known.patterns.contains(pattern));
        if patterns.is_empty() {
            return;
        }
        if let Some(index) = known.recent.iter().position(|one| *one == patterns) {
            known.recent.remove(index);
        } else {
            known.search = None;
        }
        known.recent.push_back(patterns);
        if known.recent.len() > RECENT {
            known.recent.pop_front();
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn search(&self) -> Option<Arc<Search>> {
        let mut known = self.known();
        if known.patterns.is_empty() && known.recent.is_empty() {
            return None;
        }
        if known.search.is_none() {
            let all = known.patterns.iter().chain(known.recent.iter().flatten());
            let patterns: Vec<_> = all.cloned().collect();
            // It is built for each delivery, and searches a few kilobytes: a table of all its states would be half of what
            // a small one takes.
            let automaton = AhoCorasick::builder()
                .kind(Some(AhoCorasickKind::NoncontiguousNFA))
                .build(&patterns)
                .expect("a few thousand short patterns");
            let search = Search {
                patterns,
                automaton,
            };
            known.search = Some(Arc::new(search));
        }
        known.search.clone()
    }

    /// The text with [`MASK`] in place of every credential.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let found = self.find(text.as_bytes(), false);
        match found.is_empty() {
            true => Cow::Borrowed(text),
            false => Cow::Owned(masked(text.as_bytes(), &found)),
        }
    }

    /// As [`text`](Self::text).
    pub(crate) fn owned(&self, text: String) -> String {
        match self.text(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(masked) => masked,
        }
    }

    /// As [`text`](Self::text), of bytes that may have been cut in the middle of a credential.
    pub fn beginning(&self, bytes: &[u8]) -> String {
        masked(bytes, &self.find(bytes, true))
    }

    /// The beginning of a response as text that is safe to keep and to show: at most [`EXCERPT_BYTES`], one line,
    /// and nothing that moves a cursor or turns the writing direction. It is masked before it is cut.
    pub fn excerpt(&self, bytes: &[u8]) -> String {
        let masked = self.beginning(&bytes[..bytes.len().min(ANSWER_BYTES)]);
        text::excerpt(&masked, EXCERPT_BYTES)
    }

    /// Every text in it, and every number that is a credential.
    pub fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.owned(text)),
            Value::Array(values) => values.into_iter().map(|value| self.value(value)).collect(),
            Value::Object(map) => Value::Object(self.map(map)),
            Value::Number(number) => match self.text(&number.to_string()) {
                Cow::Borrowed(_) => Value::Number(number),
                Cow::Owned(masked) => Value::String(masked),
            },
            other => other,
        }
    }

    /// As [`value`](Self::value). The names stay: they are the integrations' own.
    pub fn map(&self, map: Map<String, Value>) -> Map<String, Value> {
        map.into_iter()
            .map(|(name, value)| (name, self.value(value)))
            .collect()
    }

    /// The error without credentials. Its sources become one, which has all of their texts.
    pub fn error(&self, error: Error) -> Error {
        let source = error.source.map(|source| {
            let mut chain = source.to_string();
            let mut next = source.source();
            while let Some(inner) = next {
                chain = format!("{chain}: {inner}");
                next = inner.source();
            }
            self.owned(chain).into()
        });
        let answer = error.answer.map(|answer| Answer {
            excerpt: self.owned(answer.excerpt),
            ..answer
        });
        Error {
            text: self.owned(error.text),
            answer,
            source,
            ..error
        }
    }

    /// Finds credentials, as ranges of `bytes` in their order.
    fn find(&self, bytes: &[u8], is_cut: bool) -> Vec<(usize, usize)> {
        let Some(search) = self.search() else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut view = View::of(bytes);
        for _ in 0..=LAYERS {
            let folded = view.folded();
            for hit in search.automaton.find_overlapping_iter(&folded.bytes) {
                let range = folded.range(hit.start(), hit.end());
                if hit.len() >= SHORT || is_word(bytes, range) {
                    found.push(range);
                }
            }
            if is_cut {
                found.extend(search.half(&folded));
                // The cut may lie inside of an encoded letter, or of several layers of one.
                for length in view.half_letters() {
                    found.extend(search.half(&view.until(length).folded()));
                }
            }
            let Some(next) = view.decoded() else {
                break;
            };
            view = next;
        }
        found.sort_unstable();
        found
    }
}

impl Search {
    /// The longest beginning of a secret that the text ends with, to the text's end.
    fn half(&self, folded: &View) -> Option<(usize, usize)> {
        let longest = self
            .patterns
            .iter()
            .filter_map(|pattern| {
                (REMAINDER..pattern.len())
                    .rev()
                    .find(|&length| folded.bytes.ends_with(&pattern[..length]))
            })
            .max()?;
        let (start, _) = folded.range(folded.bytes.len() - longest, folded.bytes.len());
        Some((start, usize::MAX))
    }
}

fn is_secret(name: &HeaderName, value: &HeaderValue) -> bool {
    value.is_sensitive() || [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(name)
}

/// Tells whether no letter or digit stands beside it.
fn is_word(bytes: &[u8], (start, end): (usize, usize)) -> bool {
    let is_outside = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
    is_outside(start.checked_sub(1).and_then(|before| bytes.get(before)))
        && is_outside(bytes.get(end))
}

/// Tells white space and the like, escaped or not.
fn is_nothing(bytes: &[u8]) -> bool {
    let view = View::of(bytes);
    view.decoded().unwrap_or(view).folded().bytes.is_empty()
}

/// With one mask for ranges that touch, or that have nothing between them but what does not count.
fn masked(bytes: &[u8], found: &[(usize, usize)]) -> String {
    let mut text = String::new();
    let mut shown = 0;
    for &(start, end) in found {
        let between = bytes.get(shown..start).unwrap_or_default();
        let is_one = shown > 0 && is_nothing(between);
        if start >= shown && !(is_one && text.ends_with(MASK)) {
            text.push_str(&String::from_utf8_lossy(between));
            text.push_str(MASK);
        }
        shown = shown.max(end.min(bytes.len()));
    }
    text.push_str(&String::from_utf8_lossy(&bytes[shown..]));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn knowing(secret: &str) -> Redactor {
        let redactor = Redactor::default();
        redactor.learn(secret);
        redactor
    }

    fn check(secret: &str, text: &str, expected: &str) {
        let masked = knowing(secret).text(text).into_owned();
        assert_eq!(masked, expected, "{secret} in {text}");
    }

    #[test]
    fn what_is_no_secret_stays_as_it_is() {
        let text = "failed to post to https://example.org: answered 403 Forbidden: 100 % & \\ – ü \u{202e}";
        assert!(matches!(knowing("a-secret-key").text(text), Cow::Borrowed(same) if same == text));
        assert!(matches!(Redactor::default().text(text), Cow::Borrowed(_)));
    }

    #[test]
    fn a_secret_is_masked_in_every_encoding() {
        let secret = "pä\"ss w0rd/&<+=%\\z";
        for echo in [
            secret,
            "pä%22ss%20w0rd%2F%26%3C%2B%3D%25%5Cz",
            "p%c3%a4%22ss+w0rd%2f%26%3c%2b%3d%25%5cz",
            "p%25C3%25A4%2522ss%2520w0rd%252F%2526%253C%252B%253D%2525%255Cz",
            r#"pä\"ss w0rd/&<+=%\\z"#,
            r"p\u00e4\u0022ss\u0020w0rd\/\u0026\u003c+=%\u005Cz",
            r#"p\\u00e4\\\"ss w0rd\\/&<+=%\\\\z"#,
            "p&#xe4;&quot;ss w0rd&sol;&amp;&lt;&plus;&equals;&percnt;&bsol;z",
            "p&#228;&#34;ss&#32;w0rd/&amp;&lt;+=%\\z",
            "PÄ\"SS W0RD/&<+=%\\Z".replace('Ä', "ä").as_str(),
            "pä\"\u{200b}ss\n w0rd/&<+=%\\z",
        ] {
            check(secret, &format!("a {echo} z"), "a … z");
        }
        assert_eq!(
            knowing(secret).beginning(b"a p\xe4\"ss w0rd/&<+=%\\z z"),
            "a … z"
        );
    }

    #[test]
    fn a_pair_that_stands_for_one_letter_is_one() {
        check("key-\u{1f511}-key", r"a key-\ud83d\udd11-key z", "a … z");
    }

    #[test]
    fn base64_is_masked_wherever_the_secret_begins_in_it() {
        let secret = "s3cret-of-the-user";
        let inner = &"czNjcmV0LW9mLXRoZS11c2Vy"[4..20];
        assert_eq!(knowing(secret).text("czNjcmV0LW9mLXRoZS11c2Vy"), "…");
        for user in ["", "u", "us", "use", "user"] {
            let plain = format!("{user}:{secret}!");
            for encoded in [
                base64_simd::STANDARD.encode_to_string(&plain),
                base64_simd::URL_SAFE_NO_PAD.encode_to_string(&plain),
            ] {
                let masked = knowing(secret).text(&encoded).into_owned();
                let left = masked.replace(MASK, "");
                let around = (user.len() + 2) * 8 / 6 + 4;
                assert!(
                    masked.contains(MASK) && left.len() <= around + 2,
                    "{masked}"
                );
                assert!(!masked.contains(inner));
            }
        }
        check(
            secret,
            "key 7333637265742D6F662D7468652D75736572.",
            "key ….",
        );
    }

    #[test]
    fn the_secrets_in_a_secret_are_masked_by_themselves() {
        for (secret, echo, expected) in [
            (
                "Authorization: Bearer abc-def-1\nX-Tenant: shop-west",
                "no abc-def-1 for shop-west",
                "no … for …",
            ),
            (
                "Authorization: Basic dXNlcjpwYXNzd29yZDE=",
                "bad password1",
                "bad …",
            ),
            ("X-Key: abc-def-1", "Unknown X-Key: abc-def-1", "Unknown …"),
            ("robot:pass-of-robot", "not pass-of-robot", "not …"),
            (
                "sv=2026-01-01&sr=c&sig=abc%2Fdefghi%3D",
                "for abc/defghi=",
                "for …",
            ),
            (
                r#"{"type":"service_account","private_key":"-----BEGIN PRIVATE KEY-----\nAAAABBBBCCCCDDDD1\n-----END"}"#,
                r"key AAAABBBBCCCCDDDD1, type service_account, a private key",
                "key …, type service_account, a private key",
            ),
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "key MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "key …",
            ),
            (
                "https://hooks.example.org/services/T0123456/abcdefgh?token=tok-12345",
                "https://hooks.example.org/services/T0123456/abcdefgh?token=tok-12345 or /abcdefgh or services, tok-12345",
                "https://hooks.example.org/… or /… or services, …",
            ),
        ] {
            check(secret, echo, expected);
        }
    }

    #[test]
    fn a_part_of_a_long_secret_is_masked() {
        let secret = "0123456789abcdefghijklmnopqrstuvwxyz".repeat(4);
        let part = format!("bad key {} at line 1", &secret[20..110]);
        let masked = knowing(&secret).text(&part).into_owned();
        assert!(
            masked.contains(MASK) && masked.len() < part.len() - 30,
            "{masked}"
        );
    }

    #[test]
    fn a_short_secret_is_masked_as_a_word_and_not_inside_of_words() {
        check(
            "key",
            "no key, but keys and monkeys: KEY=key",
            "no …, but keys and monkeys: …=…",
        );
        check("a1", "a1 is not a12", "… is not a12");
    }

    #[test]
    fn two_secrets_beside_each_other_are_two_masks() {
        check("s3cret-1", "s3cret-1, s3cret-1 s3cret-1", "…, …");
    }

    #[test]
    fn numbers_and_nested_texts_are_masked() {
        let receipt = json!({ "id": 12_345_678, "list": ["x 12345678", true, null, 1.5], "12345678": { "a": "b" } });
        let masked =
            json!({ "id": "…", "list": ["x …", true, null, 1.5], "12345678": { "a": "b" } });
        assert_eq!(knowing("12345678").value(receipt), masked);
    }

    #[test]
    fn the_sources_of_an_error_are_masked() {
        let source = std::io::Error::other("no s3cret-1 here");
        let answer = Answer {
            status: 401,
            excerpt: "bad s3cret-1".to_owned(),
        };
        let error = Error::permanent("log in with s3cret-1")
            .source(source)
            .answer(answer);
        let error = knowing("s3cret-1").error(error);
        assert_eq!(error.text, "log in with …");
        assert_eq!(error.source.unwrap().to_string(), "no … here");
        assert_eq!(error.answer.unwrap().excerpt, "bad …");
    }

    #[test]
    fn the_credentials_of_a_request_are_learned() {
        let redactor = Redactor::default();
        let mut key = HeaderValue::from_static("a-key-of-mine");
        key.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert("x-key", key);
        headers.insert(
            AUTHORIZATION,
            HeaderValue::from_static(
                "AWS4-HMAC-SHA256 Credential=AKIA/20261128/s3, SignedHeaders=host, Signature=0123456789abcdef",
            ),
        );
        headers.insert("x-plain", HeaderValue::from_static("a-plain-text"));
        let url =
            Url::parse("https://example.org/a?X-Goog-Signature=c0ffee11&digest=sha256:abcdef")
                .unwrap();
        redactor.learn_request(&url, &headers);
        let text = "a-key-of-mine a-plain-text 0123456789abcdef AWS4-HMAC-SHA256 AKIA c0ffee11 sha256:abcdef";
        assert_eq!(
            redactor.text(text),
            "… a-plain-text … AWS4-HMAC-SHA256 AKIA … sha256:abcdef"
        );
        let mut bearer = HeaderMap::new();
        bearer.insert(
            AUTHORIZATION,
            HeaderValue::from_static("Bearer fetched-token"),
        );
        redactor.learn_request(&url, &bearer);
        assert_eq!(redactor.text("for Bearer fetched-token"), "for Bearer …");
    }

    #[test]
    fn a_thousand_signatures_are_searched_for_no_longer_than_a_few_and_a_token_that_goes_along_is_kept()
     {
        let redactor = knowing("s3cret-of-mine");
        let url = Url::parse("https://example.org/").unwrap();
        let send = |credential: String| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, credential.parse().unwrap());
            redactor.learn_request(&url, &headers);
        };
        for number in 0..1_000 {
            send(format!("AWS4-HMAC-SHA256 Signature={number:064x}"));
            send("Bearer fetched-token".to_owned());
        }
        let signature = format!("{:064x}", 999);
        let text = format!("s3cret-of-mine, fetched-token and {signature}");
        assert_eq!(redactor.text(&text), "…, … and …");
        let count = redactor.search().unwrap().patterns.len();
        assert!(count < 500, "{count} patterns");
    }

    #[test]
    fn an_excerpt_is_one_printable_line_without_secrets() {
        let nobody = Redactor::default();
        assert_eq!(
            nobody.excerpt(b" a\r\n\x1b[31mb\xff\xe2\x80\xaec "),
            "a   [31mb\u{fffd}c"
        );
        assert_eq!(
            nobody.excerpt("né".repeat(2000).as_bytes()).len(),
            EXCERPT_BYTES - 1
        );
        let redactor = knowing("s3cret-of-mine");
        assert_eq!(redactor.excerpt(b"key=s3cret-of-mine&x"), "key=…&x");
        assert_eq!(redactor.excerpt(b"ends in s3cret-o"), "ends in …");
        assert_eq!(
            redactor.excerpt(b"ends in s3cret%2"),
            "ends in …",
            "half a letter, too"
        );
        let long = "0123456789".repeat(10);
        assert!(
            !knowing(&long)
                .excerpt(long.repeat(700).as_bytes())
                .contains("0123")
        );
        // A secret across the place where it is cut.
        let text = "x".repeat(EXCERPT_BYTES - 6) + "s3cret-of-mine";
        assert!(!redactor.excerpt(text.as_bytes()).contains("s3"));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", knowing("s3cret-1")), "Redactor");
    }

    /// Ways in which a third party repeats a secret.
    #[expect(clippy::format_collect, reason = "a few letters each")]
    fn encodings() -> Vec<fn(&str) -> String> {
        fn percent(text: &str) -> String {
            text.bytes().map(|byte| format!("%{byte:02X}")).collect()
        }
        fn hexadecimal(text: &str) -> String {
            text.bytes().map(|byte| format!("{byte:02x}")).collect()
        }
        fn json(text: &str) -> String {
            let quoted = serde_json::to_string(text).unwrap();
            quoted[1..quoted.len() - 1].to_owned()
        }
        vec![
            str::to_owned,
            percent,
            |text| percent(&percent(text)),
            |text| percent(&json(text)),
            json,
            |text| json(&json(text)),
            |text| {
                text.encode_utf16()
                    .map(|unit| format!("\\u{unit:04x}"))
                    .collect()
            },
            |text| {
                text.chars()
                    .map(|letter| format!("&#{};", u32::from(letter)))
                    .collect()
            },
            |text| {
                text.chars()
                    .map(|letter| format!("&#x{:X};", u32::from(letter)))
                    .collect()
            },
            |text| url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
            |text| {
                text.replace('&', "&amp;")
                    .replace('<', "&lt;")
                    .replace('"', "&quot;")
            },
            |text| text.to_ascii_uppercase(),
            hexadecimal,
            |text| hexadecimal(text).to_uppercase(),
            |text| base64_simd::STANDARD.encode_to_string(text),
            |text| base64_simd::URL_SAFE_NO_PAD.encode_to_string(text),
            |text| percent(&base64_simd::STANDARD.encode_to_string(text)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// The surroundings have none of the secret's letters, so that whatever is left of it shows.
        #[test]
        fn no_secret_is_left_in_any_encoding_and_surroundings(
            secret in r#"[a-zA-Z0-9äé€ "'&<>%+=/_\\:;.?!-]{8,80}"#,
            encoding in 0..17_usize,
            before in "[{}()| ]{0,40}",
            after in "[{}()| ]{0,40}",
        ) {
            let secret = secret.trim();
            prop_assume!(View::of(secret.as_bytes()).folded().bytes.len() >= SHORT);
            let echo = encodings()[encoding](secret);
            let masked = knowing(secret).text(&format!("({before}{echo}{after})")).into_owned();
            let left: String = masked.chars().filter(|letter| !"{}()| …=".contains(*letter)).collect();
            // White space and the like at its ends, escaped; and the last letter of base64, which is not all of it.
            let left = View::of(left.as_bytes());
            let left = left.decoded().unwrap_or(left);
            let left = left.decoded().unwrap_or(left).folded().bytes;
            let left = String::from_utf8_lossy(&left).replace('=', "");
            prop_assert!(left.len() <= 2, "{left} is left of {echo} in {masked}");
        }

        #[test]
        fn a_cut_leaves_no_more_than_a_few_letters(
            secret in "[a-zA-Z0-9]{8,80}",
            encoding in 0..17_usize,
            cut in 0.0..1.0_f64,
        ) {
            let echo = encodings()[encoding](&secret);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a text")]
            let cut = (echo.len() as f64 * cut) as usize;
            let masked = knowing(&secret).excerpt(format!("( {}", &echo[..cut]).as_bytes());
            let shown = masked.trim_start_matches("( ").replace(MASK, "");
            let shown = View::of(shown.as_bytes());
            let shown = shown.decoded().unwrap_or(shown);
            let shown = shown.decoded().unwrap_or(shown);
            prop_assert!(shown.bytes.len() < 3 * REMAINDER, "{masked} is left of {}", &echo[..cut]);
        }

        #[test]
        fn any_text_is_masked_without_a_panic(secret in ".{0,60}", text in ".{0,200}", bytes: Vec<u8>) {
            let redactor = knowing(&secret);
            redactor.text(&text);
            redactor.excerpt(&bytes);
        }
    }
}
