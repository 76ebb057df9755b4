//! Posts a summary of each attestation to a Slack channel: what was built, how its policies were judged, what came
//! with it.
//!
//! It goes through an incoming webhook, which Slack makes for one channel. Registering asks the webhook without
//! posting anything; with `send_test_message` it posts what Chainloop posts. Slack cannot tell a repeat from a new
//! message: where it took a message and did not say so, that message may show up twice, and no more often.
//!
//! Mattermost, Rocket.Chat and other servers take Slack's messages at webhooks of their own: register one with
//! `compatible=true`, as in `https://mattermost.example.org/hooks/…`. It gets `{"text": …}` and nothing else, with the
//! summary or the template's text in a code block. Any 2xx answer is a delivery, and Slack's words have no meaning
//! there. Registering posts an empty object, in which Mattermost misses the text and of which Rocket.Chat makes no
//! message. An answer of 400 or 422 does not show that the webhook exists: then there is a warning, and
//! `send_test_message` shows it. Microsoft Teams takes messages of another form.
//!
//! # Receipt
//!
//! The status and the digest of the message: Slack gives a webhook's message no id.
//!
//! # Limits
//!
//! A message a second for each webhook; what is longer than Slack shows is cut and says so. With `compatible=true` a
//! message has fewer than 4,000 characters.
//!
//! # Failures
//!
//! - `invalid_token`, `no_service`, `no_team`, `team_disabled`, `action_prohibited`, `channel_not_found`: the webhook
//!   is gone or forbidden; the registration is paused. Make another webhook and `registered rotate` to it.
//! - `channel_is_archived`: the registration is paused. Resume it once the channel is back.
//! - `posting_to_general_channel_denied`, `user_not_found`: fails; choose another channel for the webhook.
//! - 429: tried again when Slack says.
//! - `rollup_error`: tried again.
//! - no answer twice: fails, since the message may be there twice already.
//! - with `compatible=true`, any 4xx but 408, 425 and 429: fails; what was answered is kept with the attempt. 410: the
//!   registration is paused.

mod message;

use std::time::Duration;

use attestation::{Digest, MaterialType};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::http::Response;
use crate::{
    About, Delivery, Detail, Error, Filter, Host, Http, Integration, Kind, Outcome, Preview,
    SecretUrl, Summary, Template, Warnings, facts, repeat,
};

#[derive(Debug)]
pub struct SlackWebhook;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "Inputs")]
#[schemars(with = "Inputs")]
pub struct Registration(Inputs);

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// URL of the incoming webhook, as Slack shows it: `https://hooks.slack.com/services/…`
    #[schemars(example = "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXX")]
    webhook: SecretUrl,
    /// Whether the webhook is that of a server that takes Slack's messages, as Mattermost and Rocket.Chat do: it gets a plain text, and any 2xx answer is success
    #[serde(default)]
    compatible: bool,
    /// Whether to post a test message to the channel on each check, rather than ask without leaving a trace
    #[serde(default)]
    send_test_message: bool,
}

impl TryFrom<Inputs> for Registration {
    type Error = String;

    fn try_from(inputs: Inputs) -> Result<Self, String> {
        let checked = match inputs.compatible {
            true => check_compatible(&inputs.webhook),
            false => check(&inputs.webhook),
        };
        match checked {
            Ok(()) => Ok(Self(inputs)),
            Err(why) => Err(format!("webhook: {why}")),
        }
    }
}

impl std::ops::Deref for Registration {
    type Target = Inputs;

    fn deref(&self) -> &Inputs {
        &self.0
    }
}

fn is_slacks(webhook: &SecretUrl) -> bool {
    matches!(
        webhook.origin(),
        "https://hooks.slack.com" | "https://hooks.slack-gov.com"
    )
}

/// A URL of this machine is one of Slack's, too, for whoever plays Slack there; the client reaches it in local mode
/// alone.
fn check(webhook: &SecretUrl) -> Result<(), &'static str> {
    let url = api::inputs::web_url(webhook.expose())?;
    if !is_slacks(webhook) && !url.host().is_some_and(|host| crate::http::is_local(&host)) {
        return Err(NOT_A_WEBHOOK);
    }
    let path: Vec<&str> = url.path_segments().into_iter().flatten().collect();
    match path[..] {
        ["services", team, app, token]
            if url.query().is_none() && ![team, app, token].contains(&"") =>
        {
            Ok(())
        }
        ["workflows" | "triggers", ..] => Err(
            "must be an incoming webhook's; one that starts a workflow takes that workflow's variables and no message",
        ),
        _ => Err(NOT_A_WEBHOOK),
    }
}

