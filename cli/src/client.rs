//! HTTP client of the API: sends one request after the other, and turns problems into errors.

use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use api::materials::{Download, Upload};
use api::{Code, Page, Problem};
use indicatif::ProgressBar;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::rand::{SecureRandom, SystemRandom};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ureq::http::{Request, Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

use crate::credentials::{self, Credentials};
use crate::failure::Failure;
use crate::global::Global;
use crate::output::say;

/// Longer than the gateway waits for a function.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses before the retries of a repeatable request.
const PAUSES: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1_600)];
/// The longest wait that the API may ask for before a request fails instead, and the longest of all waits together.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
const WAITS_IN_ALL: Duration = Duration::from_mins(5);
/// Pause before resending a request that the API reports as still in progress.
const IN_PROGRESS: Duration = Duration::from_secs(1);
const ANSWER_MAX_BYTES: u64 = 32 * 1024 * 1024;

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

pub(crate) struct Client {
    agent: Agent,
    /// Without `/v1`.
    base: String,
    token: String,
    debug: bool,
    quiet: bool,
}

/// Warnings in a response: shown here, so that no command forgets them.
#[derive(Deserialize)]
struct Warned {
    warnings: Vec<String>,
}

/// One call of the API.
pub(crate) struct Call<'a> {
    method: &'static str,
    path: &'a [&'a str],
    query: &'a [(&'a str, Option<&'a str>)],
    body: Option<Vec<u8>>,
    /// True if repeating the call changes nothing.
    repeatable: bool,
    /// Idempotency key, by which the API recognizes a retry.
    key: Option<String>,
    /// Expected `etag`; the API refuses the call if the state is another.
    only: Option<String>,
}

impl<'a> Call<'a> {
    pub(crate) fn get(path: &'a [&'a str]) -> Self {
        Self {
            method: "GET",
            path,
            query: &[],
            body: None,
            repeatable: true,
            key: None,
            only: None,
        }
    }

    pub(crate) fn delete(path: &'a [&'a str]) -> Self {
        Self {
            method: "DELETE",
            repeatable: false,
            ..Self::get(path)
        }
    }

    pub(crate) fn post(path: &'a [&'a str], body: Vec<u8>) -> Self {
        Self {
            method: "POST",
            body: Some(body),
            repeatable: false,
            ..Self::get(path)
        }
    }

    /// A merge patch with a key, so that a retry does not conflict with its own first attempt.
    pub(crate) fn patch_once(path: &'a [&'a str], body: Vec<u8>) -> anyhow::Result<Self> {
        Ok(Self {
            method: "PATCH",
            ..Self::post_once(path, body)?
        })
    }

    pub(crate) fn put(path: &'a [&'a str], body: Vec<u8>) -> Self {
        Self {
            method: "PUT",
            repeatable: true,
            ..Self::post(path, body)
        }
    }

    /// A POST that creates a resource or begins a job. Its key makes it repeatable.
    pub(crate) fn post_once(path: &'a [&'a str], body: Vec<u8>) -> anyhow::Result<Self> {
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| anyhow!("failed to get random bytes from the system"))?;
        let key = uuid::Builder::from_random_bytes(bytes).into_uuid();
        Ok(Self {
            repeatable: true,
            key: Some(key.to_string()),
            ..Self::post(path, body)
        })
    }

    /// Makes the call conditional on the `etag` that was seen.
    #[must_use]
    pub(crate) fn only(self, etag: &str) -> Self {
        Self {
            only: Some(format!("\"{etag}\"")),
            ..self
        }
    }

    #[must_use]
    pub(crate) fn query(self, query: &'a [(&'a str, Option<&'a str>)]) -> Self {
        Self { query, ..self }
    }

    #[must_use]
    pub(crate) fn repeatable(self) -> Self {
        Self {
            repeatable: true,
            ..self
        }
    }

    /// Returns the path and the query, to follow the base.
    fn target(&self) -> String {
        let encode = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
        let mut target = "/v1".to_owned();
        for segment in self.path {
            target.push('/');
            target.push_str(&encode(segment));
        }
        let mut mark = '?';
        for (name, value) in self.query {
            let Some(value) = value else { continue };
            target.push(mark);
            target.push_str(name);
            target.push('=');
            target.push_str(&encode(value));
            mark = '&';
        }
        target
    }
}

