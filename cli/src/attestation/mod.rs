//! `chainloop attestation`: pushes, shows and downloads attestations, and creates one for trials.

mod craft;
mod describe;
mod download;
mod file;
mod list;
mod materials;
mod push;
mod wait;

use std::process::ExitCode;

use ::attestation::Digest;
use clap::{Args, Subcommand};

use crate::client::Client;
use crate::global::Global;
use crate::ids;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Push attestations, with their materials, to the integrations attached to their workflows
    Push(push::Push),
    /// List attestations, newest first
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  chainloop attestation list --workflow shop/nightly-build --since 7d"
    )]
    List(list::List),
    /// Show an attestation's contents, materials and deliveries
    #[command(
        after_help = "Example:\n  chainloop attestation describe \\\n    sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0"
    )]
    Describe(describe::Describe),
    /// Download an attestation as received, or one of its materials
    #[command(after_help = "\
The bytes are checked against their digest before anything is written.

Examples:
  chainloop attestation download \\
    sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0 \\
    attestation.json
  chainloop attestation download --material sbom \\
    sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0 \\
    shop.cdx.json")]
    Download(download::Download),
    /// Create an attestation in Chainloop's format, for trials
    #[command(
        hide = true,
        long_about = "Create an attestation in Chainloop's format, for trials.\n\nIt is signed with a throwaway \
                      key, so it proves nothing.",
        after_help = "\
A material's type determines its content:
  --material sbom=SBOM_CYCLONEDX_JSON:shop.cdx.json          a file
  --material note=STRING:hello                               a text
  --material image=CONTAINER_IMAGE:example.org/shop@sha256:… an image

Example:
  chainloop attestation craft attestation.json --workflow nightly-build \\
    --project shop --material sbom=SBOM_CYCLONEDX_JSON:shop.cdx.json"
    )]
    Craft(craft::Craft),
}

/// Digest of an attestation, as an argument or a flag.
#[derive(Debug, Args)]
pub(crate) struct Known {
    /// Digest of the attestation: of its envelope, or of the bytes pushed
    #[arg(required_unless_present = "by_digest", conflicts_with = "by_digest")]
    digest: Option<ids::Given>,
    /// Digest of the attestation
    #[arg(long = "digest", id = "by_digest", value_name = "DIGEST")]
    by_digest: Option<ids::Given>,
}

impl Known {
    fn given(&self, client: &Client) -> anyhow::Result<Digest> {
        let given = self.digest.as_ref().or(self.by_digest.as_ref());
        given.expect("one of the two is required").whole(client)
    }
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        let done = |()| ExitCode::SUCCESS;
        match self {
            Self::Push(push) => push.run(global),
            Self::List(list) => list.run(global).map(done),
            Self::Describe(describe) => describe.run(global).map(done),
            Self::Download(download) => download.run(global).map(done),
            Self::Craft(craft) => craft.run(global).map(done),
        }
    }
}
