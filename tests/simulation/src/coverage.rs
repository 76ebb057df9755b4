//! Coverage of a run: combinations of fault and state that it has shown, and those that it has not.

use std::fmt;

use api::deliveries::State;

use crate::fault::Fault;

/// Progress of an attestation or a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    Accepting,
    Accepted,
    Pending,
    Delivering,
    Delivered,
    Skipped,
    Failed,
    Cancelled,
}

impl Reached {
    pub const ALL: [Self; 8] = [
        Self::Accepting,
        Self::Accepted,
        Self::Pending,
        Self::Delivering,
        Self::Delivered,
        Self::Skipped,
        Self::Failed,
        Self::Cancelled,
    ];

    pub fn of(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Delivering => Self::Delivering,
            State::Delivered => Self::Delivered,
            State::Skipped => Self::Skipped,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}

const FAULTS: usize = Fault::ALL.len();

/// Writes of rows in a state, by the faults that had met the row; and how often each fault happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    matrix: [[u64; 8]; FAULTS],
    happened: [u64; FAULTS],
    states: [u64; 8],
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            matrix: [[0; 8]; FAULTS],
            happened: [0; FAULTS],
            states: [0; 8],
        }
    }
}

impl Coverage {
    pub fn happened(&mut self, fault: Fault) {
        self.happened[fault as usize] += 1;
    }

    pub fn reached(&mut self, faults: u64, state: Reached) {
        self.states[state as usize] += 1;
        let mut left = faults;
        while left != 0 {
            self.matrix[left.trailing_zeros() as usize][state as usize] += 1;
            left &= left - 1;
        }
    }

    pub fn add(&mut self, other: &Self) {
        for fault in 0..FAULTS {
            self.happened[fault] += other.happened[fault];
            for state in 0..8 {
                self.matrix[fault][state] += other.matrix[fault][state];
            }
        }
        for state in 0..8 {
            self.states[state] += other.states[state];
        }
    }

    /// Faults that never happened and states that were never reached.
    pub fn missing(&self) -> Vec<String> {
        let faults = Fault::ALL
            .iter()
            .filter(|fault| self.happened[**fault as usize] == 0)
            .map(|fault| fault.name().to_owned());
        let states = Reached::ALL
            .iter()
            .filter(|state| self.states[**state as usize] == 0)
            .map(|state| format!("{state:?}"));
        faults.chain(states).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<40}{:>10}", "", "happened")?;
        for state in Reached::ALL {
            write!(f, "{:>11}", format!("{state:?}").to_lowercase())?;
        }
        writeln!(f)?;
        for fault in Fault::ALL {
            write!(
                f,
                "{:<40}{:>10}",
                fault.name(),
                self.happened[*fault as usize]
            )?;
            for state in Reached::ALL {
                write!(f, "{:>11}", self.matrix[*fault as usize][state as usize])?;
            }
            writeln!(f)?;
        }
        write!(f, "{:<40}{:>10}", "in all", "")?;
        for state in Reached::ALL {
            write!(f, "{:>11}", self.states[state as usize])?;
        }
        writeln!(f)
    }
}
