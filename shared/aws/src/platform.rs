//! [`Platform`] on AWS.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::materials::{Download, Upload};
use api::{OrganizationName, Timestamp};
use attestation::Digest;
use aws_sdk_lambda::error::ProvideErrorMetadata;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::operation::head_object::{HeadObjectError, HeadObjectOutput};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, MetadataDirective};
use aws_sdk_secretsmanager::error::SdkError;
use aws_sdk_secretsmanager::operation::put_secret_value::PutSecretValueError;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use bytes::Bytes;
use pipeline::ledger::schedule::BYTES_LONGER;
use pipeline::store::meter::Meter;
use pipeline::store::platform::{
    Item, Key, Message, Platform, Range, SecretValue, Unreachable, Write, WriteError,
};
use serde_json::Value;

use crate::Aws;
use crate::table::{Order, unreachable};

/// Lifetime of a presigned upload or download.
const PRESIGNED: Duration = Duration::from_mins(15);

/// Timeout for invoking a delivery function: longer than a check may take, shorter than the gateway waits.
const INVOKE: Duration = Duration::from_secs(27);

/// Attempts at a put that conflicts with another put of the same bytes.
const PUTS: u32 = 5;

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

    async fn object(&self, key: &str, range: Option<String>) -> Result<Option<Bytes>, Unreachable> {
        let request = self.s3().get_object().bucket(&self.settings.bucket);
        let answer = match request.key(key).set_range(range).send().await {
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
                return Ok(Some(Bytes::new()));
            }
            Err(error) => return Err(unreachable("bucket", &error)),
        };
        let bytes = answer.body.collect().await;
        let bytes = bytes.map_err(|error| Unreachable {
            what: "bucket",
            why: error.to_string(),
        })?;
        Ok(Some(bytes.into_bytes()))
    }

    /// Below a name of this system's own: another system's secrets may well begin with `prod/`.
    fn secret(&self, name: &str) -> String {
        format!("chainloop-integrations/{}/{name}", self.settings.stack)
    }

    /// Puts a further version of a secret that is there, be it about to go.
    async fn add_version(&self, name: &str, value: &SecretValue) -> Result<String, Unreachable> {
        let put = || {
            let request = self.secrets().put_secret_value().secret_id(name);
            request.secret_string(value.expose()).send()
        };
        let failed = |error: &SdkError<_>| unreachable("secrets manager", error);
        let error = match put().await {
            Ok(put) => return known(put.version_id),
            Err(error) => error,
        };
        let is_going = |error: &PutSecretValueError| error.is_invalid_request_exception();
        if !error.as_service_error().is_some_and(is_going) {
            return Err(failed(&error));
        }
        let restore = self.secrets().restore_secret().secret_id(name).send();
        restore
            .await
            .map_err(|error| unreachable("secrets manager", &error))?;
        let put = put().await.map_err(|error| failed(&error))?;
        known(put.version_id)
    }
}

fn known(version: Option<String>) -> Result<String, Unreachable> {
    version.ok_or_else(|| Unreachable {
        what: "secrets manager",
        why: "it did not say which version it keeps".to_owned(),
    })
}

