//! Writes the pages in `docs/` about the integrations, from their schemas and from what their modules say of
//! themselves, and holds them against what is there.

use std::fmt::Write as _;
use std::fs;

use api::inputs::Field;
use integrations::Description;
use serde_json::{Value, json};

use crate::contract::{files, names, root, sample, snake};

#[test]
fn the_pages_are_those_of_the_schemas() {
    let mut stale = Vec::new();
    let mut pages = vec![("docs/integrations.md".to_owned(), overview())];
    for one in integrations::ALL {
        pages.push((format!("docs/integrations/{}.md", one.id), page(one)));
    }
    for (file, text) in &pages {
        let path = root().join(file);
        if std::env::var_os("REFRESH").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != *text {
            stale.push(file.as_str());
        }
    }
    assert!(
        stale.is_empty(),
        "{}: not what the schemas say; REFRESH=1 cargo test -p tests writes them anew (look at the \
         difference before committing it)",
        stale.join(", ")
    );
    for path in files(&root().join("docs/integrations"), &["md"]) {
        let file = path.strip_prefix(root()).unwrap().to_str().unwrap();
        assert!(
            pages.iter().any(|(own, _)| own == file),
            "delete {file}: there is no such integration"
        );
    }
}

const WRITTEN: &str = "<!-- Written by tests/src/pages.rs from the schemas and the modules: REFRESH=1 cargo test -p tests -->\n";

fn overview() -> String {
    let mut text = format!(
        "{WRITTEN}# Integrations\n\nWhat attestations can be delivered to.\n\n\
         | integration | version | registration inputs | attachment inputs | material types | receipt | limits |\n\
         |---|---|---|---|---|---|---|\n"
    );
    for one in integrations::ALL {
        let inputs = |schema: Value| {
            let fields = api::inputs::fields(&schema);
            let names = fields.iter().map(|field| {
                if field.required {
                    format!("**{}**", field.name)
                } else {
                    field.name.clone()
                }
            });
            or_dash(names.collect::<Vec<_>>().join(", "))
        };
        let (id, version) = (one.id, one.version);
        let module = Module::of(one);
        let (receipt, limits) = (
            cell(&module.first("Receipt")),
            cell(&module.first("Limits")),
        );
        let (registration, attachment) = (
            inputs((one.registration_schema)()),
            inputs((one.attachment_schema)()),
        );
        let materials = materials(one);
        writeln!(
            text,
            "| [{id}](integrations/{id}.md) | {version} | {registration} | {attachment} | {materials} | {receipt} | {limits} |"
        )
        .unwrap();
    }
    text.push_str(
        "\nInputs in bold are required.\n\n## What failures mean\n\n\
         Beside what holds for all of them, which [the promise](promise.md) has: no connection, 408, 425, 429 and 5xx \
         are tried again; a request that was sent and not answered is tried again and may have arrived.\n\n\
         | integration | seen | what it means, and what to do |\n|---|---|---|\n",
    );
    for one in integrations::ALL {
        for (seen, means) in Module::of(one).failures() {
            writeln!(text, "| {} | {} | {} |", one.id, cell(&seen), cell(&means)).unwrap();
        }
    }
    text
}

/// First comment of a module: an introduction that says what it does for people, then sections.
struct Module {
    id: &'static str,
    introduction: String,
    sections: Vec<(String, String)>,
}

impl Module {
    fn of(one: &Description) -> Self {
        let folder = root().join("shared/integrations/src");
        let name = snake(one.id);
        let text = fs::read_to_string(folder.join(format!("{name}.rs")))
            .or_else(|_| fs::read_to_string(folder.join(&name).join("mod.rs")))
            .unwrap();
        let comment = text.lines().map_while(|line| line.strip_prefix("//!"));
        let mut introduction = String::new();
        let mut sections: Vec<(String, String)> = Vec::new();
        for line in comment.map(|line| line.strip_prefix(' ').unwrap_or(line)) {
            if let Some(title) = line.strip_prefix("# ") {
                sections.push((title.to_owned(), String::new()));
                continue;
            }
            let text = sections
                .last_mut()
                .map_or(&mut introduction, |(_, text)| text);
            writeln!(text, "{line}").unwrap();
        }
        assert!(
            !introduction.trim().is_empty(),
            "{}: begin its module with what it does for people",
            one.id
        );
        Self {
            id: one.id,
            introduction: introduction.trim().to_owned(),
            sections,
        }
    }

    fn section(&self, title: &str) -> &str {
        let found = self.sections.iter().find(|(own, _)| own == title);
        let text = found.map_or("", |(_, text)| text.trim());
        assert!(
            !text.is_empty(),
            "{}: its module's first comment lacks the section `# {title}`",
            self.id
        );
        text
    }

