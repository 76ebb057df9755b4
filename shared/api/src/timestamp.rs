//! Moments, to the millisecond, written one way everywhere: `2026-01-02T03:04:05.678Z`.
//!
//! The fixed width makes their order the order of their text, which the table's indexes rely on.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since 1970 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub const fn millis(self) -> u64 {
        self.0
    }

    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// Zero when `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.3}", jiff::Timestamp::from(*self))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse::<jiff::Timestamp>()?.into())
    }
}

impl From<jiff::Timestamp> for Timestamp {
    /// Cuts what is shorter than a millisecond, and what is before 1970.
    fn from(moment: jiff::Timestamp) -> Self {
        Self(u64::try_from(moment.as_millisecond()).unwrap_or(0))
    }
}

impl From<Timestamp> for jiff::Timestamp {
    fn from(Timestamp(millis): Timestamp) -> Self {
        let millis = i64::try_from(millis).ok();
        let moment = millis.and_then(|millis| Self::from_millisecond(millis).ok());
        moment.unwrap_or(Self::MAX)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_time_have_the_same_order() {
        let moments = [
            0,
            1,
            999,
            1000,
            1_767_322_445_678,
            1_767_322_445_679,
            4_102_444_800_000,
        ];
        let texts: Vec<String> = moments
            .iter()
            .map(|millis| Timestamp::from_millis(*millis).to_string())
            .collect();
        assert!(texts.is_sorted(), "{texts:?}");
        assert_eq!(texts[4], "2026-01-02T02:54:05.678Z");
        for (millis, text) in moments.iter().zip(&texts) {
            assert_eq!(text.parse::<Timestamp>().unwrap().millis(), *millis);
        }
    }
}
