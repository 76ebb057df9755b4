//! The world as the pipeline sees it: the platform that it runs on, and the rows that it keeps there.

pub mod counts;
pub(crate) mod ids;
pub mod meter;
pub mod platform;
pub mod rows;
pub mod spans;
