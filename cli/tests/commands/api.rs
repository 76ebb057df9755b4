//! An API that says what it was told to say, and keeps what it was asked.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use receiver::{Answer, Server};
use serde_json::Value;

pub(crate) use receiver::Received as Asked;

pub(crate) struct Api {
    pub url: String,
    server: Server,
}

impl Api {
    /// `answer` is given the API's own address and what was asked.
    pub(crate) fn start(
        answer: impl Fn(&str, &Asked) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let server = Server::start(move |_, asked| {
            let host = asked.header("host").unwrap_or_default();
            let (status, body) = answer(&format!("http://{host}"), asked);
            let answer = Answer::status(status).header("apigw-requestid", "req-9");
            answer.body(body)
        });
        let url = server.origin();
        Self { url, server }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.server.received()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }

    /// Runs the command against this API.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    /// As [`run`](Self::run), with something to read on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &str) -> Ran {
        run_with(
            arguments,
            &[
                ("CHAINLOOP_URL", &self.url),
                ("CHAINLOOP_TOKEN", "cli_test"),
            ],
            stdin,
        )
    }
}

pub(crate) struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|_| panic!("{}\n{}", self.stdout, self.stderr))
    }
}

pub(crate) fn run_with(arguments: &[&str], variables: &[(&str, &str)], stdin: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chainloop"))
        .args(arguments)
        .env_clear()
        .env("TZ", "UTC")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without having read it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    Ran {
        code: status.code().unwrap(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// Returns the text that a command shows on a terminal of so many columns.
pub(crate) fn on_terminal(url: &str, arguments: &[&str], columns: usize) -> String {
    let quoted: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
    let binary = env!("CARGO_BIN_EXE_chainloop");
    let typed = format!("stty cols {columns}; '{binary}' {}", quoted.join(" "));
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &typed, "/dev/null"])
        .env_clear()
        .env("TZ", "UTC")
        .env("NO_COLOR", "1")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("CHAINLOOP_URL", url)
        .env("CHAINLOOP_TOKEN", "cli_test")
        .stdin(Stdio::null())
        .output()
        .expect("`script`, of util-linux, gives the command a terminal");
    String::from_utf8(output.stdout)
        .unwrap()
        .replace("\r\n", "\n")
}
