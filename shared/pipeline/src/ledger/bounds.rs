//! Bounds of what others wrote, so that a row has room for it.

use serde_json::{Map, Value};

/// The longest text that a row says of what happened.
const TEXT_MAX_BYTES: usize = 2 * 1024;

/// The largest receipt: what is written in the end must find room in its row, which has 400 KB, beside the steps.
const RECEIPT_MAX_BYTES: usize = 128 * 1024;

/// A text that may quote what others wrote, at a length that a row has room for.
pub(super) fn clipped(mut text: String) -> String {
    if text.len() > TEXT_MAX_BYTES {
        let end = text.floor_char_boundary(TEXT_MAX_BYTES);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A receipt without the ends of its lists, where it is too large, and with how many it had.
pub(super) fn bounded(mut receipt: Map<String, Value>) -> Map<String, Value> {
    let size = |receipt: &Map<String, Value>| {
        serde_json::to_string(receipt).map_or(usize::MAX, |text| text.len())
    };
    let mut most = 2_048;
    while size(&receipt) > RECEIPT_MAX_BYTES && most > 0 {
        most /= 2;
        let mut counts = Map::new();
        for (name, value) in &mut receipt {
            match value {
                Value::Array(list) if list.len() > most => {
                    counts.insert(format!("{name}Count"), list.len().into());
                    list.truncate(most);
                }
                Value::String(text) => *text = clipped(std::mem::take(text)),
                _ => {}
            }
        }
        for (name, count) in counts {
            receipt.entry(name).or_insert(count);
        }
    }
    receipt
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_wrote_finds_room_in_a_row() {
        assert_eq!(clipped("short".into()), "short");
        let long = clipped("ä".repeat(5_000));
        assert!(
            long.len() <= TEXT_MAX_BYTES + 3 && long.ends_with("ä…"),
            "{}",
            long.len()
        );
        let object = json!({ "key": "k".repeat(300), "digest": "sha256:…" });
        let receipt = json!({ "bucket": "sboms", "objects": vec![object; 1_000], "missing": ["m".repeat(512)] });
        let Value::Object(receipt) = receipt else {
            unreachable!()
        };
        let kept = bounded(receipt.clone());
        assert!(serde_json::to_string(&kept).unwrap().len() <= RECEIPT_MAX_BYTES);
        assert_eq!(
            (&kept["bucket"], &kept["objectsCount"]),
            (&json!("sboms"), &json!(1_000))
        );
        assert_eq!(kept["objects"][0], receipt["objects"][0]);
        assert_eq!(kept["missing"], receipt["missing"]);
        // Nothing that was small is another.
        let small = Map::from_iter([("objects".to_owned(), json!(vec![1; 500]))]);
        assert_eq!(bounded(small.clone()), small);
    }
}
