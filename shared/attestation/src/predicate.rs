//! Chainloop's predicate, v0.2: the workflow run, its materials, and the verdict of its policies.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{Count, Object, Objects, Strings, Sum, Summed, SummedMap, Text, owned};
use crate::{Error, MAX_MATERIALS, Material, material, scan};

/// Description of a workflow run by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Predicate {
    pub metadata: Metadata,
    pub builder_id: String,
    pub build_type: String,
    pub runner_type: String,
    pub runner_url: String,
    pub annotations: BTreeMap<String, String>,
    pub env: BTreeMap<String, String>,
    pub materials: Vec<Material>,
    /// Number of list entries that are not materials by Chainloop's rules and so are missing from `materials`.
    pub materials_dropped: usize,
    pub policy: Policy,
}

/// Identity of a run and its workflow. All values are as sent, and empty where nothing was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    pub name: String,
    pub project: String,
    pub project_version: String,
    pub team: String,
    pub initialized_at: String,
    pub finished_at: String,
    pub workflow_run_id: String,
    pub workflow_id: String,
    pub workflow_name: String,
    pub organization: String,
    pub contract_name: String,
    pub contract_version: String,
}

impl Metadata {
    /// The name of the workflow, which older documents have only under `name`.
    pub fn workflow(&self) -> &str {
        if self.workflow_name.is_empty() {
            &self.name
        } else {
            &self.workflow_name
        }
    }

    /// Each field under its name in JSON, to read and to write by.
    pub(crate) fn fields(&mut self) -> [(&'static str, &mut String); 12] {
        [
            ("name", &mut self.name),
            ("project", &mut self.project),
            ("projectVersion", &mut self.project_version),
            ("team", &mut self.team),
            ("initializedAt", &mut self.initialized_at),
            ("finishedAt", &mut self.finished_at),
            ("workflowRunID", &mut self.workflow_run_id),
            ("workflowID", &mut self.workflow_id),
            ("workflowName", &mut self.workflow_name),
            ("organization", &mut self.organization),
            ("contractName", &mut self.contract_name),
            ("contractVersion", &mut self.contract_version),
        ]
    }
}

impl From<Strings> for Metadata {
    fn from(Strings(mut strings): Strings) -> Metadata {
        let mut metadata = Metadata::default();
        for (key, field) in metadata.fields() {
            *field = strings.remove(key).unwrap_or_default();
        }
        metadata
    }
}

/// Results of the policies, in counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the wire has them, one by one, and `status` is their sum"
)]
pub struct Policy {
    pub evaluations: u64,
    pub violations: u64,
    pub skipped: u64,
    pub passed: u64,
    pub suppressed: u64,
    pub has_violations: bool,
    pub has_gated_violations: bool,
    pub has_gates: bool,
    pub strategy: Strategy,
    /// Someone chose to let the run through whatever is found.
    pub bypassed: bool,
    /// The run was stopped.
    pub blocked: bool,
    /// The first of what was found, where the document says it: its newer form only points to where it lies.
    pub found: Vec<Violation>,
}

/// Something that a policy found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violation {
    /// The policy's name.
    pub policy: String,
    /// The material's name; empty where the attestation itself was looked at.
    pub material: String,
    pub message: String,
}

/// Maximum number of violations kept. The attestation has them all.
const MAX_FOUND: usize = 50;
/// Maximum number of characters kept of each text of a violation.
const MAX_FOUND_CHARS: usize = 300;
/// Key of the attestation's own evaluations, beside the keys of the materials.
const OF_ATTESTATION: &str = "CHAINLOOP.ATTESTATION";

/// Effect of a violation: it stops the run or is only reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    #[default]
    Advisory,
    Enforced,
}

/// All of it in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyStatus {
    NotApplicable,
    Bypassed,
    Blocked,
    Warning,
    Skipped,
    Passed,
}

impl Policy {
    /// The first that applies, as Chainloop's own pages decide it.
    pub fn status(&self) -> PolicyStatus {
        let stops = self.has_gated_violations || self.strategy == Strategy::Enforced;
        if self.evaluations == 0 {
            PolicyStatus::NotApplicable
        } else if stops && self.bypassed {
            PolicyStatus::Bypassed
        } else if stops && self.has_violations {
            PolicyStatus::Blocked
        } else if self.has_violations {
            PolicyStatus::Warning
        } else if self.skipped > 0 {
            PolicyStatus::Skipped
        } else {
            PolicyStatus::Passed
        }
    }
}

impl PolicyStatus {
    /// Chainloop's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyStatus::NotApplicable => "NOT_APPLICABLE",
            PolicyStatus::Bypassed => "BYPASSED",
            PolicyStatus::Blocked => "BLOCKED",
            PolicyStatus::Warning => "WARNING",
            PolicyStatus::Skipped => "SKIPPED",
            PolicyStatus::Passed => "PASSED",
        }
    }
}

