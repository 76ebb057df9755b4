//! Requests that come again by the same `Idempotency-Key`, over memory: answered once, and made once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use api::deliveries::State;
use api::{DeliveryId, Role};
use integrations::webhook::Webhook;
use memory::Memory;
use pipeline::Platform;
use pipeline::config::check::{self, Check, Verdict};
use pipeline::config::{self, attach, register};
use pipeline::engine::pauses;
use pipeline::http::{Request, Response, Route};
use pipeline::ledger::schedule;
use pipeline::records::jobs;
use pipeline::store::platform::{self, Unreachable};
use pipeline::store::rows::{self, Stored};
use serde_json::{Value, json};

use crate::asking::{answer, request, routes};
use crate::receiver::Receiver;
use crate::world::{World, act, attestation, http, scope};

/// A function may run for as long, and whoever comes later goes on with what it began.
const AT_WORK: Duration = Duration::from_secs(36);

fn keyed(key: &str, route: &str, path: &[(&str, &str)], body: &Value) -> Request {
    request(Role::Admin, route, path, &[("idempotency-key", key)], body)
}

fn registration(world: &World, name: &str) -> Value {
    let secret = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";
    json!({
        "integration": "webhook", "name": name,
        "inputs": { "url": world.receiver.url(), "secret": secret },
    })
}

const REGISTER: &str = "POST /v1/registrations";
const PATCH: &str = "PATCH /v1/registrations/{registration}";

async fn register(world: &World, key: &str, name: &str) -> Response {
    let body = registration(world, name);
    answer(&world.memory, &keyed(key, REGISTER, &[], &body)).await
}

fn code(answer: &Response) -> (u16, &str) {
    (
        answer.status,
        answer.body["code"].as_str().unwrap_or_default(),
    )
}

#[tokio::test]
async fn the_same_request_again_has_the_first_answer_again() {
    let world = World::new();
    let first = register(&world, "k", "one").await;
    assert_eq!(first.status, 201, "{}", first.body);
    assert!(first.headers.contains_key("etag"));
    assert_eq!(register(&world, "k", "one").await, first);
    assert_eq!(
        world.receiver.received().len(),
        1,
        "the third party was asked once"
    );
    // Also when it is another by now.
    pauses::pause(scope(&world.memory), "one", "moves", None)
        .await
        .unwrap();
    assert_eq!(register(&world, "k", "one").await, first);
    // A refusal is an answer, too.
    let refused = register(&world, "k2", "one").await;
    assert_eq!(code(&refused), (409, "name-taken"));
    let only = config::Precondition::default();
    register::delete(scope(&world.memory), "one", &only, act())
        .await
        .unwrap();
    assert_eq!(register(&world, "k2", "one").await, refused);
    assert_eq!(register(&world, "k3", "one").await.status, 201);
}

#[tokio::test]
async fn a_key_is_one_request_of_one_token_for_a_day() {
    let world = World::new();
    let first = register(&world, "k", "one").await;
    let other = register(&world, "k", "two").await;
    assert_eq!(code(&other), (422, "idempotency-key-reused"));
    let route = "POST /v1/registrations/{registration}/resume";
    let elsewhere = keyed(
        "k",
        route,
        &[("registration", "one")],
        &registration(&world, "one"),
    );
    let elsewhere = answer(&world.memory, &elsewhere).await;
    assert_eq!(code(&elsewhere), (422, "idempotency-key-reused"));
    let mut request = keyed("k", REGISTER, &[], &registration(&world, "two"));
    if let Some(caller) = &mut request.caller {
        caller.actor.id = "token-2".into();
    }
    assert_eq!(answer(&world.memory, &request).await.status, 201);
    world.memory.advance(Duration::from_hours(23));
    assert_eq!(register(&world, "k", "one").await, first);
    world.memory.advance(Duration::from_hours(2));
    assert_eq!(
        code(&register(&world, "k", "one").await),
        (409, "name-taken")
    );
    assert_eq!(register(&world, "k4", "three").await.status, 201);
}

#[tokio::test]
async fn a_key_is_1_to_255_printable_characters() {
    let world = World::new();
    let long = "k".repeat(256);
    for key in ["", "a\tb", "ключ", long.as_str()] {
        let refused = register(&world, key, "one").await;
        assert_eq!(code(&refused), (400, "malformed-header"), "{key:?}");
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.starts_with("Idempotency-Key "), "{detail}");
    }
    assert_eq!(register(&world, &long[1..], "one").await.status, 201);
    assert_eq!(register(&world, "\"a b\"", "two").await.status, 201);
}

#[tokio::test]
async fn what_is_kept_of_a_request_shows_nothing_of_it() {
    let world = World::new();
    register(&world, "canary-key", "one").await;
    let dump = world.memory.dump();
    assert!(dump.contains("/claim/"));
    for canary in [
        "s3cret-path",
        "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0",
        "canary-key",
    ] {
        assert!(!dump.contains(canary), "{canary}");
    }
    let body = registration(&world, "one").to_string();
    let digest = ::attestation::Digest::of(body.as_bytes()).hex();
    assert!(!dump.contains(&digest), "nobody can try out what it was");
}

