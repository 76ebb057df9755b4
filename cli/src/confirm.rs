//! Confirmation before an action that cannot be undone.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::failure::Failure;
use crate::global::Global;

/// Action to confirm.
pub(crate) struct Action {
    /// Completes "cannot ask whether to …".
    pub what: &'static str,
    /// Message to an operator who declines.
    pub refused: &'static str,
}

const DELETION: Action = Action {
    what: "delete it",
    refused: "nothing was deleted",
};

/// Asks, unless `--yes` is given. Calls `question` only if it asks.
pub(crate) fn deletion(
    global: &Global,
    question: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    action(global, &DELETION, question)
}

/// As [`deletion`], for other actions.
pub(crate) fn action(
    global: &Global,
    action: &Action,
    question: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    if global.yes {
        return Ok(());
    }
    somebody(action)?;
    let mut stderr = io::stderr().lock();
    write!(stderr, "{} [y/N] ", crate::output::plain(&question()?))?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(action.refused).into()),
    }
}

/// Returns a usage error unless standard input and standard error are terminals, so that a person can be asked.
pub(crate) fn somebody(action: &Action) -> anyhow::Result<()> {
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        return Ok(());
    }
    let failure = Failure::usage(format!(
        "cannot ask whether to {}: no terminal",
        action.what
    ));
    Err(failure.advice("Pass -y to skip the confirmation.").into())
}
