//! Rendering of a plan, as text and as JSON. Shows the sources of secrets, never their values.

use std::collections::BTreeMap;

use api::trust::Policy;
use serde_json::{Map, Value, json};

use super::plan::{Change, Counts, Plan, Step, Update};
use super::policy::{self, PolicyStep};
use super::secret::Source;
use super::state::{Open, Registered};
use crate::output::one_line;
use crate::table::word;

/// Result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed,
    /// One before it failed.
    NotBegun,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Create,
    Update,
    Delete,
}

impl Mark {
    fn of(step: &Step) -> Self {
        match step {
            Step::Register(_) | Step::Attach { .. } | Step::Trust(PolicyStep::Create(_)) => {
                Self::Create
            }
            Step::Update(_) | Step::Reattach { .. } | Step::Trust(PolicyStep::Replace { .. }) => {
                Self::Update
            }
            Step::Detach { .. } | Step::Deregister { .. } | Step::Trust(PolicyStep::Delete(_)) => {
                Self::Delete
            }
        }
    }

    fn sign(self) -> char {
        match self {
            Self::Create => '+',
            Self::Update => '~',
            Self::Delete => '-',
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    /// Returns the terminal's colour code.
    fn colour(self) -> &'static str {
        match self {
            Self::Create => "32",
            Self::Update => "33",
            Self::Delete => "31",
        }
    }
}

fn registration(there: &Registered) -> String {
    format!("registration {:?} ({})", there.name, there.integration)
}

/// Names the registration or attachment of a step, on one line.
pub(super) fn title(step: &Step) -> String {
    let text = match step {
        Step::Register(wanted) => {
            format!("registration {:?} ({})", wanted.name, wanted.integration)
        }
        Step::Update(update) => registration(&update.there),
        Step::Deregister { there } => registration(there),
        Step::Attach {
            registration,
            attachment,
        } => format!("attachment of {registration:?} to {}", attachment.workflow),
        Step::Reattach {
            registration,
            there,
            ..
        }
        | Step::Detach {
            registration,
            there,
            ..
        } => format!(
            "attachment of {registration:?} to {} ({})",
            there.workflow, there.id
        ),
        Step::Trust(step) => {
            let (name, workflow) = match step {
                PolicyStep::Create(wanted) | PolicyStep::Replace { wanted, .. } => {
                    (&wanted.name, &wanted.workflow)
                }
                PolicyStep::Delete(there) => (&there.name, &there.workflow),
            };
            format!("trust policy {name:?} for {workflow}")
        }
    };
    one_line(&format!("{} {text}", Mark::of(step).sign()))
}

/// Renders the plan; `open` has the deliveries that each deletion cancels.
pub(super) fn text(plan: &Plan, open: &[Option<Open>], prune: bool, coloured: bool) -> String {
    let mut lines = Vec::new();
    for (step, open) in plan.steps.iter().zip(open) {
        lines.push(match coloured {
            true => format!(
                "\u{1b}[{}m{}\u{1b}[0m",
                Mark::of(step).colour(),
                title(step)
            ),
            false => title(step),
        });
        let details = details(step, *open);
        lines.extend(details.iter().map(|line| format!("    {}", one_line(line))));
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines.push(summary(plan));
    if plan.blind {
        lines.push(
            "Existing secrets are not compared: --rotate NAME resends those of a registration."
                .to_owned(),
        );
    }
    if plan.others.all() > 0 && !prune {
        lines.push(format!(
            "In no file, left unchanged: {}; --prune deletes them.",
            counted(plan.others)
        ));
    }
    lines.join("\n")
}

fn summary(plan: &Plan) -> String {
    if plan.steps.is_empty() {
        return match plan.unchanged.all() {
            0 => "No changes: nothing exists, and the files describe nothing.".to_owned(),
            _ => format!("No changes: {} up to date.", counted(plan.unchanged)),
        };
    }
    format!(
        "{} to create, {} to update, {} to delete; unchanged: {}.",
        count(plan, Mark::Create),
        count(plan, Mark::Update),
        deletions(plan),
        counted(plan.unchanged)
    )
}

fn count(plan: &Plan, mark: Mark) -> usize {
    let steps = plan.steps.iter();
    steps.filter(|step| Mark::of(step) == mark).count()
}

pub(super) fn deletions(plan: &Plan) -> usize {
    count(plan, Mark::Delete)
}

fn counted(counts: Counts) -> String {
    let one = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        many => format!("{many} {what}s"),
    };
    let policies = match counts.trust_policies {
        0 => String::new(),
        1 => ", 1 trust policy".to_owned(),
        many => format!(", {many} trust policies"),
    };
    format!(
        "{}, {}{policies}",
        one(counts.registrations, "registration"),
        one(counts.attachments, "attachment")
    )
}

fn details(step: &Step, open: Option<Open>) -> Vec<String> {
    let mut lines = Vec::new();
    match step {
        Step::Register(wanted) => {
            if !wanted.description.is_empty() {
                lines.push(format!("description: {:?}", wanted.description));
            }
            lines.extend(inputs(&wanted.inputs));
            lines.extend(secrets(&wanted.secrets));
        }
        Step::Update(update) => {
            lines.extend(update.changes.iter().map(change));
            if update.sends_secrets {
                lines.extend(secrets(&update.wanted.secrets));
            }
            let dropped = update.dropped.iter();
            lines.extend(dropped.map(|name| format!("secrets.{name}: (secret) → (none)")));
        }
        Step::Attach { attachment, .. } => {
            lines.extend(inputs(&attachment.inputs));
            lines.extend(
                attachment
                    .wait_secs
                    .map(|secs| format!("wait_secs: {secs}")),
            );
        }
        Step::Reattach { changes, .. } | Step::Trust(PolicyStep::Replace { changes, .. }) => {
            lines.extend(changes.iter().map(change));
        }
        Step::Trust(PolicyStep::Create(wanted)) => {
            let Policy {
                mode,
                threshold,
                signers,
            } = &wanted.policy;
            lines.push(format!("mode: {}", word(mode)));
            lines.push(format!("threshold: {threshold}"));
            let signers = signers.iter();
            lines.extend(
                signers.map(|one| format!("signers.{}: {}", one.name(), policy::told(one))),
            );
        }
        Step::Detach { .. } | Step::Trust(PolicyStep::Delete(_)) => {}
        Step::Deregister { there } => {
            for attachment in &there.attachments {
                lines.push(format!(
                    "with its attachment to {} ({})",
                    attachment.workflow, attachment.id
                ));
            }
        }
    }
    lines.extend(open.and_then(cancelled));
    lines
}

/// Describes the deliveries that a deletion cancels, if any.
fn cancelled(open: Open) -> Option<String> {
    let deliveries = match open.count {
        0 => return None,
        1 => "1 open delivery".to_owned(),
        many => format!("{many} open deliveries"),
    };
    let among = if open.of_newest {
        " of the newest 100 of the registration"
    } else {
        ""
    };
    Some(format!("cancels {deliveries}{among}"))
}

fn inputs(inputs: &Map<String, Value>) -> impl Iterator<Item = String> {
    let inputs = inputs.iter();
    inputs.map(|(name, value)| format!("inputs.{name}: {value}"))
}

fn secrets(secrets: &BTreeMap<String, Source>) -> impl Iterator<Item = String> {
    let secrets = secrets.iter();
    secrets.map(|(name, source)| format!("secrets.{name}: (secret, set from {source})"))
}

fn change(change: &Change) -> String {
    let value = |value: &Option<Value>| {
        let text = value.as_ref().map(Value::to_string);
        text.unwrap_or_else(|| "(none)".to_owned())
    };
    format!(
        "{}: {} → {}",
        change.field,
        value(&change.from),
        value(&change.to)
    )
}

/// Returns the plan as JSON; `outcomes` is empty for a dry run.
pub(super) fn json(plan: &Plan, open: &[Option<Open>], outcomes: &[Outcome]) -> Value {
    let steps = plan.steps.iter().zip(open).enumerate();
    let steps: Vec<Value> = steps
        .map(|(index, (step, open))| {
            let mut shown = of_step(step, *open);
            if let Some(outcome) = outcomes.get(index) {
                shown["outcome"] = match outcome {
                    Outcome::Done => "done",
                    Outcome::Failed => "failed",
                    Outcome::NotBegun => "not-begun",
                }
                .into();
            }
            shown
        })
        .collect();
    let counts = |counts: Counts| {
        json!({
            "registrations": counts.registrations, "attachments": counts.attachments,
            "trustPolicies": counts.trust_policies,
        })
    };
    json!({
        "steps": steps,
        "unchanged": counts(plan.unchanged),
        "inNoFile": counts(plan.others),
        "secretsNotCompared": plan.blind,
    })
}

fn of_step(step: &Step, open: Option<Open>) -> Value {
    let mut shown = match step {
        Step::Register(wanted) => json!({
            "kind": "registration", "name": wanted.name, "integration": wanted.integration,
            "description": wanted.description, "inputs": wanted.inputs, "secrets": wanted.secrets,
        }),
        Step::Update(update) => {
            let Update {
                there,
                wanted,
                changes,
                sends_secrets,
                dropped,
            } = &**update;
            let sent = sends_secrets.then_some(&wanted.secrets);
            json!({
                "kind": "registration", "name": there.name, "integration": there.integration, "id": there.id,
                "changes": changed(changes), "secrets": sent, "droppedSecrets": dropped,
            })
        }
        Step::Attach {
            registration,
            attachment,
        } => json!({
            "kind": "attachment", "registration": registration, "workflow": attachment.workflow,
            "inputs": attachment.inputs, "waitSecs": attachment.wait_secs,
        }),
        Step::Reattach {
            registration,
            there,
            changes,
        } => json!({
            "kind": "attachment", "registration": registration, "workflow": there.workflow, "id": there.id,
            "changes": changed(changes),
        }),
        Step::Detach {
            registration,
            there,
            ..
        } => json!({
            "kind": "attachment", "registration": registration, "workflow": there.workflow, "id": there.id,
        }),
        Step::Deregister { there } => json!({
            "kind": "registration", "name": there.name, "integration": there.integration, "id": there.id,
            "attachments": there.attachments.len(),
        }),
        Step::Trust(PolicyStep::Create(wanted)) => json!({
            "kind": "trust-policy", "name": wanted.name, "workflow": wanted.workflow, "policy": wanted.policy,
        }),
        Step::Trust(PolicyStep::Replace {
            there,
            wanted,
            changes,
        }) => json!({
            "kind": "trust-policy", "name": there.name, "workflow": there.workflow, "id": there.id,
            "changes": changed(changes), "policy": wanted.policy,
        }),
        Step::Trust(PolicyStep::Delete(there)) => json!({
            "kind": "trust-policy", "name": there.name, "workflow": there.workflow, "id": there.id,
        }),
    };
    shown["action"] = Mark::of(step).word().into();
    if let Some(open) = open {
        shown["openDeliveries"] = open.count.into();
    }
    shown
}

fn changed(changes: &[Change]) -> Value {
    let changes = changes
        .iter()
        .map(|Change { field, from, to }| json!({ "field": field, "from": from, "to": to }));
    changes.collect()
}
