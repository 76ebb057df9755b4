//! Filters: conditions on the attestations and materials that an attachment sends. An operator writes them as
//! `environment=prod, workflow.branch=release/*`.
//!
//! Every filter that Chainloop accepts means the same here.

use std::borrow::Cow;
use std::fmt;

use api::trust::{Outcome, VerifiedSigner};
use attestation::{Material, PolicyStatus};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{Pushed, facts, pushed, text};

/// Conditions with commas between them, all of which must hold: `key=value` and `key!=value`.
///
/// In a value `*` stands for any letters, and `\,` for a comma. A key is the name of an annotation, of the
/// material if it has it and else of the attestation, or one of what is known of every attestation, as in
/// `workflow.branch`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Filter {
    /// As the operator wrote it.
    text: String,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    /// As it is told to an operator.
    text: String,
    key: Key,
    /// True for `!=`.
    not: bool,
    value: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Annotation(String),
    Known(Known),
}

/// Declares the keys that are no annotations.
macro_rules! known {
    ($($name:ident = $key:literal),+ $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Known { $($name),+ }

        const KNOWN: &[(&str, Known)] = &[$(($key, Known::$name)),+];
    };
}

known!(
    WorkflowName = "workflow.name",
    WorkflowProject = "workflow.project",
    WorkflowVersion = "workflow.version",
    WorkflowBranch = "workflow.branch",
    PredicateType = "predicate.type",
    MaterialType = "material.type",
    MaterialName = "material.name",
    PolicyStatus = "policy.status",
    PolicyViolations = "policy.violations",
    SignatureOutcome = "signature.outcome",
    SignatureSigner = "signature.signer",
    SignatureIssuer = "signature.issuer",
    SignatureIdentity = "signature.identity",
);

const MAX_BYTES: usize = 1024;
const MAX_CONDITIONS: usize = 32;
/// Most characters shown of a value.
const SHOWN: usize = 64;

const STATUSES: &[PolicyStatus] = &[
    PolicyStatus::NotApplicable,
    PolicyStatus::Passed,
    PolicyStatus::Skipped,
    PolicyStatus::Warning,
    PolicyStatus::Blocked,
    PolicyStatus::Bypassed,
];

impl Filter {
    /// Checks that all conditions hold for an attestation or, where one is given, for a material of it. The error is
    /// the reason why not, for an operator.
    ///
    /// Without a material, a condition on `material.…` holds when any material of the attestation satisfies it, and
    /// one with `!=` when none contradicts it.
    pub fn admits(&self, pushed: Pushed<'_>, material: Option<&Material>) -> Result<(), String> {
        for condition in &self.conditions {
            let found = condition.find(pushed, material);
            let holds = |value: &Option<Cow<'_, str>>| {
                value.as_deref().is_some_and(|value| condition.fits(value))
            };
            // Of several materials' values, the one that satisfies `=` or contradicts `!=` decides.
            if found.iter().any(holds) == condition.not {
                let decisive = found.iter().find(|value| holds(value)).or(found.first());
                return Err(condition.refusal(decisive, found.len() > 1));
            }
        }
        Ok(())
    }
}

impl Condition {
    /// Reads one segment, in which `\,` has become a comma.
    fn parse(segment: &str) -> Result<Self, String> {
        let invalid = |wrong: &str| {
            let segment = text::line(segment, SHOWN, true);
            format!("invalid filter segment {segment:?}: {wrong}")
        };
        let (key, value) = segment.split_once('=').unwrap_or_default();
        let (key, not) = match key.strip_suffix('!') {
            Some(key) => (key, true),
            None => (key, false),
        };
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || value.is_empty() {
            return Err(invalid("must be key=value or key!=value"));
        }
        let condition = Self {
            text: text::line(segment, 2 * SHOWN, true),
            key: Key::parse(key).map_err(|wrong| invalid(&wrong))?,
            not,
            value: value.to_owned(),
        };
        condition.check_value().map_err(|wrong| invalid(&wrong))?;
        Ok(condition)
    }

