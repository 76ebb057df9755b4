//! Problems: what is wrong with a request, as RFC 9457 tells it, each with a stable code.

use crate::inputs::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// A refused request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    pub status: u16,
    /// Stable: `name-taken`, `not-found` …
    pub code: String,
    pub title: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Faults of single inputs, all at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// The quota that is used up, where that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaUse>,
    /// Seconds of the header `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_secs: Option<u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// A quota, and how much of it is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Quota")]
pub struct QuotaUse {
    /// `attestations`, `bytes` and `exchanges` a day; `registrations`, `intakes`, `tokens`, `policies` in total; `checks` a minute by one token.
    pub name: String,
    pub limit: u64,
    pub used: u64,
    /// When it begins anew; none where something has to be deleted first.
    pub resets_at: Option<Timestamp>,
}

/// Maximum number of faults in an answer. A body of 256 KiB has room for 30,000, whose texts are more than a function
/// may answer.
const MAX_FAULTS: usize = 100;

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            status: code.status(),
            code: code.as_str().into(),
            title: code.title().into(),
            detail: detail.into(),
            faults: Vec::new(),
            quota: None,
            retry_after_secs: None,
            request_id: String::new(),
        }
    }

    /// An attestation that cannot be accepted, with one of [`REFUSED`] as its code.
    pub fn refused(code: &str, detail: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            title: "Attestation refused".into(),
            ..Self::new(Code::InvalidInputs, detail)
        }
    }

    /// Of more than [`MAX_FAULTS`], the first.
    pub fn faults(mut faults: Vec<Fault>) -> Self {
        let detail = match faults.len() {
            ..=MAX_FAULTS => "see the faults".to_owned(),
            many => format!("see the faults, the first {MAX_FAULTS} of {many}"),
        };
        faults.truncate(MAX_FAULTS);
        Self {
            faults,
            ..Self::new(Code::InvalidInputs, detail)
        }
    }

    pub fn field(name: &str, detail: impl Into<String>) -> Self {
        Self::faults(vec![Fault {
            field: name.into(),
            detail: detail.into(),
        }])
    }

    /// Reports whether the problem has this code.
    pub fn is(&self, code: Code) -> bool {
        self.code == code.as_str()
    }
}

macro_rules! codes {
    ($($variant:ident $code:literal $status:literal $title:literal $meaning:literal)*) => {
        /// A problem's stable code, with its status and title.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),* }
            }

            /// Returns the code of this text, unless a later version of the API made it.
            pub fn of(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|own| own.as_str() == code)
            }

            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status),* }
            }

            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }

            /// Meaning of the code, for the API's description.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),* }
            }
        }
    };
}

