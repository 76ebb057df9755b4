//! Contracts of every integration, checked over the list of all of them: a test names what a half-added one
//! lacks. The tests also hold what the crates may know of each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use api::inputs::{Fault, Field};
use integrations::http::{Guard, Http};
use integrations::{AUTHORITIES, Description, Integration, inputs};
use serde_json::{Map, Value, json};

use crate::template;

/// Capabilities of an integration's own types that its description lacks.
struct Typed {
    id: &'static str,
    /// `integrations::guac::Guac`
    path: &'static str,
    /// A registration of these inputs as a log would show it.
    debug: fn(Map<String, Value>) -> String,
    /// Number of certificates that the client for such a registration trusts beside the public ones.
    trusts: fn(Map<String, Value>) -> usize,
}

impl Typed {
    fn of<I: Integration>() -> Self {
        Self {
            id: I::ID,
            path: std::any::type_name::<I>(),
            debug: debug::<I::Registration>,
            trusts: trusts::<I>,
        }
    }
}

fn debug<T: inputs::Inputs>(inputs: Map<String, Value>) -> String {
    let read: T = serde_json::from_value(Value::Object(inputs)).unwrap();
    format!("{read:?} {read:#?}")
}

fn trusts<I: Integration>(inputs: Map<String, Value>) -> usize {
    let read: I::Registration = serde_json::from_value(Value::Object(inputs)).unwrap();
    let http = Http::new(Guard::default());
    http.trusting(I::authorities(&read)).roots().len()
}

macro_rules! typed {
    ($($integration:ty),+) => { vec![$(Typed::of::<$integration>()),+] };
}

fn all() -> impl Iterator<Item = (&'static Description, Typed)> {
    let typed = integrations::for_all_integrations!(typed);
    integrations::ALL.iter().zip(typed)
}

// --- what an integration says of itself ---------------------------------------------------------------

#[test]
fn ids_are_kebab_case_unique_and_sorted() {
    let ids: Vec<&str> = integrations::ALL.iter().map(|one| one.id).collect();
    for id in &ids {
        let kebab = id.split('-').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        });
        assert!(
            kebab,
            "{id:?}: write the id in kebab case, as in slack-webhook"
        );
    }
    let sorted: BTreeSet<&str> = ids.iter().copied().collect();
    assert!(
        ids.iter().eq(sorted.iter()),
        "put `for_all_integrations!` in the order of ids, each once: {sorted:?}"
    );
    for (description, typed) in all() {
        assert_eq!(description.id, typed.id);
    }
}

#[test]
fn a_version_is_two_numbers_and_a_description_is_one_sentence_without_a_full_stop() {
    for one in integrations::ALL {
        let (id, text) = (one.id, one.description);
        let numbers = one
            .version
            .split('.')
            .filter(|part| part.parse::<u32>().is_ok())
            .count();
        assert!(
            numbers == 2 && one.version.matches('.').count() == 1,
            "{id}: write VERSION as two numbers, as in 1.0, not {:?}",
            one.version
        );
        assert!(
            text.starts_with(char::is_uppercase),
            "{id}: begin DESCRIPTION with a capital letter"
        );
        assert!(
            !text.ends_with('.'),
            "{id}: drop the full stop at the end of DESCRIPTION"
        );
        assert!(
            !text.contains(". ") && !text.contains('\n'),
            "{id}: make DESCRIPTION one sentence; more belongs in the module's own comment"
        );
    }
}

/// Both of an integration's schemas, with what they are called in a message.
fn schemas(one: &Description) -> [(String, Value); 2] {
    [
        (
            format!("{}::Registration", snake(one.id)),
            (one.registration_schema)(),
        ),
        (
            format!("{}::Attachment", snake(one.id)),
            (one.attachment_schema)(),
        ),
    ]
}

