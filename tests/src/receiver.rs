//! A webhook's other end, on loopback.

use receiver::Server;
pub use receiver::{Answer, Received};
use serde_json::Value;

/// Decodes the `Data` of a webhook's body.
pub fn data(received: &Received) -> Value {
    let data = received.json()["Data"].as_str().unwrap().to_owned();
    serde_json::from_slice(&base64_simd::STANDARD.decode_to_vec(data).unwrap()).unwrap()
}

#[derive(Clone)]
pub struct Receiver(Server);

impl Receiver {
    pub fn start() -> Self {
        Self::scripted(|_, _| Answer::status(200))
    }

    /// `script` is given the number of earlier requests, and the request.
    pub fn scripted(script: impl Fn(usize, &Received) -> Answer + Send + Sync + 'static) -> Self {
        Self(Server::start(move |earlier, request| {
            script(earlier, request).header("connection", "close")
        }))
    }

    pub fn url(&self) -> String {
        format!("{}/hook/s3cret-path", self.0.origin())
    }

    pub fn received(&self) -> Vec<Received> {
        self.0.received()
    }

    /// Returns the requests received, without tests of the hook.
    pub fn deliveries(&self) -> Vec<Received> {
        let received = self.received().into_iter();
        received
            .filter(|request| request.json()["Kind"] != "TEST_WEBHOOK")
            .collect()
    }
}
