//! What operators are told of: deliveries that failed, registrations that were paused, destinations that are down, and
//! what is about to end.
//!
//! A notice is a row that counts, and the reconciler tells of it: at once, and then at most once in [`EVERY`]. So an
//! outage is one message with a number, and not a thousand. A notice that cannot be written is lost, since what it tells
//! of must not fail for it: the ledger and the metrics have it all the same.

use std::time::Duration;

use api::{DeliveryId, OrganizationName, Timestamp};
use serde_json::{Value, json};
use tracing::warn;

use crate::store::platform::{Announcement, Platform, Scope, Unreachable, Write};
use crate::store::rows::{self, CONFLICTS, Event, Notice, Registration, Row as _, Stored};

/// Time between two messages about the same.
pub const EVERY: Duration = Duration::from_mins(5);

/// How long before something ends it is told of, at most.
const AHEAD: Duration = Duration::from_hours(7 * 24);

/// The same for a certificate, since another authority has to be known everywhere before the old one ends.
const AHEAD_OF_CERTIFICATE: Duration = Duration::from_hours(30 * 24);

/// Something to be told of.
#[derive(Debug, Clone, Default)]
pub(crate) struct News {
    /// ID of a registration, a token, an intake or a trust policy; the name of a quota and its day.
    pub(crate) subject: String,
    /// Its name, where that is not read when it is told.
    pub(crate) name: String,
    pub(crate) detail: String,
    pub(crate) delivery: Option<DeliveryId>,
}

/// Counts something that happened just now.
pub(crate) async fn note(scope: Scope<'_, impl Platform>, event: Event, news: News) {
    let platform = scope.platform;
    let now = platform.now();
    let new = notice(scope.organization, event, &news, now);
    let changed = rows::change_or_insert(platform, new, CONFLICTS, |row| {
        if row.count == 0 {
            row.since = now;
        }
        row.count += 1;
        row.until = now;
        row.detail.clone_from(&news.detail);
        row.delivery.clone_from(&news.delivery);
        let earliest = row.sent_at.map_or(now, |sent_at| sent_at.plus(EVERY));
        row.wake_at = row.wake_at.or(Some(earliest.max(now)));
        Some(Vec::new())
    });
    // In a conflict, others count the same: the message comes.
    if let Err(unreachable) = Box::pin(changed).await {
        warn!(event = event.name(), error = %unreachable, "Operators are not told of something");
    }
}

fn notice(organization: &OrganizationName, event: Event, news: &News, now: Timestamp) -> Notice {
    Notice {
        organization: organization.clone(),
        event,
        subject: news.subject.clone(),
        name: news.name.clone(),
        detail: news.detail.clone(),
        delivery: news.delivery.clone(),
        count: 0,
        since: now,
        until: now,
        sent_at: None,
        wake_at: None,
    }
}

/// A write of a notice that something ends: [`AHEAD`], or when three quarters of its time are over.
pub(crate) fn ends(
    scope: Scope<'_, impl Platform>,
    event: Event,
    news: &News,
    ends_at: Option<Timestamp>,
) -> Option<Write> {
    let row = ending(scope, event, news, ends_at?);
    Some(rows::insert(scope.platform, &row).0)
}

/// Replaces the notice of an end by that of another.
pub(crate) async fn ends_instead(
    scope: Scope<'_, impl Platform>,
    event: Event,
    news: &News,
    ends_at: Option<Timestamp>,
) -> Result<Option<Write>, Unreachable> {
    let Some(ends_at) = ends_at else {
        return forget(scope, event, &news.subject).await;
    };
    let row = ending(scope, event, news, ends_at);
    let over = rows::load::<Notice>(scope.platform, &row.key()).await?;
    let over = over.map(|over| over.version);
    Ok(Some(rows::put(scope.platform, &row, over.as_ref()).0))
}

fn ending(
    scope: Scope<'_, impl Platform>,
    event: Event,
    news: &News,
    ends_at: Timestamp,
) -> Notice {
    let (platform, organization) = scope.parts();
    let now = platform.now();
    let most = match event {
        Event::CertificateExpiring => AHEAD_OF_CERTIFICATE,
        _ => AHEAD,
    };
    let ahead = most.min(ends_at.since(now) / 4);
    let wake_at = now.plus(ends_at.since(now).saturating_sub(ahead));
    Notice {
        count: 1,
        until: ends_at,
        wake_at: Some(wake_at),
        ..notice(organization, event, news, now)
    }
}

