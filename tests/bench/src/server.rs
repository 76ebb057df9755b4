//! HTTP server on loopback, with or without TLS, on a thread for each connection.

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use receiver::{Answer, Received};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Number of a connection; no two servers of a process give the same.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Receives what comes in.
pub trait Service: Send + Sync + 'static {
    /// Hears of a connection before its first request.
    fn opened(&self, _connection: u64) {}

    fn answer(&self, connection: u64, request: Received) -> Answer;
}

impl<F: Fn(Received) -> Answer + Send + Sync + 'static> Service for F {
    fn answer(&self, _: u64, request: Received) -> Answer {
        self(request)
    }
}

/// Listens until it is dropped.
pub struct Server {
    pub port: u16,
    is_over: Arc<AtomicBool>,
}

impl Server {
    pub fn start(service: Arc<impl Service>, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (service, tls) = (Arc::clone(&service), tls.clone());
                thread::spawn(move || converse(&*service, stream, tls));
            }
        });
        Self { port, is_over }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // One more connection, for the listener to see it.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn converse(service: &impl Service, stream: TcpStream, tls: Option<Arc<ServerConfig>>) {
    let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        service.opened(connection);
        return exchange(service, connection, BufReader::new(stream));
    };
    let session = ServerConnection::new(tls).expect("the configuration fits");
    let mut stream = StreamOwned::new(session, stream);
    while stream.conn.is_handshaking() {
        if stream.conn.complete_io(&mut stream.sock).is_err() {
            return;
        }
    }
    service.opened(connection);
    exchange(service, connection, BufReader::new(stream));
}

fn exchange<S: Read + Write>(service: &impl Service, connection: u64, mut stream: BufReader<S>) {
    while let Some(request) = receiver::read(&mut stream) {
        let method = request.method.clone();
        let answer = match request.header("transfer-encoding") {
            // What the functions send has a length.
            Some(_) => Answer::status(501).header("connection", "close"),
            None => service.answer(connection, request),
        };
        if answer.write(&method, stream.get_mut()).is_none() {
            return;
        }
    }
}
