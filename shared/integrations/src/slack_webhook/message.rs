//! The message as Slack's blocks, within what Slack takes, and with no mention and no link but our own.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::summary::Row;
use crate::{Summary, text};

// Slack counts letters without saying which: these are UTF-16's, of which there are never fewer, of escaped text.
// All blocks together end up below 13,000: from about 13,200 on it refuses what keeps each single limit.
const TITLE: usize = 150;
const VERDICT: usize = 500;
const FACTS: usize = 10;
const LABEL: usize = 50;
const VALUE: usize = 200;
const SECTIONS: usize = 3;
const SECTION: usize = 3_000;
const LINK: usize = 500;
const COMMAND: usize = 200;
/// Shown where blocks are not, as in a notification.
const TEXT: usize = 500;
/// Mattermost takes 4,000 characters where it is old, and Rocket.Chat 5,000.
const PLAIN: usize = 3_900;

/// The summary, or what an operator's template made in place of it.
pub(super) fn message(summary: &Summary, text: Option<&str>) -> Value {
    let title = first(&summary.title, TITLE, plain);
    let header = json!({ "type": "plain_text", "text": title, "emoji": false });
    let mut blocks = vec![json!({ "type": "header", "text": header })];
    if text.is_none() {
        let verdict = format!("*{}*", first(&summary.verdict, VERDICT, unfenced));
        let fact = |Row { label, value }: &Row| {
            let (label, value) = (first(label, LABEL, unfenced), first(value, VALUE, unfenced));
            markup(&format!("*{label}*\n{value}"))
        };
        let facts: Vec<Value> = summary.facts.iter().take(FACTS).map(fact).collect();
        blocks.push(json!({ "type": "section", "text": markup(&verdict), "fields": facts }));
    }
    for text in sections(&text.map_or_else(|| details(summary), str::to_owned)) {
        blocks.push(json!({ "type": "section", "text": markup(&text) }));
    }
    // A button would do, did Slack not ask our app what is to happen when it is pressed. We have no app.
    let run = summary
        .links
        .first()
        .and_then(|run| link(&run.url, "the run"));
    let page = (summary.page.as_deref()).and_then(|page| link(page, "the attestation"));
    let command = format!("`{}`", first(&summary.command, COMMAND, unfenced));
    let context: Vec<Value> = run
        .iter()
        .chain(&page)
        .chain([&command])
        .map(|text| markup(text))
        .collect();
    blocks.push(json!({ "type": "context", "elements": context }));

    let text = format!("{}: {}", summary.title, summary.verdict);
    json!({
        "text": first(&text, TEXT, unfenced),
        "blocks": blocks,
        "unfurl_links": false,
        "unfurl_media": false,
    })
}

/// The same for a server that takes Slack's messages and has a markup of its own: in a code block, where that has no
/// meaning.
pub(super) fn plain_message(summary: &Summary, text: Option<&str>) -> Value {
    let text = text.map_or_else(
        || summary.text(PLAIN - ROOM),
        |text| text::visible(text).trim().to_owned(),
    );
    let text = cut(&text, PLAIN, inert);
    json!({ "text": format!("{FENCE}\n{text}\n{FENCE}") })
}

/// Returns all that is neither verdict nor fact, in lists. It opens no fence: only an operator's template may.
fn details(summary: &Summary) -> String {
    let mut text = String::new();
    // What policies found comes first, so that it is the last to be cut.
    for title in ["Violations", "Annotations"] {
        let sections = summary.sections.iter();
        for section in sections.filter(|section| section.title == title) {
            list(&mut text, title, &section.rows);
        }
    }
    for (at, material) in summary.materials.iter().enumerate() {
        if at == 0 {
            text.push_str("*Materials*\n");
        }
        let values: Vec<&str> = material.rows.iter().map(|row| row.value.as_str()).collect();
        let _ = writeln!(text, "• {}", values.join(" · "));
        for Row { label, value } in &material.annotations {
            // Chainloop's own say again what stands above.
            if !label.starts_with("chainloop.") {
                let _ = writeln!(text, "    {label}: {value}");
            }
        }
    }
    if summary.materials_left_out > 0 {
        let _ = writeln!(text, "… and {} more", summary.materials_left_out);
    }
    list(&mut text, "Environment Variables", &summary.variables);
    text.replace('`', "'")
}

fn list(text: &mut String, title: &str, rows: &[Row]) {
    if !rows.is_empty() {
        let _ = writeln!(text, "*{title}*");
    }
    for Row { label, value } in rows {
        let _ = writeln!(text, "• {label}: {value}");
    }
}

/// `verbatim`: Slack makes no link and no mention of what only looks like one.
fn markup(text: &str) -> Value {
    json!({ "type": "mrkdwn", "text": text, "verbatim": true })
}

/// Returns the replacement for a letter that begins or ends Slack's markup.
fn escape(letter: char) -> Option<&'static str> {
    match letter {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    }
}

