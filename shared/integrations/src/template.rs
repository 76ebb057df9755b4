//! Text that an operator writes with gaps in it, which each attestation fills: the name of a project, a label.
//!
//! The language is Jinja's, as in `{{ workflow.name }}-{{ material.annotations.version }}`. Chainloop's
//! templates are Go's, and the two lookups that those have, `.Material.Annotations.x` and
//! `.Attestation.Annotations.x`, are read too. Whoever writes a template is trusted with nothing: it reaches
//! the [facts](crate::facts()) alone, and how long it may run and write is bounded.

mod parts;
mod translation;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io;

use minijinja::value::{self as engine, Kwargs, Rest, Serde, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, ErrorKind, State, UndefinedBehavior};
use parts::check_parts;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use translation::Translation;

use crate::{facts, text};

/// A template over [facts](crate::facts()): what it looks up may not be there. `TryFrom<String>` checks it. Deserializing does
/// not: the check of inputs did when it was stored, and functions that never render then do without the engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Written", into = "String")]
pub struct Template {
    /// As the operator wrote it.
    text: String,
    read: Translation,
}

/// Text of a template as it is kept.
#[derive(Deserialize)]
struct Written(String);

impl TryFrom<Written> for Template {
    type Error = String;

    fn try_from(Written(text): Written) -> Result<Self, Self::Error> {
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        if text.len() > MAX_BYTES {
            return Err(format!("must have at most {MAX_BYTES} bytes"));
        }
        let read = Translation::of(&text)?;
        Ok(Self { text, read })
    }
}

/// The keyword by which a schema says that a text is a template, and its value.
pub(crate) const KEYWORD: (&str, &str) = ("contentMediaType", "text/jinja2");

const MAX_BYTES: usize = 8 * 1024;
/// Steps, of which 64 letters written are one: some milliseconds, and enough to walk a thousand materials.
const FUEL: u64 = 200_000;
/// Depth to which a template's parts may be nested.
const DEPTH: usize = 64;

impl Template {
    /// The text for these facts, without control characters other than newline and tab. The error is what an
    /// operator is told, as in `material.annotations.version is not there`.
    pub fn render(&self, facts: &Value, max_bytes: usize) -> Result<String, String> {
        self.exact(facts, max_bytes)
            .map(|text| text::visible(&text))
    }

    /// As [`render`](Self::render), with every letter, for what is a key at the third party.
    pub(crate) fn exact(&self, facts: &Value, max_bytes: usize) -> Result<String, String> {
        let material = facts.get("material").filter(|material| !material.is_null());
        self.bind(&Facts::new(facts)).exact(material, max_bytes)
    }

    /// Binds the template to facts of which those about the material are still to come.
    pub(crate) fn bind(&self, facts: &Facts<'_>) -> Bound<'_> {
        let annotations = &facts.facts["attestation"]["annotations"];
        let others: Vec<_> = self
            .in_other_case("attestation", annotations)
            .map(|(key, value)| (key, engine::Value::from(Serde(value))))
            .collect();
        let facts = match others.is_empty() {
            true => facts.read.clone(),
            // At once: each merge makes every later look at the map dearer.
            false => with(
                &facts.read,
                &["attestation", "annotations"],
                engine::Value::from_pairs(others),
            ),
        };
        Bound {
            template: self,
            facts,
        }
    }

    /// Annotations that the template spells in another case than their author, as Chainloop finds `hello` as `Hello`
    /// too. A key that is there as it is written needs no other.
    fn in_other_case<'a>(
        &'a self,
        whose: &str,
        annotations: &'a Value,
    ) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let annotations = annotations.as_object();
        let mut missing = BTreeMap::<String, Vec<&str>>::new();
        for (of, key) in &self.read.spelled {
            if *of == whose && annotations.is_some_and(|all| !all.contains_key(key)) {
                missing.entry(key.to_lowercase()).or_default().push(key);
            }
        }
        // One pass, and none without a reason: there may be a hundred thousand.
        let annotations = annotations.filter(|_| !missing.is_empty());
        let all = annotations.into_iter().flatten();
        all.flat_map(move |(name, value)| {
            let keys = missing.remove(&name.to_lowercase()).unwrap_or_default();
            keys.into_iter().map(move |key| (key, value))
        })
    }

    fn fill(
        &self,
        facts: &engine::Value,
        undefined: UndefinedBehavior,
        max_bytes: usize,
    ) -> Result<String, minijinja::Error> {
        // One that an older release let pass costs no more than another.
        check_parts(&self.read.source)
            .map_err(|why| minijinja::Error::new(ErrorKind::InvalidOperation, why))?;
        let mut environment = environment();
        environment.set_undefined_behavior(undefined);
        let template = environment.template_from_str(&self.read.source)?;
        let mut written = Bounded {
            bytes: Vec::new(),
            most: max_bytes,
        };
        template.render_captured_to(facts, &mut written)?;
        Ok(String::from_utf8_lossy(&written.bytes).into_owned())
    }

    /// Checks for errors that show without an attestation.
    fn check(&self) -> Result<(), String> {
        let environment = environment();
        let template = environment
            .template_from_str(&self.read.source)
            .map_err(|error| said(&error))?;
        let mut names: Vec<String> = template.undeclared_variables(true).into_iter().collect();
        names.sort();
        for name in names {
            let function = environment.globals().any(|(global, _)| global == name);
            if let Some(right) = mistaken(&name).filter(|_| !function && name != "loop") {
                let line = self
                    .read
                    .source
                    .lines()
                    .position(|line| line.contains(&name));
                let place = line.map_or_else(String::new, |at| format!("line {}: ", at + 1));
                let name = text::line(&name, 64, true);
                return Err(format!("{place}there is no {name}; {right}"));
            }
        }
        // Filters are looked up when they are come to.
        let filled = self.fill(
            &engine::Value::from(Serde(blank())),
            UndefinedBehavior::Chainable,
            MAX_BYTES,
        );
        filled.map(|_| ()).or_else(|error| match error.kind() {
            ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction => {
                Err(said(&error))
            }
            _ => Ok(()),
        })
    }
}

