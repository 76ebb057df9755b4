//! Command-line arguments: the tree of commands, and the flags that all of them have.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::global::Global;
use crate::output::{self, Format};
use crate::{
    apply, attestation, audit_log, auth, bootstrap, called, completion, delivery, intake,
    integration, job, open, organization, places, profile, trust, variables, workflow,
};

/// Deliver attestations to third-party tools
#[derive(Debug, Parser)]
#[command(
    name = "chainloop",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 success · 1 failure · 2 usage error · 3 a delivery failed, was cancelled or was \
                  partial · 4 a delivery is not final yet\n\nExample:\n  chainloop integration available list"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Manage integrations: available, registered and attached
    #[command(subcommand)]
    Integration(integration::Command),
    /// Push, inspect and download attestations
    #[command(subcommand, visible_alias = "att")]
    Attestation(attestation::Command),
    /// List workflows
    #[command(subcommand)]
    Workflow(workflow::Command),
    /// Apply registrations and attachments from a file
    Apply(apply::Apply),
    /// Print registrations and attachments as a file for `chainloop apply`
    #[command(after_help = apply::EXPORT_HELP)]
    Export,
    /// Inspect, redeliver, cancel and audit deliveries
    #[command(subcommand)]
    Delivery(delivery::Command),
    /// Find the places that have evidence of a digest: an attestation, an image, an SBOM
    Where(places::Where),
    /// Open the console in a browser, signed in for an hour at most
    Open(open::Open),
    /// Manage background jobs: redeliveries, backfills, drains and audits
    #[command(subcommand)]
    Job(job::Command),
    /// Manage intakes: URLs that a Chainloop control plane posts to
    #[command(subcommand)]
    Intake(intake::Command),
    /// Manage trust: whose signatures attestations have to have, and which CI jobs may push
    #[command(subcommand)]
    Trust(trust::Command),
    /// Show the audit log
    #[command(subcommand)]
    Audit(audit_log::Command),
    /// Manage API tokens, show quotas
    #[command(subcommand, visible_alias = "org")]
    Organization(organization::Command),
    /// Log in, log out, show the current token
    #[command(subcommand)]
    Auth(auth::Command),
    /// Manage profiles: installations, each with its URL and token
    #[command(subcommand)]
    Profile(profile::Command),
    /// Create the first organization and its admin token (needs AWS credentials)
    Bootstrap(bootstrap::Bootstrap),
    /// Print the version, with the commit where the build knows it
    #[command(after_help = "Example:\n  chainloop version -o json")]
    Version,
    /// Print a completion script for a shell
    #[command(after_help = "\
Besides commands and flags, the script completes names: of profiles, and, of the installation in use, of integrations, \
registrations, workflows and so on. For these it asks the API, for a second at most. It is for the name that this command is \
called by. Write it again after an upgrade.

In zsh, put `source <(chainloop completion zsh)` in ~/.zshrc.

Example:
  chainloop completion bash > \\
    ~/.local/share/bash-completion/completions/chainloop")]
    Completion { shell: Shell },
    /// Write manual pages, one of each command, into a directory
    #[command(after_help = "\
`man chainloop-delivery-list` shows the page of `chainloop delivery list`, where the directory is one that man looks in.

Example:
  chainloop man ~/.local/share/man/man1")]
    Man { directory: PathBuf },
}

impl Arguments {
    /// Parses words. Faults and help are those of the words alone: where a variable is set, clap takes a bare command for
    /// one with arguments, and usage lines name the variable's option.
    pub(crate) fn given(words: &[OsString]) -> Result<Self, clap::Error> {
        use ErrorKind::{
            DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand as Bare, DisplayVersion,
        };
        let command = called::help(Self::command(), &called::named(words.first()));
        let alone = without_variables(command.clone()).try_get_matches_from(words);
        let mut command = variables::found(command);
        let parsed = command.try_get_matches_from_mut(words);
        let parsed = parsed.and_then(|matches| {
            let mut parsed =
                Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
            parsed.global.settle(&matches);
            Ok(parsed)
        });
        match (parsed, alone) {
            (Ok(_), Err(told)) if told.kind() == Bare => Err(told),
            (Err(told), Err(alone))
                if told.kind() != alone.kind()
                    || !matches!(told.kind(), DisplayHelp | Bare | DisplayVersion) =>
            {
                Err(alone)
            }
            (parsed, _) => parsed,
        }
    }

