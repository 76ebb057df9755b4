//! Admission of posts to intakes: by token and address, with a note of each intake's last use and of its refusals.

use std::collections::BTreeMap;

use api::{Client, IntakeId};
use tracing::{info, warn};

use crate::config::intakes::PREFIX;
use crate::config::{last_use, tokens};
use crate::records::audit_log::{Act, Subject};
use crate::store::platform::{Platform, Scope, Unreachable, Write};
use crate::store::rows::{
    self, CONFLICTS, Intake, IntakeToken, IntakeUse, LastUse, Refusal, Stored,
};

/// Lets in a post by its token and its address; none when the token is unknown or has expired, or when the intake does
/// not allow the address. All of these look alike from outside.
pub async fn admit(
    platform: &impl Platform,
    token: &str,
    client: &Client,
) -> Result<Option<IntakeToken>, Unreachable> {
    if !token.starts_with(PREFIX) || token.len() > 256 {
        return Ok(None);
    }
    let key = IntakeToken::at(&tokens::hash(token));
    let Some(Stored { row, .. }) = rows::load::<IntakeToken>(platform, &key).await? else {
        return Ok(None);
    };
    let refusal = if !row.is_live(platform.now()) {
        Refusal::Expired
    } else if !row.conditions.allows(&client.address) {
        Refusal::Address
    } else {
        return Ok(Some(row));
    };
    refused(platform, &row, client, refusal, "").await;
    Ok(None)
}

/// Writes down that an intake was used.
pub(crate) async fn used(platform: &impl Platform, intake: &IntakeToken, client: &Client) {
    let change = |row: &mut IntakeUse| {
        let noted = last_use::note(&mut row.last_used, client, platform.now());
        noted.then(Vec::new)
    };
    note(platform, intake, change).await;
}

/// Logs that an intake refused a post, and tells the audit log.
pub(crate) async fn refused(
    platform: &impl Platform,
    intake: &IntakeToken,
    client: &Client,
    refusal: Refusal,
    detail: &str,
) {
    warn!(intake.id = %intake.id, address = client.address, %refusal, "Refused a post to an intake");
    let detail = match detail {
        "" => refusal.to_string(),
        detail => format!("{refusal}: {detail}"),
    };
    let actor = intake.actor(client);
    let change = |row: &mut IntakeUse| {
        let now = platform.now();
        if !last_use::is_due(row.refused.get(&refusal).copied(), now) {
            return None;
        }
        row.refused.insert(refusal, now);
        let act = Act {
            actor: &actor,
            action: "intake.refuse",
        };
        let subject = Subject::new(&intake.name, intake.id.as_str());
        let entry = act.entry(
            Scope::new(platform, &intake.organization),
            subject,
            detail.clone(),
        );
        Some(vec![entry])
    };
    note(platform, intake, change).await;
}

/// Changes what is noted of an intake, and writes beside it what the change gives; none when there is nothing to
/// change. A failure is logged and no more: a post does not depend on it.
async fn note(
    platform: &impl Platform,
    intake: &IntakeToken,
    change: impl Fn(&mut IntakeUse) -> Option<Vec<Write>>,
) {
    let new = IntakeUse::none(&intake.organization, &intake.id);
    if let Err(error) = rows::change_or_insert(platform, new, CONFLICTS, change).await {
        info!(intake.id = %intake.id, %error, "Failed to note the use of an intake");
    }
}

/// The last uses of these intakes, by their ids.
pub async fn uses(
    platform: &impl Platform,
    intakes: &[Intake],
) -> Result<BTreeMap<IntakeId, LastUse>, Unreachable> {
    let at = |intake: &Intake| IntakeUse::at(&intake.organization, &intake.id);
    let keys = intakes.iter().map(at).collect();
    last_use::all(platform, keys, |row: IntakeUse| {
        Some((row.intake, row.last_used?))
    })
    .await
}
