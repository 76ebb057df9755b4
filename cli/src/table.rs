//! Tables as the documentation shows them: a light box, upper-case headers, a line between rows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use api::Timestamp;
use api::inputs::Field;
use api::integrations::Integration;
use comfy_table::{
    Cell, Color, ColumnConstraint, ContentArrangement, ContentLineStyle, LineStyle, TableStyle,
    Width,
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::output::{coloured, plain};
use crate::time;

const CLOSE: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('┌', '─', '┬', '┐'))
    .header_lines(ContentLineStyle::new('│', '│', '│'))
    .header_separator(LineStyle::new('├', '─', '┼', '┤'))
    .content_lines(ContentLineStyle::new('│', '│', '│'))
    .bottom_border(LineStyle::new('└', '─', '┴', '┘'));
/// With a line between rows.
const SEPARATED: TableStyle = CLOSE.row_separator(LineStyle::new('├', '─', '┼', '┤'));
/// Below a title, which has the upper corners.
const TITLED: TableStyle = CLOSE.top_border(LineStyle::new('├', '─', '┬', '┤'));

/// Narrower than this a table is left to the terminal: columns of three letters help nobody.
const NARROWEST: u16 = 60;

pub(crate) struct Table {
    boxes: comfy_table::Table,
    title: Option<&'static str>,
    rows: usize,
}

impl Table {
    /// With a line between rows.
    pub(crate) fn new(headers: &[&str]) -> Self {
        Self::with(headers, SEPARATED)
    }

    /// Under a title, with rows close together.
    pub(crate) fn titled(title: &'static str, headers: &[&str]) -> Self {
        Self {
            title: Some(title),
            ..Self::with(headers, TITLED)
        }
    }

