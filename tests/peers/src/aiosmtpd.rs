//! aiosmtpd, a mail server by whose answers each of ours is tried: `mail_server.py` beside this crate.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::{Folder, Process, authority, free_port, tool};

pub struct Aiosmtpd {
    pub port: u16,
    folder: Folder,
    _process: Process,
}

/// Behavior of the server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// It takes nothing before STARTTLS, and its certificate is one of [`authority`]'s.
    pub starttls: bool,
    /// User and password, without which it takes no mail.
    pub login: Option<(&'a str, &'a str)>,
    /// Replies by address.
    pub refuse: &'a [(&'a str, &'a str)],
    /// Maximum size of a mail, in bytes.
    pub size: Option<usize>,
    /// It takes connections and says nothing.
    pub silent: bool,
}

impl Aiosmtpd {
    pub fn start(options: Options<'_>) -> Self {
        let (port, folder) = (free_port(), Folder::new("aiosmtpd"));
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("mail_server.py");
        let mut command = Command::new(tool("aiosmtpd/bin/python"));
        command.arg(script).args(["--port", &port.to_string()]);
        command.arg("--directory").arg(folder.path());
        if options.starttls {
            command.arg("--certificate").arg(authority::certificate());
            command.arg("--key").arg(authority::key());
        }
        if let Some((user, password)) = options.login {
            command.args(["--login", &format!("{user}:{password}")]);
        }
        for (address, reply) in options.refuse {
            command.args(["--refuse", &format!("{address}={reply}")]);
        }
        if let Some(size) = options.size {
            command.args(["--size", &size.to_string()]);
        }
        if options.silent {
            command.arg("--silent");
        }
        Self {
            _process: Process::start(&mut command, &[port]),
            port,
            folder,
        }
    }

    /// Returns the mails received, in order: `from`, `to`, `encrypted`, `authenticated` and `content` of each.
    pub fn mails(&self) -> Vec<Value> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect();
        files.sort();
        let read = |path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        files.into_iter().map(read).collect()
    }
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "inputs are written where they are passed"
)]
mod tests {
    use std::time::{Duration, Instant};

    use integrations::smtp::{Attachment, Registration, Smtp};
    use integrations::{Error, Integration, Kind, Outcome};
    use serde_json::json;

    use super::*;
    use crate::{Stage, stage};

    const STATEMENT: &str = include_str!("../../../shared/integrations/tests/files/statement.json");

    fn registration(server: &Aiosmtpd, more: Value) -> Registration {
        let mut inputs = json!({
            "to": "alice@example.org, bob@example.org",
            "from": "ci@example.net",
            "host": "localhost",
            "port": server.port,
            "tls": "none",
        });
        let all = inputs.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        serde_json::from_value(inputs).unwrap()
    }

    async fn deliver(
        stage: &Stage,
        registration: &Registration,
        attached: Value,
    ) -> Result<Outcome, Error> {
        let attachment: Attachment = serde_json::from_value(attached).unwrap();
        let delivery = stage.delivery(registration, &attachment);
        Smtp::deliver(&stage::trusting(), stage, &delivery).await
    }

    fn envelopes(server: &Aiosmtpd) -> Vec<Value> {
        let mails = server.mails().into_iter();
        mails.map(|mail| mail["to"].clone()).collect()
    }

    fn safe(password: &str) -> Value {
        json!({ "tls": "starttls", "user": "ci", "password": password })
    }

    #[tokio::test]
    async fn over_starttls_and_logged_in_each_domain_has_a_mail_of_its_own() {
        let server = Aiosmtpd::start(Options {
            starttls: true,
            login: Some(("ci", "secret")),
            ..Options::default()
        });
        let (stage, registration) = (
            Stage::of_statement(STATEMENT),
            registration(&server, safe("secret")),
        );
        Smtp::register(&stage::trusting(), &registration)
            .await
            .unwrap();
        assert!(server.mails().is_empty(), "a check sends no mail");

        let copies = json!({ "cc": "carol@example.com, dave@example.org" });
        let outcome = deliver(&stage, &registration, copies).await.unwrap();
        assert!(matches!(outcome, Outcome::Delivered(_)), "{outcome:?}");
        assert_eq!(
            envelopes(&server),
            [
                json!(["carol@example.com"]),
                json!(["alice@example.org", "bob@example.org", "dave@example.org"])
            ]
        );
        for mail in server.mails() {
            assert_eq!(
                (&mail["encrypted"], &mail["authenticated"]),
                (&json!(true), &json!(true))
            );
            let content = mail["content"].as_str().unwrap();
            assert!(content.contains("\r\nCc: carol@example.com, dave@example.org\r\n"));
        }
    }

