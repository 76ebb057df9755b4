//! Carries out a plan, one step after the other. Completed steps stay if a later one fails.

use std::collections::BTreeMap;

use anyhow::Context as _;
use api::attachments::NewAttachment;
use api::integrations::Integration;
use api::registrations::NewRegistration;
use api::trust::NewTrustPolicy;
use api::{AttachmentId, Code};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::file::Attachment;
use super::plan::{Plan, Step, Update, patch};
use super::policy::PolicyStep;
use super::secret;
use super::show::{Outcome, title};
use super::state;
use crate::client::{Call, Client, json};
use crate::failure::Failure;
use crate::global::Global;

/// Secrets to send, by registration. Never shown.
pub(super) struct Secrets(BTreeMap<String, Map<String, Value>>);

/// Reads all secrets that the plan sends, before the first step.
pub(super) fn secrets(plan: &Plan, integrations: &[Integration]) -> anyhow::Result<Secrets> {
    let mut read = Secrets(BTreeMap::new());
    let mut faults = Vec::new();
    for step in &plan.steps {
        let wanted = match step {
            Step::Register(wanted) => wanted,
            Step::Update(update) if update.sends_secrets => &update.wanted,
            _ => continue,
        };
        let mut values = Map::new();
        for (name, source) in &wanted.secrets {
            match secret::read(source) {
                Ok(value) => {
                    values.insert(name.clone(), value.into());
                }
                Err(text) => faults.push(wanted.places.fault(&format!("secrets.{name}"), &text)),
            }
        }
        let integration = integrations.iter().find(|one| one.id == wanted.integration);
        if let Some(integration) = integration {
            let mut whole = wanted.inputs.clone();
            whole.extend(values.clone());
            let found = api::inputs::check_schema(&integration.registration_schema, &whole);
            let of_values = found
                .into_iter()
                .filter(|fault| values.contains_key(&fault.field));
            faults.extend(of_values.map(|fault| {
                let part = format!("secrets.{}", fault.field);
                wanted.places.fault(&part, &fault.detail)
            }));
        }
        read.0.insert(wanted.name.clone(), values);
    }
    match faults.is_empty() {
        true => Ok(read),
        false => Err(Failure::new("invalid secrets; nothing was changed")
            .faults(faults)
            .into()),
    }
}

/// Carries out the steps until one fails. Returns each step's outcome, and the error.
pub(super) fn carry(
    global: &Global,
    client: &Client,
    plan: &Plan,
    mut secrets: Secrets,
) -> (Vec<Outcome>, anyhow::Result<()>) {
    let mut outcomes = Vec::new();
    for step in &plan.steps {
        if let Err(error) = one(client, step, &mut secrets) {
            let left = &plan.steps[outcomes.len()..];
            outcomes.push(Outcome::Failed);
            outcomes.resize(plan.steps.len(), Outcome::NotBegun);
            let titles: Vec<String> = left.iter().map(title).collect();
            let text = match titles.len() {
                1 => "1 step left; run the command again to continue".to_owned(),
                many => format!("{many} steps left; run the command again to continue"),
            };
            global.warn(&format!("{text}:\n    {}", titles.join("\n    ")));
            return (outcomes, Err(error));
        }
        outcomes.push(Outcome::Done);
        global.info(&format!("done: {}", title(step)));
    }
    (outcomes, Ok(()))
}

fn attach(client: &Client, registration: &str, attachment: &Attachment) -> anyhow::Result<()> {
    let new = NewAttachment {
        registration: registration.to_owned(),
        workflow: attachment.workflow.clone(),
        project: None,
        inputs: attachment.inputs.clone(),
        wait_secs: attachment.wait_secs,
        allow_duplicate: false,
    };
    let call = Call::post_once(&["attachments"], json(&new)?)?;
    let Err(error) = client.call::<IgnoredAny>(&call) else {
        return Ok(());
    };
    let failure = error.downcast_ref::<Failure>();
    // Somebody attached the same since the plan was made: it is as the file says.
    if failure.is_some_and(|failure| failure.has_code(Code::AttachmentExists)) {
        return Ok(());
    }
    let workflow = &attachment.workflow;
    Err(error.context(format!("failed to attach {registration:?} to {workflow}")))
}

