//! Bucket that holds each organization's bytes under their digests.

use std::collections::BTreeMap;
use std::time::Duration;

use api::materials::{Download, Upload};
use api::{OrganizationName, Timestamp};
use attestation::Digest;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::operation::head_object::{HeadObjectError, HeadObjectOutput};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, MetadataDirective};
use bytes::Bytes;
use md5::{Digest as _, Md5};
use pipeline::ledger::schedule::BYTES_LONGER;
use pipeline::store::platform::{Piece, Platform as _, Unreachable};

use crate::Aws;
use crate::table::unreachable;

/// Lifetime of a presigned upload or download.
const PRESIGNED: Duration = Duration::from_mins(15);

/// Attempts at a put that conflicts with another put of the same bytes.
const PUTS: u32 = 5;
/// Reads of an object whose body broke off.
const READS: u32 = 3;

/// Reports whether the bucket knows no such upload: it was completed or abandoned.
fn is_unknown(error: &SdkError<impl ProvideErrorMetadata>) -> bool {
    error.code() == Some("NoSuchUpload")
}

fn object(organization: &OrganizationName, digest: &Digest) -> String {
    format!("{organization}/sha256/{}", digest.hex())
}

fn base64(digest: &Digest) -> String {
    base64_simd::STANDARD.encode_to_string(digest.bytes())
}

