//! `attestation describe`: shows an attestation, its contents and its deliveries.

use std::collections::BTreeMap;

use anyhow::Context as _;
use api::Actor;
use api::attestations::{Bytes, Contents, Described, Material, Place, Policy, Subject};
use clap::Args;
use serde::Serialize;

use super::{Known, list};
use crate::audit_log;
use crate::client::{Call, Client};
use crate::delivery::{self, workflow};
use crate::global::Global;
use crate::output::{self, Format};
use crate::table::{self, Cell, Color, Table, cell, paint, size, word};
use crate::{time, trust};

fn get(client: &Client, digest: &str, materials_from: usize) -> anyhow::Result<Described> {
    let from = (materials_from > 0).then(|| materials_from.to_string());
    client
        .call(&Call::get(&["attestations", digest]).query(&[("materials_from", from.as_deref())]))
        .with_context(|| format!("failed to show the attestation {digest}"))
}

#[derive(Debug, Args)]
pub(crate) struct Describe {
    #[command(flatten)]
    known: Known,
    /// Number of materials to skip before the hundred shown
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    materials_from: usize,
}

impl Describe {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let digest = self.known.given(&client)?.to_string();
        run(global, &client, &digest, self.materials_from)
    }
}

fn run(
    global: &Global,
    client: &Client,
    digest: &str,
    materials_from: usize,
) -> anyhow::Result<()> {
    let described = get(client, digest, materials_from)?;
    if global.output == Format::Json {
        output::json(&View::from(&described))?;
        return Ok(());
    }
    output::line(&card(&described).to_string())?;
    if let Some(contents) = &described.contents {
        output::line(&subjects(&contents.subjects).to_string())?;
        for table in [materials(&contents.materials), violations(contents)] {
            if !table.is_empty() {
                output::line(&table.to_string())?;
            }
        }
        let until = materials_from + contents.materials.len();
        if until < contents.materials_total {
            let others = contents.materials_total - until;
            global.info(&format!(
                "{others} more materials: pass --materials-from {until}"
            ));
        }
        let others = contents.subjects_total - contents.subjects.len().min(contents.subjects_total);
        if others > 0 {
            global.info(&format!(
                "{others} more subjects: download the attestation to see them"
            ));
        }
    }
    if described.deliveries.is_empty() {
        output::line("no deliveries: nothing was attached to the workflow")?;
    } else {
        output::line(&delivery::outcomes(&described.deliveries).to_string())?;
    }
    if described.more_deliveries {
        let advice = "chainloop delivery list --attestation";
        global.info(&format!("more deliveries exist: {advice} {digest}"));
    }
    Ok(())
}

fn card(described: &Described) -> Table {
    let attestation = &described.attestation;
    let mut table = Table::titled("Attestation", &[]);
    let mut row = |name: &str, content: Cell| table.row(vec![cell(name), content]);
    row("DIGEST", cell(attestation.attestation.to_string()));
    row("RECEIVED", cell(attestation.received.to_string()));
    for also in &described.also {
        row("ALSO RECEIVED", cell(also.to_string()));
    }
    row("WORKFLOW", cell(workflow(&attestation.workflow)));
    if !attestation.workflow.id.is_empty() {
        row("WORKFLOW ID", cell(&attestation.workflow.id));
    }
    row("RUN", cell(&attestation.run));
    row("PREDICATE TYPE", cell(&attestation.predicate_type));
    let kept = match described.bytes {
        Bytes::Kept => cell(size(attestation.size_bytes)),
        Bytes::Gone => paint(cell("missing from the bucket"), Color::Red),
        Bytes::Damaged => paint(cell("damaged: not the bytes received"), Color::Red),
    };
    row("BYTES", kept);
    if let Some(contents) = &described.contents {
        row("FORM", cell(&contents.form));
        let keys = contents.key_ids.iter().map(|id| match id.as_str() {
            "" => "a key without an ID",
            id => id,
        });
        row("SIGNED WITH", cell(keys.collect::<Vec<_>>().join("\n")));
        row("SIGNATURES", trust::shown(attestation.verdict.as_ref()));
        if let Some(policy) = &contents.policy {
            row("POLICY", verdict(policy));
        }
    }
    if let Some(by) = &attestation.pushed_by {
        row("PUSHED BY", cell(pusher(by)));
    }
    let accepted = attestation.created_at;
    let ago = time::relative(accepted, time::now());
    row(
        "ACCEPTED AT",
        cell(format!("{} ({ago})", time::exact(accepted))),
    );
    table
}

/// Formats the actor that sent it first, with its client.
fn pusher(by: &Actor) -> String {
    let Actor {
        kind, name, client, ..
    } = by;
    match audit_log::from(client).as_str() {
        "" => format!("{kind} {name}"),
        from => format!("{kind} {name}\n{from}"),
    }
}

