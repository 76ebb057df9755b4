//! Headers that an operator adds to each request.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use crate::SecretText;

/// Lines of `Name: value`, secret as a whole: which of them is a key, nobody says.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "SecretText")]
pub struct Headers(SecretText);

/// At most as many lines.
const HEADERS: usize = 32;

impl Headers {
    /// Each line as a header; none for a line that is not one.
    fn lines(&self) -> impl Iterator<Item = Option<(HeaderName, HeaderValue)>> {
        let lines = self.0.expose().lines().map(str::trim);
        lines.filter(|line| !line.is_empty()).map(|line| {
            let (name, value) = line.split_once(':')?;
            let name = HeaderName::try_from(name.trim_end()).ok()?;
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            (!value.is_empty()).then_some((name, value))
        })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.lines().flatten()
    }
}

/// Reports whether the request itself sets this header, or the header belongs to the connection.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("webhook-")
        || name.starts_with("proxy-")
        || matches!(
            name,
            "connection"
                | "content-encoding"
                | "content-length"
                | "content-type"
                | "expect"
                | "host"
                | "keep-alive"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "user-agent"
        )
}

impl TryFrom<SecretText> for Headers {
    type Error = String;

    /// An error shows names alone.
    fn try_from(secret: SecretText) -> Result<Self, String> {
        let headers = Self(secret);
        let mut seen = BTreeSet::new();
        for (number, header) in (1..).zip(headers.lines()) {
            let Some((name, _)) = header else {
                return Err(format!(
                    "must be lines of `Name: value`, which number {number} is not"
                ));
            };
            if is_ours(&name) {
                return Err(format!(
                    "must not have {name}, which is not for the operator to say"
                ));
            }
            if !seen.insert(name.to_string()) {
                return Err(format!("must have {name} once"));
            }
        }
        match seen.len() {
            0 => Err("must have at least one line of `Name: value`".to_owned()),
            count if count > HEADERS => Err(format!("must have at most {HEADERS} lines")),
            _ => Ok(headers),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Registration;
    use crate::inputs;

    #[test]
    fn headers_that_are_not_the_operators_are_refused() {
        let check = |headers: &str| {
            let inputs = json!({ "url": "https://example.org/x", "headers": headers });
            inputs::check::<Registration>(inputs.as_object().unwrap())
        };
        assert!(check("X-Key: canary").is_empty());
        for name in [
            "Host",
            "Content-Length",
            "content-type",
            "Connection",
            "Transfer-Encoding",
            "Webhook-Id",
            "webhook-signature",
            "Proxy-Authorization",
            "TE",
            "Upgrade",
        ] {
            let faults = check(&format!("X-Key: 1234\n{name}: canary"));
            let detail = format!("must not have {}, which", name.to_lowercase());
            assert!(faults[0].detail.starts_with(&detail), "{faults:?}");
        }
        for headers in [
            "canary",
            "X-Key:",
            "X Key: canary",
            ": canary",
            "X-Key: can\u{1}ary",
        ] {
            let faults = check(headers);
            assert_eq!(faults.len(), 1, "{headers:?}");
            assert!(!faults[0].detail.contains("canary"), "{faults:?}");
        }
        let faults = check("X-Key: 1234\nx-key: canary");
        assert_eq!(faults[0].detail, "must have x-key once");
        let many: Vec<_> = (0..33).map(|n| format!("X-{n}: 1")).collect();
        assert_eq!(
            check(&many.join("\n"))[0].detail,
            "must have at most 32 lines"
        );
    }
}
