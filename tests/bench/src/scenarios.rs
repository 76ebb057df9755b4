//! The scenarios: each sets its scene, and measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};
use attestation::{Material, MaterialType};
use bench::{Cloud, Server, Service, Table};
use receiver::{Answer, Received};
use serde_json::{Value, json};

use crate::function::Program;
use crate::measure::{Bench, TRIES, hash_instructions_of_a_byte, hash_millis_of_a_mb, millis};
use crate::measured::{Measured, Unit};
use crate::scene::{STACK, Scene};

type Scenario = fn(&mut Bench) -> Result<()>;

/// Each with the functions that it needs.
pub const ALL: &[(&str, &[&str], Scenario)] = &[
    ("accept", &["attestations"], accept),
    ("authorizer", &["authorizer"], authorizer),
    ("webhook", &["deliver-webhook"], webhook),
    ("materials", &["deliver-webhook", "deliver-guac"], materials),
    (
        "others",
        &[
            "registrations",
            "deliveries",
            "reconciler",
            "fetch-materials",
        ],
        others,
    ),
    ("rows", &["deliveries", "reconciler"], rows),
];

/// Attachments of workflows that are pushed, more and more.
const ATTACHED: [u32; 4] = [1, 10, 100, 1000];
/// Rows of a table that grows.
const ROWS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Attestations that are to be looked at.
const DUE: usize = 100;
/// Deliveries of one registration, and pages of their list.
const DEEP: usize = 2_000;
const PAGES: [usize; 4] = [1, 4, 16, 40];
/// Sizes of what is pushed whole.
const LARGE_MB: [usize; 2] = [1, 3];
/// Size of the largest material that is delivered, and of one that valgrind can bear.
const MATERIAL_MB: usize = 100;
const COUNTED_MB: usize = 8;

/// A cloud that holds nothing yet.
fn scene(bench: &Bench) -> Result<Scene> {
    bench.cloud.clear();
    let endpoint = format!("http://127.0.0.1:{}", bench.plain.port);
    Scene::new(Arc::clone(&bench.cloud), &endpoint)
}

fn answered(body: &[u8]) -> Result<()> {
    let answer: Value = serde_json::from_slice(body)?;
    let status = answer["statusCode"].as_u64();
    ensure!(status.is_some_and(|status| status < 300), "{answer}");
    Ok(())
}

/// A push of so many megabytes, without materials.
fn whole(scene: &Scene, mb: usize) -> Vec<u8> {
    Scene::push(&scene.attestation("nightly", mb * 1_000_000, Vec::new()))
}

/// A push to three third parties.
fn accept(bench: &mut Bench) -> Result<()> {
    let scene = scene(bench)?;
    scene.attach_three()?;
    let program = bench.program("attestations")?;
    let mut events = || Ok(Scene::push(&scene.ordinary("nightly")));
    answered(&bench.ready(&program)?.invoke(&events()?)?.body)?;
    bench.zip("accept", "attestations")?;
    bench.calls("accept", &program, &mut events)?;
    bench.instructions("accept", &program, &mut events)?;
    bench.starts("accept", &program, &mut events)?;
    for other in ["boto3", "Node"] {
        bench.compared("accept", &program, other, &mut events)?;
    }
    bench.warm("accept", &program, &mut events)?;
    bench.quotas("accept", &program, &mut events)?;
    bench.memory_sizes("accept", &program, &mut events)?;
    bench.memory_sizes("accept of 3 MB", &program, &mut || Ok(whole(&scene, 3)))?;

    if bench.counts() {
        grow(bench, &scene, &program)?;
    }

    let hash_millis = hash_millis_of_a_mb();
    bench.add(Measured::new(
        "SHA-256 by ring: CPU of a MB",
        Unit::Millis,
        hash_millis,
    ));
    let [small, large] = LARGE_MB.map(|mb| {
        let mut events = || Ok(whole(&scene, mb));
        bench.cpu(&program, &mut events)
    });
    let (small, large) = (small?, large?);
    bench.add(Measured::new("accept: CPU of 1 MB", Unit::Millis, small));
    bench.add(Measured::new("accept: CPU of 3 MB", Unit::Millis, large));
    // Between the two: without what a push costs whatever its size.
    let ratio = (large - small) / (2.0 * hash_millis);
    bench.add(Measured::new(
        "accept: CPU of a body to that of its SHA-256",
        Unit::Times,
        ratio,
    ));
    if bench.counts() {
        let hash = hash_instructions_of_a_byte(bench.folder())?;
        bench.add(Measured::new(
            "SHA-256 by ring: instructions of a byte",
            Unit::Instructions,
            hash,
        ));
        let [small, large] = LARGE_MB.map(|mb| {
            let mut events = || Ok(whole(&scene, mb));
            bench.counted(&program, 1, &mut events)
        });
        let ratio = (large? - small?) / (2e6 * hash);
        let name = "accept: instructions of a body to those of its SHA-256";
        bench.add(Measured::new(name, Unit::Times, ratio));
    }
    Ok(())
}

