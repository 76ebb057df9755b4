//! Current state: every registration with its attachments, as far as a file can describe them.

use anyhow::Context as _;
use api::trust::{ListedTrustPolicy, TrustPolicy};
use api::{AttachmentId, RegistrationId};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::client::{Call, Client};
use crate::integration::EVERYTHING;

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Registered {
    pub id: RegistrationId,
    pub name: String,
    pub integration: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub config: Map<String, Value>,
    /// Masked: their names are all that can be compared.
    #[serde(default)]
    pub secrets: Map<String, Value>,
    pub etag: String,
    #[serde(skip)]
    pub attachments: Vec<Attached>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Attached {
    pub id: AttachmentId,
    pub workflow: String,
    #[serde(default)]
    pub config: Map<String, Value>,
    #[serde(default)]
    pub wait_secs: Option<u64>,
    pub etag: String,
    registration: Of,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Of {
    id: RegistrationId,
}

/// Reads all registrations, sorted by name; attachments in order of creation.
pub(super) fn read(client: &Client) -> anyhow::Result<Vec<Registered>> {
    let (mut registrations, _): (Vec<Registered>, _) = client
        .list(&["registrations"], &[], EVERYTHING)
        .context("failed to list the registered integrations")?;
    let (attachments, _): (Vec<Attached>, _) = client
        .list(&["attachments"], &[], EVERYTHING)
        .context("failed to list the attached integrations")?;
    for attachment in attachments {
        let of = &attachment.registration.id;
        // One that was registered between the two lists is nothing that the plan could know.
        if let Some(registration) = registrations.iter_mut().find(|one| one.id == *of) {
            registration.attachments.push(attachment);
        }
    }
    Ok(registrations)
}

/// Reads all trust policies, sorted by name.
pub(super) fn policies(client: &Client) -> anyhow::Result<Vec<TrustPolicy>> {
    let (listed, _): (Vec<ListedTrustPolicy>, _) = client
        .list(&["trust-policies"], &[], EVERYTHING)
        .context("failed to list the trust policies")?;
    let read = listed.iter().map(|one| {
        client
            .call(&Call::get(&["trust-policies", &one.name]))
            .with_context(|| format!("failed to read the trust policy {:?}", one.name))
    });
    read.collect()
}

/// Returns the IDs of a registration's current attachments.
pub(super) fn attachments(
    client: &Client,
    registration: &RegistrationId,
) -> anyhow::Result<Vec<AttachmentId>> {
    #[derive(Deserialize)]
    struct Id {
        id: AttachmentId,
    }
    let query = [("registration", Some(registration.as_str()))];
    let (found, _): (Vec<Id>, _) = client
        .list(&["attachments"], &query, EVERYTHING)
        .context("failed to list the attachments to delete")?;
    Ok(found.into_iter().map(|one| one.id).collect())
}

/// Deliveries that are not final among the newest, and whether there are older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    pub count: usize,
    pub of_newest: bool,
}

#[derive(Debug, Deserialize)]
struct Delivery {
    state: String,
    attachment: AttachmentId,
}

/// Counts the open deliveries of a registration, or of one attachment of it. Sends one request: the whole history may
/// be long.
pub(super) fn open(
    client: &Client,
    registration: &RegistrationId,
    attachment: Option<&AttachmentId>,
) -> anyhow::Result<Open> {
    let query = [
        ("registration", Some(registration.as_str())),
        ("limit", Some("100")),
    ];
    let page: api::Page<Delivery> = client
        .call(&Call::get(&["deliveries"]).query(&query))
        .context("failed to list the deliveries to cancel")?;
    let is_open = |delivery: &&Delivery| {
        matches!(delivery.state.as_str(), "pending" | "delivering")
            && attachment.is_none_or(|id| *id == delivery.attachment)
    };
    Ok(Open {
        count: page.items.iter().filter(is_open).count(),
        of_newest: page.next.is_some(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn attached(
        id: &str,
        workflow: &str,
        config: Map<String, Value>,
        wait_secs: Option<u64>,
    ) -> Attached {
        Attached {
            id: id.into(),
            workflow: workflow.to_owned(),
            config,
            wait_secs,
            etag: format!("etag of {id}"),
            registration: Of { id: "".into() },
        }
    }
}
