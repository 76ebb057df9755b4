//! Quotas and pace, over memory: what is refused, what is free, and how far off the counts may be.

use std::time::Duration;

use api::Role;
use attestation::Digest;
use bytes::Bytes;
use futures_util::future::join_all;
use memory::Memory;
use pipeline::config::quotas;
use pipeline::engine::accept;
use pipeline::http::{Request, Response};
use pipeline::records::audit_log::{self, Subject};
use pipeline::store::meter::{self, Meter, Quotas, READ_EVERY, Used};
use pipeline::store::platform::Platform;
use serde_json::{Value, json};

use crate::asking::{answer, answer_on, function, request};
use crate::roles::As;
use crate::world::{ORGANIZATION, WORKFLOW, World, act, attestation, promised_sbom, scope, tests};

fn world(quotas: Quotas) -> World {
    let mut world = World::new();
    world.memory.meter = Meter::new(quotas);
    world
}

fn usual() -> Quotas {
    Quotas {
        checks: 6_000,
        ..Quotas::default()
    }
}

async fn post(memory: &Memory, route: &str, path: &[(&str, &str)], body: Value) -> Response {
    let request = request(Role::Admin, route, path, &[], &body);
    answer(memory, &request).await
}

async fn push(memory: &Memory, bytes: Vec<u8>) -> Response {
    let route = "POST /v1/attestations";
    let request = Request {
        body: bytes.into(),
        ..request(Role::Producer, route, &[], &[], &Value::Null)
    };
    answer(memory, &request).await
}

fn code(response: &Response) -> (u16, &str) {
    (
        response.status,
        response.body["code"].as_str().unwrap_or_default(),
    )
}

#[tokio::test]
async fn what_exceeds_a_days_quota_is_refused_unkept_and_a_repeat_is_free() {
    let world = world(Quotas {
        attestations: 2,
        ..usual()
    });
    world.ready().await;
    let of = |run: &str| attestation(run, vec![]).compact();
    for run in ["1", "2"] {
        assert_eq!(push(&world.memory, of(run)).await.status, 202);
    }
    let refused = push(&world.memory, of("3")).await;
    assert_eq!(code(&refused), (429, "quota-exceeded"));
    let left = meter::resets_at(world.memory.now()).since(world.memory.now());
    assert_eq!(refused.headers["retry-after"], left.as_secs().to_string());
    assert_eq!(
        refused.body["quota"],
        json!({
            "name": "attestations", "limit": 2, "used": 2,
            "resets_at": meter::resets_at(world.memory.now()),
        })
    );
    let digest = Digest::of(&of("3"));
    let kept = world.memory.object_size(&ORGANIZATION, &digest);
    assert_eq!(kept.await.unwrap(), None);
    let again = push(&world.memory, of("2")).await;
    assert_eq!((again.status, &again.body["repeated"]), (202, &json!(true)));
    let used = quotas::used(scope(&world.memory)).await.unwrap();
    assert_eq!(used.attestations, 2);
    assert_eq!(used.bytes, 2 * of("1").len() as u64);
    world.memory.advance(left);
    assert_eq!(push(&world.memory, of("3")).await.status, 202);
}

/// White space makes other bytes of the same envelope, and each form would be kept.
#[tokio::test]
async fn a_known_envelope_in_other_bytes_costs_those_bytes() {
    let compact = attestation("1", vec![]).compact();
    let form = |spaces: usize| [b" ".repeat(spaces), compact.clone()].concat();
    let most = 2 * compact.len() as u64 + 1;
    let world = world(Quotas {
        bytes: most,
        ..usual()
    });
    world.ready().await;
    for spaces in [0, 1, 1, 0] {
        assert_eq!(push(&world.memory, form(spaces)).await.status, 202);
    }
    let used = quotas::used(scope(&world.memory)).await.unwrap();
    assert_eq!((used.attestations, used.bytes), (1, most));
    let refused = push(&world.memory, form(2)).await;
    assert_eq!(code(&refused), (429, "quota-exceeded"));
    let digest = Digest::of(&form(2));
    let kept = world.memory.object_size(&ORGANIZATION, &digest);
    assert_eq!(kept.await.unwrap(), None);
    assert_eq!(push(&world.memory, form(1)).await.status, 202);
}