type Asked = Rc<RefCell<Option<(Request, Vec<Response>)>>>;

#[tokio::test]
async fn a_request_that_comes_while_the_first_is_worked_on_is_told_so() {
    let asked: Asked = Rc::default();
    let again = Rc::clone(&asked);
    let memory = Memory::new(move |memory, _, _| {
        let again = Rc::clone(&again);
        Box::pin(async move {
            let request = again.borrow_mut().take().map(|(request, _)| request);
            if let Some(request) = request {
                let second = answer(memory, &request).await;
                *again.borrow_mut() = Some((request, vec![second]));
            }
            Ok(json!(Verdict::Works {
                warnings: vec!["imports take a while".to_owned()]
            }))
        })
    });
    let world = World::over(memory, Receiver::start());
    // The second reads the claim between two writes of the first.
    world.memory.is_newer.set(false);
    let request = keyed("k", REGISTER, &[], &registration(&world, "one"));
    *asked.borrow_mut() = Some((request, Vec::new()));
    let first = register(&world, "k", "one").await;
    assert_eq!(first.status, 201, "{}", first.body);
    assert_eq!(first.body["warnings"], json!(["imports take a while"]));
    let (_, second) = asked.borrow_mut().take().unwrap();
    assert_eq!(code(&second[0]), (409, "in-progress"));
    assert_eq!(register(&world, "k", "one").await, first);
}

