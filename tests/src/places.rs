//! Places that have evidence of a digest, over memory.

use std::time::Duration;

use api::Role;
use api::places::PresenceState;
use api::workflows::Selector;
use attestation::{
    Digest, Envelope, Material, MaterialType, Metadata, Predicate, Subject, compose,
};
use integrations::webhook::Webhook;
use pipeline::Platform as _;
use pipeline::config::check::PresenceCheck;
use pipeline::config::{Precondition, register};
use pipeline::engine::accept::DIGESTS;
use pipeline::engine::deliver::Tools;
use pipeline::engine::deliver::presence::presence;
use pipeline::http::{Request, Response};
use pipeline::ledger::schedule;
use pipeline::store::rows::DigestIndex;
use serde_json::{Value, json};

use crate::asking::{answer, request};
use crate::receipts::id;
use crate::roles::As;
use crate::world::{ORGANIZATION, SBOM, World, act, attestation, http, promised_sbom, scope};

const ROUTE: &str = "GET /v1/digests/{digest}/places";

async fn ask(world: &World, digest: &str, query: &[(&str, &str)], of: &[&str]) -> Response {
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut request = Request {
        query: query.iter().map(text).collect(),
        ..request(
            Role::Viewer,
            ROUTE,
            &[("digest", digest)],
            &[],
            &Value::Null,
        )
    };
    let caller = request.caller.as_mut().unwrap();
    caller.workflows = of.iter().map(|one| Selector((*one).to_owned())).collect();
    answer(&world.memory, &request).await
}

/// All places of a digest, as a token that is restricted to these workflows sees them, by pages of so many.
async fn walk(world: &World, digest: &str, limit: &str, of: &[&str]) -> Vec<Value> {
    let mut found = Vec::new();
    let mut cursor = None::<String>;
    loop {
        let mut query = vec![("limit", limit)];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = ask(world, digest, &query, of).await;
        assert_eq!(page.status, 200, "{}", page.body);
        found.extend(page.body["items"].as_array().unwrap().clone());
        match page.body["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return found,
        }
    }
}

fn image(name: &str) -> Subject {
    Subject {
        name: name.to_owned(),
        digests: [
            ("sha1".to_owned(), "00".repeat(20)),
            ("sha256".to_owned(), Digest::of(name.as_bytes()).hex()),
        ]
        .into(),
        annotations: std::collections::BTreeMap::default(),
    }
}

/// An attestation of a workflow about these subjects.
fn about(workflow: &str, run: usize, subjects: &[Subject], materials: Vec<Material>) -> Envelope {
    let (project, name) = workflow.split_once('/').unwrap();
    let predicate = Predicate {
        metadata: Metadata {
            name: name.into(),
            workflow_name: name.into(),
            project: project.into(),
            workflow_run_id: run.to_string(),
            ..Metadata::default()
        },
        materials,
        ..Predicate::default()
    };
    let statement = compose::statement(&predicate, subjects);
    compose::envelope(statement, "", |bytes| bytes[..32].to_vec())
}

async fn put_sbom(world: &World) {
    let digest = Digest::of(SBOM);
    let put = world.memory.put_object(&ORGANIZATION, &digest, SBOM.into());
    put.await.unwrap();
}

#[tokio::test]
async fn an_attestation_its_subject_and_its_material_lead_to_where_they_went() {
    let world = World::new();
    put_sbom(&world).await;
    world.register("hook").await.unwrap();
    world
        .attach_with("hook", json!({ "send_sbom": true }))
        .await;
    let shop = image("shop");
    let envelope = about(
        "shop/nightly",
        1,
        std::slice::from_ref(&shop),
        vec![promised_sbom()],
    );
    let accepted = world.push(envelope.compact()).await.unwrap();
    let bundle = compose::bundle(&envelope);
    world.push(bundle.clone()).await.unwrap();
    world.deliver().await;
    let sbom = Digest::of(SBOM).to_string();
    for (digest, is_in_receipt) in [
        (envelope.hash().to_string(), false),
        (Digest::of(&bundle).to_string(), false),
        (shop.digests["sha256"].to_uppercase(), false),
        (sbom.clone(), true),
    ] {
        let [place] = &walk(&world, &digest, "50", &[]).await[..] else {
            panic!("one place has {digest}")
        };
        assert_eq!(place["id"], id(&accepted), "{digest}");
        assert_eq!(place["state"], "delivered", "{digest}");
        assert_eq!(place["registration_name"], "hook", "{digest}");
        assert_eq!(place["attestation"], json!(envelope.hash()), "{digest}");
        assert_eq!(place["in_receipt"], is_in_receipt, "{digest}: {place}");
        assert!(place["receipt"].is_object(), "{digest}: {place}");
    }
    // A registration that is gone took what it took.
    let any = Precondition::default();
    let deleted = register::delete(scope(&world.memory), "hook", &any, act());
    deleted.await.unwrap();
    assert_eq!(
        walk(&world, &sbom, "50", &[]).await[0]["registration_name"],
        "hook"
    );
}

