//! `chainloop intake`: manages the URLs that a Chainloop control plane posts attestations to.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use api::Network;
use api::intakes::{Intake, NewIntake, NewToken};
use api::tokens::Rotation;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::called;
use crate::client::{Call, Client, json};
use crate::confirm;
use crate::global::Global;
use crate::options;
use crate::organization::{Lifetime, lifetime};
use crate::output::{self, Format};
use crate::table::{Cell, Color, Table, cell, last_use, paint};
use crate::time;

/// More than an organization has.
const MOST: usize = 100_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create an intake, and print its URL and the official command's lines that register it in Chainloop
    #[command(
        after_help = "The URL contains a token and is shown only once; anyone who has it may push.\n\nPass a \
                      token as @FILE, - (standard input) or env:NAME to keep it out of the shell's \
                      history.

Example:
  chainloop intake create --name production \\
    --cas-url https://cp.chainloop.example.org --cas-token @cas-token.txt
  chainloop intake create --name shop --workflow 'shop/*' \\
    --allow-from 192.0.2.0/24 --expires 90d"
    )]
    Create(Create),
    /// List intakes, without their tokens
    #[command(visible_alias = "ls", after_help = "Example:\n  chainloop intake list")]
    List,
    /// Replace an intake's URL; the old one keeps working for a while
    #[command(
        after_help = "The new URL is shown only once. Register it in Chainloop before the overlap ends. If the \
                      URL expires, its lifetime starts again.\n\nWhile the URL before the last rotation still \
                      works, only --overlap 0s is accepted: it ends all older URLs at once, for example after a \
                      leak.\n\nExample:\n  \
                      chainloop intake rotate production --overlap 48h"
    )]
    Rotate(Rotate),
    /// Delete an intake; its URL stops working
    #[command(after_help = "Example:\n  chainloop intake delete --name production -y")]
    Delete {
        /// Name of the intake
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name of the intake: lower-case letters, digits and hyphens
    #[arg(long)]
    name: String,
    /// URL of the control plane from which to fetch materials that its posts only name
    #[arg(long, requires = "cas_token", value_name = "URL")]
    cas_url: Option<String>,
    /// Chainloop API token that may download artifacts: @FILE, - or env:NAME
    #[arg(
        long,
        requires = "cas_url",
        value_name = "TOKEN",
        allow_hyphen_values = true
    )]
    cas_token: Option<String>,
    /// PEM file of certificate authorities to trust at --cas-url, in addition to the public ones
    #[arg(long, requires = "cas_url", value_name = "FILE")]
    cas_ca_certificates: Option<PathBuf>,
    /// Lifetime of the URL, such as 12h, 90d or 1y, or never
    #[arg(long, value_name = "DURATION", default_value = "never", value_parser = lifetime)]
    expires: Lifetime,
    /// Addresses that may post, such as 192.0.2.0/24 or 2001:db8::/32; all by default; can be repeated
    #[arg(long, value_name = "CIDR")]
    allow_from: Vec<Network>,
    /// Workflows to accept attestations of: project/name, 'project/*' or an ID; all by default; can be repeated
    #[arg(long = "workflow", value_name = "WORKFLOW")]
    workflows: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// Name of the intake
    #[arg(
        value_name = "NAME",
        required_unless_present = "by_name",
        conflicts_with = "by_name"
    )]
    name: Option<String>,
    /// Name of the intake
    #[arg(long = "name", id = "by_name", value_name = "NAME")]
    by_name: Option<String>,
    /// Time for which the old URL keeps working, such as 0s, 12h or 7d; at most 30d
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = time::span)]
    overlap: Duration,
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run(global),
            Self::List => list(global),
            Self::Rotate(rotate) => rotate.run(global),
            Self::Delete { name } => delete(global, &name),
        }
    }
}

/// JSON output of `create` and `rotate`.
#[derive(Serialize)]
struct Created {
    #[serde(flatten)]
    intake: Intake,
    url: String,
    /// Commands for the official `chainloop` command.
    commands: [String; 2],
}

impl Create {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        let Self {
            name,
            cas_url,
            cas_token,
            cas_ca_certificates,
            expires,
            allow_from,
            workflows,
        } = self;
        let cas_ca_certificates = cas_ca_certificates
            .map(|path| {
                fs::read_to_string(&path)
                    .with_context(|| format!("failed to read {}", path.display()))
            })
            .transpose()?;
        let cas_token = match cas_token {
            None => None,
            Some(given) => Some(options::secret(global, "cas-token", &given)?),
        };
        let client = Client::new(global)?;
        let new = NewIntake {
            name,
            cas_url,
            cas_token,
            cas_ca_certificates,
            expires_in_secs: expires.secs(),
            allow_from: allow_from.iter().map(Network::to_string).collect(),
            workflows,
        };
        let made = client
            .call(&Call::post(&["intakes"], json(&new)?))
            .with_context(|| format!("failed to create the intake {:?}", new.name))?;
        show_once(global, &client, made, "created; its URL")
    }
}