    /// A value that no attestation can have is a typing error.
    fn check_value(&self) -> Result<(), String> {
        let values: Vec<&str> = match self.key {
            Key::Known(Known::PolicyStatus) => STATUSES.iter().map(|s| s.as_str()).collect(),
            Key::Known(Known::PolicyViolations) => vec!["true", "false"],
            Key::Known(Known::SignatureOutcome) => {
                Outcome::ALL.iter().map(|o| o.as_str()).collect()
            }
            _ => return Ok(()),
        };
        if values.iter().any(|value| self.fits(value)) {
            return Ok(());
        }
        Err(unknown("the value is not known", &self.value, &values))
    }

    /// The values to compare with: one, or none where there is none, or one for each material or signer.
    fn find<'a>(
        &self,
        pushed: Pushed<'a>,
        material: Option<&'a Material>,
    ) -> Vec<Option<Cow<'a, str>>> {
        let Pushed {
            attestation,
            workflow,
            ..
        } = pushed;
        let predicate = attestation.predicate();
        let materials = |of: fn(&'a Material) -> &'a str| {
            let all = match material {
                Some(one) => std::slice::from_ref(one),
                None => attestation.materials(),
            };
            all.iter().map(|one| Some(of(one).into())).collect()
        };
        let signers = |of: fn(&'a VerifiedSigner) -> Option<&'a str>| match pushed.signers() {
            [] => vec![None],
            signers => signers.iter().map(|one| of(one).map(Into::into)).collect(),
        };
        let known = match &self.key {
            Key::Annotation(name) => {
                let value = material
                    .and_then(|material| material.annotations.get(name))
                    .or_else(|| predicate?.annotations.get(name));
                return vec![value.map(|value| value.as_str().into())];
            }
            Key::Known(known) => known,
        };
        let policy = || {
            predicate
                .map(|predicate| predicate.policy.clone())
                .unwrap_or_default()
        };
        let value: Cow<'a, str> = match known {
            Known::MaterialType => return materials(|material| material.kind.as_str()),
            Known::MaterialName => return materials(|material| &material.name),
            Known::WorkflowName => workflow.name.as_str().into(),
            Known::WorkflowProject => workflow.project.as_str().into(),
            Known::WorkflowVersion => predicate
                .map_or("", |predicate| &predicate.metadata.project_version)
                .into(),
            Known::WorkflowBranch => facts::branch(attestation).into(),
            Known::PredicateType => attestation.statement.predicate_type.as_str().into(),
            Known::SignatureOutcome => pushed.outcome().to_string().into(),
            Known::SignatureSigner => return signers(|signer| Some(&signer.name)),
            Known::SignatureIssuer => return signers(pushed::issuer),
            Known::SignatureIdentity => return signers(pushed::identity),
            Known::PolicyStatus => policy().status().as_str().into(),
            Known::PolicyViolations => policy().has_violations.to_string().into(),
        };
        vec![Some(value).filter(|value| !value.is_empty())]
    }

    fn fits(&self, value: &str) -> bool {
        match self.key {
            Key::Known(Known::PolicyStatus | Known::PolicyViolations) => {
                matches(&self.value.to_lowercase(), &value.to_lowercase())
            }
            _ => matches(&self.value, value),
        }
    }

    fn refusal(&self, value: Option<&Option<Cow<'_, str>>>, many: bool) -> String {
        let wants = format!("the filter wants {}", self.text);
        match value {
            Some(Some(_)) if many && !self.not => {
                format!(
                    "{wants}, and no {} of the attestation has it",
                    self.key.one_of()
                )
            }
            Some(Some(value)) => {
                let value = text::line(value, SHOWN, false);
                match many {
                    true => format!("{wants}, and a {}'s is {value:?}", self.key.one_of()),
                    false => format!("{wants}, and it is {value:?}"),
                }
            }
            _ => format!("{wants}, and there is none"),
        }
    }
}

