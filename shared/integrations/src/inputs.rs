//! Inputs for an operator to fill in: one flat struct per phase. The JSON Schema, the CLI's tables, validation and the
//! documents follow from it. A secret field is marked once, by its type.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use api::inputs::{Fault, NOT_A_URL, check_schema, is_secret, properties, web_url};
use attestation::Digest;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer};
use serde_json::{Map, Value, json};

use crate::template::{self, Template};

/// A registration's or an attachment's inputs: a flat struct with doc comments and `deny_unknown_fields`.
pub trait Inputs: DeserializeOwned + JsonSchema + std::fmt::Debug + 'static {}
impl<T: DeserializeOwned + JsonSchema + std::fmt::Debug + 'static> Inputs for T {}

/// A secret that is text: a key, a password, a token.
#[derive(Clone)]
pub struct SecretText(SecretString);

impl SecretText {
    /// The text itself, for the send and for nothing else.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)? {
            text if text.is_empty() => Err(de::Error::custom("must not be empty")),
            text => Ok(Self(text.into())),
        }
    }
}

impl JsonSchema for SecretText {
    fn schema_name() -> Cow<'static, str> {
        "SecretText".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "password", "writeOnly": true, "minLength": 1 })
    }
}

/// A URL whose path or query is a secret: whoever has it can post.
///
/// Absolute, http or https, with a host and without `user:password@`; a fragment, which is never sent, is
/// dropped. Which schemes and addresses may be reached is for [`Http`](crate::Http) to say.
#[derive(Clone)]
pub struct SecretUrl {
    url: SecretString,
    /// Scheme, host and port.
    origin: String,
}

impl SecretUrl {
    /// The URL itself, for the send and for nothing else.
    pub fn expose(&self) -> &str {
        self.url.expose_secret()
    }

    /// Scheme, host and port, which may be shown.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// `https://hooks.example.org/… (fingerprint 1a2b3c4d)`: tells two apart and reveals neither.
    pub fn label(&self) -> String {
        let fingerprint = Digest::of(self.expose().as_bytes())
            .hex()
            .chars()
            .take(8)
            .collect::<String>();
        format!("{}/… (fingerprint {fingerprint})", self.origin)
    }
}

impl TryFrom<String> for SecretUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut url = web_url(&text)?;
        url.set_fragment(None);
        let origin = api::inputs::origin(&url);
        if url.as_str().parse::<http::Uri>().is_err() {
            return Err(NOT_A_URL);
        }
        Ok(Self {
            url: String::from(url).into(),
            origin,
        })
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .try_into()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for SecretUrl {
    fn schema_name() -> Cow<'static, str> {
        "SecretUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "uri", "writeOnly": true, "minLength": 1 })
    }
}

/// The JSON Schema (draft 2020-12) of `T`: one flat object, each of whose properties is one scalar with one
/// type, its description, its default and its choices.
pub fn schema<T: Inputs>() -> Value {
    let mut schema = written::<T>();
    flatten_all(&mut schema);
    schema
}

/// The schema as it follows from the type, in one piece.
fn written<T: JsonSchema>() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let generator = settings.into_generator();
    generator.into_root_schema_for::<T>().to_value()
}

fn flatten_all(schema: &mut Value) {
    let root = schema
        .as_object_mut()
        .expect("a struct's schema is an object");
    root.insert("additionalProperties".to_owned(), json!(false));
    if let Value::Object(properties) = root.entry("properties").or_insert_with(|| json!({})) {
        properties
            .values_mut()
            .filter_map(Value::as_object_mut)
            .for_each(flatten);
    }
}

