//! The memory of an invocation, which the deliveries of its batch share: reserved before anything is read.

use std::cell::Cell;

use crate::ledger::schedule::{ROOM_BYTES, room_of};
use crate::store::rows::Delivery;

/// Memory for a heavy delivery: more than half, so that only one runs at a time.
const HEAVY: u64 = ROOM_BYTES / 2 + 1;

/// Remaining memory, in bytes.
pub(super) struct Room(Cell<u64>);

impl Default for Room {
    fn default() -> Self {
        Self(Cell::new(ROOM_BYTES))
    }
}

/// Memory reserved for one delivery until dropped.
pub(super) struct Reserved<'a> {
    room: &'a Room,
    bytes: Cell<u64>,
}

impl Room {
    /// A place for a delivery's attestation; none while others have it. A delivery whose last attempt crashed may be
    /// what made the function run out of memory, and has all of it to itself.
    pub(super) fn reserve(&self, delivery: &Delivery) -> Option<Reserved<'_>> {
        let bytes = match delivery.crashes {
            0 => room_of(delivery.size_bytes),
            _ => ROOM_BYTES,
        };
        self.take(bytes).then(|| Reserved {
            room: self,
            bytes: Cell::new(bytes),
        })
    }

    fn take(&self, bytes: u64) -> bool {
        let left = self.0.get().checked_sub(bytes);
        if let Some(left) = left {
            self.0.set(left);
        }
        left.is_some()
    }
}

impl Reserved<'_> {
    /// Raises the reservation to that of a heavy delivery. Returns `false` when too little memory remains.
    pub(super) fn is_enough_for_much(&self) -> bool {
        let more = HEAVY.saturating_sub(self.bytes.get());
        let is_enough = self.room.take(more);
        if is_enough {
            self.bytes.set(self.bytes.get() + more);
        }
        is_enough
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.room.0.set(self.room.0.get() + self.bytes.get());
    }
}