impl Key {
    /// The thing that has a value of its own for this key, where an attestation has several.
    fn one_of(&self) -> &'static str {
        match self {
            Self::Known(
                Known::SignatureSigner | Known::SignatureIssuer | Known::SignatureIdentity,
            ) => "signer",
            _ => "material",
        }
    }

    fn parse(key: &str) -> Result<Self, String> {
        if let Some((_, known)) = KNOWN.iter().find(|(name, _)| *name == key) {
            return Ok(Self::Known(*known));
        }
        let reserved = [
            "workflow.",
            "policy.",
            "predicate.",
            "material.",
            "signature.",
        ];
        if reserved.iter().any(|group| key.starts_with(group)) {
            let names: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
            return Err(unknown("the key is not known", key, &names));
        }
        Ok(Self::Annotation(key.to_owned()))
    }
}

fn unknown(what: &str, given: &str, names: &[&str]) -> String {
    let given = text::line(given, SHOWN, true);
    let all = names.join(", ");
    match api::inputs::nearest(&given, names) {
        Some(nearest) => format!("{what}; did you mean {nearest:?}? There is {all}"),
        None => format!("{what}; there is {all}"),
    }
}

/// Reports whether `value` matches `pattern`, where each `*` stands for any letters. Reads each letter once: for the
/// text between two stars, the first occurrence is the best.
fn matches(pattern: &str, value: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == value;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut value) = value
        .strip_prefix(first)
        .and_then(|value| value.strip_suffix(last))
    else {
        return false;
    };
    middle.split('*').all(|part| match value.find(part) {
        Some(at) => {
            value = &value[at + part.len()..];
            true
        }
        None => false,
    })
}

/// The text between commas, those behind a backslash excepted.
fn segments(text: &str) -> Vec<String> {
    let mut segments = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let escaped = letter == '\\' && letters.next_if_eq(&',').is_some();
        match (letter, segments.last_mut()) {
            (',', _) => segments.push(String::new()),
            (_, Some(segment)) if escaped => segment.push(','),
            (_, Some(segment)) => segment.push(letter),
            (_, None) => {}
        }
    }
    segments
}

impl TryFrom<String> for Filter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.len() > MAX_BYTES {
            return Err(format!("must have at most {MAX_BYTES} bytes"));
        }
        let segments = segments(&text);
        if segments.len() > MAX_CONDITIONS {
            return Err(format!("must have at most {MAX_CONDITIONS} conditions"));
        }
        let conditions = segments
            .iter()
            .map(|segment| Condition::parse(segment.trim()));
        Ok(Self {
            conditions: conditions.collect::<Result<_, _>>()?,
            text,
        })
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        filter.text
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl JsonSchema for Filter {
    fn schema_name() -> Cow<'static, str> {
        "Filter".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_BYTES,
            "examples": ["environment=prod"],
        })
    }
}

#[cfg(test)]
mod tests {
    use api::trust::Code;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::fixture::Stage;
    use crate::inputs;

    const STATEMENT: &str = include_str!("../tests/files/statement.json");

    fn filter(text: &str) -> Filter {
        Filter::try_from(text.to_owned()).unwrap()
    }

    /// Asserts the filter's reason to refuse the attestation, or its material of this name if it has one.
    #[track_caller]
    fn check(stage: &Stage, text: &str, material: &str, reason: &str) {
        let materials = stage.attestation.materials();
        let material = materials.iter().find(|one| one.name == material);
        let said = filter(text).admits(stage.pushed(), material);
        assert_eq!(said.err().unwrap_or_default(), reason, "{text}");
    }

    #[test]
    fn a_filter_holds_when_all_its_conditions_do() {
        let stage = Stage::of(&STATEMENT.replace("\"prod\"", "\"prod,eu\",\"note\":\"\""));
        for text in [
            r"environment=prod\,eu",
            r" environment = prod\,* ,version!=1.*",
            "environment=*,absent!=x,note=*",
            "environment=p*d*u",
            "workflow.name=nightly-build,workflow.project=shop,workflow.version=2.*,workflow.branch=main",
            "predicate.type=chainloop.dev/attestation/*",
            "policy.status=blocked,policy.violations=TRUE",
            "policy.status=B*",
            "material.type=SARIF,material.type=CONTAINER_IMAGE,material.name=lint",
            "material.type!=JUNIT_XML",
        ] {
            check(&stage, text, "", "");
        }
        for (text, reason) in [
            (
                "environment=prod",
                r#"the filter wants environment=prod, and it is "prod,eu""#,
            ),
            (
                "version=2.4.0,x=1",
                "the filter wants x=1, and there is none",
            ),
            (
                "version!=2.*",
                r#"the filter wants version!=2.*, and it is "2.4.0""#,
            ),
            ("absent=*", "the filter wants absent=*, and there is none"),
            (
                "workflow.branch=release/*",
                r#"the filter wants workflow.branch=release/*, and it is "main""#,
            ),
            (
                "policy.status=passed",
                r#"the filter wants policy.status=passed, and it is "BLOCKED""#,
            ),
            (
                "material.type=X",
                "the filter wants material.type=X, and no material of the attestation has it",
            ),
            (
                "material.type!=S*",
                r#"the filter wants material.type!=S*, and a material's is "STRING""#,
            ),
        ] {
            check(&stage, text, "", reason);
        }
    }

