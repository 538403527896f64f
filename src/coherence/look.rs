//! A look at what L1 has of a key, for those who ask (PROXY EXPLAIN). It changes nothing: no entry counts as used.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::near_cache::{Entry, KeyId};

use super::Coherence;
use super::departures::Departure;

/// What L1 has of a key.
#[derive(Debug)]
pub struct Look {
    /// The entries that have not been dropped, the oldest first. Not each of them may be served.
    pub entries: Vec<Seen>,
    /// A write of the key is in flight, or of another key that shares its guard, or one that may change any key.
    pub written: bool,
    /// The key is not kept until this time has passed, because the outcome of a write is unknown.
    pub quarantined: Option<Duration>,
    /// Reads of the key whose replies may be kept are in flight.
    pub fetched: bool,
    /// The last time that an entry of the key left L1, if it is known.
    pub departure: Option<Departure>,
}

/// An entry of the key.
#[derive(Debug)]
pub struct Seen {
    /// The entry.
    pub entry: Entry,
    /// Whether L1 serves it now.
    pub state: State,
    /// Time since its request was sent.
    pub age: Duration,
    /// Time until its deadline.
    pub left: Duration,
}

/// Whether an entry is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    Good,
    /// It was dropped with all others.
    Flushed,
    /// Its deadline has passed.
    Expired,
    /// It is older than allowed in this mode.
    Stale,
}

impl Coherence {
    /// What L1 has of a key.
    pub fn look(&self, key: KeyId, now: Instant) -> Look {
        let found = self.stripes.look(key, now);
        let permit = self.permit(now);
        let see = |entry: Entry| {
            let times = entry.times();
            let state = if times.generation != permit.generation {
                State::Flushed
            } else if permit.nanos >= times.deadline {
                State::Expired
            } else if permit.allows(&entry) {
                State::Good
            } else {
                State::Stale
            };
            let age = Duration::from_nanos(permit.nanos.saturating_sub(times.sent));
            Seen { state, age, left: Duration::from_nanos(times.deadline.saturating_sub(permit.nanos)), entry }
        };
        let everything = self.quarantined_until.load(Ordering::Acquire).saturating_sub(permit.nanos);
        let everything = Some(Duration::from_nanos(everything)).filter(|left| !left.is_zero());
        Look {
            entries: found.entries.into_iter().map(see).collect(),
            written: found.written || self.unbounded_writes.load(Ordering::Acquire) > 0,
            quarantined: found.quarantined.map(|until| until - now).max(everything),
            fetched: found.fetched,
            departure: self.departures.last(key),
        }
    }
}
