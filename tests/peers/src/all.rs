//! All third parties at once, for somebody who tries things out: where they are and what they want to be told is in a
//! file for the shell, and what they were sent in a folder, where it can be looked at.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use base64_simd::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use serde_json::Value;

use crate::blob::S3;
use crate::dependency_track::{DependencyTrack, V5};
use crate::discord::Discord;
use crate::registry::{self, DockerRegistry};
use crate::slack::Slack;
use crate::{Aiosmtpd, Double, http};

const REPOSITORY: &str = "acme/attestations";
const API_KEY: &str = "odt_key-of-nobody";

pub struct AllPeers {
    directory: PathBuf,
    dependency_track: DependencyTrack,
    discord: Discord,
    discord_webhook: String,
    mail: Aiosmtpd,
    registry: DockerRegistry,
    s3: S3,
    slack: Slack,
    slack_webhook: String,
    webhook: Double,
    /// Runtime of the requests to the registry.
    runtime: tokio::runtime::Runtime,
}

impl AllPeers {
    /// Starts them, and writes `env` into the directory: the variables of [`variables`](Self::variables).
    pub fn start(directory: &Path) -> Self {
        let dependency_track = DependencyTrack::start(V5);
        let permissions = ["BOM_UPLOAD", "VIEW_PORTFOLIO", "PROJECT_CREATION_UPLOAD"];
        dependency_track.grant(API_KEY, "ci", &permissions);
        let (discord, slack) = (Discord::start(), Slack::start());
        let peers = Self {
            directory: directory.to_owned(),
            dependency_track,
            discord_webhook: discord.webhook(),
            discord,
            mail: Aiosmtpd::start(crate::aiosmtpd::Options::default()),
            registry: DockerRegistry::with_password(),
            s3: S3::start(),
            slack_webhook: slack.hook(),
            slack,
            webhook: Double::start(|_| Response::new(Bytes::new())),
            runtime: tokio::runtime::Runtime::new().unwrap(),
        };
        // What another one was sent is not what this one has.
        let _ = fs::remove_dir_all(peers.received());
        fs::create_dir_all(peers.received()).unwrap();
        let mut text = String::new();
        for (name, value) in peers.variables() {
            writeln!(text, "export {name}='{value}'").unwrap();
        }
        whole(&directory.join("env"), text.as_bytes());
        peers
    }

    /// Returns the variables that registering them takes. None holds a real secret.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "DEPENDENCY_TRACK",
                self.dependency_track.origin().to_owned(),
            ),
            ("DEPENDENCY_TRACK_KEY", API_KEY.to_owned()),
            ("DISCORD_WEBHOOK", self.discord_webhook.clone()),
            ("MAIL_PORT", self.mail.port.to_string()),
            ("REGISTRY", self.registry.repository(REPOSITORY)),
            ("REGISTRY_USERNAME", registry::USERNAME.to_owned()),
            ("REGISTRY_PASSWORD", registry::PASSWORD.to_owned()),
            ("S3_ENDPOINT", self.s3.origin.clone()),
            ("S3_BUCKET", S3::BUCKET.to_owned()),
            ("S3_ACCESS_KEY_ID", S3::ACCESS_KEY_ID.to_owned()),
            ("S3_SECRET", S3::SECRET.to_owned()),
            ("SLACK_WEBHOOK", self.slack_webhook.clone()),
            ("WEBHOOK", format!("{}/chainloop", self.webhook.origin)),
        ]
    }

    /// Returns the directory of everything that they were sent.
    pub fn received(&self) -> PathBuf {
        self.directory.join("received")
    }

    /// Writes down what they were sent by now.
    pub fn keep(&self) {
        for (number, message) in self.slack.messages(&self.slack_webhook).iter().enumerate() {
            self.file(&format!("slack/{number:04}.json"), &pretty(message));
        }
        let messages = self.discord.messages(&self.discord_webhook);
        for (number, message) in messages.into_iter().enumerate() {
            let (json, files) = (pretty(&message.payload), message.files);
            self.file(&format!("discord/{number:04}.json"), &json);
            for (name, bytes) in files {
                self.file(&format!("discord/{number:04}-{name}"), &bytes);
            }
        }
        for (number, mail) in self.mail.mails().iter().enumerate() {
            let content = mail["content"].as_str().unwrap();
            self.file(&format!("mail/{number:04}.eml"), content.as_bytes());
        }
        for (number, request) in self.webhook.received().iter().enumerate() {
            let body = serde_json::from_slice(request.body()).map(|body| pretty(&body));
            let body = body.unwrap_or_else(|_| request.body().to_vec());
            self.file(&format!("webhook/{number:04}.json"), &body);
        }
        for project in self.dependency_track.projects() {
            let version = project.version.unwrap_or_default();
            for (number, sbom) in project.sboms.iter().enumerate() {
                let name = format!("{}-{version}-{number:04}.cdx.json", project.name);
                self.file(&format!("dependency-track/{name}"), sbom);
            }
        }
        for (key, bytes) in self.s3.objects() {
            // While it is written it has a name of its own.
            if !key.starts_with('.') {
                self.file(&format!("bucket/{key}"), &bytes);
            }
        }
        let tags = self.ask("tags/list");
        for tag in tags["tags"].as_array().into_iter().flatten() {
            let tag = tag.as_str().unwrap();
            let manifest = self.ask(&format!("manifests/{tag}"));
            self.file(&format!("registry/{tag}.json"), &pretty(&manifest));
        }
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        let path = self.received().join(name);
        if !path.exists() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            whole(&path, bytes);
        }
    }

    /// Returns the registry's JSON response about our repository; null if the body is no JSON.
    fn ask(&self, what: &str) -> Value {
        let account = format!("{}:{}", registry::USERNAME, registry::PASSWORD);
        let request = Request::get(format!("{}/v2/{REPOSITORY}/{what}", self.registry.origin()))
            .header("accept", "application/vnd.oci.image.manifest.v1+json")
            .header(
                "authorization",
                format!("Basic {}", STANDARD.encode_to_string(account)),
            )
            .body(Bytes::new())
            .unwrap();
        let answer = self.runtime.block_on(http().send(request)).unwrap();
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }
}

fn pretty(json: &Value) -> Vec<u8> {
    format!("{json:#}\n").into_bytes()
}

/// Whole at once for whoever looks for it.
fn whole(path: &Path, bytes: &[u8]) {
    let beside = path.with_file_name(format!(".{}", path.file_name().unwrap().display()));
    fs::write(&beside, bytes).unwrap();
    fs::rename(&beside, path).unwrap();
}
