//! A Chainloop control plane, on loopback: what it posts, and where its artifacts are.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use attestation::{Digest, Envelope};
use serde_json::{Value, json};

/// The API token that may read the artifacts.
pub const TOKEN: &str = "chainloop-api-token-of-the-tests";

/// Returns a post of the control plane, of one kind.
pub fn forwarded(kind: &str, data: &[u8]) -> Value {
    json!({
        "Metadata": {
            "Workflow": { "ID": "", "Name": "nightly", "Team": "", "Project": "shop" },
            "WorkflowRun": {
                "ID": "run-1", "State": "success", "StartedAt": "2026-01-02T03:05:00Z",
                "FinishedAt": "2026-01-02T03:09:31.5Z", "RunnerType": "GITHUB_ACTION",
                "RunURL": "https://ci.example.org/1", "AttestationDigest": "",
            },
        },
        "Data": base64_simd::STANDARD.encode_to_string(data),
        "Kind": kind,
    })
}

/// As it posts an attestation.
pub fn attested(envelope: &Envelope) -> Value {
    let compact: Value = serde_json::from_slice(&envelope.compact()).unwrap();
    let data = json!({
        "Envelope": compact,
        "Hash": envelope.hash(),
        "Statement": { "type": "https://in-toto.io/Statement/v1", "predicate_type": "x" },
        "Predicate": {},
    });
    forwarded("ATTESTATION", data.to_string().as_bytes())
}

/// The control plane's download address, and the store that it leads to on another port.
#[derive(Clone)]
pub struct Artifacts(Arc<State>);

struct State {
    plane: u16,
    store: u16,
    contents: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Number of downloads still to break off.
    broken: AtomicU32,
    /// Requests received: the path, and the `Authorization` header if present.
    asked: Mutex<Vec<(String, Option<String>)>>,
}

impl Artifacts {
    pub fn start() -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (plane, store) = (listen(), listen());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            plane: port(&plane),
            store: port(&store),
            contents: Mutex::default(),
            broken: AtomicU32::new(0),
            asked: Mutex::default(),
        });
        // Both end with the test's process.
        for (listener, answer) in [
            (plane, State::redirect as fn(&State, &TcpStream, &Asked)),
            (store, State::download),
        ] {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = Arc::clone(&state);
                    thread::spawn(move || {
                        if let Some(asked) = read(&stream) {
                            let Asked { path, token } = asked.clone();
                            state.asked.lock().unwrap().push((path, token));
                            answer(&state, &stream, &asked);
                        }
                    });
                }
            });
        }
        Self(state)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.0.plane)
    }

    /// Has these bytes from now on.
    pub fn put(&self, bytes: &[u8]) -> Digest {
        self.put_as(Digest::of(bytes), bytes);
        Digest::of(bytes)
    }

    /// Says that it has them under another digest.
    pub fn put_as(&self, digest: Digest, bytes: &[u8]) {
        let mut contents = self.0.contents.lock().unwrap();
        contents.insert(digest.to_string(), bytes.to_vec());
    }

    /// The next downloads break off half-way.
    pub fn break_off(&self, downloads: u32) {
        self.0.broken.store(downloads, Ordering::Relaxed);
    }

    pub fn asked(&self) -> Vec<(String, Option<String>)> {
        self.0.asked.lock().unwrap().clone()
    }
}

impl State {
    fn redirect(&self, stream: &TcpStream, asked: &Asked) {
        let store = self.store;
        if asked.token.as_deref() == Some(&format!("Bearer {TOKEN}")) {
            let path = &asked.path;
            let head = format!("location: http://127.0.0.1:{store}{path}?t=good-for-30-s\r\n");
            answer(stream, 302, &head, b"");
        } else {
            answer(stream, 401, "", b"");
        }
    }

    fn download(&self, mut stream: &TcpStream, asked: &Asked) {
        let known = asked
            .path
            .strip_suffix("?t=good-for-30-s")
            .and_then(|path| path.strip_prefix("/download/"));
        let contents = self.contents.lock().unwrap();
        let found = known.and_then(|digest| contents.get(digest));
        let Some(bytes) = found else {
            return answer(stream, 404, "", b"");
        };
        let broken = &self.broken;
        let less = |left: u32| left.checked_sub(1);
        if broken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
        {
            let length = bytes.len();
            let _ = write!(stream, "HTTP/1.1 200 x\r\ncontent-length: {length}\r\n\r\n");
            let _ = stream.write_all(&bytes[..length / 2]);
            let _ = stream.shutdown(Shutdown::Both);
        } else {
            answer(stream, 200, "", bytes);
        }
    }
}

fn answer(mut stream: &TcpStream, status: u16, head: &str, body: &[u8]) {
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status} x\r\n{head}content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let _ = stream.write_all(body);
}

#[derive(Clone)]
struct Asked {
    path: String,
    token: Option<String>,
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut token = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            return Some(Asked { path, token });
        };
        if name.eq_ignore_ascii_case("authorization") {
            token = Some(value.to_owned());
        }
    }
}
