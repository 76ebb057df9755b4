//! Exchanges over memory: JWTs of an issuer on loopback, and tokens, for tokens that live an hour.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{OrganizationName, Role};
use aws::event::{AuthorizerEvent, authorize};
use memory::Memory;
use pipeline::Platform;
use pipeline::config::keys;
use pipeline::engine::fetch;
use pipeline::http::Response;
use pipeline::records::audit_log;
use pipeline::store::platform::Scope;
use receiver::{Answer, Server};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::asking::{answer, ask, request};

use crate::roles::As;
use crate::world::{ORGANIZATION, http, scope};

const AUDIENCE: &str = "https://api.example.org";
const EXCHANGE: &str = "POST /v1/tokens/exchange";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes)
}

/// A key of an issuer, and the key set that has it.
pub struct Key {
    pair: EcdsaKeyPair,
    kid: &'static str,
}

impl Key {
    pub fn new(kid: &'static str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        Self { pair, kid }
    }

    pub fn set(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig", "alg": "ES256",
            "x": encode(&point[1..33]), "y": encode(&point[33..]),
        }] })
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({ "alg": "ES256", "kid": self.kid }), claims)
    }

    fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        format!("{signed}.{}", encode(signature.unwrap()))
    }
}

/// An issuer on loopback: answers with what stands at a path.
pub struct Issuer {
    pub url: String,
    documents: Arc<Mutex<BTreeMap<String, Value>>>,
    server: Server,
}

impl Issuer {
    pub fn start(keys: &Value) -> Self {
        let documents = Arc::<Mutex<BTreeMap<String, Value>>>::default();
        let own = Arc::clone(&documents);
        let server = Server::start(move |_, asked| match own.lock().unwrap().get(&asked.path) {
            Some(found) => Answer::status(200).body(found.to_string()),
            None => Answer::status(404),
        });
        let url = server.origin();
        let issuer = Self {
            url: url.clone(),
            documents,
            server,
        };
        let configuration = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
        issuer.puts("/.well-known/openid-configuration", configuration);
        issuer.puts("/keys", keys.clone());
        issuer
    }

    fn puts(&self, path: &str, document: Value) {
        self.documents
            .lock()
            .unwrap()
            .insert(path.to_owned(), document);
    }

    fn asked(&self) -> usize {
        self.server.received().len()
    }
}

/// An organization that trusts an issuer's jobs of one repository.
struct World {
    memory: Memory,
    issuer: Issuer,
    key: Key,
}

impl World {
    async fn new() -> Self {
        let key = Key::new("a");
        let issuer = Issuer::start(&key.set());
        let world = Self {
            memory: Memory::default(),
            issuer,
            key,
        };
        let created = world.trust("github", &world.issuer.url).await;
        assert_eq!(created.status, 201, "{}", created.body);
        world
    }

    async fn trust(&self, name: &str, url: &str) -> Response {
        let body = json!({
            "name": name, "issuer": url, "audience": AUDIENCE,
            "rules": [
                {
                    "claims": { "repository_id": { "exact": "74" }, "ref": { "exact": "refs/heads/main" } },
                    "role": "producer", "workflows": ["shop/*"],
                },
                { "claims": { "repository_id": { "exact": "74" } }, "role": "viewer" },
            ],
        });
        ask(&self.memory, Role::Admin, "POST /v1/issuers", &[], body).await
    }

    /// Answers with the list of tokens.
    async fn listed(&self) -> Response {
        let route = "GET /v1/tokens";
        ask(&self.memory, Role::Viewer, route, &[], json!({})).await
    }

    /// Has everything in its queue fetched. Answers with the number of messages.
    async fn fetch(&self) -> usize {
        let records = self.memory.receive(fetch::QUEUE, 10);
        let many = records.len();
        let until = self.memory.now().plus(Duration::from_mins(2));
        let role = As::function(&self.memory, "fetch-materials");
        let back = fetch::batch(&role, &http(), records, until).await;
        assert!(back.is_empty(), "{back:?}");
        many
    }

