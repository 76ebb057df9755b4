//! The API's address.

use ureq::http::Uri;

use crate::failure::Failure;

/// The API's base: with a scheme, without a slash at the end, without `/v1`.
pub(crate) fn base(url: &str) -> anyhow::Result<String> {
    let base = url.trim_end_matches('/');
    let base = base
        .strip_suffix("/v1")
        .unwrap_or(base)
        .trim_end_matches('/');
    let is_web = base.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    if is_web {
        return Ok(base.to_owned());
    }
    let failure = Failure::usage(format!("{url:?} is not a URL"));
    Err(failure
        .advice("An API URL is such as https://api.example.org.")
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_may_be_given_with_or_without_its_version() {
        for url in [
            "https://a.example",
            "https://a.example/",
            "https://a.example/v1",
            "https://a.example/v1/",
        ] {
            assert_eq!(base(url).unwrap(), "https://a.example");
        }
        assert_eq!(
            base("http://127.0.0.1:4566/_aws/execute-api/0a1b2c3d/$default").unwrap(),
            "http://127.0.0.1:4566/_aws/execute-api/0a1b2c3d/$default"
        );
        for url in ["a.example", "ftp://a.example", "https://", "/v1"] {
            assert!(base(url).is_err(), "{url}");
        }
    }
}
