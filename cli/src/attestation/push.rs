//! `attestation push`: pushes attestations byte for byte, and uploads their materials.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use api::attestations::{Accepted, Planned};
use api::deliveries::Delivery;
use api::trust::{Outcome as Judged, Verdict};
use attestation::{Attestation, Digest, Material};
use clap::Args;
use serde::Serialize;

use super::file::{self, Contents, Refused};
use super::materials::{self, Given};
use super::wait;
use crate::client::{Call, Client};
use crate::delivery::{self, View};
use crate::failure::{self, Failure};
use crate::global::Global;
use crate::oidc::{self, Oidc};
use crate::output::{self, Format};
use crate::table::{self, Color, Table, cell, paint};

pub(super) fn help() -> String {
    format!(
        "\
An attestation has at most {limits}. Attest larger contents by digest, and push the files with --material.

A file may contain several attestations: one per line, in an array, or in {{\"attestations\":[…]}} as npm's \
registry and GitHub return them. A refused attestation does not stop the others; with -o json, the output is an \
array.

With --oidc, the job's OIDC token is exchanged for a token that lives an hour: that of GitHub Actions, or the one in \
CHAINLOOP_INTEGRATIONS_OIDC_TOKEN.

Exit codes: 0 accepted · 1 not all accepted. With --wait: 0 all deliveries delivered or skipped · 3 a delivery \
failed, was cancelled or was partial · 4 a delivery is held by a pause, or not final after --timeout; it \
continues without this command.

Example:
  chainloop attestation push attestation.json --wait \\
    --material sbom=shop.cdx.json",
        limits = attestation::limits()
    )
}

#[derive(Debug, Args)]
#[command(after_help = help())]
pub(crate) struct Push {
    /// File of attestations, as DSSE envelopes or Sigstore bundles; - for standard input
    file: PathBuf,
    /// File of a material, by its name in the attestation; can be repeated
    #[arg(long = "material", value_name = "NAME=FILE")]
    materials: Vec<Given>,
    /// Workflow, if the attestation does not name one
    #[arg(long)]
    workflow: Option<String>,
    /// Project of the workflow
    #[arg(long, requires = "workflow")]
    project: Option<String>,
    /// Wait until all deliveries are final, and show them
    #[arg(long)]
    wait: bool,
    /// Maximum wait, in seconds
    #[arg(long, value_name = "SECS", default_value = "900", requires = "wait")]
    timeout: u64,
    /// Exchange the CI job's OIDC token for a token, in place of --token
    #[arg(long)]
    oidc: bool,
    #[command(flatten)]
    exchange: Oidc,
}

/// Result for one attestation of a file.
enum Outcome {
    Accepted(Box<Accepted>),
    Refused(String),
    /// Something failed before it was its turn.
    NotSent,
}

impl Push {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        match file::read(&self.file)? {
            Contents::One(bytes) => self.one(global, bytes),
            Contents::Several(entries) => self.several(global, entries),
        }
    }

    fn client(&self, global: &Global) -> anyhow::Result<Client> {
        match self.oidc {
            true => oidc::client(global, &self.exchange),
            false => Client::new(global),
        }
    }

    fn one(&self, global: &Global, bytes: Vec<u8>) -> anyhow::Result<ExitCode> {
        let shown = file::name(&self.file);
        let attestation = file::parse(&bytes).map_err(|Refused { text, advice }| {
            Failure::new(format!("{shown} is not a valid attestation: {text}")).advice(advice)
        })?;
        let client = self.client(global)?;
        self.upload(global, &client, std::slice::from_ref(&attestation))?;
        let accepted = self
            .send(&client, bytes)
            .with_context(|| format!("failed to push {shown}"))?;
        tell(global, &attestation, &accepted);
        if !self.wait {
            return show(global, &accepted, None).map(|()| ExitCode::SUCCESS);
        }
        let deliveries = self.await_deliveries(global, &client, &[&accepted])?;
        show(global, &accepted, Some(&deliveries))?;
        Ok(delivery::wait::exit_code(global, &deliveries))
    }

    /// Pushes each entry of a file. A refused entry does not stop the others; a failure that concerns all of them, such
    /// as a rejected token, does.
    fn several(&self, global: &Global, entries: Vec<Vec<u8>>) -> anyhow::Result<ExitCode> {
        let shown = file::name(&self.file);
        let parsed: Vec<Result<Attestation, Refused>> =
            entries.iter().map(|entry| file::parse(entry)).collect();
        let client = self.client(global)?;
        let attestations: Vec<Attestation> = parsed.iter().flatten().cloned().collect();
        self.upload(global, &client, &attestations)?;
        let mut outcomes = Vec::new();
        let mut failed = None;
        for (index, (entry, parsed)) in entries.into_iter().zip(parsed).enumerate() {
            let attestation = match parsed {
                Ok(_) if failed.is_some() => {
                    outcomes.push(Outcome::NotSent);
                    continue;
                }
                Ok(attestation) => attestation,
                Err(Refused { text, advice }) => {
                    outcomes.push(Outcome::Refused(format!("{text}. {advice}")));
                    continue;
                }
            };
            match self.send(&client, entry) {
                Ok(accepted) => {
                    tell(global, &attestation, &accepted);
                    outcomes.push(Outcome::Accepted(Box::new(accepted)));
                }
                Err(error) if is_refusal(&error) => {
                    outcomes.push(Outcome::Refused(failure::text(&error)));
                }
                Err(error) => {
                    outcomes.push(Outcome::NotSent);
                    let number = index + 1;
                    failed = Some(error.context(format!(
                        "failed to push attestation {number} of {shown}; later ones were not sent"
                    )));
                }
            }
        }
        let accepted: Vec<&Accepted> = outcomes.iter().filter_map(Outcome::accepted).collect();
        let deliveries = match self.wait && failed.is_none() {
            true => Some(self.await_deliveries(global, &client, &accepted)?),
            false => None,
        };
        show_several(global, &outcomes, deliveries.as_deref())?;
        if let Some(error) = failed {
            return Err(error);
        }
        let (all, accepted) = (outcomes.len(), accepted.len());
        if accepted < all {
            let text = match accepted {
                0 => format!("none of the {all} attestations in {shown} was accepted"),
                _ => format!(
                    "{} of the {all} attestations in {shown} were not accepted",
                    all - accepted
                ),
            };
            return Err(Failure::new(text).into());
        }
        Ok(match deliveries {
            Some(deliveries) => delivery::wait::exit_code(global, &deliveries),
            None => ExitCode::SUCCESS,
        })
    }

    /// Uploads the given materials; each must belong to an attestation.
    fn upload(
        &self,
        global: &Global,
        client: &Client,
        attestations: &[Attestation],
    ) -> anyhow::Result<()> {
        let attested: Vec<&Material> = attestations
            .iter()
            .flat_map(Attestation::materials)
            .collect();
        let checked = materials::check(global, &attested, &self.materials)?;
        for material in &checked {
            materials::upload(global, client, material)?;
        }
        Ok(())
    }

    fn send(&self, client: &Client, bytes: Vec<u8>) -> anyhow::Result<Accepted> {
        let query = [
            ("workflow", self.workflow.as_deref()),
            ("project", self.project.as_deref()),
            // Deliveries that are waited for are listed with their names.
            ("names", (!self.wait).then_some("true")),
        ];
        // The API accepts a digest once, however often it is sent.
        let push = Call::post(&["attestations"], bytes)
            .query(&query)
            .repeatable();
        client.call(&push)
    }

    fn await_deliveries(
        &self,
        global: &Global,
        client: &Client,
        accepted: &[&Accepted],
    ) -> anyhow::Result<Vec<Delivery>> {
        wait::until_final(global, client, accepted, Duration::from_secs(self.timeout))
    }
}

fn is_refusal(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Failure>()
        .is_some_and(Failure::is_refusal)
}

impl Outcome {
    fn accepted(&self) -> Option<&Accepted> {
        match self {
            Self::Accepted(accepted) => Some(accepted),
            Self::Refused(_) | Self::NotSent => None,
        }
    }

    fn state(&self) -> &'static str {
        match self {
            Self::Accepted(accepted) if accepted.repeated => "accepted before",
            Self::Accepted(_) => "accepted",
            Self::Refused(_) => "refused",
            Self::NotSent => "not sent",
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused(reason) => Some(reason),
            Self::Accepted(_) | Self::NotSent => None,
        }
    }
}

