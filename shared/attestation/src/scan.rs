//! One look at every byte, before anything that recurses or that trusts text to be text sees them.
//!
//! `serde_json` has a limit to nesting of its own, 128, but the parsers of third parties that get these
//! bytes after us may have none. UTF-8 is settled here too, since `serde_json` does not look into what it
//! skips.

use memchr::memchr2;

use crate::MAX_DEPTH;

/// Reason why bytes are unfit to be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    TooDeep,
    NotUtf8,
}

/// Counts the entries: commas and opening brackets, at least as many as members and items. Fails unless the bytes are
/// UTF-8 and brackets outside strings nest at most `max` deep. Any other malformed JSON gets an arbitrary result: the
/// parser that runs next rejects it.
pub(crate) fn check(bytes: &[u8], max: usize) -> Result<usize, Unfit> {
    let mut depth = 0_usize;
    let mut entries = 0;
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => rest = after_string(after),
            b',' => entries += 1,
            b'{' | b'[' => {
                entries += 1;
                depth += 1;
                if depth > max {
                    return Err(Unfit::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    match str::from_utf8(bytes) {
        Ok(_) => Ok(entries),
        Err(_) => Err(Unfit::NotUtf8),
    }
}

/// Counts the entries of `json`, a part of an already scanned document.
pub(crate) fn entries(json: &str) -> usize {
    check(json.as_bytes(), MAX_DEPTH).unwrap_or(usize::MAX)
}

/// Returns the bytes after the string that `bytes` starts inside of. Nearly all of an attestation is base64 in strings.
fn after_string(mut bytes: &[u8]) -> &[u8] {
    while let Some(at) = memchr2(b'"', b'\\', bytes) {
        let is_end = bytes[at] == b'"';
        // An escape takes the byte behind it along.
        let next = if is_end { at + 1 } else { at + 2 };
        bytes = bytes.get(next..).unwrap_or_default();
        if is_end {
            return bytes;
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, max: usize) -> Result<(), Unfit> {
        super::check(document.as_bytes(), max).map(drop)
    }

    #[test]
    fn members_and_items_are_counted_and_what_stands_in_strings_is_not() {
        for (document, entries) in [
            ("1", 0),
            ("{}", 1),
            (r#"{"a":1,"b,[":[2,3,{}]}"#, 6),
            (r#"["\\",",{"]"#, 2),
        ] {
            let found = super::check(document.as_bytes(), 9);
            assert_eq!(found, Ok(entries), "{document}");
        }
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(check(&nested(64), 64), Ok(()));
        assert_eq!(check(&nested(65), 64), Err(Unfit::TooDeep));
    }

    #[test]
    fn siblings_are_not_depth() {
        assert_eq!(check(&"[{},[],{}]".repeat(100), 2), Ok(()));
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        for filler in [
            "",
            r#"\""#,
            r"\\",
            r#"\\\""#,
            r#"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""#,
            "\u{2028}\\u005b",
        ] {
            for repeat in [1, 9] {
                let filler = filler.repeat(repeat);
                let document = format!(r#"{{"{filler}[[[[{filler}":"{{{{{{{{{filler}"}}"#);
                assert_eq!(check(&document, 1), Ok(()), "{document}");
                assert_eq!(
                    check(&format!("{document}[["), 1),
                    Err(Unfit::TooDeep),
                    "{document}"
                );
            }
        }
    }

    #[test]
    fn a_string_that_never_ends_is_left_to_the_parser() {
        assert_eq!(check(r#"["[[[["#, 1), Ok(()));
        assert_eq!(check(r#"["[[[[\"#, 1), Ok(()));
    }

    #[test]
    fn bytes_that_are_no_text_are_found_wherever_they_are() {
        let text = format!(r#"{{"{0}\"{0}":"{0}"}}é"#, "a".repeat(70)).into_bytes();
        assert_eq!(super::check(&text, 1), Ok(1));
        for at in 0..text.len() {
            let mut broken = text.clone();
            broken[at] = 0xff;
            assert!(super::check(&broken, 1).is_err(), "at {at}");
        }
    }
}
