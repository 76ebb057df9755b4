//! What goes out: results to standard output, everything said about them to standard error.

use std::io::{self, IsTerminal, Write};
use std::str::FromStr;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use crate::arguments::Global;

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

/// JSON as Chainloop's command prints it: indented by three.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"   "));
    value.serialize(&mut serializer)?;
    text.push(b'\n');
    bytes(&text)
}

pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.context("failed to write to standard output, after all else was done")
}

/// Whether colour is wanted there: on a terminal that is not told otherwise (<https://no-color.org>).
pub(crate) fn coloured(stream: &impl IsTerminal) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal()
        && !is_set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Text from elsewhere without what a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    let control = |letter: char| letter.is_control() && letter != '\n';
    text.replace('\t', "    ").replace(control, "\u{fffd}")
}

impl Global {
    pub(crate) fn info(&self, text: &str) {
        if !self.quiet {
            say("INF", "32", text);
        }
    }

    pub(crate) fn warn(&self, text: &str) {
        if !self.quiet {
            say("WRN", "33", text);
        }
    }
}

/// One message, marked as Chainloop's command marks its own.
pub(crate) fn say(level: &str, colour: &str, text: &str) {
    let mut stderr = io::stderr().lock();
    let text = plain(text);
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
    }
}
