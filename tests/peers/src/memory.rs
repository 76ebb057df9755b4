//! Memory of the deployed functions while batches of the worst attestations that are accepted go through them.
//!
//! A registration of each integration is paused while these are pushed, so that they come out of the queues together.
//! A process remembers the most that it ever had: a second run begins with a new cloud, as `make test` does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use attestation::{MAX_BYTES, Material, MaterialType, Metadata, Predicate, Subject, compose};
use serde_json::Value;

use crate::all::AllPeers;
use crate::terminal::{Terminal, given};

const BATCH: usize = 10;
/// Share of its memory that a function may take.
const PERCENT: u64 = 75;
/// For what takes a minute or two on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_mins(10);

/// A text over all facts, which are copied once more for an annotation that has its name in another case.
const TEMPLATE: &str = "{{ .Attestation.Annotations.Component }}: {{ attestation.annotations | items | list | length }} \
     {% for material in materials %}{{ material.annotations | length }}{% endfor %}";

/// Each integration, how it is registered, and how it is attached.
const INTEGRATIONS: [[&str; 3]; 7] = [
    [
        "dependency-track",
        "--opt instanceURI=$DEPENDENCY_TRACK --opt apiKey=env:DEPENDENCY_TRACK_KEY --opt allowAutoCreate=true",
        "--opt projectName='{{ material.name }}' --opt projectVersion='{{ .Attestation.Annotations.Component }}'",
    ],
    [
        "discord-webhook",
        "--opt webhook=env:DISCORD_WEBHOOK",
        "--opt inline_content=true --opt template=\"$TEMPLATE\"",
    ],
    [
        "guac",
        "--opt endpoint=$S3_ENDPOINT --opt bucket=$S3_BUCKET --opt access_key_id=$S3_ACCESS_KEY_ID \
         --opt credentials=env:S3_SECRET",
        "--opt prefix=memory --opt attestations=all --opt provenance=true",
    ],
    [
        "oci-registry",
        "--opt repository=$REGISTRY --opt username=$REGISTRY_USERNAME --opt password=env:REGISTRY_PASSWORD",
        "--opt prefix=memory",
    ],
    [
        "slack-webhook",
        "--opt webhook=env:SLACK_WEBHOOK",
        "--opt inline_content=true --opt template=\"$TEMPLATE\"",
    ],
    [
        "smtp",
        "--opt host=localhost --opt port=$MAIL_PORT --opt tls=none --opt from=ci@example.org --opt to=team@example.org",
        "--opt inline_content=true --opt subject='{{ workflow.name }}' --opt template=\"$TEMPLATE\"",
    ],
    ["webhook", "--opt url=env:WEBHOOK", "--opt send_sbom=true"],
];

/// An SBOM that nobody else has, of at least so many bytes.
fn sbom(run: &str, bytes: usize) -> Vec<u8> {
    let component = r#"{"type":"library","name":"a","version":"1"}"#;
    let components = vec![component; 1 + bytes / (component.len() + 1)].join(",");
    format!(
        r#"{{"bomFormat":"CycloneDX","specVersion":"1.5","version":1,"metadata":{{"component":{{"type":"application","name":"{run}"}}}},"components":[{components}]}}"#
    )
    .into_bytes()
}

/// So many annotations, with values of so many letters.
fn annotations(count: usize, letters: usize) -> impl Iterator<Item = (String, String)> {
    (0..count).map(move |index| (format!("{index:05x}"), "v".repeat(letters)))
}

type Shape = fn(&mut Predicate, &mut Vec<Subject>);

const SHAPES: [(&str, Shape); 4] = [
    // As many entries in as few bytes as can be: of these most find room side by side.
    ("small", |predicate, _| {
        predicate.annotations.extend(annotations(99_900, 1));
    }),
    ("large", |predicate, _| {
        predicate.annotations.extend(annotations(99_900, 35));
    }),
    ("of-everything", |predicate, subjects| {
        for index in 0..999 {
            let (name, content) = (format!("material-{index}"), vec![0; 1_800]);
            let mut one = Material::inline(&name, MaterialType::ARTIFACT, &name, content);
            one.annotations.extend(annotations(40, 10));
            predicate.materials.push(one);
        }
        subjects.extend((0..9_000).map(|index| Subject {
            name: format!("subject-{index}"),
            digests: [("sha256".to_owned(), format!("{index:064x}"))].into(),
            ..Subject::default()
        }));
    }),
    // Lists in a variable, evaluations, and a content that takes what is left.
    ("nested", |predicate, _| {
        predicate.env.insert("a".to_owned(), "nested".to_owned());
        predicate.policy.has_violations = true;
        let kind = MaterialType::SBOM_CYCLONEDX_JSON;
        let sbom = sbom(&predicate.metadata.workflow_run_id, 2_500_000);
        let one = Material::inline("large", kind, "large.cdx.json", sbom);
        predicate.materials.push(one);
    }),
];