fn check_compatible(webhook: &SecretUrl) -> Result<(), &'static str> {
    api::inputs::web_url(webhook.expose())?;
    match is_slacks(webhook) {
        true => Err("must not be Slack's own when compatible is true: leave that out"),
        false => Ok(()),
    }
}

const NOT_A_WEBHOOK: &str = "must be an incoming webhook's, as in https://hooks.slack.com/services/T…/B…/…; \
     one of Mattermost, Rocket.Chat or the like needs compatible=true";

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Only attestations that fit, as in `environment=prod, workflow.branch=release/*`
    #[serde(default)]
    pub filter: Option<Filter>,
    /// Text of the message in place of the summary, as in `{{ workflow.name }}: {{ policy.status }}`
    #[serde(default)]
    #[schemars(with = "Option<Template>")]
    pub template: Option<Template>,
    /// Whether to show texts in full, and files that travel in the attestation
    #[serde(default)]
    pub inline_content: bool,
    /// Whether to show mail addresses of people, which are masked otherwise
    #[serde(default)]
    pub emails: bool,
}

impl Integration for SlackWebhook {
    const ID: &'static str = "slack-webhook";
    const VERSION: &'static str = "1.2";
    const DESCRIPTION: &'static str = "Send attestations to Slack";
    const MATERIALS: &'static [MaterialType] = &[];

    type Registration = Registration;
    type Attachment = Attachment;

    fn filter(attachment: &Attachment) -> Option<&Filter> {
        attachment.filter.as_ref()
    }

    /// Returns the interval that Slack allows a webhook, short bursts apart. Slack disables a webhook that keeps
    /// exceeding it.
    fn interval(_: &Registration) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }

    async fn register(http: &Http, registration: &Registration) -> Result<Warnings, Error> {
        let is_quiet = !registration.send_test_message;
        let message = match (is_quiet, registration.compatible) {
            (true, true) => json!({}),
            (true, false) => json!({ "text": "" }),
            (false, _) => json!({ "text": "This is a test message. Welcome to Chainloop!" }),
        };
        let response = http.send(request(registration, &message)?).await?;
        match is_quiet {
            true => read_of_nothing(&response, registration, http.unix_secs()),
            false => read(&response, registration, http.unix_secs()).map(|()| Warnings::new()),
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
        let request = request(delivery.registration, &message(delivery)?)?;
        let digest = Digest::of(request.body());
        let response = repeat::send(http, host, delivery, request).await?;
        read(&response, delivery.registration, host.unix_secs())?;

        let mut receipt = Map::new();
        receipt.insert("status".to_owned(), response.status.as_u16().into());
        receipt.insert("digest".to_owned(), digest.to_string().into());
        repeat::note(delivery, &mut receipt);
        Ok(Outcome::Delivered(receipt))
    }

    async fn preview(_: &dyn Host, delivery: &Delivery<'_, Self>) -> Result<Vec<Preview>, Error> {
        let request = request(delivery.registration, &message(delivery)?)?;
        let target = delivery.registration.webhook.label();
        Ok(vec![crate::http::preview(&request, target)])
    }
}

fn request(registration: &Registration, message: &Value) -> Result<Request<Bytes>, Error> {
    Request::post(registration.webhook.expose())
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(message.to_string().into())
        .map_err(|error| Error::permanent("build the request to Slack").source(error))
}
fn message(delivery: &Delivery<'_, SlackWebhook>) -> Result<Value, Error> {
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
    Ok(match delivery.registration.compatible {
        true => message::plain_message(&summary, text.as_deref()),
        false => message::message(&summary, text.as_deref()),
    })
}

/// More than Slack shows, so that a text a little too long is cut and one far too long is told of.
const TEMPLATE_BYTES: usize = 32 * 1024;

