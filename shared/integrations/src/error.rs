//! What went wrong on the way to a third party.
//!
//! The delivery engine reads [`Kind`] and nothing else; the operator reads [`Error`]'s text, which
//! completes "failed to …"; its source, for us, goes to the log once and never into the text.

use std::time::Duration;

/// What to do about it: as many kinds as the delivery engine has branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing arrived, or the third party asked for another try; not before `after`, if it named a time.
    Retryable { after: Option<Duration> },
    /// The request went out and no answer came: the third party may have it.
    Unanswered,
    /// 401: read the secret again once, try at once, then give up.
    Unauthorized,
    /// The same request will be refused again.
    Permanent,
    /// Permanent, and the registration itself is dead: nothing sent through it will arrive.
    Dead,
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
    /// It concerns every registration of the integration. See [`for_all`](Self::for_all).
    pub is_for_all: bool,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            answer: None,
            is_for_all: false,
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

    /// The third party refuses all of us, not this registration: everybody stays away for the time that a
    /// [`Kind::Retryable`] names. Heeded where [`SHARES_LIMITS`](crate::Integration::SHARES_LIMITS).
    #[must_use]
    pub fn for_all(mut self) -> Self {
        self.is_for_all = true;
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
