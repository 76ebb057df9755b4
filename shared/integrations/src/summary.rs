//! Summary of an attestation for notifications: its workflow, the verdict of its policies, its materials, and links
//! to read on.
//!
//! The summary holds everything that Chainloop's notifications show, and the policies' verdict. It goes to chats and
//! mailboxes with many readers. So addresses of people and the contents of materials stay out unless an operator asks
//! for them, and no text is longer than a reader reads.

use std::fmt::Write as _;

use api::trust::Outcome;
use attestation::{Material, MaterialType, Policy, PolicyStatus, Predicate};
use serde::Serialize;

use crate::{Pushed, Workflow, facts, text};

/// Details that an operator may add to a summary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Detail {
    /// Texts in full, and files that travel in the attestation.
    pub inline_content: bool,
    /// Mail addresses as they are.
    pub emails: bool,
}

/// Content of a notification. All text is on one line, without control characters, and no longer than may be shown.
/// The sender escapes it for its destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// `New attestation of shop/nightly-build`
    pub title: String,
    /// Result of the policies, and what is wrong with the signatures, in a sentence without a full stop.
    pub verdict: String,
    /// The same in Chainloop's word, as in `BLOCKED`: for a colour or an icon.
    pub status: &'static str,
    /// The five to ten facts that fit on a card.
    pub facts: Vec<Row>,
    /// The workflow, its run, annotations, policies and what they found, each where there is any.
    pub sections: Vec<Section>,
    pub materials: Vec<Evidence>,
    /// Number of materials left out of `materials`.
    pub materials_left_out: usize,
    pub variables: Vec<Row>,
    /// Web pages to go to.
    pub links: Vec<Link>,
    /// The command that shows more, and the page that does.
    pub command: String,
    pub page: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    pub label: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    pub title: &'static str,
    pub rows: Vec<Row>,
}

/// A material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Name, type, value and digest, each where there is one.
    pub rows: Vec<Row>,
    pub annotations: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    pub label: &'static str,
    /// http or https
    pub url: String,
}

// How much is said, in characters and in things. Together they bound a summary at some megabytes, whatever
// the attestation; `text` then takes what fits.
const LABEL: usize = 100;
const VALUE: usize = 300;
const STRING: usize = 100;
const CONTENT: usize = 4_000;
const MATERIALS: usize = 200;
const ROWS: usize = 100;

/// Stands above the command at the end.
const FOOTER: &str = "Get Full Attestation";

impl Summary {
    pub fn of(pushed: Pushed<'_>, detail: &Detail) -> Self {
        let Pushed {
            attestation,
            workflow,
            ..
        } = pushed;
        let none = Predicate::default();
        let predicate = attestation.predicate().unwrap_or(&none);
        let say = Say { detail: *detail };
        let materials = &predicate.materials;
        let link = facts::link(predicate);
        // An address cannot be taken out of a link without breaking it.
        let whole = say.line(&link, usize::MAX) == link;
        let links = [("View the run", link)]
            .into_iter()
            .filter(|(_, url)| whole && !url.is_empty());
        Self {
            title: say.title(workflow),
            verdict: verdict(&predicate.policy) + doubt(pushed),
            status: predicate.policy.status().as_str(),
            facts: say.facts(pushed, predicate),
            sections: say.sections(pushed, predicate),
            materials: materials
                .iter()
                .take(MATERIALS)
                .map(|one| say.evidence(one))
                .collect(),
            materials_left_out: materials.len().saturating_sub(MATERIALS),
            variables: say.pairs(predicate.env.iter()),
            links: links.map(|(label, url)| Link { label, url }).collect(),
            command: format!("chainloop attestation describe {}", attestation.received),
            page: pushed.page(),
        }
    }

    /// The last lines of every rendering.
    pub fn footer(&self) -> String {
        let page = self.page.iter().map(|page| format!("\n\n{page}"));
        format!("{FOOTER}\n\n$ {}{}", self.command, page.collect::<String>())
    }

