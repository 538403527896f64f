//! The interface between the bus and the rest of the proxy: events that go out, and what the bus may do to the cache.

use std::time::Instant;

use triomphe::ThinArc;

/// What happened to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was written.
    Invalidate {
        /// XXH3-128 of the key, seed 0.
        hash: u128,
        /// The key.
        key: Key,
    },
    /// A key may or may not have been written: it must not be filled for a while.
    Quarantine {
        /// XXH3-128 of the key, seed 0.
        hash: u128,
        /// The key.
        key: Key,
    },
    /// Anything may or may not have been written, or may be yet.
    QuarantineAll,
    /// Everything may have changed (FLUSHALL, FLUSHDB, SWAPDB, a command whose keys are not known).
    Flush,
    /// A script may have written anything.
    Script {
        /// Its reply was lost: it may still be running.
        lost: bool,
        /// Whether services on the JSON subject have to drop everything.
        clear: bool,
    },
}

/// A key of a database. One word in size, because it is kept with each write until the reply is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(ThinArc<u32, u8>);

impl Key {
    /// A copy of the key's bytes, in this database.
    pub fn new(db: u32, bytes: &[u8]) -> Self {
        Key(ThinArc::from_header_and_slice(db, bytes))
    }

    /// Redis database number.
    pub fn db(&self) -> u32 {
        self.0.header.header
    }

    /// The key's bytes, for the JSON subject.
    pub fn bytes(&self) -> &[u8] {
        &self.0.slice
    }
}

/// The events of one read of an upstream socket, oldest first.
pub type Batch = Vec<Event>;

/// What the bus may do to the cache. Called from the bus's tasks, so an implementation must not block.
///
/// The calls of the fleet's subject come in order from one task, those of the JSON subject from another.
pub trait Sink: Send + Sync + 'static {
    /// Poison one key. `hash` is XXH3-128 of the key's bytes with seed 0.
    fn invalidate(&self, db: u32, hash: u128);
    /// Poison one key in every database: the JSON message names none.
    fn invalidate_key(&self, key: &[u8]);
    /// Poison one key and keep it from being filled for `max_staleness`: a write with an unknown outcome.
    fn quarantine(&self, db: u32, hash: u128);
    /// Drop everything and keep nothing for `max_staleness`: a write of unknown keys with an unknown outcome.
    fn quarantine_all(&self);
    /// Drop everything: generation + 1. `why` is for the log and the counters.
    fn flush(&self, why: &'static str);
    /// A peer ran a script that may have written anything; with `lost` it may still be running. What follows from that is this
    /// proxy's own setting (`scripts`).
    fn script(&self, lost: bool);
    /// A peer ran a command that may have changed anything, the server's functions included.
    fn changed(&self);
    /// Poison every key that matches a Redis glob.
    fn invalidate_pattern(&self, glob: &[u8]);
    /// All that the server routed before the probe was sent has been applied; good until `until` (probe's send
    /// time + 1 s). A later call never names an earlier instant.
    fn lease(&self, until: Instant);
    /// `true`: degraded whatever the lease says, because the bus is not connected, or a peer was lost and may
    /// still be writing. `false`: over; the flush that has to come first was already asked for.
    /// Called on changes only; `true` is the first call.
    fn set_doubtful(&self, doubtful: bool);
}
