//! Attestations and workflows to look at, over memory.

use std::collections::BTreeSet;
use std::time::Duration;

use api::Role;
use api::workflows::Workflow;
use attestation::{Material, MaterialType, Metadata, Predicate, compose};
use bytes::Bytes;
use memory::Memory;
use pipeline::Platform;
use pipeline::engine::accept;
use pipeline::records::attestations::{self, Filter};
use pipeline::records::workflows;
use pipeline::store::rows;
use serde_json::{Value, json};

use crate::asking::ask;
use crate::world::{ORGANIZATION, SBOM, World, attestation, promised_sbom, scope, tests};

/// An attestation of a workflow; another `run` is another attestation.
pub fn of(name: &str, run: u32) -> Vec<u8> {
    let predicate = Predicate {
        metadata: Metadata {
            name: name.into(),
            project: "shop".into(),
            workflow_run_id: run.to_string(),
            ..Metadata::default()
        },
        ..Predicate::default()
    };
    let statement = compose::statement(&predicate, &[]);
    compose::envelope(statement, "", |bytes| bytes[..32].to_vec()).compact()
}

fn workflow(name: &str) -> Workflow {
    Workflow {
        project: "shop".into(),
        name: name.into(),
        ..Workflow::default()
    }
}

async fn push(memory: &Memory, bytes: Vec<u8>) -> String {
    let accepted = accept::pushed(scope(memory), Bytes::from(bytes), None, tests());
    accepted.await.unwrap().attestation.hash.to_string()
}

/// All of them, by pages of so many; no page may be empty before the last.
async fn walk(memory: &Memory, mut of: Filter, limit: usize) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let page = attestations::list(scope(memory), &of, limit);
        let (page, next) = page.await.unwrap();
        assert!(
            page.windows(2)
                .all(|two| two[0].created_at >= two[1].created_at)
        );
        let last = page.last().map(|one| one.created_at);
        assert!(
            next.is_none() || next < last,
            "{next:?} is not behind {last:?}"
        );
        found.extend(page.into_iter().map(|one| one.hash.to_string()));
        match next {
            Some(_) => of.until = next,
            None => return found,
        }
    }
}

#[tokio::test]
async fn every_attestation_is_listed_once_whatever_the_size_of_a_page() {
    let memory = Memory::default();
    let mut pushed = Vec::new();
    for run in 0..60_u32 {
        // Some workflows have many, some one, and several are accepted in the same moment.
        let name = match run % 4 {
            0 | 1 => "often".to_owned(),
            2 => format!("seldom-{}", run % 12),
            _ => format!("once-{run}"),
        };
        pushed.push(push(&memory, of(&name, run)).await);
        if run % 3 != 0 {
            memory.advance(Duration::from_millis(u64::from(run % 7)));
        }
    }
    let expected: BTreeSet<&String> = pushed.iter().collect();
    for limit in [1, 2, 3, 7, 20, 59, 60, 100] {
        let found = walk(&memory, Filter::default(), limit).await;
        assert_eq!(found.len(), 60, "by pages of {limit}");
        assert_eq!(found.iter().collect::<BTreeSet<_>>(), expected, "{limit}");
    }
    let workflow = workflow("often");
    for limit in [1, 7, 100] {
        let of = Filter {
            workflow: Some(workflow.clone()),
            ..Filter::default()
        };
        assert_eq!(walk(&memory, of, limit).await.len(), 30);
    }
}

#[tokio::test]
async fn a_list_since_a_time_ends_there() {
    let memory = Memory::default();
    for run in 0..10 {
        push(&memory, of("nightly", run)).await;
        memory.advance(Duration::from_hours(1));
    }
    let now = memory.now();
    let since = api::Timestamp::from_millis(now.millis() - 3_600_000 * 4);
    let of = Filter {
        since: Some(since),
        ..Filter::default()
    };
    assert_eq!(walk(&memory, of, 3).await.len(), 4);
}

/// Each workflow is asked for its newest, all at once.
#[tokio::test]
async fn a_list_of_more_workflows_than_can_be_asked_says_so() {
    let memory = Memory::default();
    push(&memory, of("nightly", 0)).await;
    for number in 0..attestations::WORKFLOWS {
        let row = rows::WorkflowRecord {
            organization: ORGANIZATION.clone(),
            workflow: workflow(&number.to_string()),
            first_seen_at: memory.now(),
        };
        memory
            .write(vec![rows::insert(&memory, &row).0])
            .await
            .unwrap();
    }
    let list = "GET /v1/attestations";
    let refused = ask(&memory, Role::Viewer, list, &[], json!({})).await;
    assert_eq!(
        (refused.status, &refused.body["code"]),
        (422, &json!("invalid-inputs"))
    );
    assert_eq!(refused.body["faults"][0]["field"], "workflow");
    let of = Filter {
        workflow: Some(workflow("nightly")),
        ..Filter::default()
    };
    assert_eq!(walk(&memory, of, 3).await.len(), 1);
}