pub(crate) fn json(body: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(body)?)
}

impl Client {
    pub(crate) fn new(global: &Global) -> anyhow::Result<Self> {
        let (url, token) = (given(global.url.as_deref()), given(global.token.as_deref()));
        let kept = match (&url, &token) {
            (Some(_), Some(_)) => None,
            _ => credentials::load(global)?,
        };
        let Some(url) = url.or_else(|| Some(kept.as_ref()?.url.clone())) else {
            return Err(Failure::usage("no API URL configured")
                .advice(
                    "Run `chainloop auth login`, or `. .local/env` after `make local`, set CHAINLOOP_URL, or pass \
                     --url.",
                )
                .into());
        };
        let Some(token) = token.or(own(kept, &url)?) else {
            return Err(Failure::usage("no API token configured")
                .advice(
                    "Run `chainloop auth login`, or `. .local/env` after `make local`, set CHAINLOOP_TOKEN, or \
                     pass --token.",
                )
                .into());
        };
        Self::of(global, &url, token)
    }

    pub(crate) fn of(global: &Global, url: &str, token: String) -> anyhow::Result<Self> {
        let base = base(url)?;
        let host = base
            .parse::<Uri>()
            .ok()
            .and_then(|uri| uri.host().map(str::to_owned));
        let host = host.unwrap_or_default();
        let is_near = ["localhost", "127.0.0.1", "[::1]"].contains(&host.as_str());
        if base.starts_with("http:") && !is_near {
            global.warn(&format!(
                "the token is sent to {host} unencrypted: use https"
            ));
        }
        Ok(Self {
            agent: agent()?,
            base,
            token,
            debug: global.debug,
            quiet: global.quiet,
        })
    }

    /// Returns the API's base URL, without `/v1`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Calls the API. Returns an error if the response is a problem.
    pub(crate) fn call<T: DeserializeOwned>(&self, call: &Call<'_>) -> anyhow::Result<T> {
        let target = call.target();
        let mut pauses = PAUSES.iter().filter(|_| call.repeatable);
        let begun = Instant::now();
        loop {
            let started = Instant::now();
            let answer = self.send(call, &target).and_then(Answer::read);
            if self.debug {
                let status = match &answer {
                    Ok(answer) => answer.status.to_string(),
                    Err(error) => error.to_string(),
                };
                let millis = started.elapsed().as_millis();
                say(
                    "DBG",
                    "2",
                    &format!(
                        "{} {}{target}: {status}, {millis} ms",
                        call.method, self.base
                    ),
                );
            }
            let may_pass = match &answer {
                // The first attempt, whose response was lost, is still in progress.
                Ok(answer) if call.key.is_some() && answer.is_in_progress() => {
                    if begun.elapsed() < ANSWER_TIMEOUT {
                        std::thread::sleep(IN_PROGRESS);
                        continue;
                    }
                    false
                }
                // Nothing was done, so even a call that is not repeatable is resent.
                Ok(answer) if let Some(wait) = answer.wait() => {
                    if wait <= LONGEST_WAIT && begun.elapsed() + wait < WAITS_IN_ALL {
                        self.tells_of(wait);
                        std::thread::sleep(wait);
                        continue;
                    }
                    false
                }
                Ok(answer) if answer.has_code(Code::QuotaExceeded) => false,
                Ok(answer) => matches!(answer.status, 429 | 502 | 503 | 504),
                Err(error) => can_pass(error),
            };
            match pauses.next().filter(|_| may_pass) {
                Some(pause) => std::thread::sleep(*pause),
                None => return self.understand(call, answer),
            }
        }
    }

    fn tells_of(&self, wait: Duration) {
        if !self.quiet {
            let secs = wait.as_secs();
            say(
                "INF",
                "32",
                &format!("rate limit exceeded: retrying in {secs} s"),
            );
        }
    }

