//! Translation of a template from Go's spelling, in which Chainloop's are written, to Jinja's.

use std::collections::BTreeSet;

use crate::text;

/// Go's spelling, and whose annotations it means.
const GO: &[(&str, &str)] = &[
    ("Material.Annotations.", "material"),
    ("Attestation.Annotations.", "attestation"),
];

/// A template in Jinja's spelling.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Translation {
    pub(super) source: String,
    /// Annotations looked up in Go's spelling: their owner and name.
    pub(super) spelled: BTreeSet<(&'static str, String)>,
}

impl Translation {
    pub(super) fn of(mut rest: &str) -> Result<Self, String> {
        let mut translation = Self::default();
        while let Some(begin) = ["{{", "{%", "{#"]
            .iter()
            .filter_map(|tag| rest.find(tag))
            .min()
        {
            let (before, tag) = rest.split_at(begin);
            translation.source.push_str(before);
            let end = match &tag[..2] {
                "{{" => "}}",
                "{%" => "%}",
                _ => "#}",
            };
            let length = match end {
                "#}" => translation.verbatim(tag, end),
                end => translation.code(tag, end)?,
            };
            let (code, after) = tag.split_at(length);
            rest = after;
            if code.trim_matches(['{', '%', '-', '+', '}', ' ']) == "raw" {
                rest = &rest[translation.verbatim(rest, "endraw")..];
            }
        }
        translation.source.push_str(rest);
        Ok(translation)
    }

    /// Takes the text up to `end` as it is; says how much that was.
    fn verbatim(&mut self, text: &str, end: &str) -> usize {
        let length = text.find(end).map_or(text.len(), |at| at + end.len());
        self.source.push_str(&text[..length]);
        length
    }

    /// Takes a tag up to its `end`, which does not stand in quotes; says how much that was.
    fn code(&mut self, tag: &str, end: &str) -> Result<usize, String> {
        let mut quote = None;
        let mut previous = '{';
        let mut at = 0;
        while let Some(letter) = tag[at..].chars().next() {
            let rest = &tag[at + letter.len_utf8()..];
            let mut taken = letter.len_utf8();
            match (quote, letter) {
                (Some(_), '\\') => taken += rest.chars().next().map_or(0, char::len_utf8),
                (Some(open), _) if letter == open => quote = None,
                (None, '"' | '\'') => quote = Some(letter),
                (None, _) if tag[at..].starts_with(end) => {
                    self.source.push_str(end);
                    return Ok(at + end.len());
                }
                (None, '.') if begins(previous) && rest.starts_with(char::is_uppercase) => {
                    at += taken + self.lookup(rest)?;
                    previous = '_';
                    continue;
                }
                _ => {}
            }
            self.source.push_str(&tag[at..at + taken]);
            previous = letter;
            at += taken;
        }
        Ok(tag.len())
    }

    /// Takes what stands behind the dot of a lookup in Go's spelling; says how much that was.
    fn lookup(&mut self, text: &str) -> Result<usize, String> {
        let length = text
            .find(|letter: char| !letter.is_alphanumeric() && !matches!(letter, '_' | '.'))
            .unwrap_or(text.len());
        let path = &text[..length];
        let mut known = GO.iter().filter_map(|&(go, whose)| {
            let key = path.strip_prefix(go)?;
            (!key.is_empty() && !key.contains('.')).then_some((whose, key))
        });
        let Some((whose, key)) = known.next() else {
            let line = self.source.lines().count().max(1);
            let path = text::line(path, 64, true);
            return Err(format!(
                "line {line}: there is no .{path}; in Go's spelling there is .Material.Annotations.name \
                 and .Attestation.Annotations.name"
            ));
        };
        let plain = key.is_ascii() && !key.starts_with(|first: char| first.is_ascii_digit());
        let (open, close) = if plain { (".", "") } else { ("[\"", "\"]") };
        self.source
            .extend([whose, ".annotations", open, key, close]);
        self.spelled.insert((whose, key.to_owned()));
        Ok(length)
    }
}

/// Reports whether a dot after this letter begins a lookup in Go's spelling. In Jinja a dot follows the value that it
/// looks into, or stands between a space and a small letter.
fn begins(previous: char) -> bool {
    !previous.is_alphanumeric() && !matches!(previous, '_' | ')' | ']' | '}' | '"' | '\'')
}
