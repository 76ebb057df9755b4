//! One look at every byte, before anything that recurses or that trusts text to be text sees them.
//!
//! `serde_json` has a limit to nesting of its own, 128, but the parsers of third parties that get these
//! bytes after us may have none. UTF-8 is settled here too, since `serde_json` does not look into what it
//! skips, and since what turns out to be ASCII, as most is, then needs no second look.

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
    let mut seen = 0;
    let mut depth = 0_usize;
    let mut entries = 0;
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        seen |= byte;
        match byte {
            b'"' => rest = after_string(after, &mut seen),
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
    if seen.is_ascii() || str::from_utf8(bytes).is_ok() {
        Ok(entries)
    } else {
        Err(Unfit::NotUtf8)
    }
}

/// Counts the entries of `json`, a part of an already scanned document.
pub(crate) fn entries(json: &str) -> usize {
    check(json.as_bytes(), MAX_DEPTH).unwrap_or(usize::MAX)
}

/// Returns the bytes after the string that `bytes` starts inside of. Collects all bits of the skipped bytes in `seen`.
fn after_string<'a>(mut bytes: &'a [u8], seen: &mut u8) -> &'a [u8] {
    // Nearly all bytes of an attestation are base64 in strings. With `|`, not `||` or `any`, this compiles
    // to vector comparisons and runs four times as fast.
    while let Some((chunk, rest)) = bytes.split_first_chunk::<64>() {
        let ends = |found, &byte| found | u8::from(byte == b'"') | u8::from(byte == b'\\');
        if chunk.iter().fold(0, ends) != 0 {
            break;
        }
        *seen |= chunk.iter().fold(0, |bits, &byte| bits | byte);
        bytes = rest;
    }
    while let Some((&byte, rest)) = bytes.split_first() {
        *seen |= byte;
        bytes = rest;
        match byte {
            b'"' => break,
            b'\\' => {
                if let Some((&escaped, rest)) = bytes.split_first() {
                    *seen |= escaped;
                    bytes = rest;
                }
            }
            _ => {}
        }
    }
    bytes
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
