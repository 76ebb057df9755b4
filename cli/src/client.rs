//! HTTP client of the API: sends one request after the other, and turns problems into errors.

mod call;
mod refusal;
mod store;

use std::time::{Duration, Instant};

use api::tokens::{Created, Exchange};
use api::{Code, Page, Problem, Role, TRACEPARENT, Trace};
pub(crate) use call::{Call, encoded, json};
use refusal::{refused, unreachable};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Request, Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::address::base;
use crate::failure::Failure;
use crate::global::Global;
use crate::installation::{Installation, Token};
use crate::output::say;

/// Longer than the gateway waits for a function.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Whole time of a request for completion.
const BRIEF: Duration = Duration::from_secs(1);
/// Pauses before the retries of a repeatable request.
const PAUSES: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1_600)];
/// The longest wait that the API may ask for before a request fails instead, and the longest of all waits together.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
const WAITS_IN_ALL: Duration = Duration::from_mins(5);
/// Pause before resending a request that the API reports as still in progress.
const IN_PROGRESS: Duration = Duration::from_secs(1);
const ANSWER_MAX_BYTES: u64 = 32 * 1024 * 1024;

pub(crate) struct Client {
    agent: Agent,
    /// Without `/v1`.
    base: String,
    token: String,
    /// Origin of the token, for who has to correct it.
    token_from: String,
    debug: bool,
    quiet: bool,
}

/// Warnings in a response: shown here, so that no command forgets them.
#[derive(Deserialize)]
struct Warned {
    warnings: Vec<String>,
}

impl Client {
    pub(crate) fn new(global: &Global) -> anyhow::Result<Self> {
        let installation = Installation::of(global)?;
        let url = installation.url.clone();
        let Token { text, from } = installation.token()?;
        Self::of(global, &url, text, &from)
    }

    /// A client for a shell that waits for completion.
    pub(crate) fn brief(global: &Global) -> anyhow::Result<Self> {
        let client = Self::new(global)?;
        let agent = agent(Some(BRIEF))?;
        Ok(Self { agent, ..client })
    }

    /// Returns the first page of a list; `None` unless the API returns it at once.
    pub(crate) fn first_page<T: DeserializeOwned>(&self, path: &str) -> Option<Vec<T>> {
        let path = [path];
        let call = Call::get(&path).query(&[("limit", Some("100"))]);
        let answer = self.send(&call, &call.target()).and_then(Answer::read);
        let answer = answer.ok().filter(|answer| answer.status == 200)?;
        let page: Page<T> = serde_json::from_slice(&answer.body).ok()?;
        Some(page.items)
    }

    /// A client for what needs no token.
    pub(crate) fn without_token(global: &Global) -> anyhow::Result<Self> {
        Self::of(global, &Installation::of(global)?.url, String::new(), "")
    }

    pub(crate) fn with_token(self, token: String) -> Self {
        Self { token, ..self }
    }

    /// Exchanges the token for one with this role, which lives an hour at most.
    pub(crate) fn exchange_token(&self, role: Role) -> anyhow::Result<Created> {
        let body = Exchange {
            token: Some(self.token.clone()),
            role: Some(role),
            ..Exchange::default()
        };
        self.call(&Call::post(&["tokens", "exchange"], json(&body)?))
    }

    /// Gets a JWT with this audience from GitHub's runner.
    pub(crate) fn id_token(
        &self,
        url: &str,
        token: &str,
        audience: &str,
    ) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct IdToken {
            value: String,
        }
        let audience = encoded(audience);
        let separator = if url.contains('?') { '&' } else { '?' };
        let request = Request::get(format!("{url}{separator}audience={audience}"))
            .header("authorization", format!("Bearer {token}"))
            .header("accept", "application/json");
        let answer = request
            .body(())
            .map_err(ureq::Error::from)
            .and_then(|request| self.agent.run(request))
            .and_then(Answer::read)
            .map_err(|error| Failure::new(format!("no answer: {error}")))?;
        if answer.status != 200 {
            let status = answer.status;
            return Err(Failure::new(format!("it responded with status {status}")).into());
        }
        let read = serde_json::from_slice(&answer.body);
        // Not serde's text, which may quote it.
        let IdToken { value } = read.map_err(|_| Failure::new("invalid response"))?;
        Ok(value)
    }

    pub(crate) fn of(
        global: &Global,
        url: &str,
        token: String,
        token_from: &str,
    ) -> anyhow::Result<Self> {
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
            agent: agent(None)?,
            base,
            token,
            token_from: token_from.to_owned(),
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
                        self.tells_of(answer.status, wait);
                        std::thread::sleep(wait);
                        continue;
                    }
                    false
                }
                Ok(answer) if answer.has_code(Code::QuotaExceeded) => false,
                Ok(answer) => match answer.status {
                    429 | 502 | 503 | 504 => true,
                    // The gateway's own: its function was cut off, or could not be started.
                    500 => answer.problem().is_none(),
                    _ => false,
                },
                Err(error) => can_pass(error),
            };
            match pauses.next().filter(|_| may_pass) {
                Some(pause) => std::thread::sleep(*pause),
                None => return self.understand(call, answer),
            }
        }
    }

    fn tells_of(&self, status: u16, wait: Duration) {
        if !self.quiet {
            let secs = wait.as_secs();
            let why = match status {
                429 => "rate limit exceeded",
                _ => "not ready yet",
            };
            say("INF", "32", &format!("{why}: retrying in {secs} s"));
        }
    }

    fn send(&self, call: &Call<'_>, target: &str) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(format!("{}{target}", self.base))
            .header("accept", "application/json");
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        // As CI systems hand it to what they run.
        let trace = std::env::var("TRACEPARENT").ok();
        if let Some(trace) = trace.and_then(|trace| trace.parse::<Trace>().ok()) {
            request = request.header(TRACEPARENT, trace.to_string());
        }
        for (name, value) in [("idempotency-key", &call.key), ("if-match", &call.only)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
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
            return Err(refused(call.path, status, &body, request_id, &self.token_from).into());
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
        self.pages(|| Call::get(path), query, limit)
    }

    /// As [`list`](Self::list), by another call than a GET.
    pub(crate) fn pages<'a, T: DeserializeOwned>(
        &self,
        call: impl Fn() -> Call<'a>,
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
            let page: Page<T> = self.call(&call().query(&page_query))?;
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
        let problem = self.problem();
        let problem = problem.filter(|_| matches!(self.status, 429 | 503))?;
        problem.retry_after_secs.map(Duration::from_secs)
    }
}

fn agent(limit: Option<Duration>) -> anyhow::Result<Agent> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        // A redirect would carry the token, or a body, to where nobody meant it to go.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(limit)
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
