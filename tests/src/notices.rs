//! What operators are told of, over memory: which events, how many messages, and what is in them.

use std::time::Duration;

use api::{Role, Timestamp};
use integrations::Integration;
use integrations::webhook::Webhook;
use pipeline::Platform;
use pipeline::engine::{deliver, pauses, reconcile};
use pipeline::ledger::schedule;
use pipeline::records::notices::EVERY;
use pipeline::store::counts::{About, Metric};
use pipeline::store::rows;
use serde_json::{Value, json};

use crate::asking::ask;
use crate::receiver::{Answer, Receiver};
use crate::signatures::{made, policy};
use crate::world::{ORGANIZATION, WORKFLOW, World, act, attestation, scope};

const MINUTE: Duration = Duration::from_mins(1);

/// Seconds of a day.
const DAY: u64 = 86_400;

/// A receiver that takes the test of its registration, and answers deliveries so.
fn answering(status: u16) -> Receiver {
    Receiver::scripted(move |before, _| Answer::status(if before == 0 { 200 } else { status }))
}

/// What was told since the last time.
fn told(world: &World) -> Vec<Value> {
    let told = world.memory.announced.take().into_iter();
    told.map(|announcement| announcement.detail).collect()
}

fn events(told: &[Value]) -> Vec<(&str, u64)> {
    let events = told.iter();
    events
        .map(|one| {
            (
                one["event"].as_str().unwrap(),
                one["count"].as_u64().unwrap(),
            )
        })
        .collect()
}

async fn push(world: &World, runs: std::ops::Range<u32>) {
    for run in runs {
        let envelope = attestation(&run.to_string(), vec![]);
        world.push(envelope.compact()).await.unwrap();
    }
    world.deliver().await;
}

#[tokio::test]
async fn deliveries_that_fail_are_one_message_in_five_minutes_with_their_number() {
    let world = World::with(answering(400));
    let attachment = world.ready().await;
    push(&world, 0..7).await;
    assert!(told(&world).is_empty(), "the reconciler tells");
    world.reconcile().await;
    let first = told(&world);
    assert_eq!(events(&first), [("delivery-failed", 7)]);
    let subject = json!({
        "id": attachment.registration, "name": "hook", "integration": Webhook::ID,
    });
    assert_eq!(first[0]["subject"], subject);
    let why = first[0]["detail"].as_str().unwrap();
    assert!(why.contains("400"), "{why}");
    let summary = first[0]["summary"].as_str().unwrap();
    let begins = format!("{}: 7 deliveries to hook failed since ", *ORGANIZATION);
    assert!(
        summary.starts_with(&begins) && summary.ends_with(why),
        "{summary}"
    );
    // A minute later there are more, and a message is not due.
    world.memory.advance(MINUTE);
    push(&world, 7..10).await;
    world.reconcile().await;
    assert!(told(&world).is_empty());
    world.memory.advance(EVERY);
    world.reconcile().await;
    assert_eq!(events(&told(&world)), [("delivery-failed", 3)]);
    // Then nothing happens, and nothing is told.
    world.memory.advance(EVERY);
    world.reconcile().await;
    assert!(told(&world).is_empty());
}

#[tokio::test]
async fn a_failure_whose_record_lost_its_answer_is_told_of() {
    let world = World::with(answering(400));
    world.ready().await;
    let envelope = attestation("1", vec![]);
    world.push(envelope.compact()).await.unwrap();
    // That of the claim arrives.
    world.memory.loses_answer_after.set(Some(1));
    world.deliver().await;
    assert_eq!(world.memory.loses_answer_after.get(), None);
    world.reconcile().await;
    assert_eq!(events(&told(&world)), [("delivery-failed", 1)]);
}

#[tokio::test]
async fn a_message_that_cannot_be_sent_is_sent_later() {
    let world = World::with(answering(400));
    world.ready().await;
    push(&world, 0..1).await;
    world.memory.fail_sends.set(true);
    assert!(world.reconcile().await.left > 0);
    world.memory.fail_sends.set(false);
    world.memory.advance(MINUTE);
    world.reconcile().await;
    assert_eq!(events(&told(&world)), [("delivery-failed", 1)]);
}

