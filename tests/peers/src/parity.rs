//! Chainloop's documentation page, walked on the deployed stack: its commands, in its order, with a registry of ours.
//! `docs/parity.md` has what the screen shows; its tables are those of the page.

use std::fmt::Write as _;
use std::fs;

use crate::registry::{self, DockerRegistry};
use crate::terminal::{Terminal, root};

/// The page's tables, once runs of white space are collapsed. Versions are left out: they are ours.
const LIST_HEADER: &str = "│ ID │ VERSION │ MATERIAL REQUIREMENT │ DESCRIPTION │";
const LISTED: [[&str; 3]; 4] = [
    [
        "dependency-track",
        "SBOM_CYCLONEDX_JSON",
        "Send CycloneDX SBOMs to your Dependency-Track instance",
    ],
    [
        "smtp",
        "",
        "Send emails with information about a received attestation",
    ],
    [
        "oci-registry",
        "",
        "Send attestations to a compatible OCI registry",
    ],
    ["discord-webhook", "", "Send attestations to Discord"],
];
const DESCRIBED: [&str; 15] = [
    "┌─┬─┬─┬─┐",
    LIST_HEADER,
    "├─┼─┼─┼─┤",
    "│ oci-registry │ 1.3 │ │ Send attestations to a compatible OCI registry │",
    "└─┴─┴─┴─┘",
    "┌─┐",
    "│ Registration inputs │",
    "├─┬─┬─┬─┤",
    "│ FIELD │ TYPE │ REQUIRED │ DESCRIPTION │",
    "├─┼─┼─┼─┤",
    "│ password │ string │ yes │ OCI repository password │",
    "│ repository │ string │ yes │ OCI repository uri and path │",
    "│ username │ string │ yes │ OCI repository username │",
    "└─┴─┴─┴─┘",
    "┌─┐",
];
const ATTACHMENT_TITLE: [&str; 4] = [
    "│ Attachment inputs │",
    "├─┬─┬─┬─┤",
    "│ FIELD │ TYPE │ REQUIRED │ DESCRIPTION │",
    "├─┼─┼─┼─┤",
];

/// Lines with white space and the strokes of boxes collapsed.
fn collapsed(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut letters: Vec<char> = words.chars().collect();
        letters.dedup_by(|a, b| a == b && *a == '─');
        letters.into_iter().collect()
    };
    text.lines().map(line).collect()
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('│').split('│').map(str::trim).collect()
}

/// Commands typed and what the screen then showed, with values that vary from run to run replaced.
struct Walkthrough {
    terminal: Terminal,
    text: String,
    /// Replaced values, numbered in order of appearance.
    seen: Vec<String>,
}

impl Walkthrough {
    /// Says something, types, and gives what the screen then shows.
    fn step(&mut self, said: &str, typed: &str) -> String {
        if !said.is_empty() {
            write!(self.text, "\n{said}\n").unwrap();
        }
        let screen = self.terminal.shown(typed);
        let text = self.steady(&format!("$ {typed}\n{screen}"));
        write!(self.text, "\n```console\n{}\n```\n", text.trim_end()).unwrap();
        screen
    }

    /// Ids, digests, ports, times: as long as they were, so that tables keep their form.
    fn steady(&mut self, text: &str) -> String {
        let text = masked(text, &["########-####-####-####-############"], |id| {
            let number = self.number(id);
            format!("00000000-0000-4000-8000-{number:012}")
        });
        let digest = "#".repeat(64);
        let text = masked(&text, &[&digest], |digest| {
            self.number(digest).to_string().repeat(64)
        });
        let text = masked(&text, &["127.0.0.1:00000"], |_| "127.0.0.1:50000".into());
        let text = masked(&text, &["0000-00-00 00:00:00 UTC"], |_| {
            "2026-01-02 15:04:05 UTC".into()
        });
        masked(&text, &["fingerprint ########"], |_| {
            "fingerprint 1a2b3c4d".into()
        })
    }

    fn number(&mut self, seen: &str) -> usize {
        let known = self.seen.iter().position(|one| one == seen);
        let at = known.unwrap_or_else(|| {
            self.seen.push(seen.to_owned());
            self.seen.len() - 1
        });
        at + 1
    }
}

/// Replaces what looks so: `#` is a hexadecimal digit, `0` a digit, all else itself.
fn masked(text: &str, masks: &[&str], mut with: impl FnMut(&str) -> String) -> String {
    let fits = |letter: char, mask: char| match mask {
        '#' => letter.is_ascii_digit() || ('a'..='f').contains(&letter),
        '0' => letter.is_ascii_digit(),
        same => letter == same,
    };
    let mut result = String::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let found = masks.iter().find_map(|mask| {
            let part = rest.get(..mask.len())?;
            let is_it = part.chars().zip(mask.chars()).all(|(a, b)| fits(a, b));
            is_it.then_some(part)
        });
        match found {
            Some(part) => {
                result.push_str(&with(part));
                rest = &rest[part.len()..];
            }
            None => {
                result.push(letter);
                rest = &rest[letter.len_utf8()..];
            }
        }
    }
    result
}

