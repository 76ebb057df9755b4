//! The message as Slack's blocks, within what Slack takes, and with no mention and no link but our own.

use serde_json::{Value, json};

use crate::inputs;

/// What stands in a message, all of it as it came from strangers.
pub(super) struct Content<'a> {
    pub(super) title: &'a str,
    pub(super) verdict: &'a str,
    /// Names and values, of which the first ten are shown.
    pub(super) facts: &'a [(String, String)],
    /// May have fences, as in Markdown.
    pub(super) text: &'a str,
    /// Where the run can be looked at.
    pub(super) link: &'a str,
}

// Slack counts letters without saying which: these are UTF-16's, of which there are never fewer, of escaped text.
// All blocks together end up below 13,000: from about 13,200 on it refuses what keeps each single limit.
const TITLE: usize = 150;
const VERDICT: usize = 500;
const FACTS: usize = 10;
const NAME: usize = 50;
const VALUE: usize = 200;
const SECTIONS: usize = 3;
const SECTION: usize = 3_000;
const LINK: usize = 500;
/// Shown where blocks are not, as in a notification.
const TEXT: usize = 500;

pub(super) fn message(content: &Content<'_>) -> Value {
    let title = first(content.title, TITLE, plain);
    let verdict = first(content.verdict, VERDICT, escape);
    let mut blocks = vec![
        json!({ "type": "header", "text": { "type": "plain_text", "text": title, "emoji": false } }),
        json!({ "type": "section", "text": markup(&verdict) }),
    ];
    let fact = |(name, value): &(String, String)| {
        let (name, value) = (first(name, NAME, escape), first(value, VALUE, escape));
        markup(&format!("*{name}*\n{value}"))
    };
    let facts: Vec<Value> = content.facts.iter().take(FACTS).map(fact).collect();
    if !facts.is_empty() {
        blocks.push(json!({ "type": "section", "fields": facts }));
    }
    for text in sections(content.text) {
        blocks.push(json!({ "type": "section", "text": markup(&text) }));
    }
    // A button would do, had Slack not to ask our app what is to happen when it is pressed. We have no app.
    if let Some(link) = link(content.link) {
        blocks.push(json!({ "type": "context", "elements": [markup(&link)] }));
    }
    let text = format!("{}: {}", content.title, content.verdict);
    json!({
        "text": first(&text, TEXT, escape),
        "blocks": blocks,
        "unfurl_links": false,
        "unfurl_media": false,
    })
}

/// `verbatim`: Slack makes no link and no mention of what only looks like one.
fn markup(text: &str) -> Value {
    json!({ "type": "mrkdwn", "text": text, "verbatim": true })
}

/// What stands for a letter by which Slack's markup begins or ends.
fn escape(letter: char) -> Option<&'static str> {
    match letter {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    }
}

/// For text that is no markup, where Slack does not say whether `&lt;` is read.
fn plain(letter: char) -> Option<&'static str> {
    match letter {
        '<' => Some("‹"),
        '>' => Some("›"),
        _ => None,
    }
}

fn width(text: &str) -> usize {
    text.encode_utf16().count()
}

/// As much of the text as fits, on one line, and never nothing: Slack refuses a text that is empty.
fn first(text: &str, most: usize, escape: fn(char) -> Option<&'static str>) -> String {
    let mut kept = String::new();
    let mut used = 0;
    for letter in text.trim().chars() {
        let letter = if letter.is_control() { ' ' } else { letter };
        let mut own = [0; 4];
        let shown = escape(letter).unwrap_or(letter.encode_utf8(&mut own));
        used += width(shown);
        if used >= most {
            kept.push('…');
            break;
        }
        kept.push_str(shown);
    }
    match kept.trim().is_empty() {
        true => "–".to_owned(),
        false => kept,
    }
}

const FENCE: &str = "```";
/// What a section needs beside its text: two fences, and to say how much was left out.
const ROOM: usize = 100;

/// The text in sections, cut between lines where that is possible. A fence that goes over more than one section is
/// closed in each: an open one would swallow what follows.
fn sections(text: &str) -> Vec<String> {
    let mut sections = Vec::new();
    let mut section = String::new();
    let mut is_fenced = false;
    let mut left: usize = text.trim().chars().count();
    for piece in pieces(text.trim()) {
        if width(&section) + width(&piece.text) > SECTION - ROOM {
            sections.push(close(&section, is_fenced));
            if sections.len() == SECTIONS {
                let last = sections.last_mut().expect("one was just put there");
                last.push_str(&format!(
                    "\n_… and {left} characters more, which do not fit_"
                ));
                return sections;
            }
            section = if is_fenced {
                format!("{FENCE}\n")
            } else {
                String::new()
            };
        }
        is_fenced ^= piece.text.matches(FENCE).count() % 2 == 1;
        section.push_str(&piece.text);
        left -= piece.letters;
    }
    sections.push(close(&section, is_fenced));
    sections.retain(|section| !section.trim().is_empty());
    sections
}

fn close(section: &str, is_fenced: bool) -> String {
    match is_fenced {
        true => format!("{}\n{FENCE}", section.trim_end()),
        false => section.trim_end().to_owned(),
    }
}

/// Escaped text that is not cut any further.
struct Piece {
    text: String,
    /// How many they were before they were escaped.
    letters: usize,
}

/// The lines, and those that are long in parts, none of which ends within a fence's three letters.
fn pieces(text: &str) -> Vec<Piece> {
    const LONG: usize = 1_000;
    let mut pieces = Vec::new();
    for mut line in text.split_inclusive('\n') {
        let mut piece = Piece {
            text: String::new(),
            letters: 0,
        };
        while let Some(letter) = line.chars().next() {
            let (token, letters) = match line.starts_with(FENCE) {
                true => (FENCE, FENCE.len()),
                false => (&line[..letter.len_utf8()], 1),
            };
            piece.text.push_str(escape(letter).unwrap_or(token));
            piece.letters += letters;
            line = &line[token.len()..];
            if piece.text.len() > LONG {
                pieces.push(std::mem::replace(
                    &mut piece,
                    Piece {
                        text: String::new(),
                        letters: 0,
                    },
                ));
            }
        }
        pieces.push(piece);
    }
    pieces
}

/// The run's address, with its host in sight: whoever built chose it.
fn link(url: &str) -> Option<String> {
    let url = inputs::web_url(url).ok()?;
    let host = url.host_str()?;
    // What separates the address from its label is the one letter that could stand in it.
    let address: String = url
        .as_str()
        .replace('|', "%7C")
        .chars()
        .map(|letter| escape(letter).map_or_else(|| letter.to_string(), str::to_owned))
        .collect();
    let link = format!("<{address}|Open the run at {host}>");
    (width(&link) <= LINK).then_some(link)
}
