//! Finished steps and the last attempt of a delivery: where they are kept, and that nothing is done twice.

use pipeline::Platform as _;
use pipeline::store::platform::{Etag, Expect, Item, Key, Write};
use pipeline::store::rows::{self, Delivery, Row as _, Step};
use serde_json::json;

use crate::world::{ORGANIZATION, World, attestation};

/// Changes a row behind the pipeline's back.
async fn rewrite(world: &World, key: Key, change: impl FnOnce(&mut Item)) {
    let mut item = world.memory.get(&key).await.unwrap().unwrap();
    let etag = Etag(item["etag"].as_str().unwrap().to_owned());
    change(&mut item);
    let expect = Expect::Unchanged(etag.clone());
    let write = Write::Put {
        key,
        item,
        etag,
        expect,
    };
    world.memory.write(vec![write]).await.unwrap();
}

#[tokio::test]
async fn what_the_next_release_leaves_out_or_puts_elsewhere_is_found() {
    let world = World::new();
    world.ready().await;
    let bytes = attestation("1", vec![]).compact();
    let accepted = world.push(bytes).await.unwrap();
    let (id, _) = accepted.plan.deliveries().next().unwrap();
    let at = Delivery::at(&ORGANIZATION, &id);
    let receipt = json!({ "status": 200 });
    let step = Step {
        organization: ORGANIZATION.clone(),
        delivery: id,
        name: "attestation".into(),
        receipt: receipt.clone(),
        created_at: accepted.plan.created_at,
    };
    let step = rows::insert(&world.memory, &step).0;
    world.memory.write(vec![step]).await.unwrap();
    rewrite(&world, at.clone(), |item| {
        for (name, value) in Delivery::implied(item) {
            assert_eq!(item.remove(&name), Some(value), "{name}");
        }
        item.insert("has_steps".into(), true.into());
    })
    .await;
    let (shown, _) = world.delivery(&accepted).await;
    assert_eq!(shown.progress["attestation"], receipt);
    world.deliver().await;
    let (delivered, attempts) = world.delivery(&accepted).await;
    let sent = delivered.receipt.unwrap();
    assert_eq!(sent["steps"]["attestation"], receipt);
    assert!(world.receiver.deliveries().is_empty(), "it was sent before");
    let [attempt] = &attempts[..] else {
        panic!("{attempts:?}");
    };
    let row = world.memory.get(&attempt.key()).await.unwrap().unwrap();
    let etag = Etag(row["etag"].as_str().unwrap().to_owned());
    let key = attempt.key();
    let delete = Write::Delete { key, etag };
    world.memory.write(vec![delete]).await.unwrap();
    let report = serde_json::to_value(&attempt.report).unwrap();
    rewrite(&world, at, |item| {
        item.insert("last_attempt".into(), report.clone());
    })
    .await;
    let (_, attempts) = world.delivery(&accepted).await;
    assert_eq!((attempts.len(), attempts[0].number), (1, 1));
    assert_eq!(serde_json::to_value(&attempts[0].report).unwrap(), report);
}