// The table's futures and the bucket's are boxed: those of the SDK are so deep that, one inside the other, they exceed what the
// compiler lays out, and an allocation is nothing beside a request.
impl Platform for Aws {
    async fn get(&self, key: &Key) -> Result<Option<Item>, Unreachable> {
        Box::pin(self.get_row(key)).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, Unreachable> {
        Box::pin(self.get_rows(keys)).await
    }

    async fn list(
        &self,
        partition: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Item>, Unreachable> {
        Box::pin(self.list_rows(partition, prefix, after, limit, Order::FirstFirst)).await
    }

    async fn list_last(
        &self,
        partition: &str,
        prefix: &str,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Item>, Unreachable> {
        Box::pin(self.list_rows(partition, prefix, before, limit, Order::LastFirst)).await
    }

    async fn range(&self, range: Range<'_>) -> Result<Vec<Key>, Unreachable> {
        Box::pin(self.range_keys(range)).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        Box::pin(self.write_rows(writes)).await
    }

    async fn add(
        &self,
        key: &Key,
        amounts: &[(&'static str, u64)],
        expires_at: Timestamp,
    ) -> Result<(), Unreachable> {
        Box::pin(self.add_numbers(key, amounts, expires_at)).await
    }

    async fn put_object(
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
                .send()
                .await;
            let Err(error) = result else { return Ok(()) };
            match error
                .raw_response()
                .map(|response| response.status().as_u16())
            {
                // Those bytes are there already.
                Some(412) => return self.keep_object(organization, digest).await.map(drop),
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

    async fn get_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<Bytes>, Unreachable> {
        Box::pin(self.object(&object(organization, digest), None)).await
    }

    async fn read_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<Option<Bytes>, Unreachable> {
        let Some(last) = length.checked_sub(1).map(|length| offset + length) else {
            return Ok(Some(Bytes::new()));
        };
        let range = format!("bytes={offset}-{last}");
        Box::pin(self.object(&object(organization, digest), Some(range))).await
    }

    async fn keep_object(
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

    async fn object_size(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        let head = self.head(&object(organization, digest)).await?;
        Ok(head.and_then(|head| u64::try_from(head.content_length?).ok()))
    }

    async fn begin_upload(
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

    async fn upload_part(
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
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map_err(|error| unreachable("bucket", &error))?;
        put.e_tag.ok_or_else(|| Unreachable {
            what: "bucket",
            why: "a part without a tag".into(),
        })
    }

    async fn complete_upload(
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
        self.s3()
            .complete_multipart_upload()
            .bucket(&self.settings.bucket)
            .key(object(organization, digest))
            .upload_id(upload)
            .multipart_upload(parts.build())
            .send()
            .await
            .map(drop)
            .map_err(|error| unreachable("bucket", &error))
    }

    async fn abandon_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
    ) -> Result<(), Unreachable> {
        self.s3()
            .abort_multipart_upload()
            .bucket(&self.settings.bucket)
            .key(object(organization, digest))
            .upload_id(upload)
            .send()
            .await
            .map(drop)
            .map_err(|error| unreachable("bucket", &error))
    }

    async fn presign_put(
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

    async fn presign_get(
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

    async fn send(
        &self,
        integration: &str,
        messages: &[Message],
    ) -> Result<Vec<Result<(), String>>, Unreachable> {
        let entries = messages.iter().enumerate().map(|(index, message)| {
            SendMessageBatchRequestEntry::builder()
                .id(index.to_string())
                .message_body(&message.body)
                .message_group_id(&*message.group)
                .delay_seconds(i32::try_from(message.delay.as_secs()).unwrap_or(900))
                .build()
                .expect("id and body are set")
        });
        let answer = self
            .sqs()
            .send_message_batch()
            .queue_url(format!("{}{integration}", self.settings.queue_url_prefix))
            .set_entries(Some(entries.collect()))
            .send()
            .await
            .map_err(|error| unreachable("queue", &error))?;
        // An entry that is in neither list was not sent, as far as we know.
        let mut answers = vec![Err("it was not acknowledged".to_owned()); messages.len()];
        let index = |id: &str| {
            id.parse::<usize>()
                .ok()
                .filter(|index| *index < messages.len())
        };
        for sent in answer.successful() {
            if let Some(index) = index(sent.id()) {
                answers[index] = Ok(());
            }
        }
        for failed in answer.failed() {
            if let Some(index) = index(failed.id()) {
                answers[index] = Err(failed.code().to_owned());
            }
        }
        Ok(answers)
    }

    async fn put_secret(&self, name: &str, value: &SecretValue) -> Result<String, Unreachable> {
        let name = self.secret(name);
        let request = self.secrets().create_secret().name(&name);
        let created = request.secret_string(value.expose()).send().await;
        match created {
            Ok(created) => known(created.version_id),
            Err(error)
                // Or it was deleted a short while ago, and its name is not free before the week is over.
                if error.as_service_error().is_some_and(|error| {
                    error.is_resource_exists_exception() || error.is_invalid_request_exception()
                }) =>
            {
                self.add_version(&name, value).await
            }
            Err(error) => Err(unreachable("secrets manager", &error)),
        }
    }

    async fn get_secret(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<SecretValue>, Unreachable> {
        let request = self
            .secrets()
            .get_secret_value()
            .secret_id(self.secret(name))
            .set_version_id(version.map(str::to_owned));
        match request.send().await {
            Ok(answer) => {
                let version = answer.version_id.unwrap_or_default();
                let value = answer.secret_string.map(SecretValue::new);
                Ok(value.map(|value| value.of_version(version)))
            }
            // Gone, or going.
            Err(error)
                if error.as_service_error().is_some_and(|error| {
                    error.is_resource_not_found_exception() || error.is_invalid_request_exception()
                }) =>
            {
                Ok(None)
            }
            Err(error) => Err(unreachable("secrets manager", &error)),
        }
    }

    async fn delete_secret(&self, name: &str) -> Result<(), Unreachable> {
        let request = self.secrets().delete_secret().secret_id(self.secret(name));
        // A week in which a deletion by mistake can be taken back.
        match request.recovery_window_in_days(7).send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error.as_service_error().is_some_and(|error| {
                    error.is_resource_not_found_exception() || error.is_invalid_request_exception()
                }) =>
            {
                Ok(())
            }
            Err(error) => Err(unreachable("secrets manager", &error)),
        }
    }

    async fn invoke(&self, integration: &str, event: Value) -> Result<Value, Unreachable> {
        let failed = |why: String| Unreachable {
            what: "delivery function",
            why,
        };
        let event = serde_json::to_vec(&event).expect("a value is JSON");
        let answer = self
            .lambda()
            .invoke()
            .function_name(format!("{}-deliver-{integration}", self.settings.stack))
            .payload(Blob::new(event))
            .customize()
            // Once: what it asks the third party must not be asked twice.
            .config_override(
                aws_sdk_lambda::Config::builder()
                    .retry_config(RetryConfig::disabled())
                    .timeout_config(
                        TimeoutConfig::builder()
                            .operation_timeout(INVOKE)
                            .operation_attempt_timeout(INVOKE)
                            .build(),
                    ),
            )
            .send()
            .await
            .map_err(|error| failed(error.code().unwrap_or("no answer").to_owned()))?;
        if let Some(kind) = answer.function_error {
            // The payload may repeat what it was given, which may be secret.
            return Err(failed(format!("it ended with an error ({kind})")));
        }
        let payload = answer.payload.map(Blob::into_inner).unwrap_or_default();
        serde_json::from_slice(&payload).map_err(|error| failed(error.to_string()))
    }

    fn retention(&self) -> Duration {
        self.settings.retention
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// From the operating system: tokens are made of it.
    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("the operating system has randomness");
        u64::from_ne_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::Settings;

    const SIGNED: &str = "a_presigned_upload_has_exactly_the_headers_that_are_signed";

    #[tokio::test]
    async fn a_presigned_upload_has_exactly_the_headers_that_are_signed() {
        let settings = Settings::from_env(|name| match name {
            "AWS_ENDPOINT_URL" | "QUOTAS" => None,
            "AWS_REGION" => Some("eu-central-1".to_owned()),
            other => Some(other.to_lowercase()),
        });
        let aws = Aws::new(settings.unwrap());
        let digest = Digest::of(b"bytes");
        let upload = aws.presign_put(&"acme".into(), &digest, 5).await.unwrap();
        let expected = BTreeMap::from([
            ("content-length".to_owned(), "5".to_owned()),
            ("if-none-match".to_owned(), "*".to_owned()),
            ("x-amz-checksum-sha256".to_owned(), base64(&digest)),
        ]);
        assert_eq!(upload.headers, expected);
        let download = aws.presign_get(&"acme".into(), &digest).await.unwrap();
        let signed = "X-Amz-SignedHeaders=host&";
        assert!(download.url.contains(signed), "a browser sends no other");
    }

    /// In a process of its own, because the SDK looks at the environment itself.
    #[test]
    fn a_presigned_upload_does_not_name_the_invocation_that_made_it() {
        let own = std::env::current_exe().unwrap();
        let output = Command::new(own)
            .args(["--exact", &format!("platform::tests::{SIGNED}")])
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
