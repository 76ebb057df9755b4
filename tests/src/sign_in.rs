//! Sign-in at the console: the function that speaks to the identity provider, against a provider on loopback that is
//! written from RFC 6749, RFC 7636 and OpenID Connect; and the ID tokens of providers at the exchange.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::{Client, Role, Timestamp};
use attestation::Digest;
use integrations::SecretText;
use memory::Memory;
use pipeline::Platform as _;
use pipeline::engine::fetch;
use pipeline::engine::sign_in::{self, CachedEndpoints};
use pipeline::http::{self, Request, Response};
use receiver::{Answer, Received, Server};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::asking::{answer, ask, request};
use crate::exchange::Key;
use crate::roles::As;
use crate::world::{ORGANIZATION, scope};

const CLIENT: &str = "console-client";
const REDIRECT: &str = "https://api.example.org/console";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes)
}

fn hashed(text: &str) -> String {
    encode(Digest::of(text.as_bytes()).bytes())
}

/// What the provider knows of a code that it gave out.
#[derive(Clone)]
struct Grant {
    challenge: String,
    nonce: String,
    redirect_uri: String,
}

/// A way in which the provider misbehaves, of its token endpoint unless it says otherwise.
#[derive(Clone, Default)]
enum Mood {
    #[default]
    Good,
    Answers(Answer),
    /// Signs another nonce than it was given.
    OtherNonce,
    /// Its configuration has another value here.
    Configuration(&'static str, Value),
}

/// An identity provider on loopback, and the function that speaks to it.
pub struct Provider {
    issuer: String,
    grants: Arc<Mutex<BTreeMap<String, Grant>>>,
    mood: Arc<Mutex<Mood>>,
    server: Server,
    secret: Option<&'static str>,
    claims: Arc<Mutex<Value>>,
    key: Arc<Key>,
    known: CachedEndpoints,
    now: Cell<Timestamp>,
    /// Time that the function has to answer.
    within: Cell<Duration>,
}

impl Provider {
    /// With the secret of the client, if it has one.
    fn start(secret: Option<&'static str>) -> Self {
        let key = Arc::new(Key::new("a"));
        let grants = Arc::<Mutex<BTreeMap<String, Grant>>>::default();
        let mood = Arc::<Mutex<Mood>>::default();
        let claims = Arc::new(Mutex::new(json!({})));
        let own = (
            Arc::clone(&key),
            Arc::clone(&grants),
            Arc::clone(&mood),
            Arc::clone(&claims),
        );
        let server = Server::start(move |_, asked| {
            let (key, grants, mood, claims) = &own;
            let issuer = format!("http://{}", asked.header("host").unwrap());
            let mood = mood.lock().unwrap().clone();
            match asked.path.as_str() {
                "/.well-known/openid-configuration" => {
                    let mut configuration = json!({
                        "issuer": issuer,
                        "authorization_endpoint": format!("{issuer}/authorize?tenant=acme"),
                        "token_endpoint": format!("{issuer}/token"),
                        "jwks_uri": format!("{issuer}/keys"),
                    });
                    if let Mood::Configuration(name, value) = mood {
                        configuration[name] = value;
                    }
                    Answer::status(200).body(configuration.to_string())
                }
                "/keys" => Answer::status(200).body(key.set().to_string()),
                "/token" => match mood {
                    Mood::Answers(answer) => answer,
                    mood => {
                        let nonce = grant(&mut grants.lock().unwrap(), asked, secret);
                        token(nonce, &mood, key, &issuer, &claims.lock().unwrap())
                    }
                },
                _ => Answer::status(404),
            }
        });
        Self {
            issuer: server.origin(),
            grants,
            mood,
            server,
            secret,
            claims,
            key,
            known: CachedEndpoints::default(),
            now: Cell::new(Memory::default().now()),
            within: Cell::new(Duration::from_mins(1)),
        }
    }

    /// One that has given out the code of the sample events.
    pub fn of_events() -> Self {
        let own = Self::start(None);
        let (verifier, nonce) = (hashed("sample verifier"), hashed("sample nonce"));
        own.gives("sample-code", &verifier, &nonce);
        own
    }

