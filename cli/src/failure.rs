//! Errors of commands: the failed action, its reason, advice, and the request ID.
//!
//! Commands name the action in `anyhow`'s contexts. An error with more than a text is a [`Failure`].

use std::fmt;
use std::io;
use std::process::ExitCode;

use anyhow::Context as _;
use api::Code;
use serde::Serialize;

use crate::called;
use crate::output::{self, Format, say};

#[derive(Debug, Default)]
pub(crate) struct Failure {
    /// One fragment: what was wrong.
    text: String,
    /// Faults in detail, one a line.
    faults: Vec<String>,
    /// Advice to the user: a sentence.
    advice: String,
    request_id: String,
    exit: Option<u8>,
    /// The status of the API's response and its problem's code, where that is the reason.
    status: u16,
    code: String,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// The user interrupted the command.
    pub(crate) fn interrupted(text: impl Into<String>) -> Self {
        Self {
            exit: Some(crate::interrupt::EXIT),
            ..Self::new(text)
        }
    }

    /// Usage error.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self {
            exit: Some(2),
            ..Self::new(text)
        }
    }

    #[must_use]
    pub(crate) fn faults(self, faults: Vec<String>) -> Self {
        Self { faults, ..self }
    }

    #[must_use]
    pub(crate) fn advice(self, advice: impl Into<String>) -> Self {
        Self {
            advice: advice.into(),
            ..self
        }
    }

    #[must_use]
    pub(crate) fn answered(self, status: u16, code: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            ..self
        }
    }

    /// Reports whether the API's problem has this code.
    pub(crate) fn has_code(&self, code: Code) -> bool {
        self.code == code.as_str()
    }

    /// Reports whether the API refused the content of the request, rather than its sender or its timing.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.status, 400 | 409 | 413 | 422)
    }

    #[must_use]
    pub(crate) fn request(self, id: impl Into<String>) -> Self {
        Self {
            request_id: id.into(),
            ..self
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// An error as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    error: String,
    /// The API's code, or the kind of the failure.
    code: &'a str,
    faults: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    advice: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
}

impl<'a> View<'a> {
    fn new(error: &'a anyhow::Error) -> Self {
        let failure = error.downcast_ref::<Failure>();
        let text = |of: fn(&Failure) -> &String| failure.map_or("", |failure| of(failure).as_str());
        let code = match (
            text(|failure| &failure.code),
            failure.and_then(|one| one.exit),
        ) {
            ("", Some(2)) => "usage",
            ("", Some(crate::interrupt::EXIT)) => "interrupted",
            ("", _) => "failure",
            (code, _) => code,
        };
        Self {
            error: format!("{error:#}"),
            code,
            faults: failure.map_or(&[], |failure| failure.faults.as_slice()),
            advice: text(|failure| &failure.advice),
            request_id: text(|failure| &failure.request_id),
        }
    }
}

/// Prints an error to standard error: as JSON, on a line of its own, where the output is JSON.
pub(crate) fn report(error: &anyhow::Error, output: Format) -> ExitCode {
    // `chainloop … | head` has read what it wanted.
    let pipe = |cause: &(dyn std::error::Error + 'static)| {
        let error = cause.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(pipe) {
        return ExitCode::SUCCESS;
    }
    match output {
        Format::Json => {
            let json = output::one_line_json(&View::new(error));
            let json = json.unwrap_or_else(|_| text(error));
            output::complain(&called::text(&json, &called::name()));
        }
        Format::Table => say("ERR", "31", &text(error)),
    }
    let exit = error
        .downcast_ref::<Failure>()
        .and_then(|failure| failure.exit);
    ExitCode::from(exit.unwrap_or(1))
}

/// Prints clap's message: help, or a usage error.
pub(crate) fn parsed(told: &clap::Error, output: Format) -> ExitCode {
    let exit = u8::try_from(told.exit_code()).unwrap_or(2);
    // It quotes what it does not understand, and a PEM may be a private key.
    if told.use_stderr() && told.to_string().contains("-----BEGIN ") {
        let text = "a PEM was given as an argument: name the file that it is in";
        return report(&Failure::usage(text).into(), output);
    }
    if told.use_stderr() && output == Format::Json {
        return report(&usage(told).into(), output);
    }
    match told.print().context("failed to write to standard output") {
        Err(error) if !told.use_stderr() => report(&error, output),
        _ => ExitCode::from(exit),
    }
}

/// A usage error in one line: what clap says before it shows how to use the command.
fn usage(told: &clap::Error) -> Failure {
    let told = told.to_string();
    let lines = told.lines().take_while(|line| !line.starts_with("Usage:"));
    let lines = lines.map(str::trim).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join(" ");
    Failure::usage(text.trim_start_matches("error: "))
}

/// Formats an error with its faults, advice and request ID.
pub(crate) fn text(error: &anyhow::Error) -> String {
    let mut text = format!("{error:#}");
    let Some(failure) = error.downcast_ref::<Failure>() else {
        return text;
    };
    for fault in &failure.faults {
        text.push_str("\n    ");
        text.push_str(fault);
    }
    if !failure.advice.is_empty() {
        text.push_str("\n    ");
        text.push_str(&failure.advice);
    }
    if !failure.request_id.is_empty() {
        text.push_str("\n    request ID: ");
        text.push_str(&failure.request_id);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_what_to_do_and_which_request() {
        let failure = Failure::new("invalid inputs")
            .faults(vec![
                "webhook: is required".into(),
                "port: must be at most 65535".into(),
            ])
            .advice("Correct them and try again.")
            .request("req-1");
        let error = anyhow::Error::new(failure).context("failed to register \"one\"");
        assert_eq!(
            text(&error),
            "failed to register \"one\": invalid inputs\n    webhook: is required\n    \
             port: must be at most 65535\n    Correct them and try again.\n    request ID: req-1"
        );
    }
}
