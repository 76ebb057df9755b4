//! Errors on the way to a third party.
//!
//! The ledger reads [`Kind`], the circuit breaker reads [`About`] with it, and the operator reads [`Error`]'s text. The
//! text completes "failed to …". The error's source is for us: it goes to the log once and never into the text.

use std::time::Duration;

/// More of an answer than this is not read.
pub const ANSWER_BYTES: usize = 64 * 1024;

/// More of an answer than this is not kept with the attempt.
pub const EXCERPT_BYTES: usize = 2 * 1024;

/// Kind of error, by the reaction to it: one for each branch of the delivery engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing arrived, or the third party asked for another try; not before `after`, if it named a time.
    Retryable { after: Option<Duration> },
    /// The request went out and no answer came: the third party may have it.
    Indeterminate,
    /// 401: read the secret again once, try at once, then give up.
    Unauthorized,
    /// The same request will be refused again.
    Permanent,
    /// Permanent, and the third party says that it no longer exists: nothing sent through it will arrive.
    Gone,
}

/// Subject of a failure: where the trouble lies. Another delivery to the same destination meets it, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// This delivery: its document, its recipient, the place it goes to. Says nothing of the destination.
    Delivery,
    /// The destination or the document, which one failure cannot tell: 500, or a connection that broke.
    Either,
    /// The destination: not reached, not in time, 429, 502, 503, 504, or it named a time to wait.
    Destination,
    /// Every registration of the integration: the third party refuses all of us. Heeded where
    /// [`SHARES_LIMITS`](crate::Integration::SHARES_LIMITS).
    Everyone,
}

/// The third party's answer, kept with the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// At most 2 KiB of the body, printable, secrets removed.
    pub excerpt: String,
}

#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    pub kind: Kind,
    /// Completes "failed to …", names the thing, holds no secret.
    pub text: String,
    pub answer: Option<Answer>,
    pub about: About,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            answer: None,
            about: About::Destination,
            source: None,
        }
    }

    pub fn permanent(text: impl Into<String>) -> Self {
        Self::new(Kind::Permanent, text)
    }

    pub fn retryable(text: impl Into<String>) -> Self {
        Self::new(Kind::Retryable { after: None }, text)
    }

    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says where the trouble lies, where that is not the destination.
    #[must_use]
    pub fn about(mut self, about: About) -> Self {
        self.about = about;
        self
    }

    /// The place that it names was named to us by this one: without that, nobody could tell why we went there.
    #[must_use]
    pub(crate) fn sent_by(mut self, place: &str) -> Self {
        self.text = format!("{}; {place} sent us there", self.text);
        self
    }

    #[must_use]
    pub fn answer(mut self, answer: Answer) -> Self {
        self.answer = Some(answer);
        self
    }
}
