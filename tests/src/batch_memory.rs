//! The memory of a delivery function that is handed ten of the worst attestations at once, measured in a process of
//! its own. `MEMORY=all cargo test … batch_memory -- --nocapture` measures every shape with every integration and
//! prints the table; the ordinary run has the worst.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use attestation::{Attestation, Digest, MAX_BYTES, MAX_ENTRIES, MAX_MATERIALS, MAX_SUBJECTS};
use bytes::Bytes;
use integrations::dependency_track::DependencyTrack;
use integrations::discord_webhook::DiscordWebhook;
use integrations::guac::Guac;
use integrations::oci_registry::OciRegistry;
use integrations::slack_webhook::SlackWebhook;
use integrations::smtp::Smtp;
use integrations::webhook::Webhook;
use integrations::{Integration, Workflow};
use pipeline::deliver::{self, Tools};
use pipeline::memory::Memory;
use pipeline::platform::{Expect, Platform};
use pipeline::rows::{self, Attachment, Delivery, Planned, Registration, Selector, Stored, Why};
use pipeline::{ledger, plans};
use serde_json::{Map, Value, json};

use crate::receiver::Receiver;
use crate::world::{ORGANIZATION, http, inputs};

/// What the child is told: the integration, the file with the attestation, and where the third party listens.
const CHILD: &str = "BATCH_MEMORY";

/// What a function may take of its memory: a quarter is spare.
const SHARE: (u64, u64) = (3, 4);

/// An integration, the megabytes that its function has, and what a registration and an attachment of it have.
fn integrations(port: u16) -> Vec<(&'static str, u64, Value, Value)> {
    let origin = format!("http://127.0.0.1:{port}");
    let filtered = json!({
        "filter": "attestation.annotations.none!=x",
        "template": "{{ workflow.name }} {{ attestation.annotations.a }} {{ materials | length }}",
    });
    vec![
        (
            SlackWebhook::ID,
            256,
            json!({ "webhook": format!("{origin}/services/a") }),
            filtered.clone(),
        ),
        (
            DiscordWebhook::ID,
            256,
            json!({ "webhook": format!("{origin}/api/webhooks/123456789012345678/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa") }),
            filtered,
        ),
        // A port where nobody listens: what is sent is made, and goes nowhere.
        (
            Smtp::ID,
            256,
            json!({ "to": "a@example.org", "from": "b@example.org", "host": "localhost", "port": 1, "tls": "none" }),
            json!({}),
        ),
        (
            OciRegistry::ID,
            256,
            json!({ "repository": format!("127.0.0.1:{port}/acme/shop"), "username": "u", "password": "p" }),
            json!({}),
        ),
        (
            Webhook::ID,
            512,
            json!({ "url": format!("{origin}/hook"), "secret": "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0" }),
            json!({ "send_sbom": true, "filter": "attestation.annotations.none!=x" }),
        ),
        (
            DependencyTrack::ID,
            512,
            json!({ "instanceURI": origin, "apiKey": "k" }),
            json!({ "projectName": "p" }),
        ),
        (
            Guac::ID,
            512,
            json!({
                "provider": "s3", "bucket": "sboms", "region": "eu-west-1", "endpoint": origin,
                "credentials": "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            }),
            json!({}),
        ),
    ]
}

/// As many bytes of payload as fit.
const PAYLOAD: usize = (MAX_BYTES - 400) / 4 * 3;

fn members(prefix: &str, count: usize, value: &str) -> String {
    let mut text = String::new();
    for at in 0..count {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(text, r#"{comma}"{prefix}{at:x}":{value}"#);
    }
    text
}

fn statement(subjects: &str, kind: &str, predicate: &str) -> String {
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{subjects}],"predicateType":"{kind}","predicate":{{"metadata":{{"name":"nightly","project":"shop"}},{predicate}}}}}"#
    )
}

