//! Buckets that speak S3's protocol, on disk: `s3s-fs` checks signatures and conditions as Amazon does.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

/// A server with one bucket, [`BUCKET`](Self::BUCKET).
pub struct S3 {
    pub origin: String,
    root: PathBuf,
    /// Ends with it.
    runtime: Option<tokio::runtime::Runtime>,
}

impl S3 {
    pub const BUCKET: &str = "sboms";
    pub const ACCESS_KEY_ID: &str = "AKIAEXAMPLE";
    pub const SECRET: &str = "secret-access-key-of-the-peer";

    pub fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("peers-s3-{}-{count}", std::process::id());
        let root = std::env::temp_dir().join(name);
        std::fs::create_dir_all(root.join(Self::BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&root).unwrap());
        service.set_auth(SimpleAuth::from_single(Self::ACCESS_KEY_ID, Self::SECRET));
        let service = service.build();

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let service = service.clone();
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A connection that the other side broke is nothing to us.
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self {
            origin,
            root,
            runtime: Some(runtime),
        }
    }

    /// Keys and bytes in the bucket, sorted.
    pub fn objects(&self) -> Vec<(String, Vec<u8>)> {
        let bucket = self.root.join(Self::BUCKET);
        let mut found = Vec::new();
        let mut folders = vec![bucket.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let key = path.strip_prefix(&bucket).unwrap().display().to_string();
                    found.push((key, std::fs::read(&path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::export::{self, Export};

    fn registration(s3: &S3, secret: &str) -> Value {
        json!({
            "bucket": S3::BUCKET, "endpoint": s3.origin, "access_key_id": S3::ACCESS_KEY_ID,
            "credentials": secret,
        })
    }

    #[tokio::test]
    async fn sboms_arrive_byte_for_byte_and_once() {
        let s3 = S3::start();
        let export = Export::new(registration(&s3, S3::SECRET));
        export.check().await.unwrap();
        assert_eq!(export.deliver().await.unwrap(), [true, true, true]);
        let found = s3.objects();
        let ours: Vec<_> = found
            .iter()
            .filter(|(key, _)| key.starts_with("team/"))
            .cloned()
            .collect();
        assert_eq!(ours, export::expected());
        assert_eq!(export.deliver().await.unwrap(), [false, false, false]);
        assert_eq!(s3.objects(), found);
    }
}
