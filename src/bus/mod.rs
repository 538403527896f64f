//! The bus: tells the other Shortstops of a fleet which keys were written, and hears it from them, over NATS.
//!
//! One binary subject per fleet carries everything that must be in order (COHERENCE §5); a JSON subject speaks
//! to services that are not proxies. `message` and `json` are codecs, `peers` is a state machine without I/O,
//! `outbox` is the queue from the workers, `nats` is the only file that knows the client library.
//! The bus sees the cache through [`Sink`] alone, and it must never make a worker wait.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use triomphe::ThinArc;

use crate::config::NatsUrl;

mod json;
mod message;
mod nats;
mod outbox;
mod peers;

pub use nats::{Bus, BusError, PeerWatch, check_credentials, start};
pub use outbox::Outbox;

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

/// What happened to the store, in the words of the bus.
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
    /// Everything may have changed (FLUSHALL, FLUSHDB, SWAPDB, a command whose keys nobody can name).
    Flush,
    /// A script may have written anything.
    Script {
        /// Its reply was lost: it may still be running.
        lost: bool,
        /// Whether services that listen to the JSON are told to drop everything.
        clear: bool,
    },
}

/// A key of a database. One word: whoever writes a key carries it until the reply is here.
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

/// Longest queue by default, in entries (see [`Outbox::try_send`]).
pub const DEFAULT_QUEUE: usize = 1 << 18;

/// What [`start`] has to know. `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The servers, and what to log in with.
    pub nats: NatsUrl,
    /// Name of the fleet: one NATS subject token. The subject is `shortstop.v1.<fleet>`.
    pub fleet: String,
    /// Subject of the JSON contract, `None`: neither published nor heard.
    pub json: Option<String>,
    /// NATS credentials file (JWT and NKey seed).
    pub credentials: Option<PathBuf>,
    /// This process, this start: random (see [`random_incarnation`]). Redis connections carry it in their
    /// names as [`connection_name`], so that peers can see whether a lost proxy may still be writing.
    pub incarnation: u64,
    /// Bound of the [`Outbox`], in entries; also that of the JSON queue behind it.
    pub queue: usize,
}

impl Settings {
    /// Settings with no JSON, no credentials and the default queue.
    pub fn new(nats: NatsUrl, fleet: impl Into<String>, incarnation: u64) -> Self {
        Settings { nats, fleet: fleet.into(), json: None, credentials: None, incarnation, queue: DEFAULT_QUEUE }
    }
}

/// A number for [`Settings::incarnation`], from the operating system's randomness by way of the standard
/// library's hash keys: it has to be unlike any other, not secret.
pub fn random_incarnation() -> u64 {
    RandomState::new().hash_one((std::process::id(), std::thread::current().id()))
}

/// How the connections of an incarnation are named (CLIENT SETNAME). The fleet's name has no colon.
pub fn connection_name(fleet: &str, incarnation: u64) -> String {
    format!("shortstop:{fleet}:{incarnation:016x}")
}

/// The incarnation in a [`connection_name`]; none: the name is not one of this fleet.
pub fn incarnation_of(fleet: &str, name: &str) -> Option<u64> {
    let number = name.strip_prefix("shortstop:")?.strip_prefix(fleet)?.strip_prefix(':')?;
    let incarnation = u64::from_str_radix(number, 16).ok()?;
    (connection_name(fleet, incarnation) == name).then_some(incarnation)
}

/// An instance of the fleet that Redis shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its number.
    pub incarnation: u64,
    /// Where its connection comes from.
    pub address: String,
}

/// Counters and gauges of the bus. An event is one key, or one flush.
#[derive(Debug, Default)]
pub struct BusStats {
    /// Events handed to NATS on the fleet's subject.
    pub published: AtomicU64,
    /// Events heard from peers on the fleet's subject.
    pub received: AtomicU64,
    /// Events handed to the cache, from the fleet's subject and from the JSON subject.
    pub applied: AtomicU64,
    /// Holes seen in a peer's numbers.
    pub gaps: AtomicU64,
    /// Peers known now, lost ones included (gauge).
    pub peers: AtomicU64,
    /// Instances of the fleet that Redis shows and that are not heard (gauge).
    pub unheard: AtomicU64,
    /// Peers that have another Redis than this instance (gauge).
    pub other_upstream: AtomicU64,
    /// Connected to NATS and the inbound path proven by an echo (gauge).
    pub connected: AtomicBool,
    /// JSON messages handed to NATS.
    pub json_published: AtomicU64,
    /// JSON messages heard, those of Shortstops (this one too) not counted.
    pub json_received: AtomicU64,
    /// JSON messages that could not be understood.
    pub json_bad: AtomicU64,
    /// JSON messages that could not be sent; one `clear` makes up for them.
    pub json_dropped: AtomicU64,
    /// Messages on the fleet's subject that could not be understood.
    pub unreadable: AtomicU64,
    /// Events that were never sent on the fleet's subject: queue full, not connected, or NATS too slow.
    pub dropped: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::{connection_name, incarnation_of, random_incarnation};

    #[test]
    fn incarnations_differ() {
        assert_ne!(random_incarnation(), random_incarnation());
    }

    #[test]
    fn names_have_a_fixed_width() {
        assert_eq!(connection_name("blue", 0xab), "shortstop:blue:00000000000000ab");
    }

    #[test]
    fn names_are_read_back() {
        assert_eq!(incarnation_of("blue", &connection_name("blue", 0xab)), Some(0xab));
        for other in [
            "shortstop:green:00000000000000ab",
            "shortstop:blue",
            "shortstop:blue:",
            "shortstop:blue:ab",
            "shortstop:blue:00000000000000aB",
            "shortstop:blue:+0000000000000ab",
            "shortstop:bluer:00000000000000ab",
            "shortstop:00000000000000ab",
            "",
        ] {
            assert_eq!(incarnation_of("blue", other), None, "{other}");
        }
    }
}