/// As [`escape`], and opens no fence either.
fn unfenced(letter: char) -> Option<&'static str> {
    match letter {
        '`' => Some("'"),
        letter => escape(letter),
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

/// Escapes for a code block: closes none, and mentions nobody on a server that looks for mentions in code, too.
fn inert(letter: char) -> Option<&'static str> {
    match letter {
        '`' => Some("'"),
        '@' => Some("@\u{2060}"),
        letter => plain(letter),
    }
}

fn width(text: &str) -> usize {
    text.encode_utf16().count()
}

/// As much of the text as fits, on one line, and never nothing: Slack refuses a text that is empty.
fn first(text: &str, most: usize, escape: fn(char) -> Option<&'static str>) -> String {
    let line: String = text::visible(text)
        .trim()
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    let kept = cut(&line, most, escape);
    match kept.trim().is_empty() {
        true => "–".to_owned(),
        false => kept,
    }
}

/// Escapes the text, and cuts it where it does not fit any more.
fn cut(text: &str, most: usize, escape: fn(char) -> Option<&'static str>) -> String {
    let mut kept = String::new();
    let mut used = 0;
    for letter in text.chars() {
        let mut own = [0; 4];
        let shown = escape(letter).unwrap_or(letter.encode_utf8(&mut own));
        used += width(shown);
        if used >= most {
            kept.push('…');
            break;
        }
        kept.push_str(shown);
    }
    kept
}

const FENCE: &str = "```";
/// Space that a section needs beside its text, for two fences and the count of characters left out.
const ROOM: usize = 100;

