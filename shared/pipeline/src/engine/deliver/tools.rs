//! Tools of a delivery function.

use integrations::Http;

use crate::config::secrets::Secrets;

/// HTTP client and secrets of a delivery function, kept from its start to its end.
#[derive(Debug)]
pub struct Tools {
    pub http: Http,
    pub secrets: Secrets,
}

impl Tools {
    pub fn new(http: Http) -> Self {
        Self {
            http,
            secrets: Secrets::default(),
        }
    }
}
