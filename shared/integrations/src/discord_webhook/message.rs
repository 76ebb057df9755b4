//! The message as one of Discord's embeds, within what Discord takes, and with no mention and no link but our own.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::summary::Row;
use crate::{Summary, text};

// In an embed 256, 4096, 256, 1024, 2048 and 2048, and 6,000 over all. Discord counts letters without saying which:
// these are UTF-16's, of which there are never fewer, of escaped text.
const TITLE: usize = 256;
const DESCRIPTION: usize = 3_000;
const FACTS: usize = 10;
const NAME: usize = 50;
const VALUE: usize = 200;
const FOOTER: usize = 100;
const LINK: usize = 2_048;

/// The summary's verdict and facts, or what an operator's template made in place of them.
pub(super) fn message(summary: &Summary, text: Option<&str>, username: Option<&str>) -> Value {
    let mut embed = json!({
        "title": line(&summary.title, TITLE),
        "description": cut(&text.map_or_else(|| verdict(summary), str::to_owned), DESCRIPTION),
    });
    if text.is_none() {
        let fact = |Row { label, value }: &Row| {
            let (name, value) = (line(label, NAME), line(value, VALUE));
            json!({ "name": name, "value": value, "inline": true })
        };
        embed["fields"] = summary.facts.iter().take(FACTS).map(fact).collect();
    }
    // The stack's own address, in which there is nothing to escape.
    if let Some(page) = summary.page.as_deref().filter(|page| page.len() <= VALUE) {
        let fields = embed["fields"].take();
        let mut fields = fields.as_array().cloned().unwrap_or_default();
        fields.push(json!({ "name": "Attestation", "value": page, "inline": false }));
        embed["fields"] = fields.into();
    }
    // Behind the title, with its host in sight: whoever built chose it.
    let link = summary
        .links
        .first()
        .and_then(|link| api::inputs::web_url(&link.url).ok());
    if let Some(url) = link.filter(|url| url.as_str().len() <= LINK) {
        let host = url.host_str().unwrap_or_default();
        embed["url"] = url.as_str().into();
        embed["footer"] = json!({ "text": text::line(&format!("Run at {host}"), FOOTER, true) });
    }
    let mut message = json!({
        "embeds": [embed],
        "attachments": [{ "id": "0", "filename": "summary.txt" }],
        "allowed_mentions": { "parse": [] },
    });
    if let Some(username) = username {
        message["username"] = username.into();
    }
    message
}

/// The verdict, and what policies found.
fn verdict(summary: &Summary) -> String {
    let mut text = summary.verdict.clone();
    let sections = summary.sections.iter();
    let found = sections.filter(|section| section.title == "Violations");
    for Row { label, value } in found.flat_map(|section| &section.rows) {
        let _ = write!(text, "\n• {label}: {value}");
    }
    text
}

/// Reports whether a letter begins mark-up, a mention or a link. A backslash in front makes it an ordinary letter.
fn is_live(before: Option<char>, letter: char, after: Option<char>) -> bool {
    match letter {
        '\\' | '*' | '_' | '~' | '`' | '|' | '<' | '>' | '[' | ']' | '#' | '@' => true,
        ':' => after == Some('/'),
        '-' => !before.is_some_and(char::is_alphanumeric),
        _ => false,
    }
}

fn line(text: &str, most: usize) -> String {
    cut(&text.replace(['\n', '\r', '\t'], " "), most)
}