    #[test]
    fn an_annotation_of_the_material_comes_before_the_attestations() {
        let stage =
            Stage::of(&STATEMENT.replace("\"component\":", "\"version\":\"3\",\"component\":"));
        check(
            &stage,
            "version=3,component=shop,environment=prod",
            "sbom",
            "",
        );
        check(&stage, "version=2.4.0,component!=shop", "lint", "");
        check(&stage, "version=2.4.0", "", "");
        check(
            &stage,
            "version=2.4.0",
            "sbom",
            r#"the filter wants version=2.4.0, and it is "3""#,
        );
        check(&stage, "material.name=s*,material.type!=SARIF", "sbom", "");
        check(
            &stage,
            "material.name=sbom",
            "lint",
            r#"the filter wants material.name=sbom, and it is "lint""#,
        );
    }

    #[test]
    fn a_filter_asks_for_the_verdict_on_signatures_and_for_signers() {
        let stage = Stage::new().judged(Code::ThresholdReached);
        for text in [
            "signature.outcome=verified",
            "signature.outcome!=off,signature.outcome=v*",
            "signature.signer=ci,signature.signer=release",
            "signature.issuer=https://issuer.example.org,signature.identity=*@example.org",
            "signature.signer!=other",
        ] {
            check(&stage, text, "", "");
            check(&stage, text, "sbom", "");
        }
        for (text, reason) in [
            (
                "signature.outcome!=verified",
                r#"the filter wants signature.outcome!=verified, and it is "verified""#,
            ),
            (
                "signature.signer=other",
                "the filter wants signature.signer=other, and no signer of the attestation has it",
            ),
            (
                "signature.signer!=c*",
                r#"the filter wants signature.signer!=c*, and a signer's is "ci""#,
            ),
        ] {
            check(&stage, text, "", reason);
        }
        let unjudged = Stage::new();
        check(
            &unjudged,
            "signature.outcome=off,signature.signer!=*",
            "",
            "",
        );
        let unsigned = "signature.identity=*";
        check(
            &unjudged,
            unsigned,
            "",
            "the filter wants signature.identity=*, and there is none",
        );
    }

    #[test]
    fn without_materials_only_what_is_unwanted_is_absent() {
        let statement = STATEMENT.replace("chainloop.dev/attestation/", "example.org/");
        let stage = Stage::of(&statement);
        check(
            &stage,
            "material.type!=SARIF,policy.status=NOT_APPLICABLE",
            "",
            "",
        );
        check(
            &stage,
            "material.type=SARIF",
            "",
            "the filter wants material.type=SARIF, and there is none",
        );
        check(
            &stage,
            "workflow.version=*",
            "",
            "the filter wants workflow.version=*, and there is none",
        );
    }

    #[test]
    fn a_reason_is_short_and_safe_to_show() {
        let hostile = format!("\"\\u001b\u{202e}dev@example.org{}\"", "x".repeat(1 << 20));
        let stage = Stage::of(&STATEMENT.replace("\"prod\"", &hostile));
        let said = filter("environment=prod").admits(stage.pushed(), None);
        let reason = said.unwrap_err();
        assert!(reason.len() < 200 && reason.contains("…"), "{reason}");
        for absent in ["\u{1b}", "\u{202e}", "dev@"] {
            assert!(!reason.contains(absent), "{reason}");
        }
    }

