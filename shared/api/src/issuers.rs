//! OpenID Connect issuers whose JWTs are exchanged for tokens: CI systems and identity providers, and the rules for what
//! jobs and people may do.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inputs::{Fault, web_url};
use crate::trust::fault::{MAX_TEXT, MAX_WILDCARDS};
use crate::workflows::Selector;
use crate::{IssuerId, Role, Timestamp, names, tokens, trust};

/// Issuers of an organization, rules of an issuer, and claims of a rule at most: all are read with each exchange.
pub const ISSUERS_MOST: usize = 16;
pub const RULES_MOST: usize = 32;
pub const CLAIMS_MOST: usize = 8;

/// Bytes of an issuer as JSON at most, for the same reason.
pub const ISSUER_MAX_BYTES: usize = 16 * 1024;

/// Issuers that sign for everybody, with the claims that say for whom: without a condition on one of these, a rule would let
/// in jobs of strangers.
const SHARED: [(&str, &[&str]); 4] = [
    (
        "https://token.actions.githubusercontent.com",
        &[
            "repository_id",
            "repository",
            "repository_owner_id",
            "repository_owner",
            "sub",
        ],
    ),
    (
        "https://gitlab.com",
        &[
            "project_id",
            "project_path",
            "namespace_id",
            "namespace_path",
            "sub",
        ],
    ),
    (
        "https://agent.buildkite.com",
        &["organization_id", "organization_slug", "pipeline_id", "sub"],
    ),
    ("https://accounts.google.com", &["hd", "sub"]),
];

/// Reports whether this issuer signs for everybody.
pub fn is_shared(issuer: &str) -> bool {
    SHARED.iter().any(|(url, _)| *url == issuer)
}

/// Condition on a claim, which is compared as text. On a list, one of its texts has to fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "ClaimCondition")]
pub enum Condition {
    /// This text.
    Exact(String),
    /// Texts that fit as a whole: `*` is any text without a `/`, `**` any text, and all else is itself.
    Glob(String),
}

impl Condition {
    pub fn fits(&self, claim: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == claim,
            Self::Glob(glob) => claim.len() <= MAX_TEXT && trust::glob_fits(glob, claim),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Glob(text) => text,
        }
    }

    fn fault(&self) -> Option<&'static str> {
        let text = self.text();
        if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control) {
            return Some("has to be compared with 1 to 512 bytes without control characters");
        }
        let Self::Glob(glob) = self else { return None };
        let runs = glob.split(|letter| letter != '*');
        let runs = runs.filter(|run| !run.is_empty()).count();
        (glob.contains("***") || runs > MAX_WILDCARDS)
            .then_some("has a pattern with `***`, or with more than 8 `*`")
    }

    /// Reports whether it names an owner: a pattern does so as far as its first `*`, behind a `/`.
    fn names_one(&self) -> bool {
        match self {
            Self::Exact(_) => true,
            Self::Glob(glob) => glob.split('*').next().is_some_and(|own| own.contains('/')),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}

/// Rule for the JWTs of an issuer: those whose claims fit are exchanged for such tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "IssuerRule")]
pub struct Rule {
    /// Conditions by the claims' names; all of them have to hold.
    #[schemars(length(min = 1, max = CLAIMS_MOST))]
    pub claims: BTreeMap<String, Condition>,
    /// Producer, viewer or operator; an operator's tokens cannot be restricted.
    pub role: Role,
    /// Workflows that the tokens are restricted to: an id, `project/name`, `project/*`, or `*`; not restricted when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = tokens::WORKFLOWS_MOST))]
    pub workflows: Vec<Selector>,
}

impl Rule {
    /// Reports whether all conditions hold of the claims' texts.
    pub fn fits(&self, texts: impl Fn(&str) -> Vec<String>) -> bool {
        let mut claims = self.claims.iter();
        !self.claims.is_empty()
            && claims.all(|(name, condition)| texts(name).iter().any(|own| condition.fits(own)))
    }
}

/// Body of `POST /v1/issuers`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewIssuer {
    #[schemars(regex(pattern = names::LABEL))]
    pub name: String,
    /// The `iss` of its JWTs, letter by letter: a URL.
    pub issuer: String,
    /// The `aud` that its JWTs have to have: usually the URL of this API.
    #[schemars(length(min = 1, max = MAX_TEXT))]
    pub audience: String,
    /// URL of its key set; otherwise found by `<issuer>/.well-known/openid-configuration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// The first one that fits is the one that counts.
    #[schemars(length(min = 1, max = RULES_MOST))]
    pub rules: Vec<Rule>,
}

