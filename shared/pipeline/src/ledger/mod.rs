//! Rules without a platform: each is a function of a row and the time.

pub mod accounting;
mod bounds;
pub mod breaker;
pub mod delivery;
pub mod message;
pub mod schedule;
