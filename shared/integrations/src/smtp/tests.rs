//! Against a mail server on loopback that says what each test has it say.

#![expect(
    clippy::needless_pass_by_value,
    reason = "inputs are written where they are passed"
)]

use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::reply::Fate;
use super::*;
use crate::Kind;
use crate::fixture::{self, Stage};
use crate::http::Guard;

const PASSWORD: &str = "canary-9c1f";
const AUTHORITY: &str = include_str!("../../../../tests/peers/tls/authority.pem");

/// Says nothing, and keeps the connection.
const SILENCE: &str = "(silence)";
/// Ends the connection without a word.
const HANGS_UP: &str = "";

/// Replies to commands that begin like this, in place of a friendly server's.
type Script = &'static [(&'static str, &'static str)];

/// Extensions that a server of each kind offers.
const PLAIN: (&str, &str) = (
    "EHLO",
    "250-test\r\n250-SIZE 100000\r\n250 AUTH PLAIN LOGIN",
);
const STARTTLS: (&str, &str) = (
    "EHLO",
    "250-test\r\n250-STARTTLS\r\n250-SIZE 100000\r\n250 AUTH PLAIN LOGIN",
);

struct MailServer {
    port: u16,
    /// All that it was told, a line each; of mails too.
    heard: Arc<Mutex<Vec<String>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl MailServer {
    async fn start(script: Script) -> Self {
        Self::listen(script, false).await
    }

    async fn listen(script: Script, implicit: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heard);
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    seen.lock().unwrap().push("(connected)".to_owned());
                    serve(stream, script, implicit, &seen).await;
                });
            }
        });
        Self {
            port,
            heard,
            server,
        }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// The commands without their arguments, of the envelope with them.
    fn commands(&self) -> Vec<String> {
        let mut is_mail = false;
        let mut commands = Vec::new();
        for line in self.heard() {
            if is_mail {
                is_mail = line != ".";
                continue;
            }
            is_mail = line == "DATA";
            commands.push(match line.split_once(' ') {
                Some(("EHLO", _)) => "EHLO".to_owned(),
                Some(("AUTH", _)) => "AUTH".to_owned(),
                Some(("MAIL", rest)) => format!("MAIL {}", rest.split(' ').next().unwrap()),
                _ => line,
            });
        }
        commands
    }

    /// Each mail as it was sent, its dots taken off.
    fn mails(&self) -> Vec<String> {
        let mut mails = Vec::new();
        let mut mail: Option<String> = None;
        for line in self.heard() {
            match &mut mail {
                None if line == "DATA" => mail = Some(String::new()),
                None => {}
                Some(_) if line == "." => mails.extend(mail.take()),
                Some(mail) => {
                    mail.push_str(line.strip_prefix('.').unwrap_or(&line));
                    mail.push_str("\r\n");
                }
            }
        }
        mails
    }
}

async fn encrypt(stream: TcpStream) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let certificate = include_bytes!("../../../../tests/peers/tls/localhost.pem");
    let key = include_bytes!("../../../../tests/peers/tls/localhost.test.key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate).unwrap()],
            PrivateKeyDer::from_pem_slice(key).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    acceptor.accept(stream).await.ok()
}

async fn serve(stream: TcpStream, script: Script, implicit: bool, heard: &Mutex<Vec<String>>) {
    if implicit {
        if let Some(mut stream) = encrypt(stream).await {
            talk(&mut stream, script, heard, true).await;
        }
        return;
    }
    let mut stream = stream;
    if talk(&mut stream, script, heard, true).await {
        if script.contains(&("(handshake)", HANGS_UP)) {
            return;
        }
        if let Some(mut stream) = encrypt(stream).await {
            heard.lock().unwrap().push("(encrypted)".to_owned());
            talk(&mut stream, script, heard, false).await;
        }
    }
}

/// Returns true if TLS begins now.
async fn talk(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    script: Script,
    heard: &Mutex<Vec<String>>,
    greets: bool,
) -> bool {
    let mut stream = BufReader::new(stream);
    let mut line = if greets { "(greeting)" } else { "" }.to_owned();
    let mut is_mail = false;
    loop {
        let said = script.iter().find(|(begin, _)| line.starts_with(begin));
        let said = match said {
            _ if is_mail && line != "." => "",
            Some((_, said)) if *said == HANGS_UP => return false,
            Some((_, said)) if *said == SILENCE => std::future::pending().await,
            Some((_, said)) if said.starts_with("(2 s) ") => {
                tokio::time::sleep(Duration::from_secs(2)).await;
                &said[6..]
            }
            Some((_, said)) => said,
            None => match line.split(' ').next().unwrap() {
                "" => "",
                "(greeting)" => "220 test ESMTP",
                "EHLO" => PLAIN.1,
                "STARTTLS" => "220 go on",
                "AUTH" => "235 2.7.0 welcome",
                "DATA" => "354 go on",
                "." => "250 2.0.0 queued as 4711",
                "QUIT" => "221 bye",
                _ => "250 2.1.0 ok",
            },
        };
        if !said.is_empty()
            && stream
                .write_all(format!("{said}\r\n").as_bytes())
                .await
                .is_err()
        {
            return false;
        }
        if line == "STARTTLS" && said.starts_with('2') {
            return true;
        }
        is_mail = match line.as_str() {
            "DATA" => said.starts_with('3'),
            "." => false,
            _ => is_mail,
        };
        line.clear();
        match stream.read_line(&mut line).await {
            Ok(1..) => line.truncate(line.trim_end_matches("\r\n").len()),
            _ => return false,
        }
        heard.lock().unwrap().push(line.clone());
    }
}

fn registration(server: &MailServer, more: Value) -> Registration {
    let mut inputs = json!({
        "to": "alice@example.org, bob@example.org",
        "from": "ci@example.net",
        "host": "localhost",
        "port": server.port,
        "tls": "none",
    });
    let inputs_of = inputs.as_object_mut().unwrap();
    inputs_of.extend(more.as_object().unwrap().clone());
    serde_json::from_value(inputs).unwrap()
}

fn with_password() -> Value {
    json!({ "user": "ci", "password": PASSWORD })
}

fn attachment(inputs: Value) -> Attachment {
    serde_json::from_value(inputs).unwrap()
}

fn trusting() -> Http {
    let authorities = Authorities::try_from(AUTHORITY).unwrap();
    Http::new(Guard::local()).trusting(Some(&authorities))
}

async fn register(server: &MailServer, more: Value) -> Result<Warnings, Error> {
    Smtp::register(&trusting(), &registration(server, more)).await
}

async fn deliver(
    server: &MailServer,
    stage: &Stage,
    registered: Value,
    attached: Value,
) -> Result<Outcome, Error> {
    let (registration, attachment) = (registration(server, registered), attachment(attached));
    let delivery = stage.delivery(&registration, &attachment);
    Smtp::deliver(&trusting(), stage, &delivery).await
}

const MAIL: &str = "MAIL FROM:<ci@example.net>";

const AGAIN: Kind = Kind::Retryable { after: None };

