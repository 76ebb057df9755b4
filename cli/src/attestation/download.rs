//! `attestation download`: gets an attestation's bytes as received, or a material's, and checks their digest.

use std::path::PathBuf;

use anyhow::Context as _;
use api::materials::Content;
use attestation::{Attestation, Digest};
use clap::Args;

use crate::client::{Call, Client};
use crate::destination::Destination;
use crate::failure::Failure;
use crate::global::Global;
use crate::ids;
use crate::progress;

#[derive(Debug, Args)]
pub(crate) struct Download {
    /// Digest of the attestation: of its envelope, or of the bytes pushed
    digest: ids::Given,
    /// Output file; standard output by default
    file: Option<PathBuf>,
    /// Download this material instead, by its name in the attestation
    #[arg(long, value_name = "NAME")]
    material: Option<String>,
}

impl Download {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let destination = Destination::of(global, self.file)?;
        let digest = self.digest.whole(&client)?;
        let bytes = attestation(global, &client, digest)
            .with_context(|| format!("failed to download the attestation {digest}"))?;
        let bytes = match &self.material {
            None => bytes,
            Some(name) => material(global, &client, &bytes, name)
                .with_context(|| format!("failed to download the material {name:?}"))?,
        };
        destination.write(global, &bytes)
    }
}

fn attestation(global: &Global, client: &Client, asked: Digest) -> anyhow::Result<Vec<u8>> {
    let text = asked.to_string();
    let content: Content = client.call(&Call::get(&["attestations", &text, "content"]))?;
    let bytes = fetch(global, client, &content, "attestation")?;
    let hash = Attestation::parse(&bytes).map(|parsed| parsed.hash);
    // The API stores only the digest of later bytes with the same envelope.
    if content.digest != asked && hash.as_ref() != Ok(&asked) {
        let received = content.digest;
        global.warn(&format!(
            "of several copies, only the one received first is stored: {received}"
        ));
    }
    Ok(bytes)
}

fn material(
    global: &Global,
    client: &Client,
    attestation: &[u8],
    name: &str,
) -> anyhow::Result<Vec<u8>> {
    let parsed = Attestation::parse(attestation).context("failed to parse its attestation")?;
    let Some(material) = parsed.materials().iter().find(|one| one.name == name) else {
        let names: Vec<_> = parsed
            .materials()
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        let advice = match names.as_slice() {
            [] => "The attestation has no materials.".to_owned(),
            names => format!("It has: {}.", names.join(", ")),
        };
        return Err(Failure::usage("no such material").advice(advice).into());
    };
    match (&material.content, material.digest) {
        (Some(content), _) => Ok(content.clone()),
        (None, Some(digest)) => {
            let text = digest.to_string();
            let content: Content = client.call(&Call::get(&["materials", &text]))?;
            if content.digest != digest {
                return Err(Failure::new("the API returned another material").into());
            }
            fetch(global, client, &content, name)
        }
        (None, None) => {
            Err(Failure::new("the attestation has neither its bytes nor its digest").into())
        }
    }
}

fn fetch(
    global: &Global,
    client: &Client,
    content: &Content,
    what: &str,
) -> anyhow::Result<Vec<u8>> {
    let bar = progress::bar(global, content.size_bytes, &format!("download {what}"));
    let bytes = client.download(&content.download, content.size_bytes, &bar);
    bar.finish_and_clear();
    let bytes = bytes?;
    let found = Digest::of(&bytes);
    if found != content.digest {
        let text = format!(
            "digest mismatch: received {found}, expected {}",
            content.digest
        );
        return Err(Failure::new(text).into());
    }
    Ok(bytes)
}
