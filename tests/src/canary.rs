//! A canary in every credential, and third parties that repeat it in every encoding and in every place that a
//! response has: none of it may be found in a row, a message, a log line or an answer.
//!
//! Beside each canary the third parties repeat a decoy, which is no credential. It has to be found, in every encoding:
//! so the search would find a canary, too.

#![expect(
    clippy::format_collect,
    clippy::too_many_lines,
    reason = "a few letters each, and one case after the other"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use api::Role;
use attestation::{Digest, Material, MaterialType};
use bytes::Bytes;
use integrations::dependency_track::DependencyTrack;
use integrations::discord_webhook::DiscordWebhook;
use integrations::guac::Guac;
use integrations::oci_registry::OciRegistry;
use integrations::slack_webhook::SlackWebhook;
use integrations::smtp::Smtp;
use integrations::webhook::Webhook;
use integrations::{Integration, for_all_integrations};
use memory::Memory;
use pipeline::Platform;
use pipeline::config::check::{self, Check, Verdict};
use pipeline::config::{attach, register};
use pipeline::engine::deliver::preview::preview;
use pipeline::engine::deliver::{self, Tools};
use pipeline::engine::{accept, reconcile};
use serde_json::{Value, json};

use crate::asking::ask;
use crate::world::{WORKFLOW, act, attestation, http, inputs, scope, tests};

/// Shorter parts of a canary than this may be left by chance.
const PART: usize = 10;

/// Text that occurs nowhere else.
fn canary(name: &str) -> String {
    let hex = Digest::of(name.as_bytes()).hex();
    format!("{}-{}_{}", &hex[..12], &hex[12..24], &hex[24..36])
}

const ENCODINGS: [fn(&str) -> String; 13] = [
    str::to_owned,
    str::to_uppercase,
    |text| text.bytes().map(|byte| format!("%{byte:02X}")).collect(),
    |text| text.bytes().map(|byte| format!("%25{byte:02x}")).collect(),
    |text| text.bytes().map(|byte| format!("\\u{byte:04x}")).collect(),
    |text| {
        text.bytes()
            .map(|byte| format!("\\\\u{byte:04X}"))
            .collect()
    },
    |text| text.bytes().map(|byte| format!("&#{byte};")).collect(),
    |text| text.bytes().map(|byte| format!("&#x{byte:x};")).collect(),
    |text| text.bytes().map(|byte| format!("{byte:02x}")).collect(),
    |text| base64_simd::STANDARD.encode_to_string(text),
    |text| base64_simd::STANDARD.encode_to_string(format!("u:{text}")),
    |text| base64_simd::URL_SAFE_NO_PAD.encode_to_string(format!("us:{text}")),
    |text| text.replace('_', "\\_"),
];

/// Finds any part of what it looks for, in any encoding, whatever the case.
#[derive(Default)]
struct Search(BTreeMap<usize, HashSet<Vec<u8>>>);

impl Search {
    fn add(&mut self, secret: &str) {
        for (number, encode) in ENCODINGS.iter().enumerate() {
            let encoded = encode(secret).to_lowercase().into_bytes();
            // The first and the last letters of base64 are also those of what stands around it.
            let inner = match number {
                9..=11 => &encoded[4..encoded.len() - 4],
                _ => &encoded[..],
            };
            let letters = PART * encoded.len() / secret.len();
            let parts = self.0.entry(letters).or_default();
            parts.extend(inner.windows(letters).map(<[u8]>::to_vec));
        }
    }

    fn count(&self, text: &str) -> usize {
        let text = text.to_lowercase();
        let found = |(letters, parts): (&usize, &HashSet<Vec<u8>>)| {
            text.as_bytes()
                .windows(*letters)
                .filter(|part| parts.contains(*part))
                .count()
        };
        self.0.iter().map(found).sum()
    }

    fn first(&self, text: &str) -> Option<String> {
        let lower = text.to_ascii_lowercase();
        self.0.iter().find_map(|(letters, parts)| {
            let at = lower
                .as_bytes()
                .windows(*letters)
                .position(|part| parts.contains(part))?;
            let around =
                &lower.as_bytes()[at.saturating_sub(80)..(at + letters + 80).min(lower.len())];
            Some(String::from_utf8_lossy(around).into_owned())
        })
    }
}

