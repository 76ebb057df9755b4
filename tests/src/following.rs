//! The engine's treatment of third parties that work on after accepting, that have places for one at a time, and
//! that limit all registrations together.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use api::attachments::Preview;
use api::deliveries::State;
use integrations::webhook::{Attachment, Registration, Webhook};
use integrations::{
    About, Error, Followed, Host, Http, Integration, Kind, Locked, Outcome, Warnings,
};
use pipeline::Platform;
use pipeline::config::check;
use pipeline::engine::deliver;
use serde_json::{Map, Value, json};

use crate::receipts;
use crate::roles::As;
use crate::world::{ORGANIZATION, World, attestation};

thread_local! {
    static FOLLOWED: RefCell<VecDeque<Result<Followed, Error>>> = const { RefCell::new(VecDeque::new()) };
    /// The notes that were found at the place.
    static NOTES: RefCell<Vec<Value>> = const { RefCell::new(Vec::new()) };
    static IS_BUSY_FOR_ALL: Cell<bool> = const { Cell::new(false) };
    static FAILS_AT_PLACE: Cell<bool> = const { Cell::new(false) };
    /// Something that does not arrive.
    static NOTED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Registered as the webhook is.
struct Importer;

impl Integration for Importer {
    const ID: &'static str = Webhook::ID;
    const VERSION: &'static str = "1";
    const DESCRIPTION: &'static str = "Imports when it has time.";
    const MATERIALS: &'static [attestation::MaterialType] = &[];
    const FOLLOWS: bool = true;
    const SHARES_LIMITS: bool = true;
    type Registration = Registration;
    type Attachment = Attachment;

    async fn register(_: &Http, _: &Registration) -> Result<Warnings, Error> {
        Ok(Warnings::new())
    }

    async fn attach(_: &Http, _: &Registration, _: &Attachment) -> Result<Warnings, Error> {
        Ok(vec!["imports take a while".to_owned()])
    }

    async fn deliver(
        _: &Http,
        host: &dyn Host,
        delivery: &integrations::Delivery<'_, Self>,
    ) -> Result<Outcome, Error> {
        if IS_BUSY_FOR_ALL.get() {
            let after = Some(Duration::from_mins(10));
            return Err(
                Error::new(Kind::Retryable { after }, "post: too many").about(About::Everyone)
            );
        }
        let Locked::Ours(note) = host.lock("project shop").await? else {
            return Ok(Outcome::busy("project shop"));
        };
        NOTES.with_borrow_mut(|notes| notes.push(note));
        // So that others of the batch come meanwhile.
        tokio::task::yield_now().await;
        if FAILS_AT_PLACE.get() {
            return Err(Error::retryable("import"));
        }
        host.unlock(
            "project shop",
            json!({ "last": delivery.pushed.attestation.hash.hex() }),
        )
        .await?;
        let receipt = Map::from_iter([("token".to_owned(), json!("t-1"))]);
        Ok(match NOTED.get() {
            None => Outcome::Delivered(receipt),
            Some(note) => Outcome::PartlyDelivered {
                receipt,
                note: note.to_owned(),
            },
        })
    }

    async fn follow(
        _: &Http,
        _: &Registration,
        receipt: &Map<String, Value>,
    ) -> Result<Followed, Error> {
        assert_eq!(receipt["token"], "t-1");
        let next = FOLLOWED.with_borrow_mut(VecDeque::pop_front);
        next.unwrap_or(Ok(Followed::UnderWay))
    }

    async fn preview(
        _: &dyn Host,
        _: &integrations::Delivery<'_, Self>,
    ) -> Result<Vec<Preview>, Error> {
        Ok(Vec::new())
    }
}

fn over() -> Followed {
    Followed::Over(Map::from_iter([(
        "completion".to_owned(),
        json!("processed"),
    )]))
}

fn say(answers: impl IntoIterator<Item = Result<Followed, Error>>) {
    FOLLOWED.with_borrow_mut(|followed| followed.extend(answers));
}

/// Hands over what is visible now, and says how many messages that were.
async fn deliver(world: &World) -> usize {
    let mut count = 0;
    loop {
        let records = world.memory.receive(Webhook::ID, 10);
        if records.is_empty() {
            return count;
        }
        count += records.len();
        let until = world.memory.now().plus(Duration::from_mins(15));
        let role = As::delivering::<Importer>(&world.memory);
        let back = deliver::batch::<Importer>(&role, &world.tools, records, until).await;
        assert!(back.is_empty(), "{back:?}");
    }
}

async fn pass_seconds(world: &World, secs: u64) {
    for _ in 0..secs {
        world.memory.advance(Duration::from_secs(1));
        deliver(world).await;
    }
}

#[tokio::test]
async fn what_was_accepted_is_followed_until_it_is_over() {
    let world = World::new();
    world.ready().await;
    let envelope = attestation("1", vec![]);
    let accepted = world.push(envelope.compact()).await.unwrap();
    deliver(&world).await;
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Delivered, "accepted is delivered");
    assert_eq!(delivery.receipt.unwrap()["token"], "t-1");
    let ended_at = delivery.updated_at;

    say([Ok(Followed::UnderWay), Ok(Followed::UnderWay), Ok(over())]);
    pass_seconds(&world, 30).await;
    let (delivery, after) = world.delivery(&accepted).await;
    let receipt = delivery.receipt.unwrap();
    assert_eq!(
        (&receipt["token"], &receipt["completion"]),
        (&json!("t-1"), &json!("processed"))
    );
    assert_eq!(after.len(), attempts.len(), "asking is no attempt");
    assert!(delivery.updated_at > ended_at);
    let signed = receipts::receipt(&world, &receipts::id(&accepted)).await;
    let signed = &receipts::statement(&signed)["predicate"]["delivery"];
    assert_eq!(signed["endedAt"], json!(ended_at), "it ended before");
    assert_eq!(signed["receipt"], json!(receipt));
    assert_eq!(world.memory.queued(Webhook::ID), 0, "nobody asks any more");
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_delivery_that_arrived_in_part_is_delivered_and_says_what_did_not() {
    let world = World::new();
    world.ready().await;
    let envelope = attestation("1", vec![]);
    let accepted = world.push(envelope.compact()).await.unwrap();
    NOTED.set(Some("not listed at the project"));
    deliver(&world).await;
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Delivered);
    assert_eq!(
        delivery.reason.as_deref(),
        Some("not listed at the project")
    );
    assert_eq!(
        (attempts.len(), attempts[0].report.detail.as_deref()),
        (1, Some("not listed at the project"))
    );
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_warning_of_the_check_reaches_the_verdict() {
    let world = World::new();
    let attachment = world.ready().await;
    let check = check::Check::Attachment {
        organization: ORGANIZATION.clone(),
        registration: attachment.registration,
        inputs: Map::new(),
    };
    let verdict = check::check::<Importer>(&world.memory, &world.tools.http, check).await;
    let warnings = verdict.unwrap().accepted().unwrap();
    assert_eq!(warnings, ["imports take a while"]);
}

#[tokio::test]
async fn a_lost_question_is_asked_again_by_the_reconciler() {
    let world = World::new();
    world.ready().await;
    let envelope = attestation("1", vec![]);
    let accepted = world.push(envelope.compact()).await.unwrap();
    deliver(&world).await;
    world.memory.advance(Duration::from_secs(5));
    let lost = world.memory.receive(Webhook::ID, 10);
    assert_eq!(lost.len(), 1);

    say([Ok(over())]);
    world.memory.advance(Duration::from_mins(2));
    world.reconcile().await;
    world.memory.advance(Duration::from_secs(5));
    assert_eq!(deliver(&world).await, 1);
    let (delivery, _) = world.delivery(&accepted).await;
    assert_eq!(delivery.receipt.unwrap()["completion"], "processed");
}

#[tokio::test]
async fn after_ten_minutes_the_completion_is_unknown_and_the_delivery_delivered() {
    let world = World::new();
    world.ready().await;
    let envelope = attestation("1", vec![]);
    let accepted = world.push(envelope.compact()).await.unwrap();
    deliver(&world).await;
    say([Err(Error::retryable("ask: answered 503"))]);
    pass_seconds(&world, 11 * 60).await;
    let (delivery, _) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Delivered);
    let receipt = delivery.receipt.unwrap();
    assert_eq!(receipt["completion"], "unknown");
    assert_eq!(
        receipt["completion_reason"],
        "still under way after 10 minutes"
    );
    assert_eq!(world.memory.queued(Webhook::ID), 0);
    world.audit(&accepted).await;
}

