//! Delivers ten SBOMs of 100 MB, which exist nowhere as a whole, and says how much memory that took.
//!
//!     stream-memory webhook|s3|gcs|azure http://127.0.0.1:PORT
//!
//! As a delivery function does it: one thread, one client. The most memory that was resident (`VmHWM`) is the
//! last line, in kB. `tests/memory.rs` is what listens there, and reads that line.

#![allow(clippy::unwrap_used, reason = "for tests")]

use attestation::{Digest, Material, MaterialType};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use integrations::guac::Guac;
use integrations::webhook::Webhook;
use integrations::{
    CHUNK_BYTES, Content, Encoding, Error, Host, Integration, Locked, Outcome, Piece,
};
use peers::gcs::Gcs;
use peers::{Stage, http};
use serde_json::{Value, json};

const SIZE_BYTES: u64 = 100_000_000;
const COUNT: usize = 10;
const STATEMENT: &str = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"shop","digest":{"sha256":"1111111111111111111111111111111111111111111111111111111111111111"}}],"predicateType":"chainloop.dev/attestation/v0.2","predicate":{"metadata":{"name":"nightly-build"}}}"#;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().collect();
    let [_, kind, origin] = &words[..] else {
        panic!("usage: stream-memory webhook|s3|gcs|azure ORIGIN")
    };
    let mut host = Generated(Stage::of_statement(STATEMENT));
    for number in 0..COUNT {
        let mut material = Material {
            name: number.to_string(),
            kind: MaterialType::SBOM_SPDX_JSON,
            ..Material::default()
        };
        let content = Content::default()
            .material(&host, &material, Encoding::Plain)
            .await;
        let digest: Digest = content.unwrap().digest(&host).await.unwrap();
        material.digest = Some(digest);
        host.0.materials.push(material);
    }
    let bucket = |more: Value| {
        let mut inputs = json!({ "bucket": "sboms", "endpoint": origin });
        let all = inputs.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        inputs
    };
    let (registration, attachment) = match kind.as_str() {
        "webhook" => (
            json!({ "url": origin, "secret": "a secret of enough characters" }),
            json!({ "send_sbom": true }),
        ),
        "s3" => (
            bucket(json!({ "access_key_id": "A", "credentials": "s" })),
            json!({}),
        ),
        "gcs" => (
            bucket(json!({ "credentials": Gcs::credentials() })),
            json!({}),
        ),
        "azure" => (
            bucket(json!({ "provider": "azure", "account": "shop", "credentials": "a2V5" })),
            json!({}),
        ),
        other => panic!("no such kind: {other}"),
    };
    let outcome = match kind.as_str() {
        "webhook" => deliver::<Webhook>(&host, registration, attachment).await,
        _ => deliver::<Guac>(&host, registration, attachment).await,
    };
    assert!(matches!(outcome, Ok(Outcome::Delivered(_))), "{outcome:?}");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!("{}", line.unwrap().trim().trim_end_matches(" kB"));
}

async fn deliver<I: Integration>(
    host: &Generated,
    registration: Value,
    attachment: Value,
) -> Result<Outcome, Error> {
    let registration: I::Registration = serde_json::from_value(registration).unwrap();
    let attachment: I::Attachment = serde_json::from_value(attachment).unwrap();
    let delivery = host.0.delivery::<I>(&registration, &attachment);
    I::deliver(&http(), host, &delivery).await
}

/// Has a material's bytes only while they are read: an SPDX document that says its name over and over.
struct Generated(Stage);

const HEAD: &[u8] = br#"{"spdxVersion":"SPDX-2.3","names":["#;
const TAIL: &[u8] = b"null]}";

/// The bytes from `offset` on of a material's [`SIZE_BYTES`].
fn document(name: &str, offset: u64, length: usize) -> Vec<u8> {
    let offset = usize::try_from(offset).unwrap();
    let unit = format!("\"{name:>5}\",");
    let end = usize::try_from(SIZE_BYTES).unwrap() - TAIL.len();
    let body = (end - HEAD.len()) / unit.len() * unit.len();
    let mut bytes = Vec::with_capacity(length + unit.len());
    bytes.extend(HEAD.iter().skip(offset).take(length));
    let from = (offset + bytes.len()).saturating_sub(HEAD.len());
    if from < body {
        let wanted = (length - bytes.len()).min(body - from);
        let units = unit.repeat(wanted / unit.len() + 2);
        let skipped = from % unit.len();
        bytes.extend(&units.as_bytes()[skipped..skipped + wanted]);
    }
    while bytes.len() < length {
        let at = offset + bytes.len();
        bytes.push(at.checked_sub(end).map_or(b' ', |at| TAIL[at]));
    }
    bytes
}

impl Host for Generated {
    fn content<'a>(&'a self, _: &'a Material) -> LocalBoxFuture<'a, Result<Bytes, Error>> {
        panic!("a material is wanted whole")
    }

    fn size_bytes<'a>(&'a self, _: &'a Material) -> LocalBoxFuture<'a, Result<u64, Error>> {
        std::future::ready(Ok(SIZE_BYTES)).boxed_local()
    }

    fn read<'a>(
        &'a self,
        material: &'a Material,
        offset: u64,
        length: u64,
    ) -> LocalBoxFuture<'a, Result<Piece, Error>> {
        assert!(length <= CHUNK_BYTES, "more than a chunk is wanted at once");
        let length = usize::try_from(length.min(SIZE_BYTES - offset)).unwrap();
        let bytes = document(&material.name, offset, length);
        std::future::ready(Ok(Bytes::from(bytes).into())).boxed_local()
    }

    fn lock<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<Locked, Error>> {
        self.0.lock(name)
    }

    fn unlock<'a>(&'a self, name: &'a str, note: Value) -> LocalBoxFuture<'a, Result<(), Error>> {
        self.0.unlock(name, note)
    }

    fn record<'a>(
        &'a self,
        step: &'a str,
        receipt: Value,
    ) -> LocalBoxFuture<'a, Result<(), Error>> {
        self.0.record(step, receipt)
    }

    fn unix_secs(&self) -> u64 {
        self.0.unix_secs()
    }
}
