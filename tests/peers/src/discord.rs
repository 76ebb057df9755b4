//! Discord's webhooks, from what Discord says of them and the schema that it publishes: it gives out no server.
//!
//! It refuses what Discord refuses, with Discord's codes, and keeps the messages that it took.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{Method, Response};
use serde_json::{Value, json};

use crate::{Double, Received};

pub struct Discord {
    double: Double,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By id.
    webhooks: BTreeMap<String, Webhook>,
    limited: Option<Limited>,
    ids: u64,
}

struct Webhook {
    token: String,
    is_forum: bool,
    threads: BTreeSet<String>,
    archived: BTreeSet<String>,
    messages: Vec<Message>,
}

#[derive(Clone, Copy)]
struct Limited {
    until: Instant,
    by: Limit,
}

/// Source of a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Webhook,
    /// All webhooks together, for the sender's address.
    Global,
    /// Not Discord but who stands before it, in HTML.
    Front,
}

/// A message that it took.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: String,
    pub thread: Option<String>,
    pub payload: Value,
    /// Name and bytes of each file.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Discord {
    pub fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let known = Arc::clone(&state);
        let double = Double::start(move |request| answer(&mut known.lock().unwrap(), request));
        Self { double, state }
    }

    /// Makes a webhook, and says where it is. It is shown without a version, as Discord shows it.
    pub fn webhook(&self) -> String {
        self.add(false)
    }

    /// Makes a webhook of a channel that has threads and nothing beside them.
    pub fn forum(&self) -> String {
        self.add(true)
    }

    fn add(&self, is_forum: bool) -> String {
        let mut state = self.state.lock().unwrap();
        let id = state.next_id();
        let token = format!("canary-token-of-{id}");
        let url = format!("{}/api/webhooks/{id}/{token}", self.double.origin);
        let webhook = Webhook {
            token,
            is_forum,
            threads: BTreeSet::new(),
            archived: BTreeSet::new(),
            messages: Vec::new(),
        };
        state.webhooks.insert(id, webhook);
        url
    }

    /// Makes a thread in a webhook's channel.
    pub fn thread(&self, url: &str) -> String {
        let mut state = self.state.lock().unwrap();
        let thread = state.next_id();
        let webhook = state.webhooks.get_mut(id(url)).unwrap();
        webhook.threads.insert(thread.clone());
        thread
    }

    pub fn archive(&self, url: &str, thread: &str) {
        let mut state = self.state.lock().unwrap();
        let webhook = state.webhooks.get_mut(id(url)).unwrap();
        webhook.archived.insert(thread.to_owned());
    }

    /// Removes a webhook: it is answered 404 and 10015 from now on.
    pub fn remove(&self, url: &str) {
        self.state.lock().unwrap().webhooks.remove(id(url));
    }

    /// Nothing is taken for a while.
    pub fn limit(&self, by: Limit, wait: Duration) {
        let until = Instant::now() + wait;
        self.state.lock().unwrap().limited = Some(Limited { until, by });
    }

    /// Returns the messages posted through a webhook and accepted, in order.
    pub fn messages(&self, url: &str) -> Vec<Message> {
        let state = self.state.lock().unwrap();
        let webhook = state.webhooks.get(id(url));
        webhook.map_or_else(Vec::new, |webhook| webhook.messages.clone())
    }

    pub fn received(&self) -> Vec<Received> {
        self.double.received()
    }
}

/// Returns a webhook's ID, from its URL.
fn id(url: &str) -> &str {
    let path = url.split_once("/webhooks/").unwrap().1;
    path.split('/').next().unwrap()
}

impl State {
    fn next_id(&mut self) -> String {
        self.ids += 1;
        (100_000_000_000_000_000 + self.ids).to_string()
    }
}