#[test]
fn schemas_are_flat_and_every_input_is_described() {
    for (whose, schema) in integrations::ALL.iter().flat_map(schemas) {
        assert_eq!(
            (&schema["type"], &schema["additionalProperties"]),
            (&json!("object"), &json!(false)),
            "{whose}: make it a struct with `#[serde(deny_unknown_fields)]`"
        );
        for (name, property) in schema["properties"].as_object().unwrap() {
            let kind = property["type"].as_str().unwrap_or_default();
            assert!(
                ["string", "boolean", "integer", "number"].contains(&kind),
                "{whose}.{name}: a command-line flag must be able to hold it, so make it a string, a \
                 boolean or a number (its schema is {property})"
            );
            for nested in ["properties", "items", "$ref", "anyOf", "oneOf", "allOf"] {
                assert!(
                    property.get(nested).is_none(),
                    "{whose}.{name}: take `{nested}` out of its schema"
                );
            }
            let described = property["description"]
                .as_str()
                .is_some_and(|text| !text.trim().is_empty());
            assert!(
                described,
                "{whose}.{name}: add a doc comment, which is the operator's help"
            );
        }
    }
}

/// Long enough for every rule so far, and found by a search.
const CANARY: &str = "canary-3f1c9a7e-of-a-secret-input";

/// A value that fits: the field's own example, else one made from its type and name.
pub fn sample(schema: &Value, field: &Field) -> Value {
    let property = &schema["properties"][&field.name];
    if let Some(example) = property["examples"].get(0) {
        return example.clone();
    }
    if let Some(default) = &field.default {
        return default.clone();
    }
    if let Some(choice) = field.choices.first() {
        return json!(choice);
    }
    if field.name == AUTHORITIES {
        return json!(include_str!("../peers/tls/authority.pem"));
    }
    let name = field.name.replace('_', "-");
    match (field.kind.as_str(), field.format.as_deref()) {
        ("boolean", _) => json!(true),
        ("integer" | "number", _) => json!(property["minimum"].as_u64().unwrap_or(1)),
        (_, Some("uri")) if field.secret => json!(format!("https://{name}.example.org/{CANARY}")),
        (_, Some("uri")) => json!(format!("https://{name}.example.org")),
        (_, Some("email")) => json!(format!("{name}@example.org")),
        _ if field.secret => json!(CANARY),
        _ => json!(format!("my-{name}")),
    }
}

/// Inputs for every field that can stand beside the others.
fn samples(schema: &Value) -> Map<String, Value> {
    let fields = api::inputs::fields(schema);
    let mut samples: Map<String, Value> = fields
        .iter()
        .map(|field| (field.name.clone(), sample(schema, field)))
        .collect();
    // Of alternatives, the first is shown.
    let others = schema["oneOf"].as_array().into_iter().flatten().skip(1);
    let excluded = names(&schema["not"]["required"]).skip(1);
    for name in others
        .flat_map(|other| names(&other["required"]))
        .chain(excluded)
    {
        samples.remove(name);
    }
    let dependent = schema["dependentRequired"].as_object();
    let dependent: Vec<_> = dependent.into_iter().flatten().collect();
    while let Some((name, _)) = dependent.iter().find(|(name, needed)| {
        samples.contains_key(*name) && names(needed).any(|one| !samples.contains_key(one))
    }) {
        samples.remove(*name);
    }
    samples
}

