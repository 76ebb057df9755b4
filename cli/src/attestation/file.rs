//! Reads a file of attestations: one, or several in a common format.
//!
//! `gh attestation download` and cosign write one a line, npm's registry and GitHub answer
//! `{"attestations":[{"bundle":…}]}`, and `gh attestation verify` prints an array. Each attestation's bytes are those
//! that stand in the file.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::Context as _;
use attestation::{Attestation, MAX_BYTES};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::failure::Failure;

/// The largest file that is read: all of it is held while its attestations are pushed.
const FILE_MAX_BYTES: usize = 100 * 1024 * 1024;

/// Maximum number of attestations in a file.
const MOST: usize = 10_000;

/// Maximum nesting depth of `attestations`, `attestation` and `bundle`, across all known shapes.
const DEPTH: u8 = 4;

/// The bytes of the attestations in a file.
#[derive(Debug, PartialEq)]
pub(super) enum Contents {
    /// The file is an attestation itself.
    One(Vec<u8>),
    /// The file is a list of attestations.
    Several(Vec<Vec<u8>>),
}

/// The reason not to push what stands in a file.
#[derive(Debug)]
pub(super) struct Refused {
    /// A fragment: what is wrong.
    pub text: String,
    /// A sentence: what to do.
    pub advice: &'static str,
}

/// A file as messages name it.
pub(super) fn name(file: &Path) -> String {
    match file == Path::new("-") {
        true => "standard input".to_owned(),
        false => file.display().to_string(),
    }
}

/// Reads a file, or standard input for `-`.
pub(super) fn read(file: &Path) -> anyhow::Result<Contents> {
    let shown = name(file);
    let context = || format!("failed to read {shown}");
    // One more than is allowed is enough to know.
    let most = FILE_MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        let stdin = io::stdin().lock();
        stdin.take(most).read_to_end(&mut bytes)
    } else {
        let file = fs::File::open(file).with_context(context)?;
        file.take(most).read_to_end(&mut bytes)
    }
    .with_context(context)?;
    if bytes.len() > FILE_MAX_BYTES {
        let text = format!("{shown} is larger than 100 MiB");
        return Err(Failure::new(text)
            .advice("Split it, and push the parts.")
            .into());
    }
    let contents = split(bytes);
    if let Contents::Several(entries) = &contents {
        let fault = match entries.len() {
            0 => "contains no attestation".to_owned(),
            1..=MOST => return Ok(contents),
            count => format!("contains {count} attestations, more than {MOST}"),
        };
        return Err(Failure::new(format!("{shown} {fault}")).into());
    }
    Ok(contents)
}

/// Reads an attestation that was found in a file.
pub(super) fn parse(bytes: &[u8]) -> Result<Attestation, Refused> {
    if bytes.len() > MAX_BYTES {
        return Err(Refused {
            text: format!("it is larger than {} MiB", MAX_BYTES / (1024 * 1024)),
            advice: "Attest large contents by digest, as a material, and push the file with --material; split many subjects \
                     among several attestations.",
        });
    }
    Attestation::parse(bytes).map_err(|error| {
        let advice = match error.code() {
            "too-many-subjects" => "Split the subjects among several attestations.",
            code if code.starts_with("too-") => {
                "The limit applies to the signed statement: attest less in one statement."
            }
            _ => "Pass the DSSE envelope or the Sigstore bundle as it was signed.",
        };
        let text = format!("{:#}", anyhow::Error::new(error));
        Refused { text, advice }
    })
}

fn split(bytes: Vec<u8>) -> Contents {
    let documents = serde_json::Deserializer::from_slice(&bytes).into_iter::<&RawValue>();
    let mut found = Vec::new();
    match documents.collect::<Result<Vec<_>, _>>().as_deref() {
        Ok([]) => Contents::One(bytes),
        Ok([document]) if is_one(document) => Contents::One(bytes),
        Ok(documents) => {
            for document in documents {
                unwrap(document, DEPTH, &mut found);
            }
            Contents::Several(found)
        }
        Err(_) => match lines(&bytes) {
            Some(lines) => {
                for line in lines {
                    match serde_json::from_slice(line) {
                        Ok(document) => unwrap(document, DEPTH, &mut found),
                        Err(_) => found.push(line.to_vec()),
                    }
                }
                Contents::Several(found)
            }
            None => Contents::One(bytes),
        },
    }
}

/// The lines of a file that has one document a line, some of which cannot be read.
fn lines(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    let is_document =
        |line: &&&[u8]| line.starts_with(b"{") && serde_json::from_slice::<&RawValue>(line).is_ok();
    let documents = lines.iter().filter(is_document).count();
    // A single document that is broken over lines has few that are documents by themselves.
    (lines.len() > 1 && documents * 2 >= lines.len()).then_some(lines)
}

/// A document around others, and the keys that tell an attestation from it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wrapper<'a> {
    #[serde(borrow)]
    attestations: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    attestation: Option<&'a RawValue>,
    #[serde(borrow)]
    bundle: Option<&'a RawValue>,
    payload: Option<IgnoredAny>,
    #[serde(rename = "mediaType")]
    media_type: Option<IgnoredAny>,
    #[serde(rename = "dsseEnvelope")]
    envelope: Option<IgnoredAny>,
}

