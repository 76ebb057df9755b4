//! `chainloop intake`: URLs to which a Chainloop control plane posts what it accepts.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use pipeline::api::intakes::{Intake, NewIntake, NewToken};
use serde::Serialize;

use crate::arguments::Global;
use crate::client::{Call, Client, json};
use crate::confirm;
use crate::options;
use crate::output::{self, Format};
use crate::table::{Table, cell};
use crate::time;

/// More than an organization has.
const MOST: usize = 100_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a URL for a Chainloop control plane, and say what to type there
    #[command(
        after_help = "The URL holds a token. It is shown this once; whoever knows it may push.\n\nA token's value \
                      can be @FILE, - (standard input) or env:NAME, so that it stays out of the shell's \
                      history.\n\nExample:\n  chainloop intake create --name production --cas-url \
                      https://cp.chainloop.example.org --cas-token @cas-token.txt"
    )]
    Create(Create),
    /// List the URLs there are, without their tokens
    #[command(visible_alias = "ls", after_help = "Example:\n  chainloop intake list")]
    List,
    /// Delete one: what is posted to it is not taken any more
    #[command(after_help = "Example:\n  chainloop intake delete --name production -y")]
    Delete {
        /// Its name
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// A name for it: lower-case letters, digits and hyphens
    #[arg(long)]
    name: String,
    /// Where Chainloop's artifacts are, to fetch materials that it only names: the control plane's URL
    #[arg(long, requires = "cas_token", value_name = "URL")]
    cas_url: Option<String>,
    /// An API token of Chainloop's that may download them: @FILE, - or env:NAME
    #[arg(
        long,
        requires = "cas_url",
        value_name = "TOKEN",
        allow_hyphen_values = true
    )]
    cas_token: Option<String>,
    /// Certificates in PEM of authorities that are trusted there beside the public ones
    #[arg(long, requires = "cas_url", value_name = "FILE")]
    cas_ca_certificates: Option<PathBuf>,
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run(global),
            Self::List => list(global),
            Self::Delete { name } => delete(global, &name),
        }
    }
}

/// What `create` prints as JSON.
#[derive(Serialize)]
struct Created {
    #[serde(flatten)]
    intake: Intake,
    url: String,
    /// To be typed in Chainloop's own command line.
    commands: [String; 2],
}

impl Create {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        let Self {
            name,
            cas_url,
            cas_token,
            cas_ca_certificates,
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
        };
        let NewToken { intake, token } = client
            .call(&Call::post(&["intakes"], json(&new)?))
            .with_context(|| format!("failed to make the intake {:?}", new.name))?;
        let url = format!("{}/v1/intake/{token}", client.base());
        let created = Created {
            commands: commands(&intake, &url),
            intake,
            url,
        };
        global.info(&format!(
            "the intake {:?} is made; its URL is shown this once: keep it as a secret",
            created.intake.name
        ));
        match global.output {
            Format::Json => output::json(&created)?,
            Format::Table => {
                let [register, attach] = &created.commands;
                output::line(&format!(
                    "{}\n\nIn Chainloop, by its own command line:\n\n  {register}\n  {attach}",
                    created.url
                ))?;
            }
        }
        Ok(())
    }
}

/// What makes Chainloop post to the URL. SBOMs are posted only where they cannot be fetched: they are not bounded
/// there as bodies are here.
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
            "Delete the intake {name:?}? What Chainloop posts to it will not be taken any more."
        ))
    })?;
    let intake: Intake = Client::new(global)?
        .call(&Call::delete(&["intakes", name]))
        .with_context(|| format!("failed to delete the intake {name:?}"))?;
    global.info(&format!("the intake {name:?} is deleted"));
    if global.output == Format::Json {
        output::json(&intake)?;
    }
    Ok(())
}

fn rows(intakes: &[Intake]) -> Table {
    let mut table = Table::new(&["NAME", "FETCHES FROM", "BY", "CREATED"]).whole(0);
    for intake in intakes {
        table.row(vec![
            cell(&intake.name),
            cell(intake.cas_url.as_deref().unwrap_or("-")),
            cell(&intake.created_by),
            cell(time::exact(intake.created_at)),
        ]);
    }
    table
}
