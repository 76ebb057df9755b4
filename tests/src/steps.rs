//! Finished steps and the last attempt of a delivery: where they are kept, and that nothing is done twice.

use std::collections::BTreeMap;
use std::time::Duration;

use api::deliveries::{AttemptOutcome, State};
use api::workflows::{Workflow, selector};
use attestation::{Digest, Material, MaterialType};
use futures_util::future::{self, Either};
use integrations::Integration as _;
use integrations::webhook::Webhook;
use pipeline::Platform as _;
use pipeline::config::attach::{self, NewAttachment};
use pipeline::config::register::{self, NewRegistration};
use pipeline::engine::{accept, deliver, deliveries};
use pipeline::store::platform::{Etag, Expect, Item, Key, Scope, Write};
use pipeline::store::rows::{self, Delivery, Row as _, Step};
use serde_json::{Map, json};

use crate::audited::from;
use crate::cost::metered::{Metered, WRITE_BYTES};
use crate::receiver::{Answer, Receiver};
use crate::roles::As;
use crate::world::{ORGANIZATION, World, act, attestation, inputs, tests};

const SECOND: Duration = Duration::from_secs(1);

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
async fn rows_that_the_release_before_wrote_are_read_and_gone_on_with() {
    let world = World::new();
    world.ready().await;
    let bytes = attestation("1", vec![]).compact();
    let accepted = world.push(bytes).await.unwrap();
    let (id, _) = accepted.plan.deliveries().next().unwrap();
    let at = Delivery::at(&ORGANIZATION, &id);
    // After a roll-back: a step that has a row was recorded again in the delivery's.
    let step = Step {
        organization: ORGANIZATION.clone(),
        delivery: id,
        name: "attestation".into(),
        receipt: json!({ "status": 202 }),
        created_at: accepted.plan.created_at,
    };
    let step = rows::insert(&world.memory, &step).0;
    world.memory.write(vec![step]).await.unwrap();
    let receipt = json!({ "status": 200 });
    rewrite(&world, at.clone(), |item| {
        for (name, value) in Delivery::implied(item) {
            assert_eq!(item.insert(name.clone(), value), None, "{name}");
        }
        item.insert("progress".into(), json!({ "attestation": receipt }));
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
    let row = rows::insert(&world.memory, attempt).0;
    world.memory.write(vec![row]).await.unwrap();
    rewrite(&world, at, |item| {
        assert!(item.remove("last_attempt").is_some());
    })
    .await;
    let (_, again) = world.delivery(&accepted).await;
    let shown = |attempts| serde_json::to_value(attempts).unwrap();
    assert_eq!(shown(&attempts), shown(&again));
}

/// Names as long as people give them, and everything that a delivery to a webhook keeps.
#[tokio::test]
async fn an_ordinary_delivery_is_one_row_of_one_write_unit() {
    let world = World::new();
    world.memory.is_newer.set(false);
    let organization = "northwind-logistics".into();
    let (project, name) = ("payments-gateway", "build-and-release-container");
    let scope = |role| Scope::new(role, &organization);
    let registering = As::function(&world.memory, "registrations");
    let wanted = NewRegistration {
        integration: Webhook::ID.to_owned(),
        name: "security-data-lake".to_owned(),
        description: String::new(),
        inputs: inputs(json!({ "url": world.receiver.url() })),
        id: None,
    };
    register::register(scope(&registering), wanted, act())
        .await
        .unwrap();
    let attaching = As::function(&world.memory, "attachments");
    let wanted = NewAttachment {
        registration: "security-data-lake".to_owned(),
        workflow: selector(&format!("{project}/{name}"), None).unwrap(),
        inputs: Map::new(),
        wait_secs: None,
        allow_duplicate: false,
        id: None,
    };
    attach::attach(scope(&attaching), wanted, act())
        .await
        .unwrap();
    let accepting = Metered::new(&world.memory, "attestations");
    let delivering = Metered::new(&world.memory, "deliver-webhook");
    let workflow = Workflow {
        id: "5f1e9c1e-1111-4222-8333-0123456789ab".into(),
        project: project.into(),
        name: name.into(),
    };
    let bytes = from(&workflow, "1").compact().into();
    let accepted = accept::pushed(Scope::new(&accepting, &organization), bytes, None, tests());
    let accepted = accepted.await.unwrap();
    let records = world.memory.receive(Webhook::ID, 10);
    let until = world.memory.now().plus(Duration::from_mins(2));
    let back = deliver::batch::<Webhook>(&delivering, &world.tools, records, until).await;
    assert!(back.is_empty());
    let (id, _) = accepted.plan.deliveries().next().unwrap();
    let described = deliveries::describe(Scope::new(&world.memory, &organization), &id).await;
    let (delivery, attempts) = described.unwrap().unwrap();
    assert_eq!((delivery.state, attempts.len()), (State::Delivered, 1));
    let partition = Delivery::partition(&organization, &id);
    let of_it = world.memory.rows().into_iter();
    let of_it = of_it.filter(|key| key.partition == partition);
    assert_eq!(of_it.count(), 1, "the attempt is in the delivery's row");
    for platform in [&accepting, &delivering] {
        let bytes = platform.largest_delivery();
        assert!((500..WRITE_BYTES).contains(&bytes), "{bytes} bytes");
    }
}

/// A thousand SBOMs, while the third party refuses once and the function ends once.
#[tokio::test]
async fn a_thousand_steps_are_written_once_each_and_none_is_repeated() {
    const SBOMS: usize = 1_000;
    const REFUSED: usize = 400;
    const CUT_OFF: usize = 700;
    let world = World::with(Receiver::scripted(|before, _| match before {
        // The check at registration comes first.
        REFUSED => Answer::status(503),
        CUT_OFF => Answer::silence(Duration::from_secs(5)),
        _ => Answer::status(200),
    }));
    world.register("hook").await.unwrap();
    world
        .attach_with("hook", json!({ "send_sbom": true }))
        .await;
    let mut materials = Vec::new();
    for number in 0..SBOMS {
        let sbom = format!("{{\"bomFormat\":\"CycloneDX\",\"serialNumber\":\"{number}\"}}");
        let (digest, bytes) = (Digest::of(sbom.as_bytes()), sbom.clone().into_bytes());
        let put = world
            .memory
            .put_object(&ORGANIZATION, &digest, bytes.into());
        put.await.unwrap();
        let (name, file) = (format!("sbom-{number}"), format!("{number}.cdx.json"));
        let kind = MaterialType::SBOM_CYCLONEDX_JSON;
        materials.push(Material::uploaded(&name, kind, &file, digest));
    }
    let bytes = attestation("1", materials).compact();
    let accepted = world.push(bytes).await.unwrap();
    world.memory.writes.set(0);
    world.deliver().await;
    let (delivery, _) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Pending);
    assert_eq!(delivery.progress.len(), REFUSED - 1);
    world.memory.advance(Duration::from_mins(1));
    let records = world.memory.receive(Webhook::ID, 10);
    let until = world.memory.now().plus(Duration::from_mins(15));
    let platform = Metered::new(&world.memory, "deliver-webhook");
    let killed = deliver::batch::<Webhook>(&platform, &world.tools, records, until);
    let is_silent = async {
        while world.receiver.received().len() <= CUT_OFF {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Ends with the future: as a function that is killed between its request and its ledger write.
    match future::select(Box::pin(killed), Box::pin(is_silent)).await {
        Either::Left((back, _)) => panic!("nothing was silent: {back:?}"),
        Either::Right(((), killed)) => drop(killed),
    }
    let largest = platform.largest_delivery();
    assert!(largest < 2 * WRITE_BYTES, "{largest} bytes");
    let partition = Delivery::partition(&ORGANIZATION, &delivery.id);
    let steps = rows::load_all::<Step>(&world.memory, &partition, Step::PREFIX);
    let steps = steps.await.unwrap();
    let expiry = |key: &Key| world.memory.look(key, |item| item["expires_at"].as_u64());
    assert!(steps.iter().all(|step| expiry(&step.row.key()).is_some()));
    while world.delivery(&accepted).await.0.state != State::Delivered {
        world.pass(Duration::from_mins(1)).await;
        let late = world.memory.now().since(delivery.created_at);
        assert!(late < Duration::from_hours(1));
    }
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    for request in world.receiver.deliveries() {
        let id = request.header("webhook-id").unwrap();
        *sent.entry(id.to_owned()).or_default() += 1;
    }
    let repeated = sent.values().filter(|count| **count > 1).count();
    // The attestation is a step, too.
    assert_eq!(
        (sent.len(), repeated),
        (SBOMS + 1, 2),
        "refused, and cut off"
    );
    let kept = rows::load_all::<Step>(&world.memory, &partition, Step::PREFIX);
    let kept = kept.await.unwrap().len();
    assert!((SBOMS - 10..=SBOMS).contains(&kept), "{kept} rows of steps");
    let (_, attempts) = world.delivery(&accepted).await;
    let endings: Vec<_> = attempts.iter().map(|one| one.report.ending).collect();
    let (retryable, crashed) = (AttemptOutcome::Retryable, AttemptOutcome::Crashed);
    assert_eq!(endings, [retryable, crashed, AttemptOutcome::Delivered]);
    // A step is its row, and the check of its delivery.
    let writes = world.memory.writes.get() as usize;
    assert!(writes < 2 * (SBOMS + 1) + 50, "{writes} writes");
    world.audit(&accepted).await;
}

/// The ledger has to know of each send: otherwise it is made twice.
#[tokio::test]
async fn a_record_that_the_table_refuses_is_written_once_it_takes_it() {
    let world = World::new();
    world.ready().await;
    let before = world.receiver.deliveries().len();
    let bytes = attestation("1", vec![]).compact();
    let accepted = world.push(bytes).await.unwrap();
    // The claim is written.
    world.memory.fail_writes_after.set(Some(1));
    let began = world.memory.now();
    let recovering = async {
        for _ in 0..100_000 {
            if world.memory.now() > began {
                break;
            }
            tokio::task::yield_now().await;
        }
        world.memory.fail_writes_after.set(None);
    };
    future::join(world.deliver(), recovering).await;
    let (delivered, attempts) = world.delivery(&accepted).await;
    assert_eq!(delivered.state, State::Delivered);
    assert_eq!(attempts.len(), 1);
    assert_eq!(world.receiver.deliveries().len(), before + 1);
}

/// The function ends at a time, whatever the table does.
#[tokio::test]
async fn a_record_that_the_table_refuses_to_the_end_is_left_to_the_reconciler() {
    let world = World::new();
    world.ready().await;
    let bytes = attestation("1", vec![]).compact();
    let accepted = world.push(bytes).await.unwrap();
    world.memory.fail_writes_after.set(Some(1));
    let began = world.memory.now();
    let records = world.memory.receive(Webhook::ID, 10);
    let role = As::delivering::<Webhook>(&world.memory);
    let until = began.plus(SECOND * 130);
    let back = deliver::batch::<Webhook>(&role, &world.tools, records, until).await;
    assert_eq!(back.len(), 1, "its queue hands it over again");
    let took = world.memory.now().since(began);
    assert!((SECOND..SECOND * 120).contains(&took), "{took:?}");
    world.memory.fail_writes_after.set(None);
    let (row, _) = world.delivery(&accepted).await;
    assert_eq!(row.state, State::Delivering);
}