impl Rotate {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        let name = self.name.or(self.by_name).unwrap_or_default();
        let client = Client::new(global)?;
        let overlap_secs = Some(self.overlap.as_secs());
        let path = ["intakes", &name, "rotate"];
        let rotated: NewToken = client
            .call(&Call::post(&path, json(&Rotation { overlap_secs })?))
            .with_context(|| format!("failed to rotate the intake {name:?}"))?;
        let old = match rotated.intake.overlap_until {
            Some(until) => format!("the old URL works until {}", time::exact(until)),
            None => "the old URL has ended".to_owned(),
        };
        show_once(
            global,
            &client,
            rotated,
            &format!("rotated; {old}; the new URL"),
        )
    }
}

/// Prints a new URL, and the commands that register it in Chainloop.
fn show_once(global: &Global, client: &Client, made: NewToken, what: &str) -> anyhow::Result<()> {
    let NewToken { intake, token } = made;
    let url = format!("{}/v1/intake/{token}", client.base());
    let created = Created {
        commands: commands(&intake, &url),
        intake,
        url,
    };
    global.info(&format!(
        "intake {:?} {what} is shown only once: keep it secret",
        created.intake.name
    ));
    match global.output {
        Format::Json => output::json(&created)?,
        Format::Table => {
            let [register, attach] = &created.commands;
            let name = called::name();
            output::line(&format!(
                "{}\n\nThe official chainloop command, of the control plane, registers and attaches it:\n\n  \
                 {register}\n  {attach}\n\nThis command, also installed as chainloop-integrations, shows what \
                 arrives:\n\n  {name} attestation list",
                created.url
            ))?;
        }
    }
    Ok(())
}

/// Returns the commands that make Chainloop post to the URL. They post SBOMs only if these cannot be fetched: an SBOM
/// may make a post larger than this API accepts.
fn commands(intake: &Intake, url: &str) -> [String; 2] {
    let name = &intake.name;
    let send_sbom = intake.cas_url.is_none();
    [
        // In quotes: a local stack's URL has a dollar sign.
        format!("chainloop integration registered add webhook --name {name} --opt 'url={url}'"),
        format!(
            "chainloop integration attached add --integration {name} --project PROJECT --workflow WORKFLOW --opt \
             send_attestation=true --opt send_sbom={send_sbom}"
        ),
    ]
}

fn list(global: &Global) -> anyhow::Result<()> {
    let (intakes, _): (Vec<Intake>, _) = Client::new(global)?
        .list(&["intakes"], &[], MOST)
        .context("failed to list the intakes")?;
    match global.output {
        Format::Json => output::json(&intakes)?,
        Format::Table if intakes.is_empty() => output::line("there are no intakes")?,
        Format::Table => output::line(&rows(&intakes).to_string())?,
    }
    Ok(())
}

fn delete(global: &Global, name: &str) -> anyhow::Result<()> {
    confirm::deletion(global, || {
        Ok(format!(
            "Delete the intake {name:?}? Chainloop's posts to it will be refused."
        ))
    })?;
    let intake: Intake = Client::new(global)?
        .call(&Call::delete(&["intakes", name]))
        .with_context(|| format!("failed to delete the intake {name:?}"))?;
    global.info(&format!("intake {name:?} deleted"));
    if global.output == Format::Json {
        output::json(&intake)?;
    }
    Ok(())
}

fn rows(intakes: &[Intake]) -> Table {
    let headers = [
        "NAME",
        "FETCHES FROM",
        "RESTRICTED TO",
        "CREATED BY",
        "CREATED",
        "EXPIRES",
        "LAST USED",
    ];
    let mut table = Table::new(&headers);
    for intake in intakes {
        table.row(vec![
            cell(&intake.name),
            cell(intake.cas_url.as_deref().unwrap_or("-")),
            cell(conditions(intake)),
            cell(&intake.created_by),
            cell(time::exact(intake.created_at)),
            expiry(intake),
            last_use(intake.last_used_at, intake.last_used_from.as_deref()),
        ]);
    }
    table
}

fn conditions(intake: &Intake) -> String {
    let all: Vec<&str> = intake
        .workflows
        .iter()
        .chain(&intake.allow_from)
        .map(String::as_str)
        .collect();
    match all.is_empty() {
        true => "-".to_owned(),
        false => all.join("\n"),
    }
}

fn expiry(intake: &Intake) -> Cell {
    let newest = match (intake.expires_at, intake.expired) {
        (None, _) => "never".to_owned(),
        (Some(at), false) => time::exact(at),
        (Some(at), true) => format!("expired {}", time::exact(at)),
    };
    let overlap = intake.overlap_until;
    let overlap = overlap.map(|until| format!("\nold URL {}", time::exact(until)));
    let cell = cell(newest + &overlap.unwrap_or_default());
    match intake.expired {
        true => paint(cell, Color::Red),
        false => cell,
    }
}
