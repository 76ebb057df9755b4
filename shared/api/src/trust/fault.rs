//! Faults of a policy, and the limits that it has to keep.

/// Maximum number of signers in a policy.
pub const MAX_SIGNERS: usize = 16;

/// Maximum size of a PEM text, of a key or of certificates.
pub const MAX_PEM_BYTES: usize = 16 * 1024;

/// Maximum size of a trusted root.
pub const MAX_ROOT_BYTES: usize = 64 * 1024;

/// Maximum length of a signer's name, in characters.
pub const MAX_NAME: usize = 64;

/// Maximum length of an issuer, an identity and an ARN, in bytes.
pub const MAX_TEXT: usize = 512;

/// Maximum number of runs of `*` in a glob.
pub const MAX_WILDCARDS: usize = 8;

/// Why a policy cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{0} signers: the limit is {MAX_SIGNERS}")]
    TooManySigners(usize),
    #[error("threshold: it is at least 1")]
    ThresholdZero,
    /// A bundle has one certificate, for one signature: signers with certificates reach a threshold of one.
    #[error(
        "threshold {threshold}: these signers can have no more than {reachable} keys in one attestation"
    )]
    ThresholdOutOfReach { threshold: usize, reachable: usize },
    #[error("signer {0:?}: a name has 1 to {MAX_NAME} letters, digits, `-`, `_` and `.`")]
    Name(String),
    #[error("signer {0:?}: another signer has this name")]
    NameTaken(String),
    #[error("signer {name:?}: signer {other:?} has the same key")]
    KeyTaken { name: String, other: String },
    #[error("signer {name:?}: {problem}")]
    Signer { name: String, problem: Problem },
}

/// Fault in one signer. No text repeats what was given: it may be a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the PEM is larger than {MAX_PEM_BYTES} bytes")]
    PemTooLarge,
    #[error("the PEM is a private key; give the public key, and replace this pair")]
    PrivateKey,
    #[error("the PEM has to hold one `PUBLIC KEY` and nothing else")]
    NotOnePublicKey,
    #[error("the public key cannot be read, or is not spelled as DER asks")]
    KeyUnreadable,
    #[error("the public key is neither ECDSA on P-256 or P-384, nor Ed25519, nor RSA")]
    KeyUnsupported,
    #[error("the RSA key has {0} bits: 2048 to 8192 are allowed")]
    RsaBits(usize),
    #[error("the ARN is not that of a KMS key: arn:aws:kms:<region>:<account>:key/<id>")]
    NotKmsArn,
    #[error("the issuer has to be an https:// URL of at most {MAX_TEXT} bytes")]
    Issuer,
    #[error("the identity has to have 1 to {MAX_TEXT} bytes, without control characters")]
    IdentityText,
    #[error("the glob has at most {MAX_WILDCARDS} runs of `*` and no run of three")]
    GlobWildcards,
    #[error(
        "the identity has to name a host, or an e-mail's domain, before or after what varies: others could have one that fits"
    )]
    IdentityOpen,
    #[error("the prefix has to end in `/`, `@` or `:`, or a longer name would fit as well")]
    PrefixOpen,
    #[error("the PEM has to hold 1 to {0} certificates and nothing else")]
    Certificates(usize),
    #[error("a certificate cannot be read")]
    CertificateUnreadable,
    #[error("a certificate is not that of an authority")]
    NotAuthority,
    #[error("the organization is not a UUID")]
    NotUuid,
    #[error("the trusted root is larger than {MAX_ROOT_BYTES} bytes")]
    RootTooLarge,
    #[error("the trusted root cannot be read")]
    RootUnreadable,
    #[error(
        "the trusted root has no certificate authority, or neither a log nor a timestamp authority"
    )]
    RootIncomplete,
}
