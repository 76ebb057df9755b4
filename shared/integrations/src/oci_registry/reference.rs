//! Names in registries: those that an operator may give, and those that an attestation gives an image.

use std::fmt;

use http::Uri;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::http::{is_local, origin};

/// Docker Hub has three names, of which only the last answers its API.
const HUB: &str = "docker.io";
const HUB_NAMES: [&str; 3] = [HUB, "index.docker.io", "registry-1.docker.io"];
const HUB_API: &str = "registry-1.docker.io";

/// `ghcr.io/acme/attestations`: a registry's host and a repository's path in it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Repository {
    /// As it is written in references; with its port, where that is not 443.
    registry: String,
    path: String,
    /// Scheme, host and port that its API is at.
    base: Url,
}

const SHAPE: &str =
    "must be a registry's host and a path, without a scheme, as in ghcr.io/acme/attestations";

impl TryFrom<String> for Repository {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.contains("://") {
            return Err(SHAPE);
        }
        let (host, path) = text.split_once('/').ok_or(SHAPE)?;
        if !is_host(host) {
            return Err("must begin with the registry's host, as in docker.io/acme/attestations");
        }
        let registry = registry(host);
        if !path.split('/').all(is_component) {
            return Err(
                "must have a path of lower-case letters, digits and single separators, without a tag, as in \
                 ghcr.io/acme/attestations",
            );
        }
        if text.len() > 255 {
            return Err("must have at most 255 characters");
        }
        if registry == HUB && path.split('/').count() != 2 {
            return Err("must have two parts at Docker Hub, as in docker.io/acme/attestations");
        }
        Ok(Self {
            base: base(&registry).ok_or(SHAPE)?,
            path: path.to_owned(),
            registry,
        })
    }
}

/// The API of a registry: by HTTPS, but on this machine, where no registry has a certificate that we trust. The client
/// refuses this machine outside local mode.
fn base(registry: &str) -> Option<Url> {
    let api = if registry == HUB { HUB_API } else { registry };
    let secure = Url::parse(&format!("https://{api}/")).ok()?;
    // What is written another way than it is understood, such as `0x7f.1`, would be a riddle in every receipt.
    let understood = secure.port().map_or_else(
        || secure.host_str().map(str::to_owned),
        |port| Some(format!("{}:{port}", secure.host_str()?)),
    );
    if understood.as_deref() != Some(api.trim_end_matches(":443")) {
        return None;
    }
    match secure.host() {
        Some(host) if is_local(&host) => Url::parse(&format!("http://{api}/")).ok(),
        Some(_) => Some(secure),
        None => None,
    }
}

/// As it is called in references.
fn registry(host: &str) -> String {
    let host = host.to_lowercase();
    match HUB_NAMES.contains(&host.as_str()) {
        true => HUB.to_owned(),
        false => host,
    }
}

/// Reports whether the text is a host, not the first part of a path, by the common convention.
fn is_host(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':'])
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, by the distribution specification.
fn is_component(text: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    text.starts_with(is_letter)
        && text.ends_with(is_letter)
        && text.split(is_letter).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

impl Repository {
    /// Returns a URL of the form `/v2/<name>/<rest>`.
    pub fn api(&self, rest: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{rest}", self.path));
        url
    }

    /// The same repository, whose registry is asked elsewhere.
    #[must_use]
    pub fn asked_at(self, base: Url) -> Self {
        Self { base, ..self }
    }

    /// The path alone, which is the name of the repository to its registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Scheme, host and port that the registry is asked at.
    pub fn origin(&self) -> String {
        origin(&self.base)
    }

    /// Reports whether a request goes to the registry itself. Only such requests carry our authorization.
    pub fn is_at(&self, uri: &Uri) -> bool {
        Url::parse(&uri.to_string()).is_ok_and(|url| self.has_origin(&url))
    }

    /// Returns true for URLs of the registry itself.
    pub fn has_origin(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Returns true for URLs of the registry's host, by any scheme and port.
    pub fn has_host(&self, url: &Url) -> bool {
        url.host() == self.base.host()
    }

    /// Reports whether an image of this name belongs to this repository. The name may have a tag or a digest, and may
    /// omit what Docker omits.
    pub fn is_named(&self, name: &str) -> bool {
        let name = name.split('@').next().unwrap_or_default();
        let name = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name,
            _ => name,
        };
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (registry(host), path),
            _ => (HUB.to_owned(), name),
        };
        // Docker's own images are called by their last part.
        let path = match host == HUB && !path.contains('/') {
            true => format!("library/{path}"),
            false => path.to_owned(),
        };
        host.trim_end_matches(":443") == self.registry.trim_end_matches(":443") && path == self.path
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// The beginning of tags, which a hyphen and the 64 digits of a digest follow.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct Prefix(String);

impl Prefix {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("chainloop".to_owned())
    }
}

impl TryFrom<String> for Prefix {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let fits = (1..=63).contains(&text.len())
            && text.bytes().next().is_some_and(is_word)
            && text.bytes().all(|b| is_word(b) || b".-".contains(&b));
        match text.as_str() {
            "sha256" => Err("must not be sha256: such tags list what refers to an image"),
            _ if fits => Ok(Self(text)),
            _ => Err(
                "must be at most 63 letters, digits, underscores, dots and hyphens, and begin with none of the last \
                 two, as in chainloop",
            ),
        }
    }
}

/// Username that HTTP's Basic scheme can carry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Username(String);

