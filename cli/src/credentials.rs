//! API URL and token, as `auth login` stores them: in a file that only its owner can read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::global::Global;

#[derive(Serialize, Deserialize)]
pub(crate) struct Credentials {
    /// The API's base.
    pub url: String,
    pub token: String,
}

/// Returns the path of the file; `None` without a configuration directory.
pub(crate) fn path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let directory = match (set("XDG_CONFIG_HOME"), set("APPDATA"), set("HOME")) {
        (Some(own), ..) => PathBuf::from(own),
        (None, Some(own), _) if cfg!(windows) => PathBuf::from(own),
        (None, _, Some(home)) => PathBuf::from(home).join(".config"),
        _ => return None,
    };
    // As the specification of the variable asks: relative paths are ignored.
    let path = directory.join("chainloop/credentials.json");
    path.is_absolute().then_some(path)
}

/// Loads the stored credentials; `None` if nothing is stored.
pub(crate) fn load(global: &Global) -> anyhow::Result<Option<Credentials>> {
    let Some(path) = path() else { return Ok(None) };
    let failure = |why: String| {
        Failure::new(format!("failed to read {}: {why}", path.display())).advice(
            "Run `chainloop auth login` again, or remove the file with `chainloop auth logout`.",
        )
    };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failure(error.to_string()).into()),
    };
    if is_open(&path) {
        global.warn(&format!(
            "other users can read the token in {0}: run chmod 600 {0}",
            path.display()
        ));
    }
    let read = serde_json::from_slice(&text);
    // The line number only: the content is secret.
    read.map(Some)
        .map_err(|error| failure(format!("invalid content in line {}", error.line())).into())
}

#[cfg(unix)]
fn is_open(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open(_: &Path) -> bool {
    false
}

/// Stores the credentials in place of earlier ones, and returns the path.
pub(crate) fn save(credentials: &Credentials) -> anyhow::Result<PathBuf> {
    let path = path().ok_or_else(|| {
        Failure::new("no configuration directory to store the credentials in").advice(
            "Set HOME or \
        XDG_CONFIG_HOME.",
        )
    })?;
    let context = || format!("failed to write {}", path.display());
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).with_context(context)?;
    // Written beside it and renamed: nobody reads half of it, or before its permissions are set.
    let beside = directory.join(format!(".credentials-{}", std::process::id()));
    let written = write(&beside, credentials).and_then(|()| fs::rename(&beside, &path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.with_context(context)?;
    Ok(path)
}

fn write(path: &Path, credentials: &Credentials) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    let mut text = serde_json::to_vec_pretty(credentials)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()
}

/// Removes the stored credentials; returns false if none were stored.
pub(crate) fn remove() -> anyhow::Result<bool> {
    let Some(path) = path() else { return Ok(false) };
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("failed to remove {}", path.display())),
    }
}
