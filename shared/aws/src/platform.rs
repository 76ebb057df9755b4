//! [`Platform`] on AWS.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::materials::{Download, Upload};
use api::{OrganizationName, Timestamp};
use attestation::Digest;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use aws_sdk_lambda::error::ProvideErrorMetadata;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_secretsmanager::error::SdkError;
use aws_sdk_secretsmanager::operation::put_secret_value::PutSecretValueError;
use aws_sdk_secretsmanager::operation::restore_secret::RestoreSecretError;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use bytes::Bytes;
use pipeline::store::meter::Meter;
use pipeline::store::platform::{
    Announcement, Item, Key, Message, Piece, Platform, Range, SecretValue, Unreachable, Write,
    WriteError,
};
use serde_json::Value;

use crate::Aws;
use crate::table::{Order, unreachable};

/// Pauses between tries of a put into a secret that was restored: it stays marked for deletion for a moment.
const RESTORED_MILLIS: [u64; 5] = [100, 200, 400, 800, 1_600];

/// By which rules of EventBridge find what is ours.
const SOURCE: &str = "chainloop-integrations";

impl Aws {
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
        let restored = self.secrets().restore_secret().secret_id(name).send().await;
        match restored {
            // It was restored, and the answer got lost.
            Err(error)
                if !error
                    .as_service_error()
                    .is_some_and(RestoreSecretError::is_invalid_request_exception) =>
            {
                return Err(unreachable("secrets manager", &error));
            }
            _ => {}
        }
        let mut pauses = RESTORED_MILLIS.into_iter().map(Duration::from_millis);
        loop {
            let error = match put().await {
                Ok(put) => return known(put.version_id),
                Err(error) => error,
            };
            let is_going = error.as_service_error().is_some_and(is_going);
            match pauses.next().filter(|_| is_going) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(failed(&error)),
            }
        }
    }
}

fn known(version: Option<String>) -> Result<String, Unreachable> {
    version.ok_or_else(|| Unreachable {
        what: "secrets manager",
        why: "it did not say which version it keeps".to_owned(),
    })
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    u64::from_ne_bytes(bytes)
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
        Box::pin(self.put_bytes(organization, digest, bytes)).await
    }

    async fn get_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<Bytes>, Unreachable> {
        Box::pin(self.get_bytes(organization, digest)).await
    }

    async fn read_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<Option<Piece>, Unreachable> {
        Box::pin(self.read_bytes(organization, digest, offset, length)).await
    }

    async fn keep_object(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        Box::pin(self.keep_bytes(organization, digest)).await
    }

    async fn object_size(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Option<u64>, Unreachable> {
        Box::pin(self.size_of(organization, digest)).await
    }

    async fn begin_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<String, Unreachable> {
        Box::pin(self.begin_parts(organization, digest)).await
    }

    async fn upload_part(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
        number: u32,
        bytes: Bytes,
    ) -> Result<String, Unreachable> {
        Box::pin(self.put_part(organization, digest, upload, number, bytes)).await
    }

    async fn complete_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
        parts: Vec<String>,
    ) -> Result<(), Unreachable> {
        Box::pin(self.complete_parts(organization, digest, upload, parts)).await
    }

    async fn abandon_upload(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        upload: &str,
    ) -> Result<(), Unreachable> {
        Box::pin(self.abandon_parts(organization, digest, upload)).await
    }

    async fn presign_put(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
        size_bytes: u64,
    ) -> Result<Upload, Unreachable> {
        Ok(self.presigned_put(organization, digest, size_bytes))
    }

    async fn presign_get(
        &self,
        organization: &OrganizationName,
        digest: &Digest,
    ) -> Result<Download, Unreachable> {
        Ok(self.presigned_get(organization, digest))
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
        let request = request.set_kms_key_id(self.settings.secrets_key.clone());
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

    async fn announce(&self, announcement: Announcement) -> Result<(), Unreachable> {
        let Announcement { title, mut detail } = announcement;
        detail["stack"] = self.settings.stack.as_str().into();
        let entry = PutEventsRequestEntry::builder()
            .source(SOURCE)
            .detail_type(title)
            .detail(detail.to_string())
            .event_bus_name(&self.settings.event_bus);
        let put = self.events().put_events().entries(entry.build());
        let answer = put.send().await;
        let answer = answer.map_err(|error| unreachable("event bus", &error))?;
        // It takes some and refuses others with one answer.
        let refused = answer.entries.unwrap_or_default().into_iter();
        match refused.into_iter().find_map(|entry| entry.error_code) {
            None => Ok(()),
            Some(why) => Err(Unreachable {
                what: "event bus",
                why,
            }),
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
            .function_name(format!(
                "{}-deliver-{integration}{}",
                self.settings.stack, self.settings.qualifier
            ))
            .payload(Blob::new(event))
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

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unreachable> {
        Box::pin(self.sign_digest(&Digest::of(message))).await
    }

    async fn signing_key(&self) -> Result<Vec<u8>, Unreachable> {
        Box::pin(self.public_key()).await
    }

    fn stack(&self) -> &str {
        &self.settings.stack
    }

    fn console(&self) -> Option<&str> {
        self.settings.console.as_deref()
    }

    fn retention(&self) -> Duration {
        self.settings.retention
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn now(&self) -> Timestamp {
        now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// From the operating system: tokens are made of it.
    fn random(&self) -> u64 {
        random()
    }
}
