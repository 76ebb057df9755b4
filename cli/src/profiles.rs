//! Profiles, as they are stored: in a file that only its owner can read, in a directory that the official command does not
//! have.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::global::Global;

/// An installation, with the token for it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// The API's base.
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Profiles {
    /// The one that is used where neither a flag nor a variable names one.
    pub current: Option<String>,
    #[serde(default)]
    pub profiles: BTreeMap<String, Profile>,
}

impl Profiles {
    /// Returns the name of the profile to use: that of `--profile`, of the variable, or the current one.
    pub(crate) fn name(&self, global: &Global) -> Option<String> {
        global.profile.clone().or_else(|| self.current.clone())
    }

    /// Returns the profile to use, with its name; `None` if none is chosen.
    pub(crate) fn chosen(mut self, global: &Global) -> anyhow::Result<Option<(String, Profile)>> {
        let Some(name) = self.name(global) else {
            return Ok(None);
        };
        let profile = self.remove(&name)?;
        Ok(Some((name, profile)))
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Profile, Failure> {
        self.profiles.get(name).ok_or_else(|| absent(name))
    }

    pub(crate) fn remove(&mut self, name: &str) -> Result<Profile, Failure> {
        let removed = self.profiles.remove(name).ok_or_else(|| absent(name))?;
        self.current.take_if(|current| current == name);
        Ok(removed)
    }

    /// Adds a profile, or replaces it. The first one is the current one.
    pub(crate) fn put(&mut self, name: &str, profile: Profile) {
        self.profiles.insert(name.to_owned(), profile);
        self.current.get_or_insert_with(|| name.to_owned());
    }
}

fn absent(name: &str) -> Failure {
    Failure::usage(format!("there is no profile {name:?}")).advice(
        "`chainloop profile list` shows the existing ones, `chainloop profile add` adds one.",
    )
}

/// Returns the path of the file; `None` without a configuration directory.
pub(crate) fn path() -> Option<PathBuf> {
    // As the specification of XDG_CONFIG_HOME asks: relative paths are ignored.
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let set = |name| set(name).filter(|path| path.is_absolute());
    let users = || match (cfg!(windows), cfg!(target_os = "macos")) {
        (true, _) => set("APPDATA"),
        (_, true) => Some(set("HOME")?.join("Library/Application Support")),
        _ => Some(set("HOME")?.join(".config")),
    };
    let directory = set("XDG_CONFIG_HOME").or_else(users)?;
    Some(directory.join("chainloop-integrations/profiles.json"))
}

/// Loads the stored profiles; none if nothing is stored. Warns of a file that others can read.
pub(crate) fn load(global: &Global) -> anyhow::Result<Profiles> {
    let Some(path) = path() else {
        return Ok(Profiles::default());
    };
    if is_open(&path) {
        global.warn(&format!(
            "other users can read the tokens in {0}: run chmod 600 {0}",
            path.display()
        ));
    }
    Ok(read(&path)?)
}

fn read(path: &Path) -> Result<Profiles, Failure> {
    let failure = |why: String| {
        Failure::new(format!("failed to read {}: {why}", path.display())).advice(
            "Correct the file, or remove it and add the profiles again with `chainloop profile add`.",
        )
    };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Profiles::default()),
        Err(error) => return Err(failure(error.to_string())),
    };
    // The line number only: the content is secret.
    serde_json::from_slice(&text)
        .map_err(|error| failure(format!("invalid content in line {}", error.line())))
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

/// Changes the stored profiles, and returns them with their path. Of several commands at once each changes what the one
/// before it stored.
pub(crate) fn change(
    change: impl FnOnce(&mut Profiles) -> Result<(), Failure>,
) -> anyhow::Result<(Profiles, PathBuf)> {
    let path = path().ok_or_else(|| {
        Failure::new("no configuration directory to store the profile in")
            .advice("Set HOME or XDG_CONFIG_HOME.")
    })?;
    let context = || format!("failed to write {}", path.display());
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).with_context(context)?;
    // Released when it is closed, however the command ends.
    let _lock = lock(&directory.join(".profiles.lock")).with_context(context)?;
    let mut profiles = read(&path)?;
    change(&mut profiles)?;
    // Written beside it and renamed: nobody reads half of it, or before its permissions are set.
    let beside = directory.join(format!(".profiles-{}", std::process::id()));
    let written = write(&beside, &profiles).and_then(|()| fs::rename(&beside, &path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.with_context(context)?;
    Ok((profiles, path))
}

/// Waits for a lock; none where the file system has none. Its file is the owner's alone: whoever can open it can hold it.
fn lock(path: &Path) -> io::Result<File> {
    let file = private().create(true).truncate(false).open(path)?;
    match file.lock() {
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
        _ => Ok(file),
    }
}

/// Options to write a file that its owner alone can open, where it is made.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options
}

fn write(path: &Path, profiles: &Profiles) -> io::Result<()> {
    let mut file = private().create_new(true).open(path)?;
    let mut text = serde_json::to_vec_pretty(profiles)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()
}