impl std::fmt::Display for PolicyStatus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.as_str())
    }
}

// Each policy field that has a second spelling had it in an older release.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Wire<'a> {
    metadata: Option<Strings>,
    builder: Option<Strings>,
    #[serde(borrow)]
    build_type: Option<Text<'a>>,
    #[serde(borrow)]
    runner_type: Option<Text<'a>>,
    #[serde(borrow, rename = "runnerURL")]
    runner_url: Option<Text<'a>>,
    annotations: Option<Strings>,
    env: Option<Strings>,
    #[serde(borrow)]
    materials: Option<Objects<material::Wire<'a>, MAX_MATERIALS>>,
    #[serde(borrow, alias = "policy_evaluations")]
    policy_evaluations: Option<&'a RawValue>,
    policy_evaluations_count: Option<Count>,
    policy_violations_count: Option<Count>,
    policy_skipped_count: Option<Count>,
    policy_passed_count: Option<Count>,
    policy_suppressed_count: Option<Count>,
    #[serde(alias = "policy_has_violations")]
    policy_has_violations: Option<bool>,
    policy_has_gated_violations: Option<bool>,
    policy_has_gates: Option<bool>,
    #[serde(borrow, alias = "policy_check_blocking_strategy")]
    policy_check_blocking_strategy: Option<Text<'a>>,
    #[serde(alias = "policy_block_bypass_enabled")]
    policy_block_bypass_enabled: Option<bool>,
    #[serde(alias = "policy_attestation_blocked")]
    policy_att_blocked: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Evaluation<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow, rename = "materialName", alias = "material_name")]
    material: Option<&'a RawValue>,
    #[serde(borrow)]
    violations: Option<Summed<Finding<'a>, Findings<'a>>>,
    skipped: bool,
    gate: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Finding<'a> {
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    suppress: bool,
}

/// Findings of an evaluation.
#[derive(Default)]
struct Findings<'a> {
    standing: u64,
    suppressed: u64,
    /// The messages of the first that stand.
    first: Vec<Option<&'a RawValue>>,
}

impl<'a> Sum<Finding<'a>> for Findings<'a> {
    fn add(&mut self, finding: Finding<'a>) {
        if finding.suppress {
            self.suppressed += 1;
            return;
        }
        self.standing += 1;
        if self.first.len() < MAX_FOUND {
            self.first.push(finding.message);
        }
    }
}

impl Sum<Evaluation<'_>> for Policy {
    fn add(&mut self, evaluation: Evaluation<'_>) {
        let violations = evaluation.violations.unwrap_or_default().0;
        let is_violated = violations.standing > 0;
        self.evaluations += 1;
        self.skipped += u64::from(evaluation.skipped);
        self.passed += u64::from(!evaluation.skipped && !is_violated);
        self.violations += violations.standing;
        self.suppressed += violations.suppressed;
        self.has_gates |= evaluation.gate;
        self.has_violations |= is_violated;
        self.has_gated_violations |= evaluation.gate && is_violated;
        let left = MAX_FOUND - self.found.len();
        let first = violations.first.into_iter().take(left);
        self.found.extend(first.map(|message| Violation {
            policy: clipped(evaluation.name),
            material: clipped(evaluation.material),
            message: clipped(message),
        }));
    }
}

type EvaluationsOfOne<'a> = Option<Summed<Evaluation<'a>, Policy>>;

/// By whose they are: the name of a material, or [`OF_ATTESTATION`].
impl<'a> Sum<(Text<'a>, EvaluationsOfOne<'a>)> for Policy {
    fn add(&mut self, (of, one): (Text<'a>, EvaluationsOfOne<'a>)) {
        let one = one.unwrap_or_default().0;
        self.evaluations += one.evaluations;
        self.skipped += one.skipped;
        self.passed += one.passed;
        self.violations += one.violations;
        self.suppressed += one.suppressed;
        self.has_gates |= one.has_gates;
        self.has_violations |= one.has_violations;
        self.has_gated_violations |= one.has_gated_violations;
        let left = MAX_FOUND - self.found.len();
        self.found
            .extend(one.found.into_iter().take(left).map(|mut violation| {
                if violation.material.is_empty() && &*of != OF_ATTESTATION {
                    violation.material = crate::error::clip_at(&of, MAX_FOUND_CHARS);
                }
                violation
            }));
    }
}

/// Counts the entries that are kept of a predicate: all but the evaluations of policies, which are only summed up.
pub(crate) fn entries(json: &str) -> usize {
    #[derive(Deserialize)]
    struct Parts<'a> {
        #[serde(borrow, rename = "policyEvaluations", alias = "policy_evaluations")]
        evaluations: Option<&'a RawValue>,
    }
    let parts = serde_json::from_str::<Parts<'_>>(json).ok();
    let evaluations = parts.and_then(|parts| parts.evaluations);
    let counted = evaluations.map_or(0, |evaluations| scan::entries(evaluations.get()));
    scan::entries(json).saturating_sub(counted)
}

