//! Letters that text from strangers must not bring to a person's eyes: one rule for messages, logs and terminals.
//!
//! For text that is shown. A name that is a key, in a path or in another system, stays as it is.

/// Reports whether a character is invisible or changes the direction of writing.
pub fn is_invisible(letter: char) -> bool {
    matches!(
        letter,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// Without control characters, other than a newline and a tab, and without what cannot be seen.
pub fn visible(text: &str) -> String {
    text.chars()
        .filter(|&letter| !is_invisible(letter))
        .filter(|&letter| !letter.is_control() || matches!(letter, '\n' | '\t'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_left_out_and_letters_of_all_scripts_stay() {
        assert_eq!(
            visible("a\u{202e}b\u{200b}c\u{feff}\u{e0041}\u{1b}[2J\n\td\u{9b}"),
            "abc[2J\n\td"
        );
        for text in ["naïve", "日本語", "שלום", "🦀", "e\u{301}", "a\u{fe0f}"] {
            assert_eq!(visible(text), text);
        }
    }
}
