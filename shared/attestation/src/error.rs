//! Why a document is no attestation, told to whoever sent it.
//!
//! Each text completes "failed to …". [`Error::code`] is for programs and does not change.

/// A reason to refuse a document. Sending it again will not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("read the attestation: the body is empty")]
    Empty,
    // Refused, not skipped: bytes are delivered as they came, and Go's parsers at the other end refuse a mark.
    #[error("read the attestation: it begins with a byte order mark; save it as UTF-8 without one")]
    ByteOrderMark,
    #[error("read the attestation: it is not JSON: {0}")]
    NotJson(String),
    #[error("read the attestation: {0} nests deeper than {max} levels", max = crate::MAX_DEPTH)]
    TooDeep(&'static str),
    #[error("read the attestation: {0}, and readers differ in which one counts")]
    DuplicateKey(String),
    #[error("read the attestation: it is neither a DSSE envelope nor a Sigstore bundle: {0}")]
    NotAnEnvelope(String),
    #[error(
        "read the attestation: this looks like {0}: push it with --material beside an attestation"
    )]
    LooksLikeSbom(&'static str),
    #[error(
        "read the attestation: this is a bare in-toto statement; sign it and send the DSSE envelope"
    )]
    BareStatement,
    #[error(
        "read the bundle: its media type {0:?} is not that of a Sigstore bundle v0.1, v0.2 or v0.3"
    )]
    BundleTypeUnknown(String),
    #[error(
        "read the bundle: it has no `dsseEnvelope`; a signature over a file alone attests nothing"
    )]
    BundleWithoutEnvelope,
    #[error("read the envelope: it has no signature")]
    Unsigned,
    #[error("read the envelope: it has {0} signatures, more than {max}", max = crate::MAX_SIGNATURES)]
    TooManySignatures(usize),
    #[error("read the envelope: signature {0} is not base64")]
    SignatureNotBase64(usize),
    #[error("read the envelope: its payload type {0:?} is not {expected:?}", expected = crate::PAYLOAD_TYPE)]
    PayloadTypeUnknown(String),
    #[error("read the envelope: its payload is not base64")]
    PayloadNotBase64,
    #[error("read the statement: the payload is not an in-toto statement: {0}")]
    StatementInvalid(String),
    #[error("read the statement: its type {0:?} is neither in-toto's v0.1 nor v1")]
    StatementTypeUnknown(String),
    #[error(
        "read the statement: it has {0} subjects, more than {max}; attest what lists them, as a manifest or a file of \
         checksums does, or fewer at a time",
        max = crate::MAX_SUBJECTS
    )]
    TooManySubjects(usize),
    #[error(
        "read the statement: its subjects, annotations, environment and materials have {0} entries, more than {max}",
        max = crate::MAX_ENTRIES
    )]
    TooManyEntries(usize),
    #[error("read the predicate: {0}")]
    PredicateInvalid(String),
    #[error("read the predicate: it has {0} materials, more than {max}", max = crate::MAX_MATERIALS)]
    TooManyMaterials(usize),
}

impl Error {
    /// A stable name for this reason.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Empty => "empty",
            Error::ByteOrderMark => "byte-order-mark",
            Error::NotJson(_) => "not-json",
            Error::TooDeep(_) => "too-deep",
            Error::DuplicateKey(_) => "duplicate-key",
            Error::NotAnEnvelope(_) => "not-an-envelope",
            Error::LooksLikeSbom(_) => "looks-like-sbom",
            Error::BareStatement => "bare-statement",
            Error::BundleTypeUnknown(_) => "bundle-type-unknown",
            Error::BundleWithoutEnvelope => "bundle-without-envelope",
            Error::Unsigned => "unsigned",
            Error::TooManySignatures(_) => "too-many-signatures",
            Error::SignatureNotBase64(_) => "signature-not-base64",
            Error::PayloadTypeUnknown(_) => "payload-type-unknown",
            Error::PayloadNotBase64 => "payload-not-base64",
            Error::StatementInvalid(_) => "statement-invalid",
            Error::StatementTypeUnknown(_) => "statement-type-unknown",
            Error::TooManySubjects(_) => "too-many-subjects",
            Error::TooManyEntries(_) => "too-many-entries",
            Error::PredicateInvalid(_) => "predicate-invalid",
            Error::TooManyMaterials(_) => "too-many-materials",
        }
    }

    /// Converts a `serde_json` error: a duplicate key to [`Error::DuplicateKey`], any other to `otherwise`.
    pub(crate) fn of_json(error: &serde_json::Error, otherwise: fn(String) -> Error) -> Error {
        let text = clip(&error.to_string());
        if text.starts_with("duplicate ") {
            Error::DuplicateKey(text)
        } else {
            otherwise(text)
        }
    }
}

/// Bounds text that may quote the sender's megabytes back at them.
pub(crate) fn clip(text: &str) -> String {
    clip_at(text, 200)
}

/// At most so many characters, and `…` where there were more.
pub(crate) fn clip_at(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_detail_is_clipped_between_characters() {
        let clipped = clip(&"é".repeat(5_000));
        assert_eq!(clipped.chars().count(), 201);
        assert!(clipped.ends_with('…'));
    }
}
