//! Mails through real servers: `make test-mail`. Each takes mail for everybody but one, whom it refuses.

#![allow(clippy::unwrap_used, reason = "all of this is for tests")]

use std::path::PathBuf;
use std::process::{Command, Stdio};

use integrations::smtp::{Attachment, Registration, Smtp};
use integrations::{Error, Integration, Kind, Outcome};
use peers::{Folder, Process, STATEMENT, Stage, free_port, trusting};
use serde_json::{Value, json};

struct Server {
    port: u16,
    _process: Process,
    _folder: Folder,
}

impl Server {
    fn start(name: &str) -> Self {
        let (port, folder) = (free_port(), Folder::new(name));
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("mail_servers.py");
        let mut command = Command::new("python3");
        command.arg(script).args([name, &port.to_string()]);
        command.arg(folder.path()).stderr(Stdio::null());
        Self {
            _process: Process::start(&mut command, &[port]),
            port,
            _folder: folder,
        }
    }

    fn registration(&self, more: &Value) -> Registration {
        let mut inputs = json!({
            "to": "alice@example.org, gone@example.org, bob@example.com",
            "from": "ci@example.net",
            "host": "localhost",
            "port": self.port,
        });
        let all = inputs.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        serde_json::from_value(inputs).unwrap()
    }

    /// Registers and delivers; returns the note of what did not arrive.
    async fn deliver(&self, more: &Value) -> Result<String, Error> {
        let registration = self.registration(more);
        let warnings = Smtp::register(&trusting(), &registration).await?;
        assert!(warnings.is_empty(), "{warnings:?}");
        let attachment: Attachment = serde_json::from_value(json!({})).unwrap();
        let stage = Stage::of_statement(STATEMENT);
        let delivery = stage.delivery(&registration, &attachment);
        match Smtp::deliver(&trusting(), &stage, &delivery).await? {
            Outcome::PartlyDelivered { note, .. } => Ok(note),
            outcome => panic!("{outcome:?}"),
        }
    }
}

async fn all_but_one_have_it(name: &str, ways: &[Value]) {
    let server = Server::start(name);
    for way in ways {
        let note = server.deliver(way).await.unwrap();
        let begin = "accepted for 2 of 3 recipients; g…@example.org refused: 55";
        assert!(note.starts_with(begin), "{name}: {note}");
    }
    // One connection beside another, and letters beyond ASCII where they are offered.
    let unicode = json!({ "tls": "none", "to": "jörg@example.org, gone@example.org" });
    let (one, other, unicode) = tokio::join!(
        server.deliver(&ways[0]),
        server.deliver(&ways[0]),
        server.deliver(&unicode)
    );
    one.unwrap();
    other.unwrap();
    match name {
        "opensmtpd" | "sendmail" => {
            let error = unicode.unwrap_err();
            assert!(error.text.contains("SMTPUTF8"), "{error}");
        }
        _ => assert!(unicode.unwrap().starts_with("accepted for 1 of 2")),
    }
}

#[tokio::test]
async fn exim_takes_mails_and_logs_in() {
    let login = json!({ "tls": "starttls", "user": "ci", "password": "secret" });
    let ways = [
        json!({ "tls": "none" }),
        json!({ "tls": "starttls" }),
        login,
    ];
    all_but_one_have_it("exim", &ways).await;

    let server = Server::start("exim");
    let wrong = json!({ "tls": "starttls", "user": "ci", "password": "canary" });
    let error = server.deliver(&wrong).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unauthorized, "{error}");
    let error = server.deliver(&json!({ "tls": "implicit" })).await;
    assert!(error.unwrap_err().text.ends_with("choose tls=starttls"));
}

#[tokio::test]
async fn opensmtpd_takes_mails() {
    all_but_one_have_it("opensmtpd", &[json!({ "tls": "none" })]).await;
}

#[tokio::test]
async fn postfix_takes_mails() {
    let ways = [json!({ "tls": "none" }), json!({ "tls": "starttls" })];
    all_but_one_have_it("postfix", &ways).await;
}

#[tokio::test]
async fn sendmail_takes_mails() {
    let ways = [json!({ "tls": "none" }), json!({ "tls": "starttls" })];
    all_but_one_have_it("sendmail", &ways).await;
}
