//! The largest values that have passed: of reads from Redis and of writes. A table of fixed size; nothing is scanned.
//!
//! The reply to a read that is not kept does not know its key, only the key's id. The next read of the key names it.

use std::time::SystemTime;

use crate::near_cache::KeyId;

/// How many values are remembered.
pub const MOST: usize = 64;

/// A large value.
#[derive(Clone, Debug)]
pub struct BigKey {
    /// The key's id.
    pub id: KeyId,
    /// Database and key. `None` until a request has named it.
    pub named: Option<(u32, Box<[u8]>)>,
    /// Size of the value as clients see it, when it had its place last.
    pub bytes: usize,
    /// When that was.
    pub at: SystemTime,
    /// Whether it was written then; else it was read.
    pub written: bool,
}

/// The largest values that one worker has seen.
#[derive(Debug, Default)]
pub struct BigKeys {
    keys: Vec<BigKey>,
    /// The smallest of them. When the table is full, only a larger value has a place.
    least: usize,
}

impl BigKeys {
    /// Whether a value of this size has a place in the table. A key of the table whose value has shrunk keeps its former size.
    #[inline]
    pub fn takes(&self, bytes: usize) -> bool {
        self.keys.len() < MOST || bytes > self.least
    }

    /// A value has passed. `named` is the database and the key, if they are known. Returns whether the next request for the key should
    /// name it.
    pub fn note(&mut self, id: KeyId, bytes: usize, written: bool, named: Option<(u32, &[u8])>) -> bool {
        if !self.takes(bytes) {
            return false;
        }
        let key = BigKey { id, named: None, bytes, at: SystemTime::now(), written };
        let known = self.keys.iter().position(|known| known.id == id);
        let before = match known {
            Some(at) => std::mem::replace(&mut self.keys[at], key).named,
            None if self.keys.len() < MOST => {
                self.keys.push(key);
                None
            }
            None => {
                if let Some(smallest) = self.keys.iter_mut().min_by_key(|known| known.bytes) {
                    *smallest = key;
                }
                None
            }
        };
        let named = before.or_else(|| named.map(|(db, key)| (db, key.into())));
        let is_nameless = named.is_none();
        if let Some(noted) = self.keys.iter_mut().find(|known| known.id == id) {
            noted.named = named;
        }
        self.least = self.keys.iter().map(|known| known.bytes).min().unwrap_or_default();
        is_nameless
    }

    /// A key was requested.
    pub fn name(&mut self, id: KeyId, db: u32, key: &[u8]) {
        if let Some(known) = self.keys.iter_mut().find(|known| known.id == id && known.named.is_none()) {
            known.named = Some((db, key.into()));
        }
    }

    /// The values whose keys are known, in no order.
    pub fn all(&self) -> impl Iterator<Item = &BigKey> {
        self.keys.iter().filter(|key| key.named.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::{BigKeys, MOST};
    use crate::near_cache::KeyId;

    fn id(number: usize) -> KeyId {
        KeyId::new(0, &number.to_le_bytes())
    }

    #[test]
    fn the_largest_stay() {
        let mut keys = BigKeys::default();
        for number in 0..10 * MOST {
            // Each size once, in no order.
            let bytes = number * 7919 % (10 * MOST);
            assert!(!keys.note(id(number), bytes, true, Some((0, b"k"))));
        }
        let mut sizes: Vec<usize> = keys.all().map(|key| key.bytes).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, (9 * MOST..10 * MOST).collect::<Vec<_>>());
    }

    #[test]
    fn a_value_without_a_key_is_named_by_the_next_request() {
        let mut keys = BigKeys::default();
        assert!(keys.note(id(1), 100, false, None) && keys.all().next().is_none());
        keys.name(id(2), 0, b"other");
        assert!(keys.all().next().is_none());
        keys.name(id(1), 5, b"k");
        assert!(!keys.note(id(1), 50, true, None));
        let known = keys.all().next().expect("it has a name");
        assert_eq!((known.named.clone(), known.bytes, known.written), (Some((5, b"k"[..].into())), 50, true));
    }
}