/// Facts in the form that the engine reads: made once for all materials of an attestation, of which there may be a
/// thousand.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    facts: &'a Value,
    read: engine::Value,
}

impl<'a> Facts<'a> {
    pub(crate) fn new(facts: &'a Value) -> Self {
        Self {
            facts,
            read: engine::Value::from(Serde(facts)),
        }
    }
}

/// A template, and the facts to fill it with.
#[derive(Debug)]
pub(crate) struct Bound<'a> {
    template: &'a Template,
    facts: engine::Value,
}

impl Bound<'_> {
    /// As [`Template::exact`], with the facts about this material.
    pub(crate) fn exact(
        &self,
        material: Option<&Value>,
        max_bytes: usize,
    ) -> Result<String, String> {
        let mut facts = self.facts.clone();
        if let Some(material) = material {
            let mut whole = material.clone();
            let others = self
                .template
                .in_other_case("material", &material["annotations"]);
            for (key, value) in others {
                whole["annotations"][key] = value.clone();
            }
            let material = engine::Value::from(Serde(whole));
            facts = with(
                &facts,
                &[],
                engine::Value::from_pairs([("material", material)]),
            );
        }
        let filled = self
            .template
            .fill(&facts, UndefinedBehavior::Strict, max_bytes);
        filled.map_err(|error| match error.kind() {
            ErrorKind::WriteFailure => format!("the text has more than {max_bytes} bytes"),
            _ => said(&error),
        })
    }
}

/// Returns a map with more entries in the map at `path`: each replaces the one that has its key. Nothing is copied.
fn with(map: &engine::Value, path: &[&str], more: engine::Value) -> engine::Value {
    let more = match path.split_first() {
        None => more,
        Some((key, path)) => {
            let inner = map.get_attr(key).unwrap_or_default();
            engine::Value::from_pairs([(*key, with(&inner, path, more))])
        }
    };
    engine::merge_maps([map.clone(), more])
}

/// `map` as the engine has it, without what puts one value in the place of many.
fn map(
    state: &mut State<'_, '_>,
    value: engine::Value,
    args: Rest<ValueOrKwargs>,
) -> Result<engine::Value, minijinja::Error> {
    let args = args.into_values();
    let (names, options): (&[engine::Value], Kwargs) = engine::from_args(&args)?;
    let is_default = |name: &engine::Value| matches!(name.as_str(), Some("default" | "d"));
    if options.has("default") || names.first().is_some_and(is_default) {
        let text = "map takes no default";
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, text));
    }
    let mut all = vec![value];
    all.extend(args);
    engine::Value::from_function(minijinja::filters::map).call(state, &all)
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(DEPTH);
    environment.set_debug(true);
    // Shows what the engine is made of.
    environment.remove_global("debug");
    // Keeps what one turn of a loop has made for the next, which could put it into a list, and so on.
    environment.remove_global("namespace");
    // Make lists that hold one value many times, or a list of lists again and again, for which the engine does not count.
    environment.remove_global("dict");
    for filter in ["batch", "chain", "slice", "zip"] {
        environment.remove_filter(filter);
    }
    environment.add_filter("map", map);
    environment.add_filter("truncate", truncate);
    environment
}

