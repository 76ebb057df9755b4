//! Registrations and attachments that become others, over memory and by the API: as a whole or not at all.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use api::Role;
use api::deliveries::State;
use futures_util::future;
use integrations::Integration;
use integrations::webhook::Webhook;
use memory::Memory;
use pipeline::Platform;
use pipeline::config::check::{self, Check, Verdict};
use pipeline::config::{self, register};
use pipeline::engine::pauses;
use pipeline::http::Response;
use pipeline::records::audit_log;
use pipeline::store::rows::{self, AuditEntry, Destination};
use serde_json::{Value, json};

use crate::asking::{answer, request};
use crate::receiver::{Answer, Receiver};
use crate::world::{ORGANIZATION, World, act, attestation, http, kept, scope};

const SECRET: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";

/// Asks the registrations' function.
async fn ask(
    world: &World,
    method: &str,
    name: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> Response {
    let route = format!("{method} /v1/registrations/{{registration}}");
    let request = request(
        Role::Operator,
        &route,
        &[("registration", name)],
        headers,
        &body,
    );
    answer(&world.memory, &request).await
}

async fn patch(world: &World, name: &str, body: Value) -> Response {
    ask(world, "PATCH", name, &[], body).await
}

/// Asks the attachments' function.
async fn ask_attached(
    world: &World,
    method: &str,
    id: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> Response {
    let route = format!("{method} /v1/attachments/{{attachment}}");
    let request = request(
        Role::Operator,
        &route,
        &[("attachment", id)],
        headers,
        &body,
    );
    answer(&world.memory, &request).await
}

fn fields(answer: &Response) -> Vec<&str> {
    let faults = answer.body["faults"].as_array().unwrap();
    let fields = faults.iter().map(|fault| fault["field"].as_str().unwrap());
    fields.collect()
}

/// The changes that were made.
async fn log(world: &World) -> Vec<AuditEntry> {
    let memory = &world.memory;
    let page = audit_log::entries(scope(memory), memory.now(), None, 1_000);
    let (mut entries, _) = page.await.unwrap();
    entries.retain(|entry| entry.action.ends_with(".update"));
    entries
}

/// A world whose receiver answers what the returned number says.
fn answering(status: u16) -> (World, Arc<AtomicU16>) {
    let answer = Arc::new(AtomicU16::new(status));
    let script = Arc::clone(&answer);
    let receiver = Receiver::scripted(move |_, _| Answer::status(script.load(Ordering::Relaxed)));
    (World::with(receiver), answer)
}

#[tokio::test]
async fn what_waits_and_what_comes_is_delivered_by_what_the_registration_is_then() {
    let (world, answer) = answering(200);
    world.ready().await;
    answer.store(503, Ordering::Relaxed);
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    world.deliver().await;
    answer.store(200, Ordering::Relaxed);
    let body = json!({ "inputs": { "format": "cloudevents", "max_per_second": 50 } });
    let answer = patch(&world, "hook", body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        answer.body["config"],
        json!({ "format": "cloudevents", "max_per_second": 50 })
    );
    world.pass(Duration::from_mins(3)).await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
    let last = world.receiver.received().pop().unwrap();
    assert_eq!(last.json()["specversion"], "1.0");
}

#[tokio::test]
async fn a_value_replaces_null_takes_away_and_what_is_not_named_stays() {
    let world = World::new();
    world.ready().await;
    for (inputs, config) in [
        (
            json!({ "format": "cloudevents", "max_per_second": 5 }),
            json!({ "format": "cloudevents", "max_per_second": 5 }),
        ),
        (
            json!({ "max_per_second": 7 }),
            json!({ "format": "cloudevents", "max_per_second": 7 }),
        ),
        (json!({ "format": null }), json!({ "max_per_second": 7 })),
        // It is not there, as wanted.
        (json!({ "format": null }), json!({ "max_per_second": 7 })),
    ] {
        let answer = patch(&world, "hook", json!({ "inputs": inputs })).await;
        assert_eq!(
            (answer.status, &answer.body["config"]),
            (200, &config),
            "{}",
            answer.body
        );
    }
    let answer = patch(&world, "hook", json!({ "description": "for builds" })).await;
    assert_eq!(answer.body["description"], "for builds");
    assert_eq!(answer.body["config"], json!({ "max_per_second": 7 }));
    let kept = ask(&world, "GET", "hook", &[], json!({})).await;
    assert_eq!(kept.body, answer.body);
}

#[tokio::test]
async fn all_faults_are_told_at_once_without_asking_the_third_party() {
    let world = World::new();
    world.ready().await;
    let before = (kept(&world.memory), world.receiver.received().len());
    let body = json!({
        "name": "Not A Label",
        "inputs": { "max_per_second": 1000, "fromat": null, "other": 1 },
    });
    let answer = patch(&world, "hook", body).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert_eq!(
        fields(&answer),
        ["fromat", "max_per_second", "name", "other"]
    );
    // One secret holds all secret inputs, and nobody may read it here.
    let body = json!({ "inputs": { "url": world.receiver.url(), "max_per_second": "x" } });
    let answer = patch(&world, "hook", body).await;
    assert_eq!(fields(&answer), ["max_per_second", "secret"]);
    let answer = patch(
        &world,
        "hook",
        json!({ "inputs": { "url": null, "secret": null } }),
    )
    .await;
    assert_eq!(fields(&answer), ["url"], "it is required");
    let answer = patch(&world, "hook", json!({ "integration": "guac" })).await;
    assert_eq!(fields(&answer), ["integration"]);
    let answer = patch(&world, "hook", json!({ "desciption": "x" })).await;
    assert_eq!((answer.status, fields(&answer)), (422, vec!["desciption"]));
    assert_eq!(
        before,
        (kept(&world.memory), world.receiver.received().len())
    );
}

#[tokio::test]
async fn what_the_third_party_does_not_want_changes_nothing() {
    let (world, answer) = answering(200);
    world.ready().await;
    let before = kept(&world.memory);
    answer.store(404, Ordering::Relaxed);
    let url = format!("{}/other", world.receiver.url());
    for inputs in [
        json!({ "format": "cloudevents" }),
        json!({ "format": "cloudevents", "url": url, "secret": SECRET }),
    ] {
        let answer = patch(&world, "hook", json!({ "inputs": inputs, "name": "other" })).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (422, &json!("check-failed"))
        );
    }
    assert_eq!(kept(&world.memory), before);
    answer.store(200, Ordering::Relaxed);
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    world.deliver().await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
    assert!(
        world.receiver.deliveries()[0]
            .path
            .ends_with("/s3cret-path")
    );
}

#[tokio::test]
async fn a_dry_run_asks_the_third_party_and_keeps_nothing() {
    let world = World::new();
    let attachment = world.ready().await;
    let before = (kept(&world.memory), world.receiver.received().len());
    let url = format!("{}/other", world.receiver.url());
    let body = json!({
        "name": "other", "dry_run": true,
        "inputs": { "format": "cloudevents", "url": url, "secret": SECRET },
    });
    let answer = patch(&world, "hook", body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["name"], "other");
    assert_eq!(answer.body["config"], json!({ "format": "cloudevents" }));
    let body = json!({ "inputs": { "send_sbom": true }, "dry_run": true });
    let answer = ask_attached(&world, "PATCH", &attachment.id, &[], body).await;
    assert_eq!(answer.body["config"], json!({ "send_sbom": true }));
    assert_eq!(before.0, kept(&world.memory));
    assert_eq!(before.1 + 1, world.receiver.received().len());
    assert_eq!(log(&world).await.len(), 0);
}

/// Delivers an attestation, and returns the path and `specversion` of the request.
async fn sent(world: &World, run: &str) -> (String, Value) {
    let accepted = world
        .push(attestation(run, vec![]).compact())
        .await
        .unwrap();
    world.deliver().await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Delivered);
    let last = world.receiver.received().pop().unwrap();
    let version = last.json()["specversion"].clone();
    (last.path, version)
}

