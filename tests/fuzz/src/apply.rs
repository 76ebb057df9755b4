//! Files of `chainloop apply`.

use std::sync::LazyLock;

use api::integrations::Integration;

pub const WORDS: &[&str] = &[
    "registrations:",
    "\n  - name: a\n",
    "    integration: webhook\n",
    "    integration: oci-registry\n",
    "    description: b\n",
    "    inputs: { repository: ghcr.io/a/b }\n",
    "    secrets: { url: { env: A } }\n",
    "{ file: a }",
    "{ secret: arn:aws:secretsmanager:eu-central-1:1:secret:a }",
    "    attachments:\n",
    "      - workflow: shop/a\n",
    "trust_policies:\n  - name: a\n    workflow: '*'\n    mode: warn\n",
    "    signers: [{ kind: key, name: a, pem: b }]\n",
    "        wait_secs: 60\n",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "!!binary ",
    "!!int ",
    "? ",
    "- ",
    ": ",
    "|\n",
    ">-\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "#",
    "'",
    "\"",
    "\\u0000",
    "0o17",
    "0x1f",
    ".inf",
    ".nan",
    "1_000",
    "yes",
    "no",
    "null",
    "~",
    "2026-01-01",
    "1e999",
    "\t",
    "\r",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
];

static INTEGRATIONS: LazyLock<Vec<Integration>> =
    LazyLock::new(|| integrations::ALL.iter().map(Integration::from).collect());

/// A configuration is faulty, or it says the same after it was written down again.
pub fn apply(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    match chainloop::formatted(text, &INTEGRATIONS) {
        Ok(written) => assert_eq!(chainloop::formatted(&written, &INTEGRATIONS), Ok(written)),
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults {
                assert!(fault.starts_with("configuration:"), "{fault}");
            }
        }
    }
}
