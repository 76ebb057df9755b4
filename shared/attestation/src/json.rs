//! Deserialization of JSON from others: borrowed where possible, bounded where it could be large, strict about shape
//! and generous about values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A string, borrowed unless it has escapes. Serde borrows a `Cow` only directly in a field; this also
/// does in an `Option`, a list and a key.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

pub(crate) fn owned(text: Option<Text<'_>>) -> String {
    text.map(|text| text.0.into_owned()).unwrap_or_default()
}

/// A string that is not asked to be text, for base64, which is looked at when it is decoded.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Bytes<'a>(#[serde(borrow)] Cow<'a, [u8]>);

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Only an object becomes a `T`. Derived code also takes the fields from a list, which no sender means.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// A list of objects that keeps the first `MAX` and counts the rest, so that three bytes of input
/// cannot become a hundred of memory a million times.
pub(crate) struct Objects<T, const MAX: usize> {
    pub(crate) items: Vec<T>,
    pub(crate) count: usize,
}

impl<T, const MAX: usize> Default for Objects<T, MAX> {
    fn default() -> Self {
        Objects {
            items: Vec::new(),
            count: 0,
        }
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Objects<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectsVisitor<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ObjectsVisitor<T, MAX> {
            type Value = Objects<T, MAX>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() < MAX {
                    match list.next_element::<Object<T>>()? {
                        Some(Object(item)) => items.push(item),
                        None => break,
                    }
                }
                let mut count = items.len();
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Objects { items, count })
            }
        }

        deserializer.deserialize_seq(ObjectsVisitor(PhantomData))
    }
}

/// Sum over many entries, added up one by one.
pub(crate) trait Sum<T>: Default {
    fn add(&mut self, one: T);
}

/// The sum of a list, which takes the memory of one item.
pub(crate) struct Summed<T, S>(pub(crate) S, PhantomData<T>);

/// The sum of an object's members, which takes the memory of one member.
pub(crate) struct SummedMap<T, S>(pub(crate) S, PhantomData<T>);

impl<T, S: Default> Default for Summed<T, S> {
    fn default() -> Self {
        Summed(S::default(), PhantomData)
    }
}

impl<'de, T: Deserialize<'de>, S: Sum<T>> Deserialize<'de> for Summed<T, S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SummedVisitor<T, S>(PhantomData<(T, S)>);

        impl<'de, T: Deserialize<'de>, S: Sum<T>> Visitor<'de> for SummedVisitor<T, S> {
            type Value = Summed<T, S>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut sum = S::default();
                while let Some(item) = list.next_element()? {
                    sum.add(item);
                }
                Ok(Summed(sum, PhantomData))
            }
        }

        deserializer.deserialize_seq(SummedVisitor(PhantomData))
    }
}

impl<'de, K, V, S> Deserialize<'de> for SummedMap<(K, V), S>
where
    K: Deserialize<'de>,
    V: Deserialize<'de>,
    S: Sum<(K, V)>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SummedVisitor<T, S>(PhantomData<(T, S)>);

        impl<'de, K, V, S> Visitor<'de> for SummedVisitor<(K, V), S>
        where
            K: Deserialize<'de>,
            V: Deserialize<'de>,
            S: Sum<(K, V)>,
        {
            type Value = SummedMap<(K, V), S>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut sum = S::default();
                while let Some(member) = map.next_entry()? {
                    sum.add(member);
                }
                Ok(SummedMap(sum, PhantomData))
            }
        }

        deserializer.deserialize_map(SummedVisitor(PhantomData))
    }
}

/// An object whose values are text, or are made text the way Chainloop does. No key may stand twice.
#[derive(Default)]
pub(crate) struct Strings(pub(crate) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringsVisitor;

        impl<'de> Visitor<'de> for StringsVisitor {
            type Value = Strings;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strings, A::Error> {
                let mut strings = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if strings.contains_key(&key) {
                        return Err(duplicate(&key));
                    }
                    let value = map.next_value_seed(Stringified)?;
                    strings.insert(key, value);
                }
                Ok(Strings(strings))
            }
        }

        deserializer.deserialize_map(StringsVisitor)
    }
}

/// In the words that serde's own derived code uses, so that both are recognized alike.
pub(crate) fn duplicate<E: de::Error>(key: &str) -> E {
    E::custom(format_args!("duplicate field `{key}`"))
}

/// Any value as text: a number as Go's `%g` writes it, a list or an object as JSON.
struct Stringified;

impl<'de> DeserializeSeed<'de> for Stringified {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Stringified {
    type Value = String;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_string<E>(self, text: String) -> Result<String, E> {
        Ok(text)
    }

