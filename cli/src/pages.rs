//! Writes the pages in `docs/commands` from the commands' help, and compares them with the committed ones.
//!
//! Each command has an example, which must parse. `tests/peers/src/examples.rs` reads these pages and runs every
//! example on the deployed stack.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValue;
use clap::{Arg, Command, CommandFactory, Parser};

use crate::arguments::Arguments;

const WRITTEN: &str =
    "<!-- Written by cli/src/pages.rs from the commands: REFRESH=1 cargo test -p chainloop -->\n";

/// Exit codes of a command whose help lists none.
const EXIT_CODES: &str = "0 success · 1 failure · 2 usage error";

/// One command, with all that its `--help` says of it.
struct Entry {
    command: Command,
    /// `chainloop integration registered add`.
    path: String,
    notes: Vec<String>,
    exit_codes: String,
    examples: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All commands that do something, in the order of `--help`.
fn entries() -> Vec<Entry> {
    fn walk(command: &Command, path: &str, entries: &mut Vec<Entry>) {
        let subcommands = command.get_subcommands();
        let own: Vec<_> = subcommands.filter(|one| one.get_name() != "help").collect();
        if own.is_empty() {
            entries.push(Entry::of(command, path));
        }
        for subcommand in own {
            walk(
                subcommand,
                &format!("{path} {}", subcommand.get_name()),
                entries,
            );
        }
    }
    let mut root = Arguments::command();
    root.build();
    let mut entries = Vec::new();
    walk(&root, "chainloop", &mut entries);
    entries
}

impl Entry {
    fn of(command: &Command, path: &str) -> Self {
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let (said, shown) = ["Examples:\n", "Example:\n"]
            .iter()
            .find_map(|title| help.split_once(title))
            .unwrap_or((&help, ""));
        let (exit_codes, notes): (Vec<String>, Vec<String>) = said
            .split("\n\n")
            .map(|paragraph| paragraph.trim_matches('\n').to_owned())
            .filter(|paragraph| !paragraph.is_empty())
            .partition(|paragraph| paragraph.to_lowercase().contains("exit codes"));
        let mut examples: Vec<String> = Vec::new();
        for line in shown.lines() {
            let line = line.strip_prefix("  ").unwrap_or(line);
            match examples.last_mut().filter(|last| last.ends_with('\\')) {
                Some(last) => write!(last, "\n{line}").unwrap(),
                None => examples.push(line.to_owned()),
            }
        }
        Self {
            command: command.clone(),
            path: path.to_owned(),
            notes,
            exit_codes: exit_codes.join(" "),
            examples,
        }
    }

    /// `commands/integration-registered-add.md`.
    fn file(&self) -> String {
        let words = self.path.split(' ').skip(1).collect::<Vec<_>>();
        format!("commands/{}.md", words.join("-"))
    }

    fn about(&self) -> String {
        self.command.get_about().unwrap().to_string()
    }

