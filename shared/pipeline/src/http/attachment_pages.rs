//! Pages of attachments: of a workflow, of a registration, or of all.

use std::collections::{BTreeMap, BTreeSet};

use api::workflows::Selector;
use api::{AttachmentId, Problem, RegistrationId};
use futures_util::future::try_join_all;

use crate::config::{self, attach};
use crate::store::platform::{Platform, Scope};
use crate::store::rows::{self, Stored};

/// The place where a page begins: behind a registration, by its name, and where not all of its attachments were on the
/// page before, behind one of them.
pub(super) struct After<'a> {
    registration: &'a str,
    attachment: Option<AttachmentId>,
}

impl<'a> After<'a> {
    pub(super) fn parse(cursor: &'a str) -> Option<Self> {
        let (registration, attachment) = match cursor.split_once('_') {
            None => (cursor, None),
            Some((registration, id)) => {
                uuid::Uuid::parse_str(id).ok()?;
                (registration, Some(id.into()))
            }
        };
        api::names::is_label(registration).then_some(Self {
            registration,
            attachment,
        })
    }

    fn comes_before(&self, registration: &str, attachment: &AttachmentId) -> bool {
        match &self.attachment {
            Some(own) => (self.registration, own) < (registration, attachment),
            None => self.registration < registration,
        }
    }
}

/// An attachment with its registration.
pub(super) type Pair = (Stored<rows::Registration>, Stored<rows::Attachment>);

fn cursor((registration, attachment): &Pair) -> String {
    format!("{}_{}", registration.row.name, attachment.row.id)
}

/// Registrations whose attachments are asked for at once.
const AT_ONCE: usize = 10;

/// A page of the attachments with exactly this selector, of which there are not too many to be read all.
pub(super) async fn of_workflow(
    scope: Scope<'_, impl Platform>,
    (selector, only): (&Selector, Option<Stored<rows::Registration>>),
    after: Option<After<'_>>,
    limit: usize,
) -> Result<(Vec<Pair>, Option<String>), Problem> {
    let (platform, organization) = scope.parts();
    let attached = attach::of_workflow(scope, selector).await?;
    let ids: BTreeSet<&RegistrationId> = attached
        .iter()
        .map(|stored| &stored.row.registration)
        .filter(|id| only.as_ref().is_none_or(|only| only.row.id == **id))
        .collect();
    let keys: Vec<_> = ids
        .into_iter()
        .map(|id| rows::Registration::at(organization, id))
        .collect();
    let registrations = rows::load_many::<rows::Registration>(platform, &keys).await?;
    let by_id: BTreeMap<&RegistrationId, &Stored<rows::Registration>> = registrations
        .iter()
        // One that is being deleted has no attachments any more.
        .filter(|registration| registration.row.deleted_at.is_none())
        .map(|registration| (&registration.row.id, registration))
        .collect();
    let mut pairs: Vec<Pair> = attached
        .iter()
        .filter_map(|attachment| {
            let registration = by_id.get(&attachment.row.registration)?;
            let is_behind = after
                .as_ref()
                .is_none_or(|after| after.comes_before(&registration.row.name, &attachment.row.id));
            is_behind.then(|| ((*registration).clone(), attachment.clone()))
        })
        .collect();
    pairs.sort_by(|a, b| (&a.0.row.name, &a.1.row.id).cmp(&(&b.0.row.name, &b.1.row.id)));
    let is_more = pairs.len() > limit;
    pairs.truncate(limit);
    let next = pairs.last().filter(|_| is_more).map(cursor);
    Ok((pairs, next))
}

/// A page of the attachments of one registration or of all, in the order of the registrations' names.
pub(super) async fn walk(
    scope: Scope<'_, impl Platform>,
    only: Option<Stored<rows::Registration>>,
    after: Option<After<'_>>,
    limit: usize,
) -> Result<(Vec<Pair>, Option<String>), Problem> {
    let (platform, organization) = scope.parts();
    let within = after
        .as_ref()
        .filter(|after| after.attachment.is_some())
        .map(|after| after.registration);
    let (registrations, mut next) = match only {
        Some(only) => {
            let behind = after.as_ref().map(|after| after.registration);
            let is_left = behind.is_none_or(|behind| {
                behind < only.row.name.as_str() || within == Some(only.row.name.as_str())
            });
            (is_left.then_some(only).into_iter().collect(), None)
        }
        None => {
            let behind = after.as_ref().map(|after| after.registration);
            let (mut found, next) = config::list(scope, behind, limit).await?;
            if let Some(name) = within {
                match config::find(scope, name).await {
                    Ok(stored) => found.insert(0, stored),
                    Err(config::Error::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            (found, next)
        }
    };
    let mut chosen: Vec<(&Stored<rows::Registration>, AttachmentId)> = Vec::new();
    let mut is_more = false;
    for some in registrations.chunks(AT_ONCE) {
        let left = limit - chosen.len() + 1;
        let ids = try_join_all(some.iter().map(|registration| {
            let rows::Registration { id, name, .. } = &registration.row;
            let behind = after.as_ref().filter(|after| after.registration == name);
            let behind = behind.and_then(|after| after.attachment.as_ref());
            config::attachment_ids(scope, id, behind, left)
        }))
        .await?;
        let ids = some.iter().zip(ids);
        chosen.extend(ids.flat_map(|(one, ids)| ids.into_iter().map(move |id| (one, id))));
        if chosen.len() > limit {
            is_more = true;
            break;
        }
    }
    chosen.truncate(limit);
    if is_more && let Some((registration, id)) = chosen.last() {
        next = Some(format!("{}_{id}", registration.row.name));
    }
    let keys: Vec<_> = chosen
        .iter()
        .map(|(_, id)| rows::Attachment::at(organization, id))
        .collect();
    let attachments = rows::load_many::<rows::Attachment>(platform, &keys).await?;
    let mut by_id: BTreeMap<AttachmentId, Stored<rows::Attachment>> = attachments
        .into_iter()
        .filter(|attachment| attachment.row.deleted_at.is_none())
        .map(|attachment| (attachment.row.id.clone(), attachment))
        .collect();
    let pairs = chosen
        .into_iter()
        .filter_map(|(registration, id)| Some((registration.clone(), by_id.remove(&id)?)));
    Ok((pairs.collect(), next))
}