fn answer(state: &mut State, request: &Received) -> Response<Bytes> {
    if let Some(limited) = state.limited {
        let left = limited.until.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return limit(limited.by, left);
        }
    }
    if !request.headers().contains_key(USER_AGENT) {
        return html(403);
    }
    let path: Vec<&str> = request.uri().path().split('/').skip(1).collect();
    let ["api", "v10", "webhooks", id, token] = path[..] else {
        return say(404, 0, "404: Not Found");
    };
    let message_id = state.next_id();
    let Some(webhook) = state.webhooks.get_mut(id) else {
        return say(404, 10015, "Unknown Webhook");
    };
    if webhook.token != token {
        return say(401, 50027, "Invalid Webhook Token");
    }
    let channel = "100000000000000000";
    match *request.method() {
        Method::GET => json_answer(
            200,
            &json!({ "id": id, "type": 1, "name": "Builds", "channel_id": channel,
                "guild_id": "100000000000000000", "token": token, "application_id": null, "avatar": null }),
        ),
        Method::POST => match message(webhook, request) {
            Err(refusal) => refusal,
            Ok((payload, files, thread)) => {
                let channel_id = thread.as_deref().unwrap_or(channel).to_owned();
                webhook.messages.push(Message {
                    id: message_id.clone(),
                    thread,
                    payload,
                    files,
                });
                match parameter(request, "wait") {
                    Some("true") => json_answer(
                        200,
                        &json!({ "id": message_id, "channel_id": channel_id, "webhook_id": id }),
                    ),
                    _ => Response::builder().status(204).body(Bytes::new()).unwrap(),
                }
            }
        },
        _ => say(405, 0, "405: Method Not Allowed"),
    }
}

fn parameter<'a>(request: &'a Received, name: &str) -> Option<&'a str> {
    let mut pairs = request.uri().query()?.split('&');
    pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn json_answer(status: u16, body: &Value) -> Response<Bytes> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .body(body.to_string().into())
        .unwrap()
}

fn say(status: u16, code: u64, message: &str) -> Response<Bytes> {
    json_answer(status, &json!({ "code": code, "message": message }))
}

fn html(status: u16) -> Response<Bytes> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "text/html; charset=UTF-8")
        .body("<!DOCTYPE html><title>Access denied</title>".into())
        .unwrap()
}

fn limit(by: Limit, left: Duration) -> Response<Bytes> {
    if by == Limit::Front {
        return html(429);
    }
    let is_global = by == Limit::Global;
    let body = json!({ "message": "You are being rate limited.", "retry_after": left.as_secs_f64(), "global": is_global });
    let mut response = json_answer(429, &body);
    let secs = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    response.headers_mut().insert(RETRY_AFTER, secs.into());
    response
}

type Taken = (Value, Vec<(String, Vec<u8>)>, Option<String>);

/// Returns the posted message, or the response that refuses it.
fn message(webhook: &Webhook, request: &Received) -> Result<Taken, Response<Bytes>> {
    let thread = parameter(request, "thread_id").map(str::to_owned);
    match &thread {
        Some(thread) if !webhook.threads.contains(thread) => {
            return Err(say(404, 10003, "Unknown Channel"));
        }
        Some(thread) if webhook.archived.contains(thread) => {
            return Err(say(400, 50083, "Thread is archived"));
        }
        None if webhook.is_forum => {
            let told = "Webhooks posted to forum channels must have a thread_name or thread_id";
            return Err(say(400, 220_001, told));
        }
        _ => {}
    }
    let (payload, files) =
        parts(request).ok_or_else(|| say(400, 50109, "The request body contains invalid JSON."))?;
    if files.iter().any(|(_, bytes)| bytes.len() > 10 << 20) {
        return Err(say(400, 40005, "Request entity too large"));
    }
    let mut faults = Vec::new();
    check(&payload, &files, &mut faults);
    if !faults.is_empty() {
        let errors: serde_json::Map<_, _> = faults
            .into_iter()
            .map(|fault| (fault, json!({ "_errors": [{ "code": "BASE_TYPE_BAD_LENGTH", "message": "Must be shorter" }] })))
            .collect();
        let body = json!({ "code": 50035, "message": "Invalid Form Body", "errors": errors });
        return Err(json_answer(400, &body));
    }
    let is_there = |key: &str| payload[key].as_array().is_some_and(|all| !all.is_empty());
    let has_text = payload["content"]
        .as_str()
        .is_some_and(|text| !text.trim().is_empty());
    match has_text || is_there("embeds") || !files.is_empty() {
        true => Ok((payload, files, thread)),
        false => Err(say(400, 50006, "Cannot send an empty message")),
    }
}

