//! Calls of the API: method, path, query and body, and what makes repeating one safe.

use anyhow::anyhow;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

/// Encodes a value for a URL.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// One call of the API.
pub(crate) struct Call<'a> {
    pub(super) method: &'static str,
    pub(super) path: &'a [&'a str],
    query: &'a [(&'a str, Option<&'a str>)],
    pub(super) body: Option<Vec<u8>>,
    /// True if repeating the call changes nothing.
    pub(super) repeatable: bool,
    /// Idempotency key, by which the API recognizes a retry.
    pub(super) key: Option<String>,
    /// Expected `etag`; the API refuses the call if the state is another.
    pub(super) only: Option<String>,
}

impl<'a> Call<'a> {
    pub(crate) fn get(path: &'a [&'a str]) -> Self {
        Self {
            method: "GET",
            path,
            query: &[],
            body: None,
            repeatable: true,
            key: None,
            only: None,
        }
    }

    pub(crate) fn delete(path: &'a [&'a str]) -> Self {
        Self {
            method: "DELETE",
            repeatable: false,
            ..Self::get(path)
        }
    }

    pub(crate) fn post(path: &'a [&'a str], body: Vec<u8>) -> Self {
        Self {
            method: "POST",
            body: Some(body),
            repeatable: false,
            ..Self::get(path)
        }
    }

    /// A merge patch with a key, so that a retry does not conflict with its own first attempt.
    pub(crate) fn patch_once(path: &'a [&'a str], body: Vec<u8>) -> anyhow::Result<Self> {
        Ok(Self {
            method: "PATCH",
            ..Self::post_once(path, body)?
        })
    }

    pub(crate) fn put(path: &'a [&'a str], body: Vec<u8>) -> Self {
        Self {
            method: "PUT",
            repeatable: true,
            ..Self::post(path, body)
        }
    }

    /// A POST that creates a resource or begins a job. Its key makes it repeatable.
    pub(crate) fn post_once(path: &'a [&'a str], body: Vec<u8>) -> anyhow::Result<Self> {
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| anyhow!("failed to get random bytes from the system"))?;
        let key = uuid::Builder::from_random_bytes(bytes).into_uuid();
        Ok(Self {
            repeatable: true,
            key: Some(key.to_string()),
            ..Self::post(path, body)
        })
    }

    /// Makes the call conditional on the `etag` that was seen.
    #[must_use]
    pub(crate) fn only(self, etag: &str) -> Self {
        Self {
            only: Some(format!("\"{etag}\"")),
            ..self
        }
    }

    #[must_use]
    pub(crate) fn query(self, query: &'a [(&'a str, Option<&'a str>)]) -> Self {
        Self { query, ..self }
    }

    #[must_use]
    pub(crate) fn repeatable(self) -> Self {
        Self {
            repeatable: true,
            ..self
        }
    }

    /// Returns the path and the query, to follow the base.
    pub(super) fn target(&self) -> String {
        let encode = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
        let mut target = "/v1".to_owned();
        for segment in self.path {
            target.push('/');
            target.push_str(&encode(segment));
        }
        let mut mark = '?';
        for (name, value) in self.query {
            let Some(value) = value else { continue };
            target.push(mark);
            target.push_str(name);
            target.push('=');
            target.push_str(&encode(value));
            mark = '&';
        }
        target
    }
}

pub(crate) fn json(body: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_target_is_encoded() {
        let query = [
            ("workflow", Some("shop/nightly build")),
            ("state", None),
            ("limit", Some("5")),
        ];
        let call = Call::get(&["materials", "sha256:00", "a/b"]).query(&query);
        assert_eq!(
            call.target(),
            "/v1/materials/sha256:00/a%2Fb?workflow=shop%2Fnightly%20build&limit=5"
        );
    }
}
