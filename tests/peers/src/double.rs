//! A server in this process that answers as a third party would.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// A request as it arrived, whole.
pub type Received = Request<Bytes>;

/// Listens on a port of its own until it is dropped, and keeps what it received.
pub struct Double {
    pub origin: String,
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    /// Ends with it.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Double {
    /// `answer` is asked for each request, one at a time.
    pub fn start(answer: impl FnMut(&Received) -> Response<Bytes> + Send + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&received);
        let answer = Arc::new(Mutex::new(answer));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                    async move {
                        let (parts, body) = request.into_parts();
                        let Ok(body) = body.collect().await else {
                            return Ok(Response::new(Full::default()));
                        };
                        let request = Request::from_parts(parts, body.to_bytes());
                        let response = (answer.lock().unwrap())(&request);
                        seen.lock().unwrap().push(request);
                        Ok::<_, Infallible>(response.map(Full::new))
                    }
                });
                tokio::spawn(async move {
                    // A connection that the other side broke is nothing to us.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            origin: format!("http://{address}"),
            address,
            received,
            runtime: Some(runtime),
        }
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        // A runtime that waits for its end may not be dropped by a test that is asynchronous itself.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