/// More forms than a row has room for get the same answer, and are not kept: nothing would point to them.
#[tokio::test]
async fn forms_beyond_those_that_are_remembered_are_not_kept() {
    let world = world(usual());
    world.ready().await;
    let compact = attestation("1", vec![]).compact();
    let form = |spaces: usize| [b" ".repeat(spaces), compact.clone()].concat();
    for spaces in 0..=101 {
        let answer = push(&world.memory, form(spaces)).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        let digest = Digest::of(&form(spaces));
        let kept = world.memory.object_size(&ORGANIZATION, &digest).await;
        assert_eq!(kept.unwrap().is_some(), spaces <= 100, "{spaces}");
    }
}

#[tokio::test]
async fn bytes_of_materials_count_when_they_may_be_sent_and_are_free_when_they_are_here() {
    let mut world = world(Quotas {
        bytes: 1_000,
        ..usual()
    });
    let route = "PUT /v1/materials/{digest}";
    let ask = async |memory: &Memory, bytes: &[u8], size: u64| {
        let digest = Digest::of(bytes).to_string();
        let body = json!({ "size_bytes": size });
        post(memory, route, &[("digest", &digest)], body).await
    };
    assert_eq!(ask(&world.memory, b"a", 900).await.status, 200);
    let refused = ask(&world.memory, b"b", 101).await;
    assert_eq!(code(&refused), (429, "quota-exceeded"));
    assert_eq!(refused.body["quota"]["name"], "bytes");
    assert_eq!(ask(&world.memory, b"b", 100).await.status, 200);
    let (bytes, digest) = (Bytes::from_static(b"a"), Digest::of(b"a"));
    let kept = world.memory.put_object(&ORGANIZATION, &digest, bytes);
    kept.await.unwrap();
    assert_eq!(ask(&world.memory, b"a", 900).await.body["state"], "present");
    world.memory.meter.quotas.bytes = 1_001;
    let refused = push(&world.memory, attestation("1", vec![]).compact()).await;
    assert_eq!(code(&refused), (429, "quota-exceeded"));
}

#[tokio::test]
async fn a_push_gains_one_addition_and_reads_no_more_than_before() {
    let world = World::new();
    world.ready().await;
    let role = As::function(&world.memory, "attestations");
    let mut reads = Vec::new();
    for run in ["1", "2", "3"] {
        let bytes = Bytes::from(attestation(run, vec![]).compact());
        let before = (role.rows_read.get(), role.additions.get());
        accept::pushed(scope(&role), bytes.clone(), None, tests())
            .await
            .unwrap();
        reads.push(role.rows_read.get() - before.0);
        assert_eq!(role.additions.get() - before.1, 1);
        accept::pushed(scope(&role), bytes, None, tests())
            .await
            .unwrap();
        assert_eq!(role.additions.get() - before.1, 1, "a repeat adds nothing");
    }
    let shards = usize::try_from(pipeline::store::rows::SHARDS).unwrap();
    // The first of an environment reads the counters, and says once that the workflow was seen.
    assert!(reads[0] > shards, "{reads:?}");
    assert_eq!(reads[1], reads[2]);
    assert!(reads[1] < shards, "{reads:?}");
}

#[tokio::test]
async fn a_counter_that_cannot_be_reached_fails_no_push() {
    let world = world(usual());
    world.ready().await;
    world.memory.fail_adds.set(true);
    let pushed = push(&world.memory, attestation("1", vec![]).compact()).await;
    assert_eq!(pushed.status, 202);
    let used = quotas::used(scope(&world.memory)).await.unwrap();
    assert_eq!(used, Used::default());
}

#[tokio::test]
async fn pushes_at_the_same_time_are_all_accepted_and_all_counted() {
    let world = World::new();
    world.ready().await;
    let pushes = (0..64).map(|run| {
        push(
            &world.memory,
            attestation(&run.to_string(), vec![]).compact(),
        )
    });
    for pushed in join_all(pushes).await {
        assert_eq!(pushed.status, 202);
    }
    let used = quotas::used(scope(&world.memory)).await.unwrap();
    assert_eq!(used.attestations, 64);
    let partition = |key: &pipeline::store::platform::Key| key.partition.starts_with("usage/");
    let shards = world
        .memory
        .rows()
        .iter()
        .filter(|key| partition(key))
        .count();
    assert!(shards >= 8, "{shards} shards for 64 pushes");
}

