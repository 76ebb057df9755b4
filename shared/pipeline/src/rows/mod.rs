//! What the table holds: every row, its key, and the sparse indexes that it stands in.
//!
//! Organization is part of every key; tokens by hash (those of intakes too) and the due index are the two exceptions.
//! A delivery has a partition of its own, with its attempts: its id follows from the attestation's plan, so
//! an attestation finds its deliveries without an index, a message needs no more than the id, and a
//! thousand deliveries of one attestation do not meet in one partition.

mod configuration;
mod ledger;
mod newest;
mod operations;
mod organization;
mod row;

pub use configuration::{
    Attachment, AttachmentIndex, Match, Pause, Registration, RegistrationName,
    RegistrationTombstone, Selector, workflow_id,
};
pub use ledger::{
    Attempt, AttemptOutcome, Attestation, CompletionPoll, Delivery, DigestAlias, Lease, Plan,
    PlanReason, Planned, QuarantinedMessage, Stage, State,
};
pub(crate) use newest::{LAST, Newest, newest};
pub use operations::{
    Answer, AuditEntry, Claim, Destination, Filter, Job, JobCursor, JobKind, JobStatus, Lock,
    WorkflowRecord,
};
pub use organization::{
    Actor, Client, Conditions, Intake, IntakeToken, IntakeUse, Kind, LastUse, Organization, Paced,
    Previous, Refusal, Role, Token, TokenName,
};
pub(crate) use row::{CONFLICTS, parse, reload};
pub use row::{
    Row, SHARDS, Stored, last_page, load, load_after, load_all, load_many, put, put_as, shard,
};