pub fn names(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Samples that the integration itself accepts.
fn accepted(
    whose: &str,
    schema: &Value,
    check: fn(&Map<String, Value>) -> Vec<Fault>,
) -> Map<String, Value> {
    let mut inputs = samples(schema);
    // What belongs to another choice than the first is left out.
    for fault in check(&inputs) {
        if fault.detail.starts_with("belongs to ") {
            inputs.remove(&fault.field);
        }
    }
    let faults = check(&inputs);
    assert!(
        faults.is_empty(),
        "{whose}: add `#[schemars(example = …)]` with a value that fits to each of these: {faults:?}"
    );
    inputs
}

#[test]
fn a_secret_input_is_write_only_and_debug_never_shows_it() {
    /// Names of secrets that are none.
    const OPEN: [(&str, &str); 1] = [(
        "access_key_id",
        "AWS prints it in its own logs; the secret is the key that belongs to it",
    )];
    let sounds_secret = |name: &str| {
        [
            "secret",
            "password",
            "passphrase",
            "token",
            "credential",
            "key",
        ]
        .iter()
        .any(|word| name.contains(word))
    };
    for (one, typed) in all() {
        for (whose, schema) in schemas(one) {
            for field in api::inputs::fields(&schema) {
                let open = OPEN.iter().any(|(name, _)| *name == field.name);
                assert!(
                    field.secret || open || !sounds_secret(&field.name),
                    "{whose}.{}: make it a `SecretText` or a `SecretUrl`, or say in `OPEN` why it is none",
                    field.name
                );
            }
        }
        let attachment = api::inputs::fields(&(one.attachment_schema)());
        assert!(
            attachment.iter().all(|field| !field.secret),
            "{}: move the attachment's secret to the registration, which alone has a place for one",
            one.id
        );
        let schema = (one.registration_schema)();
        let inputs = accepted(one.id, &schema, one.check_registration);
        let shown = (typed.debug)(inputs.clone());
        for field in api::inputs::fields(&schema)
            .into_iter()
            .filter(|field| field.secret)
        {
            let text = inputs[&field.name].as_str().unwrap();
            // Of a secret URL, the host may be shown.
            let hidden = text
                .split_once("://")
                .and_then(|(_, rest)| rest.split_once('/'));
            let hidden = hidden.map_or(text, |(_, path)| path);
            assert!(
                !shown.contains(hidden),
                "{}: `Debug` of Registration shows {}: keep it in a `SecretText` or a `SecretUrl`",
                one.id,
                field.name
            );
        }
    }
}

#[test]
fn an_unknown_input_and_a_missing_one_are_faults_that_name_it() {
    for one in integrations::ALL {
        let checks = [one.check_registration, one.check_attachment];
        for ((whose, schema), check) in schemas(one).into_iter().zip(checks) {
            let inputs = accepted(&whose, &schema, check);
            let named = |inputs: &Map<String, Value>, name: &str| {
                check(inputs)
                    .iter()
                    .any(|fault| fault.field == name && !fault.detail.is_empty())
            };
            let mut more = inputs.clone();
            more.insert("no_such_input".into(), json!(1));
            assert!(
                named(&more, "no_such_input"),
                "{whose}: refuse unknown inputs: `#[serde(deny_unknown_fields)]`"
            );
            for field in api::inputs::fields(&schema)
                .into_iter()
                .filter(|field| field.required)
            {
                let mut fewer = inputs.clone();
                fewer.remove(&field.name);
                assert!(
                    named(&fewer, &field.name),
                    "{whose}: name {} when it is missing",
                    field.name
                );
            }
        }
    }
}

// --- what belongs to an integration -------------------------------------------------------------------

#[test]
fn each_integration_has_its_function_which_names_exactly_its_type() {
    for (one, typed) in all() {
        let file = format!("{BINARIES}/deliver-{}.rs", one.id);
        let text = fs::read_to_string(root().join(&file)).unwrap_or_default();
        assert!(
            !text.is_empty(),
            "add {file}, alike {BINARIES}/deliver-webhook.rs"
        );
        let (module, name) = typed.path.rsplit_once("::").unwrap();
        assert_eq!(
            name,
            camel(one.id),
            "{}: name its type {}",
            one.id,
            camel(one.id)
        );
        for line in [
            format!("use {module}::{name};"),
            format!("aws::deliver::<{name}>().await"),
        ] {
            assert!(text.contains(&line), "{file}: write `{line}`");
        }
        assert_eq!(
            text.matches("integrations::").count(),
            1,
            "{file}: name one integration"
        );
    }
}

#[test]
fn functions_only_assemble() {
    for function in functions() {
        let file = format!("{BINARIES}/{function}.rs");
        let text = fs::read_to_string(root().join(&file)).unwrap();
        assert!(
            text.lines().count() <= 12,
            "{file}: move what it does to shared/; a function assembles"
        );
        assert!(
            !has_word(&text, "if"),
            "{file}: move the `if` to shared/pipeline"
        );
        if let Some(id) = function.strip_prefix("deliver-") {
            assert!(
                integrations::find(id).is_some(),
                "delete {file}, or add its integration to `for_all_integrations!`"
            );
        }
    }
}

/// Places where a line may name an integration: start of the path, text beside the name, and reason.
const EXCEPTIONS: [(&str, &str, &str); 10] = [
    (
        "shared/attestation/src/attestation.rs",
        "// ",
        "says in a comment who reads the bytes in the end",
    ),
    (
        "cli/src/integration/",
        "chainloop integration ",
        "an example in the help has to work as it is typed",
    ),
    (
        "cli/src/apply/mod.rs",
        "      integration: ",
        "an example in the help has to work as it is typed",
    ),
    (
        "cli/src/intake.rs",
        "chainloop integration registered add",
        "is typed in Chainloop's own command line, whose integration has that name",
    ),
    (
        "infra/local/demo.py",
        "",
        "plays an operator, who registers two of them by name",
    ),
    (
        "infra/local/bench.py",
        "",
        "plays an operator, whose commands it times",
    ),
    (
        "infra/local/api.py",
        "",
        "registers what needs no more than the receiver",
    ),
    (
        "infra/local/receiver.py",
        "",
        "is the other end of one of them",
    ),
    (
        "infra/local/kill.py",
        "",
        "plays an operator, and stops the queue of the one it delivers through",
    ),
    (
        "infra/local/traffic/api.py",
        "",
        "plays an operator, who registers one of them",
    ),
];

/// Else whoever may change a registration could have its secrets sent to themselves.
#[test]
fn every_integration_with_secrets_says_where_they_are_sent() {
    for one in integrations::ALL {
        let schema = (one.registration_schema)();
        let properties = schema["properties"].as_object().unwrap().iter();
        // Whom to trust says nothing of where.
        let properties = properties.filter(|(name, _)| *name != AUTHORITIES);
        let has = |is: fn(&Value) -> bool| properties.clone().any(|(_, property)| is(property));
        let is_secret = |property: &Value| property["writeOnly"] == true;
        // A URL that is itself secret is replaced together with all that is.
        let is_secret_url =
            |property: &Value| property["writeOnly"] == true && property["format"] == "uri";
        let is_marked = |property: &Value| property[api::inputs::DESTINATION] == true;
        assert!(
            !has(is_secret) || has(is_secret_url) || has(is_marked),
            "{}: mark the inputs that say where its secrets go with `extend(\"x-destination\" = true)`",
            one.id
        );
    }
}

/// Reports whether the integration speaks to a host that an operator chose, possibly inside the organization.
fn is_anywhere(one: &Description, inputs: &Map<String, Value>) -> bool {
    let schema = (one.registration_schema)();
    schema["properties"]
        .as_object()
        .unwrap()
        .iter()
        .any(|(name, property)| {
            if property["writeOnly"] != true {
                return name != AUTHORITIES && property[api::inputs::DESTINATION] == true;
            }
            let mut elsewhere = inputs.clone();
            elsewhere.insert(
                name.clone(),
                json!("https://hooks.inside.example.org/canary"),
            );
            property["format"] == "uri" && (one.check_registration)(&elsewhere).is_empty()
        })
}

#[test]
fn authorities_of_ones_own_are_trusted_where_the_host_is_ones_own_and_nowhere_else() {
    for (one, typed) in all() {
        let schema = (one.registration_schema)();
        let mut inputs = accepted(one.id, &schema, one.check_registration);
        let anywhere = is_anywhere(one, &inputs);
        let takes = inputs.contains_key(AUTHORITIES);
        assert_eq!(
            takes, anywhere,
            "{}: give its registration {AUTHORITIES}",
            one.id
        );
        if !takes {
            continue;
        }
        assert_eq!(
            (typed.trusts)(inputs.clone()),
            1,
            "{}: write `authorities`",
            one.id
        );
        let property = &schema["properties"][AUTHORITIES];
        assert_eq!(
            property[api::inputs::DESTINATION],
            true,
            "{}: {property}",
            one.id
        );
        for wrong in ["canary", ""] {
            inputs.insert(AUTHORITIES.into(), json!(wrong));
            let faults = (one.check_registration)(&inputs);
            let [fault] = &faults[..] else {
                panic!("{}: {faults:?}", one.id)
            };
            assert_eq!(fault.field, AUTHORITIES, "{}", one.id);
            assert!(!fault.detail.contains("canary"), "{}", fault.detail);
        }
        inputs.remove(AUTHORITIES);
        assert_eq!((typed.trusts)(inputs), 0, "{}", one.id);
    }
}

#[test]
fn an_id_occurs_in_its_own_places_alone() {
    let template = template::lines_of_integrations();
    let mut needed = BTreeSet::new();
    let mut found = Vec::new();
    for folder in ["shared", "cli/src", "functions", "infra"] {
        for path in files(&root().join(folder), &["rs", "toml", "yaml", "py", "sh"]) {
            let file = path
                .strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let text = without_tests(&fs::read_to_string(&path).unwrap()).to_owned();
            for one in integrations::ALL {
                let own = [
                    format!("shared/integrations/src/{}.rs", snake(one.id)),
                    format!("shared/integrations/src/{}/", snake(one.id)),
                    format!("{BINARIES}/deliver-{}.rs", one.id),
                ];
                if own.iter().any(|own| file.starts_with(own.as_str())) {
                    continue;
                }
                // `webhook` is a word like others where `slack-webhook` is at home.
                let is_word = integrations::ALL.iter().any(|other| {
                    other.id.split('-').any(|word| word == one.id)
                        && file.starts_with(&format!("shared/integrations/src/{}", snake(other.id)))
                });
                if is_word {
                    continue;
                }
                for (number, line) in text.lines().enumerate() {
                    let listed = [
                        format!("pub mod {};", snake(one.id)),
                        format!("$crate::{}::{}", snake(one.id), camel(one.id)),
                    ];
                    if file == "shared/integrations/src/lib.rs"
                        && listed.iter().any(|listed| line.contains(listed.as_str()))
                        || file == "infra/template.yaml"
                            && template.iter().any(|listed| listed == line)
                        || !is_named(line, one.id)
                    {
                        continue;
                    }
                    let exception = EXCEPTIONS.iter().find(|(place, beside, _)| {
                        file.starts_with(place) && line.contains(beside)
                    });
                    match exception {
                        Some((place, ..)) => {
                            needed.insert(*place);
                        }
                        None => found.push(format!("{file}:{}: {}", number + 1, line.trim())),
                    }
                }
            }
        }
    }
    assert!(
        found.is_empty(),
        "these lines name an integration: move what they know into its module, or add to \
         EXCEPTIONS with a reason\n{}",
        found.join("\n")
    );
    let unneeded: Vec<_> = EXCEPTIONS
        .iter()
        .filter(|(place, ..)| !needed.contains(place))
        .collect();
    assert!(unneeded.is_empty(), "delete from EXCEPTIONS: {unneeded:?}");
}

/// Reports whether a line contains the ID in any of its spellings.
fn is_named(line: &str, id: &str) -> bool {
    let camel = camel(id);
    // `GuacQueue` has the name of `guac`, `Guacamole` has not.
    let begins = line.match_indices(&camel).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + camel.len()..]);
        !before.ends_with(is_part) && after.starts_with(|next: char| next.is_ascii_uppercase())
    });
    let lower = line.to_lowercase();
    begins
        || [id.to_owned(), snake(id), camel.to_lowercase()]
            .iter()
            .any(|form| has_word(&lower, form))
}