impl NewIssuer {
    /// All that is wrong with it.
    pub fn faults(&self) -> Vec<Fault> {
        let fault = |field: &str, detail: String| Fault {
            field: field.into(),
            detail,
        };
        let mut faults: Vec<Fault> = names::name_fault(&self.name).into_iter().collect();
        for (field, url) in [
            ("issuer", Some(&self.issuer)),
            ("jwks_url", self.jwks_url.as_ref()),
        ] {
            let wrong = url.and_then(|url| url_fault(url));
            faults.extend(wrong.map(|wrong| fault(field, wrong.into())));
        }
        let audience = &self.audience;
        if audience.is_empty() || audience.len() > MAX_TEXT {
            faults.push(fault("audience", "must have 1 to 512 bytes".into()));
        }
        let size_bytes = serde_json::to_string(self).map_or(usize::MAX, |text| text.len());
        if size_bytes > ISSUER_MAX_BYTES {
            faults.push(fault(
                "rules",
                "must be shorter: an issuer has at most 16 KiB".into(),
            ));
        }
        if self.rules.is_empty() || self.rules.len() > RULES_MOST {
            faults.push(fault("rules", format!("must be 1 to {RULES_MOST}")));
        }
        for (index, rule) in self.rules.iter().enumerate() {
            let wrong = rule_fault(&self.issuer, rule);
            faults
                .extend(wrong.map(|wrong| fault("rules", format!("rule {}: {wrong}", index + 1))));
        }
        faults
    }
}

/// Returns the fault of an issuer's URL, which has no query.
pub fn url_fault(text: &str) -> Option<&'static str> {
    let fault = endpoint_fault(text);
    fault.or_else(|| text.contains('?').then_some("must not have a query"))
}

/// Returns the fault of the URL of one of an issuer's endpoints. What comes over plain HTTP could be anybody's; a peer on
/// this machine has no certificate.
pub fn endpoint_fault(text: &str) -> Option<&'static str> {
    if text.len() > MAX_TEXT {
        return Some("must have at most 512 bytes");
    }
    let url = match web_url(text) {
        Ok(url) => url,
        Err(wrong) => return Some(wrong),
    };
    let is_near = matches!(url.host_str(), Some("127.0.0.1" | "localhost"));
    if url.scheme() != "https" && !is_near {
        return Some("must be an https URL");
    }
    url.fragment()
        .is_some()
        .then_some("must not have a fragment")
}

fn rule_fault(issuer: &str, rule: &Rule) -> Option<String> {
    if rule.claims.is_empty() || rule.claims.len() > CLAIMS_MOST {
        return Some(format!("must have 1 to {CLAIMS_MOST} claims"));
    }
    for (name, condition) in &rule.claims {
        if name.is_empty() || name.len() > 128 {
            return Some("a claim's name must have 1 to 128 bytes".into());
        }
        if let Some(wrong) = condition.fault() {
            return Some(format!("the claim {name:?} {wrong}"));
        }
    }
    let shared = SHARED.iter().find(|(url, _)| *url == issuer);
    if let Some((_, owners)) = shared {
        let is_named = |owner: &&&str| rule.claims.get(**owner).is_some_and(Condition::names_one);
        if !owners.iter().any(|owner| is_named(&owner)) {
            return Some(format!(
                "this issuer signs for everybody: name yours by one of the claims {}",
                owners.join(", ")
            ));
        }
    }
    match rule.role {
        Role::Admin => Some("must have the role producer, viewer or operator".into()),
        role if !role.can_be_restricted() && !rule.workflows.is_empty() => {
            Some(format!("restricts the role {role}, which cannot be"))
        }
        _ => tokens::workflows(&rule.workflows).err(),
    }
}

/// Keys of an issuer, as they were fetched last.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "IssuerKeys")]
pub struct Keys {
    /// IDs of those that can be used.
    pub ids: Vec<String>,
    pub fetched_at: Option<Timestamp>,
    /// Reason why they could not be fetched the last time.
    pub fault: Option<String>,
}

/// An issuer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Issuer {
    pub id: IssuerId,
    pub name: String,
    pub issuer: String,
    pub audience: String,
    pub jwks_url: Option<String>,
    pub rules: Vec<Rule>,
    /// The name of the token that made it.
    pub created_by: String,
    pub created_at: Timestamp,
    /// Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
}

