//! A third party's own program.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Timeout for a program to start listening. The slowest needs four seconds on an idle machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A program that runs until this is dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts it, and waits until something listens on all of these ports of loopback.
    pub fn start(command: &mut Command, ports: &[u16]) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {name}: {error}"));
        let mut process = Self { child };
        let until = Instant::now() + PATIENCE;
        for port in ports {
            let address = SocketAddr::from(([127, 0, 0, 1], *port));
            while TcpStream::connect(address).is_err() {
                if let Some(status) = process.child.try_wait().unwrap() {
                    panic!("{name} ended before it listened: {status}");
                }
                assert!(
                    Instant::now() < until,
                    "{name} does not listen on {address}"
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A program that `make tools` has installed, by its path below `.venv`.
pub fn tool(path: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let tool = root.join(".venv").join(path);
    assert!(tool.exists(), "{} is not there: make tools", tool.display());
    tool
}
