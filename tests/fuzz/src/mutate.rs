//! Mutations that know JSON, base64 inside of it, and JSON inside of that: an envelope in a body in an event stays one.

use std::fmt;

use base64_simd::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Numbers that follow from a seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 where there is none.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).expect("64 bits");
        usize::try_from(self.next() % end).expect("below a usize")
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

pub struct Mutator {
    pub random: Random,
    pub words: &'static [&'static str],
    pub longest: usize,
}

/// Texts in place of a JSON value, some of which are none.
const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1",
    "1.5",
    "9007199254740993",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "1e308",
    "1e-308",
    "1e999",
    "00",
    "0x10",
    "NaN",
    "\"\"",
    "[]",
    "{}",
    "[[]]",
    "[{}]",
    "{\"\":{}}",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\" \"",
    "\"*\"",
    "\"../..\"",
    "\"\u{202e}\"",
    "\"\u{feff}\"",
    "\"e\u{301}\"",
    "\"%00\"",
];

/// Bytes that scanners trip over.
const BYTES: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b" ",
    b"\"",
    b"\\",
    b"'",
    b"`",
    b"%",
    b"&",
    b"*",
    b"!",
    b"|",
    b">",
    b"#",
    b":",
    b",",
    b"{",
    b"}",
    b"[",
    b"]",
    b"(",
    b")",
    b"=",
    b"-",
    b"_",
    b"/",
    b"//",
    b"@",
    b"~",
    b"$",
    b"..",
    b"{{",
    b"}}",
    b"{%",
    b"%}",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    "\u{202e}".as_bytes(),
    "\u{130}".as_bytes(),
    "\u{1f600}".as_bytes(),
    "\u{ff0e}".as_bytes(),
    "\u{2044}".as_bytes(),
    b"0",
    b"9",
    b"99999999999999999999",
    b"-1",
    b"1e9",
    b"0x7f",
    b"true",
    b"null",
];

impl Mutator {
    /// An input that is like `seed`, perhaps with a part of another.
    pub fn mutate(&mut self, seed: Vec<u8>, other: &[u8]) -> Vec<u8> {
        let mut input = seed;
        for _ in 0..=self.random.below(4) {
            input = self.edit(input, other, 0);
        }
        input.truncate(self.longest);
        input
    }

    fn edit(&mut self, input: Vec<u8>, other: &[u8], depth: usize) -> Vec<u8> {
        let node = match self.random.one_in(4) {
            true => None,
            false => serde_json::from_slice::<Node>(&input).ok(),
        };
        match node {
            Some(mut node) if matches!(node, Node::List(_) | Node::Map(_)) => {
                let other = serde_json::from_slice::<Node>(other).ok();
                let at = self.random.below(node.count());
                node.at(at, &mut |node| self.edit_node(node, other.as_ref(), depth));
                node.to_string().into_bytes()
            }
            _ => self.edit_bytes(input, other),
        }
    }

    fn edit_node(&mut self, node: &mut Node, other: Option<&Node>, depth: usize) {
        let many = 1 << self.random.below(8);
        match self.random.below(9) {
            0 => *node = Node::Raw((*self.random.of(VALUES)).to_owned()),
            1 => *node = Node::Text((*self.random.of(self.words_or_values())).to_owned()),
            2 => {
                let (open, close) = if self.random.one_in(2) {
                    ("[", "]")
                } else {
                    ("{\"a\":", "}")
                };
                *node = Node::Raw(format!("{}{node}{}", open.repeat(many), close.repeat(many)));
            }
            3 => {
                if let Some(other) = other {
                    let at = self.random.below(other.count());
                    let mut other = other.clone();
                    other.at(at, &mut |part| *node = part.clone());
                }
            }
            _ => match node {
                Node::Text(text) if depth < 4 => {
                    *text = self.edit_text(std::mem::take(text), depth);
                }
                Node::List(items) if !items.is_empty() => {
                    let at = self.random.below(items.len());
                    match self.random.one_in(3) {
                        true => drop(items.remove(at)),
                        false => {
                            for _ in 0..many {
                                items.push(items[at].clone());
                            }
                        }
                    }
                }
                Node::Map(members) if !members.is_empty() => {
                    let at = self.random.below(members.len());
                    match self.random.below(4) {
                        0 => drop(members.remove(at)),
                        // A name that stands there twice.
                        1 => {
                            let (name, value) = members[at].clone();
                            let last = self.random.below(members.len());
                            members[last].0.clone_from(&name);
                            members.push((name, value));
                        }
                        2 => {
                            (*self.random.of(self.words_or_values()))
                                .clone_into(&mut members[at].0);
                        }
                        _ => {
                            for number in 0..many {
                                members.push((number.to_string(), members[at].1.clone()));
                            }
                        }
                    }
                }
                node => *node = Node::Raw((*self.random.of(VALUES)).to_owned()),
            },
        }
    }

