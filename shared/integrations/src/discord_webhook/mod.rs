//! Posts a summary of each attestation to a Discord channel: what was built and how its policies were judged, with
//! all the rest in a text file.
//!
//! It goes through a webhook of that channel, and into one of its threads where the attachment has `thread_id`.
//! Registering asks Discord for the webhook and posts nothing. Discord cannot tell a repeat from a new message: where
//! it took a message and did not say so, that message may show up twice, and no more often. It counts what all of us
//! do wrong by our address, so a webhook that is gone is left alone at once, and when it refuses our address, nothing
//! is sent to anybody for a while.
//!
//! # Receipt
//!
//! The ids of the message and of its channel.
//!
//! # Limits
//!
//! Two messages a second for each webhook; a message's embed has at most 6,000 characters and the whole summary is in
//! the file beside it.
//!
//! # Failures
//!
//! - 404 10015, 401 50027, 403 50001 and 50013, 404 10003: the webhook is gone or has no access; the registration is
//!   paused. Make another webhook and `registered rotate` to it.
//! - 404 10003 with `thread_id`, 400 50083: the thread is gone or archived; attach it with another.
//! - 400 220001, 220002: the channel is a forum; attach it with the `thread_id` of a post.
//! - 400 50035, 50006, 50045, 200000, 240000: Discord refuses the message itself, and says why.
//! - 429: tried again when Discord says; with `global`, or from the network before Discord, by all registrations.
//! - 40004, 40006, 130000: temporarily off; tried again.
//! - no answer twice: fails, since the message may be there twice already.

mod message;

use std::time::Duration;

use attestation::{Digest, MaterialType};
use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::http::{LONGEST_PAUSE, Response, retry_after};
use crate::{
    About, Delivery, Detail, Error, Filter, Host, Http, Integration, Kind, Outcome, Presence,
    Preview, SecretUrl, Summary, Template, Warnings, facts, repeat,
};

#[derive(Debug)]
pub struct DiscordWebhook;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// URL of the webhook, as Discord shows it: `https://discord.com/api/webhooks/…`
    #[schemars(
        with = "SecretUrl",
        example = "https://discord.com/api/webhooks/100000000000000000/XXXXXXXXXXXX"
    )]
    pub webhook: WebhookUrl,
    /// Name that the messages are from; the webhook's own when it is not given
    #[serde(default)]
    #[schemars(
        with = "Option<String>",
        length(min = 1, max = 80),
        example = &"Attestations"
    )]
    pub username: Option<Username>,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Only attestations that fit, as in `environment=prod, workflow.branch=release/*`
    #[serde(default)]
    pub filter: Option<Filter>,
    /// Text of the message in place of the verdict and the facts, without mark-up, as in `{{ workflow.name }}: {{ policy.status }}`
    #[serde(default)]
    #[schemars(with = "Option<Template>")]
    pub template: Option<Template>,
    /// Whether to show texts in full, and files that travel in the attestation
    #[serde(default)]
    pub inline_content: bool,
    /// Whether to show mail addresses of people, which are masked otherwise
    #[serde(default)]
    pub emails: bool,
    /// Id of the thread to post to, which a channel that is a forum needs; the channel itself when it is not given
    #[serde(default)]
    #[schemars(
        with = "Option<String>",
        length(min = 1, max = 20),
        example = &"100000000000000001"
    )]
    pub thread_id: Option<ThreadId>,
}

/// URL at which Discord takes messages. A URL of this machine is valid, too, for a stand-in for Discord; the client
/// reaches it in local mode alone.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "SecretUrl")]
pub struct WebhookUrl {
    /// As the operator knows it.
    given: SecretUrl,
    /// URL with the API version that our messages are written for: without one, Discord uses an old version.
    used: SecretUrl,
}

impl TryFrom<SecretUrl> for WebhookUrl {
    type Error = &'static str;

    fn try_from(given: SecretUrl) -> Result<Self, Self::Error> {
        let url = api::inputs::web_url(given.expose())?;
        let origin = given.origin();
        let is_discords = matches!(
            origin,
            "https://discord.com"
                | "https://discordapp.com"
                | "https://ptb.discord.com"
                | "https://canary.discord.com"
        );
        if !is_discords && !url.host().is_some_and(|host| crate::http::is_local(&host)) {
            return Err(NOT_A_WEBHOOK);
        }
        let mut path: Vec<&str> = url.path_segments().into_iter().flatten().collect();
        // A slash at the end means nothing to Discord.
        path.pop_if(|last| last.is_empty());
        let (id, token) = match path[..] {
            ["api", "webhooks", id, token] => (id, token),
            ["api", version, "webhooks", id, token] if is_version(version) => (id, token),
            [.., "slack" | "github"] => return Err(OTHER_FORM),
            _ => return Err(NOT_A_WEBHOOK),
        };
        if !is_id(id) || token.is_empty() {
            return Err(NOT_A_WEBHOOK);
        }
        for (name, _) in url.query_pairs() {
            match &*name {
                // Each delivery asks Discord to wait, whatever the URL says.
                "wait" => {}
                "thread_id" => return Err(THREAD),
                _ => return Err(QUERY),
            }
        }
        let used = format!("{origin}/api/v10/webhooks/{id}/{token}").try_into()?;
        Ok(Self { given, used })
    }
}

