//! Operator actions over memory: pause, resume, redeliver, backfill, preview, cancel, rotate.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::JobId;
use api::deliveries::State;
use api::jobs::{Filter, JobKind, JobStatus};
use integrations::Integration;
use integrations::webhook::Webhook;
use pipeline::Platform;
use pipeline::config::check::Previewed;
use pipeline::config::{self, attach, register, update};
use pipeline::engine::deliver::preview::preview;
use pipeline::engine::{accept, audit, deliveries, operations, pauses};
use pipeline::ledger::schedule;
use pipeline::records::jobs;
use pipeline::store::platform::{Etag, Expect};
use pipeline::store::rows::{self, Delivery, Job, Registration};
use serde_json::json;

use crate::receiver::{Answer, Receiver};
use crate::world::{ORGANIZATION, World, act, attestation, inputs, scope};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// A world whose receiver answers what the returned number says.
pub fn answering(status: u16) -> (World, Arc<AtomicU16>) {
    let answer = Arc::new(AtomicU16::new(status));
    let script = Arc::clone(&answer);
    let world = World::with(Receiver::scripted(move |_, _| {
        Answer::status(script.load(Ordering::Relaxed))
    }));
    (world, answer)
}

pub async fn push(world: &World, run: &str) -> accept::Accepted {
    world
        .push(attestation(run, vec![]).compact())
        .await
        .unwrap()
}

async fn registration(world: &World) -> Registration {
    config::find(scope(&world.memory), "hook")
        .await
        .unwrap()
        .row
}

async fn begin(world: &World, work: JobKind) -> Job {
    let mut job = jobs::new(scope(&world.memory), work, 10, "tests");
    job.wake_at = Some(world.memory.now());
    let (write, _) = rows::insert(&world.memory, &job);
    world.memory.write(vec![write]).await.unwrap();
    job
}

async fn job(world: &World, id: &JobId) -> Job {
    jobs::find(scope(&world.memory), id)
        .await
        .unwrap()
        .unwrap()
        .row
}

/// Every delivery of an attestation, oldest plan first.
async fn all(world: &World, accepted: &accept::Accepted) -> Vec<Delivery> {
    let of = deliveries::Filter::Attestation(accepted.attestation.hash);
    let (mut found, _) = deliveries::list(
        scope(&world.memory),
        of,
        &deliveries::Wanted::default(),
        None,
        100,
    )
    .await
    .unwrap();
    found.sort_by_key(|delivery| delivery.generation);
    found
}

#[tokio::test]
async fn what_comes_while_a_registration_is_paused_is_held_and_its_clock_stands_still() {
    let world = World::new();
    world.ready().await;
    pauses::pause(scope(&world.memory), "hook", "maintenance", Some(act()))
        .await
        .unwrap();
    let accepted = push(&world, "1").await;
    world.pass(10 * DAY).await;
    let (held, attempts) = world.delivery(&accepted).await;
    assert_eq!((held.state, attempts.len()), (State::Pending, 0));
    assert!(held.held_at.is_some());
    assert_eq!(
        held.reason.as_deref(),
        Some("its registration is paused: maintenance")
    );
    assert_eq!(world.receiver.deliveries().len(), 0);
    world.audit(&accepted).await;

    let (_, drain) = pauses::resume(scope(&world.memory), "hook", 10, act(), None)
        .await
        .unwrap();
    world.pass(10 * MINUTE).await;
    let (delivery, _) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Delivered);
    assert!(delivery.give_up_at > held.give_up_at.plus(9 * DAY));
    let drain = job(&world, &drain.unwrap().id).await;
    assert_eq!((drain.stand, drain.done), (JobStatus::Done, 1));
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_drain_sends_no_more_in_a_second_than_it_was_told() {
    let world = World::new();
    world.register("hook").await.unwrap();
    for _ in 0..90 {
        world.attach("hook").await;
    }
    pauses::pause(scope(&world.memory), "hook", "", Some(act()))
        .await
        .unwrap();
    push(&world, "1").await;
    world.deliver().await;
    pauses::resume(scope(&world.memory), "hook", 1, act(), None)
        .await
        .unwrap();
    let mut arrived = Vec::new();
    for _ in 0..200 {
        world.memory.advance(Duration::from_secs(1));
        world.reconcile().await;
        world.deliver().await;
        arrived.push(world.receiver.deliveries().len());
    }
    assert_eq!(arrived.last(), Some(&90));
    let most = arrived.windows(11).map(|part| part[10] - part[0]).max();
    assert!(
        most.is_some_and(|most| most <= 12),
        "{most:?} in ten seconds"
    );
}

