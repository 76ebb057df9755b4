//! The way of the data over memory: a real integration, a real receiver, and time that is moved by hand.

use std::collections::BTreeSet;
use std::time::Duration;

use api::deliveries::{AttemptOutcome, State};
use api::workflows::Match;
use api::{DeliveryId, Role};
use attestation::{Digest, compose};
use bytes::Bytes;
use futures_util::FutureExt;
use integrations::Integration;
use integrations::webhook::Webhook;
use pipeline::Platform;
use pipeline::config::{self, register};
use pipeline::engine::deliver::{self, Record};
use pipeline::engine::{accept, reconcile};
use pipeline::ledger::{delivery, schedule};
use pipeline::records::attestations;
use pipeline::store::platform::{Scope, SecretValue};
use pipeline::store::rows::{self, Delivery, Stage};
use pipeline::store::spans::{Kind, Spans};
use serde_json::json;

use crate::asking::{answer, ask, request};
use crate::receiver::{Answer, Receiver, data};
use crate::roles::As;
use crate::world::{ORGANIZATION, SBOM, World, act, attestation, kept, promised_sbom, scope};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn an_attestation_is_delivered_once_and_leaves_a_receipt() {
    let world = World::new();
    world.ready().await;
    let envelope = attestation("1", vec![]);
    let accepted = world.push(envelope.compact()).await.unwrap();
    assert!(!accepted.repeated);
    world.memory.writes.set(0);
    world.deliver().await;
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Delivered);
    assert_eq!(
        (attempts.len(), attempts[0].report.ending),
        (1, AttemptOutcome::Delivered)
    );
    assert!(delivery.receipt.is_some_and(|receipt| !receipt.is_empty()));
    let got = world.receiver.deliveries();
    assert_eq!(got.len(), 1);
    let payload = base64_simd::STANDARD.encode_to_string(&envelope.payload);
    assert_eq!(data(&got[0])["Envelope"]["payload"], payload);
    assert!(
        got[0]
            .header("webhook-signature")
            .is_some_and(|value| value.starts_with("v1,"))
    );
    world.audit(&accepted).await;
    // Claim and completion.
    assert_eq!(world.memory.writes.get(), 2);
}

#[tokio::test]
async fn what_a_filter_keeps_out_is_skipped_with_its_reason_and_waits_for_nothing() {
    let world = World::new();
    world.register("hook").await.unwrap();
    for filter in [
        "environment=prod",
        "workflow.name=nightly, material.type=SBOM_SPDX_JSON",
        "workflow.name=nightly",
    ] {
        let options = json!({ "send_sbom": true, "filter": filter });
        world.attach_with("hook", options).await;
    }
    let envelope = attestation("1", vec![promised_sbom()]);
    let accepted = world.push(envelope.compact()).await.unwrap();
    world.deliver().await;
    let mut found = Vec::new();
    for (id, _) in accepted.plan.deliveries() {
        let described = pipeline::engine::deliveries::describe(scope(&world.memory), &id).await;
        let (delivery, _) = described.unwrap().unwrap();
        found.push((delivery.state, delivery.reason.unwrap_or_default()));
    }
    let waits = found.iter().filter(|(state, _)| *state == State::Pending);
    assert_eq!(waits.count(), 1, "for the SBOM that it wants: {found:?}");
    for condition in ["environment=prod", "material.type=SBOM_SPDX_JSON"] {
        let mut skipped = found.iter().filter(|(state, _)| *state == State::Skipped);
        assert!(
            skipped.any(|(_, reason)| reason.contains(condition)),
            "{condition}: {found:?}"
        );
    }
    assert!(world.receiver.deliveries().is_empty());
}

#[tokio::test]
async fn an_envelope_in_many_forms_is_one_attestation_and_its_row_stays_small() {
    let world = World::new();
    world.ready().await;
    let bytes = attestation("1", vec![]).compact();
    let first = world.push(bytes.clone()).await.unwrap();
    let mut last = first.clone();
    for spaces in 1..=150 {
        let form = [&bytes[..], &vec![b' '; spaces]].concat();
        last = world.push(form).await.unwrap();
        assert!(last.repeated && last.attestation.hash == first.attestation.hash);
    }
    assert_eq!(last.attestation.also.len(), 100);
    for known in &last.attestation.also {
        let found = attestations::find(scope(&world.memory), known)
            .await
            .unwrap();
        assert_eq!(found.unwrap().hash, first.attestation.hash);
    }
    world.deliver().await;
    assert_eq!(world.receiver.deliveries().len(), 1);
    world.audit(&first).await;
}

