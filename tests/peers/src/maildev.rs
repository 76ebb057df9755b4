//! maildev, a mail server with implicit TLS that shows by a REST API how it read what it was given.

use std::process::Command;

use bytes::Bytes;
use http::Request;
use serde_json::Value;

use crate::{Folder, Process, authority, free_port, stage, tool};

pub struct Maildev {
    /// Port of SMTP over TLS, with a certificate of [`authority`]'s.
    pub port: u16,
    /// Origin of the REST API.
    pub origin: String,
    _folder: Folder,
    _process: Process,
}

impl Maildev {
    /// It takes no mail of anybody else.
    pub fn start(user: &str, password: &str) -> Self {
        let (port, web, folder) = (free_port(), free_port(), Folder::new("maildev"));
        let mut command = Command::new(tool("maildev/node_modules/.bin/maildev"));
        // Without an address it listens on all there are.
        command
            .args(["--ip", "127.0.0.1", "--smtp", &port.to_string()])
            .args(["--web-ip", "127.0.0.1", "--web", &web.to_string()])
            .args(["--incoming-user", user, "--incoming-pass", password])
            .args(["--incoming-secure", "--silent"])
            .arg("--incoming-cert")
            .arg(authority::certificate())
            .arg("--incoming-key")
            .arg(authority::key())
            .arg("--mail-directory")
            .arg(folder.path());
        Self {
            _process: Process::start(&mut command, &[port, web]),
            port,
            origin: format!("http://127.0.0.1:{web}"),
            _folder: folder,
        }
    }

    /// As it read them: `envelope`, `headers`, `subject`, `text`, `html` and more of each.
    pub async fn mails(&self) -> Vec<Value> {
        let request = Request::get(format!("{}/api/email", self.origin))
            .body(Bytes::new())
            .unwrap();
        let response = stage::http().send(request).await.unwrap();
        assert_eq!(response.status, 200);
        serde_json::from_slice(&response.body).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use integrations::smtp::{Attachment, Registration, Smtp};
    use integrations::{Integration, Kind, Outcome};
    use serde_json::json;

    use super::*;
    use crate::Stage;

    const STATEMENT: &str = include_str!("../../../shared/integrations/tests/files/statement.json");

    fn registration(server: &Maildev, password: &str) -> Registration {
        serde_json::from_value(json!({
            "to": "alice@example.org",
            "from": "ci@example.net",
            "host": "localhost",
            "port": server.port.to_string(),
            "tls": "implicit",
            "user": "ci",
            "password": password,
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn over_implicit_tls_a_mail_is_read_as_it_was_meant() {
        let server = Maildev::start("ci", "secret");
        let registration = registration(&server, "secret");
        Smtp::register(&stage::trusting(), &registration)
            .await
            .unwrap();
        assert!(server.mails().await.is_empty(), "a check sends no mail");

        let mut stage = Stage::of_statement(STATEMENT);
        stage.workflow.name = "Büro <b>".to_owned();
        let attachment: Attachment =
            serde_json::from_value(json!({ "cc": "carol@example.org" })).unwrap();
        let delivery = stage.delivery(&registration, &attachment);
        let outcome = Smtp::deliver(&stage::trusting(), &stage, &delivery).await;
        let outcome = outcome.unwrap();
        let Outcome::Delivered(receipt) = outcome else {
            panic!("{outcome:?}")
        };

        let mails = server.mails().await;
        assert_eq!(mails.len(), 1);
        let mail = &mails[0];
        let to = mail["envelope"]["to"].as_array().unwrap();
        let to: Vec<_> = to.iter().map(|one| &one["address"]).collect();
        assert_eq!(to, ["alice@example.org", "carol@example.org"]);
        assert_eq!(mail["cc"][0]["address"], "carol@example.org");
        assert_eq!(mail["headers"]["message-id"], receipt["message_id"]);
        assert_eq!(mail["headers"]["auto-submitted"], "auto-generated");
        assert_eq!(mail["time"], "2026-01-02T03:10:00.000Z");
        let text = mail["text"].as_str().unwrap();
        assert!(text.contains("shop/Büro <b>"), "{text}");
        assert!(text.contains("chainloop"), "{text}");
        let html = mail["html"].as_str().unwrap();
        assert!(html.contains("shop/Büro &lt;b&gt;"), "{html}");
        let subject = mail["subject"].as_str().unwrap();
        assert!(
            subject.starts_with("[chainloop] New attestation of shop/Büro <b> ("),
            "{subject}"
        );
    }

    #[tokio::test]
    async fn a_wrong_password_is_told() {
        let server = Maildev::start("ci", "secret");
        let registration = registration(&server, "canary");
        let error = Smtp::register(&stage::trusting(), &registration).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind, Kind::Unauthorized, "{error:?}");
        assert!(error.text.contains("answered 535"), "{error}");
        assert!(!format!("{error:?}").contains("canary"));
    }
}