fn is_part(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_' || letter == '-'
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    })
}

#[test]
fn a_name_is_found_in_every_spelling_and_not_within_another() {
    for line in [
        "\"slack-webhook\"",
        "slack_webhook::Registration",
        "SlackWebhookQueue:",
        "SlackWebhook",
    ] {
        assert!(is_named(line, "slack-webhook"), "{line}");
    }
    for line in [
        "\"slack-webhook\"",
        "slack_webhook",
        "webhooks",
        "Webhooks:",
        "SlackWebhookQueue:",
    ] {
        assert!(!is_named(line, "webhook"), "{line}");
    }
}

// --- what the crates know of each other ---------------------------------------------------------------

/// The names below `[dependencies]` and the like, without those of tests.
fn dependencies(folder: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let mut section = "";
    let mut names = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
            assert!(
                !line.contains("dependencies."),
                "{folder}/Cargo.toml: write {line} on one line"
            );
        } else if section.ends_with("dependencies]") && section != "[dev-dependencies]" {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            names.extend((!name.is_empty() && !name.starts_with('#')).then(|| name.to_owned()));
        }
    }
    names
}

const BINARIES: &str = "functions/src/bin";

/// Lists the functions' names, in order.
pub fn functions() -> Vec<String> {
    let sources = files(&root().join("functions"), &["rs"]).into_iter();
    let names = sources.map(|path| {
        assert_eq!(
            path.parent().unwrap(),
            root().join(BINARIES),
            "{}: a function is one file of {BINARIES}",
            path.display()
        );
        path.file_stem().unwrap().to_str().unwrap().to_owned()
    });
    names.collect()
}

