//! Behavior that all platforms share: one suite over memory, over the local cloud, and over the benchmark's stub.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::OrganizationName;
use attestation::Digest;
use aws::{Aws, Settings};
use bench::{Cloud, Server};
use bytes::Bytes;
use memory::Memory;
use pipeline::Platform;
use pipeline::store::platform::{
    Etag, Expect, Index, Item, Key, Message, Range, SecretValue, Write, WriteError,
};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde_json::{Value, json};

/// A partition of this run's own.
fn partition(platform: &impl Platform) -> String {
    format!("contract/{:016x}", platform.random())
}

fn item(key: &Key, etag: &str, fields: Value) -> Item {
    let Value::Object(mut item) = fields else {
        panic!("fields are an object")
    };
    item.insert("pk".into(), key.partition.clone().into());
    item.insert("sk".into(), key.sort.clone().into());
    item.insert("etag".into(), etag.into());
    item
}

fn put(key: &Key, etag: &str, fields: Value, expect: Expect) -> Write {
    Write::Put {
        key: key.clone(),
        item: item(key, etag, fields),
        etag: Etag(etag.into()),
        expect,
    }
}

fn unchanged(etag: &str) -> Expect {
    Expect::Unchanged(Etag(etag.into()))
}

async fn field(platform: &impl Platform, key: &Key, name: &str) -> Option<Value> {
    platform.get(key).await.unwrap()?.get(name).cloned()
}

fn conflicts(result: &Result<(), WriteError>) -> bool {
    matches!(result, Err(WriteError::Conflict))
}

async fn rows_are_written_on_conditions(platform: &impl Platform) {
    let own = partition(platform);
    let (a, b) = (Key::new(&own, "a"), Key::new(&own, "b"));
    let write = async |writes| platform.write(writes).await;
    write(vec![put(&a, "1", json!({ "n": 1 }), Expect::Absent)])
        .await
        .unwrap();
    assert!(conflicts(
        &write(vec![put(&a, "2", json!({ "n": 2 }), Expect::Absent)]).await
    ));
    assert!(conflicts(
        &write(vec![put(&a, "2", json!({ "n": 2 }), unchanged("0"))]).await
    ));
    // All of a transaction or nothing.
    let both = vec![
        put(&b, "1", json!({ "n": 1 }), Expect::Absent),
        put(&a, "2", json!({ "n": 2 }), unchanged("0")),
    ];
    assert!(conflicts(&write(both).await));
    assert_eq!(platform.get(&b).await.unwrap(), None);
    let both = vec![
        put(&b, "1", json!({ "n": 1 }), Expect::Absent),
        put(&a, "2", json!({ "n": 2 }), unchanged("1")),
    ];
    write(both).await.unwrap();
    assert_eq!(field(platform, &a, "n").await, Some(json!(2)));
    // A check writes nothing, and holds the others back.
    let check = |etag: &str| Write::Check {
        key: a.clone(),
        etag: Etag(etag.into()),
    };
    let stale = vec![check("1"), put(&b, "2", json!({ "n": 2 }), unchanged("1"))];
    assert!(conflicts(&write(stale).await));
    let current = vec![check("2"), put(&b, "2", json!({ "n": 2 }), unchanged("1"))];
    write(current).await.unwrap();
    assert_eq!(field(platform, &b, "n").await, Some(json!(2)));
    // The same write again, after its answer was lost, is the writer's own.
    write(vec![put(&b, "3", json!({ "n": 3 }), unchanged("2"))])
        .await
        .unwrap();
    assert!(conflicts(
        &write(vec![put(&b, "4", json!({ "n": 4 }), unchanged("2"))]).await
    ));
    let delete = |etag: &str| Write::Delete {
        key: a.clone(),
        etag: Etag(etag.into()),
    };
    assert!(conflicts(&write(vec![delete("1")]).await));
    write(vec![delete("2")]).await.unwrap();
    assert_eq!(platform.get(&a).await.unwrap(), None);
}