/// An optional field is one that is left out, not one that is null; a choice is one of a list of strings.
fn flatten(property: &mut Map<String, Value>) {
    for alternatives in ["anyOf", "oneOf"] {
        let Some(Value::Array(all)) = property.remove(alternatives) else {
            continue;
        };
        let mut choices = Vec::new();
        for one in all {
            let Value::Object(mut one) = one else {
                continue;
            };
            if one.get("type") == Some(&json!("null")) {
                continue;
            }
            if let Some(choice) = one.remove("const") {
                choices.push(choice);
                property.insert("type".to_owned(), json!("string"));
            } else {
                flatten(&mut one);
                one.into_iter().for_each(|(key, value)| {
                    property.entry(key).or_insert(value);
                });
            }
        }
        if !choices.is_empty() {
            property.insert("enum".to_owned(), choices.into());
        }
    }
    if let Some(Value::Array(types)) = property.get("type") {
        let one = types.iter().find(|kind| **kind != "null").cloned();
        property.insert("type".to_owned(), one.unwrap_or(Value::Null));
    }
    if let Some(Value::Array(choices)) = property.get_mut("enum") {
        choices.retain(|choice| !choice.is_null());
    }
    if property.get("default") == Some(&Value::Null) {
        property.remove("default");
    }
    // `uint16` and the like: ours, and no operator's.
    if property.get("type") != Some(&json!("string")) {
        property.remove("format");
    }
}

/// All that is wrong with `inputs`, sorted by field; nothing when they are a `T`.
///
/// What the schema can tell comes first. Only inputs that satisfy it are read as a `T`, which has the rules
/// of single types and those between fields.
pub fn check<T: Inputs>(inputs: &Map<String, Value>) -> Vec<Fault> {
    let schema = schema::<T>();
    let mut faults = check_schema(&schema, inputs);
    if faults.is_empty() {
        faults = check_type::<T>(&schema, inputs.clone(), faults);
        check_templates(&schema, inputs, &mut faults);
    }
    faults.sort_by(|a, b| a.field.cmp(&b.field));
    faults
}

/// Checks the templates that had no fault as texts.
fn check_templates(schema: &Value, inputs: &Map<String, Value>, faults: &mut Vec<Fault>) {
    let (keyword, value) = template::KEYWORD;
    for (name, _) in properties(schema).filter(|(_, property)| property[keyword] == value) {
        let text = inputs.get(name).and_then(Value::as_str);
        let text = text.filter(|_| faults.iter().all(|fault| fault.field != *name));
        if let Some(Err(detail)) = text.map(|text| Template::try_from(text.to_owned())) {
            faults.push(Fault::new(name, detail));
        }
    }
}

/// All that is wrong with a request's body, which is as flat as inputs are: single types and what the schema can
/// tell, at once. What is left out where it may be null may be null.
pub fn check_body<T: DeserializeOwned + JsonSchema>(body: &Map<String, Value>) -> Vec<Fault> {
    let mut schema = written::<T>();
    let mut given = body.clone();
    given.retain(|name, value| !value.is_null() || !takes_null(&schema["properties"][name]));
    flatten_all(&mut schema);
    let faults = check_schema(&schema, &given);
    // Those that are left must read well too; gaps are known already.
    let wrong: BTreeSet<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
    given.retain(|name, _| !wrong.contains(name.as_str()));
    let mut faults = check_type::<T>(&schema, given, faults);
    faults.sort_by(|a, b| a.field.cmp(&b.field));
    faults
}

fn takes_null(property: &Value) -> bool {
    let list = |key: &str| property[key].as_array().into_iter().flatten();
    list("type").any(|kind| kind == "null") || list("anyOf").any(|one| one["type"] == "null")
}

/// Reads the inputs as a `T`, again and again without the field that was wrong, until nothing or only the gaps made in
/// this way, or known before, are wrong. A rule between fields may put the name of the one that breaks it in front of
/// its text: `region: belongs to s3`.
fn check_type<T: DeserializeOwned>(
    schema: &Value,
    mut rest: Map<String, Value>,
    mut faults: Vec<Fault>,
) -> Vec<Fault> {
    loop {
        let inputs = Value::Object(rest.clone());
        let Err(error) = serde_path_to_error::deserialize::<_, T>(inputs) else {
            return faults;
        };
        let mut detail = error.inner().to_string();
        let mut field = error
            .path()
            .iter()
            .next()
            .map(ToString::to_string)
            .unwrap_or_default();
        if field.is_empty()
            && let Some((name, text)) = detail.split_once(": ")
            && properties(schema).any(|(own, _)| own == name)
        {
            (field, detail) = (name.to_owned(), text.to_owned());
        }
        if rest.remove(&field).is_some() {
            faults.push(Fault::new(&field, detail));
            continue;
        }
        let is_gap = faults.iter().any(|fault| fault.field == field);
        if faults.is_empty() || !field.is_empty() && !is_gap {
            faults.push(Fault::new(&field, detail));
        }
        return faults;
    }
}