#[tokio::test]
async fn a_digest_that_nothing_names_is_unknown_and_one_without_deliveries_is_not() {
    let world = World::new();
    let envelope = about("shop/nightly", 1, &[image("shop")], Vec::new());
    world.push(envelope.compact()).await.unwrap();
    let unknown = Digest::of(b"another").to_string();
    let response = ask(&world, &unknown, &[], &[]).await;
    assert_eq!(
        (response.status, &response.body["code"]),
        (404, &json!("not-found"))
    );
    let known = Digest::of(b"shop").to_string();
    assert_eq!(walk(&world, &known, "50", &[]).await, Vec::<Value>::new());
    let response = ask(&world, "sha256:00", &[], &[]).await;
    assert_eq!(response.status, 422, "{}", response.body);
    for cursor in [
        "x",
        "2026-01-02T03:04:05.678Z",
        "2026-01-02T03:04:05.678Z_00_x",
    ] {
        let response = ask(&world, &known, &[("cursor", cursor)], &[]).await;
        assert_eq!(response.body["code"], "bad-cursor", "{cursor}");
    }
}

#[tokio::test]
async fn many_attestations_about_one_subject_come_by_pages_newest_first() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.register(name).await.unwrap();
        world.attach(name).await;
    }
    let mut expected = Vec::new();
    let subject = [image("shop")];
    for run in 0..4 {
        // Two at the same moment.
        world.memory.advance(Duration::from_secs(run as u64 % 2));
        let envelope = about("shop/nightly", run, &subject, Vec::new());
        let accepted = world.push(envelope.compact()).await.unwrap();
        let row = &accepted.attestation;
        for (id, _) in accepted.plan.deliveries() {
            expected.push((row.created_at, row.hash, id.to_string()));
        }
    }
    expected.sort();
    expected.reverse();
    let expected: Vec<String> = expected.into_iter().map(|(.., id)| id).collect();
    let digest = Digest::of(b"shop").to_string();
    for limit in ["1", "2", "3", "5", "100"] {
        let found = walk(&world, &digest, limit, &[]).await;
        let found: Vec<&str> = found
            .iter()
            .map(|one| one["id"].as_str().unwrap())
            .collect();
        assert_eq!(found, expected, "{limit} a page");
    }
}

#[tokio::test]
async fn more_attestations_than_are_looked_at_for_a_page_are_found_on_further_ones() {
    let world = World::new();
    world.ready().await;
    let subject = [image("shop")];
    let mut expected = 0;
    for run in 0..210 {
        world.memory.advance(Duration::from_millis(1));
        // Most are of a workflow that nothing is attached to.
        let workflow = if run % 50 == 0 {
            "shop/nightly"
        } else {
            "shop/weekly"
        };
        let envelope = about(workflow, run, &subject, Vec::new());
        let accepted = world.push(envelope.compact()).await.unwrap();
        expected += accepted.plan.planned.len();
    }
    let digest = Digest::of(b"shop").to_string();
    let found = walk(&world, &digest, "2", &[]).await;
    assert_eq!((found.len(), expected), (5, 5));
}