fn attestation(name: &str, fill: Shape, index: usize) -> Vec<u8> {
    let run = format!("{name}-{index}");
    let kind = MaterialType::SBOM_CYCLONEDX_JSON;
    let sbom = Material::inline("small", kind, "sbom.cdx.json", sbom(&run, 1));
    let mut predicate = Predicate {
        metadata: Metadata {
            name: "memory".into(),
            project: "peers".into(),
            workflow_run_id: run.clone(),
            ..Metadata::default()
        },
        annotations: [("component".to_owned(), run.clone())].into(),
        materials: vec![sbom],
        ..Predicate::default()
    };
    let mut subjects = Vec::new();
    fill(&mut predicate, &mut subjects);
    let statement = String::from_utf8(compose::statement(&predicate, &subjects)).unwrap();
    // What is composed has counts in their place.
    let list = |item: &str, count| format!("[{}]", vec![item; count].join(","));
    let violations = list(r#"{"message":""}"#, 60_000);
    let evaluations = format!(r#""policyEvaluations":{{"a":[{{"violations":{violations}}}]}}"#);
    let statement = match name {
        "nested" => statement
            .replace(r#""nested""#, &list(r#"{"":0}"#, 49_800))
            .replace(r#""policyEvaluationsCount":0"#, &evaluations),
        _ => statement,
    };
    let envelope = compose::envelope(statement.into(), "", |_| vec![0; 64]).compact();
    let bytes = envelope.len();
    assert!(bytes <= MAX_BYTES, "{run}: {bytes} bytes");
    assert!(
        name == "small" || bytes > MAX_BYTES / 10 * 9,
        "{run}: {bytes} bytes"
    );
    envelope
}

/// Memory of a function, and the peak of its processes' use.
#[derive(Clone, Copy, Default)]
struct Resident {
    kb: u64,
    of_kb: u64,
}

/// Adds the memory of this stack's running functions to the peaks.
fn measure(peaks: &mut BTreeMap<String, Resident>) {
    let (endpoint, stack) = (given("AWS_ENDPOINT_URL"), given("CHAINLOOP_STACK"));
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        // What has ended meanwhile has neither.
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment);
        let variable = |name: &str| {
            let mut all = environment.split('\0');
            all.find_map(|one| one.strip_prefix(name)?.strip_prefix('='))
        };
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if variable("AWS_ENDPOINT_URL") == Some(&endpoint)
            && let Some(function) = variable("AWS_LAMBDA_FUNCTION_NAME")
            && let Some(function) = function.strip_prefix(&format!("{stack}-"))
            && let Some(peak) = peak.and_then(|peak| peak.trim().strip_suffix(" kB"))
        {
            let most = peaks.entry(function.to_owned()).or_default();
            most.kb = most.kb.max(peak.parse().unwrap());
            let memory = variable("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").unwrap();
            most.of_kb = memory.parse::<u64>().unwrap() * 1024;
        }
    }
}

/// Runs `chainloop integration` for each integration, side by side.
fn each(terminal: &Terminal, words: impl Fn([&str; 3]) -> String) {
    thread::scope(|scope| {
        for integration in INTEGRATIONS {
            let command = format!("chainloop integration {}", words(integration));
            scope.spawn(move || terminal.shown(&command));
        }
    });
}

/// Pushes so many of each shape.
fn push(terminal: &Terminal, of_each: Range<usize>, options: &str) {
    for (name, fill) in SHAPES {
        let all: Vec<_> = of_each
            .clone()
            .map(|index| attestation(name, fill, index))
            .collect();
        terminal.write("attestations.jsonl", &all.join(&b'\n'));
        terminal.shown(&format!(
            "chainloop attestation push attestations.jsonl {options}"
        ));
    }
}

#[test]
fn no_function_takes_more_than_three_quarters_of_its_memory() {
    let mut terminal = Terminal::new("memory");
    let peers = AllPeers::start(terminal.path());
    for (name, value) in peers.variables() {
        terminal.set(name, &value);
    }
    terminal.set("TEMPLATE", TEMPLATE);
    each(&terminal, |[id, options, _]| {
        format!("registered add {id} --name {id} {options}")
    });
    each(&terminal, |[id, _, options]| {
        format!("attached add --workflow peers/memory --integration {id} {options}")
    });
    let (mut alone, mut together) = (BTreeMap::new(), BTreeMap::new());
    push(&terminal, 0..1, "--wait");
    measure(&mut alone);
    each(&terminal, |[id, ..]| {
        format!("registered pause {id} --reason memory")
    });
    push(&terminal, 1..1 + BATCH, "");
    each(&terminal, |[id, ..]| {
        format!("registered resume {id} --rate 50")
    });
    let until = Instant::now() + PATIENCE;
    let count = SHAPES.len() * (1 + BATCH);
    for [id, ..] in INTEGRATIONS {
        loop {
            measure(&mut together);
            let list = terminal.ask(&format!("delivery list --integration {id} --limit {count}"));
            let list = list.as_array().unwrap();
            let state = |one: &Value| one["state"].as_str().unwrap().to_owned();
            let delivered = list.iter().filter(|one| state(one) == "delivered").count();
            if delivered == count {
                break;
            }
            let ended = |one: &&Value| ["failed", "skipped"].contains(&&*state(one));
            assert_eq!(list.iter().find(ended), None, "{id}");
            assert!(
                Instant::now() < until,
                "{id}: {delivered} of {count} delivered"
            );
            thread::sleep(Duration::from_secs(1));
        }
    }
    measure(&mut together);

    let mut table = "one at a time, in batches, of so many MB\n".to_owned();
    let mut faults = Vec::new();
    let delivers = INTEGRATIONS.map(|[id, ..]| format!("deliver-{id}"));
    for function in delivers.iter().map(String::as_str).chain(["attestations"]) {
        let (alone, together) = (alone[function].kb, together[function]);
        let [one, all, of] = [alone, together.kb, together.of_kb].map(|kb| kb / 1024);
        writeln!(table, "{function}: {one}, {all}, {of}").unwrap();
        if together.kb * 100 > together.of_kb * PERCENT {
            faults.push(format!("{function} takes more than {PERCENT} %"));
        }
        // Else nothing is shown.
        if function != "attestations" && together.kb * 100 < alone * 110 {
            faults.push(format!(
                "{function} took no more of a batch than of one: is the cloud new?"
            ));
        }
    }
    println!("{table}");
    assert!(faults.is_empty(), "{faults:#?}\n{table}");
}
