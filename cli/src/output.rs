//! Output: results to standard output, all messages about them to standard error.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::str::FromStr;

use anyhow::Context as _;
use attestation::text::is_invisible;
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use crate::called;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            // Chainloop's own words.
            _ => Err("format not implemented"),
        }
    }
}

impl Format {
    /// The format that these words ask for, whether they can be understood or not.
    pub(crate) fn asked(words: &[OsString]) -> Self {
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let json = ["-ojson", "-o=json", "--output=json"];
        let is_json = words.iter().any(|word| json.contains(&word.as_ref()))
            || words
                .windows(2)
                .any(|pair| matches!(&pair[0][..], "-o" | "--output") && pair[1] == "json");
        if is_json { Self::Json } else { Self::Table }
    }
}

/// Prints JSON as Chainloop's command does: indented by three.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"   "));
    value.serialize(&mut serializer)?;
    line(&escaped(&String::from_utf8(text)?))
}

/// Prints JSON on one line, for programs that read line by line.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    line(&one_line_json(value)?)
}

/// Formats JSON on one line.
pub(crate) fn one_line_json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(escaped(&serde_json::to_string(value)?))
}

/// Escapes control and invisible characters in JSON; parsers get the same texts.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for letter in json.chars() {
        if is_invisible(letter) || letter.is_control() && letter != '\n' {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.context("failed to write to standard output; everything else is done")
}

/// Reports whether to colour a stream: a terminal, unless the environment opts out (<https://no-color.org>).
pub(crate) fn coloured(stream: &impl IsTerminal) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal()
        && !is_set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Removes control and invisible characters from foreign text.
pub(crate) fn plain(text: &str) -> String {
    let control = |letter: char| letter.is_control() && letter != '\n';
    text.replace('\t', "    ")
        .replace(is_invisible, "")
        .replace(control, "\u{fffd}")
}

/// As [`plain`], on one line.
pub(crate) fn one_line(text: &str) -> String {
    plain(text).replace('\n', "\u{fffd}")
}

/// Prints a line to standard error.
pub(crate) fn complain(line: &str) {
    // Nobody is left to be told when this fails.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints a message, marked as in Chainloop's command.
pub(crate) fn say(level: &str, colour: &str, text: &str) {
    let mut stderr = io::stderr().lock();
    let text = called::text(&plain(text), &called::name());
    // Nobody is left to be told when this fails.
    let _ = if coloured(&stderr) {
        writeln!(stderr, "\u{1b}[{colour}m{level}\u{1b}[0m {text}")
    } else {
        writeln!(stderr, "{level} {text}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        assert_eq!(
            plain("a\u{1b}[2Jb\nc\td\u{7}"),
            "a\u{fffd}[2Jb\nc    d\u{fffd}"
        );
        assert_eq!(one_line("a\nb"), "a\u{fffd}b");
    }

    #[test]
    fn what_nobody_would_see_is_not_printed() {
        assert_eq!(plain("user\u{202e}txt.exe\u{200b}\u{2066}"), "usertxt.exe");
    }

    #[test]
    fn json_is_safe_to_look_at_and_holds_the_same_texts() {
        let value = serde_json::json!({ "a\u{202e}": "\u{9b}2J\u{7f}\u{e0041}\u{200b}ü\n\\" });
        let text = escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(
            text,
            "{\n  \"a\\u202e\": \"\\u009b2J\\u007f\\udb40\\udc41\\u200bü\\n\\\\\"\n}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
