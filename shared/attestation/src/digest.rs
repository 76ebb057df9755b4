//! A SHA-256, the name under which everything here is known: documents, envelopes and materials.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "sha256:";

/// Written `sha256:<hex>`, everywhere and always.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The text is neither `sha256:` with 64 hexadecimal digits nor those digits alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the digest: it is not sha256: and 64 hexadecimal digits")]
pub struct InvalidDigest;

impl Digest {
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The digest of the parts, one after the other, without putting them together first.
    pub fn of_parts(parts: &[&[u8]]) -> Digest {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        Digest(hasher.finalize().into())
    }

    /// The digests of `whole` and of the `parts`, sooner than one after the other: a processor with SHA
    /// instructions mostly waits for the last, and fills the wait when two sums alternate block by block.
    pub(crate) fn of_both(whole: &[u8], parts: [&[u8]; 3]) -> (Digest, Digest) {
        const BLOCK: usize = 64;
        let [head, body, tail] = parts;
        let (mut whole_hasher, mut parts_hasher) = (Sha256::new(), Sha256::new());
        // From here on both see whole blocks, and need not gather them.
        let aligned = head.len().next_multiple_of(BLOCK) - head.len();
        let (lead, body) = body.split_at(aligned.min(body.len()));
        parts_hasher.update(head);
        parts_hasher.update(lead);
        let mut blocks = body.chunks(BLOCK);
        for block in whole.chunks(BLOCK) {
            whole_hasher.update(block);
            parts_hasher.update(blocks.next().unwrap_or_default());
        }
        for block in blocks {
            parts_hasher.update(block);
        }
        parts_hasher.update(tail);
        (
            Digest(whole_hasher.finalize().into()),
            Digest(parts_hasher.finalize().into()),
        )
    }

    /// The 64 digits alone, lower-case.
    pub fn hex(&self) -> String {
        self.to_string().split_off(PREFIX.len())
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; PREFIX.len() + 64];
        text[..PREFIX.len()].copy_from_slice(PREFIX.as_bytes());
        for (pair, byte) in text[PREFIX.len()..].chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        formatter.pad(str::from_utf8(&text).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Digest, InvalidDigest> {
        let digits = text.strip_prefix(PREFIX).unwrap_or(text).as_bytes();
        if digits.len() != 64 {
            return Err(InvalidDigest);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Digest(bytes))
    }
}

fn nibble(digit: u8) -> Result<u8, InvalidDigest> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(InvalidDigest),
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        crate::json::Text::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for Digest {
    fn schema_name() -> Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let pattern = if generator.contract().is_serialize() {
            "^sha256:[0-9a-f]{64}$"
        } else {
            "^(sha256:)?[0-9A-Fa-f]{64}$"
        };
        json_schema!({ "type": "string", "pattern": pattern, "description": "A SHA-256: `sha256:` and 64 hexadecimal digits." })
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_is_written_with_its_algorithm() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(format!("{digest:?}"), EMPTY);
        assert_eq!(digest.hex(), EMPTY[7..]);
        assert_eq!(
            serde_json::to_string(&digest).unwrap(),
            format!("\"{EMPTY}\"")
        );
    }

    #[test]
    fn a_digest_is_read_with_or_without_its_algorithm_and_in_either_case() {
        let digest = Digest::of(b"");
        for text in [EMPTY, &EMPTY[7..], &EMPTY[7..].to_uppercase()] {
            assert_eq!(text.parse(), Ok(digest));
        }
        let escaped = format!("\"{}\"", EMPTY.replace(':', "\\u003a"));
        assert_eq!(serde_json::from_str::<Digest>(&escaped).unwrap(), digest);
    }

    #[test]
    fn what_is_not_a_digest_is_refused() {
        for text in [
            "",
            "sha256:",
            "sha512:00",
            &EMPTY[..70],
            &format!("{EMPTY}0"),
            &"g".repeat(64),
            &"é".repeat(32),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(InvalidDigest), "{text}");
        }
    }

    #[test]
    fn parts_have_the_digest_of_the_whole() {
        assert_eq!(Digest::of_parts(&[b"ab", b"", b"c"]), Digest::of(b"abc"));
    }

    #[test]
    fn two_digests_at_once_are_those_of_each() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1_000).collect();
        for (whole, head, body) in [
            (0, 0, 0),
            (1, 1, 1),
            (64, 63, 200),
            (1_000, 65, 900),
            (10, 64, 1_000),
        ] {
            let parts = [&bytes[..head], &bytes[..body], &bytes[..7]];
            let both = (Digest::of(&bytes[..whole]), Digest::of_parts(&parts));
            assert_eq!(Digest::of_both(&bytes[..whole], parts), both);
        }
    }
}