    fn gives(&self, code: &str, verifier: &str, nonce: &str) {
        let grant = Grant {
            challenge: hashed(verifier),
            nonce: nonce.to_owned(),
            redirect_uri: REDIRECT.to_owned(),
        };
        self.grants.lock().unwrap().insert(code.to_owned(), grant);
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Number of requests to a path.
    fn asked(&self, path: &str) -> usize {
        let received = self.server.received();
        received.iter().filter(|one| one.path == path).count()
    }

    pub async fn answer(&self, request: &Request) -> Response {
        let provider = sign_in::Provider {
            issuer: self.issuer.clone(),
            client_id: CLIENT.to_owned(),
            scopes: "openid groups".to_owned(),
        };
        let secret = self.secret.map(|text| SecretText::from(text.to_owned()));
        let (known, http) = (&self.known, crate::world::http());
        let secret = async || Ok(secret);
        let (now, late) = (self.now.get(), tokio::time::sleep(self.within.get()));
        http::sign_in::answer(&provider, known, &http, request, now, secret, late).await
    }

    async fn describes(&self) -> Response {
        self.answer(&requested("GET", &Value::Null)).await
    }

    async fn takes(&self, body: &Value) -> Response {
        self.answer(&requested("POST", body)).await
    }
}

/// Takes a code of which all is right, and answers its nonce; or the error of RFC 6749.
fn grant(
    grants: &mut BTreeMap<String, Grant>,
    asked: &Received,
    secret: Option<&str>,
) -> Result<String, &'static str> {
    let fields: BTreeMap<String, String> =
        form_urlencoded::parse(&asked.body).into_owned().collect();
    let field = |name: &str| fields.get(name).map_or("", String::as_str);
    assert_eq!(asked.method, "POST");
    assert_eq!(
        asked.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    let basic = secret.map(|secret| {
        let pair = base64_simd::STANDARD.encode_to_string(format!("{CLIENT}:{secret}"));
        format!("Basic {pair}")
    });
    let is_client = match &basic {
        Some(basic) if asked.header("authorization") == Some(basic) => true,
        Some(_) => field("client_id") == CLIENT && Some(field("client_secret")) == secret,
        None => field("client_id") == CLIENT && asked.header("authorization").is_none(),
    };
    if !is_client {
        return Err("invalid_client");
    }
    if field("grant_type") != "authorization_code" {
        return Err("unsupported_grant_type");
    }
    // A code is good for one try.
    let grant = grants.remove(field("code")).ok_or("invalid_grant")?;
    let is_right = hashed(field("code_verifier")) == grant.challenge
        && field("redirect_uri") == grant.redirect_uri;
    is_right.then_some(grant.nonce).ok_or("invalid_grant")
}

fn token(
    nonce: Result<String, &'static str>,
    mood: &Mood,
    key: &Key,
    issuer: &str,
    more: &Value,
) -> Answer {
    let json = |status: u16, body: Value| {
        let answer = Answer::status(status).header("content-type", "application/json");
        answer.body(body.to_string())
    };
    let nonce = match (nonce, mood) {
        (Err(error), _) => {
            let told = "canary-description with the code";
            return json(400, json!({ "error": error, "error_description": told }));
        }
        (Ok(_), Mood::OtherNonce) => "canary-nonce".to_owned(),
        (Ok(nonce), _) => nonce,
    };
    let now = Memory::default().now().secs();
    let mut claims = json!({
        "iss": issuer, "aud": CLIENT, "sub": "00u1", "iat": now, "exp": now + 3600, "nonce": nonce,
        "groups": ["everybody", "on-call"],
    });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let body = json!({
        "access_token": "canary-access", "token_type": "Bearer", "id_token": key.sign(&claims),
    });
    json(200, body)
}

fn requested(method: &str, body: &Value) -> Request {
    Request {
        method: method.into(),
        path: "/console/sign-in".into(),
        query: BTreeMap::new(),
        headers: BTreeMap::new(),
        body: match body {
            Value::Null => String::new(),
            body => body.to_string(),
        }
        .into(),
        caller: None,
        client: Client::default(),
        id: "request-1".into(),
    }
}

/// A tab that has begun to sign in: verifier and nonce, and the code that the provider sent it back with.
struct Tab {
    verifier: String,
    nonce: String,
    code: String,
}

impl Tab {
    fn new(provider: &Provider, name: &str) -> Self {
        let tab = Self {
            verifier: hashed(&format!("verifier of {name}")),
            nonce: hashed(&format!("nonce of {name}")),
            code: format!("code-of-{name}"),
        };
        provider.gives(&tab.code, &tab.verifier, &tab.nonce);
        tab
    }

    fn state(&self) -> String {
        hashed(&format!("{}.{}", self.verifier, self.nonce))
    }

