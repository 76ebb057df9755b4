//! Moments as people read them.

use std::time::Duration;

use api::Timestamp;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo};

/// To the second, for comparing with other logs.
pub(crate) fn exact(moment: Timestamp) -> String {
    format(moment, TimeZone::system(), "%Y-%m-%d %H:%M:%S %Z")
}

/// The time of day, of what is near.
pub(crate) fn clock(moment: Timestamp) -> String {
    format(moment, TimeZone::system(), "%H:%M:%S")
}

fn format(moment: Timestamp, zone: TimeZone, format: &str) -> String {
    match jiff::Timestamp::from_millisecond(i64::try_from(moment.millis()).unwrap_or(i64::MAX)) {
        Ok(timestamp) => timestamp.to_zoned(zone).strftime(format).to_string(),
        Err(_) => moment.to_string(),
    }
}

pub(crate) fn now() -> Timestamp {
    let millis = jiff::Timestamp::now().as_millisecond();
    Timestamp::from_millis(u64::try_from(millis).unwrap_or_default())
}

/// A moment as it is typed: RFC 3339, or how long ago.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let ago = span(text).map_err(
        |_| "must be a time such as 2026-01-31T12:00:00Z, or an age such as 30m, 2h or 7d",
    )?;
    let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    Ok(Timestamp::from_millis(now().millis().saturating_sub(ago)))
}

/// A duration as it is typed: `500ms`, `2s`, `30m`, `7d`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let fault = || "must be a duration such as 2s, 30m, 2h or 7d".to_owned();
    let span: Span = text.parse().map_err(|_| fault())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours());
    duration
        .ok()
        .and_then(|duration| duration.try_into().ok())
        .ok_or_else(fault)
}

/// Formats the distance of a moment from `now` in its largest unit: `3 minutes ago`, `in 2 hours`.
pub(crate) fn relative(moment: Timestamp, now: Timestamp) -> String {
    let (secs, is_past) = if moment > now {
        (moment.since(now).as_secs(), false)
    } else {
        (now.since(moment).as_secs(), true)
    };
    let (count, unit) = match secs {
        0 => return "now".to_owned(),
        1..60 => (secs, "second"),
        60..3_600 => (secs / 60, "minute"),
        3_600..86_400 => (secs / 3_600, "hour"),
        _ => (secs / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    if is_past {
        format!("{count} {unit}{plural} ago")
    } else {
        format!("in {count} {unit}{plural}")
    }
}

/// `410 ms`, `1.3 s`.
pub(crate) fn duration(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        _ => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_to_the_second() {
        let moment: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        assert_eq!(
            format(moment, TimeZone::UTC, "%Y-%m-%d %H:%M:%S %Z"),
            "2026-01-02 03:04:05 UTC"
        );
    }

    #[test]
    fn what_is_near_is_told_in_its_largest_unit() {
        let now = Timestamp::from_millis(1_000_000_000);
        let at = |secs: i64| {
            let moment = 1_000_000_000_u64.checked_add_signed(secs * 1_000).unwrap();
            relative(Timestamp::from_millis(moment), now)
        };
        assert_eq!(at(0), "now");
        assert_eq!(at(-1), "1 second ago");
        assert_eq!(at(-119), "1 minute ago");
        assert_eq!(at(7_300), "in 2 hours");
        assert_eq!(at(-86_400 * 3), "3 days ago");
    }

    #[test]
    fn a_moment_is_typed_as_a_time_or_as_how_long_ago() {
        assert_eq!(
            moment("2026-01-02T03:04:05Z").unwrap().to_string(),
            "2026-01-02T03:04:05.000Z"
        );
        for (text, secs) in [
            ("30m", 1_800),
            ("2h", 7_200),
            ("1h30m", 5_400),
            ("7d", 604_800),
        ] {
            let ago = now().since(moment(text).unwrap()).as_secs();
            assert!((secs..secs + 5).contains(&ago), "{text}: {ago}");
        }
        for text in ["", "2", "yesterday", "2 years", "-2h", "2026-01-02"] {
            assert!(moment(text).is_err(), "{text}");
        }
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn durations_keep_what_matters() {
        assert_eq!(duration(410), "410 ms");
        assert_eq!(duration(1_390), "1.3 s");
    }
}