    #[tokio::test]
    async fn a_wrong_password_is_told() {
        let server = Aiosmtpd::start(Options {
            starttls: true,
            login: Some(("ci", "secret")),
            ..Options::default()
        });
        let registration = registration(&server, safe("canary"));
        let checked = Smtp::register(&stage::trusting(), &registration).await;
        let stage = Stage::of_statement(STATEMENT);
        let delivered = deliver(&stage, &registration, json!({})).await;
        for error in [checked.unwrap_err(), delivered.unwrap_err()] {
            assert_eq!(error.kind, Kind::Unauthorized, "{error:?}");
            let begin = format!("log in at localhost:{}: answered 535 5.7.8", server.port);
            assert!(error.text.starts_with(&begin), "{error}");
            assert!(!format!("{error:?}").contains("canary"));
        }
    }

    #[tokio::test]
    async fn without_a_login_where_one_is_needed_the_server_says_so() {
        let server = Aiosmtpd::start(Options {
            starttls: true,
            login: Some(("ci", "secret")),
            ..Options::default()
        });
        let registration = registration(&server, json!({ "tls": "starttls" }));
        let stage = Stage::of_statement(STATEMENT);
        let error = deliver(&stage, &registration, json!({})).await.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert!(error.text.contains("530"), "{error}");
    }

    #[tokio::test]
    async fn a_certificate_of_an_unknown_authority_is_not_spoken_to() {
        let server = Aiosmtpd::start(Options {
            starttls: true,
            ..Options::default()
        });
        let registration = registration(&server, safe("secret"));
        let error = Smtp::register(&stage::http(), &registration).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert!(error.text.contains("its certificate "));
    }

    #[tokio::test]
    async fn recipients_are_told_apart() {
        let server = Aiosmtpd::start(Options {
            refuse: &[
                ("alice@example.org", "550 5.1.1 <alice@example.org> unknown"),
                ("dave@example.org", "451 4.7.1 greylisted"),
            ],
            ..Options::default()
        });
        let mut stage = Stage::of_statement(STATEMENT);
        let registration = registration(&server, json!({}));
        let copies = json!({ "cc": "carol@example.com, dave@example.org" });
        let error = deliver(&stage, &registration, copies.clone()).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind, Kind::Retryable { after: None });
        assert!(
            error.text.ends_with("answered 451 4.7.1 greylisted"),
            "{error}"
        );
        let first = [json!(["carol@example.com"]), json!(["bob@example.org"])];
        assert_eq!(envelopes(&server), first);

        // Still greylisted: nobody gets it twice.
        stage.progress = stage.recorded.borrow().iter().cloned().collect();
        let error = deliver(&stage, &registration, copies.clone()).await;
        assert_eq!(error.unwrap_err().kind, Kind::Retryable { after: None });
        assert_eq!(envelopes(&server), first);

        let later = Aiosmtpd::start(Options::default());
        let registration = self::registration(&later, json!({}));
        let outcome = deliver(&stage, &registration, copies).await.unwrap();
        assert_eq!(envelopes(&later), [json!(["dave@example.org"])]);
        let Outcome::PartlyDelivered { receipt, note } = outcome else {
            panic!("{outcome:?}")
        };
        let refused = "a…@example.org refused: 550 5.1.1 <…@example.org> unknown";
        assert_eq!(note, format!("accepted for 3 of 4 recipients; {refused}"));
        let recipients = receipt["domains"]["example.org"]["recipients"].clone();
        let mut outcomes: Vec<_> = recipients
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["recipient"].as_str(), one["outcome"].as_str()))
            .collect();
        outcomes.sort_unstable();
        assert_eq!(
            outcomes,
            [
                (Some("a…@example.org"), Some("refused")),
                (Some("b…@example.org"), Some("accepted")),
                (Some("d…@example.org"), Some("accepted")),
            ]
        );
    }

    #[tokio::test]
    async fn a_mail_that_is_too_large_is_not_sent() {
        let server = Aiosmtpd::start(Options {
            size: Some(500),
            ..Options::default()
        });
        let stage = Stage::of_statement(STATEMENT);
        let error = deliver(&stage, &registration(&server, json!({})), json!({})).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert!(
            error.text.ends_with("the server takes 500 at most"),
            "{error}"
        );
        assert!(server.mails().is_empty());
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up_on_in_time() {
        let server = Aiosmtpd::start(Options {
            silent: true,
            ..Options::default()
        });
        let registration = registration(&server, json!({}));
        let begun = Instant::now();
        let error = Smtp::register(&stage::trusting(), &registration).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind, Kind::Retryable { after: None });
        assert!(error.text.contains(": no greeting in time"), "{error}");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(24), "{took:?}");
    }
}
