//! Why entries left L1: the last departure of a key, for those who ask (PROXY EXPLAIN). No decision depends on it.
//!
//! A table of fixed size: of the keys that share a place, the last one is known. Written only where an entry is dropped, never for a hit.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::metrics::outcome::LeftL1;
use crate::near_cache::KeyId;

const PLACES: usize = 1 << 12;

/// The last time that an entry of a key left L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// When.
    pub at: SystemTime,
    /// Why.
    pub why: LeftL1,
    /// The incarnation of the instance that wrote the key, if another one did and has said so.
    pub by: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Departures(Box<[Mutex<Option<(KeyId, Departure)>>]>);

impl Default for Departures {
    fn default() -> Self {
        Departures((0..PLACES).map(|_| Mutex::default()).collect())
    }
}

impl Departures {
    fn place(&self, key: KeyId) -> &Mutex<Option<(KeyId, Departure)>> {
        &self.0[key.bits() as usize % PLACES]
    }

    pub(super) fn note(&self, key: KeyId, why: LeftL1, by: Option<u64>) {
        let departure = Departure { at: SystemTime::now(), why, by };
        *self.place(key).lock().unwrap_or_else(PoisonError::into_inner) = Some((key, departure));
    }

    pub(super) fn last(&self, key: KeyId) -> Option<Departure> {
        let known = *self.place(key).lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|(other, _)| *other == key).map(|(_, departure)| departure)
    }
}

#[cfg(test)]
mod tests {
    use super::{Departures, LeftL1, PLACES};
    use crate::near_cache::KeyId;

    #[test]
    fn the_last_key_of_a_place_is_known() {
        let departures = Departures::default();
        // Two keys of one place: they differ in the upper half alone.
        let key = KeyId::from_hash(0, 7);
        let other = KeyId::from_hash(0, 7 | 1 << 64);
        assert_eq!(key.bits() as usize % PLACES, other.bits() as usize % PLACES);
        departures.note(key, LeftL1::Written, None);
        departures.note(key, LeftL1::Invalidated, Some(9));
        let last = departures.last(key).expect("it was noted");
        assert_eq!((last.why, last.by, departures.last(other)), (LeftL1::Invalidated, Some(9), None));
        departures.note(other, LeftL1::Evicted, None);
        assert!(departures.last(key).is_none() && departures.last(other).is_some());
    }
}