#[tokio::test]
async fn what_could_not_be_reached_is_tried_again_at_once_by_the_same_key() {
    let fails = Rc::new(Cell::new(true));
    let down = Rc::clone(&fails);
    let memory = Memory::new(move |memory, _, event| {
        let is_down = down.get();
        Box::pin(async move {
            if is_down {
                return Err(Unreachable {
                    what: "delivery function",
                    why: "it was made to fail".into(),
                });
            }
            let check: Check = serde_json::from_value(event["check"].clone()).unwrap();
            let verdict = check::check::<Webhook>(memory, &http(), check).await?;
            Ok(serde_json::to_value(verdict).unwrap())
        })
    });
    let world = World::over(memory, Receiver::start());
    assert_eq!(register(&world, "k", "one").await.status, 503);
    fails.set(false);
    let made = register(&world, "k", "one").await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(register(&world, "k", "one").await, made);
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_told_again_and_not_as_somebody_elses() {
    let world = World::new();
    let made = register(&world, "k", "one").await;
    let tag = made.headers["etag"].clone();
    let path = &[("registration", "one")];
    let headers = &[("idempotency-key", "k2"), ("if-match", tag.as_str())];
    let body = json!({ "description": "mine" });
    let patch = request(Role::Operator, PATCH, path, headers, &body);
    let first = answer(&world.memory, &patch).await;
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(answer(&world.memory, &patch).await, first);
    // Also where the answer was not kept, since the function ended before that.
    let claims = world.memory.rows();
    for key in claims.iter().filter(|key| key.sort == "claim") {
        let stored = rows::load::<rows::Claim>(&world.memory, key).await.unwrap();
        let mut stored = stored.unwrap();
        stored.row.answer = None;
        let write = stored.update(&world.memory).0;
        world.memory.write(vec![write]).await.unwrap();
    }
    world.memory.advance(AT_WORK);
    assert_eq!(answer(&world.memory, &patch).await, first);
    // By another key it is another request, and late.
    let headers = &[("idempotency-key", "k3"), ("if-match", tag.as_str())];
    let late = request(Role::Operator, PATCH, path, headers, &body);
    let late = answer(&world.memory, &late).await;
    assert_eq!(code(&late), (412, "changed-meanwhile"));
    let tag = first.headers["etag"].as_str();
    let headers = &[("idempotency-key", "k2"), ("if-match", tag)];
    let other = request(Role::Operator, PATCH, path, headers, &body);
    let other = answer(&world.memory, &other).await;
    assert_eq!(code(&other), (422, "idempotency-key-reused"));
}

#[tokio::test]
async fn what_is_removed_of_a_request_that_was_cut_off_is_not_removed_of_its_repeat() {
    let world = World::new();
    // The claim, the reservation and the token's pace are written; what follows the secret is not.
    world.memory.fail_writes_after.set(Some(3));
    assert_eq!(register(&world, "k", "one").await.status, 503);
    assert_eq!(world.memory.secret_names().len(), 1);
    world
        .memory
        .advance(schedule::RESERVATION + 2 * Duration::from_mins(1));
    // The clean-up is cut off, too: it has said that the reservation is none any more.
    world.memory.fail_writes_after.set(Some(1));
    world.reconcile().await;
    world.memory.fail_writes_after.set(None);
    assert_eq!(world.memory.secret_names(), Vec::<String>::new());
    let made = register(&world, "k", "one").await;
    assert_eq!(made.status, 201, "{}", made.body);
    world.memory.advance(Duration::from_hours(1));
    world.reconcile().await;
    assert_eq!(world.memory.secret_names().len(), 1);
}

/// Counts everything that a request can create.
async fn count(world: &World) -> [usize; 7] {
    let memory = &world.memory;
    let (registrations, _) = config::list(scope(memory), None, 100).await.unwrap();
    let selector = api::workflows::selector("shop/other", None).unwrap();
    let attached = attach::of_workflow(scope(memory), &selector).await.unwrap();
    let jobs = jobs::list(scope(memory), None, 100).await.unwrap().0;
    let rows = memory.rows();
    let of = |sort: &str| rows.iter().filter(|key| key.sort == sort).count();
    let issuers = rows
        .iter()
        .filter(|key| key.partition.starts_with("issuers/"));
    [
        registrations.len(),
        attached.len(),
        jobs.len(),
        of("delivery"),
        of("attachment"),
        of("trust-policy"),
        issuers.count(),
    ]
}

fn entries(world: &World) -> usize {
    let rows = world.memory.rows();
    let of_log = |key: &&platform::Key| key.partition.starts_with("audit/");
    rows.iter().filter(of_log).count()
}

/// A world with something to do for each of the routes, and the id of a delivery that is final.
async fn busy() -> (World, rows::Attachment, DeliveryId) {
    let world = World::new();
    let attachment = world.ready().await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    world.deliver().await;
    let (delivery, _) = world.delivery(&accepted).await;
    assert_eq!(delivery.state, State::Delivered);
    pauses::pause(scope(&world.memory), "hook", "moves", None)
        .await
        .unwrap();
    (world, attachment, delivery.id)
}

#[tokio::test]
async fn wherever_a_request_is_cut_off_the_same_again_makes_one_of_it() {
    for route in routes().filter(|route| route.is_keyed).map(Route::name) {
        let route = route.as_str();
        let mut made = None;
        // Cut off at each of its writes, and then at none.
        for writes in 0.. {
            assert!(writes < 40, "{route}: does it end at all?");
            let (world, attachment, delivery) = busy().await;
            let path: &[(&str, &str)] = &[
                ("registration", "hook"),
                ("attachment", &attachment.id),
                ("delivery", &delivery),
            ];
            let body = match route {
                REGISTER => registration(&world, "other"),
                "POST /v1/attachments" => {
                    json!({ "registration": "hook", "workflow": "shop/other" })
                }
                "POST /v1/issuers" => json!({
                    "name": "ci", "issuer": "https://ci.example.org", "audience": "https://api.example.org",
                    "rules": [{ "claims": { "project": { "exact": "shop" } }, "role": "producer" }],
                }),
                "POST /v1/trust-policies" => {
                    json!({ "name": "other", "workflow": "shop/other", "mode": "off" })
                }
                "POST /v1/redeliveries" => json!({ "state": "delivered" }),
                PATCH => json!({ "description": "other", "inputs": { "max_per_second": 5 } }),
                "PATCH /v1/attachments/{attachment}" => json!({ "wait_secs": 90 }),
                _ => json!({}),
            };
            let request = keyed("k", route, path, &body);
            let before = count(&world).await;
            let told = entries(&world);
            world.memory.fail_writes_after.set(Some(writes));
            let cut_off = answer(&world.memory, &request).await;
            let left = world.memory.fail_writes_after.replace(None);
            world.memory.advance(AT_WORK);
            let first = answer(&world.memory, &request).await;
            assert!(
                matches!(first.status, 200..=202),
                "{route} {writes}: {}",
                first.body
            );
            let again = answer(&world.memory, &request).await;
            assert_eq!(
                (&again.body, again.status),
                (&first.body, first.status),
                "{route}"
            );
            if cut_off.status < 400 {
                assert_eq!(cut_off.body["id"], first.body["id"], "{route} {writes}");
            }
            let after = count(&world).await;
            let is_change = route.starts_with("PATCH");
            assert_eq!(before == after, is_change, "{route} makes something");
            assert_eq!(
                *made.get_or_insert(after),
                after,
                "{route}, cut off at {writes}"
            );
            let told = entries(&world) - told;
            assert_eq!(told, 1, "{route}, cut off at {writes}: audit entries");
            if left.is_some_and(|left| left > 0) {
                assert!(writes > 1, "{route}: it was never cut off");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_claim_is_forgotten_after_a_day() {
    let world = World::new();
    register(&world, "k", "one").await;
    let rows = world.memory.rows();
    let key = rows.iter().find(|key| key.sort == "claim").unwrap();
    let expires = world.memory.look(key, |item| item["expires_at"].as_u64());
    let day = world.memory.now().plus(Duration::from_hours(24));
    assert_eq!(expires, Some(Some(day.secs())));
    let stored: Option<Stored<rows::Claim>> = rows::load(&world.memory, key).await.unwrap();
    assert_eq!(stored.unwrap().row.answer.unwrap().status, 201);
}
