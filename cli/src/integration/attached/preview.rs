//! `attached preview`: shows the requests of a delivery, without sending them.

use anyhow::Context as _;
use api::attachments::{NewPreview, Previewed};
use clap::Args;
use serde_json::Value;

use crate::client::{Call, Client, json};
use crate::global::Global;
use crate::ids::{self, Given};
use crate::output::{self, Format};
use crate::table::{Table, cell};

pub(super) const HELP: &str = "\
The output contains no secrets.

Example:
  chainloop integration attached preview \\
    --id 6f0c1f0e-0000-4000-8000-000000000001 \\
    --attestation \\
    sha256:1fe71587d8d998319b13c4ce61b81f0a9cbb45c0769399d8500fb34487f2ceb0";

/// Maximum number of lines shown of a body, without `--full`.
const LINES: usize = 40;

/// Maximum number of characters shown of a line, without `--full`.
const WIDTH: usize = 160;

#[derive(Debug, Args)]
pub(crate) struct Preview {
    /// ID of the attachment
    #[arg(long)]
    id: String,
    /// Digest of the attestation
    #[arg(long, value_name = "DIGEST")]
    attestation: Given,
    /// Show complete bodies
    #[arg(long)]
    full: bool,
}

impl Preview {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let id = ids::whole(&client, "attachments", &self.id)?;
        let attestation = self.attestation.whole(&client)?;
        let new = NewPreview { attestation };
        let previewed: Previewed = client
            .call(&Call::post(&["attachments", &id, "preview"], json(&new)?))
            .with_context(|| format!("failed to preview {attestation} at {id:?}"))?;
        if global.output == Format::Json {
            output::json(&previewed)?;
            return Ok(());
        }
        if previewed.requests.is_empty() {
            let why = previewed.nothing.map(|why| format!(": {why}"));
            let text = format!("nothing would be sent{}", why.unwrap_or_default());
            output::line(&output::plain(&text))?;
        }
        for request in &previewed.requests {
            output::line(&card(request).to_string())?;
            output::line(&output::plain(&body(request, self.full)))?;
        }
        Ok(())
    }
}

fn card(request: &api::attachments::Preview) -> Table {
    let headers: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    let mut table = Table::titled("Request", &[]);
    let mut row = |name: &str, content: &str| table.row(vec![cell(name), cell(content)]);
    row("METHOD", &request.method);
    row("TARGET", &request.target);
    row("HEADERS", &headers.join("\n"));
    row("SIZE", &format!("{} bytes", request.size_bytes));
    row("DIGEST", &request.digest.to_string());
    table
}

/// JSON as it is read, everything else as it is; its beginning only, unless all is wanted.
fn body(request: &api::attachments::Preview, full: bool) -> String {
    let text = match serde_json::from_str::<Value>(&request.body) {
        Ok(json @ (Value::Object(_) | Value::Array(_))) => format!("{json:#}"),
        _ => request.body.clone(),
    };
    let mut lines: Vec<String> = text.lines().map(|line| line_of(line, full)).collect();
    let cut = if full {
        0
    } else {
        lines.len().saturating_sub(LINES)
    };
    lines.truncate(lines.len() - cut);
    if cut > 0 {
        lines.push(format!("… {cut} more lines: pass --full"));
    }
    if u64::try_from(request.body.len()).is_ok_and(|len| len < request.size_bytes) {
        lines.push("… only the beginning of the body is available".to_owned());
    }
    lines.join("\n")
}

/// A line as it fits on a screen: base64 has no end.
fn line_of(line: &str, full: bool) -> String {
    let length = line.chars().count();
    if full || length <= WIDTH {
        return line.to_owned();
    }
    let beginning: String = line.chars().take(WIDTH).collect();
    format!(
        "{beginning} … {} more characters: pass --full",
        length - WIDTH
    )
}