    fn send(&self, call: &Call<'_>, target: &str) -> Result<Response<Body>, ureq::Error> {
        let request = Request::builder()
            .method(call.method)
            .uri(format!("{}{target}", self.base))
            .header("authorization", format!("Bearer {}", self.token))
            .header("accept", "application/json");
        let request = match &call.key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        let request = match &call.only {
            Some(etags) => request.header("if-match", etags),
            None => request,
        };
        match &call.body {
            None => self.agent.run(request.body(())?),
            Some(body) => {
                let request = request.header("content-type", "application/json");
                self.agent.run(request.body(body.as_slice())?)
            }
        }
    }

    fn understand<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        answer: Result<Answer, ureq::Error>,
    ) -> anyhow::Result<T> {
        let Answer {
            status,
            request_id,
            body,
        } = answer.map_err(|error| unreachable(&self.base, &error))?;
        if !(200..300).contains(&status) {
            let request_id = request_id.unwrap_or_default();
            return Err(refused(call.path, status, &body, request_id).into());
        }
        if let Ok(Warned { warnings }) = serde_json::from_slice(&body)
            && !self.quiet
        {
            for warning in warnings {
                say("WRN", "33", &warning);
            }
        }
        serde_json::from_slice(&body).map_err(|error| {
            Failure::new(format!("invalid response: {error}"))
                .advice(format!(
                    "Check that {} is the API URL, and that the API has the version of this command.",
                    self.base
                ))
                .request(request_id.unwrap_or_default())
                .into()
        })
    }

    /// Returns the items of a list from all its pages, `limit` at most, and true if more exist.
    pub(crate) fn list<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, Option<&str>)],
        limit: usize,
    ) -> anyhow::Result<(Vec<T>, bool)> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            // Whole pages: a filter may leave a page with few items or none.
            let wanted = limit.clamp(20, 100).to_string();
            let page_query: Vec<_> = query
                .iter()
                .copied()
                .chain([
                    ("limit", Some(wanted.as_str())),
                    ("cursor", cursor.as_deref()),
                ])
                .collect();
            let page: Page<T> = self.call(&Call::get(path).query(&page_query))?;
            items.extend(page.items);
            match page.next {
                Some(next) if items.len() < limit => cursor = Some(next),
                next => {
                    let more = next.is_some() || items.len() > limit;
                    items.truncate(limit);
                    return Ok((items, more));
                }
            }
        }
    }

    /// Uploads bytes as the API said, without our own headers. Succeeds if they are there already.
    pub(crate) fn upload(
        &self,
        upload: &Upload,
        content: &mut dyn Read,
        size: u64,
    ) -> anyhow::Result<()> {
        let mut request = Request::builder()
            .method(upload.method.as_str())
            .uri(&upload.url);
        for (name, value) in &upload.headers {
            request = request.header(name, value);
        }
        // A body whose length is not said would go in chunks, which S3 does not take.
        if !upload
            .headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case("content-length"))
        {
            request = request.header("content-length", size);
        }
        let request = request.body(SendBody::from_reader(content))?;
        let host = request.uri().host().unwrap_or_default().to_owned();
        let mut answer = self
            .agent
            .run(request)
            .map_err(|error| unreachable(&host, &error))?;
        let status = answer.status().as_u16();
        if self.debug {
            say(
                "DBG",
                "2",
                &format!("{} to {host}: {status}", upload.method),
            );
        }
        match status {
            200..=299 | 412 => Ok(()),
            _ => Err(of_store(&mut answer).into()),
        }
    }

    /// Downloads bytes from the URL that the API gave, without our own headers.
    pub(crate) fn download(
        &self,
        download: &Download,
        size: u64,
        bar: &ProgressBar,
    ) -> anyhow::Result<Vec<u8>> {
        let request = Request::builder()
            .method("GET")
            .uri(&download.url)
            .body(())?;
        let host = request.uri().host().unwrap_or_default().to_owned();
        let mut answer = self
            .agent
            .run(request)
            .map_err(|error| unreachable(&host, &error))?;
        let status = answer.status().as_u16();
        if self.debug {
            say("DBG", "2", &format!("GET to {host}: {status}"));
        }
        if status != 200 {
            return Err(of_store(&mut answer).into());
        }
        let body = answer
            .body_mut()
            .with_config()
            .limit(size.saturating_add(1));
        let mut bytes = Vec::new();
        bar.wrap_read(body.reader())
            .read_to_end(&mut bytes)
            .map_err(|error| unreachable(&host, &error.into()))?;
        Ok(bytes)
    }
}