/// Pushes of workflows with more and more attachments.
fn grow(bench: &mut Bench, scene: &Scene, program: &Program) -> Result<()> {
    let hook = json!({ "url": "https://hooks.example.org/many" });
    scene.attach("registered", ["webhook", "many"], &hook, &json!({}))?;
    let mut before = (0, 0.0);
    for count in ATTACHED {
        let workflow = format!("attached-{count}");
        for _ in 0..count {
            scene.attach_again(&workflow, "many", &json!({}))?;
        }
        let instructions =
            bench.another(program, &mut || Ok(Scene::push(&scene.ordinary(&workflow))))?;
        let name = format!("accept: instructions, warm, of {count} attachments");
        bench.add(Measured::new(name, Unit::Instructions, instructions));
        if before.0 > 0 {
            let each = (instructions - before.1) / f64::from(count - before.0);
            let name = format!("accept: instructions of a further attachment, of {count}");
            bench.add(Measured::new(name, Unit::Instructions, each));
        }
        before = (count, instructions);
    }
    Ok(())
}

fn authorizer(bench: &mut Bench) -> Result<()> {
    let scene = scene(bench)?;
    let program = bench.program("authorizer")?;
    let mut events = || scene.authorize();
    let answer = bench.ready(&program)?.invoke(&events()?)?.body;
    let answer: Value = serde_json::from_slice(&answer)?;
    ensure!(answer["isAuthorized"] == true, "{answer}");
    bench.zip("authorizer", "authorizer")?;
    bench.calls("authorizer", &program, &mut events)?;
    bench.instructions("authorizer", &program, &mut events)?;
    bench.starts("authorizer", &program, &mut events)?;
    bench.warm("authorizer", &program, &mut events)?;
    bench.memory_sizes("authorizer", &program, &mut events)
}

/// A third party that takes everything, and counts its connections.
#[derive(Default)]
struct Receiver(AtomicU32);