    fn callback(&self) -> Value {
        json!({
            "code": self.code, "state": self.state(), "verifier": self.verifier, "nonce": self.nonce,
            "redirect_uri": REDIRECT,
        })
    }

    fn with(&self, name: &str, value: &str) -> Value {
        let mut body = self.callback();
        body[name] = value.into();
        body
    }
}

fn code(answer: &Response) -> (u16, &str) {
    (
        answer.status,
        answer.body["code"].as_str().unwrap_or_default(),
    )
}

#[tokio::test]
async fn a_code_becomes_an_id_token_and_the_provider_is_described() {
    let provider = Provider::start(None);
    let described = provider.describes().await;
    let expected = json!({
        "issuer": provider.issuer, "authorization_endpoint": format!("{}/authorize?tenant=acme", provider.issuer),
        "client_id": CLIENT, "scope": "openid groups",
    });
    assert_eq!((described.status, &described.body), (200, &expected));
    let tab = Tab::new(&provider, "a");
    let answer = provider.takes(&tab.callback()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let jwt = answer.body["jwt"].as_str().unwrap();
    assert_eq!(jwt.split('.').count(), 3);
    assert_eq!(
        answer.body.as_object().unwrap().len(),
        1,
        "and nothing else"
    );
    for answer in [described, answer] {
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    let again = provider.takes(&tab.callback()).await;
    assert_eq!(code(&again), (400, "sign-in-refused"));
    let other = provider.answer(&requested("PUT", &json!({}))).await;
    assert_eq!(code(&other), (405, "method-not-allowed"));
}

/// An attacker's code in a victim's tab (login CSRF), and a victim's code in an attacker's (code injection).
#[tokio::test]
async fn a_code_of_another_tab_is_refused_wherever_it_comes_from() {
    let provider = Provider::start(None);
    let (own, other) = (Tab::new(&provider, "own"), Tab::new(&provider, "other"));
    // As an address has them: the state is the other tab's as well, and fits nothing that this tab kept.
    let mut led = own.with("code", &other.code);
    led["state"] = other.state().into();
    let answer = provider.takes(&led).await;
    assert_eq!(code(&answer), (400, "sign-in-refused"));
    assert_eq!(provider.asked("/token"), 0, "the provider is not asked");
    // With a state that fits, as an attacker makes it in a tab of his own: the provider knows the verifier's challenge.
    let answer = provider.takes(&own.with("code", &other.code)).await;
    assert_eq!(code(&answer), (400, "sign-in-refused"));
    assert_eq!(provider.asked("/token"), 1);
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("does not take the code"), "{detail}");
}

#[tokio::test]
async fn what_is_missing_or_malformed_is_refused_before_the_provider_is_asked() {
    let provider = Provider::start(None);
    let tab = Tab::new(&provider, "a");
    let long = "c".repeat(8 * 1024 + 1);
    let other = hashed("another");
    for (name, value) in [
        ("state", ""),
        ("state", "x"),
        ("state", &other),
        ("nonce", ""),
        ("nonce", &other),
        ("nonce", "short"),
        ("verifier", ""),
        ("verifier", &other),
        (
            "verifier",
            "a verifier with spaces, and as long as one has to be",
        ),
        ("code", ""),
        ("code", "with space"),
        ("code", &long),
        ("redirect_uri", ""),
        ("redirect_uri", "http://evil.example.org/console"),
        ("redirect_uri", "https://api.example.org/elsewhere"),
    ] {
        let answer = provider.takes(&tab.with(name, value)).await;
        assert_eq!(code(&answer), (400, "sign-in-refused"), "{name}={value}");
    }
    for name in ["state", "nonce", "verifier", "code", "redirect_uri"] {
        let mut body = tab.callback();
        body.as_object_mut().unwrap().remove(name);
        let answer = provider.takes(&body).await;
        assert_eq!(code(&answer), (400, "sign-in-refused"), "without {name}");
    }
    for body in [
        json!([]),
        json!({ "code": 1 }),
        json!({ "more": "x" }),
        json!("canary"),
    ] {
        let answer = provider.takes(&body).await;
        assert_eq!(code(&answer), (400, "malformed-body"), "{body}");
        assert!(!answer.body.to_string().contains("canary"));
    }
    assert_eq!(provider.server.received().len(), 0);
}

#[tokio::test]
async fn an_id_token_of_another_sign_in_is_refused() {
    let provider = Provider::start(None);
    provider.is(Mood::OtherNonce);
    let answer = provider.takes(&Tab::new(&provider, "a").callback()).await;
    assert_eq!(code(&answer), (400, "sign-in-refused"));
    assert!(answer.body["detail"].as_str().unwrap().contains("nonce"));
}

#[tokio::test]
async fn a_client_with_a_secret_proves_it_in_the_way_that_the_provider_has() {
    for (methods, is_in_header) in [
        (None, true),
        (
            Some(json!(["client_secret_post", "client_secret_basic"])),
            true,
        ),
        (Some(json!(["client_secret_post"])), false),
    ] {
        let provider = Provider::start(Some("s3cret"));
        let configured =
            |methods| Mood::Configuration("token_endpoint_auth_methods_supported", methods);
        provider.is(methods.map(configured).unwrap_or_default());
        let answer = provider.takes(&Tab::new(&provider, "a").callback()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let asked = provider.server.received();
        let asked = asked.iter().find(|one| one.path == "/token").unwrap();
        let body = String::from_utf8_lossy(&asked.body);
        assert_eq!(asked.header("authorization").is_some(), is_in_header);
        assert_eq!(body.contains("client_secret"), !is_in_header);
    }
    let mut provider = Provider::start(Some("s3cret"));
    provider.secret = Some("another");
    let answer = provider.takes(&Tab::new(&provider, "a").callback()).await;
    assert_eq!(code(&answer), (502, "provider-failed"));
    assert!(
        answer.body["detail"]
            .as_str()
            .unwrap()
            .contains("invalid_client")
    );
}

#[tokio::test]
async fn a_provider_is_believed_about_itself_alone_and_over_tls() {
    for (name, value, told) in [
        (
            "issuer",
            json!("https://other.example.org"),
            "another issuer's",
        ),
        ("issuer", json!(["x"]), "not that of an issuer"),
        (
            "token_endpoint",
            json!("http://id.example.org/token"),
            "`token_endpoint` is no https URL",
        ),
        ("token_endpoint", Value::Null, "not that of an issuer"),
        (
            "authorization_endpoint",
            json!("javascript:alert(1)"),
            "`authorization_endpoint` is no https URL",
        ),
        (
            "authorization_endpoint",
            json!(""),
            "`authorization_endpoint` is no https URL",
        ),
    ] {
        let provider = Provider::start(None);
        provider.is(Mood::Configuration(name, value.clone()));
        for answer in [
            provider.describes().await,
            provider.takes(&Tab::new(&provider, "a").callback()).await,
        ] {
            assert_eq!(code(&answer), (502, "provider-failed"), "{name}={value}");
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(detail.contains(told), "{name}={value}: {detail}");
        }
        assert_eq!(provider.asked("/token"), 0);
        // What was refused is not remembered.
        provider.is(Mood::Good);
        assert_eq!(provider.describes().await.status, 200, "{name}");
    }
}

#[tokio::test]
async fn a_token_endpoint_in_a_private_network_is_not_asked() {
    let provider = Provider::start(None);
    let private = json!("https://10.0.0.1/token");
    provider.is(Mood::Configuration("token_endpoint", private));
    let answer = provider.takes(&Tab::new(&provider, "a").callback()).await;
    assert_eq!(code(&answer), (502, "provider-failed"));
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("a private address is not allowed"),
        "{detail}"
    );
}

#[tokio::test]
async fn what_a_provider_answers_is_bounded_and_not_repeated() {
    let json = |status: u16, body: &str| Answer::status(status).body(body);
    let huge = format!("{{\"id_token\":\"{}\"}}", "a".repeat(100_000));
    let elsewhere = Answer::status(302).header("location", "/elsewhere");
    for (answer, wanted) in [
        (json(200, &huge), "too large"),
        (json(200, "<html>canary</html>"), "no ID token"),
        (json(200, "{\"id_token\":\"canary\"}"), "no ID token"),
        (json(200, "{\"access_token\":\"canary\"}"), "no ID token"),
        (elsewhere, "answered 302"),
        (json(500, "canary"), "answered 500"),
        (json(400, "{\"error\":\"canary\"}"), "answered 400"),
        (
            json(
                401,
                "{\"error\":\"invalid_client\",\"error_description\":\"canary\"}",
            ),
            "`invalid_client`",
        ),
        (Answer::silence(Duration::ZERO), "the connection broke"),
    ] {
        let provider = Provider::start(None);
        provider.is(Mood::Answers(answer));
        let tab = Tab::new(&provider, "a");
        let answer = provider.takes(&tab.callback()).await;
        assert_eq!(code(&answer), (502, "provider-failed"), "{wanted}");
        let text = answer.body.to_string();
        assert!(text.contains(wanted), "{wanted}: {text}");
        for secret in ["canary", &tab.code, &tab.verifier, &tab.nonce] {
            assert!(!text.contains(secret), "{text}");
        }
        assert_eq!(provider.asked("/elsewhere"), 0);
    }
}

#[tokio::test]
async fn a_provider_that_hangs_is_not_waited_for_longer_than_the_gateway_waits() {
    let provider = Provider::start(None);
    provider.is(Mood::Answers(Answer::silence(Duration::from_mins(1))));
    let began = Instant::now();
    let answer = provider.takes(&Tab::new(&provider, "a").callback()).await;
    assert_eq!(code(&answer), (502, "provider-failed"));
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    // Each of its answers may be as slow as that.
    provider.within.set(Duration::from_millis(100));
    let answer = provider.takes(&Tab::new(&provider, "b").callback()).await;
    assert_eq!(code(&answer), (502, "provider-failed"));
    let said = answer.body["detail"].as_str().unwrap();
    assert!(said.ends_with("in time"), "{said}");
}

#[tokio::test]
async fn the_configuration_is_fetched_every_five_minutes_and_not_with_each_sign_in() {
    let provider = Provider::start(None);
    for name in ["a", "b", "c"] {
        let answer = provider.takes(&Tab::new(&provider, name).callback()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let configuration = "/.well-known/openid-configuration";
    assert_eq!(provider.asked(configuration), 1);
    provider
        .now
        .set(provider.now.get().plus(Duration::from_mins(5)));
    provider.describes().await;
    assert_eq!(provider.asked(configuration), 2);
}

// --- what providers put into ID tokens ----------------------------------------------------------------

/// An organization that has the provider as an issuer, with rules for groups.
async fn organization(provider: &Provider, rules: Value) -> Memory {
    let memory = Memory::default();
    let body =
        json!({ "name": "people", "issuer": provider.issuer, "audience": CLIENT, "rules": rules });
    let created = ask(&memory, Role::Admin, "POST /v1/issuers", &[], body).await;
    assert_eq!(created.status, 201, "{}", created.body);
    let records = memory.receive(fetch::QUEUE, 10);
    let until = memory.now().plus(Duration::from_mins(2));
    let back = {
        let role = As::function(&memory, "fetch-materials");
        fetch::batch(&role, &crate::world::http(), records, until).await
    };
    assert!(back.is_empty(), "{back:?}");
    memory
}

async fn exchanged(memory: &Memory, jwt: &Value) -> Response {
    let body = json!({ "jwt": jwt, "organization": *ORGANIZATION });
    let mut asked = request(Role::Viewer, "POST /v1/tokens/exchange", &[], &[], &body);
    asked.caller = None;
    answer(memory, &asked).await
}

#[tokio::test]
async fn a_person_whose_group_has_a_rule_gets_its_role_and_another_gets_none() {
    let provider = Provider::start(None);
    let rules = json!([
        { "claims": { "groups": { "exact": "on-call" } }, "role": "operator" },
        { "claims": { "groups": { "exact": "everybody" } }, "role": "viewer", "workflows": ["shop/*"] },
    ]);
    let memory = organization(&provider, rules).await;
    for (name, groups, status, told) in [
        ("operator", json!(["everybody", "on-call"]), 201, "operator"),
        ("viewer", json!(["everybody"]), 201, "viewer"),
        ("one", json!("everybody"), 201, "viewer"),
        ("stranger", json!(["others"]), 403, "no-rule-matches"),
        ("nobody", json!([]), 403, "no-rule-matches"),
        ("nested", json!([["on-call"]]), 403, "no-rule-matches"),
    ] {
        *provider.claims.lock().unwrap() = json!({ "groups": groups });
        let signed_in = provider.takes(&Tab::new(&provider, name).callback()).await;
        let answer = exchanged(&memory, &signed_in.body["jwt"]).await;
        let own = answer.body["role"]
            .as_str()
            .or(answer.body["code"].as_str());
        assert_eq!(
            (answer.status, own),
            (status, Some(told)),
            "{name}: {}",
            answer.body
        );
        if status == 201 {
            let until = memory.now().plus(Duration::from_hours(1)).to_string();
            assert_eq!(answer.body["expires_at"], json!(until));
        }
        let again = exchanged(&memory, &signed_in.body["jwt"]).await;
        assert_eq!(
            again.status,
            if status == 201 { 409 } else { 403 },
            "{name}"
        );
    }
    let told = pipeline::records::audit_log::entries(scope(&memory), memory.now(), None, 10);
    let told = told.await.unwrap().0;
    assert!(
        told.iter()
            .any(|entry| entry.detail.ends_with(", for 00u1")),
        "{told:?}"
    );
}

/// A provider may sign for jobs as well, for any audience that the job names, with the groups of whoever runs it.
#[tokio::test]
async fn a_job_gets_no_rule_for_an_operator() {
    let provider = Provider::start(None);
    let rules = json!([
        { "claims": { "groups": { "exact": "on-call" } }, "role": "operator" },
        { "claims": { "sub": { "exact": "job" } }, "role": "viewer", "workflows": ["shop/*"] },
    ]);
    let memory = organization(&provider, rules).await;
    let now = memory.now().secs();
    for (name, nonce, subject, status, told) in [
        ("a person", Some("n"), "person", 201, "operator"),
        ("a job", None, "job", 201, "viewer"),
        ("another job", None, "other", 403, "no-rule-matches"),
    ] {
        let mut claims = json!({
            "iss": provider.issuer, "aud": CLIENT, "sub": subject, "jti": name, "iat": now, "exp": now + 60,
            "groups": ["on-call"],
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        let answer = exchanged(&memory, &provider.key.sign(&claims).into()).await;
        let body = &answer.body;
        let own = body["role"].as_str().or(body["code"].as_str());
        assert_eq!((answer.status, own), (status, Some(told)), "{name}");
    }
}

/// Claims as the providers' own documents show them, with names and keys of nobody.
#[tokio::test]
async fn id_tokens_of_usual_providers_are_exchanged() {
    let group = |name: &str| json!({ "groups": { "exact": name } });
    let now = Memory::default().now().secs();
    for (name, claims, rule) in [
        (
            "Okta",
            json!({
                "ver": 1, "jti": "ID.4eAWJOCMB3SX8XewDfVR", "amr": ["pwd", "mfa"], "idp": "00o1",
                "auth_time": now - 40_000, "at_hash": "cpqKfdQA5eH891Ff5oJr_Q", "groups": ["Everyone", "On call"],
            }),
            group("On call"),
        ),
        (
            // No `jti`, and issued five minutes before it was asked for.
            "Entra",
            json!({
                "iat": now - 300, "nbf": now - 300, "exp": now + 3600, "ver": "2.0", "aio": "AXQAi", "uti": "fqiBq",
                "tid": "6f0c1f0e-0000-4000-8000-000000000002", "oid": "6f0c1f0e-0000-4000-8000-000000000003",
                "groups": ["6f0c1f0e-0000-4000-8000-000000000004", "6f0c1f0e-0000-4000-8000-000000000005"],
            }),
            group("6f0c1f0e-0000-4000-8000-000000000005"),
        ),
        (
            // No `jti` and no groups.
            "Google",
            json!({
                "azp": CLIENT, "hd": "example.org", "email": "dev@example.org", "email_verified": true,
                "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q", "groups": null,
            }),
            json!({ "hd": { "exact": "example.org" }, "email_verified": { "exact": "true" } }),
        ),
        (
            "Keycloak",
            json!({
                "jti": "6f0c1f0e-0000-4000-8000-000000000006", "typ": "ID", "azp": CLIENT, "acr": "1",
                "auth_time": now - 5, "sid": "6f0c1f0e-0000-4000-8000-000000000007", "aud": [CLIENT, "account"],
                "realm_access": { "roles": ["offline_access"] }, "groups": ["/platform/on-call"],
            }),
            json!({ "groups": { "glob": "/platform/*" } }),
        ),
        (
            "Dex",
            json!({
                "sub": "CgcyMzQyNzQ5EgZnaXRodWI", "at_hash": "zw0lJ", "c_hash": "Kj8Bx", "email_verified": true,
                "groups": ["acme:on-call"], "name": "Dev",
            }),
            group("acme:on-call"),
        ),
    ] {
        let provider = Provider::start(None);
        *provider.claims.lock().unwrap() = claims;
        let rules = json!([{ "claims": rule, "role": "viewer" }]);
        let memory = organization(&provider, rules).await;
        let signed_in = provider.takes(&Tab::new(&provider, name).callback()).await;
        let answer = exchanged(&memory, &signed_in.body["jwt"]).await;
        assert_eq!(answer.status, 201, "{name}: {}", answer.body);
    }
}