#[tokio::test]
async fn what_is_secret_changes_together_with_what_is_not_or_neither_does() {
    let world = World::new();
    world.ready().await;
    let old = ("/hook/s3cret-path".to_owned(), Value::Null);
    assert_eq!(sent(&world, "1").await, old);
    let url = format!("{}/other", world.receiver.url());
    let body = json!({ "inputs": { "format": "cloudevents", "url": url, "secret": SECRET } });
    // The secret's new version is put down, and then the table cannot be reached.
    world.memory.fail_writes_after.set(Some(0));
    assert_eq!(patch(&world, "hook", body.clone()).await.status, 503);
    world.memory.fail_writes_after.set(None);
    assert_eq!(sent(&world, "2").await, old);
    // By a function that has the secret in its memory, and by one that has not.
    let world = World {
        tools: pipeline::engine::deliver::Tools::new(http()),
        ..world
    };
    assert_eq!(sent(&world, "3").await, old);
    let answer = patch(&world, "hook", body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    // At once, although the old secret is still in the function's memory.
    let new = ("/hook/s3cret-path/other".to_owned(), json!("1.0"));
    assert_eq!(sent(&world, "4").await, new);
    assert!(!world.memory.dump().contains("s3cret-path"));
    // One that is optional goes by null, and the other is given with it.
    let body = json!({ "inputs": { "url": world.receiver.url(), "secret": null } });
    let answer = patch(&world, "hook", body).await;
    let labels = answer.body["secrets"].as_object().unwrap();
    assert_eq!(labels.keys().collect::<Vec<_>>(), ["url"]);
    assert_eq!(sent(&world, "5").await.0, old.0);
    assert_eq!(
        world
            .receiver
            .received()
            .pop()
            .unwrap()
            .header("webhook-signature"),
        None
    );
}

#[tokio::test]
async fn a_name_moves_in_one_write() {
    let world = World::new();
    world.ready().await;
    world.register("taken").await.unwrap();
    let asked = world.receiver.received().len();
    let body = json!({ "name": "taken", "inputs": { "format": "cloudevents" } });
    let answer = patch(&world, "hook", body).await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (409, &json!("name-taken"))
    );
    assert_eq!(world.receiver.received().len(), asked, "nobody was asked");
    // Cut off, both names are as they were.
    world.memory.fail_writes_after.set(Some(0));
    assert_eq!(
        patch(&world, "hook", json!({ "name": "new" })).await.status,
        503
    );
    world.memory.fail_writes_after.set(None);
    assert_eq!(ask(&world, "GET", "hook", &[], json!({})).await.status, 200);
    assert_eq!(ask(&world, "GET", "new", &[], json!({})).await.status, 404);
    let answer = patch(&world, "hook", json!({ "name": "new" })).await;
    assert_eq!((answer.status, &answer.body["name"]), (200, &json!("new")));
    // A name alone is nothing that the third party would be asked about.
    assert_eq!(world.receiver.received().len(), asked);
    assert_eq!(ask(&world, "GET", "hook", &[], json!({})).await.status, 404);
    assert_eq!(
        ask(&world, "GET", "new", &[], json!({})).await.body,
        answer.body
    );
    world.register("hook").await.unwrap();
    let (rows, _) = config::list(scope(&world.memory), None, 10).await.unwrap();
    let names: Vec<&str> = rows.iter().map(|stored| stored.row.name.as_str()).collect();
    assert_eq!(names, ["hook", "new", "taken"]);
    for name in names {
        let only = config::Precondition::default();
        register::delete(scope(&world.memory), name, &only, act())
            .await
            .unwrap();
    }
    assert_eq!(world.memory.secret_names(), Vec::<String>::new());
}

