//! Holds each command that a document, the API's description, a script or a text of this workspace names against the
//! commands that there are, with its flags.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::{Arg, Command, CommandFactory};

use crate::arguments::Arguments;

/// Files and directories in which users and operators read of commands.
const PLACES: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Makefile",
    "README.md",
    "cli/src",
    "docs",
    "functions",
    "infra",
    "shared",
];

/// Stand-in for a part that is not written out.
const REST: [&str; 2] = ["…", "..."];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All texts below a place.
fn files(place: &Path, found: &mut Vec<PathBuf>) {
    if place.is_dir() {
        let entries = fs::read_dir(place).unwrap();
        let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for entry in entries {
            files(&entry, found);
        }
        return;
    }
    let kinds = ["md", "json", "rs", "py", "sh", "yaml"];
    let is_text = place
        .extension()
        .is_none_or(|extension| kinds.iter().any(|kind| extension == *kind));
    // This module names commands that there are not.
    if is_text && !place.ends_with(file!()) {
        found.push(place.to_owned());
    }
}

/// A text as it is read: what is written over two lines of a comment or a string is one line.
fn joined(text: &str) -> String {
    let mut joined = String::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        let comment = ["//!", "///", "//", "#"]
            .iter()
            .find_map(|mark| trimmed.strip_prefix(mark));
        if let Some(open) = joined.strip_suffix("\\\n") {
            joined.truncate(open.len());
            joined.push_str(trimmed);
        } else {
            joined.push_str(comment.unwrap_or(line));
        }
        joined.push('\n');
    }
    joined
}

/// The commands in code spans, and in a document those in its blocks.
fn mentions(text: &str, is_document: bool) -> Vec<String> {
    let text = joined(text);
    let mut found = Vec::new();
    let mut is_block = false;
    let mut prose = String::new();
    for line in text.lines() {
        if is_document && line.trim_start().starts_with("```") {
            is_block = !is_block;
        } else if is_block {
            let line = line.trim_start().trim_start_matches("$ ");
            let inside = line.split_once("$(").map(|(_, inside)| inside);
            let line = inside.map_or(line, |inside| inside.split(')').next().unwrap_or(inside));
            found.extend(line.starts_with("chainloop ").then(|| line.to_owned()));
        } else {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    // A span may go over the end of a line, and not over that of a paragraph.
    for paragraph in prose.split("\n\n") {
        for span in paragraph.split('`').skip(1).step_by(2) {
            let span = span.split_whitespace().collect::<Vec<_>>().join(" ");
            let is_group = || {
                let mut words = span.split(' ');
                let first = words.next().and_then(|word| group(&TREE, word));
                let second = words.next().unwrap_or_default();
                let is_word = |letter: char| letter.is_ascii_lowercase() || letter == '-';
                first.is_some() && !second.is_empty() && second.chars().all(is_word)
            };
            if span.starts_with("chainloop ") || is_group() {
                found.push(span);
            }
        }
    }
    found
}

static TREE: LazyLock<Command> = LazyLock::new(|| {
    let mut tree = Arguments::command();
    tree.build();
    tree
});

/// The command of this name that has others below it, wherever it is in the tree.
fn group<'a>(command: &'a Command, name: &str) -> Option<&'a Command> {
    command
        .get_subcommands()
        .filter(|one| one.get_name() != "help")
        .find_map(
            |one| match one.get_name() == name && one.has_subcommands() {
                true => Some(one),
                false => group(one, name),
            },
        )
}