/// Slack's words in place of `ok`, and the reaction to each. Any other response is judged by its status.
const ANSWERS: &[(&str, Kind, &str)] = &[
    (
        "invalid_payload",
        Kind::Permanent,
        "it cannot read our message",
    ),
    (
        "no_text",
        Kind::Permanent,
        "it finds no text in our message",
    ),
    (
        "missing_text_or_fallback_or_attachments",
        Kind::Permanent,
        "it finds no text in our message",
    ),
    (
        "invalid_blocks",
        Kind::Permanent,
        "it refuses the form of our message",
    ),
    (
        "invalid_blocks_format",
        Kind::Permanent,
        "it refuses the form of our message",
    ),
    (
        "invalid_attachments",
        Kind::Permanent,
        "it refuses the form of our message",
    ),
    (
        "too_many_attachments",
        Kind::Permanent,
        "it refuses the form of our message",
    ),
    ("msg_too_long", Kind::Permanent, "our message is too long"),
    (
        "msg_blocks_too_long",
        Kind::Permanent,
        "our message is too long",
    ),
    (
        "user_not_found",
        Kind::Permanent,
        "the person that the webhook posts to is not there",
    ),
    (
        "posting_to_general_channel_denied",
        Kind::Permanent,
        "the webhook's maker may not post to the general channel",
    ),
    (
        "invalid_token",
        Kind::Gone,
        "the webhook's URL is not valid any more",
    ),
    (
        "action_prohibited",
        Kind::Gone,
        "an administrator does not allow it",
    ),
    ("team_disabled", Kind::Gone, "the workspace is disabled"),
    (
        "channel_not_found",
        Kind::Gone,
        "the webhook's channel is not there",
    ),
    (
        "channel_is_archived",
        Kind::Gone,
        "the webhook's channel is archived; once it is back, the registration can be resumed",
    ),
    (
        "no_service",
        Kind::Gone,
        "the webhook was removed or switched off",
    ),
    (
        "no_service_id",
        Kind::Gone,
        "the webhook was removed or switched off",
    ),
    (
        "no_active_hooks",
        Kind::Gone,
        "the webhook was removed or switched off",
    ),
    ("no_team", Kind::Gone, "the workspace is not there"),
];

/// The word first and then the status: since 2016 Slack has moved words from one status to another.
fn read(response: &Response, registration: &Registration, now: u64) -> Result<(), Error> {
    let url = &registration.webhook;
    let doing = format!("post to {}", url.origin());
    let by_status = response.check(&doing, now);
    let word = find(response).filter(|_| !registration.compatible);
    let Some((word, kind, meaning)) = word else {
        return by_status;
    };
    let about = by_status.map_or_else(|error| error.about, |()| About::Destination);
    let status = response.status.as_u16();
    let text = format!("{doing}: answered {status} {word}: {meaning}");
    let error = Error::new(*kind, text).about(about);
    Err(error.answer(response.answer()))
}

fn find(response: &Response) -> Option<&'static (&'static str, Kind, &'static str)> {
    let said = response.body.trim_ascii();
    ANSWERS.iter().find(|(word, ..)| word.as_bytes() == said)
}