codes! {
    BadCursor "bad-cursor" 400 "Invalid cursor"
        "`cursor` is not the `next` of a page of this list"
    KindUnknown "kind-unknown" 400 "Unknown kind"
        "a control plane posted a kind that this API does not take"
    MalformedBody "malformed-body" 400 "Malformed body"
        "the body is not a JSON object"
    MalformedHeader "malformed-header" 400 "Malformed header"
        "a header is malformed; `detail` names it and says what it must be"
    Expired "expired" 401 "Token expired"
        "the token has expired"
    IssuerUnknown "issuer-unknown" 401 "Unknown issuer"
        "the organization has no issuer with the JWT's `iss`"
    JwtAlgorithm "jwt-algorithm" 401 "Algorithm not accepted"
        "the JWT is signed by another algorithm than RS256 and ES256"
    JwtAudience "jwt-audience" 401 "Wrong audience"
        "the JWT's `aud` is not the issuer's audience"
    JwtExpired "jwt-expired" 401 "JWT expired"
        "the JWT has expired"
    JwtKeyUnknown "jwt-key-unknown" 401 "Unknown key"
        "the issuer has no key with the JWT's `kid`"
    JwtMalformed "jwt-malformed" 401 "Malformed JWT"
        "the JWT cannot be read; `detail` says why"
    JwtNotYetValid "jwt-not-yet-valid" 401 "JWT not yet valid"
        "the JWT's time has not come"
    JwtSignature "jwt-signature" 401 "Wrong signature"
        "the JWT's signature is not by the issuer's key"
    JwtTooOld "jwt-too-old" 401 "JWT too old"
        "the JWT was issued more than 15 minutes ago"
    Unauthorized "unauthorized" 401 "Authentication required"
        "the request has no token, or one that nobody has"
    Forbidden "forbidden" 403 "Insufficient role"
        "the token's role does not permit this"
    NoRuleMatches "no-rule-matches" 403 "No rule matches"
        "the JWT is the issuer's, and no rule of the issuer fits its claims"
    NotNarrower "not-narrower" 403 "Not narrower"
        "the token that is wanted may do more than what is exchanged for it"
    RoleAbove "role-above" 403 "Insufficient role"
        "the token may not create or revoke one with that role"
    TokenRestricted "token-restricted" 403 "Token restricted"
        "the token is restricted to workflows, and this is not about one of them alone"
    WorkflowNotAllowed "workflow-not-allowed" 403 "Workflow not allowed"
        "the token or the intake is not for the workflow"
    IntegrationUnknown "integration-unknown" 404 "Unknown integration"
        "no integration has this ID"
    NotFound "not-found" 404 "Not found"
        "nothing has this name, ID or digest"
    MethodNotAllowed "method-not-allowed" 405 "Method not allowed"
        "the path does not take this method; `Allow` lists those that it takes"
    AlreadyExchanged "already-exchanged" 409 "Exchanged already"
        "the JWT was exchanged before, or the token comes from an exchange itself"
    AttachmentExists "attachment-exists" 409 "Attachment exists"
        "the registration is attached to the workflow with the same options: `allow_duplicate` attaches it again"
    Conflict "conflict" 409 "Conflict"
        "another request changed it at the same time: try again"
    Drain "drain" 409 "Drains cannot be cancelled"
        "a drain cannot be cancelled: pause its registration"
    Gone "gone" 409 "Nothing to deliver"
        "the delivery's attachment or attestation was deleted"
    InProgress "in-progress" 409 "Request in progress"
        "the first request with this `Idempotency-Key` is still in progress: send it again in a while"
    NameTaken "name-taken" 409 "Name taken"
        "the name is taken"
    NotFinal "not-final" 409 "Delivery is not final"
        "the delivery is not final yet, and a receipt is about one that is"
    Over "over" 409 "Delivery is final"
        "the delivery is final"
    Paused "paused" 409 "Registration paused"
        "its registration is paused: resume that"
    TokenNameTaken "token-name-taken" 409 "Name taken"
        "another token has the name"
    Overlapping "overlapping" 409 "Rotation in progress"
        "the intake's URL before its last rotation still works"
    TrustPolicyExists "trust-policy-exists" 409 "Trust policy exists"
        "the workflows have a trust policy: delete that first"
    IssuerExists "issuer-exists" 409 "Issuer exists"
        "another issuer of the organization has the URL"
    UnderWay "under-way" 409 "Attempt in progress"
        "the delivery is being attempted: try again in a moment"
    ChangedMeanwhile "changed-meanwhile" 412 "Precondition failed"
        "it changed since the `ETag` in `If-Match`: read it again"
    TooLarge "too-large" 413 "Payload too large"
        "the body has more than 256 KiB, or, of an attestation or of what a control plane posts, more than 6 MiB"
    AnswerTooLarge "answer-too-large" 422 "Answer too large"
        "the answer would be larger than the 6 MB that a function may give: ask for less"
    CheckFailed "check-failed" 422 "Check failed"
        "the third party refused it; `detail` says why"
    IdempotencyKeyReused "idempotency-key-reused" 422 "Idempotency key reused"
        "the `Idempotency-Key` was used for another request"
    InvalidInputs "invalid-inputs" 422 "Invalid inputs"
        "`faults` names the invalid inputs, 100 at most"
    NameTooLong "name-too-long" 422 "Name too long"
        "the name of a material, the predicate type or the run's ID has more than 512 bytes"
    NotDeliverable "not-deliverable" 422 "Not deliverable"
        "the attestation could not be delivered; `detail` says why"
    SignatureInvalid "signature-invalid" 422 "Signature invalid"
        "a trust policy requires signatures, and one in the name of its signers does not fit the attestation"
    SignatureMissingMaterial "signature-missing-material" 422 "Signature not verifiable"
        "a trust policy requires signatures, and what would prove them is missing or cannot be read"
    SignerThreshold "signer-threshold" 422 "Too few signers"
        "a trust policy requires more signers than signed the attestation"
    SignerUnknown "signer-unknown" 422 "Unknown signer"
        "a trust policy requires signatures, and none of its signers signed the attestation"
    TooManyAttachments "too-many-attachments" 422 "Too many attachments"
        "the attestation would go to too many attachments"
    WorkflowMissing "workflow-missing" 422 "Workflow missing"
        "neither the attestation nor the query names its workflow"
    WorkflowOther "workflow-other" 422 "Workflow mismatch"
        "the attestation names another workflow than the query, or it names none and was accepted as another's"
    WorkflowMalformed "workflow-malformed" 422 "Malformed workflow name"
        "the ID, the project or the name of the attestation's workflow has a character that selectors use, or that \
         nobody can type"
    WorkflowTooLong "workflow-too-long" 422 "Workflow name too long"
        "a part of the name of the attestation's workflow has more than 512 bytes"
    QuotaExceeded "quota-exceeded" 429 "Quota exceeded"
        "the organization has used up a quota: `quota` names it, and `Retry-After` says when it begins anew"
    TooManyChecks "too-many-checks" 429 "Too many checks"
        "the token has asked for checks or exchanges too often: `Retry-After` says when it may again"
    KeysPending "keys-pending" 503 "Keys not there yet"
        "the issuer's keys are being fetched: `Retry-After` says when to try again"
    Unreachable "unreachable" 503 "Service unavailable"
        "a service behind the API cannot be reached: try again"
}

/// Codes of `attestation::Error`, all with status 422: why an attestation is refused.
pub const REFUSED: &[&str] = &[
    "bare-statement",
    "bundle-type-unknown",
    "bundle-without-envelope",
    "byte-order-mark",
    "duplicate-key",
    "empty",
    "looks-like-sbom",
    "not-an-envelope",
    "not-json",
    "payload-not-base64",
    "payload-type-unknown",
    "predicate-invalid",
    "signature-not-base64",
    "statement-invalid",
    "statement-type-unknown",
    "too-deep",
    "too-many-entries",
    "too-many-materials",
    "too-many-signatures",
    "too-many-subjects",
    "unsigned",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_faults_the_first_are_told_and_how_many_there_are() {
        let faults = |count: usize| {
            let faults = (0..count).map(|at| Fault::new(&at.to_string(), "is not known"));
            Problem::faults(faults.collect())
        };
        assert_eq!(faults(100).detail, "see the faults");
        let many = faults(30_000);
        assert_eq!(many.faults, faults(100).faults);
        assert_eq!(many.detail, "see the faults, the first 100 of 30000");
    }
}