/// Reports whether what is restricted to `own` may be restricted to `wanted` instead: all of `wanted` is in `own`.
pub fn is_narrower(own: &[Selector], wanted: &[Selector]) -> bool {
    let is_within = |one: &Selector| {
        let all_of_project = one
            .0
            .split_once('/')
            .map(|(project, _)| format!("{project}/*"));
        let mut own = own.iter();
        own.any(|own| own == one || own.0 == "*" || Some(&own.0) == all_of_project.as_ref())
    };
    own.is_empty() || (!wanted.is_empty() && wanted.iter().all(is_within))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(url: &str, claim: &str, condition: Condition) -> NewIssuer {
        NewIssuer {
            name: "ci".into(),
            issuer: url.into(),
            audience: "https://api.example.org".into(),
            jwks_url: None,
            rules: vec![Rule {
                claims: [(claim.to_owned(), condition)].into(),
                role: Role::Producer,
                workflows: vec![Selector("shop/*".into())],
            }],
        }
    }

    #[test]
    fn a_rule_of_an_issuer_for_everybody_names_an_owner() {
        let github = "https://token.actions.githubusercontent.com";
        let exact = |text: &str| Condition::Exact(text.into());
        let glob = |text: &str| Condition::Glob(text.into());
        for (url, claim, condition, is_taken) in [
            (github, "repository_id", exact("74"), true),
            (github, "repository", glob("acme/*"), true),
            (github, "sub", glob("repo:acme/shop:**"), true),
            (github, "sub", glob("repo:acme*/**"), false),
            (github, "sub", glob("**"), false),
            (github, "ref", exact("refs/heads/main"), false),
            ("https://gitlab.com", "ref_protected", exact("true"), false),
            ("https://gitlab.com", "project_path", glob("acme/**"), true),
            (
                "https://accounts.google.com",
                "hd",
                exact("example.org"),
                true,
            ),
            (
                "https://accounts.google.com",
                "email",
                exact("dev@example.org"),
                false,
            ),
            (
                "https://ci.example.org",
                "ref",
                exact("refs/heads/main"),
                true,
            ),
            ("https://ci.example.org", "ref", glob("***"), false),
            ("https://ci.example.org", "ref", exact(""), false),
            ("http://ci.example.org", "ref", exact("main"), false),
            ("https://ci.example.org?a=b", "ref", exact("main"), false),
        ] {
            let faults = issuer(url, claim, condition.clone()).faults();
            assert_eq!(
                faults.is_empty(),
                is_taken,
                "{claim} {condition}: {faults:?}"
            );
        }
    }

    #[test]
    fn an_issuer_has_so_many_rules_and_bytes() {
        let own = issuer(
            "https://ci.example.org",
            "ref",
            Condition::Exact("x".repeat(400)),
        );
        let with = |rules: usize| NewIssuer {
            rules: vec![own.rules[0].clone(); rules],
            ..own.clone()
        };
        assert_eq!(with(32).faults(), []);
        for rules in [0, 33, 200] {
            assert!(!with(rules).faults().is_empty(), "{rules}");
        }
        let mut large = with(32);
        for rule in &mut large.rules {
            rule.workflows = vec![Selector(format!("shop/{}", "x".repeat(400)))];
        }
        assert_eq!(large.faults()[0].field, "rules");
    }

    #[test]
    fn a_rule_fits_when_all_of_its_conditions_hold() {
        let rule = |claims: &[(&str, Condition)]| Rule {
            claims: claims
                .iter()
                .map(|(name, condition)| ((*name).to_owned(), condition.clone()))
                .collect(),
            role: Role::Producer,
            workflows: Vec::new(),
        };
        let claim = |name: &str| match name {
            "repository" => vec!["acme/shop".to_owned()],
            "ref" => vec!["refs/heads/main".to_owned()],
            "groups" => vec!["everybody".to_owned(), "/platform/on-call".to_owned()],
            _ => Vec::new(),
        };
        let (own, main) = (
            Condition::Glob("acme/*".into()),
            Condition::Exact("refs/heads/main".into()),
        );
        assert!(rule(&[("repository", own.clone()), ("ref", main.clone())]).fits(claim));
        assert!(!rule(&[("repository", own.clone()), ("environment", main)]).fits(claim));
        assert!(!rule(&[("ref", own)]).fits(claim));
        assert!(!rule(&[]).fits(claim));
        let group = |name: &str| Condition::Exact(name.into());
        assert!(rule(&[("groups", group("/platform/on-call"))]).fits(claim));
        assert!(rule(&[("groups", Condition::Glob("/platform/*".into()))]).fits(claim));
        assert!(!rule(&[("groups", group("on-call"))]).fits(claim));
    }

    #[test]
    fn a_rule_makes_no_admin_and_restricts_no_operator() {
        let faults = |role: Role, workflows: &[&str]| {
            let mut own = issuer(
                "https://id.example.org",
                "groups",
                Condition::Exact("x".into()),
            );
            own.rules[0].role = role;
            own.rules[0].workflows = workflows
                .iter()
                .map(|one| Selector((*one).into()))
                .collect();
            own.faults().len()
        };
        for (role, workflows, wanted) in [
            (Role::Admin, &[][..], 1),
            (Role::Operator, &[], 0),
            (Role::Operator, &["shop/*"], 1),
            (Role::Viewer, &["shop/*"], 0),
            (Role::Producer, &[], 0),
        ] {
            assert_eq!(faults(role, workflows), wanted, "{role} {workflows:?}");
        }
    }

    #[test]
    fn narrower_is_what_is_within() {
        let all = |all: &[&str]| -> Vec<Selector> {
            all.iter().map(|one| Selector((*one).into())).collect()
        };
        let id = "6f0c1f0e-0000-4000-8000-000000000001";
        for (own, wanted, is) in [
            (&[][..], &[][..], true),
            (&[], &["shop/*"], true),
            (&["*"], &["shop/*", id], true),
            (&["*"], &[], false),
            (&["shop/*"], &["shop/a", "shop/*"], true),
            (&["shop/*"], &["shop/a", "other/a"], false),
            (&["shop/*"], &["*"], false),
            (&["shop/*"], &[id], false),
            (&["shop/a"], &["shop/*"], false),
            (&[id], &[id], true),
        ] {
            assert_eq!(
                is_narrower(&all(own), &all(wanted)),
                is,
                "{own:?} {wanted:?}"
            );
        }
    }
}