    /// All of it as plain text in at most `max_bytes`, the footer included and always whole: where there is no
    /// room for the rest, whole lines are left out, and the last one says how many.
    pub fn text(&self, max_bytes: usize) -> String {
        let footer = self.footer();
        // With the line that says what was cut, and its number.
        let room = max_bytes
            .saturating_sub(footer.len() + 1 + "… (cut, 18446744073709551615 more lines)\n".len());
        let mut text = String::new();
        let mut lines = self.lines();
        for line in lines.by_ref() {
            let before = text.len();
            line.write(&mut text);
            if text.len() > room {
                text.truncate(before);
                let more = 1 + lines.count();
                let _ = writeln!(
                    text,
                    "… (cut, {more} more {})",
                    if more == 1 { "line" } else { "lines" }
                );
                break;
            }
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text + &footer
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let head = [Line::Text(&self.title), Line::Text(&self.verdict)];
        let sections = self
            .sections
            .iter()
            .flat_map(|section| block(section.title, &section.rows, 0));
        let materials = self
            .materials
            .iter()
            .enumerate()
            .flat_map(|(at, evidence)| {
                let title = if at == 0 { "Materials" } else { "" };
                let annotations = !evidence.annotations.is_empty();
                let heading = annotations.then_some(Line::Text("  Annotations"));
                block(title, &evidence.rows, 0)
                    .chain(heading)
                    .chain(rows(&evidence.annotations, 2))
            });
        let left_out = (self.materials_left_out > 0).then_some(Line::More(self.materials_left_out));
        head.into_iter()
            .chain(sections)
            .chain(materials)
            .chain(left_out)
            .chain(block("Environment Variables", &self.variables, 0))
    }
}

/// A line of the text, not written yet: those that are cut need only be counted.
enum Line<'a> {
    Text(&'a str),
    Row {
        row: &'a Row,
        indent: usize,
        width: usize,
    },
    More(usize),
}

/// An empty line, a title, and rows.
fn block<'a>(title: &'a str, all: &'a [Row], indent: usize) -> impl Iterator<Item = Line<'a>> {
    let title = Some(title)
        .filter(|title| !title.is_empty())
        .map(Line::Text);
    let head = [Some(Line::Text("")), title].into_iter().flatten();
    head.take(if all.is_empty() { 0 } else { 2 })
        .chain(rows(all, indent))
}

/// Rows whose values stand below each other, as far as a long label allows.
fn rows(rows: &[Row], indent: usize) -> impl Iterator<Item = Line<'_>> {
    const WIDEST: usize = 40;
    let widths = rows.iter().map(|row| row.label.chars().count());
    let width = widths
        .filter(|width| *width <= WIDEST)
        .max()
        .unwrap_or_default();
    rows.iter().map(move |row| Line::Row { row, indent, width })
}

impl Line<'_> {
    fn write(&self, text: &mut String) {
        let _ = match self {
            Self::Text(line) => writeln!(text, "{line}"),
            Self::Row { row, indent, width } => {
                let indent = indent + 2;
                writeln!(text, "{:indent$}{:width$}  {}", "", row.label, row.value)
            }
            Self::More(count) => writeln!(text, "\n  … {count} more"),
        };
    }
}

/// Wording of the texts, with the detail that an operator asked for.
struct Say {
    detail: Detail,
}

impl Say {
    fn line(&self, text: &str, most: usize) -> String {
        text::line(text, most, self.detail.emails)
    }

    /// A row, if there is a value for it.
    fn row(&self, label: &str, value: &str) -> Option<Row> {
        self.row_of(label, value, VALUE)
    }

    fn row_of(&self, label: &str, value: &str, most: usize) -> Option<Row> {
        let (label, value) = (self.line(label, LABEL), self.line(value, most));
        (!value.is_empty()).then_some(Row { label, value })
    }