/// A write of the notice that a certificate in these PEM texts ends, for whoever trusts it. Takes an older one back
/// where none ends.
pub(crate) async fn certificates_end<'a>(
    scope: Scope<'_, impl Platform>,
    (subject, name): (&str, &str),
    pems: impl IntoIterator<Item = &'a str>,
) -> Result<Option<Write>, Unreachable> {
    // As it may stand on a command line.
    let pems = pems.into_iter().map(|pem| pem.replace("\\n", "\n"));
    let ends = pems.filter_map(|pem| verify::certificates_end(&pem)).min();
    let news = News {
        subject: subject.to_owned(),
        name: name.to_owned(),
        ..News::default()
    };
    ends_instead(scope, Event::CertificateExpiring, &news, ends).await
}

/// A write that takes such a notice back, where there is one.
pub(crate) async fn forget(
    scope: Scope<'_, impl Platform>,
    event: Event,
    subject: &str,
) -> Result<Option<Write>, Unreachable> {
    let (platform, organization) = scope.parts();
    let at = Notice::at(organization, event, subject);
    let stored = rows::load::<Notice>(platform, &at).await?;
    Ok(stored.map(|stored| stored.delete()))
}

/// Tells of a notice whose time has come.
pub(crate) async fn tell(
    platform: &impl Platform,
    mut stored: Stored<Notice>,
) -> Result<(), Unreachable> {
    let announcement = announcement(platform, &stored.row).await?;
    // Told first: a crash before the row is written tells twice, the other way round not at all.
    platform.announce(announcement).await?;
    let (told, now) = (stored.row.count, platform.now());
    let changed = rows::change(platform, &mut stored, |row| {
        // What was counted meanwhile is for the next message.
        row.count = row.count.saturating_sub(told);
        row.sent_at = Some(now);
        row.wake_at = (row.count > 0).then(|| now.plus(EVERY));
        Some(Vec::new())
    });
    changed.await?.is_written("a notice")?;
    Ok(())
}

async fn announcement(
    platform: &impl Platform,
    notice: &Notice,
) -> Result<Announcement, Unreachable> {
    let mut subject = json!({ "id": notice.subject, "name": notice.name });
    if notice.event.is_of_registration() {
        let id = notice.subject.as_str().into();
        let at = Registration::at(&notice.organization, &id);
        let found = rows::load::<Registration>(platform, &at).await?;
        if let Some(Stored { row, .. }) = found {
            subject = json!({ "id": row.id, "name": row.name, "integration": row.integration });
        }
    }
    Ok(Announcement {
        title: notice.event.title(),
        detail: json!({
            "event": notice.event.name(),
            "organization": notice.organization,
            "subject": subject,
            "count": notice.count,
            "since": notice.since,
            "until": notice.until,
            "detail": notice.detail,
            "delivery": notice.delivery,
            "summary": summary(notice, &subject),
        }),
    })
}

/// One line for people.
fn summary(notice: &Notice, subject: &Value) -> String {
    let text = |name: &str| subject[name].as_str().unwrap_or_default();
    let name = match text("name") {
        "" => text("id"),
        name => name,
    };
    let Notice {
        organization,
        count,
        since,
        until,
        detail,
        ..
    } = notice;
    let deliveries = match count {
        1 => "1 delivery".to_owned(),
        many => format!("{many} deliveries"),
    };
    let what = match notice.event {
        Event::DeliveryFailed => format!("{deliveries} to {name} failed since {since}: {detail}"),
        Event::RetriesExhausted => {
            format!("{deliveries} to {name} failed for good since {since}: {detail}")
        }
        Event::RegistrationPaused => format!("{name} was paused: {detail}"),
        Event::RegistrationResumed => format!("{name} was resumed by {detail}"),
        Event::CircuitOpen => format!("{name} is down: {detail}"),
        Event::CircuitClosed => format!("{name} answers again"),
        Event::TokenExpiring => format!("the token {name} ends at {until}"),
        Event::IntakeExpiring => format!("the intake {name} ends at {until}"),
        Event::CertificateExpiring => {
            format!("a certificate that {name} trusts ends at {until}")
        }
        Event::QuotaNear => detail.clone(),
    };
    format!("{organization}: {what}")
}
