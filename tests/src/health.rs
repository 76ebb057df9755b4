//! Health of a registration, over memory.

use std::sync::atomic::Ordering;
use std::time::Duration;

use api::Role;
use integrations::Integration as _;
use integrations::webhook::Webhook;
use pipeline::Platform as _;
use pipeline::store::rows::{self, Destination};
use serde_json::{Value, json};

use crate::asking::{answer, ask, request};
use crate::operations::{answering, push};
use crate::world::World;

const ROUTE: &str = "GET /v1/registrations/{registration}/health";
const HOUR: Duration = Duration::from_hours(1);

/// The circuits of the list, by name.
async fn circuits(world: &World) -> Value {
    let mut asked = request(
        Role::Viewer,
        "GET /v1/registrations",
        &[],
        &[],
        &Value::Null,
    );
    asked.query.insert("circuits".into(), "true".into());
    let listed = answer(&world.memory, &asked).await.body;
    let items = listed["items"].as_array().unwrap().iter();
    let circuits = items.map(|item| {
        (
            item["name"].as_str().unwrap().to_owned(),
            item["circuit"].clone(),
        )
    });
    circuits.collect()
}

async fn health(world: &World) -> Value {
    let parameters = [("registration", "hook")];
    let answer = ask(&world.memory, Role::Viewer, ROUTE, &parameters, Value::Null).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

fn sum(health: &Value, state: &str) -> u64 {
    let hours = health["hours"].as_array().unwrap();
    assert_eq!(hours.len(), 24);
    hours.iter().map(|hour| hour[state].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn deliveries_of_the_last_day_are_counted_by_the_hour() {
    let (world, answer) = answering(200);
    world.ready().await;
    let before = health(&world).await;
    assert_eq!(
        (sum(&before, "delivered"), &before["delivered_at"]),
        (0, &Value::Null)
    );
    push(&world, "1").await;
    world.deliver().await;
    let delivered_at = json!(world.memory.now());
    world.memory.advance(2 * HOUR);
    answer.store(400, Ordering::Relaxed);
    push(&world, "2").await;
    world.deliver().await;
    push(&world, "3").await;
    let now = health(&world).await;
    let hour = |delivered, failed, open| json!({ "delivered": delivered, "failed": failed, "open": open, "other": 0 });
    assert_eq!(now["hours"][21], hour(1, 0, 0));
    assert_eq!(now["hours"][23], hour(0, 1, 1));
    assert_eq!(
        ["delivered", "failed", "open"].map(|state| sum(&now, state)),
        [1, 1, 1]
    );
    assert_eq!(now["delivered_at"], delivered_at);
    assert!(
        now["failed_at"].as_str() > now["delivered_at"].as_str(),
        "{now}"
    );
    assert_eq!(
        (&now["has_more"], &now["circuit"]["state"]),
        (&json!(false), &json!("closed"))
    );
    world.memory.advance(23 * HOUR);
    let later = health(&world).await;
    assert_eq!((sum(&later, "delivered"), sum(&later, "failed")), (0, 1));
    assert_eq!(later["delivered_at"], Value::Null);
}

#[tokio::test]
async fn an_open_circuit_is_told_until_it_closes() {
    let (world, answer) = answering(200);
    world.register("hook").await.unwrap();
    world.register("other").await.unwrap();
    let closed = json!({ "state": "closed", "open_until": null });
    assert_eq!(
        circuits(&world).await,
        json!({ "hook": closed, "other": closed })
    );
    for _ in 0..10 {
        world.attach("hook").await;
    }
    answer.store(503, Ordering::Relaxed);
    push(&world, "1").await;
    world.deliver().await;
    let open = health(&world).await;
    assert_eq!(open["circuit"]["state"], "open", "{open}");
    let until = open["circuit"]["open_until"].as_str().unwrap();
    assert!(until > world.memory.now().to_string().as_str());
    assert!(open["failing_since"].is_string());
    assert_eq!(
        circuits(&world).await,
        json!({ "hook": open["circuit"], "other": closed })
    );
    world.memory.advance(2 * HOUR);
    let tried = health(&world).await;
    assert_eq!(
        tried["circuit"],
        json!({ "state": "half-open", "open_until": null })
    );
    answer.store(200, Ordering::Relaxed);
    world.pass(3 * HOUR).await;
    let back = health(&world).await;
    assert_eq!(back["circuit"], closed);
    assert_eq!(
        (&back["failing_since"], sum(&back, "delivered")),
        (&Value::Null, 10)
    );
}

#[tokio::test]
async fn no_more_than_a_thousand_deliveries_are_read() {
    let (world, _) = answering(200);
    world.register("hook").await.unwrap();
    for _ in 0..10 {
        world.attach("hook").await;
    }
    for run in 0..101 {
        push(&world, &run.to_string()).await;
    }
    let health = health(&world).await;
    assert_eq!(
        (sum(&health, "open"), &health["has_more"]),
        (1_000, &json!(true))
    );
}

#[tokio::test]
async fn a_limit_for_all_is_told_while_it_lasts() {
    let (world, _) = answering(200);
    world.ready().await;
    let now = world.memory.now();
    let mut limit = Destination::of_all(Webhook::ID);
    limit.open_until = Some(now.plus(HOUR));
    let (write, _) = rows::insert(&world.memory, &limit);
    world.memory.write(vec![write]).await.unwrap();
    assert_eq!(health(&world).await["circuit"]["state"], "open");
    world.memory.advance(2 * HOUR);
    // Nothing closes it, and it is over.
    assert_eq!(health(&world).await["circuit"]["state"], "closed");
}