/// Takes the secret fields out of the others: (configuration, secrets).
pub fn split(
    schema: &Value,
    inputs: Map<String, Value>,
) -> (Map<String, Value>, Map<String, Value>) {
    inputs
        .into_iter()
        .partition(|(name, _)| !is_secret(&schema["properties"][name]))
}

/// Returns the displayable part of each secret: the host and a fingerprint of a URL, nothing of a text.
pub fn label(schema: &Value, secrets: &Map<String, Value>) -> Map<String, Value> {
    secrets
        .iter()
        .map(|(name, secret)| {
            let url = schema["properties"][name]["format"] == "uri";
            let text = secret.as_str().filter(|_| url).map(str::to_owned);
            let label = text
                .and_then(|text| SecretUrl::try_from(text).ok())
                .map(|url| url.label());
            (
                name.clone(),
                Value::String(label.unwrap_or_else(|| "…".to_owned())),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use api::inputs::{cast, fields};
    use serde::Serialize;

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(try_from = "Unchecked")]
    #[schemars(with = "Unchecked")]
    #[expect(dead_code, reason = "read by nobody but its own checks")]
    struct Sample(Unchecked);

    /// Not shown
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read by nobody but its own checks")]
    struct Unchecked {
        /// Where it is
        url: SecretUrl,
        /// Key to it
        #[serde(default)]
        key: Option<SecretText>,
        /// How
        #[serde(default)]
        mode: Mode,
        /// How, otherwise
        #[serde(default)]
        other_mode: Option<Mode>,
        #[serde(default = "port")]
        #[schemars(range(min = 1))]
        port: u16,
        #[serde(default)]
        ratio: Option<f64>,
        #[serde(default)]
        quiet: bool,
        #[serde(default)]
        #[schemars(email)]
        mail: Option<String>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        /// The first
        #[default]
        Fast,
        /// The second
        Slow,
    }

    fn port() -> u16 {
        25
    }

    impl TryFrom<Unchecked> for Sample {
        type Error = &'static str;

        fn try_from(sample: Unchecked) -> Result<Self, Self::Error> {
            let clash = sample.quiet && sample.mail.is_some();
            if clash {
                Err("quiet and mail exclude each other")
            } else {
                Ok(Self(sample))
            }
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "called with json!")]
    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn faults(inputs: Value) -> Vec<(String, String)> {
        check::<Sample>(&object(inputs))
            .into_iter()
            .map(|fault| (fault.field, fault.detail))
            .collect()
    }

    #[test]
    fn a_bodys_faults_of_form_and_of_type_are_said_at_once() {
        let body = object(json!({ "url": "no URL", "quiet": 1, "mode": "slwo", "x": null }));
        let faults = check_body::<Unchecked>(&body);
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["mode", "quiet", "url", "x"]);
    }

    #[test]
    fn a_body_may_say_null_only_where_its_type_may() {
        let url = "https://example.org/hook";
        let body = object(json!({ "url": url, "key": null, "other_mode": null, "mail": null }));
        assert_eq!(check_body::<Unchecked>(&body), []);
        let body = object(json!({ "url": null, "quiet": null, "mode": null }));
        let faults = check_body::<Unchecked>(&body);
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["mode", "quiet", "url"]);
    }

    fn one(inputs: Value) -> String {
        let [(field, detail)] = &faults(inputs)[..] else {
            panic!("not one fault")
        };
        format!("{field} {detail}")
    }

    const URL: &str = "https://hooks.example.org/services/canary?x=canary";

    #[test]
    fn a_schema_is_flat() {
        let schema = schema::<Sample>();
        let properties = &schema["properties"];
        assert_eq!(schema["additionalProperties"], false);
        assert!(schema.get("$defs").is_none());
        assert_eq!(
            properties["url"],
            json!({ "type": "string", "format": "uri", "writeOnly": true, "minLength": 1, "description": "Where it is" })
        );
        assert_eq!(
            properties["key"],
            json!({ "type": "string", "format": "password", "writeOnly": true, "minLength": 1, "description": "Key to it" })
        );
        let mode = json!({ "type": "string", "enum": ["fast", "slow"], "default": "fast", "description": "How" });
        assert_eq!(properties["mode"], mode);
        let mode =
            json!({ "type": "string", "enum": ["fast", "slow"], "description": "How, otherwise" });
        assert_eq!(properties["other_mode"], mode);
        assert_eq!(
            properties["port"],
            json!({ "type": "integer", "minimum": 1, "maximum": 65535, "default": 25 })
        );
        assert_eq!(properties["ratio"], json!({ "type": "number" }));
        assert_eq!(
            properties["mail"],
            json!({ "type": "string", "format": "email" })
        );
    }

    #[test]
    fn every_integration_has_flat_schemas_with_descriptions() {
        for integration in crate::ALL {
            for schema in [
                (integration.registration_schema)(),
                (integration.attachment_schema)(),
            ] {
                assert_eq!(schema["type"], "object");
                assert_eq!(schema["additionalProperties"], false);
                let text = schema.to_string();
                assert!(!text.contains("$ref") && !text.contains("$defs"), "{text}");
                for field in fields(&schema) {
                    let scalar = matches!(
                        field.kind.as_str(),
                        "string" | "boolean" | "integer" | "number"
                    );
                    assert!(
                        scalar && !field.description.is_empty(),
                        "{} {field:?}",
                        integration.id
                    );
                    assert!(
                        !field.description.contains('\n'),
                        "{} {field:?}",
                        integration.id
                    );
                }
            }
        }
    }

    #[test]
    fn every_template_is_told_by_its_schema_and_checked() {
        let (keyword, value) = template::KEYWORD;
        let mut found = Vec::new();
        for integration in crate::ALL {
            for schema in [
                (integration.registration_schema)(),
                (integration.attachment_schema)(),
            ] {
                let templates =
                    properties(&schema).filter(|(_, property)| property[keyword] == value);
                found.extend(templates.map(|(name, _)| format!("{} {name}", integration.id)));
            }
        }
        // Each field of the type `Template`: one that is not here is not checked.
        assert_eq!(
            found,
            [
                "dependency-track parentName",
                "dependency-track parentVersion",
                "dependency-track projectName",
                "dependency-track projectVersion",
                "discord-webhook template",
                "slack-webhook template",
                "smtp subject",
                "smtp template",
            ]
        );
    }

    #[test]
    fn fields_are_sorted_and_say_what_they_are() {
        let fields = fields(&schema::<Sample>());
        let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "key",
                "mail",
                "mode",
                "other_mode",
                "port",
                "quiet",
                "ratio",
                "url"
            ]
        );
        let url = fields.last().unwrap();
        assert!(url.required && url.secret);
        assert_eq!(fields[2].choices, ["fast", "slow"]);
        assert_eq!(fields[2].default, Some(json!("fast")));
        assert_eq!(fields[1].default, None);
    }

    #[test]
    fn good_inputs_have_no_fault() {
        assert_eq!(faults(json!({ "url": URL })), []);
        assert_eq!(
            faults(json!({
                "url": URL, "key": "k", "mode": "slow", "other_mode": "fast", "port": 1, "ratio": 1,
                "quiet": true,
            })),
            []
        );
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let found = faults(json!({
            "key": 5, "mode": "canary", "prot": 1, "quiet": "yes", "mail": "canary", "port": 0, "ratio": "x",
        }));
        let expected = [
            ("key", "must be of type string"),
            ("mail", "must be one mail address, as in name@example.org"),
            ("mode", "must be one of fast, slow"),
            ("port", "must be at least 1"),
            ("prot", "is not known; did you mean \"port\"?"),
            ("quiet", "must be of type boolean"),
            ("ratio", "must be of type number"),
            ("url", "is required"),
        ];
        let expected = expected.map(|(field, detail)| (field.to_owned(), detail.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn an_unknown_field_far_from_all_gets_the_list() {
        let detail = one(json!({ "url": URL, "zzz": 1 }));
        assert_eq!(
            detail,
            "zzz is not known; there is key, mail, mode, other_mode, port, quiet, ratio, url"
        );
        assert_eq!(
            one(json!({ "url": URL, "Mode": "fast" })),
            "Mode is not known; did you mean \"mode\"?"
        );
    }

    #[test]
    fn a_rule_between_fields_names_none() {
        let detail = one(json!({ "url": URL, "quiet": true, "mail": "a@example.org" }));
        assert_eq!(detail, " quiet and mail exclude each other");
    }

    #[test]
    fn null_is_not_a_value() {
        assert_eq!(
            one(json!({ "url": URL, "key": null })),
            "key must be of type string"
        );
        assert_eq!(
            one(json!({ "url": URL, "key": "" })),
            "key must not be empty"
        );
        assert_eq!(
            one(json!({ "url": URL, "port": 1.5 })),
            "port must be of type integer"
        );
        assert_eq!(
            one(json!({ "url": URL, "port": 70000 })),
            "port must be at most 65535"
        );
    }

    #[test]
    fn a_fault_holds_no_secret() {
        for url in [
            "canary",
            "ftp://canary",
            "https://canary:canary@example.org/",
            "//example.org/canary",
            "https://exa mple.org/canary",
            "https://[canary",
            "mailto:canary",
        ] {
            let detail = one(json!({ "url": url }));
            assert!(!detail.contains("canary"), "{detail}");
        }
        let detail = one(json!({ "url": ["canary"] }));
        assert!(!detail.contains("canary"), "{detail}");
    }

    #[test]
    fn secrets_are_split_off_and_labelled() {
        let schema = schema::<Sample>();
        let (config, secrets) = split(
            &schema,
            object(json!({ "url": URL, "key": "canary", "port": 25 })),
        );
        assert_eq!(config, object(json!({ "port": 25 })));
        assert_eq!(secrets, object(json!({ "url": URL, "key": "canary" })));
        let labels = label(&schema, &secrets);
        let fingerprint = &Digest::of(URL.as_bytes()).hex()[..8];
        let url = format!("https://hooks.example.org/… (fingerprint {fingerprint})");
        assert_eq!(labels, object(json!({ "url": url, "key": "…" })));
    }

    #[test]
    fn debug_shows_no_secret() {
        let inputs = json!({ "url": URL, "key": "canary" });
        let shown = format!("{:?}", serde_json::from_value::<Sample>(inputs).unwrap());
        assert!(
            !shown.contains("canary") && shown.contains("https://hooks.example.org/…"),
            "{shown}"
        );
    }

    #[test]
    fn a_secret_url_is_kept_as_it_will_be_sent() {
        let url = |text: &str| SecretUrl::try_from(text.to_owned()).unwrap();
        assert_eq!(
            url("HTTPS://Bücher.example:443/ä b#part").expose(),
            "https://xn--bcher-kva.example/%C3%A4%20b"
        );
        assert_eq!(url("http://0x7f.1:8080").origin(), "http://127.0.0.1:8080");
        assert_eq!(url("http://0x7f.1:8080").expose(), "http://127.0.0.1:8080/");
    }

    #[test]
    fn options_are_cast_by_type() {
        let fields = fields(&schema::<Sample>());
        let field = |name: &str| fields.iter().find(|field| field.name == name).unwrap();
        for yes in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(cast(field("quiet"), yes), Ok(json!(true)));
        }
        for no in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(cast(field("quiet"), no), Ok(json!(false)));
        }
        assert_eq!(cast(field("port"), "-7"), Ok(json!(-7)));
        assert_eq!(cast(field("ratio"), "0.5"), Ok(json!(0.5)));
        assert_eq!(cast(field("url"), "1"), Ok(json!("1")));
        let detail = |name, text| cast(field(name), text).unwrap_err().detail;
        assert_eq!(
            detail("quiet", "yes"),
            "invalid option \"yes\", the expected format is \"boolean\""
        );
        assert_eq!(
            detail("port", "1.0"),
            "invalid option \"1.0\", the expected format is \"integer\""
        );
        assert_eq!(
            detail("ratio", "NaN"),
            "invalid option \"NaN\", the expected format is \"number\""
        );
    }

    /// By comparing each with each it would take minutes.
    #[test]
    fn a_body_of_a_hundred_thousand_unknown_names_is_looked_through_at_once() {
        let names = (0..100_000).map(|at| (format!("{at:x}"), json!(0)));
        let started = std::time::Instant::now();
        let faults = check_body::<Unchecked>(&names.collect());
        assert_eq!(faults.len(), 100_001, "and the URL is missing");
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
