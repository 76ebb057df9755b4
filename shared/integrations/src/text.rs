//! Text from strangers, made fit to be shown to people: nothing that moves a cursor or turns the writing
//! direction, no mail address of a person, and no more of it than was asked for.

use std::borrow::Cow;

pub(crate) use attestation::text::{is_invisible, visible};

/// At most `most` bytes on one line.
pub(crate) fn excerpt(text: &str, most: usize) -> String {
    let visible: String = text
        .chars()
        .filter(|&letter| !is_invisible(letter))
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    let mut line = visible.trim().to_owned();
    line.truncate(line.floor_char_boundary(most));
    line
}

/// At most `most` characters on one line, the last of them `…` where there was more.
pub(crate) fn line(text: &str, most: usize, addresses: bool) -> String {
    /// As long as a mail address can be: one that begins before the cut is whole when it is looked for.
    const ADDRESS: usize = 320;
    let line: String = text
        .chars()
        .filter(|&letter| !is_invisible(letter))
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(most.saturating_add(ADDRESS))
        .collect();
    let line = match addresses {
        true => Cow::Borrowed(line.as_str()),
        false => without_addresses(&line),
    };
    let line = line.trim();
    match line.char_indices().nth(most) {
        None => line.to_owned(),
        Some(_) => {
            let kept = line.chars().take(most.saturating_sub(1));
            kept.chain(['…']).collect()
        }
    }
}

/// With `…@example.org` for whatever looks like a mail address.
pub(crate) fn without_addresses(text: &str) -> Cow<'_, str> {
    let mut masked = String::new();
    let mut kept = 0;
    for (at, _) in text.match_indices('@') {
        let before = &text[kept..at];
        let start = before
            .char_indices()
            .rfind(|&(_, letter)| !is_local(letter))
            .map_or(0, |(index, letter)| index + letter.len_utf8());
        if start < before.len() && is_domain(&text[at + 1..]) {
            masked.push_str(&before[..start]);
            masked.push('…');
            kept = at;
        }
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(&text[kept..]);
    Cow::Owned(masked)
}

/// Reports whether a letter occurs in addresses before the `@`. The standard permits more, but no address has them.
fn is_local(letter: char) -> bool {
    !letter.is_whitespace() && !letter.is_control() && !"@<>()[]{},;:|=/\\\"`".contains(letter)
}

/// Reports whether the text begins with a host's full name, unlike the text after `@` in `name@sha256:…` and
/// `name@4.17.21`.
fn is_domain(text: &str) -> bool {
    let end = text
        .find(|letter: char| !letter.is_alphanumeric() && !matches!(letter, '-' | '.'))
        .unwrap_or(text.len());
    let name = text[..end].trim_end_matches(['.', '-']);
    name.rsplit_once('.').is_some_and(|(rest, last)| {
        let letters = last.chars().all(char::is_alphabetic) && last.chars().nth(1).is_some();
        !rest.is_empty() && (letters || last.starts_with("xn--"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_address_is_masked_and_what_only_resembles_one_is_not() {
        for (text, masked) in [
            ("dev@example.org", "…@example.org"),
            (
                "a: Dev <d.e+v@mail.example.org>, b@example.org.",
                "a: Dev <…@mail.example.org>, …@example.org.",
            ),
            ("owner=o'brien@bücher.example", "owner=…@bücher.example"),
            ("https://u:p@example.org/", "https://u:…@example.org/"),
            ("a@b@example.org", "a@…@example.org"),
            ("dev@xn--bcher-kva.xn--p1ai", "…@xn--bcher-kva.xn--p1ai"),
        ] {
            assert_eq!(without_addresses(text), masked);
        }
        for text in [
            "",
            "@",
            "@example.org",
            "nginx@sha256:00ff",
            "lodash@4.17.21",
            "root@localhost",
            "a@.org",
            "a @example.org",
        ] {
            assert_eq!(without_addresses(text), text);
        }
    }

    #[test]
    fn a_line_is_one_line_and_no_longer_than_asked() {
        assert_eq!(
            line(" a\r\nb\u{202e}\u{1b}[2J\u{200b} ", 64, true),
            "a  b [2J"
        );
        assert_eq!(line("abc", 3, true), "abc");
        assert_eq!(line("äbcd", 3, true), "äb…");
        assert_eq!(
            line("dev\u{200b}@exam\u{200b}ple.org", 64, false),
            "…@example.org"
        );
        assert_eq!(line("a dev.eloper@mail.example.org", 6, false), "a …@m…");
        assert_eq!(line("a", 0, true), "…");
    }

    #[test]
    fn megabytes_of_anything_take_no_time() {
        let started = std::time::Instant::now();
        for text in ["@", "a@", "a@a.", "\u{202e}", "a", ".@-"] {
            let text = text.repeat(1 << 20);
            assert!(line(&text, 100, false).chars().count() <= 100);
            assert!(without_addresses(&text).len() <= text.len() * 2);
        }
        assert!(started.elapsed().as_secs() < 5);
    }
}
