//! Settings that operators fill in: inputs, templates, filters.

use std::sync::LazyLock;

use api::workflows::Workflow;
use attestation::{Attestation, text};
use integrations::{ALL, Filter, Pushed, Template};
use serde_json::{Map, Value};

pub const INPUT_WORDS: &[&str] = &[
    "url",
    "secret",
    "format",
    "channel",
    "token",
    "repository",
    "username",
    "password",
    "prefix",
    "host",
    "port",
    "tls",
    "from",
    "to",
    "subject",
    "bucket",
    "region",
    "endpoint",
    "provider",
    "role_arn",
    "ca_certificates",
    "api_key",
    "project",
    "version",
    "filter",
    "template",
    "environment=prod",
    "{{ workflow.name }}",
    "https://hooks.example.org/canary",
    "canary",
    "s3",
    "gcs",
    "azure",
    "ghcr.io/acme/attestations",
    "arn:aws:iam::123456789012:role/a",
    "-----BEGIN CERTIFICATE-----\\n",
    "whsec_",
    "a@example.org",
    "headers",
    "X-A: b",
    "\\r\\n",
];

pub const TEMPLATE_WORDS: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{{-",
    "-}}",
    "workflow.name",
    "material.annotations",
    "materials",
    "policy.status",
    ".Material.Annotations.",
    ".Attestation.Annotations.",
    "{% for m in materials %}",
    "{% endfor %}",
    "{% if ",
    "{% endif %}",
    "{% set a = a ~ a %}",
    "{% macro a() %}",
    "{% endmacro %}",
    "{% filter upper %}",
    "{% call a() %}",
    "{% raw %}",
    "{% endraw %}",
    "{% with a = 1 %}",
    "range(9999999)",
    "|upper",
    "|replace('a', 'aaaa')",
    "|join",
    "|list",
    "|sort",
    "|indent(9999999)",
    "|tojson",
    "|map('upper')",
    "|select",
    "|groupby",
    "|batch(2)",
    "|center(9999999)",
    "|format",
    "|round",
    "|default(",
    "|truncate(9)",
    "|unique",
    "|reverse",
    "|dictsort",
    "|items",
    "|split",
    "|lines",
    "|urlencode",
    "|pprint",
    "|string",
    "|int",
    "|float",
    "loop.index",
    "loop.changed",
    "cycler",
    "joiner",
    "lipsum",
    "namespace",
    "*",
    "**",
    "//",
    "~",
    "+",
    "is defined",
    "in",
    "9999999999999999999",
    "'a'*9999999",
    "recursive",
    "elif",
    "block",
    "include",
    "import",
    "autoescape",
    "do ",
    "1e308",
    "[::-1]",
    ".__class__",
];

pub const FILTER_WORDS: &[&str] = &[
    "environment=prod",
    "workflow.name=",
    "workflow.project!=",
    "workflow.version=",
    "workflow.branch=release/*",
    "predicate.type=",
    "material.type=SARIF",
    "material.name=",
    "policy.status=blocked",
    "policy.violations=true",
    ",",
    "\\,",
    "=",
    "!=",
    "*",
    "**",
    "\\",
];

/// An attestation to look at.
static STAGE: LazyLock<(Attestation, Workflow, Value)> = LazyLock::new(|| {
    let statement = include_bytes!("../../../shared/integrations/tests/files/statement.json");
    let attestation = Attestation::parse(&crate::attestation::signed(statement.to_vec()))
        .expect("an attestation");
    let workflow = Workflow {
        id: String::new(),
        project: "shop".to_owned(),
        name: "nightly-build".to_owned(),
    };
    let facts = integrations::facts(
        pushed(&attestation, &workflow),
        attestation.materials().first(),
    );
    (attestation, workflow, facts)
});

fn pushed<'a>(attestation: &'a Attestation, workflow: &'a Workflow) -> Pushed<'a> {
    Pushed {
        attestation,
        workflow,
        verdict: None,
        console: None,
    }
}

/// Inputs are faulty or right, and a fault says nothing of a secret.
pub fn inputs(input: &[u8]) {
    let Ok(inputs) = serde_json::from_slice::<Map<String, Value>>(input) else {
        return;
    };
    for integration in ALL {
        for (schema, check) in [
            (
                (integration.registration_schema)(),
                integration.check_registration,
            ),
            (
                (integration.attachment_schema)(),
                integration.check_attachment,
            ),
        ] {
            let secret = |name: &str| {
                let text = inputs.get(name)?.as_str()?;
                (api::inputs::is_secret(&schema["properties"][name]) && text.contains("canary"))
                    .then_some(text)
            };
            let faults = check(&inputs);
            for fault in &faults {
                assert!(!fault.detail.is_empty());
                assert!(
                    secret(&fault.field).is_none_or(|_| !fault.detail.contains("canary")),
                    "{fault:?}"
                );
            }
            assert_eq!(check(&inputs), faults);
        }
    }
}

/// A template reads back to itself, writes no more than it may, and nothing that cannot be seen.
pub fn template(input: &[u8]) {
    const MOST: usize = 1024;
    let Ok(written) = str::from_utf8(input) else {
        return;
    };
    let template = match Template::try_from(written.to_owned()) {
        Ok(template) => template,
        Err(fault) => {
            assert!(!fault.is_empty() && fault.len() <= 4096, "{fault}");
            return;
        }
    };
    assert_eq!(String::from(template.clone()), written);
    match template.render(&STAGE.2, MOST) {
        Ok(filled) => {
            assert!(filled.len() <= MOST);
            assert_eq!(text::visible(&filled), filled);
        }
        Err(fault) => assert!(!fault.is_empty() && fault.len() <= 4096, "{fault}"),
    }
}

/// A filter reads back to itself, and says shortly why it refuses.
pub fn filter(input: &[u8]) {
    let Ok(written) = str::from_utf8(input) else {
        return;
    };
    let filter = match Filter::try_from(written.to_owned()) {
        Ok(filter) => filter,
        Err(fault) => {
            assert!(!fault.is_empty() && fault.len() <= 4096, "{fault}");
            return;
        }
    };
    assert_eq!(String::from(filter.clone()), written);
    assert_eq!(Filter::try_from(filter.to_string()).as_ref(), Ok(&filter));
    let (attestation, workflow, _) = &*STAGE;
    for material in attestation.materials().iter().map(Some).chain([None]) {
        if let Err(reason) = filter.admits(pushed(attestation, workflow), material) {
            assert!(!reason.is_empty() && reason.len() <= 4096, "{reason}");
            assert_eq!(text::visible(&reason), reason);
        }
    }
}
