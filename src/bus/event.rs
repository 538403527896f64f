//! The interface between the bus and the rest of Shortstop: events to publish, and what the bus may do to the cache.

use std::sync::Arc;
use std::time::Instant;

use triomphe::ThinArc;

/// A change of the data in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was written.
    Invalidate {
        /// XXH3-128 of the key, seed 0.
        hash: u128,
        /// The key.
        key: Key,
    },
    /// A key may have been written: it must not be filled for a while.
    Quarantine {
        /// XXH3-128 of the key, seed 0.
        hash: u128,
        /// The key.
        key: Key,
    },
    /// Anything may have been written, or may still be written.
    QuarantineAll,
    /// Everything may have changed (FLUSHALL, FLUSHDB, SWAPDB, a command whose keys are not known).
    Flush,
    /// A script may have written anything.
    Script {
        /// Its reply was lost: it may still be running.
        lost: bool,
        /// Whether services on the JSON subject must drop everything.
        clear: bool,
    },
    /// Somebody wants the fleet to drop every key that matches a Redis glob of at most [`MAX_GLOB`] bytes. Redis was not changed.
    Forget {
        /// The glob.
        glob: Arc<[u8]>,
    },
    /// A string was turned from its compressed form to plain. Its value has not changed.
    Plain {
        /// XXH3-128 of the key, seed 0.
        hash: u128,
        /// The key.
        key: Key,
    },
}

/// Maximum length of the glob of [`Event::Forget`].
pub const MAX_GLOB: usize = 4096;

/// A key of a database. One word in size, because each pending write keeps one.
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

/// The events from one read of an upstream socket, the oldest first.
pub type Batch = Vec<Event>;

/// What the bus may do to the cache. Called from the bus's tasks, so an implementation must not block.
///
/// Calls for the fleet's subject come in order from one task, those for the JSON subject and for the status subject from others.
pub trait Sink: Send + Sync + 'static {
    /// Drop one key, which the instance `from` has written. `hash` is XXH3-128 of the key's bytes with seed 0.
    fn invalidate(&self, db: u32, hash: u128, from: u64);
    /// Drop one key in every database, because the JSON message names none.
    fn invalidate_key(&self, key: &[u8]);
    /// Drop one key and keep it from being filled for `max_staleness`, because a write has an unknown outcome.
    fn quarantine(&self, db: u32, hash: u128);
    /// Drop everything and keep nothing for `max_staleness`, because a write of unknown keys has an unknown outcome.
    fn quarantine_all(&self);
    /// Drop everything: starts a new generation. `why` is for the log and the counters.
    fn flush(&self, why: &'static str);
    /// A peer ran a script that may have written any key. With `lost` it may still be running. This Shortstop's own setting
    /// (`scripts`) decides what follows.
    fn script(&self, lost: bool);
    /// A peer ran a command that may have changed anything, including the server's functions.
    fn changed(&self);
    /// A service's message: drop every key that matches a Redis glob.
    fn invalidate_pattern(&self, glob: &[u8]);
    /// Somebody asked a peer for it: drop every key that matches a Redis glob.
    fn forget(&self, glob: &[u8]);
    /// A peer has turned a string to plain: do not compress it for a while.
    fn plain(&self, db: u32, hash: u128);
    /// Everything that the server routed before the probe was sent has been applied. Valid until `until` (the time the probe was
    /// sent + 1 s). A later call never names an earlier instant.
    fn lease(&self, until: Instant);
    /// `true`: degraded whatever the lease says, because the bus is not connected, or a peer was lost and may still be writing.
    /// `false`: no longer; the flush that must come first was already requested. Called on changes only; the first call is `true`.
    fn set_doubtful(&self, doubtful: bool);
    /// An instance has told of itself on the status subject, or somebody else has published there. Returns whether it was understood.
    fn status(&self, message: &[u8]) -> bool;
}
