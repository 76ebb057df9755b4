//! `chainloop attestation`: pushes attestations, and makes one to try things out with.

mod craft;
mod materials;
mod push;
mod wait;

use std::process::ExitCode;

use clap::Subcommand;

use crate::arguments::Global;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Push an attestation, with its materials, to everything attached to its workflow
    #[command(after_help = "\
With --wait, exit codes are: 0 everything is delivered, or rightly skipped · 3 a delivery failed or was \
cancelled · 4 after --timeout a delivery is not final; it goes on without this command.

Example:
  chainloop attestation push attestation.json --material sbom=shop.cdx.json --wait")]
    Push(push::Push),
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

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        match self {
            Self::Push(push) => push.run(global),
            Self::Craft(craft) => craft.run(global).map(|()| ExitCode::SUCCESS),
        }
    }
}
