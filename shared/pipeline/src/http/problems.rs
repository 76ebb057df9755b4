//! Problems that errors of the pipeline become.

use api::{Code, Problem, QuotaUse};
use serde_json::Value;
use tracing::error;

use crate::config::quotas::{self, Exceeded};
use crate::config::{self, tokens};
use crate::engine::{operations, signatures};
use crate::store::meter::Quota;
use crate::store::platform::{Unreachable, WriteError};

impl From<Unreachable> for Problem {
    fn from(unreachable: Unreachable) -> Self {
        error!(error = %unreachable, "The platform could not be reached");
        let detail = format!("the {} could not be reached; try again", unreachable.what);
        Self::new(Code::Unreachable, detail)
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let text = error.to_string();
        match error {
            WriteError::Conflict => Self::new(Code::Conflict, text),
            WriteError::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

impl From<Exceeded> for Problem {
    fn from(exceeded: Exceeded) -> Self {
        let detail = exceeded.to_string();
        let problem = match exceeded.quota {
            Quota::Checks => Self::new(Code::TooManyChecks, detail),
            _ => Self::new(Code::QuotaExceeded, detail),
        };
        // Rounded up: whoever comes at that time is not refused again.
        let after = exceeded.retry_after.map(|after| after.as_millis());
        let after = after.map(|millis| u64::try_from(millis.div_ceil(1000)).unwrap_or(u64::MAX));
        Self {
            retry_after_secs: after,
            quota: Some(QuotaUse {
                name: exceeded.quota.name().into(),
                limit: exceeded.limit,
                used: exceeded.used,
                resets_at: exceeded.resets_at,
            }),
            ..problem
        }
    }
}

impl From<quotas::Error> for Problem {
    fn from(error: quotas::Error) -> Self {
        match error {
            quotas::Error::Exceeded(exceeded) => exceeded.into(),
            quotas::Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

impl From<operations::Error> for Problem {
    fn from(error: operations::Error) -> Self {
        use operations::Error;
        let text = error.to_string();
        match error {
            Error::NotFound(_) => Self::new(Code::NotFound, text),
            Error::UnderWay => Self::new(Code::UnderWay, text),
            Error::Over(_) => Self::new(Code::Over, text),
            Error::Held => Self::new(Code::Paused, text),
            Error::Gone(_) => Self::new(Code::Gone, text),
            Error::Conflict => Self::new(Code::Conflict, text),
            Error::Untrusted(_, untrusted) => Self::new(signatures::code(&untrusted.verdict), text),
            Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

impl From<tokens::Error> for Problem {
    fn from(error: tokens::Error) -> Self {
        use tokens::Error;
        let text = error.to_string();
        match error {
            Error::Exceeded(exceeded) => exceeded.into(),
            Error::Faults(faults) => Self::faults(faults),
            Error::NameTaken(_) => Self::new(Code::TokenNameTaken, text),
            Error::Above { .. } => Self::new(Code::RoleAbove, text),
            Error::NotFound(_) => Self::new(Code::NotFound, text),
            Error::Overlapping(_) => Self::new(Code::Overlapping, text),
            Error::Conflict => Self::new(Code::Conflict, text),
            Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

impl From<config::Error> for Problem {
    fn from(error: config::Error) -> Self {
        use config::Error;
        let text = error.to_string();
        match error {
            Error::Exceeded(exceeded) => exceeded.into(),
            Error::NoIntegration(_) => Self::new(Code::IntegrationUnknown, text),
            Error::Faults(faults) => Self::faults(faults),
            Error::NameTaken(_) => Self::new(Code::NameTaken, text),
            Error::AttachmentExists { .. } => Self::new(Code::AttachmentExists, text),
            Error::Refused { status, answer, .. } => {
                Self::new(Code::CheckFailed, told_once(text, status, answer))
            }
            Error::NotFound(_) | Error::NotAttached(_) => Self::new(Code::NotFound, text),
            Error::Conflict => Self::new(Code::Conflict, text),
            Error::Changed => Self::new(Code::ChangedMeanwhile, text),
            Error::Unreachable(unreachable) => unreachable.into(),
        }
    }
}

/// With the response's status and body, where the text does not say them already.
fn told_once(text: String, status: Option<u16>, answer: Option<String>) -> String {
    let status = status
        .filter(|status| !text.contains(&format!("answered {status}")))
        .map(|status| format!("; it answered {status}"));
    let answer = answer
        .filter(|answer| !answer.is_empty() && !text.contains(answer.as_str()))
        // An integration quotes the message of a document that it knows.
        .filter(|answer| !serde_json::from_str(answer).is_ok_and(|answer| quotes(&text, &answer)))
        .map(|answer| format!(": {answer}"));
    text + &status.unwrap_or_default() + &answer.unwrap_or_default()
}

fn quotes(text: &str, answer: &Value) -> bool {
    match answer {
        Value::String(word) => word.len() >= 12 && text.contains(word.trim_end_matches('.')),
        Value::Array(values) => values.iter().any(|value| quotes(text, value)),
        Value::Object(map) => map.values().any(|value| quotes(text, value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_each_thing_once() {
        let detail = |text: &str, answer: &str| {
            told_once(text.to_owned(), Some(401), Some(answer.to_owned()))
        };
        let refused = "failed to log in: answered 401 Unauthorized";
        assert_eq!(detail(refused, ""), refused);
        assert_eq!(
            detail(refused, "no such key"),
            format!("{refused}: no such key")
        );
        let quoted = format!("{refused}: DENIED: access is denied");
        for answer in [
            "access is denied",
            r#"{"errors":[{"code":"DENIED","message":"access is denied."}]}"#,
        ] {
            assert_eq!(detail(&quoted, answer), quoted);
        }
        assert_eq!(
            detail("failed to find a team", r#"{"title":"Unauthorized"}"#),
            r#"failed to find a team; it answered 401: {"title":"Unauthorized"}"#
        );
    }
}
