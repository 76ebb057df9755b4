//! The `chainloop` command, which is in the library of this package, where the fuzz targets reach its parser.

use std::process::ExitCode;

fn main() -> ExitCode {
    chainloop::run()
}