#[tokio::test]
async fn an_answer_that_will_not_change_ends_the_asking_with_its_reason() {
    let world = World::new();
    world.ready().await;
    let envelope = attestation("1", vec![]);
    let accepted = world.push(envelope.compact()).await.unwrap();
    deliver(&world).await;
    say([Err(Error::permanent("ask: answered 403 Forbidden"))]);
    pass_seconds(&world, 10).await;
    let receipt = world.delivery(&accepted).await.0.receipt.unwrap();
    assert_eq!(receipt["completion"], "unknown");
    assert_eq!(receipt["completion_reason"], "ask: answered 403 Forbidden");
}

#[tokio::test]
async fn one_delivery_at_a_time_is_at_a_place_and_finds_the_note_of_the_last() {
    let world = World::new();
    // While one is there, the others read the row that it wrote.
    world.memory.is_newer.set(false);
    world.ready().await;
    let mut all = Vec::new();
    for run in ["1", "2", "3"] {
        let envelope = attestation(run, vec![]);
        all.push(world.push(envelope.compact()).await.unwrap());
    }
    say([Ok(over()), Ok(over()), Ok(over())]);
    deliver(&world).await;
    assert_eq!(
        NOTES.with_borrow(Vec::len),
        1,
        "the other two were put off, at no attempt's cost"
    );
    pass_seconds(&world, 30).await;
    let notes = NOTES.take();
    assert_eq!(notes.len(), 3);
    assert_eq!(notes[0], Value::Null);
    assert!(
        notes[1]["last"].is_string() && notes[1] != notes[2],
        "{notes:?}"
    );
    for accepted in &all {
        let (delivery, attempts) = world.delivery(accepted).await;
        assert_eq!((delivery.state, attempts.len()), (State::Delivered, 1));
    }
}