#[tokio::test]
async fn the_largest_plan_has_room_in_its_row() {
    let world = World::new();
    world.ready().await;
    let accepted = world.push(attestation("1", vec![]).compact()).await;
    let mut plan = accepted.unwrap().plan.clone();
    let ids = integrations::ALL.iter().map(|description| description.id);
    let longest = ids.max_by_key(|id| id.len());
    let mut planned = plan.planned[0].clone();
    planned.integration = longest.unwrap().to_owned();
    planned.matched = Some(Match::Project);
    plan.planned = vec![planned; schedule::PLAN_MOST];
    plan.workflow.name = "a".repeat(512);
    plan.workflow.project = "a".repeat(512);
    plan.generation = 1;
    let (write, _) = rows::insert(&world.memory, &plan);
    world.memory.write(vec![write]).await.unwrap();
}

#[tokio::test]
async fn the_same_attestation_again_gives_the_same_ids_and_sends_nothing_again() {
    let world = World::new();
    world.ready().await;
    let envelope = attestation("1", vec![]);
    let first = world.push(envelope.compact()).await.unwrap();
    world.deliver().await;
    // An attachment made since then needs a backfill: it is not in the plan.
    world.attach("hook").await;
    let again = world.push(envelope.compact()).await.unwrap();
    let bundled = world.push(compose::bundle(&envelope)).await.unwrap();
    let ids = |accepted: &accept::Accepted| -> Vec<DeliveryId> {
        accepted.plan.deliveries().map(|(id, _)| id).collect()
    };
    assert!(again.repeated && bundled.repeated);
    assert_eq!(ids(&first), ids(&again));
    assert_eq!(ids(&first), ids(&bundled));
    world.pass(2 * HOUR).await;
    assert_eq!(world.receiver.deliveries().len(), 1);
}

#[tokio::test]
async fn an_envelope_and_its_bundle_are_one_attestation_and_both_digests_find_it() {
    let world = World::new();
    let envelope = attestation("1", vec![]);
    let bundle = compose::bundle(&envelope);
    world.push(envelope.compact()).await.unwrap();
    world.push(bundle.clone()).await.unwrap();
    for digest in [
        envelope.hash(),
        attestation::Digest::of(&envelope.compact()),
        attestation::Digest::of(&bundle),
    ] {
        let found = attestations::find(scope(&world.memory), &digest)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.hash, envelope.hash());
        let other = attestations::find(Scope::new(&world.memory, &"other".into()), &digest)
            .await
            .unwrap();
        assert!(other.is_none(), "another organization sees nothing");
    }
}

#[tokio::test]
async fn a_503_is_tried_again_on_schedule_and_each_attempt_is_kept() {
    let world = World::with(Receiver::scripted(|before, _| {
        // The check at registration passes, the next two fail.
        Answer::status(if (1..=2).contains(&before) { 503 } else { 200 })
    }));
    world.ready().await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    world.deliver().await;
    let (delivery, _) = world.delivery(&accepted).await;
    assert_eq!((delivery.state, delivery.attempt), (State::Pending, 2));
    assert!(delivery.due_at >= world.memory.now().plus(schedule::RETRIES[0]));
    world.deliver().await;
    assert_eq!(world.receiver.deliveries().len(), 1, "not before it is due");
    world.pass(10 * MINUTE).await;
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Delivered);
    let endings: Vec<_> = attempts
        .iter()
        .map(|attempt| (attempt.report.ending, attempt.report.status))
        .collect();
    assert_eq!(
        endings,
        [
            (AttemptOutcome::Retryable, Some(503)),
            (AttemptOutcome::Retryable, Some(503)),
            (AttemptOutcome::Delivered, Some(200))
        ]
    );
    let sent = world.receiver.deliveries();
    let bytes: Vec<_> = attempts
        .iter()
        .map(|attempt| attempt.report.sent_bytes)
        .collect();
    let received = sent.iter().map(|sent| Some(sent.body.len() as u64));
    assert!(received.eq(bytes));
    let numbers: Vec<_> = sent
        .iter()
        .map(|request| request.header("webhook-attempt"))
        .collect();
    assert_eq!(numbers, [Some("1"), Some("2"), Some("3")]);
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_delivery_that_is_never_accepted_is_given_up_on_after_sixteen_attempts() {
    // Others through the same registration arrive, so that it is neither down nor paused.
    let refused = std::sync::OnceLock::new();
    let world = World::with(Receiver::scripted(move |before, request| {
        let id = request.header("webhook-id").unwrap_or_default().to_owned();
        let is_refused = before > 0 && *refused.get_or_init(|| id.clone()) == id;
        Answer::status(if is_refused { 503 } else { 200 })
    }));
    world.ready().await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    world.deliver().await;
    for day in 0..8 {
        world
            .push(attestation(&format!("of day {day}"), vec![]).compact())
            .await
            .unwrap();
        world.pass(24 * HOUR).await;
    }
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Failed);
    assert_eq!(attempts.len(), 16);
    assert_eq!(world.receiver.deliveries().len(), 16 + 8);
    assert!(
        delivery
            .reason
            .unwrap()
            .starts_with("gave up after 16 attempts")
    );
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_404_fails_at_once_with_its_reason() {
    let world = World::with(Receiver::scripted(|before, _| {
        Answer::status(if before == 0 { 200 } else { 404 })
    }));
    world.ready().await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    world.pass(2 * HOUR).await;
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!((delivery.state, attempts.len()), (State::Failed, 1));
    assert!(delivery.reason.unwrap().contains("404"));
}

