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

/// A receipt without the ends of its lists and maps, where it is too large, and with how many they had.
pub(super) fn bounded(mut receipt: Map<String, Value>) -> Map<String, Value> {
    let size = |receipt: &Map<String, Value>| {
        serde_json::to_string(receipt).map_or(usize::MAX, |text| text.len())
    };
    let mut most = 2_048;
    while size(&receipt) > RECEIPT_MAX_BYTES && most > 0 {
        most /= 2;
        shorten(&mut receipt, most);
    }
    receipt
}

fn shorten(map: &mut Map<String, Value>, most: usize) {
    let mut counts = Map::new();
    for (name, value) in &mut *map {
        let count = match value {
            Value::Array(list) => {
                let count = list.len();
                list.truncate(most);
                count
            }
            Value::Object(inner) => {
                let count = inner.len();
                let kept = std::mem::take(inner).into_iter().take(most);
                inner.extend(kept);
                shorten(inner, most);
                count
            }
            Value::String(text) => {
                *text = clipped(std::mem::take(text));
                continue;
            }
            _ => continue,
        };
        if count > most {
            counts.insert(format!("{name}Count"), count.into());
        }
    }
    for (name, count) in counts {
        map.entry(name).or_insert(count);
    }
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
        let steps =
            (0..1_000).map(|step| (format!("{}{step}", "s".repeat(300)), json!({ "key": "k" })));
        let receipt = Map::from_iter([("steps".to_owned(), Value::Object(steps.collect()))]);
        let kept = bounded(receipt);
        assert!(serde_json::to_string(&kept).unwrap().len() <= RECEIPT_MAX_BYTES);
        assert_eq!(kept["stepsCount"], 1_000);
        // Nothing that was small is another.
        let small = Map::from_iter([("objects".to_owned(), json!(vec![1; 500]))]);
        assert_eq!(bounded(small.clone()), small);
    }
}
