//! Faults, their frequency and their duration.

use std::cell::{Cell, RefCell};

use crate::random::Random;
use crate::{MINUTE, SECOND};

macro_rules! faults {
    ($($name:ident $text:literal),+ $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($name),+ }

        impl Fault {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

faults! {
    ReadFails "a read fails",
    WriteRefused "a write is refused",
    WriteAmbiguous "a write succeeds and says it failed",
    WriteLate "a write fails and happens later",
    SendFails "a send fails",
    SendPartly "a send fails in part",
    SendAmbiguous "a send succeeds and says it failed",
    SendDuplicated "a message comes twice",
    SendDelayed "a message comes late",
    IndexStale "the indexes lag",
    TableDown "the table is down",
    QueueDown "the queues are down",
    BucketDown "the bucket is down",
    SecretsDown "the secrets are down",
    QueueStopped "a queue hands nothing over",
    Slow "the platform is slow",
    Skew "a clock is off",
    Crash "a function crashes",
    Timeout "a function runs out of time",
    Poison "a message cannot be read",
    DeadLetter "a message becomes a dead letter",
    TwoReconcilers "two reconcilers run at once",
    PostedAgain "a client posts again",
    AcceptanceLost "a client does not hear that it was accepted",
    MaterialLate "a material comes late",
    MaterialNever "a material never comes",
    StoreSlow "a store is slow",
    StoreFails "a store answers 503",
    StoreLies "a store sends other bytes",
    StoreHangs "a store never answers",
    Detached "an attachment is removed",
    Deregistered "a registration is deleted",
    PartyDown "the third party is down for long",
    PartyBusy "the third party answers 503",
    PartyBreaks "the third party answers 500",
    PartyLimits "the third party answers 429",
    PartyRefuses "the third party answers 404",
    PartyUnauthorized "the third party answers 401",
    PartyUnreached "the third party refuses the connection",
    PartySlow "the third party is slow",
    PartySilent "the third party's answer is lost",
    PartyHangs "the third party never answers",
    Panic "an integration panics",
    Skips "an integration skips",
    Continues "an integration continues later",
    Paused "a registration is paused",
    Resumed "a registration is resumed",
    Held "a delivery is held",
    DeliveredAgain "a delivery is delivered again",
    Cancelled "a delivery is cancelled",
    JobBegun "a job is begun",
    PlannedAgain "a further plan is written",
}

impl Fault {
    pub const fn bit(self) -> u64 {
        1 << self as u32
    }

    /// Faults that last for a while and concern everything.
    const LASTING: [Self; 6] = [
        Self::TableDown,
        Self::QueueDown,
        Self::BucketDown,
        Self::SecretsDown,
        Self::QueueStopped,
        Self::IndexStale,
    ];
}

/// Faults of a seed.
pub struct Faults {
    /// Chance of each fault, of ten thousand.
    chances: [Cell<u32>; Fault::ALL.len()],
    /// From, until, which.
    windows: RefCell<Vec<(u64, u64, Fault)>>,
    /// From then on nothing goes wrong any more.
    pub over_at: u64,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self {
            chances: std::array::from_fn(|_| Cell::new(0)),
            windows: RefCell::default(),
            over_at: 0,
        }
    }

    pub fn of(random: &Random, start: u64) -> Self {
        let over_at = start
            + match random.below(10) {
                0..=6 => random.between(5 * MINUTE, 120 * MINUTE),
                7..=8 => random.between(2 * 60 * MINUTE, 24 * 60 * MINUTE),
                _ => random.between(24 * 60 * MINUTE, 72 * 60 * MINUTE),
            };
        let faults = Self {
            chances: std::array::from_fn(|_| Cell::new(0)),
            windows: RefCell::default(),
            over_at,
        };
        let all = Fault::ALL;
        let (kinds, chances): (u64, &[u32]) = match random.below(20) {
            0..=2 => (0, &[1]),
            3..=12 => (random.between(1, 4), &[50, 200, 1000]),
            13..=16 => (random.between(8, 24), &[20, 100, 400]),
            _ => (random.between(1, 2), &[2000, 4000]),
        };
        for _ in 0..kinds {
            let chance = random.pick(chances);
            faults.chances[random.pick(all) as usize].set(chance);
        }
        for fault in Fault::LASTING {
            if faults.is_on(fault) {
                let begins = random.between(start, over_at);
                let (from, length) = match fault {
                    Fault::IndexStale => (start, over_at - start),
                    Fault::QueueStopped => (begins, random.between(10 * MINUTE, 45 * MINUTE)),
                    _ => (begins, random.between(30 * SECOND, 20 * MINUTE)),
                };
                let until = (from + length).min(over_at);
                faults.windows.borrow_mut().push((from, until, fault));
            }
        }
        faults
    }

    pub fn is_on(&self, fault: Fault) -> bool {
        self.chances[fault as usize].get() > 0
    }

    /// Reports whether a fault strikes now, with its chance multiplied by `weight`.
    pub fn strikes(&self, random: &Random, now: u64, fault: Fault, weight: u32) -> bool {
        let chance = self.chances[fault as usize].get();
        chance > 0 && now < self.over_at && random.chance((chance * weight).min(6000))
    }

    /// Reports whether a lasting fault lasts now.
    pub fn lasts(&self, now: u64, fault: Fault) -> bool {
        self.until(now, fault).is_some()
    }

    pub fn until(&self, now: u64, fault: Fault) -> Option<u64> {
        let windows = self.windows.borrow();
        let window = windows
            .iter()
            .find(|(from, until, which)| *which == fault && *from <= now && now < *until);
        window.map(|(_, until, _)| *until)
    }

    /// The lasting faults of this moment, as bits.
    pub fn lasting(&self, now: u64) -> u64 {
        let windows = self.windows.borrow();
        windows
            .iter()
            .filter(|(from, until, _)| *from <= now && now < *until)
            .fold(0, |bits, (_, _, fault)| bits | fault.bit())
    }
}