/// The assumption: a whole quota takes 200 s or longer to use up, however the pushes are spread.
#[tokio::test]
async fn many_environments_exceed_a_quota_by_five_percent_at_most() {
    for (environments, limit) in [
        (1, 1_000),
        (3, 1_000),
        (40, 1_000),
        (200, 1_000),
        (16, 7_000),
    ] {
        let mut memory = Memory::default();
        memory.meter = Meter::new(Quotas {
            attestations: limit,
            ..Quotas::default()
        });
        let memory = memory;
        let all: Vec<As<'_>> = (0..environments)
            .map(|_| As::function(&memory, "attestations"))
            .collect();
        let mut accepted = 0;
        let every = Duration::from_millis(200_000 / limit);
        for number in 0..limit * 2 {
            let which = usize::try_from(memory.random() % all.len() as u64).unwrap();
            let one = Used::attestation(1);
            if quotas::daily(scope(&all[which]), one).await.is_ok() {
                let digest = Digest::of(&number.to_be_bytes());
                quotas::count(scope(&all[which]), &digest, one).await;
                accepted += 1;
            }
            memory.advance(every);
        }
        assert!(
            (limit..=limit + limit / 20).contains(&accepted),
            "{environments} environments took {accepted} of {limit}"
        );
    }
}

#[tokio::test]
async fn an_environment_sees_what_others_pushed_after_ten_seconds() {
    let mut memory = Memory::default();
    memory.meter.quotas.attestations = 1;
    let (a, b) = (
        As::function(&memory, "attestations"),
        As::function(&memory, "attestations"),
    );
    let one = Used::attestation(1);
    let may = async |role: &As<'_>| quotas::daily(scope(role), one).await.is_ok();
    assert!(may(&a).await && may(&b).await);
    quotas::count(scope(&a), &Digest::of(b"1"), one).await;
    assert!(!may(&a).await, "its own push it knows of at once");
    assert!(may(&b).await);
    memory.advance(READ_EVERY);
    assert!(!may(&b).await);
}

/// A body with this name.
type Body<'a> = &'a dyn Fn(&str) -> Value;

#[tokio::test]
async fn registrations_intakes_and_tokens_are_as_many_as_their_quotas_say() {
    let world = world(Quotas {
        registrations: 2,
        intakes: 2,
        tokens: 2,
        ..usual()
    });
    let url = world.receiver.url();
    let registration = |name: &str| {
        let secret = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";
        let inputs = json!({ "url": url, "secret": secret });
        json!({ "integration": "webhook", "name": name, "inputs": inputs })
    };
    let intake = |name: &str| json!({ "name": name });
    let token = |name: &str| json!({ "name": name, "role": "viewer" });
    for (what, body) in [
        ("registration", &registration as Body<'_>),
        ("intake", &intake),
        ("token", &token),
    ] {
        let create = format!("POST /v1/{what}s");
        for name in ["a", "b"] {
            let made = post(&world.memory, &create, &[], body(name)).await;
            assert_eq!(made.status, 201, "{}", made.body);
        }
        let refused = post(&world.memory, &create, &[], body("c")).await;
        assert_eq!(code(&refused), (429, "quota-exceeded"), "{}", refused.body);
        assert!(!refused.headers.contains_key("retry-after"), "{what}");
        assert_eq!(
            refused.body["quota"],
            json!({ "name": format!("{what}s"), "limit": 2, "used": 2, "resets_at": null })
        );
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(
            detail.ends_with("delete those that nobody needs"),
            "{detail}"
        );
        let delete = format!("DELETE /v1/{what}s/{{{what}}}");
        let gone = post(&world.memory, &delete, &[(what, "a")], Value::Null).await;
        assert_eq!(gone.status, 200, "{}", gone.body);
        let made = post(&world.memory, &create, &[], body("c")).await;
        assert_eq!(made.status, 201, "{}", made.body);
    }
    let answer = post(&world.memory, "GET /v1/quotas", &[], Value::Null).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.body["quotas"][2],
        json!({ "name": "registrations", "limit": 2, "used": 2, "resets_at": null })
    );
    assert_eq!(answer.body["checks_per_minute"], 6_000);
}

