//! API responses to invalid requests, and pagination of lists.

use api::Role;
use memory::Memory;
use pipeline::config::Precondition;
use pipeline::engine::accept;
use pipeline::http::{self, Request, Response, functions};
use pipeline::records::audit_log::{self, Subject};
use serde_json::{Value, json};

use crate::archive;
use crate::asking::{answer, ask, request};
use crate::world::{World, act, attestation, promised_sbom, scope, tests};

/// A list's page, or what is wrong with the question.
async fn page(memory: &Memory, route: &str, query: &[(&str, &str)]) -> Response {
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let request = Request {
        query: query.iter().map(text).collect(),
        body: bytes::Bytes::new(),
        ..request(Role::Admin, route, &[], &[], &Value::Null)
    };
    answer(memory, &request).await
}

/// The ids, or whatever `name` is, of all items of a list, page by page; no page has more than its limit.
async fn walk(memory: &Memory, route: &str, query: &[(&str, &str)], name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = query.to_vec();
        query.push(("limit", "2"));
        if let Some(cursor) = &cursor {
            query.push(("cursor", cursor));
        }
        let answer = page(memory, route, &query).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let items = answer.body["items"].as_array().unwrap();
        assert!(items.len() <= 2, "{route}: {} items", items.len());
        found.extend(
            items
                .iter()
                .map(|item| item[name].as_str().unwrap().to_owned()),
        );
        match answer.body["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return found,
        }
    }
}

fn faults(answer: &Response) -> Vec<&str> {
    let faults = answer.body["faults"].as_array().into_iter().flatten();
    faults
        .map(|fault| fault["field"].as_str().unwrap())
        .collect()
}

const LISTS: [&str; 12] = [
    "GET /v1/integrations",
    "GET /v1/registrations",
    "GET /v1/intakes",
    "GET /v1/attachments",
    "GET /v1/attestations",
    "GET /v1/deliveries",
    "GET /v1/jobs",
    "GET /v1/audit-log",
    "GET /v1/tokens",
    "GET /v1/issuers",
    "GET /v1/trust-policies",
    "GET /v1/workflows",
];

#[tokio::test]
async fn a_cursor_that_no_page_gave_is_refused_and_named() {
    let world = World::new();
    for route in LISTS {
        for cursor in ["Not/A*Cursor", &"x".repeat(5_000)] {
            let answer = page(&world.memory, route, &[("cursor", cursor)]).await;
            let told = (answer.status, answer.body["code"].as_str(), faults(&answer));
            assert_eq!(told, (400, Some("bad-cursor"), vec!["cursor"]), "{route}");
        }
    }
}

