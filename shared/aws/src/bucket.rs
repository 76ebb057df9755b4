//! Bucket that holds each organization's bytes under their digests.

use std::time::Duration;

use api::materials::{Download, Upload};
use api::{OrganizationName, Timestamp};
use attestation::Digest;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use pipeline::ledger::schedule::BYTES_LONGER;
use pipeline::store::platform::{Piece, Platform as _, Unreachable};

use crate::Aws;
use crate::objects::{Answer, Asked, Refused};
use crate::signer::encoded;

/// Lifetime of a presigned upload or download.
const PRESIGNED: Duration = Duration::from_mins(15);

/// Attempts at a put that conflicts with another put of the same bytes.
const PUTS: u32 = 5;

const OCTETS: &str = "application/octet-stream";

/// Reports whether the bucket knows no such upload: it was completed or abandoned.
fn is_unknown(refused: &Refused) -> bool {
    refused.code.as_deref() == Some("NoSuchUpload")
}

fn object(organization: &OrganizationName, digest: &Digest) -> String {
    format!("{organization}/sha256/{}", digest.hex())
}

fn base64(digest: &Digest) -> String {
    base64_simd::STANDARD.encode_to_string(digest.bytes())
}

fn upload_query(upload: &str) -> String {
    format!("uploadId={}", encoded(upload))
}

fn lacks(what: &str) -> Unreachable {
    Unreachable {
        what: "bucket",
        why: format!("it answered without {what}"),
    }
}