#[tokio::test]
async fn a_restricted_token_finds_what_its_workflows_named() {
    let world = World::new();
    for workflow in ["shop/nightly", "other/nightly"] {
        let name = workflow.split('/').next().unwrap();
        world.register(name).await.unwrap();
        world.attach_to(workflow, name, json!({})).await;
        let envelope = about(workflow, 1, &[image("base")], Vec::new());
        world.push(envelope.compact()).await.unwrap();
    }
    let own = about("other/nightly", 1, &[image("base")], Vec::new()).hash();
    let base = Digest::of(b"base").to_string();
    assert_eq!(walk(&world, &base, "50", &[]).await.len(), 2);
    let [place] = &walk(&world, &base, "50", &["shop/*"]).await[..] else {
        panic!("one is of its workflows")
    };
    assert_eq!(place["registration_name"], "shop");
    // As if they were not there.
    for (digest, of) in [(&base, "third/*"), (&own.to_string(), "shop/*")] {
        let response = ask(&world, digest, &[], &[of]).await;
        assert_eq!(response.status, 404, "{digest} {of}: {}", response.body);
    }
}

#[tokio::test]
async fn the_first_digests_that_an_attestation_names_are_indexed_and_expire_with_it() {
    let world = World::new();
    for number in 0..70 {
        let name = format!("hook-{number}");
        world.register(&name).await.unwrap();
        world.attach(&name).await;
    }
    // The first subject is the workflow.
    let subjects: Vec<Subject> = (2..=DIGESTS).map(|n| image(&n.to_string())).collect();
    let sbom = Material::inline(
        "sbom",
        MaterialType::SBOM_CYCLONEDX_JSON,
        "s",
        SBOM.to_vec(),
    );
    let envelope = about("shop/nightly", 1, &subjects, vec![sbom]);
    let accepted = world.push(envelope.compact()).await.unwrap();
    world.deliver().await;
    let indexed = |memory: &memory::Memory| {
        let rows = memory.rows().into_iter();
        rows.filter(|key| key.sort.starts_with(DigestIndex::PREFIX))
            .count()
    };
    assert_eq!(indexed(&world.memory), DIGESTS);
    let last = Digest::of(DIGESTS.to_string().as_bytes()).to_string();
    assert_eq!(walk(&world, &last, "50", &[]).await.len(), 70);
    // A material beyond them.
    let sbom = ask(&world, &Digest::of(SBOM).to_string(), &[], &[]).await;
    assert_eq!(sbom.status, 404, "{}", sbom.body);
    // More rows than a transaction takes: the deliveries follow.
    assert!(3 + DIGESTS + accepted.plan.planned.len() > schedule::ROWS_PER_TRANSACTION);
    world.audit(&accepted).await;
    world
        .memory
        .advance(schedule::RETENTION + Duration::from_secs(2));
    let response = ask(&world, &last, &[], &[]).await;
    assert_eq!(response.status, 404, "{}", response.body);
}

#[tokio::test]
async fn an_attestation_that_comes_again_is_indexed_once() {
    let world = World::new();
    let envelope = attestation("1", vec![promised_sbom()]);
    let pushes = (0..3).map(|_| world.push(envelope.compact()));
    for pushed in futures_util::future::join_all(pushes).await {
        pushed.unwrap();
    }
    let rows = world.memory.rows().into_iter();
    let rows = rows.filter(|key| key.sort.starts_with(DigestIndex::PREFIX));
    // The workflow and the SBOM.
    assert_eq!(rows.count(), 2);
}

/// Nobody is asked where that cannot be, and the reason is told.
#[tokio::test]
async fn a_presence_that_cannot_be_asked_for_is_unknown() {
    let world = World::new();
    world.register("hook").await.unwrap();
    world.attach("hook").await;
    let accepted = world
        .push(attestation("1", vec![]).compact())
        .await
        .unwrap();
    world.deliver().await;
    let asked = async |delivery: &str| {
        // With secrets of its own: nothing is remembered.
        let tools = Tools::new(http());
        let check = PresenceCheck {
            organization: ORGANIZATION.clone(),
            delivery: delivery.into(),
        };
        let role = As::delivering::<Webhook>(&world.memory);
        let found = presence::<Webhook>(&role, &tools, check).await.unwrap();
        assert_eq!(found.state, PresenceState::Unknown);
        found.reason.unwrap()
    };
    let id = id(&accepted);
    let before = world.receiver.received().len();
    assert_eq!(asked("d-1").await, "there is no such delivery");
    assert_eq!(
        asked(&id).await,
        "the third party offers no way to ask for it"
    );
    let any = Precondition::default();
    let deleted = register::delete(scope(&world.memory), "hook", &any, act());
    deleted.await.unwrap();
    assert_eq!(asked(&id).await, "its registration was deleted");
    assert_eq!(world.receiver.received().len(), before);
}
