//! Slack's incoming webhooks, from what Slack says of them: it gives out no server, and no description of these.
//!
//! It refuses what Slack refuses, in Slack's words, and keeps the messages that it took.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Response};
use serde_json::Value;

use crate::{Double, Received};

pub struct Slack {
    double: Double,
    hooks: Arc<Mutex<BTreeMap<String, Hook>>>,
}

#[derive(Default)]
struct Hook {
    /// Response to every post once the webhook no longer works.
    refusal: Option<(u16, &'static str)>,
    limited_until: Option<Instant>,
    messages: Vec<Value>,
}

impl Slack {
    pub fn start() -> Self {
        let hooks: Arc<Mutex<BTreeMap<String, Hook>>> = Arc::default();
        let known = Arc::clone(&hooks);
        let double = Double::start(move |request| answer(&mut known.lock().unwrap(), request));
        Self { double, hooks }
    }

    /// Makes a webhook, and says where it is.
    pub fn hook(&self) -> String {
        let mut hooks = self.hooks.lock().unwrap();
        let path = format!("/services/T00000000/B{:08}/canary-token", hooks.len());
        hooks.insert(path.clone(), Hook::default());
        format!("{}{path}", self.double.origin)
    }

    /// The webhook answers nothing but this from now on, as `410 channel_is_archived`.
    pub fn refuse(&self, url: &str, status: u16, word: &'static str) {
        self.with(url, |hook| hook.refusal = Some((status, word)));
    }

    /// Too much was posted: nothing is taken for a while, or from now on again when that is zero.
    pub fn limit(&self, url: &str, wait: Duration) {
        self.with(url, |hook| hook.limited_until = Some(Instant::now() + wait));
    }

    /// Returns the messages posted through a webhook and accepted, in order.
    pub fn messages(&self, url: &str) -> Vec<Value> {
        self.with(url, |hook| hook.messages.clone())
    }

    pub fn received(&self) -> Vec<Received> {
        self.double.received()
    }

    fn with<T>(&self, url: &str, with: impl FnOnce(&mut Hook) -> T) -> T {
        let path = url.strip_prefix(&self.double.origin).unwrap();
        with(self.hooks.lock().unwrap().get_mut(path).unwrap())
    }
}

fn answer(hooks: &mut BTreeMap<String, Hook>, request: &Received) -> Response<Bytes> {
    let Some(hook) = hooks.get_mut(request.uri().path()) else {
        return say(404, "no_service");
    };
    if let Some((status, word)) = hook.refusal {
        return say(status, word);
    }
    let left = hook.limited_until.map_or(Duration::ZERO, |until| {
        until.saturating_duration_since(Instant::now())
    });
    if !left.is_zero() {
        let mut response = say(429, "rate_limited");
        let secs = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, secs.into());
        return response;
    }
    match message(request) {
        Ok(message) => {
            hook.messages.push(message);
            say(200, "ok")
        }
        Err(word) => say(400, word),
    }
}

fn say(status: u16, word: &'static str) -> Response<Bytes> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "text/html")
        .body(word.into())
        .unwrap()
}

/// Returns the posted message, or the word for what is wrong with it.
fn message(request: &Received) -> Result<Value, &'static str> {
    let is_json = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if request.method() != Method::POST || !is_json {
        return Err("invalid_payload");
    }
    let message: Value = serde_json::from_slice(request.body()).map_err(|_| "invalid_payload")?;
    let fields = message.as_object().ok_or("invalid_payload")?;
    let text = match fields.get("text") {
        None => "",
        Some(text) => text.as_str().ok_or("invalid_payload")?,
    };
    let blocks = match fields.get("blocks") {
        None => &[][..],
        Some(blocks) => blocks.as_array().ok_or("invalid_blocks_format")?,
    };
    if text.is_empty() && blocks.is_empty() {
        return Err("no_text");
    }
    // From 4,000 on it is shown as several messages, which nobody wants.
    if text.chars().count() >= 4_000 {
        return Err("msg_too_long");
    }
    if blocks.len() > 50 {
        return Err("invalid_blocks");
    }
    let mut written = 0;
    for block in blocks {
        written += block_text(block).ok_or("invalid_blocks")?;
    }
    match written {
        0..=13_200 => Ok(message),
        _ => Err("msg_blocks_too_long"),
    }
}

