//! `chainloop apply` and `chainloop export`: registrations, attachments and trust policies as code.

mod carry;
mod check;
mod export;
mod file;
mod node;
mod plan;
mod policy;
mod secret;
mod show;
mod state;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use api::integrations::Integration;
use clap::Args;

pub(crate) use self::export::{HELP as EXPORT_HELP, export};
use self::file::Text;
use self::plan::{Plan, Step, Wishes};
use self::state::Open;
use crate::client::Client;
use crate::confirm::{self, Action};
use crate::failure::Failure;
use crate::global::Global;
use crate::integration::available;
use crate::output::{self, Format};

const HELP: &str = "\
A file describes registrations and their attachments, trust policies, or both. Each secret has a source: { env: NAME }, { file: PATH }, or \
{ secret: ARN } for Secrets Manager, with #key after the ARN for one value of a JSON object. `chainloop export` \
prints such a file.

  registrations:
    - name: prod-images
      integration: oci-registry
      inputs: { repository: registry.example.org/attestations, username: ci }
      secrets: { password: { env: REGISTRY_PASSWORD } }
      attachments:
        - workflow: shop/release
          inputs: { prefix: custom-prefix }
  trust_policies:
    - name: release
      workflow: shop/*
      mode: require
      signers:
        - { kind: key, name: release, pem: { file: release.pub } }

Secrets are sent when a registration is created, when it gains or loses one, when their destination changes, and \
with --rotate; they are not compared.

Exit codes with --dry-run --exit-code: 0 no changes · 5 changes

Example:
  chainloop apply -f integrations.yaml --dry-run
  chainloop apply -f integrations.yaml --prune";

/// Exit code of `--dry-run --exit-code` if the plan has steps; 2 would be a usage error.
const CHANGES: u8 = 5;

/// Maximum size of a file, larger than any list that a person maintains.
const FILE_MOST_BYTES: u64 = 4 * 1024 * 1024;

/// Maximum number of faults shown.
const FAULTS_MOST: usize = 100;

const DEED: Action = Action {
    what: "apply the plan",
    refused: "nothing was changed",
};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Apply {
    /// File of registrations, attachments and trust policies, YAML or JSON; - for standard input; can be repeated
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Delete registrations, attachments and trust policies that are in no file, of a list that some file has
    #[arg(long)]
    prune: bool,
    /// Resend the secrets of this registration; can be repeated
    #[arg(long, value_name = "NAME")]
    rotate: Vec<String>,
    /// Show the plan without applying it or reading secrets
    #[arg(long)]
    dry_run: bool,
    /// Exit with 5 if the plan has changes
    #[arg(long, requires = "dry_run")]
    exit_code: bool,
}

impl Apply {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        let texts = texts(&self.files)?;
        let wanted = file::read(&texts).map_err(wrong)?;
        let client = Client::new(global)?;
        let integrations = available::all(&client)?;
        let registrations = wanted.registrations.as_deref();
        let faults = check::check(registrations.unwrap_or_default(), &integrations);
        if !faults.is_empty() {
            return Err(wrong(faults).into());
        }
        let wishes = Wishes {
            prune: self.prune && registrations.is_some(),
            rotate: self.rotate.into_iter().collect::<BTreeSet<_>>(),
        };
        let there = state::read(&client)?;
        let mut plan = plan::plan(
            registrations.unwrap_or_default(),
            &there,
            &integrations,
            &wishes,
        )
        .map_err(wrong)?;
        if let Some(policies) = &wanted.policies {
            let there = state::policies(&client)?;
            plan.trust(policies, &there, self.prune).map_err(wrong)?;
        }
        let open = open(&client, &plan)?;
        if global.output == Format::Table {
            let coloured = output::coloured(&std::io::stdout());
            output::line(&show::text(&plan, &open, self.prune, coloured))?;
        }
        if self.dry_run || plan.steps.is_empty() {
            if global.output == Format::Json {
                output::json(&show::json(&plan, &open, &[]))?;
            }
            let changes = self.exit_code && !plan.steps.is_empty();
            return Ok(ExitCode::from(if changes { CHANGES } else { 0 }));
        }
        if global.output == Format::Json && !global.yes {
            let failure = Failure::usage("cannot ask for confirmation with -o json");
            return Err(failure
                .advice("Pass -y to skip the confirmation, or --dry-run to see the plan.")
                .into());
        }
        let secrets = carry::secrets(&plan, &integrations)?;
        confirm::action(global, &DEED, || Ok(question(&plan)))?;
        let (outcomes, result) = carry::carry(global, &client, &plan, secrets);
        if global.output == Format::Json {
            output::json(&show::json(&plan, &open, &outcomes))?;
        }
        result.map(|()| ExitCode::SUCCESS)
    }
}

/// Returns a configuration as `chainloop export` would write it, or all its faults. Reads no secret.
pub fn formatted(text: &str, integrations: &[Integration]) -> Result<String, Vec<String>> {
    let text = Text {
        name: "configuration".to_owned(),
        directory: PathBuf::new(),
        content: text.to_owned(),
    };
    let wanted = file::read(&[text])?;
    let registrations = wanted.registrations.as_deref().unwrap_or_default();
    let faults = check::check(registrations, integrations);
    match faults.is_empty() {
        true => Ok(export::written(wanted)),
        false => Err(faults),
    }
}

fn question(plan: &Plan) -> String {
    match show::deletions(plan) {
        0 => "Apply the plan?".to_owned(),
        1 => "Apply the plan, with 1 deletion?".to_owned(),
        many => format!("Apply the plan, with {many} deletions?"),
    }
}

fn wrong(mut faults: Vec<String>) -> Failure {
    let more = faults.len().saturating_sub(FAULTS_MOST);
    faults.truncate(FAULTS_MOST);
    if more > 0 {
        faults.push(format!("… and {more} more"));
    }
    Failure::usage("invalid configuration; nothing was changed").faults(faults)
}

fn texts(files: &[PathBuf]) -> anyhow::Result<Vec<Text>> {
    let is_stdin = |path: &&PathBuf| path.as_os_str() == "-";
    if files.iter().filter(is_stdin).count() > 1 {
        return Err(Failure::usage("standard input can be given only once").into());
    }
    let texts = files.iter().map(|path| {
        let (name, text) = match is_stdin(&path) {
            true => ("standard input".to_owned(), text(std::io::stdin().lock())),
            false => {
                let file = std::fs::File::open(path);
                (path.display().to_string(), file.and_then(text))
            }
        };
        let text = text.with_context(|| format!("failed to read {name}"))?;
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Text {
            name,
            directory,
            content: text,
        })
    });
    texts.collect()
}

fn text(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(FILE_MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MOST_BYTES {
        return Err(std::io::Error::other("it is larger than 4 MiB"));
    }
    Ok(text)
}

/// Counts the open deliveries that each deletion step would cancel.
fn open(client: &Client, plan: &Plan) -> anyhow::Result<Vec<Option<Open>>> {
    let open = plan.steps.iter().map(|step| match step {
        Step::Detach { of, there, .. } => state::open(client, of, Some(&there.id)).map(Some),
        Step::Deregister { there } => state::open(client, &there.id, None).map(Some),
        _ => Ok(None),
    });
    open.collect()
}