    #[test]
    fn a_fault_names_the_segment_and_what_would_be_right() {
        let names = "There is workflow.name, workflow.project, workflow.version, workflow.branch, predicate.type, \
                     material.type, material.name, policy.status, policy.violations, \
                     signature.outcome, signature.signer, signature.issuer, signature.identity";
        let outcomes = "There is off, verified, unknown-signer, unverifiable, invalid";
        let statuses = "There is NOT_APPLICABLE, PASSED, SKIPPED, WARNING, BLOCKED, BYPASSED";
        for (text, detail) in [
            ("", r#"invalid filter segment "": must be key=value or key!=value"#.to_owned()),
            ("a=b, x ", r#"invalid filter segment "x": must be key=value or key!=value"#.to_owned()),
            ("a=b,", r#"invalid filter segment "": must be key=value or key!=value"#.to_owned()),
            ("=b", r#"invalid filter segment "=b": must be key=value or key!=value"#.to_owned()),
            ("!=b", r#"invalid filter segment "!=b": must be key=value or key!=value"#.to_owned()),
            ("a= ", r#"invalid filter segment "a=": must be key=value or key!=value"#.to_owned()),
            ("workflow.nam=x", format!(
                r#"invalid filter segment "workflow.nam=x": the key is not known; did you mean "workflow.name"? {names}"#
            )),
            ("policy.status=warn", format!(
                r#"invalid filter segment "policy.status=warn": the value is not known; did you mean "WARNING"? {statuses}"#
            )),
            // Nothing is offered that means the opposite.
            ("policy.status=FAILED", format!(
                r#"invalid filter segment "policy.status=FAILED": the value is not known; {}"#,
                statuses.replace("There", "there"),
            )),
            ("signature.outcome=valid", format!(
                r#"invalid filter segment "signature.outcome=valid": the value is not known; {}"#,
                outcomes.replace("There", "there"),
            )),
            ("policy.violations=1", r#"invalid filter segment "policy.violations=1": the value is not known; there is true, false"#.to_owned()),
        ] {
            assert_eq!(Filter::try_from(text.to_owned()).unwrap_err(), detail);
        }
        let long = |text: &str, count| Filter::try_from(text.repeat(count)).unwrap_err();
        assert_eq!(long("x", 1025), "must have at most 1024 bytes");
        assert_eq!(long("a=b,", 32), "must have at most 32 conditions");
    }

    #[test]
    fn a_filter_is_an_input() {
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "read by nobody but the check of inputs")]
        struct Inputs {
            /// Which
            #[serde(default)]
            filter: Option<Filter>,
        }
        let schema = inputs::schema::<Inputs>();
        let expected = json!({
            "type": "string",
            "minLength": 1,
            "maxLength": 1024,
            "description": "Which",
            "examples": ["environment=prod"],
        });
        assert_eq!(schema["properties"]["filter"], expected);
        let inputs = json!({ "filter": "x" }).as_object().cloned().unwrap();
        let faults = inputs::check::<Inputs>(&inputs);
        assert_eq!(faults[0].field, "filter");
        assert!(
            faults[0].detail.starts_with("invalid filter segment"),
            "{faults:?}"
        );
        let text = serde_json::to_value(filter("a=b")).unwrap();
        assert_eq!(text, "a=b");
    }

    /// The other way to do it, slow and plain.
    fn matches_slowly(pattern: &[char], value: &[char]) -> bool {
        match pattern.split_first() {
            None => value.is_empty(),
            Some(('*', rest)) => (0..=value.len()).any(|at| matches_slowly(rest, &value[at..])),
            Some((letter, rest)) => {
                value.first() == Some(letter) && matches_slowly(rest, &value[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_as_the_same_filter(text in r"([a-c]!?=[a-c*]{1,3}(\\,)?\\{0,2} ?,){0,3}[a.]=[*\\a]") {
            let filter = filter(&text);
            prop_assert_eq!(Filter::try_from(filter.to_string()), Ok(filter));
        }

        #[test]
        fn a_pattern_matches_as_it_would_by_trying_all(pattern in "[ab*]{0,6}", value in "[ab]{0,8}") {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &value), matches_slowly(&letters(&pattern), &letters(&value)));
        }
    }
}