/// At most so many letters, the last of them `…` where there were more.
fn truncate(text: String, letters: usize) -> String {
    match text.char_indices().nth(letters) {
        None => text,
        Some(_) => text
            .chars()
            .take(letters.saturating_sub(1))
            .chain(['…'])
            .collect(),
    }
}

/// Suggests a fact in place of a name that no fact has.
fn mistaken(name: &str) -> Option<String> {
    let mut parts = name.split('.');
    let (group, fact) = (parts.next()?, parts.next());
    let groups: Vec<&str> = facts::NAMES.iter().map(|(group, _)| *group).collect();
    let Some((_, names)) = facts::NAMES.iter().find(|(known, _)| *known == group) else {
        let all = groups.join(", ");
        return Some(match api::inputs::nearest(group, &groups) {
            Some(nearest) => format!("did you mean {nearest}? There is {all}"),
            None => format!("there is {all}"),
        });
    };
    let fact = fact.filter(|fact| !names.is_empty() && !names.contains(fact))?;
    let all = names.join(", ");
    Some(match api::inputs::nearest(fact, names) {
        Some(nearest) => format!("did you mean {group}.{nearest}? There is {all}"),
        None => format!("there is {all}"),
    })
}

/// Facts that say nothing.
fn blank() -> Value {
    let group = |names: &[&str]| -> Value {
        let fact = |name: &&str| match *name {
            "annotations" => ("annotations".to_owned(), json!({})),
            name => (name.to_owned(), json!("")),
        };
        names.iter().map(fact).collect::<Map<_, _>>().into()
    };
    let groups = facts::NAMES.iter();
    let mut blank: Value = groups
        .map(|(name, names)| ((*name).to_owned(), group(names)))
        .collect::<Map<_, _>>()
        .into();
    blank["materials"] = json!([blank["material"]]);
    blank
}

/// As an operator is told.
fn said(error: &minijinja::Error) -> String {
    const SHOWN: usize = 300;
    let line = error.line().unwrap_or(1);
    let kind = error.kind();
    let missing = |detail: &str| {
        let (_, rest) = detail.split_once('`')?;
        let (name, _) = rest.split_once("` is undefined")?;
        Some(name.to_owned())
    };
    let detail = error.detail().unwrap_or_default();
    let said = match (kind, missing(detail)) {
        (_, Some(name)) => format!("{name} is not there"),
        (ErrorKind::UndefinedError, None) => format!("line {line}: something is not there"),
        (ErrorKind::OutOfFuel, _) => "the template takes too many steps".to_owned(),
        (ErrorKind::SyntaxError, _) => format!("line {line}: {detail}"),
        (_, None) if detail.is_empty() => format!("line {line}: {kind}"),
        (_, None) => format!("line {line}: {kind}: {detail}"),
    };
    text::line(&said, SHOWN, false)
}

/// Takes no more than it was told to.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.most - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let template = Self::try_from(Written(text))?;
        check_parts(&template.read.source)?;
        template.check()?;
        Ok(template)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let (keyword, value) = KEYWORD;
        json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_BYTES, keyword: value })
    }
}

#[cfg(test)]
mod tests {
    use super::parts::MOST_PARTS;
    use super::*;

    fn facts() -> Value {
        let stage = crate::fixture::Stage::new();
        let sbom = &stage.attestation.materials()[2];
        let mut facts = facts::facts(stage.pushed(), Some(sbom));
        facts["material"]["annotations"]["a-b.c"] = "dashed".into();
        facts["material"]["annotations"]["Exact"] = "as it is".into();
        facts["material"]["annotations"]["exact"] = "another".into();
        facts["material"]["annotations"]["größe"] = "1".into();
        facts
    }

    fn render(text: &str) -> Result<String, String> {
        Template::try_from(text.to_owned())
            .map_err(|fault| format!("refused: {fault}"))?
            .render(&facts(), 1024)
    }

    #[track_caller]
    fn check(rows: &[(&str, Result<&str, &str>)]) {
        for (text, expected) in rows {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(render(text), expected, "{text}");
        }
    }