#[tokio::test]
async fn copies_of_a_message_lead_to_one_send() {
    let world = World::new();
    world.ready().await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    let records = world.memory.receive(Webhook::ID, 10);
    let copies = records.iter().cycle().take(5).enumerate();
    let copies: Vec<Record> = copies
        .map(|(index, record)| Record {
            id: format!("redriven-{index}"),
            ..record.clone()
        })
        .collect();
    let until = world.memory.now().plus(HOUR);
    let back = deliver::batch::<Webhook>(&world.memory, &world.tools, copies, until).await;
    assert!(back.is_empty());
    assert_eq!(world.receiver.deliveries().len(), 1);
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
}

#[tokio::test]
async fn an_attempt_whose_function_ended_is_found_by_its_lease_and_made_again() {
    let world = World::with(Receiver::scripted(|before, _| match before {
        1 => Answer::silence(Duration::from_secs(5)),
        _ => Answer::status(200),
    }));
    world.ready().await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    let records = world.memory.receive(Webhook::ID, 10);
    let until = world.memory.now().plus(HOUR);
    let killed = deliver::batch::<Webhook>(&world.memory, &world.tools, records, until);
    // Ends with the future: as a function that is killed between its request and its ledger write.
    assert!(
        tokio::time::timeout(Duration::from_secs(2), killed)
            .await
            .is_err()
    );
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivering);
    let deadlines = schedule::Deadlines::of(true);
    let began = world.memory.now();
    while world.delivery(&accepted).await.0.state != State::Delivered {
        world.pass(MINUTE).await;
        assert!(world.memory.now().since(began) <= deadlines.lease + 2 * MINUTE);
    }
    let (_, attempts) = world.delivery(&accepted).await;
    let endings: Vec<_> = attempts
        .iter()
        .map(|attempt| attempt.report.ending)
        .collect();
    assert_eq!(
        endings,
        [AttemptOutcome::Crashed, AttemptOutcome::Delivered]
    );
    // One copy for the send that was in flight, and no more.
    assert_eq!(world.receiver.deliveries().len(), 2);
    world.audit(&accepted).await;
}

#[tokio::test]
async fn what_was_accepted_is_sent_by_the_reconciler_when_the_queue_was_down() {
    let world = World::new();
    world.ready().await;
    world.memory.fail_sends.set(true);
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    world.memory.fail_sends.set(false);
    assert_eq!(world.memory.queued(Webhook::ID), 0);
    world.pass(3 * MINUTE).await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_retry_that_the_reconciler_could_not_send_is_sent_minutes_after_the_queue_is_back() {
    let world = World::with(Receiver::scripted(|before, _| {
        Answer::status(if (1..=5).contains(&before) { 503 } else { 200 })
    }));
    world.ready().await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    // Four retries on, the next one is due in half an hour: the reconciler's to send.
    world.pass(20 * MINUTE).await;
    assert_eq!(world.delivery(&accepted).await.0.attempt, 6);
    world.memory.fail_sends.set(true);
    world.pass(40 * MINUTE).await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Pending);
    world.memory.fail_sends.set(false);
    world.pass(6 * MINUTE).await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
    world.audit(&accepted).await;
}