fn verdict(policy: &Policy) -> Cell {
    let mut text = policy.status.clone();
    if policy.evaluations > 0 {
        let counts = [
            (policy.evaluations, "evaluations"),
            (policy.violations, "violations"),
            (policy.suppressed, "suppressed"),
            (policy.skipped, "skipped"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        text = format!("{text} ({})", counts.join(", "));
    }
    let cell = cell(text);
    match policy.status.as_str() {
        "PASSED" => paint(cell, Color::Green),
        "BLOCKED" => paint(cell, Color::Red),
        "WARNING" | "BYPASSED" => paint(cell, Color::Yellow),
        _ => cell,
    }
}

fn subjects(subjects: &[Subject]) -> Table {
    let mut table = Table::titled("Subjects", &["NAME", "DIGEST"]);
    for subject in subjects {
        let digests = subject.digests.iter();
        let digests = digests.map(|(algorithm, digest)| format!("{algorithm}:{digest}"));
        table.row(vec![
            cell(&subject.name),
            cell(digests.collect::<Vec<_>>().join("\n")),
        ]);
    }
    table
}

fn materials(materials: &[Material]) -> Table {
    let headers = ["NAME", "TYPE", "VALUE", "DIGEST", "BYTES"];
    let mut table = Table::titled("Materials", &headers);
    for material in materials {
        let value = match material.filename.as_str() {
            "" => &material.value,
            filename => filename,
        };
        let bytes = material
            .size_bytes
            .map(|bytes| format!(", {}", size(bytes)));
        let place = word(&material.place) + &bytes.unwrap_or_default();
        let place = match material.place {
            Place::Missing => paint(cell(place), Color::Yellow),
            _ => cell(place),
        };
        let digest = material.digest.as_ref().map(table::digest);
        table.row(vec![
            cell(&material.name),
            cell(&material.kind),
            cell(value),
            digest.unwrap_or_else(|| cell("")),
            place,
        ]);
    }
    table
}

fn violations(contents: &Contents) -> Table {
    let mut table = Table::titled("Violations", &["POLICY", "MATERIAL", "MESSAGE"]);
    let found = contents.policy.iter().flat_map(|policy| &policy.found);
    for found in found {
        table.row(vec![
            cell(&found.policy),
            cell(&found.material),
            cell(&found.message),
        ]);
    }
    table
}

/// JSON output of `describe`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    #[serde(flatten)]
    attestation: list::View<'a>,
    also: Vec<String>,
    bytes: Bytes,
    contents: Option<ContentsView<'a>>,
    deliveries: Vec<delivery::View<'a>>,
    more_deliveries: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContentsView<'a> {
    form: &'a str,
    key_ids: &'a [String],
    subjects: Vec<SubjectView<'a>>,
    subjects_total: usize,
    materials: Vec<MaterialView<'a>>,
    materials_total: usize,
    materials_dropped: usize,
    policy: Option<&'a Policy>,
}

#[derive(Debug, Serialize)]
struct SubjectView<'a> {
    name: &'a str,
    digests: &'a BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MaterialView<'a> {
    name: &'a str,
    r#type: &'a str,
    filename: &'a str,
    value: &'a str,
    digest: Option<String>,
    size_bytes: Option<u64>,
    place: Place,
}

impl<'a> From<&'a Described> for View<'a> {
    fn from(described: &'a Described) -> Self {
        Self {
            attestation: list::View::from(&described.attestation),
            also: described.also.iter().map(ToString::to_string).collect(),
            bytes: described.bytes,
            contents: described.contents.as_ref().map(ContentsView::from),
            deliveries: described
                .deliveries
                .iter()
                .map(delivery::View::from)
                .collect(),
            more_deliveries: described.more_deliveries,
        }
    }
}

impl<'a> From<&'a Contents> for ContentsView<'a> {
    fn from(contents: &'a Contents) -> Self {
        let subjects = contents.subjects.iter().map(|subject| SubjectView {
            name: &subject.name,
            digests: &subject.digests,
        });
        let materials = contents.materials.iter().map(|material| MaterialView {
            name: &material.name,
            r#type: &material.kind,
            filename: &material.filename,
            value: &material.value,
            digest: material.digest.map(|digest| digest.to_string()),
            size_bytes: material.size_bytes,
            place: material.place,
        });
        Self {
            form: &contents.form,
            key_ids: &contents.key_ids,
            subjects: subjects.collect(),
            subjects_total: contents.subjects_total,
            materials: materials.collect(),
            materials_total: contents.materials_total,
            materials_dropped: contents.materials_dropped,
            policy: contents.policy.as_ref(),
        }
    }
}
