//! The stack as it is deployed on the local cloud, used as an operator uses it: by the `chainloop` command.
//!
//! `make test` starts the cloud, deploys and names it in `CHAINLOOP_INTEGRATIONS_URL`. Without it they fail:
//! what is not tried is not shown.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use attestation::{Digest, Envelope, Material, MaterialType, Metadata, Predicate, compose};
use authority::Authority;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::artifacts::{self, Artifacts};
use crate::ci;
use crate::exchange::{self, Issuer};
use crate::receiver::{Answer, Receiver, data};
use crate::samples;
use crate::signatures::{Key, sign};
use crate::world::{SBOM, promised_sbom};

/// Held alone while functions are killed: no other test's delivery is under way then. Each test is a process, so it is a
/// file that is locked, until it is dropped.
fn lock_file() -> File {
    File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("deployed.lock")).unwrap()
}

/// Lets no function be killed meanwhile.
fn busy() -> File {
    let file = lock_file();
    file.lock_shared().unwrap();
    file
}

/// A variable that `make test` sets.
fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test`"))
}

/// Runs `chainloop` with these words.
fn chainloop(words: &[&str]) -> Output {
    Command::new(given("CHAINLOOP"))
        .args(words)
        .output()
        .unwrap()
}

/// Runs `chainloop`, which must succeed, and reads what it says as JSON.
fn ask(words: &[&str]) -> Value {
    let _busy = busy();
    ask_alone(words)
}

fn ask_alone(words: &[&str]) -> Value {
    let output = chainloop(&[words, &["-o", "json", "-y"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "chainloop {}: {error}",
        words.join(" ")
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs `chainloop`, which must fail, and gives its exit code and what it says.
fn fail(words: &[&str]) -> (i32, String) {
    let output = chainloop(words);
    assert!(
        !output.status.success(),
        "chainloop {} did not fail",
        words.join(" ")
    );
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A folder and names of this test's own, so that tests run side by side in one organization.
struct Case {
    name: &'static str,
    directory: PathBuf,
    run: u32,
}

impl Case {
    fn new(name: &'static str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("chainloop-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self {
            name,
            directory,
            run: 0,
        }
    }

    fn workflow(&self) -> String {
        format!("tests/{}", self.name)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.directory.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn register_webhook(&self, receiver: &Receiver) {
        let url = format!("url={}", receiver.url());
        ask(&[
            "integration",
            "registered",
            "add",
            "webhook",
            "--name",
            self.name,
            "--opt",
            &url,
        ]);
    }

    fn attach(&self, options: &[&str]) -> Value {
        let workflow = self.workflow();
        let words = [
            "integration",
            "attached",
            "add",
            "--workflow",
            &workflow,
            "--integration",
            self.name,
        ];
        ask(&[&words[..], options].concat())
    }

    /// An attestation of this case's workflow over [`SBOM`], in a file.
    fn attestation(&mut self) -> String {
        self.run += 1;
        let sbom = self.file("sbom.cdx.json", SBOM);
        let path = self
            .directory
            .join(format!("attestation-{}.json", self.run));
        let path = path.to_str().unwrap().to_owned();
        let output = chainloop(&[
            "attestation",
            "craft",
            "--project",
            "tests",
            "--workflow",
            self.name,
            "--material",
            &format!("sbom=SBOM_CYCLONEDX_JSON:{sbom}"),
            &path,
        ]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        path
    }

    /// Pushes with its SBOM, and waits until every delivery is final.
    fn push(&self, attestation: &str) -> Value {
        let sbom = format!("sbom={}", self.directory.join("sbom.cdx.json").display());
        ask(&[
            "attestation",
            "push",
            attestation,
            "--material",
            &sbom,
            "--wait",
        ])
    }

    fn deliveries(&self) -> Vec<Value> {
        let workflow = self.workflow();
        ask(&["delivery", "list", "--workflow", &workflow])
            .as_array()
            .unwrap()
            .clone()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The local cloud's own S3: a bucket that a `guac` registration exports to.
struct Bucket {
    name: &'static str,
}

impl Bucket {
    async fn new(name: &'static str) -> Self {
        let bucket = Self { name };
        bucket.ask(Method::PUT, "").await;
        bucket
    }

    /// The local cloud's S3 asks who it is, and not for a signature.
    async fn ask(&self, method: Method, path: &str) -> Vec<u8> {
        let url = format!("{}/{}{path}", given("AWS_ENDPOINT_URL"), self.name);
        let scope = format!(
            "{}/20260102/us-east-1/s3/aws4_request",
            given("AWS_ACCESS_KEY_ID")
        );
        let own = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0");
        let request = http::Request::builder().method(method).uri(url);
        let request = request.header("authorization", own);
        let request = request.body(Bytes::new()).unwrap();
        let response = crate::world::http().fetch(request, 16 << 20).await.unwrap();
        assert!(response.status.is_success(), "{}", response.status);
        response.body.to_vec()
    }

    async fn keys(&self) -> Vec<String> {
        let listed = self.ask(Method::GET, "?list-type=2").await;
        let listed = String::from_utf8(listed).unwrap();
        let keys = listed.split("<Key>").skip(1);
        keys.map(|rest| rest.split_once("</Key>").unwrap().0.to_owned())
            .collect()
    }

    async fn object(&self, key: &str) -> Vec<u8> {
        self.ask(Method::GET, &format!("/{key}")).await
    }

    fn options(&self) -> Vec<String> {
        vec![
            format!("bucket={}", self.name),
            format!("endpoint={}", given("AWS_ENDPOINT_URL")),
            "access_key_id=test".into(),
            "credentials=env:AWS_SECRET_ACCESS_KEY".into(),
        ]
    }
}

/// Registers `guac` for a bucket under this name.
fn register_guac(name: &str, bucket: &Bucket) {
    let options = bucket.options();
    let options = options.iter().flat_map(|option| ["--opt", option.as_str()]);
    let words: Vec<&str> = ["integration", "registered", "add", "guac", "--name", name]
        .into_iter()
        .chain(options)
        .collect();
    ask(&words);
}

fn states(pushed: &Value) -> Vec<&str> {
    let deliveries = pushed["deliveries"].as_array().unwrap();
    deliveries
        .iter()
        .map(|delivery| delivery["state"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_attestation_with_its_sbom_reaches_a_bucket_and_a_webhook() {
    let mut case = Case::new("main-job");
    let (receiver, bucket) = (Receiver::start(), Bucket::new("main-job").await);
    case.register_webhook(&receiver);
    register_guac("main-job-guac", &bucket);
    case.attach(&["--opt", "send_sbom=true"]);
    let workflow = case.workflow();
    ask(&[
        "integration",
        "attached",
        "add",
        "--workflow",
        &workflow,
        "--integration",
        "main-job-guac",
    ]);
    let attestation = case.attestation();
    let pushed = case.push(&attestation);
    assert_eq!(states(&pushed), ["delivered", "delivered"], "{pushed}");

    let key = format!("chainloop/sboms/{}.cdx.json", Digest::of(SBOM).hex());
    assert_eq!(bucket.keys().await, std::slice::from_ref(&key));
    assert_eq!(bucket.object(&key).await, SBOM, "byte for byte");

    let bytes = std::fs::read(&attestation).unwrap();
    let envelope = attestation::Attestation::parse(&bytes).unwrap().envelope;
    let received = receiver.deliveries();
    let kinds: Vec<_> = received
        .iter()
        .map(|request| request.json()["Kind"].clone())
        .collect();
    assert_eq!(kinds, ["ATTESTATION", "SBOM_CYCLONEDX_JSON"]);
    let compact: Value = serde_json::from_slice(&envelope.compact()).unwrap();
    assert_eq!(data(&received[0])["Envelope"], compact);

    // The same again: the same ids, and nothing is sent.
    let again = case.push(&attestation);
    let ids = |pushed: &Value| -> Vec<String> {
        let deliveries = pushed["deliveries"].as_array().unwrap().iter();
        let mut ids: Vec<_> = deliveries
            .map(|delivery| delivery["id"].to_string())
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&pushed), ids(&again));
    assert_eq!(receiver.deliveries().len(), 2);
    assert_eq!(case.deliveries().len(), 2);

    let id = pushed["deliveries"][0]["id"].as_str().unwrap();
    let described = ask(&["delivery", "describe", "--id", id]);
    let described = described.as_array().map_or(&described, |list| &list[0]);
    assert_eq!(
        described["attempts"].as_array().unwrap().len(),
        1,
        "{described}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn chainloops_own_attestation_and_its_sbom_of_four_megabytes_arrive() {
    let Some(samples) = samples::directory("chainloops_own_attestation") else {
        return;
    };
    let (receiver, bucket) = (Receiver::start(), Bucket::new("samples").await);
    let case = Case::new("samples");
    case.register_webhook(&receiver);
    register_guac("samples-guac", &bucket);
    for (name, options) in [
        ("samples", &["--opt", "send_sbom=true"][..]),
        ("samples-guac", &["--opt", "attestations=all"]),
    ] {
        let words = [
            "integration",
            "attached",
            "add",
            "--workflow",
            "only-sbom",
            "--project",
            "foo",
        ];
        ask(&[&words[..], &["--integration", name], options].concat());
    }
    let attestation = samples.join("attestations/chainloop-dsse-dispatcher.json");
    let sbom = samples.join("sboms/cdx-1.4-chainloop-4MB.json");
    let materials =
        ["skynet-sbom", "skynet2-sbom"].map(|name| format!("{name}={}", sbom.display()));
    let words = [
        "attestation",
        "push",
        attestation.to_str().unwrap(),
        "--wait",
    ];
    let options = ["--material", &materials[0], "--material", &materials[1]];
    let pushed = ask(&[&words[..], &options[..]].concat());
    assert_eq!(states(&pushed), ["delivered", "delivered"], "{pushed}");
    assert!(
        pushed.to_string().contains("33683275"),
        "Chainloop's own hash of it: {pushed}"
    );
    let bytes = std::fs::read(&sbom).unwrap();
    let key = format!("chainloop/sboms/{}.cdx.json", Digest::of(&bytes).hex());
    assert!(
        bucket.object(&key).await == bytes,
        "the SBOM is not byte for byte the same"
    );
    assert_eq!(
        bucket.keys().await.len(),
        2,
        "one SBOM under one digest, and the statement"
    );
    // The two materials are one file, and each is announced.
    assert_eq!(receiver.deliveries().len(), 3);
}

#[test]
fn what_does_not_work_says_why() {
    let case = Case::new("errors");
    let add = [
        "integration",
        "registered",
        "add",
        "webhook",
        "--name",
        "errors",
    ];
    let (code, text) = fail(&[&add[..], &["--opt", "ulr=https://example.org"]].concat());
    assert!(code == 2 && text.contains("url"), "{code} {text}");

    let closed = Receiver::scripted(|_, _| Answer::status(403));
    let url = format!("url={}", closed.url());
    let (code, text) = fail(&[&add[..], &["--opt", &url]].concat());
    assert!(code == 1 && text.contains("403"), "{code} {text}");
    assert!(
        !text.contains("s3cret-path"),
        "a webhook's path is a secret: {text}"
    );
    let listed = ask(&["integration", "registered", "list"]);
    let names = listed
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["name"] == "errors");
    assert_eq!(names.count(), 0, "a refused registration leaves nothing");

    let (_, text) = fail(&[
        "integration",
        "attached",
        "add",
        "--workflow",
        "a/b",
        "--integration",
        "none",
    ]);
    assert!(text.contains("none"), "{text}");
    let (_, text) = fail(&["integration", "registered", "list", "--token", "cli_wrong"]);
    assert!(text.to_lowercase().contains("token"), "{text}");
    let (_, text) = fail(&["attestation", "push", &case.file("sbom.json", SBOM)]);
    assert!(text.contains("SBOM"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_bucket_that_is_not_there_is_refused_at_registration() {
    let bucket = Bucket::new("another").await;
    let mut options = bucket.options();
    options[0] = "bucket=no-such-bucket".into();
    let options = options.iter().flat_map(|option| ["--opt", option.as_str()]);
    let words: Vec<&str> = [
        "integration",
        "registered",
        "add",
        "guac",
        "--name",
        "nowhere",
    ]
    .into_iter()
    .chain(options)
    .collect();
    let (code, text) = fail(&words);
    assert!(code == 1 && text.contains("no-such-bucket"), "{text}");
    assert_eq!(bucket.keys().await, Vec::<String>::new());
}

#[test]
fn a_third_party_that_fails_for_a_moment_gets_it_a_few_seconds_later() {
    // The check at registration passes; the first delivery does not.
    let receiver =
        Receiver::scripted(|before, _| Answer::status(if before == 1 { 503 } else { 200 }));
    let mut case = Case::new("retry");
    case.register_webhook(&receiver);
    case.attach(&[]);
    let attestation = case.attestation();
    let pushed = case.push(&attestation);
    assert_eq!(states(&pushed), ["delivered"], "{pushed}");
    let id = pushed["deliveries"][0]["id"].as_str().unwrap();
    let described = ask(&["delivery", "describe", "--id", id]);
    let attempts = described["attempts"].as_array().unwrap().clone();
    let endings: Vec<_> = attempts
        .iter()
        .map(|attempt| attempt["ending"].clone())
        .collect();
    assert_eq!(endings, [json!("retryable"), json!("delivered")]);
    let ids: Vec<_> = receiver
        .deliveries()
        .iter()
        .map(|request| request.header("webhook-id").map(str::to_owned))
        .collect();
    assert_eq!(ids[0], ids[1], "a repeat is recognisable");
}

#[test]
fn a_hundred_identical_posts_at_once_make_one_delivery() {
    let receiver = Receiver::start();
    let mut case = Case::new("hundred");
    case.register_webhook(&receiver);
    case.attach(&[]);
    let attestation = case.attestation();
    let accepted: Vec<Value> = std::thread::scope(|scope| {
        let posts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let post = || ask(&["attestation", "push", &attestation]);
                    (0..13).map(|_| post()).collect::<Vec<_>>()
                })
            })
            .collect();
        posts
            .into_iter()
            .flat_map(|post| post.join().unwrap())
            .collect()
    });
    assert_eq!(accepted.len(), 104);
    let first = accepted
        .iter()
        .filter(|accepted| accepted["repeated"] == false);
    assert_eq!(first.count(), 1, "one of them was the first");
    case.push(&attestation);
    assert_eq!(receiver.deliveries().len(), 1);
}

/// Process ids of a function's environments on the local cloud.
fn processes(function: &str) -> Vec<u32> {
    let name = format!("AWS_LAMBDA_FUNCTION_NAME={function}\0").into_bytes();
    let endpoint = format!("AWS_ENDPOINT_URL={}\0", given("AWS_ENDPOINT_URL")).into_bytes();
    let has = |environment: &[u8], entry: &[u8]| {
        environment
            .windows(entry.len())
            .any(|window| window == entry)
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let path = Path::new("/proc").join(pid.to_string()).join("environ");
            std::fs::read(path).is_ok_and(|own| has(&own, &name) && has(&own, &endpoint))
        })
        .collect()
}

/// Takes as long as a lease: it runs beside all others.
#[test]
fn a_delivery_whose_function_is_killed_is_made_all_the_same() {
    // Passes the check, hangs at the first delivery, and answers from then on.
    let receiver = Receiver::scripted(|before, _| match before {
        1 => Answer::silence(Duration::from_secs(20)),
        _ => Answer::status(200),
    });
    let mut case = Case::new("killed");
    case.register_webhook(&receiver);
    case.attach(&[]);
    let attestation = case.attestation();
    let sbom = format!("sbom={}", case.directory.join("sbom.cdx.json").display());
    let alone = lock_file();
    alone.lock().unwrap();
    let accepted = ask_alone(&["attestation", "push", &attestation, "--material", &sbom]);
    let id = accepted["deliveries"][0]["id"].as_str().unwrap().to_owned();
    let since = Instant::now();
    while receiver.deliveries().is_empty() {
        assert!(
            since.elapsed() < Duration::from_secs(30),
            "nothing was sent"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let function = format!("{}-deliver-webhook", given("CHAINLOOP_STACK"));
    let killed = processes(&function);
    assert!(!killed.is_empty(), "no process of {function}");
    for pid in killed {
        Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap();
    }
    drop(alone);
    let killed = Instant::now();
    let lease = pipeline::ledger::schedule::Deadlines::of(true).lease;
    let limit = lease + Duration::from_mins(2);
    let delivery = loop {
        let delivery = ask(&["delivery", "describe", "--id", &id]);
        if delivery["state"] == "delivered" {
            break delivery;
        }
        assert!(
            killed.elapsed() < limit,
            "not within lease + 2 min: {delivery}"
        );
        std::thread::sleep(Duration::from_secs(2));
    };
    eprintln!(
        "delivered {} s after the kill (limit {} s)",
        killed.elapsed().as_secs(),
        limit.as_secs()
    );
    let endings: Vec<_> = delivery["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["ending"].clone())
        .collect();
    assert_eq!(endings, [json!("crashed"), json!("delivered")]);
    assert_eq!(
        receiver.deliveries().len(),
        2,
        "one copy for the send that was in flight"
    );
}

#[test]
fn a_paced_destination_gets_one_delivery_a_second_from_all_processes_together() {
    const ATTACHMENTS: usize = 20;
    let receiver = Receiver::start();
    let mut case = Case::new("paced");
    let url = format!("url={}", receiver.url());
    let add = [
        "integration",
        "registered",
        "add",
        "webhook",
        "--name",
        "paced",
    ];
    ask(&[&add[..], &["--opt", &url, "--opt", "max_per_second=1"]].concat());
    for _ in 0..ATTACHMENTS {
        case.attach(&["--allow-duplicate"]);
    }
    let attestation = case.attestation();
    let sbom = format!("sbom={}", case.directory.join("sbom.cdx.json").display());
    let pushed = ask(&[
        "attestation",
        "push",
        &attestation,
        "--material",
        &sbom,
        "--wait",
    ]);
    assert_eq!(states(&pushed), vec!["delivered"; ATTACHMENTS]);
    // Twenty messages at once are two batches, each in a process of its own.
    let function = format!("{}-deliver-webhook", given("CHAINLOOP_STACK"));
    assert!(
        processes(&function).len() >= 2,
        "one process alone shows nothing"
    );
    let arrived: Vec<Instant> = receiver.deliveries().iter().map(|one| one.at).collect();
    assert_eq!(arrived.len(), ATTACHMENTS, "each once");
    // Slots are a second apart. What a process does between its slot and its request takes longer at times on a busy
    // machine, which moves one delivery and not the next: so it is counted what came within any stretch of time.
    for first in 0..ATTACHMENTS {
        for last in first + 1..ATTACHMENTS {
            let within = arrived[last] - arrived[first];
            let slots = u32::try_from(last - first).unwrap();
            assert!(
                within + Duration::from_millis(1_500) >= slots * Duration::from_secs(1),
                "{} within {within:?}",
                slots + 1
            );
        }
    }
    let whole = arrived[ATTACHMENTS - 1] - arrived[0];
    eprintln!("{ATTACHMENTS} deliveries in {whole:?}");
}

#[test]
fn what_failed_is_delivered_again_and_a_new_attachment_gets_what_came_before() {
    // The check and two deliveries that are refused; everything from then on is taken.
    let receiver = Receiver::scripted(|before, _| match before {
        1 | 2 => Answer::status(404),
        _ => Answer::status(200),
    });
    let mut case = Case::new("again");
    case.register_webhook(&receiver);
    case.attach(&[]);
    for _ in 0..2 {
        let attestation = case.attestation();
        let sbom = format!("sbom={}", case.directory.join("sbom.cdx.json").display());
        let words = [
            "attestation",
            "push",
            &attestation,
            "--material",
            &sbom,
            "--wait",
        ];
        let _busy = busy();
        let output = chainloop(&[&words[..], &["-o", "json"]].concat());
        let pushed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(states(&pushed), ["failed"]);
    }
    let counted = ask(&[
        "delivery",
        "redeliver",
        "--all",
        "--registration",
        "again",
        "--dry-run",
    ]);
    assert_eq!(counted["done"], 2, "{counted}");
    assert_eq!(receiver.deliveries().len(), 2, "a dry run sends nothing");
    let done = ask(&["delivery", "redeliver", "--all", "--registration", "again"]);
    assert_eq!(
        (&done["done"], &done["state"]),
        (&json!(2), &json!("done")),
        "{done}"
    );
    let attached = case.attach(&["--allow-duplicate"]);
    let attached = attached
        .as_array()
        .map_or(attached.clone(), |list| list[0].clone());
    let id = attached["id"].as_str().unwrap();
    let done = ask(&["integration", "attached", "backfill", "--id", id]);
    assert_eq!(done["done"], 2, "{done}");
    let since = Instant::now();
    while receiver.deliveries().len() < 6 {
        assert!(since.elapsed() < Duration::from_secs(30), "not delivered");
        std::thread::sleep(Duration::from_millis(100));
    }
    let again = ask(&["delivery", "redeliver", "--all", "--registration", "again"]);
    assert_eq!(
        again["done"], 0,
        "nothing is delivered a third time: {again}"
    );
}

#[test]
fn what_is_held_by_a_pause_goes_on_when_it_is_resumed() {
    let receiver = Receiver::start();
    let mut case = Case::new("paused");
    case.register_webhook(&receiver);
    case.attach(&[]);
    let paused = ask(&[
        "integration",
        "registered",
        "pause",
        "paused",
        "--reason",
        "tests",
    ]);
    assert_eq!(paused["paused"]["reason"], "tests", "{paused}");
    let attestation = case.attestation();
    let sbom = format!("sbom={}", case.directory.join("sbom.cdx.json").display());
    let pushed = ask(&["attestation", "push", &attestation, "--material", &sbom]);
    let id = pushed["deliveries"][0]["id"].as_str().unwrap().to_owned();
    let describe = || ask(&["delivery", "describe", "--id", &id]);
    let since = Instant::now();
    while describe()["heldAt"].is_null() {
        assert!(
            since.elapsed() < Duration::from_secs(30),
            "not held: {}",
            describe()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    ask(&["integration", "registered", "resume", "paused"]);
    let since = Instant::now();
    while describe()["state"] != "delivered" {
        // The drain begins with the reconciler's next minute.
        assert!(
            since.elapsed() < Duration::from_mins(2),
            "not drained: {}",
            describe()
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(receiver.deliveries().len(), 1);
    let tested = ask(&["integration", "registered", "test", "paused"]);
    assert_eq!(tested["state"], "delivered", "{tested}");
}

/// After everything that the other tests did here: whoever is last finds nothing missing.
#[test]
fn an_audit_of_the_deployed_stack_finds_every_delivery() {
    let receiver = Receiver::start();
    let mut case = Case::new("audited");
    case.register_webhook(&receiver);
    case.attach(&[]);
    let attestation = case.attestation();
    let sbom = format!("sbom={}", case.directory.join("sbom.cdx.json").display());
    ask(&[
        "attestation",
        "push",
        &attestation,
        "--material",
        &sbom,
        "--wait",
    ]);
    let audit = ask(&["delivery", "audit"]);
    assert_eq!(audit["state"], "done", "{audit}");
    assert!(
        audit["seen"].as_u64().is_some_and(|seen| seen >= 1),
        "{audit}"
    );
    assert_eq!(audit["done"], audit["seen"], "{audit}");
}

#[test]
fn other_in_toto_statements_are_accepted_when_their_workflow_is_named() {
    let receiver = Receiver::start();
    let case = Case::new("slsa");
    case.register_webhook(&receiver);
    case.attach(&[]);
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "app", "digest": { "sha256": "a".repeat(64) } }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": { "buildDefinition": {}, "runDetails": {} },
    });
    let statement = serde_json::to_vec(&statement).unwrap();
    let envelope = compose::envelope(statement, "", |bytes| bytes[..32].to_vec());
    let file = case.file("slsa.json", &envelope.compact());
    let (_, text) = fail(&["attestation", "push", &file]);
    assert!(text.contains("workflow"), "{text}");
    let pushed = ask(&[
        "attestation",
        "push",
        &file,
        "--workflow",
        "slsa",
        "--project",
        "tests",
        "--wait",
    ]);
    assert_eq!(states(&pushed), ["delivered"]);
    let compact: Value = serde_json::from_slice(&envelope.compact()).unwrap();
    assert_eq!(data(&receiver.deliveries()[0])["Envelope"], compact);
}

#[test]
fn deleting_what_was_registered_takes_its_attachments_along() {
    let receiver = Receiver::start();
    let case = Case::new("deleted");
    case.register_webhook(&receiver);
    let attached = case.attach(&[]);
    let attached = attached
        .as_array()
        .map_or(attached.clone(), |list| list[0].clone());
    ask_text(&[
        "integration",
        "attached",
        "delete",
        "--id",
        attached["id"].as_str().unwrap(),
    ]);
    case.attach(&[]);
    ask_text(&["integration", "registered", "delete", "--name", "deleted"]);
    let workflow = case.workflow();
    let left = ask(&["integration", "attached", "list", "--workflow", &workflow]);
    assert!(left.as_array().is_none_or(Vec::is_empty), "{left}");
    // Its name is free again.
    case.register_webhook(&receiver);
}

#[test]
fn a_producers_token_pushes_reads_no_configuration_and_is_dead_within_a_minute_of_its_end() {
    let receiver = Receiver::start();
    let mut case = Case::new("tokens");
    case.register_webhook(&receiver);
    case.attach(&[]);
    let attestation = case.attestation();
    let create = ["organization", "api-token", "create", "--name", "tokens"];
    let made = ask(&[&create[..], &["--role", "producer", "--expires", "1d"]].concat());
    let token = made["token"].as_str().unwrap();
    let own = ["--token", token];
    let status = ask(&[&["auth", "status"], &own[..]].concat());
    let told = ["organization", "name", "role", "id"].map(|name| status[name].clone());
    assert_eq!(
        told,
        [
            json!("default"),
            json!("tokens"),
            json!("producer"),
            made["id"].clone()
        ]
    );
    assert_eq!(status["expiresAt"], made["expiresAt"]);

    let sbom = format!("sbom={}", case.directory.join("sbom.cdx.json").display());
    let push = [
        "attestation",
        "push",
        &attestation,
        "--material",
        &sbom,
        "--wait",
    ];
    let pushed = ask(&[&push[..], &own].concat());
    assert_eq!(states(&pushed), ["delivered"], "{pushed}");
    let digest = pushed["attestation"].as_str().unwrap();
    let described = ask(&[&["attestation", "describe", digest], &own[..]].concat());
    assert_eq!(described["contents"]["materials"][0]["place"], "uploaded");
    for words in [
        &["integration", "registered", "list"][..],
        &["attestation", "list"],
        &["organization", "api-token", "list"],
    ] {
        let (code, text) = fail(&[words, &own[..]].concat());
        assert!(
            code == 1 && text.contains("role producer may not"),
            "{code} {text}"
        );
    }

    let (_, text) = fail(&[&create[..], &["--role", "viewer"]].concat());
    assert!(
        text.contains("there is a token \"tokens\" already"),
        "{text}"
    );
    ask(&["organization", "api-token", "revoke", "tokens"]);
    let revoked = Instant::now();
    loop {
        let output = chainloop(&[&["auth", "status"], &own[..]].concat());
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains("the token was rejected"), "{text}");
            break;
        }
        assert!(
            revoked.elapsed() < Duration::from_mins(1),
            "it is not dead yet"
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    let entries = ask(&["audit", "list"]);
    let of_token = |action: &str| {
        let entries = entries.as_array().unwrap().iter();
        let mut entries = entries.filter(|one| one["subject"] == "tokens");
        entries.any(|one| one["action"] == action)
    };
    assert!(
        of_token("token.create") && of_token("token.revoke"),
        "{entries}"
    );
}

/// Verified by Python's `cryptography` as well, which is not of this project.
#[test]
fn a_receipt_is_signed_by_the_stacks_key_and_can_be_pushed() {
    const VERIFY: &str = r#"
import base64, hashlib, json, sys
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
receipt, key, attestation = (open(name, "rb").read() for name in sys.argv[1:])
envelope = json.loads(receipt)
payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
[signature] = (base64.b64decode(one["sig"]) for one in envelope["signatures"])
public = serialization.load_pem_public_key(key)
def holds(payload, signature):
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    try:
        public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
flipped = lambda data: data[:-1] + bytes([data[-1] ^ 1])
assert holds(payload, signature)
assert not holds(flipped(payload), signature) and not holds(payload, flipped(signature))
der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
assert envelope["signatures"][0]["keyid"] == "sha256:" + hashlib.sha256(der).hexdigest()
subjects = [one["digest"]["sha256"] for one in json.loads(payload)["subject"]]
assert hashlib.sha256(attestation).hexdigest() in subjects
print(payload.decode())
"#;
    let mut case = Case::new("receipts");
    let receiver = Receiver::start();
    case.register_webhook(&receiver);
    case.attach(&["--opt", "send_sbom=true"]);
    let attestation = case.attestation();
    let pushed = case.push(&attestation);
    let id = case.deliveries()[0]["id"].as_str().unwrap().to_owned();
    let file = |name: &str| case.directory.join(name).to_str().unwrap().to_owned();
    let (receipt, key) = (file("receipt.json"), file("receipt-key.pem"));
    let downloaded = file("downloaded.json");
    ask_text(&["delivery", "receipt", &id, &receipt]);
    ask_text(&["delivery", "receipt-key", &key]);
    let digest = pushed["attestation"].as_str().unwrap();
    ask_text(&["attestation", "download", digest, &downloaded]);
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/ministack/bin/python");
    let verified = Command::new(python)
        .args(["-c", VERIFY, &receipt, &key, &downloaded])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{said}");
    let statement: Value = serde_json::from_slice(&verified.stdout).unwrap();
    let predicate = &statement["predicate"];
    assert_eq!(predicate["stack"], given("CHAINLOOP_STACK"));
    assert_eq!(predicate["delivery"]["id"], id);
    assert_eq!(predicate["delivery"]["state"], "delivered");
    assert_eq!(statement["subject"].as_array().unwrap().len(), 2);

    let workflow = case.workflow();
    let again = ask(&[
        "attestation",
        "push",
        &receipt,
        "--workflow",
        &workflow,
        "--wait",
    ]);
    assert_eq!(states(&again), ["delivered"]);
    let (code, said) = fail(&["delivery", "receipt", "none"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("there is no delivery"), "{said}");
}

#[test]
fn a_policy_that_requires_a_key_accepts_what_it_signed_and_refuses_the_rest() {
    let mut case = Case::new("signed");
    let (key, stranger) = (Key::new(), Key::new());
    let pem = format!(
        "builder=@{}",
        case.file("builder.pub", key.pem().as_bytes())
    );
    let workflow = case.workflow();
    let policy = [
        "trust",
        "policy",
        "add",
        "--name",
        case.name,
        "--workflow",
        &workflow,
    ];
    let made = ask(&[&policy[..], &["--mode", "require", "--key", &pem]].concat());
    assert_eq!(made["mode"], "require");
    let listed = ask(&["trust", "policy", "list"]);
    let names = listed.as_array().unwrap().iter().map(|one| &one["name"]);
    assert!(names.into_iter().any(|name| name == case.name), "{listed}");

    let crafted = std::fs::read(case.attestation()).unwrap();
    let envelope = attestation::Attestation::parse(&crafted).unwrap().envelope;
    let bad = case.file("bad.json", &sign(envelope.clone(), &[&stranger]).compact());
    let (code, said) = fail(&["attestation", "push", &bad]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("No configured signer signed it"), "{said}");
    let good = case.file("good.json", &sign(envelope, &[&key]).compact());
    let pushed = ask(&["attestation", "push", &good]);
    assert_eq!(pushed["verdict"]["outcome"], "verified", "{pushed}");

    let accepted = ask(&["attestation", "list", "--workflow", &workflow]);
    assert_eq!(accepted.as_array().unwrap().len(), 1, "the other was kept");
    assert_eq!(accepted[0]["verdict"]["signers"][0]["name"], "builder");
    let digest = pushed["attestation"].as_str().unwrap();
    let described = ask(&["attestation", "describe", digest]);
    assert_eq!(described["verdict"]["outcome"], "verified", "{described}");

    ask(&["trust", "policy", "delete", case.name]);
    ask(&["attestation", "push", &bad]);
}

/// Bundles of Sigstore's conformance suite and of Chainloop, whose certificates expired in 2025.
#[test]
fn real_bundles_are_judged_by_what_they_prove() {
    const BEACON: &str = "beacon=https://token.actions.githubusercontent.com,https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
    const CHAINLOOPS: &str = "myproject/mywf";
    let Some(samples) = samples::directory("real_bundles_are_judged_by_what_they_prove") else {
        return;
    };
    let case = Case::new("samples");
    let ours = case.workflow();
    let pem = case.file("ca.pem", Authority::new(3).pem.as_bytes());
    let chainloop = format!("own={},@{pem}", authority::ORGANIZATION);
    let add = ["trust", "policy", "add", "--mode", "require"];
    let of = |name: &str, workflow: &str, option: &str, signer: &str| {
        let words = ["--name", name, "--workflow", workflow, option, signer];
        ask(&[&add[..], &words[..]].concat())
    };
    of("sigstore", &ours, "--keyless", BEACON);
    of("chainloops-own", CHAINLOOPS, "--chainloop", &chainloop);
    let push = |name: &str, workflow: &str| {
        let path = samples.join(name).to_str().unwrap().to_owned();
        chainloop_push(&path, workflow)
    };
    for (name, workflow, said) in [
        (
            "bundles/conformance-happy-v0.3-intoto-dsse.json",
            &*ours,
            "verified",
        ),
        (
            "malformed/conformance-dsse-invalid-sig.json",
            &ours,
            "does not fit the payload",
        ),
        (
            "bundles/chainloop-attestation-bundle.json",
            CHAINLOOPS,
            "The certificate was not valid when it was received",
        ),
        (
            "bundles/chainloop-verifier-valid.json",
            CHAINLOOPS,
            "The certificate was not valid when it was received",
        ),
    ] {
        let text = push(name, workflow);
        assert!(text.contains(said), "{name}: {text}");
    }
    for name in ["sigstore", "chainloops-own"] {
        ask(&["trust", "policy", "delete", name]);
    }
}

/// What a push says: the outcome of its verdict, or why it was refused.
fn chainloop_push(path: &str, workflow: &str) -> String {
    let words = ["attestation", "push", path, "--workflow", workflow];
    let output = chainloop(&[&words[..], &["-o", "json"]].concat());
    match output.status.success() {
        true => String::from_utf8(output.stdout).unwrap(),
        false => String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the script of the components for CI systems.
fn push_by_component(jwt: &str, file: &str) -> (bool, String) {
    let _busy = busy();
    let binary = given("CHAINLOOP");
    let output = Command::new("sh")
        .args(["-e", "-c", &ci::script()])
        .env_remove("CHAINLOOP_INTEGRATIONS_TOKEN")
        .env("CHAINLOOP_INTEGRATIONS_OIDC_TOKEN", jwt)
        .env("CHAINLOOP_INTEGRATIONS_ORGANIZATION", "default")
        .env("PUSH_FILE", file)
        .env("PUSH_BINARY", &binary)
        .env("PUSH_SHA256", ci::sha256(Path::new(&binary)))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

/// A job pushes with the JWT that its CI system gave it, and with nothing that is stored anywhere.
#[test]
fn a_jobs_jwt_is_exchanged_once_and_pushes_for_its_workflows_alone() {
    let mut case = Case::new("oidc");
    let key = exchange::Key::new("a");
    let issuer = Issuer::start(&key.set());
    let (workflow, audience) = (case.workflow(), "https://attestations.example.org");
    let add = [
        "trust",
        "issuer",
        "add",
        "--name",
        case.name,
        "--issuer",
        &issuer.url,
    ];
    let rule = [
        "--claim",
        "repository_id=74",
        "--role",
        "producer",
        "--audience",
        audience,
    ];
    let restricted = ["--workflow", &workflow];
    ask(&[&add[..], &rule, &restricted].concat());
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let jwt = |jti: &str, claim: &str, value: Value| {
        let mut claims = json!({
            "iss": issuer.url, "aud": audience, "iat": since, "exp": since + 600, "jti": jti,
            "sub": "repo:acme/shop", "repository_id": "74",
        });
        claims[claim] = value;
        key.sign(&claims)
    };
    let job = |jwt: &str, words: &[&str]| {
        let _busy = busy();
        let output = Command::new(given("CHAINLOOP"))
            .args(words)
            .env_remove("CHAINLOOP_INTEGRATIONS_TOKEN")
            .env("CHAINLOOP_INTEGRATIONS_OIDC_TOKEN", jwt)
            .env("CHAINLOOP_INTEGRATIONS_ORGANIZATION", "default")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    let file = case.attestation();
    let push = ["attestation", "push", &file, "--oidc"];
    let by_component = jwt("0", "sub", json!("repo:acme/shop"));
    let (pushed, said) = push_by_component(&by_component, &file);
    assert!(pushed && !said.contains(&by_component), "{said}");
    let good = jwt("1", "sub", json!("repo:acme/shop"));
    // The issuer's keys are fetched meanwhile, and the command repeats.
    let (pushed, said) = job(&good, &push);
    assert!(pushed, "{said}");
    assert!(!said.contains(&good), "{said}");
    let (again, said) = job(&good, &push);
    assert!(
        !again && said.contains("it was exchanged already"),
        "{said}"
    );
    for (jti, claim, value, why) in [
        ("2", "repository_id", json!("75"), "no rule of the issuer"),
        (
            "3",
            "aud",
            json!("https://other.example.org"),
            "is for another audience",
        ),
        (
            "4",
            "iss",
            json!("https://other.example.org"),
            "the organization has no issuer",
        ),
        ("5", "exp", json!(since - 1), "has expired"),
        ("6", "iat", json!(since - 3600), "more than 15 minutes ago"),
    ] {
        let (pushed, said) = job(&jwt(jti, claim, value), &push);
        assert!(!pushed && said.contains(why), "{why}: {said}");
    }
    let stranger = exchange::Key::new("a").sign(&json!({
        "iss": issuer.url, "aud": audience, "iat": since, "exp": since + 600, "repository_id": "74",
    }));
    let (pushed, said) = job(&stranger, &push);
    assert!(
        !pushed && said.contains("not by the issuer's key"),
        "{said}"
    );
    let mut other = Case::new("oidc-other");
    let file = other.attestation();
    let foreign = ["attestation", "push", &file, "--oidc"];
    let (pushed, said) = job(&jwt("7", "sub", json!("x")), &foreign);
    assert!(!pushed && said.contains("tests/oidc-other"), "{said}");
    ask(&["trust", "issuer", "delete", case.name]);
}

#[test]
fn what_was_pushed_is_listed_and_downloaded_as_it_was_sent() {
    let receiver = Receiver::start();
    let mut case = Case::new("archive");
    case.register_webhook(&receiver);
    case.attach(&[]);
    let attestation = case.attestation();
    let pushed = case.push(&attestation);
    let digest = pushed["attestation"].as_str().unwrap();
    let workflow = case.workflow();
    let listed = ask(&[
        "attestation",
        "list",
        "--workflow",
        &workflow,
        "--since",
        "1h",
    ]);
    assert_eq!(listed[0]["attestation"], digest);
    let known = ask(&["workflow", "list", "--project", "tests"]);
    let mut known = known.as_array().unwrap().iter();
    let known = known.find(|one| one["name"] == "archive").unwrap();
    assert_eq!(known["attestedAt"], listed[0]["createdAt"]);
    assert_eq!(known["attachments"], 1);
    let output = chainloop(&["attestation", "download", digest]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    assert_eq!(output.stdout, std::fs::read(&attestation).unwrap());
    let output = chainloop(&["attestation", "download", digest, "--material", "sbom"]);
    assert_eq!(output.stdout, SBOM);
}

/// Posts by plain HTTP, as Chainloop does: no header of ours. Answers with the status and the body.
fn post(url: &str, body: &Value) -> (u16, Value) {
    let (host, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let body = body.to_string();
    let length = body.len();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: Go-http-client/1.1\r\ncontent-length: {length}\r\n\
         content-type: application/json\r\naccept-encoding: identity\r\nconnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, text) = answer.split_once("\r\n\r\n").unwrap();
    // In chunks or not: the body is one JSON object.
    let object = text.find('{').zip(text.rfind('}'));
    let object = object.map_or("null", |(begin, end)| &text[begin..=end]);
    (status, serde_json::from_str(object).unwrap())
}

/// As Chainloop posts an attestation of this case's workflow over these materials.
fn attested(case: &Case, materials: Vec<Material>) -> Value {
    artifacts::attested(&envelope(case, "", materials))
}

fn envelope(case: &Case, run: &str, materials: Vec<Material>) -> Envelope {
    let predicate = Predicate {
        metadata: Metadata {
            name: case.name.into(),
            workflow_name: case.name.into(),
            project: "tests".into(),
            workflow_run_id: format!("{}{run}", std::process::id()),
            ..Metadata::default()
        },
        materials,
        ..Predicate::default()
    };
    let statement = compose::statement(&predicate, &[]);
    compose::envelope(statement, "", |bytes| bytes[..32].to_vec())
}

/// Waits until so many deliveries came to the receiver, and gives their kinds.
fn kinds(receiver: &Receiver, count: usize) -> Vec<Value> {
    let until = Instant::now() + Duration::from_secs(90);
    while receiver.deliveries().len() < count && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(200));
    }
    let deliveries = receiver.deliveries();
    deliveries
        .iter()
        .map(|request| request.json()["Kind"].clone())
        .collect()
}

#[test]
fn what_a_chainloop_control_plane_posts_to_the_printed_url_is_delivered_once() {
    let receiver = Receiver::start();
    let case = Case::new("forwarded");
    case.register_webhook(&receiver);
    case.attach(&["--opt", "send_sbom=true"]);
    let made = ask(&["intake", "create", "--name", "forwarded"]);
    let url = made["url"].as_str().unwrap();

    let test = artifacts::forwarded("TEST_WEBHOOK", b"{}");
    assert_eq!(post(url, &test).0, 200);
    let attested = attested(&case, vec![promised_sbom()]);
    let sbom = artifacts::forwarded("SBOM_CYCLONEDX_JSON", SBOM);
    let busy = busy();
    let (status, accepted) = post(url, &attested);
    assert_eq!(status, 202, "{accepted}");
    assert_eq!(post(url, &sbom).0, 200);
    assert_eq!(kinds(&receiver, 2), ["ATTESTATION", "SBOM_CYCLONEDX_JSON"]);
    // The whole sequence again.
    let (status, again) = post(url, &attested);
    assert_eq!((status, &again["repeated"]), (202, &json!(true)), "{again}");
    assert_eq!(again["deliveries"], accepted["deliveries"]);
    assert_eq!(post(url, &sbom).0, 200);
    assert_eq!(receiver.deliveries().len(), 2);

    let (status, problem) = post(url, &artifacts::forwarded("SARIF", b"{}"));
    assert_eq!((status, &problem["code"]), (400, &json!("kind-unknown")));
    drop(busy);
    ask_text(&["intake", "delete", "--name", "forwarded"]);
    let (status, problem) = post(url, &test);
    assert_eq!((status, &problem["code"]), (404, &json!("not-found")));
}

#[test]
fn materials_that_a_control_plane_has_are_fetched_and_delivered() {
    let (receiver, artifacts) = (Receiver::start(), Artifacts::start());
    let case = Case::new("fetched");
    case.register_webhook(&receiver);
    case.attach(&["--opt", "send_sbom=true"]);
    // One in one piece, and one in parts.
    let small = br#"{"bomFormat":"CycloneDX","specVersion":"1.6","serialNumber":"fetched"}"#;
    let large = format!(
        r#"{{"spdxVersion":"SPDX-2.3","comment":"{}"}}"#,
        "x".repeat(20_000_000)
    );
    let material = |name: &str, kind: MaterialType, bytes: &[u8]| {
        Material::uploaded(name, kind, "sbom.json", artifacts.put(bytes))
    };
    let materials = vec![
        material("small", MaterialType::SBOM_CYCLONEDX_JSON, small),
        material("large", MaterialType::SBOM_SPDX_JSON, large.as_bytes()),
    ];
    let token = case.file("cas-token.txt", artifacts::TOKEN.as_bytes());
    let made = ask(&[
        "intake",
        "create",
        "--name",
        "fetched",
        "--cas-url",
        &artifacts.url(),
        "--cas-token",
        &format!("@{token}"),
    ]);
    let busy = busy();
    let (status, accepted) = post(made["url"].as_str().unwrap(), &attested(&case, materials));
    assert_eq!(status, 202, "{accepted}");
    assert_eq!(accepted["missing"].as_array().unwrap().len(), 2);
    assert_eq!(
        kinds(&receiver, 3),
        ["ATTESTATION", "SBOM_CYCLONEDX_JSON", "SBOM_SPDX_JSON"]
    );
    let received = receiver.deliveries();
    let data = received[2].json()["Data"].as_str().unwrap().to_owned();
    let data = base64_simd::STANDARD.decode_to_vec(data).unwrap();
    assert_eq!(Digest::of(&data), Digest::of(large.as_bytes()));
    drop(busy);
    ask_text(&["intake", "delete", "--name", "fetched"]);
}

#[test]
fn what_a_control_plane_forwards_is_sent_once_its_bundle_proves_it() {
    let (receiver, artifacts) = (Receiver::start(), Artifacts::start());
    let (case, authority) = (Case::new("proven"), Authority::new(1));
    case.register_webhook(&receiver);
    case.attach(&[]);
    let pem = case.file("ca.pem", authority.pem.as_bytes());
    let (workflow, signer) = (
        case.workflow(),
        format!("own={},@{pem}", authority::ORGANIZATION),
    );
    let words = ["--name", case.name, "--workflow", &workflow];
    let mode = ["--mode", "require", "--chainloop", &signer];
    ask(&[&["trust", "policy", "add"], &words[..], &mode[..]].concat());
    let token = case.file("cas-token.txt", artifacts::TOKEN.as_bytes());
    let (url, token) = (artifacts.url(), format!("@{token}"));
    let store = ["--cas-url", &url, "--cas-token", &token];
    let made = ask(&[&["intake", "create", "--name", case.name], &store[..]].concat());
    let intake = made["url"].as_str().unwrap();
    let forward = |run: &str, by: &Authority| {
        let envelope = authority.sign(envelope(&case, run, Vec::new()));
        let bundle = artifacts.put(&by.bundle(&envelope, authority::VALID));
        let mut body = artifacts::attested(&envelope);
        body["Metadata"]["WorkflowRun"]["AttestationDigest"] = bundle.to_string().into();
        let (status, accepted) = post(intake, &body);
        assert_eq!(status, 202, "{accepted}");
        assert_eq!(accepted["verdict"]["outcome"], "unverifiable", "{accepted}");
        bundle
    };
    let busy = busy();
    let unknown = forward("2", &Authority::new(2));
    let proven = forward("1", &authority);
    assert_eq!(kinds(&receiver, 1), ["ATTESTATION"]);
    let sent = receiver.deliveries().remove(0);
    assert_eq!(sent.header("webhook-signature-verdict"), Some("verified"));
    let described = ask(&["attestation", "describe", &proven.to_string()]);
    assert_eq!(described["verdict"]["outcome"], "verified", "{described}");
    let until = Instant::now() + Duration::from_secs(90);
    let failed = loop {
        let deliveries = case.deliveries();
        let failed = deliveries.into_iter().find(|one| one["state"] == "failed");
        if let Some(failed) = failed {
            break failed;
        }
        assert!(Instant::now() < until, "{unknown} is not refused");
        std::thread::sleep(Duration::from_millis(500));
    };
    assert_eq!(receiver.deliveries().len(), 1);
    let (_, said) = fail(&["delivery", "redeliver", failed["id"].as_str().unwrap()]);
    assert!(said.contains("The trust policy"), "{said}");
    drop(busy);
    ask(&["trust", "policy", "delete", case.name]);
    ask_text(&["intake", "delete", "--name", case.name]);
}

fn ask_text(words: &[&str]) {
    let output = chainloop(&[words, &["-y"]].concat());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
