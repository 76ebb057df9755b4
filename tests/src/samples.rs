//! Real documents, where they lie: `SAMPLES_DIR` says where. Without it those tests say that they did not run.

use std::io::Write as _;
use std::path::PathBuf;

/// The samples' folder, or a line that says what did not run.
pub fn directory(test: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("SAMPLES_DIR").map(PathBuf::from);
    match &directory {
        None => {
            // Not `eprintln!`, whose text is shown of failed tests only.
            let line = format!("did not run: {test} (SAMPLES_DIR is not set)\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
        Some(directory) => assert!(directory.is_dir(), "SAMPLES_DIR is not a folder"),
    }
    directory
}
