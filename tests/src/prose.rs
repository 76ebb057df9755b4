//! Plain English: how doc comments begin, and phrases that name nothing.

use std::fs;

use crate::contract::{files, root};

/// Beginnings of a sentence that keeps its subject for later.
const RELATIVE: [&str; 13] = [
    "What",
    "Who",
    "Whoever",
    "Whom",
    "Whose",
    "Whether",
    "That",
    "Where",
    "How",
    "Which",
    "When what",
    "Those",
    "Of",
];

/// Percent of doc comments that may begin so.
const MOST: usize = 2;

/// Phrases for which the field has a term: a usage error, a write conflict, a release.
const BANNED: [&str; 9] = [
    "wrongly used",
    "before one's eyes",
    "would not hold still",
    "has not been said",
    "while they watch",
    "lets go of all",
    "who is asking",
    "not with this token",
    "is to be another",
];

const FOLDERS: [&str; 6] = ["cli", "docs", "functions", "infra", "shared", "tests"];

fn sources(endings: &[&str]) -> impl Iterator<Item = (String, String)> {
    let all = FOLDERS.map(|folder| files(&root().join(folder), endings));
    all.into_iter().flatten().map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        (path.display().to_string(), text)
    })
}

fn is_doc(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("///") || line.starts_with("//!")
}

fn is_relative(line: &str) -> bool {
    let text = line.trim_start()[3..].trim_start();
    RELATIVE.iter().any(|word| {
        let rest = text.strip_prefix(word);
        rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    })
}

#[test]
fn doc_comments_begin_with_a_noun_or_a_verb() {
    let (mut all, mut relative) = (0, Vec::new());
    for (path, text) in sources(&["rs"]) {
        let mut before = "";
        for line in text.lines() {
            if is_doc(line) && !is_doc(before) {
                all += 1;
                if is_relative(line) {
                    relative.push(format!("{path}: {}", line.trim()));
                }
            }
            before = line;
        }
    }
    assert!(all > 2_000, "{all}");
    assert!(
        relative.len() * 100 < all * MOST,
        "{} of {all} doc comments begin with a relative word:\n{}",
        relative.len(),
        relative.join("\n")
    );
}

#[test]
fn no_text_has_a_phrase_that_the_field_does_not_use() {
    let own = file!().rsplit('/').next().unwrap();
    let endings = ["rs", "md", "py", "sh", "yaml", "json"];
    for (path, text) in sources(&endings).filter(|(path, _)| !path.ends_with(own)) {
        let text = text.to_lowercase();
        for phrase in BANNED {
            assert!(
                !text.contains(phrase),
                "{path}: write {phrase:?} in plain English"
            );
        }
    }
}
