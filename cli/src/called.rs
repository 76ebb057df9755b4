//! The name that the command was called by. Beside the official `chainloop`, it is installed as `chainloop-integrations`.

use std::ffi::OsString;
use std::path::Path;

use clap::Command;
use clap::builder::StyledStr;

/// The name of this command in its texts.
pub(crate) const NAME: &str = "chainloop";

/// Returns the name that this process was called by.
pub(crate) fn name() -> String {
    named(std::env::args_os().next().as_ref())
}

/// Returns the name in the first word of a command line.
pub(crate) fn named(word: Option<&OsString>) -> String {
    let name = word.and_then(|word| Path::new(word).file_name()?.to_str());
    let name = name.map_or(NAME, |name| name.strip_suffix(".exe").unwrap_or(name));
    name.to_owned()
}

/// Replaces the name in the commands that a text names.
pub(crate) fn text(text: &str, name: &str) -> String {
    if name == NAME {
        return text.to_owned();
    }
    let mut text = text.to_owned();
    for before in ["`", "$(", "\n  "] {
        text = text.replace(&format!("{before}{NAME} "), &format!("{before}{name} "));
    }
    text
}

/// As [`text`], in all texts of a command's help.
pub(crate) fn help(command: Command, name: &str) -> Command {
    if name == NAME {
        return command;
    }
    below(command, name).display_name(name)
}

fn below(mut command: Command, name: &str) -> Command {
    let renamed = |told: Option<&StyledStr>| told.map(|told| text(&told.to_string(), name));
    let (about, after) = (
        renamed(command.get_about()),
        renamed(command.get_after_help()),
    );
    if let Some(about) = about {
        command = command.about(about);
    }
    if let Some(after) = after {
        command = command.after_help(after);
    }
    command.mut_subcommands(|command| below(command, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_get_the_name_and_nothing_else_does() {
        let told = "a Chainloop control plane, chainloop 1: `chainloop version`\n\nExample:\n  chainloop open\n  \
                    export A=$(chainloop auth exchange)";
        assert_eq!(text(told, NAME), told);
        assert_eq!(
            text(told, "other"),
            "a Chainloop control plane, chainloop 1: `other version`\n\nExample:\n  other open\n  \
             export A=$(other auth exchange)"
        );
    }

    #[test]
    fn the_name_is_that_of_the_file() {
        for (word, expected) in [
            ("/usr/bin/chainloop-integrations", "chainloop-integrations"),
            ("chainloop.exe", "chainloop"),
            ("./chainloop", "chainloop"),
        ] {
            assert_eq!(named(Some(&word.into())), expected);
        }
        assert_eq!(named(None), NAME);
    }
}