#[tokio::test]
async fn an_event_bus_that_hangs_holds_up_no_delivery() {
    const MANY: usize = 40;
    let world = World::new();
    let attachment = world.ready().await;
    for run in 0..MANY {
        let envelope = attestation(&run.to_string(), vec![]);
        world.push(envelope.compact()).await.unwrap();
        let now = world.memory.now();
        let notice = rows::Notice {
            organization: ORGANIZATION.clone(),
            event: rows::Event::DeliveryFailed,
            subject: format!("{run:02x}-{}", attachment.registration),
            name: String::new(),
            detail: String::new(),
            delivery: None,
            count: 1,
            since: now,
            until: now,
            sent_at: None,
            wake_at: Some(now),
        };
        let write = rows::insert(&world.memory, &notice).0;
        world.memory.write(vec![write]).await.unwrap();
    }
    // Their messages were lost.
    while !world.memory.receive(Webhook::ID, 10).is_empty() {}
    world.memory.advance(schedule::RESEND);
    world.memory.telling_takes.set(Duration::from_secs(8));
    let report = world.reconcile().await;
    assert_eq!(report.sent, MANY);
    assert!(
        (1..MANY).contains(&told(&world).len()),
        "the rest is told later"
    );
    world.memory.telling_takes.set(Duration::ZERO);
    world.reconcile().await;
    assert_eq!(report.left, told(&world).len());
}

#[tokio::test]
async fn a_destination_that_is_down_is_told_once_and_again_when_it_answers() {
    let world = World::with(Receiver::scripted(|before, _| {
        Answer::status(if (1..7).contains(&before) { 503 } else { 200 })
    }));
    world.ready().await;
    push(&world, 0..5).await;
    world.reconcile().await;
    let first = told(&world);
    assert_eq!(events(&first), [("circuit-open", 1)]);
    let why = first[0]["detail"].as_str().unwrap();
    assert!(why.contains("503"), "{why}");
    world.pass(Duration::from_hours(1)).await;
    assert_eq!(events(&told(&world)), [("circuit-closed", 1)]);
}

#[tokio::test]
async fn a_delivery_whose_attempts_are_over_is_told_apart_from_one_that_is_refused() {
    let world = World::with(answering(500));
    world.ready().await;
    push(&world, 0..1).await;
    world.pass(2 * schedule::FAILING).await;
    // Nothing got through for a day.
    let paused = told(&world);
    assert!(
        events(&paused).contains(&("registration-paused", 1)),
        "{paused:?}"
    );
    world.memory.advance(schedule::PAUSE_LONGEST + MINUTE);
    let until = world.memory.now().plus(MINUTE);
    let _ = world.memory.meter.counts.take();
    reconcile::reconcile(&world.memory, until).await.unwrap();
    // No attempt ended, and the alarm on failed deliveries looks at this.
    let counted = world.memory.meter.counts.take();
    let counts: Vec<_> = counted.values().map(|numbers| &numbers.counts).collect();
    assert_eq!(counts, [&[(Metric::Failed, 1)].into()]);
    world.pass(MINUTE * 2).await;
    let over = told(&world);
    assert_eq!(events(&over), [("retries-exhausted", 1)]);
}

#[tokio::test]
async fn a_pause_and_its_end_are_told_with_who_it_was() {
    let world = World::new();
    world.ready().await;
    pauses::pause(scope(&world.memory), "hook", "maintenance", Some(act()))
        .await
        .unwrap();
    world.reconcile().await;
    let paused = told(&world);
    assert_eq!(events(&paused), [("registration-paused", 1)]);
    assert_eq!(paused[0]["detail"], "by tests: maintenance");
    pauses::resume(scope(&world.memory), "hook", 10, act(), None)
        .await
        .unwrap();
    world.reconcile().await;
    let resumed = told(&world);
    assert_eq!(events(&resumed), [("registration-resumed", 1)]);
    assert_eq!(resumed[0]["detail"], "tests");
}

async fn token(world: &World, name: &str, secs: u64) {
    let body = json!({ "name": name, "role": "viewer", "expires_in_secs": secs });
    let made = ask(&world.memory, Role::Admin, "POST /v1/tokens", &[], body).await;
    assert_eq!(made.status, 201, "{}", made.body);
}

