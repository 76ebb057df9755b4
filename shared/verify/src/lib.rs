//! Judges who signed an attestation, and verifies the [JWTs](Jwt) of CI systems.
//!
//! [`Judge::new`] takes a [`Policy`](api::trust::Policy) and says what is wrong with it. [`Judge::judge`] takes an attestation and the bytes
//! that it came in, and returns both the attestation and a [`Verdict`](api::trust::Verdict) as [`Judged`]. Everything here is a function of
//! its input: no network, no environment, and the time of receipt is an argument. One exception lies in the Sigstore
//! crates: they refuse log entries from after this machine's clock, which can turn `verified` into `unverifiable` and
//! nothing into `verified`.
//!
//! # Outcomes
//!
//! The payload and the signatures that are judged are those of the parsed [`Envelope`](attestation::Envelope), which
//! all else uses, not those of the received text. The configured keys are tried on every signature; `keyid` is a hint.
//! The result is a set of signers, and the threshold counts the distinct *keys* among them: a key that signed twice, or
//! that is also in a certificate, counts once.
//!
//! | outcome | when |
//! |---|---|
//! | `off` | The policy is off. Nothing was looked at. |
//! | `verified` | Configured signers with as many keys as the threshold asks for signed the envelope. What else is in it or in the bundle does not matter. |
//! | `invalid` | It is not what a configured signer signed. A signature does not fit the payload, although its `keyid` is that of a configured key, or its certificate was issued to a configured signer; or the log entry of such a certificate is about something else. |
//! | `unverifiable` | It may be by a configured signer, and what would prove it is missing, cannot be read, or is not known to the trusted root: no certificate where only certificates could prove it, a certificate that had expired when it was received and has no trusted timestamp, no log entry, an unknown log. Another bundle for the same envelope may raise this to `verified`. |
//! | `unknown-signer` | All could be read, and it is not by enough configured signers: another key, another identity, another authority. |
//!
//! Where several apply, the first of them does. Among `invalid`, `unverifiable` and `unknown-signer` the [`Code`](api::trust::Code) says
//! which case it is.
//!
//! # Certificates
//!
//! A certificate counts for a `keyless` signer if issuer and identity fit, a chain leads to an authority of the trusted
//! root, the signature over the envelope is by its key, and `sigstore-verify` finds proof in the bundle that it was used
//! while it was valid: SCT, log entry and timestamp, as far as the root has authorities for each. For a `chainloop`
//! signer, the subject's organization has to be the configured one, and a chain has to lead to the configured
//! authority at the time of a trusted timestamp, or else of receipt. In both chains, certificates have to be for
//! signing code. A bundle has one certificate and so has to have one signature.
//!
//! # Limits
//!
//! [`MAX_TRIES`], [`MAX_MATERIAL_BYTES`], [`MAX_MATERIAL_ITEMS`] and those of [`fault`](api::trust::fault) bound the work; more is
//! `unverifiable`. The payload's size is bounded by whoever takes it in.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod certificate;
mod chainloop;
mod judge;
mod jwt;
mod key;
mod keyless;
mod material;
mod provider;

pub use certificate::certificates_end;
pub use judge::{Judge, Judged, MAX_TRIES};
pub use jwt::{
    Claims, Jwk, Jwt, JwtFault, MAX_AGE_SECS, MAX_JWT_BYTES, MAX_KEY_SET_BYTES, MAX_KEYS,
    SKEW_SECS, key_set,
};
pub use keyless::pinned_root_age;
pub use material::{MAX_MATERIAL_BYTES, MAX_MATERIAL_ITEMS};

#[cfg(test)]
mod forge;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
