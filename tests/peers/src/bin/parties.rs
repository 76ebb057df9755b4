//! Third parties to deliver to, on this machine: `make parties` runs this.
//!
//!     parties DIRECTORY
//!
//! Where they are is in `DIRECTORY/env`, what they were sent in `DIRECTORY/received`. They end with it.

use std::path::Path;
use std::time::Duration;

use peers::parties::Parties;

fn main() {
    let Some(directory) = std::env::args().nth(1) else {
        panic!("usage: parties DIRECTORY")
    };
    let parties = Parties::start(Path::new(&directory));
    loop {
        parties.keep();
        std::thread::sleep(Duration::from_millis(100));
    }
}