async fn a_row_that_is_too_large_is_refused_with_all_that_is_written_with_it(
    platform: &impl Platform,
) {
    let own = partition(platform);
    let (small, large) = (Key::new(&own, "small"), Key::new(&own, "large"));
    let of = |length: usize| {
        let text = json!({ "text": "a".repeat(length) });
        let large = put(&large, "1", text, Expect::Absent);
        vec![put(&small, "1", json!({}), Expect::Absent), large]
    };
    let refused = platform.write(of(420_000)).await;
    assert!(
        matches!(refused, Err(WriteError::Unreachable(_))),
        "{refused:?}"
    );
    assert_eq!(platform.get(&small).await.unwrap(), None);
    platform.write(of(400_000)).await.unwrap();
}

async fn a_row_whose_attribute_of_an_index_is_no_text_is_refused(platform: &impl Platform) {
    let key = Key::new(partition(platform), "row");
    let row = put(&key, "1", json!({ "failed": 5 }), Expect::Absent);
    let refused = platform.write(vec![row]).await;
    assert!(
        matches!(refused, Err(WriteError::Unreachable(_))),
        "{refused:?}"
    );
}

async fn a_row_past_its_time_counts_as_absent(platform: &impl Platform) {
    let key = Key::new(partition(platform), "old");
    let (past, future) = (platform.now().secs() - 60, platform.now().secs() + 600);
    let old = put(&key, "1", json!({ "expires_at": past }), Expect::Absent);
    platform.write(vec![old]).await.unwrap();
    let new = put(&key, "2", json!({ "expires_at": future }), Expect::Absent);
    platform.write(vec![new]).await.unwrap();
    let again = put(&key, "3", json!({}), Expect::Absent);
    assert!(conflicts(&platform.write(vec![again]).await));
}

