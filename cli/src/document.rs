//! Files with the body of a request.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// Reads the body of a request from a YAML or JSON file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text =
        fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let parse = |text: &str| -> Result<T, String> {
        // Every JSON document is a YAML document too.
        // No fault quotes a whole file: it may be a private key, given by mistake.
        let value: serde_json::Value =
            serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?;
        if !value.is_object() {
            return Err("must be a mapping of fields".to_owned());
        }
        serde_json::from_value(value).map_err(|error| error.to_string())
    };
    parse(&text).map_err(|fault| Failure::usage(format!("{}: {fault}", path.display())).into())
}
