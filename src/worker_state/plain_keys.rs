//! Remembers which strings were turned to plain a short time ago, here or at a peer. They are not compressed again for a while, so that
//! values do not go back and forth between both forms.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::near_cache::KeyId;

/// Number of places. Two keys with the same place forget each other, which costs a conversion.
const PLACES: usize = 16 << 10;

/// The low bits of a place hold seconds, the others the key.
const SECONDS: u32 = 32;

/// The strings that stay plain. 128 KB, shared by all workers.
#[derive(Debug)]
pub struct PlainKeys {
    places: Box<[AtomicU64]>,
    begun: Instant,
}

impl PlainKeys {
    /// With no keys. `now` is the beginning of its time.
    pub fn new(now: Instant) -> Self {
        PlainKeys { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), begun: now }
    }

    /// A string was turned to plain.
    pub fn note(&self, key: KeyId, now: Instant) {
        let (place, mark) = self.place_of(key);
        place.store(mark | self.seconds(now), Ordering::Relaxed);
    }

    /// Whether a string was turned to plain less than `within` ago.
    pub(crate) fn has(&self, key: KeyId, now: Instant, within: Duration) -> bool {
        let (place, mark) = self.place_of(key);
        let found = place.load(Ordering::Relaxed);
        let since = found & ((1 << SECONDS) - 1);
        found ^ since == mark && since != 0 && self.seconds(now) < since + within.as_secs()
    }

    /// Never 0, and enough for a century.
    fn seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_secs() + 1
    }

    fn place_of(&self, key: KeyId) -> (&AtomicU64, u64) {
        let bits = key.bits();
        (&self.places[bits as usize % PLACES], bits >> SECONDS << SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Instant, KeyId, PlainKeys};

    #[test]
    fn a_string_stays_plain_for_a_while() {
        const WITHIN: Duration = Duration::from_secs(60);
        let begun = Instant::now();
        let (keys, one, other) = (PlainKeys::new(begun), KeyId::new(0, b"one"), KeyId::new(0, b"other"));
        assert!(!keys.has(one, begun, WITHIN));
        let later = begun + Duration::from_secs(100);
        keys.note(one, later);
        assert!(keys.has(one, later, WITHIN) && !keys.has(one, later, Duration::ZERO));
        assert!(!keys.has(other, later, WITHIN) && !keys.has(KeyId::new(1, b"one"), later, WITHIN));
        assert!(
            keys.has(one, later + WITHIN - Duration::from_secs(1), WITHIN) && !keys.has(one, later + WITHIN, WITHIN)
        );
    }
}
