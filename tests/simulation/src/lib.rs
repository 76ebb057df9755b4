//! Runs the real pipeline in a world where everything goes wrong, and holds it against its promise.
//!
//! A run is a seed. Time moves from event to event; functions are futures whose every operation waits twice,
//! before it takes effect and before its answer is heard, so that other functions, timeouts and crashes
//! come in between anywhere. What is refused, lost, repeated, late or stale follows from the seed, and so
//! does what clients, operators and third parties do. `laws` says what must hold; a run that breaks one is
//! replayed, and read, with `simulate --seed N --trace`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod coverage;
mod executor;
mod fault;
mod function;
mod laws;
mod neighbours;
mod operators;
mod peer;
mod queue;
mod random;
mod scenario;
mod store;
mod world;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::Once;

use integrations::Http;
use integrations::http::Guard;

pub use crate::coverage::Coverage;
pub use crate::laws::Violation;
pub use crate::neighbours::first_attempts;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// Outcome of a seed's run.
#[derive(Debug)]
pub struct Outcome {
    pub violation: Option<Violation>,
    pub coverage: Coverage,
    /// Log of the run, line by line, if requested.
    pub log: Vec<String>,
    /// The same for the same run, and another for another.
    pub hash: u64,
    pub events: u64,
}

thread_local! {
    /// Why the code that is run here panicked.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs seeds, one at a time.
pub struct Simulator {
    http: Http,
}

impl Default for Simulator {
    fn default() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            // A delivery function survives a panic, and its law is broken all the same.
            let others = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| match peer::Here::is_some() {
                true => PANIC.set(Some(info.to_string())),
                false => others(info),
            }));
        });
        Self {
            http: Http::new(Guard::default()),
        }
    }
}

impl Simulator {
    pub fn run(&self, seed: u64, traced: bool) -> Outcome {
        PANIC.set(None);
        let world = world::World::new(seed, self.http.clone(), traced);
        let here = peer::Here::is(&world);
        let ran = std::panic::catch_unwind(AssertUnwindSafe(|| scenario::run(&world)));
        drop(here);
        // One that panicked in the midst of a law leaves it borrowed, and has said enough.
        let panic = PANIC.take().or_else(|| ran.err().map(|_| String::new()));
        let laws = world.laws.try_borrow_mut();
        let (violation, coverage) = laws.map_or_else(
            |_| (None, Coverage::default()),
            |mut laws| (laws.broken.take(), std::mem::take(&mut laws.coverage)),
        );
        let panic = panic.map(|detail| Violation {
            law: "nothing panics",
            detail,
        });
        let outcome = Outcome {
            violation: panic.or(violation),
            coverage,
            log: world.take_log(),
            hash: world.hash(),
            events: world.executor.events(),
        };
        world.executor.clear();
        outcome
    }
}