/// Complete response of the API.
struct Answer {
    status: u16,
    request_id: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    fn read(mut answer: Response<Body>) -> Result<Self, ureq::Error> {
        let header = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
        let request_id = header("apigw-requestid").or_else(|| header("x-amzn-requestid"));
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(ANSWER_MAX_BYTES);
        Ok(Self {
            status,
            request_id,
            body: body.read_to_vec()?,
        })
    }

    fn is_in_progress(&self) -> bool {
        self.status == 409 && self.has_code(Code::InProgress)
    }

    fn has_code(&self, code: Code) -> bool {
        self.problem().is_some_and(|problem| problem.is(code))
    }

    fn problem(&self) -> Option<Problem> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Returns the wait that the API asks for, if it does.
    fn wait(&self) -> Option<Duration> {
        let problem = self.problem().filter(|_| self.status == 429)?;
        problem.retry_after_secs.map(Duration::from_secs)
    }
}

/// Describes a refusal of the object store.
fn of_store(answer: &mut Response<Body>) -> Failure {
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(16 * 1024);
    let body = body.read_to_string().unwrap_or_default();
    let says = |tag: &str| {
        let (_, rest) = body.split_once(&format!("<{tag}>"))?;
        rest.split_once("</").map(|(text, _)| text.to_owned())
    };
    let why = says("Message")
        .or_else(|| says("Code"))
        .map(|why| format!(": {why}"));
    let why = why.unwrap_or_default();
    Failure::new(format!(
        "the object store responded with status {status}{why}"
    ))
    .request(says("RequestId").unwrap_or_default())
}

/// Returns the trimmed value, unless it is empty.
pub(crate) fn given(value: Option<&str>) -> Option<String> {
    let value = value.map(str::trim).filter(|value| !value.is_empty());
    value.map(str::to_owned)
}

/// Returns the token stored for this API. It must not go to another one.
fn own(kept: Option<Credentials>, url: &str) -> anyhow::Result<Option<String>> {
    let Some(kept) = kept else { return Ok(None) };
    if base(url)? == kept.url {
        return Ok(Some(kept.token));
    }
    Err(Failure::usage(format!("no API token configured for {url}"))
        .advice(format!(
            "`chainloop auth login` stored a token for {} only. Log in again, set CHAINLOOP_TOKEN, or pass \
             --token.",
            kept.url
        ))
        .into())
}

/// The API's base: with a scheme, without a slash at the end, without `/v1`.
fn base(url: &str) -> anyhow::Result<String> {
    let base = url.trim_end_matches('/');
    let base = base
        .strip_suffix("/v1")
        .unwrap_or(base)
        .trim_end_matches('/');
    let is_web = base.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    if is_web {
        return Ok(base.to_owned());
    }
    let failure = Failure::usage(format!("{url:?} is not a URL"));
    Err(failure
        .advice("Set CHAINLOOP_URL or --url to a URL such as https://api.example.org.")
        .into())
}

fn agent() -> anyhow::Result<Agent> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        // A redirect would carry the token, or a body, to where nobody meant it to go.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .user_agent(concat!("chainloop/", env!("CARGO_PKG_VERSION")));
    // The roots are built in, since a container often has none; whoever inspects TLS has one more.
    if let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
        let failure = |why: String| {
            Failure::usage(format!(
                "failed to read the certificates in {}: {why}",
                path.display()
            ))
            .advice("SSL_CERT_FILE must name a file of PEM certificates.")
        };
        let pem = std::fs::read(&path).map_err(|error| failure(error.to_string()))?;
        let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if certificates.is_empty() {
            return Err(failure("no certificate found".into()).into());
        }
        let roots = RootCerts::new_with_certs(&certificates);
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    Ok(config.build().new_agent())
}