/// The headers that belong to a presigned request: those that its signature speaks of. The SDK has more to say in a
/// function, such as whose invocation it is, which is nobody else's business.
fn signed_headers(presigned: &PresignedRequest) -> BTreeMap<String, String> {
    let query = presigned
        .uri()
        .split_once('?')
        .map_or("", |(_, query)| query);
    let signed = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("X-Amz-SignedHeaders="))
        .unwrap_or_default();
    let is_signed = |name: &str| signed.split("%3B").any(|one| one == name);
    presigned
        .headers()
        .filter(|(name, _)| is_signed(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

impl Aws {
    /// Returns the bucket's metadata of an object, if the object exists.
    async fn head(&self, key: &str) -> Result<Option<HeadObjectOutput>, Unreachable> {
        let request = self
            .s3()
            .head_object()
            .bucket(&self.settings.bucket)
            .key(key);
        match request.send().await {
            Ok(head) => Ok(Some(head)),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(HeadObjectError::is_not_found) =>
            {
                Ok(None)
            }
            Err(error) => Err(unreachable("bucket", &error)),
        }
    }

    async fn object(&self, key: &str, range: Option<String>) -> Result<Option<Piece>, Unreachable> {
        let mut reads = READS;
        loop {
            let request = self.s3().get_object().bucket(&self.settings.bucket);
            let answer = match request.key(key).set_range(range.clone()).send().await {
                Ok(answer) => answer,
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(GetObjectError::is_no_such_key) =>
                {
                    return Ok(None);
                }
                // A range behind the end.
                Err(error)
                    if error
                        .raw_response()
                        .is_some_and(|response| response.status().as_u16() == 416) =>
                {
                    return Ok(Some(Bytes::new().into()));
                }
                Err(error) => return Err(unreachable("bucket", &error)),
            };
            reads -= 1;
            let etag = answer.e_tag;
            match answer.body.collect().await {
                Ok(bytes) => {
                    let bytes = bytes.into_bytes();
                    return Ok(Some(Piece { bytes, etag }));
                }
                // The SDK repeats a request that failed, and not one whose body broke off.
                Err(_) if reads > 0 => {}
                Err(error) => {
                    return Err(Unreachable {
                        what: "bucket",
                        why: error.to_string(),
                    });
                }
            }
        }
    }

    /// An address in the bucket, as requests have it.
    pub(crate) async fn object_uri(&self) -> String {
        let expiring = PresigningConfig::expires_in(PRESIGNED).expect("less than a week");
        let asking = self.s3().get_object();
        let asking = asking.bucket(&self.settings.bucket).key("-");
        let presigned = asking.presigned(expiring).await;
        presigned.map_or_else(|_| String::new(), |presigned| presigned.uri().to_owned())
    }

    pub(crate) async fn put_bytes(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<(), Unreachable> {
        let mut pause = Duration::from_millis(20);
        for _ in 0..PUTS {
            let result = self
                .s3()
                .put_object()
                .bucket(&self.settings.bucket)
                .key(object(organization, digest))
                .if_none_match("*")
                .checksum_sha256(base64(digest))
                .content_type("application/octet-stream")
                .body(ByteStream::from(bytes.clone()))
                .customize()
                // The checksum says what is put, and TLS that it arrives: hashing it once more would cost as much as
                // all the rest.
                .disable_payload_signing()
                .send()
                .await;
            let Err(error) = result else { return Ok(()) };
            match error
                .raw_response()
                .map(|response| response.status().as_u16())
            {
                // Those bytes are there already.
                Some(412) => return self.keep_bytes(organization, digest).await.map(drop),
                // Somebody is putting the same bytes just now.
                Some(409) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                _ => return Err(unreachable("bucket", &error)),
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
        let put_at = head.last_modified.and_then(|at| at.to_millis().ok());
        let put_at = put_at
            .and_then(|millis| u64::try_from(millis).ok())
            .unwrap_or_default();
        if self.now().since(Timestamp::from_millis(put_at)) > BYTES_LONGER {
            // A copy onto itself is the bytes put down anew: the bucket counts from then.
            self.s3()
                .copy_object()
                .bucket(&self.settings.bucket)
                .key(&key)
                .copy_source(format!("{}/{key}", self.settings.bucket))
                .metadata_directive(MetadataDirective::Replace)
                .content_type("application/octet-stream")
                .send()
                .await
                .map_err(|error| unreachable("bucket", &error))?;
        }
        Ok(head
            .content_length
            .and_then(|size| u64::try_from(size).ok()))
    }

    pub(crate) async fn size_of(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        let head = self.head(&object(organization, digest)).await?;
        Ok(head.and_then(|head| u64::try_from(head.content_length?).ok()))
    }

    pub(crate) async fn begin_parts(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<String, Unreachable> {
        let begun = self
            .s3()
            .create_multipart_upload()
            .bucket(&self.settings.bucket)
            .key(object(organization, digest))
            .content_type("application/octet-stream")
            .send()
            .await
            .map_err(|error| unreachable("bucket", &error))?;
        begun.upload_id.ok_or_else(|| Unreachable {
            what: "bucket",
            why: "an upload without an id".into(),
        })
    }

    pub(crate) async fn put_part(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
        number: u32,
        bytes: Bytes,
    ) -> Result<String, Unreachable> {
        let put = self
            .s3()
            .upload_part()
            .bucket(&self.settings.bucket)
            .key(object(organization, digest))
            .upload_id(upload)
            .part_number(i32::try_from(number).unwrap_or(i32::MAX))
            // A bucket with Object Lock takes no part without it.
            .content_md5(base64_simd::STANDARD.encode_to_string(Md5::digest(&bytes)))
            .body(ByteStream::from(bytes))
            .customize()
            .disable_payload_signing()
            .send()
            .await
            .map_err(|error| unreachable("bucket", &error))?;
        put.e_tag.ok_or_else(|| Unreachable {
            what: "bucket",
            why: "a part without a tag".into(),
        })
    }

    pub(crate) async fn complete_parts(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
        parts: Vec<String>,
    ) -> Result<(), Unreachable> {
        let parts = (1..).zip(parts).map(|(number, tag)| {
            CompletedPart::builder()
                .part_number(number)
                .e_tag(tag)
                .build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect()));
        let key = object(organization, digest);
        let completed = self
            .s3()
            .complete_multipart_upload()
            .bucket(&self.settings.bucket)
            .key(&key)
            .upload_id(upload)
            .multipart_upload(parts.build())
            .send()
            .await;
        match completed {
            Ok(_) => Ok(()),
            // It was completed, and the answer got lost.
            Err(error) if is_unknown(&error) && self.head(&key).await?.is_some() => Ok(()),
            Err(error) => Err(unreachable("bucket", &error)),
        }
    }

    pub(crate) async fn abandon_parts(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
    ) -> Result<(), Unreachable> {
        let abandoned = self
            .s3()
            .abort_multipart_upload()
            .bucket(&self.settings.bucket)
            .key(object(organization, digest))
            .upload_id(upload)
            .send()
            .await;
        match abandoned {
            Err(error) if !is_unknown(&error) => Err(unreachable("bucket", &error)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn presigned_put(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        size_bytes: u64,
    ) -> Result<Upload, Unreachable> {
        let bucket = |why: String| Unreachable {
            what: "bucket",
            why,
        };
        let size = i64::try_from(size_bytes).map_err(|error| bucket(error.to_string()))?;
        let presigned = self
            .s3()
            .put_object()
            .bucket(&self.settings.bucket)
            .key(object(organization, digest))
            .content_length(size)
            .checksum_sha256(base64(digest))
            .if_none_match("*")
            .presigned(PresigningConfig::expires_in(PRESIGNED).expect("15 minutes are allowed"))
            .await
            .map_err(|error| unreachable("bucket", &error))?;
        Ok(Upload {
            method: presigned.method().into(),
            url: presigned.uri().into(),
            headers: signed_headers(&presigned),
        })
    }

    pub(crate) async fn presigned_get(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Download, Unreachable> {
        let presigned = self
            .s3()
            .get_object()
            .bucket(&self.settings.bucket)
            .key(object(organization, digest))
            .presigned(PresigningConfig::expires_in(PRESIGNED).expect("15 minutes are allowed"))
            .await
            .map_err(|error| unreachable("bucket", &error))?;
        Ok(Download {
            url: presigned.uri().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;
    use crate::Settings;

    const SIGNED: &str = "a_presigned_upload_has_exactly_the_headers_that_are_signed";

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

    #[tokio::test]
    async fn a_presigned_upload_has_exactly_the_headers_that_are_signed() {
        let aws = aws(None);
        let digest = Digest::of(b"bytes");
        let upload = aws.presigned_put(&"acme".into(), &digest, 5).await.unwrap();
        let expected = BTreeMap::from([
            ("content-length".to_owned(), "5".to_owned()),
            ("if-none-match".to_owned(), "*".to_owned()),
            ("x-amz-checksum-sha256".to_owned(), base64(&digest)),
        ]);
        assert_eq!(upload.headers, expected);
        let download = aws.presigned_get(&"acme".into(), &digest).await.unwrap();
        let signed = "X-Amz-SignedHeaders=host&";
        assert!(download.url.contains(signed), "a browser sends no other");
    }

    /// In a process of its own, because the SDK looks at the environment itself.
    #[test]
    fn a_presigned_upload_does_not_name_the_invocation_that_made_it() {
        let own = std::env::current_exe().unwrap();
        let output = Command::new(own)
            .args(["--exact", &format!("bucket::tests::{SIGNED}")])
            .env("AWS_LAMBDA_FUNCTION_NAME", "attestations")
            .env(
                "_X_AMZN_TRACE_ID",
                "Root=1-00000000-000000000000000000000000",
            )
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("1 passed"), "{text}");
    }
}