impl Aws {
    /// Returns the bucket's answer about an object, if the object exists.
    async fn head(&self, key: &str) -> Result<Option<Answer>, Unreachable> {
        let asked = Asked {
            method: "HEAD",
            key,
            ..Asked::default()
        };
        match self.objects.send(&asked).await {
            Ok(answer) => Ok(Some(answer)),
            Err(refused) if refused.status == Some(404) => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }

    async fn object(&self, key: &str, range: Option<String>) -> Result<Option<Piece>, Unreachable> {
        let asked = Asked {
            method: "GET",
            key,
            headers: range.map(|range| ("range", range)).into_iter().collect(),
            ..Asked::default()
        };
        match self.objects.send(&asked).await {
            Ok(answer) => Ok(Some(Piece {
                etag: answer.header("etag").map(str::to_owned),
                bytes: answer.body,
            })),
            Err(refused) if refused.code.as_deref() == Some("NoSuchKey") => Ok(None),
            // A range behind the end.
            Err(refused) if refused.status == Some(416) => Ok(Some(Bytes::new().into())),
            Err(refused) => Err(refused.into()),
        }
    }

    pub(crate) async fn put_bytes(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<(), Unreachable> {
        let key = object(organization, digest);
        let asked = Asked {
            method: "PUT",
            key: &key,
            headers: vec![
                ("content-type", OCTETS.to_owned()),
                ("if-none-match", "*".to_owned()),
                ("x-amz-checksum-sha256", base64(digest)),
            ],
            body: bytes,
            is_unsigned: true,
            ..Asked::default()
        };
        let mut pause = Duration::from_millis(20);
        for _ in 0..PUTS {
            match self.objects.send(&asked).await {
                Ok(_) => return Ok(()),
                // Those bytes are there already.
                Err(refused) if refused.status == Some(412) => {
                    return self.keep_bytes(organization, digest).await.map(drop);
                }
                // Somebody is putting the same bytes just now.
                Err(refused) if refused.status == Some(409) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(refused) => return Err(refused.into()),
            }
        }
        Err(Unreachable {
            what: "bucket",
            why: "others were putting the same bytes".into(),
        })
    }

    pub(crate) async fn get_bytes(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<Bytes>, Unreachable> {
        let whole = self.object(&object(organization, digest), None).await?;
        Ok(whole.map(|piece| piece.bytes))
    }

    pub(crate) async fn read_bytes(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<Option<Piece>, Unreachable> {
        let Some(last) = length.checked_sub(1).map(|length| offset + length) else {
            return Ok(Some(Bytes::new().into()));
        };
        let range = format!("bytes={offset}-{last}");
        self.object(&object(organization, digest), Some(range))
            .await
    }

    pub(crate) async fn keep_bytes(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        let key = object(organization, digest);
        let Some(head) = self.head(&key).await? else {
            return Ok(None);
        };
        if self.now().since(put_at(&head)) > BYTES_LONGER {
            // A copy onto itself is the bytes put down anew: the bucket counts from then.
            let copy = Asked {
                method: "PUT",
                key: &key,
                headers: vec![
                    ("content-type", OCTETS.to_owned()),
                    (
                        "x-amz-copy-source",
                        format!("{}/{key}", self.settings.bucket),
                    ),
                    ("x-amz-metadata-directive", "REPLACE".to_owned()),
                ],
                ..Asked::default()
            };
            self.objects.send(&copy).await?;
        }
        Ok(size(&head))
    }

    pub(crate) async fn size_of(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        let head = self.head(&object(organization, digest)).await?;
        Ok(head.as_ref().and_then(size))
    }

    pub(crate) async fn begin_parts(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<String, Unreachable> {
        let key = object(organization, digest);
        let asked = Asked {
            method: "POST",
            key: &key,
            query: "uploads=",
            headers: vec![("content-type", OCTETS.to_owned())],
            ..Asked::default()
        };
        let begun = self.objects.send(&asked).await?;
        begun
            .element("UploadId")
            .ok_or_else(|| lacks("an upload's ID"))
    }

    pub(crate) async fn put_part(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
        number: u32,
        bytes: Bytes,
    ) -> Result<String, Unreachable> {
        let key = object(organization, digest);
        let query = format!("partNumber={number}&{}", upload_query(upload));
        // A bucket with Object Lock takes no part without it.
        let md5 = base64_simd::STANDARD.encode_to_string(Md5::digest(&bytes));
        let asked = Asked {
            method: "PUT",
            key: &key,
            query: &query,
            headers: vec![("content-md5", md5)],
            body: bytes,
            is_unsigned: true,
        };
        let put = self.objects.send(&asked).await?;
        put.header("etag")
            .map(str::to_owned)
            .ok_or_else(|| lacks("a part's tag"))
    }

    pub(crate) async fn complete_parts(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
        parts: Vec<String>,
    ) -> Result<(), Unreachable> {
        let key = object(organization, digest);
        let parts = (1..).zip(parts).map(|(number, tag): (u32, _)| {
            let tag = tag.replace('&', "&amp;").replace('<', "&lt;");
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
        });
        let parts: String = parts.collect();
        let document = format!(
            "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{parts}</CompleteMultipartUpload>"
        );
        let asked = Asked {
            method: "POST",
            key: &key,
            query: &upload_query(upload),
            headers: vec![("content-type", "application/xml".to_owned())],
            body: document.into(),
            ..Asked::default()
        };
        match self.objects.send(&asked).await {
            Ok(_) => Ok(()),
            // It was completed, and the answer got lost.
            Err(refused) if is_unknown(&refused) && self.head(&key).await?.is_some() => Ok(()),
            Err(refused) => Err(refused.into()),
        }
    }

    pub(crate) async fn abandon_parts(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
    ) -> Result<(), Unreachable> {
        let key = object(organization, digest);
        let asked = Asked {
            method: "DELETE",
            key: &key,
            query: &upload_query(upload),
            ..Asked::default()
        };
        match self.objects.send(&asked).await {
            Err(refused) if !is_unknown(&refused) => Err(refused.into()),
            _ => Ok(()),
        }
    }

    pub(crate) fn presigned_put(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        size_bytes: u64,
    ) -> Upload {
        let headers = [
            ("content-length", size_bytes.to_string()),
            ("if-none-match", "*".to_owned()),
            ("x-amz-checksum-sha256", base64(digest)),
        ];
        let key = object(organization, digest);
        let url = self.objects.presigned("PUT", &key, &headers, PRESIGNED);
        let headers = headers.into_iter();
        Upload {
            method: "PUT".into(),
            url,
            headers: headers
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        }
    }

    pub(crate) fn presigned_get(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Download {
        let key = object(organization, digest);
        Download {
            url: self.objects.presigned("GET", &key, &[], PRESIGNED),
        }
    }
}

fn size(head: &Answer) -> Option<u64> {
    head.header("content-length")?.parse().ok()
}

/// Time at which an object was put; 1970 if the bucket does not say it, so that it counts as put long ago.
fn put_at(head: &Answer) -> Timestamp {
    let at = head.header("last-modified");
    let at = at.and_then(|at| DateTime::from_str(at, Format::HttpDate).ok());
    let millis = at.and_then(|at| u64::try_from(at.to_millis().ok()?).ok());
    Timestamp::from_millis(millis.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::Settings;

    fn aws(endpoint: Option<&str>) -> Aws {
        let settings = Settings::from_env(|name| match name {
            "ALLOWED_PRIVATE_CIDRS" | "EGRESS_PROXY" | "OTEL_EXPORTER_OTLP_ENDPOINT" | "QUOTAS" => {
                None
            }
            "AWS_ENDPOINT_URL" => endpoint.map(str::to_owned),
            "AWS_REGION" => Some("eu-central-1".to_owned()),
            other => Some(other.to_lowercase()),
        });
        Aws::new(settings.unwrap())
    }

    #[tokio::test]
    async fn a_bucket_with_object_lock_would_take_a_part() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\nbytes") {
                let mut piece = [0; 4096];
                let length = stream.read(&mut piece).unwrap();
                assert!(length > 0, "the request ended early");
                asked.extend_from_slice(&piece[..length]);
            }
            let answer = b"HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).unwrap();
            String::from_utf8(asked).unwrap()
        });
        let (digest, bytes) = (Digest::of(b"bytes"), Bytes::from_static(b"bytes"));
        let aws = aws(Some(&endpoint));
        let put = aws.put_part(&"acme".into(), &digest, "u", 1, bytes).await;
        assert_eq!(put.unwrap(), "\"1\"");
        // `printf bytes | openssl md5 -binary | base64`
        let md5 = "content-md5: SzpiGLs+OnMD6KFxpg/Pkg==";
        let asked = asked.join().unwrap();
        assert!(asked.contains(md5), "{asked}");
    }

    #[test]
    fn a_presigned_upload_has_exactly_the_headers_that_are_signed() {
        let aws = aws(None);
        let digest = Digest::of(b"bytes");
        let upload = aws.presigned_put(&"acme".into(), &digest, 5);
        let expected = BTreeMap::from([
            ("content-length".to_owned(), "5".to_owned()),
            ("if-none-match".to_owned(), "*".to_owned()),
            ("x-amz-checksum-sha256".to_owned(), base64(&digest)),
        ]);
        assert_eq!(upload.headers, expected);
        let names = "content-length%3Bhost%3Bif-none-match%3Bx-amz-checksum-sha256";
        let signed = format!("X-Amz-SignedHeaders={names}&");
        assert!(upload.url.contains(&signed), "{}", upload.url);
        let download = aws.presigned_get(&"acme".into(), &digest);
        let signed = "X-Amz-SignedHeaders=host&";
        assert!(download.url.contains(signed), "a browser sends no other");
        let host = "https://bucket.s3.eu-central-1.amazonaws.com/acme/sha256/";
        assert!(download.url.starts_with(host), "{}", download.url);
    }
}