#[tokio::test]
async fn an_attempt_that_fails_lets_go_of_its_place() {
    let world = World::new();
    world.ready().await;
    let envelope = attestation("1", vec![]);
    let accepted = world.push(envelope.compact()).await.unwrap();
    FAILS_AT_PLACE.set(true);
    deliver(&world).await;
    FAILS_AT_PLACE.set(false);
    say([Ok(over())]);
    pass_seconds(&world, 20).await;
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!((delivery.state, attempts.len()), (State::Delivered, 2));
}

#[tokio::test]
async fn a_limit_on_all_of_us_keeps_the_other_registrations_away_too() {
    let world = World::new();
    world.ready().await;
    world.register("other").await.unwrap();
    world.attach("other").await;
    IS_BUSY_FOR_ALL.set(true);
    let envelope = attestation("1", vec![]);
    let accepted = world.push(envelope.compact()).await.unwrap();
    let records = world.memory.receive(Webhook::ID, 1);
    let until = world.memory.now().plus(Duration::from_mins(15));
    deliver::batch::<Importer>(&world.memory, &world.tools, records, until).await;
    IS_BUSY_FOR_ALL.set(false);

    deliver(&world).await;
    assert!(
        NOTES.with_borrow(Vec::is_empty),
        "the other one stayed away"
    );
    say([Ok(over()), Ok(over())]);
    pass_seconds(&world, 9 * 60).await;
    assert!(
        NOTES.with_borrow(Vec::is_empty),
        "for as long as it was told"
    );
    world.pass(Duration::ZERO).await;
    for _ in 0..15 {
        world.reconcile().await;
        pass_seconds(&world, 60).await;
    }
    assert_eq!(NOTES.with_borrow(Vec::len), 2);
    world.audit(&accepted).await;
}
