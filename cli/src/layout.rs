//! Layout of tables on a terminal: how wide each column is, which columns share one, and where lines end.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr};

/// A longer word, such as a URL, may be broken, and best behind punctuation.
const LONGEST_WORD: usize = 40;
/// A column is at least so wide, if it has so much to say.
const READABLE: usize = 14;
/// The same of a column that others share.
const SHARED: usize = 24;
/// Stands where a line ends only if it has to; printed as a space.
pub(crate) const NO_BREAK: char = '\u{a0}';

pub(crate) fn width(text: &str) -> usize {
    text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0)
}

/// The width of a table around columns of these widths: a space on both sides of each, and lines between them.
fn outer(widths: impl Iterator<Item = usize>) -> usize {
    1 + widths.map(|width| width + 3).sum::<usize>()
}

/// The narrowest width of a column that breaks no word.
fn least(cells: &[&str], readable: usize) -> usize {
    let words = cells.iter().flat_map(|text| text.split([' ', '\n']));
    let longest = words.flat_map(pieces).map(|piece| width(&piece)).max();
    longest.unwrap_or(0).max(natural(cells).min(readable))
}

fn natural(cells: &[&str]) -> usize {
    cells.iter().map(|text| width(text)).max().unwrap_or(0)
}

/// Reports whether columns find room without breaking a word; the last one may be one that others share.
pub(crate) fn fits(columns: &[Vec<&str>], is_shared: bool, room: usize) -> bool {
    let last = columns.len().saturating_sub(1);
    let least = columns.iter().enumerate().map(|(column, cells)| {
        let readable = if is_shared && column == last {
            SHARED
        } else {
            READABLE
        };
        least(cells, readable)
    });
    outer(least) <= room
}

/// The text of a cell that others share: in their order, what is short beside each other.
pub(crate) fn shared(cells: &[(&str, &str)]) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let mut is_long = true;
    for (header, text) in cells {
        let was_long = is_long;
        is_long = text.contains('\n') || width(text) > LONGEST_WORD;
        // Of an attempt, `2 (redelivery)` too.
        let count = text.split(" (").next().unwrap_or_default();
        let is_number = count.bytes().all(|byte| byte.is_ascii_digit());
        let told = match is_number {
            true => format!("{}{NO_BREAK}{text}", header.to_lowercase()),
            false => (*text).to_owned(),
        };
        match lines.last_mut().filter(|_| !is_long && !was_long) {
            _ if ["", "-"].contains(text) => is_long = was_long,
            Some(line) => line.push(told),
            None => lines.push(vec![told]),
        }
    }
    let lines: Vec<String> = lines
        .iter()
        .map(|line| line.join(&format!("{NO_BREAK}· ")))
        .collect();
    lines.join("\n")
}

/// Widths for columns within `room`: narrow ones have what they need, and wide ones an equal share of the rest.
pub(crate) fn widths(columns: &[Vec<&str>], room: usize) -> Vec<usize> {
    let natural: Vec<usize> = columns.iter().map(|cells| natural(cells)).collect();
    let floors = |readable| columns.iter().map(move |cells| least(cells, readable));
    let floors = [
        floors(READABLE).collect(),
        floors(0).collect(),
        vec![0; columns.len()],
    ];
    let fitting = |floors: &Vec<usize>| {
        let capped = |cap: usize| -> Vec<usize> {
            let widths = natural.iter().zip(floors);
            widths
                .map(|(natural, floor)| cap.max(*floor).min(*natural))
                .collect()
        };
        let mut capped = (1..=room).rev().map(capped);
        capped.find(|widths| outer(widths.iter().copied()) <= room)
    };
    let found = floors.iter().find_map(fitting);
    let mut widths = found.unwrap_or_else(|| natural.clone());
    let mut left = room.saturating_sub(outer(widths.iter().copied()));
    // What is at the end has most to say.
    for (width, natural) in widths.iter_mut().zip(&natural).rev() {
        let more = left.min(natural - *width);
        *width += more;
        left -= more;
    }
    widths
}