/// Its name and what is in it.
type File = (String, Vec<u8>);

/// The payload and the files, of JSON or of a form.
fn parts(request: &Received) -> Option<(Value, Vec<File>)> {
    let kind = request.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    if kind == "application/json" {
        return Some((serde_json::from_slice(request.body()).ok()?, Vec::new()));
    }
    let boundary = kind.strip_prefix("multipart/form-data; boundary=")?;
    let mut rest = request
        .body()
        .strip_prefix(format!("--{boundary}").as_bytes())?;
    let (mut payload, mut files) = (None, Vec::new());
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let end = find(part, format!("\r\n--{boundary}").as_bytes())?;
        let head = find(&part[..end], b"\r\n\r\n")?;
        let (headers, content) = (
            std::str::from_utf8(&part[..head]).ok()?,
            &part[head + 4..end],
        );
        let value = |name: &str| {
            let (_, rest) = headers.split_once(&format!("{name}=\""))?;
            rest.split('"').next()
        };
        match value("; name")? {
            "payload_json" => payload = serde_json::from_slice(content).ok(),
            name if name.starts_with("files[") => {
                files.push((value("; filename")?.to_owned(), content.to_vec()));
            }
            _ => return None,
        }
        rest = &part[end + boundary.len() + 4..];
    }
    (rest == b"--\r\n").then_some((payload?, files))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

