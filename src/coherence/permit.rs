//! The right to serve from L1 at one moment. Checked for each hit: compares numbers, and reads no shared memory except the entry.

use std::time::Instant;

use crate::near_cache::{Entry, Times};

/// The right to serve from L1. Taken once for all requests that arrive in one read, and again after a request that flushes L1
/// (`Coherence::is_current`).
#[derive(Clone, Copy, Debug)]
pub struct ServePermit {
    /// The time that deadlines are compared with.
    pub now: Instant,
    pub(super) generation: u64,
    /// `now` in nanoseconds after the origin, like the times of entries.
    pub(super) nanos: u64,
    /// An entry's request must have been sent after this. `None`: nothing is served.
    pub(super) sent_after: Option<u64>,
}

impl ServePermit {
    /// Whether any entry may be served.
    pub fn serves(&self) -> bool {
        self.sent_after.is_some()
    }

    /// L1's generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// `now` in milliseconds after the start of L1.
    pub fn millis(&self) -> u64 {
        self.nanos / 1_000_000
    }

    /// Whether this entry may be served.
    #[inline]
    pub fn allows(&self, entry: &Entry) -> bool {
        entry.is_valid() && self.allows_times(entry.times())
    }

    #[inline]
    pub(super) fn allows_times(&self, times: Times) -> bool {
        times.generation == self.generation
            && self.nanos < times.deadline
            && self.sent_after.is_some_and(|oldest| times.sent >= oldest)
    }
}
