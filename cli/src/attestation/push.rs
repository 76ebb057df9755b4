//! `attestation push`: the attestation as it is, byte for byte, and the materials it promises.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use attestation::{Attestation, Digest};
use clap::Args;
use pipeline::api::attestations::Accepted;
use pipeline::api::deliveries::Delivery;
use serde::Serialize;

use super::materials::{self, Given};
use super::wait;
use crate::arguments::Global;
use crate::client::{Call, Client};
use crate::delivery::{self, View};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::table::{Table, cell};

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The attestation: a DSSE envelope or a Sigstore bundle; - is standard input
    file: PathBuf,
    /// A material's file, under its name in the attestation; can be repeated
    #[arg(long = "material", value_name = "NAME=FILE")]
    materials: Vec<Given>,
    /// The workflow, where the attestation does not say it
    #[arg(long)]
    workflow: Option<String>,
    /// The workflow's project
    #[arg(long, requires = "workflow")]
    project: Option<String>,
    /// Wait until every delivery is final, and show what became of it
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "SECS", default_value = "900", requires = "wait")]
    timeout: u64,
}

impl Push {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        let bytes = read(&self.file)?;
        let shown = self.file.display();
        let attestation = Attestation::parse(&bytes).map_err(|error| {
            let why = format!("{:#}", anyhow::Error::new(error));
            Failure::new(format!("{shown} is not an attestation to push: {why}"))
                .advice("Give the DSSE envelope or the Sigstore bundle as it was signed.")
        })?;
        let client = Client::new(global)?;
        let checked = materials::check(global, &attestation, &self.materials)?;
        for material in &checked {
            materials::upload(global, &client, material)?;
        }
        let query = [
            ("workflow", self.workflow.as_deref()),
            ("project", self.project.as_deref()),
        ];
        // By its digest it is taken once, however often it is sent.
        let push = Call::post(&["attestations"], bytes)
            .query(&query)
            .repeatable();
        let accepted: Accepted = client
            .call(&push)
            .with_context(|| format!("failed to push {shown}"))?;
        tell(global, &attestation, &accepted);
        if !self.wait {
            return show(global, &accepted, None).map(|()| ExitCode::SUCCESS);
        }
        let deliveries = wait::until_final(
            global,
            &client,
            &accepted,
            Duration::from_secs(self.timeout),
        )?;
        show(global, &accepted, Some(&deliveries))?;
        Ok(delivery::wait::exit_code(global, &deliveries))
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = file.display();
    let context = || format!("failed to read {shown}");
    // One more than is allowed is enough to know.
    let most = attestation::MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        io::stdin()
            .lock()
            .take(most)
            .read_to_end(&mut bytes)
            .with_context(context)?;
    } else {
        let file = fs::File::open(file).with_context(context)?;
        file.take(most)
            .read_to_end(&mut bytes)
            .with_context(context)?;
    }
    if bytes.len() > attestation::MAX_BYTES {
        return Err(Failure::new(format!("{shown} has more than 6 MiB"))
            .advice("Keep materials out of the attestation and upload them with --material.")
            .into());
    }
    Ok(bytes)
}

/// What the API said of it, for a person.
fn tell(global: &Global, attestation: &Attestation, accepted: &Accepted) {
    let Accepted {
        attestation: digest,
        deliveries,
        ..
    } = accepted;
    let fate = match (accepted.repeated, deliveries.len()) {
        (true, _) => "was accepted before; nothing is sent again".to_owned(),
        (false, 0) => "is accepted; nothing is attached to its workflow".to_owned(),
        (false, 1) => "is accepted, with 1 delivery".to_owned(),
        (false, count) => format!("is accepted, with {count} deliveries"),
    };
    global.info(&format!("attestation {digest} {fate}"));
    for missing in &accepted.missing {
        let name = name(attestation, missing);
        global.warn(&format!(
            "deliveries wait for the material {name:?} ({missing}), which is not there: push again with \
             --material {name}=FILE"
        ));
    }
}

fn name<'a>(attestation: &'a Attestation, digest: &Digest) -> &'a str {
    let mut materials = attestation.materials().iter();
    materials
        .find(|material| material.digest.as_ref() == Some(digest))
        .map_or("", |material| material.name.as_str())
}

fn show(
    global: &Global,
    accepted: &Accepted,
    deliveries: Option<&[Delivery]>,
) -> anyhow::Result<()> {
    match (global.output, deliveries) {
        (Format::Json, None) => output::json(&Pushed::new(accepted, &accepted.deliveries))?,
        (Format::Json, Some(deliveries)) => {
            let views: Vec<View<'_>> = deliveries.iter().map(View::from).collect();
            output::json(&Pushed::new(accepted, &views))?;
        }
        (Format::Table, Some([])) => {}
        (Format::Table, Some(deliveries)) => {
            output::line(&delivery::receipts(deliveries).to_string())?;
        }
        (Format::Table, None) if accepted.deliveries.is_empty() => {}
        (Format::Table, None) => {
            let mut table = Table::new(&["DELIVERY", "INTEGRATION", "ATTACHMENT"])
                .whole(0)
                .whole(2);
            for planned in &accepted.deliveries {
                table.row(vec![
                    cell(&planned.id),
                    cell(&planned.integration),
                    cell(&planned.attachment),
                ]);
            }
            output::line(&table.to_string())?;
        }
    }
    Ok(())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pushed<'a, D> {
    attestation: Digest,
    received: Digest,
    repeated: bool,
    workflow: &'a integrations::Workflow,
    /// As planned, or as they ended.
    deliveries: &'a [D],
    missing: &'a [Digest],
}

impl<'a, D> Pushed<'a, D> {
    fn new(accepted: &'a Accepted, deliveries: &'a [D]) -> Self {
        Self {
            attestation: accepted.attestation,
            received: accepted.received,
            repeated: accepted.repeated,
            workflow: &accepted.workflow,
            deliveries,
            missing: &accepted.missing,
        }
    }
}