impl Predicate {
    pub(crate) fn parse(json: &str) -> Result<Predicate, Error> {
        let Object(wire) = serde_json::from_str::<Object<Wire<'_>>>(json)
            .map_err(|error| Error::of_json(&error, Error::PredicateInvalid))?;
        Predicate::from_wire(wire)
    }

    pub(crate) fn from_wire(wire: Wire<'_>) -> Result<Predicate, Error> {
        let policy = wire.policy();
        let listed = wire.materials.unwrap_or_default();
        if listed.count > MAX_MATERIALS {
            return Err(Error::TooManyMaterials(listed.count));
        }
        let mut materials = Vec::with_capacity(listed.count);
        for descriptor in listed.items {
            materials.extend(descriptor.normalize()?);
        }
        Ok(Predicate {
            metadata: wire.metadata.unwrap_or_default().into(),
            builder_id: wire
                .builder
                .unwrap_or_default()
                .0
                .remove("id")
                .unwrap_or_default(),
            build_type: owned(wire.build_type),
            runner_type: owned(wire.runner_type),
            runner_url: owned(wire.runner_url),
            annotations: wire.annotations.unwrap_or_default().0,
            env: wire.env.unwrap_or_default().0,
            materials_dropped: listed.count - materials.len(),
            materials,
            policy,
        })
    }
}

impl Wire<'_> {
    fn policy(&self) -> Policy {
        // Older documents have no counts, only the evaluations themselves; and where there is a count and
        // nothing was found, there is nothing to read them for.
        let counts = self.policy_evaluations_count.is_some();
        let violated = self.policy_has_violations == Some(true)
            || self
                .policy_violations_count
                .is_some_and(|Count(sent)| sent > 0);
        let mut counted = match self.policy_evaluations {
            Some(evaluations) if !counts || violated => count(evaluations),
            _ => Policy::default(),
        };
        let found = std::mem::take(&mut counted.found);
        let counted = if counts { Policy::default() } else { counted };
        let number = |sent: Option<Count>, counted| sent.map_or(counted, |Count(sent)| sent);
        let strategy = match self.policy_check_blocking_strategy.as_deref() {
            Some("ENFORCED") => Strategy::Enforced,
            _ => Strategy::Advisory,
        };
        let has_violations = self.policy_has_violations.unwrap_or(counted.has_violations);
        let has_gated_violations = self
            .policy_has_gated_violations
            .unwrap_or(counted.has_gated_violations);
        let bypassed = self.policy_block_bypass_enabled.unwrap_or(false);
        let stops = has_gated_violations || (strategy == Strategy::Enforced && has_violations);
        Policy {
            evaluations: number(self.policy_evaluations_count, counted.evaluations),
            violations: number(self.policy_violations_count, counted.violations),
            skipped: number(self.policy_skipped_count, counted.skipped),
            passed: number(self.policy_passed_count, counted.passed),
            suppressed: number(self.policy_suppressed_count, counted.suppressed),
            has_violations,
            has_gated_violations,
            has_gates: self.policy_has_gates.unwrap_or(counted.has_gates),
            strategy,
            bypassed,
            blocked: self.policy_att_blocked.unwrap_or(stops && !bypassed),
            found,
        }
    }
}

/// Counts evaluations one by one, and keeps the first of what they found. An unexpected shape counts as none: a
/// summary is not worth a refusal.
fn count(evaluations: &RawValue) -> Policy {
    type All<'a> = SummedMap<(Text<'a>, EvaluationsOfOne<'a>), Policy>;
    serde_json::from_str::<All<'_>>(evaluations.get())
        .map(|sum| sum.0)
        .unwrap_or_default()
}