/// The reason for a pause may be that something cannot be loaded.
#[tokio::test]
async fn what_cannot_be_loaded_is_held_while_its_registration_is_paused() {
    let world = World::new();
    world.ready().await;
    let accepted = push(&world, "1").await;
    world.memory.fail_secrets.set(true);
    pauses::pause(scope(&world.memory), "hook", "no secrets", Some(act()))
        .await
        .unwrap();
    world.pass(10 * DAY).await;
    let (held, attempts) = world.delivery(&accepted).await;
    assert_eq!((held.state, attempts.len()), (State::Pending, 0));
    assert!(held.held_at.is_some());
    world.memory.fail_secrets.set(false);
    pauses::resume(scope(&world.memory), "hook", 10, act(), None)
        .await
        .unwrap();
    world.pass(10 * MINUTE).await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
}

#[tokio::test]
async fn a_pause_of_more_than_thirty_days_gives_up_on_what_it_holds() {
    let world = World::new();
    world.ready().await;
    pauses::pause(scope(&world.memory), "hook", "", Some(act()))
        .await
        .unwrap();
    let accepted = push(&world, "1").await;
    world.pass(schedule::PAUSE_LONGEST + 2 * HOUR).await;
    let (delivery, _) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Failed);
    assert!(delivery.reason.unwrap().starts_with("paused too long"));
    world.audit(&accepted).await;
}

#[tokio::test]
async fn several_pauses_give_up_together_after_thirty_days() {
    let world = World::new();
    world.ready().await;
    let pause = async || {
        let paused = pauses::pause(scope(&world.memory), "hook", "", Some(act()));
        paused.await.unwrap();
    };
    pause().await;
    let accepted = push(&world, "1").await;
    world.pass(20 * DAY).await;
    let slowly = pauses::resume(scope(&world.memory), "hook", 1, act(), None);
    slowly.await.unwrap();
    pause().await;
    world.pass(9 * DAY).await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Pending);
    world.pass(DAY + 2 * HOUR).await;
    let (delivery, _) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Failed);
    assert!(delivery.reason.unwrap().starts_with("paused too long"));
    world.audit(&accepted).await;
}

#[tokio::test]
async fn what_has_no_time_left_to_send_comes_again_unsent() {
    let world = World::new();
    world.ready().await;
    let accepted = push(&world, "1").await;
    let attempt = schedule::Deadlines::of(Webhook::TAKES_LONG).attempt;
    let most = attempt.saturating_sub(Duration::from_secs(8));
    world.memory.reading_takes.set(most);
    world.deliver().await;
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!((delivery.state, attempts.len()), (State::Pending, 0));
    assert_eq!(delivery.reason.unwrap(), "no time was left to send it");
    assert_eq!(world.receiver.deliveries().len(), 0);
    world.memory.reading_takes.set(Duration::ZERO);
    world.pass(MINUTE).await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
    assert_eq!(world.receiver.deliveries().len(), 1);
}

