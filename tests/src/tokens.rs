//! Tokens over memory: made, found, used, revoked, and what is written down of it.

use std::time::Duration;

use api::{Actor, Role, Timestamp};
use aws::event::{AuthorizerEvent, GatewayEvent, authorize};
use memory::Memory;
use pipeline::Platform;
use pipeline::config::tokens::{self, By, CreatedToken, Error, NewToken};
use pipeline::http::Response;
use pipeline::records::audit_log::{self, Act};
use pipeline::store::platform::Scope;
use serde_json::{Value, json};

use crate::asking::{self, ask};
use crate::roles::As;
use crate::world::{ORGANIZATION, scope};

const DAY: Duration = Duration::from_hours(24);
/// Somebody called so, who does that.
fn by(name: &str, role: Role, action: &'static str) -> By<'static> {
    By {
        act: Act {
            actor: Box::leak(Box::new(Actor::named(name))),
            action,
        },
        role,
    }
}

fn admin(action: &'static str) -> By<'static> {
    by("root", Role::Admin, action)
}

fn wanted(name: &str, role: Role, valid_for: Option<Duration>) -> NewToken {
    NewToken {
        name: name.into(),
        role,
        workflows: Vec::new(),
        valid_for,
    }
}

async fn create(memory: &Memory, name: &str, role: Role) -> CreatedToken {
    let wanted = wanted(name, role, None);
    tokens::create(
        scope(&As::function(memory, "organization")),
        wanted,
        admin("token.create"),
    )
    .await
    .unwrap()
}

/// Returns the authorizer's response to the gateway for a token.
async fn authorized(memory: &Memory, text: &str) -> Value {
    let event = json!({ "headers": { "authorization": format!("Bearer {text}") } });
    let event: AuthorizerEvent = serde_json::from_value(event).unwrap();
    authorize(&As::function(memory, "authorizer"), &event)
        .await
        .unwrap()
}

async fn names(memory: &Memory) -> Vec<String> {
    let (tokens, next) = tokens::list(scope(memory), None, 100).await.unwrap();
    assert_eq!(next, None);
    tokens.into_iter().map(|token| token.name).collect()
}

async fn done(memory: &Memory) -> Vec<(String, String, String)> {
    let entries = audit_log::entries(scope(memory), memory.now(), None, 1_000);
    let entries = entries.await.unwrap().0.into_iter().rev();
    entries
        .map(|entry| (entry.by, entry.action, entry.subject))
        .collect()
}

#[tokio::test]
async fn a_token_is_whose_it_was_made_for_until_it_is_revoked() {
    let memory = Memory::default();
    let CreatedToken { text, token } = create(&memory, "ci", Role::Producer).await;
    let context = authorized(&memory, &text).await;
    assert_eq!(
        context,
        json!({ "isAuthorized": true, "context": {
            "organization": *ORGANIZATION, "role": "producer", "name": "ci",
            "token": token.id, "workflows": "", "valid_until": "", "use_due": "true",
        } })
    );
    assert_eq!(names(&memory).await, ["ci"]);
    memory.advance(Duration::from_millis(1));
    tokens::revoke(scope(&memory), "ci", admin("token.revoke"))
        .await
        .unwrap();
    assert_eq!(
        authorized(&memory, &text).await,
        json!({ "isAuthorized": false })
    );
    assert_eq!(names(&memory).await, Vec::<String>::new());
    let again = tokens::revoke(scope(&memory), "ci", admin("token.revoke")).await;
    assert!(matches!(again, Err(Error::NotFound(_))));
    let of = |action: &str| ("root".to_owned(), action.to_owned(), "ci".to_owned());
    assert_eq!(
        done(&memory).await,
        [of("token.create"), of("token.revoke")]
    );
}

#[tokio::test]
async fn a_token_is_restricted_to_workflows_wherever_it_is_shown_or_found() {
    let memory = Memory::default();
    let body = json!({
        "name": "shop", "role": "producer", "workflows": ["shop/*", "other/nightly", "shop/*"],
    });
    let made = answer(&memory, Role::Admin, "POST /v1/tokens", &[], body).await;
    let workflows = json!(["other/nightly", "shop/*"]);
    assert_eq!((made.status, &made.body["workflows"]), (201, &workflows));
    let text = made.body["text"].as_str().unwrap();
    // A release that knows no restrictions knows this prefix as nobody's.
    assert!(text.starts_with("clr_") && !text.starts_with(tokens::PREFIX));
    let context = authorized(&memory, text).await;
    assert_eq!(context["context"]["workflows"], workflows.to_string());
    // And this role as none: it fails where the authorizer is of this release already.
    assert_eq!(context["context"]["role"], "restricted-producer");
    let listed = answer(&memory, Role::Viewer, "GET /v1/tokens", &[], json!({})).await;
    assert_eq!(listed.body["items"][0]["workflows"], workflows);
    let entries = audit_log::entries(scope(&memory), memory.now(), None, 1_000);
    let told = entries.await.unwrap().0.remove(0).detail;
    let until = memory.now().plus(90 * DAY);
    let wanted = format!("producer, for workflows other/nightly, shop/*, until {until}");
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn only_a_producer_or_a_viewer_is_restricted_and_to_workflows_that_there_can_be() {
    let memory = Memory::default();
    let long = format!("shop/{}", "x".repeat(500));
    let many: Vec<String> = (0..17).map(|number| format!("shop/{number}")).collect();
    let large: Vec<String> = (0..5).map(|number| format!("{long}{number}")).collect();
    for (role, workflows) in [
        (Role::Admin, json!(["shop/*"])),
        (Role::Operator, json!(["shop/*"])),
        (Role::Producer, json!(["nightly"])),
        (Role::Producer, json!(["*/nightly"])),
        (Role::Viewer, json!([""])),
        (Role::Viewer, json!(many)),
        (Role::Viewer, json!(large)),
    ] {
        let body = json!({ "name": "ci", "role": role, "workflows": workflows });
        let refused = answer(&memory, Role::Admin, "POST /v1/tokens", &[], body).await;
        let field = refused.body["faults"][0]["field"].as_str();
        let is_about = field.is_some_and(|field| field.starts_with("workflows"));
        assert!(refused.status == 422 && is_about, "{}", refused.body);
    }
    assert_eq!(names(&memory).await, Vec::<String>::new());
}

#[test]
fn restrictions_that_cannot_be_read_let_nobody_in() {
    const RESTRICTED: &str = "restricted-producer";
    for (role, workflows, restricted) in [
        ("producer", json!(null), Some(vec![])),
        ("producer", json!(""), Some(vec![])),
        (RESTRICTED, json!("[\"shop/*\"]"), Some(vec!["shop/*"])),
        (RESTRICTED, json!("[]"), None),
        (RESTRICTED, json!("shop/*"), None),
        (RESTRICTED, json!("[1]"), None),
        (RESTRICTED, json!(""), None),
        (RESTRICTED, json!(null), None),
        ("producer", json!("[\"shop/*\"]"), None),
        ("nobody", json!(""), None),
    ] {
        let mut context = json!({ "organization": "acme", "role": role });
        if !workflows.is_null() {
            context["workflows"] = workflows;
        }
        let event = json!({
            "rawPath": "/v1/organization",
            "requestContext": { "authorizer": { "lambda": context } },
        });
        let event: GatewayEvent = serde_json::from_value(event).unwrap();
        let caller = event.request().caller;
        let found = caller.map(|caller| caller.workflows.into_iter().map(|one| one.0).collect());
        let wanted = restricted.map(|all| all.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(found, wanted, "{context}");
    }
}

#[tokio::test]
async fn the_table_has_no_tokens_text() {
    let memory = Memory::default();
    let made = create(&memory, "ci", Role::Viewer).await;
    assert!(!memory.dump().contains(&made.text));
    assert!(!format!("{made:?}").contains(&made.text));
    assert_eq!(made.text.len(), tokens::PREFIX.len() + 64);
}

#[tokio::test]
async fn a_token_with_an_end_is_nobodys_from_then_on_and_leaves_its_name() {
    let memory = Memory::default();
    let wanted = || wanted("ci", Role::Producer, Some(90 * DAY));
    let first = tokens::create(scope(&memory), wanted(), admin("token.create")).await;
    let first = first.unwrap();
    let until: Timestamp = memory.now().plus(90 * DAY);
    assert_eq!(first.token.valid_until, Some(until));
    let tick = Duration::from_millis(1);
    memory.advance((90 * DAY).checked_sub(tick).unwrap());
    let context = authorized(&memory, &first.text).await;
    assert_eq!(context["context"]["valid_until"], until.to_string());
    let taken = tokens::create(scope(&memory), wanted(), admin("token.create")).await;
    assert!(matches!(taken, Err(Error::NameTaken(_))));
    memory.advance(tick);
    assert_eq!(
        authorized(&memory, &first.text).await,
        json!({ "isAuthorized": false })
    );
    // It is still listed, so that somebody sees why the build fails; its successor may have its name.
    assert_eq!(names(&memory).await, ["ci"]);
    let second = tokens::create(scope(&memory), wanted(), admin("token.create")).await;
    let second = second.unwrap();
    assert_eq!(names(&memory).await, ["ci"]);
    assert_eq!(
        authorized(&memory, &second.text).await["isAuthorized"],
        true
    );
    assert_eq!(
        authorized(&memory, &first.text).await["isAuthorized"],
        false
    );
}

#[tokio::test]
async fn a_token_ends_after_90_days_unless_another_end_or_none_is_asked_for() {
    let memory = Memory::default();
    let end = |days: u32| json!(memory.now().plus(days * DAY));
    for (number, (expires, end)) in [
        (json!({}), end(90)),
        (json!({ "expires_in_secs": null }), json!(null)),
        (json!({ "expires_in_secs": 365 * 86_400 }), end(365)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = json!({ "name": format!("t-{number}"), "role": "viewer" });
        let all = body.as_object_mut().unwrap();
        all.extend(expires.as_object().unwrap().clone());
        let made = answer(&memory, Role::Admin, "POST /v1/tokens", &[], body).await;
        assert_eq!((made.status, &made.body["expires_at"]), (201, &end));
    }
}

#[tokio::test]
async fn a_name_belongs_to_one_live_token_and_a_revoked_one_gives_it_back() {
    let memory = Memory::default();
    let first = create(&memory, "ci", Role::Producer).await;
    let again = wanted("ci", Role::Admin, None);
    let taken = tokens::create(scope(&memory), again.clone(), admin("token.create")).await;
    assert!(matches!(taken, Err(Error::NameTaken(name)) if name == "ci"));
    // By its id as well as by its name.
    tokens::revoke(scope(&memory), &first.token.id, admin("token.revoke"))
        .await
        .unwrap();
    tokens::create(scope(&memory), again, admin("token.create"))
        .await
        .unwrap();
    let elsewhere = tokens::revoke(
        Scope::new(&memory, &"another".into()),
        "ci",
        admin("token.revoke"),
    )
    .await;
    assert!(matches!(elsewhere, Err(Error::NotFound(_))));
}

/// Answers a rotation of the token `ci`.
async fn rotate(memory: &Memory, body: Value) -> Response {
    let route = "POST /v1/tokens/{token}/rotate";
    answer(memory, Role::Admin, route, &[("token", "ci")], body).await
}

async fn is_let_in(memory: &Memory, text: &str) -> bool {
    authorized(memory, text).await["isAuthorized"] == true
}

fn text(answer: &Response) -> &str {
    answer.body["text"].as_str().unwrap()
}

#[tokio::test]
async fn both_texts_work_until_the_overlap_ends_and_are_one_token() {
    let memory = Memory::default();
    let body = json!({ "name": "ci", "role": "producer", "workflows": ["shop/*"] });
    let first = answer(&memory, Role::Admin, "POST /v1/tokens", &[], body).await;
    memory.advance(80 * DAY);
    let second = rotate(&memory, json!({ "overlap_secs": 3_600 })).await;
    assert_eq!(second.status, 201, "{}", second.body);
    for same in [
        "id",
        "name",
        "role",
        "workflows",
        "created_by",
        "created_at",
    ] {
        assert_eq!(second.body[same], first.body[same], "{same}");
    }
    let hour = memory.now().plus(Duration::from_hours(1));
    assert_eq!(second.body["overlap_until"], json!(hour));
    assert_eq!(
        second.body["expires_at"],
        json!(memory.now().plus(90 * DAY))
    );
    assert!(text(&second).starts_with("clr_") && text(&second) != text(&first));
    let [old, new] = [
        authorized(&memory, text(&first)).await,
        authorized(&memory, text(&second)).await,
    ];
    assert_eq!(old["context"]["valid_until"], json!(hour));
    for same in ["token", "name", "role", "workflows", "organization"] {
        assert_eq!(old["context"][same], new["context"][same], "{same}");
    }
    let listed = answer(&memory, Role::Viewer, "GET /v1/tokens", &[], json!({})).await;
    let items = listed.body["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{}", listed.body);
    assert_eq!(items[0]["overlap_until"], json!(hour));
    memory.advance(Duration::from_hours(1));
    assert!(!is_let_in(&memory, text(&first)).await);
    assert!(is_let_in(&memory, text(&second)).await);
    let listed = answer(&memory, Role::Viewer, "GET /v1/tokens", &[], json!({})).await;
    assert_eq!(listed.body["items"][0]["overlap_until"], json!(null));
    let entries = audit_log::entries(scope(&memory), memory.now(), None, 1_000);
    let entry = entries.await.unwrap().0.remove(0);
    let told = format!("the text before works until {hour}");
    assert_eq!(
        (entry.action.as_str(), entry.subject.as_str()),
        ("token.rotate", "ci")
    );
    assert!(entry.detail.ends_with(&told), "{}", entry.detail);
}

#[tokio::test]
async fn a_second_rotation_during_an_overlap_is_refused_unless_it_ends_every_older_text() {
    let memory = Memory::default();
    let first = create(&memory, "ci", Role::Producer).await.text;
    let second = rotate(&memory, json!({})).await;
    let refused = rotate(&memory, json!({ "overlap_secs": 60 })).await;
    let told = (refused.status, &refused.body["code"]);
    assert_eq!(told, (409, &json!("overlapping")));
    let refused = rotate(&memory, json!({ "overlap_secs": 2_592_001 })).await;
    assert_eq!(refused.body["faults"][0]["field"], "overlap_secs");
    for text in [first.as_str(), text(&second)] {
        assert!(is_let_in(&memory, text).await);
    }
    let third = rotate(&memory, json!({ "overlap_secs": 0 })).await;
    assert_eq!(third.body["overlap_until"], json!(null));
    for (text, works) in [
        (first.as_str(), false),
        (text(&second), false),
        (text(&third), true),
    ] {
        assert_eq!(is_let_in(&memory, text).await, works);
    }
    // What has no end gets none, and when the overlap is over, rotating goes on.
    assert_eq!(third.body["expires_at"], json!(null));
    let fourth = rotate(&memory, json!({})).await;
    memory.advance(DAY);
    let fifth = rotate(&memory, json!({})).await;
    assert_eq!((fourth.status, fifth.status), (201, 201), "{}", fifth.body);
}

#[tokio::test]
async fn a_revocation_ends_both_texts_and_what_was_exchanged_for_them() {
    let memory = Memory::default();
    let first = create(&memory, "ci", Role::Producer).await.text;
    let exchange = async |text: &str| {
        let body = json!({ "token": text });
        let route = "POST /v1/tokens/exchange";
        let exchanged = answer(&memory, Role::Admin, route, &[], body).await;
        text_of(&exchanged)
    };
    let job = exchange(&first).await;
    let second = text_of(&rotate(&memory, json!({})).await);
    let other_job = exchange(&second).await;
    let all = [&first, &job, &second, &other_job];
    for text in all {
        assert!(is_let_in(&memory, text).await);
    }
    tokens::revoke(scope(&memory), "ci", admin("token.revoke"))
        .await
        .unwrap();
    for text in all {
        assert!(!is_let_in(&memory, text).await);
    }
    assert_eq!(rotate(&memory, json!({})).await.status, 404);
}

fn text_of(answer: &Response) -> String {
    text(answer).to_owned()
}

#[tokio::test]
async fn a_rotation_gives_an_expired_token_its_lifetime_again_and_its_old_text_nothing() {
    let memory = Memory::default();
    let wanted = wanted("ci", Role::Producer, Some(30 * DAY));
    let first = tokens::create(scope(&memory), wanted, admin("token.create")).await;
    let first = first.unwrap().text;
    memory.advance(20 * DAY);
    // The old text does not outlive its own time.
    let second = rotate(&memory, json!({ "overlap_secs": 20 * 86_400 })).await;
    assert_eq!(
        second.body["overlap_until"],
        json!(memory.now().plus(10 * DAY))
    );
    memory.advance(31 * DAY);
    let third = rotate(&memory, json!({})).await;
    assert_eq!(third.body["expires_at"], json!(memory.now().plus(30 * DAY)));
    for (text, works) in [
        (first.as_str(), false),
        (text(&second), false),
        (text(&third), true),
    ] {
        assert_eq!(is_let_in(&memory, text).await, works);
    }
}

#[tokio::test]
async fn nobody_gives_away_a_role_above_their_own() {
    let memory = Memory::default();
    create(&memory, "root", Role::Admin).await;
    for (own, other) in [
        (Role::Operator, Role::Admin),
        (Role::Viewer, Role::Producer),
        (Role::Producer, Role::Viewer),
    ] {
        let by = by("me", own, "token.create");
        let wanted = wanted("more", other, None);
        let made = tokens::create(scope(&memory), wanted, by).await;
        assert!(matches!(made, Err(Error::Above { .. })), "{own} {other}");
    }
    let by = by("me", Role::Operator, "token.revoke");
    let revoked = tokens::revoke(scope(&memory), "root", by).await;
    assert!(matches!(revoked, Err(Error::Above { .. })));
    let rotated = tokens::rotate(scope(&memory), "root", None, by).await;
    assert!(matches!(rotated, Err(Error::Above { .. })));
    assert_eq!(names(&memory).await, ["root"]);
}

#[tokio::test]
async fn tokens_are_listed_by_pages_without_hash_or_text() {
    let memory = Memory::default();
    for number in 0..5 {
        create(&memory, &format!("t-{number}"), Role::Viewer).await;
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = tokens::list(scope(&memory), after.as_deref(), 2)
            .await
            .unwrap();
        found.extend(page.into_iter().map(|token| token.name));
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(found, ["t-0", "t-1", "t-2", "t-3", "t-4"]);
    let listed = answer(&memory, Role::Viewer, "GET /v1/tokens", &[], json!({})).await;
    assert!(!listed.body.to_string().contains("hash"), "{listed:?}");
}

async fn answer(
    memory: &Memory,
    role: Role,
    route: &str,
    path: &[(&str, &str)],
    body: Value,
) -> Response {
    ask(memory, role, route, path, body).await
}

#[tokio::test]
async fn only_admins_make_and_revoke_tokens_and_a_producer_sees_no_configuration() {
    let memory = Memory::default();
    let body = json!({ "name": "ci", "role": "producer" });
    let named = [("token", "ci")];
    for role in [Role::Operator, Role::Viewer, Role::Producer] {
        let made = answer(&memory, role, "POST /v1/tokens", &[], body.clone()).await;
        assert_eq!(made.status, 403, "{role}");
        let revoked = answer(
            &memory,
            role,
            "DELETE /v1/tokens/{token}",
            &named,
            json!({}),
        )
        .await;
        assert_eq!(revoked.status, 403, "{role}");
        let own = answer(&memory, role, "GET /v1/organization", &[], json!({})).await;
        assert_eq!((own.status, &own.body["role"]), (200, &json!(role)));
    }
    let made = answer(&memory, Role::Admin, "POST /v1/tokens", &[], body).await;
    assert_eq!(
        (made.status, &made.body["created_by"]),
        (201, &json!("tests"))
    );
    for (role, status) in [(Role::Viewer, 200), (Role::Producer, 403)] {
        let route = "GET /v1/registrations";
        let listed = ask(&memory, role, route, &[], json!({})).await;
        assert_eq!(listed.status, status, "{role}");
    }
}

/// Sends a request as the gateway does: with what the authorizer said of the token, or said before.
async fn sent(memory: &Memory, authorized: &Value, line: &str, address: &str) -> Response {
    let (method, path) = line.split_once(' ').unwrap();
    let event = json!({
        "rawPath": path,
        "requestContext": {
            "authorizer": { "lambda": authorized["context"] },
            "http": { "method": method, "sourceIp": address },
        },
    });
    let event: GatewayEvent = serde_json::from_value(event).unwrap();
    asking::answer(memory, &event.request()).await
}

/// When and from where a token was last used, as the list has it.
async fn last_use(memory: &Memory, name: &str) -> (Value, Value) {
    let listed = answer(memory, Role::Viewer, "GET /v1/tokens", &[], json!({})).await;
    let mut items = listed.body["items"].as_array().unwrap().iter();
    let token = items.find(|one| one["name"] == name).unwrap();
    (
        token["last_used_at"].clone(),
        token["last_used_from"].clone(),
    )
}

#[tokio::test]
async fn a_tokens_last_use_is_written_once_an_hour_and_never_fails_a_request() {
    let memory = Memory::default();
    let made = create(&memory, "ci", Role::Viewer).await;
    assert_eq!(last_use(&memory, "ci").await, (json!(null), json!(null)));
    let due = authorized(&memory, &made.text).await;
    let get = "GET /v1/registrations";
    let status = sent(&memory, &due, get, "192.0.2.7").await.status;
    let first = (json!(memory.now()), json!("192.0.2.7"));
    assert_eq!(
        (status, last_use(&memory, "ci").await),
        (200, first.clone())
    );
    // The gateway still has the answer from before.
    memory.advance(Duration::from_secs(30));
    sent(&memory, &due, get, "192.0.2.8").await;
    assert_eq!(last_use(&memory, "ci").await, first);
    let noted = authorized(&memory, &made.text).await;
    assert_eq!(noted["context"]["use_due"], "");
    memory.advance(Duration::from_hours(1));
    let due = authorized(&memory, &made.text).await;
    assert_eq!(due["context"]["use_due"], "true");
    memory.fail_writes_after.set(Some(0));
    let status = sent(&memory, &due, get, "192.0.2.8").await.status;
    memory.fail_writes_after.set(None);
    assert_eq!((status, last_use(&memory, "ci").await), (200, first));
    // Whoever tries what the token may not has it as well.
    let revoke = "DELETE /v1/tokens/ci";
    let status = sent(&memory, &due, revoke, "192.0.2.9").await.status;
    let second = (json!(memory.now()), json!("192.0.2.9"));
    assert_eq!((status, last_use(&memory, "ci").await), (403, second));
    memory.advance(181 * DAY);
    assert_eq!(last_use(&memory, "ci").await, (json!(null), json!(null)));
}

#[tokio::test]
async fn a_request_reads_and_writes_no_use_that_is_not_due() {
    let memory = Memory::default();
    let made = create(&memory, "ci", Role::Viewer).await;
    let due = authorized(&memory, &made.text).await;
    let cost = async |authorized: &Value| {
        let event = json!({
            "rawPath": "/v1/registrations",
            "requestContext": {
                "authorizer": { "lambda": authorized["context"] }, "http": { "method": "GET" },
            },
        });
        let event: GatewayEvent = serde_json::from_value(event).unwrap();
        let request = event.request();
        let (function, writes) = (asking::function(&memory, &request), memory.writes.get());
        assert_eq!(asking::answer_on(&function, &request).await.status, 200);
        (function.rows_read.get(), memory.writes.get() - writes)
    };
    let (reads, writes) = cost(&due).await;
    let noted = authorized(&memory, &made.text).await;
    assert_eq!(cost(&noted).await, (reads - 1, writes - 1));
    // A release before said nothing of it.
    let mut silent = due.clone();
    silent["context"].as_object_mut().unwrap().remove("use_due");
    memory.advance(Duration::from_hours(2));
    assert_eq!(cost(&silent).await, (reads - 1, writes - 1));
}