    #[test]
    fn gaps_are_filled_with_facts() {
        check(&[
            ("plain {}", Ok("plain {}")),
            (
                "{{ workflow.name }}-{{ workflow.version }}",
                Ok("nightly-build-2.4.0"),
            ),
            (r#"{{ material.annotations["a-b.c"] }}"#, Ok("dashed")),
            (
                "{{ workflow.name | upper | replace('-', '_') }}",
                Ok("NIGHTLY_BUILD"),
            ),
            (
                "{{ workflow.name | truncate(4) }}{{ run.state | truncate(9) }}",
                Ok("nig…success"),
            ),
            (
                "{% if policy.blocked %}blocked{% else %}fine{% endif %}",
                Ok("blocked"),
            ),
            (
                "{{ materials | map(attribute='name') | join(' ') }}",
                Ok("release-note image sbom lint"),
            ),
            (
                "{% for m in materials if m.digest %}{{ loop.index }}{{ m.name }} {% endfor %}",
                Ok("1image 2sbom 3lint "),
            ),
            (
                "{{ material.annotations.absent | default('none') }}",
                Ok("none"),
            ),
            ("{{ \"<&>\" }}", Ok("<&>")),
            ("a\u{7}\n\tb{{ '\\u202e' }}{{ \"\\u001b\" }}", Ok("a\n\tb")),
        ]);
    }

    #[test]
    fn chainloops_own_spelling_is_read() {
        check(&[
            ("{{.Material.Annotations.component}}", Ok("shop")),
            (
                "a {{- .Attestation.Annotations.version -}} b",
                Ok("a2.4.0b"),
            ),
            (
                "{{ .Material.Annotations.Component }}{{ .Attestation.Annotations.Version }}",
                Ok("shop2.4.0"),
            ),
            (
                "{{ .Attestation.Annotations.Version }}{{ .Attestation.Annotations.VERSION }}\
                 {{ attestation.annotations | length }}{{ .Attestation.Annotations.version }}",
                Ok("2.4.02.4.042.4.0"),
            ),
            (
                "{{ .Material.Annotations.Exact }}/{{ .Material.Annotations.exact }}",
                Ok("as it is/another"),
            ),
            ("{{ .Material.Annotations.größe }}", Ok("1")),
            (
                "{% if .Attestation.Annotations.version == '2.4.0' %}yes{% endif %}",
                Ok("yes"),
            ),
            (
                "{{ '}} .Material.Annotations.component \\' {{' }}.Material.X",
                Ok("}} .Material.Annotations.component ' {{.Material.X"),
            ),
            (
                "{# .Material.X #}{% raw %}{{ .Material.X }}{% endraw %}{{ .Material.Annotations.component }}",
                Ok("{{ .Material.X }}shop"),
            ),
            (
                "{{ .Material.Annotations.absent }}",
                Err("material.annotations.absent is not there"),
            ),
            (
                "\n{{ .Workflow.Name }}",
                Err(
                    "refused: line 2: there is no .Workflow.Name; in Go's spelling there is .Material.Annotations.name and .Attestation.Annotations.name",
                ),
            ),
            (
                "{{ .Material.Annotations.a.b }}",
                Err(
                    "refused: line 1: there is no .Material.Annotations.a.b; in Go's spelling there is .Material.Annotations.name and .Attestation.Annotations.name",
                ),
            ),
        ]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let groups = "There is workflow, run, attestation, material, materials, policy, signature";
        let workflow = "There is id, name, project, team, version, branch";
        check(&[
            ("", Err("refused: must not be empty")),
            (
                "a\n{{ workflow.name",
                Err("refused: line 2: unexpected end of input, expected end of variable block"),
            ),
            (
                "{% include 'x' %}",
                Err("refused: line 1: unknown statement include"),
            ),
            (
                "{% macro x() %}{% endmacro %}",
                Err("refused: line 1: unknown statement macro"),
            ),
            (
                "\n{{ workflows.name }}",
                Err(&format!(
                    "refused: line 2: there is no workflows.name; did you mean workflow? {groups}"
                )),
            ),
            (
                "{{ workflow.nam }}",
                Err(&format!(
                    "refused: line 1: there is no workflow.nam; did you mean workflow.name? {workflow}"
                )),
            ),
            (
                "\n\n{{ workflow.name | uper }}",
                Err("refused: line 3: unknown filter: filter uper is unknown"),
            ),
            (
                "{{ debug() }}",
                Err(&format!(
                    "refused: line 1: there is no debug; {}",
                    groups.replace("There", "there")
                )),
            ),
        ]);
        let long = |text: String| Template::try_from(text).unwrap_err();
        assert_eq!(
            long("x".repeat(MAX_BYTES + 1)),
            "must have at most 8192 bytes"
        );
        assert_eq!(
            long(format!("{{{{ '}}}}' {} }}}}", "~ 1".repeat(100))),
            "must have at most 200 parts in one tag"
        );
        let ends = "{% if 0 %}".to_owned() + &"{% elif 0 %}".repeat(200) + "{% endif %}";
        assert_eq!(long(ends), "must have at most 200 tags with %");
        let text = "{{ run.id }}-. ".repeat(400);
        assert!(
            Template::try_from(text).is_ok(),
            "many short tags are none in another"
        );
    }

    #[test]
    fn what_is_not_there_is_named() {
        check(&[
            (
                "{{ material.annotations.version }}",
                Err("material.annotations.version is not there"),
            ),
            (
                "{{ material.annotations.version | upper }}",
                Err("material.annotations.version is not there"),
            ),
            (
                r#"{{ attestation.annotations["x-y"] }}"#,
                Err("attestation.annotations['x-y'] is not there"),
            ),
            (
                "{{ material.annotations.a.b }}",
                Err("material.annotations.a is not there"),
            ),
        ]);
        let without = json!({ "material": null });
        let template = Template::try_from("{{ material.name }}".to_owned()).unwrap();
        assert_eq!(
            template.render(&without, 9),
            Err("material.name is not there".to_owned())
        );
    }

    #[test]
    fn a_template_that_would_take_long_ends_quickly() {
        let many = "the template takes too many steps";
        let constants = "refused: must have constants alone in a list; put texts together by ~";
        let doubled = |step: &str, times: usize| {
            let (begin, end) = ("{% set a = [1] %}", "{{ a == a }}");
            format!("{begin}{}{end}", step.repeat(times))
        };
        let started = std::time::Instant::now();
        let squared = "{% set x = 'aaaaaaaa' %}".to_owned() + &"{% set x = x ~ x %}".repeat(100);
        let replaced =
            "{{ 'aaaaaaaa' ".to_owned() + &"| replace('a', 'aaaaaaaa') ".repeat(24) + "}}";
        let loops = "{% for i in range(99999) %}".repeat(3);
        let ends = "{% endfor %}".repeat(3);
        check(&[
            (
                "{% for i in range(100000000) %}{% endfor %}",
                Err("line 1: invalid operation: range has too many elements"),
            ),
            (&format!("{loops}{ends}"), Err(many)),
            (
                &format!("{loops}x{ends}"),
                Err("the text has more than 1024 bytes"),
            ),
            ("{{ 'x' * 100000000 }}", Err(many)),
            ("{{ '%999999999d' | format(1) }}", Err(many)),
            (
                &doubled("{% set a = a + a %}", 34),
                Err("refused: must have at most 8 +"),
            ),
            (
                &doubled("{% set a = a|zip(a) %}", 28),
                Err("refused: line 1: unknown filter: filter zip is unknown"),
            ),
            (
                &doubled("{% set a = a|chain(a) %}", 40),
                Err("refused: line 1: unknown filter: filter chain is unknown"),
            ),
            (
                &doubled("{% set a = a|batch(9, a) %}", 40),
                Err("refused: line 1: unknown filter: filter batch is unknown"),
            ),
            (
                &doubled("{% set a = a|slice(9, a) %}", 40),
                Err("refused: line 1: unknown filter: filter slice is unknown"),
            ),
            (
                &doubled("{% set a = dict(a=a, b=a) %}", 40),
                Err(
                    "refused: line 1: there is no dict; there is workflow, run, attestation, material, materials, policy, signature",
                ),
            ),
            (
                &doubled("{% set a = range(9)|map(attribute='x', default=a) %}", 40),
                Err("line 1: invalid operation: map takes no default"),
            ),
            (
                &doubled("{% set a = range(9)|map('default', a, true) %}", 40),
                Err("line 1: invalid operation: map takes no default"),
            ),
            (&doubled("{% set a = [a, a] %}", 40), Err(constants)),
            (&doubled("{% set a = (a, a) %}", 40), Err(constants)),
            (&doubled("{% set a = a, a %}", 40), Err(constants)),
            (
                &doubled("{% set a = {'a': a, 'b': a} %}", 40),
                Err(constants),
            ),
            (&doubled("{% set a = [([a])] %}", 40), Err(constants)),
            (
                "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
                Err("refused: must have no recursive loop"),
            ),
            (&squared, Err(many)),
            (&replaced, Err(many)),
        ]);
        assert!(started.elapsed().as_secs() < 10);
    }

    /// Renders on a stack that is a sixteenth of a function's.
    fn render_on_a_small_stack(text: String) -> Result<String, String> {
        let thread = std::thread::Builder::new().stack_size(512 * 1024);
        thread.spawn(move || render(&text)).unwrap().join().unwrap()
    }

    #[test]
    fn lists_of_constants_and_what_only_looks_like_lists_are_allowed() {
        for text in [
            "{{ run.id in ['a', 'b'] }}",
            "{{ run.id in ('a', -1, none) }}",
            "{% if not [1, [2, 3]] %}{% endif %}",
            "{{ {'a': 'b'}['a'] }}",
            "{{ run['id'] }}{{ ['a', 'b'][loops or 0] if 0 else 1 }}",
            "{{ run.id|replace('a', workflow.name) }}",
            "{{ (run.id ~ workflow.name)|truncate(9) }}",
            "{{ ('a' if run.id else 'b') }}",
            "{% for name in [{'name': 'a'}]|map(attribute='name') %}{{ name }}{% endfor %}",
            "{% set x = run.id|replace('a', 'b') %}{{ x }}",
        ] {
            assert_eq!(check_parts(text), Ok(()), "{text}");
        }
        for text in [
            "{{ [run.id] }}",
            "{{ (run.id, 1) }}",
            "{{ 1 in (1, run.id) }}",
            "{{ {'a': run.id} }}",
            "{{ run.id|replace('a', [run.id]) }}",
            "{% set a, b = run %}",
        ] {
            assert!(check_parts(text).is_err(), "{text}");
        }
    }

    #[test]
    fn however_deep_it_nests_it_ends() {
        for (begin, part, end, parts) in [
            ("{{ ", "-", "1 }}", 1),
            ("{{ ", "not ", "1 }}", 1),
            ("{{ ", "(", "1 }}", 1),
            ("{{ ", "[", "1 }}", 1),
            ("{{ run.id", "~1", " }}", 2),
            ("{{ run.id", ".a", " }}", 2),
            ("{{ run.id", "|d", " }}", 2),
            ("{{ run.id", "()", " }}", 2),
            ("{{ 1", " if 1 else 1", " }}", 4),
            ("{% if 0 %}", "{% elif 0 %}", "{% endif %}", 1),
            ("", "{% if 1 %}", "", 1),
            ("{{ 1", "**1", " }}", 2),
        ] {
            let text = |count: usize| format!("{begin}{}{end}", part.repeat(count));
            // As deep as it may be read, and the engine has it.
            let deepest = text((MOST_PARTS - 5) / parts);
            assert_eq!(check_parts(&deepest), Ok(()), "{part}");
            let said = render_on_a_small_stack(deepest);
            let length = said.map_or_else(|error| error.len(), |text| text.len());
            assert!(length <= 1024, "{part}");
            // As deep as it may be written.
            let whole = (MAX_BYTES - begin.len() - end.len()) / part.len();
            let refused = render_on_a_small_stack(text(whole)).unwrap_err();
            assert!(
                refused.starts_with("refused: must have at most 200 "),
                "{refused}"
            );
        }
    }

    #[test]
    fn no_loop_makes_a_list_in_a_list_in_a_list() {
        let kept = "{% if run.id %}{% set ns = namespace(x=0) %}{% endif %}";
        let refused = render_on_a_small_stack(kept.to_owned()).unwrap_err();
        assert!(refused.contains("there is no namespace"), "{refused}");
        let wrapped = "{% set x = 0 %}{% for i in range(9999) %}{% set x = [x] %}{% endfor %}";
        let refused = render_on_a_small_stack(wrapped.to_owned()).unwrap_err();
        assert!(refused.contains("constants alone in a list"), "{refused}");
        // By all brackets that there may be, shown, compared and made a text.
        let lists = |count: usize| {
            let list = format!("{}1{}", "[".repeat(count), "]".repeat(count));
            format!("{{% set x = {list} %}}").repeat(MOST_PARTS / count)
        };
        let text = format!("{{% set x = 0 %}}{}{{{{ x == x ~ x }}}}", lists(50));
        assert_eq!(render_on_a_small_stack(text), Ok("False".to_owned()));
        let more = render_on_a_small_stack(lists(50).repeat(2)).unwrap_err();
        assert_eq!(more, "refused: must have at most 200 brackets");
    }
}
