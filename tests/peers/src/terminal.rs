//! Somebody's terminal in front of the deployed stack: a folder, an organization that nobody else has, and a shell
//! that is given what stands in our pages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Folder, SBOM};

/// A variable that `make test` sets.
pub fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test`"))
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns the contents of the fenced blocks of one language in a page, in order.
pub fn fenced(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start() == format!("```{language}") {
            let inside = lines.by_ref().take_while(|line| line.trim() != "```");
            let inside: Vec<_> = inside
                .map(|line| line.get(indent..).unwrap_or_default())
                .collect();
            blocks.push(inside.join("\n"));
        }
    }
    blocks
}

/// Exit code and output of a script.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub struct Terminal {
    folder: Folder,
    variables: BTreeMap<String, String>,
}

impl Terminal {
    /// With a new organization, whose admin sits here.
    pub fn new(name: &str) -> Self {
        let chainloop = PathBuf::from(given("CHAINLOOP"));
        let own = chainloop.parent().unwrap().display().to_string();
        let path = format!("{own}:{}", given("PATH"));
        let folder = Folder::new(name);
        let home = folder.path().display().to_string();
        let mut variables = BTreeMap::from([
            ("HOME".to_owned(), home),
            ("PATH".to_owned(), path),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("TZ".to_owned(), "UTC".to_owned()),
        ]);
        for name in [
            "CHAINLOOP_INTEGRATIONS_URL",
            "CHAINLOOP_INTEGRATIONS_TABLE",
            "AWS_ENDPOINT_URL",
            "AWS_REGION",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
        ] {
            variables.insert(name.to_owned(), given(name));
        }
        let mut terminal = Self { folder, variables };
        // A run before this one may have had the name.
        let organization = format!("{name}-{}", std::process::id());
        let made = terminal.run(&format!(
            "chainloop bootstrap --new-token --organization {organization}"
        ));
        let token = made
            .stdout
            .trim()
            .strip_prefix("export CHAINLOOP_INTEGRATIONS_TOKEN=");
        let token = token.unwrap_or_else(|| panic!("{}", made.stderr));
        terminal.set("CHAINLOOP_INTEGRATIONS_TOKEN", token);
        terminal.write("shop.cdx.json", SBOM);
        terminal
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    pub fn variable(&self, name: &str) -> &str {
        &self.variables[name]
    }

    /// Runs what was typed.
    pub fn run(&self, script: &str) -> Ended {
        let output = Command::new("bash")
            .args(["-c", script])
            .current_dir(self.path())
            .env_clear()
            .envs(&self.variables)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Runs what was typed, which must succeed, and gives all that the screen then shows.
    pub fn shown(&self, script: &str) -> String {
        let Ended { code, stdout, .. } = self.run(&format!("exec 2>&1\n{script}"));
        assert_eq!(code, 0, "$ {script}\n{stdout}");
        stdout
    }

    /// Runs `chainloop`, which must succeed, and reads what it says as JSON.
    pub fn ask(&self, words: &str) -> serde_json::Value {
        let Ended {
            code,
            stdout,
            stderr,
        } = self.run(&format!("chainloop {words} -o json"));
        assert_eq!(code, 0, "$ chainloop {words}\n{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }
}