    fn words_or_values(&self) -> &'static [&'static str] {
        if self.words.is_empty() {
            VALUES
        } else {
            self.words
        }
    }

    /// Edits what a text spells, where it is base64, or the text.
    fn edit_text(&mut self, text: String, depth: usize) -> String {
        let decoded = match text.len() >= 8 {
            true => STANDARD.decode_to_vec(&text).ok(),
            false => None,
        };
        match decoded {
            Some(bytes) => {
                let bytes = match self.random.one_in(4) {
                    true => bytes,
                    false => self.edit(bytes, &[], depth + 1),
                };
                let alphabets = [
                    STANDARD,
                    STANDARD,
                    STANDARD,
                    STANDARD,
                    URL_SAFE,
                    URL_SAFE_NO_PAD,
                    STANDARD_NO_PAD,
                ];
                let text = alphabets[self.random.below(alphabets.len())].encode_to_string(bytes);
                match self.random.one_in(8) {
                    true => STANDARD.encode_to_string(text),
                    false => text,
                }
            }
            None => {
                String::from_utf8_lossy(&self.edit(text.into_bytes(), &[], depth + 1)).into_owned()
            }
        }
    }

    fn edit_bytes(&mut self, mut input: Vec<u8>, other: &[u8]) -> Vec<u8> {
        let at = self.random.below(input.len() + 1);
        let end = (at + 1 + self.random.below(16)).min(input.len());
        let many = 1 << self.random.below(10);
        match self.random.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.random.below(8),
            1 if at < end => drop(input.drain(at..end)),
            2 if at < end => {
                let part = input[at..end].repeat(many);
                input.splice(at..at, part);
            }
            3 if !other.is_empty() => {
                let from = self.random.below(other.len());
                let to = (from + 1 + self.random.below(64)).min(other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
            4 => {
                let bytes =
                    BYTES[self.random.below(BYTES.len())].repeat(if many > 64 { many } else { 1 });
                input.splice(at..at, bytes);
            }
            5 if at < end => {
                let from = self.random.below(input.len());
                let part: Vec<u8> = input[from..].iter().copied().take(end - at).collect();
                input.splice(at..end, part);
            }
            6 => {
                let bytes = BYTES[self.random.below(BYTES.len())];
                input.splice(at..end, bytes.iter().copied());
            }
            _ => {
                let word = *self.random.of(self.words_or_values());
                input.splice(at..at, word.bytes());
            }
        }
        input
    }
}

/// JSON in which a name may stand twice, and a value may be any text.
#[derive(Clone)]
enum Node {
    Raw(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    fn count(&self) -> usize {
        1 + match self {
            Node::List(items) => items.iter().map(Node::count).sum(),
            Node::Map(members) => members.iter().map(|(_, node)| node.count()).sum(),
            _ => 0,
        }
    }

    /// Hands over the node of this number. Returns how many are left to pass.
    fn at(&mut self, number: usize, edit: &mut dyn FnMut(&mut Node)) -> Option<usize> {
        let Some(mut left) = number.checked_sub(1) else {
            edit(self);
            return None;
        };
        let children: Vec<&mut Node> = match self {
            Node::List(items) => items.iter_mut().collect(),
            Node::Map(members) => members.iter_mut().map(|(_, node)| node).collect(),
            _ => Vec::new(),
        };
        for child in children {
            left = child.at(left, edit)?;
        }
        Some(left)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| serde_json::to_string(text).expect("a string is always JSON");
        match self {
            Node::Raw(text) => formatter.write_str(text),
            Node::Text(text) => formatter.write_str(&quoted(text)),
            Node::List(items) => {
                let items: Vec<String> = items.iter().map(Node::to_string).collect();
                write!(formatter, "[{}]", items.join(","))
            }
            Node::Map(members) => {
                let members: Vec<String> = members
                    .iter()
                    .map(|(name, node)| format!("{}:{node}", quoted(name)))
                    .collect();
                write!(formatter, "{{{}}}", members.join(","))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Raw("null".to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Raw(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Raw(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Raw(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Raw(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Node::Map(members))
    }
}
