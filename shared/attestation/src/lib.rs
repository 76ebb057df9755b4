//! Reads what arrives: an attestation as Chainloop, or anyone who speaks in-toto, sends it.
//!
//! [`Attestation::parse`] takes the bytes of a request and says what they are: a bare DSSE envelope or a
//! Sigstore bundle around one, the in-toto statement inside it, and, where the predicate is Chainloop's,
//! the workflow run, the materials and the verdict of the policies.
//! [`Forwarded::parse`] reads the bodies in which a Chainloop control plane forwards them.
//! [`compose`] is the way back, for whoever has a build and wants an attestation over it.
//!
//! Everything here is a function of its input: no clock, no network, no environment. Signatures are read
//! but not verified, since that needs keys, and keys belong to an organization.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attestation;
mod base64;
mod bundle;
pub mod compose;
mod digest;
mod envelope;
mod error;
mod forwarded;
mod json;
mod material;
mod predicate;
mod scan;
mod statement;
pub mod text;

pub use attestation::{Attestation, Form};
pub use digest::{Digest, Hasher, InvalidDigest};
pub use envelope::{Envelope, PAYLOAD_TYPE, Signature, pae};
pub use error::Error;
pub use forwarded::{Forwarded, Origin, Unknown};
pub use material::{Material, MaterialType};
pub use predicate::{Metadata, Policy, PolicyStatus, Predicate, Strategy, Violation};
pub use statement::{CHAINLOOP_PREDICATE_TYPE, Statement, Subject};

/// The largest body an intake takes in: Lambda hands over no more. The caller checks it, since only the
/// caller knows which door the bytes came through; what is uploaded by itself may be larger.
pub const MAX_BYTES: usize = 6 * 1024 * 1024;

/// Maximum nesting depth of the JSON, in the received document and again in the payload. Chainloop's goes to ten.
pub const MAX_DEPTH: usize = 64;

/// Maximum number of subjects in a statement. A release of everything that a large monorepo builds has thousands.
pub const MAX_SUBJECTS: usize = 10_000;

/// Maximum number of materials in a predicate. Each becomes an object to fetch, and every delivery walks them all;
/// contracts list tens, and a thousand descriptors still fit the 400 KB of a ledger item.
pub const MAX_MATERIALS: usize = 1_000;

/// Maximum number of entries kept from all lists and maps together: subjects with their digests, annotations, `env`,
/// materials. Commas and opening brackets count as entries. Each turns a few bytes of input into a hundred of memory,
/// so the limit bounds the memory of an attestation; ten thousand subjects use half of it.
pub const MAX_ENTRIES: usize = 100_000;

/// Maximum number of signatures on an envelope. Most have one.
pub const MAX_SIGNATURES: usize = 100;

/// The limits of one attestation, as documents and help texts name them.
pub fn limits() -> String {
    format!(
        "{} MiB, {} subjects, {} materials and {} entries in all",
        MAX_BYTES / (1024 * 1024),
        thousands(MAX_SUBJECTS),
        thousands(MAX_MATERIALS),
        thousands(MAX_ENTRIES)
    )
}

/// `10,000`.
fn thousands(count: usize) -> String {
    match (count / 1_000, count % 1_000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    }
}

#[cfg(test)]
mod samples;