#[tokio::test]
async fn a_token_whose_time_is_over_leaves_room_for_its_successor() {
    let world = world(Quotas {
        tokens: 1,
        ..usual()
    });
    let token = |name: &str| json!({ "name": name, "role": "viewer", "expires_in_secs": 60 });
    let route = "POST /v1/tokens";
    assert_eq!(
        post(&world.memory, route, &[], token("a")).await.status,
        201
    );
    assert_eq!(
        post(&world.memory, route, &[], token("b")).await.status,
        429
    );
    world.memory.advance(Duration::from_secs(61));
    assert_eq!(
        post(&world.memory, route, &[], token("b")).await.status,
        201
    );
}

#[tokio::test]
async fn whatever_asks_a_third_party_goes_at_the_tokens_pace() {
    let world = world(Quotas {
        // One at once, and one a minute.
        checks: 1,
        ..Quotas::default()
    });
    world.register("hook").await.unwrap();
    world.memory.advance(Duration::from_mins(1));
    let attachment = world.attach("hook").await;
    world.memory.advance(Duration::from_mins(1));
    let pushed = push(&world.memory, attestation("1", vec![]).compact()).await;
    let digest = pushed.body["attestation"].clone();
    let hook = [("registration", "hook")];
    let attached = [("attachment", attachment.id.as_str())];
    let inputs = json!({ "url": world.receiver.url(), "secret": "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0" });
    // Its address is a secret, too.
    let secrets = inputs.clone();
    let taken = pipeline::config::pace::take(scope(&world.memory), tests()).await;
    assert!(taken.is_ok());
    let before = world.memory.rows();
    for (route, path, body) in [
        (
            "POST /v1/registrations",
            &[][..],
            json!({ "integration": "webhook", "name": "other", "inputs": inputs }),
        ),
        (
            "PATCH /v1/registrations/{registration}",
            &hook,
            json!({ "inputs": inputs }),
        ),
        (
            "POST /v1/registrations/{registration}/rotate",
            &hook,
            json!({ "inputs": secrets }),
        ),
        (
            "POST /v1/registrations/{registration}/test",
            &hook,
            json!({}),
        ),
        (
            "POST /v1/attachments",
            &[],
            json!({ "registration": "hook", "workflow": "shop/other" }),
        ),
        (
            "PATCH /v1/attachments/{attachment}",
            &attached,
            json!({ "inputs": {} }),
        ),
        (
            "POST /v1/attachments/{attachment}/preview",
            &attached,
            json!({ "attestation": digest }),
        ),
        // A job is work for all that share the reconciler.
        ("POST /v1/audits", &[], json!({})),
        (
            "POST /v1/attachments/{attachment}/backfill",
            &attached,
            json!({ "dry_run": true }),
        ),
        ("POST /v1/redeliveries", &[], json!({ "dry_run": true })),
    ] {
        let refused = post(&world.memory, route, path, body).await;
        assert_eq!(code(&refused), (429, "too-many-checks"), "{route}");
        assert_eq!(refused.headers["retry-after"], "60", "{route}");
        assert_eq!(refused.body["quota"]["limit"], 1);
        assert_eq!(world.memory.rows(), before, "{route} left something");
    }
    // What asks nobody is not paced.
    let renamed = json!({ "description": "the hook" });
    let route = "PATCH /v1/registrations/{registration}";
    assert_eq!(post(&world.memory, route, &hook, renamed).await.status, 200);
}

#[tokio::test]
async fn a_repeat_by_its_key_is_not_paced() {
    let world = world(Quotas {
        checks: 1,
        ..Quotas::default()
    });
    let inputs = json!({ "url": world.receiver.url(), "secret": "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0" });
    let body = json!({ "integration": "webhook", "name": "hook", "inputs": inputs });
    let route = "POST /v1/registrations";
    let key = [("idempotency-key", "one")];
    let first = request(Role::Admin, route, &[], &key, &body);
    let role = function(&world.memory, &first);
    let made = answer_on(&role, &first).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(answer_on(&role, &first).await, made);
    // Refused for its pace, the same key is good for another try.
    let body = json!({ "registration": "hook", "workflow": WORKFLOW });
    let route = "POST /v1/attachments";
    let second = request(
        Role::Admin,
        route,
        &[],
        &[("idempotency-key", "two")],
        &body,
    );
    let role = function(&world.memory, &second);
    assert_eq!(
        code(&answer_on(&role, &second).await),
        (429, "too-many-checks")
    );
    world.memory.advance(Duration::from_mins(1));
    assert_eq!(answer_on(&role, &second).await.status, 201);
}