/// As much of the text as fits, and never nothing: Discord refuses a field that is empty.
fn cut(text: &str, most: usize) -> String {
    let text = text::visible(text);
    let mut kept = String::new();
    let mut used = 0;
    let mut before = None;
    let mut letters = text.trim().chars().peekable();
    while let Some(letter) = letters.next() {
        let is_live = is_live(before, letter, letters.peek().copied());
        used += letter.len_utf16() + usize::from(is_live);
        if used >= most {
            kept.push('…');
            break;
        }
        if is_live {
            kept.push('\\');
        }
        kept.push(letter);
        before = Some(letter);
    }
    match kept.trim().is_empty() {
        true => "–".to_owned(),
        false => kept,
    }
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
            section.rows = vec![row.clone(); 30];
        }
        summary
    }

    /// Fails unless Discord would take the message, and bring nothing in it alive but the link to the run.
    fn check(message: &Value) {
        assert_eq!(message["allowed_mentions"], json!({ "parse": [] }));
        let embed = &message["embeds"][0];
        let fields = embed["fields"].as_array().into_iter().flatten();
        let fields = fields.flat_map(|field| [(&field["name"], 256), (&field["value"], 1_024)]);
        let texts = [(&embed["title"], 256), (&embed["description"], 4_096)];
        let mut over_all = embed["footer"]["text"]
            .as_str()
            .unwrap()
            .encode_utf16()
            .count();
        for (text, most) in texts.into_iter().chain(fields) {
            let text = text.as_str().unwrap();
            let width = text.encode_utf16().count();
            assert!((1..=most).contains(&width), "{text}");
            over_all += width;
            let mut before = None;
            let mut letters = text.chars().peekable();
            while let Some(letter) = letters.next() {
                let after = letters.peek().copied();
                assert!(!text::is_invisible(letter), "{text:?}");
                before = if letter == '\\' {
                    letters.next()
                } else {
                    assert!(!is_live(before, letter, after), "{text}");
                    Some(letter)
                };
            }
        }
        assert!(over_all <= 6_000, "{over_all}");
        assert_eq!(embed["url"], "https://ci.example.org/runs/77");
        assert_eq!(embed["footer"]["text"], "Run at ci.example.org");
    }

    #[test]
    fn what_looks_like_a_mention_or_a_link_is_text() {
        let message = message(&saying("@everyone <@1> [x](https://e.example)"), None, None);
        check(&message);
        let expected = r"\@everyone \<\@1\> \[x\](https\://e.example)";
        assert_eq!(message["embeds"][0]["title"], expected);
    }

    #[test]
    fn a_template_is_shown_in_place_of_verdict_and_facts() {
        let message = message(&summary(), Some("*shop*\nand more"), Some("Builds"));
        check(&message);
        let embed = &message["embeds"][0];
        assert_eq!(embed["description"], "\\*shop\\*\nand more");
        assert_eq!(embed.get("fields"), None);
        assert_eq!(message["username"], "Builds");
    }

    #[test]
    fn a_text_without_letters_is_no_text() {
        check(&message(&saying("\u{202e}\u{200b}\n"), None, None));
        check(&message(&saying(""), Some(" \n "), None));
    }

    #[test]
    fn what_is_long_is_cut_between_letters() {
        let message = message(&saying(&"🦀_".repeat(5_000)), None, None);
        check(&message);
        let description = message["embeds"][0]["description"].as_str().unwrap();
        assert!(description.ends_with('…'), "{description}");
    }

    #[test]
    fn a_link_that_is_none_is_left_out() {
        let mut summary = summary();
        summary.links[0].url = "javascript:alert(1)".to_owned();
        assert_eq!(message(&summary, None, None)["embeds"][0].get("url"), None);
        summary.links.clear();
        assert_eq!(message(&summary, None, None)["embeds"][0].get("url"), None);
    }

    proptest! {
        #[test]
        fn no_name_brings_anything_alive(
            parts in prop::collection::vec(prop_oneof![
                Just("@everyone".to_owned()), Just("<@1>".to_owned()), Just("[x](https://e.example)".to_owned()),
                Just("```".to_owned()), Just("`".to_owned()), Just("\\".to_owned()), Just("\n".to_owned()),
                Just("\u{202e}".to_owned()), Just("<t:1>".to_owned()), Just("🦀".repeat(700)), ".{0,40}",
            ], 0..40),
        ) {
            let text = parts.concat();
            check(&message(&saying(&text), None, None));
            check(&message(&saying(&text), Some(&text), None));
        }
    }
}
