//! Base64 as generously as DSSE asks: the standard or the URL-safe alphabet, padded or not.

use base64_simd::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The bytes that `text` spells. Not taken: two alphabets at once, line breaks, bits left over at the end.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if let Some(bytes) = decode_standard(text) {
        return Some(bytes);
    }
    let digits = match text {
        [digits @ .., b'=', b'='] | [digits @ .., b'='] if text.len().is_multiple_of(4) => digits,
        unpadded => unpadded,
    };
    let alphabet = if digits.iter().any(|digit| matches!(digit, b'-' | b'_')) {
        URL_SAFE_NO_PAD
    } else {
        STANDARD_NO_PAD
    };
    alphabet.decode_to_vec(digits).ok()
}

/// The bytes that `text` spells in the one form that [`encode`] writes.
pub(crate) fn decode_standard(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode_to_vec(text).ok()
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode_to_string(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_are_read_padded_or_not() {
        for text in ["+/+/+w==", "+/+/+w", "-_-_-w==", "-_-_-w"] {
            assert_eq!(
                decode(text.as_bytes()).unwrap(),
                [0xfb, 0xff, 0xbf, 0xfb],
                "{text}"
            );
        }
        assert_eq!(decode(b"").unwrap(), b"");
        assert_eq!(decode(b"YWI=").unwrap(), b"ab");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in [
            "-/+/", "YWI==", "YQ=", "=", "====", "Y", "YR==", "YW\nI=", "YWI= ", "YW=I",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn only_what_would_be_written_is_standard() {
        assert_eq!(decode_standard(b"YQ==").unwrap(), b"a");
        for text in ["YQ", "YR==", "-_-_"] {
            assert_eq!(decode_standard(text.as_bytes()), None, "{text}");
        }
    }
}
