//! Fixtures for the tests of all integrations: an attestation with its SBOMs on stage, and a third party that sends
//! the responses it is given.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use api::trust::{Code, Proof, Verdict, VerifiedSigner};
use attestation::{Attestation, Digest, Material, MaterialType};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::http::Guard;
use crate::{Delivery, Error, Host, Http, Integration, Locked, Piece, Pushed, Workflow};

pub(crate) const CDX: &str = r#"{"bomFormat":"CycloneDX","specVersion":"1.6"}"#;
pub(crate) const SPDX: &str = r#"{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","documentNamespace":"https://example.org/s"}"#;

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
pub(crate) const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

/// The client as it is in local mode.
pub(crate) fn http() -> Http {
    Http::new(Guard::local())
}

/// A delivery's surroundings, and the [`Host`] that has the materials and keeps the steps.
pub(crate) struct Stage {
    pub(crate) attestation: Attestation,
    pub(crate) received: Bytes,
    pub(crate) workflow: Workflow,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) console: Option<String>,
    pub(crate) materials: Vec<Material>,
    pub(crate) missing: Vec<Material>,
    pub(crate) progress: BTreeMap<String, Value>,
    pub(crate) trace: Option<api::Trace>,
    recorded: RefCell<Vec<(String, Value)>>,
    /// Locks that [`Host::lock`] was asked for, by name.
    pub(crate) locks: RefCell<BTreeMap<String, Lock>>,
    /// Entity tag of what is read.
    pub(crate) etag: Cell<Option<&'static str>>,
    /// Pieces that were read.
    pub(crate) reads: Cell<usize>,
    /// Pieces have their first letter wrong.
    pub(crate) is_damaged: Cell<bool>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Lock {
    pub(crate) is_taken: bool,
    pub(crate) note: Value,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::of(include_str!("../tests/files/statement.json"))
    }

    pub(crate) fn of(statement: &str) -> Self {
        let payload = base64_simd::STANDARD.encode_to_string(statement);
        let envelope = format!(
            r#"{{"payloadType":"application/vnd.in-toto+json","payload":"{payload}","signatures":[{{"keyid":"","sig":"c2ln"}}]}}"#
        );
        Self::received(envelope)
    }

    /// With this verdict on its signatures, which a key and a certificate made.
    pub(crate) fn judged(mut self, code: Code) -> Self {
        let signer = |name: &str, proof| VerifiedSigner {
            name: name.to_owned(),
            proof,
        };
        self.verdict = Some(Verdict {
            outcome: code.outcome(),
            reason: code.into(),
            signers: vec![
                signer(
                    "release",
                    Proof::Key {
                        key_id: Digest::of(b"key"),
                    },
                ),
                signer(
                    "ci",
                    Proof::Keyless {
                        issuer: "https://issuer.example.org".to_owned(),
                        identity: "dev@example.org".to_owned(),
                    },
                ),
            ],
            policy: "shop@1".to_owned(),
            root: None,
            envelope: self.attestation.envelope.hash(),
            at: "2026-01-02T03:04:05Z".parse().unwrap(),
        });
        self
    }

    /// In a Sigstore bundle.
    pub(crate) fn bundled(self) -> Self {
        self.bundled_as("0.3")
    }

    /// In a Sigstore bundle of this version.
    pub(crate) fn bundled_as(self, version: &str) -> Self {
        let envelope = String::from_utf8(self.received.into()).unwrap();
        Self::received(format!(
            r#"{{"mediaType":"application/vnd.dev.sigstore.bundle+json;version={version}","verificationMaterial":{{}},"dsseEnvelope":{envelope}}}"#
        ))
    }

    fn received(received: String) -> Self {
        let inline = |name, kind, content: &str| {
            Material::inline(name, kind, "file.json", content.as_bytes().to_vec())
        };
        Self {
            attestation: Attestation::parse(received.as_bytes()).unwrap(),
            received: received.into(),
            workflow: Workflow {
                id: "6f0c1f0e-0000-4000-8000-000000000001".to_owned(),
                project: "shop".to_owned(),
                name: "nightly-build".to_owned(),
            },
            verdict: None,
            console: Some("https://integrations.example.org/console".to_owned()),
            materials: vec![
                inline("sbom", MaterialType::SBOM_CYCLONEDX_JSON, CDX),
                inline("packages", MaterialType::SBOM_SPDX_JSON, SPDX),
            ],
            missing: Vec::new(),
            progress: BTreeMap::new(),
            trace: None,
            recorded: RefCell::default(),
            locks: RefCell::default(),
            etag: Cell::default(),
            reads: Cell::default(),
            is_damaged: Cell::default(),
        }
    }

    pub(crate) fn pushed(&self) -> Pushed<'_> {
        Pushed {
            attestation: &self.attestation,
            workflow: &self.workflow,
            verdict: self.verdict.as_ref(),
            console: self.console.as_deref(),
        }
    }

    pub(crate) fn delivery<'a, I: Integration>(
        &'a self,
        registration: &'a I::Registration,
        attachment: &'a I::Attachment,
    ) -> Delivery<'a, I> {
        Delivery {
            id: "sha256:5d1e",
            attempt: 1,
            registration_name: "prod",
            registration,
            attachment,
            pushed: self.pushed(),
            received: &self.received,
            materials: &self.materials,
            missing: &self.missing,
            progress: &self.progress,
            trace: self.trace,
        }
    }

    pub(crate) fn recorded(&self) -> Vec<(String, Value)> {
        self.recorded.borrow().clone()
    }
}

