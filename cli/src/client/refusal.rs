//! Refusals of a request, by the API or on the way to it, each with advice.

use api::{Code, Problem};

use crate::failure::Failure;

pub(super) fn unreachable(at: &str, error: &ureq::Error) -> Failure {
    let connection = "Check the API URL and the network; for the local cloud, run `make local`.";
    match error {
        ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            Failure::new(format!("failed to connect to {at}: connection refused"))
                .advice(connection)
        }
        ureq::Error::HostNotFound => {
            Failure::new(format!("failed to resolve the host of {at}")).advice(connection)
        }
        // The server replied to the TLS handshake with something else.
        ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
            Failure::new(format!("the server at {at} does not speak TLS: {io}"))
                .advice("Use http:// instead of https:// for a server without TLS.")
        }
        ureq::Error::Timeout(what) => {
            Failure::new(format!("request to {at} timed out ({what})")).advice("Try again later.")
        }
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => Failure::new(format!(
            "TLS connection to {at} failed: {error}"
        ))
        .advice("Behind a proxy that inspects TLS, set SSL_CERT_FILE to the proxy's certificate."),
        ureq::Error::Http(_) => Failure::usage("the token contains invalid characters")
            .advice("Check it for line breaks and other stray characters."),
        _ => Failure::new(format!("failed to reach {at}: {error}")).advice(connection),
    }
}

/// Describes a refusal: a problem of the API, or the gateway's short message.
pub(super) fn refused(
    path: &[&str],
    status: u16,
    body: &[u8],
    request_id: String,
    token_from: &str,
) -> Failure {
    let from = match token_from {
        "" => String::new(),
        from => format!(" of {from}"),
    };
    let token = format!(
        "Check that the token{from} is one of this installation, neither revoked nor expired. An admin can create one with \
         `chainloop organization api-token create`, or with AWS credentials `chainloop bootstrap --new-token`; after `make \
         local`, run `. .local/env`."
    );
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        let failure = match status {
            401 | 403 => Failure::new("the token was rejected").advice(token),
            404 => Failure::new("no such path at the API")
                .advice("Check the API URL: it must be the base URL of the API, without /v1."),
            413 => Failure::new("request body too large"),
            429 => Failure::new("too many requests").advice("Try again later."),
            300..=399 => Failure::new(format!("the API URL redirects (status {status})"))
                .advice("Use the target of the redirect as API URL."),
            _ => Failure::new(format!("the API responded with status {status}"))
                .advice("Try again later."),
        };
        return failure.request(request_id).answered(status, "");
    };
    let faults: Vec<String> = problem
        .faults
        .iter()
        .map(|fault| match fault.field.as_str() {
            "" => fault.detail.clone(),
            field => format!("{field}: {}", fault.detail),
        })
        .collect();
    let text = match (problem.detail.as_str(), faults.is_empty()) {
        ("", _) | (_, false) => beginning_small(&problem.title),
        (detail, true) => detail.to_owned(),
    };
    let advice = match (status, Code::of(&problem.code)) {
        // They say themselves what to do about a JWT.
        (401 | 403 | 409, _) if path == ["tokens", "exchange"] => {
            "`chainloop trust issuer describe` shows an issuer's audience, rules and keys."
        }
        (401, _) => &token,
        (403, Some(Code::RoleAbove)) => "Use a token that has that role.",
        (403, _) => {
            "`chainloop auth status` shows the token's name and role; an admin can create another with `chainloop \
             organization api-token create`."
        }
        (404, _) => list_of(path, &problem.detail),
        (409, Some(Code::TokenNameTaken)) => {
            "Choose another name, or revoke the other token with `chainloop organization api-token revoke`."
        }
        (409, Some(Code::NameTaken)) if path.first() == Some(&"intakes") => {
            "Choose another name, or delete the other intake with `intake delete`."
        }
        (409, Some(Code::NameTaken)) => {
            "Choose another name, or delete the other registration with `registered delete`."
        }
        (409, Some(Code::AttachmentExists)) => {
            "Both attachments would get each delivery. To attach anyway, pass --allow-duplicate; `chainloop \
             integration attached update` changes the existing attachment."
        }
        (409, Some(Code::Paused)) => "Resume it with `chainloop integration registered resume`.",
        (412, _) => "It changed in the meantime: run the command again.",
        (422, Some(Code::CheckFailed)) => {
            "Nothing was stored. Correct the options, or the third party, and try again."
        }
        // Later it is the same.
        (409, Some(Code::Over | Code::Gone)) => "",
        (429, Some(Code::QuotaExceeded)) => {
            "`chainloop organization quota` shows the quotas; the stack's parameter Quotas sets them."
        }
        (409 | 429 | 500.., _) => "Try again later.",
        _ => "",
    };
    let id = if problem.request_id.is_empty() {
        request_id
    } else {
        problem.request_id
    };
    Failure::new(text)
        .faults(faults)
        .advice(advice)
        .request(id)
        .answered(status, problem.code)
}

/// Returns advice to list the resources of a kind, if the requested one does not exist.
fn list_of(path: &[&str], detail: &str) -> &'static str {
    let [kind, named, ..] = path else { return "" };
    if !detail.ends_with(named) && !detail.ends_with(&format!("{named:?}")) {
        return "";
    }
    match *kind {
        "registrations" => "`chainloop integration registered list` shows the existing ones.",
        "attachments" => "`chainloop integration attached list` shows the existing ones.",
        "attestations" => "`chainloop attestation list` shows the existing ones.",
        "deliveries" => "`chainloop delivery list` shows the existing ones.",
        "issuers" => "`chainloop trust issuer list` shows the existing ones.",
        "intakes" => "`chainloop intake list` shows the existing ones.",
        "jobs" => "`chainloop job list` shows the existing ones.",
        "tokens" => "`chainloop organization api-token list` shows the existing ones.",
        _ => "",
    }
}

fn beginning_small(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::text;

    fn told(failure: Failure) -> String {
        text(&failure.into())
    }

    #[test]
    fn the_gateways_own_refusals_come_with_advice() {
        let told = |status| {
            told(refused(
                &[],
                status,
                br#"{"message":"Forbidden"}"#,
                "r1".into(),
                "profile prod",
            ))
        };
        assert!(
            told(403)
                .starts_with("the token was rejected\n    Check that the token of profile prod is")
        );
        assert!(told(401).ends_with("request ID: r1"));
        assert!(told(404).contains("without /v1"));
        assert!(told(502).starts_with("the API responded with status 502"));
    }

    #[test]
    fn faults_are_listed_one_a_line_with_their_field() {
        let body = br#"{"status":422,"code":"invalid-inputs","title":"Some inputs are not right",
            "detail":"see the faults","faults":[{"field":"webhook","detail":"must be a URL"},
            {"field":"","detail":"give one of user and token"}],"request_id":"r2"}"#;
        assert_eq!(
            told(refused(&["registrations"], 422, body, String::new(), "")),
            "some inputs are not right\n    webhook: must be a URL\n    give one of user and token\n    \
             request ID: r2"
        );
    }
}