/// Judges the response to a message without a text. A webhook that misses the text has read the message, so it
/// probably works; Slack offers no better check. A response that the webhook is gone is certain. The words of a
/// compatible server are unknown.
fn read_of_nothing(
    response: &Response,
    registration: &Registration,
    now: u64,
) -> Result<Warnings, Error> {
    const ALIVE: [&str; 3] = [
        "no_text",
        "missing_text_or_fallback_or_attachments",
        "invalid_payload",
    ];
    let status = response.status.as_u16();
    if registration.compatible {
        return match status {
            400 | 422 => Ok(vec![format!(
                "{} answered {status} to a message without a text, which does not show that the webhook exists; \
                 send_test_message=true posts one",
                registration.webhook.origin()
            )]),
            _ => read(response, registration, now).map(|()| Warnings::new()),
        };
    }
    match find(response) {
        Some((word, ..)) if status == 400 && ALIVE.contains(word) => Ok(Warnings::new()),
        _ => match read(response, registration, now) {
            Ok(()) => Ok(Warnings::new()),
            Err(error) if matches!(status, 403 | 404 | 410) => Err(Error {
                kind: Kind::Gone,
                ..error
            }),
            Err(error) => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, Peer, Stage};
    use crate::inputs;

    const PATH: &str = "/services/canary-team/canary-hook/canary-token";

    fn registration(party: &Peer) -> Registration {
        let webhook = format!("{}{PATH}", party.origin);
        serde_json::from_value(json!({ "webhook": webhook })).unwrap()
    }

    fn attachment(inputs: Value) -> Attachment {
        serde_json::from_value(inputs).unwrap()
    }

    async fn deliver(stage: &Stage, registration: &Registration) -> Result<Outcome, Error> {
        let attachment = attachment(json!({}));
        let delivery = stage.delivery(registration, &attachment);
        SlackWebhook::deliver(&fixture::http(), stage, &delivery).await
    }

    fn answer(status: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")
    }

    /// Returns the result of a delivery that gets this response.
    async fn delivered(status: &str, body: &str) -> Result<Outcome, Error> {
        let party = Peer::start(&[&answer(status, body)]);
        deliver(&Stage::new(), &registration(&party)).await
    }

    #[tokio::test]
    async fn a_summary_is_posted_and_its_digest_kept() {
        let party = Peer::start(&[&answer("200 OK", "ok")]);
        let outcome = deliver(&Stage::new(), &registration(&party)).await.unwrap();

        let received = party.received();
        assert_eq!(
            (received[0].method.as_str(), received[0].target.as_str()),
            ("POST", PATH)
        );
        assert_eq!(received[0].headers["content-type"], "application/json");
        let message: Value = serde_json::from_slice(&received[0].body).unwrap();
        let text = serde_json::to_string_pretty(&message).unwrap() + "\n";
        fixture::compare("slack-webhook-message.json", &text);
        let receipt = json!({ "status": 200, "digest": Digest::of(&received[0].body).to_string() });
        assert_eq!(
            outcome,
            Outcome::Delivered(receipt.as_object().unwrap().clone())
        );
    }

    #[tokio::test]
    async fn a_word_that_says_what_is_wrong_with_us_is_permanent() {
        for word in [
            "invalid_payload",
            "no_text",
            "missing_text_or_fallback_or_attachments",
            "invalid_blocks",
            "invalid_blocks_format",
            "invalid_attachments",
            "too_many_attachments",
            "msg_too_long",
            "msg_blocks_too_long",
            "user_not_found",
            "posting_to_general_channel_denied",
        ] {
            let error = delivered("400 Bad Request", word).await.unwrap_err();
            assert_eq!(error.kind, Kind::Permanent, "{word}");
            assert!(
                error.text.contains(&format!("answered 400 {word}: ")),
                "{error}"
            );
            assert_eq!(error.answer.unwrap().excerpt, word);
        }
    }

    #[tokio::test]
    async fn a_word_that_says_that_the_webhook_is_gone_pauses_the_registration() {
        for (status, word) in [
            ("400 Bad Request", "invalid_token"),
            ("403 Forbidden", "invalid_token"),
            ("403 Forbidden", "action_prohibited"),
            ("403 Forbidden", "team_disabled"),
            ("404 Not Found", "channel_not_found"),
            ("404 Not Found", "no_service"),
            ("404 Not Found", "no_service_id"),
            ("404 Not Found", "no_active_hooks"),
            ("404 Not Found", "no_team"),
            ("410 Gone", "channel_is_archived"),
        ] {
            let error = delivered(status, word).await.unwrap_err();
            assert_eq!(error.kind, Kind::Gone, "{status} {word}");
        }
    }

    #[tokio::test]
    async fn the_word_decides_before_the_status_does() {
        for status in [
            "200 OK",
            "429 Too Many Requests",
            "500 Internal Server Error",
        ] {
            let error = delivered(status, " no_service\n").await.unwrap_err();
            assert_eq!(error.kind, Kind::Gone, "{status}");
        }
    }

    #[tokio::test]
    async fn without_a_known_word_the_status_decides() {
        let again = Kind::Retryable { after: None };
        for (status, body, kind) in [
            ("400 Bad Request", "no_such_word", Kind::Permanent),
            ("403 Forbidden", "", Kind::Permanent),
            ("404 Not Found", "<html>", Kind::Permanent),
            ("302 Found", "", Kind::Permanent),
            ("410 Gone", "", Kind::Gone),
            ("429 Too Many Requests", "rate_limited", again),
            ("500 Internal Server Error", "rollup_error", again),
            ("502 Bad Gateway", "<html>", again),
            ("503 Service Unavailable", "", again),
            ("504 Gateway Timeout", "", again),
        ] {
            let error = delivered(status, body).await.unwrap_err();
            assert_eq!(error.kind, kind, "{status} {body}");
        }
        assert!(delivered("200 OK", "ok").await.is_ok());
    }

    #[tokio::test]
    async fn a_429_is_retried_when_slack_says() {
        let answer =
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n";
        let party = Peer::start(&[answer]);
        let error = deliver(&Stage::new(), &registration(&party))
            .await
            .unwrap_err();
        let after = Some(Duration::from_secs(30));
        assert_eq!(error.kind, Kind::Retryable { after });
    }

    #[tokio::test]
    async fn without_an_answer_it_is_sent_once_more_and_no_third_time() {
        let party = Peer::start(&["", &answer("200 OK", "ok"), ""]);
        let mut stage = Stage::new();
        let registration = registration(&party);
        let error = deliver(&stage, &registration).await.unwrap_err();
        assert_eq!(error.kind, Kind::Indeterminate);
        stage.progress.extend(stage.recorded());

        let Ok(Outcome::Delivered(receipt)) = deliver(&stage, &registration).await else {
            panic!("the second was answered");
        };
        assert_eq!(receipt["possibly_duplicated"], true);

        let error = deliver(&stage, &registration).await.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        let end = "for the second time: it may have arrived twice, once or not at all";
        assert!(error.text.ends_with(end), "{error}");
        assert_eq!(party.received().len(), 3);
    }

    /// Returns the result of a check that posts nothing.
    async fn check(status: &str, body: &str) -> Result<(), Kind> {
        let party = Peer::start(&[&answer(status, body)]);
        let result = SlackWebhook::register(&fixture::http(), &registration(&party)).await;
        assert_eq!(party.received()[0].body, br#"{"text":""}"#);
        result.map(|_| ()).map_err(|error| error.kind)
    }

    #[tokio::test]
    async fn a_check_posts_nothing_and_is_content_when_slack_misses_the_text() {
        for word in [
            "no_text",
            "missing_text_or_fallback_or_attachments",
            "invalid_payload",
        ] {
            assert_eq!(check("400 Bad Request", word).await, Ok(()), "{word}");
        }
        for (status, word) in [
            ("400 Bad Request", "invalid_token"),
            ("403 Forbidden", "action_prohibited"),
            ("403 Forbidden", ""),
            ("404 Not Found", "no_service"),
            ("404 Not Found", "no_text"),
            ("410 Gone", "channel_is_archived"),
        ] {
            assert_eq!(
                check(status, word).await,
                Err(Kind::Gone),
                "{status} {word}"
            );
        }
        let again = Kind::Retryable { after: None };
        assert_eq!(check("429 Too Many Requests", "").await, Err(again));
        assert_eq!(
            check("500 Internal Server Error", "rollup_error").await,
            Err(again)
        );
        assert_eq!(
            check("400 Bad Request", "user_not_found").await,
            Err(Kind::Permanent)
        );
    }

    #[tokio::test]
    async fn a_check_posts_chainloops_test_where_that_is_asked_for() {
        let party = Peer::start(&[&answer("200 OK", "ok"), &answer("404 Not Found", "no_team")]);
        let mut registration = registration(&party);
        registration.0.send_test_message = true;
        SlackWebhook::register(&fixture::http(), &registration)
            .await
            .unwrap();
        let body = br#"{"text":"This is a test message. Welcome to Chainloop!"}"#;
        assert_eq!(party.received()[0].body, body);
        let error = SlackWebhook::register(&fixture::http(), &registration)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Gone);
    }

    #[tokio::test]
    async fn the_preview_is_what_is_sent() {
        let party = Peer::start(&[&answer("200 OK", "ok")]);
        let (stage, registration) = (Stage::new(), registration(&party));
        let attachment = attachment(json!({}));
        let delivery = stage.delivery(&registration, &attachment);
        let previews = SlackWebhook::preview(&stage, &delivery).await.unwrap();
        deliver(&stage, &registration).await.unwrap();
        let [preview] = &previews[..] else {
            panic!("{previews:?}")
        };
        assert_eq!(preview.digest, Digest::of(&party.received()[0].body));
        assert_eq!(preview.body.as_bytes(), party.received()[0].body);
        assert!(preview.target.starts_with(&party.origin));
        assert!(!format!("{preview:?}").contains("canary"), "{preview:?}");
    }

    #[tokio::test]
    async fn no_part_of_the_url_is_in_an_error() {
        let refusal = answer("404 Not Found", "no such hook");
        let party = Peer::start(&[&refusal, &refusal, ""]);
        let registration = registration(&party);
        let error = deliver(&Stage::new(), &registration).await.unwrap_err();
        let check = SlackWebhook::register(&fixture::http(), &registration)
            .await
            .unwrap_err();
        let lost = deliver(&Stage::new(), &registration).await.unwrap_err();
        let shown = format!("{error} {error:?} {check:?} {lost} {lost:?} {registration:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }

    fn fault(webhook: &str) -> Option<String> {
        let inputs = json!({ "webhook": webhook });
        let faults = inputs::check::<Registration>(inputs.as_object().unwrap());
        assert!(!format!("{faults:?}").contains("canary"), "{faults:?}");
        faults.into_iter().map(|fault| fault.detail).next()
    }

    #[test]
    fn only_slacks_incoming_webhooks_are_taken() {
        for url in [
            "https://hooks.slack.com/services/T0/B0/canary",
            "https://HOOKS.slack.com:443/services/T0/B0/canary",
            "https://hooks.slack-gov.com/services/T0/B0/canary",
            "http://127.0.0.1:8080/services/T0/B0/canary",
            "http://localhost:8080/services/T0/B0/canary",
            "http://[::1]:8080/services/T0/B0/canary",
        ] {
            assert_eq!(fault(url), None, "{url}");
        }
        for url in [
            "http://hooks.slack.com/services/T0/B0/canary",
            "https://hooks.slack.com:8443/services/T0/B0/canary",
            "https://hooks.slack.com.example.org/services/T0/B0/canary",
            "https://slack.com/services/T0/B0/canary",
            "https://example.org/services/T0/B0/canary",
            "https://10.0.0.1/services/T0/B0/canary",
            "https://hooks.slack.com/services/T0/canary",
            "https://hooks.slack.com/services/T0//canary",
            "https://hooks.slack.com/services/T0/B0/canary/",
            "https://hooks.slack.com/services/T0/B0/canary?x=canary",
            "https://hooks.slack.com/services/../T0/B0/canary",
            "https://hooks.slack.com/",
        ] {
            assert_eq!(fault(url).as_deref(), Some(NOT_A_WEBHOOK), "{url}");
        }
        for kind in ["workflows", "triggers"] {
            let detail =
                fault(&format!("https://hooks.slack.com/{kind}/T0/canary/canary")).unwrap();
            assert!(
                detail.contains("that workflow's variables and no message"),
                "{detail}"
            );
        }
    }

    const HOOK: &str = "/hooks/canary-of-a-compatible-server";

    fn compatible(party: &Peer) -> Registration {
        let webhook = format!("{}{HOOK}", party.origin);
        serde_json::from_value(json!({ "webhook": webhook, "compatible": true })).unwrap()
    }

    #[tokio::test]
    async fn a_compatible_server_gets_a_text_and_nothing_else() {
        let party = Peer::start(&[&answer("200 OK", "ok"), &answer("204 No Content", "")]);
        let (stage, registration) = (Stage::new(), compatible(&party));
        for template in [None, Some("{{ workflow.name }} @all `<!here>` ```")] {
            let attachment = attachment(match template {
                None => json!({}),
                Some(template) => json!({ "template": template }),
            });
            let delivery = stage.delivery(&registration, &attachment);
            let previews = SlackWebhook::preview(&stage, &delivery).await.unwrap();
            let outcome = SlackWebhook::deliver(&fixture::http(), &stage, &delivery).await;
            assert!(matches!(outcome, Ok(Outcome::Delivered(_))), "{outcome:?}");
            let sent = party.received().pop().unwrap();
            assert_eq!(sent.target, HOOK);
            assert_eq!(previews[0].digest, Digest::of(&sent.body));
            assert!(!format!("{previews:?}").contains("canary"), "{previews:?}");
            let message: Value = serde_json::from_slice(&sent.body).unwrap();
            assert_eq!(message.as_object().unwrap().len(), 1);
            let text = message["text"].as_str().unwrap();
            match template {
                None => fixture::compare("slack-webhook-compatible.txt", text),
                Some(_) => assert_eq!(text, "```\nnightly-build @\u{2060}all '‹!here›' '''\n```"),
            }
        }
    }

    #[tokio::test]
    async fn of_a_compatible_server_the_status_alone_counts() {
        let again = Kind::Retryable { after: None };
        for (status, body, expected) in [
            ("200 OK", "no_service", Ok(())),
            ("201 Created", r#"{"success":true}"#, Ok(())),
            ("204 No Content", "", Ok(())),
            ("400 Bad Request", "invalid_token", Err(Kind::Permanent)),
            ("403 Forbidden", "action_prohibited", Err(Kind::Permanent)),
            ("404 Not Found", "no_service", Err(Kind::Permanent)),
            ("302 Found", "", Err(Kind::Permanent)),
            ("401 Unauthorized", "", Err(Kind::Unauthorized)),
            ("410 Gone", "", Err(Kind::Gone)),
            ("429 Too Many Requests", "no_team", Err(again)),
            ("501 Not Implemented", "", Err(again)),
        ] {
            let party = Peer::start(&[&answer(status, body)]);
            let result = deliver(&Stage::new(), &compatible(&party)).await;
            let kind = result.map(|_| ()).map_err(|error| error.kind);
            assert_eq!(kind, expected, "{status} {body}");
        }
    }

    #[tokio::test]
    async fn a_compatible_server_is_asked_with_an_empty_object() {
        for (status, expected) in [
            ("200 OK", Ok(0)),
            ("400 Bad Request", Ok(1)),
            ("422 Unprocessable Content", Ok(1)),
            ("403 Forbidden", Err(Kind::Permanent)),
            ("404 Not Found", Err(Kind::Permanent)),
        ] {
            let party = Peer::start(&[&answer(status, "no_service")]);
            let result = SlackWebhook::register(&fixture::http(), &compatible(&party)).await;
            let warnings = result.map_err(|error| error.kind);
            let count = warnings.as_ref().map(Vec::len).map_err(|kind| *kind);
            assert_eq!(count, expected, "{status}");
            let shown = format!("{warnings:?}");
            assert_eq!(shown.contains("send_test_message"), expected == Ok(1));
            assert!(!shown.contains("canary"), "{shown}");
            assert_eq!(party.received()[0].body, b"{}");
        }
        let party = Peer::start(&[
            &answer("200 OK", "ok"),
            &answer("400 Bad Request", "Invalid webhook"),
        ]);
        let mut registration = compatible(&party);
        registration.0.send_test_message = true;
        let check = async || SlackWebhook::register(&fixture::http(), &registration).await;
        check().await.unwrap();
        let body = br#"{"text":"This is a test message. Welcome to Chainloop!"}"#;
        assert_eq!(party.received()[0].body, body);
        assert_eq!(check().await.unwrap_err().kind, Kind::Permanent);
    }

    #[tokio::test]
    async fn no_part_of_a_compatible_servers_url_is_in_an_error() {
        let refusal = answer("404 Not Found", "no such hook");
        let party = Peer::start(&[&refusal, &refusal, ""]);
        let registration = compatible(&party);
        let error = deliver(&Stage::new(), &registration).await.unwrap_err();
        let check = SlackWebhook::register(&fixture::http(), &registration)
            .await
            .unwrap_err();
        let lost = deliver(&Stage::new(), &registration).await.unwrap_err();
        let shown = format!("{error} {check} {lost} {lost:?} {registration:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn a_compatible_servers_webhook_is_any_url_but_slacks_own() {
        let fault = |url: &str| {
            let inputs = json!({ "webhook": url, "compatible": true });
            let faults = inputs::check::<Registration>(inputs.as_object().unwrap());
            assert!(!format!("{faults:?}").contains("canary"), "{faults:?}");
            assert!(faults.iter().all(|fault| fault.field == "webhook"));
            faults.into_iter().map(|fault| fault.detail).next()
        };
        for url in [
            "https://mattermost.example.org/hooks/canary",
            "https://chat.example.org:8443/hooks/canary/canary",
            "https://example.org/services/T0/B0/canary?key=canary",
            "http://127.0.0.1:8080/hooks/canary",
            // Where a list of networks allows it.
            "http://mattermost.corp.example.org:8065/hooks/canary",
        ] {
            assert_eq!(fault(url), None, "{url}");
        }
        for url in [
            "https://hooks.slack.com/services/T0/B0/canary",
            "https://hooks.slack-gov.com/triggers/canary",
        ] {
            let detail = fault(url).unwrap();
            assert!(detail.starts_with("must not be Slack's own"), "{detail}");
        }
    }

    #[test]
    fn a_registration_has_a_message_a_second() {
        let webhook = json!({ "webhook": "https://hooks.slack.com/services/T0/B0/canary" });
        let registration = serde_json::from_value(webhook).unwrap();
        let interval = SlackWebhook::interval(&registration);
        assert_eq!(interval, Some(Duration::from_secs(1)));
    }
}
