//! Asks before something is deleted.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::arguments::Global;
use crate::failure::Failure;

/// Asks, unless `--yes` said so. `what` is only worked out when it is needed.
pub(crate) fn deletion(
    global: &Global,
    what: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    if global.yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let failure = Failure::usage("nobody can be asked whether to delete it");
        return Err(failure.advice("Add -y if you are sure.").into());
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{} [y/N] ", crate::output::plain(&what()?))?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new("nothing was deleted").into()),
    }
}