#[tokio::test]
async fn an_attestation_is_described_with_a_hundred_materials_at_a_time() {
    let world = World::new();
    let materials = (0..250).map(|number| {
        let mut material = promised_sbom();
        material.name = format!("sbom-{number}");
        material.digest = Some(Digest::of(number.to_string().as_bytes()));
        material
    });
    let pushed = push(
        &world.memory,
        attestation("1", materials.collect()).compact(),
    )
    .await;
    let digest = pushed.body["attestation"].as_str().unwrap().to_owned();
    let route = "GET /v1/attestations/{digest}";
    let get = async |from: &str| {
        let query = match from {
            "" => Vec::new(),
            from => vec![("materials_from".to_owned(), from.to_owned())],
        };
        let request = Request {
            query: query.into_iter().collect(),
            ..request(
                Role::Viewer,
                route,
                &[("digest", &digest)],
                &[],
                &Value::Null,
            )
        };
        let role = function(&world.memory, &request);
        let response = answer_on(&role, &request).await;
        (response, role.objects_asked.get())
    };
    for (from, first, count) in [
        ("", "sbom-0", 100),
        ("100", "sbom-100", 100),
        ("200", "sbom-200", 50),
    ] {
        let (response, asked) = get(from).await;
        let contents = &response.body["contents"];
        let shown = contents["materials"].as_array().unwrap();
        assert_eq!((shown.len(), asked), (count, count));
        assert_eq!(shown[0]["name"], first);
        assert_eq!(contents["materials_total"], 250);
    }
    let (response, _) = get("250").await;
    assert_eq!(response.body["contents"]["materials"], json!([]));
    for wrong in ["-1", "x", "1000001"] {
        let (response, _) = get(wrong).await;
        assert_eq!(code(&response), (422, "invalid-inputs"), "{wrong}");
    }
}

/// Reads of a page follow from its limit, and not from what there is.
#[tokio::test]
async fn a_page_reads_as_much_as_it_shows() {
    let world = world(Quotas {
        checks: u64::from(u32::MAX),
        ..Quotas::default()
    });
    let memory = &world.memory;
    for number in 0..30 {
        let name = format!("hook-{number}");
        world.register(&name).await.unwrap();
        for _ in 0..10 {
            world.attach(&name).await;
        }
        let subject = Subject::new("s", "1");
        let told = audit_log::record(scope(memory), act(), subject, "");
        told.await.unwrap();
        let dry = json!({ "state": "failed", "dry_run": true });
        let job = post(memory, "POST /v1/redeliveries", &[], dry).await;
        assert_eq!(job.status, 202);
        for (route, body) in [
            ("POST /v1/intakes", json!({ "name": name })),
            ("POST /v1/tokens", json!({ "name": name, "role": "viewer" })),
        ] {
            assert_eq!(post(memory, route, &[], body).await.status, 201);
        }
    }
    for (list, all, most) in [
        ("jobs", 30, 6),
        ("audit-log", 30 * 10, 6),
        // An intake and its last use.
        ("intakes", 30, 10),
        // A name, its token and that one's last use.
        ("tokens", 30, 15),
        // A name and what it is the name of.
        ("registrations", 30, 10),
        // And the links of ten registrations, whose attachments may all be others'.
        ("attachments", 300, 5 + 10 + 10 * 6 + 5),
    ] {
        let route = format!("GET /v1/{list}");
        let (mut found, mut cursor) = (0, String::new());
        loop {
            let query = [("limit", "5"), ("cursor", cursor.as_str())];
            let query = query.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let request = Request {
                query: query.into_iter().collect(),
                body: Bytes::new(),
                ..request(Role::Admin, &route, &[], &[], &Value::Null)
            };
            let role = function(memory, &request);
            let response = answer_on(&role, &request).await;
            assert_eq!(response.status, 200, "{}", response.body);
            let read = role.rows_read.get();
            assert!(read <= most, "{list}: a page of five reads {read} rows");
            found += response.body["items"].as_array().unwrap().len();
            match response.body["next"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        assert!(found >= all, "{list}: {found} of {all}");
    }
}
