//! YAML, and so JSON, as a tree in which every node has its position, for error messages.
//!
//! Not serde's derived types: those stop at the first fault, and say what they found there, which may be a secret.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Error, Spanned};

/// Far above what a person writes, far below what an anchor of anchors grows to.
const DEPTH_MOST: usize = 16;
const NODES_MOST: usize = 200_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub line: u64,
    pub column: u64,
}

#[derive(Debug)]
pub(super) struct Node {
    pub place: Place,
    pub content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    /// As written: a name may stand there twice.
    Map(Vec<(Name, Node)>),
}

#[derive(Debug)]
pub(super) struct Name {
    pub place: Place,
    pub text: String,
}

/// Reads one document.
pub(super) fn parse(text: &str) -> Result<Node, (Option<Place>, String)> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: DEPTH_MOST,
            max_nodes: NODES_MOST,
            max_events: 4 * NODES_MOST,
        },
        // Told with all other faults.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        // As YAML 1.2 has them: `no` is Norway, and 0755 is text.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
    };
    let read = serde_saphyr::from_str_with_options::<Spanned<Content>>(text, options);
    read.map(Node::from).map_err(|error| told(&error))
}

fn told(error: &Error) -> (Option<Place>, String) {
    let place = error.location().map(|location| Place {
        line: location.line(),
        column: location.column(),
    });
    // The snippet would show what stands there.
    let mut error = error.without_snippet();
    while let Error::AliasError { error: inner, .. } = error {
        error = inner;
    }
    let text = error.to_string();
    let is_too_large = matches!(
        error,
        Error::Budget { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. }
    );
    // The scanner has a limit of its own, which it meets first where it looks ahead.
    if is_too_large || text.starts_with("recursion limit") {
        let text = format!(
            "contains more than one document, nests more than {DEPTH_MOST} deep, or is too large with its aliases"
        );
        return (place, text);
    }
    // The place is said in front of it.
    let text = match text.split_once(" at line ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    };
    (place, text)
}

impl From<Spanned<Content>> for Node {
    fn from(spanned: Spanned<Content>) -> Self {
        Self {
            place: place(&spanned),
            content: spanned.value,
        }
    }
}

fn place<T>(spanned: &Spanned<T>) -> Place {
    Place {
        line: spanned.referenced.line(),
        column: spanned.referenced.column(),
    }
}

impl Node {
    /// Names the node's type for error messages, never its content.
    pub(super) fn kind(&self) -> &'static str {
        match self.content {
            Content::Null => "empty",
            Content::Bool(_) => "a boolean",
            Content::Number(_) => "a number",
            Content::Text(_) => "a string",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }

    /// As JSON; of a name that is there twice the last.
    pub(super) fn json(self) -> Value {
        match self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => value.into(),
            Content::Number(number) => number.into(),
            Content::Text(text) => text.into(),
            Content::List(items) => items.into_iter().map(Self::json).collect(),
            Content::Map(entries) => {
                let entries = entries
                    .into_iter()
                    .map(|(name, node)| (name.text, node.json()));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Content;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Ok(Number::from_f64(value).map_or(Content::Null, Content::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Content>>()? {
            items.push(item.into());
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = access.next_key::<Spanned<String>>()? {
            let place = place(&name);
            let text = name.value;
            let value = access.next_value::<Spanned<Content>>()?;
            entries.push((Name { place, text }, value.into()));
        }
        Ok(Content::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        parse(text).unwrap().json()
    }

    #[test]
    fn yaml_and_json_are_one() {
        let yaml = "a:\n  - 1\n  - 2.5\n  - no\n  - true\n  - 'x'\n  - ~\n  - 0755\n";
        let json_text = "{\n\t\"a\": [1, 2.5, \"no\", true, \"x\", null, \"0755\"]\n}";
        let wanted = json!({ "a": [1, 2.5, "no", true, "x", null, "0755"] });
        assert_eq!(read(yaml), wanted);
        assert_eq!(read(json_text), wanted);
        assert_eq!(read("\"\\ud83d\\ude00\\/é\""), json!("😀/é"));
    }

    #[test]
    fn every_part_knows_where_it_stands() {
        let Content::Map(entries) = parse("a: 1\nb:\n  c: x\n").unwrap().content else {
            panic!("a mapping")
        };
        let (name, node) = &entries[1];
        assert_eq!((name.text.as_str(), name.place.line), ("b", 2));
        assert_eq!(node.place, Place { line: 3, column: 3 });
    }

    #[test]
    fn what_grows_without_end_is_refused() {
        let nine = |text: &str| [text; 9].join(", ");
        let steps = (1..12).map(|step| {
            let before = nine(&format!("*a{}", step - 1));
            format!("a{step}: &a{step} [{before}]\n")
        });
        let bomb = format!("a0: &a0 [{}]\n", nine("x")) + &steps.collect::<String>();
        let deep = "[".repeat(10_000);
        let deep_blocks = (0..1_000).fold(String::new(), |text, depth| {
            text + &" ".repeat(depth) + "a:\n"
        });
        for text in [bomb.as_str(), &deep, &deep_blocks, "a: 1\n---\nb: 1\n"] {
            let (place, text) = parse(text).unwrap_err();
            assert!(place.is_some(), "{text}");
            assert!(text.starts_with("contains more than"), "{text}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_told_without_what_stands_there() {
        for text in [
            "password: 'canary\nx: 1\n",
            "canary: canary: canary",
            "a: [canary\nb: canary\n",
            "a: \"canary\\q\"\n",
            "? [canary]\n: canary\n",
            "a: !tag canary\n",
            "a: *canary\n",
            "a: !!int canary\n",
            "a: !!binary canary\n",
            "a: .nan\n",
            "<<: {canary: 1}\n",
            "\u{1}canary",
        ] {
            let (place, told) = parse(text).unwrap_err();
            assert!(place.is_some() && !told.is_empty(), "{text}: {told}");
            assert!(!told.contains("canary"), "{text}: {told}");
        }
    }
}