/// Reports whether a retry could help.
fn can_pass(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => {
            use std::io::ErrorKind::{ConnectionRefused, InvalidData};
            !matches!(error.kind(), ConnectionRefused | InvalidData)
        }
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
        _ => false,
    }
}

fn unreachable(at: &str, error: &ureq::Error) -> Failure {
    let connection = "Check CHAINLOOP_URL and the network; for the local cloud, run `make local`.";
    match error {
        ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            Failure::new(format!("failed to connect to {at}: connection refused"))
                .advice(connection)
        }
        ureq::Error::HostNotFound => {
            Failure::new(format!("failed to resolve the host of {at}")).advice(connection)
        }
        // The server replied to the TLS handshake with something else.
        ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => Failure::new(
            format!("the server at {at} does not speak TLS: {io}"),
        )
        .advice("Check CHAINLOOP_URL: use http:// instead of https:// for a server without TLS."),
        ureq::Error::Timeout(what) => {
            Failure::new(format!("request to {at} timed out ({what})")).advice("Try again later.")
        }
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => Failure::new(format!(
            "TLS connection to {at} failed: {error}"
        ))
        .advice("Behind a proxy that inspects TLS, set SSL_CERT_FILE to the proxy's certificate."),
        ureq::Error::Http(_) => Failure::usage("the token contains invalid characters")
            .advice("Check CHAINLOOP_TOKEN for line breaks and other stray characters."),
        _ => Failure::new(format!("failed to reach {at}: {error}")).advice(connection),
    }
}

/// Describes a refusal: a problem of the API, or the gateway's short message.
fn refused(path: &[&str], status: u16, body: &[u8], request_id: String) -> Failure {
    let token = "Check that CHAINLOOP_TOKEN is a token of this installation, neither revoked nor expired. An \
                 admin can create one with `chainloop organization api-token create`, or with AWS credentials \
                 `chainloop bootstrap --new-token`; after `make local`, run `. .local/env`.";
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        let failure = match status {
            401 | 403 => Failure::new("the token was rejected").advice(token),
            404 => Failure::new("no such path at the API")
                .advice("Check CHAINLOOP_URL: it must be the base URL of the API, without /v1."),
            413 => Failure::new("request body too large"),
            429 => Failure::new("too many requests").advice("Try again later."),
            300..=399 => Failure::new(format!("the API URL redirects (status {status})"))
                .advice("Set CHAINLOOP_URL to the target of the redirect."),
            _ => Failure::new(format!("the API responded with status {status}"))
                .advice("Try again later."),
        };
        return failure.request(request_id).answered(status, "");
    };
    let faults: Vec<String> = problem
        .faults
        .iter()
        .map(|fault| match fault.field.as_str() {
            "" => fault.detail.clone(),
            field => format!("{field}: {}", fault.detail),
        })
        .collect();
    let text = match (problem.detail.as_str(), faults.is_empty()) {
        ("", _) | (_, false) => beginning_small(&problem.title),
        (detail, true) => detail.to_owned(),
    };
    let advice = match (status, Code::of(&problem.code)) {
        (401, _) => token,
        (403, Some(Code::RoleAbove)) => "Use a token that has that role.",
        (403, _) => {
            "`chainloop auth status` shows the token's name and role; an admin can create another with `chainloop \
             organization api-token create`."
        }
        (404, _) => list_of(path, &problem.detail),
        (409, Some(Code::TokenNameTaken)) => {
            "Choose another name, or revoke the other token with `chainloop organization api-token revoke`."
        }
        (409, Some(Code::NameTaken)) if path.first() == Some(&"intakes") => {
            "Choose another name, or delete the other intake with `intake delete`."
        }
        (409, Some(Code::NameTaken)) => {
            "Choose another name, or delete the other registration with `registered delete`."
        }
        (409, Some(Code::AttachmentExists)) => {
            "Both attachments would get each delivery. To attach anyway, pass --allow-duplicate; `chainloop \
             integration attached update` changes the existing attachment."
        }
        (409, Some(Code::Paused)) => "Resume it with `chainloop integration registered resume`.",
        (412, _) => "It changed in the meantime: run the command again.",
        (422, Some(Code::CheckFailed)) => {
            "Nothing was stored. Correct the options, or the third party, and try again."
        }
        // Later it is the same.
        (409, Some(Code::Over | Code::Gone)) => "",
        (429, Some(Code::QuotaExceeded)) => {
            "`chainloop organization quota` shows the quotas; the stack's parameter Quotas sets them."
        }
        (409 | 429 | 500.., _) => "Try again later.",
        _ => "",
    };
    let id = if problem.request_id.is_empty() {
        request_id
    } else {
        problem.request_id
    };
    Failure::new(text)
        .faults(faults)
        .advice(advice)
        .request(id)
        .answered(status, problem.code)
}