/// The text in sections, cut between lines where that is possible. A fence that goes over more than one section is
/// closed in each: an open one would swallow what follows.
fn sections(text: &str) -> Vec<String> {
    let mut sections = Vec::new();
    let mut section = String::new();
    let mut is_fenced = false;
    let text = text::visible(text);
    let text = text.trim();
    let mut left = text.chars().count();
    for piece in pieces(text) {
        if width(&section) + width(&piece.text) > SECTION - ROOM {
            sections.push(close(&section, is_fenced));
            if sections.len() == SECTIONS {
                let last = sections.last_mut().expect("one was just put there");
                let _ = write!(last, "\n_… and {left} characters more, which do not fit_");
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
    /// Number of letters before escaping.
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
fn link(url: &str, what: &str) -> Option<String> {
    let url = api::inputs::web_url(url).ok()?;
    let host = url.host_str()?;
    // What separates the address from its label is the one letter that could stand in it.
    let address: String = url
        .as_str()
        .replace('|', "%7C")
        .chars()
        .map(|letter| escape(letter).map_or_else(|| letter.to_string(), str::to_owned))
        .collect();
    let link = format!("<{address}|Open {what} at {host}>");
    (width(&link) <= LINK).then_some(link)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Detail;
    use crate::fixture::Stage;

    fn summary() -> Summary {
        let stage = Stage::new();
        // A page is a link of our own.
        Summary {
            page: None,
            ..Summary::of(stage.pushed(), &Detail::default())
        }
    }

    /// A summary that says this wherever strangers are quoted.
    fn saying(text: &str) -> Summary {
        let mut summary = summary();
        let row = Row {
            label: text.to_owned(),
            value: text.to_owned(),
        };
        summary.title = text.to_owned();
        summary.verdict = text.to_owned();
        summary.facts = vec![row.clone(); 12];
        for section in &mut summary.sections {
            section.rows = vec![row.clone(); 3];
        }
        for material in &mut summary.materials {
            material.rows = vec![row.clone(); 3];
            material.annotations = vec![row.clone()];
        }
        summary
    }

    fn texts(message: &Value) -> Vec<&Value> {
        match message {
            Value::Array(all) => all.iter().flat_map(texts).collect(),
            Value::Object(object) if object.get("text").is_some_and(Value::is_string) => {
                let rest = object.values().flat_map(texts);
                std::iter::once(message).chain(rest).collect()
            }
            Value::Object(object) => object.values().flat_map(texts).collect(),
            _ => Vec::new(),
        }
    }

    /// Fails unless Slack would take the message, and bring nothing in it alive but the link to the run.
    fn check(message: &Value) {
        let width = |text: &Value| text["text"].as_str().unwrap().encode_utf16().count();
        let blocks = message["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 50);
        let mut over_all = 0;
        for block in blocks {
            match block["type"].as_str().unwrap() {
                "header" => assert!(width(&block["text"]) <= 150),
                "section" => assert!(width(&block["text"]) <= 3_000),
                _ => assert!(block["elements"].as_array().unwrap().len() <= 10),
            }
            for text in block["fields"].as_array().into_iter().flatten() {
                assert!(width(text) <= 2_000);
            }
            over_all += texts(block).into_iter().map(width).sum::<usize>();
        }
        assert!(over_all <= 13_000, "{over_all}");
        assert!(width(message) < 4_000);
        for object in texts(message) {
            let text = object["text"].as_str().unwrap();
            assert!(!text.trim().is_empty());
            assert!(!text.chars().any(text::is_invisible), "{text:?}");
            let lived = text.matches('<').count();
            let ours = text.starts_with("<https://ci.example.org/");
            assert_eq!(lived, usize::from(ours), "{text}");
            if object["type"] == "mrkdwn" {
                assert_eq!(object["verbatim"], true);
                assert_eq!(text.matches(FENCE).count() % 2, 0, "{text}");
            }
        }
    }

    #[test]
    fn what_looks_like_a_mention_or_a_link_is_text() {
        let message = message(
            &saying("<!channel> <@U1> <https://evil.example|x> & @here"),
            None,
        );
        check(&message);
        let title = &message["blocks"][0]["text"]["text"];
        assert_eq!(*title, "‹!channel› ‹@U1› ‹https://evil.example|x› & @here");
        let verdict = message["blocks"][1]["text"]["text"].as_str().unwrap();
        let expected = "*&lt;!channel&gt; &lt;@U1&gt; &lt;https://evil.example|x&gt; &amp; @here*";
        assert_eq!(verdict, expected);
    }

    #[test]
    fn a_template_is_shown_in_place_of_the_summary() {
        let message = message(&summary(), Some("*shop* & co\n```\n<!here>\n```"));
        check(&message);
        let blocks = message["blocks"].as_array().unwrap();
        assert_eq!(blocks.len(), 3);
        assert_eq!(
            blocks[1]["text"]["text"],
            "*shop* &amp; co\n```\n&lt;!here&gt;\n```"
        );
    }

    #[test]
    fn a_long_text_is_cut_between_lines_and_says_so() {
        let line = "a line of forty letters & forty in all\n";
        let sections = sections(&line.repeat(1_000));
        assert_eq!(sections.len(), SECTIONS);
        let shown: usize = sections
            .iter()
            .map(|text| text.matches("a line").count())
            .sum();
        let left = (1_000 - shown) * line.chars().count() - 1;
        let note = format!("in all\n_… and {left} characters more, which do not fit_");
        assert!(sections[2].ends_with(&note), "{}", sections[2]);
        for section in &sections {
            assert!(section.starts_with("a line") && width(section) <= SECTION);
        }
    }

    #[test]
    fn a_fence_that_is_cut_through_is_closed_and_opened_again() {
        let text = format!("```\n{}```\nafter", "0123456789\n".repeat(400));
        let sections = sections(&text);
        assert_eq!(sections.len(), 2);
        assert!(sections[0].starts_with("```\n0123") && sections[0].ends_with("6789\n```"));
        assert!(sections[1].starts_with("```\n0123") && sections[1].ends_with("```\nafter"));
        let open = super::sections("```\nnever closed");
        assert_eq!(open, ["```\nnever closed\n```"]);
    }

    #[test]
    fn one_line_without_an_end_is_cut_between_letters() {
        let sections = sections(&"🦀<".repeat(10_000));
        assert_eq!(sections.len(), SECTIONS);
        for section in &sections {
            assert!(width(section) <= SECTION && width(section) > SECTION - 1_200);
        }
    }

    #[test]
    fn a_text_without_letters_is_no_text() {
        check(&message(&saying("\u{202e}\u{200b}\n"), Some(" \n ")));
        check(&message(&saying(""), Some("")));
    }

    #[test]
    fn the_link_shows_its_host_and_ends_where_it_should() {
        let shown = link("https://ci.example.org/a|b?c=<d>&e=f#>|x", "the run").unwrap();
        let expected = "<https://ci.example.org/a%7Cb?c=%3Cd%3E&amp;e=f#%3E%7Cx|Open the run at ci.example.org>";
        assert_eq!(shown, expected);
        assert_eq!(link("javascript:alert(1)", "it"), None);
        assert_eq!(
            link(&format!("https://ci.example.org/{}", "a".repeat(500)), "it"),
            None
        );
    }

    proptest! {
        #[test]
        fn no_name_brings_anything_alive(
            parts in prop::collection::vec(prop_oneof![
                Just("<!channel>".to_owned()), Just("<@U1>".to_owned()), Just("<https://e.example|x>".to_owned()),
                Just("@everyone".to_owned()), Just("```".to_owned()), Just("`".to_owned()), Just("\n".to_owned()),
                Just("\u{202e}".to_owned()), Just("&lt;".to_owned()), Just("🦀".repeat(700)), ".{0,40}",
            ], 0..40),
        ) {
            let text = parts.concat();
            check(&message(&saying(&text), None));
            check(&message(&saying(&text), Some(&text)));
            for plain in [None, Some(&*text)] {
                let message = plain_message(&saying(&text), plain);
                let shown = message["text"].as_str().unwrap();
                prop_assert!(width(shown) < 4_000);
                let inside = shown.strip_prefix("```\n").unwrap().strip_suffix("\n```").unwrap();
                prop_assert!(!inside.contains(['`', '<']), "{inside}");
                prop_assert_eq!(inside.matches('@').count(), inside.matches("@\u{2060}").count());
            }
        }
    }
}
