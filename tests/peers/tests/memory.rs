//! Ten SBOMs of 100 MB in one delivery take no more memory than small ones.

#![allow(clippy::unwrap_used, reason = "for tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MOST_KB: u64 = 64 * 1024;

/// Takes all that comes, keeps nothing, and counts the bytes of bodies.
fn sink() -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let counted = Arc::clone(&counted);
            std::thread::spawn(
                move || while answer(stream.as_ref().unwrap(), &counted).is_some() {},
            );
        }
    });
    (origin, count)
}

/// One request; nothing at the connection's end.
fn answer(mut stream: &TcpStream, count: &AtomicU64) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut left = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(length) = line.strip_prefix("content-length:") {
            left = length.trim().parse().unwrap();
        }
    }
    let body = std::io::copy(&mut reader.by_ref().take(left), &mut std::io::sink()).ok()?;
    count.fetch_add(body, Ordering::Relaxed);
    // A token for whoever asks for one, and success for everybody else.
    let body = r#"{"access_token":"t","expires_in":3599}"#;
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .ok()
}

#[test]
fn ten_sboms_of_100_mb_are_delivered_within_64_mb() {
    for kind in ["webhook", "s3", "gcs", "azure"] {
        let (origin, count) = sink();
        let output = Command::new(env!("CARGO_BIN_EXE_stream-memory"))
            .args([kind, &origin])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let most_kb: u64 = String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let received = count.load(Ordering::Relaxed);
        println!("{kind}: {most_kb} kB resident at most for {received} bytes");
        assert!(received >= 1_000_000_000, "{kind}: {received}");
        assert!(most_kb < MOST_KB, "{kind}: {most_kb} kB");
    }
}