/// Returns advice to list the resources of a kind, if the requested one does not exist.
fn list_of(path: &[&str], detail: &str) -> &'static str {
    let [kind, named, ..] = path else { return "" };
    if !detail.ends_with(named) && !detail.ends_with(&format!("{named:?}")) {
        return "";
    }
    match *kind {
        "registrations" => "`chainloop integration registered list` shows the existing ones.",
        "attachments" => "`chainloop integration attached list` shows the existing ones.",
        "attestations" => "`chainloop attestation list` shows the existing ones.",
        "deliveries" => "`chainloop delivery list` shows the existing ones.",
        "intakes" => "`chainloop intake list` shows the existing ones.",
        "jobs" => "`chainloop job list` shows the existing ones.",
        "tokens" => "`chainloop organization api-token list` shows the existing ones.",
        _ => "",
    }
}

fn beginning_small(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::text;

    fn told(failure: Failure) -> String {
        text(&failure.into())
    }

    #[test]
    fn the_base_may_be_given_with_or_without_its_version() {
        for url in [
            "https://a.example",
            "https://a.example/",
            "https://a.example/v1",
            "https://a.example/v1/",
        ] {
            assert_eq!(base(url).unwrap(), "https://a.example");
        }
        assert_eq!(
            base("http://127.0.0.1:4566/_aws/execute-api/0a1b2c3d/$default").unwrap(),
            "http://127.0.0.1:4566/_aws/execute-api/0a1b2c3d/$default"
        );
        for url in ["a.example", "ftp://a.example", "https://", "/v1"] {
            assert!(base(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_stands_in_a_target_is_encoded() {
        let query = [
            ("workflow", Some("shop/nightly build")),
            ("state", None),
            ("limit", Some("5")),
        ];
        let call = Call::get(&["materials", "sha256:00", "a/b"]).query(&query);
        assert_eq!(
            call.target(),
            "/v1/materials/sha256:00/a%2Fb?workflow=shop%2Fnightly%20build&limit=5"
        );
    }

    #[test]
    fn the_gateways_own_refusals_come_with_advice() {
        let told = |status| {
            told(refused(
                &[],
                status,
                br#"{"message":"Forbidden"}"#,
                "r1".into(),
            ))
        };
        assert!(told(403).starts_with("the token was rejected\n    Check that CHAINLOOP_TOKEN is"));
        assert!(told(401).ends_with("request ID: r1"));
        assert!(told(404).contains("without /v1"));
        assert!(told(502).starts_with("the API responded with status 502"));
    }

    #[test]
    fn faults_are_listed_one_a_line_with_their_field() {
        let body = br#"{"status":422,"code":"invalid-inputs","title":"Some inputs are not right",
            "detail":"see the faults","faults":[{"field":"webhook","detail":"must be a URL"},
            {"field":"","detail":"give one of user and token"}],"request_id":"r2"}"#;
        assert_eq!(
            told(refused(&["registrations"], 422, body, String::new())),
            "some inputs are not right\n    webhook: must be a URL\n    give one of user and token\n    \
             request ID: r2"
        );
    }

    #[test]
    fn nothing_listening_is_told_with_what_to_do() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(
            told(unreachable("http://127.0.0.1:1", &ureq::Error::Io(refused))),
            "failed to connect to http://127.0.0.1:1: connection refused\n    Check CHAINLOOP_URL and the \
             network; for the local cloud, run `make local`."
        );
    }
}