/// Payloads that take much memory for their size, each by another part.
fn shapes() -> Vec<(&'static str, String)> {
    const OURS: &str = "chainloop.dev/attestation/v0.2";
    let subject = r#"{"name":"a","digest":{"sha256":"00"}}"#;
    let of_one = |predicate: &str| statement(subject, OURS, predicate);
    let room = PAYLOAD - 1_000;
    let entries = MAX_ENTRIES - 100;
    let fill = |text: &str, with: &str| with.repeat((room - text.len()) / with.len());
    let annotations = members("", entries, "0");
    let nested = vec![r#"{"":0}"#; entries / 2].join(",");
    let deep = vec![format!("{}{}", "[".repeat(55), "]".repeat(55)); entries / 57].join(",");
    let subjects: Vec<String> = (0..MAX_SUBJECTS)
        .map(|at| format!(r#"{{"name":"{at}","digest":{{"sha256":"{at}"}},"annotations":{{"a":{at},"b":{at}}}}}"#))
        .collect();
    let subjects = subjects.join(",");
    let material = |content: &str| {
        let own = r#""chainloop.material.name":"m","chainloop.material.type":"SBOM_CYCLONEDX_JSON","chainloop.material.cas.inline":true"#;
        let more = members("", entries / MAX_MATERIALS - 12, "0");
        let digest = "0".repeat(64);
        format!(
            r#"{{"name":"f","digest":{{"sha256":"{digest}"}},"content":"{content}","annotations":{{{own},{more}}}}}"#
        )
    };
    let each = (room / MAX_MATERIALS - material("").len()) / 4 * 4;
    let materials = vec![material(&"A".repeat(each)); MAX_MATERIALS].join(",");
    let string = |content: &str| {
        format!(
            r#"{{"content":"{content}","annotations":{{"chainloop.material.name":"m","chainloop.material.type":"STRING"}}}}"#
        )
    };
    let evaluations = vec!["{}"; room / 3].join(",");
    let violations = vec![r#"{"message":"a"}"#; room / 16].join(",");
    vec![
        (
            "annotations",
            of_one(&format!(r#""annotations":{{{annotations}}}"#)),
        ),
        (
            "annotations and a long text",
            of_one(&format!(
                r#""annotations":{{{annotations},"long":"{}"}}"#,
                fill(&annotations, "x")
            )),
        ),
        (
            "annotations and escapes",
            of_one(&format!(
                r#""env":{{"long":"{}"}},"annotations":{{{annotations}}}"#,
                fill(&annotations, r"\n")
            )),
        ),
        (
            "env of objects",
            of_one(&format!(r#""env":{{"a":[{nested}]}}"#)),
        ),
        (
            "env of deep lists",
            of_one(&format!(r#""env":{{"a":[{deep}]}}"#)),
        ),
        ("subjects", statement(&subjects, OURS, r#""env":{}"#)),
        (
            "materials",
            of_one(&format!(r#""materials":[{materials}]"#)),
        ),
        (
            "a text",
            of_one(&format!(
                r#""materials":[{}]"#,
                string(&"QUJD".repeat(room / 4 - 100))
            )),
        ),
        (
            "evaluations",
            of_one(&format!(r#""policyEvaluations":{{"a":[{evaluations}]}}"#)),
        ),
        (
            "violations",
            of_one(&format!(
                r#""policyEvaluations":{{"a":[{{"violations":[{violations}]}}]}}"#
            )),
        ),
        (
            "of another type",
            statement(
                subject,
                "https://example.org/p",
                &members("", room / 12, "[{}]"),
            ),
        ),
    ]
}

fn envelope(payload: &str) -> Vec<u8> {
    let payload = base64_simd::STANDARD.encode_to_string(payload);
    format!(
        r#"{{"payloadType":"application/vnd.in-toto+json","payload":"{payload}","signatures":[{{"keyid":"","sig":"AAAA"}}]}}"#
    )
    .into_bytes()
}

#[test]
fn ten_of_the_worst_attestations_at_once_leave_a_function_a_quarter_of_its_memory() {
    /// What took most of all, by `MEMORY=all`.
    const WORST: [&str; 2] = ["annotations and a long text", "materials"];
    let is_all = std::env::var("MEMORY").is_ok_and(|value| value == "all");
    let receiver = Receiver::forgetful();
    let folder = std::env::temp_dir().join(format!("batch-memory-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut over = Vec::new();
    for (shape, payload) in shapes() {
        if !is_all && !WORST.contains(&shape) {
            continue;
        }
        let bytes = envelope(&payload);
        assert!(
            bytes.len() <= MAX_BYTES,
            "{shape} has {} bytes",
            bytes.len()
        );
        if let Err(error) = Attestation::parse(&bytes) {
            panic!("{shape} is not permitted: {error}");
        }
        let path = folder.join("attestation.json");
        fs::write(&path, &bytes).unwrap();
        for (id, megabytes, ..) in integrations(receiver.port()) {
            if !is_all && ![SlackWebhook::ID, OciRegistry::ID, Webhook::ID].contains(&id) {
                continue;
            }
            let (before, most) = measured(id, &path, receiver.port());
            let limit = megabytes * SHARE.0 / SHARE.1;
            println!(
                "{shape:<28} {id:<17} {before:>4} MB before, {most:>4} MB at most, of {limit} MB"
            );
            if most > limit {
                over.push(format!("{shape} for {id}: {most} MB of {limit} MB"));
            }
        }
    }
    fs::remove_dir_all(&folder).unwrap();
    assert!(over.is_empty(), "{over:#?}");
}

/// What a process had in memory before the batch and at most, in megabytes.
fn measured(id: &str, path: &std::path::Path, port: u16) -> (u64, u64) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "batch_memory::a_batch_in_a_process_of_its_own"])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{id} {} {port}", path.display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("memory: "));
    let line = line.unwrap_or_else(|| {
        panic!("{id}: {text}{}", String::from_utf8_lossy(&child.stderr));
    });
    let (before, most) = line.split_once(' ').unwrap();
    (before.parse().unwrap(), most.parse().unwrap())
}

#[tokio::test]
#[ignore = "it is the process that the test above starts"]
async fn a_batch_in_a_process_of_its_own() {
    let told = std::env::var(CHILD).expect("the test above says what to do");
    let told: Vec<&str> = told.split(' ').collect();
    let [id, path, port] = told[..] else {
        panic!("{told:?}");
    };
    let (bytes, port) = (fs::read(path).unwrap(), port.parse().unwrap());
    macro_rules! run {
        ($($integration:ty)*) => {
            match id {
                $(<$integration>::ID => Box::pin(run::<$integration>(bytes, port)).await,)*
                _ => panic!("{id}"),
            }
        };
    }
    run!(SlackWebhook DiscordWebhook Smtp OciRegistry Webhook DependencyTrack Guac);
}

async fn run<I: Integration>(bytes: Vec<u8>, port: u16) {
    let memory = Memory::default();
    let ids = planned::<I>(&memory, Bytes::from(bytes), port).await;
    let tools = Tools::new(http());
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    // Whoever finds no room comes again.
    for _ in 0..100 {
        let records = memory.receive(I::ID, 10);
        let until = memory.now().plus(Duration::from_mins(15));
        let back = deliver::batch::<I>(&memory, &tools, records, until).await;
        assert!(back.is_empty(), "{back:?}");
        memory.advance(Duration::from_secs(5));
    }
    let most = status("VmHWM:");
    for id in ids {
        let key = Delivery::at(ORGANIZATION, &id);
        let stored: Stored<Delivery> = rows::load(&memory, &key).await.unwrap().unwrap();
        let (row, reason) = (&stored.row, stored.row.reason.clone().unwrap_or_default());
        assert!(
            row.state.is_final() || row.attempt > 1,
            "not attempted: {row:?}"
        );
        for never in ["do not fit", "its registration", "read the attestation"] {
            assert!(!reason.contains(never), "{reason}");
        }
    }
    println!("\nmemory: {before} {most}");
}

/// A row of `/proc/self/status`, in megabytes.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kilobytes / 1_000
}

/// Ten deliveries of an attestation to as many attachments, and their messages: as intake writes them, and without
/// reading the attestation here.
async fn planned<I: Integration>(memory: &Memory, bytes: Bytes, port: u16) -> Vec<String> {
    let all = integrations(port).into_iter();
    let (_, _, config, options) = all.into_iter().find(|(id, ..)| *id == I::ID).unwrap();
    let now = memory.now();
    let received = Digest::of(&bytes);
    let attestation = rows::Attestation {
        organization: ORGANIZATION.into(),
        hash: received,
        received,
        size_bytes: bytes.len() as u64,
        also: std::collections::BTreeSet::new(),
        fetched_by: None,
        run: String::new(),
        workflow: Workflow::default(),
        predicate_type: String::new(),
        plans: 1,
        planned_at: now,
        created_at: now,
    };
    memory
        .put_object(ORGANIZATION, &received, bytes)
        .await
        .unwrap();
    let registration = Registration {
        id: "r".into(),
        organization: ORGANIZATION.into(),
        name: "r".into(),
        integration: I::ID.into(),
        version: I::VERSION.into(),
        description: String::new(),
        config: inputs(config),
        label: Map::new(),
        secret: None,
        secret_version: None,
        created_at: now,
        deleted_at: None,
        paused: None,
        wake_at: None,
    };
    let mut writes = vec![rows::put(memory, &registration, Expect::Absent).0];
    let mut all = Vec::new();
    for number in 0..10 {
        let attachment = Attachment {
            id: format!("a{number}"),
            organization: ORGANIZATION.into(),
            registration: "r".into(),
            integration: I::ID.into(),
            workflow: Selector("*".into()),
            config: inputs(options.clone()),
            wait_secs: Some(0),
            is_test: false,
            created_at: now,
            deleted_at: None,
        };
        writes.push(rows::put(memory, &attachment, Expect::Absent).0);
        all.push(Planned {
            attachment: attachment.id,
            registration: "r".into(),
            integration: I::ID.into(),
        });
    }
    let plan = plans::new(&attestation, 0, Why::Accepted, None, all, now);
    let mut ids = Vec::new();
    let mut messages = Vec::new();
    for (id, planned) in plan.deliveries() {
        let delivery = ledger::begin(&plan, planned, id.clone(), now);
        messages.push(ledger::Message::of(&delivery).send_after(Duration::ZERO));
        writes.push(rows::put(memory, &delivery, Expect::Absent).0);
        ids.push(id);
    }
    memory.write(writes).await.unwrap();
    memory.send(I::ID, &messages).await.unwrap();
    ids
}
