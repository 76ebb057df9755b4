//! Completion in shells: besides commands and flags, names of the installation in use.
//!
//! The script of a shell runs this command for each completion, with a variable. Names are read by one request, within a
//! second: where that fails nothing is offered, and nothing is said, since the shell shows a prompt.

use std::ffi::OsString;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Arg, Command, FromArgMatches as _};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};
use serde_json::Value;

use crate::client::Client;
use crate::failure::Failure;
use crate::global::Global;
use crate::ids::SHORT_DIGEST;
use crate::{called, output, profiles, variables};

/// Tells this command to complete, for the shell that it names.
const VARIABLE: &str = "CHAINLOOP_INTEGRATIONS_COMPLETE";

/// All commands, which are made anew each time.
static COMMANDS: OnceLock<fn() -> Command> = OnceLock::new();

/// Answers a shell that asks for completion of these commands, and ends the process then.
pub(crate) fn answer(commands: fn() -> Command) {
    let commands = COMMANDS.get_or_init(|| commands);
    let tree = || below(called::help(commands(), &called::name()), "");
    CompleteEnv::with_factory(tree).var(VARIABLE).complete();
}

/// Returns a shell's script, for the name that this command was called by.
pub(crate) fn script(shell: Shell) -> anyhow::Result<Vec<u8>> {
    let (name, program) = (called::name(), program()?);
    // Its script has both within quotes that it obeys, or breaks at.
    if shell == Shell::Bash && !(is_plain(&name) && is_plain(&program)) {
        return Err(Failure::usage(format!("bash cannot complete {program:?}"))
            .advice("Call it by a path without spaces and letters that bash obeys, or by its name on the PATH.")
            .into());
    }
    let mut script = Vec::new();
    if let Some(completer) = Shells::builtins().completer(&shell.to_string()) {
        completer.write_registration(VARIABLE, &name, &name, &program, &mut script)?;
    }
    Ok(script)
}

/// Returns what the shell has to run: what was typed, with its whole path unless it was found on the shell's path.
fn program() -> anyhow::Result<String> {
    let typed = std::env::args_os().next().map(std::path::PathBuf::from);
    let typed = typed.unwrap_or_else(|| called::NAME.into());
    let program = match typed.components().count() {
        0 | 1 => typed,
        _ => std::env::current_dir()?.join(typed),
    };
    Ok(program.to_string_lossy().into_owned())
}

/// Values that can be offered.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    Formats,
    Profiles,
    List(&'static List),
}

/// A list at the API.
#[derive(Debug, PartialEq)]
struct List {
    path: &'static str,
    /// Pointer to what is offered.
    value: &'static str,
    /// Pointers to what describes it.
    about: &'static [&'static str],
}

const fn list(path: &'static str, value: &'static str, about: &'static [&'static str]) -> List {
    List { path, value, about }
}

static INTEGRATIONS: List = list("integrations", "/id", &[]);
static REGISTRATIONS: List = list("registrations", "/name", &["/integration"]);
static ATTACHMENTS: List = list("attachments", "/id", &["/registration/name", "/workflow"]);
static DELIVERIES: List = list(
    "deliveries",
    "/id",
    &["/state", "/registration_name", "/workflow/name"],
);
static ATTESTATIONS: List = list("attestations", "/attestation", &["/workflow/name"]);
static WORKFLOWS: List = list("workflows", "/name", &[]);
static JOBS: List = list("jobs", "/id", &["/kind", "/state"]);
static INTAKES: List = list("intakes", "/name", &[]);
static TOKENS: List = list("tokens", "/name", &["/role"]);
static POLICIES: List = list("trust-policies", "/name", &["/workflow"]);
static ISSUERS: List = list("issuers", "/name", &["/issuer"]);

/// Groups of commands, and what the commands in them name.
static GROUPS: [(&str, Source); 9] = [
    ("integration available", Source::List(&INTEGRATIONS)),
    ("integration registered", Source::List(&REGISTRATIONS)),
    ("integration attached", Source::List(&ATTACHMENTS)),
    ("delivery", Source::List(&DELIVERIES)),
    ("job", Source::List(&JOBS)),
    ("intake", Source::List(&INTAKES)),
    ("organization api-token", Source::List(&TOKENS)),
    ("trust policy", Source::List(&POLICIES)),
    ("trust issuer", Source::List(&ISSUERS)),
];