/// Returns the length of the text in a block; `None` if it is not a valid block.
fn block_text(block: &Value) -> Option<usize> {
    let has_only = |keys: &[&str]| {
        let block = block.as_object();
        block.is_some_and(|block| block.keys().all(|key| keys.contains(&key.as_str())))
    };
    match block["type"].as_str()? {
        "header" if has_only(&["type", "text", "block_id"]) => {
            text(&block["text"], 150, &["plain_text"])
        }
        "section" if has_only(&["type", "text", "fields", "block_id"]) => {
            let body = match block.get("text") {
                Some(body) => text(body, 3_000, BOTH)?,
                None => 0,
            };
            let fields = match block.get("fields") {
                Some(fields) => texts(fields, 2_000)?,
                None => 0,
            };
            (body + fields > 0).then_some(body + fields)
        }
        "context" if has_only(&["type", "elements", "block_id"]) => {
            texts(&block["elements"], 2_000)
        }
        "divider" if has_only(&["type", "block_id"]) => Some(0),
        _ => None,
    }
}

const BOTH: &[&str] = &["plain_text", "mrkdwn"];

fn texts(all: &Value, most: usize) -> Option<usize> {
    let all = all.as_array()?;
    if all.is_empty() || all.len() > 10 {
        return None;
    }
    all.iter().map(|one| text(one, most, BOTH)).sum()
}

/// Returns the length of a text object; `None` if it is not a valid one, or too long.
fn text(object: &Value, most: usize, kinds: &[&str]) -> Option<usize> {
    let kind = object["type"]
        .as_str()
        .filter(|kind| kinds.contains(kind))?;
    let own = match kind {
        "mrkdwn" => "verbatim",
        _ => "emoji",
    };
    let known = |key: &String| ["type", "text", own].contains(&key.as_str());
    if !object.as_object()?.keys().all(known) {
        return None;
    }
    let length = object["text"].as_str()?.encode_utf16().count();
    (1..=most).contains(&length).then_some(length)
}

/// Whatever Slack would make of a message beyond its text: mentions, links, and what only looks like one and is
/// made one unless it is told to leave the text as it is.
pub fn live(message: &Value) -> Vec<String> {
    let mut found = Vec::new();
    look(message, &mut found);
    found
}

