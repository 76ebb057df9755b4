//! Checks that a material is the document that its type names, before a third party trips over it: to what is not
//! JSON one answers 500, as if it were down, and another ends a run over everything.
//!
//! Reads it in pieces and keeps of it no more than one token. Validates the syntax and the format's own
//! mark, not the schema, which is the third party's.

use attestation::MaterialType;
use json_event_parser::{JsonEvent, JsonSyntaxError, LowLevelJsonParser};

use crate::{Content, Error, Host};

/// Longest string and deepest nesting that Jackson reads, in which importers are written.
const LONGEST: usize = 20_000_000;
const DEEPEST: usize = 1_000;

/// Key at the top of a document, and the beginning of its value.
struct Mark {
    name: &'static str,
    key: &'static str,
    value: &'static str,
}

impl Mark {
    fn of(kind: &MaterialType) -> Option<Self> {
        let (name, key, value) = if *kind == MaterialType::SBOM_CYCLONEDX_JSON {
            ("CycloneDX", "bomFormat", "CycloneDX")
        } else if *kind == MaterialType::SBOM_SPDX_JSON {
            ("SPDX", "spdxVersion", "SPDX-")
        } else {
            return None;
        };
        Some(Self { name, key, value })
    }
}

/// Says why a material is not what its type names, completing "it is …". None when it is, or when nothing is known
/// of its type.
pub(crate) async fn fault(
    host: &dyn Host,
    kind: &MaterialType,
    content: &Content<'_>,
) -> Result<Option<String>, Error> {
    let Some(mark) = Mark::of(kind) else {
        return Ok(None);
    };
    let mut check = Check::new(mark);
    let mut reader = content.read(host);
    while let Some(bytes) = reader.next().await? {
        if let Err(fault) = check.take(&bytes, false) {
            return Ok(Some(fault));
        }
    }
    Ok(check.take(&[], true).err())
}

struct Check {
    parser: LowLevelJsonParser,
    mark: Mark,
    /// Beginning of a token whose end is still to come.
    rest: Vec<u8>,
    depth: usize,
    /// The value that comes next is the mark's.
    is_marked: bool,
    is_it: bool,
}

impl Check {
    fn new(mark: Mark) -> Self {
        Self {
            parser: LowLevelJsonParser::new().with_max_stack_size(DEEPEST),
            mark,
            rest: Vec::new(),
            depth: 0,
            is_marked: false,
            is_it: false,
        }
    }

    fn take(&mut self, bytes: &[u8], is_end: bool) -> Result<(), String> {
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let mut read = 0;
        loop {
            let result = self.parser.parse_next(&rest[read..], is_end);
            read += result.consumed_bytes;
            let event = match result.event {
                Some(Ok(JsonEvent::Eof)) if self.is_it => return Ok(()),
                Some(Ok(JsonEvent::Eof)) => {
                    let Mark { name, key, .. } = self.mark;
                    return Err(format!("not {name}: it has no {key} that says so"));
                }
                Some(Ok(event)) => event,
                Some(Err(error)) => return Err(not_json(&error)),
                None => break,
            };
            let is_marked = std::mem::take(&mut self.is_marked);
            match event {
                JsonEvent::StartObject | JsonEvent::StartArray => self.depth += 1,
                JsonEvent::EndObject | JsonEvent::EndArray => self.depth -= 1,
                JsonEvent::ObjectKey(key) => {
                    self.is_marked = self.depth == 1 && key == self.mark.key;
                }
                JsonEvent::String(value) if is_marked => {
                    self.is_it = value.starts_with(self.mark.value);
                }
                _ => {}
            }
        }
        rest.drain(..read);
        if rest.len() > LONGEST {
            return Err(format!(
                "not JSON that others read: a string of more than {LONGEST} bytes"
            ));
        }
        self.rest = rest;
        Ok(())
    }
}