/// A third party that repeats what it knows.
struct Parrot {
    port: u16,
    words: Vec<String>,
    round: Arc<AtomicUsize>,
    /// Credentials that it was shown.
    shown: Arc<Mutex<BTreeSet<String>>>,
}

/// Given out by it, as registries and clouds do.
const TOKEN: &str = "fetched-access-token";

impl Parrot {
    /// Ends with the test's process.
    fn start(words: Vec<String>, serve: fn(&Self, TcpStream)) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let parrot = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            words,
            round: Arc::default(),
            shown: Arc::default(),
        });
        let served = Arc::clone(&parrot);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let parrot = Arc::clone(&served);
                thread::spawn(move || serve(&parrot, stream));
            }
        });
        parrot
    }

    fn round(&self) -> usize {
        self.round.load(Ordering::Relaxed)
    }

    fn words(&self, told: &str) -> String {
        let encode = ENCODINGS[self.round() % ENCODINGS.len()];
        let token = canary(TOKEN);
        let is_known = |word: &&String| **word != token || told.contains(&token);
        let words = self.words.iter().filter(is_known);
        words.map(|word| encode(word)).collect::<Vec<_>>().join(" ")
    }

    fn http(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some((head, _)) = read_request(&mut reader) {
            let response = self.response(&head);
            if reader.get_mut().write_all(response.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn response(&self, head: &str) -> String {
        for line in head.lines() {
            let secret = match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("authorization") => value,
                Some((name, value)) if name.eq_ignore_ascii_case("webhook-signature") => value,
                _ => continue,
            };
            let last = secret.rsplit([' ', '=', ',']).find(|part| part.len() > 20);
            self.shown.lock().unwrap().extend(last.map(str::to_owned));
        }
        let words = self.words(head);
        let quoted = serde_json::to_string(&format!("{words} {head}")).unwrap();
        let letters = |text: &str| text.replace(|letter: char| !letter.is_ascii_alphanumeric(), "");
        let bare = letters(&ENCODINGS[self.round() % ENCODINGS.len()](&self.words[0]));
        let host = if bare.len() > 63 {
            letters(&self.words[0])
        } else {
            bare.clone()
        };
        let host = &host[..host.len().min(63)];
        let origin = format!("http://127.0.0.1:{}", self.port);
        let mode = self.round() / ENCODINGS.len();
        let (status, more, body) = match mode {
            _ if head.contains(" /token") && mode != 4 => {
                let token = canary(TOKEN);
                (
                    200,
                    String::new(),
                    json!({ "token": token, "access_token": token, "expires_in": 60 }).to_string(),
                )
            }
            0 => (403, String::new(), format!("no {words}, no {head}")),
            1 => {
                let challenge = format!(
                    "www-authenticate: Bearer realm=\"{origin}/token\",service=\"{bare}\"\r\n"
                );
                let body = format!(r#"{{"errors":[{{"code":"DENIED","message":{quoted}}}]}}"#);
                (401, challenge, body)
            }
            2 => {
                let headers = format!(
                    "location: {origin}/v2/{bare}\r\ndocker-content-digest: {bare}\r\netag: {bare}\r\n"
                );
                let id = "00000000-0000-4000-8000-000000000001";
                let body = format!(
                    r#"{{"token":"{id}","projectUuid":"{id}","id":{quoted},"channel_id":{quoted},"application":"Dependency-Track {bare}","version":{quoted},"processing":false,"permissions":[{quoted}]}}"#
                );
                (
                    if head.starts_with("POST /v2") {
                        202
                    } else {
                        201
                    },
                    headers,
                    body,
                )
            }
            3 => (
                307,
                format!("location: http://{host}.localhost:9001/{bare}\r\n"),
                words.clone(),
            ),
            4 => {
                let body = format!(
                    r#"{{"title":{quoted},"detail":{quoted},"message":{quoted},"errors":[{quoted}]}}"#
                );
                (
                    400,
                    "content-type: application/problem+json\r\n".to_owned(),
                    body,
                )
            }
            _ => {
                let body = format!(
                    "<Error><Code>AccessDenied</Code><Message>{words} {head}</Message></Error>"
                );
                (
                    403,
                    format!("x-amz-bucket-region: {bare}\r\nratelimit-limit: {bare}\r\n"),
                    body,
                )
            }
        };
        let phrase = words.replace(|letter: char| letter.is_control(), " ");
        let length = if head.starts_with("HEAD ") {
            0
        } else {
            body.len()
        };
        let body = &body[..length];
        format!(
            "HTTP/1.1 {status} {phrase}\r\n{more}x-words: {phrase}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    }

    fn smtp(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut say = |code: u16| {
            let words = self.words("");
            write!(stream, "{code} {words}\r\n").is_ok()
        };
        let (mode, mut is_data) = (self.round() / ENCODINGS.len(), false);
        say(220);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
            let said = line.trim_end().to_owned();
            line.clear();
            let code = match said.split(' ').next().unwrap_or_default() {
                "." => {
                    is_data = false;
                    if mode == 1 { 554 } else { 250 }
                }
                _ if is_data => continue,
                "EHLO" => {
                    let _ = write!(
                        reader.get_mut(),
                        "250-{}\r\n250 AUTH PLAIN\r\n",
                        self.words("")
                    );
                    continue;
                }
                "AUTH" if mode == 0 => 535,
                "AUTH" => 235,
                "RCPT" if mode == 2 => 550,
                "MAIL" if mode == 3 => 550,
                "DATA" => {
                    is_data = true;
                    354
                }
                _ => 250,
            };
            if !say(code) {
                return;
            }
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or_default()];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// The log, at the level of production.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    pub fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line<'a>(&'a mut String);
        impl tracing::field::Visit for Line<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                let _ = write!(self.0, "{}={value:?} ", field.name());
            }
        }
        let mut log = self.0.lock().unwrap();
        event.record(&mut Line(&mut log));
        log.push('\n');
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Answers as the delivery functions do; or that everything works, so that it can be kept.
fn memory(is_strict: Rc<RefCell<bool>>) -> Memory {
    Memory::new(move |memory, integration, event| {
        let is_strict = *is_strict.borrow();
        Box::pin(async move {
            if !is_strict {
                return Ok(serde_json::to_value(Verdict::Works {
                    warnings: Vec::new(),
                })
                .unwrap());
            }
            let asked: Check = serde_json::from_value(event["check"].clone()).unwrap();
            macro_rules! answer {
                ($($integration:ty),+) => {
                    match integration {
                        $(<$integration>::ID => check::check::<$integration>(memory, &http(), asked).await?,)+
                        other => panic!("no integration is called {other}"),
                    }
                };
            }
            Ok(serde_json::to_value(for_all_integrations!(answer)).unwrap())
        })
    })
}

/// Everything that a credential could have reached, by the name of the place.
#[derive(Default)]
struct Sinks(BTreeMap<&'static str, String>);

impl Sinks {
    fn add(&mut self, name: &'static str, text: &str) {
        let sink = self.0.entry(name).or_default();
        sink.push_str(text);
        sink.push('\n');
    }
}

/// A registration of every kind, and the canaries in it.
struct Case {
    name: &'static str,
    secrets: Vec<String>,
    inputs: fn(&str, &[String]) -> Value,
    attachment: Value,
}

const KEY: &str = include_str!("../peers/files/registry/token-for-tests.key");

fn case(name: &'static str, secrets: usize, inputs: fn(&str, &[String]) -> Value) -> Case {
    let secrets = (0..secrets)
        .map(|number| canary(&format!("{name} {number}")))
        .collect();
    Case {
        name,
        secrets,
        inputs,
        attachment: json!({}),
    }
}

async fn run<I: Integration>(case: Case, sinks: &mut Sinks) {
    let decoy = canary("decoy");
    let mut search = Search::default();
    for secret in case.secrets.iter().chain([&canary(TOKEN)]) {
        search.add(secret);
    }
    let words = case
        .secrets
        .iter()
        .chain([&canary(TOKEN), &decoy])
        .cloned()
        .collect();
    let serve = if I::ID == Smtp::ID {
        Parrot::smtp
    } else {
        Parrot::http
    };
    let parrot = Parrot::start(words, serve);
    let is_strict = Rc::new(RefCell::new(false));
    let memory = memory(Rc::clone(&is_strict));
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let given = (case.inputs)(&parrot.port.to_string(), &case.secrets);
    let wanted = register::NewRegistration {
        integration: I::ID.to_owned(),
        name: "canary".to_owned(),
        description: String::new(),
        inputs: inputs(given.clone()),
        id: None,
    };
    register::register(scope(&memory), wanted, act())
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let wanted = attach::NewAttachment {
        registration: "canary".to_owned(),
        workflow: api::workflows::selector(WORKFLOW, None).unwrap(),
        inputs: inputs(case.attachment.clone()),
        wait_secs: None,
        id: None,
        allow_duplicate: false,
    };
    let attachment = attach::attach(scope(&memory), wanted, act())
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", case.name))
        .0
        .row;
    *is_strict.borrow_mut() = true;
    let tools = Tools::new(http());
    let mut mine = Sinks::default();
    let modes = if I::ID == Smtp::ID { 5 } else { 6 };
    for round in 0..modes * ENCODINGS.len() {
        parrot.round.store(round, Ordering::Relaxed);
        // Not every credential is one that the third party has heard of: somebody may have put it into an SBOM.
        let sbom = json!({ "bomFormat": "CycloneDX", "specVersion": "1.6", "round": round, "words": parrot.words("") });
        let sbom = Material::inline(
            "sbom",
            MaterialType::SBOM_CYCLONEDX_JSON,
            "sbom.json",
            sbom.to_string().into_bytes(),
        );
        let bytes = attestation(&round.to_string(), vec![sbom]).compact();
        let accepted = accept::pushed(scope(&memory), Bytes::from(bytes), None, tests())
            .await
            .unwrap();
        for _ in 0..3 {
            memory.advance(Duration::from_secs(61));
            let until = memory.now().plus(Duration::from_mins(15));
            reconcile::reconcile(&memory, until).await.unwrap();
            // One at a time: who waits for its turn at a paced destination waits for this clock.
            loop {
                let records = memory.receive(I::ID, 1);
                if records.is_empty() {
                    break;
                }
                deliver::batch::<I>(&memory, &tools, records, until).await;
                memory.advance(Duration::from_secs(5));
            }
        }
        let (id, _) = accepted.plan.deliveries().next().unwrap();
        let path = [("delivery", id.as_str())];
        let answer = ask(
            &memory,
            Role::Admin,
            "GET /v1/deliveries/{delivery}",
            &path,
            json!({}),
        )
        .await;
        mine.add("answers of the API", &answer.body.to_string());
        let wanted = json!({ "integration": I::ID, "name": "other", "inputs": given });
        let answer = ask(&memory, Role::Admin, "POST /v1/registrations", &[], wanted).await;
        // Some can be registered with a third party like this.
        mine.add("answers of the API", &answer.body.to_string());
        if answer.status == 201 {
            let path = [("registration", "other")];
            ask(
                &memory,
                Role::Admin,
                "DELETE /v1/registrations/{registration}",
                &path,
                json!({}),
            )
            .await;
        }
        let hash = &accepted.attestation.hash;
        let previewed = preview::<I>(scope(&memory), &tools.secrets, &attachment.id, hash)
            .await
            .unwrap();
        // An SBOM in base64 in a document is beyond any search that is not for it.
        let previewed = serde_json::to_string(&previewed).unwrap();
        mine.add("previews", &previewed);
    }
    mine.add("rows and messages", &memory.dump());
    mine.add("log lines", &log.0.lock().unwrap());

    let mut control = Search::default();
    control.add(&decoy);
    let shown = parrot.shown.lock().unwrap().clone();
    for (name, text) in mine.0 {
        assert_eq!(search.first(&text), None, "{} in {name}", case.name);
        for secret in &shown {
            assert!(
                !text.contains(secret.as_str()),
                "{}: a credential that was sent is in {name}",
                case.name
            );
        }
        if name == "answers of the API" || name == "rows and messages" {
            assert!(
                control.count(&text) > 0,
                "{}: nothing that was repeated is in {name}",
                case.name
            );
        }
        sinks.add(name, &text);
    }
}

#[tokio::test]
async fn no_credential_comes_back_in_any_encoding() {
    let mut sinks = Sinks::default();
    let mut dependency_track = case(
        "dependency-track",
        1,
        |port, secrets| json!({ "instanceURI": format!("http://127.0.0.1:{port}"), "apiKey": secrets[0], "allowAutoCreate": true }),
    );
    dependency_track.attachment = json!({ "projectName": "shop" });
    run::<DependencyTrack>(dependency_track, &mut sinks).await;
    run::<DiscordWebhook>(
        case("discord-webhook", 1, |port, secrets| {
            json!({ "webhook": format!("http://127.0.0.1:{port}/api/webhooks/123456789/{}", secrets[0]) })
        }),
        &mut sinks,
    )
    .await;
    run::<SlackWebhook>(
        case("slack-webhook", 1, |port, secrets| {
            json!({ "webhook": format!("http://127.0.0.1:{port}/services/T0/B0/{}", secrets[0]) })
        }),
        &mut sinks,
    )
    .await;
    run::<Webhook>(
        case("webhook", 5, |port, secrets| {
            let [path, query, bearer, key, signing] = secrets else {
                panic!("five secrets")
            };
            let basic = base64_simd::STANDARD.encode_to_string(format!("robot:{key}"));
            json!({
                "url": format!("http://127.0.0.1:{port}/hook/{path}?token={query}"),
                "headers": format!("Authorization: Bearer {bearer}\nX-Gateway: Basic {basic}"),
                "secret": signing,
            })
        }),
        &mut sinks,
    )
    .await;
    run::<OciRegistry>(
        case("oci-registry", 1, |port, secrets| {
            json!({ "repository": format!("127.0.0.1:{port}/acme/shop"), "username": "robot", "password": secrets[0] })
        }),
        &mut sinks,
    )
    .await;
    run::<Smtp>(
        case("smtp", 1, |port, secrets| {
            json!({
                "host": "127.0.0.1", "port": port.parse::<u16>().unwrap(), "tls": "none", "from": "ci@example.org",
                "to": "team@example.org", "user": "robot", "password": secrets[0],
            })
        }),
        &mut sinks,
    )
    .await;
    run::<Guac>(
        case("guac, s3", 1, |port, secrets| {
            json!({
                "provider": "s3", "bucket": "sboms", "endpoint": format!("http://127.0.0.1:{port}"),
                "access_key_id": "AKIAEXAMPLE", "credentials": secrets[0],
            })
        }),
        &mut sinks,
    )
    .await;
    let azure = Case {
        secrets: vec![
            base64_simd::STANDARD.encode_to_string(canary("azure account key, of 36 letters")),
        ],
        ..case("guac, azure", 0, |port, secrets| {
            json!({
                "provider": "azure", "bucket": "sboms", "endpoint": format!("http://127.0.0.1:{port}"),
                "account": "acme", "credentials": secrets[0],
            })
        })
    };
    run::<Guac>(azure, &mut sinks).await;
    run::<Guac>(
        case("guac, azure by token", 1, |port, secrets| {
            let sig = secrets[0].replace('_', "%5F");
            json!({
                "provider": "azure", "bucket": "sboms", "endpoint": format!("http://127.0.0.1:{port}"),
                "account": "acme", "credentials": format!("sv=2026-01-01&sr=c&sp=c&sig={sig}"),
            })
        }),
        &mut sinks,
    )
    .await;
    let lines = || {
        KEY.lines()
            .filter(|line| line.len() == 64)
            .map(str::to_owned)
    };
    let gcs = Case {
        secrets: lines().take(3).chain([canary("key id")]).collect(),
        ..case("guac, gcs", 0, |port, secrets| {
            let key = json!({
                "type": "service_account", "client_email": "robot@acme.iam.gserviceaccount.com", "private_key": KEY,
                "private_key_id": secrets[3],
            });
            json!({
                "provider": "gcs", "bucket": "sboms", "endpoint": format!("http://127.0.0.1:{port}"),
                "credentials": key.to_string(),
            })
        })
    };
    run::<Guac>(gcs, &mut sinks).await;

    let mut control = Search::default();
    control.add(&canary("decoy"));
    for (name, text) in &sinks.0 {
        let found = control.count(text);
        println!(
            "{name}: {} bytes, 0 parts of a credential, {found} of the decoy",
            text.len()
        );
        assert!(found > 0, "the search would not find anything in {name}");
    }
    assert_eq!(sinks.0.len(), 4);
}