/// Returns the source of an argument's values, for the command at this path: `integration registered add`.
fn source(path: &str, argument: &Arg) -> Option<Source> {
    let (group, command) = path.rsplit_once(' ').unwrap_or(("", path));
    let is_new = matches!(command, "add" | "create");
    match (path, argument.get_long()) {
        (_, Some("output")) => return Some(Source::Formats),
        (_, Some("profile")) => return Some(Source::Profiles),
        (_, Some("kind")) | ("integration registered add", None) => {
            return Some(Source::List(&INTEGRATIONS));
        }
        (_, Some("integration" | "registration")) | ("apply", Some("rotate")) => {
            return Some(Source::List(&REGISTRATIONS));
        }
        (_, Some("attestation" | "digest")) | ("where", None) => {
            return Some(Source::List(&ATTESTATIONS));
        }
        // Without its project.
        ("attestation craft", _) => return None,
        (_, Some("workflow")) => return Some(Source::List(&WORKFLOWS)),
        // The new name.
        (_, Some("name")) if is_new || command == "update" => return None,
        (_, Some("name" | "id")) => {}
        (_, None) if argument.get_value_names().is_some() && !is_new => {}
        _ => return None,
    }
    match group {
        "profile" => Some(Source::Profiles),
        "attestation" if argument.get_id() == "digest" => Some(Source::List(&ATTESTATIONS)),
        group => {
            let of = GROUPS.iter().find(|(name, _)| *name == group);
            of.map(|(_, source)| *source)
        }
    }
}

/// The commands, with arguments that know where their values are.
fn below(command: Command, path: &str) -> Command {
    let command = command.mut_args(|argument| match source(path, &argument) {
        Some(source) => argument.add(ArgValueCandidates::new(move || source.candidates())),
        None => argument,
    });
    command.mut_subcommands(|command| {
        let path = format!("{path} {}", command.get_name());
        below(command, path.trim_start())
    })
}

impl Source {
    fn candidates(self) -> Vec<CompletionCandidate> {
        let names: Vec<(String, String)> = match self {
            Self::Formats => ["table", "json"]
                .map(|name| (name.to_owned(), String::new()))
                .into(),
            Self::Profiles => profile_names(),
            Self::List(list) => list.names(),
        };
        names
            .into_iter()
            .filter(|(name, _)| is_plain(name))
            .map(|(name, about)| {
                let about = (!about.is_empty()).then(|| output::one_line(&about).into());
                CompletionCandidate::new(name).help(about)
            })
            .collect()
    }
}

/// Reports whether a shell takes a name as it stands. Whoever pushes chooses names of workflows, and scripts put names into
/// the command line without quoting them.
fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./@+".contains(&byte);
    !name.is_empty() && !name.starts_with('-') && name.bytes().all(is_plain)
}

fn profile_names() -> Vec<(String, String)> {
    let stored = typed().and_then(|global| profiles::load(&global).ok());
    let stored = stored.unwrap_or_default().profiles.into_iter();
    stored.map(|(name, profile)| (name, profile.url)).collect()
}

impl List {
    fn names(&self) -> Vec<(String, String)> {
        let items = self.items().unwrap_or_default();
        items.iter().map(|item| self.of(item)).collect()
    }

    fn of(&self, item: &Value) -> (String, String) {
        let text = |pointer: &&str| item.pointer(pointer)?.as_str().map(str::to_owned);
        let name = text(&self.value).unwrap_or_default();
        let name = match (self.path, text(&"/project")) {
            ("workflows", Some(project)) if !project.is_empty() => format!("{project}/{name}"),
            // Its beginning, as in tables: bash ends a word at a colon.
            ("attestations", _) => {
                let hex = name.trim_start_matches("sha256:");
                hex.chars().take(SHORT_DIGEST).collect()
            }
            _ => name,
        };
        let about: Vec<String> = self.about.iter().filter_map(text).collect();
        (name, about.join(", "))
    }