    fn visit_unit<E>(self) -> Result<String, E> {
        Ok(String::new())
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    // A protobuf value knows no integers, so Chainloop has already made a double of every number.
    #[expect(clippy::cast_precision_loss, reason = "as Chainloop loses it")]
    fn visit_u64<E>(self, number: u64) -> Result<String, E> {
        Ok(go_float(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "as Chainloop loses it")]
    fn visit_i64<E>(self, number: i64) -> Result<String, E> {
        Ok(go_float(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<String, E> {
        Ok(go_float(number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<String, A::Error> {
        JsonText.visit_seq(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<String, A::Error> {
        JsonText.visit_map(map)
    }
}

/// Any value as compact JSON whose keys are sorted, as Chainloop's encoder sorts them. Written while it is read: a
/// tree of values would take a hundred times the memory of the text.
struct JsonText;

impl<'de> DeserializeSeed<'de> for JsonText {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonText {
    type Value = String;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        serde_json::to_string(text).map_err(E::custom)
    }

    fn visit_unit<E>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<String, E> {
        serde_json::to_string(&number).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<String, A::Error> {
        let mut text = "[".to_owned();
        while let Some(item) = list.next_element_seed(JsonText)? {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&item);
        }
        text.push(']');
        Ok(text)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
        // Of a key that stands twice, the last counts.
        let mut members = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            members.insert(key, map.next_value_seed(JsonText)?);
        }
        let mut text = "{".to_owned();
        for (key, value) in members {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&JsonText.visit_str::<A::Error>(&key)?);
            text.push(':');
            text.push_str(&value);
        }
        text.push('}');
        Ok(text)
    }
}

/// Go's `%g`: the shortest digits, with an exponent where it is below -4 or above 5.
fn go_float(number: f64) -> String {
    const WITHOUT_EXPONENT: std::ops::Range<i32> = -4..6;
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific
        .split_once('e')
        .expect("JSON has no number that Rust writes without an exponent here");
    let exponent: i32 = exponent.parse().expect("Rust writes an integer");
    if WITHOUT_EXPONENT.contains(&exponent) {
        return number.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// A count, also where the sender's encoder wrote it as a double or in quotes, as protobuf's may.
#[derive(Clone, Copy)]
pub(crate) struct Count(pub(crate) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXACT: std::ops::Range<f64> = 0.0..9_007_199_254_740_992.0;
        let text = Stringified.deserialize(deserializer)?;
        match text.parse::<f64>() {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "whole, and in the range where doubles are exact"
            )]
            Ok(number) if number.fract() == 0.0 && EXACT.contains(&number) => {
                Ok(Count(number as u64))
            }
            _ => Err(de::Error::custom(format_args!(
                "`{}` is not a count",
                crate::error::clip(&text)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(json: &str) -> Result<BTreeMap<String, String>, String> {
        serde_json::from_str::<Strings>(json)
            .map(|strings| strings.0)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn values_become_text_as_chainloop_writes_them() {
        for (json, text) in [
            (r#""a\u0062""#, "ab"),
            ("true", "true"),
            ("null", ""),
            ("20480", "20480"),
            (
                "[1,\"a\", {\"b\": null, \"a\": false}]",
                r#"[1,"a",{"a":false,"b":null}]"#,
            ),
            ("{ }", "{}"),
            (
                r#"{"b":"\u0041\n","a":[{"d":1.5,"c":-2}],"b":true}"#,
                r#"{"a":[{"c":-2,"d":1.5}],"b":true}"#,
            ),
        ] {
            let read = strings(&format!("{{\"key\":{json}}}")).unwrap();
            assert_eq!(read["key"], text, "{json}");
        }
    }

    /// The right side is what Go 1.26 prints.
    #[test]
    fn numbers_are_written_as_go_does() {
        for (number, text) in [
            (0.0, "0"),
            (-1.0, "-1"),
            (20480.0, "20480"),
            (999_999.0, "999999"),
            (1e6, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e21, "1e+21"),
            (1e100, "1e+100"),
            (12345.678, "12345.678"),
            (-2.5e10, "-2.5e+10"),
        ] {
            assert_eq!(go_float(number), text);
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        assert!(
            strings(r#"{"a":"1","a":"2"}"#)
                .unwrap_err()
                .starts_with("duplicate field `a`")
        );
    }

    #[test]
    fn a_list_is_no_object() {
        assert!(serde_json::from_str::<Object<(u8,)>>("[1]").is_err());
        assert!(strings("[]").is_err());
    }

    #[test]
    fn what_exceeds_a_bound_is_counted_but_not_kept() {
        let read: Objects<Strings, 2> = serde_json::from_str("[{},{},{},{}]").unwrap();
        assert_eq!((read.items.len(), read.count), (2, 4));
    }

    #[test]
    fn a_count_may_be_a_double_or_quoted_but_is_whole() {
        for json in ["3000000", "3e6", "3000000.0", "\"3000000\""] {
            assert_eq!(
                serde_json::from_str::<Count>(json).unwrap().0,
                3_000_000,
                "{json}"
            );
        }
        for json in ["-1", "1.5", "1e300", "\"\"", "[]", "null"] {
            assert!(serde_json::from_str::<Count>(json).is_err(), "{json}");
        }
    }
}