    fn claims(&self, jti: &str) -> Value {
        let now = self.memory.now().secs();
        json!({
            "iss": self.issuer.url, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 300,
            "jti": jti, "sub": "repo:acme/shop:ref:refs/heads/main",
            "repository_id": "74", "ref": "refs/heads/main",
        })
    }

    fn jwt(&self, jti: &str) -> String {
        self.key.sign(&self.claims(jti))
    }

    /// The JWT with another value of one claim.
    fn with(&self, jti: &str, name: &str, value: Value) -> String {
        let mut claims = self.claims(jti);
        claims[name] = value;
        self.key.sign(&claims)
    }

    async fn exchange(&self, body: Value) -> Response {
        let mut asked = request(Role::Viewer, EXCHANGE, &[], &[], &body);
        asked.caller = None;
        answer(&self.memory, &asked).await
    }

    async fn jwt_for(&self, jwt: &str) -> Response {
        let body = json!({ "jwt": jwt, "organization": *ORGANIZATION });
        self.exchange(body).await
    }

    /// The status and the code.
    async fn refused(&self, jwt: &str) -> (u16, String) {
        let answer = self.jwt_for(jwt).await;
        let code = answer.body["code"].as_str().unwrap_or_default();
        (answer.status, code.to_owned())
    }

    async fn authorized(&self, text: &str) -> Value {
        let event = json!({ "headers": { "authorization": format!("Bearer {text}") } });
        let event: AuthorizerEvent = serde_json::from_value(event).unwrap();
        let role = As::function(&self.memory, "authorizer");
        authorize(&role, &event).await.unwrap()
    }
}