#[tokio::test]
async fn an_attestation_is_new_again_after_its_time() {
    let world = World::new();
    world.ready().await;
    let envelope = attestation("1", vec![]);
    world.push(envelope.compact()).await.unwrap();
    world.push(compose::bundle(&envelope)).await.unwrap();
    world.deliver().await;
    world.pass(15 * MINUTE).await;
    // The table has not removed the rows yet.
    world.memory.advance(schedule::RETENTION + MINUTE);
    let accepted = world.push(envelope.compact()).await.unwrap();
    assert!(!accepted.repeated);
    world.deliver().await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
    assert_eq!(world.receiver.deliveries().len(), 2);
}

#[tokio::test]
async fn two_hundred_attachments_are_all_delivered_wherever_accepting_is_cut_off() {
    // Two transactions and more of deliveries, between the row and its mark.
    for failing in 0..8 {
        let world = World::new();
        world.register("hook").await.unwrap();
        for _ in 0..200 {
            world.attach("hook").await;
        }
        let envelope = attestation("1", vec![]);
        world.memory.fail_writes_after.set(Some(failing));
        let cut_off = world.push(envelope.compact()).await;
        world.memory.fail_writes_after.set(None);
        let row = attestations::find(scope(&world.memory), &envelope.hash())
            .await
            .unwrap();
        let Some(row) = row else {
            assert!(failing < 2, "nothing was accepted, and the sender knows");
            assert!(matches!(cut_off, Err(accept::Error::Unreachable(_))));
            continue;
        };
        // An attachment made since then is not in the snapshot.
        world.attach("hook").await;
        let plan = async || {
            pipeline::engine::plans::of(&world.memory, &row)
                .await
                .unwrap()
                .remove(0)
                .row
        };
        if plan().await.stage == Stage::Accepting {
            assert_eq!(
                world.memory.queued(Webhook::ID),
                0,
                "nothing is sent before accepted"
            );
        }
        world.pass(15 * MINUTE).await;
        let accepted = accept::Accepted {
            plan: plan().await,
            received: row.received,
            attestation: row.clone(),
            repeated: false,
            missing: vec![],
            awaited: vec![],
        };
        assert_eq!(accepted.plan.stage, Stage::Closed);
        assert_eq!(accepted.plan.planned.len(), 200);
        let ids: BTreeSet<String> = world
            .receiver
            .deliveries()
            .iter()
            .map(|request| request.header("webhook-id").unwrap().to_owned())
            .collect();
        assert_eq!(ids.len(), 200);
        assert_eq!(
            world.receiver.deliveries().len(),
            200,
            "cut off after {failing} writes"
        );
        world.audit(&accepted).await;
    }
}

#[tokio::test]
async fn a_delivery_waits_for_a_promised_material_and_then_takes_it_along() {
    let world = World::new();
    world.register("hook").await.unwrap();
    world
        .attach_with("hook", json!({ "send_sbom": true }))
        .await;
    let accepted = world
        .push(attestation("1", vec![promised_sbom()]).compact())
        .await
        .unwrap();
    let digest = attestation::Digest::of(SBOM);
    assert_eq!(accepted.missing, [digest]);
    world.deliver().await;
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!(
        (delivery.state, delivery.attempt, attempts.len()),
        (State::Pending, 1, 0)
    );
    let reason = format!("waiting for {digest}, which is not uploaded yet");
    assert_eq!(delivery.reason.unwrap(), reason);
    world
        .memory
        .put_object(&ORGANIZATION, &digest, Bytes::from_static(SBOM))
        .await
        .unwrap();
    world.pass(2 * MINUTE).await;
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!((delivery.state, attempts.len()), (State::Delivered, 1));
    let kinds: Vec<_> = world
        .receiver
        .deliveries()
        .iter()
        .map(|request| request.json()["Kind"].clone())
        .collect();
    assert_eq!(kinds, ["ATTESTATION", "SBOM_CYCLONEDX_JSON"]);
}

#[tokio::test]
async fn a_delivery_that_sends_no_sbom_waits_for_none() {
    let world = World::new();
    world.ready().await;
    let accepted = world
        .push(attestation("1", vec![promised_sbom()]).compact())
        .await
        .unwrap();
    world.deliver().await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
}

