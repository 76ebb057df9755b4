//! A request's body in parts, some of which are materials: sent while it is read, a mebibyte at a time, so that
//! a material of a hundred megabytes takes no more memory than a small one.

use std::cell::OnceCell;

use attestation::{Digest, Hasher, Material};
use bytes::{Bytes, BytesMut};

use crate::{About, Error, Host, Piece};

/// Bytes of a material read at once: three quarters of a mebibyte, a whole one in base64.
pub const CHUNK_BYTES: u64 = 768 * 1024;

/// Encoding of a material in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Byte for byte.
    Plain,
    /// Standard base64 with padding, without line breaks.
    Base64,
}

#[derive(Debug, Clone)]
enum Part<'a> {
    Bytes(Bytes),
    Material {
        material: &'a Material,
        size_bytes: u64,
        encoding: Encoding,
        /// Entity tag of the object whose bytes were read to their end, and are those of the digest. Whoever reads the
        /// same object again need not hash it.
        checked: OnceCell<String>,
    },
}

/// A body whose length is known before its first byte is read.
#[derive(Debug, Clone, Default)]
pub struct Content<'a> {
    parts: Vec<Part<'a>>,
}

impl<'a> Content<'a> {
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.parts.push(Part::Bytes(bytes.into()));
        self
    }

    #[must_use]
    pub fn followed_by(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// Asks for the material's size, and reads nothing of it yet.
    pub async fn material(
        mut self,
        host: &dyn Host,
        material: &'a Material,
        encoding: Encoding,
    ) -> Result<Self, Error> {
        let size_bytes = host.size_bytes(material).await?;
        self.parts.push(Part::Material {
            material,
            size_bytes,
            encoding,
            checked: OnceCell::new(),
        });
        Ok(self)
    }

    pub fn size_bytes(&self) -> u64 {
        self.parts.iter().map(Part::size_bytes).sum()
    }

    /// Reads the whole body and returns its digest.
    pub async fn digest(&self, host: &dyn Host) -> Result<Digest, Error> {
        let mut hash = Hasher::default();
        self.each(host, |bytes| hash.update(bytes)).await?;
        Ok(hash.finish())
    }

    /// Calls `take` with all of its bytes, in order.
    pub async fn each(&self, host: &dyn Host, mut take: impl FnMut(&Bytes)) -> Result<(), Error> {
        let mut reader = self.read(host);
        while let Some(bytes) = reader.next().await? {
            take(&bytes);
        }
        Ok(())
    }

    /// At most `most` bytes of its beginning. Reads no more than it needs.
    pub async fn beginning(&self, host: &dyn Host, most: usize) -> Result<Bytes, Error> {
        let mut beginning = BytesMut::new();
        let mut reader = self.read(host);
        while beginning.len() < most
            && let Some(bytes) = reader.next().await?
        {
            beginning.extend_from_slice(&bytes);
        }
        beginning.truncate(most);
        Ok(beginning.freeze())
    }

    pub(crate) fn read<'b>(&'b self, host: &'b dyn Host) -> Reader<'b> {
        Reader {
            host,
            parts: self.parts.iter(),
            current: None,
        }
    }
}

impl<T: Into<Bytes>> From<T> for Content<'_> {
    fn from(bytes: T) -> Self {
        Self::default().bytes(bytes)
    }
}

impl Part<'_> {
    fn size_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Material {
                size_bytes,
                encoding: Encoding::Plain,
                ..
            } => *size_bytes,
            Self::Material { size_bytes, .. } => size_bytes.div_ceil(3) * 4,
        }
    }
}

/// Reads a body once, from its beginning to its end.
pub(crate) struct Reader<'a> {
    host: &'a dyn Host,
    parts: std::slice::Iter<'a, Part<'a>>,
    current: Option<Open<'a>>,
}

/// A material that is being read.
struct Open<'a> {
    material: &'a Material,
    size_bytes: u64,
    encoding: Encoding,
    checked: &'a OnceCell<String>,
    offset: u64,
    hash: Hasher,
    /// Entity tag of all pieces read so far; none where they have no common one.
    etag: Option<String>,
}

impl Reader<'_> {
    /// The next bytes, never none of them; nothing at the end. The last ones of a material come only after all of
    /// them were checked against its digest, so that bytes which are not the right ones never arrive as a whole.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(open) = &mut self.current {
                if open.offset < open.size_bytes {
                    return open.next(self.host).await.map(Some);
                }
                self.current = None;
            }
            match self.parts.next() {
                None => return Ok(None),
                Some(Part::Bytes(bytes)) if bytes.is_empty() => {}
                Some(Part::Bytes(bytes)) => return Ok(Some(bytes.clone())),
                Some(Part::Material {
                    material,
                    size_bytes,
                    encoding,
                    checked,
                }) => {
                    self.current = Some(Open {
                        material,
                        size_bytes: *size_bytes,
                        encoding: *encoding,
                        checked,
                        offset: 0,
                        hash: Hasher::default(),
                        etag: None,
                    });
                }
            }
        }
    }
}

