//! The connection below a mail dialogue, with what a hostile server could do to us taken out.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A server that says more than this before it is our turn again is not listened to any longer: lettre looks at
/// a line's length when its end has come.
const ANSWER_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    /// How much more may be read until something is written.
    room: usize,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Wire {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self {
            stream: Stream::Plain(stream),
            room: ANSWER_BYTES,
        }
    }

    pub(super) fn encrypted(stream: TlsStream<TcpStream>) -> Self {
        Self {
            stream: Stream::Encrypted(Box::new(stream)),
            room: ANSWER_BYTES,
        }
    }
}

/// As much as is taken at once.
const CHUNK: usize = 4096;

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.room == 0 {
            return Poll::Ready(Err(io::Error::other("the answer does not end")));
        }
        let mut chunk = [0; CHUNK];
        let most = CHUNK.min(buffer.remaining()).min(this.room);
        let read = match &mut this.stream {
            Stream::Plain(stream) => {
                // No further than to the end of a line. What a stranger on the way puts behind the answer to
                // STARTTLS would otherwise be taken for one that came encrypted (CVE-2011-0411).
                let mut seen = ReadBuf::new(&mut chunk[..most]);
                ready!(stream.poll_peek(context, &mut seen))?;
                let seen = seen.filled();
                let line = seen.iter().position(|&byte| byte == b'\n');
                let most = line.map_or(seen.len(), |end| end + 1).max(1);
                let mut part = ReadBuf::new(&mut chunk[..most]);
                ready!(Pin::new(stream).poll_read(context, &mut part))?;
                part.filled().len()
            }
            Stream::Encrypted(stream) => {
                let mut part = ReadBuf::new(&mut chunk[..most]);
                ready!(Pin::new(stream).poll_read(context, &mut part))?;
                part.filled().len()
            }
        };
        buffer.put_slice(&chunk[..read]);
        this.room -= read;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.room = ANSWER_BYTES;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Encrypted(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl AsyncTokioStream for Wire {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.stream {
            Stream::Plain(stream) => stream.peer_addr(),
            Stream::Encrypted(stream) => stream.get_ref().0.peer_addr(),
        }
    }
}