/// Finds faults in a command as it is named: `chainloop …`, or from a group on.
fn fault(mention: &str) -> Option<String> {
    let words = shlex::split(mention).unwrap_or_else(|| {
        let words = mention.split_whitespace();
        words.map(str::to_owned).collect()
    });
    let ends = |word: &&String| !["|", ">", "<", "&&", "||"].contains(&word.as_str());
    let mut words = words.iter().take_while(ends);
    let mut command: &Command = match words.next()?.as_str() {
        "chainloop" => &TREE,
        name => group(&TREE, name)?,
    };
    let mut given = 0;
    while let Some(word) = words.next() {
        // In the usage of a page, choices stand in angle brackets and what may be left out in square ones.
        if REST.contains(&word.as_str()) || word.starts_with("<-") {
            break;
        }
        if word.starts_with('[') {
            continue;
        }
        if let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) {
            let name = flag.split('=').next().unwrap_or_default();
            let Some(argument) = command.get_arguments().find(|one| is_called(one, name)) else {
                return Some(format!("`{}` has no {word}", path(command)));
            };
            if argument.get_action().takes_values() && !flag.contains('=') {
                words.next();
            }
        } else if command.has_subcommands() {
            let Some(below) = command.find_subcommand(word) else {
                return Some(format!("`{}` has no {word:?}", path(command)));
            };
            command = below;
        } else {
            given += 1;
            if given > command.get_positionals().count() {
                return Some(format!("`{}` does not take {word:?}", path(command)));
            }
        }
    }
    None
}

fn path(command: &Command) -> &str {
    command.get_bin_name().unwrap_or(command.get_name())
}

/// Reports whether an argument has this name, given without its first hyphen.
fn is_called(argument: &Arg, name: &str) -> bool {
    match name.strip_prefix('-') {
        Some(long) => {
            let aliases = argument.get_all_aliases().unwrap_or_default();
            argument.get_long() == Some(long) || aliases.contains(&long)
        }
        None => {
            let mut letters = name.chars();
            let letter = letters.next();
            letter.is_some() && argument.get_short() == letter && letters.next().is_none()
        }
    }
}

#[test]
fn each_command_that_is_named_somewhere_exists_with_its_flags() {
    let mut all = Vec::new();
    for place in PLACES {
        files(&root().join(place), &mut all);
    }
    let mut faults = Vec::new();
    let mut count = 0;
    for file in all {
        let text = fs::read_to_string(&file).unwrap();
        let is_document = file.extension().is_some_and(|extension| extension == "md");
        for mention in mentions(&text, is_document) {
            count += 1;
            if let Some(fault) = fault(&mention) {
                let file = file.strip_prefix(root()).unwrap().display();
                faults.push(format!("{file}: `{mention}`: {fault}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(
        count > 300,
        "only {count} commands were found: are they looked for where they stand?"
    );
}

#[test]
fn a_command_or_flag_that_does_not_exist_is_found() {
    for (mention, expected) in [
        ("chainloop integration token create", "has no \"token\""),
        ("chainloop delivery list --sate failed", "has no --sate"),
        ("chainloop version now", "does not take \"now\""),
        ("chainloop delivery describe a b", "does not take \"b\""),
        ("registered forget", "has no \"forget\""),
        ("chainloop delivery list -z", "has no -z"),
    ] {
        let fault = fault(mention).unwrap_or_default();
        assert!(fault.ends_with(expected), "{mention}: {fault}");
    }
    for mention in [
        "chainloop",
        "chainloop …",
        "chainloop integration …",
        "chainloop delivery list --state failed -o json | jq .",
        "chainloop attestation push a.json --material sbom=b.json --wait",
        "chainloop integration attached add --workflow=shop/nightly --integration x --opt a=b",
        "chainloop att push a.json",
        "chainloop attestation download [OPTIONS] <DIGEST> [FILE]",
        "registered rotate",
    ] {
        assert_eq!(fault(mention), None, "{mention}");
    }
}

#[test]
fn commands_are_found_in_blocks_in_spans_and_over_the_ends_of_lines() {
    let document = "Say `chainloop\nversion`, not `other`.\n\n```sh\n$ chainloop delivery \\\n    list # all\nls\n\
                    eval \"$(chainloop bootstrap)\"\n```\nThen `delivery list`.";
    assert_eq!(
        mentions(document, true),
        [
            "chainloop delivery list # all",
            "chainloop bootstrap",
            "chainloop version",
            "delivery list"
        ]
    );
    let code =
        "/// Ask `chainloop\n    /// version`.\nlet a = \"run `chainloop \\\n        export`\";";
    assert_eq!(
        mentions(code, false),
        ["chainloop version", "chainloop export"]
    );
}