/// A world in which, while the third party is asked, somebody does something; and how often it was asked.
fn meanwhile(deed: impl AsyncFn(&Memory, u32) + 'static) -> (World, Rc<Cell<u32>>) {
    let asked = Rc::new(Cell::new(0));
    let (count, deed) = (Rc::clone(&asked), Rc::new(deed));
    let memory = Memory::new(move |memory, _, event| {
        let (count, deed) = (Rc::clone(&count), Rc::clone(&deed));
        Box::pin(async move {
            count.set(count.get() + 1);
            deed(memory, count.get()).await;
            let check: Check = serde_json::from_value(event["check"].clone()).unwrap();
            let verdict = check::check::<Webhook>(memory, &http(), check).await?;
            Ok(serde_json::to_value(verdict).unwrap())
        })
    });
    (World::over(memory, Receiver::start()), asked)
}

#[tokio::test]
async fn what_somebody_else_changed_meanwhile_is_kept() {
    // Asked for the second time, by the update.
    let (world, asked) = meanwhile(async |memory, count| {
        if count == 2 {
            let paused = pauses::pause(scope(memory), "hook", "moves", Some(act()));
            paused.await.unwrap();
        }
    });
    world.register("hook").await.unwrap();
    let body = json!({ "inputs": { "format": "cloudevents" } });
    let answer = patch(&world, "hook", body.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["paused"]["reason"], "moves");
    assert_eq!(answer.body["config"], json!({ "format": "cloudevents" }));
    assert_eq!(
        asked.get(),
        2,
        "a pause is nothing to ask the third party about"
    );
    // Whoever said what it was to be changed from is told instead.
    let (world, _) = meanwhile(async |memory, count| {
        if count == 2 {
            let paused = pauses::pause(scope(memory), "hook", "moves", Some(act()));
            paused.await.unwrap();
        }
    });
    world.register("hook").await.unwrap();
    let etag = ask(&world, "GET", "hook", &[], json!({})).await.headers["etag"].clone();
    let answer = ask(&world, "PATCH", "hook", &[("if-match", &etag)], body).await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (412, &json!("changed-meanwhile"))
    );
    let kept = ask(&world, "GET", "hook", &[], json!({})).await;
    assert_eq!(kept.body["config"], json!({}));
}