    /// Asks the API, once in a process.
    fn items(&self) -> Option<Vec<Value>> {
        static ASKED: AtomicBool = AtomicBool::new(false);
        if ASKED.swap(true, Ordering::Relaxed) {
            return None;
        }
        Client::brief(&typed()?).ok()?.first_page(self.path)
    }
}

/// Returns the global options that were typed so far, with what variables say.
fn typed() -> Option<Global> {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let words: Vec<OsString> = words.collect();
    let command = variables::found(COMMANDS.get()?()).ignore_errors(true);
    let matches = command.try_get_matches_from(words).ok()?;
    let mut global = Global::from_arg_matches(&matches).ok()?;
    global.settle(&matches);
    global.quiet = true;
    // Standard input is the terminal.
    if global.flags().1 == Some("-") {
        return None;
    }
    global.read_token().ok()?;
    Some(global)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::arguments::Arguments;

    /// All arguments with a source, as `integration registered describe <NAME>`.
    fn walk(command: &Command, path: &str, found: &mut Vec<(String, Arg)>) {
        for argument in command.get_arguments() {
            found.push((path.to_owned(), argument.clone()));
        }
        for below in command.get_subcommands() {
            let path = format!("{path} {}", below.get_name());
            walk(below, path.trim_start(), found);
        }
    }

    fn all() -> Vec<(String, Arg)> {
        let mut found = Vec::new();
        walk(&Arguments::command(), "", &mut found);
        found
    }

    #[test]
    fn what_names_something_that_exists_is_completed_and_nothing_else_is() {
        let begins = |help: &str, with: &[&str]| with.iter().any(|begin| help.starts_with(begin));
        let mut count = 0;
        for (path, argument) in all() {
            let help = argument
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let named = [
                ("registration", Source::List(&REGISTRATIONS)),
                ("attachment", Source::List(&ATTACHMENTS)),
                ("delivery", Source::List(&DELIVERIES)),
                ("job", Source::List(&JOBS)),
                ("attestation", Source::List(&ATTESTATIONS)),
                ("intake", Source::List(&INTAKES)),
                ("token", Source::List(&TOKENS)),
                ("policy", Source::List(&POLICIES)),
                ("issuer", Source::List(&ISSUERS)),
                ("integration", Source::List(&INTEGRATIONS)),
            ];
            let of = |what: &str| {
                let whose = [
                    "Name or ID of the",
                    "Name or ID of a",
                    "ID of the",
                    "ID of a",
                    "Name of the",
                    "Digest of the",
                ];
                let whose: Vec<_> = whose
                    .iter()
                    .map(|begin| format!("{begin} {what}"))
                    .collect();
                begins(&help, &whose.iter().map(String::as_str).collect::<Vec<_>>())
            };
            let is_new = path.ends_with(" add")
                || path.ends_with(" create")
                || path == "bootstrap"
                || path == "open";
            let expected = named.iter().find(|(what, _)| of(what)).filter(|_| !is_new);
            if let Some((what, expected)) = expected {
                count += 1;
                assert_eq!(
                    source(&path, &argument),
                    Some(*expected),
                    "{path}: {what}: {argument:?}"
                );
            }
            if begins(&help, &["Name, unique", "New name", "Address", "Lifetime"]) {
                assert_eq!(source(&path, &argument), None, "{path}: {argument:?}");
            }
        }
        assert!(
            count > 30,
            "only {count} arguments were found by their help"
        );
    }

    #[test]
    fn a_name_that_a_shell_would_obey_is_not_offered() {
        for name in [
            "shop/nightly-build",
            "a.b_c@d+e",
            "6f0c1f0e-0000-8000-8000-000000000001",
        ] {
            assert!(is_plain(name), "{name}");
        }
        for name in [
            "", "a b", "$(id)", "`id`", "a;b", "-y", "a'b", "a\\b", "a\nb", "~", "a*", "ä",
        ] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