#[tokio::test]
async fn what_ends_is_told_in_time_and_what_was_revoked_is_not() {
    let world = World::new();
    token(&world, "long", 90 * DAY).await;
    token(&world, "short", 4 * DAY).await;
    token(&world, "revoked", 4 * DAY).await;
    let route = "DELETE /v1/tokens/{token}";
    let revoked = ask(
        &world.memory,
        Role::Admin,
        route,
        &[("token", "revoked")],
        Value::Null,
    );
    assert_eq!(revoked.await.status, 200);
    let wait = |days: u64| {
        world
            .memory
            .advance(Duration::from_secs(days * DAY) + MINUTE);
        world.reconcile()
    };
    wait(2).await;
    assert!(told(&world).is_empty());
    wait(1).await;
    let short = told(&world);
    assert_eq!(events(&short), [("token-expiring", 1)]);
    assert_eq!(short[0]["subject"]["name"], "short");
    wait(79).await;
    assert!(told(&world).is_empty());
    wait(1).await;
    let long = told(&world);
    assert_eq!(long[0]["subject"]["name"], "long");
    assert!(told(&world).is_empty(), "once");
}

#[tokio::test]
async fn a_rotated_tokens_end_is_told_of_once_and_in_its_time() {
    let world = World::new();
    token(&world, "ci", 40 * DAY).await;
    world.memory.advance(Duration::from_secs(20 * DAY));
    let route = "POST /v1/tokens/{token}/rotate";
    let parameters = [("token", "ci")];
    let rotated = ask(&world.memory, Role::Admin, route, &parameters, json!({})).await;
    assert_eq!(rotated.status, 201, "{}", rotated.body);
    // The first text would have ended now.
    world.memory.advance(Duration::from_secs(19 * DAY));
    world.reconcile().await;
    assert!(told(&world).is_empty());
    world.memory.advance(Duration::from_secs(15 * DAY));
    world.reconcile().await;
    let told = told(&world);
    assert_eq!(events(&told), [("token-expiring", 1)]);
    assert_eq!(told[0]["subject"]["id"], rotated.body["id"]);
}

#[tokio::test]
async fn an_intakes_end_is_told_of_the_url_that_it_has() {
    let world = World::new();
    let body = json!({ "name": "production", "expires_in_secs": 40 * DAY });
    let opened = ask(&world.memory, Role::Admin, "POST /v1/intakes", &[], body).await;
    assert_eq!(opened.status, 201, "{}", opened.body);
    world.memory.advance(Duration::from_secs(20 * DAY));
    let rotate = "POST /v1/intakes/{intake}/rotate";
    let parameters = [("intake", "production")];
    let rotated = ask(&world.memory, Role::Admin, rotate, &parameters, json!({})).await;
    assert!(rotated.status < 300, "{}", rotated.body);
    // The first URL would have ended now.
    world.memory.advance(Duration::from_secs(19 * DAY));
    world.reconcile().await;
    assert!(told(&world).is_empty());
    world.memory.advance(Duration::from_secs(15 * DAY));
    world.reconcile().await;
    assert_eq!(events(&told(&world)), [("intake-expiring", 1)]);
    let delete = "DELETE /v1/intakes/{intake}";
    let deleted = ask(&world.memory, Role::Admin, delete, &parameters, Value::Null).await;
    assert_eq!(deleted.status, 200);
    let is_left = |key: &pipeline::store::platform::Key| key.sort.starts_with("notice/intake");
    assert!(!world.memory.rows().iter().any(is_left));
}

/// A registration, an intake and a trust policy that trust a control plane's own authority.
async fn trusting(world: &World, pem: &str) {
    let asked = async |route: &str, body: Value| {
        let made = ask(&world.memory, Role::Admin, route, &[], body).await;
        assert_eq!(made.status, 201, "{route}: {}", made.body);
    };
    let one_line = pem.replace('\n', "\\n");
    asked(
        "POST /v1/registrations",
        json!({
            "integration": Webhook::ID, "name": "hook",
            "inputs": { "url": world.receiver.url(), "ca_certificates": one_line },
        }),
    )
    .await;
    asked(
        "POST /v1/intakes",
        json!({
            "name": "production", "cas_url": "https://cas.example.org", "cas_token": "canary",
            "cas_ca_certificates": pem,
        }),
    )
    .await;
    let signer = json!({
        "kind": "chainloop", "name": "plane", "ca_pem": pem, "organization": authority::ORGANIZATION,
    });
    let wanted = policy("release", WORKFLOW, "warn", &[signer]);
    made(&world.memory, wanted).await;
}

fn certificates(world: &World) -> usize {
    let rows = world.memory.rows();
    let kept = rows
        .iter()
        .filter(|key| key.sort.starts_with("certificate/"));
    kept.count()
}

/// Days until the authority ends, which is valid to the end of 2039.
fn days_left(world: &World) -> u64 {
    let end: Timestamp = "2040-01-01T00:00:00Z".parse().unwrap();
    end.since(world.memory.now()).as_secs() / DAY
}