    /// A section's first paragraph, as one line.
    fn first(&self, title: &str) -> String {
        let paragraph = self.section(title).split("\n\n").next().unwrap_or_default();
        paragraph
            .lines()
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The list in the section `# Failures`, whose items are `- seen: what it means`.
    fn failures(&self) -> Vec<(String, String)> {
        let text = format!("\n{}", self.section("Failures"));
        let items = text.split("\n- ").skip(1).map(|item| {
            let item = item.lines().map(str::trim).collect::<Vec<_>>().join(" ");
            let (seen, means) = item
                .split_once(": ")
                .unwrap_or_else(|| panic!("{}: no colon in {item:?}", self.id));
            (seen.to_owned(), means.to_owned())
        });
        items.collect()
    }
}

fn page(one: &Description) -> String {
    let mut text = format!(
        "{WRITTEN}# {}\n\n{}. Version {}.\n",
        one.id, one.description, one.version
    );
    let module = Module::of(one);
    write!(text, "\n{}\n", module.introduction).unwrap();
    for (title, when, schema) in [
        (
            "Registration",
            "Given once, when it is registered.",
            (one.registration_schema)(),
        ),
        (
            "Attachment",
            "Given for each workflow that it is attached to.",
            (one.attachment_schema)(),
        ),
    ] {
        write!(
            text,
            "\n## {title} inputs\n\n{}",
            table(when, &api::inputs::fields(&schema))
        )
        .unwrap();
    }
    let sent = match (one.materials.is_empty(), one.materials_only) {
        (true, _) => "None: it is told of the attestation alone.".to_owned(),
        (false, false) => format!(
            "Sent along when the attestation has them: {}.",
            materials(one)
        ),
        (false, true) => {
            format!(
                "{}. An attestation without any of these is skipped.",
                materials(one)
            )
        }
    };
    write!(
        text,
        "\n## Material types\n\n{sent}\n\n## Example\n\n{}",
        example(one)
    )
    .unwrap();
    for (title, text_of) in &module.sections {
        write!(text, "\n## {title}\n\n{}\n", text_of.trim()).unwrap();
    }
    text
}

fn table(when: &str, fields: &[Field]) -> String {
    if fields.is_empty() {
        return "There is nothing to fill in.\n".to_owned();
    }
    let mut text = format!(
        "{when}\n\n| input | type | required | default | choices | description |\n|---|---|---|---|---|---|\n"
    );
    for field in fields {
        let format = field.format.as_ref().filter(|format| *format != "password");
        let kind = format.map_or(field.kind.clone(), |format| {
            format!("{} ({format})", field.kind)
        });
        let kind = if field.secret {
            format!("{kind}, secret")
        } else {
            kind
        };
        let required = if field.required { "yes" } else { "no" };
        let default = field
            .default
            .as_ref()
            .map(|default| format!("`{}`", plain(default)));
        let choices: Vec<String> = field
            .choices
            .iter()
            .map(|choice| format!("`{choice}`"))
            .collect();
        writeln!(
            text,
            "| {} | {kind} | {required} | {} | {} | {} |",
            field.name,
            or_dash(default.unwrap_or_default()),
            or_dash(choices.join(", ")),
            cell(&field.description)
        )
        .unwrap();
    }
    if fields.iter().any(|field| field.secret) {
        text.push_str("\nA secret input is kept in Secrets Manager alone and never shown again.\n");
    }
    text
}

/// The three commands, as they are typed.
fn example(one: &Description) -> String {
    let schema = (one.registration_schema)();
    let required = shown(&schema);
    let mut lines = vec![format!(
        "chainloop integration registered add {0} --name my-{0}",
        one.id
    )];
    lines.extend(required.iter().map(|field| {
        if field.secret {
            format!("--opt {0}=@{0}.txt", field.name)
        } else {
            option(field, &sample(&schema, field))
        }
    }));
    let register = lines.join(" \\\n  ");
    let schema = (one.attachment_schema)();
    let fields = api::inputs::fields(&schema);
    let mut attach = format!(
        "chainloop integration attached add --workflow shop/nightly --integration my-{}",
        one.id
    );
    for field in &shown(&schema) {
        let value = sample(&schema, field);
        write!(attach, " \\\n  {}", option(field, &value)).unwrap();
    }
    let push = if one.materials.is_empty() {
        ""
    } else {
        " --material sbom=sbom.cdx.json"
    };
    let mut text = format!(
        "```sh\n{register}\n{attach}\nchainloop attestation push attestation.json{push} --wait\n```\n"
    );
    if let Some(secret) = required.iter().find(|field| field.secret) {
        write!(
            text,
            "\n`@{0}.txt` reads the value from that file, so that a secret stays out of the shell's history.\n",
            secret.name
        )
        .unwrap();
    }
    if let Some((field, other)) = fields.iter().find_map(|field| Some((field, other(field)?))) {
        write!(
            text,
            "\nWhat has a default is changed by its name, as in `{}`.\n",
            option(field, &other)
        )
        .unwrap();
    }
    text
}

/// The inputs that an example shows: those that are required, and the first of alternatives.
fn shown(schema: &Value) -> Vec<Field> {
    let first: Vec<&str> = names(&schema["oneOf"][0]["required"]).collect();
    let is_shown = |field: &Field| field.required || first.contains(&field.name.as_str());
    api::inputs::fields(schema)
        .into_iter()
        .filter(is_shown)
        .collect()
}

/// A value worth showing that is not the default: something turned on, or another choice.
fn other(field: &Field) -> Option<Value> {
    let default = field.default.as_ref()?;
    match default {
        Value::Bool(false) => Some(json!(true)),
        _ => field
            .choices
            .iter()
            .find(|choice| *default != **choice)
            .map(|choice| json!(choice)),
    }
}

fn option(field: &Field, value: &Value) -> String {
    let option = format!("{}={}", field.name, plain(value));
    // As a shell takes it for one word.
    match option.contains([' ', '*', '{']) {
        true => format!("--opt '{option}'"),
        false => format!("--opt {option}"),
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn materials(one: &Description) -> String {
    let names: Vec<&str> = one
        .materials
        .iter()
        .map(attestation::MaterialType::as_str)
        .collect();
    or_dash(names.join(", "))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn or_dash(text: String) -> String {
    if text.is_empty() {
        "–".to_owned()
    } else {
        text
    }
}