/// Breaks lines that are wider than `room`: between words; within one only where none would fit.
pub(crate) fn wrapped(text: &str, room: usize) -> String {
    let lines = text.lines().flat_map(|line| match width(line) <= room {
        true => vec![line.to_owned()],
        false => broken(line, room),
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    text.replace(NO_BREAK, " ")
}

fn broken(line: &str, room: usize) -> Vec<String> {
    let indent: String = line
        .chars()
        .take_while(|letter| *letter == ' ')
        .take(room / 2)
        .collect();
    let mut lines = Vec::new();
    let mut current = indent.clone();
    let mut is_empty = true;
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        let fitting = match width(word) + indent.len() <= room {
            true => vec![word.to_owned()],
            false => cut(word, room - indent.len()),
        };
        for (index, piece) in fitting.into_iter().enumerate() {
            let gap = if is_empty || index > 0 { "" } else { " " };
            if !is_empty && width(&current) + gap.len() + width(&piece) > room {
                lines.push(std::mem::replace(&mut current, indent.clone()));
                current.push_str(&piece);
            } else {
                current.push_str(gap);
                current.push_str(&piece);
            }
            is_empty = false;
        }
    }
    lines.push(current);
    lines
}

/// A word in pieces between which a line may end: one, unless it is long.
fn pieces(word: &str) -> Vec<String> {
    match width(word) <= LONGEST_WORD {
        true => vec![word.to_owned()],
        false => cut(word, LONGEST_WORD),
    }
}

/// A word that is wider than `room`, in pieces that are not.
fn cut(word: &str, room: usize) -> Vec<String> {
    if is_digest(word) {
        return vec![shortened(word, room)];
    }
    let pieces = word.split_inclusive(['/', ',', ';', ':', '&', '?', '=', '+', '@', NO_BREAK]);
    pieces
        .flat_map(|piece| chunks(piece, room.max(1)))
        .collect()
}

fn chunks(text: &str, room: usize) -> Vec<String> {
    let (mut chunks, mut last, mut wide) = (Vec::new(), String::new(), 0);
    for letter in text.chars() {
        let own = letter.width().unwrap_or_default();
        if wide + own > room && !last.is_empty() {
            chunks.push(std::mem::take(&mut last));
            wide = 0;
        }
        last.push(letter);
        wide += own;
    }
    chunks.push(last);
    chunks
}

/// Reports whether a word is a digest, of which the beginning is enough.
fn is_digest(word: &str) -> bool {
    let hex = word.split_once(':').map_or(word, |(_, hex)| hex);
    hex.len() >= LONGEST_WORD && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn shortened(word: &str, room: usize) -> String {
    match width(word) <= room {
        true => word.to_owned(),
        false => {
            word.chars()
                .take(room.saturating_sub(1))
                .collect::<String>()
                + "…"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_between_words_and_keeps_its_indent() {
        assert_eq!(
            wrapped("it answered 503 for a while", 12),
            "it answered\n503 for a\nwhile"
        );
        assert_eq!(wrapped("  size_bytes: 12345", 14), "  size_bytes:\n  12345");
        assert_eq!(wrapped("aligned   as it is", 40), "aligned   as it is");
    }

    #[test]
    fn a_url_ends_its_lines_behind_punctuation_and_a_digest_is_shortened() {
        let url = "https://tracker.example.org/api/v1/projects/0001/boms";
        assert_eq!(
            wrapped(url, 30),
            "https://tracker.example.org/\napi/v1/projects/0001/boms"
        );
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(wrapped(&digest, 16), "sha256:01234567…");
        assert_eq!(wrapped(&digest, 71), digest);
        assert_eq!(wrapped(&"x".repeat(10), 4), "xxxx\nxxxx\nxx");
    }

    #[test]
    fn wide_columns_share_what_narrow_ones_leave() {
        let columns = [vec!["ID", "1"], vec!["a b c d e f g h i j k l m n o p"]];
        assert_eq!(widths(&columns, 60), [2, 31]);
        assert_eq!(widths(&columns, 30), [2, 21]);
    }

    #[test]
    fn columns_fit_where_no_word_breaks() {
        let texts = [
            "0123456789",
            "0123456789",
            "a few words that can be wrapped",
        ];
        let columns = texts.map(|text| vec![text]);
        assert!(fits(&columns, false, 44) && !fits(&columns, false, 43));
        assert!(fits(&columns, true, 54) && !fits(&columns, true, 53));
    }

    #[test]
    fn what_is_short_stands_beside_each_other_and_what_is_long_on_its_own() {
        let long = "x ".repeat(30);
        let cells = [
            ("ATTEMPT", "2 (redelivery)"),
            ("NEXT", ""),
            ("WHEN", "now"),
            ("REASON", long.trim()),
            ("SIGNATURES", "-"),
            ("SIZE", "3"),
        ];
        assert_eq!(
            shared(&cells).replace(NO_BREAK, " "),
            format!("attempt 2 (redelivery) · now\n{}\nsize 3", long.trim())
        );
    }
}