#[tokio::test]
async fn a_certificates_end_is_told_of_to_whoever_trusts_it() {
    let world = World::new();
    trusting(&world, &authority::Authority::new(1).pem).await;
    let wait = |days: u64| {
        world.memory.advance(Duration::from_secs(days * DAY));
        world.reconcile()
    };
    wait(days_left(&world) - 31).await;
    assert!(told(&world).is_empty());
    wait(2).await;
    let told = told(&world);
    assert_eq!(events(&told), [("certificate-expiring", 1); 3]);
    let mut names: Vec<&str> = told
        .iter()
        .map(|one| one["subject"]["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["hook", "production", "release"]);
    let hook = told.iter().find(|one| one["subject"]["name"] == "hook");
    let hook = hook.unwrap();
    assert_eq!(hook["subject"]["integration"], Webhook::ID);
    let summary = format!(
        "{}: a certificate that hook trusts ends at 2040-01-01T00:00:00.000Z",
        *ORGANIZATION
    );
    assert_eq!(hook["summary"], summary);
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_any_more_is_not_told_of() {
    let world = World::new();
    let pem = authority::Authority::new(1).pem;
    trusting(&world, &pem).await;
    assert_eq!(certificates(&world), 3);
    let asked = async |route: &str, parameter, body| {
        let answer = ask(&world.memory, Role::Admin, route, &[parameter], body).await;
        assert_eq!(answer.status, 200, "{route}: {}", answer.body);
    };
    let hook = ("registration", "hook");
    let change = "PATCH /v1/registrations/{registration}";
    let inputs =
        |pem: Value| json!({ "inputs": { "url": world.receiver.url(), "ca_certificates": pem } });
    asked(change, hook, inputs(Value::Null)).await;
    assert_eq!(certificates(&world), 2);
    asked(change, hook, inputs(json!(pem))).await;
    assert_eq!(certificates(&world), 3);
    let policy = ("policy", "release");
    let body = json!({ "mode": "off", "signers": [] });
    asked("PUT /v1/trust-policies/{policy}", policy, body).await;
    assert_eq!(certificates(&world), 2);
    let delete = "DELETE /v1/registrations/{registration}";
    asked(delete, hook, Value::Null).await;
    assert_eq!(certificates(&world), 1);
    let intake = ("intake", "production");
    asked("DELETE /v1/intakes/{intake}", intake, Value::Null).await;
    assert_eq!(certificates(&world), 0);
    world
        .memory
        .advance(Duration::from_secs(days_left(&world) * DAY));
    world.reconcile().await;
    assert!(told(&world).is_empty());
}

#[tokio::test]
async fn a_quota_that_is_nearly_used_up_is_told_once_a_day() {
    let mut world = World::new();
    world.memory.meter.quotas.attestations = 10;
    push(&world, 0..8).await;
    world.reconcile().await;
    assert!(told(&world).is_empty());
    push(&world, 8..10).await;
    world.reconcile().await;
    let near = told(&world);
    assert_eq!(events(&near), [("quota-near", 1)]);
    let summary = format!("{}: 8 of 10 attestations are used today", *ORGANIZATION);
    assert_eq!(near[0]["summary"], summary);
}

#[tokio::test]
async fn what_became_of_deliveries_is_counted_by_their_registration() {
    let world = World::with(Receiver::scripted(|before, _| {
        Answer::status([200, 200, 429, 403][before])
    }));
    let attachment = world.ready().await;
    for run in 0..3 {
        let envelope = attestation(&run.to_string(), vec![]);
        world.push(envelope.compact()).await.unwrap();
    }
    let records = world.memory.receive(Webhook::ID, 10);
    let until = world.memory.now().plus(Duration::from_mins(15));
    deliver::batch::<Webhook>(&world.memory, &world.tools, records, until).await;
    let mut counted = world.memory.meter.counts.take();
    let about = About {
        integration: Webhook::ID.to_owned(),
        registration: attachment.registration.to_string(),
    };
    let numbers = counted.remove(&about).unwrap();
    let expected = [
        (Metric::Delivered, 1),
        (Metric::Failed, 1),
        (Metric::Retried, 1),
        (Metric::Unauthorized, 1),
        (Metric::RateLimited, 1),
    ];
    assert_eq!(numbers.counts, expected.into());
    assert_eq!(numbers.durations_ms.len(), 3);
    assert!(counted.is_empty(), "{counted:?}");
    assert!(
        world.memory.meter.counts.take().is_empty(),
        "they are handed over once"
    );
}