impl Host for Stage {
    fn content<'a>(&'a self, material: &'a Material) -> LocalBoxFuture<'a, Result<Bytes, Error>> {
        let content = material.content.clone().unwrap();
        std::future::ready(Ok(content.into())).boxed_local()
    }

    fn size_bytes<'a>(&'a self, material: &'a Material) -> LocalBoxFuture<'a, Result<u64, Error>> {
        let size_bytes = material.content.as_ref().unwrap().len() as u64;
        std::future::ready(Ok(size_bytes)).boxed_local()
    }

    fn read<'a>(
        &'a self,
        material: &'a Material,
        offset: u64,
        length: u64,
    ) -> LocalBoxFuture<'a, Result<Piece, Error>> {
        let content = material.content.as_ref().unwrap();
        let place = |at: u64| usize::try_from(at).unwrap().min(content.len());
        self.reads.set(self.reads.get() + 1);
        let mut part = content[place(offset)..place(offset + length)].to_vec();
        if self.is_damaged.get() && offset == 0 {
            part[0] ^= 1;
        }
        let piece = Piece {
            bytes: part.into(),
            etag: self.etag.get().map(str::to_owned),
        };
        std::future::ready(Ok(piece)).boxed_local()
    }

    fn lock<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<Locked, Error>> {
        let mut locks = self.locks.borrow_mut();
        let lock = locks.entry(name.to_owned()).or_default();
        let locked = if lock.is_taken {
            Locked::Theirs
        } else {
            lock.is_taken = true;
            Locked::Ours(lock.note.clone())
        };
        std::future::ready(Ok(locked)).boxed_local()
    }

    fn unlock<'a>(&'a self, name: &'a str, note: Value) -> LocalBoxFuture<'a, Result<(), Error>> {
        let lock = Lock {
            is_taken: false,
            note,
        };
        self.locks.borrow_mut().insert(name.to_owned(), lock);
        std::future::ready(Ok(())).boxed_local()
    }

    fn record<'a>(
        &'a self,
        step: &'a str,
        receipt: Value,
    ) -> LocalBoxFuture<'a, Result<(), Error>> {
        self.recorded.borrow_mut().push((step.to_owned(), receipt));
        std::future::ready(Ok(())).boxed_local()
    }

    fn unix_secs(&self) -> u64 {
        1_767_323_400
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// A third party on loopback: gives each connection's one request the next answer, and closes connections
/// when there is no answer left.
pub(crate) struct Peer {
    pub(crate) origin: String,
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Peer {
    pub(crate) fn start(answers: &[&str]) -> Self {
        Self::listen("127.0.0.1:0".parse().unwrap(), answers)
    }

    /// In place of another one, at its address.
    pub(crate) async fn again(other: &Self, answers: &[&str]) -> Self {
        other.server.abort();
        while !other.server.is_finished() {
            tokio::task::yield_now().await;
        }
        Self::listen(other.address, answers)
    }

    fn listen(address: SocketAddr, answers: &[&str]) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener: TcpListener = socket.listen(16).unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let (seen, answers) = (
            Arc::clone(&received),
            answers.iter().map(|&answer| answer.to_owned()),
        );
        let mut answers = answers.collect::<Vec<_>>().into_iter();
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(answer) = answers.next() else {
                    continue;
                };
                let Some(request) = read(&mut stream).await else {
                    continue;
                };
                seen.lock().unwrap().push(request);
                let answer = answer.replacen("\r\n", "\r\nconnection: close\r\n", 1);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self {
            origin: format!("http://{address}"),
            address,
            received,
            server,
        }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Reads one request, whose body has a stated length.
pub(crate) async fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).ok()?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = bytes.split_off(head + 4);
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received {
        method: first.next()?.to_owned(),
        target: first.next()?.to_owned(),
        headers,
        body,
    })
}

/// Compares with the file of this name, or writes it where `REFRESH` is set.
pub(crate) fn compare(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/files")
        .join(name);
    if std::env::var_os("REFRESH").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        actual, expected,
        "differs from {name}; REFRESH=1 cargo test writes it anew"
    );
}
