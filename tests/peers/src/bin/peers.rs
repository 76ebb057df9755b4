//! Third peers to deliver to, on this machine: `make peers` runs this.
//!
//!     peers DIRECTORY
//!
//! Where they are is in `DIRECTORY/env`, what they were sent in `DIRECTORY/received`. They end with it.

use std::path::Path;
use std::time::Duration;

use peers::all::AllPeers;

fn main() {
    let Some(directory) = std::env::args().nth(1) else {
        panic!("usage: peers DIRECTORY")
    };
    let peers = AllPeers::start(Path::new(&directory));
    loop {
        peers.keep();
        std::thread::sleep(Duration::from_millis(100));
    }
}