    pub(crate) fn output(&self) -> Format {
        self.global.output
    }

    pub(crate) fn run(mut self) -> anyhow::Result<ExitCode> {
        self.global.read_token()?;
        let global = &self.global;
        match self.command {
            Command::Integration(command) => return command.run(global),
            Command::Attestation(command) => return command.run(global),
            Command::Delivery(command) => return command.run(global),
            Command::Where(places) => return places.run(global),
            Command::Apply(apply) => return apply.run(global),
            Command::Export => apply::export(global)?,
            Command::Open(open) => open.run(global)?,
            Command::Job(command) => command.run(global)?,
            Command::Intake(command) => command.run(global)?,
            Command::Trust(command) => command.run(global)?,
            Command::Audit(command) => command.run(global)?,
            Command::Workflow(command) => command.run(global)?,
            Command::Organization(command) => command.run(global)?,
            Command::Auth(command) => command.run(global)?,
            Command::Profile(command) => command.run(global)?,
            Command::Bootstrap(bootstrap) => bootstrap.run(global)?,
            Command::Version => version(global)?,
            Command::Completion { shell } => {
                output::bytes(&completion::script(shell)?)?;
            }
            Command::Man { directory } => manual(&directory)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn without_variables(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| argument.env(Resettable::Reset))
        .mut_subcommands(without_variables)
}

/// Writes a page for each command, of the name that this one was called by.
fn manual(directory: &Path) -> anyhow::Result<()> {
    let command = called::help(Arguments::command(), &called::name());
    let pages = without_variables(command);
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(pages, directory))
        .with_context(|| format!("failed to write into {}", directory.display()))
}

/// The commit that this was built from, where the build says so.
const COMMIT: Option<&str> = option_env!("CHAINLOOP_COMMIT");

fn version(global: &Global) -> anyhow::Result<()> {
    let (name, version) = (called::name(), env!("CARGO_PKG_VERSION"));
    match (global.output, COMMIT) {
        (Format::Table, None) => output::line(&format!("{name} {version}")),
        (Format::Table, Some(commit)) => output::line(&format!("{name} {version} ({commit})")),
        (Format::Json, commit) => {
            output::json(&serde_json::json!({ "version": version, "commit": commit }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_tree_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_page_are_understood() {
        for line in [
            "chainloop integration available list",
            "chainloop integration available ls",
            "chainloop integration available describe --name oci-registry",
            "chainloop integration available describe --id oci-registry --full",
            "chainloop integration registered add oci-registry --name one --opt a=b --opt c=d",
            "chainloop integration registered list",
            "chainloop integration registered delete --name one",
            "chainloop integration attached add --workflow w --integration i --opt prefix=custom",
            "chainloop integration attached attach --workflow w --project p --integration i",
            "chainloop integration attached list",
            "chainloop integration attached ls --project p --workflow w",
            "chainloop integration attached delete --id i -y",
            "chainloop integration attached detach --id i",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn flags_that_all_commands_have_can_stand_behind_them() {
        let line = "chainloop integration available list -o json --control-plane http://x -t t -q";
        let Global {
            output,
            token,
            url,
            quiet,
            ..
        } = parse(line).unwrap().global;
        assert_eq!(
            (output, token.as_deref(), url.as_deref(), quiet),
            (Format::Json, Some("t"), Some("http://x"), true)
        );
    }

    #[test]
    fn another_format_is_not_implemented() {
        let error = parse("chainloop version -o yaml").unwrap_err();
        assert!(
            error.to_string().contains("format not implemented"),
            "{error}"
        );
        assert_eq!(error.exit_code(), 2);
    }
}
