//! A real S3 server, and what tests of all providers say over and over.

use std::path::PathBuf;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::{Attachment, Guac, Registration};
use crate::fixture::{self, Peer, Received, Stage};
use crate::{Error, Integration, Outcome};

pub(super) const KEY: &str = "AKIAEXAMPLE";
pub(super) const SECRET: &str = "canary-secret-access-key";

/// A real S3 server with one bucket, `sboms`, that checks signatures.
pub(super) struct S3 {
    pub(super) root: PathBuf,
    pub(super) endpoint: String,
}

impl S3 {
    pub(super) async fn start(test: &str) -> Self {
        let name = format!("integrations-guac-{}-{test}", std::process::id());
        let root = std::env::temp_dir().join(name);
        std::fs::create_dir_all(root.join("sboms")).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&root).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let service = service.clone();
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { root, endpoint }
    }

    pub(super) fn registration(&self) -> Registration {
        registration(&self.endpoint)
    }

    /// Keys and bytes in the bucket, sorted.
    pub(super) fn objects(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.join("sboms")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let key = path.strip_prefix(self.root.join("sboms")).unwrap();
                    found.push((key.display().to_string(), std::fs::read(&path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

pub(super) fn registration(endpoint: &str) -> Registration {
    registration_of(json!({ "endpoint": endpoint }))
}

#[expect(clippy::needless_pass_by_value, reason = "called with json!")]
pub(super) fn registration_of(more: Value) -> Registration {
    let mut all = json!({ "bucket": "sboms", "access_key_id": KEY, "credentials": SECRET });
    all.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

pub(super) fn attachment(inputs: Value) -> Attachment {
    serde_json::from_value(inputs).unwrap()
}

pub(super) async fn deliver(
    stage: &Stage,
    registration: &Registration,
    attachment: &Attachment,
) -> Result<Outcome, Error> {
    let delivery = stage.delivery(registration, attachment);
    Guac::deliver(&fixture::http(), stage, &delivery).await
}

pub(super) fn receipt(outcome: Outcome) -> Map<String, Value> {
    match outcome {
        Outcome::Delivered(receipt) => receipt,
        other => panic!("{other:?}"),
    }
}

/// The JSON key of a service account that exists nowhere, with these fields in place of its own.
#[expect(clippy::needless_pass_by_value, reason = "called with json!")]
pub(super) fn service_account(more: Value) -> String {
    let mut key = json!({
        "type": "service_account",
        "project_id": "shop",
        "private_key_id": "0123456789abcdef",
        "private_key": include_str!("../../tests/files/service-account-of-tests.pem"),
        "client_email": "sboms@shop.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com",
    });
    let all = key.as_object_mut().unwrap();
    all.extend(more.as_object().unwrap().clone());
    key.to_string()
}

/// Delivers one SBOM to a server that gives these answers.
pub(super) async fn answered(
    registration: impl FnOnce(&Peer) -> Registration,
    answers: &[&str],
) -> (Result<Outcome, Error>, Vec<Received>) {
    let party = Peer::start(answers);
    let mut stage = Stage::new();
    stage.materials.truncate(1);
    let outcome = deliver(&stage, &registration(&party), &attachment(json!({}))).await;
    (outcome, party.received())
}
