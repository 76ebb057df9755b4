//! HTTP server on loopback, for tests: keeps each request, and answers as a function says.

use std::fmt::{self, Write as _};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A request as it arrived, whole.
#[derive(Debug, Clone)]
pub struct Received {
    /// Method and path, as `GET /v1/integrations?limit=100`.
    pub line: String,
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub at: Instant,
}

impl Received {
    /// A request of this method and path, without headers.
    pub fn new(line: &str, body: Vec<u8>) -> Self {
        let (method, path) = line.split_once(' ').unwrap_or((line, "/"));
        Self {
            line: line.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body,
            at: Instant::now(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .headers
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// Parses the body, which must be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// Response to a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Time before anything is sent.
    pub after: Duration,
    /// None for no response at all: the connection is closed.
    pub status: Option<u16>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self {
            status: Some(status),
            ..Self::default()
        }
    }

    /// No response, for so long.
    pub fn silence(after: Duration) -> Self {
        Self {
            after,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

type Script = dyn Fn(usize, &Received) -> Answer + Send + Sync;

/// Listens on a port of its own until the test's process ends.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// `script` is given the number of earlier requests, and the request.
    pub fn start(script: impl Fn(usize, &Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let received = Arc::new(Mutex::new(Vec::new()));
        let (kept, script): (_, Arc<Script>) = (Arc::clone(&received), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, script) = (Arc::clone(&kept), Arc::clone(&script));
                thread::spawn(move || while serve(&stream, &kept, &*script).is_some() {});
            }
        });
        Self { address, received }
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        let received = self.received.lock();
        received.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Answers one request. Returns `None` when the connection takes no more.
fn serve(mut stream: &TcpStream, kept: &Mutex<Vec<Received>>, script: &Script) -> Option<()> {
    let request = read(&mut BufReader::new(stream))?;
    let earlier = {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(request.clone());
        kept.len() - 1
    };
    script(earlier, &request).write(&request.method, &mut stream)
}

impl Answer {
    /// Writes the response to a request of this method. Returns `None` when the connection takes no more.
    pub fn write(&self, method: &str, stream: &mut impl Write) -> Option<()> {
        thread::sleep(self.after);
        let mut head = format!("HTTP/1.1 {} X\r\n", self.status?);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let has = |name: &str| self.headers.iter().any(|(own, _)| own == name);
        if !has("content-length") {
            let _ = write!(head, "content-length: {}\r\n", self.body.len());
        }
        head.push_str("\r\n");
        let body: &[u8] = if method == "HEAD" { &[] } else { &self.body };
        stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
        stream.flush().ok()?;
        let is_last = self
            .headers
            .iter()
            .any(|(name, value)| name == "connection" && value == "close");
        (!is_last).then_some(())
    }
}

/// Reads a request. Returns `None` when no whole one comes.
pub fn read(reader: &mut impl BufRead) -> Option<Received> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (line, _) = line.rsplit_once(' ')?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let size = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; size.map_or(Some(0), |(_, size)| size.parse().ok())?];
    reader.read_exact(&mut body).ok()?;
    Some(Received {
        headers,
        ..Received::new(line, body)
    })
}