const NOT_A_WEBHOOK: &str =
    "must be a webhook's, as in https://discord.com/api/webhooks/<id>/<token>";
const OTHER_FORM: &str = "must not end in /slack or /github: Discord takes other services' messages there, and ours without it";
const THREAD: &str = "must not have a thread_id, which belongs to the attachment: leave it out here, and attach with the option thread_id";
const QUERY: &str = "must not have anything behind a question mark other than wait";

fn is_version(text: &str) -> bool {
    text.strip_prefix('v')
        .is_some_and(|number| matches!(number.parse(), Ok(1_u8..)))
}

fn is_id(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u64>().is_ok()
}

/// A name that Discord lets a webhook have.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Username(String);

impl TryFrom<String> for Username {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (name, lower) = (text.trim(), text.to_lowercase());
        if name.is_empty() || name.chars().count() > 80 || name.chars().any(char::is_control) {
            return Err("must be a name of at most 80 characters");
        }
        if lower.contains("discord") || lower.contains("clyde") {
            return Err("must not have discord or clyde in it, which Discord refuses");
        }
        Ok(Self(name.to_owned()))
    }
}

/// One of Discord's ids.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct ThreadId(String);

impl TryFrom<String> for ThreadId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match is_id(&text) {
            true => Ok(Self(text)),
            false => Err("must be the thread's id, which is a number"),
        }
    }
}

impl Integration for DiscordWebhook {
    const ID: &'static str = "discord-webhook";
    const VERSION: &'static str = "1.2";
    const DESCRIPTION: &'static str = "Send attestations to Discord";
    const MATERIALS: &'static [MaterialType] = &[];
    /// By address: after 10,000 refusals in ten minutes nobody gets through.
    const SHARES_LIMITS: bool = true;

    type Registration = Registration;
    type Attachment = Attachment;

    fn filter(attachment: &Attachment) -> Option<&Filter> {
        attachment.filter.as_ref()
    }

    /// Discord says in each answer how many more it takes, and asks not to rely on numbers. This is below the five in
    /// two seconds that are seen in practice, so that a 429 is the exception; how long one lasts, it says itself.
    fn interval(_: &Registration) -> Option<Duration> {
        Some(Duration::from_millis(500))
    }

    async fn register(http: &Http, registration: &Registration) -> Result<Warnings, Error> {
        let webhook = &registration.webhook;
        let request = Request::get(webhook.used.expose())
            .body(Bytes::new())
            .map_err(invalid)?;
        let response = http.send(request).await?;
        let doing = format!("ask {} for the webhook", webhook.used.origin());
        read(&response, &doing, false, http.unix_secs())?;
        let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        // Webhooks of other types belong to applications, and follow other channels.
        match answer["type"] == 1 && answer["channel_id"].is_string() {
            true => Ok(Warnings::new()),
            false => Err(Error::permanent(format!(
                "{doing}: what is there takes no messages"
            ))),
        }
    }

    async fn attach(_: &Http, _: &Registration, _: &Attachment) -> Result<Warnings, Error> {
        Ok(Warnings::new())
    }

    async fn deliver(
        http: &Http,
        host: &dyn Host,
        delivery: &Delivery<'_, Self>,
    ) -> Result<Outcome, Error> {
        let registration = delivery.registration;
        let response = repeat::send(http, host, delivery, request(delivery)?).await?;
        let doing = format!("post to {}", registration.webhook.used.origin());
        let has_thread = delivery.attachment.thread_id.is_some();
        read(&response, &doing, has_thread, host.unix_secs())?;

        let message: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let mut receipt = Map::new();
        receipt.insert("status".to_owned(), response.status.as_u16().into());
        for (key, name) in [("id", "message_id"), ("channel_id", "channel_id")] {
            if let Some(id) = message[key].as_str().filter(|id| is_id(id)) {
                receipt.insert(name.to_owned(), id.into());
            }
        }
        repeat::note(delivery, &mut receipt);
        Ok(Outcome::Delivered(receipt))
    }