#[tokio::test]
async fn a_limit_is_a_number_from_1_to_100() {
    let world = World::new();
    for route in LISTS {
        for (limit, status) in [
            ("1", 200),
            ("100", 200),
            ("0", 422),
            ("101", 422),
            ("ten", 422),
        ] {
            let answer = page(&world.memory, route, &[("limit", limit)]).await;
            assert_eq!(answer.status, status, "{route} {limit}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn integrations_come_by_pages() {
    let world = World::new();
    let ids = integrations::ALL
        .iter()
        .map(|one| one.id)
        .collect::<Vec<_>>();
    assert_eq!(
        walk(&world.memory, "GET /v1/integrations", &[], "id").await,
        ids
    );
}

#[tokio::test]
async fn attachments_come_by_pages_whether_many_are_of_one_registration_or_of_many() {
    let world = World::new();
    let mut ids = Vec::new();
    for (name, many) in [("a", 5), ("b", 0), ("c", 1), ("d", 2)] {
        world.register(name).await.unwrap();
        for _ in 0..many {
            ids.push(world.attach(name).await.id);
        }
        // In the order of their ids.
        let first = ids.len() - many;
        ids[first..].sort();
    }
    let list = "GET /v1/attachments";
    let workflow = [("workflow", crate::world::WORKFLOW)];
    for query in [&[][..], &workflow, &[("project", "shop")]] {
        assert_eq!(
            walk(&world.memory, list, query, "id").await,
            ids,
            "{query:?}"
        );
    }
    assert_eq!(
        walk(&world.memory, list, &[("registration", "a")], "id").await,
        ids[..5]
    );
    // The one at which the page ended is deleted: the next page begins behind where it was.
    let first = page(&world.memory, list, &[("limit", "2")]).await;
    pipeline::config::attach::detach(
        scope(&world.memory),
        &ids[1],
        &Precondition::default(),
        act(),
    )
    .await
    .unwrap();
    let next = first.body["next"].as_str().unwrap();
    let second = page(&world.memory, list, &[("limit", "2"), ("cursor", next)]).await;
    assert_eq!(second.body["items"][0]["id"], ids[2].as_str());
}

#[tokio::test]
async fn what_was_done_on_a_day_comes_by_pages() {
    let world = World::new();
    for number in 0..5 {
        let subject = format!("subject-{number}");
        let subject = Subject::new(subject, "");
        audit_log::record(scope(&world.memory), act(), subject, "")
            .await
            .unwrap();
        world.memory.advance(std::time::Duration::from_millis(1));
    }
    let subjects = walk(&world.memory, "GET /v1/audit-log", &[], "subject").await;
    let newest_first = (0..5).rev().map(|number| format!("subject-{number}"));
    assert_eq!(subjects, newest_first.collect::<Vec<_>>());
}

async fn post(world: &World, route: &str, path: &[(&str, &str)], body: Value) -> Response {
    ask(&world.memory, Role::Admin, route, path, body).await
}

#[tokio::test]
async fn all_faults_of_a_body_are_said_at_once_and_name_their_fields() {
    let world = World::new();
    world.register("hook").await.unwrap();
    for (route, body, wanted) in [
        (
            "POST /v1/registrations",
            json!({ "name": "Not A Label", "integration": "webhook", "description": 5, "inputs": { "ulr": 1 } }),
            &["description", "name", "ulr", "url"][..],
        ),
        (
            "POST /v1/registrations",
            json!({ "nmae": "x" }),
            &["integration", "name", "nmae"],
        ),
        (
            "POST /v1/attachments",
            json!({ "registration": "hook", "workflow": "nightly", "wait_secs": -1, "inputs": { "x": 1 } }),
            &["wait_secs", "workflow", "x"],
        ),
        (
            "POST /v1/tokens",
            json!({ "name": "", "role": "king", "expires_in_secs": 1, "x": null }),
            &["expires_in_secs", "name", "role", "x"],
        ),
        (
            "POST /v1/intakes",
            json!({ "name": "A", "cas_url": 1, "allow_from": "x", "overlap": 1 }),
            &["allow_from", "cas_url", "name", "overlap"],
        ),
        (
            "POST /v1/redeliveries",
            json!({ "state": "lost", "since": "yesterday", "per_second": 51, "dry_run": "no" }),
            &["dry_run", "per_second", "since", "state"],
        ),
    ] {
        let answer = post(&world, route, &[], body).await;
        let told = (answer.status, answer.body["code"].as_str(), faults(&answer));
        assert_eq!(
            told,
            (422, Some("invalid-inputs"), wanted.to_vec()),
            "{route} {}",
            answer.body
        );
    }
}

#[tokio::test]
async fn what_may_be_left_out_may_be_null_and_what_must_be_there_may_not() {
    let world = World::new();
    let body = json!({ "name": "ci", "role": "viewer", "expires_in_secs": null });
    assert_eq!(post(&world, "POST /v1/tokens", &[], body).await.status, 201);
    let body = json!({ "name": null, "role": null });
    let answer = post(&world, "POST /v1/tokens", &[], body).await;
    assert_eq!(
        (answer.status, faults(&answer)),
        (422, vec!["name", "role"])
    );
}

#[tokio::test]
async fn a_body_that_is_no_object_is_malformed_and_not_quoted() {
    let world = World::new();
    for body in [json!("canary"), json!(["canary"]), json!(null), json!(1)] {
        let answer = post(&world, "POST /v1/tokens", &[], body).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (400, &json!("malformed-body"))
        );
        assert!(!answer.body.to_string().contains("canary"));
    }
}

#[tokio::test]
async fn what_is_larger_than_a_row_can_be_is_refused_before_it_is_kept() {
    let world = World::new();
    world.register("hook").await.unwrap();
    let url = format!("{}/{}", world.receiver.url(), "x".repeat(60_000));
    let body = json!({ "integration": "webhook", "name": "large", "inputs": { "url": url } });
    let answer = post(&world, "POST /v1/registrations", &[], body).await;
    assert_eq!(
        (answer.status, faults(&answer)),
        (422, vec!["inputs"]),
        "{}",
        answer.body
    );
    let body = json!({
        "integration": "webhook", "name": "large", "description": "x".repeat(1_025),
        "inputs": { "url": world.receiver.url() },
    });
    let answer = post(&world, "POST /v1/registrations", &[], body).await;
    assert_eq!((answer.status, faults(&answer)), (422, vec!["description"]));
    let project = "p".repeat(513);
    let body = json!({ "registration": "hook", "workflow": "nightly", "project": project });
    let answer = post(&world, "POST /v1/attachments", &[], body).await;
    assert_eq!((answer.status, faults(&answer)), (422, vec!["project"]));
}

#[tokio::test]
async fn a_path_that_no_route_has_is_not_found_and_one_with_other_methods_names_them() {
    let world = World::new();
    world.ready().await;
    let routes = functions::registrations::<Memory, ()>();
    let ask = async |method: &str, path: &str| {
        let request = Request {
            method: method.into(),
            path: path.into(),
            ..request(Role::Admin, "GET /v1/registrations", &[], &[], &Value::Null)
        };
        let answer = http::answer(&routes, &world.memory, &request).await;
        let code = answer.body["code"].as_str().unwrap_or_default().to_owned();
        (answer.status, code, answer.headers.get("allow").cloned())
    };
    let found = (200, String::new(), None);
    let missing = (404, "not-found".to_owned(), None);
    for (method, path, expected) in [
        ("GET", "/v1/registrations/hook", &found),
        // Behind a domain name with a base path, and with a letter that needs no escape.
        ("GET", "/integrations/v1/registrations/hook", &found),
        ("GET", "/v1/registrations/%68ook", &found),
        ("GET", "/v1/registrations/hook/", &missing),
        ("GET", "/v1/registrations/", &missing),
        ("DELETE", "/v1/registrations/", &missing),
        ("POST", "/v1/intakes//rotate", &missing),
        ("GET", "/v1/registrations/%ff", &missing),
        ("GET", "/v1/registrations/hook/other", &missing),
        ("GET", "/v1/canary-path", &missing),
        ("GET", "/", &missing),
        ("GET", "", &missing),
    ] {
        assert_eq!(&ask(method, path).await, expected, "{method} {path}");
    }
    let other = |methods: &str| {
        let code = "method-not-allowed".to_owned();
        (405, code, Some(methods.to_owned()))
    };
    let put = ask("PUT", "/v1/registrations/hook").await;
    assert_eq!(put, other("GET, PATCH, DELETE"));
    assert_eq!(ask("HEAD", "/v1/intakes").await, other("POST, GET"));
    assert_eq!(ask("get", "/v1/intakes").await, other("POST, GET"));
}

#[tokio::test]
async fn a_name_too_long_for_any_row_is_not_found() {
    let world = World::new();
    let long = "x".repeat(5_000);
    for (route, name) in [
        ("GET /v1/registrations/{registration}", "registration"),
        ("DELETE /v1/registrations/{registration}", "registration"),
        ("DELETE /v1/intakes/{intake}", "intake"),
        ("POST /v1/intakes/{intake}/rotate", "intake"),
        ("GET /v1/attachments/{attachment}", "attachment"),
        ("GET /v1/deliveries/{delivery}", "delivery"),
        ("POST /v1/deliveries/{delivery}/redeliver", "delivery"),
        ("GET /v1/jobs/{job}", "job"),
        ("DELETE /v1/tokens/{token}", "token"),
        ("POST /v1/tokens/{token}/rotate", "token"),
    ] {
        let answer = post(&world, route, &[(name, &long)], json!({})).await;
        assert_eq!(answer.status, 404, "{route}: {}", answer.body);
    }
    let body = json!({ "registration": "", "workflow": "shop/nightly" });
    assert_eq!(
        post(&world, "POST /v1/attachments", &[], body).await.status,
        404
    );
}

#[tokio::test]
async fn an_attestation_with_a_name_in_it_too_long_for_any_row_is_refused() {
    let world = World::new();
    world.ready().await;
    let with = |name: String| {
        let mut material = promised_sbom();
        material.name = name;
        attestation("1", vec![material]).compact()
    };
    let refused = world.push(with("x".repeat(513))).await;
    assert!(
        matches!(refused, Err(accept::Error::NameTooLong(_))),
        "{refused:?}"
    );
    let refused = world
        .push(attestation(&"r".repeat(513), vec![]).compact())
        .await;
    assert!(
        matches!(refused, Err(accept::Error::NameTooLong(_))),
        "{refused:?}"
    );
    assert!(world.push(with("x".repeat(512))).await.is_ok());
}

#[tokio::test]
async fn an_attestation_of_a_workflow_with_a_name_too_long_for_any_key_is_refused() {
    let world = World::new();
    let bytes = bytes::Bytes::from(archive::of(&"x".repeat(513), 1));
    let refused = accept::pushed(scope(&world.memory), bytes, None, tests()).await;
    assert!(
        matches!(refused, Err(accept::Error::WorkflowTooLong)),
        "{refused:?}"
    );
    let bytes = bytes::Bytes::from(archive::of(&"x".repeat(512), 1));
    let accepted = accept::pushed(scope(&world.memory), bytes, None, tests()).await;
    assert!(accepted.is_ok(), "{accepted:?}");
}
