//! `chainloop trust`: manages trust policies, which say whose signatures attestations have to have, and issuers.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use api::Timestamp;
use api::names::is_label;
use api::trust::{
    Identity, ListedTrustPolicy, Mode, NewTrustPolicy, Outcome, Policy, Signer, TrialPolicy,
    TriedAttestation, TrustPolicy, TrustedRoot, Verdict,
};
use attestation::Digest;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::client::{Call, Client, json};
use crate::delivery::workflow;
use crate::failure::Failure;
use crate::global::Global;
use crate::ids::SHORT_DIGEST;
use crate::names::label;
use crate::output::{self, Format};
use crate::table::{self, Cell, Color, Table, cell, paint, word};
use crate::{confirm, document, issuer, time};

/// More than an organization has.
const MOST: usize = 100_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Manage trust policies: whose signatures attestations have to have
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Manage issuers: CI systems whose jobs need no stored token
    #[command(subcommand)]
    Issuer(issuer::Command),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Create a trust policy for workflows; attestations are judged by it from now on
    #[command(
        visible_alias = "create",
        after_help = "\
off      nothing is judged
warn     every attestation is accepted, with its verdict
require  an attestation is refused unless enough signers signed it

A workflow is judged by the policy for its ID and by the most specific one for its names: project/name, 'project/*', '*'. The identity \
of a keyless signer is the certificate's: a workflow's URL or an e-mail address. In it, * stands for any text without \
a /, and ** for any text; without either it is compared exactly. A file has the fields of the API's \
NewTrustPolicy, as YAML or JSON.

Example:
  chainloop trust policy add --name release --workflow shop/release \\
    --mode require --key release=@release.pub
  chainloop trust policy add --name builds --workflow '*' --mode warn \\
    --keyless \\
    'github=https://token.actions.githubusercontent.com,https://github.com/acme/*/.github/workflows/release.yml@refs/tags/*'
  chainloop trust policy add -f policy.yaml"
    )]
    Add(Box<Add>),
    /// Change a trust policy; what is not given stays, and signers replace all that there were
    #[command(after_help = "\
Attestations are judged by it from now on; verdicts that were given stay as they are.

Example:
  chainloop trust policy update release --mode require
  chainloop trust policy update release \\
    --key release=@release.pub --key next=@next.pub")]
    Update(Box<Update>),
    /// Try a trust policy, or signers, on attestations that were accepted
    #[command(after_help = "\
Each attestation is judged as of the time when it was accepted, by the bytes that came. Nothing is kept or changed. A more \
specific policy, and one for the workflow's ID, may judge some of them in its place.

Example:
  chainloop trust policy preview release --since 7d
  chainloop trust policy preview --workflow 'shop/*' --key release=@release.pub")]
    Preview(Box<Preview>),
    /// List trust policies
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  chainloop trust policy list"
    )]
    List,
    /// Show a trust policy and its signers
    #[command(after_help = "Example:\n  chainloop trust policy describe release")]
    Describe {
        /// Name or ID of the trust policy
        #[arg(value_name = "NAME_OR_ID")]
        named: String,
    },
    /// Delete a trust policy; verdicts that were given stay as they are
    #[command(after_help = "Example:\n  chainloop trust policy delete release -y")]
    Delete {
        /// Name or ID of the trust policy
        #[arg(value_name = "NAME_OR_ID")]
        named: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Name, unique in your organization: lower-case letters, digits and hyphens
    #[arg(long, value_parser = label, required_unless_present = "file")]
    name: Option<String>,
    /// Workflows it is for: project/name, 'project/*', '*' or an ID
    #[arg(long, required_unless_present = "file")]
    workflow: Option<String>,
    /// Treatment of an attestation that is not verified
    #[arg(long, value_parser = mode(), required_unless_present = "file")]
    mode: Option<Mode>,
    #[command(flatten)]
    given: Given,
    /// File with the whole policy, as YAML or JSON
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["name", "workflow", "mode", "threshold", "key", "kms", "keyless", "chainloop"])]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Name or ID of the trust policy
    #[arg(value_name = "NAME_OR_ID")]
    named: String,
    /// Treatment of an attestation that is not verified
    #[arg(long, value_parser = mode(), required_unless_present_any = ["threshold", "key", "kms", "keyless", "chainloop"])]
    mode: Option<Mode>,
    #[command(flatten)]
    given: Given,
}