#[tokio::test]
async fn what_is_said_of_inputs_that_were_replaced_meanwhile_pauses_nothing() {
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    let world = World::with(Receiver::scripted(move |_, request| {
        if request.json()["Kind"] == "TEST_WEBHOOK" {
            return Answer::status(200);
        }
        while !mended.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Answer::status(410)
    }));
    world.ready().await;
    let push = async |run: &str| {
        let envelope = attestation(run, vec![]).compact();
        world.push(envelope).await.unwrap()
    };
    let accepted = push("1").await;
    let mend = async {
        let body = json!({ "inputs": { "max_per_second": 5 } });
        assert_eq!(patch(&world, "hook", body).await.status, 200);
        is_mended.store(true, Ordering::Relaxed);
    };
    future::join(world.deliver(), mend).await;
    assert_eq!(world.delivery(&accepted).await.0.state, State::Failed);
    let is_paused = async || {
        let found = config::find(scope(&world.memory), "hook").await;
        found.unwrap().row.paused.is_some()
    };
    assert!(!is_paused().await);
    // It is gone as it is now, too.
    push("2").await;
    world.deliver().await;
    assert!(is_paused().await);
}

#[tokio::test]
async fn failures_with_other_inputs_are_forgotten_and_the_pace_is_not() {
    let status = Arc::new(AtomicU16::new(200));
    let answers = Arc::clone(&status);
    let world = World::with(Receiver::scripted(move |_, _| {
        Answer::status(answers.load(Ordering::Relaxed))
    }));
    world.ready().await;
    let inputs = |pace: u32| json!({ "inputs": { "max_per_second": pace } });
    assert_eq!(patch(&world, "hook", inputs(5)).await.status, 200);
    status.store(503, Ordering::Relaxed);
    for run in ["1", "2", "3"] {
        world
            .push(attestation(run, vec![]).compact())
            .await
            .unwrap();
    }
    world.pass(Duration::from_mins(5)).await;
    let destination = async || {
        let id = config::find(scope(&world.memory), "hook")
            .await
            .unwrap()
            .row
            .id;
        let row = world.memory.get(&Destination::at(&ORGANIZATION, &id)).await;
        serde_json::from_value::<Destination>(row.unwrap().unwrap().into()).unwrap()
    };
    let failed = destination().await;
    assert!(failed.failures >= 5 && failed.failing_since.is_some() && failed.failed_attempts == 5);
    status.store(200, Ordering::Relaxed);
    let renamed = json!({ "description": "down" });
    assert_eq!(patch(&world, "hook", renamed).await.status, 200);
    assert_eq!(destination().await, failed, "nothing was mended");
    assert_eq!(patch(&world, "hook", inputs(6)).await.status, 200);
    let mut forgiven = Destination::new(failed.organization, failed.registration);
    forgiven.next_at = failed.next_at;
    forgiven.reserved_until = failed.reserved_until;
    assert_eq!(destination().await, forgiven);
}

