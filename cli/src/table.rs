//! Tables as the documentation shows them: a light box, upper-case headers, a line between rows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use api::Timestamp;
use api::inputs::Field;
use api::integrations::Integration;
use attestation::Digest;
pub(crate) use comfy_table::Color;
use comfy_table::{
    ColumnConstraint, ContentArrangement, ContentLineStyle, LineStyle, TableStyle, Width,
};
use indicatif::BinaryBytes;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::ids;
use crate::layout::{self, NO_BREAK};
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

/// A narrower terminal breaks the lines of a table itself.
const NARROWEST: usize = 40;

pub(crate) struct Table {
    title: Option<&'static str>,
    headers: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    colour: Option<Color>,
}

impl Table {
    /// With a line between rows.
    pub(crate) fn new(headers: &[&str]) -> Self {
        Self {
            title: None,
            headers: headers.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
        }
    }

    /// Under a title, with rows close together.
    pub(crate) fn titled(title: &'static str, headers: &[&str]) -> Self {
        Self {
            title: Some(title),
            ..Self::new(headers)
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Renders the table: whole, or for a terminal of this width. Columns that have no room there share the last one.
    pub(crate) fn fitted(&self, room: Option<usize>) -> String {
        let Some(room) = room.map(|room| room.max(NARROWEST)) else {
            return self.drawn(&[]);
        };
        let columns = self.columns();
        // One column that is shared by one is a column.
        let shared = (1..columns.len().saturating_sub(1)).rev();
        let mut shared = shared.map(|kept| self.shared(kept));
        let fits = |one: &Self| layout::fits(&one.columns(), true, room);
        match self.headers.is_empty() || layout::fits(&columns, false, room) {
            true => self.drawn(&layout::widths(&columns, room)),
            false => {
                let narrow = shared.find(fits);
                let narrow = narrow.unwrap_or_else(|| self.shared(1.min(columns.len() - 1)));
                narrow.drawn(&layout::widths(&narrow.columns(), room))
            }
        }
    }

    /// The texts of each column, its header among them.
    fn columns(&self) -> Vec<Vec<&str>> {
        let of = |column: usize| {
            let header = self.headers.get(column).map(String::as_str);
            let cells = self.rows.iter().filter_map(move |row| row.get(column));
            let cells = cells.map(|cell| cell.text.as_str());
            header.into_iter().chain(cells).collect()
        };
        let columns = self.rows.iter().map(Vec::len).max();
        (0..columns.unwrap_or(0).max(self.headers.len()))
            .map(of)
            .collect()
    }

    /// The table with all columns behind the first `kept` in one.
    fn shared(&self, kept: usize) -> Self {
        let (headers, others) = self.headers.split_at(kept);
        let rows = self.rows.iter().map(|row| {
            let (own, cells) = row.split_at(kept);
            let cells = cells.iter().map(|cell| cell.text.as_str());
            let cells: Vec<_> = others.iter().map(String::as_str).zip(cells).collect();
            let shared = Cell::from(layout::shared(&cells));
            own.iter().cloned().chain([shared]).collect()
        });
        let others = others.join(&format!("{NO_BREAK}· "));
        Self {
            title: self.title,
            headers: headers.iter().cloned().chain([others]).collect(),
            rows: rows.collect(),
        }
    }

    /// Draws the table with columns of at most these widths.
    fn drawn(&self, widths: &[usize]) -> String {
        let wrapped = |(column, text): (usize, &str)| match widths.get(column) {
            Some(width) => layout::wrapped(text, *width),
            None => text.to_owned(),
        };
        let mut boxes = comfy_table::Table::new();
        boxes.load_style(if self.title.is_some() {
            TITLED
        } else {
            SEPARATED
        });
        boxes.set_content_arrangement(ContentArrangement::Disabled);
        if !self.headers.is_empty() {
            let headers = self.headers.iter().map(String::as_str).enumerate();
            boxes.set_header(headers.map(wrapped));
        }
        for row in &self.rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let drawn = comfy_table::Cell::new(wrapped((column, &cell.text)));
                match cell.colour {
                    Some(colour) => drawn.fg(colour),
                    None => drawn,
                }
            });
            boxes.add_row(cells);
        }
        let Some(title) = self.title else {
            return boxes.to_string();
        };
        if let (Some(column), [row]) = (boxes.column_mut(0), self.rows.as_slice())
            && row.len() == 1
        {
            let width = u16::try_from(layout::width(title) + 2).unwrap_or(u16::MAX);
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
        // A cell over all columns, which the library does not have.
        let text = boxes.to_string();
        let border = text.lines().next().map_or(0, layout::width);
        let inner = border.saturating_sub(2);
        let bar = "─".repeat(inner);
        let padded = format!(" {title:<0$}", inner.saturating_sub(1));
        format!("┌{bar}┐\n│{padded}│\n{text}")
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.fitted(terminal_width()))
    }
}

/// None where the output is not a terminal, and nothing needs to fit.
pub(crate) fn terminal_width() -> Option<usize> {
    comfy_table::Table::new().width().map(usize::from)
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, colour: None }
    }
}

pub(crate) fn cell(text: impl AsRef<str>) -> Cell {
    plain(text.as_ref()).into()
}

/// With a colour, where colours are wanted.
pub(crate) fn paint(cell: Cell, colour: Color) -> Cell {
    let colour = coloured(&io::stdout()).then_some(colour);
    Cell { colour, ..cell }
}

/// An ID: on a terminal its beginning, by which commands know it too.
pub(crate) fn id(id: impl AsRef<str>) -> Cell {
    cell(short(id.as_ref()))
}

pub(crate) fn short(id: &str) -> String {
    match terminal_width() {
        Some(_) => id.chars().take(ids::SHORT_ID).collect(),
        None => id.to_owned(),
    }
}

/// A digest: on a terminal its beginning, by which commands know it too.
pub(crate) fn digest(digest: &Digest) -> Cell {
    match terminal_width() {
        Some(_) => cell(&digest.hex()[..ids::SHORT_DIGEST]),
        None => cell(digest.to_string()),
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
    let mut table = Table::new(&["ID", "VERSION", "MATERIAL REQUIREMENT", "DESCRIPTION"]);
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
    let mut table = Table::titled(title, &["FIELD", "TYPE", "REQUIRED", "DESCRIPTION"]);
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
    table
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

/// Formats a number of bytes for people to read.
pub(crate) fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
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
