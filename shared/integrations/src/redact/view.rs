//! Views of a text with escapes undone and spellings folded, which know where each byte stands in the original.

use crate::text;

/// Bytes, each with the range of the original that it stands for.
pub(super) struct View {
    pub(super) bytes: Vec<u8>,
    ranges: Vec<(usize, usize)>,
}

impl View {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            ranges: (0..bytes.len()).map(|at| (at, at + 1)).collect(),
        }
    }

    fn empty(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
            ranges: Vec::with_capacity(capacity),
        }
    }

    /// The original range of the bytes from `start` to `end`.
    pub(super) fn range(&self, start: usize, end: usize) -> (usize, usize) {
        (self.ranges[start].0, self.ranges[end - 1].1)
    }

    fn push(&mut self, bytes: &[u8], range: (usize, usize)) {
        self.bytes.extend_from_slice(bytes);
        self.ranges.resize(self.bytes.len(), range);
    }

    /// Without what differs between spellings: case, white space and what cannot be seen, and the letters that are
    /// others in base64 for URLs, a space in a form, or escaped in JSON without need.
    pub(super) fn folded(&self) -> Self {
        let mut folded = Self::empty(self.bytes.len());
        let mut at = 0;
        while let Some(&byte) = self.bytes.get(at) {
            let width = invisible(&self.bytes[at..]);
            if width == 0 && !is_ignored(byte) {
                folded.push(&[byte.to_ascii_lowercase()], self.ranges[at]);
            }
            at += width.max(1);
        }
        folded
    }

    /// With one layer of escapes undone; none where there is none.
    pub(super) fn decoded(&self) -> Option<Self> {
        let mut decoded = Self::empty(self.bytes.len());
        let mut at = 0;
        let mut has_changed = false;
        while at < self.bytes.len() {
            if let Some((letter, width)) = escape(&self.bytes[at..]) {
                decoded.push(&letter, self.range(at, at + width));
                at += width;
                has_changed = true;
            } else {
                decoded.push(&[self.bytes[at]], self.ranges[at]);
                at += 1;
            }
        }
        has_changed.then_some(decoded)
    }

    /// Places at the end where an escape may begin that was cut.
    pub(super) fn half_letters(&self) -> impl Iterator<Item = usize> {
        let last = self.bytes.len().saturating_sub(12);
        let is_escape = |at: &usize| {
            let rest = &self.bytes[*at..];
            b"%\\&".contains(&rest[0]) && !rest.iter().any(u8::is_ascii_whitespace)
        };
        (last.max(1)..self.bytes.len()).filter(is_escape)
    }

    pub(super) fn until(&self, length: usize) -> Self {
        Self {
            bytes: self.bytes[..length].to_vec(),
            ranges: self.ranges[..length].to_vec(),
        }
    }
}

fn is_ignored(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte.is_ascii_control() || b"+-_/\\".contains(&byte)
}

/// The length of the invisible letter that begins here; 0 for a visible one.
fn invisible(bytes: &[u8]) -> usize {
    let width = match bytes[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return 0,
    };
    let letter = bytes
        .get(..width)
        .and_then(|bytes| std::str::from_utf8(bytes).ok());
    match letter.and_then(|letter| letter.chars().next()) {
        Some(letter) if text::is_invisible(letter) || letter.is_control() => width,
        _ => 0,
    }
}

/// The letter that an escape at the beginning stands for, and the escape's length.
fn escape(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    match bytes {
        [b'%', rest @ ..] => Some((vec![u8::try_from(hex(rest.get(..2)?)?).ok()?], 3)),
        [b'\\', b'u' | b'U', rest @ ..] => {
            let unit = hex(rest.get(..4)?)?;
            let low = match rest.get(4..10) {
                Some([b'\\', b'u' | b'U', low @ ..]) => hex(low),
                _ => None,
            };
            match (char::from_u32(unit), low) {
                (Some(letter), _) => Some((utf8(letter), 6)),
                (None, Some(low @ 0xdc00..=0xdfff)) if unit < 0xdc00 => {
                    let letter = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                    Some((utf8(char::from_u32(letter)?), 12))
                }
                _ => None,
            }
        }
        [b'\\', b'x' | b'X', rest @ ..] => {
            Some((vec![u8::try_from(hex(rest.get(..2)?)?).ok()?], 4))
        }
        [b'\\', b'n' | b'r' | b't' | b'b' | b'f', ..] => Some((vec![b' '], 2)),
        [b'\\', letter, ..] if letter.is_ascii_punctuation() => Some((vec![*letter], 2)),
        [b'&', rest @ ..] => entity(rest),
        _ => None,
    }
}

fn utf8(letter: char) -> Vec<u8> {
    letter.to_string().into_bytes()
}

fn hex(digits: &[u8]) -> Option<u32> {
    let is_hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_hex)?;
    u32::from_str_radix(digits, 16).ok()
}

/// Entities of HTML and XML, from behind the ampersand; of the named ones, those that stand for ASCII.
fn entity(rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    // Each name behind its letter.
    const NAMED: [&str; 32] = [
        "&amp", "'apos", "*ast", "\\bsol", ":colon", ",comma", "@commat", "$dollar", "=equals",
        "!excl", "`grave", ">gt", "^hat", "-hyphen", "{lcub", "_lowbar", "(lpar", "[lsqb", "<lt",
        "#num", "%percnt", ".period", "+plus", "?quest", "\"quot", "}rcub", ")rpar", "]rsqb",
        ";semi", "/sol", "~tilde", "|vert",
    ];
    let end = rest.iter().take(10).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(&rest[..end]).ok()?;
    let letter = match name.strip_prefix('#') {
        Some(number) => {
            let number = match number.strip_prefix(['x', 'X']) {
                Some(digits) => hex(digits.as_bytes())?,
                None => number.parse().ok()?,
            };
            char::from_u32(number)?
        }
        None => {
            let known = |known: &&&str| name.eq_ignore_ascii_case(&known[1..]);
            NAMED.iter().find(known)?.chars().next()?
        }
    };
    Some((utf8(letter), end + 2))
}
