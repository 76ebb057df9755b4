//! Stub of the AWS services that the functions call, as far as they call them: in memory, on loopback, over TLS. Each call
//! is written down, so that calls can be counted.

mod bucket;
mod calls;
mod cloud;
mod expression;
mod server;
mod services;
mod table;

pub use calls::{Call, Calls};
pub use cloud::Cloud;
pub use server::{Server, Service};
pub use table::Table;