#[tokio::test]
async fn a_material_that_never_comes_is_named_in_the_receipt_after_fifteen_minutes() {
    let world = World::new();
    world.register("hook").await.unwrap();
    world
        .attach_with("hook", json!({ "send_sbom": true }))
        .await;
    let accepted = world
        .push(attestation("1", vec![promised_sbom()]).compact())
        .await
        .unwrap();
    world.pass(13 * MINUTE).await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Pending);
    world.pass(5 * MINUTE).await;
    let (delivery, _) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Delivered);
    let receipt = serde_json::to_string(&delivery.receipt).unwrap();
    assert!(receipt.contains(r#""missing":["sbom"]"#), "{receipt}");
}

#[tokio::test]
async fn a_retry_repeats_only_what_is_missing() {
    let world = World::with(Receiver::scripted(|before, request| {
        let is_sbom = request.json()["Kind"] == "SBOM_CYCLONEDX_JSON";
        Answer::status(if is_sbom && before < 3 { 503 } else { 200 })
    }));
    world.register("hook").await.unwrap();
    world
        .attach_with("hook", json!({ "send_sbom": true }))
        .await;
    let digest = attestation::Digest::of(SBOM);
    world
        .memory
        .put_object(&ORGANIZATION, &digest, Bytes::from_static(SBOM))
        .await
        .unwrap();
    let accepted = world
        .push(attestation("1", vec![promised_sbom()]).compact())
        .await
        .unwrap();
    world.pass(5 * MINUTE).await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
    let kinds: Vec<_> = world
        .receiver
        .deliveries()
        .iter()
        .map(|request| request.json()["Kind"].clone())
        .collect();
    assert_eq!(
        kinds,
        ["ATTESTATION", "SBOM_CYCLONEDX_JSON", "SBOM_CYCLONEDX_JSON"]
    );
}

#[tokio::test]
async fn a_delivery_whose_attachment_is_gone_is_cancelled_and_nothing_is_sent() {
    let world = World::new();
    let attachment = world.ready().await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    pipeline::config::attach::detach(
        scope(&world.memory),
        &attachment.id,
        &config::Precondition::default(),
        act(),
    )
    .await
    .unwrap();
    world.deliver().await;
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!(
        (delivery.state, attempts[0].report.ending),
        (State::Cancelled, AttemptOutcome::Cancelled)
    );
    assert!(world.receiver.deliveries().is_empty());
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_parked_and_its_batch_goes_on() {
    let world = World::new();
    world.ready().await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    let mut records = world.memory.receive(Webhook::ID, 10);
    for (index, body) in [
        "not json",
        "{}",
        r#"{"v":1,"organization":"a"}"#,
        r#"{"v":9,"from":"a release to come"}"#,
    ]
    .into_iter()
    .enumerate()
    {
        records.insert(
            0,
            Record {
                id: format!("bad-{index}"),
                body: body.into(),
            },
        );
    }
    let until = world.memory.now().plus(HOUR);
    let back = deliver::batch::<Webhook>(
        &As::delivering::<Webhook>(&world.memory),
        &world.tools,
        records,
        until,
    )
    .await;
    // Where the release is that can read it, it may be taken.
    assert_eq!(back, ["bad-3"], "a poison message must not come back");
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
    let parked = world
        .memory
        .list("parked/webhook", "", None, 10)
        .await
        .unwrap();
    assert_eq!(parked.len(), 3);
}

/// Sets an input that this release does not know in the registration's row, or takes it away.
async fn of_the_next_release(world: &World, registration: &api::RegistrationId, is_there: bool) {
    let key = rows::Registration::at(&ORGANIZATION, registration);
    let mut stored = rows::load::<rows::Registration>(&world.memory, &key)
        .await
        .unwrap()
        .unwrap();
    let config = &mut stored.row.config;
    if is_there {
        config.insert("compression".into(), json!("zstd"));
    } else {
        config.remove("compression");
    }
    let write = stored.update(&world.memory).0;
    world.memory.write(vec![write]).await.unwrap();
}

#[tokio::test]
async fn inputs_of_another_release_wait_for_its_function() {
    let world = World::new();
    let attachment = world.ready().await;
    of_the_next_release(&world, &attachment.registration, true).await;
    let envelope = attestation("1", vec![]);
    let accepted = world.push(envelope.compact()).await.unwrap();
    world.deliver().await;
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Pending);
    assert_eq!(attempts[0].report.ending, AttemptOutcome::Retryable);
    let why = "failed to read the registration's inputs: they do not fit this release";
    assert_eq!(delivery.reason.as_deref(), Some(why));
    assert!(world.receiver.deliveries().is_empty());
    of_the_next_release(&world, &attachment.registration, false).await;
    world.pass(HOUR).await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
    world.audit(&accepted).await;
}

#[tokio::test]
async fn a_run_goes_through_all_that_is_due_however_much_it_is() {
    // As those of many attestations, whose messages were lost.
    const MANY: usize = 5_000;
    let world = World::new();
    world.ready().await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    world.memory.advance(schedule::UNFINISHED);
    world.reconcile().await;
    world.memory.receive(Webhook::ID, 10);
    let planned = &accepted.plan.planned[0];
    for number in 0..MANY {
        let id = Digest::of(number.to_string().as_bytes()).hex();
        let now = world.memory.now();
        let row = delivery::begin(&accepted.plan, planned, id.as_str().into(), now);
        let write = rows::insert(&world.memory, &row).0;
        world.memory.write(vec![write]).await.unwrap();
    }
    world.memory.advance(schedule::RESEND);
    let report = world.reconcile().await;
    assert_eq!((report.sent, report.overdue_secs), (MANY + 1, 0));
    assert_eq!(world.memory.queued(Webhook::ID), MANY + 1);
    // Where the time is over, the rest is for the next run.
    world.memory.advance(2 * schedule::RESEND);
    let role = As::function(&world.memory, "reconciler");
    let report = reconcile::reconcile(&role, world.memory.now())
        .await
        .unwrap();
    assert_eq!(report.sent, 0);
    assert!(report.overdue_secs > 0);
}

#[tokio::test]
async fn nothing_is_begun_without_time_for_a_whole_attempt() {
    let world = World::new();
    world.ready().await;
    world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    let records = world.memory.receive(Webhook::ID, 10);
    let until = world.memory.now().plus(Duration::from_secs(119));
    let back = deliver::batch::<Webhook>(&world.memory, &world.tools, records.clone(), until).await;
    assert_eq!(back, [records[0].id.clone()]);
    assert!(world.receiver.deliveries().is_empty());
}

#[tokio::test]
async fn a_ledger_that_cannot_be_reached_gives_the_message_back() {
    let world = World::new();
    world.ready().await;
    world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    let records = world.memory.receive(Webhook::ID, 10);
    world.memory.fail_writes_after.set(Some(0));
    let until = world.memory.now().plus(HOUR);
    let back = deliver::batch::<Webhook>(
        &As::delivering::<Webhook>(&world.memory),
        &world.tools,
        records,
        until,
    )
    .await;
    assert_eq!(back.len(), 1);
    assert!(
        world.receiver.deliveries().is_empty(),
        "nothing is sent without a claim"
    );
}

#[tokio::test]
async fn a_dead_letter_whose_delivery_still_waits_for_it_is_a_crashed_attempt() {
    let world = World::new();
    world.ready().await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    let letters = world.memory.receive(Webhook::ID, 10);
    assert!(
        reconcile::dead_letters(&world.memory, letters.clone())
            .await
            .is_empty()
    );
    world.pass(MINUTE).await;
    let (delivery, attempts) = world.delivery(&accepted).await;
    let endings: Vec<_> = attempts
        .iter()
        .map(|attempt| attempt.report.ending)
        .collect();
    assert_eq!(
        (delivery.state, endings),
        (
            State::Delivered,
            vec![AttemptOutcome::Crashed, AttemptOutcome::Delivered]
        )
    );
    // The same letter again is stale.
    assert!(
        reconcile::dead_letters(&world.memory, letters)
            .await
            .is_empty()
    );
    assert_eq!(world.delivery(&accepted).await.1.len(), 2);
}

#[tokio::test]
async fn a_registration_that_the_third_party_refuses_leaves_no_name_and_no_secret() {
    let world = World::with(Receiver::scripted(|_, _| Answer::status(403)));
    let refused = world.register("hook").await;
    assert!(
        matches!(
            refused,
            Err(config::Error::Refused {
                status: Some(403),
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(world.memory.secret_names(), Vec::<String>::new());
    let rows = kept(&world.memory);
    assert!(rows.is_empty(), "{rows:?}");
}

#[tokio::test]
async fn a_name_that_is_taken_sends_no_test_message() {
    let world = World::new();
    world.register("hook").await.unwrap();
    assert!(matches!(
        world.register("hook").await,
        Err(config::Error::NameTaken(_))
    ));
    assert_eq!(world.receiver.received().len(), 1);
}

#[tokio::test]
async fn a_name_reserved_by_a_registration_that_was_cut_off_is_free_again_after_a_while() {
    let world = World::new();
    // The reservation is written, what follows the check is not, nor is the clean-up.
    world.memory.fail_writes_after.set(Some(1));
    assert!(world.register("hook").await.is_err());
    world.memory.fail_writes_after.set(None);
    assert!(matches!(
        world.register("hook").await,
        Err(config::Error::NameTaken(_))
    ));
    world.memory.advance(schedule::RESERVATION + MINUTE);
    world.register("hook").await.unwrap();
    assert_eq!(world.memory.secret_names().len(), 1);
}

#[tokio::test]
async fn a_function_that_does_not_start_for_a_day_leaves_enough_attempts_for_the_rest_of_the_week()
{
    let world = World::new();
    world.ready().await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    for _ in 0..24 * 4 {
        // Each message is received five times in vain.
        let letters = world.memory.receive(Webhook::ID, 10);
        reconcile::dead_letters(&world.memory, letters).await;
        world.memory.advance(15 * MINUTE);
        world.reconcile().await;
    }
    let (delivery, attempts) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Pending);
    assert!(
        attempts
            .iter()
            .all(|attempt| attempt.report.ending == AttemptOutcome::Crashed)
    );
    assert!((6..=11).contains(&attempts.len()), "{}", attempts.len());
    world.memory.advance(13 * HOUR);
    world.reconcile().await;
    world.memory.advance(MINUTE);
    world.deliver().await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
}

#[tokio::test]
async fn a_reservation_is_cleaned_up_whatever_its_name_is() {
    for name in [
        "delivery",
        "plan",
        "job",
        "registration",
        "followup",
        "hook",
    ] {
        let world = World::new();
        world.memory.fail_writes_after.set(Some(1));
        assert!(world.register(name).await.is_err());
        world.memory.fail_writes_after.set(None);
        world.memory.advance(schedule::RESERVATION + 2 * MINUTE);
        let report = world.reconcile().await;
        assert_eq!((report.others, report.left), (1, 0), "{name}");
        assert_eq!(world.memory.secret_names(), Vec::<String>::new(), "{name}");
    }
}

#[tokio::test]
async fn what_an_update_keeps_for_a_registration_that_goes_meanwhile_goes_too() {
    let world = World::new();
    let row = world.register("hook").await.unwrap();
    let any = config::Precondition::default();
    register::delete(scope(&world.memory), "hook", &any, act())
        .await
        .unwrap();
    // By an update that read it before.
    let value = SecretValue::new("{}".into());
    let secret = row.secret.unwrap();
    world.memory.put_secret(&secret, &value).await.unwrap();
    world.memory.advance(2 * MINUTE);
    world.reconcile().await;
    assert_eq!(world.memory.secret_names(), Vec::<String>::new());
    world.memory.advance(2 * MINUTE);
    assert_eq!(world.reconcile().await.others, 0, "that was the last look");
}

#[tokio::test]
async fn deleting_a_registration_takes_its_attachments_and_its_secret_and_frees_its_name() {
    let world = World::new();
    world.ready().await;
    world.attach("hook").await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    let (_, count) = register::delete(
        scope(&world.memory),
        "hook",
        &config::Precondition::default(),
        act(),
    )
    .await
    .unwrap();
    assert_eq!(count, 2);
    assert_eq!(world.memory.secret_names(), Vec::<String>::new());
    world.deliver().await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Cancelled);
    world.register("hook").await.unwrap();
}

#[tokio::test]
async fn no_secret_reaches_the_table_or_a_queue() {
    let world = World::new();
    world.ready().await;
    world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    let before = world.memory.dump();
    world.deliver().await;
    let everything = before + &world.memory.dump();
    for canary in ["s3cret-path", "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"] {
        assert!(!everything.contains(canary), "{canary}");
    }
    assert_eq!(world.memory.secret_names().len(), 1);
}

#[tokio::test]
async fn a_hundred_identical_posts_at_once_make_one_attestation() {
    let world = World::new();
    world.ready().await;
    let bytes = attestation("1", vec![]).compact();
    let posts = (0..100).map(|_| world.push(bytes.clone()));
    let answers = futures_util::future::join_all(posts).await;
    let ids: BTreeSet<DeliveryId> = answers
        .iter()
        .flat_map(|answer| answer.as_ref().unwrap().plan.deliveries())
        .map(|(id, _)| id)
        .collect();
    assert_eq!(ids.len(), 1);
    world.deliver().await;
    assert_eq!(world.receiver.deliveries().len(), 1);
}

#[test]
fn the_future_of_a_whole_delivery_needs_no_runtime_of_ours() {
    let world = World::new();
    // Memory never waits, so intake finishes at its first poll: nothing in the pipeline spawns or sleeps.
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .now_or_never();
    assert!(accepted.is_some_and(|accepted| accepted.is_ok()));
}

#[tokio::test]
async fn a_delivery_whose_last_attempt_crashed_has_the_functions_memory_to_itself() {
    let world = World::new();
    for name in ["one", "other"] {
        world.register(name).await.unwrap();
        world.attach(name).await;
    }
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    let ids: Vec<DeliveryId> = accepted.plan.deliveries().map(|(id, _)| id).collect();
    for id in &ids {
        let key = Delivery::at(&ORGANIZATION, id);
        let mut stored = rows::load::<Delivery>(&world.memory, &key)
            .await
            .unwrap()
            .unwrap();
        stored.row.crashes = 1;
        let write = stored.update(&world.memory).0;
        world.memory.write(vec![write]).await.unwrap();
    }
    world.deliver().await;
    assert_eq!(world.receiver.deliveries().len(), 1);
    world.memory.advance(Duration::from_secs(15));
    world.deliver().await;
    assert_eq!(world.receiver.deliveries().len(), 2);
    for id in &ids {
        let (delivery, attempts) = pipeline::engine::deliveries::describe(scope(&world.memory), id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((delivery.state, attempts.len()), (State::Delivered, 1));
    }
    world.audit(&accepted).await;
}

/// Pushes as whoever is in this trace, and returns the ID of the one delivery.
async fn push_traced(world: &World, run: &str, trace: &str) -> String {
    let envelope = attestation(run, vec![]).compact();
    let body = serde_json::from_slice(&envelope).unwrap();
    let headers = [("traceparent", trace)];
    let route = "POST /v1/attestations";
    let asked = request(Role::Producer, route, &[], &headers, &body);
    let answer = answer(&world.memory, &asked).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let id = answer.body["deliveries"][0]["id"].as_str();
    id.unwrap().to_owned()
}

/// One trace from the push to the last attempt: each span's parent is another's, or the sender's.
#[tokio::test]
async fn spans_lead_from_the_push_to_each_attempt() {
    let mut world = World::with(Receiver::scripted(|before, _| {
        // The first is the registration's test.
        Answer::status(if before == 1 { 503 } else { 200 })
    }));
    world.memory.meter.spans = Spans::exported();
    world.ready().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    push_traced(&world, "1", &format!("00-{trace}-00f067aa0ba902b7-01")).await;
    world.deliver().await;
    world.pass(MINUTE * 5).await;
    let spans = world.memory.meter.spans.take();
    let shown: Vec<_> = spans
        .iter()
        .map(|span| (span.name.as_str(), span.kind, span.failure.is_some()))
        .collect();
    assert_eq!(
        shown,
        [
            ("POST /v1/attestations", Kind::Server, false),
            ("deliver webhook", Kind::Consumer, true),
            ("deliver webhook", Kind::Consumer, false),
        ]
    );
    assert!(spans.iter().all(|span| span.trace.id() == trace));
    assert_eq!(spans[0].parent.span(), "00f067aa0ba902b7");
    for attempt in &spans[1..] {
        assert_eq!(attempt.parent.span(), spans[0].trace.span());
    }
    let sent = world.receiver.deliveries();
    let sent = sent.iter().map(|sent| sent.header("traceparent").unwrap());
    let attempts = spans[1..].iter().map(|span| span.trace.to_string());
    assert!(sent.eq(attempts));

    // Whoever began the trace does not record it, or there is none.
    push_traced(&world, "2", &format!("00-{trace}-00f067aa0ba902b7-00")).await;
    push_traced(&world, "3", "").await;
    world.deliver().await;
    assert_eq!(world.memory.meter.spans.take(), []);
}

/// From the push to the last request, also of a delivery that somebody asks for later.
#[tokio::test]
async fn the_senders_trace_goes_on_in_what_is_delivered() {
    let world = World::new();
    world.ready().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let push = async |run: &str, given: &str| {
        let id = push_traced(&world, run, given).await;
        world.deliver().await;
        let sent = world.receiver.deliveries().pop().unwrap();
        (sent.header("traceparent").map(str::to_owned), id)
    };
    let given = format!("00-{trace}-00f067aa0ba902b7-01");
    let (sent, delivery) = push("1", &given).await;
    let first = sent.unwrap();
    assert!(first.starts_with(&format!("00-{trace}-")), "{first}");
    let route = "POST /v1/deliveries/{delivery}/redeliver";
    let parameters = [("delivery", delivery.as_str())];
    let again = ask(&world.memory, Role::Operator, route, &parameters, json!({})).await;
    assert!(again.status < 300, "{}", again.body);
    world.deliver().await;
    let again = world.receiver.deliveries().pop().unwrap();
    let again = again.header("traceparent").unwrap().to_owned();
    assert!(again.starts_with(&first[..36]) && again != first, "{again}");
    let (sent, _) = push("2", "whatever").await;
    assert_eq!(sent, None);
}
