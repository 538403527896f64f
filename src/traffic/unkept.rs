//! Why the last read of a key was not kept in L1. Written for reads that go to Redis, never for a hit.
//!
//! Of the keys that share a place, the last one is known.

use std::time::Instant;

use crate::metrics::outcome::NotKept;
use crate::near_cache::KeyId;

const PLACES: usize = 1 << 10;

/// A read that was not kept.
#[derive(Clone, Copy, Debug)]
pub struct Unkept {
    /// Why.
    pub why: NotKept,
    /// When.
    pub at: Instant,
    /// Size of its reply, if it came that far.
    pub bytes: Option<usize>,
    /// The number of the user who read.
    pub user: u32,
}

/// The last such read of each key.
#[derive(Debug)]
pub struct UnkeptReads(Box<[Option<(KeyId, Unkept)>]>);

impl Default for UnkeptReads {
    fn default() -> Self {
        UnkeptReads(vec![None; PLACES].into_boxed_slice())
    }
}

impl UnkeptReads {
    /// A read was not kept.
    pub fn note(&mut self, key: KeyId, unkept: Unkept) {
        self.0[key.bits() as usize % PLACES] = Some((key, unkept));
    }

    /// The last read of the key that was not kept.
    pub fn last(&self, key: KeyId) -> Option<Unkept> {
        self.0[key.bits() as usize % PLACES].filter(|(other, _)| *other == key).map(|(_, unkept)| unkept)
    }
}