/// Reports the API's response for an attestation to the user.
fn tell(global: &Global, attestation: &Attestation, accepted: &Accepted) {
    let Accepted {
        attestation: digest,
        deliveries,
        ..
    } = accepted;
    let fate = match (accepted.repeated, deliveries.len()) {
        (true, _) => "was accepted before; nothing is resent".to_owned(),
        (false, 0) => "accepted; nothing is attached to its workflow".to_owned(),
        (false, 1) => "accepted, with 1 delivery".to_owned(),
        (false, count) => format!("accepted, with {count} deliveries"),
    };
    global.info(&format!("attestation {digest} {fate}"));
    if let Some(verdict) = &accepted.verdict {
        let told = format!("signatures {verdict}");
        match verdict.outcome {
            Judged::Verified => global.info(&told),
            _ => global.warn(&told),
        }
    }
    for missing in &accepted.missing {
        let name = name(attestation, missing);
        global.warn(&format!(
            "deliveries wait for the missing material {name:?} ({missing}): push again with --material {name}=FILE"
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
        (Format::Json, None) => {
            let planned = accepted.deliveries.iter().collect::<Vec<&Planned>>();
            output::json(&Pushed::new(accepted, planned))?;
        }
        (Format::Json, Some(deliveries)) => {
            let views = deliveries.iter().map(View::from).collect::<Vec<_>>();
            output::json(&Pushed::new(accepted, views))?;
        }
        (Format::Table, Some([])) => {}
        (Format::Table, Some(deliveries)) => {
            output::line(&delivery::receipts(deliveries).to_string())?;
        }
        (Format::Table, None) if accepted.deliveries.is_empty() => {}
        (Format::Table, None) => {
            let table = planned(&accepted.deliveries);
            output::line(&table.to_string())?;
        }
    }
    Ok(())
}

fn planned(deliveries: &[Planned]) -> Table {
    let mut table = Table::new(&["DELIVERY", "TO", "ATTACHMENT"]);
    for planned in deliveries {
        let name = planned.registration_name.as_deref();
        let to = delivery::destination(name, &planned.registration, &planned.integration);
        table.row(vec![
            table::id(&planned.id),
            cell(to),
            table::id(&planned.attachment),
        ]);
    }
    table
}

/// Each entry of a file, and the deliveries where they were waited for.
fn show_several(
    global: &Global,
    outcomes: &[Outcome],
    deliveries: Option<&[Delivery]>,
) -> anyhow::Result<()> {
    if global.output == Format::Json {
        let entries: Vec<Entry<'_>> = outcomes
            .iter()
            .zip(1..)
            .map(|(outcome, number)| Entry::new(number, outcome, deliveries))
            .collect();
        return output::json(&entries);
    }
    output::line(&entries(outcomes).to_string())?;
    match deliveries {
        None | Some([]) => Ok(()),
        Some(deliveries) => output::line(&delivery::receipts(deliveries).to_string()),
    }
}

fn entries(outcomes: &[Outcome]) -> Table {
    let headers = ["ENTRY", "STATE", "DELIVERIES", "ATTESTATION", "REASON"];
    let reasons = outcomes.iter().any(|outcome| outcome.reason().is_some());
    let headers = if reasons { &headers[..] } else { &headers[..4] };
    let mut table = Table::new(headers);
    for (outcome, entry) in outcomes.iter().zip(1..) {
        let colour = match outcome {
            Outcome::Accepted(_) => Color::Green,
            Outcome::Refused(_) => Color::Red,
            Outcome::NotSent => Color::Yellow,
        };
        let accepted = outcome.accepted();
        let mut cells = vec![
            cell(u32::to_string(&entry)),
            paint(cell(outcome.state()), colour),
            cell(accepted.map_or_else(String::new, |one| one.deliveries.len().to_string())),
            accepted.map_or_else(|| cell(""), |one| table::digest(&one.attestation)),
        ];
        if reasons {
            cells.push(cell(outcome.reason().unwrap_or_default()));
        }
        table.row(cells);
    }
    table
}

/// One attestation of a file, as JSON.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(rename = "entry")]
    number: u32,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(flatten)]
    pushed: Option<Shown<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Planned(Pushed<'a, &'a Planned>),
    Ended(Pushed<'a, View<'a>>),
}

