//! Quotas of CPU as Lambda gives them by memory: a control group, of version 2 or 1, that this process makes for itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Memory that has one whole CPU.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>
pub const MB_OF_A_CPU: u64 = 1769;
/// Period in which a quota is used up.
const PERIOD_MICROS: u64 = 20_000;

pub struct Quota {
    folder: PathBuf,
    is_v2: bool,
    micros: u64,
}

impl Quota {
    /// Returns none where no group can be made.
    pub fn of_memory(mb: u64) -> Option<Self> {
        let v2 = (Path::new("/sys/fs/cgroup"), true);
        let v1 = (Path::new("/sys/fs/cgroup/cpu"), false);
        [v2, v1].into_iter().find_map(|(root, is_v2)| {
            let quota = Self {
                folder: root.join(format!("bench-{}", std::process::id())),
                is_v2,
                micros: PERIOD_MICROS * mb / MB_OF_A_CPU,
            };
            fs::create_dir(&quota.folder).ok()?;
            // A folder that the kernel has not filled is no group.
            let files = if is_v2 { "cpu.max" } else { "cpu.cfs_quota_us" };
            (quota.folder.join(files).exists() && quota.end().is_ok()).then_some(quota)
        })
    }

    fn set(&self, micros: Option<u64>) -> Result<()> {
        let write = |name: &str, text: String| {
            fs::write(self.folder.join(name), text).with_context(|| format!("failed to set {name}"))
        };
        if self.is_v2 {
            let micros = micros.map_or("max".to_owned(), |micros| micros.to_string());
            return write("cpu.max", format!("{micros} {PERIOD_MICROS}"));
        }
        write("cpu.cfs_period_us", PERIOD_MICROS.to_string())?;
        write(
            "cpu.cfs_quota_us",
            micros.map_or("-1".to_owned(), |micros| micros.to_string()),
        )
    }

    pub fn add(&self, process: u32) -> Result<()> {
        fs::write(self.folder.join("cgroup.procs"), process.to_string())?;
        Ok(())
    }

    pub fn begin(&self) -> Result<()> {
        self.set(Some(self.micros))
    }

    pub fn end(&self) -> Result<()> {
        self.set(None)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // All its processes have ended.
        let _ = fs::remove_dir(&self.folder);
    }
}