    fn page(&self) -> String {
        let command = &self.command;
        let about = command.get_long_about().map(ToString::to_string);
        let about = about.unwrap_or_else(|| self.about());
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        let mut text = format!("{WRITTEN}# {}\n\n{}", self.path, sentence(&about));
        let others: Vec<_> = command.get_visible_aliases().collect();
        if !others.is_empty() {
            write!(text, " Also called `{}`.", others.join("`, `")).unwrap();
        }
        write!(text, "\n\n```\n{usage}\n```\n").unwrap();
        text.push_str(&table(command));
        for note in &self.notes {
            // Indented lines show syntax.
            match note.contains("\n  ") || note.contains("  ") {
                true => write!(text, "\n```\n{note}\n```\n").unwrap(),
                false => write!(text, "\n{note}\n").unwrap(),
            }
        }
        let exit_codes = match self.exit_codes.as_str() {
            "" => EXIT_CODES.to_owned(),
            own => own
                .trim_start_matches("Exit codes: ")
                .replacen("Exit codes with ", "With ", 1),
        };
        write!(text, "\n## Exit codes\n\n{exit_codes}\n").unwrap();
        write!(
            text,
            "\n## Examples\n\n```sh\n{}\n```\n",
            self.examples.join("\n")
        )
        .unwrap();
        text
    }
}

fn sentence(text: &str) -> String {
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{text}{end}")
}

/// Renders the arguments of a command, without the global options.
fn table(command: &Command) -> String {
    let own = |argument: &&Arg| {
        !argument.is_global_set() && !argument.is_hide_set() && argument.get_id() != "help"
    };
    let arguments: Vec<_> = command.get_arguments().filter(own).collect();
    if arguments.is_empty() {
        return "\nTakes the [global options](../commands.md#global-options).\n".to_owned();
    }
    let mut text = "\n| | required | default | description |\n|---|---|---|---|\n".to_owned();
    for argument in arguments {
        text.push_str(&row(argument));
    }
    text.push_str("\nAlso takes the [global options](../commands.md#global-options).\n");
    text
}

fn row(argument: &Arg) -> String {
    let value = argument.get_value_names().unwrap_or_default().join(" ");
    let takes = argument.get_action().takes_values();
    let mut names: Vec<String> = Vec::new();
    match (argument.get_short(), argument.get_long()) {
        (None, None) => names.push(format!("<{value}>")),
        (short, long) => {
            names.extend(short.map(|letter| format!("-{letter}")));
            names.extend(long.map(|name| format!("--{name}")));
            let others = argument.get_visible_aliases().unwrap_or_default();
            names.extend(others.iter().map(|name| format!("--{name}")));
            if let Some(last) = names.last_mut().filter(|_| takes) {
                write!(last, " <{value}>").unwrap();
            }
        }
    }
    let required = if argument.is_required_set() {
        "yes"
    } else {
        "no"
    };
    let defaults = argument.get_default_values().iter();
    let default: Vec<_> = defaults
        .filter(|_| takes && !argument.is_hide_default_value_set())
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    let default = match default.is_empty() {
        true => "–".to_owned(),
        false => default.join(" "),
    };
    let mut description = argument
        .get_help()
        .map(|help| sentence(&help.to_string()))
        .unwrap_or_default();
    if let Some(variable) = argument.get_env() {
        write!(description, " Or `{}`.", variable.to_string_lossy()).unwrap();
    }
    let choices: Vec<_> = argument.get_possible_values();
    if takes && !choices.is_empty() {
        let names: Vec<_> = choices.iter().map(PossibleValue::get_name).collect();
        write!(description, " One of `{}`.", names.join("`, `")).unwrap();
    }
    format!(
        "| `{}` | {required} | {default} | {} |\n",
        names.join("`, `"),
        description.trim().replace('|', "\\|")
    )
}

fn overview(entries: &[Entry]) -> String {
    let root = Arguments::command();
    let mut text = format!(
        "{WRITTEN}# Commands\n\n{}. The `--help` of each command has the contents of its page.\n\n\
         | command | description |\n|---|---|\n",
        root.get_about().unwrap()
    );
    for entry in entries {
        let hidden = if entry.command.is_hide_set() {
            " Hidden in `--help`."
        } else {
            ""
        };
        writeln!(
            text,
            "| [{}]({}) | {}{hidden} |",
            entry.path,
            entry.file(),
            sentence(&entry.about())
        )
        .unwrap();
    }
    text.push_str(
        "\n## Global options\n\nEvery command accepts them.\n\n\
         | | required | default | description |\n|---|---|---|---|\n",
    );
    for argument in root.get_arguments().filter(|one| one.is_global_set()) {
        text.push_str(&row(argument));
    }
    let help = root.get_after_help().unwrap().to_string();
    let codes = help.split("\n\n").next().unwrap();
    let codes = codes.trim_start_matches("Exit codes: ");
    write!(
        text,
        "\n## Exit codes\n\n{codes}\n\nResults go to standard output and messages to standard error, so `-o json` \
         can be piped. An interrupted command exits with 130.\n"
    )
    .unwrap();
    text
}

#[test]
fn the_pages_are_those_of_the_commands() {
    let entries = entries();
    let mut pages = vec![("commands.md".to_owned(), overview(&entries))];
    pages.extend(entries.iter().map(|entry| (entry.file(), entry.page())));
    let docs = root().join("docs");
    let refresh = std::env::var_os("REFRESH").is_some();
    fs::create_dir_all(docs.join("commands")).unwrap();
    let mut faults = Vec::new();
    for (file, text) in &pages {
        let path = docs.join(file);
        if refresh {
            fs::write(&path, text).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != *text {
            faults.push(format!("docs/{file}: differs from the command's help"));
        }
    }
    let is_page = |path: &PathBuf| pages.iter().any(|(file, _)| docs.join(file) == *path);
    for path in fs::read_dir(docs.join("commands"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !is_page(path))
    {
        faults.push(format!(
            "{}: delete it, its command does not exist",
            path.display()
        ));
    }
    assert!(
        faults.is_empty(),
        "{}\nREFRESH=1 cargo test -p chainloop writes the pages anew (look at the difference before committing it)",
        faults.join("\n")
    );
}

#[test]
fn the_limits_stand_where_users_look() {
    let limits = attestation::limits();
    for file in [
        "README.md",
        "docs/commands/attestation-push.md",
        "docs/openapi.json",
    ] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        assert!(text.contains(&limits), "{file} does not say: {limits}");
    }
}

#[test]
fn every_command_has_an_example_that_is_understood() {
    let mut faults = Vec::new();
    for entry in entries() {
        let path = &entry.path;
        let lines: Vec<_> = entry
            .examples
            .iter()
            .filter_map(|text| words(text))
            .collect();
        let long = entry.examples.iter().flat_map(|text| text.lines());
        // What is one word cannot be wrapped.
        let long = long.filter(|line| line.len() > 78 && line.trim().contains(' '));
        faults.extend(long.map(|line| format!("an example of `{path}` is too wide: {line}")));
        let shows_itself = |words: &&Vec<String>| words.join(" ").starts_with(path.as_str());
        if !lines.iter().any(|words| shows_itself(&words)) {
            faults.push(format!(
                "`{path}` has no example: give it after_help = \"Example:\\n  {path} …\", and its place in the scenario of \
                 tests/peers/src/examples.rs"
            ));
        }
        for words in lines {
            if let Err(error) = Arguments::try_parse_from(&words) {
                let error = error.to_string();
                let first = error.lines().next().unwrap_or_default();
                faults.push(format!(
                    "an example of `{path}` is not understood: {}: {first}",
                    words.join(" ")
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Splits an example into words as a shell does; `None` if the command is not `chainloop`.
fn words(example: &str) -> Option<Vec<String>> {
    let inside = example
        .strip_prefix("eval \"$(")
        .and_then(|rest| rest.strip_suffix(")\""));
    let example = inside.unwrap_or(example).replace("\\\n", " ");
    let words = shlex::split(&example).expect("quotes are closed");
    let is_ours = words.first().is_some_and(|word| word == "chainloop");
    let ends = |word: &String| !matches!(word.as_str(), "<" | ">" | "|");
    is_ours.then(|| words.into_iter().take_while(ends).collect())
}