// --- checks -------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_check_logs_in_and_sends_no_mail() {
    let server = MailServer::start(&[]).await;
    register(&server, with_password()).await.unwrap();
    let commands = ["(connected)", "EHLO", "AUTH", MAIL, "RSET", "QUIT"];
    assert_eq!(server.commands(), commands);
}

#[tokio::test]
async fn a_check_sends_a_mail_when_it_is_asked_to() {
    let server = MailServer::start(&[]).await;
    let more = json!({ "send_test_message": true, "to": "a@example.org, b@example.com" });
    register(&server, more).await.unwrap();
    let mails = server.mails();
    assert_eq!(mails.len(), 2, "one for each domain");
    assert!(mails[0].contains("Subject: [chainloop] New SMTP integration added!\r\n"));

    let server = MailServer::start(&[("RCPT", "550 5.7.1 relaying denied")]).await;
    let error = register(&server, json!({ "send_test_message": true })).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind, Kind::Permanent);
    assert_eq!(
        error.text,
        format!(
            "mail a…@example.org by localhost:{}: answered 550 5.7.1 relaying denied",
            server.port
        )
    );
}

#[tokio::test]
async fn a_server_that_refuses_the_sender_is_warned_of() {
    let refuses = async |answer: &'static str, more: Value| {
        let server = MailServer::start(Box::leak(Box::new([("MAIL", answer)]))).await;
        let warnings = register(&server, more).await.unwrap();
        assert_eq!(server.commands().last().unwrap(), "QUIT");
        let place = format!("localhost:{} ", server.port);
        let warnings = warnings.into_iter();
        warnings
            .map(|one| one.replace(&place, "@ "))
            .collect::<Vec<_>>()
    };
    let starttls = "530 5.7.0 Must issue a STARTTLS command first";
    assert_eq!(
        refuses(starttls, json!({})).await,
        [format!(
            "@ refuses mail from c…@example.net: answered {starttls}; it wants encryption: choose tls=starttls"
        )]
    );
    for answer in ["530 5.7.0 Authentication required", "550 5.7.1 not allowed"] {
        assert_eq!(
            refuses(answer, json!({})).await,
            [format!(
                "@ refuses mail from c…@example.net: answered {answer}; it may want a login: add user and password"
            )]
        );
        assert_eq!(
            refuses(answer, with_password()).await,
            [format!(
                "@ refuses mail from c…@example.net: answered {answer}"
            )]
        );
    }
    for answer in ["451 4.7.1 greylisted", "250 ok"] {
        assert!(refuses(answer, json!({})).await.is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn each_answer_to_a_login_has_its_class() {
    for (script, kind, text) in [
        (
            &[("(greeting)", "421 4.3.2 too busy")][..],
            AGAIN,
            "speak with @: answered 421 4.3.2 too busy",
        ),
        (
            &[("(greeting)", "554 no service for you")],
            Kind::Permanent,
            "speak with @: answered 554 no service for you",
        ),
        (
            &[("(greeting)", HANGS_UP)],
            AGAIN,
            "speak with @: the connection ended without a reply",
        ),
        (
            &[("(greeting)", "HTTP/1.1 400 Bad Request")],
            AGAIN,
            "speak with @: the reply is not one of a mail server",
        ),
        (
            &[("EHLO", "450 4.3.2 later")],
            AGAIN,
            "speak with @: answered 450 4.3.2 later",
        ),
        (
            &[("AUTH", "535 5.7.8 wrong")],
            Kind::Unauthorized,
            "log in at @: answered 535 5.7.8 wrong",
        ),
        (
            &[("AUTH", "534 5.7.9 weak")],
            Kind::Permanent,
            "log in at @: answered 534 5.7.9 weak",
        ),
        (
            &[("AUTH", "530 5.7.0 must issue STARTTLS")],
            Kind::Permanent,
            "log in at @: answered 530 5.7.0 must issue STARTTLS",
        ),
        (
            &[("AUTH", "454 4.7.0 temporary")],
            AGAIN,
            "log in at @: answered 454 4.7.0 temporary",
        ),
        (
            &[("AUTH", HANGS_UP)],
            AGAIN,
            "log in at @: the connection ended without a reply",
        ),
        (
            &[("EHLO", "250 test")],
            Kind::Permanent,
            "log in at @: it does not offer AUTH by PLAIN or LOGIN, but the registration has a password",
        ),
        (
            &[("MAIL", "421 4.7.0 closing")],
            AGAIN,
            "speak with @: answered 421 4.7.0 closing",
        ),
        (
            &[("RSET", HANGS_UP)],
            AGAIN,
            "speak with @: the connection ended without a reply",
        ),
    ] {
        let server = MailServer::start(script).await;
        let error = register(&server, with_password()).await.unwrap_err();
        let place = format!("localhost:{}", server.port);
        assert_eq!(error.kind, kind, "{error:?}");
        assert_eq!(error.text, text.replace('@', &place));
        assert_eq!(
            error.answer.is_some(),
            text.contains("answered"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_retryable() {
    let server = MailServer::start(&[]).await;
    server.server.abort();
    while !server.server.is_finished() {
        tokio::task::yield_now().await;
    }
    let error = register(&server, json!({})).await.unwrap_err();
    assert_eq!(error.kind, AGAIN);
    let place = format!("localhost:{}", server.port);
    assert_eq!(error.text, format!("reach {place}: connection refused"));
    let error = register(&server, json!({ "host": "canary.invalid", "port": 587 })).await;
    assert_eq!(error.unwrap_err().kind, AGAIN);
}

#[tokio::test]
async fn a_server_that_falls_silent_does_not_hold_us() {
    for script in [
        &[("(greeting)", SILENCE)][..],
        &[("EHLO", SILENCE)],
        &[("AUTH", SILENCE)],
        &[("STARTTLS", SILENCE), STARTTLS],
    ] {
        let server = MailServer::start(script).await;
        let tls = match script.contains(&STARTTLS) {
            true => json!({ "tls": "starttls" }),
            false => with_password(),
        };
        let registration = registration(&server, tls);
        let until = Instant::now() + Duration::from_secs(1);
        let (smtp, http) = (Server::of(&registration, &trusting()), trusting());
        let opened = Connection::open(&smtp, &http, Time::until(until)).await;
        let error = opened.map(|_| ()).unwrap_err();
        assert_eq!(error.kind, AGAIN);
        let hint =
            ": no greeting in time; if its port is one for implicit TLS, choose tls=implicit";
        let known = if script[0].0 == "(greeting)" {
            hint
        } else {
            ": no reply in time"
        };
        assert!(error.text.ends_with(known), "{error}");
        assert!(until.elapsed() < Duration::from_secs(10));
    }
    for (script, unanswered) in [
        (&[("MAIL", SILENCE)][..], false),
        (&[("RCPT", SILENCE)], false),
        (&[("DATA", SILENCE)], false),
        (&[(".", SILENCE)], true),
    ] {
        let server = MailServer::start(script).await;
        let registration = registration(&server, json!({}));
        let (smtp, http) = (Server::of(&registration, &trusting()), trusting());
        let far = Instant::now() + Duration::from_secs(10);
        let mut connection = Connection::open(&smtp, &http, Time::until(far))
            .await
            .unwrap();
        let until = Instant::now() + Duration::from_secs(1);
        let to: Vec<_> = registration.to.as_slice().iter().collect();
        let fates = connection.send(&registration.from, &to, b"x\r\n", Time::until(until));
        for fate in fates.await {
            match fate {
                Fate::Indeterminate(reason) if unanswered => assert_eq!(reason, "no reply in time"),
                Fate::Deferred(why) if !unanswered => {
                    assert_eq!(why.to_string(), "no reply in time");
                }
                other => panic!("{script:?}: {other:?}"),
            }
        }
        assert!(connection.is_broken());
        assert!(until.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sent = 0;
        while stream.write_all(&[b'2'; 8192]).await.is_ok() {
            sent += 8192;
        }
        sent
    });
    let registration: Registration = serde_json::from_value(json!({
        "to": "a@example.org", "from": "b@example.org", "host": "127.0.0.1", "port": port, "tls": "none",
    }))
    .unwrap();
    let error = Smtp::register(&trusting(), &registration).await;
    assert_eq!(error.unwrap_err().kind, AGAIN);
    assert!(served.await.unwrap() < 16 << 20, "what the kernel holds");
}

// --- encryption ---------------------------------------------------------------------------------------

#[tokio::test]
async fn encryption_is_as_the_port_says_unless_it_is_chosen() {
    let tls = |more: Value| {
        let mut inputs =
            json!({ "to": "a@example.org", "from": "b@example.org", "host": "smtp.example.org" });
        let all = inputs.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        serde_json::from_value::<Registration>(inputs)
            .unwrap()
            .tls()
    };
    for port in ["465", "2465"] {
        assert_eq!(tls(json!({ "port": port })), Tls::Implicit);
    }
    for port in ["25", "587", "2525", "2587"] {
        assert_eq!(tls(json!({ "port": port })), Tls::Starttls);
    }
    assert_eq!(
        tls(json!({ "port": 465, "tls": "starttls" })),
        Tls::Starttls
    );
    assert_eq!(tls(json!({ "port": 587, "tls": "none" })), Tls::None);
}

#[tokio::test]
async fn a_password_is_sent_after_the_connection_is_encrypted() {
    let server = MailServer::start(&[STARTTLS]).await;
    let mut starttls = with_password();
    starttls["tls"] = json!("starttls");
    register(&server, starttls).await.unwrap();
    let commands = server.commands();
    let expected = [
        "(connected)",
        "EHLO",
        "STARTTLS",
        "(encrypted)",
        "EHLO",
        "AUTH",
        MAIL,
        "RSET",
        "QUIT",
    ];
    assert_eq!(commands, expected);

    let server = MailServer::listen(&[], true).await;
    let mut implicit = with_password();
    implicit["tls"] = json!("implicit");
    register(&server, implicit).await.unwrap();
    assert_eq!(
        server.commands(),
        ["(connected)", "EHLO", "AUTH", MAIL, "RSET", "QUIT"]
    );
}

#[tokio::test]
async fn without_the_starttls_that_was_asked_for_nothing_is_sent() {
    let server = MailServer::start(&[PLAIN]).await;
    let mut starttls = with_password();
    starttls["tls"] = json!("starttls");
    let error = register(&server, starttls).await.unwrap_err();
    assert_eq!(error.kind, Kind::Permanent);
    assert!(
        error.text.ends_with(": it does not offer STARTTLS"),
        "{error}"
    );
    assert_eq!(server.commands(), ["(connected)", "EHLO"]);
}

#[tokio::test]
async fn a_password_is_not_sent_to_another_machine_without_tls() {
    let reason = "a password is not sent without TLS; choose `starttls` or `implicit`";
    let server = MailServer::start(&[]).await;
    let mut far = with_password();
    far["host"] = json!("8.8.8.8");
    for port in [22, 25, 465, 587, 2465, 2525, 2587] {
        far["port"] = json!(port);
        let error = register(&server, far.clone()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert_eq!(error.text, format!("log in at 8.8.8.8:{port}: {reason}"));
    }
    // No other port of another machine is come to at all.
    for port in [22, 80, 2526] {
        let far = json!({ "host": "8.8.8.8", "port": port });
        let error = register(&server, far.clone()).await.unwrap_err();
        let begin = format!("reach 8.8.8.8:{port}: this port is not allowed");
        assert!(error.text.starts_with(&begin), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_is_permanent_and_a_broken_handshake_is_not() {
    let public = fixture::http();
    for (tls, implicit) in [("starttls", false), ("implicit", true)] {
        let server = MailServer::listen(&[STARTTLS], implicit).await;
        let mut inputs = with_password();
        inputs["tls"] = json!(tls);
        let unknown = Smtp::register(&public, &registration(&server, inputs.clone())).await;
        // Of the right authority, and for another name.
        inputs["host"] = json!("other.localhost");
        let other = register(&server, inputs).await;
        let mut errors = vec![unknown.unwrap_err()];
        // Where the system knows no such name, it is not come to.
        errors.extend(other.err().filter(|error| !error.text.contains("resolved")));
        for error in errors {
            assert_eq!(error.kind, Kind::Permanent, "{error:?}");
            assert!(error.text.contains(": its certificate is "), "{error}");
        }
        assert!(!server.heard().iter().any(|line| line.starts_with("AUTH")));
    }
    for (script, reason) in [
        (
            &[STARTTLS, ("(handshake)", HANGS_UP)][..],
            "the TLS handshake failed",
        ),
        (
            &[STARTTLS, ("STARTTLS", "454 4.7.0 not now")],
            "answered 454 4.7.0 not now",
        ),
    ] {
        let server = MailServer::start(script).await;
        let error = register(&server, json!({ "tls": "starttls" })).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind, AGAIN, "{error:?}");
        let known = [reason, "the connection broke"];
        assert!(
            known.iter().any(|known| error.text.ends_with(known)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_is_put_behind_the_answer_to_starttls_is_not_believed() {
    let injected = "220 go on\r\n250-canary\r\n250 AUTH PLAIN";
    let script: Script = &[
        STARTTLS,
        ("STARTTLS", "220 go on\r\n250-canary\r\n250 AUTH PLAIN"),
    ];
    assert_eq!(script[1].1, injected);
    let server = MailServer::start(script).await;
    let mut starttls = with_password();
    starttls["tls"] = json!("starttls");
    let error = register(&server, starttls).await.unwrap_err();
    assert_eq!(error.kind, AGAIN, "{error:?}");
    let reason = ": something came behind its reply to STARTTLS";
    assert!(
        error.text.starts_with("speak TLS with ") && error.text.ends_with(reason),
        "{error}"
    );
    assert!(!server.heard().iter().any(|line| line.starts_with("AUTH")));
}

#[tokio::test]
async fn tls_on_the_wrong_port_is_told_with_what_to_choose() {
    let server = MailServer::start(&[]).await;
    let error = register(&server, json!({ "tls": "implicit" })).await;
    let error = error.unwrap_err();
    assert!(error.text.ends_with("choose tls=starttls"), "{error}");

    let server = MailServer::listen(&[], true).await;
    let registration = registration(&server, json!({ "tls": "starttls" }));
    let (smtp, http) = (Server::of(&registration, &trusting()), trusting());
    let time = Time::until(Instant::now() + Duration::from_secs(1));
    let error = Connection::open(&smtp, &http, time)
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(error.text.ends_with("choose tls=implicit"), "{error}");
}

// --- greetings ----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_server_is_greeted_once_and_again_after_starttls_alone() {
    // OpenSMTPD refuses each greeting but the first.
    for (server, tls, greetings) in [
        (MailServer::start(&[]).await, "none", 1),
        (MailServer::listen(&[], true).await, "implicit", 1),
        (MailServer::start(&[STARTTLS]).await, "starttls", 2),
    ] {
        let mut inputs = with_password();
        inputs["tls"] = json!(tls);
        register(&server, inputs.clone()).await.unwrap();
        deliver(&server, &Stage::new(), inputs, json!({}))
            .await
            .unwrap();
        let heard = server.heard();
        let greeted = heard.iter().filter(|line| line.starts_with("EHLO")).count();
        assert_eq!(greeted, 2 * greetings, "{heard:?}");
    }
}

#[tokio::test]
async fn a_server_is_greeted_by_the_senders_domain_or_the_name_that_is_chosen() {
    for (more, greeting) in [
        (json!({}), "EHLO example.net"),
        (
            json!({ "from": "ci@bücher.example" }),
            "EHLO xn--bcher-kva.example",
        ),
        (
            json!({ "ehlo_name": "Build.Example.org" }),
            "EHLO build.example.org",
        ),
        (json!({ "ehlo_name": "192.0.2.7" }), "EHLO [192.0.2.7]"),
        (
            json!({ "ehlo_name": "2001:db8::7" }),
            "EHLO [IPv6:2001:db8::7]",
        ),
    ] {
        let server = MailServer::start(&[]).await;
        register(&server, more).await.unwrap();
        assert_eq!(server.heard()[1], greeting);
    }
}

#[tokio::test]
async fn a_server_that_does_not_know_ehlo_is_greeted_as_of_old_and_offers_nothing() {
    for reply in [
        "500 5.5.1 what",
        "501 syntax",
        "502 5.5.2 not implemented",
        "503 sequence",
        "504 parameter",
    ] {
        let script = Box::leak(Box::new([("EHLO", reply)]));
        let server = MailServer::start(script).await;
        let stage = Stage::new();
        deliver(&server, &stage, json!({}), json!({}))
            .await
            .unwrap();
        let heard = server.heard();
        assert_eq!(heard[1..4], ["EHLO example.net", "HELO example.net", MAIL]);
        // Neither a password nor anything else goes out without what would keep it safe.
        let server = MailServer::start(script).await;
        let mut starttls = with_password();
        starttls["tls"] = json!("starttls");
        let error = register(&server, starttls).await.unwrap_err();
        assert!(
            error.text.ends_with("it does not offer STARTTLS"),
            "{error}"
        );
        let error = register(&server, with_password()).await.unwrap_err();
        assert!(error.text.contains("it does not offer AUTH"), "{error}");
    }
    // Others mean it.
    for reply in ["550 5.7.1 not you", "554 no service", "521 no mail here"] {
        let script = Box::leak(Box::new([("EHLO", reply)]));
        let server = MailServer::start(script).await;
        let error = register(&server, json!({})).await.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent, "{error}");
        assert_eq!(server.commands(), ["(connected)", "EHLO"]);
    }
}

// --- logins -------------------------------------------------------------------------------------------

const USER_64: &str = "Y2k=";
const PASSWORD_64: &str = "Y2FuYXJ5LTljMWY=";

#[tokio::test]
async fn login_is_tried_where_plain_is_not_offered_or_not_understood() {
    let both = "250-test\r\n250-AUTH LOGIN PLAIN\r\n250 SIZE";
    for (offered, plain) in [
        ("250-test\r\n250 AUTH LOGIN", None),
        ("250-test\r\n250 AUTH=LOGIN", None),
        ("250-test\r\n250 auth cram-md5 login", None),
        (both, Some("553 5.3.0 Auth failure")),
        (both, Some("504 5.5.4 unrecognized mechanism")),
        (both, Some("501 5.5.2 cannot decode")),
        // A prompt where there was an answer already, and then no use for it.
        (both, Some("334 go on")),
    ] {
        for (user, password) in [
            ("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"),
            ("334 Username:", "334 Password:"),
            ("334", "334 "),
            ("334-first\r\n334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"),
        ] {
            let script = Box::leak(Box::new([
                ("EHLO", offered),
                ("AUTH PLAIN", plain.unwrap_or("504 not offered")),
                ("AUTH LOGIN", user),
                (USER_64, password),
                (PASSWORD_64, "235 2.7.0 welcome"),
                ("AGNpAGNhbmFyeS05YzFm", "535 5.7.8 no"),
            ]));
            let server = MailServer::start(script).await;
            let registered = register(&server, with_password()).await;
            let heard = server.heard();
            let tried = |word: &str| heard.iter().any(|line| line.starts_with(word));
            assert_eq!(tried("AUTH PLAIN"), plain.is_some(), "{heard:?}");
            if plain == Some("334 go on") {
                assert_eq!(registered.unwrap_err().kind, Kind::Unauthorized);
                assert!(!tried("AUTH LOGIN"), "a wrong password is tried once");
            } else {
                registered.unwrap();
                assert!(heard.contains(&PASSWORD_64.to_owned()));
            }
        }
    }
}

#[tokio::test]
async fn a_password_that_is_refused_is_tried_once() {
    for (script, kind) in [
        (("AUTH PLAIN", "535 5.7.8 wrong"), Kind::Unauthorized),
        (("AUTH PLAIN", "454 4.7.0 later"), AGAIN),
        (("AUTH PLAIN", "421 4.7.0 closing"), AGAIN),
        (("AUTH PLAIN", HANGS_UP), AGAIN),
    ] {
        let server = MailServer::start(Box::leak(Box::new([script]))).await;
        let error = register(&server, with_password()).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        let heard = server.heard();
        let tries = heard.iter().filter(|line| line.starts_with("AUTH")).count();
        assert_eq!(tries, 1, "{heard:?}");
    }
    // What both are refused for is what the second was refused for.
    let server = MailServer::start(&[
        ("AUTH PLAIN", "553 no"),
        ("AUTH LOGIN", "334 "),
        (USER_64, "334 "),
        (PASSWORD_64, "535 5.7.8 wrong"),
    ])
    .await;
    let error = register(&server, with_password()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unauthorized, "{error}");
    // Unless there was nobody any more.
    let server = MailServer::start(&[("AUTH PLAIN", "553 no"), ("AUTH LOGIN", HANGS_UP)]).await;
    let error = register(&server, with_password()).await.unwrap_err();
    assert!(error.text.ends_with("answered 553 no"), "{error}");
}

#[tokio::test]
async fn prompts_without_an_end_end_the_login() {
    let server = MailServer::start(&[
        ("AUTH", "334 "),
        ("AGNp", "334 more"),
        ("*", "501 5.7.0 given up"),
        (USER_64, "334 "),
        (PASSWORD_64, "334 and now?"),
    ])
    .await;
    let error = register(&server, with_password()).await.unwrap_err();
    assert!(
        error.text.ends_with("answered 501 5.7.0 given up"),
        "{error}"
    );
    assert_eq!(server.heard().iter().filter(|line| *line == "*").count(), 2);
}

#[tokio::test]
async fn a_login_too_long_for_a_command_line_is_sent_behind_it() {
    let server = MailServer::start(&[("AUTH PLAIN", "334 "), ("AHV1", "235 welcome")]).await;
    let long = json!({ "user": "u".repeat(256), "password": "p".repeat(300) });
    register(&server, long).await.unwrap();
    let heard = server.heard();
    assert_eq!(heard[2], "AUTH PLAIN");
    assert_eq!(heard[3].len(), (2_usize + 256 + 300).div_ceil(3) * 4);
}

// --- letters beyond ASCII -----------------------------------------------------------------------------

const UTF8: (&str, &str) = (
    "EHLO",
    "250-test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE",
);

#[tokio::test]
async fn letters_beyond_ascii_are_sent_where_smtputf8_is_offered() {
    let server = MailServer::start(&[UTF8]).await;
    let more = json!({ "to": "jörg@example.org, bob@bücher.example" });
    register(&server, more.clone()).await.unwrap();
    deliver(&server, &Stage::new(), more, json!({}))
        .await
        .unwrap();
    let heard = server.heard();
    assert!(
        heard.contains(&"RCPT TO:<jörg@example.org>".to_owned()),
        "{heard:?}"
    );
    assert!(heard.contains(&"RCPT TO:<bob@xn--bcher-kva.example>".to_owned()));
    let mails = server.mails();
    let size = mails[0].len();
    let mail = format!("{MAIL} SIZE={size} BODY=8BITMIME SMTPUTF8");
    assert_eq!(
        heard.iter().filter(|line| **line == mail).count(),
        2,
        "{heard:?}"
    );
    assert!(
        mails[0].contains("To: jörg@example.org, bob@xn--bcher-kva.example\r\n"),
        "{}",
        mails[0]
    );

    // What needs no such letter does without.
    let server = MailServer::start(&[UTF8]).await;
    deliver(&server, &Stage::new(), json!({}), json!({}))
        .await
        .unwrap();
    assert!(!server.heard().iter().any(|line| line.contains("SMTPUTF8")));

    let server = MailServer::start(&[UTF8]).await;
    let sender = json!({ "from": "böb@example.net" });
    register(&server, sender).await.unwrap();
    let mail = "MAIL FROM:<böb@example.net> SMTPUTF8".to_owned();
    assert!(server.heard().contains(&mail));
}

#[tokio::test]
async fn letters_beyond_ascii_are_refused_before_anything_is_sent_where_it_is_not() {
    let reason =
        "an address has letters beyond ASCII, for which the server does not offer SMTPUTF8";
    let copies = json!({ "cc": "jörg@example.org" });
    let server = MailServer::start(&[]).await;
    for more in [
        json!({ "to": "jörg@example.org" }),
        json!({ "from": "jörg@example.org" }),
    ] {
        let error = register(&server, more.clone()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        assert!(error.text.ends_with(reason), "{error}");
        let error = deliver(&server, &Stage::new(), more, json!({})).await;
        assert!(error.unwrap_err().text.ends_with(reason));
    }
    let attach = async |server: &MailServer| {
        let (registration, attachment) =
            (registration(server, json!({})), attachment(copies.clone()));
        Smtp::attach(&trusting(), &registration, &attachment).await
    };
    assert!(attach(&server).await.unwrap_err().text.ends_with(reason));
    let error = deliver(&server, &Stage::new(), json!({}), copies.clone()).await;
    assert!(error.unwrap_err().text.ends_with(reason));
    assert!(!server.heard().iter().any(|line| line.starts_with("MAIL")));

    let server = MailServer::start(&[UTF8]).await;
    attach(&server).await.unwrap();
}

// --- servers with peculiarities -----------------------------------------------------------------------

#[tokio::test]
async fn replies_of_all_kinds_are_understood() {
    for script in [
        &[("(greeting)", "220-\r\n220-\u{e9}t\u{e9}\r\n220")][..],
        &[("EHLO", "250")],
        &[("EHLO", "250-a\r\n250 b=c d=e")],
        &[("RCPT", "251 will forward")],
        &[("RCPT", "252 cannot verify")],
        &[("DATA", "354")],
        &[("DATA", "300 go")],
        &[("MAIL", "250-\r\n250-\r\n250 ok")],
        &[(".", "250-one\r\n250 two")],
        &[("QUIT", HANGS_UP)],
        &[("QUIT", "500 what")],
    ] {
        let server = MailServer::start(script).await;
        let outcome = deliver(&server, &Stage::new(), json!({}), json!({})).await;
        assert!(
            matches!(outcome, Ok(Outcome::Delivered(_))),
            "{script:?}: {outcome:?}"
        );
        assert_eq!(server.mails().len(), 1);
    }
}

#[tokio::test]
async fn a_long_list_of_extensions_is_read_to_its_end() {
    let many = "250-X-SOMETHING OR OTHER\r\n".repeat(2000);
    let list = format!("250-test\r\n{many}250-SIZE 12345678\r\n250 AUTH PLAIN").leak();
    let server = MailServer::start(Box::leak(Box::new([("EHLO", &*list)]))).await;
    register(&server, with_password()).await.unwrap();

    let endless = "250-X-SOMETHING OR OTHER\r\n".repeat(4000).leak();
    let server = MailServer::start(Box::leak(Box::new([("EHLO", &*endless)]))).await;
    let error = register(&server, json!({})).await.unwrap_err();
    assert!(error.text.ends_with("the reply does not end"), "{error}");
}

/// At any step: a mail that was not sent whole is tried again, and one that was is not known to have arrived.
#[tokio::test]
async fn a_server_that_goes_away_at_any_step_is_come_back_to() {
    for step in ["(greeting)", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        for said in [
            "421 4.3.2 shutting down",
            "421",
            HANGS_UP,
            "garbage",
            "\u{ff}\u{fe}",
            "999 what",
        ] {
            let server = MailServer::start(Box::leak(Box::new([(step, said)]))).await;
            let error = deliver(&server, &Stage::new(), json!({}), json!({})).await;
            let kind = match (step, said) {
                (".", said) if !said.starts_with("421") => Kind::Indeterminate,
                _ => AGAIN,
            };
            assert_eq!(error.unwrap_err().kind, kind, "{step}: {said}");
        }
    }
}

#[tokio::test]
async fn a_reply_that_fits_no_step_sends_no_mail() {
    for (step, said) in [
        ("MAIL", "354 go on"),
        ("RCPT", "334 VXNlcm5hbWU6"),
        ("DATA", "250 ok"),
        ("EHLO", "354 go on"),
        ("(greeting)", "354 go on"),
        ("AUTH", "250-x\r\n354 go on"),
    ] {
        let server = MailServer::start(Box::leak(Box::new([(step, said)]))).await;
        let error = deliver(&server, &Stage::new(), with_password(), json!({})).await;
        assert_eq!(error.unwrap_err().kind, AGAIN, "{step}");
        assert!(server.mails().is_empty());
    }
}

#[tokio::test]
async fn a_reply_that_comes_drop_by_drop_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while stream.write_all(b"220-\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let inputs = json!({
        "to": "a@example.org", "from": "b@example.org", "host": "localhost", "port": port, "tls": "none",
    });
    let registration: Registration = serde_json::from_value(inputs).unwrap();
    let (smtp, http) = (Server::of(&registration, &trusting()), trusting());
    let end = Instant::now() + Duration::from_secs(1);
    let error = Connection::open(&smtp, &http, Time::until(end))
        .await
        .map(|_| ());
    assert_eq!(error.unwrap_err().kind, AGAIN);
    assert!(end.elapsed() < Duration::from_secs(5));
    server.await.unwrap();
}

#[tokio::test]
async fn the_verdict_on_a_mail_may_take_longer_than_what_comes_before() {
    const { assert!(REPLY.as_secs() + VERDICT_LEAST.as_secs() < ATTEMPT.as_secs()) };
    let server = MailServer::start(&[(".", "(2 s) 250 2.0.0 queued")]).await;
    let registration = registration(&server, json!({}));
    let (smtp, http) = (Server::of(&registration, &trusting()), trusting());
    let now = Instant::now();
    let time = Time {
        content: now + Duration::from_secs(1),
        end: now + Duration::from_secs(30),
    };
    let mut connection = Connection::open(&smtp, &http, time).await.unwrap();
    let to: Vec<_> = registration.to.as_slice().iter().collect();
    let fates = connection
        .send(&registration.from, &to, b"x\r\n", time)
        .await;
    assert!(
        fates.iter().all(|fate| matches!(fate, Fate::Accepted(_))),
        "{fates:?}"
    );
    assert!(now.elapsed() > Duration::from_secs(1));
}

#[tokio::test]
async fn two_connections_at_a_time_go_to_a_server() {
    let server = MailServer::start(&[]).await;
    let stage = Stage::new();
    for _ in 0..2 {
        deliver(&server, &stage, json!({}), json!({}))
            .await
            .unwrap();
    }
    // The stage lets go of nothing by itself, as if those attempts were not over.
    let place = format!("localhost:{}", server.port);
    let outcome = deliver(&server, &stage, json!({}), json!({}))
        .await
        .unwrap();
    assert_eq!(outcome, Outcome::busy(&place));
    assert_eq!(server.mails().len(), 2);
    stage.locks.borrow_mut().remove(&format!("{place} 1"));
    let outcome = deliver(&server, &stage, json!({}), json!({}))
        .await
        .unwrap();
    assert!(matches!(outcome, Outcome::Delivered(_)), "{outcome:?}");
}

// --- deliveries ---------------------------------------------------------------------------------------

fn outcomes(receipt: &Value) -> Vec<(&str, &str)> {
    let recipients = receipt["recipients"].as_array().unwrap().iter();
    recipients
        .map(|one| {
            (
                one["recipient"].as_str().unwrap(),
                one["outcome"].as_str().unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn each_domain_has_a_mail_of_its_own_with_copies_among_them() {
    let server = MailServer::start(&[]).await;
    let stage = Stage::new();
    let attached = json!({ "cc": "carol@example.com, alice@example.org, dave@example.org" });
    let outcome = deliver(&server, &stage, json!({}), attached).await.unwrap();
    assert_eq!(
        server.commands(),
        [
            "(connected)",
            "EHLO",
            MAIL,
            "RCPT TO:<carol@example.com>",
            "DATA",
            MAIL,
            "RCPT TO:<alice@example.org>",
            "RCPT TO:<bob@example.org>",
            "RCPT TO:<dave@example.org>",
            "DATA",
            "QUIT",
        ]
    );
    let mails = server.mails();
    assert_eq!(mails[0], mails[1]);
    for line in [
        "To: alice@example.org, bob@example.org\r\n",
        "Cc: carol@example.com, alice@example.org, dave@example.org\r\n",
        "Message-ID: <5d1e.attestation@example.net>\r\n",
        "Date: Fri, 02 Jan 2026 03:10:00 +0000\r\n",
        "List-Id: <nightly-build.shop.chainloop-integrations.invalid>\r\n",
        "Auto-Submitted: auto-generated\r\n",
    ] {
        assert!(mails[0].contains(line), "{line}: {}", mails[0]);
    }

    let recorded = stage.recorded();
    let steps: Vec<_> = recorded.iter().map(|(step, _)| step.as_str()).collect();
    assert_eq!(steps, ["example.com", "example.org"]);
    let Outcome::Delivered(receipt) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(receipt["message_id"], "<5d1e.attestation@example.net>");
    assert_eq!(receipt["domains"]["example.com"], recorded[0].1);
    assert_eq!(
        receipt["domains"]["example.com"]["recipients"][0]["reply"],
        "250 2.0.0 queued as 4711"
    );
    let shown = serde_json::to_string(&receipt).unwrap();
    assert!(!shown.contains("carol@") && shown.contains("c…@example.com"));
}

#[tokio::test]
async fn the_size_of_the_mail_is_told_to_a_server_that_asks_and_kept_below_its_limit() {
    let server = MailServer::start(&[]).await;
    let stage = Stage::new();
    deliver(&server, &stage, json!({}), json!({}))
        .await
        .unwrap();
    let size = format!(
        "MAIL FROM:<ci@example.net> SIZE={}",
        server.mails()[0].len()
    );
    assert!(server.heard().contains(&size), "{:?}", server.heard());

    for unlimited in ["250-test\r\n250 SIZE 0", "250-test\r\n250 SIZE", "250 test"] {
        let script = Box::leak(Box::new([("EHLO", unlimited)]));
        let server = MailServer::start(script).await;
        deliver(&server, &stage, json!({}), json!({}))
            .await
            .unwrap();
    }

    let server = MailServer::start(&[("EHLO", "250-test\r\n250 SIZE 100")]).await;
    let error = deliver(&server, &stage, json!({}), json!({})).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind, Kind::Permanent);
    assert!(
        error.text.contains("the server takes 100 at most"),
        "{error}"
    );
    assert!(server.mails().is_empty());
}

#[tokio::test]
async fn one_refused_recipient_is_in_nobodys_way() {
    let server =
        MailServer::start(&[("RCPT TO:<alice", "550 5.1.1 <alice@example.org> unknown")]).await;
    let stage = Stage::new();
    let outcome = deliver(&server, &stage, json!({}), json!({}))
        .await
        .unwrap();
    let Outcome::PartlyDelivered { receipt, note } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        note,
        "accepted for 1 of 2 recipients; a…@example.org refused: 550 5.1.1 <…@example.org> unknown"
    );
    let receipt = &receipt["domains"]["example.org"];
    assert_eq!(
        outcomes(receipt),
        [
            ("a…@example.org", "refused"),
            ("b…@example.org", "accepted")
        ]
    );
    assert_eq!(
        receipt["recipients"][0]["reply"],
        "550 5.1.1 <…@example.org> unknown"
    );
}

#[tokio::test]
async fn where_all_are_refused_the_delivery_has_failed_for_good() {
    for (script, text) in [
        (
            &[("RCPT", "550 5.1.1 unknown")][..],
            "answered 550 5.1.1 unknown",
        ),
        (&[("RCPT", "551 not local")], "answered 551 not local"),
        (&[("RCPT", "553 bad name")], "answered 553 bad name"),
        (
            &[("MAIL", "530 5.7.0 log in first")],
            "answered 530 5.7.0 log in first",
        ),
        (
            &[("MAIL", "550 5.7.1 not you")],
            "answered 550 5.7.1 not you",
        ),
        (
            &[("DATA", "554 no valid recipients")],
            "answered 554 no valid recipients",
        ),
        (&[(".", "552 5.3.4 too big")], "answered 552 5.3.4 too big"),
        (&[(".", "554 5.7.1 spam")], "answered 554 5.7.1 spam"),
    ] {
        let server = MailServer::start(script).await;
        let stage = Stage::new();
        let error = deliver(&server, &stage, json!({}), json!({})).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent, "{script:?}");
        let place = format!("localhost:{}", server.port);
        assert_eq!(
            error.text,
            format!("mail a…@example.org by {place}: {text}")
        );
        let answer = error.answer.unwrap();
        assert!(text.contains(&answer.status.to_string()));
    }
}

#[tokio::test]
async fn a_temporary_answer_is_tried_again_for_those_it_concerns() {
    for script in [
        &[("MAIL", "452 4.3.1 storage")][..],
        &[("RCPT", "450 4.2.0 greylisted")],
        &[("RCPT", "451 4.7.1 greylisted")],
        &[("DATA", "451 4.3.0 local error")],
        &[(".", "452 4.3.1 storage")],
        &[("MAIL", "421 4.3.2 closing")],
        &[("RCPT", "421 4.3.2 closing")],
        &[("RCPT", HANGS_UP)],
        &[("DATA", HANGS_UP)],
    ] {
        let server = MailServer::start(script).await;
        let stage = Stage::new();
        let error = deliver(&server, &stage, json!({}), json!({})).await;
        assert_eq!(error.unwrap_err().kind, AGAIN, "{script:?}");
        assert!(stage.recorded().is_empty());
    }
}

#[tokio::test]
async fn a_repeat_goes_to_those_alone_who_do_not_have_it() {
    let server = MailServer::start(&[("RCPT TO:<bob", "451 4.7.1 greylisted")]).await;
    let mut stage = Stage::new();
    let attached = json!({ "cc": "carol@example.com" });
    let error = deliver(&server, &stage, json!({}), attached.clone()).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind, AGAIN);
    let place = format!("localhost:{}", server.port);
    assert_eq!(
        error.text,
        format!("mail b…@example.org by {place}: answered 451 4.7.1 greylisted")
    );
    assert_eq!(server.mails().len(), 2);
    let recorded = stage.recorded();
    assert_eq!(outcomes(&recorded[1].1), [("a…@example.org", "accepted")]);

    stage.progress.extend(recorded);
    let again = MailServer::start(&[]).await;
    let outcome = deliver(&again, &stage, json!({}), attached).await.unwrap();
    let commands = again.commands();
    let rcpt: Vec<_> = commands
        .iter()
        .filter(|line| line.starts_with("RCPT"))
        .collect();
    assert_eq!(rcpt, ["RCPT TO:<bob@example.org>"]);
    assert_eq!(again.mails(), server.mails()[..1], "the very same mail");
    let Outcome::Delivered(receipt) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        outcomes(&receipt["domains"]["example.org"]),
        [
            ("a…@example.org", "accepted"),
            ("b…@example.org", "accepted")
        ]
    );
    assert_eq!(
        outcomes(&receipt["domains"]["example.com"]),
        [("c…@example.com", "accepted")]
    );
}

#[tokio::test]
async fn who_was_refused_for_good_is_not_asked_again() {
    let server = MailServer::start(&[
        ("RCPT TO:<alice", "550 unknown"),
        ("RCPT TO:<bob", "450 busy"),
    ])
    .await;
    let mut stage = Stage::new();
    let error = deliver(&server, &stage, json!({}), json!({})).await;
    assert_eq!(error.unwrap_err().kind, AGAIN);
    stage.progress.extend(stage.recorded());
    let again = MailServer::start(&[]).await;
    deliver(&again, &stage, json!({}), json!({})).await.unwrap();
    assert!(
        !again
            .commands()
            .contains(&"RCPT TO:<alice@example.org>".to_owned())
    );
}

#[tokio::test]
async fn a_mail_that_went_out_without_an_answer_may_have_arrived() {
    let server = MailServer::start(&[(".", HANGS_UP)]).await;
    let stage = Stage::new();
    let error = deliver(&server, &stage, json!({}), json!({})).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind, Kind::Indeterminate);
    assert!(
        error
            .text
            .contains("the mail for example.org was sent, but"),
        "{error}"
    );
    let recorded = stage.recorded();
    assert_eq!(
        recorded,
        [("unanswered example.org".to_owned(), json!(true))]
    );
}

#[tokio::test]
async fn a_mail_that_nobody_knows_of_is_sent_once_more_and_no_third_time() {
    let silent = MailServer::start(&[(".", HANGS_UP)]).await;
    let mut stage = Stage::new();
    let first = deliver(&silent, &stage, json!({}), json!({})).await;
    assert_eq!(first.unwrap_err().kind, Kind::Indeterminate);
    stage.progress.extend(stage.recorded());
    let before = stage.progress.clone();
    let second = deliver(&silent, &stage, json!({}), json!({})).await;
    let second = second.unwrap_err();
    assert_eq!(second.kind, Kind::Permanent);
    let reason = "for the second time: it may have arrived twice, once or not at all";
    assert!(second.text.ends_with(reason), "{second}");

    // One that answers at the second time has it, perhaps twice.
    let server = MailServer::start(&[]).await;
    stage.progress = before;
    let outcome = deliver(&server, &stage, json!({}), json!({}))
        .await
        .unwrap();
    let Outcome::Delivered(receipt) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(receipt["possibly_duplicated"], true);
}

#[tokio::test]
async fn a_mail_that_nobody_knows_of_keeps_nothing_from_other_domains() {
    let server = MailServer::start(&[("RCPT TO:<carol", "450 busy"), (".", HANGS_UP)]).await;
    let mut stage = Stage::new();
    let attached = json!({ "cc": "carol@example.com" });
    for kind in [Kind::Indeterminate, AGAIN, AGAIN] {
        let error = deliver(&server, &stage, json!({}), attached.clone()).await;
        assert_eq!(error.unwrap_err().kind, kind);
        stage.progress.extend(stage.recorded());
        stage.locks.borrow_mut().clear();
    }
    let heard = server.heard();
    let sent = heard.iter().filter(|line| *line == "DATA").count();
    assert_eq!(
        sent, 2,
        "the mail for example.org, once more and no third time"
    );
    let friendly = MailServer::start(&[]).await;
    let outcome = deliver(&friendly, &stage, json!({}), attached)
        .await
        .unwrap();
    let Outcome::PartlyDelivered { receipt, note } = outcome else {
        panic!("{outcome:?}")
    };
    let begin = "accepted for 1 of 3 recipients; a…@example.org unknown: the connection ended";
    assert!(note.starts_with(begin), "{note}");
    let outcomes = outcomes(&receipt["domains"]["example.org"]);
    assert_eq!(
        outcomes,
        [("a…@example.org", "unknown"), ("b…@example.org", "unknown")]
    );
}

#[tokio::test]
async fn a_connection_that_one_mail_broke_is_made_anew_for_the_next() {
    let server = MailServer::start(&[("RCPT TO:<carol", "421 4.7.0 closing")]).await;
    let stage = Stage::new();
    let attached = json!({ "cc": "carol@example.com" });
    let error = deliver(&server, &stage, json!({}), attached).await;
    assert_eq!(error.unwrap_err().kind, AGAIN);
    let commands = server.commands();
    let connected = commands.iter().filter(|line| *line == "(connected)");
    assert_eq!(connected.count(), 2);
    let recorded = stage.recorded();
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0].0, "example.org");
}

#[tokio::test]
async fn a_mail_that_was_begun_in_vain_is_taken_back_before_the_next() {
    for script in [
        &[("DATA", "451 4.3.0 local error")][..],
        &[("RCPT", "450 4.2.0 greylisted")],
    ] {
        let server = MailServer::start(script).await;
        let attached = json!({ "cc": "carol@example.com" });
        let error = deliver(&server, &Stage::new(), json!({}), attached).await;
        assert_eq!(error.unwrap_err().kind, AGAIN);
        let heard = server.heard();
        let verbs: Vec<&str> = heard
            .iter()
            .map(|line| &line[..4])
            .filter(|verb| ["MAIL", "RSET", "QUIT"].contains(verb))
            .collect();
        assert_eq!(verbs, ["MAIL", "RSET", "MAIL", "RSET", "QUIT"]);
    }
}

#[tokio::test]
async fn no_secret_and_no_whole_address_is_shown() {
    let plain = base64_simd::STANDARD.encode_to_string(format!("\0ci\0{PASSWORD}"));
    let said = format!("535 no canary-9c1f, {plain} for alice@example.org");
    let script = Box::leak(Box::new([("AUTH", &*said.leak())]));
    let server = MailServer::start(script).await;
    let registered = registration(&server, with_password());
    let redactor = crate::Redactor::default();
    redactor.learn(PASSWORD);
    let error = Smtp::register(&trusting().masking(&redactor), &registered).await;
    let error = error.unwrap_err();
    let shown = format!("{error} {error:?} {registered:?}");
    for secret in [PASSWORD, "canary", &plain, "alice@", "bob@"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    let said = error
        .text
        .rsplit_once("535 no …, ")
        .expect("what was said")
        .1;
    assert!(said.ends_with("… for …@example.org"), "{error}");
}

#[tokio::test]
async fn the_preview_is_what_is_sent() {
    let server = MailServer::start(&[]).await;
    let stage = Stage::new();
    let registration = registration(&server, with_password());
    let attachment = attachment(json!({
        "cc": "carol@example.com",
        "subject": "{{ workflow.name }}: {{ policy.status }}",
        "template": ".\n..\n{{ workflow.project }} <b>\n",
    }));
    let delivery = stage.delivery(&registration, &attachment);
    let previews = Smtp::preview(&stage, &delivery).await.unwrap();
    Smtp::deliver(&trusting(), &stage, &delivery).await.unwrap();
    let mails = server.mails();
    assert_eq!((previews.len(), mails.len()), (2, 2));
    for (preview, mail) in previews.iter().zip(&mails) {
        assert_eq!(preview.body, *mail);
        assert_eq!(preview.digest, Digest::of(mail.as_bytes()));
        assert_eq!(preview.size_bytes, mail.len() as u64);
        assert_eq!(preview.target, format!("smtp://localhost:{}", server.port));
        assert_eq!(preview.headers["MAIL FROM"], "ci@example.net");
        assert!(!format!("{preview:?}").contains("canary"));
    }
    assert_eq!(previews[0].headers["RCPT TO"], "carol@example.com");
    assert_eq!(
        previews[1].headers["RCPT TO"],
        "alice@example.org, bob@example.org"
    );
    assert!(mails[0].contains("shop &lt;b&gt;"), "{}", mails[0]);
}

#[test]
fn domains_for_which_no_time_is_left_follow_in_another_attempt() {
    let registration: Registration = serde_json::from_value(json!({
        "to": "a@example.org", "from": "b@example.org", "host": "localhost", "port": 25,
    }))
    .unwrap();
    let (server, progress) = (Server::of(&registration, &trusting()), BTreeMap::new());
    let mut outcomes = Outcomes::new(&server, &progress);
    outcomes.is_cut = true;
    let outcome = outcomes.outcome("<a@example.org>").unwrap();
    let Outcome::ContinueAfter { delay, reason } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(delay, Duration::from_secs(1));
    assert_eq!(reason, "localhost:25 is slow; the other domains follow");
}

// --- words --------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_mail_says_how_the_policies_went_and_where_the_run_is() {
    let server = MailServer::start(&[]).await;
    let stage = Stage::new();
    deliver(&server, &stage, json!({}), json!({}))
        .await
        .unwrap();
    fixture::compare("smtp-mail.eml", &server.mails()[0].replace("\r\n", "\n"));
}

#[tokio::test]
async fn what_a_stranger_wrote_is_text_and_no_markup() {
    let server = MailServer::start(&[]).await;
    let mut stage = Stage::new();
    stage.workflow.name = "<img src=canary>\r\nBcc: canary@example.org".to_owned();
    deliver(&server, &stage, json!({}), json!({}))
        .await
        .unwrap();
    let mail = server.mails().remove(0);
    assert!(!mail.contains("\r\nBcc:"), "{mail}");
    let (_, html) = mail.split_once("text/html").unwrap();
    assert!(html.contains("&lt;img") && !html.contains("<img"), "{html}");
    assert!(!mail.contains("canary@example.org"), "{mail}");
}

#[tokio::test]
async fn a_template_that_cannot_be_filled_is_told_and_nothing_is_sent() {
    let server = MailServer::start(&[]).await;
    let attached = json!({ "subject": "{{ attestation.annotations.nowhere }}" });
    let error = deliver(&server, &Stage::new(), json!({}), attached).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind, Kind::Permanent);
    assert!(
        error.text.starts_with("write the mail's subject: "),
        "{error}"
    );
    assert!(server.heard().is_empty());
}