/// By the limits that Discord states.
fn check(payload: &Value, files: &[(String, Vec<u8>)], faults: &mut Vec<String>) {
    let mut over_all = 0;
    let mut length = |value: &Value, path: &str, least: usize, most: usize| {
        let length = match value {
            Value::Null => return 0,
            Value::String(text) => text.trim().encode_utf16().count(),
            _ => usize::MAX,
        };
        if !(least..=most).contains(&length) {
            faults.push(path.to_owned());
        }
        length.min(most + 1)
    };
    length(&payload["content"], "content", 0, 2_000);
    length(&payload["username"], "username", 1, 80);
    let embeds = payload["embeds"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut count = embeds.len();
    for embed in embeds {
        over_all += length(&embed["title"], "embeds.title", 0, 256);
        over_all += length(&embed["description"], "embeds.description", 0, 4_096);
        over_all += length(&embed["footer"]["text"], "embeds.footer.text", 0, 2_048);
        length(&embed["url"], "embeds.url", 0, 2_048);
        let fields = embed["fields"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        count = count.max(if fields.len() > 25 { 11 } else { 0 });
        for field in fields {
            for (key, most) in [("name", 256), ("value", 1_024)] {
                let value = if field[key].is_null() {
                    &Value::Bool(false)
                } else {
                    &field[key]
                };
                over_all += length(value, "embeds.fields", 1, most);
            }
        }
    }
    if count > 10 || over_all > 6_000 {
        faults.push("embeds".to_owned());
    }
    let name = payload["username"]
        .as_str()
        .unwrap_or_default()
        .to_lowercase();
    if name.contains("discord") || name.contains("clyde") {
        faults.push("username".to_owned());
    }
    let attachments = payload["attachments"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if attachments.len() > files.len() || files.len() > 10 {
        faults.push("attachments".to_owned());
    }
}

/// Whatever Discord would make of a message beyond its text: the letters that begin a mention, a link or a mark-up
/// and have no backslash before them.
pub fn live(payload: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for embed in payload["embeds"].as_array().unwrap() {
        let fields = embed["fields"].as_array().into_iter().flatten();
        let fields = fields.flat_map(|field| [&field["name"], &field["value"]]);
        for text in [&embed["title"], &embed["description"]]
            .into_iter()
            .chain(fields)
        {
            let text = text.as_str().unwrap();
            let mut letters = text.char_indices();
            while let Some((at, letter)) = letters.next() {
                match letter {
                    '\\' => {
                        letters.next();
                    }
                    '@' | '<' | '[' | '`' | '*' | '_' | '~' | '|' | '#' => {
                        found.push(text[at..].to_owned());
                    }
                    ':' if text[at..].starts_with("://") => found.push(text.to_owned()),
                    _ => {}
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use integrations::discord_webhook::{Attachment, DiscordWebhook, Registration};
    use integrations::{About, Error, Integration, Kind, Outcome};

    use super::*;
    use crate::{STATEMENT, Stage, http};

    fn registration(url: &str) -> Registration {
        serde_json::from_value(json!({ "webhook": url, "username": "Builds" })).unwrap()
    }

    async fn deliver(url: &str, inputs: Value) -> Result<Outcome, Error> {
        deliver_from(&Stage::of_statement(STATEMENT), url, inputs).await
    }

    async fn deliver_from(stage: &Stage, url: &str, inputs: Value) -> Result<Outcome, Error> {
        let registration = registration(url);
        let attachment: Attachment = serde_json::from_value(inputs).unwrap();
        DiscordWebhook::attach(&http(), &registration, &attachment).await?;
        let delivery = stage.delivery(&registration, &attachment);
        DiscordWebhook::deliver(&http(), stage, &delivery).await
    }

    /// The one link that is ours.
    fn page(stage: &Stage) -> String {
        let digest = stage.attestation.received;
        format!("https://integrations.example.org/console?attestation={digest}")
    }

    #[tokio::test]
    async fn a_summary_is_taken_and_its_id_is_on_the_receipt() {
        let discord = Discord::start();
        let (url, other) = (discord.webhook(), discord.webhook());
        DiscordWebhook::register(&http(), &registration(&url))
            .await
            .unwrap();
        assert!(discord.messages(&url).is_empty());

        let Outcome::Delivered(receipt) = deliver(&url, json!({})).await.unwrap() else {
            panic!("not delivered");
        };
        let messages = discord.messages(&url);
        assert_eq!(messages.len(), 1);
        assert!(discord.messages(&other).is_empty());
        assert_eq!(receipt["message_id"], messages[0].id);
        assert_eq!(messages[0].payload["username"], "Builds");
        let [(name, file)] = &messages[0].files[..] else {
            panic!("not one file")
        };
        let file = String::from_utf8(file.clone()).unwrap();
        assert_eq!(name, "summary.txt");
        assert!(
            file.starts_with("New attestation of shop/nightly-build\n"),
            "{file}"
        );
        let stage = Stage::of_statement(STATEMENT);
        assert_eq!(live(&messages[0].payload), [page(&stage)]);
    }

    #[tokio::test]
    async fn a_forum_wants_a_thread_that_is_there_and_open() {
        let discord = Discord::start();
        let url = discord.forum();
        let thread = discord.thread(&url);
        deliver(&url, json!({ "thread_id": thread })).await.unwrap();
        assert_eq!(discord.messages(&url)[0].thread.as_ref(), Some(&thread));
        for (inputs, code) in [
            (json!({}), "220001"),
            (json!({ "thread_id": "7" }), "10003"),
        ] {
            let error = deliver(&url, inputs).await.unwrap_err();
            assert_eq!(error.kind, Kind::Permanent);
            assert!(error.text.contains(code), "{error}");
        }
        discord.archive(&url, &thread);
        let error = deliver(&url, json!({ "thread_id": thread }))
            .await
            .unwrap_err();
        assert!(
            error.kind == Kind::Permanent && error.text.contains("50083"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_webhook_that_is_gone_is_dead_in_a_check_and_in_a_delivery() {
        let discord = Discord::start();
        let url = discord.webhook();
        let forged = format!("{url}x");
        let removed = discord.webhook();
        discord.remove(&removed);
        for url in [forged, removed] {
            let error = DiscordWebhook::register(&http(), &registration(&url))
                .await
                .unwrap_err();
            assert_eq!(error.kind, Kind::Gone);
            assert_eq!(deliver(&url, json!({})).await.unwrap_err().kind, Kind::Gone);
        }
    }

    #[tokio::test]
    async fn who_is_limited_is_told_for_how_long_and_for_whom() {
        let discord = Discord::start();
        let url = discord.webhook();
        for (by, about, least, most) in [
            (Limit::Webhook, About::Destination, 30_000, 60_000),
            (Limit::Global, About::Everyone, 30_000, 60_000),
            (Limit::Front, About::Everyone, 600_000, 600_000),
        ] {
            discord.limit(by, Duration::from_mins(1));
            let error = deliver(&url, json!({})).await.unwrap_err();
            let Kind::Retryable { after: Some(after) } = error.kind else {
                panic!("{error:?}")
            };
            assert!((least..=most).contains(&after.as_millis()), "{after:?}");
            assert_eq!(error.about, about, "{by:?}");
            discord.limit(by, Duration::ZERO);
        }
        deliver(&url, json!({})).await.unwrap();
        assert_eq!(discord.messages(&url).len(), 1);
    }

    #[tokio::test]
    async fn whatever_strangers_write_is_taken_and_stays_text() {
        let discord = Discord::start();
        let url = discord.webhook();
        let name = "@everyone <@1> ``` [x](https://evil.example) <t:1> 🦀 ".repeat(40);
        let statement = STATEMENT
            .replace("nightly-build", &name)
            .replace("older than 5 days", &name)
            .replace("\"prod\"", &json!(name).to_string());
        let mut stage = Stage::of_statement(&statement);
        stage.workflow.name = name.clone();
        deliver_from(
            &stage,
            &url,
            json!({ "inline_content": true, "emails": true }),
        )
        .await
        .unwrap();
        let template =
            json!({ "template": "{% for i in range(9) %}# {{ workflow.name }}\n{% endfor %}" });
        deliver_from(&stage, &url, template).await.unwrap();
        let messages = discord.messages(&url);
        assert_eq!(messages.len(), 2);
        for message in &messages {
            assert_eq!(live(&message.payload), [page(&stage)]);
        }
    }

    #[tokio::test]
    async fn discord_refuses_what_no_reader_could_be_shown() {
        let discord = Discord::start();
        let url = discord.webhook().replace("/api/", "/api/v10/");
        let embed = |key: &str, length: usize| json!({ "embeds": [{ key: "x".repeat(length) }] });
        let field = |name: &str| json!({ "name": name, "value": "x".repeat(1_000) });
        for (message, code) in [
            (embed("title", 257), 50035),
            (embed("description", 4_097), 50035),
            (
                json!({ "embeds": vec![json!({ "title": "x" }); 11] }),
                50035,
            ),
            (
                json!({ "embeds": [{ "fields": vec![field("x"); 7] }] }),
                50035,
            ),
            (json!({ "embeds": [{ "fields": [field("")] }] }), 50035),
            (json!({ "content": "x".repeat(2_001) }), 50035),
            (json!({ "content": "x", "username": "Discord" }), 50035),
            (json!({ "content": " " }), 50006),
        ] {
            let request = http::Request::post(&url)
                .header(CONTENT_TYPE, "application/json")
                .body(message.to_string().into())
                .unwrap();
            let response = http().send(request).await.unwrap();
            let answer: Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!(answer["code"], code, "{message}");
        }
        assert!(discord.messages(&url).is_empty());
    }
}