#[derive(Debug, Args)]
pub(crate) struct Preview {
    /// Name or ID of a trust policy
    #[arg(value_name = "NAME_OR_ID", required_unless_present = "workflow", conflicts_with_all = ["workflow", "threshold", "key", "kms", "keyless", "chainloop"])]
    named: Option<String>,
    /// Workflows to look at, for signers: project/name, 'project/*', '*' or an ID
    #[arg(long)]
    workflow: Option<String>,
    #[command(flatten)]
    given: Given,
    /// Only attestations accepted since then: a time, or an age such as 30m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    since: Option<Timestamp>,
    /// Maximum number of attestations
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Signers, and how many of them have to sign.
#[derive(Debug, Args)]
pub(crate) struct Given {
    /// Number of distinct keys that have to sign, 1 for a new policy
    #[arg(long, value_name = "COUNT")]
    threshold: Option<usize>,
    /// Public key in PEM of a signer; can be repeated
    #[arg(long, value_name = "NAME=@FILE")]
    key: Vec<String>,
    /// Key in AWS KMS of a signer, with its public key in PEM; can be repeated
    #[arg(long, value_name = "NAME=ARN,@FILE")]
    kms: Vec<String>,
    /// Identity of a signer in a certificate of Sigstore's public instance; can be repeated
    #[arg(long, value_name = "NAME=ISSUER,IDENTITY")]
    keyless: Vec<String>,
    /// Organization of a Chainloop control plane, with its authority's certificates in PEM; can be repeated
    #[arg(long, value_name = "NAME=ORGANIZATION_ID,@FILE")]
    chainloop: Vec<String>,
}

impl Given {
    fn signers(&self) -> anyhow::Result<Vec<Signer>> {
        let all = [
            signers("key", &self.key, key)?,
            signers("kms", &self.kms, kms)?,
            signers("keyless", &self.keyless, keyless)?,
            signers("chainloop", &self.chainloop, chainloop)?,
        ];
        Ok(all.concat())
    }
}

/// The modes, named so that a shell can complete them.
fn mode() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(["off", "warn", "require"])
        .map(|word| serde_json::from_value(word.into()).expect("the words are the modes'"))
}

fn named(text: &str) -> Result<(String, &str), String> {
    let (name, rest) = text.split_once('=').ok_or("has no `=` behind the name")?;
    Ok((name.to_owned(), rest))
}

/// Reads the file that an `@` names.
fn read(text: &str) -> Result<String, String> {
    let path = text.strip_prefix('@').ok_or("must be a file, as @FILE")?;
    fs::read_to_string(path).map_err(|error| format!("failed to read {path}: {error}"))
}

/// Splits what stands before a file from the file, and reads that.
fn with_file(text: &str) -> Result<(String, String), String> {
    let (before, file) = text.split_once(",@").ok_or("has no `,@FILE` at its end")?;
    Ok((before.to_owned(), read(&format!("@{file}"))?))
}

/// Reads the signers of a flag.
fn signers(
    flag: &str,
    given: &[String],
    read: fn(&str) -> Result<Signer, String>,
) -> anyhow::Result<Vec<Signer>> {
    let read = |text: &String| {
        // Not what stands behind the name, which may be a key.
        let name = text.split('=').next().filter(|name| is_label(name));
        let name = name.unwrap_or("…");
        read(text).map_err(|fault| Failure::usage(format!("--{flag} {name}: {fault}")).into())
    };
    given.iter().map(read).collect()
}

fn key(text: &str) -> Result<Signer, String> {
    let (name, file) = named(text)?;
    let pem = read(file)?;
    Ok(Signer::Key { name, pem })
}