fn trust(client: &Client, step: &PolicyStep) -> anyhow::Result<()> {
    let call = |what: &str, name: &str, call: Call<'_>| {
        client
            .call::<IgnoredAny>(&call)
            .with_context(|| format!("failed to {what} the trust policy {name:?}"))
    };
    match step {
        PolicyStep::Create(wanted) => {
            let new = NewTrustPolicy {
                name: wanted.name.clone(),
                workflow: wanted.workflow.clone(),
                project: None,
                mode: wanted.policy.mode,
                threshold: wanted.policy.threshold,
                signers: wanted.policy.signers.clone(),
            };
            let new = Call::post_once(&["trust-policies"], json(&new)?)?;
            call("create", &wanted.name, new)?;
        }
        PolicyStep::Replace { there, wanted, .. } => {
            let path = ["trust-policies", &there.name];
            let put = Call::put(&path, json(&wanted.policy)?).only(&there.etag);
            call("update", &there.name, put)?;
        }
        PolicyStep::Delete(there) => {
            let path = ["trust-policies", &there.name];
            call("delete", &there.name, Call::delete(&path).only(&there.etag))?;
        }
    }
    Ok(())
}

fn one(client: &Client, step: &Step, secrets: &mut Secrets) -> anyhow::Result<()> {
    match step {
        Step::Register(wanted) => {
            let mut inputs = wanted.inputs.clone();
            inputs.extend(secrets.0.remove(&wanted.name).unwrap_or_default());
            let new = NewRegistration {
                integration: wanted.integration.clone(),
                name: wanted.name.clone(),
                description: wanted.description.clone(),
                inputs,
            };
            let call = Call::post_once(&["registrations"], json(&new)?)?;
            client
                .call::<IgnoredAny>(&call)
                .with_context(|| format!("failed to register {:?}", wanted.name))?;
        }
        Step::Update(update) => {
            let Update { there, changes, .. } = &**update;
            let mut patch = patch(changes);
            if update.sends_secrets {
                let inputs = patch.entry("inputs").or_insert_with(|| Map::new().into());
                if let Value::Object(inputs) = inputs {
                    inputs.extend(secrets.0.remove(&there.name).unwrap_or_default());
                    let dropped = update.dropped.iter();
                    inputs.extend(dropped.map(|name| (name.clone(), Value::Null)));
                }
            }
            let path = ["registrations", &there.id];
            let call = Call::patch_once(&path, json(&patch)?)?.only(&there.etag);
            client
                .call::<IgnoredAny>(&call)
                .with_context(|| format!("failed to update {:?}", there.name))?;
        }
        Step::Attach {
            registration,
            attachment,
        } => {
            attach(client, registration, attachment)?;
        }
        Step::Reattach {
            registration,
            there,
            changes,
        } => {
            let path = ["attachments", &there.id];
            let call = Call::patch_once(&path, json(&patch(changes))?)?.only(&there.etag);
            client.call::<IgnoredAny>(&call).with_context(|| {
                format!(
                    "failed to update the attachment of {registration:?} to {}",
                    there.workflow
                )
            })?;
        }
        Step::Trust(step) => trust(client, step)?,
        Step::Detach {
            registration,
            there,
            ..
        } => {
            let path = ["attachments", &there.id];
            let call = Call::delete(&path).only(&there.etag);
            client.call::<IgnoredAny>(&call).with_context(|| {
                format!("failed to detach {registration:?} from {}", there.workflow)
            })?;
        }
        Step::Deregister { there } => {
            // An attachment changes nothing of its registration's, so no tag would tell.
            let known = |id: &AttachmentId| there.attachments.iter().any(|one| one.id == *id);
            if !state::attachments(client, &there.id)?.iter().all(known) {
                let text = format!(
                    "failed to delete the registration {:?}: it has new attachments",
                    there.name
                );
                let advice =
                    "Run the command again to see the attachments that would be deleted with it.";
                return Err(Failure::new(text).advice(advice).into());
            }
            let path = ["registrations", &there.id];
            let call = Call::delete(&path).only(&there.etag);
            client
                .call::<IgnoredAny>(&call)
                .with_context(|| format!("failed to delete the registration {:?}", there.name))?;
        }
    }
    Ok(())
}
