//! `chainloop where`: finds the places that have evidence of a digest, and asks them whether it is still there.

use std::process::ExitCode;

use anyhow::Context as _;
use api::deliveries::State;
use api::places::{Place, Presence, PresenceState};
use clap::Args;
use serde::Serialize;

use crate::client::{Call, Client};
use crate::delivery::{self, View, workflow};
use crate::failure;
use crate::global::Global;
use crate::ids::Given;
use crate::output::{self, Format};
use crate::table::{self, Table, cell, word};
use crate::time;

pub(crate) const HELP: &str = "\
A digest is that of an attestation, of its envelope or of the bytes pushed, or the SHA-256 of an image, an SBOM or \
anything else that attestations name as a subject or a material. That of an attestation may be shortened.

With --check, each third party that a delivery arrived at is asked whether it still has it: there, gone, or unknown, where \
it offers no way to ask, refuses, or was not reached. This needs the role operator.

Exit codes: 0 a place has it · 1 unknown digest, or another failure · 3 no place has it · 4 no place has it yet

Examples:
  chainloop where \\
    sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0
  chainloop where --check \\
    sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Where {
    /// Digest of an attestation, a subject or a material
    digest: Given,
    /// Ask third parties whether they still have it
    #[arg(long)]
    check: bool,
    /// Maximum number of results
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlaceView<'a> {
    #[serde(flatten)]
    delivery: View<'a>,
    in_receipt: bool,
    /// With --check, where it arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<&'a Presence>,
}

/// A place, and whether its third party still has it, where that was asked.
struct Found {
    place: Place,
    presence: Option<Presence>,
}

impl Found {
    /// Asks the third party of a delivery that arrived.
    fn check(place: Place, client: &Client) -> Self {
        let delivery = &place.delivery;
        let presence = (delivery.state == State::Delivered).then(|| {
            let path = ["deliveries", delivery.id.as_str(), "check"];
            let asked = client.call(&Call::post(&path, Vec::new()).repeatable());
            asked.unwrap_or_else(|error: anyhow::Error| Presence::unknown(failure::text(&error)))
        });
        Self { place, presence }
    }

    fn is_there(&self) -> bool {
        let state = self.presence.as_ref().map(|presence| presence.state);
        self.place.delivery.state == State::Delivered && state != Some(PresenceState::Gone)
    }
}

impl<'a> From<&'a Found> for PlaceView<'a> {
    fn from(Found { place, presence }: &'a Found) -> Self {
        Self {
            delivery: (&place.delivery).into(),
            in_receipt: place.in_receipt,
            presence: presence.as_ref(),
        }
    }
}

impl Where {
    pub(crate) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let client = Client::new(global)?;
        let digest = self.digest.whole(&client)?.to_string();
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let (places, more) = client
            .list::<Place>(&["digests", &digest, "places"], &[], limit)
            .with_context(|| format!("failed to find {digest}"))?;
        let found: Vec<Found> = places
            .into_iter()
            .map(|place| match self.check {
                true => Found::check(place, &client),
                false => Found {
                    place,
                    presence: None,
                },
            })
            .collect();
        match global.output {
            Format::Json => {
                output::json(&found.iter().map(PlaceView::from).collect::<Vec<_>>())?;
            }
            Format::Table if found.is_empty() => {
                output::line("no deliveries: nothing was attached to the workflow")?;
            }
            Format::Table => output::line(&rows(&found).to_string())?,
        }
        if more {
            global.info("more places exist: raise --limit");
        }
        Ok(exit_code(&found))
    }
}

fn rows(found: &[Found]) -> Table {
    let mut table = Table::new(&["ID", "STATE", "TO", "WORKFLOW", "WHEN", "RECEIPT"]);
    let now = time::now();
    for Found { place, presence } in found {
        let delivery = &place.delivery;
        let mut standing = delivery::standing(delivery);
        let mut told = Vec::new();
        if let Some(Presence { state, reason }) = presence {
            standing = format!("{standing}, {}", word(state));
            told.extend(reason.clone());
        }
        told.extend(delivery.reason.clone());
        told.push(delivery::receipt(delivery));
        table.row(vec![
            table::id(&delivery.id),
            delivery::painted(cell(standing), delivery),
            cell(delivery::to(delivery)),
            cell(workflow(&delivery.workflow)),
            cell(time::relative(delivery.updated_at, now)),
            cell(told.join("\n").trim_end()),
        ]);
    }
    table
}

/// Returns 0 if a place has it, 4 if one may still get it, 3 otherwise.
fn exit_code(found: &[Found]) -> ExitCode {
    let is_open = |one: &Found| !one.place.delivery.state.is_final();
    if found.iter().any(Found::is_there) {
        ExitCode::SUCCESS
    } else if found.iter().any(is_open) {
        ExitCode::from(4)
    } else {
        ExitCode::from(3)
    }
}
