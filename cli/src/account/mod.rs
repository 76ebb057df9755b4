//! AWS account of an installation: what no token of the API is enough for.
//!
//! All of it is behind the feature `aws`. A program without the feature has the commands, and each says that it cannot.

use std::time::Duration;

use api::{OrganizationName, Timestamp};

#[cfg(feature = "aws")]
mod calls;
#[cfg(feature = "aws")]
mod region;

#[cfg(feature = "aws")]
pub(crate) use calls::{create_first_token, read_secret};
#[cfg(not(feature = "aws"))]
pub(crate) use without::{create_first_token, read_secret};

/// First token of an organization.
#[cfg_attr(
    not(feature = "aws"),
    expect(dead_code, reason = "read by what calls AWS")
)]
pub(crate) struct FirstToken<'a> {
    pub(crate) organization: &'a OrganizationName,
    /// A number is appended if it is taken.
    pub(crate) name: &'a str,
    /// None for a token that does not expire.
    pub(crate) valid_for: Option<Duration>,
    /// Create a token even if the organization exists.
    pub(crate) even_if_there: bool,
}

/// The token that was made.
pub(crate) struct NewToken {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) expires_at: Option<Timestamp>,
}

#[cfg(not(feature = "aws"))]
mod without {
    use super::{FirstToken, NewToken};
    use crate::failure::Failure;

    fn no_aws() -> anyhow::Error {
        Failure::new("this program was built without AWS")
            .advice("Build it with `cargo build --release --package chainloop`, without `--no-default-features`.")
            .into()
    }

    pub(crate) fn create_first_token(
        _table: &str,
        _token: &FirstToken<'_>,
    ) -> anyhow::Result<Option<NewToken>> {
        Err(no_aws())
    }

    pub(crate) fn read_secret(_region: &str, _secret: &str) -> anyhow::Result<String> {
        Err(no_aws())
    }
}
