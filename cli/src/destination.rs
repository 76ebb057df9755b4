//! Output of commands that write bytes: a file, or standard output.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::confirm::{self, Action};
use crate::global::Global;
use crate::output;

/// A file; standard output when none.
#[derive(Debug)]
pub(crate) struct Destination(Option<PathBuf>);

const REPLACE: Action = Action {
    what: "replace it",
    refused: "nothing was written",
};

impl Destination {
    /// Asks before a file that exists is replaced.
    pub(crate) fn of(global: &Global, file: Option<PathBuf>) -> anyhow::Result<Self> {
        let file = file.filter(|file| file != Path::new("-"));
        if let Some(file) = file.as_ref().filter(|file| file.exists()) {
            confirm::action(global, &REPLACE, || {
                Ok(format!("{} already exists. Replace it?", file.display()))
            })?;
        }
        Ok(Self(file))
    }

    pub(crate) fn write(&self, global: &Global, bytes: &[u8]) -> anyhow::Result<()> {
        let Some(file) = &self.0 else {
            output::bytes(bytes)?;
            return Ok(());
        };
        write(file, bytes).with_context(|| format!("failed to write {}", file.display()))?;
        global.info(&format!("{}: {} bytes", file.display(), bytes.len()));
        Ok(())
    }
}

/// Whole or not at all.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}
