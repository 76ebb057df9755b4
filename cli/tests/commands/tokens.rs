//! Tokens: made, listed, revoked, and kept by `auth login`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::{Api, Asked, Ran, run_with};

fn token(name: &str, more: &Value) -> Value {
    let mut token = json!({
        "id": format!("id-of-{name}"), "name": name, "role": "producer", "created_by": "admin",
        "created_at": "2026-01-02T03:04:05.678Z", "expires_at": null, "expired": false,
    });
    let all = token.as_object_mut().unwrap();
    all.extend(more.as_object().unwrap().clone());
    token
}

/// Knows the bearers of `cli_test` and `cli_typed`.
fn api() -> Api {
    Api::start(|_, asked| {
        let Asked { line, headers, .. } = asked;
        let bearer = headers.iter().find(|(name, _)| name == "authorization");
        let bearer = bearer.map(|(_, value)| value.as_str());
        if !matches!(bearer, Some("Bearer cli_test" | "Bearer cli_typed")) {
            return (403, r#"{"message":"Forbidden"}"#.into());
        }
        let past = json!({
            "expires_at": "2026-01-03T00:00:00.000Z", "expired": true,
            "overlap_until": "2026-01-02T12:00:00.000Z", "last_used_at": "2026-01-02T23:04:05.678Z", "last_used_from": "192.0.2.7",
        });
        let answer = match line.split('?').next().unwrap() {
            "GET /v1/organization" => json!({
                "organization": "acme", "id": "id-of-admin", "name": "admin", "role": "admin",
                "expires_at": "2126-01-01T00:00:00.000Z",
            }),
            "POST /v1/tokens" => token("ci", &json!({ "text": "cli_new" })),
            "GET /v1/tokens" => {
                json!({ "items": [token("ci", &json!({})), token("old", &past)], "next": null })
            }
            "POST /v1/tokens/ci/rotate" => {
                let is_over = asked.json()["overlap_secs"] == 0;
                let until = (!is_over).then_some("2026-01-05T00:00:00.000Z");
                let more = json!({
                    "text": "cli_new", "overlap_until": until, "expires_at": "2126-01-03T00:00:00.000Z",
                });
                token("ci", &more)
            }
            "DELETE /v1/tokens/ci" => token("ci", &json!({})),
            _ => {
                let problem = json!({
                    "status": 404, "code": "not-found", "title": "There is no such thing",
                    "detail": "there is no token \"x\"", "request_id": "req-1",
                });
                return (404, problem.to_string());
            }
        };
        (200, answer.to_string())
    })
}

#[test]
fn a_new_tokens_text_is_printed_alone() {
    let api = api();
    let line = [
        "organization",
        "api-token",
        "create",
        "--name",
        "ci",
        "--role",
        "producer",
    ];
    let ran = api.run(&[&line[..], &["--expires", "90d"]].concat());
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "cli_new\n"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("shown only once"), "{}", ran.stderr);
    assert_eq!(
        api.asked()[0].json(),
        json!({ "name": "ci", "role": "producer", "expires_in_secs": 7_776_000 })
    );
    let ran = api.run(&[&line[..], &["-o", "json"]].concat());
    assert_eq!(
        (&ran.json()["token"], &ran.json()["createdBy"]),
        (&json!("cli_new"), &json!("admin"))
    );
    assert_eq!(
        api.asked()[1].json(),
        json!({ "name": "ci", "role": "producer", "expires_in_secs": 7_776_000 })
    );
    let restricted = ["--workflow", "shop/*", "--workflow", "other/nightly"];
    let never = ["--expires", "never"];
    let ran = api.run(&[&line[..], &restricted, &never].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("which does not expire"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        api.asked()[2].json(),
        json!({ "name": "ci", "role": "producer", "expires_in_secs": null, "workflows": ["shop/*", "other/nightly"] })
    );
}

#[test]
fn a_rotation_prints_the_new_text_alone_and_says_until_when_the_old_one_works() {
    let api = api();
    let rotate = ["organization", "api-token", "rotate", "ci"];
    for (overlap, secs, old) in [
        (&[][..], 86_400, "works until 2026-01-05 00:00:00 UTC"),
        (&["--overlap", "0s"], 0, "has ended"),
    ] {
        let old = format!("the old text {old}");
        let ran = api.run(&[&rotate[..], overlap].concat());
        assert_eq!(ran.stdout, "cli_new\n", "{}", ran.stderr);
        for told in [
            &old,
            "valid until 2126-01-03 00:00:00 UTC",
            "shown only once",
        ] {
            assert!(ran.stderr.contains(told), "{told}: {}", ran.stderr);
        }
        let asked = api.asked();
        let asked = asked.last().unwrap();
        assert_eq!(asked.line, "POST /v1/tokens/ci/rotate");
        assert_eq!(asked.json(), json!({ "overlap_secs": secs }));
    }
    let ran = api.run(&[&rotate[..], &["-o", "json"]].concat());
    let (text, until) = (&ran.json()["token"], &ran.json()["overlapUntil"]);
    assert_eq!(
        (text, until),
        (&json!("cli_new"), &json!("2026-01-05T00:00:00.000Z"))
    );
}

#[test]
fn what_cannot_be_a_token_is_refused_before_it_is_asked_for() {
    let api = api();
    for (line, text) in [
        (
            &["--name", "Ci", "--role", "viewer"][..],
            "lower-case letters, digits and hyphens",
        ),
        (
            &["--name", "ci", "--role", "root"],
            "[possible values: admin, operator, viewer, producer]",
        ),
        (
            &["--name", "ci", "--role", "viewer", "--expires", "5s"],
            "between one minute and ten years",
        ),
        (
            &["--name", "ci", "--role", "viewer", "--expires", "soon"],
            "as 12h, 90d or 1y, or never",
        ),
        (&["--name", "ci"], "--role"),
    ] {
        let ran = api.run(&[&["org", "api-token", "create"], line].concat());
        assert_eq!(ran.code, 2, "{line:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(text), "{line:?}: {}", ran.stderr);
    }
    assert!(api.lines().is_empty());
}

#[test]
fn tokens_are_listed_with_their_end_and_revoked_when_that_is_sure() {
    let api = api();
    let ran = api.run(&["organization", "api-token", "list"]);
    assert!(ran.stdout.contains("│ never"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("2026-01-03 00:00:00 UTC"),
        "{}",
        ran.stdout
    );
    for told in [
        "│ LAST USED",
        "2026-01-02 23:04:05 UTC",
        "from 192.0.2.7",
        "old text 2026-01-02 12:00:00 UTC",
    ] {
        assert!(ran.stdout.contains(told), "{told}: {}", ran.stdout);
    }
    let ran = api.run(&["organization", "api-token", "list", "-o", "json"]);
    let [unused, used] = [&ran.json()[0], &ran.json()[1]];
    assert_eq!(unused["lastUsedAt"], json!(null));
    assert_eq!(used["lastUsedFrom"], "192.0.2.7");
    let ran = api.run(&["organization", "api-token", "revoke", "ci"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("whether to revoke it"),
        "{}",
        ran.stderr
    );
    let ran = api.run(&["organization", "api-token", "revoke", "ci", "-y"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    assert!(
        ran.stderr.contains("token \"ci\" revoked"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        api.lines(),
        [
            "GET /v1/tokens?limit=100",
            "GET /v1/tokens?limit=100",
            "DELETE /v1/tokens/ci"
        ]
    );
    let ran = api.run(&["organization", "api-token", "revoke", "x", "-y"]);
    assert_eq!(ran.code, 1);
}

/// A configuration directory of a test's own.
pub(crate) struct Home(PathBuf);

impl Home {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("chainloop-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("chainloop-integrations/profiles.json")
    }

    pub(crate) fn run(&self, words: &[&str], variables: &[(&str, &str)], stdin: &str) -> Ran {
        let own = [("XDG_CONFIG_HOME", self.0.to_str().unwrap())];
        run_with(words, &[&own[..], variables].concat(), stdin)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(unix)]
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_login_is_tried_kept_for_its_owner_alone_and_used() {
    let (api, home) = (api(), Home::new("login"));
    let ran = home.run(&["auth", "login", "--url", &api.url], &[], "cli_typed\n");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("│ ORGANIZATION │ acme"),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("cli_typed") && !ran.stderr.contains("cli_typed"));
    assert_eq!(mode(&home.file()), 0o600);

    let ran = home.run(&["auth", "status", "-o", "json"], &[], "");
    assert_eq!(
        (&ran.json()["role"], &ran.json()["url"]),
        (&json!("admin"), &json!(api.url))
    );
    assert_eq!(ran.json()["from"], "profile default");
    // Variables win, both of them: the token alone could be of another installation.
    let wrong = [
        ("CHAINLOOP_URL", &*api.url),
        ("CHAINLOOP_TOKEN", "cli_wrong"),
    ];
    let ran = home.run(&["auth", "status"], &wrong, "");
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("the token of CHAINLOOP_TOKEN"),
        "{}",
        ran.stderr
    );
    // A file that others can read causes a warning.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(home.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let ran = home.run(&["auth", "status"], &[], "");
        assert!(ran.stderr.contains("chmod 600"), "{}", ran.stderr);
    }
    let ran = home.run(&["auth", "logout"], &[], "");
    assert_eq!(ran.code, 0);
    let kept = std::fs::read_to_string(home.file()).unwrap();
    assert!(!kept.contains("cli_typed"), "{kept}");
    let ran = home.run(&["auth", "status"], &[], "");
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("chainloop auth login"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_token_that_is_not_accepted_is_not_kept() {
    let (api, home) = (api(), Home::new("refused"));
    let ran = home.run(&["auth", "login", "--url", &api.url], &[], "cli_other\n");
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(!home.file().exists());
    let ran = home.run(&["auth", "login"], &[("CHAINLOOP_TOKEN", "cli_typed")], "");
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("Pass --url"), "{}", ran.stderr);
}

#[test]
fn a_kept_token_goes_to_no_other_api() {
    let (own, other, home) = (api(), api(), Home::new("other"));
    let ran = home.run(&["auth", "login", "--url", &own.url], &[], "cli_typed\n");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = home.run(&["auth", "status", "--url", &other.url], &[], "");
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr
            .contains("The token of profile \"default\" goes to http://127.0.0.1"),
        "{}",
        ran.stderr
    );
    assert!(other.lines().is_empty());
}

fn too_many(code: &str, retry_after_secs: &Value) -> (u16, String) {
    let problem = json!({
        "status": 429, "code": code, "title": "Too many", "detail": "it is used up",
        "retry_after_secs": retry_after_secs, "request_id": "req-1",
    });
    (429, problem.to_string())
}

#[test]
fn a_request_that_comes_too_often_is_sent_again_when_the_api_says() {
    let asked = AtomicUsize::new(0);
    let api = Api::start(move |_, _| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => too_many("too-many-checks", &json!(1)),
        _ => (200, token("ci", &json!({ "text": "cli_new" })).to_string()),
    });
    let begun = Instant::now();
    // Making a token is never repeated otherwise: nothing says that it is the same one.
    let line = "organization api-token create --name ci --role producer";
    let ran = api.run(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "cli_new\n"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("retrying in 1 s"), "{}", ran.stderr);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(api.lines().len(), 2);
}

#[test]
fn a_quota_that_is_used_up_is_told_at_once() {
    for retry_after_secs in [json!(null), json!(40_000)] {
        let api = Api::start(move |_, _| too_many("quota-exceeded", &retry_after_secs));
        let ran = api.run(&["organization", "api-token", "list"]);
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains("it is used up"), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("chainloop organization quota"),
            "{}",
            ran.stderr
        );
        assert_eq!(api.lines().len(), 1, "asking again is of no use");
    }
}

#[test]
fn quotas_are_shown_with_their_use() {
    let api = Api::start(|_, _| {
        let quota = |name: &str, used: u64, limit: u64| json!({ "name": name, "used": used, "limit": limit, "resets_at": null });
        let mut bytes = quota("bytes", 1 << 30, 100 << 30);
        bytes["resets_at"] = json!("2026-01-03T00:00:00.000Z");
        let answer =
            json!({ "quotas": [bytes, quota("tokens", 3, 1_000)], "checks_per_minute": 30 });
        (200, answer.to_string())
    });
    let ran = api.run(&["organization", "quota"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for told in [
        "bytes",
        "1.00 GiB",
        "100.00 GiB",
        "2026-01-03 00:00:00 UTC",
        "tokens",
        "1000",
    ] {
        assert!(ran.stdout.contains(told), "{told}: {}", ran.stdout);
    }
    assert!(
        ran.stderr
            .contains("30 checks with third parties per minute"),
        "{}",
        ran.stderr
    );
    let ran = api.run(&["organization", "quota", "-o", "json"]);
    assert_eq!(
        ran.json(),
        json!({
            "quotas": [
                { "name": "bytes", "used": 1_u64 << 30, "limit": 100_u64 << 30, "resetsAt": "2026-01-03T00:00:00.000Z" },
                { "name": "tokens", "used": 3, "limit": 1_000, "resetsAt": null },
            ],
            "checksPerMinute": 30,
        })
    );
    assert_eq!(api.lines(), ["GET /v1/quotas", "GET /v1/quotas"]);
}