fn text(answer: &Response) -> &str {
    answer.body["text"].as_str().unwrap()
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_jwt_that_fits_a_rule_is_exchanged_for_a_token_of_an_hour_and_once() {
    let world = World::new().await;
    assert_eq!(world.fetch().await, 1, "a new issuer's keys are asked for");
    let answer = world.jwt_for(&world.jwt("1")).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let until = world.memory.now().plus(Duration::from_hours(1)).to_string();
    for (field, wanted) in [
        ("role", json!("producer")),
        ("workflows", json!(["shop/*"])),
        ("name", json!("github")),
        ("expires_at", json!(until)),
    ] {
        assert_eq!(answer.body[field], wanted, "{field}");
    }
    let context = world.authorized(text(&answer)).await;
    assert_eq!(context["context"]["workflows"], r#"["shop/*"]"#);
    // No release that knows no restrictions knows this role.
    assert_eq!(context["context"]["role"], "restricted-producer");
    assert_eq!(
        world.refused(&world.jwt("1")).await,
        is(409, "already-exchanged")
    );
    // The second rule, for another branch.
    let other = world.with("2", "ref", json!("refs/heads/topic"));
    let answer = world.jwt_for(&other).await;
    assert_eq!(
        (&answer.body["role"], &answer.body["workflows"]),
        (&json!("viewer"), &json!([]))
    );
    let told = audit_log::entries(scope(&world.memory), world.memory.now(), None, 10);
    let told = told.await.unwrap().0;
    let entry = told.iter().find(|entry| {
        entry
            .detail
            .contains("producer, for workflows shop/*, until")
    });
    let entry = entry.unwrap_or_else(|| panic!("{told:?}"));
    assert_eq!(
        (entry.action.as_str(), entry.by.as_str()),
        ("token.exchange", "github")
    );
    assert!(
        entry
            .detail
            .ends_with(", for repo:acme/shop:ref:refs/heads/main"),
        "{entry:?}"
    );
    // No name is used up, and nothing stays in the list.
    let listed = world.listed().await;
    assert_eq!(listed.body["items"], json!([]));
    assert!(!world.memory.dump().contains(text(&answer)));
    world.memory.advance(Duration::from_hours(1));
    assert_eq!(world.authorized(text(&answer)).await["isAuthorized"], false);
}

#[tokio::test]
async fn each_reason_to_refuse_a_jwt_has_its_code() {
    let world = World::new().await;
    world.fetch().await;
    let now = world.memory.now().secs();
    for (name, value, status, code) in [
        ("repository_id", json!("75"), 403, "no-rule-matches"),
        (
            "repository_id",
            json!(["75", ["74"]]),
            403,
            "no-rule-matches",
        ),
        (
            "repository_id",
            json!({ "74": "74" }),
            403,
            "no-rule-matches",
        ),
        (
            "aud",
            json!("https://other.example.org"),
            401,
            "jwt-audience",
        ),
        (
            "iss",
            json!("https://other.example.org"),
            401,
            "issuer-unknown",
        ),
        (
            "iss",
            json!(format!("{}/", world.issuer.url)),
            401,
            "issuer-unknown",
        ),
        ("exp", json!(now), 401, "jwt-expired"),
        ("iat", json!(now - 1_000), 401, "jwt-too-old"),
        ("nbf", json!(now + 100), 401, "jwt-not-yet-valid"),
        ("exp", json!("soon"), 401, "jwt-malformed"),
    ] {
        let jwt = world.with(name, name, value.clone());
        assert_eq!(
            world.refused(&jwt).await,
            is(status, code),
            "{name}={value}"
        );
    }
    let claims = world.claims("x");
    let none = json!({ "alg": "none", "kid": "a" });
    let unsigned = format!(
        "{}.{}.",
        encode(none.to_string()),
        encode(claims.to_string())
    );
    assert_eq!(world.refused(&unsigned).await, is(401, "jwt-algorithm"));
    let stranger = Key::new("a");
    assert_eq!(
        world.refused(&stranger.sign(&claims)).await,
        is(401, "jwt-signature")
    );
    let brought = json!({ "alg": "ES256", "kid": "a", "jwk": stranger.set()["keys"][0], "jku": "https://evil.example.org" });
    let brought = stranger.sign_as(&brought, &claims);
    assert_eq!(world.refused(&brought).await, is(401, "jwt-signature"));
    let asked = world.issuer.asked();
    assert_eq!(world.refused("a.b.c").await, is(401, "jwt-malformed"));
    let long = format!("{}.x", "a".repeat(20_000));
    assert_eq!(world.refused(&long).await, is(401, "jwt-malformed"));
    let jwt = world.jwt("1");
    let elsewhere = json!({ "jwt": jwt, "organization": "other" });
    let answer = world.exchange(elsewhere).await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (401, &json!("issuer-unknown"))
    );
    for body in [
        json!({}),
        json!({ "jwt": jwt }),
        json!({ "jwt": jwt, "token": "cli_x", "organization": "acme" }),
        json!({ "token": "cli_x", "organization": "acme" }),
        json!({ "jwt": jwt, "organization": "acme", "expires_in_secs": 3_601 }),
    ] {
        let answer = world.exchange(body.clone()).await;
        assert_eq!(answer.status, 422, "{body}");
    }
    // None of these was exchanged, and nobody was asked for keys.
    assert_eq!(world.jwt_for(&jwt).await.status, 201);
    assert_eq!((world.fetch().await, world.issuer.asked()), (0, asked));
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_once_a_minute_and_refused_when_the_issuer_has_none() {
    let mut world = World::new().await;
    let jwt = world.jwt("1");
    let pending = world.jwt_for(&jwt).await;
    assert_eq!(
        (pending.status, pending.body["code"].as_str()),
        (503, Some("keys-pending"))
    );
    assert_eq!(pending.headers["retry-after"], "5");
    assert_eq!(
        world.fetch().await,
        1,
        "asked for when it was created, and not again"
    );
    assert_eq!(world.jwt_for(&jwt).await.status, 201);
    // The issuer has another key now.
    let old = std::mem::replace(&mut world.key, Key::new("b"));
    world.issuer.puts("/keys", world.key.set());
    world.memory.advance(keys::ASK_EVERY);
    let jwt = world.jwt("2");
    for _ in 0..3 {
        assert_eq!(world.refused(&jwt).await, is(503, "keys-pending"));
    }
    assert_eq!(
        world.fetch().await,
        1,
        "three asked, and one message was sent"
    );
    assert_eq!(world.jwt_for(&jwt).await.status, 201);
    let claims = world.claims("3");
    assert_eq!(
        world.refused(&old.sign(&claims)).await,
        is(401, "jwt-key-unknown")
    );
    assert_eq!(world.fetch().await, 0, "the answer is a minute old at most");
    // Whoever asks again later has it asked for again.
    world.memory.advance(keys::ASK_EVERY);
    let claims = world.claims("3");
    assert_eq!(
        world.refused(&old.sign(&claims)).await,
        is(503, "keys-pending")
    );
    assert_eq!(world.fetch().await, 1);
    assert_eq!(
        world.refused(&old.sign(&claims)).await,
        is(401, "jwt-key-unknown")
    );
}

#[tokio::test]
async fn keys_are_fetched_anew_each_day_and_not_used_when_that_fails_for_days() {
    let world = World::new().await;
    world.fetch().await;
    world.memory.advance(Duration::from_hours(25));
    assert_eq!(world.jwt_for(&world.jwt("1")).await.status, 201);
    world.issuer.puts("/keys", json!({ "keys": [] }));
    assert_eq!(world.fetch().await, 1);
    let named = [("issuer", "github")];
    let shown = ask(
        &world.memory,
        Role::Viewer,
        "GET /v1/issuers/{issuer}",
        &named,
        json!({}),
    )
    .await;
    assert_eq!(shown.body["keys"]["ids"], json!(["a"]), "those before stay");
    let fault = shown.body["keys"]["fault"].as_str().unwrap();
    assert!(fault.starts_with("failed to read the key set"), "{fault}");
    assert_eq!(world.jwt_for(&world.jwt("2")).await.status, 201);
    world.memory.advance(Duration::from_hours(3 * 24));
    assert_eq!(
        world.refused(&world.jwt("3")).await,
        is(503, "keys-pending")
    );
}

#[tokio::test]
async fn an_issuer_is_believed_about_itself_alone() {
    let world = World::new().await;
    let discovery = "/.well-known/openid-configuration";
    for (document, says) in [
        (
            json!({ "issuer": "https://other.example.org", "jwks_uri": "https://x.example.org" }),
            "another issuer's",
        ),
        (
            json!({ "issuer": world.issuer.url, "jwks_uri": "http://x.example.org/keys" }),
            "no https URL",
        ),
        (
            json!({ "issuer": world.issuer.url }),
            "`jwks_uri` is no https URL",
        ),
        (
            json!({ "jwks_uri": format!("{}/keys", world.issuer.url) }),
            "not that of an issuer",
        ),
        (
            json!({ "issuer": world.issuer.url, "jwks_uri": format!("{}/gone", world.issuer.url) }),
            "answered 404",
        ),
    ] {
        world.issuer.puts(discovery, document);
        world.memory.advance(keys::ASK_EVERY);
        assert_eq!(
            world.refused(&world.jwt("1")).await,
            is(503, "keys-pending")
        );
        world.fetch().await;
        let named = [("issuer", "github")];
        let shown = ask(
            &world.memory,
            Role::Viewer,
            "GET /v1/issuers/{issuer}",
            &named,
            json!({}),
        )
        .await;
        let fault = shown.body["keys"]["fault"].as_str().unwrap_or_default();
        assert!(fault.contains(says), "{says}: {fault}");
    }
}

#[tokio::test]
async fn a_token_is_exchanged_for_a_narrower_one_that_ends_with_it_and_is_not_exchanged() {
    let world = World::new().await;
    let create = async |name: &str, role: &str, workflows: Value| {
        let body =
            json!({ "name": name, "role": role, "workflows": workflows, "expires_in_secs": 1800 });
        let made = ask(&world.memory, Role::Admin, "POST /v1/tokens", &[], body).await;
        text(&made).to_owned()
    };
    let admin = create("root", "admin", json!([])).await;
    let shop = create("shop", "producer", json!(["shop/*"])).await;
    create("idle", "viewer", json!([])).await;
    let exchange = async |body: Value| {
        let answer = world.exchange(body).await;
        let code = answer.body["code"].as_str().unwrap_or_default().to_owned();
        (answer.status, code, answer)
    };
    for (body, status, code) in [
        (json!({ "token": admin }), 422, "invalid-inputs"),
        (
            json!({ "token": admin, "role": "admin" }),
            422,
            "invalid-inputs",
        ),
        (
            json!({ "token": admin, "role": "operator", "workflows": ["shop/*"] }),
            422,
            "invalid-inputs",
        ),
        (
            json!({ "token": shop, "role": "viewer" }),
            403,
            "not-narrower",
        ),
        (
            json!({ "token": shop, "workflows": ["other/*"] }),
            403,
            "not-narrower",
        ),
        (
            json!({ "token": shop, "workflows": ["*"] }),
            403,
            "not-narrower",
        ),
        (json!({ "token": "cli_nobodys" }), 401, "unauthorized"),
    ] {
        let (got, own, _) = exchange(body.clone()).await;
        assert_eq!((got, own.as_str()), (status, code), "{body}");
    }
    let (status, _, made) = exchange(json!({ "token": admin, "role": "operator" })).await;
    assert_eq!((status, &made.body["role"]), (201, &json!("operator")));
    assert!(text(&made).starts_with("cli_"));
    let wanted = json!({ "token": shop, "workflows": ["shop/nightly"] });
    let (status, _, made) = exchange(wanted.clone()).await;
    assert_eq!(
        (status, &made.body["workflows"]),
        (201, &json!(["shop/nightly"]))
    );
    let end = world.memory.now().plus(Duration::from_mins(30)).to_string();
    assert_eq!(
        made.body["expires_at"], end,
        "not longer than what it was exchanged for"
    );
    let (status, code, _) = exchange(json!({ "token": text(&made) })).await;
    assert_eq!((status, code.as_str()), (409, "already-exchanged"));
    assert_eq!(exchange(wanted).await.0, 201, "a token as often as wanted");
    let context = world.authorized(text(&made)).await;
    assert_eq!(context["isAuthorized"], true);
    // It is listed nowhere. Exchanging one is a use of the other.
    assert_eq!(context["context"]["use_due"], "");
    let listed = world.listed().await;
    let items = listed.body["items"].as_array().unwrap();
    let now = json!(world.memory.now());
    let used: Vec<&Value> = items.iter().map(|one| &one["last_used_at"]).collect();
    assert_eq!(used, [&json!(null), &now, &now], "{}", listed.body);
    let revoke = "DELETE /v1/tokens/{token}";
    ask(
        &world.memory,
        Role::Admin,
        revoke,
        &[("token", "shop")],
        json!({}),
    )
    .await;
    assert_eq!(world.authorized(text(&made)).await["isAuthorized"], false);
}

#[tokio::test]
async fn exchanges_of_a_token_are_paced_and_leave_those_of_jobs_alone() {
    let mut world = World::new().await;
    world.memory.meter.quotas.exchanges = 1;
    world.fetch().await;
    let body = json!({ "name": "reader", "role": "viewer" });
    let made = ask(&world.memory, Role::Admin, "POST /v1/tokens", &[], body).await;
    let token = text(&made).to_owned();
    for _ in 0..10 {
        assert_eq!(world.exchange(json!({ "token": token })).await.status, 201);
    }
    let paced = world.exchange(json!({ "token": token })).await;
    let code = (paced.status, &paced.body["code"]);
    assert_eq!(code, (429, &json!("too-many-checks")), "{}", paced.body);
    assert_eq!(world.jwt_for(&world.jwt("1")).await.status, 201);
}

#[tokio::test]
async fn a_name_that_no_organization_has_is_refused_before_anything_is_read() {
    let world = World::new().await;
    for name in ["x".repeat(3_000), "a/b".to_owned(), String::new()] {
        let body = json!({ "jwt": world.jwt("1"), "organization": name });
        let refused = world.exchange(body).await;
        let field = &refused.body["faults"][0]["field"];
        assert_eq!((refused.status, field), (422, &json!("organization")));
    }
}

#[tokio::test]
async fn exchanges_are_counted_each_day() {
    let mut world = World::new().await;
    world.memory.meter.quotas.exchanges = 2;
    world.fetch().await;
    for jti in ["1", "2"] {
        assert_eq!(world.jwt_for(&world.jwt(jti)).await.status, 201);
    }
    world.memory.advance(Duration::from_secs(11));
    let answer = world.jwt_for(&world.jwt("3")).await;
    assert_eq!(
        (answer.status, &answer.body["quota"]["name"]),
        (429, &json!("exchanges"))
    );
    let quotas = ask(
        &world.memory,
        Role::Viewer,
        "GET /v1/quotas",
        &[],
        json!({}),
    )
    .await;
    let quotas = quotas.body["quotas"].as_array().unwrap().clone();
    let own = quotas.iter().find(|quota| quota["name"] == "exchanges");
    assert_eq!(own.unwrap()["used"], 2);
}

#[tokio::test]
async fn a_jwt_is_exchanged_once_whichever_organizations_trust_its_issuer() {
    let world = World::new().await;
    world.fetch().await;
    let other: OrganizationName = "other".into();
    let mut asked = request(
        Role::Admin,
        "POST /v1/issuers",
        &[],
        &[],
        &json!({
            "name": "github", "issuer": world.issuer.url, "audience": AUDIENCE,
            "rules": [{ "claims": { "repository_id": { "exact": "74" } }, "role": "viewer" }],
        }),
    );
    asked.caller.as_mut().unwrap().organization = other.clone();
    assert_eq!(answer(&world.memory, &asked).await.status, 201);
    world.fetch().await;
    let jwt = world.jwt("1");
    let body = json!({ "jwt": jwt, "organization": other });
    assert_eq!(world.exchange(body).await.status, 201);
    assert_eq!(world.refused(&jwt).await, is(409, "already-exchanged"));
    let listed = audit_log::entries(
        Scope::new(&world.memory, &other),
        world.memory.now(),
        None,
        10,
    );
    assert_eq!(
        listed.await.unwrap().0.len(),
        2,
        "the issuer, and the exchange"
    );
}

#[tokio::test]
async fn an_issuer_is_one_of_its_name_and_its_url_and_is_gone_with_its_keys() {
    let world = World::new().await;
    world.fetch().await;
    let code = |answer: &Response| answer.body["code"].as_str().map(str::to_owned);
    let again = world.trust("github", "https://ci.example.org").await;
    assert_eq!(
        (again.status, code(&again).as_deref()),
        (409, Some("name-taken"))
    );
    let again = world.trust("other", &world.issuer.url).await;
    assert_eq!(
        (again.status, code(&again).as_deref()),
        (409, Some("issuer-exists"))
    );
    let named = [("issuer", "github")];
    let deleted = ask(
        &world.memory,
        Role::Admin,
        "DELETE /v1/issuers/{issuer}",
        &named,
        json!({}),
    )
    .await;
    assert_eq!(
        (deleted.status, &deleted.body["name"]),
        (200, &json!("github"))
    );
    assert!(!world.memory.dump().contains("\"kid\""));
    assert_eq!(
        world.refused(&world.jwt("1")).await,
        is(401, "issuer-unknown")
    );
    let gone = ask(
        &world.memory,
        Role::Admin,
        "DELETE /v1/issuers/{issuer}",
        &named,
        json!({}),
    )
    .await;
    assert_eq!(gone.status, 404);
}
