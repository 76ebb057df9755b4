//! A server in this process that answers as a third party would.

use std::net::SocketAddr;
use std::sync::Mutex;

use bytes::Bytes;
use http::{Request, Response};
use receiver::{Answer, Server};

/// A request as it arrived, whole.
pub type Received = Request<Bytes>;

/// Listens on a port of its own, and keeps what it received.
pub struct Double {
    pub origin: String,
    pub address: SocketAddr,
    server: Server,
}

impl Double {
    /// `answer` is asked for each request, one at a time.
    pub fn start(answer: impl FnMut(&Received) -> Response<Bytes> + Send + 'static) -> Self {
        let answer = Mutex::new(answer);
        let server = Server::start(move |_, request| {
            let response = (answer.lock().unwrap())(&whole(request));
            let headers = response.headers().iter();
            let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
            headers.fold(
                Answer::status(response.status().as_u16()).body(response.body().clone()),
                |answer, (name, value)| answer.header(name.as_str(), text(value)),
            )
        });
        Self {
            origin: server.origin(),
            address: server.address,
            server,
        }
    }

    pub fn received(&self) -> Vec<Received> {
        self.server.received().iter().map(whole).collect()
    }
}

fn whole(received: &receiver::Received) -> Received {
    let mut request = Request::builder()
        .method(received.method.as_str())
        .uri(received.path.as_str());
    for (name, value) in &received.headers {
        request = request.header(name, value);
    }
    request.body(received.body.clone().into()).unwrap()
}
