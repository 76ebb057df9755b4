//! A place in somebody's trace, as W3C Trace Context writes it: <https://www.w3.org/TR/trace-context/#traceparent-header>.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Name of the header that has one.
pub const TRACEPARENT: &str = "traceparent";

/// A trace, the span that asks, and whether that is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Trace {
    id: u128,
    span: u64,
    flags: u8,
}

/// The text is no `00-<trace>-<span>-<flags>`. Whoever is sent one goes on as if there were none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read the trace: it is not as W3C Trace Context has it")]
pub struct NotATrace;

impl Trace {
    /// The trace's ID, of 32 digits.
    pub fn id(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// The span's ID, of 16 digits.
    pub fn span(&self) -> String {
        format!("{:016x}", self.span)
    }

    /// Reports whether whoever began the trace records it.
    pub fn is_recorded(&self) -> bool {
        self.flags & 1 == 1
    }

    /// The same trace, with this span as the one that asks.
    #[must_use]
    pub fn with_span(self, span: [u8; 8]) -> Self {
        // 0 is none.
        let span = u64::from_be_bytes(span).max(1);
        Self { span, ..self }
    }
}

impl FromStr for Trace {
    type Err = NotATrace;

    /// Reads a text of version 00, or the part of a later version that says the same.
    fn from_str(text: &str) -> Result<Self, NotATrace> {
        let mut parts = text.splitn(5, '-');
        let mut digits = |number: usize| {
            let part = parts.next().filter(|part| part.len() == number);
            let is_lower = |part: &&str| {
                let mut bytes = part.bytes();
                bytes.all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            };
            let part = part.filter(is_lower).ok_or(NotATrace)?;
            u128::from_str_radix(part, 16).map_err(|_| NotATrace)
        };
        let (version, id, span, flags) = (digits(2)?, digits(32)?, digits(16)?, digits(2)?);
        let is_known = version == 0 && parts.next().is_none() || (1..0xff).contains(&version);
        if !is_known || id == 0 || span == 0 {
            return Err(NotATrace);
        }
        Ok(Self {
            id,
            span: u64::try_from(span).map_err(|_| NotATrace)?,
            flags: u8::try_from(flags).map_err(|_| NotATrace)?,
        })
    }
}

impl TryFrom<String> for Trace {
    type Error = NotATrace;

    fn try_from(text: String) -> Result<Self, NotATrace> {
        text.parse()
    }
}

impl From<Trace> for String {
    fn from(trace: Trace) -> Self {
        trace.to_string()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, span, flags } = self;
        write!(formatter, "00-{id:032x}-{span:016x}-{flags:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The specification's own examples.
    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_trace_is_read_as_it_is_written() {
        for flags in ["00", "01", "ff"] {
            let text = format!("00-{ID}-{SPAN}-{flags}");
            let trace: Trace = text.parse().unwrap();
            assert_eq!(
                (trace.to_string(), trace.id(), trace.span()),
                (text, ID.to_owned(), SPAN.to_owned())
            );
            assert_eq!(trace.is_recorded(), flags != "00");
        }
        let later: Trace = format!("cc-{ID}-{SPAN}-01-what-comes").parse().unwrap();
        assert_eq!(later.to_string(), format!("00-{ID}-{SPAN}-01"));
        let other = later.with_span([0; 8]);
        assert_eq!(other.to_string(), format!("00-{ID}-0000000000000001-01"));
    }

    #[test]
    fn what_is_no_trace_is_none() {
        let (no_id, no_span) = ("0".repeat(32), "0".repeat(16));
        let (upper, short) = (ID.to_uppercase(), &ID[1..]);
        for text in [
            String::new(),
            format!("00-{ID}-{SPAN}"),
            format!("00-{ID}-{SPAN}-01-more"),
            format!("ff-{ID}-{SPAN}-01"),
            format!("00-{no_id}-{SPAN}-01"),
            format!("00-{ID}-{no_span}-01"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-+{short}-{SPAN}-01"),
            format!("00-{short}-{SPAN}-01"),
            format!("00-{ID}-{SPAN}-1"),
            format!(" 00-{ID}-{SPAN}-01"),
        ] {
            assert_eq!(text.parse::<Trace>(), Err(NotATrace), "{text}");
        }
    }
}
