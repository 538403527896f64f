//! Remembers strings that were too large to fetch whole for a command that reads a part of them.

use std::cell::RefCell;

use crate::near_cache::KeyId;

/// From this stored size on, Redis itself looks into a string: to fetch it would cost more.
const LARGE: usize = 16 << 10;

/// Number of places. Two strings with the same place forget each other, which costs time only.
const PLACES: usize = 16 << 10;

/// The large strings that a worker has met. 64 KB, once there is one.
#[derive(Debug, Default)]
pub struct LargeStrings(RefCell<Vec<u32>>);

impl LargeStrings {
    /// Whether this string was large when it was last fetched.
    pub(crate) fn has(&self, key: KeyId) -> bool {
        let (place, mark) = place_of(key);
        self.0.borrow().get(place) == Some(&mark)
    }

    /// Notes the stored size of a string.
    pub(crate) fn note(&self, key: KeyId, bytes: usize) {
        if bytes >= LARGE {
            let mut places = self.0.borrow_mut();
            places.resize(PLACES, 0);
            let (place, mark) = place_of(key);
            places[place] = mark;
        }
    }
}

/// The place of a key, and what stands there if it is this key. Never 0.
fn place_of(key: KeyId) -> (usize, u32) {
    let bits = key.bits();
    (bits as usize % PLACES, (bits >> 32) as u32 | 1)
}

#[cfg(test)]
mod tests {
    use super::{KeyId, LARGE, LargeStrings};

    #[test]
    fn only_large_strings_are_remembered() {
        let (strings, large, small) = (LargeStrings::default(), KeyId::new(0, b"large"), KeyId::new(0, b"small"));
        assert!(!strings.has(large));
        strings.note(large, LARGE);
        strings.note(small, LARGE - 1);
        assert!(strings.has(large) && !strings.has(small) && !strings.has(KeyId::new(1, b"large")));
    }
}
