//! Names of registrations in what is told of deliveries and jobs, and the filters of their list, over memory.

use std::sync::atomic::Ordering;
use std::time::Duration;

use api::Role;
use pipeline::Platform as _;
use pipeline::config::update::RegistrationPatch;
use pipeline::config::{Precondition, register, update};
use pipeline::engine::operations;
use serde_json::{Value, json};

use crate::asking::{answer, request};
use crate::operations::{answering, push};
use crate::world::{World, act, attestation, scope};

async fn ask(world: &World, route: &str, path: &[(&str, &str)], query: &[(&str, &str)]) -> Value {
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut request = request(Role::Admin, route, path, &[], &Value::Null);
    request.query = query.iter().map(text).collect();
    let answer = answer(&world.memory, &request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

async fn listed(world: &World, query: &[(&str, &str)]) -> Vec<Value> {
    let body = ask(world, "GET /v1/deliveries", &[], query).await;
    body["items"].as_array().unwrap().clone()
}

async fn rename(world: &World, from: &str, to: &str) {
    let patch = RegistrationPatch {
        name: Some(to.to_owned()),
        ..RegistrationPatch::default()
    };
    let any = Precondition::default();
    let renamed = update::registration(scope(&world.memory), from, &patch, &any, act());
    renamed.await.unwrap();
}

#[tokio::test]
async fn a_delivery_and_its_job_have_the_name_that_their_registration_has_today() {
    let world = World::new();
    let attached = world.ready().await;
    let push = "POST /v1/attestations";
    let mut pushed = request(Role::Admin, push, &[], &[], &Value::Null);
    pushed.query.insert("names".into(), "true".into());
    pushed.body = attestation("1", vec![]).compact().into();
    let mut other = pushed.clone();
    other.query.insert("names".into(), "yes".into());
    let refused = answer(&world.memory, &other).await;
    assert_eq!(refused.body["faults"][0]["field"], "names");
    let accepted = answer(&world.memory, &pushed).await.body;
    let planned = &accepted["deliveries"][0];
    assert_eq!(planned["registration_name"], "hook", "{accepted}");
    assert_eq!(planned["integration"], "webhook");
    // A producer is told nothing of how the organization is configured.
    pushed.caller.as_mut().unwrap().role = Role::Producer;
    let told = answer(&world.memory, &pushed).await.body;
    assert_eq!(told["deliveries"][0]["registration_name"], Value::Null);
    world.deliver().await;
    let id = planned["id"].as_str().unwrap();
    let digest = accepted["attestation"].as_str().unwrap();
    let drained = json!({});
    for (verb, status) in [("pause", 200), ("resume", 202)] {
        let route = format!("POST /v1/registrations/{{registration}}/{verb}");
        let path = [("registration", "hook")];
        let asked = request(Role::Admin, &route, &path, &[], &drained);
        assert_eq!(answer(&world.memory, &asked).await.status, status);
    }
    let backfill = "POST /v1/attachments/{attachment}/backfill";
    let path = [("attachment", attached.id.as_str())];
    let asked = request(Role::Admin, backfill, &path, &[], &drained);
    assert_eq!(
        answer(&world.memory, &asked).await.body["registration_name"],
        "hook"
    );
    for name in ["hook", "renamed"] {
        if name != "hook" {
            rename(&world, "hook", name).await;
        }
        assert_eq!(listed(&world, &[]).await[0]["registration_name"], name);
        let one = ask(
            &world,
            "GET /v1/deliveries/{delivery}",
            &[("delivery", id)],
            &[],
        )
        .await;
        assert_eq!(one["registration_name"], name);
        let path = [("digest", digest)];
        let described = ask(&world, "GET /v1/attestations/{digest}", &path, &[]).await;
        assert_eq!(described["deliveries"][0]["registration_name"], name);
        let jobs = ask(&world, "GET /v1/jobs", &[], &[]).await;
        let jobs = jobs["items"].as_array().unwrap();
        assert_eq!(jobs.len(), 2);
        assert!(
            jobs.iter().all(|job| job["registration_name"] == name),
            "{jobs:?}"
        );
    }
    let any = Precondition::default();
    let deleted = register::delete(scope(&world.memory), "renamed", &any, act());
    deleted.await.unwrap();
    assert_eq!(listed(&world, &[]).await[0]["registration_name"], "renamed");
}

#[tokio::test]
async fn deliveries_are_listed_by_integration_and_by_time() {
    let world = World::new();
    world.ready().await;
    let mut times = Vec::new();
    for run in ["1", "2", "3"] {
        world
            .push(attestation(run, vec![]).compact())
            .await
            .unwrap();
        times.push(world.memory.now().to_string());
        world.memory.advance(Duration::from_mins(1));
    }
    let created = |rows: Vec<Value>| -> Vec<String> {
        let times = rows
            .iter()
            .map(|row| row["created_at"].as_str().unwrap().to_owned());
        times.rev().collect()
    };
    for scope in [
        &[][..],
        &[("registration", "hook")],
        &[("workflow", "shop/nightly")],
    ] {
        let of =
            async |query: &[(&str, &str)]| created(listed(&world, &[scope, query].concat()).await);
        let all = of(&[]).await;
        assert_eq!(all, times, "{scope:?}");
        assert_eq!(of(&[("since", &times[1])]).await, times[1..], "{scope:?}");
        assert_eq!(of(&[("until", &times[1])]).await, times[..2], "{scope:?}");
        let both = [("since", &times[1][..]), ("until", &times[1])];
        assert_eq!(of(&both).await, times[1..2], "{scope:?}");
        assert_eq!(of(&[("integration", "webhook")]).await, times, "{scope:?}");
        assert!(of(&[("integration", "smtp")]).await.is_empty(), "{scope:?}");
    }
    // Pages go on within the time, and end with it.
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let query = [
            ("limit", "1"),
            ("since", &times[1][..]),
            ("cursor", &cursor),
        ];
        let page = ask(&world, "GET /v1/deliveries", &[], &query).await;
        found.extend(page["items"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(created(found), times[1..]);
}

/// One that was refused and comes again; one that was refused for good, after such a refusal; one that arrived; and one
/// that nobody has begun.
#[tokio::test]
async fn deliveries_are_listed_by_the_answer_to_their_last_attempt() {
    let (world, answers) = answering(200);
    world.ready().await;
    let mut ids = Vec::new();
    for (run, statuses) in [
        ("retried", &[503][..]),
        ("refused", &[503, 404]),
        ("arrived", &[503, 500, 202]),
        ("new", &[]),
    ] {
        let accepted = push(&world, run).await;
        for (at, status) in statuses.iter().enumerate() {
            if at > 0 {
                let (row, _) = world.delivery(&accepted).await;
                let again = operations::redeliver_for(&world.memory, &row, None, act());
                again.await.unwrap();
            }
            answers.store(*status, Ordering::Relaxed);
            world.deliver().await;
        }
        ids.push(world.delivery(&accepted).await.0.id.to_string());
    }
    let [retried, refused, arrived, _] = &ids[..] else {
        unreachable!("four were pushed");
    };
    for (status, wanted) in [
        ("503", &[retried][..]),
        ("5xx", &[retried]),
        ("404", &[refused]),
        ("4xx", &[refused]),
        ("2xx", &[arrived]),
        ("500", &[]),
        ("none", &[]),
    ] {
        let found = listed(&world, &[("status", status)]).await;
        let found: Vec<_> = found
            .iter()
            .map(|row| row["id"].as_str().unwrap())
            .collect();
        assert_eq!(found, wanted, "{status}");
    }
    let both = [("status", "4xx"), ("state", "pending")];
    assert!(listed(&world, &both).await.is_empty());
    let mut asked = request(Role::Admin, "GET /v1/deliveries", &[], &[], &Value::Null);
    asked.query.insert("status".into(), "6xx".into());
    let refused = answer(&world.memory, &asked).await;
    assert_eq!(refused.status, 422);
    assert_eq!(
        refused.body["faults"][0],
        json!({ "field": "status", "detail": "must be a status such as 503, a class such as 5xx, or none" })
    );
}

#[tokio::test]
async fn an_integration_of_a_list_is_a_text_with_something_in_it() {
    let world = World::new();
    let long = "a".repeat(513);
    for text in ["", long.as_str()] {
        let mut asked = request(Role::Admin, "GET /v1/deliveries", &[], &[], &Value::Null);
        asked.query.insert("integration".into(), text.into());
        let refused = answer(&world.memory, &asked).await;
        let field = &refused.body["faults"][0]["field"];
        assert_eq!((refused.status, field), (422, &json!("integration")));
    }
}