    async fn look_for(
        http: &Http,
        registration: &Registration,
        receipt: &Map<String, Value>,
    ) -> Result<Presence, Error> {
        let id = |name: &str| {
            let id = receipt.get(name).and_then(Value::as_str);
            id.filter(|id| is_id(id))
        };
        let Some(message) = id("message_id") else {
            return Ok(Presence::unknown("the receipt names no message"));
        };
        let webhook = &registration.webhook.used;
        let doing = format!("ask {} for the message", webhook.origin());
        // What is in a thread is found by that alone, and the receipt calls it the channel.
        let thread = id("channel_id").map(|id| format!("?thread_id={id}"));
        for thread in [Some(String::new()), thread].into_iter().flatten() {
            let url = format!("{}/messages/{message}{thread}", webhook.expose());
            let request = Request::get(url).body(Bytes::new()).map_err(invalid)?;
            let response = http.send(request).await?;
            let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
            if !is_without(&answer, !thread.is_empty()) {
                read(&response, &doing, !thread.is_empty(), http.unix_secs())?;
                return Ok(Presence::THERE);
            }
        }
        let reason = format!("the webhook has no message {message}");
        Ok(Presence::gone(reason))
    }

    async fn preview(_: &dyn Host, delivery: &Delivery<'_, Self>) -> Result<Vec<Preview>, Error> {
        let target = delivery.registration.webhook.given.label();
        Ok(vec![crate::http::preview(&request(delivery)?, target)])
    }
}