impl Service for Receiver {
    fn opened(&self, _: u64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn answer(&self, _: u64, _: Received) -> Answer {
        Answer::status(200)
    }
}

fn take_everything(bench: &Bench) -> Server {
    let receiver: Arc<Receiver> = Arc::default();
    bench.third_party(receiver)
}

fn hook(receiver: &Server) -> Value {
    json!({ "url": format!("https://127.0.0.1:{}/hook", receiver.port), "secret": SIGNED })
}

const SIGNED: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";

fn nothing_given_back(body: &[u8]) -> Result<()> {
    let answer: Value = serde_json::from_slice(body)?;
    let back = answer["batchItemFailures"].as_array();
    ensure!(back.is_some_and(Vec::is_empty), "{answer}");
    Ok(())
}

/// A message, and a batch of ten of one registration.
fn webhook(bench: &mut Bench) -> Result<()> {
    let scene = scene(bench)?;
    let receiver: Arc<Receiver> = Arc::default();
    let server = bench.third_party(Arc::clone(&receiver));
    scene.attach("hooked", ["webhook", "hooked"], &hook(&server), &json!({}))?;
    let program = bench.program("deliver-webhook")?;
    let of = |count: usize| {
        let attestations: Vec<_> = (0..count).map(|_| scene.ordinary("hooked")).collect();
        scene.messages("webhook", &attestations)
    };
    let mut one = || Ok(of(1)?.0);
    let (event, delivery) = of(1)?;
    nothing_given_back(&bench.ready(&program)?.invoke(&event)?.body)?;
    scene.is_delivered(&delivery)?;
    bench.zip("webhook", "deliver-webhook")?;
    receiver.0.store(0, Ordering::Relaxed);
    bench.calls("webhook", &program, &mut one)?;
    let opened = f64::from(receiver.0.load(Ordering::Relaxed)) / f64::from(TRIES);
    let name = "webhook: connections of two messages to the third party";
    bench.add(Measured::new(name, Unit::Count, opened));
    bench.instructions("webhook", &program, &mut one)?;
    bench.starts("webhook", &program, &mut one)?;
    bench.warm("webhook", &program, &mut one)?;
    bench.memory_sizes("webhook", &program, &mut one)?;
    let mut ten = || Ok(of(10)?.0);
    nothing_given_back(&bench.ready(&program)?.invoke(&ten()?)?.body)?;
    bench.calls("webhook, batch of 10", &program, &mut ten)?;
    bench.instructions("webhook, batch of 10", &program, &mut ten)
}

/// A material that is too large to hold: in a body that is signed, and as an object of a foreign bucket.
fn materials(bench: &mut Bench) -> Result<()> {
    let scene = scene(bench)?;
    let receiver = take_everything(bench);
    let foreign = bench.third_party(Arc::new(Cloud::default()));
    let bucket = json!({
        "endpoint": format!("https://127.0.0.1:{}", foreign.port), "bucket": "documents",
        "access_key_id": "AKIAIOSFODNN7EXAMPLE", "credentials": "example-secret-access-key",
    });
    let options = json!({ "send_sbom": true, "send_attestation": false });
    for (integration, registration, options) in [
        ("webhook", hook(&receiver), options),
        ("guac", bucket, json!({})),
    ] {
        let name = format!("documents-{integration}");
        scene.attach(&name, [integration, &name], &registration, &options)?;
        let program = bench.program(&format!("deliver-{integration}"))?;
        let event = |mb: usize| {
            let digest = scene.put(document(&scene.run(), mb * 1_000_000));
            let kind = MaterialType::SBOM_CYCLONEDX_JSON;
            let sbom = Material::uploaded("sbom", kind, "sbom.cdx.json", digest);
            let attestation = scene.attestation(&name, 0, vec![sbom]);
            scene.messages(integration, &[attestation])
        };
        material(bench, integration, &scene, &program, event)?;
        let name = format!("{integration}, material of 10 MB");
        bench.memory_sizes(&name, &program, &mut || Ok(event(10)?.0))?;
    }
    bench.zip("guac", "deliver-guac").map(drop)
}

fn material(
    bench: &mut Bench,
    integration: &str,
    scene: &Scene,
    program: &Program,
    event: impl Fn(usize) -> Result<(Vec<u8>, String)>,
) -> Result<()> {
    let (event_of_large, delivery) = event(MATERIAL_MB)?;
    let (cpu, peak) = {
        let mut function = bench.ready(program)?;
        let done = function.invoke(&event_of_large)?;
        nothing_given_back(&done.body)?;
        (millis(done.cpu), function.memory_mb("VmHWM")?)
    };
    scene.is_delivered(&delivery)?;
    let name = format!("{integration}, {MATERIAL_MB} MB");
    bench.add(Measured::new(
        format!("{name}: peak of memory"),
        Unit::Mb,
        peak,
    ));
    bench.add(Measured::new(format!("{name}: CPU"), Unit::Millis, cpu));
    let hash = hash_millis_of_a_mb() * f64::from(u32::try_from(MATERIAL_MB)?);
    let ratio = Measured::new(
        format!("{name}: CPU to that of its SHA-256"),
        Unit::Times,
        cpu / hash,
    );
    bench.add(ratio);
    if bench.counts() {
        let hash = hash_instructions_of_a_byte(bench.folder())?;
        let [small, large] = [COUNTED_MB, 2 * COUNTED_MB]
            .map(|mb| bench.counted(program, 1, &mut || Ok(event(mb)?.0)));
        let bytes = f64::from(u32::try_from(COUNTED_MB * 1_000_000)?);
        let ratio = (large? - small?) / (bytes * hash);
        let name = format!("{integration}, material: instructions to those of its SHA-256");
        bench.add(Measured::new(name, Unit::Times, ratio));
    }
    Ok(())
}

/// An SBOM that nobody else has, of so many bytes.
fn document(run: &str, bytes: usize) -> Vec<u8> {
    let mut document = format!(
        r#"{{"bomFormat":"CycloneDX","specVersion":"1.5","version":1,"serialNumber":"{run}","components":["#
    );
    let component = r#"{"type":"library","name":"a","version":"1"}"#;
    document.push_str(component);
    while document.len() + component.len() + 3 < bytes {
        document.push(',');
        document.push_str(component);
    }
    document.push_str("]}");
    document.into_bytes()
}

/// The others: how they start, and what a simple request takes.
fn others(bench: &mut Bench) -> Result<()> {
    let scene = scene(bench)?;
    let receiver = take_everything(bench);
    scene.attach(
        "others",
        ["webhook", "others"],
        &hook(&receiver),
        &json!({}),
    )?;
    let (_, delivery) = scene.messages("webhook", &[scene.ordinary("others")])?;
    let events: [(&str, Vec<u8>); 4] = [
        ("registrations", Scene::list_registrations()),
        ("deliveries", Scene::describe(&delivery)),
        ("reconciler", Scene::every_minute()),
        ("fetch-materials", Scene::fetch()),
    ];
    for (name, event) in events {
        let program = bench.program(name)?;
        let mut events = || Ok(event.clone());
        bench.zip(name, name)?;
        bench.calls(name, &program, &mut events)?;
        bench.instructions(name, &program, &mut events)?;
        bench.starts(name, &program, &mut events)?;
    }
    Ok(())
}

/// A look of the reconciler and a page of a list in a table that grows around them; and pages of a long list.
fn rows(bench: &mut Bench) -> Result<()> {
    if !bench.counts() {
        return Ok(());
    }
    let [reconciler, deliveries] = ["reconciler", "deliveries"].map(|name| bench.program(name));
    let (reconciler, deliveries) = (reconciler?, deliveries?);
    let of = [("registration", "grown"), ("limit", "50")];
    for count in ROWS {
        let scene = grown(bench, DUE)?;
        bench.cloud.table(|table| {
            // A minute after they were accepted.
            table.set("plan/", "wake_at", "2026-01-02T03:04:05.678Z");
            fill(table, count);
        });
        let (looked, calls) = seen(bench, &reconciler, &Scene::every_minute())?;
        let again = bench.cloud.messages(&format!("{STACK}-webhook")).len();
        ensure!(again == DUE, "the reconciler sent {again} of {DUE} again");
        let (listed, pages) = seen(bench, &deliveries, &Scene::list_deliveries(&of))?;
        for (what, instructions, calls) in [
            (format!("reconciler, {DUE} due"), looked, calls),
            ("a list of 50".to_owned(), listed, pages),
        ] {
            let name = format!("rows: {what}: calls, of {count} rows");
            bench.add(Measured::new(name, Unit::Count, calls));
            let name = format!("rows: {what}: instructions, of {count} rows");
            bench.add(Measured::new(name, Unit::Instructions, instructions));
        }
        drop(scene);
    }

    let scene = grown(bench, DEEP)?;
    let mut cursor = String::new();
    for page in 1..=DEEP / 50 {
        let query = [&of[..], &[("cursor", cursor.as_str())]].concat();
        if PAGES.contains(&page) {
            let (instructions, _) = seen(bench, &deliveries, &Scene::list_deliveries(&query))?;
            let name = format!("rows: a list of 50: instructions, of page {page}");
            bench.add(Measured::new(name, Unit::Instructions, instructions));
        }
        let answer = scene.ask("GET", "/v1/deliveries", &query, b"")?;
        let items = answer["items"].as_array().map_or(0, Vec::len);
        ensure!(items == 50, "page {page} has {items} deliveries");
        answer["next"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut cursor);
    }
    Ok(())
}

/// A registration with so many deliveries, of as many attestations.
fn grown(bench: &Bench, deliveries: usize) -> Result<Scene> {
    let scene = scene(bench)?;
    let hook = json!({ "url": "https://hooks.example.org/grown" });
    scene.attach("grown", ["webhook", "grown"], &hook, &json!({}))?;
    let attestations: Vec<_> = (0..deliveries).map(|_| scene.ordinary("grown")).collect();
    scene.messages("webhook", &attestations)?;
    Ok(scene)
}

/// Adds rows: half are of attestations long ago, a quarter waits for an hour to come, a quarter are another registration's
/// deliveries.
fn fill(table: &mut Table, count: u32) {
    let text = |text: &str| json!({ "S": text });
    let later = text("2100-01-01T00:00:00.000Z");
    let kinds = [
        ("over", json!({})),
        ("old", json!({})),
        (
            "waiting",
            json!({ "due_shard": text("0"), "wake_at": later }),
        ),
        (
            "other",
            json!({ "by_registration": text("acme/other"), "created_at": later }),
        ),
    ];
    for (kind, attributes) in kinds {
        let key = |number: u32| (format!("org/acme/filled/{number:07}"), kind.to_owned());
        let attributes = attributes.as_object().cloned().unwrap_or_default();
        table.fill((0..count / 4).map(key), attributes);
    }
}

/// Instructions and calls of a first invocation, with the start before it.
fn seen(bench: &Bench, program: &Program, event: &[u8]) -> Result<(f64, f64)> {
    bench.cloud.calls();
    let instructions = bench.counted_once(program, 1, &mut || Ok(event.to_vec()))?;
    let calls = bench.cloud.calls().calls.len();
    Ok((instructions, f64::from(u32::try_from(calls)?)))
}