impl Username {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Username {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match !text.is_empty()
            && !text.contains(|letter: char| letter == ':' || letter.is_control())
        {
            true => Ok(Self(text)),
            false => {
                Err("must not be empty, and must have neither a colon nor a control character")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(text: &str) -> Result<Repository, &'static str> {
        text.to_owned().try_into()
    }

    #[test]
    fn a_repository_is_a_host_and_a_path() {
        for (text, shown, base) in [
            (
                "ghcr.io/acme/a",
                "ghcr.io/acme/a",
                "https://ghcr.io/v2/acme/a/x",
            ),
            (
                "GHCR.io/acme/a",
                "ghcr.io/acme/a",
                "https://ghcr.io/v2/acme/a/x",
            ),
            (
                "ghcr.io:443/acme",
                "ghcr.io:443/acme",
                "https://ghcr.io/v2/acme/x",
            ),
            (
                "r.example:8443/a",
                "r.example:8443/a",
                "https://r.example:8443/v2/a/x",
            ),
            (
                "us-east1-docker.pkg.dev/my-project/chainloop-cas-devel",
                "us-east1-docker.pkg.dev/my-project/chainloop-cas-devel",
                "https://us-east1-docker.pkg.dev/v2/my-project/chainloop-cas-devel/x",
            ),
            (
                "docker.io/acme/a",
                "docker.io/acme/a",
                "https://registry-1.docker.io/v2/acme/a/x",
            ),
            (
                "index.docker.io/acme/a",
                "docker.io/acme/a",
                "https://registry-1.docker.io/v2/acme/a/x",
            ),
            ("localhost/a", "localhost/a", "http://localhost/v2/a/x"),
            (
                "127.0.0.1:5000/a",
                "127.0.0.1:5000/a",
                "http://127.0.0.1:5000/v2/a/x",
            ),
            (
                "[::1]:5000/a__b/c---d/e.f",
                "[::1]:5000/a__b/c---d/e.f",
                "http://[::1]:5000/v2/a__b/c---d/e.f/x",
            ),
        ] {
            let repository = repository(text).unwrap();
            assert_eq!(repository.to_string(), shown);
            assert_eq!(repository.api("x").as_str(), base);
        }
    }

    #[test]
    fn what_is_no_repository_is_refused() {
        for (text, reason) in [
            ("https://ghcr.io/acme/a", "scheme"),
            ("oci://ghcr.io/acme/a", "scheme"),
            ("ghcr.io", "path"),
            ("ghcr.io/", "path"),
            ("acme/a", "host"),
            ("ghcr.io/Acme/a", "lower-case"),
            ("ghcr.io/acme/a:latest", "tag"),
            ("ghcr.io/acme/a@sha256:00", "tag"),
            ("ghcr.io/acme//a", "lower-case"),
            ("ghcr.io/acme/../a", "lower-case"),
            ("ghcr.io/acme/a_", "lower-case"),
            ("ghcr.io/acme/a___b", "lower-case"),
            ("ghcr.io/acme/a._b", "lower-case"),
            ("ghcr.io/acme/a?b", "lower-case"),
            ("docker.io/acme", "two parts"),
            ("docker.io/acme/a/b", "two parts"),
            ("user:pass@ghcr.io/acme", "host and a path"),
            ("0x7f.1/acme", "host and a path"),
            ("ghcr.io:99999/acme", "host and a path"),
            ("gh cr.io/acme", "host and a path"),
            ("ghcr.io?x=/acme", "host and a path"),
        ] {
            let detail = repository(text).unwrap_err();
            assert!(detail.contains(reason), "{text}: {detail}");
        }
        let long = format!("ghcr.io/{}", "a".repeat(250));
        assert!(repository(&long).unwrap_err().contains("255"));
    }

    #[test]
    fn an_image_is_found_by_each_of_its_names() {
        let ours = repository("ghcr.io/acme/shop").unwrap();
        for name in [
            "ghcr.io/acme/shop",
            "GHCR.IO/acme/shop:2.4",
            "ghcr.io:443/acme/shop@sha256:00",
        ] {
            assert!(ours.is_named(name), "{name}");
        }
        for name in [
            "acme/shop",
            "ghcr.io/acme",
            "ghcr.io/acme/shop/x",
            "ghcr.io:8443/acme/shop",
            "",
            "/",
            ":",
            "@",
        ] {
            assert!(!ours.is_named(name), "{name}");
        }
        let hub = repository("docker.io/acme/shop").unwrap();
        for name in [
            "acme/shop",
            "docker.io/acme/shop",
            "index.docker.io/acme/shop:1",
            "registry-1.docker.io/acme/shop",
        ] {
            assert!(hub.is_named(name), "{name}");
        }
        assert!(
            repository("docker.io/library/alpine")
                .unwrap()
                .is_named("alpine:3")
        );
        assert!(!hub.is_named("ghcr.io/acme/shop"));
    }

    #[test]
    fn a_prefix_makes_a_tag_and_no_list_of_referrers() {
        let prefix = |text: &str| Prefix::try_from(text.to_owned());
        for text in ["chainloop", "Release_1.2-x", "_x", &"a".repeat(63)] {
            assert!(prefix(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "-x",
            ".x",
            "a/b",
            "a b",
            "ä",
            "a:b",
            "sha256",
            &"a".repeat(64),
        ] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_username_is_what_a_header_can_carry() {
        let username = |text: &str| Username::try_from(text.to_owned()).is_ok();
        for text in ["_json_key", "oauth2accesstoken", "robot$acme+ci", "AWS"] {
            assert!(username(text), "{text}");
        }
        for text in ["", "a:b", "a\nb"] {
            assert!(!username(text), "{text:?}");
        }
    }
}