/// A hundred receipts of the largest kind are more than a function may answer.
#[tokio::test]
async fn a_list_leaves_out_receipts_that_are_large() {
    let world = World::new();
    world.ready().await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    world.deliver().await;
    let (delivery, _) = world.delivery(&accepted).await;
    let id = delivery.id.to_string();
    for (length, is_listed) in [(16_000, true), (17_000, false)] {
        let key = rows::Delivery::at(&ORGANIZATION, &delivery.id);
        let mut stored = rows::load::<rows::Delivery>(&world.memory, &key)
            .await
            .unwrap()
            .unwrap();
        let text = Value::from("x".repeat(length));
        stored.row.receipt = Some([("text".to_owned(), text)].into_iter().collect());
        let (write, _) = stored.update(&world.memory);
        world.memory.write(vec![write]).await.unwrap();
        let list = ask(
            &world.memory,
            Role::Viewer,
            "GET /v1/deliveries",
            &[],
            json!({}),
        )
        .await;
        assert_eq!(list.body["items"][0]["receipt"].is_object(), is_listed);
        let path = [("delivery", id.as_str())];
        let one = ask(
            &world.memory,
            Role::Viewer,
            "GET /v1/deliveries/{delivery}",
            &path,
            json!({}),
        )
        .await;
        assert!(one.body["receipt"].is_object());
    }
}

async fn get(memory: &Memory, route: &str, digest: &str) -> (u16, Value) {
    let path = [("digest", digest)];
    let answer = ask(memory, Role::Viewer, route, &path, json!({})).await;
    (answer.status, answer.body)
}

const DESCRIBE: &str = "GET /v1/attestations/{digest}";

#[tokio::test]
async fn a_description_says_where_each_material_is_and_what_became_of_each_delivery() {
    let world = World::new();
    world.ready().await;
    let image = attestation::Digest::of(b"image");
    let materials = vec![
        promised_sbom(),
        Material::string("note", &"x".repeat(1_000)),
        Material::inline(
            "report",
            MaterialType::SARIF,
            "report.sarif",
            b"{}".to_vec(),
        ),
        Material::image("image", "registry.example.org/shop", image),
    ];
    let accepted = world.push(attestation("1", materials).compact()).await;
    let row = accepted.unwrap().attestation;
    let digest = row.hash.to_string();
    let (status, body) = get(&world.memory, DESCRIBE, &digest).await;
    assert_eq!(status, 200, "{body}");
    let places = |body: &Value| -> Vec<(String, String)> {
        let materials = body["contents"]["materials"].as_array().unwrap().iter();
        let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
        let pairs = materials.map(|one| (text(one, "name"), text(one, "place")));
        pairs.collect()
    };
    let expected = |sbom: &str| {
        [
            ("sbom", sbom),
            ("note", "inline"),
            ("report", "inline"),
            ("image", "elsewhere"),
        ]
        .map(|(name, place)| (name.to_owned(), place.to_owned()))
    };
    assert_eq!(places(&body), expected("missing"));
    assert_eq!(body["contents"]["form"], "envelope");
    assert_eq!(body["contents"]["policy"]["status"], "NOT_APPLICABLE");
    let note = &body["contents"]["materials"][1]["value"];
    assert_eq!(
        note.as_str().unwrap().len(),
        300,
        "a text is not told whole"
    );
    assert_eq!(body["deliveries"][0]["state"], "pending");

    let sbom = attestation::Digest::of(SBOM);
    world
        .memory
        .put_object(&ORGANIZATION, &sbom, Bytes::from_static(SBOM))
        .await
        .unwrap();
    world.pass(Duration::from_mins(5)).await;
    // By the digest of what was received it is the same.
    let (_, body) = get(&world.memory, DESCRIBE, &row.received.to_string()).await;
    assert_eq!(places(&body), expected("uploaded"));
    assert_eq!(body["deliveries"][0]["state"], "delivered");
    let (status, body) = get(
        &world.memory,
        "GET /v1/materials/{digest}",
        &sbom.to_string(),
    )
    .await;
    assert_eq!((status, &body["size_bytes"]), (200, &json!(SBOM.len())));
}

#[tokio::test]
async fn bytes_that_are_gone_or_damaged_are_told() {
    let memory = Memory::default();
    let digest = push(&memory, of("nightly", 1)).await;
    let (_, body) = get(&memory, DESCRIBE, &digest).await;
    assert_eq!(body["bytes"], "kept");
    let received = body["received"].as_str().unwrap().parse().unwrap();
    memory.spoil(&ORGANIZATION, &received, Some(Bytes::from_static(b"{}")));
    let (status, body) = get(&memory, DESCRIBE, &digest).await;
    assert_eq!(
        (status, &body["bytes"], &body["contents"]),
        (200, &json!("damaged"), &Value::Null)
    );
    memory.spoil(&ORGANIZATION, &received, None);
    let (_, body) = get(&memory, DESCRIBE, &digest).await;
    assert_eq!(body["bytes"], "gone");
    let content = get(&memory, "GET /v1/attestations/{digest}/content", &digest).await;
    assert_eq!((content.0, &content.1["code"]), (404, &json!("not-found")));
}

#[tokio::test]
async fn a_workflow_that_was_seen_says_when_last_and_to_how_many_it_goes() {
    let world = World::new();
    world.ready().await;
    world.attach("hook").await;
    let memory = &world.memory;
    world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    memory.advance(Duration::from_hours(1));
    world
        .push(attestation("2", vec![]).compact())
        .await
        .unwrap();
    let last = memory.now();
    memory.advance(Duration::from_hours(1));
    push(memory, of("weekly", 1)).await;
    let (mut known, mut after) = (Vec::new(), None);
    loop {
        let page = workflows::list(scope(memory), after.as_deref(), 1);
        let (page, next) = page.await.unwrap();
        known.extend(page);
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    known.sort_by(|a, b| a.seen.workflow.name.cmp(&b.seen.workflow.name));
    let told: Vec<_> = known
        .iter()
        .map(|one| {
            (
                one.seen.workflow.name.as_str(),
                one.attested_at,
                one.attachments,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("nightly", Some(last), 2),
            ("weekly", Some(memory.now()), 0)
        ]
    );
}
