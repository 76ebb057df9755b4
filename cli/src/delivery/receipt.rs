//! `delivery receipt` and `delivery receipt-key`: a signed receipt of a delivery, and the key to verify it with.

use std::path::PathBuf;

use anyhow::Context as _;
use api::deliveries::{Receipt as Envelope, ReceiptKey};
use clap::Args;

use crate::client::{Call, Client};
use crate::destination::Destination;
use crate::global::Global;
use crate::ids;
use crate::output::{self, Format};

pub(super) const HELP: &str = "\
The receipt is an in-toto statement in a DSSE envelope, signed by the stack's key. Its subjects are the bytes that were
delivered, by their SHA-256. `delivery receipt-key` prints the key, and `cosign verify-blob-attestation` verifies with both.

Example:
  chainloop delivery receipt 6f0c1f0e-0000-8000-8000-000000000001 receipt.json";

#[derive(Debug, Args)]
pub(crate) struct Receipt {
    /// ID of a delivery that has ended
    id: String,
    /// Output file; standard output by default
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    /// Output file; standard output by default
    file: Option<PathBuf>,
}

impl Receipt {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let destination = Destination::of(global, self.file)?;
        let id = ids::whole(&client, "deliveries", &self.id)?;
        let envelope: Envelope = client
            .call(&Call::get(&["deliveries", &id, "receipt"]))
            .with_context(|| format!("failed to get a receipt of the delivery {id:?}"))?;
        let mut bytes = serde_json::to_vec(&envelope)?;
        bytes.push(b'\n');
        destination.write(global, &bytes)
    }
}

impl Key {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let destination = Destination::of(global, self.file)?;
        let key: ReceiptKey = client
            .call(&Call::get(&["receipt-key"]))
            .context("failed to get the key of receipts")?;
        if global.output == Format::Json {
            return output::json(&key);
        }
        global.info(&format!("key {}", key.id));
        destination.write(global, key.pem.as_bytes())
    }
}