fn kms(text: &str) -> Result<Signer, String> {
    let (name, rest) = named(text)?;
    let (arn, pem) = with_file(rest)?;
    Ok(Signer::Kms { name, arn, pem })
}

fn chainloop(text: &str) -> Result<Signer, String> {
    let (name, rest) = named(text)?;
    let (organization, ca_pem) = with_file(rest)?;
    Ok(Signer::Chainloop {
        name,
        ca_pem,
        organization,
        timestamp_pem: None,
    })
}

fn keyless(text: &str) -> Result<Signer, String> {
    let (name, rest) = named(text)?;
    let (issuer, identity) = rest.split_once(',').ok_or("has no `,` behind the issuer")?;
    let text = identity.to_owned();
    let identity = match identity.contains('*') {
        true => Identity::Glob(text),
        false => Identity::Exact(text),
    };
    Ok(Signer::Keyless {
        name,
        issuer: issuer.to_owned(),
        identity,
        trusted_root: TrustedRoot::PublicGood,
    })
}

impl Command {
    pub(crate) fn run(self, global: &Global) -> anyhow::Result<()> {
        let command = match self {
            Self::Policy(command) => command,
            Self::Issuer(command) => return command.run(global),
        };
        match command {
            PolicyCommand::Add(add) => add.run(global),
            PolicyCommand::Update(update) => update.run(global),
            PolicyCommand::Preview(preview) => preview.run(global),
            PolicyCommand::List => list(global),
            PolicyCommand::Describe { named } => describe(global, &named),
            PolicyCommand::Delete { named } => delete(global, &named),
        }
    }
}

impl Add {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        let new = match self.file {
            Some(path) => document::read(&path)?,
            None => NewTrustPolicy {
                name: self.name.unwrap_or_default(),
                workflow: self.workflow.unwrap_or_default(),
                project: None,
                mode: self.mode.unwrap_or(Mode::Off),
                threshold: self.given.threshold.unwrap_or(1),
                signers: self.given.signers()?,
            },
        };
        let policy: TrustPolicy = Client::new(global)?
            .call(&Call::post_once(&["trust-policies"], json(&new)?)?)
            .with_context(|| format!("failed to create the trust policy {:?}", new.name))?;
        global.info(&format!(
            "trust policy {:?} created for {}",
            policy.name, policy.workflow
        ));
        show(global, &policy)
    }
}

impl Update {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        let (client, named) = (Client::new(global)?, &self.named);
        let context = || format!("failed to update the trust policy {named:?}");
        let there = get(&client, named).with_context(context)?;
        let given = self.given.signers()?;
        let policy = Policy {
            mode: self.mode.unwrap_or(there.mode),
            threshold: self.given.threshold.unwrap_or(there.threshold),
            signers: match given.is_empty() {
                true => there.signers,
                false => given,
            },
        };
        let path = ["trust-policies", named];
        let updated: TrustPolicy = client
            .call(&Call::put(&path, json(&policy)?).only(&there.etag))
            .with_context(context)?;
        global.info(&format!("trust policy {:?} updated", updated.name));
        show(global, &updated)
    }
}

impl Preview {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = Client::new(global)?;
        let trial = match &self.named {
            Some(named) => {
                let policy = get(&client, named)
                    .with_context(|| format!("failed to read the trust policy {named:?}"))?;
                TrialPolicy {
                    workflow: policy.workflow,
                    project: None,
                    threshold: policy.threshold,
                    signers: policy.signers,
                    since: self.since,
                }
            }
            None => TrialPolicy {
                workflow: self.workflow.clone().unwrap_or_default(),
                project: None,
                threshold: self.given.threshold.unwrap_or(1),
                signers: self.given.signers()?,
                since: self.since,
            },
        };
        let body = json(&trial)?;
        let call = || Call::post(&["attestations", "judge"], body.clone());
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let (tried, more): (Vec<TriedAttestation>, _) = client
            .pages(call, &[], limit)
            .context("failed to judge the attestations")?;
        match global.output {
            Format::Json => output::json(&tried)?,
            Format::Table if tried.is_empty() => output::line("there are no attestations")?,
            Format::Table => output::line(&tried_rows(&tried).to_string())?,
        }
        global.info(&sum(&tried));
        if more {
            global.info("more attestations exist: raise --limit, or add --since");
        }
        Ok(())
    }
}