/// The documents that stand in this one; none where it is no wrapper.
fn within(document: &RawValue) -> Option<Vec<&RawValue>> {
    if document.get().starts_with('[') {
        return serde_json::from_str(document.get()).ok();
    }
    // Serde's derived code takes a list for a struct as well.
    if !document.get().starts_with('{') {
        return None;
    }
    let wrapper: Wrapper<'_> = serde_json::from_str(document.get()).ok()?;
    if wrapper.payload.is_some() || wrapper.media_type.is_some() || wrapper.envelope.is_some() {
        return None;
    }
    let one = wrapper.bundle.or(wrapper.attestation);
    wrapper.attestations.or(one.map(|one| vec![one]))
}

fn is_one(document: &RawValue) -> bool {
    within(document).is_none()
}

/// Adds the attestations in a document, or the document itself.
fn unwrap(document: &RawValue, depth: u8, found: &mut Vec<Vec<u8>>) {
    match within(document).filter(|_| depth > 0) {
        Some(documents) => {
            for document in documents {
                unwrap(document, depth - 1, found);
            }
        }
        None => found.push(document.get().as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = r#"{ "payload": "a",  "payloadType": "t" }"#;
    const B: &str = r#"{"mediaType":"m","dsseEnvelope":{}}"#;

    #[track_caller]
    fn check(file: &str, expected: &[&str]) {
        let expected = expected.iter().map(|one| one.as_bytes().to_vec()).collect();
        assert_eq!(split(file.into()), Contents::Several(expected), "{file}");
    }

    #[test]
    fn a_file_that_is_one_attestation_is_pushed_as_it_is() {
        for file in [
            A.to_owned(),
            format!("\n{A}\r\n"),
            "{\n  \"payload\": \"a\",\n  \"bundle\": {}\n}".to_owned(),
            r#"{"mediaType":"m","attestations":[{}]}"#.to_owned(),
            // Refused later, with the reason.
            String::new(),
            "{".to_owned(),
            "{\n  \"payload\": \"a\",\n  {}\n}".to_owned(),
            r#"{"attestations":5}"#.to_owned(),
            r#"{"bundle":null}"#.to_owned(),
            "\u{feff}{}".to_owned(),
        ] {
            assert_eq!(
                split(file.clone().into()),
                Contents::One(file.clone().into()),
                "{file}"
            );
        }
        assert_eq!(split(vec![b'{', 0xff]), Contents::One(vec![b'{', 0xff]));
    }

    #[test]
    fn each_line_is_an_attestation_with_the_bytes_that_stand_there() {
        check(&format!("{A}\n{B}\n"), &[A, B]);
        check(&format!("\r\n {A}\r\n\r\n{B}"), &[A, B]);
        let pretty = "{\n  \"payload\": \"\"\n}";
        check(&format!("{pretty}\n{B}{pretty}"), &[pretty, B, pretty]);
    }

    #[test]
    fn a_line_that_is_broken_is_an_entry_of_its_own() {
        check(&format!("{A}\n{{\n{B}\n"), &[A, "{", B]);
        check(&format!("x\n{B}"), &["x", B]);
        check(&format!("\u{feff}{A}\n{B}"), &[&format!("\u{feff}{A}"), B]);
    }

    #[test]
    fn the_answers_of_registries_are_taken_apart() {
        let npm = format!(r#"{{"attestations":[{{"predicateType":"p","bundle": {B} }}]}}"#);
        check(&npm, &[B]);
        let github = format!(r#"{{"attestations":[{{"bundle":{B},"repository_id":1}},{A}]}}"#);
        check(&github, &[B, A]);
        let verified = format!(r#"[{{"attestation":{{"bundle":{B}}},"verificationResult":{{}}}}]"#);
        check(&verified, &[B]);
        check(&format!("[{A},{B}]"), &[A, B]);
        check(&format!("{npm}\n{A}"), &[B, A]);
        check(r#"{"attestations":[]}"#, &[]);
        let absent = r#"{"bundle":null,"bundle_url":"https://example.org/"}"#;
        check(
            &format!(r#"{{"attestations":[{absent},{{"bundle":{B}}}]}}"#),
            &[absent, B],
        );
    }

    #[test]
    fn nesting_without_an_end_is_left_to_the_parser() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let Contents::Several(entries) = split(deep.into()) else {
            panic!("a list");
        };
        assert_eq!(entries.len(), 1);
        assert!(parse(&entries[0]).is_err());
    }

    #[test]
    fn what_is_above_a_limit_gets_advice_that_fits_it() {
        let refused = parse(&vec![b' '; MAX_BYTES + 1]).unwrap_err();
        assert_eq!(refused.text, "it is larger than 6 MiB");
        assert!(refused.advice.contains("by digest"), "{}", refused.advice);
        let subjects = vec!["{}"; attestation::MAX_SUBJECTS + 1].join(",");
        let statement = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{subjects}],"predicateType":"p","predicate":{{}}}}"#
        );
        let envelope = attestation::compose::envelope(statement.into(), "", |_| vec![1; 64]);
        let refused = parse(&envelope.compact()).unwrap_err();
        assert!(
            refused.text.contains("10001 subjects, more than 10000"),
            "{}",
            refused.text
        );
        assert!(
            refused.advice.contains("several attestations"),
            "{}",
            refused.advice
        );
    }
}
