//! From bytes to an attestation, in one pass over borrowed text.

use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::{Object, Text, duplicate};
use crate::scan::{self, Unfit};
use crate::{Digest, Envelope, Error, MAX_DEPTH, Material, Predicate, Statement, bundle, envelope};

/// A received attestation: where it came in, how to know it again, and what it says.
#[derive(Clone, Debug)]
pub struct Attestation {
    pub form: Form,
    /// Digest of the bytes exactly as received. Chainloop calls this the attestation's digest.
    pub received: Digest,
    /// Digest of the envelope in Chainloop's compact form, the same for every spelling. The attestation's identity.
    pub hash: Digest,
    pub envelope: Envelope,
    pub statement: Statement,
}

/// Form in which the envelope was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing but itself.
    Envelope,
    /// A Sigstore bundle of this media type, without a parameter in it:
    /// `application/vnd.dev.sigstore.bundle.v0.3+json`.
    Bundle(&'static str),
}

impl Attestation {
    /// Reads an envelope or a bundle. Its signatures are not verified.
    pub fn parse(bytes: &[u8]) -> Result<Attestation, Error> {
        let document = read(bytes)?;
        let (form, wire) = document.unwrap_form()?;
        let opened = wire.open(bytes)?;
        let statement = Statement::parse(&opened.envelope.payload)?;
        Ok(Attestation {
            form,
            received: opened.received,
            hash: opened.hash,
            envelope: opened.envelope,
            statement,
        })
    }

    /// Returns the materials that the workflow attests; none unless the predicate is Chainloop's.
    pub fn materials(&self) -> &[Material] {
        self.predicate()
            .map_or(&[], |predicate| &predicate.materials)
    }

    /// Chainloop's predicate, if that is what this carries.
    pub fn predicate(&self) -> Option<&Predicate> {
        self.statement.predicate.as_ref()
    }
}

fn read(bytes: &[u8]) -> Result<Document<'_>, Error> {
    if bytes.trim_ascii().is_empty() {
        return Err(Error::Empty);
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        return Err(Error::ByteOrderMark);
    }
    scan::check(bytes, MAX_DEPTH).map_err(|unfit| match unfit {
        Unfit::TooDeep => Error::TooDeep("the document"),
        Unfit::NotUtf8 => Error::NotJson("it is not UTF-8".to_owned()),
    })?;
    serde_json::from_slice(bytes).map_err(|error| {
        let otherwise = if error.is_data() {
            Error::NotAnEnvelope
        } else {
            Error::NotJson
        };
        Error::of_json(&error, otherwise)
    })
}

/// Whatever object was sent, with the keys that tell what it is.
#[derive(Default)]
struct Document<'a> {
    media_type: Option<Text<'a>>,
    bundled: Option<Object<envelope::Wire<'a>>>,
    message_signature: Option<IgnoredAny>,
    bare: envelope::Wire<'a>,
    bom_format: Option<&'a RawValue>,
    spdx_version: Option<&'a RawValue>,
    statement_type: Option<IgnoredAny>,
}

impl<'a> Document<'a> {
    fn unwrap_form(self) -> Result<(Form, envelope::Wire<'a>), Error> {
        let is_bundle =
            self.media_type.is_some() || self.bundled.is_some() || self.message_signature.is_some();
        let is_bare = self.bare.payload.is_some() || self.bare.payload_type.is_some();
        match (is_bundle, is_bare) {
            (true, true) => Err(Error::NotAnEnvelope("it has the keys of both".to_owned())),
            (true, false) => {
                let media_type = self.media_type.as_deref().unwrap_or_default();
                let (media_type, wire) = bundle::open(media_type, self.bundled)?;
                Ok((Form::Bundle(media_type), wire))
            }
            (false, true) => Ok((Form::Envelope, self.bare)),
            (false, false) => Err(self.something_else()),
        }
    }