fn tried_rows(tried: &[TriedAttestation]) -> Table {
    let now = time::now();
    let mut table = Table::new(&["WORKFLOW", "VERDICT", "ACCEPTED AT", "DIGEST"]);
    for one in tried {
        let verdict = match &one.verdict {
            None => cell("not judged: its bytes are not kept any more"),
            Some(verdict) => coloured(verdict.outcome, verdict.to_string()),
        };
        table.row(vec![
            cell(workflow(&one.workflow)),
            verdict,
            cell(time::relative(one.created_at, now)),
            table::digest(&one.attestation),
        ]);
    }
    table
}

/// Counts attestations by verdict, and those that `require` would have refused.
fn sum(tried: &[TriedAttestation]) -> String {
    let outcomes = || {
        tried
            .iter()
            .filter_map(|one| one.verdict.as_ref())
            .map(|one| one.outcome)
    };
    let of = |outcome: Outcome| outcomes().filter(|one| *one == outcome).count();
    let counts = Outcome::ALL.into_iter().filter(|outcome| of(*outcome) > 0);
    let counts: Vec<_> = counts
        .map(|outcome| format!("{} {outcome}", of(outcome)))
        .collect();
    let refused = outcomes().count() - of(Outcome::Verified);
    match counts.is_empty() {
        true => "no attestation was judged".to_owned(),
        false => format!(
            "{}; require would have refused {refused}",
            counts.join(", ")
        ),
    }
}

fn get(client: &Client, named: &str) -> anyhow::Result<TrustPolicy> {
    client.call(&Call::get(&["trust-policies", named]))
}

fn list(global: &Global) -> anyhow::Result<()> {
    let (policies, _): (Vec<ListedTrustPolicy>, _) = Client::new(global)?
        .list(&["trust-policies"], &[], MOST)
        .context("failed to list the trust policies")?;
    match global.output {
        Format::Json => output::json(&policies)?,
        Format::Table if policies.is_empty() => output::line("there are no trust policies")?,
        Format::Table => {
            let headers = [
                "NAME",
                "WORKFLOW",
                "MODE",
                "SIGNERS",
                "CREATED BY",
                "CREATED",
            ];
            let mut table = Table::new(&headers);
            for policy in &policies {
                let signers = format!("{} of {}", policy.threshold, policy.signers.join(", "));
                table.row(vec![
                    cell(&policy.name),
                    cell(&policy.workflow),
                    cell(word(&policy.mode)),
                    cell(signers),
                    cell(&policy.created_by),
                    cell(time::exact(policy.created_at)),
                ]);
            }
            output::line(&table.to_string())?;
        }
    }
    Ok(())
}

fn describe(global: &Global, named: &str) -> anyhow::Result<()> {
    let policy = get(&Client::new(global)?, named)
        .with_context(|| format!("failed to show the trust policy {named:?}"))?;
    show(global, &policy)
}

fn delete(global: &Global, named: &str) -> anyhow::Result<()> {
    confirm::deletion(global, || {
        Ok(format!(
            "Delete the trust policy {named:?}? What it refuses is then left to the next less specific policy, or accepted."
        ))
    })?;
    let policy: TrustPolicy = Client::new(global)?
        .call(&Call::delete(&["trust-policies", named]))
        .with_context(|| format!("failed to delete the trust policy {named:?}"))?;
    global.info(&format!("trust policy {:?} deleted", policy.name));
    if global.output == Format::Json {
        output::json(&policy)?;
    }
    Ok(())
}