#[tokio::test]
async fn a_registration_that_fails_for_a_day_is_paused_and_one_that_is_gone_at_once() {
    for (status, expected) in [(503, "every attempt failed for 24 hours"), (410, "gone")] {
        let (world, answer) = answering(200);
        world.ready().await;
        answer.store(status, Ordering::Relaxed);
        let accepted = push(&world, "1").await;
        world.pass(DAY + 12 * HOUR).await;
        let paused = registration(&world).await.paused.unwrap();
        assert!(
            paused.by.is_none() && paused.reason.contains(expected),
            "{paused:?}"
        );
        world.audit(&accepted).await;
        answer.store(200, Ordering::Relaxed);
        pauses::resume(scope(&world.memory), "hook", 10, act(), None)
            .await
            .unwrap();
        world.pass(DAY).await;
        let (delivery, _) = world.delivery(&accepted).await;
        let is_dead = status == 410;
        let expected = if is_dead {
            State::Failed
        } else {
            State::Delivered
        };
        assert_eq!(delivery.state, expected);
        assert!(registration(&world).await.paused.is_none());
    }
}

#[tokio::test]
async fn a_destination_that_is_down_is_left_alone() {
    let (world, answer) = answering(200);
    world.register("hook").await.unwrap();
    for _ in 0..90 {
        world.attach("hook").await;
    }
    answer.store(503, Ordering::Relaxed);
    let accepted = push(&world, "1").await;
    world.pass(HOUR).await;
    let sent = world.receiver.deliveries().len();
    // By the schedule alone it would be 90 × 5.
    assert!(
        sent < 120,
        "{sent} requests in an hour to a destination that is down"
    );
    answer.store(200, Ordering::Relaxed);
    world.pass(3 * HOUR).await;
    let states: Vec<State> = all(&world, &accepted)
        .await
        .iter()
        .map(|row| row.state)
        .collect();
    assert_eq!(states, vec![State::Delivered; 90]);
    world.audit(&accepted).await;
}

#[tokio::test]
async fn documents_that_get_500_hold_no_other_back_and_fail_once_others_passed() {
    let is_poison = Arc::new(AtomicBool::new(false));
    let poisons = Arc::clone(&is_poison);
    let poisoned = Mutex::new(BTreeSet::new());
    let world = World::with(Receiver::scripted(move |_, request| {
        let id = request.header("webhook-id").unwrap_or_default().to_owned();
        let mut poisoned = poisoned.lock().unwrap();
        if poisons.load(Ordering::Relaxed) {
            poisoned.insert(id.clone());
        }
        Answer::status(if poisoned.contains(&id) { 500 } else { 200 })
    }));
    world.ready().await;
    is_poison.store(true, Ordering::Relaxed);
    let mut bad = Vec::new();
    for run in 0..12 {
        bad.push(push(&world, &format!("bad {run}")).await);
    }
    world.deliver().await;
    is_poison.store(false, Ordering::Relaxed);
    for minute in 0..40 {
        world.memory.advance(Duration::from_secs(1));
        let good = push(&world, &format!("good {minute}")).await;
        world.deliver().await;
        let (good, _) = world.delivery(&good).await;
        assert_eq!(good.state, State::Delivered, "at once, in minute {minute}");
        world.pass(MINUTE).await;
    }
    for bad in bad {
        let (delivery, attempts) = world.delivery(&bad).await;
        assert_eq!((delivery.state, attempts.len()), (State::Failed, 5));
        let reason = delivery.reason.unwrap();
        assert!(
            reason.ends_with(
                "answered 500 Internal Server Error; 5 times, while others were accepted"
            ),
            "{reason}"
        );
        world.audit(&bad).await;
    }
}

