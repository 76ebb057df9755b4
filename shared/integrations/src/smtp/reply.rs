//! Replies of a mail server, and their meaning for the delivery and for each recipient.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use super::wire::Unread;
use crate::http::tls;
use crate::{About, Answer, Kind};

/// Longest reply in an error's text; the attempt keeps more of it.
pub(super) const SHOWN_BYTES: usize = 256;

/// The server closes the connection, whatever it was asked.
pub(super) const CLOSING: u16 = 421;

/// Reply fit to be shown: without secrets, control characters and addresses of people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) text: String,
}

impl Reply {
    /// `550 5.1.1 no such user`, in at most so many bytes.
    pub(super) fn shown(&self, most: usize) -> String {
        let mut shown = format!("{} {}", self.code, self.text);
        shown.truncate(shown.floor_char_boundary(most));
        shown.trim_end().to_owned()
    }

    /// Returns whether the same may be accepted later (RFC 5321, 4.2.1).
    pub(super) fn is_transient(&self) -> bool {
        self.code < 500
    }

    /// Returns the kind of a failure that concerns the whole delivery.
    pub(super) fn kind(&self, step: Step) -> Kind {
        match self.code {
            _ if self.is_transient() => Kind::Retryable { after: None },
            // The password may have been changed since we read it.
            535 if step == Step::Authenticate => Kind::Unauthorized,
            _ => Kind::Permanent,
        }
    }

    pub(super) fn answer(&self) -> Answer {
        Answer {
            status: self.code,
            excerpt: self.text.clone(),
        }
    }
}

/// Outcome of the mail for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted(Reply),
    /// Refused for good.
    Refused(Why),
    /// Refused for now; a later attempt tries again.
    Deferred(Why),
    /// The mail went out, and no reply came.
    Indeterminate(&'static str),
    /// [`Indeterminate`](Self::Indeterminate) for the second time: nobody tries again.
    Lost(&'static str),
}

pub(super) const NOT_ASCII: &str =
    "an address has letters beyond ASCII, for which the server does not offer SMTPUTF8";

/// Reason why a recipient does not have the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    Said(Reply),
    /// The mail exceeds the size that the server offers.
    TooLarge {
        size_bytes: usize,
        limit: usize,
    },
    /// An address has letters beyond ASCII, and the server does not offer SMTPUTF8.
    NotAscii,
    Broken(&'static str),
}

impl Why {
    pub(super) fn answer(&self) -> Option<Answer> {
        match self {
            Self::Said(reply) => Some(reply.answer()),
            Self::TooLarge { .. } | Self::NotAscii | Self::Broken(_) => None,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(reply) => write!(f, "answered {}", reply.shown(SHOWN_BYTES)),
            Self::TooLarge { size_bytes, limit } => write!(
                f,
                "the mail has {size_bytes} bytes, and the server takes {limit} at most"
            ),
            Self::NotAscii => f.write_str(NOT_ASCII),
            Self::Broken(reason) => f.write_str(reason),
        }
    }
}

impl Fate {
    pub(super) fn of(trouble: &Trouble) -> Self {
        match trouble {
            Trouble::Said(reply) if reply.is_transient() => {
                Self::Deferred(Why::Said(reply.clone()))
            }
            Trouble::Said(reply) => Self::Refused(Why::Said(reply.clone())),
            Trouble::Broken { reason, .. } => Self::Deferred(Why::Broken(reason)),
        }
    }

    /// A server that asks for another try of one mail, as greylisting does, takes others meanwhile. In trouble
    /// itself it says 421.
    pub(super) fn about(&self) -> About {
        match self {
            Self::Deferred(Why::Said(reply)) if reply.code != CLOSING => About::Delivery,
            _ => About::Destination,
        }
    }
}

/// Failure of a step.
#[derive(Debug)]
pub(super) enum Trouble {
    Said(Reply),
    /// No reply, or none that could be understood.
    Broken {
        reason: &'static str,
        is_permanent: bool,
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

impl Trouble {
    pub(super) const fn broken(reason: &'static str) -> Self {
        Self::Broken {
            reason,
            is_permanent: false,
            source: None,
        }
    }
}

pub(super) const LATE: Trouble = Trouble::broken("no reply in time");

impl From<Unread> for Trouble {
    fn from(unread: Unread) -> Self {
        let (reason, is_permanent) = match &unread {
            Unread::Ended => ("the connection ended without a reply", false),
            Unread::Endless => ("the reply does not end", false),
            Unread::Malformed => ("the reply is not one of a mail server", false),
            Unread::Broken(error) => reason(error),
        };
        Self::Broken {
            reason,
            is_permanent,
            source: Some(unread.into()),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        let (reason, is_permanent) = reason(&error);
        Self::Broken {
            reason,
            is_permanent,
            source: Some(error.into()),
        }
    }
}

const NOT_TLS: &str =
    "it does not answer in TLS; if its port is one for STARTTLS, choose tls=starttls";

/// Names the cause, and tells whether it is permanent.
fn reason(error: &(dyn StdError + 'static)) -> (&'static str, bool) {
    match tls::failure(error) {
        Some((tls::NO_TLS, is_permanent)) => return (NOT_TLS, is_permanent),
        Some(reason) => return reason,
        None => {}
    }
    let mut reason = "the connection broke";
    for cause in tls::causes(error) {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            reason = match error.kind() {
                io::ErrorKind::InvalidData => "the TLS handshake failed",
                _ => reason,
            };
        }
    }
    (reason, false)
}

/// Step that failed for the whole delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Encrypt,
    Authenticate,
    Greet,
}

impl Step {
    /// Completes "failed to …", in front of the server's name.
    pub(super) fn doing(self) -> &'static str {
        match self {
            Self::Encrypt => "speak TLS with",
            Self::Authenticate => "log in at",
            Self::Greet => "speak with",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greylisting_speaks_of_a_mail_and_a_server_that_closes_of_itself() {
        let said = |code| {
            let text = String::new();
            Fate::Deferred(Why::Said(Reply { code, text }))
        };
        for (fate, about) in [
            (said(450), About::Delivery),
            (said(451), About::Delivery),
            (said(421), About::Destination),
            (
                Fate::Deferred(Why::Broken("the connection broke")),
                About::Destination,
            ),
            (Fate::Indeterminate("no answer in time"), About::Destination),
        ] {
            assert_eq!(fate.about(), about, "{fate:?}");
        }
    }
}
