//! Calls to AWS of what is done often, and how many of them wait for each other. Each call costs as much as reading 2 MB.

use std::time::Duration;

use api::workflows::Workflow;
use integrations::Integration as _;
use integrations::webhook::Webhook;
use pipeline::Platform as _;
use pipeline::engine::deliveries::{self, Filter, Wanted};
use pipeline::engine::{accept, deliver, reconcile};
use pipeline::ledger::schedule;

use crate::audited::from;
use crate::cost::metered::Metered;
use crate::world::{WORKFLOW, World, scope, tests};

const ID: &str = "6f0c1f0e-0000-4000-8000-000000000001";

/// Pushes an attestation whose workflow has an ID and names: four selectors may be attached to.
async fn push(world: &World, run: &str) -> (usize, usize) {
    let (project, name) = WORKFLOW.split_once('/').unwrap();
    let workflow = Workflow {
        id: ID.into(),
        project: project.into(),
        name: name.into(),
    };
    let platform = Metered::with_depth(&world.memory, "attestations");
    let bytes = from(&workflow, run).compact().into();
    let accepted = accept::pushed(scope(&platform), bytes, None, tests());
    accepted.await.unwrap();
    platform.calls()
}

async fn deliver(world: &World) -> (usize, usize) {
    let platform = Metered::with_depth(&world.memory, "deliver-webhook");
    let records = world.memory.receive(Webhook::ID, 10);
    let until = world.memory.now().plus(Duration::from_mins(2));
    let back = deliver::batch::<Webhook>(&platform, &world.tools, records, until).await;
    assert!(back.is_empty(), "{back:?}");
    platform.calls()
}

#[tokio::test]
async fn accepting_takes_few_calls_that_wait_for_each_other() {
    let world = World::new();
    world.ready().await;
    for _ in 1..3 {
        world.attach("hook").await;
    }
    // What there is, the links of four selectors, the bytes, a transaction, the messages, the day's count; and a workflow that
    // is new.
    assert_eq!(push(&world, "1").await, (10, 4));
    assert_eq!(push(&world, "2").await, (9, 4));
    // It was there already: the bytes are seen to, and nothing is written.
    assert_eq!(push(&world, "2").await, (6, 2));
}

#[tokio::test]
async fn delivering_takes_few_calls_that_wait_for_each_other() {
    let world = World::new();
    world.ready().await;
    push(&world, "1").await;
    // The delivery, its claim, its rows and the secret and the bytes, and the outcome.
    assert_eq!(deliver(&world).await, (6, 4));
    push(&world, "2").await;
    // With the secret that is remembered: this is another environment, and the same tools.
    assert_eq!(deliver(&world).await, (5, 4));
}

#[tokio::test]
async fn a_batch_reads_its_deliveries_and_their_secret_once() {
    let world = World::new();
    world.ready().await;
    for run in 0..10 {
        push(&world, &run.to_string()).await;
    }
    let (calls, _) = deliver(&world).await;
    assert_eq!(calls, 1 + 1 + 10 * 4);
    let sent = world.receiver.deliveries();
    assert_eq!(sent.len(), 10);
}

/// Ten that wait one after the other for what hangs would have no time left, and their destination would look silent.
#[tokio::test]
async fn what_the_first_of_a_batch_cannot_read_the_others_do_not_ask_for_again() {
    let world = World::new();
    world.ready().await;
    for run in 0..10 {
        push(&world, &run.to_string()).await;
    }
    world.memory.fail_secrets.set(true);
    let platform = Metered::with_depth(&world.memory, "deliver-webhook");
    let records = world.memory.receive(Webhook::ID, 10);
    let until = world.memory.now().plus(Duration::from_mins(3));
    deliver::batch::<Webhook>(&platform, &world.tools, records, until).await;
    let asked = platform.units().secrets;
    assert!((asked - 1.0).abs() < 0.5, "{asked}");
    assert!(world.receiver.deliveries().is_empty());
}

/// Calls of the last page of deliveries, and of the reconciler, where so many attestations were delivered long ago and the
/// messages of five were lost.
async fn after(done: usize) -> (usize, usize) {
    let world = World::new();
    world.ready().await;
    for run in 0..done {
        push(&world, &run.to_string()).await;
        world.deliver().await;
        world.memory.advance(Duration::from_secs(1));
    }
    let a_look = schedule::UNFINISHED + Duration::from_secs(1);
    world.memory.advance(a_look);
    world.reconcile().await;
    for run in done..done + 5 {
        push(&world, &run.to_string()).await;
        world.memory.advance(Duration::from_millis(1));
    }
    assert_eq!(world.memory.receive(Webhook::ID, 10).len(), 5);
    world.memory.advance(a_look);

    let (mut cursor, mut shown) = (None, 0);
    let listing = loop {
        let platform = Metered::with_depth(&world.memory, "deliveries");
        let (of, wanted) = (Filter::Organization, Wanted::default());
        let page = deliveries::list(scope(&platform), of, &wanted, cursor.as_ref(), 5);
        let (rows, next) = page.await.unwrap();
        shown += rows.len();
        match next {
            Some(next) => cursor = Some(next),
            None => break platform.calls().0,
        }
    };
    assert_eq!(shown, done + 5);
    let platform = Metered::with_depth(&world.memory, "reconciler");
    let until = world.memory.now().plus(Duration::from_mins(1));
    reconcile::reconcile(&platform, until).await.unwrap();
    (listing, platform.calls().0)
}

#[tokio::test]
async fn what_was_delivered_long_ago_takes_no_call_more() {
    assert_eq!(after(20).await, after(1000).await);
}
