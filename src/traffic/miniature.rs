//! A small copy of L1: it sees only the sampled keys, and its bounds are smaller in proportion. So it hits as often as an L1 of the whole
//! size would (Waldspurger et al., "Cache Modeling and Optimization using Miniature Simulations", ATC 2017).
//!
//! It is the same library with the same policy as L1, so admission, sizes, lives and writes have the effect that they have there. A curve
//! computed from reuse distances would be that of an LRU, which loses to scans what TinyLFU does not.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::config::{self, Policy};
use crate::near_cache::{EntryId, IdHasher, KeyId};

use super::accesses::{Access, Kept, bound};

/// Misses are counted in groups of keys. How they differ shows how far the whole sample may be off.
pub(super) const GROUPS: usize = 16;

/// An entry.
#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u32,
    deadline_ms: u64,
    generation: u64,
    /// The number of the access that added it.
    since: u64,
}

/// When keys were written last, as numbers of accesses.
pub(super) type Writes = HashMap<KeyId, u64>;

/// A small copy of an L1 of some size.
#[derive(Debug)]
pub(super) struct Miniature {
    /// The bounds of the whole L1.
    pub(super) bounds: config::L1,
    cache: Cache<EntryId, Held, BuildHasherDefault<IdHasher>>,
    /// Misses of the whole L1, as estimated by each group.
    pub(super) misses: [f64; GROUPS],
    /// Bytes of the entries, as of the last [`Miniature::tidy`].
    bytes: u64,
}

fn cache(bounds: &config::L1, shift: u32) -> Cache<EntryId, Held, BuildHasherDefault<IdHasher>> {
    // As in `NearCache::new`.
    let share = (bounds.max_memory / bounds.max_entries.max(1)).max(1);
    let share = u32::try_from(share).unwrap_or(u32::MAX);
    let policy = match bounds.policy {
        Policy::TinyLfu => EvictionPolicy::tiny_lfu(),
        Policy::Lru => EvictionPolicy::lru(),
    };
    Cache::builder()
        .max_capacity((bounds.max_memory as u64) >> shift)
        .weigher(move |_: &EntryId, held: &Held| held.bytes.max(share))
        .eviction_policy(policy)
        .build_with_hasher(BuildHasherDefault::default())
}

impl Miniature {
    /// An empty one, for a sample of one in 2^`shift` keys.
    pub(super) fn new(bounds: config::L1, shift: u32) -> Self {
        Miniature { cache: cache(&bounds, shift), bounds, misses: [0.0; GROUPS], bytes: 0 }
    }

    /// A read. Returns whether it hits.
    pub(super) fn read(&self, access: &Access, writes: &Writes) -> bool {
        self.cache.get(&access.id).is_some_and(|held| is_good(&held, access.id, access, writes))
    }

    /// Adds an entry, or replaces it.
    pub(super) fn fill(&self, access: &Access, kept: Kept, since: u64) {
        let deadline_ms = access.at_ms + u64::from(kept.life_ms);
        let held = Held { bytes: kept.bytes, deadline_ms, generation: access.generation, since };
        self.cache.insert(access.id, held);
        // Else moka would let a few dozen entries more in than there is room for, which is much for a small cache.
        self.cache.run_pending_tasks();
    }

    /// Counts a miss that stands for so many.
    pub(super) fn miss(&mut self, id: EntryId, weight: f64) {
        // Not the bits that chose the key.
        self.misses[id.key().bits() as usize % GROUPS] += weight;
    }

    /// Removes the entries that L1 would have dropped by the time of this access.
    pub(super) fn tidy(&mut self, now: &Access, writes: &Writes) {
        self.bytes = 0;
        for (id, held) in &self.cache {
            if is_good(&held, *id, now, writes) {
                self.bytes += u64::from(held.bytes);
            } else {
                self.cache.invalidate(&*id);
            }
        }
        self.cache.run_pending_tasks();
    }

    /// Goes on with a sample of another size.
    pub(super) fn resample(&mut self, shift: u32) {
        let before = std::mem::replace(&mut self.cache, cache(&self.bounds, shift));
        for (id, held) in before.iter().filter(|(id, _)| id.key().bits() <= bound(shift)) {
            self.cache.insert(*id, held);
        }
        self.cache.run_pending_tasks();
    }

    /// Number of its entries, and their bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.cache.entry_count(), self.bytes)
    }
}

fn is_good(held: &Held, id: EntryId, now: &Access, writes: &Writes) -> bool {
    held.generation == now.generation
        && now.at_ms < held.deadline_ms
        && writes.get(&id.key()).is_none_or(|written| held.since > *written)
}