fn show(global: &Global, policy: &TrustPolicy) -> anyhow::Result<()> {
    if global.output == Format::Json {
        return output::json(policy);
    }
    let mut table = Table::titled("Trust policy", &[]);
    let mut row = |name: &str, text: &str| table.row(vec![cell(name), cell(text)]);
    row("NAME", &policy.name);
    row("ID", &policy.id);
    row("WORKFLOW", &policy.workflow);
    row("MODE", &word(&policy.mode));
    row("THRESHOLD", &policy.threshold.to_string());
    row("CREATED BY", &policy.created_by);
    row("CREATED", &time::exact(policy.created_at));
    output::line(&table.to_string())?;
    if policy.signers.is_empty() {
        return Ok(());
    }
    let mut table = Table::titled("Signers", &["NAME", "KIND", "KNOWN BY"]);
    for signer in &policy.signers {
        let (kind, known) = match signer {
            Signer::Key { pem, .. } => ("key", pem_digest(pem)),
            Signer::Kms { arn, pem, .. } => ("kms", format!("{arn}\n{}", pem_digest(pem))),
            Signer::Keyless {
                issuer, identity, ..
            } => ("keyless", format!("{issuer}\n{}", Rule(identity))),
            Signer::Chainloop { organization, .. } => ("chainloop", organization.clone()),
        };
        table.row(vec![cell(signer.name()), cell(kind), cell(known)]);
    }
    output::line(&table.to_string())
}

/// A PEM by the beginning of its digest; `-o json` has the whole.
pub(crate) fn pem_digest(pem: &str) -> String {
    format!("PEM {}", &Digest::of(pem.as_bytes()).hex()[..SHORT_DIGEST])
}

/// An identity rule as it is written.
pub(crate) struct Rule<'a>(pub(crate) &'a Identity);

impl fmt::Display for Rule<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Identity::Exact(text) | Identity::Glob(text) => formatter.write_str(text),
            Identity::Prefix(text) => write!(formatter, "{text}…"),
        }
    }
}

/// A verdict with its signers and its policy.
pub(crate) fn shown(verdict: Option<&Verdict>) -> Cell {
    let Some(verdict) = verdict else {
        return cell("not judged: no trust policy asked for it");
    };
    let mut lines = vec![verdict.to_string()];
    for signer in &verdict.signers {
        lines.push(format!("{}: {}", signer.name, signer.proof));
    }
    let policy = verdict.policy.split('@').next().unwrap_or_default();
    lines.push(format!("by trust policy {policy}"));
    coloured(verdict.outcome, lines.join("\n"))
}

/// A verdict's outcome alone.
pub(crate) fn outcome(verdict: Option<&Verdict>) -> Cell {
    match verdict {
        None => cell("-"),
        Some(verdict) => coloured(verdict.outcome, verdict.outcome.to_string()),
    }
}

fn coloured(outcome: Outcome, text: String) -> Cell {
    let cell = cell(text);
    match outcome {
        Outcome::Verified => paint(cell, Color::Green),
        Outcome::Invalid => paint(cell, Color::Red),
        Outcome::Unverifiable | Outcome::UnknownSigner => paint(cell, Color::Yellow),
        Outcome::Off => cell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyless_identity_with_a_star_is_a_glob_and_any_other_is_exact() {
        let identity = |text: &str| match keyless(text).unwrap() {
            Signer::Keyless { identity, .. } => identity,
            other => panic!("{other:?}"),
        };
        let exact = identity("ci=https://issuer.example.org,https://github.com/acme/shop");
        assert_eq!(
            exact,
            Identity::Exact("https://github.com/acme/shop".into())
        );
        let glob = identity("ci=https://issuer.example.org,https://github.com/acme/**");
        assert_eq!(glob, Identity::Glob("https://github.com/acme/**".into()));
    }

    #[test]
    fn a_signer_that_is_not_whole_is_refused_with_what_is_missing() {
        assert_eq!(key("@a.pub").unwrap_err(), "has no `=` behind the name");
        assert_eq!(key("a=a.pub").unwrap_err(), "must be a file, as @FILE");
        assert_eq!(kms("a=arn").unwrap_err(), "has no `,@FILE` at its end");
        assert_eq!(
            keyless("a=https://issuer.example.org").unwrap_err(),
            "has no `,` behind the issuer"
        );
    }
}
