//! `chainloop attestation`: pushes attestations, shows and hands out those that were accepted, and makes one to try
//! things out with.

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
use indicatif::BinaryBytes;

use crate::arguments::Global;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Push attestations, with their materials, to everything attached to their workflows
    Push(push::Push),
    /// List attestations, the newest first
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  chainloop attestation list --workflow shop/nightly-build --since 7d"
    )]
    List(list::List),
    /// Show what an attestation says, where its materials are, and what became of it
    #[command(after_help = "Example:\n  chainloop attestation describe \
                            sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0")]
    Describe(describe::Describe),
    /// Get an attestation as it was received, or a material of it
    #[command(after_help = "\
What comes is checked against its digest before anything is written.

Examples:
  chainloop attestation download \
sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0 attestation.json
  chainloop attestation download --material sbom \
sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0 shop.cdx.json")]
    Download(download::Download),
    /// Make an attestation in Chainloop's format, for trying things out
    #[command(
        hide = true,
        long_about = "Make an attestation in Chainloop's format, for trying things out.\n\nIt is signed \
                      with a key that is made for it and thrown away, so it proves nothing.",
        after_help = "\
A material's type decides what stands behind it:
  --material sbom=SBOM_CYCLONEDX_JSON:shop.cdx.json          a file
  --material note=STRING:hello                               a text
  --material image=CONTAINER_IMAGE:example.org/shop@sha256:… an image

Example:
  chainloop attestation craft attestation.json --workflow nightly-build --project shop \\
    --material sbom=SBOM_CYCLONEDX_JSON:shop.cdx.json"
    )]
    Craft(craft::Craft),
}

/// An attestation, in whichever way it is named.
#[derive(Debug, Args)]
pub(crate) struct Known {
    /// The attestation's digest, of its envelope or of what was pushed
    #[arg(required_unless_present = "by_digest", conflicts_with = "by_digest")]
    digest: Option<Digest>,
    /// The attestation's digest
    #[arg(long = "digest", id = "by_digest", value_name = "DIGEST")]
    by_digest: Option<Digest>,
}

impl Known {
    fn given(&self) -> Digest {
        let given = self.digest.or(self.by_digest);
        given.expect("one of the two is required")
    }
}

/// Formats a number of bytes for people to read.
pub(crate) fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
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
