//! The bytes below a mail dialogue: lines out, replies in (RFC 5321, 4.2), read leniently and bounded.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// Longest reply, all its lines together.
const REPLY_BYTES: usize = 64 * 1024;

/// A connection, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

pub(super) struct Wire(BufReader<Box<dyn Stream>>);

/// Reply of a server, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lines {
    /// Code of the last line, where lines differ.
    pub(super) code: u16,
    /// Text of each line behind its code.
    pub(super) texts: Vec<String>,
}

/// Reason why no reply was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("the connection ended without a reply")]
    Ended,
    #[error("the reply does not end")]
    Endless,
    #[error("the reply is not one of a mail server")]
    Malformed,
    #[error("the connection broke")]
    Broken(#[source] io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // TLS that ends without saying so, too.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Self::Ended,
            _ => Self::Broken(error),
        }
    }
}

impl Wire {
    pub(super) fn new(stream: impl Stream + 'static) -> Self {
        Self(BufReader::new(Box::new(stream)))
    }

    /// Returns the stream, and whether the server has said more on it than was read.
    pub(super) fn into_stream(self) -> (Box<dyn Stream>, bool) {
        let has_more = !self.0.buffer().is_empty();
        (self.0.into_inner(), has_more)
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    pub(super) async fn read(&mut self) -> Result<Lines, Unread> {
        let mut texts = Vec::new();
        let mut room = REPLY_BYTES;
        loop {
            let mut line = Vec::new();
            let mut bounded = (&mut self.0).take(room as u64);
            room -= bounded.read_until(b'\n', &mut line).await?;
            let Some(line) = line.strip_suffix(b"\n") else {
                return Err(match room {
                    0 => Unread::Endless,
                    _ => Unread::Ended,
                });
            };
            let (code, is_last, text) = parse(line).ok_or(Unread::Malformed)?;
            texts.push(text);
            if is_last {
                return Ok(Lines { code, texts });
            }
        }
    }
}

/// `250-SIZE 1000`: the code, whether the reply ends with this line, and its text.
fn parse(line: &[u8]) -> Option<(u16, bool, String)> {
    let line = line.trim_ascii_end();
    let (digits, rest) = line.split_at_checked(3)?;
    let code: u16 = match digits {
        [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'] => str::from_utf8(digits).ok()?.parse().ok()?,
        _ => return None,
    };
    let is_last = match rest.first() {
        None | Some(b' ') => true,
        Some(b'-') => false,
        Some(_) => return None,
    };
    let text = String::from_utf8_lossy(rest.get(1..).unwrap_or_default());
    Some((code, is_last, text.trim().to_owned()))
}

/// Doubles each dot that begins a line, and ends the mail (RFC 5321, 4.5.2). The mail's lines end with CR and LF.
pub(super) fn stuffed(mail: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(mail.len() + 64);
    for line in mail.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    if !stuffed.is_empty() && !stuffed.ends_with(b"\r\n") {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed.extend_from_slice(b".\r\n");
    stuffed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads all replies that a server sends before it closes the connection.
    async fn read(said: &[u8]) -> (Vec<Lines>, Unread) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(said).await.unwrap();
        drop(theirs);
        let mut wire = Wire::new(ours);
        let mut replies = Vec::new();
        loop {
            match wire.read().await {
                Ok(lines) => replies.push(lines),
                Err(unread) => return (replies, unread),
            }
        }
    }

    #[tokio::test]
    async fn replies_are_read_leniently() {
        for (said, code, texts) in [
            ("250 ok\r\n", 250, vec!["ok"]),
            ("250\r\n", 250, vec![""]),
            ("250 \r\n", 250, vec![""]),
            ("250 ok\n", 250, vec!["ok"]),
            ("250 ok \t\r\r\n", 250, vec!["ok"]),
            ("250-a\r\n250-\r\n250 b\r\n", 250, vec!["a", "", "b"]),
            ("250-a\r\n250\r\n", 250, vec!["a", ""]),
            // Lines at odds: the last one counts.
            ("250-a\r\n550 b\r\n", 550, vec!["a", "b"]),
            ("550-a\r\n250 b\r\n", 250, vec!["a", "b"]),
        ] {
            let (replies, end) = read(said.as_bytes()).await;
            let texts = texts.into_iter().map(str::to_owned).collect();
            assert_eq!(replies, [Lines { code, texts }], "{said:?}");
            assert!(matches!(end, Unread::Ended), "{end:?}");
        }
        let (replies, _) = read(b"550 d\xe9j\xe0 vu\r\n").await;
        assert_eq!(replies[0].texts, ["d\u{fffd}j\u{fffd} vu"]);
    }

    #[tokio::test]
    async fn what_is_no_reply_is_told_apart() {
        for said in [
            "\r\n",
            "ok\r\n",
            "25 ok\r\n",
            "2500 ok\r\n",
            "250_ok\r\n",
            "150 ok\r\n",
            "650 ok\r\n",
            "HTTP/1.1 400 Bad Request\r\n",
            "250-a\r\nb\r\n",
            "\u{661}\u{662}\u{663} ok\r\n",
        ] {
            let (replies, end) = read(said.as_bytes()).await;
            assert!(
                replies.is_empty() && matches!(end, Unread::Malformed),
                "{said:?}: {end:?}"
            );
        }
        for said in ["", "2", "250", "250 ok", "250-a\r\n", "250-a\r\n250 ok\r"] {
            let (replies, end) = read(said.as_bytes()).await;
            assert!(
                replies.is_empty() && matches!(end, Unread::Ended),
                "{said:?}: {end:?}"
            );
        }
        let endless = [
            "2".repeat(REPLY_BYTES),
            "250-x\r\n".repeat(REPLY_BYTES / 7 + 1),
        ];
        for said in endless {
            let (replies, end) = read(said.as_bytes()).await;
            assert!(
                replies.is_empty() && matches!(end, Unread::Endless),
                "{end:?}"
            );
        }
    }

    #[test]
    fn no_line_of_a_mail_ends_it() {
        for (mail, sent) in [
            ("", ".\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            (".\r\n", "..\r\n.\r\n"),
            ("a\r\n.\r\n..b\r\n", "a\r\n..\r\n...b\r\n.\r\n"),
            ("a.b\r\n", "a.b\r\n.\r\n"),
        ] {
            assert_eq!(stuffed(mail.as_bytes()), sent.as_bytes(), "{mail:?}");
        }
    }
}
