//! Rules without a platform: each is a function of a row and the time.

pub mod accounting;
pub mod breaker;
pub mod delivery;
pub mod schedule;