/// By the place alone: the rest would quote the document.
fn not_json(error: &JsonSyntaxError) -> String {
    let at = error.location().start;
    format!(
        "not JSON, at line {}, column {}",
        at.line + 1,
        at.column + 1
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{CDX, SPDX, Stage};

    async fn fault_of(kind: MaterialType, bytes: &[u8]) -> Option<String> {
        let content = Content::from(bytes.to_vec());
        fault(&Stage::new(), &kind, &content).await.unwrap()
    }

    #[tokio::test]
    async fn a_material_is_what_its_type_says() {
        let cdx = MaterialType::SBOM_CYCLONEDX_JSON;
        let spdx = MaterialType::SBOM_SPDX_JSON;
        let marked = format!("\u{feff} {CDX}\n");
        let nested = format!("{{\"a\":{{\"bomFormat\":1}},{}", &CDX[1..]);
        for (kind, fits) in [
            (&cdx, CDX),
            (&cdx, &marked),
            (&cdx, &nested),
            (&spdx, SPDX),
            (&MaterialType::SARIF, "no JSON"),
        ] {
            let fault = fault_of(kind.clone(), fits.as_bytes()).await;
            assert_eq!(fault, None, "{fits}");
        }
        let unmarked = "not CycloneDX: it has no bomFormat that says so";
        let cut = &CDX[..CDX.len() - 1];
        let twice = format!("{CDX}{CDX}");
        let deep = format!("{{\"a\":{}", "[".repeat(2_000));
        for (bytes, expected) in [
            (cut, "not JSON, at line 1, column 45"),
            ("", "not JSON, at line 1, column 1"),
            ("<bom/>", "not JSON, at line 1, column 1"),
            ("{\n  \"a\": 01}", "not JSON, at line 2, column 9"),
            (twice.as_str(), "not JSON, at line 1, column 46"),
            (&deep, "not JSON, at line 1, column 1006"),
            ("{}", unmarked),
            ("[]", unmarked),
            (SPDX, unmarked),
            ("\"bomFormat\"", unmarked),
            (r#"{"bomFormat":"SPDX"}"#, unmarked),
            (r#"{"a":{"bomFormat":"CycloneDX"}}"#, unmarked),
            (r#"["bomFormat","CycloneDX"]"#, unmarked),
        ] {
            let fault = fault_of(cdx.clone(), bytes.as_bytes()).await;
            assert_eq!(fault.as_deref(), Some(expected), "{bytes}");
        }
        let no_text = fault_of(cdx.clone(), b"{\"bomFormat\":\"CycloneDX\",\"a\":\"\xff\"}").await;
        assert!(no_text.is_some());
        let fault = fault_of(spdx, CDX.as_bytes()).await;
        assert_eq!(
            fault.as_deref(),
            Some("not SPDX: it has no spdxVersion that says so")
        );
    }

    #[test]
    fn a_document_takes_no_more_memory_than_its_longest_string() {
        let mut check = Check::new(Mark::of(&MaterialType::SBOM_CYCLONEDX_JSON).unwrap());
        check.take(b"{\"a\":[", false).unwrap();
        let many = b"\"0123456789\",".repeat(1_000);
        for _ in 0..100 {
            check.take(&many, false).unwrap();
            assert!(check.rest.len() < 16);
        }
        let piece = vec![b'x'; LONGEST / 4];
        check.take(b"\"", false).unwrap();
        let taken = (0..5).take_while(|_| check.take(&piece, false).is_ok());
        assert_eq!(taken.count(), 3);
    }

    proptest! {
        #[test]
        fn what_serde_reads_is_json_and_nothing_else_in_whatever_pieces_it_comes(
            text in prop_oneof![
                r#"[\[\]{}",:0-9eE+.truefalsn \\-]{0,24}"#,
                Just(CDX.to_owned()),
                r#"\{"a":(\[1,(-?[0-9]{1,2}(\.[0-9])?|"[a-z\\n]{0,3}")\]|\{\}|nul?l)\}?"#,
            ],
            cut in 0_usize..48,
        ) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let mut check = Check::new(Mark::of(&MaterialType::SBOM_CYCLONEDX_JSON).unwrap());
            let result = check.take(&bytes[..cut], false)
                .and_then(|()| check.take(&bytes[cut..], false))
                .and_then(|()| check.take(&[], true));
            let is_json = result.err().is_none_or(|fault| fault.starts_with("not CycloneDX"));
            let expected = serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
            prop_assert_eq!(is_json, expected, "{}", text);
        }
    }
}