impl Open<'_> {
    async fn next(&mut self, host: &dyn Host) -> Result<Bytes, Error> {
        let length = CHUNK_BYTES.min(self.size_bytes - self.offset);
        let Piece { bytes, etag } = host.read(self.material, self.offset, length).await?;
        if bytes.len() as u64 != length {
            return Err(self.others());
        }
        match self.checked.get() {
            Some(checked) if etag.as_ref() == Some(checked) => {}
            Some(_) => return Err(self.written_again()),
            None => self.check(&bytes, etag)?,
        }
        self.offset += length;
        Ok(match self.encoding {
            Encoding::Plain => bytes,
            Encoding::Base64 => base64_simd::STANDARD.encode_to_string(&bytes).into(),
        })
    }

    fn check(&mut self, bytes: &[u8], etag: Option<String>) -> Result<(), Error> {
        if self.offset == 0 {
            self.etag = etag;
        } else if self.etag != etag {
            self.etag = None;
        }
        self.hash.update(bytes);
        let is_last = self.offset + bytes.len() as u64 == self.size_bytes;
        if is_last && let Some(digest) = self.material.digest {
            if self.hash.clone().finish() != digest {
                return Err(self.others());
            }
            if let Some(etag) = self.etag.take() {
                self.checked.get_or_init(|| etag);
            }
        }
        Ok(())
    }

    fn others(&self) -> Error {
        let text = format!("read {}: the stored bytes are others", self.name());
        Error::permanent(text).about(About::Delivery)
    }

    fn written_again(&self) -> Error {
        let text = format!("read {}: it was stored again meanwhile", self.name());
        Error::retryable(text).about(About::Delivery)
    }

    fn name(&self) -> String {
        match self.material.digest {
            Some(digest) => digest.to_string(),
            None => self.material.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use attestation::MaterialType;

    use super::*;
    use crate::Kind;
    use crate::fixture::{self, Peer, Stage};

    /// Two and a half chunks.
    fn large() -> Material {
        let size = CHUNK_BYTES * 5 / 2 + 1;
        let bytes = (0..size).map(|n| n.to_le_bytes()[0]).collect();
        Material::inline("large", MaterialType::SBOM_SPDX_JSON, "l.json", bytes)
    }

    async fn content<'a>(host: &Stage, material: &'a Material, encoding: Encoding) -> Content<'a> {
        Content::from("[")
            .material(host, material, encoding)
            .await
            .unwrap()
            .bytes("]")
    }

    async fn all(host: &Stage, content: &Content<'_>) -> Vec<u8> {
        let mut all = Vec::new();
        content
            .each(host, |bytes| all.extend_from_slice(bytes))
            .await
            .unwrap();
        all
    }

    #[tokio::test]
    async fn parts_come_in_order_and_as_long_as_was_said() {
        let (host, material) = (Stage::new(), large());
        let bytes = material.content.clone().unwrap();
        for (encoding, middle) in [
            (Encoding::Plain, bytes.clone()),
            (
                Encoding::Base64,
                base64_simd::STANDARD.encode_to_string(&bytes).into_bytes(),
            ),
        ] {
            let content = content(&host, &material, encoding).await;
            let whole = [b"[".as_slice(), &middle, b"]"].concat();
            assert_eq!(content.size_bytes(), whole.len() as u64);
            assert!(all(&host, &content).await == whole);
            assert_eq!(content.digest(&host).await.unwrap(), Digest::of(&whole));
            assert_eq!(content.beginning(&host, 10).await.unwrap(), whole[..10]);
        }
    }

    #[tokio::test]
    async fn a_body_is_sent_while_it_is_read() {
        let (host, material) = (Stage::new(), large());
        let party = Peer::start(&[fixture::OK]);
        let content = content(&host, &material, Encoding::Base64).await;
        let expected = all(&host, &content).await;
        let request = http::Request::post(&party.origin).body(content).unwrap();
        let response = fixture::http().stream(&host, request).await.unwrap();
        assert_eq!(response.status, 200);
        let received = &party.received()[0];
        assert_eq!(
            received.headers["content-length"],
            expected.len().to_string()
        );
        assert!(received.body == expected);
    }

    #[tokio::test]
    async fn a_preview_is_of_the_whole_body_and_shows_its_beginning() {
        let (host, material) = (Stage::new(), large());
        let body = content(&host, &material, Encoding::Base64).await;
        let whole = all(&host, &body).await;
        let mut key = http::HeaderValue::from_static("canary");
        key.set_sensitive(true);
        let request = http::Request::post("https://example.org/")
            .header("x-key", key)
            .header("x-plain", "shown")
            .body(body)
            .unwrap();
        let preview = crate::http::preview_of_content(&host, &request, "there".to_owned())
            .await
            .unwrap();
        let whole_request = request.map(|_| Bytes::from(whole));
        let expected = crate::http::preview(&whole_request, "there".to_owned());
        assert_eq!(preview, expected);
        assert_eq!(preview.body.len(), 64 * 1024);
        assert_eq!(preview.headers["x-key"], "…");
    }

    #[tokio::test]
    async fn bytes_that_are_not_those_of_the_digest_never_arrive_whole() {
        let host = Stage::new();
        let mut material = large();
        *material.content.as_mut().unwrap().last_mut().unwrap() ^= 1;
        let party = Peer::start(&[fixture::OK]);
        let content = content(&host, &material, Encoding::Plain).await;
        let request = http::Request::post(&party.origin).body(content).unwrap();
        let error = fixture::http().stream(&host, request).await.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert!(
            error.text.ends_with("the stored bytes are others"),
            "{error}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(party.received().is_empty());
    }

    #[tokio::test]
    async fn an_object_that_was_checked_is_not_hashed_again_and_no_other_takes_its_place() {
        let material = large();
        let read = async |host: &Stage, content: &Content<'_>| content.each(host, |_| {}).await;
        let text = async |host: &Stage, content: &Content<'_>| {
            let error = read(host, content).await.unwrap_err();
            (matches!(error.kind, Kind::Retryable { .. }), error.text)
        };
        let digest = material.digest.unwrap();
        let others = (false, format!("read {digest}: the stored bytes are others"));
        let again = (
            true,
            format!("read {digest}: it was stored again meanwhile"),
        );

        let host = Stage::new();
        host.etag.set(Some("a"));
        let tagged = content(&host, &material, Encoding::Plain).await;
        read(&host, &tagged).await.unwrap();
        host.etag.set(Some("b"));
        assert_eq!(text(&host, &tagged).await, again);
        host.etag.set(None);
        assert_eq!(text(&host, &tagged).await, again);

        // Without a tag, or with two of them, nothing says that the bytes are the same: they are hashed.
        let untagged = content(&host, &material, Encoding::Plain).await;
        read(&host, &untagged).await.unwrap();
        let changing = content(&host, &material, Encoding::Plain).await;
        let mut pieces = 0;
        let change = |_: &Bytes| {
            pieces += 1;
            host.etag.set(Some(if pieces < 3 { "a" } else { "b" }));
        };
        changing.each(&host, change).await.unwrap();
        host.is_damaged.set(true);
        assert_eq!(text(&host, &changing).await, others);
        host.etag.set(None);
        assert_eq!(text(&host, &untagged).await, others);

        // What was found to be others is never taken for checked.
        host.etag.set(Some("a"));
        let damaged = content(&host, &material, Encoding::Plain).await;
        assert_eq!(text(&host, &damaged).await, others);
        assert_eq!(text(&host, &damaged).await, others);
    }

    /// A third party that answers after the first bytes, and reads the others later.
    async fn hasty(status: &'static str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut some = [0; 1000];
            let _ = stream.read(&mut some).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            // Reads on, as a polite server does, so that the answer is not lost in a reset.
            while stream.read(&mut some).await.is_ok_and(|n| n > 0) {}
        });
        origin
    }

    #[tokio::test]
    async fn an_answer_before_the_end_is_an_answer() {
        let (host, material) = (Stage::new(), large());
        for (status, code) in [("413 Content Too Large", 413), ("200 OK", 200)] {
            let content = content(&host, &material, Encoding::Plain).await;
            let request = http::Request::post(hasty(status).await);
            let request = request.body(content).unwrap();
            let response = fixture::http().stream(&host, request).await.unwrap();
            assert_eq!(response.status, code);
        }
    }

    #[tokio::test]
    async fn a_yes_before_the_end_is_none_to_bytes_that_are_others() {
        let (host, material) = (Stage::new(), large());
        host.is_damaged.set(true);
        let content = content(&host, &material, Encoding::Plain).await;
        let request = http::Request::post(hasty("200 OK").await);
        let request = request.body(content).unwrap();
        let error = fixture::http().stream(&host, request).await.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        let told = "the stored bytes are others";
        assert!(error.text.ends_with(told), "{error}");
    }

    #[tokio::test]
    async fn bytes_count_as_sent_when_a_connection_took_them() {
        let (host, material) = (Stage::new(), large());
        let http = fixture::http();
        let party = Peer::start(&[fixture::OK]);
        let body = content(&host, &material, Encoding::Base64).await;
        let size = body.size_bytes();
        let request = http::Request::post(&party.origin).body(body).unwrap();
        let counting = http.counting_anew();
        counting.stream(&host, request).await.unwrap();
        assert_eq!(counting.wire().sent_bytes, size);
        assert_eq!(counting.wire().status, Some(200));

        // Nobody listens there, and one may not ask there.
        for origin in ["http://127.0.0.1:1/", "http://10.0.0.1/"] {
            let counting = http.counting_anew();
            let body = content(&host, &material, Encoding::Plain).await;
            let request = http::Request::post(origin).body(body).unwrap();
            counting.stream(&host, request).await.unwrap_err();
            assert_eq!(counting.wire(), crate::http::Wire::default(), "{origin}");
        }
    }
}
