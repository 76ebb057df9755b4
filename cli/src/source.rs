//! Sources of a value: the text itself, a file, standard input or a variable.

use std::fs;
use std::io::Read;

use crate::failure::Failure;

/// Source of a value.
#[derive(Debug, PartialEq)]
pub(crate) enum Source<'a> {
    Here(&'a str),
    File(&'a str),
    Stdin,
    Variable(&'a str),
}

impl<'a> Source<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        if text == "-" {
            return Self::Stdin;
        }
        if let Some(path) = text.strip_prefix('@') {
            return Self::File(path);
        }
        if let Some(name) = text.strip_prefix("env:") {
            return Self::Variable(name);
        }
        // Only where it is needed: a backslash before anything else is part of the value.
        match text.strip_prefix('\\') {
            Some(rest) if !matches!(Self::of(rest), Self::Here(same) if same == rest) => {
                Self::Here(rest)
            }
            _ => Self::Here(text),
        }
    }
}

/// Sources of values besides the command line.
pub(crate) struct Surroundings<'a> {
    pub stdin: &'a mut dyn Read,
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Reports whether this is the value itself, and not where to read it.
pub(crate) fn is_text(given: &str) -> bool {
    matches!(Source::of(given), Source::Here(_))
}

/// Reads the value of a flag, from the same sources as an option's.
pub(crate) fn text(flag: &str, given: &str) -> anyhow::Result<String> {
    let variable = |name: &str| std::env::var(name).ok();
    let mut stdin = std::io::stdin().lock();
    let mut surroundings = Surroundings {
        stdin: &mut stdin,
        variable: &variable,
    };
    value(&Source::of(given), &mut surroundings)
        .map_err(|fault| Failure::usage(format!("--{flag}: {fault}")).into())
}

/// Reads a value from its source.
pub(crate) fn value(
    source: &Source<'_>,
    surroundings: &mut Surroundings<'_>,
) -> Result<String, String> {
    let text = match source {
        Source::Here(text) => return Ok((*text).to_owned()),
        Source::Variable(name) => {
            return (surroundings.variable)(name)
                .ok_or_else(|| format!("the environment variable {name:?} is not set"));
        }
        Source::File(path) => fs::read_to_string(path)
            .map_err(|error| format!("the file {path:?} could not be read: {error}"))?,
        Source::Stdin => {
            let mut text = String::new();
            surroundings
                .stdin
                .read_to_string(&mut text)
                .map_err(|error| format!("standard input could not be read: {error}"))?;
            text
        }
    };
    // As `$(cat file)` does it: editors end a file with a line break, and a password has none.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Returns the trimmed value, unless it is empty.
pub(crate) fn given(value: Option<&str>) -> Option<String> {
    let value = value.map(str::trim).filter(|value| !value.is_empty());
    value.map(str::to_owned)
}