/// A message, and the file that comes with it. `wait`: without it Discord says that it took a message before it has.
fn request(delivery: &Delivery<'_, DiscordWebhook>) -> Result<Request<Bytes>, Error> {
    let mut url = format!("{}?wait=true", delivery.registration.webhook.used.expose());
    if let Some(thread) = &delivery.attachment.thread_id {
        url = format!("{url}&thread_id={}", thread.0);
    }
    let (message, file) = message(delivery)?;
    // Stays the same when it is repeated, and nobody who writes an attestation knows it.
    let boundary = Digest::of(delivery.id.as_bytes()).hex();
    let mut body = Vec::new();
    for (head, content) in [
        (
            "name=\"payload_json\"\r\nContent-Type: application/json",
            message.to_string(),
        ),
        (
            "name=\"files[0]\"; filename=\"summary.txt\"\r\nContent-Type: text/plain; charset=utf-8",
            file,
        ),
    ] {
        let head = format!("--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content.as_bytes());
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Request::post(url)
        .header(
            CONTENT_TYPE,
            format!("multipart/form-data; boundary={boundary}"),
        )
        .body(body.into())
        .map_err(invalid)
}

/// The message, and the file with all that does not fit into one.
fn message(delivery: &Delivery<'_, DiscordWebhook>) -> Result<(Value, String), Error> {
    let attachment = delivery.attachment;
    let detail = Detail {
        inline_content: attachment.inline_content,
        emails: attachment.emails,
    };
    let summary = Summary::of(delivery.pushed, &detail);
    let text = match &attachment.template {
        None => None,
        Some(template) => Some(
            template
                .render(&facts(delivery.pushed, None), TEMPLATE_BYTES)
                .map_err(|why| {
                    Error::permanent(format!("fill the attachment's template: {why}"))
                })?,
        ),
    };
    let username = delivery.registration.username.as_ref();
    let username = username.map(|name| name.0.as_str());
    let message = message::message(&summary, text.as_deref(), username);
    Ok((message, summary.text(FILE_BYTES)))
}

/// More than Discord shows, so that a text a little too long is cut and one far too long is told of.
const TEMPLATE_BYTES: usize = 32 * 1024;

/// Discord takes 10 MiB, the message included.
const FILE_BYTES: usize = 8 << 20;

fn invalid(error: http::Error) -> Error {
    Error::permanent("build the request to Discord").source(error)
}

const AGAIN: Kind = Kind::Retryable { after: None };

const NO_CHANNEL: u64 = 10003;
const NO_MESSAGE: u64 = 10008;
const MALFORMED: u64 = 50035;

/// Reports whether Discord says that a message is not there, or not in a thread, which may be gone or none at all.
fn is_without(answer: &Value, has_thread: bool) -> bool {
    match answer["code"].as_u64() {
        Some(NO_MESSAGE) => true,
        Some(NO_CHANNEL | MALFORMED) => has_thread,
        _ => false,
    }
}

/// Discord's codes for what is wrong, and what to do about it. What is not here goes by its status.
const ANSWERS: &[(u64, Kind, &str)] = &[
    (NO_CHANNEL, Kind::Gone, "the webhook's channel is not there"),
    (10015, Kind::Gone, "the webhook is not there any more"),
    (50001, Kind::Gone, "the webhook may not see its channel"),
    (50013, Kind::Gone, "the webhook may not post to its channel"),
    (
        50027,
        Kind::Gone,
        "the token in the webhook's URL is not valid",
    ),
    (40005, Kind::Permanent, "our message is too large"),
    (
        40067,
        Kind::Permanent,
        "the channel asks for a tag, which webhooks cannot give",
    ),
    (50006, Kind::Permanent, "our message is empty"),
    (50035, Kind::Permanent, "it refuses the form of our message"),
    (50045, Kind::Permanent, "our file is too large"),
    (50083, Kind::Permanent, "the thread is archived"),
    (50109, Kind::Permanent, "it cannot read our message"),
    (
        200_000,
        Kind::Permanent,
        "the server's moderation blocks our message",
    ),
    (
        220_001,
        Kind::Permanent,
        "the channel is a forum, so that the attachment needs a thread_id",
    ),
    (
        220_002,
        Kind::Permanent,
        "the channel is a forum, so that the attachment needs one thread_id",
    ),
    (
        220_003,
        Kind::Permanent,
        "webhooks can make threads in forums alone",
    ),
    (
        220_004,
        Kind::Permanent,
        "webhooks cannot post to this kind of channel",
    ),
    (
        240_000,
        Kind::Permanent,
        "it takes a link in our message for harmful",
    ),
    (40004, AGAIN, "sending messages is switched off for a while"),
    (40006, AGAIN, "it is switched off for a while"),
    (130_000, AGAIN, "it is overloaded"),
];

/// The code first and then the status.
fn read(response: &Response, doing: &str, has_thread: bool, now: u64) -> Result<(), Error> {
    let Err(error) = response.check(doing, now) else {
        return Ok(());
    };
    let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let after = wait(response, &answer, now);
    match response.status.as_u16() {
        // Discord itself speaks JSON. This is whoever stands in front of it, and counts by address.
        403 | 429 if is_html(response) => {
            let after = Some(after.unwrap_or_default().max(BANNED));
            let kind = Kind::Retryable { after };
            return Err(Error { kind, ..error }.about(About::Everyone));
        }
        429 => {
            let kind = Kind::Retryable { after };
            let error = Error { kind, ..error };
            return Err(match answer["global"] == true {
                true => error.about(About::Everyone),
                false => error,
            });
        }
        _ => {}
    }
    let code = answer["code"].as_u64();
    let Some((code, kind, meaning)) = ANSWERS.iter().find(|(known, ..)| Some(*known) == code)
    else {
        return Err(error);
    };
    let (kind, meaning) = match kind {
        Kind::Retryable { .. } => (Kind::Retryable { after }, *meaning),
        // The thread's id is the attachment's: others go on.
        Kind::Gone if *code == NO_CHANNEL && has_thread => {
            (Kind::Permanent, "the attachment's thread is not there")
        }
        kind => (*kind, *meaning),
    };
    let text = format!("{}, {code}: {meaning}", error.text);
    Err(Error {
        kind,
        text,
        ..error
    })
}

/// Shortest wait after our address is refused; such a ban lasts longer.
const BANNED: Duration = Duration::from_mins(10);

fn is_html(response: &Response) -> bool {
    response.body.trim_ascii_start().starts_with(b"<")
}

/// Returns the time that Discord asks us to wait: the body has it to the millisecond, the header rounded.
fn wait(response: &Response, answer: &Value, now: u64) -> Option<Duration> {
    answer["retry_after"]
        .as_f64()
        .and_then(|secs| Duration::try_from_secs_f64(secs).ok())
        .map(|wait| wait.min(LONGEST_PAUSE))
        .or_else(|| retry_after(&response.headers, now))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::PresenceState;
    use crate::fixture::{self, Peer, Received, Stage};
    use crate::inputs;

    const PATH: &str = "/api/webhooks/123456789/canary-token";

    fn registration(party: &Peer) -> Registration {
        let webhook = format!("{}{PATH}", party.origin);
        serde_json::from_value(json!({ "webhook": webhook, "username": "Builds" })).unwrap()
    }

    fn attachment(inputs: Value) -> Attachment {
        serde_json::from_value(inputs).unwrap()
    }

    async fn deliver(
        stage: &Stage,
        registration: &Registration,
        inputs: Value,
    ) -> Result<Outcome, Error> {
        let attachment = attachment(inputs);
        let delivery = stage.delivery(registration, &attachment);
        DiscordWebhook::deliver(&fixture::http(), stage, &delivery).await
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}")
    }

    const TAKEN: &str = r#"{"id":"1001","channel_id":"2002","content":""}"#;
    const HTML: &str = "<!DOCTYPE html><title>Access denied</title>";

    /// Returns the error of a delivery that gets this response.
    async fn error_of(status: &str, headers: &str, body: &str, inputs: Value) -> Error {
        let party = Peer::start(&[&answer(status, headers, body)]);
        deliver(&Stage::new(), &registration(&party), inputs)
            .await
            .unwrap_err()
    }

    async fn kind_of(status: &str, code: u64) -> Kind {
        let body = json!({ "code": code, "message": "so" }).to_string();
        error_of(status, "", &body, json!({})).await.kind
    }

    /// The message, and the file that came with it.
    fn parts(request: &Received) -> (Value, String) {
        let body = std::str::from_utf8(&request.body).unwrap();
        let boundary = request.headers["content-type"]
            .split_once("boundary=")
            .unwrap()
            .1;
        let parts: Vec<&str> = body.split(&format!("--{boundary}")).collect();
        let ["", message, file, "--\r\n"] = parts[..] else {
            panic!("{body}")
        };
        let content = |part: &str| {
            let (head, content) = part.split_once("\r\n\r\n").unwrap();
            (
                head.to_owned(),
                content.strip_suffix("\r\n").unwrap().to_owned(),
            )
        };
        let ((head, message), (file_head, file)) = (content(message), content(file));
        assert!(head.contains("name=\"payload_json\""), "{head}");
        assert!(
            file_head.contains("name=\"files[0]\"; filename=\"summary.txt\""),
            "{file_head}"
        );
        (serde_json::from_str(&message).unwrap(), file)
    }

    #[tokio::test]
    async fn a_summary_is_posted_with_a_file_and_the_messages_id_kept() {
        let party = Peer::start(&[&answer("200 OK", "", TAKEN)]);
        let outcome = deliver(&Stage::new(), &registration(&party), json!({}))
            .await
            .unwrap();

        let received = party.received();
        assert_eq!(received[0].method, "POST");
        assert_eq!(
            received[0].target,
            "/api/v10/webhooks/123456789/canary-token?wait=true"
        );
        let (message, file) = parts(&received[0]);
        let text = serde_json::to_string_pretty(&message).unwrap() + "\n";
        fixture::compare("discord-webhook-message.json", &text);
        fixture::compare("discord-webhook-summary.txt", &file);
        let receipt = json!({ "status": 200, "message_id": "1001", "channel_id": "2002" });
        assert_eq!(
            outcome,
            Outcome::Delivered(receipt.as_object().unwrap().clone())
        );
    }

    #[tokio::test]
    async fn a_message_goes_to_the_attachments_thread() {
        let party = Peer::start(&[&answer("204 No Content", "", "")]);
        let inputs = json!({ "thread_id": "777" });
        let outcome = deliver(&Stage::new(), &registration(&party), inputs)
            .await
            .unwrap();
        assert!(
            party.received()[0]
                .target
                .ends_with("?wait=true&thread_id=777")
        );
        let receipt = json!({ "status": 204 });
        assert_eq!(
            outcome,
            Outcome::Delivered(receipt.as_object().unwrap().clone())
        );
    }

    #[tokio::test]
    async fn what_is_wrong_with_our_message_or_its_place_is_permanent() {
        for code in [
            50035, 50006, 50109, 40005, 50045, 220_001, 220_002, 220_003, 220_004, 40067, 200_000,
            240_000, 50083,
        ] {
            assert_eq!(
                kind_of("400 Bad Request", code).await,
                Kind::Permanent,
                "{code}"
            );
        }
        assert_eq!(
            kind_of("413 Payload Too Large", 40005).await,
            Kind::Permanent
        );
        let error = error_of("413 Payload Too Large", "", "", json!({})).await;
        assert_eq!(error.kind, Kind::Permanent);
    }

    #[tokio::test]
    async fn what_says_that_the_webhook_is_gone_pauses_the_registration() {
        for (status, code) in [
            ("401 Unauthorized", 50027),
            ("403 Forbidden", 50001),
            ("403 Forbidden", 50013),
            ("404 Not Found", 10015),
            ("404 Not Found", 10003),
        ] {
            assert_eq!(kind_of(status, code).await, Kind::Gone, "{code}");
        }
        let body = r#"{"code":10015,"message":"Unknown Webhook"}"#;
        let error = error_of("404 Not Found", "", body, json!({})).await;
        let end = "answered 404 Not Found, 10015: the webhook is not there any more";
        assert!(error.text.ends_with(end), "{error}");
    }

    #[tokio::test]
    async fn a_thread_that_is_gone_is_no_concern_of_others() {
        let body = r#"{"code":10003,"message":"Unknown Channel"}"#;
        let error = error_of("404 Not Found", "", body, json!({ "thread_id": "7" })).await;
        assert_eq!(error.kind, Kind::Permanent);
        assert!(
            error
                .text
                .ends_with("10003: the attachment's thread is not there"),
            "{error}"
        );
        let body = r#"{"code":10015,"message":"Unknown Webhook"}"#;
        let error = error_of("404 Not Found", "", body, json!({ "thread_id": "7" })).await;
        assert_eq!(error.kind, Kind::Gone);
    }

    #[tokio::test]
    async fn what_is_switched_off_or_overloaded_is_retried() {
        for status in [
            "400 Bad Request",
            "403 Forbidden",
            "503 Service Unavailable",
        ] {
            for code in [40004, 40006, 130_000] {
                assert_eq!(kind_of(status, code).await, AGAIN, "{status} {code}");
            }
        }
        for status in [
            "500 Oops",
            "502 Bad Gateway",
            "503 Service Unavailable",
            "504 Timeout",
        ] {
            assert_eq!(
                error_of(status, "", HTML, json!({})).await.kind,
                AGAIN,
                "{status}"
            );
        }
    }

    #[tokio::test]
    async fn without_a_known_code_the_status_decides() {
        for (status, kind) in [
            ("302 Found", Kind::Permanent),
            ("400 Bad Request", Kind::Permanent),
            ("401 Unauthorized", Kind::Unauthorized),
            ("403 Forbidden", Kind::Permanent),
            ("404 Not Found", Kind::Permanent),
        ] {
            assert_eq!(kind_of(status, 0).await, kind, "{status}");
        }
    }

    fn waits(millis: u64) -> Kind {
        let after = Some(Duration::from_millis(millis));
        Kind::Retryable { after }
    }

    #[tokio::test]
    async fn a_429_is_retried_when_discord_says() {
        let limited = "429 Too Many Requests";
        let body =
            r#"{"message":"You are being rate limited.","retry_after":1.337,"global":false}"#;
        for headers in ["retry-after: 2\r\n", "x-ratelimit-scope: shared\r\n"] {
            let error = error_of(limited, headers, body, json!({})).await;
            assert_eq!((error.kind, error.about), (waits(1337), About::Destination));
        }
        for nonsense in ["-1", "1e300", "\"soon\"", "null"] {
            let body = format!(r#"{{"retry_after":{nonsense},"global":false}}"#);
            let error = error_of(limited, "retry-after: 2\r\n", &body, json!({})).await;
            assert_eq!(error.kind, waits(2000), "{nonsense}");
        }
        let error = error_of(limited, "", r#"{"retry_after":1e9}"#, json!({})).await;
        assert_eq!(
            error.kind,
            Kind::Retryable {
                after: Some(LONGEST_PAUSE)
            }
        );
        assert_eq!(error_of(limited, "", "", json!({})).await.kind, AGAIN);
    }

    #[tokio::test]
    async fn a_global_429_holds_everybody_back() {
        let body = r#"{"message":"You are being rate limited.","retry_after":64.57,"global":true}"#;
        let error = error_of("429 Too Many Requests", "", body, json!({})).await;
        assert_eq!((error.kind, error.about), (waits(64_570), About::Everyone));
    }

    #[tokio::test]
    async fn a_refusal_in_html_holds_everybody_back_for_ten_minutes_at_least() {
        for status in ["429 Too Many Requests", "403 Forbidden"] {
            let error = error_of(status, "", HTML, json!({})).await;
            assert_eq!(
                (error.kind, error.about),
                (waits(600_000), About::Everyone),
                "{status}"
            );
            let error = error_of(status, "retry-after: 30\r\n", HTML, json!({})).await;
            assert_eq!(error.kind, waits(600_000));
            let error = error_of(status, "retry-after: 3600\r\n", HTML, json!({})).await;
            assert_eq!(error.kind, waits(3_600_000));
        }
    }

    #[tokio::test]
    async fn without_an_answer_it_is_sent_once_more_and_no_third_time() {
        let party = Peer::start(&["", &answer("200 OK", "", TAKEN), ""]);
        let mut stage = Stage::new();
        let registration = registration(&party);
        let error = deliver(&stage, &registration, json!({})).await.unwrap_err();
        assert_eq!(error.kind, Kind::Indeterminate);
        stage.progress.extend(stage.recorded());
        let Ok(Outcome::Delivered(receipt)) = deliver(&stage, &registration, json!({})).await
        else {
            panic!("the second was answered");
        };
        assert_eq!(receipt["possibly_duplicated"], true);
        let error = deliver(&stage, &registration, json!({})).await.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        let received = party.received();
        assert_eq!(received[0].body, received[1].body);
        assert_eq!(received.len(), 3);
    }

    async fn check(status: &str, body: &str) -> Result<(), Kind> {
        let party = Peer::start(&[&answer(status, "", body)]);
        let result = DiscordWebhook::register(&fixture::http(), &registration(&party)).await;
        let received = party.received();
        assert_eq!(received[0].method, "GET");
        assert_eq!(
            received[0].target,
            "/api/v10/webhooks/123456789/canary-token"
        );
        result.map(|_| ()).map_err(|error| error.kind)
    }

    #[tokio::test]
    async fn a_check_asks_for_the_webhook_and_posts_nothing() {
        let webhook = r#"{"id":"123456789","type":1,"name":"Builds","channel_id":"2002"}"#;
        assert_eq!(check("200 OK", webhook).await, Ok(()));
        let dead = Err(Kind::Gone);
        assert_eq!(check("404 Not Found", r#"{"code":10015}"#).await, dead);
        assert_eq!(check("401 Unauthorized", r#"{"code":50027}"#).await, dead);
        assert_eq!(check("503 Service Unavailable", "").await, Err(AGAIN));
        for other in [
            r#"{"type":3,"channel_id":null}"#,
            r#"{"type":2,"channel_id":"1"}"#,
            "ok",
        ] {
            assert_eq!(
                check("200 OK", other).await,
                Err(Kind::Permanent),
                "{other}"
            );
        }
    }

    #[tokio::test]
    async fn the_preview_is_what_is_sent() {
        let party = Peer::start(&[&answer("200 OK", "", TAKEN)]);
        let (stage, registration) = (Stage::new(), registration(&party));
        let attachment = attachment(json!({}));
        let delivery = stage.delivery(&registration, &attachment);
        let previews = DiscordWebhook::preview(&stage, &delivery).await.unwrap();
        deliver(&stage, &registration, json!({})).await.unwrap();
        let [preview] = &previews[..] else {
            panic!("{previews:?}")
        };
        let sent = &party.received()[0];
        assert_eq!(preview.body.as_bytes(), sent.body);
        assert_eq!(
            preview.headers["content-type"],
            sent.headers["content-type"]
        );
        assert_eq!(preview.target, registration.webhook.given.label());
        assert!(!format!("{preview:?}").contains("canary"), "{preview:?}");
    }

    #[tokio::test]
    async fn no_part_of_the_url_is_in_an_error() {
        let refusal = answer("404 Not Found", "", "no such webhook");
        let party = Peer::start(&[&refusal, &refusal, ""]);
        let registration = registration(&party);
        let error = deliver(&Stage::new(), &registration, json!({}))
            .await
            .unwrap_err();
        let check = DiscordWebhook::register(&fixture::http(), &registration)
            .await
            .unwrap_err();
        let lost = deliver(&Stage::new(), &registration, json!({}))
            .await
            .unwrap_err();
        let shown = format!("{error} {error:?} {check:?} {lost} {lost:?} {registration:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }

    fn fault(field: &str, value: &str) -> Option<String> {
        let webhook = "https://discord.com/api/webhooks/1/canary";
        let mut inputs = json!({ "webhook": webhook });
        inputs[field] = value.into();
        let faults = inputs::check::<Registration>(inputs.as_object().unwrap());
        assert!(!format!("{faults:?}").contains("/canary"), "{faults:?}");
        faults.into_iter().map(|fault| fault.detail).next()
    }

    #[test]
    fn only_discords_webhooks_are_taken_and_asked_for_in_one_version() {
        for url in [
            "https://discord.com/api/webhooks/123/canary",
            "https://discord.com/api/v6/webhooks/123/canary",
            "https://discord.com/api/v10/webhooks/123/canary#part",
            "https://DISCORD.com:443/api/webhooks/123/canary",
            "https://discord.com/api/webhooks/123/canary/",
            "https://discord.com/api/webhooks/123/canary?wait=true",
            "https://discord.com/api/v10/webhooks/123/canary/?wait=false",
        ] {
            let url: WebhookUrl = serde_json::from_value(json!(url)).unwrap();
            assert_eq!(
                url.used.expose(),
                "https://discord.com/api/v10/webhooks/123/canary"
            );
        }
        for origin in [
            "https://discordapp.com",
            "https://ptb.discord.com",
            "https://canary.discord.com",
            "http://127.0.0.1:8080",
            "http://localhost:8080",
        ] {
            let url = format!("{origin}/api/webhooks/123/canary");
            let url: WebhookUrl = serde_json::from_value(json!(url)).unwrap();
            assert_eq!(url.used.origin(), origin);
        }
        for url in [
            "http://discord.com/api/webhooks/123/canary",
            "https://discord.com:8443/api/webhooks/123/canary",
            "https://discord.com.example.org/api/webhooks/123/canary",
            "https://example.org/api/webhooks/123/canary",
            "https://192.168.0.1/api/webhooks/123/canary",
            "https://discord.com/api/webhooks/123",
            "https://discord.com/api/webhooks/123/",
            "https://discord.com/api/webhooks/abc/canary",
            "https://discord.com/api/webhooks/+12/canary",
            "https://discord.com/api/webhooks/123/canary//",
            "https://discord.com/api/webhooks/123//",
            "https://discord.com/api/v/webhooks/123/canary",
            "https://discord.com/channels/1/2",
        ] {
            assert_eq!(
                fault("webhook", url).as_deref(),
                Some(NOT_A_WEBHOOK),
                "{url}"
            );
        }
    }

    #[test]
    fn a_url_with_more_than_a_webhook_in_it_is_refused_with_what_to_do() {
        let canary = "https://discord.com/api/webhooks/123/canary";
        for (end, detail) in [
            ("?thread_id=123456789012345678", THREAD),
            ("?wait=true&thread_id=1", THREAD),
            ("/?thread_id=1", THREAD),
            ("/slack", OTHER_FORM),
            ("/slack/", OTHER_FORM),
            ("/github?wait=true", OTHER_FORM),
            ("?with_components=true", QUERY),
        ] {
            let said = fault("webhook", &format!("{canary}{end}"));
            assert_eq!(said.as_deref(), Some(detail), "{end}");
        }
    }

    #[test]
    fn names_and_threads_that_discord_refuses_are_refused_first() {
        let most = "é".repeat(80);
        for name in ["Builds", "a", most.as_str()] {
            assert_eq!(fault("username", name), None, "{name}");
        }
        let more = "é".repeat(81);
        for name in ["", " ", more.as_str(), "My DisCord", "clydesdale", "a\nb"] {
            assert!(fault("username", name).is_some(), "{name}");
        }
        let thread = |id: &str| {
            let inputs = json!({ "thread_id": id });
            inputs::check::<Attachment>(inputs.as_object().unwrap()).is_empty()
        };
        assert!(thread("1193472917362917482"));
        for id in [
            "",
            "x",
            "1&wait=false",
            "-1",
            "+1",
            " 1",
            "99999999999999999999",
        ] {
            assert!(!thread(id), "{id}");
        }
    }

    #[tokio::test]
    async fn a_message_is_looked_for_in_the_channel_and_then_in_its_thread() {
        let code =
            |status: &str, code: u64| answer(status, "", &json!({ "code": code }).to_string());
        let there = answer("200 OK", "", TAKEN);
        let (absent, no_thread) = (code("404 Not Found", 10008), code("404 Not Found", 10003));
        let gone = code("404 Not Found", 10015);
        let receipt = json!({ "message_id": "1001", "channel_id": "2002" });
        for (answers, state) in [
            (vec![&there], Some(PresenceState::There)),
            (vec![&absent, &there], Some(PresenceState::There)),
            (vec![&absent, &absent], Some(PresenceState::Gone)),
            (vec![&absent, &no_thread], Some(PresenceState::Gone)),
            // The webhook is gone, which says nothing of its messages.
            (vec![&gone], None),
        ] {
            let answers: Vec<&str> = answers.into_iter().map(String::as_str).collect();
            let party = Peer::start(&answers);
            let (http, registration) = (fixture::http(), registration(&party));
            let found =
                DiscordWebhook::look_for(&http, &registration, receipt.as_object().unwrap()).await;
            assert_eq!(found.ok().map(|found| found.state), state);
            let received = party.received().into_iter();
            let asked: Vec<_> = received.map(|one| (one.method, one.target)).collect();
            let message = "/api/v10/webhooks/123456789/canary-token/messages/1001";
            let expected = [message.to_owned(), format!("{message}?thread_id=2002")];
            let expected = expected.map(|target| ("GET".to_owned(), target));
            assert_eq!(asked, expected[..answers.len()]);
        }
    }

    #[tokio::test]
    async fn a_receipt_without_a_message_is_not_asked_about() {
        let party = Peer::start(&[]);
        let receipt = json!({ "status": 204, "message_id": "../x" });
        let receipt = receipt.as_object().unwrap();
        let found =
            DiscordWebhook::look_for(&fixture::http(), &registration(&party), receipt).await;
        assert_eq!(found.unwrap().state, PresenceState::Unknown);
    }
}
