//! Contents of the table: every row, its key, and its sparse indexes.
//!
//! Every key contains the organization, except for tokens by hash (those of intakes too), quarantined messages, and the
//! due index. Each delivery has a separate partition, with its attempts: its ID follows from the attestation's plan, so
//! an attestation finds its deliveries without an index, a message needs only the ID, and a thousand deliveries of one
//! attestation do not share a partition.

mod change;
mod configuration;
mod ledger;
mod newest;
mod operations;
mod organization;
mod row;
mod trust;

pub(crate) use change::{Changed, Draft, change, change_or_insert};
pub use configuration::{
    Attachment, AttachmentIndex, Registration, RegistrationName, RegistrationTombstone,
};
pub use ledger::{
    Attempt, Attestation, CompletionPoll, Delivery, DigestAlias, DigestIndex, FetchTurn, Lease,
    Plan, PlanReason, Planned, QuarantinedMessage, Report, Stage, Step, permits,
};
pub(crate) use newest::{LAST, Newest, newest};
pub use operations::{
    Answer, AuditEntry, Claim, Destination, Event, Job, JobCursor, Lock, Notice, WorkflowRecord,
};
pub use organization::{
    Conditions, Exchange, ExchangedJwt, Intake, IntakeToken, IntakeUse, LastUse, Organization,
    Paced, Previous, Refusal, Token, TokenName, TokenUse,
};
pub(crate) use row::{CONFLICTS, reload};
pub use row::{
    Found, Row, SHARDS, Stored, Version, each, find_many, first_page, insert, is_at, last_page,
    load, load_after, load_all, load_many, parse, put, put_as, shard,
};
pub use trust::{Issuer, IssuerKeys, TrustPolicy, TrustPolicyLink, WorkflowLink};