fn folders(parent: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(parent))
        .unwrap()
        .map(Result::unwrap);
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn dependencies_run_downwards_only() {
    // Each may use those before it.
    const OURS: [&str; 7] = [
        "attestation",
        "web",
        "api",
        "verify",
        "integrations",
        "pipeline",
        "aws",
    ];
    for name in folders("shared") {
        let place = OURS.iter().position(|own| *own == name);
        let place = place.unwrap_or_else(|| panic!("give shared/{name} its place in this test"));
        for dependency in dependencies(&format!("shared/{name}")) {
            assert!(
                !OURS[place..].contains(&dependency.as_str()),
                "shared/{name}/Cargo.toml: take {dependency} out: it lies above"
            );
        }
    }
}

/// A program that pushes and prints tables needs neither an SDK nor what delivers.
#[test]
fn the_command_line_uses_the_api_and_little_else() {
    let manifest = fs::read_to_string(root().join("cli/Cargo.toml")).unwrap();
    for above in ["integrations", "pipeline", "aws"] {
        let optional = format!("\n{above} = {{ workspace = true, optional = true }}\n");
        assert!(
            manifest.contains(&optional) || !dependencies("cli").contains(above),
            "cli/Cargo.toml: {above} is for the feature `aws` alone"
        );
    }
    for path in files(&root().join("cli/src"), &["rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let is_account = path.ends_with("account/calls.rs");
        for above in ["integrations", "pipeline", "aws"] {
            assert!(
                is_account || !crates(code).contains(above),
                "{}: take {above} out",
                path.display()
            );
        }
    }
}

#[test]
fn only_aws_names_a_service_or_lambda() {
    let folders = folders("shared")
        .into_iter()
        .map(|name| format!("shared/{name}"));
    for folder in folders.chain(["functions".to_owned(), "cli".to_owned()]) {
        if folder == "shared/aws" {
            continue;
        }
        for dependency in dependencies(&folder) {
            assert!(
                !dependency.starts_with("aws-") && !dependency.starts_with("lambda"),
                "{folder}/Cargo.toml: take {dependency} out and ask shared/aws for what it is needed for"
            );
        }
    }
}

/// Past the edge, a third party's words would be kept with the credentials that it repeats.
#[test]
fn only_the_edge_asks_an_integration() {
    for folder in [
        "shared/pipeline/src",
        "shared/aws/src",
        "functions",
        "cli/src",
    ] {
        for path in files(&root().join(folder), &["rs"]) {
            let text = fs::read_to_string(&path).unwrap();
            for asks in ["register", "attach", "deliver", "follow", "preview"] {
                let call = format!("I::{asks}(");
                assert!(
                    !text.contains(&call),
                    "{}: ask by `Registered`, not by `{call}`",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn integrations_log_nothing_of_their_own() {
    // A log line leaves past the edge, and so past the redactor. The guard logs hosts that it has masked.
    for path in files(&root().join("shared/integrations/src"), &["rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        let is_guard = path.ends_with("http/guard.rs");
        assert!(
            is_guard || !text.contains("tracing::"),
            "{}: say it in the receipt, a warning or an error",
            path.display()
        );
    }
}

#[test]
fn the_guarded_client_alone_makes_connections() {
    let ways = [
        "TcpStream::connect",
        "TcpSocket",
        "UdpSocket",
        "UnixStream",
        "lookup_host",
        "to_socket_addrs",
        "HttpConnector",
    ];
    let mut found = BTreeSet::new();
    for folder in ["shared", "functions"] {
        for path in files(&root().join(folder), &["rs"]) {
            let file = path.strip_prefix(root()).unwrap().display().to_string();
            if file.contains("/tests") || file.ends_with("/fixture.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let text = without_tests(&text);
            if ways.iter().any(|way| text.contains(way)) {
                found.insert(file);
            }
        }
    }
    let ways = [
        "aws/src/connections.rs",
        "integrations/src/http/dial.rs",
        "integrations/src/http/proxy.rs",
    ];
    let ways = ways.map(|file| format!("shared/{file}"));
    assert_eq!(
        found,
        BTreeSet::from(ways),
        "third parties are dialed by `integrations::http`, AWS by `aws::Connections`"
    );
}

/// Finds the crates that a source names: the first parts of its paths.
fn crates(source: &str) -> BTreeSet<&str> {
    let paths = source.split(|letter: char| !letter.is_alphanumeric() && !"_:".contains(letter));
    paths
        .filter_map(|path| Some(path.split_once("::")?.0))
        .collect()
}

/// Keeps functions from carrying code that they do not need.
#[test]
fn a_function_names_what_it_assembles_alone() {
    for function in functions() {
        let file = format!("{BINARIES}/{function}.rs");
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let assembled = match function.starts_with("deliver-") {
            true => ["aws", "tokio", "integrations"],
            false => ["aws", "tokio", "pipeline"],
        };
        for named in crates(&text) {
            assert!(assembled.contains(&named), "{file}: take {named} out");
        }
    }
    let all = ["aws", "integrations", "pipeline", "tokio"];
    assert!(dependencies("functions").into_iter().eq(all));
    let example = "use a::b::{c, d};\n#[e::main] fn f() { g::<h>(i::j()) } // k: l";
    assert!(crates(example).into_iter().eq(["a", "e", "g", "i"]));
}

#[test]
fn the_pipeline_has_no_clock_no_randomness_and_no_tasks_of_its_own() {
    const BANNED: [(&str, &str); 8] = [
        ("tokio::spawn", "let the caller poll: FuturesUnordered"),
        ("tokio::time", "ask the Platform: sleep"),
        ("tokio::task", "let the caller poll: FuturesUnordered"),
        ("SystemTime::now", "ask the Platform: now"),
        ("Instant::now", "ask the Platform: now"),
        ("Timestamp::now", "ask the Platform: now"),
        ("getrandom", "ask the Platform: random"),
        ("rand", "ask the Platform: random"),
    ];
    for folder in ["shared/pipeline", "shared/attestation", "shared/verify"] {
        for path in files(&root().join(folder), &["rs", "toml"]) {
            let text = fs::read_to_string(&path).unwrap();
            for (number, line) in without_tests(&text).lines().enumerate() {
                for (banned, instead) in BANNED {
                    assert!(
                        !has_word(line, banned),
                        "{}:{}: no {banned} here, or a seed does not replay; {instead}",
                        path.display(),
                        number + 1
                    );
                }
            }
        }
    }
}

// --- the tree -----------------------------------------------------------------------------------------

#[test]
fn the_tests_of_every_crate_are_run() {
    let script = fs::read_to_string(root().join("infra/run-tests.sh")).unwrap();
    let own = ["functions", "shared", "cli", "tests"];
    let manifests = own
        .iter()
        .flat_map(|folder| files(&root().join(folder), &["toml"]));
    let mut with_tests = 0;
    for manifest in manifests.filter(|path| path.ends_with("Cargo.toml")) {
        let text = fs::read_to_string(&manifest).unwrap();
        let name = text.lines().find_map(|line| line.strip_prefix("name = "));
        let name = name.unwrap().trim_matches('"');
        let sources = files(&manifest.with_file_name("src"), &["rs"]);
        let has_tests = sources.iter().any(|source| {
            let text = fs::read_to_string(source).unwrap();
            text.contains("#[test]") || text.contains("#[tokio::test]")
        });
        if has_tests {
            with_tests += 1;
            let named = format!("--package {name} ");
            assert!(script.contains(&named), "add {named}to infra/run-tests.sh");
        }
    }
    assert!(with_tests > 8, "{with_tests} crates have tests");
}

/// The workspace's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All files below a folder whose names end so, in order.
pub fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.unwrap().path();
            let ending = path
                .extension()
                .and_then(|ending| ending.to_str())
                .unwrap_or_default();
            if path.is_dir() {
                folders.push(path);
            } else if endings.contains(&ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A file's text up to its own tests, which stand at its end.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
}

pub fn snake(id: &str) -> String {
    id.replace('-', "_")
}

pub fn camel(id: &str) -> String {
    let words = id
        .split('-')
        .map(|word| word[..1].to_uppercase() + &word[1..]);
    words.collect()
}
