//! The DSSE envelope: a payload, what kind it is, and who signed it.
//!
//! Its hash is how Chainloop, and so we, know an attestation again. It is taken over one spelling, the
//! compact JSON that Chainloop writes, whatever spelling arrived: the same envelope bare or in a bundle,
//! with URL-safe base64 or spaces between, is the same attestation and is delivered once.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use crate::json::{Bytes, Objects, Text};
use crate::{Digest, Error, MAX_SIGNATURES, base64};

/// The one kind of payload that is an attestation.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// A payload with its signatures, decoded.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    pub payload_type: String,
    pub payload: Vec<u8>,
    pub signatures: Vec<Signature>,
}

/// One signature over [`pae`], and a hint at its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    pub keyid: String,
    pub sig: Vec<u8>,
}

impl Envelope {
    /// The compact JSON that Chainloop writes and hashes.
    pub fn compact(&self) -> Vec<u8> {
        let (head, tail) = around_payload(&self.payload_type, &self.signatures);
        [head, base64::encode(&self.payload), tail]
            .concat()
            .into_bytes()
    }

    /// The identity of the attestation inside.
    pub fn hash(&self) -> Digest {
        Digest::of(&self.compact())
    }
}

// A payload has megabytes; listed one by one they would bury a log.
impl fmt::Debug for Envelope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Envelope")
            .field("payload_type", &self.payload_type)
            .field("payload_bytes", &self.payload.len())
            .field("signatures", &self.signatures)
            .finish()
    }
}

/// Returns the bytes that are signed: DSSE's pre-authentication encoding.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

/// The compact JSON before and after the payload's base64.
fn around_payload(payload_type: &str, signatures: &[Signature]) -> (String, String) {
    let head = format!(r#"{{"payloadType":{},"payload":""#, go_string(payload_type));
    let signatures: Vec<String> = signatures
        .iter()
        .map(|Signature { keyid, sig }| {
            format!(
                r#"{{"keyid":{},"sig":"{}"}}"#,
                go_string(keyid),
                base64::encode(sig)
            )
        })
        .collect();
    (
        head,
        format!(r#"","signatures":[{}]}}"#, signatures.join(",")),
    )
}

/// A JSON string as Go's encoder writes it, safe to put into HTML and JavaScript.
fn go_string(text: &str) -> String {
    let json = serde_json::to_string(text).expect("a string is always JSON");
    if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return json;
    }
    json.replace('<', r"\u003c")
        .replace('>', r"\u003e")
        .replace('&', r"\u0026")
        .replace('\u{2028}', r"\u2028")
        .replace('\u{2029}', r"\u2029")
}

/// An envelope as it stands in JSON.
#[derive(Deserialize, Default)]
pub(crate) struct Wire<'a> {
    #[serde(borrow, rename = "payloadType", alias = "payload_type")]
    pub(crate) payload_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) payload: Option<Bytes<'a>>,
    #[serde(borrow)]
    pub(crate) signatures: Option<Objects<WireSignature<'a>, MAX_SIGNATURES>>,
}

#[derive(Deserialize)]
pub(crate) struct WireSignature<'a> {
    #[serde(borrow)]
    keyid: Option<Text<'a>>,
    #[serde(borrow)]
    sig: Option<Bytes<'a>>,
}

/// An envelope, and the digests of its compact form and of the document that it came in.
pub(crate) struct Opened {
    pub(crate) envelope: Envelope,
    pub(crate) hash: Digest,
    pub(crate) received: Digest,
}

