//! A function as AWS knows it: what it signs with, what it may assume, and what it was lent.

mod cache;
mod sign;

use url::Url;

use self::cache::Cache;
use crate::inputs::SecretText;

pub(crate) use self::cache::{Kept, Purpose};
pub use self::sign::host;
pub(crate) use self::sign::sign;

/// Credentials that sign requests to AWS.
#[derive(Debug, Clone)]
pub struct AccessKey {
    pub id: String,
    pub secret: SecretText,
    /// Of a session.
    pub token: Option<SecretText>,
}

/// A function as AWS knows it.
pub struct Caller {
    pub region: String,
    pub key: AccessKey,
    /// Seen by whoever has a role that is assumed: the stack's name.
    pub session_name: String,
    /// The names of roles that it may assume, as IAM compares them.
    pub assumable: String,
    /// The stack's own bucket, which is nobody's destination.
    pub bucket: String,
    /// Where all of AWS is, in local mode; none on AWS. No input has a say in it.
    pub endpoint: Option<Url>,
    pub(crate) cache: Cache,
}

impl Caller {
    pub fn new(region: impl Into<String>, key: AccessKey) -> Self {
        Self {
            region: region.into(),
            key,
            session_name: "chainloop-integrations".to_owned(),
            assumable: String::new(),
            bucket: String::new(),
            endpoint: None,
            cache: Cache::default(),
        }
    }

    /// Address of a service of AWS, without a slash at the end.
    pub(crate) fn base(&self, service: &str, region: &str) -> String {
        match &self.endpoint {
            Some(endpoint) => endpoint.as_str().trim_end_matches('/').to_owned(),
            None => format!("https://{}", host(service, region)),
        }
    }
}