#[tokio::test]
async fn the_audit_log_names_the_fields_and_no_values() {
    let world = World::new();
    let attachment = world.ready().await;
    let url = format!("{}/canary", world.receiver.url());
    for body in [
        json!({ "description": "canary", "inputs": { "max_per_second": 5 } }),
        json!({ "inputs": { "max_per_second": 5, "url": url, "secret": SECRET } }),
        // Changes nothing.
        json!({ "description": "canary", "inputs": { "max_per_second": 5 } }),
    ] {
        assert_eq!(patch(&world, "hook", body).await.status, 200);
        world.memory.advance(Duration::from_secs(1));
    }
    let body = json!({ "wait_secs": 4321, "inputs": { "send_sbom": true } });
    let answer = ask_attached(&world, "PATCH", &attachment.id, &[], body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut entries = log(&world).await;
    entries.reverse();
    let told: Vec<(&str, &str, &str)> = entries
        .iter()
        .map(|entry| {
            (
                entry.action.as_str(),
                entry.subject.as_str(),
                entry.detail.as_str(),
            )
        })
        .collect();
    let attached = "hook for shop/nightly";
    assert_eq!(
        told,
        [
            (
                "registration.update",
                "hook",
                "description, inputs.max_per_second"
            ),
            ("registration.update", "hook", "inputs.secret, inputs.url"),
            ("attachment.update", attached, "wait_secs, inputs.send_sbom"),
        ]
    );
}

#[tokio::test]
async fn a_registration_that_is_checked_anew_is_of_todays_version() {
    let world = World::new();
    world.ready().await;
    let mut stored = config::find(scope(&world.memory), "hook").await.unwrap();
    stored.row.version = "0.9".into();
    // An input that there was then.
    stored.row.config.insert("gone".into(), json!(true));
    world
        .memory
        .write(vec![stored.update(&world.memory).0])
        .await
        .unwrap();
    let answer = patch(&world, "hook", json!({ "description": "x" })).await;
    assert_eq!(answer.body["version"], "0.9");
    let answer = patch(&world, "hook", json!({ "inputs": {} })).await;
    assert_eq!(fields(&answer), ["gone"]);
    let answer = patch(&world, "hook", json!({ "inputs": { "gone": null } })).await;
    assert_eq!(
        (answer.status, &answer.body["version"]),
        (200, &json!(Webhook::VERSION))
    );
}

#[tokio::test]
async fn an_attachment_changes_but_for_its_workflow_and_its_registration() {
    let world = World::new();
    let attachment = world.ready().await;
    let id = attachment.id.as_str();
    let change = async |body: Value| ask_attached(&world, "PATCH", id, &[], body).await;
    let answer = change(json!({ "workflow": "a/b", "registration": "other" })).await;
    assert_eq!(
        (answer.status, fields(&answer)),
        (422, vec!["workflow", "registration"])
    );
    assert!(answer.body.to_string().contains("detach, and attach anew"));
    let answer = change(json!({ "wait_secs": 86_401, "inputs": { "send_sbom": 1, "x": null } }));
    assert_eq!(fields(&answer.await), ["send_sbom", "wait_secs", "x"]);
    let answer = change(json!({ "wait_secs": 60, "inputs": { "send_sbom": true } })).await;
    assert_eq!(
        (answer.status, &answer.body["wait_secs"]),
        (200, &json!(60))
    );
    let answer = change(json!({ "inputs": { "filter": "workflow.name=nightly" } })).await;
    assert_eq!(
        answer.body["config"],
        json!({ "send_sbom": true, "filter": "workflow.name=nightly" })
    );
    let answer = change(json!({ "wait_secs": null, "inputs": { "send_sbom": null } })).await;
    assert_eq!(answer.body["wait_secs"], Value::Null);
    assert_eq!(
        answer.body["config"],
        json!({ "filter": "workflow.name=nightly" })
    );
    let kept = ask_attached(&world, "GET", id, &[], json!({})).await;
    assert_eq!(kept.body, answer.body);
    assert_eq!(
        change(json!({ "inputs": { "filter": "is no filter" } }))
            .await
            .status,
        422
    );
    let answer = ask_attached(&world, "PATCH", "nobody", &[], json!({})).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn an_answer_has_the_tag_that_a_change_can_be_conditional_on() {
    let world = World::new();
    let attachment = world.ready().await;
    let tag = |answer: &Response| {
        let tag = answer.headers["etag"].clone();
        assert_eq!(
            tag,
            format!("\"{}\"", answer.body["etag"].as_str().unwrap())
        );
        tag
    };
    let first = tag(&ask(&world, "GET", "hook", &[], json!({})).await);
    let second = tag(&patch(&world, "hook", json!({ "description": "x" })).await);
    assert_ne!(first, second);
    let unchanged = tag(&patch(&world, "hook", json!({ "description": "x" })).await);
    assert_eq!(second, unchanged);
    let body = json!({ "description": "y" });
    for (method, stale) in [
        ("PATCH", first.clone()),
        ("PATCH", format!("W/{second}")),
        ("DELETE", format!("\"0\", {first}")),
    ] {
        let answer = ask(
            &world,
            method,
            "hook",
            &[("if-match", &stale)],
            body.clone(),
        )
        .await;
        assert_eq!(answer.status, 412, "{method} {stale}");
        assert_eq!(answer.body["code"], "changed-meanwhile");
        assert!(
            answer.body["detail"]
                .as_str()
                .unwrap()
                .contains("read it again")
        );
    }
    let list = format!("{first}, {second}");
    let answer = ask(
        &world,
        "PATCH",
        "hook",
        &[("if-match", &list)],
        body.clone(),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = ask(&world, "PATCH", "hook", &[("if-match", "*")], body.clone()).await;
    assert_eq!(answer.status, 200);
    let answer = ask(&world, "PATCH", "hook", &[("if-match", "x")], body).await;
    assert_eq!(answer.status, 400);

    let id = attachment.id.as_str();
    let first = tag(&ask_attached(&world, "GET", id, &[], json!({})).await);
    let body = json!({ "wait_secs": 1 });
    let second = tag(&ask_attached(&world, "PATCH", id, &[("if-match", &first)], body).await);
    let stale = [("if-match", first.as_str())];
    let answer = ask_attached(&world, "PATCH", id, &stale, json!({ "wait_secs": 2 })).await;
    assert_eq!(answer.status, 412);
    assert_eq!(
        ask_attached(&world, "DELETE", id, &stale, json!({}))
            .await
            .status,
        412
    );
    let now = [("if-match", second.as_str())];
    assert_eq!(
        ask_attached(&world, "DELETE", id, &now, json!({}))
            .await
            .status,
        200
    );
    let now = tag(&ask(&world, "GET", "hook", &[], json!({})).await);
    let answer = ask(&world, "DELETE", "hook", &[("if-match", &now)], json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn those_of_a_list_have_their_tags_too() {
    let world = World::new();
    world.ready().await;
    let list = async |attached: bool| {
        if attached {
            let request = request(Role::Viewer, "GET /v1/attachments", &[], &[], &json!({}));
            answer(&world.memory, &request).await
        } else {
            let request = request(Role::Viewer, "GET /v1/registrations", &[], &[], &json!({}));
            answer(&world.memory, &request).await
        }
    };
    let registration = list(false).await.body["items"][0].clone();
    let one = ask(&world, "GET", "hook", &[], json!({})).await;
    assert_eq!(registration, one.body);
    let attachment = list(true).await.body["items"][0].clone();
    assert_eq!(attachment["registration"], registration);
    assert_ne!(attachment["etag"], registration["etag"]);
    let id = attachment["id"].as_str().unwrap();
    let one = ask_attached(&world, "GET", id, &[], json!({})).await;
    assert_eq!(attachment, one.body);
}

#[test]
fn a_verdict_of_faults_survives_the_way_between_functions() {
    let faults = vec![api::inputs::Fault {
        field: "x".into(),
        detail: "is required".into(),
    }];
    let verdict = Verdict::Faults(faults);
    let text = serde_json::to_string(&verdict).unwrap();
    assert_eq!(serde_json::from_str::<Verdict>(&text).unwrap(), verdict);
    let _: rows::Registration = serde_json::from_value(json!({
        "id": "r", "organization": "o", "name": "n", "integration": "webhook", "version": "1.0",
        "config": {}, "label": {}, "created_at": "2026-01-02T03:04:05.678Z",
    }))
    .unwrap();
}