/// A text that is wanted where it is one.
fn clipped(json: Option<&RawValue>) -> String {
    let text = json.and_then(|json| serde_json::from_str::<Text<'_>>(json.get()).ok());
    crate::error::clip_at(&owned(text), MAX_FOUND_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Policy {
        Predicate::parse(json).unwrap().policy
    }

    /// A name, then what holds beside one evaluation.
    #[test]
    fn the_first_status_that_applies_is_the_status() {
        let judged = Policy {
            evaluations: 1,
            ..Policy::default()
        };
        let violated = Policy {
            has_violations: true,
            ..judged.clone()
        };
        let gated = Policy {
            has_gated_violations: true,
            ..violated.clone()
        };
        let enforced = |policy: &Policy| Policy {
            strategy: Strategy::Enforced,
            ..policy.clone()
        };
        let bypassed = |policy: &Policy| Policy {
            bypassed: true,
            ..policy.clone()
        };
        for (status, policy) in [
            ("NOT_APPLICABLE", &Policy::default()),
            ("PASSED", &judged),
            ("PASSED", &enforced(&judged)),
            (
                "SKIPPED",
                &Policy {
                    skipped: 1,
                    ..judged.clone()
                },
            ),
            ("WARNING", &violated),
            ("WARNING", &bypassed(&violated)),
            ("BLOCKED", &enforced(&violated)),
            ("BLOCKED", &gated),
            ("BYPASSED", &bypassed(&gated)),
            ("BYPASSED", &bypassed(&enforced(&judged))),
        ] {
            assert_eq!(policy.status().to_string(), status, "{policy:?}");
        }
    }

    #[test]
    fn counts_that_were_sent_are_believed() {
        let policy = policy(
            r#"{"policyEvaluationsCount":3,"policyViolationsCount":"2","policySkippedCount":1.0,"policyHasViolations":true,"policyHasGates":true,"policyCheckBlockingStrategy":"ENFORCED","policyBlockBypassEnabled":true,"policyAttBlocked":false}"#,
        );
        assert_eq!(
            (policy.evaluations, policy.violations, policy.skipped),
            (3, 2, 1)
        );
        assert_eq!(policy.status(), PolicyStatus::Bypassed);
        assert!(policy.has_gates && !policy.blocked);
    }

    #[test]
    fn evaluations_without_counts_are_counted() {
        let policy = policy(
            r#"{"policy_evaluations":{"sbom":[{"gate":true,"violations":[{"message":"old"},{"suppress":true}]},{"skipped":true},{}],"CHAINLOOP.ATTESTATION":null}}"#,
        );
        let expected = Policy {
            evaluations: 3,
            violations: 1,
            skipped: 1,
            passed: 1,
            suppressed: 1,
            has_violations: true,
            has_gated_violations: true,
            has_gates: true,
            blocked: true,
            found: vec![Violation {
                material: "sbom".to_owned(),
                message: "old".to_owned(),
                ..Violation::default()
            }],
            ..Policy::default()
        };
        assert_eq!(policy, expected);
    }

    #[test]
    fn what_was_found_is_kept_within_bounds() {
        let found = |counts: &str, evaluations: &str| {
            policy(&format!(r#"{{{counts}"policyEvaluations":{evaluations}}}"#)).found
        };
        let counts = r#""policyEvaluationsCount":2,"policyHasViolations":true,"#;
        let evaluations = r#"{"CHAINLOOP.ATTESTATION":[{"name":"signed","violations":[{"message":"no"},{"message":"so","suppress":true}]}],
            "key":[{"name":5,"materialName":"sbom","violations":[{"message":["x"]}]}]}"#;
        let violation = |policy: &str, material: &str, message: &str| Violation {
            policy: policy.to_owned(),
            material: material.to_owned(),
            message: message.to_owned(),
        };
        let expected = [violation("signed", "", "no"), violation("", "sbom", "")];
        assert_eq!(found(counts, evaluations), expected);
        assert_eq!(found("", evaluations), expected);
        let none = r#""policyEvaluationsCount":2,"policyHasViolations":false,"#;
        assert_eq!(found(none, evaluations), []);

        let message = format!(r#"{{"message":"{}"}}"#, "é".repeat(1_000));
        let violations = vec![message; 60].join(",");
        let many = found(
            counts,
            &format!(r#"{{"a":[{{"violations":[{violations}]}}]}}"#),
        );
        assert_eq!(many.len(), 50);
        assert_eq!(many[0].message.chars().count(), 301);
    }

    #[test]
    fn evaluations_of_an_unknown_shape_do_not_refuse_an_attestation() {
        assert_eq!(policy(r#"{"policyEvaluations":[1,2]}"#), Policy::default());
    }

    #[test]
    fn the_older_name_of_a_workflow_is_used_where_there_is_no_newer() {
        let name = |json: &str| {
            Predicate::parse(json)
                .unwrap()
                .metadata
                .workflow()
                .to_owned()
        };
        assert_eq!(name(r#"{"metadata":{"name":"a"}}"#), "a");
        assert_eq!(name(r#"{"metadata":{"name":"a","workflowName":"b"}}"#), "b");
    }

    #[test]
    fn what_has_the_wrong_type_is_refused() {
        for json in [
            "[]",
            r#"{"materials":{}}"#,
            r#"{"env":[]}"#,
            r#"{"runnerType":1}"#,
        ] {
            assert_eq!(
                Predicate::parse(json).unwrap_err().code(),
                "predicate-invalid",
                "{json}"
            );
        }
        let twice = r#"{"materials":[],"materials":[]}"#;
        assert_eq!(Predicate::parse(twice).unwrap_err().code(), "duplicate-key");
    }
}
