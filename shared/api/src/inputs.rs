//! Inputs for an operator to fill in, as their JSON Schema describes them: what both the server and its clients know.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

pub const NOT_A_URL: &str = "must be an absolute http or https URL, as in https://example.org/path";

/// Mark in a registration's schema for inputs that determine where its secrets are sent. Stored secrets go to no
/// place but the one they were given for.
pub const DESTINATION: &str = "x-destination";

/// Mark in a schema for an input that is required where the input that it names is not given.
pub const UNLESS: &str = "x-required-unless";

/// The inputs that say where the secret ones are sent, of those that are another now.
pub fn moved(schema: &Value, old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<String> {
    destinations(schema)
        .filter(|name| old.get(*name) != new.get(*name))
        .cloned()
        .collect()
}

/// Returns the inputs that say where the secret ones are sent.
pub fn destinations(schema: &Value) -> impl Iterator<Item = &String> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let destinations = properties.filter(|(_, property)| property[DESTINATION] == true);
    destinations.map(|(name, _)| name)
}

/// One input, as the operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    pub name: String,
    /// `string`, `boolean`, `integer` or `number`.
    pub kind: String,
    /// `uri`, `email`, `password` …
    pub format: Option<String>,
    pub required: bool,
    /// The input without which it is required, where it is not required anyhow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unless: Option<String>,
    pub default: Option<Value>,
    pub choices: Vec<String>,
    /// Kept in Secrets Manager only and never shown.
    pub secret: bool,
    pub description: String,
}

impl Field {
    /// Reports whether it is missing, where the inputs that `is_given` tells of are given.
    pub fn is_missing(&self, is_given: impl Fn(&str) -> bool) -> bool {
        self.required && !is_given(&self.name) && !self.unless.as_deref().is_some_and(is_given)
    }

    /// Says that it is missing.
    pub fn missing(&self) -> String {
        match &self.unless {
            Some(other) => format!("is required without {other}"),
            None => "is required".to_owned(),
        }
    }
}

/// Something wrong with one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// Empty when the fault is between fields.
    pub field: String,
    /// A sentence that says what is wrong and what would be right; holds no value of a secret field.
    pub detail: String,
}

impl Fault {
    pub fn new(field: &str, detail: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            detail: detail.into(),
        }
    }
}

/// The inputs that a [`schema`] describes, sorted by name.
pub fn fields(schema: &Value) -> Vec<Field> {
    let required = schema["required"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut fields: Vec<Field> = properties(schema)
        .map(|(name, property)| {
            let text = |key: &str| property[key].as_str().map(str::to_owned);
            let choices = property["enum"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            Field {
                name: name.clone(),
                kind: text("type").unwrap_or_default(),
                format: text("format"),
                required: required.iter().any(|required| required == name)
                    || property.get(UNLESS).is_some(),
                unless: text(UNLESS),
                default: property.get("default").cloned(),
                choices: choices
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
                secret: is_secret(property),
                description: text("description").unwrap_or_default(),
            }
        })
        .collect();
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    fields
}

pub fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

pub fn is_secret(property: &Value) -> bool {
    property["writeOnly"] == true
}

/// Returns the faults in `inputs` that the schema alone can show, for callers that have nothing else.
pub fn check_schema(schema: &Value, inputs: &Map<String, Value>) -> Vec<Fault> {
    let fields = fields(schema);
    let mut faults = Vec::new();
    for name in inputs.keys() {
        if fields.iter().all(|field| field.name != *name) {
            faults.push(Fault::new(name, unknown(name, &fields)));
        }
    }
    for field in &fields {
        match inputs.get(&field.name) {
            None if field.is_missing(|name| inputs.contains_key(name)) => {
                faults.push(Fault::new(&field.name, field.missing()));
            }
            None => {}
            Some(value) => faults.extend(
                wrong(&schema["properties"][&field.name], field, value)
                    .map(|detail| Fault::new(&field.name, detail)),
            ),
        }
    }
    faults
}

fn unknown(name: &str, fields: &[Field]) -> String {
    let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
    match nearest(name, &names) {
        Some(nearest) => format!("is not known; did you mean {nearest:?}?"),
        None if fields.is_empty() => "is not known; there is nothing to fill in".to_owned(),
        None => format!("is not known; there is {}", names.join(", ")),
    }
}

/// Returns the name that a typing error most likely meant: one that begins so, or that few letters make of it. Letter case
/// does not count.
pub fn nearest<'a>(given: &str, names: &[&'a str]) -> Option<&'a str> {
    let most = (given.len() / 3).max(1);
    let given = given.to_lowercase();
    let distance = |name: &str| {
        let (name, len) = (name.to_lowercase(), name.len());
        if given.len() > 1 && name.starts_with(&given) {
            return Some(0);
        }
        // Nobody waits for the distance of a megabyte from a word. What differs by a prefix alone is the opposite: invalid.
        let apart = len.abs_diff(given.len());
        let is_opposite = apart > 1 && (name.ends_with(&given) || given.ends_with(&name));
        (apart <= most && !is_opposite).then(|| strsim::osa_distance(&given, &name))
    };
    let near = names
        .iter()
        .filter_map(|name| Some((distance(name)?, *name)));
    let near = near.filter(|(distance, _)| *distance <= most);
    near.min().map(|(_, name)| name)
}