fn look(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| look(one, found)),
        Value::Object(object) => {
            let text = object
                .get("text")
                .and_then(Value::as_str)
                .unwrap_or_default();
            // The text of the message itself has no kind, and is read as markup.
            let markup = object.get("type").is_none_or(|kind| kind == "mrkdwn");
            if markup {
                let tags = text.split('<').skip(1);
                found.extend(tags.map(|tag| tag.split('>').next().unwrap().to_owned()));
            }
            if markup
                && object.get("type").is_some()
                && object.get("verbatim") != Some(&true.into())
            {
                let words = text.split_whitespace();
                let links =
                    words.filter(|word| word.contains("://") || word.starts_with(['@', '#']));
                found.extend(links.map(str::to_owned));
            }
            object.values().for_each(|value| look(value, found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use integrations::slack_webhook::{Attachment, Registration, SlackWebhook};
    use integrations::{Error, Integration, Kind, Outcome};
    use serde_json::json;

    use super::*;
    use crate::{STATEMENT, Stage, http};

    fn registration(url: &str) -> Registration {
        serde_json::from_value(json!({ "webhook": url })).unwrap()
    }

    async fn deliver(stage: &Stage, url: &str, inputs: Value) -> Result<Outcome, Error> {
        let registration = registration(url);
        let attachment: Attachment = serde_json::from_value(inputs).unwrap();
        SlackWebhook::attach(&http(), &registration, &attachment).await?;
        let delivery = stage.delivery(&registration, &attachment);
        SlackWebhook::deliver(&http(), stage, &delivery).await
    }

    #[tokio::test]
    async fn a_summary_is_taken_and_a_check_leaves_no_trace() {
        let slack = Slack::start();
        let (url, other) = (slack.hook(), slack.hook());
        SlackWebhook::register(&http(), &registration(&url))
            .await
            .unwrap();
        assert!(slack.messages(&url).is_empty());

        let stage = Stage::of_statement(STATEMENT);
        deliver(&stage, &url, json!({})).await.unwrap();
        let messages = slack.messages(&url);
        assert_eq!(messages.len(), 1);
        assert!(slack.messages(&other).is_empty());
        let text = messages[0]["text"].as_str().unwrap();
        assert!(
            text.starts_with("New attestation of shop/nightly-build: "),
            "{text}"
        );
        let page = format!(
            "https://integrations.example.org/console?attestation={}|Open the attestation at integrations.example.org",
            stage.attestation.received
        );
        assert_eq!(
            live(&messages[0]),
            [
                "https://ci.example.org/runs/77|Open the run at ci.example.org",
                page.as_str()
            ]
        );
    }

    #[tokio::test]
    async fn a_test_message_is_posted_where_that_is_asked_for() {
        let slack = Slack::start();
        let url = slack.hook();
        let inputs = json!({ "webhook": url, "send_test_message": true });
        let registration: Registration = serde_json::from_value(inputs).unwrap();
        SlackWebhook::register(&http(), &registration)
            .await
            .unwrap();
        let expected = json!({ "text": "This is a test message. Welcome to Chainloop!" });
        assert_eq!(slack.messages(&url), [expected]);
    }

    #[tokio::test]
    async fn a_webhook_that_is_gone_is_dead_in_a_check_and_in_a_delivery() {
        let slack = Slack::start();
        let stage = Stage::of_statement(STATEMENT);
        for (status, word) in [
            (404, "no_service"),
            (410, "channel_is_archived"),
            (403, "invalid_token"),
        ] {
            let url = slack.hook();
            slack.refuse(&url, status, word);
            let error = SlackWebhook::register(&http(), &registration(&url))
                .await
                .unwrap_err();
            assert_eq!(error.kind, Kind::Gone, "{word}");
            let error = deliver(&stage, &url, json!({})).await.unwrap_err();
            assert_eq!(error.kind, Kind::Gone, "{word}");
        }
        let error = deliver(&stage, &slack.hook().replace("T0", "T1"), json!({}))
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Gone);
    }

    #[tokio::test]
    async fn too_many_messages_are_told_when_to_come_again() {
        let slack = Slack::start();
        let url = slack.hook();
        slack.limit(&url, Duration::from_mins(1));
        let stage = Stage::of_statement(STATEMENT);
        let error = deliver(&stage, &url, json!({})).await.unwrap_err();
        let Kind::Retryable { after: Some(after) } = error.kind else {
            panic!("{error:?}")
        };
        assert!((30..=60).contains(&after.as_secs()), "{after:?}");
        slack.limit(&url, Duration::ZERO);
        deliver(&stage, &url, json!({})).await.unwrap();
        assert_eq!(slack.messages(&url).len(), 1);
    }

    #[tokio::test]
    async fn whatever_strangers_write_is_taken_and_stays_text() {
        let slack = Slack::start();
        let url = slack.hook();
        let name = "<!channel> <@U1> ``` @everyone <https://evil.example|x> & 🦀 ".repeat(40);
        let statement = STATEMENT
            .replace("nightly-build", &name)
            .replace("older than 5 days", &name)
            .replace("\"prod\"", &json!(name).to_string());
        let mut stage = Stage::of_statement(&statement);
        stage.workflow.name = name.clone();
        deliver(
            &stage,
            &url,
            json!({ "inline_content": true, "emails": true }),
        )
        .await
        .unwrap();
        let template = json!({ "template": "```\n{{ workflow.name }}\n```\n{% for m in materials %}{{ m.name }}\n{% endfor %}" });
        deliver(&stage, &url, template).await.unwrap();
        let long =
            json!({ "template": "{% for i in range(300) %}0123456789 <{{ i }}>\n{% endfor %}" });
        deliver(&stage, &url, long).await.unwrap();
        let messages = slack.messages(&url);
        assert_eq!(messages.len(), 3);
        for message in &messages {
            // The run, and the attestation's page.
            assert_eq!(live(message).len(), 2, "{:?}", live(message));
        }
    }

    #[tokio::test]
    async fn slack_refuses_what_no_reader_could_be_shown() {
        let slack = Slack::start();
        let url = slack.hook();
        let section = |length: usize| json!({ "type": "section", "text": { "type": "mrkdwn", "text": "x".repeat(length) } });
        let header = |length: usize| json!({ "type": "header", "text": { "type": "plain_text", "text": "x".repeat(length) } });
        for (message, word) in [
            (json!({ "text": "x".repeat(4_000) }), "msg_too_long"),
            (json!({ "blocks": vec![section(1); 51] }), "invalid_blocks"),
            (json!({ "blocks": [section(3_001)] }), "invalid_blocks"),
            (json!({ "blocks": [section(0)] }), "invalid_blocks"),
            (json!({ "blocks": [header(151)] }), "invalid_blocks"),
            (
                json!({ "blocks": vec![section(3_000); 5] }),
                "msg_blocks_too_long",
            ),
            (json!({ "blocks": {} }), "invalid_blocks_format"),
            (json!([]), "invalid_payload"),
            (json!({}), "no_text"),
        ] {
            let request = http::Request::post(&url)
                .header(CONTENT_TYPE, "application/json")
                .body(message.to_string().into())
                .unwrap();
            let response = http().send(request).await.unwrap();
            assert_eq!(
                (response.status.as_u16(), &response.body[..]),
                (400, word.as_bytes())
            );
        }
        assert!(slack.messages(&url).is_empty());
    }
}