    fn pairs<'a>(&self, all: impl ExactSizeIterator<Item = (&'a String, &'a String)>) -> Vec<Row> {
        let more = all.len().saturating_sub(ROWS);
        let row = |(label, value): (&String, &String)| Row {
            label: self.line(label, LABEL),
            value: self.line(value, VALUE),
        };
        all.take(ROWS).map(row).chain(left_out(more)).collect()
    }

    fn title(&self, workflow: &Workflow) -> String {
        let (project, name) = (
            self.line(&workflow.project, LABEL),
            self.line(&workflow.name, LABEL),
        );
        match (project.as_str(), name.as_str()) {
            ("", "") => "New attestation".to_owned(),
            ("", name) => format!("New attestation of {name}"),
            (project, name) => format!("New attestation of {project}/{name}"),
        }
    }

    fn facts(&self, pushed: Pushed<'_>, predicate: &Predicate) -> Vec<Row> {
        let Pushed {
            attestation,
            workflow,
            ..
        } = pushed;
        let run = &predicate.metadata;
        let count = predicate.materials.len();
        let rows = [
            self.row("Project", &workflow.project),
            self.row("Workflow", &workflow.name),
            self.row("Version", &run.project_version),
            self.row("Branch", facts::branch(attestation)),
            self.row("Team", &run.team),
            self.row("Policies", predicate.policy.status().as_str()),
            self.row("Signatures", &signatures(pushed)),
            self.row("Materials", &count.to_string()),
            self.row("Finished At", &time(&run.finished_at)),
            self.row("Attestation", &attestation.received.to_string()),
        ];
        rows.into_iter().flatten().collect()
    }

    fn sections(&self, pushed: Pushed<'_>, predicate: &Predicate) -> Vec<Section> {
        let Pushed {
            attestation,
            workflow,
            ..
        } = pushed;
        let run = &predicate.metadata;
        let of_workflow = [
            self.row("ID", &workflow.id),
            self.row("Name", &workflow.name),
            self.row("Team", &run.team),
            self.row("Project", &workflow.project),
            self.row("Version", &run.project_version),
            self.row("Branch", facts::branch(attestation)),
        ];
        let of_run = [
            self.row("ID", &run.workflow_run_id),
            self.row("Attestation", &attestation.received.to_string()),
            self.row("Type", &attestation.statement.predicate_type),
            self.row("Started At", &time(&run.initialized_at)),
            self.row("Finished At", &time(&run.finished_at)),
            self.row("State", facts::STATE),
            self.row("Runner", &predicate.runner_type),
            self.row("Runner Link", &predicate.runner_url),
        ];
        let all = [
            ("Workflow", of_workflow.into_iter().flatten().collect()),
            ("Workflow Run", of_run.into_iter().flatten().collect()),
            ("Signatures", self.signatures(pushed)),
            ("Annotations", self.pairs(predicate.annotations.iter())),
            ("Policies", self.policies(&predicate.policy)),
            ("Violations", self.violations(&predicate.policy)),
        ];
        let all = all.into_iter().filter(|(_, rows)| !rows.is_empty());
        all.map(|(title, rows)| Section { title, rows }).collect()
    }

    fn signatures(&self, pushed: Pushed<'_>) -> Vec<Row> {
        let verdict = self.row("Verdict", &signatures(pushed));
        let signers = pushed.signers().iter();
        let signers = signers.filter_map(|one| self.row(&one.name, &one.proof.to_string()));
        verdict.into_iter().chain(signers).collect()
    }

    fn policies(&self, policy: &Policy) -> Vec<Row> {
        let count = |label, count: u64| (count > 0).then(|| self.row(label, &count.to_string()))?;
        let rows = [
            self.row("Status", policy.status().as_str()),
            count("Evaluations", policy.evaluations),
            count("Passed", policy.passed),
            count("Skipped", policy.skipped),
            count("Violations", policy.violations),
            count("Suppressed", policy.suppressed),
        ];
        rows.into_iter().flatten().collect()
    }

    fn violations(&self, policy: &Policy) -> Vec<Row> {
        let row = |violation: &attestation::Violation| {
            let (policy, material) = (
                self.line(&violation.policy, LABEL),
                self.line(&violation.material, LABEL),
            );
            let label = match (policy.is_empty(), material.is_empty()) {
                (true, _) => material,
                (false, true) => policy,
                (false, false) => format!("{policy} ({material})"),
            };
            let value = self.line(&violation.message, VALUE);
            Row { label, value }
        };
        let all = usize::try_from(policy.violations).unwrap_or(usize::MAX);
        // Where they lie elsewhere, the count is all there is to say.
        let more = match policy.found.len() {
            0 => 0,
            shown => all.saturating_sub(shown),
        };
        policy.found.iter().map(row).chain(left_out(more)).collect()
    }

    fn evidence(&self, material: &Material) -> Evidence {
        let digest = material.digest.map(|digest| digest.to_string());
        let rows = [
            self.row("Name", &material.name),
            self.row("Type", material.kind.as_str()),
            self.value(material),
            digest.and_then(|digest| self.row("Digest", &digest)),
        ];
        Evidence {
            rows: rows.into_iter().flatten().collect(),
            annotations: self.pairs(material.annotations.iter()),
        }
    }

    fn value(&self, material: &Material) -> Option<Row> {
        if material.kind == MaterialType::STRING {
            let most = if self.detail.inline_content {
                CONTENT
            } else {
                STRING
            };
            return self.row_of("Value", &material.value, most);
        }
        let content = material
            .content
            .as_deref()
            .filter(|_| self.detail.inline_content);
        if let Some(Ok(content)) = content.map(str::from_utf8) {
            return self.row_of("Value", content, CONTENT);
        }
        self.row("Value", &format!("{}{}", material.filename, material.value))
    }
}

