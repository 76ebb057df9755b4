//! Records to find and list: attestations, the workflows that they came from, jobs and the audit log.

pub mod attestations;
pub mod audit_log;
pub mod jobs;
pub mod notices;
pub mod workflows;