    fn with(headers: &[&str], style: TableStyle) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(style);
        if !headers.is_empty() {
            table.set_header(headers);
        }
        table.set_content_arrangement(ContentArrangement::Dynamic);
        if table.width().is_some_and(|width| width < NARROWEST) {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        Self {
            boxes: table,
            title: None,
            rows: 0,
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows += 1;
        self.boxes.add_row(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Keeps a column in one piece, so that what is in it can be copied.
    #[must_use]
    pub(crate) fn whole(mut self, column: usize) -> Self {
        if let Some(column) = self.boxes.column_mut(column) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        self
    }

    /// At least so wide, or words would be broken before others have to wrap.
    #[must_use]
    pub(crate) fn at_least(mut self, column: usize, width: u16) -> Self {
        if let Some(column) = self.boxes.column_mut(column) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
        self
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.boxes.to_string();
        let Some(title) = self.title else {
            return formatter.write_str(&text);
        };
        // A cell over all columns, which the library does not have.
        let border = text.lines().next().unwrap_or_default().chars().count();
        let inner = border.saturating_sub(2);
        let (bar, padded) = (
            "─".repeat(inner),
            format!(" {title:<0$}", inner.saturating_sub(1)),
        );
        write!(formatter, "┌{bar}┐\n│{padded}│\n{text}")
    }
}

/// None where the output is not a terminal, and nothing needs to fit.
pub(crate) fn terminal_width() -> Option<u16> {
    comfy_table::Table::new().width()
}

pub(crate) fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(plain(text.as_ref()))
}

/// With a colour, where colours are wanted.
pub(crate) fn paint(cell: Cell, colour: Color) -> Cell {
    if coloured(&io::stdout()) {
        cell.fg(colour)
    } else {
        cell
    }
}

/// Shows when and from where a token or an intake was last used.
pub(crate) fn last_use(at: Option<Timestamp>, from: Option<&str>) -> Cell {
    let from = from.map(|address| format!("\nfrom {address}"));
    let used = at.map(|at| time::exact(at) + &from.unwrap_or_default());
    cell(used.as_deref().unwrap_or("-"))
}

/// Renders the available integrations, in the order given.
pub(crate) fn available(integrations: &[Integration]) -> Table {
    let mut table = Table::new(&["ID", "VERSION", "MATERIAL REQUIREMENT", "DESCRIPTION"])
        .whole(0)
        .whole(1);
    for integration in integrations {
        table.row(vec![
            cell(&integration.id),
            cell(&integration.version),
            cell(integration.materials.join(", ")),
            cell(&integration.description),
        ]);
    }
    table
}

/// Renders the fields that can be filled in.
pub(crate) fn inputs(title: &'static str, fields: &[Field]) -> Table {
    let mut table = Table::titled(title, &["FIELD", "TYPE", "REQUIRED", "DESCRIPTION"])
        .whole(0)
        .whole(1);
    for field in fields {
        let required = match &field.default {
            _ if field.required => Cow::Borrowed("yes"),
            Some(default) => format!("no (default: {})", value(default)).into(),
            None => "no".into(),
        };
        // The page shows `string` for a password, whose name says enough.
        let kind = match field.format.as_deref() {
            None | Some("password") => field.kind.clone(),
            Some(format) => format!("{} ({format})", field.kind),
        };
        let description = match field.choices.as_slice() {
            [] => field.description.clone(),
            choices => format!("{} (one of {})", field.description, choices.join(", ")),
        };
        let mark = |cell: Cell| {
            if field.required {
                paint(cell, Color::Yellow)
            } else {
                cell
            }
        };
        let cells = vec![
            mark(cell(&field.name)),
            mark(cell(kind)),
            mark(cell(required)),
            cell(description.trim_start()),
        ];
        table.row(cells);
    }
    table
}

/// A JSON schema, in a box of its own.
pub(crate) fn schema(title: &'static str, schema: &Value) -> Table {
    let mut table = Table::titled(title, &[]);
    table.row(vec![cell(format!("{schema:#}"))]);
    let title = u16::try_from(title.len()).unwrap_or(u16::MAX);
    table.at_least(0, title.saturating_add(2))
}

/// `key: value` lines, sorted; later maps win, and empty texts are left out.
pub(crate) fn config(maps: &[&Map<String, Value>]) -> String {
    let all: BTreeMap<&String, &Value> = maps.iter().flat_map(|map| map.iter()).collect();
    let lines: Vec<String> = all
        .into_iter()
        .filter(|(_, value)| **value != Value::String(String::new()))
        .map(|(key, content)| format!("{key}: {}", value(content)))
        .collect();
    lines.join("\n")
}

/// Nested values as indented lines, empty ones left out.
pub(crate) fn tree(map: &Map<String, Value>) -> String {
    fn is_leaf(value: &Value) -> bool {
        !matches!(value, Value::Object(_) | Value::Array(_))
    }
    fn entries(map: &Map<String, Value>, indent: &str, lines: &mut Vec<String>) {
        for (key, content) in map {
            match content {
                Value::Null => {}
                Value::Array(items) if items.is_empty() => {}
                Value::Array(items) if items.iter().all(is_leaf) => {
                    let items: Vec<_> = items.iter().map(value).collect();
                    lines.push(format!("{indent}{key}: {}", items.join(", ")));
                }
                Value::Array(items) => {
                    lines.push(format!("{indent}{key}:"));
                    for item in items {
                        let first = lines.len();
                        match item {
                            Value::Object(map) => entries(map, &format!("{indent}  "), lines),
                            other => lines.push(format!("{indent}  {}", value(other))),
                        }
                        if let Some(line) = lines.get_mut(first) {
                            line.replace_range(indent.len()..indent.len() + 2, "- ");
                        }
                    }
                }
                Value::Object(map) => {
                    lines.push(format!("{indent}{key}:"));
                    entries(map, &format!("{indent}  "), lines);
                }
                leaf => lines.push(format!("{indent}{key}: {}", value(leaf))),
            }
        }
    }
    let mut lines = Vec::new();
    entries(map, "", &mut lines);
    lines.join("\n")
}

/// A text as it is, everything else as JSON.
pub(crate) fn value(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// A state or an ending as the API spells it.
pub(crate) fn word(state: &impl Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_receipt_is_shown_as_indented_lines() {
        let receipt = json!({
            "bucket": "b", "missing": [], "names": ["x", "y"],
            "objects": [{ "key": "k1", "size_bytes": 2 }, { "key": "k2", "size_bytes": 3 }],
            "steps": { "attestation": { "status": 200 } },
        });
        let Value::Object(receipt) = receipt else {
            unreachable!()
        };
        let lines = [
            "bucket: b",
            "names: x, y",
            "objects:",
            "- key: k1",
            "  size_bytes: 2",
            "- key: k2",
            "  size_bytes: 3",
            "steps:",
            "  attestation:",
            "    status: 200",
        ];
        assert_eq!(tree(&receipt), lines.join("\n"));
    }

    /// The three console blocks of the documentation page: the contract.
    const LIST: &str = "
┌──────────────────┬─────────┬──────────────────────┬───────────────────────────────────────────────────────────┐
│ ID │ VERSION │ MATERIAL REQUIREMENT │ DESCRIPTION │
├──────────────────┼─────────┼──────────────────────┼───────────────────────────────────────────────────────────┤
│ dependency-track │ 1.2 │ SBOM_CYCLONEDX_JSON │ Send CycloneDX SBOMs to your Dependency-Track instance │
├──────────────────┼─────────┼──────────────────────┼───────────────────────────────────────────────────────────┤
│ smtp │ 1.0 │ │ Send emails with information about a received attestation │
├──────────────────┼─────────┼──────────────────────┼───────────────────────────────────────────────────────────┤
│ oci-registry │ 1.0 │ │ Send attestations to a compatible OCI registry │
├──────────────────┼─────────┼──────────────────────┼───────────────────────────────────────────────────────────┤
│ discord-webhook │ 1.1 │ │ Send attestations to Discord │
└──────────────────┴─────────┴──────────────────────┴───────────────────────────────────────────────────────────┘";

    const DESCRIBE_LIST: &str = "
┌──────────────┬─────────┬──────────────────────┬────────────────────────────────────────────────┐
│ ID │ VERSION │ MATERIAL REQUIREMENT │ DESCRIPTION │
├──────────────┼─────────┼──────────────────────┼────────────────────────────────────────────────┤
│ oci-registry │ 1.1 │ │ Send attestations to a compatible OCI registry │
└──────────────┴─────────┴──────────────────────┴────────────────────────────────────────────────┘";

    const DESCRIBE_REGISTRATION: &str = "
┌──────────────────────────────────────────────────────────────┐
│ Registration inputs │
├────────────┬────────┬──────────┬─────────────────────────────┤
│ FIELD │ TYPE │ REQUIRED │ DESCRIPTION │
├────────────┼────────┼──────────┼─────────────────────────────┤
│ password │ string │ yes │ OCI repository password │
│ repository │ string │ yes │ OCI repository uri and path │
│ username │ string │ yes │ OCI repository username │
└────────────┴────────┴──────────┴─────────────────────────────┘";

    const DESCRIBE_ATTACHMENT: &str = "
┌─────────────────────────────────────────────────────────────────────────┐
│ Attachment inputs │
├────────┬────────┬──────────┬────────────────────────────────────────────┤
│ FIELD │ TYPE │ REQUIRED │ DESCRIPTION │
├────────┼────────┼──────────┼────────────────────────────────────────────┤
│ prefix │ string │ no │ OCI images name prefix (default chainloop)
└────────┴────────┴──────────┴────────────────────────────────────────────┘";

    fn collapsed(text: &str) -> Vec<String> {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.trim().lines().map(words).collect()
    }

    fn integration(id: &str, version: &str, materials: &[&str], description: &str) -> Integration {
        Integration {
            id: id.into(),
            version: version.into(),
            description: description.into(),
            materials: materials.iter().copied().map(Into::into).collect(),
            registration_schema: json!({}),
            attachment_schema: json!({}),
        }
    }

    fn fields(required: &[&str], properties: &Value) -> Vec<Field> {
        api::inputs::fields(
            &json!({ "type": "object", "required": required, "properties": properties }),
        )
    }

    #[test]
    fn the_list_is_the_pages() {
        let table = available(&[
            integration(
                "dependency-track",
                "1.2",
                &["SBOM_CYCLONEDX_JSON"],
                "Send CycloneDX SBOMs to your Dependency-Track instance",
            ),
            integration(
                "smtp",
                "1.0",
                &[],
                "Send emails with information about a received attestation",
            ),
            integration(
                "oci-registry",
                "1.0",
                &[],
                "Send attestations to a compatible OCI registry",
            ),
            integration(
                "discord-webhook",
                "1.1",
                &[],
                "Send attestations to Discord",
            ),
        ]);
        assert_eq!(collapsed(&table.to_string()), collapsed(LIST));
    }

    #[test]
    fn the_registration_inputs_are_the_pages() {
        let one = integration(
            "oci-registry",
            "1.1",
            &[],
            "Send attestations to a compatible OCI registry",
        );
        assert_eq!(
            collapsed(&available(&[one]).to_string()),
            collapsed(DESCRIBE_LIST)
        );
        let fields = fields(
            &["username", "repository", "password"],
            &json!({
                "repository": { "type": "string", "description": "OCI repository uri and path" },
                "username": { "type": "string", "description": "OCI repository username" },
                "password": {
                    "type": "string", "format": "password", "writeOnly": true,
                    "description": "OCI repository password",
                },
            }),
        );
        let table = inputs("Registration inputs", &fields);
        assert_eq!(
            collapsed(&table.to_string()),
            collapsed(DESCRIBE_REGISTRATION)
        );
    }

    #[test]
    fn the_attachment_inputs_are_the_pages() {
        let prefix = json!({
            "prefix": {
                "type": "string", "description": "OCI images name prefix (default chainloop)",
            },
        });
        let table = inputs("Attachment inputs", &fields(&[], &prefix)).to_string();
        // The page lost the closing line of its row when it was made: a box has four sides, so ours keeps
        // it, and only that row is compared without it.
        let ours: Vec<String> = collapsed(&table)
            .into_iter()
            .map(|line| match line.strip_suffix(" │") {
                Some(open) if line.starts_with("│ prefix") => open.to_owned(),
                _ => line,
            })
            .collect();
        assert_eq!(ours, collapsed(DESCRIBE_ATTACHMENT));
        assert!(table.contains("(default chainloop) │"), "{table}");
    }

    #[test]
    fn a_default_a_format_and_choices_are_shown() {
        let fields = fields(
            &[],
            &json!({
                "mode": { "type": "string", "enum": ["one", "two"], "default": "one", "description": "How" },
                "url": { "type": "string", "format": "uri", "description": "Where" },
            }),
        );
        let text = inputs("Attachment inputs", &fields).to_string();
        let lines = collapsed(&text);
        assert_eq!(
            lines[5],
            "│ mode │ string │ no (default: one) │ How (one of one, two) │"
        );
        assert_eq!(lines[6], "│ url │ string (uri) │ no │ Where │");
    }

    #[test]
    fn a_schema_has_a_box_of_its_own() {
        let text = schema("Registration JSON schema", &json!({ "type": "object" })).to_string();
        assert_eq!(
            collapsed(&text)[1..],
            [
                "│ Registration JSON schema │",
                "├──────────────────────────┤",
                "│ { │",
                "│ \"type\": \"object\" │",
                "│ } │",
                "└──────────────────────────┘"
            ]
        );
    }

    #[test]
    fn a_configuration_has_an_order_and_no_empty_texts() {
        let map = |value: Value| value.as_object().unwrap().clone();
        let registration = map(json!({ "port": 25, "host": "mail", "from": "" }));
        let attachment = map(json!({ "host": "other" }));
        assert_eq!(
            config(&[&registration, &attachment]),
            "host: other\nport: 25"
        );
    }
}
