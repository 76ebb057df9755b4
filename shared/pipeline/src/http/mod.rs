//! The API: REST and JSON under `/v1`.
//!
//! Each module has one noun's routes and handlers; [`functions`] lists the Lambda functions that serve them. The
//! authorizer has found the caller. Errors are RFC 9457 problems with stable codes.

mod attachment_pages;
pub mod attachments;
pub mod attestations;
pub mod audit_log;
pub mod deliveries;
pub mod functions;
pub mod idempotency;
pub mod intakes;
pub mod integrations;
pub mod issuers;
pub mod jobs;
pub mod materials;
pub mod openapi;
pub mod organization;
pub mod places;
mod problems;
pub mod registrations;
mod request;
mod route;
mod router;
pub mod sign_in;
pub mod tokens;
pub mod trust_policies;
pub mod workflows;

pub use request::{Answer, BODY_MAX_BYTES, Call, Caller, ClaimIds, Parameters, Request, Response};
pub use route::{Audited, Description, Handler, Route};
pub use router::{answer, too_large};