    fn something_else(&self) -> Error {
        if self
            .bom_format
            .is_some_and(|format| format.get() == r#""CycloneDX""#)
        {
            return Error::LooksLikeSbom("a CycloneDX SBOM");
        }
        if self
            .spdx_version
            .is_some_and(|version| version.get().starts_with(r#""SPDX-"#))
        {
            return Error::LooksLikeSbom("an SPDX SBOM");
        }
        if self.statement_type.is_some() {
            return Error::BareStatement;
        }
        Error::NotAnEnvelope("it has neither `payload` nor `dsseEnvelope`".to_owned())
    }
}

// By hand, for what derived code cannot say: Go's parser, which GUAC and others will use on these bytes,
// also takes `Payload` for `payload` and lets the last one win. Two readers would see two attestations
// under one signature, so such a document is refused.
impl<'de> Deserialize<'de> for Document<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DocumentVisitor;

        impl<'de> Visitor<'de> for DocumentVisitor {
            type Value = Document<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut document = Document::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    match &*key {
                        "payloadType" => once(&key, &mut document.bare.payload_type, &mut map)?,
                        "payload" => once(&key, &mut document.bare.payload, &mut map)?,
                        "signatures" => once(&key, &mut document.bare.signatures, &mut map)?,
                        "mediaType" | "media_type" => {
                            once(&key, &mut document.media_type, &mut map)?;
                        }
                        "dsseEnvelope" | "dsse_envelope" => {
                            once(&key, &mut document.bundled, &mut map)?;
                        }
                        "messageSignature" | "message_signature" => {
                            once(&key, &mut document.message_signature, &mut map)?;
                        }
                        "bomFormat" => once(&key, &mut document.bom_format, &mut map)?,
                        "spdxVersion" => once(&key, &mut document.spdx_version, &mut map)?,
                        "_type" => once(&key, &mut document.statement_type, &mut map)?,
                        other if BARE_KEYS.iter().any(|key| key.eq_ignore_ascii_case(other)) => {
                            return Err(duplicate(other));
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(document)
            }
        }

        deserializer.deserialize_map(DocumentVisitor)
    }
}

const BARE_KEYS: [&str; 3] = ["payloadType", "payload", "signatures"];

fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    key: &str,
    slot: &mut Option<T>,
    map: &mut A,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(duplicate(key));
    }
    *slot = map.next_value()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        MAX_ENTRIES, MAX_MATERIALS, MAX_SIGNATURES, MAX_SUBJECTS, MaterialType, base64, compose,
    };

    const STATEMENT: &str = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha1":"00"}}],"predicateType":"https://example.org/p","predicate":{}}"#;

    fn envelope(payload: &str) -> String {
        let payload = base64::encode(payload.as_bytes());
        format!(
            r#"{{"payloadType":"application/vnd.in-toto+json","payload":"{payload}","signatures":[{{"keyid":"","sig":"AAAA"}}]}}"#
        )
    }

    fn bundle(media_type: &str, content: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","verificationMaterial":{{}},{content}}}"#)
    }

    fn parse(document: &str) -> Result<Attestation, Error> {
        Attestation::parse(document.as_bytes())
    }

    #[track_caller]
    fn check(document: &str, code: &str) {
        let error = parse(document).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }

    #[test]
    fn the_smallest_attestation_is_read() {
        let attestation = parse(&envelope(STATEMENT)).unwrap();
        assert_eq!(attestation.form, Form::Envelope);
        assert_eq!(attestation.envelope.payload, STATEMENT.as_bytes());
        assert_eq!(attestation.statement.subjects[0].digests["sha1"], "00");
        assert_eq!(
            attestation.statement.predicate_type,
            "https://example.org/p"
        );
        assert!(attestation.predicate().is_none() && attestation.materials().is_empty());
    }

    #[test]
    fn a_bundle_of_each_version_is_read_and_of_no_other() {
        let content = format!(r#""dsseEnvelope":{}"#, envelope(STATEMENT));
        for (media_type, plain) in [
            (
                "application/vnd.dev.sigstore.bundle+json;version=0.1",
                "application/vnd.dev.sigstore.bundle.v0.1+json",
            ),
            (
                "application/vnd.dev.sigstore.bundle+json;version=0.2",
                "application/vnd.dev.sigstore.bundle.v0.2+json",
            ),
            (
                "application/vnd.dev.sigstore.bundle+json;version=0.3",
                "application/vnd.dev.sigstore.bundle.v0.3+json",
            ),
            (
                "application/vnd.dev.sigstore.bundle.v0.3+json",
                "application/vnd.dev.sigstore.bundle.v0.3+json",
            ),
        ] {
            let bundle = bundle(media_type, &content);
            let attestation = parse(&bundle).unwrap();
            assert_eq!(attestation.form, Form::Bundle(plain));
            assert_eq!(attestation.hash, parse(&envelope(STATEMENT)).unwrap().hash);
            assert_eq!(attestation.received, Digest::of(bundle.as_bytes()));
            let without = bundle.replace(&content, r#""messageSignature":{}"#);
            check(&without, "bundle-without-envelope");
        }
        for media_type in [
            "application/vnd.dev.sigstore.bundle+json;version=0.4",
            "application/vnd.dev.sigstore.bundle+json;version=0.10",
            "application/vnd.dev.sigstore.bundle+json",
            "application/json",
            "",
        ] {
            check(&bundle(media_type, &content), "bundle-type-unknown");
        }
        check(&format!("{{{content}}}"), "bundle-type-unknown");
    }

    #[test]
    fn every_spelling_of_an_envelope_is_one_attestation() {
        // 0xfb 0xef spells differently in the two alphabets, and its length asks for padding.
        let statement = STATEMENT.replace("\"a\"", "\"»»»ÿ??>>~~\"");
        let canonical = envelope(&statement);
        let payload = base64::encode(statement.as_bytes());
        let url_safe = payload.replace('+', "-").replace('/', "_");
        assert_ne!(url_safe, payload);
        let hash = parse(&canonical).unwrap().hash;
        assert_eq!(hash, Digest::of(canonical.as_bytes()));
        for spelling in [
            canonical.replace(&payload, &url_safe),
            canonical.replace(&payload, url_safe.trim_end_matches('=')),
            canonical.replace(&payload, payload.trim_end_matches('=')),
            canonical.replace(&payload, &payload.replace('e', r"\u0065")),
            canonical.replace(r#""keyid":"","#, ""),
            canonical.replace(':', " :\n"),
        ] {
            let attestation = parse(&spelling).unwrap();
            assert_eq!(attestation.hash, hash, "{spelling}");
            assert_eq!(attestation.received, Digest::of(spelling.as_bytes()));
        }
    }

    #[test]
    fn a_signature_encoded_again_and_again_is_the_same_signature() {
        let signed = |sig: &[u8]| envelope(STATEMENT).replace("AAAA", &base64::encode(sig));
        let once = parse(&signed(&[7; 64])).unwrap();
        let mut sig = vec![7; 64];
        for times in 2..5 {
            sig = base64::encode(&sig).into_bytes();
            let read = parse(&signed(&sig)).unwrap();
            assert_eq!(
                (&read.envelope, read.hash),
                (&once.envelope, once.hash),
                "{times} times"
            );
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        check("", "empty");
        check(" \n", "empty");
        check("\u{feff}{}", "byte-order-mark");
        check("hello", "not-json");
        check("{", "not-json");
        check(&(envelope(STATEMENT) + "x"), "not-json");
        let mut latin = envelope(STATEMENT)
            .replace('{', "{\"x\":\"~\",")
            .into_bytes();
        let at = latin.iter().position(|&byte| byte == b'~').unwrap();
        latin[at] = 0xe9;
        assert_eq!(Attestation::parse(&latin).unwrap_err().code(), "not-json");
    }

    #[test]
    fn what_is_not_an_envelope_is_refused_with_a_hint() {
        for document in [
            "{}",
            "[]",
            "null",
            "1",
            r#"["application/vnd.in-toto+json","e30=",[]]"#,
        ] {
            check(document, "not-an-envelope");
        }
        check(r#"{"bomFormat": "CycloneDX"}"#, "looks-like-sbom");
        check(r#"{"spdxVersion": "SPDX-2.3"}"#, "looks-like-sbom");
        check(STATEMENT, "bare-statement");
        check(
            &envelope(STATEMENT).replacen('{', r#"{"mediaType":"x","#, 1),
            "not-an-envelope",
        );
        check(
            r#"{"payloadType":"application/vnd.in-toto+json","payload":5}"#,
            "not-an-envelope",
        );
    }

    #[test]
    fn an_sbom_is_told_how_it_is_pushed() {
        let error = parse(r#"{"bomFormat":"CycloneDX"}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "read the attestation: this looks like a CycloneDX SBOM: push it with --material beside an attestation"
        );
    }

    #[test]
    fn an_unsigned_envelope_is_refused() {
        let signed = envelope(STATEMENT);
        for signatures in [
            "[]",
            "null",
            "[{}]",
            r#"[{"sig":""}]"#,
            r#"[{"sig":"AAAA"},{"sig":""}]"#,
        ] {
            check(
                &signed.replace(r#"[{"keyid":"","sig":"AAAA"}]"#, signatures),
                "unsigned",
            );
        }
        check(
            &signed.replace(r#","signatures":[{"keyid":"","sig":"AAAA"}]"#, ""),
            "unsigned",
        );
        check(&signed.replace("AAAA", "A"), "signature-not-base64");
    }

    #[test]
    fn a_payload_that_is_no_statement_is_refused() {
        check(
            &envelope(STATEMENT).replace("in-toto+json", "other"),
            "payload-type-unknown",
        );
        check(
            &envelope(STATEMENT).replace("\"payload\":\"", "\"payload\":\"*"),
            "payload-not-base64",
        );
        for payload in ["", "x", "[]", "{}", "{\"_type\":5}"] {
            check(&envelope(payload), "statement-invalid");
        }
        check(
            &envelope(&STATEMENT.replace("Statement/v1", "Statement/v2")),
            "statement-type-unknown",
        );
        check(
            &envelope(&STATEMENT.replace("predicateType", "predicate-type")),
            "statement-invalid",
        );
        check(
            &envelope(&STATEMENT.replace(r#"{"name":"a","digest":{"sha1":"00"}}"#, "")),
            "statement-invalid",
        );
        check(
            &envelope(&STATEMENT.replace("example.org/p", "example.org/p\u{7}")),
            "statement-invalid",
        );
    }

    #[test]
    fn both_spellings_and_versions_of_a_statement_are_read() {
        let older = STATEMENT
            .replace("_type", "type")
            .replace("predicateType", "predicate_type")
            .replace("Statement/v1", "Statement/v0.1");
        let statement = parse(&envelope(&older)).unwrap().statement;
        assert_eq!(statement, parse(&envelope(STATEMENT)).unwrap().statement);
    }

    #[test]
    fn unknown_fields_are_ignored_wherever_they_are() {
        // Not in the digest, which is no set of fields but a map.
        let statement = STATEMENT
            .replace(r#"{"_"#, r#"{"extra":[{"a":1}],"_"#)
            .replace(r#"{"name"#, r#"{"uri":"a","name"#);
        let document = envelope(&statement).replace(r#"{""#, r#"{"extra":{"a":null},""#);
        assert_eq!(
            parse(&document).unwrap().statement,
            parse(&envelope(STATEMENT)).unwrap().statement
        );
    }

    #[test]
    fn a_key_that_readers_could_take_differently_is_refused() {
        let document = envelope(STATEMENT);
        for key in ["payload", "Payload", "PAYLOADTYPE", "Signatures"] {
            check(
                &document.replacen('{', &format!(r#"{{"{key}":"e30=","#), 1),
                "duplicate-key",
            );
        }
        let twice = document.replace(r#""keyid":"""#, r#""keyid":"","keyid":"x""#);
        check(&twice, "duplicate-key");
        for (key, extra) in [
            ("_type", "type"),
            ("predicate", "predicate"),
            ("sha1", "sha1"),
        ] {
            let key = format!(r#""{key}":"#);
            let statement = STATEMENT.replacen(&key, &format!(r#""{extra}":{{}},{key}"#), 1);
            // `{}` is the wrong type for two of the three; what counts is that none is accepted.
            assert!(parse(&envelope(&statement)).is_err(), "{statement}");
        }
    }

    #[test]
    fn nesting_is_bounded_outside_and_inside() {
        let nested = |depth: usize| format!(r#""x":{}{},"#, "[".repeat(depth), "]".repeat(depth));
        let inside = |depth| envelope(&STATEMENT.replacen('{', &format!("{{{}", nested(depth)), 1));
        let outside = |depth| envelope(STATEMENT).replacen('{', &format!("{{{}", nested(depth)), 1);
        assert!(parse(&inside(MAX_DEPTH - 1)).is_ok() && parse(&outside(MAX_DEPTH - 1)).is_ok());
        check(&inside(MAX_DEPTH), "too-deep");
        check(&outside(MAX_DEPTH), "too-deep");
    }

    #[test]
    fn lists_are_bounded() {
        let subjects = |count: usize| {
            STATEMENT.replace(
                "\"subject\":[",
                &format!("\"subject\":[{}", "{},".repeat(count - 1)),
            )
        };
        assert!(parse(&envelope(&subjects(MAX_SUBJECTS))).is_ok());
        check(&envelope(&subjects(MAX_SUBJECTS + 1)), "too-many-subjects");

        let materials = |count: usize| {
            let list = vec!["{}"; count].join(",");
            STATEMENT
                .replace("https://example.org/p", crate::CHAINLOOP_PREDICATE_TYPE)
                .replace(
                    r#""predicate":{}"#,
                    &format!(r#""predicate":{{"materials":[{list}]}}"#),
                )
        };
        let attestation = parse(&envelope(&materials(MAX_MATERIALS))).unwrap();
        assert_eq!(
            attestation.predicate().unwrap().materials_dropped,
            MAX_MATERIALS
        );
        check(
            &envelope(&materials(MAX_MATERIALS + 1)),
            "too-many-materials",
        );
    }

    /// A statement with so many of these in a place of Chainloop's predicate.
    fn chainloop(predicate: &str) -> String {
        STATEMENT
            .replace("https://example.org/p", crate::CHAINLOOP_PREDICATE_TYPE)
            .replace(r#""predicate":{}"#, &format!(r#""predicate":{predicate}"#))
    }

    fn members(count: usize) -> String {
        let members: Vec<String> = (0..count).map(|at| format!(r#""{at:x}":0"#)).collect();
        format!("{{{}}}", members.join(","))
    }

    #[test]
    fn what_is_kept_of_lists_and_maps_is_bounded_together_wherever_it_stands() {
        let many = members(MAX_ENTRIES);
        let nested = vec![r#"{"":0}"#; MAX_ENTRIES / 2].join(",");
        let material = format!(r#"{{"annotations":{many}}}"#);
        for predicate in [
            format!(r#"{{"annotations":{many}}}"#),
            format!(r#"{{"env":{many}}}"#),
            format!(r#"{{"env":{{"a":[{nested}]}}}}"#),
            format!(r#"{{"metadata":{many}}}"#),
            format!(r#"{{"materials":[{material}]}}"#),
            format!(
                r#"{{"env":{0},"annotations":{0}}}"#,
                members(MAX_ENTRIES / 2)
            ),
        ] {
            check(&envelope(&chainloop(&predicate)), "too-many-entries");
        }
        for field in ["digest", "annotations"] {
            let more = format!(r#""subject":[{{"{field}":{many}}},"#);
            let statement = STATEMENT.replace(r#""subject":["#, &more);
            check(&envelope(&statement), "too-many-entries");
        }
        let fits = chainloop(&format!(r#"{{"env":{}}}"#, members(MAX_ENTRIES - 100)));
        assert!(parse(&envelope(&fits)).is_ok());
    }

    #[test]
    fn what_is_not_kept_is_not_bounded() {
        let many = members(2 * MAX_ENTRIES);
        let unread = STATEMENT.replace(r#""predicate":{}"#, &format!(r#""predicate":{many}"#));
        assert!(parse(&envelope(&unread)).is_ok());
        let evaluations = vec![r#"{"violations":[{}]}"#; MAX_ENTRIES].join(",");
        let judged = chainloop(&format!(
            r#"{{"policyEvaluations":{{"a":[{evaluations}]}}}}"#
        ));
        let attestation = parse(&envelope(&judged)).unwrap();
        let policy = &attestation.predicate().unwrap().policy;
        assert_eq!(policy.violations, MAX_ENTRIES as u64);
    }

    #[test]
    fn ten_thousand_subjects_with_two_digests_and_an_annotation_each_are_read() {
        let subject =
            r#"{"name":"a","digest":{"sha1":"00","sha256":"00"},"annotations":{"a":"b"}}"#;
        let subjects = vec![subject; MAX_SUBJECTS].join(",");
        let statement = STATEMENT.replace(r#"{"name":"a","digest":{"sha1":"00"}}"#, &subjects);
        let attestation = parse(&envelope(&statement)).unwrap();
        assert_eq!(attestation.statement.subjects.len(), MAX_SUBJECTS);
        let more = statement.replace(r#""subject":["#, &format!(r#""subject":[{subject},"#));
        check(&envelope(&more), "too-many-subjects");
    }

    #[test]
    fn signatures_are_bounded() {
        let signed = |count: usize| {
            let signatures = vec![r#"{"keyid":"","sig":"AAAA"}"#; count].join(",");
            envelope(STATEMENT).replace(r#"{"keyid":"","sig":"AAAA"}"#, &signatures)
        };
        assert!(parse(&signed(MAX_SIGNATURES)).is_ok());
        check(&signed(MAX_SIGNATURES + 1), "too-many-signatures");
    }

    #[test]
    fn an_error_never_quotes_megabytes() {
        let document = format!(r#"{{"payload":"","signatures":"{}"}}"#, "x".repeat(100_000));
        assert!(parse(&document).unwrap_err().to_string().len() < 500);
    }

    fn composed() -> Vec<u8> {
        let predicate = Predicate {
            materials: vec![
                Material::string("note", "hello"),
                Material::inline("lint", MaterialType::SARIF, "lint.sarif", b"{}".to_vec()),
            ],
            ..Predicate::default()
        };
        let envelope = compose::envelope(compose::statement(&predicate, &[]), "", |_| vec![1; 64]);
        compose::bundle(&envelope)
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = Attestation::parse(&bytes);
        }

        #[test]
        fn no_mutation_of_an_envelope_makes_it_panic(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..8),
            inside in any::<bool>(),
        ) {
            let bundle = composed();
            let payload = Attestation::parse(&bundle).unwrap().envelope.payload;
            let mut bytes = if inside { payload } else { bundle };
            for (at, byte, edit) in edits {
                let at = at.index(bytes.len());
                match edit {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            if inside {
                bytes = compose::envelope(bytes, "", |_| vec![1]).compact();
            }
            if let Ok(attestation) = Attestation::parse(&bytes) {
                prop_assert_eq!(attestation.hash, attestation.envelope.hash());
                prop_assert_eq!(attestation.received, Digest::of(&bytes));
            }
        }
    }
}