/// Returns the fault in one value, by its schema.
fn wrong(property: &Value, field: &Field, value: &Value) -> Option<String> {
    let fits = match field.kind.as_str() {
        // Text that is one of Chainloop's, and a number by its nature.
        "string" => value.is_string() || property["x-also"] == "integer" && value.is_u64(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    };
    if !fits {
        return Some(format!("must be of type {}", field.kind));
    }
    if let Some(text) = value.as_str() {
        return wrong_text(property, field, text);
    }
    let number = value.as_f64()?;
    if let Some(least) = property["minimum"].as_f64().filter(|least| number < *least) {
        return Some(format!("must be at least {least}"));
    }
    let most = property["maximum"].as_f64().filter(|most| number > *most)?;
    Some(format!("must be at most {most}"))
}

fn wrong_text(property: &Value, field: &Field, text: &str) -> Option<String> {
    if !field.choices.is_empty() && field.choices.iter().all(|choice| choice != text) {
        return Some(format!("must be one of {}", field.choices.join(", ")));
    }
    let length = text.chars().count() as u64;
    if let Some(least) = property["minLength"]
        .as_u64()
        .filter(|least| length < *least)
    {
        return Some(match least {
            1 => "must not be empty".to_owned(),
            least => format!("must have at least {least} characters"),
        });
    }
    if let Some(most) = property["maxLength"].as_u64().filter(|most| length > *most) {
        return Some(format!("must have at most {most} characters"));
    }
    match field.format.as_deref() {
        Some("uri") => web_url(text).err().map(str::to_owned),
        Some("email") if !is_email(text) => {
            Some("must be one mail address, as in name@example.org".to_owned())
        }
        _ => None,
    }
}

fn is_email(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.contains(|c: char| c.is_whitespace() || c.is_control() || "<>,;@".contains(c))
    };
    text.split_once('@')
        .is_some_and(|(local, domain)| plain(local) && plain(domain))
}

/// The one kind of URL that an input can be.
///
/// Its error text says what would be right and holds nothing of `text`.
pub fn web_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| NOT_A_URL)?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(NOT_A_URL);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not have a user or a password in front of the host");
    }
    Ok(url)
}

/// Scheme, host and port: all of a URL that may be shown.
pub fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

/// Reads what stands behind `--opt name=` by the field's type. Booleans are spelled as Go's
/// `strconv.ParseBool` takes them, so that Chainloop's scripts keep working.
pub fn cast(field: &Field, text: &str) -> Result<Value, Fault> {
    let value = match field.kind.as_str() {
        "boolean" => match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(json!(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(json!(false)),
            _ => None,
        },
        "integer" => text.parse::<i64>().ok().map(Value::from),
        "number" => text
            .parse::<f64>()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map(Value::from),
        _ => Some(json!(text)),
    };
    value.ok_or_else(|| {
        let shown = if field.secret { "…" } else { text };
        Fault::new(
            &field.name,
            format!(
                "invalid option {shown:?}, the expected format is {:?}",
                field.kind
            ),
        )
    })
}