#[tokio::test]
async fn a_destination_that_answers_500_to_everything_is_spared_most_retries_and_loses_nothing() {
    let (world, answer) = answering(200);
    world.register("hook").await.unwrap();
    for _ in 0..90 {
        world.attach("hook").await;
    }
    answer.store(500, Ordering::Relaxed);
    let accepted = push(&world, "1").await;
    world.pass(HOUR).await;
    let sent = world.receiver.deliveries().len();
    // Each once, and a retry a minute; by the schedule alone it would be 90 × 5.
    assert!((90..155).contains(&sent), "{sent} requests in an hour");
    answer.store(200, Ordering::Relaxed);
    world.pass(3 * HOUR).await;
    let rows = all(&world, &accepted).await;
    assert!(rows.iter().all(|row| row.state == State::Delivered));
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_failed_delivery_is_delivered_again_in_a_plan_of_its_own() {
    let (world, answer) = answering(200);
    world.ready().await;
    answer.store(404, Ordering::Relaxed);
    let accepted = push(&world, "1").await;
    world.deliver().await;
    answer.store(200, Ordering::Relaxed);
    let failed = all(&world, &accepted).await.remove(0);
    assert_eq!(failed.state, State::Failed);
    let again = operations::redeliver_for(&world.memory, &failed, None, act())
        .await
        .unwrap();
    world.deliver().await;
    let both = all(&world, &accepted).await;
    let states: Vec<_> = both.iter().map(|row| (row.generation, row.state)).collect();
    assert_eq!(states, [(0, State::Failed), (1, State::Delivered)]);
    assert_eq!(again, both[1].id);
    world.pass(15 * MINUTE).await;
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_waiting_delivery_is_due_at_once_when_it_is_delivered_again() {
    let (world, answer) = answering(200);
    world.ready().await;
    answer.store(503, Ordering::Relaxed);
    let accepted = push(&world, "1").await;
    world.pass(3 * HOUR).await;
    answer.store(200, Ordering::Relaxed);
    let waiting = all(&world, &accepted).await.remove(0);
    assert_eq!(waiting.state, State::Pending);
    operations::redeliver_for(&world.memory, &waiting, None, act())
        .await
        .unwrap();
    world.deliver().await;
    let rows = all(&world, &accepted).await;
    assert_eq!((rows.len(), rows[0].state), (1, State::Delivered));
}

/// Returns the finished job of a dry run of a redelivery.
async fn count(world: &World, filter: Filter) -> Job {
    let work = JobKind::Redeliver { filter };
    let mut counted = jobs::new(scope(&world.memory), work, 10, "tests");
    counted.dry_run = true;
    let (write, _) = rows::insert(&world.memory, &counted);
    world.memory.write(vec![write]).await.unwrap();
    world.reconcile().await;
    let counted = job(world, &counted.id).await;
    assert_eq!(counted.stand, JobStatus::Done);
    counted
}

#[tokio::test]
async fn all_that_match_are_delivered_again_once_and_counted_before() {
    let (world, answer) = answering(200);
    world.ready().await;
    answer.store(404, Ordering::Relaxed);
    let mut accepted = Vec::new();
    for run in 0..30 {
        accepted.push(push(&world, &run.to_string()).await);
        world
            .memory
            .advance(Duration::from_millis(u64::from(run % 3 == 0)));
    }
    world.deliver().await;
    answer.store(200, Ordering::Relaxed);
    let filter = |world: &World| Filter {
        registration: None,
        workflow: None,
        state: State::Failed,
        since: None,
        until: world.memory.now(),
    };
    let before = world.receiver.deliveries().len();

    for expected in [30, 0] {
        let counted = count(&world, filter(&world)).await;
        assert_eq!((counted.done, counted.skipped), (expected, 30 - expected));
        let work = JobKind::Redeliver {
            filter: filter(&world),
        };
        let begun = begin(&world, work).await;
        world.pass(5 * MINUTE).await;
        let done = job(&world, &begun.id).await;
        assert_eq!((done.stand, done.done), (JobStatus::Done, expected));
    }
    assert_eq!(world.receiver.deliveries().len(), before + 30);
    world.pass(15 * MINUTE).await;
    for accepted in accepted {
        world.audit(&accepted).await;
    }
}

#[tokio::test]
async fn a_new_attachment_is_given_what_came_before_it_and_nothing_twice() {
    let world = World::new();
    world.ready().await;
    let mut accepted = Vec::new();
    for run in 0..250 {
        // Many of one moment, as in a migration.
        world
            .memory
            .advance(Duration::from_millis(u64::from(run % 60 == 0)));
        accepted.push(push(&world, &run.to_string()).await);
    }
    world.deliver().await;
    let attachment = world.attach("hook").await;
    // One more since then: it goes to both.
    world.memory.advance(MINUTE);
    accepted.push(push(&world, "since").await);
    world.deliver().await;
    assert_eq!(world.receiver.deliveries().len(), 252);
    for expected in [250, 0] {
        let work = JobKind::Backfill {
            attachment: attachment.id.clone(),
            since: None,
            until: world.memory.now(),
        };
        let begun = begin(&world, work).await;
        world.pass(10 * MINUTE).await;
        let done = job(&world, &begun.id).await;
        assert_eq!(
            (done.stand, done.done, done.seen),
            (JobStatus::Done, expected, 251)
        );
    }
    assert_eq!(world.receiver.deliveries().len(), 252 + 250);
    world.pass(15 * MINUTE).await;
    for accepted in accepted {
        world.audit(&accepted).await;
    }
}

#[tokio::test]
async fn a_preview_has_the_very_bytes_that_are_sent() {
    let world = World::new();
    let attachment = world.ready().await;
    let accepted = push(&world, "1").await;
    let previewed = preview::<Webhook>(
        scope(&world.memory),
        &world.tools.secrets,
        &attachment.id,
        &accepted.attestation.hash,
    )
    .await
    .unwrap();
    assert!(world.receiver.deliveries().is_empty(), "nothing is sent");
    let Previewed::Requests(requests) = previewed else {
        panic!("{previewed:?}");
    };
    world.deliver().await;
    let sent = world.receiver.deliveries();
    assert_eq!((requests.len(), sent.len()), (1, 1));
    assert_eq!(requests[0].digest, attestation::Digest::of(&sent[0].body));
    for name in ["webhook-id", "webhook-attempt"] {
        let shown = requests[0].headers.get(name).map(String::as_str);
        assert!(shown.is_some());
        assert_eq!(shown, sent[0].header(name));
    }
    let text = serde_json::to_string(&requests).unwrap();
    assert!(!text.contains("s3cret-path"), "{text}");
}

#[tokio::test]
async fn a_cancelled_delivery_is_not_sent() {
    let (world, answer) = answering(200);
    world.ready().await;
    answer.store(503, Ordering::Relaxed);
    let accepted = push(&world, "1").await;
    world.deliver().await;
    answer.store(200, Ordering::Relaxed);
    let id = all(&world, &accepted).await.remove(0).id;
    let cancelled = operations::cancel(scope(&world.memory), &id, act())
        .await
        .unwrap();
    assert_eq!(cancelled.reason.as_deref(), Some("cancelled by tests"));
    world.pass(HOUR).await;
    assert_eq!(all(&world, &accepted).await[0].state, State::Cancelled);
    assert_eq!(world.receiver.deliveries().len(), 1);
    let again = operations::cancel(scope(&world.memory), &id, act()).await;
    assert!(matches!(again, Err(operations::Error::Over("cancelled"))));
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_registration_is_tried_out_by_the_way_of_every_delivery() {
    let world = World::new();
    world.register("hook").await.unwrap();
    let hook = registration(&world).await;
    let accepted = operations::test(&world.memory, &hook, inputs(json!({})), None, act())
        .await
        .unwrap();
    assert_eq!(world.memory.queued(Webhook::ID), 1);
    world.deliver().await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
    let attached = config::attachments(scope(&world.memory), &hook.id)
        .await
        .unwrap();
    assert!(attached.is_empty(), "it is attached to nothing");
    let refused = operations::test(
        &world.memory,
        &hook,
        inputs(json!({ "no": 1 })),
        None,
        act(),
    )
    .await;
    assert!(matches!(refused, Err(config::Error::Faults(_))));
    world.pass(15 * MINUTE).await;
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_rotated_secret_is_read_again_when_the_third_party_refuses_the_old_one() {
    // Takes requests at the address that it was rotated to, and answers 401 at the old one from then on.
    let is_rotated = Arc::new(AtomicU16::new(0));
    let script = Arc::clone(&is_rotated);
    let world = World::with(Receiver::scripted(move |_, request| {
        let is_old = !request.path.ends_with("/new-s3cret");
        let refused = is_old && script.load(Ordering::Relaxed) == 1;
        Answer::status(if refused { 401 } else { 200 })
    }));
    world.ready().await;
    push(&world, "1").await;
    world.deliver().await;
    let url = format!("{}/new-s3cret", world.receiver.url());
    let secret = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";
    let lacking = update::rotate(
        scope(&world.memory),
        "hook",
        inputs(json!({ "url": url })),
        act(),
    )
    .await;
    assert!(
        matches!(lacking, Err(config::Error::Faults(_))),
        "all of them or none"
    );
    is_rotated.store(1, Ordering::Relaxed);
    let whole = inputs(json!({ "url": url, "secret": secret }));
    update::rotate(scope(&world.memory), "hook", whole, act())
        .await
        .unwrap();
    let accepted = push(&world, "2").await;
    world.deliver().await;
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!((delivery.state, attempts.len()), (State::Delivered, 1));
}

#[tokio::test]
async fn an_audit_walks_everything_and_names_what_is_missing() {
    let world = World::new();
    world.ready().await;
    let accepted = push(&world, "1").await;
    push(&world, "2").await;
    world.deliver().await;
    world.pass(15 * MINUTE).await;
    let begun = begin(&world, JobKind::Audit).await;
    world.pass(2 * MINUTE).await;
    let clean = job(&world, &begun.id).await;
    assert_eq!(
        (clean.stand, clean.seen, clean.done),
        (JobStatus::Done, 2, 2)
    );
    // A row that is lost, by whatever means.
    let (id, _) = accepted.plan.deliveries().next().unwrap();
    let key = Delivery::at(&ORGANIZATION, &id);
    let stored = rows::load::<Delivery>(&world.memory, &key)
        .await
        .unwrap()
        .unwrap();
    world.memory.write(vec![stored.delete()]).await.unwrap();
    let begun = begin(&world, JobKind::Audit).await;
    world.pass(2 * MINUTE).await;
    let found = job(&world, &begun.id).await;
    assert_eq!(
        found.violations,
        [format!("delivery {id}: planned and not there")]
    );
    let hash = accepted.attestation.hash;
    let violations = audit::attestation(scope(&world.memory), &hash)
        .await
        .unwrap();
    assert_eq!(violations, found.violations);
}

/// As while the event source mapping of its function is switched off.
#[tokio::test]
async fn what_no_function_claims_is_reported_after_ten_minutes_until_one_does() {
    let world = World::new();
    world.ready().await;
    let accepted = push(&world, "1").await;
    let (id, planned) = accepted.plan.deliveries().next().unwrap();
    let mut unclaimed = Vec::new();
    for _ in 0..12 {
        world.memory.advance(MINUTE);
        let report = world.reconcile().await;
        assert_eq!(report.violations, 0);
        unclaimed.push(report.unclaimed);
    }
    assert_eq!(unclaimed[..9], [0; 9]);
    assert_eq!(unclaimed.iter().sum::<usize>(), 1);
    let begun = begin(&world, JobKind::Audit).await;
    world.memory.advance(MINUTE);
    world.reconcile().await;
    let found = job(&world, &begun.id).await;
    assert_eq!((found.skipped, found.violations.len()), (1, 1));
    let function = format!("deliver-{} is switched off", planned.integration);
    let line = &found.violations[0];
    assert!(
        line.starts_with(&format!("delivery {id}: due since ")),
        "{line}"
    );
    assert!(line.contains(&function), "{line}");
    world.deliver().await;
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_job_that_cannot_go_on_says_why_and_ends_after_a_day() {
    let world = World::new();
    world.ready().await;
    let accepted = push(&world, "1").await;
    world.deliver().await;
    world.pass(15 * MINUTE).await;
    let (id, _) = accepted.plan.deliveries().next().unwrap();
    let key = Delivery::at(&ORGANIZATION, &id);
    let mut item = world.memory.look(&key, Clone::clone).unwrap();
    let etag = item["etag"].as_str().unwrap().to_owned();
    // As a version of the system wrote it that this one does not know.
    item.insert("state".into(), "teleported".into());
    let write = pipeline::store::platform::Write::Put {
        key,
        item,
        etag: Etag(etag.clone()),
        expect: Expect::Unchanged(Etag(etag)),
    };
    world.memory.write(vec![write]).await.unwrap();
    let begun = begin(&world, JobKind::Audit).await;
    world.pass(2 * MINUTE).await;
    let tried = job(&world, &begun.id).await;
    let reason = tried.reason.unwrap();
    assert_eq!(tried.stand, JobStatus::Running);
    assert!(
        reason.starts_with("failed to reach the table: unreadable row: unknown variant"),
        "{reason}"
    );
    world.pass(2 * DAY).await;
    let over = job(&world, &begun.id).await;
    assert_eq!(
        (over.stand, over.failures, over.wake_at),
        (JobStatus::Failed, schedule::JOB_TRIES, None)
    );
    assert_eq!(over.reason.unwrap(), reason);
}

#[tokio::test]
async fn an_audit_of_many_attestations_of_one_moment_sees_each_once() {
    let world = World::new();
    world.ready().await;
    for run in 0..350 {
        world
            .memory
            .advance(Duration::from_millis(u64::from(run == 40)));
        push(&world, &run.to_string()).await;
    }
    world.deliver().await;
    world.pass(15 * MINUTE).await;
    let begun = begin(&world, JobKind::Audit).await;
    world.pass(2 * MINUTE).await;
    let clean = job(&world, &begun.id).await;
    assert_eq!(
        (clean.stand, clean.seen, clean.done),
        (JobStatus::Done, 350, 350)
    );
}

#[tokio::test]
async fn a_drain_goes_on_when_somebody_cancels_it() {
    let world = World::new();
    world.ready().await;
    pauses::pause(scope(&world.memory), "hook", "", Some(act()))
        .await
        .unwrap();
    let accepted = push(&world, "1").await;
    world.deliver().await;
    let (_, drain) = pauses::resume(scope(&world.memory), "hook", 10, act(), None)
        .await
        .unwrap();
    let id = drain.unwrap().id;
    let cancelled = jobs::cancel(scope(&world.memory), &id, act())
        .await
        .unwrap();
    assert_eq!(cancelled.unwrap().stand, JobStatus::Running);
    world.pass(10 * MINUTE).await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
}

#[tokio::test]
async fn what_a_drain_lets_go_bit_by_bit_is_not_let_go_by_its_plans() {
    let world = World::new();
    world.ready().await;
    pauses::pause(scope(&world.memory), "hook", "moves", None)
        .await
        .unwrap();
    for run in 0..300 {
        push(&world, &run.to_string()).await;
    }
    world.deliver().await;
    // The plans are looked at after 10 minutes, and after 20 more.
    world.pass(29 * MINUTE).await;
    pauses::resume(scope(&world.memory), "hook", 1, act(), None)
        .await
        .unwrap();
    world.pass(2 * MINUTE).await;
    let sent = world.receiver.deliveries().len();
    assert!((1..=180).contains(&sent), "{sent}");
    world.pass(10 * MINUTE).await;
    assert_eq!(world.receiver.deliveries().len(), 300);
}

#[tokio::test]
async fn what_is_held_and_was_hidden_from_the_drain_is_found_again() {
    let world = World::new();
    world.ready().await;
    pauses::pause(scope(&world.memory), "hook", "moves", None)
        .await
        .unwrap();
    let accepted = push(&world, "1").await;
    world.deliver().await;
    assert!(all(&world, &accepted).await[0].held_at.is_some());
    // Resumed by what saw nothing that is held.
    let key = Registration::at(&ORGANIZATION, &registration(&world).await.id);
    let mut stored = rows::load::<Registration>(&world.memory, &key)
        .await
        .unwrap()
        .unwrap();
    (stored.row.paused, stored.row.wake_at) = (None, None);
    let (write, _) = stored.update(&world.memory);
    world.memory.write(vec![write]).await.unwrap();
    world.pass(DAY).await;
    let delivered = &all(&world, &accepted).await[0];
    assert_eq!(delivered.state, State::Delivered);
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_held_delivery_that_was_cancelled_stays_so() {
    let world = World::new();
    world.ready().await;
    pauses::pause(scope(&world.memory), "hook", "", Some(act()))
        .await
        .unwrap();
    let accepted = push(&world, "1").await;
    world.deliver().await;
    let id = all(&world, &accepted).await.remove(0).id;
    operations::cancel(scope(&world.memory), &id, act())
        .await
        .unwrap();
    pauses::resume(scope(&world.memory), "hook", 10, act(), None)
        .await
        .unwrap();
    world.pass(10 * MINUTE).await;
    assert_eq!(all(&world, &accepted).await[0].state, State::Cancelled);
    assert!(world.receiver.deliveries().is_empty());
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_third_party_that_asks_for_a_week_gets_it_and_nobody_else_waits_so_long() {
    let world = World::with(Receiver::scripted(|before, _| match before {
        1 => Answer::status(429).header("retry-after", 7 * 24 * 3600 - 3600),
        _ => Answer::status(200),
    }));
    world.ready().await;
    push(&world, "1").await;
    world.deliver().await;
    let second = push(&world, "2").await;
    world.pass(3 * HOUR).await;
    assert_eq!(world.delivery(&second).await.0.state, State::Delivered);
}

#[tokio::test]
async fn deliveries_of_a_registration_that_is_gone_are_listed_among_all() {
    let world = World::new();
    let mut wanted = Vec::new();
    for name in ["a", "b", "c"] {
        world.register(name).await.unwrap();
        world.attach(name).await;
        for run in 0..3 {
            let accepted = push(&world, &format!("{name}{run}")).await;
            wanted.extend(accepted.plan.deliveries().map(|(id, _)| id));
            world.deliver().await;
            world.memory.advance(MINUTE);
        }
        if name != "c" {
            let any = config::Precondition::default();
            register::delete(scope(&world.memory), name, &any, act())
                .await
                .unwrap();
        }
    }
    wanted.reverse();
    for limit in 1..=wanted.len() + 1 {
        let mut found = Vec::new();
        let mut cursor = None;
        loop {
            let (of, any) = (
                deliveries::Filter::Organization,
                deliveries::Wanted::default(),
            );
            let page = deliveries::list(scope(&world.memory), of, &any, cursor.as_ref(), limit);
            let (page, next) = page.await.unwrap();
            found.extend(page.into_iter().map(|delivery| delivery.id));
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, wanted, "{limit} at a time");
    }
}

#[tokio::test]
async fn what_a_cut_off_registration_or_deletion_left_is_removed() {
    let world = World::new();
    world.memory.fail_writes_after.set(Some(1));
    assert!(world.register("cut-off").await.is_err());
    world.memory.fail_writes_after.set(None);
    world.pass(10 * MINUTE).await;
    assert_eq!(world.memory.secret_names(), Vec::<String>::new());
    let name = rows::RegistrationName::at(&ORGANIZATION, "cut-off");
    assert!(
        !world.memory.rows().contains(&name),
        "the name is free again"
    );

    world.ready().await;
    world.memory.fail_writes_after.set(Some(1));
    assert!(
        register::delete(
            scope(&world.memory),
            "hook",
            &config::Precondition::default(),
            act()
        )
        .await
        .is_err()
    );
    world.memory.fail_writes_after.set(None);
    world.pass(5 * MINUTE).await;
    assert_eq!(world.memory.secret_names(), Vec::<String>::new());
    let selector = api::workflows::Selector(crate::world::WORKFLOW.into());
    let attached = attach::of_workflow(scope(&world.memory), &selector);
    assert!(attached.await.unwrap().is_empty());
}

#[tokio::test]
async fn a_batch_that_a_queue_refuses_holds_back_no_other() {
    let world = World::new();
    world.register("hook").await.unwrap();
    for _ in 0..25 {
        world.attach("hook").await;
    }
    world.memory.refuse_sends.set(1);
    push(&world, "1").await;
    let sent = |_| world.memory.receive(Webhook::ID, 10).len();
    assert_eq!((0..3).map(sent).sum::<usize>(), 15);
}