async fn rows_are_read_alone_together_and_in_order(platform: &impl Platform) {
    let own = partition(platform);
    let keys: Vec<Key> = (0..120)
        .map(|number| Key::new(&own, format!("row/{number:03}")))
        .collect();
    for chunk in keys.chunks(60) {
        let writes = chunk.iter().map(|key| {
            put(
                key,
                "1",
                json!({ "nested": { "list": [1, "two", null, true] } }),
                Expect::Absent,
            )
        });
        platform.write(writes.collect()).await.unwrap();
    }
    let other = Key::new(&own, "other/1");
    platform
        .write(vec![put(&other, "1", json!({}), Expect::Absent)])
        .await
        .unwrap();
    let mut asked = keys.clone();
    asked.push(Key::new(&own, "row/none"));
    let found = platform.get_many(&asked).await.unwrap();
    let found: BTreeSet<&str> = found
        .iter()
        .filter_map(|item| item["sk"].as_str())
        .collect();
    assert_eq!(found.len(), 120);
    let nested = field(platform, &keys[0], "nested").await;
    assert_eq!(nested, Some(json!({ "list": [1, "two", null, true] })));
    let sorts = |items: Vec<Item>| -> Vec<String> {
        items
            .iter()
            .map(|item| item["sk"].as_str().unwrap().to_owned())
            .collect()
    };
    let page = sorts(platform.list(&own, "row/", None, 50).await.unwrap());
    assert_eq!(
        (page.len(), page[0].as_str(), page[49].as_str()),
        (50, "row/000", "row/049")
    );
    let rest = sorts(
        platform
            .list(&own, "row/", Some("row/049"), 500)
            .await
            .unwrap(),
    );
    assert_eq!((rest.len(), rest[0].as_str()), (70, "row/050"));
    // Behind where no row is, or is no more.
    let rest = sorts(platform.list(&own, "", Some("row/1"), 500).await.unwrap());
    assert_eq!((rest.len(), rest[0].as_str()), (20, "row/100"));
    let last = sorts(platform.list_last(&own, "row/", None, 50).await.unwrap());
    assert_eq!(
        (last.len(), last[0].as_str(), last[49].as_str()),
        (50, "row/119", "row/070")
    );
    let before = platform.list_last(&own, "row/", Some("row/005"), 50).await;
    assert_eq!(
        sorts(before.unwrap()),
        ["row/004", "row/003", "row/002", "row/001", "row/000"]
    );
    assert!(
        platform
            .list(&own, "none/", None, 10)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn numbers_are_added_to_whoever_adds_at_the_same_time(platform: &impl Platform) {
    let key = Key::new(partition(platform), "counter");
    let expires_at = platform.now().plus(Duration::from_hours(1));
    let add = async |n, bytes| {
        let amounts = [("n", n), ("bytes", bytes)];
        platform.add(&key, &amounts, expires_at).await
    };
    add(1, 0).await.unwrap();
    assert_eq!(field(platform, &key, "bytes").await, Some(json!(0)));
    let at_once = (0..20).map(|_| add(1, 5_000_000_000));
    futures_util::future::try_join_all(at_once).await.unwrap();
    assert_eq!(field(platform, &key, "n").await, Some(json!(21)));
    let bytes = field(platform, &key, "bytes").await;
    assert_eq!(bytes, Some(json!(100_000_000_000_u64)));
    let expires = field(platform, &key, "expires_at").await;
    assert_eq!(expires, Some(json!(expires_at.secs())));
}

async fn an_index_holds_the_rows_that_have_its_attributes(platform: &impl Platform) {
    let own = partition(platform);
    for (number, at) in ["2026-01-01", "2026-01-03", "2026-01-02"]
        .iter()
        .enumerate()
    {
        let key = Key::new(&own, number.to_string());
        let fields = json!({ "due_shard": own, "wake_at": at });
        platform
            .write(vec![put(&key, "1", fields, Expect::Absent)])
            .await
            .unwrap();
    }
    let without = Key::new(&own, "without");
    let fields = json!({ "wake_at": "2026-01-01" });
    platform
        .write(vec![put(&without, "1", fields, Expect::Absent)])
        .await
        .unwrap();
    let range = async |until: &str, newest_first, limit| -> Vec<String> {
        let range = Range {
            index: Index::Due,
            hash: &own,
            until,
            newest_first,
            limit,
        };
        let keys = platform.range(range).await.unwrap().into_iter();
        keys.map(|key| key.sort).collect()
    };
    assert_eq!(range("2026-01-09", false, 10).await, ["0", "2", "1"]);
    assert_eq!(range("2026-01-09", true, 2).await, ["1", "2"]);
    assert_eq!(
        range("2026-01-02", false, 10).await,
        ["0", "2"],
        "up to and including"
    );
    // A row that loses the attribute leaves the index.
    let gone = Key::new(&own, "0");
    platform
        .write(vec![put(&gone, "2", json!({}), unchanged("1"))])
        .await
        .unwrap();
    assert_eq!(range("2026-01-09", false, 10).await, ["2", "1"]);
}

async fn bytes_are_kept_by_their_digest(platform: &impl Platform) {
    let organization = OrganizationName::from(format!("contract-{:x}", platform.random()));
    let another = OrganizationName::from("another");
    let bytes = Bytes::from(format!("bytes of {organization}"));
    let digest = Digest::of(&bytes);
    assert_eq!(
        platform.get_object(&organization, &digest).await.unwrap(),
        None
    );
    assert_eq!(
        platform.keep_object(&organization, &digest).await.unwrap(),
        None
    );
    for _ in 0..2 {
        platform
            .put_object(&organization, &digest, bytes.clone())
            .await
            .unwrap();
    }
    let size = Some(bytes.len() as u64);
    assert_eq!(
        platform.object_size(&organization, &digest).await.unwrap(),
        size
    );
    assert_eq!(
        platform.keep_object(&organization, &digest).await.unwrap(),
        size
    );
    assert_eq!(
        platform.get_object(&organization, &digest).await.unwrap(),
        Some(bytes)
    );
    let all = format!("bytes of {organization}");
    let mut etags = Vec::new();
    for (offset, length, expected) in [
        (0, 5, &all[..5]),
        (6, 2, &all[6..8]),
        (6, 500, &all[6..]),
        (500, 5, ""),
        (3, 0, ""),
    ] {
        let part = platform
            .read_object(&organization, &digest, offset, length)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(part.bytes, expected.as_bytes(), "{offset} {length}");
        if !expected.is_empty() {
            etags.push(part.etag.unwrap());
        }
    }
    etags.dedup();
    assert_eq!(etags.len(), 1, "the tag of the whole object: {etags:?}");
    let nothing = platform.read_object(&another, &digest, 0, 5).await.unwrap();
    assert_eq!(nothing, None);
    let other = platform.get_object(&another, &digest).await.unwrap();
    assert_eq!(other, None, "another organization has no such bytes");
    let upload = platform
        .presign_put(&organization, &digest, 7)
        .await
        .unwrap();
    assert_eq!(upload.method, "PUT");
    assert!(upload.url.contains(&digest.hex()));
    let download = platform.presign_get(&organization, &digest).await.unwrap();
    assert!(download.url.contains(&digest.hex()));
    assert!(!format!("{download:?}").contains(&digest.hex()));
}

async fn bytes_that_come_in_parts_are_there_when_all_of_them_are(platform: &impl Platform) {
    let organization = OrganizationName::from(format!("contract-{:x}", platform.random()));
    let parts = [vec![b'a'; 5 << 20], b"and the rest".to_vec()];
    let digest = Digest::of(&parts.concat());
    let size = async || platform.object_size(&organization, &digest).await.unwrap();
    let abandoned = platform.begin_upload(&organization, &digest).await.unwrap();
    let upload = platform.begin_upload(&organization, &digest).await.unwrap();
    let mut tags = Vec::new();
    for (number, part) in (1..).zip(&parts) {
        let bytes = Bytes::from(part.clone());
        let put = platform.upload_part(&organization, &digest, &upload, number, bytes);
        tags.push(put.await.unwrap());
    }
    assert_eq!(size().await, None);
    platform
        .complete_upload(&organization, &digest, &upload, tags)
        .await
        .unwrap();
    platform
        .abandon_upload(&organization, &digest, &abandoned)
        .await
        .unwrap();
    assert_eq!(size().await, Some((5 << 20) + 12));
    let whole = platform.get_object(&organization, &digest).await.unwrap();
    assert!(whole.is_some_and(|whole| whole == parts.concat()));
}

async fn secrets_are_replaced_and_deleted(platform: &impl Platform) {
    let name = format!("contract/{:x}", platform.random());
    assert_eq!(platform.get_secret(&name, None).await.unwrap(), None);
    let mut versions = Vec::new();
    for value in ["first", "second"] {
        let value = SecretValue::new(value.into());
        let version = platform.put_secret(&name, &value).await.unwrap();
        let found = platform.get_secret(&name, None).await.unwrap();
        assert_eq!(found, Some(value.of_version(version.clone())));
        versions.push(version);
    }
    // What a row still speaks of when the write of its next version was cut off.
    for (version, value) in versions.iter().zip(["first", "second"]) {
        let found = platform.get_secret(&name, Some(version)).await.unwrap();
        assert_eq!(found.unwrap().expose(), value);
    }
    for _ in 0..2 {
        platform.delete_secret(&name).await.unwrap();
        assert_eq!(platform.get_secret(&name, None).await.unwrap(), None);
    }
    // A request that comes again needs the name of what its first try left and somebody removed.
    let value = SecretValue::new("third".into());
    let version = platform.put_secret(&name, &value).await.unwrap();
    let found = platform.get_secret(&name, None).await.unwrap();
    assert_eq!(found, Some(value.of_version(version)));
    platform.delete_secret(&name).await.unwrap();
}

async fn messages_are_answered_one_by_one(platform: &impl Platform) {
    let message = |number: u32| Message {
        body: format!("message {number} of the contract suite: parked, as it must be"),
        group: "contract".into(),
        delay: Duration::from_secs(u64::from(number) * 90),
    };
    let mut left: Vec<Message> = (0..10).map(message).collect();
    // Some of a batch may fail: those are sent again, as the reconciler does it.
    for _ in 0..5 {
        let answers = platform.send("guac", &left).await.unwrap();
        assert_eq!(answers.len(), left.len());
        let sent = answers.iter();
        left = left
            .into_iter()
            .zip(sent)
            .filter_map(|(message, answer)| answer.is_err().then_some(message))
            .collect();
        if left.is_empty() {
            return;
        }
    }
    panic!("{} of ten messages were not sent", left.len());
}

/// The signature is over the message's SHA-256, in DER: what DSSE's verifiers expect.
async fn messages_are_signed_by_the_public_key(platform: &impl Platform) {
    let key = platform.signing_key().await.unwrap();
    assert_eq!(platform.signing_key().await.unwrap(), key);
    let point = &key[key.len() - 65..];
    let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
    // KMS itself takes messages of up to 4 KB.
    for size_bytes in [0, 1, 5_000] {
        let mut message = vec![b'a'; size_bytes];
        let signature = platform.sign(&message).await.unwrap();
        assert!(
            verifier.verify(&message, &signature).is_ok(),
            "{size_bytes}"
        );
        message.push(b'b');
        assert!(verifier.verify(&message, &signature).is_err());
    }
}

async fn suite(platform: &impl Platform) {
    rows_are_written_on_conditions(platform).await;
    a_row_past_its_time_counts_as_absent(platform).await;
    rows_are_read_alone_together_and_in_order(platform).await;
    numbers_are_added_to_whoever_adds_at_the_same_time(platform).await;
    an_index_holds_the_rows_that_have_its_attributes(platform).await;
    bytes_are_kept_by_their_digest(platform).await;
    bytes_that_come_in_parts_are_there_when_all_of_them_are(platform).await;
    secrets_are_replaced_and_deleted(platform).await;
    messages_are_answered_one_by_one(platform).await;
    let numbers: BTreeSet<u64> = (0..100).map(|_| platform.random()).collect();
    assert_eq!(numbers.len(), 100);
    let before = platform.now();
    assert!(platform.now() >= before);
}

#[tokio::test]
async fn memory_is_a_platform() {
    let memory = Memory::default();
    memory.is_newer.set(false);
    suite(&memory).await;
    a_row_that_is_too_large_is_refused_with_all_that_is_written_with_it(&memory).await;
    a_row_whose_attribute_of_an_index_is_no_text_is_refused(&memory).await;
    messages_are_signed_by_the_public_key(&memory).await;
}

/// Proves that what is measured over the stub is what the functions do on a cloud.
#[tokio::test]
async fn the_stub_of_the_benchmark_is_a_platform() {
    let cloud = Server::start(Arc::new(Cloud::default()), None);
    let endpoint = format!("http://127.0.0.1:{}", cloud.port);
    let settings = Settings::from_env(|name| {
        Some(match name {
            "AWS_ENDPOINT_URL" => endpoint.clone(),
            "AWS_REGION" => "eu-central-1".to_owned(),
            "QUEUE_URL_PREFIX" => format!("{endpoint}/000000000000/stub-"),
            "ALLOWED_PRIVATE_CIDRS" | "EGRESS_PROXY" | "OTEL_EXPORTER_OTLP_ENDPOINT" | "QUOTAS" => {
                return None;
            }
            other => other.to_lowercase(),
        })
    });
    suite(&Aws::new(settings.unwrap())).await;
}

/// Named so that it runs with those that need the deployed stack.
#[tokio::test]
async fn the_deployed_cloud_is_a_platform() {
    let given = |name: &str| {
        std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test`"))
    };
    let endpoint = given("AWS_ENDPOINT_URL");
    let settings = Settings::from_env(|name| {
        Some(match name {
            "TABLE" => given("CHAINLOOP_INTEGRATIONS_TABLE"),
            "BUCKET" => given("CHAINLOOP_BUCKET"),
            "STACK" => given("CHAINLOOP_STACK"),
            "QUEUE_URL_PREFIX" => {
                format!("{endpoint}/000000000000/{}-", given("CHAINLOOP_STACK"))
            }
            "RECEIPT_KEY" => given("CHAINLOOP_RECEIPT_KEY"),
            other => return std::env::var(other).ok(),
        })
    });
    let aws = Aws::new(settings.unwrap());
    suite(&aws).await;
    a_row_that_is_too_large_is_refused_with_all_that_is_written_with_it(&aws).await;
    // Over an emulator that signs otherwise than AWS does.
    if given("CHAINLOOP_RECEIPT_KEY") != "none" {
        messages_are_signed_by_the_public_key(&aws).await;
    }
}