const INTRODUCTION: &str = "\
<!-- Written by tests/peers/src/parity.rs on the deployed stack: REFRESH=1 make test -->
# Parity walkthrough

The commands of Chainloop's page about integrations, in its order, and what they answer here. Ids, digests, ports and
times are others each time; here they always look the same.
";

fn is_the_pages_list(list: &str) {
    let lines = collapsed(list);
    assert_eq!(
        lines[..3],
        ["┌─┬─┬─┬─┐", LIST_HEADER, "├─┼─┼─┼─┤"],
        "{list}"
    );
    for [id, materials, description] in LISTED {
        let row = lines.iter().position(|line| cells(line)[0] == id);
        let row = row.unwrap_or_else(|| panic!("{id} is not in\n{list}"));
        let own = cells(&lines[row]);
        assert_eq!([own[2], own[3]], [materials, description]);
        let below = ["├─┼─┼─┼─┤", "└─┴─┴─┴─┘"];
        assert!(below.contains(&lines[row + 1].as_str()), "{list}");
    }
}

fn is_the_pages_description(described: &str) {
    // Whom to trust, and a role instead of a password, are inputs of ours, which the page does not have.
    let mut lines = collapsed(described);
    lines.retain(|line| !["ca_certificates", "role_arn"].contains(&cells(line)[0]));
    assert_eq!(lines[..DESCRIBED.len()], DESCRIBED, "{described}");
    let attachment = &lines[DESCRIBED.len()..];
    assert_eq!(attachment[..4], ATTACHMENT_TITLE, "{described}");
    let prefix = attachment.iter().find(|line| cells(line)[0] == "prefix");
    let prefix = cells(prefix.unwrap());
    assert_eq!(prefix[1], "string");
    assert!(prefix[2].starts_with("no"), "{prefix:?}");
    assert_eq!(prefix[3], "OCI images name prefix (default chainloop)");
}

#[test]
fn the_pages_walk_works_and_its_tables_are_those_of_the_page() {
    let server = DockerRegistry::with_password();
    let terminal = Terminal::new("walkthrough");
    terminal.write("service-account.json", registry::PASSWORD.as_bytes());
    let mut walkthrough = Walkthrough {
        terminal,
        text: INTRODUCTION.to_owned(),
        seen: Vec::new(),
    };

    let list = walkthrough.step(
        "## What is available",
        "chainloop integration available list",
    );
    is_the_pages_list(&list);

    let described = walkthrough.step(
        "What an integration needs to be told:",
        "chainloop integration available describe --name oci-registry",
    );
    is_the_pages_description(&described);

    let repository = server.repository("acme/attestations");
    let username = registry::USERNAME;
    let registered = walkthrough.step(
        "## Registering\n\nA password on the command line works, and is warned of: `--opt password=@service-account.json` reads the \
         file.",
        &format!(
            "chainloop integration registered add oci-registry \\\n  --name prod-images \\\n  --opt repository={repository} \
             \\\n  --opt username={username} \\\n  --opt \"password=$(cat service-account.json)\""
        ),
    );
    assert!(!registered.contains(registry::PASSWORD), "{registered}");

    let described = walkthrough
        .terminal
        .ask("integration registered describe prod-images");
    let id = described["id"].as_str().unwrap().to_owned();
    walkthrough.terminal.set("WID", "shop/nightly-build");
    walkthrough.terminal.set("IID", &id);
    walkthrough.step(
        "## Attaching\n\n`$WID` is `shop/nightly-build` here, and `$IID` the registration's id; its name does as well.",
        "chainloop integration attached add --workflow $WID --integration $IID --opt prefix=custom-prefix",
    );
    walkthrough.step(
        "## Pushing\n\nEvery new attestation of this workflow is sent to the registry from now on:",
        "chainloop attestation craft attestation.json --project shop --workflow nightly-build \\\n  --material \
         sbom=SBOM_CYCLONEDX_JSON:shop.cdx.json",
    );
    let pushed = walkthrough.step(
        "",
        "chainloop attestation push attestation.json --material sbom=shop.cdx.json --wait",
    );
    assert!(pushed.contains("custom-prefix-"), "{pushed}");

    walkthrough.step(
        "## What there is, and taking it away",
        "chainloop integration registered list",
    );
    walkthrough.step("", "chainloop integration attached list");
    let attached = walkthrough.terminal.ask("integration attached list");
    let attachment = attached[0]["id"].as_str().unwrap().to_owned();
    walkthrough.step(
        "On a terminal both ask first, unless `-y` says that one is sure:",
        &format!("chainloop integration attached delete --id {attachment} -y"),
    );
    walkthrough.step(
        "",
        "chainloop integration registered delete --name prod-images -y",
    );

    let page = root().join("docs/parity.md");
    if std::env::var_os("REFRESH").is_some() {
        fs::write(&page, &walkthrough.text).unwrap();
    }
    let kept = fs::read_to_string(&page).unwrap_or_default();
    assert_eq!(
        kept, walkthrough.text,
        "docs/parity.md is not what the screen shows; REFRESH=1 make test writes it anew (look at the difference \
         before committing it)"
    );
}