impl Wire<'_> {
    pub(crate) fn open(self, document: &[u8]) -> Result<Opened, Error> {
        let payload_type = self.payload_type.as_deref().unwrap_or_default();
        if payload_type != PAYLOAD_TYPE {
            return Err(Error::PayloadTypeUnknown(crate::error::clip(payload_type)));
        }
        let signatures = self.signatures.unwrap_or_default();
        if signatures.count > MAX_SIGNATURES {
            return Err(Error::TooManySignatures(signatures.count));
        }
        let signatures = open_signatures(&signatures.items)?;
        let mut text = self
            .payload
            .as_deref()
            .map(Cow::Borrowed)
            .unwrap_or_default();
        let payload = if let Some(payload) = base64::decode_standard(&text) {
            payload
        } else {
            let payload = base64::decode(&text).ok_or(Error::PayloadNotBase64)?;
            text = base64::encode(&payload).into_bytes().into();
            payload
        };
        let (head, tail) = around_payload(payload_type, &signatures);
        let (received, hash) = digests(document, [head.as_bytes(), &text, tail.as_bytes()]);
        let envelope = Envelope {
            payload_type: payload_type.to_owned(),
            payload,
            signatures,
        };
        Ok(Opened {
            envelope,
            hash,
            received,
        })
    }
}

/// Returns the digests of the document and of the compact form, hashing only once where both are the same bytes.
fn digests(document: &[u8], compact: [&[u8]; 3]) -> (Digest, Digest) {
    let mut rest = Some(document);
    for part in compact {
        rest = rest.and_then(|bytes| bytes.strip_prefix(part));
    }
    if rest == Some(&[]) {
        let digest = Digest::of(document);
        return (digest, digest);
    }
    (Digest::of(document), Digest::of_parts(&compact))
}

fn open_signatures(signatures: &[WireSignature<'_>]) -> Result<Vec<Signature>, Error> {
    let mut opened = Vec::new();
    for (index, wire) in signatures.iter().enumerate() {
        let text = wire.sig.as_deref().unwrap_or_default();
        let sig = base64::decode(text).ok_or(Error::SignatureNotBase64(index + 1))?;
        if sig.is_empty() {
            return Err(Error::Unsigned);
        }
        opened.push(Signature {
            keyid: wire.keyid.as_deref().unwrap_or_default().to_owned(),
            sig: decoded_to_the_end(sig),
        });
    }
    if opened.is_empty() {
        return Err(Error::Unsigned);
    }
    Ok(opened)
}

/// Until 2026 Chainloop wrote the signature in bundles as base64 of base64. What spells at least 32 bytes
/// is that: no scheme has a shorter signature, and none yields 43 bytes that all happen to be such letters.
/// However often it was encoded, it is one signature: otherwise the compact form would be another attestation.
fn decoded_to_the_end(mut sig: Vec<u8>) -> Vec<u8> {
    const SHORTEST: usize = 32;
    while let Some(decoded) = base64::decode_standard(&sig)
        && decoded.len() >= SHORTEST
    {
        sig = decoded;
    }
    sig
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right side is what Go 1.26 prints, except the solidus, which shows that it is left alone.
    #[test]
    fn strings_are_escaped_as_go_does() {
        let text = "a<b>&c\u{2028}\u{2029}\u{1}\u{8}\u{c}\n\r\t\"\\é/";
        let expected = r#""a\u003cb\u003e\u0026c\u2028\u2029\u0001\b\f\n\r\t\"\\é/""#;
        assert_eq!(go_string(text), expected);
    }

    #[test]
    fn the_encoding_that_is_signed_is_that_of_the_standard() {
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            expected
        );
    }

    #[test]
    fn an_envelope_is_written_in_the_order_of_chainloop() {
        let envelope = Envelope {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: b"{}".to_vec(),
            signatures: vec![Signature {
                keyid: "a&b".to_owned(),
                sig: vec![0xfb, 0xff],
            }],
        };
        let expected = r#"{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"keyid":"a\u0026b","sig":"+/8="}]}"#;
        assert_eq!(String::from_utf8(envelope.compact()).unwrap(), expected);
        assert_eq!(envelope.hash(), Digest::of(expected.as_bytes()));
    }

    #[test]
    fn only_what_can_be_a_signature_is_decoded_to_the_end() {
        let signature = vec![7; 64];
        assert_eq!(
            decoded_to_the_end(base64::encode(&signature).into_bytes()),
            signature
        );
        assert_eq!(decoded_to_the_end(signature.clone()), signature);
        assert_eq!(decoded_to_the_end(b"test".to_vec()), b"test");
    }
}