fn left_out(more: usize) -> Option<Row> {
    (more > 0).then(|| Row {
        label: "…".to_owned(),
        value: format!("{more} more"),
    })
}

fn verdict(policy: &Policy) -> String {
    let count = |count: u64, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    let evaluations = count(policy.evaluations, "policy evaluation");
    let violations = match policy.violations {
        0 => format!("violations in {evaluations}"),
        some => format!("{} in {evaluations}", count(some, "violation")),
    };
    match policy.status() {
        PolicyStatus::NotApplicable => "No policy was evaluated".to_owned(),
        PolicyStatus::Skipped => format!("Passed: {} of {evaluations} skipped", policy.skipped),
        PolicyStatus::Warning => format!("Warning: {violations}"),
        PolicyStatus::Blocked => format!("Blocked: {violations}"),
        PolicyStatus::Bypassed if policy.has_violations => format!("Let through: {violations}"),
        PolicyStatus::Passed | PolicyStatus::Bypassed => {
            format!("Passed: no violations in {evaluations}")
        }
    }
}

/// The verdict on its signatures in a line; empty where nothing was judged.
fn signatures(pushed: Pushed<'_>) -> String {
    pushed.judged().map(ToString::to_string).unwrap_or_default()
}

/// Addition to the policies' verdict for signatures that were judged and are not verified: what an attestation says of its
/// policies is then nobody's word.
fn doubt(pushed: Pushed<'_>) -> &'static str {
    match pushed.outcome() {
        Outcome::Off | Outcome::Verified => "",
        Outcome::UnknownSigner => "; signed by nobody known",
        Outcome::Unverifiable => "; its signatures cannot be verified",
        Outcome::Invalid => "; its signatures are invalid",
    }
}

/// `2023-06-23 13:00 UTC`, or the text as it is where it is no time.
fn time(text: &str) -> String {
    text.parse::<jiff::Timestamp>().map_or_else(
        |_| text.to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use api::trust::Code;
    use attestation::Attestation;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{Stage, compare};

    const STATEMENT: &str = include_str!("../tests/files/statement.json");
    const ALL: Detail = Detail {
        inline_content: true,
        emails: true,
    };

    fn summary(statement: &str, detail: Detail) -> Summary {
        let stage = Stage::of(statement);
        Summary::of(stage.pushed(), &detail)
    }

    fn text(statement: &str, detail: Detail) -> String {
        summary(statement, detail).text(1 << 20)
    }

    #[test]
    fn a_summary_says_this() {
        let summary = summary(STATEMENT, Detail::default());
        compare("summary.txt", &summary.text(usize::MAX));
        compare(
            "summary.json",
            &(serde_json::to_string_pretty(&summary).unwrap() + "\n"),
        );
    }

    #[test]
    fn it_tells_the_verdict_on_signatures_and_doubts_what_nobody_known_signed() {
        let said = |code: Code, detail: Detail| {
            let stage = Stage::new().judged(code);
            Summary::of(stage.pushed(), &detail)
        };
        let verified = said(Code::ThresholdReached, Detail::default());
        let plain = summary(STATEMENT, Detail::default());
        assert_eq!(verified.verdict, plain.verdict);
        let shown = verified.facts.iter().find(|row| row.label == "Signatures");
        assert_eq!(shown.unwrap().value, "verified: release, ci");
        let text = verified.text(1 << 20);
        let section = "Signatures\n  Verdict  verified: release, ci\n  release  key sha256:";
        assert!(text.contains(section), "{text}");
        assert!(
            text.contains("ci       …@example.org, by https://issuer.example.org"),
            "{text}"
        );
        for (code, doubt) in [
            (Code::NoConfiguredSigner, "; signed by nobody known"),
            (
                Code::CertificateMissing,
                "; its signatures cannot be verified",
            ),
            (Code::SignatureMismatch, "; its signatures are invalid"),
        ] {
            let told = said(code, Detail::default());
            assert_eq!(told.verdict, format!("{}{doubt}", plain.verdict));
            assert!(told.text(1 << 20).contains(code.sentence()));
        }
        assert!(!plain.text(1 << 20).contains("Signatures"));
    }

    #[test]
    fn it_has_every_fact_of_chainloops_own() {
        let Some(samples) = std::env::var_os("SAMPLES_DIR").map(PathBuf::from) else {
            // Not `println!`, whose text is shown of failed tests only.
            let test = std::thread::current();
            let test = test.name().unwrap_or_default();
            let line = format!("did not run: {test} (SAMPLES_DIR is not set)\n");
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
            return;
        };
        let read =
            |name: &str| std::fs::read_to_string(samples.join("attestations").join(name)).unwrap();
        // The golden text has a made-up workflow around the sample; what the sample lacks is added to it.
        let sample = Attestation::parse(read("chainloop-summary-full.json").as_bytes()).unwrap();
        let mut statement: Value = serde_json::from_slice(&sample.envelope.payload).unwrap();
        statement["predicate"]["metadata"]["team"] = json!("test-team");
        statement["predicate"]["runnerURL"] = json!("chainloop.dev/runner");
        let mut stage = Stage::of(&statement.to_string());
        stage.workflow.id = "5e34b34f-882c-48b8-84c0-4f238e15a5fd".to_owned();
        let digest = stage.attestation.received.to_string();
        let ours = [
            ("deadbeef", "5e34b34f-882c-48b8-84c0-4f238e15a5fd"),
            ("test-workflow", "nightly-build"),
            ("test-project", "shop"),
            ("beefdead", "a17ca216-29b6-4107-b3fc-9256f7af2fe6"),
            ("sha256:deadbeef", &digest),
            ("22 Nov 21 00:00 UTC", "2023-06-23 13:00 UTC"),
            ("22 Nov 21 00:10 UTC", "2023-06-23 13:00 UTC"),
        ];
        let text = Summary::of(stage.pushed(), &ALL).text(1 << 20);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let golden = read("chainloop-summary-full.txt");
        let mut checked = 0;
        for cells in golden.lines().filter(|line| line.starts_with('│')) {
            let cells: Vec<&str> = cells.trim_matches('│').split('│').map(str::trim).collect();
            let (label, value) = match cells[..] {
                [title] => (title, ""),
                ["NAME", "VALUE"] => continue,
                [label, "------" | ""] => (label, ""),
                ["", annotation] => annotation.split_once(": ").unwrap(),
                [label, value] => (label, value),
                _ => panic!("{cells:?}"),
            };
            let replaced = ours.iter().find(|(theirs, _)| *theirs == value);
            let value = replaced.map_or(value, |(_, ours)| ours);
            let expected: Vec<&str> = label
                .split_whitespace()
                .chain(value.split_whitespace())
                .collect();
            assert!(
                lines.contains(&expected),
                "{label} {value} is not in\n{text}"
            );
            checked += 1;
        }
        assert!(checked > 40, "{checked}");
        assert!(golden.contains(FOOTER) && text.contains(FOOTER));
        let masked = Summary::of(stage.pushed(), &Detail::default()).text(1 << 20);
        assert!(masked.contains("…@chainloop.dev") && !masked.contains("john-c"));
    }

    #[test]
    fn only_whole_lines_are_cut_and_the_footer_stays() {
        let summary = summary(STATEMENT, Detail::default());
        let whole = summary.text(usize::MAX);
        let body: Vec<&str> = whole
            .strip_suffix(&summary.footer())
            .unwrap()
            .trim_end()
            .lines()
            .collect();
        for most in summary.footer().len() + 64..whole.len() + 80 {
            let cut = summary.text(most);
            assert!(cut.len() <= most, "{most}");
            let rest = cut.strip_suffix(&summary.footer()).unwrap();
            let mut lines: Vec<&str> = rest.trim_end().lines().collect();
            if lines != body {
                let last = lines.pop().unwrap();
                let more = body.len() - lines.len();
                assert!(
                    last.starts_with(&format!("… (cut, {more} more line")),
                    "{last}"
                );
                assert_eq!(lines, body[..lines.len()]);
            }
        }
        assert!(summary.text(0).ends_with(&summary.footer()));
    }

    #[test]
    fn contents_and_addresses_are_told_when_they_are_asked_for() {
        let long = base64_simd::STANDARD.encode_to_string("word ".repeat(99));
        let statement = STATEMENT
            .replace("aGVsbG8=", &long)
            .replace("\"Linux\"", "\"<dev@example.org>\"");
        let (little, all) = (text(&statement, Detail::default()), text(&statement, ALL));
        assert!(
            little.contains("word…\n") || little.contains("wor…\n") || little.contains("word …\n"),
            "{little}"
        );
        assert!(all.contains(&"word ".repeat(99).trim_end().to_owned()));
        assert!(
            little.contains("Value   lint.sarif") && all.contains("Value   {}"),
            "{all}"
        );
        assert!(little.contains("<…@example.org>") && all.contains("<dev@example.org>"));
    }

    #[test]
    fn a_verdict_is_what_the_policies_came_to() {
        let predicate = |policy: &str| {
            let statement: Value = serde_json::from_str(STATEMENT).unwrap();
            let mut statement = statement;
            let predicate = statement["predicate"].as_object_mut().unwrap();
            predicate.retain(|key, _| !key.starts_with("policy"));
            let policy: Value = serde_json::from_str(policy).unwrap();
            predicate.extend(policy.as_object().unwrap().clone());
            statement.to_string()
        };
        for (policy, verdict) in [
            ("{}", "No policy was evaluated"),
            (
                r#"{"policyEvaluationsCount":3}"#,
                "Passed: no violations in 3 policy evaluations",
            ),
            (
                r#"{"policyEvaluationsCount":3,"policySkippedCount":1}"#,
                "Passed: 1 of 3 policy evaluations skipped",
            ),
            (
                r#"{"policyEvaluationsCount":1,"policyHasViolations":true}"#,
                "Warning: violations in 1 policy evaluation",
            ),
            (
                r#"{"policyEvaluationsCount":3,"policyViolationsCount":2,"policyHasViolations":true,"policyCheckBlockingStrategy":"ENFORCED"}"#,
                "Blocked: 2 violations in 3 policy evaluations",
            ),
            (
                r#"{"policyEvaluationsCount":3,"policyViolationsCount":1,"policyHasViolations":true,"policyHasGatedViolations":true,"policyBlockBypassEnabled":true}"#,
                "Let through: 1 violation in 3 policy evaluations",
            ),
        ] {
            assert_eq!(summary(&predicate(policy), ALL).verdict, verdict);
        }
    }

    #[test]
    fn a_link_is_a_web_page_or_none() {
        let url = |url: &str| {
            let statement = STATEMENT.replace("https://ci.example.org/runs/77", url);
            summary(&statement, Detail::default())
                .links
                .pop()
                .map(|link| link.url)
        };
        assert_eq!(
            url("https://ci.example.org/1").as_deref(),
            Some("https://ci.example.org/1")
        );
        for other in [
            "",
            "javascript:alert(1)",
            "ci.example.org/1",
            "https://u:p@example.org/",
            "https://example.org/?by=dev@example.org",
            &format!("https://example.org/{}", "x".repeat(2_000)),
        ] {
            assert_eq!(url(other), None);
        }
    }

    #[test]
    fn a_hostile_attestation_makes_a_small_and_plain_text() {
        let mut statement: Value = serde_json::from_str(STATEMENT).unwrap();
        let hostile = format!(
            "a\r\n\u{202e}\u{1b}[2J\u{0}@everyone {}",
            "x".repeat(1 << 20)
        );
        statement["predicate"]["annotations"]["environment"] = json!(hostile);
        statement["predicate"]["annotations"][&hostile[..999]] = json!("b");
        statement["predicate"]["env"]["RUNNER_OS"] = json!(hostile);
        statement["predicate"]["runnerURL"] = json!(format!("https://example.org/{hostile}"));
        statement["predicate"]["policyEvaluations"]["sbom"][0]["violations"][0]["message"] =
            json!(hostile);
        let mut material = statement["predicate"]["materials"][2].clone();
        material["name"] = json!(&hostile[..9999]);
        statement["predicate"]["materials"] = json!(vec![material; 1000]);
        let stage = Stage::of(&statement.to_string());
        let started = std::time::Instant::now();
        for detail in [Detail::default(), ALL] {
            let summary = Summary::of(stage.pushed(), &detail);
            assert_eq!(
                (summary.materials.len(), summary.materials_left_out),
                (200, 800)
            );
            for most in [500, 4_000, 1 << 20] {
                let text = summary.text(most);
                assert!(text.len() <= most);
                assert!(
                    !text.contains(|letter: char| letter != '\n'
                        && (letter.is_control() || letter == '\u{202e}'))
                );
                assert!(text.lines().all(|line| line.chars().count() < 600));
            }
        }
        assert!(started.elapsed().as_secs() < 5);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_or_too_long(text in any::<String>(), most in 300usize..3_000) {
            let mut statement: Value = serde_json::from_str(STATEMENT).unwrap();
            statement["predicate"]["annotations"][&text] = json!(text);
            statement["predicate"]["metadata"]["finishedAt"] = json!(text);
            let mut stage = Stage::of(&statement.to_string());
            stage.workflow.name = text;
            let summary = Summary::of(stage.pushed(), &Detail::default());
            prop_assert!(!summary.title.contains(char::is_control));
            prop_assert!(summary.text(most).len() <= most);
        }
    }
}
