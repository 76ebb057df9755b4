//! The machine by its shape.

use std::fs;
use std::thread;

/// Features that cryptographic and other libraries look for.
const FEATURES: [&str; 9] = [
    "adx", "aes", "avx2", "avx512f", "bmi2", "pmull", "sha2", "sha_ni", "vaes",
];

/// Architecture and features of the CPU.
pub fn features() -> Vec<String> {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let flags = line("flags")
        .or_else(|| line("Features"))
        .unwrap_or_default();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let own = FEATURES.iter().filter(|one| flags.contains(one));
    let architecture = std::env::consts::ARCH.to_owned();
    std::iter::once(architecture)
        .chain(own.map(|one| (*one).to_owned()))
        .collect()
}

/// As `2 x86_64 cores (adx, aes, avx2)`.
pub fn shape() -> String {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let features = features();
    let (architecture, features) = features.split_first().expect("an architecture");
    format!("{cores} {architecture} cores ({})", features.join(", "))
}