impl<'a> Entry<'a> {
    fn new(number: u32, outcome: &'a Outcome, deliveries: Option<&'a [Delivery]>) -> Self {
        let pushed = outcome.accepted().map(|accepted| match deliveries {
            None => Shown::Planned(Pushed::new(accepted, accepted.deliveries.iter().collect())),
            Some(deliveries) => {
                let own: BTreeSet<&str> = accepted
                    .deliveries
                    .iter()
                    .map(|planned| planned.id.as_str())
                    .collect();
                let own = deliveries
                    .iter()
                    .filter(|delivery| own.contains(delivery.id.as_str()));
                Shown::Ended(Pushed::new(accepted, own.map(View::from).collect()))
            }
        });
        Self {
            number,
            state: outcome.state(),
            reason: outcome.reason(),
            pushed,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pushed<'a, D> {
    attestation: Digest,
    received: Digest,
    repeated: bool,
    workflow: &'a api::workflows::Workflow,
    /// As planned, or as they ended.
    deliveries: Vec<D>,
    missing: &'a [Digest],
    verdict: Option<&'a Verdict>,
}

impl<'a, D> Pushed<'a, D> {
    fn new(accepted: &'a Accepted, deliveries: Vec<D>) -> Self {
        Self {
            attestation: accepted.attestation,
            received: accepted.received,
            repeated: accepted.repeated,
            workflow: &accepted.workflow,
            deliveries,
            missing: &accepted.missing,
            verdict: accepted.verdict.as_ref(),
        }
    }
}
