//! Attaching and pushing over memory: what is refused as a repeat, what is doubted, and which materials are asked for.

use std::time::Duration;

use api::Role;
use pipeline::config::{Precondition, attach};
use pipeline::http::Response;
use serde_json::{Value, json};

use crate::asking::{answer, ask, request};
use crate::openapi::is_described;
use crate::world::{World, act, attestation, promised_sbom, scope};

const ATTACH: &str = "POST /v1/attachments";

async fn attach(world: &World, key: Option<&str>, body: Value) -> Response {
    let headers: Vec<_> = key
        .map(|key| ("idempotency-key", key))
        .into_iter()
        .collect();
    let request = request(Role::Operator, ATTACH, &[], &headers, &body);
    let response = answer(&world.memory, &request).await;
    is_described(ATTACH, &response);
    response
}

fn told(answer: &Response) -> (u16, &str) {
    let code = answer.body["code"].as_str();
    (answer.status, code.unwrap_or_default())
}

#[tokio::test]
async fn the_same_attachment_again_is_refused_unless_that_is_meant() {
    let world = World::new();
    let hook = world.register("hook").await.unwrap();
    world.register("other").await.unwrap();
    let same = json!({ "registration": "hook", "workflow": "shop/nightly", "inputs": { "send_sbom": true } });
    let with = |name: &str, value: Value| {
        let mut body = same.clone();
        body[name] = value;
        body
    };
    let first = attach(&world, None, same.clone()).await;
    assert_eq!(first.status, 201, "{}", first.body);
    let id = first.body["id"].as_str().unwrap();
    for again in [
        same.clone(),
        with("registration", json!(hook.id)),
        json!({ "registration": "hook", "workflow": "nightly", "project": "shop", "inputs": { "send_sbom": true } }),
    ] {
        let refused = attach(&world, None, again).await;
        assert_eq!(told(&refused), (409, "attachment-exists"));
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains(id), "{detail}");
    }
    for different in [
        with("registration", json!("other")),
        with("workflow", json!("shop/release")),
        with("workflow", json!("shop/*")),
        with("inputs", json!({})),
        with("wait_secs", json!(60)),
        with("allow_duplicate", json!(true)),
    ] {
        let attached = attach(&world, None, different).await;
        assert_eq!(attached.status, 201, "{}", attached.body);
        let only = Precondition::default();
        let id = attached.body["id"].as_str().unwrap();
        attach::detach(scope(&world.memory), &id.into(), &only, act())
            .await
            .unwrap();
    }
    let only = Precondition::default();
    attach::detach(scope(&world.memory), &id.into(), &only, act())
        .await
        .unwrap();
    let anew = attach(&world, None, same).await;
    assert_eq!(
        anew.status, 201,
        "what was detached is not there: {}",
        anew.body
    );
}

#[tokio::test]
async fn an_attachment_to_a_workflow_that_was_never_seen_is_doubted_and_the_nearest_is_named() {
    let world = World::new();
    world.register("hook").await.unwrap();
    let doubts = async |workflow: &str| {
        let body = json!({ "registration": "hook", "workflow": workflow, "allow_duplicate": true });
        let attached = attach(&world, None, body).await;
        assert_eq!(attached.status, 201, "{}", attached.body);
        attached.body.get("warnings").cloned()
    };
    let unseen = |rest: &str| Some(json!([format!("no attestation of {rest}")]));
    assert_eq!(
        doubts("shop/nightly").await,
        unseen("shop/nightly has been accepted yet")
    );
    world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    for (workflow, doubt) in [
        ("shop/nightly", None),
        ("shop/*", None),
        ("*", None),
        (
            "shop/nigthly",
            unseen("shop/nigthly has been accepted yet; did you mean shop/nightly?"),
        ),
        (
            "Shop/Nightly",
            unseen("Shop/Nightly has been accepted yet; did you mean shop/nightly?"),
        ),
        (
            "shp/*",
            unseen("shp/* has been accepted yet; did you mean shop/*?"),
        ),
        (
            "billing/deploy",
            unseen("billing/deploy has been accepted yet"),
        ),
    ] {
        assert_eq!(doubts(workflow).await, doubt, "{workflow}");
    }
}

/// The materials that the answer to a push asks for.
async fn missing(world: &World) -> Value {
    let envelope = attestation("1", vec![promised_sbom()]);
    let body = serde_json::from_slice(&envelope.compact()).unwrap();
    let route = "POST /v1/attestations";
    let answer = ask(&world.memory, Role::Producer, route, &[], body).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["missing"].clone()
}

#[tokio::test]
async fn a_material_is_asked_for_when_a_delivery_waits_for_it_and_only_then() {
    let sbom = json!([promised_sbom().digest]);
    for (inputs, wait_secs, expected) in [
        (json!({ "send_sbom": true }), Value::Null, sbom.clone()),
        (json!({ "send_sbom": false }), Value::Null, json!([])),
        (json!({ "send_sbom": true }), json!(0), json!([])),
        (
            json!({ "send_sbom": true, "filter": "material.name=other" }),
            Value::Null,
            json!([]),
        ),
    ] {
        let world = World::new();
        world.register("hook").await.unwrap();
        let body = json!({
            "registration": "hook", "workflow": "shop/nightly", "inputs": inputs, "wait_secs": wait_secs,
        });
        let attached = attach(&world, None, body.clone()).await;
        assert_eq!(attached.status, 201, "{}", attached.body);
        assert_eq!(missing(&world).await, expected, "{body}");
    }
    let nothing_attached = World::new();
    assert_eq!(missing(&nothing_attached).await, json!([]));
}

#[tokio::test]
async fn a_material_that_came_too_late_is_not_asked_for_again() {
    let world = World::new();
    world.register("hook").await.unwrap();
    world
        .attach_with("hook", json!({ "send_sbom": true }))
        .await;
    let sbom = json!([promised_sbom().digest]);
    assert_eq!(missing(&world).await, sbom);
    assert_eq!(missing(&world).await, sbom, "it is still waited for");
    world.pass(Duration::from_mins(20)).await;
    assert_eq!(world.receiver.deliveries().len(), 1);
    assert_eq!(missing(&world).await, json!([]));
}
