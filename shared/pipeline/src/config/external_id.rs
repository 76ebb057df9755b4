//! An organization's external ID: what its roles at AWS ask for before our functions may assume them.
//!
//! Random, and made once, when the first registration names a role, also where that registration is refused: its operator
//! needs the ID for the role's trust policy. Nobody fills it in. So a role that asks for one organization's is refused to
//! every other, although the same function asks.

use api::OrganizationName;
use integrations::ROLE_ARN;
use serde_json::{Map, Value};

use super::Error;
use crate::store::ids;
use crate::store::platform::{Platform, Scope};
use crate::store::rows::{self, CONFLICTS, Changed, Organization};

/// Returns the ID for a registration with these inputs; none where they name no role.
pub(crate) async fn of(
    scope: Scope<'_, impl Platform>,
    inputs: &Map<String, Value>,
) -> Result<Option<String>, Error> {
    if !inputs.contains_key(ROLE_ARN) {
        return Ok(None);
    }
    let (platform, organization) = scope.parts();
    let new = Organization {
        organization: OrganizationName::clone(organization),
        created_at: platform.now(),
        external_id: None,
    };
    let made: String = ids::random(platform);
    let mut external_id = None;
    let changed = rows::change_or_insert(platform, new, CONFLICTS, |row| {
        let is_new = row.external_id.is_none();
        external_id = Some(row.external_id.get_or_insert_with(|| made.clone()).clone());
        is_new.then(Vec::new)
    });
    match changed.await? {
        Changed::Written | Changed::Unchanged => Ok(external_id),
        Changed::Conflict => Err(Error::Conflict),
    }
}
